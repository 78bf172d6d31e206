package main

import (
	"encoding/json"
	"encoding/xml"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/liverag/liverag/evals"
)

// birdSet writes a small set in BEIR's layout: five documents, three judged questions.
func birdSet(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeAll(t, dir, map[string]string{
		"corpus.jsonl": `{"_id":"1","title":"Swifts","text":"Swifts sleep in the air and never land on the ground.","metadata":{"year":2024,"odd":{"a":1}}}
{"_id":"2","title":"Moles","text":"Moles dig tunnels below the ground."}
{"_id":"3","title":"Owls","text":"Owls hunt mice at night without a sound."}
{"_id":"4","title":"","text":"Herons stand still in shallow water."}
{"_id":"5","title":"Empty","text":""}
`,
		"queries.jsonl": `{"_id":"a","text":"swifts sleep in the air"}
{"_id":"b","text":"moles dig tunnels"}
{"_id":"c","text":"owls hunt mice at night"}
{"_id":"not judged","text":"herons"}
`,
		"qrels/test.tsv": "query-id\tcorpus-id\tscore\na\t1\t2\nb\t2\t1\nb\t1\t0\nc\t3\t1\nc\t4\t1\n",
	})
	return dir
}

func writeAll(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// decoded reads what a verb printed with --json.
func decoded(t *testing.T, o outcome) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(o.out), &out); err != nil {
		t.Fatalf("exit %d, %v in %q, stderr %q", o.code, err, o.out, o.err)
	}
	return out
}

func TestEvalRetrievalInProcess(t *testing.T) {
	set, data, page := birdSet(t), t.TempDir(), filepath.Join(t.TempDir(), "r.html")
	args := []string{"eval", "retrieval", "--set", set, "--in-process", "--data", data, "--embedder", "hash/384", "--chunker", "whole"}
	got := invoke(t, nil, "", append(args, "--json", "--mode", "dense", "--metric", "ndcg@3", "--report", page)...)
	if got.code != exitDone {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	out := decoded(t, got)
	// a and b are first; of c's two right documents one is first, and the other has no word of the question.
	for name, want := range map[string]float64{"mrr": 1, "queries": 3, "answered": 3, "p@1": 1, "recall@10": 1} {
		if v, ok := out[name].(float64); !ok || math.Abs(v-want) > 1e-9 {
			t.Errorf("%s is %v, want %v", name, out[name], want)
		}
	}
	for _, name := range []string{"ndcg@10", "recall@100", "map", "ndcg@3"} {
		if v, ok := out[name].(float64); !ok || v < .8 || v > 1 {
			t.Errorf("%s is %v", name, out[name])
		}
	}
	if per := out["per_query"].(map[string]any); len(per) != 3 || per["b"].(map[string]any)["ndcg@10"] != 1. {
		t.Errorf("per query: %v", per)
	}
	if out["mode"] != "dense" || !strings.HasPrefix(out["generation"].(string), "whole") {
		t.Errorf("mode %v, generation %v", out["mode"], out["generation"])
	}
	html, err := os.ReadFile(page)
	if err != nil || !strings.Contains(string(html), "owls hunt mice") || strings.Contains(string(html), "<script") {
		t.Errorf("the report: %v, %.300s", err, html)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "liverag-eval-*")); len(left) > 0 && os.Getenv("TMPDIR") != "" {
		t.Errorf("left behind: %v", left)
	}

	// The run is kept, and the next is compared with it.
	again := invoke(t, nil, "", append(args, "--mode", "dense", "--metric", "ndcg@3", "--baseline", "latest")...)
	if again.code != exitDone || !strings.Contains(again.out, "compared with "+out["id"].(string)) || !strings.Contains(again.out, "same") {
		t.Errorf("exit %d: %s%s", again.code, again.out, again.err)
	}
	list := decoded(t, invoke(t, nil, "", "eval", "list", "--data", data, "--kind", "retrieval", "--json"))
	if runs := list["results"].([]any); len(runs) != 2 || runs[1].(map[string]any)["before"] != out["id"] {
		t.Errorf("listed %v", list)
	}
	if text := invoke(t, nil, "", "eval", "list", "--data", data, "--kind", "retrieval"); !strings.Contains(text.out, "ndcg@10") || !strings.Contains(text.out, "(+0.0000)") {
		t.Errorf("listed %s%s", text.out, text.err)
	}
	over := filepath.Join(t.TempDir(), "list.html")
	if got := invoke(t, nil, "", "eval", "list", "--data", data, "--report", over); got.code != exitDone {
		t.Errorf("exit %d: %s", got.code, got.err)
	} else if html, _ := os.ReadFile(over); !strings.Contains(string(html), "<svg") {
		t.Error("the list's report has no plot")
	}
}

