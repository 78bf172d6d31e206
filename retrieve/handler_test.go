package retrieve

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/httpd"
	"github.com/liverag/liverag/internal/httpd/httpdtest"
	"github.com/liverag/liverag/vectordb"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func ask(e *echo.Echo, method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w
}

var durations = regexp.MustCompile(`"(total|embed|search)":"[^"]*"`)

// golden compares an answer with its file, without the times that differ from run to run.
func golden(t *testing.T, name string, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Code != 200 {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	var v any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	got, err := json.MarshalIndent(json.RawMessage(durations.ReplaceAll(w.Body.Bytes(), []byte(`"$1":"1ms"`))), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := "testdata/" + name + ".json"
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAnswers(t *testing.T) {
	s, n := newTiny()
	e := serve(t, s, n)
	for _, tt := range []struct{ name, method, target, body string }{
		{"hybrid", "POST", "/retrieve", `{"query":"how are refunds paid?","k":2}`},
		{"hybrid", "GET", "/retrieve?q=how+are+refunds+paid%3F&k=2", ""},
		{"hybrid", "POST", "/retrieve", `{"query":"how are refunds paid?","k":2,"mode":"hybrid","generation":"live","filter":null,"after":null,"max_staleness":null,"wait":null,"strict":null,"explain":null}`},
		{"explain", "POST", "/retrieve", `{"query":"refunds","explain":true,"filter":{"team":"billing"}}`},
		{"explain", "GET", "/retrieve?q=refunds&explain=true&filter=%7B%22team%22%3A%22billing%22%7D", ""},
		{"dense", "POST", "/retrieve", `{"query":"refunds","mode":"dense","k":1}`},
		{"lexical", "POST", "/retrieve", `{"query":"refunds","mode":"lexical","explain":true}`},
		{"generation", "POST", "/retrieve", `{"query":"refunds","generation":"two"}`},
		{"after", "POST", "/retrieve", `{"query":"refunds","generation":"two","after":["now","then"]}`},
		{"none", "POST", "/retrieve", `{"query":"refunds","filter":{"team":"nobody"}}`},
		{"document", "GET", "/documents/kb/refunds.md", ""},
		{"document", "GET", "/documents/kb%2Frefunds.md", ""},
		{"document", "GET", "/documents/kb%2frefunds%2emd", ""},
		{"odd", "GET", "/documents/odd%20id/%C3%A4%252F", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := ask(e, tt.method, tt.target, tt.body)
			if strings.Contains(w.Body.String(), `"wait"`) != (tt.name == "after") {
				t.Errorf("took.wait is for answers that waited: %s", w.Body)
			}
			b := regexp.MustCompile(`"wait":"[^"]*",`).ReplaceAllString(w.Body.String(), "")
			w.Body.Reset()
			w.Body.WriteString(b)
			golden(t, tt.name, w)
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type is %s", got)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	s, n := newTiny()
	e := serve(t, s, n)
	get := func(pairs ...string) string {
		v := url.Values{"q": {"refunds"}}
		for i := 0; i < len(pairs); i += 2 {
			v.Add(pairs[i], pairs[i+1])
		}
		return "/retrieve?" + v.Encode()
	}
	const post = "/retrieve"
	for _, tt := range []struct {
		name, method, target, body string
		status                     int
		code, detail               string
	}{
		{"no JSON", "POST", post, `query=refunds`, 400, "invalid_json", "object"},
		{"no object", "POST", post, `["refunds"]`, 400, "invalid_json", "object"},
		{"empty body", "POST", post, ``, 400, "invalid_json", "object"},
		{"cut short", "POST", post, `{"query":"refunds"`, 400, "invalid_json", "ends too early"},
		{"cut in value", "POST", post, `{"query":"refu`, 400, "invalid_json", "ends too early"},
		{"two objects", "POST", post, `{"query":"refunds"}{"k":1}`, 400, "invalid_json", "follows"},
		{"junk after", "POST", post, `{"query":"refunds"} x`, 400, "invalid_json", "follows"},
		{"bracket after", "POST", post, `{"query":"refunds"}]`, 400, "invalid_json", "follows"},
		{"twice", "POST", post, `{"query":"refunds","query":"x"}`, 400, "invalid_json", "query: the field is there twice"},
		{"not UTF-8", "POST", post, "{\"query\":\"re\xfffunds\"}", 400, "invalid_utf8", "UTF-8"},
		{"no query", "POST", post, `{"k":3}`, 400, "query_empty", "query"},
		{"null query", "POST", post, `{"query":null}`, 400, "query_empty", "query"},
		{"blank query", "POST", post, `{"query":" \n\t\u00a0"}`, 400, "query_empty", "query"},
		{"query too large", "POST", post, `{"query":"` + strings.Repeat("a", MaxQueryBytes+1) + `"}`, 400, "query_too_large", "32768"},
		{"body too large", "POST", post, `{"query":"` + strings.Repeat("a", 2<<20) + `"}`, 413, "body_too_large", "1048576"},
		{"query a number", "POST", post, `{"query":7}`, 400, "wrong_type", "query: it must be a string"},
		{"k a string", "POST", post, `{"query":"x","k":"8"}`, 400, "wrong_type", "k: "},
		{"k a fraction", "POST", post, `{"query":"x","k":2.5}`, 400, "wrong_type", "k: "},
		{"k zero", "POST", post, `{"query":"x","k":0}`, 400, "k_out_of_range", "1 to 200"},
		{"k negative", "POST", post, `{"query":"x","k":-1}`, 400, "k_out_of_range", "1 to 200"},
		{"k large", "POST", post, `{"query":"x","k":201}`, 400, "k_out_of_range", "1 to 200"},
		{"k huge", "POST", post, `{"query":"x","k":99999999999999999999}`, 400, "k_out_of_range", "1 to 200"},
		{"mode a bool", "POST", post, `{"query":"x","mode":true}`, 400, "wrong_type", "mode: "},
		{"mode unknown", "POST", post, `{"query":"x","mode":"sparse"}`, 400, "mode_unknown", `"sparse"`},
		{"mode empty", "POST", post, `{"query":"x","mode":""}`, 400, "mode_unknown", "mode: "},
		{"filter no object", "POST", post, `{"query":"x","filter":"team"}`, 400, "filter_invalid", "filter: "},
		{"filter operator", "POST", post, `{"query":"x","filter":{"year":{"$near":3}}}`, 400, "filter_invalid", "$near"},
		{"generation a number", "POST", post, `{"query":"x","generation":1}`, 400, "wrong_type", "generation: "},
		{"generation unknown", "POST", post, `{"query":"x","generation":"three"}`, 404, "generation_unknown", `"three"`},
		{"after a number", "POST", post, `{"query":"x","after":1}`, 400, "wrong_type", "after: "},
		{"after of numbers", "POST", post, `{"query":"x","after":["now",1]}`, 400, "wrong_type", "after: "},
		{"after unknown", "POST", post, `{"query":"x","after":"elsewhere"}`, 409, "token_unknown", "after: "},
		{"after too many", "POST", post, `{"query":"x","after":[` + strings.Repeat(`"now",`, MaxTokens) + `"now"]}`, 400, "after_too_large", "1000"},
		{"wait a number", "POST", post, `{"query":"x","wait":2}`, 400, "wrong_type", "wait: "},
		{"wait no duration", "POST", post, `{"query":"x","wait":"2"}`, 400, "duration_invalid", "wait: "},
		{"wait negative", "POST", post, `{"query":"x","wait":"-2s"}`, 400, "duration_invalid", "wait: "},
		{"wait too long", "POST", post, `{"query":"x","wait":"2h"}`, 400, "wait_out_of_range", "wait: "},
		{"staleness", "POST", post, `{"query":"x","max_staleness":"soon"}`, 400, "duration_invalid", "max_staleness: "},
		{"strict a string", "POST", post, `{"query":"x","strict":"yes"}`, 400, "wrong_type", "strict: "},
		{"explain a number", "POST", post, `{"query":"x","explain":1}`, 400, "wrong_type", "explain: "},
		{"unknown field", "POST", post, `{"query":"x","top_k":3}`, 400, "unsupported", "top_k: "},
		{"other case", "POST", post, `{"Query":"x"}`, 400, "unsupported", "Query: "},
		{"not built: min_score", "POST", post, `{"query":"x","min_score":0.5}`, 400, "unsupported", "min_score: "},
		{"not built: max_tokens", "POST", post, `{"query":"x","max_tokens":5}`, 400, "unsupported", "max_tokens: "},
		{"not built: expand", "POST", post, `{"query":"x","expand":1}`, 400, "unsupported", "expand: "},
		{"not built: diversity", "POST", post, `{"query":"x","diversity":0.5}`, 400, "unsupported", "diversity: "},
		{"not built: group", "POST", post, `{"query":"x","group":true}`, 400, "unsupported", "group: "},
		{"not built: format", "POST", post, `{"query":"x","format":"hits"}`, 400, "unsupported", "format: "},
		{"stale, strict", "POST", post, `{"query":"x","after":"later","wait":"1ms","strict":true}`, 503, "stale", "1ms"},

		{"GET no query", "GET", "/retrieve", "", 400, "query_empty", "query"},
		{"GET query", "GET", "/retrieve?query=x", "", 400, "unsupported", "called q"},
		{"GET q twice", "GET", get("q", "x"), "", 400, "wrong_type", "q: "},
		{"GET q not UTF-8", "GET", "/retrieve?q=%ff", "", 400, "invalid_utf8", "q: "},
		{"GET bad encoding", "GET", "/retrieve?q=%zz", "", 400, "invalid_url", ""},
		{"GET k", "GET", get("k", "many"), "", 400, "wrong_type", "k: "},
		{"GET k zero", "GET", get("k", "0"), "", 400, "k_out_of_range", "k: "},
		{"GET k huge", "GET", get("k", "99999999999999999999"), "", 400, "k_out_of_range", "k: "},
		{"GET mode", "GET", get("mode", "x"), "", 400, "mode_unknown", "mode: "},
		{"GET mode empty", "GET", get("mode", ""), "", 400, "mode_unknown", "mode: "},
		{"GET filter", "GET", get("filter", "{"), "", 400, "filter_invalid", "filter: "},
		{"GET generation", "GET", get("generation", "three"), "", 404, "generation_unknown", "three"},
		{"GET after", "GET", get("after", "now", "after", "elsewhere"), "", 409, "token_unknown", "after: "},
		{"GET wait", "GET", get("wait", "x"), "", 400, "duration_invalid", "wait: "},
		{"GET strict", "GET", get("strict", "maybe"), "", 400, "wrong_type", "strict: "},
		{"GET unknown", "GET", get("group", "1"), "", 400, "unsupported", "group: "},

		{"document absent", "GET", "/documents/kb/none.md", "", 404, "not_found", ""},
		{"document deleted", "GET", "/documents/kb/gone.md", "", 404, "not_found", ""},
		{"document with acl", "GET", "/documents/kb/private.md", "", 404, "not_found", ""},
		{"document closed later", "GET", "/documents/kb/closed.md", "", 404, "not_found", ""},
		{"document of a tenant", "GET", "/documents/acme%1Fkb/refunds.md", "", 404, "not_found", ""},
		{"document without id", "GET", "/documents/", "", 404, "not_found", ""},
		{"document not UTF-8", "GET", "/documents/%ff", "", 404, "not_found", ""},
		{"document decoded once", "GET", "/documents/kb%252Frefunds.md", "", 404, "not_found", ""},
		{"wrong method", "PUT", post, "", 405, "method_not_allowed", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := ask(e, tt.method, tt.target, tt.body)
			refused(t, w, tt.status, tt.code, tt.detail)
		})
	}
}

func refused(t *testing.T, w *httptest.ResponseRecorder, status int, code, detail string) {
	t.Helper()
	var p struct {
		Status       int
		Code, Detail string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if w.Code != status || p.Status != status || p.Code != code || !strings.Contains(p.Detail, detail) {
		t.Errorf("got %d %s: %s; want %d %s with %q", w.Code, p.Code, p.Detail, status, code, detail)
	}
}

func TestOneHitWithoutLeak(t *testing.T) {
	s, n := newTiny()
	e := serve(t, s, n)
	for _, mode := range []string{"hybrid", "dense", "lexical"} {
		w := ask(e, "POST", "/retrieve", `{"query":"refunds","k":200,"mode":"`+mode+`"}`)
		for _, secret := range []string{"Acme", "board", "once", "gone"} {
			if strings.Contains(w.Body.String(), secret) {
				t.Errorf("%s: %s was returned: %s", mode, secret, w.Body)
			}
		}
	}
}

type answer struct {
	Hits       []struct{ Document string }
	Mode       string
	Generation struct{ Name, Alias string }
	Freshness  struct{ Satisfied bool }
}

func decodeAnswer(t *testing.T, w *httptest.ResponseRecorder) (a answer) {
	t.Helper()
	if w.Code != 200 {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestWait(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		satisfied  bool
		waited     time.Duration
	}{
		{"nothing asked", `{"query":"refunds"}`, true, 0},
		{"searchable already", `{"query":"refunds","after":["now","then"]}`, true, 0},
		{"default wait", `{"query":"refunds","after":"later"}`, false, DefaultWait},
		{"one of several", `{"query":"refunds","after":["now","later"],"wait":"5s"}`, false, 5 * time.Second},
		{"only looks", `{"query":"refunds","after":"later","wait":"0s"}`, false, 0},
		{"fresh enough", `{"query":"refunds","max_staleness":"100h"}`, true, 0},
		{"too stale", `{"query":"refunds","max_staleness":"0s","wait":"300ms"}`, false, 300 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, n := newTiny()
				n.freshness.AsOf = time.Now().Add(-time.Second)
				e := serve(t, s, n)
				began := time.Now()
				a := decodeAnswer(t, ask(e, "POST", "/retrieve", tt.body))
				if a.Freshness.Satisfied != tt.satisfied || time.Since(began) != tt.waited || len(a.Hits) == 0 {
					t.Errorf("satisfied %v after %s with %d hits, want %v after %s", a.Freshness.Satisfied, time.Since(began), len(a.Hits), tt.satisfied, tt.waited)
				}
			})
		})
	}
}

func TestModeThatTheStoreLacks(t *testing.T) {
	s, n := newTiny()
	s.noLexical = true
	e := serve(t, s, n)
	if a := decodeAnswer(t, ask(e, "POST", "/retrieve", `{"query":"refunds","explain":true}`)); a.Mode != "dense" || len(a.Hits) == 0 {
		t.Errorf("got %+v", a)
	}
	refused(t, ask(e, "POST", "/retrieve", `{"query":"refunds","mode":"lexical"}`), 400, "mode_unsupported", "mode")
}

// A promote in mid-query shows the one or the other: if the generation that the alias named is dropped before the search, the alias is resolved again.
func TestDroppedInMidQuery(t *testing.T) {
	for _, path := range []string{"/retrieve?q=refunds", "/documents/kb/refunds.md"} {
		s, n := newTiny()
		e := serve(t, s, n)
		var once sync.Once
		n.resolved = func() {
			once.Do(func() {
				n.live = "two"
				delete(s.generations, "one")
			})
		}
		if w := ask(e, "GET", path, ""); w.Code != 200 || !strings.Contains(w.Body.String(), "take a week") {
			t.Errorf("%s: got %d %s", path, w.Code, w.Body)
		}
	}

	s, n := newTiny()
	e := serve(t, s, n)
	calls := 0
	n.resolved = func() { calls++; delete(s.generations, "one") }
	refused(t, ask(e, "GET", "/retrieve?q=refunds&generation=one", ""), 404, "generation_unknown", "one")
	refused(t, ask(e, "GET", "/retrieve?q=refunds", ""), 503, "not_ready", "readyz")
	refused(t, ask(e, "GET", "/documents/kb/refunds.md", ""), 503, "not_ready", "readyz")
	if calls != 5 {
		t.Errorf("resolved %d times, want once by its own name and twice each by alias", calls)
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		embed  error
		search error
		live   string
		status int
		code   string
	}{
		{"model away", &embedder.Error{Op: "openai", Temporary: true, RetryAfter: 3 * time.Second, Input: -1, Err: errPlanted}, nil, "one", 503, "embedder_unavailable"},
		{"model refuses", &embedder.Error{Op: "openai", Input: 0, Err: errPlanted}, nil, "one", 400, "query_rejected"},
		{"model broken", &embedder.Error{Op: "openai", Input: -1, Err: errPlanted}, nil, "one", 502, "embedder_failed"},
		{"model refuses us", &embedder.Error{Op: "openai", Account: true, Input: -1, Err: errPlanted}, nil, "one", 502, "embedder_failed"},
		{"model unknown", errPlanted, nil, "one", 500, "internal"},
		{"store broken", nil, errPlanted, "one", 500, "internal"},
		{"store closed", nil, vectordb.ErrClosed, "one", 503, "not_ready"},
		{"filter unsupported", nil, vectordb.ErrUnsupported, "one", 400, "unsupported"},
		{"no generation yet", nil, nil, "", 503, "not_ready"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, n := newTiny()
			n.live, n.embedder = tt.live, words{tt.embed}
			s.fail = func(string) error { return tt.search }
			w := ask(serve(t, s, n), "POST", "/retrieve", `{"query":"refunds","mode":"hybrid"}`)
			refused(t, w, tt.status, tt.code, "")
			if strings.Contains(w.Body.String(), errPlanted.Error()) {
				t.Errorf("the cause leaked: %s", w.Body)
			}
			if (w.Header().Get("Retry-After") != "") != (tt.status == 503) {
				t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
			}
		})
	}
}

// A query whose words the model does not know has the zero vector, which is near nothing.
func TestZeroVector(t *testing.T) {
	s, n := newTiny()
	s.generations["one"][0].Text = "Refunds: 42 days."
	e := serve(t, s, n)
	if a := decodeAnswer(t, ask(e, "POST", "/retrieve", `{"query":"42"}`)); len(a.Hits) != 1 {
		t.Errorf("hybrid: got %+v, want the lexical hit", a)
	}
	if a := decodeAnswer(t, ask(e, "POST", "/retrieve", `{"query":"42","mode":"dense","explain":true}`)); len(a.Hits) != 0 || a.Hits == nil {
		t.Errorf("dense: got %+v, want an empty list", a)
	}
}

func TestConcurrent(t *testing.T) {
	s, n := newTiny()
	e := serve(t, s, n)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				w := ask(e, "POST", "/retrieve", `{"query":"refunds","explain":true}`)
				if w.Code != 200 || !json.Valid(w.Body.Bytes()) {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				if i == 0 {
					n.mu.Lock()
					if n.live == "one" {
						n.live = "two"
					} else {
						n.live = "one"
					}
					n.mu.Unlock()
				}
				a := decodeAnswer(t, w)
				if (a.Generation.Name == "two") != (len(a.Hits) == 1) {
					t.Errorf("a mixture: %s", w.Body)
				}
			}
		})
	}
	wg.Wait()
}

