package embedder

import "context"

func (l Lane) String() string {
	switch l {
	case Replay:
		return "replay"
	case Backfill:
		return "backfill"
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

// OnLane is inner with every call on one lane.
func OnLane(inner Embedder, lane Lane) Embedder { return onLane{inner, lane} }

type onLane struct {
	Embedder
	lane Lane
}

func (e onLane) Unwrap() Embedder { return e.Embedder }

func (e onLane) Embed(ctx context.Context, role Role, inputs []string) ([][]float32, error) {
	return e.Embedder.Embed(WithLane(ctx, e.lane), role, inputs)
}
