package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/liverag/liverag/evals"
)

// pairServer answers like a liverag with the generations old (live), which finds what birdSet asks for a and b, and new, which finds a and c.
func pairServer(t *testing.T) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var names []string
	mux := http.NewServeMux()
	mux.HandleFunc("GET /documents/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"id":"x"}`) })
	mux.HandleFunc("GET /generations", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `[{"name":"old","alias":["live"],"state":"ready","recipe":{"chunker":{"strategy":"markdown","tokens":200},"embedder":{"model":"local/static"}},
			"progress":{"documents":5,"chunks":7,"tokens_embedded":70,"cost_usd":0.5},"stats":{"documents":5,"chunks":7,"tokens":70,"bytes":7000000}},
			{"name":"new","alias":[],"state":"ready","recipe":{"chunker":{"strategy":"recursive","tokens":64},"embedder":{"model":"local/static"}},
			"progress":{"documents":5,"chunks":9,"tokens_embedded":60,"tokens_reused":12,"cost_usd":0.25},"stats":{"documents":5,"chunks":9,"tokens":72,"bytes":9000000}}]`)
	})
	mux.HandleFunc("GET /generations/{name}/entries/stream", func(w http.ResponseWriter, r *http.Request) {
		swifts, owls := strings.Repeat("Swifts sleep in the air. ", 12), strings.Repeat("Owls hunt at night. ", 12)
		fmt.Fprintf(w, `{"generation":{"name":%q}}{"document":{"id":"1","text":%q,"entries":[{"id":"1#a","start":0,"end":%d}]}}{"document":{"id":"3","text":%q,"entries":[{"id":"3#a","start":0,"end":%d},{"id":"3#b","start":0,"end":9}]}}{"end":{"documents":2,"entries":3}}`,
			r.PathValue("name"), swifts, len(swifts), owls, len(owls))
	})
	mux.HandleFunc("POST /retrieve", func(w http.ResponseWriter, r *http.Request) {
		var q queryRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		mu.Lock()
		names = append(names, q.Generation)
		mu.Unlock()
		hits := map[string]string{
			"old swifts sleep in the air": `{"document":"1","score":3,"text":"Swifts sleep <b>in</b> the air"},{"document":"2","score":2,"text":"Moles"}`,
			"new swifts sleep in the air": `{"document":"1","score":3,"text":"Swifts sleep <b>in</b> the air"},{"document":"2","score":2,"text":"Moles"}`,
			"old moles dig tunnels":       `{"document":"2","score":1,"text":"Moles dig"}`,
			"new moles dig tunnels":       `{"document":"9","score":1,"text":"Nothing"}`,
			"new owls hunt mice at night": `{"document":"3","score":1,"text":"Owls hunt"},{"document":"4","score":1,"text":"Herons"}`,
		}[q.Generation+" "+q.Query]
		fmt.Fprintf(w, `{"hits":[%s],"generation":{"name":%q}}`, hits, q.Generation)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return names
	}
}

