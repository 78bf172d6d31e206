// Package mockprovider is an embedding provider to rehearse with: OpenAI's /v1/embeddings and /v1/models with the latency, the limits and the faults that are asked for.
// Its vectors are whatever Config.Vectors makes, so that what is searched through it is found.
//
// All waiting is by package time, so in a synctest bubble its clock is the bubble's.
package mockprovider

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says what a Provider is like. Vectors is required.
type Config struct {
	// Vectors embeds inputs in a dimension. It may be called concurrently.
	Vectors func(ctx context.Context, dim int, inputs []string) ([][]float32, error)
	// Dim is the dimension where a request asks for none. Defaults to 384.
	Dim int
	// MaxDim is the largest that may be asked for by `dimensions`. Defaults to Dim; negative refuses the parameter.
	MaxDim int
	// Tokens counts an input. Defaults to a token for 4 bytes, rounded up.
	Tokens func(input string) int
	// Models are the names that are known. Empty: every name is.
	Models []string
	// Key must come as a bearer token. Empty: anybody may ask.
	Key string
	// NoBase64 refuses encoding_format base64, as some servers do, or answers with numbers where the Server would.
	NoBase64 bool
	// Server is the program that the provider passes for, in its errors and in what it tells of itself: one of Servers. Defaults to "openai".
	Server string

	// Latency is how long each answer takes at least.
	Latency time.Duration
	// PerToken is how much longer it takes for each token.
	PerToken time.Duration
	// Jitter is the most that is added to it, evenly drawn.
	Jitter time.Duration
	// Seed makes what is drawn the same again: jitter, and who meets which fault.
	Seed uint64

	// RPM is how many requests a minute are allowed, TPM how many tokens. 0: no limit.
	RPM, TPM int
	// Burst is how long a time's allowance may be used at once. Defaults to 1 minute, the whole of it, as OpenAI has it. What is used comes back all the time.
	Burst time.Duration
	// Window, where it is not 0, stands for Burst: what a window of that length allows comes back at once, at its end. A window opens with the first request after the last one.
	Window time.Duration
	// ChargeRefused has requests that are refused for a limit count as if they had been answered, as some providers have it.
	ChargeRefused bool
	// UsageFactor is how many tokens are charged for each that Tokens counts, as where a provider counts otherwise than its callers. The charge of a request is rounded up.
	// MaxRequestTokens and MaxInputTokens go by Tokens. Defaults to 1.
	UsageFactor float64
	// Headers is how answers tell the limits: one of Dialects. Defaults to "openai".
	Headers string
	// RetryAfter is how a 429 says when to come back: some of RetryHeaders, joined by commas, or "none". Defaults to "seconds".
	RetryAfter string
	// RefuseLarge has a request with more tokens than are allowed at once refused with 429 whenever it comes, as OpenAI does it. Otherwise it is let in when nothing is used.
	RefuseLarge bool
	// Quiet has a 429 say nothing but "Too Many Requests": neither which limit, nor when to come back.
	Quiet bool
	// MaxInFlight is how many requests are worked on at once; more are answered 429. 0: no limit.
	MaxInFlight int

	// MaxInputs is the most inputs in a request. Defaults to what the Server has: 2,048 for OpenAI.
	MaxInputs int
	// MaxRequestTokens and MaxInputTokens are the most tokens in a request, and in one of its inputs. 0: no limit.
	MaxRequestTokens, MaxInputTokens int
	// Poison refuses each request that has an input which contains it, with PoisonStatus, from 400 to 599, which defaults to 400. Empty: none.
	Poison       string
	PoisonStatus int

	// Faults are drawn for each request that nothing else refuses.
	Faults []Fault
	// Script is what the first requests meet, in turn; "ok" is no fault. After it, faults are drawn.
	Script []string
	// Schedule changes limits and begins and ends outages by time.
	Schedule []Event
	// Slow is how long the answer of a drip takes. Defaults to 10 seconds.
	Slow time.Duration
}

