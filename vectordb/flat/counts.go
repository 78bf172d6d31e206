package flat

import "fmt"

func countsName(number uint64) string { return fmt.Sprintf("%08d.counts", number) }

// packCounts returns the terms' counts of every tenant as a file.
func (g *generation) packCounts() []byte { return nil }

// loadCounts makes the terms' counts by analysing every live row.
func (g *generation) loadCounts(m *manifest) error {
	for _, s := range g.set.segments {
		for i := range s.rows {
			if s.dead[i].Load() != 0 || s.rows[i].n == 0 {
				continue
			}
			r := s.row(uint32(i))
			terms, err := rowTerms(s, &r)
			if err != nil {
				return corruptf(s.path, "%v", err)
			}
			rev, err := r.revision()
			if err != nil {
				return corruptf(s.path, "%v", err)
			}
			g.countTerms(rev.Tenant, terms, nil, nil)
		}
	}
	return nil
}
