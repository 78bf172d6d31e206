package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/evals"
	htmlreport "github.com/liverag/liverag/evals/report"
	"github.com/liverag/liverag/internal/spell"
	"github.com/liverag/liverag/retrieve"
)

func evalVerb() verb {
	return verb{
		name: "eval", group: groupQuestions, args: "KIND",
		summary: "Measure how good the answers are, keep the figures, and fail when they get worse",
		about: `An eval asks questions whose right answers are known and prints figures. Every run is kept, so that the next one can be compared with it, and any of them can gate a deployment: with --baseline it exits 1 when a figure got worse, with --gate when one is not what it has to be, and --junit tells a CI.

retrieval asks a running liverag, or an index made for the purpose, and compares the ranking with judgements: nDCG, recall, MRR, MAP, precision.

chunking cuts and embeds a set of texts and tells how much of what answers each question is found, and how much else: no server is needed.

list shows the runs that were kept.`,
		examples: []example{
			{"ask what runs here a benchmark's questions", "liverag eval retrieval --set scifact"},
			{"how well does a way to cut fit its questions?", "liverag eval chunking --set chroma-chunking --chunker markdown --tokens 200"},
			{"in a CI: no figure may be worse than in the file that is kept in the repository", "liverag eval retrieval --set questions.jsonl --baseline evals/baseline.json --junit eval.xml"},
			{"all runs, and how the figures went", "liverag eval list --kind retrieval"},
		},
		setup: func(*flag.FlagSet) action {
			return func(_ context.Context, c *call) error {
				if len(c.Args) == 0 {
					return &usageError{detail: "eval needs a KIND: " + strings.Join(evalNames(), ", ")}
				}
				return &usageError{detail: fmt.Sprintf("there is no eval %q: there are %s", c.Args[0], strings.Join(evalNames(), ", "))}
			}
		},
		subverbs: evalVerbs(),
	}
}

// evalVerbs are the kinds of evals.
func evalVerbs() []verb {
	return []verb{
		evalRetrievalVerb(),
		evalChunkingVerb(),
		evalFreshnessVerb(),
		evalCompareVerb(),
		evalFeedbackVerb(),
		evalListVerb(),
	}
}

func evalNames() []string {
	var names []string
	for _, v := range evalVerbs() {
		names = append(names, strings.TrimPrefix(v.name, "eval "))
	}
	return names
}

// evalFlags are the flags that every eval has.
type evalFlags struct {
	baseline, tolerance string
	gates               stringList
	junit, report       string
	results             string
	discard             bool
}

func (f *evalFlags) declare(fs *flag.FlagSet) {
	fs.StringVar(&f.baseline, "baseline", "", "`RUN` to compare with: a file (of a kept run, or of what --json printed), the ID of a kept run, or latest; exit 1 if a figure got worse")
	fs.StringVar(&f.tolerance, "tolerance", "", "how much worse a figure may be than the baseline's, as in `0.01`, 2%, or for one of them mrr=0.02; several with commas between")
	fs.Var(&f.gates, "gate", "exit 1 unless a figure is so, as in `ndcg@10>=0.6`; repeatable")
	fs.StringVar(&f.junit, "junit", "", "write the figures as test cases in JUnit XML to `FILE`")
	fs.StringVar(&f.report, "report", "", "write a page with tables and plots to `FILE`, HTML that needs nothing else")
	declareResults(fs, &f.results)
	fs.BoolVar(&f.discard, "discard", false, "don't keep the run")
}

func declareResults(fs *flag.FlagSet, dir *string) {
	fs.StringVar(dir, "results", "", "`DIR` of the runs that are kept (default evals in the data directory)")
}

// openResults returns the runs kept in dir, or in the data directory.
func openResults(c *call, dir string) *evals.Results {
	if dir == "" {
		dir = filepath.Join(c.Config.Data, "evals")
	}
	return evals.OpenResults(dir)
}

