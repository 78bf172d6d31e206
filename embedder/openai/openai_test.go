package openai_test

import (
	"bytes"
	"context"
	crypto "crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
	"github.com/liverag/liverag/embedder/openai"
	"github.com/liverag/liverag/internal/mockprovider"
)

func TestConforms(t *testing.T) {
	for name, change := range map[string]func(*openai.Config, *mockprovider.Config){
		"base64":    func(*openai.Config, *mockprovider.Config) {},
		"float":     func(c *openai.Config, _ *mockprovider.Config) { c.Encoding = openai.Float },
		"no base64": func(_ *openai.Config, m *mockprovider.Config) { m.NoBase64 = true },
		"shuffled": func(_ *openai.Config, m *mockprovider.Config) {
			m.Faults = []mockprovider.Fault{{Kind: "shuffle", Share: 1}}
		},
		"no index": func(_ *openai.Config, m *mockprovider.Config) {
			m.Faults = []mockprovider.Fault{{Kind: "noindex", Share: 1}}
		},
		"shortened": func(c *openai.Config, m *mockprovider.Config) { c.Dimensions, m.MaxDim = 48, 64 },
		"small requests": func(c *openai.Config, _ *mockprovider.Config) {
			c.MaxBatch, c.MaxBatchTokens = 7, 900
		},
		"prefixes": func(c *openai.Config, _ *mockprovider.Config) { c.IndexPrefix, c.QueryPrefix = "passage: ", "query: " },
		"batched":  func(*openai.Config, *mockprovider.Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			var m mockprovider.Config
			change(&openai.Config{}, &m)
			cfg := listening(t, mock(t, m))
			change(&cfg, &mockprovider.Config{})
			embeddertest.Run(t, func() embedder.Embedder {
				model := open(t, cfg)
				if name == "batched" {
					return embedder.Batch(model, embedder.BatchConfig{MaxInputs: model.MaxBatch()})
				}
				return model
			})
		})
	}
}

// What is sent, field for field.
func TestRequest(t *testing.T) {
	type sent struct {
		path, query, auth, org, extra string
		body                          map[string]any
	}
	var mu sync.Mutex
	var last sent
	provider := mock(t, mockprovider.Config{MaxDim: 64})
	cfg := listening(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			http.NotFound(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		last = sent{path: r.URL.Path, query: r.URL.RawQuery, auth: r.Header.Get("Authorization"), org: r.Header.Get("OpenAI-Organization"), extra: r.Header.Get("X-Team"), body: map[string]any{}}
		if err := json.Unmarshal(body, &last.body); err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		provider.ServeHTTP(w, r)
	}))
	cfg.BaseURL += "/?api-version=7"
	cfg.Model, cfg.Key, cfg.Organization, cfg.Headers = "m", "sk-secret-secret", "org-1", map[string]string{"X-Team": "search"}
	cfg.Dimensions, cfg.IndexPrefix, cfg.QueryPrefix = 32, "passage: ", "query: "
	cfg.InputTypeField, cfg.InputTypeIndex, cfg.InputTypeQuery = "task", "retrieval.passage", "retrieval.query"
	cfg.Extra = map[string]any{"truncation": false}
	m := open(t, cfg)
	for role, want := range map[embedder.Role]map[string]any{
		embedder.Index: {"input": []any{"passage: a<b", "passage: c"}, "task": "retrieval.passage"},
		embedder.Query: {"input": []any{"query: a<b", "query: c"}, "task": "retrieval.query"},
	} {
		maps.Copy(want, map[string]any{"model": "m", "encoding_format": "base64", "dimensions": 32.0, "truncation": false})
		if _, err := m.Embed(t.Context(), role, []string{"a<b", " ", "c"}); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(last.body) != fmt.Sprint(want) {
			t.Errorf("%v: sent %v, want %v", role, last.body, want)
		}
	}
	if last.path != "/v1/embeddings" || last.query != "api-version=7" || last.auth != "Bearer sk-secret-secret" || last.org != "org-1" || last.extra != "search" {
		t.Errorf("sent %+v", last)
	}
	if m.Dim() != 32 || !strings.HasPrefix(m.Name(), "openai/m+dim=32+as=") {
		t.Errorf("%s of %d dimensions", m.Name(), m.Dim())
	}
}

func TestName(t *testing.T) {
	cfg := listening(t, mock(t, mockprovider.Config{}))
	names := map[string]string{}
	for what, change := range map[string]func(*openai.Config){
		"bare":         func(*openai.Config) {},
		"dimensions":   func(c *openai.Config) { c.Dimensions = 32 },
		"index prefix": func(c *openai.Config) { c.IndexPrefix = "x" },
		"query prefix": func(c *openai.Config) { c.QueryPrefix = "x" },
		"input type":   func(c *openai.Config) { c.InputTypeIndex = "x" },
		"other type":   func(c *openai.Config) { c.InputTypeQuery = "x" },
		"field":        func(c *openai.Config) { c.InputTypeQuery, c.InputTypeField = "x", "task" },
		"extra":        func(c *openai.Config) { c.Extra = map[string]any{"a": 1, "b": 2} },
	} {
		c := cfg
		change(&c)
		name := open(t, c).Name()
		if other, taken := names[name]; taken {
			t.Errorf("%s and %s have the name %s", what, other, name)
		}
		names[name] = what
	}
	if names["openai/mock"] != "bare" {
		t.Errorf("names: %v", names)
	}
	c := cfg
	c.Key, c.Encoding, c.InputTypeField, c.Timeout = "sk-another-key", openai.Float, "unused", time.Hour
	if name := open(t, c).Name(); name != "openai/mock" {
		t.Errorf("%s, although nothing that decides a vector was changed", name)
	}
}

