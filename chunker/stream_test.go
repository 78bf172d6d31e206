package chunker

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestTokensAnEdit replays the edit history of real documentation, and measures what an edit costs when only chunks with new text are
// embedded. A separate prototype measured 767 tokens an edit for recursive at 400 and 442 for headings first; context was no part of it.
func TestTokensAnEdit(t *testing.T) {
	dir := sharedDir(t)
	if testing.Short() || scale > 1 {
		t.Skip("replaying 2,288 changes takes a few seconds")
	}
	for _, tt := range []struct {
		o        Options
		min, max float64 // tokens an edit, by the chunks' text
	}{
		{Options{Strategy: Recursive, Tokens: 400}, 700, 830},
		{Options{Strategy: Markdown, Tokens: 400}, 300, 480},
		{Options{Strategy: Markdown, Tokens: 200}, 200, 400},
	} {
		c := newChunker(t, tt.o)
		texts := map[string]string{}
		edits, byText, byInput, chunks, tokens := 0, 0, 0, 0, 0
		changes(t, filepath.Join(dir, "data/streams/docs-stream-a/changes.jsonl.gz"), func(op, key, oldKey, content string) {
			before, known := texts[key]
			if op == "rename" {
				before, known = texts[oldKey]
				delete(texts, oldKey)
			}
			if op == "delete" {
				delete(texts, key)
				return
			}
			texts[key] = content
			if !known || before == content {
				return
			}
			edits++
			heldText := map[string]bool{}
			inputs := map[string]bool{}
			for _, c := range c.split("text/markdown", before) {
				heldText[before[c.Start:c.End]] = true
				inputs[c.Context+"\n"+before[c.Start:c.End]] = true
			}
			for _, c := range c.split("text/markdown", content) {
				chunks++
				tokens += c.Tokens
				text := content[c.Start:c.End]
				if !heldText[text] {
					byText += c.Tokens
				}
				if !inputs[c.Context+"\n"+text] {
					byInput += c.Tokens
				}
			}
		})
		an := func(n int) float64 { return float64(n) / float64(edits) }
		t.Logf("%s: %d edits, %.0f tokens an edit by text, %.0f by text and context, of %.0f; %.1f chunks of %.0f tokens a document",
			c.Name(), edits, an(byText), an(byInput), an(tokens), an(chunks), float64(tokens)/float64(chunks))
		if got := an(byText); got < tt.min || got > tt.max {
			t.Errorf("%s: %.0f tokens an edit, want %.0f to %.0f", c.Name(), got, tt.min, tt.max)
		}
	}
}

// changes reads a change stream.
func changes(t *testing.T, file string, each func(op, key, oldKey, content string)) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(z); ; {
		var c struct {
			Op, Key, Content string
			OldKey           string `json:"old_key"`
		}
		if err := d.Decode(&c); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		each(c.Op, c.Key, c.OldKey, c.Content)
	}
}
