package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// eachBesideGo runs f under every kernel but pure Go, with what under calls make of it: under pure Go and then under the kernel.
func eachBesideGo(t *testing.T, f func(t *testing.T, both func(run func() []float32) (want, got []float32))) {
	for _, name := range Kernels() {
		if name == "go" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			f(t, func(run func() []float32) (want, got []float32) {
				restore := Use("go")
				want = run()
				restore()
				defer Use(name)()
				return want, run()
			})
		})
	}
}

// normal is n random numbers, at an address that is a multiple of 4 only.
func normal(r *rand.Rand, n int, spread float64) []float32 {
	v := make([]float32, n+1)[1:]
	for i := range v {
		v[i] = float32(r.NormFloat64() * spread)
	}
	return v
}

func randomMatrix(r *rand.Rand, outputs, inputs int, extreme bool) *Matrix {
	return NewMatrix(outputs, inputs, codes(r, outputs*inputs, extreme), normal(r, outputs, .01), normal(r, outputs, 1))
}

// close fails where two numbers differ by more than a share of the largest one.
func checkClose(t *testing.T, what string, want, got []float32, share float64) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d numbers, want %d", what, len(got), len(want))
	}
	var most float64
	for _, x := range want {
		most = max(most, math.Abs(float64(x)))
	}
	for i := range want {
		if d := math.Abs(float64(want[i]) - float64(got[i])); !(d <= share*most) {
			t.Fatalf("%s: number %d of %d is %v, want %v", what, i, len(want), got[i], want[i])
		}
	}
}

const guard = 12345.5

// guarded is room for n numbers and a few that must stay.
func guarded(n int) (room, all []float32) {
	all = make([]float32, n+40)
	for i := range all {
		all[i] = guard
	}
	return all[:n:n], all
}

func checkGuard(t *testing.T, what string, all []float32, n int) {
	t.Helper()
	for _, x := range all[n:] {
		if x != guard {
			t.Fatalf("%s: wrote beyond its room", what)
		}
	}
}

func mulOnce(t *testing.T, m *Matrix, x []float32) []float32 {
	rows := len(x) / m.Inputs()
	codes, scales := make([]int16, len(x)), make([]float32, rows)
	Encode(codes, scales, x, m.Inputs())
	out, all := guarded(rows * m.Outputs())
	m.Mul(out, m.Outputs(), panel, codes, scales)
	checkGuard(t, "Mul", all, len(out))
	return out
}

// TestMul holds every kernel to what float64 makes of the same codes, and to pure Go within the last digits: the sums in between are integers.
func TestMul(t *testing.T) {
	eachBesideGo(t, func(t *testing.T, both func(func() []float32) ([]float32, []float32)) {
		r := rand.New(rand.NewPCG(11, 12))
		for n, inputs := range []int{32, 64, 96, 384, 416, 1536, 3072} {
			for rows := 1; rows <= 17; rows++ {
				extreme := (n+rows)%3 == 0
				m := randomMatrix(r, panel*(1+rows%3), inputs, extreme)
				x := normal(r, rows*inputs, 3)
				if extreme {
					for i := range x {
						x[i] = float32(math.Copysign(4, float64(x[i])))
					}
				}
				want, got := both(func() []float32 { return mulOnce(t, m, x) })
				checkClose(t, fmt.Sprintf("%d rows of %d", rows, inputs), want, got, 3e-7)
			}
		}
	})
}

// TestMulLargest has all codes of one sign, where sums are largest.
func TestMulLargest(t *testing.T) {
	each(t, func(t *testing.T) {
		for _, inputs := range []int{384, 1536, 4096} {
			for _, sign := range []int8{1, -1} {
				codes := make([]int8, panel*inputs)
				for i := range codes {
					codes[i] = 127 * sign
				}
				scales, bias := make([]float32, panel), make([]float32, panel)
				for i := range scales {
					scales[i] = 1. / 127
				}
				x := make([]float32, 2*inputs)
				for i := range x {
					x[i] = 1
					if i >= inputs {
						x[i] = -1
					}
				}
				got := mulOnce(t, NewMatrix(panel, inputs, codes, scales, bias), x)
				for i, v := range got {
					want := float64(inputs) * float64(sign)
					if i >= panel {
						want = -want
					}
					if math.Abs(float64(v)-want) > 1e-3 {
						t.Fatalf("%d inputs: %v, want %v", inputs, v, want)
					}
				}
			}
		}
	})
}

// TestMulAlone: a row's product is the same, to the last bit, alone and among others.
func TestMulAlone(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(13, 14))
		m := randomMatrix(r, 64, 384, false)
		x := normal(r, 20*384, 1)
		all := mulOnce(t, m, x)
		for i := range 20 {
			if alone := mulOnce(t, m, x[i*384:(i+1)*384]); !slices.Equal(alone, all[i*64:(i+1)*64]) {
				t.Fatalf("row %d differs", i)
			}
		}
	})
}

