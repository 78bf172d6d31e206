package mockprovider

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// reason is why a request is refused. Servers differ in the words that they have for it, and in the status.
type reason int

const (
	badRequest reason = iota // and whatever else servers have no words of their own for
	unreadable
	unknownModel
	noInputs
	emptyInput
	tooManyInputs
	tooLongInput
	noDimensions
	poisoned
	wrongKey
	nowhere
	limited
	crowd
	failed
	overloaded
)

// problem is a refusal as OpenAI puts it, and what others need to put it in their way.
type problem struct {
	why                 reason
	status              int
	kind, code, message string
	param               string

	model        string
	limit, given int
	wait         int // seconds until it may be tried again
}

func (p problem) Error() string { return p.message }

// server is a program that the provider can pass for.
type server struct {
	// name, and what it does in its own way, for people.
	name, does string
	// most inputs in a request, where nothing else is asked for.
	inputs int
	// empty inputs are embedded like any.
	empty bool
	// plain has a server that does not know base64 answer with numbers, instead of refusing it.
	plain bool
	// say puts a refusal: nil is none at all.
	say func(p *problem) any
	// model is one of the list of models; nil: there is no such list.
	model func(name string, longest int) map[string]any
}

// servers are all there are. Words and shapes are those of their sources.
var servers = []server{
	{name: "openai", does: "OpenAI's errors; the list of models has max_model_len, as with many gateways", inputs: 2048, say: sayOpenAI, model: func(name string, longest int) map[string]any {
		model := map[string]any{"id": name, "object": "model", "created": 0, "owned_by": "mock-provider"}
		if longest > 0 {
			model["max_model_len"] = longest
		}
		return model
	}},
	{name: "azure", does: "Azure's 429, and the key as api-key", inputs: 2048, say: sayAzure, model: func(name string, _ int) map[string]any {
		return map[string]any{"id": name, "object": "model", "created": 0, "owned_by": "mock-provider"}
	}},
	{name: "vllm", does: "vLLM's errors, and max_model_len", inputs: math.MaxInt, empty: true, say: sayVLLM, model: modelVLLM},
	{name: "vllm-old", does: "those that vLLM had before, all at the top", inputs: math.MaxInt, empty: true, say: sayOldVLLM, model: modelVLLM},
	{name: "ollama", does: "Ollama's errors; a model has a tag, and nothing tells how long inputs may be", inputs: math.MaxInt, empty: true, plain: true, say: sayOllama, model: func(name string, _ int) map[string]any {
		return map[string]any{"id": tagged(name), "object": "model", "created": 0, "owned_by": "library"}
	}},
	{name: "tei", does: "text-embeddings-inference's errors, 32 inputs a request, /info and no list of models; it does not care for a model's name", inputs: 32, plain: true, say: sayTEI},
}

// Servers lists the programs that a provider can pass for, each with what it does in its own way.
func Servers() (names, does []string) {
	for _, s := range servers {
		names, does = append(names, s.name), append(does, s.does)
	}
	return names, does
}

// tagged is a model's name as Ollama lists it.
func tagged(name string) string {
	if strings.Contains(name, ":") {
		return name
	}
	return name + ":latest"
}

// null is nothing where there is no text.
func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func sayOpenAI(p *problem) any {
	return map[string]any{"error": map[string]any{"message": p.message, "type": p.kind, "param": null(p.param), "code": null(p.code)}}
}

func sayAzure(p *problem) any {
	code, message := strconv.Itoa(p.status), ""
	switch p.why {
	case limited, crowd:
		what := "call"
		if p.kind == tokensOf {
			what = "token"
		}
		message = fmt.Sprintf("Requests to the Embeddings_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded %s rate limit of your current OpenAI S0 pricing tier.", what)
		if p.wait > 0 {
			message += fmt.Sprintf(" Please retry after %d seconds.", p.wait)
		}
	case wrongKey:
		message = "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource."
	case unknownModel:
		code, message = "DeploymentNotFound", "The API deployment for this resource does not exist."
	default:
		return sayOpenAI(p)
	}
	return map[string]any{"error": map[string]any{"code": code, "message": message}}
}

// wordsVLLM are the message and the type that both of vLLM's shapes have, and the parameter of the newer one.
func wordsVLLM(p *problem) (message, kind, param string) {
	kinds := map[int]string{http.StatusBadRequest: "BadRequestError", http.StatusNotFound: "NotFoundError", http.StatusInternalServerError: "InternalServerError"}
	message, kind, param = p.message, cmp.Or(kinds[p.status], http.StatusText(p.status)), p.param
	switch p.why {
	case unknownModel:
		message, param = fmt.Sprintf("The model `%s` does not exist.", p.model), "model"
	case noDimensions:
		message = fmt.Sprintf("Model %q does not support matryoshka representation, changing output dimensions will lead to poor results.", p.model)
	case tooLongInput:
		param = "input_tokens"
		message = fmt.Sprintf("You passed %d input tokens and requested 0 output tokens. However, the model's context length is only %d tokens, resulting in a maximum input length of %[2]d tokens. Please reduce the length of the input prompt. (parameter=input_tokens, value=%[1]d)", p.given, p.limit)
	}
	return message, kind, param
}

