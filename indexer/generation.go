package indexer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/ledger"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// generation is a Spec at work in this process.
type generation struct {
	indexer  *Indexer
	name     string
	group    string
	spread   bool // see stream.From
	made     vectordb.Generation
	recipe   vectordb.Recipe
	extent   Extent
	share    *embedder.Share // of the model, while it is not live
	created  time.Time
	started  time.Time
	progress *progress
	counts   counts
	before   ledger.Figures // what processes before this one did
	trouble  atomic.Pointer[Trouble]
	dropping atomic.Bool
	// restarting: it was lost, and is about to begin at the beginning of the log.
	restarting atomic.Bool
	verified   atomic.Pointer[Verified] // what the last verification found
	// reconciling is how far a comparison with the log is that has to be done before the generation is ready; nil: none is.
	reconciling atomic.Pointer[Reconciling]

	mu       sync.Mutex
	wanted   Desired
	parts    Parts
	opened   bool // parts are set, and the store holds it
	keeps    stream.Retention
	dated    time.Time   // up to when it is right, by the control value
	doubted  time.Time   // when deletes were missed, by the control value; zero: none were since
	dating   atomic.Bool // a newer moment is being stored there
	failed   error       // for good
	caughtUp bool
	told     ledger.Figures // of counts, what the account knows
	horizon  map[int32]int64
	pipeline *pipeline
	stop     context.CancelFunc
	stopped  chan struct{}
}

// ErrUnusable: the generation can't be queried; the rest of the message says why, and what to do.
var ErrUnusable = errors.New("generation can't be used")

// ErrRejected: the change went to the dead letters, and will never be searchable.
var ErrRejected = errors.New("change can't be indexed; it is in the dead letters")

// ErrStopped: what is waited for will not come, because the generation does not advance any more.
var ErrStopped = errors.New("generation does not advance: it was paused, cancelled or dropped")

// openTimeout is how long a change of the control value waits for a new generation to be opened before that goes on in the background.
const openTimeout = 10 * time.Second

func newGeneration(x *Indexer, spec Spec) *generation {
	progress := newProgress()
	progress.whole = len(spec.Horizon)
	if spec.doubted() {
		progress.suspect()
	}
	g := &generation{
		dated: spec.AsOf, doubted: spec.Doubted,
		indexer: x, name: spec.Name, group: spec.Group, spread: spec.Spread, made: spec.Generation, recipe: spec.Recipe, extent: spec.Extent, share: embedder.NewShare(spec.Share), created: spec.Created,
		started: time.Now(), progress: progress, wanted: spec.Desired, horizon: spec.Horizon,
	}
	if x.config.Account != nil {
		g.before = x.config.Account.Of(spec.Name, spec.Group)
	}
	return g
}

func (g *generation) desired() Desired {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wanted
}

// date takes over what the control value says of how far the generation is right.
func (g *generation) date(spec Spec) {
	g.mu.Lock()
	known := spec.Doubted.Equal(g.doubted)
	g.dated, g.doubted = spec.AsOf, spec.Doubted
	g.mu.Unlock()
	switch {
	case !spec.doubted():
		g.progress.trust(spec.AsOf, g.progress.suspected())
	case !known:
		g.progress.suspect()
	}
}

func (g *generation) want(d Desired) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted = d
}

// usable returns the parts to query it with.
func (g *generation) usable() (Parts, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch t := g.trouble.Load(); {
	case g.failed != nil:
		return Parts{}, fmt.Errorf("%w: %w", ErrUnusable, g.failed)
	case !g.opened && t != nil:
		return Parts{}, fmt.Errorf("%w yet: %s", ErrUnusable, t.Detail)
	case !g.opened:
		return Parts{}, fmt.Errorf("%w yet: it is being opened", ErrUnusable)
	}
	return g.parts, nil
}

// providers tells how it stands with the endpoints of its model.
func (g *generation) providers() []embedder.Provider {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.parts.providers()
}