func TestConfigIsChecked(t *testing.T) {
	for want, cfg := range map[string]openai.Config{
		"which model?":               {},
		"base URL":                   {Model: "m", BaseURL: "localhost:11434"},
		"neither base64 nor float":   {Model: "m", Encoding: "int8"},
		"can't be negative":          {Model: "m", Dimensions: -1},
		"256 are to be asked for":    {Model: "m", Dimensions: 256, Dim: 512},
		"a setting of its own":       {Model: "m", Extra: map[string]any{"dimensions": 3}},
		"the header \"X\\n\"":        {Model: "m", Headers: map[string]string{"X\n": "y"}},
		"a line break in it":         {Model: "m", Key: "sk\n"},
		"extra fields can't be sent": {Model: "m", Extra: map[string]any{"f": func() {}}},
	} {
		_, err := openai.Open(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
			continue
		}
		if failed := failure(t, err); kindOf(t, failed) != account {
			t.Errorf("%v: %+v", err, failed)
		}
	}
}

const onlyVector = `{"data":[{"index":0,"embedding":[3,4]}],"model":"mock","usage":{"prompt_tokens":5}}`

// Each failure, as it is when the endpoint worked before: one input in the request, then three.
func TestFailures(t *testing.T) {
	openAI := func(code, param, message string) string {
		return fmt.Sprintf(`{"error":{"message":%q,"type":"invalid_request_error","param":%q,"code":%q}}`, message, param, code)
	}
	for _, tt := range []struct {
		name    string
		answer  http.HandlerFunc
		kind    kind          // with one input in the request
		ofThree kind          // with three
		after   time.Duration // RetryAfter
		want    string        // in the text
	}{
		{"429 seconds", says(429, openAI("rate_limit_exceeded", "", "slow down"), "Retry-After", "7"), waits, waits, 7 * time.Second, "slow down"},
		{"429 fraction", says(429, "", "Retry-After", "0.25"), waits, waits, 250 * time.Millisecond, "429 Too Many Requests"},
		{"429 date", says(429, "", "Retry-After", "Wed, 21 Oct 2015 07:28:30 GMT", "Date", "Wed, 21 Oct 2015 07:28:00 GMT"), waits, waits, 30 * time.Second, ""},
		{"429 ms", says(429, "", "Retry-After-Ms", "1500", "Retry-After", "2"), waits, waits, 1500 * time.Millisecond, ""},
		{"429 reset", says(429, "", "X-Ratelimit-Remaining-Requests", "12", "X-Ratelimit-Reset-Requests", "1m", "X-Ratelimit-Remaining-Tokens", "0", "X-Ratelimit-Reset-Tokens", "6s"), waits, waits, 6 * time.Second, ""},
		{"429 words", says(429, openAI("", "", "Limit 3, Used 3. Please try again in 1m20.5s.")), waits, waits, 80500 * time.Millisecond, ""},
		{"429 for ever", says(429, "", "Retry-After", "1e99"), waits, waits, time.Hour, ""},
		{"429 silent", says(429, ""), waits, waits, 0, "429 Too Many Requests"},
		{"quota", says(429, openAI("insufficient_quota", "", "You exceeded your current quota"), "Retry-After", "1"), account, account, 0, "billing"},
		{"400", says(400, openAI("", "input", "invalid input")), input, unknown, 0, "invalid input"},
		{"400 named", says(400, openAI("", "input", "'$.input[2]' is invalid")), input, third, 0, "invalid"},
		{"400 setting", says(400, openAI("", "dimensions", "This model does not support specifying dimensions.")), account, account, 0, "dimensions"},
		{"400 billing", says(400, openAI("billing_hard_limit_reached", "", "Billing hard limit has been reached")), account, account, 0, "billing"},
		{"400 budget", says(400, `{"error":{"message":"Budget has been exceeded! Current cost: 26.075, Max budget: 0.25","type":"auth_error","param":null,"code":400}}`), account, account, 0, "billing"},
		{"429 budget", says(429, `{"error":{"message":"LiteLLM User: engineer-1, exceeded budget","type":"budget_exceeded","param":null,"code":"429"}}`), account, account, 0, "billing"},
		{"429 quota through LiteLLM", says(429, `{"error":{"message":"litellm.RateLimitError: OpenAIException - You exceeded your current quota, please check your plan and billing details.","type":null,"param":null,"code":"429"}}`), account, account, 0, "billing"},
		{"429 Gemini", says(429, `[{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. To monitor your current usage, head to: https://ai.dev/usage?tab=rate-limit. \n* Quota exceeded for metric: generativelanguage.googleapis.com/embed_content_free_tier_requests, limit: 100, model: gemini-embedding-1.0\nPlease retry in 34.074824224s.","status":"RESOURCE_EXHAUSTED"}}]`), waits, waits, 34074824224 * time.Nanosecond, "429 Too Many Requests: You exceeded"},
		{"429 Cohere's month", says(429, `{"id":"x","message":"You are using a Trial key, which is limited to 1000 API calls / month. You can continue to use the Trial key for free"}`), account, account, 0, "billing"},
		{"429 Cohere's minute", says(429, `{"id":"x","message":"You are using a Trial key, which is limited to 40 API calls / minute."}`), waits, waits, 0, "Trial key"},
		{"429 Mistral", says(429, `{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,"code":"1300","raw_status_code":429}`), waits, waits, 0, "Rate limit exceeded"},
		{"429 too large", says(429, openAI("rate_limit_exceeded", "", "Request too large for m in organization o on tokens per min (TPM): Limit 10000, Requested 12000.")), input, input, 0, "too large"},
		{"400 param None", says(400, `{"error":{"message":"litellm.BadRequestError: bad text","type":"None","param":"None","code":"400"}}`), input, unknown, 0, "bad text"},
		{"400 other param", says(400, openAI("", "texts", "bad text")), input, unknown, 0, "bad text"},
		{"400 own field", says(400, openAI("", "task", "unknown task")), account, account, 0, "unknown task"},
		{"400 extra field", says(400, openAI("", "truncate", "unknown value")), account, account, 0, "unknown value"},
		{"400 Azure's model", says(400, `{"error":{"code":"OperationNotSupported","message":"The embeddings operation does not work with the specified model, gpt-4."}}`), account, account, 0, "does not work"},
		{"400 no shape", says(400, "no"), input, unknown, 0, "400 Bad Request: no"},
		{"413", says(413, `{"error":"`+"`inputs` must have less than 512 tokens. Given: 785"+`","error_type":"Validation"}`), input, unknown, 0, "less than 512"},
		{"422 with the text", says(422, `{"detail":[{"msg":"bad text","input":["Budget has been exceeded!"]}]}`), input, unknown, 0, "bad text"},
		{"422", says(422, `{"detail":[{"msg":"bad text"}]}`), input, unknown, 0, "bad text"},
		{"401", says(401, openAI("invalid_api_key", "", "Incorrect API key provided: sk-my-secret-key")), account, account, 0, "OPENAI_API_KEY"},
		{"402", says(402, ""), account, account, 0, "billing"},
		{"403 firewall", says(403, "<html><h1>403 Forbidden</h1></html>"), input, unknown, 0, "firewall"},
		{"404 Azure", says(404, `{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}`), account, account, 0, "does not have mock"},
		{"407", says(407, ""), account, account, 0, "407"},
		{"410", says(410, ""), account, account, 0, "410"},
		{"413 bytes", says(413, "<html>413 Request Entity Too Large</html>"), input, input, 0, "413"},
		{"418", says(418, ""), unknown, unknown, 0, "418"},
		{"424", says(424, `{"error":"DriverError(CUDA_ERROR_OUT_OF_MEMORY)","error_type":"Backend"}`), waits, unknown, 0, "OUT_OF_MEMORY"},
		{"505", says(505, ""), account, account, 0, "505"},
		{"529", says(529, `{"error":{"message":"overloaded"}}`), waits, waits, 0, "overloaded"},
		{"403", says(403, ""), account, account, 0, "may not use"},
		{"404 model", says(404, `{"error":{"message":"model \"mock\" not found, try pulling it first"}}`), account, account, 0, "/v1/models"},
		{"404", says(404, "404 page not found"), account, account, 0, "ends in /v1"},
		{"405", says(405, ""), account, account, 0, "ends in /v1"},
		{"408", says(408, ""), waits, waits, 0, "408"},
		{"500", says(500, "<html>"), waits, waits, 0, "500 Internal Server Error: (a web page)"},
		{"503", says(503, "", "Retry-After", "3"), waits, waits, 3 * time.Second, "503"},
		{"500 NaN", says(500, `{"error":"failed to encode response: json: unsupported value: NaN"}`), input, unknown, 0, "NaN"},
		{"500 too long", says(500, `{"error":{"code":500,"message":"input is too large to process. increase the physical batch size","type":"server_error"}}`), input, unknown, 0, "too large"},
		{"501", says(501, ""), account, account, 0, "501"},
		{"200 error", says(200, `{"error":{"message":"busy","code":429}}`), waits, waits, 0, "429 Too Many Requests: busy"},
		{"200 error without code", says(200, `{"error":{"message":"upstream"}}`), waits, waits, 0, "upstream"},
		{"redirect", says(307, "", "Location", "http://elsewhere.test/v1/embeddings?key=sk-my-secret-key"), account, account, 0, "to http://elsewhere.test/v1/embeddings; redirects are not followed"},
		{"html", says(200, "<html>down for maintenance</html>"), waits, waits, 0, "web page"},
		{"no JSON", says(200, "ok"), waits, unknown, 0, "malformed"},
		{"empty", says(200, ""), waits, unknown, 0, "malformed"},
		{"truncated", says(200, onlyVector, "Content-Length", "5000"), waits, waits, 0, "broke"},
		{"half", says(200, onlyVector[:40]), waits, unknown, 0, "malformed"},
		{"cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, waits, waits, 0, "broke the connection off"},
		{"too few", says(200, `{"data":[]}`), waits, unknown, 0, "0 vectors"},
		{"empty vector", says(200, `{"data":[{"embedding":[]},{"embedding":[]},{"embedding":[]}]}`), waits, unknown, 0, "vectors for 1 inputs"},
		{"too long", says(200, `{"data":[`+strings.Repeat(" ", 2<<20)), waits, unknown, 0, "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := listening(t, wellOtherwise(tt.answer))
			cfg.Key, cfg.InputTypeField, cfg.Extra = "sk-my-secret-key", "task", map[string]any{"truncate": "NONE"}
			m := open(t, cfg)
			check := func(want kind, place int, inputs ...string) {
				t.Helper()
				vectors, err := m.Embed(t.Context(), embedder.Index, inputs)
				if err == nil || vectors != nil {
					t.Fatalf("%d inputs: %v, %v", len(inputs), vectors, err)
				}
				failed := failure(t, err)
				if kindOf(t, failed) != want || failed.Input >= 0 && failed.Input != place || failed.RetryAfter != tt.after {
					t.Errorf("%d inputs: %v (want %v), input %d, after %v: %v", len(inputs), kindOf(t, failed), want, failed.Input, failed.RetryAfter, err)
				}
				if throttled := strings.Contains(err.Error(), "429 Too Many Requests") && want == waits; failed.Throttled != throttled {
					t.Errorf("throttled %t: %v", failed.Throttled, err)
				}
				if len(inputs) == 1 && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%q is not in %v", tt.want, err)
				}
				if strings.Contains(err.Error(), "secret") {
					t.Errorf("it tells the key: %v", err)
				}
			}
			check(tt.kind, 0, "a")
			if tt.ofThree == third {
				check(input, 2, "a", "b", "c")
			} else {
				check(tt.ofThree, 0, "a", "b", "c")
			}
			// A blank input moves the place of the others.
			check(tt.kind, 1, " ", "a")
		})
	}
}

