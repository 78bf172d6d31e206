package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/liverag/liverag/indexer"
)

func TestConditions(t *testing.T) {
	measured := indexer.Measured{Metric: "ndcg@10", Live: .65, Candidate: .64, Difference: .64 - .65}
	for _, tt := range []struct {
		text  string
		holds bool
	}{
		{">=0", false}, {">= -0.01", true}, {">-0.01", false}, {">-0.02", true}, {"<=-.01", true}, {"<0", true},
		{">=0.64 absolute", true}, {" > 0.64absolute ", false}, {"<0.65 absolute", true},
	} {
		c, err := parseCondition(strings.TrimSpace(tt.text))
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
		} else if got := c.holds(measured); got != tt.holds {
			t.Errorf("%s holds: %v", tt.text, got)
		}
	}
	for _, text := range []string{"", "0", "=0", "==0", ">=", ">=NaN", ">=Inf", ">=0 relative", ">=2s", "absolute"} {
		if _, err := parseCondition(text); err == nil {
			t.Errorf("%q is taken for a condition", text)
		}
	}
}

// TestPromoteGates asks for promotes on a condition, through the API and by the verb, with questions whose answers one generation has and the other has not.
func TestPromoteGates(t *testing.T) {
	dir := t.TempDir()
	questions := filepath.Join(dir, "questions.jsonl")
	p := startProgram(t, t.TempDir(), "--config", settingsFile(t, dir, "evals:\n  questions: "+questions+"\nembedder: hash/384\n"), "--embedder", "hash/384")
	var lines strings.Builder
	for i := range 12 {
		// What is asked for is a part of the document that chunks of the whole drown, and small ones do not.
		p.put(fmt.Sprintf("d/%d", i), prose(fmt.Sprintf("topic%d", i), 6))
		line, _ := json.Marshal(map[string]any{"query": fmt.Sprintf("topic%d", i), "documents": []string{fmt.Sprintf("d/%d", i)}})
		fmt.Fprintf(&lines, "%s\n", line)
	}
	first := p.live().Name
	p.replay("same", map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 100}})
	promote := func(name string, body any, status int, code string) answered {
		t.Helper()
		got, err := p.call("POST", "/generations/"+name+"/promote", body)
		if err != nil || got.status != status || got.code() != code {
			t.Errorf("promote %s with %v answers %d %s %v, want %d %s", name, body, got.status, got.body, err, status, code)
		}
		return got
	}
	gate := func(pairs ...string) map[string]any {
		g := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			g[pairs[i]] = pairs[i+1]
		}
		return map[string]any{"gate": g}
	}
	if got := promote("same", gate("ndcg@10", ">=0"), http.StatusConflict, "gate_unavailable"); !strings.Contains(string(got.body), "evals.questions") {
		t.Errorf("the setting is not named: %s", got.body)
	}
	write(t, dir, "questions.jsonl", []byte(lines.String()))
	for _, bad := range []any{gate(), gate("ndcg@10", "0"), gate("ndcg@10", ">=much"), gate("quality", ">=0"), `{"gate":{"ndcg@10":0}}`, `{"gate":">=0"}`, `[1]`} {
		promote("same", bad, http.StatusBadRequest, "invalid")
	}
	promote("same", map[string]any{"gates": map[string]string{"ndcg@10": ">=0"}}, http.StatusBadRequest, "unsupported")
	promote("none", gate("ndcg@10", ">=0"), http.StatusNotFound, "generation_unknown")
	if live := p.live().Name; live != first {
		t.Fatalf("%s was promoted", live)
	}

	got := promote("same", gate("recall@10", ">=0.01", "ndcg@10", ">=-1"), http.StatusConflict, "gate_failed")
	var failed struct {
		Detail, Candidate, Live string
		Gate                    []indexer.Measured
	}
	if err := json.Unmarshal(got.body, &failed); err != nil || failed.Candidate != "same" || failed.Live != first || len(failed.Gate) != 2 {
		t.Fatalf("%v in %s", err, got.body)
	}
	if m := failed.Gate[1]; m.Metric != "recall@10" || m.Holds || m.Live != 1 || m.Candidate != 1 || !failed.Gate[0].Holds || !strings.Contains(failed.Detail, m.String()) || strings.Contains(failed.Detail, "ndcg@10") {
		t.Errorf("the figures are %s", got.body)
	}
	if live := p.live().Name; live != first {
		t.Fatalf("%s was promoted", live)
	}
	var done struct {
		Name string
		Gate []indexer.Measured
	}
	if err := json.Unmarshal(promote("same", gate("recall@10", ">=0"), http.StatusOK, "").body, &done); err != nil || done.Name != "same" || len(done.Gate) != 1 || p.live().Name != "same" {
		t.Fatalf("%+v, %v", done, err)
	}
	p.must(nil, "POST", "/rollback", nil)
	if got, err := p.call("POST", "/rollback", nil); err != nil || got.code() != "nothing_to_roll_back" {
		t.Errorf("the second rollback answers %d %s %v", got.status, got.body, err)
	}

	// By the verb, on the server's questions and on others.
	fails(t, exitFailed, []string{`gate_failed.*recall@10 1\.0000 → 1\.0000`}, "promote", "same", "--gate", "recall@10>0", "--server", p.base)
	write(t, dir, "hard.jsonl", []byte(`{"query":"topic3","documents":["d/none"]}`+"\n"))
	hard := filepath.Join(dir, "hard.jsonl")
	fails(t, exitFailed, []string{`same does not pass against .*recall@10 0\.0000 → 0\.0000 \(\+0\.0000\), which is not >=0\.5 absolute`}, "promote", "same", "--set", hard, "--gate", "recall@10>=0.5 absolute", "--server", p.base)
	fails(t, exitUsage, []string{"no condition"}, "promote", "same", "--gate", "recall@10=0", "--server", p.base)
	fails(t, exitUsage, []string{"--gate"}, "promote", "same", "--set", hard, "--server", p.base)
	if live := p.live().Name; live != first {
		t.Fatalf("%s was promoted", live)
	}
	if out := p.verb("", "promote", "same", "--set", hard, "--gate", "recall@10>=0"); !strings.Contains(out, "recall@10 0.0000 → 0.0000 (+0.0000), which is >=0") || p.live().Name != "same" {
		t.Errorf("it says %q, and live is %s", out, p.live().Name)
	}
	if out := p.verb("", "promote", first, "--gate", "ndcg@10>=-1", "--gate", "mrr>=-1"); !strings.Contains(out, "ndcg@10") || !strings.Contains(out, "mrr") || p.live().Name != first {
		t.Errorf("it says %q, and live is %s", out, p.live().Name)
	}

	// Questions may say which words answer them, instead of documents: they are looked for in the hits' texts, by the client as by the server.
	write(t, dir, "questions.jsonl", []byte(`{"query":"topic3","passages":["topic3"]}`+"\n"))
	for _, by := range [][]string{{"--set", questions}, nil} {
		fails(t, exitFailed, []string{`recall@10 1\.0000 → 1\.0000`}, slices.Concat([]string{"promote", "same", "--gate", "recall@10>0", "--server", p.base}, by)...)
	}
}

// settingsFile writes a configuration file.
func settingsFile(t *testing.T, dir, content string) string {
	t.Helper()
	write(t, dir, "liverag.yaml", []byte(content))
	return filepath.Join(dir, "liverag.yaml")
}
