// Package indexer folds the log into generations. It is the only writer of the store.
//
// An [Indexer] keeps one pipeline a generation running, follows the control topic that says which generations
// there are and which one is live, and knows how fresh each of them is.
package indexer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/htmltext"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// Config is what an Indexer works with. Fields without a default are required.
type Config struct {
	Log         stream.Log
	DeadLetters stream.DeadLetters
	Register    stream.Register
	Store       vectordb.Store
	// Build makes a recipe's parts, with its defaults filled in. It is called for every generation at start, and must be quick.
	Build func(vectordb.Recipe) (Parts, error)
	// Recipe makes the first generation of an empty corpus.
	Recipe vectordb.Recipe
	// RecipeAsked: somebody chose Recipe, and wants to know if the live generation was made by another. Defaults to false.
	RecipeAsked bool
	// Shared: the store is shared by several processes, so positions are kept by a consumer group. Defaults to false.
	Shared bool
	// MaxInFlightBytes bounds what has been read and is not yet applied, for each generation. Defaults to 64 MiB.
	MaxInFlightBytes int64
	// SLO is the freshness that is promised. Defaults to 2 s for 99 % of changes.
	SLO SLO
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Parts are what a recipe resolves to.
type Parts struct {
	// Recipe has its defaults filled in.
	Recipe  vectordb.Recipe
	Chunker chunker.Chunker
	// Embedder takes the lane of a call from its context.
	Embedder embedder.Embedder
}

// fingerprint holds everything that decides an entry's text and vector, and nothing else.
func (p Parts) fingerprint() string {
	sum := sha256.Sum256([]byte(fmt.Sprintf("html %s\nchunker %s\ninput %d\nmodel %s\ndim %d\nlong %s",
		htmltext.Version, p.Chunker.Name(), inputVersion, p.Embedder.Name(), p.Embedder.Dim(), p.Recipe.Embedder.Long)))
	return hex.EncodeToString(sum[:])
}

// Indexer runs the pipelines.
type Indexer struct {
	config    Config
	gate      *gate
	freshness *freshness
	hub       *hub
	ctx       context.Context // of Run
	running   chan struct{}   // closed when Run has started
	answering chan struct{}   // closed when there is a live generation

	follows sync.Mutex // one follow at a time
	mu      sync.Mutex
	current int64 // sequence of the control value that was followed last
	control control
	// generations hold what the control value names; a dropped one stays until its space is freed.
	generations map[string]*generation
	live        atomic.Pointer[generation]
	changed     chan struct{} // closed and replaced when generations changes
	wg          sync.WaitGroup
}

// generation is a Spec at work in this process.
type generation struct {
	indexer  *Indexer
	parts    Parts
	progress *progress
	counts   counts
	started  time.Time

	mu       sync.Mutex
	spec     Spec
	failed   error
	caughtUp bool
	pipeline *pipeline
	stop     context.CancelFunc
	stopped  chan struct{}
}

// New returns an Indexer that does nothing until Run.
func New(config Config) *Indexer {
	if config.MaxInFlightBytes == 0 {
		config.MaxInFlightBytes = 64 << 20
	}
	if config.SLO.Target == 0 {
		config.SLO = SLO{Target: 2 * time.Second, Percentile: .99}
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	return &Indexer{
		config:      config,
		gate:        newGate(runtime.GOMAXPROCS(0)),
		freshness:   newFreshness(config.SLO),
		hub:         newHub(),
		running:     make(chan struct{}),
		answering:   make(chan struct{}),
		generations: make(map[string]*generation),
		changed:     make(chan struct{}),
		current:     -1,
	}
}

// Run indexes until ctx ends, then stops every pipeline and waits for them: what was applied is durable, and what was not is read again.
// It returns early only when the control topic can't be used.
func (x *Indexer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	x.ctx = ctx
	close(x.running)
	defer x.wg.Wait()
	defer cancel()
	x.wg.Go(func() { x.observe(ctx) })

	sequence, value, err := x.config.Register.Load(ctx)
	if err != nil {
		return fmt.Errorf("read control topic: %w", err)
	}
	c, err := decodeControl(value)
	if err != nil {
		return err
	}
	if c.Live == "" {
		if _, err := x.Create(ctx, "", x.config.Recipe); err != nil {
			return fmt.Errorf("make the first generation: %w", err)
		}
	} else if err := x.follow(ctx, sequence, c); err != nil {
		return err
	}
	if x.config.RecipeAsked {
		x.adviseRecipe()
	}
	for {
		x.mu.Lock()
		above := x.current
		x.mu.Unlock()
		sequence, value, err := x.config.Register.Wait(ctx, above)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow control topic: %w", err)
		}
		c, err := decodeControl(value)
		if err != nil {
			return err
		}
		if err := x.follow(ctx, sequence, c); err != nil {
			return err
		}
	}
}

// adviseRecipe tells an operator who configured another recipe than the live one's how to get it.
func (x *Indexer) adviseRecipe() {
	g := x.live.Load()
	parts, err := x.config.Build(x.config.Recipe)
	if g == nil || err != nil || parts.fingerprint() == g.spec.Fingerprint {
		return
	}
	x.config.Logger.Warn("the live generation was made by another recipe than the configured one; it goes on serving. Replay and promote to change it",
		"live", describe(g.spec.Recipe), "configured", describe(parts.Recipe), "command", "liverag replay")
}

// follow makes this process do what a control value says. Older values than the last one are ignored.
func (x *Indexer) follow(ctx context.Context, sequence int64, c control) error {
	select {
	case <-x.running:
	case <-ctx.Done():
		return ctx.Err()
	}
	x.follows.Lock()
	defer x.follows.Unlock()
	x.mu.Lock()
	if sequence <= x.current {
		x.mu.Unlock()
		return nil
	}
	x.mu.Unlock()

	var starting []*generation
	for name, spec := range c.Generations {
		x.mu.Lock()
		g := x.generations[name]
		x.mu.Unlock()
		if g != nil && g.spec.Group != spec.Group { // dropped and made again
			g.halt()
			g = nil
		}
		if g == nil {
			g = &generation{indexer: x, spec: spec, progress: newProgress(), started: time.Now()}
			x.mu.Lock()
			x.generations[name] = g
			x.mu.Unlock()
			starting = append(starting, g)
		} else {
			g.mu.Lock()
			g.spec.Desired = spec.Desired // nothing else of it ever changes, so the rest is read without the lock
			g.mu.Unlock()
		}
	}
	x.mu.Lock()
	var gone []*generation
	for name, g := range x.generations {
		if _, ok := c.Generations[name]; !ok {
			gone = append(gone, g)
			delete(x.generations, name)
		}
	}
	x.current, x.control = sequence, c
	live := x.generations[c.Live]
	x.mu.Unlock()
	for _, g := range gone {
		g.halt()
	}
	for _, g := range starting {
		if g.spec.Desired != drop {
			g.open(ctx)
		}
	}
	// The alias moves here: one pointer, so that a query sees the one generation or the other.
	if live != nil && x.live.Swap(live) == nil {
		close(x.answering)
	}
	x.mu.Lock()
	var doomed []*generation
	for _, g := range x.generations {
		g.mu.Lock()
		desired := g.spec.Desired
		g.mu.Unlock()
		switch desired {
		case Run:
			g.run()
		case drop:
			doomed = append(doomed, g)
		}
	}
	close(x.changed)
	x.changed = make(chan struct{})
	x.mu.Unlock()
	for _, g := range x.paused() {
		g.halt()
	}
	for _, g := range doomed {
		x.wg.Go(func() { x.finishDrop(g) })
	}
	return nil
}

func (x *Indexer) paused() []*generation {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []*generation
	for _, g := range x.generations {
		g.mu.Lock()
		if g.spec.Desired == Pause || g.spec.Desired == Cancel {
			out = append(out, g)
		}
		g.mu.Unlock()
	}
	return out
}

// finishDrop does the second half of a drop: it frees the space, then forgets the name.
func (x *Indexer) finishDrop(g *generation) {
	g.halt()
	name := g.spec.Name
	for attempt := 1; x.ctx.Err() == nil; attempt++ {
		err := x.config.Store.Drop(x.ctx, name)
		if err == nil {
			err = x.change(x.ctx, func(c *control) error {
				if spec, ok := c.Generations[name]; !ok || spec.Group != g.spec.Group {
					return errUnchanged
				}
				delete(c.Generations, name)
				return nil
			})
		}
		if err == nil {
			return
		}
		if x.ctx.Err() == nil {
			x.config.Logger.Warn("drop does not finish, trying again", "generation", name, "error", err)
		}
		_ = sleep(x.ctx, backoff(attempt))
	}
}

// awaitDropped blocks until a generation is gone.
func (x *Indexer) awaitDropped(ctx context.Context, name string) error {
	for {
		x.mu.Lock()
		g, changed := x.generations[name], x.changed
		x.mu.Unlock()
		if g == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("drop %s: it goes on in the background: %w", name, ctx.Err())
		}
	}
}

