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
	"maps"
	"runtime"
	"slices"
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
	// Letters are the dead letters again, to be listed and settled.
	Letters  stream.Letters
	Register stream.Register
	Store    vectordb.Store
	// Build makes a recipe's parts, with its defaults filled in. It is called for every generation at start, and blocks whoever waits for it until
	// ctx ends. dim is the dimension of the generation's vectors; 0 for a new one. An *embedder.Error or a *chunker.Error that is Temporary is tried again; any other means
	// that the recipe can't be built.
	Build func(ctx context.Context, r vectordb.Recipe, dim int) (Parts, error)
	// Recipe makes the first generation of an empty corpus.
	Recipe vectordb.Recipe
	// RecipeAsked: somebody chose Recipe, and wants to know if the live generation was made by another. Defaults to false.
	RecipeAsked bool
	// Shared: the store is shared by several processes, so positions are kept by a consumer group. Defaults to false.
	Shared bool
	// Observe: other processes index; this one follows how far they have come. It needs Shared. Defaults to false.
	Observe bool
	// Groups tells how far other processes have come. Required if Shared.
	Groups stream.Groups
	// MaxInFlightBytes bounds what has been read and is not yet applied, for each generation. Defaults to 64 MiB.
	MaxInFlightBytes int64
	// Account outlives the process, so that GET /generations tells what a generation took in all. nil: its figures begin with the process.
	Account Account
	// Gate measures what a promote may be made to depend on. nil: nothing does.
	Gate Gate
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
	// Outside tells that the chunker is somebody else's program: it works on its own time, and may fail.
	Outside bool
	// Embedder takes the lane of a call from its context.
	Embedder embedder.Embedder
	// Providers tells how it stands with each endpoint of the model, the preferred one first; nil if it runs in this process.
	Providers func() []embedder.Provider
	// Here tells that the model runs on this machine, so that measuring its speed costs nothing.
	Here bool
	// Price is what a million of the model's tokens costs, in US dollars; 0: nothing, or not known.
	Price float64
}

// cost is what so many of the model's tokens cost, in US dollars.
func (p Parts) cost(tokens int64) float64 { return float64(tokens) * p.Price / 1e6 }

// usage is to be told what a call sends to the model: its tokens too, where they may cost something.
func (p Parts) usage() *embedder.Usage {
	return &embedder.Usage{CountTokens: p.Price > 0 || !p.Here}
}

func (p Parts) providers() []embedder.Provider {
	if p.Providers == nil {
		return nil
	}
	return p.Providers()
}

// provider is the endpoint that requests go to now; the zero value where there is none.
func (p Parts) provider() embedder.Provider { return inUse(p.providers()) }

// inUse is the first that is not away, or else the first of all.
func inUse(providers []embedder.Provider) (first embedder.Provider) {
	for i, at := range providers {
		if !at.Away() {
			return at
		}
		if i == 0 {
			first = at
		}
	}
	return first
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
	tail      *tail
	verifying atomic.Bool
	job       job
	ctx       context.Context // of Run
	running   chan struct{}   // closed when Run has started
	answering chan struct{}   // closed when there is a live generation

	follows baton // one follow at a time
	mu      sync.Mutex
	current int64 // sequence of the control value that was followed last
	control control
	// generations hold what the control value names; a dropped one stays until its space is freed.
	generations map[string]*generation
	live        atomic.Pointer[generation]
	changed     chan struct{} // closed and replaced when generations changes
	wg          sync.WaitGroup
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
	x := &Indexer{
		config:      config,
		gate:        newGate(runtime.GOMAXPROCS(0)),
		freshness:   newFreshness(config.SLO),
		hub:         newHub(),
		running:     make(chan struct{}),
		answering:   make(chan struct{}),
		follows:     newBaton(),
		generations: make(map[string]*generation),
		changed:     make(chan struct{}),
		current:     -1,
	}
	x.tail = newTail(x)
	return x
}

