package evals

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func sample(kind Kind, started time.Time, ndcg float64) *Result {
	return &Result{
		Kind: kind, Set: Set{Name: "birds/test", Digest: "d1"}, Started: started, Took: 1500 * time.Millisecond,
		Settings: map[string]any{"k": 10.},
		Figures: []Figure{
			{Name: "ndcg@10", Value: ndcg, Unit: Fraction, Better: Higher, Chief: true},
			{Name: "deletes.p99", Value: .25, Unit: Seconds, Better: Lower},
			{Name: "queries", Value: 3, Unit: Count},
		},
		Detail: json.RawMessage(`{"x":1}`),
	}
}

var morning = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

func TestResults(t *testing.T) {
	s := OpenResults(filepath.Join(t.TempDir(), "evals"))
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Fatalf("before any is kept: %v, %v", all, err)
	}
	later, first, again := sample(KindRetrieval, morning.Add(time.Hour), .5), sample(KindRetrieval, morning, .4), sample(KindRetrieval, morning, .45)
	other := sample(KindChunking, morning.Add(2*time.Hour), .9)
	for _, r := range []*Result{later, first, again, other} {
		if err := s.Save(r); err != nil {
			t.Fatal(err)
		}
	}
	if first.ID != "retrieval-20261121-080000" || again.ID != "retrieval-20261121-080000-2" {
		t.Errorf("ids %q and %q", first.ID, again.ID)
	}
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range all {
		ids = append(ids, r.ID)
		if r.Detail != nil {
			t.Errorf("%s is listed with its detail", r.ID)
		}
	}
	if want := []string{first.ID, again.ID, later.ID, other.ID}; !slices.Equal(ids, want) {
		t.Errorf("listed %v, want %v", ids, want)
	}
	if got, err := s.Load(again.ID, ""); err != nil || got.Figures[0].Value != .45 || string(got.Detail) != `{"x":1}` || !got.Started.Equal(morning) || got.Took != again.Took {
		t.Errorf("loaded %+v, %v", got, err)
	}
	if got, err := s.Load(Latest, KindRetrieval); err != nil || got.ID != later.ID {
		t.Errorf("latest retrieval: %+v, %v", got, err)
	}
	if got, err := s.Load(Latest, ""); err != nil || got.ID != other.ID {
		t.Errorf("latest: %+v, %v", got, err)
	}
	for _, id := range []string{"nothing", "../evals/" + first.ID, "", "."} {
		if _, err := s.Load(id, ""); !errors.Is(err, ErrNoResult) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, err := s.Load(Latest, KindSweep); !errors.Is(err, ErrNoResult) {
		t.Errorf("latest of a kind without any: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), ".new-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestResultsBroken(t *testing.T) {
	s := OpenResults(t.TempDir())
	good := sample(KindRetrieval, morning, .4)
	if err := s.Save(good); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"torn": `{"format":1,"kind":`, "newer": `{"format":2,"kind":"retrieval","figures":[]}`, "kindless": `{"format":1,"figures":[]}`} {
		if err := os.WriteFile(filepath.Join(s.Dir(), name+".json"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(name, ""); err == nil || !strings.Contains(err.Error(), name+".json") {
			t.Errorf("%s: %v", name, err)
		}
	}
	all, err := s.List()
	if len(all) != 1 || err == nil || !strings.Contains(err.Error(), "format is 2") || !strings.Contains(err.Error(), "torn.json") {
		t.Errorf("listed %d, %v", len(all), err)
	}
	for _, bad := range []Figure{{Name: "x", Value: math.NaN()}, {Name: "x", Value: math.Inf(1)}, {Value: 1}, good.Figures[0]} {
		r := sample(KindRetrieval, morning, .4)
		r.Figures = append(r.Figures, bad)
		if err := s.Save(r); err == nil {
			t.Errorf("a result with %+v was kept", bad)
		}
	}
}

func TestSummary(t *testing.T) {
	r := sample(KindFreshness, morning, .5)
	r.ID = "x"
	encoded, err := json.Marshal(r.Summary(map[string]any{"deletes": map[string]any{"count": 7}, "note": "n"}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"better":{"deletes.p99":"lower","ndcg@10":"higher"},"deletes":{"count":7,"p99":"250ms"},"id":"x","kind":"freshness","ndcg@10":0.5,"note":"n","queries":3,` +
		`"set":{"name":"birds/test","digest":"d1"},"settings":{"k":10},"started":"2026-11-21T08:00:00Z","target":{},"took":"1.5s"}`
	if string(encoded) != want {
		t.Errorf("got\n%s\nwant\n%s", encoded, want)
	}
	// What is printed is as good a baseline as what is kept.
	b, err := ReadBaseline(encoded, "file")
	if err != nil {
		t.Fatal(err)
	}
	changes, err := r.Against(b, Tolerance{})
	if err != nil || len(changes) != 3 {
		t.Fatalf("%+v, %v", changes, err)
	}
	for _, c := range changes {
		if c.Before != c.After || c.Worse {
			t.Errorf("changed: %+v", c)
		}
	}
}

func TestAgainst(t *testing.T) {
	before := sample(KindRetrieval, morning, .6).Baseline()
	now := sample(KindRetrieval, morning.Add(time.Hour), .595)
	now.Figures[1].Value = .3
	now.Figures[2].Value = 1
	for _, c := range []struct {
		tolerance string
		worse     []string
	}{
		{"", []string{"ndcg@10", "deletes.p99"}}, // the number of queries has no direction
		{"0.005", []string{"deletes.p99"}},
		{"0.0049,deletes.p99=50ms", []string{"ndcg@10"}},
		{"1%, deletes.p99=20%", nil},
		{"1%,deletes.p99=19%", []string{"deletes.p99"}},
		{"ndcg@10=0.01", []string{"deletes.p99"}},
	} {
		tolerance, err := Tolerance{}.With(c.tolerance)
		if err != nil {
			t.Fatal(err)
		}
		changes, err := now.Against(before, tolerance)
		if err != nil {
			t.Fatal(err)
		}
		var worse []string
		for _, change := range changes {
			if change.Worse {
				worse = append(worse, change.Figure)
			}
		}
		if !slices.Equal(worse, c.worse) {
			t.Errorf("tolerance %q: worse are %v, want %v", c.tolerance, worse, c.worse)
		}
	}
	// A general tolerance that is asked for holds for figures, too, that the eval has one of its own for.
	own := Tolerance{Slack: Slack{Absolute: .1}, Figures: map[string]Slack{"deletes.p99": {Relative: .5}}}
	if got, _ := own.With("mrr=1"); got.of("deletes.p99", 1) != .5 || got.of("ndcg@10", 1) != .1 || got.of("mrr", 1) != 1 {
		t.Errorf("the eval's own were lost: %+v", got)
	}
	if got, _ := own.With("0.2"); got.of("deletes.p99", 1) != .2 {
		t.Errorf("the general one does not hold: %+v", got)
	}
	for _, bad := range []string{"x", "-1", "mrr=", "NaN"} {
		if _, err := (Tolerance{}).With(bad); err == nil {
			t.Errorf("tolerance %q was accepted", bad)
		}
	}

	now.Figures = now.Figures[1:]
	changes, err := now.Against(before, Tolerance{})
	if last := changes[len(changes)-1]; err != nil || !last.Gone || !last.Worse || last.Figure != "ndcg@10" {
		t.Errorf("a figure that is gone: %+v, %v", changes, err)
	}
}

func TestNotComparable(t *testing.T) {
	now := sample(KindRetrieval, morning, .5)
	for what, change := range map[string]func(*Result){
		"another kind":      func(r *Result) { r.Kind = KindChunking },
		"another set":       func(r *Result) { r.Set.Digest = "d2" },
		"nothing in common": func(r *Result) { r.Figures = []Figure{{Name: "other", Value: 1}} },
	} {
		other := sample(KindRetrieval, morning, .5)
		change(other)
		if _, err := now.Against(other.Baseline(), Tolerance{}); !errors.Is(err, ErrNotComparable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, bad := range []string{"", "[]", `{"a":"b"}`, `{"format":2,"figures":[]}`} {
		if _, err := ReadBaseline([]byte(bad), "file"); err == nil || !strings.Contains(err.Error(), "file") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	// A file by hand, with the figures alone.
	b, err := ReadBaseline([]byte(`{"ndcg@10":0.6,"deletes":{"p99":"300ms"},"set":"birds","better":"yes"}`), "file")
	if err != nil {
		t.Fatal(err)
	}
	changes, err := now.Against(b, Tolerance{})
	if err != nil || len(changes) != 2 || !changes[0].Worse || changes[1].Worse || changes[1].Before != .3 {
		t.Errorf("%+v, %v", changes, err)
	}
}

func TestGate(t *testing.T) {
	r := sample(KindRetrieval, morning, .5)
	for text, want := range map[string]bool{
		"ndcg@10>=0.5": true, "ndcg@10>0.5": false, "ndcg@10 <= 0.5": true, "ndcg@10<0.5": false,
		"deletes.p99<250ms": false, "deletes.p99<=250ms": true, "deletes.p99<0.3": true, "mrr>=0": false,
	} {
		g, err := ParseGate(text)
		if err != nil {
			t.Fatal(err)
		}
		if g = g.Check(r); g.Passed != want || !want && g.Why == "" {
			t.Errorf("%s: %+v", text, g)
		}
	}
	for _, bad := range []string{"", "ndcg@10", "ndcg@10=1", ">=1", "ndcg@10>=x", "a b>=1"} {
		if g, err := ParseGate(bad); err == nil {
			t.Errorf("gate %q was read as %+v", bad, g)
		}
	}
}

func TestWriteJUnit(t *testing.T) {
	r := sample(KindRetrieval, morning, .5)
	changes := []Change{
		{Figure: "ndcg@10", Unit: Fraction, Better: Higher, Before: .6, After: .5, Worse: true},
		{Figure: "deletes.p99", Unit: Seconds, Better: Lower, Before: .25, After: .25},
		{Figure: `a<b>&"c"`, Before: 1, Gone: true, Worse: true},
	}
	gates := []Gate{{Figure: "ndcg@10", Op: ">=", Bound: .4, Passed: true}, {Figure: "mrr", Op: ">=", Bound: 1, Why: "it is 0"}}
	var b bytes.Buffer
	if err := WriteJUnit(&b, r, changes, gates); err != nil {
		t.Fatal(err)
	}
	var got junitSuites
	if err := xml.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v in\n%s", err, b.Bytes())
	}
	suite := got.Suites[0]
	var failed []string
	for _, c := range suite.Cases {
		if c.Failure != nil {
			failed = append(failed, c.Name)
		}
	}
	if suite.Tests != 6 || suite.Failures != 3 || got.Failures != 3 || !slices.Equal(failed, []string{"ndcg@10", `a<b>&"c"`, "mrr>=1"}) {
		t.Errorf("%d tests, %d failures: %v\n%s", suite.Tests, suite.Failures, failed, b.Bytes())
	}
	if !strings.Contains(b.String(), "0.6000 → 0.5000") || suite.Time != "1.500" {
		t.Errorf("got\n%s", b.Bytes())
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		unit  Unit
		value float64
		want  string
	}{{Fraction, .64512, "0.6451"}, {Seconds, .0384561, "38.5ms"}, {Seconds, 12.3456, "12.3s"}, {Seconds, -.0001234567, "-123µs"}, {Seconds, 0, "0s"}, {Count, 2386, "2386"}, {"", .5, "0.5"}} {
		if got := c.unit.Format(c.value); got != c.want {
			t.Errorf("%v as %q is %q, want %q", c.value, c.unit, got, c.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	d := []time.Duration{4, 1, 3, 2}
	if Median(d) != 2 || Quantile(d, 0) != 1 || Quantile(d, 1) != 4 || Quantile(nil, .5) != 0 || d[0] != 4 {
		t.Errorf("median %d, %d, %d", Median(d), Quantile(d, 0), Quantile(d, 1))
	}
}
