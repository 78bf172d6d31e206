package demo

import (
	"bytes"
	_ "embed" // for questions.jsonl
	"strings"

	"github.com/liverag/liverag/evals"
)

//go:embed questions.jsonl
var questions []byte

// Questions are questions about the standard library, as a developer would ask them, with their right documents among
// the given ids of the corpus: names, paraphrases that share no word with the answer, error messages.
//
// Which types have a document of their own differs a little between Go versions. Where a type has none, its package's
// document is the answer; a question of which the corpus has no answer at all is left out.
func Questions(ids func(id string) bool) evals.Questions {
	all, err := evals.ReadQuestions(bytes.NewReader(questions), "questions.jsonl")
	if err != nil {
		// It is part of the binary, and a test reads it.
		panic(err)
	}
	var known evals.Questions
	for _, q := range all {
		var documents []string
		seen := make(map[string]bool)
		for _, id := range q.Documents {
			if !ids(id) {
				id = packageOf(id)
			}
			if ids(id) && !seen[id] {
				seen[id] = true
				documents = append(documents, id)
			}
		}
		if len(documents) > 0 {
			q.Documents = documents
			known = append(known, q)
		}
	}
	return known
}

// packageOf is the import path that a document's id begins with.
func packageOf(id string) string {
	if dot := strings.LastIndexByte(id, '.'); dot > strings.LastIndexByte(id, '/') {
		return id[:dot]
	}
	return id
}
