package chunker

import (
	"strings"
	"unicode/utf8"
)

// markdown cuts at every heading, so that an edit changes chunks of its own section only: what packs text across headings moves
// every border behind the edit. Headings without text of their own stay with what follows them. A section that does not fit
// is packed from its blocks; a block that does not fit is cut as recursive does it. A chunk's Context is the path of the headings above it.
//
// Text of another content type has no headings, and is cut as by recursive.
type markdown struct {
	name            string
	tokens, overlap int
	rulers          *rulers
}

// A path of headings is bounded in bytes, which needs no tokenizer: this is some 50 tokens.
const (
	maxTitle = 96
	maxPath  = 192
)

func (c *markdown) Name() string { return c.name }

func (c *markdown) split(contentType, text string) []Chunk {
	r := c.rulers.take(text, false)
	defer c.rulers.put(r)
	if contentType != "text/markdown" && contentType != "text/html" { // HTML has become Markdown before it is cut
		p := packer{ruler: r, tokens: c.tokens, overlap: c.overlap, joint: r.frame()}
		p.split(0, len(text), separators)
		return p.chunks
	}
	// A section has one frame, however many pieces it is packed from.
	s := sections{packer: packer{ruler: r, tokens: max(minTokens, c.tokens-c.overlap), joint: -r.frame()}, budget: c.tokens, back: c.overlap}
	reader := blockReader{text: text}
	for {
		b, ok := reader.next()
		if !ok {
			break
		}
		if b.kind == heading {
			s.heading(b)
		} else {
			s.body(b)
		}
	}
	s.finish()
	return s.chunks
}

// sections packs a text's sections. The packer's budget leaves room for the overlap, which is put before the finished chunks of a section.
type sections struct {
	packer
	budget, back int
	path         []title // the headings above what comes next
	above        string  // the path above the section's first heading
	first        int     // the section's first chunk
	start, end   int     // what waits to become a chunk; empty when equal
	waiting      int     // its tokens, as the sum of its blocks'
	bare         bool    // it is headings alone
	hasBody      bool    // the section has more than headings
}

type title struct {
	level int
	text  string
}

// heading begins a section, unless the last one has had nothing but headings yet.
func (s *sections) heading(b block) {
	if s.hasBody {
		s.finish()
	}
	for len(s.path) > 0 && s.path[len(s.path)-1].level >= b.level {
		s.path = s.path[:len(s.path)-1]
	}
	if s.start == s.end {
		s.above = join(s.path)
		s.first = len(s.chunks)
	}
	s.path = append(s.path, title{b.level, clip(b.title, maxTitle)})
	s.pack(b)
	s.bare = true
}

// body adds a block to the section.
func (s *sections) body(b block) {
	s.pack(b)
	s.hasBody, s.bare = true, false
}

// pack adds a block to what waits, or makes that a chunk and lets the block wait.
func (s *sections) pack(b block) {
	n := s.measure(b.start, b.end, s.tokens+1)
	if s.start == s.end {
		s.start, s.waiting = b.start, 0
	} else if s.waiting+n > s.tokens {
		// The sum of the blocks is an estimate. What it says to be too long is counted.
		joint := s.measure(s.start, b.end, s.tokens+1)
		switch {
		case joint <= s.tokens:
			s.end, s.waiting = b.end, joint
			return
		case s.bare && (n > s.tokens || b.kind == prose):
			// A heading goes with the first piece of what follows it.
		default:
			s.flush()
			s.start, s.waiting = b.start, 0
		}
	}
	s.end, s.waiting = b.end, s.waiting+n
	if s.waiting > s.tokens {
		s.cutUp()
	}
}

// cutUp cuts what waits, because its last block is too long. The last piece goes on waiting, so that short blocks can join it.
func (s *sections) cutUp() {
	had := len(s.chunks)
	s.split(s.start, s.end, separators)
	s.start = s.end
	if n := len(s.chunks); n > had {
		last := s.chunks[n-1]
		s.chunks = s.chunks[:n-1]
		s.start, s.waiting = last.Start, last.Tokens
	}
}

// flush makes a chunk of what waits.
func (s *sections) flush() {
	if s.start < s.end && !s.emit(s.start, s.end) {
		s.split(s.start, s.end, separators)
	}
	s.start = s.end
}

// finish ends the section: its chunks get their context, and the end of their predecessor in the same section.
func (s *sections) finish() {
	s.flush()
	for i := len(s.chunks) - 1; i >= s.first; i-- {
		c := &s.chunks[i]
		if i == s.first {
			c.Context = s.above
			continue
		}
		c.Context = join(s.path)
		if s.back == 0 {
			continue
		}
		from := s.skip(s.tail(s.chunks[i-1].Start, c.Start, min(s.back, s.budget-c.Tokens)), c.Start)
		if n := s.measure(from, c.End, s.budget+1); n <= s.budget {
			c.Start, c.Tokens = from, n
		}
	}
	s.first, s.hasBody, s.bare = len(s.chunks), false, false
	s.above = join(s.path)
}

// join makes the path of headings, outermost first. When it is too long, the outermost are left out.
func join(path []title) string {
	n := 0
	first := len(path)
	for first > 0 {
		more := len(path[first-1].text) + len(" > ")
		if n+more > maxPath {
			break
		}
		n += more
		first--
	}
	var b strings.Builder
	b.Grow(n)
	for _, t := range path[first:] {
		if t.text == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(" > ")
		}
		b.WriteString(t.text)
	}
	return b.String()
}

// clip shortens a title to n bytes, and makes it valid UTF-8: it goes into an embedder's input, not into a span.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.TrimRight(s[:n], " \t")
}
