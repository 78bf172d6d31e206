package simd

var forwardVNNI = forward{
	maxAbs: func(x []float32) float32 { return maxAbsAVX512(&x[0], len(x)) },
	encode: func(codes []int16, x []float32, inverse float32) { encodeVNNI(&codes[0], &x[0], inverse, len(x)) },
	mul: func(dst []float32, stride int, codes []int16, scales []float32, m *Matrix, p int) {
		at := p * panel
		mulVNNI(&dst[0], stride, &codes[0], &scales[0], len(scales), m.inputs, &m.codes[at*m.inputs], &m.scales[at], &m.bias[at], &m.offsets[at])
	},
	product: func(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, k int) {
		productAVX512(&c[0], ldc, &a[0], lda, &b[0], ldb, m, k)
	},
	softmax: func(x []float32, stride, n int) { softmaxAVX512(&x[0], stride, n, len(x)/stride) },
	gelu:    func(x []float32) { geluAVX512(&x[0], len(x)) },
	addNorm: func(x, y, gain, bias []float32) { addNormAVX512(&x[0], &y[0], &gain[0], &bias[0], len(x)) },
}

//go:noescape
func maxAbsAVX512(x *float32, n int) float32

//go:noescape
func encodeVNNI(codes *int16, x *float32, inverse float32, n int)

//go:noescape
func mulVNNI(dst *float32, stride int, codes *int16, scales *float32, rows, inputs int, weights *int8, scale, bias *float32, offsets *int32)

//go:noescape
func productAVX512(c *float32, ldc int, a *float32, lda int, b *float32, ldb int, m, k int)

//go:noescape
func softmaxAVX512(x *float32, stride, n, rows int)

//go:noescape
func geluAVX512(x *float32, n int)

//go:noescape
func addNormAVX512(x, y, gain, bias *float32, n int)
