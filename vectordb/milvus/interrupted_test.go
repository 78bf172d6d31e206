package milvus

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
	"github.com/liverag/liverag/vectordb/milvus/milvustest"
)

// everywhere tells that faults are tried at every call of a script, not at some of them: LIVERAG_CHAOS is set.
func everywhere() bool { return os.Getenv("LIVERAG_CHAOS") != "" }

// mutates tells whether a call changes rows.
func mutates(method string) bool {
	return method == "Upsert" || method == "Delete" || method == "Insert"
}

// step is a write of the script, and how many chunks each document has after it: 0 for one that is not there.
type step struct {
	revisions []vectordb.Revision
	chunks    map[string]int
}

// script replaces documents by longer and shorter ones, deletes and revives them, and sets access apart, one of them in several requests at RequestBytes of 4 KiB.
// The version of everything that step i writes is i+1 above the base.
func script(base int64) []step {
	gone := func(key string, version int64) vectordb.Revision {
		return vectordb.Revision{Key: key, Version: version, Deleted: true}
	}
	at := func(i int64) int64 { return base + i + 1 }
	return []step{
		{[]vectordb.Revision{doc("a", at(0), 2), doc("b", at(0), 5), doc("large", at(0), 25)}, map[string]int{"a": 2, "b": 5, "large": 25}},
		{[]vectordb.Revision{doc("a", at(1), 9), doc("b", at(1), 1)}, map[string]int{"a": 9, "b": 1, "large": 25}},
		{[]vectordb.Revision{gone("b", at(2)), doc("large", at(2), 15)}, map[string]int{"a": 9, "b": 0, "large": 15}},
		{[]vectordb.Revision{{Key: "a", Access: vectordb.Access{Version: at(3), ACL: []string{"alice"}}}}, map[string]int{"a": 9, "b": 0, "large": 15}},
		{[]vectordb.Revision{doc("a", at(4), 1), doc("b", at(4), 3), doc("large", at(4), 30)}, map[string]int{"a": 1, "b": 3, "large": 30}},
	}
}

// process is a store as a process of its own would have it.
func process(t *testing.T, config Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// watcher asks again and again, and holds every answer to what it may show.
type watcher struct {
	mu    sync.Mutex
	floor map[string]int64 // by document: no older version may be shown any more; of a document that is gone, the version of its deletion
	asked int
}

func (w *watcher) raise(revisions []vectordb.Revision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range revisions {
		w.floor[r.Key] = max(w.floor[r.Key], r.Version)
	}
}

func (w *watcher) look(ctx context.Context, s *Store) error {
	w.mu.Lock()
	floor := map[string]int64{}
	for key, version := range w.floor {
		floor[key] = version
	}
	w.asked++
	w.mu.Unlock()
	q := vectordb.Query{Vector: make([]float32, dim), Depth: 200, Principals: []string{"alice"}}
	q.Vector[0] = 1
	hits, err := s.Search(ctx, "g", q)
	if err != nil {
		return fmt.Errorf("search: %w", err)
	}
	shown := map[string]int64{}
	for _, h := range hits {
		if before, ok := shown[h.Key]; ok && before != h.Version {
			return fmt.Errorf("one answer shows %s at versions %d and %d", h.Key, before, h.Version)
		}
		shown[h.Key] = h.Version
		if !strings.HasSuffix(h.Text, fmt.Sprintf("version %d.", h.Version)) {
			return fmt.Errorf("%s at version %d is shown with %q", h.Key, h.Version, h.Text)
		}
		if h.Version < floor[h.Key] {
			return fmt.Errorf("%s is shown at version %d after %d was searchable", h.Key, h.Version, floor[h.Key])
		}
	}
	for key, version := range floor {
		if _, ok := shown[key]; !ok && key != "b" && version > 0 {
			return fmt.Errorf("%s is not shown while one version replaces another", key)
		}
	}
	return nil
}

// watch looks until the test is done with what it watches.
func (w *watcher) watch(t *testing.T, s *Store) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := w.look(ctx, s); err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
		if w.asked == 0 {
			t.Error("nobody looked")
		}
	}
}

