package embedder_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

// Each state began when it began: not in the year 1, and not when it was last looked at.
func TestSinceIsWhenTheStateBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := embedder.Batch(embeddertest.NewProvider(), embedder.BatchConfig{MaxInputs: 1, Concurrency: 2, Limits: embedder.Limits{RPM: 6, Burst: time.Second}})
		opened := time.Now()
		is := func(what string, state embedder.State, since time.Time) {
			t.Helper()
			if p := b.Providers()[0]; p.State != state || p.Since.Location() != time.UTC || !p.Since.Equal(since) || (state == embedder.Ready) != p.NextTry.IsZero() {
				t.Errorf("%s: %s since %v, next try %v; want %s since %v", what, p.State, p.Since, p.NextTry, state, since)
			}
		}
		time.Sleep(time.Minute)
		is("nothing was asked", embedder.Ready, opened)
		text, err := json.Marshal(b.Providers()[0])
		if err != nil || strings.Contains(string(text), "0001-") {
			t.Errorf("%s, %v", text, err)
		}

		began := time.Now()
		outcome := ask(t.Context(), b, embedder.Index, inputs("a", 4)...) // one at once, then one in 10 seconds
		time.Sleep(time.Second)
		is("work waits", embedder.Held, began)
		time.Sleep(20 * time.Second)
		is("work still waits", embedder.Held, began)
		late := ask(embedder.WithLane(t.Context(), embedder.Replay), b, embedder.Index, "late") // looked at again
		synctest.Wait()
		is("more work waits", embedder.Held, began)
		mustAnswer(t, "four", outcome, inputs("a", 4)...)
		mustAnswer(t, "late", late, "late")
		synctest.Wait()
		done := time.Now()
		time.Sleep(time.Minute)
		is("all is done", embedder.Ready, done)
	})
}

// A pause that the provider asked for has begun when it asked, whether work waits for its end or not.
func TestAPauseBeganWhenItWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name, says string
			throttled  bool
		}{{"429", "(429)", true}, {"503", "asked for a pause", false}} {
			refusal := &embedder.Error{Op: "test", Temporary: true, Throttled: c.throttled, RetryAfter: time.Minute, Input: -1, Err: errors.New("wait")}
			b := embedder.Batch(embeddertest.NewProvider(func(context.Context, embedder.Embedder, embeddertest.Call) ([][]float32, error) { return nil, refusal }), embedder.BatchConfig{})
			began := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			outcome := ask(ctx, b, embedder.Index, "a")
			look := func(what string) {
				t.Helper()
				if p := b.Providers()[0]; p.State != embedder.Held || p.Since.Location() != time.UTC || p.NextTry.Location() != time.UTC || !p.Since.Equal(began) || !p.NextTry.Equal(began.Add(time.Minute)) || !strings.Contains(p.Detail, c.says) {
					t.Errorf("%s, %s: %+v; it began %v", c.name, what, p, began)
				}
			}
			time.Sleep(30 * time.Second)
			look("work waits")
			cancel()
			if _, err := outcome(); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			look("nobody waits")
			time.Sleep(time.Minute)
			if p := b.Providers()[0]; p.State != embedder.Ready || !p.Since.Equal(began.Add(time.Minute)) {
				t.Errorf("%s, it is over: %+v", c.name, p)
			}
		}
	})
}

func TestAProvidersTroubleForPeople(t *testing.T) {
	for want, p := range map[string]embedder.Provider{
		"":                                {State: embedder.Ready, Name: "a", RPM: 3},
		"the provider a holds us back: x": {State: embedder.Held, Name: "a", Detail: "x"},
		"the provider a is down: x":       {State: embedder.Down, Name: "a", Detail: "x"},
		"the provider a refuses us: x":    {State: embedder.Refused, Name: "a", Detail: "x"},
		"x":                               {State: embedder.Paused, Name: "a", Detail: "x"},
	} {
		if got := p.Trouble(); got != want {
			t.Errorf("%+v: %q, want %q", p, got, want)
		}
	}
	for want, p := range map[string]embedder.Provider{
		"":                                      {},
		"3 RPM and 10,000 TPM, by its own word": {RPM: 3, TPM: 10_000, Source: "provider"},
		"1,000,000 TPM, by the settings":        {TPM: 1_000_000, Source: "settings"},
		"999 RPM, found out by being refused":   {RPM: 999, Source: "learned"},
	} {
		if got := p.Limits(); got != want {
			t.Errorf("%+v: %q, want %q", p, got, want)
		}
	}
}

// What is held against the limits is the last minute's: requests from when they were sent, tokens from when they were charged.
func TestTheLastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := &charging{Provider: embeddertest.NewProvider()}
		model.Latency = 2 * time.Second
		b := embedder.Batch(model, embedder.BatchConfig{MaxInputs: 1, Concurrency: 1})
		at := func(second int, requests, tokens int64) {
			t.Helper()
			if p := b.Providers()[0]; p.RequestsLastMinute != requests || p.TokensLastMinute != tokens {
				t.Errorf("at %d s: %d requests and %d tokens, want %d and %d", second, p.RequestsLastMinute, p.TokensLastMinute, requests, tokens)
			}
		}
		at(0, 0, 0)
		outcome := ask(t.Context(), b, embedder.Index, "ten bytes!", "ten bytes?") // at 0 and at 2 s
		synctest.Wait()
		at(0, 1, 0)
		mustAnswer(t, "two", outcome, "ten bytes!", "ten bytes?")
		at(4, 2, 20)
		time.Sleep(56*time.Second - time.Millisecond)
		at(59, 2, 20)
		time.Sleep(time.Second)
		at(60, 1, 20)
		time.Sleep(3 * time.Second)
		at(63, 0, 10)
		time.Sleep(24 * time.Hour)
		at(90000, 0, 0)
		mustAnswer(t, "one", ask(t.Context(), b, embedder.Index, "1234567"), "1234567")
		at(90002, 1, 7)
		if p := b.Providers()[0]; p.Requests != 3 || p.Tokens != 27 {
			t.Errorf("in all: %+v", p)
		}
	})
}
