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
	"github.com/liverag/liverag/chunker/external"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/local"
	"github.com/liverag/liverag/embedder/openai"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/bpe"
	"github.com/liverag/liverag/internal/dirlock"
	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/internal/simd"
	"github.com/liverag/liverag/ledger"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/retrieve/querylog"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/stream/kafka"
	"github.com/liverag/liverag/vectordb"
	"github.com/liverag/liverag/vectordb/flat"
	"github.com/liverag/liverag/vectordb/milvus"
)

// system is everything a running liverag is made of. This file is the only place that knows every adapter.
type system struct {
	log       *kafka.Log
	store     vectordb.Store
	models    *models
	ledger    *ledger.Ledger
	indexer   *indexer.Indexer
	retriever *retrieve.Retriever
	queries   *querylog.Log // nil: what is asked is not kept
	metrics   *prometheus.Registry
	identity  stream.Identity
	where     string // the log, for people
	stored    string // the store, for people

	closers []io.Closer // in the order to be closed
}

// duty is what a process does of the work.
type duty struct {
	index bool // run the pipelines
	serve bool // answer callers
	quick bool // make a first generation with local/static, whatever the settings say: it answers at once
}

// open makes the parts out of the settings. What is expensive and can wait (tokenizer tables, weights) is loaded when it is first used.
func open(ctx context.Context, cfg *Config, d duty, logger *slog.Logger) (_ *system, err error) {
	s := &system{metrics: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			err = unusable(errors.Join(err, s.Close()), cfg.Data)
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o755); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := s.openLog(ctx, cfg, logger); err != nil {
		return nil, err
	}
	if err := s.openStore(ctx, cfg, logger); err != nil {
		return nil, err
	}
	s.ledger = ledger.Open(ledger.Config{Dir: cfg.spendingDir(), Daily: cfg.Spending.daily(), Prices: cfg.prices(), Logger: logger})
	s.closers = append([]io.Closer{s.ledger}, s.closers...)
	s.models = &models{defaults: cfg.recipe(), openai: cfg.OpenAI, ledger: s.ledger, programs: cfg.Programs, endpoints: filepath.Join(cfg.Data, "endpoints"), logger: logger, open: map[string]*model{}, cutters: map[string]*external.Exec{}}
	s.closers = append([]io.Closer{s.models}, s.closers...)
	if d.index && cfg.Cache.MaxBytes > 0 {
		if err := s.openCache(cfg, logger); err != nil {
			return nil, err
		}
	}
	shared := cfg.Milvus.Address != ""
	if _, err := s.models.build(ctx, cfg.recipe(), 0); temporary(err) {
		logger.Warn("the model or the chunker does not answer yet; indexing waits for it", "embedder", cfg.Embedder, "chunker", cfg.Chunker, "error", err)
	} else if err != nil { // before anybody is told that it runs
		return nil, fmt.Errorf("recipe: %w", err)
	}
	first, asked := cfg.recipe(), cfg.recipe() != defaultRecipe()
	if d.quick {
		first.Embedder.Model, asked = local.StaticName, false
	}
	s.indexer = indexer.New(indexer.Config{
		Log: s.log, DeadLetters: s.log, Letters: s.log, Register: s.log.Control(), Store: s.store,
		Shared: shared, Observe: shared && !d.index, Groups: s.log,
		Build: s.models.build, Recipe: first, RecipeAsked: asked, MaxInFlightBytes: memoryShare(int64(cfg.Indexer.MaxInFlightBytes), 20),
		Account: s.ledger, Gate: s.gate(cfg.Evals.Questions),
		SLO:    indexer.SLO{Target: cfg.Freshness.SLO.Target, Percentile: cfg.Freshness.SLO.Percentile},
		Logger: logger,
	})
	s.metrics.MustRegister(s.indexer.Metrics(), s.ledger.Metrics(), s.models.Metrics())
	var answers retrieve.Store = s.store
	if shared {
		answers = answering{s.store, logger}
	}
	reading := retrieve.Config{Store: answers, Resolver: s, Follower: s, Rejected: s.rejected, Metrics: s.metrics}
	if d.serve && cfg.QueryLog {
		if s.queries, err = querylog.Open(querylog.Config{Path: cfg.queryLogFile(), Metrics: s.metrics, Logger: logger}); err != nil {
			return nil, err
		}
		reading.Asked = s.queries.Note
	}
	s.retriever = retrieve.New(reading)
	return s, nil
}

