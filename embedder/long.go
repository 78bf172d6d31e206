package embedder

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// ErrInputTooLong is wrapped by the permanent *Error for an input over MaxInput, where the policy is to reject it.
var ErrInputTooLong = errors.New("the input is longer than the model reads")

// LongPolicy is what happens to an input over the model's MaxInput. It decides vectors, so it is part of the name.
type LongPolicy string

const (
	// LongSplit embeds the input in pieces; its vector is their mean, weighted by their tokens and scaled to unit length.
	LongSplit LongPolicy = "split"
	// LongTruncate embeds the beginning, as much as the model reads: to the token where the model does it itself (see [Truncater]), else to the end of a word. What is left
	// out is never found; it is counted.
	LongTruncate LongPolicy = "truncate"
	// LongReject refuses the input with ErrInputTooLong.
	LongReject LongPolicy = "reject"
)

// Long does with over-long inputs as the policy says. It stands outside of Cache and Batch, so that pieces are cached and batched like any other input. For a
// model without a limit it changes nothing, not even the name. A model with a limit must be able to count tokens.
func Long(inner Embedder, policy LongPolicy) (*LongInputs, error) {
	switch policy {
	case LongSplit, LongTruncate, LongReject:
	default:
		return nil, fmt.Errorf("policy for long inputs %q is none of split, truncate and reject", policy)
	}
	l := &LongInputs{inner: inner, policy: policy, name: inner.Name(), most: inner.MaxInput()}
	if l.most > 0 {
		t, ok := TokenizerOf(inner)
		if !ok {
			return nil, fmt.Errorf("%s reads %d tokens but can't count them, so long inputs can't be told", inner.Name(), l.most)
		}
		l.count = t.CountTokens
		l.name += "+long=" + string(policy)
		if l.itself = policy == LongTruncate && truncates(inner); l.itself {
			l.name += "/2" // of the first version, which ended with a word
		}
	}
	return l, nil
}

// LongInputs is what [Long] returns.
type LongInputs struct {
	inner  Embedder
	policy LongPolicy
	name   string
	most   int
	count  func(string) int
	itself bool // the model truncates, not we

	long atomic.Int64
}

// Name is the model's, with +long=<policy> if it has a limit.
func (l *LongInputs) Name() string { return l.name }

// Dim is the model's.
func (l *LongInputs) Dim() int { return l.inner.Dim() }

// MaxInput is the model's, or 0 where long inputs are split: then nothing is left out.
func (l *LongInputs) MaxInput() int {
	if l.policy == LongSplit {
		return 0
	}
	return l.most
}

// Unwrap is the embedder below.
func (l *LongInputs) Unwrap() Embedder { return l.inner }

// LongInputs is how many inputs were over the limit and were split, truncated or rejected.
func (l *LongInputs) LongInputs() int64 { return l.long.Load() }

