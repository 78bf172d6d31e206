package openai_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/openai"
	"github.com/liverag/liverag/internal/mockprovider"
)

// scheduled is a provider, and the scheduler in front of it.
type scheduled struct {
	*embedder.Batcher
	provider *mockprovider.Provider
	began    time.Time
}

// schedule opens both, and stops them with the test. Its clock is the bubble's.
func schedule(t *testing.T, c mockprovider.Config, batch embedder.BatchConfig) *scheduled {
	t.Helper()
	p := mock(t, c)
	cfg, stop := inMemory(t, p)
	t.Cleanup(stop)
	cfg.Dim, cfg.MaxInput, cfg.MaxBatch, cfg.Timeout = 64, -1, 128, 10*time.Second
	cfg.Count = func(input string) int { return (len(input) + 3) / 4 } // as the mock counts
	m, err := openai.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if batch.Concurrency == 0 {
		batch.Concurrency = 8
	}
	batch.MaxInputs = 128
	return &scheduled{embedder.Batch(m, batch), p, time.Now()}
}

// text is distinct, and of so many of the mock's tokens.
func text(n, tokens int) string {
	return (fmt.Sprintf("%d ", n) + strings.Repeat("word", tokens))[:4*tokens]
}

// documents embeds so many of them, of so many chunks of so many tokens, as a pipeline does: some of them at once. It returns how long that took.
func (s *scheduled) documents(t *testing.T, ctx context.Context, documents, chunks, tokens int) time.Duration {
	t.Helper()
	began := time.Now()
	places := make(chan struct{}, 64)
	var all sync.WaitGroup
	var once sync.Once
	for d := range documents {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			texts := make([]string, chunks)
			for i := range texts {
				texts[i] = text(d*chunks+i, tokens)
			}
			vectors, err := s.Embed(ctx, embedder.Index, texts)
			if err != nil || len(vectors) != chunks {
				once.Do(func() { t.Errorf("document %d: %d vectors, %v", d, len(vectors), err) })
			}
		})
	}
	all.Wait()
	return time.Since(began)
}

// TestAtTheLimit: a thousand documents, at RPM 3000 and TPM 1M, 50 ms away, take as long as the limits must have it, whoever says what they are; and it costs what is needed.
func TestAtTheLimit(t *testing.T) {
	known := embedder.Limits{RPM: 3000, TPM: 1_000_000}
	for name, c := range map[string]struct {
		provider mockprovider.Config
		limits   embedder.Limits
		within   float64 // times the floor
		refused  int64
	}{
		"told by headers":                     {mockprovider.Config{}, embedder.Limits{}, 1.02, 0},
		"in the settings, and told":           {mockprovider.Config{}, known, 1.02, 0},
		"in the settings alone":               {mockprovider.Config{Headers: "none", Quiet: true}, known, 1.02, 0},
		"told by refusals":                    {mockprovider.Config{Headers: "none"}, embedder.Limits{}, 1.1, 5},
		"told by nobody":                      {mockprovider.Config{Headers: "none", Quiet: true}, embedder.Limits{}, 1.15, 5},
		"a minute at once, told":              {mockprovider.Config{Burst: time.Minute}, embedder.Limits{}, 1.02, 0},
		"a minute at once, told by nobody":    {mockprovider.Config{Burst: time.Minute, Headers: "none", Quiet: true}, embedder.Limits{}, 1.15, 5},
		"windows, told":                       {mockprovider.Config{Window: time.Minute}, embedder.Limits{}, 1.02, 0},
		"charged otherwise":                   {mockprovider.Config{UsageFactor: 1.3}, embedder.Limits{}, 1.02, 0},
		"charged otherwise, in the settings":  {mockprovider.Config{UsageFactor: 1.3, Headers: "none", Quiet: true}, known, 1.02, 0},
		"refusals are charged, told":          {mockprovider.Config{ChargeRefused: true}, embedder.Limits{}, 1.02, 0},
		"in the settings, twice what is told": {mockprovider.Config{}, embedder.Limits{RPM: 6000, TPM: 2_000_000}, 1.02, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.provider.RPM, c.provider.TPM, c.provider.Latency = 3000, 1_000_000, 50*time.Millisecond
				if c.provider.Burst == 0 {
					c.provider.Burst = time.Second
				}
				const documents, chunks, tokens = 1000, 5, 400
				s := schedule(t, c.provider, embedder.BatchConfig{Limits: c.limits})
				took := s.documents(t, t.Context(), documents, chunks, tokens)
				stats := s.provider.Stats()
				floor := s.provider.Floor(stats.Answered, stats.Tokens)
				t.Logf("%v, floor %v (%.3f); %d requests of %.1f inputs, %d refused; %+v", took, floor, float64(took)/float64(floor), stats.Requests, stats.InputsPerRequest, stats.RateLimited, s.Providers())
				if took < floor-time.Second || float64(took) > c.within*float64(floor)+float64(time.Second)/10 {
					t.Errorf("it took %v; the limits alone take %v", took, floor)
				}
				if stats.RateLimited > c.refused {
					t.Errorf("%d answers of 429, want at most %d", stats.RateLimited, c.refused)
				}
				if needed := int64(documents*chunks + 1); stats.Inputs != needed { // one was the probe
					t.Errorf("%d inputs were paid for, and %d needed", stats.Inputs, needed)
				}
			})
		})
	}
}
