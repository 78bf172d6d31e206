package retrieve

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/vectordb"
)

var (
	away  = &embedder.Error{Op: "openai", Temporary: true, RetryAfter: 3 * time.Second, Input: -1, Err: errPlanted}
	unfit = &embedder.Error{Op: "openai", Account: true, Input: -1, Err: errPlanted}
)

// members are those of an answer, without the times that differ from run to run.
func members(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	var a map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 {
		t.Fatalf("%d %v: %s", w.Code, err, w.Body)
	}
	delete(a, "took")
	return a
}

// TestWordsAnswerWhileTheModelIsAway: whoever names no mode gets what mode lexical finds, in every respect, and is told why; whoever asks for meaning is told that there is none.
func TestWordsAnswerWhileTheModelIsAway(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		code   string // of the answer
		status int    // for those who name a mode
	}{
		{"away", away, "embedder_unavailable", 503},
		{"away, as a scheduler tells it", fmt.Errorf("some/endpoint is tried again at noon; the last time: %w", away), "embedder_unavailable", 503},
		{"its allowance used up", &embedder.Error{Op: "openai", Temporary: true, Throttled: true, Input: -1, Err: errPlanted}, "embedder_unavailable", 503},
		{"refuses us", unfit, "embedder_failed", 502},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, n := newTiny()
			n.embedder = words{tt.err}
			e := serve(t, s, n)
			for _, fields := range []string{``, `,"mode":null`, `,"k":1,"explain":true`, `,"filter":{"team":"nobody"}`, `,"generation":"two","after":["now","then"],"strict":true`, `,"after":"later","wait":"1ms"`, `,"max_staleness":"0s","wait":"1ms"`} {
				got := members(t, ask(e, "POST", "/retrieve", `{"query":"refunds"`+fields+`}`))
				said, _ := got["degraded"].(map[string]any)
				detail, _ := said["detail"].(string)
				if len(said) != 2 || said["code"] != tt.code || !strings.Contains(detail, "words alone") || strings.Contains(detail, errPlanted.Error()) {
					t.Errorf("%s: degraded is %v", fields, got["degraded"])
				}
				delete(got, "degraded")
				want := members(t, ask(e, "POST", "/retrieve", `{"query":"refunds","mode":"lexical"`+strings.ReplaceAll(fields, `,"mode":null`, ``)+`}`))
				if got["mode"] != "lexical" || !reflect.DeepEqual(got, want) {
					t.Errorf("%s: got %v, want %v", fields, got, want)
				}
			}
			for _, mode := range []string{"hybrid", "dense"} {
				for _, w := range []*httptest.ResponseRecorder{ask(e, "POST", "/retrieve", `{"query":"refunds","mode":"`+mode+`"}`), ask(e, "GET", "/retrieve?q=refunds&mode="+mode, "")} {
					refused(t, w, tt.status, tt.code, "without a mode or in mode lexical")
				}
			}
			refused(t, ask(e, "POST", "/retrieve", `{"query":"refunds","after":"later","wait":"1ms","strict":true}`), 503, "stale", "1ms")

			s.noLexical = true
			refused(t, ask(e, "POST", "/retrieve", `{"query":"refunds"}`), tt.status, tt.code, "can't search by words")
		})
	}
}

// TestDegradedAnswer is how it is written.
func TestDegradedAnswer(t *testing.T) {
	s, n := newTiny()
	n.embedder = words{away}
	e := serve(t, s, n)
	golden(t, "degraded", ask(e, "POST", "/retrieve", `{"query":"refunds"}`))
	golden(t, "degraded", ask(e, "GET", "/retrieve?q=refunds", ""))
}

// TestNoWordsForAQuestionAtFault: what the model refuses because of the question, and what nobody foresaw, stay errors.
func TestNoWordsForAQuestionAtFault(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"too long", &embedder.Error{Op: "openai", Input: 0, Err: errPlanted}, 400, "query_rejected"},
		{"too long, and said as of an account", &embedder.Error{Op: "openai", Account: true, Input: 0, Err: errPlanted}, 400, "query_rejected"},
		{"broken", &embedder.Error{Op: "openai", Input: -1, Err: errPlanted}, 502, "embedder_failed"},
		{"unknown", errPlanted, 500, "internal"},
	} {
		s, n := newTiny()
		n.embedder = words{tt.err}
		refused(t, ask(serve(t, s, n), "POST", "/retrieve", `{"query":"refunds"}`), tt.status, tt.code, "")
	}
	s, n := newTiny()
	n.embedder = words{away}
	s.fail = func(string) error { return vectordb.ErrClosed }
	refused(t, ask(serve(t, s, n), "POST", "/retrieve", `{"query":"refunds"}`), 503, "not_ready", "stopping")
}

// hanging is a model that never answers.
type hanging struct{ words }

func (hanging) Embed(ctx context.Context, _ embedder.Role, _ []string) ([][]float32, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("embed: %w", context.Cause(ctx))
}

// TestAHangingModelHoldsNobodyUp: words answer after a while, and whoever asks for meaning waits as long as he likes. One who goes away meanwhile gets nothing.
func TestAHangingModelHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, n := newTiny()
		n.embedder = hanging{}
		for patience, want := range map[time.Duration]time.Duration{0: 10 * time.Second, time.Second: time.Second} {
			r := New(Config{Store: s, Resolver: n, Follower: n, Patience: patience})
			began := time.Now()
			a, err := r.Retrieve(t.Context(), NewRequest("refunds"))
			if err != nil || a.Mode != Lexical || a.Degraded == nil || a.Degraded.Code != "embedder_unavailable" || len(a.Hits) != 1 || time.Since(began) != want || a.Took.Embed != want {
				t.Errorf("%+v, %v after %s, want words after %s", a, err, time.Since(began), want)
			}
		}
		r := New(Config{Store: s, Resolver: n, Follower: n})
		for _, mode := range []Mode{"", Hybrid, Dense} {
			within := 5 * time.Second
			if mode != "" {
				within = time.Minute
			}
			ctx, cancel := context.WithTimeout(t.Context(), within)
			began := time.Now()
			q := NewRequest("refunds")
			q.Mode = mode
			if a, err := r.Retrieve(ctx, q); err == nil || time.Since(began) != within {
				t.Errorf("mode %q: %+v, %v after %s", mode, a, err, time.Since(began))
			}
			cancel()
		}
	})
}

// TestDegradedAnswersAreCounted, and no others.
func TestDegradedAnswersAreCounted(t *testing.T) {
	s, n := newTiny()
	metrics := prometheus.NewRegistry()
	r := New(Config{Store: s, Resolver: n, Follower: n, Metrics: metrics})
	for i, model := range []embedder.Embedder{words{}, words{away}, words{unfit}} {
		n.embedder = model
		for range i + 1 {
			if _, err := r.Retrieve(t.Context(), NewRequest("refunds")); err != nil {
				t.Fatal(err)
			}
		}
	}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "liverag_retrieve_degraded_total" {
				got[m.GetLabel()[1].GetValue()+" "+m.GetLabel()[0].GetValue()] += m.GetCounter().GetValue() // generation, code
			}
		}
	}
	if want := map[string]float64{"one embedder_unavailable": 2, "one embedder_failed": 3}; !reflect.DeepEqual(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}
