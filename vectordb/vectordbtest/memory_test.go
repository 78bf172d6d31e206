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
		Lexical: true,
	})
}
