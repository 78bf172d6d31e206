package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
)

// repo is a repository that a test makes commits in, one minute apart.
type repo struct {
	t    testing.TB
	dir  string
	date int64
}

func newRepo(t testing.TB) *repo {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("there is no git here")
	}
	r := &repo{t: t, dir: t.TempDir(), date: 1_600_000_000}
	r.git("init", "-q", "-b", "main")
	return r
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	stamp := fmt.Sprintf("%d +0000", r.date)
	cmd.Env = append(cleanEnviron(), "HOME="+r.dir, "XDG_CONFIG_HOME="+r.dir, "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_COMMITTER_DATE="+stamp, "GIT_AUTHOR_DATE="+stamp,
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %q: %v: %s", args, err, said.String())
	}
	return strings.TrimSuffix(string(out), "\n")
}

// commit writes files, removes those whose content is "-", and commits everything.
func (r *repo) commit(files map[string]string) string {
	r.t.Helper()
	for name, content := range files {
		full := filepath.Join(r.dir, name)
		if content == "-" {
			if err := os.RemoveAll(full); err != nil {
				r.t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	r.date += 60
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", "x")
	return r.git("rev-parse", "HEAD")
}

// files are the texts of a commit, read by other means than ours.
func (r *repo) files(commit string, selects func(string) bool) map[string]string {
	r.t.Helper()
	files := map[string]string{}
	for archive := tar.NewReader(strings.NewReader(r.git("archive", "--format=tar", commit) + "\n")); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			r.t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && selects(h.Name) {
			content, err := io.ReadAll(archive)
			if err != nil {
				r.t.Fatal(err)
			}
			files[h.Name] = string(content)
		}
	}
}

func isMarkdown(name string) bool { return strings.HasSuffix(name, ".md") }

// keeper is a fake server that keeps documents, as a real one would.
type keeper struct {
	*fakeServer
	mu   sync.Mutex
	docs map[string]line
	// changes are all that came, a line each: + for a document with its text, - for a deletion; with a ! if it was no history.
	changes []string
	log     int // of which incarnation the tokens are
	// refuse may answer a write instead; 0 takes it.
	refuse func() (int, string)
}

func newKeeper(t *testing.T) *keeper {
	k := &keeper{docs: map[string]line{}}
	k.fakeServer = newServer(t, func(r request) (int, string) {
		k.mu.Lock()
		defer k.mu.Unlock()
		<-k.requests // nobody takes them
		switch id, _ := url.PathUnescape(strings.TrimPrefix(r.path, "/documents/")); {
		case r.method == "GET":
			if _, ok := k.docs[id]; !ok {
				return 404, `{"code":"not_found","detail":"no"}`
			}
			return 200, `{}`
		case r.path == "/retrieve":
			if !strings.Contains(r.body, fmt.Sprintf(`"after":"log%d"`, k.log)) {
				return 409, `{"code":"token_unknown","detail":"another log"}`
			}
			return 200, `{"hits":[],"freshness":{"satisfied":true}}`
		}
		if k.refuse != nil {
			if status, body := k.refuse(); status != 0 {
				return status, body
			}
		}
		for _, l := range linesOf(t, r.body) {
			mark := "!"
			if r.backfill {
				mark = ""
			}
			if l.Deleted {
				k.changes = append(k.changes, mark+"-"+l.ID)
				delete(k.docs, l.ID)
			} else {
				k.changes = append(k.changes, mark+"+"+l.ID+" "+l.Text)
				k.docs[l.ID] = l
			}
		}
		return 202, fmt.Sprintf(`{"accepted":%d,"rejected":[],"token":"log%d"}`, strings.Count(r.body, "\n"), k.log)
	})
	return k
}

// took returns the changes since it was asked last.
func (k *keeper) took() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := k.changes
	k.changes = nil
	return out
}

func (k *keeper) texts() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]string{}
	for id, l := range k.docs {
		out[id] = l.Text
	}
	return out
}

