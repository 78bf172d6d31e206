package indexer

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// tail reads the newest changes of the log where other processes index them, so that this one can tell how long each took to become searchable.
type tail struct {
	indexer *Indexer

	looked time.Time // into the store, for what is pending; of settle alone

	mu      sync.Mutex
	pending map[int32][]*task // by partition, in offset order; their documents' texts are not kept
	settled map[int32][]*task // the newest that were searchable, for whoever asks what became of a change
}

// Bounds of what a tail remembers of a partition. Changes beyond tailPending are not measured, nor is imported history beyond half of that, so that an import leaves room for
// what people change meanwhile; tailSettled are enough for those who wait for one.
const (
	tailPending = 100_000
	tailSettled = 4096
)

// What the group has not come to may be searchable all the same: see ahead. So many of what has been pending for longer than this are looked up in the store, as often.
const (
	tailLooks     = 64
	tailLookEvery = 500 * time.Millisecond
)

func newTail(x *Indexer) *tail {
	return &tail{indexer: x, pending: make(map[int32][]*task), settled: make(map[int32][]*task)}
}

// run reads until ctx ends. What was written while it could not read is not measured.
func (l *tail) run(ctx context.Context) {
	for attempt := 1; ctx.Err() == nil; attempt++ {
		err := l.read(ctx)
		if ctx.Err() != nil {
			return
		}
		l.indexer.config.Logger.Warn("the log's newest changes can't be read, so their freshness is not measured; trying again", "error", err)
		_ = sleep(ctx, backoff(attempt))
	}
}

func (l *tail) read(ctx context.Context) error {
	ends, err := l.indexer.config.Log.Ends(ctx)
	if err != nil {
		return err
	}
	spread, err := l.indexer.spread(ctx)
	if err != nil {
		return err
	}
	from := stream.From{Positions: make(map[int32]int64, len(ends)), Spread: spread}
	for _, end := range ends {
		from.Positions[end.Partition] = end.Offset
	}
	source, err := l.indexer.config.Log.Open(ctx, from)
	if err != nil {
		return err
	}
	defer source.Close()
	l.mu.Lock()
	clear(l.pending)
	l.mu.Unlock()
	for {
		batch, err := source.Next(ctx)
		if err != nil {
			if errors.Is(err, io.EOF) {
				<-ctx.Done()
			}
			return err
		}
		l.add(ctx, batch.Changes)
	}
}

func (l *tail) add(ctx context.Context, changes []stream.Change) {
	var tasks []*task
	for i := range changes {
		c := changes[i]
		if c.Kind != stream.Upsert && c.Kind != stream.Delete {
			continue
		}
		t := &task{key: c.Key(), hidden: c.Tenant != "", covers: []cover{{at: c.Position, logged: c.Time, updated: c.Time, backfill: c.Backfill}}}
		if c.Document != nil {
			t.hidden = t.hidden || c.Document.ACL != nil
			if !c.Document.UpdatedAt.IsZero() {
				t.covers[0].updated = c.Document.UpdatedAt
			}
		}
		c.Document, c.Raw = nil, nil
		t.content = &c
		tasks = append(tasks, t)
	}
	l.hide(ctx, tasks)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range tasks {
		id, most := t.content.Position.Partition, tailPending
		if t.content.Backfill {
			most /= 2
		}
		if len(l.pending[id]) < most {
			l.pending[id] = append(l.pending[id], t)
		}
	}
}

// hide marks deletes of documents that not everybody may know of, while what is stored can still tell. What it can't tell is hidden.
func (l *tail) hide(ctx context.Context, tasks []*task) {
	if !l.indexer.hub.any.Load() {
		return
	}
	var deletes []*task
	var keys []string
	for _, t := range tasks {
		if t.content.Kind == stream.Delete {
			deletes, keys = append(deletes, t), append(keys, t.key)
		}
	}
	g := l.indexer.live.Load()
	if len(keys) == 0 || g == nil {
		return
	}
	stored, err := l.indexer.config.Store.Current(ctx, g.name, keys)
	for i, t := range deletes {
		t.hidden = t.hidden || err != nil || stored[i].Version == 0 || stored[i].Deleted || stored[i].Readers() != nil
	}
}

