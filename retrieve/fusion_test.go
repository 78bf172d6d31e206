package retrieve

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/liverag/liverag/vectordb"
)

func leg(scores ...any) (out []vectordb.Candidate) {
	for i := 0; i < len(scores); i += 2 {
		key := scores[i].(string)
		out = append(out, vectordb.Candidate{Entry: uint64(key[0])<<8 | uint64(len(key)), Key: key[:1], Score: scores[i+1].(float64)})
	}
	return out
}

func TestFuse(t *testing.T) {
	dense := leg("a", .9, "b", .8, "c", .5)
	lexical := leg("c", 12., "a", 8., "d", 4.)
	for _, tt := range []struct {
		name           string
		fusion         Fusion
		dense, lexical []vectordb.Candidate
		k              int
		want           string
	}{
		{"rrf by hand", RRF{60, 1, 1}, dense, lexical, 10, // a 1/61+1/62, c 1/63+1/61, b 1/62, d 1/63
			"a 0.032522 c 0.032266 b 0.016129 d 0.015873 "},
		{"rrf weighted", RRF{60, 0, 2}, dense, lexical, 2, "c 0.032787 a 0.032258 "},
		{"rrf cut", RRF{60, 1, 1}, dense, lexical, 1, "a 0.032522 "},
		{"convex by hand", Convex{.5}, dense, lexical, 10, // a .5·1+.5·.5, c 0+.5·1, b .5·.75, d 0
			"a 0.750000 c 0.500000 b 0.375000 d 0.000000 "},
		{"convex, equal scores", Convex{.5}, leg("a", .5, "b", .5), nil, 10, "a 0.500000 b 0.500000 "},
		{"ties by key", RRF{60, 1, 1}, leg("z", .9), leg("y", 3.), 10, "y 0.016393 z 0.016393 "},
		{"nothing", RRF{60, 1, 1}, nil, nil, 10, ""},
		{"one leg", RRF{60, 1, 1}, nil, lexical, 2, "c 0.016393 a 0.016129 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			for _, c := range tt.fusion.Fuse(tt.dense, tt.lexical, tt.k) {
				got += fmt.Sprintf("%s %.6f ", c.Key, c.Score)
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// Chunks of one document that tie keep the order of the dense leg, so that cutting between them is no matter of chance.
func TestFuseTiesInADocument(t *testing.T) {
	dense, lexical := leg("a", .9, "aa", .8), leg("aaa", 9., "aaaa", 8.)
	for range 20 {
		got := RRF{60, 1, 1}.Fuse(dense, lexical, 3)
		want := []uint64{dense[0].Entry, lexical[0].Entry, dense[1].Entry}
		for i, c := range got {
			if c.Entry != want[i] {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	}
}

func TestFuseProperties(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		make := func() (out []vectordb.Candidate) {
			for _, i := range random.Perm(40)[:random.IntN(30)] {
				out = append(out, vectordb.Candidate{Entry: uint64(i), Key: fmt.Sprint(i / 3), Score: math.Round(random.Float64()*10) / 10})
			}
			slices.SortStableFunc(out, func(a, b vectordb.Candidate) int { return int(10*b.Score) - int(10*a.Score) })
			return out
		}
		dense, lexical := make(), make()
		for _, f := range []Fusion{RRF{RRFConstant, 1, 1}, Convex{.5}} {
			all := f.Fuse(dense, lexical, 100)
			union := map[uint64]bool{}
			for _, c := range append(slices.Clone(dense), lexical...) {
				union[c.Entry] = true
			}
			seen := map[uint64]bool{}
			for i, c := range all {
				if seen[c.Entry] || !union[c.Entry] || c.Score < 0 || i > 0 && c.Score > all[i-1].Score {
					t.Fatalf("%s: candidate %d of %v is twice, foreign or out of order", f.Name(), i, all)
				}
				seen[c.Entry] = true
			}
			if len(seen) != len(union) {
				t.Fatalf("%s lost a candidate", f.Name())
			}
			if cut := f.Fuse(dense, lexical, 5); !slices.Equal(cut, all[:min(5, len(all))]) {
				t.Fatalf("%s: cutting changed the order", f.Name())
			}
		}
	}
}

func TestExplainMatchesTies(t *testing.T) {
	l := &legs{}
	dense, lexical := leg("a", .9, "aa", .8), leg("aaa", 9., "aaaa", 8.)
	out := RRF{60, 1, 1}.Fuse(dense, lexical, 4)
	l.note(dense, lexical, out)
	var hits []Hit
	for i, c := range out {
		if i != 1 { // the store left one out
			hits = append(hits, Hit{Hit: vectordb.Hit{Revision: vectordb.Revision{Key: c.Key}, Score: c.Score}})
		}
	}
	l.explain(hits)
	if hits[0].Explain.Dense == nil || hits[0].Explain.Dense.Rank != 1 || hits[0].Explain.Lexical != nil {
		t.Errorf("first hit: %+v", hits[0].Explain)
	}
	if hits[1].Explain.Dense == nil || hits[1].Explain.Dense.Rank != 2 || hits[2].Explain.Lexical == nil || hits[2].Explain.Lexical.Rank != 2 {
		t.Errorf("later hits: %+v %+v", hits[1].Explain, hits[2].Explain)
	}
}
