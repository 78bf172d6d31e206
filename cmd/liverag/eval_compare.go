package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/evals"
	htmlreport "github.com/liverag/liverag/evals/report"
	"github.com/liverag/liverag/internal/spell"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/vectordb"
)

func evalCompareVerb() verb {
	return verb{
		name: "eval compare", group: groupQuestions, args: "A B",
		summary: "Ask two generations the same questions: which is better, by how much, at what price",
		about: `Asks two generations of a running liverag every question, one right after the other and each of them first in turn, and compares the rankings question by question: the mean of each figure, how many questions either wins, how likely so large a difference is by chance (a paired permutation test), and what the difference might be with other questions of the same sort (a 95 % bootstrap interval of 10,000 draws). A and B are names or aliases; every difference is B's figure less A's, so above 0 B is better.

Beside that: how alike the first ten documents are (Jaccard) and their order (rank-biased overlap), how long an answer takes, index size, chunks, tokens embedded and cost, and the ten questions whose answers moved most, with both answers side by side.

Without a set the two are asked what was really asked of live, where the setting query_log keeps that: nothing is known of right answers, so it tells how far they agree, and where they agree least. Where a chat model is configured (evals.chat.model, at openai.base_url), it writes questions for chunks drawn from both; all that rests on them is called generated, since no person has asked nor judged them.

A question is asked of both, so the second one may find its vector made already; times are therefore taken from the answers of whoever was asked first, half of the questions for each.`,
		examples: []example{
			{"is the trial better than what answers now?", "liverag eval compare live trial --set questions.jsonl"},
			{"promote only what is certainly no worse", "liverag eval compare live trial --set questions.jsonl --gate 'low.ndcg@10>=-0.01' && liverag promote trial"},
			{"no labelled questions: how far do they agree on what users ask?", "liverag eval compare live trial --limit 500 --report agreement.html"},
			{"a page with pictures, and the questions that moved", "liverag eval compare live trial --set scifact --report compare.html"},
		},
		settings: append([]string{"corpus", "evals.chat.model", "openai.base_url", "openai.headers", "openai.timeout"}, clientSettings...),
		setup: func(fs *flag.FlagSet) action {
			var e evalCompare
			fs.StringVar(&e.ask.set, "set", "", "`DIR` in BEIR's layout, or a FILE of questions")
			fs.StringVar(&e.ask.questions, "questions", "", "`FILE` of questions, in place of the set's own")
			fs.StringVar(&e.ask.split, "split", "test", "`NAME` of the judgements: qrels/NAME.tsv")
			fs.StringVar(&e.ask.mode, "mode", "", "`MODE` of search: hybrid, dense or lexical (default hybrid)")
			fs.StringVar(&e.ask.filter, "filter", "", "condition on the metadata, as `JSON`")
			fs.StringVar(&e.ask.prefix, "prefix", "", "`TEXT` that the index has before every document id of the set")
			fs.IntVar(&e.ask.k, "k", retrieve.MaxK, "how many hits to ask for, 1 to 200; several of one document count once")
			fs.IntVar(&e.ask.concurrency, "concurrency", 2, "how many questions are asked at once")
			fs.BoolVar(&e.feedback, "feedback", false, "ask what people gave feedback to, in place of a set")
			fs.StringVar(&e.queryLog, "query-log", "", "`FILE` of questions that were asked, in place of the one in the data directory")
			fs.IntVar(&e.generate, "generate", 50, "without a set: have so many questions written by the chat model, if there is one")
			fs.StringVar(&e.keepGenerated, "keep-generated", "", "write the generated questions to `FILE`, to be looked at and used as a set")
			fs.IntVar(&e.limit, "limit", 0, "ask so many of the questions, drawn evenly; 0 for all, or 200 of those that were asked")
			fs.Var(&e.ask.metrics, "metric", "another `FIGURE`, such as ndcg@5, p@3 or success@1; repeatable")
			e.ask.declare(fs)
			return e.run
		},
	}
}