// kind is what is to be done about a failure.
type kind string

const (
	waits   kind = "temporary"
	account kind = "the account's"
	input   kind = "an input's"
	unknown kind = "permanent" // to be narrowed down by smaller requests
	third   kind = "the third input's"
)

// kindOf is the one kind that a failure is of.
func kindOf(t testing.TB, failed *embedder.Error) kind {
	t.Helper()
	all := []kind{}
	if failed.Temporary {
		all = append(all, waits)
	}
	if failed.Account {
		all = append(all, account)
	}
	if failed.Input >= 0 {
		all = append(all, input)
	}
	switch len(all) {
	case 0:
		return unknown
	case 1:
		return all[0]
	}
	t.Errorf("%v all at once: %v", all, failed)
	return ""
}

// An endpoint that refuses every text, or answers each with NaN, is not taken for one that was sent a bad text: no document is given up for it.
func TestSickEndpointBlamesNobody(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"400":  says(400, `{"error":{"message":"this model was retired"}}`),
		"NaN":  says(200, `{"data":[{"embedding":[1,NaN]}]}`),
		"zero": says(200, `{"data":[{"embedding":[0,0]}]}`),
		"500":  says(500, `{"error":"failed to encode response: json: unsupported value: NaN"}`),
		"wall": says(403, "<html>403 Forbidden</html>"),
	} {
		m := open(t, listening(t, answers(says(200, onlyVector), answer)))
		for _, inputs := range [][]string{{"a"}, {"a", "b"}} {
			want := account
			if len(inputs) > 1 && name != "wall" {
				want = unknown // until it is narrowed down
				if name == "NaN" || name == "zero" {
					continue // the answer has one vector
				}
			}
			_, err := m.Embed(t.Context(), embedder.Index, inputs)
			if kind := kindOf(t, failure(t, err)); kind != want || want == account && !strings.Contains(err.Error(), "other texts fare no better") {
				t.Errorf("%s, %d inputs: %v: %v", name, len(inputs), kind, err)
			}
		}
	}
	m := open(t, listening(t, answers(says(200, onlyVector), says(400, "no"), says(503, "", "Retry-After", "4"))))
	_, err := m.Embed(t.Context(), embedder.Index, []string{"a"})
	if failed := failure(t, err); failed.Input >= 0 || !failed.Temporary || failed.RetryAfter != 4*time.Second {
		t.Errorf("not known to be well: %+v", failed)
	}
}

