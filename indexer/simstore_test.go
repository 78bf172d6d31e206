package indexer_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// server is a store: one that several processes share, or the one that a process has for itself. It looks at everything that it is made to show.
type server struct {
	w      *world
	id     int
	shared bool

	mu       sync.Mutex // a write and the look at it are one step
	written  *vectordb.Memory
	shown    *vectordb.Memory // the same one, unless writes are shown later than they are acknowledged
	copies   map[string]*indexCopy
	backlog  []storedWrite
	sequence int64         // writes so far
	visible  int64         // of them, those that are shown
	turned   chan struct{} // closed and replaced when visible grows
	journal  []storedWrite // everything since the beginning, of a store that a power failure may cut short
}

type storedWrite struct {
	at         time.Time
	generation string
	write      vectordb.Write
	create     *vectordb.Generation
	drop       bool
}

// indexCopy is what the oracle knows of a generation in a store.
type indexCopy struct {
	vectordb.Generation
	truth   *truth
	recipe  vectordb.Recipe
	newest  map[string]versions // that were ever shown
	checked map[int32]int64     // up to where every change was found, by partition
	saved   map[int32]int64     // the checkpoint
}

type versions struct{ content, access int64 }

func newServer(w *world, id int, shared, delayed bool) *server {
	s := &server{w: w, id: id, shared: shared, written: vectordb.NewMemory(), copies: map[string]*indexCopy{}, turned: make(chan struct{})}
	s.shown = s.written
	if delayed {
		s.shown = vectordb.NewMemory()
		w.go_(s.show)
	}
	return s
}

func (s *server) delayed() bool { return s.shown != s.written }

// show makes acknowledged writes visible from time to time.
func (s *server) show() {
	for n := 0; sleepOr(s.w.ctx, time.Duration(20+s.w.rollFor(200, "show", s.id, n))*time.Millisecond) == nil; n++ {
		s.mu.Lock()
		for _, one := range s.backlog {
			if err := s.shown.Apply(context.Background(), one.generation, one.write); err == nil {
				s.look(one.generation, one.write)
			}
			s.visible++
		}
		s.backlog = nil
		close(s.turned)
		s.turned = make(chan struct{})
		s.mu.Unlock()
	}
}

// apply does a write, and looks at what it shows.
func (s *server) apply(ctx context.Context, generation string, w vectordb.Write) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range w.Revisions {
		if strings.Contains(w.Revisions[i].Text, unstorable) {
			return fmt.Errorf("simulated: %w: what no store takes", vectordb.ErrInvalid)
		}
	}
	if err := s.written.Apply(ctx, generation, w); err != nil {
		return err
	}
	s.sequence++
	s.note(storedWrite{generation: generation, write: w})
	if s.delayed() {
		s.backlog = append(s.backlog, storedWrite{generation: generation, write: w})
		return nil
	}
	s.visible++
	s.look(generation, w)
	return nil
}

// note keeps what a power failure might take back.
func (s *server) note(one storedWrite) {
	if !s.shared {
		one.at = time.Now()
		s.journal = append(s.journal, one)
	}
}

func (s *server) create(ctx context.Context, g vectordb.Generation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.written.Create(ctx, g); err != nil {
		return err
	}
	if s.delayed() {
		if err := s.shown.Create(ctx, g); err != nil {
			return err
		}
	}
	if s.copies[g.Name] == nil {
		s.track(g)
		s.note(storedWrite{create: &g})
	}
	return nil
}

func (s *server) track(g vectordb.Generation) {
	history, _ := s.w.truths.Load(g.Origin)
	recipe, _ := s.w.recipes.Load(g.Fingerprint)
	if history == nil || recipe == nil {
		s.w.failf("store %d holds generation %s of log %s and recipe %s, which nobody asked for", s.id, g.Name, g.Origin, g.Fingerprint)
		return
	}
	s.copies[g.Name] = &indexCopy{Generation: g, truth: history.(*truth), recipe: recipe.(vectordb.Recipe), newest: map[string]versions{}, checked: map[int32]int64{}, saved: map[int32]int64{}}
}

func (s *server) drop(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.written.Drop(ctx, name); err != nil {
		return err
	}
	s.note(storedWrite{generation: name, drop: true})
	delete(s.copies, name)
	return s.shown.Drop(ctx, name)
}