type evalCompare struct {
	ask      evalRetrieval // what it has in common with asking one
	feedback bool
	limit    int
	queryLog string
	// generate is how many questions a chat model writes, keepGenerated a file for them.
	generate      int
	keepGenerated string
}

const (
	// comparedDepth is how deep overlaps look.
	comparedDepth = 10
	// movedShown is how many of the questions that moved most are shown, and movedHits how many hits of each answer.
	movedShown, movedHits = 10, 5
)

// side is one of the two generations.
type side struct {
	asked string // the name or alias that was asked for
	info  comparedGeneration
}

// name is the generation's, with the alias that it was asked by.
func (s side) String() string {
	if s.asked != s.info.Name {
		return fmt.Sprintf("%s (%s)", s.info.Name, s.asked)
	}
	return s.info.Name
}

// summary is which generation it is, for --json; what it holds is among the figures.
func (s side) summary() map[string]any {
	return map[string]any{"asked": s.asked, "name": s.info.Name, "recipe": s.info.Recipe}
}

// comparedGeneration is one of GET /generations, with its sizes.
type comparedGeneration struct {
	generation
	Stats *vectordb.Stats `json:"stats"`
}

// compared is two generations' answers to one set of questions.
type compared struct {
	questions evals.Questions
	metrics   []evals.Metric // none: the questions have no known answers
	both      evals.Both
	results   []evals.Comparison
	// jaccard and rbo are of each question.
	jaccard, rbo []float64
}

func (e *evalCompare) check(c *call) ([]evals.Metric, error) {
	labelled := e.labelled()
	switch {
	case len(c.Args) != 2:
		return nil, &usageError{detail: "eval compare needs two generations, A and B", hint: "`liverag generations` lists them"}
	case e.limit < 0 || e.generate < 0:
		return nil, &usageError{detail: "--limit and --generate are not negative"}
	case e.feedback && (e.ask.set != "" || e.ask.questions != ""):
		return nil, &usageError{detail: "--feedback takes the place of a set: give one of them"}
	case labelled && (e.queryLog != "" || e.keepGenerated != ""):
		return nil, &usageError{detail: "--query-log and --keep-generated are for comparing without a set"}
	}
	without, ask := *c, e.ask
	without.Args = nil
	ask.set = cmp.Or(ask.set, "questions from elsewhere")
	return ask.check(&without)
}

// labelled tells whether the right answers are known.
func (e *evalCompare) labelled() bool { return e.feedback || e.ask.set != "" || e.ask.questions != "" }

