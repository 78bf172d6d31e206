package indexer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// TestSimulation runs indexers on a log, stores and models that fail in every way they may, on a clock that costs no time, and looks at every moment
// at what a search would find.
//
// A seed decides what is written and what goes wrong. The order of goroutines that are due in the same moment, and the jitter of retries, it does not decide: a seed that failed
// may have to run a few times to fail again.
//
//	SIM_SEEDS=10000 go test ./indexer -run Simulation   as many seeds as wanted (default 500; 40 with -short or -race)
//	SIM_SEED=17 SIM_SEEDS=20 go test ./indexer -run Simulation   from seed 17 on
//	SIM_REPEAT=50 SIM_SEED=17 SIM_SEEDS=1 …   the same seed again and again
//	SIM_TRACE=2000 …   a trace of so many events (default 80)
func TestSimulation(t *testing.T) {
	first, seeds, repeat := setting("SIM_SEED", 1), setting("SIM_SEEDS", defaultSeeds), setting("SIM_REPEAT", 1)
	if testing.Short() && os.Getenv("SIM_SEEDS") == "" {
		seeds = 40
	}
	var failed atomic.Int64
	begun := time.Now()
	t.Cleanup(func() {
		t.Logf("%d of %d seeds failed, %.0f seeds/s; it was read on %d times behind history", failed.Load(), seeds*repeat, float64(seeds*repeat)/time.Since(begun).Seconds(), readsOn.Load())
		if seeds >= 400 && readsOn.Load() == 0 {
			t.Error("nobody read on")
		}
	})
	for seed := first; seed < first+seeds; seed++ {
		for range repeat {
			t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					if problem := simulate(t, uint64(seed)); problem != "" {
						failed.Add(1)
						t.Error(problem)
					}
				})
			})
		}
	}
}

// readsOn counts the sources of all worlds that leave history out.
var readsOn atomic.Int64

func setting(name string, value int) int {
	if s := os.Getenv(name); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			panic(fmt.Sprintf("%s=%s is no number", name, s))
		}
		return n
	}
	return value
}

// event is a record of the log, and all that the oracle knows of it.
type event struct {
	key     string
	change  *stream.Change
	poison  bool // no model or no store takes it
	at      stream.Position
	version int64
	entered time.Time // when it was acknowledged; zero: in a transaction that is open, or was aborted
	aborted bool
	removed atomic.Bool // by compaction, because a newer change of the key is there
	// forgotten: removed although none is there, because it only says that something is not there any more.
	forgotten atomic.Bool
}

// clears tells whether the change is a tombstone.
func (e *event) clears() bool {
	return e.counts() && (e.change.Kind == stream.Delete || e.change.Kind == stream.Access && e.change.ACL == nil)
}

func (e *event) counts() bool { return !e.aborted && !e.entered.IsZero() }

// truth is everything that was written to one incarnation of the log.
type truth struct {
	mu    sync.Mutex
	all   []*event
	byKey map[string][]*event
	cut   map[cutText]pieces
}

type cutText struct {
	recipe vectordb.Recipe
	text   string
}

func newTruth() *truth {
	return &truth{byKey: map[string][]*event{}, cut: map[cutText]pieces{}}
}

func (t *truth) add(e *event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, e)
	t.byKey[e.key] = append(t.byKey[e.key], e)
}

// pieces is what a recipe makes of a text. t.mu is held.
func (t *truth) pieces(recipe vectordb.Recipe, text string) pieces {
	key := cutText{recipe, text}
	out, ok := t.cut[key]
	if !ok {
		out = cut(recipe, text)
		t.cut[key] = out
	}
	return out
}

// check says what is wrong with a document as it is shown.
func (t *truth) check(recipe vectordb.Recipe, rev *vectordb.Revision) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	content, access := rev.Version == 0, rev.Access.Version == 0
	for _, e := range t.byKey[rev.Key] {
		switch {
		case e.forgotten.Load() && e.change.Kind == stream.Delete && rev.Deleted && rev.Version < e.version:
			content = true
		case e.forgotten.Load() && e.change.Kind == stream.Access && rev.Access.Clear && rev.Access.Version <= e.version:
			access = true
		case e.version == rev.Version && e.change.Kind == stream.Upsert && rev.Deleted && t.forgetsAfter(e):
			content = true
		case e.version == rev.Access.Version && e.change.Kind == stream.Access && rev.Access.Clear && t.forgetsAfter(e):
			access = true // what took it back is forgotten, and was noticed before this one was ever read
		case e.version == rev.Version && e.change.Kind != stream.Access:
			content = true
			if problem := t.checkContent(recipe, rev, e); problem != "" {
				return problem
			}
		case e.version == rev.Access.Version && e.change.Kind == stream.Access:
			access = true
			if !e.counts() || rev.Access.Clear != (e.change.ACL == nil) || !slices.Equal(rev.Access.ACL, e.change.ACL) {
				return fmt.Sprintf("its access is %v, and was changed to %v", rev.Access, e.change.ACL)
			}
		}
	}
	if !content || !access {
		return "no change has this version"
	}
	return ""
}

// forgetsAfter tells whether what took a change back, a delete or an access record, came after it and is forgotten. t.mu is held.
func (t *truth) forgetsAfter(e *event) bool {
	return slices.ContainsFunc(t.byKey[e.key], func(o *event) bool {
		return o.version > e.version && o.forgotten.Load() && (o.change.Kind == stream.Access) == (e.change.Kind == stream.Access)
	})
}

// forgotten tells whether the newest content and access of a key are tombstones that the log has forgotten.
func (t *truth) forgotten(key string) (content, access bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, a := t.newest(key)
	return c != nil && c.forgotten.Load(), a != nil && a.forgotten.Load()
}

// lost returns the tombstones that entered before a moment and are forgotten.
func (t *truth) lost(at time.Time) (out []*event) {
	for _, e := range t.before(at) {
		if e.forgotten.Load() {
			out = append(out, e)
		}
	}
	return out
}

