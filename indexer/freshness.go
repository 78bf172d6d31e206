package indexer

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
)

// SLO is a promise of freshness: Percentile of changes are searchable within Target.
type SLO struct {
	Target     time.Duration
	Percentile float64
}

// MarshalJSON spells the target as a duration.
func (s SLO) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Target     string  `json:"target"`
		Percentile float64 `json:"percentile"`
	}{s.Target.String(), s.Percentile})
}

// freshness measures the live generation: how long changes take from the log, and from their origin, until a search returns them.
// Imports count apart, because their age says nothing about the system.
type freshness struct {
	slo      SLO
	entered  *latencies // since the change entered the log
	happened *latencies // since the document changed at its origin
	backfill *latencies // since an imported change entered the log
	observe  func(seconds float64)
}

func newFreshness(slo SLO) *freshness {
	return &freshness{
		slo:      slo,
		entered:  newLatencies(slo.Target),
		happened: newLatencies(slo.Target),
		backfill: newLatencies(slo.Target),
		observe:  func(float64) {},
	}
}

func (f *freshness) record(now time.Time, c cover) {
	// The record's timestamp is the clock of another time or of another machine. What entered the log after it was seen to end waited no longer than since then, and
	// that is measured with a clock that does not jump.
	d := max(0, now.Sub(c.logged))
	if !c.after.IsZero() {
		d = min(d, max(0, now.Sub(c.after)))
	}
	if c.backfill {
		f.backfill.add(now, d)
		return
	}
	f.entered.add(now, d)
	f.happened.add(now, max(0, now.Sub(c.updated)))
	f.observe(d.Seconds())
}

// Status says how fresh a generation is: everything that entered the log before AsOf is searchable, and Pending changes are known that are not.
type Status struct {
	AsOf    time.Time
	Pending int64
}

// Status returns the freshness of the generation or alias of that name.
func (x *Indexer) Status(name string) Status {
	g := x.lookup(name)
	if g == nil {
		return Status{}
	}
	asOf, pending := g.progress.lag()
	return Status{AsOf: asOf, Pending: pending}
}

// WaitSearchable blocks until the changes at the positions can be found in the live generation, whatever else waits, and whichever that is by then.
// ErrRejected: one of them never will be.
func (x *Indexer) WaitSearchable(ctx context.Context, positions []stream.Position) error {
	select {
	case <-x.answering:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		g := x.live.Load()
		err := x.waitExact(ctx, g, positions)
		if ctx.Err() != nil || x.live.Load() == g {
			return err
		}
		// The alias moved meanwhile.
	}
}

// WaitApplied blocks until everything up to the positions can be found in the named generation.
func (x *Indexer) WaitApplied(ctx context.Context, name string, positions []stream.Position) error {
	g := x.lookup(name)
	if g == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return g.progress.waitApplied(ctx, positions)
}

// WaitExact is WaitApplied for the changes at the positions alone.
func (x *Indexer) WaitExact(ctx context.Context, name string, positions []stream.Position) error {
	g := x.lookup(name)
	if g == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return x.waitExact(ctx, g, positions)
}

func (x *Indexer) waitExact(ctx context.Context, g *generation, positions []stream.Position) error {
	if err := g.progress.waitExact(ctx, positions); err != nil || !x.config.Observe {
		return err
	}
	// Those who index say only how far they have come.
	for _, at := range positions {
		if x.tail.refused(ctx, g, at) {
			return ErrRejected
		}
	}
	return nil
}

// WaitAsOf blocks until everything that entered the log before t can be found in the named generation.
func (x *Indexer) WaitAsOf(ctx context.Context, name string, t time.Time) error {
	g := x.lookup(name)
	if g == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if asOf, _ := g.progress.lag(); !asOf.Before(t) {
		return nil
	}
	// The ends known so far are too old to say, or not reached. Asking now answers at once on a quiet log.
	if ends, log, err := x.ends(ctx); err == nil {
		g.observe(ends, log)
	}
	return g.progress.waitAsOf(ctx, t)
}

// Freshness is the answer of GET /freshness.
type Freshness struct {
	SLO struct {
		Target     string  `json:"target"`
		Percentile float64 `json:"percentile"`
		Met        bool    `json:"met"`
	} `json:"slo"`
	Generation string              `json:"generation"`
	Entered    LatencyJSON         `json:"time_to_searchable"`
	Happened   LatencyJSON         `json:"event_to_searchable"`
	Backfill   LatencyJSON         `json:"backfill"`
	Partitions []PartitionProgress `json:"partitions"`
	Embedding  EmbeddingLoad       `json:"embedding"`
	Past       *Past               `json:"past,omitempty"`
}

