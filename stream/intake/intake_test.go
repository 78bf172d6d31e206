package intake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/stream"
)

// log is a Sink in memory with 4 partitions. It is also the Waiter.
type log struct {
	mu      sync.Mutex
	changes []stream.Change
	batches []int
	ends    [4]int64
	// fail may refuse a batch; searchable says what can be found at once.
	fail       func(ctx context.Context, changes []stream.Change) error
	searchable func(stream.Position) bool
	waitErr    error
}

func (l *log) Append(ctx context.Context, changes ...stream.Change) (stream.Receipt, error) {
	if l.fail != nil {
		if err := l.fail(ctx, changes); err != nil {
			return stream.Receipt{}, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	receipt := stream.Receipt{Identity: "log-1"}
	for _, c := range changes {
		partition := int32(len(c.ID) % len(l.ends))
		receipt.Positions = append(receipt.Positions, stream.Position{Partition: partition, Offset: l.ends[partition]})
		l.ends[partition]++
		l.changes = append(l.changes, c)
	}
	l.batches = append(l.batches, len(changes))
	return receipt, nil
}

func (l *log) WaitSearchable(ctx context.Context, positions []stream.Position) error {
	if l.waitErr != nil {
		return l.waitErr
	}
	if l.searchable != nil && !slices.ContainsFunc(positions, func(p stream.Position) bool { return !l.searchable(p) }) {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

const maxBytes = 1000

func serve(t testing.TB, l *log) *echo.Echo {
	t.Helper()
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		p := problem.From(err)
		if p.Code == "internal" && !errors.Is(err, errPlanted) {
			t.Errorf("internal error: %v", err)
		}
		if err := p.Write(c.Response()); err != nil {
			t.Error(err)
		}
	}
	New(Config{Sink: l, Waiter: l, MaxBytes: maxBytes}).Routes(e)
	return e
}

var errPlanted = errors.New("planted")

func send(e *echo.Echo, method, target string, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	e.ServeHTTP(w, r)
	return w
}

func TestChanges(t *testing.T) {
	yes := func(stream.Position) bool { return true }
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, method, target, body string
		headers                    []string
		searchable                 func(stream.Position) bool
		want                       stream.Change
		status                     int
		answer                     string // a part of it
	}{
		{"put", "PUT", "/documents/kb/a.md", `{"text":"Hello","title":"T","updated_at":"2026-11-21T11:00:00+01:00","metadata":{"year":2026}}`, nil, nil,
			stream.Change{Kind: stream.Upsert, ID: "kb/a.md", Document: &stream.Document{Text: "Hello", Title: "T", UpdatedAt: now, Metadata: map[string]any{"year": 2026.0}}}, 202, `{"id":"kb/a.md","token":"`},
		{"encoded slash", "PUT", "/documents/kb%2Fa.md", `{"text":"x"}`, nil, nil, stream.Change{Kind: stream.Upsert, ID: "kb/a.md", Document: &stream.Document{Text: "x"}}, 202, `"kb/a.md"`},
		{"encoded percent", "PUT", "/documents/a%2525", `{"text":"x"}`, nil, nil, stream.Change{Kind: stream.Upsert, ID: "a%25", Document: &stream.Document{Text: "x"}}, 202, `"a%25"`},
		{"space and accent", "PUT", "/documents/a%20%C3%A4?backfill=0", `{"text":"x"}`, nil, nil, stream.Change{Kind: stream.Upsert, ID: "a ä", Document: &stream.Document{Text: "x"}}, 202, `"a ä"`},
		{"odd path", "PUT", "/documents//a/../b//", `{"text":"x"}`, nil, nil, stream.Change{Kind: stream.Upsert, ID: "/a/../b//", Document: &stream.Document{Text: "x"}}, 202, `"/a/../b//"`},
		{"empty text", "PUT", "/documents/a", `{"text":""}`, nil, nil, stream.Change{Kind: stream.Upsert, ID: "a", Document: &stream.Document{}}, 202, ``},
		{"longest text", "PUT", "/documents/a", `{"text":"` + strings.Repeat("a", maxBytes) + `"}`, nil, nil, stream.Change{Kind: stream.Upsert, ID: "a", Document: &stream.Document{Text: strings.Repeat("a", maxBytes)}}, 202, ``},
		{"longest text, escaped", "PUT", "/documents/a", `{"text":"` + strings.Repeat(`\u00e4`, maxBytes/2) + `"}`, nil, nil, stream.Change{Kind: stream.Upsert, ID: "a", Document: &stream.Document{Text: strings.Repeat("ä", maxBytes/2)}}, 202, ``},
		{"tenant", "PUT", "/documents/a", `{"text":"x","tenant":"acme","acl":[]}`, nil, nil, stream.Change{Kind: stream.Upsert, ID: "a", Tenant: "acme", Document: &stream.Document{Text: "x", Tenant: "acme", ACL: []string{}}}, 202, ``},
		{"as curl sends it", "PUT", "/documents/a", `{"text":"x"}`, []string{"Content-Type", "application/x-www-form-urlencoded"}, nil, stream.Change{Kind: stream.Upsert, ID: "a", Document: &stream.Document{Text: "x"}}, 202, ``},
		{"backfill by header", "PUT", "/documents/a", `{"text":"x"}`, []string{HeaderBackfill, "true"}, nil, stream.Change{Kind: stream.Upsert, ID: "a", Backfill: true, Document: &stream.Document{Text: "x"}}, 202, ``},
		{"backfill by parameter", "DELETE", "/documents/a?backfill=1", ``, nil, nil, stream.Change{Kind: stream.Delete, ID: "a", Backfill: true}, 202, ``},
		{"delete", "DELETE", "/documents/kb/a.md", ``, nil, nil, stream.Change{Kind: stream.Delete, ID: "kb/a.md"}, 202, `"token"`},
		{"searchable", "PUT", "/documents/a?wait=5s", `{"text":"x"}`, nil, yes, stream.Change{Kind: stream.Upsert, ID: "a", Document: &stream.Document{Text: "x"}}, 200, `"searchable":true`},
		{"not in time", "PUT", "/documents/a?wait=5s", `{"text":"x"}`, nil, nil, stream.Change{Kind: stream.Upsert, ID: "a", Document: &stream.Document{Text: "x"}}, 202, `"searchable":false`},
		{"only looks", "DELETE", "/documents/a?wait=0s", ``, nil, nil, stream.Change{Kind: stream.Delete, ID: "a"}, 202, `"searchable":false`},
		{"access", "PUT", "/acl/kb/a.md", `{"acl":["ada","team:x"]}`, nil, nil, stream.Change{Kind: stream.Access, ID: "kb/a.md", ACL: []string{"ada", "team:x"}}, 202, `"kb/a.md"`},
		{"access of nobody", "PUT", "/acl/a?wait=1s", `{"acl":[]}`, nil, yes, stream.Change{Kind: stream.Access, ID: "a", ACL: []string{}}, 200, ``},
		{"access cleared", "DELETE", "/acl/kb%2Fa.md", ``, nil, nil, stream.Change{Kind: stream.Access, ID: "kb/a.md"}, 202, ``},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &log{searchable: tt.searchable}
				began := time.Now()
				w := send(serve(t, l), tt.method, tt.target, tt.body, tt.headers...)
				if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.answer) {
					t.Fatalf("got %d %s, want %d with %s", w.Code, w.Body, tt.status, tt.answer)
				}
				if len(l.changes) != 1 || fmt.Sprintf("%#v %+v", l.changes[0].ACL, asJSON(t, l.changes[0])) != fmt.Sprintf("%#v %+v", tt.want.ACL, asJSON(t, tt.want)) {
					t.Errorf("got %+v, want %+v", l.changes, tt.want)
				}
				if waited := time.Since(began); (tt.name == "not in time") != (waited == 5*time.Second) || tt.name != "not in time" && waited != 0 {
					t.Errorf("it took %s", waited)
				}
				var answer struct{ Token string }
				if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
					t.Fatal(err)
				}
				last, single, err := stream.ParseToken(answer.Token, "log-1")
				if err != nil || !single || len(last) != 1 || last[0].Offset != 0 {
					t.Errorf("token is of %v, %v, %v", last, single, err)
				}
			})
		})
	}
}

