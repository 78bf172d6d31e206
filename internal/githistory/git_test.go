package githistory_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/liverag/liverag/internal/githistory"
)

// isolate keeps the machine's git settings out of a test.
func isolate(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("there is no git here")
	}
	home := t.TempDir()
	for name, value := range map[string]string{
		"HOME": home, "XDG_CONFIG_HOME": home, "GIT_CONFIG_GLOBAL": filepath.Join(home, "config"), "GIT_CONFIG_NOSYSTEM": "1",
		"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
	} {
		t.Setenv(name, value)
	}
}

// work is a work tree that a test makes commits in, one minute apart.
type work struct {
	t    testing.TB
	dir  string
	date int64
}

func newWork(t testing.TB, args ...string) *work {
	t.Helper()
	isolate(t)
	w := &work{t: t, dir: t.TempDir(), date: 1_600_000_000}
	w.git(append([]string{"init", "-q", "-b", "main"}, args...)...)
	return w
}

func (w *work) git(args ...string) string {
	w.t.Helper()
	return strings.TrimSuffix(w.input("", args...), "\n")
}

func (w *work) input(stdin string, args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = w.dir
	stamp := fmt.Sprintf("%d +0000", w.date)
	cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE="+stamp, "GIT_AUTHOR_DATE="+stamp)
	cmd.Stdin = strings.NewReader(stdin)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("git %q: %v: %s", args, err, said.String())
	}
	return string(out)
}

func (w *work) write(name, content string) {
	w.t.Helper()
	full := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *work) remove(name string) {
	w.t.Helper()
	if err := os.RemoveAll(filepath.Join(w.dir, name)); err != nil {
		w.t.Fatal(err)
	}
}

// commit commits everything and returns the hash.
func (w *work) commit() string {
	w.t.Helper()
	w.date += 60
	w.git("add", "-A")
	w.git("commit", "-q", "--allow-empty", "-m", "x")
	return w.git("rev-parse", "HEAD")
}

func (w *work) open() *githistory.Repository {
	w.t.Helper()
	return open(w.t, w.dir)
}

func open(t testing.TB, dir string) *githistory.Repository {
	t.Helper()
	r, err := githistory.Open(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// apply makes the changes to a copy of the files.
func apply(files map[string]string, c githistory.Change) {
	switch c.Kind {
	case githistory.Renamed:
		delete(files, c.From)
		files[c.Path] = string(c.Content)
	case githistory.Added, githistory.Modified:
		files[c.Path] = string(c.Content)
	case githistory.Removed:
		delete(files, c.Path)
	}
}

// markdown selects as an import would.
func markdown(path string) bool { return strings.HasSuffix(path, ".md") }

// spell writes a change as a short line; commits are numbered from 1 by their end.
func spell(c githistory.Change) string {
	switch c.Kind {
	case githistory.Added:
		return fmt.Sprintf("A %s %q", c.Path, c.Content)
	case githistory.Modified:
		return fmt.Sprintf("M %s %q", c.Path, c.Content)
	case githistory.Renamed:
		return fmt.Sprintf("R %s %s %q", c.From, c.Path, c.Content)
	case githistory.Removed:
		return fmt.Sprintf("D %s %d", c.Path, c.Reason)
	case githistory.LeftOut:
		return fmt.Sprintf("- %s %d", c.Path, c.Reason)
	case githistory.Complete:
		return "."
	}
	return "?"
}

// head reads the selected text files of a commit by other means than ours.
func (w *work) head(commit, folder string, selects func(string) bool) map[string]string {
	w.t.Helper()
	files := map[string]string{}
	for archive := tar.NewReader(strings.NewReader(w.input("", "archive", "--format=tar", commit))); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			w.t.Fatal(err)
		}
		rel, below := strings.CutPrefix(h.Name, folder)
		if !below || h.Typeflag != tar.TypeReg || selects != nil && !selects(rel) {
			continue
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			w.t.Fatal(err)
		}
		if !bytes.ContainsRune(content, 0) && utf8.Valid(content) {
			files[rel] = string(content)
		}
	}
}

func equalFiles(t testing.TB, got, want map[string]string) {
	t.Helper()
	for path, content := range want {
		if have, ok := got[path]; !ok || have != content {
			t.Errorf("%q is %.80q, want %.80q", path, have, content)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%q is too much", path)
		}
	}
}

func equalLines(t testing.TB, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
