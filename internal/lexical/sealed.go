package lexical

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
)

// ErrFormat is wrapped by Open's errors: the bytes are no sealed part, or one of another version.
var ErrFormat = errors.New("not a sealed lexical part of this version")

// Sealed is a part that does not change. It reads its bytes in place. It is safe for concurrent use.
type Sealed struct {
	docs, terms                int
	postings                   uint64
	size                       int
	lengths, index, dict, post []byte // post has its padding
}

// Open reads a sealed part. It looks at the header and the extents of the sections, which takes no time; bytes that were damaged within a section make
// searches miss entries, never panic, so keep a checksum beside them. b must not change while the part is in use.
func Open(b []byte) (*Sealed, error) {
	if len(b) < headerSize+padding || string(b[:4]) != magic {
		return nil, fmt.Errorf("%w: no header", ErrFormat)
	}
	if v := binary.LittleEndian.Uint32(b[4:]); v != version {
		return nil, fmt.Errorf("%w: version %d, not %d", ErrFormat, v, version)
	}
	s := &Sealed{
		docs:     int(binary.LittleEndian.Uint32(b[8:])),
		terms:    int(binary.LittleEndian.Uint32(b[12:])),
		postings: binary.LittleEndian.Uint64(b[16:]),
		size:     len(b),
	}
	at := uint64(headerSize)
	for i, section := range []*[]byte{&s.lengths, &s.index, &s.dict, &s.post} {
		end := binary.LittleEndian.Uint64(b[24+8*i:])
		if end < at || end > uint64(len(b)-padding) {
			return nil, fmt.Errorf("%w: section %d ends at %d of %d bytes", ErrFormat, i, end, len(b))
		}
		*section = b[at:end:end]
		at = end
	}
	if at != uint64(len(b)-padding) {
		return nil, fmt.Errorf("%w: %d bytes, %d expected", ErrFormat, len(b), at+padding)
	}
	s.post = b[at-uint64(len(s.post)):]
	if len(s.lengths) != 4*s.docs {
		return nil, fmt.Errorf("%w: lengths of %d bytes for %d entries", ErrFormat, len(s.lengths), s.docs)
	}
	if blocks := (s.terms + termsPerBlock - 1) / termsPerBlock; len(s.index) != indexSize*blocks {
		return nil, fmt.Errorf("%w: an index of %d bytes for %d terms", ErrFormat, len(s.index), s.terms)
	}
	return s, nil
}

// Len is how many entries the part numbers, from 0.
func (s *Sealed) Len() int { return s.docs }

// Terms is how many distinct terms there are.
func (s *Sealed) Terms() int { return s.terms }

// Postings is how many postings there are.
func (s *Sealed) Postings() int { return int(s.postings) }

// Size is the part's length in bytes.
func (s *Sealed) Size() int { return s.size }

func (s *Sealed) entries() (int, []byte) { return s.docs, s.lengths }

// dictBlock is where a block's terms and its first postings begin.
func (s *Sealed) dictBlock(i int) (dict, post uint64) {
	e := s.index[i*indexSize:]
	return binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint64(e[8:])
}

// dictEntry is a term as it stands in the dictionary.
type dictEntry struct {
	shared    int
	rest      []byte
	df        uint64
	ord, tf   uint64 // of a term in one entry
	postBytes uint64 // of any other
}

