package chunker

// token cuts windows of a budget's tokens, each beginning overlap tokens before its predecessor's end. Windows keep their white space,
// and lie on the tokens of the whole text. Only where a window on its own has more tokens than it has in the text, as may happen
// when the border goes through a word, it ends earlier. Where a token ends inside a rune, the border is the rune's start.
type token struct {
	name            string
	tokens, overlap int
	rulers          *rulers
}

func (c *token) Name() string { return c.name }

func (c *token) split(_, text string) []Chunk {
	r := c.rulers.take(text, true)
	defer c.rulers.put(r)
	if r.encoding == nil {
		p := packer{ruler: r, tokens: c.tokens, overlap: c.overlap}
		p.fill(0, len(text))
		return p.chunks
	}
	ends := r.index.Ends()
	at := func(i int) int { // where token i begins
		if i == 0 {
			return 0
		}
		return r.border(int(ends[i-1]))
	}
	chunks := make([]Chunk, 0, len(ends)/(c.tokens-c.overlap)+1)
	for first := 0; first < len(ends); {
		last := min(first+c.tokens, len(ends))
		start, end := at(first), at(last)
		n := r.count(start, end)
		for n > c.tokens {
			last--
			end = at(last)
			n = r.count(start, end)
		}
		adds := len(chunks) == 0 || end > chunks[len(chunks)-1].End
		if adds && r.skip(start, end) < end {
			chunks = append(chunks, Chunk{Start: start, End: end, Tokens: n})
		}
		if last == len(ends) {
			break
		}
		first = max(first+1, last-c.overlap)
	}
	return chunks
}
