package flat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// numbered is write number i of a run, whose checkpoint tells how many there were.
func numbered(r *rand.Rand, i int) vectordb.Write {
	w := randomWrite(r, i)
	w.Checkpoint = map[int32]int64{0: int64(i + 1)}
	return w
}

// applied is how many numbered writes a store holds.
func applied(t testing.TB, s *Store) int {
	t.Helper()
	m, err := s.Checkpoint(context.Background(), "g")
	if err != nil {
		t.Fatal(err)
	}
	return int(m[0])
}

// A copy of the files at any moment is what a kill leaves. It must hold the first writes, each whole, with the checkpoint that says how many.
func TestKilledAtAnyMoment(t *testing.T) {
	const writes = 400
	dir := t.TempDir()
	s := open(t, dir, Options{NoSync: true, SegmentEntries: 50})
	create(t, s)
	r := rand.New(rand.NewPCG(4, 4))
	list := make([]vectordb.Write, writes)
	for i := range list {
		list[i] = numbered(r, i)
	}
	var acknowledged atomic.Int64
	failed := make(chan error, 1)
	go func() {
		for i, w := range list {
			if err := s.Apply(context.Background(), "g", w); err != nil {
				failed <- err
				return
			}
			acknowledged.Store(int64(i + 1))
		}
		close(failed)
	}()
	m, n, copies := model(t), 0, 0
	for done := false; !done; copies++ {
		select {
		case err := <-failed:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
		}
		before := acknowledged.Load()
		copied := open(t, copyDir(t, dir), Options{NoSync: true, SegmentEntries: 50})
		got := applied(t, copied)
		if got < int(before) {
			t.Fatalf("%d writes were acknowledged, the copy has %d", before, got)
		}
		for ; n < got; n++ {
			if err := m.Apply(t.Context(), "g", list[n]); err != nil {
				t.Fatal(err)
			}
		}
		same(t, copied, m)
		if err := copied.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if copies < 3 {
		t.Errorf("only %d copies were made", copies)
	}
}

// built makes a store with segments, counts and a log, closes it, and returns its directory, its writes, and how many of them were sealed.
func built(t *testing.T) (dir string, list []vectordb.Write) {
	t.Helper()
	dir = t.TempDir()
	r := rand.New(rand.NewPCG(5, 5))
	s := open(t, dir, Options{NoSync: true, SegmentEntries: 30})
	create(t, s)
	for i := range 60 {
		list = append(list, numbered(r, i))
		apply(t, s, list[i])
	}
	g := s.generations["g"].g
	settle(t, g)
	for len(g.active.rows) == 0 || len(g.active.rows) > smallMemtable/2 {
		list = append(list, numbered(r, len(list)))
		apply(t, s, list[len(list)-1])
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, list
}

// settle waits until nothing is left to seal or merge.
func settle(t testing.TB, g *generation) {
	t.Helper()
	for g.frozen() > 0 {
		if err := g.seal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for {
		did, err := g.merge(t.Context(), g.pick)
		if err != nil {
			t.Fatal(err)
		}
		if !did {
			return
		}
	}
}

// models returns what a store holds after n of the writes, for n that ascend.
func models(t *testing.T, list []vectordb.Write) func(n int) *vectordb.Memory {
	all := map[int]*vectordb.Memory{}
	return func(n int) *vectordb.Memory {
		if all[n] == nil {
			all[n] = model(t)
			for _, w := range list[:n] {
				if err := all[n].Apply(context.Background(), "g", w); err != nil {
					t.Fatal(err)
				}
			}
		}
		return all[n]
	}
}

// Whatever is damaged: what opens is right, and what is not right does not open.
func TestDamagedFiles(t *testing.T) {
	dir, list := built(t)
	after := models(t, list)
	files, err := os.ReadDir(filepath.Join(dir, "g"))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(6, 6))
	kinds := map[string]int{}
	for _, f := range files {
		name := f.Name()
		content, err := os.ReadFile(filepath.Join(dir, "g", name))
		if err != nil {
			t.Fatal(err)
		}
		kind := strings.TrimLeft(name, "0123456789")
		if kinds[kind]++; kinds[kind] > 2 {
			continue
		}
		places := []int{}
		for i := range min(len(content), 20) {
			places = append(places, i)
		}
		for range 40 {
			places = append(places, r.IntN(len(content)))
		}
		for i, at := range places {
			damaged := append([]byte(nil), content...)
			how := "flipped"
			switch i % 3 {
			case 0, 1:
				damaged[at] ^= 1 << r.IntN(8)
			case 2:
				damaged, how = damaged[:at], "cut"
			}
			t.Run(fmt.Sprintf("%s/%s at %d", name, how, at), func(t *testing.T) {
				copied := t.TempDir()
				if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(copied, "g", name), damaged, 0o644); err != nil {
					t.Fatal(err)
				}
				s := open(t, copied, Options{NoSync: true})
				_, err := s.Stats(t.Context(), "g")
				if err != nil {
					if !errors.Is(err, vectordb.ErrCorrupt) && !errors.Is(err, vectordb.ErrFormat) {
						t.Fatalf("refused with %v", err)
					}
					if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "replay") {
						t.Errorf("the message does not name the file or the way out: %v", err)
					}
					if err := s.Drop(t.Context(), "g"); err != nil {
						t.Errorf("Drop of a damaged generation: %v", err)
					}
					create(t, s)
					return
				}
				same(t, s, after(applied(t, s)))
			})
		}
	}
	if kinds[".seg"] == 0 || kinds[".wal"] == 0 || kinds[".counts"] == 0 || kinds["MANIFEST"] == 0 {
		t.Errorf("not every kind of file was there: %v", kinds)
	}
}

