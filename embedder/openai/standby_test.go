package openai_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/openai"
	"github.com/liverag/liverag/internal/mockprovider"
)

// switched is an endpoint that can be exchanged for another one; http.StatusServiceUnavailable while it is down.
type switched struct{ to atomic.Pointer[http.Handler] }

func (s *switched) set(h http.Handler) { s.to.Store(&h) }

func (s *switched) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*s.to.Load()).ServeHTTP(w, r) }

func standby(t *testing.T, first *openai.Model, cfg openai.Config) *openai.Standby {
	t.Helper()
	s, err := openai.NewStandby(first, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestStandbyIsComparedFirst: nothing comes from an endpoint before it was seen to have the same vectors; once it was, it is not asked again.
func TestStandbyIsComparedFirst(t *testing.T) {
	well := mock(t, mockprovider.Config{})
	down := says(503, "")
	for _, tt := range []struct {
		name   string
		other  http.Handler
		change func(*openai.Config)
		want   kind
		says   string
	}{
		{"the same", mock(t, mockprovider.Config{}), nil, "", ""},
		{"called otherwise", mock(t, mockprovider.Config{Models: []string{"mock-2"}}), func(c *openai.Config) { c.Model = "mock-2" }, "", ""},
		{"another dimension", mock(t, mockprovider.Config{Dim: 48}), nil, account, "48 dimensions"},
		{"other values", noisy(t, 64, 1), nil, account, "embed documents differently"},
		{"shorter inputs", mock(t, mockprovider.Config{}), func(c *openai.Config) { c.MaxInput = 256 }, account, "reads 256 tokens"},
		{"down", down, nil, waits, "503"},
		{"a wrong key", mock(t, mockprovider.Config{Key: "sk"}), func(c *openai.Config) { c.Key, c.KeyName = "other", "THE_OTHER_KEY" }, account, "set THE_OTHER_KEY"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := listening(t, well)
			first.MaxInput = 512
			cfg := listening(t, tt.other)
			cfg.MaxInput = 512
			if tt.change != nil {
				tt.change(&cfg)
			}
			m := open(t, first)
			s := standby(t, m, cfg)
			if s.Name() != m.Name() || s.Dim() != 64 || s.MaxInput() != 512 || s.CountTokens("a text") != m.CountTokens("a text") || s.Endpoint() != cfg.BaseURL {
				t.Errorf("%s, %d, %d, %s", s.Name(), s.Dim(), s.MaxInput(), s.Endpoint())
			}
			for range 2 {
				vectors, err := s.Embed(t.Context(), embedder.Index, []string{"refund", " "})
				if tt.want == "" {
					if want, _ := hashed(t.Context(), 64, []string{"refund"}); err != nil || !slices.Equal(vectors[0], want[0]) {
						t.Errorf("%v, %v", vectors, err)
					}
					continue
				}
				if err == nil || kindOf(t, failure(t, err)) != tt.want || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), cfg.BaseURL) {
					t.Errorf("%v", err)
				}
				if again := s.Check(t.Context()); again == nil || again.Error() != err.Error() {
					t.Errorf("%v, then %v", err, again)
				}
			}
		})
	}
	if _, err := openai.NewStandby(open(t, listening(t, well)), openai.Config{Model: "mock", BaseURL: "b/v1"}); kindOf(t, failure(t, err)) != account {
		t.Error(err)
	}
}

// TestStandbyThatWasAway: it is compared when it is back, also if the first endpoint is away by then, whose vectors were kept.
func TestStandbyThatWasAway(t *testing.T) {
	well, down := mock(t, mockprovider.Config{}), says(503, "")
	var a, b switched
	a.set(well)
	b.set(down)
	s := standby(t, open(t, listening(t, &a)), listening(t, &b))
	if err := s.Check(t.Context()); err == nil || !failure(t, err).Temporary {
		t.Errorf("while it is away: %v", err)
	}
	a.set(down)
	for _, want := range []int{4, 1} {
		b.set(well)
		if _, report, err := s.EmbedReported(t.Context(), embedder.Index, []string{"a"}); err != nil || report.Calls != want {
			t.Errorf("when it is back: %v, after %d requests", err, report.Calls)
		}
	}
}

// TestStandbyOfOneThatWasAway: while the first endpoint has not been seen well there is nothing to compare with. The first call that it answers makes up for that, and a standby that was wrong is put
// right without a restart.
func TestStandbyOfOneThatWasAway(t *testing.T) {
	well, down := mock(t, mockprovider.Config{}), says(503, "")
	var a, b switched
	a.set(well)
	b.set(well)
	m := open(t, listening(t, &a))
	a.set(down)
	s := standby(t, m, listening(t, &b))
	if err := s.Check(t.Context()); err == nil || !failure(t, err).Temporary || !strings.Contains(err.Error(), m.Endpoint()+": ") {
		t.Errorf("with nothing to be compared with: %v", err)
	}
	a.set(well)
	for _, want := range []int{3, 1} {
		if _, report, err := m.EmbedReported(t.Context(), embedder.Query, []string{"a"}); err != nil || report.Calls != want {
			t.Errorf("the first is back: %v, after %d requests", err, report.Calls)
		}
	}
	a.set(down)
	b.set(noisy(t, 64, 1))
	if _, err := s.Embed(t.Context(), embedder.Index, []string{"a"}); err == nil || !failure(t, err).Account {
		t.Errorf("with other vectors: %v", err)
	}
	b.set(well)
	if _, err := s.Embed(t.Context(), embedder.Index, []string{"a"}); err != nil {
		t.Errorf("put right: %v", err)
	}
}

// TestStandbyIsLookedAtOnce: calls that come together don't each compare.
func TestStandbyIsLookedAtOnce(t *testing.T) {
	p := mock(t, mockprovider.Config{})
	s := standby(t, open(t, listening(t, mock(t, mockprovider.Config{}))), listening(t, p))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := s.Embed(t.Context(), embedder.Index, []string{"a"}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := p.Stats().Requests; n != 8+3 {
		t.Errorf("%d requests for 8 calls", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Embed(ctx, embedder.Index, []string{"a"}); err == nil {
		t.Error("embedded for somebody who has gone")
	}
}
