package openai_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/openai"
)

// asked is a request for embeddings, as the servers below read it. What they don't know of it, they ignore.
type asked struct {
	Model      string   `json:"model"`
	Input      []string `json:"input"`
	Encoding   string   `json:"encoding_format"`
	Dimensions int      `json:"dimensions"`
	Cut        int      `json:"truncate_prompt_tokens"`
}

func (a *asked) read(r *http.Request) {
	if err := json.NewDecoder(r.Body).Decode(a); err != nil {
		panic(err)
	}
}

// tokensOf are the words of a text and the two that frame it: how all servers below count.
func tokensOf(text string) int { return len(strings.Fields(text)) + 2 }

// begins is what is left of a text of at most so many tokens.
func begins(text string, most int) string {
	words := strings.Fields(text)
	return strings.Join(words[:min(len(words), most-2)], " ")
}

// listed is an answer as most servers write it.
func listed(t testing.TB, a asked, dim int, packed bool) map[string]any {
	t.Helper()
	vectors, err := hashed(context.Background(), dim, a.Input)
	if err != nil {
		t.Fatal(err)
	}
	data := []any{}
	total := 0
	for i, v := range vectors {
		one := map[string]any{"object": "embedding", "index": i, "embedding": v}
		if packed {
			var raw []byte
			for _, x := range v {
				raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
			}
			one["embedding"] = base64.StdEncoding.EncodeToString(raw)
		}
		data = append(data, one)
		total += tokensOf(a.Input[i])
	}
	return map[string]any{"object": "list", "data": data, "model": a.Model, "usage": map[string]int{"prompt_tokens": total, "total_tokens": total}}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// ollama answers as Ollama does (middleware/openai.go and server/routes.go): /v1/embeddings knows no truncate and cuts off what is too long without a word; prompt_eval_count becomes the usage; models
// are listed with their tags; a failure is OpenAI's shape with a null code. The context is what runs, parameters are the Modelfile's.
func ollama(t testing.TB, trained, context int, parameters string, psTells bool) http.Handler {
	mux := http.NewServeMux()
	fail := func(w http.ResponseWriter, status int, message string) {
		kind := map[int]string{400: "invalid_request_error", 404: "not_found_error"}[status]
		writeJSON(w, status, map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": nil}})
	}
	mux.HandleFunc("POST /v1/embeddings", func(w http.ResponseWriter, r *http.Request) {
		var a asked
		a.read(r)
		if a.Model != "bge-tiny" {
			fail(w, 404, fmt.Sprintf("model %q not found, try pulling it first", a.Model))
			return
		}
		for i, text := range a.Input {
			if strings.Contains(text, "NaN") {
				fail(w, 400, "embedding contains NaN or Inf values")
				return
			}
			a.Input[i] = begins(text, context)
		}
		writeJSON(w, 200, listed(t, a, 48, a.Encoding == "base64"))
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{"object": "list", "data": []any{map[string]any{"id": "other:7b", "object": "model", "created": 1, "owned_by": "library"}, map[string]any{"id": "bge-tiny:latest", "object": "model", "created": 1, "owned_by": "library"}}})
	})
	mux.HandleFunc("POST /api/show", func(w http.ResponseWriter, r *http.Request) {
		var a asked
		a.read(r)
		if a.Model != "bge-tiny" {
			writeJSON(w, 404, map[string]string{"error": "model not found"})
			return
		}
		writeJSON(w, 200, map[string]any{"modelfile": "# …", "parameters": parameters, "details": map[string]any{"family": "bert"},
			"model_info": map[string]any{"general.architecture": "bert", "bert.context_length": trained, "bert.embedding_length": 48}, "capabilities": []string{"embedding"}})
	})
	mux.HandleFunc("GET /api/ps", func(w http.ResponseWriter, _ *http.Request) {
		running := map[string]any{"name": "bge-tiny:latest", "model": "bge-tiny:latest", "size": 1}
		if psTells {
			running["context_length"] = context
		}
		writeJSON(w, 200, map[string]any{"models": []any{map[string]any{"name": "other:7b", "context_length": 7}, running}})
	})
	return mux
}

func TestOllama(t *testing.T) {
	for _, tt := range []struct {
		name             string
		trained, context int
		parameters       string
		psTells          bool
		want             int
	}{
		{"what runs", 512, 40, "", true, 40},
		{"what it was trained with", 32, 4096, "", true, 32},
		{"its Modelfile", 512, 40, "stop                           \"x\"\nnum_ctx                        40", false, 40},
		{"the longest of Modelfiles is not the model's", 64, 64, "num_ctx 8192", true, 64},
		{"an older one", 8192, 2048, "", false, 2048},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := listening(t, ollama(t, tt.trained, tt.context, tt.parameters, tt.psTells))
			cfg.Model = "bge-tiny"
			cfg.Count = tokensOf
			m := open(t, cfg)
			if m.MaxInput() != tt.want || m.Dim() != 48 {
				t.Errorf("MaxInput is %d, want %d; %d dimensions", m.MaxInput(), tt.want, m.Dim())
			}
		})
	}

	cfg := listening(t, ollama(t, 512, 12, "", true))
	cfg.Model, cfg.Count = "bge-tiny", tokensOf
	m := open(t, cfg)
	// What is too long is cut off by the server, and nothing of it is found; split, all of it is in the vector.
	long := "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
	cut, report, err := m.EmbedReported(t.Context(), embedder.Index, []string{long})
	if err != nil || report.Charged != 12 {
		t.Fatalf("%v, %+v", err, report)
	}
	start, err := m.Embed(t.Context(), embedder.Index, []string{"one two three four five six seven eight nine ten"})
	if err != nil || dot(cut[0], start[0]) < .9999 {
		t.Fatalf("the server does not cut off as it should: %v", err)
	}
	split, err := embedder.Long(m, embedder.LongSplit)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := split.Embed(t.Context(), embedder.Index, []string{long})
	if err != nil {
		t.Fatal(err)
	}
	tail, err := m.Embed(t.Context(), embedder.Index, []string{"eleven twelve thirteen fourteen fifteen"})
	if err != nil || dot(whole[0], tail[0]) < .3 || dot(cut[0], tail[0]) > .3 {
		t.Errorf("the end of a long input is not in its vector: %.2f, and %.2f where it is cut off; %v", dot(whole[0], tail[0]), dot(cut[0], tail[0]), err)
	}
	// A model that makes NaN of one text.
	if _, err := m.Embed(t.Context(), embedder.Index, []string{"NaN"}); kindOf(t, failure(t, err)) != input {
		t.Errorf("got %v", err)
	}
	cfg.Model = "never-pulled"
	if _, err := openai.Open(t.Context(), cfg); err == nil || kindOf(t, failure(t, err)) != account || !strings.Contains(err.Error(), "try pulling it first") {
		t.Errorf("got %v", err)
	}
	// Ollama shortens vectors where it is asked to, and leaves them as they are where more is asked than there is.
	cfg.Model, cfg.Dimensions = "bge-tiny", 96
	if _, err := openai.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "48 dimensions where 96 were asked for") {
		t.Errorf("got %v", err)
	}
}

