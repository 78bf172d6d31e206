package milvus

import (
	"context"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"github.com/liverag/liverag/vectordb"
)

// The lexical leg is a sparse inner product: a chunk has for each of its terms the part of BM25 that depends on the chunk, a query for each of its own the part that
// depends on the corpus. Chunks are written once, so their part takes an average length as given; what is found is scored again by the whole formula, from the
// chunk's text and the statistics of a sample.

// assumedLength is the average length, in terms, that chunks are weighed by when they are written: that of the default recipe's, 200 tokens.
const assumedLength = 110

// noTerms is the sparse vector of what no query finds: servers want one entry at least.
var (
	noTerms   = []uint32{1<<32 - 2}
	noWeights = []float32{1e-30}
)

// termPosition is a term's dimension. Two terms that share one are told apart when hits are scored.
func termPosition(term string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(term))
	return h.Sum32() % noTerms[0]
}

// termWeights is a chunk's side of the product.
func termWeights(text string) ([]uint32, []float32) {
	counts := map[uint32]int{}
	length := 0
	for _, term := range vectordb.AppendTerms(nil, text) {
		counts[termPosition(term)]++
		length++
	}
	positions := make([]uint32, 0, len(counts))
	for p := range counts {
		positions = append(positions, p)
	}
	slices.Sort(positions)
	weights := make([]float32, len(positions))
	for i, p := range positions {
		tf := float64(counts[p])
		weights[i] = float32(tf / (tf + vectordb.K1*(1-vectordb.B+vectordb.B*float64(length)/assumedLength)))
	}
	return positions, weights
}

// lexicalStats is what BM25 counts, estimated for one tenant.
type lexicalStats struct {
	chunks  int     // of the tenant
	average float64 // length in terms
	df      map[string]int
	sampled int // how many chunks df counts
	until   time.Time
}

const (
	// sampleRows bounds how many chunks the statistics are taken from. Rows come in the order of hashes, so the first ones are a fair sample of documents.
	sampleRows = 4000
	// tenantsKept bounds how many tenants' are kept.
	tenantsKept = 256
)

// frequency is in how many chunks a term is, as the sample suggests.
func (l *lexicalStats) frequency(term string) int {
	df := l.df[term]
	if l.sampled == 0 || l.sampled >= l.chunks {
		return df
	}
	// A term that the sample has not is about as frequent as one that it has a half of.
	return max(1, int(max(float64(df), 0.5)*float64(l.chunks)/float64(l.sampled)))
}

// score is BM25 of a chunk's text for the terms of a query.
func (l *lexicalStats) score(query []string, text string) (sum float64, found bool) {
	terms := vectordb.AppendTerms(nil, text)
	for _, q := range query {
		tf := 0
		for _, t := range terms {
			if t == q {
				tf++
			}
		}
		if tf > 0 {
			found = true
			sum += vectordb.BM25(tf, len(terms), l.average, l.frequency(q), l.chunks)
		}
	}
	return sum, found
}

// queryWeights is a query's side of the product.
func (l *lexicalStats) queryWeights(query []string) (entity.SparseEmbedding, error) {
	weights := map[uint32]float32{}
	for _, q := range query {
		// With a length of zero and one occurrence what is left beside the weight of the term is a constant.
		weights[termPosition(q)] += float32(vectordb.BM25(1, 0, l.average, l.frequency(q), l.chunks))
	}
	positions, values := make([]uint32, 0, len(weights)), make([]float32, 0, len(weights))
	for p, w := range weights {
		positions, values = append(positions, p), append(values, w)
	}
	return entity.NewSliceSparseEmbedding(positions, values)
}

// lexicalStatsOf returns a tenant's statistics. Of a tenant that the sample covers they are exact as of when they were taken; see
// Config.StatsFor.
func (s *Store) lexicalStatsOf(ctx context.Context, g *generation, tenant string) (*lexicalStats, error) {
	g.mu.Lock()
	l := g.lexical[tenant]
	g.mu.Unlock()
	started := time.Now()
	if l != nil && started.Before(l.until) {
		return l, nil
	}
	fresh := &lexicalStats{df: map[string]int{}}
	expr := fieldScope + " in " + numbers([]int64{
		scope(tenant, found, false), scope(tenant, found, true), scope(tenant, lexicalOnly, false), scope(tenant, lexicalOnly, true),
	})
	columns, err := call(ctx, s, g, "sample", s.config.Timeouts.Read, func(ctx context.Context) (client.ResultSet, error) {
		return s.client.Query(ctx, g.collection, nil, expr, []string{fieldRow, fieldText}, client.WithLimit(sampleRows))
	})
	if err != nil {
		return nil, err
	}
	keys, texts := stringsOf(columns, fieldRow), stringsOf(columns, fieldText)
	// Rows that are superseded and not yet gone don't count.
	docs := map[string]bool{}
	for _, key := range keys {
		docs[key[:docLength]] = true
	}
	states, err := s.heads(ctx, g, slices.Sorted(maps.Keys(docs)), entity.ClBounded, false)
	if err != nil {
		return nil, err
	}
	length := 0
	for i, key := range keys {
		doc, stamp, _, err := parseRowKey(key)
		if err != nil {
			return nil, err
		}
		if h := states[doc].current(); h == nil || h.stamp != stamp || !h.live() {
			continue
		}
		c, err := decodeText(texts[i])
		if err != nil {
			return nil, err
		}
		if c.entry == nil {
			continue
		}
		text, _ := c.own()
		terms := vectordb.AppendTerms(nil, text)
		length += len(terms)
		slices.Sort(terms)
		for _, t := range slices.Compact(terms) {
			fresh.df[t]++
		}
		fresh.sampled++
	}
	fresh.chunks = fresh.sampled
	if len(keys) == sampleRows {
		if fresh.chunks, err = s.countRows(ctx, g, expr); err != nil {
			return nil, err
		}
	}
	fresh.average = float64(length) / float64(max(1, fresh.sampled))
	fresh.until = s.until(started)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.lexical) >= tenantsKept {
		clear(g.lexical)
	}
	g.lexical[tenant] = fresh
	return fresh, nil
}
