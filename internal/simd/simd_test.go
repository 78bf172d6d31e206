package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// each runs f under every kernel that this CPU has.
func each(t *testing.T, f func(t *testing.T)) {
	for _, name := range Kernels() {
		t.Run(name, func(t *testing.T) {
			defer Use(name)()
			f(t)
		})
	}
}

// codes returns n random codes in memory that begins at an odd address and is followed by bytes that must not count.
func codes(r *rand.Rand, n int, extreme bool) []int8 {
	b := make([]int8, n+130)
	for i := range b {
		b[i] = int8(r.IntN(255) - 127)
		if extreme {
			b[i] = int8(127 - 254*r.IntN(2))
		}
	}
	return b[1 : 1+n]
}

func TestInt8EqualsGo(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for dim := 1; dim <= 1030; dim++ {
			rows := 1 + dim%11
			query, block := codes(r, dim, dim%3 == 0), codes(r, rows*dim, dim%3 == 0)
			checkInt8(t, query, block, rows)
		}
		for _, dim := range []int{1536, 3072, 4096} { // all of one sign, where sums are largest
			query, block := make([]int8, dim), make([]int8, 5*dim)
			for i := range query {
				query[i] = -127
			}
			for i := range block {
				block[i] = -127
			}
			checkInt8(t, query, block, 5)
		}
	})
}

func checkInt8(t *testing.T, query, block []int8, rows int) {
	t.Helper()
	dim := len(query)
	want, got := make([]int32, rows), make([]int32, rows+1)
	for i := range want {
		for j, c := range query {
			want[i] += int32(c) * int32(block[i*dim+j])
		}
	}
	got[rows] = 42
	Scan(got[:rows], query, block)
	if fmt.Sprint(got[:rows]) != fmt.Sprint(want) || got[rows] != 42 {
		t.Fatalf("dim %d: Scan = %d, want %d", dim, got, want)
	}
	order := make([]uint32, rows)
	for i := range order {
		order[i] = uint32(i*7%rows+rows/2) % uint32(rows)
	}
	Gather(got[:rows], query, block, order)
	for i, row := range order {
		if got[i] != want[row] || got[rows] != 42 {
			t.Fatalf("dim %d: Gather(%d) = %d, want %d", dim, row, got[i], want[row])
		}
	}
}

func TestDotEqualsGo(t *testing.T) {
	each(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(3, 4))
		for dim := 1; dim <= 1030; dim++ {
			a, b := make([]float32, dim+70), make([]float32, dim+70)
			for i := range a {
				a[i], b[i] = float32(r.NormFloat64()), float32(r.NormFloat64())
			}
			a, b = a[1:1+dim], b[3:3+dim]
			var want, size float64
			for i := range a {
				want += float64(a[i]) * float64(b[i])
				size += math.Abs(float64(a[i]) * float64(b[i]))
			}
			if got := float64(Dot(a, b)); math.Abs(got-want) > 1e-6*size+1e-9 {
				t.Fatalf("dim %d: %v, want %v", dim, got, want)
			}
		}
	})
}

func TestQuantize(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for dim := 1; dim < 500; dim++ {
		v, c := make([]float32, dim), make([]int8, dim)
		for i := range v {
			v[i] = float32(r.NormFloat64() * math.Pow(10, float64(dim%9-4)))
		}
		scale := Quantize(c, v)
		extreme := false
		for i := range v {
			if c[i] < -127 {
				t.Fatalf("code %d", c[i])
			}
			extreme = extreme || c[i] == 127 || c[i] == -127
			if d := math.Abs(float64(v[i]) - float64(c[i])*float64(scale)); d > float64(scale)*0.501 {
				t.Fatalf("dim %d: %v became %v", dim, v[i], float32(c[i])*scale)
			}
		}
		if !extreme {
			t.Fatalf("dim %d: no code uses the whole range", dim)
		}
	}
	for _, v := range [][]float32{{}, {0, 0}, {1e-45, 0}, {math.SmallestNonzeroFloat32 * 100, 0}} {
		if scale := Quantize(make([]int8, len(v)), v); scale != 0 {
			t.Errorf("Quantize(%v) has scale %v", v, scale)
		}
	}
}

func TestBadArguments(t *testing.T) {
	for name, f := range map[string]func(){
		"short codes": func() { Scan(make([]int32, 2), make([]int8, 8), make([]int8, 15)) },
		"far row":     func() { Gather(make([]int32, 1), make([]int8, 8), make([]int8, 16), []uint32{2}) },
		"rows":        func() { Gather(make([]int32, 2), make([]int8, 8), make([]int8, 16), []uint32{1}) },
		"lengths":     func() { Dot(make([]float32, 3), make([]float32, 4)) },
		"kernel":      func() { Use("abacus") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("nothing stopped it")
				}
			}()
			f()
		})
	}
	Scan(nil, nil, nil)
	Gather(nil, nil, nil, nil)
	out := []int32{7}
	Scan(out, nil, nil)
	if out[0] != 0 || Dot(nil, nil) != 0 {
		t.Error("a vector without components has a product other than 0")
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, 3)
	f.Fuzz(func(t *testing.T, b []byte, dim int) {
		if dim < 1 || dim > len(b)/2 {
			t.Skip()
		}
		all := make([]int8, len(b))
		for i, c := range b {
			all[i] = max(-127, int8(c))
		}
		for _, name := range Kernels() {
			restore := Use(name)
			checkInt8(t, all[:dim], all[dim:], len(all)/dim-1)
			restore()
		}
	})
}

func BenchmarkScan(b *testing.B) {
	const rows, dim = 100_000, 384
	r := rand.New(rand.NewPCG(7, 8))
	query, block, out := codes(r, dim, false), codes(r, rows*dim, false), make([]int32, rows)
	for _, name := range Kernels() {
		b.Run(name, func(b *testing.B) {
			defer Use(name)()
			b.SetBytes(rows * dim)
			for b.Loop() {
				Scan(out, query, block)
			}
		})
	}
}

func BenchmarkGather(b *testing.B) {
	const rows, dim = 100_000, 384
	r := rand.New(rand.NewPCG(7, 8))
	query, block := codes(r, dim, false), codes(r, rows*dim, false)
	list, out := make([]uint32, rows/10), make([]int32, rows/10)
	for i := range list {
		list[i] = uint32(i*10 + r.IntN(10))
	}
	for _, name := range Kernels() {
		b.Run(name, func(b *testing.B) {
			defer Use(name)()
			for b.Loop() {
				Gather(out, query, block, list)
			}
		})
	}
}

func BenchmarkDot(b *testing.B) {
	v := make([]float32, 384)
	for _, name := range Kernels() {
		b.Run(name, func(b *testing.B) {
			defer Use(name)()
			for b.Loop() {
				Dot(v, v)
			}
		})
	}
}

func BenchmarkQuantize(b *testing.B) {
	v, c := make([]float32, 384), make([]int8, 384)
	for i := range v {
		v[i] = float32(i%7) / 10
	}
	for b.Loop() {
		Quantize(c, v)
	}
}
