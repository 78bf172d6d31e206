package indexer

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// tape is a log of one partition, in memory, that hands out a few hundred changes at a time.
type tape struct {
	stream.Log
	mu      sync.Mutex
	changes []stream.Change
	told    bool
	read    int
	paused  bool
	pauses  int
	polls   int
	onward  int // sources that leave history out
	moved   chan struct{}
}

const tapeReads = 200

func (l *tape) append(changes ...stream.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range changes {
		c.Position = stream.Position{Offset: int64(len(l.changes))}
		c.Version, c.Time = stream.Version(0, c.Position.Offset), time.Now()
		c.Size = len(c.Key()) + 100
		if c.Document != nil {
			c.Size += len(c.Document.Text)
		}
		l.changes = append(l.changes, c)
	}
	l.wake()
}

func (l *tape) wake() {
	select {
	case l.moved <- struct{}{}:
	default:
	}
}

func (l *tape) Open(_ context.Context, from stream.From) (stream.Source, error) {
	if from.Fresh {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.onward++
		return &onward{l, from.Positions[0]}, nil
	}
	return l, nil
}

func (l *tape) Ends(context.Context) ([]stream.End, error)       { return nil, nil }
func (l *tape) Commit(context.Context, ...stream.Position) error { return nil }
func (l *tape) Close() error                                     { return nil }

// onward reads the tape on its own, without history.
type onward struct {
	*tape
	next int64
}

