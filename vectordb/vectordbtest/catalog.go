package vectordbtest

import (
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/liverag/liverag/vectordb"
)

func testCatalog(s *suite) {
	ctx := s.Context()
	s.create("g") // again: nothing happens
	for name, change := range map[string]func(*vectordb.Generation){
		"fingerprint": func(g *vectordb.Generation) { g.Fingerprint += "x" },
		"dimension":   func(g *vectordb.Generation) { g.Dim++ },
		"origin":      func(g *vectordb.Generation) { g.Origin = "log-2" },
	} {
		g := describe("g")
		change(&g)
		s.wantError("Create with another "+name, s.store.Create(ctx, g), vectordb.ErrMismatch)
	}
	for _, name := range []string{"", "G", "1g", "_g", "a-b", "a.b", "ä", "a/b", "..", strings.Repeat("a", 64)} {
		s.wantError("Create "+name, s.store.Create(ctx, describe(name)), vectordb.ErrInvalid)
	}
	none := describe("none")
	none.Dim = 0
	s.wantError("Create without a dimension", s.store.Create(ctx, none), vectordb.ErrInvalid)

	long := "z" + strings.Repeat("9", 62)
	s.create(long)
	s.create("b_2")
	other := vectordb.Generation{Name: "c", Fingerprint: "other", Dim: 3, Origin: "log-9"}
	if err := s.store.Create(ctx, other); err != nil {
		s.Fatal(err)
	}
	list := func(want ...vectordb.Generation) {
		s.Helper()
		got, err := s.store.List(ctx)
		if err != nil || !slices.Equal(got, want) {
			s.Errorf("List: %v, %v; want %v", got, err, want)
		}
	}
	list(describe("b_2"), other, describe("g"), describe(long))

	// Generations don't see each other.
	s.apply(revision("a", 1, "in g"))
	s.generation = "b_2"
	if got := s.current("a"); got.Version != 0 {
		s.Errorf("a document of g is in b_2")
	}
	s.wantKeys(s.everything(""))

	for range 2 { // also when it is no longer there
		if err := s.store.Drop(ctx, "g"); err != nil {
			s.Errorf("Drop: %v", err)
		}
	}
	list(describe("b_2"), other, describe(long))
	_, err := s.store.Current(ctx, "g", []string{"a"})
	s.wantError("Current of a dropped generation", err, vectordb.ErrNoGeneration)

	// A new one of the name is empty and may be of another recipe.
	again := describe("g")
	again.Fingerprint = "new recipe"
	if err := s.store.Create(ctx, again); err != nil {
		s.Fatal(err)
	}
	s.generation = "g"
	if got := s.current("a"); got.Version != 0 {
		s.Errorf("a dropped generation's document came back")
	}
	s.apply(revision("a", 1, "in the new g"))
	s.wantKeys(s.everything(""), "a")
}

// calls are all methods that name a generation.
func calls(s *suite, generation string) map[string]error {
	ctx := s.Context()
	_, current := s.store.Current(ctx, generation, []string{"a"})
	_, scan := s.store.Scan(ctx, generation, "", 10)
	_, checkpoint := s.store.Checkpoint(ctx, generation)
	_, stats := s.store.Stats(ctx, generation)
	_, search := s.store.Search(ctx, generation, vectordb.Query{Vector: direction(0)})
	return map[string]error{
		"Apply":      s.store.Apply(ctx, generation, vectordb.Write{Revisions: []vectordb.Revision{revision("a", 1, "x")}}),
		"Sync":       s.store.Sync(ctx, generation),
		"Current":    current,
		"Scan":       scan,
		"Checkpoint": checkpoint,
		"Stats":      stats,
		"Search":     search,
	}
}

func testUnknownGeneration(s *suite) {
	for name, err := range calls(s, "nowhere") {
		if name == "Checkpoint" && s.NoCheckpoint {
			continue
		}
		s.wantError(name, err, vectordb.ErrNoGeneration)
	}
	for name, err := range calls(s, "g") {
		if err != nil {
			s.Errorf("%s: %v", name, err)
		}
	}
}

func testClosed(s *suite) {
	if err := s.store.Close(); err != nil {
		s.Fatalf("Close: %v", err)
	}
	all := calls(s, "g")
	all["Create"] = s.store.Create(s.Context(), describe("h"))
	all["Drop"] = s.store.Drop(s.Context(), "g")
	_, all["List"] = s.store.List(s.Context())
	for name, err := range all {
		s.wantError(name, err, vectordb.ErrClosed)
	}
}

// Readers in flight finish, whole, or are told that the generation is gone.
func testDropWhileReading(s *suite) {
	const documents = 50
	rounds := 5
	if s.Slow {
		rounds = 2
	}
	for round := range rounds {
		s.create("g")
		var revisions []vectordb.Revision
		for i := range documents {
			revisions = append(revisions, revision(string(rune('A'+i)), 1, "first of it", "second of it"))
		}
		s.apply(revisions...)
		var wg sync.WaitGroup
		started := make(chan struct{}, 3)
		for range 3 {
			wg.Go(func() {
				for i := 0; ; i++ {
					hits, err := s.store.Search(s.Context(), "g", vectordb.Query{Vector: direction(0), Depth: 1000})
					if i == 0 {
						started <- struct{}{}
					}
					switch {
					case errors.Is(err, vectordb.ErrNoGeneration):
						return
					case err != nil:
						s.Errorf("round %d: Search while it is dropped: %v", round, err)
						return
					case len(hits) != 2*documents:
						s.Errorf("round %d: %d of %d hits while it is dropped", round, len(hits), 2*documents)
						return
					}
					if _, err := s.store.Current(s.Context(), "g", []string{"A"}); err != nil && !errors.Is(err, vectordb.ErrNoGeneration) {
						s.Errorf("round %d: Current while it is dropped: %v", round, err)
						return
					}
				}
			})
		}
		for range 3 {
			<-started
		}
		if err := s.store.Drop(s.Context(), "g"); err != nil {
			s.Errorf("Drop: %v", err)
		}
		wg.Wait()
	}
}
