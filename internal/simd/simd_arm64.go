package simd

import "golang.org/x/sys/cpu"

func native() (kernels []kernel) {
	if !cpu.ARM64.HasASIMD {
		return nil
	}
	if cpu.ARM64.HasASIMDDP {
		kernels = append(kernels, kernel{
			name: "dotprod",
			scan: func(out []int32, query, codes []int8) {
				scanDotprod(&out[0], &query[0], &codes[0], len(query), len(out))
				addTails(out, query, codes)
			},
			gather: func(out []int32, query, codes []int8, rows []uint32) {
				gatherDotprod(&out[0], &query[0], &codes[0], &rows[0], len(query), len(out))
				addTailsAt(out, query, codes, rows)
			},
			dot: dotWithTail, forward: forwardDotprod,
		})
	}
	return append(kernels, kernel{
		name: "neon",
		scan: func(out []int32, query, codes []int8) {
			scanNEON(&out[0], &query[0], &codes[0], len(query), len(out))
			addTails(out, query, codes)
		},
		gather: func(out []int32, query, codes []int8, rows []uint32) {
			gatherNEON(&out[0], &query[0], &codes[0], &rows[0], len(query), len(out))
			addTailsAt(out, query, codes, rows)
		},
		dot: dotWithTail, forward: forwardNEON,
	})
}

func dotWithTail(a, b []float32) float32 {
	n := len(a) &^ 3
	s := dotNEON(&a[0], &b[0], n)
	for i := n; i < len(a); i++ {
		s += a[i] * b[i]
	}
	return s
}

// The int8 kernels leave out the last dim%16 components.

//go:noescape
func scanDotprod(out *int32, query, codes *int8, dim, n int)

//go:noescape
func gatherDotprod(out *int32, query, codes *int8, rows *uint32, dim, n int)

//go:noescape
func scanNEON(out *int32, query, codes *int8, dim, n int)

//go:noescape
func gatherNEON(out *int32, query, codes *int8, rows *uint32, dim, n int)

// dotNEON needs n to be a multiple of 4.
//
//go:noescape
func dotNEON(a, b *float32, n int) float32
