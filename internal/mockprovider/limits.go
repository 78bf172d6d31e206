package mockprovider

import (
	"fmt"
	"math"
	"net/http"
	"time"
)

// allowance is how much of something is allowed in a minute. One with perMinute 0 has no limit.
//
// It is a bucket that is refilled all the time, or has a window, at whose end the whole comes back. A window opens with the first that is taken.
type allowance struct {
	perMinute int
	span      time.Duration // what the bucket holds is what this time allows; of a window, how long it is
	windowed  bool

	size, level float64
	at          time.Time // when the level was so; of an open window, when it opened
	open        bool
}

func newAllowance(perMinute int, span time.Duration, windowed bool, now time.Time) allowance {
	a := allowance{perMinute: perMinute, span: span, windowed: windowed, at: now}
	a.size = a.holds(perMinute)
	a.level = a.size
	return a
}

// holds is how much is allowed at once.
func (a *allowance) holds(perMinute int) float64 {
	n := float64(perMinute) * a.span.Minutes()
	if a.windowed {
		n = math.Floor(n + 1e-9)
	}
	return max(1, n)
}

// rate is how much comes back in a second.
func (a *allowance) rate() float64 { return float64(a.perMinute) / 60 }

// settle brings the level to a time.
func (a *allowance) settle(now time.Time) {
	switch {
	case !a.windowed:
		a.level = min(a.size, a.level+now.Sub(a.at).Seconds()*a.rate())
		a.at = now
	case a.open && now.Sub(a.at) >= a.span:
		a.open, a.level = false, a.size
	}
}

// allow changes the limit. What is left in a bucket stays left, as far as it fits; what is used of a window stays used.
func (a *allowance) allow(perMinute int, now time.Time) {
	a.settle(now)
	used, unlimited := a.size-a.level, a.perMinute == 0
	a.perMinute, a.size = perMinute, a.holds(perMinute)
	switch {
	case unlimited:
		a.level, a.open = a.size, false
	case a.windowed:
		a.level = a.size - used
	default:
		a.level = min(a.level, a.size)
	}
}

// wait is how long until n may be taken. More than fits may be taken when nothing is used.
func (a *allowance) wait(n float64, now time.Time) time.Duration {
	if a.perMinute == 0 {
		return 0
	}
	a.settle(now)
	lack := min(n, a.size) - a.level
	switch {
	case lack <= 1e-6:
		return 0
	case a.windowed:
		return a.span - now.Sub(a.at)
	}
	return time.Duration(math.Ceil(lack / a.rate() * float64(time.Second)))
}

// take takes n.
func (a *allowance) take(n float64, now time.Time) {
	if a.perMinute == 0 {
		return
	}
	a.level -= n
	if a.windowed && !a.open {
		a.open, a.at = true, now
	}
}

// waste takes what is there of n, for a request that is refused and counts all the same. It leaves no debt, or who asks again and again would never be heard.
func (a *allowance) waste(n float64, now time.Time) {
	if a.perMinute > 0 && a.level > 0 {
		a.take(min(n, a.level), now)
	}
}

// full is how long it takes until nothing is used any more.
func (a *allowance) full(now time.Time) time.Duration {
	switch {
	case a.perMinute == 0 || a.windowed && !a.open:
		return 0
	case a.windowed:
		return a.span - now.Sub(a.at)
	}
	return time.Duration((a.size - a.level) / a.rate() * float64(time.Second))
}

// charge takes a request from the allowances, writes the headers that tell what is left, and returns the refusal if there is not enough.
func (p *Provider) charge(h http.Header, asked *request) *problem {
	p.mu.Lock()
	now := time.Now()
	tokens := float64(asked.charge)
	wait, of, what, requested := p.requests.wait(1, now), &p.requests, requestsOf, 1
	large := p.cfg.RefuseLarge && p.cfg.TPM > 0 && tokens > p.tokens.size
	if t := p.tokens.wait(tokens, now); large || t > wait {
		wait, of, what, requested = t, &p.tokens, tokensOf, asked.charge
	}
	refused := large || wait > 0
	p.day.settle(now)
	switch {
	case !refused:
		p.requests.take(1, now)
		p.day.take(1, now)
		p.tokens.take(tokens, now)
		p.largest = max(p.largest, asked.charge)
	case p.cfg.ChargeRefused:
		p.requests.waste(1, now)
		p.day.waste(1, now)
		p.tokens.waste(tokens, now)
	}
	p.tell(h, asked.charge, now)
	limit, used := of.perMinute, int(math.Ceil(of.size-of.level))
	if refused {
		p.stats.RateLimited++
		p.stats.TokensRefused += int64(asked.charge)
		if what == tokensOf {
			p.stats.LimitedBy.Tokens++
		} else {
			p.stats.LimitedBy.Requests++
		}
	}
	p.mu.Unlock()
	short := map[string]string{requestsOf: "RPM", tokensOf: "TPM"}[what]
	switch {
	case !refused:
		return nil
	case large:
		return &problem{why: limited, kind: what, message: fmt.Sprintf("Request too large for %s in organization org-mock on %s per min (%s): Limit %d, Requested %d. The input or output tokens must be reduced in order to run successfully.",
			asked.Model, what, short, limit, requested)}
	}
	again := p.comeBack(h, what, wait)
	return &problem{why: limited, kind: what, wait: int(math.Ceil(wait.Seconds())), message: fmt.Sprintf("Rate limit reached for %s in organization org-mock on %s per min (%s): Limit %d, Used %d, Requested %d.%s",
		asked.Model, what, short, limit, used, requested, again)}
}