// A file that is gone is damage like any other: what opens without it is right, and a generation that can't says which file and what to do, for good.
func TestRemovedFiles(t *testing.T) {
	dir, list := built(t)
	after := models(t, list)
	files, err := os.ReadDir(filepath.Join(dir, "g"))
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, f := range files {
		t.Run(f.Name(), func(t *testing.T) {
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(copied, "g", f.Name())); err != nil {
				t.Fatal(err)
			}
			s := open(t, copied, Options{NoSync: true})
			if _, err := s.Stats(t.Context(), "g"); err != nil {
				refused++
				if !errors.Is(err, vectordb.ErrCorrupt) || !strings.Contains(err.Error(), f.Name()) || !strings.Contains(err.Error(), "replay") {
					t.Errorf("refused with %v", err)
				}
				if err := s.Drop(t.Context(), "g"); err != nil {
					t.Errorf("Drop of a damaged generation: %v", err)
				}
				create(t, s)
				return
			}
			same(t, s, after(applied(t, s)))
		})
	}
	if refused < 2 {
		t.Errorf("%d removed files were noticed", refused)
	}
}

// A frame that was safe on disk and is damaged can't be cut off as if power had taken it.
func TestDamageBeforeSyncIsRefused(t *testing.T) {
	for _, synced := range []bool{false, true} {
		t.Run(fmt.Sprintf("synced=%v", synced), func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, Options{SyncEvery: time.Hour})
			create(t, s)
			apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{revision("a", 1, 2, dim)}, Checkpoint: map[int32]int64{0: 1}})
			if synced {
				if err := s.Sync(t.Context(), "g"); err != nil {
					t.Fatal(err)
				}
			}
			apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{revision("b", 1, 2, dim)}, Checkpoint: map[int32]int64{0: 2}})
			copied := copyDir(t, dir)
			name := filepath.Join(copied, "g", walName(1))
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			b[walHeaderSize+frameHeaderSize+9] ^= 1
			if err := os.WriteFile(name, b, 0o644); err != nil {
				t.Fatal(err)
			}
			after := open(t, copied, Options{})
			got, err := after.Current(t.Context(), "g", []string{"a", "b"})
			if synced {
				if !errors.Is(err, vectordb.ErrCorrupt) {
					t.Errorf("%v, want ErrCorrupt", err)
				}
				return
			}
			if err != nil || got[0].Version != 0 || got[1].Version != 0 || applied(t, after) != 0 {
				t.Errorf("%+v, %v; want nothing", got, err)
			}
		})
	}
}