func (k *keeper) expect(t testing.TB, what string, want ...string) {
	t.Helper()
	if got := k.took(); !slices.Equal(got, want) {
		t.Errorf("%s: got\n  %s\nwant\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func equalTexts(t testing.TB, what string, got, want map[string]string) {
	t.Helper()
	for id, text := range want {
		if have, ok := got[id]; !ok || have != text {
			t.Errorf("%s: %s is %.60q, want %.60q", what, id, have, text)
		}
	}
	for id := range got {
		if _, ok := want[id]; !ok {
			t.Errorf("%s: %s is too much", what, id)
		}
	}
}

// importing runs the verb on a repository with a data directory of its own.
type importing struct {
	*keeper
	*repo
	t    *testing.T
	data string
}

func newImporting(t *testing.T) *importing {
	t.Helper()
	return &importing{newKeeper(t), newRepo(t), t, t.TempDir()}
}

func (i *importing) run(args ...string) outcome {
	i.t.Helper()
	return invoke(i.t, nil, "", append([]string{"import", "--git", i.dir, "--server", i.URL, "--data", i.data}, args...)...)
}

// good is run for an import that must succeed.
func (i *importing) good(args ...string) string {
	i.t.Helper()
	got := i.run(args...)
	if got.code != exitDone {
		i.t.Fatalf("%q: %+v", args, got)
	}
	return got.out + got.err
}

func TestImportGit(t *testing.T) {
	t.Parallel()
	i := newImporting(t)
	first := i.commit(map[string]string{"README.md": "# One\r\n", "guide/page.html": "<title>T</title><p>x", "notes.txt": "n", "logo.png": "x", "drafts/d.md": "draft", ".hidden/x.md": "h", "main.go": "package p"})
	i.commit(map[string]string{"README.md": "# Two\n", "logo.png": "y", "bin.md": "a\x00", "huge.md": strings.Repeat("x", 2000), "new\nline.md": "control"})
	if err := os.Symlink("README.md", filepath.Join(i.dir, "link.md")); err != nil {
		t.Skip(err)
	}
	i.git("mv", "guide", "manual")
	i.git("update-index", "--add", "--cacheinfo", "160000,"+first+",sub")
	i.date += 60
	i.git("add", "link.md")
	i.git("commit", "-q", "-m", "x")
	head := i.git("rev-parse", "HEAD")
	args := []string{"--prefix", "kb/", "--exclude", "drafts/**", "--documents.max_bytes", "1KiB", "--json"}
	var result importResult
	if err := json.Unmarshal([]byte(i.run(args...).out), &result); err != nil {
		t.Fatal(err)
	}
	i.expect(t, "the history", "+kb/README.md # One\r\n", "+kb/guide/page.html <title>T</title><p>x", "+kb/notes.txt n", "+kb/README.md # Two\n",
		"+kb/manual/page.html <title>T</title><p>x", "-kb/guide/page.html")
	skipped := map[string]int{}
	for _, one := range result.Skipped {
		skipped[one.Reason] = one.Count
	}
	want := map[string]int{skipHidden: 1, skipExcluded: 1, skipImage: 1, skipKind: 1, skipBinary: 1, skipTooLarge: 1, skipID: 1, skipSymlink: 1, skipSubmodule: 1}
	if fmt.Sprint(skipped) != fmt.Sprint(want) || result.Accepted != 6 || result.Commits != 3 || result.Commit != head {
		t.Errorf("left out %v, want %v, in %+v", skipped, want, result)
	}
	page, readme := i.docs["kb/manual/page.html"], i.docs["kb/README.md"]
	if page.Title != "T" || page.ContentType != stream.TextHTML || page.Metadata["commit"] != head || page.Metadata["path"] != "manual/page.html" || !page.UpdatedAt.Equal(time.Unix(i.date, 0)) {
		t.Errorf("%+v", page)
	}
	if readme.Title != "Two" || readme.ContentType != stream.TextMarkdown || !readme.UpdatedAt.Equal(time.Unix(i.date-60, 0)) {
		t.Errorf("%+v", readme)
	}

	if out := i.good(args...); !strings.Contains(out, `"accepted":0`) || !strings.Contains(out, head) {
		t.Errorf("once more: %s", out)
	}
	if out := i.good(args[:len(args)-1]...); out != fmt.Sprintf("nothing new: everything up to commit %.12s has been imported\n", head) {
		t.Errorf("once more: %s", out)
	}
	i.expect(t, "once more")
	// What is not committed is not seen; what becomes no text is deleted.
	i.commit(map[string]string{"notes.txt": "caf\xe9", "README.md": "# Three"})
	put(t, filepath.Join(i.dir, "README.md"), "not committed")
	if out := i.good(args[:len(args)-1]...); !strings.HasPrefix(out, "imported 2 changes of 1 commit in ") || !strings.Contains(out, "left out 1 not valid UTF-8: notes.txt\n") {
		t.Errorf("%s", out)
	}
	i.expect(t, "one commit more", "+kb/README.md # Three", "-kb/notes.txt")
}

// TestImportGitAgreesWithFolder: the history's end is what an import of the clean work tree makes.
func TestImportGitAgreesWithFolder(t *testing.T) {
	t.Parallel()
	i := newImporting(t)
	i.commit(map[string]string{"docs/a.md": "# A", "docs/deep/b.html": "<h1>B</h1>", "docs/.x/c.md": "c", "other.md": "o", "docs/e.md~": "e", "docs/skip/f.md": "f"})
	i.commit(map[string]string{"docs/a.md": "# A2", "docs/g.txt": "g", "docs/skip/f.md": "-"})
	docs := filepath.Join(i.dir, "docs")
	folder := newKeeper(t)
	if got := invoke(t, nil, "", "import", docs, "--server", folder.URL, "--exclude", "deep"); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	if got := invoke(t, nil, "", "import", docs, "--git", "--server", i.URL, "--data", i.data, "--exclude", "deep"); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	if len(folder.docs) != 2 {
		t.Errorf("%v", folder.docs)
	}
	equalTexts(t, "history and folder", i.texts(), folder.texts())
	for id, l := range folder.docs {
		if have := i.docs[id]; have.Title != l.Title || have.ContentType != l.ContentType || have.Metadata["path"] != "docs/"+id {
			t.Errorf("%s is %+v, in the folder %+v", id, have, l)
		}
	}
	// A folder that is in the index already: no old text replaces a new one.
	if got := invoke(t, nil, "", "import", docs, "--git", "--server", folder.URL, "--data", t.TempDir()); got.code != exitDone || !strings.Contains(got.err, "the index holds files of this repository already") {
		t.Errorf("%+v", got)
	}
	for _, change := range folder.took() {
		if change == "+a.md # A" || strings.Contains(change, "skip") {
			t.Errorf("%s", change)
		}
	}
	equalTexts(t, "a folder that was there", folder.texts(), map[string]string{"a.md": "# A2", "deep/b.html": "<h1>B</h1>", "g.txt": "g"})
}

// TestImportGitAgain: every way in which a second import finds the repository, the server or itself changed. The documents must end as what is
// committed, and must not go back to what they were on the way.
func TestImportGitAgain(t *testing.T) {
	t.Parallel()
	// Each begins after an import of three commits; base, where three files were written, is the first of them.
	begin := func(t *testing.T) (i *importing, base string) {
		t.Parallel()
		i = newImporting(t)
		base = i.commit(map[string]string{"a.md": "a1", "b.md": "b1", "code.go": "go1"})
		i.commit(map[string]string{"a.md": "a2"})
		i.commit(map[string]string{"a.md": "a3", "c.md": "c3"})
		i.good()
		i.expect(t, "the first import", "+a.md a1", "+b.md b1", "+a.md a2", "+a.md a3", "+c.md c3")
		return i, base
	}
	ends := func(t *testing.T, i *importing) {
		t.Helper()
		equalTexts(t, "in the end", i.texts(), i.files("HEAD", isMarkdown))
		i.took()
		if out := i.good(); !strings.Contains(out, "nothing new") {
			t.Errorf("once more: %s", out)
		}
	}
	t.Run("amended", func(t *testing.T) {
		i, _ := begin(t)
		i.git("commit", "-q", "--amend", "-m", "y")
		i.commit(map[string]string{"b.md": "b4", "c.md": "-"})
		i.good()
		i.expect(t, "the difference", "+b.md b4", "-c.md")
		ends(t, i)
	})
	t.Run("reset", func(t *testing.T) {
		i, base := begin(t)
		i.git("reset", "-q", "--hard", base)
		i.good()
		i.expect(t, "back", "+a.md a1", "-c.md")
		ends(t, i)
	})
	t.Run("another branch", func(t *testing.T) {
		i, base := begin(t)
		i.git("checkout", "-q", "-b", "side", base)
		i.commit(map[string]string{"b.md": "side"})
		i.git("checkout", "-q", "main")
		if out := i.good(); !strings.Contains(out, "nothing new") {
			t.Error(out)
		}
		i.good("--branch", "side")
		i.expect(t, "the other branch", "+a.md a1", "+b.md side", "-c.md")
		i.good("--branch", "main")
		i.expect(t, "and back", "+a.md a3", "+b.md b1", "+c.md c3")
		ends(t, i)
	})
	t.Run("merged elsewhere", func(t *testing.T) {
		i, base := begin(t)
		i.git("checkout", "-q", "-b", "theirs", base)
		i.commit(map[string]string{"b.md": "theirs"})
		i.git("merge", "-q", "-s", "ours", "--no-ff", "-m", "m", "main") // keeps nothing of what was imported
		i.good()
		i.expect(t, "the difference", "+a.md a1", "+b.md theirs", "-c.md")
		ends(t, i)
	})
	t.Run("the commit is gone", func(t *testing.T) {
		i, base := begin(t)
		i.git("reset", "-q", "--hard", base)
		i.commit(map[string]string{"b.md": "-", "d.md": "d"})
		i.git("reflog", "expire", "--expire=now", "--all")
		i.git("gc", "-q", "--prune=now")
		if out := i.good(); !strings.Contains(out, "is gone from the repository") {
			t.Error(out)
		}
		i.expect(t, "the state", "-b.md", "+d.md d", "+a.md a1")
		if i.texts()["c.md"] != "c3" {
			t.Error("c.md is known to nobody, and gone")
		}
	})
	t.Run("another log", func(t *testing.T) {
		i, _ := begin(t)
		i.log, i.docs = 7, map[string]line{}
		i.good()
		i.expect(t, "the whole history", "+a.md a1", "+b.md b1", "+a.md a2", "+a.md a3", "+c.md c3")
		ends(t, i)
	})
	t.Run("forgotten", func(t *testing.T) {
		i, _ := begin(t)
		i.data = t.TempDir()
		i.good()
		i.expect(t, "the state", "+a.md a3", "+c.md c3", "+b.md b1")
		ends(t, i)
	})
	t.Run("an unreadable place", func(t *testing.T) {
		i, _ := begin(t)
		names, err := filepath.Glob(filepath.Join(i.data, "imports", "git-*.json"))
		if err != nil || len(names) != 1 {
			t.Fatal(names, err)
		}
		put(t, names[0], "{")
		if out := i.good(); !strings.Contains(out, "importing as if for the first time") {
			t.Error(out)
		}
		i.expect(t, "the state", "+a.md a3", "+c.md c3", "+b.md b1")
		ends(t, i)
	})
	t.Run("a data directory that can't be written to", func(t *testing.T) {
		i, _ := begin(t)
		i.data = filepath.Join(i.dir, ".git", "HEAD") // a file
		if out := i.good(); !strings.Contains(out, "can't remember how far the import is") {
			t.Error(out)
		}
	})
	t.Run("another selection", func(t *testing.T) {
		i, _ := begin(t)
		i.commit(map[string]string{"b.md": "-", "c.md": "c4"})
		i.good("--include", "*.go", "--include", "a.md")
		i.expect(t, "the state", "-b.md", "+a.md a3", "+code.go go1")
		i.commit(map[string]string{"code.go": "go5"})
		i.good("--include", "*.go", "--include", "a.md")
		i.expect(t, "and on", "+code.go go5")
		i.good()
		i.expect(t, "the first selection again", "+c.md c4", "+a.md a3")
		if got := i.texts()["code.go"]; got != "go5" {
			t.Errorf("code.go is %q: what is not selected any more stays", got)
		}
	})
	t.Run("since, again", func(t *testing.T) {
		i, base := begin(t)
		i.good("--since", "HEAD")
		i.expect(t, "the state", "+a.md a3", "+c.md c3", "+b.md b1")
		i.good("--since", base)
		i.expect(t, "as asked", "-c.md", "+a.md a1", "+b.md b1", "+a.md a2", "+a.md a3", "+c.md c3")
		ends(t, i)
	})
	t.Run("two prefixes", func(t *testing.T) {
		i, _ := begin(t)
		i.good("--prefix", "p/")
		i.expect(t, "under another name", "+p/a.md a1", "+p/b.md b1", "+p/a.md a2", "+p/a.md a3", "+p/c.md c3")
	})
}

// TestImportGitBrokenOff: an import ends in its middle, and is taken up again, also when the repository has changed meanwhile.
func TestImportGitBrokenOff(t *testing.T) {
	t.Parallel()
	many := func(text string) map[string]string { // more than a request holds
		files := map[string]string{}
		for n := range batchLines - 1 {
			files[fmt.Sprintf("%03d.md", n)] = fmt.Sprint(text, n)
		}
		return files
	}
	begin := func(t *testing.T, args ...string) (i *importing, base string) {
		t.Parallel()
		i = newImporting(t)
		base = i.commit(map[string]string{"a.md": "a1"})
		files := many("two")
		files["only.md"] = "of a commit that is lost"
		i.commit(files)
		requests := 0
		i.refuse = func() (int, string) {
			if requests++; requests > 1 {
				return 507, `{"code":"log_full","detail":"full"}`
			}
			return 0, ""
		}
		if got := i.run(args...); got.code != exitFailed || !strings.Contains(got.err, "log_full: full (after 500 changes)") || !strings.Contains(got.err, "importing again goes on where this one ended") {
			t.Fatalf("%+v", got)
		}
		i.mu.Lock()
		i.refuse = nil
		i.mu.Unlock()
		if got := i.took(); len(got) != batchLines {
			t.Fatalf("%d changes", len(got))
		}
		return i, base
	}
	t.Run("goes on", func(t *testing.T) {
		i, _ := begin(t)
		i.good()
		if got := i.took(); len(got) != batchLines || slices.Contains(got, "+a.md a1") {
			t.Errorf("%d changes: %s", len(got), got[0])
		}
		equalTexts(t, "in the end", i.texts(), i.files("HEAD", isMarkdown))
	})
	t.Run("rewritten meanwhile", func(t *testing.T) {
		i, base := begin(t)
		i.git("reset", "-q", "--hard", base)
		i.commit(map[string]string{"001.md": "another"})
		i.good()
		equalTexts(t, "in the end", i.texts(), map[string]string{"a.md": "a1", "001.md": "another"})
		if out := i.good(); !strings.Contains(out, "nothing new") {
			t.Error(out)
		}
	})
	t.Run("reverted meanwhile", func(t *testing.T) {
		i, base := begin(t)
		i.commit(map[string]string{"b.md": "b"})
		i.git("rm", "-q", "--cached", "only.md", "001.md")
		i.git("reset", "-q", "--soft", base) // one commit with what is left
		i.commit(map[string]string{"only.md": "-", "001.md": "-"})
		i.good()
		equalTexts(t, "in the end", i.texts(), i.files("HEAD", isMarkdown))
	})
	t.Run("by another selection", func(t *testing.T) {
		i, _ := begin(t)
		i.commit(map[string]string{"000.md": "-", "x.txt": "x"})
		i.good("--include", "*.txt")
		got := i.texts()
		if _, ok := got["000.md"]; ok || got["x.txt"] != "x" || got["a.md"] != "a1" {
			t.Errorf("%d documents", len(got))
		}
	})
	t.Run("since", func(t *testing.T) {
		i, base := begin(t, "--since", "HEAD~1")
		i.good()
		if got := i.took(); slices.Contains(got, "+a.md a1") {
			t.Errorf("%q", got)
		}
		equalTexts(t, "in the end", i.texts(), i.files("HEAD", isMarkdown))
		_ = base
	})
	t.Run("in its first step", func(t *testing.T) {
		i, _ := begin(t, "--since", "HEAD")
		i.good() // goes on with what was asked for then: no history
		if got := i.took(); len(got) != batchLines+1 {
			t.Errorf("%d changes", len(got))
		}
		equalTexts(t, "in the end", i.texts(), i.files("HEAD", isMarkdown))
	})
}

func TestImportGitSince(t *testing.T) {
	t.Parallel()
	history := func(t *testing.T) *importing {
		i := newImporting(t)
		i.commit(map[string]string{"a.md": "a1", "gone.md": "x"})
		i.commit(map[string]string{"a.md": "a2", "gone.md": "-"})
		i.git("checkout", "-q", "-b", "release")
		i.commit(map[string]string{"a.md": "released"})
		i.git("tag", "v1")
		i.git("checkout", "-q", "main")
		i.commit(map[string]string{"a.md": "a3"})
		i.commit(map[string]string{"b.md": "b4"})
		return i
	}
	for since, want := range map[string][]string{
		"HEAD":   {"+b.md b4", "+a.md a3"},
		"main~1": {"+a.md a3", "+b.md b4"},
		"v1":     {"+a.md a2", "+a.md a3", "+b.md b4"},
		"main~3": {"+a.md a1", "+gone.md x", "+a.md a2", "-gone.md", "+a.md a3", "+b.md b4"},
	} {
		i := history(t)
		i.good("--since", since)
		i.expect(t, since, want...)
		equalTexts(t, since, i.texts(), i.files("HEAD", isMarkdown))
	}
}

func TestImportGitRefuses(t *testing.T) {
	i := newImporting(t)
	empty := newRepo(t)
	i.commit(map[string]string{"a.md": "a"})
	plain := t.TempDir()
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(plain))
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--git"}, exitUsage, "import needs a PATH"},
		{[]string{"--git", i.dir, plain}, exitUsage, "--git imports one repository"},
		{[]string{"--git", plain}, exitUsage, "not a git repository"},
		{[]string{"--git", filepath.Join(plain, "none")}, exitUsage, "no such file or directory"},
		{[]string{"--git", filepath.Join(i.dir, "a.md")}, exitUsage, "it is no directory"},
		{[]string{"--git", i.dir, "--branch", "none"}, exitUsage, "there is no branch none"},
		{[]string{"--git", i.dir, "--since", "v9"}, exitUsage, "since v9: no such commit"},
		{[]string{"--git", empty.dir}, exitFailed, "has no commit yet"},
		{[]string{"--git", i.dir, "--include", "*.rst"}, exitFailed, "there was nothing to import"},
		{[]string{i.dir, "--branch", "main"}, exitUsage, "add --git"},
		{[]string{i.dir, "--since", "HEAD"}, exitUsage, "add --git"},
	} {
		got := invoke(t, nil, "", append([]string{"import", "--server", i.URL, "--data", t.TempDir()}, tt.args...)...)
		if got.code != tt.code || !strings.Contains(got.err, tt.want) {
			t.Errorf("%q: %+v", tt.args, got)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if got := i.run(); got.code != exitFailed || !strings.Contains(got.err, "git is not installed") {
		t.Errorf("%+v", got)
	}
}

// TestImportGitWatch follows a repository through what happens to one.
func TestImportGitWatch(t *testing.T) {
	t.Parallel()
	i := newImporting(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, done := &lockedBuffer{written: make(chan struct{}, 1)}, make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"import", "--git", i.dir, "--watch", "--server", i.URL, "--data", i.data}, nil, strings.NewReader(""), out, out)
	}()
	deadline := time.After(patience)
	says := func(text string) {
		t.Helper()
		for !strings.Contains(out.String(), text) {
			select {
			case <-out.written:
			case <-deadline:
				t.Fatalf("%q is missing in\n%s", text, out)
			}
		}
	}
	says("following HEAD of ") // an empty repository
	base := i.commit(map[string]string{"a.md": "a1", "b.md": "b1"})
	says("written   b.md  searchable after ")
	i.expect(t, "the first commit", "!+a.md a1", "!+b.md b1")

	i.git("pack-refs", "--all")
	i.git("gc", "-q")
	i.commit(map[string]string{"c.md": "c", "no.md": "\x00", "b.md": "-"})
	says("deleted   b.md  gone from answers after ")
	says("left out  no.md  binary")
	i.expect(t, "after gc", "!-b.md", "!+c.md c")

	i.git("reset", "-q", "--hard", base)
	says("deleted   c.md  gone from answers after ")
	i.expect(t, "a reset", "!+b.md b1", "!-c.md")

	// The server is away for a while.
	i.mu.Lock()
	away := 2
	i.refuse = func() (int, string) {
		if away--; away < 0 {
			return 0, ""
		}
		return 503, `{"code":"unavailable","detail":"no log"}`
	}
	i.mu.Unlock()
	i.git("checkout", "-q", "-b", "topic/x")
	i.commit(map[string]string{"d.md": "d"})
	says("written   d.md  searchable after ")
	i.expect(t, "when the server is back", "!+d.md d")
	equalTexts(t, "in the end", i.texts(), i.files("HEAD", isMarkdown))
	cancel()
	if code := <-done; code != exitDone {
		t.Errorf("Ctrl-C ended it with %d", code)
	}
	if out := i.good(); !strings.Contains(out, "nothing new") {
		t.Errorf("afterwards: %s", out)
	}
}

