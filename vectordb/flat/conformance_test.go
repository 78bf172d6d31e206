package flat

import (
	"testing"

	"github.com/liverag/liverag/vectordb"
	"github.com/liverag/liverag/vectordb/vectordbtest"
)

func TestConformance(t *testing.T) {
	for name, o := range map[string]Options{
		"defaults": {NoSync: true},
		// Sealing and merging happen all the time.
		"small": {NoSync: true, SegmentEntries: 16},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := map[vectordb.Store]string{}
			start := func(t *testing.T, dir string) vectordb.Store {
				s := open(t, dir, o)
				dirs[s] = dir
				return s
			}
			vectordbtest.Run(t, vectordbtest.Config{
				New: func(t *testing.T) vectordb.Store { return start(t, t.TempDir()) },
				Reopen: func(t *testing.T, s vectordb.Store) vectordb.Store {
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					return start(t, dirs[s])
				},
				Lexical: true,
			})
		})
	}
}