func (t *truth) checkContent(recipe vectordb.Recipe, rev *vectordb.Revision, e *event) string {
	switch {
	case e.aborted:
		return "its transaction was aborted"
	case e.entered.IsZero():
		return "its transaction is open"
	case e.poison || e.change.Kind == stream.Invalid:
		return "it should have been refused"
	case rev.Deleted != (e.change.Kind == stream.Delete):
		return fmt.Sprintf("deleted is %v after %v", rev.Deleted, e.change.Kind)
	case rev.Deleted:
		if len(rev.Entries) > 0 || rev.Text != "" {
			return "it was deleted and has text"
		}
		return ""
	}
	doc := e.change.Document
	updated := doc.UpdatedAt
	if updated.IsZero() {
		updated = e.change.Time
	}
	switch {
	case rev.Text != doc.Text:
		return fmt.Sprintf("its text is %q, not %q", rev.Text, doc.Text)
	case rev.Title != doc.Title || rev.URL != doc.URL || rev.ContentType != stream.TextPlain || rev.Tenant != e.change.Tenant:
		return "its title, URL, type or tenant is another version's"
	case !slices.Equal(rev.ACL, doc.ACL) || (rev.ACL == nil) != (doc.ACL == nil):
		return fmt.Sprintf("its access list is %v, not %v", rev.ACL, doc.ACL)
	case !reflect.DeepEqual(rev.Metadata, doc.Metadata):
		return fmt.Sprintf("its metadata is %v, not %v", rev.Metadata, doc.Metadata)
	case !rev.UpdatedAt.Equal(updated.Truncate(time.Microsecond)) || !rev.LoggedAt.Equal(e.change.Time.Truncate(time.Microsecond)):
		return "its times are another version's"
	}
	want := t.pieces(recipe, doc.Text).entries
	if len(rev.Entries) != len(want) {
		return fmt.Sprintf("it has %d chunks instead of %d", len(rev.Entries), len(want))
	}
	for i, e := range rev.Entries {
		w := want[i]
		if e.Start != w.Start || e.End != w.End || e.Tokens != w.Tokens || e.Hash != w.Hash {
			return fmt.Sprintf("chunk %d is [%d:%d) instead of [%d:%d)", i, e.Start, e.End, w.Start, w.End)
		}
		if !slices.Equal(e.Vector, w.Vector) {
			return fmt.Sprintf("the vector of chunk %d, %q, is another's", i, rev.Text[e.Start:e.End])
		}
	}
	return ""
}

// between returns what counts of a partition from one offset to before another.
func (t *truth) between(partition int32, from, to int64) (out []*event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.all {
		if e.at.Partition == partition && e.at.Offset >= from && e.at.Offset < to && e.counts() {
			out = append(out, e)
		}
	}
	return out
}

// before returns what counts of what was acknowledged before a moment.
func (t *truth) before(at time.Time) (out []*event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.all {
		if e.counts() && e.entered.Before(at) {
			out = append(out, e)
		}
	}
	return out
}

// newest returns a key's last content and access that count and can be indexed. t.mu is held.
func (t *truth) newest(key string) (content, access *event) {
	for _, e := range t.byKey[key] {
		switch {
		case !e.counts() || e.poison || e.change.Kind == stream.Invalid:
		case e.change.Kind == stream.Access:
			access = e
		default:
			content = e
		}
	}
	return content, access
}

// fold is the versions that every document ends up with.
func (t *truth) fold() map[string]versions {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]versions{}
	for key := range t.byKey {
		var v versions
		content, access := t.newest(key)
		if content != nil {
			v.content = content.version
		}
		if access != nil {
			v.access = access.version
		}
		if v != (versions{}) {
			out[key] = v
		}
	}
	return out
}

// pastChunk is a chunk of some version of some document.
type pastChunk struct {
	tenant, input, text string
	current             bool // it is in a document that everybody may read
}

// chunks returns every chunk of every version ever written.
func (t *truth) chunks(recipe vectordb.Recipe) map[string]*pastChunk {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]*pastChunk{}
	for key, events := range t.byKey {
		content, access := t.newest(key)
		for _, e := range events {
			doc := e.change.Document
			if doc == nil {
				continue
			}
			readable := vectordb.Revision{ACL: doc.ACL, Tenant: e.change.Tenant}
			if access != nil {
				readable.Access = vectordb.Access{Version: access.version, Clear: access.change.ACL == nil, ACL: access.change.ACL}
			}
			cut := t.pieces(recipe, doc.Text)
			for i, input := range cut.inputs {
				text := doc.Text[cut.entries[i].Start:cut.entries[i].End]
				name := e.change.Tenant + "\x00" + input
				if out[name] == nil {
					out[name] = &pastChunk{tenant: e.change.Tenant, input: input, text: text}
				}
				out[name].current = out[name].current || e == content && readable.ReadableBy(e.change.Tenant, []string{everybody})
			}
		}
	}
	return out
}

// world is one seed's simulation.
type world struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand // of the driver alone
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	begun  time.Time

	broker  *broker
	servers []*server
	truths  sync.Map // origin → *truth
	recipes sync.Map // fingerprint → vectordb.Recipe

	// What kind of world it is.
	shared  bool // one store for all, and a consumer group; else a store for each process
	delayed bool
	eager   bool
	faults  int  // per mille of the calls fail
	rough   bool // processes are killed and stalled
	chain   int  // what stands between the pipeline and the model
	away    bool // for longer than the log keeps deletes, nobody reads it
	deep    bool // most of what is written is history, more than there is memory for, and the model is slow

	processes []*process // running; of the driver alone
	started   int

	calm    atomic.Bool
	storms  sync.Map // operation → time until which every second call of it fails
	repeats atomic.Int64

	mu      sync.Mutex
	control control
	trace   []string
	failure string
	embeds  map[string]int // by model and input
	models  map[string]int // generations ever made, by model
	next    int            // paragraph
	docs    map[string][]string
	open    []*transaction
	planned int // generations
}

