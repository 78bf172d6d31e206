package githistory_test

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/internal/githistory"
)

// lines spells changes, and applies them to files if that is not nil.
func lines(t testing.TB, changes iter.Seq2[githistory.Change, error], files map[string]string) (out []string) {
	t.Helper()
	for c, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		if out = append(out, spell(c)); files != nil {
			apply(files, c)
		}
	}
	return out
}

// body is a text long enough for git to know it again.
func body(name string) string { return strings.Repeat("A line of "+name+".\n", 5) }

func TestHistory(t *testing.T) {
	const nul, latin = "a\x00b", "caf\xe9"
	for _, tt := range []struct {
		name string
		make func(w *work)
		want []string
	}{
		{"edits", func(w *work) {
			w.write("b.md", "1")
			w.write("a/x.md", "crlf\r\nkept\r\n")
			w.write("skip.txt", "not selected")
			w.commit()
			w.write("b.md", "2")
			w.write("skip.txt", "still not")
			w.commit()
			w.write("skip.txt", "only this")
			w.commit()
			w.remove("b.md")
			w.write("empty.md", "")
			w.commit()
		}, []string{`A a/x.md "crlf\r\nkept\r\n"`, `A b.md "1"`, ".", `M b.md "2"`, ".", ".", "D b.md 0", `A empty.md ""`, "."}},
		{"renames", func(w *work) {
			w.write("a.md", body("a"))
			w.write("b.md", body("b"))
			w.write("c.txt", body("c"))
			w.commit()
			w.git("mv", "a.md", "z.md")
			w.commit()
			w.git("mv", "z.md", "Z.md")
			w.write("Z.md", body("a")+"more")
			w.commit()
			w.git("mv", "b.md", "b.txt") // out of the selection
			w.git("mv", "c.txt", "c.md") // and into it
			w.commit()
		}, []string{
			fmt.Sprintf("A a.md %q", body("a")), fmt.Sprintf("A b.md %q", body("b")), ".", fmt.Sprintf("R a.md z.md %q", body("a")), ".",
			fmt.Sprintf("R z.md Z.md %q", body("a")+"more"), ".", "D b.md 0", fmt.Sprintf("A c.md %q", body("c")), ".",
		}},
		{"two files change places", func(w *work) {
			w.write("a.md", body("a"))
			w.write("b.md", body("b"))
			w.commit()
			w.write("a.md", body("b"))
			w.write("b.md", body("a"))
			w.commit()
		}, []string{fmt.Sprintf("A a.md %q", body("a")), fmt.Sprintf("A b.md %q", body("b")), ".", fmt.Sprintf("M a.md %q", body("b")), fmt.Sprintf("M b.md %q", body("a")), "."}},
		{"text and no text", func(w *work) {
			w.write("a.md", "text")
			w.write("never.md", nul)
			w.write("latin.md", latin)
			w.write("huge.md", strings.Repeat("x", 2000))
			w.commit()
			w.write("a.md", nul)
			w.write("never.md", "\x00")
			w.write("latin.md", "utf-8 now")
			w.write("huge.md", "small now")
			w.commit()
			w.write("a.md", "text again")
			w.remove("never.md")
			w.write("huge.md", strings.Repeat("y", 2000))
			w.commit()
		}, []string{
			`A a.md "text"`, "- huge.md 1", "- latin.md 3", "- never.md 2", ".",
			"D a.md 2", `M huge.md "small now"`, `M latin.md "utf-8 now"`, "- never.md 2", ".",
			`M a.md "text again"`, "D huge.md 1", ".",
		}},
		{"a binary file that is renamed", func(w *work) {
			w.write("a.md", nul+body("a"))
			w.write("b.md", body("b"))
			w.write("c.md", nul+body("c"))
			w.commit()
			w.git("mv", "a.md", "z.md")
			w.git("mv", "b.md", "y.md")
			w.write("y.md", nul+body("b"))
			w.git("mv", "c.md", "x.md")
			w.write("x.md", body("c"))
			w.commit()
		}, []string{"- a.md 2", fmt.Sprintf("A b.md %q", body("b")), "- c.md 2", ".", fmt.Sprintf("A x.md %q", body("c")), "D b.md 0", "- y.md 2", "- z.md 2", "."}},
		{"the mode alone", func(w *work) {
			w.write("a.md", "a")
			w.commit()
			w.git("update-index", "--chmod=+x", "a.md")
			w.date += 60
			w.git("commit", "-q", "-m", "x")
			w.git("reset", "-q", "--hard")
			w.write("a.md", "b")
			w.commit()
		}, []string{`A a.md "a"`, ".", ".", `M a.md "b"`, "."}},
		{"links", func(w *work) {
			w.write("a.md", "target.md")
			w.write("target.md", "t")
			w.commit()
			w.remove("a.md")
			w.link("target.md", "a.md") // whose object is the same, since its content was that name
			w.link("target.md", "l.md")
			w.commit()
			w.remove("a.md")
			w.write("a.md", "target.md")
			w.remove("l.md")
			w.commit()
		}, []string{`A a.md "target.md"`, `A target.md "t"`, ".", "D a.md 4", "- l.md 4", ".", `A a.md "target.md"`, "."}},
		{"a file becomes a directory", func(w *work) {
			w.write("a.md", "file")
			w.commit()
			w.remove("a.md")
			w.write("a.md/b.md", "below")
			w.commit()
			w.remove("a.md")
			w.write("a.md", "file again")
			w.commit()
		}, []string{`A a.md "file"`, ".", "D a.md 0", `A a.md/b.md "below"`, ".", `A a.md "file again"`, "D a.md/b.md 0", "."}},
		{"odd names", func(w *work) {
			w.write("new\nline.md", "1")
			w.write(`"quoted" \ back.md`, "2")
			w.write("ünï ☃.md", "3")
			w.write("tab\t\x01.md", "4")
			w.write("*.md", "5")
			w.write(":colon.md", "6")
			w.commit()
		}, []string{`A "quoted" \ back.md "2"`, `A *.md "5"`, `A :colon.md "6"`, "A new\nline.md \"1\"", "A tab\t\x01.md \"4\"", `A ünï ☃.md "3"`, "."}},
		{"merges", func(w *work) {
			w.write("a.md", "1\n")
			w.write("kept.md", "main\n")
			w.commit()
			w.git("checkout", "-q", "-b", "side")
			w.write("side.md", "s1")
			w.commit()
			w.write("side.md", "s2")
			w.write("a.md", "changed at the side\n")
			w.commit()
			w.git("checkout", "-q", "main")
			w.write("kept.md", "changed\n")
			w.commit()
			w.date += 60
			w.git("merge", "-q", "--no-ff", "-m", "m", "side")
			w.write("a.md", "end\n")
			w.commit()
		}, []string{`A a.md "1\n"`, `A kept.md "main\n"`, ".", `M kept.md "changed\n"`, ".", `M a.md "changed at the side\n"`, `A side.md "s2"`, ".", `M a.md "end\n"`, "."}},
		{"a submodule", func(w *work) {
			w.write("lib.md", "text")
			hash := w.commit()
			w.remove("lib.md")
			w.git("update-index", "--add", "--cacheinfo", "160000,"+hash+",sub")
			w.git("update-index", "--cacheinfo", "160000,"+hash+",lib.md")
			w.date += 60
			w.git("commit", "-q", "-m", "x")
		}, []string{`A lib.md "text"`, ".", "D lib.md 5", "- sub 5", "."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWork(t)
			if runtime.GOOS == "windows" && strings.Contains(tt.name, "odd") {
				t.Skip("such names can't be made here")
			}
			tt.make(w)
			want := w.head("HEAD", "", markdown)
			for path, content := range want {
				if len(content) > 1000 {
					delete(want, path)
				}
			}
			// What a user may have set must make no difference.
			order := filepath.Join(t.TempDir(), "order")
			if err := os.WriteFile(order, []byte("[l-z]*\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			w.write(".git/config", "[diff]\nrenames = copies\nrenameLimit = 1\nrelative = true\nnoprefix = true\nignoreSubmodules = all\norderFile = "+filepath.ToSlash(order)+
				"\n[log]\nshowSignature = true\nshowRoot = false\nfollow = true\n[core]\nquotePath = true\nabbrev = 4\nignoreCase = true\nautocrlf = true\n[color]\nui = always\n")
			r := w.open()
			files := map[string]string{}
			opt := githistory.Options{Select: markdown, MaxBytes: 1000}
			equalLines(t, lines(t, r.History(t.Context(), "", "HEAD", opt), files), tt.want)
			equalFiles(t, files, want)
			state := map[string]string{}
			lines(t, r.State(t.Context(), "HEAD", opt, nil), state)
			equalFiles(t, state, want)
			if n, err := r.Count(t.Context(), "", "HEAD"); err != nil || n != len(slices.DeleteFunc(slices.Clone(tt.want), func(line string) bool { return line != "." })) {
				t.Errorf("%d commits, %v", n, err)
			}
		})
	}
}

func (w *work) link(to, name string) {
	w.t.Helper()
	if err := os.Symlink(to, filepath.Join(w.dir, name)); err != nil {
		w.t.Skip(err)
	}
}

// TestPlaces: each kind of repository is read like the plain one.
func TestPlaces(t *testing.T) {
	w := newWork(t)
	w.write("README.md", "top")
	w.write("docs/a.md", "1")
	w.write("docs/deep/b.md", "2")
	w.write("docsother/c.md", "3")
	w.commit()
	w.write("docs/a.md", "changed")
	w.git("mv", "README.md", "docs/moved.md")
	w.commit()
	w.git("branch", "other", "HEAD~1")
	beside := t.TempDir()
	bare, linked, shallow := filepath.Join(beside, "bare.git"), filepath.Join(beside, "linked"), filepath.Join(beside, "shallow")
	w.git("clone", "-q", "--bare", w.dir, bare)
	w.git("worktree", "add", "-q", linked, "other")
	w.git("clone", "-q", "--depth", "1", "file://"+w.dir, shallow)
	all := []string{`A README.md "top"`, `A docs/a.md "1"`, `A docs/deep/b.md "2"`, `A docsother/c.md "3"`, "."}
	whole := append(slices.Clone(all), `M docs/a.md "changed"`, `R README.md docs/moved.md "top"`, ".")
	w.git("pack-refs", "--all")
	w.git("gc", "-q")
	for _, tt := range []struct {
		name, dir, folder string
		want              []string
	}{
		{"work tree", w.dir, "", whole},
		{"git directory", filepath.Join(w.dir, ".git"), "", whole},
		{"bare", bare, "", whole},
		{"linked work tree", linked, "", all},
		{"shallow", shallow, "", []string{`A docs/a.md "changed"`, `A docs/deep/b.md "2"`, `A docs/moved.md "top"`, `A docsother/c.md "3"`, "."}},
		{"folder", filepath.Join(w.dir, "docs"), "docs/", []string{`A a.md "1"`, `A deep/b.md "2"`, ".", `M a.md "changed"`, `A moved.md "top"`, "."}},
		{"folder of a folder", filepath.Join(w.dir, "docs", "deep"), "docs/deep/", []string{`A b.md "2"`, ".", "."}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := open(t, tt.dir)
			if r.Folder() != tt.folder {
				t.Errorf("folder %q", r.Folder())
			}
			files := map[string]string{}
			equalLines(t, lines(t, r.History(t.Context(), "", "HEAD", githistory.Options{}), files), tt.want)
			if !strings.Contains(tt.name, "bare") && !strings.Contains(tt.name, "git dir") {
				equalFiles(t, files, (&work{t: t, dir: tt.dir}).head("HEAD", "", nil)) // archive is of the folder it is called in
			}
			state := map[string]string{}
			lines(t, r.State(t.Context(), "HEAD", githistory.Options{}, nil), state)
			equalFiles(t, state, files)
		})
	}
	if a, b, c := open(t, w.dir).Identity(), open(t, linked).Identity(), open(t, bare).Identity(); a != b || a == c {
		t.Errorf("identities %q, %q, %q", a, b, c)
	}
	// As in a hook, where a variable names the repository.
	t.Setenv("GIT_DIR", filepath.Join(bare))
	if got := open(t, linked).Identity(); got != open(t, w.dir).Identity() {
		t.Errorf("GIT_DIR leads to %s", got)
	}
}