// settle measures what the generation has made searchable since.
func (l *tail) settle(ctx context.Context, g *generation) {
	if !l.indexer.config.Observe {
		return
	}
	applied := g.progress.committable()
	var due []*task
	l.mu.Lock()
	for id, tasks := range l.pending {
		n := 0
		for n < len(tasks) && tasks[n].content.Position.Offset < applied[id] {
			n++
		}
		if n == 0 {
			continue
		}
		due = append(due, tasks[:n]...)
		l.pending[id] = tasks[n:]
		l.settled[id] = kept(l.settled[id], tasks[:n])
	}
	l.mu.Unlock()
	beyond := l.beyond(ctx, g)
	due = append(due, beyond...)
	if len(due) == 0 {
		return
	}
	if l.indexer.hub.any.Load() {
		l.describe(ctx, g, due)
	}
	now := time.Now()
	for _, t := range due {
		l.indexer.freshness.record(now, t.covers[0])
		if t.revision != nil {
			l.indexer.hub.publish(now, t)
		}
	}
	positions := make([]stream.Position, len(beyond))
	for i, t := range beyond {
		positions[i] = t.content.Position
	}
	g.progress.confirm(positions, nil) // this wakes whoever waits for them
}

// kept is the newest of what was settled.
func kept(settled, more []*task) []*task {
	all := append(settled, more...)
	return all[max(0, len(all)-tailSettled):]
}

// beyond takes those changes out of pending that are searchable although the group has not come to them.
func (l *tail) beyond(ctx context.Context, g *generation) []*task {
	if time.Since(l.looked) < tailLookEvery {
		return nil
	}
	l.looked = time.Now()
	var asked []*task
	l.mu.Lock()
	for _, tasks := range l.pending {
		for _, t := range tasks {
			switch {
			case t.content.Backfill:
			case t.attempts == 0:
				t.attempts = 1 // most are settled before it is looked again
			default:
				asked = append(asked, t)
			}
		}
	}
	// By turns, for what is not searchable must not be in the way of what is.
	slices.SortStableFunc(asked, func(a, b *task) int { return a.attempts - b.attempts })
	asked = asked[:min(len(asked), tailLooks)]
	keys := make([]string, len(asked))
	for i, t := range asked {
		t.attempts++
		keys[i] = t.key
	}
	l.mu.Unlock()
	if len(asked) == 0 {
		return nil
	}
	stored, err := l.indexer.config.Store.Current(ctx, g.name, keys)
	if err != nil {
		return nil
	}
	found := make(map[*task]bool)
	for i, t := range asked {
		if stored[i].Version >= t.content.Version {
			found[t] = true
		}
	}
	if len(found) == 0 {
		return nil
	}
	if delayed, ok := l.indexer.config.Store.(vectordb.Delayed); ok && delayed.Visible(ctx, g.name) != nil {
		return nil
	}
	l.mu.Lock()
	var due []*task // reading the log may have begun anew meanwhile: what is not pending any more is not settled
	for id, tasks := range l.pending {
		l.pending[id] = slices.DeleteFunc(tasks, func(t *task) bool {
			if found[t] {
				due = append(due, t)
			}
			return found[t]
		})
	}
	for _, t := range due {
		id := t.content.Position.Partition
		l.settled[id] = kept(l.settled[id], []*task{t})
	}
	l.mu.Unlock()
	return due
}

// describe adds what a listener wants to know. A change that was superseded or rejected is no event.
func (l *tail) describe(ctx context.Context, g *generation, due []*task) {
	keys := make([]string, len(due))
	for i, t := range due {
		keys[i] = t.key
	}
	stored, err := l.indexer.config.Store.Current(ctx, g.name, keys)
	if err != nil {
		return
	}
	for i, t := range due {
		if r := &stored[i]; r.Version == t.content.Version {
			t.revision = &vectordb.Revision{Deleted: r.Deleted}
			t.hidden = t.hidden || !r.Deleted && r.Readers() != nil
		}
	}
}

// refused tells whether a change that the group is past can't be found, although nothing newer took its place.
func (l *tail) refused(ctx context.Context, g *generation, at stream.Position) bool {
	l.mu.Lock()
	var found *task
	for _, tasks := range [][]*task{l.settled[at.Partition], l.pending[at.Partition]} {
		for _, t := range tasks {
			if t.content.Position == at {
				found = t
			}
		}
	}
	l.mu.Unlock()
	if found == nil {
		return false
	}
	stored, err := l.indexer.config.Store.Current(ctx, g.name, []string{found.key})
	return err == nil && stored[0].Version < found.content.Version
}
