package embedder_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

// saying is a model that answers after a while, with what say says to its n-th request, from 0.
type saying struct {
	*embedder.Hash
	say func(n int, inputs []string) (embedder.Report, error)

	mu    sync.Mutex
	asked []time.Time
}

func (s *saying) EmbedReported(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, embedder.Report, error) {
	s.mu.Lock()
	n := len(s.asked)
	s.asked = append(s.asked, time.Now())
	s.mu.Unlock()
	time.Sleep(10 * time.Millisecond)
	report, err := s.say(n, inputs)
	if err != nil {
		return nil, report, err
	}
	vectors, err := s.Hash.Embed(ctx, role, inputs)
	return vectors, report, err
}

func (s *saying) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	vectors, _, err := s.EmbedReported(ctx, role, inputs)
	return vectors, err
}

func (s *saying) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func says(say func(n int, inputs []string) (embedder.Report, error)) *saying {
	return &saying{Hash: embedder.NewHash(64), say: say}
}

var (
	unwell  = &embedder.Error{Op: "saying", Temporary: true, Input: -1, Err: errors.New("500")}
	tooMuch = &embedder.Error{Op: "saying", Temporary: true, Throttled: true, Input: -1, Err: errors.New("429")}
)

// A try whether an endpoint is back ends, however it ends: else the endpoint is never tried again.
func TestEachTrialEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		script := slicesOf(embeddertest.Unavailable(), 5)
		script = append(script, func(context.Context, embedder.Embedder, embeddertest.Call) ([][]float32, error) {
			return nil, context.DeadlineExceeded // the model's own
		})
		b := embedder.Batch(embeddertest.NewProvider(script...), embedder.BatchConfig{Concurrency: 1})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := b.Embed(ctx, embedder.Index, []string{"first"}); err == nil || ctx.Err() != nil {
			t.Fatalf("%v", err)
		}
		if _, err := b.Embed(ctx, embedder.Index, []string{"second"}); err != nil {
			t.Errorf("the endpoint is not tried again: %v", err)
		}
	})
}

func slicesOf(a embeddertest.Answer, n int) []embeddertest.Answer {
	out := make([]embeddertest.Answer, n)
	for i := range out {
		out[i] = a
	}
	return out
}

// hasty is a purse that wants to be asked again at once, or should have been long ago; and has something the tenth time.
type hasty struct{ asked int }

func (h *hasty) Take(embedder.Role, int64) (time.Time, string) {
	if h.asked++; h.asked < 10 {
		return time.Now().Add(-time.Minute), "not yet"
	}
	return time.Time{}, ""
}
func (*hasty) Settle(embedder.Role, int64, int64) {}

func TestAPurseIsNotAskedWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := embedder.Batch(embeddertest.NewProvider(), embedder.BatchConfig{Purse: &hasty{}})
		began := time.Now()
		mustAnswer(t, "document", ask(t.Context(), b, embedder.Index, "document"), "document")
		if took := time.Since(began); took == 0 || took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// shut is a purse without anything in it, for a day.
type shut struct{}

func (shut) Take(embedder.Role, int64) (time.Time, string) {
	return time.Now().Add(24 * time.Hour), "there is no more"
}
func (shut) Settle(embedder.Role, int64, int64) {}

