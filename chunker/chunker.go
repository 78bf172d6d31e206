// Package chunker cuts a document's text into the chunks that are embedded and retrieved.
//
// A [Chunker] is pure: the same name and the same text always give the same chunks, on every machine. Chunks are byte
// spans of the text, exact to the byte whatever the text is: emoji, CJK, CRLF, no spaces at all, invalid UTF-8.
//
// Those that [New] makes are this package's own, and never fail. chunker/external has those that are somebody else's program.
package chunker

import (
	"context"
	"fmt"
)

// Chunk is a span of a document's text.
type Chunk struct {
	// Start and End are byte offsets: the chunk is text[Start:End].
	Start, End int
	// Tokens is the chunk's length in the chunker's own tokenizer.
	Tokens int
	// Context is what the embedder reads before the chunk, such as the path of headings above it. It is no part of the span.
	Context string
}

// Input is what the embedder reads for the chunk of this text: its context on a line before the span. Whoever changes the form raises the number that a
// generation's fingerprint has for it.
func (c Chunk) Input(text string) string {
	if c.Context == "" {
		return text[c.Start:c.End]
	}
	return c.Context + "\n" + text[c.Start:c.End]
}

// Chunker cuts texts. Implementations are safe for concurrent use.
type Chunker interface {
	// Name holds everything that decides the output: strategy, its version, tokens, overlap, tokenizer.
	// Equal names mean equal output. It goes into a generation's fingerprint.
	Name() string
	// Split returns the chunks ordered by Start, then End. Together they cover every byte that is not white space; each has at most the
	// token budget; with an overlap, neighbours share text. Text that is all white space, or empty, has no chunks.
	// A chunker that is somebody else's program may leave out what nobody should find, and has a budget of its own.
	// contentType is one of the stream package's constants; strategies that don't care ignore it.
	//
	// The error of a program that fails is an [*Error]; there is no other but that of ctx, which such a program's work ends with. The caller tries a
	// temporary one again.
	Split(ctx context.Context, contentType, text string) ([]Chunk, error)
}

// Error is the failure of a chunker that is somebody else's program.
type Error struct {
	// Name is the chunker's.
	Name string
	// Temporary tells that the same text may be cut later. Otherwise it is the text that the chunker can't cut.
	Temporary bool
	Err       error
}

func (e *Error) Error() string { return fmt.Sprintf("chunker %s: %v", e.Name, e.Err) }
func (e *Error) Unwrap() error { return e.Err }
