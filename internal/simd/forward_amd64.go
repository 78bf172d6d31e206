package simd

var (
	forwardVNNI = forward{
		maxAbs: maxAbs512,
		encode: func(codes []int16, x []float32, inverse float32) { encodeVNNI(&codes[0], &x[0], inverse, len(x)) },
		mul: func(dst []float32, stride int, codes []int16, scales []float32, m *Matrix, p int) {
			at := p * panel
			mulVNNI(&dst[0], stride, &codes[0], &scales[0], len(scales), m.inputs, &m.codes[at*m.inputs], &m.scales[at], &m.bias[at], &m.offsets[at])
		},
		product: product512, softmax: softmax512, gelu: gelu512, addNorm: addNorm512,
	}
	forwardAVX512 = forward{
		maxAbs: maxAbs512,
		encode: func(codes []int16, x []float32, inverse float32) { encodeAVX512(&codes[0], &x[0], inverse, len(x)) },
		mul: func(dst []float32, stride int, codes []int16, scales []float32, m *Matrix, p int) {
			at := p * panel
			mulAVX512(&dst[0], stride, &codes[0], &scales[0], len(scales), m.inputs, &m.codes[at*m.inputs], &m.scales[at], &m.bias[at])
		},
		product: product512, softmax: softmax512, gelu: gelu512, addNorm: addNorm512,
	}
	forwardAVXVNNI = forward{
		maxAbs: maxAbs256, encode: encode256,
		mul: func(dst []float32, stride int, codes []int16, scales []float32, m *Matrix, p int) {
			at := p * panel
			mulAVXVNNI(&dst[0], stride, &codes[0], &scales[0], len(scales), m.inputs, &m.codes[at*m.inputs], &m.scales[at], &m.bias[at])
		},
		product: product256, softmax: softmax256, gelu: gelu256, addNorm: addNorm256,
	}
	forwardAVX2 = forward{
		maxAbs: maxAbs256, encode: encode256,
		mul: func(dst []float32, stride int, codes []int16, scales []float32, m *Matrix, p int) {
			at := p * panel
			mulAVX2(&dst[0], stride, &codes[0], &scales[0], len(scales), m.inputs, &m.codes[at*m.inputs], &m.scales[at], &m.bias[at])
		},
		product: product256, softmax: softmax256, gelu: gelu256, addNorm: addNorm256,
	}
)

func maxAbs512(x []float32) float32 { return maxAbsAVX512(&x[0], len(x)) }

func product512(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, k int) {
	productAVX512(&c[0], ldc, &a[0], lda, &b[0], ldb, m, k)
}

func softmax512(x []float32, stride, n int) { softmaxAVX512(&x[0], stride, n, len(x)/stride) }

func gelu512(x []float32) { geluAVX512(&x[0], len(x)) }

func addNorm512(x, y, gain, bias []float32) {
	addNormAVX512(&x[0], &y[0], &gain[0], &bias[0], len(x))
}

func maxAbs256(x []float32) float32 { return maxAbsAVX2(&x[0], len(x)) }

func encode256(codes []int16, x []float32, inverse float32) {
	encodeAVX2(&codes[0], &x[0], inverse, len(x))
}

func product256(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, k int) {
	productAVX2(&c[0], ldc, &a[0], lda, &b[0], ldb, m, k)
}

func softmax256(x []float32, stride, n int) { softmaxAVX2(&x[0], stride, n, len(x)/stride) }

func gelu256(x []float32) { geluAVX2(&x[0], len(x)) }

func addNorm256(x, y, gain, bias []float32) {
	addNormAVX2(&x[0], &y[0], &gain[0], &bias[0], len(x))
}

//go:noescape
func maxAbsAVX512(x *float32, n int) float32

//go:noescape
func encodeVNNI(codes *int16, x *float32, inverse float32, n int)

//go:noescape
func encodeAVX512(codes *int16, x *float32, inverse float32, n int)

//go:noescape
func mulVNNI(dst *float32, stride int, codes *int16, scales *float32, rows, inputs int, weights *int8, scale, bias *float32, offsets *int32)

//go:noescape
func mulAVX512(dst *float32, stride int, codes *int16, scales *float32, rows, inputs int, weights *int8, scale, bias *float32)

//go:noescape
func productAVX512(c *float32, ldc int, a *float32, lda int, b *float32, ldb int, m, k int)

//go:noescape
func softmaxAVX512(x *float32, stride, n, rows int)

//go:noescape
func geluAVX512(x *float32, n int)

//go:noescape
func addNormAVX512(x, y, gain, bias *float32, n int)

//go:noescape
func maxAbsAVX2(x *float32, n int) float32

//go:noescape
func encodeAVX2(codes *int16, x *float32, inverse float32, n int)

//go:noescape
func mulAVX2(dst *float32, stride int, codes *int16, scales *float32, rows, inputs int, weights *int8, scale, bias *float32)

//go:noescape
func mulAVXVNNI(dst *float32, stride int, codes *int16, scales *float32, rows, inputs int, weights *int8, scale, bias *float32)

//go:noescape
func productAVX2(c *float32, ldc int, a *float32, lda int, b *float32, ldb int, m, k int)

//go:noescape
func softmaxAVX2(x *float32, stride, n, rows int)

//go:noescape
func geluAVX2(x *float32, n int)

//go:noescape
func addNormAVX2(x, y, gain, bias *float32, n int)
