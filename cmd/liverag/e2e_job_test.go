package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestEndToEndScripts runs whole sessions of a user. `background` in a script starts `liverag up` and waits until it serves.
func TestEndToEndScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "e2e"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("NO_COLOR", "1")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "serving": serving},
	})
}

// serving waits until the liverag that was started in the background on a data directory serves: serving DIR.
func serving(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serving DIR")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(waitServing(dir))
}

// checkSpans holds every hit to the text of its document.
func checkSpans(t *testing.T, p *program, f found) {
	t.Helper()
	for _, h := range f.Hits {
		doc, ok := p.get(h.Document)
		if !ok {
			t.Fatalf("the hit's document %q is not there", h.Document)
		}
		if doc.Text[h.Start:h.End] != h.Text {
			t.Errorf("%s: text[%d:%d] is %q, and the hit says %q", h.Document, h.Start, h.End, doc.Text[h.Start:h.End], h.Text)
		}
	}
}

func TestTheMainJob(t *testing.T) {
	t.Parallel()
	p := startProgram(t, t.TempDir(), "--embedder", defaultConfig().Embedder)

	files := t.TempDir()
	write(t, files, "refunds.md", []byte("# Refunds\n\nRefunds take five working days.\n\n# Späte Zahlung\n\nMahnung nach zwölf Tagen.\n"))
	write(t, files, "page.html", []byte(`<html><head><title>Shipping</title></head><body><h1>Shipping</h1><p>Parcels leave on <b>Tuesday</b>.</p></body></html>`))

	p.verb("", "put", "kb/refunds.md", filepath.Join(files, "refunds.md"), "--metadata", "team=billing", "--metadata", "year=2026", "--url", "https://example.com/r")
	p.verb("", "put", "kb/shipping", filepath.Join(files, "page.html"))
	p.verb("Notes from a pipe about zebras.", "put", "from stdin", "-")
	p.verb("", "put", "from-flag", "--text", "A flag about giraffes.")

	for query, want := range map[string]string{
		"how long do refunds take": "kb/refunds.md", "Mahnung nach zwölf Tagen": "kb/refunds.md", "when do parcels leave": "kb/shipping",
		"zebras": "from stdin", "giraffes": "from-flag",
	} {
		f := p.ask(query, nil)
		if len(f.Hits) == 0 || f.Hits[0].Document != want {
			t.Errorf("%q finds %q first, want %s", query, f.documents(), want)
			continue
		}
		checkSpans(t, p, f)
	}
	if doc, _ := p.get("kb/shipping"); doc.Title != "Shipping" || !strings.Contains(doc.Text, "Parcels leave on **Tuesday**") {
		t.Errorf("HTML became %+v", doc)
	}
	if f := p.ask("refunds", map[string]any{"filter": map[string]any{"team": "billing", "year": map[string]any{"$gte": 2025}}}); !slices.Equal(unique(f.documents()), []string{"kb/refunds.md"}) {
		t.Errorf("the filter lets %q through", f.documents())
	}
	out := p.verb("", "query", "how long do refunds take", "--json")
	if !json.Valid([]byte(out)) || !strings.Contains(out, "five working days") {
		t.Errorf("query --json prints %s", out)
	}

	// An edit is there when put returns, and the old text is not.
	p.verb("", "put", "kb/refunds.md", "--text", "Refunds take nine days since the summer.")
	f := p.ask("refunds take days", nil)
	if len(f.Hits) == 0 || f.Hits[0].Document != "kb/refunds.md" || f.Hits[0].Text != "Refunds take nine days since the summer." {
		t.Errorf("after the edit: %+v", f.Hits)
	}
	for _, h := range f.Hits {
		if strings.Contains(h.Text, "five working days") {
			t.Errorf("the old version is still found: %+v", h)
		}
	}

	// A deletion is effective when rm returns.
	p.verb("", "rm", "kb/refunds.md", "never-there")
	if f := p.ask("refunds take days", map[string]any{"k": 200}); slices.Contains(f.documents(), "kb/refunds.md") {
		t.Errorf("a deleted document is found: %+v", f.Hits)
	}
	if _, ok := p.get("kb/refunds.md"); ok {
		t.Error("a deleted document can be read")
	}

	// A document without text is kept, and never a hit.
	p.verb("", "put", "empty", "--text", "")
	if doc, ok := p.get("empty"); !ok || len(doc.Chunks) != 0 {
		t.Errorf("an empty document is %+v, %v", doc, ok)
	}
}

func unique(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}

