package mockprovider

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// same tells whether two texts are the same JSON, or else the same text.
func same(t *testing.T, got, want string) bool {
	t.Helper()
	var a, b any
	if json.Unmarshal([]byte(want), &b) != nil {
		return got == want
	}
	if err := json.Unmarshal([]byte(got), &a); err != nil {
		return false
	}
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// The refusals of each server, byte for byte as JSON has it.
func TestServers(t *testing.T) {
	const long, missing, many, two = `{"model":"m","input":"1234567890123"}`, `{"model":"x","input":"a"}`, `{"model":"m","input":["a","b","c"]}`, `{"model":"m","input":"a","dimensions":2}`
	for name, asked := range map[string][]struct {
		body   string // empty: without a key
		status int
		says   string
	}{
		"openai": {
			{long, 400, `{"error":{"message":"This model's maximum context length is 3 tokens, however you requested 4 tokens. Please reduce your prompt.","type":"invalid_request_error","param":"input","code":"context_length_exceeded"}}`},
			{missing, 404, "{\"error\":{\"message\":\"The model `x` does not exist or you do not have access to it.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}"},
		},
		"azure": {
			{"", 401, `{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource."}}`},
			{missing, 404, `{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}`},
		},
		"vllm": {
			{"", 401, `{"error":"Unauthorized"}`},
			{long, 400, `{"error":{"message":"You passed 4 input tokens and requested 0 output tokens. However, the model's context length is only 3 tokens, resulting in a maximum input length of 3 tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=4)","type":"BadRequestError","param":"input_tokens","code":400}}`},
			{missing, 404, "{\"error\":{\"message\":\"The model `x` does not exist.\",\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404}}"},
			{two, 400, `{"error":{"message":"Model \"m\" does not support matryoshka representation, changing output dimensions will lead to poor results.","type":"BadRequestError","param":"dimensions","code":400}}`},
		},
		"vllm-old": {
			{"", 401, `{"error":"Unauthorized"}`},
			{long, 400, `{"object":"error","message":"This model's maximum context length is 3 tokens. However, you requested 4 tokens in the input for embedding generation. Please reduce the length of the input.","type":"BadRequestError","param":null,"code":400}`},
			{missing, 404, "{\"object\":\"error\",\"message\":\"The model `x` does not exist.\",\"type\":\"NotFoundError\",\"param\":null,\"code\":404}"},
		},
		"ollama": {
			{long, 400, `{"error":{"message":"the input length exceeds the context length","type":"invalid_request_error","param":null,"code":null}}`},
			{missing, 404, `{"error":{"message":"model \"x\" not found, try pulling it first","type":"not_found_error","param":null,"code":null}}`},
			{`{"model":"m","input":[]}`, 400, `{"error":{"message":"invalid input","type":"invalid_request_error","param":null,"code":null}}`},
			{`{"model":"m:latest","input":["",""]}`, 200, ""},
		},
		"tei": {
			{"", 401, ""},
			{long, 413, "{\"message\":\"`inputs` must have less than 3 tokens. Given: 4\",\"code\":413,\"type\":\"Validation\"}"},
			{missing, 200, ""},
			{many, 413, `{"message":"batch size 3 > maximum allowed batch size 2","code":413,"type":"Validation"}`},
			{`{"model":"m","input":[""]}`, 400, "{\"message\":\"`inputs` cannot be empty\",\"code\":400,\"type\":\"Empty\"}"},
			{`{"input":7}`, 422, "Failed to deserialize the JSON body into the target type: '$.input' is invalid: it should be a string, or an array of strings or of tokens\n"},
		},
	} {
		p := provider(t, Config{Server: name, Key: "k", Models: []string{"m"}, MaxInputs: 2, MaxInputTokens: 3, MaxDim: -1})
		for _, tt := range asked {
			body, key := tt.body, "k"
			if body == "" {
				body, key = one, "other"
			}
			w := ask(p, body, "Authorization", "Bearer "+key, "Api-Key", key)
			if w.Code != tt.status || w.Code != 200 && !same(t, w.Body.String(), tt.says) {
				t.Errorf("%s: %s: %d %s", name, tt.body, w.Code, w.Body)
			}
		}
	}
	if names, _ := Servers(); len(names) != 6 {
		t.Errorf("%d servers", len(names))
	}
}

// What each server tells of itself, and of a path that it does not have.
func TestServersTell(t *testing.T) {
	for name, want := range map[string]map[string]string{
		"openai":   {"/v1/models": `{"data":[{"created":0,"id":"m","max_model_len":77,"object":"model","owned_by":"mock-provider"}],"object":"list"}`, "/info": ""},
		"azure":    {"/v1/models": `{"data":[{"created":0,"id":"m","object":"model","owned_by":"mock-provider"}],"object":"list"}`},
		"vllm":     {"/v1/models": `{"data":[{"created":0,"id":"m","max_model_len":77,"object":"model","owned_by":"vllm","parent":null,"permission":[],"root":"m"}],"object":"list"}`, "/info": `{"detail":"Not Found"}`},
		"vllm-old": {"/models": `{"detail":"Not Found"}`},
		"ollama":   {"/v1/models": `{"data":[{"created":0,"id":"m:latest","object":"model","owned_by":"library"}],"object":"list"}`, "/models": "404 page not found\n"},
		"tei": {"/v1/models": "", "/info": `{"auto_truncate":false,"docker_label":null,"max_batch_requests":null,"max_batch_tokens":16384,"max_client_batch_size":32,"max_concurrent_requests":512,` +
			`"max_input_length":77,"model_dtype":"float32","model_id":"m","model_sha":null,"model_type":{"embedding":{"pooling":"mean"}},"sha":null,"tokenization_workers":1,"version":"1.8.0"}`},
	} {
		p := provider(t, Config{Server: name, Models: []string{"m"}, MaxInputTokens: 77})
		for path, says := range want {
			w := httptest.NewRecorder()
			p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			away := httptest.NewRecorder()
			down := provider(t, Config{Server: name, Schedule: []Event{{Outage: Down}}})
			down.ServeHTTP(away, httptest.NewRequest(http.MethodGet, path, nil))
			missing := says == "" || strings.Contains(strings.ToLower(says), "not found")
			if (w.Code == 404) != missing || (away.Code == 503) == missing || says != "" && !same(t, w.Body.String(), says) {
				t.Errorf("%s: %s: %d %s", name, path, w.Code, w.Body)
			}
		}
	}
}

// Limits, crowds and faults in the words of each server.
func TestServersLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, want := range map[string]struct {
			limited, busy int
			says, crowded string
		}{
			"openai": {429, 429, `"code":"rate_limit_exceeded"`, `"type":"requests"`},
			"azure": {429, 429, "have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 1 seconds.",
				"have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after 1 seconds."},
			"vllm":     {429, 429, `"type":"Too Many Requests"`, `"code":429`},
			"vllm-old": {429, 429, `"object":"error"`, `"code":429`},
			"ollama":   {429, 503, `"type":"api_error"`, "maximum pending requests exceeded"},
			"tei":      {429, 429, `"type":"Overloaded"`, "Model is overloaded"},
		} {
			p := provider(t, Config{Server: name, TPM: 120, Burst: time.Second, MaxInFlight: 1, Latency: time.Second, Script: []string{"ok", "500", "503"}})
			go ask(p, body(1, 2))
			synctest.Wait()
			if w := ask(p, body(1, 2)); w.Code != want.busy || !strings.Contains(w.Body.String(), want.crowded) {
				t.Errorf("%s: a crowd: %d %s", name, w.Code, w.Body)
			}
			p.mu.Lock()
			p.maxInFlight = 0
			p.mu.Unlock()
			if w := ask(p, body(1, 2)); w.Code != want.limited || !strings.Contains(w.Body.String(), want.says) {
				t.Errorf("%s: limited: %d %s", name, w.Code, w.Body)
			}
			for _, status := range []int{500, 503} {
				time.Sleep(time.Second)
				if w := ask(p, body(1, 2)); w.Code != status || !json.Valid(w.Body.Bytes()) {
					t.Errorf("%s: %d %s", name, w.Code, w.Body)
				}
			}
		}
	})
}