func TestNewerFormat(t *testing.T) {
	dir, _ := built(t)
	files, err := filepath.Glob(filepath.Join(dir, "g", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		t.Run(strings.TrimLeft(filepath.Base(name), "0123456789"), func(t *testing.T) {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			newer := append([]byte(nil), b...)
			binary.LittleEndian.PutUint32(newer[8:], formatVersion+1)
			if err := os.WriteFile(name, newer, 0o644); err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(name, b, 0o644)
			s := open(t, dir, Options{NoSync: true})
			defer s.Close()
			_, err = s.Scan(t.Context(), "g", "", 1)
			if strings.HasSuffix(name, ".counts") {
				if err != nil {
					t.Errorf("counts of a newer program are made anew, not: %v", err)
				}
				return
			}
			if !errors.Is(err, vectordb.ErrFormat) || !strings.Contains(err.Error(), filepath.Base(name)) {
				t.Errorf("%v, want ErrFormat that names the file", err)
			}
			if list, err := s.List(t.Context()); err != nil || len(list) != 1 || list[0].Name != "g" {
				t.Errorf("List = %v, %v", list, err)
			}
			other := about
			other.Name = "other"
			if err := s.Create(t.Context(), other); err != nil {
				t.Errorf("another generation suffers: %v", err)
			}
			if err := s.Drop(t.Context(), "other"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	_, err := Open(dir, Options{})
	if !errors.Is(err, vectordb.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Fatalf("%v, want ErrLocked and the process' number", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, Options{})
}

// faulty is a disk that fails at will.
type faulty struct {
	unsynced
	// fails says whether the next call fails.
	fails func() bool
}

func (f faulty) check() error {
	if f.fails() {
		return syscall.ENOSPC
	}
	return nil
}

func (f faulty) Open(name string, flag int) (file, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	inner, err := f.unsynced.Open(name, flag)
	return faultyFile{inner, f}, err
}

func (f faulty) Rename(from, to string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.unsynced.Rename(from, to)
}

func (f faulty) Remove(name string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.unsynced.Remove(name)
}

func (f faulty) SyncDir(string) error { return f.check() }

type faultyFile struct {
	file
	disk faulty
}

// WriteAt writes half of what it is given before it fails, as a full disk does.
func (f faultyFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.disk.check(); err != nil {
		n, _ := f.file.WriteAt(b[:len(b)/2], at)
		return n, err
	}
	return f.file.WriteAt(b, at)
}

func (f faultyFile) Truncate(size int64) error {
	if err := f.disk.check(); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f faultyFile) Sync() error { return f.disk.check() }

func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	var full atomic.Bool
	s := open(t, dir, Options{SyncEvery: time.Hour, fs: faulty{fails: full.Load}})
	create(t, s)
	m := model(t)
	w := vectordb.Write{Revisions: []vectordb.Revision{revision("a", 1, 3, dim)}, Checkpoint: map[int32]int64{0: 1}}
	apply(t, s, w)
	_ = m.Apply(t.Context(), "g", w)

	full.Store(true)
	w2 := vectordb.Write{Revisions: []vectordb.Revision{revision("a", 2, 3, dim), revision("b", 1, 3, dim)}, Checkpoint: map[int32]int64{0: 2}}
	for range 3 {
		if err := s.Apply(t.Context(), "g", w2); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%v, want ENOSPC", err)
		}
		same(t, s, m)
	}
	if got := applied(t, open(t, copyDir(t, dir), Options{})); got != 1 {
		t.Errorf("a crash while the disk is full leaves %d writes", got)
	}
	full.Store(false)
	apply(t, s, w2)
	_ = m.Apply(t.Context(), "g", w2)
	same(t, s, m)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, open(t, dir, Options{}), m)
}

// Every call may fail, in the background too. What was acknowledged stays, what failed did nothing, and it goes on when the disk does.
func TestFailingDisk(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := t.TempDir()
			var calls, enabled atomic.Int64
			fs := faulty{fails: func() bool {
				n := uint64(calls.Add(1)) * 0x9e3779b97f4a7c15
				return enabled.Load() != 0 && (n^seed*0xbf58476d1ce4e5b9)>>40%11 == 0
			}}
			o := Options{SyncEvery: time.Millisecond, SegmentEntries: 30, fs: fs, retryAfter: time.Millisecond}
			s, m := open(t, dir, o), model(t)
			create(t, s)
			enabled.Store(1)
			r := rand.New(rand.NewPCG(seed, 7))
			failures := 0
			for i := range 200 {
				w := randomWrite(r, i)
				if err := s.Apply(t.Context(), "g", w); err != nil {
					if !errors.Is(err, syscall.ENOSPC) {
						t.Fatal(err)
					}
					failures++
					continue
				}
				if err := m.Apply(t.Context(), "g", w); err != nil {
					t.Fatal(err)
				}
				if i%40 == 0 {
					same(t, s, m)
					copied := open(t, copyDir(t, dir), Options{NoSync: true})
					same(t, copied, m)
					copied.Close()
				}
			}
			same(t, s, m)
			enabled.Store(0)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			same(t, open(t, dir, Options{NoSync: true}), m)
			if failures == 0 {
				t.Error("no write failed")
			}
		})
	}
}

