package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/evals"
	htmlreport "github.com/liverag/liverag/evals/report"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/vectordb"
)

func evalRetrievalVerb() verb {
	return verb{
		name: "eval retrieval", group: groupQuestions,
		summary: "Ask questions with known answers, and measure the ranking: nDCG, recall, MRR, MAP",
		about: `Asks a running liverag every question of a set and compares the ranking with the judgements. A set is a directory in the layout of the BEIR benchmarks (queries.jsonl, qrels/SPLIT.tsv, corpus.jsonl), or a file of your own questions, a JSON object a line: {"query":"…","documents":["kb/refunds.md"]} where the right documents are known, {"query":"…","grades":{"kb/refunds.md":2,"kb/terms.md":1}} where some are better than others, or {"query":"…","passages":["within ten days"]} where only a quote is: then a hit is right if its text has the quote, white space aside.

A document's rank is that of its best chunk. The figures are trec_eval's: nDCG with the grade itself as the gain, P divided by k whatever was answered, recall of all relevant documents. A question without any hit counts 0 in every mean, as in BEIR; where the mean over the answered ones differs, "answered_only" has it.

The set's documents have to be in the index: bring them in with ` + "`liverag import SET/corpus.jsonl`" + `, which makes title, space, text of each the text, as benchmarks do. With --in-process an index is made for the purpose instead, with the recipe of --chunker and the others, by the same code as ` + "`up`" + `, and removed at the end; vectors are cached in the data directory, so another run over the same texts embeds nothing again.`,
		examples: []example{
			{"your own questions, of what runs here", "liverag eval retrieval --set questions.jsonl"},
			{"two ways to search, side by side", "liverag eval retrieval --set scifact --mode dense && liverag eval retrieval --set scifact --mode hybrid --baseline latest"},
			{"a generation that is not live yet must be no worse than the last run", "liverag eval retrieval --set questions.jsonl --generation trial --baseline latest --tolerance 1%"},
			{"a published figure: nDCG@10 of SciFact with MiniLM is 0.645", "liverag eval retrieval --set scifact --in-process --mode dense --chunker whole --long truncate"},
		},
		settings: append(append([]string{"cache.*"}, clientSettings...), recipeSettings...),
		setup: func(fs *flag.FlagSet) action {
			var e evalRetrieval
			fs.StringVar(&e.set, "set", "", "`DIR` in BEIR's layout, or a FILE of questions")
			fs.StringVar(&e.questions, "questions", "", "`FILE` of questions, in place of the set's own")
			fs.StringVar(&e.split, "split", "test", "`NAME` of the judgements: qrels/NAME.tsv")
			fs.StringVar(&e.mode, "mode", "", "`MODE` of search: hybrid, dense or lexical (default hybrid)")
			fs.StringVar(&e.generation, "generation", "", "`NAME` of the generation or alias that answers (default live)")
			fs.StringVar(&e.filter, "filter", "", "condition on the metadata, as `JSON`")
			fs.StringVar(&e.prefix, "prefix", "", "`TEXT` that the index has before every document id of the set")
			fs.IntVar(&e.k, "k", retrieve.MaxK, "how many hits to ask for, 1 to 200; several of one document count once")
			fs.IntVar(&e.concurrency, "concurrency", 4, "how many questions are asked at once")
			fs.Var(&e.metrics, "metric", "another `FIGURE`, such as ndcg@5, p@3 or success@1; repeatable")
			fs.BoolVar(&e.inProcess, "in-process", false, "make an index of the set's corpus for the purpose, and ask that")
			fs.StringVar(&e.keep, "keep", "", "with --in-process: keep the index in `DIR`, as a data directory for up, and use what is there")
			e.declare(fs)
			return e.run
		},
	}
}

type evalRetrieval struct {
	evalFlags
	set, questions, split    string
	mode, generation, filter string
	prefix                   string
	k, concurrency           int
	metrics                  stringList
	inProcess                bool
	keep                     string
}

