package chunker

// whole makes one chunk of a text, from its first byte that is not white space to its last.
type whole struct {
	name   string
	rulers *rulers
}

func (c *whole) Name() string { return c.name }

func (c *whole) split(_, text string) []Chunk {
	r := ruler{text: text}
	start, end := r.trim(0, len(text))
	if start == end {
		return nil
	}
	n := 0
	if c.rulers.encoding != nil {
		n = c.rulers.encoding.Count(text[start:end])
	} else {
		n = c.rulers.counter.Count(text[start:end])
	}
	return []Chunk{{Start: start, End: end, Tokens: n}}
}
