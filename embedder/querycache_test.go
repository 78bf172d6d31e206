package embedder_test

import (
	"fmt"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

func TestQueryCacheConforms(t *testing.T) {
	embeddertest.Run(t, func() embedder.Embedder { return embedder.QueryCache(embedder.NewHash(64), 2) })
}

func TestQueryCache(t *testing.T) {
	p := embeddertest.NewProvider()
	c := embedder.QueryCache(p, 2)
	question := func(text string) []float32 {
		t.Helper()
		v, err := c.Embed(t.Context(), embedder.Query, []string{text})
		if err != nil {
			t.Fatal(err)
		}
		mustAnswer(t, text, func() ([][]float32, error) { return v, nil }, text)
		return v[0]
	}
	question("a")[0] = 7 // the caller's own
	question("b")
	question("a")[0] = 7
	question("a")
	question("c") // b goes, a was used since
	question("a")
	if n := len(p.Calls()); n != 3 {
		t.Errorf("%d calls for a, b and c, which are kept two at a time", n)
	}
	question("b")
	if n := len(p.Calls()); n != 4 {
		t.Errorf("%d calls, b should have gone", n)
	}
	if c.Hits() != 3 || c.Misses() != 4 {
		t.Errorf("%d hits, %d misses", c.Hits(), c.Misses())
	}
	for range 2 {
		if _, err := c.Embed(t.Context(), embedder.Index, []string{"document"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(p.Calls()); n != 6 {
		t.Errorf("%d calls, documents should pass through", n)
	}
	if v, err := c.Embed(t.Context(), embedder.Query, []string{"x", "b", "y"}); err != nil {
		t.Error(err)
	} else {
		mustAnswer(t, "mixed", func() ([][]float32, error) { return v, nil }, "x", "b", "y")
	}
}

func BenchmarkQueryCache(b *testing.B) {
	c := embedder.QueryCache(embedder.NewHash(384), 1000)
	for i := range 1000 {
		c.Embed(b.Context(), embedder.Query, []string{fmt.Sprint("how long does it take? ", i)})
	}
	text := []string{"how long does it take? 500"}
	for b.Loop() {
		c.Embed(b.Context(), embedder.Query, text)
	}
}
