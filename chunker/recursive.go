package chunker

import "strings"

// separators are the natural borders, strongest first. A separator stays at the start of the piece that follows it. The empty one stands
// for cuts between any two runes.
var separators = []string{"\n\n", "\n", ".", "?", "!", " ", ""}

// recursive cuts a text at its strongest separator. Pieces that are too long are cut again at the next one; short neighbours are
// merged while the sum of their tokens fits. White space around a chunk is left out.
//
// Where it cuts is what LangChain's recursive splitter does with these separators, which is what the published chunking
// evaluation used (github.com/brandonstarxel/chunking_evaluation). It differs in two places, where that one would go over the budget:
// a merged chunk that on its own has more tokens than its pieces is cut between two of them, and a piece without any separator
// is filled up by its tokens, not by the tokens of each character.
//
// That splitter puts nothing between the pieces that it merges, but adds the length of that nothing at every joint. In bytes or in the tokens
// of an encoding it is 0; a counter that frames its input says 2 for it, and the frames of the pieces are in their sum besides. So with such a
// counter chunks stay well below the budget, by four tokens a joint. The published figures for MiniLM were made so.
type recursive struct {
	name            string
	tokens, overlap int
	rulers          *rulers
}

func (c *recursive) Name() string { return c.name }

func (c *recursive) split(_, text string) []Chunk {
	r := c.rulers.take(text, false)
	defer c.rulers.put(r)
	p := packer{ruler: r, tokens: c.tokens, overlap: c.overlap, joint: r.frame()}
	p.split(0, len(text), separators)
	return p.chunks
}

// packer makes chunks out of pieces.
type packer struct {
	*ruler
	tokens, overlap int
	joint           int // tokens that are added for every two pieces that are merged
	chunks          []Chunk
	free            [][]piece // lists of pieces to use again
}

// piece is a stretch of text between two separators.
type piece struct{ start, end, tokens int }

// split cuts text[start:end] at the first of the separators that is in it.
func (p *packer) split(start, end int, separators []string) {
	for separators[0] != "" && !strings.Contains(p.text[start:end], separators[0]) {
		separators = separators[1:]
	}
	separator, weaker := separators[0], separators[1:]
	if separator == "" {
		p.fill(start, end)
		return
	}
	var open []piece // what waits to become a chunk
	if n := len(p.free); n > 0 {
		open, p.free = p.free[n-1], p.free[:n-1]
	}
	total := 0
	for start < end {
		next := end
		from := start
		if strings.HasPrefix(p.text[start:end], separator) {
			from += len(separator)
		}
		if i := strings.Index(p.text[from:end], separator); i >= 0 {
			next = from + i
		}
		if n := p.measure(start, next, p.tokens); n < p.tokens {
			open, total = p.add(open, total, piece{start, next, n})
		} else {
			p.close(open)
			open, total = open[:0], 0
			p.split(start, next, weaker)
		}
		start = next
	}
	p.close(open)
	p.free = append(p.free, open[:0])
}

// add puts a piece behind the open ones, after closing what it does not fit.
func (p *packer) add(open []piece, total int, next piece) ([]piece, int) {
	sum := func(pieces int) int { // with the next piece behind so many
		if pieces == 0 {
			return next.tokens
		}
		return total + p.joint + next.tokens
	}
	if sum(len(open)) > p.tokens {
		p.close(open)
		gone := 0
		for left := len(open); left > 0 && (total > p.overlap || total > 0 && sum(left) > p.tokens); left-- {
			total -= open[gone].tokens
			if left > 1 {
				total -= p.joint
			}
			gone++
		}
		open = append(open[:0], open[gone:]...)
	}
	return append(open, next), sum(len(open))
}

// close makes a chunk of neighbouring pieces.
func (p *packer) close(pieces []piece) {
	for len(pieces) > 0 {
		n := len(pieces)
		for n > 1 && !p.emit(pieces[0].start, pieces[n-1].end) {
			n--
		}
		if n == 1 && !p.emit(pieces[0].start, pieces[0].end) {
			p.fill(pieces[0].start, pieces[0].end)
		}
		pieces = pieces[n:]
	}
}

// emit makes text[start:end] a chunk, if it fits. White space is none, and what its predecessor holds already is left out.
func (p *packer) emit(start, end int) bool {
	start, end = p.trim(start, end)
	if start == end {
		return true
	}
	if n := len(p.chunks); n > 0 && end <= p.chunks[n-1].End {
		return true
	}
	n := p.measure(start, end, p.tokens+1)
	if n > p.tokens {
		return false
	}
	p.chunks = append(p.chunks, Chunk{Start: start, End: end, Tokens: n})
	return true
}

// fill cuts text[start:end], which has no better borders, into chunks as long as they may be.
func (p *packer) fill(start, end int) {
	done := start // where the last chunk ends
	for {
		start, end = p.trim(start, end)
		if start == end {
			return
		}
		to := p.cut(start, end, p.tokens)
		if start < done && to <= done { // the overlap leaves no room for anything new
			start = done
			continue
		}
		for !p.emit(start, to) { // without the white space at its end a span may have a token more
			_, trimmed := p.trim(start, to)
			shorter := p.cut(start, trimmed, p.tokens)
			if shorter >= to { // a single rune, of a counter that counts more for it than any budget
				p.chunks = append(p.chunks, Chunk{Start: start, End: trimmed, Tokens: p.count(start, trimmed)})
				break
			}
			to = shorter
		}
		if to == end {
			return
		}
		done = to
		if back := p.tail(start, to, p.overlap); back > start {
			start = back
		} else {
			start = to
		}
	}
}
