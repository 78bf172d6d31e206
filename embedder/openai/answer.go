package openai

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// errMalformed: the answer is not what the API promises.
var errMalformed = errors.New("the answer is malformed")

// answer is what an endpoint sent.
type answer struct {
	vectors [][]float32
	indexes []int // of each vector; -1 if the endpoint gave none
	model   string
	tokens  int
	failure []byte // the value of "error" in an answer that claims to be a success
}

// ordered is the vectors in the order of the inputs.
func (a *answer) ordered() ([][]float32, error) {
	// Some servers leave the index out, and some always write 0. Both mean the order of the answer.
	first := a.indexes[0]
	if first <= 0 && !slices.ContainsFunc(a.indexes, func(index int) bool { return index != first }) {
		return a.vectors, nil
	}
	out := make([][]float32, len(a.vectors))
	for i, index := range a.indexes {
		if index < 0 || index >= len(out) || out[index] != nil {
			return nil, fmt.Errorf("the indexes of its vectors are %v", brief(a.indexes))
		}
		out[index] = a.vectors[i]
	}
	return out, nil
}

// brief is a list as it goes into a message.
func brief(all []int) string {
	if len(all) <= 8 {
		return fmt.Sprint(all)
	}
	return fmt.Sprint(all[:8]) + "…"
}

// decode reads an answer. Inputs and dim are what is expected, for the memory; what is there is what counts.
//
// It is not encoding/json because answers are nearly all numbers, which this reads five times faster, and because servers in Python write NaN.
func decode(body []byte, inputs, dim int) (answer, error) {
	var a answer
	r := reader{b: bytes.TrimPrefix(body, []byte("\ufeff"))}
	err := r.object(func(key []byte) error {
		switch string(key) {
		case "data":
			a.vectors, a.indexes = make([][]float32, 0, min(inputs, 1<<16)), make([]int, 0, min(inputs, 1<<16))
			return r.array(func() error {
				vector, index, err := r.embedding(dim)
				a.vectors, a.indexes = append(a.vectors, vector), append(a.indexes, index)
				return err
			})
		case "model":
			if r.peek() != '"' {
				return r.skip(0)
			}
			name, err := r.unescaped()
			a.model = string(name)
			return err
		case "usage":
			return r.usage(&a.tokens)
		case "error":
			start := r.at()
			if err := r.skip(0); err != nil {
				return err
			}
			if value := r.b[start:r.i]; !bytes.Equal(value, []byte("null")) {
				a.failure = slices.Clone(value)
			}
			return nil
		}
		return r.skip(0)
	})
	if err == nil && r.peek() != 0 {
		err = r.wrong("more after its end")
	}
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return a, nil
}

// reader reads JSON, and the NaN and Infinity that Python's writer adds to it.
type reader struct {
	b []byte
	i int
}

func (r *reader) wrong(what string) error {
	return fmt.Errorf("%s at byte %d of %d", what, r.i, len(r.b))
}

// at skips white space and is where the next value begins.
func (r *reader) at() int {
	for r.i < len(r.b) {
		switch r.b[r.i] {
		case ' ', '\n', '\t', '\r':
			r.i++
		default:
			return r.i
		}
	}
	return r.i
}

// peek is the first byte of what comes next; 0 at the end.
func (r *reader) peek() byte {
	if r.at() < len(r.b) {
		return r.b[r.i]
	}
	return 0
}

// take takes a byte if it comes next.
func (r *reader) take(c byte) bool {
	if r.peek() != c || r.i == len(r.b) {
		return false
	}
	r.i++
	return true
}

// object calls value for each key, to read what belongs to it.
func (r *reader) object(value func(key []byte) error) error {
	if !r.take('{') {
		return r.wrong("no object")
	}
	if r.take('}') {
		return nil
	}
	for {
		key, err := r.unescaped()
		if err != nil {
			return err
		}
		if !r.take(':') {
			return r.wrong("no value for a key")
		}
		if err := value(key); err != nil {
			return err
		}
		if r.take('}') {
			return nil
		}
		if !r.take(',') {
			return r.wrong("an object that does not go on")
		}
	}
}

// array calls value to read each value.
func (r *reader) array(value func() error) error {
	if !r.take('[') {
		return r.wrong("no array")
	}
	if r.take(']') {
		return nil
	}
	for {
		if err := value(); err != nil {
			return err
		}
		if r.take(']') {
			return nil
		}
		if !r.take(',') {
			return r.wrong("an array that does not go on")
		}
	}
}

// raw is a string's bytes between the quotes, as they stand, and whether there are escapes in it.
func (r *reader) raw() (text []byte, escaped bool, err error) {
	if !r.take('"') {
		return nil, false, r.wrong("no string")
	}
	start := r.i
	for {
		end := bytes.IndexByte(r.b[r.i:], '"')
		if end < 0 {
			return nil, false, r.wrong("a string without end")
		}
		slash := bytes.IndexByte(r.b[r.i:r.i+end], '\\')
		if slash < 0 {
			r.i += end + 1
			return r.b[start : r.i-1], escaped, nil
		}
		escaped = true
		if r.i += slash + 2; r.i > len(r.b) {
			return nil, false, r.wrong("a string without end")
		}
	}
}

// unescaped is a string's bytes.
func (r *reader) unescaped() ([]byte, error) {
	text, escaped, err := r.raw()
	if err != nil || !escaped {
		return text, err
	}
	var out string
	if err := json.Unmarshal(r.b[r.i-len(text)-2:r.i], &out); err != nil {
		return nil, r.wrong("a string that is none")
	}
	return []byte(out), nil
}

