package evals

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"
)

// QuestionWriter writes a question that a passage answers. It must be safe for concurrent use.
type QuestionWriter interface {
	Question(ctx context.Context, passage string) (string, error)
}

// GeneratedFrom is a passage that a question is written for.
type GeneratedFrom struct {
	// Document is the id of the document that the passage is of.
	Document string
	Passage  string
}

// maxGenerated is the longest text that passes for a question, in characters: a model that answers with an essay has not understood.
const maxGenerated = 500

// Generate has a question written for each passage, a few at a time; the document is its right answer. Their ids begin with "generated-": no person has
// asked them nor judged them, other documents may answer them too, and words of the passage may be in them, which helps a search by words. Use them to tell two
// systems apart where there is nothing better. skipped counts passages for which nothing was written that passes for a question. The first error ends it.
func Generate(ctx context.Context, w QuestionWriter, from []GeneratedFrom, progress func(done, of int)) (questions Questions, skipped int, err error) {
	const atOnce = 4
	texts := make([]string, len(from))
	turn := make(chan struct{}, 1)
	done := 0
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, f := range from {
		if groupCtx.Err() != nil {
			break
		}
		group.Go(func() error {
			text, err := w.Question(groupCtx, f.Passage)
			if err != nil {
				return fmt.Errorf("generate a question: %w", err)
			}
			texts[i] = tidy(text)
			turn <- struct{}{}
			done++
			if progress != nil {
				progress(done, len(from))
			}
			<-turn
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, 0, err
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	seen := map[string]bool{}
	for i, text := range texts {
		if text == "" || seen[text] {
			skipped++
			continue
		}
		seen[text] = true
		questions = append(questions, Question{ID: fmt.Sprintf("generated-%d", i+1), Query: text, Documents: []string{from[i].Document}})
	}
	return questions, skipped, nil
}

// tidy takes off what models put around a question; empty: it is none.
func tidy(text string) string {
	text = spaced(text)
	for _, label := range []string{"Question:", "Q:", "**Question:**"} {
		text = strings.TrimSpace(strings.TrimPrefix(text, label))
	}
	text = strings.TrimSpace(strings.Trim(text, "\"“”'`*"))
	if !utf8.ValidString(text) || utf8.RuneCountInString(text) > maxGenerated {
		return ""
	}
	return text
}
