package local

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// vocabText is the WordPiece vocabulary of all-MiniLM-L6-v2 (BERT, uncased): a token a line, its number is its id.
//
//go:embed vocab.txt
var vocabText string

// unicodeText says what each code point becomes before words are looked up. make-unicode.py makes it and explains its lines.
//
//go:embed unicode.txt
var unicodeText string

const (
	unknownID   = 100 // [UNK]
	classifyID  = 101 // [CLS], before every input
	separatorID = 102 // [SEP], after every input

	// maxWord is the length in code points of the longest word that is looked up; a longer one is unknown.
	maxWord = 100
)

// CountWordPieces is the length of an input in the tokens of all-MiniLM-L6-v2, with the two that frame it. It counts budgets of the tokenizer "minilm".
func CountWordPieces(input string) int {
	scratch := scratches.Get().(*scratch)
	defer scratches.Put(scratch)
	n := 2
	scratch.encode(wordPieces(), input, func(ids []uint16) bool {
		n += len(ids)
		return true
	})
	return n
}

// wordPiece is the tokenizer of uncased BERT models (Devlin et al., 2018; WordPiece by Schuster and Nakajima, 2012): control characters are dropped, CJK characters
// and punctuation stand alone, accents are stripped, all is lower-cased, and each word is cut into the longest pieces in the vocabulary, from the left. Its ids equal those
// of the reference implementation for every string, with one choice made: text that looks like a control token ("[SEP]") is text.
type wordPiece struct {
	tokens []string // id → token

	// slots is an open-addressing table from the hash of a piece to its id; pieces that continue a word are hashed from another seed.
	slots []slot
	// longest[0] and longest[1] are the bytes of the longest piece that begins and that continues a word.
	longest [2]int

	chars charTable
}

type slot struct {
	tag  uint32 // high half of the hash
	id   uint16
	used bool
}

const (
	slotBits     = 16
	beginSeed    = 0x9E3779B97F4A7C15
	continueSeed = 0xC2B2AE3D27D4EB4F
	stepPrime    = 0x100000001B3
	spreadPrime  = 0x9FB21C651E98DF25
	continuation = "##"
)

var wordPieces = sync.OnceValue(func() *wordPiece {
	w := &wordPiece{
		tokens: strings.Split(strings.TrimSuffix(vocabText, "\n"), "\n"),
		slots:  make([]slot, 1<<slotBits),
		chars:  newCharTable(unicodeText),
	}
	for id, token := range w.tokens {
		piece, continues := strings.CutPrefix(token, continuation)
		seed, which := uint64(beginSeed), 0
		if continues && piece != "" {
			seed, which = continueSeed, 1
		} else {
			piece = token
		}
		w.longest[which] = max(w.longest[which], len(piece))
		h := seed
		for i := range len(piece) {
			h = (h ^ uint64(piece[i])) * stepPrime
		}
		h *= spreadPrime
		at := h >> (64 - slotBits)
		for w.slots[at].used {
			at = (at + 1) & (1<<slotBits - 1)
		}
		w.slots[at] = slot{tag: uint32(h), id: uint16(id), used: true}
	}
	return w
})

// find is the id of the piece whose running hash is h.
func (w *wordPiece) find(h uint64, piece []byte, skip int) (uint16, bool) {
	h *= spreadPrime
	for at := h >> (64 - slotBits); w.slots[at].used; at = (at + 1) & (1<<slotBits - 1) {
		if s := &w.slots[at]; s.tag == uint32(h) {
			// The same tag from the other seed may stand for another string: compare all of it.
			if token := w.tokens[s.id]; len(token) == len(piece)+skip && token[skip:] == string(piece) && (skip == 0 || token[:skip] == continuation) {
				return s.id, true
			}
		}
	}
	return 0, false
}

// word appends the pieces of one normalised word, the longest first from the left; [UNK] if any part of it is in no piece.
func (w *wordPiece) word(dst []uint16, word []byte) []uint16 {
	start := len(dst)
	var hashes [32]uint64
	seed, skip, longest := uint64(beginSeed), 0, w.longest[0]
	for len(word) > 0 {
		n := min(len(word), longest)
		h := seed
		for i, c := range word[:n] {
			h = (h ^ uint64(c)) * stepPrime
			hashes[i] = h
		}
		var id uint16
		found := false
		for ; n > 0; n-- {
			if id, found = w.find(hashes[n-1], word[:n], skip); found {
				break
			}
		}
		if !found {
			return append(dst[:start], unknownID)
		}
		dst = append(dst, id)
		word = word[n:]
		seed, skip, longest = continueSeed, len(continuation), w.longest[1]
	}
	return dst
}

