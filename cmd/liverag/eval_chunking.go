package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/evals"
	htmlreport "github.com/liverag/liverag/evals/report"
	"github.com/liverag/liverag/internal/spell"
)

func evalChunkingVerb() verb {
	return verb{
		name: "eval chunking", group: groupQuestions,
		summary: "How much of what answers each question is retrieved, and how much else",
		about: `Cuts a set's texts, embeds the chunks, retrieves for each question the nearest ones out of all of them, and looks at the text that they hold. No server is needed.

A set is a directory with corpora/*.md and questions.jsonl, a JSON object a line: {"corpus":"handbook","question":"…","references":[{"text":"…"}]}, where each text is an excerpt of corpora/handbook.md, word for word, that answers the question ("start" and "end", in code points, say which one where it occurs several times).

recall is the part of the excerpts that was retrieved. precision is the part of what was retrieved that is excerpt, so small chunks do well in it. iou is both in one. precision_omega is the precision if just the chunks with a part of an excerpt were retrieved: it depends on the chunker alone. Each is a mean over the questions, a fraction, with its standard deviation as _std.

They are the figures of Chroma's evaluation of chunking, as its published code computes them: it takes a chunk to be where its text occurs first. "exact" has them with every chunk where it is.`,
		examples: []example{
			{"does a chunker suit these questions?", "liverag eval chunking --set chroma-chunking --chunker recursive --tokens 200 --embedder local/minilm"},
			{"another one, beside it", "liverag eval chunking --set chroma-chunking --chunker markdown --tokens 200 --baseline latest"},
			{"with a page that shows where it fails", "liverag eval chunking --set my-set --chunker token --tokens 400 --overlap 100 --report chunking.html"},
		},
		settings: append([]string{"data", "config", "cache.*"}, recipeSettings...),
		setup: func(fs *flag.FlagSet) action {
			var e evalChunking
			fs.StringVar(&e.set, "set", "", "`DIR` of the texts and questions")
			fs.IntVar(&e.k, "k", 5, "how many chunks a question retrieves")
			e.declare(fs)
			return e.run
		},
	}
}

type evalChunking struct {
	evalFlags
	set string
	k   int
}

// chunkingTolerance is how much worse a figure may be without a word: kernels differ in the last digits, and so now and then in a rank.
var chunkingTolerance = evals.Tolerance{Slack: evals.Slack{Absolute: .002}}

func (e *evalChunking) run(ctx context.Context, c *call) error {
	switch {
	case len(c.Args) > 0:
		return &usageError{detail: "eval chunking takes no arguments: name the set with --set DIR"}
	case e.set == "":
		return &usageError{detail: "eval chunking needs a set: --set DIR"}
	case e.k < 1:
		return &usageError{detail: "--k must be above 0"}
	}
	frame, err := e.begin(c, evals.KindChunking, chunkingTolerance)
	if err != nil {
		return err
	}
	set, err := evals.OpenChunkingSet(e.set)
	if err != nil {
		return withHint(err, "a set has corpora/*.md and questions.jsonl; `liverag help eval chunking` shows a line of it")
	}
	cfg := c.evalConfig()
	s, err := openModels(cfg, cfg.logger(c.Err))
	if err != nil {
		return err
	}
	run, result, err := e.measure(ctx, frame, s, cfg, set)
	if err := errors.Join(err, s.Close()); err != nil {
		return err
	}
	return frame.finish(result, evalOutput{
		JSON: map[string]any{"k": e.k, "recipe": cfg.recipe()},
		Text: func(out *terminal) { e.print(out, set, run, result) },
		Page: func() *htmlreport.Page { return e.page(set, run, result, cfg) },
	})
}

func (e *evalChunking) measure(ctx context.Context, frame *evalFrame, s *system, cfg *Config, set *evals.ChunkingSet) (*evals.ChunkingRun, *evals.Result, error) {
	parts, err := s.models.build(ctx, cfg.recipe(), 0)
	if err != nil {
		return nil, nil, fmt.Errorf("recipe: %w", err)
	}
	progress := frame.progress("embedding: text", "text")
	run, err := set.Run(embedder.WithLane(ctx, embedder.Live), parts.Chunker, parts.Embedder, evals.ChunkingOptions{K: e.k, Progress: progress.at})
	if err != nil {
		return nil, nil, err
	}
	detail, err := set.Detail(run)
	if err != nil {
		return nil, nil, fmt.Errorf("keep the answers: %w", err)
	}
	result := &evals.Result{
		Set: set.Set, Target: evals.Target{Recipe: describeRecipe(parts.Recipe)}, Settings: map[string]any{"k": e.k, "recipe": parts.Recipe, "model": parts.Embedder.Name(), "chunker": parts.Chunker.Name()},
		Figures: run.Figures(), Detail: detail,
	}
	return run, result, nil
}

