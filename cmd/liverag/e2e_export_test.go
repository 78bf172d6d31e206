package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/parquet-go/parquet-go"
)

func TestExport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := startProgram(t, t.TempDir(), "--embedder", "hash/64", "--chunker", "recursive", "--tokens", "20")
	texts := map[string]string{}
	for i := range 150 {
		id := fmt.Sprintf("kb/%03d ü", i)
		texts[id] = prose(fmt.Sprint("word", i), 30) + "\n\nÄnderung " + prose("x", i%7)
		p.putAs(id, map[string]any{"text": texts[id], "title": "Title " + id, "metadata": map[string]any{"team": "a", "n": i}})
	}
	p.put("twice", "the same\n\nthe same")
	texts["twice"] = "the same\n\nthe same"
	p.put("gone", "not for long")
	p.remove("gone")
	p.must(nil, "PUT", "/documents/closed?wait=5s", `{"text":"for some only","acl":["ada"]}`)
	out := filepath.Join(dir, "out.parquet")
	var said struct {
		Documents, Chunks, Dim int
	}
	if err := json.Unmarshal([]byte(p.verb("", "export", "--out", out, "--json")), &said); err != nil || said.Documents != len(texts) || said.Dim != 64 {
		t.Errorf("it says %+v, %v", said, err)
	}
	rows, err := parquet.ReadFile[exportRow](out)
	if err != nil || len(rows) != said.Chunks {
		t.Fatalf("%d rows, %v, want %d", len(rows), err, said.Chunks)
	}
	got := map[string][]exportRow{}
	for _, r := range rows {
		got[r.Document] = append(got[r.Document], r)
	}
	if len(got) != len(texts) {
		t.Errorf("%d documents, want %d", len(got), len(texts))
	}
	for id, text := range texts {
		doc, _ := p.get(id)
		if len(got[id]) != len(doc.Chunks) {
			t.Errorf("%s has %d rows, want %d", id, len(got[id]), len(doc.Chunks))
			continue
		}
		for i, r := range got[id] {
			c := doc.Chunks[i]
			if r.Text != text[r.Start:r.End] || r.ID != c.ID || int(r.Start) != c.Start || r.Version != doc.Version || len(r.Vector) != 64 || r.LoggedAt.IsZero() {
				t.Errorf("%s: row %d is %+v, want %+v", id, i, r, c)
			}
			if id != "twice" && (r.Title != "Title "+id || r.Metadata == "{}") {
				t.Errorf("%s: title %q, metadata %s", id, r.Title, r.Metadata)
			}
		}
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, _ := f.Stat()
	file, err := parquet.OpenFile(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	if name, ok := file.Lookup("liverag.generation"); !ok || name != p.live().Name {
		t.Errorf("the file is of generation %q", name)
	}
	fails(t, 1, []string{"is there already"}, "export", "--out", out, "--server", p.base)
	fails(t, 1, []string{"generation_unknown"}, "export", "--generation", "none", "--out", out, "--server", p.base)
	if left, _ := filepath.Glob(filepath.Join(dir, ".export-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
