package simd

import (
	"fmt"
	"math"
)

// The loops of a transformer's forward pass. Weights are int8 with a scale for each output; activations are quantised to 16 bits, with a scale for each row, just before they
// meet weights. Products of the two are summed as integers, so every kernel finds the same sum; a row's results do not depend on the rows beside it. All else is float32.

// panel is how many outputs of a [Matrix] are computed together.
const panel = 32

// maxCode is the largest code of an activation: its bytes, low and high, both fit an int8, which some kernels multiply.
const maxCode = 127<<8 + 127

// Matrix is the weights of a linear layer: output j of a row x is Σ x[i]·codes[j][i]·scales[j] + bias[j].
type Matrix struct {
	outputs, inputs int
	codes           []int8 // [outputs/32][inputs/4][32][4]
	scales, bias    []float32
	// offsets are -128 × the sum of an output's codes: the kernels that take activations as unsigned bytes begin with it.
	offsets []int32
	// most is the largest code of an activation with which no sum overflows an int32.
	most int32
}

// NewMatrix describes weights that lie in memory as [outputs/32][inputs/4][32][4]: 32 outputs at a time, four inputs of each beside each other. Codes are between -127 and 127. Outputs are a
// multiple of 32, inputs one of 32 up to 2^17. Nothing is copied.
func NewMatrix(outputs, inputs int, codes []int8, scales, bias []float32) *Matrix {
	if outputs <= 0 || outputs%panel != 0 || inputs <= 0 || inputs%32 != 0 || inputs > 1<<17 {
		panic(fmt.Sprintf("simd: a matrix of %d × %d", outputs, inputs))
	}
	if len(codes) != outputs*inputs || len(scales) != outputs || len(bias) != outputs {
		panic("simd: codes, scales and bias of another matrix")
	}
	m := &Matrix{outputs: outputs, inputs: inputs, codes: codes, scales: scales, bias: bias, offsets: make([]int32, outputs), most: largestCode(inputs)}
	for p := range outputs / panel {
		offsets := m.offsets[p*panel:][:panel]
		block := codes[p*panel*inputs:][:panel*inputs]
		for ; len(block) > 0; block = block[4*panel:] {
			four := block[:4*panel]
			for j := range offsets {
				offsets[j] -= 128 * (int32(four[4*j]) + int32(four[4*j+1]) + int32(four[4*j+2]) + int32(four[4*j+3]))
			}
		}
	}
	return m
}

// largestCode is the largest code of an activation that can be summed over that many inputs.
func largestCode(inputs int) int32 {
	return int32(min(maxCode, math.MaxInt32/(127*inputs)))
}

// Outputs is how many numbers a row becomes.
func (m *Matrix) Outputs() int { return m.outputs }

// Inputs is how many numbers a row has.
func (m *Matrix) Inputs() int { return m.inputs }

// Encode quantises rows for [Matrix.Mul]: x is [rows][width], as are the codes, with a scale for each row. What the codes are is the kernel's business. Width is the
// matrix's inputs, a multiple of 32.
func Encode(codes []int16, scales, x []float32, width int) {
	rows := len(x) / width
	if width%32 != 0 || len(x) != rows*width || len(codes) < len(x) || len(scales) < rows {
		panic("simd: codes for other rows")
	}
	most := float32(largestCode(width))
	for r := range rows {
		row, at := x[r*width:(r+1)*width], codes[r*width:(r+1)*width]
		largest := active.maxAbs(row)
		inverse := most / largest
		if !(inverse <= math.MaxFloat32) { // zeros, or numbers too small to divide
			inverse, largest = 0, 0
		}
		scales[r] = largest / most
		active.encode(at, row, inverse)
	}
}

// Mul multiplies rows that [Encode] made, len(scales) of them: output j of row r goes to dst[j/32*block + r*stride + j%32]. With a stride of the outputs and a block of 32,
// dst is [rows][outputs].
func (m *Matrix) Mul(dst []float32, stride, block int, codes []int16, scales []float32) {
	rows := len(scales)
	if rows == 0 {
		return
	}
	panels := m.outputs / panel
	if len(codes) < rows*m.inputs || stride < panel || block < panel || len(dst) < (panels-1)*block+(rows-1)*stride+panel {
		panic("simd: less room than the product takes")
	}
	for p := range panels {
		active.mul(dst[p*block:], stride, codes, scales, m, p)
	}
}

// Product sets c to a × b: c is [m][n], a is [m][k], b is [k][n], and ldc, lda and ldb are how far a row of each is from the next. n is a multiple of 32.
func Product(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, n, k int) {
	if m <= 0 || n <= 0 || k <= 0 {
		return
	}
	if n%panel != 0 || ldc < n || lda < k || ldb < n ||
		len(c) < (m-1)*ldc+n || len(a) < (m-1)*lda+k || len(b) < (k-1)*ldb+n {
		panic("simd: matrices of other sizes")
	}
	for j := 0; j < n; j += panel {
		active.product(c[j:], ldc, a, lda, b[j:], ldb, m, k)
	}
}

