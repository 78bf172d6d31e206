package evals

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// near is how far a metric may be from its reference.
const near = 1e-6

func checkNear(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > near {
		t.Errorf("%s = %.9f, want %.9f", what, got, want)
	}
}

// TestWorkedCases checks testdata/metrics.json: small cases whose values follow from the arithmetic written beside them.
func TestWorkedCases(t *testing.T) {
	b, err := os.ReadFile("testdata/metrics.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name  string
		Why   string
		Qrels Qrels
		Run   Run
		Want  map[string]map[string]float64
		Mean  map[string]float64
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			var metrics []Metric
			for name := range c.Mean {
				m, err := ParseMetric(name)
				if err != nil {
					t.Fatal(err)
				}
				metrics = append(metrics, m)
			}
			report := Evaluate(c.Qrels, c.Run, metrics...)
			for query, values := range c.Want {
				for name, want := range values {
					checkNear(t, query+" "+name, report.Queries[query][name], want)
				}
			}
			for name, want := range c.Mean {
				checkNear(t, "mean "+name, report.Mean[name], want)
			}
			if len(report.Queries) != len(c.Qrels) {
				t.Errorf("%d queries reported, %d judged", len(report.Queries), len(c.Qrels))
			}
		})
	}
}

// shared gives a path below the shared data, or skips the test.
func shared(t *testing.T, elements ...string) string {
	t.Helper()
	dir := os.Getenv("LIVERAG_SHARED")
	if dir == "" {
		t.Skip("LIVERAG_SHARED is not set: the reference data is not compared with")
	}
	return filepath.Join(append([]string{dir, "data"}, elements...)...)
}

// TestReferenceMetrics compares with values that pytrec_eval computed.
func TestReferenceMetrics(t *testing.T) {
	files, err := filepath.Glob(shared(t, "golden", "0[1-7]_*.json"))
	if err != nil || len(files) != 7 {
		t.Fatalf("found %v (%v), want seven files", files, err)
	}
	// Reference name to ours.
	metrics := map[string]Metric{"map": MAP(0), "map_cut_10": MAP(10), "recip_rank": MRR(0), "ndcg": NDCG(0)}
	for _, k := range []int{1, 3, 5, 10, 100} {
		metrics["ndcg_cut_"+strconv.Itoa(k)] = NDCG(k)
	}
	for _, k := range []int{1, 5, 10, 100} {
		metrics["recall_"+strconv.Itoa(k)] = Recall(k)
	}
	for _, k := range []int{1, 5, 10} {
		metrics["P_"+strconv.Itoa(k)] = Precision(k)
		metrics["success_"+strconv.Itoa(k)] = Success(k)
	}
	var all []Metric
	for _, m := range metrics {
		all = append(all, m)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c struct {
				Qrels    Qrels
				Run      Run
				Expected struct {
					PerQuery map[string]map[string]float64 `json:"per_query"`
					Mean     map[string]float64            `json:"mean_over_all_judged_queries_missing_as_zero (trec_eval -c)"`
				}
			}
			if err := json.Unmarshal(b, &c); err != nil {
				t.Fatal(err)
			}
			if len(c.Expected.PerQuery) == 0 || len(c.Expected.Mean) == 0 {
				t.Fatal("the file expects nothing")
			}
			report := Evaluate(c.Qrels, c.Run, all...)
			for theirs, m := range metrics {
				want, ok := c.Expected.Mean[theirs]
				if !ok {
					t.Errorf("the reference has no %s", theirs)
				}
				checkNear(t, "mean "+theirs, report.Mean[m.String()], want)
				for query, values := range c.Expected.PerQuery {
					checkNear(t, query+" "+theirs, report.Queries[query][m.String()], values[theirs])
				}
			}
		})
	}
}

// TestReferenceChunking compares with values that Chroma's own code computed.
func TestReferenceChunking(t *testing.T) {
	b, err := os.ReadFile(shared(t, "golden", "08_chroma_ranges.json"))
	if err != nil {
		t.Fatal(err)
	}
	type triple [3]any
	var cases []struct {
		Name      string
		Chunks    []triple
		Retrieved [][]int
		Questions []struct {
			Corpus     string
			References [][2]int
		}
		Expected []struct {
			Recall, Precision, IoU float64
			Omega                  float64 `json:"precision_omega"`
			Containing             int     `json:"chunks_containing"`
		}
	}
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			var chunks []Span
			for _, s := range c.Chunks {
				chunks = append(chunks, Span{s[0].(string), int(s[1].(float64)), int(s[2].(float64))})
			}
			for i, q := range c.Questions {
				var excerpts []Span
				for _, r := range q.References {
					excerpts = append(excerpts, Span{q.Corpus, r[0], r[1]})
				}
				got, want := ScoreChunking(ExcerptQuestion{excerpts}, chunks, c.Retrieved[i]), c.Expected[i]
				checkNear(t, "recall", got.Recall, want.Recall)
				checkNear(t, "precision", got.Precision, want.Precision)
				checkNear(t, "precision omega", got.PrecisionOmega, want.Omega)
				checkNear(t, "IoU", got.IoU, want.IoU)
				if got.Containing != want.Containing {
					t.Errorf("containing = %d, want %d", got.Containing, want.Containing)
				}
			}
		})
	}
}

func TestScoreChunking(t *testing.T) {
	chunks := []Span{{"a", 0, 10}, {"a", 10, 20}, {"a", 20, 30}, {"b", 0, 10}}
	// Of [5,15) the chunk [0,10) gives 5 of 10; it and the foreign chunk are 20 long; [0,20) would be needed for all.
	got := ScoreChunking(ExcerptQuestion{[]Span{{"a", 5, 15}}}, chunks, []int{0, 3})
	want := ChunkingScore{Recall: 0.5, Precision: 0.25, PrecisionOmega: 0.5, IoU: 0.2, Containing: 2}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := ScoreChunking(ExcerptQuestion{[]Span{{"a", 5, 15}}}, chunks, nil); got.Recall != 0 || got.PrecisionOmega != 0.5 {
		t.Errorf("nothing retrieved: got %+v", got)
	}
}

func TestParseMetric(t *testing.T) {
	for _, name := range []string{"ndcg", "ndcg@10", "recall@100", "p@5", "map", "map@10", "mrr", "success@1"} {
		m, err := ParseMetric(name)
		if err != nil || m.String() != name {
			t.Errorf("ParseMetric(%q) = %q, %v", name, m, err)
		}
	}
	for _, name := range []string{"", "ndgc@10", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@1.5", "@10"} {
		if m, err := ParseMetric(name); err == nil {
			t.Errorf("ParseMetric(%q) = %q, want an error", name, m)
		}
	}
}

func TestEvaluateNotANumber(t *testing.T) {
	report := Evaluate(Qrels{"q": {"a": 1}}, Run{"q": {"a": math.NaN(), "b": 1, "c": math.Inf(-1)}}, MRR(0))
	checkNear(t, "mrr with the right document's score not a number", report.Mean["mrr"], 1./3)
}

func BenchmarkEvaluate(b *testing.B) {
	qrels, run := make(Qrels), make(Run)
	for q := range 300 {
		id := strconv.Itoa(q)
		qrels[id] = map[string]int{strconv.Itoa(q % 100): 1, "never": 1}
		run[id] = make(map[string]float64)
		for d := range 100 {
			run[id][strconv.Itoa(d)] = float64((d * 37) % 100)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		Evaluate(qrels, run)
	}
}
