package simd

import "golang.org/x/sys/cpu"

func native() (kernels []kernel) {
	avx2 := cpu.X86.HasAVX2 && cpu.X86.HasFMA
	avx512 := avx2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ
	if avx512 && cpu.X86.HasAVX512VNNI {
		kernels = append(kernels, kernel{
			name: "avx512vnni",
			scan: func(out []int32, query, codes []int8) {
				scanVNNI(&out[0], &query[0], &codes[0], len(query), len(out), bias(query))
			},
			gather: func(out []int32, query, codes []int8, rows []uint32) {
				gatherVNNI(&out[0], &query[0], &codes[0], &rows[0], len(query), len(out), bias(query))
			},
			dot:     func(a, b []float32) float32 { return dotAVX512(&a[0], &b[0], len(a)) },
			forward: forwardVNNI,
		})
	}
	if avx512 {
		kernels = append(kernels, kernel{
			name: "avx512", scan: scan256, gather: gather256,
			dot:     func(a, b []float32) float32 { return dotAVX512(&a[0], &b[0], len(a)) },
			forward: forwardAVX512,
		})
	}
	if avx2 && cpu.X86.HasAVXVNNI {
		kernels = append(kernels, kernel{name: "avxvnni", scan: scan256, gather: gather256, dot: dot256, forward: forwardAVXVNNI})
	}
	if avx2 {
		kernels = append(kernels, kernel{
			name: "avx2", scan: scan256, gather: gather256,
			dot:     dot256,
			forward: forwardAVX2,
		})
	}
	return kernels
}

func dot256(a, b []float32) float32 {
	n := len(a) &^ 7
	s := dotAVX2(&a[0], &b[0], n)
	for i := n; i < len(a); i++ {
		s += a[i] * b[i]
	}
	return s
}

func scan256(out []int32, query, codes []int8) {
	scanAVX2(&out[0], &query[0], &codes[0], len(query), len(out))
	addTails(out, query, codes)
}

func gather256(out []int32, query, codes []int8, rows []uint32) {
	gatherAVX2(&out[0], &query[0], &codes[0], &rows[0], len(query), len(out))
	addTailsAt(out, query, codes, rows)
}

// bias is what a dot product comes out too large by when 128 is added to each code: VPDPBUSD multiplies unsigned by signed numbers.
func bias(query []int8) int32 {
	var s int32
	for _, c := range query {
		s += int32(c)
	}
	return 128 * s
}

//go:noescape
func scanVNNI(out *int32, query, codes *int8, dim, n int, bias int32)

//go:noescape
func gatherVNNI(out *int32, query, codes *int8, rows *uint32, dim, n int, bias int32)

//go:noescape
func dotAVX512(a, b *float32, n int) float32

// scanAVX2 leaves out the last dim%16 components.
//
//go:noescape
func scanAVX2(out *int32, query, codes *int8, dim, n int)

// gatherAVX2 leaves out the last dim%16 components.
//
//go:noescape
func gatherAVX2(out *int32, query, codes *int8, rows *uint32, dim, n int)

// dotAVX2 needs n to be a multiple of 8.
//
//go:noescape
func dotAVX2(a, b *float32, n int) float32
