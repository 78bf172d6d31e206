package embedder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// flight is a request.
type flight struct {
	line   *line
	ctx    context.Context
	cancel context.CancelFunc
	role   Role
	lane   Lane
	share  *Share
	parts  []part
	tokens int // by our count
	calls  int // that still wait for it
	charge charge
	trial  bool          // whether its endpoint is back
	within time.Duration // it has to be answered; 0: the model knows
	late   bool          // it was not

	inquiry *inquiry // nil unless it is part of one that was refused
}

// part is an input of a request and the places that want its vector.
type part struct {
	input  string
	tokens int
	owners []owner
}

type owner struct {
	call  *call
	index int
}

// inquiry finds out which inputs of a refused request are to blame, by smaller requests.
type inquiry struct {
	pending int  // requests, in flight or to come
	arrived bool // an input has come back with a vector
	alone   []failedPart
	given   error // it was given up, since nothing that was tried went through
}

type failedPart struct {
	part
	err error
}

// maxAlone is how many inputs of a request are tried alone, all in vain, before the failure is taken for nobody's fault.
const maxAlone = 8

// deaf tells whether no endpoint is to be asked for now.
func (b *Batcher) deaf() bool {
	return !slices.ContainsFunc(b.lines, func(l *line) bool { return !l.breaker.open() })
}

// current is the endpoint that requests go to: the first that is not to be left alone, or else the first of all.
func (b *Batcher) current() *line {
	for _, l := range b.lines {
		if !l.breaker.open() {
			return l
		}
	}
	return b.lines[0]
}

// away is the endpoint to tell of where none is to be asked for now: one that may come back by itself rather than one that refuses us, and that which is tried next.
func (b *Batcher) away() *line {
	return slices.MinFunc(b.lines, func(x, y *line) int {
		refuses := map[State]int{Refused: 1}
		return cmp.Or(cmp.Compare(refuses[x.breaker.state], refuses[y.breaker.state]), x.breaker.next.Compare(y.breaker.next))
	})
}

// refusedByAll tells whether every endpoint refuses us: then waiting alone won't help.
func (b *Batcher) refusedByAll() bool {
	return !slices.ContainsFunc(b.lines, func(l *line) bool { return l.breaker.state != Refused })
}

// dispatch starts every request that may start now, and sets the timer for the next one. It needs mu.
func (b *Batcher) dispatch() {
	now := time.Now()
	var due time.Time
	for again := true; again; {
		due = time.Time{}
		later := func(at time.Time) {
			if due.IsZero() || at.Before(due) {
				due = at
			}
		}
		for _, l := range b.lines {
			l.holds = false
		}
		again = b.start(now, later)
	}
	for _, l := range b.lines {
		l.unhold(now)
	}
	// What is far off may come sooner, if the machine sleeps meanwhile: its timers do too.
	if longest := now.Add(longestTimer); due.After(longest) {
		due = longest
	}
	switch {
	case due.Equal(b.due):
	case due.IsZero():
		b.timer.Stop()
	case b.timer == nil:
		b.timer = time.AfterFunc(max(due.Sub(now), 0), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.due = time.Time{}
			b.expire(time.Now(), false)
			b.dispatch()
		})
	default:
		b.timer.Reset(max(due.Sub(now), 0))
	}
	b.due = due
}

// longestTimer is after how long at the latest is looked again whether something is due.
const longestTimer = time.Minute

// start sends the most urgent request if it may go, and tells whether there may be another one to go.
func (b *Batcher) start(now time.Time, later func(time.Time)) bool {
	for _, q := range b.order() {
		// What is narrowed down goes before what waits on its lane, and not before what is more urgent.
		if len(b.narrow) > 0 && !moreUrgent(q.lane, q.role, b.narrow[0]) {
			if again, held := b.startNarrow(now, later); again || held {
				return again
			}
		}
		if q.first == nil {
			continue
		}
		if b.hopeless(q, now) {
			return true
		}
		shared := q.share.wait(now)
		if shared > 0 {
			b.current().budget.want() // it is a share of what is allowed
		}
		if wait := max(b.lingers(q, now), shared); wait > 0 {
			later(now.Add(wait))
			continue
		}
		if p := b.purse[q.role]; now.Before(p.until) {
			if b.tooLate(q, p.until.Sub(now), p.why) {
				return true
			}
			later(p.until)
			continue
		}
		l, least, held := b.admit(q, nil, now, later)
		switch {
		case l != nil:
			if f := b.take(q, l, least, now); len(f.parts) > 0 {
				b.send(f, l, now)
			} else { // all that waited was taken back
				f.cancel()
			}
			return true
		case held > 0 && b.tooLate(q, held, "the provider's allowance is used up"):
			return true
		case held > 0:
			return false // nothing overtakes: what a later lane took now, this one would lack
		}
	}
	if len(b.narrow) > 0 {
		again, _ := b.startNarrow(now, later)
		return again
	}
	return false
}