// losePower takes back the newest writes, as many as were not synced, and all after the first that is lost.
func (s *server) losePower(roll int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	unsynced := 0
	for unsynced < len(s.journal) && time.Since(s.journal[len(s.journal)-1-unsynced].at) < 100*time.Millisecond {
		unsynced++
	}
	lost := roll % (unsynced + 1)
	s.journal = s.journal[:len(s.journal)-lost]
	s.written = vectordb.NewMemory()
	s.shown = s.written
	s.copies = map[string]*indexCopy{}
	for _, one := range s.journal {
		switch {
		case one.create != nil:
			_ = s.written.Create(context.Background(), *one.create)
			s.track(*one.create)
		case one.drop:
			_ = s.written.Drop(context.Background(), one.generation)
			delete(s.copies, one.generation)
		default:
			_ = s.written.Apply(context.Background(), one.generation, one.write)
		}
	}
	s.w.event("store %d lost its last %d writes", s.id, lost)
}

// look checks what a write shows: its documents, and that its checkpoint is true. s.mu is held.
func (s *server) look(generation string, w vectordb.Write) {
	c := s.copies[generation]
	if c == nil {
		return
	}
	keys := map[string]bool{}
	for i := range w.Revisions {
		keys[w.Revisions[i].Key] = true
	}
	for _, rev := range s.current(generation, keys) {
		s.checkDocument(c, rev)
	}
	for id, offset := range w.Checkpoint {
		if id < 0 {
			continue
		}
		if old := c.saved[id]; offset < old {
			s.w.failf("store %d: the checkpoint of %s in partition %d went from %d back to %d", s.id, generation, id, old, offset)
		}
		c.saved[id] = offset
		s.checkPrefix(c, id, offset, "in the checkpoint")
	}
}

// current reads documents as they are shown.
func (s *server) current(generation string, keys map[string]bool) map[string]*vectordb.Revision {
	out := make(map[string]*vectordb.Revision, len(keys))
	if len(keys) == 0 {
		return out
	}
	revs, err := s.shown.Current(context.Background(), generation, slices.Collect(maps.Keys(keys)))
	if err != nil {
		s.w.failf("store %d: read %s: %v", s.id, generation, err)
	}
	for i := range revs {
		out[revs[i].Key] = &revs[i]
	}
	return out
}

// without finds an event that the generation does not have and should have. s.mu is held.
func (s *server) without(generation string, events []*event) (*event, *vectordb.Revision) {
	keys := map[string]bool{}
	for _, e := range events {
		keys[e.key] = true
	}
	revs := s.current(generation, keys)
	for _, e := range events {
		if rev := revs[e.key]; rev != nil && missing(rev, e) {
			return e, rev
		}
	}
	return nil, nil
}

// checkDocument holds a document that is shown against the change that its version is of. s.mu is held.
func (s *server) checkDocument(c *indexCopy, rev *vectordb.Revision) {
	last := c.newest[rev.Key]
	if rev.Version < last.content || rev.Access.Version < last.access {
		s.w.failf("store %d, %s: %s went from version %v back to %d, access %d", s.id, c.Name, rev.Key, last, rev.Version, rev.Access.Version)
	}
	c.newest[rev.Key] = versions{rev.Version, rev.Access.Version}
	if problem := c.truth.check(c.recipe, rev); problem != "" {
		s.w.failf("store %d, %s: %s at version %d: %s", s.id, c.Name, rev.Key, rev.Version, problem)
	}
}

// prefix checks that what a group has committed is shown.
func (s *server) prefix(generation, origin string, partition int32, below int64, what string) {
	if _, there := s.w.generations().Generations[generation]; !there {
		return // a process that has not heard of the drop yet may have made it again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.copies[generation]; c != nil && c.Origin == origin {
		s.checkPrefix(c, partition, below, what)
	}
}

// checkPrefix checks that every change of a partition below an offset is shown, or one that came after it. s.mu is held.
func (s *server) checkPrefix(c *indexCopy, partition int32, below int64, what string) {
	from := c.checked[partition]
	if below <= from {
		return
	}
	c.checked[partition] = below
	var events []*event
	for _, e := range c.truth.between(partition, from, below) {
		if e.change.Kind == stream.Invalid && !e.removed.Load() {
			s.w.broker.mu.Lock()
			sent := s.w.broker.letters[letterName(c.Origin, e.at)]
			s.w.broker.mu.Unlock()
			if sent == 0 {
				s.w.failf("store %d, %s: the record at %v is no change, counts as done, and is not in the dead letters", s.id, c.Name, e.at)
			}
			continue
		}
		events = append(events, e)
	}
	if e, rev := s.without(c.Name, events); e != nil {
		s.w.failf("store %d, %s: %d/%d is %s, and version %d of %s is not searchable: the store shows version %d, access %d",
			s.id, c.Name, partition, below, what, e.version, e.key, rev.Version, rev.Access.Version)
	}
}

