package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/internal/httpd"
	"github.com/liverag/liverag/internal/page"
	"github.com/liverag/liverag/internal/simd"
	"github.com/liverag/liverag/stream/intake"
)

func upVerb() verb {
	return verb{
		name: "up", group: groupStart,
		summary: "Run everything in one process: log, indexer, store, API, web page",
		about: `Opens the log and the store in the data directory, indexes what is in the log, and serves the API and a web page. Ctrl-C stops it cleanly; the next start goes on where it was and embeds nothing twice.

With --demo it first brings a corpus: the documentation of Go's standard library, read from the Go installation on this machine. It then takes you through what liverag does, within a minute: live edits that are searchable in milliseconds, and a second index that is built from the same log with another recipe, compared, and promoted if it is better.

With --kafka the log is a Kafka topic instead of the embedded one.`,
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
			fs.BoolVar(&u.noTour, "no-tour", false, "with --demo: only index it")
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
	cfg := c.Config
	logger := cfg.logger(c.Err)
	s, err := open(ctx, cfg, logger)
	if err != nil {
		return err
	}
	defer func() {
		if err := s.Close(); err != nil {
			logger.Error("closing", "error", err)
		}
	}()
	server, address, err := s.server(c, logger)
	if err != nil {
		return err
	}
	base := "http://" + address
	forget, err := announce(cfg.Data, base)
	if err != nil {
		return err
	}
	defer forget()

	if c.JSON {
		if err := c.Out.JSON(map[string]any{"url": base, "data": cfg.Data, "pid": os.Getpid()}); err != nil {
			return err
		}
	} else {
		c.Out.Printf("%s\n", readBuild())
		c.Out.Printf("  log    %s, topic %s\n", s.where, cfg.Corpus)
		c.Out.Printf("  store  embedded, %s; kernel %s\n", filepath.Join(cfg.Data, "store"), simd.Kernel())
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
	if u.demo {
		g.Go(func() error {
			t := &tour{system: s, config: cfg, base: base, out: c.Out, short: u.noTour}
			if err := t.run(serving); err != nil && serving.Err() == nil {
				// The tour is a guest: what it shows goes on without it.
				c.Err.Printf("the tour ended early: %v\n", err)
				printNext(c.Out, base, t.question())
			}
			return nil
		})
	} else if !c.JSON {
		printNext(c.Out, base, "")
	}
	err = g.Wait()
	stopIndexing()
	err = errors.Join(err, <-indexed)
	if ctx.Err() != nil && !c.JSON {
		c.Out.Printf("\nstopped; everything is in %s\n", cfg.Data)
	}
	return err
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

// server listens and knows every route.
func (s *system) server(c *call, logger *slog.Logger) (_ *httpd.Server, address string, err error) {
	cfg := c.Config
	in := intake.New(intake.Config{Sink: s.log, Waiter: s.indexer, MaxBytes: int(cfg.Documents.MaxBytes), Logger: logger})
	listener, err := httpd.Listen(cfg.Listen, httpd.ListenOptions{Explicit: !c.Settings.Origin("listen").IsDefault(), Insecure: cfg.InsecureListen})
	if err != nil {
		return nil, "", err
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
		Routes: []func(*echo.Echo){in.Routes, s.retriever.Routes, s.indexer.Routes, page.Routes},
	}), listener.Addr().String(), nil
}

// announce leaves the base URL in the data directory, for verbs that are called without --server.
func announce(data, base string) (forget func(), err error) {
	path := filepath.Join(data, urlFile)
	if err := os.WriteFile(path+".new", []byte(base+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	return func() { _ = os.Remove(path) }, nil
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
