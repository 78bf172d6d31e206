package indexer

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/htmltext"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// pipeline folds the log into one generation. Live indexing, replay and recovery are this same code from
// another position.
//
//	Source.Next → queue (newest change of each document) → split, reuse → embed → Apply → searchable → Commit
//
// Changes of one document go through one after the other; those of others overtake them. Only as much is cut as the model is about to take (see window); all else that was read
// waits in the queues, and when that is too much, reading pauses. So a model that takes little, for however long, holds up the log and not the memory.
type pipeline struct {
	generation string
	group      string // consumer group; empty: the positions are the store's checkpoint
	spread     bool   // see stream.From
	parts      Parts
	log        stream.Log
	letters    stream.DeadLetters
	store      vectordb.Store
	delayed    vectordb.Delayed // the store, if it acknowledges before it shows
	logger     *slog.Logger
	gate       *gate
	extent     Extent                                                               // what of the log it takes
	share      *embedder.Share                                                      // of the model, while the generation is not live
	live       func() bool                                                          // is this the generation that answers?
	applied    func([]*task)                                                        // called after a write became searchable, before anybody waiting for it is woken
	lender     func() *lender                                                       // another generation whose vectors, maybe chunks, are the same; nil if there is none
	settled    func(applied map[int32]int64, positions, rejected []stream.Position) // called after progress was made; nil: nobody else wants to know
	begins     func(ends []stream.End)                                              // called when the generation is empty, with how far the log reaches
	missed     func(ctx context.Context) error                                      // called when deletes were missed, before anything after them is written
	deletes    time.Duration                                                        // how long the log keeps them; 0: for ever
	limit      int64                                                                // bytes in flight, of which some may be read ahead: see readable
	progress   *progress
	counts     *counts
	trouble    *atomic.Pointer[Trouble]

	mu       sync.Mutex
	ready    *sync.Cond
	windows  [urgencies][needs]*window // nil: no bound
	queues   [urgencies][needs]queue   // documents whose turn it is
	docs     map[string]line           // documents of which something was read that is not searchable yet
	turns    uint64
	owned    map[int32]uint64 // partition → term of ownership; absent: not owned
	terms    uint64
	inFlight int64         // bytes
	working  int64         // of these, what tasks hold since they were cut
	beyond   int64         // of these, what was read on to: see ahead
	room     chan struct{} // signalled when inFlight shrinks
	behind   bool          // reading was held back since it last had everything
	stopping bool

	writing    baton           // held while a write is under way
	saved      map[int32]int64 // the checkpoint that was written last
	dated      time.Time       // the moment that was written with it
	committing baton           // held while a commit is under way, so that none overtakes a newer one
	out        chan *task
	unseen     chan []*task // written, and not visible yet
}

// Trouble is what keeps a generation from advancing.
type Trouble struct {
	// Since is in UTC.
	Since  time.Time `json:"since"`
	Detail string    `json:"detail"`
	// Provider is how it stands with the model's provider where that is the trouble; NextTry is then when it is tried again.
	Provider embedder.State `json:"provider,omitempty"`
	NextTry  time.Time      `json:"next_try,omitzero"`
}

// lender is another generation of the same model. What it has stored need not be embedded, nor cut if its chunker is the same, to be had here too.
type lender struct {
	generation string
	chunker    string
}

// line is what there is to do for one document.
type line struct {
	running *task // nil: none, and the one that waits is in a queue
	waiting *task // for the end of the running one, or for its turn; nil: none
}

// task is the newest known change of a document's content, of its access, or both, together with every change that these supersede.
type task struct {
	key      string
	turn     uint64 // by when the first of its changes came
	fresh    bool   // one of its changes at least is not backfill
	queue    *queue // that it is in; nil: none
	place    int    // in the queue
	seat     *seat  // since it was taken from a queue the last time
	recall   func() // takes what is with the model back, unless some of it was sent; nil: nothing is
	recalled int    // how often that was done since its document was written last
	content  *stream.Change
	access   *stream.Change
	earlier  []*stream.Change    // contents that content superseded, in case that it turns out to be poison; none from before a delete
	covers   []cover             // every change that this one stands for, itself included
	bytes    int64               // that it is charged: what it holds, and what its way to the store will take
	held     int64               // of these, what it holds since it was cut
	beyond   int64               // of these, what its changes that were read on to take
	letters  []stream.DeadLetter // to be sent before the task goes on
	rejected []stream.Position   // of this task's changes, those that can't be indexed
	revision *vectordb.Revision  // what to apply; nil: nothing changes
	attempts int
	embedded int // chunks
	reused   int
	tokens   int
	hidden   bool // not everybody may know of the document
}

// cover is a change that counts as done when its task is.
type cover struct {
	at       stream.Position
	term     uint64 // of ownership of its partition when it was read
	logged   time.Time
	updated  time.Time
	after    time.Time // when the log was last seen to end at or before the change; zero: never
	backfill bool
}

const (
	applyTasks      = 256     // most documents in one write
	applyBytes      = 1 << 20 // about the most text in one write
	applyOverhead   = 1 << 10 // that a document counts for there beside its text
	prepareTasks    = 16      // most documents a worker takes at once
	prepareBackfill = 4       // most of those that must not keep it from an edit for long
	recalls         = 3       // most times in a row that a document's task is recalled, so that one which changes all the time is searchable now and then
	checkpointEvery = time.Second
)

// What is in flight is charged in bytes as measured, beside the texts.
const (
	changeBytes = 1 << 10 // of a change: decoded, with its cover, its part of its document's task and of the progress
	workBytes   = 6 << 10 // of a task that is cut: its goroutine, and what it asks the model with
	inputBytes  = 256     // of an entry: itself, and its places on the way to the model and back
)

// readable is how much may be in flight while reading goes on. The rest of the limit is for what was cut of it, of which patient work must leave something to what is fresh.
func (p *pipeline) readable() int64 { return p.limit * 2 / 3 }

