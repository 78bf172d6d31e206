package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/vectordb"
)

// foundChunk is a hit with the id of its chunk.
type foundChunk struct {
	ID string
	evals.Ranked
}

// askLeg answers a question in a mode with at most k hits. ran is the mode that answered: a store without a lexical leg answers hybrid by the dense one.
type askLeg func(ctx context.Context, mode, query string, k int) (hits []foundChunk, ran string, err error)

// builtRecipe is a recipe that can be asked.
type builtRecipe struct {
	generation string
	recipe     vectordb.Recipe
	stats      *vectordb.Stats // nil: not counted
	// embedded and reused are tokens; nil: not known, as where another process built it.
	embedded, reused *int64
	ask              askLeg
	close            func() error
}

// retrieval builds each recipe and asks it in every way.
func (s *sweep) retrieval(ctx context.Context, frame *evalFrame) (_ *sweepOutcome, server string, err error) {
	questions, set, corpus, err := s.ask.open()
	if err != nil {
		return nil, "", err
	}
	all := len(questions)
	questions = restricted(s.ask.prefixed(questions), s.sample)
	if len(questions) == 0 {
		return nil, "", withHint(fmt.Errorf("none of the %s has an answer within the sample", count(all, "question")), "take a larger --sample, or more questions")
	}
	s.set = set
	if len(questions) < all {
		s.set.Name, s.set.Digest = fmt.Sprintf("%s, sample %g", set.Name, s.sample), questions.Digest()
	}
	filter, err := vectordb.ParseFilter([]byte(cmp.Or(s.ask.filter, "null")))
	if err != nil {
		return nil, "", err
	}
	progress := &sweepProgress{frame: frame, of: len(s.recipes), begun: time.Now()}
	build := func(ctx context.Context, r *sweptRecipe) (*builtRecipe, error) {
		return s.indexed(ctx, frame, r, filter, corpus)
	}
	end := func() error { return nil }
	if !s.inProcess {
		cl := frame.call.client(ctx)
		server = cl.base
		if err := s.ask.known(ctx, frame.call, cl, questions, corpus); err != nil {
			return nil, "", err
		}
		replays, err := s.openReplays(ctx, frame, cl, progress)
		if err != nil {
			return nil, "", err
		}
		build, end = replays.build, func() error { return replays.drop(ctx) }
	}
	done := &sweepOutcome{asked: len(questions), sizes: "bytes of a chunk that was found", shown: chiefMetrics}
	for _, r := range s.recipes {
		rows, err := s.tryRecipe(ctx, r, build, questions, progress)
		if ctx.Err() != nil {
			if s.inProcess {
				return nil, "", ctx.Err()
			}
			return nil, "", withHint(errors.New("interrupted: the generations made so far stay"), "the same command goes on from here; `liverag generations` lists them, `liverag drop` clears them away")
		}
		if err != nil {
			done.failed = append(done.failed, failedRecipe{r.name, err.Error(), err})
			progress.finished(r.name, "failed: "+err.Error())
			continue
		}
		done.rows = append(done.rows, rows...)
		best := rows[0].Figures[s.metric]
		for _, row := range rows {
			best = max(best, row.Figures[s.metric])
		}
		progress.finished(r.name, fmt.Sprintf("%s, %s %.4f", count(rows[0].Chunks, "chunk"), s.metric, best))
	}
	done.after = end()
	return done, server, nil
}

