package evals

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ModeAnswers are the answers that one mode of retrieval, or one recipe, gave to the questions.
type ModeAnswers struct {
	// Mode heads the column; it should be one word.
	Mode    string
	Answers Answers
}

// WriteRanks writes the means of every metric, then a line a question: for each mode the rank of the first right
// document ("-" if there is none), and the question. The text depends on nothing but the answers: no times, no
// figures beyond three decimals. Kept in a golden file, it shows a change of quality as a diff that a person can judge.
//
// All modes must have answered the same questions in the same order.
func WriteRanks(w io.Writer, modes ...ModeAnswers) error {
	if len(modes) == 0 {
		return fmt.Errorf("write ranks: no answers given")
	}
	first := modes[0]
	for _, m := range modes[1:] {
		if len(m.Answers.Answers) != len(first.Answers.Answers) {
			return fmt.Errorf("write ranks: %s answered %d questions, %s %d", first.Mode, len(first.Answers.Answers), m.Mode, len(m.Answers.Answers))
		}
		for i, answer := range m.Answers.Answers {
			if want := first.Answers.Answers[i].Question.ID; answer.Question.ID != want {
				return fmt.Errorf("write ranks: question %d is %s for %s, but %s for %s", i+1, want, first.Mode, answer.Question.ID, m.Mode)
			}
		}
	}
	var b strings.Builder
	row := func(last string, cell func(m ModeAnswers) string) {
		for _, m := range modes {
			fmt.Fprintf(&b, "%*s  ", max(len(m.Mode), 5), cell(m))
		}
		b.WriteString(last + "\n")
	}
	row("mode", func(m ModeAnswers) string { return m.Mode })
	for _, metric := range first.Answers.Report.Metrics {
		row(metric, func(m ModeAnswers) string {
			mean, ok := m.Answers.Report.Mean[metric]
			if !ok {
				return "-"
			}
			return strconv.FormatFloat(mean, 'f', 3, 64)
		})
	}
	b.WriteByte('\n')
	for i, answer := range first.Answers.Answers {
		row(strings.Join(strings.Fields(answer.Question.Query), " "), func(m ModeAnswers) string {
			if rank := m.Answers.Answers[i].Rank; rank > 0 {
				return strconv.Itoa(rank)
			}
			return "-"
		})
	}
	_, err := io.WriteString(w, b.String())
	return err
}