// retrievalTolerance is how much worse a figure may be without a word: two builds of one index differ by as much as the order of equal scores.
var retrievalTolerance = evals.Tolerance{Slack: evals.Slack{Absolute: .005}}

// retrievalMetrics are always measured. The rest is asked for by --metric.
var retrievalMetrics = []evals.Metric{evals.NDCG(10), evals.Recall(10), evals.Recall(100), evals.MRR(0), evals.MAP(0), evals.Precision(1), evals.Precision(5), evals.Precision(10)}

// chiefMetrics are those that a list shows.
var chiefMetrics = []string{"ndcg@10", "recall@10", "recall@100", "mrr", "map"}

// depths of the curve of recall.
var depths = []int{1, 2, 3, 5, 10, 20, 50, 100, 200}

func (e *evalRetrieval) check(c *call) (metrics []evals.Metric, err error) {
	switch {
	case len(c.Args) > 0:
		return nil, &usageError{detail: "eval retrieval takes no arguments: name the set with --set"}
	case e.set == "" && e.questions == "":
		return nil, &usageError{detail: "eval retrieval needs questions: --set DIR or --set FILE"}
	case e.k < 1 || e.k > retrieve.MaxK:
		return nil, &usageError{detail: fmt.Sprintf("--k must be from 1 to %d, not %d", retrieve.MaxK, e.k)}
	case e.concurrency < 1:
		return nil, &usageError{detail: "--concurrency must be above 0"}
	case e.mode != "" && !slices.Contains([]string{"hybrid", "dense", "lexical"}, e.mode):
		return nil, &usageError{detail: fmt.Sprintf("--mode %s: there are hybrid, dense and lexical", e.mode)}
	case e.inProcess && e.generation != "":
		return nil, &usageError{detail: "--generation is of a running liverag: with --in-process there is one generation"}
	case e.inProcess && e.prefix != "":
		return nil, &usageError{detail: "--prefix is of a running liverag: with --in-process ids are the set's"}
	case !e.inProcess && e.keep != "":
		return nil, &usageError{detail: "--keep keeps the index of --in-process"}
	}
	if _, err := vectordb.ParseFilter([]byte(cmp.Or(e.filter, "null"))); err != nil {
		return nil, &usageError{detail: "--" + err.Error(), hint: `write it like --filter '{"team":"billing"}'`}
	}
	metrics = slices.Clone(retrievalMetrics)
	for _, name := range e.metrics {
		m, err := evals.ParseMetric(name)
		if err != nil {
			return nil, &usageError{detail: "--" + err.Error()}
		}
		if !slices.ContainsFunc(metrics, func(other evals.Metric) bool { return other.String() == m.String() }) {
			metrics = append(metrics, m)
		}
	}
	return metrics, nil
}

// open reads the questions. beir is nil if there is no directory in BEIR's layout.
func (e *evalRetrieval) open() (questions evals.Questions, set evals.Set, corpus string, err error) {
	name := e.set
	info, err := os.Stat(e.set)
	isDir := err == nil && info.IsDir()
	file := e.questions
	switch {
	case e.set != "" && err != nil:
		return nil, set, "", fmt.Errorf("open set: %w", err)
	case file == "" && !isDir:
		file = e.set
	case file != "":
		name = file
	}
	if isDir {
		if path := filepath.Join(e.set, "corpus.jsonl"); e.exists(path) {
			corpus = path
		}
	}
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, set, "", fmt.Errorf("open questions: %w", err)
		}
		defer f.Close()
		questions, err = evals.ReadQuestions(f, file)
		if err != nil {
			return nil, set, "", withHint(err, "`liverag help eval retrieval` shows how a line of questions is written")
		}
	} else {
		beir, err := evals.OpenBEIR(e.set, e.split)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, set, "", withHint(err, "a set has queries.jsonl and qrels/SPLIT.tsv: --split names the judgements")
		}
		if err != nil {
			return nil, set, "", err
		}
		questions = beir.Questions
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, set, "", fmt.Errorf("open set: %w", err)
	}
	set = evals.Set{Name: strings.TrimSuffix(filepath.Base(abs), ".jsonl"), Digest: questions.Digest()}
	if file == "" {
		set.Name += "/" + e.split
	}
	return questions, set, corpus, nil
}

