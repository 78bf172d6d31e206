// Package vectordbtest is the conformance suite of vectordb.Store: what every store does, in tests that say why.
//
//	func TestStore(t *testing.T) {
//		vectordbtest.Run(t, vectordbtest.Config{New: open, Reopen: reopen, Lexical: true})
//	}
//
// Its random tests print their seed; VECTORDB_SEED sets it, VECTORDB_STEPS how long they go on.
package vectordbtest

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// Config describes the store under test.
type Config struct {
	// New opens an empty store. It takes care of closing it, by t.Cleanup; the suite may have closed it by then.
	New func(t *testing.T) vectordb.Store
	// Reopen closes the store and opens another on the same data, as a restart would. nil: the store does not outlive its process, and those tests are skipped.
	Reopen func(t *testing.T, s vectordb.Store) vectordb.Store
	// Lexical: the store has the lexical leg, with the port's terms and BM25. Otherwise it must refuse it with ErrUnsupported.
	Lexical bool
	// LexicalApproximate: the lexical leg's statistics are estimated, so its scores are those of the port's BM25 only nearly, and of a long answer the
	// end may be others. Which documents it finds, and in which order where the scores are far apart, is as ever.
	LexicalApproximate bool
	// NoCheckpoint: the store leaves positions to consumer groups.
	NoCheckpoint bool
	// Settle waits until what was acknowledged is visible. nil: it is at once.
	Settle func(t *testing.T, s vectordb.Store, generation string)
	// Slow: a server stands behind the store, and waiting takes most of the time. The tests run side by side, and those that go round and round do so less often.
	Slow bool
	// MinRecall is the share of the exactly nearest chunks that the dense leg must find, on average over the random test's queries. Default 1.
	MinRecall float64
}

// Dim is the dimension of the suite's vectors.
const Dim = 16

// Run tests the store. Subtests are named after what they hold the store to.
func Run(t *testing.T, c Config) {
	if c.MinRecall == 0 {
		c.MinRecall = 1
	}
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"Catalog", testCatalog},
		{"UnknownGeneration", testUnknownGeneration},
		{"Closed", testClosed},
		{"RoundTrip", testRoundTrip},
		{"CopyInCopyOut", testCopies},
		{"DenseOrder", testDenseOrder},
		{"LexicalOrder", testLexicalOrder},
		{"LexicalStatistics", testLexicalStatistics},
		{"Ties", testTies},
		{"Fuse", testFuse},
		{"Filters", testFilters},
		{"Readers", testReaders},
		{"VersionsInEveryOrder", testVersions},
		{"Redelivery", testRedelivery},
		{"DeleteAndCreateAgain", testDelete},
		{"Rewrite", testRewrite},
		{"AccessWithoutContent", testAccessOnly},
		{"SeveralRevisionsInOneWrite", testSeveral},
		{"Invalid", testInvalid},
		{"Checkpoint", testCheckpoint},
		{"Scan", testScan},
		{"Stats", testStats},
		{"EntryIDs", testEntryIDs},
		{"Texts", testTexts},
		{"EmptyDocument", testEmpty},
		{"OnlyMetadataChanges", testMetadataOnly},
		{"BigDocument", testBigDocument},
		{"Restart", testRestart},
		{"DropWhileReading", testDropWhileReading},
		{"OneVersionInEveryAnswer", testOneVersion},
		{"Random", testRandom},
	} {
		t.Run(test.name, func(t *testing.T) {
			if c.Slow {
				t.Parallel()
			}
			s := &suite{T: t, Config: c, generation: "g"}
			s.store = c.New(t)
			s.create("g")
			test.run(s)
		})
	}
}

// suite is one test with a fresh store and the generation "g" in it.
type suite struct {
	*testing.T
	Config
	store      vectordb.Store
	generation string
}

func describe(name string) vectordb.Generation {
	return vectordb.Generation{Name: name, Fingerprint: "markdown/200 local/test", Dim: Dim, Origin: "log-1"}
}

func (s *suite) create(name string) {
	s.Helper()
	if err := s.store.Create(s.Context(), describe(name)); err != nil {
		s.Fatalf("Create: %v", err)
	}
}

