package bpe

import (
	"sync"
	"unicode"
	"unicode/utf8"
)

// What the two encodings' regular expressions ask of a rune. A rune has at most one of number, space, other than a letter;
// upper, lower and shared tell o200k_base's two letter classes apart: [Lu Lt Lm Lo M] is upper|shared, [Ll Lm Lo M] lower|shared.
const (
	letter  = 1 << iota // \p{L}
	number              // \p{N}
	space               // \s
	newline             // \r or \n
	upper               // \p{Lu} \p{Lt}
	lower               // \p{Ll}
	shared              // \p{Lm} \p{Lo} \p{M}
)

// tabled is the end of the runes that have an entry in the table. Above it lie ideographs and little else, which are rare
// enough for a search in the unicode package's ranges.
const tabled = 0x20000

var classes = sync.OnceValue(func() *[tabled]uint8 {
	table := new([tabled]uint8)
	mark := func(bits uint8, ranges ...*unicode.RangeTable) {
		for _, r := range ranges {
			for _, r16 := range r.R16 {
				for c := uint32(r16.Lo); c <= uint32(r16.Hi); c += uint32(r16.Stride) {
					table[c] |= bits
				}
			}
			for _, r32 := range r.R32 {
				for c := r32.Lo; c <= r32.Hi && c < tabled; c += r32.Stride {
					table[c] |= bits
				}
			}
		}
	}
	mark(letter, unicode.L)
	mark(number, unicode.N)
	mark(space, unicode.White_Space)
	mark(upper, unicode.Lu, unicode.Lt)
	mark(lower, unicode.Ll)
	mark(shared, unicode.Lm, unicode.Lo, unicode.M)
	table['\r'] |= newline
	table['\n'] |= newline
	return table
})

// classBeyond is the class of a rune above the table.
func classBeyond(r rune) uint8 {
	var bits uint8
	if unicode.Is(unicode.L, r) {
		bits |= letter
	}
	if unicode.Is(unicode.N, r) {
		bits |= number
	}
	if unicode.In(r, unicode.Lu, unicode.Lt) {
		bits |= upper
	}
	if unicode.Is(unicode.Ll, r) {
		bits |= lower
	}
	if unicode.In(r, unicode.Lm, unicode.Lo, unicode.M) {
		bits |= shared
	}
	return bits
}

// scanner cuts a text into pre-tokens, the stretches between which no merge ever happens. It reads left to right and looks
// back at nothing, so it may start at any border and finds the same borders from there on.
type scanner struct {
	table *[tabled]uint8
	text  string
	// broken is set by next when the pre-token holds a byte that is no valid UTF-8.
	broken bool
}

// class returns the class and the length of the rune at p, which must be inside the text. An invalid byte is U+FFFD of length one.
func (s *scanner) class(p int) (uint8, int) {
	c := s.text[p]
	if c < utf8.RuneSelf {
		return s.table[c], 1
	}
	r, n := utf8.DecodeRuneInString(s.text[p:])
	if n == 1 {
		s.broken = true
	}
	if r < tabled {
		return s.table[r], n
	}
	return classBeyond(r), n
}

// run returns the end of the longest run of runes from p on that have any of the bits.
func (s *scanner) run(p int, bits uint8) int {
	text := s.text
	for p < len(text) {
		if c := text[p]; c < utf8.RuneSelf {
			if s.table[c]&bits == 0 {
				return p
			}
			p++
			continue
		}
		was := s.broken
		class, n := s.class(p)
		if class&bits == 0 {
			s.broken = was
			return p
		}
		p += n
	}
	return p
}

// others returns the end of the longest run of runes from p on that have none of the bits.
func (s *scanner) others(p int, bits uint8) int {
	text := s.text
	for p < len(text) {
		if c := text[p]; c < utf8.RuneSelf {
			if s.table[c]&bits != 0 {
				return p
			}
			p++
			continue
		}
		was := s.broken
		class, n := s.class(p)
		if class&bits != 0 {
			s.broken = was
			return p
		}
		p += n
	}
	return p
}

// contraction returns the length of 's 't 're 've 'm 'll 'd at p, in either case, or 0.
func (s *scanner) contraction(p int) int {
	text := s.text
	if p+1 >= len(text) || text[p] != '\'' {
		return 0
	}
	switch text[p+1] | 0x20 {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if p+2 < len(text) && text[p+2]|0x20 == 'e' {
			return 3
		}
	case 'l':
		if p+2 < len(text) && text[p+2]|0x20 == 'l' {
			return 3
		}
	}
	return 0
}

