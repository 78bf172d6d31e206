package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/vectordb"
)

// answering is a shared store as those who ask meet it: one that can't be reached, or does not answer in time, is said to be so, and nobody waits for it as long as the
// pipelines do.
type answering struct {
	vectordb.Store
	logger *slog.Logger
}

// answerTimeout bounds each look into the store for a caller. A server that is loading after a restart would take longer.
const answerTimeout = 10 * time.Second

func (a answering) Search(ctx context.Context, generation string, q vectordb.Query) ([]vectordb.Hit, error) {
	within, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	hits, err := a.Store.Search(within, generation, q)
	return hits, a.unreachable(ctx, within, err)
}

func (a answering) Current(ctx context.Context, generation string, keys []string) ([]vectordb.Revision, error) {
	within, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	revisions, err := a.Store.Current(within, generation, keys)
	if late, ok := a.Store.(vectordb.Delayed); ok && err == nil && slices.ContainsFunc(revisions, func(r vectordb.Revision) bool { return r.Version == 0 }) {
		// A server that is just letting go of a collection finds nothing in what is left of it, and says no word of that. So what is not there is looked for again, once the
		// server has shown that it holds the collection and knows everything.
		if err = late.Visible(within, generation); err == nil {
			revisions, err = a.Store.Current(within, generation, keys)
		}
	}
	return revisions, a.unreachable(ctx, within, err)
}

// unreachable makes a 503 of an error that time mends, which are all that the port does not name: so the pipelines have it too. What the caller gave up is left alone.
func (a answering) unreachable(ctx, within context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	for _, named := range []error{vectordb.ErrNoGeneration, vectordb.ErrMismatch, vectordb.ErrInvalid, vectordb.ErrUnsupported, vectordb.ErrClosed, vectordb.ErrFormat, vectordb.ErrCorrupt} {
		if within.Err() == nil && errors.Is(err, named) {
			return err
		}
	}
	a.logger.Warn("a question is not answered because the store fails", "error", err)
	return &problem.Error{Status: http.StatusServiceUnavailable, Code: "store_unavailable", RetryAfter: 2 * time.Second, Err: err,
		Detail: "the store does not answer now; try again. What is written meanwhile is kept in the log, and indexed when it is back"}
}