func (o *onward) Next(ctx context.Context) (stream.Batch, error) {
	if err := sleep(ctx, 10*time.Millisecond); err != nil {
		return stream.Batch{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var batch stream.Batch
	for ; o.next < int64(len(o.changes)) && len(batch.Changes) < tapeReads; o.next++ {
		if c := o.changes[o.next]; !c.Backfill || c.Kind == stream.Access {
			batch.Changes = append(batch.Changes, c)
		}
	}
	batch.Fetched = []stream.Position{{Offset: o.next}}
	return batch, nil
}

func (l *tape) Pause(...int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = true
	l.pauses++
}

func (l *tape) Resume(...int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = false
	l.wake()
}

func (l *tape) Next(ctx context.Context) (stream.Batch, error) {
	for timeout := time.After(250 * time.Millisecond); ; {
		l.mu.Lock()
		batch := stream.Batch{Ends: []stream.End{{Offset: int64(len(l.changes)), At: time.Now()}}}
		if !l.told {
			l.told = true
			batch.Assigned = []stream.Position{{}}
		}
		if !l.paused {
			n := min(tapeReads, len(l.changes)-l.read)
			batch.Changes = slices.Clone(l.changes[l.read : l.read+n])
			l.read += n
		}
		l.polls++
		l.mu.Unlock()
		if len(batch.Changes) > 0 || len(batch.Assigned) > 0 {
			return batch, nil
		}
		select {
		case <-l.moved:
		case <-timeout:
			return batch, nil
		case <-ctx.Done():
			return batch, ctx.Err()
		}
	}
}

// press is a pipeline between a tape and a model that is asked in requests.
type press struct {
	*pipeline
	t     *testing.T
	tape  *tape
	model *model
	box   letterBox   // of dead letters
	alive atomic.Bool // its generation is the live one
	ended chan error
}

// newPress makes a pipeline, of the live generation, whose model takes a second for a request. It runs until the returned function is called. Only in a bubble.
func newPress(t *testing.T, requests embedder.BatchConfig, strategy string) (*press, func()) {
	t.Helper()
	store := vectordb.NewMemory()
	model := &model{Hash: embedder.NewHash(8)}
	if err := store.Create(t.Context(), vectordb.Generation{Name: "g", Dim: 8}); err != nil {
		t.Fatal(err)
	}
	cut, err := chunker.New(chunker.Options{Strategy: strategy, Tokens: 20})
	if err != nil {
		t.Fatal(err)
	}
	x := &press{t: t, model: model, tape: &tape{moved: make(chan struct{}, 1)}, ended: make(chan error, 1)}
	x.takes(time.Second)
	x.alive.Store(true)
	x.pipeline = &pipeline{
		generation: "g", log: x.tape, store: store, logger: quietLogger(), gate: newGate(2), live: x.alive.Load, limit: 64 << 20,
		parts:   Parts{Chunker: cut, Embedder: embedder.Batch(model, requests)},
		applied: func([]*task) {}, lender: func() *lender { return nil }, begins: func([]stream.End) {}, missed: func(context.Context) error { return nil },
		progress: newProgress(), counts: new(counts), trouble: new(atomic.Pointer[Trouble]), letters: &x.box,
	}
	return x, func() {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { x.ended <- x.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			<-x.ended
		})
	}
}

// takes says how long the model takes for a request from now on.
func (x *press) takes(d time.Duration) {
	x.model.do(func(ctx context.Context, inputs []string) error {
		if i := slices.Index(inputs, refusedText); i >= 0 {
			return &embedder.Error{Op: "test", Input: i, Err: fmt.Errorf("refused")}
		}
		return sleep(ctx, d)
	})
}

// refusedText is what the model refuses for good.
const refusedText = "what no model takes"

// letterBox counts dead letters.
type letterBox struct{ sent atomic.Int64 }

func (b *letterBox) Send(_ context.Context, letters ...stream.DeadLetter) error {
	b.sent.Add(int64(len(letters)))
	return nil
}

// finish waits until everything on the tape is searchable, and looks meanwhile whether the checkpoint says more than is true.
func (x *press) finish() {
	x.t.Helper()
	for {
		x.honest()
		saved, err := x.store.Checkpoint(x.t.Context(), "g")
		if err != nil {
			x.t.Fatal(err)
		}
		if saved[0] == int64(len(x.tape.changes)) {
			break
		}
		time.Sleep(5 * time.Second)
	}
	synctest.Wait() // the checkpoint is stored before what it is about is let go of
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.inFlight != 0 || len(x.docs) != 0 {
		x.t.Errorf("at the end %d bytes of %d documents are in flight", x.inFlight, len(x.docs))
	}
	for u := range x.windows {
		for n, w := range x.windows[u] {
			if w != nil && (w.inputs != 0 || w.tokens != 0) {
				x.t.Errorf("at the end the window %d of %d holds %d inputs and %d tokens", n, u, w.inputs, w.tokens)
			}
		}
	}
}

// honest fails the test if a change below the checkpoint is not in the store.
func (x *press) honest() {
	x.t.Helper()
	saved, err := x.store.Checkpoint(x.t.Context(), "g")
	if err != nil {
		x.t.Fatal(err)
	}
	newest := map[string]int64{}
	for _, c := range x.tape.changes[:saved[0]] {
		if c.Document == nil || c.Document.Text != refusedText {
			newest[c.Key()] = c.Version
		}
	}
	keys := slices.Collect(maps.Keys(newest))
	stored, err := x.store.Current(x.t.Context(), "g", keys)
	if err != nil {
		x.t.Fatal(err)
	}
	for i, key := range keys {
		if stored[i].Version < newest[key] {
			x.t.Fatalf("the checkpoint is %d, and of %s version %d is stored, not %d", saved[0], key, stored[i].Version, newest[key])
		}
	}
}

// stored waits until a document's text is stored, and returns how long that took.
func (x *press) stored(id, text string) time.Duration {
	x.t.Helper()
	begun := time.Now()
	for time.Since(begun) < time.Hour {
		revs, err := x.store.Current(x.t.Context(), "g", []string{id})
		if err != nil {
			x.t.Fatal(err)
		}
		if revs[0].Version > 0 && revs[0].Text == text {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begun)
}

func backfill(id, text string) stream.Change {
	c := upsert(id, text)
	c.Backfill = true
	return c
}

// TestAnEditGoesBeforeABacklog: what somebody has just changed waits for a request in flight at the most, whatever waits before it; a delete does not even wait for that.
func TestAnEditGoesBeforeABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 2, MaxInputs: 10}, chunker.Whole)
		for i := range 5000 {
			x.tape.append(backfill(fmt.Sprint("old", i), fmt.Sprint("history ", i)))
		}
		run()
		time.Sleep(10 * time.Second)
		if n := x.counts.changes.Load(); n != 5000 {
			t.Fatalf("%d changes were read after 10 s", n)
		}
		x.tape.append(upsert("new", "an edit of today"))
		if took := x.stored("new", "an edit of today"); took > 2100*time.Millisecond {
			t.Errorf("an edit took %v; a request takes a second", took)
		}
		// One of the backlog that is edited is as urgent.
		x.tape.append(upsert("old4000", "edited"))
		if took := x.stored("old4000", "edited"); took > 2100*time.Millisecond {
			t.Errorf("an edit of what waits took %v; a request takes a second", took)
		}
		x.takes(time.Hour)
		time.Sleep(5 * time.Second)
		x.tape.append(remove("new"))
		if took := x.stored("new", ""); took > 100*time.Millisecond {
			t.Errorf("a delete took %v", took)
		}
	})
}

