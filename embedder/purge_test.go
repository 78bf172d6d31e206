package embedder_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

func TestPurge(t *testing.T) {
	dir := t.TempDir()
	store := openCache(t, embedder.CacheConfig{Dir: dir})
	p := embeddertest.NewProvider()
	c := embedder.Cache(p, store)
	texts := inputs("doc", 20)
	mustAnswer(t, "first", ask(t.Context(), c, embedder.Index, texts...), texts...)
	secret, err := c.Embed(t.Context(), embedder.Index, texts[3:4])
	if err != nil {
		t.Fatal(err)
	}
	if n, err := embedder.Purge(t.Context(), c, embedder.Index, []string{texts[3], texts[5], "never embedded", ""}); n != 2 || err != nil {
		t.Fatalf("purged %d, %v", n, err)
	}
	if n, err := embedder.Purge(t.Context(), c, embedder.Index, texts[3:4]); n != 0 || err != nil {
		t.Errorf("again: purged %d, %v", n, err)
	}
	calls := len(p.Calls())
	mustAnswer(t, "the others", ask(t.Context(), c, embedder.Index, texts[6:]...), texts[6:]...)
	if len(p.Calls()) != calls {
		t.Error("a purge took others along, or embedded something")
	}
	store.Close()
	var needle []byte
	for _, x := range secret[0] {
		needle = binary.LittleEndian.AppendUint32(needle, math.Float32bits(x))
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		if content, err := os.ReadFile(f); err != nil || bytes.Contains(content, needle) {
			t.Errorf("%s still holds the vector, %v", f, err)
		}
	}
	store = openCache(t, embedder.CacheConfig{Dir: dir})
	p = embeddertest.NewProvider()
	c = embedder.Cache(p, store)
	mustAnswer(t, "reopened", ask(t.Context(), c, embedder.Index, texts...), texts...)
	if c.Hits() != 18 || c.Misses() != 2 {
		t.Errorf("%d hits, %d misses", c.Hits(), c.Misses())
	}
	if n, err := embedder.Purge(t.Context(), p, embedder.Index, texts); n != 0 || err != nil || len(p.Calls()) != 1 {
		t.Errorf("without a cache: %d, %v, %d calls", n, err, len(p.Calls()))
	}
}

// TestPurgeFindsPieces: a long input is cached as its pieces.
func TestPurgeFindsPieces(t *testing.T) {
	store := openCache(t, embedder.CacheConfig{Dir: t.TempDir()})
	long, err := embedder.Long(embedder.Cache(small{Hash: embedder.NewHash(64), t: t, most: 10}, store), embedder.LongSplit)
	if err != nil {
		t.Fatal(err)
	}
	input := strings.Repeat("these words are many ", 20)
	if _, err := long.Embed(t.Context(), embedder.Index, []string{input, "short"}); err != nil {
		t.Fatal(err)
	}
	pieces, left := 0, 0
	for store.Len() > 1 {
		n, err := embedder.Purge(t.Context(), long, embedder.Index, []string{input})
		if n == 0 || err != nil {
			t.Fatalf("purged %d, %v, %d are left", n, err, store.Len())
		}
		pieces, left = pieces+n, store.Len()
	}
	if pieces < 2 || left != 1 {
		t.Errorf("purged %d pieces, %d vectors are left", pieces, left)
	}
}
