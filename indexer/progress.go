package indexer

import (
	"context"
	"math"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/liverag/liverag/stream"
)

// progress knows how far a generation has come in each partition. It is the only judge of what may be
// committed: an offset counts as applied when it and every change below it are searchable.
type progress struct {
	whole      int // how many partitions there are; where less are known, nothing is known of the rest. 0: those that are known are all that counts
	mu         sync.Mutex
	ended      error // why nothing will advance any more
	partitions map[int32]*partition
	changed    chan struct{} // closed and replaced whenever something advanced and somebody waits
	waiting    int

	// How long the log keeps deletes decides how much later than the end before an end may be reached: see arrive.
	since   time.Time     // of partitions of which no end was reached yet: everything that entered the log before was applied. Zero: not known
	first   time.Duration // how long after since their first end may be reached; with lapse 0 it means nothing
	lapse   time.Duration // how long after an end the next one may be reached; 0: deletes stay in the log for ever
	doubted time.Time     // when deletes were found to have been missed, perhaps; zero: none were
	misses  int           // how often somebody said that deletes were missed
}

type partition struct {
	early    map[int64]bool // offsets above applied that are known to be searchable, where others report them or reading has not come to them; true: rejected
	lowest   int64          // of early
	first    int64          // applied when the partition became known
	rejected []int64        // offsets of the newest changes that went to the dead letters, in the order of finishing
	open     []delivered    // in offset order, from the first change that is not searchable yet
	fetched  int64          // next offset to be read
	applied  int64          // every change below is searchable
	end      stream.End     // the newest observation
	pending  []stream.End   // older observations that are still above applied, ascending
	asOf     time.Time
}

type delivered struct {
	offset int64
	state  deliveredState
}

// rejectedKept is how many rejected changes a partition remembers, for whoever waits for one of them.
const rejectedKept = 1024

type deliveredState uint8

const (
	waiting    deliveredState = iota // not searchable yet
	applying                         // part of the write that is under way
	searchable                       // searchable, but a change below it is not
)

func newProgress() *progress {
	return &progress{partitions: make(map[int32]*partition), changed: make(chan struct{})}
}

// assign starts a partition at an offset.
func (p *progress) assign(at stream.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partitions[at.Partition] = &partition{fetched: at.Offset, applied: at.Offset, first: at.Offset}
	p.notify()
}

func (p *progress) forget(id int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.partitions, id)
	p.notify()
}

// deliver notes a change that was read. It returns false for one of a partition that is not assigned, and for one that was delivered before.
func (p *progress) deliver(at stream.Position) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.partitions[at.Partition]
	if part == nil || at.Offset < part.fetched {
		return false
	}
	part.open = append(part.open, delivered{offset: at.Offset})
	part.fetched = at.Offset + 1
	return true
}

// endedBefore is when the log was last seen to end at or before a position: what is there entered it later. Zero if it never was.
func (p *progress) endedBefore(at stream.Position) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.partitions[at.Partition]
	if part == nil {
		return time.Time{}
	}
	if part.end.Offset <= at.Offset {
		return part.end.At
	}
	for _, end := range slices.Backward(part.pending) {
		if end.Offset <= at.Offset {
			return end.At
		}
	}
	return part.asOf
}

// fetch notes that everything below the position was read, gaps included.
func (p *progress) fetch(at stream.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if part := p.partitions[at.Partition]; part != nil && at.Offset > part.fetched {
		part.fetched = at.Offset
		p.advance(part)
		p.notify()
	}
}

// hasRead tells whether reading has come past a position, or will not come to it.
func (p *progress) hasRead(at stream.Position) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.partitions[at.Partition]
	return part == nil || at.Offset < part.fetched
}

// refused tells whether a change is known to be one that can't be indexed.
func (p *progress) refused(at stream.Position) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	part := p.partitions[at.Partition]
	return part != nil && part.refused(at.Offset)
}

// refused tells it for as long as reading has not come past the change, and of the newest for longer.
func (part *partition) refused(offset int64) bool {
	return part.early[offset] || slices.Contains(part.rejected, offset)
}

// next is the next offset to be read of each partition.
func (p *progress) next() map[int32]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make(map[int32]int64, len(p.partitions))
	for id, part := range p.partitions {
		next[id] = part.fetched
	}
	return next
}

// unread tells whether more is known to be there than was read.
func (p *progress) unread() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.partitions {
		if part.fetched < part.end.Offset {
			return true
		}
	}
	return false
}

// beyond is how many changes above applied are known to be searchable, or rejected, early.
func (p *progress) beyond() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.partitions {
		n += len(part.early)
	}
	return n
}

// observe notes how far a partition reaches.
func (p *progress) observe(ends ...stream.End) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, end := range ends {
		part := p.partitions[end.Partition]
		if part == nil || !end.At.After(part.end.At) {
			continue
		}
		if part.end.Offset > part.applied && len(part.pending) < 4096 {
			if n := len(part.pending); n > 0 && part.pending[n-1].Offset == part.end.Offset {
				part.pending[n-1].At = part.end.At
			} else {
				part.pending = append(part.pending, part.end)
			}
		}
		part.end = end
		p.advance(part)
	}
	p.notify()
}

