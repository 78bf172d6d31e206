package mockprovider

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// lengths embeds an input as its length and ones.
func lengths(_ context.Context, dim int, inputs []string) ([][]float32, error) {
	out := make([][]float32, len(inputs))
	for i, input := range inputs {
		out[i] = slices.Repeat([]float32{1}, dim)
		out[i][0] = float32(len(input))
	}
	return out, nil
}

func provider(t testing.TB, c Config) *Provider {
	t.Helper()
	c.Vectors = lengths
	if c.Dim == 0 {
		c.Dim = 4
	}
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask sends a body without a network.
func ask(p *Provider, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/v1/embeddings", strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

type answer struct {
	Object string
	Data   []struct {
		Object    string
		Index     *int
		Embedding json.RawMessage
	}
	Model string
	Usage struct {
		Prompt int `json:"prompt_tokens"`
		Total  int `json:"total_tokens"`
	}
	Error *struct{ Message, Type, Param, Code string }
}

func read(t testing.TB, w *httptest.ResponseRecorder) answer {
	t.Helper()
	var a answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return a
}

const one = `{"model":"m","input":"12345678"}`

func TestAnswer(t *testing.T) {
	p := provider(t, Config{})
	a := read(t, ask(p, `{"model":"m","input":["abcde","b"]}`))
	if a.Object != "list" || a.Model != "m" || len(a.Data) != 2 || *a.Data[1].Index != 1 || string(a.Data[0].Embedding) != "[5,1,1,1]" || a.Usage.Prompt != 3 || a.Usage.Total != 3 {
		t.Errorf("got %+v", a)
	}
	a = read(t, ask(p, `{"model":"m","input":"abc","encoding_format":"base64","dimensions":2}`))
	var text string
	json.Unmarshal(a.Data[0].Embedding, &text)
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != 8 || math.Float32frombits(binary.LittleEndian.Uint32(b)) != 3 {
		t.Errorf("got %s", a.Data[0].Embedding)
	}
	// Tokens, as LangChain sends them.
	for _, input := range []string{`[17,99,4]`, `[[17,99,4]]`} {
		if a = read(t, ask(p, `{"model":"m","input":`+input+`}`)); len(a.Data) != 1 || a.Usage.Prompt != 3 {
			t.Errorf("%s: %+v", input, a)
		}
	}
	if s := p.Stats(); s.Requests != 4 || s.Answered != 4 || s.Inputs != 5 || s.Tokens != 3+1+3+3 || s.InFlight != 0 || s.MostInFlight != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestRefusals(t *testing.T) {
	p := provider(t, Config{Key: "k", Models: []string{"m"}, NoBase64: true, MaxDim: 8, MaxInputs: 2, MaxInputTokens: 3, MaxRequestTokens: 4, Poison: "bad"})
	for _, tt := range []struct {
		body              string
		status            int
		code, param, says string
	}{
		{`{"model":"m","input":`, 400, "", "", "parse"},
		{`{"input":"a"}`, 400, "", "model", "model"},
		{`{"model":"x","input":"a"}`, 404, "model_not_found", "", "does not exist"},
		{`{"model":"m"}`, 400, "", "input", "string"},
		{`{"model":"m","input":[]}`, 400, "", "input", "batch size 0"},
		{`{"model":"m","input":["a","b","c"]}`, 400, "", "input", "maximum is 2 inputs"},
		{`{"model":"m","input":["a",""]}`, 400, "", "input", "input[1]"},
		{`{"model":"m","input":"1234567890123"}`, 400, "context_length_exceeded", "input", "maximum context length is 3"},
		{`{"model":"m","input":["123456789","123456789"]}`, 400, "max_tokens_per_request", "input", "max 4 tokens per request"},
		{`{"model":"m","input":["a bad one"]}`, 400, "", "input", "can't be embedded"},
		{`{"model":"m","input":"a","encoding_format":"base64"}`, 400, "", "encoding_format", "base64"},
		{`{"model":"m","input":"a","encoding_format":"int8"}`, 400, "", "encoding_format", "int8"},
		{`{"model":"m","input":"a","dimensions":9}`, 400, "", "dimensions", "from 1 to 8"},
	} {
		w := ask(p, tt.body, "Authorization", "Bearer k")
		a := read(t, w)
		if w.Code != tt.status || a.Error == nil || a.Error.Code != tt.code || a.Error.Param != tt.param || !strings.Contains(a.Error.Message, tt.says) {
			t.Errorf("%s: %d %s", tt.body, w.Code, w.Body)
		}
	}
	for _, key := range []string{"", "Bearer other"} {
		if w := ask(p, one, "Authorization", key); w.Code != 401 || read(t, w).Error.Code != "invalid_api_key" {
			t.Errorf("%q: %d %s", key, w.Code, w.Body)
		}
	}
	if s := p.Stats(); s.Refused != 15 || s.Answered != 0 {
		t.Errorf("stats %+v", s)
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/embeddings", strings.NewReader(one)))
	if w.Code != 404 || !strings.Contains(w.Body.String(), "/v1") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/models", nil))
	if !strings.Contains(w.Body.String(), `"id":"m"`) || !strings.Contains(w.Body.String(), `"max_model_len":3`) {
		t.Errorf("models: %s", w.Body)
	}
}

// The allowances, to the microsecond of the bubble's clock.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider(t, Config{RPM: 120, TPM: 600, Burst: 5 * time.Second}) // 2 requests and 10 tokens a second; at once 10 and 50
		status := func(tokens int) int {
			return ask(p, fmt.Sprintf(`{"model":"m","input":%q}`, strings.Repeat("x", 4*tokens))).Code
		}
		for range 10 {
			if got := status(1); got != 200 {
				t.Fatalf("within the burst: %d", got)
			}
		}
		w := ask(p, one)
		if h := w.Header(); w.Code != 429 || h.Get("Retry-After") != "1" || h.Get("X-Ratelimit-Limit-Requests") != "120" || h.Get("X-Ratelimit-Remaining-Requests") != "0" ||
			h.Get("X-Ratelimit-Remaining-Tokens") != "40" || h.Get("X-Ratelimit-Reset-Requests") != "5s" || h.Get("X-Ratelimit-Reset-Tokens") != "1s" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		time.Sleep(500*time.Millisecond - time.Microsecond)
		if got := status(1); got != 429 {
			t.Errorf("a microsecond too early: %d", got)
		}
		time.Sleep(time.Microsecond)
		if got := status(1); got != 200 {
			t.Errorf("in time: %d", got)
		}
		time.Sleep(time.Minute)
		if got := status(500); got != 200 {
			t.Errorf("more tokens than a burst has, when it is full: %d", got)
		}
		if got := status(1); got != 429 {
			t.Errorf("in debt: %d", got)
		}
		time.Sleep(46 * time.Second) // 450 tokens of debt, and one
		if got := status(1); got != 200 {
			t.Errorf("out of debt: %d", got)
		}
		if s := p.Stats(); s.RateLimited != 3 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestRetryHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for how, want := range map[string]string{"seconds": "Retry-After: 2", "ms": "Retry-After-Ms: 1500", "date": "Retry-After: Sat, 01 Jan 2000 00:00:03 GMT", "reset": "X-Ratelimit-Reset-Requests: 1.5s"} {
			p := provider(t, Config{RPM: 40, Burst: time.Millisecond, RetryAfter: how})
			ask(p, one)
			w := ask(p, one)
			name, value, _ := strings.Cut(want, ": ")
			if w.Code != 429 || w.Header().Get(name) != value {
				t.Errorf("%s: %d %v", how, w.Code, w.Header())
			}
		}
	})
}

func TestLatencyAndCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider(t, Config{Latency: time.Second, PerToken: 100 * time.Millisecond, MaxInFlight: 1})
		done := make(chan int, 1)
		start := time.Now()
		go func() { done <- ask(p, one).Code }()
		synctest.Wait()
		if w := ask(p, one); w.Code != 429 || time.Since(start) != 0 {
			t.Errorf("the second got %d", w.Code)
		}
		if code := <-done; code != 200 || time.Since(start) != 1200*time.Millisecond {
			t.Errorf("%d after %v", code, time.Since(start))
		}
		p = provider(t, Config{Jitter: time.Second, Seed: 3})
		var took []time.Duration
		for range 3 {
			start = time.Now()
			ask(p, one)
			took = append(took, time.Since(start))
		}
		if took[0] == took[1] || slices.Max(took) > time.Second {
			t.Errorf("jitter: %v", took)
		}
	})
}

