package indexer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// TestAnObserverIsToldOfAnEditBehindABacklog: whoever only answers learns from the store that an edit is searchable which those who index have read on to, long before they come to it.
func TestAnObserverIsToldOfAnEditBehindABacklog(t *testing.T) {
	b := newBed(t)
	b.stop()
	b.model.do(func(ctx context.Context, inputs []string) error {
		if strings.HasPrefix(inputs[0], "history") {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	observer, _ := b.another(Config{Shared: true, Observe: true})
	worker, _ := b.another(Config{Shared: true, MaxInFlightBytes: 1 << 20})
	b.eventually("both ready", func() bool { return observer.Ready() == nil && worker.Ready() == nil })
	history := make([]stream.Change, 3000)
	for i := range history {
		history[i] = backfill(fmt.Sprint("old", i), fmt.Sprintf("history %d %s", i, strings.Repeat("and more ", 30)))
	}
	b.append(history...)
	p := worker.live.Load().pipeline
	b.eventually("paused", p.full)
	deleted := b.append(remove("old2999"))
	edited := b.append(upsert("new", "an edit of today"))
	for _, positions := range [][]stream.Position{deleted, edited} {
		if p.progress.hasRead(positions[0]) {
			t.Fatal("there is memory for all of it")
		}
		if err := observer.WaitSearchable(b.ctx(), positions); err != nil {
			t.Fatal(err)
		}
	}
	if revs, err := b.store.Current(b.ctx(), observer.live.Load().name, []string{"new"}); err != nil || revs[0].Text != "an edit of today" {
		t.Errorf("it is told searchable, and the store has %q; %v", revs[0].Text, err)
	}
	if f, err := observer.Freshness(b.ctx()); err != nil || f.Entered.Count != 2 {
		t.Errorf("freshness: %+v, %v", f.Entered, err)
	}
	if pending := observer.Status(Live).Pending; pending < 3000 {
		t.Errorf("%d changes are pending, want all: nothing of the history is indexed", pending)
	}
}

// TestAnImportLeavesATailRoomForEdits: more history than is remembered of a partition does not keep an edit behind it from being looked up.
func TestAnImportLeavesATailRoomForEdits(t *testing.T) {
	l := newTail(New(Config{}))
	changes := make([]stream.Change, tailPending+1)
	for i := range changes {
		changes[i] = backfill(fmt.Sprint("old", i), "")
		changes[i].Position.Offset = int64(i)
	}
	edit := upsert("new", "an edit of today")
	edit.Position.Offset = tailPending + 1
	l.add(t.Context(), append(changes, edit))
	pending := l.pending[0]
	if last := pending[len(pending)-1]; last.key != "new" || len(pending) > tailPending {
		t.Errorf("the last of %d is %s", len(pending), last.key)
	}
}

// TestAnObserverKnowsWhatOthersIndexed asks a process without a pipeline for everything that one with a pipeline would know.
func TestAnObserverKnowsWhatOthersIndexed(t *testing.T) {
	b := newBed(t)
	b.stop()
	observer, _ := b.another(Config{Shared: true, Observe: true})
	b.eventually("opened without an indexer", func() bool { return observer.Ready() == nil })
	early := b.append(upsert("early", "before anybody indexes"))
	if err := observer.WaitSearchable(done(), early); !errors.Is(err, context.Canceled) {
		t.Fatalf("a change that nobody has indexed counts as searchable: %v", err)
	}
	_, stop := b.another(Config{Shared: true})
	b.indexer = observer
	if err := observer.WaitSearchable(b.ctx(), early); err != nil {
		t.Fatal(err)
	}
	events, stopEvents := observer.Events()
	defer stopEvents()

	hidden := upsert("hidden", "not for everybody")
	hidden.Document.ACL = []string{"group:few"}
	long := upsert("refused", "what the model refuses")
	b.model.do(func(_ context.Context, inputs []string) error {
		for i, input := range inputs {
			if strings.Contains(input, "refuses") {
				return &embedder.Error{Op: "test", Input: i, Err: errors.New("refused")}
			}
		}
		return nil
	})
	// Whether everybody may know of a deletion can only be told before it is done, which on a store in memory is at once.
	b.store.failWith(func(w vectordb.Write) error {
		for _, r := range w.Revisions {
			if r.Deleted && !observer.tail.knows(r.Key) {
				return errors.New("the observer has not read it yet")
			}
		}
		return nil
	})
	written := b.append(upsert("a", "first"), hidden, remove("early"), long)
	if err := observer.WaitApplied(b.ctx(), Live, written); err != nil {
		t.Fatal(err)
	}
	b.store.failWith(nil)
	if err := observer.WaitSearchable(b.ctx(), written[:3]); err != nil {
		t.Error(err)
	}
	if err := observer.WaitSearchable(b.ctx(), written[3:]); !errors.Is(err, ErrRejected) {
		t.Errorf("waiting for a change that was rejected: %v", err)
	}
	got := map[string]string{}
	for got["a"] == "" || got["early"] != "delete" { // that it was written may be told only now
		select {
		case e := <-events:
			got[e.ID] = e.Kind
		case <-b.ctx().Done():
			t.Fatalf("events: %v", got)
		}
	}
	if got["a"] != "upsert" || len(got) != 2 {
		t.Errorf("events: %v", got)
	}
	f, err := observer.Freshness(b.ctx())
	if err != nil || f.Entered.Count < 4 || len(f.Partitions) != 3 {
		t.Errorf("freshness: %+v, %v", f, err)
	}

	// It starts replays that others build, and promotes them.
	info, err := observer.Create(b.ctx(), "other", vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Whole, Tokens: 40}})
	if err != nil {
		t.Fatal(err)
	}
	b.eventually("built by the other process", func() bool {
		info, err = observer.Info("other")
		return err == nil && info.State == StateReady
	})
	if _, err := observer.Promote(b.ctx(), "other"); err != nil {
		t.Error(err)
	}
	b.settle(upsert("b", "second"))
	b.compare(map[string]string{"a": "first", "b": "second", "hidden": "not for everybody"})

	// With nobody indexing, what is written is known not to be searchable, and nothing can be promoted.
	stop()
	late := b.append(upsert("late", "text"))
	if _, err := observer.Freshness(b.ctx()); err != nil {
		t.Error(err)
	}
	if status := observer.Status(Live); status.Pending != 1 {
		t.Errorf("pending changes: %d, want 1", status.Pending)
	}
	if err := observer.WaitSearchable(done(), late); !errors.Is(err, context.Canceled) {
		t.Errorf("a change that nobody indexes: %v", err)
	}
}

// knows tells whether a deletion of the document was read.
func (l *tail) knows(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, tasks := range l.pending {
		for _, t := range tasks {
			if t.key == key && t.content.Kind == stream.Delete {
				return true
			}
		}
	}
	return false
}

// done is a context that only lets a caller look.
func done() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// late is a store that shows what was written only when it is let.
type late struct {
	*store
	let   chan struct{}
	waits atomic.Int32
}

func (s *late) Visible(ctx context.Context, _ string) error {
	s.waits.Add(1)
	select {
	case <-s.let:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestNothingCountsBeforeTheStoreShowsIt writes to a store that acknowledges before it shows.
func TestNothingCountsBeforeTheStoreShowsIt(t *testing.T) {
	b := newBed(t)
	b.stop()
	slow := &late{store: b.store, let: make(chan struct{})}
	x, _ := b.another(Config{Shared: true, Store: slow})
	observer, _ := b.another(Config{Shared: true, Observe: true, Store: slow})
	b.eventually("ready", func() bool { return x.Ready() == nil && observer.Ready() == nil })
	first := b.append(upsert("a", "one"))
	b.eventually("written", func() bool { return slow.waits.Load() == 1 })
	b.indexer = x
	if b.current("a").Version == 0 {
		t.Fatal("it was not written")
	}
	group := x.live.Load().group
	for _, who := range []*Indexer{x, observer} {
		if err := who.WaitSearchable(done(), first); !errors.Is(err, context.Canceled) {
			t.Errorf("what the store does not show counts as searchable: %v", err)
		}
	}
	if committed, err := b.log.Committed(b.ctx(), group); err != nil || committed[first[0].Partition] > first[0].Offset {
		t.Errorf("what the store does not show was committed: %v, %v", committed, err)
	}
	close(slow.let)
	for _, who := range []*Indexer{x, observer} {
		if err := who.WaitSearchable(b.ctx(), first); err != nil {
			t.Error(err)
		}
	}
}

// named is a store that keeps a second name for the live generation.
type named struct {
	*store
	live   atomic.Value
	failed atomic.Int32
}

func (s *named) Promote(_ context.Context, generation string) error {
	if s.failed.Add(1) == 1 {
		return errors.New("not now")
	}
	s.live.Store(generation)
	return nil
}

func TestTheStoresAliasFollows(t *testing.T) {
	b := newBed(t)
	b.stop()
	s := &named{store: b.store}
	b.start(Config{Store: s})
	is := func(name string) func() bool {
		info, err := b.indexer.Info(name)
		if err != nil {
			t.Fatal(err)
		}
		return func() bool { return s.live.Load() == any(info.Name) }
	}
	b.eventually("named although the first try failed", is(Live))
	if _, err := b.indexer.Create(b.ctx(), "other", vectordb.Recipe{}); err != nil {
		t.Fatal(err)
	}
	b.eventually("caught up", func() bool { _, err := b.indexer.Promote(b.ctx(), "other"); return err == nil })
	b.eventually("moved", is("other"))
	if _, err := b.indexer.Rollback(b.ctx()); err != nil {
		t.Fatal(err)
	}
	b.eventually("moved back", is(Live))
}

// silent is a store that does not come back from counting.
type silent struct {
	*store
	asked chan struct{}
}

func (s *silent) Stats(ctx context.Context, _ string) (vectordb.Stats, error) {
	select {
	case s.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return vectordb.Stats{}, ctx.Err()
}

// TestAStoreThatDoesNotCountIsInNobodysWay describes a generation of a store that hangs, and queries it meanwhile.
func TestAStoreThatDoesNotCountIsInNobodysWay(t *testing.T) {
	b := newBed(t)
	b.stop()
	s := &silent{store: b.store, asked: make(chan struct{}, 1)}
	b.start(Config{Store: s})
	b.eventually("ready", func() bool { return b.indexer.Ready() == nil })
	described := make(chan error, 1)
	go func() {
		_, err := b.indexer.Info(Live)
		described <- err
	}()
	<-s.asked
	if _, _, err := b.indexer.Lookup(Live); err != nil {
		t.Error(err)
	}
	select {
	case err := <-described:
		t.Fatalf("the description was there before the look-up: %v", err)
	default:
	}
	if err := <-described; err != nil {
		t.Error(err)
	}
}

// TestAModelThatIsAway begins while the model does not answer: that is waited for, and whatever else keeps a recipe from being built is told.
func TestAModelThatIsAway(t *testing.T) {
	b := newBed(t)
	b.stop()
	good := b.config(Config{}).Build
	var asked atomic.Int32
	away := func(ctx context.Context, r vectordb.Recipe, dim int) (Parts, error) {
		if asked.Add(1) < 3 {
			return Parts{}, &embedder.Error{Op: "openai: probe", Temporary: true, Input: -1, Err: errors.New("connection refused")}
		}
		return good(ctx, r, dim)
	}
	b.start(Config{Build: away})
	b.settle(upsert("a", "text"))
	asked.Store(0)
	other, err := b.indexer.Create(b.ctx(), "other", vectordb.Recipe{})
	var failed *embedder.Error
	if !errors.As(err, &failed) || errors.Is(err, ErrRecipe) {
		t.Errorf("a replay with a model that is away: %v, %v", other, err)
	}
	b.stop()

	// The same after a restart, when there is an index already.
	asked.Store(0)
	b.start(Config{Build: away})
	b.settle(upsert("b", "text"))
	b.compare(map[string]string{"a": "text", "b": "text"})
	b.stop()

	// Another dimension is refused with the reason, and costs nothing of what is there.
	wide := func(ctx context.Context, r vectordb.Recipe, dim int) (Parts, error) {
		parts, err := good(ctx, r, dim)
		parts.Embedder = embedder.NewHash(48)
		return parts, err
	}
	x := New(b.config(Config{Build: wide}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	b.eventually("refused", func() bool {
		info, err := x.Info(Live)
		return err == nil && info.State == StateFailed
	})
	if info, _ := x.Info(Live); !strings.Contains(info.Trouble.Detail, "48 dimensions now, and the generation's have 32") {
		t.Errorf("the reason: %s", info.Trouble.Detail)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	b.start(Config{})
	b.compare(map[string]string{"a": "text", "b": "text"})
}
