package freshness

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/stream"
)

// ReplayConfig says what to replay, where and how. Server, Run and Changes are required.
type ReplayConfig struct {
	Server Server
	// Run names the replay. Its documents' ids begin with it and a slash, and their metadata hold it in FieldRun.
	Run     string
	Changes iter.Seq2[Change, error]
	// Total is how many changes there are, for progress. 0: not known.
	Total int
	// Probes are asked while the texts that they name come and go. Without any, the documents' own words are asked.
	Probes []Probe

	// Rate is how many changes a second are sent. Default: 50.
	Rate float64
	// Speed, unless 0, sends the changes at their own times instead, so many times as quick.
	Speed float64
	// MaxDuration ends the sending. 0: it does not.
	MaxDuration time.Duration
	// Lanes is how many changes are on their way at the same time; those of one document follow one another. Default: 16.
	Lanes int
	// Samples is how many changes a second are watched. Default: 50.
	Samples float64
	// Watchers is how many of the watchers' questions are on their way at the same time. Default: 4.
	Watchers int
	// Questions is how many probes are asked a second. Default: 10.
	Questions float64
	// K is how many hits they ask for. Default: 10.
	K int
	// Mode of their search; "" is the system's default.
	Mode string
	// Generation answers them; "" is the live one.
	Generation string
	// Patience is how long a change may take before it counts as never, and a system may be too busy. Default: 5 min.
	Patience time.Duration
	// Seed picks the probes.
	Seed uint64
	// Progress, if not nil, is told every now and then, never concurrently.
	Progress func(Progress)
}

// Progress is how far an eval is.
type Progress struct {
	// Phase is "replaying", "waiting", "checking", "removing" or "observing".
	Phase string
	// Done of Total, 0 if that is not known: changes, or documents.
	Done, Total int
	// Waiting is how many changes are watched that no answer has shown yet.
	Waiting int
	Elapsed time.Duration
}

func (c *ReplayConfig) defaults() {
	c.Rate, c.Samples, c.Questions = positive(c.Rate, 50), positive(c.Samples, 50), positive(c.Questions, 10)
	c.Lanes, c.Watchers, c.K = positive(c.Lanes, 16), positive(c.Watchers, 4), positive(c.K, 10)
	c.Patience = positive(c.Patience, 5*time.Minute)
}

// positive is a setting, or its default.
func positive[N ~int | ~int64 | ~float64](n, otherwise N) N {
	if n > 0 {
		return n
	}
	return otherwise
}

// replay is one run of a stream.
type replay struct {
	eval
	config ReplayConfig
	lanes  []chan step

	watchers sync.WaitGroup
	failed   context.CancelCauseFunc

	mu       sync.Mutex
	behind   time.Duration
	position position
	all      map[string]bool // the keys that were ever touched
	writes   []time.Duration
	sent     int
	waiting  int
	number   int64
	sampler  sampler
}

// step is one operation on its way.
type step struct {
	seq int64
	id  string
	doc *stream.Document
	v   *version
}

// position is how far the stream is in the log for certain.
type position struct {
	open map[int64]int // operations on their way, by the change's seq
	next int64         // the first seq that is not sent
	top  int64         // the last seq that was sent, -1 at first
}

// certain is the last seq of which, with all before it, everything is acknowledged.
func (p *position) certain() int64 {
	least := p.next
	for seq := range p.open {
		least = min(least, seq)
	}
	return least - 1
}

// Replay sends the stream and measures. However it ends, it removes the documents that it wrote; an error that wraps ErrLeft says that it could not.
// The figures are there whenever the replay itself came to its end.
func Replay(ctx context.Context, config ReplayConfig) (*Figures, error) {
	config.defaults()
	r := &replay{config: config, all: map[string]bool{}, sampler: sampler{rate: config.Samples}}
	r.position = position{open: map[int64]int{}, top: -1}
	r.eval = eval{
		server: config.Server, ledger: newLedger(), k: config.K, mode: config.Mode, generation: config.Generation, patience: config.Patience,
		calls: make(chan struct{}, config.Watchers), filter: map[string]any{FieldRun: config.Run},
	}
	r.eval.number = numberOf
	r.lexical.Store(true)
	figures, err := r.run(ctx)
	if left := r.remove(ctx); left != nil {
		err = errors.Join(err, left)
	}
	return figures, err
}

