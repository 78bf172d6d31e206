package lexical

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// The sealed form, all numbers little-endian:
//
//	header    64 bytes: magic, version, counts, offsets of the sections
//	lengths   a uint32 an entry: how many terms it has
//	index     for each dictionary block: where it begins, where its postings begin
//	dict      blocks of 16 terms in byte order, front-coded: uvarint shared, uvarint rest, rest; then uvarint df;
//	          then, of a term in one entry, uvarint ord, uvarint tf, of any other the uvarint length of its postings
//	postings  lists of blocks of 128 postings; a list of several blocks begins with their skips
//	          skip: uint32 last ord, uint32 end of the block (from the end of the skips), uint16 greatest tf, uint16 least length
//	          block: uvarint first ord (the list's first block only), width of gaps, width of tfs, gaps−1 and tfs−1 bit-packed
//	padding   8 bytes, so that packed numbers can be read a word at a time
const (
	magic      = "LRLX"
	version    = 1
	headerSize = 64
	indexSize  = 16
	skipSize   = 12
	padding    = 8

	termsPerBlock = 16
	blockSize     = 128

	saturated = math.MaxUint16 // of a skip's tf: any number from here on
	dead      = math.MaxUint32
)

type builder struct {
	lengths, index, dict, posts []byte

	list     []posting // of the term being built
	last     string    // the term before
	terms    int
	postings uint64
}

func newBuilder() *builder { return &builder{} }

// renumber asks live for every entry of a part, takes over the lengths of those that live, and returns what becomes of each ord.
func (b *builder) renumber(lengths []byte, live func(ord uint32) (newOrd uint32, ok bool)) []uint32 {
	renumbered := make([]uint32, len(lengths)/4)
	for ord := range renumbered {
		renumbered[ord] = dead
		n, ok := live(uint32(ord))
		if !ok {
			continue
		}
		if n == dead || int(n) < len(b.lengths)/4 {
			panic("lexical: new ords must ascend with the old ones")
		}
		b.lengths = append(b.lengths, make([]byte, 4*(int(n)-len(b.lengths)/4))...) // of ords left out
		b.lengths = append(b.lengths, lengths[4*ord:4*ord+4]...)
		renumbered[ord] = n
	}
	return renumbered
}

// add appends a posting of the term that finishTerm will name. Ords ascend.
func (b *builder) add(p posting) { b.list = append(b.list, p) }

// finishTerm writes the term with what was added. Terms come in byte order; one without postings is left out.
func (b *builder) finishTerm(term string) {
	if len(b.list) == 0 {
		return
	}
	if b.terms%termsPerBlock == 0 {
		b.index = binary.LittleEndian.AppendUint64(b.index, uint64(len(b.dict)))
		b.index = binary.LittleEndian.AppendUint64(b.index, uint64(len(b.posts)))
		b.last = ""
	}
	shared := 0
	for shared < len(term) && shared < len(b.last) && term[shared] == b.last[shared] {
		shared++
	}
	b.dict = binary.AppendUvarint(b.dict, uint64(shared))
	b.dict = binary.AppendUvarint(b.dict, uint64(len(term)-shared))
	b.dict = append(b.dict, term[shared:]...)
	b.dict = binary.AppendUvarint(b.dict, uint64(len(b.list)))
	if len(b.list) == 1 {
		b.dict = binary.AppendUvarint(b.dict, uint64(b.list[0].ord))
		b.dict = binary.AppendUvarint(b.dict, uint64(b.list[0].tf))
	} else {
		before := len(b.posts)
		b.encode()
		b.dict = binary.AppendUvarint(b.dict, uint64(len(b.posts)-before))
	}
	b.last = term
	b.terms++
	b.postings += uint64(len(b.list))
	b.list = b.list[:0]
}

// encode appends the list to the postings.
func (b *builder) encode() {
	list := b.list
	skipsAt := len(b.posts)
	several := len(list) > blockSize
	if several {
		b.posts = append(b.posts, make([]byte, skipSize*((len(list)+blockSize-1)/blockSize))...)
	}
	base := len(b.posts)
	next := list[0].ord // the least ord that may come
	b.posts = binary.AppendUvarint(b.posts, uint64(next))
	for block := 0; len(list) > 0; block++ {
		part := list[:min(blockSize, len(list))]
		list = list[len(part):]
		var gaps, tfs [blockSize]uint32
		var anyGap, anyTF uint32
		maxTF, minLen := uint32(0), uint32(math.MaxUint32)
		for i, p := range part {
			gaps[i], tfs[i] = p.ord-next, p.tf-1
			next = p.ord + 1
			anyGap |= gaps[i]
			anyTF |= tfs[i]
			maxTF = max(maxTF, p.tf)
			minLen = min(minLen, binary.LittleEndian.Uint32(b.lengths[4*p.ord:]))
		}
		gapWidth, tfWidth := bits.Len32(anyGap), bits.Len32(anyTF)
		b.posts = append(b.posts, byte(gapWidth), byte(tfWidth))
		b.posts = pack(b.posts, gaps[:len(part)], gapWidth)
		b.posts = pack(b.posts, tfs[:len(part)], tfWidth)
		if several {
			skip := b.posts[skipsAt+block*skipSize:]
			binary.LittleEndian.PutUint32(skip, next-1)
			binary.LittleEndian.PutUint32(skip[4:], uint32(len(b.posts)-base))
			binary.LittleEndian.PutUint16(skip[8:], uint16(min(maxTF, saturated)))
			binary.LittleEndian.PutUint16(skip[10:], uint16(min(minLen, math.MaxUint16)))
		}
	}
}

// pack appends numbers of width bits each.
func pack(dst []byte, numbers []uint32, width int) []byte {
	var word uint64
	have := 0
	for _, n := range numbers {
		word |= uint64(n) << have
		have += width
		for have >= 8 {
			dst = append(dst, byte(word))
			word >>= 8
			have -= 8
		}
	}
	if have > 0 {
		dst = append(dst, byte(word))
	}
	return dst
}

func packedSize(n, width int) int { return (n*width + 7) / 8 }

// bytes puts the sections together.
func (b *builder) bytes() []byte {
	out := make([]byte, headerSize, headerSize+len(b.lengths)+len(b.index)+len(b.dict)+len(b.posts)+padding)
	copy(out, magic)
	binary.LittleEndian.PutUint32(out[4:], version)
	binary.LittleEndian.PutUint32(out[8:], uint32(len(b.lengths)/4))
	binary.LittleEndian.PutUint32(out[12:], uint32(b.terms))
	binary.LittleEndian.PutUint64(out[16:], b.postings)
	for i, section := range [][]byte{b.lengths, b.index, b.dict, b.posts} {
		out = append(out, section...)
		binary.LittleEndian.PutUint64(out[24+8*i:], uint64(len(out))) // its end
	}
	return append(out, make([]byte, padding)...)
}
