package indexer

import (
	"context"
	"fmt"

	"github.com/liverag/liverag/stream"
)

// logReader reads the log beside the pipelines, for whoever wants to know what it says.
type logReader struct {
	source stream.Source
	at     map[int32]int64 // everything below was read
}

// readLog opens the log at the positions; a partition that is absent is read from its beginning.
func (x *Indexer) readLog(ctx context.Context, from map[int32]int64) (*logReader, error) {
	spread, err := x.spread(ctx)
	if err != nil {
		return nil, err
	}
	source, err := x.config.Log.Open(ctx, stream.From{Positions: from, Spread: spread})
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &logReader{source: source, at: make(map[int32]int64)}, nil
}

// spread tells whether documents may have changes in two partitions: see stream.From. All generations of this log agree on it, since one from before partitions
// were added is of another; what such a one says, or one of a log that was here before, does not count.
func (x *Indexer) spread(ctx context.Context) (bool, error) {
	identity, err := x.config.Log.Identity(ctx)
	if err != nil {
		return false, fmt.Errorf("ask the log who it is: %w", err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, spec := range x.control.Generations {
		if spec.Spread && spec.Origin == origin(identity) {
			return true, nil
		}
	}
	return false, nil
}

// until gives use every change below the ends that was not read yet, and perhaps some beyond.
func (r *logReader) until(ctx context.Context, ends []stream.End, use func(*stream.Change) error) error {
	for !r.reached(ends) {
		batch, err := r.source.Next(ctx)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		for _, at := range batch.Assigned {
			r.at[at.Partition] = at.Offset
		}
		for i := range batch.Changes {
			if err := use(&batch.Changes[i]); err != nil {
				return err
			}
		}
		for _, at := range batch.Fetched {
			r.at[at.Partition] = at.Offset
		}
	}
	return nil
}

func (r *logReader) reached(ends []stream.End) bool {
	for _, end := range ends {
		if at, ok := r.at[end.Partition]; !ok || at < end.Offset {
			return false
		}
	}
	return true
}

func (r *logReader) close() { _ = r.source.Close() }