// control is what the indexers keep in the register.
type control struct {
	Live        string                  `json:"live"`
	Previous    string                  `json:"previous"`
	Generations map[string]indexer.Spec `json:"generations"`
}

const (
	everybody   = "group:all"
	otherTenant = "acme"
)

var recipes = []vectordb.Recipe{
	{Chunker: vectordb.ChunkerRecipe{Strategy: "paragraphs", Tokens: 1}, Embedder: vectordb.EmbedderRecipe{Model: "sim/a"}},
	{Chunker: vectordb.ChunkerRecipe{Strategy: "paragraphs", Tokens: 2}, Embedder: vectordb.EmbedderRecipe{Model: "sim/a"}},
	{Chunker: vectordb.ChunkerRecipe{Strategy: "paragraphs", Tokens: 1}, Embedder: vectordb.EmbedderRecipe{Model: "sim/b"}},
}

// simulate runs one seed, and says what went wrong.
func simulate(t *testing.T, seed uint64) string {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), begun: time.Now(), embeds: map[string]int{}, models: map[string]int{}, docs: map[string][]string{}}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.shared = w.chance(60)
	w.delayed = w.shared && w.chance(50)
	w.eager = w.chance(30)
	w.faults = []int{0, 10, 40, 100}[w.rng.IntN(4)]
	w.rough = w.chance(75)
	w.chain = w.rng.IntN(5)
	w.away = rand.New(rand.NewPCG(seed, 2)).IntN(100) < 25
	w.deep = rand.New(rand.NewPCG(seed, 3)).IntN(100) < 25
	w.broker = newBroker(w, 1+w.rng.IntN(4))
	w.run()
	w.calm.Store(true)
	for _, p := range slices.Clone(w.processes) {
		p.wake()
		p.stop()
	}
	if w.failed() == "" {
		w.checkTokens()
	}
	w.cancel()
	w.wg.Wait()
	if w.failure == "" {
		return ""
	}
	return fmt.Sprintf("%s\nseed %d: shared %v, delayed %v, eager %v, faults %d ‰, rough %v, chain %d, away %v, deep %v\n%s",
		w.failure, seed, w.shared, w.delayed, w.eager, w.faults, w.rough, w.chain, w.away, w.deep, strings.Join(w.trace, "\n"))
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

// go_ runs f until it returns, which it does at the latest when the world ends.
func (w *world) go_(f func()) { w.wg.Go(f) }

// event adds a line to the trace.
func (w *world) event(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if most := setting("SIM_TRACE", 80); len(w.trace) >= most {
		w.trace = slices.Delete(w.trace, 0, most/4)
	}
	w.trace = append(w.trace, fmt.Sprintf("%9.3fs ", time.Since(w.begun).Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) failf(format string, args ...any) {
	problem := fmt.Sprintf(format, args...)
	w.mu.Lock()
	first := w.failure == ""
	if first {
		w.failure = problem
	}
	w.mu.Unlock()
	if first {
		w.event("FAILED: %s", problem)
		w.calm.Store(true)
	}
}

func (w *world) failed() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failure
}

func (w *world) rollFor(n int, what ...any) int {
	return int(hash64(append([]any{w.seed}, what...)...) % uint64(n))
}

// rate is how many in a thousand calls of an operation fail.
func (w *world) rate(p *process, op string) int {
	if w.calm.Load() {
		return 0
	}
	if until, ok := w.storms.Load(op); ok && time.Now().Before(until.(time.Time)) {
		return 700
	}
	return w.faults
}

// learn reads the control value that was just set.
func (w *world) learn(sequence int64, value []byte) {
	var c control
	if err := json.Unmarshal(value, &c); err != nil {
		w.failf("the control value %q: %v", value, err)
		return
	}
	var names []string
	w.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(c.Generations)) {
		spec := c.Generations[name]
		w.recipes.Store(spec.Fingerprint, spec.Recipe)
		if old, ok := w.control.Generations[name]; !ok || old.Group != spec.Group {
			w.models[spec.Recipe.Embedder.Model]++
		}
		names = append(names, fmt.Sprintf("%s (%d, %s, %s)", name, spec.Recipe.Chunker.Tokens, spec.Recipe.Embedder.Model, spec.Desired))
	}
	w.control = c
	w.mu.Unlock()
	w.event("control %d: live %s, previous %q, of %v", sequence, c.Live, c.Previous, names)
	if live, ok := c.Generations[c.Live]; !ok || live.Desired != indexer.Run {
		w.failf("the control value names %q live, which is %+v", c.Live, live)
	}
}

func (w *world) generations() control {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.control
}

func generationOf(group string) string {
	// liverag.documents.<name>-<id>
	name := group[strings.LastIndexByte(group, '.')+1:]
	return name[:strings.LastIndexByte(name, '-')]
}

// process is an indexer and everything it is connected to.
type process struct {
	w       *world
	id      int
	server  *server
	observe bool
	indexer *indexer.Indexer
	ctx     context.Context
	cancel  context.CancelFunc
	ended   chan error
	dead    atomic.Bool
	cache   *embedder.VectorCache

	mu      sync.Mutex
	frozen  chan struct{} // closed when it wakes; nil: it is awake
	rolls   map[string]uint64
	sources []*source
}

