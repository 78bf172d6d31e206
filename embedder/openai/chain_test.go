package openai_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/openai"
	"github.com/liverag/liverag/internal/mockprovider"
)

// TestChainThroughBadDays drives the wrappers as they stand before a model, against an endpoint within whose limits nearly everything goes wrong at times.
func TestChainThroughBadDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults, err := mockprovider.ParseFaults("429=0.03,500=0.04,503=0.04,hang=0.03,drip=0.02,cut=0.03,truncate=0.03,html=0.03,count=0.03,shuffle=0.1,noindex=0.05,model=0.1")
		if err != nil {
			t.Fatal(err)
		}
		provider := mock(t, mockprovider.Config{
			Faults: faults, Slow: 2 * time.Second, Latency: 40 * time.Millisecond, Jitter: 20 * time.Millisecond, Seed: 7,
			RPM: 600, TPM: 60_000, Burst: time.Second, Poison: "poison",
		})
		cfg, stop := inMemory(t, provider)
		defer stop()
		cfg.Timeout, cfg.Dim = 10*time.Second, 64
		cfg.Count = func(input string) int { return (len(input) + 3) / 4 } // as the mock counts
		m, err := openai.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		e := embedder.Batch(m, embedder.BatchConfig{MaxInputs: m.MaxBatch(), Concurrency: 4, Limits: embedder.Limits{RPM: 600, TPM: 60_000, Burst: 500 * time.Millisecond}, Patience: time.Hour})
		reference := embedder.NewHash(64)
		var all sync.WaitGroup
		for g := range 12 {
			all.Go(func() {
				for n := range 40 {
					texts := make([]string, 1+(g*n)%7)
					for i := range texts {
						texts[i] = fmt.Sprintf("chunk %d of document %d of %d", i, n, g)
					}
					poisoned := (g+n)%13 == 0
					if poisoned {
						texts[len(texts)-1] += " poison"
					}
					v, err := e.Embed(embedder.WithLane(t.Context(), embedder.Lane(g%2)), embedder.Index, texts)
					if poisoned {
						if err == nil {
							t.Error("poison got through")
						} else if failed := failure(t, err); failed.Temporary || failed.Input != len(texts)-1 {
							t.Errorf("input %d of %d is blamed: %v", failed.Input, len(texts), err)
						}
						continue
					}
					if err != nil {
						t.Errorf("lost: %v", err)
						continue
					}
					want, _ := reference.Embed(t.Context(), embedder.Index, texts)
					for i := range want {
						if dot(v[i], want[i]) < 0.9999 {
							t.Errorf("%q has another input's vector", texts[i])
						}
					}
				}
			})
		}
		all.Wait()
		s := provider.Stats()
		// The second half of a request that has to be put twice, after an answer that made no sense, asks nobody.
		if s.RateLimited > 2 {
			t.Errorf("%d answers of 429 for limits that were known", s.RateLimited)
		}
		if len(s.Faults) < len(faults) {
			t.Errorf("not every fault was met: %v", s.Faults)
		}
		t.Logf("%+v", s)
	})
}

// Told 429, nothing is sent before the time that the endpoint names.
func TestRetryAfterIsKept(t *testing.T) {
	for _, header := range mockprovider.RetryHeaders() {
		t.Run(header, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				provider := mock(t, mockprovider.Config{RPM: 60, Burst: 2 * time.Second, RetryAfter: header, Headers: "none"})
				cfg, stop := inMemory(t, provider)
				defer stop()
				cfg.MaxInput = -1
				m, err := openai.Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				e := embedder.Batch(m, embedder.BatchConfig{})
				for range 10 {
					if _, err := e.Embed(t.Context(), embedder.Index, []string{"a"}); err != nil {
						t.Fatal(err)
					}
				}
				s := provider.Stats()
				if s.RateLimited == 0 || s.RateLimited > 10 {
					t.Errorf("%d answers of 429 for 10 requests", s.RateLimited)
				}
			})
		})
	}
}

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}
