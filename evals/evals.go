// Package evals measures how good answers are.
//
// A [Run] is what a system answered, [Qrels] is what would have been right; [Evaluate] turns both into a [Report] of
// relevance [Metric]s, and [Compare] tells whether two reports differ by more than chance. [Questions] asks a
// system a list of questions and gives its run and report. [ReadCorpus], [ReadQueries] and [ReadQrels] read the
// layout of the BEIR benchmarks, [ReadQuestions] a list of questions with their right documents. [WriteRanks] writes
// ranks as text that is kept in a golden file, so that a change of quality is read as a diff.
package evals

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Qrels are relevance judgements: query id, document id, grade. A grade of zero or less means judged and not relevant,
// which counts like not judged.
type Qrels map[string]map[string]int

// Run is what a system answered: query id, document id, score; higher is better.
type Run map[string]map[string]float64

// Ranking orders one query's answer as trec_eval does: scores are compared as float32, and equal scores put the
// greater document id first, as strings.
func Ranking(scores map[string]float64) []string {
	type scored struct {
		document string
		score    float32
	}
	all := make([]scored, 0, len(scores))
	for document, score := range scores {
		all = append(all, scored{document, float32(score)})
	}
	slices.SortFunc(all, func(a, b scored) int {
		if byScore := cmp.Compare(b.score, a.score); byScore != 0 {
			return byScore
		}
		return strings.Compare(b.document, a.document)
	})
	ranking := make([]string, len(all))
	for i, s := range all {
		ranking[i] = s.document
	}
	return ranking
}

// Metric is one figure for one query's ranking. The zero Metric is of no use: take one from [NDCG], [Recall],
// [Precision], [MAP], [MRR], [Success] or [ParseMetric].
type Metric struct {
	name string
	cut  int
	// score sees the grades of the first cut ranks (negative ones as zero) and of the relevant documents, best first.
	score func(ranked, relevant []int, cut int) float64
}

// String is the metric's name as ParseMetric reads it, such as "ndcg@10".
func (m Metric) String() string {
	if m.cut == 0 {
		return m.name
	}
	return m.name + "@" + strconv.Itoa(m.cut)
}

// NDCG is the normalised discounted cumulative gain of the first k ranks (k = 0: all), after Järvelin and Kekäläinen
// (TOIS 2002) in trec_eval's form: the gain is the grade itself, the discount log2(rank+1), and the ideal ranking holds
// every judged document, cut at k too.
func NDCG(k int) Metric { return Metric{"ndcg", k, ndcg} }

// Recall is the share of the relevant documents that are within the first k ranks (k = 0: anywhere).
func Recall(k int) Metric { return Metric{"recall", k, recall} }

// Precision is the number of relevant documents within the first k ranks, divided by k even if fewer were answered.
// With k = 0 it is divided by the number answered.
func Precision(k int) Metric { return Metric{"p", k, precision} }

// MAP is the average precision: the mean, over the relevant documents, of the precision at each one's rank; those
// beyond rank k (k = 0: not answered at all) count zero.
func MAP(k int) Metric { return Metric{"map", k, averagePrecision} }

// MRR is one divided by the rank of the first relevant document, or zero if there is none within the first k ranks
// (k = 0: anywhere).
func MRR(k int) Metric { return Metric{"mrr", k, reciprocalRank} }

// Success is 1 if a relevant document is within the first k ranks (k = 0: anywhere), else 0.
func Success(k int) Metric { return Metric{"success", k, success} }

// DefaultMetrics are those a report has where none were asked for.
func DefaultMetrics() []Metric {
	return []Metric{NDCG(10), Recall(10), Recall(100), MRR(0), MAP(0), Precision(1)}
}

// ParseMetric reads a metric's name: ndcg, recall, p, map, mrr or success, with "@k" for a cut at rank k.
func ParseMetric(s string) (Metric, error) {
	name, cut, hasCut := strings.Cut(s, "@")
	k := 0
	if hasCut {
		var err error
		if k, err = strconv.Atoi(cut); err != nil || k < 1 {
			return Metric{}, fmt.Errorf("metric %q: the cut after @ must be a whole number from 1", s)
		}
	}
	for _, m := range []Metric{NDCG(k), Recall(k), Precision(k), MAP(k), MRR(k), Success(k)} {
		if m.name == name {
			return m, nil
		}
	}
	return Metric{}, fmt.Errorf("unknown metric %q: use ndcg, recall, p, map, mrr or success, as in ndcg@10", s)
}