// evalFrame is what all evals have around them: what to compare with before, and what becomes of the figures after.
type evalFrame struct {
	call      *call
	flags     *evalFlags
	kind      evals.Kind
	started   time.Time
	results   *evals.Results
	baseline  *evals.Baseline // nil: none
	tolerance evals.Tolerance
	gates     []evals.Gate
}

// begin reads what an eval is compared with, before anything takes time: a mistake there must not come out at the end. tolerance is the kind's own.
func (f *evalFlags) begin(c *call, kind evals.Kind, tolerance evals.Tolerance) (*evalFrame, error) {
	frame := &evalFrame{call: c, flags: f, kind: kind, started: time.Now(), results: openResults(c, f.results)}
	var err error
	if frame.tolerance, err = tolerance.With(f.tolerance); err != nil {
		return nil, &usageError{detail: "--" + err.Error()}
	}
	for _, text := range f.gates {
		g, err := evals.ParseGate(text)
		if err != nil {
			return nil, &usageError{detail: "--" + err.Error()}
		}
		frame.gates = append(frame.gates, g)
	}
	for name, file := range map[string]string{"junit": f.junit, "report": f.report} {
		if file == "" {
			continue
		}
		if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
			return nil, &usageError{detail: fmt.Sprintf("--%s %s: there is no such folder", name, file)}
		}
	}
	if f.baseline != "" {
		if frame.baseline, err = frame.readBaseline(); err != nil {
			return nil, err
		}
	}
	return frame, nil
}

// readBaseline reads a file, or else a kept run.
func (f *evalFrame) readBaseline() (*evals.Baseline, error) {
	name := f.flags.baseline
	content, err := os.ReadFile(name)
	switch {
	case err == nil:
		b, err := evals.ReadBaseline(content, name)
		if err != nil {
			return nil, withHint(err, "a baseline is a kept run (see `liverag eval list`), or what an eval printed with --json")
		}
		return b, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read baseline: %w", err)
	}
	r, err := f.results.Load(name, f.kind)
	if err != nil {
		return nil, withHint(fmt.Errorf("baseline: %w", err), "name a file, or one of the runs that `liverag eval list` shows")
	}
	return r.Baseline(), nil
}

// evalOutput is what an eval has to show beside its figures.
type evalOutput struct {
	// JSON is what --json prints beside the figures; it may be nil.
	JSON map[string]any
	// Text prints the figures for a person.
	Text func(out *terminal)
	// Page makes the report. The frame adds what the run is compared with.
	Page func() *htmlreport.Page
	// Gates are bounds that the eval itself holds the figures to, beside those of --gate.
	Gates []evals.Gate
}

// finish keeps the result, writes what was asked for, prints, and fails if a figure is not what it should be. It fills in kind and times.
func (f *evalFrame) finish(r *evals.Result, o evalOutput) error {
	c := f.call
	c.Err.clearStatus()
	r.Kind, r.Started, r.Took = f.kind, f.started, time.Since(f.started)
	r.Target.Program = readBuild().String()
	var changes []evals.Change
	if f.baseline != nil {
		var err error
		if changes, err = r.Against(f.baseline, f.tolerance); err != nil {
			// The figures must not be lost over it.
			return errors.Join(err, f.keep(r))
		}
	}
	gates := slices.Clone(o.Gates)
	for _, g := range f.gates {
		gates = append(gates, g.Check(r))
	}
	errs := []error{f.keep(r)}
	if f.flags.junit != "" {
		errs = append(errs, f.writeJUnit(r, changes, gates))
	}
	if f.flags.report != "" {
		page := o.Page()
		page.Parts = append(verdictParts(f.baseline, changes, gates), page.Parts...)
		errs = append(errs, page.WriteFile(f.flags.report))
	}
	if c.JSON {
		more := map[string]any{}
		for name, value := range o.JSON {
			more[name] = value
		}
		if f.baseline != nil {
			more["baseline"] = map[string]any{"name": f.baseline.Name, "changes": changes}
		}
		if len(gates) > 0 {
			more["gates"] = gates
		}
		errs = append(errs, c.Out.JSON(r.Summary(more)))
	} else {
		o.Text(c.Out)
		f.print(r, changes, gates)
	}
	return errors.Join(append(errs, verdict(f.baseline, changes, gates))...)
}

