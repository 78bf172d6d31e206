package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// request is one that a fake server got.
type request struct {
	method, path, query string
	contentType         string
	backfill            bool
	body                string
}

// fakeServer answers like liverag, from what a test prepared, and hands over every request.
type fakeServer struct {
	*httptest.Server
	requests chan request
	// answer decides by the request; the default is 404 with a problem.
	answer func(r request) (status int, body string)
}

func newServer(t *testing.T, answer func(r request) (int, string)) *fakeServer {
	t.Helper()
	s := &fakeServer{requests: make(chan request, 1000), answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got := request{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("Content-Type"), r.Header.Get(headerBackfill) != "", string(body)}
		s.requests <- got
		status, text := s.answer(got)
		kind := "application/json"
		if status >= 300 {
			kind = "application/problem+json"
		}
		w.Header().Set("Content-Type", kind)
		if status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "0")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(s.Close)
	return s
}

// next returns the next request; a test that gets none fails.
func (s *fakeServer) next(t *testing.T) request {
	t.Helper()
	select {
	case r := <-s.requests:
		return r
	case <-time.After(20 * time.Second):
		t.Fatal("no request came")
		return request{}
	}
}

// always answers every request alike.
func always(status int, body string) func(request) (int, string) {
	return func(request) (int, string) { return status, body }
}

