package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/httpd"
	"github.com/liverag/liverag/internal/page"
	"github.com/liverag/liverag/internal/simd"
	"github.com/liverag/liverag/stream/feedback"
	"github.com/liverag/liverag/stream/intake"
)

func upVerb() verb {
	return verb{
		name: "up", group: groupStart,
		summary: "Run everything in one process: log, indexer, store, API, web page",
		about: `Opens the log and the store in the data directory, indexes what is in the log, and serves the API and a web page. Ctrl-C stops it cleanly; the next start goes on where it was and embeds nothing twice.

With --demo it first brings a corpus: the documentation of Go's standard library, read from the Go installation on this machine. Unless you choose a model, local/static indexes it within a second and answers at once. The tour then takes about a minute: live edits that are searchable in milliseconds; a second index, which the better model local/minilm builds from the same log behind the first, compared with it on questions and promoted if it is better; and a repository's history as a stream.

With --kafka the log is a Kafka topic instead of the embedded one, and with --milvus besides, the store is a Milvus instead of the embedded one. Then several processes may share the work: serve and index are up's two halves.`,
		examples: []example{
			{"see what it does, with documents that are on your machine already", "liverag up --demo"},
			{"the same without the tour", "liverag up --demo --no-tour"},
			{"an empty one, elsewhere, on another port", "liverag up --data /srv/liverag --listen 127.0.0.1:9000"},
			{"index an existing Kafka topic named articles", "liverag up --kafka broker1:9092,broker2:9092 --corpus articles"},
		},
		settings: []string{"*"},
		setup: func(fs *flag.FlagSet) action {
			u := &up{}
			fs.BoolVar(&u.demo, "demo", false, "bring the documentation of Go's standard library, and show what happens to it")
			fs.BoolVar(&u.noTour, "no-tour", false, "with --demo: only index it, without edits")
			return u.run
		},
	}
}

type up struct {
	demo, noTour bool
}

func (u *up) run(ctx context.Context, c *call) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "up takes no arguments: settings are flags"}
	}
	if u.noTour && !u.demo {
		return &usageError{detail: "--no-tour goes with --demo"}
	}
	quick := u.demo && c.Settings.Origin("embedder").IsDefault()
	return runProcess(ctx, c, duty{index: true, serve: true, quick: quick}, func(p *process) error {
		if !u.demo {
			return nil
		}
		t := &tour{system: p.system, config: c.Config, base: p.base, out: c.Out, short: u.noTour, quick: quick, every: tourEdit}
		if err := t.run(p.serving); err != nil && p.serving.Err() == nil {
			// The tour is a guest: what it shows goes on without it.
			c.Err.Printf("the tour ended early: %v\n", err)
			printNext(c.Out, p.base, t.question())
		}
		return nil
	}, u.demo)
}

// process is a liverag that runs.
type process struct {
	system  *system
	base    string          // URL
	serving context.Context // ends when it stops
}

