package embedder

import (
	"fmt"
	"math"
	"time"
)

// Leftovers says what an idle batcher still counts: nothing, if its books are right.
func (b *Batcher) Leftovers() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := ""
	for _, l := range b.lines {
		if l.flying != 0 {
			left += fmt.Sprintf("%d in flight at %s, ", l.flying, l.name)
		}
		if l.breaker.trying {
			left += fmt.Sprintf("a trial of %s, ", l.name)
		}
	}
	if len(b.narrow) != 0 {
		left += fmt.Sprintf("%d to be narrowed down, ", len(b.narrow))
	}
	for lane := range b.queues {
		for role := range b.queues[lane] {
			for _, q := range b.queues[lane][role] {
				if q.first != nil || q.inputs != 0 || q.tokens != 0 {
					left += fmt.Sprintf("%v %v: %t, %d inputs, %d tokens, ", Lane(lane), Role(role), q.first != nil, q.inputs, q.tokens)
				}
			}
		}
	}
	return left
}

// Mistakes says what is wrong with a batcher's books, at any time: nothing, if they are right.
func (b *Batcher) Mistakes() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	wrong := ""
	for lane := range b.queues {
		for role := range b.queues[lane] {
			for _, q := range b.queues[lane][role] {
				inputs, tokens := 0, 0
				for c := q.first; c != nil; c = c.after {
					if c.queue != q || !c.queued || c.finished {
						wrong += fmt.Sprintf("a call that is not queued is in a queue: %d waiting, resting %t, finished %t, ", c.waiting, c.resting, c.finished)
					}
					n := len(c.again)
					for _, i := range c.again {
						tokens += c.cost(i)
					}
					for i := c.next; i < len(c.inputs); i++ {
						if c.vectors[i] == nil {
							n++
							tokens += c.cost(i)
						}
					}
					if n != c.waiting {
						wrong += fmt.Sprintf("a call has %d inputs waiting, and counts %d, ", n, c.waiting)
					}
					inputs += n
				}
				if inputs != q.inputs || tokens != q.tokens {
					wrong += fmt.Sprintf("%v %v holds %d inputs of %d tokens, and counts %d of %d, ", Lane(lane), Role(role), inputs, tokens, q.inputs, q.tokens)
				}
			}
		}
	}
	for _, l := range b.lines {
		for _, a := range []*account{&l.budget.own, &l.budget.told, &l.budget.learned.account} {
			for _, bucket := range []bucket{a.requests, a.tokens} {
				bucket.fill(time.Now())
				for _, x := range []float64{bucket.rate, bucket.size, bucket.level} {
					if math.IsNaN(x) || math.IsInf(x, 0) || bucket.rate < 0 || bucket.size < 0 || bucket.level > bucket.size+1e-6*bucket.size && bucket.rate > 0 {
						wrong += fmt.Sprintf("%s has a rate of %v, a size of %v and a level of %v, ", l.name, bucket.rate, bucket.size, bucket.level)
						break
					}
				}
			}
		}
		if l.flying < 0 || l.total.tokens < 0 || !(l.budget.factor > 0) {
			wrong += fmt.Sprintf("%s: %d in flight, %d tokens, a factor of %v, ", l.name, l.flying, l.total.tokens, l.budget.factor)
		}
	}
	return wrong
}
