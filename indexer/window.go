package indexer

import (
	"context"

	"golang.org/x/sync/semaphore"

	"github.com/liverag/liverag/embedder"
)

// window bounds how many inputs of a pipeline are with the model at once, beside live changes. A model takes turns between documents, so without a bound
// everything in flight advances together, and until the first of it is done a crash costs all of it.
type window struct {
	room *semaphore.Weighted
	most int64 // that one document counts for: one of 100,000 chunks leaves room for others
}

// windowFills is how many times the model's requests are filled by what is in the window.
const windowFills = 2

// newWindow makes one for a model; nil, which bounds nothing, for one that sends no requests.
func newWindow(e embedder.Embedder) *window {
	b := batcherOf(e)
	if b == nil {
		return nil
	}
	size := int64(windowFills * b.Inputs())
	return &window{room: semaphore.NewWeighted(size), most: max(1, size/8)}
}

// enter waits for room for so many inputs. The returned function gives it back; it may be called twice.
func (w *window) enter(ctx context.Context, inputs int) (leave func(), err error) {
	if w == nil {
		return func() {}, nil
	}
	weight := min(int64(inputs), w.most)
	if err := w.room.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	return func() {
		w.room.Release(weight)
		weight = 0
	}, nil
}
