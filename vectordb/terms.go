package vectordb

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/blevesearch/snowballstem"
	"github.com/blevesearch/snowballstem/english"
	"golang.org/x/text/unicode/norm"
)

// TermsVersion changes whenever AppendTerms may give other terms for the same text. A store that keeps postings keeps it beside them, and
// analyses the texts again when it differs.
const TermsVersion = 1

// MaxTermBytes is where a term is cut, at a character.
const MaxTermBytes = 64

// AppendTerms appends the terms of a text, in its order, repeats included, and returns the extended slice. It is the one lexical analysis:
// of documents and of queries, in every store. The strings don't share memory with text. It is safe for concurrent use.
//
// A word is a run of letters, digits, combining marks and underscores; digits joined by a point (3.14, 1.26.8) are one word too. Words are
// lower-cased and folded: compatibility forms (full width, ligatures) and the accents of Latin, Greek and Cyrillic go. English stop words are
// dropped, what is all ASCII letters is stemmed (Porter2). A word with several parts (snake_case, camelCase, HTTPServer) is kept whole, and its parts
// follow it. Text without spaces between words (Chinese, Japanese, Korean, Thai, Lao, Khmer, Burmese) becomes overlapping pairs of characters.
// A term is at most MaxTermBytes long.
func AppendTerms(dst []string, text string) []string {
	analyse(text, func(w *word) { dst = append(dst, w.term) })
	return dst
}

// Terms calls emit with each term of a text, as AppendTerms would append them. The bytes are valid during the call only.
func Terms(text string, emit func(term []byte)) {
	var buf [MaxTermBytes]byte
	analyse(text, func(w *word) { emit(append(buf[:0], w.term...)) })
}

// word is a word as it was met and the term that it becomes; "" for a stop word.
type word struct {
	raw, term string
}

// words remembers what became of the words met last: natural text repeats a few thousand of them, and stemming costs fifty times a look-up.
// A word has two places. A new one takes the second, and moves to the first when it is met again: so rare words push each other out, not the common
// ones. Losing one costs a stemming. Bounded: some 6 MB for the process.
var (
	words     [1 << 15][2]atomic.Pointer[word]
	wordsSeed = maphash.MakeSeed()
)

// lookUp returns what raw becomes. raw is lower case if it is ASCII.
func lookUp(raw []byte) *word {
	places := &words[maphash.Bytes(wordsSeed, raw)%uint64(len(words))]
	first := places[0].Load()
	if first != nil && first.raw == string(raw) {
		return first
	}
	if w := places[1].Load(); w != nil && w.raw == string(raw) {
		places[0].Store(w)
		places[1].Store(first)
		return w
	}
	w := &word{raw: string(raw)}
	w.term = termOf(w.raw)
	places[1].Store(w)
	return w
}

// Classes of an ASCII byte.
const (
	separator = iota
	lower
	upper
	digit
	underscore
	beyond // a byte of a character beyond ASCII
)

var classes = func() (c [256]uint8) {
	for i := range c {
		switch b := byte(i); {
		case 'a' <= b && b <= 'z':
			c[i] = lower
		case 'A' <= b && b <= 'Z':
			c[i] = upper
		case '0' <= b && b <= '9':
			c[i] = digit
		case b == '_':
			c[i] = underscore
		case b >= utf8.RuneSelf:
			c[i] = beyond
		}
	}
	return c
}()