// TestAnEditIsReadBehindABacklog: what somebody changes behind more history than there is memory for is searchable as soon as behind any other, is paid for once, and reading comes to
// it in its time without a trace. What it replaces in the backlog is never embedded, nor ever shown.
func TestAnEditIsReadBehindABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const backlog = 20_000
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 2, MaxInputs: 10}, chunker.Whole)
		x.limit = 4 << 20
		for i := range backlog {
			x.tape.append(backfill(fmt.Sprint("old", i), fmt.Sprint("history ", i)))
		}
		run()
		time.Sleep(10 * time.Second)
		if n := x.counts.changes.Load(); n > backlog/2 {
			t.Fatalf("%d changes were read: there is memory for them all", n)
		}
		x.tape.append(upsert("new", "an edit of today"))
		if took := x.stored("new", "an edit of today"); took > 2100*time.Millisecond {
			t.Errorf("an edit took %v; a request takes a second", took)
		}
		at := stream.Position{Offset: backlog}
		synctest.Wait()
		if !x.progress.isSearchable(at) {
			t.Error("whoever waits for the edit is not told")
		}
		x.honest()
		// The newest of the backlog, which nobody has read, is edited, deleted, refused; a document is created and deleted again.
		x.tape.append(upsert("old19990", "edited"), remove("old19991"), upsert("new", "edited again"), upsert("gone", "for a moment"))
		for id, text := range map[string]string{"old19990": "edited", "new": "edited again"} {
			if took := x.stored(id, text); took > 2100*time.Millisecond {
				t.Errorf("an edit of %s took %v", id, took)
			}
		}
		x.tape.append(remove("gone"), upsert("old19992", refusedText))
		time.Sleep(5 * time.Second)
		if n := x.box.sent.Load(); n != 1 {
			t.Errorf("%d dead letters", n)
		}
		x.mu.Lock()
		if x.inFlight > x.limit || x.beyond != 0 {
			t.Errorf("%d bytes are in flight, of them %d that were read on to; the limit is %d", x.inFlight, x.beyond, x.limit)
		}
		x.mu.Unlock()
		x.takes(10 * time.Millisecond)
		x.finish()
		asked := map[string]int{}
		for _, input := range x.model.asked() {
			asked[input]++
		}
		for input, want := range map[string]int{"an edit of today": 1, "edited": 1, "edited again": 1, "history 19990": 0, "history 19991": 0, "history 19992": 1, "history 12000": 1} {
			if asked[input] != want {
				t.Errorf("%q was embedded %d times, want %d", input, asked[input], want)
			}
		}
		revs, err := x.store.Current(t.Context(), "g", []string{"old19990", "old19991", "new", "gone", "old19992"})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"edited", "", "edited again", "", "history 19992"} {
			if revs[i].Text != want || revs[i].Deleted != (want == "") {
				t.Errorf("%s is %q at the end, deleted: %v; want %q", revs[i].Key, revs[i].Text, revs[i].Deleted, want)
			}
		}
		if n := x.box.sent.Load(); n != 1 {
			t.Errorf("%d dead letters of one change", n)
		}
		if n := x.counts.changes.Load(); n != int64(len(x.tape.changes)) {
			t.Errorf("%d changes were counted of %d", n, len(x.tape.changes))
		}
		if beyond := x.progress.beyond(); beyond != 0 {
			t.Errorf("%d changes are remembered as beyond the end", beyond)
		}
		x.tape.mu.Lock()
		defer x.tape.mu.Unlock()
		if x.tape.onward != 1 {
			t.Errorf("it was begun %d times to read on", x.tape.onward)
		}
	})
}

