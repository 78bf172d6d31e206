package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/local"
	"github.com/liverag/liverag/embedder/openai"
	"github.com/liverag/liverag/internal/simd"
)

// modelTimeout bounds the look at an endpoint. One that needs longer for a word is no good for questions.
const modelTimeout = 10 * time.Second

// checkModel has the configured model embed a few words, as the first document would.
func checkModel(ctx context.Context, cfg *Config) check {
	ctx, cancel := context.WithTimeout(ctx, modelTimeout)
	defer cancel()
	if name, found := strings.CutPrefix(cfg.Embedder, "openai/"); found {
		return checkEndpoint(ctx, cfg, name)
	}
	quiet := slog.New(slog.DiscardHandler)
	m := &models{defaults: cfg.recipe(), openai: cfg.OpenAI, logger: quiet, open: map[string]*model{}}
	opened, err := m.model(ctx, cfg.Embedder, 0)
	var took time.Duration
	if err == nil {
		took, err = embedOne(ctx, opened.index)
	}
	if err != nil {
		return check{"model", stateFail, err.Error(), "choose another with --embedder: " + strings.Join(local.Models(), ", ") + ", or openai/NAME for any OpenAI-compatible endpoint"}
	}
	if strings.HasPrefix(cfg.Embedder, "hash/") {
		return ok("model", "%s counts words and knows no meanings: good for tests and for measuring the system, not for answers", cfg.Embedder)
	}
	one := ok("model", "%s, %d dimensions, %s, a sentence in %s; kernel %s", cfg.Embedder, opened.index.Dim(), tokensAtMost(opened.index.MaxInput()), short(took), simd.Kernel())
	if simd.Kernel() == "go" && cfg.Embedder == local.MiniLMName {
		one.State = stateWarn
		one.Do = "pure Go is some twenty times slower than vector instructions: take a machine with AVX2, AVX-512 or NEON, unset LIVERAG_SIMD if it is set, or use --embedder " + local.StaticName
	}
	return one
}

// checkEndpoint asks an endpoint for what it says of itself.
func checkEndpoint(ctx context.Context, cfg *Config, name string) check {
	base, err := openai.Open(ctx, cfg.OpenAI.openai(name, 0, slog.New(slog.DiscardHandler)))
	var took time.Duration
	if err == nil {
		defer base.Close()
		took, err = embedOne(ctx, base)
	}
	switch {
	case temporary(err):
		return check{"model", stateFail, err.Error(), "`liverag up` and `liverag index` would wait for it: check openai.base_url, that the endpoint runs, and that it can be reached from here"}
	case err != nil:
		return check{"model", stateFail, err.Error(), "check openai.api_key (or OPENAI_API_KEY), openai.base_url and the model's name: `liverag config openai` shows where each came from"}
	}
	batch := fmt.Sprintf("at most %d inputs a request", base.MaxBatch())
	if n := base.MaxBatchTokens(); n > 0 {
		batch += fmt.Sprintf(" and %d tokens", n)
	}
	return ok("model", "%s at %s answers within %s: %d dimensions, %s, %s", base.Name(), base.Endpoint(), short(took), base.Dim(), tokensAtMost(base.MaxInput()), batch)
}

// embedOne takes the time of a short text.
func embedOne(ctx context.Context, model embedder.Embedder) (time.Duration, error) {
	begin := time.Now()
	_, err := model.Embed(ctx, embedder.Query, []string{"How long does a refund take?"})
	return time.Since(begin), err
}

func tokensAtMost(n int) string {
	if n <= 0 {
		return "inputs of any length"
	}
	return fmt.Sprintf("inputs of at most %d tokens", n)
}
