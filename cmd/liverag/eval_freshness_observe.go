package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/liverag/liverag/evals"
	evalfresh "github.com/liverag/liverag/evals/freshness"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/stream/kafka"
)

// watch is --observe: the topic's changes are read beside the indexer, and nothing is written.
func (f *freshnessFlags) watch(ctx context.Context, c *call, frame *evalFrame, slo []evals.Gate) (err error) {
	server := newFreshnessServer(c.client(ctx))
	if err := server.client.do(ctx, "GET", "/readyz", nil, nil, options{}); err != nil {
		return err
	}
	cfg := c.Config.Kafka.kafka()
	cfg.Corpus, cfg.MaxDocumentBytes, cfg.Passive = c.Config.Corpus, int(c.Config.Documents.MaxBytes), true
	cfg.Logger = slog.New(slog.DiscardHandler)
	if cfg.Mapping, err = c.Config.Mapping.mapping(); err != nil {
		return err
	}
	log, err := kafka.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer log.Close()
	ends, err := log.Ends(ctx)
	if err != nil {
		return err
	}
	from := stream.From{Positions: map[int32]int64{}}
	for _, end := range ends {
		from.Positions[end.Partition] = end.Offset
	}
	source, err := log.Open(ctx, from)
	if err != nil {
		return err
	}
	defer source.Close()
	figures, seen, err := evalfresh.Observe(ctx, evalfresh.ObserveConfig{
		Server: server, Source: source, Duration: f.duration, Samples: f.samples, K: f.k, Mode: f.mode, Generation: f.generation, Patience: f.patience,
		Backfill: f.imports, Progress: freshnessProgress(c),
	})
	c.Err.clearStatus()
	if err != nil {
		return err
	}
	r := &evals.Result{
		Set:      evals.Set{Name: fmt.Sprintf("topic %s at %s", c.Config.Corpus, strings.Join(c.Config.Kafka.Brokers, ","))},
		Settings: map[string]any{"observe": true, "duration": f.duration.String(), "k": f.k},
	}
	return f.finish(frame, server, r, figures, seen, slo)
}
