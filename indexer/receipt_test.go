package indexer

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/httpd"
	"github.com/liverag/liverag/internal/httpd/httpdtest"
	"github.com/liverag/liverag/vectordb"
)

func TestAReceiptProvesADeletion(t *testing.T) {
	b := newBed(t)
	b.stop()
	cache, err := embedder.OpenCache(embedder.CacheConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	b.start(Config{Build: func(_ context.Context, r vectordb.Recipe, _ int) (Parts, error) {
		cut, err := chunker.New(chunker.Options{Strategy: r.Chunker.Strategy, Tokens: r.Chunker.Tokens})
		return Parts{Recipe: r, Chunker: cut, Embedder: embedder.Cache(b.model, cache)}, err
	}})
	const both = "# Shared\n\nwhat two documents say\n\n"
	b.settle(upsert("secret", both+"# Own\n\nwhat only the secret says\n\n"), upsert("other", both+"# Other\n\nsomething else\n\n"))
	b.settle(upsert("secret", both+"# Own\n\nwhat it says later\n\n"))
	receipt := func(id string, purge bool) Receipt {
		t.Helper()
		r, err := b.indexer.Receipt(b.ctx(), "", id, purge)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := receipt("secret", false); r.Gone || r.Deleted || r.Generations[0].State != "present" || r.Generations[0].Entries != 2 || r.OldRecords != 2 {
		t.Errorf("a document that is there: %+v", r)
	}
	if _, err := b.indexer.Receipt(b.ctx(), "", "secret", true); !errors.Is(err, ErrNotDeleted) {
		t.Errorf("purging it: %v", err)
	}
	if r := receipt("never", false); !r.Gone || r.Version != 0 || r.Generations[0].State != "absent" {
		t.Errorf("one that never was: %+v", r)
	}
	// One change of it can't be indexed, so its bytes are in the dead letters too.
	b.poison("poison")
	b.reach(b.append(upsert("secret", "poison")))
	b.poison("")
	at := b.append(remove("secret"))
	r := receipt("secret", false) // it waits until the delete is searchable
	if !r.Gone || !r.Deleted || r.Generations[0].State != "deleted" || r.Generations[0].Entries != 0 || r.OldRecords != 3 || r.DeadLetters != 1 || r.Version != r.Generations[0].Version || r.Purged != nil {
		t.Errorf("a deleted document: %+v, deleted at %v", r, at)
	}
	before := cache.Len()
	r = receipt("secret", true)
	if r.Purged == nil || r.Purged.Vectors != 2 || !strings.Contains(r.Purged.Log, "next start") {
		t.Errorf("purged %+v", r.Purged)
	}
	if cache.Len() != before-2 {
		t.Errorf("the cache held %d vectors and holds %d; what another document uses has to stay", before, cache.Len())
	}
	spec := httpdtest.Load(t, httpd.OpenAPI())
	s := httpd.New(httpd.Config{Routes: []func(*echo.Echo){b.indexer.Routes}})
	for body, status := range map[string]int{`{"id":"secret"}`: 200, `{"id":"secret","purge":true}`: 200, `{"id":"other","purge":true}`: 409, `{"id":""}`: 400, `{"id":"a","force":true}`: 400} {
		if w := spec.Ask(t, s, httptest.NewRequest("POST", "/verify/document", strings.NewReader(body)), "/verify/document"); w.Code != status {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
}
