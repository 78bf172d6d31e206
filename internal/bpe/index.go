package bpe

import (
	"slices"
	"unicode"
	"unicode/utf8"
)

// Index is a text encoded once, from which the token count of any span on its own is had without encoding it again.
//
// A count is not a difference of two prefix sums: where a span cuts a pre-token in two, or ends inside white space, what stands there
// is encoded differently on its own. Only these borders are encoded anew; between them the sums hold.
//
// The zero value is ready for [Index.Reset]. It is not safe for concurrent use.
type Index struct {
	e      *Encoding
	text   string
	starts []int32 // of the pre-tokens, and the text's end
	sums   []int32 // tokens before each of starts
	ends   []int32 // of the tokens, when asked for
	merger *merger
}

// Reset encodes another text, and keeps the memory. Texts are at most 2 GiB.
func (x *Index) Reset(e *Encoding, text string) { x.reset(e, text, false) }

// ResetEnds is Reset, and makes [Index.Ends] too.
func (x *Index) ResetEnds(e *Encoding, text string) { x.reset(e, text, true) }

func (x *Index) reset(e *Encoding, text string, ends bool) {
	if x.merger == nil || x.e != e {
		x.merger = &merger{cache: make([]cached, cacheSize)}
	}
	x.e, x.text = e, text
	x.starts, x.sums, x.ends = x.starts[:0], x.sums[:0], x.ends[:0]
	x.starts = slices.Grow(x.starts, len(text)/4+1)
	x.sums = slices.Grow(x.sums, len(text)/4+1)
	s := scanner{table: e.table, text: text}
	total := 0
	for p := 0; p < len(text); {
		end := e.next(&s, p)
		x.starts = append(x.starts, int32(p))
		x.sums = append(x.sums, int32(total))
		if ends {
			x.ends = e.appendEnds(x.ends, x.merger, text, p, end, s.broken)
			total = len(x.ends)
		} else {
			total += e.countPiece(x.merger, text[p:end], s.broken)
		}
		p = end
	}
	x.starts = append(x.starts, int32(len(text)))
	x.sums = append(x.sums, int32(total))
}

// Ends returns the end of each token of the whole text, as by [Encoding.AppendEnds]. It holds until the next reset.
func (x *Index) Ends() []int32 { return x.ends }

// Count returns the number of tokens of text[start:end] on its own.
func (x *Index) Count(start, end int) int {
	if start >= end {
		return 0
	}
	s := scanner{table: x.e.table, text: x.text[:end]}
	// Up to the first border that the whole text has too.
	total, p := 0, start
	first, _ := slices.BinarySearch(x.starts, int32(p))
	for int(x.starts[first]) != p {
		q := x.e.next(&s, p)
		total += x.e.countPiece(x.merger, x.text[p:q], s.broken)
		if q == end {
			return total
		}
		p = q
		for int(x.starts[first]) < p {
			first++
		}
	}
	// As far as the end makes no difference to the whole text's borders.
	last, exact := slices.BinarySearch(x.starts[first:], int32(end))
	last += first
	if !exact {
		last--
	}
	if last > first && end < len(x.text) && !utf8.RuneStart(x.text[end]) {
		last-- // the rune that is cut is another one now, and may belong to what is before it
	}
	last = x.settled(first, last, end)
	total += int(x.sums[last] - x.sums[first])
	for p = int(x.starts[last]); p < end; {
		q := x.e.next(&s, p)
		total += x.e.countPiece(x.merger, x.text[p:q], s.broken)
		p = q
	}
	return total
}

// settled goes back from the pre-token last to the first one that may look different when the text ends at end. A pre-token that ends
// before end depends on what follows it in two cases only: white space, which leaves its last rune to a word that follows, and in
// o200k_base a run of letters that was cut before upper case in the hope of lower case to come.
func (x *Index) settled(first, last, end int) int {
	for last > first && last > 0 && x.blank(last-1) {
		last--
	}
	if x.e.o200k && last > first && int(x.starts[last]) < end {
		before, _ := utf8.DecodeLastRuneInString(x.text[:x.starts[last]])
		after, _ := utf8.DecodeRuneInString(x.text[x.starts[last]:end])
		if unicode.In(after, unicode.Lu, unicode.Lt) && unicode.In(before, unicode.Lm, unicode.Lo, unicode.M) {
			last--
		}
	}
	return last
}

// blank reports whether the pre-token is white space alone.
func (x *Index) blank(i int) bool {
	for _, r := range x.text[x.starts[i]:x.starts[i+1]] {
		if !unicode.IsSpace(r) {
			return false
		}
	}
	return true
}
