// Package bpe counts and encodes text in the byte-pair encodings cl100k_base and o200k_base.
//
// The ranks are those of tiktoken's published vocabularies; ids equal tiktoken-go's EncodeOrdinary for every string, invalid UTF-8
// included: there, as there, each invalid byte is encoded as if it were U+FFFD. No special tokens: "<|endoftext|>" in a document is text.
//
// A text is cut into pre-tokens by a scanner that is the encoding's regular expression by hand; most pre-tokens are one token,
// found by one look-up, and the others are merged pair by pair, lowest rank first.
package bpe

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/pkoukk/tiktoken-go-loader/assets"
)

// Names of the encodings that [Load] knows.
const (
	CL100K = "cl100k_base"
	O200K  = "o200k_base"
)

// Encoding is a vocabulary with its pre-tokeniser. It is safe for concurrent use.
type Encoding struct {
	name    string
	o200k   bool
	table   *[tabled]uint8
	bytes   string     // every token's bytes, by rank
	offsets []uint32   // token r is bytes[offsets[r]:offsets[r+1]]
	singles [256]int32 // rank of each byte
	pairs   *[1 << 16]int32
	short   []shortSlot // tokens of at most shortBytes
	long    []uint64    // the others: upper half of the hash, rank+1
	longest int

	mergers sync.Pool
}

// shortBytes is how long a token may be to have its bytes, and their number, inside its slot: no second look at memory.
const shortBytes = 7

type shortSlot struct {
	key  uint64 // bytes, little-endian, with their number in the top byte; 0 is an empty slot
	rank int32
}

var loaders = map[string]func() (*Encoding, error){
	CL100K: sync.OnceValues(func() (*Encoding, error) { return load(CL100K) }),
	O200K:  sync.OnceValues(func() (*Encoding, error) { return load(O200K) }),
}

// Load returns the encoding of that name. The first call reads the vocabulary, which is part of the program; later ones return the same.
func Load(name string) (*Encoding, error) {
	loader, ok := loaders[name]
	if !ok {
		return nil, fmt.Errorf("unknown encoding %q: use %s or %s", name, CL100K, O200K)
	}
	return loader()
}

func load(name string) (*Encoding, error) {
	file, err := assets.Assets.ReadFile(name + ".tiktoken")
	if err != nil {
		return nil, fmt.Errorf("read vocabulary: %w", err)
	}
	e, err := parse(name, file)
	if err != nil {
		return nil, fmt.Errorf("parse vocabulary %s: %w", name, err)
	}
	return e, nil
}

// parse reads tiktoken's format: a line for each token with its bytes in base64 and its rank, in the order of ranks.
func parse(name string, file []byte) (*Encoding, error) {
	lines := strings.Count(string(file), "\n") + 1
	e := &Encoding{name: name, o200k: name == O200K, table: classes(), pairs: new([1 << 16]int32)}
	e.mergers.New = func() any { return &merger{cache: make([]cached, cacheSize)} }
	e.offsets = append(make([]uint32, 0, lines+1), 0)
	all := make([]byte, 0, len(file)/2)
	for at := 0; at < len(file); {
		end := at
		for end < len(file) && file[end] != '\n' {
			end++
		}
		line := file[at:end]
		at = end + 1
		if len(line) == 0 {
			continue
		}
		gap := 0
		for gap < len(line) && line[gap] != ' ' {
			gap++
		}
		rank := 0
		for _, c := range line[min(gap+1, len(line)):] {
			rank = rank*10 + int(c-'0')
		}
		if rank != len(e.offsets)-1 {
			return nil, fmt.Errorf("line %d has rank %d: ranks must count up from 0", len(e.offsets), rank)
		}
		var err error
		if all, err = base64.StdEncoding.AppendDecode(all, line[:gap]); err != nil {
			return nil, fmt.Errorf("line %d: %w", len(e.offsets), err)
		}
		e.offsets = append(e.offsets, uint32(len(all)))
	}
	e.bytes = string(all)
	return e, e.build()
}

