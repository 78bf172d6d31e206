package lexical

import "sync"

// Stats are live counts over all parts of an index, kept by the caller as entries come and go: how many entries, how long, and how many have a term.
// It is safe for concurrent use by many readers and one writer. A distinct term costs its bytes and about 25 more.
type Stats struct {
	mu     sync.RWMutex
	n      int
	length int64
	terms  dictionary
	counts []count // by the term's number
	zeros  int     // of them, those whose df is 0
	turn   uint32
}

type count struct {
	df uint32
	// turn is the last entry that was counted, so that a term's repeats in it are not.
	turn uint32
}

// NewStats returns counts of nothing.
func NewStats() *Stats { return &Stats{} }

// Add counts an entry. terms are all of its terms, repeats included.
func (s *Stats) Add(terms []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	s.length += int64(len(terms))
	s.next()
	for _, t := range terms {
		id := s.terms.number(t)
		if int(id) == len(s.counts) {
			s.counts = append(s.counts, count{})
			s.zeros++
		}
		c := &s.counts[id]
		if c.df > 0 && c.turn == s.turn {
			continue
		}
		if c.df == 0 {
			s.zeros--
		}
		c.df++
		c.turn = s.turn
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
		id, ok := s.terms.find(t)
		if !ok {
			continue
		}
		c := &s.counts[id]
		if c.df == 0 || c.turn == s.turn {
			continue
		}
		if c.df--; c.df == 0 {
			s.zeros++
		}
		c.turn = s.turn
	}
	if s.zeros > 1024 && s.zeros > len(s.counts)/2 {
		s.forget()
	}
}

// forget gives back the memory of terms that no entry has any more.
func (s *Stats) forget() {
	var terms dictionary
	counts := make([]count, 0, len(s.counts)-s.zeros)
	for id, c := range s.counts {
		if c.df > 0 {
			terms.number(string(s.terms.term(uint32(id))))
			counts = append(counts, c)
		}
	}
	s.terms, s.counts, s.zeros = terms, counts, 0
}

// next begins a turn. When the numbers run out all marks are taken off.
func (s *Stats) next() {
	if s.turn++; s.turn == 0 {
		for i := range s.counts {
			s.counts[i].turn = 0
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
	return s.df(term)
}

func (s *Stats) df(term string) int {
	if id, ok := s.terms.find(term); ok {
		return int(s.counts[id].df)
	}
	return 0
}

// Terms is how many distinct terms there are.
func (s *Stats) Terms() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.counts) - s.zeros
}

// view returns everything that a query with these terms needs, of one moment.
func (s *Stats) view(terms []string, df []int) (n int, avgLen float64, dfs []int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, t := range terms {
		df = append(df, s.df(t))
	}
	return s.n, s.avgLen(), df
}