func TestAQuestionDoesNotWaitForAPurse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := embedder.Batch(embeddertest.NewProvider(), embedder.BatchConfig{Purse: shut{}})
		began := time.Now()
		_, err := b.Embed(t.Context(), embedder.Query, []string{"who?"})
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "there is no more") || took > 10*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// TestNonsenseIsNotObeyedForEver: what a provider says that serves us all the same does not stop us, nor slow us down for long.
func TestNonsenseIsNotObeyedForEver(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, report := range map[string]embedder.Report{
		"a reset in a year":       {Requests: embedder.Told{Limit: 100, State: true, Reset: year}},
		"next to nothing a day":   {Requests: embedder.Told{Limit: .001, Per: 24 * time.Hour}},
		"a token a month":         {Tokens: embedder.Told{Limit: 1, Per: 30 * 24 * time.Hour, State: true}},
		"no number":               {Tokens: embedder.Told{Limit: math.NaN(), State: true, Left: math.NaN()}, Requests: embedder.Told{Limit: 10, State: true, Left: math.NaN()}},
		"without end":             {Tokens: embedder.Told{Limit: math.Inf(1), State: true, Left: math.Inf(-1)}},
		"less than nothing":       {Requests: embedder.Told{Limit: 1000, State: true, Left: -1e12, Reset: -year}},
		"a great charge":          {Charged: math.MaxInt64 / 2, Tokens: embedder.Told{Limit: 60_000}},
		"many requests":           {Calls: math.MaxInt32, Requests: embedder.Told{Limit: 6000}},
		"less than the time is":   {Requests: embedder.Told{Limit: 1, Per: math.MinInt64}, Tokens: embedder.Told{Limit: 1, Per: math.MaxInt64}},
		"a charge below nothing":  {Charged: math.MinInt64},
		"nothing left, no limit":  {Requests: embedder.Told{State: true}, Tokens: embedder.Told{State: true}},
		"more left than it gives": {Requests: embedder.Told{Limit: 60_000, State: true, Left: 1e300}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := says(func(int, []string) (embedder.Report, error) { return report, nil })
				purse := &money{left: 1e9}
				b := embedder.Batch(m, embedder.BatchConfig{Limits: embedder.Limits{RPM: 6000, TPM: 1_000_000}, Purse: purse})
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 10*year)
				defer cancel()
				for i := range 100 {
					if _, err := b.Embed(ctx, embedder.Index, inputs(fmt.Sprint("document ", i), 3)); err != nil {
						t.Fatalf("after %v: %v", time.Since(began), err)
					}
					if wrong := b.Mistakes(); wrong != "" {
						t.Fatal(wrong)
					}
				}
				if took := time.Since(began); took > 20*time.Minute {
					t.Errorf("a hundred requests took %v", took)
				}
				if documents, _, taken := purse.spent(); documents < 0 || documents > 1e8 || taken != 0 {
					t.Errorf("%d tokens were charged, %d are set apart", documents, taken)
				}
			})
		})
	}
}

// What a provider says truly, and for long, costs a refusal now and then, not a storm of them.
func TestALongPauseIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		const day = 24 * time.Hour
		m := says(func(n int, _ []string) (embedder.Report, error) {
			told := embedder.Report{Requests: embedder.Told{Limit: 50, Per: day, State: true, Reset: max(day-time.Since(began), time.Second)}}
			if n > 0 && time.Since(began) < day {
				return told, tooMuch
			}
			return told, nil
		})
		b := embedder.Batch(m, embedder.BatchConfig{Concurrency: 1, Patience: 48 * time.Hour})
		for i := range 2 {
			mustAnswer(t, "document", ask(t.Context(), b, embedder.Index, fmt.Sprint(i)), fmt.Sprint(i))
		}
		if took := time.Since(began); took < day || took > day+2*time.Hour || m.requests() > 60 {
			t.Errorf("%d requests in %v", m.requests(), took)
		}
	})
}

// What is narrowed down of an import does not go before what is live, nor hold it up.
func TestLiveGoesBeforeWhatIsNarrowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider()
		p.Latency, p.Poison = time.Second, []string{"poison"}
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 1, MaxInputs: 32})
		texts := inputs("import", 32)
		texts[17] = "poison"
		bad := ask(t.Context(), b.Lane(embedder.Backfill), embedder.Index, texts...)
		time.Sleep(1500 * time.Millisecond)
		began := time.Now()
		mustAnswer(t, "live", ask(t.Context(), b, embedder.Index, "live"), "live")
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("a live change waited %v for parts of an import", took)
		}
		if _, err := bad(); err == nil {
			t.Error("the poison got through")
		} else if i, _ := blame(err); i != 17 {
			t.Errorf("input %d is blamed", i)
		}
	})
}

