package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/evals"
)

// chunking cuts and embeds a set's texts by each recipe, and retrieves the nearest chunks.
func (s *sweep) chunking(ctx context.Context, frame *evalFrame) (_ *sweepOutcome, err error) {
	set, err := evals.OpenChunkingSet(s.ask.set)
	if err != nil {
		return nil, withHint(err, "a set has corpora/*.md and questions.jsonl; `liverag help eval chunking` shows a line of it")
	}
	s.set = set.Set
	cfg := frame.call.evalConfig()
	models, err := openModels(cfg, cfg.logger(frame.call.Err))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, models.Close()) }()
	done := &sweepOutcome{asked: len(set.Questions), sizes: "tokens", shown: chunkingMetrics}
	progress := &sweepProgress{frame: frame, of: len(s.recipes), begun: time.Now()}
	for _, r := range s.recipes {
		rows, err := s.tryCuts(ctx, frame, models, r, set, progress)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			done.failed = append(done.failed, failedRecipe{r.name, err.Error(), err})
			progress.finished(r.name, "failed: "+err.Error())
			continue
		}
		done.rows = append(done.rows, rows...)
		progress.finished(r.name, fmt.Sprintf("%s, %s %.4f", count(rows[0].Chunks, "chunk"), s.metric, rows[0].Figures[s.metric]))
	}
	return done, nil
}

// tryCuts evaluates a recipe, each k by itself; from the second on, every vector is cached or cheap.
func (s *sweep) tryCuts(ctx context.Context, frame *evalFrame, models *system, r *sweptRecipe, set *evals.ChunkingSet, progress *sweepProgress) ([]*sweptRow, error) {
	parts, err := models.models.build(ctx, r.full, 0)
	if err != nil {
		return nil, fmt.Errorf("recipe: %w", err)
	}
	var rows []*sweptRow
	for _, v := range s.variants() {
		name := s.label(r.name, v)
		at := frame.progress(progress.at(name, "embedding: text"), "text")
		run, err := set.Run(embedder.WithLane(ctx, embedder.Live), parts.Chunker, parts.Embedder, evals.ChunkingOptions{K: v.K, Progress: at.at})
		if err != nil {
			return nil, err
		}
		row := &sweptRow{Name: name, Recipe: r.name, variant: v, Target: parts.Recipe, Chunks: len(run.Chunks), MeanTokens: run.MeanTokens(), report: chunkingReport(set, run)}
		row.Figures = row.report.Mean
		for _, c := range run.Chunks {
			row.Tokens += int64(c.Tokens)
			row.sizes = append(row.sizes, float64(c.Tokens))
		}
		for _, a := range run.Answers {
			for _, chunk := range a.Retrieved {
				row.AnswerTokens += float64(run.Chunks[chunk].Tokens) / float64(len(run.Answers))
			}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// chunkingReport has a run's figures by question, so that two runs can be compared.
func chunkingReport(set *evals.ChunkingSet, run *evals.ChunkingRun) evals.Report {
	values := func(s evals.ChunkingScore) map[string]float64 {
		return map[string]float64{"recall": s.Recall, "precision": s.Precision, "precision_omega": s.PrecisionOmega, "iou": s.IoU}
	}
	report := evals.Report{Metrics: chunkingMetrics, Judged: len(run.Answers), Answered: len(run.Answers), Mean: values(run.Mean), Queries: map[string]map[string]float64{}}
	for i, a := range run.Answers {
		report.Queries[set.Questions[i].ID] = values(a.Score)
	}
	return report
}