func TestFaults(t *testing.T) {
	body := `{"model":"m","input":["a","bb","ccc","dddd","eeeee"]}`
	answered := func(script string) answer { return read(t, ask(provider(t, Config{Script: []string{script}}), body)) }
	vectors := func(a answer) (out []string) {
		for _, d := range a.Data {
			out = append(out, string(d.Embedding))
		}
		return out
	}
	right := answered("ok")
	for kind, status := range map[string]int{"429": 429, "quota": 429, "500": 500, "503": 503} {
		p := provider(t, Config{Script: []string{kind}})
		if w := ask(p, body); w.Code != status || read(t, w).Error.Message == "" {
			t.Errorf("%s: %d %s", kind, w.Code, w.Body)
		}
		if w := ask(p, body); w.Code != 200 || p.Stats().Faults[kind] != 1 {
			t.Errorf("after %s: %d, %+v", kind, w.Code, p.Stats())
		}
	}
	if a := answered("quota"); a.Error.Code != "insufficient_quota" {
		t.Errorf("quota: %+v", a.Error)
	}
	if w := ask(provider(t, Config{Script: []string{"html"}}), body); w.Code != 200 || !strings.HasPrefix(w.Body.String(), "<!doctype") {
		t.Errorf("html: %s", w.Body)
	}
	if w := ask(provider(t, Config{Script: []string{"nan"}}), body); strings.Count(w.Body.String(), "NaN") != 1 {
		t.Errorf("nan: %s", w.Body)
	}
	if v := vectors(answered("zero")); !slices.Contains(v, "[0,0,0,0]") {
		t.Errorf("zero: %v", v)
	}
	if v := vectors(answered("length")); v[0] != "[1,1,1]" {
		t.Errorf("length: %v", v)
	}
	if v := vectors(answered("count")); !slices.Equal(v, vectors(right)[:4]) {
		t.Errorf("count: %v", v)
	}
	a := answered("shuffle")
	if slices.Equal(vectors(a), vectors(right)) {
		t.Error("shuffle: the order is as it was")
	}
	for _, d := range a.Data {
		if string(d.Embedding) != vectors(right)[*d.Index] {
			t.Errorf("shuffle: %d has the vector %s", *d.Index, d.Embedding)
		}
	}
	if a := answered("noindex"); a.Data[2].Index != nil || !slices.Equal(vectors(a), vectors(right)) {
		t.Errorf("noindex: %+v", a)
	}
	if a := answered("model"); a.Model != "another-m" {
		t.Errorf("model: %s", a.Model)
	}
}