// moreUrgent tells whether a queue's calls go before a part of a refused request.
func moreUrgent(lane Lane, role Role, f *flight) bool {
	if lane > Live {
		return false
	}
	return f.lane > Live || role == Query && f.role != Query
}

// startNarrow sends the next part of a refused request if it may go. again: there may be another one to go; held: it waits for an allowance.
func (b *Batcher) startNarrow(now time.Time, later func(time.Time)) (again, held bool) {
	f := b.narrow[0]
	if f.parts = wanted(f.parts); len(f.parts) == 0 || f.inquiry.given != nil {
		b.narrow = b.narrow[1:]
		f.cancel()
		b.fail(f.parts, f.inquiry.given, false)
		b.inquired(f.inquiry)
		return true, false
	}
	f.tokens = 0
	for _, p := range f.parts {
		f.tokens += p.tokens
	}
	l, _, wait := b.admit(nil, f, now, later)
	if l == nil {
		return false, wait > 0
	}
	b.narrow = b.narrow[1:]
	b.send(f, l, now)
	return true, false
}

// tooLate fails the questions of a queue that would have to wait for longer than they may, and tells whether it did.
func (b *Batcher) tooLate(q *queue, wait time.Duration, why string) bool {
	if q.role != Query || b.cfg.QueryPatience <= 0 || wait <= b.cfg.QueryPatience {
		return false
	}
	b.failQueue(q, &Error{Op: b.Name(), Temporary: true, Throttled: true, RetryAfter: wait, Input: -1, Err: fmt.Errorf("%s for %s", why, wait.Round(time.Second))})
	return true
}

// hopeless fails the calls of a queue that no endpoint can serve for now: a question is better told at once, and work for a provider that refuses us needs somebody to
// look after it. It tells whether it did.
func (b *Batcher) hopeless(q *queue, now time.Time) bool {
	for _, l := range b.lines {
		if ok, _ := l.breaker.lets(now); ok {
			return false
		}
	}
	if q.role == Index && !b.refusedByAll() {
		return false
	}
	l := b.away()
	b.failQueue(q, fmt.Errorf("%s is tried again at %s; the last time: %w", l.name, l.breaker.next.UTC().Format(time.RFC3339), l.breaker.err))
	return true
}

func (b *Batcher) failQueue(q *queue, err error) {
	for q.first != nil {
		b.finish(q.first, reindexed(err, b.Name(), -1))
	}
}

// order is the queues, the most urgent first, until it is asked again.
func (b *Batcher) order() []*queue {
	out := append(append(b.urgent[:0], b.queues[Live][Query]...), b.queues[Live][Index]...)
	first, second := Replay, Backfill
	if b.turns%8 == 7 {
		first, second = second, first
	}
	for _, role := range [...]Role{Query, Index} {
		out = append(append(out, b.queues[first][role]...), b.queues[second][role]...)
	}
	b.urgent = out
	return out
}

// lingers is how long a queue waits for more inputs before a request is worth sending.
func (b *Batcher) lingers(q *queue, now time.Time) time.Duration {
	linger := b.cfg.Linger
	if requests, _ := b.current().budget.rates(); requests < 1 && q.role == Index && q.inputs < b.cfg.MaxInputs && linger > 0 {
		// A request is worth seconds then, and company is worth waiting for.
		return min(time.Duration(float64(time.Second)/requests)/50, time.Second/2) - now.Sub(q.since)
	}
	if linger <= 0 || q.role == Query || q.inputs >= b.cfg.MaxInputs || b.cfg.MaxTokens > 0 && q.tokens >= b.cfg.MaxTokens || q.gap > 2*linger {
		return 0
	}
	idle := true
	for _, l := range b.lines {
		idle = idle && l.flying == 0
		if l.takes > 0 {
			linger = min(linger, l.takes/4)
		}
	}
	if idle {
		return 0
	}
	return linger - now.Sub(q.since)
}

