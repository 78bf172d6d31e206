package local

import (
	"context"
	"os"
	"testing"

	"github.com/liverag/liverag/embedder"
)

// BenchmarkStaticCorpus embeds real abstracts of many words, so that the table does not stay in the nearest cache.
func BenchmarkStaticCorpus(b *testing.B) {
	shared := os.Getenv("LIVERAG_SHARED")
	if shared == "" {
		b.Skip("LIVERAG_SHARED names no directory with data/beir")
	}
	s := newStatic(b)
	_, texts := readTexts(b, shared+"/data/beir/scifact/corpus.jsonl")
	tokens := 0
	for _, text := range texts {
		tokens += CountWordPieces(text)
	}
	for b.Loop() {
		for i := 0; i < len(texts); i += 64 {
			if _, err := s.Embed(context.Background(), embedder.Index, texts[i:min(i+64, len(texts))]); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(tokens)*float64(b.N)/200/b.Elapsed().Seconds(), "200-token-texts/s")
}