// ofProviders is a sum over its endpoints.
func (g *generation) ofProviders(of func(embedder.Provider) float64) (sum float64) {
	for _, p := range g.providers() {
		sum += of(p)
	}
	return sum
}

// troubleOf is what keeps a model's provider from taking what there is for it; nil: nothing does.
func troubleOf(p embedder.Provider) *Trouble {
	detail := p.Trouble()
	if detail == "" {
		return nil
	}
	return &Trouble{Since: p.Since, Detail: detail, Provider: p.State, NextTry: p.NextTry}
}

// begin opens a new generation at once if that goes smoothly. If it does not, run tries again.
func (g *generation) begin() {
	if g.desired() == drop {
		return
	}
	ctx, cancel := context.WithTimeout(g.indexer.ctx, openTimeout)
	defer cancel()
	if err := g.open(ctx); err != nil {
		g.failOrNote("opening", err)
	}
}

// failOrNote tells whether an error is for good.
func (g *generation) failOrNote(doing string, err error) bool {
	for _, final := range []error{ErrRecipe, vectordb.ErrMismatch, vectordb.ErrFormat, vectordb.ErrCorrupt, stream.ErrLogChanged, stream.ErrPositionUnknown, stream.ErrForgotten} {
		if !errors.Is(err, final) {
			continue
		}
		if errors.Is(err, stream.ErrLogChanged) {
			err = fmt.Errorf("%w: restart liverag, replay into a new generation and promote it, then drop this one", err)
		}
		if errors.Is(err, stream.ErrForgotten) {
			err = fmt.Errorf("%w; replay into a new generation and promote it, then drop this one", err)
		}
		g.indexer.config.Logger.Error("generation can't be used", "generation", g.name, "error", err)
		g.mu.Lock()
		g.failed = err
		g.mu.Unlock()
		g.progress.forgetAll()
		g.progress.end(fmt.Errorf("%w: %w", ErrUnusable, err))
		return true
	}
	setTrouble(&g.trouble, g.indexer.config.Logger, g.name, fmt.Sprintf("%s fails, trying again: %v", doing, err))
	return false
}

// open prepares a generation: its parts, and its place in the store.
func (g *generation) open(ctx context.Context) error {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	if opened {
		return nil
	}
	x := g.indexer
	parts, err := x.build(ctx, g.recipe, g.made.Dim)
	if err != nil {
		return err
	}
	if dim := parts.Embedder.Dim(); dim != g.made.Dim {
		return fmt.Errorf("%w: %s gives vectors of %d dimensions now, and the generation's have %d; the index is left as it is: give the old model back, or replay into a new generation",
			vectordb.ErrMismatch, g.recipe.Embedder.Model, dim, g.made.Dim)
	}
	if now := parts.fingerprint(); now != g.made.Fingerprint {
		return fmt.Errorf("%w: this program's %s differs from the one it was made with; replay into a new generation", vectordb.ErrMismatch, describe(g.recipe))
	}
	identity, err := x.config.Log.Identity(ctx)
	if err != nil {
		return err
	}
	if now := origin(identity); now != g.made.Origin {
		return g.otherLog(now)
	}
	keeps, err := x.retention(ctx)
	if err != nil {
		return fmt.Errorf("ask how long the log keeps deletes: %w", err)
	}
	switch gone, err := g.lost(ctx); {
	case err != nil:
		return err
	case gone:
		g.startOver()
		return errLost
	}
	err = x.config.Store.Create(ctx, g.made)
	if errors.Is(err, vectordb.ErrMismatch) && x.config.Shared {
		return fmt.Errorf("%w: the shared store holds a generation %s of this corpus that was made from another log or by another recipe; is another cluster's liverag using the same store? Name the corpus otherwise, or drop that generation there",
			err, g.name)
	}
	if errors.Is(err, vectordb.ErrMismatch) {
		// The register decides which generations there are. What the store holds under this name is a view of a log that is gone.
		x.config.Logger.Warn("the store holds a generation of this name that was made from another log; it is replaced", "generation", g.name)
		if err = x.config.Store.Drop(ctx, g.name); err == nil {
			err = x.config.Store.Create(ctx, g.made)
		}
	}
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.parts, g.opened, g.keeps = parts, true, keeps
	if x.config.Shared {
		// One that was never found to be right yet began empty.
		since, fresh := g.dated, g.dated.IsZero()
		if fresh {
			since = g.created
		}
		g.progress.allow(keeps.Deletes, since, fresh)
	}
	return nil
}

