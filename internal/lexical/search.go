package lexical

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
)

// Part is a *Mem or a *Sealed.
type Part interface {
	// open sets the cursor to the term's postings; false if it has none below limit. The cursor's idf and repeats are set.
	open(c *cursor, term string, norm Norm, limit uint32) bool
	// entries is how many entries there are, and their lengths.
	entries() (n int, lengths []byte)
}

// Match is an entry that Search found.
type Match struct {
	// Part and Ord name the entry.
	Part int
	Ord  uint32
	// Score is the sum of Params.BM25 over the query's terms.
	Score float64
}

// window is how many ords are scored at a time. Its scores stay in the nearest cache.
const window = 2048

// cursor is at a place in the postings of one term in one part. It only moves forward.
type cursor struct {
	idf     float64
	repeats float64 // how often the query has the term
	bound   float64 // no entry scores more

	list     []posting // decoded; all of them if blocks is 1
	position int
	block    int // which one list is; -1 before the first

	// Of a list of several blocks.
	blocks   int
	skips    []byte
	bounds   []float64 // of each block
	data     []byte
	first    uint32
	headSize int
	df       int

	buffer [blockSize]posting

	// Of the window at hand.
	near float64 // no entry in it scores more
}

// weight is what a posting adds to a score.
func (c *cursor) weight(norm Norm, tf, length uint32) float64 {
	return c.repeats * norm.Score(c.idf, tf, length)
}

func (c *cursor) lastOrd(block int) uint32 {
	return binary.LittleEndian.Uint32(c.skips[block*skipSize:])
}

// extent returns what decode needs for a block. No data if the bytes are damaged.
func (c *cursor) extent(block int) (from uint32, data []byte, n int) {
	if c.blocks == 1 {
		return c.first, c.data[c.headSize:], c.df
	}
	from, start := c.first, c.headSize
	if block > 0 {
		from = c.lastOrd(block-1) + 1
		start = int(binary.LittleEndian.Uint32(c.skips[(block-1)*skipSize+4:]))
	}
	end := int(binary.LittleEndian.Uint32(c.skips[block*skipSize+4:]))
	if start > end || end > len(c.data)-padding {
		return 0, nil, 0
	}
	return from, c.data[start : end+padding], min(blockSize, c.df-block*blockSize)
}

// load decodes a block.
func (c *cursor) load(block int) {
	from, data, n := c.extent(block)
	c.list, c.position, c.block = decode(&c.buffer, data, n, from), 0, block
}

// approach skips blocks below lo without decoding any, sets near for the window [lo,hi), and returns the least ord from lo on that there may be.
// false at the list's end.
func (c *cursor) approach(lo, hi uint32) (next uint32, more bool) {
	c.near = 0
	if c.blocks > 1 {
		b := max(c.block, 0)
		for b < c.blocks && c.lastOrd(b) < lo {
			b++
		}
		if b == c.blocks {
			return 0, false
		}
		if b != c.block {
			// Not decoded yet: its ords are above the last one's.
			c.list, c.position, c.block = nil, 0, b
		}
		next = lo
		if c.list == nil {
			if b > 0 {
				next = max(lo, c.lastOrd(b-1)+1)
			} else {
				next = max(lo, c.first)
			}
		} else {
			c.skipTo(lo)
			if c.position < len(c.list) {
				next = c.list[c.position].ord
			}
		}
		if next < hi {
			for i := b; i < c.blocks; i++ {
				if i > b && c.lastOrd(i-1)+1 >= hi {
					break
				}
				c.near = max(c.near, c.bounds[i])
			}
		}
		return next, true
	}
	c.skipTo(lo)
	if c.position == len(c.list) {
		return 0, false
	}
	if next = c.list[c.position].ord; next < hi {
		c.near = c.bound
	}
	return next, true
}

// skipTo moves within the decoded postings to the first from lo on.
func (c *cursor) skipTo(lo uint32) {
	list := c.list[c.position:]
	if len(list) == 0 || list[0].ord >= lo {
		return
	}
	// list[below] is below lo, list[end] is not, or end is the list's.
	below, step := 0, 1
	for below+step < len(list) && list[below+step].ord < lo {
		below += step
		step *= 2
	}
	end := min(below+step, len(list))
	for end-below > 1 {
		if mid := (below + end) / 2; list[mid].ord < lo {
			below = mid
		} else {
			end = mid
		}
	}
	c.position += end
}

