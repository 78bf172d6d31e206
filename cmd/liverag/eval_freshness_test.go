package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/evals"
	evalfresh "github.com/liverag/liverag/evals/freshness"
	"github.com/liverag/liverag/evals/freshness/freshnesstest"
	"github.com/liverag/liverag/stream"
)

// serveSystem answers like liverag what a small system in memory says, with that system's fault.
func serveSystem(t *testing.T, s *freshnesstest.System) string {
	t.Helper()
	refuse := func(w http.ResponseWriter, err error) {
		status, code := http.StatusInternalServerError, "broken"
		switch busy := (*evalfresh.Busy)(nil); {
		case errors.As(err, &busy):
			status, code = http.StatusTooManyRequests, "too_busy"
			if len(s.Writes())%2 == 0 {
				status, code = http.StatusServiceUnavailable, "unavailable"
			}
			w.Header().Set("Retry-After", "0")
		case errors.Is(err, evalfresh.ErrMode):
			status, code = http.StatusBadRequest, "mode_unsupported"
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"code":%q,"detail":%q}`, code, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	change := func(w http.ResponseWriter, r *http.Request) {
		id, err := url.PathUnescape(strings.TrimPrefix(r.URL.EscapedPath(), "/documents/"))
		if err != nil {
			t.Error(err)
		}
		if r.URL.RawQuery != "" {
			t.Errorf("a change must not wait: %s", r.URL)
		}
		var token string
		if r.Method == "DELETE" {
			token, err = s.Delete(r.Context(), id)
		} else {
			var doc stream.Document
			if err := json.NewDecoder(r.Body).Decode(&doc); err != nil {
				t.Error(err)
			}
			token, err = s.Put(r.Context(), id, &doc)
		}
		if err != nil {
			refuse(w, err)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, `{"id":%q,"token":%q}`, id, token)
	}
	mux.HandleFunc("PUT /documents/", change)
	mux.HandleFunc("DELETE /documents/", change)
	mux.HandleFunc("POST /retrieve", func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Query, Mode, Wait string
			K                 int
			Filter            map[string]any
			After             []string
			MaxStaleness      string `json:"max_staleness"`
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		wait, _ := time.ParseDuration(q.Wait)
		a, err := s.Retrieve(r.Context(), evalfresh.Question{Query: q.Query, Mode: q.Mode, K: q.K, Filter: q.Filter, After: q.After, AllOlder: q.MaxStaleness == "0s", Wait: wait})
		if err != nil {
			refuse(w, err)
			return
		}
		hits := []map[string]any{}
		for _, h := range a.Hits {
			hits = append(hits, map[string]any{"id": h.ID, "document": h.Document, "version": h.Version, "text": h.Text, "start": h.Start, "end": h.End, "metadata": h.Metadata})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"hits": hits, "generation": map[string]any{"name": "g1", "alias": "live", "recipe": map[string]any{"chunker": map[string]any{"strategy": "markdown", "tokens": 200}, "embedder": map[string]any{"model": "hash/384"}}},
			"freshness": map[string]any{"lag": a.Lag.String(), "satisfied": a.Satisfied},
		})
	})
	mux.HandleFunc("GET /freshness", func(w http.ResponseWriter, r *http.Request) {
		m, _ := s.Measured(r.Context())
		fmt.Fprintf(w, `{"time_to_searchable":{"p50":%q,"p95":%q,"p99":%q,"max":%q,"count":%d,"window":"5m0s"}}`, m.P50, m.P95, m.P99, m.Max, m.Count)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// shortStream writes a stream and its probes: four documents, written four times each, one deleted at the end and one renamed. The first is packed.
func shortStream(t *testing.T) (changes, probes string) {
	t.Helper()
	var c, p strings.Builder
	open := map[string]string{}
	seq := 0
	lines := []string{}
	step := func(op, key, old string) {
		line := fmt.Sprintf("This is what version%dversion of it says, and nothing else does.", seq)
		record := map[string]any{"seq": seq, "ts": time.Date(2026, 1, 1, 0, 0, seq, 0, time.UTC), "op": op, "key": key}
		if old != "" {
			record["old_key"] = old
		}
		for _, k := range []string{key, old} {
			if begun, ok := open[k]; ok {
				lines = append(lines, strings.Replace(begun, `"to_seq":null`, fmt.Sprintf(`"to_seq":%d`, seq), 1))
				delete(open, k)
			}
		}
		if op != "delete" {
			record["content"] = "# About " + key + "\n\n" + line + "\n\nThis never changes."
			open[key] = fmt.Sprintf(`{"text":%q,"raw":%q,"from_seq":%d,"to_seq":null}`, line, line, seq)
		}
		text, _ := json.Marshal(record)
		c.Write(append(text, '\n'))
		seq++
	}
	for round := range 6 {
		for _, key := range []string{"a.md", "b/b.md", "cc c.md", "dddd.md"} {
			op := "modify"
			if round == 0 {
				op = "add"
			}
			step(op, key, "")
		}
	}
	step("rename", "renamed.md", "a.md")
	step("delete", "dddd.md", "")
	for _, line := range open {
		lines = append(lines, line)
	}
	p.WriteString(strings.Join(lines, "\n"))
	dir := t.TempDir()
	changes, probes = filepath.Join(dir, "changes.jsonl"), filepath.Join(dir, "probes.jsonl")
	for name, text := range map[string]string{changes: c.String(), probes: p.String()} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return changes, probes
}

// TestEvalFreshnessFaults: what a server does wrong comes out in the figure that is about it, and the program fails by it.
func TestEvalFreshnessFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		system *freshnesstest.System
		args   []string
		fails  []string // what the error names
	}{
		{"none", &freshnesstest.System{Delay: 5 * time.Millisecond}, nil, nil},
		{"busy", &freshnesstest.System{Fault: freshnesstest.Busy, Every: 3}, nil, nil},
		{"without search by words", &freshnesstest.System{NoWords: true}, nil, nil},
		{"stale", &freshnesstest.System{Fault: freshnesstest.Stale}, nil, []string{"stale_rate@10<=0", "never<=0"}},
		{"ghosts", &freshnesstest.System{Fault: freshnesstest.Ghost}, nil, []string{"ghost_rate<=0", "stale_rate@10<=0", "never<=0"}},
		{"mixed versions", &freshnesstest.System{Fault: freshnesstest.Mixed}, nil, []string{"mixed_version_rate<=0", "never<=0"}},
		{"never", &freshnesstest.System{Fault: freshnesstest.Never, Every: 27}, nil, []string{"never<=0"}},
		{"slow", &freshnesstest.System{Delay: 300 * time.Millisecond}, []string{"--slo", "p50<250ms, deletes.max<=10s"}, []string{"time_to_searchable.p50<0.25"}},
		{"tolerated", &freshnesstest.System{Fault: freshnesstest.Stale}, []string{"--slo", "stale_rate<=1,never<100"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			changes, probes := shortStream(t)
			data := t.TempDir()
			report := filepath.Join(data, "r.html")
			args := append([]string{"eval", "freshness", "--server", serveSystem(t, tt.system), "--data", data, "--stream", changes, "--probes", probes, "--rate", "50", "--questions", "200",
				"--patience", "1500ms", "--report", report, "--json"}, tt.args...)
			got := invoke(t, nil, "", args...)
			if (got.code == exitDone) != (len(tt.fails) == 0) || got.code == exitUsage {
				t.Fatalf("%+v", got)
			}
			var failure struct{ Error string }
			if err := json.Unmarshal([]byte(got.err), &failure); err != nil && got.code != exitDone {
				t.Fatal(err)
			}
			for _, gate := range []string{"never<=0", "ghost_rate<=0", "mixed_version_rate<=0", "stale_rate@10<=0", "time_to_searchable.p50<0.25"} {
				want := false
				for _, f := range tt.fails {
					want = want || f == gate
				}
				if says := strings.Contains(failure.Error, gate+" does not hold"); says != want {
					t.Errorf("%s fails: %t\n%s", gate, says, got.err)
				}
			}
			var out struct {
				Time struct {
					P50, P99 string
					P50ms    float64 `json:"p50_ms"`
					Count    int
				} `json:"time_to_searchable"`
				Deletes    struct{ Count int }
				Never      *float64
				Ghosts     *float64 `json:"ghost_rate"`
				Mixed      *float64 `json:"mixed_version_rate"`
				Stale      *float64 `json:"stale_rate@10"`
				Recall     *float64 `json:"fresh_recall@10"`
				Generation string
				Target     evals.Target
				Changes    struct{ Sent int }
			}
			if err := json.Unmarshal([]byte(got.out), &out); err != nil {
				t.Fatal(err)
			}
			if out.Never == nil || out.Ghosts == nil || out.Mixed == nil || out.Stale == nil || out.Changes.Sent != 27 || out.Target.Generation != "g1" || out.Target.Recipe != "markdown 200, hash/384" {
				t.Errorf("%s", got.out)
			}
			if p, err := time.ParseDuration(out.Time.P50); err != nil || out.Time.P50ms < milliseconds(p)-1 || out.Time.P50ms > milliseconds(p)+1 || out.Time.Count == 0 {
				t.Errorf("%+v", out.Time)
			}
			if page, err := os.ReadFile(report); err != nil || !strings.Contains(string(page), "Freshness over time") {
				t.Errorf("report: %v", err)
			}
			if left := tt.system.Documents(); len(left) > 0 && tt.system.Fault != freshnesstest.Ghost {
				t.Errorf("left behind: %v", left)
			}
			if kept := invoke(t, nil, "", "eval", "list", "--data", data, "--kind", "freshness"); !strings.Contains(kept.out, "stale_rate@10") {
				t.Errorf("%+v", kept)
			}
		})
	}
}

func TestEvalFreshnessText(t *testing.T) {
	s := &freshnesstest.System{}
	changes, _ := shortStream(t)
	got := invoke(t, nil, "", "eval", "freshness", "--server", serveSystem(t, s), "--data", t.TempDir(), "--stream", changes, "--rate", "500", "--limit", "5", "--run", "mine")
	if got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	for _, want := range []string{"5 changes in", "time to searchable", "deletes, until gone", "the server says", "stale_rate@10", "holds never<=0"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	for _, w := range s.Writes() {
		if !strings.HasPrefix(w.ID, "mine/") {
			t.Errorf("%s is not of the run", w.ID)
		}
	}
}

func TestEvalFreshnessCleanup(t *testing.T) {
	s := &freshnesstest.System{}
	base := serveSystem(t, s)
	mark := map[string]any{evalfresh.FieldRun: "run1"}
	for _, id := range []string{"run1/a.md", "run1/else"} {
		_, _ = s.Put(t.Context(), id, &stream.Document{Text: "words", Metadata: mark})
	}
	_, _ = s.Put(t.Context(), "run1/dddd.md", &stream.Document{Metadata: mark})
	_, _ = s.Put(t.Context(), "run10/a.md", &stream.Document{Text: "words", Metadata: map[string]any{evalfresh.FieldRun: "run10"}})
	changes, _ := shortStream(t)
	got := invoke(t, nil, "", "eval", "freshness", "--server", base, "--cleanup", "run1", "--stream", changes)
	if got.code != exitDone || !strings.Contains(got.out, "run1") || fmt.Sprint(s.Documents()) != "[run10/a.md]" {
		t.Errorf("%+v, left %v", got, s.Documents())
	}
}

func TestEvalFreshnessUsage(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.jsonl")
	if err := os.WriteFile(bad, []byte(`{"seq":1,"op":"touch","key":"a"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	changes, _ := shortStream(t)
	for _, tt := range []struct {
		args string
		want string
	}{
		{"", "needs a --stream"},
		{"x --stream y", "takes no arguments"},
		{"--stream " + filepath.Join(dir, "none"), "can't read"},
		{"--stream " + bad, "bad.jsonl, line 1: touch without \"content\""},
		{"--stream y --rate 0", "--rate and --questions are above 0"},
		{"--stream y --speed fast", "--speed fast: write it like 1000x"},
		{"--stream y --k 0", "--k must be"},
		{"--stream y --run a/b", "--run a/b"},
		{"--observe", "it needs --kafka"},
		{"--observe --stream y --kafka localhost:1", "writes nothing"},
		{"--cleanup a/b", "no name of a run"},
		{"--stream " + changes + " --slo p98<2s", "there is no figure p98"},
		{"--stream " + changes + " --slo p99", "write it like p99<2s"},
		{"--stream " + changes + " --slo p99<soon", "neither a number nor a duration"},
		{"--stream " + changes + " --slo stale_rate@5=0", "there is no figure stale_rate@5"},
	} {
		got := invoke(t, nil, "", append([]string{"eval", "freshness", "--data", dir}, strings.Fields(tt.args)...)...)
		if got.code != exitUsage || !strings.Contains(got.err, tt.want) {
			t.Errorf("%s: %+v", tt.args, got)
		}
	}
	got := invoke(t, nil, "", "eval", "freshness", "--data", dir, "--server", "http://127.0.0.1:1", "--stream", changes)
	if got.code != exitFailed || !strings.Contains(got.err, "no liverag answers at") {
		t.Errorf("%+v", got)
	}
}

func TestParseSLO(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "never<=0 ghost_rate<=0 mixed_version_rate<=0 stale_rate@10<=0",
		"p99<2s, deletes.p95 <= 500ms":     "time_to_searchable.p99<2 deletes.p95<=0.5 never<=0 ghost_rate<=0 mixed_version_rate<=0 stale_rate@10<=0",
		"stale_rate=0,fresh_recall@10=0.9": "stale_rate@10<=0 fresh_recall@10>=0.9 never<=0 ghost_rate<=0 mixed_version_rate<=0",
		"never<3,ghost_rate<=1,mixed_version_rate<=1,stale_rate@10<1,max<1m": "never<3 ghost_rate<=1 mixed_version_rate<=1 stale_rate@10<1 time_to_searchable.max<60",
	} {
		gates, err := parseSLO(text, 10)
		var got []string
		for _, g := range gates {
			got = append(got, g.String())
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

func TestDisagreement(t *testing.T) {
	of := func(seen, server time.Duration) *evalfresh.Figures {
		return &evalfresh.Figures{
			Searchable: evalfresh.Latency{P50: seen, P99: seen, Count: 100}, Write: evalfresh.Latency{P50: 5 * time.Millisecond, P99: 5 * time.Millisecond},
			Server: evalfresh.Measured{P50: server, P99: server, Count: 100},
		}
	}
	for _, tt := range []struct {
		seen, server time.Duration
		agrees       bool
	}{{40 * time.Millisecond, 30 * time.Millisecond, true}, {time.Second, 700 * time.Millisecond, true}, {3 * time.Second, time.Millisecond, false}, {time.Second, 3 * time.Second, false}} {
		if got := disagreement(of(tt.seen, tt.server)); (got == "") != tt.agrees {
			t.Errorf("seen %s, server %s: %q", tt.seen, tt.server, got)
		}
	}
	if got := disagreement(&evalfresh.Figures{Searchable: evalfresh.Latency{P50: time.Hour, Count: 100}}); got != "" {
		t.Errorf("a server that says nothing: %q", got)
	}
}

// TestEvalFreshnessObserve watches a real topic beside the program that indexes it, and leaves nothing on the broker that was not there.
func TestEvalFreshnessObserve(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	p := startProgram(t, t.TempDir(), b.args()...)
	p.put("old", "An old document that is there already.")
	observed := make(chan outcome, 1)
	go func() {
		observed <- invoke(t, nil, "", "eval", "freshness", "--observe", "--kafka", b.address, "--server", p.base, "--data", t.TempDir(), "--duration", "3s", "--patience", "20s", "--json")
	}()
	var got outcome
	for i := 0; got.out == "" && got.err == ""; i++ {
		p.put(fmt.Sprintf("doc%d", i%5), fmt.Sprintf("Document %d was changed for the time %d, to something else.", i%5, i))
		select {
		case got = <-observed:
		case <-time.After(50 * time.Millisecond):
		}
	}
	var out struct {
		Observed struct{ Changes, Watched int }
		Never    float64
		Time     struct{ Count int } `json:"time_to_searchable"`
	}
	if err := json.Unmarshal([]byte(got.out), &out); err != nil || got.code != exitDone {
		t.Fatalf("%v: %+v", err, got)
	}
	if out.Observed.Watched == 0 || out.Time.Count != out.Observed.Watched || out.Never > 0 {
		t.Errorf("%+v", out)
	}
}

// TestEvalFreshnessRealHistory replays a real history with its probes through the program: nothing in its answers is of the past.
func TestEvalFreshnessRealHistory(t *testing.T) {
	shared := os.Getenv("LIVERAG_SHARED")
	if shared == "" {
		t.Skip("set LIVERAG_SHARED to the directory that holds data/streams; LIVERAG_FRESHNESS_CHANGES says how many changes are replayed")
	}
	t.Parallel()
	changes := scaled(t, "LIVERAG_FRESHNESS_CHANGES", 150)
	p := startProgram(t, t.TempDir(), "--embedder", "hash/384")
	dir := filepath.Join(shared, "data", "streams", "docs-stream-a")
	got := invoke(t, nil, "", "eval", "freshness", "--server", p.base, "--data", t.TempDir(), "--stream", filepath.Join(dir, "changes.jsonl.gz"), "--probes", filepath.Join(dir, "probes.jsonl.gz"),
		"--limit", fmt.Sprint(changes), "--slo", "outdated_rate=0,came_back=0,fresh_recall>=0.9", "--json")
	var out struct {
		Changes struct{ Sent, Watched int }
		Answers struct{ Questions int }
	}
	if err := json.Unmarshal([]byte(got.out), &out); err != nil || got.code != exitDone {
		t.Fatalf("%v: %+v", err, got)
	}
	if out.Changes.Sent < changes || out.Changes.Watched < changes/4 || out.Answers.Questions == 0 {
		t.Errorf("%+v", out)
	}
}