// start begins a process on a store.
func (w *world) start(s *server, observe bool) *process {
	w.started++
	p := &process{w: w, id: w.started, server: s, observe: observe, ended: make(chan error, 1), rolls: map[string]uint64{}}
	p.ctx, p.cancel = context.WithCancel(w.ctx)
	w.broker.mu.Lock()
	connection := &port{process: p, origin: w.broker.origin()}
	w.broker.mu.Unlock()
	config := indexer.Config{
		Log: connection, DeadLetters: connection, Register: connection, Groups: connection,
		Store: storePort{p, s}, Build: p.build, Recipe: recipes[0], Shared: w.shared, Observe: observe,
		MaxInFlightBytes: 8 * int64(4<<10+w.rng.IntN(40<<10)), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if w.deep {
		config.MaxInFlightBytes /= 8
	}
	if s.delayed() {
		config.Store = delayedPort{storePort{p, s}}
	}
	if w.chain == 0 {
		var err error
		dir := filepath.Join(w.t.TempDir(), fmt.Sprint("cache", p.id))
		if p.cache, err = embedder.OpenCache(embedder.CacheConfig{Dir: dir}); err != nil {
			w.failf("%v", err)
		}
	}
	p.indexer = indexer.New(config)
	w.event("process %d starts on store %d; observes: %v", p.id, s.id, observe)
	go func() { p.ended <- p.indexer.Run(p.ctx) }()
	w.processes = append(w.processes, p)
	return p
}

func (p *process) build(ctx context.Context, r vectordb.Recipe, _ int) (indexer.Parts, error) {
	if err := p.call(ctx, "build", nil); err != nil {
		return indexer.Parts{}, &embedder.Error{Op: "simulated", Temporary: true, Input: -1, Err: err}
	}
	var chain embedder.Embedder = &model{p, r.Embedder.Model}
	switch {
	case p.cache != nil:
		chain = embedder.Cache(embedder.Batch(chain, embedder.BatchConfig{}), p.cache)
	case p.w.chain == 1:
		chain = embedder.Batch(chain, embedder.BatchConfig{Concurrency: 3, MaxInputs: 5})
	}
	return indexer.Parts{Recipe: r, Chunker: paragraphs{r.Chunker.Tokens}, Embedder: chain}, nil
}

// roll draws a number below n. It depends on the seed, the process, and how often it was drawn for the same purpose.
func (p *process) roll(what string, n int) int {
	p.mu.Lock()
	count := p.rolls[what]
	p.rolls[what]++
	p.mu.Unlock()
	return p.w.rollFor(n, p.id, what, count)
}

// pass blocks while the process is frozen, and fails when it is dead.
func (p *process) pass(ctx context.Context) error {
	for {
		if p.dead.Load() {
			return errDead
		}
		p.mu.Lock()
		frozen := p.frozen
		p.mu.Unlock()
		if frozen == nil {
			return nil
		}
		select {
		case <-frozen:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause is the time that a call takes.
func (p *process) pause(ctx context.Context, op string) error {
	var d time.Duration
	switch n := p.roll("pace "+op, 100); {
	case n < 60 || p.w.calm.Load():
	case n < 90:
		d = time.Duration(n*n) * time.Microsecond // 3.6 to 8 ms
	case n < 97:
		d = time.Duration(n) * time.Millisecond
	default:
		d = time.Duration(n-96) * 400 * time.Millisecond
	}
	if p.w.deep && op == "embed" && !p.w.calm.Load() {
		d += time.Duration(p.roll("slow", 2500)) * time.Millisecond
	}
	if d > 0 {
		if err := sleepOr(ctx, d); err != nil {
			return err
		}
	}
	return p.pass(ctx)
}

// call is one request to something outside of the process. It may take its time, fail before it did anything, or fail after it did.
func (p *process) call(ctx context.Context, op string, do func() error) error {
	if err := p.pass(ctx); err != nil {
		return err
	}
	if err := p.pause(ctx, op); err != nil {
		return err
	}
	fate, rate := p.roll("fate "+op, 1000), p.w.rate(p, op)
	if fate < rate/2 {
		return errUnreachable
	}
	var err error
	if do != nil {
		err = do()
	}
	if err == nil && fate < rate {
		err = errTimeout
	}
	if gone := p.pass(ctx); gone != nil {
		return gone
	}
	return err
}

func (p *process) opened(s *source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sources = append(p.sources, s)
}

func (p *process) shut(s *source) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sources = slices.DeleteFunc(p.sources, func(o *source) bool { return o == s })
}

// leave ends the sessions of everything that the process reads with. close: for ever.
func (p *process) leave(close bool) {
	p.w.broker.mu.Lock()
	defer p.w.broker.mu.Unlock()
	p.mu.Lock()
	sources := slices.Clone(p.sources)
	p.mu.Unlock()
	for _, s := range sources {
		if s.group != nil {
			p.w.broker.expel(s)
		}
		s.closed = s.closed || close
	}
}

// freeze stops a process for a while, as SIGSTOP does. The cluster gives up on it after a session's time.
func (p *process) freeze(d time.Duration) {
	p.w.event("process %d freezes for %v", p.id, d)
	p.w.repeats.Add(1)
	frozen := make(chan struct{})
	p.mu.Lock()
	p.frozen = frozen
	p.mu.Unlock()
	p.w.go_(func() {
		if d > sessionTimeout {
			if !sleepUnless(p.ctx, frozen, sessionTimeout) {
				return
			}
			p.leave(false)
			d -= sessionTimeout
		}
		if sleepUnless(p.ctx, frozen, d) {
			p.wake()
		}
	})
}

// wake lets a frozen process go on.
func (p *process) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frozen != nil {
		p.w.event("process %d wakes", p.id)
		close(p.frozen)
		p.frozen = nil
	}
}

func (p *process) isFrozen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frozen != nil
}

// gone is called when the process has ended.
func (p *process) gone() {
	p.w.repeats.Add(1)
	p.w.processes = slices.DeleteFunc(p.w.processes, func(o *process) bool { return o == p })
	if p.cache != nil {
		p.cache.Close()
	}
}

// stop ends a process in order.
func (p *process) stop() {
	p.wake()
	p.w.event("process %d stops", p.id)
	p.cancel()
	if err := <-p.ended; err != nil && p.w.faults == 0 && !errors.Is(err, stream.ErrLogChanged) {
		p.w.failf("process %d ended with %v", p.id, err)
	}
	p.gone()
}

// kill ends a process at once.
func (p *process) kill(power bool) {
	p.w.event("process %d is killed; power fails: %v", p.id, power)
	p.dead.Store(true)
	p.cancel()
	p.wake()
	<-p.ended
	p.gone()
	if power {
		p.server.losePower(p.w.rng.IntN(1000))
	}
	p.w.go_(func() {
		if sleepOr(p.w.ctx, sessionTimeout) == nil {
			p.leave(true)
		}
	})
}

// embedded notes what a model was paid for.
func (p *process) embedded(model string, inputs []string) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	for _, input := range inputs {
		p.w.embeds[model+"\x00"+input]++
	}
}

