package indexer

import (
	"context"
	"time"

	"github.com/liverag/liverag/stream"
)

// A backlog of imported history can be deeper than memory, and take days where a provider's limit is low. What somebody changes meanwhile comes behind it in the log, and
// is to be searchable at once all the same. So while reading is held back a second source reads on from there, passes over the history, but for who may read what, and what is left goes through
// the pipeline like every other change, at its own version. The log's order is not lost by that: reading comes to these changes too, in its time, and finds that the store
// has them; what it comes to before, of the same documents, is older than what is stored. Positions advance by reading alone, so a crash costs nothing but reading on anew.

const (
	aheadEvery = time.Second // that it is looked whether to read on
	aheadMost  = 1 << 16     // changes beyond reading that are searchable; each of them is remembered in some tens of bytes
)

// aheadBytes is how much of what was read on to may be in flight.
func (p *pipeline) aheadBytes() int64 { return p.limit / 16 }

// ahead reads on whenever reading has been held back for a while.
func (p *pipeline) ahead(ctx context.Context) error {
	tick := time.NewTicker(aheadEvery)
	defer tick.Stop()
	held, failures := false, 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		before := held
		if held = p.worthReadingOn(); !before || !held {
			continue
		}
		err := p.readOn(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			failures = 0
			continue
		case failures == 0:
			p.logger.Warn("edits behind a backlog can't be read before it, trying again", "generation", p.generation, "error", err)
		}
		failures++
		if err := sleep(ctx, backoff(failures)); err != nil {
			return err
		}
	}
}

// heldBack notes whether reading is paused now, or was since it last had everything.
func (p *pipeline) heldBack(paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behind = paused || p.behind && p.progress.unread()
}

// worthReadingOn tells whether what holds reading back is mostly history: what is as urgent as that gains nothing from being read first.
func (p *pipeline) worthReadingOn() bool {
	if !p.live() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.behind {
		return false
	}
	// Not by documents, nor by those in the queues: of few documents that have many versions, what is next waits for the one that is with the model.
	var held [urgencies]int64
	for _, l := range p.docs {
		for _, t := range []*task{l.running, l.waiting} {
			if t != nil {
				held[t.urgency()] += t.bytes
			}
		}
	}
	return held[patient] > held[fresh]
}

// readOn reads what is no history, or says who may read something, beyond where reading is, until reading has come as far.
func (p *pipeline) readOn(ctx context.Context) error {
	p.mu.Lock()
	terms := p.terms
	p.mu.Unlock()
	next := p.progress.next()
	ends, err := p.log.Ends(ctx)
	if err != nil {
		return err
	}
	var others []int32 // partitions that somebody else reads
	for _, end := range ends {
		if _, ours := next[end.Partition]; !ours {
			next[end.Partition] = end.Offset
			others = append(others, end.Partition)
		}
	}
	source, err := p.log.Open(ctx, stream.From{Positions: next, Spread: p.spread, Fresh: true})
	if err != nil {
		return err
	}
	defer source.Close()
	source.Pause(others...)
	for p.stillAhead(next, terms) {
		batch, err := source.Next(ctx)
		if err != nil {
			return err
		}
		for i := range batch.Changes {
			change := batch.Changes[i]
			// Poison is for whoever reads everything: it has no document that could be newer.
			if change.Kind == stream.Invalid || !p.extent.holds(&change) {
				continue
			}
			if err := p.roomAhead(ctx); err != nil {
				return err
			}
			if !p.progress.hasRead(change.Position) {
				p.enqueue(&change, true)
			}
		}
		for _, at := range batch.Fetched {
			next[at.Partition] = at.Offset
		}
	}
	return nil
}

// stillAhead tells whether reading has not come to the positions, is held back, and is of the same partitions as it was then.
func (p *pipeline) stillAhead(next map[int32]int64, terms uint64) bool {
	if !p.live() {
		return false
	}
	p.mu.Lock()
	same, behind := p.terms == terms, p.behind
	p.mu.Unlock()
	for id, offset := range p.progress.next() {
		behind = behind || offset < next[id]
	}
	return same && behind
}

// roomAhead blocks while too much that was read on to is in flight, or known to be searchable.
func (p *pipeline) roomAhead(ctx context.Context) error {
	for {
		p.mu.Lock()
		full := p.beyond > p.aheadBytes()
		p.mu.Unlock()
		if !full && p.progress.beyond() < aheadMost {
			return nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}
