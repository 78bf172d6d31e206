package indexer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// What the simulation found, each by itself.

// stubLog is a log that does what its functions say.
type stubLog struct {
	stream.Log
	stream.Source
	next   func(ctx context.Context) stream.Batch // nil: nothing happens
	commit func(next []stream.Position)
}

func (l *stubLog) Open(context.Context, stream.From) (stream.Source, error) { return l, nil }
func (l *stubLog) Close() error                                             { return nil }
func (l *stubLog) Next(ctx context.Context) (stream.Batch, error) {
	if l.next != nil {
		return l.next(ctx), nil
	}
	<-ctx.Done()
	return stream.Batch{}, ctx.Err()
}
func (l *stubLog) Commit(_ context.Context, next ...stream.Position) error {
	l.commit(next)
	return nil
}

func quietLogger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// TestACommitOvertakesNoOther has a slow commit under way when a partition is revoked: had the last one overtaken it, the slow one would have rewound the offset.
func TestACommitOvertakesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stored []int64
		log := &stubLog{commit: func(next []stream.Position) {
			if len(stored) == 0 && next[0].Offset == 0 {
				time.Sleep(time.Second)
			}
			stored = append(stored, next[0].Offset)
		}}
		p := &pipeline{progress: newProgress(), committing: newBaton(), logger: quietLogger()}
		p.progress.assign(at(1, 0))
		done := make(chan bool)
		go func() { done <- p.commitNow(t.Context(), log) }()
		synctest.Wait()
		p.progress.deliver(at(1, 0))
		p.progress.finish([]stream.Position{at(1, 0)}, nil)
		p.commitNow(t.Context(), log, 1)
		<-done
		if fmt.Sprint(stored) != "[0 1]" {
			t.Errorf("committed were %v, in this order", stored)
		}
	})
}

// TestAStandbyHasNoTrouble begins a member that gets no partition of its group, after an attempt that failed.
func TestAStandbyHasNoTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var trouble atomic.Pointer[Trouble]
		trouble.Store(&Trouble{Since: time.Now(), Detail: "opening fails, trying again"})
		p := &pipeline{group: "group", log: &stubLog{}, live: func() bool { return true }, progress: newProgress(), logger: quietLogger(), trouble: &trouble}
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(time.Minute)
		if now := trouble.Load(); now != nil {
			t.Errorf("a minute later it still says %q", now.Detail)
		}
		cancel()
		<-done
	})
}

// stubRegister does not answer before ctx ends.
type stubRegister struct{ stream.Register }

func (stubRegister) Load(ctx context.Context) (int64, []byte, error) {
	<-ctx.Done()
	return 0, nil, ctx.Err()
}

// TestStoppingIsNoFailure stops an indexer that is still asking which generations there are.
func TestStoppingIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		x := New(Config{Register: stubRegister{}, Logger: quietLogger()})
		done := make(chan error)
		go func() { done <- x.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}

// TestACheckpointFollowsWhatWasWrittenApart has a batch written one by one, which saves no checkpoint: the next tick has to.
func TestACheckpointFollowsWhatWasWrittenApart(t *testing.T) {
	b := newBed(t)
	b.store.failWith(func(w vectordb.Write) error {
		for _, r := range w.Revisions {
			if strings.Contains(r.Text, "unstorable") {
				return fmt.Errorf("%w: bad spans", vectordb.ErrInvalid)
			}
		}
		return nil
	})
	b.settle(upsert("bad", "unstorable"))
	info, _ := b.indexer.Info(Live)
	ends, err := b.log.Ends(b.ctx())
	if err != nil {
		t.Fatal(err)
	}
	b.eventually("saved", func() bool {
		saved, err := b.store.Checkpoint(b.ctx(), info.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, end := range ends {
			if saved[end.Partition] != end.Offset {
				return false
			}
		}
		return true
	})
}

// TestAsOfNeedsEveryPartition knows of one partition what this process wrote there, before it has asked the group for the others.
func TestAsOfNeedsEveryPartition(t *testing.T) {
	g := newGeneration(New(Config{}), Spec{Horizon: map[int32]int64{0: 0, 1: 0}})
	g.reach(map[int32]int64{0: 5}, nil, nil)
	now := time.Now()
	ends := []stream.End{{Partition: 0, Offset: 5, At: now}, {Partition: 1, Offset: 3, At: now}}
	g.progress.observe(ends...)
	if asOf, _ := g.progress.lag(); !asOf.IsZero() || g.progress.caughtUp() {
		t.Errorf("with one of two partitions known, it is as of %v and caught up: %v", asOf, g.progress.caughtUp())
	}
	g.progress.reach(map[int32]int64{0: 5, 1: 3})
	g.progress.observe(ends[0], stream.End{Partition: 1, Offset: 3, At: now.Add(1)})
	if asOf, _ := g.progress.lag(); !asOf.Equal(now) || !g.progress.caughtUp() {
		t.Errorf("with both known, it is as of %v and caught up: %v", asOf, g.progress.caughtUp())
	}
}

// TestWhatWasLostIsNotCommittedAtTheEnd stops a process in the moment in which it hears that a partition was lost and is its own again. Others have gone on meanwhile.
func TestWhatWasLostIsNotCommittedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		log := &stubLog{commit: func(next []stream.Position) { t.Errorf("committed %v", next) }}
		log.next = func(context.Context) stream.Batch {
			if calls++; calls == 1 {
				return stream.Batch{Assigned: []stream.Position{at(0, 10)}}
			}
			cancel()
			return stream.Batch{Lost: []int32{0}, Assigned: []stream.Position{at(0, 20)}}
		}
		p := &pipeline{group: "group", log: log, live: func() bool { return true }, progress: newProgress(), logger: quietLogger(), trouble: new(atomic.Pointer[Trouble])}
		if err := p.Run(ctx); err == nil {
			t.Error("it ended without a reason")
		}
	})
}