// TestImportGitRecorded sends a real documentation repository's history, held to a recording of it.
func TestImportGitRecorded(t *testing.T) {
	dir, records := recordedHistory(t)
	k := newKeeper(t)
	if got := invoke(t, nil, "", "import", "--git", dir, "--server", k.URL, "--data", t.TempDir(), "--include", "*.md"); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	var want []string
	texts := map[string]string{}
	for _, r := range records {
		if before, ok := texts[r.Key]; ok && r.Op == "modify" && before == r.Content {
			continue // the mode alone
		}
		texts[r.Key] = r.Content
		// Hidden folders are left out by every import.
		if r.Op != "delete" && !strings.HasPrefix(r.Key, ".") {
			want = append(want, "+"+r.Key+" "+r.Content)
		}
		if key := cmp.Or(r.OldKey, r.Key); (r.Op == "delete" || r.Op == "rename") && !strings.HasPrefix(key, ".") {
			want = append(want, "-"+key)
		}
	}
	got := k.took()
	for n := range min(len(got), len(want)) {
		if got[n] != want[n] {
			t.Fatalf("change %d is %.80q, want %.80q", n, got[n], want[n])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d changes, want %d", len(got), len(want))
	}
}

// TestImportGitReal: after an import by the program into a running one, each document is the file that is committed.
func TestImportGitReal(t *testing.T) {
	t.Parallel()
	r := newRepo(t)
	for n := range 30 {
		files := map[string]string{fmt.Sprintf("docs/%d.md", n): fmt.Sprintf("# Page %d\n\nThe first text of it.\n", n), "README.md": fmt.Sprintf("# The %d. edition\r\n", n)}
		if n > 3 {
			files[fmt.Sprintf("docs/%d.md", n-3)] = fmt.Sprintf("# Page %d\n\nThe second text, ünïcode ☃ and all.\n", n-3)
			files[fmt.Sprintf("docs/%d.md", n-4)] = "-"
			files[fmt.Sprintf("old/%d.md", n-4)] = fmt.Sprintf("# Page %d\n\nThe second text, ünïcode ☃ and all.\n", n-4)
		}
		r.commit(files)
	}
	p := startProgram(t, t.TempDir(), small...)
	checkImported(t, p, r, "HEAD")
}

// TestImportGitRealRecorded is the same for a real history.
func TestImportGitRealRecorded(t *testing.T) {
	dir, _ := recordedHistory(t)
	checkImported(t, startProgram(t, t.TempDir(), "--embedder", "hash/64"), &repo{t: t, dir: dir}, "main")
}

// TestImportGitOwn is the same for the history that this file is in.
func TestImportGitOwn(t *testing.T) {
	r := newRepo(t)
	own, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(own, ".git")); err != nil {
		t.Skip("there is no history here: ", err)
	}
	// A clone, because somebody may commit to the other meanwhile.
	r.git("fetch", "-q", own, "HEAD")
	r.git("reset", "-q", "--hard", "FETCH_HEAD")
	checkImported(t, startProgram(t, t.TempDir(), small...), r, "HEAD")
}