// Never is the Floor of what can't be.
const Never = time.Duration(math.MaxInt64)

// Floor is the least time that so many requests with so many tokens can take to be let in, from the first request on, whoever sends them. The latency of the answers comes
// to it, and what packing costs: a request can't be let in by halves.
//
// While the limits stay as they are, with sizes of what is allowed at once (by the burst, or in a window of length w) it is
//
//	buckets:  max(0, (requests - size of requests) / RPM*60s, (tokens - size of tokens) / TPM*60s)
//	windows:  w * max(0, ceil(requests / size of requests) - 1, ceil(tokens / size of tokens) - 1)
//
// where a request with more tokens than that, as it may be taken from a full allowance, stands for the size. With a schedule, the same is counted from change to change, and
// nothing is let in during outages. It is the larger of what the two limits say each for itself.
func (p *Provider) Floor(requests, tokens int64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.floor(requests, tokens)
}

func (p *Provider) floor(requests, tokens int64) time.Duration {
	periods := p.periods()
	return max(
		p.earliest(periods, float64(requests), 1, true, func(d period) int { return d.rpm }),
		p.earliest(periods, float64(tokens), float64(p.largest), false, func(d period) int { return d.tpm }),
	)
}

// period is a time in which nothing changes, in seconds since the first request.
type period struct {
	from, to float64
	rpm, tpm int
	up       bool
}

// periods are the times between changes, from the first request on.
func (p *Provider) periods() []period {
	now := period{rpm: p.cfg.RPM, tpm: p.cfg.TPM, up: true}
	outage := ok
	var out []period
	for _, e := range sorted(p.cfg.Schedule) {
		if at := (e.At - p.first).Seconds(); at > now.from {
			now.to = at
			out = append(out, now)
			now.from = at
		}
		if e.RPM != nil {
			now.rpm = *e.RPM
		}
		if e.TPM != nil {
			now.tpm = *e.TPM
		}
		outage = outageOf(outage, e.Outage)
		now.up = outage == ok
	}
	now.to = math.Inf(1)
	return append(out, now)
}

// earliest is when total can have been taken of an allowance, by one who takes all there is at each moment: what is not taken at once is of no use later. Largest is the most
// that is taken in one piece, and whole tells that each piece is 1.
func (p *Provider) earliest(periods []period, total, largest float64, whole bool, limit func(period) int) time.Duration {
	if total <= 0 {
		return 0
	}
	a := p.requests // for its kind and its span
	span := a.span.Seconds()
	level := 0.0                      // of a bucket
	used, closes := 0.0, math.Inf(-1) // of a window, and when it ends
	for i, d := range periods {
		perMinute := limit(d)
		rate, size := float64(perMinute)/60, a.holds(perMinute)
		if i == 0 || limit(periods[i-1]) == 0 {
			level = size
		}
		level = min(level, size)
		debt := max(0, largest-size)
		switch {
		case perMinute == 0 && d.up:
			return seconds(d.from)
		case perMinute == 0:
		case a.windowed && !d.up:
		case a.windowed:
			for at := d.from; at < d.to; at = closes {
				if at >= closes {
					// Windows that are used up within the period are passed over at once, but for the last.
					if n := min(math.Ceil(total/(size+debt)), math.Floor((d.to-at)/span)) - 1; n > 0 {
						total -= n * (size + debt)
						at += n * span
					}
					used, closes = 0, at+span
				}
				left := size + debt - used
				if total <= left+1e-6 {
					return seconds(at)
				}
				if left > 0 {
					total -= left
					used += left
				}
			}
		case !d.up:
			level = min(size, level+rate*(d.to-d.from))
		default:
			if at := d.from + max(0, total-debt-level)/rate; at < d.to {
				return seconds(at)
			}
			level += rate * (d.to - d.from)
			taken := max(0, level+debt)
			if whole { // what is there at the end to the very moment comes too late
				taken = max(0, math.Ceil(taken-1e-9)-1)
			}
			total -= taken
			level = min(level-taken, size)
		}
	}
	return Never
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
