package lexical

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

var defaults = Params{K1: 1.2, B: 0.75}

var seedFlag = flag.Uint64("seed", 0, "seed of the property tests; 0 takes LEXICAL_SEED or a random one")

func seed(t testing.TB) uint64 {
	s := *seedFlag
	if s == 0 {
		s, _ = strconv.ParseUint(os.Getenv("LEXICAL_SEED"), 10, 64)
	}
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d (set it by -seed or LEXICAL_SEED)", s)
	return s
}

// model is the plain definition: entries as lists of terms, in parts.
type model struct {
	parts [][]entry
}

type entry struct {
	terms []string
	live  bool
}

// counts are the live entries', counted afresh.
func (m *model) counts() (n, total int, df map[string]int) {
	df = map[string]int{}
	for _, p := range m.parts {
		for _, e := range p {
			if !e.live {
				continue
			}
			n++
			total += len(e.terms)
			for _, t := range slices.Compact(slices.Sorted(slices.Values(e.terms))) {
				df[t]++
			}
		}
	}
	return n, total, df
}

func (m *model) search(params Params, terms []string, depth int, accept func(part int, ord uint32) bool) []Match {
	n, total, df := m.counts()
	return m.searchWith(n, total, df, params, terms, depth, accept)
}

func (m *model) searchWith(n, total int, df map[string]int, params Params, terms []string, depth int, accept func(part int, ord uint32) bool) []Match {
	var all []Match
	for i, p := range m.parts {
		for ord, e := range p {
			if !e.live || accept != nil && !accept(i, uint32(ord)) {
				continue
			}
			score, any := 0.0, false
			for _, t := range terms {
				tf := uint32(0)
				for _, x := range e.terms {
					if x == t {
						tf++
					}
				}
				if tf > 0 {
					any = true
					score += params.BM25(tf, uint32(len(e.terms)), float64(total)/float64(n), df[t], n)
				}
			}
			if any {
				all = append(all, Match{i, uint32(ord), score})
			}
		}
	}
	slices.SortFunc(all, func(a, b Match) int {
		if worse(b, a) {
			return -1
		}
		return 1
	})
	return all[:min(depth, len(all))]
}

// zipf draws terms as natural text has them.
func zipf(r *rand.Rand, vocabulary uint64) func() string {
	z := rand.NewZipf(r, 1.07, 2, vocabulary-1)
	return func() string { return fmt.Sprintf("t%d", z.Uint64()) }
}

// Whatever is added, deleted, sealed and merged, a search gives what the plain definition gives, to the last bit.
func TestSearchEqualsDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(seed(t), 1))
	rounds := 8
	if testing.Short() {
		rounds = 4
	}
	for round := range rounds {
		vocabulary := []uint64{3, 40, 400, 5000}[round%4]
		draw := zipf(r, vocabulary)
		stats := NewStats()
		var parts []Part
		var m model
		mem := NewMem()
		m.parts = [][]entry{nil}
		liveIn := func(part int) func(ord uint32) (uint32, bool) {
			next := uint32(0)
			kept := m.parts[part]
			return func(ord uint32) (uint32, bool) {
				if !kept[ord].live {
					return 0, false
				}
				next++
				return next - 1, true
			}
		}
		survivors := func(part int) (kept []entry) {
			for _, e := range m.parts[part] {
				if e.live {
					kept = append(kept, e)
				}
			}
			return kept
		}
		open := func(b []byte) *Sealed {
			s, err := Open(b)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		check := func() {
			t.Helper()
			n, length, df := m.counts()
			if stats.N() != n || stats.Terms() != len(df) || n > 0 && stats.AvgLen() != float64(length)/float64(n) {
				t.Fatalf("stats: %d entries of %v, %d terms; want %d of %v, %d", stats.N(), stats.AvgLen(), stats.Terms(), n, float64(length)/float64(n), len(df))
			}
			for x, want := range df {
				if stats.DF(x) != want {
					t.Fatalf("df of %s is %d, want %d", x, stats.DF(x), want)
				}
			}
			all := append(slices.Clone(parts), Part(mem))
			limits := make([]uint32, len(all))
			for i := range limits {
				limits[i] = uint32(len(m.parts[i]))
			}
			for range 15 {
				var query []string
				for range 1 + r.IntN(7) {
					query = append(query, draw())
				}
				if r.IntN(4) == 0 {
					query = append(query, query[0], "never-there")
				}
				params := []Params{defaults, {0.9, 0.4}, {2, 1}, {0.5, 0}}[r.IntN(4)]
				modulus := uint32(1 + r.IntN(3)*r.IntN(30))
				live := func(part int, ord uint32) bool { return m.parts[part][ord].live && ord%modulus == 0 }
				depth := 1 + r.IntN(40)
				got := Search(all, limits, stats, params, query, depth, live)
				want := m.searchWith(n, length, df, params, query, depth, live)
				if !slices.Equal(got, want) {
					t.Fatalf("round %d, %q, depth %d, every %d:\n got %v\nwant %v", round, query, depth, modulus, got, want)
				}
			}
		}
		for range 6 {
			for range 1 + r.IntN(600) {
				e := entry{live: true}
				for range r.IntN(30) {
					e.terms = append(e.terms, draw())
				}
				if r.IntN(50) == 0 { // an entry that repeats itself
					for range 300 {
						e.terms = append(e.terms, e.terms...)
						if len(e.terms) > 300 || len(e.terms) == 0 {
							break
						}
					}
				}
				last := len(m.parts) - 1
				mem.Add(uint32(len(m.parts[last])), e.terms)
				stats.Add(e.terms)
				m.parts[last] = append(m.parts[last], e)
			}
			for _, p := range m.parts {
				for i := range p {
					if p[i].live && r.IntN(5) == 0 {
						p[i].live = false
						stats.Remove(p[i].terms)
					}
				}
			}
			check()
			switch last := len(m.parts) - 1; r.IntN(3) {
			case 0, 1: // seal
				parts = append(parts, open(mem.Seal(liveIn(last))))
				m.parts[last] = survivors(last)
				m.parts = append(m.parts, nil)
				mem = NewMem()
			case 2: // merge all that is sealed
				if len(parts) < 2 {
					continue
				}
				var sealed []*Sealed
				var live []func(uint32) (uint32, bool)
				var kept []entry
				for i, p := range parts {
					sealed = append(sealed, p.(*Sealed))
					base, inner := uint32(len(kept)), liveIn(i)
					live = append(live, func(ord uint32) (uint32, bool) {
						n, ok := inner(ord)
						return base + n, ok
					})
					kept = append(kept, survivors(i)...)
				}
				parts = []Part{open(Merge(sealed, live))}
				m.parts = [][]entry{kept, m.parts[last]}
			}
			check()
		}
	}
}

