package openai

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	client "github.com/sashabaranov/go-openai"

	"github.com/liverag/liverag/internal/bpe"
)

// body is an answer of random unit-like vectors.
func body(t testing.TB, inputs, dim int, packed bool) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	data := make([]map[string]any, inputs)
	for i := range data {
		vector := make([]float32, dim)
		var raw []byte
		for d := range vector {
			vector[d] = float32(r.NormFloat64() / math.Sqrt(float64(dim)))
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(vector[d]))
		}
		data[i] = map[string]any{"object": "embedding", "index": i, "embedding": vector}
		if packed {
			data[i]["embedding"] = base64.StdEncoding.EncodeToString(raw)
		}
	}
	out, err := json.Marshal(map[string]any{"object": "list", "data": data, "model": "m", "usage": map[string]int{"prompt_tokens": 12, "total_tokens": 12}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Both encodings hold the same vectors, to the bit.
func TestEncodingsAgree(t *testing.T) {
	a, err := decode(body(t, 5, 1536, true), 5, 1536)
	b, err2 := decode(body(t, 5, 1536, false), 5, 1536)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	for i := range a.vectors {
		if len(a.vectors[i]) != 1536 || !slices.Equal(a.vectors[i], b.vectors[i]) {
			t.Errorf("vector %d differs", i)
		}
	}
	if a.tokens != 12 || a.model != "m" || len(b.vectors) != 5 {
		t.Errorf("got %d tokens of %s", a.tokens, a.model)
	}
}

// Numbers are rounded as strconv rounds them, those halfway between two of float32 too.
func TestNumbers(t *testing.T) {
	check := func(text string) {
		want, err := strconv.ParseFloat(text, 32)
		if err != nil {
			want = math.Inf(1)
		}
		r := reader{b: []byte(text + ",")}
		got, err := r.number()
		if err != nil || math.Float32bits(got) != math.Float32bits(float32(want)) || r.i != len(text) {
			t.Errorf("%s: %v at %d, %v; want %v", text, got, r.i, err, float32(want))
		}
	}
	for _, text := range []string{"0", "-0", "0.0", "1", "-1.5", "9007199254740992", "9007199254740993", "0.00000000000000000000001", "1e-45", "1.1754943e-38", "0.000000000000000000000000000000000000011754942",
		"123456789012345678901234567890", "3.4028236e38", "1e39", "1E5", "16777217", "16777219", "0.1234567890123456789"} {
		check(text)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 50_000 {
		x := math.Float32frombits(r.Uint32() & 0x7fff_ffff)
		if next := math.Nextafter32(x, 2*x); !math.IsInf(float64(x), 0) && x == x && x < 1e18 && x > 1e-6 {
			check(strconv.FormatFloat((float64(x)+float64(next))/2, 'f', -1, 64))
			check(strconv.FormatFloat(float64(x), 'f', -1, 32))
		}
		check(strconv.FormatFloat(r.NormFloat64()/40, 'f', -1, 64)) // as Python prints them
		check(strconv.FormatFloat(r.NormFloat64()/1e5, 'g', -1, 64))
	}
}

// FuzzDecode holds the reader to encoding/json wherever that finds vectors.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		string(`{"data":[{"index":0,"embedding":[3,4]}],"model":"mock","usage":{"prompt_tokens":5,"total_tokens":6}}`),
		`{"data":[{"embedding":"mpkZP83MTD8="},{"embedding":"mpkZP83MTD8\u003d","index":1}],"error":null}`,
		`{"data":[{"embedding":[NaN,-Infinity,null,1e99,-0,1E-400]}],"x":[{"y":"\\\""},true,false,null,1.5e3]}`,
		`{"error":{"message":"x","code":429}}`, `{}`, `[]`, ``, `{"data":[{"embedding":["`, "\ufeff{\"data\":null}", `{"d\u0061ta":[{}],"data":[]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decode(b, 3, 2)
		if err != nil {
			if len(got.vectors) > 0 || !errors.Is(err, errMalformed) {
				t.Fatalf("%v with %d vectors", err, len(got.vectors))
			}
		}
		want, known := reference(b)
		if !known || err != nil && strings.Contains(err.Error(), "nested") {
			return
		}
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		if len(got.vectors) != len(want) {
			t.Fatalf("%d vectors, want %d", len(got.vectors), len(want))
		}
		for i := range want {
			if !slices.EqualFunc(got.vectors[i], want[i], func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) }) {
				t.Fatalf("vector %d is %v, want %v", i, got.vectors[i], want[i])
			}
		}
		if len(want) > 0 {
			if ordered, err := got.ordered(); err == nil && slices.ContainsFunc(ordered, func(v []float32) bool { return v == nil }) && !slices.ContainsFunc(want, func(v []float32) bool { return v == nil }) {
				t.Fatal("a vector got lost in ordering")
			}
		}
	})
}

// reference reads vectors by package json; not known where it has another idea of what is allowed.
func reference(b []byte) (vectors [][]float32, known bool) {
	var top struct{ fields map[string]json.RawMessage }
	if json.Unmarshal(b, &top.fields) != nil || top.fields == nil {
		return nil, false
	}
	var list []map[string]json.RawMessage
	if raw, ok := top.fields["data"]; !ok || json.Unmarshal(raw, &list) != nil || list == nil {
		return nil, false
	}
	for _, one := range list {
		var numbers []json.Number
		var text string
		var vector []float32
		switch {
		case one == nil || one["embedding"] == nil:
			return nil, false
		case json.Unmarshal(one["embedding"], &text) == nil && one["embedding"][0] == '"':
			raw, err := base64.StdEncoding.DecodeString(text)
			if err != nil || len(raw)%4 != 0 || strings.ContainsAny(text, "\r\n") {
				return nil, false
			}
			for i := 0; i < len(raw); i += 4 {
				vector = append(vector, math.Float32frombits(binary.LittleEndian.Uint32(raw[i:])))
			}
		case one["embedding"][0] == '[' && json.Unmarshal(one["embedding"], &numbers) == nil && !strings.ContainsAny(string(one["embedding"]), `"n`):
			for _, n := range numbers {
				x, err := strconv.ParseFloat(string(n), 32)
				if errors.Is(err, strconv.ErrRange) {
					x = math.Inf(1)
				}
				vector = append(vector, float32(x))
			}
		default:
			return nil, false
		}
		vectors = append(vectors, vector)
	}
	return vectors, true
}