// TestACommitCountsForItsTermsOnly has a commit ignored, because the partition belongs to somebody else, and the partition come back.
func TestACommitCountsForItsTermsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		commits := 0
		log := &stubLog{commit: func([]stream.Position) { commits++ }}
		p := &pipeline{progress: newProgress(), committing: newBaton(), logger: quietLogger(), owned: map[int32]uint64{}}
		p.own(at(0, 7))
		done := make(chan error)
		go func() { done <- p.commit(ctx, log) }()
		time.Sleep(time.Second)
		p.own(at(0, 7))
		time.Sleep(time.Second)
		cancel()
		<-done
		if commits != 2 {
			t.Errorf("%d commits, want one for each time that the partition was its own", commits)
		}
	})
}

// TestTroubleEndsWhenTheStoreAnswers has a write fail for a while, and then be refused for what is in it.
func TestTroubleEndsWhenTheStoreAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pipeline{logger: quietLogger(), trouble: new(atomic.Pointer[Trouble])}
		times := 0
		err := p.persist(t.Context(), "write to the store", func() error {
			if times++; times < 3 {
				return errors.New("timed out")
			}
			return vectordb.ErrInvalid
		})
		if now := p.trouble.Load(); !errors.Is(err, vectordb.ErrInvalid) || now != nil {
			t.Errorf("%v; the trouble is over, and it says %v", err, now)
		}
	})
}

// changedLog is one that was made again under its name; its group had come far in the one before.
type changedLog struct {
	stream.Log
	stream.Groups
}

func (changedLog) Ends(context.Context) ([]stream.End, error) {
	return []stream.End{{Partition: 0, Offset: 3, At: time.Now()}}, nil
}
func (changedLog) Identity(context.Context) (stream.Identity, error) {
	return stream.Identity{Topic: "documents", ID: "second", Partitions: 1}, nil
}
func (changedLog) Committed(context.Context, string) (map[int32]int64, error) {
	return map[int32]int64{0: 100}, nil
}

// TestEndsOfAnotherLogSayNothing asks how fresh an index of a log is that is not there any more, in a process that only answers and in one that indexes.
func TestEndsOfAnotherLogSayNothing(t *testing.T) {
	for _, observe := range []bool{true, false} {
		x := New(Config{Log: changedLog{}, Groups: changedLog{}, Shared: true, Observe: observe, Logger: quietLogger()})
		g := newGeneration(x, Spec{Generation: vectordb.Generation{Name: "g", Origin: "documents/first/1"}, Horizon: map[int32]int64{0: 0}})
		x.generations["g"], g.opened = g, true
		x.live.Store(g)
		g.reach(map[int32]int64{0: 100}, nil, nil)
		if err := x.look(t.Context(), []*generation{g}); err != nil {
			t.Fatal(err)
		}
		if _, err := x.Freshness(t.Context()); err != nil {
			t.Fatal(err)
		}
		if asOf := x.Status(Live).AsOf; !asOf.IsZero() {
			t.Errorf("observes: %v: by another log's ends it is as of %v", observe, asOf)
		}
		if _, err := g.usable(); (err != nil) != observe || observe && !strings.Contains(err.Error(), "replay into a new generation") {
			t.Errorf("observes: %v: %v", observe, err)
		}
	}
}

// memoryRegister is a register in memory that nobody else writes.
type memoryRegister struct {
	stream.Register
	value atomic.Pointer[[]byte]
}

func (r *memoryRegister) Load(context.Context) (int64, []byte, error) {
	if value := r.value.Load(); value != nil {
		return 1, *value, nil
	}
	return 0, nil, nil
}
func (r *memoryRegister) Wait(ctx context.Context, _ int64) (int64, []byte, error) {
	<-ctx.Done()
	return 0, nil, ctx.Err()
}

// TestNothingStartsAfterTheEnd asks an indexer that has stopped for something that would start a pipeline.
func TestNothingStartsAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		register := &memoryRegister{}
		value := []byte(`{"format":1,"live":"","generations":{}}`)
		register.value.Store(&value)
		x := New(Config{Register: register, Logger: quietLogger(), Build: func(context.Context, vectordb.Recipe, int) (Parts, error) {
			<-ctx.Done()
			return Parts{}, ctx.Err()
		}})
		done := make(chan error)
		go func() { done <- x.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		c := control{Live: "g", Generations: map[string]Spec{"g": {Generation: vectordb.Generation{Name: "g"}, Desired: Run}}}
		if err := x.follow(t.Context(), 2, c); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end it followed: %v", err)
		}
	})
}
