package main

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/evals"
	htmlreport "github.com/liverag/liverag/evals/report"
)

func evalListVerb() verb {
	return verb{
		name: "eval list", group: groupQuestions,
		summary: "The runs that were kept, and how their figures went",
		about: `Lists the runs with their chief figures, the latest last. With --kind, each figure has its change to the run before it that asked the same questions; --report draws them over time.

Runs are files, one each, in the directory evals of the data directory: delete one and it is gone, copy one into a repository and it is a baseline.`,
		examples: []example{
			{"what was measured so far", "liverag eval list"},
			{"how retrieval went, as a page", "liverag eval list --kind retrieval --report retrieval.html"},
			{"the ids of all runs, for a script", "liverag eval list --json | jq -r '.results[].id'"},
		},
		settings: []string{"data", "config"},
		setup: func(fs *flag.FlagSet) action {
			var l evalList
			fs.StringVar(&l.kind, "kind", "", "only runs of the `KIND`: retrieval, chunking, freshness, compare or sweep")
			fs.StringVar(&l.set, "set", "", "only runs that asked the set `NAME`")
			fs.IntVar(&l.limit, "limit", 0, "only the last so many; 0 for all")
			fs.StringVar(&l.report, "report", "", "write a page with the figures over time to `FILE`, HTML that needs nothing else")
			declareResults(fs, &l.results)
			return l.run
		},
	}
}

type evalList struct {
	kind, set       string
	limit           int
	report, results string
}

func (l *evalList) run(_ context.Context, c *call) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "eval list takes no arguments"}
	}
	if l.limit < 0 {
		return &usageError{detail: "--limit is not negative"}
	}
	kinds := []evals.Kind{evals.KindRetrieval, evals.KindChunking, evals.KindFreshness, evals.KindCompare, evals.KindSweep}
	if l.kind != "" && !slices.Contains(kinds, evals.Kind(l.kind)) {
		return &usageError{detail: fmt.Sprintf("--kind %s: there are %v", l.kind, kinds)}
	}
	kept := openResults(c, l.results)
	all, bad := kept.List()
	if bad != nil && all == nil {
		return bad
	}
	if bad != nil {
		c.Err.Printf("%s %s\n", c.Err.warn("left out"), plain(bad.Error()))
	}
	all = slices.DeleteFunc(all, func(r evals.Result) bool {
		return l.kind != "" && string(r.Kind) != l.kind || l.set != "" && r.Set.Name != l.set
	})
	before := previous(all)
	if l.limit > 0 && len(all) > l.limit {
		all, before = all[len(all)-l.limit:], before[len(before)-l.limit:]
	}
	if l.report != "" {
		if err := l.page(all).WriteFile(l.report); err != nil {
			return err
		}
	}
	if c.JSON {
		return l.json(c.Out, all, before)
	}
	if len(all) == 0 {
		c.Out.Printf("no runs are kept in %s\n", plain(kept.Dir()))
		return nil
	}
	var rows [][]string
	for i, r := range all {
		rows = append(rows, []string{r.ID, r.Started.Local().Format(time.DateTime), plain(cut(r.Set.Name, 30)), plain(cut(target(&r), 40)), l.figures(&r, before[i])})
	}
	c.Out.table([]string{"RUN", "STARTED", "SET", "OF", "FIGURES"}, rows)
	return nil
}

// previous finds for each run the one before it that can be compared with it, or nil.
func previous(all []evals.Result) []*evals.Result {
	out := make([]*evals.Result, len(all))
	for i := range all {
		for j := i - 1; j >= 0; j-- {
			if all[j].Kind == all[i].Kind && all[j].Set == all[i].Set {
				out[i] = &all[j]
				break
			}
		}
	}
	return out
}

// target says in a few words what was measured.
func target(r *evals.Result) string {
	parts := slices.DeleteFunc([]string{r.Target.Generation, r.Target.Recipe}, func(s string) bool { return s == "" })
	if mode, ok := r.Settings["mode"].(string); ok && mode != "" {
		parts = append(parts, mode)
	}
	return strings.Join(parts, " ")
}