// A proxy may have Ollama below a path.
func TestOllamaBelowAPath(t *testing.T) {
	cfg := listening(t, http.StripPrefix("/ai", ollama(t, 512, 40, "", true)))
	cfg.Model, cfg.BaseURL = "bge-tiny", strings.TrimSuffix(cfg.BaseURL, "/v1")+"/ai/v1/"
	if m := open(t, cfg); m.MaxInput() != 40 {
		t.Errorf("MaxInput is %d", m.MaxInput())
	}
}

// vllm answers as vLLM does: it tells max_model_len, knows base64, refuses dimensions of models that can't, and refuses what is too long, unless it is asked to cut it off.
func vllm(t testing.TB, most int, older bool) http.Handler {
	mux := http.NewServeMux()
	fail := func(w http.ResponseWriter, status int, kind, param, message string) {
		one := map[string]any{"message": message, "type": kind, "param": nil, "code": status}
		if param != "" {
			one["param"] = param
		}
		if older {
			one["object"] = "error"
			writeJSON(w, status, one)
			return
		}
		writeJSON(w, status, map[string]any{"error": one})
	}
	mux.HandleFunc("POST /v1/embeddings", func(w http.ResponseWriter, r *http.Request) {
		var a asked
		a.read(r)
		switch {
		case a.Model != "BAAI/bge-tiny":
			fail(w, 404, "NotFoundError", "model", "The model `"+a.Model+"` does not exist.")
			return
		case a.Dimensions > 0:
			fail(w, 400, "BadRequestError", "", "Model \"BAAI/bge-tiny\" does not support matryoshka representation, changing output dimensions will lead to poor results.")
			return
		case older && a.Encoding == "base64":
			fail(w, 400, "BadRequestError", "", "base64 encoding is not currently supported")
			return
		}
		for i, text := range a.Input {
			if a.Cut > 0 {
				a.Input[i] = begins(text, a.Cut)
			} else if n := tokensOf(text); n > most && older {
				fail(w, 400, "BadRequestError", "", fmt.Sprintf("This model's maximum context length is %d tokens. However, you requested %d tokens in the input for embedding generation. Please reduce the length of the input.", most, n))
				return
			} else if n > most {
				fail(w, 400, "BadRequestError", "input_tokens", fmt.Sprintf("You passed %d input tokens and requested 0 output tokens. However, the model's context length is only %d tokens, resulting in a maximum input length of %d tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=%d)", n, most, most, n))
				return
			}
		}
		writeJSON(w, 200, listed(t, a, 48, a.Encoding == "base64"))
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{"object": "list", "data": []any{map[string]any{"id": "BAAI/bge-tiny", "object": "model", "created": 1, "owned_by": "vllm", "root": "BAAI/bge-tiny", "parent": nil, "max_model_len": most, "permission": []any{}}}})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 404, map[string]string{"detail": "Not Found"})
	})
	return mux
}

