package embedder

import (
	"context"
	"math"
	"time"
)

// line is one endpoint: its model, what it allows, and how it does.
type line struct {
	name     string
	model    Embedder
	reporter Reporter // nil: it tells nothing
	most     int      // requests in flight
	reserve  int      // of them, for live work alone

	budget  budget
	breaker breaker

	flying int
	open   int           // requests that may be in flight for now: it starts with one where a provider may have limits that we don't know, and doubles
	takes  time.Duration // a request, of late

	held      time.Time // since when work waits for the allowance; zero: none does
	holds     bool      // some was found to wait when it was last looked
	heldUntil time.Time
	ready     time.Time // since when nothing of ours is in the way
	heldFor   time.Duration
	total     struct{ requests, throttled, failed, tokens, retried int64 }
	minute    Minute
}

func newLine(e Endpoint, reserve int, now time.Time) *line {
	l := &line{name: e.Name, model: e.Model, most: e.Concurrency, reserve: min(max(reserve, 0), e.Concurrency-1), budget: newBudget(e.Limits, now), ready: now}
	l.reporter, _ = e.Model.(Reporter)
	if opened, ok := e.Model.(Opened); ok {
		l.budget.settle(charge{sent: now}, opened.OpenedWith(), nil, now)
	}
	l.open = l.most
	if l.reporter != nil {
		l.open = 1
	}
	return l
}

// embed sends a request.
func (l *line) embed(ctx context.Context, role Role, inputs []string) ([][]float32, Report, error) {
	if l.reporter != nil {
		return l.reporter.EmbedReported(ctx, role, inputs)
	}
	vectors, err := l.model.Embed(ctx, role, inputs)
	return vectors, Report{}, err
}

// slots is how many requests may be in flight for a request of that kind to go.
func (l *line) slots(lane Lane, role Role) int {
	switch {
	case role == Query && lane == Live:
		return l.open + 1 // it must not wait until a document's comes back
	case lane == Live:
		return l.open
	}
	return min(l.open, l.most-l.reserve)
}

// spacing is how long the next request of documents waits so that those in flight come there one after the other, where a provider may have limits that nobody has told. It is not for what
// is allowed: when one is refused for a limit, few are right behind it that will be refused too. As many can be in flight as without.
func (l *line) spacing(role Role, now time.Time) time.Duration {
	if l.reporter == nil || l.flying == 0 || role == Query || !l.budget.unlimited() {
		return 0
	}
	return l.budget.sent.Add(3 * l.takes / time.Duration(4*l.open)).Sub(now)
}

// hold notes that work waits for the allowance until then.
func (l *line) hold(until, now time.Time) {
	if l.held.IsZero() {
		l.held = now
	}
	l.holds, l.heldUntil = true, until
}

// unhold notes that none waits any longer, unless hold was called since holds was false.
func (l *line) unhold(now time.Time) {
	if !l.holds && !l.held.IsZero() {
		l.heldFor += now.Sub(l.held)
		l.held, l.ready = time.Time{}, now
	}
}

// status tells how it stands.
func (l *line) status(now time.Time) Provider {
	p := Provider{
		Name: l.name, State: Ready, Since: latest(l.ready, l.breaker.since, l.budget.notBefore), Concurrency: l.most, InFlight: l.flying,
		Requests: l.total.requests, Throttled: l.total.throttled, Failed: l.total.failed, Tokens: l.total.tokens, TokensRetried: l.total.retried, HeldFor: l.heldFor,
	}
	p.RequestsLastMinute, p.TokensLastMinute = l.minute.Sum(now)
	requests, tokens := l.budget.rates()
	perMinute := func(rate float64) int {
		if math.IsInf(rate, 1) {
			return 0
		}
		return int(math.Round(60 * rate))
	}
	p.RPM, p.TPM = perMinute(requests), perMinute(tokens)
	is := func(a *account) bool {
		return (a.requests.rate > 0 || a.tokens.rate > 0) && (a.requests.rate == requests || a.requests.rate == 0) && (a.tokens.rate == tokens || a.tokens.rate == 0)
	}
	switch {
	case is(&l.budget.own):
		p.Source = "settings"
	case is(&l.budget.told):
		p.Source = "provider"
	case l.budget.learned.number > 0:
		p.Source = "learned"
	case p.RPM > 0 || p.TPM > 0: // one from here, one from there
		p.Source = "settings"
	}
	if !l.held.IsZero() {
		p.HeldFor += now.Sub(l.held)
	}
	switch {
	case l.breaker.bad():
		p.State, p.Since, p.NextTry, p.Detail = l.breaker.state, l.breaker.since, l.breaker.next, l.breaker.err.Error()
	case now.Before(l.budget.notBefore):
		p.State, p.Since, p.NextTry = Held, l.budget.refused, l.budget.notBefore
		if !l.held.IsZero() && l.held.Before(p.Since) {
			p.Since = l.held
		}
		p.Detail = "it asked for a pause"
		if l.budget.refusals > 0 {
			p.Detail = "it refused a request because too much was asked (429)"
		}
	case !l.held.IsZero():
		p.State, p.Since, p.NextTry = Held, l.held, l.heldUntil
		p.Detail = "work waits for its allowance"
		if limits := p.Limits(); limits != "" {
			p.Detail = "its limits are " + limits
		}
	}
	return p
}

func latest(first time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.After(first) {
			first = t
		}
	}
	return first
}