// apply writes and waits until it can be seen.
func (s *suite) apply(revisions ...vectordb.Revision) {
	s.Helper()
	s.write(vectordb.Write{Revisions: revisions})
}

// applyOnly writes and does not wait until it can be seen.
func (s *suite) applyOnly(revisions ...vectordb.Revision) {
	s.Helper()
	if err := s.store.Apply(s.Context(), s.generation, vectordb.Write{Revisions: revisions}); err != nil {
		s.Fatalf("Apply: %v", err)
	}
}

func (s *suite) write(w vectordb.Write) {
	s.Helper()
	if err := s.store.Apply(s.Context(), s.generation, w); err != nil {
		s.Fatalf("Apply: %v", err)
	}
	s.settle()
}

func (s *suite) settle() {
	if s.Settle != nil {
		s.Settle(s.T, s.store, s.generation)
	}
}

func (s *suite) reopen() {
	s.Helper()
	s.store = s.Reopen(s.T, s.store)
}

func (s *suite) current(key string) vectordb.Revision {
	s.Helper()
	got, err := s.store.Current(s.Context(), s.generation, []string{key})
	if err != nil || len(got) != 1 {
		s.Fatalf("Current(%q): %d revisions, %v", key, len(got), err)
	}
	return got[0]
}

func (s *suite) search(q vectordb.Query) []vectordb.Hit {
	s.Helper()
	hits, err := s.store.Search(s.Context(), s.generation, q)
	if err != nil {
		s.Fatalf("Search: %v", err)
	}
	return hits
}

// everything is the dense leg so deep that each chunk the caller may see is in it.
func (s *suite) everything(tenant string, principals ...string) []vectordb.Hit {
	s.Helper()
	return s.search(vectordb.Query{Vector: direction(0), Depth: 20_000, Tenant: tenant, Principals: principals})
}

// keys are the documents of hits, each once, sorted.
func keys(hits []vectordb.Hit) []string {
	found := map[string]bool{}
	for _, h := range hits {
		found[h.Key] = true
	}
	return slices.Sorted(maps.Keys(found))
}

func (s *suite) wantKeys(hits []vectordb.Hit, want ...string) {
	s.Helper()
	want = slices.Sorted(slices.Values(want))
	if got := keys(hits); !slices.Equal(got, want) {
		s.Errorf("found %q, want %q", got, want)
	}
}

