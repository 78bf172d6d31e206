package evals

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// reportOf makes a report of one metric with the given values.
func reportOf(values ...float64) Report {
	r := Report{Metrics: []string{"m"}, Mean: make(map[string]float64), Queries: make(map[string]map[string]float64)}
	for i, v := range values {
		r.Queries[fmt.Sprintf("q%03d", i)] = map[string]float64{"m": v}
		r.Mean["m"] += v / float64(len(values))
	}
	return r
}

func TestCompare(t *testing.T) {
	// Differences +0.5, +0.5, +0.5, 0: of the 8 sign changes only +++ and --- are as far from zero, so p = 2/8.
	got, err := Compare(reportOf(0, 0, 0, 1), reportOf(0.5, 0.5, 0.5, 1))
	if err != nil {
		t.Fatal(err)
	}
	c := got[0]
	if c.Wins != 3 || c.Losses != 0 || c.Ties != 1 || c.Queries != 4 {
		t.Errorf("got %+v", c)
	}
	checkNear(t, "difference", c.Difference, 0.375)
	checkNear(t, "p", c.P, 0.25)

	// Differences +1, -1: every sign change is at least as far from zero as the observed sum, which is zero.
	got, err = Compare(reportOf(0, 1), reportOf(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	checkNear(t, "p of no difference", got[0].P, 1)
	if got, err = Compare(reportOf(1, 1), reportOf(1, 1)); err != nil || got[0].P != 1 || got[0].Ties != 2 {
		t.Errorf("equal reports: %+v, %v", got, err)
	}
}

func TestCompareSampled(t *testing.T) {
	// 100 queries are too many to try every sign change. 60 wins against 40 losses of equal size: the two-sided
	// binomial p-value is 0.0569.
	a, b := make([]float64, 100), make([]float64, 100)
	for i := range a {
		if i < 60 {
			b[i] = 1
		} else {
			a[i] = 1
		}
	}
	first, err := Compare(reportOf(a...), reportOf(b...))
	if err != nil {
		t.Fatal(err)
	}
	if p := first[0].P; math.Abs(p-0.0569) > 0.01 {
		t.Errorf("p = %v, want about 0.0569", p)
	}
	again, err := Compare(reportOf(a...), reportOf(b...))
	if err != nil || again[0] != first[0] {
		t.Errorf("a second time: %+v, %v, first %+v", again, err, first)
	}
}

func TestCompareRefuses(t *testing.T) {
	if _, err := Compare(reportOf(1), reportOf(1, 1)); err == nil || !strings.Contains(err.Error(), "the other 2") {
		t.Errorf("other number of queries: %v", err)
	}
	other := reportOf(1)
	other.Queries = map[string]map[string]float64{"another": {"m": 1}}
	if _, err := Compare(reportOf(1), other); err == nil || !strings.Contains(err.Error(), `"q000"`) {
		t.Errorf("another query: %v", err)
	}
}

func TestCompareInterval(t *testing.T) {
	// Differences of 0 and 1 in equal parts: the mean of 400 draws has a standard error of 0.5/20, so the interval is 0.5 ± 1.96 · 0.025.
	a, b := make([]float64, 400), make([]float64, 400)
	for i := range b {
		b[i] = float64(i % 2)
	}
	got, err := Compare(reportOf(a...), reportOf(b...))
	if err != nil {
		t.Fatal(err)
	}
	if c := got[0]; math.Abs(c.Low-.451) > .004 || math.Abs(c.High-.549) > .004 {
		t.Errorf("from %v to %v, want 0.451 to 0.549", c.Low, c.High)
	}
	if got, err = Compare(reportOf(b...), reportOf(a...)); err != nil || math.Abs(got[0].Low+.549) > .004 || math.Abs(got[0].High+.451) > .004 {
		t.Errorf("the other way round: %+v, %v", got, err)
	}
	// Ties count: without them the interval of a single win would be that win.
	got, err = Compare(reportOf(0, 0, 0, 0), reportOf(1, 0, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if c := got[0]; c.Low != 0 || c.High < .5 || c.High > .9 {
		t.Errorf("one win and three ties: from %v to %v", c.Low, c.High)
	}
}