func TestVLLM(t *testing.T) {
	for _, older := range []bool{false, true} {
		cfg := listening(t, vllm(t, 32, older))
		cfg.Model, cfg.Count = "BAAI/bge-tiny", tokensOf
		m := open(t, cfg)
		if m.MaxInput() != 32 || m.Dim() != 48 {
			t.Errorf("MaxInput is %d, %d dimensions", m.MaxInput(), m.Dim())
		}
		_, report, err := m.EmbedReported(t.Context(), embedder.Index, []string{"a", "b c"})
		if err != nil || report != (embedder.Report{Calls: 1, Charged: 7}) {
			t.Errorf("%+v, %v", report, err)
		}
		long := strings.Repeat("long ", 60)
		_, err = m.Embed(t.Context(), embedder.Index, []string{long})
		if failed := failure(t, err); kindOf(t, failed) != input || !errors.Is(err, embedder.ErrInputTooLong) {
			t.Errorf("got %v", err)
		}
		if !strings.Contains(err.Error(), "set openai.max_input to 32") {
			t.Errorf("it does not say what to do: %v", err)
		}
		if _, err = m.Embed(t.Context(), embedder.Index, []string{"a", long}); kindOf(t, failure(t, err)) != unknown {
			t.Errorf("got %v", err)
		}
		c := cfg
		c.Dimensions = 32
		if _, err := openai.Open(t.Context(), c); err == nil || kindOf(t, failure(t, err)) != account || !strings.Contains(err.Error(), "matryoshka") {
			t.Errorf("got %v", err)
		}
		c = cfg
		c.Model = "BAAI/other"
		if _, err := openai.Open(t.Context(), c); err == nil || kindOf(t, failure(t, err)) != account || !strings.Contains(err.Error(), "does not have BAAI/other") {
			t.Errorf("got %v", err)
		}
		// Asked to cut off, it must not be given what it would cut.
		c = cfg
		c.Extra = map[string]any{"truncate_prompt_tokens": 12}
		if m := open(t, c); m.MaxInput() != 12 {
			t.Errorf("MaxInput is %d where it cuts off at 12", m.MaxInput())
		}
	}
}