// Some servers refuse base64, and others don't know of it.
func TestWithoutBase64(t *testing.T) {
	for name, status := range map[string]int{"openai": 400, "vllm-old": 400, "ollama": 200, "tei": 200} {
		p := provider(t, Config{Server: name, NoBase64: true})
		w := ask(p, `{"model":"m","input":"abcde","encoding_format":"base64"}`)
		if w.Code != status || status == 200 && string(read(t, w).Data[0].Embedding) != "[5,1,1,1]" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}

// Azure has the model in the path.
func TestDeployment(t *testing.T) {
	p := provider(t, Config{Server: "azure", Models: []string{"m"}})
	for path, status := range map[string]int{"/openai/deployments/m/embeddings?api-version=2024-10-21": 200, "/openai/deployments/x/embeddings": 404} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(`{"input":"a"}`)))
		if w.Code != status {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// A poisoned input can be refused as if the server had failed, which nothing tells from a failure that passes.
func TestPoisonStatus(t *testing.T) {
	for _, status := range []int{400, 413, 422, 500, 503} {
		for _, name := range []string{"openai", "vllm", "tei"} {
			p := provider(t, Config{Server: name, Poison: "bad", PoisonStatus: status})
			if w := ask(p, `{"model":"m","input":["good","a bad one"]}`); w.Code != status || strings.Contains(w.Body.String(), "input") != (status < 500) {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
			if w := ask(p, `{"model":"m","input":["good"]}`); w.Code != 200 || p.Stats().Refused != 1 {
				t.Errorf("%s: %d, %+v", name, w.Code, p.Stats())
			}
		}
	}
	for _, bad := range []int{200, 399, 600, -1} {
		if _, err := New(Config{PoisonStatus: bad}); err == nil {
			t.Errorf("status %d was taken", bad)
		}
	}
}

// A request with more tokens than are allowed at once is never let in, if that is asked for.
func TestRefuseLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider(t, Config{TPM: 100, RefuseLarge: true})
		for range 2 {
			w := ask(p, body(2, 51))
			if w.Code != 429 || !strings.Contains(w.Body.String(), "Request too large for m in organization org-mock on tokens per min (TPM): Limit 100, Requested 102.") || w.Header().Get("Retry-After") != "" ||
				w.Header().Get("X-Ratelimit-Remaining-Tokens") != "100" {
				t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
			}
			time.Sleep(time.Hour)
		}
		if w := ask(p, body(2, 50)); w.Code != 200 || p.Stats().LimitedBy.Tokens != 2 {
			t.Errorf("%d %s, %+v", w.Code, w.Body, p.Stats())
		}
	})
}

// A drip takes as long as it is told to, however short the answer.
func TestDrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, dim := range []int{1, 4, 50, 3000} {
			p := provider(t, Config{Dim: dim, Slow: 30 * time.Second, Faults: []Fault{{"drip", 1}}, Latency: time.Second})
			start := time.Now()
			w := ask(p, one)
			if took := time.Since(start); w.Code != 200 || len(read(t, w).Data) != 1 || (took-31*time.Second).Abs() > time.Millisecond {
				t.Errorf("%d dimensions: %d after %v", dim, w.Code, took)
			}
		}
	})
}