func TestMulBlocks(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(15, 16))
		m := randomMatrix(r, 96, 64, false)
		const rows = 5
		x := normal(r, rows*64, 1)
		plain := mulOnce(t, m, x)
		codes, scales := make([]int16, len(x)), make([]float32, rows)
		Encode(codes, scales, x, 64)
		out := make([]float32, 3*rows*panel)
		m.Mul(out, panel, rows*panel, codes, scales)
		for row := range rows {
			for o := range 96 {
				if got, want := out[o/panel*rows*panel+row*panel+o%panel], plain[row*96+o]; got != want {
					t.Fatalf("row %d, output %d: %v, want %v", row, o, got, want)
				}
			}
		}
	})
}

func TestEncode(t *testing.T) {
	each(t, func(t *testing.T) {
		// The unit matrix shows what codes stand for.
		const width = 32
		unit := make([]int8, width*width)
		scales := make([]float32, width)
		for i := range width {
			unit[i/4*4*panel+4*i+i%4] = 127
			scales[i] = 1. / 127
		}
		m := NewMatrix(width, width, unit, scales, make([]float32, width))
		r := rand.New(rand.NewPCG(17, 18))
		for n := range 200 {
			x := normal(r, 3*width, math.Pow(10, float64(n%9-4)))
			if n%10 == 0 {
				clear(x[width : 2*width])
				x[width] = 1e-45
			}
			got := mulOnce(t, m, x)
			for row := range 3 {
				var most float64
				for _, v := range x[row*width : (row+1)*width] {
					most = max(most, math.Abs(float64(v)))
				}
				for i := row * width; i < (row+1)*width; i++ {
					if d := math.Abs(float64(got[i]) - float64(x[i])); d > most*.51/maxCode+1e-44 {
						t.Fatalf("%v became %v, the largest is %v", x[i], got[i], most)
					}
				}
			}
		}
	})
}

func TestProduct(t *testing.T) {
	eachBesideGo(t, func(t *testing.T, both func(func() []float32) ([]float32, []float32)) {
		r := rand.New(rand.NewPCG(19, 20))
		for m := 1; m <= 19; m++ {
			for _, k := range []int{1, 2, 31, 32, 100} {
				n := panel * (1 + m%3)
				lda, ldb, ldc := k+m%4, n+k%5, n+m%2
				a, b := normal(r, m*lda, 1), normal(r, k*ldb, 1)
				want, got := both(func() []float32 {
					c, all := guarded((m-1)*ldc + n)
					Product(c, ldc, a, lda, b, ldb, m, n, k)
					checkGuard(t, "Product", all, len(c))
					return c
				})
				checkClose(t, fmt.Sprintf("%d × %d × %d", m, n, k), want, got, 2e-6)
				// And pure Go is right.
				for i := range m {
					for j := range n {
						var sum float64
						for l := range k {
							sum += float64(a[i*lda+l]) * float64(b[l*ldb+j])
						}
						if math.Abs(sum-float64(want[i*ldc+j])) > 1e-4 {
							t.Fatalf("%v, want %v", want[i*ldc+j], sum)
						}
					}
				}
			}
		}
	})
}

func TestTranspose(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(21, 22))
		for m := 1; m < 100; m++ {
			n := panel
			padded := (m + 31) &^ 31
			ldb := padded + m%2
			a := normal(r, m*n, 1)
			b, all := guarded((n-1)*ldb + padded)
			Transpose(b, ldb, a, m)
			checkGuard(t, "Transpose", all, len(b))
			for i := range n {
				for j := range ldb {
					if i == n-1 && j >= padded {
						continue
					}
					want := float32(0)
					switch {
					case j < m:
						want = a[j*n+i]
					case j >= padded:
						want = guard
					}
					if b[i*ldb+j] != want {
						t.Fatalf("%d rows: b[%d][%d] is %v, want %v", m, i, j, b[i*ldb+j], want)
					}
				}
			}
		}
	})
}

func TestSoftmax(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(23, 24))
		for n := 1; n < 260; n++ {
			const rows = 3
			stride := (n+31)&^31 + 32*(n%2)
			x := normal(r, rows*stride, math.Pow(10, float64(n%4-1)))
			if n%7 == 0 {
				x[0] = 3000 // the others vanish beside it
			}
			got := slices.Clone(x)
			Softmax(got, stride, n)
			for row := range rows {
				in, out := x[row*stride:][:n], got[row*stride:][:n]
				most, sum := slices.Max(in), 0.
				for _, v := range in {
					sum += math.Exp2(float64(v - most))
				}
				for i, v := range in {
					want := math.Exp2(float64(v-most)) / sum
					if d := math.Abs(want - float64(out[i])); !(d <= 1e-6*want+1e-30) {
						t.Fatalf("%d numbers: %v became %v, want %v", n, v, out[i], want)
					}
				}
				if stride > (n+31)&^31 && got[row*stride+stride-1] != x[row*stride+stride-1] {
					t.Fatalf("%d numbers: wrote beyond them", n)
				}
			}
		}
	})
}

