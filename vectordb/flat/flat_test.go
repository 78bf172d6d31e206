package flat

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
)

const dim = 24

var about = vectordb.Generation{Name: "g", Fingerprint: "f", Dim: dim, Origin: "o"}

// vocabulary is what documents are made of.
var vocabulary = strings.Fields(`refund invoice credit card payment order parcel delivery courier address account password reset login token
	session timeout retry backoff queue topic partition offset consumer producer broker cluster replica leader index segment merge filter query`)

// revision makes a document of n entries; equal arguments give equal documents.
func revision(key string, version int64, n, dim int) vectordb.Revision {
	h := sha256.Sum256([]byte(fmt.Sprint(key, version)))
	r := rand.New(rand.NewChaCha8(h))
	rev := vectordb.Revision{
		Key: key, Version: version, ContentType: "text/plain", Title: "Title of " + key, URL: "https://example.com/" + key,
		UpdatedAt: time.UnixMicro(1700000000000000 + version).UTC(), LoggedAt: time.UnixMicro(1700000001000000 + version).UTC(),
		Metadata: map[string]any{"year": float64(2000 + version%30), "team": vocabulary[r.IntN(4)], "draft": version%2 == 0, "tags": []string{vocabulary[r.IntN(8)], "all"}},
	}
	var text strings.Builder
	for range n {
		start := text.Len()
		for range 5 + r.IntN(20) {
			text.WriteString(vocabulary[r.IntN(len(vocabulary))] + " ")
		}
		e := vectordb.Entry{Start: start, End: text.Len() - 1, Tokens: 10, Vector: unit(r, dim)}
		sum := sha256.Sum256([]byte(fmt.Sprint(key, version, start)))
		copy(e.Hash[:], sum[:])
		rev.Entries = append(rev.Entries, e)
	}
	rev.Text = text.String()
	return rev
}

func unit(r *rand.Rand, dim int) []float32 {
	v := make([]float32, dim)
	var sum float64
	for i := range v {
		v[i] = float32(r.NormFloat64())
		sum += float64(v[i]) * float64(v[i])
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

// unsynced is a disk without fsync, which most tests can do without.
type unsynced struct{ disk }

func (u unsynced) SyncDir(string) error { return nil }
func (u unsynced) Open(name string, flag int) (file, error) {
	f, err := u.disk.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

type unsyncedFile struct{ file }

func (unsyncedFile) Sync() error { return nil }

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	if o.fs == nil && o.NoSync {
		o.fs = unsynced{}
	}
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, vectordb.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func create(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Create(t.Context(), about); err != nil {
		t.Fatal(err)
	}
}

func apply(t testing.TB, s *Store, w vectordb.Write) {
	t.Helper()
	if err := s.Apply(t.Context(), "g", w); err != nil {
		t.Fatal(err)
	}
}

// everything returns what a store holds, without the time at which it became searchable.
func everything(t testing.TB, s vectordb.Store) []vectordb.Revision {
	t.Helper()
	var all []vectordb.Revision
	after := ""
	for {
		page, err := s.Scan(context.Background(), "g", after, 100)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return all
		}
		for _, r := range page {
			r.SearchableAt = time.Time{}
			all = append(all, r)
		}
		after = page[len(page)-1].Key
	}
}

// same fails the test unless both stores hold the same and answer alike.
func same(t testing.TB, got, want vectordb.Store) {
	t.Helper()
	a, b := everything(t, got), everything(t, want)
	if len(a) != len(b) {
		t.Fatalf("%d revisions, want %d", len(a), len(b))
	}
	for i := range a {
		if !reflect.DeepEqual(a[i], b[i]) {
			t.Fatalf("revision %d:\n got %+v\nwant %+v", i, a[i], b[i])
		}
	}
	ctx := context.Background()
	r := rand.New(rand.NewPCG(1, 1))
	filters := []*vectordb.Filter{nil, {Op: vectordb.Eq, Field: "team", Value: "invoice"}, {Op: vectordb.Gt, Field: "year", Value: float64(2003)}}
	for i := range 20 {
		q := vectordb.Query{Depth: 7, Filter: filters[i%len(filters)]}
		if i%2 == 0 {
			q.Vector = unit(r, dim)
		} else {
			q.Text = vocabulary[r.IntN(len(vocabulary))] + " " + vocabulary[r.IntN(len(vocabulary))]
		}
		a, err := got.Search(ctx, "g", q)
		if err != nil {
			t.Fatal(err)
		}
		b, err := want.Search(ctx, "g", q)
		if err != nil {
			t.Fatal(err)
		}
		if len(a) != len(b) {
			t.Fatalf("query %d: %d hits, want %d", i, len(a), len(b))
		}
		for j := range a {
			if math.Abs(a[j].Score-b[j].Score) > 1e-5 {
				t.Fatalf("query %d, hit %d: score %v, want %v", i, j, a[j].Score, b[j].Score)
			}
		}
	}
	x, err := got.Stats(ctx, "g")
	if err != nil {
		t.Fatal(err)
	}
	y, _ := want.Stats(ctx, "g")
	if x.Documents != y.Documents || x.Chunks != y.Chunks || x.Tokens != y.Tokens {
		t.Fatalf("stats %+v, want %+v", x, y)
	}
	m, err := got.Checkpoint(ctx, "g")
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := want.Checkpoint(ctx, "g"); !reflect.DeepEqual(m, n) {
		t.Fatalf("checkpoint %v, want %v", m, n)
	}
}

// model is a Memory with the generation.
func model(t testing.TB) *vectordb.Memory {
	m := vectordb.NewMemory()
	if err := m.Create(context.Background(), about); err != nil {
		t.Fatal(err)
	}
	return m
}

// randomWrite is write number i of a run.
func randomWrite(r *rand.Rand, i int) vectordb.Write {
	w := vectordb.Write{Checkpoint: map[int32]int64{int32(i % 3): int64(i)}}
	for range r.IntN(4) {
		key := fmt.Sprintf("doc%d", r.IntN(60))
		version := int64(i/2 + r.IntN(5) + 1)
		switch r.IntN(8) {
		case 0:
			w.Revisions = append(w.Revisions, vectordb.Revision{Key: key, Version: version, Deleted: true})
		case 1:
			w.Revisions = append(w.Revisions, vectordb.Revision{Key: key, Access: vectordb.Access{Version: version, ACL: []string{"anna"}, Clear: r.IntN(2) == 0}})
		default:
			rev := revision(key, version, r.IntN(6), dim)
			if r.IntN(3) == 0 { // an edit: some entries stay as they were
				old := revision(key, version-1, 4, dim)
				for j := range min(len(rev.Entries), len(old.Entries)) {
					if j%2 == 0 {
						rev.Entries[j].Hash, rev.Entries[j].Vector = old.Entries[j].Hash, old.Entries[j].Vector
					}
				}
			}
			w.Revisions = append(w.Revisions, rev)
		}
	}
	return w
}

func TestRandomWritesAndReopening(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := t.TempDir()
			r := rand.New(rand.NewPCG(seed, 9))
			o := Options{NoSync: true, SegmentEntries: 40 + int(seed)*30}
			s, m := open(t, dir, o), model(t)
			create(t, s)
			for i := range 300 {
				w := randomWrite(r, i)
				apply(t, s, w)
				if err := m.Apply(t.Context(), "g", w); err != nil {
					t.Fatal(err)
				}
				if i%75 == 74 {
					same(t, s, m)
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = open(t, dir, o)
					same(t, s, m)
				}
			}
		})
	}
}

