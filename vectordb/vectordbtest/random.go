package vectordbtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/liverag/liverag/vectordb"
)

// testRandom does the same random things to the store and to Memory, and compares.
func testRandom(s *suite) {
	seed := s.seed()
	steps := 600
	switch {
	case s.Slow:
		steps = 100
	case testing.Short():
		steps = 200
	}
	if n, err := strconv.Atoi(os.Getenv("VECTORDB_STEPS")); err == nil {
		steps = n
	}
	w := &walk{suite: s, r: rand.New(rand.NewPCG(seed, 1)), model: vectordb.NewMemory(), offsets: map[int32]int64{}}
	if err := w.model.Create(s.Context(), describe("g")); err != nil {
		s.Fatal(err)
	}
	for i := range steps {
		if err := w.step(i); err != nil {
			s.Fatalf("VECTORDB_SEED=%d, step %d: %v", seed, i, err)
		}
	}
	if err := w.compareAll(); err != nil {
		s.Fatalf("VECTORDB_SEED=%d, at the end: %v", seed, err)
	}
	if w.wanted > 0 {
		recall := float64(w.found) / float64(w.wanted)
		s.Logf("recall of the dense leg %.4f over %d queries", recall, w.queries)
		if recall < w.MinRecall {
			s.Errorf("VECTORDB_SEED=%d: recall %.4f, want %.4f", seed, recall, w.MinRecall)
		}
	}
}

type walk struct {
	*suite
	r             *rand.Rand
	model         *vectordb.Memory
	version       int64
	offsets       map[int32]int64
	found, wanted int
	queries       int
}

var vocabulary = strings.Fields(`refund order invoice customer shipping address payment card password account login server request response handler
	timeout retry queue partition offset index vector search query filter tenant document version chunk token model listen serve http.ListenAndServe snake_case
	café 検索エンジン Überschrift running runs ran the of and 2024 3.14`)

func (w *walk) key() string {
	id := fmt.Sprintf("doc-%02d", w.r.IntN(40))
	switch w.r.IntN(5) {
	case 0:
		return "acme\x1f" + id
	case 1:
		return "zeta\x1f" + id
	}
	return id
}

func (w *walk) text(n int) string {
	words := make([]string, n)
	for i := range words {
		words[i] = vocabulary[min(w.r.IntN(len(vocabulary)), w.r.IntN(len(vocabulary)))]
	}
	return strings.Join(words, " ")
}

func (w *walk) content() vectordb.Revision {
	if w.version++; w.r.IntN(4) > 0 {
		w.version += w.r.Int64N(3)
	}
	version := w.version
	if w.r.IntN(6) == 0 { // late
		version = max(1, version-w.r.Int64N(60))
	}
	key := w.key()
	if w.r.IntN(5) == 0 {
		return deletion(key, version)
	}
	var chunks []string
	for range w.r.IntN(7) * (1 + w.r.IntN(3)) {
		if len(chunks) > 0 && w.r.IntN(8) == 0 {
			chunks = append(chunks, chunks[w.r.IntN(len(chunks))])
		} else {
			chunks = append(chunks, w.text(1+w.r.IntN(25)))
		}
	}
	r := revision(key, version, chunks...)
	for i := range r.Entries {
		if w.r.IntN(30) == 0 {
			r.Entries[i].Vector = make([]float32, Dim)
		}
	}
	library := library()
	like := library[w.r.IntN(len(library))]
	r.Metadata, r.URL, r.ContentType, r.UpdatedAt = like.Metadata, like.URL, like.ContentType, like.UpdatedAt
	switch w.r.IntN(6) {
	case 0:
		r.ACL = []string{}
	case 1:
		r.ACL = []string{"alice"}
	case 2:
		r.ACL = []string{"bob", "alice"}
	}
	return r
}

