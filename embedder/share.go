package embedder

import (
	"context"
	"time"
)

// Share bounds what the calls of one long work, such as a replay, may take of a model together.
type Share struct {
	part float64

	// Of the Batcher that it is used with, which has the lock.
	credit time.Duration // of the whole allowance's time; below zero it has to be earned first
	at     time.Time
}

// NewShare makes the bound: a part of what the model's provider allows, or of the model's time where nothing is limited; above 0 and below 1. Anything else is no bound. A
// share is of one model.
func NewShare(part float64) *Share {
	if !(part > 0 && part < 1) {
		part = 1
	}
	return &Share{part: part}
}

// Part is the part, from 0 (exclusive) to 1.
func (s *Share) Part() float64 {
	if s == nil {
		return 1
	}
	return s.part
}

// shareBurst is how much of an allowance that was not used is kept.
const shareBurst = time.Second

// longestShared is the longest that a share has to be earned for. What is allowed may become more meanwhile.
const longestShared = 10 * time.Minute

// wait is how long until the share is earned that was used.
func (s *Share) wait(now time.Time) time.Duration {
	if s == nil {
		return 0
	}
	if s.at.IsZero() {
		s.at = now
	}
	s.credit = min(s.credit+time.Duration(s.part*float64(now.Sub(s.at))), time.Duration(s.part*float64(shareBurst)))
	s.at = now
	if s.credit >= 0 {
		return 0
	}
	return time.Duration(float64(-s.credit)/s.part) + 1
}

// use charges a share with the time in which the whole allowance would have brought as much.
func (s *Share) use(d time.Duration) {
	if s != nil {
		s.credit = max(s.credit-d, -time.Duration(s.part*float64(longestShared)))
	}
}

type shareKey struct{}

// WithShare has calls under the returned context keep to a share, for the [Batch] below. nil bounds nothing.
func WithShare(ctx context.Context, s *Share) context.Context {
	return context.WithValue(ctx, shareKey{}, s)
}

func shareOf(ctx context.Context) *Share {
	s, _ := ctx.Value(shareKey{}).(*Share)
	return s
}
