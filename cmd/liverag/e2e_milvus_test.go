package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/liverag/liverag/stream/streamtest"
	"github.com/liverag/liverag/vectordb/milvus"
)

// cluster is what processes share: a log, a store, and a corpus that nobody else has.
type cluster struct {
	t       *testing.T
	brokers string
	milvus  string
	corpus  string
}

// needCluster finds the Kafka that KAFKA_BROKERS names and the Milvus that the variable does. In CI there are both.
func needCluster(t *testing.T, variable, kind string) *cluster {
	t.Helper()
	c := &cluster{t: t, brokers: strings.Join(streamtest.NeedBrokers(t), ","), milvus: os.Getenv(variable)}
	if c.milvus == "" {
		how := fmt.Sprintf("%s is not set: export %s=$(.ci/milvus start %s /tmp/milvus-%s)", variable, variable, kind, kind)
		if os.Getenv("CI") == "true" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	c.corpus = fmt.Sprintf("e2e_%s_%d", kind, time.Now().UnixNano())
	t.Cleanup(c.clean) // registered first, so it runs when every process is gone
	return c
}

func (c *cluster) start(verb string) *program {
	c.t.Helper()
	return startVerb(c.t, verb, c.t.TempDir(), "--kafka", c.brokers, "--milvus", c.milvus, "--corpus", c.corpus, "--embedder", "hash/384")
}

// counted asks the server itself for the corpus' generations, and how many documents each has: a process that runs may have counted some time ago.
func (c *cluster) counted() map[string]int {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	store, err := milvus.Open(ctx, milvus.Config{Address: c.milvus, Corpus: c.corpus})
	if err != nil {
		c.t.Fatal(err)
	}
	defer store.Close()
	all, err := store.List(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]int{}
	for _, g := range all {
		stats, err := store.Stats(ctx, g.Name)
		if err != nil {
			c.t.Fatal(err)
		}
		out[g.Name] = int(stats.Documents)
	}
	return out
}

func (c *cluster) clean() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	store, err := milvus.Open(ctx, milvus.Config{Address: c.milvus, Corpus: c.corpus})
	if err != nil {
		c.t.Error(err)
		return
	}
	defer store.Close()
	all, err := store.List(ctx)
	if err != nil {
		c.t.Error(err)
	}
	for _, g := range all {
		if err := store.Drop(ctx, g.Name); err != nil {
			c.t.Error(err)
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(c.brokers, ",")...))
	if err != nil {
		c.t.Error(err)
		return
	}
	defer client.Close()
	deleteTopics(c.t, client, c.corpus, c.corpus+".dlq", c.corpus+".control", c.corpus+".feedback")
}

// changes makes a batch of n writes and deletes as POST /documents takes them, and applies them to the texts: an empty one stands for a document that was deleted.
func changes(r *rand.Rand, texts map[string]string, round, n int) string {
	var lines strings.Builder
	for i := range n {
		id := fmt.Sprintf("d/%03d", r.IntN(200))
		line := map[string]any{"id": id}
		if r.IntN(6) == 0 {
			line["deleted"], texts[id] = true, ""
		} else {
			texts[id] = fmt.Sprintf("Round %d, change %d of %s.\n\n%s", round, i, id, prose(id[2:], 1+r.IntN(8)))
			line["text"] = texts[id]
		}
		encoded, _ := json.Marshal(line)
		lines.Write(encoded)
		lines.WriteByte('\n')
	}
	return lines.String()
}

// holds compares everything that a process shows with what was written: every live document's text, and no other.
func (c *cluster) holds(p *program, in string, texts map[string]string) {
	c.t.Helper()
	alive := 0
	for id, text := range texts {
		doc, found := p.get(id)
		switch {
		case found != (text != ""):
			c.t.Errorf("%s: found is %v, and its text should be %.40q", id, found, text)
		case found && (doc.Text != text || doc.Generation != in):
			c.t.Errorf("%s holds %.40q in %s, not %.40q in %s", id, doc.Text, doc.Generation, text, in)
		}
		if text != "" {
			alive++
		}
	}
	if got := c.counted()[in]; got != alive {
		c.t.Errorf("%s has %d documents, want %d", in, got, alive)
	}
	for round := range 8 {
		f := p.ask(fmt.Sprintf("what does round %d say", round), map[string]any{"k": 50, "generation": in})
		if len(f.Hits) == 0 {
			c.t.Errorf("round %d finds nothing", round)
		}
		for _, h := range f.Hits {
			if text := texts[h.Document]; text == "" || h.End > len(text) || text[h.Start:h.End] != h.Text {
				c.t.Errorf("a hit of %s with %.40q, which is not what it holds", h.Document, h.Text)
			}
		}
	}
}

