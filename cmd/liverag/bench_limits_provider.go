package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/bpe"
	"github.com/liverag/liverag/internal/mockprovider"
)

// limitsDim is small: vectors are not what is measured.
const limitsDim = 64

// rehearsal is a mock provider on a port of its own that remembers every request.
type rehearsal struct {
	base   string // ends in /v1
	cfg    mockprovider.Config
	server *http.Server
	served chan error

	mu    sync.Mutex
	mock  *mockprovider.Provider
	since time.Time
	asked []*providerRequest
}

// providerRequest is one request.
type providerRequest struct {
	at, took time.Duration // since the clock was started
	status   int           // 0: the connection ended without an answer
	inputs   int           // of those that were answered with vectors
	tokens   int64
}

type requestKey struct{}

// rehearse opens a provider. What it does by time counts from start.
func rehearse(cfg mockprovider.Config) (*rehearsal, error) {
	encoding, err := bpe.Load(chunker.CL100K)
	if err != nil {
		return nil, err
	}
	model := embedder.NewHash(limitsDim)
	cfg.Dim, cfg.Tokens = limitsDim, encoding.Count
	cfg.Vectors = func(ctx context.Context, _ int, inputs []string) ([][]float32, error) {
		if q, ok := ctx.Value(requestKey{}).(*providerRequest); ok {
			q.inputs = len(inputs)
			for _, input := range inputs {
				q.tokens += int64(encoding.Count(input))
			}
		}
		return model.Embed(ctx, embedder.Index, inputs)
	}
	opening := cfg
	opening.Schedule, opening.Faults = nil, nil
	r := &rehearsal{cfg: cfg, served: make(chan error, 1)}
	if r.mock, err = mockprovider.New(opening); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r.base = "http://" + listener.Addr().String() + "/v1"
	r.server = &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() { r.served <- r.server.Serve(listener) }()
	return r, nil
}

// Close ends it, and what it is doing.
func (r *rehearsal) Close() error {
	err := r.server.Close()
	if served := <-r.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// start starts the clock: what was asked before is forgotten, and nothing of the allowance is used. The caller has waited until that is so.
func (r *rehearsal) start() error {
	mock, err := mockprovider.New(r.cfg)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mock, r.since, r.asked = mock, time.Now(), nil
	return nil
}

func (r *rehearsal) current() (*mockprovider.Provider, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mock, r.since
}

// settled are the totals once nothing is being worked on: an answer is counted a moment after its client has it. What hangs is not waited for.
func (r *rehearsal) settled() mockprovider.Stats {
	mock, _ := r.current()
	stats := mock.Stats()
	for end := time.Now().Add(time.Second); stats.InFlight > 0 && time.Now().Before(end); stats = mock.Stats() {
		time.Sleep(time.Millisecond)
	}
	return stats
}

// requests are those that ended since the clock was started, in the order in which they came.
func (r *rehearsal) requests() []providerRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]providerRequest, len(r.asked))
	for i, q := range r.asked {
		out[i] = *q
	}
	slices.SortFunc(out, func(a, b providerRequest) int { return int(a.at - b.at) })
	return out
}

// ServeHTTP passes a request on, and remembers it.
func (r *rehearsal) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	mock, since := r.current()
	if !strings.HasSuffix(req.URL.Path, "/embeddings") {
		mock.ServeHTTP(w, req)
		return
	}
	q := &providerRequest{at: time.Since(since)}
	answer := &statusWriter{ResponseWriter: w}
	defer func() { // also where the mock breaks the connection off
		q.took, q.status = time.Since(since)-q.at, answer.status
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.mock == mock {
			r.asked = append(r.asked, q)
		}
	}()
	mock.ServeHTTP(answer, req.WithContext(context.WithValue(req.Context(), requestKey{}, q)))
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(body []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(body)
}