func (f *evalFrame) keep(r *evals.Result) error {
	if f.flags.discard {
		return nil
	}
	return f.results.Save(r)
}

func (f *evalFrame) writeJUnit(r *evals.Result, changes []evals.Change, gates []evals.Gate) error {
	var b bytes.Buffer
	if err := evals.WriteJUnit(&b, r, changes, gates); err != nil {
		return fmt.Errorf("write JUnit XML: %w", err)
	}
	if err := os.WriteFile(f.flags.junit, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write JUnit XML: %w", err)
	}
	return nil
}

// print tells a person what became of the comparison, and where things are.
func (f *evalFrame) print(r *evals.Result, changes []evals.Change, gates []evals.Gate) {
	out := f.call.Out
	if len(changes) > 0 {
		out.Printf("\ncompared with %s\n", plain(f.baseline.Name))
		for _, c := range changes {
			mark := out.dim("same  ")
			switch {
			case c.Worse:
				mark = out.bad("worse ")
			case improved(c):
				mark = out.good("better")
			case c.Better == "":
				mark = "      "
			}
			out.Printf("  %s %s\n", mark, plain(c.String()))
		}
	}
	if len(gates) > 0 {
		out.Printf("\n")
	}
	for _, g := range gates {
		if g.Passed {
			out.Printf("%s %s\n", out.good("holds"), plain(g.String()))
		} else {
			out.Printf("%s %s: %s\n", out.bad("fails"), plain(g.String()), plain(g.Why))
		}
	}
	var where []string
	if !f.flags.discard {
		where = append(where, "kept as "+r.ID)
	}
	if f.flags.report != "" {
		where = append(where, "report in "+f.flags.report)
	}
	if len(where) > 0 {
		out.Printf("\n%s\n", out.dim(plain(strings.Join(where, " · "))))
	}
}

// improved tells whether a figure got better by more than it might have got worse.
func improved(c evals.Change) bool {
	if c.Gone {
		return false
	}
	switch c.Better {
	case evals.Higher:
		return c.After-c.Before > c.Tolerance
	case evals.Lower:
		return c.Before-c.After > c.Tolerance
	}
	return false
}

// verdict is the error of figures that are worse, or not what they have to be.
func verdict(b *evals.Baseline, changes []evals.Change, gates []evals.Gate) error {
	var errs []error
	var worse []string
	for _, c := range changes {
		if c.Worse {
			worse = append(worse, c.String())
		}
	}
	if len(worse) > 0 {
		errs = append(errs, fmt.Errorf("worse than the baseline %s: %s", b.Name, strings.Join(worse, "; ")))
	}
	for _, g := range gates {
		if !g.Passed {
			errs = append(errs, fmt.Errorf("%s does not hold: %s", g, g.Why))
		}
	}
	return errors.Join(errs...)
}

