package demo

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"go/format"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with a file below testdata, or rewrites it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; -update rewrites it. Got:\n%s", file, got)
	}
}

// standard is the corpus of the GOROOT on this machine, read once.
var standard = sync.OnceValues(func() ([]Document, error) {
	return standardAgain()
})

func standardAgain() ([]Document, error) {
	goroot, err := FindGOROOT(context.Background())
	if err != nil {
		return nil, err
	}
	return collect(Standard(goroot))
}

func collect(documents iter.Seq2[Document, error]) ([]Document, error) {
	var all []Document
	for d, err := range documents {
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// standardCorpus skips the test where there is no GOROOT with its source.
func standardCorpus(t testing.TB) []Document {
	t.Helper()
	documents, err := standard()
	if errors.Is(err, ErrNoSource) {
		t.Skip("the corpus is not there: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return documents
}

func TestStandardOfASmallTree(t *testing.T) {
	goroot := t.TempDir()
	if err := os.CopyFS(goroot, os.DirFS("testdata/goroot")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(goroot, "src", "broken"), 0o755); err != nil {
		t.Fatal(err)
	}
	// Not in testdata, where it would fail gofmt.
	if err := os.WriteFile(filepath.Join(goroot, "src", "broken", "broken.go"), []byte("package broken\n\nfunc {\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	broken := 0
	for d, err := range Standard(goroot) {
		if err != nil {
			broken++
			if d.ID != "broken" || !strings.Contains(err.Error(), "broken/broken.go:3") {
				t.Errorf("%s: %v", d.ID, err)
			}
			continue
		}
		fmt.Fprintf(&b, "==== %s | %s | %s | %v\n%s", d.ID, d.Title, d.URL, d.Metadata, d.Text)
	}
	if broken != 1 {
		t.Errorf("%d errors, want the broken package's", broken)
	}
	golden(t, "goroot.md", b.String())
}

func TestStandardCorpus(t *testing.T) {
	documents := standardCorpus(t)
	seen := make(map[string]bool)
	total := 0
	for _, d := range documents {
		if seen[d.ID] {
			t.Errorf("%s is there twice", d.ID)
		}
		seen[d.ID] = true
		total += len(d.Text)
		if d.Title == "" || !strings.HasPrefix(d.URL, "https://pkg.go.dev/") || d.Metadata["version"] == "" {
			t.Errorf("%s lacks a title, URL or version: %q %q %v", d.ID, d.Title, d.URL, d.Metadata)
		}
		if !strings.HasPrefix(d.Text, "# ") || !strings.HasSuffix(d.Text, "\n\n") || strings.Count(d.Text, "\n```")%2 != 0 {
			t.Errorf("%s is not well formed", d.ID)
		}
		if len(d.Text) > 80<<10 {
			t.Errorf("%s has %d bytes", d.ID, len(d.Text))
		}
		for _, part := range strings.Split(d.ID, "/") {
			if part == "internal" || part == "vendor" || part == "cmd" {
				t.Errorf("%s should not be in the corpus", d.ID)
			}
		}
	}
	if documents[0].ID != "fmt" || len(documents) < 200 || total < 1<<20 {
		t.Errorf("%d documents, %d bytes, first %s", len(documents), total, documents[0].ID)
	}
	for _, id := range []string{"net/http", "net/http.Request", "time.Time", "builtin", "unsafe", "weak"} {
		if !seen[id] {
			t.Errorf("%s is missing", id)
		}
	}

	goroot, err := FindGOROOT(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for d, err := range Standard(goroot) {
		if err != nil || d.ID != documents[i].ID || d.Text != documents[i].Text {
			t.Fatalf("a second time, document %d is %s (%v), not %s, or reads otherwise", i, d.ID, err, documents[i].ID)
		}
		if i++; i == 80 {
			break
		}
	}
}

// TestStandardShowsGo: every Go block of a document is what gofmt would write.
func TestStandardShowsGo(t *testing.T) {
	blocks := 0
	for _, d := range standardCorpus(t)[:50] {
		for i, block := range strings.Split(d.Text, "```go\n") {
			if i == 0 {
				continue
			}
			code, _, _ := strings.Cut(block, "\n```")
			formatted, err := format.Source([]byte(code))
			if err != nil {
				t.Errorf("%s: %v in\n%s", d.ID, err, code)
			} else if !bytes.Equal(bytes.TrimSpace(formatted), []byte(strings.TrimSpace(code))) {
				t.Errorf("%s: not formatted:\n%s", d.ID, code)
			}
			blocks++
		}
	}
	if blocks < 500 {
		t.Errorf("only %d blocks of code", blocks)
	}
}

func TestStandardStopsEarly(t *testing.T) {
	for d, err := range Standard("testdata/goroot") {
		if err != nil || d.ID != "fmt" {
			t.Errorf("first document %s, %v", d.ID, err)
		}
		break
	}
	if _, err := collect(Standard(t.TempDir())); err == nil {
		t.Error("a tree without source gave no error")
	}
}

func TestFindGOROOT(t *testing.T) {
	if hasSource("") || hasSource(t.TempDir()) {
		t.Error("an empty directory has no source")
	}
	if !hasSource("testdata/goroot") {
		t.Error("the small tree has its source")
	}
}

func TestReleaseTags(t *testing.T) {
	for version, want := range map[string]int{"go1.21": 21, "go1.26.8": 26, "go1.27rc1": 27, "go1.26-custom": 26} {
		if tags := releaseTags(version); len(tags) != want || tags[want-1] != fmt.Sprintf("go1.%d", want) {
			t.Errorf("%s: %v", version, tags)
		}
	}
	if len(releaseTags("devel +abc")) == 0 {
		t.Error("a development tree satisfies no version")
	}
}

func TestFallback(t *testing.T) {
	files := fstest.MapFS{
		"README.md":     {Data: []byte("intro\n\n# The title\n")},
		"adr/0001-a.md": {Data: []byte("no heading")},
		"docs.go":       {Data: []byte("package docs")},
	}
	documents, err := collect(Fallback(files))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range documents {
		got = append(got, d.ID+": "+d.Title)
	}
	if want := []string{"README.md: The title", "adr/0001-a.md: adr/0001-a.md"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for range Fallback(files) {
		break
	}
	if _, err := collect(Fallback(os.DirFS(filepath.Join(t.TempDir(), "none")))); err == nil {
		t.Error("a directory that is not there gave no error")
	}
}

func BenchmarkStandard(b *testing.B) {
	standardCorpus(b)
	for b.Loop() {
		if _, err := standardAgain(); err != nil {
			b.Fatal(err)
		}
	}
}