// TestOneSickInputIsNotAnOutage: an input that makes an endpoint fail is not all that the endpoint is tried with.
func TestOneSickInputIsNotAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := time.Now().Add(30 * time.Second)
		m := says(func(_ int, inputs []string) (embedder.Report, error) {
			if strings.Contains(strings.Join(inputs, " "), "sick") || time.Now().Before(down) {
				return embedder.Report{}, unwell
			}
			return embedder.Report{}, nil
		})
		b := embedder.Batch(m, embedder.BatchConfig{Concurrency: 1, MaxInputs: 16, Patience: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		sick := ask(ctx, b, embedder.Index, "sick")
		time.Sleep(time.Second)
		var well []func() ([][]float32, error)
		for i := range 12 {
			well = append(well, ask(t.Context(), b, embedder.Index, fmt.Sprint("well ", i)))
		}
		for i, w := range well {
			mustAnswer(t, "well", w, fmt.Sprint("well ", i))
		}
		if took := time.Since(down); took > 3*time.Minute {
			t.Errorf("the last was answered %v after the endpoint was back", took)
		}
		cancel()
		sick()
	})
}

// TestAPaceComesBack: a provider that tells nothing refuses everything for hours, and then takes all again.
func TestAPaceComesBack(t *testing.T) {
	for _, size := range []int{10, 5000} { // of an input, in bytes: its requests or its tokens are what is short
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var refused atomic.Int64
				m := says(func(int, []string) (embedder.Report, error) {
					if passed := time.Since(began); passed > time.Minute && passed < 6*time.Hour {
						refused.Add(1)
						return embedder.Report{}, tooMuch
					}
					return embedder.Report{}, nil
				})
				b := embedder.Batch(m, embedder.BatchConfig{Concurrency: 2, MaxInputs: 1, Patience: 24 * time.Hour})
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				for g := range 4 {
					all.Go(func() {
						for i := 0; ctx.Err() == nil; i++ {
							b.Embed(ctx, embedder.Index, []string{fmt.Sprint(g, i, strings.Repeat("x", size))})
							time.Sleep(50 * time.Millisecond)
						}
					})
				}
				time.Sleep(6*time.Hour + 10*time.Minute)
				before := m.requests()
				time.Sleep(time.Minute)
				if n := m.requests() - before; n < 1000 {
					t.Errorf("ten minutes after the refusals ended, %d requests go in a minute", n)
				}
				if inputs, tokens := b.Ahead(); inputs < 1 || tokens != 0 && tokens < 1000 {
					t.Errorf("%d inputs and %d tokens are worth having waiting", inputs, tokens)
				}
				cancel()
				all.Wait()
				if n := refused.Load(); n > 600 {
					t.Errorf("%d requests were refused in six hours", n)
				}
			})
		})
	}
}

// A share that was used while next to nothing was allowed is not paid off for hours when that has changed.
func TestAShareForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := says(func(n int, _ []string) (embedder.Report, error) {
			limit := 60_000.
			if n < 1 {
				limit = 1
			}
			return embedder.Report{Requests: embedder.Told{Limit: limit, Per: 24 * time.Hour, State: true, Left: limit}}, nil
		})
		b := embedder.Batch(m, embedder.BatchConfig{})
		share := embedder.WithShare(embedder.WithLane(t.Context(), embedder.Replay), embedder.NewShare(.1))
		for i := range 2 {
			mustAnswer(t, "replay", ask(share, b, embedder.Index, fmt.Sprint(i)), fmt.Sprint(i))
		}
		mustAnswer(t, "live", ask(t.Context(), b, embedder.Index, "live"), "live")
		began := time.Now()
		mustAnswer(t, "replay", ask(share, b, embedder.Index, "again"), "again")
		if took := time.Since(began); took > 15*time.Minute {
			t.Errorf("the replay waited %v", took)
		}
	})
}