func equalJSON(t *testing.T, got, want string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal([]byte(got), &a); err != nil {
		t.Fatalf("%s is no JSON: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &b); err != nil {
		t.Fatal(err)
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	if string(x) != string(y) {
		t.Errorf("got  %s\nwant %s", x, y)
	}
}

func TestPut(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "page.html")
	if err := os.WriteFile(page, []byte("<p>hi"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		args  []string
		stdin string
		path  string
		query string
		body  string
	}{
		{"text", []string{"a", "--text", "hello"}, "", "/documents/a", "wait=5s", `{"text":"hello"}`},
		{"an empty text is a text", []string{"a", "--text", "", "--wait", "0"}, "", "/documents/a", "", `{"text":""}`},
		{"standard input", []string{"a", "-", "--wait", "250ms", "--type", "text/markdown"}, "# hi", "/documents/a", "wait=250ms", `{"text":"# hi","content_type":"text/markdown"}`},
		{"standard input, unnamed", []string{"a"}, "x", "/documents/a", "wait=5s", `{"text":"x"}`},
		{"a file", []string{"b", page, "--title", "T", "--url", "http://u"}, "", "/documents/b", "wait=5s", `{"text":"<p>hi","content_type":"text/html","title":"T","url":"http://u"}`},
		{"any id", []string{"kb/a b?#%ü", "--text", "x"}, "", "/documents/kb%2Fa%20b%3F%23%25%C3%BC", "wait=5s", `{"text":"x"}`},
		{"dots", []string{"..", "--text", "x"}, "", "/documents/%2E%2E", "wait=5s", `{"text":"x"}`},
		{"metadata", []string{"a", "--text", "x", "--metadata", "team=billing", "--metadata", "year=2024", "--metadata", "ok=true", "--metadata", `tags=["a","b"]`,
			"--metadata", `zip="01234"`, "--metadata", "eq=a=b", "--metadata", "no=null"}, "", "/documents/a", "wait=5s",
			`{"text":"x","metadata":{"team":"billing","year":2024,"ok":true,"tags":["a","b"],"zip":"01234","eq":"a=b","no":"null"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, always(200, `{"id":"a","token":"tok","searchable":true}`))
			got := invoke(t, nil, tt.stdin, append([]string{"put", "--server", s.URL}, tt.args...)...)
			if got.code != exitDone || !strings.Contains(got.out, "searchable after") || !strings.Contains(got.out, "token tok") {
				t.Errorf("%+v", got)
			}
			r := s.next(t)
			if r.method != "PUT" || r.path != tt.path || r.query != tt.query || r.contentType != "application/json" || r.backfill {
				t.Errorf("%+v", r)
			}
			equalJSON(t, r.body, tt.body)
		})
	}
}

func TestPutAnswers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		body   string
		args   []string
		code   int
		out    string
		err    string
	}{
		{"not yet", 202, `{"id":"a","token":"t","searchable":false}`, nil, exitDone, "kept in the log, but not searchable within", ""},
		{"no wait", 202, `{"id":"a","token":"t"}`, []string{"--wait", "0"}, exitDone, "a  written, in the log after", ""},
		{"JSON", 200, `{"id":"a","token":"t","searchable":true}`, []string{"--json"}, exitDone, `{"id":"a","token":"t","searchable":true,"took":`, ""},
		{"full", 507, `{"code":"log_full","detail":"the log is full"}`, nil, exitFailed, "", "log_full: the log is full\n  nothing was dropped: "},
		{"disk full", 507, `{"code":"disk_full","detail":"the disk is full"}`, nil, exitFailed, "", "disk_full: the disk is full\n  nothing was dropped: make room"},
		{"too large", 413, `{"code":"document_too_large","title":"Document too large"}`, nil, exitFailed, "", "document_too_large: Document too large\n  split the document"},
		{"JSON problem", 400, `{"code":"wrong_type","detail":"d"}`, []string{"--json"}, exitFailed, "", `{"code":"wrong_type","error":"wrong_type: d","hint":""}`},
		{"not liverag", 404, `<html>`, nil, exitFailed, "", "answers 404 Not Found, and not like liverag: is that the right --server?"},
		{"not JSON", 200, `<html>`, nil, exitFailed, "", "does not answer like liverag"},
		{"a detail that drives terminals", 400, `{"code":"x","detail":"\u001b[2J"}`, nil, exitFailed, "", "x:  [2J\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, always(tt.status, tt.body))
			got := invoke(t, nil, "", append([]string{"put", "a", "--text", "x", "--server", s.URL}, tt.args...)...)
			if got.code != tt.code || !strings.Contains(got.out, tt.out) || !strings.Contains(got.err, tt.err) || (tt.code == exitDone) != (got.err == "") {
				t.Errorf("%+v", got)
			}
		})
	}
	for name, args := range map[string][]string{
		"two texts": {"a", "file", "--text", "x"}, "three arguments": {"a", "b", "c"}, "control character": {"a\nb", "--text", "x"},
		"not UTF-8": {"a", "--text", "\xff"}, "type": {"a", "--text", "x", "--type", "application/pdf"}, "metadata": {"a", "--text", "x", "--metadata", "team"},
		"array of numbers": {"a", "--text", "x", "--metadata", "n=[1]"},
	} {
		if got := invoke(t, nil, "", append([]string{"put"}, args...)...); got.code != exitUsage {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := invoke(t, nil, "", "put", "a", filepath.Join(t.TempDir(), "none")); got.code != exitFailed || !strings.Contains(got.err, "read the text") {
		t.Errorf("%+v", got)
	}
}

func TestRm(t *testing.T) {
	s := newServer(t, always(200, `{"id":"a","token":"t","searchable":true}`))
	got := invoke(t, nil, "", "rm", "--server", s.URL, "a", "b/c", "--wait", "1s")
	if got.code != exitDone || strings.Count(got.out, "gone from answers after") != 2 {
		t.Errorf("%+v", got)
	}
	for _, path := range []string{"/documents/a", "/documents/b%2Fc"} {
		if r := s.next(t); r.method != "DELETE" || r.path != path || r.query != "wait=1s" || r.body != "" {
			t.Errorf("%+v", r)
		}
	}
}

const answerJSON = `{"hits":[{"id":"kb/refunds.md#3f","document":"kb/refunds.md","version":7,"text":"Refunds\n\ntake five days.","start":0,"end":24,
 "score":0.0312,"title":"Refunds","url":"https://x/r","updated_at":"2026-01-02T03:04:05Z"},
 {"id":"b#1","document":"b","text":"` + "`esc` \\u001b[2J" + `","score":0.01}],
 "mode":"hybrid","generation":{"name":"markdown200_static_1","alias":"live"},
 "freshness":{"as_of":"2026-01-02T03:04:05Z","lag":"38ms","pending":2,"satisfied":true},"took":{"total":"4.1ms"}}`

func TestQuery(t *testing.T) {
	for _, tt := range []struct {
		args []string
		body string
	}{
		{[]string{"how", "long?"}, `{"query":"how long?","k":5}`},
		{[]string{"q", "-k", "3", "--mode", "dense", "--filter", `{"team":"billing"}`, "--generation", "trial", "--explain"},
			`{"query":"q","k":3,"mode":"dense","filter":{"team":"billing"},"generation":"trial","explain":true}`},
		{[]string{"q", "--after", "t1", "--after", "t2", "--max-staleness", "1s", "--wait", "500ms", "--strict"},
			`{"query":"q","k":5,"after":["t1","t2"],"max_staleness":"1s","wait":"500ms","strict":true}`},
	} {
		s := newServer(t, always(200, answerJSON))
		got := invoke(t, nil, "", append([]string{"query", "--server", s.URL}, tt.args...)...)
		r := s.next(t)
		if got.code != exitDone || r.method != "POST" || r.path != "/retrieve" {
			t.Errorf("%+v, %+v", got, r)
		}
		equalJSON(t, r.body, tt.body)
	}
	s := newServer(t, always(200, answerJSON))
	got := invoke(t, nil, "", "query", "q", "--after", "t", "--server", s.URL).out
	for _, want := range []string{" 1  Refunds  0.0312\n    Refunds take five days.\n    https://x/r  kb/refunds.md#3f\n", " 2  b  0.01\n    `esc` [2J\n    b#1\n",
		"as fresh as asked · holds every change until ", " (38ms ago) · 2 changes on the way · hybrid search in markdown200_static_1 (live) · took 4.1ms\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	equalJSON(t, invoke(t, nil, "", "query", "q", "--json", "--server", s.URL).out, answerJSON)
	degraded := newServer(t, always(200, strings.Replace(answerJSON, `"mode":"hybrid"`, `"mode":"lexical","degraded":{"code":"embedder_unavailable","detail":"it is away; words alone answered"}`, 1)))
	if got := invoke(t, nil, "", "query", "q", "--server", degraded.URL).out; !strings.Contains(got, "    b#1\n\nit is away; words alone answered\nholds every change") || !strings.Contains(got, "lexical search in") {
		t.Errorf("that words alone answered is not said in\n%s", got)
	}
	empty := newServer(t, always(200, `{"hits":[],"mode":"hybrid","freshness":{}}`))
	if got := invoke(t, nil, "", "query", "q", "--server", empty.URL); got.code != exitDone || !strings.Contains(got.out, "nothing found") {
		t.Errorf("%+v", got)
	}
	stale := newServer(t, always(503, `{"code":"stale","detail":"not yet"}`))
	if got := invoke(t, nil, "", "query", "q", "--after", "t", "--strict", "--server", stale.URL); got.code != exitFailed || !strings.Contains(got.err, "give it more time with --wait") {
		t.Errorf("%+v", got)
	}
	for _, args := range [][]string{{"query", " "}, {"query", "q", "-k", "201"}, {"query", "q", "--filter", "{"}} {
		if got := invoke(t, nil, "", args...); got.code != exitUsage {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestFindServer(t *testing.T) {
	t.Chdir(t.TempDir())
	s := newServer(t, always(200, `[]`))
	if err := os.MkdirAll("data", 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(url string) {
		if err := os.WriteFile(filepath.Join("data", urlFile), []byte(url+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The one on the data directory, when it is alive.
	write(s.URL)
	if got := invoke(t, nil, "", "generations", "--data", "data"); got.code != exitDone {
		t.Errorf("%+v", got)
	}
	if a, b := s.next(t), s.next(t); a.path != "/healthz" || b.path != "/generations" {
		t.Errorf("%+v %+v", a, b)
	}
	// A dead one is passed over, for the listen address.
	address := strings.TrimPrefix(s.URL, "http://")
	write("http://127.0.0.1:1")
	if got := invoke(t, []string{"LIVERAG_LISTEN=" + address}, "", "generations", "--data", "data"); got.code != exitDone {
		t.Errorf("%+v", got)
	}
	s.next(t)
	// An address on the command line goes before it, --server before everything.
	if got := invoke(t, nil, "", "generations", "--data", "data", "--listen", "127.0.0.1:1"); !strings.Contains(got.err, "no liverag answers at http://127.0.0.1:1:") {
		t.Errorf("%+v", got)
	}
	write(s.URL)
	if got := invoke(t, nil, "", "generations", "--data", "data", "--server", "http://127.0.0.1:2/"); !strings.Contains(got.err, "no liverag answers at http://127.0.0.1:2:") {
		t.Errorf("%+v", got)
	}
}

const trialJSON = `{"name":"trial","alias":[],"state":"%s","recipe":{"chunker":{"strategy":"recursive","tokens":120,"overlap":10,"tokenizer":"cl100k_base"},
 "embedder":{"model":"hash/384","long":"split"}},"progress":{"changes":5,"of":10,"percent":50,"eta":"3s","documents":4,"chunks":9,"tokens_embedded":75,"tokens_reused":25}}`

func trial(state string) string { return strings.Replace(trialJSON, "%s", state, 1) }

func TestReplay(t *testing.T) {
	t.Parallel()
	polls := 0
	s := newServer(t, func(r request) (int, string) {
		if r.method == "POST" {
			return 202, trial("building")
		}
		if polls++; polls < 2 {
			return 200, trial("building")
		}
		return 200, trial("ready")
	})
	got := invoke(t, []string{"LIVERAG_OVERLAP=10"}, "", "replay", "--server", s.URL, "--chunker", "recursive", "--tokens", "120", "--embedder", "hash/384", "--name", "trial", "--until-caught-up")
	if got.code != exitDone || !strings.Contains(got.out, "replaying the log into trial (recursive 120 overlap 10, hash/384)") ||
		!strings.Contains(got.out, "caught up after") || !strings.Contains(got.out, "liverag promote trial") {
		t.Errorf("%+v", got)
	}
	r := s.next(t)
	if r.method != "POST" || r.path != "/generations" {
		t.Errorf("%+v", r)
	}
	equalJSON(t, r.body, `{"name":"trial","recipe":{"chunker":{"strategy":"recursive","tokens":120,"overlap":10},"embedder":{"model":"hash/384"}}}`)
	if a, b := s.next(t), s.next(t); a.path != "/generations/trial" || b.path != "/generations/trial" || polls != 2 {
		t.Errorf("%+v %+v", a, b)
	}

	// Without flags the recipe is the server's own, and nobody watches a pipe.
	got = invoke(t, nil, "", "replay", "--server", s.URL)
	equalJSON(t, s.next(t).body, `{"recipe":{"chunker":{},"embedder":{}}}`)
	if got.code != exitDone || polls != 2 {
		t.Errorf("%+v", got)
	}

	failed := newServer(t, always(202, strings.TrimSuffix(trial("failed"), "}")+`,"trouble":{"detail":"no such model"}}`))
	if got := invoke(t, nil, "", "replay", "--server", failed.URL, "--until-caught-up"); got.code != exitFailed || !strings.Contains(got.err, "the replay into trial is failed: no such model\n  `liverag drop trial`") {
		t.Errorf("%+v", got)
	}
	if got := invoke(t, nil, "", "replay", "--name", "Trial"); got.code != exitUsage {
		t.Errorf("%+v", got)
	}
}

func TestGenerations(t *testing.T) {
	live := strings.Replace(strings.Replace(trial("ready"), "trial", "main_1", 1), `"alias":[]`, `"alias":["live"]`, 1)
	s := newServer(t, always(200, `[`+live+`,`+trial("building")+`]`))
	got := invoke(t, nil, "", "generations", "--server", s.URL)
	want := `NAME    ALIAS  STATE                   RECIPE                              DOCUMENTS  CHUNKS  TOKENS EMBEDDED  REUSED
main_1  live   ready                   recursive 120 overlap 10, hash/384  4          9       75               25 %
trial          building 50 %, 3s to go  recursive 120 overlap 10, hash/384  4          9       75               25 %
`
	if got.code != exitDone || strings.Join(strings.Fields(got.out), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("%+v", got)
	}
	lines := strings.Split(got.out, "\n")
	if at := strings.Index(lines[0], "RECIPE"); strings.Index(lines[1], "recursive") != at || strings.Index(lines[2], "recursive") != at {
		t.Errorf("the columns are not aligned:\n%s", got.out)
	}
}

func TestPromoteRollbackDrop(t *testing.T) {
	for _, tt := range []struct {
		args         []string
		status       int
		answer       string
		method, path string
		code         int
		shows        string
	}{
		{[]string{"promote", "trial"}, 200, trial("ready"), "POST", "/generations/trial/promote", exitDone, "trial answers now (recursive 120 overlap 10, hash/384), after "},
		{[]string{"promote", "trial", "--json"}, 200, trial("ready"), "POST", "/generations/trial/promote", exitDone, `"state":"ready"`},
		{[]string{"promote", "trial"}, 409, `{"code":"not_caught_up","detail":"d"}`, "POST", "/generations/trial/promote", exitFailed, "not_caught_up: d\n  `liverag generations`"},
		{[]string{"rollback"}, 200, trial("ready"), "POST", "/rollback", exitDone, "trial answers now"},
		{[]string{"drop", "trial"}, 204, "", "DELETE", "/generations/trial", exitDone, "trial is dropped\n"},
		{[]string{"drop", "trial", "--json"}, 204, "", "DELETE", "/generations/trial", exitDone, `{"dropped":true,"name":"trial"}`},
		{[]string{"drop", "trial"}, 404, `{"code":"generation_unknown","detail":"d"}`, "DELETE", "/generations/trial", exitFailed, "lists the names"},
	} {
		s := newServer(t, always(tt.status, tt.answer))
		got := invoke(t, nil, "", append(tt.args, "--server", s.URL)...)
		if r := s.next(t); r.method != tt.method || r.path != tt.path {
			t.Errorf("%v: %+v", tt.args, r)
		}
		if got.code != tt.code || !strings.Contains(got.out+got.err, tt.shows) {
			t.Errorf("%v: %+v", tt.args, got)
		}
	}
	for _, args := range [][]string{{"promote"}, {"promote", "a", "b"}, {"promote", "../x"}, {"drop", ""}, {"rollback", "x"}, {"generations", "x"}} {
		if got := invoke(t, nil, "", args...); got.code != exitUsage {
			t.Errorf("%v: %+v", args, got)
		}
	}
}