func (e *evalRetrieval) exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// prefixed are the questions with the prefix before their documents.
func (e *evalRetrieval) prefixed(questions evals.Questions) evals.Questions {
	if e.prefix == "" {
		return questions
	}
	out := slices.Clone(questions)
	for i, q := range out {
		out[i].Documents = make([]string, len(q.Documents))
		for j, id := range q.Documents {
			out[i].Documents[j] = e.prefix + id
		}
		if q.Grades != nil {
			out[i].Grades = make(map[string]int, len(q.Grades))
			for id, grade := range q.Grades {
				out[i].Grades[e.prefix+id] = grade
			}
		}
	}
	return out
}

// asked is who answers the questions.
type asked struct {
	search evals.Searcher
	// target says which generation answered, after it did.
	target func() (evals.Target, error)
	close  func() error
}

func (e *evalRetrieval) run(ctx context.Context, c *call) (err error) {
	metrics, err := e.check(c)
	if err != nil {
		return err
	}
	frame, err := e.begin(c, evals.KindRetrieval, retrievalTolerance)
	if err != nil {
		return err
	}
	questions, set, corpus, err := e.open()
	if err != nil {
		return err
	}
	questions = e.prefixed(questions)
	var who *asked
	if e.inProcess {
		who, err = e.index(ctx, frame, corpus)
	} else {
		who, err = e.server(ctx, c, questions, corpus)
	}
	if err != nil {
		return err
	}
	progress := frame.progress("asked", "question")
	answers, err := questions.Ask(ctx, who.search, evals.AskOptions{
		K: e.k, Concurrency: e.concurrency, Metrics: append(slices.Clone(metrics), curve(metrics)...), Keep: topKept, Progress: progress.at,
	})
	var target evals.Target
	if err == nil {
		target, err = who.target()
	}
	if err := errors.Join(err, who.close()); err != nil {
		return err
	}
	r := &evals.Result{Set: set, Target: target, Settings: e.settings(), Figures: retrievalFigures(metrics, answers)}
	if r.Detail, err = json.Marshal(retrievalDetail(answers)); err != nil {
		return fmt.Errorf("keep the answers: %w", err)
	}
	return frame.finish(r, evalOutput{
		JSON: map[string]any{"mode": e.modeName(), "generation": target.Generation, "per_query": perQuery(metrics, answers)},
		Text: func(out *terminal) { e.print(out, metrics, answers, r) },
		Page: func() *htmlreport.Page { return e.page(metrics, answers, r, corpus) },
	})
}

// topKept is how many hits of each answer are kept, with their texts.
const topKept = 5

func (e *evalRetrieval) modeName() string { return cmp.Or(e.mode, string(retrieve.Hybrid)) }

func (e *evalRetrieval) settings() map[string]any {
	settings := map[string]any{"mode": e.modeName(), "k": e.k}
	if e.filter != "" {
		settings["filter"] = json.RawMessage(e.filter)
	}
	if e.inProcess {
		settings["in_process"] = true
	}
	return settings
}

// curve are the metrics of the curve of recall that are not measured anyway.
func curve(metrics []evals.Metric) []evals.Metric {
	var out []evals.Metric
	for _, k := range depths {
		m := evals.Recall(k)
		if !slices.ContainsFunc(metrics, func(other evals.Metric) bool { return other.String() == m.String() }) {
			out = append(out, m)
		}
	}
	return out
}