// TestSharedStore runs two processes that index and two that answer, on a real Kafka and a real Milvus.
func TestSharedStore(t *testing.T) {
	t.Parallel()
	for kind, variable := range map[string]string{"full": "MILVUS_FULL", "lite": "MILVUS_LITE"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c := needCluster(t, variable, kind)
			// Those who answer come first: what is written before anybody indexes is kept.
			one := c.start("serve")
			var w written
			one.must(&w, "PUT", "/documents/early?wait=1ms", `{"text":"Written before anybody indexes."}`)
			if w.Searchable == nil || *w.Searchable {
				t.Fatalf("searchable without anybody who indexes: %+v", w)
			}
			two := c.start("serve")
			indexers := []*program{c.start("index"), c.start("index")}
			if f := two.ask("before anybody indexes", map[string]any{"after": w.Token, "wait": "20s", "strict": true}); !slices.Contains(f.documents(), "early") {
				t.Errorf("the early document is not among %q", f.documents())
			}

			// What one of them waited for, the other one answers.
			texts := map[string]string{"early": "Written before anybody indexes."}
			for i := range 12 {
				texts[fmt.Sprint("kb/", i)] = fmt.Sprintf("Refunds of kind%d take %d days.", i, i)
				one.put(fmt.Sprint("kb/", i), texts[fmt.Sprint("kb/", i)])
				if f := two.ask(fmt.Sprintf("kind%d", i), map[string]any{"k": 20}); !slices.Contains(f.documents(), fmt.Sprint("kb/", i)) {
					t.Errorf("the other process finds %q for kind%d", f.documents(), i)
				}
			}
			for i := range 4 {
				texts[fmt.Sprint("kb/", i)] = ""
				two.remove(fmt.Sprint("kb/", i))
				if f := one.ask(fmt.Sprintf("kind%d", i), nil); slices.Contains(f.documents(), fmt.Sprint("kb/", i)) {
					t.Errorf("kb/%d is still found by the other process", i)
				}
			}
			mode := "dense"
			if kind == "lite" {
				mode = "hybrid"
			}
			if f := one.ask("refunds", nil); f.Mode != mode {
				t.Errorf("a question was answered in mode %s, want %s", f.Mode, mode)
			}

			// One that indexes is killed in the middle of a stream of changes.
			r := rand.New(rand.NewPCG(1, 2))
			for round := range 8 {
				at := []*program{one, two}[round%2]
				var took struct{ Accepted int }
				at.must(&took, "POST", "/documents", changes(r, texts, round, 150))
				if took.Accepted != 150 {
					t.Fatalf("%d of 150 changes were accepted", took.Accepted)
				}
				if round == 4 {
					// Some of the stream is searchable by now, so that the kill is in the middle of it.
					one.must(nil, "POST", "/retrieve", map[string]any{"query": "x", "max_staleness": "1s", "wait": "1s"})
					indexers[0].kill()
				}
			}
			one.applied()
			two.applied()
			first := one.live().Name
			c.holds(one, first, texts)
			c.holds(two, first, texts)

			// Another generation is built by whoever indexes, and all who answer move to it and back.
			two.replay("small", map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 100}})
			one.must(nil, "POST", "/generations/small/promote", nil)
			until(t, "seen by the other process", func() bool { return two.ask("refunds", nil).Generation.Name == "small" })
			c.holds(one, "small", texts)
			texts["late"] = "Written after the promote."
			two.put("late", texts["late"])
			if f := one.ask("after the promote", nil); f.Generation.Name != "small" || !slices.Contains(f.documents(), "late") {
				t.Errorf("after the promote: %q in %s", f.documents(), f.Generation.Name)
			}
			two.must(nil, "POST", "/rollback", nil)
			until(t, "back at the other process", func() bool { return one.ask("refunds", nil).Generation.Name == first })
			one.must(nil, "DELETE", "/generations/small", nil)
			if got := c.counted(); len(got) != 1 || got[first] == 0 {
				t.Errorf("after the drop the server holds %v, want %q alone", got, first)
			}
			until(t, "forgotten by the other process", func() bool {
				got, err := two.call("GET", "/generations/small", nil)
				return err == nil && got.status == http.StatusNotFound
			})

			// A new one takes its share, and the old one may go.
			c.start("index")
			if took := indexers[1].stop(); took > 10*time.Second {
				t.Errorf("it took %s to stop", took)
			}
			texts["last"] = "Indexed by the one that came last."
			one.put("last", texts["last"])
			two.applied()
			c.holds(two, first, texts)
		})
	}
}
