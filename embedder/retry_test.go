package embedder_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

func TestRetryConforms(t *testing.T) {
	embeddertest.Run(t, func() embedder.Embedder { return embedder.Retry(embedder.NewHash(64), embedder.RetryConfig{}) })
}

func TestRetryHonoursRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider(embeddertest.RateLimited(7*time.Second), embeddertest.RateLimited(61*time.Second))
		e := embedder.Retry(p, embedder.RetryConfig{Max: time.Second})
		mustAnswer(t, "call", ask(t.Context(), e, embedder.Index, "x"), "x")
		calls := p.Calls()
		if len(calls) != 3 || calls[1].At.Sub(calls[0].At) != 7*time.Second || calls[2].At.Sub(calls[1].At) != 61*time.Second {
			t.Errorf("calls %v", calls)
		}
		if e.Retries() != 2 {
			t.Errorf("%d retries", e.Retries())
		}
	})
}

func TestRetryBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		longest := time.Duration(0)
		for range 200 {
			p := embeddertest.NewProvider(embeddertest.Unavailable(), embeddertest.Unavailable(), embeddertest.Unavailable(), embeddertest.Unavailable())
			e := embedder.Retry(p, embedder.RetryConfig{Base: time.Second, Max: 3 * time.Second})
			mustAnswer(t, "call", ask(t.Context(), e, embedder.Index, "x"), "x")
			calls := p.Calls()
			for i, most := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second} {
				wait := calls[i+1].At.Sub(calls[i].At)
				if wait > most {
					t.Fatalf("wait %d is %v, at most %v", i, wait, most)
				}
				longest = max(longest, wait)
			}
		}
		if longest < 2500*time.Millisecond {
			t.Errorf("the longest of 800 waits is %v: they don't grow", longest)
		}
	})
}

func TestRetryGivesUp(t *testing.T) {
	down := func() *embeddertest.Provider {
		script := make([]embeddertest.Answer, 1000)
		for i := range script {
			script[i] = embeddertest.Unavailable()
		}
		return embeddertest.NewProvider(script...)
	}
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			p           *embeddertest.Provider
			cfg         embedder.RetryConfig
			most, least int
			within      time.Duration
		}{
			"attempts":        {down(), embedder.RetryConfig{Attempts: 3}, 3, 3, time.Minute},
			"default":         {down(), embedder.RetryConfig{}, 6, 6, 2 * time.Minute},
			"elapsed":         {down(), embedder.RetryConfig{Attempts: -1, MaxElapsed: time.Minute, Max: 2 * time.Second}, 500, 30, time.Minute},
			"asked to wait":   {embeddertest.NewProvider(embeddertest.RateLimited(time.Hour)), embedder.RetryConfig{}, 1, 1, 0},
			"never permanent": {embeddertest.NewProvider(embeddertest.Refused()), embedder.RetryConfig{}, 1, 1, 0},
		} {
			start := time.Now()
			_, err := embedder.Retry(c.p, c.cfg).Embed(t.Context(), embedder.Index, []string{"x"})
			var failed *embedder.Error
			if !errors.As(err, &failed) {
				t.Errorf("%s: got %v", name, err)
			}
			if n := len(c.p.Calls()); n > c.most || n < c.least {
				t.Errorf("%s: %d calls", name, n)
			}
			if took := time.Since(start); took > c.within {
				t.Errorf("%s: gave up after %v", name, took)
			}
		}
	})
}

func TestRetryForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := make([]embeddertest.Answer, 5000)
		for i := range script {
			script[i] = embeddertest.Unavailable()
		}
		e := embedder.Retry(embeddertest.NewProvider(script...), embedder.RetryConfig{Attempts: -1, MaxElapsed: -1})
		start := time.Now()
		mustAnswer(t, "call", ask(t.Context(), e, embedder.Index, "x"), "x")
		if time.Since(start) < 10*time.Hour {
			t.Errorf("5000 failures took only %v", time.Since(start))
		}
	})
}

func TestRetryCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := embedder.Retry(embeddertest.NewProvider(embeddertest.RateLimited(time.Minute)), embedder.RetryConfig{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := e.Embed(ctx, embedder.Index, []string{"x"})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		e = embedder.Retry(embeddertest.NewProvider(embeddertest.Hangs()), embedder.RetryConfig{})
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Embed(ctx, embedder.Index, []string{"x"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("hanging: %v", err)
		}
	})
}