// tryRecipe builds a recipe and asks it in every way.
func (s *sweep) tryRecipe(ctx context.Context, r *sweptRecipe, build func(context.Context, *sweptRecipe) (*builtRecipe, error), questions evals.Questions, progress *sweepProgress) (rows []*sweptRow, err error) {
	b, err := build(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	found := &foundSizes{seen: map[string]bool{}}
	legs := &legAnswers{ask: b.ask, kept: map[string][2][]foundChunk{}}
	if err := s.warm(ctx, b, questions, progress, r); err != nil {
		return nil, err
	}
	for _, v := range s.variants() {
		row, err := s.tryVariant(ctx, b, r, v, legs, found, questions, progress)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	for _, row := range rows {
		row.sizes = found.bytes
	}
	return rows, nil
}

// warm asks every question once, so that no way of asking pays for the vectors that the next one finds.
func (s *sweep) warm(ctx context.Context, b *builtRecipe, questions evals.Questions, progress *sweepProgress, r *sweptRecipe) error {
	search := func(ctx context.Context, query string, k int) ([]evals.Ranked, error) {
		_, _, err := b.ask(ctx, s.variants()[0].Mode, query, k)
		return nil, err
	}
	at := progress.frame.progress(progress.at(r.name, "warming up:"), "question")
	_, err := questions.Ask(ctx, search, evals.AskOptions{K: 1, Concurrency: s.ask.concurrency, Progress: at.at})
	return err
}

func (s *sweep) tryVariant(ctx context.Context, b *builtRecipe, r *sweptRecipe, v variant, legs *legAnswers, found *foundSizes, questions evals.Questions, progress *sweepProgress) (*sweptRow, error) {
	var mu sync.Mutex
	ran := v.Mode
	search := func(ctx context.Context, query string, k int) ([]evals.Ranked, error) {
		var hits []foundChunk
		var by string
		var err error
		if v.Weight != nil {
			by = v.Mode
			hits, err = legs.fused(ctx, query, *v.Weight, k)
		} else {
			hits, by, err = b.ask(ctx, v.Mode, query, k)
		}
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		if by != "" {
			ran = by
		}
		out := make([]evals.Ranked, len(hits))
		for i, hit := range hits {
			out[i] = hit.Ranked
			found.add(hit)
		}
		return out, nil
	}
	name := s.label(r.name, v)
	at := progress.frame.progress(progress.at(name, "asked"), "question")
	answers, err := questions.Ask(ctx, search, evals.AskOptions{K: v.K, Concurrency: s.ask.concurrency, Metrics: s.metrics, Progress: at.at})
	if err != nil {
		return nil, err
	}
	if ran != v.Mode {
		name += ", answered " + ran
	}
	row := &sweptRow{Name: name, Recipe: r.name, variant: v, Target: b.recipe, Generation: b.generation, Figures: answers.Report.Mean, report: answers.Report}
	if v.Weight == nil {
		row.Latency = evals.Quantile(durations(answers), .5).Seconds()
	}
	if st := b.stats; st != nil {
		row.Chunks, row.Tokens, row.Bytes = st.Chunks, st.Tokens, st.Bytes
		row.MeanTokens = float64(st.Tokens) / float64(max(1, st.Chunks))
	}
	row.TokensEmbedded, row.TokensReused = b.embedded, b.reused
	return row, nil
}

// foundSizes are the sizes of the chunks that were found, each chunk once.
type foundSizes struct {
	seen  map[string]bool
	bytes []float64
}

func (f *foundSizes) add(hit foundChunk) {
	if !f.seen[hit.ID] {
		f.seen[hit.ID] = true
		f.bytes = append(f.bytes, float64(len(hit.Text)))
	}
}

// legAnswers are the answers of both legs, asked once for each question, to be fused by many weights.
type legAnswers struct {
	ask  askLeg
	mu   sync.Mutex
	kept map[string][2][]foundChunk
}

// legDepth is how deep the legs are that are fused here. As many as may be asked for; a hybrid answer of 50 hits fuses legs of the same depth.
const legDepth = retrieve.MaxK

// fused is the hybrid answer with a weight of the dense leg.
func (l *legAnswers) fused(ctx context.Context, query string, weight float64, k int) ([]foundChunk, error) {
	l.mu.Lock()
	legs, ok := l.kept[query]
	l.mu.Unlock()
	if !ok {
		for i, mode := range []string{string(retrieve.Dense), string(retrieve.Lexical)} {
			var err error
			if legs[i], _, err = l.ask(ctx, mode, query, legDepth); err != nil {
				return nil, err
			}
		}
		l.mu.Lock()
		l.kept[query] = legs
		l.mu.Unlock()
	}
	entries := map[string]uint64{}
	var chunks []foundChunk
	candidates := func(leg []foundChunk) []vectordb.Candidate {
		out := make([]vectordb.Candidate, len(leg))
		for i, hit := range leg {
			entry, ok := entries[hit.ID]
			if !ok {
				entry = uint64(len(chunks))
				entries[hit.ID], chunks = entry, append(chunks, hit)
			}
			out[i] = vectordb.Candidate{Entry: entry, Key: hit.Document, Score: hit.Score}
		}
		return out
	}
	dense, lexical := candidates(legs[0]), candidates(legs[1])
	var out []foundChunk
	for _, c := range (retrieve.Convex{Dense: weight}).Fuse(dense, lexical, k) {
		hit := chunks[c.Entry]
		hit.Score = c.Score
		out = append(out, hit)
	}
	return out, nil
}

// indexed makes an index of the corpus here.
func (s *sweep) indexed(ctx context.Context, frame *evalFrame, r *sweptRecipe, filter *vectordb.Filter, corpus string) (*builtRecipe, error) {
	cfg := frame.call.evalConfig()
	ch, em := r.full.Chunker, r.full.Embedder
	cfg.Chunker, cfg.Tokens, cfg.Overlap, cfg.Tokenizer, cfg.Embedder, cfg.Long = ch.Strategy, ch.Tokens, ch.Overlap, ch.Tokenizer, em.Model, em.Long
	x, err := indexCorpus(ctx, frame, cfg, corpus, "")
	if err != nil {
		return nil, err
	}
	info, err := x.indexer.Info(indexer.Live)
	if err != nil {
		return nil, errors.Join(err, x.shut())
	}
	return &builtRecipe{
		generation: info.Name, recipe: info.Recipe, stats: info.Stats, embedded: &info.Progress.TokensEmbedded, reused: &info.Progress.TokensReused, close: x.shut,
		ask: func(ctx context.Context, mode, query string, k int) ([]foundChunk, string, error) {
			request := retrieve.NewRequest(query)
			request.K, request.Filter, request.Mode = k, filter, retrieve.Mode(mode)
			answer, err := x.retriever.Retrieve(ctx, request)
			if err != nil {
				return nil, "", err
			}
			out := make([]foundChunk, len(answer.Hits))
			for i, hit := range answer.Hits {
				out[i] = foundChunk{hit.ID, evals.Ranked{Document: hit.Key, Score: hit.Score, Text: hit.Text}}
			}
			return out, string(answer.Mode), nil
		},
	}, nil
}

// askServer asks a generation of a running liverag.
func (s *sweep) askServer(cl *client, generation string) askLeg {
	return func(ctx context.Context, mode, query string, k int) ([]foundChunk, string, error) {
		request := queryRequest{Query: query, K: k, Mode: mode, Generation: generation}
		if s.ask.filter != "" {
			request.Filter = json.RawMessage(s.ask.filter)
		}
		answer, err := cl.examine(ctx, request)
		if err != nil {
			return nil, "", fmt.Errorf("of %s: %w", generation, err)
		}
		out := make([]foundChunk, len(answer.Hits))
		for i, r := range answer.ranked() {
			out[i] = foundChunk{answer.Hits[i].ID, r}
		}
		return out, answer.Mode, nil
	}
}