// least is how many tokens a queue's next request should have at least at an endpoint, by our count: what is there, but not more than is worth waiting for.
func (b *Batcher) least(q *queue, l *line) float64 {
	if b.count == nil {
		return 0
	}
	budget := &l.budget
	want := float64(q.tokens)
	if b.cfg.MaxTokens > 0 {
		want = min(want, float64(b.cfg.MaxTokens))
	}
	aim := budget.aim() / budget.factor
	if q.role == Query {
		aim = 0
	}
	return max(min(want, aim, budget.largest()/budget.factor), float64(q.first.first()))
}

// first is the tokens of the input that is next.
func (c *call) first() int {
	if len(c.again) > 0 {
		return c.cost(c.again[0])
	}
	for i := c.next; i < len(c.inputs); i++ {
		if c.vectors[i] == nil {
			return c.cost(i)
		}
	}
	return 0
}

// admit finds the endpoint that a queue's next request may go to now, or part of a refused one, and how many tokens it has at least. Without one, held is how long it has to
// wait for an allowance; 0: for a request that comes back.
func (b *Batcher) admit(q *queue, part *flight, now time.Time, later func(time.Time)) (l *line, tokens float64, held time.Duration) {
	for _, l := range b.lines {
		ok, next := l.breaker.lets(now)
		if !ok {
			later(next)
			continue
		}
		var lane Lane
		var role Role
		if part != nil {
			lane, role, tokens = part.lane, part.role, float64(part.tokens)
		} else {
			lane, role, tokens = q.lane, q.role, b.least(q, l)
		}
		trial := l.breaker.open()
		if !trial && l.flying >= l.slots(lane, role) {
			return nil, 0, 0
		}
		if wait := l.spacing(role, now); wait > 0 {
			later(now.Add(wait))
			return nil, 0, 0
		}
		if wait := l.budget.wait(lane, tokens*l.budget.factor, l.flying, now); wait > 0 {
			later(now.Add(wait))
			l.hold(now.Add(wait), now)
			if trial {
				continue
			}
			held = wait
			if l.breaker.failures > 0 { // it asked for a pause because it is not well
				continue
			}
			return nil, 0, held
		}
		return l, tokens, 0
	}
	return nil, 0, held
}

// take puts the next request together, of as many tokens as there are to be had, and at least the least that was admitted, even if more than a full allowance: the calls of the queue take turns, a few inputs each. Where requests are what is short, other queues fill what is left of it.
func (b *Batcher) take(q *queue, l *line, least float64, now time.Time) *flight {
	f := &flight{role: q.role, lane: q.lane, share: q.share}
	size := min(b.cfg.MaxInputs, q.inputs)
	load := &load{
		flight: f, places: b.places, owners: make([]owner, 0, size), most: b.cfg.MaxInputs,
		room: max(l.budget.room(q.lane, l.flying, now)/l.budget.factor, least),
	}
	f.parts = make([]part, 0, size)
	if l.breaker.open() {
		load.most = b.turn()
	}
	load.room = min(load.room, l.budget.largest()/l.budget.factor)
	if b.cfg.MaxTokens > 0 {
		load.room = min(load.room, float64(b.cfg.MaxTokens))
	}
	// Values of the first call's ctx (a trace, a logger) go along; its end does not.
	f.ctx, f.cancel = context.WithCancel(WithLane(context.WithoutCancel(q.first.ctx), q.lane))
	if q.lane > Live {
		if b.waiting(Replay) && b.waiting(Backfill) || b.turns%8 == 7 {
			b.turns++
		}
	}
	b.fill(load, q)
	if q.role == Index && !load.full && l.budget.scarce(now) {
		for _, other := range b.order() {
			if other != q && other.role == Index && other.first != nil && other.share.wait(now) == 0 {
				b.fill(load, other)
			}
		}
	}
	clear(b.places)
	// Queues of one lane and role take turns too.
	if all := b.queues[q.lane][q.role]; len(all) > 1 {
		if i := slices.Index(all, q); i >= 0 {
			copy(all[i:], all[i+1:])
			all[len(all)-1] = q
		}
	}
	return f
}

