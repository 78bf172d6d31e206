package freshness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/stream"
)

// ObserveConfig says what to watch. Server, Source and Duration are required.
type ObserveConfig struct {
	Server Server
	// Source reads the topic from its end on, beside whoever indexes it. It is not committed to.
	Source stream.Source
	// Duration is how long new changes are sampled. Those that are watched by then are watched to their end.
	Duration time.Duration
	// Samples is how many changes a second are watched. Default: 5.
	Samples float64
	// Watchers is how many questions are on their way at the same time. Default: 2.
	Watchers int
	// K is how many hits the questions without a filter ask for. Default: 10.
	K                int
	Mode, Generation string
	// Patience is how long a change may take before it counts as never. Default: 1 min.
	Patience time.Duration
	// Backfill watches imported history too.
	Backfill bool
	Progress func(Progress)
}

// Seen is what an observation saw on the topic.
type Seen struct {
	// Changes were read, of which so many were watched. Unseeable ones have a tenant or an access list, so nobody is told of them; Imported ones are history.
	Changes, Watched, Unseeable, Imported int
	// Early were stamped later than we read them: the clocks of the topic and of this machine disagree by at least Skew.
	Early int
	Skew  time.Duration
	// Reading is how long after its time a change was read. What took less than that could not be told from it.
	Reading Latency
}

// observation is one run.
type observation struct {
	eval
	config   ObserveConfig
	watchers sync.WaitGroup
	seen     Seen
	reading  []time.Duration
	sampler  sampler

	// changing guards what follows.
	changing sync.Mutex
	waiting  int
}

// Observe watches real changes until they are in answers. It writes nothing.
func Observe(ctx context.Context, config ObserveConfig) (*Figures, *Seen, error) {
	config.Samples, config.Watchers, config.K = positive(config.Samples, 5), positive(config.Watchers, 2), positive(config.K, 10)
	config.Patience = positive(config.Patience, time.Minute)
	o := &observation{config: config, sampler: sampler{rate: config.Samples}}
	o.eval = eval{
		server: config.Server, ledger: newLedger(), k: config.K, mode: config.Mode, generation: config.Generation, patience: config.Patience,
		calls: make(chan struct{}, config.Watchers), begin: time.Now(),
	}
	o.number = func(hit Hit) (int64, bool) { return hit.Version, true }
	o.ledger.partial = true
	o.lexical.Store(true)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group errgroup.Group
	ticking, still := context.WithCancel(ctx)
	group.Go(func() error { o.tick(ticking); return nil })
	err := o.read(ctx, cancel)
	if err != nil {
		cancel(err)
	}
	o.watchers.Wait()
	still()
	_ = group.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, nil, err
	}
	until := time.Now()
	measured, err := o.server.Measured(ctx)
	if err != nil {
		return nil, nil, err
	}
	f := o.figures(until)
	f.Server = measured
	o.seen.Reading = latency(o.reading)
	return f, &o.seen, nil
}

// read takes changes from the topic until the time is over.
func (o *observation) read(ctx context.Context, failed context.CancelCauseFunc) error {
	reading, cancel := context.WithTimeout(ctx, o.config.Duration)
	defer cancel()
	for {
		batch, err := o.config.Source.Next(reading)
		now := time.Now()
		switch {
		case reading.Err() != nil || errors.Is(err, io.EOF):
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("read the topic: %w", err)
		}
		for i := range batch.Changes {
			o.take(ctx, failed, &batch.Changes[i], now)
		}
	}
}

// take notes a change, and has it watched if it is its turn.
func (o *observation) take(ctx context.Context, failed context.CancelCauseFunc, c *stream.Change, now time.Time) {
	if c.Kind != stream.Upsert && c.Kind != stream.Delete {
		return
	}
	o.seen.Changes++
	if c.Tenant != "" || c.Document != nil && c.Document.ACL != nil {
		o.seen.Unseeable++
		return
	}
	entered := c.Time
	if entered.After(now) {
		o.seen.Early++
		o.seen.Skew = max(o.seen.Skew, entered.Sub(now))
		entered = now
	}
	watched := !c.Backfill || o.config.Backfill
	if !watched {
		o.seen.Imported++
	}
	v := &version{number: c.Version, deleted: c.Kind == stream.Delete, entered: entered, unread: true}
	watched = watched && o.sampler.take(now)
	if c.Document != nil && watched {
		v.unread, v.text, v.exact = false, c.Document.Text, c.Document.ContentType != stream.TextHTML
	}
	o.ledger.enter(c.ID, v)
	o.ledger.ack(c.ID, v, "", now)
	if !watched {
		return
	}
	o.seen.Watched++
	o.reading = append(o.reading, now.Sub(entered))
	o.changing.Lock()
	o.waiting++
	o.changing.Unlock()
	o.watchers.Go(func() {
		err := o.follow(ctx, c.ID, v, entered)
		o.changing.Lock()
		o.waiting--
		o.changing.Unlock()
		if err != nil {
			failed(err)
		}
	})
}

// follow watches one change, and then asks as a user would: among all documents, by the document's own words.
func (o *observation) follow(ctx context.Context, id string, v *version, entered time.Time) error {
	if err := o.watch(ctx, id, v, entered); err != nil {
		return err
	}
	texts := o.ledger.texts(id, 1)
	if len(texts) == 0 {
		return nil
	}
	select {
	case o.calls <- struct{}{}:
		defer func() { <-o.calls }()
	case <-ctx.Done():
		return ctx.Err()
	}
	q := question{query: opening(texts[0]), live: texts[0], owed: false}
	a, err := o.ask(ctx, Question{Query: q.query, K: o.k, Mode: o.mode}, nil)
	if err != nil {
		return err
	}
	o.note(a, &q)
	return nil
}

// opening is a text's first words, as a question.
func opening(text string) string {
	const most = 300
	if text = strings.Join(strings.Fields(text), " "); len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	if text == "" {
		return "document"
	}
	return text
}

// tick tells of progress.
func (o *observation) tick(ctx context.Context) {
	if o.config.Progress == nil {
		return
	}
	for sleep(ctx, 250*time.Millisecond) == nil {
		o.changing.Lock()
		waiting := o.waiting
		o.changing.Unlock()
		elapsed := time.Since(o.begin)
		now := Progress{Phase: "observing", Done: int(min(elapsed, o.config.Duration).Seconds()), Total: int(o.config.Duration.Seconds()), Waiting: waiting, Elapsed: elapsed}
		if elapsed > o.config.Duration {
			now.Phase = "waiting"
		}
		o.config.Progress(now)
	}
}
