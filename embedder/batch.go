package embedder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// BatchConfig says how requests are put together.
type BatchConfig struct {
	// Concurrency is how many requests are in flight at once. Defaults to 2.
	Concurrency int
	// Linger is how long inputs of documents wait for company while other requests are in flight and a slot is free. On an idle
	// system nothing waits, and questions never do. Defaults to 0: what waits is what queued up while all slots were taken.
	Linger time.Duration
	// MaxInputs is the most inputs in a request. Defaults to 64.
	MaxInputs int
	// MaxTokens is the most tokens in a request, by the model's own tokenizer or else 4 bytes a token; an input above it goes alone.
	// Defaults to 0: no limit.
	MaxTokens int
	// Reserve is how many of the Concurrency requests the Replay lane leaves free, so that a live change never waits for a replay's request to come back. Defaults
	// to 1, or to 0 where Concurrency is 1; negative means none.
	Reserve int
}

func (c BatchConfig) withDefaults() BatchConfig {
	if c.Concurrency <= 0 {
		c.Concurrency = 2
	}
	if c.MaxInputs <= 0 {
		c.MaxInputs = 64
	}
	if c.Reserve == 0 {
		c.Reserve = 1
	}
	c.Reserve = min(max(c.Reserve, 0), c.Concurrency-1)
	return c
}

// Batch merges the inputs of concurrent calls into full requests, and cuts large calls into several.
//
// A request carries inputs of one lane and one role. Questions on the Live lane go first, then documents on it, then the Replay lane,
// strictly: a replay gets what live work leaves. Within a queue the calls take turns, so that a document of 100,000 chunks holds up nobody. Equal inputs in a request are
// sent once. Blank inputs are answered with the zero vector and not sent.
//
// Each answer is checked by [Check]. A permanent failure is narrowed down to the inputs it comes from, and only the calls that own them fail:
// with the *Error's Input where the model named one, or where the input failed alone and others of its request went through. If none went through, the
// failure may be no input's fault (a wrong key, a wrong URL): then Input stays -1. A temporary failure fails every call of its request; put Retry below.
//
// A call whose ctx ends takes its waiting inputs away; its request goes on for the others, and is cancelled when nobody is left.
// Goroutines exist while requests are in flight, and only then.
func Batch(inner Embedder, cfg BatchConfig) *Batcher {
	b := &Batcher{inner: inner, cfg: cfg.withDefaults()}
	if b.cfg.MaxTokens > 0 {
		b.count = counterOf(inner)
	}
	return b
}

// Batcher is what [Batch] returns. It takes a call's lane from its ctx (see [WithLane]).
type Batcher struct {
	inner Embedder
	cfg   BatchConfig
	count func(string) int // nil without MaxTokens

	mu     sync.Mutex
	queues [lanes][2]queue // by lane and role
	flying int
	linger *time.Timer // runs dispatch when the oldest lingering input is due; nil when none lingers
}

// queue is the calls of one lane and role that have inputs to send.
type queue struct {
	calls  []*call
	inputs int
	tokens int
	since  time.Time // when it began to fill
}

// call is one Embed.
type call struct {
	ctx     context.Context
	queue   *queue
	inputs  []string
	tokens  []int // nil without MaxTokens
	vectors [][]float32
	next    int // the first input that is not in a request
	queued  int // inputs not in a request yet, blank ones not counted
	left    int // inputs without a vector
	flights []*flight

	done     chan struct{} // closed when finished
	finished bool
	err      error
}

// flight is a request and whatever it takes to bring its inputs home.
type flight struct {
	ctx    context.Context
	cancel context.CancelFunc
	role   Role
	lane   Lane
	parts  []part
	calls  int // the calls that still wait for it

	arrived bool // an input has come back with a vector
	alone   []failedPart
}

// part is an input of a request and the places that want its vector.
type part struct {
	input  string
	owners []owner
}

type owner struct {
	call  *call
	index int
}

type failedPart struct {
	part
	err error
}

// Lane is b for all calls of one lane.
func (b *Batcher) Lane(lane Lane) Embedder { return OnLane(b, lane) }

// Name is the model's.
func (b *Batcher) Name() string { return b.inner.Name() }

// Dim is the model's.
func (b *Batcher) Dim() int { return b.inner.Dim() }

// MaxInput is the model's.
func (b *Batcher) MaxInput() int { return b.inner.MaxInput() }

// Unwrap is the embedder below.
func (b *Batcher) Unwrap() Embedder { return b.inner }