func TestGelu(t *testing.T) {
	each(t, func(t *testing.T) {
		const n = 64 * 1000
		x, all := guarded(n)
		for i := range x {
			x[i] = (float32(i) - n/2) / (n / 2) * 12
		}
		got := slices.Clone(all)
		Gelu(got[:n])
		checkGuard(t, "Gelu", got, n)
		for i, v := range x {
			want := float64(v) * (1 + math.Erf(float64(v)/math.Sqrt2)) / 2
			if d := math.Abs(want - float64(got[i])); !(d <= 1.2e-5) {
				t.Fatalf("%v became %v, want %v", v, got[i], want)
			}
		}
	})
}

func TestAddNorm(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(25, 26))
		for width := 32; width < 500; width += 32 {
			const rows = 3
			x, y, gain, bias := normal(r, rows*width, 2), normal(r, rows*width, 2), normal(r, width, 1), normal(r, width, 1)
			for i := range x {
				x[i] += 5
			}
			if width == 64 {
				clear(x)
				clear(y) // no variance
			}
			got, all := guarded(len(x))
			copy(got, x)
			AddNorm(got, y, gain, bias)
			checkGuard(t, "AddNorm", all, len(got))
			for row := range rows {
				var mean, variance float64
				for i := row * width; i < (row+1)*width; i++ {
					mean += (float64(x[i]) + float64(y[i])) / float64(width)
				}
				for i := row * width; i < (row+1)*width; i++ {
					d := float64(x[i]) + float64(y[i]) - mean
					variance += d * d / float64(width)
				}
				for i := range width {
					at := row*width + i
					want := (float64(x[at])+float64(y[at])-mean)/math.Sqrt(variance+normLeast)*float64(gain[i]) + float64(bias[i])
					if math.Abs(want-float64(got[at])) > 1e-5 {
						t.Fatalf("width %d: %v, want %v", width, got[at], want)
					}
				}
			}
		}
	})
}

func FuzzMul(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint8(5), uint8(3), float32(1))
	f.Fuzz(func(t *testing.T, a, b uint64, rows, inputs uint8, spread float32) {
		if rows == 0 || rows > 40 || inputs == 0 || !(math.Abs(float64(spread)) < 1e30) {
			t.Skip()
		}
		r := rand.New(rand.NewPCG(a, b))
		m := randomMatrix(r, panel, 32*int(inputs), a%2 == 0)
		x := normal(r, int(rows)*m.Inputs(), float64(spread))
		restore := Use("go")
		want := mulOnce(t, m, x)
		restore()
		for _, name := range Kernels() {
			restore := Use(name)
			checkClose(t, name, want, mulOnce(t, m, x), 1e-6)
			restore()
		}
	})
}

func BenchmarkMul(b *testing.B) {
	for _, size := range [][2]int{{1152, 384}, {384, 384}, {1536, 384}, {384, 1536}} {
		for _, rows := range []int{8, 56} {
			for _, name := range Kernels() {
				b.Run(fmt.Sprintf("%dx%d/rows=%d/%s", size[0], size[1], rows, name), func(b *testing.B) {
					defer Use(name)()
					r := rand.New(rand.NewPCG(27, 28))
					m := randomMatrix(r, size[0], size[1], false)
					x := normal(r, rows*m.Inputs(), 1)
					codes, scales, out := make([]int16, len(x)), make([]float32, rows), make([]float32, rows*m.Outputs())
					Encode(codes, scales, x, m.Inputs())
					for b.Loop() {
						m.Mul(out, m.Outputs(), panel, codes, scales)
					}
					b.ReportMetric(float64(rows*size[0]*size[1])*float64(b.N)/b.Elapsed().Seconds()/1e9, "GMAC/s")
				})
			}
		}
	}
}

// BenchmarkForward is what one head of a text of 200 tokens takes, and the row-wise loops over 200 rows.
func BenchmarkForward(b *testing.B) {
	const tokens, padded = 200, 224
	r := rand.New(rand.NewPCG(29, 30))
	q, k, v := normal(r, tokens*32, 1), normal(r, tokens*32, 1), normal(r, tokens*32, 1)
	s, kt, c := make([]float32, tokens*padded), make([]float32, 32*padded), make([]float32, tokens*32)
	x, y, wide := normal(r, tokens*384, 1), normal(r, tokens*384, 1e-9), normal(r, tokens*1536, 1)
	gelus := make([]float32, len(wide)) // applied again and again, it would reach denormal numbers
	codes, scales := make([]int16, tokens*384), make([]float32, tokens)
	for _, loop := range []struct {
		name string
		run  func()
	}{
		{"transpose", func() { Transpose(kt, padded, k, tokens) }},
		{"scores", func() { Product(s, padded, q, 32, kt, padded, tokens, padded, 32) }},
		{"softmax", func() { Softmax(s, padded, tokens) }},
		{"values", func() { Product(c, 32, s, padded, v, 32, tokens, 32, tokens) }},
		{"norm", func() { AddNorm(x, y, x[:384], y[:384]) }},
		{"encode", func() { Encode(codes, scales, x, 384) }},
		{"gelu", func() { copy(gelus, wide); Gelu(gelus) }},
	} {
		for _, name := range Kernels() {
			b.Run(loop.name+"/"+name, func(b *testing.B) {
				defer Use(name)()
				for b.Loop() {
					loop.run()
				}
			})
		}
	}
}