func TestReclaiming(t *testing.T) {
	dir := t.TempDir()
	o := Options{NoSync: true, SegmentEntries: 20, TombstoneRetention: time.Nanosecond}
	s := open(t, dir, o)
	create(t, s)
	g := s.generations["g"].g
	keys := []string{}
	for i := range 40 {
		keys = append(keys, fmt.Sprint("doc", i))
		apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{revision(keys[i], 1, 3, dim)}})
	}
	// One keeps an access list, which must outlive the document.
	apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{{Key: "doc7", Access: vectordb.Access{Version: 3, ACL: []string{"anna"}}}}})
	for _, key := range keys[:30] {
		apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{{Key: key, Version: 2, Deleted: true}}})
	}
	g.mu.Lock()
	err := g.rotate()
	g.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	settle(t, g)
	check := func(s *Store) {
		t.Helper()
		st, err := s.Stats(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		// One tombstone stays, and a share of dead entries that is not worth a merge.
		if st.Documents != 10 || st.Chunks != 30 || st.Reclaimable < 1 || st.Reclaimable > 1+13 {
			t.Errorf("%+v, want 10 documents, 30 chunks and little else", st)
		}
		got, err := s.Current(t.Context(), "g", keys)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range got {
			want := int64(0)
			if i >= 30 {
				want = 1
			} else if i == 7 {
				want = 2
			}
			if r.Version != want {
				t.Errorf("%s has version %d, want %d", r.Key, r.Version, want)
			}
		}
		if r := got[7]; !r.Deleted || r.Access.Version != 3 || len(r.Access.ACL) != 1 {
			t.Errorf("the access list of a deleted document is lost: %+v", r)
		}
	}
	check(s)
	files, _ := filepath.Glob(filepath.Join(dir, "g", "*.seg"))
	if len(files) != len(g.set.segments) {
		t.Errorf("%d segments, and the files %v", len(g.set.segments), files)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check(open(t, dir, o))
}

// Without its time being up a tombstone keeps an older version away, however often it is merged.
func TestTombstonesFence(t *testing.T) {
	dir := t.TempDir()
	o := Options{NoSync: true, SegmentEntries: 5}
	s := open(t, dir, o)
	create(t, s)
	apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{revision("a", 4, 1, dim), {Key: "gone", Version: 5, Deleted: true}}})
	for i := range 60 {
		apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{revision("a", int64(5+i), 3, dim)}})
		if i%20 == 19 {
			settle(t, s.generations["g"].g)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, o)
		}
	}
	apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{revision("gone", 4, 1, dim)}})
	got, err := s.Current(t.Context(), "g", []string{"gone"})
	if err != nil || !got[0].Deleted || got[0].Version != 5 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A reader that is in the middle of a search keeps what it reads, whatever happens to the generation.
