package lexical

import (
	"strings"
	"sync"
)

// Stats are live counts over all parts of an index, kept by the caller as entries come and go: how many entries, how long, and how many have a term.
// It is safe for concurrent use by many readers and one writer.
type Stats struct {
	mu     sync.RWMutex
	n      int
	length int64
	df     map[string]count
	turn   uint32
}

type count struct {
	df uint32
	// turn is the last entry that was counted, so that a term's repeats in it are not.
	turn uint32
}

// NewStats returns counts of nothing.
func NewStats() *Stats { return &Stats{df: map[string]count{}} }

// Add counts an entry. terms are all of its terms, repeats included.
func (s *Stats) Add(terms []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	s.length += int64(len(terms))
	s.next()
	for _, t := range terms {
		c, ok := s.df[t]
		if !ok {
			t = strings.Clone(t) // the caller's may be part of something big
		}
		if !ok || c.turn != s.turn {
			s.df[t] = count{c.df + 1, s.turn}
		}
	}
}

// Remove takes back what Add counted for the same terms.
func (s *Stats) Remove(terms []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		return
	}
	s.n--
	s.length -= int64(len(terms))
	s.next()
	for _, t := range terms {
		c, ok := s.df[t]
		switch {
		case !ok || c.turn == s.turn:
		case c.df == 1:
			delete(s.df, t)
		default:
			s.df[t] = count{c.df - 1, s.turn}
		}
	}
}

// next begins a turn. When the numbers run out all marks are taken off.
func (s *Stats) next() {
	if s.turn++; s.turn == 0 {
		for t, c := range s.df {
			s.df[t] = count{df: c.df}
		}
		s.turn = 1
	}
}

// N is how many entries there are.
func (s *Stats) N() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.n
}

// AvgLen is the mean number of terms of an entry, 0 without any.
func (s *Stats) AvgLen() float64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.avgLen()
}

func (s *Stats) avgLen() float64 {
	if s.n == 0 {
		return 0
	}
	return float64(s.length) / float64(s.n)
}

// DF is how many entries have the term.
func (s *Stats) DF(term string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return int(s.df[term].df)
}

// Terms is how many distinct terms there are.
func (s *Stats) Terms() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.df)
}

// view returns everything that a query with these terms needs, of one moment.
func (s *Stats) view(terms []string, df []int) (n int, avgLen float64, dfs []int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range terms {
		df = append(df, int(s.df[t].df))
	}
	return s.n, s.avgLen(), df
}
