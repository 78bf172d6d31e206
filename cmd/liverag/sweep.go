package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/liverag/liverag/evals"
	htmlreport "github.com/liverag/liverag/evals/report"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/vectordb"
)

func sweepVerb() verb {
	return verb{
		name: "sweep", group: groupGenerations, args: "RECIPE.yaml…",
		summary: "Try many recipes on questions with known answers, and rank them",
		about: `Builds each recipe, asks a set's questions of it, and ranks the recipes by a figure, with the difference to the best and how likely so large a difference is by chance (a paired permutation test of the two; among many recipes some differences are small in p by chance). It also sweeps what needs no replay: modes of search, how many hits are asked for, and the weight of the dense leg in a hybrid answer.

A running liverag replays its log into a generation for each recipe, one after the other, all documents or a --sample of them; vectors that the server has cached are not made again. Questions without an answer in the sample are left out. A generation that is there with the same name, recipe and sample is used as it is: so a sweep that was interrupted goes on where it was. In the end the sweep drops the generations that it made, also those of an interrupted run, unless --keep says otherwise.

With --in-process no server is needed. A set in BEIR's layout is indexed by each recipe with the code of ` + "`up`" + `. A set for ` + "`eval chunking`" + ` (corpora/*.md and questions.jsonl) gets its figures instead: recall, precision, precision_omega, iou. Vectors are cached in the data directory.

A recipe is a file with the keys name, chunker (strategy, tokens, overlap, tokenizer) and embedder (model, long), each optional, as for ` + "`replay`" + `: flags change single values in all of them, and what nobody says is as the server, or with --in-process the configuration, is set up.

--weights fuses answers of the dense and the lexical leg, each asked for 200 hits, as a hybrid answer of 50 hits does, with each weight in place of the model's own. latency is that of a whole answer whose question's vector is made already: every question is asked once before.`,
		examples: []example{
			{"which chunker suits a tenth of the documents that run here?", "liverag sweep recipes/*.yaml --set questions.jsonl --sample 0.1"},
			{"recall against what the reader has to read, as a page", "liverag sweep recipes/*.yaml --set chroma-chunking --in-process --k 3,5,10 --metric recall --report sweep.html"},
			{"what is the dense leg worth?", "liverag sweep recipes/live.yaml --set scifact --in-process --modes dense,lexical,hybrid --weights 0.1,0.3,0.5,0.7"},
		},
		settings: append(append([]string{"cache.*"}, clientSettings...), recipeSettings...),
		setup: func(fs *flag.FlagSet) action {
			var s sweep
			fs.StringVar(&s.ask.set, "set", "", "`DIR` in BEIR's layout or of eval chunking's, or a FILE of questions")
			fs.StringVar(&s.ask.questions, "questions", "", "`FILE` of questions, in place of the set's own")
			fs.StringVar(&s.ask.split, "split", "test", "`NAME` of the judgements: qrels/NAME.tsv")
			fs.StringVar(&s.ask.filter, "filter", "", "condition on the metadata, as `JSON`")
			fs.StringVar(&s.ask.prefix, "prefix", "", "`TEXT` that the index has before every document id of the set")
			fs.IntVar(&s.ask.concurrency, "concurrency", 2, "how many questions are asked at once")
			fs.StringVar(&s.metric, "metric", "", "`FIGURE` to rank by, such as recall@20 (default ndcg@10; of a set for chunking iou)")
			fs.StringVar(&s.modeList, "modes", "", "`MODES` to sweep: hybrid, dense, lexical, with commas between (default hybrid)")
			fs.StringVar(&s.kList, "k", "", "how many hits to ask for, as in `10,50,200` (default 200; of a set for chunking 5)")
			fs.StringVar(&s.weightList, "weights", "", "weights of the dense leg in a hybrid answer to sweep, as in `0.1,0.3,0.5`")
			fs.BoolVar(&s.inProcess, "in-process", false, "build the recipes here, for the purpose")
			fs.Float64Var(&s.sample, "sample", 1, "the `SHARE` of the documents to replay, the same ones every time")
			fs.Float64Var(&s.share, "share", 1, "the `SHARE` of the model's time that a replay may take; live changes go first in any case")
			fs.BoolVar(&s.keep, "keep", false, "drop no generation in the end")
			s.declare(fs)
			return s.run
		},
	}
}

type sweep struct {
	evalFlags
	ask                         evalRetrieval // what it has in common with asking one
	metric                      string
	modeList, kList, weightList string
	inProcess, keep             bool
	sample, share               float64

	modes   []string
	ks      []int
	weights []float64
	metrics []evals.Metric
	recipes []*sweptRecipe
	set     evals.Set
}

