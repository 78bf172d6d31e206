package chunker

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/liverag/liverag/internal/bpe"
)

// ruler measures spans of one text in tokens, each as if it stood alone: an embedder sees a chunk, not its surroundings.
type ruler struct {
	text     string
	encoding *bpe.Encoding // nil where a counter counts
	index    bpe.Index
	tally    tally   // where a counter counts
	ends     []int32 // scratch
}

// rulers keeps rulers, and the memory that comes with them, for the next text.
type rulers struct {
	encoding *bpe.Encoding
	counter  Counter
	free     sync.Pool
}

// keepBelow is the length of a text in bytes whose ruler is worth keeping.
const keepBelow = 1 << 20

// take returns a ruler of the text; tokens asks for the ends of the text's tokens, where there is an encoding.
func (rs *rulers) take(text string, tokens bool) *ruler {
	r, ok := rs.free.Get().(*ruler)
	if !ok {
		r = &ruler{encoding: rs.encoding, tally: tally{counter: rs.counter}}
	}
	r.text = text
	switch {
	case r.encoding == nil:
		r.tally.reset(text)
	case tokens:
		r.index.ResetEnds(r.encoding, text)
	default:
		r.index.Reset(r.encoding, text)
	}
	return r
}

func (rs *rulers) put(r *ruler) {
	if len(r.text) > keepBelow {
		return
	}
	r.text, r.tally.text = "", ""
	if r.encoding != nil {
		r.index.Reset(r.encoding, "")
	}
	rs.free.Put(r)
}

// count returns the number of tokens of text[start:end] on its own.
func (r *ruler) count(start, end int) int {
	if r.encoding != nil {
		return r.index.Count(start, end)
	}
	return r.tally.count(start, end)
}

// frame returns the number of tokens that go around every text, so that each has them.
func (r *ruler) frame() int {
	if r.encoding != nil {
		return 0
	}
	return r.tally.frame
}

// measure is count where the span has fewer than n tokens, and else n: what is surely too long is not counted.
func (r *ruler) measure(start, end, n int) int {
	if r.encoding != nil && end-start > n*r.encoding.Longest() {
		return n
	}
	return min(n, r.count(start, end))
}

// trim takes white space off both ends of a span. A span of nothing else becomes empty.
func (r *ruler) trim(start, end int) (int, int) {
	start = r.skip(start, end)
	return start, start + len(strings.TrimRightFunc(r.text[start:end], unicode.IsSpace))
}

// skip returns the first position from start on that is not white space, or end.
func (r *ruler) skip(start, end int) int {
	return end - len(strings.TrimLeftFunc(r.text[start:end], unicode.IsSpace))
}

// border returns the last position up to p that is not inside a rune. A byte that belongs to no valid rune counts as one.
func (r *ruler) border(p int) int {
	for back := 1; back < utf8.UTFMax && p < len(r.text) && p-back >= 0; back++ {
		if utf8.RuneStart(r.text[p]) {
			break
		}
		if utf8.RuneStart(r.text[p-back]) {
			if _, n := utf8.DecodeRuneInString(r.text[p-back:]); n > back {
				return p - back
			}
			break
		}
	}
	return p
}

// cut returns an end for a span from start such that it has at most budget tokens, and hardly fewer; at most end.
// It is at least one rune on, and never inside one.
func (r *ruler) cut(start, end, budget int) int {
	_, n := utf8.DecodeRuneInString(r.text[start:end])
	least := start + n
	if r.encoding == nil {
		least = max(least, min(end, r.tally.reach(start, budget)))
		return r.search(least, end, budget, func(at int) int { return r.count(start, at) })
	}
	limit := start
	for width := budget * 5; ; width *= 2 { // twice the length where a token is longer than usual
		limit = min(end, start+width)
		r.ends = r.encoding.AppendEnds(r.ends[:0], r.text[start:r.border(limit)])
		if limit == end || len(r.ends) > budget {
			break
		}
	}
	for i := min(budget, len(r.ends)); i > 0; i-- {
		if at := r.border(start + int(r.ends[i-1])); at < least {
			break
		} else if r.count(start, at) <= budget {
			return at
		}
	}
	return least
}

// search returns the last position between least and end up to which cost is at most budget, as if cost never fell; positions
// are not inside runes.
func (r *ruler) search(least, end, budget int, cost func(at int) int) int {
	good := least
	var bad int
	for width := 2 * segmentBytes; ; width *= 2 {
		at := r.border(min(end, least+width))
		if at > good && cost(at) > budget {
			bad = at
			break
		}
		good = max(good, at)
		if good == end {
			return end
		}
	}
	for {
		at := r.border(good + (bad-good)/2)
		if at <= good {
			_, n := utf8.DecodeRuneInString(r.text[good:])
			if at = good + n; at >= bad {
				break
			}
		}
		if cost(at) > budget {
			bad = at
		} else {
			good = at
		}
	}
	// A word is not cut where white space is near.
	if at := strings.LastIndexFunc(r.text[max(least, good-32):good], unicode.IsSpace); at >= 0 && good < end {
		if at += max(least, good-32); cost(at) <= budget {
			return at
		}
	}
	return good
}

// tail returns the start of the longest stretch of whole tokens up to end, not before start, that has at most budget tokens.
func (r *ruler) tail(start, end, budget int) int {
	if budget == 0 || start >= end {
		return end
	}
	if r.encoding == nil {
		return r.tailByCount(start, end, budget)
	}
	for width := budget * 6; ; width *= 2 {
		from := r.border(max(start, end-width))
		r.ends = r.encoding.AppendEnds(r.ends[:0], r.text[from:end])
		n := len(r.ends)
		if n <= budget && from > start {
			continue
		}
		if n <= budget && r.count(from, end) <= budget {
			return from
		}
		for i := max(n-budget, 1); i < n; i++ {
			if at := from + int(r.ends[i-1]); r.border(at) == at && r.count(at, end) <= budget {
				return at
			}
		}
		return end
	}
}

// tailByCount looks for the same by halving.
func (r *ruler) tailByCount(start, end, budget int) int {
	bad, good := max(start, end-budget*16)-1, end
	for good-bad > 1 {
		at := bad + (good-bad)/2
		if at = r.border(at); at <= bad {
			_, n := utf8.DecodeRuneInString(r.text[at:])
			if at += n; at >= good {
				break
			}
		}
		if r.count(at, end) <= budget {
			good = at
		} else {
			bad = at
		}
	}
	return good
}