func (w *walk) access() vectordb.Revision {
	version := 1 + w.r.Int64N(w.version+2)
	switch key := w.key(); w.r.IntN(4) {
	case 0:
		return accessCleared(key, version)
	case 1:
		return access(key, version)
	case 2:
		return access(key, version, "alice")
	default:
		return access(key, version, "bob", "carol")
	}
}

func (w *walk) write() vectordb.Write {
	var write vectordb.Write
	for range w.r.IntN(4) * w.r.IntN(4) {
		if w.r.IntN(4) == 0 {
			write.Revisions = append(write.Revisions, w.access())
		} else {
			r := w.content()
			if w.r.IntN(6) == 0 {
				r.Access = w.access().Access
			}
			write.Revisions = append(write.Revisions, r)
		}
	}
	if w.r.IntN(3) > 0 {
		p := w.r.Int32N(4)
		w.offsets[p] += w.r.Int64N(9)
		write.Checkpoint = map[int32]int64{p: w.offsets[p]}
	}
	return write
}

func (w *walk) query() vectordb.Query {
	q := vectordb.Query{Depth: []int{0, 1, 3, 10, 40}[w.r.IntN(5)], Tenant: []string{"", "", "acme", "zeta", "none"}[w.r.IntN(5)]}
	for _, p := range []string{"alice", "bob", "carol"} {
		if w.r.IntN(3) == 0 {
			q.Principals = append(q.Principals, p)
		}
	}
	if w.r.IntN(2) == 0 {
		f, err := vectordb.ParseFilter([]byte(filters[w.r.IntN(len(filters))]))
		if err != nil {
			w.Fatal(err)
		}
		q.Filter = f
	}
	return q
}

func (w *walk) step(i int) error {
	ctx := w.Context()
	switch n := w.r.IntN(100); {
	case n < 45:
		write := w.write()
		if err := w.store.Apply(ctx, "g", write); err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		if err := w.model.Apply(ctx, "g", write); err != nil {
			return fmt.Errorf("apply to the model: %w", err)
		}
		w.settle()
		return nil
	case n < 49:
		write := w.write()
		bad := revision("doc-00", 1<<50, "bad")
		bad.Entries[0].Vector = bad.Entries[0].Vector[1:]
		write.Revisions = slices.Insert(write.Revisions, w.r.IntN(len(write.Revisions)+1), bad)
		if err := w.store.Apply(ctx, "g", write); !errors.Is(err, vectordb.ErrInvalid) {
			return fmt.Errorf("apply of a bad vector: %v", err)
		}
		return nil
	case n < 80:
		return w.compareSearch()
	case n < 90:
		return w.compareCurrent()
	case n < 94:
		return w.compareAll()
	case n < 96:
		return w.store.Sync(ctx, "g")
	case n < 97 && i > 50:
		for _, store := range []vectordb.Store{w.store, w.model} {
			if err := store.Drop(ctx, "g"); err != nil {
				return err
			}
			if err := store.Create(ctx, describe("g")); err != nil {
				return err
			}
		}
		return nil
	default:
		if w.Reopen != nil {
			w.reopen()
		}
		return nil
	}
}

