package httpd_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/httpd"
	"github.com/liverag/liverag/internal/httpd/httpdtest"
	"github.com/liverag/liverag/internal/page"
	"github.com/liverag/liverag/ledger"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/stream/feedback"
	"github.com/liverag/liverag/stream/intake"
	"github.com/liverag/liverag/vectordb"
)

// corpus is a log that is applied to a store at once: document in, one chunk out.
type corpus struct {
	store *vectordb.Memory
	model embedder.Embedder

	mu     sync.Mutex
	offset int64
}

const generation = "whole0_hash_0001"

var recipe = vectordb.Recipe{
	Chunker:  vectordb.ChunkerRecipe{Strategy: "whole", Tokens: 200, Tokenizer: "cl100k_base"},
	Embedder: vectordb.EmbedderRecipe{Model: "hash/64", Long: "split"},
}

func newCorpus(t testing.TB) *corpus {
	t.Helper()
	c := &corpus{store: vectordb.NewMemory(), model: embedder.NewHash(64)}
	if err := c.store.Create(t.Context(), vectordb.Generation{Name: generation, Fingerprint: "f", Dim: 64, Origin: "o"}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *corpus) Append(ctx context.Context, changes ...stream.Change) (stream.Receipt, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	receipt := stream.Receipt{Identity: "log-1"}
	for _, change := range changes {
		r := vectordb.Revision{Key: change.Key(), Version: stream.Version(0, c.offset+1), LoggedAt: time.Now()}
		switch change.Kind {
		case stream.Upsert:
			d := change.Document
			r.Text, r.ContentType, r.Title, r.URL, r.UpdatedAt, r.Metadata, r.Tenant, r.ACL = d.Text, cmp.Or(d.ContentType, stream.TextPlain), d.Title, d.URL, d.UpdatedAt, d.Metadata, d.Tenant, d.ACL
			if d.UpdatedAt.IsZero() {
				r.UpdatedAt = r.LoggedAt
			}
			if d.Text != "" {
				vectors, err := c.model.Embed(ctx, embedder.Index, []string{d.Text})
				if err != nil {
					return receipt, err
				}
				r.Entries = []vectordb.Entry{{End: len(d.Text), Tokens: 1, Hash: vectordb.Hash{byte(c.offset)}, Vector: vectors[0]}}
			}
		case stream.Delete:
			r.Deleted = true
		case stream.Access:
			r.Version, r.Access = 0, vectordb.Access{Version: r.Version, Clear: change.ACL == nil, ACL: change.ACL}
		}
		if err := c.store.Apply(ctx, generation, vectordb.Write{Revisions: []vectordb.Revision{r}}); err != nil {
			return receipt, err
		}
		receipt.Positions = append(receipt.Positions, stream.Position{Offset: c.offset})
		c.offset++
	}
	return receipt, nil
}

func (c *corpus) WaitSearchable(ctx context.Context, positions []stream.Position) error { return nil }

func (c *corpus) Resolve(name string) (retrieve.Target, error) {
	t := retrieve.Target{Name: generation, Recipe: recipe, Embedder: c.model}
	switch name {
	case retrieve.Live:
		t.Alias = retrieve.Live
	case generation:
	default:
		return t, vectordb.ErrNoGeneration
	}
	return t, nil
}

func (c *corpus) Status(string) retrieve.Freshness {
	return retrieve.Freshness{AsOf: time.Now(), Lag: 3 * time.Millisecond}
}

func (c *corpus) Wait(ctx context.Context, generation string, tokens []string, asOf time.Time) (bool, error) {
	for _, token := range tokens {
		if _, _, err := stream.ParseToken(token, "log-1"); err != nil {
			return false, retrieve.ErrTokenUnknown
		}
	}
	return !asOf.After(time.Now()), nil
}

// opinions is feedback in memory.
type opinions struct{ all []stream.Feedback }

func (o *opinions) Add(_ context.Context, f stream.Feedback) (stream.Feedback, error) {
	f.Sequence, f.Time = int64(len(o.all)+1), time.Now()
	o.all = append(o.all, f)
	return f, nil
}

func (o *opinions) List(_ context.Context, _ int64, limit int) ([]stream.Feedback, int64, error) {
	return o.all[:min(limit, len(o.all))], 2, nil
}

// serve puts the whole API together, as the program does.
func serve(t testing.TB) *httpd.Server {
	t.Helper()
	return newCorpus(t).serve()
}

func (c *corpus) serve() *httpd.Server {
	metrics := prometheus.NewRegistry()
	return httpd.New(httpd.Config{
		Routes: []func(*echo.Echo){
			intake.New(intake.Config{Sink: c, Waiter: c}).Routes,
			retrieve.New(retrieve.Config{Store: c.store, Resolver: c, Follower: c, Metrics: metrics}).Routes,
			indexer.New(indexer.Config{}).Routes,
			ledger.Open(ledger.Config{}).Routes,
			feedback.New(feedback.Config{Log: &opinions{}}).Routes,
			page.Routes,
		},
		OwnLimits: intake.OwnLimits, Metrics: metrics, Logger: slog.New(slog.DiscardHandler),
	})
}

func TestRoutesAndDescriptionAgree(t *testing.T) {
	undescribed, unserved := httpdtest.Load(t, httpd.OpenAPI()).Differences(serve(t).Routes())
	if len(undescribed) > 0 || len(unserved) > 0 {
		t.Errorf("served and not described: %q\ndescribed and not served: %q", undescribed, unserved)
	}
}

// Every answer here is held to the description. The sequence is also the shortest story of the API: write, find, change, forget.
func TestAnswersAreAsDescribed(t *testing.T) {
	spec := httpdtest.Load(t, httpd.OpenAPI())
	s := serve(t)
	ask := func(status int, method, path, target, body string) string {
		t.Helper()
		w := spec.Ask(t, s, httptest.NewRequest(method, target, strings.NewReader(body)), path)
		if w.Code != status {
			t.Errorf("%s %s answered %d, want %d: %s", method, target, w.Code, status, w.Body)
		}
		return w.Body.String()
	}
	const doc, acl, query = "/documents/{id}", "/acl/{id}", "/retrieve"

	ask(202, "PUT", doc, "/documents/kb/refunds.md", `{"text":"Refunds are paid within five days.","title":"Refunds","url":"https://example.org/r","metadata":{"team":"billing","year":2026,"open":true,"tags":["a"]},"updated_at":"2026-11-21T10:00:00Z"}`)
	ask(200, "PUT", doc, "/documents/a%2Fb%20c?wait=1s", `{"text":"Returns need a label."}`)
	ask(202, "PUT", doc, "/documents/empty", `{"text":""}`)
	ask(202, "POST", "/documents", "/documents", "{\"id\":\"x\",\"text\":\"Shipping is free.\"}\nbad\n{\"id\":\"x2\",\"deleted\":true}")
	ask(202, "POST", "/documents", "/documents", "")

	for _, body := range []string{`{"query":"refunds"}`, `{"query":"refunds","mode":"dense","k":1,"explain":true}`, `{"query":"refunds","mode":"lexical","explain":true,"filter":{"team":"billing"}}`,
		`{"query":"refunds","explain":true,"max_staleness":"1h","generation":"` + generation + `"}`, `{"query":"zzz","mode":"lexical"}`} {
		ask(200, "POST", query, query, body)
	}
	if got := ask(200, "GET", query, "/retrieve?q=refunds+paid&k=1", ""); !strings.Contains(got, "five days") {
		t.Errorf("not found: %s", got)
	}
	for _, id := range []string{"kb/refunds.md", "a%2Fb%20c", "empty"} {
		ask(200, "GET", doc, "/documents/"+id, "")
	}
	ask(202, "PUT", acl, "/acl/kb/refunds.md", `{"acl":["ada"]}`)
	ask(404, "GET", doc, "/documents/kb/refunds.md", "")
	if got := ask(200, "POST", query, query, `{"query":"refunds paid days","k":200}`); strings.Contains(got, "five days") {
		t.Errorf("a closed document was returned: %s", got)
	}
	ask(200, "DELETE", acl, "/acl/kb/refunds.md?wait=1s", "")
	ask(200, "GET", doc, "/documents/kb/refunds.md", "")
	ask(202, "DELETE", doc, "/documents/kb/refunds.md", "")
	ask(404, "GET", doc, "/documents/kb/refunds.md", "")
	if got := ask(200, "POST", query, query, `{"query":"refunds paid days","k":200}`); strings.Contains(got, "five days") {
		t.Errorf("a deleted document was returned: %s", got)
	}

	ask(400, "POST", query, query, `{"query":"x","top_k":1}`)
	ask(404, "POST", query, query, `{"query":"x","generation":"other"}`)
	ask(409, "POST", query, query, `{"query":"x","after":"other"}`)
	ask(400, "PUT", doc, "/documents/%00", `{"text":""}`)
	ask(400, "GET", query, "/retrieve", "")
	ask(202, "POST", "/feedback", "/feedback", `{"query":"refunds","document":"kb/refunds.md","chunk":"kb/refunds.md#1","useful":true,"reason":"it says so"}`)
	ask(202, "POST", "/feedback", "/feedback", `{"query":"refunds","document":"x","useful":false}`)
	ask(400, "POST", "/feedback", "/feedback", `{"query":"refunds","document":"x"}`)
	ask(200, "GET", "/feedback", "/feedback?limit=1", "")
	ask(200, "GET", "/spending", "/spending?days=3", "")
	ask(400, "GET", "/spending", "/spending?days=0", "")
	ask(200, "GET", "/", "/", "")
	ask(200, "GET", "/healthz", "/healthz", "")
	ask(200, "GET", "/readyz", "/readyz", "")
	ask(200, "GET", "/metrics", "/metrics", "")
	ask(200, "GET", "/openapi.json", "/openapi.json", "")

	for _, want := range []string{"POST /retrieve 200", "POST /documents 202", "PUT /documents/{id} 200", "PUT /documents/{id} 202", "DELETE /documents/{id} 202", "PUT /acl/{id} 202", "DELETE /acl/{id} 200", "GET /documents/{id} 200", "POST /feedback 202", "GET /feedback 200"} {
		var method, path string
		var status int
		if _, err := fmt.Sscan(want, &method, &path, &status); err != nil {
			t.Fatal(err)
		}
		if !spec.Answered(method, path, status) {
			t.Errorf("%s was not seen", want)
		}
	}
}

// unanswered is a model whose endpoints are away for questions.
type unanswered struct {
	embedder.Embedder
	refused bool // they refuse us
}

func (m unanswered) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	if role == embedder.Query {
		return nil, &embedder.Error{Op: "openai", Temporary: !m.refused, Account: m.refused, Input: -1, Err: io.ErrUnexpectedEOF}
	}
	return m.Embedder.Embed(ctx, role, inputs)
}

