package vectordbtest_test

import (
	"testing"

	"github.com/liverag/liverag/vectordb"
	"github.com/liverag/liverag/vectordb/vectordbtest"
)

func TestMemory(t *testing.T) {
	vectordbtest.Run(t, vectordbtest.Config{
		New: func(t *testing.T) vectordb.Store {
			s := vectordb.NewMemory()
			t.Cleanup(func() { _ = s.Close() })
			return s
		},
		// Memory has no restarts; that the tests of them hold for a store that loses nothing still tells something about the tests.
		Reopen:  func(t *testing.T, s vectordb.Store) vectordb.Store { return s },
		Lexical: true,
	})
}
