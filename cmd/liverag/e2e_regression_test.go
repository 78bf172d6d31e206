package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The tests of this file are of mistakes that pipelines of this kind are known to make.

// paragraphs makes a text that a chunker of few tokens cuts at each of its n paragraphs. Each names the word and its number.
func paragraphs(word string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "The %s paragraph, which is number %s%d of them all, stands alone here.\n\n", word, word, i)
	}
	return b.String()
}

// small is a recipe under which each of those paragraphs is one chunk.
var small = []string{"--chunker", "recursive", "--tokens", "24", "--embedder", "hash/64"}

func TestAShorterVersionLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	p := startProgram(t, t.TempDir(), small...)
	p.put("doc", paragraphs("first", 10))
	if doc, _ := p.get("doc"); len(doc.Chunks) != 10 {
		t.Fatalf("the first version has %d chunks, want 10", len(doc.Chunks))
	}
	p.put("doc", paragraphs("second", 3))
	doc, _ := p.get("doc")
	if len(doc.Chunks) != 3 {
		t.Errorf("the second version has %d chunks, want 3", len(doc.Chunks))
	}
	for _, mode := range []string{"hybrid", "dense", "lexical"} {
		f := p.ask("first second paragraph number stands alone", map[string]any{"k": 200, "mode": mode})
		if len(f.Hits) != 3 {
			t.Errorf("%s: %d chunks can be found, want 3", mode, len(f.Hits))
		}
		for _, h := range f.Hits {
			if h.Version != doc.Version || strings.Contains(h.Text, "first") {
				t.Errorf("%s: version %d is found: %q", mode, h.Version, h.Text)
			}
		}
	}
	if g := p.live(); g.Progress.Chunks != 3 {
		t.Errorf("the generation counts %d chunks", g.Progress.Chunks)
	}
}

func TestDocumentsOfManyChunks(t *testing.T) {
	p := startProgram(t, t.TempDir(), small...)
	p.put("many", paragraphs("many", 150))
	p.put("other", paragraphs("other", 5))
	f := p.ask("paragraph", map[string]any{"k": 200, "mode": "lexical", "filter": map[string]any{"@id": "many"}})
	if len(f.Hits) != 150 {
		t.Errorf("%d of 150 chunks can be found", len(f.Hits))
	}
	for i := range 150 {
		word := fmt.Sprintf("many%d", i)
		if f := p.ask(word, map[string]any{"mode": "lexical"}); len(f.Hits) != 1 || !strings.Contains(f.Hits[0].Text, word+" ") {
			t.Errorf("%s is found %d times", word, len(f.Hits))
		}
	}
	before := p.metric("liverag_chunks_embedded_total")
	edited := strings.Replace(paragraphs("many", 150), "number many77 of", "number many77 and edited of", 1)
	p.put("many", edited)
	if n := p.metric("liverag_chunks_embedded_total") - before; n != 1 {
		t.Errorf("an edit of one of 150 chunks embedded %v", n)
	}

	// A document of very many chunks goes by its key as a whole, and holds up nobody.
	const huge = 25_000
	p.put("huge", paragraphs("huge", huge))
	if g := p.live(); g.Progress.Chunks != huge+155 {
		t.Errorf("there are %d chunks, want %d", g.Progress.Chunks, huge+155)
	}
	p.remove("huge")
	if g := p.live(); g.Progress.Chunks != 155 || g.Progress.Documents != 2 {
		t.Errorf("after the deletion there are %d chunks of %d documents", g.Progress.Chunks, g.Progress.Documents)
	}
	for _, mode := range []string{"hybrid", "dense", "lexical"} {
		if f := p.ask("huge paragraph huge17 huge24999", map[string]any{"k": 200, "mode": mode}); slices.Contains(f.documents(), "huge") {
			t.Errorf("%s: chunks of the deleted document are found", mode)
		}
	}
}

func TestAChangeOfMetadataEmbedsNothing(t *testing.T) {
	t.Parallel()
	p := startProgram(t, t.TempDir())
	text := prose("metadata", 20)
	p.putAs("doc", map[string]any{"text": text, "metadata": map[string]any{"team": "a"}})
	chunks, tokens := p.metric("liverag_chunks_embedded_total"), p.metric("liverag_tokens_embedded_total")
	if chunks == 0 || tokens == 0 {
		t.Fatalf("%v chunks of %v tokens were embedded at first", chunks, tokens)
	}
	p.putAs("doc", map[string]any{"text": text, "metadata": map[string]any{"team": "b", "tags": []string{"x", "y"}}, "title": "A title", "url": "https://example.com"})
	if c, n := p.metric("liverag_chunks_embedded_total"), p.metric("liverag_tokens_embedded_total"); c != chunks || n != tokens {
		t.Errorf("a change of metadata embedded %v chunks of %v tokens", c-chunks, n-tokens)
	}
	f := p.ask("metadata", map[string]any{"filter": map[string]any{"team": "b", "tags": "y"}})
	if len(f.Hits) == 0 || f.Hits[0].Title != "A title" || f.Hits[0].URL != "https://example.com" {
		t.Errorf("the new metadata finds %+v", f.Hits)
	}
	if f := p.ask("metadata", map[string]any{"filter": map[string]any{"team": "a"}}); len(f.Hits) != 0 {
		t.Error("the old metadata still finds it")
	}
}