// otherLog is why a generation can't go on when the log is not the one it was made from.
func (g *generation) otherLog(now string) error {
	return fmt.Errorf("%w: the log was re-created or its partitions were changed (%s, now %s); replay into a new generation and promote it, then drop this one",
		vectordb.ErrMismatch, g.made.Origin, now)
}

// run starts the pipeline unless it runs.
func (g *generation) run() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop != nil || g.failed != nil {
		return
	}
	ctx, cancel := context.WithCancel(g.indexer.ctx)
	g.stop, g.stopped, g.caughtUp = cancel, make(chan struct{}), false
	g.progress.end(nil)
	stopped := g.stopped
	g.indexer.wg.Go(func() {
		defer close(stopped)
		var beside sync.WaitGroup
		defer beside.Wait()
		defer cancel()
		if !g.indexer.config.Observe {
			beside.Go(func() { g.reconcile(ctx, cancel) })
		}
		for attempt := 1; ; attempt++ {
			err := g.open(ctx)
			if err == nil && g.indexer.config.Observe {
				clearTrouble(&g.trouble, g.indexer.config.Logger, g.name)
				return // other processes do the rest
			}
			if err == nil {
				err = g.whileHeld(ctx, g.newPipeline().Run)
			}
			if ctx.Err() != nil || g.failOrNote("indexing", err) || sleep(ctx, backoff(attempt)) != nil {
				return
			}
		}
	})
}

// newPipeline makes the pipeline of one attempt: whatever an earlier one had in flight is read again.
func (g *generation) newPipeline() *pipeline {
	x := g.indexer
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pipeline = &pipeline{
		generation: g.name,
		spread:     g.spread,
		parts:      g.parts,
		log:        x.config.Log,
		letters:    signed{x.config.DeadLetters, g.name},
		store:      x.config.Store,
		logger:     x.config.Logger,
		gate:       x.gate,
		extent:     g.extent,
		share:      g.share,
		live:       func() bool { return x.live.Load() == g },
		applied:    g.applied,
		lender:     g.lender,
		begins:     g.begins,
		missed:     g.missed,
		deletes:    g.keeps.Deletes,
		limit:      x.config.MaxInFlightBytes,
		progress:   g.progress,
		counts:     &g.counts,
		trouble:    &g.trouble,
	}
	if x.config.Shared {
		// What this process does is a part of the generation's progress.
		g.pipeline.group = g.group
		g.pipeline.progress = newProgress()
		g.pipeline.settled = g.reach
	}
	g.pipeline.delayed, _ = x.config.Store.(vectordb.Delayed)
	return g.pipeline
}

// halt stops the pipeline, waits for it, and wakes whoever waits for it to advance.
func (g *generation) halt() {
	g.mu.Lock()
	stop, stopped := g.stop, g.stopped
	g.stop = nil
	g.mu.Unlock()
	if stop != nil {
		stop()
	}
	if stopped != nil {
		<-stopped
	}
	g.progress.end(ErrStopped)
}

// reach takes over what a pipeline of this process has settled into the progress of all processes, before the others learn of it by its commits.
func (g *generation) reach(applied map[int32]int64, positions, rejected []stream.Position) {
	g.progress.reach(applied)
	g.progress.confirm(positions, rejected)
}