// maxDepth bounds what is nested in values that are skipped.
const maxDepth = 64

// skip passes over a value.
func (r *reader) skip(depth int) error {
	if depth > maxDepth {
		return r.wrong("nested too deeply")
	}
	switch r.peek() {
	case '{':
		return r.object(func([]byte) error { return r.skip(depth + 1) })
	case '[':
		return r.array(func() error { return r.skip(depth + 1) })
	case '"':
		_, _, err := r.raw()
		return err
	}
	word := r.word()
	switch string(word) {
	case "true", "false", "null", "NaN", "Infinity", "-Infinity":
		return nil
	}
	if _, err := strconv.ParseFloat(string(word), 64); err != nil && !errors.Is(err, strconv.ErrRange) {
		return r.wrong("no value")
	}
	return nil
}

// word is a number or a literal.
func (r *reader) word() []byte {
	start := r.at()
	for r.i < len(r.b) {
		switch c := r.b[r.i]; {
		case '0' <= c && c <= '9' || c == '.' || c == '-' || c == '+' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
			r.i++
		default:
			return r.b[start:r.i]
		}
	}
	return r.b[start:r.i]
}

// whole reads a number that should be whole; -1 for anything else.
func (r *reader) whole() (int, error) {
	start := r.at()
	if err := r.skip(0); err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(string(r.b[start:r.i]))
	if err != nil || n < 0 {
		return -1, nil
	}
	return n, nil
}

// usage reads the tokens that were charged for: prompt_tokens, or total_tokens where there is nothing else.
func (r *reader) usage(tokens *int) error {
	if r.peek() != '{' {
		return r.skip(0)
	}
	prompt, total := -1, -1
	err := r.object(func(key []byte) (err error) {
		switch string(key) {
		case "prompt_tokens":
			prompt, err = r.whole()
		case "total_tokens":
			total, err = r.whole()
		default:
			err = r.skip(0)
		}
		return err
	})
	if *tokens = prompt; prompt <= 0 {
		*tokens = max(total, 0)
	}
	return err
}

// embedding reads one of data.
func (r *reader) embedding(dim int) (vector []float32, index int, err error) {
	index = -1
	err = r.object(func(key []byte) (err error) {
		switch string(key) {
		case "embedding":
			if r.peek() == '"' {
				vector, err = r.packed()
			} else {
				vector, err = r.numbers(dim)
			}
		case "index":
			index, err = r.whole()
		default:
			err = r.skip(0)
		}
		return err
	})
	return vector, index, err
}

// packed reads little-endian float32 in base64.
func (r *reader) packed() ([]float32, error) {
	text, err := r.unescaped()
	if err != nil {
		return nil, err
	}
	encoding := base64.StdEncoding
	if len(text)%4 != 0 {
		encoding = base64.RawStdEncoding
	}
	// Decoded in pieces that need no memory of their own: 4 characters are 3 bytes, and 16 are 3 numbers.
	var piece [768]byte
	vector := make([]float32, 0, encoding.DecodedLen(len(text))/4)
	for len(text) > 0 {
		part := text[:min(len(text), len(piece)/3*4)]
		text = text[len(part):]
		n, err := encoding.Decode(piece[:], part)
		if err != nil || n%4 != 0 {
			return nil, r.wrong("base64 that holds no vector")
		}
		for i := 0; i < n; i += 4 {
			vector = append(vector, math.Float32frombits(binary.LittleEndian.Uint32(piece[i:])))
		}
	}
	return vector, nil
}

// numbers reads an array of numbers. What stands for a number that is none becomes NaN, so that its input can be named.
func (r *reader) numbers(dim int) ([]float32, error) {
	vector := make([]float32, 0, min(dim, unknownDim))
	err := r.array(func() error {
		x, err := r.number()
		vector = append(vector, x)
		return err
	})
	return vector, err
}

// tens are the powers of ten that float64 has exactly.
var tens = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// number reads one, rounded as strconv does it. Digits that make a whole number below 2^53, times a power of ten up to 22 (Clinger, "How to Read Floating Point Numbers Accurately",
// 1990), are one multiplication or division away, which rounds once to float64. Rounding that to float32 is the same as rounding once, unless it lies exactly between two.
func (r *reader) number() (float32, error) {
	start := r.at()
	i, b := start, r.b
	negative := i < len(b) && b[i] == '-'
	if negative {
		i++
	}
	digits, point := i, -1
	var mantissa uint64
	for ; i < len(b); i++ {
		if c := b[i] - '0'; c <= 9 {
			mantissa = 10*mantissa + uint64(c)
		} else if b[i] == '.' && point < 0 && i > digits {
			point = i
		} else {
			break
		}
	}
	fraction := 0
	count := i - digits
	if point >= 0 {
		fraction = i - point - 1
		count--
	}
	plain := i < len(b) && (b[i] == ',' || b[i] == ']' || b[i] == ' ' || b[i] == '\n')
	if plain && count > 0 && count < 19 && mantissa < 1<<53 && fraction < len(tens) {
		x := float64(mantissa) / tens[fraction]
		const below = 1<<29 - 1 // the bits that float32 does not have
		if math.Float64bits(x)&below != 1<<28 && (x >= 0x1p-126 || mantissa == 0) {
			r.i = i
			if negative {
				x = -x
			}
			return float32(x), nil
		}
	}
	word := r.word()
	x, err := strconv.ParseFloat(string(word), 32)
	switch {
	case err == nil:
	case errors.Is(err, strconv.ErrRange):
		x = math.Inf(1)
	case string(word) == "null":
		x = math.NaN()
	default:
		return 0, r.wrong("no number")
	}
	return float32(x), nil
}