// EmbeddingLoad is how much of the embedding allowance is in use: of the endpoint that requests go to, by what the provider charged in the last minute. Allowed is 0 where no limit is
// known, as for the local models; theirs are the tokens embedded, in the chunker's tokenizer. Throttled is for how long, since the
// start, work had to wait for the allowance. Providers are the model's endpoints, the preferred one first; none if it runs in this process.
type EmbeddingLoad struct {
	Allowed   int64               `json:"allowed_tokens_per_minute"`
	Used      int64               `json:"used_tokens_per_minute"`
	Throttled string              `json:"throttled"`
	Providers []embedder.Provider `json:"providers,omitempty"`
}

// LatencyJSON is a Latency as the API spells it.
type LatencyJSON struct {
	P50    string `json:"p50"`
	P90    string `json:"p90"`
	P95    string `json:"p95"`
	P99    string `json:"p99"`
	Max    string `json:"max"`
	Count  int64  `json:"count"`
	Window string `json:"window"`
}

func spell(l Latency) LatencyJSON {
	short := func(d time.Duration) string {
		switch {
		case d >= time.Second:
			return d.Round(time.Millisecond).String()
		case d >= time.Millisecond:
			return d.Round(10 * time.Microsecond).String()
		}
		return d.Round(time.Microsecond).String()
	}
	return LatencyJSON{short(l.P50), short(l.P90), short(l.P95), short(l.P99), short(l.Max), l.Count, l.Window.String()}
}

// Past is the freshness of a window gone by, a figure a minute in which anything changed.
type Past struct {
	From     time.Time    `json:"from"`
	To       time.Time    `json:"to"`
	Entered  []MinuteJSON `json:"time_to_searchable"`
	Happened []MinuteJSON `json:"event_to_searchable"`
}

// MinuteJSON is one minute of a Past.
type MinuteJSON struct {
	Start time.Time `json:"start"`
	LatencyJSON
}

// Freshness measures the live generation. It asks the log for its ends first, so that every change acknowledged before the call is counted.
func (x *Indexer) Freshness(ctx context.Context) (Freshness, error) {
	g := x.live.Load()
	if g == nil {
		return Freshness{}, ErrNotFound
	}
	ends, log, err := x.ends(ctx)
	if err != nil {
		return Freshness{}, fmt.Errorf("ask the log for its ends: %w", err)
	}
	g.observe(ends, log)
	return x.measured(g), nil
}

// measured reports what is known without asking the log.
func (x *Indexer) measured(g *generation) Freshness {
	now := time.Now()
	var out Freshness
	entered := x.freshness.entered.recent(now)
	out.SLO.Target, out.SLO.Percentile = x.freshness.slo.Target.String(), x.freshness.slo.Percentile
	out.SLO.Met = entered.Met >= x.freshness.slo.Percentile
	out.Generation = g.name
	out.Entered = spell(entered)
	out.Happened = spell(x.freshness.happened.recent(now))
	out.Backfill = spell(x.freshness.backfill.recent(now))
	out.Partitions = g.progress.snapshot()
	out.Embedding = EmbeddingLoad{Used: g.counts.tokensLastMinute(now), Providers: g.providers()}
	throttled := time.Duration(0)
	for _, p := range out.Embedding.Providers {
		throttled += p.HeldFor
	}
	if p := inUse(out.Embedding.Providers); p.Name != "" {
		out.Embedding.Allowed, out.Embedding.Used = int64(p.TPM), p.TokensLastMinute
	}
	out.Embedding.Throttled = throttled.Round(time.Millisecond).String()
	return out
}

func (x *Indexer) past(from, to time.Time) *Past {
	now := time.Now()
	out := &Past{From: from.UTC(), To: to.UTC(), Entered: []MinuteJSON{}, Happened: []MinuteJSON{}}
	for _, m := range x.freshness.entered.between(now, from, to) {
		out.Entered = append(out.Entered, MinuteJSON{m.Start, spell(m.Latency)})
	}
	for _, m := range x.freshness.happened.between(now, from, to) {
		out.Happened = append(out.Happened, MinuteJSON{m.Start, spell(m.Latency)})
	}
	return out
}
