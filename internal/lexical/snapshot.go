package lexical

import (
	"encoding/binary"
	"errors"
	"math"
)

// AppendTo appends the counts as bytes that ReadStats reads back: the number of entries, their length, the number of terms, and each term with its df, all
// as uvarints, in no particular order.
func (s *Stats) AppendTo(b []byte) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b = binary.AppendUvarint(b, uint64(s.n))
	b = binary.AppendUvarint(b, uint64(s.length))
	b = binary.AppendUvarint(b, uint64(len(s.counts)-s.zeros))
	for id, c := range s.counts {
		if c.df == 0 {
			continue
		}
		t := s.terms.term(uint32(id))
		b = binary.AppendUvarint(b, uint64(len(t)))
		b = append(b, t...)
		b = binary.AppendUvarint(b, uint64(c.df))
	}
	return b
}

// ReadStats is the inverse of AppendTo.
func ReadStats(b []byte) (*Stats, error) {
	f := statsReader{b: b}
	n, length, terms := f.number(math.MaxInt32), f.number(math.MaxInt64), f.number(uint64(len(b)))
	s := &Stats{n: int(n), length: int64(length)}
	for range terms {
		t := f.take(f.number(uint64(len(f.b))))
		df := f.number(n)
		if f.bad || df == 0 || int(s.terms.number(string(t))) != len(s.counts) {
			return nil, errors.New("lexical: damaged counts")
		}
		s.counts = append(s.counts, count{df: uint32(df)})
	}
	if f.bad || len(f.b) > 0 {
		return nil, errors.New("lexical: damaged counts")
	}
	return s, nil
}

// statsReader yields zeros after the first mistake.
type statsReader struct {
	b   []byte
	bad bool
}

func (f *statsReader) number(limit uint64) uint64 {
	n, size := binary.Uvarint(f.b)
	if size <= 0 || n > limit {
		f.b, f.bad = nil, true
		return 0
	}
	f.b = f.b[size:]
	return n
}

func (f *statsReader) take(n uint64) []byte {
	if n > uint64(len(f.b)) {
		f.b, f.bad = nil, true
		return nil
	}
	t := f.b[:n]
	f.b = f.b[n:]
	return t
}
