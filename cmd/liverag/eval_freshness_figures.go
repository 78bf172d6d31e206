package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/liverag/liverag/evals"
	evalfresh "github.com/liverag/liverag/evals/freshness"
	htmlreport "github.com/liverag/liverag/evals/report"
	"github.com/liverag/liverag/internal/spell"
)

// freshnessFigures are the figures of a run, in the order in which they are shown. What was not measured is not there.
func freshnessFigures(f *evalfresh.Figures, seen *evalfresh.Seen) []evals.Figure {
	at := "@" + strconv.Itoa(f.K)
	var out []evals.Figure
	add := func(name string, value float64, unit evals.Unit, better evals.Direction, chief bool) {
		out = append(out, evals.Figure{Name: name, Value: value, Unit: unit, Better: better, Chief: chief})
	}
	for _, l := range []struct {
		name string
		of   evalfresh.Latency
	}{{"time_to_searchable", f.Searchable}, {"deletes", f.Deletes}} {
		if l.of.Count == 0 {
			continue
		}
		add(l.name+".p50", l.of.P50.Seconds(), evals.Seconds, evals.Lower, l.name != "deletes")
		add(l.name+".p95", l.of.P95.Seconds(), evals.Seconds, evals.Lower, false)
		add(l.name+".p99", l.of.P99.Seconds(), evals.Seconds, evals.Lower, true)
		add(l.name+".max", l.of.Max.Seconds(), evals.Seconds, evals.Lower, false)
	}
	stale, live, found := f.Stale, f.Live, f.Found
	if seen != nil {
		// Nobody knows which texts are closed, and every question is asked without tokens.
		stale, live, found = f.Outdated, f.Felt.Live, f.Felt.Found
	}
	add("never", float64(f.Never), evals.Count, evals.Lower, true)
	add("ghost_rate", evalfresh.Share(f.Ghosts, f.Returned), evals.Fraction, evals.Lower, false)
	add("mixed_version_rate", evalfresh.Share(f.Mixed, f.Answers), evals.Fraction, evals.Lower, false)
	add("stale_rate"+at, evalfresh.Share(stale, f.Questions), evals.Fraction, evals.Lower, true)
	add("outdated_rate"+at, evalfresh.Share(f.Outdated, f.Questions), evals.Fraction, evals.Lower, false)
	if live > 0 {
		add("fresh_recall"+at, evalfresh.Share(found, live), evals.Fraction, evals.Higher, true)
	}
	if f.Live > 0 && seen == nil {
		add("fresh_recall_text"+at, evalfresh.Share(f.FoundText, f.Live), evals.Fraction, evals.Higher, false)
	}
	add("came_back", float64(f.CameBack), evals.Count, evals.Lower, false)
	add("fresh_share", f.Fresh, evals.Fraction, evals.Higher, true)
	add("mean_age", f.Age.Seconds(), evals.Seconds, evals.Lower, false)
	add("fresh_share_asked", f.FreshAsked, evals.Fraction, "", false)
	add("mean_age_asked", f.AgeAsked.Seconds(), evals.Seconds, "", false)
	if f.Felt.Answers > 0 && seen == nil {
		add("felt.stale_rate"+at, evalfresh.Share(f.Felt.Stale, f.Felt.Answers), evals.Fraction, "", false)
		add("felt.outdated_rate"+at, evalfresh.Share(f.Felt.Outdated, f.Felt.Answers), evals.Fraction, "", false)
		add("felt.ghost_rate", evalfresh.Share(f.Felt.Ghosts, f.Felt.Returned), evals.Fraction, "", false)
		if f.Felt.Live > 0 {
			add("felt.fresh_recall"+at, evalfresh.Share(f.Felt.Found, f.Felt.Live), evals.Fraction, "", false)
		}
	}
	if f.Write.Count > 0 {
		add("write.p50", f.Write.P50.Seconds(), evals.Seconds, "", false)
		add("write.p99", f.Write.P99.Seconds(), evals.Seconds, "", false)
	}
	return out
}

// freshnessNames are the figures that an SLO can name, with their directions.
func freshnessNames(k int) map[string]evals.Direction {
	all := &evalfresh.Figures{K: k, Live: 1}
	all.Searchable.Count, all.Deletes.Count, all.Felt.Answers, all.Felt.Live, all.Write.Count = 1, 1, 1, 1, 1
	names := map[string]evals.Direction{}
	for _, f := range freshnessFigures(all, nil) {
		names[f.Name] = f.Better
		if f.Better == "" { // a bound on it has a sense nevertheless
			names[f.Name] = evals.Lower
		}
	}
	return names
}