// A server that was exchanged for one without base64.
func TestEncodingChanges(t *testing.T) {
	m := open(t, listening(t, answers(says(200, onlyVector), says(400, `{"object":"error","message":"base64 encoding is not currently supported","code":400}`), says(200, onlyVector))))
	for range 2 {
		if _, err := m.Embed(t.Context(), embedder.Index, []string{"a"}); err != nil {
			t.Error(err)
		}
	}
}

// A refusal that only sounds as if there were too many inputs is for the one input that is left, and does not keep requests small.
func TestNotTooMany(t *testing.T) {
	m := open(t, listening(t, wellOtherwise(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Input []string }
		json.NewDecoder(r.Body).Decode(&body)
		if slices.Contains(body.Input, "bad") {
			says(400, `{"error":"can't read: we take at most 3 items a customer"}`)(w, r)
			return
		}
		fmt.Fprintf(w, `{"data":[%s]}`, strings.TrimSuffix(strings.Repeat(`{"embedding":[3,4]},`, len(body.Input)), ","))
	})))
	for _, e := range []embedder.Embedder{m, embedder.Batch(m, embedder.BatchConfig{})} {
		_, err := e.Embed(t.Context(), embedder.Index, []string{"a", "b", "c", "d", "bad", "e"})
		if failed := failure(t, err); failed.Temporary || failed.Input != 4 {
			t.Errorf("input %d: %v", failed.Input, err)
		}
	}
	if m.MaxBatch() != 32 {
		t.Errorf("MaxBatch stays %d", m.MaxBatch())
	}
}

