package local

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/simd"
)

// text200 has 200 word pieces, frame included.
func text200(b *testing.B) string {
	words := strings.Fields(strings.Repeat(benchText+" ", 3))
	for n := 1; n < len(words); n++ {
		if s := strings.Join(words[:n], " "); CountWordPieces(s) >= 200 {
			return s
		}
	}
	b.Fatal("the text is too short")
	return ""
}

// BenchmarkMiniLM embeds texts of 200 word pieces by each kernel.
func BenchmarkMiniLM(b *testing.B) {
	m := newMiniLM(b)
	for _, name := range simd.Kernels() {
		for _, n := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/texts=%d", name, n), func(b *testing.B) {
				if name == "go" && n > 1 {
					b.Skip("slow")
				}
				defer simd.Use(name)()
				inputs := slices.Repeat([]string{text200(b)}, n)
				for b.Loop() {
					embed(b, m, inputs...)
				}
				rate := float64(n*b.N) / b.Elapsed().Seconds()
				b.ReportMetric(rate, "texts/s")
				b.ReportMetric(rate/float64(min(n, runtime.GOMAXPROCS(0))), "texts/s/core")
			})
		}
	}
}

// BenchmarkMiniLMShort embeds texts of about 20 word pieces, 64 a call.
func BenchmarkMiniLMShort(b *testing.B) {
	m := newMiniLM(b)
	inputs := slices.Repeat([]string{"A change is searchable soon after it was written, and deletions are changes like any other."}, 64)
	for b.Loop() {
		embed(b, m, inputs...)
	}
	b.ReportMetric(float64(len(inputs)*b.N)/b.Elapsed().Seconds(), "texts/s")
}

// BenchmarkMiniLMQuery is a question's latency, alone and while a replay keeps all processors busy.
func BenchmarkMiniLMQuery(b *testing.B) {
	m := newMiniLM(b)
	ask := func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			from := time.Now()
			if _, err := m.Embed(context.Background(), embedder.Query, []string{"how long does a change take to become searchable?"}); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(from))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	}
	for _, name := range simd.Kernels() {
		b.Run("alone/"+name, func(b *testing.B) {
			defer simd.Use(name)()
			ask(b)
		})
	}
	b.Run("busy", func(b *testing.B) {
		ctx, cancel := context.WithCancel(embedder.WithLane(context.Background(), embedder.Replay))
		done := make(chan struct{})
		inputs := slices.Repeat([]string{text200(b)}, 64)
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				_, _ = m.Embed(ctx, embedder.Index, inputs) // it ends when ctx does
			}
		}()
		ask(b)
		cancel()
		<-done
	})
}

// BenchmarkMiniLMOpen reads the weights.
func BenchmarkMiniLMOpen(b *testing.B) {
	for b.Loop() {
		if _, err := readWeights(miniLMFile); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMiniLMCorpus embeds real abstracts: -benchtime 1x goes once through them.
func BenchmarkMiniLMCorpus(b *testing.B) {
	shared := os.Getenv("LIVERAG_SHARED")
	if shared == "" {
		b.Skip("LIVERAG_SHARED names no directory with data/beir")
	}
	m := newMiniLM(b)
	_, texts := readTexts(b, shared+"/data/beir/scifact/corpus.jsonl")
	texts = texts[:512]
	tokens := 0
	for _, text := range texts {
		tokens += min(CountWordPieces(text), m.MaxInput())
	}
	for b.Loop() {
		for i := 0; i < len(texts); i += 64 {
			embed(b, m, texts[i:i+64]...)
		}
	}
	b.ReportMetric(float64(tokens)*float64(b.N)/200/b.Elapsed().Seconds(), "200-token-texts/s")
}
