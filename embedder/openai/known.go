package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// limits are what a provider documents of a model.
type limits struct {
	input       int // tokens of an input
	batch       int // inputs of a request
	batchTokens int // tokens of a request
}

// known are well-known models by the last part of their names.
//
// OpenAI: the reference of POST /embeddings (8,192 tokens an input, 2,048 inputs and 300,000 tokens a request); ada-002's model card says 8,191.
// Voyage: the reference of POST /embeddings (1,000 inputs; 1M, 320K or 120K tokens by model; 32,000 tokens an input).
// Mistral: its refusals (16,384 tokens a request). Gemini: the model's announcement (2,048 tokens an input), and 100 texts a request.
// Cohere: the reference of POST /embed (96 texts; 512 tokens, and 128,000 for v4). Jina: the model's card (8,192). BAAI, mixedbread and sentence-transformers: the
// max_seq_length of their cards. nomic-embed-text: as Ollama runs it (2,048).
var known = map[string]limits{
	"text-embedding-3-small":        {8192, 2048, 300_000},
	"text-embedding-3-large":        {8192, 2048, 300_000},
	"text-embedding-ada-002":        {8191, 2048, 300_000},
	"voyage-4":                      {32000, 1000, 320_000},
	"voyage-4-large":                {32000, 1000, 120_000},
	"voyage-4-lite":                 {32000, 1000, 1_000_000},
	"voyage-3.5":                    {32000, 1000, 320_000},
	"voyage-3.5-lite":               {32000, 1000, 1_000_000},
	"voyage-3-large":                {32000, 1000, 120_000},
	"voyage-code-3":                 {32000, 1000, 120_000},
	"embed-v4.0":                    {128000, 96, 128_000},
	"embed-english-v3.0":            {512, 96, 0},
	"embed-multilingual-v3.0":       {512, 96, 0},
	"embed-english-light-v3.0":      {512, 96, 0},
	"embed-multilingual-light-v3.0": {512, 96, 0},
	"mistral-embed":                 {0, 0, 16_384},
	"gemini-embedding-001":          {2048, 100, 0},
	"jina-embeddings-v3":            {8192, 0, 0},
	"bge-m3":                        {8192, 0, 0},
	"bge-large-en-v1.5":             {512, 0, 0},
	"bge-base-en-v1.5":              {512, 0, 0},
	"bge-small-en-v1.5":             {512, 0, 0},
	"mxbai-embed-large":             {512, 0, 0},
	"mxbai-embed-large-v1":          {512, 0, 0},
	"nomic-embed-text":              {2048, 0, 0},
	"all-minilm":                    {256, 0, 0},
	"all-minilm-l6-v2":              {256, 0, 0},
}

// lookUp finds a model under the names that gateways (openai/…) and Ollama (…:latest) give it.
func lookUp(model string) limits {
	name := strings.ToLower(model[strings.LastIndexByte(model, '/')+1:])
	name, _, _ = strings.Cut(name, ":")
	return known[name]
}

// longest is how long an input may be: as the server says it, since it may run a model with less than the model can, or else as it is known of the model. 0: not
// known. It must be the same at every start, because names of generations stand on it: a server that fails to answer now is an error.
func (m *Model) longest(ctx context.Context) (int, error) {
	n := 0
	if !m.keepsQuiet() {
		var err error
		if n, err = m.told(ctx); err != nil {
			return 0, err
		}
	}
	if n == 0 {
		n = lookUp(m.cfg.Model).input
	}
	// vLLM cuts inputs off to so many tokens where it is asked to.
	if cut, ok := m.cfg.Extra["truncate_prompt_tokens"]; ok {
		if most, err := strconv.Atoi(fmt.Sprint(cut)); err == nil {
			n = shortest(n, most)
		}
	}
	return n, nil
}

// keepsQuiet tells whether the endpoint is known not to say what its models read.
func (m *Model) keepsQuiet() bool { return m.base.Host == "api.openai.com" }