func TestEvalBaseline(t *testing.T) {
	set, data := birdSet(t), t.TempDir()
	dir := t.TempDir()
	writeAll(t, dir, map[string]string{
		"good.json":  `{"recall@10":0.5,"mrr":1}`,
		"bad.json":   `{"mrr":1.5,"recall@10":1}`,
		"other.json": `{"kind":"chunking","recall":1,"better":{}}`,
		"torn.json":  `{`,
	})
	base := []string{"eval", "retrieval", "--set", set, "--in-process", "--data", data, "--embedder", "hash/384", "--chunker", "whole"}
	junit := filepath.Join(dir, "junit.xml")
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--baseline", filepath.Join(dir, "good.json")}, exitDone, ""},
		{[]string{"--baseline", filepath.Join(dir, "bad.json"), "--junit", junit}, exitFailed, "worse than the baseline"},
		{[]string{"--baseline", filepath.Join(dir, "bad.json"), "--tolerance", "mrr=0.5"}, exitDone, ""},
		{[]string{"--baseline", filepath.Join(dir, "other.json")}, exitFailed, "can't be compared"},
		{[]string{"--baseline", filepath.Join(dir, "torn.json")}, exitFailed, "torn.json"},
		{[]string{"--baseline", "no-such-run"}, exitFailed, "no such run is kept"},
		{[]string{"--gate", "mrr>=0.9"}, exitDone, ""},
		{[]string{"--gate", "mrr>=1.1", "--gate", "nothing>0"}, exitFailed, "mrr>=1.1 does not hold: it is 1.0000"},
		{[]string{"--gate", "mrr"}, exitUsage, "gate"},
		{[]string{"--tolerance", "lots"}, exitUsage, "tolerance"},
		{[]string{"--junit", filepath.Join(dir, "no", "junit.xml")}, exitUsage, "no such folder"},
	} {
		got := invoke(t, nil, "", append(slices.Clone(base), c.args...)...)
		if got.code != c.code || !strings.Contains(got.err, c.want) {
			t.Errorf("%v: exit %d, want %d; stderr %q, want %q", c.args, got.code, c.code, got.err, c.want)
		}
	}
	var suites struct {
		Failures int `xml:"failures,attr"`
		Suites   []struct {
			Cases []struct {
				Name    string    `xml:"name,attr"`
				Failure *struct{} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	content, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(content, &suites); err != nil || suites.Failures != 1 {
		t.Errorf("%v in %s", err, content)
	}
	for _, c := range suites.Suites[0].Cases {
		if (c.Failure != nil) != (c.Name == "mrr") {
			t.Errorf("case %s: failure %v", c.Name, c.Failure)
		}
	}
}

func TestEvalRetrievalRefuses(t *testing.T) {
	set := birdSet(t)
	bad := filepath.Join(t.TempDir(), "q.jsonl")
	writeAll(t, filepath.Dir(bad), map[string]string{"q.jsonl": `{"query":"x"}`})
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "needs questions"},
		{[]string{"--set", set, "extra"}, exitUsage, "no arguments"},
		{[]string{"--set", set, "--k", "201"}, exitUsage, "--k must be"},
		{[]string{"--set", set, "--mode", "both"}, exitUsage, "--mode both"},
		{[]string{"--set", set, "--filter", "{"}, exitUsage, "filter"},
		{[]string{"--set", set, "--metric", "accuracy"}, exitUsage, "accuracy"},
		{[]string{"--set", set, "--keep", "x"}, exitUsage, "--keep"},
		{[]string{"--set", set, "--in-process", "--generation", "x"}, exitUsage, "--generation"},
		{[]string{"--set", set, "--split", "dev"}, exitFailed, "dev.tsv"},
		{[]string{"--set", filepath.Join(set, "nothing")}, exitFailed, "nothing"},
		{[]string{"--set", bad}, exitFailed, `q.jsonl:1: no "documents"`},
		{[]string{"--set", bad, "--in-process"}, exitFailed, `q.jsonl:1`},
	} {
		got := invoke(t, nil, "", append([]string{"eval", "retrieval", "--data", t.TempDir()}, c.args...)...)
		if got.code != c.code || !strings.Contains(got.err, c.want) {
			t.Errorf("%v: exit %d, want %d; stderr %q, want %q", c.args, got.code, c.code, got.err, c.want)
		}
	}
	if got := invoke(t, nil, "", "eval"); got.code != exitUsage || !strings.Contains(got.err, "retrieval, chunking") {
		t.Errorf("eval alone: exit %d, %q", got.code, got.err)
	}
	if got := invoke(t, nil, "", "eval", "retreival"); got.code != exitUsage || !strings.Contains(got.err, "retreival") {
		t.Errorf("a kind that there is not: exit %d, %q", got.code, got.err)
	}
}

