package openai_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
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
		"told by refusals":                    {mockprovider.Config{Headers: "none"}, embedder.Limits{}, 1.02, 5},
		"told by nobody":                      {mockprovider.Config{Headers: "none", Quiet: true}, embedder.Limits{}, 1.025, 5},
		"a minute at once, told":              {mockprovider.Config{Burst: time.Minute}, embedder.Limits{}, 1.02, 0},
		"a minute at once, told by nobody":    {mockprovider.Config{Burst: time.Minute, Headers: "none", Quiet: true}, embedder.Limits{}, 1.02, 5},
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

// TestLearning: where nobody tells the limits, few requests are refused until they are known, and little time is lost, however much is granted at once, and whether it is tokens that
// are counted or requests. LIVERAG_SEEDS is how many times that is tried.
func TestLearning(t *testing.T) {
	seeds := 1
	if n, err := strconv.Atoi(os.Getenv("LIVERAG_SEEDS")); err == nil {
		seeds = n
	}
	const jitter = 50 * time.Millisecond
	tokens := mockprovider.Config{RPM: 3000, TPM: 1_000_000, Jitter: jitter}
	requests := mockprovider.Config{RPM: 60, Jitter: jitter}
	for name, c := range map[string]struct {
		provider    mockprovider.Config
		burst       time.Duration
		window      time.Duration
		concurrency int
		documents   int
		within      float64
		refused     int64
	}{
		"a second at once":                    {tokens, time.Second, 0, 8, 1000, 1.03, 5},
		"a minute at once":                    {tokens, time.Minute, 0, 8, 1000, 1.05, 5},
		"a minute at once, many in flight":    {tokens, time.Minute, 0, 32, 1000, 1.05, 5},
		"a second at once, two in flight":     {tokens, time.Second, 0, 2, 1000, 1.03, 5},
		"a minute at its end":                 {tokens, 0, time.Minute, 8, 1000, 5, 60},
		"requests alone, a second at once":    {requests, time.Second, 0, 8, 2000, 5, 60},
		"requests alone, a minute at once":    {requests, time.Minute, 0, 8, 2000, 5, 30},
		"many small inputs, requests alone":   {mockprovider.Config{RPM: 600, Jitter: jitter}, time.Second, 0, 8, 4000, 4, 50},
		"ten thousand tokens for each second": {mockprovider.Config{RPM: 1500, TPM: 600_000, Jitter: jitter}, time.Second, 0, 8, 600, 1.1, 5},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range seeds {
				synctest.Test(t, func(t *testing.T) {
					c.provider.Burst, c.provider.Window, c.provider.Seed = c.burst, c.window, uint64(seed)
					c.provider.Headers, c.provider.Quiet, c.provider.Latency = "none", true, 50*time.Millisecond
					s := schedule(t, c.provider, embedder.BatchConfig{Concurrency: c.concurrency})
					chunks, size := 5, 400
					if c.provider.RPM == 600 {
						chunks, size = 12, 20
					}
					took := s.documents(t, t.Context(), c.documents, chunks, size)
					stats := s.provider.Stats()
					floor := s.provider.Floor(int64(c.documents*chunks/128)+2, stats.Tokens)
					if seed == 0 || stats.RateLimited > c.refused {
						t.Logf("seed %d: %v, floor %v (%.3f); %d requests of %.1f inputs, %d refused", seed, took, floor, float64(took)/float64(floor), stats.Requests, stats.InputsPerRequest, stats.RateLimited)
					}
					if stats.RateLimited > c.refused {
						t.Errorf("seed %d: %d answers of 429, want at most %d", seed, stats.RateLimited, c.refused)
					}
					if float64(took) > c.within*float64(floor) {
						t.Errorf("seed %d: it took %v; the limits alone take %v", seed, took, floor)
					}
				})
			}
		})
	}
}

// TestTrickle: 47 chunks of 400 tokens at a provider that takes 3 requests and 10,000 tokens a minute; and a second provider does not wait for the first.
func TestTrickle(t *testing.T) {
	for name, c := range map[string]struct {
		headers string
		limits  embedder.Limits
	}{"told": {"openai", embedder.Limits{}}, "in the settings": {"none", embedder.Limits{RPM: 3, TPM: 10_000}}, "both": {"openai", embedder.Limits{RPM: 3, TPM: 10_000}}} {
		t.Run(name, func(t *testing.T) { trickle(t, c.headers, c.limits) })
	}
}

