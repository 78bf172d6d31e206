package flat

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"github.com/liverag/liverag/internal/lexical"
	"github.com/liverag/liverag/internal/simd"
	"github.com/liverag/liverag/vectordb"
)

// defaultDepth is Query.Depth's default.
const defaultDepth = 10

// Search implements vectordb.Searcher. It scans every entry that the filter leaves, so what it finds is exact.
func (s *Store) Search(ctx context.Context, name string, q vectordb.Query) ([]vectordb.Hit, error) {
	g, err := s.generation(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := q.Check(g.about.Dim); err != nil {
		return nil, fmt.Errorf("search generation %s: %w", name, err)
	}
	if q.Depth == 0 {
		q.Depth = defaultDepth
	}
	v, err := g.pin()
	if err != nil {
		return nil, err
	}
	defer v.set.release()
	x := search{g: g, view: v, q: &q, parts: v.parts()}
	x.allowed = make([]*bitset, len(x.parts))
	for i, p := range x.parts {
		x.allowed[i] = p.allowed(&q)
	}
	var dense, words []vectordb.Candidate
	if q.Vector != nil {
		dense = x.dense()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if q.Text != "" {
		words = x.lexical()
	}
	answer := dense
	switch {
	case q.Fuse != nil:
		answer = q.Fuse(dense, words)
	case q.Text != "":
		answer = words
	}
	hits, err := x.hits(answer)
	if err != nil {
		return nil, fmt.Errorf("search generation %s: %w", name, err)
	}
	return hits, nil
}

// search is one query against one view.
type search struct {
	g     *generation
	view  *view
	q     *vectordb.Query
	parts []part
	// allowed, for each part, are the rows that the caller may see and the filter passes; nil: all.
	allowed []*bitset
}

// shown tells whether an entry may be in the answer.
func (x *search) shown(p int, e uint32) bool {
	row := x.parts[p].entry(e).row
	return (x.allowed[p] == nil || x.allowed[p].has(row)) && x.view.alive(x.parts[p], row)
}

func entryID(p int, e uint32) uint64 { return uint64(p)<<32 | uint64(e) }

// found is an entry with its approximate score.
type found struct {
	score float32
	entry uint32
	part  int32
}

// nearest keeps the best entries seen so far, the worst of them on top. Of equal scores the first in the order of candidates is best, so that
// the answer does not depend on which segment an entry is in.
type nearest struct {
	x     *search
	heap  []found
	limit int
	// least is what a score must reach to get in.
	least float32
}

func (n *nearest) worse(a, b found) bool {
	if a.score != b.score {
		return a.score < b.score
	}
	if a.part == b.part && a.entry == b.entry {
		return false
	}
	return n.x.before(b, a)
}

// before is the order of entries of equal scores: by key, then place.
func (x *search) before(a, b found) bool {
	p, q := x.parts[a.part], x.parts[b.part]
	return cmp.Or(cmp.Compare(p.row(p.entry(a.entry).row).key, q.row(q.entry(b.entry).row).key), cmp.Compare(a.entry, b.entry)) < 0
}

func (n *nearest) offer(f found) {
	if len(n.heap) < n.limit {
		n.heap = append(n.heap, f)
		if len(n.heap) < n.limit {
			return
		}
		for i := n.limit/2 - 1; i >= 0; i-- {
			n.sink(i)
		}
	} else if n.worse(n.heap[0], f) {
		n.heap[0] = f
		n.sink(0)
	}
	n.least = n.heap[0].score
}

func (n *nearest) sink(i int) {
	h := n.heap
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && n.worse(h[child+1], h[child]) {
			child++
		}
		if !n.worse(h[child], h[i]) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

// scanRows is how many rows are scored at a time: their scores stay in the nearest cache.
const scanRows = 1024

// scratch is what a dense search needs for itself.
type scratch struct {
	products [scanRows]int32
	rows     [scanRows]uint32
	query    []int8
	heap     []found
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// rerank is how many entries are ranked again by their float32 vectors to find depth of them: quantising moves a score by about 0.002, which
// reaches across few neighbours.
func rerank(depth int) int { return max(64, 2*depth+32) }

// dense returns the entries nearest to the query's vector, by exact score.
func (x *search) dense() []vectordb.Candidate {
	sc := scratches.Get().(*scratch)
	defer scratches.Put(sc)
	sc.query = slices.Grow(sc.query[:0], len(x.q.Vector))[:len(x.q.Vector)]
	if simd.Quantize(sc.query, x.q.Vector) == 0 {
		return nil // zero: nothing is near
	}
	best := nearest{x: x, heap: sc.heap[:0], limit: rerank(x.q.Depth), least: -1e30}
	for p := range x.parts {
		x.scan(p, sc, &best)
	}
	sc.heap = best.heap
	list := make([]vectordb.Candidate, len(best.heap))
	for i, f := range best.heap {
		part := x.parts[f.part]
		list[i] = vectordb.Candidate{
			Entry: entryID(int(f.part), f.entry),
			Key:   part.row(part.entry(f.entry).row).key,
			Score: float64(simd.Dot(x.q.Vector, part.vector(f.entry))),
		}
	}
	slices.SortFunc(list, byScore)
	list = list[:min(x.q.Depth, len(list))]
	for i := range list {
		list[i].Key = string([]byte(list[i].Key)) // it may be mapped, and the caller may keep it
	}
	return list
}

// byScore is the order of candidates: the best first, those of equal score by key and place.
func byScore(a, b vectordb.Candidate) int {
	if a.Score != b.Score {
		return cmp.Compare(b.Score, a.Score)
	}
	return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Entry, b.Entry))
}

// sparse is the share of rows, one in so many, below which the allowed ones are gathered instead of scanning all.
const sparse = 4

// scan offers a part's entries.
func (x *search) scan(p int, sc *scratch, best *nearest) {
	part, allowed := x.parts[p], x.allowed[p]
	rows, _ := part.size()
	if allowed != nil {
		n := 0
		for _, w := range allowed.words {
			n += bits.OnesCount64(w)
		}
		if n == 0 {
			return
		}
		if n < int(rows)/sparse {
			x.gather(p, sc, best)
			return
		}
	}
	dim := len(sc.query)
	part.codes(func(first uint32, codes []int8, scales []float32) {
		for len(scales) > 0 {
			n := min(scanRows, len(scales))
			products := sc.products[:n]
			simd.Scan(products, sc.query, codes[:n*dim])
			for i, scale := range scales[:n] {
				if score := float32(products[i]) * scale; score >= best.least && scale != 0 && x.shown(p, first+uint32(i)) {
					best.offer(found{score, first + uint32(i), int32(p)})
				}
			}
			codes, scales = codes[n*dim:], scales[n:]
			first += uint32(n)
		}
	})
}

// gather offers the entries of the allowed rows only.
func (x *search) gather(p int, sc *scratch, best *nearest) {
	part, allowed := x.parts[p], x.allowed[p]
	// The rows' entries ascend, and so do the runs of codes: both are walked together.
	word, at := 0, uint64(0)
	if len(allowed.words) > 0 {
		at = allowed.words[0]
	}
	var entry, end uint32
	more := func() bool { // moves to the next row with entries
		for entry == end {
			for at == 0 {
				if word++; word >= len(allowed.words) {
					return false
				}
				at = allowed.words[word]
			}
			i := uint32(word*64 + bits.TrailingZeros64(at))
			at &= at - 1
			if r := part.row(i); x.view.alive(part, i) {
				entry, end = r.first, r.first+r.n
			}
		}
		return true
	}
	part.codes(func(first uint32, codes []int8, scales []float32) {
		last := first + uint32(len(scales))
		for {
			n := 0
			for n < scanRows && more() && entry < last {
				sc.rows[n] = entry - first
				entry++
				n++
			}
			if n == 0 {
				return
			}
			simd.Gather(sc.products[:n], sc.query, codes, sc.rows[:n])
			for i, r := range sc.rows[:n] {
				scale := scales[r]
				if score := float32(sc.products[i]) * scale; score >= best.least && scale != 0 {
					best.offer(found{score, first + r, int32(p)})
				}
			}
		}
	})
}

// lexical returns the entries that BM25 ranks highest.
func (x *search) lexical() []vectordb.Candidate {
	terms := vectordb.AppendTerms(nil, x.q.Text)
	if len(terms) == 0 {
		return nil
	}
	parts, limits := make([]lexical.Part, len(x.parts)), make([]uint32, len(x.parts))
	for i, p := range x.parts {
		parts[i] = p.postings()
		_, limits[i] = p.size()
	}
	// Matches of equal scores come in the order of parts. Where they reach beyond the depth, all of them are wanted, to find the first by key.
	var matches []lexical.Match
	for more := min(8, x.q.Depth); ; more *= 8 {
		depth := x.q.Depth + more
		matches = lexical.Search(parts, limits, x.g.stats(x.q.Tenant), lexical.Params{K1: vectordb.K1, B: vectordb.B}, terms, depth, x.shown)
		if len(matches) < depth || matches[depth-1].Score < matches[x.q.Depth-1].Score {
			break
		}
	}
	list := make([]vectordb.Candidate, len(matches))
	for i, m := range matches {
		p := x.parts[m.Part]
		list[i] = vectordb.Candidate{Entry: entryID(m.Part, m.Ord), Key: string([]byte(p.row(p.entry(m.Ord).row).key)), Score: m.Score}
	}
	slices.SortFunc(list, byScore)
	return list[:min(x.q.Depth, len(list))]
}

// hits fetches what is shown of the candidates.
func (x *search) hits(answer []vectordb.Candidate) ([]vectordb.Hit, error) {
	hits := make([]vectordb.Hit, len(answer))
	rows := make(map[rowPlace]*shownRow, len(answer))
	for _, c := range answer {
		at, e := int(c.Entry>>32), uint32(c.Entry)
		if at >= len(x.parts) {
			return nil, fmt.Errorf("%w: Fuse returned entry %d, which it was not given", vectordb.ErrInvalid, c.Entry)
		}
		if _, n := x.parts[at].size(); e >= n {
			return nil, fmt.Errorf("%w: Fuse returned entry %d, which it was not given", vectordb.ErrInvalid, c.Entry)
		}
		place := rowPlace{at, x.parts[at].entry(e).row}
		if r := rows[place]; r != nil {
			r.hits++
		} else {
			rows[place] = &shownRow{part: x.parts[at], row: x.parts[at].row(place.row), hits: 1}
		}
	}
	for i, c := range answer {
		at, e := int(c.Entry>>32), uint32(c.Entry)
		rec := x.parts[at].entry(e)
		r := rows[rowPlace{at, rec.row}]
		h := &hits[i]
		var err error
		if h.Revision, err = r.row.revision(); err != nil {
			return nil, err
		}
		if h.Text, err = r.text(int(rec.start), int(rec.end)); err != nil {
			return nil, err
		}
		h.ID = vectordb.EntryID(vectordb.DocumentID(h.Key), rec.hash, r.repeat(e, rec.hash))
		h.Entry, h.Score = rec.entry(), c.Score
	}
	return hits, nil
}

// rowPlace is where a row of an answer is.
type rowPlace struct {
	part int
	row  uint32
}

// shownRow is a row with hits. If there are several, what they share is worked out once.
type shownRow struct {
	part part
	row  row
	hits int
	// whole is the text of a row with several hits, once the first has fetched it; repeats are its entries' numbers among those of equal hash.
	whole   string
	repeats []int
}

// wholeText is up to what length a text with several hits is unpacked whole.
const wholeText = 1 << 20

func (r *shownRow) text(from, to int) (string, error) {
	size := int(r.row.size)
	if r.hits == 1 || size > wholeText {
		return unpackText(r.row.text, size, from, to)
	}
	if r.whole == "" {
		var err error
		if r.whole, err = unpackText(r.row.text, size, 0, size); err != nil {
			return "", err
		}
	}
	if from > to || to > len(r.whole) {
		return "", fmt.Errorf("%w: a span beyond its text", vectordb.ErrCorrupt)
	}
	return r.whole[from:to], nil
}

// repeat is how many earlier entries of the row have the same hash.
func (r *shownRow) repeat(e uint32, hash vectordb.Hash) int {
	if r.hits == 1 {
		n := 0
		for j := r.row.first; j < e; j++ {
			if r.part.entry(j).hash == hash {
				n++
			}
		}
		return n
	}
	if r.repeats == nil {
		r.repeats = make([]int, r.row.n)
		seen := make(map[vectordb.Hash]int, r.row.n)
		for j := range r.repeats {
			h := r.part.entry(r.row.first + uint32(j)).hash
			r.repeats[j] = seen[h]
			seen[h]++
		}
	}
	return r.repeats[e-r.row.first]
}