func (e *evalCompare) run(ctx context.Context, c *call) error {
	metrics, err := e.check(c)
	if err != nil {
		return err
	}
	frame, err := e.ask.begin(c, evals.KindCompare, evals.Tolerance{Slack: evals.Slack{Absolute: .005}})
	if err != nil {
		return err
	}
	cl := c.client(ctx)
	var set evals.Set
	var done, generated *compared // generated is beside what was asked, if there is either
	var a, b side
	if e.labelled() {
		var questions evals.Questions
		var corpus string
		if questions, set, corpus, err = e.open(ctx, cl); err != nil {
			return err
		}
		if e.limit > 0 && len(questions) > e.limit {
			questions = drawn(questions, e.limit)
			set.Name, set.Digest = fmt.Sprintf("%s, %d drawn", set.Name, e.limit), questions.Digest()
		}
		if a, b, err = e.sides(ctx, c, cl); err != nil {
			return err
		}
		if err = e.ask.known(ctx, c, cl, questions, corpus); err == nil {
			done, err = e.compare(ctx, frame, cl, a, b, questions, metrics, nil)
		}
	} else {
		if a, b, err = e.sides(ctx, c, cl); err != nil {
			return err
		}
		var u unlabelled
		if u, err = e.unlabelled(ctx, frame, cl, a, b); err != nil {
			return err
		}
		set = u.set()
		if len(u.live) > 0 {
			done, err = e.compare(ctx, frame, cl, a, b, u.live, nil, u.filters)
		}
		if err == nil && len(u.generated) > 0 {
			generated, err = e.compare(ctx, frame, cl, a, b, u.generated, metrics, nil)
		}
	}
	if err != nil {
		return err
	}
	// Sizes may have changed while questions were asked; what was asked was closer to what is there now.
	if a, b, err = e.sides(ctx, c, cl); err != nil {
		return err
	}
	r := &evals.Result{
		Set:      set,
		Target:   evals.Target{Server: cl.base, Generation: a.info.Name + " → " + b.info.Name, Recipe: a.info.recipe() + " → " + b.info.recipe()},
		Settings: map[string]any{"a": a.info.Name, "b": b.info.Name, "mode": e.ask.modeName(), "k": e.ask.k, "concurrency": e.ask.concurrency},
	}
	if e.ask.filter != "" {
		r.Settings["filter"] = json.RawMessage(e.ask.filter)
	}
	detail := map[string]any{}
	printed := map[string]any{"generations": map[string]any{"a": a.summary(), "b": b.summary()}}
	timed := done
	if done != nil {
		r.Figures = append(r.Figures, done.figures("")...)
		detail["questions"], printed["metrics"], printed["moved"] = done.detail(), done.results, done.movedJSON()
	}
	if generated != nil {
		model := c.Config.Evals.Chat.Model
		r.Figures = append(r.Figures, generated.figures("generated.")...)
		r.Settings["generated_by"] = model
		detail["generated"] = generated.detail()
		printed["generated"] = map[string]any{"by": model, "metrics": generated.results, "moved": generated.movedJSON()}
		timed = cmp.Or(timed, generated)
	}
	r.Figures = append(append(r.Figures, timed.times()...), prices(a, b)...)
	if r.Detail, err = json.Marshal(detail); err != nil {
		return fmt.Errorf("keep the answers: %w", err)
	}
	return frame.finish(r, evalOutput{
		JSON: printed,
		Text: func(out *terminal) { e.print(out, a, b, done, generated, r) },
		Page: func() *htmlreport.Page { return e.page(a, b, done, generated, r) },
	})
}

// set names the questions.
func (u unlabelled) set() evals.Set {
	var names []string
	if n := len(u.live); n > 0 {
		names = append(names, count(n, "question")+" asked of live")
	}
	if n := len(u.generated); n > 0 {
		names = append(names, fmt.Sprintf("%d generated", n))
	}
	return evals.Set{Name: strings.Join(names, ", "), Digest: slices.Concat(u.live, u.generated).Digest()}
}

// open reads the questions, or makes them out of feedback.
func (e *evalCompare) open(ctx context.Context, cl *client) (questions evals.Questions, set evals.Set, corpus string, err error) {
	if !e.feedback {
		questions, set, corpus, err = e.ask.open()
		return e.ask.prefixed(questions), set, corpus, err
	}
	labelled, err := labelledSet(ctx, cl, 0)
	if err != nil {
		return nil, set, "", err
	}
	if len(labelled.Questions) == 0 {
		return nil, set, "", withHint(fmt.Errorf("no question can be made of %s of feedback", count(labelled.Votes, "piece")), `applications send it with POST /feedback {"query":…,"document":…,"useful":true}`)
	}
	return labelled.Questions, evals.Set{Name: "feedback", Digest: labelled.Questions.Digest()}, "", nil
}

// drawn are n of the questions, in their order; the same ones each time.
func drawn(questions evals.Questions, n int) evals.Questions {
	at := rand.New(rand.NewPCG(5, 6)).Perm(len(questions))[:n]
	slices.Sort(at)
	out := make(evals.Questions, n)
	for i, j := range at {
		out[i] = questions[j]
	}
	return out
}