// reach notes that everything below the offsets is searchable, whoever made it so. It is how progress that others make becomes known.
func (p *progress) reach(applied map[int32]int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, offset := range applied {
		part := p.partitions[id]
		if part == nil {
			part = &partition{first: offset}
			p.partitions[id] = part
		}
		if offset > part.fetched {
			part.fetched = offset
		}
		p.advance(part)
	}
	p.notify()
}

// confirm notes that single changes are searchable, or were rejected, whatever becomes of others below them.
func (p *progress) confirm(positions, rejected []stream.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range positions {
		part := p.partitions[at.Partition]
		if part != nil && at.Offset >= part.applied {
			part.know(at.Offset, false)
		}
	}
	p.remember(rejected)
	p.notify()
}

// know notes that a change is searchable, or was rejected, although reading has not come to it.
func (part *partition) know(offset int64, rejected bool) {
	if part.early == nil {
		part.early, part.lowest = make(map[int64]bool), offset
	}
	part.early[offset] = rejected || part.early[offset]
	part.lowest = min(part.lowest, offset)
}

// overtake forgets what was known early of what is known anyway.
func (part *partition) overtake() {
	if len(part.early) == 0 || part.lowest >= part.applied {
		return
	}
	part.lowest = math.MaxInt64
	for offset := range part.early {
		if offset < part.applied {
			delete(part.early, offset)
		} else {
			part.lowest = min(part.lowest, offset)
		}
	}
}

// news is those of the covers, each once, whose changes were not searchable before.
func (p *progress) news(covers []cover) []cover {
	var seen map[stream.Position]bool
	if len(covers) > 1 {
		seen = make(map[stream.Position]bool, len(covers))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(covers, func(c cover) bool {
		known := seen[c.at] || p.isSearchable(c.at)
		if seen != nil {
			seen[c.at] = true
		}
		return known
	})
}

// begin marks positions as part of the write under way, and returns the checkpoint that is true once it is done.
func (p *progress) begin(positions []stream.Position) map[int32]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark(positions, applying)
	checkpoint := make(map[int32]int64, len(p.partitions))
	for id, part := range p.partitions {
		checkpoint[id] = part.fetched
		for _, d := range part.open {
			if d.state == waiting {
				checkpoint[id] = d.offset
				break
			}
		}
	}
	return checkpoint
}

// retract takes positions out of the write under way: they will be in a later one.
func (p *progress) retract(positions []stream.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark(positions, waiting)
}

// finish marks positions as done: searchable, except those that were rejected. Some may be beyond what was read.
func (p *progress) finish(positions, rejected []stream.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mark(positions, searchable)
	p.remember(rejected)
	for _, part := range p.partitions {
		p.advance(part)
	}
	p.notify()
}

// remember keeps the newest rejected changes, and those that reading has not come to. It is called under the lock.
func (p *progress) remember(rejected []stream.Position) {
	for _, at := range rejected {
		if part := p.partitions[at.Partition]; part != nil {
			if _, early := part.early[at.Offset]; early {
				part.know(at.Offset, true)
			}
			part.rejected = append(part.rejected[max(0, len(part.rejected)-rejectedKept):], at.Offset)
		}
	}
}

func (p *progress) mark(positions []stream.Position, state deliveredState) {
	for _, at := range positions {
		part := p.partitions[at.Partition]
		if part == nil {
			continue
		}
		i := sort.Search(len(part.open), func(i int) bool { return part.open[i].offset >= at.Offset })
		switch {
		case i < len(part.open) && part.open[i].offset == at.Offset:
			if part.open[i].state != searchable { // as it may be since it was read on to
				part.open[i].state = state
			}
		case state == searchable && at.Offset >= part.fetched:
			part.know(at.Offset, false)
		}
	}
}

func (p *progress) advance(part *partition) {
	n := 0
	for n < len(part.open) && part.open[n].state == searchable {
		n++
	}
	part.open = part.open[n:]
	part.applied = part.fetched
	if len(part.open) > 0 {
		part.applied = part.open[0].offset
	} else {
		part.open = nil
	}
	part.overtake()
	for len(part.pending) > 0 && part.pending[0].Offset <= part.applied {
		p.arrive(part, part.pending[0].At)
		part.pending = part.pending[1:]
	}
	if part.end.Offset <= part.applied && part.end.At.After(part.asOf) {
		p.arrive(part, part.end.At)
		part.pending = nil
	}
}