func TestTooLongIsTold(t *testing.T) {
	cfg := listening(t, mock(t, mockprovider.Config{MaxInputTokens: 10}))
	m := open(t, cfg)
	if m.MaxInput() != 10 {
		t.Errorf("MaxInput is %d, and the list of models says 10", m.MaxInput())
	}
	_, err := m.Embed(t.Context(), embedder.Index, []string{strings.Repeat("long ", 20)})
	if failed := failure(t, err); !errors.Is(err, embedder.ErrInputTooLong) || failed.Input != 0 || failed.Temporary {
		t.Errorf("got %v", err)
	}
}

// A request may have too many bytes for a proxy, and one text alone too many: that does not make the next requests larger again.
func TestTooManyBytes(t *testing.T) {
	m := open(t, listening(t, answers(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if len(b) > 300 {
			says(413, "<html><h1>413 Request Entity Too Large</h1></html>")(w, r)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(b))
		vectors()(w, r)
	})))
	_, report, err := m.EmbedReported(t.Context(), embedder.Index, slices.Repeat([]string{strings.Repeat("x", 50)}, 16))
	if n := m.MaxBatch(); err != nil || n != 4 || report.Calls != 6 {
		t.Errorf("MaxBatch is %d after %+v: %v", n, report, err)
	}
	_, err = m.Embed(t.Context(), embedder.Index, []string{strings.Repeat("x", 400)})
	if kindOf(t, failure(t, err)) != input || m.MaxBatch() != 4 {
		t.Errorf("MaxBatch is %d: %v", m.MaxBatch(), err)
	}
}

// What goes wrong below HTTP, with an endpoint that was well before.
func TestConnectionFailures(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want kind
		says string
	}{
		{"authority", &crypto.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, account, "can't be trusted"},
		{"host name", &crypto.CertificateVerificationError{Err: errors.New("certificate is valid for elsewhere.test")}, account, "can't be trusted"},
		{"bare authority", x509.UnknownAuthorityError{}, account, "can't be trusted"},
		{"no TLS", crypto.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, account, "should the base URL begin with http://"},
		{"plain HTTP", http.ErrSchemeMismatch, account, "should the base URL begin with http://"},
		{"alert", &net.OpError{Op: "remote error", Err: errors.New("tls: handshake failure")}, account, "is a client certificate wanted"},
		{"alert of trouble", &net.OpError{Op: "remote error", Err: errors.New("tls: internal error")}, waits, "internal error"},
		{"no such host", &net.DNSError{Err: "no such host", Name: "mock.test", IsNotFound: true}, waits, "can't be found"},
		{"nobody listens", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, waits, "nothing listens at"},
		{"reset", &net.OpError{Op: "read", Err: syscall.ECONNRESET}, waits, "broke the connection off"},
		{"end", io.EOF, waits, "broke the connection off"},
		{"unheard of", errors.New("http2: client connection lost"), waits, "client connection lost"},
	} {
		well := true
		through := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if !well {
				return nil, tt.err
			}
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(onlyVector)), Request: r}, nil
		})}
		m := open(t, openai.Config{Model: "mock", BaseURL: "https://mock.test/v1", MaxInput: -1, HTTPClient: through, Logger: quiet})
		well = false
		for _, texts := range [][]string{{"a"}, {"a", "b"}} {
			_, report, err := m.EmbedReported(t.Context(), embedder.Index, texts)
			if kindOf(t, failure(t, err)) != tt.want || !strings.Contains(err.Error(), tt.says) || report.Calls != 1 {
				t.Errorf("%s: %+v, %v", tt.name, report, err)
			}
		}
	}
}