// runProcess runs until ctx ends. guest is run beside it; guided tells that the guest says what to do next.
func runProcess(ctx context.Context, c *call, d duty, guest func(*process) error, guided bool) error {
	cfg := c.Config
	logger := cfg.logger(c.Err)
	s, err := open(ctx, cfg, d, logger)
	if err != nil {
		return err
	}
	defer func() {
		if err := s.Close(); err != nil {
			logger.Error("closing", "error", err)
		}
	}()
	server, address, err := s.server(c, d, logger)
	if err != nil {
		return err
	}
	base := "http://" + address
	if d.serve {
		forget, err := announce(cfg.Data, base)
		if err != nil {
			logger.Warn("verbs that are called without --server will not find this one", "error", err)
		}
		defer forget()
	}
	if c.JSON {
		if err := c.Out.JSON(map[string]any{"url": base, "data": cfg.Data, "pid": os.Getpid()}); err != nil {
			return err
		}
	} else {
		c.Out.Printf("%s\n", readBuild())
		c.Out.Printf("  log    %s, topic %s\n", s.where, cfg.Corpus)
		c.Out.Printf("  store  %s; kernel %s\n", s.stored, simd.Kernel())
		switch {
		case !d.index:
			c.Out.Printf("  serves; `liverag index` elsewhere does the indexing\n")
		case !d.serve:
			c.Out.Printf("  indexes; `liverag serve` elsewhere answers. Here are health, metrics and progress only\n")
		}
		c.Out.Printf("  listening on %s\n", c.Out.bold(base))
	}
	// The indexer outlives the server: requests in flight may wait for it.
	indexing, stopIndexing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopIndexing()
	indexed := make(chan error, 1)
	go func() { indexed <- s.indexer.Run(indexing) }()

	g, serving := errgroup.WithContext(ctx)
	g.Go(func() error { return server.Run(serving) })
	g.Go(func() error {
		select {
		case err := <-indexed:
			indexed <- nil // it has ended, and what it says is said here
			if err == nil {
				err = errors.New("the indexer stopped")
			}
			return err
		case <-serving.Done():
			return nil
		}
	})
	g.Go(func() error { return giveBack(serving, s) })
	g.Go(func() error { return s.ledger.Run(serving) })
	if s.queries != nil {
		g.Go(func() error { return s.queries.Run(serving) })
	}
	if tidy, ok := s.store.(interface {
		Sweep(ctx context.Context, generation string) (removed int, err error)
	}); ok && d.index {
		sweeps := newSweeper(s, tidy.Sweep, logger)
		g.Go(func() error { return sweeps.Run(serving) })
	}
	if !guided && !c.JSON && d.serve {
		printNext(c.Out, base, "")
	}
	g.Go(func() error { return guest(&process{s, base, serving}) })
	err = g.Wait()
	stopIndexing()
	err = errors.Join(err, <-indexed)
	if ctx.Err() != nil && !c.JSON {
		where := cfg.Data
		if cfg.Milvus.Address != "" {
			where = "the log and in Milvus"
		}
		c.Out.Printf("\nstopped; everything is in %s\n", where)
	}
	return err
}

const (
	// sweepFirst is about when leftovers are looked for after a start: whoever ran before may have died between writing new rows and removing the old ones.
	sweepFirst = 10 * time.Second
	// sweepEvery is about how often they are looked for after that. Answers never show them: they only take space.
	sweepEvery = time.Hour
)

// sweeper removes leftovers of interrupted writes from a shared store. Every process that indexes does it, at a time of its own.
type sweeper struct {
	clean       func(ctx context.Context, generation string) (removed int, err error)
	generations func() []indexer.Info
	logger      *slog.Logger
	sweeps      *prometheus.CounterVec
	removed     *prometheus.CounterVec
}

// newSweeper makes one whose counts are metrics.
func newSweeper(s *system, clean func(ctx context.Context, generation string) (int, error), logger *slog.Logger) *sweeper {
	w := &sweeper{
		clean: clean, generations: s.indexer.List, logger: logger,
		sweeps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "liverag_sweeps_total", Help: "How often this process has looked through the shared store for leftovers of interrupted writes.",
		}, []string{"generation"}),
		removed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "liverag_sweep_removed_total", Help: "Rows that were left behind by interrupted writes, or are deletions older than they are kept, and that this process has removed from the shared store. They were never shown.",
		}, []string{"generation"}),
	}
	s.metrics.MustRegister(w.sweeps, w.removed)
	return w
}

// Run sweeps until ctx ends.
func (w *sweeper) Run(ctx context.Context) error {
	for every := sweepFirst; ; every = sweepEvery {
		if err := pause(ctx, time.Duration((0.5+rand.Float64())*float64(every))); err != nil {
			return nil
		}
		for _, g := range w.generations() {
			removed, err := w.clean(ctx, g.Name)
			w.removed.WithLabelValues(g.Name).Add(float64(removed))
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				w.logger.Warn("leftovers in the store can't be looked for; trying again later", "generation", g.Name, "error", err)
				continue
			case removed > 0:
				w.logger.Info("leftovers of interrupted writes removed", "generation", g.Name, "rows", removed)
			}
			w.sweeps.WithLabelValues(g.Name).Inc()
		}
	}
}

