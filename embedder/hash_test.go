package embedder_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

func TestHash(t *testing.T) {
	embeddertest.Run(t, func() embedder.Embedder { return embedder.NewHash(384) })
}

func TestHashNeverZero(t *testing.T) {
	// In two counters the signs of many pairs of words cancel out.
	for _, dim := range []int{1, 2, 384} {
		h := embedder.NewHash(dim)
		for i := range 2000 {
			text := fmt.Sprintf("w%d v%d", i, i*7)
			if i%3 == 0 {
				text = string(rune(i + 0x21))
			}
			if embedder.Blank(text) {
				continue
			}
			v, err := h.Embed(context.Background(), embedder.Index, []string{text})
			if err != nil {
				t.Fatal(err)
			}
			var length float64
			for _, x := range v[0] {
				length += float64(x) * float64(x)
			}
			if math.Abs(length-1) > 1e-5 {
				t.Fatalf("dimension %d, %q: squared length %g", dim, text, length)
			}
		}
	}
}

func TestHashWords(t *testing.T) {
	v, err := embedder.NewHash(384).Embed(context.Background(), embedder.Index,
		[]string{"The Quick brown fox", "the quick, BROWN fox!", "tax law reform bill", "thequickbrownfox"})
	if err != nil {
		t.Fatal(err)
	}
	dot := func(a, b []float32) (d float64) {
		for i := range a {
			d += float64(a[i]) * float64(b[i])
		}
		return d
	}
	if same, other, joined := dot(v[0], v[1]), dot(v[0], v[2]), dot(v[0], v[3]); same < 0.6 || other > 0.4 || joined > 0.4 {
		t.Errorf("same words %.3f, other words %.3f, joined words %.3f", same, other, joined)
	}
}

func BenchmarkHash(b *testing.B) {
	h := embedder.NewHash(384)
	for _, n := range []int{100, 1000, 100_000} {
		text := strings.Repeat("Every change is written to the log before anything else happens, and the index follows. ", n/88+1)[:n]
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.Embed(context.Background(), embedder.Index, []string{text}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestHashGolden holds the arithmetic to the last bit: vectors of several machines are compared with each other.
func TestHashGolden(t *testing.T) {
	v, err := embedder.NewHash(384).Embed(context.Background(), embedder.Index,
		[]string{"The index follows the log.", "Äpfel, 日本語 & 👩‍👧", strings.Repeat("many words in one long input, ", 700)})
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.New()
	if err := binary.Write(digest, binary.LittleEndian, v[0]); err != nil {
		t.Fatal(err)
	}
	binary.Write(digest, binary.LittleEndian, v[1])
	binary.Write(digest, binary.LittleEndian, v[2])
	const want = "f2dbe339805db362"
	if got := fmt.Sprintf("%x", digest.Sum(nil)[:8]); got != want {
		t.Errorf("vectors hash to %s, want %s", got, want)
	}
}