// workable is how much what was cut may hold when one more task is.
func (p *pipeline) workable(u urgency) int64 {
	if u == patient {
		return p.limit / 4
	}
	return p.limit / 3
}

// cost is the bytes that a change is charged while it waits: its record and what that was decoded into.
func cost(c *stream.Change) int64 { return 2*int64(c.Size) + changeBytes }

func (p *pipeline) Run(ctx context.Context) error {
	p.mu.Lock() // others look already at what it has
	p.ready = sync.NewCond(&p.mu)
	p.docs = make(map[string]line)
	for u := range urgencies {
		p.windows[u][needModel] = newWindow(p.parts.Embedder)
		p.windows[u][needLetters] = &window{bound: func() (int, int64) { return windowLetters, 0 }}
	}
	p.owned = make(map[int32]uint64)
	p.mu.Unlock()
	p.room = make(chan struct{}, 1)
	p.out = make(chan *task, applyTasks)
	p.writing, p.committing = newBaton(), newBaton()
	p.unseen = make(chan []*task, 64)

	from := stream.From{Group: p.group, Spread: p.spread}
	if p.group == "" {
		positions, err := p.store.Checkpoint(ctx, p.generation)
		if err != nil {
			return fmt.Errorf("read checkpoint of %s: %w", p.generation, err)
		}
		p.dated = dateOf(positions)
		since, fresh := p.dated, false
		delete(positions, vectordb.AsOf)
		if len(positions) == 0 {
			held, err := p.store.Scan(ctx, p.generation, "", 1)
			if err != nil {
				return fmt.Errorf("scan %s: %w", p.generation, err)
			}
			if fresh = len(held) == 0; fresh {
				since = time.Now()
			}
		}
		p.progress.allow(p.deletes, since, fresh)
		from.Positions = positions
		if len(positions) == 0 {
			// Everything that is there already is history to an index that begins.
			ends, err := p.log.Ends(ctx)
			if err != nil {
				return fmt.Errorf("ask the log for its ends: %w", err)
			}
			p.begins(ends)
		}
	}
	source, err := p.log.Open(ctx, from)
	if err != nil {
		return fmt.Errorf("open log for %s: %w", p.generation, err)
	}
	defer source.Close()
	if p.group != "" {
		p.clearTrouble() // there may be nothing to read: the others of the group have it all
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.stopping = true
		p.ready.Broadcast()
		p.mu.Unlock()
	})
	defer stop()
	g.Go(func() error { return p.read(ctx, source) })
	for range max(2, runtime.GOMAXPROCS(0)) {
		g.Go(func() error { return p.prepare(ctx, g) })
	}
	g.Go(func() error { return p.apply(ctx) })
	g.Go(func() error { return p.ahead(ctx) })
	if p.delayed != nil {
		g.Go(func() error { return p.show(ctx) })
	}
	if p.group != "" {
		g.Go(func() error { return p.commit(ctx, source) })
	}
	err = g.Wait()
	if p.group != "" {
		p.commitNow(context.WithoutCancel(ctx), source)
	}
	return err
}

// read moves changes from the source into the queue, and holds the source back while too much is in flight.
func (p *pipeline) read(ctx context.Context, source stream.Source) error {
	var paused []int32
	for first := true; ; first = false {
		batch, err := source.Next(ctx)
		p.forget(ctx, batch.Lost) // before anything else: the last commit of all must not name them
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, io.EOF) {
			<-ctx.Done()
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if len(batch.Lost) > 0 || len(batch.Revoked) > 0 {
			if err := p.disown(ctx, slices.Concat(batch.Lost, batch.Revoked)); err != nil {
				return err
			}
			if len(batch.Revoked) > 0 && p.group != "" {
				p.commitNow(ctx, source, batch.Revoked...)
			}
			p.forget(ctx, batch.Revoked)
		}
		if len(batch.Missed) > 0 {
			if err := p.missed(ctx); err != nil {
				return fmt.Errorf("note that deletes were missed: %w", err)
			}
		}
		if first {
			p.clearTrouble() // of the attempts before this one
		}
		// A partition that was lost may have come back in the same moment.
		for _, at := range batch.Assigned {
			p.own(at)
		}
		for _, change := range batch.Changes {
			if !p.extent.holds(&change) {
				continue // like a gap, it is passed over
			}
			if p.progress.deliver(change.Position) {
				p.counts.changes.Add(1)
				p.enqueue(&change, false) // a copy, so that one slow change does not keep its whole batch in memory
			}
		}
		for _, at := range batch.Fetched {
			p.progress.fetch(at)
		}
		p.progress.observe(batch.Ends...)

		// A short wait drains most bursts without the half second that a paused partition takes to come back.
		full := p.full()
		for wait := time.NewTimer(50 * time.Millisecond); full; full = p.full() {
			select {
			case <-p.room:
				continue
			case <-ctx.Done():
				return ctx.Err()
			case <-wait.C:
			}
			break
		}
		switch {
		case full && len(paused) == 0:
			paused = p.ownedPartitions()
			source.Pause(paused...)
		case len(paused) > 0 && p.drained():
			source.Resume(paused...)
			paused = nil
		}
		p.heldBack(len(paused) > 0)
	}
}

func (p *pipeline) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inFlight > p.readable()
}

// drained tells whether reading may go on: early enough that the workers have something left to do until it has.
func (p *pipeline) drained() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inFlight <= p.readable()*3/4
}

func (p *pipeline) own(at stream.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.terms++
	p.owned[at.Partition] = p.terms
	p.progress.assign(at) // under the lock: who has seen the term knows the partition
}