// inference answers as text-embeddings-inference does (router/src/http): /info tells what it takes, there is no list of models, and its errors have no "error" around them. Their statuses are
// 413 for what is too long, 422 for what its tokenizer does not take, 424 for a failed forward pass and 429 where it is overloaded.
func inference(t testing.TB, truncates bool) http.Handler {
	mux := http.NewServeMux()
	fail := func(w http.ResponseWriter, status int, kind, message string) {
		writeJSON(w, status, map[string]any{"message": message, "code": status, "type": kind})
	}
	mux.HandleFunc("POST /v1/embeddings", func(w http.ResponseWriter, r *http.Request) {
		var a asked
		a.read(r)
		if len(a.Input) > 4 {
			fail(w, 413, "Validation", fmt.Sprintf("batch size %d > maximum allowed batch size 4", len(a.Input)))
			return
		}
		for i, text := range a.Input {
			switch n := tokensOf(text); {
			case strings.Contains(text, "busy"):
				fail(w, 429, "Overloaded", "Model is overloaded")
				return
			case strings.Contains(text, "cuda"):
				fail(w, 424, "Backend", "Inference error: CUDA out of memory")
				return
			case n > 32 && truncates:
				a.Input[i] = begins(text, 32)
			case n > 32:
				fail(w, 413, "Validation", fmt.Sprintf("`inputs` must have less than 32 tokens. Given: %d", n))
				return
			}
		}
		writeJSON(w, 200, listed(t, a, 48, a.Encoding == "base64"))
	})
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{"model_id": "BAAI/bge-tiny", "model_sha": nil, "model_dtype": "float16", "model_type": map[string]any{"embedding": map[string]any{"pooling": "cls"}}, "max_concurrent_requests": 512,
			"max_input_length": 32, "max_batch_tokens": 16384, "max_batch_requests": nil, "max_client_batch_size": 4, "auto_truncate": truncates, "tokenization_workers": 2, "version": "1.8.2"})
	})
	return mux
}

func TestTextEmbeddingsInference(t *testing.T) {
	for _, truncates := range []bool{false, true} {
		cfg := listening(t, inference(t, truncates))
		cfg.Model, cfg.Count = "BAAI/bge-tiny", tokensOf
		m := open(t, cfg)
		if m.MaxInput() != 32 || m.MaxBatch() != 4 {
			t.Errorf("MaxInput is %d, MaxBatch %d", m.MaxInput(), m.MaxBatch())
		}
		if _, report, err := m.EmbedReported(t.Context(), embedder.Index, strings.Fields("a b c d e f")); err != nil || report != (embedder.Report{Calls: 2, Charged: 18}) {
			t.Errorf("%+v, %v", report, err)
		}
		_, err := m.Embed(t.Context(), embedder.Index, []string{strings.Repeat("long ", 60)})
		if truncates != (err == nil) || !truncates && !errors.Is(err, embedder.ErrInputTooLong) {
			t.Errorf("got %v", err)
		}
		for text, want := range map[string]kind{"busy": waits, "cuda": waits} {
			if _, err := m.Embed(t.Context(), embedder.Index, []string{text}); kindOf(t, failure(t, err)) != want {
				t.Errorf("%s: %v", text, err)
			}
		}
		// Too much for the device may be too much in one request.
		if _, err := m.Embed(t.Context(), embedder.Index, []string{"cuda", "a"}); kindOf(t, failure(t, err)) != unknown {
			t.Errorf("got %v", err)
		}
		// One that was told a larger batch learns the real one.
		c := cfg
		c.MaxBatch = 16
		m = open(t, c)
		if _, err := m.Embed(t.Context(), embedder.Index, strings.Fields("a b c d e f")); err != nil || m.MaxBatch() != 4 {
			t.Errorf("MaxBatch is %d: %v", m.MaxBatch(), err)
		}
	}
}

// llamaCpp answers as llama.cpp's server does: its only model has any name, its meta tells what it was trained with, /props what a slot has, and what is longer than a slot, or than a physical
// batch where the model must read the whole at once, is refused: with 400 or with 500.
func llamaCpp(t testing.TB, slot, batch int, causal bool) http.Handler {
	mux := http.NewServeMux()
	fail := func(w http.ResponseWriter, status int, kind, message string) {
		writeJSON(w, status, map[string]any{"error": map[string]any{"code": status, "message": message, "type": kind}})
	}
	mux.HandleFunc("POST /v1/embeddings", func(w http.ResponseWriter, r *http.Request) {
		var a asked
		a.read(r)
		for _, text := range a.Input {
			switch n := tokensOf(text); {
			case n > batch:
				fail(w, 500, "server_error", fmt.Sprintf("input (%d tokens) is too large to process. increase the physical batch size (current batch size: %d)", n, batch))
				return
			case n > slot && causal:
				fail(w, 400, "exceed_context_size_error", fmt.Sprintf("request (%d tokens) exceeds the available context size (%d tokens), try increasing it", n, slot))
				return
			case n > slot:
				fail(w, 400, "exceed_context_size_error", fmt.Sprintf("input (%d tokens) is larger than the max context size (%d tokens). skipping", n, slot))
				return
			}
		}
		writeJSON(w, 200, listed(t, a, 48, a.Encoding == "base64"))
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{"object": "list", "data": []any{map[string]any{"id": "models/bge-tiny-q8_0.gguf", "object": "model", "created": 1, "owned_by": "llamacpp",
			"meta": map[string]any{"vocab_type": 3, "n_vocab": 30522, "n_ctx_train": 512, "n_embd": 48, "n_params": 33212160, "size": 36685152}}}})
	})
	mux.HandleFunc("GET /props", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{"default_generation_settings": map[string]any{"id": 0, "n_ctx": slot}, "total_slots": 4})
	})
	return mux
}

