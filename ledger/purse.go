package ledger

import (
	"fmt"
	"time"

	"github.com/liverag/liverag/embedder"
)

// Purse is what may be spent on one model. All of a ledger's purses share its cap. It implements [embedder.Purse].
type Purse struct {
	ledger *Ledger
	model  string
	price  float64 // US dollars a million tokens
	known  bool    // somebody said what it costs
}

// Purse is the model's, with the price that Config has for it.
func (l *Ledger) Purse(model string) *Purse {
	price, known := l.config.Prices[model]
	return &Purse{ledger: l, model: model, price: price, known: known}
}

const (
	// askAgain is when to ask again after a refusal, if midnight is not nearer: timers stand still while a machine sleeps, and the day does not.
	askAgain = time.Minute
	// askSoon is that while money is set apart for requests that may not cost it.
	askSoon = time.Second
	// parts is into how many requests a day's cap goes at least, so that the last request that does not fit any more leaves little of it over.
	parts = 20
)

// refusal is why nothing is set apart on the newest day; the zero value: it is.
type refusal struct {
	since time.Time
	why   string
}

// Take implements [embedder.Purse]. Questions are never refused.
func (p *Purse) Take(role embedder.Role, tokens int64) (until time.Time, why string) {
	l := p.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.turn(now)
	want := Amount{tokens, Cost(tokens, p.price)}
	if role == embedder.Query {
		l.taken = l.taken.plus(want)
		return time.Time{}, ""
	}
	if why := l.refuse(p, now, want); why != "" {
		if l.refused.why == "" {
			l.refused.since = now
		}
		l.refused.why = why
		if l.warned != l.newest {
			l.warned = l.newest
			l.config.Logger.Warn("embedding of documents pauses; questions go on being answered", "model", p.model, "why", why)
		}
		until = now.Add(askAgain)
		if l.taken != (Amount{}) {
			until = now.Add(askSoon)
		}
		if midnight := l.newest.end(); midnight.Before(until) {
			until = midnight
		}
		return until, why
	}
	l.refused = refusal{}
	l.taken = l.taken.plus(want)
	return time.Time{}, ""
}

// refuse tells why so much is not to be had; empty: it is. It needs mu.
func (l *Ledger) refuse(p *Purse, now time.Time, want Amount) string {
	most := l.config.Daily
	if most.Cost > 0 && !p.known {
		return fmt.Sprintf("nobody said what %s costs, so the daily cap of %v can't be kept with it: add it to the setting prices, 0 if it costs nothing, and restart", p.model, most.Cost)
	}
	total := l.spent.plus(l.taken).plus(want)
	switch {
	case most.Cost > 0 && want.Cost > 0 && total.Cost > most.Cost:
		return l.over(now, most.Cost.String(), (l.spent.Cost + l.taken.Cost).String(), want.Cost.String(), "spending.daily_usd")
	case most.Tokens > 0 && total.Tokens > most.Tokens:
		return l.over(now, fmt.Sprintf("%d tokens", most.Tokens), fmt.Sprint(l.spent.Tokens+l.taken.Tokens), fmt.Sprint(want.Tokens), "spending.daily_tokens")
	}
	return ""
}

// over says that a cap is reached, and what to do.
func (l *Ledger) over(now time.Time, most, spent, want, setting string) string {
	text := fmt.Sprintf("the daily cap of %s is reached: %s are spent or on their way, and the next request takes up to %s; embedding goes on at %s, or after a restart with a higher %s",
		most, spent, want, l.newest.end().Format(time.RFC3339), setting)
	if dayOf(now) < l.newest {
		text += fmt.Sprintf(". The clock says %s, and spending was counted for %s already: if the clock was wrong then, stop liverag and remove that day's lines from %s",
			dayOf(now), l.newest, l.file.path)
	}
	return text
}

// Settle implements [embedder.Purse].
func (p *Purse) Settle(role embedder.Role, taken, charged int64) {
	l := p.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = l.taken.minus(Amount{taken, Cost(taken, p.price)})
	f := Figures{Requests: 1, TokensBilled: charged, Cost: Cost(charged, p.price)}
	if charged == 0 {
		f.TokensRetried = taken
	}
	l.add(account{Model: p.model, Side: role.String()}, f)
}

// MostTokens is how large a request may be so that it is a small part of a day's cap; 0: there is none.
func (p *Purse) MostTokens() int {
	most := int64(0)
	if daily := p.ledger.config.Daily; daily.Tokens > 0 {
		most = max(1, daily.Tokens/parts)
	}
	if daily := p.ledger.config.Daily; daily.Cost > 0 && p.price > 0 {
		tokens := max(1, int64(daily.Cost.Dollars()/p.price*1e6)/parts)
		if most == 0 || tokens < most {
			most = tokens
		}
	}
	return int(most)
}