// disown returns when no write of the partitions is under way and none will begin.
func (p *pipeline) disown(ctx context.Context, partitions []int32) error {
	p.mu.Lock()
	for _, id := range partitions {
		delete(p.owned, id)
	}
	p.mu.Unlock()
	if err := p.writing.take(ctx); err != nil { // waits for the write in flight
		return err
	}
	p.writing.give()
	return nil
}

// forget returns when no commit of the partitions is under way and none will begin before they are owned again.
func (p *pipeline) forget(ctx context.Context, partitions []int32) {
	if len(partitions) == 0 {
		return
	}
	if p.committing.take(ctx) == nil {
		defer p.committing.give()
	}
	for _, id := range partitions {
		p.progress.forget(id)
	}
}

func (p *pipeline) ownedPartitions() []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]int32, 0, len(p.owned))
	for id := range p.owned {
		out = append(out, id)
	}
	return out
}

// enqueue gives a change its place in its document's line. A newer change takes the place of one that still waits. ahead: it was read on to.
func (p *pipeline) enqueue(c *stream.Change, ahead bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	term, owned := p.owned[c.Position.Partition]
	if !owned {
		return
	}
	covered := cover{at: c.Position, term: term, logged: c.Time, updated: c.Time, after: p.progress.endedBefore(c.Position), backfill: c.Backfill}
	if c.Document != nil && !c.Document.UpdatedAt.IsZero() {
		covered.updated = c.Document.UpdatedAt
	}
	c.Raw = apart(c.Raw)
	t := &task{covers: []cover{covered}, bytes: cost(c), fresh: !c.Backfill}
	p.inFlight += t.bytes
	if ahead {
		t.beyond = t.bytes
		p.beyond += t.beyond
	}
	switch c.Kind {
	case stream.Invalid:
		// Poison has no document to wait for. Its key here is unique, so it is in nobody's way.
		t.key = fmt.Sprintf("\x00%d/%d", c.Position.Partition, c.Position.Offset)
		t.rejected = []stream.Position{c.Position}
		t.letters = []stream.DeadLetter{deadLetter(c, *c.Problem, 1)}
	case stream.Access:
		t.key, t.access = c.Key(), c
	default:
		t.key, t.content = c.Key(), c
	}
	l := p.docs[t.key]
	if l.waiting != nil {
		p.supersede(l.waiting, t)
		if q := l.waiting.queue; q != nil { // what it needs, and how urgent it is, may be something else now
			q.remove(l.waiting)
			p.push(l.waiting)
		}
	} else {
		p.turns++
		t.turn = p.turns
		p.docs[t.key] = line{l.running, t}
		if l.running == nil {
			p.push(t)
		}
	}
	// What is with the model is older, unless it was read on to.
	if t.content != nil && l.running != nil && l.running.recall != nil && l.running.recalled < recalls && l.running.content.Version < t.content.Version {
		l.running.recall()
	}
}

// apart copies a record: what a source hands out may be a small part of a large fetch, which would stay in memory as long as the part.
func apart(r *stream.Raw) *stream.Raw {
	if r == nil {
		return nil
	}
	headers := make([]stream.Header, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = stream.Header{Key: h.Key, Value: bytes.Clone(h.Value)}
	}
	return &stream.Raw{Topic: r.Topic, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Headers: headers}
}

// push makes a task available to the workers. It is called under the lock.
func (p *pipeline) push(t *task) {
	p.queues[t.urgency()][t.need()].add(t)
	p.ready.Signal()
}

// work sets what a task is charged since it was cut. It is called under the lock.
func (p *pipeline) work(t *task, bytes int64) {
	more := bytes - t.held
	t.held = bytes
	t.bytes += more
	p.working += more
	p.inFlight += more
}

// supersede merges a task with one of the same document that waits. The other one's changes are newer, but where the waiting one's were read on to, or the document has
// changes in two partitions. It is called under the lock.
func (p *pipeline) supersede(old, other *task) {
	if other.content != nil {
		switch {
		case old.content == nil:
			old.content = other.content
		case other.content.Version != old.content.Version:
			p.counts.superseded.Add(1)
			old.succeed(other.content)
		}
	}
	old.allow(other.access)
	old.covers = append(old.covers, other.covers...)
	old.bytes += other.bytes
	old.beyond += other.beyond
	old.fresh = old.fresh || other.fresh
}

// succeed makes the newer of the task's content and another one its content, and remembers the older.
func (t *task) succeed(content *stream.Change) {
	if content.Version < t.content.Version {
		t.remember(content)
		return
	}
	t.remember(t.content)
	t.content = content
}

// allow makes the newer of the task's access and another one its access.
func (t *task) allow(access *stream.Change) {
	if access != nil && (t.access == nil || t.access.Version < access.Version) {
		t.access = access
	}
}

// remember keeps a content that was superseded, in order. What came before a delete will never be wanted again.
func (t *task) remember(content *stream.Change) {
	at, known := slices.BinarySearchFunc(t.earlier, content.Version, func(c *stream.Change, version int64) int { return cmp.Compare(c.Version, version) })
	switch {
	case known:
	case content.Kind == stream.Delete:
		t.earlier = slices.Insert(slices.Delete(t.earlier, 0, at), 0, content)
	default:
		t.earlier = slices.Insert(t.earlier, at, content)
	}
}

// take blocks until documents are due that may go on, and returns a few of them so that the store is asked once for all.
func (p *pipeline) take() []*task {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.stopping {
		if batch := p.due(); len(batch) > 0 {
			if p.next(p.live()) != nil {
				p.ready.Signal() // there is more than this worker took
			}
			return batch
		}
		p.ready.Wait()
	}
	return nil
}