// Run indexes until ctx ends, then stops every pipeline and waits for them: what was applied is durable, and what was not is read again.
// It returns early only when the control topic can't be used.
func (x *Indexer) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	x.ctx = ctx
	close(x.running)
	defer func() {
		cancel()
		_ = x.follows.take(context.Background()) // what it starts is waited for, and nothing is started later
		x.follows.give()
		x.wg.Wait()
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, g := range x.generations {
			g.account()
		}
	}()
	x.wg.Go(func() { x.observe(ctx) })
	if x.config.Shared {
		x.wg.Go(func() { x.watch(ctx) })
	}
	if x.config.Observe {
		x.wg.Go(func() { x.tail.run(ctx) })
	}
	if err := x.obey(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// obey does what the control value says, and goes on doing so, until ctx ends or the value can't be read.
func (x *Indexer) obey(ctx context.Context) error {
	sequence, c, err := x.load(ctx)
	if err != nil {
		return err
	}
	if c.Live == "" {
		if err := x.createFirst(ctx); err != nil || ctx.Err() != nil {
			return err
		}
	} else if err := x.follow(ctx, sequence, c); err != nil {
		return err
	}
	x.forgetUnknown(ctx)
	if x.config.RecipeAsked {
		x.adviseRecipe()
	}
	for {
		x.mu.Lock()
		above := x.current
		x.mu.Unlock()
		sequence, value, err := x.config.Register.Wait(ctx, above)
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

// createFirst makes the first generation, once its model answers.
func (x *Indexer) createFirst(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		_, err := x.create(ctx, Replay{Recipe: x.config.Recipe}, true)
		away, retryAfter := temporary(err)
		switch {
		case err == nil || ctx.Err() != nil:
			return nil
		case !away:
			return fmt.Errorf("make the first generation: %w", err)
		}
		x.config.Logger.Warn("what the first generation is made with does not answer, trying again", "recipe", describe(x.config.Recipe), "error", err)
		if sleep(ctx, max(backoff(attempt), retryAfter)) != nil {
			return nil
		}
	}
}

// build makes a recipe's parts. ErrRecipe: trying again is useless.
func (x *Indexer) build(ctx context.Context, r vectordb.Recipe, dim int) (Parts, error) {
	parts, err := x.config.Build(ctx, r, dim)
	if away, _ := temporary(err); err != nil && !away {
		err = fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	return parts, err
}

// temporary tells whether a model or a chunker may answer later, and when at the earliest.
func temporary(err error) (bool, time.Duration) {
	var model *embedder.Error
	if errors.As(err, &model) {
		return model.Temporary, model.RetryAfter
	}
	var cut *chunker.Error
	return errors.As(err, &cut) && cut.Temporary, 0
}

// adviseRecipe tells an operator who configured another recipe than the live one's how to get it.
func (x *Indexer) adviseRecipe() {
	g := x.live.Load()
	parts, err := x.build(x.ctx, x.config.Recipe, 0)
	if g == nil || err != nil || parts.fingerprint() == g.made.Fingerprint {
		return
	}
	x.config.Logger.Warn("the live generation was made by another recipe than the configured one; it goes on serving. Replay and promote to change it",
		"live", describe(g.recipe), "configured", describe(parts.Recipe), "command", "liverag replay")
}

// follow makes this process do what a control value says. Older values than the last one are ignored.
func (x *Indexer) follow(ctx context.Context, sequence int64, c control) error {
	select {
	case <-x.running:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := x.follows.take(ctx); err != nil {
		return err
	}
	defer x.follows.give()
	if err := x.ctx.Err(); err != nil {
		return fmt.Errorf("the indexer has stopped: %w", err)
	}
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
		if g != nil && g.group != spec.Group { // dropped and made again
			g.halt()
			g.account()
			g = nil
		}
		if g == nil {
			g = newGeneration(x, spec)
			x.mu.Lock()
			x.generations[name] = g
			x.mu.Unlock()
			starting = append(starting, g)
		} else {
			g.want(spec.Desired)
			g.date(spec)
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
		g.account()
	}
	for _, g := range starting {
		g.begin()
	}
	// The alias moves here: one pointer, so that a query sees the one generation or the other.
	if live != nil {
		before := x.live.Swap(live)
		if before == nil {
			close(x.answering)
		}
		if store, ok := x.config.Store.(vectordb.Aliased); ok && before != live && !x.config.Observe {
			x.wg.Go(func() { x.alias(store, live) })
		}
	}
	x.mu.Lock()
	close(x.changed)
	x.changed = make(chan struct{})
	all := slices.Collect(maps.Values(x.generations))
	x.mu.Unlock()
	for _, g := range all {
		switch g.desired() {
		case Run:
			g.run()
		case drop:
			if x.config.Observe {
				g.halt() // whoever writes it drops it
				continue
			}
			x.wg.Go(func() { x.finishDrop(g) })
		default:
			g.halt()
		}
	}
	return nil
}

// forgetUnknown drops what the store holds of this log and the control value does not name: generations that were dropped while this process was away.
func (x *Indexer) forgetUnknown(ctx context.Context) {
	if x.config.Shared {
		return // another process may just be making it
	}
	stored, err := x.config.Store.List(ctx)
	if err != nil {
		x.config.Logger.Warn("the store can't list its generations", "error", err)
		return
	}
	for _, g := range stored {
		x.mu.Lock()
		_, known := x.control.Generations[g.Name]
		x.mu.Unlock()
		if known {
			continue
		}
		x.config.Logger.Info("the store holds a generation that was dropped; its space is freed", "generation", g.Name)
		if err := x.config.Store.Drop(ctx, g.Name); err != nil {
			x.config.Logger.Warn("its space is not freed", "generation", g.Name, "error", err)
		}
	}
}

// alias moves the store's own name of the live generation, until it is done or another generation is live.
func (x *Indexer) alias(store vectordb.Aliased, live *generation) {
	for attempt := 1; x.ctx.Err() == nil && x.live.Load() == live; attempt++ {
		_, err := live.usable()
		if err == nil {
			err = store.Promote(x.ctx, live.name)
		}
		if err == nil {
			return
		}
		if attempt == 5 {
			x.config.Logger.Warn("the store's alias does not follow the live generation, trying again; answers are not affected", "generation", live.name, "error", err)
		}
		_ = sleep(x.ctx, backoff(attempt))
	}
}

// finishDrop does the second half of a drop: it frees the space, then forgets the name.
func (x *Indexer) finishDrop(g *generation) {
	if !g.dropping.CompareAndSwap(false, true) {
		return
	}
	g.halt()
	for attempt := 1; x.ctx.Err() == nil; attempt++ {
		// The name may have been given to another generation since.
		err := x.change(x.ctx, func(c *control) error {
			if spec, ok := c.Generations[g.name]; !ok || spec.Group != g.group || spec.Desired != drop {
				return errGone
			}
			return errUnchanged
		})
		if errors.Is(err, errGone) {
			return
		}
		if err == nil {
			err = x.config.Store.Drop(x.ctx, g.name)
		}
		if err == nil {
			err = x.change(x.ctx, func(c *control) error {
				if spec, ok := c.Generations[g.name]; !ok || spec.Group != g.group {
					return errUnchanged
				}
				delete(c.Generations, g.name)
				return nil
			})
		}
		if err == nil {
			return
		}
		if x.ctx.Err() == nil {
			x.config.Logger.Warn("drop does not finish, trying again", "generation", g.name, "error", err)
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

// observe keeps the state of generations, and their ends and accounts, up to date.
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
			g.account()
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
	g := x.generations[name]
	x.mu.Unlock()
	if g == nil || g.desired() == drop {
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
	if _, err := g.usable(); err != nil {
		return fmt.Errorf("the live generation %s can't be used: %w", g.name, err)
	}
	if g.progress.empty() {
		return errors.New("the log is being opened")
	}
	if g.progress.doubtful() {
		return fmt.Errorf("the live generation %s may hold documents that were deleted while nobody read the log; it is being compared with the log", g.name)
	}
	return nil
}

// Lookup returns the parts of the generation or alias of that name, for whoever queries it.
func (x *Indexer) Lookup(name string) (Info, Parts, error) {
	g := x.lookup(name)
	if g == nil {
		return Info{}, Parts{}, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	parts, err := g.usable()
	if err != nil {
		return Info{}, Parts{}, err
	}
	return Info{Name: g.name, Recipe: parts.Recipe}, parts, nil
}

func newID() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// State is how far a generation is.
type State string

const (
	StateBuilding State = "building"
	StatePaused   State = "paused"
	StateReady    State = "ready"
	// StatePartial: caught up, with a part of the log.
	StatePartial   State = "partial"
	StateFailed    State = "failed"
	StateCancelled State = "cancelled"
)

// Info describes a generation.
type Info struct {
	Name   string          `json:"name"`
	Alias  []string        `json:"alias"`
	State  State           `json:"state"`
	Recipe vectordb.Recipe `json:"recipe"`
	Extent
	// Share of the model's time that it may take while it is not live; absent: all.
	Share    float64         `json:"share,omitempty"`
	Created  time.Time       `json:"created_at"`
	Progress Progress        `json:"progress"`
	Stats    *vectordb.Stats `json:"stats,omitempty"`
	// Lag counts changes of the log that are not searchable in it yet.
	Lag     int64     `json:"lag"`
	AsOf    time.Time `json:"as_of,omitzero"`
	Trouble *Trouble  `json:"trouble,omitempty"`
	// Reconciling is set while deletes may have been missed: until it was compared with the log, the generation is not ready.
	Reconciling *Reconciling `json:"reconciling,omitempty"`
}

// Progress is how far a generation is.
type Progress struct {
	Changes   int64   `json:"changes"`
	Of        int64   `json:"of"`
	Percent   float64 `json:"percent"`
	ETA       string  `json:"eta,omitempty"`
	Documents int64   `json:"documents"`
	Chunks    int64   `json:"chunks"`
	// Work is nil, and its members are absent, in a process that indexes nothing: it does not know what the others did.
	*Work
}

// Work is what was done for a generation since it was made: by this process, and by those before it as far as Config.Account knows.
type Work struct {
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

// Work counts everything the pipelines have done; it stands still while they are idle.
func (x *Indexer) Work() (n int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, g := range x.generations {
		n += g.counts.changes.Load() + g.counts.documents.Load()
	}
	return n
}
