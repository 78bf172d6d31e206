package local

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/liverag/liverag/embedder"
)

// countingContext ends after Err was asked that often.
type countingContext struct {
	context.Context
	mu   sync.Mutex
	left int
	n    int
}

func (c *countingContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	if c.n > c.left {
		return context.Canceled
	}
	return nil
}

func (c *countingContext) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func TestUrgency(t *testing.T) {
	order := []urgency{
		urgencyOf(embedder.Query, embedder.Live), urgencyOf(embedder.Index, embedder.Live),
		urgencyOf(embedder.Query, embedder.Replay), urgencyOf(embedder.Index, embedder.Replay),
		urgencyOf(embedder.Query, embedder.Backfill), urgencyOf(embedder.Index, embedder.Backfill),
	}
	for i, u := range order {
		if u != urgency(i) {
			t.Errorf("urgency %d of %d", u, i)
		}
	}
	if len(order) != urgencies {
		t.Errorf("%d urgencies, want %d", urgencies, len(order))
	}
}

// TestGateOrder: while one is inside, others come in any order; they go in by urgency, equals as they came, and whoever is inside is overtaken at its next pass.
func TestGateOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(func() int { return 1 })
		replay, err := g.enter(t.Context(), 3)
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []string
		note := func(s string) {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, s)
		}
		var all sync.WaitGroup
		come := func(name string, u urgency) {
			all.Go(func() {
				turn, err := g.enter(t.Context(), u)
				if err != nil {
					t.Error(err)
					return
				}
				note(name)
				if err := turn.pass(); err != nil {
					t.Error(err)
				}
				turn.leave()
			})
			synctest.Wait()
		}
		come("replay 2", 3)
		come("live 1", 1)
		come("query 1", 0)
		come("live 2", 1)
		come("query 2", 0)
		if len(order) > 0 {
			t.Fatalf("%v are inside with the first one", order)
		}
		if err := replay.pass(); err != nil {
			t.Fatal(err)
		}
		note("replay 1 again")
		replay.leave()
		all.Wait()
		if want := []string{"query 1", "query 2", "live 1", "live 2", "replay 1 again", "replay 2"}; !slices.Equal(order, want) {
			t.Errorf("order %q, want %q", order, want)
		}
		if g.inside != 0 || g.first.Load() != urgencies {
			t.Errorf("%d inside, first %d", g.inside, g.first.Load())
		}
	})
}

// TestGateGone: who gives up leaves no hole, whether it waits outside or was overtaken.
func TestGateGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(func() int { return 1 })
		ctx, cancel := context.WithCancel(t.Context())
		first, err := g.enter(ctx, 3)
		if err != nil {
			t.Fatal(err)
		}
		waits, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := g.enter(waits, 0); !errors.Is(err, context.Canceled) {
				t.Errorf("it went in: %v", err)
			}
		})
		synctest.Wait()
		stop()
		synctest.Wait()
		if g.first.Load() != urgencies {
			t.Error("one who gave up still waits")
		}

		holds := make(chan struct{})
		all.Go(func() {
			second, err := g.enter(t.Context(), 0)
			if err != nil {
				t.Error(err)
				return
			}
			<-holds
			second.leave()
		})
		synctest.Wait()
		all.Go(func() {
			if err := first.pass(); !errors.Is(err, context.Canceled) {
				t.Errorf("pass: %v", err)
			}
			first.leave()
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		if g.inside != 1 {
			t.Errorf("%d inside, want the second one", g.inside)
		}
		close(holds)
		all.Wait()
		if g.inside != 0 {
			t.Errorf("%d inside", g.inside)
		}
		if _, err := g.enter(waits, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("one who has ended went in: %v", err)
		}
	})
}
