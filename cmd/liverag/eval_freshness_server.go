package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	evalfresh "github.com/liverag/liverag/evals/freshness"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// freshnessServer is a running liverag as the eval of freshness uses it: through its HTTP API, as any caller does.
type freshnessServer struct {
	client *client
	recipe atomic.Pointer[string] // of the generation that answers
}

func newFreshnessServer(cl *client) *freshnessServer {
	// Many small calls at a time: each must not open a connection of its own.
	cl.http = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute}}
	return &freshnessServer{client: cl}
}

// failure says what an error means to the eval. Whoever can't be reached for the moment may be back, and sending a change twice is harmless.
func (s *freshnessServer) failure(err error) error {
	var p *apiError
	var away *unreachableError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &p) && p.Code == "mode_unsupported":
		return evalfresh.ErrMode
	case errors.As(err, &away):
		return &evalfresh.Busy{Err: err}
	}
	if p, later := busy(err); later {
		return &evalfresh.Busy{After: p.RetryAfter, Err: err}
	}
	return explainWrite(err)
}

func (s *freshnessServer) Put(ctx context.Context, id string, doc *stream.Document) (string, error) {
	var w written
	err := s.client.do(ctx, "PUT", documentPath(id), doc, &w, options{})
	return w.Token, s.failure(err)
}

func (s *freshnessServer) Delete(ctx context.Context, id string) (string, error) {
	var w written
	err := s.client.do(ctx, "DELETE", documentPath(id), nil, &w, options{})
	return w.Token, s.failure(err)
}

func (s *freshnessServer) Retrieve(ctx context.Context, q evalfresh.Question) (evalfresh.Answer, error) {
	// The mode is always named: words alone must not answer for the model that is measured.
	request := queryRequest{Query: q.Query, K: q.K, Mode: cmp.Or(q.Mode, string(retrieve.Hybrid)), Generation: q.Generation, After: q.After}
	if len(q.Filter) > 0 {
		filter, err := json.Marshal(q.Filter)
		if err != nil {
			return evalfresh.Answer{}, err
		}
		request.Filter = filter
	}
	if q.AllOlder {
		request.MaxStaleness = "0s"
	}
	if q.AllOlder || len(q.After) > 0 {
		request.Wait = q.Wait.String()
	}
	var answer struct {
		Hits []struct {
			ID       string         `json:"id"`
			Document string         `json:"document"`
			Version  int64          `json:"version"`
			Text     string         `json:"text"`
			Start    int            `json:"start"`
			End      int            `json:"end"`
			Metadata map[string]any `json:"metadata"`
		} `json:"hits"`
		Generation struct {
			Name   string          `json:"name"`
			Recipe vectordb.Recipe `json:"recipe"`
		} `json:"generation"`
		Freshness struct {
			Lag       *string `json:"lag"`
			Satisfied bool    `json:"satisfied"`
		} `json:"freshness"`
	}
	if err := s.client.do(ctx, "POST", "/retrieve", request, &answer, options{header: unlogged, timeout: callTimeout + q.Wait}); err != nil {
		return evalfresh.Answer{}, s.failure(err)
	}
	out := evalfresh.Answer{Lag: -1, Satisfied: answer.Freshness.Satisfied, Generation: answer.Generation.Name}
	if lag := answer.Freshness.Lag; lag != nil {
		if d, err := time.ParseDuration(*lag); err == nil {
			out.Lag = max(d, 0)
		}
	}
	for _, hit := range answer.Hits {
		out.Hits = append(out.Hits, evalfresh.Hit(hit))
	}
	if r := answer.Generation.Recipe; r.Embedder.Model != "" && s.recipe.Load() == nil {
		recipe := describeRecipe(r)
		s.recipe.Store(&recipe)
	}
	return out, nil
}

func (s *freshnessServer) Measured(ctx context.Context) (evalfresh.Measured, error) {
	var answer struct {
		Entered struct {
			P50, P95, P99, Max, Window string
			Count                      int64
		} `json:"time_to_searchable"`
	}
	if err := s.client.do(ctx, "GET", "/freshness", nil, &answer, options{}); err != nil {
		return evalfresh.Measured{}, s.failure(err)
	}
	a := &answer.Entered
	m := evalfresh.Measured{Count: a.Count}
	for _, d := range []struct {
		text string
		into *time.Duration
	}{{a.P50, &m.P50}, {a.P95, &m.P95}, {a.P99, &m.P99}, {a.Max, &m.Max}, {a.Window, &m.Window}} {
		*d.into, _ = time.ParseDuration(d.text) // what is not there stays 0
	}
	return m, nil
}
