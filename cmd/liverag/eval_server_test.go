package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	evalfresh "github.com/liverag/liverag/evals/freshness"
)

// birdServer answers like a liverag that holds the documents of birdSet under p/, the first of them in two chunks.
func birdServer(t *testing.T, moves bool) (url string, last *atomic.Pointer[queryRequest]) {
	t.Helper()
	last = &atomic.Pointer[queryRequest]{}
	var asked, refused atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("GET /documents/", func(w http.ResponseWriter, r *http.Request) {
		if id := strings.TrimPrefix(r.URL.Path, "/documents/"); !strings.HasPrefix(id, "p/") || id == "p/4" {
			http.Error(w, `{"code":"not_found","detail":"not there","status":404}`, http.StatusNotFound)
			return
		}
		fmt.Fprint(w, `{"id":"x"}`)
	})
	mux.HandleFunc("POST /retrieve", func(w http.ResponseWriter, r *http.Request) {
		var q queryRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		if refused.Add(1) == 1 { // once too busy: it is asked again
			w.Header().Set("Retry-After", "0")
			http.Error(w, `{"code":"busy","detail":"later","status":503}`, http.StatusServiceUnavailable)
			return
		}
		last.Store(&q)
		name := "trial"
		if moves && asked.Add(1) > 1 {
			name = "other"
		}
		hits := map[string]string{
			"swifts sleep in the air": `{"document":"p/9","score":3,"text":"x"},{"document":"p/9","score":2,"text":"y"},{"document":"p/1","score":1,"text":"Swifts  sleep\nin the air"}`,
			"owls hunt mice at night": `{"document":"p/3","score":1,"text":"Owls hunt"}`,
		}[q.Query]
		fmt.Fprintf(w, `{"hits":[%s],"generation":{"name":%q,"recipe":{"chunker":{"strategy":"token","tokens":64},"embedder":{"model":"local/static"}}}}`, hits, name)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL, last
}

func TestEvalRetrievalServer(t *testing.T) {
	url, last := birdServer(t, false)
	set := birdSet(t)
	got := invoke(t, nil, "", "eval", "retrieval", "--server", url, "--set", set, "--prefix", "p/", "--mode", "lexical", "--generation", "trial", "--filter", `{"a":1}`, "--data", t.TempDir(), "--json")
	if got.code != exitDone {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	if !strings.Contains(got.err, "1 of 4 documents looked for are not in the index, such as p/4") {
		t.Errorf("stderr %q", got.err)
	}
	if q := last.Load(); q.K != 200 || q.Mode != "lexical" || q.Generation != "trial" || string(q.Filter) != `{"a":1}` {
		t.Errorf("asked %+v", q)
	}
	out := decoded(t, got)
	// a is right at rank 2, since two chunks of one document are one; b has no hit; c has one of two documents.
	for name, want := range map[string]float64{"mrr": (.5 + 0 + 1) / 3, "recall@10": (1 + 0 + .5) / 3, "queries": 3, "answered": 2} {
		if v := out[name].(float64); v < want-1e-9 || v > want+1e-9 {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if only := out["answered_only"].(map[string]any)["mrr"].(float64); only < .75-1e-9 || only > .75+1e-9 {
		t.Errorf("the mean of the answered ones is %v", only)
	}
	if target := out["target"].(map[string]any); target["generation"] != "trial" || target["recipe"] != "token 64, local/static" || target["server"] != url {
		t.Errorf("target %v", target)
	}
}

// TestEvalsNameTheirMode: a question without one would be answered by words alone while the model is away, and so it would be those that are measured.
func TestEvalsNameTheirMode(t *testing.T) {
	url, last := birdServer(t, false)
	cl := &client{base: url, http: http.DefaultClient}
	const query = "owls hunt mice at night"
	if _, err := cl.searcher("trial")(t.Context(), query, 1); err != nil { // it is too busy for the first
		t.Fatal(err)
	}
	for name, ask := range map[string]func(ctx context.Context) error{
		"eval retrieval": func(context.Context) error {
			if got := invoke(t, nil, "", "eval", "retrieval", "--server", url, "--set", birdSet(t), "--prefix", "p/", "--data", t.TempDir()); got.code != exitDone {
				return errors.New(got.err)
			}
			return nil
		},
		"eval compare": func(ctx context.Context) error {
			_, err := (&evalCompare{}).searcher(cl, side{}, nil)(ctx, query, 5)
			return err
		},
		"eval freshness": func(ctx context.Context) error {
			_, err := newFreshnessServer(cl).Retrieve(ctx, evalfresh.Question{Query: query, K: 5})
			return err
		},
		"promote --gate": func(ctx context.Context) error {
			_, err := cl.searcher("trial")(ctx, query, 5)
			return err
		},
		"sweep": func(ctx context.Context) error {
			_, _, err := (&sweep{}).askServer(cl, "trial")(ctx, "", query, 5)
			return err
		},
		"bench": func(ctx context.Context) error { return (&server{client: cl}).ask(ctx, query) },
	} {
		last.Store(nil)
		if err := ask(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if q := last.Load(); q == nil || q.Mode != "hybrid" {
			t.Errorf("%s asked %+v", name, q)
		}
	}
}

func TestEvalRetrievalServerRefuses(t *testing.T) {
	url, _ := birdServer(t, false)
	set := birdSet(t)
	if got := invoke(t, nil, "", "eval", "retrieval", "--server", url, "--set", set, "--data", t.TempDir()); got.code != exitFailed ||
		!strings.Contains(got.err, "has none of the documents") || !strings.Contains(got.err, "liverag import "+filepath.Join(set, "corpus.jsonl")) || !strings.Contains(got.err, "--in-process") {
		t.Errorf("documents that are not there: exit %d, %q", got.code, got.err)
	}
	moving, _ := birdServer(t, true)
	if got := invoke(t, nil, "", "eval", "retrieval", "--server", moving, "--set", set, "--prefix", "p/", "--concurrency", "1", "--data", t.TempDir()); got.code != exitFailed || !strings.Contains(got.err, "the alias moved") {
		t.Errorf("a promote meanwhile: exit %d, %q", got.code, got.err)
	}
}

func TestEvalRetrievalPassages(t *testing.T) {
	url, _ := birdServer(t, false)
	dir := t.TempDir()
	writeAll(t, dir, map[string]string{"mine.jsonl": `{"query":"swifts sleep in the air","passages":["sleep in  the air","not there"]}` + "\n"})
	out := decoded(t, invoke(t, nil, "", "eval", "retrieval", "--server", url, "--set", filepath.Join(dir, "mine.jsonl"), "--data", dir, "--json"))
	// Hits are judged one by one: the third has one of two quotes.
	if out["mrr"].(float64) != 1./3 || out["recall@10"].(float64) != .5 || out["set"].(map[string]any)["name"] != "mine" {
		t.Errorf("got %v", out)
	}
}