// due takes tasks of one urgency out of the queues. It is called under the lock.
func (p *pipeline) due() (batch []*task) {
	live := p.live()
	most := 1
	for t := p.next(live); t != nil && len(batch) < most && (!live || len(batch) == 0 || t.fresh == batch[0].fresh); t = p.next(live) {
		if len(batch) == 0 {
			most = p.batchOf(t, live)
		}
		inputs, tokens := t.about()
		t.seat = p.windowOf(t, live).enter(inputs, tokens)
		if t.need() == needModel {
			p.work(t, p.workOf(inputs, len(t.content.Document.Text)))
		}
		t.queue.remove(t)
		l := p.docs[t.key]
		l.running = t
		if l.waiting == t {
			l.waiting = nil
		}
		p.docs[t.key] = l
		batch = append(batch, t)
	}
	return batch
}

// batchOf is how many tasks a worker takes beginning with this one: not all that there are, for there are other workers.
func (p *pipeline) batchOf(t *task, live bool) int {
	most, waiting := prepareTasks, 0
	for u := range p.queues {
		if live && urgency(u) != t.urgency() {
			continue
		}
		for n := range p.queues[u] {
			waiting += p.queues[u][n].Len()
		}
	}
	if live && !t.fresh {
		most = prepareBackfill
	}
	return min(most, 1+waiting/4)
}

// next is the task that goes next: of the live generation what is fresh goes first, then what has waited longest. nil: none may go now. It is called under the lock.
func (p *pipeline) next(live bool) (found *task) {
	for u := range p.queues {
		for n := range p.queues[u] {
			if t := p.queues[u][n].first(); t != nil && (found == nil || t.turn < found.turn) && p.admits(t, live) {
				found = t
			}
		}
		if live && found != nil {
			return found
		}
	}
	return found
}

// windowOf is the window that a task needs a place in.
func (p *pipeline) windowOf(t *task, live bool) *window {
	if !live {
		return p.windows[patient][t.need()]
	}
	return p.windows[t.urgency()][t.need()]
}

// admits tells whether there is a place for a task, and memory.
func (p *pipeline) admits(t *task, live bool) bool {
	u := t.urgency()
	if !live {
		u = patient
	}
	w := p.windows[u][t.need()]
	return w.open() && (t.need() != needModel || w.inputs == 0 || p.working < p.workable(u))
}

// workOf is what a task of so many entries is charged once it is cut, the inputs having so many bytes.
func (p *pipeline) workOf(entries, text int) int64 {
	return workBytes + int64(text) + int64(entries)*(inputBytes+4*int64(p.parts.Embedder.Dim()))
}

// about is how large a task will be for the model, as far as that is known before it is cut.
func (t *task) about() (inputs int, tokens int64) {
	if t.need() != needModel {
		return 1, 0
	}
	n := len(t.content.Document.Text)
	return 1 + n/1024, int64(n / 4)
}

// leave gives a task's place in its window to others.
func (p *pipeline) leave(s *seat) {
	if s == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.leave()
	p.ready.Signal()
}

// start has a goroutine do what is left to do for a task. Its place in the window is kept until that has ended, so there are never more of them than places.
func (p *pipeline) start(g *errgroup.Group, t *task, f func() error) {
	s := t.seat // the task may be taken again before f has returned
	g.Go(func() error {
		defer p.leave(s)
		return f()
	})
}

// prepare turns due changes into revisions, and has what is missing embedded.
func (p *pipeline) prepare(ctx context.Context, g *errgroup.Group) error {
	for {
		batch := p.take()
		if batch == nil {
			return ctx.Err()
		}
		keys := make([]string, 0, len(batch))
		for _, t := range batch {
			if len(t.letters) == 0 {
				keys = append(keys, t.key)
			}
		}
		var current []vectordb.Revision
		if len(keys) > 0 {
			err := p.persist(ctx, "read stored entries", func() (err error) {
				current, err = p.store.Current(ctx, p.generation, keys)
				return err
			})
			if err != nil {
				return err
			}
		}
		lent := p.borrow(ctx, keys, current)
		for _, t := range batch {
			if len(t.letters) > 0 {
				p.start(g, t, func() error { return p.bury(ctx, t) })
				continue
			}
			stored, other := &current[0], &lent.revisions[0]
			current, lent.revisions = current[1:], lent.revisions[1:]
			if err := p.gate.enter(ctx, p.live()); err != nil {
				return err
			}
			for t.content != nil && (slices.Contains(t.rejected, t.content.Position) || p.progress.refused(t.content.Position)) {
				t.fallBack() // it was read on to, and is in the dead letters
			}
			u := p.revise(t, stored, other, lent.chunker)
			var missing []missingInput
			var err error
			if u != nil && !p.parts.Outside {
				missing, err = p.cut(ctx, t, u)
			}
			p.gate.leave()
			switch {
			case err != nil:
				return err
			case len(t.letters) > 0:
				p.start(g, t, func() error { return p.bury(ctx, t) })
			case u != nil && p.parts.Outside:
				p.start(g, t, func() error { return p.cutOutside(ctx, t, u) })
			case len(missing) > 0:
				p.start(g, t, func() error { return p.embed(ctx, t, missing) })
			default:
				p.leave(t.seat)
				if err := p.send(ctx, t); err != nil {
					return err
				}
			}
		}
	}
}

// borrowed is what a lender has stored of some documents.
type borrowed struct {
	revisions []vectordb.Revision
	chunker   string
}

// borrow asks the lender for the documents, if some of them are new here: a replay finds most of what it needs there. A lender that fails lends nothing.
func (p *pipeline) borrow(ctx context.Context, keys []string, current []vectordb.Revision) borrowed {
	out := borrowed{revisions: make([]vectordb.Revision, len(keys))}
	if !slices.ContainsFunc(current, func(r vectordb.Revision) bool { return r.Version == 0 }) {
		return out
	}
	from := p.lender()
	if from == nil {
		return out
	}
	if revisions, err := p.store.Current(ctx, from.generation, keys); err == nil {
		return borrowed{revisions: revisions, chunker: from.chunker}
	}
	return out
}

