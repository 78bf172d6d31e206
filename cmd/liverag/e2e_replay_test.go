package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/mockprovider"
)

// TestAReplayGoesOnWhereItWas runs replays by an endpoint that takes its time, several at once, pauses one, cancels another, and kills the program in the middle of it all. The endpoint
// counts what it is asked to embed; nothing else remembers a vector, since there is no cache: what is paid for twice is only what was in flight.
func TestAReplayGoesOnWhereItWas(t *testing.T) {
	const documents, kills = 150, 3
	var inputs atomic.Int64 // embedded by the endpoint
	var slow atomic.Bool
	slow.Store(true)
	address, _ := endpoint(t, "127.0.0.1:0", 64, func(cfg *mockprovider.Config) {
		cfg.Key = ""
		cfg.Vectors = func(ctx context.Context, dim int, texts []string) ([][]float32, error) {
			if slow.Load() {
				if err := sleep(ctx, time.Duration(len(texts))*time.Millisecond); err != nil {
					return nil, err
				}
			}
			inputs.Add(int64(len(texts)))
			return embedder.NewHash(dim).Embed(ctx, embedder.Index, texts)
		}
	})
	data := t.TempDir()
	const most, concurrent = 4, 2 // inputs in a request, requests in flight
	settings := settingsFile(t, t.TempDir(), fmt.Sprintf("openai: {base_url: \"http://%s/v1\", concurrency: %d, max_batch: %d}\ncache: {max_bytes: 0}\nindexer: {max_in_flight_bytes: 1MiB}\n", address, concurrent, most))
	start := func() *program { return startProgram(t, data, "--config", settings, "--embedder", "hash/384") }
	p := start()
	for i := range documents {
		p.must(nil, "PUT", documentPath(fmt.Sprintf("d/%d", i)), map[string]any{"text": prose(fmt.Sprintf("topic%d", i), 4+i%5)})
	}
	p.applied()
	recipe := func(tokens int) map[string]any {
		return map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": tokens}, "embedder": map[string]any{"model": "openai/some-model"}}
	}
	state := func(name string) generation {
		t.Helper()
		var g generation
		p.must(&g, "GET", "/generations/"+name, nil)
		return g
	}
	for name, tokens := range map[string]int{"goes": 60, "waits": 50, "ends": 40} {
		p.must(nil, "POST", "/generations", map[string]any{"name": name, "recipe": recipe(tokens)})
	}
	for _, name := range []string{"goes", "waits", "ends"} {
		until(t, name+" under way", func() bool { return state(name).Progress.Documents > 0 })
	}
	p.must(nil, "POST", "/generations/waits/pause", nil)
	p.must(nil, "POST", "/generations/ends/cancel", nil)
	// What stands still does so: documents of both are what they were, while the third goes on.
	waits, ends, goes := state("waits"), state("ends"), state("goes")
	until(t, "further", func() bool {
		g := state("goes")
		return g.Progress.Documents > goes.Progress.Documents+5 || g.State == "ready"
	})
	for _, was := range []generation{waits, ends} {
		if now := state(was.Name); now.State != was.State || now.Progress.Documents != was.Progress.Documents || was.Progress.Documents >= documents {
			t.Errorf("%s was %s with %d documents, and is %s with %d", was.Name, was.State, was.Progress.Documents, now.State, now.Progress.Documents)
		}
	}
	if waits.State != "paused" || ends.State != "cancelled" {
		t.Errorf("they are %s and %s", waits.State, ends.State)
	}
	if got, err := p.call("POST", "/generations/ends/resume", nil); err != nil || got.code() != "generation_in_use" {
		t.Errorf("resuming what was cancelled answers %d %s, %v", got.status, got.body, err)
	}
	for range kills {
		p.kill()
		p = start()
		if now := state("waits"); now.State != "paused" || now.Progress.Documents != waits.Progress.Documents {
			t.Errorf("after kill -9 waits is %s with %d documents, and had %d", now.State, now.Progress.Documents, waits.Progress.Documents)
		}
		had := state("goes").Progress.Documents
		until(t, "going on", func() bool { g := state("goes"); return g.Progress.Documents > had || g.State == "ready" })
	}
	p.must(nil, "POST", "/generations/waits/resume", nil)
	slow.Store(false)
	for _, name := range []string{"goes", "waits"} {
		until(t, name+" ready", func() bool { return state(name).State == "ready" })
		if got := state(name).Progress.Documents; got != documents {
			t.Errorf("%s has %d documents", name, got)
		}
	}
	chunks := state("goes").Progress.Chunks + state("waits").Progress.Chunks + state("ends").Progress.Chunks
	// At each kill, pause and cancel what is in flight may be embedded and not written: the pipelines' tasks hold no more than what the endpoint answers within a write.
	spare := inputs.Load() - chunks
	t.Logf("%d inputs were embedded for %d chunks, %d of them twice, over %d kills", inputs.Load(), chunks, spare, kills)
	if allowed := chunks / 4; spare > allowed {
		t.Errorf("%d chunks were embedded that were embedded before, more than %d", spare, allowed)
	}
	if spare < -chunks/10 {
		t.Errorf("%d inputs can't have made %d chunks", inputs.Load(), chunks)
	}
	p.must(nil, "POST", "/generations/waits/promote", nil)
	p.must(nil, "DELETE", "/generations/ends", nil)
	if got := len(p.generations()); got != 3 {
		t.Errorf("there are %d generations", got)
	}
}
