package embedder

import "fmt"

// Leftovers says what an idle batcher still counts: nothing, if its books are right.
func (b *Batcher) Leftovers() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := ""
	if b.flying != 0 {
		left += fmt.Sprintf("%d in flight, ", b.flying)
	}
	for lane := range b.queues {
		for role := range b.queues[lane] {
			if q := &b.queues[lane][role]; len(q.calls) != 0 || q.inputs != 0 || q.tokens != 0 {
				left += fmt.Sprintf("%v %v: %d calls, %d inputs, %d tokens, ", Lane(lane), Role(role), len(q.calls), q.inputs, q.tokens)
			}
		}
	}
	return left
}