// variant is a way to ask that needs no replay.
type variant struct {
	Mode string `json:"mode,omitempty"`
	// Weight of the dense leg where it is not the model's own; nil: it is.
	Weight *float64 `json:"weight,omitempty"`
	K      int      `json:"k"`
}

// sweptRow is a recipe asked in one way.
type sweptRow struct {
	// Name is the recipe's, with the way of asking where there are several.
	Name   string `json:"name"`
	Recipe string `json:"recipe"`
	variant
	Target     vectordb.Recipe `json:"target"`
	Generation string          `json:"generation,omitempty"`
	// Chunks, Tokens and Bytes are the index's. Bytes are 0 where nothing is stored.
	Chunks     int     `json:"chunks"`
	Tokens     int64   `json:"tokens"`
	MeanTokens float64 `json:"mean_tokens"`
	Bytes      int64   `json:"bytes,omitempty"`
	// TokensEmbedded were sent to the model to build it, TokensReused were not: nil where that is not known, as where other processes index.
	TokensEmbedded *int64 `json:"tokens_embedded,omitempty"`
	TokensReused   *int64 `json:"tokens_reused,omitempty"`
	// AnswerTokens is how many tokens the hits of an answer have, of a set for chunking.
	AnswerTokens float64            `json:"answer_tokens,omitempty"`
	Figures      map[string]float64 `json:"figures"`
	// Latency is the median, in seconds; 0 if the answers were put together here.
	Latency float64 `json:"latency_p50,omitempty"`
	// Difference is the rank's figure less the best row's, from Low to High in 95 % of the bootstrap's draws, and P how likely it is by chance.
	Difference float64 `json:"difference"`
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	P          float64 `json:"p"`

	report evals.Report
	sizes  []float64 // of chunks
}

// sweepOutcome is what became of a sweep.
type sweepOutcome struct {
	rows []*sweptRow // the best first
	// failed are the recipes that could not be built or asked, with why.
	failed []failedRecipe
	// sizes is what sizes of rows count.
	sizes string
	shown []string // figures of the table
	asked int      // questions
	after error    // what went wrong once all was measured: no reason to lose the figures
}

type failedRecipe struct {
	Recipe string `json:"recipe"`
	Why    string `json:"why"`
	err    error
}

// sweepTolerance is that of the evals which a sweep runs.
var sweepTolerance = retrievalTolerance

// listed reads values with commas between them.
func listed[T any](flagName, text string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		v, err := parse(part)
		if err != nil {
			return nil, &usageError{detail: fmt.Sprintf("--%s: %q %v", flagName, part, err)}
		}
		out = append(out, v)
	}
	return out, nil
}

// isChunking tells whether the set is one of eval chunking.
func (s *sweep) isChunking() bool {
	info, err := os.Stat(filepath.Join(s.ask.set, "corpora"))
	return err == nil && info.IsDir()
}

func (s *sweep) check(c *call) (err error) {
	switch {
	case len(c.Args) == 0:
		return &usageError{detail: "sweep needs recipes: files, as in liverag sweep recipes/*.yaml"}
	case s.ask.set == "" && s.ask.questions == "":
		return &usageError{detail: "sweep needs questions: --set DIR or --set FILE"}
	case s.isChunking() && !s.inProcess:
		return &usageError{detail: "the set is one for chunking, which is evaluated with --in-process"}
	case s.isChunking() && (s.modeList != "" || s.weightList != "" || s.ask.filter != "" || s.ask.questions != ""):
		return &usageError{detail: "--modes, --weights, --filter and --questions are not of a set for chunking: chunks are searched by their vectors alone"}
	case s.inProcess && s.sample != 1:
		return &usageError{detail: "--sample is of a running liverag: with --in-process the set's corpus is indexed, all of it"}
	case s.inProcess && s.keep:
		return &usageError{detail: "--keep keeps generations of a running liverag: with --in-process nothing is left but the cached vectors"}
	case s.inProcess && s.ask.prefix != "":
		return &usageError{detail: "--prefix is of a running liverag: with --in-process ids are the set's"}
	}
	for name, share := range map[string]float64{"--sample": s.sample, "--share": s.share} {
		if !(share > 0 && share <= 1) {
			return &usageError{detail: fmt.Sprintf("%s is above 0 and at most 1, not %v", name, share)}
		}
	}
	most := retrieve.MaxK
	if s.isChunking() {
		most = 1000
	}
	if s.modes, err = listed("modes", s.modeList, func(text string) (string, error) {
		if !slices.Contains([]string{"hybrid", "dense", "lexical"}, text) {
			return "", errors.New("is no mode: there are hybrid, dense and lexical")
		}
		return text, nil
	}); err != nil {
		return err
	}
	if s.ks, err = listed("k", s.kList, func(text string) (int, error) {
		k, err := strconv.Atoi(text)
		if err != nil || k < 1 || k > most {
			return 0, fmt.Errorf("is not a number from 1 to %d", most)
		}
		return k, nil
	}); err != nil {
		return err
	}
	if s.weights, err = listed("weights", s.weightList, func(text string) (float64, error) {
		w, err := strconv.ParseFloat(text, 64)
		if err != nil || !(w >= 0 && w <= 1) {
			return 0, errors.New("is not a weight from 0 to 1")
		}
		return w, nil
	}); err != nil {
		return err
	}
	if len(s.modes) == 0 && len(s.weights) == 0 {
		s.modes = []string{string(retrieve.Hybrid)}
	}
	if err := s.checkMetric(c); err != nil {
		return err
	}
	seen := map[string]string{}
	for _, path := range c.Args {
		r, err := openSweptRecipe(c, path)
		if err != nil {
			return err
		}
		if other, ok := seen[r.name]; ok {
			return &usageError{detail: fmt.Sprintf("%s and %s have the same name, %s", other, path, r.name), hint: "give one another name with the key name"}
		}
		seen[r.name] = path
		s.recipes = append(s.recipes, r)
	}
	return nil
}