// run is the driver: it writes, breaks things, and looks.
func (w *world) run() {
	copies := 1
	if w.shared {
		copies = 2 + w.rng.IntN(3)
		s := newServer(w, 1, true, w.delayed)
		w.servers = append(w.servers, s)
		for i := range copies {
			w.start(s, i == copies-1)
		}
	} else {
		if w.chance(30) {
			copies = 2
		}
		for i := range copies {
			w.servers = append(w.servers, newServer(w, i+1, false, false))
			w.start(w.servers[i], false)
		}
	}
	steps := 30 + w.rng.IntN(40)
	for step := range steps {
		if w.failed() != "" {
			return
		}
		if w.away && step == steps/2 {
			w.leave()
		}
		w.step()
		w.look()
		if w.chance(2) || step == steps-1 {
			w.quiet()
		}
		switch n := w.rng.IntN(100); {
		case n < 40:
			time.Sleep(time.Duration(w.rng.IntN(20)) * time.Millisecond)
		case n < 90:
			time.Sleep(time.Duration(w.rng.IntN(300)) * time.Millisecond)
		default:
			time.Sleep(time.Duration(w.rng.IntN(2000)) * time.Millisecond)
		}
	}
	if w.failed() == "" && w.chance(20) {
		w.anotherLog(w.chance(50))
	}
}

