package vectordbtest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/liverag/liverag/vectordb"
)

// Readers hammer while a writer replaces documents. Every answer has one version of each document, whole, and none older than what was acknowledged
// before the question. Each chunk says in its text which version it belongs to.
func testOneVersion(s *suite) {
	const documents = 6
	rounds := 60
	if testing.Short() || s.Slow {
		rounds = 20
	}
	chunks := func(version int64) int { return 1 + int(version*7%5) }
	make := func(d int, version int64) vectordb.Revision {
		var texts []string
		for i := range chunks(version) {
			texts = append(texts, fmt.Sprintf("marker document%d version%d chunk%d", d, version, i))
		}
		return revision(fmt.Sprint("d", d), version, texts...)
	}
	var acknowledged [documents]atomic.Int64
	var first []vectordb.Revision
	for d := range documents {
		first = append(first, make(d, 1))
		acknowledged[d].Store(1)
	}
	s.apply(first...)

	// check looks at one leg's hits of an answer.
	check := func(what string, versions map[string]int64, counts map[string]int, least [documents]int64) error {
		for d := range documents {
			key := fmt.Sprint("d", d)
			v, found := versions[key]
			switch {
			case !found:
				return fmt.Errorf("%s: %s is not in the answer", what, key)
			case v < least[d]:
				return fmt.Errorf("%s: %s is of version %d, after %d was acknowledged", what, key, v, least[d])
			case counts[key] != chunks(v):
				return fmt.Errorf("%s: %s has %d chunks of version %d, want %d", what, key, counts[key], v, chunks(v))
			}
		}
		return nil
	}
	question := func(leg vectordb.Query) error {
		var least [documents]int64
		for d := range documents {
			least[d] = acknowledged[d].Load()
		}
		hits, err := s.store.Search(s.Context(), "g", leg)
		if err != nil {
			return err
		}
		versions, counts, seen := map[string]int64{}, map[string]int{}, map[string]bool{}
		for _, h := range hits {
			if v, ok := versions[h.Key]; ok && v != h.Version {
				return fmt.Errorf("%s is there as version %d and as version %d", h.Key, v, h.Version)
			}
			if !strings.Contains(h.Text, fmt.Sprintf("%s version%d chunk", strings.Replace(h.Key, "d", "document", 1), h.Version)) {
				return fmt.Errorf("a hit of %s, version %d, has the text %q", h.Key, h.Version, h.Text)
			}
			if seen[h.ID] {
				return fmt.Errorf("%s is there twice", h.ID)
			}
			seen[h.ID] = true
			versions[h.Key] = h.Version
			counts[h.Key]++
		}
		return check("an answer", versions, counts, least)
	}
	current := func() error {
		var least [documents]int64
		keys := []string{}
		for d := range documents {
			least[d] = acknowledged[d].Load()
			keys = append(keys, fmt.Sprint("d", d))
		}
		got, err := s.store.Current(s.Context(), "g", keys)
		if err != nil {
			return err
		}
		for d, r := range got {
			if r.Version < least[d] {
				return fmt.Errorf("the store has %s at %d, after %d was acknowledged", r.Key, r.Version, least[d])
			}
			if diff := difference(r, make(d, r.Version)); diff != "" {
				return fmt.Errorf("the store has a mixed %s: %s", r.Key, diff)
			}
		}
		return nil
	}

	var stop atomic.Bool
	var asked atomic.Int64
	var wg sync.WaitGroup
	ask := func(f func() error) {
		wg.Go(func() {
			for n := 0; !stop.Load() || n == 0; n++ {
				if err := f(); err != nil {
					s.Error(err)
					stop.Store(true)
					return
				}
				asked.Add(1)
			}
		})
	}
	dense := vectordb.Query{Vector: direction(0), Depth: 1000}
	ask(func() error { return question(dense) })
	ask(current)
	if s.Lexical {
		ask(func() error { return question(vectordb.Query{Text: "marker", Depth: 1000}) })
		ask(func() error { return s.sameView(documents, chunks) })
	}
	versions := [documents]int64{}
	for d := range versions {
		versions[d] = 1
	}
	for round := 0; round < rounds && !stop.Load(); round++ {
		// Sometimes one document, sometimes all of them in one write, sometimes through a delete that no reader may see.
		var revisions []vectordb.Revision
		for d := range documents {
			if round%3 == 0 || d == round%documents {
				versions[d]++
				if round%4 == 1 {
					revisions = append(revisions, deletion(fmt.Sprint("d", d), versions[d]))
					versions[d]++
				}
				revisions = append(revisions, make(d, versions[d]))
			}
		}
		s.apply(revisions...)
		for d := range documents {
			acknowledged[d].Store(versions[d])
		}
		// The writer must not be done before the readers have begun.
		for enough := asked.Load() + 2; asked.Load() < enough && !stop.Load(); {
			runtime.Gosched()
		}
	}
	stop.Store(true)
	wg.Wait()
}

// sameView asks both legs for everything: they must bring the same chunks.
func (s *suite) sameView(documents int, chunks func(int64) int) error {
	var problem error
	q := vectordb.Query{Vector: direction(0), Text: "marker", Depth: 1000}
	q.Fuse = func(dense, lexical []vectordb.Candidate) []vectordb.Candidate {
		entries := map[uint64]bool{}
		for _, c := range dense {
			entries[c.Entry] = true
		}
		if len(dense) != len(lexical) {
			problem = fmt.Errorf("the dense leg has %d chunks, the lexical one of the same view %d", len(dense), len(lexical))
		}
		for _, c := range lexical {
			if !entries[c.Entry] {
				problem = fmt.Errorf("the legs of one search have different chunks")
			}
		}
		return dense
	}
	hits, err := s.store.Search(s.Context(), "g", q)
	if err != nil {
		return err
	}
	counts, versions := map[string]int{}, map[string]int64{}
	for _, h := range hits {
		counts[h.Key]++
		versions[h.Key] = h.Version
	}
	for key, n := range counts {
		if n != chunks(versions[key]) {
			return fmt.Errorf("%s has %d chunks of version %d in a hybrid answer, want %d", key, n, versions[key], chunks(versions[key]))
		}
	}
	if len(counts) != documents && problem == nil {
		problem = fmt.Errorf("%d of %d documents in a hybrid answer", len(counts), documents)
	}
	return problem
}
