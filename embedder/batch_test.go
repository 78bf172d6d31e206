package embedder_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

func TestBatchConforms(t *testing.T) {
	for _, cfg := range []embedder.BatchConfig{{}, {MaxInputs: 3, Concurrency: 4}, {MaxTokens: 20, Linger: time.Millisecond}, {Concurrency: 1, MaxInputs: 1}} {
		t.Run(fmt.Sprintf("%+v", cfg), func(t *testing.T) {
			embeddertest.Run(t, func() embedder.Embedder { return embedder.Batch(embedder.NewHash(64), cfg) })
		})
	}
}

func inputs(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s %d", prefix, i)
	}
	return out
}

// ask embeds in the background and gives the outcome later.
func ask(ctx context.Context, e embedder.Embedder, role embedder.Role, inputs ...string) func() ([][]float32, error) {
	var vectors [][]float32
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		vectors, err = e.Embed(ctx, role, inputs)
	}()
	return func() ([][]float32, error) {
		<-done
		return vectors, err
	}
}

func mustAnswer(t *testing.T, what string, outcome func() ([][]float32, error), inputs ...string) {
	t.Helper()
	got, err := outcome()
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	want, _ := embedder.NewHash(64).Embed(context.Background(), embedder.Index, inputs)
	for i := range want {
		if !slices.Equal(got[i], want[i]) {
			t.Errorf("%s: input %d has another's vector", what, i)
		}
	}
}

func blame(err error) (int, bool) {
	var failed *embedder.Error
	if !errors.As(err, &failed) {
		return -1, false
	}
	return failed.Input, true
}

func TestBatchIdleSendsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = time.Second
		b := embedder.Batch(p, embedder.BatchConfig{Linger: time.Hour})
		start := time.Now()
		mustAnswer(t, "call", ask(t.Context(), b, embedder.Index, "a"), "a")
		if took := time.Since(start); took != time.Second {
			t.Errorf("an idle batcher took %v for a call of 1s", took)
		}
	})
}

func TestBatchMerges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = time.Second
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 1, MaxInputs: 8})
		var outcomes []func() ([][]float32, error)
		for i := range 17 {
			outcomes = append(outcomes, ask(t.Context(), b, embedder.Index, fmt.Sprint("doc ", i)))
			synctest.Wait()
		}
		for i, o := range outcomes {
			mustAnswer(t, "call", o, fmt.Sprint("doc ", i))
		}
		var sizes []int
		for _, c := range p.Calls() {
			sizes = append(sizes, len(c.Inputs))
		}
		if !slices.Equal(sizes, []int{1, 8, 8}) {
			t.Errorf("requests of %v inputs, want 1, 8, 8: what queues up while one is in flight goes together", sizes)
		}
	})
}

func TestBatchLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = time.Second
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 4, MaxInputs: 3, Linger: 100 * time.Millisecond})
		start := time.Now()
		first := ask(t.Context(), b, embedder.Index, "first")
		synctest.Wait()
		second := ask(t.Context(), b, embedder.Index, "second")
		time.Sleep(50 * time.Millisecond)
		third := ask(t.Context(), b, embedder.Index, "third")
		time.Sleep(60 * time.Millisecond)
		full := ask(t.Context(), b, embedder.Index, "a", "b", "c")
		synctest.Wait()
		query := ask(t.Context(), b, embedder.Query, "question")
		synctest.Wait()
		var got []string
		for _, c := range p.Calls() {
			got = append(got, fmt.Sprint(c.At.Sub(start).Milliseconds(), c.Inputs))
		}
		if want := []string{"0 [first]", "100 [second third]", "110 [a b c]", "110 [question]"}; !slices.Equal(got, want) {
			t.Errorf("requests %q, want %q", got, want)
		}
		mustAnswer(t, "first", first, "first")
		mustAnswer(t, "second", second, "second")
		mustAnswer(t, "third", third, "third")
		mustAnswer(t, "full", full, "a", "b", "c")
		mustAnswer(t, "query", query, "question")
	})
}

func TestBatchLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = time.Second
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 1, MaxInputs: 4})
		live, replay := b.Lane(embedder.Live), b.Lane(embedder.Replay)
		waits := []func() ([][]float32, error){ask(t.Context(), replay, embedder.Index, inputs("old", 8)...)}
		synctest.Wait()
		waits = append(waits, ask(t.Context(), live, embedder.Index, inputs("new", 6)...))
		synctest.Wait()
		waits = append(waits, ask(t.Context(), live, embedder.Query, "question"))
		for _, wait := range waits {
			if _, err := wait(); err != nil {
				t.Error(err)
			}
		}
		var got []string
		for _, c := range p.Calls() {
			got = append(got, fmt.Sprintf("%v %v %d", c.Lane, c.Role, len(c.Inputs)))
		}
		want := []string{"replay index 4", "live query 1", "live index 4", "live index 2", "replay index 4"}
		if !slices.Equal(got, want) {
			t.Errorf("requests\n%q, want\n%q", got, want)
		}
	})
}

func TestBatchReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = time.Minute
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 3, MaxInputs: 2})
		old := ask(t.Context(), b.Lane(embedder.Replay), embedder.Index, inputs("old", 20)...)
		synctest.Wait()
		if n := len(p.Calls()); n != 2 {
			t.Errorf("a replay takes %d of 3 slots, want 2", n)
		}
		start := time.Now()
		mustAnswer(t, "live", ask(t.Context(), b.Lane(embedder.Live), embedder.Index, "new"), "new")
		if took := time.Since(start); took != time.Minute {
			t.Errorf("the live change took %v, want one request's minute", took)
		}
		mustAnswer(t, "replay", old, inputs("old", 20)...)
		if p.MostAtOnce() != 3 {
			t.Errorf("%d requests at once, want 3", p.MostAtOnce())
		}
	})
}

// A document of many chunks holds up nobody on its lane.
func TestBatchTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = time.Second
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 1, MaxInputs: 16})
		large := ask(t.Context(), b, embedder.Index, inputs("large", 16*50)...)
		synctest.Wait()
		start := time.Now()
		mustAnswer(t, "small", ask(t.Context(), b, embedder.Index, "small"), "small")
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("a small call waited %v behind a large one", took)
		}
		mustAnswer(t, "large", large, inputs("large", 16*50)...)
		if n := len(p.Calls()); n > 52 {
			t.Errorf("%d requests for 801 inputs, 16 a request", n)
		}
	})
}

func TestBatchMaxTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider() // no tokenizer: 4 bytes a token
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 1, MaxTokens: 10})
		texts := []string{strings.Repeat("a", 20), strings.Repeat("b", 20), strings.Repeat("c", 4), strings.Repeat("d", 400), "e"}
		mustAnswer(t, "call", ask(t.Context(), b, embedder.Index, texts...), texts...)
		var sizes []int
		for _, c := range p.Calls() {
			sizes = append(sizes, len(c.Inputs))
		}
		if !slices.Equal(sizes, []int{2, 1, 1, 1}) {
			t.Errorf("requests of %v inputs, want 2, 1, 1 (the large one alone), 1", sizes)
		}
	})
}

func TestBatchSendsEqualInputsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = time.Second
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 1})
		first := ask(t.Context(), b, embedder.Index, "x", "x", "", "y")
		synctest.Wait()
		second := ask(t.Context(), b, embedder.Index, "x", "z")
		third := ask(t.Context(), b, embedder.Index, "z", "x")
		mustAnswer(t, "first", first, "x", "x", "", "y")
		mustAnswer(t, "second", second, "x", "z")
		mustAnswer(t, "third", third, "z", "x")
		a, _ := second()
		c, _ := third()
		if &a[0][0] == &c[1][0] {
			t.Error("two callers share a vector")
		}
		calls := p.Calls()
		if len(calls) != 2 || !slices.Equal(calls[0].Inputs, []string{"x", "y"}) || len(calls[1].Inputs) != 2 {
			t.Errorf("requests %v", calls)
		}
	})
}

func TestBatchBlame(t *testing.T) {
	for _, named := range []bool{true, false} {
		t.Run(fmt.Sprintf("named=%t", named), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := embeddertest.NewProvider()
				p.Latency = time.Second
				p.Poison, p.NamesPoison = []string{"poison"}, named
				b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 1})
				hold := ask(t.Context(), b, embedder.Index, "hold the slot")
				synctest.Wait()
				var good []func() ([][]float32, error)
				for i := range 20 {
					good = append(good, ask(t.Context(), b, embedder.Index, inputs(fmt.Sprint("good ", i), 2)...))
				}
				bad := ask(t.Context(), b, embedder.Index, "fine", "fine too", "poison", "fine as well")
				worse := ask(t.Context(), b, embedder.Index, "poison", "this one is another poison")
				mustAnswer(t, "hold", hold, "hold the slot")
				for i, g := range good {
					mustAnswer(t, "batch mate", g, inputs(fmt.Sprint("good ", i), 2)...)
				}
				if _, err := bad(); err == nil {
					t.Error("the poison got through")
				} else if i, _ := blame(err); i != 2 {
					t.Errorf("input %d is blamed, want 2: %v", i, err)
				}
				if _, err := worse(); err == nil {
					t.Error("the poison got through")
				} else if i, _ := blame(err); i < 0 {
					t.Errorf("nobody is blamed: %v", err)
				}
				if n := len(p.Calls()); named && n > 5 || n > 25 {
					t.Errorf("%d requests to find two inputs", n)
				}
			})
		})
	}
}