func TestEvalCompare(t *testing.T) {
	url, asked := pairServer(t)
	set, data, dir := birdSet(t), t.TempDir(), t.TempDir()
	page, junit := filepath.Join(dir, "c.html"), filepath.Join(dir, "c.xml")
	args := []string{"eval", "compare", "live", "new", "--server", url, "--set", set, "--data", data, "--concurrency", "1"}
	got := invoke(t, nil, "", append(args, "--json", "--report", page, "--junit", junit)...)
	if got.code != exitDone {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	out := decoded(t, got)
	at := func(path string) float64 {
		t.Helper()
		var v any = out
		for name := range strings.SplitSeq(path, ".") {
			v = v.(map[string]any)[name]
		}
		f, ok := v.(float64)
		if !ok {
			t.Fatalf("%s is %v", path, v)
		}
		return f
	}
	// a is equal, b is lost, c is won: over three questions nothing has changed in the mean.
	for path, want := range map[string]float64{
		"mrr": 0, "a.mrr": 2. / 3, "b.mrr": 2. / 3, "wins.mrr": 1, "losses.mrr": 1, "ties.mrr": 1, "p.mrr": 1, "queries": 3,
		"overlap.jaccard@10": 1. / 3, "overlap.rbo@10": 1. / 3, "a.chunks": 7, "b.chunks": 9, "a.bytes": 7e6, "b.tokens_embedded": 60, "b.cost_usd": .25,
	} {
		if v := at(path); math.Abs(v-want) > 1e-9 {
			t.Errorf("%s is %v, want %v", path, v, want)
		}
	}
	if low, high := at("low.mrr"), at("high.mrr"); low >= 0 || high <= 0 || math.Abs(low+high) > .05 {
		t.Errorf("the interval is from %v to %v", low, high)
	}
	for _, side := range []string{"a", "b"} {
		if latency := out[side].(map[string]any)["latency"].(map[string]any); latency["p50"] == nil || latency["p99"] == nil {
			t.Errorf("latency of %s: %v", side, latency)
		}
	}
	moved := out["moved"].([]any)
	if len(moved) != 2 { // a has not
		t.Fatalf("moved %v", moved)
	}
	for _, m := range moved {
		m := m.(map[string]any)
		a, b := m["a"].(map[string]any), m["b"].(map[string]any)
		if m["query"] == "moles dig tunnels" && (a["rank"] != 1. || b["rank"] != 0. || b["top"].([]any)[0].(map[string]any)["text"] != "Nothing") {
			t.Errorf("moved %v", m)
		}
	}
	if got := strings.Join(asked(), " "); got != "old new new old old new" {
		t.Errorf("asked %s", got)
	}
	html, err := os.ReadFile(page)
	if err != nil || strings.Contains(string(html), "<b>in") || strings.Contains(string(html), "<script") || !strings.Contains(string(html), "moles dig tunnels") || strings.Count(string(html), "<svg viewBox=\"0 0 420") != 4 {
		t.Errorf("the report: %v, %.300s", err, html)
	}
	if xml, err := os.ReadFile(junit); err != nil || !strings.Contains(string(xml), `name="low.ndcg@10"`) {
		t.Errorf("the test cases: %v", err)
	}
	if runs, err := evals.OpenResults(filepath.Join(data, "evals")).List(); err != nil || len(runs) != 1 || runs[0].Kind != evals.KindCompare || runs[0].Target.Generation != "old → new" {
		t.Errorf("kept %+v, %v", runs, err)
	}

	text := invoke(t, nil, "", append(args, "--gate", "mrr>=0")...)
	if text.code != exitDone || !strings.Contains(text.out, "B - A") || !strings.Contains(text.out, "old (live)") || !strings.Contains(text.out, "9.0 MB") || !strings.Contains(text.out, "do not tell which is better") {
		t.Errorf("exit %d: %s%s", text.code, text.out, text.err)
	}
	if got := invoke(t, nil, "", append(args, "--gate", "ndcg@10>=0.5")...); got.code != exitFailed || !strings.Contains(got.err, "ndcg@10>=0.5 does not hold") {
		t.Errorf("a gate that does not hold: exit %d, %s", got.code, got.err)
	}
	one := decoded(t, invoke(t, nil, "", append(args, "--limit", "1", "--json")...))
	if one["queries"] != 1. || !strings.Contains(one["set"].(map[string]any)["name"].(string), "1 drawn") {
		t.Errorf("one of the questions: %v", one)
	}
}

// TestEvalCompareUnlabelled: without a set it is told how far the two agree on what was asked, and how they fare with generated questions, which are called so.
func TestEvalCompareUnlabelled(t *testing.T) {
	url, asked := pairServer(t)
	written := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("the chat model is asked with %v, %v", r.Header, err)
		}
		question := "swifts sleep in the air"
		if strings.Contains(string(body), "Owls hunt") {
			question = "owls hunt mice at night"
		}
		fmt.Fprintf(w, `{"choices":[{"message":{"role":"assistant","content":%q}}]}`, question)
	}))
	t.Cleanup(written.Close)
	data, dir := t.TempDir(), t.TempDir()
	writeAll(t, data, map[string]string{"queries/documents.ndjson": `{"query":"swifts sleep in the air","filter":{"a":1}}
{"query":"moles dig tunnels"}
torn
{"query":"swifts sleep in the air"}
`})
	page, kept := filepath.Join(dir, "u.html"), filepath.Join(dir, "generated.jsonl")
	env := []string{"LIVERAG_OPENAI_API_KEY=secret"}
	args := []string{"eval", "compare", "live", "new", "--server", url, "--data", data}
	got := invoke(t, env, "", append(args, "--evals.chat.model", "writer", "--openai-base-url", written.URL, "--generate", "4", "--keep-generated", kept, "--report", page, "--json")...)
	if got.code != exitDone {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	out := decoded(t, got)
	generated := out["generated"].(map[string]any)
	if out["queries"] != 2. || out["ndcg@10"] != nil || out["metrics"] != nil && len(out["metrics"].([]any)) > 0 || math.Abs(out["overlap"].(map[string]any)["jaccard@10"].(float64)-.5) > 1e-9 {
		t.Errorf("of what was asked: %v", out)
	}
	// Four chunks are drawn and there are two different questions: new answers both, old one of them.
	if generated["queries"] != 2. || generated["mrr"] != .5 || generated["by"] != "writer" || out["settings"].(map[string]any)["generated_by"] != "writer" || !strings.Contains(out["set"].(map[string]any)["name"].(string), "2 generated") {
		t.Errorf("generated: %v", generated)
	}
	if questions, err := os.ReadFile(kept); err != nil || strings.Count(string(questions), `"id":"generated-`) != 2 || !strings.Contains(string(questions), `"documents":["3"]`) {
		t.Errorf("kept %s, %v", questions, err)
	}
	if html, err := os.ReadFile(page); err != nil || !strings.Contains(string(html), "generated by writer") || !strings.Contains(string(html), "Generated: Figures") || !strings.Contains(string(html), "No right answers are known") {
		t.Errorf("the report: %v", err)
	}
	if n := len(asked()); n != 8 {
		t.Errorf("%d questions were put", n)
	}
	text := invoke(t, env, "", append(args, "--evals.chat.model", "writer", "--openai-base-url", written.URL, "--generate", "4")...)
	if text.code != exitDone || !strings.Contains(text.out, "generated questions, written by writer and judged by nobody") || !strings.Contains(text.out, "without known answers") {
		t.Errorf("exit %d: %s%s", text.code, text.out, text.err)
	}
	if one := decoded(t, invoke(t, nil, "", append(args, "--limit", "1", "--json")...)); one["queries"] != 1. || one["generated"] != nil {
		t.Errorf("without a chat model: %v", one)
	}
	if got := invoke(t, nil, "", "eval", "compare", "live", "new", "--server", url, "--data", dir); got.code != exitFailed || !strings.Contains(got.err, "there are no questions") || !strings.Contains(got.err, "query_log") {
		t.Errorf("without anything: exit %d, %s", got.code, got.err)
	}
	if got := invoke(t, nil, "", append(args, "--query-log", filepath.Join(dir, "none"))...); got.code != exitFailed || !strings.Contains(got.err, "query log") {
		t.Errorf("a file that is not there: exit %d, %s", got.code, got.err)
	}
}