// percent is a fraction as published tables have it.
func percent(v float64) string { return fmt.Sprintf("%.1f", 100*v) }

// spread is a mean with its standard deviation in percent.
func spread(mean, deviation float64) string { return percent(mean) + " ± " + percent(deviation) }

func (e *evalChunking) print(out *terminal, set *evals.ChunkingSet, run *evals.ChunkingRun, r *evals.Result) {
	out.Printf("%s of %s, top %d\n\n", out.bold(plain(r.Target.Recipe)), plain(set.Set.Name), e.k)
	row := func(name string, m, d evals.ChunkingScore, chunks, tokens, questions string) []string {
		return []string{name, spread(m.Recall, d.Recall), spread(m.Precision, d.Precision), spread(m.PrecisionOmega, d.PrecisionOmega), spread(m.IoU, d.IoU), chunks, tokens, questions}
	}
	var rows [][]string
	for _, s := range bySource(set, run) {
		rows = append(rows, row(plain(s.name), s.mean, s.deviation, spell.Thousands(s.chunks), fmt.Sprintf("%.0f", s.tokens), spell.Thousands(s.questions)))
	}
	if len(rows) == 1 {
		rows = nil
	}
	rows = append(rows, row("all", run.Mean, run.Deviation, spell.Thousands(len(run.Chunks)), fmt.Sprintf("%.0f", run.MeanTokens()), spell.Thousands(len(set.Questions))))
	out.table([]string{"SOURCE", "RECALL %", "PRECISION %", "P OMEGA %", "IOU %", "CHUNKS", "TOKENS EACH", "QUESTIONS"}, rows)
}

// sourceScores are the figures of one source.
type sourceScores struct {
	name              string
	mean, deviation   evals.ChunkingScore
	chunks, questions int
	tokens            float64
}

// bySource gives the figures of each source that has questions.
func bySource(set *evals.ChunkingSet, run *evals.ChunkingRun) []sourceScores {
	var out []sourceScores
	for i, source := range set.Sources {
		part := evals.ChunkingRun{}
		for _, c := range run.Chunks {
			if c.Source == i {
				part.Chunks = append(part.Chunks, c)
			}
		}
		for j, q := range set.Questions {
			if q.Excerpts[0].Source == source.Name {
				part.Answers = append(part.Answers, run.Answers[j])
			}
		}
		if len(part.Answers) == 0 {
			continue
		}
		part.Summarise()
		out = append(out, sourceScores{source.Name, part.Mean, part.Deviation, len(part.Chunks), len(part.Answers), part.MeanTokens()})
	}
	return out
}

// worstShown is how many of the worst questions a report shows.
const worstShown = 20

