package embedder

import "context"

func (l Lane) String() string {
	if l == Replay {
		return "replay"
	}
	return "live"
}

type laneKey struct{}

// WithLane marks a call's urgency, for the wrappers and models below that have to choose.
func WithLane(ctx context.Context, lane Lane) context.Context {
	return context.WithValue(ctx, laneKey{}, lane)
}

// LaneOf is the urgency that [WithLane] set, or else Live.
func LaneOf(ctx context.Context) Lane {
	lane, _ := ctx.Value(laneKey{}).(Lane)
	return lane
}
