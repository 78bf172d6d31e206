package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/demo"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// startSystem runs everything but the HTTP server in a directory of the test's, with a model that takes no time.
func startSystem(t testing.TB, change func(*Config)) (s *system, stop func()) {
	t.Helper()
	cfg := defaultConfig()
	cfg.Data, cfg.Embedder = t.TempDir(), "local/static"
	if change != nil {
		change(&cfg)
	}
	return startSystemWith(t, &cfg, duty{index: true, serve: true})
}

func startSystemWith(t testing.TB, cfg *Config, d duty) (s *system, stop func()) {
	t.Helper()
	s, err := open(t.Context(), cfg, d, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.indexer.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("indexer: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	t.Cleanup(stop)
	if err := s.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s, stop
}

func benchChanges(n int) []stream.Change {
	var changes []stream.Change
	for d := range demo.BenchDocuments(n, 1) {
		c := upsertOf(d)
		c.ID = benchID(len(changes))
		changes = append(changes, c)
	}
	return changes
}

func recursive400(cfg *Config) {
	cfg.Chunker, cfg.Tokens, cfg.Embedder = "recursive", 400, "hash/384"
}

// BenchmarkIndex measures the write path without HTTP: from Append until everything is searchable.
func BenchmarkIndex(b *testing.B) {
	changes := benchChanges(2000)
	s, _ := startSystem(b, recursive400)
	for n := 0; b.Loop(); n++ {
		batch := make([]stream.Change, len(changes))
		for i, c := range changes {
			batch[i] = c
			batch[i].ID = fmt.Sprintf("%d/%s", n, c.ID)
		}
		receipt, err := s.log.Append(b.Context(), batch...)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.indexer.WaitApplied(b.Context(), indexer.Live, receipt.Positions); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(changes)*b.N)/b.Elapsed().Seconds(), "documents/s")
}

// BenchmarkReplay measures building the same index from the log once more, with every vector there already.
func BenchmarkReplay(b *testing.B) {
	for _, recipe := range []struct {
		name   string
		change func(*Config)
	}{{"recursive400-hash", recursive400}, {"markdown200-static", nil}} {
		b.Run(recipe.name, func(b *testing.B) { benchmarkReplay(b, recipe.change) })
	}
}

func benchmarkReplay(b *testing.B, change func(*Config)) {
	changes := benchChanges(2000)
	s, _ := startSystem(b, change)
	receipt, err := s.log.Append(b.Context(), changes...)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.indexer.WaitApplied(b.Context(), indexer.Live, receipt.Positions); err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		name := fmt.Sprintf("again%d", n)
		if _, err := s.indexer.Create(b.Context(), name, vectordb.Recipe{}); err != nil {
			b.Fatal(err)
		}
		if err := s.indexer.WaitApplied(b.Context(), name, receipt.Positions); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(changes)*b.N)/b.Elapsed().Seconds(), "documents/s")
}

// BenchmarkReplayByAModel measures a replay by local/minilm with nothing there, with every vector in the cache, and with every vector in another generation.
func BenchmarkReplayByAModel(b *testing.B) {
	const documents = 120
	s, _ := startSystem(b, func(cfg *Config) { cfg.Embedder = "hash/384" })
	receipt, err := s.log.Append(b.Context(), benchChanges(documents)...)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.indexer.WaitApplied(b.Context(), indexer.Live, receipt.Positions); err != nil {
		b.Fatal(err)
	}
	rates := map[string]float64{}
	for b.Loop() {
		replay := func(name string) {
			begun := time.Now()
			if _, err := s.indexer.Create(b.Context(), name, vectordb.Recipe{Embedder: vectordb.EmbedderRecipe{Model: "local/minilm"}}); err != nil {
				b.Fatal(err)
			}
			if err := s.indexer.WaitApplied(b.Context(), name, receipt.Positions); err != nil {
				b.Fatal(err)
			}
			if rates[name] == 0 { // later ones of the first kind have a cache
				rates[name] = documents / time.Since(begun).Seconds()
			}
		}
		replay("fresh")
		if err := s.indexer.Drop(b.Context(), "fresh"); err != nil {
			b.Fatal(err)
		}
		replay("cached")
		replay("lent")
		for _, name := range []string{"cached", "lent"} {
			if err := s.indexer.Drop(b.Context(), name); err != nil {
				b.Fatal(err)
			}
		}
	}
	for name, rate := range rates {
		b.ReportMetric(rate, name+"-documents/s")
	}
}
