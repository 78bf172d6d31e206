package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/liverag/liverag/stream"
)

// witnessed makes a log of one partition in a directory, with a clean stop behind its first half, and as a kill leaves it behind the second. It returns what was acknowledged.
func witnessed(t *testing.T) (dir string, want []string) {
	t.Helper()
	dir = t.TempDir()
	for half := range 2 {
		e := openEmbedded(t, EmbeddedConfig{Dir: dir})
		l := openLog(t, Config{Embedded: e, Partitions: 1})
		for i := range 10 {
			id := fmt.Sprint(half*10 + i)
			if _, err := l.Append(t.Context(), upsert(id, "text "+id)); err != nil {
				t.Fatal(err)
			}
			want = append(want, id)
		}
		if err := l.Control().CompareAndSet(t.Context(), int64(half), fmt.Append(nil, "value ", half)); err != nil {
			t.Fatal(err)
		}
		if half == 1 {
			dir = copyOf(t, dir)
		}
		l.Close()
		e.Close()
	}
	return dir, want
}

func copyOf(t *testing.T, dir string) string {
	t.Helper()
	left := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return left
}

func ids(changes []stream.Change) (out []string) {
	for _, c := range changes {
		if c.Document == nil || c.Document.Text != "text "+c.ID {
			return []string{"a wrong text of " + c.ID}
		}
		out = append(out, c.ID)
	}
	return out
}

// reopened opens a copy of a log and reads it, or returns why it can't.
func reopened(t *testing.T, cfg EmbeddedConfig) (got []string, value string, err error) {
	t.Helper()
	cfg.Logger = logger(cfg.Logger)
	e, err := OpenEmbedded(cfg)
	if err != nil {
		return nil, "", err
	}
	defer e.Close()
	l, err := Open(t.Context(), Config{Embedded: e, Partitions: 1, Logger: quiet})
	if err != nil {
		return nil, "", err
	}
	defer l.Close()
	_, v, err := l.Control().Load(t.Context())
	return ids(readAll(t, l, stream.From{})), string(v), err
}