// TestHistoryDoesNotOvertakeWhatWasReadOnTo: reading comes to older changes of a document while a newer one that was read on to waits, is with the model, or fails.
func TestHistoryDoesNotOvertakeWhatWasReadOnTo(t *testing.T) {
	for _, tt := range []struct {
		name    string
		newest  []stream.Change // read on to, in this order
		want    string
		letters int64
	}{
		{"an edit", []stream.Change{upsert("d", "newest")}, "newest", 0},
		{"two edits", []stream.Change{upsert("d", "new"), upsert("d", "newest")}, "newest", 0},
		{"what is refused", []stream.Change{upsert("d", "newest"), upsert("d", refusedText)}, "newest", 1},
		{"two edits, and what is refused", []stream.Change{upsert("d", "new"), upsert("d", "newest"), upsert("d", refusedText)}, "newest", 1},
		{"a delete, and what is refused", []stream.Change{remove("d"), upsert("d", refusedText)}, "", 1},
		{"only what is refused", []stream.Change{upsert("d", refusedText)}, "history 4", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, run := newPress(t, embedder.BatchConfig{Concurrency: 1, MaxInputs: 4}, chunker.Whole)
				x.model.do(func(context.Context, []string) error {
					return &embedder.Error{Op: "test", Temporary: true, Input: -1, Err: fmt.Errorf("503")}
				})
				run()
				synctest.Wait()
				for i, c := range tt.newest {
					c.Position = stream.Position{Offset: int64(5 + i)}
					c.Version, c.Time, c.Raw = stream.Version(0, c.Position.Offset), time.Now(), &stream.Raw{}
					x.enqueue(&c, true)
					if i == 0 {
						time.Sleep(time.Second) // it is with the model
					}
				}
				for i := range 5 {
					x.tape.append(backfill("d", fmt.Sprint("history ", i)))
					time.Sleep(time.Second)
				}
				time.Sleep(time.Minute)
				x.mu.Lock()
				if running := x.docs["d"].running; running != nil && running.recalled >= len(tt.newest) {
					t.Errorf("it was taken back from the model %d times, for what is older", running.recalled)
				}
				x.mu.Unlock()
				x.takes(time.Second)
				time.Sleep(10 * time.Minute) // the model is tried again by and by
				for _, when := range []string{"before", "after"} {
					revs, err := x.store.Current(t.Context(), "g", []string{"d"})
					if err != nil || revs[0].Text != tt.want {
						t.Errorf("it is %q %s reading comes to the newest, want %q; %v", revs[0].Text, when, tt.want, err)
					}
					if n := x.box.sent.Load(); n != tt.letters {
						t.Errorf("%d dead letters %s reading comes to the newest, want %d", n, when, tt.letters)
					}
					if when == "before" {
						x.tape.append(tt.newest...)
						x.finish()
					}
				}
			})
		})
	}
}

