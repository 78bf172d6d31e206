package evals

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Question is a question with the documents that answer it.
type Question struct {
	ID    string `json:"id,omitempty"`
	Query string `json:"query"`
	// Documents are the ids of the right documents, at least one.
	Documents []string `json:"documents"`
	// Grades, if not nil, says how right each document is, and then Documents is not asked. nil: each has grade 1.
	Grades map[string]int `json:"grades,omitempty"`
}

// Questions is a list of questions with different ids.
type Questions []Question

// Qrels are the questions' right documents as judgements.
func (qs Questions) Qrels() Qrels {
	qrels := make(Qrels, len(qs))
	for _, q := range qs {
		grades := q.Grades
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
	Document string
	// Score is for the reader: the order of the hits counts, not their scores.
	Score float64
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
	// Progress, if not nil, is called after each answer, never concurrently, with how many of all are answered.
	Progress func(done, of int)
}

// Answer is what a system answered to one question.
type Answer struct {
	Question Question `json:"question"`
	// Documents are the answered documents, each once, in the order of its best hit.
	Documents []string `json:"documents"`
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
// error of the searcher ends it.
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
			seen := make(map[string]bool, len(hits))
			for _, hit := range hits {
				if seen[hit.Document] {
					continue
				}
				seen[hit.Document] = true
				answer.Documents = append(answer.Documents, hit.Document)
				if answer.Rank == 0 && qrels[q.ID][hit.Document] > 0 {
					answer.Rank = len(answer.Documents)
				}
			}
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
		scores := make(map[string]float64, len(answer.Documents))
		for rank, document := range answer.Documents {
			scores[document] = -float64(rank)
		}
		run[answer.Question.ID] = scores
	}
	return Answers{Answers: answers, Report: Evaluate(qrels, run, options.Metrics...)}, nil
}