// Provider is an http.Handler.
type Provider struct {
	cfg     Config
	mux     *http.ServeMux
	start   time.Time
	retry   []string
	dialect func(http.Header, *telling)
	server  *server

	mu               sync.Mutex
	random           *rand.Rand
	script           []string
	events           []Event // that are to come
	outage           string  // ok where none is
	latency          time.Duration
	maxInFlight      int
	requests, tokens allowance
	day              allowance     // of requests; only told
	largest          int           // tokens that were charged for one request
	first            time.Duration // when the first request came
	bySecond         []int32
	stats            Stats
}

// New checks a configuration and makes its provider.
func New(cfg Config) (*Provider, error) {
	if cfg.Dim == 0 {
		cfg.Dim = 384
	}
	if cfg.MaxDim == 0 {
		cfg.MaxDim = cfg.Dim
	}
	if cfg.Tokens == nil {
		cfg.Tokens = func(input string) int { return (len(input) + 3) / 4 }
	}
	if cfg.Burst == 0 {
		cfg.Burst = time.Minute
	}
	cfg.RetryAfter = cmp.Or(cfg.RetryAfter, inSeconds)
	cfg.Headers = cmp.Or(cfg.Headers, dialects[0].name)
	cfg.UsageFactor = cmp.Or(cfg.UsageFactor, 1)
	cfg.PoisonStatus = cmp.Or(cfg.PoisonStatus, http.StatusBadRequest)
	cfg.Server = cmp.Or(cfg.Server, servers[0].name)
	known, _ := Servers()
	server := slices.Index(known, cfg.Server)
	if server < 0 {
		return nil, fmt.Errorf("%q is no server that it can pass for; there are %s", cfg.Server, strings.Join(known, ", "))
	}
	cfg.MaxInputs = cmp.Or(cfg.MaxInputs, servers[server].inputs)
	if cfg.Slow == 0 {
		cfg.Slow = 10 * time.Second
	}
	for _, n := range []int64{int64(cfg.Latency), int64(cfg.PerToken), int64(cfg.Jitter), int64(cfg.RPM), int64(cfg.TPM), int64(cfg.Burst), int64(cfg.Window), int64(cfg.MaxInFlight), int64(cfg.MaxInputs), int64(cfg.MaxRequestTokens), int64(cfg.MaxInputTokens), int64(cfg.Slow)} {
		if n < 0 {
			return nil, errors.New("times and limits can't be negative")
		}
	}
	if cfg.Dim < 1 || cfg.Dim > 65536 || cfg.MaxDim > 65536 {
		return nil, errors.New("a dimension is from 1 to 65536")
	}
	if !(cfg.UsageFactor > 0 && cfg.UsageFactor <= 1000) {
		return nil, errors.New("a usage factor is above 0 and at most 1000")
	}
	if cfg.PoisonStatus < 400 || cfg.PoisonStatus > 599 {
		return nil, errors.New("the status of a poisoned request is from 400 to 599")
	}
	retry, err := checkRetry(cfg.RetryAfter)
	if err != nil {
		return nil, err
	}
	names, _ := Dialects()
	dialect := slices.Index(names, cfg.Headers)
	if dialect < 0 {
		return nil, fmt.Errorf("%q is no way to tell limits; there are %s", cfg.Headers, strings.Join(names, ", "))
	}
	for _, f := range cfg.Faults {
		if err := checkKind(f.Kind); err != nil {
			return nil, err
		}
	}
	if err := checkShares(cfg.Faults); err != nil {
		return nil, err
	}
	if err := checkSchedule(cfg.Schedule); err != nil {
		return nil, err
	}
	now, span := time.Now(), cmp.Or(cfg.Window, cfg.Burst)
	p := &Provider{
		cfg: cfg, mux: http.NewServeMux(), start: now, retry: retry, dialect: dialects[dialect].write, server: &servers[server],
		random: rand.New(rand.NewPCG(cfg.Seed, 1)), script: cfg.Script, events: sorted(cfg.Schedule), outage: ok, latency: cfg.Latency, maxInFlight: cfg.MaxInFlight,
		requests: newAllowance(cfg.RPM, span, cfg.Window > 0, now), tokens: newAllowance(cfg.TPM, span, cfg.Window > 0, now),
		day:   newAllowance(cfg.RPM, 24*time.Hour, false, now),
		stats: Stats{Faults: map[string]int64{}},
	}
	p.mux.HandleFunc("POST /v1/embeddings", p.embeddings)
	if cfg.Server == "azure" {
		p.mux.HandleFunc("POST /openai/deployments/{model}/embeddings", p.embeddings)
	}
	if p.server.model != nil {
		p.mux.HandleFunc("GET /v1/models", p.models)
	} else {
		p.mux.HandleFunc("GET /info", p.info)
	}
	p.mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, p.Stats()) })
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		p.refuse(w, problem{why: nowhere, status: http.StatusNotFound, kind: "invalid_request_error", message: fmt.Sprintf("Unknown request URL: %s %s. The base URL ends in /v1.", r.Method, r.URL.Path)})
	})
	return p, nil
}