// seek moves to ord, decoding its block, and tells how often the entry has the term, 0 for not at all.
func (c *cursor) seek(ord uint32) (tf uint32) {
	if c.blocks > 1 {
		b := max(c.block, 0)
		for b < c.blocks && c.lastOrd(b) < ord {
			b++
		}
		if b == c.blocks {
			c.list, c.position, c.block = nil, 0, b
			return 0
		}
		if b != c.block || c.list == nil {
			c.load(b)
		}
	}
	c.skipTo(ord)
	if c.position < len(c.list) && c.list[c.position].ord == ord {
		return c.list[c.position].tf
	}
	return 0
}

// scratch is what a search needs besides its answer.
type scratch struct {
	scores  [window]float64
	found   [window / 64]uint64
	cursors []*cursor // of the part being searched
	active  []*cursor // those of them that are not at their end, least bound first
	spare   []*cursor
	dfs     []int
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// term is one of a query.
type term struct {
	text    string
	repeats float64
	idf     float64
}

// Search returns the depth best entries by BM25, best first; those with equal scores by part, then ord. limits[i] is how many ords of part i exist
// for the reader. accept tells whether an entry counts (it is live, visible, passes the filter); nil accepts all. stats count the live entries among which the reader searches.
// A term that stands twice in the query counts twice. No entry without any of the terms is returned.
func Search(parts []Part, limits []uint32, stats *Stats, params Params, terms []string, depth int, accept func(part int, ord uint32) bool) []Match {
	if depth <= 0 || len(terms) == 0 {
		return nil
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)

	sorted := slices.Clone(terms)
	slices.Sort(sorted)
	var query []term
	for i, t := range sorted {
		if i > 0 && t == sorted[i-1] {
			query[len(query)-1].repeats++
			continue
		}
		query = append(query, term{text: t, repeats: 1})
	}
	sorted = slices.Compact(sorted)
	var n int
	var avgLen float64
	n, avgLen, s.dfs = stats.view(sorted, s.dfs[:0])
	for i := range query {
		query[i].idf = IDF(s.dfs[i], n)
	}
	norm := params.Norm(avgLen)

	best := top{depth: depth}
	for i, p := range parts {
		s.search(p, i, limits[i], norm, query, &best, accept)
	}
	return best.sorted()
}

// search adds what a part has to best.
func (s *scratch) search(p Part, part int, limit uint32, norm Norm, query []term, best *top, accept func(part int, ord uint32) bool) {
	entries, lengths := p.entries()
	limit = uint32(min(int(limit), entries))
	s.spare = append(s.spare, s.cursors...)
	s.cursors = s.cursors[:0]
	for _, t := range query {
		var c *cursor
		if n := len(s.spare); n > 0 {
			c, s.spare = s.spare[n-1], s.spare[:n-1]
		} else {
			c = new(cursor)
		}
		c.idf, c.repeats = t.idf, t.repeats
		if p.open(c, t.text, norm, limit) {
			s.cursors = append(s.cursors, c)
		} else {
			s.spare = append(s.spare, c)
		}
	}
	defer func() {
		for _, c := range s.cursors { // keep no part's memory
			c.list, c.skips, c.data = nil, nil, nil
		}
	}()
	s.active = append(s.active[:0], s.cursors...)
	active := s.active
	slices.SortFunc(active, func(a, b *cursor) int { return cmp.Compare(a.bound, b.bound) })

	for lo := uint32(0); lo < limit && len(active) > 0; {
		// The next window begins where the next posting may be.
		next, kept := limit, active[:0]
		for _, c := range active {
			ord, more := c.approach(lo, lo)
			if more {
				kept = append(kept, c)
				next = min(next, ord)
			}
		}
		active = kept
		lo = next
		if lo >= limit || len(active) == 0 {
			break
		}
		hi := limit
		if limit-lo > window {
			hi = lo + window
		}
		kept = active[:0]
		for _, c := range active {
			if _, more := c.approach(lo, hi); more {
				kept = append(kept, c)
			}
		}
		active = kept
		insertionSort(active)

		// Entries that have only the first of them, those whose bounds sum up to no more than the worst of the best, can't get in.
		rest, essential := 0.0, 0
		for essential < len(active) && (active[essential].near == 0 || best.full() && rest+active[essential].near <= best.least()) {
			rest += active[essential].near
			essential++
		}
		if essential < len(active) {
			for _, c := range active[essential:] {
				s.accumulate(c, lo, hi, norm, lengths)
			}
			s.collect(active[:essential], rest, part, lo, norm, lengths, best, accept)
		}
		lo = hi
	}
}

// insertionSort orders by near. From one window to the next the order hardly changes.
func insertionSort(list []*cursor) {
	for i := 1; i < len(list); i++ {
		for j := i; j > 0 && list[j].near < list[j-1].near; j-- {
			list[j], list[j-1] = list[j-1], list[j]
		}
	}
}

// accumulate adds a term's scores within the window.
func (s *scratch) accumulate(c *cursor, lo, hi uint32, norm Norm, lengths []byte) {
	size := hi - lo
	for {
		if c.list == nil && c.blocks > 1 {
			if c.load(c.block); c.list == nil {
				return
			}
			c.skipTo(lo)
		}
		list := c.list[c.position:]
		done := len(list)
		for i, p := range list {
			at := p.ord - lo
			if at >= size {
				done = i
				break
			}
			s.scores[at] += c.weight(norm, p.tf, binary.LittleEndian.Uint32(lengths[4*p.ord:]))
			s.found[at/64] |= 1 << (at % 64)
		}
		c.position += done
		if c.position < len(c.list) || c.block+1 >= c.blocks || c.lastOrd(c.block)+1 >= hi {
			return
		}
		c.load(c.block + 1)
		if c.list == nil {
			return
		}
	}
}

// collect goes through what was found in the window, completes the scores with the terms left out, and empties the window.
func (s *scratch) collect(others []*cursor, rest float64, part int, lo uint32, norm Norm, lengths []byte, best *top, accept func(part int, ord uint32) bool) {
	for w := range s.found {
		for word := s.found[w]; word != 0; word &= word - 1 {
			at := uint32(w*64 + bits.TrailingZeros64(word))
			score := s.scores[at]
			s.scores[at] = 0
			if best.full() && score+rest <= best.least() {
				continue
			}
			ord := lo + at
			if accept != nil && !accept(part, ord) {
				continue
			}
			missing := rest
			for i := len(others) - 1; i >= 0; i-- {
				if best.full() && score+missing <= best.least() {
					break
				}
				c := others[i]
				missing -= c.near
				if c.near == 0 {
					break // nor have those before it anything here
				}
				if tf := c.seek(ord); tf > 0 {
					score += c.weight(norm, tf, binary.LittleEndian.Uint32(lengths[4*ord:]))
				}
			}
			best.offer(Match{part, ord, score})
		}
		s.found[w] = 0
	}
}

// top keeps the best matches: a heap with the worst of them first.
type top struct {
	depth int
	heap  []Match
}

func (t *top) full() bool     { return len(t.heap) == t.depth }
func (t *top) least() float64 { return t.heap[0].Score }

// worse tells whether a stands behind b in the answer.
func worse(a, b Match) bool {
	if a.Score != b.Score {
		return a.Score < b.Score
	}
	if a.Part != b.Part {
		return a.Part > b.Part
	}
	return a.Ord > b.Ord
}

func (t *top) offer(m Match) {
	if len(t.heap) < t.depth {
		t.heap = append(t.heap, m)
		for i := len(t.heap) - 1; i > 0; {
			up := (i - 1) / 2
			if !worse(t.heap[i], t.heap[up]) {
				break
			}
			t.heap[i], t.heap[up] = t.heap[up], t.heap[i]
			i = up
		}
		return
	}
	if !worse(t.heap[0], m) {
		return
	}
	t.heap[0] = m
	for i := 0; ; {
		down := 2*i + 1
		if down >= len(t.heap) {
			return
		}
		if down+1 < len(t.heap) && worse(t.heap[down+1], t.heap[down]) {
			down++
		}
		if !worse(t.heap[down], t.heap[i]) {
			return
		}
		t.heap[i], t.heap[down] = t.heap[down], t.heap[i]
		i = down
	}
}

func (t *top) sorted() []Match {
	slices.SortFunc(t.heap, func(a, b Match) int {
		if worse(b, a) {
			return -1
		}
		return 1
	})
	return t.heap
}