// missing tells whether a stored document does not have a change that it should have.
func missing(rev *vectordb.Revision, e *event) bool {
	switch {
	case e.removed.Load(): // who had not read it goes from nothing to what replaced it
		return false
	case e.change.Kind == stream.Access:
		return rev.Access.Version < e.version
	case e.poison || e.change.Kind == stream.Invalid:
		return false
	}
	return rev.Version < e.version
}

// searchable tells whether every one of the events can be found in a generation; true if it is gone.
func (s *server) searchable(generation string, events []*event) (*event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.copies[generation] == nil {
		return nil, true
	}
	lost, _ := s.without(generation, events)
	return lost, lost == nil
}

// ghost finds a document that is shown although it was deleted before a moment, by a delete that the log has forgotten since; or one that is still hidden from those who may see it.
func (s *server) ghost(generation string, t *truth, at time.Time) (*event, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.copies[generation] == nil {
		return nil, false
	}
	lost := t.lost(at)
	keys := map[string]bool{}
	for _, e := range lost {
		keys[e.key] = true
	}
	revs := s.current(generation, keys)
	for _, e := range lost {
		rev := revs[e.key]
		if e.change.Kind == stream.Delete && rev.Version > 0 && rev.Version < e.version && !rev.Deleted ||
			e.change.Kind == stream.Access && rev.Access.Version > 0 && rev.Access.Version < e.version && !rev.Access.Clear {
			return e, true
		}
	}
	return nil, false
}

// answers asks for everything in a generation, as a search would find it, and checks that each document shows all chunks of one version and no others.
func (s *server) answers(generation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.copies[generation]
	if c == nil {
		return
	}
	found := map[string][]vectordb.Hit{}
	for _, tenant := range []string{"", otherTenant} {
		hits, err := s.shown.Search(context.Background(), generation, vectordb.Query{Vector: embedText("", "anything"), Depth: math.MaxInt32, Tenant: tenant, Principals: []string{everybody}})
		if err != nil {
			s.w.failf("store %d: search %s: %v", s.id, generation, err)
			return
		}
		for _, h := range hits {
			found[h.Key] = append(found[h.Key], h)
		}
	}
	revs, err := s.shown.Scan(context.Background(), generation, "", math.MaxInt32)
	if err != nil {
		s.w.failf("store %d: scan %s: %v", s.id, generation, err)
		return
	}
	for i := range revs {
		rev := &revs[i]
		s.checkDocument(c, rev)
		hits := found[rev.Key]
		delete(found, rev.Key)
		if rev.Deleted || rev.Version == 0 || !rev.ReadableBy(rev.Tenant, []string{everybody}) {
			if len(hits) > 0 {
				s.w.failf("store %d, %s: %s is not to be found, and is: %q", s.id, generation, rev.Key, hits[0].Text)
			}
			continue
		}
		slices.SortFunc(hits, func(a, b vectordb.Hit) int { return a.Entry.Start - b.Entry.Start })
		if len(hits) != len(rev.Entries) {
			s.w.failf("store %d, %s: %s has %d chunks and %d are found", s.id, generation, rev.Key, len(rev.Entries), len(hits))
			continue
		}
		for i, h := range hits {
			if e := rev.Entries[i]; h.Version != rev.Version || h.Text != rev.Text[e.Start:e.End] {
				s.w.failf("store %d, %s: %s is at version %d, and %q of version %d is found", s.id, generation, rev.Key, rev.Version, h.Text, h.Version)
			}
		}
	}
	for key := range found {
		s.w.failf("store %d, %s: %s is found and not stored", s.id, generation, key)
	}
}

