package embedder

import "context"

// Share bounds what the calls of one long work, such as a replay, may take of a model together.
type Share struct {
	part float64
}

// NewShare makes the bound: a part of what the model's provider allows, or of the model's time where nothing is limited; above 0 and below 1. Anything else is no bound.
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

type shareKey struct{}

// WithShare has calls under the returned context keep to a share, for the [Batch] below. nil bounds nothing.
func WithShare(ctx context.Context, s *Share) context.Context {
	return context.WithValue(ctx, shareKey{}, s)
}

func shareOf(ctx context.Context) *Share {
	s, _ := ctx.Value(shareKey{}).(*Share)
	return s
}