// sides finds the two generations. Questions name them by their own names, so that an alias that moves meanwhile changes nothing.
func (e *evalCompare) sides(ctx context.Context, c *call, cl *client) (a, b side, err error) {
	var all []comparedGeneration
	if err := cl.do(ctx, "GET", "/generations", nil, &all, options{}); err != nil {
		return a, b, err
	}
	find := func(name string) (side, error) {
		for _, g := range all {
			if g.Name == name || slices.Contains(g.Alias, name) {
				return side{name, g}, nil
			}
		}
		return side{}, withHint(fmt.Errorf("there is no generation or alias %q", name), "`liverag generations` lists them")
	}
	if a, err = find(c.Args[0]); err != nil {
		return a, b, err
	}
	if b, err = find(c.Args[1]); err != nil {
		return a, b, err
	}
	if a.info.Name == b.info.Name {
		return a, b, &usageError{detail: fmt.Sprintf("%s and %s are the same generation", c.Args[0], c.Args[1])}
	}
	return a, b, nil
}

// searcher asks one generation. filters are those of single queries, if they have any of their own.
func (e *evalCompare) searcher(cl *client, s side, filters map[string]json.RawMessage) evals.Searcher {
	request := queryRequest{K: e.ask.k, Mode: e.ask.mode, Generation: s.info.Name}
	if e.ask.filter != "" {
		request.Filter = json.RawMessage(e.ask.filter)
	}
	return func(ctx context.Context, query string, _ int) ([]evals.Ranked, error) {
		r := request
		r.Query = query
		if own := filters[query]; own != nil && r.Filter == nil {
			r.Filter = own
		}
		answer, err := cl.examine(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("of %s: %w", s.info.Name, err)
		}
		return answer.ranked(), nil
	}
}

func (e *evalCompare) compare(ctx context.Context, frame *evalFrame, cl *client, a, b side, questions evals.Questions, metrics []evals.Metric, filters map[string]json.RawMessage) (*compared, error) {
	d := &compared{questions: questions, metrics: metrics}
	var err error
	if d.both, err = questions.AskBoth(ctx, e.searcher(cl, a, filters), e.searcher(cl, b, filters), evals.AskOptions{
		K: e.ask.k, Concurrency: e.ask.concurrency, Metrics: metrics, Keep: e.ask.k, Progress: frame.progress("asked both", "question").at,
	}); err != nil {
		return nil, err
	}
	if len(metrics) > 0 {
		if d.results, err = evals.Compare(d.both.A.Report, d.both.B.Report); err != nil {
			return nil, err
		}
	}
	for i := range questions {
		x, y := documentsOf(d.both.A.Answers[i].Top), documentsOf(d.both.B.Answers[i].Top)
		d.jaccard = append(d.jaccard, evals.Jaccard(x, y, comparedDepth))
		d.rbo = append(d.rbo, evals.RankBiasedOverlap(x, y, comparedDepth, evals.Persistence))
	}
	return d, nil
}

// documentsOf are the documents of hits, each once, best first.
func documentsOf(hits []evals.Ranked) []string {
	var out []string
	for _, h := range hits {
		if !slices.Contains(out, h.Document) {
			out = append(out, h.Document)
		}
	}
	return out
}

func mean(values []float64) float64 {
	var sum float64
	for _, v := range values {
		sum += v
	}
	return sum / float64(max(1, len(values)))
}