// figures are the chief ones of a run, with the change to the one before where one kind alone is listed.
func (l *evalList) figures(r, before *evals.Result) string {
	var parts []string
	for _, f := range r.Figures {
		if !f.Chief {
			continue
		}
		text := f.Name + " " + f.String()
		if before != nil && l.kind != "" {
			if old, ok := before.Figure(f.Name); ok {
				text += " (" + signed(f, f.Value-old.Value) + ")"
			}
		}
		parts = append(parts, text)
	}
	return plain(strings.Join(parts, "  "))
}

// signed is a difference with its sign.
func signed(f evals.Figure, difference float64) string {
	text := f.Unit.Format(difference)
	if !strings.HasPrefix(text, "-") {
		text = "+" + text
	}
	return text
}

func (l *evalList) json(out *terminal, all []evals.Result, before []*evals.Result) error {
	type listed struct {
		evals.Result
		// Change is the difference of each figure to the run before.
		Before string             `json:"before,omitempty"`
		Change map[string]float64 `json:"change,omitempty"`
	}
	list := []listed{}
	for i, r := range all {
		one := listed{Result: r}
		if b := before[i]; b != nil {
			one.Before, one.Change = b.ID, map[string]float64{}
			for _, f := range r.Figures {
				if old, ok := b.Figure(f.Name); ok {
					one.Change[f.Name] = f.Value - old.Value
				}
			}
		}
		list = append(list, one)
	}
	return out.JSON(map[string]any{"results": list})
}

// page draws the chief figures over time: a plot for each figure of each kind and set.
func (l *evalList) page(all []evals.Result) *htmlreport.Page {
	type group struct {
		kind evals.Kind
		set  evals.Set
	}
	var order []group
	groups := map[group][]evals.Result{}
	for _, r := range all {
		g := group{r.Kind, r.Set}
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], r)
	}
	p := &htmlreport.Page{Title: "Evals over time", Lead: count(len(all), "run") + " kept. Runs that asked the same questions share a plot; points are runs, in order."}
	for _, g := range order {
		runs := groups[g]
		var names []evals.Figure
		for _, f := range runs[len(runs)-1].Figures {
			if f.Chief {
				names = append(names, f)
			}
		}
		section := htmlreport.Section{Title: fmt.Sprintf("%s: %s", g.kind, g.set.Name)}
		table := htmlreport.Table{Columns: []htmlreport.Column{{Name: "run"}, {Name: "of"}}}
		for _, f := range names {
			var points []htmlreport.Point
			for i, r := range runs {
				if v, ok := r.Figure(f.Name); ok {
					points = append(points, htmlreport.Point{X: float64(i + 1), Y: v.Value, Label: r.ID + "\n" + target(&r)})
				}
			}
			section.Parts = append(section.Parts, htmlreport.Lines{
				Title: f.Name, X: htmlreport.Axis{Label: "run"}, Y: htmlreport.Axis{Format: axisFormat(f.Unit)}, Series: []htmlreport.Series{{Points: points}},
			})
			table.Columns = append(table.Columns, htmlreport.Column{Name: f.Name, Number: true})
		}
		for _, r := range runs {
			row := []htmlreport.Cell{{Text: r.ID}, {Text: target(&r)}}
			for _, f := range names {
				cell := htmlreport.Cell{Text: "-", Tone: htmlreport.Dim}
				if v, ok := r.Figure(f.Name); ok {
					cell = htmlreport.Cell{Text: v.String()}
				}
				row = append(row, cell)
			}
			table.Rows = append(table.Rows, row)
		}
		section.Parts = append(section.Parts, table)
		p.Parts = append(p.Parts, section)
	}
	return p
}

// axisFormat writes an axis' values in a unit; nil leaves it to the plot.
func axisFormat(u evals.Unit) func(float64) string {
	if u == evals.Seconds {
		return u.Format
	}
	return nil
}
