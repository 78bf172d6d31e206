package bpe

import (
	"math"
	"math/bits"
	"slices"
)

// none is the rank of a pair that is no token.
const none = math.MaxInt32

// longPiece is the length in bytes from which a piece is merged through queues instead of by scanning for the lowest rank:
// the scan is quadratic, but faster for what is hardly ever longer than a word.
const longPiece = 256

// part is a token in the making: it starts at start and ends where the next one starts; rank is that of the token it would make
// together with the next one.
type part struct{ start, rank int32 }

// merger holds what merging a piece needs in memory. It may be used again, not by two at once.
type merger struct {
	parts [longPiece + 1]part
	long  *longMerger
	cache []cached
}

// cached is the number of tokens of a piece of several tokens: words that a vocabulary does not hold come back again and again.
type cached struct {
	lo, hi uint64 // the piece's bytes, of at most 15, and its length in the top byte
	count  int32
}

const cacheSize = 1 << 11

// split merges the piece, and returns its parts; the last one is a sentinel that starts at the piece's end.
// The result holds until the next call.
func (m *merger) split(e *Encoding, piece string) []part {
	if len(piece) >= longPiece {
		if m.long == nil {
			m.long = new(longMerger)
		}
		return m.long.split(e, piece)
	}
	n := len(piece)
	parts := m.parts[:n+1]
	best, at := int32(none), 0
	for i := 0; i < n-1; i++ {
		rank := e.pairs[uint(piece[i])<<8|uint(piece[i+1])]
		parts[i] = part{int32(i), rank}
		if rank < best {
			best, at = rank, i
		}
	}
	parts[n-1] = part{int32(n - 1), none}
	parts[n] = part{int32(n), none}
	for best < none {
		// The part at swallows its right neighbour; what it makes with the one after, and its left neighbour with it, is new.
		copy(parts[at+1:], parts[at+2:])
		parts = parts[:len(parts)-1]
		parts[at].rank = e.joined(piece, parts, at)
		if at > 0 {
			parts[at-1].rank = e.joined(piece, parts, at-1)
		}
		best = none
		for i := range parts {
			if parts[i].rank < best {
				best, at = parts[i].rank, i
			}
		}
	}
	return parts
}

// joined is the rank of parts i and i+1 together.
func (e *Encoding) joined(piece string, parts []part, i int) int32 {
	if i+2 >= len(parts) {
		return none
	}
	return e.rank(piece[parts[i].start:parts[i+2].start])
}

// longMerger merges long pieces in close to linear time: pairs wait in a queue of their rank, each queue is gone through from left to
// right, and the lowest rank that has a queue is always next. A binary heap does the same with a cache miss at each level.
//
// A pair that no longer is what it was when it began to wait is recognised by its rank: the bytes of the pair that starts at a position
// only ever grow, and different bytes have different ranks. For the same reason merging makes no new pair of the rank at hand.
type longMerger struct {
	next, prev []int32  // of the part that starts at this byte; next of the last is the length, prev of the first -1
	rank       []int32  // of the pair that starts at this byte; none where it is no token, or where no part starts
	heads      []int32  // the last comer of each rank's queue, an index of waiting, or -1
	waiting    []waiter // all queues
	free       int32    // the first unused entry of waiting, chained like a queue, or -1
	words, top []uint64 // one bit a rank with a queue, one bit a word that is not zero
	turn       []int32  // the queue at hand, ascending
	parts      []part
}

type waiter struct{ start, behind int32 }

func (m *longMerger) split(e *Encoding, piece string) []part {
	n := len(piece)
	m.reset(e, n)
	for i := n - 2; i >= 0; i-- { // from the right, as the last comer is the first of a queue
		m.rank[i] = e.pairs[uint(piece[i])<<8|uint(piece[i+1])]
		if m.rank[i] != none {
			m.wait(int32(i))
		}
	}
	for {
		rank, ok := m.take()
		if !ok {
			break
		}
		for k, i := range m.turn {
			if m.rank[i] != rank {
				continue // one of its two parts was swallowed meanwhile
			}
			if m.merge(e, piece, i) < rank {
				for _, i := range m.turn[k+1:] {
					if m.rank[i] == rank {
						m.wait(i)
					}
				}
				break
			}
		}
	}
	m.parts = m.parts[:0]
	for i := int32(0); i < int32(n); i = m.next[i] {
		m.parts = append(m.parts, part{i, none})
	}
	return append(m.parts, part{int32(n), none})
}

func (m *longMerger) reset(e *Encoding, n int) {
	m.next = slices.Grow(m.next[:0], n)[:n]
	m.prev = slices.Grow(m.prev[:0], n)[:n]
	m.rank = slices.Grow(m.rank[:0], n)[:n]
	for i := range n {
		m.next[i], m.prev[i], m.rank[i] = int32(i+1), int32(i-1), none
	}
	m.waiting, m.free = m.waiting[:0], -1
	if len(m.heads) != e.size() {
		m.heads = make([]int32, e.size())
		for i := range m.heads {
			m.heads[i] = -1
		}
		m.words = make([]uint64, (e.size()+63)/64)
		m.top = make([]uint64, (len(m.words)+63)/64)
	}
}

// merge makes one part of the pair at i, and returns the lower rank of the two new pairs.
func (m *longMerger) merge(e *Encoding, piece string, i int32) int32 {
	gone := m.next[i]
	end := m.next[gone]
	m.next[i] = end
	m.rank[gone] = none
	lowest := int32(none)
	if int(end) < len(piece) {
		m.prev[end] = i
		lowest = e.rank(piece[i:m.next[end]])
	}
	m.rank[i] = lowest
	if lowest != none {
		m.wait(i)
	}
	if left := m.prev[i]; left >= 0 {
		rank := e.rank(piece[left:end])
		m.rank[left] = rank
		if rank != none {
			m.wait(left)
			lowest = min(lowest, rank)
		}
	}
	return lowest
}

// wait puts the pair at i into the queue of its rank.
func (m *longMerger) wait(i int32) {
	rank := m.rank[i]
	entry := m.free
	if entry >= 0 {
		m.free = m.waiting[entry].behind
	} else {
		entry = int32(len(m.waiting))
		m.waiting = append(m.waiting, waiter{})
	}
	m.waiting[entry] = waiter{i, m.heads[rank]}
	m.heads[rank] = entry
	m.words[rank>>6] |= 1 << (rank & 63)
	m.top[rank>>12] |= 1 << (rank >> 6 & 63)
}

// take moves the queue of the lowest rank to turn; it reports false when nothing waits.
func (m *longMerger) take() (int32, bool) {
	for t, top := range m.top {
		if top == 0 {
			continue
		}
		word := t<<6 | bits.TrailingZeros64(top)
		rank := int32(word<<6 | bits.TrailingZeros64(m.words[word]))
		m.words[word] &^= 1 << (rank & 63)
		if m.words[word] == 0 {
			m.top[t] &^= 1 << (word & 63)
		}
		m.turn = m.turn[:0]
		for entry := m.heads[rank]; entry >= 0; {
			w := m.waiting[entry]
			m.turn = append(m.turn, w.start)
			m.waiting[entry].behind, m.free = m.free, entry
			entry = w.behind
		}
		m.heads[rank] = -1
		if !slices.IsSorted(m.turn) {
			slices.Sort(m.turn)
		}
		return rank, true
	}
	return 0, false
}