// Faults of the connection, on a real one.
func TestBrokenConnections(t *testing.T) {
	for kind, check := range map[string]func(*http.Response, error) bool{
		"cut": func(_ *http.Response, err error) bool { return errors.Is(err, io.EOF) },
		"truncate": func(r *http.Response, err error) bool {
			if err != nil {
				return false
			}
			_, err = io.ReadAll(r.Body)
			return errors.Is(err, io.ErrUnexpectedEOF)
		},
		"hang": func(_ *http.Response, err error) bool { return errors.Is(err, context.DeadlineExceeded) },
		"drip": func(r *http.Response, err error) bool {
			if err != nil {
				return false
			}
			b, err := io.ReadAll(r.Body)
			return err == nil && json.Valid(b)
		},
	} {
		t.Run(kind, func(t *testing.T) {
			p := provider(t, Config{Faults: []Fault{{kind, 1}}, Slow: 10 * time.Millisecond})
			s := httptest.NewServer(p)
			defer s.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if kind == "hang" {
				ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
				defer cancel()
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/v1/embeddings", strings.NewReader(one))
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if !check(res, err) {
				t.Errorf("got %v, %v", res, err)
			}
			if res != nil {
				res.Body.Close()
			}
		})
	}
}

// The same seed meets the same faults, in the shares that were asked for.
func TestSharesAndSeed(t *testing.T) {
	faults, err := ParseFaults("503=0.2, model=0.3")
	if err != nil {
		t.Fatal(err)
	}
	run := func(seed uint64) (out string, stats Stats) {
		p := provider(t, Config{Faults: faults, Seed: seed})
		for range 2000 {
			w := ask(p, one)
			out += string('a' + rune(w.Code%7) + rune(strings.Count(w.Body.String(), "another")))
		}
		return out, p.Stats()
	}
	a, stats := run(5)
	b, _ := run(5)
	c, _ := run(6)
	if a != b || a == c {
		t.Error("the seed does not decide")
	}
	if n := stats.Faults["503"]; n < 330 || n > 470 {
		t.Errorf("%d of 2000 were 503", n)
	}
	if n := stats.Faults["model"]; n < 510 || n > 690 {
		t.Errorf("%d of 2000 had another model", n)
	}
}

func TestParse(t *testing.T) {
	script, err := ParseScript("ok*2, 503,hang*2,")
	if err != nil || fmt.Sprint(script) != "[ok ok 503 hang hang]" {
		t.Errorf("got %v, %v", script, err)
	}
	for _, bad := range []string{"oops", "503*0", "503*x", "503*-1", "503*99999999", "ok=1"} {
		if _, err := ParseScript(bad); err == nil {
			t.Errorf("script %q was taken", bad)
		}
	}
	for _, bad := range []string{"503", "503=2", "503=-1", "503=NaN", "ok=0.1", "503=0.6,500=0.6"} {
		if _, err := ParseFaults(bad); err == nil {
			t.Errorf("faults %q were taken", bad)
		}
	}
	for name, bad := range map[string]Config{
		"dimension": {Dim: -1}, "rpm": {RPM: -1}, "retry": {RetryAfter: "x"}, "kind": {Faults: []Fault{{"x", 0.1}}}, "shares": {Faults: []Fault{{"503", 0.6}, {"500", 0.6}}},
	} {
		if _, err := New(bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