// A wrong key is no input's fault: nobody may be sent to the dead letters for it.
func TestBatchRefusedBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := make([]embeddertest.Answer, 1000)
		for i := range script {
			script[i] = embeddertest.Refused()
		}
		p := embeddertest.NewProvider(script...)
		b := embedder.Batch(p, embedder.BatchConfig{})
		for _, n := range []int{1, 2, 64} {
			_, err := b.Embed(t.Context(), embedder.Index, inputs("doc", n))
			if i, ok := blame(err); !ok || i != -1 {
				t.Errorf("%d inputs: input %d is blamed: %v", n, i, err)
			}
		}
		if n := len(p.Calls()); n > 40 { // about 30: two go at once, and which comes back first is open
			t.Errorf("%d requests to be refused thrice", n)
		}
	})
}

func TestBatchBadAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer embeddertest.Answer
		blamed int
	}{"NaN": {embeddertest.NaN(1), 1}, "long": {embeddertest.Long(2), 2}} {
		t.Run(name, func(t *testing.T) {
			b := embedder.Batch(embeddertest.NewProvider(c.answer), embedder.BatchConfig{})
			_, err := b.Embed(t.Context(), embedder.Index, inputs("doc", 4))
			if i, _ := blame(err); err == nil || i != c.blamed {
				t.Errorf("got %v, want input %d blamed", err, c.blamed)
			}
		})
	}
	t.Run("too few", func(t *testing.T) {
		// Asked again in halves, the provider answers in full.
		b := embedder.Batch(embeddertest.NewProvider(embeddertest.TooFew()), embedder.BatchConfig{})
		mustAnswer(t, "call", ask(t.Context(), b, embedder.Index, inputs("doc", 4)...), inputs("doc", 4)...)
	})
	t.Run("always too few", func(t *testing.T) {
		script := make([]embeddertest.Answer, 100)
		for i := range script {
			script[i] = embeddertest.TooFew()
		}
		b := embedder.Batch(embeddertest.NewProvider(script...), embedder.BatchConfig{})
		if v, err := b.Embed(t.Context(), embedder.Index, inputs("doc", 4)); err == nil || v != nil {
			t.Errorf("%d vectors, %v", len(v), err)
		}
	})
}

func TestBatchTemporaryFailsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := embedder.Batch(embeddertest.NewProvider(embeddertest.RateLimited(time.Minute)), embedder.BatchConfig{Patience: -1})
		_, err := b.Embed(t.Context(), embedder.Index, inputs("doc", 4))
		var failed *embedder.Error
		if !errors.As(err, &failed) || !failed.Temporary || failed.RetryAfter != time.Minute || failed.Input != -1 {
			t.Errorf("got %v", err)
		}
		mustAnswer(t, "next", ask(t.Context(), b, embedder.Index, "next"), "next")
	})
}

func TestBatchCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = time.Minute
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 1})
		first := ask(t.Context(), b, embedder.Index, "first")
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		gone := ask(ctx, b, embedder.Index, "gone", "gone too")
		stays := ask(t.Context(), b, embedder.Index, "stays")
		synctest.Wait()
		cancel()
		if _, err := gone(); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		mustAnswer(t, "first", first, "first")
		mustAnswer(t, "stays", stays, "stays")
		if calls := p.Calls(); len(calls) != 2 || !slices.Equal(calls[1].Inputs, []string{"stays"}) {
			t.Errorf("requests %v: inputs of a cancelled call were sent", calls)
		}

		// In flight: one of two leaves, and the other is served; both leave, and the request ends at once.
		start := time.Now()
		hold := ask(t.Context(), b, embedder.Index, "hold")
		synctest.Wait()
		ctx, cancel = context.WithCancel(t.Context())
		gone, stays = ask(ctx, b, embedder.Index, "gone"), ask(t.Context(), b, embedder.Index, "stays")
		time.Sleep(90 * time.Second)
		cancel()
		if _, err := gone(); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
		mustAnswer(t, "hold", hold, "hold")
		mustAnswer(t, "stays", stays, "stays")
		if took := time.Since(start); took != 2*time.Minute {
			t.Errorf("took %v", took)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if _, err := b.Embed(ctx, embedder.Index, []string{"x"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("timed out: %v", err)
		}
		synctest.Wait()
		mustAnswer(t, "after", ask(t.Context(), b, embedder.Index, "after"), "after")
		if took := time.Since(start); took != time.Second+time.Minute {
			t.Errorf("the abandoned request kept its slot: %v", took)
		}
	})
}

