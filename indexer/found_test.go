package indexer

import (
	"context"
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
	commit func(next []stream.Position)
}

func (l *stubLog) Open(context.Context, stream.From) (stream.Source, error) { return l, nil }
func (l *stubLog) Close() error                                             { return nil }
func (l *stubLog) Next(ctx context.Context) (stream.Batch, error) {
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
		p := &pipeline{group: "group", log: &stubLog{}, progress: newProgress(), logger: quietLogger(), trouble: &trouble}
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
