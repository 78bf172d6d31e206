package main

import (
	"context"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/local"
	"github.com/liverag/liverag/internal/demo"
)

// benchTexts are those that `bench` has.
func benchTexts(n int) []string {
	var texts []string
	for doc := range demo.BenchDocuments(n, 1) {
		texts = append(texts, doc.Text)
	}
	return texts
}

// localOf indexes with a model in the binary, and has the model embed the same texts with nothing else to do.
func (b *limitsBench) localOf(ctx context.Context, variant string) error {
	model, documents := local.MiniLMName, b.documents/5
	if variant == "static" {
		model, documents = local.StaticName, b.documents*5
	}
	corpus, err := newLimitsCorpus(ctx, benchTexts(max(1, documents)), limitsRecipe{"markdown", 200})
	if err != nil {
		return err
	}
	t := &limitsTrial{variant: variant, corpus: corpus}
	b.call.Err.Status("%s, %s: the model alone with %s", b.scenario, variant, count(corpus.total, "chunk"))
	alone, err := bareLoop(ctx, model, corpus)
	if err != nil {
		return err
	}
	var out *limitsResult
	err = b.withModel(ctx, model, t, func(s *limitsServer) (err error) {
		if out, err = b.indexLocal(ctx, t, s); err != nil {
			return err
		}
		out.Lost, err = corpus.lost(ctx, s.server)
		return err
	})
	if err != nil {
		return err
	}
	again, err := bareLoop(ctx, model, corpus)
	if err != nil {
		return err
	}
	alone = min(alone, again)
	out.Floor, out.Ratio = alone.Seconds(), out.Seconds/alone.Seconds()
	out.add("the model alone", float64(corpus.total)/alone.Seconds(), "chunks a second")
	out.add("indexing", 100/out.Ratio, "% of it")
	return nil
}

// bareRequest is how many inputs the loop embeds at once.
const bareRequest = 64

// bareLoop is how long a model takes for all inputs of a corpus, on all processors, in the order in which they are indexed.
func bareLoop(ctx context.Context, name string, corpus *limitsCorpus) (time.Duration, error) {
	model, err := local.Open(name)
	if err != nil {
		return 0, err
	}
	inputs := slices.Concat(corpus.inputs...)
	requests := slices.Collect(slices.Chunk(inputs, bareRequest))
	if _, err := model.Embed(ctx, embedder.Index, inputs[:1]); err != nil { // what is made for the first input is not measured
		return 0, err
	}
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	begin := time.Now()
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for {
				i := int(next.Add(1) - 1)
				if i >= len(requests) {
					return nil
				}
				if _, err := model.Embed(ctx, embedder.Index, requests[i]); err != nil {
					return err
				}
			}
		})
	}
	err = g.Wait()
	return time.Since(begin), err
}

// withModel starts a server with a model in the binary, and has do use it.
func (b *limitsBench) withModel(ctx context.Context, model string, t *limitsTrial, do func(s *limitsServer) error) error {
	s, err := b.serve(ctx, map[string]any{"chunker": t.corpus.recipe.strategy, "tokens": t.corpus.recipe.tokens, "embedder": model})
	if err != nil {
		return err
	}
	return s.end(do(s))
}

// indexLocal sends the corpus and measures until all of it is searchable.
func (b *limitsBench) indexLocal(ctx context.Context, t *limitsTrial, s *limitsServer) (*limitsResult, error) {
	b.call.Err.Status("%s, %s: %s", b.scenario, t.variant, count(len(t.corpus.texts), "document"))
	busy, begin := s.busy(), time.Now()
	tokens, err := t.corpus.sendAll(ctx, s.server)
	if err == nil {
		err = waitSearchable(ctx, s.server, "live", 30*time.Minute, tokens...)
	}
	if err != nil {
		return nil, err
	}
	out := &limitsResult{
		Scenario: b.scenario, Variant: t.variant, Client: ours, Documents: len(t.corpus.texts), Chunks: t.corpus.total, TokensNeeded: t.corpus.needed,
		Seconds: time.Since(begin).Seconds(),
	}
	busy(out)
	b.results = append(b.results, out)
	return out, nil
}
