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

func (l *tape) Open(context.Context, stream.From) (stream.Source, error) { return l, nil }
func (l *tape) Ends(context.Context) ([]stream.End, error)               { return nil, nil }
func (l *tape) Commit(context.Context, ...stream.Position) error         { return nil }
func (l *tape) Close() error                                             { return nil }

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
		progress: newProgress(), counts: new(counts), trouble: new(atomic.Pointer[Trouble]),
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
	x.model.do(func(ctx context.Context, _ []string) error { return sleep(ctx, d) })
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
		newest[c.Key()] = c.Version
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
			// One that goes into a request at the very moment that it is recalled is paid for, and superseded all the same.
			if n := x.counts.superseded.Load(); n < changes-int64(embedded) || n > changes-documents {
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