// chunkingMetrics are the figures of a set for chunking.
var chunkingMetrics = []string{"recall", "precision", "precision_omega", "iou"}

func (s *sweep) checkMetric(c *call) error {
	if s.isChunking() {
		s.metric = cmp.Or(s.metric, "iou")
		if !slices.Contains(chunkingMetrics, s.metric) {
			return &usageError{detail: fmt.Sprintf("--metric %s: a set for chunking has %s", s.metric, strings.Join(chunkingMetrics, ", "))}
		}
		if len(s.ks) == 0 {
			s.ks = []int{5}
		}
		return nil
	}
	s.metric = cmp.Or(s.metric, evals.NDCG(10).String())
	s.ask.metrics, s.ask.k = stringList{s.metric}, retrieve.MaxK
	if len(s.ks) == 0 {
		s.ks = []int{retrieve.MaxK}
	}
	without := *c
	without.Args = nil
	var err error
	if s.metrics, err = s.ask.check(&without); err != nil {
		return err
	}
	m, err := evals.ParseMetric(s.metric)
	if err != nil {
		return &usageError{detail: "--" + err.Error()}
	}
	s.metric = m.String()
	return nil
}

// variants are the ways to ask each recipe.
func (s *sweep) variants() []variant {
	var out []variant
	for _, k := range s.ks {
		for _, mode := range s.modes {
			out = append(out, variant{Mode: mode, K: k})
		}
		for _, w := range s.weights {
			out = append(out, variant{Mode: string(retrieve.Hybrid), Weight: &w, K: k})
		}
	}
	if len(out) == 0 { // of a set for chunking
		for _, k := range s.ks {
			out = append(out, variant{K: k})
		}
	}
	return out
}

// label names a recipe asked in a way; what does not vary is left out.
func (s *sweep) label(recipe string, v variant) string {
	if len(s.modes)+len(s.weights) > 1 {
		if v.Weight != nil {
			recipe += fmt.Sprintf(" hybrid %g", *v.Weight)
		} else {
			recipe += " " + v.Mode
		}
	}
	if len(s.ks) > 1 {
		recipe += fmt.Sprintf(" k=%d", v.K)
	}
	return recipe
}

func (s *sweep) run(ctx context.Context, c *call) error {
	if err := s.check(c); err != nil {
		return err
	}
	frame, err := s.begin(c, evals.KindSweep, sweepTolerance)
	if err != nil {
		return err
	}
	var done *sweepOutcome
	server := ""
	if s.isChunking() {
		done, err = s.chunking(ctx, frame)
	} else {
		done, server, err = s.retrieval(ctx, frame)
	}
	if err != nil {
		return err
	}
	if len(done.rows) == 0 {
		var errs []error
		for _, f := range done.failed {
			errs = append(errs, fmt.Errorf("%s: %w", f.Recipe, f.err))
		}
		return errors.Join(append(errs, done.after)...)
	}
	if err := s.rank(done); err != nil {
		return err
	}
	best := done.rows[0]
	r := &evals.Result{
		Set: s.set, Target: evals.Target{Server: server, Recipe: describeRecipe(best.Target)},
		Settings: map[string]any{"metric": s.metric, "best": best.Name},
		Figures:  s.figures(done),
	}
	if s.sample < 1 {
		r.Settings["sample"] = s.sample
	}
	if r.Detail, err = json.Marshal(s.detail(done)); err != nil {
		return fmt.Errorf("keep the answers: %w", err)
	}
	err = frame.finish(r, evalOutput{
		JSON: map[string]any{"metric": s.metric, "best": best.Name, "rows": done.rows, "failed": done.failed},
		Text: func(out *terminal) { s.print(out, done) },
		Page: func() *htmlreport.Page { return s.page(done, r) },
	})
	for _, f := range done.failed {
		err = errors.Join(err, fmt.Errorf("%s: %w", f.Recipe, f.err))
	}
	return errors.Join(err, done.after)
}