// fold compares a generation with the log folded from its beginning, then asks for every chunk that ever was.
func (s *server) fold(generation string) {
	s.answers(generation)
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.copies[generation]
	if c == nil {
		s.w.failf("store %d does not hold %s", s.id, generation)
		return
	}
	want := c.truth.fold()
	keys := map[string]bool{}
	for key := range want {
		keys[key] = true
	}
	revs := s.current(generation, keys)
	for _, key := range slices.Sorted(maps.Keys(want)) {
		rev := revs[key]
		if rev == nil {
			return
		}
		got := versions{rev.Version, rev.Access.Version}
		content, access := c.truth.forgotten(key)
		if content && (rev.Version == 0 || rev.Deleted) {
			got.content = want[key].content
		}
		if access && (rev.Access.Version == 0 || rev.Access.Clear) {
			got.access = want[key].access
		}
		if got != want[key] {
			s.w.failf("store %d, %s: after everything, %s is at version %d, access %d; the log says %v", s.id, generation, key, rev.Version, rev.Access.Version, want[key])
		}
		delete(c.newest, key)
		c.newest[key] = versions{rev.Version, rev.Access.Version}
	}
	for key := range c.newest {
		if _, ok := want[key]; !ok {
			s.w.failf("store %d, %s: %s is not in the log", s.id, generation, key)
		}
	}
	model := c.recipe.Embedder.Model
	for _, chunk := range c.truth.chunks(c.recipe) {
		hits, err := s.shown.Search(context.Background(), generation, vectordb.Query{Vector: embedText(model, chunk.input), Depth: 1, Tenant: chunk.tenant, Principals: []string{everybody}})
		if err != nil {
			s.w.failf("store %d: search %s: %v", s.id, generation, err)
			return
		}
		there := len(hits) > 0 && hits[0].Score > 1-1e-6
		if there != chunk.current || there && hits[0].Text != chunk.text {
			s.w.failf("store %d, %s: a search for %q finds %v; it should be found: %v", s.id, generation, chunk.text, hits, chunk.current)
		}
	}
}

// storePort is a process' connection to a store.
type storePort struct {
	*process
	server *server
}

// delayedPort is one to a store that acknowledges before it shows.
type delayedPort struct{ storePort }

var (
	_ vectordb.Store   = storePort{}
	_ vectordb.Delayed = delayedPort{}
)

func (p storePort) Create(ctx context.Context, g vectordb.Generation) error {
	return p.call(ctx, "create", func() error { return p.server.create(ctx, g) })
}

func (p storePort) Drop(ctx context.Context, name string) error {
	return p.call(ctx, "drop", func() error { return p.server.drop(ctx, name) })
}

func (p storePort) List(ctx context.Context) (list []vectordb.Generation, err error) {
	err = p.call(ctx, "list", func() error {
		list, err = p.server.written.List(ctx)
		return err
	})
	return list, err
}

// Apply may fail before the write, after it, or long before it.
func (p storePort) Apply(ctx context.Context, generation string, w vectordb.Write) error {
	if err := p.pass(ctx); err != nil {
		return err
	}
	if p.server.shared && p.roll("late", 1000) < p.w.rate(p.process, "apply")/4 {
		w.Revisions = slices.Clone(w.Revisions)
		delay := time.Duration(1+p.roll("late by", 6000)) * time.Millisecond
		p.w.event("process %d: a write of %s to %s times out, and will be there in %v", p.id, describeWrite(w), generation, delay)
		p.w.go_(func() {
			if sleepOr(p.w.ctx, delay) == nil {
				_ = p.server.apply(context.Background(), generation, w)
			}
		})
		return errTimeout
	}
	return p.call(ctx, "apply", func() error {
		// A store of its own is gone with its process; one that is shared finishes what has reached it.
		to := ctx
		if p.server.shared {
			to = context.WithoutCancel(ctx)
		}
		err := p.server.apply(to, generation, w)
		if len(w.Revisions) > 0 {
			p.w.event("process %d writes %s to %s: %v", p.id, describeWrite(w), generation, err)
		}
		return err
	})
}

func describeWrite(w vectordb.Write) string {
	var s strings.Builder
	for i := range w.Revisions {
		r := &w.Revisions[i]
		fmt.Fprintf(&s, "%s@%d", r.Key, r.Version)
		if r.Deleted {
			s.WriteString("✗")
		}
		if r.Access.Version > 0 {
			fmt.Fprintf(&s, "+access@%d", r.Access.Version)
		}
		s.WriteByte(' ')
	}
	return s.String()
}

func (p storePort) Sync(ctx context.Context, generation string) error { return p.pass(ctx) }

func (p storePort) Current(ctx context.Context, generation string, keys []string) (revs []vectordb.Revision, err error) {
	err = p.call(ctx, "current", func() error {
		revs, err = p.server.written.Current(ctx, generation, keys)
		return err
	})
	return revs, err
}

func (p storePort) Scan(ctx context.Context, generation, after string, limit int) (revs []vectordb.Revision, err error) {
	err = p.call(ctx, "scan", func() error {
		revs, err = p.server.written.Scan(ctx, generation, after, limit)
		return err
	})
	return revs, err
}

func (p storePort) Checkpoint(ctx context.Context, generation string) (at map[int32]int64, err error) {
	err = p.call(ctx, "checkpoint", func() error {
		at, err = p.server.written.Checkpoint(ctx, generation)
		return err
	})
	return at, err
}

func (p storePort) Stats(ctx context.Context, generation string) (vectordb.Stats, error) {
	if err := p.pass(ctx); err != nil {
		return vectordb.Stats{}, err
	}
	return p.server.written.Stats(ctx, generation)
}

