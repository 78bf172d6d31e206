package ledger

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
)

func TestTheCapHoldsUntilMidnight(t *testing.T) {
	for _, c := range []struct {
		name  string
		daily Amount
		says  []string
	}{
		{"tokens", Amount{Tokens: 1000}, []string{"daily cap of 1000 tokens is reached", "spending.daily_tokens"}},
		{"money", Amount{Cost: Dollars(.001)}, []string{"daily cap of $0.001 is reached", "spending.daily_usd"}},
		{"both, the tokens first", Amount{Tokens: 1000, Cost: Dollars(5)}, []string{"spending.daily_tokens"}},
		{"both, the money first", Amount{Tokens: 5000, Cost: Dollars(.001)}, []string{"spending.daily_usd"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(10 * time.Hour)
				dir := t.TempDir()
				l := open(t, dir, c.daily)
				p := l.Purse(model)
				spend(t, p, embedder.Index, 600)
				spend(t, p, embedder.Index, 400) // to the last token
				until, why := p.Take(embedder.Index, 1)
				if until != time.Now().Add(askAgain) {
					t.Errorf("ask again at %v", until)
				}
				for _, part := range append(c.says, "2000-01-02T00:00:00Z", "restart") {
					if !strings.Contains(why, part) {
						t.Errorf("%q does not say %q", why, part)
					}
				}
				got := l.Spending(1)
				if got.State != embedder.Paused || !got.Since.Equal(time.Now()) || got.Detail != why {
					t.Errorf("%+v", got)
				}
				// Neither a restart nor the last minute of the day gives more.
				shut(t, l)
				l = open(t, dir, c.daily)
				p = l.Purse(model)
				midnight := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)
				time.Sleep(time.Until(midnight) - time.Second)
				if until, why := p.Take(embedder.Index, 1); !until.Equal(midnight) || why == "" {
					t.Errorf("a second before midnight: until %v, %q", until, why)
				}
				// Questions are counted, and never refused.
				spend(t, p, embedder.Query, 5000)
				time.Sleep(time.Second)
				if got := l.Spending(1); got.State != embedder.Ready || got.Detail != "" || got.Today.TokensBilled != 0 {
					t.Errorf("after midnight: %+v", got)
				}
				spend(t, p, embedder.Index, 1000)
				if _, why := p.Take(embedder.Index, 1); why == "" {
					t.Error("the second day has no cap")
				}
				// With a higher cap it goes on after a restart.
				shut(t, l)
				p = open(t, dir, Amount{2 * c.daily.Tokens, 2 * c.daily.Cost}).Purse(model)
				spend(t, p, embedder.Index, 1000)
				if _, why := p.Take(embedder.Index, 1); why == "" {
					t.Error("the higher cap is none")
				}
			})
		})
	}
}

func TestWhatIsNotChargedComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, "", Amount{Tokens: 100})
		p := l.Purse(model)
		take := func(tokens int64, want bool) time.Time {
			t.Helper()
			until, why := p.Take(embedder.Index, tokens)
			if (why == "") != want {
				t.Fatalf("%d tokens: %q", tokens, why)
			}
			return until
		}
		take(60, true)
		take(40, true)
		if until := take(1, false); until != time.Now().Add(askSoon) {
			t.Errorf("while requests are under way, ask again at %v", until)
		}
		if left := l.Spending(1).Left; *left.Tokens != 0 || left.USD != nil {
			t.Errorf("left: %+v", left)
		}
		p.Settle(embedder.Index, 60, 0)  // not answered
		p.Settle(embedder.Index, 40, 35) // charged otherwise than counted
		take(66, false)
		take(65, true)
		p.Settle(embedder.Index, 65, 80) // charged more than was set apart
		take(1, false)
		if got := l.Spending(1); *got.Left.Tokens != 0 || got.Today.TokensBilled != 115 || got.Today.TokensRetried != 60 || got.Today.Requests != 3 {
			t.Errorf("%+v", got)
		}
	})
}