// FuzzSpoken: whatever a server says when it refuses, it becomes a message of one line.
func FuzzSpoken(f *testing.F) {
	f.Add([]byte(`{"error":{"message":"a\nb","type":"t","code":7,"param":["x"]}}`), "1.5", "in 3s", "try again in 1m2s")
	f.Add([]byte(`{"error":"text","detail":[{"loc":["body"]}]}`), "Wed, 21 Oct 2015 07:28:00 GMT", "1700000000", "retry after 20 milliseconds")
	f.Add([]byte(`{"error":null,"message":["a","b"]}`), "-1", "1e400", "wait")
	m, err := configured(Config{Model: "m", Key: "sk-secret-secret"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, after, reset, message string) {
		h := http.Header{"Retry-After": {after}, "X-Ratelimit-Remaining-Tokens": {"0"}, "X-Ratelimit-Reset-Tokens": {reset}}
		if wait := retryAfter(h, message, time.Unix(1e9, 0)); wait < 0 || wait > maxRetryAfter {
			t.Fatalf("wait %v", wait)
		}
		for status := range map[int]bool{400: true, 422: true, 429: true, 500: true} {
			r := m.refused(&http.Response{StatusCode: status, Header: h}, b)
			if text := r.Error(); strings.ContainsAny(r.message, "\r\n\x00") || strings.Contains(text, "sk-secret-secret") {
				t.Fatalf("%q", text)
			}
			for _, n := range []int{1, 3} {
				if failed := m.classified("op", r, n); failed == nil {
					t.Fatal("no failure")
				}
			}
		}
	})
}

// Estimate may be too high, and by how much is known; it may not be too low, or inputs that the model cuts off would pass for whole ones.
func TestEstimate(t *testing.T) {
	encoding, err := bpe.Load("cl100k_base")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{
		"German":   strings.Repeat("Die Rückerstattung dauert fünf Werktage, sofern die Rechnungsnummer übermittelt wurde. ", 20),
		"Japanese": strings.Repeat("返金には五営業日かかります。請求書番号をお知らせください。", 20),
		"Russian":  strings.Repeat("Возврат средств занимает пять рабочих дней после получения заявления. ", 20),
		"hex":      strings.Repeat("3f2a9bc4e1d07755aa ", 40),
		"base64":   strings.Repeat("QWxhZGRpbjpvcGVuIHNlc2FtZQx7Zp", 20),
		"emoji":    strings.Repeat("👩‍👩‍👧🏽🇩🇪", 20),
		"symbols":  strings.Repeat("=> {[(~)]} != ||\n\t", 20),
		"Hindi":    strings.Repeat("धनवापसी में पाँच कार्य दिवस लगते हैं। ", 20),
		"Thai":     strings.Repeat("การคืนเงินใช้เวลาห้าวันทำการ ", 20),
	}
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(paths) == 0 {
		t.Fatal("no documents", err)
	}
	for _, path := range append(paths, "openai.go") {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(path)] = string(b)
	}
	for name, text := range texts {
		estimate, is := Estimate(text), encoding.Count(text)
		t.Logf("%-16s %6d tokens, estimated %6d (%.2f)", name, is, estimate, float64(estimate)/float64(is))
		if estimate < is {
			t.Errorf("%s: estimated %d tokens, and there are %d", name, estimate, is)
		}
		if estimate > 2*is && is > 400 && strings.HasSuffix(name, ".md") {
			t.Errorf("%s: estimated %d tokens for %d", name, estimate, is)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	const inputs, dim = 64, 1536
	for _, c := range []struct {
		name   string
		packed bool
		decode func([]byte) error
	}{
		{"base64", true, func(body []byte) error { _, err := decode(body, inputs, dim); return err }},
		{"float", false, func(body []byte) error { _, err := decode(body, inputs, dim); return err }},
		{"base64-go-openai", true, func(body []byte) error {
			var r client.EmbeddingResponseBase64
			if err := json.Unmarshal(body, &r); err != nil {
				return err
			}
			_, err := r.ToEmbeddingResponse()
			return err
		}},
		{"float-go-openai", false, func(body []byte) error { var r client.EmbeddingResponse; return json.Unmarshal(body, &r) }},
	} {
		body := body(b, inputs, dim, c.packed)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := c.decode(body); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*inputs/b.Elapsed().Seconds(), "inputs/s")
		})
	}
}

func BenchmarkEstimate(b *testing.B) {
	text := strings.Repeat(fmt.Sprintln("The index follows the log, and answers show what was written moments ago."), 100)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		Estimate(text)
	}
}