// open prepares a generation: its parts, and its place in the store. A failure is kept and shown; others go on.
func (g *generation) open(ctx context.Context) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed = g.prepare(ctx)
	if g.failed != nil {
		g.indexer.config.Logger.Error("generation can't be used", "generation", g.spec.Name, "error", g.failed)
	}
}

func (g *generation) prepare(ctx context.Context) (err error) {
	x := g.indexer
	if g.parts, err = x.config.Build(g.spec.Recipe); err != nil {
		return fmt.Errorf("its recipe can't be built: %w", err)
	}
	if now := g.parts.fingerprint(); now != g.spec.Fingerprint {
		return fmt.Errorf("%w: this program's %s differs from the one it was made with; replay into a new generation", vectordb.ErrMismatch, describe(g.spec.Recipe))
	}
	identity, err := x.config.Log.Identity(ctx)
	if err != nil {
		return err
	}
	if now := origin(identity); now != g.spec.Origin {
		return fmt.Errorf("%w: the log was re-created or its partitions were changed (%s, now %s); replay into a new generation and promote it, then drop this one",
			vectordb.ErrMismatch, g.spec.Origin, now)
	}
	err = x.config.Store.Create(ctx, g.spec.Generation)
	if errors.Is(err, vectordb.ErrMismatch) {
		// The register decides which generations there are. What the store holds under this name is a view of a log that is gone.
		x.config.Logger.Warn("the store holds a generation of this name that was made from another log; it is replaced", "generation", g.spec.Name)
		if err = x.config.Store.Drop(ctx, g.spec.Name); err == nil {
			err = x.config.Store.Create(ctx, g.spec.Generation)
		}
	}
	return err
}