// TestBatchRandom drives a batcher with callers that come, go and send poison, and checks that each gets what is its own.
func TestBatchRandom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = 30 * time.Millisecond
		p.Poison = []string{"poison"}
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 3, MaxInputs: 7, MaxTokens: 40, Linger: 5 * time.Millisecond})
		var all sync.WaitGroup
		for g := range 40 {
			all.Go(func() {
				for n := range 10 {
					seed := g*31 + n*17
					time.Sleep(time.Duration(seed%23) * time.Millisecond)
					texts := inputs(fmt.Sprint("t", seed%90), seed%9)
					poisoned := seed%29 == 0 && len(texts) > 0
					if poisoned {
						texts[len(texts)/2] = fmt.Sprint("poison ", seed)
					}
					ctx, cancel := context.WithCancel(embedder.WithLane(t.Context(), embedder.Lane(g%2)))
					if seed%13 == 0 {
						ctx, cancel = context.WithTimeout(ctx, time.Duration(1+seed%50)*time.Millisecond)
					}
					v, err := b.Embed(ctx, embedder.Role(seed%2), texts)
					switch {
					case err == nil && poisoned:
						t.Error("the poison got through")
					case err == nil:
						want, _ := embedder.NewHash(64).Embed(t.Context(), embedder.Index, texts)
						for i := range want {
							if !slices.Equal(v[i], want[i]) {
								t.Errorf("input %q has another's vector", texts[i])
							}
						}
					case ctx.Err() != nil:
					case poisoned:
						if i, _ := blame(err); i >= 0 && i != len(texts)/2 {
							t.Errorf("input %d is blamed, want %d", i, len(texts)/2)
						}
					default:
						// Only a request that was all poison, or in which nothing else was left, fails without a culprit.
						t.Errorf("%q: %v", texts, err)
					}
					cancel()
				}
			})
		}
		all.Wait()
		synctest.Wait() // the last requests end after their callers have left
		if left := b.Leftovers(); left != "" {
			t.Errorf("the idle batcher still counts %s", left)
		}
	})
}

// instant answers without work, so that a benchmark sees the wrapper alone.
type instant struct{ vector []float32 }

func (instant) Name() string  { return "instant/1" }
func (instant) Dim() int      { return 1 }
func (instant) MaxInput() int { return 0 }
func (e instant) Embed(_ context.Context, _ embedder.Role, inputs []string) ([][]float32, error) {
	out := make([][]float32, len(inputs))
	for i := range out {
		out[i] = e.vector
	}
	return out, nil
}

func BenchmarkBatch(b *testing.B) {
	for _, n := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			e := embedder.Batch(instant{[]float32{1}}, embedder.BatchConfig{MaxInputs: 64})
			texts := inputs("a chunk of a document", n)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := e.Embed(context.Background(), embedder.Index, texts); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/input")
		})
	}
}

// slow answers after a while, without work.
type slow struct {
	instant
	takes time.Duration
}

func (e slow) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	time.Sleep(e.takes)
	return e.instant.Embed(ctx, role, inputs)
}

// BenchmarkBatchCrowd is 10,000 callers that wait at once.
func BenchmarkBatchCrowd(b *testing.B) {
	e := embedder.Batch(slow{instant{[]float32{1}}, time.Millisecond}, embedder.BatchConfig{MaxInputs: 512, Concurrency: 8})
	texts := inputs("a short change", 1)
	b.ReportAllocs()
	b.SetParallelism(10_000 / runtime.GOMAXPROCS(0))
	var n atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		mine := []string{fmt.Sprint(texts[0], n.Add(1))}
		for pb.Next() {
			if _, err := e.Embed(context.Background(), embedder.Index, mine); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
