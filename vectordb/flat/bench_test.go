//go:build unix

package flat

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/liverag/liverag/internal/simd"
	"github.com/liverag/liverag/vectordb"
)

// clusters makes unit vectors as texts have them: many directions, most vectors near one of them.
type clusters struct {
	r       *rand.Rand
	centres [][]float32
}

func newClusters(seed uint64, n, dim int) *clusters {
	c := &clusters{r: rand.New(rand.NewPCG(seed, seed))}
	for range n {
		c.centres = append(c.centres, unit(c.r, dim))
	}
	return c
}

func (c *clusters) next() []float32 {
	centre := c.centres[int(float64(len(c.centres))*math.Pow(c.r.Float64(), 2))]
	v := make([]float32, len(centre))
	var sum float64
	for i := range v {
		v[i] = centre[i] + float32(c.r.NormFloat64()*0.7/math.Sqrt(float64(len(v))))
		sum += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

// words makes text whose words are as often as in natural text.
type words struct {
	r    *rand.Rand
	zipf *rand.Zipf
	list []string
	real string
}

func newWords(seed uint64) *words {
	r := rand.New(rand.NewPCG(seed, seed))
	w := &words{r: r, zipf: rand.NewZipf(r, 1.1, 4, 49_999)}
	for range 50_000 {
		b := make([]byte, 3+r.IntN(8))
		for i := range b {
			b[i] = "etaoinshrdlucmfwypvbgkjqxz"[int(26*math.Pow(r.Float64(), 1.7))]
		}
		w.list = append(w.list, string(b))
	}
	return w
}

// corpora makes the words those of real text, in its order, if LIVERAG_SHARED names the directory that holds some.
func (w *words) corpora(b *testing.B) {
	files, _ := filepath.Glob(filepath.Join(os.Getenv("LIVERAG_SHARED"), "data/chroma-chunking/corpora/*.md"))
	if os.Getenv("LIVERAG_SHARED") == "" || len(files) == 0 {
		b.Skip("LIVERAG_SHARED does not name a directory with corpora")
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		w.real += string(text)
	}
}

func (w *words) text(bytes int) string {
	if w.real != "" {
		at := w.r.IntN(len(w.real) - bytes)
		return strings.ToValidUTF8(w.real[at:at+bytes], "")
	}
	var b strings.Builder
	for b.Len() < bytes {
		b.WriteString(w.list[w.zipf.Uint64()])
		b.WriteByte(' ')
	}
	return b.String()
}

// document makes a document of n entries.
func document(c *clusters, w *words, key string, version int64, n, bytes int) vectordb.Revision {
	rev := vectordb.Revision{Key: key, Version: version, ContentType: "text/plain", Title: "Title " + key, URL: "https://example.com/" + key,
		UpdatedAt: time.Now(), LoggedAt: time.Now(), Text: w.text(bytes),
		Metadata: map[string]any{"team": w.list[w.r.IntN(20)], "year": float64(2000 + w.r.IntN(25)), "tag": float64(w.r.IntN(1000))}}
	step := len(rev.Text) / n
	for i := range n {
		e := vectordb.Entry{Start: i * step, End: (i + 1) * step, Tokens: step / 5, Vector: c.next()}
		for j := range e.Hash {
			e.Hash[j] = byte(w.r.Uint32())
		}
		rev.Entries = append(rev.Entries, e)
	}
	return rev
}

const benchDim = 384

func benchStore(b *testing.B, dir string, entries int) *Store {
	s, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Create(context.Background(), vectordb.Generation{Name: "g", Dim: benchDim}); err != nil {
		b.Fatal(err)
	}
	st, _ := s.Stats(context.Background(), "g")
	c, w := newClusters(1, 1000, benchDim), newWords(1)
	for n := st.Chunks; n < entries; {
		var revs []vectordb.Revision
		for range 64 {
			if n < entries {
				revs = append(revs, document(c, w, fmt.Sprintf("doc%07d", n), 1, 4, 4000))
				n += 4
			}
		}
		if err := s.Apply(context.Background(), "g", vectordb.Write{Revisions: revs}); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// sharedStore is a store of so many entries that benchmarks read: kept in LIVERAG_BENCH if that names a directory, else made anew.
func sharedStore(b *testing.B, entries int) *Store {
	dir := b.TempDir()
	if keep := os.Getenv("LIVERAG_BENCH"); keep != "" {
		dir = filepath.Join(keep, fmt.Sprint(entries))
	}
	s := benchStore(b, dir, entries)
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	s, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s
}

func search1(b *testing.B, s *Store, q vectordb.Query) []vectordb.Hit {
	hits, err := s.Search(context.Background(), "g", q)
	if err != nil {
		b.Fatal(err)
	}
	return hits
}

func BenchmarkDense(b *testing.B) {
	for _, entries := range []int{8_000, 100_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			s := sharedStore(b, entries)
			queries := newClusters(1, 1000, benchDim)
			for range 7 {
				queries.next()
			}
			for _, f := range []struct {
				name   string
				filter *vectordb.Filter
			}{
				{"all", nil},
				{"10%", &vectordb.Filter{Op: vectordb.Lt, Field: "tag", Value: float64(100)}},
				{"1%", &vectordb.Filter{Op: vectordb.Lt, Field: "tag", Value: float64(10)}},
			} {
				b.Run(f.name, func(b *testing.B) {
					var times []time.Duration
					before := cpu()
					for b.Loop() {
						q := vectordb.Query{Vector: queries.next(), Filter: f.filter}
						start := time.Now()
						search1(b, s, q)
						times = append(times, time.Since(start))
					}
					b.ReportMetric(float64((cpu()-before).Microseconds())/float64(len(times)), "cpu-µs")
					slices.Sort(times)
					b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
					b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
				})
			}
			b.Run("recall", func(b *testing.B) {
				found, wanted := 0, 0
				for b.Loop() {
					q := queries.next()
					var all []float64
					v, _ := s.generations["g"].g.pin()
					for _, p := range v.parts() {
						_, n := p.size()
						for e := range n {
							all = append(all, float64(simd.Dot(q, p.vector(e))))
						}
					}
					v.set.release()
					slices.SortFunc(all, func(a, b float64) int { return cmp.Compare(b, a) })
					for i, h := range search1(b, s, vectordb.Query{Vector: q}) {
						if h.Score >= all[9] {
							found++
						}
						if i == 9 {
							wanted += 10
						}
					}
				}
				b.ReportMetric(float64(found)/float64(wanted), "recall@10")
			})
		})
	}
}

func BenchmarkHybrid(b *testing.B) {
	s := sharedStore(b, 8_000)
	queries, w := newClusters(2, 1000, benchDim), newWords(1)
	fuse := func(dense, words []vectordb.Candidate) []vectordb.Candidate {
		return append(dense[:min(5, len(dense))], words[:min(5, len(words))]...)
	}
	for b.Loop() {
		search1(b, s, vectordb.Query{Vector: queries.next(), Text: w.text(30), Fuse: fuse})
	}
}

func BenchmarkLexical(b *testing.B) {
	for _, entries := range []int{8_000, 100_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			s := sharedStore(b, entries)
			w := newWords(1)
			for b.Loop() {
				search1(b, s, vectordb.Query{Text: w.text(30)})
			}
		})
	}
}