// logger writes to standard error as configured.
func (c *Config) logger(errOut *terminal) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // validated
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(errOut, options))
	}
	return slog.New(slog.NewTextHandler(errOut, options))
}

// server listens and knows every route. A process that only indexes offers no documents in and no answers out.
func (s *system) server(c *call, d duty, logger *slog.Logger) (_ *httpd.Server, address string, err error) {
	cfg := c.Config
	in := intake.New(intake.Config{Sink: s.log, Waiter: s.indexer, MaxBytes: int(cfg.Documents.MaxBytes), LargeBytes: memoryShare(96<<20, 12), Logger: logger})
	listener, err := httpd.Listen(cfg.Listen, httpd.ListenOptions{Explicit: !c.Settings.Origin("listen").IsDefault(), Insecure: cfg.InsecureListen})
	if err != nil {
		return nil, "", err
	}
	routes := []func(*echo.Echo){s.indexer.Routes, s.ledger.Routes}
	if d.serve {
		routes = append(routes, in.Routes, s.retriever.Routes, feedback.New(feedback.Config{Log: s.log.Feedback()}).Routes, page.Routes)
	}
	ready := func() []string {
		if err := s.indexer.Ready(); err != nil {
			return []string{err.Error()}
		}
		return nil
	}
	return httpd.New(httpd.Config{
		Listener: listener, MaxBody: int64(cfg.HTTP.MaxBody), MaxInFlight: cfg.HTTP.MaxInFlight, OwnLimits: intake.OwnLimits,
		Logger: logger, Metrics: s.metrics, Ready: ready,
		Routes: routes,
	}), listener.Addr().String(), nil
}

// memoryShare is how many bytes of documents may be at one place at once: most, or what a memory limit (GOMEMLIMIT) leaves if each takes so many times its size there.
// Memory is bounded by what is in flight; the limit alone would only make the collector run all the time.
func memoryShare(most, times int64) int64 {
	return max(1<<20, min(most, debug.SetMemoryLimit(-1)/times))
}

// announce leaves the base URL in the data directory, for verbs that are called without --server.
func announce(data, base string) (forget func(), err error) {
	path := filepath.Join(data, urlFile)
	forget = func() { _ = os.Remove(path) }
	err = os.WriteFile(path+".new", []byte(base+"\n"), 0o644)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = os.Remove(path + ".new")
		forget() // an address of before would send them elsewhere
		return forget, fmt.Errorf("data directory: %w", err)
	}
	return forget, nil
}

// giveBack returns memory to the system once a burst of work is over, and again when the store has tidied up after it: what indexing took is not needed for serving.
func giveBack(ctx context.Context, s *system) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last int64
	for quiet := 0; ; quiet++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if work := s.indexer.Work(); work != last {
			last, quiet = work, 0
		}
		if quiet == 2 || quiet == 8 {
			debug.FreeOSMemory()
		}
	}
}

// printNext prints commands to be pasted into another terminal, with a question that the corpus answers; none if it is empty.
func printNext(out *terminal, base, question string) {
	const id = "notes/refunds.md"
	empty := question == ""
	if empty {
		question = "how long do refunds take"
	}
	ask := fmt.Sprintf("  # ask\n  curl -s '%s/retrieve?k=3&q=%s'\n", base, url.QueryEscape(question))
	change := fmt.Sprintf("  # change: searchable when it answers\n  curl -s -X PUT '%s/documents/%s?wait=5s' -d '{\"title\":\"Refunds\",\"text\":\"Refunds take three working days.\"}'\n", base, id)
	remove := fmt.Sprintf("  # delete: gone when it answers\n  go run ./cmd/liverag rm --wait 5s --server %s %s\n", base, id)
	if empty {
		ask, change = change, ask // there is nothing to ask yet
	}
	out.Printf("\n%s\n%s%s%s", out.bold("Your turn, in another terminal:"), ask, change, remove)
	out.Printf("\nThe page at %s asks too. Ctrl-C stops it; everything stays.\n", base)
}