// told asks the server, in the way of the one that it turns out to be. 0: it does not say.
//
// vLLM has max_model_len in its list of models, text-embeddings-inference has max_input_length at /info. Both refuse what is longer, unless they are told to truncate.
func (m *Model) told(ctx context.Context) (int, error) {
	var list struct {
		Data []struct {
			ID          string `json:"id"`
			MaxModelLen int    `json:"max_model_len"`
			Meta        struct {
				Context        int `json:"n_ctx"`
				ContextTrained int `json:"n_ctx_train"`
			} `json:"meta"`
		} `json:"data"`
	}
	if found, err := m.fetch(ctx, http.MethodGet, strings.TrimRight(m.base.Path, "/")+"/models", nil, &list); err != nil {
		return 0, err
	} else if found {
		for _, model := range list.Data {
			switch {
			case model.ID == m.cfg.Model && model.MaxModelLen > 0:
				return model.MaxModelLen, nil
			case model.Meta.ContextTrained > 0 && (len(list.Data) == 1 || model.ID == m.cfg.Model):
				return m.toldByLlamaCpp(ctx, shortest(model.Meta.Context, model.Meta.ContextTrained))
			case strings.EqualFold(model.ID, tagged(m.cfg.Model)):
				return m.toldByOllama(ctx, model.ID)
			}
		}
		if m.litellm.Load() {
			return m.toldByLiteLLM(ctx)
		}
		if len(list.Data) > 0 {
			return 0, nil
		}
	}
	var info struct {
		MaxInputLength     int `json:"max_input_length"`
		MaxClientBatchSize int `json:"max_client_batch_size"`
	}
	if found, err := m.fetch(ctx, http.MethodGet, m.root()+"/info", nil, &info); err != nil || !found {
		return 0, err
	}
	if info.MaxClientBatchSize > 0 && m.cfg.MaxBatch == 0 {
		m.mostBatch = int64(info.MaxClientBatchSize)
		m.maxBatch.Store(m.mostBatch)
	}
	return max(info.MaxInputLength, 0), nil
}

// ollamaContext is the context that Ollama gave a model before it told of it. Later ones give more.
const ollamaContext = 2048

// numCtx finds the parameter among those of a Modelfile.
var numCtx = regexp.MustCompile(`(?m)^num_ctx\s+(\d+)`)

// toldByOllama is the shortest of what the model was trained with, what its Modelfile sets, and what the server gave the model when it loaded it for our first request. It must
// be known: Ollama's /v1/embeddings reads the beginning of what is longer and says nothing, and does not pass the field truncate on that /api/embed has against it.
func (m *Model) toldByOllama(ctx context.Context, id string) (int, error) {
	var shown struct {
		Parameters string         `json:"parameters"`
		ModelInfo  map[string]any `json:"model_info"`
	}
	if found, err := m.fetch(ctx, http.MethodPost, m.root()+"/api/show", map[string]string{"model": m.cfg.Model}, &shown); err != nil || !found {
		return 0, err
	}
	trained := 0
	for key, value := range shown.ModelInfo {
		if n, ok := value.(float64); ok && strings.HasSuffix(key, ".context_length") && n >= 1 && n < math.MaxInt32 {
			trained = shortest(trained, int(n))
		}
	}
	given := 0
	if found := numCtx.FindStringSubmatch(shown.Parameters); found != nil {
		given, _ = strconv.Atoi(found[1])
	}
	var running struct {
		Models []struct {
			Name    string `json:"name"`
			Context int    `json:"context_length"`
		} `json:"models"`
	}
	if _, err := m.fetch(ctx, http.MethodGet, m.root()+"/api/ps", nil, &running); err != nil {
		return 0, err
	}
	for _, model := range running.Models {
		if strings.EqualFold(model.Name, id) {
			given = shortest(given, model.Context)
		}
	}
	if given == 0 {
		given = ollamaContext
	}
	return shortest(trained, given), nil
}

// toldByLlamaCpp is the context of one of the server's slots, which share what it was given. The server refuses what is longer, and also what is longer than its physical batch (-ub),
// of which it tells only then.
func (m *Model) toldByLlamaCpp(ctx context.Context, trained int) (int, error) {
	var props struct {
		Settings struct {
			Context int `json:"n_ctx"`
		} `json:"default_generation_settings"`
	}
	if _, err := m.fetch(ctx, http.MethodGet, m.root()+"/props", nil, &props); err != nil {
		return 0, err
	}
	return shortest(trained, props.Settings.Context), nil
}

// toldByLiteLLM is what the proxy knows of the models behind a name, the shortest of them, or else what is known of them here.
func (m *Model) toldByLiteLLM(ctx context.Context) (int, error) {
	var list struct {
		Data []struct {
			Name   string `json:"model_name"`
			Params struct {
				Model string `json:"model"`
			} `json:"litellm_params"`
			Info struct {
				MaxInputTokens int `json:"max_input_tokens"`
			} `json:"model_info"`
		} `json:"data"`
	}
	if found, err := m.fetch(ctx, http.MethodGet, m.root()+"/model/info", nil, &list); err != nil || !found {
		return 0, err
	}
	n := 0
	for _, model := range list.Data {
		if model.Name == m.cfg.Model {
			n = shortest(n, shortest(model.Info.MaxInputTokens, lookUp(model.Params.Model).input))
		}
	}
	return n, nil
}