// waiting tells whether documents wait on a lane.
func (b *Batcher) waiting(lane Lane) bool {
	return slices.ContainsFunc(b.queues[lane][Index], func(q *queue) bool { return q.first != nil })
}

// load is a request that is being filled.
type load struct {
	flight *flight
	places map[string]int // of inputs among the parts
	owners []owner        // room for most parts' only owner
	most   int            // parts
	room   float64        // tokens
	full   bool
}

// turn is how many inputs of a call are loaded before it is another's turn; and how many try whether an endpoint is back.
func (b *Batcher) turn() int { return max(1, b.cfg.MaxInputs/8) }

// fill loads from one queue.
func (b *Batcher) fill(l *load, q *queue) {
	f := l.flight
	turn := b.turn()
	for !l.full && q.first != nil {
		c := q.first
		if c.company > 0 {
			if len(f.parts) >= c.company {
				l.full = true
				break
			}
			l.most = min(l.most, c.company)
		}
		if !c.usage.hold() {
			b.finish(c, b.takenBack())
			continue
		}
		joined := false
		for n := 0; n < turn && c.waiting > 0; {
			again := len(c.again) > 0
			i := c.next
			if again {
				i = c.again[0]
			} else if c.vectors[i] != nil {
				c.next++
				continue // blank
			}
			input, cost := c.inputs[i], c.cost(i)
			at, known := l.places[input]
			if !known {
				if len(f.parts) >= l.most || len(f.parts) > 0 && float64(f.tokens+cost) > l.room+.5 {
					l.full = true
					break
				}
				at = len(f.parts)
				l.places[input] = at
				if len(l.owners) < cap(l.owners) {
					l.owners = append(l.owners, owner{c, i})
					f.parts = append(f.parts, part{input: input, tokens: cost, owners: l.owners[len(l.owners)-1 : len(l.owners) : len(l.owners)]})
				} else {
					f.parts = append(f.parts, part{input: input, tokens: cost, owners: []owner{{c, i}}})
				}
				f.tokens += cost
			} else {
				f.parts[at].owners = append(f.parts[at].owners, owner{c, i})
			}
			if again {
				c.again = c.again[1:]
			} else {
				c.next++
			}
			joined = true
			c.waiting--
			q.inputs--
			q.tokens -= cost
			n++
		}
		c.usage.release(joined)
		if joined {
			b.board(f, c)
			q.unlink(c)
			if c.waiting > 0 {
				q.link(c, false)
			}
		}
	}
	if q.first != nil {
		q.since = time.Now()
	}
	b.close(q)
}

// board notes that a call has inputs in a request.
func (b *Batcher) board(f *flight, c *call) {
	if n := len(c.flights); n == 0 || c.flights[n-1] != f {
		c.flights = append(c.flights, f)
		f.calls++
	}
}

// send lets a request go, unless there is no money for it.
func (b *Batcher) send(f *flight, l *line, now time.Time) {
	if b.cfg.Purse != nil {
		if until, why := b.cfg.Purse.Take(f.role, int64(math.Ceil(float64(f.tokens)*l.budget.factor))); !until.IsZero() {
			p := &b.purse[f.role]
			if p.why == "" {
				p.since = now
			}
			if soonest := now.Add(soonestAsked); until.Before(soonest) {
				until = soonest
			}
			p.until, p.why = until, why
			b.putBack(f)
			return
		}
		if f.role == Index && b.purse[Index].why != "" {
			for _, other := range b.lines {
				other.ready = now
			}
		}
		b.purse[f.role] = empty{}
	}
	f.line = l
	f.charge = l.budget.take(f.lane, float64(f.tokens), now)
	f.trial = l.breaker.open()
	l.breaker.trying = f.trial
	f.within = b.within(f)
	l.flying++
	l.total.requests++
	l.minute.Add(1, 0, now)
	requests, tokens := l.budget.rates()
	f.share.use(seconds(max(1/requests, f.charge.tokens/tokens)))
	go b.fly(f)
}

