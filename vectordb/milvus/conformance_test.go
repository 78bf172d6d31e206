package milvus

import (
	"context"
	"crypto/rand"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
	"github.com/liverag/liverag/vectordb/vectordbtest"
)

// The tests wait for servers nearly all the time: as many as there are may do that at once, on however few processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// address is that of a server that an environment variable names. In CI there is one.
func address(t testing.TB, variable, kind string) string {
	t.Helper()
	a := os.Getenv(variable)
	if a == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set, and in CI it must be: export %s=$(.ci/milvus start %s /tmp/milvus-%s)", variable, variable, kind, kind)
		}
		t.Skipf("%s is not set: export %s=$(.ci/milvus start %s /tmp/milvus-%s)", variable, variable, kind, kind)
	}
	return a
}

// open opens a store of a corpus of its own, whose generations are dropped at the end.
func open(t testing.TB, config Config) *Store {
	t.Helper()
	if config.Corpus == "" {
		config.Corpus = "test-" + strings.ToLower(rand.Text()[:12])
	}
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clean(t, s) })
	return s
}

// clean drops everything of a store's corpus and closes it; a test may have closed it.
func clean(t testing.TB, s *Store) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if s.isClosed() {
		again, err := Open(ctx, s.config)
		if err != nil {
			t.Error(err)
			return
		}
		s = again
	}
	list, err := s.List(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, g := range list {
		if err := s.Drop(ctx, g.Name); err != nil {
			t.Error(err)
		}
	}
	_ = s.Close()
}

func TestConformance(t *testing.T) {
	for kind, variable := range map[string]string{"full": "MILVUS_FULL", "lite": "MILVUS_LITE"} {
		t.Run(kind, func(t *testing.T) {
			config := Config{Address: address(t, variable, kind), StatsFor: 1}
			probe := open(t, config)
			vectordbtest.Run(t, vectordbtest.Config{
				New: func(t *testing.T) vectordb.Store { return open(t, config) },
				Reopen: func(t *testing.T, old vectordb.Store) vectordb.Store {
					config := old.(*Store).config
					if err := old.Close(); err != nil {
						t.Fatal(err)
					}
					s, err := Open(t.Context(), config)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = s.Close() })
					return s
				},
				Lexical:            probe.Server().Sparse,
				LexicalApproximate: true,
				NoCheckpoint:       true,
				Settle: func(t *testing.T, s vectordb.Store, generation string) {
					if err := s.(*Store).Visible(t.Context(), generation); err != nil {
						t.Fatalf("Visible: %v", err)
					}
				},
				Slow: true,
			})
		})
	}
}
