package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/liverag/liverag/chunker/external"
	"github.com/liverag/liverag/evals"
	htmlreport "github.com/liverag/liverag/evals/report"
	"github.com/liverag/liverag/internal/spell"
)

// sweptColumn is a column of the table of rows.
type sweptColumn struct {
	name string
	text func(row *sweptRow) string
}

// columns are those that some row has something in.
func (s *sweep) columns(done *sweepOutcome) []sweptColumn {
	dash := func(there bool, text string) string {
		if !there {
			return "-"
		}
		return text
	}
	figure := func(name string) sweptColumn {
		return sweptColumn{name, func(r *sweptRow) string { return fmt.Sprintf("%.4f", r.Figures[name]) }}
	}
	all := []sweptColumn{figure(s.metric),
		{"to the best", func(r *sweptRow) string { return dash(r != done.rows[0], fmt.Sprintf("%+.4f", r.Difference)) }},
		{"p", func(r *sweptRow) string { return dash(r != done.rows[0], likely(r.P)) }},
	}
	for _, name := range done.shown {
		if name != s.metric {
			all = append(all, figure(name))
		}
	}
	all = append(all,
		sweptColumn{"chunks", func(r *sweptRow) string { return dash(r.Chunks > 0, spell.Thousands(r.Chunks)) }},
		sweptColumn{"tokens", func(r *sweptRow) string { return dash(r.Tokens > 0, spell.Thousands(r.Tokens)) }},
		sweptColumn{"mean tokens", func(r *sweptRow) string { return dash(r.Chunks > 0, fmt.Sprintf("%.0f", r.MeanTokens)) }},
		sweptColumn{"tokens an answer", func(r *sweptRow) string { return dash(r.AnswerTokens > 0, fmt.Sprintf("%.0f", r.AnswerTokens)) }},
		sweptColumn{"latency p50", func(r *sweptRow) string { return dash(r.Latency > 0, evals.Seconds.Format(r.Latency)) }},
		sweptColumn{"tokens embedded", func(r *sweptRow) string {
			if r.TokensEmbedded == nil {
				return "-"
			}
			return spell.Thousands(*r.TokensEmbedded)
		}},
		sweptColumn{"size", func(r *sweptRow) string { return dash(r.Bytes > 0, fmt.Sprintf("%.1f MB", float64(r.Bytes)/1e6)) }},
	)
	if len(done.rows) == 1 {
		return all
	}
	return slices.DeleteFunc(all, func(c sweptColumn) bool {
		return !slices.ContainsFunc(done.rows, func(r *sweptRow) bool { return c.text(r) != "-" })
	})
}

// likely spells a p-value; below some size it only tells how many draws there were.
func likely(p float64) string {
	if p < .001 {
		return "< 0.001"
	}
	return fmt.Sprintf("%.2g", p)
}

// verdict is what the ranking says, in a sentence.
func (s *sweep) verdict(done *sweepOutcome) string {
	best := done.rows[0]
	text := fmt.Sprintf("%s is the best by %s: %.4f.", best.Name, s.metric, best.Figures[s.metric])
	near := 0
	for _, r := range done.rows[1:] {
		if r.P >= .05 {
			near++
		}
	}
	switch {
	case len(done.rows) == 1:
		return text
	case near == 0:
		return text + " It differs from every other one by more than chance (p < 0.05 each)."
	}
	return text + fmt.Sprintf(" %s of the other %d can't be told from it by these questions (p ≥ 0.05).", spell.Thousands(near), len(done.rows)-1)
}

func (s *sweep) print(out *terminal, done *sweepOutcome) {
	out.Printf("%s, %s, %s\n\n", out.bold(plain(s.set.Name)), count(done.asked, "question"), count(len(done.rows), "row"))
	columns := s.columns(done)
	head := []string{"", "RECIPE"}
	for _, c := range columns {
		head = append(head, strings.ToUpper(c.name))
	}
	var rows [][]string
	for i, r := range done.rows {
		row := []string{fmt.Sprint(i + 1), plain(r.Name)}
		for _, c := range columns {
			row = append(row, c.text(r))
		}
		rows = append(rows, row)
	}
	out.table(head, rows)
	out.Printf("\n%s\n", plain(s.verdict(done)))
}

// histogramsShown is how many histograms of chunk sizes a report has at most.
const histogramsShown = 12

