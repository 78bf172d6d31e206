package milvus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"github.com/liverag/liverag/vectordb"
)

const dim = 8

// onEach runs a test on each server that there is.
func onEach(t *testing.T, test func(*testing.T, Config)) {
	for kind, variable := range map[string]string{"full": "MILVUS_FULL", "lite": "MILVUS_LITE"} {
		t.Run(kind, func(t *testing.T) {
			a := address(t, variable, kind)
			t.Parallel()
			test(t, Config{Address: a})
		})
	}
}

func create(t *testing.T, s *Store) *generation {
	t.Helper()
	if err := s.Create(t.Context(), vectordb.Generation{Name: "g", Fingerprint: "f", Dim: dim, Origin: "o"}); err != nil {
		t.Fatal(err)
	}
	g, err := s.generation(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// doc is a document with n chunks, all in one direction.
func doc(key string, version int64, n int) vectordb.Revision {
	r := vectordb.Revision{Key: key, Version: version}
	for i := range n {
		from := len(r.Text)
		r.Text += fmt.Sprintf("chunk %d of version %d.", i, version)
		v := make([]float32, dim)
		v[0] = 1
		r.Entries = append(r.Entries, vectordb.Entry{Start: from, End: len(r.Text), Tokens: 5, Hash: vectordb.Hash{byte(i), byte(version)}, Vector: v})
	}
	return r
}

func apply(t *testing.T, s *Store, revisions ...vectordb.Revision) {
	t.Helper()
	if err := s.Apply(t.Context(), "g", vectordb.Write{Revisions: revisions}); err != nil {
		t.Fatalf("Apply: %v", err)
	}
}

func visible(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Visible(t.Context(), "g"); err != nil {
		t.Fatalf("Visible: %v", err)
	}
}

// ask finds everything that points in the documents' one direction.
func ask(t *testing.T, s *Store, principals ...string) []vectordb.Hit {
	t.Helper()
	q := vectordb.Query{Vector: make([]float32, dim), Depth: 200, Principals: principals}
	q.Vector[0] = 1
	hits, err := s.Search(t.Context(), "g", q)
	if err != nil {
		t.Fatalf("Search: %v", err)
	}
	return hits
}

func wantShown(t *testing.T, what string, hits []vectordb.Hit, version int64, n int) {
	t.Helper()
	if len(hits) != n {
		t.Errorf("%s: %d hits, want %d", what, len(hits), n)
	}
	for _, h := range hits {
		if h.Version != version || !strings.HasSuffix(h.Text, fmt.Sprintf("version %d.", version)) {
			t.Errorf("%s: a hit of version %d, %q, want version %d", what, h.Version, h.Text, version)
		}
	}
}

func count(t *testing.T, s *Store, g *generation) int {
	t.Helper()
	if _, err := s.query(t.Context(), g, entity.ClStrong, fieldRow+` == ""`, fieldRow); err != nil {
		t.Fatal(err)
	}
	n, err := s.countRows(t.Context(), g, fieldRow+` > ""`)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// After one process's Visible another one's plain search finds what was written, at once and every time.
func TestVisibleToOtherProcesses(t *testing.T) {
	onEach(t, func(t *testing.T, config Config) {
		writer := open(t, config)
		create(t, writer)
		reader, err := Open(t.Context(), writer.config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = reader.Close() })
		for version := range int64(20) {
			apply(t, writer, doc("a", version+1, 3))
			visible(t, writer)
			for range 3 {
				wantShown(t, "the other process", ask(t, reader), version+1, 3)
			}
		}
	})
}

// A zombie's late write, an access that crosses a new content, and a crash between a write and the removal of what it replaced: none of them is ever shown,
// and nothing of them stays for ever.
func TestWritersThatCross(t *testing.T) {
	onEach(t, func(t *testing.T, config Config) {
		a := open(t, config)
		g := create(t, a)
		b, err := Open(t.Context(), a.config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() })
		read := func(s *Store) vectordb.Revision {
			t.Helper()
			got, err := s.Current(t.Context(), "g", []string{"a"})
			if err != nil {
				t.Fatal(err)
			}
			return got[0]
		}

		apply(t, a, doc("a", 1, 2))
		visible(t, a)
		read(b) // b has read version 1, and stalls
		apply(t, a, doc("a", 3, 4))
		visible(t, a)
		apply(t, b, doc("a", 2, 9)) // b writes by what it has read
		wantShown(t, "a zombie wrote", ask(t, a), 3, 4)
		visible(t, b)
		wantShown(t, "a zombie's write is visible", ask(t, a), 3, 4)
		if r := read(a); r.Version != 3 || len(r.Entries) != 4 {
			t.Errorf("a zombie made it version %d with %d entries", r.Version, len(r.Entries))
		}
		if n := count(t, a, g); n != 4 {
			t.Errorf("%d rows, want 4: Visible of the late writer removes what lost", n)
		}

		read(b)
		apply(t, a, vectordb.Revision{Key: "a", Access: vectordb.Access{Version: 7, ACL: []string{"alice"}}})
		visible(t, a)
		apply(t, b, doc("a", 4, 3)) // which knows nothing of the access
		if err := a.Visible(t.Context(), "g"); err != nil {
			t.Fatal(err)
		}
		if hits := ask(t, a); len(hits) != 0 {
			t.Errorf("everybody reads %d chunks of what is alice's", len(hits))
		}
		visible(t, b)
		wantShown(t, "alice", ask(t, a, "alice"), 4, 3)
		wantShown(t, "the others", ask(t, a), 4, 0)
		if r := read(b); r.Version != 4 || r.Access.Version != 7 {
			t.Errorf("version %d, access %d after they were put together", r.Version, r.Access.Version)
		}

		// The crash: the rows are there, what they replace too.
		newer := doc("a", 5, 6)
		newer.Access = read(a).Access
		rows, _, err := g.encode(&newer, 1, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		slices.Reverse(rows)
		if err := a.upsert(t.Context(), g, rows[:5]); err != nil { // all but the head
			t.Fatal(err)
		}
		visible(t, a)
		wantShown(t, "half a write", ask(t, a, "alice"), 4, 3)
		if n, err := a.Sweep(t.Context(), "g"); n != 0 || err != nil {
			t.Errorf("Sweep removed %d rows of a write under way, %v", n, err)
		}
		if err := a.upsert(t.Context(), g, rows[5:]); err != nil {
			t.Fatal(err)
		}
		c, err := Open(t.Context(), a.config) // nothing remembers the write
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		visible(t, c)
		wantShown(t, "after a crash", ask(t, c, "alice"), 5, 6)
		if stats, err := c.Stats(t.Context(), "g"); err != nil || stats.Chunks != 6 || stats.Documents != 1 || stats.Reclaimable != 3 {
			t.Errorf("stats %+v, %v; want 6 chunks and 3 rows to reclaim", stats, err)
		}
		if n, err := c.Sweep(t.Context(), "g"); n != 3 || err != nil {
			t.Errorf("Sweep removed %d rows, %v; want 3", n, err)
		}
		if n := count(t, a, g); n != 6 {
			t.Errorf("%d rows after Sweep, want 6", n)
		}
		wantShown(t, "after Sweep", ask(t, c, "alice"), 5, 6)
	})
}

// A delete is remembered for as long as it is told to, and a set access for ever.
func TestSweepForgetsDeletes(t *testing.T) {
	onEach(t, func(t *testing.T, config Config) {
		config.TombstoneRetention = time.Hour
		s := open(t, config)
		g := create(t, s)
		apply(t, s, doc("a", 1, 2), doc("b", 1, 1), doc("kept", 1, 1))
		apply(t, s, vectordb.Revision{Key: "a", Version: 2, Deleted: true}, vectordb.Revision{Key: "b", Version: 2, Deleted: true, Access: vectordb.Access{Version: 1, ACL: []string{"x"}}})
		visible(t, s)
		if n, err := s.Sweep(t.Context(), "g"); n != 0 || err != nil {
			t.Errorf("Sweep removed %d rows too early, %v", n, err)
		}
		s.config.TombstoneRetention = time.Nanosecond
		if n, err := s.Sweep(t.Context(), "g"); n != 1 || err != nil {
			t.Errorf("Sweep removed %d rows, %v; want the one delete", n, err)
		}
		if n := count(t, s, g); n != 2 {
			t.Errorf("%d rows, want 2", n)
		}
	})
}

// A document of several requests shows when its head is there, not before, and comes back whole.
func TestDocumentOfSeveralRequests(t *testing.T) {
	onEach(t, func(t *testing.T, config Config) {
		config.RequestBytes = 4 << 10
		s := open(t, config)
		create(t, s)
		for version := range int64(3) {
			r := doc("a", version+1, 100)
			apply(t, s, r, doc("small", version+1, 1))
			visible(t, s)
			wantShown(t, "all of it", ask(t, s), version+1, 101)
			got, err := s.Current(t.Context(), "g", []string{"a"})
			if err != nil || got[0].Text != r.Text || len(got[0].Entries) != 100 {
				t.Errorf("%d entries and %d bytes came back, %v", len(got[0].Entries), len(got[0].Text), err)
			}
		}
	})
}

// The server-side alias moves, and does not keep what it names from being dropped.
func TestPromote(t *testing.T) {
	onEach(t, func(t *testing.T, config Config) {
		s := open(t, config)
		for _, name := range []string{"g", "h"} {
			if err := s.Create(t.Context(), vectordb.Generation{Name: name, Fingerprint: "f", Dim: dim, Origin: "o"}); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"g", "h", "h", "g"} {
			if err := s.Promote(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			if got := s.promoted(t.Context()); got != name {
				t.Errorf("the alias names %q, want %q", got, name)
			}
		}
		if err := s.Promote(t.Context(), "nowhere"); !errors.Is(err, vectordb.ErrNoGeneration) {
			t.Errorf("promoting nothing: %v", err)
		}
		if err := s.Drop(t.Context(), "g"); err != nil {
			t.Errorf("dropping what the alias names: %v", err)
		}
		if err := s.Promote(t.Context(), "h"); err != nil {
			t.Errorf("promoting after that: %v", err)
		}
		if got := s.promoted(t.Context()); got != "h" {
			t.Errorf("the alias names %q, want h", got)
		}
		if err := s.Create(t.Context(), vectordb.Generation{Name: "live", Fingerprint: "f", Dim: dim, Origin: "o"}); !errors.Is(err, vectordb.ErrInvalid) {
			t.Errorf("a generation of the alias's name: %v", err)
		}
	})
}

// What somebody released is loaded again by the next call.
func TestReleased(t *testing.T) {
	onEach(t, func(t *testing.T, config Config) {
		s := open(t, config)
		g := create(t, s)
		apply(t, s, doc("a", 1, 3))
		visible(t, s)
		if err := s.client.ReleaseCollection(t.Context(), g.collection); err != nil {
			t.Fatal(err)
		}
		wantShown(t, "after a release", ask(t, s), 1, 3)
		if err := s.client.ReleaseCollection(t.Context(), g.collection); err != nil {
			t.Fatal(err)
		}
		apply(t, s, doc("a", 2, 2))
		visible(t, s)
		wantShown(t, "written after a release", ask(t, s), 2, 2)
	})
}

// Other corpora, and other programs' collections, are not seen nor touched.
func TestCorporaAreApart(t *testing.T) {
	onEach(t, func(t *testing.T, config Config) {
		a := open(t, config)
		create(t, a)
		config.Corpus = a.config.Corpus + "_x" // its collections' names begin as a's do
		b := open(t, config)
		create(t, b)
		for _, s := range []*Store{a, b} {
			list, err := s.List(t.Context())
			if err != nil || len(list) != 1 || list[0].Name != "g" {
				t.Errorf("List: %v, %v", list, err)
			}
		}
		// The one collection that both could mean.
		if err := a.Create(t.Context(), vectordb.Generation{Name: "x_g", Fingerprint: "f", Dim: dim, Origin: "o"}); !errors.Is(err, vectordb.ErrMismatch) {
			t.Errorf("creating a generation in another corpus's collection: %v", err)
		}
		if err := a.Drop(t.Context(), "x_g"); err == nil {
			t.Error("another corpus's collection was dropped")
		}
	})
}

// What is found out by trying is what is known of the version.
func TestProbe(t *testing.T) {
	onEach(t, func(t *testing.T, config Config) {
		s := open(t, config)
		tried, err := tryServer(t.Context(), s.client, s.server.Version)
		if err != nil {
			t.Fatal(err)
		}
		tried.Delayed = s.server.Delayed // can't be tried
		if tried != s.Server() {
			t.Errorf("tried %+v, known %+v", tried, s.Server())
		}
		if names, err := s.collections(t.Context()); err != nil || slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "liverag_probe_") }) {
			t.Errorf("a collection was left behind: %q, %v", names, err)
		}
	})
}