// numberOf is the version that a replayed document's metadata name.
func numberOf(hit Hit) (int64, bool) {
	n, ok := hit.Metadata[FieldNumber].(float64)
	return int64(n), ok
}

func (r *replay) run(ctx context.Context) (*Figures, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.failed = cancel
	defer r.watchers.Wait()
	r.begin = time.Now()
	asking, quiet := context.WithCancel(ctx)
	defer quiet()
	var askers errgroup.Group
	askers.Go(func() error { return r.fail(r.askAll(asking)) })
	ticking, still := context.WithCancel(ctx)
	defer still()
	phase := &phase{name: "replaying", total: r.config.Total}
	askers.Go(func() error { r.tick(ticking, phase); return nil })
	defer func() { still(); quiet(); _ = askers.Wait() }()

	if err := r.send(ctx); err != nil {
		return nil, r.reason(ctx, err)
	}
	phase.set("waiting", 0)
	r.watchers.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	quiet()
	until := time.Now()
	phase.set("checking", len(r.all))
	wrong, err := r.check(ctx, phase)
	if err != nil {
		return nil, r.reason(ctx, err)
	}
	still()
	if err := askers.Wait(); err != nil {
		return nil, r.reason(ctx, err)
	}
	measured, err := r.server.Measured(ctx)
	if err != nil {
		return nil, r.reason(ctx, err)
	}
	f := r.figures(until)
	f.Server, f.Behind, f.WrongAtEnd = measured, r.behind, len(wrong)
	for _, id := range wrong {
		if !slices.Contains(f.Late, id) {
			f.Never++
			f.Late = append(f.Late, id)
		}
	}
	f.Write = latency(r.writes)
	return f, nil
}

// fail ends the replay with the first error.
func (r *replay) fail(err error) error {
	if err != nil {
		r.failed(err)
	}
	return err
}

// reason ends everything, and is why: what went wrong first.
func (r *replay) reason(ctx context.Context, err error) error {
	r.failed(err)
	return context.Cause(ctx)
}

// phase is what a replay is at.
type phase struct {
	mu    sync.Mutex
	name  string
	total int
	done  int
}

func (p *phase) set(name string, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.name, p.total, p.done = name, total, 0
}

func (p *phase) step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
}

// tick tells of progress.
func (r *replay) tick(ctx context.Context, p *phase) {
	if r.config.Progress == nil {
		return
	}
	for sleep(ctx, 250*time.Millisecond) == nil {
		p.mu.Lock()
		now := Progress{Phase: p.name, Done: p.done, Total: p.total, Elapsed: time.Since(r.begin)}
		p.mu.Unlock()
		r.mu.Lock()
		now.Waiting = r.waiting
		if now.Phase == "replaying" {
			now.Done = r.sent
		}
		r.mu.Unlock()
		r.config.Progress(now)
	}
}

// send goes through the stream in time, and returns when everything is acknowledged.
func (r *replay) send(all context.Context) error {
	group, ctx := errgroup.WithContext(all)
	r.lanes = make([]chan step, r.config.Lanes)
	for i := range r.lanes {
		r.lanes[i] = make(chan step, 64)
		group.Go(func() error { return r.lane(ctx, all, r.lanes[i]) })
	}
	group.Go(func() error {
		defer func() {
			for _, lane := range r.lanes {
				close(lane)
			}
		}()
		return r.dispatch(ctx)
	})
	return group.Wait()
}

