package vectordb

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Memory is the model of a Store: it does what the interfaces say in the most obvious way, keeps everything in memory and looks at every chunk for every
// query. Other stores are tested against it. It serves well up to some ten thousand chunks. Its dense scores are sums in float64.
type Memory struct {
	mu          sync.RWMutex
	closed      bool
	generations map[string]*memoryGeneration
}

var _ Store = (*Memory)(nil)

type memoryGeneration struct {
	Generation
	documents  map[string]*memoryDocument
	checkpoint map[int32]int64
}

// memoryDocument never changes once it is in the map, so readers may keep it after the lock is gone.
type memoryDocument struct {
	Revision
	ids   []string   // of the entries
	terms [][]string // of the entries
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{generations: map[string]*memoryGeneration{}} }

// generation finds one. The lock is held.
func (m *Memory) generation(ctx context.Context, name string) (*memoryGeneration, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m.closed {
		return nil, ErrClosed
	}
	g := m.generations[name]
	if g == nil {
		return nil, fmt.Errorf("generation %s: %w", name, ErrNoGeneration)
	}
	return g, nil
}

// Create implements Catalog.
func (m *Memory) Create(ctx context.Context, g Generation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.closed {
		return ErrClosed
	}
	if err := g.Check(); err != nil {
		return err
	}
	if old := m.generations[g.Name]; old != nil {
		if old.Generation != g {
			return fmt.Errorf("generation %s: %w", g.Name, ErrMismatch)
		}
		return nil
	}
	m.generations[g.Name] = &memoryGeneration{Generation: g, documents: map[string]*memoryDocument{}, checkpoint: map[int32]int64{}}
	return nil
}

// Drop implements Catalog.
func (m *Memory) Drop(ctx context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.closed {
		return ErrClosed
	}
	delete(m.generations, name)
	return nil
}

// List implements Catalog.
func (m *Memory) List(ctx context.Context) ([]Generation, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m.closed {
		return nil, ErrClosed
	}
	var list []Generation
	for _, name := range slices.Sorted(maps.Keys(m.generations)) {
		list = append(list, m.generations[name].Generation)
	}
	return list, nil
}

// Apply implements Writer.
func (m *Memory) Apply(ctx context.Context, generation string, w Write) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	g, err := m.generation(ctx, generation)
	if err != nil {
		return err
	}
	for i := range w.Revisions {
		if err := w.Revisions[i].Check(g.Dim); err != nil {
			return fmt.Errorf("apply to generation %s: %w", generation, err)
		}
	}
	now := stored(time.Now())
	for i := range w.Revisions {
		g.apply(&w.Revisions[i], now, w.Rewrite)
	}
	maps.Copy(g.checkpoint, w.Checkpoint)
	return nil
}

// apply takes over of r what is newer than what is stored, or as new if that is to be rewritten.
func (g *memoryGeneration) apply(r *Revision, now time.Time, rewrite bool) {
	d := memoryDocument{Revision: Revision{Key: r.Key}}
	if old := g.documents[r.Key]; old != nil {
		d = *old
	}
	content, access := r.Version > d.Version || rewrite && r.Version > 0 && r.Version == d.Version, r.Access.Version > d.Access.Version
	if !content && !access {
		return
	}
	if content {
		kept := d.Access
		switch {
		case r.Deleted:
			d = memoryDocument{Revision: Revision{Key: r.Key, Version: r.Version, Deleted: true}}
		default:
			d = memoryDocument{Revision: r.clone()}
			d.UpdatedAt, d.LoggedAt, d.SearchableAt = stored(r.UpdatedAt), stored(r.LoggedAt), now
			repeats := map[Hash]int{}
			for _, e := range d.Entries {
				d.ids = append(d.ids, EntryID(DocumentID(d.Key), e.Hash, repeats[e.Hash]))
				d.terms = append(d.terms, AppendTerms(nil, d.Text[e.Start:e.End]))
				repeats[e.Hash]++
			}
		}
		d.Access = kept
	}
	if access {
		d.Access = Access{Version: r.Access.Version, Clear: r.Access.Clear, ACL: slices.Clone(r.Access.ACL)}
	}
	g.documents[r.Key] = &d
}

// stored is a time as it is kept.
func stored(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// clone shares nothing that can be written to.
func (r *Revision) clone() Revision {
	c := *r
	c.ACL = slices.Clone(r.ACL)
	c.Access.ACL = slices.Clone(r.Access.ACL)
	c.Metadata = maps.Clone(r.Metadata)
	for k, v := range c.Metadata {
		if list, ok := v.([]string); ok {
			c.Metadata[k] = slices.Clone(list)
		}
	}
	c.Entries = slices.Clone(r.Entries)
	for i := range c.Entries {
		c.Entries[i].Vector = slices.Clone(c.Entries[i].Vector)
	}
	return c
}

// Sync implements Writer. There is nothing that would survive.
func (m *Memory) Sync(ctx context.Context, generation string) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, err := m.generation(ctx, generation)
	return err
}

// Current implements Reader.
func (m *Memory) Current(ctx context.Context, generation string, keys []string) ([]Revision, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	g, err := m.generation(ctx, generation)
	if err != nil {
		return nil, err
	}
	list := make([]Revision, len(keys))
	for i, key := range keys {
		list[i].Key = key
		if d := g.documents[key]; d != nil {
			list[i] = d.clone()
		}
	}
	return list, nil
}