// Ords that the caller leaves out stay without an entry.
func TestSealWithGaps(t *testing.T) {
	m := NewMem()
	for i := range 5 {
		m.Add(uint32(i), []string{"a", fmt.Sprint(i)})
	}
	stats := NewStats()
	stats.Add([]string{"a", "b"})
	s, err := Open(m.Seal(func(ord uint32) (uint32, bool) { return ord * 3, ord != 1 }))
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 13 || s.Terms() != 5 || s.Postings() != 8 {
		t.Errorf("%d entries, %d terms, %d postings", s.Len(), s.Terms(), s.Postings())
	}
	var ords []uint32
	for _, m := range Search([]Part{s}, []uint32{13}, stats, defaults, []string{"a"}, 10, nil) {
		ords = append(ords, m.Ord)
	}
	if !slices.Equal(ords, []uint32{0, 6, 9, 12}) {
		t.Errorf("found %v", ords)
	}
	empty, err := Open(NewMem().Seal(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := Search([]Part{empty, NewMem()}, []uint32{0, 0}, NewStats(), defaults, []string{"a"}, 10, nil); len(got) != 0 {
		t.Errorf("nothing holds %v", got)
	}
}

// A term that occurs more often than a skip can say still counts in full.
func TestVeryFrequentTerm(t *testing.T) {
	m, stats := NewMem(), NewStats()
	var mod model
	mod.parts = [][]entry{nil}
	for i := range 3000 {
		terms := []string{"x", "y"}
		if i == 2900 { // beyond the first window
			terms = slices.Repeat([]string{"x"}, 65_537) // 1 in 16 bits
		}
		m.Add(uint32(i), terms)
		stats.Add(terms)
		mod.parts[0] = append(mod.parts[0], entry{terms, true})
	}
	s, err := Open(m.Seal(func(ord uint32) (uint32, bool) { return ord, true }))
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range [][]string{{"x"}, {"x", "y"}} {
		want := mod.search(defaults, query, 1, nil)
		for _, p := range []Part{m, s} {
			if got := Search([]Part{p}, []uint32{3000}, stats, defaults, query, 1, nil); !slices.Equal(got, want) {
				t.Errorf("%T, %q: got %v, want %v", p, query, got, want)
			}
		}
	}
}

// Readers see the entries below their limit, whole, while a writer goes on.
func TestReadersDuringAdd(t *testing.T) {
	m, stats := NewMem(), NewStats()
	const entries = 1500
	var added atomic.Uint32
	var wg sync.WaitGroup
	for g := range 2 {
		wg.Go(func() {
			for {
				limit := added.Load()
				got := Search([]Part{m}, []uint32{limit}, stats, defaults, []string{"all", "odd"}, entries, nil)
				if len(got) != int(limit) {
					t.Errorf("reader %d: %d of %d entries", g, len(got), limit)
					return
				}
				if limit == entries {
					return
				}
				if b := m.Seal(func(ord uint32) (uint32, bool) { return ord, ord < 50 }); len(b) < headerSize {
					t.Error("no sealed form")
				}
			}
		})
	}
	for i := range uint32(entries) {
		terms := []string{"all", "all", fmt.Sprint(i)}
		if i%2 == 1 {
			terms = append(terms, "odd")
		}
		stats.Add(terms)
		m.Add(i, terms)
		added.Store(i + 1)
		if i%5 == 0 {
			stats.Remove([]string{fmt.Sprint(i), "all"})
		}
		if i%64 == 0 {
			runtime.Gosched()
		}
	}
	wg.Wait()
}

// An entry's repeats count once for df, also when the numbering of turns starts over.
func TestStatsTurns(t *testing.T) {
	s := NewStats()
	s.turn = ^uint32(0) - 1
	for range 4 {
		s.Add([]string{"a", "a", "b"})
	}
	if s.DF("a") != 4 || s.DF("b") != 4 || s.N() != 4 || s.AvgLen() != 3 {
		t.Errorf("a %d, b %d, n %d, length %v", s.DF("a"), s.DF("b"), s.N(), s.AvgLen())
	}
	for range 4 {
		s.Remove([]string{"a", "a", "b"})
	}
	if s.DF("a") != 0 || s.Terms() != 0 || s.N() != 0 || s.AvgLen() != 0 {
		t.Errorf("something is left: %d terms, %d entries", s.Terms(), s.N())
	}
}

// Terms that no entry has any more give their memory back, and nothing else changes.
func TestStatsForget(t *testing.T) {
	s := NewStats()
	s.Add([]string{"stays", "t7"})
	for i := range 5000 {
		s.Add([]string{fmt.Sprintf("t%d", i)})
	}
	for i := range 4000 {
		s.Remove([]string{fmt.Sprintf("t%d", i)})
	}
	if s.terms.size() > 3000 {
		t.Errorf("%d terms are remembered for %d", s.terms.size(), s.Terms())
	}
	s.Add([]string{"t5", "t4999"})
	for term, want := range map[string]int{"stays": 1, "t7": 1, "t5": 1, "t6": 0, "t4999": 2, "t4000": 1} {
		if got := s.DF(term); got != want {
			t.Errorf("df of %s is %d, want %d", term, got, want)
		}
	}
	if s.Terms() != 1003 || s.N() != 1002 {
		t.Errorf("%d terms in %d entries", s.Terms(), s.N())
	}
}

func sample(r *rand.Rand, entries, length int, vocabulary uint64) *Mem {
	m := NewMem()
	draw := zipf(r, vocabulary)
	for i := range entries {
		terms := make([]string, length)
		for j := range terms {
			terms[j] = draw()
		}
		m.Add(uint32(i), terms)
	}
	return m
}

func all(ord uint32) (uint32, bool) { return ord, true }

// Damaged bytes are refused or searched without a panic.
func FuzzOpen(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 7))
	good := sample(r, 700, 20, 300).Seal(all)
	f.Add(uint32(3), uint32(9), byte(255), false)
	f.Add(uint32(24), uint32(40), byte(1), true)
	f.Fuzz(func(t *testing.T, at, length uint32, x byte, short bool) {
		b := slices.Clone(good)
		from := int(at) % len(b)
		for i := from; i < min(len(b), from+int(length%64)+1); i++ {
			b[i] ^= x + byte(i)
		}
		if short {
			b = b[:from]
		}
		use(b)
	})
}

// use does everything that reads sealed bytes.
func use(b []byte) {
	s, err := Open(b)
	if err != nil {
		return
	}
	stats := NewStats()
	stats.Add([]string{"t0", "t1"})
	for _, q := range [][]string{{"t0"}, {"t0", "t1", "t2", "t3", "t150"}, {"t299", "t5"}, {"zzz", ""}} {
		Search([]Part{s}, []uint32{uint32(s.Len())}, stats, defaults, q, 5, nil)
	}
	Merge([]*Sealed{s}, []func(uint32) (uint32, bool){all})
}

// Every single damaged byte of a small part, in its three worst ways.
func TestDamagedBytes(t *testing.T) {
	good := sample(rand.New(rand.NewPCG(7, 7)), 150, 4, 40).Seal(all)
	for i := range good {
		for _, x := range []byte{0x80, 0xff, 0x01} {
			b := slices.Clone(good)
			b[i] ^= x
			use(b)
		}
		use(good[:i])
	}
	for i := headerSize; i+8 < len(good); i += 3 {
		b := slices.Clone(good)
		binary.LittleEndian.PutUint64(b[i:], ^uint64(0))
		use(b)
	}
	if _, err := Open(good); err != nil {
		t.Error(err)
	}
}
