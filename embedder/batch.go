package embedder

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// BatchConfig says how requests are put together, and what the provider allows.
type BatchConfig struct {
	// Concurrency is how many requests are in flight at once. A question may go beside them. Defaults to 2.
	Concurrency int
	// Linger is the longest that inputs of documents wait for company while other requests are in flight and a slot is free; no longer than a quarter of the time that a
	// request takes, and only if company is to be expected, since the last two calls were close together. On an idle system nothing waits, and questions never do. Defaults to 0: what waits is what queued up while no request could go.
	Linger time.Duration
	// MaxInputs is the most inputs in a request. Defaults to 64.
	MaxInputs int
	// MaxTokens is the most tokens in a request, by the model's own tokenizer or else 4 bytes a token; an input above it goes alone.
	// Defaults to 0: no limit.
	MaxTokens int
	// Reserve is how many of the Concurrency requests only the Live lane may use, so that a live change never waits for a replay's request to come back. Defaults
	// to 1, or to 0 where Concurrency is 1; negative means none.
	Reserve int
	// Limits are what the provider allows, as far as that is known.
	Limits Limits
	// Endpoint names the provider's endpoint for people. Defaults to the model's name.
	Endpoint string
	// Purse is what may be spent. Defaults to nil: there is no bound.
	Purse Purse
	// Failover are further endpoints of the same model, which stand in, in this order, for one that is down or refuses us. Each has an allowance of its own.
	Failover []Endpoint
	// Patience is for how long a call goes on failing temporarily before it fails for good. It is for callers who want to know; whoever must not lose anything calls again.
	// Waiting for an allowance is no failure. Defaults to 2 minutes; negative: the first failure is the last.
	Patience time.Duration
	// QueryPatience is the same for questions, which somebody waits for, and is how long they wait for an allowance or for money. Defaults to 10 seconds.
	QueryPatience time.Duration
}

// Endpoint is another place where a model runs.
type Endpoint struct {
	Name        string
	Model       Embedder
	Concurrency int
	Limits      Limits
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
	if c.Patience == 0 {
		c.Patience = 2 * time.Minute
	}
	if c.QueryPatience == 0 {
		c.QueryPatience = 10 * time.Second
	}
	if c.Patience < 0 {
		c.QueryPatience = -1
	}
	return c
}

// Batch merges the inputs of concurrent calls into full requests, cuts large calls into several, and sends them as soon as the provider allows it, and not sooner.
//
// A request is put together at the moment when it may go, not before: so it holds what is most urgent then, and as much as then fits. Questions on the Live lane go
// first, then documents on it, then the Replay lane, then Backfill, which is given every eighth request of the two that it could fill; work that has a [Share] keeps to
// it. Within a queue the calls take turns, so that a document of 100,000 chunks holds up nobody. Equal inputs in a request are sent once. Blank inputs are answered
// with the zero vector and not sent.
//
// What is allowed is taken from the settings, from what the provider tells with its answers (see [Reporter]), and learned from its refusals where neither says it. Work
// that is not live leaves some of the allowance to live work, as long as there is any. A request that failed temporarily is sent again, its inputs together with whatever
// else waits: after the time that the provider asks for, or else one drawn evenly from zero to 250 ms·2ⁿ (full jitter, after Brooker, "Exponential Backoff And Jitter", 2015). After
// five failures in a row the endpoint is left alone, and tried with one small request now and then; when that succeeds, requests come back by doubling.
//
// Each answer is checked by [Check]. A permanent failure is narrowed down to the inputs it comes from, and only the calls that own them fail:
// with the *Error's Input where the model named one, or where the input failed alone and others of its request went through. If none went through, the
// failure may be no input's fault: then Input stays -1.
//
// A call whose ctx ends takes its waiting inputs away; its request goes on for the others, and is cancelled when nobody is left.
// Goroutines exist while requests are in flight, and only then.
func Batch(inner Embedder, cfg BatchConfig) *Batcher {
	b := &Batcher{inner: inner, cfg: cfg.withDefaults(), places: make(map[string]int)}
	name := b.cfg.Endpoint
	if name == "" {
		name = inner.Name()
	}
	now := time.Now()
	for _, e := range append([]Endpoint{{Name: name, Model: inner, Concurrency: b.cfg.Concurrency, Limits: b.cfg.Limits}}, b.cfg.Failover...) {
		if e.Concurrency <= 0 {
			e.Concurrency = b.cfg.Concurrency
		}
		b.lines = append(b.lines, newLine(e, b.cfg.Reserve, now))
	}
	counts := b.cfg.MaxTokens > 0 || b.cfg.Purse != nil
	for _, l := range b.lines {
		counts = counts || l.reporter != nil || l.budget.limits.TPM > 0
	}
	if counts {
		b.count = counterOf(inner)
	}
	return b
}

// Batcher is what [Batch] returns. It takes a call's lane from its ctx (see [WithLane]), and its share (see [WithShare]).
type Batcher struct {
	inner Embedder
	cfg   BatchConfig
	count func(string) int // nil where tokens don't matter
	lines []*line

	mu     sync.Mutex
	queues [lanes][2][]*queue // by lane and role, one for each share; they take turns
	narrow []*flight          // parts of refused requests, to be tried on their own
	timer  *time.Timer        // runs dispatch when something is due; nil until something was
	due    time.Time          // when that is; zero: nothing is
	urgent []*queue           // room for order
	places map[string]int     // and for take
	turns  int                // of Replay and Backfill where both wait
	purse  [2]empty           // by role
}

// empty says that nothing may be spent for now.
type empty struct {
	since, until time.Time
	why          string
}

// queue is the calls of one lane, role and share that have inputs to send.
type queue struct {
	lane   Lane
	role   Role
	share  *Share
	first  *call // of those that are linked by before and after
	last   *call
	inputs int
	tokens int
	since  time.Time     // when it began to fill
	came   time.Time     // when the last call did
	gap    time.Duration // between the last two
}

// call is one Embed.
type call struct {
	ctx     context.Context
	queue   *queue
	usage   *Usage
	inputs  []string
	tokens  []int // nil where they don't matter
	vectors [][]float32
	next    int   // the first input that was never in a request
	again   []int // inputs whose requests failed
	waiting int   // inputs in no request, blank ones not counted
	asked   int   // inputs that are not blank
	left    int   // of them, without a vector
	flights []*flight
	company int       // most inputs in a request with one of its; 0: no bound
	failing time.Time // since when nothing but failures came; zero: none
	tries   int       // of that
	queued  bool      // it is in its queue
	resting bool      // it comes back to its queue by itself

	before, after *call // in the queue

	done     chan struct{} // closed when finished
	finished bool
	err      error
}

func (c *call) cost(i int) int {
	if c.tokens == nil {
		return 0
	}
	return c.tokens[i]
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
	c := &call{ctx: ctx, usage: usageOf(ctx), inputs: inputs, vectors: make([][]float32, len(inputs)), done: make(chan struct{})}
	if b.count != nil {
		c.tokens = make([]int, len(inputs))
	}
	for i, input := range inputs {
		if Blank(input) {
			c.vectors[i] = make([]float32, b.Dim())
			continue
		}
		c.left++
		if b.count != nil {
			c.tokens[i] = b.count(input)
		}
	}
	if c.left == 0 {
		return c.vectors, nil
	}
	if c.usage.takenBack() {
		return nil, b.takenBack()
	}
	c.waiting, c.asked = c.left, c.left

	b.mu.Lock()
	now := time.Now()
	c.queue = b.queueOf(lane, role, shareOf(ctx))
	c.queue.gap, c.queue.came = now.Sub(c.queue.came), now
	if b.deaf() {
		c.failing = now
	}
	b.push(c, false)
	b.dispatch()
	b.mu.Unlock()

	select {
	case <-c.done:
	case <-ctx.Done():
		b.mu.Lock()
		b.finish(c, fmt.Errorf("embed with %s: %w", b.Name(), context.Cause(ctx)))
		b.dispatch()
		b.mu.Unlock()
	}
	if c.err != nil {
		return nil, c.err
	}
	return c.vectors, nil
}

