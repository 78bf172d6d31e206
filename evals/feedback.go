package evals

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/liverag/liverag/stream"
)

// Labelled is what feedback says of which documents answer which questions.
type Labelled struct {
	// Questions have a grade for each document that was spoken of: 1 useful, 0 not. They are in the order in which each was first asked.
	Questions Questions
	// Votes is how many pieces of feedback there were, Conflicts of how many pairs of question and document opinions differed.
	Votes, Conflicts int
	// Unanswered is how many questions were left out, since nothing useful is known for them.
	Unanswered int
}

// FromFeedback makes a labelled set of feedback in any order. Questions are the same if their texts are, white space aside. Where opinions of a
// document differ, most of them count; of as many on either side, the newest. What is said of a chunk is said of its document.
func FromFeedback(all []stream.Feedback) Labelled {
	type pair struct{ query, document string }
	type votes struct {
		useful, useless int
		newest          stream.Feedback
	}
	order := slices.SortedStableFunc(slices.Values(all), func(a, b stream.Feedback) int {
		return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), a.Time.Compare(b.Time))
	})
	count := map[pair]*votes{}
	documents := map[string][]string{}
	var queries []string
	for _, f := range order {
		query := spaced(f.Query)
		if query == "" || f.Document == "" {
			continue
		}
		p := pair{query, f.Document}
		v := count[p]
		if v == nil {
			v = &votes{}
			count[p] = v
			if documents[query] == nil {
				queries = append(queries, query)
			}
			documents[query] = append(documents[query], f.Document)
		}
		if f.Useful {
			v.useful++
		} else {
			v.useless++
		}
		v.newest = f
	}
	out := Labelled{Votes: len(all)}
	for _, query := range queries {
		q := Question{ID: labelledID(query), Query: query, Grades: map[string]int{}}
		for _, document := range documents[query] {
			v := count[pair{query, document}]
			if v.useful > 0 && v.useless > 0 {
				out.Conflicts++
			}
			useful := v.useful > v.useless || v.useful == v.useless && v.newest.Useful
			if q.Grades[document] = 0; useful {
				q.Grades[document] = 1
			}
		}
		if q.Documents = graded(q.Grades); len(q.Documents) == 0 {
			out.Unanswered++
			continue
		}
		out.Questions = append(out.Questions, q)
	}
	return out
}

// labelledID names a question by its text, so that it has the same name in every set.
func labelledID(query string) string {
	sum := sha256.Sum256([]byte(strings.ToValidUTF8(query, "\ufffd")))
	return "f-" + hex.EncodeToString(sum[:6])
}
