package indexer

import (
	"context"
	"sync"
)

// gate shares the processor's cores between generations: whoever indexes for the live one goes first, so that a
// replay that could use every core costs the live index next to nothing.
type gate struct {
	mu    sync.Mutex
	free  int
	queue [2][]chan struct{} // live, then replay
}

func newGate(n int) *gate { return &gate{free: n} }

// enter blocks until a core is free. leave must follow a nil error.
func (g *gate) enter(ctx context.Context, live bool) error {
	g.mu.Lock()
	if g.free > 0 {
		g.free--
		g.mu.Unlock()
		return nil
	}
	lane := 1
	if live {
		lane = 0
	}
	turn := make(chan struct{})
	g.queue[lane] = append(g.queue[lane], turn)
	g.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	for i, other := range g.queue[lane] {
		if other == turn {
			g.queue[lane] = append(g.queue[lane][:i], g.queue[lane][i+1:]...)
			g.mu.Unlock()
			return ctx.Err()
		}
	}
	g.mu.Unlock()
	g.leave() // the turn came in the same moment
	return ctx.Err()
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for lane := range g.queue {
		if len(g.queue[lane]) > 0 {
			close(g.queue[lane][0])
			g.queue[lane] = g.queue[lane][1:]
			return
		}
	}
	g.free++
}
