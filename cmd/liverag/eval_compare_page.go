package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/evals"
	htmlreport "github.com/liverag/liverag/evals/report"
)

// page is the report of a comparison.
func (e *evalCompare) page(a, b side, d *compared, r *evals.Result) *htmlreport.Page {
	p := &htmlreport.Page{
		Title: fmt.Sprintf("%s against %s", b.info.Name, a.info.Name),
		Lead:  d.verdict(a, b),
		Facts: append([]htmlreport.Fact{{Name: "A", Value: a.String() + ": " + a.info.recipe()}, {Name: "B", Value: b.String() + ": " + b.info.recipe()}, {Name: "questions", Value: fmt.Sprintf("%d, %s search, %d hits each", len(d.questions), e.ask.modeName(), e.ask.k)}},
			slices.DeleteFunc(facts(r), func(f htmlreport.Fact) bool { return f.Name == "generation" || f.Name == "recipe" })...),
	}
	p.Parts = append(d.parts(), htmlreport.Section{Title: "What they hold and take", Text: "Tokens and cost count since the server was started. Times are of the answers by whoever was asked first.", Parts: []htmlreport.Part{sideTable(r), d.latencyPlot()}}, d.movedSection())
	return p
}

func sideTable(r *evals.Result) htmlreport.Table {
	t := htmlreport.Table{Columns: []htmlreport.Column{{Name: ""}, {Name: "A", Number: true}, {Name: "B", Number: true}}}
	for _, row := range sideRows(r) {
		t.Rows = append(t.Rows, []htmlreport.Cell{{Text: row.name}, {Text: row.a}, {Text: row.b}})
	}
	return t
}

// parts are the figures and their plots.
func (d *compared) parts() []htmlreport.Part {
	overlap := htmlreport.Histogram{Title: "How alike the answers are", Note: fmt.Sprintf("Rank-biased overlap of the first %d documents, question by question: 1 is the same order.", comparedDepth),
		X: htmlreport.Axis{Label: "overlap", To: 1.0001}, Values: d.rbo, Marks: []htmlreport.Point{{X: mean(d.rbo), Label: fmt.Sprintf("mean %.3f", mean(d.rbo))}}}
	figures := htmlreport.Figures{{Name: fmt.Sprintf("Jaccard@%d", comparedDepth), Value: fmt.Sprintf("%.3f", mean(d.jaccard)), Note: "documents in both"}, {Name: fmt.Sprintf("overlap@%d", comparedDepth), Value: fmt.Sprintf("%.3f", mean(d.rbo)), Note: "rank-biased"}}
	if len(d.results) == 0 {
		return []htmlreport.Part{figures, htmlreport.Section{Title: "Agreement", Parts: []htmlreport.Part{overlap}}}
	}
	table := htmlreport.Table{Columns: []htmlreport.Column{{Name: "figure"}, {Name: "A", Number: true}, {Name: "B", Number: true}, {Name: "B − A", Number: true}, {Name: "95 % interval", Number: true}, {Name: "p", Number: true}, {Name: "wins", Number: true}, {Name: "losses", Number: true}, {Name: "ties", Number: true}}}
	var chief htmlreport.Figures
	for _, c := range d.results {
		difference := htmlreport.Cell{Text: fmt.Sprintf("%+.4f", c.Difference)}
		switch {
		case c.Low > 0:
			difference.Tone = htmlreport.Good
		case c.High < 0:
			difference.Tone = htmlreport.Bad
		}
		table.Rows = append(table.Rows, []htmlreport.Cell{{Text: c.Metric}, {Text: fmt.Sprintf("%.4f", c.A)}, {Text: fmt.Sprintf("%.4f", c.B)}, difference, {Text: fmt.Sprintf("%+.4f to %+.4f", c.Low, c.High)},
			{Text: fmt.Sprintf("%.2g", c.P)}, {Text: fmt.Sprint(c.Wins)}, {Text: fmt.Sprint(c.Losses)}, {Text: fmt.Sprint(c.Ties)}})
		if slices.Contains([]string{d.chief(), "recall@10", "mrr"}, c.Metric) {
			chief = append(chief, htmlreport.Figure{Name: c.Metric, Value: fmt.Sprintf("%+.3f", c.Difference), Note: fmt.Sprintf("%.3f → %.3f", c.A, c.B)})
		}
	}
	points := make([]htmlreport.Series, 3)
	points[0].Name, points[1].Name, points[2].Name = "equal", "B is worse", "B is better"
	var differences []float64
	for i, q := range d.questions {
		x, y := d.values(i)
		differences = append(differences, y-x)
		series := 0
		switch {
		case y > x:
			series = 2
		case y < x:
			series = 1
		}
		points[series].Points = append(points[series].Points, htmlreport.Point{X: x, Y: y, Label: cut(q.Query, 120)})
	}
	c := d.results[0]
	return []htmlreport.Part{append(chief, figures...),
		htmlreport.Section{Title: "Figures", Text: "Means over all questions. The interval is of the mean difference, by 10,000 draws of the questions; p is of a paired permutation test.", Parts: []htmlreport.Part{table}},
		htmlreport.Section{Title: "Question by question", Parts: []htmlreport.Part{
			htmlreport.Scatter{Title: d.chief() + " of each question", Note: "Above the line B is better. Point at one to read it.", X: htmlreport.Axis{Label: "A", From: -.03, To: 1.03}, Y: htmlreport.Axis{Label: "B", From: -.03, To: 1.03}, Series: points, Diagonal: true},
			htmlreport.Histogram{Title: "Differences", Note: d.chief() + ", B less A, of the questions that are not equal.", X: htmlreport.Axis{Label: "B − A", From: -1.0001, To: 1.0001},
				Values: slices.DeleteFunc(differences, func(v float64) bool { return v == 0 }), Marks: []htmlreport.Point{{X: c.Difference, Label: fmt.Sprintf("mean of all %+.3f", c.Difference)}}},
			overlap,
		}},
	}
}