// seed returns the random tests' seed.
func (s *suite) seed() uint64 {
	seed, err := strconv.ParseUint(os.Getenv("VECTORDB_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	s.Logf("VECTORDB_SEED=%d", seed)
	return seed
}

// hash is what an embedder's input of this text would have.
func hash(text string) (h vectordb.Hash) {
	sum := sha256.Sum256([]byte(text))
	copy(h[:], sum[:])
	return h
}

// vectorOf is the vector of a text: any unit vector, the same for the same text.
func vectorOf(text string) []float32 {
	h := hash(text)
	return randomVector(rand.New(rand.NewPCG(binary.LittleEndian.Uint64(h[:]), binary.LittleEndian.Uint64(h[8:]))))
}

func randomVector(r *rand.Rand) []float32 {
	v := make([]float32, Dim)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return normalise(v)
}

func normalise(v []float32) []float32 {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	for i := range v {
		v[i] = float32(float64(v[i]) / math.Sqrt(sum))
	}
	return v
}

// direction is the unit vector along axis i.
func direction(i int) []float32 {
	v := make([]float32, Dim)
	v[i] = 1
	return v
}

// between is a unit vector whose cosine to direction(0) is c.
func between(c float64) []float32 {
	v := make([]float32, Dim)
	v[0], v[1] = float32(c), float32(math.Sqrt(1-c*c))
	return v
}

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// revision is a document at a version with a chunk for each text. A blank line stands between chunks.
func revision(key string, version int64, chunks ...string) vectordb.Revision {
	r := vectordb.Revision{
		Key: key, Version: version, Text: strings.Join(chunks, "\n\n"), ContentType: "text/plain", Title: "Title of " + key,
		UpdatedAt: day.Add(time.Duration(version) * time.Second), LoggedAt: day.Add(time.Duration(version)*time.Second + time.Millisecond),
	}
	if tenant, _, ok := strings.Cut(key, "\x1f"); ok {
		r.Tenant = tenant
	}
	at := 0
	for _, c := range chunks {
		r.Entries = append(r.Entries, vectordb.Entry{Start: at, End: at + len(c), Tokens: len(strings.Fields(c)), Hash: hash(c), Vector: vectorOf(c)})
		at += len(c) + 2
	}
	return r
}

func deletion(key string, version int64) vectordb.Revision {
	return vectordb.Revision{Key: key, Version: version, Deleted: true}
}

func access(key string, version int64, acl ...string) vectordb.Revision {
	return vectordb.Revision{Key: key, Access: vectordb.Access{Version: version, ACL: acl}}
}

func accessCleared(key string, version int64) vectordb.Revision {
	return vectordb.Revision{Key: key, Access: vectordb.Access{Version: version, Clear: true}}
}

// difference tells in words what of two revisions differs, "" if nothing does. SearchableAt, which the store sets, is not compared.
func difference(got, want vectordb.Revision) string {
	var d []string
	note := func(what string, got, want any) { d = append(d, fmt.Sprintf("%s is %v, want %v", what, got, want)) }
	if got.Key != want.Key {
		note("key", got.Key, want.Key)
	}
	if got.Version != want.Version || got.Deleted != want.Deleted {
		note("version", fmt.Sprint(got.Version, " deleted ", got.Deleted), fmt.Sprint(want.Version, " deleted ", want.Deleted))
	}
	if got.Text != want.Text {
		note("text", fmt.Sprintf("%.60q", got.Text), fmt.Sprintf("%.60q", want.Text))
	}
	if got.ContentType != want.ContentType || got.Title != want.Title || got.URL != want.URL || got.Tenant != want.Tenant {
		note("content type, title, URL, tenant", []string{got.ContentType, got.Title, got.URL, got.Tenant}, []string{want.ContentType, want.Title, want.URL, want.Tenant})
	}
	if w := want.UpdatedAt.Truncate(time.Microsecond); !got.UpdatedAt.Equal(w) {
		note("updated at", got.UpdatedAt, w)
	}
	if w := want.LoggedAt.Truncate(time.Microsecond); !got.LoggedAt.Equal(w) {
		note("logged at", got.LoggedAt, w)
	}
	if len(got.Metadata) != len(want.Metadata) || len(want.Metadata) > 0 && !reflect.DeepEqual(tidy(got.Metadata), tidy(want.Metadata)) {
		note("metadata", got.Metadata, want.Metadata)
	}
	if (got.ACL == nil) != (want.ACL == nil) || !slices.Equal(got.ACL, want.ACL) {
		note("acl", fmt.Sprintf("%#v", got.ACL), fmt.Sprintf("%#v", want.ACL))
	}
	if got.Access.Version != want.Access.Version || got.Access.Clear != want.Access.Clear || !slices.Equal(got.Access.ACL, want.Access.ACL) {
		note("access", got.Access, want.Access)
	}
	if len(got.Entries) != len(want.Entries) {
		note("number of entries", len(got.Entries), len(want.Entries))
	} else {
		for i := range got.Entries {
			g, w := got.Entries[i], want.Entries[i]
			if g.Start != w.Start || g.End != w.End || g.Tokens != w.Tokens || g.Hash != w.Hash || !slices.Equal(g.Vector, w.Vector) {
				note(fmt.Sprint("entry ", i), fmt.Sprintf("%+v", g), fmt.Sprintf("%+v", w))
				break
			}
		}
	}
	return strings.Join(d, "; ")
}

// tidy makes an empty list equal to an empty list.
func tidy(m map[string]any) map[string]any {
	m = maps.Clone(m)
	for k, v := range m {
		if list, ok := v.([]string); ok && len(list) == 0 {
			m[k] = []string{}
		}
	}
	return m
}

func (s *suite) wantCurrent(want vectordb.Revision) {
	s.Helper()
	if d := difference(s.current(want.Key), want); d != "" {
		s.Errorf("document %q: %s", want.Key, d)
	}
}

func (s *suite) wantError(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// chunk names a chunk of an answer.
type chunk struct {
	key        string
	start, end int
	id         string
}

func chunkOf(h vectordb.Hit) chunk { return chunk{h.Key, h.Entry.Start, h.Entry.End, h.ID} }

// checkLeg holds a leg's answer against all that the model would find, best first. It returns how many of the model's best are in the answer.
//
// Each hit must have the model's score, and no chunk that scores clearly above the last hit may be missing beyond what approximate search may miss.
func checkLeg(got, all []vectordb.Hit, depth int, exact bool) (found int, err error) {
	const tolerance = 1e-5
	score := map[chunk]float64{}
	for _, h := range all {
		score[chunkOf(h)] = h.Score
	}
	want := min(depth, len(all))
	if len(got) > want || exact && len(got) < want {
		return 0, fmt.Errorf("%d hits, want %d", len(got), want)
	}
	seen := map[chunk]bool{}
	for i, h := range got {
		c := chunkOf(h)
		model, ok := score[c]
		if !ok {
			return 0, fmt.Errorf("hit %d, %q [%d:%d), should not be found", i, h.Key, h.Entry.Start, h.Entry.End)
		}
		if seen[c] {
			return 0, fmt.Errorf("hit %d, %q [%d:%d), is there twice", i, h.Key, h.Entry.Start, h.Entry.End)
		}
		seen[c] = true
		if math.Abs(h.Score-model) > tolerance {
			return 0, fmt.Errorf("hit %d, %q [%d:%d), has score %v, want %v", i, h.Key, h.Entry.Start, h.Entry.End, h.Score, model)
		}
	}
	if err := checkOrder(got); err != nil {
		return 0, err
	}
	if want == 0 {
		return 0, nil
	}
	for i, h := range all[:want] {
		if seen[chunkOf(h)] || h.Score <= all[want-1].Score+2*tolerance {
			found++
		} else if exact {
			return 0, fmt.Errorf("%q [%d:%d), which is number %d with score %v, is missing", h.Key, h.Entry.Start, h.Entry.End, i, h.Score)
		}
	}
	return found, nil
}

// checkOrder: best first, equal scores by key, start, end.
func checkOrder(hits []vectordb.Hit) error {
	for i := 1; i < len(hits); i++ {
		a, b := hits[i-1], hits[i]
		c := cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Entry.Start, b.Entry.Start), cmp.Compare(a.Entry.End, b.Entry.End))
		if c > 0 {
			return fmt.Errorf("hit %d (%v, %q, %d) stands before hit %d (%v, %q, %d)", i-1, a.Score, a.Key, a.Entry.Start, i, b.Score, b.Key, b.Entry.Start)
		}
	}
	return nil
}

// checkHit: what a hit shows is what the document's revision holds.
func checkHit(h vectordb.Hit, r vectordb.Revision) error {
	switch {
	case h.Revision.Text != "" || h.Revision.Entries != nil || h.Entry.Vector != nil:
		return fmt.Errorf("hit %q carries the document's text, its entries or a vector", h.ID)
	case h.Entry.Start < 0 || h.Entry.End > len(r.Text) || h.Text != r.Text[h.Entry.Start:h.Entry.End]:
		return fmt.Errorf("hit %q: text %q is not the document's [%d:%d)", h.ID, h.Text, h.Entry.Start, h.Entry.End)
	}
	repeat := map[vectordb.Hash]int{}
	for _, e := range r.Entries {
		if e.Start == h.Entry.Start && e.End == h.Entry.End && e.Hash == h.Entry.Hash &&
			h.ID == vectordb.EntryID(vectordb.DocumentID(r.Key), e.Hash, repeat[e.Hash]) {
			if e.Tokens != h.Entry.Tokens {
				return fmt.Errorf("hit %q has %d tokens, want %d", h.ID, h.Entry.Tokens, e.Tokens)
			}
			bare := r
			bare.Text, bare.Entries = "", nil
			if d := difference(h.Revision, bare); d != "" {
				return fmt.Errorf("hit %q: %s", h.ID, d)
			}
			if h.SearchableAt.IsZero() {
				return fmt.Errorf("hit %q has no SearchableAt", h.ID)
			}
			return nil
		}
		repeat[e.Hash]++
	}
	return fmt.Errorf("hit %q [%d:%d) is no entry of the document", h.ID, h.Entry.Start, h.Entry.End)
}
