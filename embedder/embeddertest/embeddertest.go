// Package embeddertest has the conformance suite of [embedder.Embedder], which every model and every wrapper passes, and a [Provider] that fails as told.
package embeddertest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
)

// texts are inputs of all kinds; the first few are ordinary, and different from each other for any model.
var texts = []string{
	"The index follows the log.",
	"A boat with a red sail crosses the bay.",
	"How long does water boil at that height?",
	"func (s *Store) Apply(ctx context.Context) error { return nil }",
	"Äpfel und Birnen, naïve café",
	"日本語の文章です。",
	"👩‍👩‍👧 family 🏽 emoji 🇩🇪",
	"a\x00b\x01c",
	"caf\xc3 broken \xff\xfe bytes",
	"line\r\nline\r\n\ttab",
	"e\u0301\u0323\u0308 marks",
	"[CLS] [SEP] <|endoftext|>",
	strings.Repeat("x", 3000),
	strings.Repeat("many words in one long input, ", 700),
}

// Run checks an embedder against the contract of [embedder.Embedder]. New makes a fresh one for each subtest; it may be called often.
func Run(t *testing.T, New func() embedder.Embedder) {
	embed := func(t *testing.T, e embedder.Embedder, inputs ...string) [][]float32 {
		t.Helper()
		vectors, err := e.Embed(t.Context(), embedder.Index, inputs)
		if err != nil {
			t.Fatalf("Embed: %v", err)
		}
		if err := embedder.Check(e.Name(), e.Dim(), len(inputs), vectors); err != nil {
			t.Fatal(err)
		}
		return vectors
	}

	t.Run("Description", func(t *testing.T) {
		e, again := New(), New()
		if !strings.Contains(e.Name(), "/") {
			t.Errorf("Name %q is not provider/model", e.Name())
		}
		if e.Name() != again.Name() || e.Dim() != again.Dim() || e.MaxInput() != again.MaxInput() {
			t.Errorf("two of the same differ: %q %d %d and %q %d %d", e.Name(), e.Dim(), e.MaxInput(), again.Name(), again.Dim(), again.MaxInput())
		}
		if e.Dim() < 1 || e.MaxInput() < 0 {
			t.Errorf("Dim %d, MaxInput %d", e.Dim(), e.MaxInput())
		}
	})

	t.Run("UnitLength", func(t *testing.T) {
		e := New()
		for i, v := range embed(t, e, texts...) {
			if i < 5 && zero(v) {
				t.Errorf("%.30q has the zero vector", texts[i])
			}
		}
		for _, role := range []embedder.Role{embedder.Index, embedder.Query} {
			vectors, err := e.Embed(t.Context(), role, texts[:3])
			if err != nil {
				t.Fatalf("role %v: %v", role, err)
			}
			if err := embedder.Check(e.Name(), e.Dim(), 3, vectors); err != nil {
				t.Errorf("role %v: %v", role, err)
			}
		}
	})

	t.Run("Different", func(t *testing.T) {
		v := embed(t, New(), texts[:5]...)
		for i := range v {
			for j := range i {
				if c := cosine(v[i], v[j]); c > 0.95 {
					t.Errorf("%q and %q have a cosine of %.4f", texts[i], texts[j], c)
				}
			}
		}
	})

	t.Run("Deterministic", func(t *testing.T) {
		a, b := embed(t, New(), texts...), embed(t, New(), texts...)
		for i := range a {
			if !slices.Equal(a[i], b[i]) {
				t.Errorf("%.30q: two vectors", texts[i])
			}
		}
	})

	// An input's vector does not depend on its company: this is also what shows a wrong order.
	t.Run("BatchMates", func(t *testing.T) {
		e := New()
		together := embed(t, e, texts...)
		backwards := slices.Clone(texts)
		slices.Reverse(backwards)
		reversed := embed(t, e, backwards...)
		for i, text := range texts {
			alone := embed(t, e, text)[0]
			for _, v := range [][]float32{together[i], reversed[len(texts)-1-i]} {
				if !near(alone, v) {
					t.Errorf("%.30q: alone and in a batch differ, cosine %.6f", text, cosine(alone, v))
				}
			}
		}
	})

	t.Run("Repeated", func(t *testing.T) {
		v := embed(t, New(), texts[0], texts[1], texts[0], texts[0])
		if !near(v[0], v[2]) || !near(v[0], v[3]) || near(v[0], v[1]) {
			t.Error("an input that comes twice in a call has two vectors")
		}
		v[0][0] += 1
		if v[2][0] == v[0][0] && v[3][0] == v[0][0] {
			t.Error("equal inputs share a slice: the caller can't change one vector alone")
		}
	})

	t.Run("Blank", func(t *testing.T) {
		e := New()
		for i, v := range embed(t, e, "", texts[0], " \t\r\n", "\u3000\u00a0") {
			if zero(v) != (i != 1) {
				t.Errorf("input %d: zero is %t", i, zero(v))
			}
		}
		if v := embed(t, e, ""); !zero(v[0]) {
			t.Error("an empty input alone is not zero")
		}
	})

	t.Run("None", func(t *testing.T) {
		e := New()
		for _, inputs := range [][]string{nil, {}} {
			if v, err := e.Embed(t.Context(), embedder.Index, inputs); err != nil || len(v) != 0 {
				t.Errorf("no inputs: %d vectors, %v", len(v), err)
			}
		}
	})

	t.Run("Large", func(t *testing.T) {
		e := New()
		inputs := make([]string, 300)
		for i := range inputs {
			inputs[i] = fmt.Sprintf("%s %d", texts[i%5], i)
		}
		before := slices.Clone(inputs)
		v := embed(t, e, inputs...)
		if !slices.Equal(inputs, before) {
			t.Error("the inputs were changed")
		}
		for _, i := range []int{0, 150, 299} {
			if alone := embed(t, e, inputs[i])[0]; !near(alone, v[i]) {
				t.Errorf("input %d of 300 differs from itself alone", i)
			}
		}
	})

	t.Run("Cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		v, err := New().Embed(ctx, embedder.Index, []string{"never asked before " + time.Now().String()})
		if !errors.Is(err, context.Canceled) || v != nil {
			t.Errorf("cancelled: %d vectors, %v", len(v), err)
		}
	})

	t.Run("Concurrent", func(t *testing.T) {
		e := New()
		want := embed(t, e, texts[:6]...)
		var all sync.WaitGroup
		for g := range 8 {
			all.Go(func() {
				for n := range 6 {
					i := (g + n) % 6
					ctx := embedder.WithLane(t.Context(), embedder.Lane(n%2))
					v, err := e.Embed(ctx, embedder.Index, []string{texts[i], texts[(i+1)%6]})
					if err != nil {
						t.Errorf("Embed: %v", err)
						return
					}
					if !near(v[0], want[i]) || !near(v[1], want[(i+1)%6]) {
						t.Errorf("vectors of %.20q are another input's", texts[i])
					}
				}
			})
		}
		all.Wait()
	})
}

func zero(v []float32) bool {
	return !slices.ContainsFunc(v, func(x float32) bool { return x != 0 })
}

// near is equality up to what summing in another order does.
func near(a, b []float32) bool {
	for i := range a {
		if math.Abs(float64(a[i])-float64(b[i])) > 1e-4 {
			return false
		}
	}
	return len(a) == len(b)
}

func cosine(a, b []float32) float64 {
	var dot float64
	for i := range a {
		dot += float64(a[i]) * float64(b[i])
	}
	return dot
}