// defaultRecipe is what nobody asked for.
func defaultRecipe() vectordb.Recipe {
	cfg := defaultConfig()
	return cfg.recipe()
}

// temporary tells whether a model or a chunker may answer later.
func temporary(err error) bool {
	var model *embedder.Error
	var cut *chunker.Error
	return errors.As(err, &model) && model.Temporary || errors.As(err, &cut) && cut.Temporary
}

// openStore opens the shared store if there is one, else the embedded one.
func (s *system) openStore(ctx context.Context, cfg *Config, logger *slog.Logger) error {
	if cfg.Milvus.Address != "" {
		store, err := milvus.Open(ctx, cfg.Milvus.milvus(cfg.Corpus, logger))
		if err != nil {
			return fmt.Errorf("open store: %w", err)
		}
		s.store, s.stored = store, fmt.Sprintf("Milvus %s at %s", store.Server().Version, cfg.Milvus.Address)
	} else {
		store, err := flat.Open(cfg.storeDir(), flat.Options{Logger: logger})
		if err != nil {
			return fmt.Errorf("open store: %w", err)
		}
		s.store, s.stored = store, "embedded, "+filepath.Dir(cfg.storeDir())
	}
	s.closers = append([]io.Closer{s.store}, s.closers...)
	return nil
}

// storeDir is where the embedded store has the corpus' generations.
func (c *Config) storeDir() string { return filepath.Join(c.Data, "store", c.Corpus) }

// queryLogFile is where questions are kept, if they are.
func (c *Config) queryLogFile() string { return filepath.Join(c.Data, "queries", c.Corpus+".ndjson") }

// openCache opens the cache of vectors, unless another process has it: on a shared store two may run from one directory, and it only saves work.
func (s *system) openCache(cfg *Config, logger *slog.Logger) error {
	dir := filepath.Join(cfg.Data, "cache", cfg.Corpus)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("open vector cache: %w", err)
	}
	lock, err := dirlock.Take(filepath.Join(dir, "lock"))
	if err != nil {
		logger.Warn("vectors are not cached here", "directory", dir, "error", err)
		return nil
	}
	s.models.cache, err = embedder.OpenCache(embedder.CacheConfig{
		Dir: dir, MaxBytes: int64(cfg.Cache.MaxBytes),
		Warn: func(err error) { logger.Warn("vectors are not cached for now", "error", err) },
	})
	if err != nil {
		return errors.Join(fmt.Errorf("open vector cache: %w", err), lock.Close())
	}
	s.closers = append([]io.Closer{s.models.cache, lock}, s.closers...)
	return nil
}

// sessionTimeout is how long the changes of an indexing process that died wait until another one takes them over. A pause of a living one, which it
// would have to outlast, is much shorter; and one that is thrown out by mistake only repeats some work.
const sessionTimeout = 10 * time.Second