// TestAnEditIsNotShownToThoseWhomHistoryKeepsOut: who may read a document is known before an edit of it is shown, though it was imported and lies in the backlog.
func TestAnEditIsNotShownToThoseWhomHistoryKeepsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 2, MaxInputs: 10}, chunker.Whole)
		x.limit = 4 << 20
		for i := range 10_000 {
			x.tape.append(backfill(fmt.Sprint("old", i), fmt.Sprint("history ", i)))
		}
		x.tape.append(stream.Change{Kind: stream.Access, ID: "secret", ACL: []string{"ann"}, Backfill: true}, upsert("secret", "an edit of today"))
		run()
		if took := x.stored("secret", "an edit of today"); took > 30*time.Second {
			t.Fatalf("it took %v: nobody read on", took)
		}
		revs, err := x.store.Current(t.Context(), "g", []string{"secret"})
		if err != nil || !slices.Equal(revs[0].Readers(), []string{"ann"}) {
			t.Errorf("it is shown to %q, want ann alone; %v", revs[0].Readers(), err)
		}
		x.takes(10 * time.Millisecond)
		x.finish()
	})
}

// TestAnEditIsReadBehindManyVersionsOfFewDocuments: a backlog of which the model has every document, and the newest of each waits for that, is a backlog all the same.
func TestAnEditIsReadBehindManyVersionsOfFewDocuments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 2, MaxInputs: 10}, chunker.Whole)
		x.limit = 1 << 20
		x.takes(30 * time.Second)
		for i := range 20_000 {
			x.tape.append(backfill(fmt.Sprint("old", i%20), fmt.Sprint("history ", i)))
		}
		run()
		time.Sleep(10 * time.Second)
		x.tape.append(upsert("new", "an edit of today"))
		if took := x.stored("new", "an edit of today"); took > 62*time.Second {
			t.Errorf("an edit took %v; a request takes 30 s", took)
		}
		if x.progress.hasRead(stream.Position{Offset: 20_000}) {
			t.Error("there is memory for all of it")
		}
		x.takes(10 * time.Millisecond)
		x.finish()
	})
}

// TestWhatIsRefusedIsSaidOnce: reading comes to what was read on to and refused while what it superseded is still with the model, and gives that up for it.
func TestWhatIsRefusedIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 1, MaxInputs: 1}, chunker.Whole)
		x.model.do(func(_ context.Context, inputs []string) error {
			if inputs[0] == refusedText {
				return &embedder.Error{Op: "test", Input: 0, Err: fmt.Errorf("refused")}
			}
			return &embedder.Error{Op: "test", Temporary: true, Input: -1, Err: fmt.Errorf("503")}
		})
		run()
		synctest.Wait()
		newest := []stream.Change{upsert("d", "newest"), upsert("d", refusedText)}
		x.readsOnTo(1, newest...)
		time.Sleep(time.Minute)
		if n := x.box.sent.Load(); n != 1 {
			t.Fatalf("%d dead letters before reading comes to it", n)
		}
		x.tape.append(backfill("old", "history"))
		x.tape.append(newest...)
		time.Sleep(time.Minute)
		x.takes(time.Second)
		x.finish()
		if n := x.box.sent.Load(); n != 1 {
			t.Errorf("%d dead letters of one change", n)
		}
		if revs, err := x.store.Current(t.Context(), "g", []string{"d"}); err != nil || revs[0].Text != "newest" {
			t.Errorf("it is %q, want what was superseded by what is refused; %v", revs[0].Text, err)
		}
	})
}

