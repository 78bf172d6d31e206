package main

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// TestEachAnswerIsOfOneGeneration asks 10,000 questions across 100 promotes and rollbacks between two generations of different models, dimensions and chunkers. Each
// answer has to be, to the last bit of its scores, the one that the generation it names gives when it is asked by its own name: so the question was embedded by that
// generation's model, and nothing in the answer is of the other one.
func TestEachAnswerIsOfOneGeneration(t *testing.T) {
	const documents, clients = 40, 8
	promotes, answersEach := scaled(t, "LIVERAG_PROMOTES", 100), scaled(t, "LIVERAG_PROMOTE_ANSWERS", 100)
	s, _ := startSystem(t, func(cfg *Config) { cfg.Embedder, cfg.Chunker, cfg.Tokens = "hash/96", "recursive", 60 })
	var changes []stream.Change
	for d := range documents {
		changes = append(changes, stream.Change{Kind: stream.Upsert, ID: fmt.Sprintf("d/%d", d), Document: &stream.Document{Text: prose(fmt.Sprintf("topic%d", d), 4+d%5), ContentType: stream.TextMarkdown}})
	}
	receipt, err := s.log.Append(t.Context(), changes...)
	if err != nil {
		t.Fatal(err)
	}
	for name, recipe := range map[string]vectordb.Recipe{
		"one": {Chunker: vectordb.ChunkerRecipe{Strategy: "recursive", Tokens: 60}, Embedder: vectordb.EmbedderRecipe{Model: "hash/96"}},
		"two": {Chunker: vectordb.ChunkerRecipe{Strategy: "token", Tokens: 30}, Embedder: vectordb.EmbedderRecipe{Model: "local/static"}},
	} {
		if _, err := s.indexer.Create(t.Context(), name, recipe); err != nil {
			t.Fatal(err)
		}
		if err := s.indexer.WaitApplied(t.Context(), name, receipt.Positions); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.indexer.Promote(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	ask := func(query, generation string) (name, hits string, err error) {
		request := retrieve.NewRequest(query)
		request.K, request.Generation = 6, generation
		answer, err := s.retriever.Retrieve(t.Context(), request)
		if err != nil {
			return "", "", err
		}
		for _, hit := range answer.Hits {
			hits += fmt.Sprintf("%s %d-%d %v\n", hit.Key, hit.Entry.Start, hit.Entry.End, hit.Score)
		}
		return answer.Target.Name, hits, nil
	}
	var queries []string
	known := map[string]string{} // generation and query → hits
	for d := range documents {
		query := fmt.Sprintf("what is said of topic%d in paragraph %d", d, d%7)
		queries = append(queries, query)
		for _, name := range []string{"one", "two"} {
			got, hits, err := ask(query, name)
			if err != nil || got != name || hits == "" {
				t.Fatalf("asked %s and got %q of %s, %v", name, hits, got, err)
			}
			known[name+query] = hits
		}
		if known["one"+query] == known["two"+query] {
			t.Fatalf("%q has the same answer in both, so nothing would be seen of a mixture", query)
		}
	}
	var (
		wg       sync.WaitGroup
		answers  atomic.Int64
		byName   sync.Map
		stop     = make(chan struct{})
		came     = make(chan struct{}, 1) // an answer
		goal     atomic.Int64             // answers before the next move
		turn     sync.Mutex               // while the alias moves one client asks at a time: the move wants a core too
		problems = make(chan string, 20)
	)
	for range clients {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				query := queries[rand.IntN(len(queries))]
				moving := answers.Load() >= goal.Load()
				if moving {
					turn.Lock()
				}
				name, hits, err := ask(query, indexer.Live)
				if moving {
					turn.Unlock()
				}
				if err != nil || known[name+query] != hits {
					select {
					case problems <- fmt.Sprintf("%q answers in %q with %v\n%s", query, name, err, hits):
					default:
					}
				}
				byName.Store(name, true)
				answers.Add(1)
				select {
				case came <- struct{}{}:
				default:
				}
			}
		})
	}
	live := "one"
	for move := range promotes {
		for goal.Store(answers.Load() + int64(answersEach)); answers.Load() < goal.Load() && len(problems) == 0; {
			<-came
		}
		if move%4 == 3 {
			if _, err := s.indexer.Rollback(t.Context()); err != nil {
				t.Error(err)
				break
			}
		} else if _, err := s.indexer.Promote(t.Context(), map[string]string{"one": "two", "two": "one"}[live]); err != nil {
			t.Error(err)
			break
		}
		before := live
		info, err := s.indexer.Info(indexer.Live)
		if live = info.Name; err != nil || live == before {
			t.Errorf("move %d left %s live, %v", move, live, err)
		}
		// Whoever asks once the promote has answered gets the new one.
		if name, _, err := ask(queries[move%len(queries)], indexer.Live); err != nil || name != live {
			t.Errorf("after move %d to %s an answer is of %s, %v", move, live, name, err)
		}
	}
	close(stop)
	wg.Wait()
	close(problems)
	for problem := range problems {
		t.Error(problem)
	}
	for _, name := range []string{"one", "two"} {
		if _, ok := byName.Load(name); !ok {
			t.Errorf("no answer was of %s", name)
		}
	}
	t.Logf("%d answers over %d moves", answers.Load(), promotes)
}

// TestDroppingFreesTheDisk measures what the data directory takes before a replay, with it, and after its drop.
func TestDroppingFreesTheDisk(t *testing.T) {
	s, _ := startSystem(t, func(cfg *Config) { cfg.Cache.MaxBytes = 0 })
	receipt, err := s.log.Append(t.Context(), benchChanges(300)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.indexer.WaitApplied(t.Context(), indexer.Live, receipt.Positions); err != nil {
		t.Fatal(err)
	}
	used := func() (sum int64) {
		t.Helper()
		err := filepath.WalkDir(s.stored[len("embedded, "):], func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				sum += info.Size()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	before := used()
	if _, err := s.indexer.Create(t.Context(), "more", vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: "token", Tokens: 100}}); err != nil {
		t.Fatal(err)
	}
	if err := s.indexer.WaitApplied(t.Context(), "more", receipt.Positions); err != nil {
		t.Fatal(err)
	}
	with := used()
	if err := s.indexer.Drop(t.Context(), "more"); err != nil {
		t.Fatal(err)
	}
	after := used()
	if with < before+before/2 || after > before+before/20 {
		t.Errorf("%d bytes before the replay, %d with it, %d after the drop", before, with, after)
	}
	t.Logf("%d kB before the replay, %d with it, %d after the drop", before/1000, with/1000, after/1000)
}