func TestLlamaCpp(t *testing.T) {
	for name, tt := range map[string]struct {
		slot, batch, read, want int
		causal                  bool
	}{
		"slot":   {40, 512, 40, 40, false},
		"causal": {40, 512, 40, 40, true},
		"model":  {8192, 8192, 512, 512, false},
		"batch":  {128, 30, 128, 30, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := listening(t, llamaCpp(t, tt.slot, tt.batch, tt.causal))
			cfg.Model, cfg.Count = "bge-tiny", tokensOf
			m := open(t, cfg)
			if m.MaxInput() != tt.read {
				t.Errorf("MaxInput is %d, want %d", m.MaxInput(), tt.read)
			}
			if tt.want == 512 {
				return // more than that is not the server's to refuse
			}
			_, err := m.Embed(t.Context(), embedder.Index, []string{strings.Repeat("long ", 60)})
			if kindOf(t, failure(t, err)) != input || !errors.Is(err, embedder.ErrInputTooLong) || !strings.Contains(err.Error(), fmt.Sprintf("set openai.max_input to %d", tt.want)) {
				t.Errorf("got %v", err)
			}
			if _, err := m.Embed(t.Context(), embedder.Index, []string{"a", strings.Repeat("long ", 60)}); kindOf(t, failure(t, err)) != unknown || !errors.Is(err, embedder.ErrInputTooLong) {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, tt := range map[string]struct {
		status         int
		kind, message  string
		want           kind
		openIsRefused  bool
		wantedInAnswer string
	}{
		"loading":       {503, "unavailable_error", "Loading model", waits, true, "Loading model"},
		"no embeddings": {501, "not_supported_error", "This server does not support embeddings. Start it with `--embeddings`", account, true, "--embeddings"},
		"key":           {401, "authentication_error", "Invalid API Key", account, true, "OPENAI_API_KEY"},
	} {
		_, err := openai.Open(t.Context(), listening(t, answers(says(tt.status, fmt.Sprintf(`{"error":{"code":%d,"message":%q,"type":%q}}`, tt.status, tt.message, tt.kind)))))
		if err == nil || kindOf(t, failure(t, err)) != tt.want || !strings.Contains(err.Error(), tt.wantedInAnswer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// liteLLM answers as LiteLLM's proxy does before a model: with its own headers, with the provider's message after its own words, and with codes that are statuses in quotes.
func liteLLM(t testing.TB, info map[string]any) http.Handler {
	mux := http.NewServeMux()
	fail := func(w http.ResponseWriter, status int, kind any, message string) {
		writeJSON(w, status, map[string]any{"error": map[string]any{"message": message, "type": kind, "param": nil, "code": fmt.Sprint(status)}})
	}
	mux.HandleFunc("POST /v1/embeddings", func(w http.ResponseWriter, r *http.Request) {
		var a asked
		a.read(r)
		w.Header().Set("x-litellm-version", "1.82.1")
		w.Header().Set("x-litellm-call-id", "6f0f")
		w.Header().Set("x-ratelimit-api_key-limit-requests", "100")
		w.Header().Set("x-ratelimit-api_key-remaining-requests", "40")
		switch text := strings.Join(a.Input, " "); {
		case strings.Contains(text, "provider"):
			w.Header().Set("llm_provider-retry-after", "9")
			fail(w, 429, nil, "litellm.RateLimitError: AzureException RateLimitError - Requests to the Embeddings_Create Operation have exceeded call rate limit. Please retry after 9 seconds.")
		case strings.Contains(text, "key's"):
			w.Header().Set("retry-after", "12")
			fail(w, 429, "throttling_error", "Rate limit exceeded for api_key: 88dc. Limit type: requests. Current limit: 100, Remaining: 0. Limit resets at: 2026-01-02 03:04:05 UTC")
		case strings.Contains(text, "budget"):
			fail(w, 400, "budget_exceeded", "Budget has been exceeded! Current cost: 26.075, Max budget: 0.25")
		case strings.Contains(text, "quota"):
			fail(w, 429, nil, "litellm.RateLimitError: RateLimitError: OpenAIException - You exceeded your current quota, please check your plan and billing details.")
		case strings.Contains(text, "long"):
			fail(w, 400, nil, "litellm.ContextWindowExceededError: litellm.BadRequestError: OpenAIException - This model's maximum context length is 8192 tokens, however you requested 9001 tokens")
		case strings.Contains(text, "bad"):
			writeJSON(w, 400, map[string]any{"error": map[string]any{"message": "litellm.BadRequestError: OpenAIException - '$.input' is invalid.", "type": "None", "param": "None", "code": "400"}})
		default:
			writeJSON(w, 200, listed(t, a, 48, a.Encoding == "base64"))
		}
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{"object": "list", "data": []any{map[string]any{"id": "ours", "object": "model", "created": 1, "owned_by": "openai"}}})
	})
	mux.HandleFunc("GET /model/info", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, map[string]any{"data": []any{map[string]any{"model_name": "else", "litellm_params": map[string]any{"model": "openai/x"}, "model_info": map[string]any{"max_input_tokens": 7}}, info}})
	})
	return mux
}

func TestLiteLLM(t *testing.T) {
	for want, info := range map[int]map[string]any{
		8191: {"model_name": "ours", "litellm_params": map[string]any{"model": "azure/ours-1"}, "model_info": map[string]any{"max_input_tokens": 8191, "mode": "embedding"}},
		2048: {"model_name": "ours", "litellm_params": map[string]any{"model": "ollama/nomic-embed-text"}, "model_info": map[string]any{"max_input_tokens": nil}},
		0:    {"model_name": "ours", "litellm_params": map[string]any{"model": "openai/unheard-of"}, "model_info": map[string]any{}},
	} {
		cfg := listening(t, liteLLM(t, info))
		cfg.Model = "ours"
		if m := open(t, cfg); m.MaxInput() != want {
			t.Errorf("MaxInput is %d, want %d", m.MaxInput(), want)
		}
	}
	cfg := listening(t, liteLLM(t, map[string]any{}))
	cfg.Model = "ours"
	m := open(t, cfg)
	for text, want := range map[string]kind{"provider": waits, "key's": waits, "budget": account, "quota": account, "long": input, "bad": input} {
		_, report, err := m.EmbedReported(t.Context(), embedder.Index, []string{text})
		failed := failure(t, err)
		if kindOf(t, failed) != want || report.Requests.Limit != 100 || report.Requests.Left != 40 {
			t.Errorf("%s: %v, %+v: %v", text, kindOf(t, failed), report, err)
		}
		if wait := map[string]float64{"provider": 9, "key's": 12}[text]; failed.RetryAfter.Seconds() != wait {
			t.Errorf("%s: after %v", text, failed.RetryAfter)
		}
	}
}

// Voyage reads the beginning of what is too long, unless it is asked not to.
func TestVoyageIsAskedNotToTruncate(t *testing.T) {
	var sent map[string]any
	through := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodPost {
			return &http.Response{StatusCode: 404, Body: http.NoBody, Header: http.Header{}, Request: r}, nil
		}
		sent = nil
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil {
			t.Error(err)
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(onlyVector)), Request: r}, nil
	})}
	cfg := openai.Config{Model: "voyage-4", BaseURL: "https://api.voyageai.com/v1", HTTPClient: through, Logger: quiet}
	if m := open(t, cfg); sent["truncation"] != false || m.Name() != "openai/voyage-4" {
		t.Errorf("%s was sent %v", m.Name(), sent)
	}
	cfg.Extra = map[string]any{"truncation": true}
	if open(t, cfg); sent["truncation"] != true {
		t.Errorf("sent %v", sent)
	}
	cfg.Extra, cfg.BaseURL = nil, "https://api.example.com/v1"
	if open(t, cfg); len(sent) != 3 {
		t.Errorf("sent %v", sent)
	}
}