// TestFreshnessIsMeasuredOnce: a change that was read on to was searchable then. That reading comes to it later, together with others of its document, is no news.
func TestFreshnessIsMeasuredOnce(t *testing.T) {
	history, first, second, third := backfill("old", "history"), upsert("d", "first"), upsert("d", "second"), upsert("d", "third")
	for _, tt := range []struct {
		name string
		do   func(*press)
	}{
		{"searchable before reading comes to it", func(x *press) {
			x.readsOnTo(1, first)
			x.stored("d", "first")
			x.takes(10 * time.Second)
			x.readsOnTo(2, second)
			time.Sleep(time.Second) // it is with the model
			x.tape.append(history, first, second, third)
		}},
		{"given up for what is newer", func(x *press) {
			x.model.do(func(context.Context, []string) error {
				return &embedder.Error{Op: "test", Temporary: true, Input: -1, Err: fmt.Errorf("503")}
			})
			x.readsOnTo(1, first)
			time.Sleep(time.Second)
			x.tape.append(history, first, second)
			time.Sleep(time.Minute)
			x.takes(time.Second)
		}},
		{"waiting when reading comes to it", func(x *press) {
			x.takes(10 * time.Second)
			x.readsOnTo(1, first)
			time.Sleep(time.Second)
			x.readsOnTo(2, second)
			x.tape.append(history, first, second)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x, run := newPress(t, embedder.BatchConfig{Concurrency: 1, MaxInputs: 1}, chunker.Whole)
				measured := map[stream.Position]int{}
				x.applied = func(tasks []*task) {
					for _, t := range tasks {
						for _, c := range t.covers {
							if t.revision != nil {
								measured[c.at]++
							}
						}
					}
				}
				run()
				synctest.Wait()
				tt.do(x)
				x.finish()
				for at := range x.tape.changes {
					if n := measured[stream.Position{Offset: int64(at)}]; n != 1 {
						t.Errorf("the change at %d was measured %d times", at, n)
					}
				}
			})
		})
	}
}

// readsOnTo hands changes to the pipeline as if they had been read on to, the first of them at an offset.
func (x *press) readsOnTo(offset int64, changes ...stream.Change) {
	for i, c := range changes {
		c.Position = stream.Position{Offset: offset + int64(i)}
		c.Version, c.Time, c.Raw = stream.Version(0, c.Position.Offset), time.Now(), &stream.Raw{}
		x.enqueue(&c, true)
	}
}

// TestAFloodOfEditsBehindABacklogIsBounded: reading on stops where what it brings is too much.
func TestAFloodOfEditsBehindABacklogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 2, MaxInputs: 10}, chunker.Whole)
		x.limit = 4 << 20
		for i := range 10_000 {
			x.tape.append(backfill(fmt.Sprint("old", i), fmt.Sprint("history ", i)))
		}
		for i := range 5000 {
			x.tape.append(upsert(fmt.Sprint("new", i%2000), fmt.Sprint("edit ", i)))
		}
		run()
		x.takes(time.Hour)
		time.Sleep(time.Minute)
		for range 5 {
			x.mu.Lock()
			if flying := x.inFlight; x.beyond == 0 || flying > x.limit+x.aheadBytes()+100_000 {
				t.Errorf("%d bytes are in flight, of them %d that were read on to; the limit is %d", flying, x.beyond, x.limit)
			}
			x.mu.Unlock()
			time.Sleep(time.Minute)
		}
		x.takes(10 * time.Millisecond)
		x.finish()
	})
}

// TestUnderABacklogOnlyTheNewestIsEmbedded: what waits for the model is superseded where it waits, and is no goroutine yet.
func TestUnderABacklogOnlyTheNewestIsEmbedded(t *testing.T) {
	const documents, changes = 100, 20_000
	for _, live := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			requests := embedder.BatchConfig{Concurrency: 2, MaxInputs: 10}
			x, run := newPress(t, requests, chunker.Whole)
			x.alive.Store(live)
			for i := range changes {
				x.tape.append(upsert(fmt.Sprint("d", i%documents), fmt.Sprint("version ", i)))
			}
			window, _ := embedder.BatcherOf(x.parts.Embedder).Ahead()
			x.takes(time.Minute)
			synctest.Wait()
			before := runtime.NumGoroutine()
			run()
			time.Sleep(50 * time.Second)
			synctest.Wait()
			if n := x.counts.changes.Load(); n != changes {
				t.Fatalf("%d changes were read in 50 s", n)
			}
			// Each worker may have taken a few tasks while the window had room for one.
			if n := runtime.NumGoroutine() - before; n > window+prepareTasks*runtime.GOMAXPROCS(0)+20 {
				t.Errorf("live %v: %d goroutines, for a window of %d inputs", live, n, window)
			}
			x.takes(time.Second)
			x.finish()
			embedded := len(x.model.asked())
			if most := documents + window + prepareTasks*runtime.GOMAXPROCS(0); embedded > most || embedded < documents {
				t.Errorf("live %v: %d changes of %d documents were embedded, want at most %d", live, embedded, documents, most)
			}
			if n := x.counts.superseded.Load(); n != changes-int64(embedded) {
				t.Errorf("live %v: %d superseded and %d embedded of %d", live, n, embedded, changes)
			}
		})
	}
}