// Transpose sets b, [32][ldb], to the transpose of a, [m][32], and fills each of its rows with zeros from m to the next multiple of 32.
func Transpose(b []float32, ldb int, a []float32, m int) {
	padded := (m + 31) &^ 31
	if ldb < padded || len(b) < 31*ldb+padded || len(a) < 32*m {
		panic("simd: matrices of other sizes")
	}
	for i := range 32 {
		row := b[i*ldb:][:padded]
		for j := range m {
			row[j] = a[j*32+i]
		}
		clear(row[m:])
	}
}

// Softmax replaces the first n numbers x of each row by 2^x, scaled so that they sum to one. Rows are stride apart, a multiple of 32, and what
// a row has from n to the next multiple of 32 is overwritten.
func Softmax(x []float32, stride, n int) {
	if n < 1 || stride%32 != 0 || stride < n || len(x)%stride != 0 {
		panic("simd: rows of another length")
	}
	padded := (n + 31) &^ 31
	if padded > n {
		for at := 0; at < len(x); at += stride {
			for i := at + n; i < at+padded; i++ {
				x[i] = lowest
			}
		}
	}
	active.softmax(x, stride, padded)
}

// lowest is a power of two so low that 2^lowest vanishes beside the largest of its row.
const lowest = -1e30

// Gelu replaces each x by x·Φ(x), the Gaussian error linear unit (Hendrycks and Gimpel, 2016), to within 1e-5. There is a multiple of 32.
func Gelu(x []float32) {
	if len(x)%32 != 0 {
		panic("simd: a row of another length")
	}
	active.gelu(x)
}

// AddNorm sets x to the layer normalisation of x + y (Ba, Kiros and Hinton, 2016): every row is shifted and scaled to mean 0 and
// variance 1, then multiplied by gain and shifted by bias. 1e-12 is added to the variance. The rows have the gain's length, a multiple of 32.
func AddNorm(x, y, gain, bias []float32) {
	width := len(gain)
	if width == 0 || width%32 != 0 || len(bias) != width || len(x)%width != 0 || len(y) < len(x) {
		panic("simd: rows of another length")
	}
	for at := 0; at < len(x); at += width {
		active.addNorm(x[at:at+width], y[at:at+width], gain, bias)
	}
}

// forwardGo is the part of the pure Go kernel that a forward pass needs.
var forwardGo = forward{
	maxAbs: maxAbsGo, encode: encodeGo, mul: mulGo, product: productGo, softmax: softmaxGo, gelu: geluGo, addNorm: addNormGo,
}

// forward is what a kernel has for a forward pass. Lengths have been checked by the callers; all are multiples of 32 where nothing else is said.
type forward struct {
	maxAbs func(x []float32) float32
	// encode sets codes to x × inverse, rounded to the nearest integer and to the even one of two.
	encode func(codes []int16, x []float32, inverse float32)
	// mul is Mul for panel p alone.
	mul func(dst []float32, stride int, codes []int16, scales []float32, m *Matrix, p int)
	// product is Product for n = 32.
	product func(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, k int)
	softmax func(x []float32, stride, n int)
	gelu    func(x []float32)
	addNorm func(x, y, gain, bias []float32)
}

func maxAbsGo(x []float32) float32 {
	var most float32
	for _, v := range x {
		most = max(most, math.Float32frombits(math.Float32bits(v)&^(1<<31)))
	}
	return most
}

func encodeGo(codes []int16, x []float32, inverse float32) {
	codes = codes[:len(x)]
	for i, v := range x {
		// Adding 1.5*2^23 rounds to the nearest integer and leaves it in the low bits of the sum.
		const magic = 3 << 22
		codes[i] = int16(int32(math.Float32bits(float32(v*inverse)+magic)) - 0x4b400000)
	}
}