// ServeHTTP answers a request.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

// maxBody is the longest request that is read.
const maxBody = 64 << 20

// fields are what a request has beside its inputs.
type fields struct {
	Model      string `json:"model"`
	Encoding   string `json:"encoding_format"`
	Dimensions *int   `json:"dimensions"`
}

// request is what is asked.
type request struct {
	fields

	inputs []string
	counts []int // tokens of each input, where they came as tokens
	tokens int   // by our count
	charge int   // by the provider's
	dim    int
}

// read reads and checks a request. Of one that is refused it returns what could be read.
func (p *Provider) read(w http.ResponseWriter, r *http.Request) (*request, error) {
	var asked request
	bad := func(why reason, param, code, format string, args ...any) (*request, error) {
		return &asked, problem{why: why, status: http.StatusBadRequest, kind: "invalid_request_error", param: param, code: code, model: asked.Model, message: fmt.Sprintf(format, args...)}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = asked.parse(body)
	}
	if err != nil && err != errInput {
		return bad(unreadable, "", "", "We could not parse the JSON body of your request: %v", err)
	}
	asked.Model = cmp.Or(r.PathValue("model"), asked.Model)
	switch {
	case p.server.model == nil:
	case asked.Model == "":
		return bad(badRequest, "model", "", "you must provide a model parameter")
	case len(p.cfg.Models) > 0 && !slices.ContainsFunc(p.cfg.Models, func(name string) bool {
		return name == asked.Model || p.cfg.Server == "ollama" && tagged(name) == tagged(asked.Model)
	}):
		return &asked, problem{why: unknownModel, status: http.StatusNotFound, kind: "invalid_request_error", code: "model_not_found", model: asked.Model,
			message: fmt.Sprintf("The model `%s` does not exist or you do not have access to it.", asked.Model)}
	}
	if err != nil {
		return bad(badRequest, "input", "", "%v", err)
	}
	counts := asked.counts
	if counts == nil {
		for _, input := range asked.inputs {
			counts = append(counts, p.cfg.Tokens(input))
		}
	}
	for _, n := range counts {
		asked.tokens += n
	}
	asked.charge = int(math.Ceil(float64(asked.tokens)*p.cfg.UsageFactor - 1e-9))
	if n, most := len(asked.inputs), p.cfg.MaxInputs; n == 0 || n > most {
		why := noInputs
		if n > 0 {
			why = tooManyInputs
		}
		return &asked, problem{why: why, status: http.StatusBadRequest, kind: "invalid_request_error", param: "input", given: n, limit: most,
			message: fmt.Sprintf("'$.input' is invalid: batch size %d, the maximum is %d inputs.", n, most)}
	}
	for i, input := range asked.inputs {
		if input == "" && !p.server.empty {
			return bad(emptyInput, "input", "", "'$.input' is invalid: input[%d] is an empty string.", i)
		}
		if most := p.cfg.MaxInputTokens; most > 0 && counts[i] > most {
			return &asked, problem{why: tooLongInput, status: http.StatusBadRequest, kind: "invalid_request_error", param: "input", code: "context_length_exceeded", given: counts[i], limit: most,
				message: fmt.Sprintf("This model's maximum context length is %d tokens, however you requested %d tokens. Please reduce your prompt.", most, counts[i])}
		}
		if p.cfg.Poison != "" && strings.Contains(input, p.cfg.Poison) {
			if p.cfg.PoisonStatus >= 500 {
				return &asked, problem{why: failed, status: p.cfg.PoisonStatus, kind: "server_error", message: "The server had an error while processing your request."}
			}
			return &asked, problem{why: poisoned, status: p.cfg.PoisonStatus, kind: "invalid_request_error", param: "input", message: "Invalid input: the content can't be embedded."}
		}
	}
	if most := p.cfg.MaxRequestTokens; most > 0 && asked.tokens > most {
		return bad(badRequest, "input", "max_tokens_per_request", "Invalid 'input': requested %d tokens, max %d tokens per request.", asked.tokens, most)
	}
	switch asked.Encoding {
	case "", "float":
	case "base64":
		switch {
		case p.cfg.NoBase64 && p.server.plain:
			asked.Encoding = "float"
		case p.cfg.NoBase64:
			return bad(badRequest, "encoding_format", "", "base64 encoding is not currently supported")
		}
	default:
		return bad(badRequest, "encoding_format", "", "Invalid value for 'encoding_format' = %s. Supported values: ['float', 'base64'].", asked.Encoding)
	}
	asked.dim = p.cfg.Dim
	if asked.Dimensions != nil {
		asked.dim = *asked.Dimensions
		switch {
		case p.cfg.MaxDim < 0:
			return bad(noDimensions, "dimensions", "", "This model does not support specifying dimensions.")
		case asked.dim < 1 || asked.dim > p.cfg.MaxDim:
			return bad(badRequest, "dimensions", "", "Invalid value for 'dimensions' = %d. Must be from 1 to %d.", asked.dim, p.cfg.MaxDim)
		}
	}
	return &asked, nil
}

