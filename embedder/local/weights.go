package local

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"unsafe"

	"github.com/liverag/liverag/internal/simd"
)

// weights are a transformer's, as make-minilm.py writes them. Numbers of 8 bits stay in the file's memory.
type weights struct {
	tokens, positions, width, hidden, heads int

	tokenScales []float32 // [tokens]
	tokenCodes  []int8    // [tokens][width]
	places      []float32 // [positions][width]: what a token's place and its type add
	norm        norm
	layers      []layer
}

type layer struct {
	qkv, out, up, down *simd.Matrix
	outNorm, downNorm  norm
}

type norm struct{ gain, bias []float32 }

// token writes a token's embedding.
func (w *weights) token(x []float32, id uint16) {
	scale := w.tokenScales[id]
	for i, c := range w.tokenCodes[int(id)*w.width:][:len(x)] {
		x[i] = float32(c) * scale
	}
}

const (
	weightsMagic   = "LRM1"
	weightsVersion = 1
	// weightsAlign is what sections begin at a multiple of; the header takes the first.
	weightsAlign = 64
)

// readWeights reads a file that stays in memory as long as the weights.
func readWeights(file string) (*weights, error) {
	raw := unsafe.Slice(unsafe.StringData(file), len(file))
	if len(raw) < weightsAlign || string(raw[:4]) != weightsMagic {
		return nil, errors.New("the weights do not begin with " + weightsMagic)
	}
	var header [8]int
	for i := range header {
		header[i] = int(binary.LittleEndian.Uint32(raw[4+4*i:]))
	}
	if header[0] != weightsVersion {
		return nil, fmt.Errorf("the weights are of version %d, want %d", header[0], weightsVersion)
	}
	if sum := crc32.ChecksumIEEE(raw[weightsAlign:]); sum != uint32(header[1]) {
		return nil, fmt.Errorf("the weights' checksum is %08x, the header has %08x", sum, header[1])
	}
	w := &weights{tokens: header[2], positions: header[3], width: header[4], hidden: header[5], heads: header[7]}
	if w.width != w.heads*headWidth || w.hidden%32 != 0 || w.width%32 != 0 {
		return nil, fmt.Errorf("weights of width %d and %d, with %d heads, are not for these kernels", w.width, w.hidden, w.heads)
	}
	s := sections{left: raw[weightsAlign:]}
	w.tokenScales, w.tokenCodes = s.floats(w.tokens), s.codes(w.tokens*w.width)
	placeScales, placeCodes := s.floats(w.positions), s.codes(w.positions*w.width)
	kind := s.floats(w.width)
	w.norm = s.norm(w.width)
	// Attention takes powers of two, of products scaled by the root of the head's width: both go into the query's weights.
	query := float32(math.Log2E / math.Sqrt(headWidth))
	for range header[6] {
		var l layer
		l.qkv = s.matrix(3*w.width, w.width, w.width, query)
		l.out = s.matrix(w.width, w.width, 0, 1)
		l.outNorm = s.norm(w.width)
		l.up = s.matrix(w.hidden, w.width, 0, 1)
		l.down = s.matrix(w.width, w.hidden, 0, 1)
		l.downNorm = s.norm(w.width)
		w.layers = append(w.layers, l)
	}
	if s.short || len(s.left) > 0 {
		return nil, fmt.Errorf("weights of %d bytes don't fit their header", len(raw))
	}
	w.places = make([]float32, len(placeCodes))
	for i, c := range placeCodes {
		w.places[i] = float32(c)*placeScales[i/w.width] + kind[i%w.width]
	}
	return w, nil
}

// sections are read one after the other.
type sections struct {
	left  []byte
	short bool // one was missing; all that was read is worthless
}

func (s *sections) next(n int) []byte {
	padded := (n + weightsAlign - 1) &^ (weightsAlign - 1)
	if s.short || n < 0 || padded > len(s.left) {
		s.short = true
		return make([]byte, max(n, 0))
	}
	section := s.left[:n]
	s.left = s.left[padded:]
	return section
}

func (s *sections) floats(n int) []float32 {
	out := make([]float32, n)
	for i, raw := 0, s.next(4*n); i < n; i++ {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
	}
	return out
}

// codes is the file's memory: an int8 is as good as a byte to unsafe, and the binary's read-only pages serve as they are.
func (s *sections) codes(n int) []int8 {
	return unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(s.next(n)))), n)
}

func (s *sections) norm(width int) norm {
	return norm{gain: s.floats(width), bias: s.floats(width)}
}

// matrix reads a matrix and multiplies its first outputs by a factor.
func (s *sections) matrix(outputs, inputs, first int, factor float32) *simd.Matrix {
	scales, bias := s.floats(outputs), s.floats(outputs)
	for i := range first {
		scales[i] *= factor
		bias[i] *= factor
	}
	return simd.NewMatrix(outputs, inputs, s.codes(outputs*inputs), scales, bias)
}