// soonestAsked is how soon a purse that refused is asked again, whatever it says: without a time between, that would never end.
const soonestAsked = 100 * time.Millisecond

// within is how long a request may take where another endpoint may answer meanwhile: one that hangs is found out early by questions, since somebody waits for them, and by a trial.
func (b *Batcher) within(f *flight) time.Duration {
	patience := b.cfg.QueryPatience / 2
	switch {
	case len(b.lines) == 1 || patience <= 0:
	case f.role == Query:
		return patience
	case f.trial:
		return max(patience, 4*f.line.takes)
	}
	return 0
}

// hung tells whether a request that nobody waits for any more was given up so late that its endpoint hangs: whoever asks has less patience than the model, and who asks next must
// not wait as long.
func (b *Batcher) hung(f *flight) bool {
	return f.role == Query && b.cfg.QueryPatience > 0 && time.Since(f.charge.sent) >= b.cfg.QueryPatience/2
}

// putBack undoes a request that did not go.
func (b *Batcher) putBack(f *flight) {
	f.cancel()
	if f.inquiry != nil {
		b.inquired(f.inquiry)
	}
	for _, c := range b.unload(f) {
		b.push(c, true)
	}
}

// fly brings a request home and makes room for the next.
func (b *Batcher) fly(f *flight) {
	defer f.cancel()
	inputs := make([]string, len(f.parts))
	for i := range f.parts {
		inputs[i] = f.parts[i].input
	}
	ctx := f.ctx
	if f.within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.within)
		defer cancel()
	}
	vectors, report, err := f.line.embed(ctx, f.role, inputs)
	if err != nil && ctx.Err() != nil && (f.ctx.Err() == nil || b.hung(f)) {
		f.late = true
		err = &Error{Op: b.Name(), Temporary: true, Input: -1, Err: fmt.Errorf("%s has not answered within %s", f.line.name, time.Since(f.charge.sent).Round(100*time.Millisecond))}
	}
	if err == nil && len(vectors) != len(inputs) {
		err = Check(b.Name(), b.Dim(), len(inputs), vectors)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.land(f, vectors, report, err)
	b.dispatch()
}

// land settles what becomes of each part.
func (b *Batcher) land(f *flight, vectors [][]float32, report Report, err error) {
	now := time.Now()
	l := f.line
	l.flying--
	if f.trial {
		l.breaker.trying = false
	}
	report.doubt(len(f.parts), f.tokens)
	var failed *Error
	known := errors.As(err, &failed)
	if err != nil && !known {
		failed = &Error{Op: b.Name(), Input: -1, Err: err}
	}
	took := now.Sub(f.charge.sent)
	if l.budget.unlimited() {
		f.share.use(took / time.Duration(max(1, l.most-l.reserve)))
	}
	l.budget.settle(f.charge, report, failed, now)
	charged := int64(report.Charged) // also for what brings nothing
	if err == nil && charged == 0 {
		charged = int64(f.tokens)
	}
	l.total.tokens += charged
	l.minute.Add(0, charged, now)
	if b.cfg.Purse != nil {
		b.cfg.Purse.Settle(f.role, int64(math.Ceil(f.charge.tokens)), charged)
	}
	if f.inquiry != nil {
		defer b.inquired(f.inquiry)
	}
	switch {
	case err == nil:
		l.takes += (took - l.takes) / 4
		b.answers(l, now)
		b.arrive(f, vectors, charged)
	case f.calls == 0 && !f.late:
		// Nobody waits for it any more; that it failed may be because it was cancelled, and says nothing.
	case known && failed.Throttled:
		l.total.throttled++
		l.total.retried += int64(f.tokens)
		b.answers(l, now)
		b.retry(f, err, 0, now)
	case known && (failed.Temporary || failed.Account):
		l.total.failed++
		if f.late {
			l.breaker.failures += breakAfter / 2 // five of those would take too long
		}
		alone := ""
		if len(f.parts) == 1 {
			alone = f.parts[0].input
		}
		last := !slices.ContainsFunc(b.lines, func(other *line) bool { return other != l && !other.breaker.open() })
		l.breaker.fail(failed, f.trial, alone, last, now)
		if l.open = max(1, l.open/2); l.breaker.open() {
			l.open = 1
		}
		switch {
		case failed.Account && b.refusedByAll():
			b.fail(f.parts, err, false)
		case failed.Account:
			b.retry(f, err, 0, now) // at another endpoint
		default:
			l.total.retried += int64(f.tokens)
			smaller := 0
			if !l.breaker.open() {
				smaller = len(f.parts) / 2
			}
			b.retry(f, err, smaller, now)
		}
		if l.breaker.open() {
			b.expire(now, true)
		}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		l.total.failed++
		b.fail(f.parts, err, false)
	default:
		l.total.failed++
		b.answers(l, now)
		b.refused(f, failed, err, now)
	}
}