func asJSON(t *testing.T, c stream.Change) string {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRefusals(t *testing.T) {
	long := strings.Repeat("a", stream.MaxIDBytes+1)
	for _, tt := range []struct {
		name, method, target, body string
		headers                    []string
		status                     int
		code, detail               string
	}{
		{"no id", "PUT", "/documents/", `{"text":"x"}`, nil, 400, "id_invalid", "empty"},
		{"id too long", "PUT", "/documents/" + long, `{"text":"x"}`, nil, 400, "id_invalid", "1024"},
		{"id with control character", "PUT", "/documents/a%00b", `{"text":"x"}`, nil, 400, "id_invalid", "control"},
		{"id with a tenant in it", "PUT", "/documents/acme%1Fb", `{"text":"x"}`, nil, 400, "id_invalid", "control"},
		{"id of an access change", "DELETE", "/documents/a%1Eacl", ``, nil, 400, "id_invalid", "control"},
		{"id with C1 control", "DELETE", "/documents/a%C2%85", ``, nil, 400, "id_invalid", "control"},
		{"id not UTF-8", "DELETE", "/documents/a%FF", ``, nil, 400, "id_invalid", "UTF-8"},
		{"acl id", "PUT", "/acl/", `{"acl":[]}`, nil, 400, "id_invalid", "empty"},
		{"acl id, delete", "DELETE", "/acl/%00", ``, nil, 400, "id_invalid", "control"},
		{"no body", "PUT", "/documents/a", ``, nil, 400, "not_a_document", ""},
		{"no JSON", "PUT", "/documents/a", `text`, nil, 400, "not_a_document", ""},
		{"cut short", "PUT", "/documents/a", `{"text":"x`, nil, 400, "not_a_document", ""},
		{"no text", "PUT", "/documents/a", `{"title":"x"}`, nil, 400, "not_a_document", "text"},
		{"null text", "PUT", "/documents/a", `{"text":null}`, nil, 400, "wrong_type", "text"},
		{"text a number", "PUT", "/documents/a", `{"text":1}`, nil, 400, "wrong_type", "text"},
		{"unknown field", "PUT", "/documents/a", `{"text":"x","tittle":"y"}`, nil, 400, "unknown_field", "tittle"},
		{"id in the body", "PUT", "/documents/a", `{"id":"a","text":"x"}`, nil, 400, "unknown_field", "id"},
		{"content type", "PUT", "/documents/a", `{"text":"x","content_type":"application/pdf"}`, nil, 400, "wrong_type", "content_type"},
		{"updated_at", "PUT", "/documents/a", `{"text":"x","updated_at":"yesterday"}`, nil, 400, "wrong_type", "updated_at"},
		{"metadata nested", "PUT", "/documents/a", `{"text":"x","metadata":{"a":{"b":1}}}`, nil, 400, "wrong_type", "metadata.a"},
		{"metadata null", "PUT", "/documents/a", `{"text":"x","metadata":{"a":null}}`, nil, 400, "wrong_type", "metadata.a"},
		{"tenant", "PUT", "/documents/a", `{"text":"x","tenant":"a\u0007"}`, nil, 400, "id_invalid", "tenant"},
		{"not UTF-8", "PUT", "/documents/a", "{\"text\":\"\xff\"}", nil, 400, "invalid_utf8", "text"},
		{"lone surrogate", "PUT", "/documents/a", `{"text":"\ud800"}`, nil, 400, "invalid_utf8", "text"},
		{"text too large", "PUT", "/documents/a", `{"text":"` + strings.Repeat("a", maxBytes+1) + `"}`, nil, 413, "document_too_large", "1000"},
		{"body too large", "PUT", "/documents/a", `{"text":"` + strings.Repeat("a", 2<<20) + `"}`, nil, 413, "document_too_large", "1000"},
		{"access no list", "PUT", "/acl/a", `{"acl":"ada"}`, nil, 400, "wrong_type", "acl"},
		{"access missing", "PUT", "/acl/a", `{}`, nil, 400, "not_a_document", "acl"},
		{"access unknown field", "PUT", "/acl/a", `{"acl":[],"owner":"x"}`, nil, 400, "unknown_field", "owner"},
		{"access too large", "PUT", "/acl/a", `{"acl":["` + strings.Repeat("a", 1<<20) + `"]}`, nil, 413, "body_too_large", ""},
		{"wait", "PUT", "/documents/a?wait=5", `{"text":"x"}`, nil, 400, "duration_invalid", "wait"},
		{"wait negative", "DELETE", "/documents/a?wait=-5s", ``, nil, 400, "duration_invalid", "wait"},
		{"wait too long", "DELETE", "/documents/a?wait=2h", ``, nil, 400, "wait_out_of_range", "wait"},
		{"unknown parameter", "DELETE", "/documents/a?refresh=true", ``, nil, 400, "unsupported", "refresh"},
		{"bad parameters", "DELETE", "/documents/a?%zz", ``, nil, 400, "invalid_url", ""},
		{"backfill", "PUT", "/documents/a?backfill=perhaps", `{"text":"x"}`, nil, 400, "wrong_type", "backfill"},
		{"backfill header", "PUT", "/documents/a", `{"text":"x"}`, []string{HeaderBackfill, "perhaps"}, 400, "wrong_type", HeaderBackfill},
		{"media type", "PUT", "/documents/a", `{"text":"x"}`, []string{"Content-Type", "application/pdf"}, 415, "unsupported_media_type", "pdf"},
		{"compressed", "PUT", "/documents/a", `{"text":"x"}`, []string{"Content-Encoding", "gzip"}, 415, "unsupported_media_type", "gzip"},
		{"import media type", "POST", "/documents", `{"text":"x"}`, []string{"Content-Type", "multipart/form-data; boundary=x"}, 415, "unsupported_media_type", "multipart"},
		{"import waits", "POST", "/documents?wait=1s", ``, nil, 400, "unsupported", "after"},
		{"no such method", "PATCH", "/documents/a", ``, nil, 405, "method_not_allowed", ""},
		{"import to an id", "POST", "/documents/a", ``, nil, 405, "method_not_allowed", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := &log{}
			refusedWith(t, send(serve(t, l), tt.method, tt.target, tt.body, tt.headers...), tt.status, tt.code, tt.detail)
			if len(l.changes) > 0 {
				t.Errorf("it was written: %+v", l.changes)
			}
		})
	}
}

