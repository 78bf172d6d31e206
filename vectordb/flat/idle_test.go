package flat

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/liverag/liverag/vectordb"
)

func TestIdleMemtableBecomesASegment(t *testing.T) {
	s, err := Open(t.TempDir(), Options{NoSync: true, SegmentEntries: 80, SealIdle: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Create(t.Context(), about); err != nil {
		t.Fatal(err)
	}
	write := func(from, to int) {
		t.Helper()
		var w vectordb.Write
		for i := from; i < to; i++ {
			w.Revisions = append(w.Revisions, revision(fmt.Sprint("doc", i), 1, 1, dim))
		}
		if err := s.Apply(t.Context(), about.Name, w); err != nil {
			t.Fatal(err)
		}
	}
	g := s.generations[about.Name].g
	shape := func() (segments, memory int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.set.segments), len(g.active.entries) + len(g.set.tables)
	}
	// A handful of entries is not worth a file.
	write(0, 9)
	last := g.freezeIdle(0)
	if g.freezeIdle(last); len(g.active.entries) != 9 {
		t.Fatalf("the memtable holds %d entries, want the 9 that were written", len(g.active.entries))
	}
	table := weak.Make(g.active)
	write(9, 12)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if segments, memory := shape(); segments == 1 && memory == 0 {
			break
		}
		if time.Now().After(end) {
			segments, memory := shape()
			t.Fatalf("after 10 s without a write there are %d segments, and %d entries in memory", segments, memory)
		}
	}
	revs, err := s.Current(t.Context(), about.Name, []string{"doc0", "doc11"})
	if err != nil || len(revs[0].Entries) != 1 || len(revs[1].Entries) != 1 {
		t.Errorf("sealed, the documents are %+v, %v", revs, err)
	}
	if runtime.GC(); table.Value() != nil {
		t.Error("sealed, the memtable still takes memory")
	}
}
