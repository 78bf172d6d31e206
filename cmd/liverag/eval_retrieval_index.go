package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// scratchLog is how large the log of a scratch index may grow; the disk is the limit before.
const scratchLog = 1 << 40

// index makes an index of a corpus, and asks it.
func (e *evalRetrieval) index(ctx context.Context, frame *evalFrame, corpus string) (*asked, error) {
	filter, err := vectordb.ParseFilter([]byte(cmp.Or(e.filter, "null")))
	if err != nil {
		return nil, err
	}
	scratch, err := indexCorpus(ctx, frame, frame.call.evalConfig(), corpus, e.keep)
	if err != nil {
		return nil, err
	}
	return &asked{
		search: func(ctx context.Context, query string, k int) ([]evals.Ranked, error) {
			request := retrieve.NewRequest(query)
			request.K, request.Filter, request.Mode = k, filter, retrieve.Mode(e.modeName())
			answer, err := scratch.retriever.Retrieve(ctx, request)
			if err != nil {
				return nil, err
			}
			out := make([]evals.Ranked, len(answer.Hits))
			for i, hit := range answer.Hits {
				out[i] = evals.Ranked{Document: hit.Key, Score: hit.Score, Text: hit.Text}
			}
			return out, nil
		},
		target: func() (evals.Target, error) {
			info, err := scratch.indexer.Info(indexer.Live)
			return evals.Target{Generation: info.Name, Recipe: describeRecipe(info.Recipe)}, err
		},
		close: scratch.shut,
	}, nil
}

// scratchIndex is an index that was made for an eval, and runs until it is shut.
type scratchIndex struct {
	*system
	shut func() error
}

// indexCorpus makes an index of a corpus by the recipe of cfg, a configuration of evalConfig, with the code that `up` runs, in the directory keep; empty: in one that is removed at the end.
func indexCorpus(ctx context.Context, frame *evalFrame, cfg *Config, corpus, keep string) (_ *scratchIndex, err error) {
	if corpus == "" {
		return nil, withHint(errors.New("--in-process needs the documents: there is no corpus.jsonl in the set"), "name a directory in BEIR's layout with --set; --questions asks questions of your own about it")
	}
	vectors := filepath.Join(cfg.Data, "cache", cfg.Corpus)
	cfg.Corpus, cfg.Data = defaultConfig().Corpus, keep
	cfg.Kafka, cfg.Milvus, cfg.Mapping = defaultConfig().Kafka, MilvusConfig{}, MappingConfig{}
	cfg.Log.MaxBytes = scratchLog
	remove := func() error { return nil }
	if keep == "" {
		if cfg.Data, err = os.MkdirTemp("", "liverag-eval-"); err != nil {
			return nil, fmt.Errorf("make an index: %w", err)
		}
		remove = func() error { return os.RemoveAll(cfg.Data) }
		if cfg.Cache.MaxBytes > 0 {
			// The index goes, the vectors stay: the cache of all evals stands where this index has its own.
			if err := linkCache(vectors, filepath.Join(cfg.Data, "cache", cfg.Corpus)); err != nil {
				return nil, errors.Join(err, remove())
			}
		}
	}
	s, err := open(ctx, cfg, duty{index: true, serve: true}, cfg.logger(frame.call.Err))
	if err != nil {
		return nil, errors.Join(err, remove())
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var indexing sync.WaitGroup
	var ended error
	failed := make(chan struct{})
	indexing.Go(func() {
		ended = s.indexer.Run(running)
		close(failed)
	})
	shut := func() error {
		stop()
		indexing.Wait()
		return errors.Join(ended, s.Close(), remove())
	}
	filling, cancel := context.WithCancel(ctx)
	defer cancel()
	indexing.Go(func() {
		select {
		case <-failed: // nobody would ever index what is waited for
			cancel()
		case <-filling.Done():
		}
	})
	if err := fillCorpus(filling, frame, s, corpus); err != nil {
		return nil, errors.Join(err, shut())
	}
	return &scratchIndex{s, shut}, nil
}

// linkCache lets the directory at link be the one at target.
func linkCache(target, link string) error {
	target, err := filepath.Abs(target)
	if err != nil {
		return fmt.Errorf("share the cache of vectors: %w", err)
	}
	for _, dir := range []string{target, filepath.Dir(link)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("share the cache of vectors: %w", err)
		}
	}
	// Where links can't be made, the index has a cache of its own, and loses it.
	_ = os.Symlink(target, link)
	return nil
}

// fillCorpus appends a corpus to the log and waits until all of it can be found.
func fillCorpus(ctx context.Context, frame *evalFrame, s *system, corpus string) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	f, err := os.Open(corpus)
	if err != nil {
		return fmt.Errorf("open the corpus: %w", err)
	}
	defer f.Close()
	const batch = 500
	var changes []stream.Change
	documents := 0
	ends := map[int32]stream.Position{}
	flush := func() error {
		receipt, err := s.log.Append(ctx, changes...)
		if err != nil {
			return fmt.Errorf("append the corpus to the log: %w", err)
		}
		for _, p := range receipt.Positions {
			if end, ok := ends[p.Partition]; !ok || end.Offset < p.Offset {
				ends[p.Partition] = p
			}
		}
		documents += len(changes)
		changes = changes[:0]
		return nil
	}
	for d, err := range evals.ReadCorpus(f, corpus) {
		if err != nil {
			return err
		}
		if err := stream.CheckID(d.ID); err != nil {
			return fmt.Errorf("%s: document %q: %w", corpus, d.ID, err)
		}
		changes = append(changes, stream.Change{Kind: stream.Upsert, ID: d.ID, Document: &stream.Document{Title: d.Title, Text: d.BenchmarkText(), ContentType: stream.TextPlain}})
		if len(changes) == batch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(changes) > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	if documents == 0 {
		return fmt.Errorf("%s has no documents", corpus)
	}
	return awaitCorpus(ctx, frame, s, ends, documents)
}

// awaitCorpus waits until the live generation has applied the log up to ends.
func awaitCorpus(ctx context.Context, frame *evalFrame, s *system, ends map[int32]stream.Position, documents int) error {
	positions := make([]stream.Position, 0, len(ends))
	for _, p := range ends {
		positions = append(positions, p)
	}
	applied := make(chan error, 1)
	go func() { applied <- s.indexer.WaitApplied(ctx, indexer.Live, positions) }()
	progress := frame.progress("indexed", "document")
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-applied:
			if err != nil {
				return fmt.Errorf("index the corpus: %w", err)
			}
			warnRejected(frame, s)
			return nil
		case <-tick.C:
			if info, err := s.indexer.Info(indexer.Live); err == nil {
				progress.at(min(int(info.Progress.Documents), documents), documents)
			}
		}
	}
}

// warnRejected tells of documents that could not be indexed, with --long reject say: no question finds them.
func warnRejected(frame *evalFrame, s *system) {
	if info, err := s.indexer.Info(indexer.Live); err == nil && info.Progress.DeadLetters > 0 {
		c := frame.call
		c.Err.Printf("%s %s could not be indexed, so no question finds them\n", c.Err.warn("note:"), count(info.Progress.DeadLetters, "document"))
	}
}
