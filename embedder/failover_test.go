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
)

// place is an endpoint that fails as long as it is told to.
type place struct {
	*embedder.Hash
	latency time.Duration
	poison  string // an input that it fails for

	mu     sync.Mutex
	fails  *embedder.Error
	flying int
	calls  []came
}

// came is a call of a place, and how many it had in flight then.
type came struct {
	at     time.Time
	inputs int
	flying int
	failed bool
}

func newPlace(latency time.Duration) *place {
	return &place{Hash: embedder.NewHash(64), latency: latency}
}

var (
	unavailable = &embedder.Error{Op: "a place", Temporary: true, Input: -1, Err: errors.New("503 unavailable")}
	wrongKey    = &embedder.Error{Op: "a place", Account: true, Input: -1, Err: errors.New("401 wrong key")}
)

// fail has it fail from now on; nil: answer.
func (p *place) fail(err *embedder.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fails = err
}

// since are the calls that came at a time or later.
func (p *place) since(at time.Time) (out []came) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if !c.at.Before(at) {
			out = append(out, c)
		}
	}
	return out
}

func (p *place) EmbedReported(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, embedder.Report, error) {
	p.mu.Lock()
	p.flying++
	fails, latency := p.fails, p.latency
	if p.poison != "" && slices.Contains(inputs, p.poison) {
		fails = unavailable
	}
	p.calls = append(p.calls, came{time.Now(), len(inputs), p.flying, fails != nil})
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.flying--
		p.mu.Unlock()
	}()
	select {
	case <-time.After(latency):
	case <-ctx.Done():
		return nil, embedder.Report{}, ctx.Err()
	}
	if fails != nil {
		return nil, embedder.Report{}, fails
	}
	vectors, err := p.Embed(ctx, role, inputs)
	return vectors, embedder.Report{}, err
}

// pair is a first endpoint and its standby behind a scheduler.
func pair(cfg embedder.BatchConfig, latency time.Duration) (b *embedder.Batcher, first, second *place) {
	first, second = newPlace(latency), newPlace(latency)
	cfg.Endpoint = "first"
	cfg.Failover = []embedder.Endpoint{{Name: "second", Model: second}}
	return embedder.Batch(first, cfg), first, second
}

// TestFailoverThereAndBack: an endpoint that fails is left after five failures, and tried now and then, each time with one request; what is asked meanwhile is answered by the other. When it is well again, all goes back to it.
func TestFailoverThereAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency, outage = 10 * time.Millisecond, 50 * time.Second
		b, first, second := pair(embedder.BatchConfig{Concurrency: 8}, latency)
		mustAnswer(t, "well", ask(t.Context(), b, embedder.Index, "well"), "well")
		down := time.Now()
		first.fail(unavailable)
		var opened time.Time
		slowest := time.Duration(0)
		call := func(i int) {
			role, text := embedder.Role(i%2), fmt.Sprint("text ", i)
			began := time.Now()
			mustAnswer(t, fmt.Sprint(role), ask(t.Context(), b, role, text), text)
			if took := time.Since(began); opened.IsZero() {
				slowest = max(slowest, took)
			} else if took > 300*time.Millisecond+2*latency {
				t.Errorf("a %v took %v while the first was known to be down", role, took)
			}
		}
		for i := 0; time.Since(down) < outage; i++ {
			call(i)
			at := b.Providers()
			if opened.IsZero() && at[0].State == embedder.Down {
				opened = at[0].Since
				failures := 0
				for _, c := range first.since(down) {
					if !c.at.Add(latency).After(opened) {
						failures++
					}
				}
				if failures != 5 {
					t.Errorf("it was left after %d failures", failures)
				}
			}
			if !opened.IsZero() && (at[0].State != embedder.Down || !at[0].Since.Equal(opened) || !at[0].NextTry.After(time.Now().Add(-latency)) || !strings.Contains(at[0].Detail, "503")) {
				t.Fatalf("%+v", at[0])
			}
			if at[1].State != embedder.Ready || at[1].Name != "second" {
				t.Fatalf("%+v", at[1])
			}
			time.Sleep(20 * time.Millisecond)
		}
		if took := opened.Sub(down); opened.IsZero() || took > 5*(250*time.Millisecond+latency) || slowest > 2*time.Second {
			t.Errorf("it was left after %v, and the slowest call took %v", took, slowest)
		}
		// After about 1, 2, 4, 8, 16 seconds.
		tries := first.since(opened)
		if n := len(tries); n < 4 || n > 7 {
			t.Errorf("it was tried %d times in %v", n, outage)
		}
		for i, at := 0, opened; i < len(tries); i++ {
			if gap, want := tries[i].at.Sub(at), time.Second<<i; gap < want*3/4 || gap > want*5/4+300*time.Millisecond {
				t.Errorf("try %d came %v after the last, want about %v", i, gap, want)
			}
			if at = tries[i].at.Add(latency); tries[i].flying != 1 {
				t.Errorf("try %d was with %d requests", i, tries[i].flying)
			}
		}

		first.fail(nil)
		next := b.Providers()[0].NextTry
		if wait := time.Until(next); wait > 75*time.Second {
			t.Errorf("it is not tried for %v", wait)
		}
		time.Sleep(time.Until(next) + time.Millisecond)
		call(-2)
		if at := b.Providers()[0]; at.State != embedder.Ready || at.Since.Before(next) || !at.NextTry.IsZero() || at.Detail != "" || at.Failed != int64(5+len(tries)) {
			t.Errorf("%+v", at)
		}
		back := time.Now()
		for i := range 20 {
			call(i)
		}
		if a, b := len(first.since(back)), len(second.since(back)); a != 20 || b != 0 {
			t.Errorf("%d and %d of 20 calls went to the first and to the second", a, b)
		}
		if left := b.Leftovers(); left != "" {
			t.Error(left)
		}
	})
}

