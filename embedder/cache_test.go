package embedder_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

func openCache(t testing.TB, cfg embedder.CacheConfig) *embedder.VectorCache {
	t.Helper()
	if cfg.Warn == nil {
		cfg.Warn = func(err error) { t.Errorf("warning: %v", err) }
	}
	c, err := embedder.OpenCache(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCacheConforms(t *testing.T) {
	t.Run("fresh", func(t *testing.T) {
		embeddertest.Run(t, func() embedder.Embedder {
			return embedder.Cache(embedder.NewHash(64), openCache(t, embedder.CacheConfig{Dir: t.TempDir()}))
		})
	})
	t.Run("shared", func(t *testing.T) {
		store := openCache(t, embedder.CacheConfig{Dir: t.TempDir()})
		embeddertest.Run(t, func() embedder.Embedder { return embedder.Cache(embedder.NewHash(64), store) })
	})
}

func TestCacheLastsAcrossProcesses(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		store := openCache(t, embedder.CacheConfig{Dir: dir})
		p := embeddertest.NewProvider()
		c := embedder.Cache(p, store)
		texts := inputs("doc", 100*(round+1))
		for range 2 {
			mustAnswer(t, "call", ask(t.Context(), c, embedder.Index, texts...), texts...)
		}
		if n := len(p.Calls()); n != 1 {
			t.Errorf("round %d: %d calls", round, n)
		}
		if n := len(p.Calls()[0].Inputs); n != 100 {
			t.Errorf("round %d: the model was asked for %d inputs, 100 are new", round, n)
		}
		if c.Misses() != 100 || c.Hits() != int64(100*round+100*(round+1)) {
			t.Errorf("round %d: %d hits, %d misses", round, c.Hits(), c.Misses())
		}
		store.Close()
		mustAnswer(t, "closed", ask(t.Context(), c, embedder.Index, texts...), texts...)
	}
}

func TestCacheKeepsModelsAndRolesApart(t *testing.T) {
	store := openCache(t, embedder.CacheConfig{Dir: t.TempDir()})
	ask := func(e embedder.Embedder, role embedder.Role) {
		t.Helper()
		v, err := e.Embed(t.Context(), role, []string{"the same text"})
		if err != nil || len(v[0]) != e.Dim() {
			t.Errorf("%d dimensions, %v", len(v[0]), err)
		}
	}
	for _, e := range []*embedder.Cached{
		embedder.Cache(embedder.NewHash(64), store),
		embedder.Cache(embedder.NewHash(32), store),
		embedder.Cache(renamed{embedder.NewHash(64), "hash/6x"}, store),
	} {
		ask(e, embedder.Index)
		ask(e, embedder.Query)
		if e.Hits() != 0 || e.Misses() != 2 {
			t.Errorf("%s: %d hits, %d misses", e.Name(), e.Hits(), e.Misses())
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	const most = 64 << 10
	dir := t.TempDir()
	store := openCache(t, embedder.CacheConfig{Dir: dir, MaxBytes: most})
	c := embedder.Cache(embedder.NewHash(64), store)
	for i := range 2000 {
		if _, err := c.Embed(t.Context(), embedder.Index, []string{fmt.Sprint("doc ", i)}); err != nil {
			t.Fatal(err)
		}
	}
	store.Close()
	store = openCache(t, embedder.CacheConfig{Dir: dir, MaxBytes: most})
	if n, b := store.Len(), store.Bytes(); n < 100 || b > most {
		t.Errorf("%d vectors in %d bytes, at most %d", n, b, most)
	}
	var size int64
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size != store.Bytes() {
		t.Errorf("%d bytes of files, Bytes says %d", size, store.Bytes())
	}
	p := embeddertest.NewProvider()
	c = embedder.Cache(renamed{p, "hash/64"}, store)
	mustAnswer(t, "last", ask(t.Context(), c, embedder.Index, "doc 1999"), "doc 1999")
	mustAnswer(t, "first", ask(t.Context(), c, embedder.Index, "doc 0"), "doc 0")
	if c.Hits() != 1 || c.Misses() != 1 {
		t.Errorf("%d hits, %d misses: the first should have gone, the last be there", c.Hits(), c.Misses())
	}
}

type renamed struct {
	embedder.Embedder
	name string
}

func (r renamed) Name() string { return r.name }

// TestCacheSurvivesDamage cuts and flips bytes everywhere: what is read afterwards is right or not found.
func TestCacheSurvivesDamage(t *testing.T) {
	whole := t.TempDir()
	texts := inputs("doc", 20)
	store := openCache(t, embedder.CacheConfig{Dir: whole})
	if _, err := embedder.Cache(embedder.NewHash(64), store).Embed(t.Context(), embedder.Index, texts); err != nil {
		t.Fatal(err)
	}
	store.Close()
	files, _ := filepath.Glob(filepath.Join(whole, "*"))
	if len(files) != 2 {
		t.Fatalf("files %v", files)
	}
	content := map[string][]byte{}
	for _, f := range files {
		content[filepath.Base(f)], _ = os.ReadFile(f)
	}
	try := func(name string, damaged []byte, refusable bool) int64 {
		dir := t.TempDir()
		for other, b := range content {
			if other == name {
				b = damaged
			}
			if err := os.WriteFile(filepath.Join(dir, other), b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		store, err := embedder.OpenCache(embedder.CacheConfig{Dir: dir})
		if err != nil {
			if !refusable {
				t.Errorf("%s of %d bytes: %v", name, len(damaged), err)
			}
			return 0
		}
		defer store.Close()
		c := embedder.Cache(embedder.NewHash(64), store)
		mustAnswer(t, fmt.Sprintf("%s of %d bytes", name, len(damaged)), ask(t.Context(), c, embedder.Index, texts...), texts...)
		hits := c.Hits()
		store.Close()
		// What was lost has been added again, behind what was kept.
		store, err = embedder.OpenCache(embedder.CacheConfig{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		c = embedder.Cache(embedder.NewHash(64), store)
		mustAnswer(t, "again", ask(t.Context(), c, embedder.Index, texts...), texts...)
		if c.Misses() > 0 {
			t.Errorf("%s of %d bytes: %d of what was embedded again is not found", name, len(damaged), c.Misses())
		}
		return hits
	}
	for name, b := range content {
		for n := 0; n < len(b); n += 1 + len(b)/40 {
			try(name, b[:n], false)
			flipped := append([]byte(nil), b...)
			flipped[n] ^= 0x40
			if hits := try(name, flipped, n < 12); n >= 12 && strings.HasSuffix(name, ".vectors") && hits != 19 {
				t.Errorf("%s with a flipped byte %d: %d hits, want 19 of 20", name, n, hits)
			}
		}
	}
}

func TestCacheRefusesOtherFormats(t *testing.T) {
	dir := t.TempDir()
	store := openCache(t, embedder.CacheConfig{Dir: dir})
	embedder.Cache(embedder.NewHash(64), store).Embed(t.Context(), embedder.Index, []string{"x"})
	store.Close()
	path := filepath.Join(dir, "00000001.keys")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range 12 { // the magic, the version, the kind of file
		other := bytes.Clone(b)
		other[at]++
		if err := os.WriteFile(path, other, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := embedder.OpenCache(embedder.CacheConfig{Dir: dir}); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "delete "+dir) {
			t.Errorf("byte %d: got %v", at, err)
		}
	}
}

// TestCacheDiskFull takes the directory away: the cache says so once, and embedding goes on.
func TestCacheDiskFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	var mu sync.Mutex
	var warnings []error
	store := openCache(t, embedder.CacheConfig{Dir: dir, Warn: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		warnings = append(warnings, err)
	}})
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	c := embedder.Cache(embedder.NewHash(64), store)
	for i := range 50 {
		mustAnswer(t, "call", ask(t.Context(), c, embedder.Index, fmt.Sprint("doc ", i)), fmt.Sprint("doc ", i))
	}
	store.Close()
	if len(warnings) != 1 || !errors.As(warnings[0], new(*os.PathError)) {
		t.Errorf("warnings %v, want one", warnings)
	}
}

// TestCacheGoesOnAfterAnOutage: vectors are kept again as soon as the disk takes them, and what was written before the outage is found.
func TestCacheGoesOnAfterAnOutage(t *testing.T) {
	dir := t.TempDir()
	var warnings atomic.Int64
	store := openCache(t, embedder.CacheConfig{Dir: dir, MaxBytes: 8 << 10, RetryAfter: time.Millisecond, Warn: func(error) { warnings.Add(1) }})
	c := embedder.Cache(embedder.NewHash(64), store)
	embed := func(from, to int) {
		for i := from; i < to; i++ {
			mustAnswer(t, "call", ask(t.Context(), c, embedder.Index, fmt.Sprint("doc ", i)), fmt.Sprint("doc ", i))
		}
	}
	// The next segment can't be begun while a directory has its name.
	if err := os.Mkdir(filepath.Join(dir, "00000001.vectors"), 0o777); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); warnings.Load() == 0; {
		embed(0, 1)
		if time.Now().After(end) {
			t.Fatal("no warning")
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "00000001.vectors")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); store.Bytes() == 0; {
		embed(1, 2)
		if time.Now().After(end) {
			t.Fatal("nothing is kept after the outage")
		}
	}
	store.Close()
	if warnings.Load() != 1 {
		t.Errorf("%d warnings of one outage", warnings.Load())
	}
	if store := openCache(t, embedder.CacheConfig{Dir: dir}); store.Len() == 0 {
		t.Error("nothing is found by the next process")
	}
}

// TestCacheRemovesOnlyItsOwn: what stands in the way of a new segment is somebody else's, and it stays; what the cache has made of the segment by then goes.
func TestCacheRemovesOnlyItsOwn(t *testing.T) {
	for _, name := range []string{"00000001.vectors", "00000001.keys"} {
		for what, put := range map[string]func(path string) error{
			"a directory": func(path string) error { return os.Mkdir(path, 0o777) },
			"a file":      func(path string) error { return os.WriteFile(path, []byte("somebody's"), 0o666) },
		} {
			dir := t.TempDir()
			var warnings atomic.Int64
			store := openCache(t, embedder.CacheConfig{Dir: dir, RetryAfter: time.Hour, Warn: func(error) { warnings.Add(1) }})
			if err := put(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			mustAnswer(t, "call", ask(t.Context(), embedder.Cache(embedder.NewHash(64), store), embedder.Index, "doc"), "doc")
			store.Close()
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 || entries[0].Name() != name || warnings.Load() != 1 {
				t.Errorf("%s named %s: %v are there after %d warnings, %v", what, name, entries, warnings.Load(), err)
			}
		}
	}
}

func TestCacheBlame(t *testing.T) {
	store := openCache(t, embedder.CacheConfig{Dir: t.TempDir()})
	p := embeddertest.NewProvider()
	p.Poison, p.NamesPoison = []string{"poison"}, true
	c := embedder.Cache(p, store)
	mustAnswer(t, "known", ask(t.Context(), c, embedder.Index, "a", "b"), "a", "b")
	_, err := c.Embed(t.Context(), embedder.Index, []string{"a", "b", "c", "poison"})
	if i, _ := blame(err); i != 3 {
		t.Errorf("input %d is blamed, want 3: %v", i, err)
	}
}

func TestCacheNeverKeepsABadVector(t *testing.T) {
	store := openCache(t, embedder.CacheConfig{Dir: t.TempDir()})
	c := embedder.Cache(embeddertest.NewProvider(embeddertest.NaN(0)), store)
	if _, err := c.Embed(t.Context(), embedder.Index, []string{"x"}); err == nil {
		t.Error("a NaN got through")
	}
	mustAnswer(t, "after", ask(t.Context(), c, embedder.Index, "x"), "x")
}

func fill(b testing.TB, dir string, n int) {
	store := openCache(b, embedder.CacheConfig{Dir: dir})
	c := embedder.Cache(embedder.NewHash(384), store)
	for i := 0; i < n; i += 1000 {
		if _, err := c.Embed(context.Background(), embedder.Index, inputs(fmt.Sprint("batch ", i), 1000)); err != nil {
			b.Fatal(err)
		}
		for store.Bytes() < int64(i)*1500 {
			runtime.Gosched() // let the writer keep up: what overfills its queue is not kept
		}
	}
	store.Close()
}

func BenchmarkCacheHit(b *testing.B) {
	dir := b.TempDir()
	fill(b, dir, 20_000)
	c := embedder.Cache(embedder.NewHash(384), openCache(b, embedder.CacheConfig{Dir: dir}))
	texts := inputs("batch 7000", 1000)
	chunk := strings.Repeat("x", 900)
	embedBench := func(b *testing.B, texts []string) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Embed(context.Background(), embedder.Index, texts); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(texts)), "ns/input")
	}
	b.Run("short", func(b *testing.B) { embedBench(b, texts) })
	for i := range texts {
		texts[i] = chunk + texts[i]
	}
	b.Run("chunk", func(b *testing.B) { embedBench(b, texts) })
	if c.Misses() != 1000 {
		b.Errorf("%d misses", c.Misses())
	}
}

func BenchmarkCacheOpen(b *testing.B) {
	dir := b.TempDir()
	fill(b, dir, 100_000)
	for b.Loop() {
		store, err := embedder.OpenCache(embedder.CacheConfig{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(store.Len()), "vectors")
		store.Close()
	}
}