// latencyPlot is the share of answers that took at most so long.
func (d *compared) latencyPlot() htmlreport.Lines {
	a, b := d.latencies()
	series := func(name string, took []time.Duration) htmlreport.Series {
		s := htmlreport.Series{Name: name}
		const steps = 100
		for i := 0; i <= steps && len(took) > 0; i++ {
			q := float64(i) / steps
			s.Points = append(s.Points, htmlreport.Point{X: float64(evals.Quantile(took, q).Microseconds()) / 1000, Y: q})
		}
		return s
	}
	return htmlreport.Lines{Title: "How long an answer took", Note: "The share of answers that took at most so long.", X: htmlreport.Axis{Label: "ms", Log: true}, Y: htmlreport.Axis{Label: "share", To: 1.0001}, Series: []htmlreport.Series{series("A", a), series("B", b)}}
}

// movedSection shows both answers to the questions that moved most.
func (d *compared) movedSection() htmlreport.Section {
	s := htmlreport.Section{Title: "The questions that moved most", Text: "Both answers side by side; a right one is marked by its colour."}
	if len(d.metrics) == 0 {
		s.Text = "Those whose answers agree least, side by side."
	}
	for n, i := range d.moved() {
		q := d.questions[i]
		var parts []htmlreport.Part
		if right := slices.Concat(q.Documents, q.Passages); len(right) > 0 {
			const most = 6
			text := "What answers it: " + strings.Join(right[:min(most, len(right))], ", ")
			if len(right) > most {
				text += fmt.Sprintf(" and %d more", len(right)-most)
			}
			parts = append(parts, htmlreport.Text(text))
		}
		parts = append(parts, htmlreport.Columns{
			{htmlreport.Text("A"), excerpts(d.both.A.Answers[i])},
			{htmlreport.Text("B"), excerpts(d.both.B.Answers[i])},
		})
		s.Parts = append(s.Parts, htmlreport.Details{Summary: d.movement(i) + ": " + cut(q.Query, 300), Open: n == 0, Parts: parts})
	}
	if len(s.Parts) == 0 {
		s.Text = "None did: both answer every question alike."
	}
	return s
}
