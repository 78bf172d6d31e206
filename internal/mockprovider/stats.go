package mockprovider

import (
	"maps"
	"slices"
	"time"
)

// Stats are totals since the start. Tokens are as the provider charges them.
type Stats struct {
	// Requests are all to /v1/embeddings; Answered those that got their vectors, with their Inputs and Tokens.
	Requests int64 `json:"requests"`
	Answered int64 `json:"answered"`
	Inputs   int64 `json:"inputs"`
	Tokens   int64 `json:"tokens"`
	// RateLimited got 429 for a limit, and LimitedBy is of what. Refused were refused for any other reason but a fault.
	RateLimited int64   `json:"rate_limited"`
	LimitedBy   Limited `json:"limited_by"`
	Refused     int64   `json:"refused"`
	// TokensRefused were in requests of RateLimited and Refused, as far as those could be read. TokensFailed were charged for requests that a fault or an impatient caller kept
	// from being answered.
	TokensRefused int64 `json:"tokens_refused"`
	TokensFailed  int64 `json:"tokens_failed"`
	// Faults are those that requests met, by kind, outages among them.
	Faults map[string]int64 `json:"faults"`
	// Gone are requests whose caller did not wait for the answer.
	Gone int64 `json:"gone"`
	// InFlight are being worked on, and MostInFlight were at the busiest moment.
	InFlight     int `json:"in_flight"`
	MostInFlight int `json:"most_in_flight"`

	// FirstRequest, LastRequest and LastAnswer are when those came, in seconds since the start; 0 where there was none.
	FirstRequest float64 `json:"first_request_seconds"`
	LastRequest  float64 `json:"last_request_seconds"`
	LastAnswer   float64 `json:"last_answer_seconds"`
	// BusiestSecond is the most requests that came in one second, counted from the start; BusiestAt is which one, and BusySeconds in how many of them there was one.
	BusiestSecond int64 `json:"busiest_second"`
	BusiestAt     int64 `json:"busiest_at_seconds"`
	BusySeconds   int64 `json:"busy_seconds"`
	// InputsPerRequest is the mean of those that were answered: how well batches were filled.
	InputsPerRequest float64 `json:"inputs_per_request"`
	// Floor is what [Provider.Floor] has for what was answered, in seconds.
	Floor float64 `json:"floor_seconds"`
}

// Limited counts answers of 429 by what there was too much of.
type Limited struct {
	Requests int64 `json:"requests"`
	Tokens   int64 `json:"tokens"`
	// Crowd is of requests at once.
	Crowd int64 `json:"crowd"`
}

// maxSeconds bounds the seconds that are kept apart: twelve days.
const maxSeconds = 1 << 20

// Stats are the totals so far.
func (p *Provider) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Faults = maps.Clone(p.stats.Faults)
	if s.Answered > 0 {
		s.InputsPerRequest = float64(s.Inputs) / float64(s.Answered)
	}
	for i, n := range p.bySecond {
		if int64(n) > s.BusiestSecond {
			s.BusiestSecond, s.BusiestAt = int64(n), int64(i)
		}
		if n > 0 {
			s.BusySeconds++
		}
	}
	if floor := p.floor(s.Answered, s.Tokens); floor != Never {
		s.Floor = floor.Seconds()
	}
	return s
}

// BySecond is how many requests came in each second since the start, up to the last that had one.
func (p *Provider) BySecond() []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.bySecond)
}

// arrive counts a request that begins.
func (p *Provider) arrive(now time.Time) {
	since := now.Sub(p.start)
	if p.stats.Requests == 0 {
		p.first, p.stats.FirstRequest = since, since.Seconds()
	}
	p.stats.LastRequest = since.Seconds()
	p.stats.Requests++
	p.stats.InFlight++
	p.stats.MostInFlight = max(p.stats.MostInFlight, p.stats.InFlight)
	if i := int(since / time.Second); i < maxSeconds {
		if i >= len(p.bySecond) {
			p.bySecond = append(p.bySecond, make([]int32, i+1-len(p.bySecond))...)
		}
		p.bySecond[i]++
	}
}

func (p *Provider) count(add func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.stats)
}
