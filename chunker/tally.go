package chunker

import "sort"

// tally is a text counted once by a [Counter], from which the count of any span on its own is had with little more counting.
//
// The text is cut into segments between words: lines, and in long lines every segmentBytes or so. A counter's words add up, so between
// the borders of segments the sums hold, and only what a span has of a segment at either end is counted again.
type tally struct {
	counter Counter
	text    string
	frame   int     // what a text of nothing counts
	starts  []int32 // of the segments, which begin and end with a byte of a word
	stops   []int32 // of the segments
	sums    []int32 // tokens before each segment, without frames; one more at the end
}

// segmentBytes is how long a segment of a long line is, up to the next white space. Shorter ones cost more calls of the counter, longer ones
// more counting of what is cut off.
const segmentBytes = 48

// blanks are the bytes of white space that separate words for every counter. It is less than what Unicode has, and less than what is trimmed off
// chunks: word-piece tokenizers drop \v and \f without ending a word.
var blanks = [256]bool{' ': true, '\t': true, '\n': true, '\r': true}

// reset counts another text, and keeps the memory.
func (t *tally) reset(text string) {
	t.text = text
	t.frame = t.counter.Count("")
	t.starts, t.stops, t.sums = t.starts[:0], t.stops[:0], t.sums[:0]
	total, p := 0, 0
	for {
		for p < len(text) && blanks[text[p]] {
			p++
		}
		if p == len(text) {
			break
		}
		stop := p + 1
		for stop < len(text) && text[stop] != '\n' && (stop-p < segmentBytes || !blanks[text[stop]]) {
			stop++
		}
		next := stop
		for blanks[text[stop-1]] {
			stop--
		}
		t.starts = append(t.starts, int32(p))
		t.stops = append(t.stops, int32(stop))
		t.sums = append(t.sums, int32(total))
		total += t.part(p, stop)
		p = next
	}
	t.sums = append(t.sums, int32(total))
}

// part counts text[start:end] without the frame.
func (t *tally) part(start, end int) int {
	if start >= end {
		return 0
	}
	return t.counter.Count(t.text[start:end]) - t.frame
}

// after returns the first segment that starts behind p.
func (t *tally) after(p int) int {
	return sort.Search(len(t.starts), func(i int) bool { return int(t.starts[i]) > p })
}

// count returns the number of tokens of text[start:end] on its own.
func (t *tally) count(start, end int) int {
	total := t.frame
	first := t.after(start)
	if in := first - 1; in >= 0 && start < int(t.stops[in]) {
		if start == int(t.starts[in]) {
			first = in
		} else {
			total += t.part(start, min(end, int(t.stops[in])))
		}
	}
	last := first + sort.Search(len(t.starts)-first, func(i int) bool { return int(t.stops[first+i]) > end })
	total += int(t.sums[last] - t.sums[first])
	if last < len(t.starts) {
		total += t.part(int(t.starts[last]), end)
	}
	return total
}

// reach returns the end of the last segment up to which a span from start has at most budget tokens, or start. It is a hint: of a text
// that has no white space the rest is not counted for every cut.
func (t *tally) reach(start, budget int) int {
	first := t.after(start)
	room := budget - t.frame
	if in := first - 1; in >= 0 && start < int(t.stops[in]) {
		if int(t.stops[in])-start > budget*8 {
			return start
		}
		if room -= t.part(start, int(t.stops[in])); room < 0 {
			return start
		}
	}
	n := sort.Search(len(t.starts)-first, func(i int) bool { return int(t.sums[first+i+1]-t.sums[first]) > room })
	if first+n == 0 {
		return start
	}
	return max(start, int(t.stops[first+n-1]))
}