func trickle(t *testing.T, headers string, limits embedder.Limits) {
	synctest.Test(t, func(t *testing.T) {
		s := schedule(t, mockprovider.Config{RPM: 3, TPM: 10_000, Headers: headers, Latency: 50 * time.Millisecond}, embedder.BatchConfig{Limits: limits, Linger: 10 * time.Millisecond})
		free := schedule(t, mockprovider.Config{Latency: 50 * time.Millisecond}, embedder.BatchConfig{})
		took := make(chan time.Duration, 1)
		go func() { took <- s.documents(t, t.Context(), 47, 1, 400) }()
		if other := free.documents(t, t.Context(), 47, 1, 400); other > time.Second {
			t.Errorf("the second provider took %v beside the first", other)
		}
		slow := <-took
		stats := s.provider.Stats()
		// One request and 3 tokens went to find out the dimension.
		floor := s.provider.Floor(3, 47*400+3)
		t.Logf("%v, floor %v; %+v", slow, floor, stats)
		if slow > floor*105/100 || stats.RateLimited != 0 {
			t.Errorf("it took %v with %d answers of 429; the limits alone take %v", slow, stats.RateLimited, floor)
		}
	})
}

// TestBadTimes: limits cut to a tenth in the middle and restored, an outage of ten minutes, one request in twenty that fails: nothing is lost, it goes on by itself, and nobody is overrun.
func TestBadTimes(t *testing.T) {
	at := func(text string) []mockprovider.Event {
		events, err := mockprovider.ParseSchedule(text)
		if err != nil {
			t.Fatal(err)
		}
		return events
	}
	faults, err := mockprovider.ParseFaults("500=0.025,503=0.025")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		provider mockprovider.Config
		within   float64
		refused  int64
	}{
		"cut to a tenth and restored": {mockprovider.Config{Schedule: at("30s:rpm=300,tpm=100000;90s:rpm=3000,tpm=1000000")}, 1.05, 10},
		"the same, told by refusals":  {mockprovider.Config{Headers: "none", Schedule: at("30s:rpm=300,tpm=100000;90s:rpm=3000,tpm=1000000")}, 1.5, 10},
		"the same, told by nobody":    {mockprovider.Config{Headers: "none", Quiet: true, Schedule: at("30s:rpm=300,tpm=100000;90s:rpm=3000,tpm=1000000")}, 1.5, 20},
		"ten minutes of 503":          {mockprovider.Config{Schedule: at("30s:503;10m30s:up")}, 1.15, 0},
		"ten minutes of nothing":      {mockprovider.Config{Schedule: at("30s:cut;10m30s:up")}, 1.15, 0},
		"one in twenty fails":         {mockprovider.Config{Faults: faults, Seed: 3}, 1.15, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.provider.RPM, c.provider.TPM, c.provider.Latency, c.provider.Burst = 3000, 1_000_000, 50*time.Millisecond, time.Second
				const documents, chunks, tokens = 1000, 5, 400
				s := schedule(t, c.provider, embedder.BatchConfig{Patience: time.Hour})
				took := s.documents(t, t.Context(), documents, chunks, tokens)
				stats := s.provider.Stats()
				floor := s.provider.Floor(stats.Answered, stats.Tokens+stats.TokensFailed)
				t.Logf("%v, floor %v (%.3f); %d requests, %d refused, %d failed, busiest second %d", took, floor, float64(took)/float64(floor), stats.Requests, stats.RateLimited, stats.TokensFailed, stats.BusiestSecond)
				if float64(took) > c.within*float64(floor) {
					t.Errorf("it took %v; the limits alone take %v", took, floor)
				}
				if stats.RateLimited > c.refused {
					t.Errorf("%d answers of 429, want at most %d", stats.RateLimited, c.refused)
				}
				if stats.BusiestSecond > 60 {
					t.Errorf("%d requests in one second, and 50 are allowed", stats.BusiestSecond)
				}
			})
		})
	}
}

// TestLiveBesideAReplay: an edit a second is as fresh beside a replay that takes all it can get as without one.
func TestLiveBesideAReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := schedule(t, mockprovider.Config{RPM: 3000, TPM: 1_000_000, Burst: time.Second, Latency: 50 * time.Millisecond}, embedder.BatchConfig{})
		edits := func() (slowest time.Duration) {
			for i := range 30 {
				began := time.Now()
				if _, err := s.Embed(t.Context(), embedder.Index, []string{text(1_000_000+i, 400)}); err != nil {
					t.Error(err)
				}
				slowest = max(slowest, time.Since(began))
				time.Sleep(time.Second - time.Since(began))
			}
			return slowest
		}
		idle := edits()
		ctx, cancel := context.WithCancel(embedder.WithLane(t.Context(), embedder.Replay))
		var all sync.WaitGroup
		for g := range 64 {
			all.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					s.Embed(ctx, embedder.Index, []string{text(g*1000+n, 400), text(100_000+g*1000+n, 400)})
				}
			})
		}
		time.Sleep(3 * time.Second)
		tokens := s.provider.Stats().Tokens
		busy := edits()
		used := float64(s.provider.Stats().Tokens-tokens) / 500_000
		cancel()
		all.Wait()
		t.Logf("idle %v, beside a replay %v; %.1f %% of the limit were used", idle, busy, 100*used)
		if busy > idle*3/2 {
			t.Errorf("the slowest edit took %v beside a replay, and %v without", busy, idle)
		}
		if used < .95 {
			t.Errorf("%.1f %% of the limit were used", 100*used)
		}
		if n := s.provider.Stats().RateLimited; n > 0 {
			t.Errorf("%d answers of 429", n)
		}
	})
}

