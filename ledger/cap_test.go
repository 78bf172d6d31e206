package ledger

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
)

// TestSpread: a day's money is spent as fast as the provider allows, and what is left over waits for the next midnights.
func TestSpread(t *testing.T) {
	const hour, day = time.Hour, 24 * time.Hour
	now := time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC) // six hours of the day are left
	tokens := func(n int64) Amount { return Amount{Tokens: n} }
	for _, c := range []struct {
		name              string
		daily, left, want Amount
		alone             time.Duration
		takes             time.Duration
		days              int64
		binds             bool
	}{
		{"all of it today", tokens(1000), tokens(1000), tokens(1000), hour, hour, 1, false},
		{"today, at midnight", tokens(1000), tokens(1000), tokens(1000), 6 * hour, 6 * hour, 1, false},
		{"over midnight, by the allowance", tokens(1000), tokens(1000), tokens(1000), 9 * hour, 9 * hour, 2, false},
		{"for days, by the allowance", tokens(1000), tokens(1000), tokens(1000), 10 * day, 10 * day, 11, false},
		{"the rest tomorrow", tokens(1000), tokens(1000), tokens(1500), 3 * hour, 7 * hour, 2, true},
		{"two whole days", tokens(1000), tokens(1000), tokens(2000), 4 * hour, 8 * hour, 2, true},
		{"one token more", tokens(1000), tokens(1000), tokens(2001), 0, 6*hour + day, 3, true},
		{"nothing is left today", tokens(1000), tokens(0), tokens(1000), hour, 7 * hour, 2, true},
		{"a little is left today", tokens(1000), tokens(100), tokens(1000), 10 * hour, 6*hour + 9*hour, 2, true},
		{"twenty days", tokens(1000), tokens(500), tokens(19000), 19 * hour, 6*hour + 18*day + hour/2, 20, true},
		{"slow tonight, and capped tomorrow", tokens(5000), tokens(5000), tokens(10000), 30 * hour, 6*hour + day + 9*hour, 3, true},
		{"money is capped", Amount{Cost: 100}, Amount{Cost: 40}, Amount{1000, 140}, 14 * hour, 6*hour + 10*hour, 2, true},
		{"of both the money is short", Amount{Tokens: 1000, Cost: 100}, Amount{Tokens: 1000, Cost: 100}, Amount{500, 150}, 3 * hour, 7 * hour, 2, true},
		{"of both the tokens are short", Amount{Tokens: 100, Cost: 1000}, Amount{Tokens: 100, Cost: 1000}, Amount{150, 1}, 3 * hour, 7 * hour, 2, true},
		{"what costs nothing needs no money", Amount{Cost: 100}, Amount{}, tokens(1000), hour, hour, 1, false},
		{"a pace that nobody knows, today", tokens(1000), tokens(1000), tokens(1000), 0, 0, 1, false},
		{"a pace that nobody knows, later", tokens(1000), tokens(1000), tokens(3000), 0, 6*hour + day, 3, true},
		{"not in a hundred years", tokens(1), tokens(1), tokens(1e12), hour, 0, 0, true},
		{"in so many years, by the allowance", tokens(1e12), tokens(1e12), tokens(1e12), 101 * 365 * day, 101 * 365 * day, 101*365 + 1, false},
	} {
		takes, days, binds := Cap{Daily: c.daily, Left: c.left, Ends: now.Add(6 * hour)}.Spread(c.want, c.alone, now)
		if (takes-c.takes).Abs() > time.Millisecond || days != c.days || binds != c.binds {
			t.Errorf("%s: %s on %d days, the cap binds: %v; want %s on %d days: %v", c.name, takes, days, binds, c.takes, c.days, c.binds)
		}
	}
}

func TestLeast(t *testing.T) {
	for _, c := range []struct{ daily, want, least Amount }{
		{Amount{Tokens: 10}, Amount{5, 5}, Amount{Tokens: 10}},
		{Amount{Cost: 10}, Amount{5, 5}, Amount{Cost: 10}},
		{Amount{20, 10}, Amount{5, 5}, Amount{Cost: 10}},
		{Amount{10, 20}, Amount{5, 5}, Amount{Tokens: 10}},
		{Amount{10, 1}, Amount{5, 0}, Amount{Tokens: 10}},
	} {
		if got := (Cap{Daily: c.daily}).Least(c.want); got != c.least {
			t.Errorf("of %+v by %+v: %+v", c.daily, c.want, got)
		}
	}
}

// TestCap: what is spent, by questions too, and what is set apart is not left, whatever the model; and a new day has all of it.
func TestCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if got := open(t, t.TempDir(), Amount{}).Cap(model); got != (Cap{}) {
			t.Errorf("without a cap: %+v", got)
		}
		daily := Amount{Tokens: 1000, Cost: Dollars(1)}
		l := open(t, t.TempDir(), daily)
		p := l.Purse(model)
		spend(t, p, embedder.Index, 200)
		spend(t, p, embedder.Query, 100)
		p.Take(embedder.Index, 300)
		tomorrow := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)
		if got, want := l.Cap(model), (Cap{Daily: daily, Left: daily.minus(Amount{600, Cost(600, p.price)}), Ends: tomorrow}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		p.Take(embedder.Query, 5000)
		if got := l.Cap("openai/nobody-said-what-it-costs"); got.Left.Tokens != 0 || !got.Unpriced {
			t.Errorf("%+v", got)
		}
		p.Settle(embedder.Query, 5000, 0)
		p.Settle(embedder.Index, 300, 0)
		time.Sleep(25 * time.Hour)
		if got, want := l.Cap(model), (Cap{Daily: daily, Left: daily, Ends: tomorrow.AddDate(0, 0, 1)}); got != want {
			t.Errorf("the next day: %+v, want %+v", got, want)
		}
		if got := open(t, t.TempDir(), Amount{Tokens: 5}).Cap("openai/nobody-said-what-it-costs"); got.Unpriced || got.Left != (Amount{Tokens: 5}) {
			t.Errorf("money is not capped: %+v", got)
		}
	})
}