// answers notes that an endpoint answers: more may be asked of it.
func (b *Batcher) answers(l *line, now time.Time) {
	if l.breaker.open() {
		l.open = 1
	} else {
		l.open = min(l.open+1, l.most) // one more for each that comes back doubles them in the time of a request
	}
	l.breaker.succeed(now)
}

// refused finds out whose fault a permanent failure is.
func (b *Batcher) refused(f *flight, failed *Error, err error, now time.Time) {
	if at := failed.Input; at >= 0 && at < len(f.parts) {
		b.fail(f.parts[at:at+1], err, true)
		f.parts = slices.Delete(f.parts, at, at+1)
		if f.inquiry != nil {
			f.inquiry.arrived = true
		}
		for _, c := range b.unload(f) {
			b.push(c, true)
		}
		return
	}
	if f.inquiry == nil {
		f.inquiry = &inquiry{pending: 1}
		defer b.inquired(f.inquiry)
	}
	q := f.inquiry
	switch {
	case len(f.parts) == 1:
		// Whether the input is to blame is known when others have been tried.
		q.alone = append(q.alone, failedPart{f.parts[0], err})
		if len(q.alone) >= maxAlone && !q.arrived {
			q.given = err
		}
	default:
		half := len(f.parts) / 2
		q.pending += 2
		for i, parts := range [][]part{f.parts[:half:half], f.parts[half:]} {
			smaller := &flight{role: f.role, lane: f.lane, share: f.share, parts: parts, inquiry: q}
			smaller.ctx, smaller.cancel = context.WithCancel(context.WithoutCancel(f.ctx))
			for _, p := range parts {
				for _, o := range p.owners {
					if !o.call.finished {
						b.board(smaller, o.call)
					}
				}
			}
			b.narrow = slices.Insert(b.narrow, i, smaller)
		}
	}
}

// inquired ends one request of an inquiry, and the inquiry with the last.
func (b *Batcher) inquired(q *inquiry) {
	if q.pending--; q.pending > 0 {
		return
	}
	for _, lone := range q.alone {
		b.fail([]part{lone.part}, lone.err, q.arrived)
	}
}

// wanted drops the owners that have gone, and the parts without any.
func wanted(parts []part) []part {
	return slices.DeleteFunc(parts, func(p part) bool {
		return !slices.ContainsFunc(p.owners, func(o owner) bool { return !o.call.finished })
	})
}

// arrive hands out vectors.
func (b *Batcher) arrive(f *flight, vectors [][]float32, charged int64) {
	each := 0.0
	if f.tokens > 0 {
		each = float64(charged) / float64(f.tokens)
	}
	for i, p := range f.parts {
		if err := checkVector(b.Dim(), vectors[i]); err != nil {
			b.fail(f.parts[i:i+1], &Error{Op: b.Name(), Input: i, Err: err}, true)
			continue
		}
		if f.inquiry != nil {
			f.inquiry.arrived = true
		}
		for n, o := range p.owners {
			c := o.call
			if c.finished {
				continue
			}
			vector := vectors[i]
			if n > 0 {
				vector = slices.Clone(vector) // each caller owns what it gets
			}
			c.vectors[o.index] = vector
			c.usage.sent(b.inner, p.input, each*float64(p.tokens)/float64(len(p.owners)))
			c.failing, c.tries, c.company = time.Time{}, 0, 0
			if c.left--; c.left == 0 {
				b.finish(c, nil)
			}
		}
	}
}