func TestManyTogetherNeverTakeMoreThanTheCap(t *testing.T) {
	const most, takers = 10_000, 16
	for _, daily := range []Amount{{Tokens: most}, {Cost: Cost(most, 1)}} {
		l := open(t, "", daily)
		var taken, charged atomic.Int64
		var all sync.WaitGroup
		for i := range takers {
			all.Go(func() {
				p := l.Purse(model)
				for n, tries := int64(1), i; ; n, tries = n%37+1, tries+1 {
					if _, why := p.Take(embedder.Index, n); why != "" {
						if n == 1 {
							return
						}
						n = 0
						continue
					}
					if now := taken.Add(n); now > most {
						t.Errorf("%d are taken", now)
						return
					}
					runtime.Gosched() // the request is under way
					if tries%5 == 0 { // not answered
						taken.Add(-n)
						p.Settle(embedder.Index, n, 0)
						continue
					}
					p.Settle(embedder.Index, n, n)
					charged.Add(n)
				}
			})
		}
		all.Wait()
		// Who saw the last tokens in somebody else's hands has given up; what came back is still to be had.
		p := l.Purse(model)
		for charged.Load() < most {
			spend(t, p, embedder.Index, 1)
			charged.Add(1)
		}
		if _, why := p.Take(embedder.Index, 1); why == "" || l.Spending(1).Today.TokensBilled != most {
			t.Errorf("%+v: %q, %+v", daily, why, l.Spending(1).Today)
		}
	}
}

// A clock that was ahead, or that jumps back, gives no day's money twice.
func TestTheDayNeverGoesBack(t *testing.T) {
	// A bubble's clock begins at the same moment each time: that of the second one is five days behind.
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(5 * 24 * time.Hour)
		l := open(t, dir, Amount{Tokens: 100})
		spend(t, l.Purse(model), embedder.Index, 100)
	})
	synctest.Test(t, func(t *testing.T) {
		l := open(t, dir, Amount{Tokens: 100})
		p := l.Purse(model)
		_, why := p.Take(embedder.Index, 1)
		if !strings.Contains(why, "The clock says 2000-01-01, and spending was counted for 2000-01-06") || !strings.Contains(why, dir) {
			t.Fatalf("five days before: %q", why)
		}
		if got := l.Spending(1); got.Day != "2000-01-06" || got.Today.TokensBilled != 100 {
			t.Errorf("%+v", got)
		}
		time.Sleep(5*24*time.Hour + time.Hour)
		if _, why := p.Take(embedder.Index, 1); why == "" || strings.Contains(why, "The clock says") {
			t.Errorf("on the day itself: %q", why)
		}
		time.Sleep(23 * time.Hour)
		spend(t, p, embedder.Index, 100)
	})
}

func TestAModelWithoutAPriceIsNotPaidFor(t *testing.T) {
	l := opened(t, Config{Daily: Amount{Cost: Dollars(1)}, Prices: map[string]float64{model: 1, "openai/free": 0}})
	p := l.Purse("openai/other")
	if _, why := p.Take(embedder.Index, 1); !strings.Contains(why, "openai/other") || !strings.Contains(why, "prices") {
		t.Errorf("%q", why)
	}
	spend(t, p, embedder.Query, 10)
	free := l.Purse("openai/free")
	spend(t, free, embedder.Index, 1_000_000_000)
	spend(t, l.Purse(model), embedder.Index, 1_000_000)
	if _, why := l.Purse(model).Take(embedder.Index, 1); why == "" {
		t.Error("a dollar buys more than a million tokens")
	}
	spend(t, free, embedder.Index, 1)
	// Without a cap of money nobody needs to know.
	spend(t, opened(t, Config{Daily: Amount{Tokens: 10}}).Purse("openai/other"), embedder.Index, 10)
}

func TestTheLargestRequest(t *testing.T) {
	for _, c := range []struct {
		daily Amount
		price float64
		want  int
	}{
		{Amount{}, 1, 0},
		{Amount{Tokens: 1000}, 0, 50},
		{Amount{Cost: Dollars(1)}, 1, 50_000},
		{Amount{Cost: Dollars(1), Tokens: 1000}, 1, 50},
		{Amount{Cost: Dollars(1)}, 0, 0},
		{Amount{Tokens: 3}, 1, 1},
	} {
		l := opened(t, Config{Daily: c.daily, Prices: map[string]float64{model: c.price}})
		if got := l.Purse(model).MostTokens(); got != c.want {
			t.Errorf("%+v at %v: %d, want %d", c.daily, c.price, got, c.want)
		}
	}
}