// Embed queues the inputs and waits for all of them.
func (b *Batcher) Embed(ctx context.Context, role Role, inputs []string) ([][]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embed with %s: %w", b.Name(), err)
	}
	lane := min(LaneOf(ctx), lanes-1)
	if role != Query {
		role = Index
	}
	c := &call{ctx: ctx, inputs: inputs, vectors: make([][]float32, len(inputs)), done: make(chan struct{})}
	if b.count != nil {
		c.tokens = make([]int, len(inputs))
	}
	tokens := 0
	for i, input := range inputs {
		if Blank(input) {
			c.vectors[i] = make([]float32, b.Dim())
			continue
		}
		c.left++
		if b.count != nil {
			c.tokens[i] = b.count(input)
			tokens += c.tokens[i]
		}
	}
	if c.left == 0 {
		return c.vectors, nil
	}
	c.queued = c.left

	b.mu.Lock()
	q := &b.queues[lane][role]
	if len(q.calls) == 0 {
		q.since = time.Now()
	}
	c.queue = q
	q.calls = append(q.calls, c)
	q.inputs += c.queued
	q.tokens += tokens
	b.dispatch()
	b.mu.Unlock()

	select {
	case <-c.done:
	case <-ctx.Done():
		b.mu.Lock()
		b.finish(c, fmt.Errorf("embed with %s: %w", b.Name(), ctx.Err()))
		b.dispatch()
		b.mu.Unlock()
	}
	if c.err != nil {
		return nil, c.err
	}
	usageOf(ctx).add(b.inner, inputs)
	return c.vectors, nil
}

// Inputs is how many inputs fill all the requests that may be in flight.
func (b *Batcher) Inputs() int { return b.cfg.Concurrency * b.cfg.MaxInputs }

// Requests is how many requests so many inputs of so many tokens fill, at least.
func (b *Batcher) Requests(inputs, tokens int64) int64 {
	fill := func(n int64, most int) int64 {
		if most <= 0 {
			return 0
		}
		return (n + int64(most) - 1) / int64(most)
	}
	return max(fill(inputs, b.cfg.MaxInputs), fill(tokens, b.cfg.MaxTokens))
}

// dispatch starts every request that may start now. It needs mu.
func (b *Batcher) dispatch() {
	if b.linger != nil {
		b.linger.Stop()
		b.linger = nil
	}
	var due time.Duration
	for lane := Live; lane < lanes; lane++ {
		slots := b.cfg.Concurrency
		if lane == Replay {
			slots -= b.cfg.Reserve
		}
		for _, role := range [...]Role{Query, Index} {
			q := &b.queues[lane][role]
			for len(q.calls) > 0 && b.flying < slots {
				if wait := b.lingers(q, role); wait > 0 {
					if due == 0 || wait < due {
						due = wait
					}
					break
				}
				f := b.take(q, lane, role)
				b.flying++
				go b.fly(f)
			}
		}
	}
	if due > 0 {
		b.linger = time.AfterFunc(due, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.dispatch()
		})
	}
}

// lingers is how long a queue waits for more inputs before a request is worth sending.
func (b *Batcher) lingers(q *queue, role Role) time.Duration {
	full := q.inputs >= b.cfg.MaxInputs || b.cfg.MaxTokens > 0 && q.tokens >= b.cfg.MaxTokens
	if full || role == Query || b.flying == 0 || b.cfg.Linger <= 0 {
		return 0
	}
	return b.cfg.Linger - time.Since(q.since)
}

// take puts the next request together: the calls of the queue take turns, a few inputs each.
func (b *Batcher) take(q *queue, lane Lane, role Role) *flight {
	f := &flight{role: role, lane: lane}
	turn := max(1, b.cfg.MaxInputs/8)
	size := min(b.cfg.MaxInputs, q.inputs)
	f.parts = make([]part, 0, size)
	owners := make([]owner, 0, size) // room for most parts' only owner
	places := make(map[string]int, size)
	tokens, full := 0, false
	first := q.calls[0].ctx
	for !full && len(q.calls) > 0 {
		c := q.calls[0]
		joined := false
		for n := 0; n < turn && c.queued > 0; c.next++ {
			if c.vectors[c.next] != nil {
				continue // blank
			}
			input, cost := c.inputs[c.next], 0
			if b.count != nil {
				cost = c.tokens[c.next]
			}
			at, known := places[input]
			if !known {
				if len(f.parts) == b.cfg.MaxInputs || b.cfg.MaxTokens > 0 && len(f.parts) > 0 && tokens+cost > b.cfg.MaxTokens {
					full = true
					break
				}
				at = len(f.parts)
				places[input] = at
				owners = append(owners, owner{c, c.next})
				f.parts = append(f.parts, part{input: input, owners: owners[len(owners)-1 : len(owners) : len(owners)]})
				tokens += cost
			} else {
				f.parts[at].owners = append(f.parts[at].owners, owner{c, c.next})
			}
			joined = true
			c.queued--
			q.inputs--
			q.tokens -= cost
			n++
		}
		if joined && (len(c.flights) == 0 || c.flights[len(c.flights)-1] != f) {
			c.flights = append(c.flights, f)
			f.calls++
		}
		switch {
		case c.queued == 0:
			q.calls = slices.Delete(q.calls, 0, 1)
		case joined:
			q.calls = append(slices.Delete(q.calls, 0, 1), c)
		}
	}
	if len(q.calls) > 0 {
		q.since = time.Now()
	}
	// Values of the first call's ctx (a trace, a logger) go along; its end does not.
	f.ctx, f.cancel = context.WithCancel(WithLane(context.WithoutCancel(first), lane))
	return f
}