// What is answered while the model is away is described too.
func TestDegradedAnswersAreAsDescribed(t *testing.T) {
	spec := httpdtest.Load(t, httpd.OpenAPI())
	for _, refused := range []bool{false, true} {
		c := newCorpus(t)
		c.model = unanswered{c.model, refused}
		s := c.serve()
		for _, r := range []struct {
			status                     int
			method, path, target, body string
		}{
			{202, "PUT", "/documents/{id}", "/documents/kb/refunds.md", `{"text":"Refunds are paid within five days."}`},
			{200, "POST", "/retrieve", "/retrieve", `{"query":"refunds"}`},
			{200, "GET", "/retrieve", "/retrieve?q=refunds", ""},
			{map[bool]int{false: 503, true: 502}[refused], "POST", "/retrieve", "/retrieve", `{"query":"refunds","mode":"hybrid"}`},
		} {
			w := spec.Ask(t, s, httptest.NewRequest(r.method, r.target, strings.NewReader(r.body)), r.path)
			if w.Code != r.status || (w.Code == 200) != strings.Contains(w.Body.String(), `"degraded"`) {
				t.Errorf("%s %s %s answered %d: %s", r.method, r.target, r.body, w.Code, w.Body)
			}
		}
	}
}

// Every member that an answer can have is described, those included that are absent from the answers of a quiet day; and none is described that no answer can have.
func TestMembersAreAsDescribed(t *testing.T) {
	spec := httpdtest.Load(t, httpd.OpenAPI())
	for schema, answer := range map[string]any{
		"Freshness": indexer.Freshness{}, "Provider": embedder.Provider{}, "Plan": indexer.Plan{}, "Spending": ledger.Spending{},
		"Generation": struct {
			indexer.Info
			Gate []indexer.Measured `json:"gate"` // in the answer to a promote
		}{},
	} {
		for _, difference := range spec.Members(schema, reflect.TypeOf(answer)) {
			t.Error(difference)
		}
	}
}

// BenchmarkServe is a query over a socket: server, handler, a store with one document, and the client beside it on the same processors.
func BenchmarkServe(b *testing.B) {
	s := serve(b)
	server := httptest.NewServer(s)
	defer server.Close()
	client := server.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	send := func(method, path, body string) error {
		r, err := http.NewRequest(method, server.URL+path, strings.NewReader(body))
		if err != nil {
			return err
		}
		resp, err := client.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode > 299 {
			return fmt.Errorf("%s: %v", resp.Status, err)
		}
		return nil
	}
	if err := send("PUT", "/documents/a", `{"text":"Refunds are paid within five days."}`); err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(8)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := send("POST", "/retrieve", `{"query":"how are refunds paid?"}`); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