func TestPinnedViewOutlivesDrop(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{NoSync: true, SegmentEntries: 10})
	create(t, s)
	for i := range 30 {
		apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{revision(fmt.Sprint("doc", i), 1, 3, dim)}})
	}
	g := s.generations["g"].g
	settle(t, g)
	r := rand.New(rand.NewPCG(1, 2))
	hits, err := s.Search(t.Context(), "g", vectordb.Query{Vector: unit(r, dim), Depth: 90, Fuse: func(dense, _ []vectordb.Candidate) []vectordb.Candidate {
		if err := s.Drop(context.Background(), "g"); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "g")); !os.IsNotExist(err) {
			t.Errorf("the directory is still there: %v", err)
		}
		if refs := g.set.segments[0].refs.Load(); refs == 0 {
			t.Error("a segment in use was unmapped")
		}
		return dense
	}})
	if err != nil || len(hits) != 90 {
		t.Fatalf("%d hits, %v", len(hits), err)
	}
	for _, seg := range g.set.segments {
		if refs := seg.refs.Load(); refs != 0 {
			t.Errorf("a dropped segment has %d references", refs)
		}
	}
	if _, err := s.Search(t.Context(), "g", vectordb.Query{Text: "x"}); !errors.Is(err, vectordb.ErrNoGeneration) {
		t.Errorf("%v, want ErrNoGeneration", err)
	}
	if err := s.Apply(t.Context(), "g", vectordb.Write{}); !errors.Is(err, vectordb.ErrNoGeneration) {
		t.Errorf("%v, want ErrNoGeneration", err)
	}
}

// noSegments is a disk on which no segment can be written, so that logs pile up.
type noSegments struct{ unsynced }

func (n noSegments) Open(name string, flag int) (file, error) {
	if strings.HasSuffix(name, ".seg.tmp") {
		return nil, syscall.ENOSPC
	}
	return n.unsynced.Open(name, flag)
}

func TestSeveralLogs(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{NoSync: true, SegmentEntries: 20, fs: noSegments{}, retryAfter: time.Millisecond})
	create(t, s)
	r := rand.New(rand.NewPCG(2, 3))
	m := model(t)
	full := false
	for i := range 200 {
		w := numbered(r, i)
		if err := s.Apply(t.Context(), "g", w); err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			full = true
			break
		}
		if err := m.Apply(t.Context(), "g", w); err != nil {
			t.Fatal(err)
		}
	}
	if !full {
		t.Fatal("memtables that can't be sealed pile up without bound")
	}
	same(t, s, m)
	copied := copyDir(t, dir)
	logs, _ := filepath.Glob(filepath.Join(copied, "g", "*.wal"))
	if len(logs) != maxFrozen+1 {
		t.Fatalf("%d logs", len(logs))
	}
	again := open(t, copied, Options{NoSync: true})
	same(t, again, m)
	settle(t, again.generations["g"].g)
	same(t, again, m)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, open(t, copied, Options{NoSync: true}), m)

	// A log that another one follows was safe, so it can't have lost anything.
	for _, name := range []string{filepath.Base(logs[0]), filepath.Base(logs[1])} {
		for _, how := range []string{"cut", "flipped", "removed"} {
			damaged := copyDir(t, dir)
			path := filepath.Join(damaged, "g", name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			switch how {
			case "cut":
				err = os.WriteFile(path, b[:len(b)-1], 0o644)
			case "flipped":
				b[len(b)-1] ^= 8
				err = os.WriteFile(path, b, 0o644)
			case "removed":
				err = os.Remove(path)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = open(t, damaged, Options{NoSync: true}).Stats(t.Context(), "g")
			if !errors.Is(err, vectordb.ErrCorrupt) {
				t.Errorf("%s %s: %v, want ErrCorrupt", name, how, err)
			}
		}
	}
}

// Postings of another analysis are made anew from the texts.
func TestOtherAnalysis(t *testing.T) {
	dir, list := built(t)
	segments, _ := filepath.Glob(filepath.Join(dir, "g", "*.seg"))
	counts, _ := filepath.Glob(filepath.Join(dir, "g", "*.counts"))
	for _, name := range append(segments, counts...) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".seg") {
			binary.LittleEndian.PutUint32(b[32:], vectordb.TermsVersion+1)
			at := binary.LittleEndian.Uint64(b[40+sectionPostings*sectionHeaderSize:])
			b[at] ^= 0xff // they must not even be looked at
			binary.LittleEndian.PutUint32(b[40+sectionPostings*sectionHeaderSize+16:], checksum(b[at:][:binary.LittleEndian.Uint64(b[40+sectionPostings*sectionHeaderSize+8:])]))
			binary.LittleEndian.PutUint32(b[segmentHeaderSize-4:], checksum(b[:segmentHeaderSize-4]))
		} else {
			binary.LittleEndian.PutUint32(b[12:], vectordb.TermsVersion+1)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if len(segments) == 0 || len(counts) == 0 {
		t.Fatal("there was nothing to change")
	}
	m := models(t, list)(len(list))
	s := open(t, dir, Options{NoSync: true})
	same(t, s, m)
	settle(t, s.generations["g"].g)
	for _, seg := range s.generations["g"].g.set.segments {
		if seg.stale {
			t.Error("the postings were not written anew")
		}
	}
	same(t, s, m)
}

// heard tells when a store has told of damage, and holds whoever told it until looked is closed.
type heard struct{ told, looked chan struct{} }

func (h heard) Enabled(context.Context, slog.Level) bool { return true }
func (h heard) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h heard) WithGroup(string) slog.Handler            { return h }
func (h heard) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "generation is damaged" {
		select {
		case h.told <- struct{}{}:
		default:
		}
		<-h.looked
	}
	return nil
}

