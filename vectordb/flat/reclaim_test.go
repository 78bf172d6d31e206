package flat

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/liverag/liverag/vectordb"
)

// TestReclaim: what was deleted or replaced is off the disk, whether it was in a log or in a segment, and all else is as it was.
func TestReclaim(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{SegmentEntries: 64, SealIdle: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Create(t.Context(), about); err != nil {
		t.Fatal(err)
	}
	g, err := s.generation(t.Context(), about.Name)
	if err != nil {
		t.Fatal(err)
	}
	apply := func(revs ...vectordb.Revision) {
		t.Helper()
		if err := s.Apply(t.Context(), about.Name, vectordb.Write{Revisions: revs}); err != nil {
			t.Fatal(err)
		}
	}
	// marked has a title that nothing else has; titles stand in the files as they are.
	marked := func(key string, version int64, mark string) vectordb.Revision {
		r := revision(key, version, 2, dim)
		r.Title = mark
		return r
	}
	holds := func(mark string) (found bool) {
		t.Helper()
		look := func() error {
			found = false
			return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				content, err := os.ReadFile(path)
				found = found || bytes.Contains(content, []byte(mark))
				return err
			})
		}
		// A file may be renamed or removed under the walk, by a merge of segments: then all of it is walked again, since its content may be where the walk has been.
		err := look()
		for again := 0; again < 100 && errors.Is(err, fs.ErrNotExist); again++ {
			err = look()
		}
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	fill := func(from int) {
		for i := range 200 {
			apply(revision(fmt.Sprint("doc", from+i), 1, 1, dim))
		}
	}
	apply(marked("sealed", 1, "mark of the sealed one"), marked("edited", 1, "mark of the first edit"), marked("stays", 1, "mark of what stays"))
	fill(0)
	for g.frozen() > 0 {
		if err := g.seal(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(g.view.Load().set.segments) == 0 {
		t.Fatal("nothing is in a segment")
	}
	gone := func(key string, version int64) vectordb.Revision {
		return vectordb.Revision{Key: key, Version: version, Deleted: true}
	}
	apply(marked("logged", 1, "mark of the logged one"), marked("edited", 2, "mark of the second edit"))
	apply(gone("sealed", 2), gone("logged", 2))
	before := everything(t, s)
	goners := []string{"mark of the sealed one", "mark of the logged one", "mark of the first edit"}
	stayers := []string{"mark of what stays", "mark of the second edit"}
	for _, mark := range append(goners, stayers...) {
		if !holds(mark) {
			t.Fatalf("%q is not on the disk as it was written, so this test would see nothing", mark)
		}
	}
	if err := s.Reclaim(t.Context(), about.Name, "sealed", "logged", "edited", "never"); err != nil {
		t.Fatal(err)
	}
	for _, mark := range goners {
		if holds(mark) {
			t.Errorf("%q is still on the disk", mark)
		}
	}
	for _, mark := range stayers {
		if !holds(mark) {
			t.Errorf("%q is gone", mark)
		}
	}
	same := func(when string) {
		t.Helper()
		if after := everything(t, s); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("%s the store holds something else", when)
		}
	}
	same("afterwards")
	if err := s.Reclaim(t.Context(), about.Name, "sealed"); err != nil { // nothing to do
		t.Fatal(err)
	}
	if err := s.Reclaim(t.Context(), "none", "sealed"); err == nil {
		t.Error("reclaimed in a generation that there is not")
	}
	apply(revision("later", 1, 1, dim))
	before = everything(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	same("opened again")
	for _, mark := range goners {
		if holds(mark) {
			t.Errorf("%q is back", mark)
		}
	}
}
