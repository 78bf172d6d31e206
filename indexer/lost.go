package indexer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// errLost: somebody else removed the generation from the shared store.
var errLost = errors.New("the shared store does not hold the generation any more; it is built again from the log")

// lostEvery is how often a process that indexes looks whether the shared store still holds a generation, also while nothing changes.
const lostEvery = 5 * time.Second

// lost tells whether the shared store once held the generation and does not any more. Made anew it would be empty, and its group would go on behind all that is missing.
func (g *generation) lost(ctx context.Context) (bool, error) {
	x := g.indexer
	if !x.config.Shared {
		return false, nil // the positions are in the store, and go with it
	}
	// The group first: what it has committed was in the store by then, so what is not there after that is gone, and not yet to come.
	committed, err := x.config.Groups.Committed(ctx, g.group)
	if err != nil {
		return false, fmt.Errorf("ask the group how far it has come: %w", err)
	}
	if len(committed) == 0 {
		return false, nil
	}
	list, err := x.config.Store.List(ctx)
	if err != nil {
		return false, fmt.Errorf("ask the store what it holds: %w", err)
	}
	return !slices.ContainsFunc(list, func(held vectordb.Generation) bool { return held.Name == g.name }), nil
}

// whileHeld runs a pipeline until it ends, or the shared store turns out not to hold the generation.
func (g *generation) whileHeld(ctx context.Context, run func(context.Context) error) error {
	if !g.indexer.config.Shared {
		return run(ctx)
	}
	running, cancel := context.WithCancelCause(ctx)
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for sleep(running, lostEvery) == nil {
			if err := g.indexer.config.Store.Sync(running, g.name); errors.Is(err, vectordb.ErrNoGeneration) {
				cancel(err)
			}
		}
	}()
	err := run(running)
	cause := context.Cause(running)
	cancel(nil)
	<-looked
	if errors.Is(cause, vectordb.ErrNoGeneration) {
		err = cause
	}
	if errors.Is(err, vectordb.ErrNoGeneration) {
		g.mu.Lock()
		g.opened = false
		g.mu.Unlock()
	}
	return err
}

// startOver gives a generation that was lost another group, which every process follows: it begins at the beginning of the log.
func (g *generation) startOver() {
	x := g.indexer
	if x.config.Observe || !g.restarting.CompareAndSwap(false, true) {
		return // whoever indexes it does that
	}
	// Not here: following the control value waits for the caller to end.
	x.wg.Go(func() {
		defer g.restarting.Store(false)
		ends, _, err := x.ends(x.ctx)
		if err == nil {
			err = x.change(x.ctx, func(c *control) error {
				spec, ok := c.Generations[g.name]
				if !ok || spec.Group != g.group || spec.Desired == drop {
					return errUnchanged
				}
				again := spec // what was asked for; all that was found out about it is gone
				again.Created, again.Horizon = time.Now().UTC().Truncate(time.Millisecond), map[int32]int64{}
				again.AsOf, again.Doubted = time.Time{}, time.Time{}
				for _, end := range ends {
					again.Horizon[end.Partition] = end.Offset
				}
				identity, err := x.config.Log.Identity(x.ctx)
				if err != nil {
					return err
				}
				again.Group = newGroup(identity.Topic, g.name)
				c.Generations[g.name] = again
				return nil
			})
		}
		switch {
		case err == nil:
			x.config.Logger.Warn("the shared store has lost a generation; it is built again from the log", "generation", g.name)
		case x.ctx.Err() == nil:
			x.config.Logger.Warn("a generation that the shared store has lost can't be begun again, trying again", "generation", g.name, "error", err)
		}
	})
}
