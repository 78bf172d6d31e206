package main

import (
	"context"
	"errors"
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
func checkModel(ctx context.Context, cfg *Config) []check {
	if name, found := strings.CutPrefix(cfg.Embedder, "openai/"); found {
		return checkEndpoints(ctx, cfg, name)
	}
	ctx, cancel := context.WithTimeout(ctx, modelTimeout)
	defer cancel()
	return []check{checkOwn(ctx, cfg)}
}

// checkOwn looks at a model that runs here.
func checkOwn(ctx context.Context, cfg *Config) check {
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

// checkEndpoints asks the endpoint for what it says of itself, and so the one that stands in for it, if there is one; and compares the two.
func checkEndpoints(ctx context.Context, cfg *Config, name string) []check {
	quiet := slog.New(slog.DiscardHandler)
	first, took, err := openEndpoint(ctx, cfg.OpenAI.openai(name, 0, quiet))
	checks := make([]check, 1, 2)
	switch {
	case temporary(err):
		checks[0] = check{"model", stateFail, err.Error(), "`liverag up` and `liverag index` would wait for it: check openai.base_url, that the endpoint runs, and that it can be reached from here"}
	case err != nil:
		checks[0] = check{"model", stateFail, err.Error(), "check openai.api_key (or OPENAI_API_KEY), openai.base_url and the model's name: `liverag config openai` shows where each came from"}
	default:
		defer first.Close()
		checks[0] = endpointAnswers("model", first, took)
	}
	if cfg.OpenAI.Failover.BaseURL == "" {
		return checks
	}
	other, took, err := openEndpoint(ctx, cfg.OpenAI.standby(name, quiet))
	if err == nil {
		defer other.Close()
	}
	switch {
	case temporary(err):
		return append(checks, check{"failover", stateWarn, err.Error(), "it could not stand in now: check openai.failover.base_url, that the endpoint runs, and that it can be reached from here"})
	case err != nil:
		return append(checks, check{"failover", stateFail, err.Error(), "`liverag up` would refuse it: check openai.failover.api_key, openai.failover.base_url and openai.failover.model: `liverag config openai.failover` shows where each came from"})
	}
	found := endpointAnswers("failover", other, took)
	if first == nil {
		found.State, found.Do = stateWarn, "whether its vectors are the same is known when the first endpoint answers; until then it can't stand in"
		return append(checks, found)
	}
	ctx, cancel := context.WithTimeout(ctx, modelTimeout)
	defer cancel()
	if err := first.Same(ctx, other); err != nil && (temporary(err) || ctx.Err() != nil) {
		return append(checks, check{"failover", stateWarn, err.Error(), "the two could not be compared now: try again when both answer"})
	} else if err != nil {
		return append(checks, check{"failover", stateFail, err.Error(), "have openai.failover serve the same model, or leave it out: `liverag up` would refuse it"})
	}
	found.Detail += "; its vectors are the same"
	return append(checks, found)
}

// openEndpoint opens a model and takes the time of a short text. The model is nil where that fails.
func openEndpoint(ctx context.Context, cfg openai.Config) (*openai.Model, time.Duration, error) {
	asking, cancel := context.WithTimeout(ctx, modelTimeout)
	defer cancel()
	model, err := openai.Open(asking, cfg)
	if err != nil {
		return nil, 0, late(ctx, asking, cfg.Model, err)
	}
	took, err := embedOne(asking, model)
	if err != nil {
		return nil, 0, errors.Join(late(ctx, asking, cfg.Model, err), model.Close())
	}
	return model, took, nil
}

// endpointAnswers says what a model answered.
func endpointAnswers(name string, base *openai.Model, took time.Duration) check {
	batch := fmt.Sprintf("at most %d inputs a request", base.MaxBatch())
	if n := base.MaxBatchTokens(); n > 0 {
		batch += fmt.Sprintf(" and %d tokens", n)
	}
	return ok(name, "%s at %s answers within %s: %d dimensions, %s, %s", base.Name(), base.Endpoint(), short(took), base.Dim(), tokensAtMost(base.MaxInput()), batch)
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
