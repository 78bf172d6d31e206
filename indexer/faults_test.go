package indexer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// refuse makes the model refuse every input with the word in it, and block on "slow" until released.
func (b *bed) refuse(word string) (release func()) {
	goOn := make(chan struct{})
	b.model.do(func(ctx context.Context, inputs []string) error {
		for i, input := range inputs {
			if strings.Contains(input, "slow") {
				select {
				case <-goOn:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if strings.Contains(input, word) {
				return &embedder.Error{Op: "test", Input: i, Err: errors.New("refused")}
			}
		}
		return nil
	})
	return func() { close(goOn) }
}

// replay makes another generation and waits until it has caught up.
func (b *bed) replay(name, strategy string) {
	b.t.Helper()
	if _, err := b.indexer.Create(b.ctx(), name, vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: strategy, Tokens: 80}}); err != nil {
		b.t.Fatal(err)
	}
	b.eventually("caught up", func() bool { i, err := b.indexer.Info(name); return err == nil && i.State == StateReady })
}

func TestAPipelineThatEndsStartsAgain(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", "old"))
	var times atomic.Int32
	b.store.failWith(func(w vectordb.Write) error {
		if len(w.Revisions) > 0 && times.Add(1) <= 2 {
			return vectordb.ErrNoGeneration
		}
		return nil
	})
	b.settle(upsert("a", "new"), upsert("b", "other"))
	if rev := b.current("a"); rev.Text != "new" || times.Load() < 3 {
		t.Errorf("after %d writes the index holds %q", times.Load(), rev.Text)
	}
	b.settle(upsert("c", "later"))
	if i, _ := b.indexer.Info(Live); i.Trouble != nil {
		t.Errorf("it works again and still shows %+v", i.Trouble)
	}
}

func TestLaterPoisonTakesNothingAway(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("deleted", "first"), upsert("hidden", "first"), upsert("edited", "first"))
	for _, id := range []string{"deleted", "hidden", "edited"} {
		release := b.refuse("poison")
		positions := b.append(upsert(id, "slow"))
		g := b.indexer.live.Load()
		switch id {
		case "deleted":
			positions = append(positions, b.append(remove(id))...)
		case "hidden":
			positions = append(positions, b.append(stream.Change{Kind: stream.Access, ID: id, ACL: []string{"ann"}})...)
		default:
			positions = append(positions, b.append(upsert(id, "second"))...)
		}
		positions = append(positions, b.append(upsert(id, "poison one"), upsert(id, "poison two"))...)
		all := b.appended
		b.eventually("read", func() bool { return g.counts.changes.Load() >= int64(all) })
		release()
		if err := b.indexer.WaitApplied(b.ctx(), Live, positions); err != nil {
			t.Fatal(err)
		}
		rev := b.current(id)
		switch id {
		case "deleted":
			if !rev.Deleted {
				t.Errorf("a delete was lost to poison that came after it: %q", rev.Text)
			}
		case "hidden":
			if !slices.Equal(rev.Readers(), []string{"ann"}) || rev.Text != "slow" {
				t.Errorf("a change of access was lost to poison that came after it: %v, %q", rev.Readers(), rev.Text)
			}
		default:
			if rev.Text != "second" {
				t.Errorf("an edit was lost to poison that came after it: %q", rev.Text)
			}
		}
	}
	letters, err := b.log.ReadDeadLetters(b.ctx(), 20)
	if err != nil || len(letters) < 3 {
		t.Errorf("%d dead letters, %v", len(letters), err)
	}
}

func TestWaitingForPoisonSaysSo(t *testing.T) {
	b := newBed(t)
	b.refuse("poison")
	if err := b.indexer.WaitSearchable(b.ctx(), b.append(upsert("a", "poison"))); !errors.Is(err, ErrRejected) {
		t.Errorf("waiting for what can't be indexed: %v", err)
	}
	if f, err := b.indexer.Freshness(b.ctx()); err != nil || f.Entered.Count != 0 {
		t.Errorf("poison counts for freshness: %+v, %v", f.Entered, err)
	}
}

func TestFreshnessCountsNothingTwice(t *testing.T) {
	b := newBed(t)
	release := b.refuse("nothing")
	b.append(upsert("held", "slow"))
	var others []stream.Position
	for i := range 30 {
		others = append(others, b.append(upsert(fmt.Sprint("other", i), "quick"))...)
	}
	if err := b.indexer.WaitSearchable(b.ctx(), others); err != nil {
		t.Fatal(err)
	}
	b.stop()
	release()
	b.start(Config{})
	if err := b.indexer.WaitApplied(b.ctx(), Live, others); err != nil {
		t.Fatal(err)
	}
	b.eventually("settled", func() bool { i, _ := b.indexer.Info(Live); return i.Lag == 0 })
	if f, err := b.indexer.Freshness(b.ctx()); err != nil || f.Entered.Count != 1 {
		t.Errorf("after a restart %d changes were counted, want only the one that became searchable: %v", f.Entered.Count, err)
	}
}