// scratch is what one encoding needs, kept between calls.
type scratch struct {
	ids  []uint16
	word []byte // the normalised word so far, cut off after maxWord code points
	long int    // its code points, all of them
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// flushAt is how many ids are collected before they are handed over, so that a long text needs no more room than a short one.
const flushAt = 4096

// encode hands the ids of an input, without the framing tokens, to f in order; f returns false to stop.
func (s *scratch) encode(w *wordPiece, input string, f func(ids []uint16) bool) {
	s.ids, s.word, s.long = s.ids[:0], s.word[:0], 0
	for i := 0; i < len(input); {
		// Nearly all text is ASCII words and single spaces between them.
		if low := asciiWord[input[i]]; low != 0 {
			from := i
			for low != 0 {
				if s.long+i-from < maxWord {
					s.word = append(s.word, low)
				}
				if i++; i == len(input) {
					break
				}
				low = asciiWord[input[i]]
			}
			s.long += i - from
			continue
		}
		r, size := rune(input[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(input[i:])
		}
		i += size
		s.char(w, r, w.chars.class(r))
		if len(s.ids) >= flushAt {
			if !f(s.ids) {
				return
			}
			s.ids = s.ids[:0]
		}
	}
	s.end(w)
	if len(s.ids) > 0 {
		f(s.ids)
	}
}

// asciiWord is what an ASCII letter or digit becomes; 0 for all other bytes.
var asciiWord = func() (t [256]byte) {
	for c := '0'; c <= '9'; c++ {
		t[c] = byte(c)
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] = byte(c)
		t[c-'a'+'A'] = byte(c)
	}
	return t
}()

// end looks the word up and begins the next one.
func (s *scratch) end(w *wordPiece) {
	switch {
	case s.long > maxWord:
		s.ids = append(s.ids, unknownID)
	case s.long > 0:
		s.ids = w.word(s.ids, s.word)
	}
	s.word, s.long = s.word[:0], 0
}

func (s *scratch) add(r rune) {
	if s.long < maxWord {
		s.word = utf8.AppendRune(s.word, r)
	}
	s.long++
}

func (s *scratch) char(w *wordPiece, r rune, class charClass) {
	switch class {
	case charWord:
		s.add(r)
	case charDrop:
	case charSpace:
		s.end(w)
	case charPunct:
		s.end(w)
		s.add(r)
		s.end(w)
	case charHangul:
		// Conjoining jamo of a syllable: The Unicode Standard, section 3.12.
		n := r - 0xAC00
		s.add(0x1100 + n/588)
		s.add(0x1161 + n%588/28)
		if t := n % 28; t != 0 {
			s.add(0x11A7 + t)
		}
	default:
		for _, r := range w.chars.mapped[class-charMapped] {
			s.char(w, r, w.chars.class(r))
		}
	}
}

// charClass says what becomes of a code point: one of the constants, or charMapped plus an index.
type charClass uint16

const (
	charWord charClass = iota
	charDrop
	charSpace
	charPunct
	charHangul
	charMapped
)

// charTable maps each code point to its class in two steps: its block of 128, then its place there. Equal blocks are kept once.
type charTable struct {
	block   [(utf8.MaxRune + 1) >> blockBits]uint16
	classes []charClass
	mapped  [][]rune
}

const blockBits = 7

func (t *charTable) class(r rune) charClass {
	return t.classes[int(t.block[r>>blockBits])<<blockBits|int(r&(1<<blockBits-1))]
}

// newCharTable reads unicode.txt. The file is part of the binary, so a line that can't be read is a mistake of ours: it panics.
func newCharTable(text string) charTable {
	var t charTable
	flat := make([]charClass, utf8.MaxRune+1)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if from, to, ok := strings.Cut(line, " > "); ok {
			var becomes []rune
			for r := range strings.FieldsSeq(to) {
				becomes = append(becomes, mustRune(r))
			}
			flat[mustRune(from)] = charMapped + charClass(len(t.mapped))
			t.mapped = append(t.mapped, becomes)
			continue
		}
		span, name, _ := strings.Cut(line, " ")
		low, high, ok := strings.Cut(span, "-")
		if !ok {
			high = low
		}
		class := mustClass(name)
		for r, last := mustRune(low), mustRune(high); r <= last; r++ {
			flat[r] = class
		}
	}
	seen := make(map[[1 << blockBits]charClass]uint16)
	for i := range t.block {
		block := [1 << blockBits]charClass(flat[i<<blockBits:])
		at, ok := seen[block]
		if !ok {
			at = uint16(len(seen))
			seen[block] = at
			t.classes = append(t.classes, block[:]...)
		}
		t.block[i] = at
	}
	return t
}

func mustRune(hex string) rune {
	n, err := strconv.ParseUint(hex, 16, 21)
	if err != nil {
		panic(fmt.Sprintf("unicode.txt: %v", err))
	}
	return rune(n)
}

func mustClass(name string) charClass {
	switch name {
	case "drop":
		return charDrop
	case "space":
		return charSpace
	case "punct":
		return charPunct
	case "hangul":
		return charHangul
	}
	panic(fmt.Sprintf("unicode.txt: class %q is unknown", name))
}