// A big store opens before all of it was checked. Damage that is found later ends it, before anybody is told.
func TestDamageFoundLate(t *testing.T) {
	dir, _ := built(t)
	segments, _ := filepath.Glob(filepath.Join(dir, "g", "*.seg"))
	b, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	b[binary.LittleEndian.Uint64(b[40+sectionVectors*sectionHeaderSize:])] ^= 1
	if err := os.WriteFile(segments[0], b, 0o644); err != nil {
		t.Fatal(err)
	}
	h := heard{told: make(chan struct{}, 1), looked: make(chan struct{})}
	s := open(t, dir, Options{NoSync: true, verifyAtOnce: 1, Logger: slog.New(h)})
	select {
	case <-h.told:
	case <-time.After(time.Minute):
		t.Fatal("nothing was found")
	}
	for what, err := range map[string]error{
		"Apply":  s.Apply(t.Context(), "g", vectordb.Write{Checkpoint: map[int32]int64{0: 1000}}),
		"Scan":   func() error { _, err := s.Scan(t.Context(), "g", "", 1); return err }(),
		"Search": func() error { _, err := s.Search(t.Context(), "g", vectordb.Query{Text: "refund"}); return err }(),
	} {
		if !errors.Is(err, vectordb.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", what, err)
		}
	}
	close(h.looked)
	if err := s.Drop(t.Context(), "g"); err != nil {
		t.Error(err)
	}
}

// A merge must not give damaged bytes a new checksum.
func TestDamageIsNotMerged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{NoSync: true, SegmentEntries: 10})
	create(t, s)
	g := s.generations["g"].g
	for i := range 4 {
		apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{revision(fmt.Sprint("doc", i), 1, 10, dim)}})
		for g.frozen() > 0 {
			if err := g.seal(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if i > 0 {
			continue
		}
		segments, _ := filepath.Glob(filepath.Join(dir, "g", "*.seg"))
		f, err := os.OpenFile(segments[0], os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{1, 2, 3, 4}, int64(g.set.segments[0].table[sectionVectors].offset)); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for {
		did, err := g.merge(t.Context(), g.pick)
		if errors.Is(err, vectordb.ErrCorrupt) || g.failed.Load() != nil {
			break
		}
		if err != nil || !did {
			t.Fatalf("merged: %v, %v", did, err)
		}
	}
	if _, err := s.Scan(t.Context(), "g", "", 1); !errors.Is(err, vectordb.ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
}