func checkImported(t *testing.T, p *program, r *repo, commit string) {
	t.Helper()
	p.verb("", "import", "--git", r.dir, "--wait", patience.String(), "--include", "*.md")
	want := r.files(commit, func(name string) bool { return isMarkdown(name) && !strings.HasPrefix(name, ".") })
	if n := p.live().Progress.Documents; n != int64(len(want)) {
		t.Errorf("the index has %d documents, want %d", n, len(want))
	}
	for name, text := range want {
		if doc, ok := p.get(name); !ok || doc.Text != text {
			t.Errorf("%s is %.80q, want %.80q", name, doc.Text, text)
		}
	}
}

// gitRecord is one change of a recorded history.
type gitRecord struct {
	TS      time.Time `json:"ts"`
	Commit  string    `json:"commit"`
	Op      string    `json:"op"`
	Key     string    `json:"key"`
	OldKey  string    `json:"old_key"`
	Content string    `json:"content"`
}

// recordedHistory makes a bare repository of a recorded stream, a commit for each of its.
func recordedHistory(t testing.TB) (dir string, records []gitRecord) {
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
	r := newRepo(t)
	cmd := exec.Command("git", "-C", r.dir, "fast-import", "--quiet")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(in)
	for dec := json.NewDecoder(z); ; {
		var c gitRecord
		if err := dec.Decode(&c); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 || records[len(records)-1].Commit != c.Commit {
			fmt.Fprintf(w, "commit refs/heads/main\ncommitter a <a@b> %d +0000\ndata 0\n", c.TS.Unix())
		}
		if c.Op == "delete" || c.Op == "rename" {
			fmt.Fprintf(w, "D %s\n", cmp.Or(c.OldKey, c.Key))
		}
		if c.Op != "delete" {
			fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", c.Key, len(c.Content), c.Content)
		}
		records = append(records, c)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return r.dir, records
}

// BenchmarkImportGit measures a real history up to where it is handed over: a server that takes everything and does nothing.
func BenchmarkImportGit(b *testing.B) {
	dir, records := recordedHistory(b)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		status := http.StatusAccepted
		if r.Method == "GET" {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"accepted":%d,"rejected":[],"token":"t"}`, bytes.Count(body, []byte("\n")))
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go server.Serve(listener)
	defer server.Close()
	for b.Loop() {
		var out, errOut bytes.Buffer
		args := []string{"import", "--git", dir, "--server", "http://" + listener.Addr().String(), "--data", b.TempDir()}
		if code := run(b.Context(), args, nil, strings.NewReader(""), &out, &errOut); code != exitDone {
			b.Fatal(errOut.String())
		}
	}
	b.ReportMetric(float64(len(records)*b.N)/b.Elapsed().Seconds(), "changes/s")
}
