package simd

var (
	forwardDotprod = forward{
		maxAbs: maxAbs128,
		encode: func(codes []int16, x []float32, inverse float32) {
			encodeDotprod(&codes[0], &x[0], inverse, len(x))
		},
		mul: func(dst []float32, stride int, codes []int16, scales []float32, m *Matrix, p int) {
			at := p * panel
			mulDotprod(&dst[0], stride, &codes[0], &scales[0], len(scales), m.inputs, &m.codes[at*m.inputs], &m.scales[at], &m.bias[at])
		},
		product: product128, softmax: softmax128, gelu: gelu128, addNorm: addNorm128,
	}
	forwardNEON = forward{
		maxAbs: maxAbs128,
		encode: func(codes []int16, x []float32, inverse float32) { encodeNEON(&codes[0], &x[0], inverse, len(x)) },
		mul: func(dst []float32, stride int, codes []int16, scales []float32, m *Matrix, p int) {
			at := p * panel
			mulNEON(&dst[0], stride, &codes[0], &scales[0], len(scales), m.inputs, &m.codes[at*m.inputs], &m.scales[at], &m.bias[at])
		},
		product: product128, softmax: softmax128, gelu: gelu128, addNorm: addNorm128,
	}
)

func maxAbs128(x []float32) float32 { return maxAbsNEON(&x[0], len(x)) }

func product128(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, k int) {
	productNEON(&c[0], ldc, &a[0], lda, &b[0], ldb, m, k)
}

func softmax128(x []float32, stride, n int) { softmaxNEON(&x[0], stride, n, len(x)/stride) }

func gelu128(x []float32) { geluNEON(&x[0], len(x)) }

func addNorm128(x, y, gain, bias []float32) { addNormNEON(&x[0], &y[0], &gain[0], &bias[0], len(x)) }

//go:noescape
func maxAbsNEON(x *float32, n int) float32

//go:noescape
func encodeDotprod(codes *int16, x *float32, inverse float32, n int)

//go:noescape
func encodeNEON(codes *int16, x *float32, inverse float32, n int)

//go:noescape
func mulDotprod(dst *float32, stride int, codes *int16, scales *float32, rows, inputs int, weights *int8, scale, bias *float32)

//go:noescape
func mulNEON(dst *float32, stride int, codes *int16, scales *float32, rows, inputs int, weights *int8, scale, bias *float32)

//go:noescape
func productNEON(c *float32, ldc int, a *float32, lda int, b *float32, ldb int, m, k int)

//go:noescape
func softmaxNEON(x *float32, stride, n, rows int)

//go:noescape
func geluNEON(x *float32, n int)

//go:noescape
func addNormNEON(x, y, gain, bias *float32, n int)
