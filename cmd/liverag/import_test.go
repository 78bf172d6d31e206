package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
)

// tree writes files below a new directory; a name with a slash at its end is a folder.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		put(t, filepath.Join(root, name), content)
	}
	return root
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// line is what an import sent of one document.
type line struct {
	ID string `json:"id"`
	stream.Document
	Deleted bool `json:"deleted"`
}

func linesOf(t *testing.T, body string) []line {
	t.Helper()
	var out []line
	for text := range strings.SplitSeq(strings.TrimSuffix(body, "\n"), "\n") {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		out = append(out, l)
	}
	return out
}

func ids(lines []line) (out []string) {
	for _, l := range lines {
		out = append(out, l.ID)
	}
	slices.Sort(out)
	return out
}

// accepting takes every batch whole.
func accepting(r request) (int, string) {
	return 202, fmt.Sprintf(`{"accepted":%d,"rejected":[],"token":"tok"}`, strings.Count(r.body, "\n"))
}

func TestImportFolder(t *testing.T) {
	root := tree(t, map[string]string{
		"readme.md":           "intro\n\n# The *Title* #\n",
		"guide/setup.html":    "<html><title>Set &amp; up</title><h1>x</h1>",
		"guide/notes.TXT":     "plain",
		"guide/deep/a b.md":   "no heading",
		"empty.md":            "",
		"drafts/x.md":         "draft",
		".git/config.md":      "hidden folder",
		".hidden.md":          "hidden",
		"paper.pdf":           "%PDF",
		"logo.png":            "\x89PNG",
		"data.csv":            "a,b",
		"broken.txt":          "caf\xe9",
		"binary.txt":          "a\x00b",
		"huge.txt":            strings.Repeat("x", 2000),
		"edited.md~":          "an editor's",
		"bad\u0001name.md":    "x",
		"node_modules/pkg.md": "vendored",
	})
	if err := os.Symlink("..", filepath.Join(root, "guide", "loop")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, "guide"), filepath.Join(root, "guide", "link.md")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(root, "dangling.md")); err != nil {
		t.Fatal(err)
	}
	changed := time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC)
	if err := os.Chtimes(filepath.Join(root, "readme.md"), changed, changed); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, accepting)
	got := invoke(t, []string{"LIVERAG_DOCUMENTS_MAX_BYTES=1KiB"}, "", "import", root, "--server", s.URL, "--prefix", "kb/", "--exclude", "drafts/**", "--exclude", "node_modules", "--json")
	if got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	r := s.next(t)
	if r.method != "POST" || r.path != "/documents" || r.contentType != "application/x-ndjson" || !r.backfill {
		t.Errorf("%+v", r)
	}
	lines := linesOf(t, r.body)
	if want := []string{"kb/empty.md", "kb/guide/deep/a b.md", "kb/guide/notes.TXT", "kb/guide/setup.html", "kb/readme.md"}; !slices.Equal(ids(lines), want) {
		t.Errorf("imported %q", ids(lines))
	}
	for _, l := range lines {
		switch l.ID {
		case "kb/readme.md":
			if l.Title != "The *Title*" || l.ContentType != stream.TextMarkdown || !l.UpdatedAt.Equal(changed) || l.Text != "intro\n\n# The *Title* #\n" {
				t.Errorf("%+v", l)
			}
		case "kb/guide/setup.html":
			if l.Title != "Set & up" || l.ContentType != stream.TextHTML {
				t.Errorf("%+v", l)
			}
		case "kb/guide/notes.TXT":
			if l.Title != "" || l.ContentType != stream.TextPlain || l.UpdatedAt.IsZero() {
				t.Errorf("%+v", l)
			}
		}
	}
	var result importResult
	if err := json.Unmarshal([]byte(got.out), &result); err != nil {
		t.Fatal(err)
	}
	skipped := map[string]int{}
	for _, one := range result.Skipped {
		skipped[one.Reason] = one.Count
	}
	want := map[string]int{skipHidden: 3, skipExcluded: 2, skipPDF: 1, skipImage: 1, skipKind: 1, skipUTF8: 1, skipBinary: 1, skipTooLarge: 1, skipID: 1, skipLink: 1, skipUnreadable: 1}
	want[skipKind]++ // a link without an ending, to a folder
	if fmt.Sprint(skipped) != fmt.Sprint(want) {
		t.Errorf("left out %v, want %v", skipped, want)
	}
	if result.Accepted != 5 || result.Token != "tok" || result.RejectedCount != 0 || result.Searchable != nil {
		t.Errorf("%+v", result)
	}

	// The same for a person.
	text := invoke(t, []string{"LIVERAG_DOCUMENTS_MAX_BYTES=1KiB"}, "", "import", root, "--server", s.URL).out
	for _, want := range []string{"imported 7 documents in ", "left out 1 PDF: paper.pdf\n", "left out 1 over the limit: huge.txt\n", "left out 1 path can't be an id: bad name.md\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}

func TestImportChoices(t *testing.T) {
	root := tree(t, map[string]string{"a.md": "a", "b.go": "package b", "sub/c.go": "package c", "sub/d.md": "d"})
	other := tree(t, map[string]string{"a.md": "another a", "z.md": "z"})
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{root, "--include", "*.go"}, []string{"b.go", "sub/c.go"}},
		{[]string{root, "--include", "sub/**"}, []string{"sub/c.go", "sub/d.md"}},
		{[]string{root, "--include", "sub/*.md", "--include", "b.go"}, []string{"b.go", "sub/d.md"}},
		{[]string{root, "--exclude", "sub"}, []string{"a.md"}},
		{[]string{filepath.Join(root, "sub", "d.md")}, []string{"d.md"}},
		{[]string{root, other}, []string{"a.md", "sub/d.md", "z.md"}}, // the second a.md would replace the first
	} {
		s := newServer(t, accepting)
		got := invoke(t, nil, "", append([]string{"import", "--server", s.URL}, tt.args...)...)
		if lines := ids(linesOf(t, s.next(t).body)); got.code != exitDone || !slices.Equal(lines, tt.want) {
			t.Errorf("%q: %q, %+v", tt.args, lines, got)
		}
	}
	s := newServer(t, accepting)
	if got := invoke(t, nil, "", "import", root, "--include", "*.rst", "--server", s.URL); got.code != exitFailed || !strings.Contains(got.err, "there was nothing to import") {
		t.Errorf("%+v", got)
	}
	for _, args := range [][]string{{}, {filepath.Join(root, "none")}, {root, "--include", ""}, {"-", "--watch"}, {filepath.Join(root, "a.md"), "--watch"}} {
		if got := invoke(t, nil, "", append([]string{"import"}, args...)...); got.code != exitUsage {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

func TestImportNDJSON(t *testing.T) {
	input := `{"id":"a","text":"1"}

  {"id":"b","deleted":true}
not json
{"id":"` + strings.Repeat("x", 2<<20) + `"}
{"text":"no id"}
{"id":"c","text":"last"}`
	path := filepath.Join(tree(t, map[string]string{"dump.ndjson": input}), "dump.ndjson")
	for name, args := range map[string][]string{path: {path}, "-": {"-"}} {
		s := newServer(t, always(202, `{"accepted":3,"rejected":[{"line":3,"code":"not_a_document","detail":"no JSON"},{"line":4,"code":"id_invalid","detail":"no id"}],"unnamed":7,"token":"t"}`))
		got := invoke(t, []string{"LIVERAG_DOCUMENTS_MAX_BYTES=1KiB"}, input, append([]string{"import", "--server", s.URL}, args...)...)
		want := `{"id":"a","text":"1"}` + "\n" + `{"id":"b","deleted":true}` + "\nnot json\n" + `{"text":"no id"}` + "\n" + `{"id":"c","text":"last"}` + "\n"
		if r := s.next(t); r.body != want || !r.backfill {
			t.Errorf("sent %q", r.body)
		}
		if got.code != exitFailed || !strings.Contains(got.out, "imported 3 documents") || !strings.Contains(got.out, "refused "+name+":4  not_a_document: no JSON\n") ||
			!strings.Contains(got.out, "refused "+name+":6  id_invalid: no id\n") || !strings.Contains(got.out, "left out 1 over the limit: "+name+":5\n") || !strings.Contains(got.out, "refused 7 more\n") || !strings.Contains(got.err, "9 documents refused") {
			t.Errorf("%+v", got)
		}
	}
	s := newServer(t, accepting)
	invoke(t, nil, `{"id":"a","n":1.50,"text":"<&>"}`+"\nnot json\n", "import", "-", "--prefix", "p/", "--server", s.URL)
	body := strings.Split(s.next(t).body, "\n")
	equalJSON(t, body[0], `{"id":"p/a","n":1.50,"text":"<&>"}`)
	if body[1] != "not json" {
		t.Errorf("%q", body)
	}
}

// TestImportIsBounded holds the size of requests and the order of lines on an input of many batches, and that a busy server is asked again.
func TestImportIsBounded(t *testing.T) {
	t.Parallel()
	const n = 1300
	var input strings.Builder
	text := strings.Repeat("y", 10_000)
	for i := range n {
		fmt.Fprintf(&input, `{"id":"%d","text":%q}`+"\n", i, text)
	}
	calls := 0
	s := newServer(t, func(r request) (int, string) {
		if calls++; calls%3 == 1 {
			return 429, `{"code":"busy","detail":"come back"}`
		}
		return accepting(r)
	})
	got := invoke(t, nil, input.String(), "import", "-", "--server", s.URL)
	if got.code != exitDone || !strings.Contains(got.out, "imported 1,300 documents") {
		t.Fatalf("%+v", got)
	}
	next, before := 0, ""
	for range calls {
		r := s.next(t)
		if len(r.body) > batchBytes || strings.Count(r.body, "\n") > batchLines {
			t.Errorf("a request of %d bytes and %d lines", len(r.body), strings.Count(r.body, "\n"))
		}
		lines := linesOf(t, r.body)
		if r.body == before { // sent again
			next -= len(lines)
		}
		before = r.body
		for _, l := range lines {
			if l.ID != fmt.Sprint(next) {
				t.Fatalf("%s instead of %d", l.ID, next)
			}
			next++
		}
	}
	if next != n {
		t.Errorf("%d of %d lines", next, n)
	}
	full := newServer(t, always(507, `{"code":"log_full","detail":"full"}`))
	if got := invoke(t, nil, input.String(), "import", "-", "--server", full.URL); got.code != exitFailed || !strings.Contains(got.err, "log_full: full (after 0 documents)") {
		t.Errorf("%+v", got)
	}
}

func TestImportWaits(t *testing.T) {
	t.Parallel()
	polls := 0
	s := newServer(t, func(r request) (int, string) {
		if r.method == "POST" {
			return accepting(r)
		}
		if polls++; polls == 2 { // what the log is behind may be away for a moment
			return 503, `{"status":503,"code":"log_unavailable","detail":"away"}`
		}
		// The end moves on with other people's changes; only what was there at first is waited for.
		return 200, fmt.Sprintf(`{"partitions":[{"partition":0,"end_offset":%d,"applied_offset":%d},{"partition":1,"end_offset":5,"applied_offset":5}]}`, 10+5*polls, 5*polls)
	})
	got := invoke(t, nil, `{"id":"a","text":"x"}`, "import", "-", "--wait", "1m", "--json", "--server", s.URL)
	if got.code != exitDone || !strings.Contains(got.out, `"searchable":true`) || polls != 3 {
		t.Errorf("%d polls, %+v", polls, got)
	}
	never := newServer(t, func(r request) (int, string) {
		if r.method == "POST" {
			return accepting(r)
		}
		return 200, `{"partitions":[{"partition":0,"end_offset":7,"applied_offset":5}]}`
	})
	got = invoke(t, nil, `{"id":"a","text":"x"}`, "import", "-", "--wait", "1ms", "--json", "--server", never.URL)
	if got.code != exitDone || !strings.Contains(got.out, `"searchable":false`) || !strings.Contains(got.err, "2 changes still to be indexed") {
		t.Errorf("%+v", got)
	}
}

func TestImportInterrupted(t *testing.T) {
	// A pipe that never ends must not hold Ctrl-C up.
	ctx, cancel := context.WithCancel(t.Context())
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	defer read.Close()
	s := newServer(t, accepting)
	done := make(chan int)
	var out, errOut bytes.Buffer
	go func() { done <- run(ctx, []string{"import", "-", "--server", s.URL}, nil, read, &out, &errOut) }()
	cancel()
	if code := <-done; code != exitFailed || !strings.Contains(errOut.String(), "interrupted (after 0 documents)") {
		t.Errorf("%d, %s", code, errOut.String())
	}
}

func TestTitles(t *testing.T) {
	for text, want := range map[string]string{
		"# One\n# Two":                         "One",
		"text\n\n## `code` and **bold**":       "code and bold",
		"# [a link](http://x) ![i](y.png)":     "a link i",
		"Setext\n======\n":                     "Setext",
		"Also\n---\n":                          "Also",
		"- item\n---\n# After":                 "After",
		"\n---\n# After a rule":                "After a rule",
		"```\n# comment\n```\n# Real":          "Real",
		"~~~~\n~~~\n# comment\n~~~~\n# Real":   "Real",
		"---\ntitle: \"Front\"\n---\n# Other":  "Front",
		"---\nkey: v\n---\n# Other\r\n":        "Other",
		"#nospace\n#\n####### seven\n# C#":     "C#",
		"# Closed ##  ":                        "Closed",
		"    # indented code\nno heading":      "",
		"\ufeff# After a byte order mark":      "After a byte order mark",
		"# " + strings.Repeat("long ", 100):    strings.Repeat("long ", 59) + "long…",
		"# bell \a and \x1b[2J escape":         "bell and [2J escape",
		"plain text with no heading whatever.": "",
	} {
		if got := titleOf(stream.TextMarkdown, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"<TITLE>A &lt; B\n C</TITLE><h1>x</h1>":             "A < B C",
		"<h1>An <em>h1</em> heading</h1><p>x":               "An h1 heading",
		"<svg><title>icon</title></svg><title>T</title>":    "T",
		"<title> </title><h1>Other</h1>":                    "Other",
		"<h1>First</h1><title>Late title</title><h1>y</h1>": "Late title",
		"<p>none":         "",
		"<title>unclosed": "",
	} {
		if got := titleOf(stream.TextHTML, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := titleOf(stream.TextPlain, "# no"); got != "" {
		t.Errorf("plain text has the title %q", got)
	}
}

func TestGlobs(t *testing.T) {
	for _, tt := range []struct {
		pattern     string
		yes, refuse []string
	}{
		{"*.md", []string{"a.md", "x/y/a.md"}, []string{"a.mdx", "md"}},
		{"docs/*.md", []string{"docs/a.md"}, []string{"docs/x/a.md", "a.md", "x/docs/a.md"}},
		{"docs/**", []string{"docs", "docs/a", "docs/x/y"}, []string{"docsa", "x/docs/a"}},
		{"**/test/*", []string{"test/a", "x/y/test/a"}, []string{"test", "atest/a"}},
		{"a/**/b", []string{"a/b", "a/x/y/b"}, []string{"a/xb", "ab"}},
		{"?.[ch]", []string{"a.c", "x/b.h"}, []string{"ab.c", "a.d"}},
		{"[!a].txt", []string{"b.txt"}, []string{"a.txt"}},
		{"./x/", []string{"x"}, []string{"xx"}},
		{"a+(b).md", []string{"a+(b).md"}, []string{"aab.md"}},
		{"ü*", []string{"über"}, []string{"uber"}},
	} {
		g, err := newGlob(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, rel := range tt.yes {
			if !g.match(rel) {
				t.Errorf("%s does not match %s", tt.pattern, rel)
			}
		}
		for _, rel := range tt.refuse {
			if g.match(rel) {
				t.Errorf("%s matches %s", tt.pattern, rel)
			}
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("a/**/[!b-c]?.md", "a/x/dd.md")
	f.Fuzz(func(t *testing.T, pattern, rel string) {
		g, err := newGlob(pattern)
		if err == nil {
			g.match(rel)
		}
	})
}

func TestSpecialFilesAreLeftOut(t *testing.T) {
	if runtime.GOOS == "windows" || os.Getuid() == 0 {
		t.Skip("needs a user whom a mode keeps from reading")
	}
	root := tree(t, map[string]string{"secret.md": "x", "open.md": "y"})
	if err := os.Chmod(filepath.Join(root, "secret.md"), 0); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, accepting)
	if got := invoke(t, nil, "", "import", root, "--server", s.URL); got.code != exitDone || !strings.Contains(got.out, "left out 1 unreadable: secret.md") {
		t.Errorf("%+v", got)
	}
}