// uncut is what cut needs: how to read the text, and whose vectors can be lent.
type uncut struct {
	as            string
	stored, other *vectordb.Revision
}

// revise makes the task's revision, all but its entries if the text is not one whose entries are known; what is left to do then is returned.
func (p *pipeline) revise(t *task, stored, other *vectordb.Revision, otherChunker string) *uncut {
	if t.content != nil && t.content.Version <= stored.Version {
		p.counts.stale.Add(1)
		t.content = nil
	}
	if t.access != nil && t.access.Version <= stored.Access.Version {
		t.access = nil
	}
	if t.content == nil && t.access == nil {
		return nil
	}
	rev := &vectordb.Revision{Key: t.key}
	t.revision = rev
	if t.access != nil {
		rev.Access = vectordb.Access{Version: t.access.Version, Clear: t.access.ACL == nil, ACL: t.access.ACL}
	}
	if t.content == nil {
		return nil
	}
	c := t.content
	t.hidden = c.Tenant != "" || stored.Readers() != nil || c.Document != nil && c.Document.ACL != nil || t.access != nil && t.access.ACL != nil
	rev.Version, rev.LoggedAt = c.Version, c.Time
	if c.Kind == stream.Delete {
		rev.Deleted = true
		return nil
	}
	doc := c.Document
	rev.ContentType, rev.Title, rev.URL, rev.UpdatedAt = doc.ContentType, doc.Title, doc.URL, doc.UpdatedAt
	rev.Metadata, rev.Tenant, rev.ACL, rev.Text = doc.Metadata, c.Tenant, doc.ACL, doc.Text
	if rev.ContentType == "" {
		rev.ContentType = stream.TextPlain
	}
	if rev.UpdatedAt.IsZero() {
		rev.UpdatedAt = c.Time
	}
	splitAs := rev.ContentType
	if rev.ContentType == stream.TextHTML {
		page, err := htmltext.Convert(doc.Text)
		if err != nil {
			t.reject(stream.CodeNotADocument, fmt.Sprintf("the HTML can't be read: %v", err))
			return nil
		}
		rev.Text, splitAs = page.Markdown, stream.TextMarkdown
		if rev.Title == "" {
			rev.Title = page.Title
		}
	}
	for _, same := range []struct {
		revision *vectordb.Revision
		cut      bool
	}{{stored, true}, {other, otherChunker == p.parts.Chunker.Name()}} {
		if r := same.revision; same.cut && r.Version > 0 && !r.Deleted && r.Text == rev.Text && r.ContentType == rev.ContentType {
			// The text is the same, so its chunks are too: nothing to cut.
			rev.Entries = r.Entries
			p.countReused(t)
			return nil
		}
	}
	return &uncut{splitAs, stored, other}
}

// cut makes the entries of the task's revision, with every vector that the stored one, or another generation's, can lend, and returns the inputs that have to be embedded.
// The error is the chunker's.
func (p *pipeline) cut(ctx context.Context, t *task, u *uncut) ([]missingInput, error) {
	rev := t.revision
	chunks, err := p.parts.Chunker.Split(ctx, u.as, rev.Text)
	if err != nil {
		return nil, err
	}
	lent := make(map[vectordb.Hash][]float32, len(u.stored.Entries)+len(u.other.Entries))
	for _, entries := range [][]vectordb.Entry{u.other.Entries, u.stored.Entries} {
		for i := range entries {
			lent[entries[i].Hash] = entries[i].Vector
		}
	}
	rev.Entries = make([]vectordb.Entry, len(chunks))
	var missing []missingInput
	asked := make(map[vectordb.Hash]int)
	for i, chunk := range chunks {
		input := chunk.Input(rev.Text)
		sum := sha256.Sum256([]byte(input))
		hash := vectordb.Hash(sum[:16])
		rev.Entries[i] = vectordb.Entry{Start: chunk.Start, End: chunk.End, Tokens: chunk.Tokens, Hash: hash, Vector: lent[hash]}
		if lent[hash] != nil {
			continue
		}
		if at, ok := asked[hash]; ok {
			missing[at].entries = append(missing[at].entries, i)
			continue
		}
		asked[hash] = len(missing)
		missing = append(missing, missingInput{text: input, entries: []int{i}})
	}
	if len(missing) == 0 {
		p.countReused(t)
	}
	return missing, nil
}

// cutOutside is cut, and what follows, where somebody else's program cuts: it takes none of our processors, and while it is away it is asked again and again.
func (p *pipeline) cutOutside(ctx context.Context, t *task, u *uncut) error {
	for attempt := 1; ; attempt++ {
		missing, err := p.cut(ctx, t, u)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if problem := chunkerProblem(err); problem != nil {
			t.reject(problem.Code, problem.Detail)
			return p.bury(ctx, t)
		}
		if err == nil {
			if attempt > 1 {
				p.clearTrouble()
			}
			if len(missing) > 0 {
				return p.embed(ctx, t, missing)
			}
			return p.send(ctx, t)
		}
		p.setTrouble(fmt.Sprintf("cutting fails, trying again: %v", err))
		if p.overtake(t) {
			return nil
		}
		if err := sleep(ctx, backoff(attempt)); err != nil {
			return err
		}
	}
}

// chunkerProblem is the problem of a text that the chunker can't cut; nil for every other error, and for none.
func chunkerProblem(err error) *stream.Problem {
	var failed *chunker.Error
	if !errors.As(err, &failed) || failed.Temporary {
		return nil
	}
	return &stream.Problem{Code: stream.CodeChunkerRejected, Detail: err.Error()}
}

// countReused notes that every entry of the task's revision was there already.
func (p *pipeline) countReused(t *task) {
	for i := range t.revision.Entries {
		p.counts.tokensReused.Add(int64(t.revision.Entries[i].Tokens))
	}
	t.reused = len(t.revision.Entries)
}