// build makes the look-up tables.
func (e *Encoding) build() error {
	for i := range e.singles {
		e.singles[i] = none
	}
	for i := range e.pairs {
		e.pairs[i] = none
	}
	shorts := 0
	for rank := range e.size() {
		token := e.token(int32(rank))
		e.longest = max(e.longest, len(token))
		switch {
		case len(token) == 1:
			e.singles[token[0]] = int32(rank)
		case len(token) == 2:
			e.pairs[uint(token[0])<<8|uint(token[1])] = int32(rank)
		}
		if len(token) <= shortBytes {
			shorts++
		}
	}
	for b, rank := range e.singles {
		if rank == none {
			return fmt.Errorf("byte %#02x is no token", b)
		}
	}
	e.short = make([]shortSlot, 1<<bits.Len(uint(shorts*3/2)))
	e.long = make([]uint64, 1<<bits.Len(uint((e.size()-shorts)*3/2)))
	for rank := range e.size() {
		token := e.token(int32(rank))
		if token == "" {
			return errors.New("a token has no bytes")
		}
		if len(token) <= shortBytes {
			key := shortKey(token)
			at := e.shortHome(key)
			for e.short[at].key != 0 {
				at = (at + 1) & uint64(len(e.short)-1)
			}
			e.short[at] = shortSlot{key, int32(rank)}
			continue
		}
		h := longHash(token)
		at := h & uint64(len(e.long)-1)
		for e.long[at] != 0 {
			at = (at + 1) & uint64(len(e.long)-1)
		}
		e.long[at] = h>>32<<32 | uint64(rank+1)
	}
	return nil
}

func (e *Encoding) size() int { return len(e.offsets) - 1 }

func (e *Encoding) token(rank int32) string { return e.bytes[e.offsets[rank]:e.offsets[rank+1]] }

// Name returns the encoding's name.
func (e *Encoding) Name() string { return e.name }

// Longest returns the length of the longest token in bytes: n bytes are never fewer than n/Longest tokens.
func (e *Encoding) Longest() int { return e.longest }

// shortKey packs 1 to shortBytes bytes.
func shortKey(s string) uint64 {
	key := uint64(len(s)) << 56
	switch {
	case len(s) >= 4:
		// Two overlapping reads of four bytes.
		n := len(s)
		lo := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
		hi := uint64(s[n-4]) | uint64(s[n-3])<<8 | uint64(s[n-2])<<16 | uint64(s[n-1])<<24
		return key | lo | hi<<(8*(n-4))
	case len(s) == 3:
		return key | uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16
	case len(s) == 2:
		return key | uint64(s[0]) | uint64(s[1])<<8
	}
	return key | uint64(s[0])
}

func (e *Encoding) shortHome(key uint64) uint64 {
	hi, lo := bits.Mul64(key, 0x9e3779b97f4a7c15)
	return (hi ^ lo) & uint64(len(e.short)-1)
}

// longHash hashes more than shortBytes bytes.
func longHash(s string) uint64 {
	h := uint64(len(s)) * 0x9e3779b97f4a7c15
	n := len(s)
	last := word(s[n-8:])
	for len(s) > 8 {
		hi, lo := bits.Mul64(h^word(s), 0xd6e8feb86659fd93)
		h = hi ^ lo
		s = s[8:]
	}
	hi, lo := bits.Mul64(h^last, 0xa0761d6478bd642f)
	return hi ^ lo
}

func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// rank returns the rank of the token with these bytes, of which there is at least one, or none.
func (e *Encoding) rank(s string) int32 {
	if len(s) <= shortBytes {
		key := shortKey(s)
		at := e.shortHome(key)
		for {
			slot := &e.short[at]
			if slot.key == key {
				return slot.rank
			}
			if slot.key == 0 {
				return none
			}
			at = (at + 1) & uint64(len(e.short)-1)
		}
	}
	if len(s) > e.longest {
		return none
	}
	h := longHash(s)
	at := h & uint64(len(e.long)-1)
	for {
		slot := e.long[at]
		if slot == 0 {
			return none
		}
		if slot>>32 == h>>32 {
			if rank := int32(uint32(slot)) - 1; e.token(rank) == s {
				return rank
			}
		}
		at = (at + 1) & uint64(len(e.long)-1)
	}
}

func (e *Encoding) next(s *scanner, p int) int {
	if e.o200k {
		return s.nextO200K(p)
	}
	return s.nextCL100K(p)
}

