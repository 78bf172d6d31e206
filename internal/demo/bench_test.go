package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestBenchDocuments: figures taken on different machines can be compared only if the documents are the same to the byte.
func TestBenchDocuments(t *testing.T) {
	sum := sha256.New()
	total, i := 0, 0
	var headings, code, lists, tables int
	words := make(map[string]int)
	for d := range BenchDocuments(500, 1) {
		if again := BenchDocument(1, i); !reflect.DeepEqual(again, d) {
			t.Fatalf("document %d is another when made alone", i)
		}
		i++
		fmt.Fprintf(sum, "%s\n%s\n%v\n%s", d.ID, d.Title, d.Metadata, d.Text)
		if len(d.Text) < 3<<10 || len(d.Text) > 6<<10 {
			t.Errorf("%s has %d bytes", d.ID, len(d.Text))
		}
		if !utf8.ValidString(d.Text) || !strings.HasPrefix(d.Text, "# "+d.Title+"\n\n") || strings.Count(d.Text, "\n```")%2 != 0 {
			t.Errorf("%s is not well formed:\n%s", d.ID, d.Text)
		}
		total += len(d.Text)
		headings += strings.Count(d.Text, "\n## ")
		code += strings.Count(d.Text, "\n```") / 2
		lists += strings.Count(d.Text, "\n\n- ")
		tables += strings.Count(d.Text, "\n|---")
		for _, word := range strings.FieldsFunc(strings.ToLower(d.Text), func(r rune) bool { return r < 'a' || r > 'z' }) {
			words[word]++
		}
	}
	if i != 500 || headings < 1000 || code < 100 || lists < 100 || tables < 50 {
		t.Errorf("%d documents with %d headings, %d blocks of code, %d lists, %d tables", i, headings, code, lists, tables)
	}
	counts := make([]int, 0, len(words))
	for _, n := range words {
		counts = append(counts, n)
	}
	slices.Sort(counts)
	slices.Reverse(counts)
	// Zipf: the tenth word is far more frequent than the hundredth, that than the thousandth, and many are rare.
	if len(counts) < 2000 || counts[9] < 3*counts[99] || counts[99] < 3*counts[999] {
		t.Errorf("%d different words, the 10th, 100th and 1000th come %d, %d and %d times", len(counts), counts[9], counts[99], counts[999])
	}
	t.Logf("mean %d bytes, %d different words, the 10th, 100th and 1000th come %d, %d and %d times", total/i, len(counts), counts[9], counts[99], counts[999])
	golden(t, "bench.sha256", hex.EncodeToString(sum.Sum(nil))+"\n")
	golden(t, "bench.md", BenchDocument(1, 0).Text)

	if BenchDocument(1, 3).Text == BenchDocument(2, 3).Text {
		t.Error("two seeds give the same document")
	}
	if q := BenchQuery(1, 3); q == BenchQuery(1, 4) || q != BenchQuery(1, 3) {
		t.Errorf("query %q", q)
	}
}

func TestEditParagraph(t *testing.T) {
	for i := range 200 {
		text := BenchDocument(1, i%5).Text
		edited := EditParagraph(text, i)
		if n := changedParagraphs(text, edited); n != 1 || edited == text {
			t.Errorf("edit %d changes %d paragraphs", i, n)
		}
		if edited != EditParagraph(text, i) {
			t.Errorf("edit %d is another the second time", i)
		}
		if EditParagraph(edited, i) == edited {
			t.Errorf("edit %d repeated changes nothing", i)
		}
		if strings.Count(edited, "\n#") != strings.Count(text, "\n#") || strings.Count(edited, "```") != strings.Count(text, "```") {
			t.Errorf("edit %d changes a heading or code", i)
		}
	}
	changed := make(map[int]bool)
	text := BenchDocument(1, 0).Text
	paragraphs := strings.Split(text, "\n\n")
	for i := range 40 {
		for n, p := range strings.Split(EditParagraph(text, i), "\n\n") {
			if p != paragraphs[n] {
				changed[n] = true
			}
		}
	}
	if len(changed) < 5 {
		t.Errorf("40 edits changed only the paragraphs %v", changed)
	}
}

func FuzzEditParagraph(f *testing.F) {
	f.Add("# a\n\nb. c.\n\n```\nd\n\ne\n```\n", 1)
	f.Add("", -1)
	f.Add("```\n\n", 0)
	f.Fuzz(func(t *testing.T, text string, i int) {
		if EditParagraph(text, i) == text {
			t.Error("nothing was changed")
		}
	})
}

func BenchmarkBenchDocument(b *testing.B) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		b.SetBytes(int64(len(BenchDocument(1, i).Text)))
		i++
	}
}