func (e *evalChunking) page(set *evals.ChunkingSet, run *evals.ChunkingRun, r *evals.Result, cfg *Config) *htmlreport.Page {
	score := func(name string, mean, deviation float64) htmlreport.Figure {
		return htmlreport.Figure{Name: name + ", %", Value: percent(mean), Note: "± " + percent(deviation)}
	}
	p := &htmlreport.Page{
		Title: "Chunking: " + r.Target.Recipe,
		Lead: fmt.Sprintf("%s of %s about %s, each with the %d nearest of %s.", count(len(set.Questions), "question"), set.Set.Name,
			count(len(set.Sources), "text"), e.k, count(len(run.Chunks), "chunk")),
		Facts: append(facts(r), htmlreport.Fact{Name: "tokens a chunk", Value: fmt.Sprintf("%.1f on average", run.MeanTokens())}),
		Parts: []htmlreport.Part{htmlreport.Figures{
			score("recall", run.Mean.Recall, run.Deviation.Recall), score("precision", run.Mean.Precision, run.Deviation.Precision),
			score("precision Ω", run.Mean.PrecisionOmega, run.Deviation.PrecisionOmega), score("IoU", run.Mean.IoU, run.Deviation.IoU),
		}},
	}
	table := htmlreport.Table{Columns: []htmlreport.Column{{Name: "source"}, {Name: "recall %", Number: true}, {Name: "precision %", Number: true}, {Name: "precision Ω %", Number: true},
		{Name: "IoU %", Number: true}, {Name: "chunks", Number: true}, {Name: "tokens each", Number: true}, {Name: "questions", Number: true}}}
	var series []htmlreport.Series
	for _, s := range bySource(set, run) {
		table.Rows = append(table.Rows, []htmlreport.Cell{{Text: s.name}, {Text: spread(s.mean.Recall, s.deviation.Recall)}, {Text: spread(s.mean.Precision, s.deviation.Precision)},
			{Text: spread(s.mean.PrecisionOmega, s.deviation.PrecisionOmega)}, {Text: spread(s.mean.IoU, s.deviation.IoU)},
			{Text: spell.Thousands(s.chunks)}, {Text: fmt.Sprintf("%.0f", s.tokens)}, {Text: spell.Thousands(s.questions)}})
		points := htmlreport.Series{Name: s.name}
		for i, q := range set.Questions {
			if q.Excerpts[0].Source == s.name {
				a := run.Answers[i]
				points.Points = append(points.Points, htmlreport.Point{X: 100 * a.Score.Precision, Y: 100 * a.Score.Recall, Label: cut(q.Query, 120)})
			}
		}
		series = append(series, points)
	}
	var tokens, recalls, omegas []float64
	for _, c := range run.Chunks {
		tokens = append(tokens, float64(c.Tokens))
	}
	for _, a := range run.Answers {
		recalls, omegas = append(recalls, 100*a.Score.Recall), append(omegas, 100*a.Score.PrecisionOmega)
	}
	sizes := htmlreport.Histogram{Title: "Chunk sizes", X: htmlreport.Axis{Label: "tokens"}, Values: tokens}
	if cfg.Chunker != "whole" {
		sizes.X.To = float64(cfg.Tokens)
		sizes.Marks = []htmlreport.Point{{X: run.MeanTokens(), Label: fmt.Sprintf("mean %.0f", run.MeanTokens())}}
	}
	whole := htmlreport.Axis{To: 100}
	axis := func(label string) htmlreport.Axis { a := whole; a.Label = label; return a }
	p.Parts = append(p.Parts,
		htmlreport.Section{Title: "By source", Parts: []htmlreport.Part{table}},
		htmlreport.Section{Title: "Chunks and questions", Parts: []htmlreport.Part{
			sizes,
			htmlreport.Scatter{Title: "Each question", Note: "Point at one to read it.", X: htmlreport.Axis{Label: "precision, %"}, Y: axis("recall, %"), Series: series},
			htmlreport.Histogram{Title: "Recall of the questions", X: axis("recall, %"), Values: recalls},
			htmlreport.Histogram{Title: "Precision Ω of the questions", Note: "What the cuts alone allow.", X: axis("precision Ω, %"), Values: omegas},
		}},
		e.worst(set, run))
	return p
}

// worst are the questions with the least recall, and what was found instead.
func (e *evalChunking) worst(set *evals.ChunkingSet, run *evals.ChunkingRun) htmlreport.Section {
	order := make([]int, len(run.Answers))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := run.Answers[a].Score, run.Answers[b].Score
		return cmp.Or(cmp.Compare(x.Recall, y.Recall), cmp.Compare(x.PrecisionOmega, y.PrecisionOmega))
	})
	s := htmlreport.Section{Title: "The questions that fared worst", Text: "By recall; what answers them, and the chunks that were found."}
	for _, i := range order[:min(worstShown, len(order))] {
		q, a := set.Questions[i], run.Answers[i]
		var wanted, found htmlreport.Passages
		for j, text := range q.Texts {
			wanted = append(wanted, htmlreport.Passage{Head: fmt.Sprintf("%s, characters %d to %d", q.Excerpts[j].Source, q.Excerpts[j].Start, q.Excerpts[j].End), Text: passage(text)})
		}
		for j, chunk := range a.Retrieved {
			c := run.Chunks[chunk]
			source := set.Sources[c.Source]
			head, tone := fmt.Sprintf("%s, bytes %d to %d, cosine %.3f", source.Name, c.Start, c.End, a.Similarities[j]), htmlreport.Tone("")
			if source.Name != q.Excerpts[0].Source {
				head, tone = head+", another text", htmlreport.Bad
			}
			found = append(found, htmlreport.Passage{Head: head, Tone: tone, Text: passage(source.Text[c.Start:c.End])})
		}
		s.Parts = append(s.Parts, htmlreport.Details{
			Summary: fmt.Sprintf("%s: recall %s %%: %s", q.ID, percent(a.Score.Recall), cut(q.Query, 300)),
			Parts:   []htmlreport.Part{htmlreport.Columns{{htmlreport.Text("What answers it"), wanted}, {htmlreport.Text("What was found"), found}}},
		})
	}
	return s
}

// passage is a text of bounded length for a report.
func passage(text string) string { return cut(strings.TrimSpace(text), 700) }