// server asks a running liverag, once it knows the set's documents.
func (e *evalRetrieval) server(ctx context.Context, c *call, questions evals.Questions, corpus string) (*asked, error) {
	cl := c.client(ctx)
	if err := e.known(ctx, c, cl, questions, corpus); err != nil {
		return nil, err
	}
	request := queryRequest{K: e.k, Mode: e.mode, Generation: e.generation}
	if e.filter != "" {
		request.Filter = json.RawMessage(e.filter)
	}
	var mu sync.Mutex
	var target evals.Target
	var moved string
	return &asked{
		search: func(ctx context.Context, query string, _ int) ([]evals.Ranked, error) {
			r := request
			r.Query = query
			answer, err := cl.examine(ctx, r)
			if err != nil {
				return nil, err
			}
			g := answer.Generation
			mu.Lock()
			if target.Generation == "" {
				target = evals.Target{Server: cl.base, Generation: g.Name, Recipe: describeRecipe(g.Recipe)}
			} else if g.Name != target.Generation {
				moved = g.Name
			}
			mu.Unlock()
			return answer.ranked(), nil
		},
		target: func() (evals.Target, error) {
			if moved != "" {
				return target, withHint(fmt.Errorf("%s answered some questions and %s others: the alias moved meanwhile", target.Generation, moved), "name a generation with --generation, and it stays the same")
			}
			return target, nil
		},
		close: func() error { return nil },
	}, nil
}

// patiently makes a call again while the server is too busy for it.
func patiently(ctx context.Context, do func() error) error {
	for until := time.Now().Add(busyFor); ; {
		err := do()
		p, ok := busy(err)
		if !ok || time.Now().After(until) {
			return err
		}
		if err := sleep(ctx, max(p.RetryAfter, 200*time.Millisecond)); err != nil {
			return err
		}
	}
}

// looked is how many of the judged documents are looked for before the questions are asked.
const looked = 100

