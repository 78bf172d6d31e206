package embedder_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

func TestLimitConforms(t *testing.T) {
	for _, cfg := range []embedder.LimitConfig{{}, {Concurrency: 1}, {RPM: 1e9, TPM: 1e9}} {
		t.Run(fmt.Sprintf("%+v", cfg), func(t *testing.T) {
			embeddertest.Run(t, func() embedder.Embedder { return embedder.Limit(embedder.NewHash(64), cfg) })
		})
	}
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

func TestLimitRates(t *testing.T) {
	for name, c := range map[string]struct {
		cfg   embedder.LimitConfig
		calls int
		text  string
		weigh func(embeddertest.Call) int
		most  int           // in any minute
		takes time.Duration // in all, at least
	}{
		"requests":              {embedder.LimitConfig{RPM: 120}, 600, "x", func(embeddertest.Call) int { return 1 }, 122, 299 * time.Second},
		"few requests":          {embedder.LimitConfig{RPM: 3}, 10, "x", func(embeddertest.Call) int { return 1 }, 4, 179 * time.Second},
		"tokens":                {embedder.LimitConfig{TPM: 6000}, 600, strings.Repeat("x", 40), func(c embeddertest.Call) int { return 10 * len(c.Inputs) }, 6100, 59 * time.Second},
		"tokens of large calls": {embedder.LimitConfig{TPM: 6000}, 10, strings.Repeat("x", 4000), func(c embeddertest.Call) int { return 1000 * len(c.Inputs) }, 7100, 89 * time.Second},
		"burst":                 {embedder.LimitConfig{RPM: 60, Burst: time.Minute}, 180, "x", func(embeddertest.Call) int { return 1 }, 120, 119 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := embeddertest.NewProvider()
				e := embedder.Limit(p, c.cfg)
				start := time.Now()
				var all sync.WaitGroup
				for range c.calls {
					all.Go(func() {
						if _, err := e.Embed(t.Context(), embedder.Index, []string{c.text}); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				took := time.Since(start)
				if most := inAnyMinute(p.Calls(), c.weigh); most > c.most {
					t.Errorf("%d in a minute, allowed %d", most, c.most)
				}
				if took < c.takes || took > c.takes+c.takes/20+2*time.Second {
					t.Errorf("took %v, want about %v: neither more nor less than allowed", took, c.takes)
				}
			})
		})
	}
}

func TestLimitConcurrencyAndLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = time.Second
		e := embedder.Limit(p, embedder.LimitConfig{Concurrency: 2})
		var waits []func() ([][]float32, error)
		for i := range 6 {
			waits = append(waits, ask(t.Context(), embedder.OnLane(e, embedder.Replay), embedder.Index, fmt.Sprint("old ", i)))
		}
		synctest.Wait()
		waits = append(waits, ask(t.Context(), e, embedder.Index, "new"))
		for _, wait := range waits {
			if _, err := wait(); err != nil {
				t.Error(err)
			}
		}
		calls := p.Calls()
		if p.MostAtOnce() != 2 {
			t.Errorf("%d calls at once, want 2", p.MostAtOnce())
		}
		if at := slices.IndexFunc(calls, func(c embeddertest.Call) bool { return c.Inputs[0] == "new" }); calls[at].At.Sub(calls[0].At) != time.Second {
			t.Errorf("the live call was made after %v, want with the first free slot", calls[at].At.Sub(calls[0].At))
		}
	})
}

func TestLimitReplayShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		e := embedder.Limit(p, embedder.LimitConfig{RPM: 600, ReplayShare: .3})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute-time.Millisecond)
		defer cancel()
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				embedder.OnLane(e, embedder.Replay).Embed(ctx, embedder.Index, []string{"old"})
			})
		}
		all.Wait()
		if n := len(p.Calls()); n < 178 || n > 184 {
			t.Errorf("a replay made %d calls in a minute, its share is 180", n)
		}
	})
}

func TestLimitCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		e := embedder.Limit(p, embedder.LimitConfig{RPM: 1})
		mustAnswer(t, "first", ask(t.Context(), e, embedder.Index, "first"), "first")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		gone := ask(ctx, e, embedder.Index, "gone")
		synctest.Wait()
		start := time.Now()
		stays := ask(t.Context(), e, embedder.Index, "stays")
		if _, err := gone(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		mustAnswer(t, "stays", stays, "stays")
		if took := time.Since(start).Round(time.Millisecond); took != time.Minute {
			t.Errorf("took %v: a call that left must not be charged", took)
		}
	})
}

// An allowance that was not used is not saved up.
func TestLimitAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		e := embedder.Limit(p, embedder.LimitConfig{RPM: 60})
		mustAnswer(t, "first", ask(t.Context(), e, embedder.Index, "first"), "first")
		time.Sleep(time.Hour)
		start := time.Now()
		for range 5 {
			mustAnswer(t, "next", ask(t.Context(), e, embedder.Index, "next"), "next")
		}
		if took := time.Since(start).Round(time.Millisecond); took != 4*time.Second {
			t.Errorf("5 calls after a pause took %v, want 4s at one a second", took)
		}
	})
}

func TestLimitCancelledWaiterFreesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency = time.Minute
		e := embedder.Limit(p, embedder.LimitConfig{Concurrency: 1})
		first := ask(t.Context(), e, embedder.Index, "first")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Embed(ctx, embedder.Index, []string{"gone"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		mustAnswer(t, "second", ask(t.Context(), e, embedder.Index, "second"), "second")
		mustAnswer(t, "first", first, "first")
		if p.MostAtOnce() != 1 {
			t.Errorf("%d calls at once, want 1", p.MostAtOnce())
		}
	})
}

func TestLimitHoldsBackAfterRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider(embeddertest.RateLimited(20 * time.Second))
		e := embedder.Limit(p, embedder.LimitConfig{})
		start := time.Now()
		if _, err := e.Embed(t.Context(), embedder.Index, []string{"refused"}); err == nil {
			t.Error("no error")
		}
		mustAnswer(t, "next", ask(t.Context(), e, embedder.Index, "next"), "next")
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("the next call was made after %v, the provider asked for 20s", took)
		}
	})
}

// TestLimitTellsItsAllowance holds calls back for a known time, has one given up, and one refused.
func TestLimitTellsItsAllowance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider(embeddertest.OK(), embeddertest.OK(), embeddertest.OK(), embeddertest.RateLimited(0))
		e := embedder.Limit(p, embedder.LimitConfig{RPM: 60, TPM: 1_000_000})
		for range 3 { // the first at once, the others after a second each
			if _, err := e.Embed(t.Context(), embedder.Index, []string{"x"}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := e.Embed(ctx, embedder.Index, []string{"x"}); err == nil {
			t.Fatal("it went although the allowance was used up")
		}
		time.Sleep(time.Hour) // nobody waits
		_, _ = e.Embed(t.Context(), embedder.Index, []string{"x"})
		if got, want := e.Allowance(), (embedder.Allowance{RPM: 60, TPM: 1_000_000, Throttled: 1, Held: 2300 * time.Millisecond}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}