func (p storePort) Search(ctx context.Context, generation string, q vectordb.Query) ([]vectordb.Hit, error) {
	return nil, vectordb.ErrUnsupported // the oracle asks the server itself
}

func (p storePort) Close() error { return nil }

// Visible implements vectordb.Delayed.
func (p delayedPort) Visible(ctx context.Context, _ string) error {
	return p.call(ctx, "visible", func() error {
		s := p.server
		s.mu.Lock()
		defer s.mu.Unlock()
		for want := s.sequence; s.visible < want; {
			turned := s.turned
			s.mu.Unlock()
			select {
			case <-turned:
			case <-ctx.Done():
			}
			s.mu.Lock()
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	})
}

// paragraphs is a chunker: so many paragraphs a chunk, under the heading that the text begins with.
type paragraphs struct{ n int }

func (c paragraphs) Name() string { return fmt.Sprint("paragraphs/", c.n) }

func (c paragraphs) Split(_ context.Context, _, text string) ([]chunker.Chunk, error) {
	return c.split(text), nil
}

func (c paragraphs) split(text string) []chunker.Chunk {
	var out []chunker.Chunk
	context, at := "", 0
	if strings.HasPrefix(text, "# ") {
		context, _, _ = strings.Cut(text, "\n")
	}
	for at < len(text) {
		end := at
		for i := 0; i < c.n && end < len(text); i++ {
			if next := strings.Index(text[end:], "\n\n"); next >= 0 {
				end += next + 2
			} else {
				end = len(text)
			}
		}
		span := strings.TrimRight(text[at:end], "\n")
		out = append(out, chunker.Chunk{Start: at, End: at + len(span), Tokens: len(strings.Fields(span)), Context: context})
		at = end
	}
	return out
}

// What no model embeds, and what no store takes.
const (
	refused    = "poison"
	unstorable = "unstorable"
)

const dim = 8

// embedText is what a model makes of an input: another direction for every model and input.
func embedText(model, input string) []float32 {
	h := hash64(model, input)
	v := make([]float32, dim)
	sum := 0.0
	for i := range v {
		h = mix64(h + uint64(i))
		v[i] = float32(h>>40)/(1<<23) - 1
		sum += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] = float32(float64(v[i]) / math.Sqrt(sum))
	}
	return v
}

// model is a process' client of an embedding endpoint.
type model struct {
	*process
	name string
}

func (m *model) Name() string  { return m.name }
func (m *model) Dim() int      { return dim }
func (m *model) MaxInput() int { return 0 }

func (m *model) Embed(ctx context.Context, _ embedder.Role, inputs []string) ([][]float32, error) {
	var out [][]float32
	err := m.call(ctx, "embed", func() error {
		for i, input := range inputs {
			if strings.Contains(input, refused) {
				return &embedder.Error{Op: "simulated", Input: i, Err: errors.New("refused")}
			}
		}
		out = make([][]float32, len(inputs))
		for i, input := range inputs {
			out[i] = embedText(m.name, input)
		}
		return nil
	})
	var refusal *embedder.Error
	if err == nil {
		m.embedded(m.name, inputs)
		return out, nil
	}
	if ctx.Err() != nil || errors.Is(err, errDead) || errors.As(err, &refusal) {
		return nil, err
	}
	failed := &embedder.Error{Op: "simulated", Temporary: true, Input: -1, Err: err}
	switch n := m.roll("429", 4); {
	case n == 0:
		failed.RetryAfter = time.Duration(m.roll("after", 2000)) * time.Millisecond
	case n == 1 && m.w.chain > 1:
		failed.Temporary = false // a key that is wrong for a while; Batch would find somebody to blame, because other calls go through
	}
	return nil, failed
}

// pieces is a text as a recipe cuts and embeds it.
type pieces struct {
	entries []vectordb.Entry
	inputs  []string // what the model reads, by entry
}

// cut does by hand what a recipe says.
func cut(recipe vectordb.Recipe, text string) (out pieces) {
	for _, chunk := range (paragraphs{recipe.Chunker.Tokens}).split(text) {
		input := text[chunk.Start:chunk.End]
		if chunk.Context != "" {
			input = chunk.Context + "\n" + input
		}
		sum := sha256.Sum256([]byte(input))
		out.inputs = append(out.inputs, input)
		out.entries = append(out.entries, vectordb.Entry{Start: chunk.Start, End: chunk.End, Tokens: chunk.Tokens, Hash: vectordb.Hash(sum[:16]), Vector: embedText(recipe.Embedder.Model, input)})
	}
	return out
}
