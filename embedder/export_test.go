package embedder

import "fmt"

// Leftovers says what an idle batcher still counts: nothing, if its books are right.
func (b *Batcher) Leftovers() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := ""
	for _, l := range b.lines {
		if l.flying != 0 {
			left += fmt.Sprintf("%d in flight at %s, ", l.flying, l.name)
		}
	}
	if len(b.narrow) != 0 {
		left += fmt.Sprintf("%d to be narrowed down, ", len(b.narrow))
	}
	for lane := range b.queues {
		for role := range b.queues[lane] {
			for _, q := range b.queues[lane][role] {
				if len(q.calls) != 0 || q.inputs != 0 || q.tokens != 0 {
					left += fmt.Sprintf("%v %v: %d calls, %d inputs, %d tokens, ", Lane(lane), Role(role), len(q.calls), q.inputs, q.tokens)
				}
			}
		}
	}
	return left
}
