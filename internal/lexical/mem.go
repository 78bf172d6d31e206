package lexical

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
)

// Mem is the growing part of an index: one writer, many readers at once. A reader sees the entries below the limit that it gives to Search.
type Mem struct {
	mu      sync.RWMutex
	terms   dictionary
	lists   []postings // by the term's number
	count   int
	lengths []byte // little-endian uint32s, as in the sealed form
}

// posting says that an entry has a term, and how often.
type posting struct{ ord, tf uint32 }

// postings of one term, ords ascending. Readers take the slice under the lock and read it without: what lies below its length never changes.
type postings struct {
	list []posting
	// maxTF and minLen bound the score of all of them.
	maxTF, minLen uint32
}

// NewMem returns an empty part.
func NewMem() *Mem { return &Mem{} }

// Add adds an entry with all its terms, repeats included. Ords ascend without gaps from 0; anything else panics, because it is a bug of the caller.
func (m *Mem) Add(ord uint32, terms []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int(ord) != m.count {
		panic("lexical: ords must ascend without gaps")
	}
	length := uint32(len(terms))
	m.count++
	m.lengths = binary.LittleEndian.AppendUint32(m.lengths, length)
	for _, t := range terms {
		id := m.terms.number(t)
		if int(id) == len(m.lists) {
			m.lists = append(m.lists, postings{minLen: length})
		}
		p := &m.lists[id]
		if n := len(p.list); n > 0 && p.list[n-1].ord == ord {
			p.list[n-1].tf++ // nobody reads it yet: the lock is held since it was added
			p.maxTF = max(p.maxTF, p.list[n-1].tf)
			continue
		}
		p.list = append(p.list, posting{ord, 1})
		p.maxTF = max(p.maxTF, 1)
		p.minLen = min(p.minLen, length)
	}
}

// Len is how many entries there are.
func (m *Mem) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.count
}

// Seal returns the sealed form of the live entries under their new ords, which must ascend with the old ones. The part itself stays as it is.
func (m *Mem) Seal(live func(ord uint32) (newOrd uint32, ok bool)) []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	b := newBuilder()
	renumber := b.renumber(m.lengths, live)
	sorted := make([]uint32, m.terms.size())
	for id := range sorted {
		sorted[id] = uint32(id)
	}
	slices.SortFunc(sorted, func(x, y uint32) int { return bytes.Compare(m.terms.term(x), m.terms.term(y)) })
	for _, id := range sorted {
		for _, p := range m.lists[id].list {
			if ord := renumber[p.ord]; ord != dead {
				b.add(posting{ord, p.tf})
			}
		}
		b.finishTerm(string(m.terms.term(id)))
	}
	return b.bytes()
}

func (m *Mem) open(c *cursor, term string, norm Norm, limit uint32) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	id, ok := m.terms.find(term)
	if !ok {
		return false
	}
	p := &m.lists[id]
	if p.list[0].ord >= limit {
		return false
	}
	c.blocks, c.skips, c.bounds = 1, nil, c.bounds[:0]
	c.list, c.position, c.block = p.list, 0, 0
	c.bound = c.weight(norm, p.maxTF, p.minLen)
	return true
}

func (m *Mem) entries() (int, []byte) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.count, m.lengths
}