// The first request fails: what it says, and whether trying again is of use.
func TestOpenFails(t *testing.T) {
	certified := httptest.NewUnstartedServer(mock(t, mockprovider.Config{}))
	certified.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelError)
	certified.TLS = &crypto.Config{ClientAuth: crypto.RequireAnyClientCert}
	certified.StartTLS()
	defer certified.Close()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	tls.Config.ErrorLog = slog.NewLogLogger(quiet.Handler(), slog.LevelError)
	for _, tt := range []struct {
		name      string
		handler   http.Handler
		change    func(*openai.Config)
		temporary bool
		want      string
	}{
		{"no key", mock(t, mockprovider.Config{Key: "sk"}), nil, false, "wants a key: set OPENAI_API_KEY"},
		{"wrong key", mock(t, mockprovider.Config{Key: "sk"}), func(c *openai.Config) { c.Key = "sk-wrong" }, false, "refuses the key: set OPENAI_API_KEY"},
		{"no model", mock(t, mockprovider.Config{Models: []string{"other"}}), nil, false, "does not have mock"},
		{"no v1", mock(t, mockprovider.Config{}), func(c *openai.Config) { c.BaseURL = strings.TrimSuffix(c.BaseURL, "/v1") }, false, "usually ends in /v1"},
		{"web page", says(200, "<!doctype html>"), nil, false, "usually ends in /v1"},
		{"down", nil, func(c *openai.Config) { c.BaseURL = closed.URL + "/v1" }, true, "nothing listens at " + closed.URL + "/v1"},
		{"no TLS", mock(t, mockprovider.Config{}), func(c *openai.Config) { c.BaseURL = strings.Replace(c.BaseURL, "http:", "https:", 1) }, false, "should the base URL begin with http://"},
		{"unknown authority", nil, func(c *openai.Config) { c.BaseURL = tls.URL + "/v1" }, false, "can't be trusted"},
		{"certificate wanted", nil, func(c *openai.Config) { c.BaseURL, c.HTTPClient = certified.URL+"/v1", certified.Client() }, false, "is a client certificate wanted"},
		{"redirect", says(301, "", "Location", "https://elsewhere.test/"), nil, false, "redirects are not followed"},
		{"quota", says(429, `{"error":{"code":"insufficient_quota","message":"You exceeded your current quota"}}`), nil, false, "billing"},
		{"firewall", says(403, "<html>403 Forbidden</html>"), nil, false, "the key may not use mock"},
		{"dimensions ignored", answers(says(200, onlyVector)), func(c *openai.Config) { c.Dimensions = 256 }, false, "2 dimensions where 256 were asked for"},
		{"dimensions refused", mock(t, mockprovider.Config{MaxDim: -1}), func(c *openai.Config) { c.Dimensions = 32 }, false, "does not support"},
		{"other dimension", answers(says(200, onlyVector)), func(c *openai.Config) { c.Dim = 384 }, false, "2 dimensions, and the index has 384"},
		{"NaN", answers(says(200, `{"data":[{"embedding":[1,NaN]}]}`)), nil, false, "NaN"},
		{"zero", answers(says(200, `{"data":[{"embedding":[0,0]}]}`)), nil, false, "zero vector"},
		{"overloaded", says(503, ""), nil, true, "503"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := openai.Config{Model: "mock", Logger: quiet}
			if tt.handler != nil {
				cfg = listening(t, tt.handler)
			}
			if tt.change != nil {
				tt.change(&cfg)
			}
			m, err := openai.Open(t.Context(), cfg)
			if err == nil || m != nil {
				t.Fatalf("got %v, %v", m, err)
			}
			if failed := failure(t, err); failed.Temporary != tt.temporary || failed.Account == tt.temporary || failed.Input >= 0 || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "mock") {
				t.Errorf("temporary %t, input %d: %v", failed.Temporary, failed.Input, err)
			}
		})
	}
}

// An index that exists opens while its endpoint is away, and is held to its dimension when it is back.
func TestOpenWithKnownDimension(t *testing.T) {
	cfg := listening(t, answers(says(503, ""), says(503, ""), says(503, ""), says(400, "base64 encoding is not currently supported"), says(200, onlyVector)))
	cfg.Dim = 2
	if m, err := openai.Open(t.Context(), cfg); m != nil || !failure(t, err).Temporary {
		t.Errorf("opened without knowing what the model reads: %v", err)
	}
	cfg.MaxInput = 100
	m := open(t, cfg)
	if m.Dim() != 2 || m.MaxInput() != 100 {
		t.Errorf("Dim is %d, MaxInput %d", m.Dim(), m.MaxInput())
	}
	if _, err := m.Embed(t.Context(), embedder.Index, []string{"a"}); !failure(t, err).Temporary {
		t.Errorf("got %v", err)
	}
	// The encoding is found out now.
	for range 2 {
		if v, err := m.Embed(t.Context(), embedder.Index, []string{"a"}); err != nil || v[0][0] != 0.6 {
			t.Errorf("got %v, %v", v, err)
		}
	}
}

func TestDimensionChanges(t *testing.T) {
	cfg := listening(t, answers(says(200, onlyVector), says(200, `{"data":[{"embedding":[1,2,3]}]}`)))
	m := open(t, cfg)
	v, err := m.Embed(t.Context(), embedder.Index, []string{"a"})
	if failed := failure(t, err); v != nil || kindOf(t, failed) != account || !strings.Contains(err.Error(), "3 dimensions, and answered with 2 before") {
		t.Errorf("got %v", err)
	}
	if m.Dim() != 2 {
		t.Errorf("Dim is now %d", m.Dim())
	}
}