// verdictParts is verdict in a report.
func verdictParts(b *evals.Baseline, changes []evals.Change, gates []evals.Gate) []htmlreport.Part {
	var parts []htmlreport.Part
	if len(changes) > 0 {
		t := htmlreport.Table{Columns: []htmlreport.Column{{Name: "figure"}, {Name: "baseline", Number: true}, {Name: "now", Number: true}, {Name: "tolerance", Number: true}, {Name: ""}}}
		for _, c := range changes {
			after, word := c.Unit.Format(c.After), htmlreport.Cell{}
			switch {
			case c.Gone:
				after, word = "not measured", htmlreport.Cell{Text: "gone", Tone: htmlreport.Bad}
			case c.Worse:
				word = htmlreport.Cell{Text: "worse", Tone: htmlreport.Bad}
			case improved(c):
				word = htmlreport.Cell{Text: "better", Tone: htmlreport.Good}
			}
			t.Rows = append(t.Rows, []htmlreport.Cell{{Text: c.Figure}, {Text: c.Unit.Format(c.Before)}, {Text: after}, {Text: c.Unit.Format(c.Tolerance)}, word})
		}
		parts = append(parts, htmlreport.Section{Title: "Against the baseline", Text: "Compared with " + b.Name + ".", Parts: []htmlreport.Part{t}})
	}
	if len(gates) > 0 {
		t := htmlreport.Table{Columns: []htmlreport.Column{{Name: "has to be"}, {Name: "is", Number: true}, {Name: ""}}}
		for _, g := range gates {
			word := htmlreport.Cell{Text: "holds", Tone: htmlreport.Good}
			if !g.Passed {
				word = htmlreport.Cell{Text: strings.TrimSuffix("fails: "+g.Why, ": "), Tone: htmlreport.Bad}
			}
			t.Rows = append(t.Rows, []htmlreport.Cell{{Text: g.String()}, {Text: fmt.Sprintf("%.4g", g.Value)}, word})
		}
		parts = append(parts, htmlreport.Section{Title: "Gates", Parts: []htmlreport.Part{t}})
	}
	return parts
}

// progress shows how far something is, with the time to go, where somebody watches. What may be "asked", the noun "question".
type evalProgress struct {
	out   *terminal
	begun time.Time
	what  string
	noun  string
}

func (f *evalFrame) progress(what, noun string) *evalProgress {
	return &evalProgress{out: f.call.Err, begun: time.Now(), what: what, noun: noun}
}

// at tells that so many of all are done.
func (p *evalProgress) at(done, of int) {
	if !p.out.Watched {
		return
	}
	toGo := ""
	if elapsed := time.Since(p.begun); done > 0 && done < of && elapsed > time.Second {
		toGo = fmt.Sprintf(", %s to go", short(time.Duration(float64(elapsed)*float64(of-done)/float64(done)).Round(time.Second)))
	}
	p.out.Status("%s %s of %s%s", p.what, spell.Thousands(done), count(of, p.noun), toGo)
}

// facts are the lines about a run that every report begins with.
func facts(r *evals.Result) []htmlreport.Fact {
	out := []htmlreport.Fact{{Name: "set", Value: r.Set.Name}}
	for _, f := range []htmlreport.Fact{
		{Name: "server", Value: r.Target.Server}, {Name: "generation", Value: r.Target.Generation}, {Name: "recipe", Value: r.Target.Recipe},
		{Name: "began", Value: r.Started.UTC().Format("2006-01-02 15:04:05 UTC")}, {Name: "took", Value: short(r.Took)}, {Name: "liverag", Value: r.Target.Program},
	} {
		if f.Value != "" {
			out = append(out, f)
		}
	}
	return out
}

// unlogged keeps an eval's questions out of the query log: they are not what users ask.
var unlogged = map[string]string{retrieve.HeaderUnlogged: "1"}

// examine asks a question of an eval: not logged, and again while the server is too busy for it. The mode is always named, so that words alone never answer for the model that is measured.
func (cl *client) examine(ctx context.Context, r queryRequest) (answer queryAnswer, err error) {
	r.Mode = cmp.Or(r.Mode, string(retrieve.Hybrid))
	err = patiently(ctx, func() error { return cl.do(ctx, "POST", "/retrieve", r, &answer, options{header: unlogged}) })
	return answer, err
}

// ranked is the answer as evals judge it.
func (a *queryAnswer) ranked() []evals.Ranked {
	out := make([]evals.Ranked, len(a.Hits))
	for i, hit := range a.Hits {
		out[i] = evals.Ranked{Document: hit.Document, Score: hit.Score, Text: hit.Text}
	}
	return out
}
