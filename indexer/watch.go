package indexer

import (
	"context"
	"maps"
	"slices"
	"time"
)

const (
	watchEvery = 250 * time.Millisecond
	// watchAwaited is how often the groups are asked while somebody waits for them.
	watchAwaited = 50 * time.Millisecond
)

// watch learns how far the processes that share the store have come in every generation. What a group has committed is searchable.
func (x *Indexer) watch(ctx context.Context) {
	held := false
	var last time.Time
	for {
		if err := sleep(ctx, watchAwaited); err != nil {
			return
		}
		x.mu.Lock()
		all := slices.Collect(maps.Values(x.generations))
		x.mu.Unlock()
		if time.Since(last) < watchEvery && !slices.ContainsFunc(all, func(g *generation) bool { return g.progress.awaited() }) {
			continue
		}
		last = time.Now()
		err := x.look(ctx, all)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !held {
			x.config.Logger.Warn("it is not known how far indexing has come, trying again", "error", err)
		}
		held = err != nil
	}
}

// look asks the log and the groups once.
func (x *Indexer) look(ctx context.Context, all []*generation) error {
	// The ends first: an end that the group has reached was reached when it was observed, or later.
	ends, err := x.config.Log.Ends(ctx)
	if err != nil {
		return err
	}
	for _, g := range all {
		if g.isFailed() {
			continue
		}
		committed, err := x.config.Groups.Committed(ctx, g.group)
		if err != nil {
			return err
		}
		applied := make(map[int32]int64, len(ends))
		for _, end := range ends {
			applied[end.Partition] = committed[end.Partition]
		}
		g.progress.reach(applied)
		g.progress.observe(ends...)
		if x.live.Load() == g {
			x.tail.settle(ctx, g)
		}
	}
	return nil
}

func (g *generation) isFailed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed != nil
}