// analyse finds the words of a text and calls emit with what they become, stop words left out.
func analyse(text string, emit func(*word)) {
	var folded [MaxTermBytes]byte
	for i := 0; i < len(text); {
		class := classes[text[i]]
		if class == separator {
			i++
			continue
		}
		// A run of ASCII, the usual case: lower-cased into folded while it is scanned.
		start, n, seen, humps := i, 0, uint8(0), false
		previous := uint8(separator)
		for i < len(text) {
			b := text[i]
			class = classes[b]
			if class == separator || class == beyond {
				break
			}
			seen |= 1 << class
			humps = humps || class == upper && previous == lower
			previous = class
			if class == upper {
				b += 'a' - 'A'
			}
			if n < len(folded) {
				folded[n] = b
				n++
			}
			i++
		}
		if i < len(text) && class == beyond {
			r, size := utf8.DecodeRuneInString(text[i:])
			if inWord(r) {
				i = start
				i += analyseWide(text[start:], emit)
				continue
			}
			if i == start {
				i += size
				continue
			}
		}
		if seen == 1<<digit {
			// 3.14 and 1.26.8 stay whole.
			for i+1 < len(text) && text[i] == '.' && classes[text[i+1]] == digit {
				for ok := true; ok; ok = i < len(text) && classes[text[i]] == digit {
					if n < len(folded) {
						folded[n] = text[i]
						n++
					}
					i++
				}
			}
		}
		whole := folded[:n]
		if start > 0 && n <= 2 && contraction(text, start, whole) {
			continue
		}
		if seen&(1<<underscore) != 0 {
			if whole = trimUnderscores(whole); len(whole) == 0 {
				continue
			}
		}
		send(whole, emit)
		if i-start > MaxTermBytes || seen&(1<<lower|1<<upper) == 0 {
			continue // too long to be a name, or no letters in it
		}
		if humps || seen&(1<<underscore) != 0 || seen == 1<<upper|1<<lower {
			parts(text[start:i], emit)
		}
	}
}

func send(raw []byte, emit func(*word)) {
	if w := lookUp(raw); w.term != "" {
		emit(w)
	}
}

// contraction tells whether the word is what an apostrophe cut off: the s of "it's", the ll of "we'll".
func contraction(text string, start int, w []byte) bool {
	switch string(w) {
	case "s", "t", "d", "m", "re", "ve", "ll":
	default:
		return false
	}
	if text[start-1] == '\'' {
		return start > 1 && (classes[text[start-2]] == lower || classes[text[start-2]] == upper)
	}
	return strings.HasSuffix(text[:start], "’") && start > 3 && classes[text[start-4]] != separator
}

func trimUnderscores(b []byte) []byte {
	for len(b) > 0 && b[0] == '_' {
		b = b[1:]
	}
	for len(b) > 0 && b[len(b)-1] == '_' {
		b = b[:len(b)-1]
	}
	return b
}

// parts sends the parts of an ASCII name: cut at underscores, where lower case turns into upper (camelCase), and before the last upper-case
// letter of several that lower case follows (HTTPServer). Nothing is sent for a name of one part, and no part of one letter is.
func parts(name string, emit func(*word)) {
	var folded [MaxTermBytes]byte
	first, core := 0, len(name)
	for first < core && name[first] == '_' {
		first++
	}
	for core > first && name[core-1] == '_' {
		core--
	}
	n := 0
	begin := first
	for i := first; i <= core; i++ {
		if i < core {
			c := classes[name[i]]
			cutHere := c == underscore ||
				c == upper && i > begin && (classes[name[i-1]] == lower ||
					i+1 < core && classes[name[i+1]] == lower && classes[name[i-1]] == upper)
			if !cutHere {
				if c == upper {
					folded[n] = name[i] + 'a' - 'A'
				} else {
					folded[n] = name[i]
				}
				n++
				continue
			}
		}
		if n > 1 && i-begin == n && !(begin == first && i == core) {
			send(folded[:n], emit)
		}
		n = 0
		begin = i
		if i < core {
			if c := classes[name[i]]; c == underscore {
				begin = i + 1
			} else {
				folded[0] = name[i] + 'a' - 'A'
				n = 1
			}
		}
	}
}

// inWord tells whether a character beyond ASCII belongs to a word.
func inWord(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsNumber(r) || unicode.IsMark(r)
}

