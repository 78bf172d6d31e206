package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/liverag/liverag/embedder/local"
	"github.com/liverag/liverag/internal/demo"
	"github.com/liverag/liverag/stream"
)

// againName is the generation that a replay builds.
const againName = "again"

// outlasts is how much longer than the edits a replay takes that nothing holds up.
const outlasts = 1.3

// replayOf edits a document a second, first while nothing else is done, then while a replay takes all that the model gives.
func (b *limitsBench) replayOf(ctx context.Context, variant string) error {
	if variant == "minilm" {
		return b.replayLocal(ctx, variant)
	}
	a := allowance{rpm: 3000, tpm: 1_000_000, burst: time.Second, latency: 50 * time.Millisecond}
	tokens := float64(a.tpm) / 60 * (a.burst.Seconds() + outlasts*b.during.Seconds())
	texts, err := longTexts(b.documents, int(tokens)/b.documents)
	if err != nil {
		return err
	}
	corpus, err := newLimitsCorpus(ctx, texts, limitsRecipe{"markdown", 200})
	if err != nil {
		return err
	}
	t := &limitsTrial{variant: variant, allowed: a, provider: a.provider(bySettings), openai: a.settings(bySettings), corpus: corpus, requests: 1}
	return b.rehearse(ctx, t, func(r *rehearsal, s *limitsServer) error {
		out, err := b.index(ctx, t, r, s, nil)
		if err != nil {
			return err
		}
		mock, _ := r.current()
		used, err := b.edits(ctx, t, s, out, func() int64 { return mock.Stats().Tokens })
		out.add("of the allowance used meanwhile", 100*float64(used)/(float64(a.tpm)*b.during.Minutes()), "%")
		out.add("429s in all", float64(mock.Stats().RateLimited), "")
		return err
	})
}

// replayLocal is the same with a model in the binary, whose limit is the processor.
func (b *limitsBench) replayLocal(ctx context.Context, variant string) error {
	corpus, err := newLimitsCorpus(ctx, benchTexts(max(20, b.documents/20)), limitsRecipe{"markdown", 200})
	if err != nil {
		return err
	}
	took, err := bareLoop(ctx, local.MiniLMName, corpus)
	if err != nil {
		return err
	}
	documents := outlasts * b.during.Seconds() * float64(len(corpus.texts)) / took.Seconds()
	if corpus, err = newLimitsCorpus(ctx, benchTexts(max(10, int(documents))), limitsRecipe{"markdown", 200}); err != nil {
		return err
	}
	t := &limitsTrial{variant: variant, corpus: corpus}
	return b.withModel(ctx, local.MiniLMName, t, func(s *limitsServer) error {
		out, err := b.indexLocal(ctx, t, s)
		if err != nil {
			return err
		}
		_, err = b.edits(ctx, t, s, out, func() int64 { return 0 })
		return err
	})
}

// edits measures how long an edit takes until it is searchable, without and with a replay beside it. used is how much of the latter was spent, as the meter has it.
func (b *limitsBench) edits(ctx context.Context, t *limitsTrial, s *limitsServer, out *limitsResult, meter func() int64) (used int64, err error) {
	idle, err := b.editFor(ctx, t, s, "idle", 0)
	if err != nil {
		return 0, err
	}
	recipe := map[string]any{"chunker": map[string]any{"strategy": "token", "tokens": 120}}
	if err := s.client.do(ctx, "POST", "/generations", map[string]any{"name": againName, "recipe": recipe}, nil, options{}); err != nil {
		return 0, err
	}
	before := meter()
	busy, err := b.editFor(ctx, t, s, "with a replay", len(idle))
	if err != nil {
		return 0, err
	}
	used = meter() - before
	var g generation
	if err := s.client.do(ctx, "GET", "/generations/"+againName, nil, &g, options{}); err != nil {
		return 0, err
	}
	out.Lost, err = t.corpus.lost(ctx, s.server)
	for _, q := range []struct {
		name string
		part float64
	}{{"p50", .5}, {"p99", .99}} {
		alone, beside := quantileOf(idle, q.part), quantileOf(busy, q.part)
		out.add("edit to searchable "+q.name+", idle", milliseconds(alone), "ms")
		out.add(q.name+" with the replay", milliseconds(beside), "ms")
		out.add(q.name+" ratio", float64(beside)/float64(alone), "")
	}
	out.add("the replay when the edits ended", g.Progress.Percent, "%")
	return used, err
}

// editFor edits a document a second for as long as a phase lasts.
func (b *limitsBench) editFor(ctx context.Context, t *limitsTrial, s *limitsServer, phase string, done int) ([]time.Duration, error) {
	every := time.Second
	if b.quick {
		every /= 10
	}
	random := rand.New(rand.NewPCG(3, uint64(done)))
	begin := time.Now()
	var times []time.Duration
	for n := 0; time.Duration(n)*every < b.during; n++ {
		if err := pause(ctx, time.Until(begin.Add(time.Duration(n)*every))); err != nil {
			return nil, err
		}
		b.call.Err.Status("%s, %s: edit %d, %s", b.scenario, t.variant, n+1, phase)
		i := random.IntN(len(t.corpus.texts))
		if err := t.corpus.edit(ctx, i, done+n); err != nil {
			return nil, err
		}
		var put written
		sent := time.Now()
		doc := map[string]any{"text": t.corpus.texts[i], "content_type": stream.TextMarkdown}
		if err := s.client.do(ctx, "PUT", documentPath(benchID(i))+waitQuery(time.Minute), doc, &put, options{timeout: time.Minute + callTimeout}); err != nil {
			return nil, err
		}
		times = append(times, time.Since(sent))
		if put.Searchable == nil || !*put.Searchable {
			return nil, fmt.Errorf("edit %d, %s, was not searchable within a minute", n+1, phase)
		}
	}
	return times, nil
}

// edit changes a sentence of a document.
func (c *limitsCorpus) edit(ctx context.Context, i, n int) error {
	c.texts[i] = demo.EditParagraph(c.texts[i], n)
	return c.cut(ctx, i)
}

// quantileOf is the smallest value that so large a part of them does not exceed.
func quantileOf(times []time.Duration, q float64) time.Duration {
	times = slices.Clone(times)
	slices.Sort(times)
	return times[min(len(times)-1, int(q*float64(len(times))))]
}