// rank puts the best row first, and compares the others with it.
func (s *sweep) rank(done *sweepOutcome) error {
	slices.SortStableFunc(done.rows, func(a, b *sweptRow) int {
		return cmp.Or(cmp.Compare(b.Figures[s.metric], a.Figures[s.metric]), cmp.Compare(a.Chunks, b.Chunks))
	})
	best := s.ranked(done.rows[0].report)
	for _, row := range done.rows {
		c, err := evals.Compare(best, s.ranked(row.report))
		if err != nil {
			return fmt.Errorf("%s: %w", row.Name, err)
		}
		row.Difference, row.Low, row.High, row.P = c[0].Difference, c[0].Low, c[0].High, c[0].P
	}
	return nil
}

// ranked is a report of the one figure that is compared.
func (s *sweep) ranked(r evals.Report) evals.Report {
	r.Metrics = []string{s.metric}
	return r
}

// figures are those of the best row.
func (s *sweep) figures(done *sweepOutcome) []evals.Figure {
	best := done.rows[0]
	var figures []evals.Figure
	for _, name := range best.report.Metrics {
		figures = append(figures, evals.Figure{Name: name, Value: best.Figures[name], Unit: evals.Fraction, Better: evals.Higher, Chief: name == s.metric})
	}
	figures = append(figures,
		evals.Figure{Name: "queries", Value: float64(done.asked), Unit: evals.Count},
		evals.Figure{Name: "recipes", Value: float64(len(s.recipes)), Unit: evals.Count},
		evals.Figure{Name: "chunks", Value: float64(best.Chunks), Unit: evals.Count},
		evals.Figure{Name: "mean_tokens", Value: best.MeanTokens})
	if best.Latency > 0 {
		figures = append(figures, evals.Figure{Name: "latency.p50", Value: best.Latency, Unit: evals.Seconds})
	}
	return figures
}

// detail has each row with its questions' values, which a comparison of two rows needs.
func (s *sweep) detail(done *sweepOutcome) any {
	type kept struct {
		*sweptRow
		Queries map[string]map[string]float64 `json:"queries"`
	}
	rows := make([]kept, len(done.rows))
	for i, row := range done.rows {
		rows[i] = kept{row, row.report.Queries}
	}
	return map[string]any{"rows": rows, "failed": done.failed}
}

// sweepProgress tells how far a sweep is, by recipes.
type sweepProgress struct {
	frame *evalFrame
	of    int
	done  int
	begun time.Time
}

// at names a step of the recipe in hand.
func (p *sweepProgress) at(recipe, what string) string {
	return fmt.Sprintf("%d of %d, %s: %s", p.done+1, p.of, recipe, what)
}

// status shows a step where somebody watches.
func (p *sweepProgress) status(recipe, what string) {
	p.frame.call.Err.Status("%s", plain(p.at(recipe, what)))
}

// finished prints what came of a recipe, and when all will be done.
func (p *sweepProgress) finished(recipe, outcome string) {
	p.done++
	c := p.frame.call
	if c.JSON {
		return
	}
	left := ""
	if p.done < p.of {
		left = fmt.Sprintf(", about %s to go", short((time.Since(p.begun) / time.Duration(p.done) * time.Duration(p.of-p.done)).Round(time.Second)))
	}
	c.Err.Printf("%s %s: %s%s\n", c.Err.dim(fmt.Sprintf("%d of %d", p.done, p.of)), plain(recipe), plain(outcome), left)
}

// restricted are the questions that have an answer within a sample of the documents, and of their answers those that are.
func restricted(questions evals.Questions, sample float64) evals.Questions {
	extent := indexer.Extent{Sample: sample}
	if !extent.Partial() {
		return questions
	}
	var out evals.Questions
	for _, q := range questions {
		if len(q.Passages) == 0 {
			q.Documents = slices.DeleteFunc(slices.Clone(q.Documents), func(id string) bool { return !extent.Samples(id) })
			if len(q.Documents) == 0 {
				continue
			}
			if q.Grades != nil {
				grades := make(map[string]int, len(q.Grades))
				for id, grade := range q.Grades {
					if extent.Samples(id) {
						grades[id] = grade
					}
				}
				q.Grades = grades
			}
		}
		out = append(out, q)
	}
	return out
}