// A server that is killed in the middle of writes and started again has everything that was acknowledged, and the same store goes on with it.
//
// MILVUS_FAULTS=full, lite or both says for which servers: they are the test's own, started by .ci/milvus.
func TestKilled(t *testing.T) {
	for _, kind := range []string{"full", "lite"} {
		t.Run(kind, func(t *testing.T) {
			if wanted := os.Getenv("MILVUS_FAULTS"); wanted != kind && wanted != "both" {
				t.Skip("MILVUS_FAULTS is not " + kind + " or both: it lets this test start, kill and start again a server of its own, which takes a minute")
			}
			dir := t.TempDir()
			script, err := filepath.Abs("../../.ci/milvus")
			if err != nil {
				t.Fatal(err)
			}
			run := func(args ...string) string {
				t.Helper()
				c := exec.Command(script, args...)
				var trouble strings.Builder
				c.Stderr = &trouble
				out, err := c.Output()
				if err != nil {
					t.Fatalf("%s %q: %v\n%s", script, args, err, trouble.String())
				}
				return strings.TrimSpace(string(out))
			}
			t.Cleanup(func() { run("stop", dir) })
			s, err := Open(t.Context(), Config{Address: run("start", kind, dir), Corpus: "kill", Timeouts: Timeouts{Write: 5 * time.Second}})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			create(t, s)
			var acknowledged atomic.Int64
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			const documents = 5
			enough := make(chan struct{})
			done := make(chan error, 1)
			go func() {
				for version := int64(1); ; version++ {
					var revisions []vectordb.Revision
					for d := range documents {
						revisions = append(revisions, doc(fmt.Sprint("d", d), version, 1+int(version)%7))
					}
					if err := s.Apply(ctx, "g", vectordb.Write{Revisions: revisions}); err != nil {
						done <- err
						return
					}
					if acknowledged.Store(version); version == 50 {
						close(enough)
					}
				}
			}()
			select {
			case <-enough:
			case err := <-done:
				t.Fatal(err)
			}
			run("kill9", dir)
			if err := <-done; err == nil || errors.Is(err, vectordb.ErrNoGeneration) {
				t.Errorf("a write without a server: %v", err)
			}
			least := acknowledged.Load()
			started := time.Now()
			run("start", kind, dir)
			var got []vectordb.Revision
			keys := []string{"d0", "d1", "d2", "d3", "d4"}
			for {
				if got, err = s.Current(t.Context(), "g", keys); err == nil {
					break
				}
				if time.Since(started) > 2*time.Minute {
					t.Fatalf("two minutes after the restart: %v", err)
				}
				t.Logf("after %s: %v", time.Since(started).Round(100*time.Millisecond), err)
				select { // trying again is what callers do
				case <-time.After(500 * time.Millisecond):
				case <-t.Context().Done():
				}
			}
			t.Logf("it answers %s after it was started again", time.Since(started).Round(100*time.Millisecond))
			visible(t, s)
			for i, r := range got {
				want := doc(keys[i], r.Version, 1+int(r.Version)%7)
				if r.Version < least || r.Version > least+1 || r.Text != want.Text || len(r.Entries) != len(want.Entries) {
					t.Errorf("%s is at version %d with %d entries, %d was acknowledged", keys[i], r.Version, len(r.Entries), least)
				}
			}
			shown := map[string]int{}
			for _, h := range ask(t, s) {
				if h.Version < least {
					t.Errorf("%s is shown at version %d, %d was acknowledged", h.Key, h.Version, least)
				}
				shown[h.Key]++
			}
			if len(shown) != documents {
				t.Errorf("%d documents are shown, want %d", len(shown), documents)
			}
			apply(t, s, doc("d0", least+10, 2))
			visible(t, s)
			if _, err := s.Sweep(t.Context(), "g"); err != nil {
				t.Error(err)
			}
		})
	}
}