// The generation's own fusion goes before the server's.
func TestFusionOfTheGeneration(t *testing.T) {
	s, n := newTiny()
	if w := ask(serve(t, s, n), "GET", "/retrieve?q=refunds&explain=1", ""); !strings.Contains(w.Body.String(), `"fusion":"`+DefaultFusion.Name()+`"`) {
		t.Errorf("got %s", w.Body)
	}
	n.fusion = RRF{RRFConstant, 1, 1}
	if w := ask(serve(t, s, n), "GET", "/retrieve?q=refunds&explain=1", ""); !strings.Contains(w.Body.String(), `"fusion":"rrf(60,1,1)"`) {
		t.Errorf("got %s", w.Body)
	}
}

// A document whose newest change can't be indexed says so, and what is served of it.
func TestDocumentWithADeadLetter(t *testing.T) {
	s, n := newTiny()
	asked := ""
	r := New(Config{Store: s, Resolver: n, Follower: n, Rejected: func(_ context.Context, generation, key string, holds int64) *Pending {
		asked = fmt.Sprint(generation, " ", key, " ", holds)
		if key != "kb/refunds.md" {
			return nil
		}
		return &Pending{Version: holds + 3, Code: "input_too_long", Detail: "chunk 2 is \"long\"", DeadLetter: "1-17"}
	}})
	e := echo.New()
	r.Routes(e)
	spec := httpdtest.Load(t, httpd.OpenAPI())
	w := spec.Ask(t, e, httptest.NewRequest("GET", "/documents/kb/refunds.md", nil), "/documents/{id}")
	var got struct {
		Version    int64
		Generation string
		Pending    map[string]any
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if want := map[string]any{"version": float64(got.Version + 3), "code": "input_too_long", "detail": "chunk 2 is \"long\"", "dead_letter": "1-17"}; !maps.Equal(got.Pending, want) {
		t.Errorf("pending %v, want %v", got.Pending, want)
	}
	if want := fmt.Sprint(got.Generation, " kb/refunds.md ", got.Version); asked != want {
		t.Errorf("asked for %s, want %s", asked, want)
	}
	if w := spec.Ask(t, e, httptest.NewRequest("GET", "/documents/odd%20id/%C3%A4%252F", nil), "/documents/{id}"); strings.Contains(w.Body.String(), "pending") {
		t.Errorf("got %s", w.Body)
	}
}

func TestMetrics(t *testing.T) {
	s, n := newTiny()
	registry := prometheus.NewRegistry()
	r := New(Config{Store: s, Resolver: n, Follower: n, Metrics: registry})
	if _, err := r.Retrieve(t.Context(), NewRequest("refunds")); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != 1 || families[0].GetName() != "liverag_retrieve_seconds" || families[0].GetMetric()[0].GetHistogram().GetSampleCount() != 1 {
		t.Errorf("got %v", families)
	}
}

func TestCallerLeft(t *testing.T) {
	s, n := newTiny()
	e := serve(t, s, n)
	for _, body := range []string{`{"query":"refunds"}`, `{"query":"refunds","after":"later"}`} {
		r := httptest.NewRequest("POST", "/retrieve", strings.NewReader(body))
		ctx, cancel := contextCanceled(t)
		defer cancel()
		w := httptest.NewRecorder()
		e.ServeHTTP(w, r.WithContext(ctx))
		refused(t, w, 499, "canceled", "")
	}
}

type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, errors.New("connection reset") }
func (brokenBody) Close() error             { return nil }

func TestBodyIncomplete(t *testing.T) {
	s, n := newTiny()
	r := httptest.NewRequest("POST", "/retrieve", nil)
	r.Body = brokenBody{}
	w := httptest.NewRecorder()
	serve(t, s, n).ServeHTTP(w, r)
	refused(t, w, http.StatusBadRequest, "body_incomplete", "")
}
