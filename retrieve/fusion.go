package retrieve

import (
	"cmp"
	"slices"
	"strings"

	"github.com/liverag/liverag/vectordb"
)

const (
	// MinDepth is the least number of candidates that each leg brings to a fusion.
	MinDepth = 50
	// DepthPerHit is how many candidates each leg brings for every hit wanted, above MinDepth.
	DepthPerHit = 4
)

// WeakDenseWeight is the dense leg's weight in DefaultFusion. It suits models that are weaker than BM25 by themselves, as local/static is: nDCG@10 on
// Cranfield and SciFact is .365 and .692 with it, .360 and .691 by BM25 alone, .341 and .558 by RRF with equal weights. From .1 to .2 it hardly matters. A model that
// matches BM25 deserves about half: see Target.Fusion.
const WeakDenseWeight = .15

// StrongDenseWeight suits models that find about as much as BM25 does. With local/minilm nDCG@10 on Cranfield and SciFact is .406 and .725 with it; .377 and
// .647 by the model alone, .360 and .691 by BM25 alone, .404 and .715 by RRF with equal weights. From .4 to .5 it hardly matters.
const StrongDenseWeight = .5

// DefaultFusion is what hybrid queries use unless their generation or the Config says otherwise. TestRelevance is its measurement.
var DefaultFusion Fusion = Convex{Dense: WeakDenseWeight}

// Fusion merges two rankings into one. Implementations are safe for concurrent use.
type Fusion interface {
	// Name says what it does, with its parameters.
	Name() string
	// Fuse returns the best k of both, best first, with the fused score. The legs are best first, and are not kept. The same legs always give the same
	// order: ties are broken by key, then by the place in the dense leg, then in the lexical one.
	Fuse(dense, lexical []vectordb.Candidate, k int) []vectordb.Candidate
}

// RRFConstant damps the lead of the first ranks in reciprocal rank fusion. It is the value of Cormack, Clarke and Büttcher,
// "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods", SIGIR 2009, who found the result to depend little on it.
const RRFConstant = 60

// RRF is reciprocal rank fusion: a chunk's score is the sum over the legs of weight / (Constant + rank), ranks counted from 1.
type RRF struct {
	// Constant is usually RRFConstant.
	Constant float64
	// Dense and Lexical are the weights of the legs; 1 and 1 in the paper.
	Dense, Lexical float64
}

// Convex adds the legs' scores, each stretched to [0, 1] between the leg's worst and best candidate: Dense·d + (1−Dense)·l. A chunk that a leg
// did not bring has 0 there. It is TM2C2's sibling with the empirical minimum in Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval", ACM TOIS 42 (2023).
type Convex struct {
	// Dense is the dense leg's weight, 0 to 1.
	Dense float64
}

// candidate is a chunk with its places in the legs, counted from 0; absent is the place of one that a leg did not bring.
type candidate struct {
	vectordb.Candidate
	dense, lexical int
}

const absent = int(^uint(0) >> 1)

func (f RRF) Name() string {
	return "rrf(" + number(f.Constant) + "," + number(f.Dense) + "," + number(f.Lexical) + ")"
}

// Fuse implements Fusion.
func (f RRF) Fuse(dense, lexical []vectordb.Candidate, k int) []vectordb.Candidate {
	return fuse(dense, lexical, k, func(c *candidate) float64 {
		score := 0.0
		if c.dense != absent {
			score += f.Dense / (f.Constant + float64(c.dense+1))
		}
		if c.lexical != absent {
			score += f.Lexical / (f.Constant + float64(c.lexical+1))
		}
		return score
	})
}

func (f Convex) Name() string { return "convex(" + number(f.Dense) + ")" }

// Fuse implements Fusion.
func (f Convex) Fuse(dense, lexical []vectordb.Candidate, k int) []vectordb.Candidate {
	stretchDense, stretchLexical := stretch(dense), stretch(lexical)
	return fuse(dense, lexical, k, func(c *candidate) float64 {
		score := 0.0
		if c.dense != absent {
			score += f.Dense * stretchDense(dense[c.dense].Score)
		}
		if c.lexical != absent {
			score += (1 - f.Dense) * stretchLexical(lexical[c.lexical].Score)
		}
		return score
	})
}

// stretch maps a leg's scores to [0, 1]. If all are equal, each is as good as the best.
func stretch(leg []vectordb.Candidate) func(float64) float64 {
	if len(leg) == 0 {
		return nil
	}
	low, high := leg[0].Score, leg[0].Score
	for _, c := range leg {
		low, high = min(low, c.Score), max(high, c.Score)
	}
	if high == low {
		return func(float64) float64 { return 1 }
	}
	return func(s float64) float64 { return (s - low) / (high - low) }
}

// fuse joins the legs by entry, scores, and keeps the best k.
func fuse(dense, lexical []vectordb.Candidate, k int, score func(*candidate) float64) []vectordb.Candidate {
	all := make([]candidate, 0, len(dense)+len(lexical))
	at := make(map[uint64]int32, len(dense))
	for i, c := range dense {
		at[c.Entry] = int32(len(all))
		all = append(all, candidate{c, i, absent})
	}
	for i, c := range lexical {
		if j, ok := at[c.Entry]; ok {
			all[j].lexical = i
		} else {
			all = append(all, candidate{c, absent, i})
		}
	}
	for i := range all {
		all[i].Score = score(&all[i])
	}
	slices.SortFunc(all, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), strings.Compare(a.Key, b.Key), cmp.Compare(a.dense, b.dense), cmp.Compare(a.lexical, b.lexical))
	})
	out := make([]vectordb.Candidate, min(k, len(all)))
	for i := range out {
		out[i] = all[i].Candidate
	}
	return out
}

// legs remembers how a query's legs ranked what they brought, for Explain.
type legs struct {
	dense, lexical map[uint64]LegRank
	out            []vectordb.Candidate
}

func (l *legs) note(dense, lexical, out []vectordb.Candidate) {
	ranks := func(leg []vectordb.Candidate) map[uint64]LegRank {
		m := make(map[uint64]LegRank, len(leg))
		for i, c := range leg {
			m[c.Entry] = LegRank{Rank: i + 1, Score: c.Score}
		}
		return m
	}
	l.dense, l.lexical, l.out = ranks(dense), ranks(lexical), slices.Clone(out)
}

// explain finds each hit's candidate. Hits name no entry, but are in the order of the candidates; a store may have left some out.
func (l *legs) explain(hits []Hit) {
	next := 0
	for i := range hits {
		h := &hits[i]
		h.Explain = &Explain{}
		for j := next; j < len(l.out); j++ {
			c := l.out[j]
			if c.Key != h.Key || c.Score != h.Score {
				continue
			}
			next = j + 1
			if r, ok := l.dense[c.Entry]; ok {
				h.Explain.Dense = &r
			}
			if r, ok := l.lexical[c.Entry]; ok {
				h.Explain.Lexical = &r
			}
			break
		}
	}
}