func (s *system) openLog(ctx context.Context, cfg *Config, logger *slog.Logger) (err error) {
	c := cfg.Kafka.kafka()
	c.Corpus, c.MaxDocumentBytes, c.Logger = cfg.Corpus, int(cfg.Documents.MaxBytes), logger
	c.SessionTimeout = sessionTimeout
	if c.Mapping, err = cfg.Mapping.mapping(); err != nil {
		return err
	}
	s.where = "Kafka at " + strings.Join(cfg.Kafka.Brokers, ", ")
	if len(cfg.Kafka.Brokers) == 0 {
		index := "" // on a shared store it is never away
		if cfg.Milvus.Address == "" {
			index = cfg.storeDir()
		}
		embedded, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Dir: filepath.Join(cfg.Data, "log"), MaxBytes: int64(cfg.Log.MaxBytes), Index: index, Logger: logger})
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
	openai   OpenAIConfig
	ledger   *ledger.Ledger // nil: nobody counts
	programs string         // the directory of programs that a recipe may name
	// endpoints is the directory where what endpoints say of their models is kept; empty: nowhere.
	endpoints string
	logger    *slog.Logger

	opening sync.Mutex // held while a model is opened, which may take as long as its endpoint
	mu      sync.Mutex
	open    map[string]*model
	cutters map[string]*external.Exec
	closers []io.Closer
}

type model struct {
	index embedder.Embedder // for documents
	query embedder.Embedder // for questions
	// fusion is how much its dense leg is worth beside the lexical one; docs/BENCHMARKS.md has the measurements.
	fusion retrieve.Fusion
	// providers tells how it stands with its endpoints; nil if it runs here.
	providers func() []embedder.Provider
	here      bool // it runs in this process
}

// Close gives back what the models hold.
func (m *models) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for _, c := range m.closers {
		errs = append(errs, c.Close())
	}
	m.closers = nil
	return errors.Join(errs...)
}

// build makes a recipe's parts. What the recipe leaves out is filled in. dim is the dimension that the model must have, 0 if that is open.
func (m *models) build(ctx context.Context, r vectordb.Recipe, dim int) (indexer.Parts, error) {
	d := m.defaults
	r.Chunker.Strategy = cmp.Or(r.Chunker.Strategy, d.Chunker.Strategy)
	r.Chunker.Tokens = cmp.Or(r.Chunker.Tokens, d.Chunker.Tokens)
	r.Chunker.Tokenizer = cmp.Or(r.Chunker.Tokenizer, d.Chunker.Tokenizer)
	r.Embedder.Model = cmp.Or(r.Embedder.Model, d.Embedder.Model)
	r.Embedder.Long = cmp.Or(r.Embedder.Long, d.Embedder.Long)
	cut, err := m.chunker(ctx, r.Chunker)
	if err != nil {
		return indexer.Parts{}, fmt.Errorf("chunker.%w", err)
	}
	opened, err := m.model(ctx, r.Embedder.Model, dim)
	if err != nil {
		return indexer.Parts{}, fmt.Errorf("embedder.model: %w", err)
	}
	long, err := embedder.Long(opened.index, embedder.LongPolicy(r.Embedder.Long))
	if err != nil {
		return indexer.Parts{}, fmt.Errorf("embedder.long: %w", err)
	}
	return indexer.Parts{Recipe: r, Chunker: cut, Outside: external.Names(r.Chunker.Strategy), Embedder: long, Providers: opened.providers, Here: opened.here, Price: m.price(r.Embedder.Model)}, nil
}

