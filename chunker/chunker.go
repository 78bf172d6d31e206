// Package chunker cuts a document's text into the chunks that are embedded and retrieved.
//
// A [Chunker] is pure: the same name and the same text always give the same chunks, on every machine. Chunks are byte
// spans of the text, exact to the byte whatever the text is: emoji, CJK, CRLF, no spaces at all, invalid UTF-8.
package chunker

// Chunk is a span of a document's text.
type Chunk struct {
	// Start and End are byte offsets: the chunk is text[Start:End].
	Start, End int
	// Tokens is the chunk's length in the chunker's own tokenizer.
	Tokens int
	// Context is what the embedder reads before the chunk, such as the path of headings above it. It is no part of the span.
	Context string
}

// Chunker cuts texts. Implementations are safe for concurrent use.
type Chunker interface {
	// Name holds everything that decides the output: strategy, its version, tokens, overlap, tokenizer.
	// Equal names mean equal output. It goes into a generation's fingerprint.
	Name() string
	// Split returns the chunks ordered by Start, then End. Together they cover every byte that is not white space; each has at most the
	// token budget; with an overlap, neighbours share text. Text that is all white space, or empty, has no chunks.
	// contentType is one of the stream package's constants; strategies that don't care ignore it.
	Split(contentType, text string) []Chunk
}
