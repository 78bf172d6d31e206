package vectordb

import "github.com/liverag/liverag/internal/lexical"

// K1 and B are BM25's parameters in every store: measured on SciFact and Cranfield with AppendTerms (see TestBM25Relevance).
const (
	K1 = 1.2
	B  = 0.75
)

// BM25 is what one term of a query adds to a chunk's score: tf occurrences in a chunk of length terms, where the chunks have avgLen terms on average and df of the n
// have the term:
//
//	ln(1 + (n-df+½)/(df+½)) · tf / (tf + K1·(1-B+B·length/avgLen))
//
// n, df and avgLen count the chunks of live documents of the query's tenant, whoever may read them. A term that stands twice in the query adds twice.
// The value is rounded to a multiple of 2^-32, so that sums are equal in whatever order they are taken. The form is Lucene's, after Robertson and
// Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009).
func BM25(tf, length int, avgLen float64, df, n int) float64 {
	return lexical.Params{K1: K1, B: B}.BM25(uint32(tf), uint32(length), avgLen, df, n)
}