func TestOffsetsOfEveryChunker(t *testing.T) {
	t.Parallel()
	texts := map[string]string{
		"plain":   prose("plain", 30),
		"unicode": strings.Repeat("Ein Fuß große Äpfel, 日本語の文章です。🦊👩‍👩‍👧‍👦 é und e\u0301! ", 40),
		"crlf":    strings.Repeat("A line that ends as on Windows.\r\nAnd another one.\r\n\r\n", 30),
		"oneline": strings.Repeat("word ", 800),
		"nospace": strings.Repeat("abcdefghij", 300),
		"blanks":  "\n\n\n   text after blanks   \n\n\n\n" + strings.Repeat(" ", 500) + "and more\n\n",
		"code":    "# Code\n\n```go\n# no heading\nfunc main() {\n\n\tprintln(\"hi\")\n}\n```\n\n" + strings.Repeat("| a | b |\n|---|---|\n| 1 | 2 |\n\n", 20),
		"html":    "<html><head><title>T</title></head><body><h1>One</h1>" + strings.Repeat("<p>A paragraph with <b>bold</b> &amp; <a href='x'>link</a>.</p><ul><li>item</li></ul>", 30) + "</body></html>",
		"nul":     "a\x00b\x00 nul characters are characters too",
	}
	p := startProgram(t, t.TempDir(), "--embedder", "hash/64")
	for name, text := range texts {
		kind := "text/markdown"
		switch name {
		case "html":
			kind = "text/html"
		case "plain", "nospace", "nul":
			kind = "text/plain"
		}
		p.putAs(name, map[string]any{"text": text, "content_type": kind})
	}
	for _, recipe := range []struct {
		strategy        string
		tokens, overlap int
	}{{"markdown", 40, 0}, {"markdown", 40, 12}, {"recursive", 32, 0}, {"recursive", 32, 10}, {"token", 24, 0}, {"token", 24, 8}, {"whole", 200, 0}} {
		name := fmt.Sprintf("%s_%d", recipe.strategy, recipe.overlap)
		p.replay(name, map[string]any{"chunker": map[string]any{"strategy": recipe.strategy, "tokens": recipe.tokens, "overlap": recipe.overlap}})
		p.must(nil, "POST", "/generations/"+name+"/promote", nil)
		for id, text := range texts {
			doc, ok := p.get(id)
			if !ok || id != "html" && doc.Text != text {
				t.Errorf("%s: the text of %s is not what was written", name, id)
				continue
			}
			end := 0
			for _, c := range doc.Chunks {
				if doc.Text[c.Start:c.End] != c.Text {
					t.Errorf("%s: a chunk of %s is %q, and its span %d-%d says %q", name, id, c.Text, c.Start, c.End, doc.Text[c.Start:c.End])
				}
				if recipe.overlap == 0 && c.Start < end {
					t.Errorf("%s: a chunk of %s begins at %d, before %d, without overlap", name, id, c.Start, end)
				}
				if between := doc.Text[min(end, c.Start):c.Start]; strings.TrimSpace(between) != "" {
					t.Errorf("%s: %s loses %q between its chunks", name, id, between)
				}
				end = c.End
			}
			if strings.TrimSpace(doc.Text[end:]) != "" {
				t.Errorf("%s: %s loses %q at its end", name, id, doc.Text[end:])
			}
			checkSpans(t, p, p.ask("text word line paragraph Äpfel code", map[string]any{"k": 200, "filter": map[string]any{"@id": id}}))
		}
	}
}

// TestQueriesWhileBulkIsIndexed: an import must not take the answers down with it. How much slower they are is reported, and bounded.
func TestQueriesWhileBulkIsIndexed(t *testing.T) {
	p := startProgram(t, t.TempDir())
	for i := range 50 {
		p.put(fmt.Sprint("d/", i), prose(fmt.Sprint("quiet", i), 6))
	}
	ask := func() time.Duration {
		began := time.Now()
		got, err := p.call("GET", "/retrieve?k=8&q=what+is+said+of+quiet7", nil)
		if err != nil || got.status != http.StatusOK {
			t.Errorf("a query answers %d %s %v", got.status, got.body, err)
		}
		return time.Since(began)
	}
	percentiles := func(all []time.Duration) (p50, p99 time.Duration) {
		slices.Sort(all)
		return all[len(all)/2], all[len(all)*99/100]
	}
	var quiet []time.Duration
	for range 200 {
		quiet = append(quiet, ask())
	}
	var lines strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&lines, `{"id":"bulk/%d","text":%q}`+"\n", i, prose(fmt.Sprint("bulk", i), 10))
	}
	var wg sync.WaitGroup
	var indexed atomic.Bool
	wg.Go(func() {
		defer indexed.Store(true)
		p.verb(lines.String(), "import", "-", "--wait", "25s")
	})
	var loud []time.Duration
	for !indexed.Load() || len(loud) < 50 {
		loud = append(loud, ask())
	}
	wg.Wait()
	if g := p.live(); g.Progress.Documents != 1050 {
		t.Errorf("there are %d documents", g.Progress.Documents)
	}
	q50, q99 := percentiles(quiet)
	l50, l99 := percentiles(loud)
	// The bound is wide, for machines that do other things too. What it catches is an answer that waits until a batch, or the import, is done.
	if most := 100 * max(q99, 2*time.Millisecond); l99 > most {
		t.Errorf("p99 went from %s to %s while documents were indexed, more than a hundredfold", q99, l99)
	}
	t.Logf("quiet: p50 %s, p99 %s; while 1000 documents are indexed: p50 %s, p99 %s of %d", q50, q99, l50, l99, len(loud))
}
