// Package embedder turns text into vectors.
//
// [Embedder] is the port. Models implement it (embedder/local, embedder/openai, [Hash]); wrappers with the same interface add
// what a provider needs, outermost first: Cache(Batch(model)). What the cache has costs the provider's allowance nothing.
// Package embedder/embeddertest is the conformance suite.
package embedder

import (
	"context"
	"fmt"
	"time"
)

// Role is which side of a search a text is on. Asymmetric models embed the two differently.
type Role uint8

const (
	// Index is the side of documents.
	Index Role = iota
	// Query is the side of questions.
	Query
)

func (r Role) String() string {
	if r == Query {
		return "query"
	}
	return "index"
}

// Embedder is a model. Implementations are safe for concurrent use.
type Embedder interface {
	// Name is provider/model plus whatever else decides a vector (a hash of the weights, prefixes): equal names
	// mean that vectors may be compared. It goes into a generation's fingerprint.
	Name() string
	// Dim is the length of every vector.
	Dim() int
	// MaxInput is the longest input in the model's own tokens that it reads whole; 0 if there is no limit.
	MaxInput() int
	// Embed returns [len(inputs)][Dim] vectors of unit length, in the order of the inputs: all of them or an error.
	// An empty or blank input gives the zero vector, which no search finds. The inputs are not kept. It blocks until done or ctx ends.
	// An *Error says whether trying again can help and whether one input is to blame.
	Embed(ctx context.Context, role Role, inputs []string) ([][]float32, error)
}

// Tokenizer is implemented by embedders that can count an input in their own tokens, including those that frame it.
type Tokenizer interface {
	CountTokens(input string) int
}

// Lane is the urgency of a call. A lower lane's waiting calls go first.
type Lane uint8

const (
	// Live is for queries and for changes as they happen.
	Live Lane = iota
	// Replay is for everything that folds the log again.
	Replay
	// Backfill is for imports, and for what else is added at leisure to an index that answers already.
	Backfill
	lanes
)

// Error is a failed call.
type Error struct {
	// Op says what failed, e.g. "openai: embed 12 inputs".
	Op string
	// Temporary: the same call may succeed later (429, 5xx, a timeout).
	Temporary bool
	// Throttled: the provider refused because more was asked than it allows (429).
	Throttled bool
	// Account: the provider refuses us whatever we send (the key, the account, the model's name): no input is to blame, and somebody has to do something.
	Account bool
	// RetryAfter is how long the provider asked to wait; 0 if it did not say.
	RetryAfter time.Duration
	// Input is the index of the one input that is to blame, or -1.
	Input int
	Err   error
}

func (e *Error) Error() string {
	if e.Input >= 0 {
		return fmt.Sprintf("%s: input %d: %v", e.Op, e.Input, e.Err)
	}
	return fmt.Sprintf("%s: %v", e.Op, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }
