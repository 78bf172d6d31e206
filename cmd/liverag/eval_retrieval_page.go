package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/liverag/liverag/evals"
	htmlreport "github.com/liverag/liverag/evals/report"
	"github.com/liverag/liverag/internal/spell"
)

// page is the report of a run.
func (e *evalRetrieval) page(metrics []evals.Metric, answers evals.Answers, r *evals.Result, corpus string) *htmlreport.Page {
	report := answers.Report
	p := &htmlreport.Page{
		Title: "Retrieval: " + r.Set.Name,
		Lead: fmt.Sprintf("%s, %s search, %d hits each; %d answered. A document's rank is that of its best chunk.",
			count(report.Judged, "question"), e.modeName(), e.k, report.Answered),
		Facts: facts(r),
	}
	var figures htmlreport.Figures
	table := htmlreport.Table{Columns: []htmlreport.Column{{Name: "figure"}, {Name: "mean", Number: true}, {Name: "questions at 0", Number: true}, {Name: "questions at 1", Number: true}}}
	for _, m := range metrics {
		name := m.String()
		if slices.Contains(chiefMetrics, name) {
			figures = append(figures, htmlreport.Figure{Name: name, Value: fmt.Sprintf("%.4f", report.Mean[name])})
		}
		none, full := 0, 0
		for _, values := range report.Queries {
			switch v := values[name]; {
			case v == 0:
				none++
			case v > 1-1e-9:
				full++
			}
		}
		table.Rows = append(table.Rows, []htmlreport.Cell{{Text: name}, {Text: fmt.Sprintf("%.4f", report.Mean[name])}, {Text: spell.Thousands(none)}, {Text: spell.Thousands(full)}})
	}
	var found, latencies []float64
	scores := make([]htmlreport.Series, 1)
	unit := htmlreport.Axis{To: 1.0001}
	ndcg := evals.NDCG(10).String()
	for _, a := range answers.Answers {
		v := report.Queries[a.Question.ID][ndcg]
		found = append(found, v)
		latencies = append(latencies, float64(a.Took.Microseconds())/1000)
		if a.Rank > 0 {
			scores[0].Points = append(scores[0].Points, htmlreport.Point{X: float64(a.Rank), Y: v, Label: cut(a.Question.Query, 120)})
		}
	}
	recall := htmlreport.Series{}
	for _, k := range depths {
		if k <= e.k {
			recall.Points = append(recall.Points, htmlreport.Point{X: float64(k), Y: report.Mean[evals.Recall(k).String()]})
		}
	}
	y := unit
	y.Label = ndcg
	x := unit
	x.Label = ndcg
	share := unit
	share.Label = "recall"
	p.Parts = []htmlreport.Part{figures,
		htmlreport.Section{Title: "Figures", Parts: []htmlreport.Part{table}},
		htmlreport.Section{Title: "Questions", Parts: []htmlreport.Part{
			htmlreport.Scatter{Title: "Each question that found something", Note: "Point at one to read it.", X: htmlreport.Axis{Label: "rank of the first right document", Log: true, From: .9, To: 220}, Y: y, Series: scores},
			htmlreport.Lines{Title: "Recall by depth", Note: "The share of the right documents within the first k.", X: htmlreport.Axis{Label: "k", Log: true, From: .9, To: 220}, Y: share, Series: []htmlreport.Series{recall}},
			htmlreport.Histogram{Title: "nDCG@10 of the questions", X: x, Values: found, Marks: []htmlreport.Point{{X: report.Mean[ndcg], Label: fmt.Sprintf("mean %.3f", report.Mean[ndcg])}}},
			htmlreport.Histogram{Title: "How long an answer took", Note: fmt.Sprintf("%d questions at once.", e.concurrency), X: htmlreport.Axis{Label: "ms", Log: true}, Values: latencies},
		}},
		e.worst(answers, corpus),
	}
	return p
}

// worst are the questions with the least nDCG@10, and what was found instead.
func (e *evalRetrieval) worst(answers evals.Answers, corpus string) htmlreport.Section {
	metric := evals.NDCG(10).String()
	value := func(a evals.Answer) float64 { return answers.Report.Queries[a.Question.ID][metric] }
	order := slices.Clone(answers.Answers)
	slices.SortStableFunc(order, func(a, b evals.Answer) int {
		rank := func(a evals.Answer) int {
			if a.Rank == 0 {
				return 1 << 30
			}
			return a.Rank
		}
		return cmp.Or(cmp.Compare(value(a), value(b)), cmp.Compare(rank(b), rank(a)))
	})
	order = order[:min(worstShown, len(order))]
	texts := e.texts(order, corpus)
	s := htmlreport.Section{Title: "The questions that fared worst", Text: "By " + metric + "; what answers them, and what was found."}
	for _, a := range order {
		var wanted, got htmlreport.Passages
		for i, text := range a.Question.Passages {
			wanted = append(wanted, htmlreport.Passage{Head: foundAt(a.Documents, fmt.Sprintf("passage %d", i+1)), Text: passage(text)})
		}
		for _, id := range a.Question.Documents {
			wanted = append(wanted, htmlreport.Passage{Head: id + ", " + foundAt(a.Documents, id), Text: passage(texts[id])})
		}
		for _, hit := range a.Top {
			p := htmlreport.Passage{Head: fmt.Sprintf("%s, score %.4g", hit.Document, hit.Score), Text: passage(hit.Text)}
			if slices.Contains(a.Question.Documents, hit.Document) {
				p.Tone = htmlreport.Good
			}
			got = append(got, p)
		}
		const most = 8
		if n := len(wanted); n > most {
			wanted = append(wanted[:most], htmlreport.Passage{Head: fmt.Sprintf("and %d more", n-most)})
		}
		first := "nothing right was found"
		if a.Rank > 0 {
			first = fmt.Sprintf("first right one at rank %d", a.Rank)
		}
		s.Parts = append(s.Parts, htmlreport.Details{
			Summary: fmt.Sprintf("%s: %.3f, %s: %s", a.Question.ID, value(a), first, cut(a.Question.Query, 300)),
			Parts:   []htmlreport.Part{htmlreport.Columns{{htmlreport.Text("What answers it"), wanted}, {htmlreport.Text("What was found"), got}}},
		})
	}
	return s
}

// foundAt says at which rank a document was answered.
func foundAt(answered []string, key string) string {
	if i := slices.Index(answered, key); i >= 0 {
		return fmt.Sprintf("at rank %d", i+1)
	}
	return "not found"
}

// texts are those of the right documents, if the set has them. A corpus that can't be read leaves them out: the report is not about it.
func (e *evalRetrieval) texts(answers []evals.Answer, corpus string) map[string]string {
	wanted := map[string]bool{}
	for _, a := range answers {
		for _, id := range a.Question.Documents {
			wanted[id] = true
		}
	}
	out := map[string]string{}
	f, err := os.Open(corpus)
	if err != nil {
		return out
	}
	defer f.Close()
	for d, err := range evals.ReadCorpus(f, corpus) {
		if err != nil {
			break
		}
		if id := e.prefix + d.ID; wanted[id] {
			out[id] = strings.TrimSpace(d.Title + "\n" + cut(d.Text, 700))
		}
	}
	return out
}
