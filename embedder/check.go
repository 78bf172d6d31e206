package embedder

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// unitTolerance is how far a vector's length may be from 1: wide enough for a provider that rounds to half precision.
const unitTolerance = 1e-2

// Check verifies an answer against the contract: a vector an input, each [dim], of finite numbers, of unit length or all zero.
// The error is permanent: *Error with the input to blame, or with Input -1 where the count is wrong.
func Check(name string, dim, inputs int, vectors [][]float32) error {
	if len(vectors) != inputs {
		return &Error{Op: name, Input: -1, Err: fmt.Errorf("%d vectors for %d inputs", len(vectors), inputs)}
	}
	for i, v := range vectors {
		if err := checkVector(dim, v); err != nil {
			return &Error{Op: name, Input: i, Err: err}
		}
	}
	return nil
}

func checkVector(dim int, v []float32) error {
	if len(v) != dim {
		return fmt.Errorf("a vector of %d dimensions, want %d", len(v), dim)
	}
	var square float64
	for _, x := range v {
		square += float64(x) * float64(x)
	}
	// A NaN or an infinity anywhere makes the sum one, and a comparison with NaN is false.
	if length := math.Sqrt(square); square != 0 && !(math.Abs(length-1) <= unitTolerance) {
		return fmt.Errorf("a vector of length %.4f, want 1", length)
	}
	return nil
}

// Blank reports whether an input is empty or white space alone, so that its vector is zero and no model need be asked.
func Blank(input string) bool { return strings.TrimSpace(input) == "" }

// Wrapper is implemented by embedders that stand before another one.
type Wrapper interface {
	Unwrap() Embedder
}

// under finds the first of a type among a model and the wrappers that stand before it, from the outside.
func under[T any](e Embedder) (found T, ok bool) {
	for {
		if found, ok = e.(T); ok {
			return found, true
		}
		w, wraps := e.(Wrapper)
		if !wraps {
			return found, false
		}
		e = w.Unwrap()
	}
}

// TokenizerOf finds the tokenizer of a model under any number of wrappers.
func TokenizerOf(e Embedder) (Tokenizer, bool) { return under[Tokenizer](e) }

// BatcherOf finds the scheduler before a model; nil if there is none.
func BatcherOf(e Embedder) *Batcher {
	b, _ := under[*Batcher](e)
	return b
}

// HasCache tells whether e is wrapped in a Cache, below any number of other wrappers.
func HasCache(e Embedder) bool {
	_, cached := under[*Cached](e)
	return cached
}

// Truncater is implemented by models that read the beginning of an input over MaxInput, exactly as many tokens as they can, where others refuse it.
type Truncater interface {
	Truncates()
}

// truncates tells whether a model under any number of wrappers does that.
func truncates(e Embedder) bool {
	_, ok := under[Truncater](e)
	return ok
}

// bytesAToken is the rule of thumb for English where a model has no tokenizer here.
const bytesAToken = 4

// counterOf counts an input's tokens by the model's own tokenizer, or else estimates them from bytes, rounded up.
func counterOf(e Embedder) func(string) int {
	if t, ok := TokenizerOf(e); ok {
		return t.CountTokens
	}
	return func(input string) int { return (len(input) + bytesAToken - 1) / bytesAToken }
}

// reindexed is err as an *Error with another Input: indices of a request mean nothing to a caller.
func reindexed(err error, op string, input int) error {
	var failed *Error
	switch {
	case !errors.As(err, &failed):
		if input < 0 {
			return err
		}
		return &Error{Op: op, Input: input, Err: err}
	case failed.Input == input:
		return err
	}
	again := *failed
	again.Input = input
	if failed.Input < 0 {
		// Keep what others have said about it, such as how often it was tried.
		again.Op, again.Err = op, err
	}
	return &again
}

// movedBlame translates the Input of a failed call for some of the inputs: places[i] is where its i-th input was in the caller's.
func movedBlame(err error, op string, places []int) error {
	var failed *Error
	if !errors.As(err, &failed) || failed.Input < 0 || failed.Input >= len(places) {
		return err
	}
	return reindexed(err, op, places[failed.Input])
}
