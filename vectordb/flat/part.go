package flat

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/liverag/liverag/internal/lexical"
	"github.com/liverag/liverag/internal/simd"
	"github.com/liverag/liverag/vectordb"
)

// part is a run of rows that a view shows: the memtable, one that is being sealed, or a segment. A row is one document at one moment: its
// content, a tombstone, or only what was said of its access. At most one row of a document is alive in any view, whatever the part.
//
// Rows and entries are numbered from 0 in the order of writing; a row's entries follow each other. What a part returns is valid while the view is pinned.
type part interface {
	size() (rows, entries uint32)
	row(i uint32) row
	entry(e uint32) entryRecord
	// vector returns an entry's float32 vector.
	vector(e uint32) []float32
	// codes yields the entries' codes in runs: a run begins at entry first and has a scale for each of its entries.
	codes(yield func(first uint32, codes []int8, scales []float32))
	// died is the number of the write that replaced the row, 0 while it lives. A writer sets it once, readers compare it with their view.
	died(i uint32) *atomic.Uint64
	// find calls yield with every row of the key.
	find(key string, hash uint64, yield func(i uint32))
	// postings are the entries' terms.
	postings() lexical.Part
	// allowed returns the rows that the query's caller may see and that pass its filter; nil if all do.
	allowed(q *vectordb.Query) *bitset
}

// row is a document at one moment.
type row struct {
	key string
	// seq is the number of the write that made it.
	seq     uint64
	version int64
	deleted bool
	// searchable is when it was written, in microseconds: by the wall clock, or by the generation's age if it has no content.
	searchable int64
	// first and n are its entries.
	first, n uint32
	// meta and access are as appendMeta and appendAccess wrote them, text as packText did; size is the text's length.
	meta, access, text []byte
	size               uint32
}

// entryRecord is an entry as files hold it.
type entryRecord struct {
	start, end, tokens uint32
	row                uint32
	hash               vectordb.Hash
}

// revision decodes everything but text and entries.
func (r *row) revision() (vectordb.Revision, error) {
	rev := vectordb.Revision{Key: string([]byte(r.key)), Version: r.version, Deleted: r.deleted}
	if r.version > 0 && !r.deleted {
		rev.SearchableAt = fromMicros(r.searchable)
	}
	if len(r.meta) > 0 {
		d := decoder{b: r.meta}
		d.meta(&rev)
		if d.bad {
			return rev, fmt.Errorf("%w: the fields of %q", vectordb.ErrCorrupt, rev.Key)
		}
	}
	d := decoder{b: r.access}
	if rev.Access = d.access(); d.bad {
		return rev, fmt.Errorf("%w: the access list of %q", vectordb.ErrCorrupt, rev.Key)
	}
	return rev, nil
}

// blockRows is how many entries of a memtable are allocated together.
const blockRows = 256

// block holds the vectors of some entries. The writer fills it behind what readers see.
type block struct {
	codes   []int8
	scales  []float32
	vectors []float32
}

// memtable holds the newest rows, which the log wal holds too. One writer appends, many readers see what their memView holds.
type memtable struct {
	log *wal
	dim int

	rows    []*memRow
	entries []entryRecord
	blocks  []*block

	// mu guards byKey; all else is the writer's, and below a view's lengths it never changes.
	mu    sync.RWMutex
	byKey map[string][]uint32

	terms *lexical.Mem
	// restricted: some row has a tenant or an access list.
	restricted bool
	// bytes is about what it takes.
	bytes int
	// end is what was true when it was frozen, and counts the terms' counts then.
	end    checkpoint
	counts []byte
}

type memRow struct {
	row
	// rev is what filters look at.
	rev  vectordb.Revision
	died atomic.Uint64
}

func newMemtable(log *wal, dim int) *memtable {
	return &memtable{log: log, dim: dim, byKey: map[string][]uint32{}, terms: lexical.NewMem()}
}

// add appends a row and its entries; vector and terms give what belongs to entry i.
func (m *memtable) add(r row, rev vectordb.Revision, entries []entryRecord, vector func(i int) []float32, terms [][]string) {
	n := uint32(len(m.rows))
	r.first, r.n = uint32(len(m.entries)), uint32(len(entries))
	m.rows = append(m.rows, &memRow{row: r, rev: rev})
	for _, e := range entries {
		e.row = n
		m.entries = append(m.entries, e)
	}
	for len(m.blocks)*blockRows < len(m.entries) {
		m.blocks = append(m.blocks, &block{
			codes:   make([]int8, blockRows*m.dim),
			scales:  make([]float32, blockRows),
			vectors: make([]float32, blockRows*m.dim),
		})
	}
	m.restricted = m.restricted || rev.Tenant != "" || rev.Readers() != nil
	m.mu.Lock()
	m.byKey[r.key] = append(m.byKey[r.key], n)
	m.mu.Unlock()

	for i := range entries {
		e := int(r.first) + i
		b, at := m.blocks[e/blockRows], e%blockRows
		v := b.vectors[at*m.dim : (at+1)*m.dim]
		copy(v, vector(i))
		b.scales[at] = simd.Quantize(b.codes[at*m.dim:(at+1)*m.dim], v)
		m.terms.Add(uint32(e), terms[i])
		for _, t := range terms[i] {
			m.bytes += 8 + len(t)/8
		}
	}
	m.bytes += len(entries)*(5*m.dim+64) + len(r.key) + len(r.meta)*3 + len(r.text) + 400
}

// memView is what a view shows of a memtable: what was there when the view was made.
type memView struct {
	*memtable
	seen    []*memRow
	all     []entryRecord
	vectors []*block
	// open: the rows have neither tenant nor access list.
	open bool
}

// view returns what is there now. Only the writer calls it.
func (m *memtable) view() *memView {
	return &memView{memtable: m, open: !m.restricted, seen: m.rows[:len(m.rows):len(m.rows)], all: m.entries[:len(m.entries):len(m.entries)], vectors: m.blocks[:len(m.blocks):len(m.blocks)]}
}

func (v *memView) size() (rows, entries uint32) { return uint32(len(v.seen)), uint32(len(v.all)) }
func (v *memView) row(i uint32) row             { return v.seen[i].row }
func (v *memView) entry(e uint32) entryRecord   { return v.all[e] }
func (v *memView) died(i uint32) *atomic.Uint64 { return &v.seen[i].died }
func (v *memView) postings() lexical.Part       { return v.terms }

func (v *memView) vector(e uint32) []float32 {
	at := int(e%blockRows) * v.dim
	return v.vectors[e/blockRows].vectors[at : at+v.dim]
}

func (v *memView) codes(yield func(first uint32, codes []int8, scales []float32)) {
	for first := 0; first < len(v.all); first += blockRows {
		b, n := v.vectors[first/blockRows], min(blockRows, len(v.all)-first)
		yield(uint32(first), b.codes[:n*v.dim], b.scales[:n])
	}
}

func (v *memView) find(key string, _ uint64, yield func(i uint32)) {
	v.mu.RLock()
	rows := v.byKey[key]
	v.mu.RUnlock()
	for _, i := range rows {
		if int(i) < len(v.seen) {
			yield(i)
		}
	}
}

func (v *memView) allowed(q *vectordb.Query) *bitset {
	if v.open && q.Filter == nil && q.Tenant == "" {
		return nil
	}
	var set *bitset
	for i, r := range v.seen {
		if r.rev.ReadableBy(q.Tenant, q.Principals) && q.Filter.Match(&r.rev) {
			if set != nil {
				set.add(uint32(i))
			}
			continue
		}
		if set == nil {
			set = newBitset(uint32(len(v.seen)))
			for j := range i {
				set.add(uint32(j))
			}
		}
	}
	return set
}

// bitset is a set of rows.
type bitset struct {
	words []uint64
	n     uint32
}

func newBitset(n uint32) *bitset { return &bitset{words: make([]uint64, (n+63)/64), n: n} }

func (s *bitset) add(i uint32)      { s.words[i/64] |= 1 << (i % 64) }
func (s *bitset) has(i uint32) bool { return s.words[i/64]&(1<<(i%64)) != 0 }

// all adds every row.
func (s *bitset) all() {
	for i := range s.words {
		s.words[i] = ^uint64(0)
	}
	s.trim()
}

func (s *bitset) invert() {
	for i := range s.words {
		s.words[i] = ^s.words[i]
	}
	s.trim()
}

// trim clears the bits after the last row.
func (s *bitset) trim() {
	if s.n%64 != 0 {
		s.words[len(s.words)-1] &= 1<<(s.n%64) - 1
	}
}

func (s *bitset) and(o *bitset) {
	for i, w := range o.words {
		s.words[i] &= w
	}
}

func (s *bitset) or(o *bitset) {
	for i, w := range o.words {
		s.words[i] |= w
	}
}
