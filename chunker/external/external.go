// Package external cuts texts with a chunker that is not ours: a program of the user's, or a service.
//
// Both speak the same language. A request is one JSON object, {"content_type":"text/markdown","text":"…"}; the answer is one too:
//
//	{"chunks": [{"start": 0, "end": 120, "context": "Guide > Install"}, …]}   spans of the text
//	{"chunks": ["first chunk", "second chunk", …]}                            texts, looked for in the text one after the other
//	{"error": "what is wrong with this text"}                                 this text can't be cut
//
// start and end count bytes, or with "unit": "characters" code points, as Python's strings do. Every span is checked: inside the text, not empty, not through
// a character, in order. Tokens are counted here. A program reads a request a line from its standard input, and writes an answer a line to its standard output; a
// service takes a POST.
package external

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/liverag/liverag/chunker"
)

// Names tells whether a strategy names somebody else's chunker.
func Names(strategy string) bool { return strings.HasPrefix(strategy, ExecPrefix) || IsURL(strategy) }

// request is what is sent for one text.
type request struct {
	ContentType string `json:"content_type"`
	Text        string `json:"text"`
}

// answer is what comes back.
type answer struct {
	Chunks []chunk `json:"chunks"`
	// Unit is bytes (the default) or characters.
	Unit string `json:"unit"`
	// Version of the service, which must not change under an index. A program's is known from its bytes.
	Version string `json:"version"`
	Error   string `json:"error"`
}

// chunk is a span, or a text to be looked for.
type chunk struct {
	Start   *int   `json:"start"`
	End     *int   `json:"end"`
	Context string `json:"context"`
	Text    *string
}

// UnmarshalJSON takes both forms.
func (c *chunk) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &c.Text)
	}
	type span chunk
	return json.Unmarshal(b, (*span)(c))
}

// decode reads an answer to a text and checks it. The error is about this text alone.
func decode(line []byte, text string, count chunker.Counter) ([]chunker.Chunk, *answer, error) {
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return nil, nil, fmt.Errorf("the answer is not the JSON that is wanted (%w): %s", err, excerpt(line))
	}
	switch {
	case a.Error != "":
		return nil, &a, fmt.Errorf("it says: %s", excerpt([]byte(a.Error)))
	case a.Chunks == nil:
		return nil, &a, fmt.Errorf("the answer has no \"chunks\": %s", excerpt(line))
	case a.Unit != "" && a.Unit != "bytes" && a.Unit != "characters":
		return nil, &a, fmt.Errorf("unit %q is neither \"bytes\" nor \"characters\"", a.Unit)
	}
	offset := func(n int) (int, bool) { return n, n >= 0 && n <= len(text) }
	if a.Unit == "characters" {
		offset = characters(text)
	}
	out := make([]chunker.Chunk, 0, len(a.Chunks))
	from := 0 // where the next text is looked for
	for i, c := range a.Chunks {
		var start, end int
		switch {
		case c.Text != nil:
			at := strings.Index(text[from:], *c.Text)
			if at < 0 {
				return nil, &a, fmt.Errorf("chunk %d is not in the text after the start of the one before it: %s", i, excerpt([]byte(*c.Text)))
			}
			start = from + at
			end = start + len(*c.Text)
			from = start
			if *c.Text != "" { // the next one may overlap, but it is not the same place again
				_, size := utf8.DecodeRuneInString(text[start:])
				from += size
			}
		case c.Start == nil || c.End == nil:
			return nil, &a, fmt.Errorf("chunk %d has no \"start\" or no \"end\", and is no string either", i)
		default:
			var ok, fits bool
			start, ok = offset(*c.Start)
			end, fits = offset(*c.End)
			if !ok || !fits {
				return nil, &a, fmt.Errorf("chunk %d is [%d:%d), outside the text", i, *c.Start, *c.End)
			}
		}
		if start >= end {
			return nil, &a, fmt.Errorf("chunk %d is empty", i)
		}
		if !utf8.RuneStart(text[start]) && valid(text, start) || end < len(text) && !utf8.RuneStart(text[end]) && valid(text, end) {
			return nil, &a, fmt.Errorf("chunk %d is [%d:%d), which goes through a character: are these offsets in characters? then say \"unit\": \"characters\"", i, start, end)
		}
		if strings.TrimSpace(text[start:end]) == "" {
			continue // nothing to find
		}
		out = append(out, chunker.Chunk{Start: start, End: end, Tokens: count.Count(text[start:end]), Context: c.Context})
	}
	slices.SortStableFunc(out, func(a, b chunker.Chunk) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End)) })
	for i := 1; i < len(out); i++ {
		if out[i].Start == out[i-1].Start && out[i].End == out[i-1].End {
			return nil, &a, fmt.Errorf("two chunks are the same span [%d:%d)", out[i].Start, out[i].End)
		}
	}
	return out, &a, nil
}

// valid tells whether the byte at the offset is inside a character, rather than a stray byte of broken UTF-8.
func valid(text string, at int) bool {
	for start := at - 1; start >= max(0, at-utf8.UTFMax); start-- {
		if utf8.RuneStart(text[start]) {
			r, size := utf8.DecodeRuneInString(text[start:])
			return r != utf8.RuneError && start+size > at
		}
	}
	return false
}

// characters turns offsets in code points into offsets in bytes. It looks at the text once, whatever the order of the offsets.
func characters(text string) func(int) (int, bool) {
	if len(text) == utf8.RuneCountInString(text) {
		return func(n int) (int, bool) { return n, n >= 0 && n <= len(text) }
	}
	const every = 64
	var marks []int // the byte at which each 64th character begins
	n := 0
	for at := range text {
		if n%every == 0 {
			marks = append(marks, at)
		}
		n++
	}
	return func(c int) (int, bool) {
		switch {
		case c < 0 || c > n:
			return 0, false
		case c == n:
			return len(text), true
		}
		at := marks[c/every]
		for range c % every {
			_, size := utf8.DecodeRuneInString(text[at:])
			at += size
		}
		return at, true
	}
}

// excerpt is the beginning of something long, on one line.
func excerpt(b []byte) string {
	const most = 160
	b = bytes.TrimSpace(b)
	cut := len(b) > most
	if cut {
		b = b[:most]
	}
	s := strings.ToValidUTF8(string(b), "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F {
			return ' '
		}
		return r
	}, s)
	if cut {
		s += "…"
	}
	return s
}

// refused is an error about one text.
func refused(name string, err error) error {
	return &chunker.Error{Name: name, Err: err}
}

// unavailable is an error that a later try may not have.
func unavailable(name string, err error) error {
	return &chunker.Error{Name: name, Temporary: true, Err: err}
}

// errTooLong: an answer of more bytes than any set of chunks of its text needs.
var errTooLong = errors.New("the answer is longer than any list of chunks of this text could be")

// longest is how long an answer may be: every chunk of a text could be answered as text, overlapping its neighbours several times.
func longest(text string) int64 { return 1<<20 + 32*int64(len(text)) }
