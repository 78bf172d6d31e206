package freshness_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/evals/freshness"
	"github.com/liverag/liverag/evals/freshness/freshnesstest"
	"github.com/liverag/liverag/stream"
)

// topic is a stream.Source of what others write to a system, read a moment later. Whoever observes must not do anything else with it.
type topic struct {
	t       *testing.T
	system  *freshnesstest.System
	changes chan stream.Change
	late    time.Duration
}

func (s *topic) Next(ctx context.Context) (stream.Batch, error) {
	select {
	case c, more := <-s.changes:
		if !more {
			return stream.Batch{}, io.EOF
		}
		time.Sleep(s.late)
		return stream.Batch{Changes: []stream.Change{c}}, nil
	case <-ctx.Done():
		return stream.Batch{}, ctx.Err()
	}
}

func (s *topic) Pause(...int32)  { s.t.Error("paused") }
func (s *topic) Resume(...int32) { s.t.Error("resumed") }
func (s *topic) Commit(context.Context, ...stream.Position) error {
	s.t.Error("committed")
	return nil
}
func (s *topic) Close() error { return nil }

// write is somebody else's change.
func (s *topic) write(id, text string, more ...func(*stream.Change)) {
	c := stream.Change{Kind: stream.Upsert, ID: id, Document: &stream.Document{Text: text}, Time: time.Now()}
	for _, m := range more {
		m(&c)
	}
	var token string
	if c.Kind == stream.Delete {
		c.Document = nil
		token, _ = s.system.Delete(s.t.Context(), id)
	} else {
		token, _ = s.system.Put(s.t.Context(), id, c.Document)
	}
	c.Version, _ = strconv.ParseInt(token, 10, 64)
	s.changes <- c
}

func deleted(c *stream.Change) { c.Kind = stream.Delete }

func observe(t *testing.T, s *freshnesstest.System, life func(*topic)) (*freshness.Figures, *freshness.Seen, error) {
	src := &topic{t: t, system: s, changes: make(chan stream.Change, 1000), late: 5 * time.Millisecond}
	for i := range 20 {
		_, _ = s.Put(t.Context(), fmt.Sprintf("old%d", i), &stream.Document{Text: fmt.Sprintf("An old document of the number %d.\n\nIt was there before.", i)})
	}
	time.Sleep(5 * time.Second)
	before := len(s.Writes())
	lived := make(chan struct{})
	go func() { defer close(lived); life(src) }()
	defer func() { <-lived }()
	f, seen, err := freshness.Observe(t.Context(), freshness.ObserveConfig{Server: s, Source: src, Duration: 20 * time.Second, Patience: 10 * time.Second, Samples: 10})
	if others := len(s.Writes()) - before; f != nil && others != f.Changes+seen.Unseeable {
		t.Errorf("%d writes, of which others made %d", others, f.Changes+seen.Unseeable)
	}
	return f, seen, err
}

// ordinary is what happens to documents: they are written, changed and deleted, some several times in a moment.
func ordinary(src *topic) {
	for i := range 60 {
		id := fmt.Sprintf("old%d", i%20)
		src.write(id, fmt.Sprintf("A document of the number %d has changed.\n\nIt has the word unique%dunique now.", i%20, i))
		if i%10 == 3 {
			src.write(id, fmt.Sprintf("A document of the number %d has changed at once again, to words%dwords.", i%20, i))
		}
		if i%10 == 7 {
			time.Sleep(100 * time.Millisecond)
			src.write(id, "", deleted)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func TestObserve(t *testing.T) {
	type rises struct{ ghosts, outdated, mixed, never, slow bool }
	for _, tt := range []struct {
		name   string
		system *freshnesstest.System
		want   rises
	}{
		{"none", &freshnesstest.System{Delay: 40 * time.Millisecond}, rises{}},
		{"none, at once", &freshnesstest.System{}, rises{}},
		{"none, but slow", &freshnesstest.System{Delay: 2 * time.Second}, rises{slow: true}},
		{"stale", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Stale}, rises{outdated: true, never: true}},
		{"ghosts", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Ghost}, rises{ghosts: true, outdated: true, never: true}},
		{"mixed versions", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Mixed}, rises{mixed: true, outdated: true}},
		{"never", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Never, Every: 92}, rises{never: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, seen, err := observe(t, tt.system, ordinary)
				if err != nil {
					t.Fatal(err)
				}
				got := rises{f.Ghosts > 0, f.Outdated > 0, f.Mixed > 0, f.Never > 0, f.Searchable.P99 > time.Second}
				if got != tt.want {
					t.Errorf("got  %+v\nwant %+v\n%s", got, tt.want, summary(f))
				}
				if seen.Changes != 72 || seen.Watched < 60 || seen.Reading.P50 != 5*time.Millisecond {
					t.Errorf("%+v", seen)
				}
				if tt.system.Fault == "" && (f.Searchable.P50 < tt.system.Delay || f.Searchable.P50 > tt.system.Delay*7/6+20*time.Millisecond || tt.system.Delay > 0 && f.Felt.Found == 0 || f.Deletes.Count == 0) {
					t.Errorf("a change takes %s: %s", tt.system.Delay, summary(f))
				}
			})
		})
	}
}

func TestObserveLeavesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, seen, err := observe(t, &freshnesstest.System{}, func(src *topic) {
			src.write("a", "Words of a.")
			src.write("b", "Words of b.", func(c *stream.Change) { c.Document.ACL = []string{"x"} })
			src.write("c", "Words of c.", func(c *stream.Change) { c.Backfill = true })
			src.write("d", "Words of d.", func(c *stream.Change) { c.Time = c.Time.Add(time.Hour) })
		})
		if err != nil || seen.Changes != 4 || seen.Watched != 2 || seen.Unseeable != 1 || seen.Imported != 1 || seen.Early != 1 || seen.Skew < 59*time.Minute || f.Never > 0 {
			t.Errorf("%+v %v", seen, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, _, err := observe(t, &freshnesstest.System{Fault: freshnesstest.Broken}, ordinary)
		if !errors.Is(err, freshnesstest.ErrBroken) {
			t.Errorf("%v", err)
		}
	})
}
