package indexer

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/liverag/liverag/stream"
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
	ends, log, err := x.ends(ctx)
	if err != nil {
		return err
	}
	for _, g := range all {
		if !g.isOpened() || g.isFailed() {
			continue
		}
		if log != g.made.Origin {
			if x.config.Observe { // where there is a pipeline, it finds out
				g.failOrNote("following the log", g.otherLog(log))
			}
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
		g.observe(ends, log)
		if !x.config.Observe {
			x.keepDate(g)
		}
		if x.live.Load() == g {
			x.tail.settle(ctx, g)
		}
	}
	return nil
}

// ends asks the log how far it reaches now, and which log that is.
func (x *Indexer) ends(ctx context.Context) (ends []stream.End, log string, err error) {
	ends, err = x.config.Log.Ends(ctx)
	if err != nil {
		return nil, "", err
	}
	// This second: if it still is the log that was asked for, so were the ends.
	identity, err := x.config.Log.Identity(ctx)
	if err != nil {
		return nil, "", err
	}
	return ends, origin(identity), nil
}

// observe takes note of a log's ends, if it is the log that the generation is made from: how far another one reaches says nothing of this one's freshness.
func (g *generation) observe(ends []stream.End, log string) {
	if log == g.made.Origin {
		g.progress.observe(ends...)
	}
}

func (g *generation) isOpened() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened
}

func (g *generation) isFailed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed != nil
}
