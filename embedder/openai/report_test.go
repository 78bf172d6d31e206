package openai_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/openai"
)

var _ embedder.Reporter = (*openai.Model)(nil)

// vectors answers with a vector for each input, and 10 tokens for each.
func vectors(headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Input []string }
		json.NewDecoder(r.Body).Decode(&body)
		data := strings.TrimSuffix(strings.Repeat(`{"embedding":[3,4]},`, len(body.Input)), ",")
		says(200, fmt.Sprintf(`{"data":[%s],"usage":{"prompt_tokens":%d,"total_tokens":%[2]d}}`, data, 10*len(body.Input)), headers...)(w, r)
	}
}

// limited answers only to requests of at most so many inputs, and refuses others as text-embeddings-inference does.
func limited(most int, answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var body struct{ Input []string }
		json.Unmarshal(b, &body)
		if len(body.Input) > most {
			says(422, fmt.Sprintf(`{"error":"batch size %d > maximum allowed batch size %d","error_type":"Validation"}`, len(body.Input), most))(w, r)
			return
		}
		r.Body = io.NopCloser(&replay{b})
		answer(w, r)
	}
}

func TestReport(t *testing.T) {
	const tooMuch = `{"error":{"message":"Rate limit reached for m in organization o on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.","type":"requests","code":"rate_limit_exceeded"}}`
	rates := []string{"x-ratelimit-limit-requests", "3000", "x-ratelimit-remaining-requests", "2999", "x-ratelimit-reset-requests", "20ms", "x-ratelimit-limit-tokens", "1000000", "x-ratelimit-remaining-tokens", "999000", "x-ratelimit-reset-tokens", "60ms"}
	ofRequests := embedder.Told{Limit: 3000, State: true, Left: 2999, Reset: 20 * time.Millisecond}
	ofTokens := embedder.Told{Limit: 1e6, State: true, Left: 999_000, Reset: 60 * time.Millisecond}
	met := embedder.Told{Limit: 3, Per: time.Minute, State: true, Reset: time.Minute}
	noBase64 := says(400, `{"object":"error","message":"base64 encoding is not currently supported","code":400}`, rates...)
	for _, tt := range []struct {
		name   string
		answer http.Handler
		change func(*openai.Config)
		inputs []string
		want   embedder.Report
		ok     bool
	}{
		{"one", answers(vectors()), nil, []string{"a", "b"}, embedder.Report{Calls: 1, Charged: 20}, true},
		{"blank", answers(vectors()), nil, []string{" ", ""}, embedder.Report{}, true},
		{"told", answers(vectors(rates...)), nil, []string{"a", " ", "b"}, embedder.Report{Calls: 1, Charged: 20, Requests: ofRequests, Tokens: ofTokens}, true},
		{"total tokens only", answers(says(200, `{"data":[{"embedding":[3,4]}],"usage":{"total_tokens":7}}`)), nil, []string{"a"}, embedder.Report{Calls: 1, Charged: 7}, true},
		{"split", answers(vectors()), func(c *openai.Config) { c.MaxBatch = 2 }, []string{"a", "b", "c", "d", "e"}, embedder.Report{Calls: 3, Charged: 50}, true},
		{"not base64", answers(says(200, onlyVector), noBase64, vectors()), nil, []string{"a"}, embedder.Report{Calls: 2, Charged: 10, Requests: ofRequests, Tokens: ofTokens}, true},
		{"lowered", answers(limited(2, vectors())), nil, []string{"a", "b", "c", "d", "e"}, embedder.Report{Calls: 4, Charged: 50}, true},
		{"throttled", answers(says(200, onlyVector), says(429, tooMuch, rates...)), nil, []string{"a"}, embedder.Report{Calls: 1, Requests: met, Tokens: ofTokens}, false},
		{"throttled half-way", answers(says(200, onlyVector), vectors(rates...), says(429, tooMuch)), func(c *openai.Config) { c.MaxBatch = 1 }, []string{"a", "b", "c"}, embedder.Report{Calls: 2, Charged: 10, Requests: met, Tokens: ofTokens}, false},
		{"blamed", wellOtherwise(says(400, `{"error":"no"}`)), nil, []string{"a"}, embedder.Report{Calls: 2, Charged: 5}, false},
		{"charged in vain", answers(says(200, onlyVector), says(200, `{"data":[{"embedding":[1,2,3]}],"usage":{"prompt_tokens":9}}`)), nil, []string{"a"}, embedder.Report{Calls: 1, Charged: 9}, false},
		{"cut", answers(says(200, onlyVector), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), nil, []string{"a"}, embedder.Report{Calls: 1}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := listening(t, tt.answer)
			if tt.change != nil {
				tt.change(&cfg)
			}
			m := open(t, cfg)
			v, got, err := m.EmbedReported(t.Context(), embedder.Index, tt.inputs)
			if (err == nil) != tt.ok || tt.ok && len(v) != len(tt.inputs) {
				t.Errorf("%v, %v", v, err)
			}
			if got != tt.want {
				t.Errorf("reported %+v\n     want %+v", got, tt.want)
			}
		})
	}
}