// TestShareOfTheLimit: a replay keeps to its share of what is allowed, and imports get the rest.
func TestShareOfTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := schedule(t, mockprovider.Config{RPM: 3000, TPM: 1_000_000, Burst: time.Second, Latency: 50 * time.Millisecond}, embedder.BatchConfig{})
		var mu sync.Mutex
		tokens := map[embedder.Lane]int{}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		work := func(lane embedder.Lane, ctx context.Context) {
			for g := range 64 {
				all.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						if _, err := s.Embed(embedder.WithLane(ctx, lane), embedder.Index, []string{text(int(lane)*1_000_000+g*1000+n, 400)}); err == nil {
							mu.Lock()
							tokens[lane] += 400
							mu.Unlock()
						}
					}
				})
			}
		}
		work(embedder.Replay, embedder.WithShare(ctx, embedder.NewShare(.3)))
		time.Sleep(time.Minute)
		mu.Lock()
		alone := tokens[embedder.Replay]
		clear(tokens)
		mu.Unlock()
		work(embedder.Backfill, ctx)
		time.Sleep(time.Minute)
		mu.Lock()
		replay, backfill := tokens[embedder.Replay], tokens[embedder.Backfill]
		mu.Unlock()
		cancel()
		all.Wait()
		t.Logf("alone %d, then %d beside %d", alone, replay, backfill)
		if alone < 280_000 || alone > 320_000 || replay < 270_000 || replay > 320_000 || backfill < 650_000 {
			t.Errorf("a share of .3 took %d of a million tokens in a minute; then %d, and the backfill %d", alone, replay, backfill)
		}
	})
}

// TestAShareOfWhatIsLearned: where a replay that keeps to a share is all there is to do, limits that were raised are found out too.
func TestAShareOfWhatIsLearned(t *testing.T) {
	raised, err := mockprovider.ParseSchedule("60s:rpm=3000,tpm=1000000")
	if err != nil {
		t.Fatal(err)
	}
	for name, quiet := range map[string]bool{"told by refusals": false, "told by nobody": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := schedule(t, mockprovider.Config{RPM: 300, TPM: 100_000, Burst: time.Second, Latency: 50 * time.Millisecond, Headers: "none", Quiet: quiet, Schedule: raised}, embedder.BatchConfig{})
				ctx, cancel := context.WithCancel(embedder.WithShare(embedder.WithLane(t.Context(), embedder.Replay), embedder.NewShare(.5)))
				var all sync.WaitGroup
				for g := range 64 {
					all.Go(func() {
						for n := 0; ctx.Err() == nil; n++ {
							s.Embed(ctx, embedder.Index, []string{text(g*100_000+n, 400)})
						}
					})
				}
				time.Sleep(8 * time.Minute)
				before := s.provider.Stats()
				time.Sleep(time.Minute)
				after := s.provider.Stats()
				cancel()
				all.Wait()
				t.Logf("%d tokens in the ninth minute, %d answers of 429 until then", after.Tokens-before.Tokens, after.RateLimited)
				if n := after.Tokens - before.Tokens; n < 350_000 || n > 1_010_000 {
					t.Errorf("a share of a half took %d of a million tokens in a minute, eight minutes after the limit was raised to that", n)
				}
				if after.RateLimited > 50 {
					t.Errorf("%d answers of 429", after.RateLimited)
				}
			})
		})
	}
}