// analyseWide takes one run with characters beyond ASCII from the beginning of text and returns its length in bytes.
func analyseWide(text string, emit func(*word)) int {
	end := len(text)
	for i, r := range text {
		if r < utf8.RuneSelf && classes[r] == separator || r >= utf8.RuneSelf && !inWord(r) {
			end = i
			break
		}
	}
	run := text[:end]
	if !norm.NFKC.IsNormalString(run) {
		run = norm.NFKC.String(run)
	}
	// Alternate between what is written without spaces and what is not.
	for len(run) > 0 {
		r, _ := utf8.DecodeRuneInString(run)
		pairs, n := unspaced(r), len(run)
		for i, r := range run {
			if unspaced(r) != pairs && !unicode.IsMark(r) {
				n = i
				break
			}
		}
		if pairs {
			sendPairs(run[:n], emit)
		} else {
			// Normal forms may hold new separators (ﷺ is four words); underscores join as they do in ASCII.
			for part := range strings.FieldsFuncSeq(run[:n], func(r rune) bool {
				return r != '_' && (r < utf8.RuneSelf && classes[r] == separator || r >= utf8.RuneSelf && !inWord(r))
			}) {
				sendWide(part, emit)
			}
		}
		run = run[n:]
	}
	return end
}

func sendWide(part string, emit func(*word)) {
	part = strings.ToLower(strings.Trim(part, "_"))
	if part == "" {
		return
	}
	send([]byte(cutTerm(part, 4*MaxTermBytes)), emit)
	if strings.Contains(part, "_") && len(part) <= MaxTermBytes {
		for p := range strings.SplitSeq(part, "_") {
			if utf8.RuneCountInString(p) > 1 {
				send([]byte(p), emit)
			}
		}
	}
}

func sendPairs(run string, emit func(*word)) {
	previous := 0
	_, size := utf8.DecodeRuneInString(run)
	if size == len(run) {
		send([]byte(run), emit)
		return
	}
	for i := size; i < len(run); i += size {
		_, size = utf8.DecodeRuneInString(run[i:])
		send([]byte(run[previous:i+size]), emit)
		previous = i
	}
}

// unspaced tells whether r belongs to a script that is written without spaces between words, or, as Korean, joins so much to a word that
// pairs of characters find more.
func unspaced(r rune) bool {
	if r < 0x0e00 {
		return false
	}
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar, unicode.Bopomofo) ||
		r == 'ー' || r == '々' || r == '〆'
}

// termOf folds, drops and stems a word.
func termOf(raw string) string {
	w := raw
	ascii, letters := true, true
	for i := range len(w) {
		ascii = ascii && w[i] < utf8.RuneSelf
		letters = letters && classes[w[i]] == lower
	}
	if !ascii {
		w = fold(w)
		letters = w != ""
		for i := range len(w) {
			letters = letters && classes[w[i]] == lower
		}
	}
	if !letters {
		return strings.Clone(cutTerm(w, MaxTermBytes))
	}
	if stopWords[w] {
		return ""
	}
	if len(w) < MaxTermBytes {
		env := snowballstem.NewEnv(w)
		english.Stem(env)
		if s := env.Current(); s != raw {
			return strings.Clone(s)
		}
		return raw
	}
	return strings.Clone(cutTerm(w, MaxTermBytes))
}

// fold lower-cases and takes the accents of Latin, Greek and Cyrillic off. The marks of other scripts are letters of theirs and stay.
func fold(s string) string {
	s = strings.ToLower(s)
	var b strings.Builder
	for _, r := range norm.NFKD.String(s) {
		switch {
		case r >= 0x300 && r <= 0x36f:
			continue
		case r == 'ς': // the final form
			r = 'σ'
		case r == 'ß':
			b.WriteByte('s')
			r = 's'
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return norm.NFC.String(b.String())
}

func cutTerm(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// stopWords are the words that say next to nothing in English: articles, the forms of to be, and the commonest prepositions, conjunctions and pronouns.
var stopWords = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(`
		a an the
		am are be is was were will
		and but if nor not no or so then than such
		as at by for from in into of on to with
		it its that their there these they this those
	`) {
		m[w] = true
	}
	return m
}()