func TestOnlyWhatIsCurrentAnswers(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", "first"))
	first, _ := b.indexer.Info(Live)
	b.replay("second", chunker.Recursive)

	// One that was paused while the log went on must not answer before it has caught up again.
	if _, err := b.indexer.Set(b.ctx(), "second", Pause); err != nil {
		t.Fatal(err)
	}
	b.settle(upsert("a", "newer"))
	if _, err := b.indexer.Promote(b.ctx(), "second"); !errors.Is(err, ErrNotCaughtUp) {
		t.Errorf("promoting a paused one: %v", err)
	}
	b.store.failWith(func(vectordb.Write) error { return errors.New("disk full") })
	if _, err := b.indexer.Set(b.ctx(), "second", Run); err != nil {
		t.Fatal(err)
	}
	if _, err := b.indexer.Promote(b.ctx(), "second"); !errors.Is(err, ErrNotCaughtUp) {
		t.Errorf("promoting one that was behind: %v", err)
	}
	b.store.failWith(nil)
	b.eventually("promoted", func() bool { _, err := b.indexer.Promote(b.ctx(), "second"); return err == nil })
	if rev := b.current("a"); rev.Text != "newer" {
		t.Errorf("after the promote the document is %q", rev.Text)
	}

	// What was stopped does not come back by rolling back.
	if _, err := b.indexer.Set(b.ctx(), first.Name, Cancel); err != nil {
		t.Fatal(err)
	}
	if _, err := b.indexer.Rollback(b.ctx()); !errors.Is(err, ErrNotCaughtUp) {
		t.Errorf("rolling back to a cancelled one: %v", err)
	}
	if info, _ := b.indexer.Info(Live); info.Name != "second" {
		t.Errorf("live is %s", info.Name)
	}
}

func TestWaitersAreWoken(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", "first"))
	first, _ := b.indexer.Info(Live)
	b.replay("second", chunker.Recursive)
	dropped, moved := make(chan error, 1), make(chan error, 1)
	never := []stream.Position{at(0, 1<<40)}
	go func() { dropped <- b.indexer.WaitApplied(b.ctx(), "second", never) }()
	b.eventually("waiting", func() bool { return b.indexer.lookup("second").progress.waiters() > 0 })
	begun := time.Now()
	if err := b.indexer.Drop(b.ctx(), "second"); err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err == nil || errors.Is(err, context.DeadlineExceeded) || time.Since(begun) > 10*time.Second {
		t.Errorf("whoever waited for the dropped one got %v after %v", err, time.Since(begun))
	}

	// Whoever waits for the live one is told by whichever that is.
	b.replay("third", chunker.Token)
	b.store.failWith(func(w vectordb.Write) error {
		for _, r := range w.Revisions {
			for _, e := range r.Entries {
				if e.Tokens > 30 && len(r.Entries) > 1 { // as the first recipe cuts it
					return errors.New("not this one")
				}
			}
		}
		return nil
	})
	long := strings.Repeat("some words in a text ", 14)
	positions := b.append(upsert("b", long))
	go func() { moved <- b.indexer.WaitSearchable(b.ctx(), positions) }()
	b.eventually("indexed by the third", func() bool { return b.current("b", "third").Version > 0 })
	if _, err := b.indexer.Promote(b.ctx(), "third"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.indexer.Set(b.ctx(), first.Name, Pause); err != nil {
		t.Fatal(err)
	}
	if err := <-moved; err != nil {
		t.Errorf("after the alias moved, waiting ended with %v", err)
	}
}

func TestOpeningIsTriedAgain(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", "text"))
	var room atomic.Bool
	b.store.failCreate(func() error {
		if !room.Load() {
			return errors.New("no space left on device")
		}
		return nil
	})
	if _, err := b.indexer.Create(b.ctx(), "second", vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Recursive, Tokens: 80}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.indexer.Lookup("second"); !errors.Is(err, ErrUnusable) {
		t.Errorf("before it could be opened: %v", err)
	}
	room.Store(true)
	b.eventually("opened and caught up", func() bool { i, err := b.indexer.Info("second"); return err == nil && i.State == StateReady })
	if rev := b.current("a", "second"); rev.Text != "text" {
		t.Errorf("it holds %q", rev.Text)
	}
}

func TestWhatWasDroppedElsewhereIsDroppedHere(t *testing.T) {
	b := newBed(t)
	b.stop()
	if err := b.store.Create(b.ctx(), vectordb.Generation{Name: "left_over", Fingerprint: "f", Dim: 8, Origin: "o"}); err != nil {
		t.Fatal(err)
	}
	b.start(Config{})
	b.eventually("gone", func() bool {
		stored, err := b.store.List(b.ctx())
		return err == nil && len(stored) == 1 && stored[0].Name != "left_over"
	})
}

func TestTwoProcessesMakeOneFirstGeneration(t *testing.T) {
	b := newBed(t)
	b.stop()
	one, _ := b.another(Config{})
	two, _ := b.another(Config{})
	if a, c := one.List(), two.List(); len(a) != 1 || len(c) != 1 || a[0].Name != c[0].Name {
		t.Errorf("there are %+v and %+v", a, c)
	}
	// The race itself: both find the log empty and ask for a first generation.
	if _, err := two.create(b.ctx(), Replay{Recipe: vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Markdown, Tokens: 40}}}, true); err != nil {
		t.Fatal(err)
	}
	if list := two.List(); len(list) != 1 {
		t.Errorf("asking for the first one again made another: %+v", list)
	}
}
