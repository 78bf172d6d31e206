package main

import (
	"context"
	"time"

	"github.com/liverag/liverag/internal/mockprovider"
)

// cutOf indexes while the provider has a bad time, from a fourth of the floor on.
func (b *limitsBench) cutOf(ctx context.Context, variant string) error {
	tells := bySettings
	switch variant {
	case "tenth":
		tells = byHeaders
	case "tenth-refusals":
		tells = byRefusals
	}
	t, err := b.thousand(ctx, variant, tells, time.Second)
	if err != nil {
		return err
	}
	from := b.floor / 4
	to := from + b.outage
	rpm, tpm := t.allowed.rpm, t.allowed.tpm
	lessRPM, lessTPM := rpm/10, tpm/10
	switch variant {
	case "tenth", "tenth-refusals":
		t.provider.Schedule = []mockprovider.Event{{At: from, RPM: &lessRPM, TPM: &lessTPM}, {At: to, RPM: &rpm, TPM: &tpm}}
	case "outage":
		t.provider.Schedule = []mockprovider.Event{{At: from, Outage: mockprovider.Down}, {At: to, Outage: mockprovider.Up}}
	case "faults":
		t.provider.Faults, t.provider.Seed = []mockprovider.Fault{{Kind: "500", Share: .05}}, 1
		from, to = 0, 0
	}
	err = b.rehearse(ctx, t, func(r *rehearsal, s *limitsServer) error {
		out, err := b.index(ctx, t, r, s, nil)
		if err == nil && to > 0 {
			t.recovery(out, from, to)
		}
		return err
	})
	if err == nil && b.plain {
		var out *limitsResult
		if out, err = b.alternative(ctx, t); err == nil && to > 0 {
			t.recovery(out, from, to)
		}
	}
	return err
}

// recovery tells what a client did while things were bad, and how it came back.
func (t *limitsTrial) recovery(out *limitsResult, from, to time.Duration) {
	var before, after busiest
	during, refused := 0, 0
	answered := time.Duration(-1)
	var tokens []providerRequest // that were answered after the end
	for _, q := range out.requests {
		switch {
		case q.at < from:
			before.add(q.at)
			continue
		case q.at < to:
			during++
			continue
		}
		after.add(q.at)
		if q.status == 429 {
			refused++
		}
		if q.tokens > 0 {
			if answered < 0 {
				answered = q.at - to
			}
			tokens = append(tokens, q)
		}
	}
	out.add("requests while it was bad", float64(during), "")
	if answered >= 0 {
		out.add("first request with vectors after its end", answered.Seconds(), "s")
	}
	if back := t.allowed.back(tokens, to); back >= 0 {
		out.add("at nine tenths of the allowance again", back.Seconds(), "s")
	}
	out.add("429s after its end", float64(refused), "")
	out.add("busiest second before", float64(before.most), "requests")
	out.add("busiest second after", float64(after.most), "requests")
}

// back is how long after a time the first second begins in which nine tenths of the allowance are used; -1 if none does.
func (a allowance) back(requests []providerRequest, since time.Duration) time.Duration {
	enough := .9 * float64(a.tpm) / 60
	sum, first := 0.0, 0
	for i, q := range requests {
		sum += float64(q.tokens)
		for q.at-requests[first].at >= time.Second {
			sum -= float64(requests[first].tokens)
			first++
		}
		if sum >= enough {
			return requests[min(first, i)].at - since
		}
	}
	return -1
}

// busiest counts the most requests that come within a second. They are added in the order of their times.
type busiest struct {
	times []time.Duration
	first int
	most  int
}

func (b *busiest) add(at time.Duration) {
	b.times = append(b.times, at)
	for at-b.times[b.first] >= time.Second {
		b.first++
	}
	b.most = max(b.most, len(b.times)-b.first)
}
