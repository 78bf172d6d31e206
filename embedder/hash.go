package embedder

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Hash embeds by hashing words: no model, no weights, next to no time. It is for measuring and testing the system around a model;
// what it finds is what shares words with the question.
//
// Every word is hashed to one of Dim counters and to a sign (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009) and counted there
// with the number of its letters up to eight, since short words are the common ones (Zipf). A counter's square root is kept, which damps what
// comes often, and the vector is scaled to unit length. Counting is in integers, so the result is the same on every machine.
type Hash struct {
	dim  int
	name string
	free sync.Pool
}

// NewHash makes the model hash/<dim>. dim must be at least 1; 384 is the usual one.
func NewHash(dim int) *Hash {
	if dim < 1 {
		panic(fmt.Sprintf("embedder: NewHash(%d): the dimension must be at least 1", dim))
	}
	h := &Hash{dim: dim, name: fmt.Sprintf("hash/%d", dim)}
	h.free.New = func() any { c := make([]int64, dim); return &c }
	return h
}

// Name is hash/<dim>.
func (h *Hash) Name() string { return h.name }

// Dim is the number of counters.
func (h *Hash) Dim() int { return h.dim }

// MaxInput is 0: every word counts.
func (h *Hash) MaxInput() int { return 0 }

// CountTokens is the number of words and symbols.
func (h *Hash) CountTokens(input string) int {
	n := 0
	eachWord(input, func(uint64, int) { n++ })
	return n
}

// Embed hashes the inputs. The role makes no difference. It fails only when ctx has ended.
func (h *Hash) Embed(ctx context.Context, _ Role, inputs []string) ([][]float32, error) {
	counters := h.free.Get().(*[]int64)
	defer h.free.Put(counters)
	all := make([]float32, len(inputs)*h.dim)
	out := make([][]float32, len(inputs))
	for i, input := range inputs {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", h.name, err)
		}
		out[i] = all[i*h.dim : (i+1)*h.dim : (i+1)*h.dim]
		h.embed(out[i], *counters, input)
	}
	return out, nil
}

// maxWeight is from how many bytes on a longer word weighs no more.
const maxWeight = 8

func (h *Hash) embed(vector []float32, counters []int64, input string) {
	if strings.TrimSpace(input) == "" {
		return
	}
	if !h.count(counters, input, true) {
		// The signs cancelled out, as they can for two words in one counter. Without signs nothing can.
		h.count(counters, input, false)
	}
	var total float64
	for _, c := range counters {
		total += math.Abs(float64(c)) // the square of the root
	}
	scale := 1 / math.Sqrt(total)
	for i, c := range counters {
		if c == 0 {
			continue
		}
		v := math.Sqrt(math.Abs(float64(c))) * scale
		if c < 0 {
			v = -v
		}
		vector[i] = float32(v)
	}
}

// count fills the counters from zero and says whether any is left above or below zero.
func (h *Hash) count(counters []int64, input string, signed bool) bool {
	clear(counters)
	dim := uint64(h.dim)
	add := func(hash uint64, weight int64) {
		hash = mix(hash)
		if signed && hash&1 != 0 {
			weight = -weight
		}
		// The high half times dim, over 2^32: a bucket without a division (Lemire, "Fast Random Integer Generation in an Interval", 2019).
		counters[(hash>>32)*dim>>32] += weight
	}
	eachWord(input, func(word uint64, size int) { add(word, int64(min(size, maxWeight))) })
	for _, c := range counters {
		if c != 0 {
			return true
		}
	}
	return false
}

// FNV-1a, by Fowler, Noll and Vo.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// mix spreads the entropy of FNV's low bits over all of them (the finaliser of MurmurHash3, by Appleby).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// asciiWord is the lower-cased byte of ASCII letters and digits, and 0 for all others.
var asciiWord = func() (t [256]byte) {
	for c := '0'; c <= '9'; c++ {
		t[c] = byte(c)
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] = byte(c)
		t[c-'a'+'A'] = byte(c)
	}
	return t
}()

// eachWord calls f with the hash and the bytes of each word (a run of letters, marks and digits, lower-cased) and of each symbol.
func eachWord(input string, f func(hash uint64, size int)) {
	h := uint64(fnvOffset)
	in := 0 // bytes of the word so far
	end := func() {
		if in > 0 {
			f(h, in)
			h, in = fnvOffset, 0
		}
	}
	for i := 0; i < len(input); {
		c := input[i]
		if low := asciiWord[c]; low != 0 {
			h = (h ^ uint64(low)) * fnvPrime
			in++
			i++
			continue
		}
		if c == ' ' || c == '\n' {
			end()
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(input[i:])
		i += size
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r):
			r = unicode.ToLower(r)
			var b [utf8.UTFMax]byte
			for _, c := range b[:utf8.EncodeRune(b[:], r)] {
				h = (h ^ uint64(c)) * fnvPrime
				in++
			}
		case unicode.IsSpace(r):
			end()
		default:
			end()
			h, in = (h^uint64(r))*fnvPrime, 1
			end()
		}
	}
	end()
}