// queueOf finds a queue, or opens it.
func (b *Batcher) queueOf(lane Lane, role Role, share *Share) *queue {
	if share.Part() == 1 {
		share = nil
	}
	for _, q := range b.queues[lane][role] {
		if q.share == share {
			return q
		}
	}
	return &queue{lane: lane, role: role, share: share} // push adds it
}

// push puts a call into its queue, with whatever of it is in no request.
func (b *Batcher) push(c *call, front bool) {
	q := c.queue
	if q.first == nil {
		q.since = time.Now()
		if all := &b.queues[q.lane][q.role]; !slices.Contains(*all, q) {
			*all = append(*all, q)
		}
	}
	q.link(c, front)
	b.weigh(c, 1)
}

// link adds a call at an end.
func (q *queue) link(c *call, front bool) {
	c.queued = true
	switch {
	case q.first == nil:
		q.first, q.last = c, c
	case front:
		c.after, q.first.before, q.first = q.first, c, c
	default:
		c.before, q.last.after, q.last = q.last, c, c
	}
}

// unlink takes a call out.
func (q *queue) unlink(c *call) {
	if c.before != nil {
		c.before.after = c.after
	} else {
		q.first = c.after
	}
	if c.after != nil {
		c.after.before = c.before
	} else {
		q.last = c.before
	}
	c.before, c.after, c.queued = nil, nil, false
}

// weigh adds what is waiting of a call to its queue's sums, or takes it away.
func (b *Batcher) weigh(c *call, sign int) {
	c.queue.inputs += sign * c.waiting
	if b.count == nil {
		return
	}
	for _, i := range c.again {
		c.queue.tokens += sign * c.tokens[i]
	}
	for i := c.next; i < len(c.inputs); i++ {
		if c.vectors[i] == nil {
			c.queue.tokens += sign * c.tokens[i]
		}
	}
}

// pull takes a call out of its queue.
func (b *Batcher) pull(c *call) {
	if c.queued {
		b.weigh(c, -1)
		c.queue.unlink(c)
		b.close(c.queue)
	}
}

// close forgets a queue of a share once it is empty: shares come and go.
func (b *Batcher) close(q *queue) {
	if q.first == nil && q.share != nil {
		all := &b.queues[q.lane][q.role]
		*all = slices.DeleteFunc(*all, func(other *queue) bool { return other == q })
	}
}

// Ahead is how much is worth having waiting here, so that requests are full and none is late; more could as well wait where a newer version of its document can still
// take its place. inputs of 0 and tokens of 0 are no bound.
func (b *Batcher) Ahead() (inputs int, tokens int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.current()
	inputs = aheadFills * now.most * b.cfg.MaxInputs
	_, rate := now.budget.rates()
	if rate > 1e12 {
		return inputs, 0
	}
	full := min(fullRequest, now.budget.largest())
	if b.cfg.MaxTokens > 0 {
		full = min(full, float64(b.cfg.MaxTokens))
	}
	return inputs, int64(min(max(2*rate+2*now.budget.aim(), full), 1e15))
}

// aheadFills is how many times what is in flight is worth having waiting: so long may those who bring more be held up.
const aheadFills = 4

// fullRequest is how many tokens of documents are worth having ready however little is allowed: the longest that most models read at once.
const fullRequest = 8192

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

// Providers tells how it stands with each endpoint, the preferred one first.
func (b *Batcher) Providers() []Provider {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	out := make([]Provider, len(b.lines))
	for i, l := range b.lines {
		out[i] = l.status(now)
		if p := b.purse[Index]; !out[i].Away() && now.Before(p.until) {
			out[i].State, out[i].Since, out[i].NextTry, out[i].Detail = Paused, p.since, p.until, p.why
		}
		out[i].Since, out[i].NextTry = out[i].Since.UTC(), out[i].NextTry.UTC()
	}
	return out
}