// Count returns the number of the text's tokens.
func (e *Encoding) Count(text string) int {
	m := e.mergers.Get().(*merger)
	defer e.release(m)
	s := scanner{table: e.table, text: text}
	total := 0
	for p := 0; p < len(text); {
		end := e.next(&s, p)
		total += e.countPiece(m, text[p:end], s.broken)
		p = end
	}
	return total
}

// release puts a merger back, unless a huge piece has made it huge.
func (e *Encoding) release(m *merger) {
	if m.long != nil && cap(m.long.next) > 1<<20 {
		m.long = nil
	}
	e.mergers.Put(m)
}

// countPiece returns the number of a pre-token's tokens.
func (e *Encoding) countPiece(m *merger, piece string, broken bool) int {
	if broken {
		piece = repaired(piece)
	}
	if e.rank(piece) != none {
		return 1
	}
	if len(piece) > 15 {
		return len(m.split(e, piece)) - 1
	}
	var lo, hi uint64
	if n := len(piece); n < 8 {
		lo = shortKey(piece)
	} else {
		lo = word(piece)
		hi = word(piece[n-8:])>>(8*(16-n)) | uint64(n)<<56 // a shift by 64, for 8 bytes, leaves nothing
	}
	mixed, low := bits.Mul64(lo^hi*0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	slot := &m.cache[(mixed^low)&(cacheSize-1)]
	if slot.lo != lo || slot.hi != hi || slot.count == 0 {
		*slot = cached{lo, hi, int32(len(m.split(e, piece)) - 1)}
	}
	return int(slot.count)
}

// repaired returns the piece with each invalid byte replaced by U+FFFD.
func repaired(piece string) string {
	var b strings.Builder
	for _, r := range piece {
		b.WriteRune(r)
	}
	return b.String()
}

// Encode appends the ids of the text's tokens to dst.
func (e *Encoding) Encode(dst []int, text string) []int {
	m := e.mergers.Get().(*merger)
	defer e.release(m)
	s := scanner{table: e.table, text: text}
	for p := 0; p < len(text); {
		end := e.next(&s, p)
		piece := text[p:end]
		p = end
		if s.broken {
			piece = repaired(piece)
		}
		if rank := e.rank(piece); rank != none {
			dst = append(dst, int(rank))
			continue
		}
		parts := m.split(e, piece)
		for i := range len(parts) - 1 {
			dst = append(dst, int(e.rank(piece[parts[i].start:parts[i+1].start])))
		}
	}
	return dst
}

// AppendEnds appends the end of each of the text's tokens, as a byte offset, to dst. A token may end inside a rune.
// Of an invalid byte, which is encoded as the three bytes of U+FFFD, all tokens but the last end where the byte starts.
func (e *Encoding) AppendEnds(dst []int32, text string) []int32 {
	m := e.mergers.Get().(*merger)
	defer e.release(m)
	s := scanner{table: e.table, text: text}
	for p := 0; p < len(text); {
		end := e.next(&s, p)
		dst = e.appendEnds(dst, m, text, p, end, s.broken)
		p = end
	}
	return dst
}

// appendEnds appends the token ends of the pre-token text[start:end].
func (e *Encoding) appendEnds(dst []int32, m *merger, text string, start, end int, broken bool) []int32 {
	piece := text[start:end]
	if broken {
		piece = repaired(piece)
	}
	if e.rank(piece) != none {
		return append(dst, int32(end))
	}
	parts := m.split(e, piece)
	first := len(dst)
	for _, p := range parts[1:] {
		dst = append(dst, int32(start)+p.start)
	}
	if !broken {
		return dst
	}
	// Walk both forms of the piece side by side, and take each end back to the text's own offsets.
	at, repairedAt := start, int32(start)
	for i := first; i < len(dst); i++ {
		for repairedAt < dst[i] {
			r, n := utf8.DecodeRuneInString(text[at:end])
			if width := int32(utf8.RuneLen(r)); repairedAt+width <= dst[i] {
				repairedAt += width
				at += n
				continue
			}
			break
		}
		inside := int(dst[i] - repairedAt)
		if _, n := utf8.DecodeRuneInString(text[at:end]); n == 1 {
			inside = 0
		}
		dst[i] = int32(at + inside)
	}
	return dst
}