// chunker makes what cuts by a recipe.
func (m *models) chunker(ctx context.Context, r vectordb.ChunkerRecipe) (chunker.Chunker, error) {
	command, program := strings.CutPrefix(r.Strategy, external.ExecPrefix)
	service := external.IsURL(r.Strategy)
	if !program && !service {
		options := chunker.Options{Strategy: r.Strategy, Tokens: r.Tokens, Overlap: r.Overlap, Tokenizer: r.Tokenizer}
		if r.Tokenizer == chunker.MiniLM {
			options.Counter = wordPieces{}
		}
		return chunker.New(options)
	}
	var count chunker.Counter = wordPieces{}
	if r.Tokenizer != chunker.MiniLM {
		encoding, err := bpe.Load(r.Tokenizer)
		if err != nil {
			return nil, fmt.Errorf("tokenizer: %w", err)
		}
		count = encoding
	}
	if service {
		cut, err := external.OpenHTTP(ctx, external.HTTPConfig{URL: r.Strategy, Counter: count})
		if err != nil {
			return nil, fmt.Errorf("strategy: %w", err)
		}
		return cut, nil
	}
	cut, err := external.OpenExec(external.ExecConfig{Command: command, Dir: m.programs, Counter: count, Processes: runtime.GOMAXPROCS(0), Logger: m.logger})
	if errors.Is(err, external.ErrForbidden) {
		return nil, fmt.Errorf("strategy: %w; the setting programs names the directory", err)
	}
	if err != nil {
		return nil, fmt.Errorf("strategy: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := r.Tokenizer + " " + cut.Name()
	if same := m.cutters[key]; same != nil { // its processes serve every generation
		return same, cut.Close()
	}
	m.cutters[key] = cut
	m.closers = append(m.closers, cut)
	return cut, nil
}

// wordPieces counts for the tokenizer minilm.
type wordPieces struct{}

func (wordPieces) Count(text string) int { return local.CountWordPieces(text) }

// model opens the model of that name, provider/name.
func (m *models) model(ctx context.Context, name string, dim int) (*model, error) {
	m.opening.Lock()
	defer m.opening.Unlock()
	if opened, err := m.opened(name); err == nil {
		return opened, nil
	}
	provider, rest, _ := strings.Cut(name, "/")
	opened := &model{here: provider != "openai", fusion: retrieve.Convex{Dense: retrieve.StrongDenseWeight}}
	switch provider {
	case "hash":
		dim, err := strconv.Atoi(rest)
		if err != nil || dim < 8 || dim > 4096 {
			return nil, fmt.Errorf("%q: hash wants a dimension from 8 to 4096, like hash/384", name)
		}
		opened.fusion = retrieve.DefaultFusion
		// It costs less than looking anything up.
		opened.index = embedder.NewHash(dim)
		opened.query = opened.index
	case "local":
		base, err := local.Open(name)
		if err != nil {
			return nil, err
		}
		if name == local.StaticName {
			opened.fusion = retrieve.DefaultFusion
		}
		if simd.Kernel() == "go" {
			m.logger.Warn("no vector instructions of this processor are used, so the model is some twenty times slower than it could be; local/static is quick all the same", "model", name, "kernel", simd.Kernel())
		} else {
			m.logger.Debug("model opened", "model", base.Name(), "kernel", simd.Kernel())
		}
		if _, heavy := base.(*local.MiniLM); heavy {
			local.Spare() // what is done beside the model must not wait for it
		}
		// One request more than cores, because a replay leaves one free for live work.
		opened.wrap(base, embedder.BatchConfig{Concurrency: local.Processors() + 1}, m.cache)
	case "openai":
		c := m.openai.openai(rest, dim, m.logger)
		c.Memory = m.endpoints
		base, err := openai.Open(ctx, c)
		if err != nil {
			return nil, err
		}
		m.mu.Lock()
		m.closers = append(m.closers, base)
		m.mu.Unlock()
		purse, most := m.purse(name, base.MaxBatchTokens())
		if asked := base.OpenedWith().Charged; purse != nil && asked > 0 { // what was sent to find out the dimension is paid for too
			purse.Settle(embedder.Index, 0, int64(asked))
		}
		standbys, err := m.standbys(ctx, base, rest)
		if err != nil {
			return nil, err
		}
		opened.providers = opened.wrap(base, embedder.BatchConfig{
			Concurrency: m.openai.Concurrency, MaxInputs: base.MaxBatch(), MaxTokens: most, Linger: openaiLinger,
			Limits: m.openai.limits(), Endpoint: base.Endpoint(), Purse: purse, Failover: standbys,
		}, m.cache).Providers
		m.logger.Info("model opened", "model", base.Name(), "endpoint", base.Endpoint(), "dimensions", base.Dim())
	default:
		return nil, fmt.Errorf("%q: unknown provider %q; there are %s, openai/… for any OpenAI-compatible endpoint, and hash/384", name, provider, strings.Join(local.Models(), ", "))
	}
	m.mu.Lock()
	m.open[name] = opened
	m.mu.Unlock()
	return opened, nil
}

// opened returns a model that a generation was built with.
func (m *models) opened(name string) (*model, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if opened := m.open[name]; opened != nil {
		return opened, nil
	}
	return nil, fmt.Errorf("model %s is not open", name)
}

// standbys are the endpoints that stand in for a model's first one: one, if the settings have it. One whose vectors differ is an error. One that does not answer now, or while the first
// does not, is compared before it is first used.
func (m *models) standbys(ctx context.Context, first *openai.Model, model string) ([]embedder.Endpoint, error) {
	if m.openai.Failover.BaseURL == "" {
		return nil, nil
	}
	standby, err := openai.NewStandby(first, m.openai.standby(model, m.logger))
	if err != nil {
		return nil, fmt.Errorf("openai.failover: %w", err)
	}
	m.mu.Lock()
	m.closers = append(m.closers, standby)
	m.mu.Unlock()
	if err := lookAt(ctx, standby); temporary(err) {
		m.logger.Warn("the standby endpoint can't be compared with the first yet; it will be before it is used", "endpoint", standby.Endpoint(), "model", first.Name(), "error", err)
	} else if err != nil {
		return nil, fmt.Errorf("openai.failover: %w", err)
	}
	settings := m.openai.second()
	return []embedder.Endpoint{{Name: standbyName(first, standby), Model: standby, Concurrency: settings.Concurrency, Limits: settings.limits()}}, nil
}

// lookAt compares a standby with its first endpoint, within a time: nothing that works waits for one that hangs.
func lookAt(ctx context.Context, standby *openai.Standby) error {
	looking, cancel := context.WithTimeout(ctx, modelTimeout)
	defer cancel()
	return late(ctx, looking, standby.Endpoint(), standby.Check(looking))
}

// late is err, or if asking has ended before its parent, that an endpoint has not answered in time.
func late(ctx, asking context.Context, where string, err error) error {
	if err == nil || asking.Err() == nil || ctx.Err() != nil {
		return err
	}
	return &embedder.Error{Op: "openai: look at " + where, Temporary: true, Input: -1, Err: fmt.Errorf("no answer within %s", modelTimeout)}
}

// standbyName tells a standby from its first endpoint, which may be at the same address with another key.
func standbyName(first *openai.Model, standby *openai.Standby) string {
	if standby.Endpoint() == first.Endpoint() {
		return standby.Endpoint() + " (failover)"
	}
	return standby.Endpoint()
}

// purse is what may be spent on a model; nil where nobody counts. most, 0 for any number, is how many tokens the model takes in a request, and how many it is to be sent in one.
func (m *models) purse(name string, most int) (embedder.Purse, int) {
	if m.ledger == nil {
		return nil, most
	}
	purse := m.ledger.Purse(name)
	if part := purse.MostTokens(); part > 0 && (most == 0 || part < most) {
		most = part
	}
	return purse, most
}

// wrap puts the scheduler of requests, and the caches, before a model. Questions for a provider go through the scheduler too, which sends them first and beside the
// others; a model that runs here has nothing to schedule for them.
func (o *model) wrap(base embedder.Embedder, requests embedder.BatchConfig, cache *embedder.VectorCache) *embedder.Batcher {
	batched := embedder.Batch(base, requests)
	o.index, o.query = batched, embedder.QueryCache(batched, queryCacheSize)
	if o.here {
		o.query = embedder.QueryCache(base, queryCacheSize)
	}
	if cache != nil {
		o.index = embedder.Cache(batched, cache)
	}
	return batched
}

// limits are what the endpoint allows, as far as that is known beforehand.
func (o *OpenAIConfig) limits() embedder.Limits {
	return embedder.Limits{RPM: o.RPM, TPM: o.TPM, Burst: o.burst()}
}

// burst is how long a time's allowance may be used at once, as far as that is known beforehand.
func (o *OpenAIConfig) burst() time.Duration {
	if o.Burst == 0 && o.RPM >= 60 {
		return openaiBurst
	}
	return o.Burst
}

const (
	// openaiBurst is less than the second that providers usually grant, so that requests which the network bunches up don't meet a refusal.
	openaiBurst = 500 * time.Millisecond
	// openaiLinger is the longest that a chunk waits for company while a request is under way; usually it is far shorter.
	openaiLinger = 10 * time.Millisecond
)

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
	opened, err := s.models.opened(info.Recipe.Embedder.Model)
	if err != nil {
		return retrieve.Target{}, err
	}
	t := retrieve.Target{Name: info.Name, Recipe: parts.Recipe, Embedder: opened.query, Fusion: opened.fusion}
	if name == indexer.Live {
		t.Alias = name
	}
	return t, nil
}

// rejected tells of a document's newest change if it is a dead letter.
func (s *system) rejected(ctx context.Context, generation, key string, holds int64) *retrieve.Pending {
	r := s.indexer.Rejected(ctx, generation, key, holds)
	if r == nil {
		return nil
	}
	return &retrieve.Pending{Version: r.Version, Code: r.Problem.Code, Detail: r.Problem.Detail, DeadLetter: r.Letter}
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

// milvus is how vectordb/milvus takes the settings.
func (m *MilvusConfig) milvus(corpus string, logger *slog.Logger) milvus.Config {
	return milvus.Config{
		Address: m.Address, User: m.User, Password: m.Password, Token: m.Token, Database: m.Database, Corpus: corpus, Logger: logger,
		TLS: milvus.TLS{Enable: m.TLS, CAFile: m.CAFile, CertFile: m.CertFile, KeyFile: m.KeyFile, ServerName: m.ServerName},
	}
}

// openai is how embedder/openai takes the settings. dim is the dimension that the model must have, 0 if that is open.
func (o *OpenAIConfig) openai(model string, dim int, logger *slog.Logger) openai.Config {
	c := openai.Config{
		Model: model, BaseURL: o.BaseURL, Key: o.APIKey, Headers: o.Headers, Dimensions: o.Dimensions, Dim: dim, Encoding: o.Encoding,
		IndexPrefix: o.IndexPrefix, QueryPrefix: o.QueryPrefix,
		InputTypeField: o.InputTypeField, InputTypeIndex: o.IndexInputType, InputTypeQuery: o.QueryInputType,
		MaxInput: o.MaxInput, MaxBatch: o.MaxBatch, MaxBatchTokens: o.MaxBatchTokens, Timeout: o.Timeout, Logger: logger,
	}
	if strings.HasPrefix(model, "text-embedding-") { // OpenAI's own, whose tokenizer is known
		if encoding, err := bpe.Load(chunker.CL100K); err == nil {
			c.Count = encoding.Count
		}
	}
	return c
}

// second is the settings of the endpoint that stands in: its own, and the first one's for what is the model's.
func (o *OpenAIConfig) second() OpenAIConfig {
	as, f := *o, o.Failover
	as.BaseURL, as.APIKey, as.Headers, as.RPM, as.TPM, as.Burst = f.BaseURL, f.APIKey, f.Headers, f.RPM, f.TPM, 0
	as.Concurrency, as.Failover = cmp.Or(f.Concurrency, o.Concurrency), FailoverConfig{}
	return as
}

// standby is how embedder/openai takes them. model is what the first calls its model.
func (o *OpenAIConfig) standby(model string, logger *slog.Logger) openai.Config {
	as := o.second()
	c := as.openai(cmp.Or(o.Failover.Model, model), 0, logger)
	c.KeyName = envPrefix + "OPENAI_FAILOVER_API_KEY"
	return c
}