// TestFailoverGoesBackByDoubling: an endpoint that has just come back is not given everything that waits.
func TestFailoverGoesBackByDoubling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency = 100 * time.Millisecond
		b, first, _ := pair(embedder.BatchConfig{Concurrency: 16, MaxInputs: 1, Reserve: -1}, latency)
		first.fail(wrongKey) // is left at once
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 64 {
			all.Go(func() {
				for ctx.Err() == nil {
					if _, err := b.Embed(ctx, embedder.Index, []string{fmt.Sprint("text ", i)}); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(time.Second)
		at := b.Providers()[0]
		if at.State != embedder.Refused || len(first.since(time.Time{})) != 1 {
			t.Errorf("%+v, after %d requests", at, len(first.since(time.Time{})))
		}
		first.fail(nil)
		time.Sleep(time.Until(at.NextTry) + 10*latency)
		cancel()
		all.Wait()
		time.Sleep(latency) // what is in flight comes back to nobody
		most := map[time.Duration]int{}
		for _, c := range first.since(at.NextTry) {
			after := c.at.Sub(at.NextTry).Truncate(latency)
			most[after] = max(most[after], c.flying)
		}
		for i, want := range []int{1, 1, 2, 4, 8, 16} {
			if n := most[time.Duration(i)*latency]; n > want {
				t.Errorf("%v after the try, %d requests were in flight, want at most %d", time.Duration(i)*latency, n, want)
			}
		}
		if most[9*latency] != 16 {
			t.Errorf("in the end %d requests were in flight: %v", most[9*latency], most)
		}
	})
}

// TestFailoverOfARefusal: an endpoint that refuses us is left at once, by what it refused too.
func TestFailoverOfARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, first, second := pair(embedder.BatchConfig{}, time.Millisecond)
		first.fail(wrongKey)
		for _, role := range []embedder.Role{embedder.Index, embedder.Query} {
			began := time.Now()
			mustAnswer(t, fmt.Sprint(role), ask(t.Context(), b, role, "a"), "a")
			if took := time.Since(began); took > 2*time.Millisecond {
				t.Errorf("%v took %v", role, took)
			}
		}
		at := b.Providers()
		if wait := time.Until(at[0].NextTry); at[0].State != embedder.Refused || wait < 10*time.Second || wait > 20*time.Second || !strings.Contains(at[0].Detail, "401") || at[1].State != embedder.Ready {
			t.Errorf("%+v", at)
		}
		if a, b := len(first.since(time.Time{})), len(second.since(time.Time{})); a != 1 || b != 2 {
			t.Errorf("%d and %d requests", a, b)
		}
	})
}

