package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestPromotesAcrossProcesses moves the alias to and fro through one process that answers, while clients ask it and another one, on a real Kafka and a real Milvus that
// one process indexes into. Every answer has to be of one generation and by its model, and every process has to follow. The two are of different models and dimensions.
func TestPromotesAcrossProcesses(t *testing.T) {
	c := needCluster(t, "MILVUS_FULL", "full")
	moves := scaled(t, "LIVERAG_CLUSTER_PROMOTES", 6)
	index := c.start("index")
	serving := []*program{c.start("serve"), c.start("serve")}
	const documents = 12
	for d := range documents {
		serving[0].must(nil, "PUT", documentPath(fmt.Sprintf("d/%d", d)), map[string]any{"text": prose(fmt.Sprintf("topic%d", d), 5)})
	}
	serving[0].applied()
	first := serving[0].live().Name
	serving[1].replay("second", map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 60}, "embedder": map[string]any{"model": "hash/64"}})
	if got := c.counted(); len(got) != 2 || got["second"] != documents {
		t.Fatalf("the server holds %v", got)
	}
	if p := serving[0].generations()[0].Progress; p.TokensEmbedded != nil || p.CostUSD != nil {
		t.Errorf("a process that indexes nothing says that %s", p.spent())
	}
	if p := index.generations()[0].Progress; p.TokensEmbedded == nil || *p.TokensEmbedded == 0 {
		t.Errorf("the one that indexes says %+v", p)
	}
	query := func(d int) string { return fmt.Sprintf("what is said of topic%d in paragraph %d", d, d%5) }
	known := map[string][]string{}
	for d := range documents {
		for _, name := range []string{first, "second"} {
			f := serving[0].ask(query(d), map[string]any{"generation": name, "k": 4})
			for _, h := range f.Hits {
				known[name+query(d)] = append(known[name+query(d)], fmt.Sprintf("%s %d-%d", h.Document, h.Start, h.End))
			}
		}
		if slices.Equal(known[first+query(d)], known["second"+query(d)]) {
			t.Fatalf("%q has the same answer in both", query(d))
		}
	}
	var (
		wg      sync.WaitGroup
		answers atomic.Int64
		stop    = make(chan struct{})
		mu      sync.Mutex
		wrong   []string
	)
	for i, p := range []*program{serving[0], serving[1]} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				q := query(rand.IntN(documents))
				got, err := p.call("POST", "/retrieve", map[string]any{"query": q, "k": 4})
				var f found
				var hits []string
				if err == nil && got.status == http.StatusOK {
					err = json.Unmarshal(got.body, &f)
				}
				for _, h := range f.Hits {
					hits = append(hits, fmt.Sprintf("%s %d-%d", h.Document, h.Start, h.End))
				}
				answers.Add(1)
				if err != nil || got.status != http.StatusOK || !slices.Equal(hits, known[f.Generation.Name+q]) {
					mu.Lock()
					wrong = append(wrong, fmt.Sprintf("process %d answers %d, %v, in %s with %q, want %q", i, got.status, err, f.Generation.Name, hits, known[f.Generation.Name+q]))
					mu.Unlock()
				}
			}
		})
	}
	// A process has moved when it says so itself, which costs it no look into the store.
	all := append([]*program{index}, serving...)
	var took, everywhere []time.Duration
	for move := range moves {
		goal := answers.Load() + int64(scaled(t, "LIVERAG_PROMOTE_ANSWERS", 20))
		until(t, "answered", func() bool { return answers.Load() >= goal })
		path, want := "/generations/second/promote", "second"
		if move%2 == 1 {
			path, want = "/rollback", first
		}
		begun := time.Now()
		var moved sync.WaitGroup
		for _, p := range all {
			moved.Go(func() {
				for end := begun.Add(patience); time.Now().Before(end); {
					if got, err := p.call("GET", "/freshness", nil); err == nil && generationOf(got) == want {
						return
					}
				}
			})
		}
		serving[move%2].must(nil, "POST", path, nil)
		took = append(took, time.Since(begun))
		moved.Wait()
		everywhere = append(everywhere, time.Since(begun))
	}
	close(stop)
	wg.Wait()
	for _, w := range wrong[:min(len(wrong), 10)] {
		t.Error(w)
	}
	for _, p := range serving {
		if name := p.ask("topic1", nil).Generation.Name; name != first {
			t.Errorf("at last an answer is of %s, want %s", name, first)
		}
	}
	slices.Sort(took)
	slices.Sort(everywhere)
	t.Logf("%d answers over %d moves; a move took %s (median, at most %s), and every process had moved %s after it was asked for (median, at most %s)",
		answers.Load(), moves, took[len(took)/2], took[len(took)-1], everywhere[len(everywhere)/2], everywhere[len(everywhere)-1])
	serving[1].must(nil, "DELETE", "/generations/second", nil)
	if got := c.counted(); len(got) != 1 || got[first] != documents {
		t.Errorf("after the drop the server holds %v", got)
	}
}

// generationOf is the live generation's name as a process sees it.
func generationOf(a answered) string {
	var f struct {
		Generation string `json:"generation"`
	}
	_ = json.Unmarshal(a.body, &f)
	return f.Generation
}
