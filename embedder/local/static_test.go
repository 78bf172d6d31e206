package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
)

func newStatic(t testing.TB) *Static {
	t.Helper()
	s, err := NewStatic()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func embed(t testing.TB, e embedder.Embedder, inputs ...string) [][]float32 {
	t.Helper()
	vectors, err := e.Embed(context.Background(), embedder.Index, inputs)
	if err != nil {
		t.Fatal(err)
	}
	return vectors
}

func cosine(a, b []float32) float64 {
	var dot float64
	for i := range a {
		dot += float64(a[i]) * float64(b[i])
	}
	return dot
}

func TestStaticHash(t *testing.T) {
	sum := sha256.Sum256([]byte(staticTable + vocabText + unicodeText))
	if got := hex.EncodeToString(sum[:])[:len(staticHash)]; got != staticHash {
		t.Errorf("the files hash to %s but staticHash is %s: new weights need their own name", got, staticHash)
	}
}

// TestStaticGolden holds the arithmetic to the last bit: vectors made on one machine are compared with those of another.
func TestStaticGolden(t *testing.T) {
	digest := sha256.New()
	for _, v := range embed(t, newStatic(t), "hello world", "Der Zug fährt um 8 Uhr.", "日本語", strings.Repeat("a long text about boats and fish. ", 2000)) {
		for _, x := range v {
			b := math.Float32bits(x)
			digest.Write([]byte{byte(b), byte(b >> 8), byte(b >> 16), byte(b >> 24)})
		}
	}
	const want = "7cb2415dbf06b9ec"
	if got := hex.EncodeToString(digest.Sum(nil))[:16]; got != want {
		t.Errorf("vectors hash to %s, want %s", got, want)
	}
}

func TestStaticZero(t *testing.T) {
	s := newStatic(t)
	for _, text := range []string{"", " \n", "\x00\x01", strings.Repeat("x", 101), "\u1c50\u1c51"} {
		for _, x := range embed(t, s, text)[0] {
			if x != 0 {
				t.Errorf("%+q: a vector that is not zero", text)
				break
			}
		}
	}
}

func TestStaticMeaning(t *testing.T) {
	v := embed(t, newStatic(t), "how do I cook rice", "boiling rice in a pot", "the parliament passed a tax law")
	if near, far := cosine(v[0], v[1]), cosine(v[0], v[2]); near < far+0.2 {
		t.Errorf("rice to rice %.3f, rice to parliament %.3f", near, far)
	}
}

func TestOpen(t *testing.T) {
	for _, name := range Models() {
		m, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Open(m.Name()); err != nil || again.Name() != m.Name() {
			t.Errorf("Open(%q): %v, %v", m.Name(), again, err)
		}
	}
	for _, name := range []string{"local/huge", "local/static@ffffffff", ""} {
		if _, err := Open(name); err == nil {
			t.Errorf("Open(%q) found a model", name)
		}
	}
}

const benchText = `Every change is written to the log before anything else happens, and the index is whatever follows from it. A reader that
stops keeps its place; when it comes back it goes on from there, so nothing is lost and nothing is embedded twice. The store holds the entries of each document at
one version, and replaces them all at once, because an answer that mixes two versions of a paragraph is worse than an old one. Deletion is a change like any other. When a
better model appears, the same log is folded again into a second generation, beside the one that answers, and once it has caught up the two are compared on real
questions. Only then does the alias move, which takes a millisecond and can be undone as quickly. Rate limits, crashes, slow disks and duplicated deliveries are ordinary days: retries
wait as long as the provider asks, and a poisoned input is set aside with the reason.`

func BenchmarkCountWordPieces(b *testing.B) {
	n := 0
	for b.Loop() {
		n = CountWordPieces(benchText)
	}
	b.ReportMetric(float64(n), "tokens/text")
	b.SetBytes(int64(len(benchText)))
}

func BenchmarkStatic(b *testing.B) {
	s := newStatic(b)
	for _, n := range []int{1, 256} {
		inputs := make([]string, n)
		for i := range inputs {
			inputs[i] = benchText
		}
		b.Run(map[int]string{1: "one", 256: "batch"}[n], func(b *testing.B) {
			for b.Loop() {
				embed(b, s, inputs...)
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "texts/s")
		})
	}
}

func BenchmarkStaticQuery(b *testing.B) {
	s := newStatic(b)
	for b.Loop() {
		embed(b, s, "how long does a change take to become searchable?")
	}
}
