package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// Reconciling is a comparison of a generation with the log because deletes may have been missed.
type Reconciling struct {
	Since time.Time `json:"since"`
	// Reason is a sentence for a person.
	Reason string `json:"reason"`
	// Share of the work that is done, from 0 to 1; an estimate.
	Share float64 `json:"share"`
	// Changes of the log that were read, documents of the store that were compared, and what was removed.
	Changes   int64 `json:"changes"`
	Documents int64 `json:"documents"`
	Removed   int64 `json:"removed"`
}

const (
	missedReason = "the log was not read for longer than it keeps deletes, so documents that were deleted may still be in the index"
	// reconcileEvery is how often a process looks whether there is something to compare, and whether that is its job.
	reconcileEvery = 250 * time.Millisecond
)

// errMissedAgain: what was compared says nothing of deletes that were missed since it began.
var errMissedAgain = errors.New("more deletes were missed meanwhile")

// reconcile compares the generation with the log whenever deletes may have been missed, until ctx ends. It waits for the pipeline to have caught up, which
// applies the deletes that are still in the log; what the log then does not hold was deleted. end stops the pipeline of a generation that can't be put right.
func (g *generation) reconcile(ctx context.Context, end func()) {
	for attempt := 1; ; {
		// One of those that share a generation is enough: the one that reads the first partition.
		if !g.progress.overdue() || !g.reads(0) {
			if sleep(ctx, reconcileEvery) != nil {
				return
			}
			continue
		}
		if !g.keeps.Documents {
			g.failOrNote("indexing", fmt.Errorf("%w: %s, and the topic drops documents by age or size, or its settings can't be read, so the log can't tell which",
				stream.ErrForgotten, missedReason))
			end()
			return
		}
		err := g.banishGhosts(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			attempt = 1
			continue
		}
		g.indexer.config.Logger.Warn("the generation is not compared with the log yet, trying again", "generation", g.name, "error", err)
		if sleep(ctx, backoff(attempt)) != nil {
			return
		}
		attempt++
	}
}

// reads tells whether this process reads a partition for the generation now.
func (g *generation) reads(partition int32) bool {
	g.mu.Lock()
	p := g.pipeline
	g.mu.Unlock()
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, owned := p.owned[partition]
	return owned
}

// banishGhosts removes what the log does not hold any more, and ends the doubt.
func (g *generation) banishGhosts(ctx context.Context) error {
	x := g.indexer
	parts, err := g.usable()
	if err != nil {
		return err
	}
	// Deletes that are missed from here on may not be noticed by this comparison.
	at, suspected := time.Now(), g.progress.suspected()
	var doubted time.Time
	if x.config.Shared {
		_, c, err := x.load(ctx)
		if err != nil {
			return err
		}
		doubted = c.Generations[g.name].Doubted
	}
	logger := x.config.Logger.With("generation", g.name)
	logger.Warn("the generation is compared with the log before it is ready: "+missedReason, "right_as_of", g.progress.right().UTC())
	r := &verification{Verification: Verification{Generation: g.name, Sample: 1, memory: verifyMemory, ghosts: true}, x: x, g: g, parts: parts, begun: at, later: []share{{}}}
	state := Reconciling{Since: at.UTC(), Reason: missedReason}
	r.tell = func(v Verified) {
		state := state
		state.Share, state.Changes, state.Documents, state.Removed = v.Share, v.Changes, v.Documents, v.Repaired
		g.reconciling.Store(&state)
	}
	r.tell(r.report)
	defer g.reconciling.Store(nil)
	if err := r.compare(ctx); err != nil {
		return fmt.Errorf("compare %s with the log: %w", g.name, err)
	}
	// A document that came back meanwhile was no ghost, but what is shown of it may still be the one before.
	var read []stream.Position
	for id, next := range r.known {
		read = append(read, stream.Position{Partition: id, Offset: next - 1})
	}
	if err := g.progress.waitApplied(ctx, read); err != nil {
		return fmt.Errorf("wait for what the log holds: %w", err)
	}
	if x.config.Shared {
		again := false
		err := x.record(ctx, g, func(spec *Spec) bool {
			if again = !spec.Doubted.Equal(doubted); again {
				return false
			}
			spec.AsOf, spec.Doubted = at.UTC(), time.Time{}
			return true
		})
		if err != nil {
			return err
		}
		if again {
			return errMissedAgain
		}
	} else if g.progress.suspected() != suspected {
		return errMissedAgain
	}
	g.counts.reconciled.Add(1)
	g.progress.trust(at, suspected)
	logger.Info("the generation agrees with the log again", "changes", r.report.Changes, "documents", r.report.Documents, "removed", r.report.Repaired, "took", time.Since(at).Round(time.Millisecond))
	return nil
}

