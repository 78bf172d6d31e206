package local

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/simd"
)

func newMiniLM(t testing.TB) *MiniLM {
	t.Helper()
	m, err := NewMiniLM()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMiniLMHash(t *testing.T) {
	sum := sha256.Sum256([]byte(miniLMFile + vocabText + unicodeText))
	if got := hex.EncodeToString(sum[:])[:len(miniLMHash)]; got != miniLMHash {
		t.Errorf("the files hash to %s but miniLMHash is %s: new weights need their own name", got, miniLMHash)
	}
}

// TestMiniLMKnown compares with what the original weights give in float32, in the model's own library.
func TestMiniLMKnown(t *testing.T) {
	got := embed(t, newMiniLM(t), "hello world")[0]
	for i, want := range []float32{-0.03447721, 0.03102315, 0.00673495, 0.02610898, -0.03936205} {
		if d := math.Abs(float64(got[i] - want)); d > 8e-3 {
			t.Errorf("number %d is %v, want %v", i, got[i], want)
		}
	}
}

type reference struct {
	Text   string `json:"text"`
	Pieces int    `json:"pieces"`
	Vector string `json:"vector"`
}

// vector reads 384 little-endian float16.
func (r reference) vector(t *testing.T) []float32 {
	raw, err := base64.StdEncoding.DecodeString(r.Vector)
	if err != nil || len(raw) != 2*384 {
		t.Fatalf("a reference vector of %d bytes: %v", len(raw), err)
	}
	v := make([]float32, len(raw)/2)
	for i := range v {
		h := binary.LittleEndian.Uint16(raw[2*i:])
		exponent, fraction := int(h>>10&31), float64(h&1023)
		x := math.Ldexp(1024+fraction, exponent-25)
		if exponent == 0 {
			x = math.Ldexp(fraction, -24)
		}
		if h>>15 == 1 {
			x = -x
		}
		v[i] = float32(x)
	}
	return v
}

func readReferences(t *testing.T, path string) []reference {
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []reference
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r reference
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// checkReferences fails where a vector's cosine to the reference is below .998.
func checkReferences(t *testing.T, m *MiniLM, all []reference) {
	texts := make([]string, len(all))
	for i := range all {
		texts[i] = all[i].Text
		if n := min(m.CountTokens(texts[i]), m.MaxInput()); n != all[i].Pieces {
			t.Errorf("%.40q: %d word pieces, want %d", texts[i], n, all[i].Pieces)
		}
	}
	least, sum := 1., 0.
	for i, v := range embed(t, m, texts...) {
		c := cosine(v, all[i].vector(t)) / math.Sqrt(cosine(all[i].vector(t), all[i].vector(t)))
		if c < .998 {
			t.Errorf("%.40q: cosine %.5f", texts[i], c)
		}
		least, sum = min(least, c), sum+c
	}
	t.Logf("%d texts, kernel %s: cosine %.5f in the mean, %.5f at least", len(all), simd.Kernel(), sum/float64(len(all)), least)
}

// TestMiniLMReference compares with float32 vectors that make-minilm-reference.py made: of testdata, by every kernel, or of another file that LIVERAG_MINILM_REFERENCE names.
func TestMiniLMReference(t *testing.T) {
	m := newMiniLM(t)
	if path := os.Getenv("LIVERAG_MINILM_REFERENCE"); path != "" {
		checkReferences(t, m, readReferences(t, path))
		return
	}
	all := readReferences(t, "testdata/minilm.jsonl")
	for _, name := range simd.Kernels() {
		t.Run(name, func(t *testing.T) {
			defer simd.Use(name)()
			some := all
			if name == "go" {
				some = all[:5] // it is slow
			}
			checkReferences(t, m, some)
		})
	}
}

// TestMiniLMKernels: a vector is nearly the same whatever the processor has.
func TestMiniLMKernels(t *testing.T) {
	m := newMiniLM(t)
	texts := []string{"hello world", "How long does a change take to become searchable?", "Der Zug fährt um 8 Uhr.", "func main() { fmt.Println(42) }"}
	want := embed(t, m, texts...)
	for _, name := range simd.Kernels() {
		restore := simd.Use(name)
		for i, v := range embed(t, m, texts...) {
			if c := cosine(v, want[i]); c < 1-1e-6 {
				t.Errorf("%s and %s, %q: cosine %.8f", simd.Kernels()[0], name, texts[i], c)
			}
		}
		restore()
	}
}

// TestMiniLMAlone: a text's vector is the same, to the last bit, whatever is embedded beside it.
func TestMiniLMAlone(t *testing.T) {
	m := newMiniLM(t)
	texts := []string{"a", benchText, "two boats", strings.Repeat(benchText, 3), "How long does a change take?", benchText[:300], benchText[100:800], "z", "日本語の文章です。"}
	for i := range 40 {
		texts = append(texts, fmt.Sprintf("sentence number %d %s", i, strings.Repeat("and more ", i)))
	}
	together := embed(t, m, texts...)
	slices.Reverse(texts)
	reversed := embed(t, m, texts...)
	slices.Reverse(reversed)
	slices.Reverse(texts)
	for i, text := range texts {
		alone := embed(t, m, text)[0]
		if !slices.Equal(alone, together[i]) || !slices.Equal(alone, reversed[i]) {
			t.Errorf("%.30q: alone and among others differ", text)
		}
	}
}

// TestMiniLMLong: what is beyond 256 word pieces has no influence, what is before has.
func TestMiniLMLong(t *testing.T) {
	m := newMiniLM(t)
	words := func(n int, last string) string { return strings.Repeat("boat ", n) + last }
	v := embed(t, m, words(254, ""), words(254, "fish"), words(253, "fish"), words(20_000, "fish"))
	if m.CountTokens(words(254, "")) != m.MaxInput() {
		t.Fatal("the test counts wrong")
	}
	if !slices.Equal(v[0], v[1]) || !slices.Equal(v[0], v[3]) || slices.Equal(v[0], v[2]) {
		t.Error("an input is not cut at 256 word pieces")
	}
}

func TestMiniLMZero(t *testing.T) {
	for i, v := range embed(t, newMiniLM(t), "", " \n", "\x00\x01", "boat", "\u3000") {
		zero := !slices.ContainsFunc(v, func(x float32) bool { return x != 0 })
		if zero != (i != 3) {
			t.Errorf("input %d: zero is %t", i, zero)
		}
	}
}

func TestMiniLMMeaning(t *testing.T) {
	v := embed(t, newMiniLM(t), "how do I cook rice", "boiling rice in a pot", "the parliament passed a tax law")
	if near, far := cosine(v[0], v[1]), cosine(v[0], v[2]); near < far+0.4 {
		t.Errorf("rice to rice %.3f, rice to parliament %.3f", near, far)
	}
}

func TestWeightsDamaged(t *testing.T) {
	change := func(at int, to byte) string {
		b := []byte(miniLMFile)
		b[at] = to
		return string(b)
	}
	for name, c := range map[string]struct{ file, says string }{
		"empty":      {"", "do not begin"},
		"other file": {strings.Repeat("x", 1000), "do not begin"},
		"version":    {change(4, 9), "version 9"},
		"one bit":    {change(len(miniLMFile)/2, miniLMFile[len(miniLMFile)/2]^1), "checksum"},
		"cut off":    {miniLMFile[:len(miniLMFile)-64], "checksum"},
		"heads":      {change(32, 7), "7 heads"},
		"layers":     {change(28, 7), "don't fit"},
		"fewer":      {change(28, 5), "don't fit"},
	} {
		if _, err := readWeights(c.file); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMiniLMQueryFirst: with one processor, busy with a replay, a question is worked on after the unit at hand, then live documents, then the replay.
func TestMiniLMQueryFirst(t *testing.T) {
	shared := newMiniLM(t)
	m := &MiniLM{pieces: shared.pieces, weights: shared.weights, gate: newGate(func() int { return 1 })}
	m.rooms.New = func() any { return newRoom(m.weights) }

	// Every unit of work asks its ctx whether it has ended: that is the record of whose units ran.
	var mu sync.Mutex
	var looks []string
	look := func(name string) int {
		mu.Lock()
		defer mu.Unlock()
		looks = append(looks, name)
		return len(looks)
	}
	from := 0
	var asking sync.WaitGroup
	come := func(name string, role embedder.Role, lane embedder.Lane) {
		asking.Go(func() {
			ctx := &hookContext{Context: embedder.WithLane(t.Context(), lane), hook: func() { look(name) }}
			if _, err := m.Embed(ctx, role, []string{"how long does it take?"}); err != nil {
				t.Error(err)
			}
		})
	}
	ctx := &hookContext{Context: embedder.WithLane(t.Context(), embedder.Replay), hook: func() {
		if look("replay") != 50 {
			return
		}
		// In the middle of a unit the others come and queue up.
		come("second replay", embedder.Index, embedder.Replay)
		come("live", embedder.Index, embedder.Live)
		come("question", embedder.Query, embedder.Live)
		for waiting := 0; waiting < 3; runtime.Gosched() {
			m.gate.mu.Lock()
			waiting = len(m.gate.waiting[0]) + len(m.gate.waiting[1]) + len(m.gate.waiting[3])
			m.gate.mu.Unlock()
		}
		mu.Lock()
		from = len(looks)
		mu.Unlock()
	}}
	if _, err := m.Embed(ctx, embedder.Index, []string{benchText}); err != nil {
		t.Fatal(err)
	}
	asking.Wait()

	// A call's last look comes after it has left, beside the next one's first.
	for _, name := range []string{"replay", "second replay", "live", "question"} {
		for i := len(looks) - 1; i >= 0; i-- {
			if looks[i] == name {
				looks = slices.Delete(looks, i, i+1)
				break
			}
		}
	}
	order := slices.Compact(slices.Clone(looks[from:]))
	if want := []string{"question", "live", "replay", "second replay"}; !slices.Equal(order, want) {
		t.Errorf("units ran for %q, want %q", order, want)
	}
}

// hookContext calls hook whenever it is asked whether it has ended.
type hookContext struct {
	context.Context
	hook func()
}

func (c *hookContext) Err() error {
	c.hook()
	return c.Context.Err()
}

// TestMiniLMCancelled ends ctx in the middle of the work, from within it. The bubble ends only when the work's goroutines have.
func TestMiniLMCancelled(t *testing.T) {
	m := newMiniLM(t)
	texts := make([]string, 50)
	for i := range texts {
		texts[i] = benchText
	}
	synctest.Test(t, func(t *testing.T) {
		ctx := &countingContext{Context: t.Context(), left: 200}
		v, err := m.Embed(ctx, embedder.Index, texts)
		if !errors.Is(err, context.Canceled) || v != nil {
			t.Errorf("%d vectors, %v", len(v), err)
		}
		if asked := ctx.asked(); asked > 200+4*runtime.GOMAXPROCS(0)+len(texts) {
			t.Errorf("it went on: ctx was asked %d times", asked)
		}
	})
	embed(t, m, "and another call works")
}
