package indexer

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

func at(partition int32, offset int64) stream.Position {
	return stream.Position{Partition: partition, Offset: offset}
}

// TestProgressCommitsOnlyTheFinishedPrefix finishes changes in random order, and compares with counting by hand.
func TestProgressCommitsOnlyTheFinishedPrefix(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		p := newProgress()
		p.assign(at(0, 5))
		done := map[int64]bool{}
		var offsets []int64
		next := int64(5)
		for range 40 {
			next += int64(rng.IntN(3)) // gaps
			if !p.deliver(at(0, next)) {
				t.Fatalf("seed %d: offset %d was refused", seed, next)
			}
			if p.deliver(at(0, next)) {
				t.Fatalf("seed %d: offset %d was delivered twice", seed, next)
			}
			offsets = append(offsets, next)
			next++
		}
		rng.Shuffle(len(offsets), func(i, j int) { offsets[i], offsets[j] = offsets[j], offsets[i] })
		for len(offsets) > 0 {
			n := min(len(offsets), 1+rng.IntN(5))
			var batch []stream.Position
			for _, o := range offsets[:n] {
				batch = append(batch, at(0, o))
				done[o] = true
			}
			rest := offsets[n:]
			want := next
			for _, o := range rest {
				want = min(want, o)
			}
			if got := p.begin(batch)[0]; got != want {
				t.Fatalf("seed %d: checkpoint %d while %v are open, want %d", seed, got, rest, want)
			}
			if before := p.committable()[0]; before > want {
				t.Fatalf("seed %d: %d was applied before the write was done", seed, before)
			}
			p.finish(batch, nil)
			if got := p.committable()[0]; got != want {
				t.Fatalf("seed %d: applied %d while %v are open, want %d", seed, got, rest, want)
			}
			for o := range done {
				if !p.isSearchable(at(0, o)) {
					t.Fatalf("seed %d: offset %d is done and does not count as searchable", seed, o)
				}
			}
			for _, o := range rest {
				if p.isSearchable(at(0, o)) {
					t.Fatalf("seed %d: offset %d counts as searchable and is not done", seed, o)
				}
			}
			offsets = rest
		}
	}
}

func TestAsOfIsWhenTheReachedEndWasObserved(t *testing.T) {
	p := newProgress()
	p.assign(at(0, 0))
	p.assign(at(1, 0))
	start := time.Unix(1000, 0)
	see := func(partition int32, end int64, second int) {
		p.observe(stream.End{Partition: partition, Offset: end, At: start.Add(time.Duration(second) * time.Second)})
	}
	want := func(second int) {
		t.Helper()
		if got, _ := p.lag(); second < 0 && !got.IsZero() || second >= 0 && !got.Equal(start.Add(time.Duration(second)*time.Second)) {
			t.Errorf("as of %v, want second %d", got.Sub(start), second)
		}
	}
	see(0, 0, 1)
	want(-1) // nothing is known of the other partition
	see(1, 0, 2)
	want(1)
	see(0, 0, 3)
	want(2) // the smallest of the partitions
	see(1, 2, 4)
	see(1, 5, 5)
	see(0, 0, 6)
	want(2)
	p.deliver(at(1, 0))
	p.deliver(at(1, 1))
	p.finish([]stream.Position{at(1, 0)}, nil)
	want(2)
	p.finish([]stream.Position{at(1, 1)}, nil)
	want(4) // the end seen in second 4 is reached, the one of second 5 is not
	p.fetch(at(1, 5))
	want(5) // what was left were gaps
	see(1, 5, 4)
	want(5) // a late answer takes nothing back
}

func TestWaitsEndWhenTheirChangeIsSearchable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProgress()
		p.assign(at(0, 0))
		for o := range int64(3) {
			p.deliver(at(0, o))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		exact, prefix := make(chan error, 1), make(chan error, 1)
		go func() { exact <- p.waitExact(ctx, []stream.Position{at(0, 2)}) }()
		go func() { prefix <- p.waitApplied(ctx, []stream.Position{at(0, 2)}) }()
		synctest.Wait()
		p.finish([]stream.Position{at(0, 2)}, nil)
		synctest.Wait()
		if err := <-exact; err != nil {
			t.Errorf("waiting for the change alone: %v", err)
		}
		select {
		case <-prefix:
			t.Fatal("waiting for everything up to the change ended while others below it are open")
		default:
		}
		p.finish([]stream.Position{at(0, 0), at(0, 1)}, nil)
		if err := <-prefix; err != nil {
			t.Errorf("waiting for everything: %v", err)
		}
		late := time.Now()
		if err := p.waitExact(ctx, []stream.Position{at(0, 9)}); err != context.DeadlineExceeded || time.Since(late) != time.Minute {
			t.Errorf("a change that never comes: %v after %v", err, time.Since(late))
		}
	})
}

func TestGateLetsTheLiveOneGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		ctx, cancel := context.WithCancel(t.Context())
		if err := g.enter(ctx, false); err != nil {
			t.Fatal(err)
		}
		order := make(chan string, 3)
		enter := func(name string, live bool) {
			if g.enter(t.Context(), live) == nil {
				order <- name
				g.leave()
			}
		}
		go enter("replay", false)
		synctest.Wait()
		go enter("live", true)
		synctest.Wait()
		gaveUp := make(chan error)
		go func() { gaveUp <- g.enter(ctx, true) }()
		synctest.Wait()
		cancel()
		if err := <-gaveUp; err != context.Canceled {
			t.Errorf("giving up: %v", err)
		}
		g.leave()
		synctest.Wait()
		if first, second := <-order, <-order; first != "live" || second != "replay" {
			t.Errorf("order is %s, %s", first, second)
		}
		if err := g.enter(t.Context(), true); err != nil || g.free != 0 {
			t.Errorf("the gate lost its place: %v, %d free", err, g.free)
		}
	})
}

// waiters counts who waits.
func (p *progress) waiters() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting
}

// TestReadyIsForGood: a generation that somebody was told is ready is not building again because of the next change, however short it was without one.
func TestReadyIsForGood(t *testing.T) {
	g := &generation{indexer: &Indexer{config: Config{Store: vectordb.NewMemory()}}, name: "g", progress: newProgress(), share: embedder.NewShare(1)}
	g.progress.assign(at(0, 0))
	g.progress.fetch(at(0, 3))
	g.progress.observe(stream.End{Offset: 3, At: time.Now()})
	if state := g.info().State; state != StateReady {
		t.Fatalf("at the log's end it is %s", state)
	}
	g.progress.observe(stream.End{Offset: 4, At: time.Now().Add(time.Millisecond)})
	if info := g.info(); info.State != StateReady || info.Lag != 1 {
		t.Errorf("one change later it is %s, %d behind", info.State, info.Lag)
	}
	g.progress.suspect()
	if state := g.info().State; state != StateBuilding {
		t.Errorf("with deletes missed it is %s", state)
	}
}

// TestWhatWasReadOnToIsNoProgress: a change beyond where reading is can be searchable, and moves nothing: reading comes to it, and to what is before it.
func TestWhatWasReadOnToIsNoProgress(t *testing.T) {
	p := newProgress()
	p.assign(at(0, 3))
	p.deliver(at(0, 3))
	p.observe(stream.End{Offset: 8, At: time.Now()})
	beyond := []stream.Position{at(0, 7)}
	if checkpoint := p.begin(beyond)[0]; checkpoint != 3 || p.isSearchable(beyond[0]) {
		t.Errorf("while it is written the checkpoint is %d, and whoever waits for it is told: %v", checkpoint, p.isSearchable(beyond[0]))
	}
	p.finish(beyond, nil)
	if next, more, n := p.next(), p.unread(), p.beyond(); p.committable()[0] != 3 || !p.isSearchable(beyond[0]) || p.isSearchable(at(0, 6)) || p.hasRead(beyond[0]) || next[0] != 4 || !more || n != 1 {
		t.Errorf("written, %d is applied, %d read next, %d known beyond", p.committable()[0], next[0], n)
	}
	p.finish([]stream.Position{at(0, 3)}, nil)
	if !p.deliver(beyond[0]) || p.committable()[0] != 4 {
		t.Errorf("when reading comes to it %d is applied", p.committable()[0])
	}
	p.finish(beyond, nil)
	if more, n := p.unread(), p.beyond(); p.committable()[0] != 8 || more || n != 0 || !p.caughtUp() {
		t.Errorf("at the end %d is applied, and %d are known beyond", p.committable()[0], n)
	}
}

// TestEveryRefusalBeyondReadingIsRemembered: however many there are of them, reading knows each when it comes to it. Of what it is past only the newest are remembered.
func TestEveryRefusalBeyondReadingIsRemembered(t *testing.T) {
	const refused = 3 * rejectedKept
	p := newProgress()
	p.assign(at(0, 0))
	for offset := range int64(refused) {
		beyond := []stream.Position{at(0, 10+offset)}
		p.finish(beyond, beyond)
	}
	p.fetch(at(0, 10))
	for offset := range int64(refused) {
		position := at(0, 10+offset)
		if !p.refused(position) || p.waitExact(t.Context(), []stream.Position{position}) != ErrRejected {
			t.Fatalf("the refusal of %d is forgotten before reading has come past it", position.Offset)
		}
		p.deliver(position)
		p.finish([]stream.Position{position}, nil)
	}
	if n := p.beyond(); n != 0 {
		t.Errorf("%d are known beyond", n)
	}
}

// TestWhatIsSearchableStaysSo: that reading comes to a change, and that it is part of another write, or of one that fails, takes nothing back.
func TestWhatIsSearchableStaysSo(t *testing.T) {
	p := newProgress()
	p.assign(at(0, 0))
	p.deliver(at(0, 0))
	p.deliver(at(0, 1))
	both := []stream.Position{at(0, 1)}
	p.finish(both, nil) // it was read on to before
	for _, step := range []struct {
		name string
		do   func()
	}{{"written again", func() { p.begin(both) }}, {"in a write that fails", func() { p.retract(both) }}} {
		if step.do(); !p.isSearchable(both[0]) {
			t.Errorf("%s, it is not searchable any more", step.name)
		}
	}
}