// unload gives the inputs of a request back to their calls, and returns those, out of their queues; the first last, since each goes to the front.
func (b *Batcher) unload(f *flight) []*call {
	var calls []*call
	for _, p := range f.parts {
		for _, o := range p.owners {
			c := o.call
			if c.finished {
				continue
			}
			if !slices.Contains(calls, c) {
				b.pull(c)
				calls = append(calls, c)
				c.flights = slices.DeleteFunc(c.flights, func(other *flight) bool { return other == f })
			}
			c.again = append(c.again, o.index)
			if c.waiting++; c.waiting == c.asked {
				c.usage.undo()
			}
		}
	}
	slices.Reverse(calls)
	return slices.DeleteFunc(calls, func(c *call) bool {
		if c.usage.takenBack() {
			b.finish(c, b.takenBack())
		}
		return c.finished || c.resting // those come back by themselves
	})
}

func (b *Batcher) takenBack() error { return fmt.Errorf("embed with %s: %w", b.Name(), ErrTakenBack) }

// retry has the inputs of a request that failed sent again, later, and ends the calls that have failed for long enough. Once a request has failed twice in a row, its
// inputs go in ones of at most smaller: it may be one input that makes the endpoint fail.
func (b *Batcher) retry(f *flight, err error, smaller int, now time.Time) {
	var failed *Error
	errors.As(err, &failed)
	for _, c := range b.unload(f) {
		patience := b.patience(f.role)
		if c.failing.IsZero() {
			c.failing = now
		}
		c.tries++
		if patience < 0 || now.Sub(c.failing) >= patience {
			b.finish(c, b.gaveUp(c, err, now))
			continue
		}
		if c.tries > 1 && smaller > 0 {
			c.company = smaller
		}
		// An input that makes an endpoint fail must not be all that it is tried with.
		front := !f.trial && c.company == 0
		if failed.Throttled || failed.RetryAfter > 0 || f.line.breaker.open() {
			b.push(c, front) // the allowance holds it, or the breaker, or another endpoint takes it
			continue
		}
		longest := min(longestPause, firstPause<<min(c.tries-1, 10))
		if len(b.lines) > 1 && c.tries < breakAfter {
			longest = firstPause // whether to go elsewhere is known sooner
		}
		c.resting = true
		time.AfterFunc(rand.N(longest+1), func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if c.resting = false; !c.finished {
				b.push(c, front)
				b.dispatch()
			}
		})
	}
}

// patience is for how long calls of a role may fail.
func (b *Batcher) patience(role Role) time.Duration {
	if role == Query {
		return b.cfg.QueryPatience
	}
	return b.cfg.Patience
}

func (b *Batcher) gaveUp(c *call, err error, now time.Time) error {
	err = reindexed(err, b.Name(), -1)
	if passed := now.Sub(c.failing); passed > 0 {
		return fmt.Errorf("after %s of failures: %w", passed.Round(time.Millisecond), err)
	}
	return err
}

// expire ends the calls that have waited for an endpoint that is down for longer than they may; failed: it has just been tried again, in vain.
func (b *Batcher) expire(now time.Time, failed bool) {
	if !b.deaf() {
		return
	}
	for _, lane := range b.queues {
		for role, queues := range lane {
			patience := b.patience(Role(role))
			for _, q := range slices.Clone(queues) {
				for c, after := q.first, (*call)(nil); c != nil; c = after {
					after = c.after
					if c.failing.IsZero() {
						c.failing = now
					}
					if patience < 0 && failed || patience >= 0 && now.Sub(c.failing) >= patience {
						b.finish(c, b.gaveUp(c, b.away().breaker.err, now))
					}
				}
			}
		}
	}
}

// fail ends the calls that own parts; if a part is to blame, their *Error names it by its place in each call.
func (b *Batcher) fail(parts []part, err error, blame bool) {
	for _, p := range parts {
		for _, o := range p.owners {
			index := -1
			if blame {
				index = o.index
			}
			b.finish(o.call, reindexed(err, b.Name(), index))
		}
	}
}

// finish ends a call, once: it leaves the queue and the requests that carry its inputs. It needs mu.
func (b *Batcher) finish(c *call, err error) {
	if c.finished {
		return
	}
	b.pull(c)
	c.finished, c.err = true, err
	c.waiting = 0
	for _, f := range c.flights {
		if f.calls--; f.calls == 0 {
			f.cancel()
		}
	}
	close(c.done)
}