// missingInput is a text to be embedded, and the entries that want its vector.
type missingInput struct {
	text    string
	entries []int
}

// inputVersion stands for the form of [chunker.Chunk.Input] in the fingerprint.
const inputVersion = 1

// reject gives up on the task's content. What it superseded takes its place: a delete, say, must not be lost because poison came after it.
func (t *task) reject(code, detail string) {
	t.rejected = append(t.rejected, t.content.Position)
	t.letters = append(t.letters, deadLetter(t.content, stream.Problem{Code: code, Detail: detail}, t.attempts+1))
	t.revision, t.attempts = nil, 0
	t.fallBack()
}

// fallBack makes what the task's content superseded its content.
func (t *task) fallBack() {
	t.content = nil
	if n := len(t.earlier); n > 0 {
		t.content, t.earlier = t.earlier[n-1], t.earlier[:n-1]
	}
}

// embed gets the missing vectors. It goes on until it has them, the model refuses one of the inputs, or a newer change makes them useless.
func (p *pipeline) embed(ctx context.Context, t *task, missing []missingInput) error {
	texts := make([]string, len(missing))
	for i := range missing {
		texts[i] = missing[i].text
	}
	p.occupy(t, missing)
	for {
		usage := p.parts.usage()
		vectors, err := p.model(ctx, t, usage, texts)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errRecalled) && p.giveUp(t, missing) {
			return nil
		}
		t.attempts++
		if err == nil {
			for i := range missing {
				for _, entry := range missing[i].entries {
					t.revision.Entries[entry].Vector = vectors[i]
				}
				if !usage.Sent(missing[i].text) {
					continue // a cache had it
				}
				t.embedded++
				t.tokens += t.revision.Entries[missing[i].entries[0]].Tokens
			}
			total := 0
			for i := range t.revision.Entries {
				total += t.revision.Entries[i].Tokens
			}
			t.reused = len(t.revision.Entries) - t.embedded
			p.counts.bill(usage, t.tokens)
			p.counts.chunksEmbedded.Add(int64(t.embedded))
			p.counts.addTokens(time.Now(), t.tokens)
			p.counts.tokensReused.Add(int64(total - t.tokens))
			p.clearTrouble()
			return p.send(ctx, t)
		}
		var failed *embedder.Error
		if errors.As(err, &failed) && !failed.Temporary && failed.Input >= 0 {
			if t.attempts > 1 {
				p.clearTrouble() // the model answers
			}
			code := stream.CodeEmbedRejected
			if errors.Is(err, embedder.ErrInputTooLong) {
				code = stream.CodeInputTooLong
			}
			t.reject(code, err.Error())
			return p.bury(ctx, t)
		}
		p.setTrouble(fmt.Sprintf("embedding fails, trying again: %v", err))
		if p.giveUp(t, missing) {
			return nil
		}
		wait := backoff(t.attempts)
		if failed != nil {
			wait = max(wait, failed.RetryAfter)
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// occupy charges a task that is cut for what it holds now, and takes the place in the window that it turned out to need.
func (p *pipeline) occupy(t *task, missing []missingInput) {
	text, tokens := 0, int64(0)
	for i := range missing {
		text += len(missing[i].text)
		tokens += int64(t.revision.Entries[missing[i].entries[0]].Tokens)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.work(t, p.workOf(len(t.revision.Entries), text))
	t.seat.resize(len(missing), tokens)
	p.ready.Signal() // it may need less than it was given
}

// errRecalled: nothing of the inputs was sent, and they are not wanted any more.
var errRecalled = errors.New("its document has a newer change")

// model embeds texts. While the generation is not live it keeps to its share of the model.
func (p *pipeline) model(ctx context.Context, t *task, usage *embedder.Usage, texts []string) ([][]float32, error) {
	if !p.live() {
		ctx = embedder.WithShare(ctx, p.share)
	}
	ctx = embedder.WithLane(embedder.WithUsage(ctx, usage), p.lane(t))
	if embedder.BatcherOf(p.parts.Embedder) == nil { // what is asked of it has begun
		return p.parts.Embedder.Embed(ctx, embedder.Index, texts)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.mu.Lock()
	t.recall = func() {
		if usage.TakeBack() {
			t.recall = nil
			cancel(errRecalled)
		}
	}
	if newer := p.docs[t.key].waiting; newer != nil && newer.content != nil && newer.content.Version > t.content.Version && t.recalled < recalls {
		t.recall() // it came before there was anything to take back
	}
	p.mu.Unlock()
	vectors, err := p.parts.Embedder.Embed(ctx, embedder.Index, texts)
	p.mu.Lock()
	defer p.mu.Unlock()
	t.recall = nil
	if err != nil && (context.Cause(ctx) == errRecalled || errors.Is(err, embedder.ErrTakenBack)) {
		t.recalled++
		return nil, errRecalled
	}
	return vectors, err
}

// lane is how urgent a task's embedding is. Of the live generation that is what somebody has just changed: a backfill of it is more patient than a replay, or
// an edit made while a large one runs would wait until all of that is embedded.
func (p *pipeline) lane(t *task) embedder.Lane {
	switch {
	case !p.live():
		return embedder.Replay
	case t.fresh:
		return embedder.Live
	}
	return embedder.Backfill
}

// overtake gives up on a task whose document has a newer one waiting, which then goes first.
func (p *pipeline) overtake(t *task) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	newer := p.docs[t.key].waiting
	if newer == nil || newer.content == nil || newer.content.Version <= t.content.Version {
		return false
	}
	newer.allow(t.access)
	for _, content := range append(t.earlier, t.content) {
		newer.remember(content)
	}
	newer.rejected = append(newer.rejected, t.rejected...)
	p.counts.superseded.Add(1)
	newer.covers = append(newer.covers, t.covers...)
	p.work(t, 0)
	newer.bytes += t.bytes
	newer.beyond += t.beyond
	newer.fresh = newer.fresh || t.fresh
	newer.turn, newer.recalled = t.turn, t.recalled // or one that changes faster than it is embedded would wait for ever
	p.docs[t.key] = line{waiting: newer}
	p.push(newer)
	p.clearTrouble()
	return true
}

// giveUp is overtake, for a task that is cut.
func (p *pipeline) giveUp(t *task, missing []missingInput) bool {
	if !p.overtake(t) {
		return false
	}
	for i := range missing {
		p.counts.tokensSuperseded.Add(int64(t.revision.Entries[missing[i].entries[0]].Tokens))
	}
	return true
}

// bury sends what was rejected to the dead letters, and lets the task go on with what is left of it. What is stored stays as it is.
func (p *pipeline) bury(ctx context.Context, t *task) error {
	if err := p.sendLetters(ctx, t); err != nil {
		return err
	}
	if t.content != nil || t.access != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.push(t)
		return nil
	}
	return p.send(ctx, t)
}

func (p *pipeline) sendLetters(ctx context.Context, t *task) error {
	err := p.persist(ctx, "write dead letter", func() error { return p.letters.Send(ctx, t.letters...) })
	if err != nil {
		return err
	}
	for _, letter := range t.letters {
		p.counts.deadLetters.Add(1)
		p.logger.Warn("change can't be indexed; it is in the dead letters", "generation", p.generation, "key", t.key,
			"partition", letter.Position.Partition, "offset", letter.Position.Offset, "code", letter.Problem.Code, "detail", letter.Problem.Detail)
	}
	t.letters = nil
	return nil
}

func (p *pipeline) send(ctx context.Context, t *task) error {
	select {
	case p.out <- t:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// apply writes finished revisions, as many at a time as there are.
func (p *pipeline) apply(ctx context.Context) error {
	var batch []*task
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	for {
		batch = batch[:0]
		select {
		case t := <-p.out:
			batch = append(batch, t)
		case <-tick.C:
			// Gaps, duplicates and dead letters move a partition on without a write of their own.
			if p.group == "" && (!sameCheckpoint(p.saved, p.progress.committable()) || p.progress.undated(p.dated)) {
				if err := p.write(ctx, nil); err != nil {
					return err
				}
			}
			continue
		case <-ctx.Done():
			return ctx.Err()
		}
		bytes := batch[0].text()
	drain:
		for len(batch) < applyTasks && bytes < applyBytes {
			select {
			case t := <-p.out:
				batch = append(batch, t)
				bytes += t.text()
			default:
				break drain
			}
		}
		if err := p.write(ctx, batch); err != nil {
			return err
		}
	}
}

// text is about how many bytes of a write a task makes.
func (t *task) text() int {
	if t.revision == nil {
		return applyOverhead
	}
	return len(t.revision.Text) + applyOverhead
}

// write applies tasks and lets their documents' next changes through.
func (p *pipeline) write(ctx context.Context, batch []*task) error {
	if err := p.writing.take(ctx); err != nil {
		return err
	}
	defer p.writing.give()
	owned, positions := p.stillOwned(batch)
	var w vectordb.Write
	for _, t := range owned {
		if t.revision != nil {
			w.Revisions = append(w.Revisions, *t.revision)
		}
	}
	checkpoint := p.progress.begin(positions)
	if p.group == "" {
		w.Checkpoint = p.progress.dated(checkpoint)
	}
	if len(w.Revisions) > 0 || w.Checkpoint != nil {
		err := p.persist(ctx, "write to the store", func() error { return p.store.Apply(ctx, p.generation, w) })
		if errors.Is(err, vectordb.ErrInvalid) && len(batch) > 0 {
			return p.writeApart(ctx, batch)
		}
		if err != nil {
			return err
		}
		if p.group == "" {
			p.saved = checkpoint
			if at, ok := w.Checkpoint[vectordb.AsOf]; ok {
				p.dated = time.UnixMilli(at)
			}
		}
	}
	return p.shown(ctx, batch, owned, positions)
}

// shown settles what was written, now or as soon as the store shows it. It is called while writing is held.
func (p *pipeline) shown(ctx context.Context, batch, owned []*task, positions []stream.Position) error {
	if p.delayed == nil {
		p.settle(batch, owned, positions)
		return nil
	}
	select {
	case p.unseen <- slices.Clone(batch):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// show settles what was written once the store shows it. One wait serves every write before it.
func (p *pipeline) show(ctx context.Context) error {
	for {
		var batch []*task
		select {
		case batch = <-p.unseen:
		case <-ctx.Done():
			return ctx.Err()
		}
	drain:
		for {
			select {
			case more := <-p.unseen:
				batch = append(batch, more...)
			default:
				break drain
			}
		}
		if err := p.persist(ctx, "wait until the store shows what was written", func() error { return p.delayed.Visible(ctx, p.generation) }); err != nil {
			return err
		}
		if err := p.writing.take(ctx); err != nil {
			return err
		}
		owned, positions := p.stillOwned(batch)
		p.settle(batch, owned, positions)
		p.writing.give()
	}
}

// settle notes that a batch is searchable.
func (p *pipeline) settle(batch, owned []*task, positions []stream.Position) {
	var rejected []stream.Position
	for _, t := range owned {
		t.covers = p.progress.news(t.covers) // what was searchable since it was read on to was told of then
		rejected = append(rejected, t.rejected...)
		switch {
		case t.revision == nil:
		case t.revision.Deleted:
			p.counts.deletes.Add(1)
		case t.revision.Version > 0:
			p.counts.documents.Add(1)
			p.counts.chunksReused.Add(int64(t.reused))
		}
	}
	p.applied(owned)
	p.progress.finish(positions, rejected)
	if p.settled != nil {
		p.settled(p.progress.committable(), positions, rejected)
	}
	p.release(batch)
}

// writeApart writes a batch one by one, because the store says that something in it can never be stored. What is to blame is rejected.
func (p *pipeline) writeApart(ctx context.Context, batch []*task) error {
	for _, t := range batch {
		owned, positions := p.stillOwned([]*task{t})
		if len(owned) > 0 && t.revision != nil {
			one := vectordb.Write{Revisions: []vectordb.Revision{*t.revision}}
			err := p.persist(ctx, "write to the store", func() error { return p.store.Apply(ctx, p.generation, one) })
			if errors.Is(err, vectordb.ErrInvalid) && t.content != nil {
				t.reject(stream.CodeEmbedRejected, err.Error())
				if err := p.sendLetters(ctx, t); err != nil {
					return err
				}
				if t.content != nil || t.access != nil {
					p.progress.retract(positions)
					p.mu.Lock()
					p.push(t)
					p.mu.Unlock()
					continue
				}
			} else if err != nil {
				return err
			}
		}
		if err := p.shown(ctx, []*task{t}, owned, positions); err != nil {
			return err
		}
	}
	return nil
}

// stillOwned returns the tasks that may be written, and the positions that are done with them. What was read in an earlier term of
// ownership is left out: it was, or will be, delivered again to whoever owns the partition now.
func (p *pipeline) stillOwned(batch []*task) (owned []*task, positions []stream.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range batch {
		n := len(positions)
		for _, c := range t.covers {
			if p.owned[c.at.Partition] == c.term {
				positions = append(positions, c.at)
			}
		}
		if len(positions) > n {
			owned = append(owned, t)
		}
	}
	return owned, positions
}

// release ends the turn of the tasks' documents.
func (p *pipeline) release(tasks []*task) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range tasks {
		p.inFlight -= t.bytes
		p.working -= t.held
		p.beyond -= t.beyond
		next := p.docs[t.key].waiting
		if next == nil {
			delete(p.docs, t.key)
			continue
		}
		p.docs[t.key] = line{waiting: next}
		p.push(next)
	}
	select {
	case p.room <- struct{}{}:
	default:
	}
}

// persist tries until f succeeds, the context ends, or the error is one that time does not mend.
func (p *pipeline) persist(ctx context.Context, what string, f func() error) error {
	for attempt := 1; ; attempt++ {
		err := f()
		switch {
		case err == nil:
			if attempt > 1 {
				p.clearTrouble()
			}
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, vectordb.ErrInvalid):
			if attempt > 1 {
				p.clearTrouble() // the store answers
			}
			return fmt.Errorf("%s: %w", what, err)
		case errors.Is(err, vectordb.ErrNoGeneration), errors.Is(err, vectordb.ErrClosed), errors.Is(err, vectordb.ErrMismatch):
			return fmt.Errorf("%s: %w", what, err)
		}
		p.setTrouble(fmt.Sprintf("%s fails, trying again: %v", what, err))
		if err := sleep(ctx, backoff(attempt)); err != nil {
			return err
		}
	}
}

func (p *pipeline) setTrouble(detail string) {
	setTrouble(p.trouble, p.logger, p.generation, detail)
}

func setTrouble(trouble *atomic.Pointer[Trouble], logger *slog.Logger, generation, detail string) {
	next := &Trouble{Since: time.Now().UTC(), Detail: detail}
	if old := trouble.Load(); old != nil {
		next.Since = old.Since
	} else {
		logger.Warn("indexing is held up", "generation", generation, "detail", detail)
	}
	trouble.Store(next)
}

func (p *pipeline) clearTrouble() { clearTrouble(p.trouble, p.logger, p.generation) }

func clearTrouble(trouble *atomic.Pointer[Trouble], logger *slog.Logger, generation string) {
	if old := trouble.Swap(nil); old != nil {
		logger.Info("indexing goes on", "generation", generation, "after", time.Since(old.Since).Round(time.Millisecond))
	}
}

// commitEvery is how often positions are committed if they moved. Commits are also how other processes learn what is searchable.
const commitEvery = 100 * time.Millisecond

// commit stores positions in the consumer group, off the write path.
func (p *pipeline) commit(ctx context.Context, source stream.Source) error {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	var saved map[int32]int64
	var savedTerms uint64 // a commit is refused without a word if the partition was lost meanwhile: it counts for its terms only
	for {
		select {
		case <-tick.C:
			p.mu.Lock()
			terms := p.terms
			p.mu.Unlock()
			if now := p.progress.committable(); (terms != savedTerms || !sameCheckpoint(saved, now)) && p.commitNow(ctx, source) {
				saved, savedTerms = now, terms
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// commitNow commits the finished prefix of the named partitions, or of all. A failure costs only repeated work, so it is logged and left.
func (p *pipeline) commitNow(ctx context.Context, source stream.Source, partitions ...int32) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if p.committing.take(ctx) != nil {
		return false
	}
	defer p.committing.give()
	var next []stream.Position
	for id, offset := range p.progress.committable() {
		if len(partitions) == 0 || slices.Contains(partitions, id) {
			next = append(next, stream.Position{Partition: id, Offset: offset})
		}
	}
	if len(next) == 0 {
		return true
	}
	err := source.Commit(ctx, next...)
	if err != nil && ctx.Err() == nil {
		p.logger.Warn("commit failed; a restart repeats some work", "generation", p.generation, "error", err)
	}
	return err == nil
}

// backoff is full jitter: uniform up to 50 ms·2^attempt, at most 15 s.
func backoff(attempt int) time.Duration {
	most := min(15*time.Second, 50*time.Millisecond<<min(attempt, 10))
	return time.Duration(rand.Int64N(int64(most))) + time.Millisecond
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sameCheckpoint(a, b map[int32]int64) bool {
	if len(a) != len(b) {
		return false
	}
	for id, offset := range a {
		if b[id] != offset {
			return false
		}
	}
	return true
}
