package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/mockprovider"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/stream"
)

// endpoint serves vectors of a dimension at an address, until stop.
func endpoint(t *testing.T, address string, dim int, change func(*mockprovider.Config)) (at string, stop func()) {
	t.Helper()
	cfg := mockprovider.Config{Dim: dim, Key: "sk-test", Poison: "refuse me", Vectors: func(ctx context.Context, dim int, inputs []string) ([][]float32, error) {
		return embedder.NewHash(dim).Embed(ctx, embedder.Index, inputs)
	}}
	if change != nil {
		change(&cfg)
	}
	provider, err := mockprovider.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: provider}
	go server.Serve(listener)
	stop = func() { _ = server.Close() }
	t.Cleanup(stop)
	return listener.Addr().String(), stop
}

// TestAnEndpointIsTheModel goes through the life of an index whose model is behind an endpoint: the endpoint away at the first start, one input refused, the endpoint away
// at a later start, and then back with vectors of another dimension.
func TestAnEndpointIsTheModel(t *testing.T) {
	address, stop := endpoint(t, "127.0.0.1:0", 32, nil)
	stop()
	data := t.TempDir()
	settings := func(cfg *Config) {
		cfg.Data, cfg.Embedder = data, "openai/some-model"
		cfg.OpenAI.BaseURL, cfg.OpenAI.APIKey = "http://"+address+"/v1", "sk-test"
	}
	begin := func() (s *system, stop func()) {
		cfg := defaultConfig()
		settings(&cfg)
		s, err := open(t.Context(), &cfg, duty{index: true, serve: true}, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.indexer.Run(ctx) }()
		return s, func() {
			cancel()
			if err := errors.Join(<-ended, s.Close()); err != nil {
				t.Error(err)
			}
		}
	}
	write := func(s *system, id, text string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		receipt, err := s.log.Append(ctx, stream.Change{Kind: stream.Upsert, ID: id, Document: &stream.Document{Text: text}})
		if err != nil {
			t.Fatal(err)
		}
		return s.indexer.WaitSearchable(ctx, receipt.Positions)
	}

	s, end := begin() // nobody listens there
	written := make(chan error, 1)
	go func() { written <- write(s, "a", "a refund takes three days") }()
	_, stop = endpoint(t, address, 32, nil)
	if err := <-written; err != nil {
		t.Errorf("a write while the endpoint was away: %v", err)
	}
	if err := write(s, "b", "please refuse me"); !errors.Is(err, indexer.ErrRejected) {
		t.Errorf("an input that the endpoint refuses: %v", err)
	}
	request := retrieve.NewRequest("refund")
	request.Mode = retrieve.Dense
	answer, err := s.retriever.Retrieve(t.Context(), request)
	if err != nil || len(answer.Hits) != 1 || answer.Hits[0].Key != "a" {
		t.Errorf("asked: %+v, %v", answer, err)
	}
	end()
	stop()

	s, end = begin() // away again, and an index is there
	request.Mode, request.Query = retrieve.Lexical, "refund"
	go func() { written <- write(s, "c", "a third text") }()
	_, stop = endpoint(t, address, 32, nil)
	if err := <-written; err != nil {
		t.Errorf("a write while the endpoint was away, on an index: %v", err)
	}
	if answer, err := s.retriever.Retrieve(t.Context(), request); err != nil || len(answer.Hits) != 1 {
		t.Errorf("asked by words: %+v, %v", answer, err)
	}
	end()
	stop()

	_, stop = endpoint(t, address, 48, nil)
	s, end = begin()
	for s.indexer.Ready() == nil || !strings.Contains(s.indexer.Ready().Error(), "dimension") {
		if err := pause(t.Context(), time.Millisecond); err != nil {
			t.Fatalf("a model of another dimension: %v", s.indexer.Ready())
		}
	}
	stored, err := s.store.List(t.Context())
	if err != nil || len(stored) != 1 || stored[0].Dim != 32 {
		t.Errorf("the index is not as it was: %+v, %v", stored, err)
	}
	end()
	stop()

	endpoint(t, address, 32, nil)
	s, end = begin()
	defer end()
	if err := write(s, "d", "and a fourth"); err != nil {
		t.Errorf("with the old model back: %v", err)
	}
	// What a generation took is told over restarts.
	if embedded := s.indexer.List()[0].Progress.ChunksEmbedded; embedded != 3 {
		t.Errorf("%d chunks were embedded, want a, c and d, each once", embedded)
	}
}

// TestAWrongKeyIsToldAtOnce starts with a key that the endpoint refuses: that is no matter of waiting.
func TestAWrongKeyIsToldAtOnce(t *testing.T) {
	address, _ := endpoint(t, "127.0.0.1:0", 32, func(cfg *mockprovider.Config) { cfg.Key = "sk-other" })
	cfg := defaultConfig()
	cfg.Data, cfg.Embedder = t.TempDir(), "openai/some-model"
	cfg.OpenAI.BaseURL, cfg.OpenAI.APIKey = "http://"+address+"/v1", "sk-test"
	_, err := open(t.Context(), &cfg, duty{index: true, serve: true}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "OPENAI_API_KEY") || strings.Contains(err.Error(), "sk-test") {
		t.Errorf("%v", err)
	}
}