func refusedWith(t *testing.T, w *httptest.ResponseRecorder, status int, code, detail string) {
	t.Helper()
	var p struct{ Code, Detail string }
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if w.Code != status || p.Code != code || !strings.Contains(p.Detail, detail) {
		t.Errorf("got %d %s: %s; want %d %s with %q", w.Code, p.Code, p.Detail, status, code, detail)
	}
}

func TestLogFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fail   func(ctx context.Context, changes []stream.Change) error
		status int
		code   string
		retry  bool
	}{
		{"full", func(context.Context, []stream.Change) error { return fmt.Errorf("append: %w", stream.ErrLogFull) }, 507, "log_full", false},
		{"disk full", func(context.Context, []stream.Change) error { return fmt.Errorf("append: %w", stream.ErrDiskFull) }, 507, "disk_full", true},
		{"unavailable", func(context.Context, []stream.Change) error { return stream.ErrUnavailable }, 503, "log_unavailable", true},
		{"silent", func(ctx context.Context, _ []stream.Change) error { <-ctx.Done(); return ctx.Err() }, 503, "log_unavailable", true},
		{"re-created", func(context.Context, []stream.Change) error { return stream.ErrLogChanged }, 503, "log_changed", true},
		{"refused", func(context.Context, []stream.Change) error {
			return &stream.Problem{Code: stream.CodeDocumentTooLarge, Detail: "for the topic"}
		}, 413, "document_too_large", false},
		{"broken", func(context.Context, []stream.Change) error { return errPlanted }, 500, "internal", false},
	} {
		for _, request := range [][3]string{{"PUT", "/documents/a", `{"text":"x"}`}, {"POST", "/documents", `{"id":"a","text":"x"}`}} {
			if request[0] == "POST" && tt.name == "refused" {
				continue // that line is named instead: TestImport
			}
			t.Run(tt.name+" "+request[0], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := &log{fail: tt.fail}
					w := send(serve(t, l), request[0], request[1], request[2])
					refusedWith(t, w, tt.status, tt.code, "")
					if (w.Header().Get("Retry-After") != "") != tt.retry {
						t.Errorf("Retry-After is %q", w.Header().Get("Retry-After"))
					}
					if strings.Contains(w.Body.String(), "planted") {
						t.Errorf("the cause leaked: %s", w.Body)
					}
				})
			})
		}
	}
}