// Scan implements Reader.
func (m *Memory) Scan(ctx context.Context, generation, after string, limit int) ([]Revision, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	g, err := m.generation(ctx, generation)
	if err != nil {
		return nil, err
	}
	if limit < 1 {
		return nil, invalidf("scan of generation %s: limit %d", generation, limit)
	}
	var list []Revision
	for _, key := range slices.Sorted(maps.Keys(g.documents)) {
		if key > after && len(list) < limit {
			list = append(list, g.documents[key].clone())
		}
	}
	return list, nil
}

// Checkpoint implements Reader.
func (m *Memory) Checkpoint(ctx context.Context, generation string) (map[int32]int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	g, err := m.generation(ctx, generation)
	if err != nil {
		return nil, err
	}
	return maps.Clone(g.checkpoint), nil
}

// Stats implements Reader. Nothing is on disk, and what is replaced is reclaimed at once.
func (m *Memory) Stats(ctx context.Context, generation string) (Stats, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	g, err := m.generation(ctx, generation)
	if err != nil {
		return Stats{}, err
	}
	var s Stats
	for _, d := range g.documents {
		if d.Version == 0 || d.Deleted {
			continue
		}
		s.Documents++
		s.Chunks += len(d.Entries)
		for _, e := range d.Entries {
			s.Tokens += int64(e.Tokens)
		}
	}
	return s, nil
}

// Close implements Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.generations = true, nil
	return nil
}

// Search implements Searcher.
func (m *Memory) Search(ctx context.Context, generation string, q Query) ([]Hit, error) {
	view, dim, err := m.view(ctx, generation, q.Tenant)
	if err != nil {
		return nil, err
	}
	if err := q.Check(dim); err != nil {
		return nil, fmt.Errorf("search generation %s: %w", generation, err)
	}
	if q.Depth == 0 {
		q.Depth = 10
	}
	var dense, lexical []Candidate
	if q.Vector != nil {
		dense = view.dense(&q)
	}
	if q.Text != "" {
		lexical = view.lexical(&q)
	}
	answer := dense
	switch {
	case q.Fuse != nil:
		answer = q.Fuse(dense, lexical)
	case q.Text != "":
		answer = lexical
	}
	return view.hits(answer)
}

// memoryView is the tenant's live documents at one moment, in the order of keys.
type memoryView []*memoryDocument

func (m *Memory) view(ctx context.Context, generation, tenant string) (memoryView, int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	g, err := m.generation(ctx, generation)
	if err != nil {
		return nil, 0, err
	}
	var v memoryView
	for _, d := range g.documents {
		if d.Version > 0 && !d.Deleted && d.Tenant == tenant {
			v = append(v, d)
		}
	}
	slices.SortFunc(v, func(a, b *memoryDocument) int { return cmp.Compare(a.Key, b.Key) })
	return v, g.Dim, nil
}

// entry names chunk i of document d.
func (v memoryView) entry(d, i int) uint64 { return uint64(d)<<32 | uint64(i) }

// rank calls score for every chunk that the caller may see and the filter passes, and returns the best. score tells whether it is found at all.
func (v memoryView) rank(q *Query, score func(d *memoryDocument, i int) (float64, bool)) []Candidate {
	var found []Candidate
	for at, d := range v {
		if !d.ReadableBy(q.Tenant, q.Principals) || !q.Filter.Match(&d.Revision) {
			continue
		}
		for i := range d.Entries {
			if s, ok := score(d, i); ok {
				found = append(found, Candidate{v.entry(at, i), d.Key, s})
			}
		}
	}
	// They stand in the order of key and place: a stable sort leaves those of equal score in it.
	slices.SortStableFunc(found, func(a, b Candidate) int { return cmp.Compare(b.Score, a.Score) })
	return found[:min(q.Depth, len(found))]
}

func (v memoryView) dense(q *Query) []Candidate {
	if isZero(q.Vector) {
		return nil
	}
	return v.rank(q, func(d *memoryDocument, i int) (float64, bool) {
		dot := 0.0
		for j, x := range d.Entries[i].Vector {
			dot += float64(x) * float64(q.Vector[j])
		}
		return dot, !isZero(d.Entries[i].Vector)
	})
}

func isZero(vector []float32) bool {
	for _, x := range vector {
		if x != 0 {
			return false
		}
	}
	return true
}

func (v memoryView) lexical(q *Query) []Candidate {
	query := AppendTerms(nil, q.Text)
	chunks, length, df := 0, 0, map[string]int{}
	for _, d := range v {
		for _, terms := range d.terms {
			chunks++
			length += len(terms)
			for _, t := range slices.Compact(slices.Sorted(slices.Values(terms))) {
				df[t]++
			}
		}
	}
	average := float64(length) / float64(chunks)
	return v.rank(q, func(d *memoryDocument, i int) (score float64, found bool) {
		for _, t := range query {
			tf := 0
			for _, x := range d.terms[i] {
				if x == t {
					tf++
				}
			}
			if tf > 0 {
				found = true
				score += BM25(tf, len(d.terms[i]), average, df[t], chunks)
			}
		}
		return score, found
	})
}

func (v memoryView) hits(answer []Candidate) ([]Hit, error) {
	hits := make([]Hit, 0, len(answer))
	for _, c := range answer {
		at, i := int(c.Entry>>32), int(uint32(c.Entry))
		if at >= len(v) || i >= len(v[at].Entries) {
			return nil, invalidf("search: Fuse returned entry %d, which it was not given", c.Entry)
		}
		d := v[at]
		h := Hit{Revision: d.Revision, ID: d.ids[i], Entry: d.Entries[i], Text: d.Text[d.Entries[i].Start:d.Entries[i].End], Score: c.Score}
		h.Revision.Text, h.Revision.Entries, h.Entry.Vector = "", nil, nil
		h.Revision = h.Revision.clone()
		hits = append(hits, h)
	}
	return hits, nil
}