// anotherLog makes the topic anew, or adds a partition to it, in the middle of everything. Nothing of the other log may get into the indexes of this one, no index of this one may
// say that it is fresh, and each has to say what to do. Of the new topic an index can be built and promoted as of any other.
func (w *world) anotherLog(recreated bool) {
	w.event("another log; the topic is made again: %v", recreated)
	old := w.generations()
	begun := time.Now()
	if recreated {
		w.broker.recreate()
	} else {
		w.broker.grow()
	}
	w.write(10)
	time.Sleep(30 * time.Second)
	check := func() {
		for _, p := range w.processes {
			for name, spec := range old.Generations {
				if now, ok := w.generations().Generations[name]; !ok || now.Group != spec.Group || now.Desired != indexer.Run {
					continue
				}
				info, err := p.indexer.Info(name)
				if status := p.indexer.Status(name); status.AsOf.After(begun) || err != nil || info.State != indexer.StateFailed || info.Trouble == nil || !strings.Contains(info.Trouble.Detail, "anew") && !strings.Contains(info.Trouble.Detail, "replay") {
					w.failf("the log is another one since %v, and process %d says that %s is %s, as of %v, trouble %+v, %v", begun.Sub(w.begun), p.id, name, info.State, status.AsOf.Sub(w.begun), info.Trouble, err)
				}
			}
		}
		for _, s := range w.servers {
			for name := range old.Generations {
				s.answers(name)
			}
		}
	}
	check()
	w.calm.Store(true)
	for _, p := range slices.Clone(w.processes) {
		p.stop()
		w.start(p.server, p.observe)
	}
	time.Sleep(20 * time.Second)
	check()
	if !recreated || w.failed() != "" {
		return // documents of which the partition has changed have no order
	}
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	x := w.processes[0].indexer
	if _, err := x.Create(ctx, "anew", recipes[0]); err != nil {
		w.failf("an index of the new topic can't be made: %v", err)
		return
	}
	for {
		_, err := w.promoted(w.processes[0], func() (indexer.Info, error) { return x.Promote(ctx, "anew") })
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			w.failf("the index of the new topic can't be promoted: %v\n%s", err, w.broker.describe())
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	for name := range old.Generations {
		if err := x.Drop(ctx, name); err != nil && !errors.Is(err, indexer.ErrNotFound) {
			w.failf("the index of the old topic can't be dropped: %v", err)
		}
	}
	w.write(10)
	w.quiet()
}

// step does one thing.
func (w *world) step() {
	p := w.processes[w.rng.IntN(len(w.processes))]
	switch n := w.rng.IntN(100); {
	case n < 50:
		w.write(1 + w.rng.IntN(6))
	case n < 55:
		key := w.key()
		for range 2 + w.rng.IntN(20) {
			w.append(nil, w.change(key))
		}
	case n < 60:
		t := &transaction{}
		for range 1 + w.rng.IntN(4) {
			w.append(t, w.change(w.key()))
		}
		w.open = append(w.open, t)
	case n < 64:
		w.endTransactions()
	case n < 67:
		w.broker.compact()
	case n < 72:
		ops := []string{"apply", "current", "embed", "commit", "visible", "letters", "ends", "load", "set", "committed"}
		op := ops[w.rng.IntN(len(ops))]
		if w.faults > 0 {
			w.event("every second %s fails for a while", op)
			w.storms.Store(op, time.Now().Add(time.Duration(200+w.rng.IntN(3000))*time.Millisecond))
		}
	case n < 84 && w.rough:
		w.disturb(p)
	case n < 98:
		w.govern(p)
	default:
		w.supervise()
	}
}

// disturb does something to a process.
func (w *world) disturb(p *process) {
	switch n := w.rng.IntN(10); {
	case n < 4:
		p.kill(!w.shared && w.chance(40))
		w.replace(p)
	case n < 6:
		p.stop()
		w.replace(p)
	case n < 9:
		if p.isFrozen() {
			break
		}
		d := time.Duration(100+w.rng.IntN(6000)) * time.Millisecond
		if w.chance(20) { // right after a write, and nothing more until it is over
			w.write(3)
			time.Sleep(time.Duration(w.rng.IntN(150)) * time.Millisecond)
			p.freeze(d)
			time.Sleep(d)
			w.quiet()
			break
		}
		p.freeze(d)
	case w.shared:
		w.start(p.server, false)
	}
	if len(w.processes) > 5 {
		w.processes[0].stop()
	}
	w.supervise()
}

// leave ends every process that writes a store, and has the log forget what is deleted meanwhile before they are back. Whoever only reads the store may stay.
func (w *world) leave() {
	var back []*process
	store := w.processes[w.rng.IntN(len(w.processes))].server
	for _, p := range slices.Clone(w.processes) {
		if p.server != store || p.observe && w.chance(50) {
			continue
		}
		back = append(back, p)
		if w.chance(50) {
			p.kill(false)
		} else {
			p.stop()
		}
	}
	w.event("nobody writes store %d", store.id)
	w.endTransactions()
	for range w.rng.IntN(8) {
		w.append(nil, w.change(w.key()))
	}
	for range 1 + w.rng.IntN(4) {
		for _, kind := range []stream.Kind{stream.Delete, stream.Access}[:1+w.rng.IntN(2)] {
			key := w.key()
			tenant, id := stream.SplitKey(key)
			w.append(nil, &event{key: key, change: &stream.Change{Kind: kind, Tenant: tenant, ID: id, Raw: &stream.Raw{Topic: "documents", Key: []byte(key)}, Size: 50}})
		}
	}
	if w.chance(30) { // otherwise the log ends with what is forgotten
		time.Sleep(keepsDeletes / 2)
		w.append(nil, w.change(w.key()))
	}
	time.Sleep(keepsDeletes + time.Second)
	w.broker.compact()
	if w.chance(50) {
		w.broker.expire()
	}
	for _, p := range back {
		w.start(p.server, p.observe)
	}
	if w.chance(50) {
		w.quiet()
	}
}

// replace starts a process in the place of one that ended, now or later.
func (w *world) replace(p *process) {
	if len(w.processes) == 0 || !w.shared || w.chance(70) {
		w.start(p.server, p.observe)
	}
}

// supervise starts again what ended by itself, and what is needed.
func (w *world) supervise() {
	writers := 0
	for _, p := range slices.Clone(w.processes) {
		select {
		case err := <-p.ended:
			w.event("process %d ended: %v", p.id, err)
			if w.faults == 0 {
				w.failf("process %d ended by itself: %v", p.id, err)
			}
			p.cancel()
			p.dead.Store(true)
			p.gone()
			p.leave(true)
			w.start(p.server, p.observe)
		default:
		}
	}
	for _, p := range w.processes {
		if !p.observe {
			writers++
		}
	}
	if writers == 0 {
		w.start(w.servers[0], false)
	}
}

// govern makes, promotes, stops and drops generations.
func (w *world) govern(p *process) {
	c := w.generations()
	names := slices.Sorted(maps.Keys(c.Generations))
	if len(names) == 0 {
		return
	}
	name := names[w.rng.IntN(len(names))]
	ctx, cancel := context.WithTimeout(p.ctx, 20*time.Second)
	x := p.indexer
	ask := func(what string, do func() (indexer.Info, error)) {
		w.go_(func() {
			defer cancel()
			_, err := do()
			w.event("process %d: %s: %v", p.id, what, err)
		})
	}
	switch n := w.rng.IntN(12); {
	case n < 4 && len(names) < 3:
		recipe := recipes[w.rng.IntN(len(recipes))]
		w.planned++
		fresh := fmt.Sprint("g", w.planned)
		ask("create "+fresh, func() (indexer.Info, error) { return x.Create(ctx, fresh, recipe) })
	case n < 7:
		ask("promote "+name, func() (indexer.Info, error) {
			return w.promoted(p, func() (indexer.Info, error) { return x.Promote(ctx, name) })
		})
	case n < 8:
		ask("roll back", func() (indexer.Info, error) {
			return w.promoted(p, func() (indexer.Info, error) { return x.Rollback(ctx) })
		})
	case n < 10:
		ask("drop "+name, func() (indexer.Info, error) { return indexer.Info{}, x.Drop(ctx, name) })
	case n < 11:
		w.repeats.Add(1)
		ask("pause "+name, func() (indexer.Info, error) { return x.Set(ctx, name, indexer.Pause) })
	default:
		ask("run "+name, func() (indexer.Info, error) { return x.Set(ctx, name, indexer.Run) })
	}
}

// promoted moves the alias, and checks that the generation that answers from then on holds everything that was in the log before.
func (w *world) promoted(p *process, move func() (indexer.Info, error)) (indexer.Info, error) {
	begun, was := time.Now(), w.generations().Live
	info, err := move()
	c := w.generations()
	if err != nil || info.Name == was || c.Generations[info.Name].Origin != w.broker.currentOrigin() {
		return info, err
	}
	t, _ := w.truths.Load(c.Generations[info.Name].Origin)
	if lost, ok := p.server.searchable(info.Name, t.(*truth).before(begun)); !ok && !p.dead.Load() {
		w.failf("process %d promoted %s, and version %d of %s, which entered %v before, is not searchable in it", p.id, info.Name, lost.version, lost.key, begun.Sub(lost.entered))
	}
	if lost, ok := p.server.ghost(info.Name, t.(*truth), begun); ok && !p.dead.Load() {
		w.failf("process %d promoted %s, and what version %d of %s took away %v before is still in it", p.id, info.Name, lost.version, lost.key, begun.Sub(lost.entered))
	}
	return info, nil
}

func (w *world) key() string {
	n := w.rng.IntN(9)
	if n == 8 {
		return stream.Key(otherTenant, "letter")
	}
	return fmt.Sprint("doc", n)
}

// write appends changes, some of them twice, and has somebody wait for some.
func (w *world) write(n int) {
	var written []*event
	for range n {
		e := w.change(w.key())
		w.append(nil, e)
		written = append(written, e)
		if w.chance(5) { // an append that was repeated because its answer was lost
			change := *e.change
			w.append(nil, &event{key: e.key, change: &change, poison: e.poison})
		}
	}
	if w.chance(60) {
		w.await(w.processes[w.rng.IntN(len(w.processes))], written)
	}
}

func (w *world) append(t *transaction, e *event) {
	w.broker.append(t, e)
	w.event("%v %q is %d/%d, version %d; poison: %v, in a transaction: %v", e.change.Kind, e.key, e.at.Partition, e.at.Offset, e.version, e.poison, t != nil)
}

func (w *world) endTransactions() {
	for _, t := range w.open {
		commit := w.chance(60)
		w.event("a transaction of %d changes ends; committed: %v", len(t.events), commit)
		w.broker.end(t, commit)
	}
	w.open = nil
}

// change makes a random one of a document.
func (w *world) change(key string) *event {
	tenant, id := stream.SplitKey(key)
	history := 10
	if w.deep {
		history = 85
	}
	c := &stream.Change{Tenant: tenant, ID: id, Backfill: w.chance(history), Raw: &stream.Raw{Topic: "documents", Key: []byte(key)}, Size: 50}
	e := &event{key: key, change: c}
	lists := [][]string{nil, {everybody}, {"ann"}, {}}
	// Where only poison is left of a document, nothing tells whether it was deleted before; what is served goes on being served. So there is none of it here.
	w.broker.mu.Lock()
	pure, _ := w.broker.truth.forgotten(key)
	w.broker.mu.Unlock()
	switch n := w.rng.IntN(100); {
	case n < 15:
		c.Kind = stream.Delete
		return e
	case n < 22:
		c.Kind, c.ACL = stream.Access, lists[w.rng.IntN(len(lists))]
		return e
	case n < 25 && !pure:
		c.Kind, c.Problem = stream.Invalid, &stream.Problem{Code: stream.CodeNotADocument, Detail: "simulated"}
		return e
	}
	text := w.docs[key]
	switch n := w.rng.IntN(10); {
	case n < 4 && len(text) > 0: // another paragraph
		text = slices.Clone(text)
		text[w.rng.IntN(len(text))] = w.paragraph(key)
	case n < 5: // shorter
		text = text[:w.rng.IntN(len(text)+1)]
	case n < 7: // longer
		text = slices.Clone(text)
		for range 1 + w.rng.IntN(3) {
			text = slices.Insert(text, w.rng.IntN(len(text)+1), w.paragraph(key))
		}
	case n < 8: // the same, with other metadata
	default: // another text
		text = nil
		for range w.rng.IntN(8) {
			text = append(text, w.paragraph(key))
		}
	}
	w.docs[key] = text
	body := strings.Join(text, "\n\n")
	switch n := w.rng.IntN(40); {
	case pure:
	case n < 2:
		e.poison, body = true, body+"\n\n"+refused
	case n == 2:
		e.poison, body = true, body+"\n\n"+unstorable
	}
	c.Kind = stream.Upsert
	c.Document = &stream.Document{Text: body, Tenant: tenant, ACL: lists[max(0, w.rng.IntN(12)-8)]}
	if w.chance(50) {
		c.Document.Metadata = map[string]any{"n": float64(w.rng.IntN(100))}
		c.Document.Title = fmt.Sprint("title ", w.rng.IntN(100))
	}
	if w.chance(20) {
		c.Document.UpdatedAt = time.Now().Add(-time.Hour)
	}
	c.Size += len(body)
	return e
}

// paragraph is new, or one that many documents have, or a heading, which is context for all chunks if it comes first.
func (w *world) paragraph(key string) string {
	switch w.rng.IntN(12) {
	case 0:
		return fmt.Sprintf("common words %d", w.rng.IntN(3))
	case 1:
		return fmt.Sprintf("# heading %d", w.rng.IntN(3))
	}
	w.next++
	return fmt.Sprintf("words of %s number %d", strings.ReplaceAll(key, stream.TenantSeparator, " "), w.next)
}

// await has a client wait until changes are searchable, and look.
func (w *world) await(p *process, written []*event) {
	c := w.generations()
	name := c.Live
	if names := slices.Sorted(maps.Keys(c.Generations)); w.chance(40) && len(names) > 0 {
		name = names[w.rng.IntN(len(names))]
	}
	origin := c.Generations[name].Origin
	way, alone := w.rng.IntN(3), w.rng.IntN(len(written))
	ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
	w.go_(func() {
		defer cancel()
		var err error
		expected, what := written, "applied"
		at := time.Now().Add(1) // what entered in this very moment too
		var places []stream.Position
		for _, e := range written {
			places = append(places, e.at)
		}
		switch way {
		case 0:
			what, expected = "searchable", written[alone:alone+1]
			err = p.indexer.WaitExact(ctx, name, places[alone:alone+1])
		case 1:
			err = p.indexer.WaitApplied(ctx, name, places)
		default:
			what = "as of"
			err = p.indexer.WaitAsOf(ctx, name, at)
		}
		if errors.Is(err, indexer.ErrRejected) && !p.dead.Load() && w.broker.currentOrigin() == origin {
			for _, e := range expected {
				if !e.poison && !e.removed.Load() && e.change.Kind != stream.Invalid {
					w.failf("process %d says that version %d of %s was rejected", p.id, e.version, e.key)
				}
			}
		}
		if err != nil || w.broker.currentOrigin() != origin {
			return
		}
		w.event("process %d: %s: %v", p.id, what, places)
		if lost, ok := p.server.searchable(name, expected); !ok && !p.dead.Load() {
			w.failf("process %d told that version %d of %s is searchable in %s (%s), and it is not", p.id, lost.version, lost.key, name, what)
		}
	})
}

// look holds what every process says of its freshness against what can be found, and looks at the answers.
func (w *world) look() {
	c := w.generations()
	origin := w.broker.currentOrigin()
	for _, p := range w.processes {
		for name, spec := range c.Generations {
			status := p.indexer.Status(name)
			if status.AsOf.IsZero() || spec.Origin != origin {
				continue
			}
			t, _ := w.truths.Load(origin)
			if lost, ok := p.server.searchable(name, t.(*truth).before(status.AsOf)); !ok {
				w.failf("process %d says that %s is as of %v, and version %d of %s, which entered %v before, is not searchable",
					p.id, name, status.AsOf.Sub(w.begun), lost.version, lost.key, status.AsOf.Sub(lost.entered))
			}
			if lost, ok := p.server.ghost(name, t.(*truth), status.AsOf); ok {
				w.failf("process %d says that %s is as of %v, and what version %d of %s took away %v before is still there",
					p.id, name, status.AsOf.Sub(w.begun), lost.version, lost.key, status.AsOf.Sub(lost.entered))
			}
		}
	}
	for _, s := range w.servers {
		for name := range c.Generations {
			s.answers(name)
		}
	}
}

// quiet lets everything come to rest, and compares all generations with the log.
func (w *world) quiet() {
	w.event("quiet")
	w.calm.Store(true)
	defer w.calm.Store(false)
	w.endTransactions()
	for _, p := range w.processes {
		p.wake()
	}
	w.supervise()
	begun := time.Now()
	for !w.rested(begun) {
		if w.failed() != "" {
			return
		}
		if time.Since(begun) > 2*time.Minute {
			w.failf("after 2 minutes of quiet not all is done: %s\n%s", w.unrest(begun), w.broker.describe())
			return
		}
		time.Sleep(100 * time.Millisecond)
		w.supervise()
	}
	time.Sleep(2 * time.Second) // checkpoints and commits come behind
	c := w.generations()
	w.broker.mu.Lock()
	ends := map[int32]int64{}
	for id, part := range w.broker.partitions {
		ends[int32(id)] = int64(len(part.records))
	}
	committed := map[string]map[int32]int64{}
	for name, g := range w.broker.groups {
		committed[name] = maps.Clone(g.committed)
	}
	w.broker.mu.Unlock()
	for name, spec := range c.Generations {
		if spec.Desired != indexer.Run {
			continue
		}
		for _, s := range w.servers {
			s.fold(name)
			if w.failed() != "" {
				return
			}
			saved := committed[spec.Group]
			if !w.shared {
				s.mu.Lock()
				saved = maps.Clone(s.copies[name].saved)
				s.mu.Unlock()
			}
			for id, end := range ends {
				if saved[id] != end {
					w.failf("all is quiet, and a restart of %s on store %d would begin at %d of %d in partition %d", name, s.id, saved[id], end, id)
				}
			}
		}
		for _, p := range w.processes {
			info, err := p.indexer.Info(name)
			if err != nil || info.Lag != 0 || info.State != indexer.StateReady || info.Trouble != nil {
				w.failf("all is quiet, and process %d says of %s: %+v, trouble %+v, %v", p.id, name, info, info.Trouble, err)
			}
		}
	}
}

// rested tells whether every process says that every generation is as fresh as of the moment, and nothing is being dropped.
func (w *world) rested(at time.Time) bool { return w.unrest(at) == "" }

// unrest says what is not done yet.
func (w *world) unrest(at time.Time) string {
	c := w.generations()
	if c.Live == "" {
		return "there is no generation"
	}
	for name, spec := range c.Generations {
		switch spec.Desired {
		case indexer.Run:
			for _, p := range w.processes {
				if status := p.indexer.Status(name); status.AsOf.Before(at) {
					info, err := p.indexer.Info(name)
					return fmt.Sprintf("process %d says that %s is as of %v: %s, %+v, trouble %+v, %v", p.id, name, status.AsOf.Sub(w.begun), info.State, info.Progress, info.Trouble, err)
				}
			}
		case indexer.Pause:
		default:
			return fmt.Sprintf("%s is being dropped", name)
		}
	}
	return ""
}

// checkTokens compares what was embedded with what a run without any fault would have to: each input once for each time that it is new in a document, for each
// generation of the model; and again for what was in flight when something was interrupted.
func (w *world) checkTokens() {
	allowed := map[string]int{}
	w.truths.Range(func(_, t any) bool {
		for _, recipe := range recipes {
			t.(*truth).appearances(recipe, func(input string, n int) {
				allowed[recipe.Embedder.Model+"\x00"+input] += n * w.models[recipe.Embedder.Model] * len(w.servers)
			})
		}
		return true
	})
	for name, n := range w.embeds {
		model, input, _ := strings.Cut(name, "\x00")
		if most := allowed[name] + int(w.repeats.Load())*w.models[model]*len(w.servers); n > most {
			w.failf("%s embedded %q %d times; %d are enough", model, input, n, most)
		}
	}
}

// appearances counts how often each input is in a version and not in the one before. What no store takes may cost its inputs once more.
func (t *truth) appearances(recipe vectordb.Recipe, count func(input string, n int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, events := range t.byKey {
		var before map[string]bool
		for _, e := range events {
			doc := e.change.Document
			if !e.counts() || doc == nil && e.change.Kind != stream.Delete {
				continue
			}
			now := map[string]bool{}
			if doc != nil {
				for _, input := range t.pieces(recipe, doc.Text).inputs {
					now[input] = true
				}
			}
			for input := range now {
				n := 0
				if !before[input] {
					n++
				}
				if e.poison {
					n++
				}
				if n > 0 {
					count(input, n)
				}
			}
			before = now
		}
	}
}

func (b *broker) currentOrigin() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.origin()
}

func sleepOr(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sleepUnless tells whether nothing ended the sleep early.
func sleepUnless(ctx context.Context, early <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-early:
	case <-ctx.Done():
	}
	return false
}

func hash64(parts ...any) uint64 {
	h := uint64(14695981039346656037)
	for _, part := range parts {
		switch part := part.(type) {
		case string:
			for i := range len(part) {
				h = (h ^ uint64(part[i])) * 1099511628211
			}
		case uint64:
			h = mix64(h ^ part)
		case int:
			h = mix64(h ^ uint64(part))
		}
		h = mix64(h + 0x9e3779b97f4a7c15)
	}
	return h
}

func mix64(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