func TestEvalChunking(t *testing.T) {
	data, page := t.TempDir(), filepath.Join(t.TempDir(), "c.html")
	set := filepath.Join("..", "..", "evals", "testdata", "chunking")
	got := invoke(t, nil, "", "eval", "chunking", "--set", set, "--data", data, "--chunker", "recursive", "--tokens", "16", "--overlap", "0", "--embedder", "hash/384", "--k", "1", "--json", "--report", page)
	if got.code != exitDone {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	out := decoded(t, got)
	for _, name := range []string{"recall", "recall_std", "precision", "precision_std", "precision_omega", "precision_omega_std", "iou", "iou_std", "chunks", "mean_tokens", "queries"} {
		if v, ok := out[name].(float64); !ok || v < 0 {
			t.Errorf("%s is %v", name, out[name])
		}
	}
	if out["queries"] != 3. || out["recall"].(float64) < .6 {
		t.Errorf("got %s", got.out)
	}
	if html, err := os.ReadFile(page); err != nil || strings.Count(string(html), "<svg viewBox=\"0 0 420") < 4 || !strings.Contains(string(html), "Moles sleep") {
		t.Errorf("the report: %v", err)
	}
	text := invoke(t, nil, "", "eval", "chunking", "--set", set, "--data", data, "--chunker", "recursive", "--tokens", "16", "--embedder", "hash/384", "--discard")
	if text.code != exitDone || !strings.Contains(text.out, "P OMEGA %") || !strings.Contains(text.out, "owls") {
		t.Errorf("exit %d: %s%s", text.code, text.out, text.err)
	}
	if runs, err := evals.OpenResults(filepath.Join(data, "evals")).List(); err != nil || len(runs) != 1 {
		t.Errorf("%d runs are kept (%v), one of them was to be discarded", len(runs), err)
	}
	for want, args := range map[string][]string{
		"needs a set":  nil,
		"no arguments": {"--set", set, "x"},
		"--k must be":  {"--set", set, "--k", "0"},
	} {
		if got := invoke(t, nil, "", append([]string{"eval", "chunking"}, args...)...); got.code != exitUsage || !strings.Contains(got.err, want) {
			t.Errorf("%v: exit %d, %q", args, got.code, got.err)
		}
	}
}

// TestEvalChunkingCached: a second run embeds nothing again.
func TestEvalChunkingCached(t *testing.T) {
	cfg := defaultConfig()
	cfg.Data, cfg.Corpus, cfg.Embedder, cfg.Chunker = t.TempDir(), "vectors", "local/static", "recursive"
	set, err := evals.OpenChunkingSet(filepath.Join("..", "..", "evals", "testdata", "chunking"))
	if err != nil {
		t.Fatal(err)
	}
	for run := range 2 {
		s, err := openModels(&cfg, cfg.logger(newTerminal(t.Output(), nil)))
		if err != nil {
			t.Fatal(err)
		}
		parts, err := s.models.build(t.Context(), cfg.recipe(), 0)
		if err != nil {
			t.Fatal(err)
		}
		done, err := set.Run(t.Context(), parts.Chunker, parts.Embedder, evals.ChunkingOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cached := s.models.open[cfg.Embedder].index.(interface {
			Hits() int64
			Misses() int64
		})
		if texts := int64(len(done.Chunks) + len(set.Questions)); cached.Hits()+cached.Misses() != texts || run == 1 && cached.Misses() != 0 || run == 0 && cached.Misses() == 0 {
			t.Errorf("run %d: %d texts, %d found, %d embedded", run, texts, cached.Hits(), cached.Misses())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBenchmarkLine(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{"_id":"1","title":"T","text":"x","metadata":{"year":2024,"odd":{"a":1},"list":[1]}}`, `{"id":"1","metadata":{"year":2024},"text":"T x","title":"T"}`},
		{`{"_id":"1","title":"","text":"x"}`, `{"id":"1","text":"x","title":""}`},
		{`{"id":"1","text":"the \"_id\" of"}`, `{"id":"1","text":"the \"_id\" of"}`},
		{`{"id":"1","_id":"2","text":"x"}`, `{"id":"1","_id":"2","text":"x"}`},
		{`{"_id":7,"text":"x"}`, `{"_id":7,"text":"x"}`},
		{`nonsense "_id"`, `nonsense "_id"`},
	} {
		if got := string(benchmarkLine([]byte(c.line))); got != c.want {
			t.Errorf("%s: got %s, want %s", c.line, got, c.want)
		}
	}
}