// cpu is the processor time that this process has taken, whatever else the machine does.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkApply writes documents of 4 entries and 5 KB; batch is how many a write has.
func BenchmarkApply(b *testing.B) {
	for _, real := range []bool{false, true} {
		b.Run(fmt.Sprintf("corpora=%v", real), func(b *testing.B) { benchmarkApply(b, real) })
	}
}

func benchmarkApply(b *testing.B, real bool) {
	for _, update := range []bool{false, true} {
		for _, batch := range []int{1, 64} {
			b.Run(fmt.Sprintf("update=%v/batch=%d", update, batch), func(b *testing.B) {
				s := open(b, b.TempDir(), Options{})
				if err := s.Create(b.Context(), vectordb.Generation{Name: "g", Dim: benchDim}); err != nil {
					b.Fatal(err)
				}
				c, w := newClusters(1, 1000, benchDim), newWords(1)
				if real {
					w.corpora(b)
				}
				var docs []vectordb.Revision
				for i := range 512 {
					docs = append(docs, document(c, w, fmt.Sprint(i), 1, 4, 5000))
				}
				n := 0
				before := cpu()
				for b.Loop() {
					revs := make([]vectordb.Revision, batch)
					for i := range revs {
						revs[i] = docs[n%len(docs)]
						revs[i].Version = int64(n + 1)
						if !update {
							revs[i].Key = fmt.Sprint("doc", n)
						}
						n++
					}
					if err := s.Apply(b.Context(), "g", vectordb.Write{Revisions: revs}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "docs/s")
				b.ReportMetric(float64(n)/(cpu()-before).Seconds(), "docs/cpu-s")
			})
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, entries := range []int{8_000, 100_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			s := sharedStore(b, entries)
			dir := s.dir
			s.Close()
			for b.Loop() {
				s, err := Open(dir, Options{})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				s.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkMemory tells how much memory a store at rest takes: RSS holds the mapped pages that were touched, heap is ours alone.
func BenchmarkMemory(b *testing.B) {
	for _, entries := range []int{8_000, 100_000} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			s := sharedStore(b, entries)
			runtime.GC()
			var m runtime.MemStats
			for b.Loop() {
				runtime.ReadMemStats(&m)
			}
			b.ReportMetric(float64(m.HeapAlloc)/float64(entries), "heap-B/entry")
			runtime.KeepAlive(s)
		})
	}
}