func sayVLLM(p *problem) any {
	switch p.why {
	case wrongKey:
		return map[string]any{"error": "Unauthorized"}
	case nowhere:
		return map[string]any{"detail": "Not Found"}
	}
	message, kind, param := wordsVLLM(p)
	return map[string]any{"error": map[string]any{"message": message, "type": kind, "param": null(param), "code": p.status}}
}

func sayOldVLLM(p *problem) any {
	message, kind, _ := wordsVLLM(p)
	switch p.why {
	case wrongKey, nowhere:
		return sayVLLM(p)
	case tooLongInput:
		message = fmt.Sprintf("This model's maximum context length is %d tokens. However, you requested %d tokens in the input for embedding generation. Please reduce the length of the input.", p.limit, p.given)
	}
	return map[string]any{"object": "error", "message": message, "type": kind, "param": nil, "code": p.status}
}

func modelVLLM(name string, longest int) map[string]any {
	model := map[string]any{"id": name, "object": "model", "created": 0, "owned_by": "vllm", "root": name, "parent": nil, "max_model_len": nil, "permission": []any{}}
	if longest > 0 {
		model["max_model_len"] = longest
	}
	return model
}

func sayOllama(p *problem) any {
	message := p.message
	switch p.why {
	case nowhere:
		return "404 page not found"
	case unknownModel:
		message = fmt.Sprintf("model %q not found, try pulling it first", p.model)
	case noInputs:
		message = "invalid input"
	case tooLongInput:
		message = "the input length exceeds the context length"
	case crowd, overloaded:
		p.status = http.StatusServiceUnavailable
		message = "server busy, please try again.  maximum pending requests exceeded"
	}
	kinds := map[int]string{http.StatusBadRequest: "invalid_request_error", http.StatusNotFound: "not_found_error"}
	return map[string]any{"error": map[string]any{"message": message, "type": cmp.Or(kinds[p.status], "api_error"), "param": nil, "code": nil}}
}

func sayTEI(p *problem) any {
	message, kind := p.message, "Validation"
	switch p.why {
	case wrongKey, nowhere:
		return nil
	case unreadable, badRequest:
		p.status = http.StatusUnprocessableEntity
		return "Failed to deserialize the JSON body into the target type: " + p.message
	case noInputs, emptyInput:
		p.status, message, kind = http.StatusBadRequest, "`inputs` cannot be empty", "Empty"
	case tooManyInputs:
		p.status, message = http.StatusRequestEntityTooLarge, fmt.Sprintf("batch size %d > maximum allowed batch size %d", p.given, p.limit)
	case tooLongInput:
		p.status, message = http.StatusRequestEntityTooLarge, fmt.Sprintf("`inputs` must have less than %d tokens. Given: %d", p.limit, p.given)
	case crowd, limited:
		message, kind = "Model is overloaded", "Overloaded"
	case overloaded:
		message, kind = "unhealthy", "Unhealthy"
	case failed:
		kind = "Backend"
	}
	return map[string]any{"message": message, "code": p.status, "type": kind}
}

// refuse answers with a refusal in the words of the server that the provider passes for.
func (p *Provider) refuse(w http.ResponseWriter, refused problem) {
	switch said := p.server.say(&refused).(type) {
	case nil:
		w.WriteHeader(refused.status)
	case string:
		http.Error(w, said, refused.status)
	default:
		writeJSON(w, refused.status, said)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// names are the models that are listed.
func (p *Provider) names() []string {
	if len(p.cfg.Models) > 0 {
		return p.cfg.Models
	}
	return []string{"mock"}
}

// models answers with the list of models.
func (p *Provider) models(w http.ResponseWriter, r *http.Request) {
	if p.away(w, r) {
		return
	}
	list := []map[string]any{}
	for _, name := range p.names() {
		list = append(list, p.server.model(name, p.cfg.MaxInputTokens))
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

// info answers as text-embeddings-inference does.
func (p *Provider) info(w http.ResponseWriter, r *http.Request) {
	if p.away(w, r) {
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"model_id": p.names()[0], "model_sha": nil, "model_dtype": "float32", "model_type": map[string]any{"embedding": map[string]any{"pooling": "mean"}},
		"max_concurrent_requests": cmp.Or(p.cfg.MaxInFlight, 512), "max_input_length": cmp.Or(p.cfg.MaxInputTokens, 512), "max_batch_tokens": 16384, "max_batch_requests": nil,
		"max_client_batch_size": p.cfg.MaxInputs, "auto_truncate": false, "tokenization_workers": 1, "version": "1.8.0", "sha": nil, "docker_label": nil,
	})
}
