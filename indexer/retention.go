package indexer

import (
	"context"
	"maps"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// A compacted log keeps the newest change of every document, but a tombstone only for a time. Whoever reads a document, and comes to its tombstone's
// place when that is gone, keeps the document for ever. So each end of a partition must be reached before the tombstones that were written since the
// end before it may be gone. Where that failed, because the process was away or something stood still, what the generation holds is in doubt until it
// was compared with the log: see reconcile.

const (
	// leastLapse is the shortest time that a process which reads all along is allowed, whatever the log promises: compaction itself is not that quick, and a
	// topic that promises nothing would be in doubt at every moment.
	leastLapse = time.Minute
	// mostMargin is for clocks that differ. It is an eighth of the time, and no more than this.
	mostMargin = time.Hour
	// mostUndated is how old at most what is stored of the moment up to which a generation is right may get while it is followed.
	mostUndated = 12 * time.Hour
)

// allow says how long the log keeps deletes, and since when the generation is known to be right; zero: it is not known. fresh: it holds nothing that could be wrong.
func (p *progress) allow(deletes time.Duration, since time.Time, fresh bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since = since.Round(0)
	p.first, p.lapse = 0, 0
	if deletes > 0 {
		p.first = deletes - min(deletes/8, mostMargin)
		p.lapse = max(p.first, leastLapse)
		if fresh {
			p.first = p.lapse
		}
	}
	p.notify()
}

// arrive notes that everything below an end that was observed at a moment is applied. If that took longer than the log keeps deletes, some may have been missed. It is
// called under the lock.
func (p *progress) arrive(part *partition, at time.Time) {
	from, allowed := part.asOf, p.lapse
	if from.IsZero() {
		from, allowed = p.since, p.first
	}
	part.asOf = at
	// Wall clocks, for a machine that slept; a clock that was set back says nothing either.
	if now := time.Now().Round(0); p.lapse > 0 && now.Sub(from.Round(0)).Abs() >= allowed {
		p.doubted = now
	}
}

// suspect notes that deletes were missed.
func (p *progress) suspect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubted = time.Now().Round(0)
	p.misses++
	p.notify()
}

// suspected counts the calls of suspect.
func (p *progress) suspected() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.misses
}

// trust notes that everything that entered the log before a moment is applied, deletes too, whoever found that out. It ends a doubt that would not have come up,
// had that been known. It says nothing if deletes were missed since suspected returned the given count.
func (p *progress) trust(at time.Time, suspected int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at = at.Round(0)
	if p.misses != suspected || !at.After(p.since) {
		return
	}
	p.since = at
	if !p.doubted.IsZero() && p.doubted.Sub(at) < max(p.lapse, leastLapse) {
		p.doubted = time.Time{}
	}
	p.notify()
}

// doubtful tells whether deletes may have been missed, or will be found to have been once the partitions are read.
func (p *progress) doubtful() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.doubted.IsZero() {
		return true
	}
	if p.lapse == 0 || time.Now().Round(0).Sub(p.since).Abs() < p.first {
		return false
	}
	for _, part := range p.partitions {
		if part.asOf.IsZero() {
			return true
		}
	}
	return len(p.partitions) == 0
}

// overdue tells whether deletes may have been missed, and everything that the log still holds is applied.
func (p *progress) overdue() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.doubted.IsZero() && p.applied()
}

// right is the newest moment up to which everything was known to be applied when that was looked up; zero: none was.
func (p *progress) right() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.since
}

// dated adds to a checkpoint the moment up to which it is right.
func (p *progress) dated(checkpoint map[int32]int64) map[int32]int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	asOf := p.asOf()
	if asOf.IsZero() && p.doubted.IsZero() {
		return checkpoint // what was stored before stays true
	}
	checkpoint = maps.Clone(checkpoint)
	checkpoint[vectordb.AsOf] = 0
	if !asOf.IsZero() {
		checkpoint[vectordb.AsOf] = asOf.UnixMilli()
	}
	return checkpoint
}

// undated tells whether what is stored of the moment up to which the generation is right should be stored anew.
func (p *progress) undated(stored time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	asOf := p.asOf()
	return p.lapse > 0 && !asOf.IsZero() && asOf.Sub(stored) >= min(p.lapse/8, mostUndated)
}

// dateOf is the moment up to which a stored checkpoint is right; zero if that is not known.
func dateOf(checkpoint map[int32]int64) time.Time {
	if at := checkpoint[vectordb.AsOf]; at > 0 {
		return time.UnixMilli(at)
	}
	return time.Time{}
}

// retention asks how long the log keeps what it was told.
func (x *Indexer) retention(ctx context.Context) (stream.Retention, error) {
	log, ok := x.config.Log.(stream.Forgetful)
	if !ok {
		return stream.Retention{Documents: true}, nil
	}
	return log.Retention(ctx)
}
