package openai_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/openai"
	"github.com/liverag/liverag/internal/mockprovider"
)

var quiet = slog.New(slog.DiscardHandler)

// hashed embeds by word hashing in any dimension.
func hashed(ctx context.Context, dim int, inputs []string) ([][]float32, error) {
	return embedder.NewHash(dim).Embed(ctx, embedder.Index, inputs)
}

// mock makes a provider of 64 dimensions, unless told otherwise.
func mock(t testing.TB, c mockprovider.Config) *mockprovider.Provider {
	t.Helper()
	c.Vectors = hashed
	if c.Dim == 0 {
		c.Dim = 64
	}
	p, err := mockprovider.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// listening serves a handler on loopback and is the configuration that reaches it.
func listening(t testing.TB, h http.Handler) openai.Config {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelError)
	s.Start()
	t.Cleanup(func() {
		s.CloseClientConnections() // a request that hangs would keep Close waiting
		s.Close()
	})
	return openai.Config{Model: "mock", BaseURL: s.URL + "/v1", Logger: quiet}
}

// pipes is a network in memory, which a synctest bubble can wait for.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.accepted <- server:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// inMemory serves a handler without a network, until stop.
func inMemory(t testing.TB, h http.Handler) (cfg openai.Config, stop func()) {
	t.Helper()
	network := &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: h, ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelError)}
	done := make(chan error, 1)
	go func() { done <- server.Serve(network) }()
	transport := &http.Transport{DialContext: network.dial, MaxIdleConnsPerHost: 64, DisableCompression: true}
	stop = func() {
		transport.CloseIdleConnections()
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
	}
	return openai.Config{Model: "mock", BaseURL: "http://mock.test/v1", HTTPClient: &http.Client{Transport: transport}, Logger: quiet}, stop
}

func open(t testing.TB, cfg openai.Config) *openai.Model {
	t.Helper()
	m, err := openai.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// answers is an endpoint that gives each request the next answer; after the last, it goes on giving that one.
func answers(all ...http.HandlerFunc) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			http.NotFound(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(&replay{body})
		mu.Lock()
		next := all[0]
		if len(all) > 1 {
			all = all[1:]
		}
		mu.Unlock()
		next(w, r)
	})
}

// replay is a body that was read.
type replay struct{ b []byte }

func (r *replay) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

// wellOtherwise gives the answer to every text but the one by which an endpoint is tried.
func wellOtherwise(answer http.HandlerFunc) http.Handler {
	return answers(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if bytes.Contains(body, []byte(`"input":["dimension"]`)) {
			says(200, onlyVector)(w, r)
			return
		}
		r.Body = io.NopCloser(&replay{body})
		answer(w, r)
	})
}

// says answers with a status, a body, and headers as pairs.
func says(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// failure is what a call failed with.
func failure(t testing.TB, err error) *embedder.Error {
	t.Helper()
	var failed *embedder.Error
	if !errors.As(err, &failed) {
		t.Fatalf("%v is no *embedder.Error", err)
	}
	return failed
}