// Who waits for an endpoint that is down is told after as long as he has patience, however much later it is tried again.
func TestPatienceEndsBeforeTheNextTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := embeddertest.NewProvider(slicesOf(func(context.Context, embedder.Embedder, embeddertest.Call) ([][]float32, error) {
			return nil, &embedder.Error{Op: "provider", Temporary: true, RetryAfter: 50 * time.Minute, Input: -1, Err: errors.New("503")}
		}, 100)...)
		p.Latency = 100 * time.Millisecond
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 8, Reserve: -1, MaxInputs: 1})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 8 {
			ask(ctx, b, embedder.Index, fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		if state := b.Providers()[0].State; state != embedder.Down {
			t.Fatalf("%v", state)
		}
		began := time.Now()
		_, err := b.Embed(t.Context(), embedder.Index, []string{"late"})
		if took := time.Since(began); err == nil || took < 2*time.Minute || took > 4*time.Minute {
			t.Errorf("after %v: %v", took, err)
		}
	})
}

// What a purse refused keeps its order.
func TestAPurseKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		purse := &money{}
		p := embeddertest.NewProvider()
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 1, MaxInputs: 8, Purse: purse})
		var all []func() ([][]float32, error)
		for i := range 8 {
			all = append(all, ask(t.Context(), b, embedder.Index, fmt.Sprint(i)))
			synctest.Wait()
		}
		time.Sleep(9*time.Minute + 30*time.Second)
		purse.earn(1000)
		for i, o := range all {
			mustAnswer(t, "document", o, fmt.Sprint(i))
		}
		if got := fmt.Sprint(p.Calls()[0].Inputs); got != "[0 1 2 3 4 5 6 7]" {
			t.Errorf("the first request was %s", got)
		}
	})
}

// A limit that only a refusal told is a minute's: requests are as full as it lets them be.
func TestToldByARefusalRequestsAreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := embedder.Report{Requests: embedder.Told{Limit: 30}, Tokens: embedder.Told{Limit: 10_000}}
		m := says(func(n int, _ []string) (embedder.Report, error) {
			if n == 0 {
				return told, tooMuch
			}
			return embedder.Report{}, nil
		})
		b := embedder.Batch(m, embedder.BatchConfig{MaxTokens: 8000})
		texts := inputs(strings.Repeat("word ", 99), 80) // of 100 tokens each
		began := time.Now()
		mustAnswer(t, "document", ask(t.Context(), b, embedder.Index, texts...), texts...)
		if took := time.Since(began); took > 90*time.Second || m.requests() > 20 {
			t.Errorf("8,000 tokens took %v and %d requests", took, m.requests())
		}
	})
}

// TestAHangingEndpointIsFoundOutByWhoGivesUp: those who ask an only endpoint that hangs wait two at a time at the most, then all are told at once, except for one try now and then, each later than the one before. Who
// goes away early says nothing of it.
func TestAHangingEndpointIsFoundOutByWhoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		only := newPlace(time.Hour)
		b := embedder.Batch(only, embedder.BatchConfig{Endpoint: "only"})
		n := 0
		ask := func(patience time.Duration) time.Duration {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			began := time.Now()
			n++
			if _, err := b.Embed(ctx, embedder.Query, []string{fmt.Sprint("question ", n)}); err == nil {
				t.Fatal("a vector came from an endpoint that hangs")
			}
			synctest.Wait()
			return time.Since(began)
		}
		for range 50 {
			ask(4 * time.Second)
		}
		if at := b.Providers()[0]; at.State != embedder.Ready || at.Failed != 0 {
			t.Fatalf("nobody gave it time: %+v", at)
		}
		waited := 0
		for began := time.Now(); time.Since(began) < 10*time.Minute; time.Sleep(100 * time.Millisecond) {
			took := ask(10 * time.Second)
			switch at := b.Providers()[0]; {
			case took == 0 && (at.State != embedder.Down || !strings.Contains(at.Detail, "only has not answered within 10s")):
				t.Fatalf("%+v", at)
			case took > 0:
				waited++
			}
		}
		if waited < 5 || waited > 20 {
			t.Errorf("%d questions of ten minutes waited", waited)
		}
		only.mu.Lock()
		only.latency = 10 * time.Millisecond
		only.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if _, err := b.Embed(t.Context(), embedder.Query, []string{"are you back?"}); err != nil || b.Providers()[0].State != embedder.Ready {
			t.Errorf("%v, %+v", err, b.Providers()[0])
		}
	})
}