// settled checks that what is stored is what the steps so far make it, down to the last row.
func settled(t *testing.T, s *Store, version int64, chunks map[string]int) {
	t.Helper()
	rows := 0
	got, err := s.Current(t.Context(), "g", []string{"a", "b", "large"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range got {
		if len(r.Entries) != chunks[r.Key] || r.Deleted != (chunks[r.Key] == 0) {
			t.Errorf("%s has %d chunks, deleted: %v; want %d", r.Key, len(r.Entries), r.Deleted, chunks[r.Key])
		}
		if rows += max(1, chunks[r.Key]); r.Version > version {
			t.Errorf("%s is at version %d, beyond %d", r.Key, r.Version, version)
		}
	}
	g, err := s.generation(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, g); n != rows {
		t.Errorf("%d rows are left after the sweep, want %d", n, rows)
	}
}

// play writes the steps and waits for each to show. It ends with the first error, and tells how many steps it came through.
func play(ctx context.Context, s *Store, w *watcher, steps []step) (int, error) {
	for i, step := range steps {
		if err := s.Apply(ctx, "g", vectordb.Write{Revisions: step.revisions}); err != nil {
			return i, err
		}
		if err := s.Visible(ctx, "g"); err != nil {
			return i, err
		}
		w.raise(step.revisions)
	}
	return len(steps), nil
}

// A process that dies between any two of its calls, or in one, whether the server has done it or not, shows nothing half done, before and after whoever takes over does its work
// again; and after that and a sweep nothing is left of it.
func TestDiesBetweenCalls(t *testing.T) {
	onEach(t, func(t *testing.T, config Config) {
		server := config.Address
		config.RequestBytes = 4 << 10
		calls := 0
		{
			p := milvustest.NewProxy(t, server)
			config := config
			config.Address = p.Address()
			s := open(t, config)
			create(t, s)
			p.Judge(func(method string) milvustest.Verdict {
				if mutates(method) {
					calls++
				}
				return milvustest.Verdict{}
			})
			steps := script(0)
			if _, err := play(t.Context(), s, &watcher{floor: map[string]int64{}}, steps); err != nil {
				t.Fatal(err)
			}
			p.Pass()
			settled(t, s, int64(len(steps)), steps[len(steps)-1].chunks)
		}
		if calls < 8 {
			t.Fatalf("the script makes %d calls that change rows: it replaces nothing", calls)
		}
		var mu sync.Mutex
		points, swept, left := 0, 0, 0
		t.Run("cut", func(t *testing.T) {
			for n := range calls {
				for i, done := range []bool{false, true} {
					if !everywhere() && (2*n+i)%3 != 0 {
						continue
					}
					points++
					t.Run(fmt.Sprintf("%d_of_%d_done_%v", n+1, calls, done), func(t *testing.T) {
						t.Parallel()
						config := config
						keeper := open(t, config)
						create(t, keeper)
						config = keeper.config
						p := milvustest.NewProxy(t, server)
						config.Address = p.Address()
						doomed := process(t, config)
						if _, err := doomed.generation(t.Context(), "g"); err != nil {
							t.Fatal(err)
						}
						made := 0
						p.Judge(func(method string) milvustest.Verdict {
							if mutates(method) {
								made++
							}
							switch {
							case made == n+1 && mutates(method) && done:
								return milvustest.Verdict{After: milvustest.Lost}
							case made > n:
								return milvustest.Verdict{Before: milvustest.Lost}
							}
							return milvustest.Verdict{}
						})
						steps := script(0)
						w := &watcher{floor: map[string]int64{}}
						stop := w.watch(t, keeper)
						through, err := play(t.Context(), doomed, w, steps)
						if err == nil {
							t.Fatal("it did not die")
						}
						_ = doomed.Close()
						// What it had not been told to be searchable is delivered again to another process.
						config.Address = server
						heir := process(t, config)
						if err := w.look(t.Context(), heir); err != nil {
							t.Error(err)
						}
						reached, err := play(t.Context(), heir, w, steps[through:through+1])
						if err != nil {
							t.Fatalf("%d: %v", reached, err)
						}
						removed, err := heir.Sweep(t.Context(), "g")
						if err != nil {
							t.Fatal(err)
						}
						stop()
						settled(t, heir, int64(through+1), steps[through].chunks)
						mu.Lock()
						defer mu.Unlock()
						if swept += removed; removed > 0 {
							left++
						}
					})
				}
			}
		})
		t.Logf("%d points of death in %d calls; after %d of them a sweep removed rows, %d in all", points, calls, left, swept)
		if !t.Failed() && swept == 0 {
			t.Error("no sweep found anything: nothing was interrupted between a write and the removal of what it replaced")
		}
	})
}

// A zombie, held up in any of its calls while another process writes newer versions, shows nothing of its own when it wakes up and goes on, and nothing of it is left.
func TestZombieAtEachCall(t *testing.T) {
	onEach(t, func(t *testing.T, config Config) {
		server := config.Address
		config.RequestBytes = 4 << 10
		for n := range 10 {
			if !everywhere() && n%4 != 1 {
				continue
			}
			t.Run(fmt.Sprintf("held_at_%d", n+1), func(t *testing.T) {
				t.Parallel()
				config := config
				keeper := open(t, config)
				create(t, keeper)
				config = keeper.config
				p := milvustest.NewProxy(t, server)
				config.Address = p.Address()
				config.Timeouts.Write = time.Minute
				zombie := process(t, config)
				if _, err := zombie.generation(t.Context(), "g"); err != nil {
					t.Fatal(err)
				}
				made := 0
				held, wake := make(chan struct{}), make(chan struct{})
				p.Judge(func(method string) milvustest.Verdict {
					if !mutates(method) {
						return milvustest.Verdict{}
					}
					if made++; made == n+1 {
						close(held)
						return milvustest.Verdict{Hold: wake}
					}
					return milvustest.Verdict{}
				})
				w := &watcher{floor: map[string]int64{}}
				stop := w.watch(t, keeper)
				ended := make(chan error, 1)
				go func() {
					_, err := play(t.Context(), zombie, &watcher{floor: map[string]int64{}}, script(0))
					ended <- err
				}()
				select {
				case <-held:
				case err := <-ended:
					t.Fatalf("the zombie was not held up: %v", err)
				}
				config.Address = server
				heir := process(t, config)
				steps := script(100)
				if _, err := play(t.Context(), heir, w, steps); err != nil {
					t.Error(err)
				}
				close(wake)
				if err := <-ended; err != nil {
					t.Errorf("the zombie: %v", err)
				}
				if err := w.look(t.Context(), heir); err != nil {
					t.Error(err)
				}
				if _, err := heir.Sweep(t.Context(), "g"); err != nil {
					t.Fatal(err)
				}
				stop()
				settled(t, heir, 100+int64(len(steps)), steps[len(steps)-1].chunks)
				got, err := zombie.Current(t.Context(), "g", []string{"a", "b", "large"})
				if err != nil {
					t.Fatal(err)
				}
				if slices.ContainsFunc(got, func(r vectordb.Revision) bool { return r.Version <= 100 }) {
					t.Errorf("the zombie won: %d, %d, %d", got[0].Version, got[1].Version, got[2].Version)
				}
			})
		}
	})
}