// figures are the differences, the means behind them and the overlap, their names with the prefix before them.
func (d *compared) figures(prefix string) []evals.Figure {
	var figures, rest []evals.Figure
	for _, c := range d.results {
		figures = append(figures, evals.Figure{Name: c.Metric, Value: c.Difference, Unit: evals.Fraction, Better: evals.Higher, Chief: slices.Contains(chiefMetrics, c.Metric)})
		rest = append(rest,
			evals.Figure{Name: "low." + c.Metric, Value: c.Low, Unit: evals.Fraction}, evals.Figure{Name: "high." + c.Metric, Value: c.High, Unit: evals.Fraction}, evals.Figure{Name: "p." + c.Metric, Value: c.P, Unit: evals.Fraction},
			evals.Figure{Name: "a." + c.Metric, Value: c.A, Unit: evals.Fraction}, evals.Figure{Name: "b." + c.Metric, Value: c.B, Unit: evals.Fraction},
			evals.Figure{Name: "wins." + c.Metric, Value: float64(c.Wins), Unit: evals.Count}, evals.Figure{Name: "losses." + c.Metric, Value: float64(c.Losses), Unit: evals.Count},
			evals.Figure{Name: "ties." + c.Metric, Value: float64(c.Ties), Unit: evals.Count})
	}
	figures = append(figures,
		evals.Figure{Name: "queries", Value: float64(len(d.questions)), Unit: evals.Count},
		evals.Figure{Name: fmt.Sprintf("overlap.jaccard@%d", comparedDepth), Value: mean(d.jaccard), Unit: evals.Fraction, Chief: true},
		evals.Figure{Name: fmt.Sprintf("overlap.rbo@%d", comparedDepth), Value: mean(d.rbo), Unit: evals.Fraction})
	figures = append(figures, rest...)
	for i := range figures {
		figures[i].Name = prefix + figures[i].Name
	}
	return figures
}

// latencies are how long the answers of either took that was asked first.
func (d *compared) latencies() (a, b []time.Duration) {
	for i, aFirst := range d.both.AFirst {
		if aFirst {
			a = append(a, d.both.A.Answers[i].Took)
		} else {
			b = append(b, d.both.B.Answers[i].Took)
		}
	}
	return a, b
}

func (d *compared) times() []evals.Figure {
	a, b := d.latencies()
	var figures []evals.Figure
	for i, took := range [][]time.Duration{a, b} {
		if len(took) == 0 {
			continue // a single question is asked of A first
		}
		for _, q := range []float64{.5, .99} {
			figures = append(figures, evals.Figure{Name: fmt.Sprintf("%c.latency.p%g", 'a'+i, 100*q), Value: evals.Quantile(took, q).Seconds(), Unit: evals.Seconds})
		}
	}
	return figures
}

// prices are what the two indexes hold and what they took.
func prices(a, b side) []evals.Figure {
	var figures []evals.Figure
	for i, s := range []side{a, b} {
		add := func(name string, v float64, unit evals.Unit) {
			figures = append(figures, evals.Figure{Name: fmt.Sprintf("%c.%s", 'a'+i, name), Value: v, Unit: unit})
		}
		p := s.info.Progress
		if st := s.info.Stats; st != nil {
			add("bytes", float64(st.Bytes), evals.Count)
			add("documents", float64(st.Documents), evals.Count)
			add("chunks", float64(st.Chunks), evals.Count)
			add("tokens", float64(st.Tokens), evals.Count)
		} else {
			add("documents", float64(p.Documents), evals.Count)
			add("chunks", float64(p.Chunks), evals.Count)
		}
		if p.TokensEmbedded == nil || p.TokensReused == nil || p.CostUSD == nil {
			continue // a server that indexes nothing does not know
		}
		add("tokens_embedded", float64(*p.TokensEmbedded), evals.Count)
		add("tokens_reused", float64(*p.TokensReused), evals.Count)
		add("cost_usd", *p.CostUSD, "")
	}
	return figures
}

// chief is the metric by which questions are said to have moved.
func (d *compared) chief() string {
	if len(d.metrics) == 0 {
		return ""
	}
	return d.metrics[0].String()
}

// values are a question's by both, in the chief metric; 0 without one.
func (d *compared) values(i int) (a, b float64) {
	id := d.questions[i].ID
	return d.both.A.Report.Queries[id][d.chief()], d.both.B.Report.Queries[id][d.chief()]
}

// moved are the questions whose answers differ most: in the chief metric, then in their order.
func (d *compared) moved() []int {
	order := make([]int, len(d.questions))
	by := make([]float64, len(order))
	for i := range order {
		a, b := d.values(i)
		order[i], by[i] = i, math.Abs(b-a)
	}
	slices.SortStableFunc(order, func(i, j int) int {
		return cmp.Or(cmp.Compare(by[j], by[i]), cmp.Compare(d.rbo[i], d.rbo[j]))
	})
	order = order[:min(movedShown, len(order))]
	return slices.DeleteFunc(order, func(i int) bool { return by[i] == 0 && d.rbo[i] > 1-1e-9 })
}