// TestReadingPausesAndGoesOn: too much in flight pauses the log, which is polled all the same, and what is in flight then is what the bound says.
func TestReadingPausesAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const changes = 10_000
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 2, MaxInputs: 50}, chunker.Whole)
		x.limit = 2 << 20
		for i := range changes {
			x.tape.append(upsert(fmt.Sprint("d", i%4000), strings.Repeat(fmt.Sprint("version ", i, " "), 20)))
		}
		one := cost(&x.tape.changes[changes-1])
		x.takes(time.Hour)
		run()
		time.Sleep(time.Minute)
		for range 10 {
			x.mu.Lock()
			flying := x.inFlight
			x.mu.Unlock()
			if flying < x.readable() || flying > x.limit+tapeReads*one {
				t.Errorf("%d bytes are in flight, the bound is %d", flying, x.limit)
			}
			x.tape.mu.Lock()
			polls, read := x.tape.polls, x.tape.read
			x.tape.mu.Unlock()
			time.Sleep(time.Minute)
			x.tape.mu.Lock()
			if x.tape.read != read || !x.tape.paused {
				t.Errorf("it read on: %d changes, and then %d", read, x.tape.read)
			}
			if x.tape.polls < polls+60 {
				t.Errorf("in a minute of standing still the log was polled %d times", x.tape.polls-polls)
			}
			x.tape.mu.Unlock()
		}
		x.takes(time.Second)
		x.finish()
		if x.tape.pauses < 2 {
			t.Errorf("it paused %d times", x.tape.pauses)
		}
	})
}

// TestALargeDocumentLeavesTheWindowToOthers has one of thousands of chunks before small ones, of which the model takes a few a second.
func TestALargeDocumentLeavesTheWindowToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 2, MaxInputs: 10}, chunker.Token)
		var large strings.Builder
		for i := range 20_000 {
			fmt.Fprintf(&large, "word%d ", i)
		}
		x.tape.append(upsert("large", large.String()))
		for i := range 50 {
			x.tape.append(upsert(fmt.Sprint("small", i), fmt.Sprint("text ", i)))
		}
		run()
		if took := x.stored("small49", "text 49"); took > time.Minute {
			t.Errorf("the last small one took %v", took)
		}
		if took := x.stored("large", large.String()); took < 2*time.Minute {
			t.Errorf("the large one was there %v after them: it is too small to be in anybody's way", took)
		}
		x.finish()
	})
}

// TestAnOutageEndsWithTheNewest: changes of a document that go on while the model is away end with the newest one, and nothing is left behind.
func TestAnOutageEndsWithTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 2, MaxInputs: 10}, chunker.Whole)
		away := atomic.Bool{}
		away.Store(true)
		x.model.do(func(ctx context.Context, _ []string) error {
			if away.Load() {
				return &embedder.Error{Op: "test", Temporary: true, Input: -1, Err: fmt.Errorf("503")}
			}
			return sleep(ctx, time.Second)
		})
		run()
		for i := range 600 {
			x.tape.append(upsert(fmt.Sprint("d", i%7), fmt.Sprint("version ", i)))
			if i%5 == 0 {
				x.tape.append(remove(fmt.Sprint("d", i%3)))
			}
			time.Sleep(time.Second)
		}
		if n := len(x.model.asked()); n != 0 {
			t.Fatalf("%d inputs were embedded while it was away", n)
		}
		away.Store(false)
		x.finish()
		if n := len(x.model.asked()); n > 14 {
			t.Errorf("%d inputs were embedded of 7 documents", n)
		}
	})
}