// digits returns the end of \p{N}{1,3} at p, whose first rune of length n is known to be a number.
func (s *scanner) digits(p, n int) int {
	p += n
	for range 2 {
		if p >= len(s.text) {
			break
		}
		was := s.broken
		class, n := s.class(p)
		if class&number == 0 {
			s.broken = was
			break
		}
		p += n
	}
	return p
}

// spaces returns the end of what \s*[\r\n]+|\s+(?!\S)|\s+ matches at p, whose rune is white space.
func (s *scanner) spaces(p int) int {
	end, last, afterNewline := p, p, -1
	for end < len(s.text) {
		was := s.broken
		class, n := s.class(end)
		if class&space == 0 {
			s.broken = was
			break
		}
		last = end
		end += n
		if class&newline != 0 {
			afterNewline = end
		}
	}
	switch {
	case afterNewline >= 0:
		return afterNewline
	case end < len(s.text) && last > p:
		return last // the last one belongs to what follows
	}
	return end
}

// nextCL100K returns the end of the pre-token that starts at p, which must be inside the text:
// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func (s *scanner) nextCL100K(p int) int {
	s.broken = false
	text := s.text
	if n := s.contraction(p); n > 0 {
		return p + n
	}
	class, n := s.class(p)
	if class&letter != 0 {
		return s.run(p+n, letter)
	}
	if class&number != 0 {
		return s.digits(p, n)
	}
	if class&newline == 0 && p+n < len(text) {
		if end := s.run(p+n, letter); end > p+n {
			return end
		}
	}
	start := p
	if text[p] == ' ' {
		start++
	}
	if end := s.others(start, space|letter|number); end > start {
		for end < len(text) && (text[end] == '\r' || text[end] == '\n') {
			end++
		}
		return end
	}
	return s.spaces(p)
}

// nextO200K returns the end of the pre-token that starts at p, which must be inside the text. With U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}],
// L = [\p{Ll}\p{Lm}\p{Lo}\p{M}] and C = (?i:'s|'t|'re|'ve|'m|'ll|'d):
// [^\r\n\p{L}\p{N}]?U*L+C?|[^\r\n\p{L}\p{N}]?U+L*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
func (s *scanner) nextO200K(p int) int {
	s.broken = false
	text := s.text
	class, n := s.class(p)
	prefixed := class&(letter|number|newline) == 0 && p+n < len(text)
	broken := s.broken
	if prefixed {
		if end := s.upperLower(p + n); end > 0 {
			return end + s.contraction(end)
		}
		s.broken = broken
	}
	if class&(letter|shared) != 0 {
		if end := s.upperLower(p); end > 0 {
			return end + s.contraction(end)
		}
		s.broken = broken
	}
	// No lower-case rune can follow the upper-case run here, or the first alternative would have matched: L* is empty.
	if prefixed {
		if end := s.run(p+n, upper|shared); end > p+n {
			return end + s.contraction(end)
		}
	}
	if end := s.run(p, upper|shared); end > p {
		return end + s.contraction(end)
	}
	if class&number != 0 {
		return s.digits(p, n)
	}
	start := p
	if text[p] == ' ' {
		start++
	}
	if end := s.others(start, space|letter|number); end > start {
		for end < len(text) && (text[end] == '\r' || text[end] == '\n' || text[end] == '/') {
			end++
		}
		return end
	}
	return s.spaces(p)
}

// upperLower returns the end of U*L+ at p as a backtracking matcher finds it, or 0 where there is none: the longest run of U, then
// lower case; without lower case, up to the last rune of the run that both classes share.
func (s *scanner) upperLower(p int) int {
	end, lastShared := p, 0
	var brokenShared bool
	for end < len(s.text) {
		was := s.broken
		class, n := s.class(end)
		if class&(upper|shared) == 0 {
			s.broken = was
			if class&lower != 0 {
				return s.run(end, lower|shared)
			}
			break
		}
		end += n
		if class&shared != 0 {
			lastShared, brokenShared = end, s.broken
		}
	}
	if lastShared > 0 {
		s.broken = brokenShared
	}
	return lastShared
}
