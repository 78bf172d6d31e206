package evals

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
)

// Comparison is how the second of two reports differs from the first in one metric, over the same queries.
type Comparison struct {
	Metric string `json:"metric"`
	// Queries is how many were compared.
	Queries int `json:"queries"`
	// A and B are the means, Difference is B − A.
	A          float64 `json:"a"`
	B          float64 `json:"b"`
	Difference float64 `json:"difference"`
	// Wins counts queries where B is better, Losses where A is, Ties where they are equal.
	Wins   int `json:"wins"`
	Losses int `json:"losses"`
	Ties   int `json:"ties"`
	// P is the two-sided p-value of a paired permutation test: how often a difference at least as large comes about
	// if for each query a coin decides which of the two values is whose. Small means that it is hardly chance.
	P float64 `json:"p"`
	// Low and High are the ends of the 95 % interval of Difference, by the percentiles of a paired bootstrap: what the difference might have been with
	// other queries of the same sort. Where zero is between them, either may be the better one.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

const (
	// resamples is how often the queries are drawn anew, with replacement, for the interval.
	resamples = 10_000
	// permutations is how many sign changes are drawn; where all of them are fewer, each is tried once and P is exact.
	permutations = 1 << 14
	// equal is the difference below which two values of one query count as the same.
	equal = 1e-9
)

// Compare compares two reports over the same judged queries, one Comparison for each metric that both have, in a's order.
// The same reports always give the same answer: the draws have a fixed seed.
func Compare(a, b Report) ([]Comparison, error) {
	queries := slices.Sorted(maps.Keys(a.Queries))
	if len(a.Queries) != len(b.Queries) {
		return nil, fmt.Errorf("compare reports: one has %d queries, the other %d; evaluate both against the same judgements", len(a.Queries), len(b.Queries))
	}
	for _, query := range queries {
		if _, ok := b.Queries[query]; !ok {
			return nil, fmt.Errorf("compare reports: query %q is in one only; evaluate both against the same judgements", query)
		}
	}
	var comparisons []Comparison
	for _, metric := range a.Metrics {
		if !slices.Contains(b.Metrics, metric) {
			continue
		}
		c := Comparison{Metric: metric, Queries: len(queries), A: a.Mean[metric], B: b.Mean[metric]}
		c.Difference = c.B - c.A
		var differences []float64 // without ties, which no change of sign alters
		all := make([]float64, len(queries))
		for i, query := range queries {
			d := b.Queries[query][metric] - a.Queries[query][metric]
			all[i] = d
			switch {
			case math.Abs(d) < equal:
				c.Ties++
				continue
			case d > 0:
				c.Wins++
			default:
				c.Losses++
			}
			differences = append(differences, d)
		}
		c.P = permutationTest(differences)
		c.Low, c.High = bootstrap(all)
		comparisons = append(comparisons, c)
	}
	return comparisons, nil
}

// permutationTest gives the share of sign changes of the differences whose sum is at least as far from zero as theirs.
func permutationTest(differences []float64) float64 {
	var sum float64
	for _, d := range differences {
		sum += d
	}
	observed := math.Abs(sum) - equal
	extreme := 0
	count := func(sign func(i int) bool) {
		var s float64
		for i, d := range differences {
			if sign(i) {
				s += d
			} else {
				s -= d
			}
		}
		if math.Abs(s) >= observed {
			extreme++
		}
	}
	if n := len(differences); n < 63 && 1<<n <= permutations {
		for signs := range 1 << n {
			count(func(i int) bool { return signs>>i&1 == 1 })
		}
		return float64(extreme) / float64(int(1)<<n)
	}
	draws := rand.New(rand.NewPCG(1, 2))
	for range permutations {
		var bits uint64
		count(func(i int) bool {
			if i%64 == 0 {
				bits = draws.Uint64()
			}
			bit := bits>>(i%64)&1 == 1
			return bit
		})
	}
	// The observed assignment is one of all: counting it keeps P above zero, which no sample can rule out.
	return float64(extreme+1) / float64(permutations+1)
}

// bootstrap gives the 2.5th and the 97.5th percentile of the mean of as many differences drawn with replacement.
func bootstrap(differences []float64) (low, high float64) {
	n := len(differences)
	if n == 0 {
		return 0, 0
	}
	draws := rand.New(rand.NewPCG(3, 4))
	means := make([]float64, resamples)
	for i := range means {
		var sum float64
		for range n {
			sum += differences[draws.IntN(n)]
		}
		means[i] = sum / float64(n)
	}
	slices.Sort(means)
	return means[resamples*25/1000], means[resamples*975/1000-1]
}
