package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/local"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/stream/kafka"
	"github.com/liverag/liverag/vectordb"
	"github.com/liverag/liverag/vectordb/flat"
)

// system is everything a running liverag is made of. This file is the only place that knows every adapter.
type system struct {
	log       *kafka.Log
	store     *flat.Store
	models    *models
	indexer   *indexer.Indexer
	retriever *retrieve.Retriever
	metrics   *prometheus.Registry
	identity  stream.Identity
	where     string // the log, for people

	closers []io.Closer // in the order to be closed
}

// open makes the parts out of the settings. What is expensive and can wait (tokenizer tables, weights) is loaded when it is first used.
func open(ctx context.Context, cfg *Config, logger *slog.Logger) (_ *system, err error) {
	s := &system{metrics: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := s.openLog(ctx, cfg, logger); err != nil {
		return nil, err
	}
	s.store, err = flat.Open(filepath.Join(cfg.Data, "store", cfg.Corpus), flat.Options{Logger: logger})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s.closers = append([]io.Closer{s.store}, s.closers...)
	s.models = &models{defaults: cfg.recipe(), open: map[string]*model{}}
	if cfg.Cache.MaxBytes > 0 {
		s.models.cache, err = embedder.OpenCache(embedder.CacheConfig{
			Dir: filepath.Join(cfg.Data, "cache", cfg.Corpus), MaxBytes: int64(cfg.Cache.MaxBytes),
			Warn: func(err error) { logger.Warn("vectors are no longer cached", "error", err) },
		})
		if err != nil {
			return nil, fmt.Errorf("open vector cache: %w", err)
		}
		s.closers = append([]io.Closer{s.models.cache}, s.closers...)
	}
	if _, err := s.models.build(cfg.recipe()); err != nil { // before anybody is told that it runs
		return nil, fmt.Errorf("recipe: %w", err)
	}
	d := defaultConfig()
	s.indexer = indexer.New(indexer.Config{
		Log: s.log, DeadLetters: s.log, Register: s.log.Control(), Store: s.store,
		Build: s.models.build, Recipe: cfg.recipe(), RecipeAsked: cfg.recipe() != d.recipe(), MaxInFlightBytes: int64(cfg.Indexer.MaxInFlightBytes),
		SLO:    indexer.SLO{Target: cfg.Freshness.SLO.Target, Percentile: cfg.Freshness.SLO.Percentile},
		Logger: logger,
	})
	s.metrics.MustRegister(s.indexer.Metrics())
	s.retriever = retrieve.New(retrieve.Config{Store: s.store, Resolver: s, Follower: s, Metrics: s.metrics})
	return s, nil
}

func (s *system) openLog(ctx context.Context, cfg *Config, logger *slog.Logger) (err error) {
	c := cfg.Kafka.kafka()
	c.Corpus, c.MaxDocumentBytes, c.Logger = cfg.Corpus, int(cfg.Documents.MaxBytes), logger
	if c.Mapping, err = cfg.Mapping.mapping(); err != nil {
		return err
	}
	s.where = "Kafka at " + strings.Join(cfg.Kafka.Brokers, ", ")
	if len(cfg.Kafka.Brokers) == 0 {
		embedded, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Dir: filepath.Join(cfg.Data, "log"), MaxBytes: int64(cfg.Log.MaxBytes), Logger: logger})
		if err != nil {
			return fmt.Errorf("open embedded log: %w", err)
		}
		s.closers = append(s.closers, embedded)
		c.Embedded, c.ReplicationFactor = embedded, 1
		s.where = "embedded, " + filepath.Join(cfg.Data, "log")
	}
	if s.log, err = kafka.Open(ctx, c); err != nil {
		return err
	}
	s.closers = append([]io.Closer{s.log}, s.closers...)
	s.identity, err = s.log.Identity(ctx)
	return err
}

// Close makes everything durable. The indexer must have stopped.
func (s *system) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// recipe is the one of the first generation.
func (c *Config) recipe() vectordb.Recipe {
	return vectordb.Recipe{
		Chunker:  vectordb.ChunkerRecipe{Strategy: c.Chunker, Tokens: c.Tokens, Overlap: c.Overlap, Tokenizer: c.Tokenizer},
		Embedder: vectordb.EmbedderRecipe{Model: c.Embedder, Long: c.Long},
	}
}

// models opens each model once, with the wrappers that all its generations share: they have one allowance and one cache.
type models struct {
	defaults vectordb.Recipe       // for what a recipe leaves out
	cache    *embedder.VectorCache // nil: none

	mu   sync.Mutex
	open map[string]*model
}

type model struct {
	index embedder.Embedder // for documents
	query embedder.Embedder // for questions
}

