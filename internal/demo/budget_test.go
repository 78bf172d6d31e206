package demo

import (
	"slices"
	"strings"
	"testing"
)

func TestBudget(t *testing.T) {
	of := func(pkg string, ids ...string) (out []Document) {
		for _, id := range ids {
			out = append(out, Document{ID: id, Text: strings.Repeat("x", 10), Metadata: map[string]any{"package": pkg}})
		}
		return out
	}
	// There are questions about context, net/http and bufio; there is none about the packages that don't exist.
	corpus := slices.Concat(of("a", "a"), of("net/http", "net/http", "net/http.Server", "net/http.Request"), of("b", "b", "b.T"), of("context", "context"), of("bufio", "bufio", "bufio.Scanner"))
	guides := []Document{{ID: "a.md", Text: strings.Repeat("x", 30)}, {ID: "a.b.md", Text: strings.Repeat("x", 10)}, {ID: "c.md", Text: strings.Repeat("x", 10)}}
	for _, tt := range []struct {
		name      string
		documents []Document
		budget    int
		first     string
	}{
		{"nothing fits", corpus, 9, ""},
		{"no budget", corpus, 0, ""},
		{"what is asked about, before what comes first", corpus, 10, "context"},
		{"a whole package or nothing of it", corpus, 29, "a context"},
		{"most used first", corpus, 30, "net/http net/http.Server net/http.Request"},
		{"with what still fits", corpus, 40, "net/http net/http.Server net/http.Request context"},
		{"smaller ones fill up", corpus, 50, "a net/http net/http.Server net/http.Request context"},
		{"all questions", corpus, 60, "net/http net/http.Server net/http.Request context bufio bufio.Scanner"},
		{"in the corpus' order", corpus, 70, "a net/http net/http.Server net/http.Request context bufio bufio.Scanner"},
		{"everything", corpus, 90, "a net/http net/http.Server net/http.Request b b.T context bufio bufio.Scanner"},
		{"guides", guides, 20, "a.b.md c.md"},
		{"nothing at all", nil, 100, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			size := func(d Document) int { asked++; return len(d.Text) }
			first, rest := Budget(tt.documents, tt.budget, size)
			if asked != len(tt.documents) {
				t.Errorf("%d sizes of %d documents were asked for", asked, len(tt.documents))
			}
			if got := strings.Join(idsOf(first), " "); got != tt.first {
				t.Errorf("first %s, want %s", got, tt.first)
			}
			// The rest is what the first part leaves, in the same order.
			var want []string
			for _, d := range tt.documents {
				if !slices.Contains(idsOf(first), d.ID) {
					want = append(want, d.ID)
				}
			}
			if !slices.Equal(idsOf(rest), want) {
				t.Errorf("rest %v, want %v", idsOf(rest), want)
			}
		})
	}
}

func idsOf(documents []Document) (ids []string) {
	for _, d := range documents {
		ids = append(ids, d.ID)
	}
	return ids
}

// TestBudgetOfTheCorpus: a part of the corpus answers more questions than its share, and never has half a package.
func TestBudgetOfTheCorpus(t *testing.T) {
	documents := standardCorpus(t)
	total := 0
	for _, d := range documents {
		total += len(d.Text)
	}
	all := len(Questions(func(string) bool { return true }))
	known := func(documents []Document) int {
		ids := idsOf(documents)
		return len(Questions(func(id string) bool { return slices.Contains(ids, id) }))
	}
	before := 0
	for _, percent := range []int{5, 10, 20, 40, 60, 80, 100} {
		budget := total * percent / 100
		first, rest := Budget(documents, budget, func(d Document) int { return len(d.Text) })
		bytes := 0
		here := make(map[string]bool)
		for _, d := range first {
			bytes += len(d.Text)
			here[packageIn(d)] = true
		}
		for _, d := range rest {
			if here[packageIn(d)] {
				t.Errorf("%d %%: %s is not with its package", percent, d.ID)
			}
		}
		n := known(first)
		if bytes > budget || len(first)+len(rest) != len(documents) {
			t.Errorf("%d %%: %d bytes, the budget is %d; %d and %d documents of %d", percent, bytes, budget, len(first), len(rest), len(documents))
		}
		if n < all*percent/100 || n < before {
			t.Errorf("%d %% of the corpus answer %d of %d questions, less of it %d", percent, n, all, before)
		}
		before = n
		t.Logf("%d %%: %d documents with %d bytes answer %d of %d questions", percent, len(first), bytes, n, all)
	}
	if before != all {
		t.Errorf("the whole corpus answers %d of %d questions", before, all)
	}
}

// TestMostUsedFirst: names of the list that are no packages would be of no use, and those of newer Go versions may be missing.
func TestMostUsedFirst(t *testing.T) {
	here := make(map[string]bool)
	for _, d := range standardCorpus(t) {
		here[packageIn(d)] = true
	}
	missing := 0
	seen := make(map[string]bool)
	for _, p := range mostUsed {
		if seen[p] {
			t.Errorf("%s is there twice", p)
		}
		seen[p] = true
		if !here[p] {
			missing++
			t.Logf("%s is not in this corpus", p)
		}
	}
	if missing > 5 {
		t.Errorf("%d of %d packages are not in the corpus", missing, len(mostUsed))
	}
}