func (s *sweep) page(done *sweepOutcome, r *evals.Result) *htmlreport.Page {
	columns := s.columns(done)
	table := htmlreport.Table{Columns: []htmlreport.Column{{Name: "", Number: true}, {Name: "recipe"}}}
	for _, c := range columns {
		table.Columns = append(table.Columns, htmlreport.Column{Name: c.name, Number: true})
	}
	table.Columns = append(table.Columns, htmlreport.Column{Name: "chunker, model"})
	for i, row := range done.rows {
		cells := []htmlreport.Cell{{Text: fmt.Sprint(i + 1)}, {Text: row.Name}}
		for _, c := range columns {
			cell := htmlreport.Cell{Text: c.text(row)}
			if c.name == "p" && i > 0 && row.P >= .05 {
				cell.Tone = htmlreport.Dim
			}
			cells = append(cells, cell)
		}
		cells = append(cells, htmlreport.Cell{Text: strings.ReplaceAll(describeRecipe(row.Target), " ", "\u00a0"), Tone: htmlreport.Dim})
		table.Rows = append(table.Rows, cells)
	}
	best := done.rows[0]
	p := &htmlreport.Page{
		Title: "Sweep: " + s.set.Name, Lead: s.verdict(done), Facts: facts(r),
		Parts: []htmlreport.Part{
			htmlreport.Figures{{Name: s.metric, Value: fmt.Sprintf("%.4f", best.Figures[s.metric]), Note: best.Name}, {Name: "recipes", Value: spell.Thousands(len(s.recipes))}, {Name: "questions", Value: spell.Thousands(done.asked)}},
		},
	}
	if plots := s.fronts(done); len(plots) > 0 {
		p.Parts = append(p.Parts, htmlreport.Section{Title: "What it costs", Text: "The line goes through those that no other one beats in both.", Parts: plots})
	}
	p.Parts = append(p.Parts, htmlreport.Section{Title: "Ranked by " + s.metric, Text: "The difference to the best, and how likely one as large is by chance: a paired permutation test of the two. Among many, some are small by chance.", Parts: []htmlreport.Part{table}})
	if plots := s.histograms(done); len(plots) > 0 {
		p.Parts = append(p.Parts, htmlreport.Section{Title: "Chunk sizes", Parts: plots})
	}
	for _, f := range done.failed {
		p.Parts = append(p.Parts, htmlreport.Text(f.Recipe+" failed: "+f.Why))
	}
	return p
}

// fronts are plots of quality against what it takes, where that differs at all.
func (s *sweep) fronts(done *sweepOutcome) []htmlreport.Part {
	var parts []htmlreport.Part
	whole := func(v float64) string { return spell.Thousands(int64(v)) }
	for _, against := range []struct {
		title, label string
		format       func(float64) string
		of           func(*sweptRow) float64
	}{
		{"Against what the reader reads", "tokens an answer", whole, func(r *sweptRow) float64 { return r.AnswerTokens }},
		{"Against latency", "median, ms", nil, func(r *sweptRow) float64 { return 1000 * r.Latency }},
		{"Against the size of the index", "MB", nil, func(r *sweptRow) float64 { return float64(r.Bytes) / 1e6 }},
		{"Against the number of vectors", "chunks", whole, func(r *sweptRow) float64 { return float64(r.Chunks) }},
		{"Against what is embedded", "tokens of the chunks", whole, func(r *sweptRow) float64 { return float64(r.Tokens) }},
	} {
		var points []htmlreport.Point
		least, most := 0., 0.
		for _, r := range done.rows {
			x := against.of(r)
			if x <= 0 {
				continue
			}
			if points == nil || x < least {
				least = x
			}
			most = max(most, x)
			points = append(points, htmlreport.Point{X: x, Y: r.Figures[s.metric], Label: r.Name})
		}
		if len(points) < 2 || most <= least*1.05 {
			continue
		}
		parts = append(parts, htmlreport.Pareto{Title: against.title, X: htmlreport.Axis{Label: against.label, Log: true, Format: against.format}, Y: htmlreport.Axis{Label: s.metric}, LessX: true, Points: points})
	}
	return parts
}

// histograms are the sizes of the chunks, once for each way to cut.
func (s *sweep) histograms(done *sweepOutcome) []htmlreport.Part {
	var parts []htmlreport.Part
	seen := map[string]bool{}
	for _, r := range done.rows {
		c := r.Target.Chunker
		way := fmt.Sprintf("%s %d", c.Strategy, c.Tokens)
		if external.Names(c.Strategy) {
			way = c.Strategy
		}
		if c.Overlap > 0 {
			way += fmt.Sprintf("/%d", c.Overlap)
		}
		if c.Tokenizer != "" && c.Tokenizer != defaultConfig().Tokenizer {
			way += " of " + c.Tokenizer
		}
		if len(r.sizes) == 0 || seen[way] || len(parts) == histogramsShown {
			continue
		}
		seen[way] = true
		sum := 0.
		for _, size := range r.sizes {
			sum += size
		}
		middle := sum / float64(len(r.sizes))
		parts = append(parts, htmlreport.Histogram{Title: way, X: htmlreport.Axis{Label: done.sizes}, Values: r.sizes, Marks: []htmlreport.Point{{X: middle, Label: fmt.Sprintf("mean %.0f", middle)}}})
	}
	return parts
}
