package embedder

import (
	"context"
	"sync/atomic"
	"time"
)

// Meter counts what passes through it, by lane. Placed around Batch it counts what callers want, around the model what is paid for.
func Meter(inner Embedder) *Metered {
	return &Metered{inner: inner, count: counterOf(inner)}
}

// Metered is what [Meter] returns. It takes a call's lane from its ctx (see [WithLane]).
type Metered struct {
	inner Embedder
	count func(string) int
	lanes [lanes]counters
}

type counters struct{ calls, inputs, tokens, failures, nanoseconds atomic.Int64 }

// Counts are totals since the start.
type Counts struct {
	// Calls are those that ended, Failures included.
	Calls, Failures int64
	// Inputs and Tokens are of the calls that succeeded. Tokens are the model's own, or else 4 bytes each.
	Inputs, Tokens int64
	// Busy is the sum of the durations of all calls.
	Busy time.Duration
}

// Counts are the totals of one lane.
func (m *Metered) Counts(lane Lane) Counts {
	c := &m.lanes[lane]
	return Counts{
		Calls: c.calls.Load(), Failures: c.failures.Load(), Inputs: c.inputs.Load(), Tokens: c.tokens.Load(),
		Busy: time.Duration(c.nanoseconds.Load()),
	}
}

// Name is the model's.
func (m *Metered) Name() string { return m.inner.Name() }

// Dim is the model's.
func (m *Metered) Dim() int { return m.inner.Dim() }

// MaxInput is the model's.
func (m *Metered) MaxInput() int { return m.inner.MaxInput() }

// Unwrap is the embedder below.
func (m *Metered) Unwrap() Embedder { return m.inner }

// Embed calls inner and counts.
func (m *Metered) Embed(ctx context.Context, role Role, inputs []string) ([][]float32, error) {
	start := time.Now()
	vectors, err := m.inner.Embed(ctx, role, inputs)
	c := &m.lanes[min(LaneOf(ctx), lanes-1)]
	c.calls.Add(1)
	c.nanoseconds.Add(int64(time.Since(start)))
	if err != nil {
		c.failures.Add(1)
		return nil, err
	}
	var tokens int64
	for _, input := range inputs {
		tokens += int64(m.count(input))
	}
	c.inputs.Add(int64(len(inputs)))
	c.tokens.Add(tokens)
	return vectors, nil
}