// TestFailoverOfOneThatHangs: questions find out that an endpoint no longer answers, long before documents give up waiting for it; a model of one endpoint has all the time that it takes.
func TestFailoverOfOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, first, _ := pair(embedder.BatchConfig{}, time.Millisecond)
		first.mu.Lock()
		first.latency = time.Hour
		first.mu.Unlock()
		var all sync.WaitGroup
		began := time.Now()
		for range 40 {
			all.Go(func() {
				asked := time.Now()
				mustAnswer(t, "a question", ask(t.Context(), b, embedder.Query, "a question"), "a question")
				if took := time.Since(asked); took > 11*time.Second {
					t.Errorf("a question took %v", took)
				}
			})
			time.Sleep(time.Second)
		}
		all.Wait()
		at := b.Providers()[0]
		if at.State != embedder.Down || at.Since.Sub(began) > 11*time.Second || !strings.Contains(at.Detail, "first has not answered within 5s") {
			t.Errorf("%+v", at)
		}
		for i := range 30 { // the trials among them too
			asked, text := time.Now(), fmt.Sprint("document ", i)
			mustAnswer(t, "a document", ask(t.Context(), b, embedder.Index, text), text)
			if took := time.Since(asked); took > 6*time.Second {
				t.Errorf("a document took %v", took)
			}
			time.Sleep(5 * time.Second)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		slow := newPlace(30 * time.Second)
		b := embedder.Batch(slow, embedder.BatchConfig{})
		mustAnswer(t, "a model that is being loaded", ask(t.Context(), b, embedder.Query, "a"), "a")
	})
}

// TestFailoverOfAnOutageThatNamesATime: an error that asks for a pause is one all the same: others don't wait for its end.
func TestFailoverOfAnOutageThatNamesATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, first, second := pair(embedder.BatchConfig{}, time.Millisecond)
		first.fail(&embedder.Error{Op: "a place", Temporary: true, RetryAfter: 30 * time.Second, Input: -1, Err: errors.New("503 maintenance")})
		began := time.Now()
		for time.Since(began) < 29*time.Second {
			for _, role := range []embedder.Role{embedder.Index, embedder.Query} {
				asked := time.Now()
				mustAnswer(t, fmt.Sprint(role), ask(t.Context(), b, role, "a"), "a")
				if took := time.Since(asked); took > 2*time.Millisecond {
					t.Errorf("%v took %v", role, took)
				}
			}
			time.Sleep(time.Second)
		}
		if a, b := len(first.since(time.Time{})), len(second.since(time.Time{})); a != 1 || b < 50 {
			t.Errorf("%d and %d requests", a, b)
		}
		if at := b.Providers()[0]; at.State != embedder.Held || !at.NextTry.Equal(began.Add(30*time.Second+time.Millisecond)) {
			t.Errorf("%+v", at)
		}
	})
}

// TestFailoverWithNobodyThere: documents wait and are all done in the end, a question is told at once, and when it may ask again.
func TestFailoverWithNobodyThere(t *testing.T) {
	for _, c := range []struct {
		name          string
		first, second *embedder.Error
		states        [2]embedder.State
	}{
		{"both down", unavailable, unavailable, [2]embedder.State{embedder.Down, embedder.Down}},
		{"the second refuses", unavailable, wrongKey, [2]embedder.State{embedder.Down, embedder.Refused}},
		{"the first refuses", wrongKey, unavailable, [2]embedder.State{embedder.Refused, embedder.Down}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, first, second := pair(embedder.BatchConfig{Concurrency: 4, Patience: time.Hour}, time.Millisecond)
				first.fail(c.first)
				second.fail(c.second)
				var waits []func() ([][]float32, error)
				for i := range 50 {
					waits = append(waits, ask(t.Context(), b, embedder.Index, fmt.Sprint("text ", i)))
				}
				time.Sleep(30 * time.Second)
				at := b.Providers()
				for i, p := range at {
					if p.State != c.states[i] || p.NextTry.IsZero() || p.Detail == "" || p.Since.IsZero() {
						t.Errorf("%+v", p)
					}
				}
				for range 5 {
					began := time.Now()
					_, err := b.Embed(t.Context(), embedder.Query, []string{"a question"})
					var failed *embedder.Error
					if took := time.Since(began); !errors.As(err, &failed) || !failed.Temporary || took > 10*time.Millisecond {
						t.Errorf("a question: after %v, %v", took, err)
					} else if told := err.Error(); !strings.Contains(told, "503") || strings.Contains(told, "tried again") && !strings.Contains(told, "first is tried again at 2") && !strings.Contains(told, "second is tried again at 2") {
						t.Errorf("a question is told: %v", err)
					}
					time.Sleep(time.Second)
				}
				first.fail(nil)
				for i, wait := range waits {
					mustAnswer(t, "a document", wait, fmt.Sprint("text ", i))
				}
				if left := b.Leftovers(); left != "" {
					t.Error(left)
				}
			})
		})
	}
}

