package lexical

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

const (
	benchEntries = 100_000
	benchLength  = 150 // terms of a chunk of 1 KB
)

// bench is the index that the benchmarks share: entries with Zipf-distributed terms, as in natural text.
var bench = sync.OnceValue(func() (b struct {
	part    *Sealed
	stats   *Stats
	queries [][]string
}) {
	r := rand.New(rand.NewPCG(1, 2))
	draw := zipf(r, 200_000)
	b.stats = NewStats()
	var parts []*Sealed
	var live []func(uint32) (uint32, bool)
	for at := 0; at < benchEntries; at += 10_000 {
		m := NewMem()
		for i := range 10_000 {
			terms := make([]string, benchLength/2+r.IntN(benchLength))
			for j := range terms {
				terms[j] = draw()
			}
			m.Add(uint32(i), terms)
			b.stats.Add(terms)
			if i%20 == 0 { // queries are words of documents
				q := make([]string, 3+r.IntN(5))
				for j := range q {
					q[j] = terms[r.IntN(len(terms))]
				}
				b.queries = append(b.queries, q)
			}
		}
		s, err := Open(m.Seal(all))
		if err != nil {
			panic(err)
		}
		parts = append(parts, s)
		base := uint32(at)
		live = append(live, func(ord uint32) (uint32, bool) { return base + ord, true })
	}
	s, err := Open(Merge(parts, live))
	if err != nil {
		panic(err)
	}
	b.part = s
	return b
})

// BenchmarkSearch asks 100,000 chunks of 1 KB for the 10 and 100 best of 3 to 7 terms drawn from documents.
func BenchmarkSearch(b *testing.B) {
	x := bench()
	for _, c := range []struct {
		name   string
		depth  int
		accept func(int, uint32) bool
	}{
		{"top10", 10, nil},
		{"top100", 100, nil},
		{"top10/filter10%", 10, func(_ int, ord uint32) bool { return ord%10 == 3 }},
		{"top10/filter1%", 10, func(_ int, ord uint32) bool { return ord%100 == 3 }},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				Search([]Part{x.part}, []uint32{benchEntries}, x.stats, defaults, x.queries[i%len(x.queries)], c.depth, c.accept)
				took = append(took, time.Since(start))
				i++
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(x.part.Size())/benchEntries, "B/chunk")
		})
	}
}

func BenchmarkMemAdd(b *testing.B) {
	draw := zipf(rand.New(rand.NewPCG(1, 2)), 200_000)
	docs := make([][]string, 2000)
	for i := range docs {
		for range benchLength {
			docs[i] = append(docs[i], draw())
		}
	}
	b.ReportAllocs()
	m, stats, ord := NewMem(), NewStats(), uint32(0)
	for b.Loop() {
		if ord == 5000 {
			m, stats, ord = NewMem(), NewStats(), 0
		}
		m.Add(ord, docs[int(ord)%len(docs)])
		stats.Add(docs[int(ord)%len(docs)])
		ord++
	}
}

func BenchmarkSeal(b *testing.B) {
	m := sample(rand.New(rand.NewPCG(1, 2)), 5000, benchLength, 200_000)
	for b.Loop() {
		m.Seal(all)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/5000, "µs/chunk")
}

func BenchmarkMerge(b *testing.B) {
	x := bench()
	for b.Loop() {
		Merge([]*Sealed{x.part}, []func(uint32) (uint32, bool){all})
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/benchEntries, "µs/chunk")
}

// BenchmarkStatsMemory reports what a distinct term costs.
func BenchmarkStatsMemory(b *testing.B) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		s := NewStats()
		r := rand.New(rand.NewPCG(3, 4))
		for range 500_000 / 50 {
			terms := make([]string, 50)
			for i := range terms {
				word := make([]byte, 4+r.IntN(8))
				for j := range word {
					word[j] = byte('a' + r.IntN(26))
				}
				terms[i] = string(word)
			}
			s.Add(terms)
		}
		b.ReportMetric(float64(heap()-before)/float64(s.Terms()), "B/term")
		runtime.KeepAlive(s)
	}
}
