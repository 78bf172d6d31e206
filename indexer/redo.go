package indexer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// redo applies one change beside the pipeline, at the version it has in the log. Nothing is written if the store has a newer one, now or when the write gets
// there: it is the same Apply under the same rule, so it may cross with the pipeline, with other processes and with itself.
//
// rewrite makes the document anew although the store may have this very version: nothing that is stored is reused.
//
// The problem is why this generation can't index the change, as for a dead letter.
func (g *generation) redo(ctx context.Context, c *stream.Change, rewrite bool) (*stream.Problem, error) {
	x := g.indexer
	if c.Kind == stream.Invalid {
		return c.Problem, nil
	}
	parts, err := g.usable()
	if err != nil {
		return nil, err
	}
	p := &pipeline{generation: g.name, parts: parts, counts: &g.counts}
	t := &task{key: c.Key(), covers: []cover{{at: c.Position, logged: c.Time, updated: c.Time, backfill: c.Backfill}}}
	if c.Kind == stream.Access {
		t.access = c
	} else {
		t.content = c
	}
	stored, err := x.config.Store.Current(ctx, g.name, []string{t.key})
	if err != nil {
		return nil, fmt.Errorf("read stored entries: %w", err)
	}
	if rewrite && stored[0].Version <= c.Version {
		stored[0] = vectordb.Revision{Key: t.key, Access: stored[0].Access}
	}
	live := x.live.Load() == g
	if err := x.gate.enter(ctx, live); err != nil {
		return nil, err
	}
	u := p.revise(t, &stored[0], &vectordb.Revision{}, "")
	var missing []missingInput
	if u != nil && !parts.Outside {
		missing, err = p.cut(ctx, t, u)
	}
	x.gate.leave()
	if u != nil && parts.Outside {
		missing, err = p.cut(ctx, t, u)
	}
	if problem := chunkerProblem(err); problem != nil {
		return problem, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cut: %w", err)
	}
	if len(t.letters) > 0 {
		return &t.letters[0].Problem, nil
	}
	if t.revision == nil {
		return nil, nil
	}
	if len(missing) > 0 {
		texts := make([]string, len(missing))
		for i := range missing {
			texts[i] = missing[i].text
		}
		lane := embedder.Replay
		if live {
			lane = embedder.Live
		}
		usage := parts.usage()
		vectors, err := parts.Embedder.Embed(embedder.WithUsage(embedder.WithLane(ctx, lane), usage), embedder.Index, texts)
		if problem := rejection(err); problem != nil {
			return problem, nil
		}
		if err != nil {
			return nil, fmt.Errorf("embed: %w", err)
		}
		tokens := 0
		for i := range missing {
			for _, entry := range missing[i].entries {
				t.revision.Entries[entry].Vector = vectors[i]
			}
			tokens += t.revision.Entries[missing[i].entries[0]].Tokens
		}
		t.embedded, t.reused = len(missing), len(t.revision.Entries)-len(missing)
		g.counts.chunksEmbedded.Add(int64(t.embedded))
		g.counts.addTokens(time.Now(), tokens)
		g.counts.bill(usage, tokens)
	}
	err = x.config.Store.Apply(ctx, g.name, vectordb.Write{Revisions: []vectordb.Revision{*t.revision}, Rewrite: rewrite})
	if errors.Is(err, vectordb.ErrInvalid) {
		return &stream.Problem{Code: stream.CodeEmbedRejected, Detail: err.Error()}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("write to the store: %w", err)
	}
	if delayed, ok := x.config.Store.(vectordb.Delayed); ok {
		if err := delayed.Visible(ctx, g.name); err != nil {
			return nil, fmt.Errorf("wait until the store shows what was written: %w", err)
		}
	}
	if live {
		x.hub.publish(time.Now(), t)
	}
	return nil, nil
}

// rejection is the problem of an input that the model refuses for good; nil for every other error, and for none.
func rejection(err error) *stream.Problem {
	var failed *embedder.Error
	switch {
	case !errors.As(err, &failed) || failed.Temporary || failed.Input < 0:
		return nil
	case errors.Is(err, embedder.ErrInputTooLong):
		return &stream.Problem{Code: stream.CodeInputTooLong, Detail: err.Error()}
	}
	return &stream.Problem{Code: stream.CodeEmbedRejected, Detail: err.Error()}
}