// fly brings a request home and makes room for the next.
func (b *Batcher) fly(f *flight) {
	defer f.cancel()
	b.ask(f, f.parts)

	b.mu.Lock()
	defer b.mu.Unlock()
	for _, lone := range f.alone {
		b.fail(lone.part, lone.err, f.arrived)
	}
	b.flying--
	b.dispatch()
}

// maxAlone is how many inputs of a request are tried alone, all in vain, before the failure is taken for nobody's fault.
const maxAlone = 8

// ask sends parts and settles what becomes of each, by smaller requests if need be.
func (b *Batcher) ask(f *flight, parts []part) {
	for {
		if parts = b.wanted(parts); len(parts) == 0 {
			return
		}
		inputs := make([]string, len(parts))
		for i := range parts {
			inputs[i] = parts[i].input
		}
		vectors, err := b.inner.Embed(f.ctx, f.role, inputs)
		if err == nil {
			if len(vectors) == len(parts) {
				b.arrive(f, parts, vectors)
				return
			}
			err = Check(b.Name(), b.Dim(), len(parts), vectors)
		}
		var failed *Error
		known := errors.As(err, &failed)
		switch {
		case known && failed.Temporary, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			b.failAll(parts, err)
			return
		case known && failed.Input >= 0 && failed.Input < len(parts):
			b.mu.Lock()
			b.fail(parts[failed.Input], err, true)
			b.mu.Unlock()
			parts = slices.Delete(slices.Clone(parts), failed.Input, failed.Input+1)
		case len(parts) == 1:
			// Whether the input is to blame is known when others have been tried.
			f.alone = append(f.alone, failedPart{parts[0], err})
			return
		case len(f.alone) >= maxAlone && !f.arrived:
			b.failAll(parts, err)
			return
		default:
			half := len(parts) / 2
			b.ask(f, parts[:half])
			parts = parts[half:]
		}
	}
}

// wanted drops the owners that have gone, and the parts without any.
func (b *Batcher) wanted(parts []part) []part {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := make([]part, 0, len(parts))
	for _, p := range parts {
		if slices.ContainsFunc(p.owners, func(o owner) bool { return !o.call.finished }) {
			kept = append(kept, p)
		}
	}
	return kept
}

// arrive hands out vectors.
func (b *Batcher) arrive(f *flight, parts []part, vectors [][]float32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, p := range parts {
		if err := checkVector(b.Dim(), vectors[i]); err != nil {
			b.fail(p, &Error{Op: b.Name(), Input: i, Err: err}, true)
			continue
		}
		f.arrived = true
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
			if c.left--; c.left == 0 {
				b.finish(c, nil)
			}
		}
	}
}

func (b *Batcher) failAll(parts []part, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range parts {
		b.fail(p, err, false)
	}
}

// fail ends the calls that own a part; if it is to blame, their *Error names it by its place in each call.
func (b *Batcher) fail(p part, err error, blame bool) {
	for _, o := range p.owners {
		index := -1
		if blame {
			index = o.index
		}
		b.finish(o.call, reindexed(err, b.Name(), index))
	}
}

// finish ends a call, once: it leaves the queue and the requests that carry its inputs. It needs mu.
func (b *Batcher) finish(c *call, err error) {
	if c.finished {
		return
	}
	c.finished, c.err = true, err
	if c.queued > 0 {
		q := c.queue
		q.inputs -= c.queued
		if b.count != nil {
			for i := c.next; i < len(c.inputs); i++ {
				if c.vectors[i] == nil {
					q.tokens -= c.tokens[i]
				}
			}
		}
		c.queued = 0
		q.calls = slices.DeleteFunc(q.calls, func(other *call) bool { return other == c })
	}
	for _, f := range c.flights {
		if f.calls--; f.calls == 0 {
			f.cancel()
		}
	}
	close(c.done)
}
