package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/retrieve"
)

// gateCondition is what a promote may be made to depend on: a bound of how much a metric's mean differs from the live generation's or, if absolute, of the mean itself.
type gateCondition struct {
	metric   evals.Metric
	text     string // as it was asked for
	op       string
	bound    float64
	absolute bool
}

// parseConditions reads metric → condition, such as "ndcg@10" → ">=0" or ">= 0.6 absolute", in the order of the metrics' names. Errors wrap indexer.ErrCondition.
func parseConditions(conditions map[string]string) ([]gateCondition, error) {
	var out []gateCondition
	for _, name := range slices.Sorted(maps.Keys(conditions)) {
		metric, err := evals.ParseMetric(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", indexer.ErrCondition, err)
		}
		c, err := parseCondition(conditions[name])
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %v", indexer.ErrCondition, name, err)
		}
		c.metric = metric
		out = append(out, c)
	}
	return out, nil
}

// comparisons are longest first, so that >= is not read as >.
var comparisons = []string{">=", "<=", ">", "<"}

func parseCondition(text string) (gateCondition, error) {
	c := gateCondition{text: text}
	rest := strings.TrimSpace(text)
	for _, op := range comparisons {
		if after, ok := strings.CutPrefix(rest, op); ok {
			c.op, rest = op, after
			break
		}
	}
	rest, c.absolute = strings.CutSuffix(rest, "absolute")
	bound, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
	if c.op == "" || err != nil || math.IsNaN(bound) || math.IsInf(bound, 0) {
		return c, fmt.Errorf("%q is no condition: write one like >=0 or >=-0.01, of the difference to the live generation, or >=0.6 absolute", text)
	}
	c.bound = bound
	return c, nil
}

// holds tells whether the means fit the condition. What sums of fractions leave behind the ninth place is no difference.
func (c *gateCondition) holds(m indexer.Measured) bool {
	value := m.Difference
	if c.absolute {
		value = m.Candidate
	}
	difference := math.Round((value-c.bound)*1e9) / 1e9
	switch c.op {
	case ">=":
		return difference >= 0
	case ">":
		return difference > 0
	case "<=":
		return difference <= 0
	default:
		return difference < 0
	}
}

// gateConcurrency is how many questions of a gate are asked at a time: callers have questions too.
const gateConcurrency = 2

// gateHits is how many hits a question of a gate asks for: several of a document count once, and recall@100 wants a hundred documents.
const gateHits = 200

// measureGate asks both generations the questions and holds the difference to the conditions.
func measureGate(ctx context.Context, questions evals.Questions, conditions []gateCondition, searcher func(generation string) evals.Searcher, candidate, live string) ([]indexer.Measured, error) {
	metrics := make([]evals.Metric, len(conditions))
	for i, c := range conditions {
		metrics[i] = c.metric
	}
	var reports [2]evals.Report
	for i, name := range []string{live, candidate} {
		answers, err := questions.Ask(ctx, searcher(name), evals.AskOptions{K: gateHits, Concurrency: gateConcurrency, Metrics: metrics})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		reports[i] = answers.Report
	}
	out := make([]indexer.Measured, len(conditions))
	for i, c := range conditions {
		name := c.metric.String()
		m := indexer.Measured{Metric: name, Condition: c.text, Live: reports[0].Mean[name], Candidate: reports[1].Mean[name]}
		m.Difference = m.Candidate - m.Live
		m.Holds = c.holds(m)
		out[i] = m
	}
	return out, nil
}

// readQuestions reads a set of questions. It is read each time that it is asked, so that it can grow while the program runs.
func readQuestions(path string) (evals.Questions, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return evals.ReadQuestions(f, path)
}

// gate is how the indexer measures a promote's conditions: on the questions in the file that the setting names.
func (s *system) gate(path string) indexer.Gate {
	return func(ctx context.Context, candidate, live string, wanted map[string]string) ([]indexer.Measured, error) {
		conditions, err := parseConditions(wanted)
		if err != nil {
			return nil, err
		}
		if path == "" {
			return nil, fmt.Errorf("%w: the setting evals.questions names no file of questions with their right documents; nothing was promoted", indexer.ErrNoEvidence)
		}
		questions, err := readQuestions(path)
		if err != nil {
			return nil, fmt.Errorf("%w: the setting evals.questions: %v; nothing was promoted", indexer.ErrNoEvidence, err)
		}
		return measureGate(ctx, questions, conditions, func(name string) evals.Searcher { return s.searcher(name, retrieve.Hybrid) }, candidate, live)
	}
}

// searcher asks one generation of a running server.
func (cl *client) searcher(generation string) evals.Searcher {
	return func(ctx context.Context, query string, k int) ([]evals.Ranked, error) {
		answer, err := cl.examine(ctx, queryRequest{Query: query, K: k, Generation: generation})
		return answer.ranked(), err
	}
}

// splitGate reads a condition of the command line: ndcg@10>=0.
func splitGate(text string) (metric, condition string, err error) {
	at := strings.IndexAny(text, "<>")
	if at < 1 {
		return "", "", fmt.Errorf("%q is no condition: write one like ndcg@10>=0", text)
	}
	return strings.TrimSpace(text[:at]), text[at:], nil
}

// liveName is the name of the generation that answers.
func (cl *client) liveName(ctx context.Context) (string, error) {
	var live generation
	err := cl.do(ctx, "GET", generationPath(indexer.Live, ""), nil, &live, options{})
	return cmp.Or(live.Name, indexer.Live), err
}