func TestNotThere(t *testing.T) {
	w := newWork(t)
	r := w.open()
	if _, err := r.Resolve(t.Context(), "HEAD"); !errors.Is(err, githistory.ErrNoCommit) {
		t.Errorf("HEAD of nothing: %v", err)
	}
	hash := w.commit()
	for revision, want := range map[string]string{"HEAD": hash, "main": hash, hash[:10]: hash, "nowhere": "", "--all": "", "HEAD~5": "", "": "", "HEAD:": ""} {
		if got, err := r.Resolve(t.Context(), revision); got != want || (want == "") != errors.Is(err, githistory.ErrNoCommit) {
			t.Errorf("%q: %q, %v", revision, got, err)
		}
	}
	equalLines(t, lines(t, r.State(t.Context(), hash, githistory.Options{}, nil), nil), []string{"."})
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(t.TempDir()))
	if _, err := githistory.Open(t.Context(), t.TempDir()); !errors.Is(err, githistory.ErrNotRepository) {
		t.Errorf("no repository: %v", err)
	}
	for _, err := range r.History(t.Context(), "", strings.Repeat("1", 40), githistory.Options{}) {
		if err == nil || !strings.HasPrefix(err.Error(), "git: bad object") {
			t.Errorf("a commit that is not there: %v", err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := githistory.Open(t.Context(), w.dir); !errors.Is(err, githistory.ErrNoGit) {
		t.Errorf("no git: %v", err)
	}
}

// TestMissingObject: a damaged repository is an error that names the file, not a short history.
func TestMissingObject(t *testing.T) {
	w := newWork(t)
	w.write("a.md", "1")
	w.commit()
	w.write("a.md", "2")
	w.commit()
	object := w.git("rev-parse", "HEAD~1:a.md")
	w.remove(filepath.Join(".git", "objects", object[:2], object[2:]))
	var got []string
	var failed error
	for c, err := range w.open().History(t.Context(), "", "HEAD", githistory.Options{}) {
		if failed = err; err == nil {
			got = append(got, spell(c))
		}
	}
	if len(got) > 0 || failed == nil || !strings.Contains(failed.Error(), `read "a.md" of commit`) || !strings.Contains(failed.Error(), object+" is missing") {
		t.Errorf("%q, %v", got, failed)
	}
}

func TestTimesNeverGoBack(t *testing.T) {
	w := newWork(t)
	for i, date := range []int64{1_600_001_000, 1_600_003_000, 1_600_002_000, 1_600_004_000} {
		w.date = date
		w.write("a.md", fmt.Sprint(i))
		w.write(fmt.Sprintf("%d.md", i), "x")
		w.commit()
	}
	var got, state []int64
	for c := range w.open().History(t.Context(), "", "HEAD", githistory.Options{After: time.Unix(1_600_002_500, 0)}) {
		if c.Kind == githistory.Complete {
			got = append(got, c.Commit.Time.Unix()-1_600_000_000)
		}
	}
	if want := []int64{2500, 3060, 3060, 4060}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for c := range w.open().State(t.Context(), "HEAD", githistory.Options{}, nil) {
		state = append(state, c.Commit.Time.Unix()-1_600_000_000)
	}
	if want := []int64{4060, 4060, 2060, 2060, 1060, 4060}; !slices.Equal(state, want) {
		t.Errorf("state: %v, want %v", state, want)
	}
}

// TestRewritten: what follows from what, and what brings the one in line with the other.
func TestRewritten(t *testing.T) {
	w := newWork(t)
	w.write("a.md", "a1\n")
	w.write("b.md", "b1\n")
	first := w.commit()
	w.write("a.md", "a2\n")
	w.write("only.md", "old branch")
	old := w.commit()
	w.git("reset", "-q", "--hard", first)
	w.write("b.md", "b2\n")
	fresh := w.commit()
	w.git("checkout", "-q", "-b", "merged", old)
	w.date += 60
	w.git("merge", "-q", "-s", "ours", "--no-ff", "-m", "m", fresh)
	merged := w.git("rev-parse", "HEAD")
	r := w.open()
	for _, tt := range []struct {
		from, to string
		want     bool
	}{
		{"", old, true}, {first, old, true}, {first, fresh, true}, {old, old, true}, {old, merged, true}, {first, merged, true},
		{old, fresh, false}, {fresh, old, false}, {old, first, false},
		{fresh, merged, false}, // merged contains fresh, but not by its first parents: b2 is not in it
	} {
		if got, err := r.Continues(t.Context(), tt.from, tt.to); got != tt.want || err != nil {
			t.Errorf("%.7s → %.7s: %v, %v", tt.from, tt.to, got, err)
		}
	}
	for from, want := range map[string]string{old: first, fresh: fresh, first: first, merged: fresh} {
		if got, err := r.Contained(t.Context(), from, fresh); got != want || err != nil {
			t.Errorf("%.7s is contained up to %.7s, want %.7s, %v", from, got, want, err)
		}
	}
	files := w.head(old, "", nil)
	equalLines(t, lines(t, r.Difference(t.Context(), old, fresh, githistory.Options{}), files), []string{`M a.md "a1\n"`, `M b.md "b2\n"`, "D only.md 0", "."})
	equalFiles(t, files, w.head(fresh, "", nil))

	// A copy that stopped somewhere between first and old, of which the end is not known.
	files = map[string]string{"a.md": "a2\n", "b.md": "b1\n", "only.md": "old branch", "theirs.md": "not of this history"}
	doubt := func(path string) bool { return path != "theirs.md" }
	got := lines(t, r.State(t.Context(), fresh, githistory.Options{}, doubt, githistory.Span{From: first, To: old}), files)
	equalLines(t, got, []string{"D only.md 0", `A b.md "b2\n"`, `M a.md "a1\n"`, "."})
	files["a.md"], files["theirs.md"] = "a1\n", ""
	delete(files, "theirs.md")
	equalFiles(t, files, w.head(fresh, "", nil))
	// And one of two unrelated ends.
	equalLines(t, lines(t, r.State(t.Context(), fresh, githistory.Options{}, nil, githistory.Span{From: old, To: fresh}, githistory.Span{To: old}), nil),
		[]string{"D only.md 0", `M b.md "b2\n"`, `M a.md "a1\n"`, "."})
	// A file that may have been text in the copy and is none now.
	w.write("b.md", "\x00")
	now := w.commit()
	got = lines(t, r.State(t.Context(), now, githistory.Options{}, nil, githistory.Span{From: first, To: now}), nil)
	if !slices.Contains(got, "D b.md 2") {
		t.Errorf("%q", got)
	}
}

func TestRecent(t *testing.T) {
	w := newWork(t)
	for i := range 5 {
		w.write("a.md", fmt.Sprint(i))
		w.write(fmt.Sprintf("%d.md", i), "x")
		w.commit()
	}
	r := w.open()
	equalLines(t, lines(t, r.Recent(t.Context(), "HEAD", 1, githistory.Options{}), nil),
		[]string{`A 3.md "x"`, `A a.md "3"`, `A 2.md "x"`, `A 1.md "x"`, `A 0.md "x"`, ".", `A 4.md "x"`, `M a.md "4"`, "."})
	whole := lines(t, r.History(t.Context(), "", "HEAD", githistory.Options{}), nil)
	for _, n := range []int{5, 100} {
		equalLines(t, lines(t, r.Recent(t.Context(), "HEAD", n, githistory.Options{}), nil), whole)
	}
	// Whoever stops early leaves nothing running: the iterator returns only when its processes have.
	for range r.Recent(t.Context(), "HEAD", 2, githistory.Options{}) {
		break
	}
	for range r.History(t.Context(), "", "HEAD", githistory.Options{}) {
		break
	}
}

// TestOwnHistory: this repository's own, if it is a clone.
func TestOwnHistory(t *testing.T) {
	isolate(t)
	r, err := githistory.Open(t.Context(), "../..")
	if err != nil {
		t.Skip("there is no history here: ", err)
	}
	head, err := r.Resolve(t.Context(), "HEAD")
	if err != nil {
		t.Skip(err)
	}
	files := map[string]string{}
	steps := 0
	for c, err := range r.History(t.Context(), "", head, githistory.Options{Select: markdown}) {
		if err != nil {
			t.Fatal(err)
		}
		if apply(files, c); c.Kind == githistory.Complete {
			steps++
		}
	}
	if n, err := r.Count(t.Context(), "", head); err != nil || n != steps {
		t.Errorf("%d of %d steps, %v", steps, n, err)
	}
	equalFiles(t, files, (&work{t: t, dir: "../.."}).head(head, "", markdown))
}