// TestAnAccidentIsNoLimit: where the limits are known, a refusal now and then slows nothing down for longer than it says.
func TestAnAccidentIsNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script, err := mockprovider.ParseScript("ok*300,429,ok*300,429,ok*300")
		if err != nil {
			t.Fatal(err)
		}
		s := schedule(t, mockprovider.Config{RPM: 3000, TPM: 1_000_000, Burst: time.Second, Headers: "none", Quiet: true, Script: script, Latency: 50 * time.Millisecond},
			embedder.BatchConfig{Limits: embedder.Limits{RPM: 3000, TPM: 1_000_000}})
		took := s.documents(t, t.Context(), 1000, 5, 400)
		stats := s.provider.Stats()
		floor := s.provider.Floor(stats.Answered, stats.Tokens)
		t.Logf("%v, floor %v; %d requests", took, floor, stats.Requests)
		if took > floor+4*time.Second {
			t.Errorf("it took %v with two refusals; the limits alone take %v", took, floor)
		}
	})
}

// TestCountsThatVary: where the provider counts some texts higher and some lower than we do, hardly one is refused for it.
func TestCountsThatVary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Each fifth text is twice what we take it for, as code is beside prose.
		s := schedule(t, mockprovider.Config{RPM: 300, TPM: 100_000, Burst: time.Second, Latency: 50 * time.Millisecond, Tokens: func(input string) int {
			n := len(input) / 4
			if n%5 == 0 {
				return 2 * n
			}
			return n
		}}, embedder.BatchConfig{})
		places := make(chan struct{}, 32)
		var all sync.WaitGroup
		for d := range 400 {
			places <- struct{}{}
			all.Go(func() {
				defer func() { <-places }()
				if _, err := s.Embed(t.Context(), embedder.Index, []string{text(2*d, 201+d*d%97), text(2*d+1, 60+d*d*d%101)}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		stats := s.provider.Stats()
		floor := s.provider.Floor(stats.Answered, stats.Tokens)
		took := time.Duration(stats.LastAnswer * float64(time.Second))
		t.Logf("%v, floor %v; %d requests of %.1f, %d refused", took, floor, stats.Requests, stats.InputsPerRequest, stats.RateLimited)
		// Until the first texts that are counted otherwise, nothing says that some are.
		if stats.RateLimited > 5 || float64(took) > 1.05*float64(floor) {
			t.Errorf("%d answers of 429 in %v; the limits alone take %v", stats.RateLimited, took, floor)
		}
	})
}

// TestLimitsAreKnownFromTheStart: the answer that told the dimension told the limits too.
func TestLimitsAreKnownFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := schedule(t, mockprovider.Config{RPM: 300, TPM: 100_000}, embedder.BatchConfig{})
		if p := s.Providers()[0]; p.RPM != 300 || p.TPM != 100_000 || p.Source != "provider" {
			t.Errorf("%+v", p)
		}
	})
}

// TestEstimatedCounts: where the model's tokenizer is not at hand, and its provider counts prose, tables and code each otherwise than we estimate them, hardly a request is refused.
func TestEstimatedCounts(t *testing.T) {
	var pieces []string
	for _, name := range []string{"../../docs/ARCHITECTURE.md", "../../docs/BENCHMARKS.md", "../../docs/CONFIG.md", "../dispatch.go", "../budget.go", "../../README.md"} {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for size := 300; len(file) > size; size = 100 + (size*7)%900 {
			pieces = append(pieces, strings.ToValidUTF8(string(file[:size]), ""))
			file = file[size:]
		}
	}
	for _, share := range []float64{1, .5} {
		synctest.Test(t, func(t *testing.T) {
			p := mock(t, mockprovider.Config{RPM: 300, TPM: 100_000, Burst: time.Second, Latency: 50 * time.Millisecond})
			cfg, stop := inMemory(t, p)
			defer stop()
			cfg.Dim, cfg.MaxInput, cfg.MaxBatch = 64, -1, 32
			m, err := openai.Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			b := embedder.Batch(m, embedder.BatchConfig{Concurrency: 8, MaxInputs: 32, Linger: 10 * time.Millisecond})
			ctx := embedder.WithShare(embedder.WithLane(t.Context(), embedder.Replay), embedder.NewShare(share))
			places := make(chan struct{}, 64)
			var all sync.WaitGroup
			for chunk := range slices.Chunk(pieces, 5) {
				places <- struct{}{}
				all.Go(func() {
					defer func() { <-places }()
					if _, err := b.Embed(ctx, embedder.Index, chunk); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			stats := p.Stats()
			floor := p.Floor(stats.Answered, stats.Tokens).Seconds() / share
			t.Logf("a share of %v: %.2f s, floor %.2f s; %d requests of %.1f, %d refused", share, stats.LastAnswer, floor, stats.Requests, stats.InputsPerRequest, stats.RateLimited)
			if stats.RateLimited > 5 || stats.LastAnswer > 1.1*floor+1 {
				t.Errorf("%d answers of 429 in %.2f s; the limits alone take %.2f s", stats.RateLimited, stats.LastAnswer, floor)
			}
		})
	}
}