// disagreement says where the server's own figures are not what was seen from outside; "" if they agree, or can't be compared.
func disagreement(f *evalfresh.Figures) string {
	if f.Server.Count == 0 || f.Searchable.Count < 20 {
		return ""
	}
	var parts []string
	for _, q := range []struct {
		name         string
		seen, server time.Duration
		write        time.Duration
	}{{"p50", f.Searchable.P50, f.Server.P50, f.Write.P50}, {"p99", f.Searchable.P99, f.Server.P99, f.Write.P99}} {
		// From outside, a change begins with its request and ends with an answer, and is looked for every now and then.
		slack := q.write + 50*time.Millisecond
		if q.seen > 2*q.server+slack || q.server > 2*q.seen+slack {
			parts = append(parts, fmt.Sprintf("%s: seen %s, the server says %s", q.name, short(q.seen), short(q.server)))
		}
	}
	return strings.Join(parts, "; ")
}

// warnings are what a reader of the figures has to know.
func freshnessWarnings(f *evalfresh.Figures, seen *evalfresh.Seen) []string {
	var out []string
	warn := func(is bool, format string, args ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	if d := disagreement(f); d != "" {
		warn(true, "the server's own figures, over its last %s and %s, don't agree: %s", short(f.Server.Window), count(f.Server.Count, "change"), d)
	}
	warn(f.CameBack > 0, "%s went back behind what an answer before it had shown: do several processes answer?", count(f.CameBack, "answer"))
	warn(f.Foreign > 0, "%s of other documents came back although the questions filter on the run's: the filter does not hold", count(f.Foreign, "chunk"))
	warn(f.Unsatisfied > 0, "%s did not get as fresh an answer as it asked for", count(f.Unsatisfied, "question"))
	warn(f.Refused > 0, "the server was too busy %s, and was asked again", times(f.Refused))
	warn(f.Behind > time.Second, "the sending was %s behind at its end: the server takes fewer changes a second than that", short(f.Behind))
	if seen != nil {
		warn(seen.Changes == 0, "nothing changed in that time: there is nothing to measure")
		warn(seen.Early > 0, "%s had a time in the future, by up to %s: the clocks disagree, and the figures are off by as much", count(seen.Early, "change"), short(seen.Skew))
		warn(seen.Unseeable > 0, "%s of documents with a tenant or an access list were not watched: no answer shows them to us", count(seen.Unseeable, "change"))
	}
	return out
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return spell.Thousands(n) + " times"
}

// milliseconds is a duration for programs.
func milliseconds(d time.Duration) float64 { return math.Round(d.Seconds()*1e6) / 1e3 }

// freshnessJSON is what --json has beside the figures.
func freshnessJSON(f *evalfresh.Figures, seen *evalfresh.Seen) map[string]any {
	spell := func(l evalfresh.Latency) map[string]any {
		return map[string]any{
			"p50_ms": milliseconds(l.P50), "p95_ms": milliseconds(l.P95), "p99_ms": milliseconds(l.P99), "max_ms": milliseconds(l.Max), "count": l.Count,
		}
	}
	out := map[string]any{
		"time_to_searchable": spell(f.Searchable), "deletes": spell(f.Deletes),
		"changes":   map[string]any{"sent": f.Changes, "deletions": f.Deletions, "watched": len(f.Samples) + f.Never - f.WrongAtEnd, "superseded": f.Superseded, "unclear": f.Unclear, "unwatched": f.Unwatched},
		"answers":   map[string]any{"all": f.Answers, "questions": f.Questions, "chunks": f.Returned, "live_probes": f.Live, "unsatisfied": f.Unsatisfied, "refused": f.Refused},
		"counts":    map[string]any{"ghosts": f.Ghosts, "mixed_versions": f.Mixed, "stale": f.Stale, "outdated": f.Outdated, "foreign": f.Foreign, "wrong_at_end": f.WrongAtEnd},
		"server":    map[string]any{"p50": f.Server.P50.String(), "p95": f.Server.P95.String(), "p99": f.Server.P99.String(), "max": f.Server.Max.String(), "count": f.Server.Count, "window": f.Server.Window.String(), "agrees": disagreement(f) == ""},
		"behind_ms": milliseconds(f.Behind),
	}
	if warnings := freshnessWarnings(f, seen); len(warnings) > 0 {
		out["warnings"] = warnings
	}
	if len(f.Late) > 0 {
		out["late"] = f.Late[:min(len(f.Late), 100)]
	}
	if len(f.Faults) > 0 {
		var faults []map[string]any
		for _, x := range f.Faults {
			faults = append(faults, map[string]any{"at": x.At.Round(time.Millisecond).String(), "what": x.What, "query": x.Query})
		}
		out["faults"] = faults
	}
	if seen != nil {
		out["observed"] = map[string]any{
			"changes": seen.Changes, "watched": seen.Watched, "unseeable": seen.Unseeable, "imported": seen.Imported,
			"reading": map[string]any{"p50": seen.Reading.P50.String(), "p99": seen.Reading.P99.String()},
		}
	}
	return out
}

// finish keeps and shows the figures, and fails where the SLO does not hold.
func (f *freshnessFlags) finish(frame *evalFrame, server *freshnessServer, r *evals.Result, figures *evalfresh.Figures, seen *evalfresh.Seen, slo []evals.Gate) error {
	r.Figures = freshnessFigures(figures, seen)
	r.Target = evals.Target{Server: server.client.base, Generation: figures.Generation}
	if recipe := server.recipe.Load(); recipe != nil {
		r.Target.Recipe = *recipe
	}
	out := evalOutput{
		JSON: freshnessJSON(figures, seen),
		Text: func(out *terminal) { printFreshness(out, r, figures, seen) },
		Page: func() *htmlreport.Page { return freshnessPage(r, figures, seen) },
	}
	for _, g := range slo {
		out.Gates = append(out.Gates, g.Check(r))
	}
	return frame.finish(r, out)
}

func printFreshness(out *terminal, r *evals.Result, f *evalfresh.Figures, seen *evalfresh.Seen) {
	out.Printf("%s: %s in %s, %s watched, %s asked; %s\n\n", plain(r.Set.Name), count(f.Changes, "change"), short(f.Took),
		spell.Thousands(f.Changes-f.Unwatched), count(f.Questions, "question"), plain(strings.TrimSpace(r.Target.Generation+"  "+r.Target.Recipe)))
	row := func(name string, l evalfresh.Latency) []string {
		if l.Count == 0 {
			return []string{name, "-", "-", "-", "-", "0"}
		}
		return []string{name, short(l.P50), short(l.P95), short(l.P99), short(l.Max), spell.Thousands(l.Count)}
	}
	rows := [][]string{row("time to searchable", f.Searchable), row("deletes, until gone", f.Deletes)}
	if f.Write.Count > 0 {
		rows = append(rows, row("until in the log", f.Write))
	}
	server := row("the server says", evalfresh.Latency{P50: f.Server.P50, P95: f.Server.P95, P99: f.Server.P99, Max: f.Server.Max, Count: int(f.Server.Count)})
	rows = append(rows, server)
	out.table([]string{"", "p50", "p95", "p99", "max", "changes"}, rows)
	out.Printf("\n")
	var plainRows [][]string
	for _, figure := range r.Figures {
		if strings.HasPrefix(figure.Name, "time_to_searchable.") || strings.HasPrefix(figure.Name, "deletes.") || strings.HasPrefix(figure.Name, "write.") {
			continue
		}
		plainRows = append(plainRows, []string{figure.Name, figure.String()})
	}
	out.table([]string{"figure", ""}, plainRows)
	if f.Superseded > 0 || f.Unclear > 0 {
		out.Printf("\n%s\n", out.dim(fmt.Sprintf("superseded before they were seen: %s; left no trace to watch for: %s", count(f.Superseded, "change"), spell.Thousands(f.Unclear))))
	}
	for _, w := range freshnessWarnings(f, seen) {
		out.Printf("%s %s\n", out.warn("note:"), plain(w))
	}
	for i, x := range f.Faults {
		if i == 5 {
			out.Printf("  %s\n", out.dim("and more: --json and --report have them"))
			break
		}
		out.Printf("  %s %s  %s\n", out.bad(short(x.At)), x.What, out.dim(plain(cut(x.Query, 60))))
	}
	for i, id := range f.Late {
		if i == 5 {
			out.Printf("  %s\n", out.dim(fmt.Sprintf("and %s more", spell.Thousands(len(f.Late)-5))))
			break
		}
		out.Printf("  %s %s\n", out.bad("never"), plain(id))
	}
}

// plotPoints bounds how many marks a plot has.
const plotPoints = 2000

func freshnessPage(r *evals.Result, f *evalfresh.Figures, seen *evalfresh.Seen) *htmlreport.Page {
	large := func(name, note string) htmlreport.Figure {
		figure, ok := r.Figure(name)
		if !ok {
			return htmlreport.Figure{Name: name, Value: "-"}
		}
		return htmlreport.Figure{Name: name, Value: figure.String(), Note: note}
	}
	at := "@" + strconv.Itoa(f.K)
	page := &htmlreport.Page{
		Title: "Freshness: " + r.Set.Name, Facts: facts(r),
		Lead: fmt.Sprintf("%s, %s of them watched until an answer showed them; %s asked meanwhile.", count(f.Changes, "change"), spell.Thousands(f.Changes-f.Unwatched), count(f.Questions, "question")),
		Parts: []htmlreport.Part{htmlreport.Figures{
			large("time_to_searchable.p50", ""), large("time_to_searchable.p99", ""), large("deletes.p99", "until gone"), large("never", ""),
			large("ghost_rate", ""), large("mixed_version_rate", ""), large("stale_rate"+at, ""), large("fresh_recall"+at, ""), large("fresh_share", "mean over time"),
		}},
	}
	for _, w := range freshnessWarnings(f, seen) {
		page.Parts = append(page.Parts, htmlreport.Text("Note: "+w+"."))
	}
	var written, deleted []htmlreport.Point
	var all []float64
	every := max(1, (len(f.Samples)+plotPoints-1)/plotPoints)
	for i, s := range f.Samples {
		all = append(all, max(s.Took.Seconds(), 1e-6))
		if i%every != 0 {
			continue
		}
		p := htmlreport.Point{X: s.At.Seconds(), Y: max(s.Took.Seconds(), 1e-6)}
		if s.Deleted {
			deleted = append(deleted, p)
		} else {
			written = append(written, p)
		}
	}
	seconds := evals.Seconds.Format
	var fresh, age []htmlreport.Point
	for _, m := range f.Moments {
		fresh = append(fresh, htmlreport.Point{X: m.At.Seconds(), Y: m.Fresh})
		age = append(age, htmlreport.Point{X: m.At.Seconds(), Y: m.Age.Seconds()})
	}
	time := htmlreport.Axis{Label: "since the start", Format: seconds}
	if len(all) > 0 {
		page.Parts = append(page.Parts, htmlreport.Section{
			Title: "Time to searchable", Text: "From sending a change until the end of the first answer that showed it.",
			Parts: []htmlreport.Part{
				htmlreport.Scatter{Title: "Over time", X: time, Y: htmlreport.Axis{Log: true, Format: seconds}, Series: []htmlreport.Series{{Name: "written", Points: written}, {Name: "deleted", Points: deleted}}},
				htmlreport.Histogram{Title: "Distribution", X: htmlreport.Axis{Log: true, Format: seconds}, Bins: 30, Values: all, Marks: []htmlreport.Point{
					{X: f.Searchable.P50.Seconds(), Label: "p50"}, {X: f.Searchable.P99.Seconds(), Label: "p99"},
				}},
			},
		})
	}
	if len(fresh) > 0 {
		page.Parts = append(page.Parts, htmlreport.Section{
			Title: "Freshness over time", Text: "The share of documents that were up to date, and the mean age of what was missing (0 for a document that is up to date), after Cho and Garcia-Molina.",
			Parts: []htmlreport.Part{
				htmlreport.Lines{Title: "Up to date", X: time, Y: htmlreport.Axis{From: 0, To: 1}, Series: []htmlreport.Series{{Points: fresh}}},
				htmlreport.Lines{Title: "Mean age", X: time, Y: htmlreport.Axis{Format: seconds}, Series: []htmlreport.Series{{Points: age}}},
			},
		})
	}
	table := htmlreport.Table{Columns: []htmlreport.Column{{Name: "figure"}, {Name: "value", Number: true}}}
	for _, figure := range r.Figures {
		table.Rows = append(table.Rows, []htmlreport.Cell{{Text: figure.Name}, {Text: figure.String()}})
	}
	for _, row := range [][2]string{{"the server's own p50", seconds(f.Server.P50.Seconds())}, {"the server's own p99", seconds(f.Server.P99.Seconds())}, {"superseded changes", spell.Thousands(f.Superseded)}, {"unclear changes", spell.Thousands(f.Unclear)}} {
		table.Rows = append(table.Rows, []htmlreport.Cell{{Text: row[0], Tone: htmlreport.Dim}, {Text: row[1], Tone: htmlreport.Dim}})
	}
	page.Parts = append(page.Parts, htmlreport.Section{Title: "All figures", Parts: []htmlreport.Part{table}})
	if len(f.Faults)+len(f.Late) > 0 {
		faults := htmlreport.Table{Columns: []htmlreport.Column{{Name: "at", Number: true}, {Name: "what"}, {Name: "question, or document"}}}
		for _, x := range f.Faults {
			faults.Rows = append(faults.Rows, []htmlreport.Cell{{Text: short(x.At)}, {Text: x.What, Tone: htmlreport.Bad}, {Text: x.Query}})
		}
		for _, id := range f.Late[:min(len(f.Late), 50)] {
			faults.Rows = append(faults.Rows, []htmlreport.Cell{{}, {Text: "never, or not as it should be at the end", Tone: htmlreport.Bad}, {Text: id}})
		}
		page.Parts = append(page.Parts, htmlreport.Section{Title: "What was wrong", Parts: []htmlreport.Part{faults}})
	}
	return page
}