// dispatch hands each change to its lane when its time has come.
func (r *replay) dispatch(ctx context.Context) error {
	var first time.Time
	n := 0
	for c, err := range r.config.Changes {
		if err != nil {
			return err
		}
		at := time.Duration(float64(n) / r.config.Rate * 1e9)
		if r.config.Speed > 0 {
			if first.IsZero() {
				first = c.Time
			}
			at = 0
			if !c.Time.IsZero() {
				at = time.Duration(float64(c.Time.Sub(first)) / r.config.Speed)
			}
		}
		if r.config.MaxDuration > 0 && (at > r.config.MaxDuration || time.Since(r.begin) > r.config.MaxDuration) {
			return nil
		}
		if wait := at - time.Since(r.begin); wait > 0 {
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		}
		steps := make([]step, len(c.Ops))
		r.mu.Lock()
		r.position.open[c.Seq] = len(c.Ops)
		r.position.next, r.position.top = c.Seq+1, c.Seq
		for i, op := range c.Ops {
			r.number++
			steps[i] = r.step(c.Seq, r.number, op)
			r.all[op.Key] = true
		}
		r.mu.Unlock()
		for _, s := range steps {
			h := fnv.New32a()
			h.Write([]byte(s.id))
			select {
			case r.lanes[h.Sum32()%uint32(len(r.lanes))] <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		r.mu.Lock()
		r.behind = max(time.Since(r.begin)-at, 0)
		r.sent++
		r.mu.Unlock()
		n++
	}
	return nil
}

// step makes an operation the run's own: its id, its marks, and no time but now.
func (r *replay) step(seq, number int64, op Op) step {
	s := step{seq: seq, id: r.id(op.Key), v: &version{number: number, deleted: op.Document == nil}}
	if op.Document == nil {
		return s
	}
	doc := *op.Document
	doc.UpdatedAt = time.Time{}
	doc.Metadata = maps.Clone(doc.Metadata)
	if doc.Metadata == nil {
		doc.Metadata = map[string]any{}
	}
	doc.Metadata[FieldRun], doc.Metadata[FieldNumber] = r.config.Run, float64(number)
	s.doc, s.v.text, s.v.exact = &doc, doc.Text, doc.ContentType != stream.TextHTML
	return s
}

func (r *replay) id(key string) string { return r.config.Run + "/" + key }

// lane sends the operations of some documents, one after another. What watches them goes on until all ends.
func (r *replay) lane(ctx, all context.Context, steps <-chan step) error {
	for {
		select {
		case s, more := <-steps:
			if !more {
				return nil
			}
			if err := r.write(ctx, all, s); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// write sends one operation until it is taken, and has it watched.
func (r *replay) write(ctx, all context.Context, s step) error {
	first := time.Now()
	s.v.entered = first
	r.ledger.enter(s.id, s.v)
	token := ""
	entered := first
	err := patiently(ctx, r.patience, func() { r.refusals.Add(1) }, func() (err error) {
		entered = time.Now()
		r.ledger.again(s.v, entered)
		if s.doc == nil {
			token, err = r.server.Delete(ctx, s.id)
		} else {
			token, err = r.server.Put(ctx, s.id, s.doc)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("change %d, document %s: %w", s.seq, s.id, err)
	}
	now := time.Now()
	r.ledger.ack(s.id, s.v, token, now)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes = append(r.writes, now.Sub(first))
	if r.position.open[s.seq]--; r.position.open[s.seq] == 0 {
		delete(r.position.open, s.seq)
	}
	if !r.sampler.take(now) {
		return nil
	}
	r.waiting++
	r.watchers.Go(func() {
		err := r.watch(all, s.id, s.v, entered)
		r.mu.Lock()
		r.waiting--
		r.mu.Unlock()
		_ = r.fail(err)
	})
	return nil
}

// check asks for every document of the run once everything must be there, and returns those that are not as they should be.
func (r *replay) check(ctx context.Context, p *phase) (wrong []string, err error) {
	if err := r.settled(ctx); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(r.config.Watchers)
	for _, key := range slices.Sorted(maps.Keys(r.all)) {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			defer p.step()
			id := r.id(key)
			latest := r.ledger.latest(id)
			if latest == nil { // its lane was never reached
				return nil
			}
			words := keywords(r.ledger.texts(id, 1))
			a, err := r.poll(ctx, id, words, words != "" && r.lexical.Load() && !latest.deleted)
			if err != nil {
				return err
			}
			if right(a.answer.Hits, latest) {
				return nil
			}
			if a, err = r.poll(ctx, id, words, false); err != nil {
				return err
			}
			if !right(a.answer.Hits, latest) {
				mu.Lock()
				defer mu.Unlock()
				wrong = append(wrong, id)
			}
			return nil
		})
	}
	err = group.Wait()
	slices.Sort(wrong)
	return wrong, err
}

// right tells whether the hits are those of one document's latest version.
func right(hits []Hit, latest *version) bool {
	for _, hit := range hits {
		if n, ok := numberOf(hit); !ok || n != latest.number || latest.deleted || latest.exact && !latest.holds(hit) {
			return false
		}
	}
	return len(hits) > 0 || latest.mayBeAbsent()
}

// settled waits until the system says that all of it is searchable, or patience is over.
func (r *replay) settled(ctx context.Context) error {
	for begin := time.Now(); ; {
		after := r.ledger.tokens()
		if len(after) == 0 {
			return nil
		}
		a, err := r.ask(ctx, Question{Query: "anything", K: 1, Mode: r.mode, Filter: r.filter, Wait: min(10*time.Second, r.patience)}, after)
		if err != nil {
			return err
		}
		r.note(a, nil)
		if !a.answer.Satisfied {
			if time.Since(begin) > r.patience {
				return nil
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
	}
}

// ErrLeft: documents of a run are still there.
var ErrLeft = errors.New("documents of the run are left")

// removeWithin bounds how long removing may take once the replay itself was broken off.
const removeWithin = 2 * time.Minute

// remove deletes what the replay wrote, also when ctx is done.
func (r *replay) remove(ctx context.Context) error {
	ids := r.ledger.left()
	if len(ids) == 0 {
		return nil
	}
	within := removeWithin
	if ctx.Err() == nil {
		within += r.patience
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	return removeAll(ctx, r.server, r.config.Run, ids, r.config.Generation, r.config.Progress)
}

// removeAll deletes documents, waits until no answer holds any of the run, and deletes what it still finds.
func removeAll(ctx context.Context, server Server, run string, ids []string, generation string, progress func(Progress)) error {
	begin := time.Now()
	deleteAll := func(ids []string) error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(16)
		var mu sync.Mutex
		done := 0
		for _, id := range ids {
			group.Go(func() error {
				err := patiently(ctx, removeWithin, func() {}, func() error { _, err := server.Delete(ctx, id); return err })
				mu.Lock()
				defer mu.Unlock()
				if done++; progress != nil && done%50 == 0 {
					progress(Progress{Phase: "removing", Done: done, Total: len(ids), Elapsed: time.Since(begin)})
				}
				return err
			})
		}
		return group.Wait()
	}
	if err := deleteAll(ids); err != nil {
		return fmt.Errorf("%w: %w", ErrLeft, err)
	}
	// An answer that is up to date and still holds a document after so many deletions of it will hold it for ever.
	const deletions = 8
	for try, again := 0, 0; ; try++ {
		var a Answer
		err := patiently(ctx, removeWithin, func() {}, func() (err error) {
			a, err = server.Retrieve(ctx, Question{Query: "document", K: 200, Filter: map[string]any{FieldRun: run}, Generation: generation, AllOlder: true, Wait: 3 * time.Second})
			return err
		})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLeft, err)
		}
		found := map[string]bool{}
		for _, hit := range a.Hits {
			if strings.HasPrefix(hit.Document, run+"/") {
				found[hit.Document] = true
			}
		}
		if len(found) == 0 && a.Satisfied {
			return nil
		}
		if a.Satisfied {
			if again++; again > deletions {
				return fmt.Errorf("%w: %d are still in answers", ErrLeft, len(found))
			}
		}
		// Also where the answer is not up to date: a deletion may be among what never comes, and one more is harmless.
		if err := deleteAll(slices.Sorted(maps.Keys(found))); err != nil {
			return fmt.Errorf("%w: %w", ErrLeft, err)
		}
		if err := sleep(ctx, min(50*time.Millisecond<<min(try, 5), time.Second)); err != nil {
			return fmt.Errorf("%w: %d are still in answers", ErrLeft, len(found))
		}
	}
}

// Remove deletes what a replay left behind that was killed. keys are those of its stream, if it is at hand: without them a document that has no words can't
// be found.
func Remove(ctx context.Context, server Server, run string, keys []string, progress func(Progress)) error {
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = run + "/" + key
	}
	return removeAll(ctx, server, run, ids, "", progress)
}

// askers is how many questions of either kind are on their way at the same time: those that wait for the index must not keep back the others.
const askers = 3

// askAll asks probes at their moments until ctx ends.
func (r *replay) askAll(ctx context.Context) error {
	p := newPicker(r.config.Probes, r.config.Seed)
	group, inner := errgroup.WithContext(ctx)
	slots := map[bool]chan struct{}{true: make(chan struct{}, askers), false: make(chan struct{}, askers)}
	every := time.Duration(1e9 / r.config.Questions)
	for n := 0; sleep(inner, every) == nil; n++ {
		r.mu.Lock()
		certain, top := r.position.certain(), r.position.top
		r.mu.Unlock()
		q, ok := p.pick(certain, top)
		if !ok && len(r.config.Probes) == 0 {
			q, ok = r.ownWords(p.random)
		}
		if !ok {
			continue
		}
		// Half of them say what they have to reflect, so that the moment is well defined; the others are asked as users ask.
		q.owed = n%2 == 0
		select {
		case slots[q.owed] <- struct{}{}:
		default:
			continue // the system is slow, and must not be asked the quicker for it afterwards
		}
		group.Go(func() error {
			defer func() { <-slots[q.owed] }()
			err := r.put(inner, q)
			if inner.Err() != nil {
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

func (r *replay) put(ctx context.Context, q question) error {
	request := Question{Query: q.query, K: r.k, Mode: r.mode, Filter: r.filter}
	var after []pending
	if q.owed {
		// What was acknowledged since the picker looked counts too.
		after = r.ledger.tokens()
		request.AllOlder, request.Wait = len(after) == 0, min(10*time.Second, r.patience)
	}
	a, err := r.ask(ctx, request, after)
	if err != nil {
		return err
	}
	r.note(a, &q)
	return nil
}

// ownWords asks for a piece of a document that is there, for streams without probes.
func (r *replay) ownWords(random *rand.Rand) (question, bool) {
	raw := r.ledger.somePiece(random)
	return question{query: raw, live: raw}, raw != ""
}

// picker chooses probes: in turn one whose text has just gone, one whose text has just come, and any of either kind.
type picker struct {
	probes       []Probe
	random       *rand.Rand
	byTo, byFrom []int // places in probes
	gone, come   int   // how many of them the stream has passed
	newGone      int   // how many of the gone ones were asked
	newCome      int
	turn         int
	closed       []string
}

func newPicker(probes []Probe, seed uint64) *picker {
	p := &picker{probes: probes, random: rand.New(rand.NewPCG(seed, 1))}
	for i := range probes {
		p.byFrom = append(p.byFrom, i)
		if probes[i].To != nil {
			p.byTo = append(p.byTo, i)
		}
	}
	slices.SortStableFunc(p.byFrom, func(a, b int) int { return int(probes[a].From - probes[b].From) })
	slices.SortStableFunc(p.byTo, func(a, b int) int { return int(*probes[a].To - *probes[b].To) })
	return p
}

// pick chooses for a moment at which everything up to certain is in the log, and nothing after top.
func (p *picker) pick(certain, top int64) (question, bool) {
	for p.gone < len(p.byTo) && *p.probes[p.byTo[p.gone]].To <= certain {
		p.closed = append(p.closed, p.probes[p.byTo[p.gone]].Raw)
		p.gone++
	}
	for p.come < len(p.byFrom) && p.probes[p.byFrom[p.come]].From <= certain {
		p.come++
	}
	closed := p.closed[:len(p.closed):len(p.closed)]
	ask := func(probe *Probe) (question, bool) {
		q := question{query: probe.Text, closed: closed}
		if probe.To == nil || *probe.To > top {
			q.live = probe.Raw
		}
		return q, true
	}
	// The newest first: those are the ones that a slow system gets wrong.
	turn := p.turn
	p.turn++
	switch {
	case p.come == 0:
		return question{}, false
	case turn/2%4 == 0 && p.newGone < p.gone:
		p.newGone = p.gone
		return ask(&p.probes[p.byTo[p.gone-1]])
	case turn/2%4 == 1 && p.newCome < p.come:
		p.newCome = p.come
		return ask(&p.probes[p.byFrom[p.come-1]])
	case turn/2%4 == 2 && p.gone > 0:
		return ask(&p.probes[p.byTo[p.random.IntN(p.gone)]])
	}
	// One that is live, if it is found soon.
	probe := &p.probes[p.byFrom[p.random.IntN(p.come)]]
	for try := 0; try < 50 && probe.To != nil && *probe.To <= top; try++ {
		probe = &p.probes[p.byFrom[p.random.IntN(p.come)]]
	}
	return ask(probe)
}

// somePiece returns a line of a document that is there.
func (l *ledger) somePiece(random *rand.Rand) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := slices.Sorted(maps.Keys(l.docs))
	for range 10 {
		if len(ids) == 0 {
			return ""
		}
		h := l.docs[ids[random.IntN(len(ids))]]
		v := h[len(h)-1]
		if v.deleted || v.acked.IsZero() {
			continue
		}
		all := slices.DeleteFunc(strings.Split(v.text, "\n"), func(line string) bool { return len(strings.TrimSpace(line)) < 30 || len(line) > 400 })
		if len(all) > 0 {
			return strings.TrimSpace(all[random.IntN(len(all))])
		}
	}
	return ""
}
