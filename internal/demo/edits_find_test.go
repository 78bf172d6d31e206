package demo

import (
	"math"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// TestQueriesFindTheirEdits ranks all paragraphs of the corpus with all notes in it by BM25, the least a search can
// do: a query whose note is not near the top would make a poor tour.
func TestQueriesFindTheirEdits(t *testing.T) {
	words := func(s string) []string {
		return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	}
	var paragraphs [][]string
	frequency := make(map[string]int)
	add := func(p []string) {
		paragraphs = append(paragraphs, p)
		for _, w := range slices.Compact(slices.Sorted(slices.Values(p))) {
			frequency[w]++
		}
	}
	for _, d := range standardCorpus(t) {
		for p := range strings.SplitSeq(d.Text, "\n\n") {
			add(words(p))
		}
	}
	type probe struct{ query, want string }
	var probes []probe
	length := 0
	for round := range 2 {
		for _, n := range standardNotes {
			probes = append(probes, probe{n.queries[round], n.texts[round]})
			add(words(n.texts[round]))
		}
	}
	for _, p := range paragraphs {
		length += len(p)
	}
	mean := float64(length) / float64(len(paragraphs))
	score := func(query map[string]float64, p []string) float64 {
		counts := make(map[string]float64)
		for _, w := range p {
			if query[w] > 0 {
				counts[w]++
			}
		}
		var sum float64
		for w, n := range counts {
			sum += query[w] * n * 2.2 / (n + 1.2*(0.25+0.75*float64(len(p))/mean))
		}
		return sum
	}
	for i, p := range probes {
		query := make(map[string]float64)
		for _, w := range words(p.query) {
			if n := float64(frequency[w]); n > 0 {
				query[w] = math.Log(1 + (float64(len(paragraphs))-n+0.5)/(n+0.5))
			}
		}
		want := score(query, paragraphs[len(paragraphs)-len(probes)+i])
		rank := 1
		for _, other := range paragraphs {
			if score(query, other) > want {
				rank++
			}
		}
		if rank > 3 {
			t.Errorf("%q finds its note at rank %d: %s", p.query, rank, p.want)
		}
	}
}
