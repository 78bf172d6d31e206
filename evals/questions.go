package evals

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Question is a question with the documents that answer it.
type Question struct {
	ID    string `json:"id,omitempty"`
	Query string `json:"query"`
	// Documents are the ids of the right documents, at least one, unless there are Passages.
	Documents []string `json:"documents,omitempty"`
	// Grades, if not nil, says how right each document is, and then Documents is not asked. nil: each has grade 1.
	Grades map[string]int `json:"grades,omitempty"`
	// Passages are quotes that answer the question, whatever document they are in. A hit is right if its text has one of
	// them, white space aside. Either Documents or Passages are there, never both.
	Passages []string `json:"passages,omitempty"`
}

// Questions is a list of questions with different ids.
type Questions []Question

// Qrels are the questions' right documents as judgements. A question with passages has "passage 1" and so on for them: see [Questions.Ask].
func (qs Questions) Qrels() Qrels {
	qrels := make(Qrels, len(qs))
	for _, q := range qs {
		grades := q.Grades
		if len(q.Passages) > 0 {
			grades = make(map[string]int, len(q.Passages))
			for i := range q.Passages {
				grades[passageKey(i)] = 1
			}
		}
		if grades == nil {
			grades = make(map[string]int, len(q.Documents))
			for _, document := range q.Documents {
				grades[document] = 1
			}
		}
		qrels[q.ID] = grades
	}
	return qrels
}

// Ranked is one hit of an answer, a chunk or a whole document.
type Ranked struct {
	Document string `json:"document"`
	// Score is for the reader: the order of the hits counts, not their scores.
	Score float64 `json:"score"`
	// Text is the hit's. It may be empty where no question has passages.
	Text string `json:"text,omitempty"`
}

// Searcher answers a query with at most k hits, best first. It must be safe for concurrent use.
type Searcher func(ctx context.Context, query string, k int) ([]Ranked, error)

// AskOptions says how questions are asked. The zero value asks for 50 hits, four questions at a time.
type AskOptions struct {
	// K is how many hits each question asks for. Several hits of one document count as one, the best, so it should be
	// well above the metrics' cuts. Defaults to 50.
	K int
	// Concurrency is how many questions are asked at the same time. Defaults to 4.
	Concurrency int
	// Metrics of the report. Defaults to DefaultMetrics.
	Metrics []Metric
	// Keep is how many hits of each answer are kept. Defaults to 0.
	Keep int
	// Progress, if not nil, is called after each answer, never concurrently, with how many of all are answered.
	Progress func(done, of int)
}

// Answer is what a system answered to one question.
type Answer struct {
	Question Question `json:"question"`
	// Documents are the answered documents, each once, in the order of its best hit. For a question with passages they are "passage 1"
	// and so on for what has a passage not met before, and the id of a hit ("document #3") for what has none.
	Documents []string `json:"documents"`
	// Hits is how many hits there were.
	Hits int `json:"hits"`
	// Top are the first of them, as many as were to be kept.
	Top []Ranked `json:"top,omitempty"`
	// Rank is the place of the first right document, from 1; 0 if there is none.
	Rank int `json:"rank"`
	// Took is how long the answer took.
	Took time.Duration `json:"took"`
}

// Answers is what a system answered to all questions, in their order.
type Answers struct {
	Answers []Answer `json:"answers"`
	Report  Report   `json:"report"`
}

// Ask asks every question and evaluates the answers by document: a document's rank is that of its best hit. The first
// error of the searcher ends it. A question with no hits at all counts as not answered.
//
// Questions with passages are evaluated by hit: each passage is a right thing to find, once. A hit with several of
// them takes as many ranks; one with passages that were found before it takes none, as a second hit of a document does.
func (qs Questions) Ask(ctx context.Context, search Searcher, options AskOptions) (Answers, error) {
	if options.K <= 0 {
		options.K = 50
	}
	if options.Concurrency <= 0 {
		options.Concurrency = 4
	}
	qrels := qs.Qrels()
	if len(qrels) != len(qs) {
		return Answers{}, fmt.Errorf("ask questions: %d of them share an id with another", len(qs)-len(qrels))
	}
	answers := make([]Answer, len(qs))
	var progress sync.Mutex
	done := 0
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(options.Concurrency)
	for i, q := range qs {
		if groupCtx.Err() != nil {
			break
		}
		group.Go(func() error {
			start := time.Now()
			hits, err := search(groupCtx, q.Query, options.K)
			if err != nil {
				return fmt.Errorf("ask question %s: %w", q.ID, err)
			}
			answer := Answer{Question: q, Took: time.Since(start)}
			answer.Documents = q.found(hits)
			answer.Hits, answer.Top = len(hits), hits[:min(options.Keep, len(hits))]
			answer.Rank = 1 + slices.IndexFunc(answer.Documents, func(document string) bool { return qrels[q.ID][document] > 0 })
			answers[i] = answer
			progress.Lock()
			defer progress.Unlock()
			done++
			if options.Progress != nil {
				options.Progress(done, len(qs))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Answers{}, err
	}
	if err := ctx.Err(); err != nil {
		return Answers{}, err
	}
	run := make(Run, len(answers))
	for _, answer := range answers {
		if len(answer.Documents) == 0 {
			continue
		}
		scores := make(map[string]float64, len(answer.Documents))
		for rank, document := range answer.Documents {
			scores[document] = -float64(rank)
		}
		run[answer.Question.ID] = scores
	}
	return Answers{Answers: answers, Report: Evaluate(qrels, run, options.Metrics...)}, nil
}

// found turns hits into what the question is judged by.
func (q *Question) found(hits []Ranked) []string {
	var out []string
	seen := make(map[string]bool, len(hits))
	add := func(key string) {
		if !seen[key] {
			seen[key] = true
			out = append(out, key)
		}
	}
	if len(q.Passages) == 0 {
		for _, hit := range hits {
			add(hit.Document)
		}
		return out
	}
	passages := make([]string, len(q.Passages))
	for i, p := range q.Passages {
		passages[i] = spaced(p)
	}
	for i, hit := range hits {
		text, right := spaced(hit.Text), false
		for j, p := range passages {
			if strings.Contains(text, p) {
				right = true
				add(passageKey(j))
			}
		}
		if !right {
			add(fmt.Sprintf("%s #%d", hit.Document, i+1))
		}
	}
	return out
}

func passageKey(i int) string { return fmt.Sprintf("passage %d", i+1) }

// spaced is a text with single spaces between its words.
func spaced(text string) string { return strings.Join(strings.Fields(text), " ") }

// Digest is a hash of the questions and their right answers, whatever their order.
func (qs Questions) Digest() string {
	lines := make([]string, len(qs))
	qrels := qs.Qrels()
	for i, q := range qs {
		encoded, err := json.Marshal([]any{q.ID, q.Query, qrels[q.ID], q.Passages})
		if err != nil {
			panic(err) // strings and numbers
		}
		lines[i] = string(encoded)
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:8])
}
