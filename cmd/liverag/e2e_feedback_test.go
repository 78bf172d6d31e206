package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/liverag/liverag/stream/streamtest"
)

// answer runs a verb against the program and returns what it printed, or how it failed.
func (p *program) answer(args ...string) (string, error) {
	p.t.Helper()
	cmd := liverag(p.t, append(args, "--server", p.base, "--data", p.data)...)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("liverag %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return string(out), err
}

// feedbackStory is the way of feedback: from a hit, through a crash, to a set that two generations are compared on.
func feedbackStory(t *testing.T, args ...string) {
	data := t.TempDir()
	p := startProgram(t, data, args...)
	p.put("kb/swifts.md", "# Swifts\n\nSwifts sleep in the air and never land on the ground.\n\n## Food\n\nThey eat insects and spiders that the wind carries.")
	p.put("kb/moles.md", "# Moles\n\nMoles dig tunnels below the ground and store earthworms there.")
	p.put("kb/owls.md", "# Owls\n\nOwls hunt mice at night without a sound.")
	var list struct {
		Feedback []struct {
			ID, Document, Chunk, Reason string
			Useful                      bool
		}
	}
	if p.must(&list, "GET", "/feedback", nil); len(list.Feedback) != 0 {
		t.Errorf("there is feedback before anybody gave it: %+v", list)
	}
	say := func(query, document, chunk string, useful bool) {
		t.Helper()
		got, err := p.call("POST", "/feedback", map[string]any{"query": query, "document": document, "chunk": chunk, "useful": useful, "reason": "said by a test"})
		if err != nil || got.status != http.StatusAccepted {
			t.Fatalf("feedback answers %d %s, %v", got.status, got.body, err)
		}
	}
	hit := p.ask("where do swifts sleep", nil).Hits[0]
	say("where do swifts sleep", hit.Document, hit.ID, true)
	say("who digs tunnels", "kb/owls.md", "", false)
	p.kill() // what was accepted is there
	p = startProgram(t, data, args...)
	say("who digs tunnels", "kb/moles.md", "", true)
	p.must(&list, "GET", "/feedback?limit=10", nil)
	if len(list.Feedback) != 3 || list.Feedback[0].Document != "kb/moles.md" || list.Feedback[2].Chunk != hit.ID || list.Feedback[2].Reason != "said by a test" || !list.Feedback[2].Useful {
		t.Fatalf("after a crash: %+v", list)
	}
	if got, err := p.call("POST", "/feedback", `{"query":"x","document":"y","useful":1}`); err != nil || got.status != http.StatusBadRequest || got.code() != "wrong_type" {
		t.Errorf("refused with %d %s, %v", got.status, got.body, err)
	}

	file := filepath.Join(t.TempDir(), "feedback.jsonl")
	if _, err := p.answer("eval", "feedback", "--out", file); err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(file)
	if err != nil || strings.Count(string(lines), "\n") != 2 || !strings.Contains(string(lines), `"grades":{"kb/moles.md":1,"kb/owls.md":0}`) {
		t.Errorf("the labelled set: %v, %s", err, lines)
	}
	var measured struct {
		Queries float64 `json:"queries"`
		MRR     float64 `json:"mrr"`
	}
	out, err := p.answer("eval", "retrieval", "--set", file, "--mode", "lexical", "--json")
	if err != nil || json.Unmarshal([]byte(out), &measured) != nil || measured.Queries != 2 || measured.MRR != 1 {
		t.Errorf("asked with it: %s, %v", out, err)
	}

	p.replay("small", map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 16}})
	var compared struct {
		Queries     float64 `json:"queries"`
		MRR         float64 `json:"mrr"`
		A, B        struct{ Chunks, Bytes float64 }
		Generations map[string]struct{ Name string }
	}
	out, err = p.answer("eval", "compare", "live", "small", "--feedback", "--mode", "lexical", "--json", "--gate", "mrr>=0")
	if err != nil || json.Unmarshal([]byte(out), &compared) != nil || compared.Queries != 2 || compared.MRR != 0 || compared.Generations["b"].Name != "small" || compared.B.Chunks <= compared.A.Chunks || compared.A.Bytes == 0 {
		t.Errorf("compared: %s, %v", out, err)
	}
	if took := p.stop(); took > 10*time.Second {
		t.Errorf("it took %s to stop", took)
	}
}

func TestFeedback(t *testing.T) {
	t.Parallel()
	feedbackStory(t)
}

func TestFeedbackRealKafka(t *testing.T) {
	t.Parallel()
	brokers := streamtest.NeedBrokers(t)
	corpus := fmt.Sprintf("feedback_%d", time.Now().UnixNano())
	t.Cleanup(func() {
		client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
		if err != nil {
			t.Error(err)
			return
		}
		defer client.Close()
		deleteTopics(t, client, corpus, corpus+".dlq", corpus+".control", corpus+".feedback")
	})
	feedbackStory(t, "--kafka", strings.Join(brokers, ","), "--corpus", corpus)
}
