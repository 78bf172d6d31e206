package demo

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// take gives the first n edits.
func take(documents []Document, seed uint64, n int) []Edit {
	var edits []Edit
	for e := range Edits(documents, seed) {
		if edits = append(edits, e); len(edits) == n {
			break
		}
	}
	return edits
}

// corpora are the kinds of corpus that edits are made for.
func corpora(t *testing.T) map[string][]Document {
	guides := []Document{
		{ID: "a.md", Title: "A", Text: "# A\n\nFirst paragraph. Second sentence.\n\nAnother one.\n", Metadata: map[string]any{"kind": "guide"}},
		{ID: "b.md", Title: "B", Text: "```\n# no heading\n```\n"},
		{ID: "c.md", Title: "C", Text: "only one line"},
		{ID: "d.md", Title: "D", Text: "# D\n\nTo be deleted.\n"},
	}
	m := map[string][]Document{"guides": guides, "one guide": guides[:1]}
	if documents, err := standard(); err == nil {
		m["standard"] = documents
	} else {
		t.Log("without the standard corpus: ", err)
	}
	return m
}

func TestEdits(t *testing.T) {
	for name, documents := range corpora(t) {
		t.Run(name, func(t *testing.T) {
			state := make(map[string]Document)
			for _, d := range documents {
				state[d.ID] = d
			}
			before := fmt.Sprint(documents[0])
			kinds := make(map[string]int)
			edits := take(documents, 7, 66)
			for i, e := range edits {
				old, existed := state[e.Document.ID]
				if e.Query == "" || !strings.HasPrefix(e.Summary, e.Document.ID+": ") {
					t.Errorf("edit %d: query %q, summary %q", i, e.Query, e.Summary)
				}
				kind, _, _ := strings.Cut(strings.TrimPrefix(e.Summary, e.Document.ID+": "), " below ")
				kinds[kind]++
				if e.Deleted {
					if !existed {
						t.Errorf("edit %d deletes %s, which is not there", i, e.Document.ID)
					}
					delete(state, e.Document.ID)
					continue
				}
				if e.Want == "" || !strings.Contains(e.Document.Text, e.Want) || strings.Contains(old.Text, e.Want) {
					t.Errorf("edit %d (%s): %q is not new in the document", i, e.Summary, e.Want)
				}
				if e.Gone != "" && (!strings.Contains(old.Text, e.Gone) || strings.Contains(e.Document.Text, e.Gone)) {
					t.Errorf("edit %d (%s): %q was not replaced", i, e.Summary, e.Gone)
				}
				if existed {
					if n := changedParagraphs(old.Text, e.Document.Text); n != 1 {
						t.Errorf("edit %d (%s) changes %d paragraphs", i, e.Summary, n)
					}
				}
				state[e.Document.ID] = e.Document
			}
			t.Log(kinds)
			if got := take(documents, 7, 66); !reflect.DeepEqual(got, edits) {
				t.Error("the same seed gives other edits")
			}
			if len(documents) > 1 && (kinds["deleted"] == 0 || kinds["created again"] == 0) {
				t.Errorf("nothing was deleted and created again: %v", kinds)
			}
			for _, d := range Restore(documents, edits) {
				state[d.ID] = d
			}
			for _, d := range documents {
				if !reflect.DeepEqual(state[d.ID], d) {
					t.Errorf("%s was not restored", d.ID)
				}
			}
			if fmt.Sprint(documents[0]) != before {
				t.Error("the caller's documents were changed")
			}
		})
	}
	if edits := take(nil, 1, 1); len(edits) != 0 {
		t.Errorf("edits of nothing: %v", edits)
	}
}

func TestEditsDependOnTheSeed(t *testing.T) {
	documents := standardCorpus(t)
	a, b := take(documents, 1, 20), take(documents, 2, 20)
	if reflect.DeepEqual(a, b) {
		t.Error("two seeds give the same order")
	}
}

// TestEveryNoteFits: each note about the standard library finds its place in the corpus.
func TestEveryNoteFits(t *testing.T) {
	documents := byID(t)
	for _, n := range standardNotes {
		id := n.document
		if _, ok := documents[id]; !ok {
			id = packageOf(id)
		}
		if _, _, ok := section(documents[id].Text, n.heading); !ok {
			t.Errorf("%s has no %q with a paragraph", id, n.heading)
		}
	}
}

func TestSection(t *testing.T) {
	text := "# T\n\nIntro one.\ncontinued\n\n### func A\n\n```go\n# func B\nfunc A()\n```\n\nA does. More.\n\n### func B\n\n```go\nfunc B()\n```\n\n### func C\n\nLast"
	for heading, want := range map[string]string{"": "Intro one.\ncontinued", "func A": "A does. More.", "func B": "", "func C": "Last", "func D": ""} {
		start, end, ok := section(text, heading)
		if text[start:end] != want || ok != (want != "") {
			t.Errorf("%q: %q, %v, want %q", heading, text[start:end], ok, want)
		}
	}
}

// changedParagraphs counts the paragraphs that one text has and the other has not, a replaced one once.
func changedParagraphs(a, b string) int {
	x, y := strings.Split(strings.TrimRight(a, "\n"), "\n\n"), strings.Split(strings.TrimRight(b, "\n"), "\n\n")
	same := 0
	for same < min(len(x), len(y)) && x[same] == y[same] {
		same++
	}
	x, y = x[same:], y[same:]
	for len(x) > 0 && len(y) > 0 && x[len(x)-1] == y[len(y)-1] {
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	return max(len(x), len(y))
}

func TestChangedParagraphs(t *testing.T) {
	var got []int
	for _, b := range []string{"a\n\nb\n\nc", "a\n\nx\n\nc", "a\n\nb\n\nx\n\nc", "x\n\nb\n\ny", "a\n\nc"} {
		got = append(got, changedParagraphs("a\n\nb\n\nc", b))
	}
	if want := []int{0, 1, 1, 3, 1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
