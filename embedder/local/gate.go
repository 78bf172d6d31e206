package local

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/liverag/liverag/embedder"
)

// urgency is who goes first; lower is more urgent.
type urgency int

// urgencyOf puts the Live lane before the Replay lane, and that before the Backfill lane; on each lane questions go before documents.
func urgencyOf(role embedder.Role, lane embedder.Lane) urgency {
	u := 2 * urgency(min(lane, embedder.Backfill))
	if role != embedder.Query {
		u++
	}
	return u
}

const urgencies = 6

// gate shares out the processors: so many may be inside at once, and the most urgent of those who wait goes in next; among equals, who came first.
type gate struct {
	slots func() int

	mu      sync.Mutex
	inside  int
	waiting [urgencies][]*turn
	// first is the least urgency that waits, or urgencies if nobody does: whoever is inside looks at it often.
	first atomic.Int32
}

// turn is one's stay inside.
type turn struct {
	gate    *gate
	ctx     context.Context
	urgency urgency
	called  chan struct{} // gets a value when it is this turn's time
	inside  bool
}

func newGate(slots func() int) *gate {
	g := &gate{slots: slots}
	g.first.Store(urgencies)
	return g
}

// enter waits until there is room. The turn must leave, unless there is an error: then ctx has ended.
func (g *gate) enter(ctx context.Context, u urgency) (*turn, error) {
	t := &turn{gate: g, ctx: ctx, urgency: u, called: make(chan struct{}, 1)}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	slots := g.slots()
	g.mu.Lock()
	if g.inside < slots {
		g.inside++
		t.inside = true
		g.mu.Unlock()
		return t, nil
	}
	g.waiting[u] = append(g.waiting[u], t)
	g.look()
	g.mu.Unlock()
	return t, t.wait()
}

// pass lets those in who are more urgent, and the program's other goroutines run. Its error is that ctx has ended.
func (t *turn) pass() error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	g := t.gate
	if g.first.Load() >= int32(t.urgency) {
		runtime.Gosched()
		return nil
	}
	g.mu.Lock()
	if g.first.Load() >= int32(t.urgency) {
		g.mu.Unlock()
		return nil
	}
	g.call()
	t.inside = false
	g.waiting[t.urgency] = slices.Insert(g.waiting[t.urgency], 0, t)
	g.look()
	g.mu.Unlock()
	return t.wait()
}

// leave makes room, if the turn is inside.
func (t *turn) leave() {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.inside {
		t.inside = false
		g.call()
	}
}

func (t *turn) wait() error {
	select {
	case <-t.called:
		return nil
	case <-t.ctx.Done():
	}
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.inside { // called at the same moment
		t.inside = false
		g.call()
		return t.ctx.Err()
	}
	g.waiting[t.urgency] = slices.DeleteFunc(g.waiting[t.urgency], func(other *turn) bool { return other == t })
	g.look()
	return t.ctx.Err()
}

// call gives a place that has become free to the first who waits. It needs mu.
func (g *gate) call() {
	first := g.first.Load()
	if first == urgencies {
		g.inside--
		return
	}
	t := g.waiting[first][0]
	g.waiting[first] = slices.Delete(g.waiting[first], 0, 1)
	g.look()
	t.inside = true
	t.called <- struct{}{}
}

// look brings first up to date. It needs mu.
func (g *gate) look() {
	for u := range g.waiting {
		if len(g.waiting[u]) > 0 {
			g.first.Store(int32(u))
			return
		}
	}
	g.first.Store(urgencies)
}