// run starts the pipeline unless it runs.
func (g *generation) run() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop != nil || g.failed != nil {
		return
	}
	x := g.indexer
	ctx, cancel := context.WithCancel(x.ctx)
	g.stop, g.stopped = cancel, make(chan struct{})
	stopped := g.stopped
	g.pipeline = &pipeline{
		generation: g.spec.Name,
		parts:      g.parts,
		log:        x.config.Log,
		letters:    x.config.DeadLetters,
		store:      x.config.Store,
		logger:     x.config.Logger,
		gate:       x.gate,
		live:       func() bool { return x.live.Load() == g },
		applied:    g.applied,
		lender:     g.lender,
		limit:      x.config.MaxInFlightBytes,
		progress:   g.progress,
		counts:     &g.counts,
	}
	if x.config.Shared {
		g.pipeline.group = g.spec.Group
	}
	p := g.pipeline
	x.wg.Go(func() {
		defer close(stopped)
		for attempt := 1; ; attempt++ {
			err := p.Run(ctx)
			if ctx.Err() != nil {
				return
			}
			p.setTrouble(fmt.Sprintf("pipeline stopped, starting again: %v", err))
			if sleep(ctx, backoff(attempt)) != nil {
				return
			}
		}
	})
}

// lender finds another generation of the same model, the live one if it is.
func (g *generation) lender() *lender {
	x := g.indexer
	x.mu.Lock()
	defer x.mu.Unlock()
	var found *lender
	for _, other := range x.generations {
		if other == g {
			continue
		}
		other.mu.Lock()
		usable := other.failed == nil && other.spec.Desired != drop && other.parts.Embedder != nil && other.parts.Embedder.Name() == g.parts.Embedder.Name()
		if usable && (found == nil || x.live.Load() == other) {
			found = &lender{generation: other.spec.Name, chunker: other.parts.Chunker.Name()}
		}
		other.mu.Unlock()
	}
	return found
}

// halt stops the pipeline and waits for it.
func (g *generation) halt() {
	g.mu.Lock()
	stop, stopped := g.stop, g.stopped
	g.stop = nil
	g.mu.Unlock()
	if stop != nil {
		stop()
		<-stopped
	}
}

// applied notes that changes became searchable.
func (g *generation) applied(tasks []*task) {
	x := g.indexer
	if x.live.Load() != g {
		return
	}
	now := time.Now()
	for _, t := range tasks {
		for _, c := range t.covers {
			if c.at.Offset >= g.spec.Horizon[c.at.Partition] {
				x.freshness.record(now, c)
			}
		}
		if t.revision != nil {
			x.hub.publish(now, t)
		}
	}
}

// observe keeps the state of generations, and their ends, up to date.
func (x *Indexer) observe(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		x.mu.Lock()
		for _, g := range x.generations {
			if g.progress.caughtUp() {
				g.mu.Lock()
				g.caughtUp = true
				g.mu.Unlock()
			}
		}
		x.mu.Unlock()
	}
}