// TestFailoverPatience: who wants to know is told after that time, of what it waited for.
func TestFailoverPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, first, second := pair(embedder.BatchConfig{Patience: 20 * time.Second}, time.Millisecond)
		first.fail(unavailable)
		second.fail(unavailable)
		began := time.Now()
		_, err := b.Embed(t.Context(), embedder.Index, []string{"a"})
		var failed *embedder.Error
		if took := time.Since(began); !errors.As(err, &failed) || !failed.Temporary || took < 20*time.Second || took > 60*time.Second || !strings.Contains(err.Error(), "of failures") {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// TestFailoverIsForFailures: an endpoint whose allowance is used up is waited for, whether that is known or told by a refusal. Another one costs as much, and its cache is cold.
func TestFailoverIsForFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, first, second := pair(embedder.BatchConfig{MaxInputs: 1, Limits: embedder.Limits{RPM: 60}}, time.Millisecond)
		began := time.Now()
		if _, err := b.Embed(t.Context(), embedder.Index, inputs("text", 10)); err != nil || time.Since(began) < 8*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		first.fail(&embedder.Error{Op: "a place", Temporary: true, Throttled: true, RetryAfter: 5 * time.Second, Input: -1, Err: errors.New("429")})
		wait := ask(t.Context(), b, embedder.Index, "late")
		time.Sleep(4 * time.Second)
		first.fail(nil)
		if at := b.Providers(); at[0].State != embedder.Held || at[1].State != embedder.Ready {
			t.Errorf("%+v", at)
		}
		mustAnswer(t, "refused for now", wait, "late")
		if n := len(second.since(time.Time{})); n != 0 {
			t.Errorf("%d requests went to the second", n)
		}
	})
}

// TestFailoverHasItsOwnAllowance: the second is given what it takes, however little the first one took, and however little waits for the first.
func TestFailoverHasItsOwnAllowance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const latency = 10 * time.Millisecond
		b, first, second := pair(embedder.BatchConfig{Concurrency: 4, MaxInputs: 16, MaxTokens: 8000, Linger: latency, Limits: embedder.Limits{RPM: 6, TPM: 600}}, latency)
		inputs0, tokens0 := b.Ahead()
		if tokens0 == 0 || tokens0 > 1000 {
			t.Errorf("%d inputs, %d tokens are worth having waiting for the first", inputs0, tokens0)
		}
		first.fail(wrongKey)
		mustAnswer(t, "the first document", ask(t.Context(), b, embedder.Index, "one"), "one")
		if _, tokens := b.Ahead(); tokens != 0 {
			t.Errorf("%d tokens are worth having waiting for the second, which has no limit", tokens)
		}
		began := time.Now()
		mustAnswer(t, "an edit", ask(t.Context(), b, embedder.Index, "two"), "two")
		if took := time.Since(began); took > 2*latency {
			t.Errorf("an edit waited as if requests were the first's: %v", took)
		}
		began = time.Now()
		long := inputs(strings.Repeat("word ", 160), 640) // of about 200 tokens
		if _, err := b.Embed(t.Context(), embedder.Index, long); err != nil {
			t.Fatal(err)
		}
		requests := second.since(began)
		if took := time.Since(began); took > 20*latency || len(requests) != 40 {
			t.Errorf("640 inputs took %v and %d requests", took, len(requests))
		}
		at := b.Providers()
		if at[0].RPM != 6 || at[0].TPM != 600 || at[1].RPM != 0 || at[1].TPM != 0 {
			t.Errorf("%+v", at)
		}
	})
}

// TestFailoverOfALoneCall: nobody else has to fail first for a call to get to the second within a second or so; but an input that makes an endpoint fail is not sent more often for that.
func TestFailoverOfALoneCall(t *testing.T) {
	for _, role := range []embedder.Role{embedder.Index, embedder.Query} {
		synctest.Test(t, func(t *testing.T) {
			b, first, _ := pair(embedder.BatchConfig{}, time.Millisecond)
			first.fail(unavailable)
			began := time.Now()
			mustAnswer(t, fmt.Sprint(role), ask(t.Context(), b, role, "a"), "a")
			if took := time.Since(began); took > 1100*time.Millisecond {
				t.Errorf("%v took %v", role, took)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		b, first, second := pair(embedder.BatchConfig{Patience: time.Minute}, time.Millisecond)
		first.poison, second.poison = "poison", "poison"
		poison := ask(t.Context(), b, embedder.Index, "poison")
		began, well := time.Now(), 0
		for ; time.Since(began) < time.Minute; well++ {
			mustAnswer(t, "another", ask(t.Context(), b, embedder.Query, "well"), "well")
			time.Sleep(20 * time.Millisecond)
		}
		if _, err := poison(); err == nil {
			t.Error("poison got through")
		}
		if n := len(first.since(time.Time{})) + len(second.since(time.Time{})) - well; n > 30 {
			t.Errorf("%d requests with it in a minute", n)
		}
	})
}
