package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/local"
	"github.com/liverag/liverag/internal/demo"
)

// benchFolder writes documents as files below a new directory.
func benchFolder(b *testing.B, from, n int) string {
	b.Helper()
	dir := b.TempDir()
	i := 0
	for d := range demo.BenchDocuments(from+n, 1) {
		if i >= from {
			write(b, dir, fmt.Sprintf("%d/%04d.md", from, i), []byte(fmt.Sprintf("# Document %d\n\n%s", i, d.Text)))
		}
		i++
	}
	return dir
}

// importBench imports a folder and waits until all of it is searchable, however long that takes.
func importBench(b *testing.B, p *program, dir string) {
	b.Helper()
	p.verb("", "import", dir)
	for end := time.Now().Add(10 * time.Minute); !p.ask("anything", map[string]any{"max_staleness": "0s", "wait": "25s", "k": 1}).Freshness.Satisfied; {
		if time.Now().After(end) {
			b.Fatal("not searchable after ten minutes")
		}
	}
}

// BenchmarkLocalImport is how much of local/minilm's own speed the whole program keeps: a folder is imported until all of it is searchable, and then the same chunks are embedded by the model alone, in a
// loop on all processors. The two take turns, so that they meet the same machine; %-of-loop compares the medians.
//
//	go test ./cmd/liverag -run '^$' -bench LocalImport -benchtime 5x
func BenchmarkLocalImport(b *testing.B) {
	const documents = 100
	model, err := local.Open(local.MiniLMName)
	if err != nil {
		b.Fatal(err)
	}
	p := startProgram(b, b.TempDir(), "--embedder", local.MiniLMName)
	var shares, rates []time.Duration
	for n := 0; b.Loop(); n++ {
		dir := benchFolder(b, n*documents, documents)
		embedded := p.metric("liverag_chunks_embedded_total")
		began := time.Now()
		importBench(b, p, dir)
		imported := time.Since(began)
		embedded = p.metric("liverag_chunks_embedded_total") - embedded

		var texts []string
		for i := n * documents; i < (n+1)*documents; i++ {
			doc, ok := p.get(fmt.Sprintf("%d/%04d.md", n*documents, i))
			if !ok {
				b.Fatalf("document %d is not there", i)
			}
			for _, c := range doc.Chunks {
				texts = append(texts, fmt.Sprintf("Document %d\n\n%s", i, c.Text)) // what the program embeds: the title is the context
			}
		}
		if int(embedded) != len(texts) {
			b.Fatalf("%v chunks were embedded, and the documents have %d", embedded, len(texts))
		}
		began = time.Now()
		var next atomic.Int64
		var all sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			all.Go(func() {
				for i := int(next.Add(1)) - 1; i < len(texts); i = int(next.Add(1)) - 1 {
					if _, err := model.Embed(context.Background(), embedder.Index, texts[i:i+1]); err != nil {
						b.Error(err)
					}
				}
			})
		}
		all.Wait()
		alone := time.Since(began)
		shares = append(shares, time.Duration(1e9*alone.Seconds()/imported.Seconds()))
		rates = append(rates, imported/time.Duration(len(texts)))
		b.Logf("%d chunks: %.1f/s imported, %.1f/s alone", len(texts), float64(len(texts))/imported.Seconds(), float64(len(texts))/alone.Seconds())
	}
	b.ReportMetric(1/quantile(rates, .5).Seconds(), "chunks/s")
	b.ReportMetric(100*quantile(shares, .5).Seconds(), "%-of-loop")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLocalEdit is how long an edit of one chunk takes until it is searchable in the whole program with local/minilm: while nothing else is done, and while a replay into another generation, by
// chunks of another size, keeps all processors busy. The two take turns, 20 edits each; x-idle compares them.
//
//	go test ./cmd/liverag -run '^$' -bench LocalEdit -benchtime 5x
func BenchmarkLocalEdit(b *testing.B) {
	p := startProgram(b, b.TempDir(), "--embedder", local.MiniLMName)
	importBench(b, p, benchFolder(b, 0, 60))
	edits := 0
	words := strings.Fields(prose("edit", 12))
	edit := func() time.Duration {
		edits++
		at := rand.IntN(len(words) - 110)
		text := fmt.Sprintf("Edit %d: %s", edits, strings.Join(words[at:at+110], " "))
		began := time.Now()
		p.put(fmt.Sprint("edited/", edits%40), text)
		took := time.Since(began)
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond) // not in step with anything
		return took
	}
	var idle, busy []time.Duration
	for n := 0; b.Loop(); n++ {
		for range 20 {
			idle = append(idle, edit())
		}
		name := fmt.Sprint("again", n)
		p.must(nil, "POST", "/generations", json.RawMessage(fmt.Sprintf(`{"name":%q,"recipe":{"chunker":{"strategy":"recursive","tokens":%d}}}`, name, 60+n)))
		var g generation
		state := func() generation {
			p.must(&g, "GET", "/generations/"+name, nil)
			return g
		}
		until(b, name+" begun", func() bool { return state().Progress.Chunks > 0 })
		for range 20 {
			busy = append(busy, edit())
		}
		if g := state(); g.State == "ready" {
			b.Fatalf("%s was ready before the edits were over: %+v", name, g.Progress)
		}
		p.must(nil, "DELETE", "/generations/"+name, nil)
	}
	for _, q := range []float64{.5, .99} {
		b.ReportMetric(float64(quantile(idle, q).Microseconds()), fmt.Sprintf("idle-p%g-µs", 100*q))
		b.ReportMetric(float64(quantile(busy, q).Microseconds()), fmt.Sprintf("busy-p%g-µs", 100*q))
		b.ReportMetric(quantile(busy, q).Seconds()/quantile(idle, q).Seconds(), fmt.Sprintf("x-idle-p%g", 100*q))
	}
	b.ReportMetric(0, "ns/op")
}