// known makes sure that the server has documents of the set at all: without them every figure would be 0, and say nothing of the server.
func (e *evalRetrieval) known(ctx context.Context, c *call, cl *client, questions evals.Questions, corpus string) error {
	ids := map[string]bool{}
	for _, q := range questions {
		for _, id := range q.Documents {
			ids[id] = true
		}
	}
	all := slices.Sorted(maps.Keys(ids))
	if len(all) == 0 {
		return nil // passages, in whatever documents
	}
	var sample []string
	for i := range min(looked, len(all)) {
		sample = append(sample, all[i*len(all)/min(looked, len(all))])
	}
	var mu sync.Mutex
	var missing []string
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(e.concurrency)
	for _, id := range sample {
		group.Go(func() error {
			err := patiently(groupCtx, func() error { return cl.do(groupCtx, "GET", documentPath(id), nil, nil, options{}) })
			var p *apiError
			if errors.As(err, &p) && p.Status == 404 {
				mu.Lock()
				missing = append(missing, id)
				mu.Unlock()
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	slices.Sort(missing)
	switch {
	case len(missing) == len(sample):
		hint := "are the ids those of the index? `liverag query` shows some; --prefix puts something before each"
		if corpus != "" {
			hint = fmt.Sprintf("bring the documents in with `liverag import %s --wait 30m`, or let the eval make an index of its own with --in-process", corpus)
		}
		return withHint(fmt.Errorf("%s has none of the documents that answer the questions, such as %q", cl.base, missing[0]), hint)
	case len(missing) > 0:
		c.Err.Printf("%s %d of %d documents looked for are not in the index, such as %s: questions about them can't be answered\n", c.Err.warn("note:"), len(missing), len(sample), plain(missing[0]))
	}
	return nil
}

// retrievalFigures are the means, how many questions there were, and how long they took.
func retrievalFigures(metrics []evals.Metric, answers evals.Answers) []evals.Figure {
	report := answers.Report
	var figures []evals.Figure
	for _, m := range metrics {
		name := m.String()
		figures = append(figures, evals.Figure{Name: name, Value: report.Mean[name], Unit: evals.Fraction, Better: evals.Higher, Chief: slices.Contains(chiefMetrics, name)})
	}
	figures = append(figures, evals.Figure{Name: "queries", Value: float64(report.Judged), Unit: evals.Count}, evals.Figure{Name: "answered", Value: float64(report.Answered), Unit: evals.Count})
	if report.Answered > 0 && report.Answered < report.Judged {
		for _, m := range metrics {
			name := m.String()
			figures = append(figures, evals.Figure{Name: "answered_only." + name, Value: report.Mean[name] * float64(report.Judged) / float64(report.Answered), Unit: evals.Fraction})
		}
	}
	took := durations(answers)
	return append(figures, evals.Figure{Name: "latency.p50", Value: evals.Quantile(took, .5).Seconds(), Unit: evals.Seconds}, evals.Figure{Name: "latency.p95", Value: evals.Quantile(took, .95).Seconds(), Unit: evals.Seconds})
}

func durations(answers evals.Answers) []time.Duration {
	took := make([]time.Duration, len(answers.Answers))
	for i, a := range answers.Answers {
		took[i] = a.Took
	}
	return took
}

// perQuery are the metrics of each question.
func perQuery(metrics []evals.Metric, answers evals.Answers) map[string]map[string]float64 {
	out := make(map[string]map[string]float64, len(answers.Answers))
	for id, values := range answers.Report.Queries {
		out[id] = make(map[string]float64, len(metrics))
		for _, m := range metrics {
			out[id][m.String()] = values[m.String()]
		}
	}
	return out
}

// retrievalQuestion is what is kept of a question. A comparison of two runs reads it.
type retrievalQuestion struct {
	evals.Question
	Metrics map[string]float64 `json:"metrics"`
	// Documents are the first ones answered.
	Answered []string       `json:"answered"`
	Rank     int            `json:"rank"`
	Took     time.Duration  `json:"took"`
	Top      []evals.Ranked `json:"top"`
}

// answeredKept is how many document ids of each answer are kept.
const answeredKept = 50

func retrievalDetail(answers evals.Answers) map[string]any {
	questions := make([]retrievalQuestion, len(answers.Answers))
	for i, a := range answers.Answers {
		q := retrievalQuestion{Question: a.Question, Metrics: answers.Report.Queries[a.Question.ID], Answered: a.Documents[:min(answeredKept, len(a.Documents))], Rank: a.Rank, Took: a.Took}
		for _, hit := range a.Top {
			hit.Text = cut(hit.Text, 500)
			q.Top = append(q.Top, hit)
		}
		questions[i] = q
	}
	return map[string]any{"questions": questions}
}

func (e *evalRetrieval) print(out *terminal, metrics []evals.Metric, answers evals.Answers, r *evals.Result) {
	out.Printf("%s, %s, %s search by %s\n\n", out.bold(plain(r.Set.Name)), count(answers.Report.Judged, "question"), e.modeName(), plain(cmp.Or(r.Target.Generation, r.Target.Recipe)))
	var rows [][]string
	for _, m := range metrics {
		row := []string{m.String(), fmt.Sprintf("%.4f", answers.Report.Mean[m.String()])}
		if f, ok := r.Figure("answered_only." + m.String()); ok {
			row = append(row, f.String())
		}
		rows = append(rows, row)
	}
	head := []string{"FIGURE", "MEAN"}
	if answers.Report.Answered < answers.Report.Judged {
		head = append(head, "OF THE ANSWERED ONLY")
	}
	out.table(head, rows)
	out.Printf("\n")
	if missed := answers.Report.Judged - answers.Report.Answered; missed > 0 {
		out.Printf("%s had no hit at all, and counts 0 in each mean\n", count(missed, "question"))
	}
	if n := shallow(answers, e.k); n > 0 {
		out.Printf("%s\n", out.dim(fmt.Sprintf("the %d hits of %s are chunks of fewer than 100 documents, so recall@100 is a lower bound", e.k, count(n, "answer"))))
	}
	p50, _ := r.Figure("latency.p50")
	p95, _ := r.Figure("latency.p95")
	out.Printf("%s\n", out.dim(fmt.Sprintf("an answer took %s at the median, %s at p95, %d at once", p50, p95, e.concurrency)))
}

// shallow counts the answers that were cut off before they held a hundred documents.
func shallow(answers evals.Answers, k int) int {
	n := 0
	for _, a := range answers.Answers {
		if a.Hits >= k && len(a.Documents) < 100 {
			n++
		}
	}
	return n
}
