package flat

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/liverag/liverag/vectordb"
)

// Current implements vectordb.Reader. All revisions are of one view.
func (s *Store) Current(ctx context.Context, name string, keys []string) ([]vectordb.Revision, error) {
	g, err := s.generation(ctx, name)
	if err != nil {
		return nil, err
	}
	v, err := g.pin()
	if err != nil {
		return nil, err
	}
	defer v.set.release()
	list := make([]vectordb.Revision, len(keys))
	for i, key := range keys {
		list[i].Key = key
		if l := v.locate(key); l.part != nil {
			if list[i], err = whole(l.part, &l.row); err != nil {
				return nil, fmt.Errorf("generation %s: %w", name, err)
			}
		}
	}
	return list, nil
}

// whole returns a row with text, entries and vectors. It shares nothing with the part.
func whole(p part, r *row) (vectordb.Revision, error) {
	rev, err := r.revision()
	if err != nil {
		return rev, err
	}
	if rev.Text, err = unpackText(r.text, int(r.size), 0, int(r.size)); err != nil {
		return rev, err
	}
	if r.n == 0 {
		return rev, nil
	}
	rev.Entries = make([]vectordb.Entry, r.n)
	var vectors []float32
	for j := range rev.Entries {
		e := r.first + uint32(j)
		rev.Entries[j] = p.entry(e).entry()
		v := p.vector(e)
		if vectors == nil {
			vectors = make([]float32, 0, int(r.n)*len(v))
		}
		vectors = append(vectors, v...)
		rev.Entries[j].Vector = vectors[len(vectors)-len(v) : len(vectors) : len(vectors)]
	}
	return rev, nil
}

func (e entryRecord) entry() vectordb.Entry {
	return vectordb.Entry{Start: int(e.start), End: int(e.end), Tokens: int(e.tokens), Hash: e.hash}
}

// Scan implements vectordb.Reader.
func (s *Store) Scan(ctx context.Context, name, after string, limit int) ([]vectordb.Revision, error) {
	g, err := s.generation(ctx, name)
	if err != nil {
		return nil, err
	}
	if limit < 1 {
		return nil, fmt.Errorf("%w: scan of generation %s: limit %d", vectordb.ErrInvalid, name, limit)
	}
	v, err := g.pin()
	if err != nil {
		return nil, err
	}
	defer v.set.release()
	var found []located
	for _, p := range v.parts() {
		found = append(found, next(v, p, after, limit)...)
	}
	slices.SortFunc(found, func(a, b located) int { return strings.Compare(a.row.key, b.row.key) })
	found = found[:min(limit, len(found))]
	list := make([]vectordb.Revision, len(found))
	for i := range found {
		if list[i], err = whole(found[i].part, &found[i].row); err != nil {
			return nil, fmt.Errorf("generation %s: %w", name, err)
		}
	}
	return list, nil
}

// next returns the first live rows of a part with keys above after.
func next(v *view, p part, after string, limit int) (found []located) {
	switch p := p.(type) {
	case *segment:
		from := sort.Search(len(p.order), func(i int) bool { return p.key(p.order[i]) > after })
		for _, i := range p.order[from:] {
			if len(found) == limit {
				break
			}
			if v.alive(p, i) {
				found = append(found, located{p, i, p.row(i)})
			}
		}
	case *memView:
		for i, r := range p.seen {
			if r.key > after && v.alive(p, uint32(i)) {
				found = append(found, located{p, uint32(i), r.row})
			}
		}
		slices.SortFunc(found, func(a, b located) int { return strings.Compare(a.row.key, b.row.key) })
		found = found[:min(limit, len(found))]
	}
	return found
}

// Checkpoint implements vectordb.Reader.
func (s *Store) Checkpoint(ctx context.Context, name string) (map[int32]int64, error) {
	g, err := s.generation(ctx, name)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended != nil {
		return nil, g.ended
	}
	return maps.Clone(g.checkpoint), nil
}

// Stats implements vectordb.Reader. Bytes counts segments and logs.
func (s *Store) Stats(ctx context.Context, name string) (vectordb.Stats, error) {
	g, err := s.generation(ctx, name)
	if err != nil {
		return vectordb.Stats{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended != nil {
		return vectordb.Stats{}, g.ended
	}
	st := vectordb.Stats{Documents: g.documents, Chunks: g.chunks, Tokens: g.tokens}
	entries := 0
	for _, seg := range g.set.segments {
		st.Bytes += seg.bytes
		entries += len(seg.entries)
	}
	for _, seg := range g.outdated.segments {
		st.Bytes += seg.bytes
	}
	for _, t := range append(slices.Clone(g.set.tables), g.active) {
		st.Bytes += t.log.size
		entries += len(t.entries)
	}
	st.Reclaimable = g.tombstones + entries - g.chunks
	return st, nil
}