// mulGo multiplies an activation by two outputs' weights at a time, in the low and the high half of an int64: neither half's sum overflows an int32.
func mulGo(dst []float32, stride int, codes []int16, scales []float32, m *Matrix, p int) {
	const rowsAtOnce = 8
	var pairs [512]int64
	k := m.inputs
	weights := m.codes[p*panel*k:][:panel*k]
	for first := 0; first < len(scales); first += rowsAtOnce {
		rows := scales[first:min(first+rowsAtOnce, len(scales))]
		for j := 0; j < panel; j += 2 {
			var sums [rowsAtOnce]int64
			for from := 0; from < k; from += len(pairs) {
				pairs := pairs[:min(len(pairs), k-from)]
				for i := 0; i+4 <= len(pairs); i += 4 {
					w := weights[(from+i)*panel+4*j:][:8]
					pairs[i] = int64(w[0]) + int64(w[4])<<32
					pairs[i+1] = int64(w[1]) + int64(w[5])<<32
					pairs[i+2] = int64(w[2]) + int64(w[6])<<32
					pairs[i+3] = int64(w[3]) + int64(w[7])<<32
				}
				for r := range rows {
					row := codes[(first+r)*k+from:][:len(pairs)]
					var s0, s1, s2, s3 int64
					for i := 0; i+4 <= len(pairs); i += 4 {
						s0 += int64(row[i]) * pairs[i]
						s1 += int64(row[i+1]) * pairs[i+1]
						s2 += int64(row[i+2]) * pairs[i+2]
						s3 += int64(row[i+3]) * pairs[i+3]
					}
					sums[r] += s0 + s1 + s2 + s3
				}
			}
			o := p*panel + j
			for r, scale := range rows {
				low := int32(sums[r])
				high := int32((sums[r] - int64(low)) >> 32)
				out := dst[(first+r)*stride+j:][:2]
				out[0] = float32(low)*(scale*m.scales[o]) + m.bias[o]
				out[1] = float32(high)*(scale*m.scales[o+1]) + m.bias[o+1]
			}
		}
	}
}

func productGo(c []float32, ldc int, a []float32, lda int, b []float32, ldb int, m, k int) {
	for r := range m {
		out := c[r*ldc:][:panel]
		clear(out)
		for i, v := range a[r*lda:][:k] {
			row := b[i*ldb:][:panel]
			for j := range out {
				out[j] += v * row[j]
			}
		}
	}
}

func softmaxGo(x []float32, stride, n int) {
	for ; len(x) > 0; x = x[stride:] {
		row := x[:n]
		most := row[0]
		for _, v := range row {
			most = max(most, v)
		}
		var sum float32
		for i, v := range row {
			v = exp2(v - most)
			row[i] = v
			sum += v
		}
		inverse := 1 / sum
		for i := range row {
			row[i] *= inverse
		}
	}
}

// exp2 is 2^x for x ≤ 0, to a relative 2e-7: the integer part goes to the exponent, the rest through a polynomial fitted on [-1/2, 1/2].
func exp2(x float32) float32 {
	x = max(x, exp2Least)
	const magic = 3 << 22
	bits := math.Float32bits(x + magic)
	x -= math.Float32frombits(bits) - magic
	c := &exp2Table
	p := ((((c[5]*x+c[4])*x+c[3])*x+c[2])*x+c[1])*x + c[0]
	return math.Float32frombits(math.Float32bits(p) + bits<<23)
}

// exp2Least is the least power of two that exp2 tells from lower ones. It vanishes in any sum, and is large enough that what is made of it stays clear of denormal numbers,
// which are slow.
const exp2Least = -100

// exp2Table has the polynomial of exp2, of least squares in relative error, then exp2Least and 1. Kernels in assembly read it too, as they do the other tables.
var exp2Table = [...]float32{
	1.0000001192092896, 0.6931469440460205, 0.24022121727466583, 0.05550742521882057, 0.009675459936261177, 0.0013266970636323094, exp2Least, 1,
}

func geluGo(x []float32) {
	for i, v := range x {
		c := min(max(v, -geluMost), geluMost)
		t := c*c*(2.0/(geluMost*geluMost)) - 1
		p := geluTable[10]
		for k := 9; k >= 0; k-- {
			p = p*t + geluTable[k]
		}
		x[i] = v * (c*p + 0.5)
	}
}

// geluMost is from where Φ(x) is taken for 1, and for 0 on the other side.
const geluMost = 5

// geluTable has the polynomial in t = 2(x/geluMost)² - 1 of (Φ(x) - 1/2) / x, of least weighted squares on the Chebyshev nodes, then what makes t of x², and 1/2 and the bounds.
var geluTable = [...]float32{
	0.14136432111263275, -0.07029920816421509, 0.051485951989889145, -0.04034306854009628, 0.03177478909492493, -0.024102797731757164,
	0.015414776280522346, -0.008518482558429241, 0.007235654164105654, -0.006175388116389513, 0.0021636260207742453,
	2.0 / (geluMost * geluMost), -1, .5, geluMost, -geluMost,
}

func addNormGo(x, y, gain, bias []float32) {
	y, gain, bias = y[:len(x)], gain[:len(x)], bias[:len(x)]
	var sum float32
	for i, v := range y {
		x[i] += v
		sum += x[i]
	}
	mean := sum / float32(len(x))
	var square float32
	for i := range x {
		x[i] -= mean
		square += x[i] * x[i]
	}
	inverse := 1 / float32(math.Sqrt(float64(square/float32(len(x))+normTable[0])))
	for i := range x {
		x[i] = x[i]*inverse*gain[i] + bias[i]
	}
}

// normLeast is added to a variance before it is divided by.
const normLeast = 1e-12

var normTable = [...]float32{normLeast}