// Embed applies the policy, then calls inner once with all pieces.
func (l *LongInputs) Embed(ctx context.Context, role Role, inputs []string) ([][]float32, error) {
	if l.most == 0 {
		return l.inner.Embed(ctx, role, inputs)
	}
	pieces := inputs
	// first[i] is where input i's pieces begin; nil while every input is one piece.
	var first []int
	long := 0
	for i, input := range inputs {
		tokens := l.count(input)
		var cut []string
		if tokens > l.most {
			long++
		}
		if tokens > l.most && !l.itself {
			switch l.policy {
			case LongReject:
				l.long.Add(1)
				return nil, &Error{Op: l.name, Input: i, Err: fmt.Errorf("%w: %d tokens, it reads %d", ErrInputTooLong, tokens, l.most)}
			case LongTruncate:
				cut = l.pieces(input, 1)
			default:
				cut = l.pieces(input, math.MaxInt)
			}
			if first == nil {
				pieces, first = slices.Clone(inputs[:i]), make([]int, i, len(inputs)+1)
				for k := range first {
					first[k] = k
				}
			}
		}
		if first != nil {
			first = append(first, len(pieces))
			if cut == nil {
				cut = inputs[i : i+1]
			}
			pieces = append(pieces, cut...)
		}
	}
	vectors, err := l.inner.Embed(ctx, role, pieces)
	if first == nil {
		if err == nil {
			l.long.Add(int64(long))
		}
		return vectors, err
	}
	first = append(first, len(pieces))
	if err != nil {
		places := make([]int, len(pieces))
		for i := range inputs {
			for k := first[i]; k < first[i+1]; k++ {
				places[k] = i
			}
		}
		return nil, movedBlame(err, l.name, places)
	}
	if err := Check(l.name, l.Dim(), len(pieces), vectors); err != nil {
		return nil, err
	}
	if !foresees(ctx) {
		l.long.Add(int64(long))
	}
	out := make([][]float32, len(inputs))
	for i := range out {
		a, z := first[i], first[i+1]
		usageOf(ctx).pieces(inputs[i], pieces[a:z])
		if z-a == 1 {
			out[i] = vectors[a]
			continue
		}
		out[i] = l.mean(pieces[a:z], vectors[a:z])
	}
	return out, nil
}

// mean is the mean of pieces' vectors, weighted by their tokens, as a unit vector; zero if it vanishes.
func (l *LongInputs) mean(pieces []string, vectors [][]float32) []float32 {
	sum := make([]float64, l.Dim())
	for k, v := range vectors {
		weight := float64(l.count(pieces[k]))
		for d, x := range v {
			sum[d] += float64(weight * float64(x)) // the conversion keeps machines from rounding differently (no fused multiply-add)
		}
	}
	var square float64
	for _, x := range sum {
		square += float64(x * x)
	}
	out := make([]float32, len(sum))
	if square == 0 {
		return out
	}
	length := math.Sqrt(square)
	for d, x := range sum {
		out[d] = float32(x / length)
	}
	return out
}

// pieces cuts an input into at most n pieces that the model reads whole, each as long as can be.
func (l *LongInputs) pieces(input string, n int) []string {
	var out []string
	for len(out) < n {
		input = strings.TrimLeftFunc(input, unicode.IsSpace)
		if input == "" {
			break
		}
		cut := l.fits(input)
		out = append(out, input[:cut])
		input = input[cut:]
	}
	return out
}

// fits is the length in bytes of the longest beginning that the model reads whole, at the end of a word if that costs less than half of it.
func (l *LongInputs) fits(input string) int {
	// Double until it is too much, then halve the difference. Cutting a word can cost a token more, so the search may miss the
	// longest by a few bytes; what it finds has been counted, and is the same every time.
	good, bad := 0, boundary(input, 4*l.most)
	for bad < len(input) && l.count(input[:bad]) <= l.most {
		good, bad = bad, boundary(input, 2*bad)
	}
	if bad == len(input) && l.count(input) <= l.most {
		return bad
	}
	for {
		middle := boundary(input, good+(bad-good)/2)
		if middle <= good || middle >= bad {
			break
		}
		if l.count(input[:middle]) <= l.most {
			good = middle
		} else {
			bad = middle
		}
	}
	if good == 0 {
		// Not one character fits. It goes as it is: the model knows best what to do with it.
		_, size := utf8.DecodeRuneInString(input)
		return size
	}
	if space := strings.LastIndexFunc(input[:good], unicode.IsSpace); space > good/2 && l.count(input[:space]) <= l.most {
		return space
	}
	return good
}

// boundary is the beginning of the character at or before n. Bytes that are no UTF-8 count as characters.
func boundary(s string, n int) int {
	if n >= len(s) {
		return len(s)
	}
	for back := range utf8.UTFMax {
		if back <= n && utf8.RuneStart(s[n-back]) {
			return n - back
		}
	}
	return n
}