// comparedAnswer is one answer as it is kept and printed.
type comparedAnswer struct {
	Metrics map[string]float64 `json:"metrics,omitempty"`
	// Rank is of the first right document, 0: none; absent where none is known.
	Rank      *int           `json:"rank,omitempty"`
	Documents []string       `json:"documents"`
	Took      string         `json:"took"`
	Top       []evals.Ranked `json:"top,omitempty"`
}

type comparedQuestion struct {
	evals.Question
	Jaccard float64        `json:"jaccard"`
	RBO     float64        `json:"rbo"`
	A       comparedAnswer `json:"a"`
	B       comparedAnswer `json:"b"`
}

func (d *compared) question(i int, texts bool) comparedQuestion {
	one := func(answers evals.Answers) comparedAnswer {
		a := answers.Answers[i]
		documents := documentsOf(a.Top)
		out := comparedAnswer{Documents: documents[:min(answeredKept, len(documents))], Took: a.Took.String()}
		if len(d.metrics) > 0 {
			out.Metrics, out.Rank = answers.Report.Queries[a.Question.ID], &a.Rank
		}
		if texts {
			for _, hit := range a.Top[:min(movedHits, len(a.Top))] {
				hit.Text = cut(hit.Text, 500)
				out.Top = append(out.Top, hit)
			}
		}
		return out
	}
	return comparedQuestion{Question: d.questions[i], Jaccard: d.jaccard[i], RBO: d.rbo[i], A: one(d.both.A), B: one(d.both.B)}
}

func (d *compared) detail() []comparedQuestion {
	out := make([]comparedQuestion, len(d.questions))
	for i := range out {
		out[i] = d.question(i, false)
	}
	return out
}

func (d *compared) movedJSON() []comparedQuestion {
	out := []comparedQuestion{}
	for _, i := range d.moved() {
		out = append(out, d.question(i, true))
	}
	return out
}

// verdict is what the chief metric says, in a sentence.
func (d *compared) verdict(a, b side) string {
	if len(d.results) == 0 {
		return fmt.Sprintf("On %s without known answers, the first %d documents of both are the same in %.0f %% (Jaccard), and their order agrees to %.3f (rank-biased overlap).",
			count(len(d.questions), "question"), comparedDepth, 100*mean(d.jaccard), mean(d.rbo))
	}
	c := d.results[0]
	says := "the questions do not tell which is better"
	switch {
	case c.Low > 0:
		says = b.info.Name + " is better"
	case c.High < 0:
		says = a.info.Name + " is better"
	case c.Wins+c.Losses == 0:
		says = "they answer alike"
	}
	return fmt.Sprintf("%s %+.4f, from %+.4f to %+.4f at 95 %%, p = %.2g: %s. It wins %d questions, loses %d, and %d are equal.", c.Metric, c.Difference, c.Low, c.High, c.P, says, c.Wins, c.Losses, c.Ties)
}

func (e *evalCompare) print(out *terminal, a, b side, d, generated *compared, r *evals.Result) {
	out.Printf("%s, %s search\n", out.bold(plain(r.Set.Name)), e.ask.modeName())
	out.Printf("  A  %s  %s\n  B  %s  %s\n\n", plain(a.String()), out.dim(a.info.recipe()), plain(b.String()), out.dim(b.info.recipe()))
	var rows [][]string
	for _, row := range sideRows(r) {
		rows = append(rows, []string{row.name, row.a, row.b})
	}
	out.table([]string{"", "A", "B"}, rows)
	if d != nil {
		d.print(out, a, b, "")
	}
	if generated != nil {
		generated.print(out, a, b, fmt.Sprintf("generated questions, written by %s and judged by nobody", r.Settings["generated_by"]))
	}
}