// ghost tells whether a document, or who may read it, is in the store alone.
func ghost(rev *vectordb.Revision, f *folded) (kind, detail string) {
	live := rev.Version > 0 && !rev.Deleted
	switch {
	case live && f.deleted && f.version >= rev.Version:
		return Orphaned, "the log has deleted it"
	case live && f.version == 0 && f.poison <= rev.Version:
		return Orphaned, "the log does not hold it any more"
	case ghostAccess(rev, f) > 0:
		return Stale, "the log does not hold its access list any more"
	}
	return "", ""
}

// ghostAccess is the version of an access list that is in the store alone; 0 if that is not so.
func ghostAccess(rev *vectordb.Revision, f *folded) int64 {
	if f.access > 0 || rev.Access.Clear {
		return 0
	}
	return rev.Access.Version
}

// banish removes ghosts: at the version that is stored, so that whatever the log says of them later is newer.
func (r *verification) banish(ctx context.Context, wrong []Finding) error {
	w := vectordb.Write{Rewrite: true}
	for i := range wrong {
		w.Revisions = append(w.Revisions, wrong[i].gone(wrong[i].Stored))
		mended := true
		wrong[i].Repaired = &mended
	}
	if err := r.x.config.Store.Apply(ctx, r.g.name, w); err != nil {
		return fmt.Errorf("remove what the log does not hold: %w", err)
	}
	if delayed, ok := r.x.config.Store.(vectordb.Delayed); ok {
		if err := delayed.Visible(ctx, r.g.name); err != nil {
			return fmt.Errorf("wait until the store shows what was written: %w", err)
		}
	}
	r.g.counts.ghosts.Add(int64(len(wrong)))
	return nil
}

// gone is the revision that takes away what the log does not hold: the document, if it is that, at a version, and its access list.
func (f *Finding) gone(version int64) vectordb.Revision {
	rev := vectordb.Revision{Key: stream.Key(f.Tenant, f.ID)}
	if f.Kind == Orphaned {
		rev.Version, rev.Deleted = version, true
	}
	// The record that took the access list back came after the one that set it, so this version is not above it.
	if f.access > 0 {
		rev.Access = vectordb.Access{Version: f.access + 1, Clear: true}
	}
	return rev
}

// missed notes for good that deletes were missed: here, and where the generation is shared, for all who share it. Its checkpoints say so from now on.
func (g *generation) missed(ctx context.Context) error {
	g.progress.suspect()
	if !g.indexer.config.Shared {
		return nil
	}
	err := g.indexer.record(ctx, g, func(spec *Spec) bool {
		spec.Doubted = time.Now().UTC()
		return true
	})
	g.progress.suspect()
	return err
}

// keepDate stores from time to time up to which moment a shared generation is right, so that whoever starts later can tell whether deletes were missed.
func (x *Indexer) keepDate(g *generation) {
	g.mu.Lock()
	stored := g.dated
	g.mu.Unlock()
	if !g.progress.undated(stored) || !g.dating.CompareAndSwap(false, true) {
		return
	}
	x.wg.Go(func() {
		defer g.dating.Store(false)
		ctx, cancel := context.WithTimeout(x.ctx, 10*time.Second)
		defer cancel()
		err := x.record(ctx, g, func(spec *Spec) bool {
			asOf, _ := g.progress.lag()
			if asOf.IsZero() || spec.doubted() || !g.progress.undated(spec.AsOf) {
				return false
			}
			spec.AsOf = asOf.UTC()
			return true
		})
		if err != nil && ctx.Err() == nil {
			x.config.Logger.Warn("it is not stored up to when the generation is right, trying again", "generation", g.name, "error", err)
		}
	})
}

// record edits what the control value says of a generation, without doing what the value says: this process hears of it like every other. edit returns false to leave it as it is.
func (x *Indexer) record(ctx context.Context, g *generation, edit func(*Spec) bool) error {
	for {
		sequence, c, err := x.load(ctx)
		if err != nil {
			return err
		}
		spec, ok := c.Generations[g.name]
		if !ok || spec.Group != g.group {
			return fmt.Errorf("%w: %s", ErrNotFound, g.name)
		}
		if !edit(&spec) {
			return nil
		}
		c.Generations[g.name] = spec
		value, err := json.Marshal(c)
		if err != nil {
			return err
		}
		switch err := x.config.Register.CompareAndSet(ctx, sequence, value); {
		case errors.Is(err, stream.ErrConflict):
		case err != nil:
			return fmt.Errorf("write control topic: %w", err)
		default:
			return nil
		}
	}
}