// begins notes that everything below the ends is history.
func (g *generation) begins(ends []stream.End) {
	horizon := make(map[int32]int64, len(ends))
	for _, end := range ends {
		horizon[end.Partition] = end.Offset
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.horizon = horizon
}

// lender finds another generation of the same model, the live one if it is.
func (g *generation) lender() *lender {
	x := g.indexer
	parts, err := g.usable()
	if err != nil {
		return nil
	}
	return x.lenderOf(g, parts.Embedder.Name())
}

// lenderOf finds a generation of a model, the live one if it is, for another one; nil: none.
func (x *Indexer) lenderOf(borrower *generation, model string) *lender {
	x.mu.Lock()
	defer x.mu.Unlock()
	var found *lender
	for _, other := range x.generations {
		if other == borrower {
			continue
		}
		other.mu.Lock()
		usable := other.failed == nil && other.wanted != drop && other.opened && other.parts.Embedder.Name() == model
		if usable && (found == nil || x.live.Load() == other) {
			found = &lender{generation: other.name, chunker: other.parts.Chunker.Name()}
		}
		other.mu.Unlock()
	}
	return found
}

// applied notes that changes became searchable. One that was before, or never will be, says nothing about freshness.
func (g *generation) applied(tasks []*task) {
	x := g.indexer
	if x.live.Load() != g {
		return
	}
	g.mu.Lock()
	horizon := g.horizon
	g.mu.Unlock()
	now := time.Now()
	for _, t := range tasks {
		if t.revision == nil {
			continue
		}
		history := true
		for _, c := range t.covers {
			if c.at.Offset >= horizon[c.at.Partition] && !slices.Contains(t.rejected, c.at) {
				x.freshness.record(now, c)
				history = false
			}
		}
		if !history {
			x.hub.publish(now, t)
		}
	}
}

// statsTimeout bounds how long a description of a generation waits for the store to count what is in it.
const statsTimeout = 2 * time.Second

func (g *generation) info() Info {
	// Before the lock: queries take it too, and must not wait for a store that counts slowly, or not at all.
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	stats, uncounted := g.indexer.config.Store.Stats(ctx, g.name)
	cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	asOf, lag := g.progress.lag()
	info := Info{Name: g.name, Alias: []string{}, Recipe: g.recipe, Extent: g.extent, Created: g.created, Lag: lag, AsOf: asOf.UTC()}
	if asOf.IsZero() {
		info.AsOf = asOf
	}
	if part := g.share.Part(); part < 1 {
		info.Share = part
	}
	if g.indexer.live.Load() == g {
		info.Alias = append(info.Alias, Live)
	}
	switch {
	case g.failed != nil:
		info.State = StateFailed
		info.Trouble = &Trouble{Since: g.started.UTC(), Detail: g.failed.Error()}
	case g.wanted == Pause:
		info.State = StatePaused
	case g.wanted == Cancel:
		info.State = StateCancelled
	case g.progress.caughtUp() || g.caughtUp && !g.progress.doubtful():
		g.caughtUp = true // whoever was told so is not told of building afterwards
		info.State = StateReady
		if g.extent.Partial() {
			info.State = StatePartial
		}
	default:
		info.State = StateBuilding
	}
	if info.Trouble == nil {
		info.Trouble = g.trouble.Load()
	}
	if info.Trouble == nil && lag > 0 {
		info.Trouble = troubleOf(g.parts.provider())
	}
	info.Reconciling = g.reconciling.Load()
	applied, end, done := g.progress.totals()
	p := &info.Progress
	p.Changes, p.Of, p.Percent = applied, end, 100
	if end > 0 {
		p.Percent = 100 * float64(applied) / float64(end)
	}
	if info.State == StateBuilding && done > 0 && lag > 0 {
		rate := float64(done) / time.Since(g.started).Seconds()
		p.ETA = time.Duration(float64(lag) / rate * float64(time.Second)).Round(100 * time.Millisecond).String()
	}
	if uncounted == nil {
		p.Documents, p.Chunks, info.Stats = int64(stats.Documents), int64(stats.Chunks), &stats
	}
	if g.indexer.config.Observe {
		return info
	}
	p.Work = g.work()
	return info
}
