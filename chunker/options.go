package chunker

import (
	"context"
	"fmt"
	"strings"

	"github.com/liverag/liverag/internal/bpe"
)

// Strategies and tokenizers that [New] knows.
const (
	// Markdown cuts at headings first, then inside sections; fenced code, tables and lists stay whole when they fit.
	Markdown = "markdown"
	// Recursive cuts at paragraphs, then lines, sentences, words, whichever is the first to give pieces that fit.
	Recursive = "recursive"
	// Token cuts windows of so many tokens, wherever they end.
	Token = "token"
	// Whole makes one chunk of a text, whatever its length.
	Whole = "whole"

	CL100K = bpe.CL100K
	O200K  = bpe.O200K
	// MiniLM counts the word pieces of all-MiniLM-L6-v2 with the two that frame an input, by [Options.Counter].
	MiniLM = "minilm"
)

// Strategies are those that [New] knows.
func Strategies() []string { return []string{Markdown, Recursive, Token, Whole} }

// Version numbers of the strategies' output. Whoever changes where a strategy cuts, or what it puts into Context, raises its number.
const (
	markdownVersion  = 1
	recursiveVersion = 1
	tokenVersion     = 1
	wholeVersion     = 1

	// countedVersion is added where a Counter counts: that changed where strategies cut, and encodings do not need it.
	countedVersion = 1
)

// minTokens is the least token budget: any rune fits it in any tokenizer, so that no cut has to go through one.
const minTokens = 16

// Counter counts a text's tokens. It is safe for concurrent use, and equal texts have equal counts.
//
// Words add up: where white space (space, tab, newline, carriage return) separates a and b, whatever these are,
// Count(a + " " + b) = Count(a) + Count(b) - Count(""), and white space alone is Count(""), the tokens that frame every input. A text is
// counted once then, and not again for each span of it.
type Counter interface{ Count(text string) int }

// Options says how to cut.
type Options struct {
	// Strategy is Markdown, Recursive, Token or Whole. Defaults to Markdown.
	Strategy string
	// Tokens is the token budget: no chunk has more. At least 16. Whole has none. Defaults to 200.
	Tokens int
	// Overlap is how many tokens of its predecessor a chunk may begin with, below Tokens. Whole has none. Defaults to 0.
	Overlap int
	// Tokenizer is CL100K, O200K, or MiniLM, which needs a Counter. Defaults to CL100K.
	Tokenizer string
	// Counter counts for a Tokenizer that this package doesn't bring along. It must be nil for those it does.
	Counter Counter
}

// New returns the chunker of these options. An error begins with the setting's name and says what is allowed.
func New(o Options) (Chunker, error) {
	if o.Strategy == "" {
		o.Strategy = Markdown
	}
	if o.Tokenizer == "" {
		o.Tokenizer = CL100K
	}
	if o.Tokens == 0 {
		o.Tokens = 200
	}
	if o.Tokens < minTokens {
		return nil, fmt.Errorf("tokens: %d is too few: use %d or more", o.Tokens, minTokens)
	}
	if o.Overlap < 0 || o.Overlap >= o.Tokens {
		return nil, fmt.Errorf("overlap: %d does not fit a budget of %d tokens: use 0 to %d", o.Overlap, o.Tokens, o.Tokens-1)
	}
	rulers, err := newRulers(o)
	if err != nil {
		return nil, err
	}
	name := func(version int) string {
		if o.Counter != nil {
			version += countedVersion
		}
		return fmt.Sprintf("%s/%d tokens=%d overlap=%d tokenizer=%s", o.Strategy, version, o.Tokens, o.Overlap, o.Tokenizer)
	}
	switch o.Strategy {
	case Markdown:
		return pure{&markdown{name(markdownVersion), o.Tokens, o.Overlap, rulers}}, nil
	case Recursive:
		return pure{&recursive{name(recursiveVersion), o.Tokens, o.Overlap, rulers}}, nil
	case Token:
		return pure{&token{name(tokenVersion), o.Tokens, o.Overlap, rulers}}, nil
	case Whole:
		return pure{&whole{fmt.Sprintf("%s/%d tokenizer=%s", o.Strategy, wholeVersion, o.Tokenizer), rulers}}, nil
	}
	return nil, fmt.Errorf("strategy: unknown %q: use %s", o.Strategy, strings.Join(Strategies(), ", "))
}

// pure is a strategy of this package as a Chunker: it needs no time to speak of, and nothing can go wrong.
type pure struct{ strategy }

type strategy interface {
	Name() string
	split(contentType, text string) []Chunk
}

func (p pure) Split(_ context.Context, contentType, text string) ([]Chunk, error) {
	return p.split(contentType, text), nil
}

func newRulers(o Options) (*rulers, error) {
	switch o.Tokenizer {
	case CL100K, O200K:
		if o.Counter != nil {
			return nil, fmt.Errorf("counter: %s brings its own: leave it nil", o.Tokenizer)
		}
		e, err := bpe.Load(o.Tokenizer)
		if err != nil {
			return nil, fmt.Errorf("tokenizer: %w", err)
		}
		return &rulers{encoding: e}, nil
	case MiniLM:
		if o.Counter == nil {
			return nil, fmt.Errorf("tokenizer: %s needs a counter: give the embedder's, or use %s or %s", o.Tokenizer, CL100K, O200K)
		}
		return &rulers{counter: o.Counter}, nil
	}
	return nil, fmt.Errorf("tokenizer: unknown %q: use %s, %s or %s", o.Tokenizer, CL100K, O200K, MiniLM)
}