func (p *progress) notify() {
	if p.waiting > 0 {
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// end wakes everybody who waits, and whoever comes, with an error; nil lets them wait again.
func (p *progress) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = err
	p.notify()
}

// until blocks until cond, called under the lock, holds.
func (p *progress) until(ctx context.Context, cond func() bool) error {
	p.mu.Lock()
	p.waiting++
	defer func() { p.waiting--; p.mu.Unlock() }()
	for !cond() {
		if p.ended != nil {
			return p.ended
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
			p.mu.Lock()
		case <-ctx.Done():
			p.mu.Lock()
			return ctx.Err()
		}
	}
	return nil
}

// waitExact blocks until the changes at the positions are searchable, whatever becomes of others below them. ErrRejected: one of them never will be.
func (p *progress) waitExact(ctx context.Context, positions []stream.Position) error {
	rejected := false
	err := p.until(ctx, func() bool {
		for _, at := range positions {
			if !p.isSearchable(at) {
				return false
			}
			rejected = rejected || p.partitions[at.Partition].refused(at.Offset)
		}
		return true
	})
	if err == nil && rejected {
		return ErrRejected
	}
	return err
}

func (p *progress) isSearchable(at stream.Position) bool {
	part := p.partitions[at.Partition]
	if part == nil {
		return false
	}
	if at.Offset < part.applied {
		return true
	}
	if _, ok := part.early[at.Offset]; ok {
		return true
	}
	i := sort.Search(len(part.open), func(i int) bool { return part.open[i].offset >= at.Offset })
	return i < len(part.open) && part.open[i].offset == at.Offset && part.open[i].state == searchable
}

// waitApplied blocks until everything up to the positions is searchable.
func (p *progress) waitApplied(ctx context.Context, positions []stream.Position) error {
	return p.until(ctx, func() bool {
		for _, at := range positions {
			if part := p.partitions[at.Partition]; part == nil || part.applied <= at.Offset {
				return false
			}
		}
		return true
	})
}

// waitAsOf blocks until everything that entered the log before t is searchable.
func (p *progress) waitAsOf(ctx context.Context, t time.Time) error {
	return p.until(ctx, func() bool { return len(p.partitions) > 0 && !p.asOf().Before(t) })
}

// asOf is the smallest of the partitions'; zero before anything is known. It is called under the lock.
func (p *progress) asOf() time.Time {
	var least time.Time
	if len(p.partitions) < p.whole {
		return least
	}
	if !p.doubted.IsZero() {
		return least
	}
	for _, part := range p.partitions {
		if part.asOf.IsZero() {
			return time.Time{}
		}
		if least.IsZero() || part.asOf.Before(least) {
			least = part.asOf
		}
	}
	return least
}

// PartitionProgress is how far a generation has come in one partition.
type PartitionProgress struct {
	Partition     int32 `json:"partition"`
	EndOffset     int64 `json:"end_offset"`
	AppliedOffset int64 `json:"applied_offset"`
	Lag           int64 `json:"lag"`
	// AsOf is nil until an end of the partition was reached.
	AsOf *time.Time `json:"as_of"`
}

// snapshot returns every partition, ordered.
func (p *progress) snapshot() []PartitionProgress {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]PartitionProgress, 0, len(p.partitions))
	for id, part := range p.partitions {
		at := PartitionProgress{Partition: id, EndOffset: part.end.Offset, AppliedOffset: part.applied, Lag: max(0, part.end.Offset-part.applied)}
		if asOf := part.asOf.UTC(); !part.asOf.IsZero() && p.doubted.IsZero() {
			at.AsOf = &asOf
		}
		out = append(out, at)
	}
	slices.SortFunc(out, func(a, b PartitionProgress) int { return int(a.Partition - b.Partition) })
	return out
}

// lag returns as_of and how many changes are known that are not searchable.
func (p *progress) lag() (asOf time.Time, pending int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.partitions {
		pending += max(0, part.end.Offset-part.applied)
	}
	return p.asOf(), pending
}

// caughtUp tells whether every partition has been read and applied to an end that was observed, and no delete was missed.
func (p *progress) caughtUp() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.doubted.IsZero() && p.applied()
}

// applied tells whether every partition has been read and applied to an end that was observed. It is called under the lock.
func (p *progress) applied() bool {
	for _, part := range p.partitions {
		if part.end.At.IsZero() || part.applied < part.end.Offset {
			return false
		}
	}
	return len(p.partitions) > 0 && len(p.partitions) >= p.whole
}

// committable returns the applied offset of each partition.
func (p *progress) committable() map[int32]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[int32]int64, len(p.partitions))
	for id, part := range p.partitions {
		out[id] = part.applied
	}
	return out
}

// empty tells whether no partition is known yet.
func (p *progress) empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.partitions) == 0
}

// awaited tells whether somebody waits for progress.
func (p *progress) awaited() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting > 0
}

// totals sums, over the partitions, applied and end offsets, and how far applied has come since they became known.
func (p *progress) totals() (applied, end, done int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.partitions {
		applied += part.applied
		done += part.applied - part.first
		end += max(part.end.Offset, part.applied)
	}
	return applied, end, done
}

// forgetAll drops what is known of every partition: the log is another one.
func (p *progress) forgetAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.partitions)
	p.notify()
}