// TestADamagedLogIsNotBelieved damages each file of a log: everything that was acknowledged is read, or the log does not open and says why.
func TestADamagedLogIsNotBelieved(t *testing.T) {
	t.Parallel()
	whole, want := witnessed(t)
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	refused, recovered := map[string]int{}, map[string]int{}
	if err := filepath.WalkDir(whole, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(whole, path)
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, harm := range []struct {
			name string
			do   func(b []byte) []byte // nil: removed
		}{
			{"removed", func([]byte) []byte { return nil }},
			{"emptied", func(b []byte) []byte { return b[:0] }},
			{"cut", func(b []byte) []byte { return b[:r.IntN(max(1, len(b)))] }},
			{"flipped", func(b []byte) []byte {
				if len(b) > 0 {
					b[r.IntN(len(b))] ^= 1 << r.IntN(8)
				}
				return b
			}},
			{"flipped at its end", func(b []byte) []byte {
				if len(b) > 0 {
					b[len(b)-1-r.IntN(min(20, len(b)))] ^= 1 << r.IntN(8)
				}
				return b
			}},
			{"zeroed at its end", func(b []byte) []byte { clear(b[len(b)-min(len(b), 70):]); return b }},
		} {
			dir := copyOf(t, whole)
			b := harm.do(bytes.Clone(content))
			if b == nil && harm.name == "removed" {
				err = os.Remove(filepath.Join(dir, name))
			} else {
				err = os.WriteFile(filepath.Join(dir, name), b, 0o644)
			}
			if err != nil {
				return err
			}
			got, value, err := reopened(t, EmbeddedConfig{Dir: dir, Logger: quiet})
			switch {
			case errors.Is(err, ErrDamaged):
				refused[filepath.Ext(name)]++
				if !strings.Contains(err.Error(), filepath.Dir(name)) || !strings.Contains(err.Error(), "backup") {
					t.Errorf("%s %s: %v", name, harm.name, err)
				}
			case err != nil:
				t.Errorf("%s %s: %v", name, harm.name, err)
			case fmt.Sprint(got) != fmt.Sprint(want) || value != "value 1":
				t.Errorf("%s %s: %q and %q, want %q", name, harm.name, got, value, want)
			default:
				recovered[filepath.Ext(name)]++
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("refused %v, recovered %v", refused, recovered)
	if refused[".dat"] == 0 || recovered[".idx"] == 0 || recovered[".json"] == 0 {
		t.Error("not every kind of file was there")
	}
}

// TestATornTailIsNoDamage: what nobody was told of may be cut off, also when the note of what was acknowledged is older than the log, or half of it is torn.
func TestATornTailIsNoDamage(t *testing.T) {
	t.Parallel()
	whole, want := witnessed(t)
	segment := filepath.Join("log", "partitions", "documents-0", "0.dat")
	records, err := os.ReadFile(filepath.Join(whole, segment))
	if err != nil {
		t.Fatal(err)
	}
	first := binary.BigEndian.Uint32(records[8:]) + 12
	next := bytes.Clone(records[:first])
	binary.BigEndian.PutUint64(next, 20) // a whole batch that follows
	misplaced := bytes.Clone(records[:first])
	binary.BigEndian.PutUint64(misplaced, 77)
	for name, tail := range map[string][]byte{"half a batch": next[:len(next)/2], "zeros": make([]byte, 500), "a batch of another place": misplaced, "a byte": {1}} {
		dir := copyOf(t, whole)
		if err := os.WriteFile(filepath.Join(dir, segment), append(bytes.Clone(records), tail...), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, _, err := reopened(t, EmbeddedConfig{Dir: dir, Logger: quiet}); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s behind the last batch: %q, %v", name, got, err)
		}
	}
	// Two of the three slots may be lost with the power.
	for kept := range endsSlots {
		dir := copyOf(t, whole)
		b, err := os.ReadFile(filepath.Join(dir, endsName))
		if err != nil {
			t.Fatal(err)
		}
		for slot := range endsSlots {
			if at := slot * endsSlot; slot != kept && at < len(b) {
				clear(b[at+30 : min(len(b), at+60)])
			}
		}
		if err := os.WriteFile(filepath.Join(dir, endsName), b, 0o644); err != nil {
			t.Fatal(err)
		}
		if ends, _ := readEnds(dir); ends == nil || ends["documents-0"] > 20 {
			t.Errorf("slot %d alone says %v", kept, ends)
		}
		if got, _, err := reopened(t, EmbeddedConfig{Dir: dir, Logger: quiet}); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("slot %d alone: %q, %v", kept, got, err)
		}
	}
}

// TestARefusedLogIsLeftAsItIs: what is damaged may be all that is left of an acknowledged record, and is what somebody will want to look at.
func TestARefusedLogIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	dir, _ := witnessed(t)
	segment := filepath.Join(dir, "log", "partitions", "documents-0", "0.dat")
	b, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-3] ^= 4 // in the last batch, which was acknowledged
	if err := os.WriteFile(segment, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := reopened(t, EmbeddedConfig{Dir: dir, Logger: quiet}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), segment) {
			t.Fatalf("got %v", err)
		}
	}
	if now, err := os.ReadFile(segment); err != nil || !bytes.Equal(now, b) {
		t.Errorf("of %d bytes %d are left, %v", len(b), len(now), err)
	}
}