// shortest is the smaller one of those that are known.
func shortest(a, b int) int {
	switch {
	case a <= 0:
		return max(b, 0)
	case b <= 0:
		return a
	}
	return min(a, b)
}

// tagged is a model's name as Ollama lists it.
func tagged(model string) string {
	if strings.Contains(model[strings.LastIndexByte(model, '/')+1:], ":") {
		return model
	}
	return model + ":latest"
}

// root is the path below which a server has what is not OpenAI's API.
func (m *Model) root() string {
	return strings.TrimSuffix(strings.TrimRight(m.base.Path, "/"), "/v1")
}

// fetch reads JSON from a path of the endpoint's host, and tells whether there was some. What may be there later is an error.
func (m *Model) fetch(ctx context.Context, method, path string, body, into any) (found bool, err error) {
	timed, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	var sent io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return false, fmt.Errorf("ask for %s: %w", path, err)
		}
		sent = bytes.NewReader(encoded)
	}
	at := *m.base
	at.Path, at.RawPath = path, ""
	req, err := http.NewRequestWithContext(timed, method, at.String(), sent)
	if err != nil {
		return false, fmt.Errorf("ask for %s: %w", path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if m.cfg.Key != "" {
		req.Header.Set("Authorization", "Bearer "+m.cfg.Key)
	}
	for name, value := range m.cfg.Headers {
		req.Header.Set(name, value)
	}
	op := "openai: read " + path
	res, err := m.http.Do(req)
	if err != nil {
		var inURL *url.Error
		if errors.As(err, &inURL) {
			err = inURL.Err
		}
		if ctx.Err() != nil {
			return false, fmt.Errorf("%s: %w", op, ctx.Err())
		}
		return false, m.classified(op, err, 0)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, answerOverhead))
	switch {
	case err != nil:
		return false, m.classified(op, err, 0)
	case res.StatusCode == http.StatusOK:
		return json.Unmarshal(answer, into) == nil, nil
	case res.StatusCode >= 400:
		if r := m.refused(res, answer); r.temporary && res.StatusCode != http.StatusInternalServerError { // some have 500 for a path that they don't know
			return false, m.classified(op, r, 0)
		}
	}
	return false, nil
}

// Estimate guesses the tokens of an input where the model's tokenizer is not at hand. It errs on the high side, by about a third above cl100k_base for English prose and by up to
// 2.6 times for other scripts, so that what it takes to fit, fits.
//
// A word counts one token for its first 5 letters and one for each 3 begun after them; a capital after a small letter begins a word. Each digit, symbol and
// line break counts one, each letter of the alphabets of Europe too, others two or three. What looks like a hash, a key or base64 counts one for each byte.
func Estimate(input string) int {
	const blob = 24 // bytes from which on a run of letters and digits may be one
	n := 2          // two frame an input for WordPiece models
	letters := 0    // of the word so far
	var last class
	run, counted, switches := 0, 0, 0 // of letters and digits without a gap: bytes, tokens, and how often their class changes
	end := func() {
		if run >= blob && 4*switches >= run {
			n += run - counted
		}
		letters, run, counted, switches, last = 0, 0, 0, 0, 0
	}
	for i := 0; i < len(input); {
		c := input[i]
		if kind := classes[c]; kind != 0 {
			i++
			if run > 0 && kind != last {
				switches++
			}
			run++
			if kind == capital && last == small || kind == digit {
				letters = 0
			}
			if kind == digit || letters == 0 || letters >= 5 && (letters-5)%3 == 0 {
				n++
				counted++
			}
			if kind != digit {
				letters++
			}
			last = kind
			continue
		}
		end()
		if c < utf8.RuneSelf {
			if i++; c != ' ' {
				n++
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(input[i:])
		i += size
		switch {
		case r == utf8.RuneError || r > 0xffff:
			n += 3
		case r < 0x0600: // Latin, Greek, Cyrillic and their neighbours
			n++
		default:
			n += 2
		}
	}
	end()
	return n
}

// class is of ASCII letters and digits; 0 is every other byte.
type class uint8

const (
	small class = iota + 1
	capital
	digit
)

var classes = func() (t [256]class) {
	for c := range 256 {
		switch {
		case 'a' <= c && c <= 'z':
			t[c] = small
		case 'A' <= c && c <= 'Z':
			t[c] = capital
		case '0' <= c && c <= '9':
			t[c] = digit
		}
	}
	return t
}()