func TestEvalCompareRefuses(t *testing.T) {
	url, _ := pairServer(t)
	set := birdSet(t)
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"live", "--set", set}, exitUsage, "two generations"},
		{[]string{"live", "new", "--limit", "-1", "--set", set}, exitUsage, "--limit"},
		{[]string{"live", "new", "--set", set, "--feedback"}, exitUsage, "--feedback takes the place"},
		{[]string{"live", "new", "--set", set, "--query-log", "x"}, exitUsage, "without a set"},
		{[]string{"live", "old", "--set", set}, exitUsage, "the same generation"},
		{[]string{"live", "other", "--set", set}, exitFailed, `no generation or alias "other"`},
		{[]string{"live", "new", "--set", set, "--mode", "both"}, exitUsage, "--mode both"},
		{[]string{"live", "new", "--set", set, "--gate", "mrr"}, exitUsage, "gate"},
		{[]string{"live", "new", "--set", filepath.Join(set, "nothing")}, exitFailed, "nothing"},
	} {
		got := invoke(t, nil, "", append([]string{"eval", "compare", "--server", url, "--data", t.TempDir()}, c.args...)...)
		if got.code != c.code || !strings.Contains(got.err, c.want) {
			t.Errorf("%v: exit %d, want %d; stderr %q, want %q", c.args, got.code, c.code, got.err, c.want)
		}
	}
}