// A change that is durable is answered as such, whatever becomes of the waiting.
func TestWaitFails(t *testing.T) {
	l := &log{waitErr: errPlanted}
	if w := send(serve(t, l), "PUT", "/documents/a?wait=1s", `{"text":"x"}`); w.Code != 202 || !strings.Contains(w.Body.String(), `"searchable":false`) {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestCallerLeft(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	l := &log{fail: func(ctx context.Context, _ []stream.Change) error { cancel(); <-ctx.Done(); return ctx.Err() }}
	w := httptest.NewRecorder()
	serve(t, l).ServeHTTP(w, httptest.NewRequest("PUT", "/documents/a", strings.NewReader(`{"text":"x"}`)).WithContext(ctx))
	refusedWith(t, w, 499, "canceled", "")
}

func importAnswer(t *testing.T, w *httptest.ResponseRecorder) (a imported) {
	t.Helper()
	if w.Code != 202 {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestImport(t *testing.T) {
	body := "\ufeff" + strings.Join([]string{
		`{"id":"a","text":"one"}`,
		``,
		`{"id":"b/c d","text":"two"` + "}\r",
		`{"id":"bad","text":"x","colour":"red"}`,
		`not json`,
		`{"id":"","text":"x"}`,
		`{"text":"x"}`,
		"{\"id\":\"u\",\"text\":\"\xff\"}",
		`{"id":"big","text":"` + strings.Repeat("a", maxBytes+1) + `"}`,
		`{"id":"huge","text":"` + strings.Repeat("a", 2<<20) + `"}`,
		`{"id":"refused","text":"by the log"}`,
		`{"id":"gone","deleted":true}`,
		`{"id":"gone","deleted":true,"text":"x"}`,
		`   `,
		`{"id":"` + strings.Repeat("i", 1025) + `","text":"x"}`,
		`{"id":"a","text":"again"}`, // the last one has no line end
	}, "\n")
	l := &log{fail: func(_ context.Context, changes []stream.Change) error {
		if slices.ContainsFunc(changes, func(c stream.Change) bool { return c.ID == "refused" }) {
			return &stream.Problem{Code: stream.CodeDocumentTooLarge, Detail: "for the topic"}
		}
		return nil
	}}
	w := send(serve(t, l), "POST", "/documents", body, "Content-Type", "application/x-ndjson", HeaderBackfill, "1")
	a := importAnswer(t, w)
	got := ""
	for _, r := range a.Rejected {
		got += fmt.Sprintf("%d %s\n", r.Line, r.Code)
		if r.Detail == "" {
			t.Errorf("line %d has no detail", r.Line)
		}
	}
	const want = "4 unknown_field\n5 not_a_document\n6 id_invalid\n7 id_invalid\n8 invalid_utf8\n9 document_too_large\n10 document_too_large\n11 document_too_large\n13 not_a_document\n15 id_invalid\n"
	if got != want {
		t.Errorf("rejected\n%swant\n%s", got, want)
	}
	ids := ""
	for _, c := range l.changes {
		ids += c.Kind.String() + " " + c.ID + "\n"
		if !c.Backfill {
			t.Errorf("%s is not marked as backfill", c.ID)
		}
	}
	if want := "upsert a\nupsert b/c d\ndelete gone\nupsert a\n"; ids != want || a.Accepted != 4 {
		t.Errorf("accepted %d:\n%swant\n%s", a.Accepted, ids, want)
	}
	last, single, err := stream.ParseToken(a.Token, "log-1")
	if err != nil || single || fmt.Sprint(last) != "[{0 0} {1 2}]" {
		t.Errorf("token is of %v, %v, %v", last, single, err)
	}
}

func TestImportNothing(t *testing.T) {
	w := send(serve(t, &log{}), "POST", "/documents", "\n\n")
	if w.Code != 202 || strings.TrimSpace(w.Body.String()) != `{"accepted":0,"rejected":[]}` {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

// Several changes in one partition make no token of a single change: that would stand for the last one alone.
func TestImportTokenOfOnePartition(t *testing.T) {
	a := importAnswer(t, send(serve(t, &log{}), "POST", "/documents", strings.Repeat(`{"id":"a","text":"x"}`+"\n", 600)))
	last, single, err := stream.ParseToken(a.Token, "log-1")
	if err != nil || single || fmt.Sprint(last) != "[{1 599}]" {
		t.Errorf("token is of %v, %v, %v", last, single, err)
	}
}

// The log is written while the body is still coming: the sender below waits for the first batch before it sends the rest.
func TestImportOverlaps(t *testing.T) {
	first := make(chan struct{})
	var once sync.Once
	l := &log{fail: func(context.Context, []stream.Change) error { once.Do(func() { close(first) }); return nil }}
	r, w := io.Pipe()
	go func() {
		for i := range 1000 {
			if i == batchChanges+1 {
				select {
				case <-first:
				case <-t.Context().Done():
				}
			}
			fmt.Fprintf(w, "{\"id\":\"d%d\",\"text\":\"x\"}\n", i)
		}
		w.Close()
	}()
	answer := httptest.NewRecorder()
	serve(t, l).ServeHTTP(answer, httptest.NewRequest("POST", "/documents", r))
	if a := importAnswer(t, answer); a.Accepted != 1000 {
		t.Errorf("accepted %d", a.Accepted)
	}
	for i, c := range l.changes {
		if c.ID != fmt.Sprint("d", i) {
			t.Fatalf("change %d is of %s", i, c.ID)
		}
	}
	if fmt.Sprint(l.batches) != "[256 256 256 232]" {
		t.Errorf("batches of %v", l.batches)
	}
}

// When the log fails half-way, what was accepted before is said, and the rest of the body is not waited for.
func TestImportFailsHalfway(t *testing.T) {
	n := 0
	l := &log{fail: func(context.Context, []stream.Change) error {
		if n++; n > 2 {
			return stream.ErrLogFull
		}
		return nil
	}}
	r, w := io.Pipe()
	sent := make(chan int)
	go func() {
		i := 0
		for {
			if _, err := fmt.Fprintf(w, "{\"id\":\"d%d\",\"text\":\"x\"}\n", i); err != nil {
				sent <- i
				return
			}
			i++
		}
	}()
	answer := httptest.NewRecorder()
	serve(t, l).ServeHTTP(answer, httptest.NewRequest("POST", "/documents", r))
	r.Close()
	<-sent
	refusedWith(t, answer, 507, "log_full", "512 documents")
}

func TestImportCutShort(t *testing.T) {
	l := &log{}
	body := io.MultiReader(strings.NewReader(`{"id":"a","text":"x"}`+"\n"), brokenReader{})
	w := httptest.NewRecorder()
	serve(t, l).ServeHTTP(w, httptest.NewRequest("POST", "/documents", body))
	refusedWith(t, w, 400, "body_incomplete", "1 documents")
	if len(l.changes) != 1 {
		t.Errorf("got %+v", l.changes)
	}
	r := httptest.NewRequest("PUT", "/documents/a", io.MultiReader(strings.NewReader(`{"text":`), brokenReader{}))
	w = httptest.NewRecorder()
	serve(t, l).ServeHTTP(w, r)
	refusedWith(t, w, 400, "body_incomplete", "")
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// A body of rubbish can't fill the memory with its complaints.
func TestImportOfRubbish(t *testing.T) {
	const lines = maxRejected + 500
	a := importAnswer(t, send(serve(t, &log{}), "POST", "/documents", strings.Repeat("x\n", lines)))
	if len(a.Rejected) != maxRejected || a.Unnamed != 500 {
		t.Errorf("named %d, unnamed %d", len(a.Rejected), a.Unnamed)
	}
}

func TestImportMemory(t *testing.T) {
	line := `{"id":"d","text":"` + strings.Repeat("a", maxBytes) + `"}` + "\n"
	const lines = 40_000
	body := &repeat{line: line, n: lines}
	var l counting
	e := echo.New()
	New(Config{Sink: &l, Waiter: &log{}, MaxBytes: maxBytes}).Routes(e)
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	body.each = func() {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		if m.HeapAlloc > peak.HeapAlloc {
			peak = m
		}
	}
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest("POST", "/documents", body))
	if a := importAnswer(t, w); a.Accepted != lines {
		t.Fatalf("accepted %d", a.Accepted)
	}
	if grown := int64(peak.HeapAlloc) - int64(before.HeapAlloc); grown > lines*maxBytes/4 {
		t.Errorf("the heap grew by %d bytes for a body of %d: it does not stream", grown, lines*len(line))
	}
}

// repeat is a body of n equal lines.
type repeat struct {
	line string
	n    int
	rest string
	each func()
}

func (r *repeat) Read(b []byte) (int, error) {
	if r.rest == "" {
		if r.n == 0 {
			return 0, io.EOF
		}
		if r.n--; r.n%10_000 == 0 && r.each != nil {
			r.each()
		}
		r.rest = r.line
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// counting is a Sink that forgets.
type counting struct{ n int64 }

func (c *counting) Append(_ context.Context, changes ...stream.Change) (stream.Receipt, error) {
	r := stream.Receipt{Identity: "x", Positions: make([]stream.Position, len(changes))}
	for i := range changes {
		r.Positions[i].Offset = c.n
		c.n++
	}
	return r, nil
}

func TestConcurrent(t *testing.T) {
	l := &log{}
	e := serve(t, l)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				id := fmt.Sprintf("d%d-%d", i, j)
				if w := send(e, "PUT", "/documents/"+id, `{"text":"`+id+`"}`); w.Code != http.StatusAccepted {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
				if w := send(e, "POST", "/documents", `{"id":"`+id+`","text":"`+id+`"}`); w.Code != http.StatusAccepted {
					t.Errorf("got %d %s", w.Code, w.Body)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range l.changes {
		if c.Document.Text != c.ID {
			t.Fatalf("%s has the text of %s: a buffer was shared", c.ID, c.Document.Text)
		}
	}
}

func BenchmarkImport(b *testing.B) {
	text := strings.Repeat("A line of text with \\\"quotes\\\" and an ä.\\n", 110)
	var body bytes.Buffer
	for i := range 2000 {
		fmt.Fprintf(&body, "{\"id\":\"doc-%d\",\"text\":\"%s\",\"title\":\"T\",\"metadata\":{\"team\":\"billing\",\"year\":2026}}\n", i, text)
	}
	e := echo.New()
	New(Config{Sink: &counting{}, Waiter: &log{}}).Routes(e)
	b.SetBytes(int64(body.Len()))
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest("POST", "/documents", bytes.NewReader(body.Bytes())))
		if w.Code != http.StatusAccepted {
			b.Fatal(w.Body)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	body := `{"text":"` + strings.Repeat("A line of text.\\n", 280) + `"}`
	e := echo.New()
	New(Config{Sink: &counting{}, Waiter: &log{}}).Routes(e)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		e.ServeHTTP(w, httptest.NewRequest("PUT", "/documents/a", strings.NewReader(body)))
		if w.Code != http.StatusAccepted {
			b.Fatal(w.Body)
		}
	}
}