// build makes a recipe's parts. What the recipe leaves out is filled in.
func (m *models) build(r vectordb.Recipe) (indexer.Parts, error) {
	d := m.defaults
	r.Chunker.Strategy = cmp.Or(r.Chunker.Strategy, d.Chunker.Strategy)
	r.Chunker.Tokens = cmp.Or(r.Chunker.Tokens, d.Chunker.Tokens)
	r.Chunker.Tokenizer = cmp.Or(r.Chunker.Tokenizer, d.Chunker.Tokenizer)
	r.Embedder.Model = cmp.Or(r.Embedder.Model, d.Embedder.Model)
	r.Embedder.Long = cmp.Or(r.Embedder.Long, d.Embedder.Long)
	options := chunker.Options{Strategy: r.Chunker.Strategy, Tokens: r.Chunker.Tokens, Overlap: r.Chunker.Overlap, Tokenizer: r.Chunker.Tokenizer}
	if r.Chunker.Tokenizer == chunker.MiniLM {
		options.Counter = wordPieces{}
	}
	cut, err := chunker.New(options)
	if err != nil {
		return indexer.Parts{}, fmt.Errorf("chunker.%w", err)
	}
	opened, err := m.model(r.Embedder.Model)
	if err != nil {
		return indexer.Parts{}, fmt.Errorf("embedder.model: %w", err)
	}
	long, err := embedder.Long(opened.index, embedder.LongPolicy(r.Embedder.Long))
	if err != nil {
		return indexer.Parts{}, fmt.Errorf("embedder.long: %w", err)
	}
	return indexer.Parts{Recipe: r, Chunker: cut, Embedder: long}, nil
}

// wordPieces counts for the tokenizer minilm.
type wordPieces struct{}

func (wordPieces) Count(text string) int { return local.CountWordPieces(text) }

// model opens the model of that name, provider/name.
func (m *models) model(name string) (*model, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if opened := m.open[name]; opened != nil {
		return opened, nil
	}
	provider, rest, _ := strings.Cut(name, "/")
	opened := &model{}
	switch provider {
	case "hash":
		dim, err := strconv.Atoi(rest)
		if err != nil || dim < 8 || dim > 4096 {
			return nil, fmt.Errorf("%q: hash wants a dimension from 8 to 4096, like hash/384", name)
		}
		// It costs less than looking anything up.
		opened.index = embedder.NewHash(dim)
		opened.query = opened.index
	case "local":
		base, err := local.Open(name)
		if err != nil {
			return nil, err
		}
		// One request more than cores, because a replay leaves one free for live work.
		batch := embedder.Batch(base, embedder.BatchConfig{Concurrency: runtime.GOMAXPROCS(0) + 1})
		opened.index = batch
		if m.cache != nil {
			opened.index = embedder.Cache(batch, m.cache)
		}
		opened.query = embedder.QueryCache(batch, queryCacheSize)
	default:
		return nil, fmt.Errorf("%q: unknown provider %q; there are %s, and hash/384", name, provider, strings.Join(local.Models(), ", "))
	}
	m.open[name] = opened
	return opened, nil
}

// queryCacheSize is how many questions keep their vectors: the same few are asked again and again.
const queryCacheSize = 4096

// Resolve finds the generation that a query names. It implements retrieve.Resolver.
func (s *system) Resolve(name string) (retrieve.Target, error) {
	info, parts, err := s.indexer.Lookup(name)
	switch {
	case errors.Is(err, indexer.ErrNotFound):
		return retrieve.Target{}, fmt.Errorf("%w: %s", vectordb.ErrNoGeneration, name)
	case errors.Is(err, indexer.ErrUnusable) && name == indexer.Live:
		return retrieve.Target{}, problem.New(http.StatusServiceUnavailable, "not_ready", "%v", err)
	case errors.Is(err, indexer.ErrUnusable):
		return retrieve.Target{}, problem.New(http.StatusConflict, "generation_failed", "%v", err)
	case err != nil:
		return retrieve.Target{}, err
	}
	opened, err := s.models.model(info.Recipe.Embedder.Model)
	if err != nil {
		return retrieve.Target{}, err
	}
	t := retrieve.Target{Name: info.Name, Recipe: parts.Recipe, Embedder: opened.query}
	if name == indexer.Live {
		t.Alias = name
	}
	return t, nil
}

// Status tells how fresh a generation is. It implements retrieve.Follower.
func (s *system) Status(generation string) retrieve.Freshness {
	status := s.indexer.Status(generation)
	f := retrieve.Freshness{AsOf: status.AsOf, Pending: int(status.Pending)}
	if !status.AsOf.IsZero() {
		f.Lag = max(0, time.Since(status.AsOf))
	}
	return f
}

// Wait waits until a generation reflects tokens and a time. It implements retrieve.Follower.
func (s *system) Wait(ctx context.Context, generation string, tokens []string, asOf time.Time) (bool, error) {
	for _, token := range tokens {
		positions, single, err := stream.ParseToken(token, s.identity.ID)
		if err != nil {
			return false, retrieve.ErrTokenUnknown
		}
		wait := s.indexer.WaitApplied
		if single {
			wait = s.indexer.WaitExact
		}
		if err := wait(ctx, generation, positions); err != nil {
			return false, waited(ctx, err)
		}
	}
	if !asOf.IsZero() {
		if err := s.indexer.WaitAsOf(ctx, generation, asOf); err != nil {
			return false, waited(ctx, err)
		}
	}
	return true, nil
}

// waited tells a wait whose end did not come from one that can't be.
func waited(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil, errors.Is(err, indexer.ErrStopped), errors.Is(err, indexer.ErrRejected), errors.Is(err, indexer.ErrUnusable):
		return nil
	case errors.Is(err, indexer.ErrNotFound):
		return vectordb.ErrNoGeneration
	}
	return err
}