// TestALossIsAcceptedOnlyWithoutAnIndex: while the index of a damaged log is there it stays refused; without it the log goes on with everything that is intact, and tells.
func TestALossIsAcceptedOnlyWithoutAnIndex(t *testing.T) {
	t.Parallel()
	dir, want := witnessed(t)
	index := t.TempDir()
	segment := filepath.Join(dir, "log", "partitions", "documents-0", "0.dat")
	b, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	at := 0 // of the fourth batch
	for range 3 {
		at += int(binary.BigEndian.Uint32(b[at+8:])) + 12
	}
	b[at+80] ^= 4
	if err := os.WriteFile(segment, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, _, err := reopened(t, EmbeddedConfig{Dir: dir, Index: index, Logger: quiet})
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), segment) || !strings.Contains(err.Error(), "delete "+index) {
			t.Fatalf("got %v", err)
		}
	}
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	got, value, err := reopened(t, EmbeddedConfig{Dir: dir, Index: index, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(append(append([]string{}, want[:3]...), want[4:]...)) || value != "value 1" {
		t.Errorf("without an index: %q, %q, %v", got, value, err)
	}
	if !strings.Contains(said.String(), "lost") || !strings.Contains(said.String(), segment) {
		t.Errorf("it says\n%s", &said)
	}
	if _, err := os.Stat(segment + ".damaged"); err != nil {
		t.Errorf("the damaged file is not kept: %v", err)
	}
	if err := os.Mkdir(index, 0o755); err != nil {
		t.Fatal(err)
	}
	if again, _, err := reopened(t, EmbeddedConfig{Dir: dir, Index: index, Logger: quiet}); err != nil || len(again) != len(got) {
		t.Errorf("what was accepted once: %q, %v", again, err)
	}
}

// TestTheWitnessKnowsACompactedLog: after a compaction, which leaves gaps, damage is found as before, and so it is when the compaction was cut off.
func TestTheWitnessKnowsACompactedLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for range 2 {
		e := openEmbedded(t, EmbeddedConfig{Dir: dir})
		l := openLog(t, Config{Embedded: e, Partitions: 1})
		for i := range 20 {
			if _, err := l.Append(t.Context(), upsert(fmt.Sprint(i%5), "text "+fmt.Sprint(i%5))); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.CompactNext(); err != nil {
			t.Fatal(err)
		}
		l.Close()
		e.Close()
		e = openEmbedded(t, EmbeddedConfig{Dir: dir})
		l = openLog(t, Config{Embedded: e, Partitions: 1})
		if _, err := l.Append(t.Context(), upsert("last", "text last")); err != nil {
			t.Fatal(err)
		}
		killed := copyOf(t, dir)
		l.Close()
		e.Close()
		for _, left := range []string{dir, killed} {
			got, _, err := reopened(t, EmbeddedConfig{Dir: copyOf(t, left), Logger: quiet})
			if err != nil || len(got) < 6 || len(got) > 12 {
				t.Errorf("after a compaction: %q, %v", got, err)
			}
			hurt := copyOf(t, left)
			segment := filepath.Join(hurt, "log", "partitions", "documents-0", "0.dat")
			if found, _ := filepath.Glob(filepath.Join(filepath.Dir(segment), "*.dat")); len(found) == 1 {
				segment = found[0]
			} else {
				t.Fatalf("segments %q", found)
			}
			b, err := os.ReadFile(segment)
			if err != nil {
				t.Fatal(err)
			}
			b[7] ^= 1 // of an offset, which the batch's own checksum does not cover
			if err := os.WriteFile(segment, b, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, _, err := reopened(t, EmbeddedConfig{Dir: hurt, Logger: quiet}); !errors.Is(err, ErrDamaged) {
				t.Errorf("an offset was changed: %v", err)
			}
		}
		unknown := copyOf(t, killed) // as between the two halves of taking the new files' place
		if err := os.Remove(filepath.Join(unknown, witnessName)); err != nil {
			t.Fatal(err)
		}
		if got, _, err := reopened(t, EmbeddedConfig{Dir: unknown, Logger: quiet}); err != nil || len(got) < 6 {
			t.Errorf("of a log with gaps that nothing is known of: %q, %v", got, err)
		}
	}
}

// TestWhatIsAcknowledgedIsNoted: the note is there before the caller hears of the append.
func TestWhatIsAcknowledgedIsNoted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openLog(t, Config{Embedded: openEmbedded(t, EmbeddedConfig{Dir: dir})})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i := range 200 {
		receipt, err := l.Append(ctx, upsert(fmt.Sprint(i), "x"))
		if err != nil {
			t.Fatal(err)
		}
		at := receipt.Positions[0]
		if ends, _ := readEnds(dir); ends[partitionDir("documents", at.Partition)] != at.Offset+1 {
			t.Fatalf("after %+v the note says %v", at, ends)
		}
	}
}