func TestOddIDs(t *testing.T) {
	t.Parallel()
	p := startProgram(t, t.TempDir())
	ids := []string{
		"a/b/c", "/leading", "trailing/", "a//b", "with space", " ", "tab-free", "ümläut/ß", "日本語", "🦊/🐻‍❄️", "100%", "%2F", "a+b", "?q=1&x#frag", "..", ".", "../../etc/passwd",
		`back\slash`, `quote"d`, "semi;colon", "é", "e\u0301", strings.Repeat("x", 1024), strings.Repeat("ü", 512), "-dash", "--flag", "acl", "a:b@c",
	}
	for i, id := range ids {
		text := fmt.Sprintf("Document number%d speaks of itself.", i)
		if i%4 != 1 {
			p.put(id, text)
		} else {
			p.verb("", "put", "--text", text, "--", id)
		}
	}
	for i, id := range ids {
		doc, ok := p.get(id)
		if !ok || doc.ID != id || !strings.Contains(doc.Text, fmt.Sprintf("number%d ", i)) {
			t.Errorf("%q reads back as %q (%v) %q", id, doc.ID, ok, doc.Text)
		}
		f := p.ask(fmt.Sprintf("number%d", i), map[string]any{"mode": "lexical"})
		if len(f.Hits) != 1 || f.Hits[0].Document != id {
			t.Errorf("%q is not what its own word finds: %q", id, f.documents())
		}
		f = p.ask("document", map[string]any{"filter": map[string]any{"@id": id}})
		if len(f.Hits) != 1 || f.Hits[0].Document != id {
			t.Errorf("the filter @id=%q finds %q", id, f.documents())
		}
	}
	for _, id := range ids {
		p.remove(id)
	}
	if f := p.ask("document speaks", map[string]any{"k": 200}); len(f.Hits) != 0 {
		t.Errorf("after all were deleted there are %q", f.documents())
	}
}

func TestImports(t *testing.T) {
	t.Parallel()
	p := startProgram(t, t.TempDir())
	folder := t.TempDir()
	write(t, folder, "notes.txt", []byte("Plain notes on otters.\n"))
	write(t, folder, "deep/er/guide.md", []byte("# A guide to badgers\n\nBadgers dig.\n"))
	write(t, folder, "site/index.html", []byte("<title>Herons</title><p>Herons stand still.</p>"))
	write(t, folder, "manual.pdf", []byte("%PDF-1.7\n\x00\x01binary"))
	write(t, folder, "picture.png", []byte("\x89PNG\r\n\x1a\n\x00\x00"))
	write(t, folder, "data.txt", []byte("half\x00binary"))
	write(t, folder, "latin1.txt", []byte("caf\xe9"))
	write(t, folder, ".hidden.md", []byte("secret"))

	out := p.verb("", "import", folder, "--prefix", "imp/", "--wait", "20s")
	for _, want := range []string{"imported 3 documents", "PDF", "manual.pdf", "binary", "data.txt", "not valid UTF-8", "latin1.txt", "hidden", "image", "searchable"} {
		if !strings.Contains(out, want) {
			t.Errorf("import does not say %q:\n%s", want, out)
		}
	}
	for query, want := range map[string]string{"otters": "imp/notes.txt", "badgers dig": "imp/deep/er/guide.md", "herons": "imp/site/index.html"} {
		if f := p.ask(query, nil); len(f.Hits) == 0 || f.Hits[0].Document != want {
			t.Errorf("%q finds %q", query, f.documents())
		}
	}
	if doc, _ := p.get("imp/deep/er/guide.md"); doc.Title != "A guide to badgers" {
		t.Errorf("the title is %q", doc.Title)
	}
	// Importing again embeds nothing.
	before := p.metric("liverag_chunks_embedded_total")
	p.verb("", "import", folder, "--prefix", "imp/", "--wait", "20s")
	if after := p.metric("liverag_chunks_embedded_total"); after != before {
		t.Errorf("importing the same again embedded %v chunks", after-before)
	}

	lines := strings.Join([]string{
		`{"id":"l/1","text":"The first line is about quinces."}`,
		`{"id":"l/2"}`,
		`{"id":"l/3","text":"x","colour":"red"}`,
		`not json`,
		`{"id":"","text":"x"}`,
		``,
		`{"id":"l/7","text":"The seventh line is about medlars."}`,
		`{"id":"l/1","deleted":true}`,
		`{"id":"l/9","text":"The last line has no newline, and is about sloes."}`,
	}, "\n")
	file := filepath.Join(t.TempDir(), "dump.ndjson")
	if err := os.WriteFile(file, []byte(lines), 0o644); err != nil {
		t.Fatal(err)
	}
	r := runs(t, "", "import", file, "--wait", "20s", "--server", p.base)
	if r.code != 1 || !strings.Contains(r.err, "4 documents refused") {
		t.Errorf("an import with bad lines exits with %d and says %q", r.code, r.err)
	}
	for _, want := range []string{"imported 4 documents", "dump.ndjson:2", "dump.ndjson:3", "unknown_field", "dump.ndjson:4", "dump.ndjson:5", "id_invalid"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("the import does not say %q:\n%s", want, r.out)
		}
	}
	if f := p.ask("quinces medlars sloes line", map[string]any{"filter": map[string]any{"@id": map[string]any{"$in": []string{"l/1", "l/7", "l/9"}}}}); !slices.Equal(unique(f.documents()), []string{"l/7", "l/9"}) {
		t.Errorf("the good lines gave %q", f.documents())
	}
	if out := p.verb(lines[:len(`{"id":"l/1","text":"The first line is about quinces."}`)], "import", "-", "--wait", "20s"); !strings.Contains(out, "imported 1 document ") {
		t.Errorf("import from a pipe says %s", out)
	}
	if _, ok := p.get("l/1"); !ok {
		t.Error("what came from the pipe is not there")
	}
}