// copyDir copies a store as a crash would leave it: whatever the files hold at the moment they are read. The manifest comes first, so that it
// names no file that a merge has removed by then; a name that is gone is tried again from the start.
func copyDir(t testing.TB, from string) string {
	t.Helper()
again:
	to := t.TempDir()
	generation := filepath.Join(to, "g")
	if err := os.MkdirAll(generation, 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := os.ReadFile(filepath.Join(from, "g", manifestName))
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(filepath.Join(from, "g"))
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range list {
		names = append(names, e.Name())
	}
	// Logs are copied in order: a later one never exists without all of an earlier one.
	slices.Sort(names)
	for _, name := range names {
		if name == manifestName {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, "g", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(generation, name), b, 0o644)
		} else if os.IsNotExist(err) {
			err = nil
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if now, _ := os.ReadFile(filepath.Join(from, "g", manifestName)); string(now) != string(m) {
		goto again
	}
	if err := os.WriteFile(filepath.Join(generation, manifestName), m, 0o644); err != nil {
		t.Fatal(err)
	}
	return to
}

// An edit writes only the vectors that are new into the log; the others are found again in the document's older row, wherever that is by then.
func TestEditsReferToOlderVectors(t *testing.T) {
	dir := t.TempDir()
	o := Options{NoSync: true, SegmentEntries: 60}
	s, m := open(t, dir, o), model(t)
	create(t, s)
	g := s.generations["g"].g
	rev := revision("doc", 1, 20, dim)
	write := func() (logged int64) {
		t.Helper()
		before := g.active.log.size
		w := vectordb.Write{Revisions: []vectordb.Revision{rev}, Checkpoint: map[int32]int64{0: rev.Version}}
		apply(t, s, w)
		if err := m.Apply(t.Context(), "g", w); err != nil {
			t.Fatal(err)
		}
		return g.active.log.size - before
	}
	whole := write()
	r := rand.New(rand.NewPCG(1, 5))
	for version := int64(2); version < 12; version++ {
		rev.Version = version
		rev.Entries = slices.Clone(rev.Entries)
		e := &rev.Entries[r.IntN(len(rev.Entries))]
		e.Vector = unit(r, dim)
		e.Hash[0], e.Hash[1] = byte(version), 77
		if logged := write(); logged > 0 && logged > whole-15*4*dim {
			t.Errorf("version %d put %d bytes into the log, the whole document %d", version, logged, whole)
		}
		copied := open(t, copyDir(t, dir), o)
		same(t, copied, m)
		settle(t, copied.generations["g"].g)
		same(t, copied, m)
	}
	same(t, s, m)
}

// Which of many equal chunks are found must not depend on where they are stored.
func TestManyTies(t *testing.T) {
	s := open(t, t.TempDir(), Options{NoSync: true, SegmentEntries: 50})
	create(t, s)
	const n = 400
	vector := unit(rand.New(rand.NewPCG(1, 6)), dim)
	for _, i := range rand.New(rand.NewPCG(1, 7)).Perm(n) {
		apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{{Key: fmt.Sprintf("doc%03d", i), Version: 1, Text: "refund", Entries: []vectordb.Entry{{End: 6, Vector: vector}}}}})
	}
	for _, q := range []vectordb.Query{{Vector: vector, Depth: 5}, {Text: "refund", Depth: 5}} {
		hits, err := s.Search(t.Context(), "g", q)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := range hits {
			if want := fmt.Sprintf("doc%03d", i); h.Key != want {
				t.Errorf("hit %d is %s, want %s", i, h.Key, want)
			}
		}
		if len(hits) != 5 {
			t.Errorf("%d hits", len(hits))
		}
	}
}
