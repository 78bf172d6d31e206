package openai_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/openai"
	"github.com/liverag/liverag/internal/mockprovider"
)

// noisy makes a provider whose vectors are off by so much.
func noisy(t testing.TB, dim int, by float64) http.Handler {
	t.Helper()
	p, err := mockprovider.New(mockprovider.Config{Dim: dim, Vectors: func(ctx context.Context, dim int, inputs []string) ([][]float32, error) {
		vectors, err := hashed(ctx, dim, inputs)
		random := rand.New(rand.NewPCG(5, 6))
		for _, v := range vectors {
			for d := range v {
				v[d] += float32(by * random.NormFloat64())
			}
		}
		return vectors, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSame(t *testing.T) {
	first := listening(t, mock(t, mockprovider.Config{}))
	first.MaxInput = 512
	poisoned := mock(t, mockprovider.Config{Poison: "Rückerstattung"})
	for _, tt := range []struct {
		name    string
		handler http.Handler
		change  func(*openai.Config)
		want    kind
		says    string
	}{
		{"the same", mock(t, mockprovider.Config{}), nil, "", ""},
		{"the same, otherwise put", mock(t, mockprovider.Config{}), func(c *openai.Config) { c.Encoding, c.MaxBatch, c.Model = openai.Float, 2, "mock-2" }, "", ""},
		{"another kernel", noisy(t, 64, .001), nil, "", ""},
		{"another quantization", noisy(t, 64, .02), nil, account, "embed documents differently: a cosine of 0.98"},
		{"another model", noisy(t, 64, 1), nil, account, "have %s serve the same weights"},
		{"another dimension", mock(t, mockprovider.Config{Dim: 48}), nil, account, "mock at %s has 48 dimensions, and mock at " + first.BaseURL + " has 64"},
		{"other questions", mock(t, mockprovider.Config{}), func(c *openai.Config) { c.QueryPrefix = "Represent this sentence for searching: " }, account, "embed questions differently"},
		{"shorter inputs", mock(t, mockprovider.Config{}), func(c *openai.Config) { c.MaxInput = 256 }, account, "reads 256 tokens of an input, and mock at " + first.BaseURL + " 512: give it as much context, or set openai.max_input to 256"},
		{"longer inputs", mock(t, mockprovider.Config{}), func(c *openai.Config) { c.MaxInput = 8192 }, "", ""},
		{"down", answers(says(200, strings.Replace(onlyVector, "[3,4]", "[3"+strings.Repeat(",0", 63)+"]", 1)), says(503, "", "Retry-After", "3")), nil, waits, "%s: openai: embed 7 inputs: 503"},
		{"refuses one", poisoned, func(c *openai.Config) { c.MaxBatch = 1 }, account, "can't be embedded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := listening(t, tt.handler)
			cfg.MaxInput = 512
			if tt.change != nil {
				tt.change(&cfg)
			}
			m, other := open(t, first), open(t, cfg)
			dims := [2]int{m.Dim(), other.Dim()}
			err := m.Same(t.Context(), other)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || kindOf(t, failure(t, err)) != tt.want || !strings.Contains(err.Error(), strings.ReplaceAll(tt.says, "%s", cfg.BaseURL)) || !strings.Contains(err.Error(), "compare "+cfg.BaseURL+" with "+first.BaseURL) {
				t.Errorf("%v", err)
			}
			if dims != [2]int{m.Dim(), other.Dim()} {
				t.Errorf("the dimensions are now %d and %d", m.Dim(), other.Dim())
			}
		})
	}
	unlimited := first
	unlimited.MaxInput = -1
	if err := open(t, unlimited).Same(t.Context(), open(t, first)); err == nil || !strings.Contains(err.Error(), "reads 512 tokens of an input, and mock at "+first.BaseURL+" any number") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := open(t, first).Same(ctx, open(t, first)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A failed look at a model is only an error: nothing of it is kept, neither by the model that is open nor for the next try.
func TestFailedOpenChangesNothing(t *testing.T) {
	healthy := mock(t, mockprovider.Config{})
	var now atomic.Pointer[http.Handler]
	set := func(h http.Handler) { now.Store(&h) }
	set(healthy)
	cfg := listening(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*now.Load()).ServeHTTP(w, r) }))
	m := open(t, cfg)
	for name, sick := range map[string]http.Handler{
		"down": says(503, ""), "another model": noisy(t, 48, 0), "refused": says(401, ""), "moved": says(307, "", "Location", "http://elsewhere.test/"), "a page": says(200, "<html>"),
		"NaN": answers(says(200, `{"data":[{"embedding":[1,NaN]}]}`)), "empty": answers(says(200, `{"data":[]}`)), "one number": answers(says(200, `{"data":[{"embedding":[1]}]}`)),
	} {
		set(sick)
		known := cfg
		known.Dim = 64
		if again, err := openai.Open(t.Context(), known); err == nil || again != nil {
			t.Errorf("%s: opened for an index of 64 dimensions", name)
		}
		if _, err := m.Embed(t.Context(), embedder.Index, []string{"a"}); err == nil || m.Dim() != 64 {
			t.Errorf("%s: %v, and %d dimensions", name, err, m.Dim())
		}
		set(healthy)
		if v, err := m.Embed(t.Context(), embedder.Query, []string{"a"}); err != nil || len(v[0]) != 64 {
			t.Errorf("%s: not well again: %v", name, err)
		}
		if again, err := openai.Open(t.Context(), known); err != nil || again.Dim() != 64 || again.Name() != m.Name() {
			t.Errorf("%s: %v", name, err)
		}
	}
}