// errInput is of a request whose inputs have no shape that inputs may have.
var errInput = errors.New("'$.input' is invalid: it should be a string, or an array of strings or of tokens")

// parse reads the JSON of a request, whose inputs may have four shapes. Tokens are embedded by their numbers, for want of their texts.
func (r *request) parse(body []byte) error {
	// Nearly all come as strings, and this is most of what the provider does.
	var usual struct {
		fields
		Input []string `json:"input"`
	}
	if json.Unmarshal(body, &usual) == nil && usual.Input != nil {
		r.fields, r.inputs = usual.fields, usual.Input
		return nil
	}
	var other struct {
		fields
		Input json.RawMessage `json:"input"`
	}
	if err := json.Unmarshal(body, &other); err != nil {
		return err
	}
	r.fields = other.fields
	var one string
	var tokens []int
	var lists [][]int
	switch {
	case json.Unmarshal(other.Input, &one) == nil:
		r.inputs = []string{one}
		return nil
	case json.Unmarshal(other.Input, &tokens) == nil:
		lists = [][]int{tokens}
	case json.Unmarshal(other.Input, &lists) == nil:
	default:
		return errInput
	}
	for _, list := range lists {
		r.inputs = append(r.inputs, strings.Trim(fmt.Sprint(list), "[]"))
		r.counts = append(r.counts, len(list))
	}
	return nil
}