// fields reads uvarints one after the other; after a bad one, or at the end, bad is set and all are 0.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) uvarint() uint64 {
	if len(f.b) > 0 && f.b[0] < 0x80 {
		v := f.b[0]
		f.b = f.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		f.b, f.bad = nil, true
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) bytes(n uint64) []byte {
	if n > uint64(len(f.b)) {
		f.b, f.bad = nil, true
		return nil
	}
	v := f.b[:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) entry() (e dictEntry) {
	shared := f.uvarint()
	if shared > math.MaxInt32 {
		f.b, f.bad = nil, true
	}
	e.shared = int(shared)
	e.rest = f.bytes(f.uvarint())
	if e.df = f.uvarint(); e.df == 1 {
		e.ord = f.uvarint()
		e.tf = f.uvarint()
	} else {
		e.postBytes = f.uvarint()
	}
	return e
}

// find looks a term up; post is where its postings begin.
func (s *Sealed) find(term string) (e dictEntry, post uint64, ok bool) {
	// The last block whose first term is not above term.
	lo, hi := 0, len(s.index)/indexSize
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		at, _ := s.dictBlock(mid)
		f := fields{b: s.dict[min(at, uint64(len(s.dict))):]}
		f.uvarint()
		if first := f.bytes(f.uvarint()); f.bad || string(first) > term {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	if lo == 0 {
		return e, 0, false
	}
	block := lo - 1
	at, post := s.dictBlock(block)
	f := fields{b: s.dict[min(at, uint64(len(s.dict))):]}
	// matched is how much of term the entry before shares: front coding then tells most entries apart without looking at their bytes.
	matched := 0
	for range min(termsPerBlock, s.terms-block*termsPerBlock) {
		e = f.entry()
		if f.bad || e.shared < matched {
			return e, 0, false // past where the term would stand
		}
		if e.shared == matched && matched <= len(term) {
			n := 0
			rest := term[matched:]
			for n < len(rest) && n < len(e.rest) && rest[n] == e.rest[n] {
				n++
			}
			matched += n
			if n == len(rest) && n == len(e.rest) {
				return e, post, true
			}
			if n < len(e.rest) && (n == len(rest) || e.rest[n] > rest[n]) {
				return e, 0, false
			}
		}
		post += e.postBytes
	}
	return e, 0, false
}

// postingsOf returns the bytes of an entry's postings, with something behind them to read words from: the skips and the blocks.
func (s *Sealed) postingsOf(e dictEntry, at uint64) (skips, blocks []byte, ok bool) {
	have := uint64(len(s.post) - padding)
	if at > have || e.postBytes > have-at || e.df < 2 || e.df > uint64(s.docs) {
		return nil, nil, false
	}
	list := s.post[at : at+e.postBytes+padding]
	if n := (e.df + blockSize - 1) / blockSize; n > 1 {
		if n*skipSize > e.postBytes {
			return nil, nil, false
		}
		return list[:n*skipSize], list[n*skipSize:], true
	}
	return nil, list, true
}

// decode reads a block of n postings: from is the least ord that may come. nil if the bytes are damaged.
func decode(into *[blockSize]posting, block []byte, n int, from uint32) []posting {
	if len(block) < 2+padding || n > blockSize {
		return nil
	}
	gapWidth, tfWidth := int(block[0]), int(block[1])
	gapBytes := packedSize(n, gapWidth)
	if gapWidth > 32 || tfWidth > 32 || 2+gapBytes+packedSize(n, tfWidth)+padding > len(block) {
		return nil
	}
	list := into[:n]
	gaps := block[2:]
	mask := uint64(1)<<gapWidth - 1
	for i, bit := 0, 0; i < len(list); i, bit = i+1, bit+gapWidth {
		from += uint32(binary.LittleEndian.Uint64(gaps[bit>>3:]) >> (bit & 7) & mask)
		list[i].ord = from
		from++
	}
	if tfWidth == 0 {
		for i := range list {
			list[i].tf = 1
		}
		return list
	}
	tfs := block[2+gapBytes:]
	mask = uint64(1)<<tfWidth - 1
	for i, bit := 0, 0; i < len(list); i, bit = i+1, bit+tfWidth {
		list[i].tf = 1 + uint32(binary.LittleEndian.Uint64(tfs[bit>>3:])>>(bit&7)&mask)
	}
	return list
}

func (s *Sealed) open(c *cursor, term string, norm Norm, limit uint32) bool {
	e, at, ok := s.find(term)
	if !ok {
		return false
	}
	c.skips, c.bounds, c.position, c.block = nil, c.bounds[:0], 0, 0
	if e.df == 1 {
		if e.ord >= uint64(limit) {
			return false
		}
		c.blocks = 1
		c.buffer[0] = posting{uint32(e.ord), uint32(e.tf)}
		c.list = c.buffer[:1]
		c.bound = c.weight(norm, uint32(e.tf), binary.LittleEndian.Uint32(s.lengths[4*e.ord:]))
		return true
	}
	skips, blocks, ok := s.postingsOf(e, at)
	if !ok {
		return false
	}
	first, n := binary.Uvarint(blocks)
	if n <= 0 || first >= uint64(limit) {
		return false
	}
	c.df, c.first, c.headSize = int(e.df), uint32(first), n
	c.blocks, c.skips, c.data = max(1, len(skips)/skipSize), skips, blocks
	c.bound = 0
	if c.blocks == 1 {
		c.list = decode(&c.buffer, blocks[n:], c.df, c.first)
		for _, p := range c.list {
			if p.ord >= limit {
				break
			}
			c.bound = max(c.bound, c.weight(norm, p.tf, binary.LittleEndian.Uint32(s.lengths[4*p.ord:])))
		}
		return len(c.list) > 0
	}
	for skip := skips; len(skip) >= skipSize; skip = skip[skipSize:] {
		tf, length := uint32(binary.LittleEndian.Uint16(skip[8:])), uint32(binary.LittleEndian.Uint16(skip[10:]))
		bound := c.repeats * (c.idf + 1 + grid - grid) // what no tf reaches
		if tf < saturated {
			bound = c.weight(norm, tf, length)
		}
		c.bounds = append(c.bounds, bound)
		c.bound = max(c.bound, bound)
	}
	c.list, c.block = nil, -1
	return true
}

// terms walks through a dictionary in order.
type termWalk struct {
	s       *Sealed
	next    int
	f       fields
	term    []byte
	entry   dictEntry
	post    uint64 // of entry
	advance uint64
}

// step goes to the next term; false at the end.
func (w *termWalk) step() bool {
	if w.next >= w.s.terms {
		return false
	}
	if w.next%termsPerBlock == 0 {
		at, post := w.s.dictBlock(w.next / termsPerBlock)
		w.f = fields{b: w.s.dict[min(at, uint64(len(w.s.dict))):]}
		w.term, w.post, w.advance = w.term[:0], post, 0
	}
	w.post += w.advance
	w.entry = w.f.entry()
	if w.f.bad || w.entry.shared > len(w.term) {
		w.next = w.s.terms
		return false
	}
	w.advance = w.entry.postBytes
	w.term = append(w.term[:w.entry.shared], w.entry.rest...)
	w.next++
	return true
}

// each calls yield for all postings of the term that the walk is at.
func (w *termWalk) each(yield func(posting)) {
	if w.entry.df == 1 {
		if w.entry.ord < uint64(w.s.docs) {
			yield(posting{uint32(w.entry.ord), uint32(w.entry.tf)})
		}
		return
	}
	skips, blocks, ok := w.s.postingsOf(w.entry, w.post)
	if !ok {
		return
	}
	first, n := binary.Uvarint(blocks)
	if n <= 0 {
		return
	}
	var buffer [blockSize]posting
	c := cursor{df: int(w.entry.df), first: uint32(first), headSize: n, blocks: max(1, len(skips)/skipSize), skips: skips, data: blocks}
	least := uint64(0)
	for block := range c.blocks {
		from, data, count := c.extent(block)
		for _, p := range decode(&buffer, data, count, from) {
			if uint64(p.ord) < least || int(p.ord) >= w.s.docs {
				return
			}
			least = uint64(p.ord) + 1
			yield(p)
		}
	}
}

// Merge puts parts together: the live entries of the first under their new ords, then those of the second and so on; new ords ascend over all of them.
func Merge(parts []*Sealed, live []func(ord uint32) (newOrd uint32, ok bool)) []byte {
	b := newBuilder()
	renumber := make([][]uint32, len(parts))
	walks := make([]*termWalk, 0, len(parts))
	of := make([]int, 0, len(parts))
	for i, p := range parts {
		renumber[i] = b.renumber(p.lengths, live[i])
		if w := (&termWalk{s: p}); w.step() {
			walks = append(walks, w)
			of = append(of, i)
		}
	}
	for len(walks) > 0 {
		least := walks[0].term
		for _, w := range walks[1:] {
			if bytes.Compare(w.term, least) < 0 {
				least = w.term
			}
		}
		term := string(least)
		for i := 0; i < len(walks); i++ {
			w := walks[i]
			if string(w.term) != term {
				continue
			}
			ords := renumber[of[i]]
			w.each(func(p posting) {
				if ord := ords[p.ord]; ord != dead {
					b.add(posting{ord, p.tf})
				}
			})
			if !w.step() {
				walks = append(walks[:i], walks[i+1:]...)
				of = append(of[:i], of[i+1:]...)
				i--
			}
		}
		b.finishTerm(strings.Clone(term))
	}
	return b.bytes()
}