// Answers that are right, or right enough, in the ways of different servers.
func TestAnswers(t *testing.T) {
	// 0.6, 0.8 as float32, little-endian.
	const packed = "mpkZP83MTD8="
	for name, body := range map[string]string{
		"base64":          `{"data":[{"index":0,"embedding":"` + packed + `"},{"index":1,"embedding":"AACAPwAAAAA="}]}`,
		"no padding":      `{"data":[{"index":0,"embedding":"` + strings.TrimRight(packed, "=") + `"},{"index":1,"embedding":"AACAPwAAAAA"}]}`,
		"escaped":         `{"data":[{"index":0,"embedding":"mpkZP83MTD8\u003d"},{"index":1,"embedding":"AACAPwAAAAA="}]}`,
		"floats anyway":   `{"data":[{"index":0,"embedding":[3,4.0]},{"index":1,"embedding":[1e0,0]}]}`,
		"other order":     `{"data":[{"index":1,"embedding":[1,0]},{"index":0,"embedding":[0.6,0.8]}]}`,
		"no index":        `{"data":[{"embedding":[0.6,0.8]},{"embedding":[1,0]}]}`,
		"all zero":        `{"data":[{"index":0,"embedding":[0.6,0.8]},{"index":0,"embedding":[1,0]}]}`,
		"null index":      `{"data":[{"index":null,"embedding":[0.6,0.8]},{"index":null,"embedding":[1,0]}]}`,
		"indented, other": "\ufeff{\n  \"object\" : \"list\", \"error\": null, \"x\": {\"y\": [1, true, \"a\\\"b\", {}]},\n \"data\": [ {\"embedding\": [\n 0.6 ,\n 0.8 ], \"object\":\"embedding\"}, {\"embedding\":[1,-0.0]} ], \"usage\": null, \"model\": null }\n",
		"not unit":        `{"data":[{"index":0,"embedding":[3e20,4e20]},{"index":1,"embedding":[1e-20,0]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, listening(t, wellOtherwise(says(200, body))))
			v, err := m.Embed(t.Context(), embedder.Index, []string{"a", "", "b"})
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range [][]float32{{0.6, 0.8}, {0, 0}, {1, 0}} {
				if fmt.Sprint(v[i]) != fmt.Sprint(want) && !(i == 2 && v[2][0] == 1 && v[2][1] == 0) {
					t.Errorf("input %d: %v, want %v", i, v[i], want)
				}
			}
		})
	}
	for body, want := range map[string]string{
		`{"data":[{"index":0,"embedding":[1,0]},{"index":2,"embedding":[1,0]}]}`: "indexes of its vectors are [0 2]",
		`{"data":[{"index":1,"embedding":[1,0]},{"index":1,"embedding":[1,0]}]}`: "indexes of its vectors are [1 1]",
		`{"data":[{"embedding":[1,0]},{"embedding":[1]}]}`:                       "vectors of 2 and of 1 dimensions",
		`{"data":[{"embedding":[1,0]},{"embedding":[1,null]}]}`:                  "input 1: mock answers with a vector that holds NaN",
		`{"data":[{"embedding":[1,0]},{"embedding":[1,-Infinity]}]}`:             "input 1: mock answers with a vector that holds NaN or infinity",
		`{"data":[{"embedding":[1,0]},{"embedding":[0,0]}]}`:                     "input 1: mock answers with a zero vector",
		`{"data":[{"embedding":"AAA"},{"embedding":"AAA"}]}`:                     "base64 that holds no vector",
		`{"data":[{"embedding":{"float":[1]}}]}`:                                 "no array",
		`{"data":[{"embedding":[1,"x"]}]}`:                                       "no number",
		`{"data":` + strings.Repeat("[", 200):                                    "no object",
		`{"x":` + strings.Repeat("[", 200):                                       "nested too deeply",
		`{"data":[]} {}`:                                                         "more after its end",
	} {
		m := open(t, listening(t, wellOtherwise(says(200, body))))
		v, err := m.Embed(t.Context(), embedder.Index, []string{"a", "b"})
		if v != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: got %v, want %s", body, err, want)
		} else if failure(t, err).Temporary {
			t.Errorf("%.80s: temporary", body)
		}
	}
}

func TestUsageAndModelName(t *testing.T) {
	var log bytes.Buffer
	cfg := listening(t, mock(t, mockprovider.Config{Faults: []mockprovider.Fault{{Kind: "model", Share: 1}}}))
	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	var charged atomic.Int64
	type key struct{}
	cfg.OnUsage = func(ctx context.Context, tokens int) {
		if ctx.Value(key{}) == 1 {
			charged.Add(int64(tokens))
		}
	}
	m := open(t, cfg)
	before := m.Usage()
	for range 3 {
		if _, err := m.Embed(context.WithValue(t.Context(), key{}, 1), embedder.Index, []string{"12345678", "1234", ""}); err != nil {
			t.Fatal(err)
		}
	}
	after := m.Usage()
	if charged.Load() != 9 || after.Tokens-before.Tokens != 9 || after.Requests-before.Requests != 3 || after.Inputs-before.Inputs != 6 {
		t.Errorf("charged %d, usage %+v and before %+v", charged.Load(), after, before)
	}
	if n := strings.Count(log.String(), "another-mock"); n != 1 {
		t.Errorf("the other name was logged %d times: %s", n, &log)
	}
}

// An endpoint that takes fewer inputs says so once, and is asked for less from then on.
func TestLearnsBatchSize(t *testing.T) {
	tei := func(w http.ResponseWriter, r *http.Request) { // text-embeddings-inference
		var body struct{ Input []string }
		json.NewDecoder(r.Body).Decode(&body)
		if len(body.Input) > 8 {
			says(422, fmt.Sprintf(`{"error":"batch size %d > maximum allowed batch size 8","error_type":"Validation"}`, len(body.Input)))(w, r)
			return
		}
		var data []string
		for i := range body.Input {
			data = append(data, fmt.Sprintf(`{"index":%d,"embedding":[%d,1]}`, i, len(body.Input[i])))
		}
		fmt.Fprintf(w, `{"data":[%s]}`, strings.Join(data, ","))
	}
	for name, handler := range map[string]http.Handler{
		"says it": answers(tei),
		"OpenAI":  mock(t, mockprovider.Config{MaxInputs: 8}),
		"tokens":  mock(t, mockprovider.Config{MaxRequestTokens: 24}),
	} {
		t.Run(name, func(t *testing.T) {
			cfg := listening(t, handler)
			m := open(t, cfg)
			if m.MaxBatch() != 32 {
				t.Errorf("MaxBatch is %d", m.MaxBatch())
			}
			inputs := make([]string, 30)
			for i := range inputs {
				inputs[i] = strings.Repeat("x", i%10+1)
			}
			v, err := m.Embed(t.Context(), embedder.Index, inputs)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(v[0], v[10]) || slices.Equal(v[0], v[1]) {
				t.Error("vectors got lost among the requests")
			}
			if n := m.MaxBatch(); n < 4 || n > 8 {
				t.Errorf("MaxBatch is now %d", n)
			}
		})
	}
}

func TestKnownLimits(t *testing.T) {
	for model, want := range map[string][3]int{
		"text-embedding-3-small":                 {8192, 128, 300_000},
		"openai/text-embedding-3-large":          {8192, 128, 300_000},
		"nomic-embed-text:latest":                {2048, 32, 0},
		"sentence-transformers/all-MiniLM-L6-v2": {256, 32, 0},
		"never-heard-of":                         {0, 32, 0},
		"embed-english-v3.0":                     {512, 96, 0},
	} {
		cfg := listening(t, mock(t, mockprovider.Config{}))
		cfg.Model = model
		m := open(t, cfg)
		if got := [3]int{m.MaxInput(), m.MaxBatch(), m.MaxBatchTokens()}; got != want {
			t.Errorf("%s: %v, want %v", model, got, want)
		}
		cfg.MaxInput, cfg.MaxBatch, cfg.MaxBatchTokens = -1, 5, -1
		m = open(t, cfg)
		if got := [3]int{m.MaxInput(), m.MaxBatch(), m.MaxBatchTokens()}; got != [3]int{0, 5, 0} {
			t.Errorf("%s: %v as configured", model, got)
		}
	}
	// text-embeddings-inference tells at /info.
	cfg := listening(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/info" {
			io.WriteString(w, `{"model_id":"x","max_input_length":512,"max_client_batch_size":16}`)
			return
		}
		answers(says(200, onlyVector)).ServeHTTP(w, r)
	}))
	if m := open(t, cfg); m.MaxInput() != 512 || m.MaxBatch() != 16 {
		t.Errorf("MaxInput %d, MaxBatch %d", m.MaxInput(), m.MaxBatch())
	}
}

// OpenAI's own limits are known without asking.
func TestOpenWhileOpenAIIsDown(t *testing.T) {
	down := &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF })}
	m := open(t, openai.Config{Model: "text-embedding-3-small", Dim: 1536, HTTPClient: down, Logger: quiet})
	if m.MaxInput() != 8192 || m.Dim() != 1536 {
		t.Errorf("MaxInput %d, Dim %d", m.MaxInput(), m.Dim())
	}
	if _, err := openai.Open(t.Context(), openai.Config{Model: "text-embedding-3-small", HTTPClient: down, Logger: quiet}); err == nil || !failure(t, err).Temporary {
		t.Errorf("without a dimension: %v", err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What a model reads is part of the names that stand on it, so an endpoint that fails to say it now is asked again later.
func TestOpenIsSureOfMaxInput(t *testing.T) {
	var down atomic.Bool
	down.Store(true)
	provider := mock(t, mockprovider.Config{MaxInputTokens: 77})
	cfg := listening(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() && r.Method == http.MethodGet {
			says(503, "")(w, r)
			return
		}
		provider.ServeHTTP(w, r)
	}))
	if _, err := openai.Open(t.Context(), cfg); err == nil || !failure(t, err).Temporary {
		t.Errorf("got %v", err)
	}
	down.Store(false)
	if m := open(t, cfg); m.MaxInput() != 77 {
		t.Errorf("MaxInput is %d", m.MaxInput())
	}
}

// A hang ends by our deadline or the caller's, and leaves nothing behind: the bubble does not end before every goroutine has.
func TestHang(t *testing.T) {
	for _, kind := range []string{"hang", "drip"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg, stop := inMemory(t, mock(t, mockprovider.Config{Faults: []mockprovider.Fault{{Kind: kind, Share: 1}}, Slow: time.Minute}))
				defer stop()
				cfg.Dim, cfg.MaxInput, cfg.Timeout = 64, 100, 5*time.Second
				start := time.Now()
				m, err := openai.Open(t.Context(), cfg)
				if err != nil || time.Since(start) != 5*time.Second {
					t.Fatalf("opened after %v: %v", time.Since(start), err)
				}
				start = time.Now()
				_, err = m.Embed(t.Context(), embedder.Index, []string{"a"})
				if failed := failure(t, err); !failed.Temporary || time.Since(start) != 5*time.Second || !strings.Contains(err.Error(), "within 5s") || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start = time.Now()
				_, err = m.Embed(ctx, embedder.Index, []string{"a"})
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
			})
		})
	}
}

// The key and the texts go to the endpoint and nowhere else.
func TestRedirectIsNotFollowed(t *testing.T) {
	var reached atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		cfg := listening(t, says(status, "", "Location", elsewhere.URL))
		cfg.Key = "sk-my-secret-key"
		if _, err := openai.Open(t.Context(), cfg); err == nil || kindOf(t, failure(t, err)) != account || !strings.Contains(err.Error(), elsewhere.URL) {
			t.Errorf("%d: %v", status, err)
		}
	}
	if reached.Load() {
		t.Error("it was followed")
	}
}

// A connection that the server closed for idleness costs no failure.
func TestIdleConnections(t *testing.T) {
	s := httptest.NewUnstartedServer(mock(t, mockprovider.Config{}))
	s.Config.IdleTimeout = time.Millisecond
	s.Start()
	defer s.Close()
	m := open(t, openai.Config{Model: "mock", BaseURL: s.URL + "/v1", Logger: quiet})
	for range 200 {
		if _, err := m.Embed(t.Context(), embedder.Index, []string{"a"}); err != nil {
			t.Fatal(err)
		}
	}
}
