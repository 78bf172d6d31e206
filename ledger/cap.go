package ledger

import (
	"math"
	"time"
)

// Cap is what may be spent on documents in a day.
type Cap struct {
	// Daily is for a whole day, and Left is what nobody has spent or set apart yet today. What is 0 in Daily has no bound; the zero Cap is none at all.
	Daily, Left Amount
	// Ends is when today does: midnight, UTC.
	Ends time.Time
	// Unpriced: money is capped, and nobody said what the model costs, so no document is embedded by it.
	Unpriced bool
}

// Cap is what may be spent on documents by a model that a provider charges for. It is the same for all of them, as they share it, but for Unpriced.
func (l *Ledger) Cap(model string) Cap {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn(time.Now())
	c := l.cap()
	_, known := l.config.Prices[model]
	c.Unpriced = c.Daily.Cost > 0 && !known
	return c
}

// cap is what all models share of it. It needs mu.
func (l *Ledger) cap() Cap {
	most := l.config.Daily
	if most == (Amount{}) {
		return Cap{}
	}
	return Cap{Daily: most, Left: most.minus(l.spent).minus(l.taken).within(most), Ends: l.newest.end()}
}

// within is an amount from 0, of what is capped.
func (a Amount) within(most Amount) Amount {
	if most.Tokens == 0 {
		a.Tokens = 0
	}
	if most.Cost == 0 {
		a.Cost = 0
	}
	return Amount{max(0, a.Tokens), max(0, a.Cost)}
}

// Limits are Daily and Left for a caller, without what is not capped.
func (c Cap) Limits() (daily, left Limit) {
	if c.Daily.Cost > 0 {
		daily.USD, left.USD = &c.Daily.Cost, &c.Left.Cost
	}
	if c.Daily.Tokens > 0 {
		daily.Tokens, left.Tokens = &c.Daily.Tokens, &c.Left.Tokens
	}
	return daily, left
}

// Spread says how long it takes from now until so much is spent, and on how many days (UTC), today included, if nothing else is spent meanwhile. alone is how long it would take without the cap; 0
// where nobody knows, and then what is told is how long it takes at least. binds: the cap makes it longer; to more than a hundred years if both are 0.
func (c Cap) Spread(want Amount, alone time.Duration, now time.Time) (takes time.Duration, days int64, binds bool) {
	today := max(0, c.Ends.Sub(now))
	const day = 24 * time.Hour
	// All is counted in parts of the whole.
	pace := func(in time.Duration) float64 {
		if alone <= 0 {
			return math.Inf(1)
		}
		return float64(in) / float64(alone)
	}
	first, each := min(c.part(c.Left, want), pace(today)), min(c.part(c.Daily, want), pace(day))
	if first >= 1 {
		return alone, 1, false
	}
	if each <= 0 {
		return 0, 0, true
	}
	whole := math.Ceil((1-first)/each*(1-1e-9)) - 1 // days that are used up, after today and before the last
	if whole > 36500 && each < pace(day) {
		return 0, 0, true
	}
	last := max(0, 1-first-whole*each)
	takes = today + time.Duration(whole)*day + time.Duration(last*float64(alone))
	return takes, 2 + int64(whole), takes > alone+time.Millisecond
}

// part is how much of what is wanted an amount allows, which is what is capped least.
func (c Cap) part(amount, want Amount) float64 {
	part := math.Inf(1)
	if c.Daily.Tokens > 0 && want.Tokens > 0 {
		part = float64(amount.Tokens) / float64(want.Tokens)
	}
	if c.Daily.Cost > 0 && want.Cost > 0 {
		part = min(part, float64(amount.Cost)/float64(want.Cost))
	}
	return part
}

// Least is the amount of Daily that is used up first; the other is 0.
func (c Cap) Least(want Amount) Amount {
	if c.Daily.Cost > 0 && want.Cost > 0 && (c.Daily.Tokens == 0 || float64(c.Daily.Cost)/float64(want.Cost) < float64(c.Daily.Tokens)/float64(max(1, want.Tokens))) {
		return Amount{Cost: c.Daily.Cost}
	}
	return Amount{Tokens: c.Daily.Tokens}
}
