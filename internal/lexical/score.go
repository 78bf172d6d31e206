// Package lexical is an inverted index that answers BM25 queries with block-max MaxScore.
//
// An index is a list of parts. [Mem] is the growing one: one writer, many readers. Its sealed form ([Mem.Seal], [Merge]) is a run of bytes that [Open]
// reads in place, so it may be memory-mapped. Entries are numbered within a part (ords); what an ord means, which are deleted and who may see them is the
// caller's. How much a term weighs comes from [Stats], which count live entries over all parts, so that dead postings never weigh in.
//
// The index takes terms and knows nothing of how text becomes terms.
package lexical

import "math"

// Params are BM25's.
type Params struct {
	// K1 says how soon further occurrences of a term stop to count.
	K1 float64
	// B says how much the length of an entry counts, from 0 (not at all) to 1.
	B float64
}

// IDF is Lucene's: ln(1 + (n-df+½)/(df+½)), which is never negative. n counts the live entries, df those with the term.
func IDF(df, n int) float64 {
	df = min(df, n) // a reader's view may be older than the counts
	return math.Log(1 + (float64(n-df)+0.5)/(float64(df)+0.5))
}

// Norm is the part of BM25's denominator that depends on the entry's length: k1 · (1 − b + b · length/average).
type Norm struct{ constant, factor float64 }

// Norm prepares for an average length. An average of 0 or less counts as 1.
func (p Params) Norm(avgLen float64) Norm {
	if !(avgLen > 0) {
		avgLen = 1
	}
	return Norm{p.K1 * (1 - p.B), p.K1 * p.B / avgLen}
}

// grid rounds a number below 2^19 to a multiple of 2^-32 when it is added and taken away again.
const grid = 3 << 19

// Score is what a term adds to an entry's score: idf · tf / (tf + norm), rounded to a multiple of 2^-32. It is BM25 without the factor k1+1,
// which changes no order (as in Lucene since 8.0).
//
// Rounded so, sums of scores up to 2^20 are exact in a float64 whatever their order. That is what lets a search add them up as it finds them and
// still agree to the last bit with the plain definition.
func (n Norm) Score(idf float64, tf, length uint32) float64 {
	// The conversions keep a compiler from fusing multiplication and addition, which would round otherwise on some machines.
	f := float64(tf)
	return (float64(idf*f)/(f+(n.constant+float64(n.factor*float64(length)))) + grid) - grid
}

// BM25 is the whole definition for one term: tf occurrences in an entry of length terms, where entries have avgLen on average and df of the n have the term.
// An entry's score is the sum over the query's terms, one that stands twice in the query counting twice.
func (p Params) BM25(tf, length uint32, avgLen float64, df, n int) float64 {
	return p.Norm(avgLen).Score(IDF(df, n), tf, length)
}
