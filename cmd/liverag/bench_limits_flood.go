package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
)

// flooding is how a flood meets its endpoint.
type flooding struct {
	inFlight, inputs int
	rpm              int
}

// rate is how many inputs a second that allows.
func (f flooding) rate(latency time.Duration) float64 {
	if f.rpm > 0 {
		return float64(f.rpm) / 60 * float64(f.inputs)
	}
	return float64(f.inFlight*f.inputs) / latency.Seconds()
}

func (b *limitsBench) floodOf(ctx context.Context, variant string) error {
	f, perSecond := flooding{inFlight: 8, inputs: 32}, 10_000
	if variant == "rpm" {
		f = flooding{inFlight: 16, inputs: 64, rpm: 3000}
	}
	if b.quick {
		f, perSecond = flooding{inFlight: 2, inputs: 16, rpm: f.rpm / 2}, 500
	}
	a := allowance{rpm: f.rpm, burst: time.Second, latency: 50 * time.Millisecond}
	corpus, err := newLimitsCorpus(ctx, sentences(int(float64(perSecond)*b.flooded.Seconds())), limitsRecipe{"markdown", 200})
	if err != nil {
		return err
	}
	t := &limitsTrial{variant: variant, allowed: a, provider: a.provider(bySettings), corpus: corpus, requests: int64((len(corpus.texts) + f.inputs - 1) / f.inputs)}
	t.openai = map[string]any{"max_batch": f.inputs, "concurrency": f.inFlight, "rpm": f.rpm}
	err = b.rehearse(ctx, t, func(r *rehearsal, s *limitsServer) error { return b.flood(ctx, t, f, perSecond, r, s) })
	if err == nil && b.plain {
		var out *limitsResult
		if out, err = b.alternative(ctx, t); err == nil {
			f.judge(out, t, out.Documents-out.Lost-out.Unfinished)
		}
	}
	return err
}

// flood sends so many changes a second, a tenth of a second's in a request, and measures until all of them are searchable.
func (b *limitsBench) flood(ctx context.Context, t *limitsTrial, f flooding, perSecond int, r *rehearsal, s *limitsServer) error {
	begin, err := b.begin(ctx, t, r, ours)
	if err != nil {
		return err
	}
	busy := s.busy()
	changes, each := len(t.corpus.texts), max(1, perSecond/10)
	tokens := make([]string, (changes+each-1)/each)
	g, sending := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for n := range tokens {
		if err := pause(ctx, time.Until(begin.Add(time.Duration(n)*time.Second/10))); err != nil {
			return errors.Join(err, g.Wait())
		}
		g.Go(func() (err error) {
			tokens[n], err = t.corpus.send(sending, s.server, n*each, min((n+1)*each, changes))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	sent := time.Since(begin)
	if err := waitSearchable(ctx, s.server, "live", patienceFor(time.Duration(float64(changes)/f.rate(t.allowed.latency)*float64(time.Second))), tokens...); err != nil {
		return err
	}
	out, err := b.result(t, ours, r, time.Since(begin))
	if err != nil {
		return err
	}
	out.add("changes sent", float64(changes)/sent.Seconds(), "a second")
	f.judge(out, t, changes)
	out.add("in the middle of it", 100*middle(out.requests)/f.rate(t.allowed.latency), "%")
	busy(out)
	out.Lost, err = t.corpus.lost(ctx, s.server)
	return err
}

// judge sets a flood's floor, and what was reached of what is allowed.
func (f flooding) judge(out *limitsResult, t *limitsTrial, done int) {
	if f.rpm == 0 {
		out.Floor = float64((t.requests+int64(f.inFlight)-1)/int64(f.inFlight)) * t.allowed.latency.Seconds()
		out.Ratio = out.Seconds / out.Floor
	}
	out.add("throughput", float64(done)/out.Seconds, "inputs a second")
	out.add("of what the limit allows", 100*float64(done)/out.Seconds/f.rate(t.allowed.latency), "%")
}

// middle is how many inputs a second were answered between a tenth and nine tenths of the time from the first request to the last.
func middle(requests []providerRequest) float64 {
	if len(requests) < 2 {
		return 0
	}
	first, last := requests[0].at, requests[len(requests)-1].at
	from, to := first+(last-first)/10, last-(last-first)/10
	inputs := 0
	for _, q := range requests {
		if end := q.at + q.took; end >= from && end < to {
			inputs += q.inputs
		}
	}
	return float64(inputs) / (to - from).Seconds()
}
