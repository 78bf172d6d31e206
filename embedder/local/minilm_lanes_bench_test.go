package local

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
)

// chunks are n texts of 100 to 200 word pieces, no two of them equal.
func chunks(n int) []string {
	words := strings.Fields(benchText)
	random := rand.New(rand.NewPCG(7, 1))
	texts := make([]string, n)
	for i := range texts {
		text := fmt.Sprint("Chunk ", i, ":")
		for most := 100 + random.IntN(100); CountWordPieces(text) < most-4; {
			text += " " + words[random.IntN(len(words))]
		}
		texts[i] = text
	}
	return texts
}

// eachOf lets so many goroutines share out the numbers below n, and returns how long that took.
func eachOf(goroutines, n int, do func(i int)) time.Duration {
	began := time.Now()
	var next atomic.Int64
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	all.Wait()
	return time.Since(began)
}

// pipelined is a model as the indexer has it, with an empty cache.
func pipelined(b *testing.B, m *MiniLM) embedder.Embedder {
	b.Helper()
	cache, err := embedder.OpenCache(embedder.CacheConfig{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cache.Close() })
	return embedder.Cache(embedder.Batch(m, embedder.BatchConfig{Concurrency: runtime.GOMAXPROCS(0) + 1}), cache)
}

// BenchmarkMiniLMPipeline is how much of the model's own speed is left in the pipeline: documents of one to five chunks from 64 goroutines through the cache and the requests, and the same chunks
// by the model alone in a loop on all processors, one a call and 64 a call. The three take turns, so that they meet the same machine; %-of-loop compares the medians.
//
//	go test ./embedder/local -run '^$' -bench MiniLMPipeline -benchtime 15x
func BenchmarkMiniLMPipeline(b *testing.B) {
	m := newMiniLM(b)
	texts := chunks(400)
	var documents [][]string
	for rest := texts; len(rest) > 0; {
		n := min(1+len(documents)%5, len(rest))
		documents = append(documents, rest[:n])
		rest = rest[n:]
	}
	procs := runtime.GOMAXPROCS(0)
	embed := func(e embedder.Embedder, texts []string) {
		if _, err := e.Embed(context.Background(), embedder.Index, texts); err != nil {
			b.Error(err)
		}
	}
	var singly, full, through []time.Duration
	for b.Loop() {
		singly = append(singly, eachOf(procs, len(texts), func(i int) { embed(m, texts[i:i+1]) }))
		full = append(full, eachOf(procs, (len(texts)+63)/64, func(i int) { embed(m, texts[64*i:min(64*i+64, len(texts))]) }))
		e := pipelined(b, m)
		through = append(through, eachOf(64, len(documents), func(i int) { embed(e, documents[i]) }))
	}
	rate := func(took []time.Duration) float64 { return float64(len(texts)) / at(took, .5).Seconds() }
	b.ReportMetric(rate(singly), "alone-texts/s")
	b.ReportMetric(rate(full), "alone-64-a-call-texts/s")
	b.ReportMetric(rate(through), "pipeline-texts/s")
	b.ReportMetric(100*rate(through)/max(rate(singly), rate(full)), "%-of-loop")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMiniLMEdit is what an edit of one chunk on the Live lane waits for its vector, through the cache and the requests: while nothing else is done, and while a replay of 64 documents at a time
// keeps all processors busy. The two take turns, 20 edits each; x-idle compares them.
//
//	go test ./embedder/local -run '^$' -bench MiniLMEdit -benchtime 20x
func BenchmarkMiniLMEdit(b *testing.B) {
	m := newMiniLM(b)
	e := pipelined(b, m)
	texts := chunks(400)
	edits := 0
	edit := func() time.Duration {
		edits++
		text := fmt.Sprint(edits, texts[edits%len(texts)])
		began := time.Now()
		if _, err := e.Embed(context.Background(), embedder.Index, []string{text}); err != nil {
			b.Fatal(err)
		}
		return time.Since(began)
	}
	var idle, busy []time.Duration
	replayed := 0
	for b.Loop() {
		for range 20 {
			idle = append(idle, edit())
		}
		ctx, cancel := context.WithCancel(embedder.WithLane(context.Background(), embedder.Replay))
		var all sync.WaitGroup
		var came atomic.Int64
		for range 64 {
			all.Go(func() {
				random := rand.New(rand.NewPCG(rand.Uint64(), 1))
				for ctx.Err() == nil {
					document := slices.Clone(texts[random.IntN(len(texts)-3):][:3])
					for i := range document {
						document[i] = fmt.Sprint(random.Uint64(), document[i])
					}
					if _, err := e.Embed(ctx, embedder.Index, document); err == nil {
						came.Add(1)
					}
				}
			})
		}
		for came.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		for range 20 {
			busy = append(busy, edit())
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond) // not in step with the replay
		}
		replayed += int(came.Load())
		cancel()
		all.Wait()
	}
	if replayed == 0 {
		b.Error("nothing was replayed")
	}
	for name, q := range map[string]float64{"p50": .5, "p99": .99} {
		b.ReportMetric(float64(at(idle, q).Microseconds()), "idle-"+name+"-µs")
		b.ReportMetric(float64(at(busy, q).Microseconds()), "busy-"+name+"-µs")
		b.ReportMetric(float64(at(busy, q))/float64(at(idle, q)), "x-idle-"+name)
	}
	b.ReportMetric(0, "ns/op")
}

// at is a quantile.
func at(took []time.Duration, q float64) time.Duration {
	took = slices.Sorted(slices.Values(took))
	return took[int(q*float64(len(took)-1))]
}
