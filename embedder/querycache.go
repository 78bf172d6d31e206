package embedder

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"sync/atomic"
)

// QueryCache remembers the vectors of the last n questions, n at least 1: the same few are asked over and over. Documents pass through.
func QueryCache(inner Embedder, n int) *Questions {
	return &Questions{inner: inner, size: max(n, 1), known: make(map[string]*list.Element)}
}

// Questions is what [QueryCache] returns.
type Questions struct {
	inner Embedder
	size  int

	mu    sync.Mutex
	known map[string]*list.Element
	order list.List // of question, the last used first

	hits, misses atomic.Int64
}

type question struct {
	text   string
	vector []float32
}

// Name is the model's.
func (c *Questions) Name() string { return c.inner.Name() }

// Dim is the model's.
func (c *Questions) Dim() int { return c.inner.Dim() }

// MaxInput is the model's.
func (c *Questions) MaxInput() int { return c.inner.MaxInput() }

// Unwrap is the embedder below.
func (c *Questions) Unwrap() Embedder { return c.inner }

// Hits is how many questions were known.
func (c *Questions) Hits() int64 { return c.hits.Load() }

// Misses is how many had to be embedded.
func (c *Questions) Misses() int64 { return c.misses.Load() }

// Embed asks the model for the questions that are not known.
func (c *Questions) Embed(ctx context.Context, role Role, inputs []string) ([][]float32, error) {
	if role != Query {
		return c.inner.Embed(ctx, role, inputs)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	vectors := make([][]float32, len(inputs))
	var missing []string
	var places []int
	c.mu.Lock()
	for i, input := range inputs {
		if e, ok := c.known[input]; ok {
			c.order.MoveToFront(e)
			vectors[i] = slices.Clone(e.Value.(question).vector)
			continue
		}
		missing, places = append(missing, input), append(places, i)
	}
	c.mu.Unlock()
	c.hits.Add(int64(len(inputs) - len(missing)))
	c.misses.Add(int64(len(missing)))
	if len(missing) == 0 {
		return vectors, nil
	}
	got, err := c.inner.Embed(ctx, role, missing)
	if err != nil {
		return nil, movedBlame(err, c.Name(), places)
	}
	if err := Check(c.Name(), c.Dim(), len(missing), got); err != nil {
		return nil, movedBlame(err, c.Name(), places)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, i := range places {
		vectors[i] = got[k]
		c.keep(missing[k], got[k])
	}
	return vectors, nil
}

// keep needs mu.
func (c *Questions) keep(text string, vector []float32) {
	if _, ok := c.known[text]; ok {
		return
	}
	c.known[text] = c.order.PushFront(question{text, slices.Clone(vector)})
	if c.order.Len() > c.size {
		delete(c.known, c.order.Remove(c.order.Back()).(question).text)
	}
}