// TestAReplayKeepsToItsShare: the calls of a generation that is not live say whose share of the model they are to keep to; once it is live they don't.
func TestAReplayKeepsToItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, run := newPress(t, embedder.BatchConfig{}, chunker.Whole)
		x.share = embedder.NewShare(.25)
		x.alive.Store(false)
		seen := &asker{Embedder: x.model}
		x.parts.Embedder = seen
		x.tape.append(upsert("a", "while it is built"))
		run()
		x.stored("a", "while it is built")
		x.alive.Store(true)
		x.tape.append(upsert("a", "when it answers"), backfill("b", "history when it answers"))
		x.finish()
		want := []string{"while it is built: replay, shared", "when it answers: live", "history when it answers: backfill"}
		slices.Sort(want)
		slices.Sort(seen.calls)
		if !slices.Equal(seen.calls, want) {
			t.Errorf("the model was asked %q, want %q", seen.calls, want)
		}
	})
}

// asker is a model that notes for whom it is asked.
type asker struct {
	embedder.Embedder
	mu    sync.Mutex
	calls []string
}

func (a *asker) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	call := inputs[0] + ": " + embedder.LaneOf(ctx).String()
	if strings.Contains(fmt.Sprint(ctx), "embedder.Share") { // contexts print what they carry
		call += ", shared"
	}
	a.mu.Lock()
	a.calls = append(a.calls, call)
	a.mu.Unlock()
	return a.Embedder.Embed(ctx, role, inputs)
}

// TestWhatIsNotSentIsTakenBack: a version that waits in the model's requests gives way to a newer one of its document, but for one that is being sent; and a document that changes all
// the time is embedded now and then all the same.
func TestWhatIsNotSentIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 1, MaxInputs: 4}, chunker.Whole)
		x.takes(time.Minute)
		x.tape.append(upsert("sent", "first"))
		run()
		time.Sleep(time.Second)
		x.tape.append(upsert("waits", "first"), upsert("stays", "as it is"))
		time.Sleep(time.Second)
		x.mu.Lock()
		waits := x.docs["waits"].running
		x.mu.Unlock()
		if waits == nil {
			t.Fatal("it is not with the model")
		}
		x.tape.append(upsert("waits", "second"), upsert("sent", "second"))
		time.Sleep(time.Second)
		x.tape.append(upsert("waits", "third"))
		x.finish()
		got := x.model.asked()
		slices.Sort(got)
		if want := []string{"as it is", "first", "second", "third"}; !slices.Equal(got, want) {
			t.Errorf("embedded were %q, want %q", got, want)
		}
		if n := x.counts.superseded.Load(); n != 2 {
			t.Errorf("%d changes were superseded, want 2", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		x, run := newPress(t, embedder.BatchConfig{Concurrency: 1, MaxInputs: 4}, chunker.Whole)
		x.takes(10 * time.Second)
		run()
		synctest.Wait()
		x.mu.Lock()
		x.windows[fresh][needModel].bound = func() (int, int64) { return 40, 0 } // ten requests, so that who comes last is not in the next one
		x.mu.Unlock()
		for i := range 300 {
			// Others keep the model busy, so that the one that changes has to wait for each of its requests.
			for n := range 5 {
				x.tape.append(upsert(fmt.Sprint("other", 5*i+n), fmt.Sprint("other ", 5*i+n)))
			}
			x.tape.append(upsert("busy", fmt.Sprint("version ", i)))
			time.Sleep(time.Second)
		}
		times := 0
		for _, input := range x.model.asked() {
			if strings.HasPrefix(input, "version") {
				times++
			}
		}
		if times < 2 || times > 40 {
			t.Errorf("in 300 s of changes, at 10 s for a request, %d versions were embedded", times)
		}
		x.finish()
	})
}
