// Package simd holds the few loops that the time goes into: dot products of int8 codes and of float32 vectors, for searching, and those of a transformer's forward pass.
//
// Each has a kernel in assembly for what the CPU has (AVX-512 with and without VNNI, AVX2 with and without it, arm64 with and without the dot product
// instructions) and one in Go, which the others are tested against. The choice is made once, when the program starts;
// LIVERAG_SIMD names another one (a name from [Kernels]), for tests and for finding out whether a kernel is to blame.
package simd

import (
	"fmt"
	"math"
	"os"
	"strings"
)

// kernel is one implementation of every loop. Lengths have been checked by the callers.
type kernel struct {
	name string
	// scan sets out[i] to the dot product of query and row i of codes.
	scan func(out []int32, query, codes []int8)
	// gather sets out[i] to the dot product of query and row rows[i] of codes.
	gather func(out []int32, query, codes []int8, rows []uint32)
	dot    func(a, b []float32) float32
	forward
}

// available lists what this CPU can run, fastest first; the last one is pure Go.
var available = append(native(), kernel{name: "go", scan: scanGo, gather: gatherGo, dot: dotGo, forward: forwardGo})

var active = choose(os.Getenv("LIVERAG_SIMD"))

func choose(name string) *kernel {
	if name == "" {
		return &available[0]
	}
	for i := range available {
		if available[i].name == name {
			return &available[i]
		}
	}
	panic(fmt.Sprintf("LIVERAG_SIMD=%s: this CPU can run %s", name, strings.Join(Kernels(), ", ")))
}

// Kernel names the implementation in use: avx512vnni, avx512, avxvnni, avx2, dotprod, neon or go.
func Kernel() string { return active.name }

// Kernels names every implementation that this CPU can run, fastest first.
func Kernels() []string {
	names := make([]string, len(available))
	for i := range available {
		names[i] = available[i].name
	}
	return names
}

// Use changes the implementation in use to one of [Kernels], and returns a function that changes it back. It is meant for tests and benchmarks:
// nothing else may run at the same time.
func Use(name string) (restore func()) {
	before := active
	active = choose(name)
	return func() { active = before }
}

// Scan sets out[i] to the dot product of query and row i of codes. The rows have query's length and follow each other:
// codes holds at least [len(out)][len(query)]. Codes are between -127 and 127, as [Quantize] makes them.
func Scan(out []int32, query, codes []int8) {
	if len(codes) < len(out)*len(query) {
		panic("simd: fewer codes than rows asked for")
	}
	if len(out) == 0 {
		return
	}
	if len(query) == 0 {
		clear(out)
		return
	}
	active.scan(out, query, codes)
}

// Gather sets out[i] to the dot product of query and row rows[i] of codes. See [Scan].
func Gather(out []int32, query, codes []int8, rows []uint32) {
	if len(out) != len(rows) {
		panic("simd: as many results as rows are needed")
	}
	if len(rows) == 0 {
		return
	}
	if len(query) == 0 {
		clear(out)
		return
	}
	// The kernels trust the numbers, so a bad one must stop here.
	last := uint32(min(len(codes)/len(query), math.MaxUint32))
	for _, r := range rows {
		if r >= last {
			panic("simd: a row beyond the codes")
		}
	}
	active.gather(out, query, codes, rows)
}

// Dot returns the dot product of two vectors of one length. Kernels add in different orders, so results differ in the last digits.
func Dot(a, b []float32) float32 {
	if len(a) != len(b) {
		panic("simd: vectors of different lengths")
	}
	if len(a) == 0 {
		return 0
	}
	return active.dot(a, b)
}

// Quantize writes v as codes between -127 and 127, symmetric and with one scale for the whole vector: v[i] is about codes[i]*scale.
// A vector of zeros has scale 0. It is exact to half a step, scale/2, in each component.
func Quantize(codes []int8, v []float32) (scale float32) {
	codes = codes[:len(v)]
	var most float32
	for _, x := range v {
		if x < 0 {
			x = -x
		}
		if x > most {
			most = x
		}
	}
	scale = most / 127
	if scale == 0 { // zeros, or numbers too small to divide
		clear(codes)
		return 0
	}
	inverse := 127 / most
	if inverse > math.MaxFloat32 {
		clear(codes)
		return 0
	}
	for i, x := range v {
		// Adding 1.5*2^23 rounds to the nearest integer and leaves it in the low bits of the sum.
		const magic = 3 << 22
		codes[i] = int8(int32(math.Float32bits(x*inverse+magic)) - 0x4b400000)
	}
	return scale
}

func scanGo(out []int32, query, codes []int8) {
	dim := len(query)
	for i := range out {
		out[i] = dotI8(query, codes[i*dim:(i+1)*dim])
	}
}

func gatherGo(out []int32, query, codes []int8, rows []uint32) {
	dim := len(query)
	for i, r := range rows {
		out[i] = dotI8(query, codes[int(r)*dim:(int(r)+1)*dim])
	}
}

// dotI8 keeps four sums, so that an addition need not wait for the one before.
func dotI8(a, b []int8) int32 {
	b = b[:len(a)]
	var s0, s1, s2, s3 int32
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += int32(a[i]) * int32(b[i])
		s1 += int32(a[i+1]) * int32(b[i+1])
		s2 += int32(a[i+2]) * int32(b[i+2])
		s3 += int32(a[i+3]) * int32(b[i+3])
	}
	for ; i < len(a); i++ {
		s0 += int32(a[i]) * int32(b[i])
	}
	return s0 + s1 + s2 + s3
}

func dotGo(a, b []float32) float32 {
	b = b[:len(a)]
	var s0, s1, s2, s3 float32
	i := 0
	for ; i+4 <= len(a); i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return s0 + s1 + s2 + s3
}