// print prints what came of one set of questions; title may be empty.
func (d *compared) print(out *terminal, a, b side, title string) {
	out.Printf("\n")
	if title != "" {
		out.Printf("%s\n", out.warn(plain(title)))
	}
	var rows [][]string
	for _, c := range d.results {
		rows = append(rows, []string{c.Metric, fmt.Sprintf("%.4f", c.A), fmt.Sprintf("%.4f", c.B), fmt.Sprintf("%+.4f", c.Difference), fmt.Sprintf("%+.4f to %+.4f", c.Low, c.High),
			fmt.Sprintf("%.3g", c.P), fmt.Sprint(c.Wins), fmt.Sprint(c.Losses), fmt.Sprint(c.Ties)})
	}
	if len(rows) > 0 {
		out.table([]string{"FIGURE", "A", "B", "B - A", "95 %", "P", "WINS", "LOSSES", "TIES"}, rows)
		out.Printf("\n")
	}
	out.Printf("%s; the first %d documents: Jaccard %.3f, rank-biased overlap %.3f\n%s\n", count(len(d.questions), "question"), comparedDepth, mean(d.jaccard), mean(d.rbo), plain(d.verdict(a, b)))
	moved := d.moved()
	if len(moved) > 0 {
		out.Printf("\n%s\n", out.bold("moved most"))
	}
	for _, i := range moved {
		out.Printf("  %s  %s\n", plain(d.movement(i)), plain(cut(d.questions[i].Query, 90)))
	}
}

// movement says how a question's answer changed.
func (d *compared) movement(i int) string {
	if len(d.metrics) == 0 {
		return fmt.Sprintf("overlap %.2f", d.rbo[i])
	}
	a, b := d.values(i)
	if a == b {
		return fmt.Sprintf("%.3f, overlap %.2f", a, d.rbo[i])
	}
	return fmt.Sprintf("%.3f → %.3f", a, b)
}

// sideRow is a figure that both have.
type sideRow struct{ name, a, b string }

// sideRows are sizes, prices and times of both.
func sideRows(r *evals.Result) []sideRow {
	var rows []sideRow
	for _, row := range []struct{ name, figure string }{
		{"latency p50", "latency.p50"}, {"latency p99", "latency.p99"}, {"index size", "bytes"}, {"documents", "documents"}, {"chunks", "chunks"}, {"tokens in chunks", "tokens"},
		{"tokens embedded", "tokens_embedded"}, {"tokens reused", "tokens_reused"}, {"cost", "cost_usd"},
	} {
		text := func(side string) string {
			f, ok := r.Figure(side + "." + row.figure)
			switch {
			case !ok:
				return "-"
			case row.figure == "bytes":
				return fmt.Sprintf("%.1f MB", f.Value/1e6)
			case row.figure == "cost_usd":
				return dollars(f.Value)
			case f.Unit == evals.Count:
				return spell.Thousands(int64(f.Value))
			}
			return f.String()
		}
		if a, b := text("a"), text("b"); a != "-" || b != "-" {
			rows = append(rows, sideRow{row.name, a, b})
		}
	}
	return rows
}

// excerpts are the first hits of an answer, right ones marked.
func excerpts(a evals.Answer) htmlreport.Passages {
	var out htmlreport.Passages
	for _, hit := range a.Top[:min(movedHits, len(a.Top))] {
		p := htmlreport.Passage{Head: fmt.Sprintf("%s, score %.4g", hit.Document, hit.Score), Text: passage(hit.Text)}
		if slices.Contains(a.Question.Documents, hit.Document) || slices.ContainsFunc(a.Question.Passages, func(quote string) bool {
			return strings.Contains(strings.Join(strings.Fields(hit.Text), " "), strings.Join(strings.Fields(quote), " "))
		}) {
			p.Tone = htmlreport.Good
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		out = htmlreport.Passages{{Head: "no hit", Tone: htmlreport.Dim}}
	}
	return out
}