func ndcg(ranked, relevant []int, cut int) float64 {
	if cut > 0 && len(relevant) > cut {
		relevant = relevant[:cut]
	}
	ideal := discountedGain(relevant)
	if ideal == 0 {
		return 0
	}
	return discountedGain(ranked) / ideal
}

func discountedGain(grades []int) float64 {
	var sum float64
	for i, grade := range grades {
		if grade > 0 {
			sum += float64(grade) / math.Log2(float64(i+2))
		}
	}
	return sum
}

func recall(ranked, relevant []int, _ int) float64 {
	if len(relevant) == 0 {
		return 0
	}
	return float64(hits(ranked)) / float64(len(relevant))
}

func precision(ranked, _ []int, cut int) float64 {
	if cut == 0 {
		cut = max(len(ranked), 1)
	}
	return float64(hits(ranked)) / float64(cut)
}

func averagePrecision(ranked, relevant []int, _ int) float64 {
	if len(relevant) == 0 {
		return 0
	}
	var found int
	var sum float64
	for i, grade := range ranked {
		if grade > 0 {
			found++
			sum += float64(found) / float64(i+1)
		}
	}
	return sum / float64(len(relevant))
}

func reciprocalRank(ranked, _ []int, _ int) float64 {
	for i, grade := range ranked {
		if grade > 0 {
			return 1 / float64(i+1)
		}
	}
	return 0
}

func success(ranked, _ []int, _ int) float64 { return float64(min(hits(ranked), 1)) }

func hits(ranked []int) int {
	n := 0
	for _, grade := range ranked {
		if grade > 0 {
			n++
		}
	}
	return n
}

// Report holds each metric for each judged query, and its mean.
type Report struct {
	// Metrics are the names, in the order asked for.
	Metrics []string `json:"metrics"`
	// Judged is how many queries have judgements, Answered how many of those the run has.
	Judged   int `json:"judged"`
	Answered int `json:"answered"`
	// Mean is, by metric, the mean over all judged queries; one that the run lacks, or that has no relevant document,
	// counts zero, so that leaving out hard queries never helps.
	Mean map[string]float64 `json:"mean"`
	// Queries is, by judged query and metric, the value.
	Queries map[string]map[string]float64 `json:"queries"`
}

// Evaluate computes the metrics (DefaultMetrics if none are given) of a run. The values equal trec_eval's with its
// option -c. Queries that were not judged are ignored.
func Evaluate(qrels Qrels, run Run, metrics ...Metric) Report {
	if len(metrics) == 0 {
		metrics = DefaultMetrics()
	}
	report := Report{
		Judged:  len(qrels),
		Mean:    make(map[string]float64, len(metrics)),
		Queries: make(map[string]map[string]float64, len(qrels)),
	}
	for _, m := range metrics {
		report.Metrics = append(report.Metrics, m.String())
		report.Mean[m.String()] = 0
	}
	// Sorted, so that the sums' last bits do not depend on the order of a map.
	for _, query := range slices.Sorted(maps.Keys(qrels)) {
		judged := qrels[query]
		answer, answered := run[query]
		if answered {
			report.Answered++
		}
		ranking := Ranking(answer)
		ranked := make([]int, len(ranking))
		for i, document := range ranking {
			ranked[i] = max(judged[document], 0)
		}
		var relevant []int
		for _, grade := range judged {
			if grade > 0 {
				relevant = append(relevant, grade)
			}
		}
		slices.SortFunc(relevant, func(a, b int) int { return b - a })
		values := make(map[string]float64, len(metrics))
		for i, m := range metrics {
			within := ranked
			if m.cut > 0 && len(within) > m.cut {
				within = within[:m.cut]
			}
			value := m.score(within, relevant, m.cut)
			values[report.Metrics[i]] = value
			report.Mean[report.Metrics[i]] += value / float64(len(qrels))
		}
		report.Queries[query] = values
	}
	return report
}
