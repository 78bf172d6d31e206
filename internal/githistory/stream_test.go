package githistory_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/liverag/liverag/internal/githistory"
)

// record is one change of a recorded stream.
type record struct {
	TS      time.Time `json:"ts"`
	Commit  string    `json:"commit"`
	Op      string    `json:"op"`
	Key     string    `json:"key"`
	OldKey  string    `json:"old_key"`
	Content string    `json:"content"`
}

// recorded reads the recorded stream of a real repository's documentation.
func recorded(t testing.TB) []record {
	t.Helper()
	shared := os.Getenv("LIVERAG_SHARED")
	if shared == "" {
		t.Skip("LIVERAG_SHARED is not set: the recorded history is not here")
	}
	f, err := os.Open(filepath.Join(shared, "data/streams/docs-stream-a/changes.jsonl.gz"))
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var out []record
	for dec := json.NewDecoder(z); ; {
		var r record
		if err := dec.Decode(&r); err == io.EOF {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
}

// rebuild makes a bare repository whose history is the records', a commit for each of theirs.
func rebuild(t testing.TB, records []record) (dir string) {
	t.Helper()
	isolate(t)
	dir = t.TempDir()
	if out, err := exec.Command("git", "init", "-q", "--bare", "-b", "main", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command("git", "-C", dir, "fast-import", "--quiet")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(in)
	for i, r := range records {
		if i == 0 || records[i-1].Commit != r.Commit {
			fmt.Fprintf(w, "commit refs/heads/main\ncommitter a <a@b> %d +0000\ndata %d\n%s\n", r.TS.Unix(), len(r.Commit), r.Commit)
		}
		switch r.Op {
		case "delete":
			fmt.Fprintf(w, "D %s\n", r.Key)
			continue
		case "rename":
			fmt.Fprintf(w, "D %s\n", r.OldKey)
		}
		fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", r.Key, len(r.Content), r.Content)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRecordedHistory holds the changes of a real documentation repository to a recording of them, and their end to its last commit.
func TestRecordedHistory(t *testing.T) {
	records := recorded(t)
	dir := rebuild(t, records)
	r := open(t, dir)
	// The recording has a change of a file's mode as a modification. There is nothing to send for it.
	silent, texts := make([]bool, len(records)), map[string]string{}
	for i, r := range records {
		before, ok := texts[r.Key]
		silent[i] = ok && r.Op == "modify" && before == r.Content
		texts[r.Key] = r.Content
	}
	files, n, commits := map[string]string{}, 0, 0
	ops := map[githistory.Kind]string{githistory.Added: "add", githistory.Modified: "modify", githistory.Renamed: "rename", githistory.Removed: "delete"}
	for c, err := range r.History(t.Context(), "", "main", githistory.Options{Select: markdown}) {
		if err != nil {
			t.Fatal(err)
		}
		apply(files, c)
		if c.Kind == githistory.Complete {
			commits++
			continue
		}
		for n < len(records) && silent[n] {
			n++
		}
		if n == len(records) {
			t.Fatalf("more than %d changes: %s", n, spell(c))
		}
		want := records[n]
		if ops[c.Kind] != want.Op || c.Path != want.Key || c.From != want.OldKey || string(c.Content) != want.Content || !c.Commit.Time.Equal(want.TS) {
			t.Errorf("change %d is %s %s (from %q) at %s, want %s %s (from %q) at %s", n, ops[c.Kind], c.Path, c.From, c.Commit.Time, want.Op, want.Key, want.OldKey, want.TS)
		}
		n++
	}
	steps := 0
	for i := range records {
		if i == 0 || records[i-1].Commit != records[i].Commit {
			steps++
		}
	}
	if n != len(records) || commits != steps {
		t.Errorf("%d of %d changes in %d commits, want %d", n, len(records), commits, steps)
	}
	w := &work{t: t, dir: dir}
	want := w.head("main", "", nil)
	equalFiles(t, files, want)

	// The state alone, and a short history, end alike.
	for name, changes := range map[string]func(func(githistory.Change, error) bool){
		"state":  r.State(t.Context(), "main", githistory.Options{}, nil),
		"recent": r.Recent(t.Context(), "main", 100, githistory.Options{}),
	} {
		files, last := map[string]string{}, ""
		for c, err := range changes {
			if err != nil {
				t.Fatal(name, err)
			}
			apply(files, c)
			last = spell(c)
		}
		if equalFiles(t, files, want); last != "." {
			t.Errorf("%s ends with %s", name, last)
		}
	}
}

func BenchmarkHistory(b *testing.B) {
	r := open(b, rebuild(b, recorded(b)))
	changes, bytes := 0, 0
	for b.Loop() {
		for c, err := range r.History(b.Context(), "", "main", githistory.Options{Select: markdown, MaxBytes: 8 << 20}) {
			if err != nil {
				b.Fatal(err)
			}
			if c.Kind != githistory.Complete {
				changes++
				bytes += len(c.Content)
			}
		}
	}
	b.ReportMetric(float64(changes)/b.Elapsed().Seconds(), "changes/s")
	b.ReportMetric(float64(bytes)/1e6/b.Elapsed().Seconds(), "MB/s")
}
