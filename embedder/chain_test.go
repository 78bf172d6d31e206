package embedder_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

// chain is the wrappers as they stand before a provider.
func chain(t testing.TB, inner embedder.Embedder, batch embedder.BatchConfig) embedder.Embedder {
	t.Helper()
	long, err := embedder.Long(embedder.Cache(embedder.Batch(inner, batch), openCache(t, embedder.CacheConfig{Dir: t.TempDir()})), embedder.LongSplit)
	if err != nil {
		t.Fatal(err)
	}
	return embedder.QueryCache(long, 100)
}

func TestChainConforms(t *testing.T) {
	embeddertest.Run(t, func() embedder.Embedder {
		return chain(t, small{Hash: embedder.NewHash(64), t: t, most: 50}, embedder.BatchConfig{})
	})
}

// TestChainThroughBadDays drives the whole chain against a provider with refusals, outages and poison, within its limits, and checks that
// every caller gets its own vectors or its own poison named.
func TestChainThroughBadDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		var script []embeddertest.Answer
		for range 3000 {
			switch r.IntN(10) {
			case 0:
				script = append(script, embeddertest.RateLimited(time.Duration(r.IntN(3))*time.Second))
			case 1:
				script = append(script, embeddertest.Unavailable())
			default:
				script = append(script, embeddertest.OK())
			}
		}
		p := embeddertest.NewProvider(script...)
		p.Latency, p.Poison, p.NamesPoison = 100*time.Millisecond, []string{"poison"}, true
		e := chain(t, p, embedder.BatchConfig{MaxInputs: 16, Concurrency: 3, Linger: 10 * time.Millisecond, Limits: embedder.Limits{RPM: 600, TPM: 60_000}})
		var all sync.WaitGroup
		for g := range 20 {
			all.Go(func() {
				ctx := embedder.WithLane(t.Context(), embedder.Lane(g%2))
				for n := range 20 {
					texts := inputs(fmt.Sprintf("doc %d of %d", n, g), 1+(g*n)%12)
					poisoned := (g+n)%17 == 0
					if poisoned {
						texts[len(texts)-1] += " poison"
					}
					v, err := e.Embed(ctx, embedder.Index, texts)
					switch i, _ := blame(err); {
					case err == nil && !poisoned:
						mustAnswer(t, "call", func() ([][]float32, error) { return v, nil }, texts...)
					case err == nil:
						t.Error("poison got through")
					case !poisoned:
						t.Errorf("call failed: %v", err)
					case i != len(texts)-1:
						t.Errorf("input %d is blamed, want the last of %d: %v", i, len(texts), err)
					}
				}
			})
		}
		all.Wait()
		if most := inAnyMinute(p.Calls(), func(embeddertest.Call) int { return 1 }); most > 610 {
			t.Errorf("%d requests in a minute, 600 are allowed", most)
		}
		if p.MostAtOnce() > 3 {
			t.Errorf("%d requests at once, 3 are allowed", p.MostAtOnce())
		}
	})
}

// A caller that leaves is not kept by anything in the chain.
func TestChainCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := chain(t, embeddertest.NewProvider(embeddertest.Hangs(), embeddertest.RateLimited(time.Hour)), embedder.BatchConfig{})
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			start := time.Now()
			if _, err := e.Embed(ctx, embedder.Index, []string{"x"}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(start); took != time.Second {
				t.Errorf("left after %v", took)
			}
			cancel()
			synctest.Wait()
		}
	})
}

// inAnyMinute is the most that falls into any window of a minute.
func inAnyMinute(calls []embeddertest.Call, weigh func(embeddertest.Call) int) int {
	most := 0
	for i := range calls {
		n := 0
		for _, c := range calls[i:] {
			if c.At.Sub(calls[i].At) < time.Minute {
				n += weigh(c)
			}
		}
		most = max(most, n)
	}
	return most
}