func (p *Provider) embeddings(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	now := time.Now()
	p.advance(now)
	p.arrive(now)
	outage, most := p.outage, p.maxInFlight
	crowded := most > 0 && p.stats.InFlight > most
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.stats.InFlight--
		p.mu.Unlock()
	}()
	if outage != ok {
		p.count(func(s *Stats) { s.Faults[outage]++ })
		p.fail(w, r, outage)
		return
	}
	key := r.Header.Get("Authorization") == "Bearer "+p.cfg.Key
	if p.cfg.Server == "azure" {
		key = r.Header.Get("Api-Key") == p.cfg.Key
	}
	if p.cfg.Key != "" && !key {
		p.count(func(s *Stats) { s.Refused++ })
		p.refuse(w, problem{why: wrongKey, status: http.StatusUnauthorized, kind: "invalid_request_error", code: "invalid_api_key", message: "Incorrect API key provided."})
		return
	}
	asked, err := p.read(w, r)
	if err != nil {
		var refused problem
		errors.As(err, &refused)
		p.count(func(s *Stats) {
			s.Refused++
			s.TokensRefused += int64(asked.charge)
		})
		p.refuse(w, refused)
		return
	}
	if crowded {
		p.count(func(s *Stats) {
			s.RateLimited++
			s.LimitedBy.Crowd++
			s.TokensRefused += int64(asked.charge)
		})
		again := p.comeBack(w.Header(), requestsOf, time.Second)
		p.tooMany(w, problem{why: crowd, kind: requestsOf, wait: 1, message: fmt.Sprintf("Rate limit reached: %d requests are being worked on.%s", most, again)})
		return
	}
	if refused := p.charge(w.Header(), asked); refused != nil {
		p.tooMany(w, *refused)
		return
	}
	answered := false
	defer func() {
		if !answered {
			p.count(func(s *Stats) { s.TokensFailed += int64(asked.charge) })
		}
	}()
	fault, latency, share := p.draw(asked.charge)
	if fault != ok {
		p.count(func(s *Stats) { s.Faults[fault]++ })
	}
	if fault == "hang" {
		p.fail(w, r, fault)
		return
	}
	if !sleep(r.Context(), latency) {
		p.gone()
	}
	answered = p.answer(w, r, asked, fault, share)
}

// tooMany is the refusal for a limit.
func (p *Provider) tooMany(w http.ResponseWriter, refused problem) {
	if p.cfg.Quiet {
		http.Error(w, http.StatusText(http.StatusTooManyRequests), http.StatusTooManyRequests)
		return
	}
	refused.status, refused.code = http.StatusTooManyRequests, "rate_limit_exceeded"
	p.refuse(w, refused)
}

// away tells whether there is an outage, which is the answer then.
func (p *Provider) away(w http.ResponseWriter, r *http.Request) bool {
	p.mu.Lock()
	p.advance(time.Now())
	outage := p.outage
	p.mu.Unlock()
	return p.fail(w, r, outage)
}

// fail does what a fault does that needs no vectors, and tells whether it is one.
func (p *Provider) fail(w http.ResponseWriter, r *http.Request, fault string) bool {
	switch fault {
	case "hang":
		<-r.Context().Done()
		p.gone()
	case "429":
		again := p.comeBack(w.Header(), requestsOf, time.Second)
		p.tooMany(w, problem{why: limited, kind: requestsOf, wait: 1, message: "Rate limit reached." + again})
	case "quota":
		p.refuse(w, problem{status: http.StatusTooManyRequests, kind: "insufficient_quota", code: "insufficient_quota", message: "You exceeded your current quota, please check your plan and billing details."})
	case "500":
		p.refuse(w, problem{why: failed, status: http.StatusInternalServerError, kind: "server_error", message: "The server had an error while processing your request."})
	case "503":
		p.refuse(w, problem{why: overloaded, status: http.StatusServiceUnavailable, kind: "server_error", message: "The engine is currently overloaded, please try again later."})
	case "html":
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<!doctype html><title>Bad gateway</title>"))
	case "cut":
		panic(http.ErrAbortHandler)
	default:
		return false
	}
	return true
}

// gone ends a request that nobody waits for. If it is the server that stops, its caller sees a connection that ends, and no empty answer.
func (p *Provider) gone() {
	p.count(func(s *Stats) { s.Gone++ })
	panic(http.ErrAbortHandler)
}

// draw decides what a request meets, how long it takes, and where in it the fault is (0 to 1).
func (p *Provider) draw(tokens int) (fault string, latency time.Duration, share float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	latency = p.latency + time.Duration(tokens)*p.cfg.PerToken
	if p.cfg.Jitter > 0 {
		latency += time.Duration(p.random.Int64N(int64(p.cfg.Jitter) + 1))
	}
	fault, share = ok, p.random.Float64()
	at := p.random.Float64()
	if len(p.script) > 0 {
		fault, p.script = p.script[0], p.script[1:]
		return fault, latency, share
	}
	for _, f := range p.cfg.Faults {
		if at -= f.Share; at < 0 {
			return f.Kind, latency, share
		}
	}
	return fault, latency, share
}

// sleep waits and tells whether the caller did too.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