func (x *Indexer) lookup(name string) *generation {
	if name == Live {
		return x.live.Load()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.generations[name]
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spec.Desired == drop {
		return nil
	}
	return g
}

// Ready tells why queries and writes can't be served; nil if they can.
func (x *Indexer) Ready() error {
	g := x.live.Load()
	if g == nil {
		return errors.New("the indexer is starting")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed != nil {
		return fmt.Errorf("the live generation %s can't be used: %w", g.spec.Name, g.failed)
	}
	if g.progress.empty() {
		return errors.New("the log is being opened")
	}
	return nil
}

// Lookup returns the parts of the generation or alias of that name, for whoever queries it.
func (x *Indexer) Lookup(name string) (Info, Parts, error) {
	g := x.lookup(name)
	if g == nil {
		return Info{}, Parts{}, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed != nil {
		return Info{}, Parts{}, g.failed
	}
	return Info{Name: g.spec.Name, Recipe: g.spec.Recipe}, g.parts, nil
}

func newID() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// State is how far a generation is.
type State string

const (
	StateBuilding  State = "building"
	StatePaused    State = "paused"
	StateReady     State = "ready"
	StateFailed    State = "failed"
	StateCancelled State = "cancelled"
)

// Info describes a generation.
type Info struct {
	Name     string          `json:"name"`
	Alias    []string        `json:"alias"`
	State    State           `json:"state"`
	Recipe   vectordb.Recipe `json:"recipe"`
	Created  time.Time       `json:"created_at"`
	Progress Progress        `json:"progress"`
	Stats    *vectordb.Stats `json:"stats,omitempty"`
	// Lag counts changes of the log that are not searchable in it yet.
	Lag     int64     `json:"lag"`
	AsOf    time.Time `json:"as_of,omitzero"`
	Trouble *Trouble  `json:"trouble,omitempty"`
}

// Progress is what a generation's pipeline has done since this process started.
type Progress struct {
	Changes        int64   `json:"changes"`
	Of             int64   `json:"of"`
	Percent        float64 `json:"percent"`
	ETA            string  `json:"eta,omitempty"`
	Documents      int64   `json:"documents"`
	Chunks         int64   `json:"chunks"`
	ChunksEmbedded int64   `json:"chunks_embedded"`
	ChunksReused   int64   `json:"chunks_reused"`
	TokensEmbedded int64   `json:"tokens_embedded"`
	TokensReused   int64   `json:"tokens_reused"`
	Superseded     int64   `json:"superseded"`
	DeadLetters    int64   `json:"dead_letters"`
	CostUSD        float64 `json:"cost_usd"`
}

func (p Progress) String() string {
	return fmt.Sprintf("%d of %d changes", p.Changes, p.Of)
}

func (g *generation) info() Info {
	g.mu.Lock()
	defer g.mu.Unlock()
	asOf, lag := g.progress.lag()
	info := Info{Name: g.spec.Name, Alias: []string{}, Recipe: g.spec.Recipe, Created: g.spec.Created, Lag: lag, AsOf: asOf.UTC()}
	if asOf.IsZero() {
		info.AsOf = asOf
	}
	if g.indexer.live.Load() == g {
		info.Alias = append(info.Alias, Live)
	}
	switch {
	case g.failed != nil:
		info.State = StateFailed
		info.Trouble = &Trouble{Since: g.started, Detail: g.failed.Error()}
	case g.spec.Desired == Pause:
		info.State = StatePaused
	case g.spec.Desired == Cancel:
		info.State = StateCancelled
	case g.caughtUp || g.progress.caughtUp():
		info.State = StateReady
	default:
		info.State = StateBuilding
	}
	if g.pipeline != nil && info.Trouble == nil {
		info.Trouble = g.pipeline.trouble.Load()
	}
	applied, end := g.progress.totals()
	p := &info.Progress
	p.Changes, p.Of, p.Percent = applied, end, 100
	if end > 0 {
		p.Percent = 100 * float64(applied) / float64(end)
	}
	done := g.counts.changes.Load()
	if info.State == StateBuilding && done > 0 && lag > 0 {
		rate := float64(done) / time.Since(g.started).Seconds()
		p.ETA = time.Duration(float64(lag) / rate * float64(time.Second)).Round(100 * time.Millisecond).String()
	}
	if stats, err := g.indexer.config.Store.Stats(context.Background(), g.spec.Name); err == nil {
		p.Documents, p.Chunks, info.Stats = int64(stats.Documents), int64(stats.Chunks), &stats
	}
	p.ChunksEmbedded, p.ChunksReused = g.counts.chunksEmbedded.Load(), g.counts.chunksReused.Load()
	p.TokensEmbedded, p.TokensReused = g.counts.tokensEmbedded.Load(), g.counts.tokensReused.Load()
	p.Superseded, p.DeadLetters = g.counts.superseded.Load(), g.counts.deadLetters.Load()
	return info
}

// Work counts everything the pipelines have done; it stands still while they are idle.
func (x *Indexer) Work() (n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, g := range x.generations {
		n += g.counts.changes.Load() + g.counts.documents.Load()
	}
	return n
}