func (w *walk) compareSearch() error {
	ctx := w.Context()
	q := w.query()
	depth := q.Depth
	if depth == 0 {
		depth = 10
	}
	deep := q
	deep.Depth = 1 << 20
	modelLeg := func(vector []float32, text string) ([]vectordb.Hit, error) {
		d := deep
		d.Vector, d.Text = vector, text
		return w.model.Search(ctx, "g", d)
	}
	vector, text := randomVector(w.r), w.text(1+w.r.IntN(6))
	leg := w.r.IntN(3)
	if !w.Lexical {
		leg = 0
	}
	if leg != 1 {
		q.Vector = vector
	}
	if leg != 0 {
		q.Text = text
	}
	split := 0
	if leg == 2 {
		q.Fuse = func(dense, lexical []vectordb.Candidate) []vectordb.Candidate {
			split = len(dense)
			for _, l := range lexical {
				if !slices.ContainsFunc(dense, func(d vectordb.Candidate) bool { return d.Entry == l.Entry }) {
					dense = append(dense, l)
				}
			}
			return dense
		}
	}
	what := fmt.Sprintf("search(depth %d, tenant %q, principals %q, filter %s, text %q, leg %d)", q.Depth, q.Tenant, q.Principals, q.Filter, q.Text, leg)
	got, err := w.store.Search(ctx, "g", q)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, h := range got {
		current, err := w.model.Current(ctx, "g", []string{h.Key})
		if err != nil {
			return err
		}
		if err := checkHit(h, current[0]); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if leg != 1 {
		all, err := modelLeg(vector, "")
		if err != nil {
			return err
		}
		dense := got
		if leg == 2 {
			dense = got[:split]
		}
		found, err := checkLeg(dense, all, depth, w.MinRecall >= 1)
		if err != nil {
			return fmt.Errorf("%s: dense: %w", what, err)
		}
		w.found += found
		w.wanted += min(depth, len(all))
		w.queries++
	}
	if leg != 0 {
		all, err := modelLeg(nil, text)
		if err != nil {
			return err
		}
		if leg == 1 {
			if _, err := checkLeg(got, all, depth, !w.LexicalApproximate); err != nil {
				return fmt.Errorf("%s: lexical: %w", what, err)
			}
			return nil
		}
		// What the dense leg has not brought: each is among the lexical ones, in their order.
		if _, err := checkLeg(got[split:], all, depth, false); err != nil {
			return fmt.Errorf("%s: lexical after dense: %w", what, err)
		}
	}
	return nil
}

func (w *walk) compareCurrent() error {
	ctx := w.Context()
	var asked []string
	for range 1 + w.r.IntN(12) {
		asked = append(asked, w.key())
	}
	got, err := w.store.Current(ctx, "g", asked)
	if err != nil {
		return fmt.Errorf("current: %w", err)
	}
	want, err := w.model.Current(ctx, "g", asked)
	if err != nil {
		return err
	}
	return compare("Current", got, want)
}

func compare(what string, got, want []vectordb.Revision) error {
	if len(got) != len(want) {
		return fmt.Errorf("%s: %d revisions, want %d", what, len(got), len(want))
	}
	for i := range got {
		if d := difference(got[i], want[i]); d != "" {
			return fmt.Errorf("%s: %q: %s", what, want[i].Key, d)
		}
		if live := want[i].Version > 0 && !want[i].Deleted; live && got[i].SearchableAt.IsZero() {
			return fmt.Errorf("%s: %q has no SearchableAt", what, want[i].Key)
		}
	}
	return nil
}

// compareAll compares everything that can be read without a query.
func (w *walk) compareAll() error {
	ctx := w.Context()
	limit := 1 + w.r.IntN(30)
	for after := ""; ; {
		got, err := w.store.Scan(ctx, "g", after, limit)
		if err != nil {
			return fmt.Errorf("scan: %w", err)
		}
		want, err := w.model.Scan(ctx, "g", after, limit)
		if err != nil {
			return err
		}
		if err := compare("Scan", got, want); err != nil {
			return err
		}
		if len(want) == 0 {
			break
		}
		after = want[len(want)-1].Key
	}
	got, err := w.store.Stats(ctx, "g")
	if err != nil {
		return fmt.Errorf("stats: %w", err)
	}
	want, err := w.model.Stats(ctx, "g")
	if err != nil {
		return err
	}
	if got.Documents != want.Documents || got.Chunks != want.Chunks || got.Tokens != want.Tokens {
		return fmt.Errorf("stats: %+v, want %+v", got, want)
	}
	checkpoint, err := w.model.Checkpoint(ctx, "g")
	if err != nil {
		return err
	}
	w.wantCheckpoint(checkpoint)
	if w.Failed() {
		return errors.New("the checkpoints differ")
	}
	return nil
}
