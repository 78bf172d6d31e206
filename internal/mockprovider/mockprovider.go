// Package mockprovider is an embedding provider to rehearse with: OpenAI's /v1/embeddings and /v1/models with the latency, the limits and the faults that are asked for.
// Its vectors are whatever Config.Vectors makes, so that what is searched through it is found.
//
// All waiting is by package time, so in a synctest bubble its clock is the bubble's.
package mockprovider

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
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
	// NoBase64 refuses encoding_format base64, as some servers do.
	NoBase64 bool

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
	// Burst is how long a time's allowance may be used at once. Defaults to 1 minute, the whole of it, as OpenAI has it.
	Burst time.Duration
	// RetryAfter is how a 429 says when to come back: one of RetryHeaders. Defaults to "seconds".
	RetryAfter string
	// MaxInFlight is how many requests are worked on at once; more are answered 429. 0: no limit.
	MaxInFlight int

	// MaxInputs is the most inputs in a request. Defaults to 2,048, as OpenAI has it.
	MaxInputs int
	// MaxRequestTokens and MaxInputTokens are the most tokens in a request, and in one of its inputs. 0: no limit.
	MaxRequestTokens, MaxInputTokens int
	// Poison refuses each request that has an input which contains it. Empty: none.
	Poison string

	// Faults are drawn for each request that nothing else refuses.
	Faults []Fault
	// Script is what the first requests meet, in turn; "ok" is no fault. After it, faults are drawn.
	Script []string
	// Slow is how long the answer of a drip takes. Defaults to 10 seconds.
	Slow time.Duration
}

// RetryHeaders are the ways to say when to come back: Retry-After in seconds or as a date, retry-after-ms, or x-ratelimit-reset-* alone.
func RetryHeaders() []string { return []string{"seconds", "date", "ms", "reset"} }

// Fault is something that goes wrong with a probability.
type Fault struct {
	Kind string
	// Share of the requests, 0 to 1.
	Share float64
}

// ok is the fault that is none.
const ok = "ok"

// faults are what can go wrong, with what it is for people.
var faults = []struct{ kind, does string }{
	{"429", "too many requests, come back in a second"},
	{"500", "an internal error"},
	{"503", "overloaded"},
	{"quota", "429 that waiting does not mend: the account's quota is used up"},
	{"hang", "no answer, ever"},
	{"drip", "the answer comes byte by byte"},
	{"cut", "the connection ends without an answer"},
	{"truncate", "the connection ends in the middle of the answer"},
	{"html", "200 with a web page"},
	{"length", "vectors that are one number short"},
	{"nan", "a vector that holds NaN"},
	{"zero", "a vector of zeros"},
	{"count", "one vector too few"},
	{"shuffle", "vectors in another order, with their indexes"},
	{"noindex", "vectors without indexes"},
	{"model", "the name of another model"},
}

// Kinds lists the faults, each with what it is.
func Kinds() (kinds, does []string) {
	for _, f := range faults {
		kinds, does = append(kinds, f.kind), append(does, f.does)
	}
	return kinds, does
}

func checkKind(kind string) error {
	kinds, _ := Kinds()
	if !slices.Contains(kinds, kind) {
		return fmt.Errorf("there is no fault %q; there are %s", kind, strings.Join(kinds, ", "))
	}
	return nil
}

// ParseFaults reads faults as they are written in a flag: 429=0.05,hang=0.01.
func ParseFaults(text string) ([]Fault, error) {
	var out []Fault
	for pair := range strings.SplitSeq(text, ",") {
		if pair = strings.TrimSpace(pair); pair == "" {
			continue
		}
		kind, share, _ := strings.Cut(pair, "=")
		if err := checkKind(kind); err != nil {
			return nil, err
		}
		p, err := strconv.ParseFloat(share, 64)
		if err != nil || !(p >= 0 && p <= 1) {
			return nil, fmt.Errorf("%s is no fault with its share of the requests; write it like %s=0.05", pair, kind)
		}
		out = append(out, Fault{kind, p})
	}
	return out, checkShares(out)
}

func checkShares(all []Fault) error {
	total := 0.0
	for _, f := range all {
		total += f.Share
	}
	if total > 1+1e-9 {
		return fmt.Errorf("the shares of the faults come to %.3g of the requests, which is more than all", total)
	}
	return nil
}

// ParseScript reads a script as it is written in a flag: ok,ok,503*20,ok.
func ParseScript(text string) ([]string, error) {
	var out []string
	for step := range strings.SplitSeq(text, ",") {
		if step = strings.TrimSpace(step); step == "" {
			continue
		}
		kind, times, repeated := strings.Cut(step, "*")
		n := 1
		if repeated {
			var err error
			if n, err = strconv.Atoi(times); err != nil || n < 1 || n > 1_000_000 {
				return nil, fmt.Errorf("%s is no step of a script; write it like 503*20", step)
			}
		}
		if kind != ok {
			if err := checkKind(kind); err != nil {
				return nil, err
			}
		}
		out = append(out, slices.Repeat([]string{kind}, n)...)
	}
	return out, nil
}

// Stats are totals since the start.
type Stats struct {
	// Requests are all to /v1/embeddings; Answered those that got their vectors, with their Inputs and Tokens.
	Requests int64 `json:"requests"`
	Answered int64 `json:"answered"`
	Inputs   int64 `json:"inputs"`
	Tokens   int64 `json:"tokens"`
	// RateLimited got 429 for a limit, Refused another status from 400 to 499 that no fault was the cause of.
	RateLimited int64 `json:"rate_limited"`
	Refused     int64 `json:"refused"`
	// Faults are those that requests met, by kind.
	Faults map[string]int64 `json:"faults"`
	// Gone are requests whose caller did not wait for the answer.
	Gone int64 `json:"gone"`
	// InFlight are being worked on, and MostInFlight were at the busiest moment.
	InFlight     int `json:"in_flight"`
	MostInFlight int `json:"most_in_flight"`
}

// Provider is an http.Handler.
type Provider struct {
	cfg Config
	mux *http.ServeMux

	mu       sync.Mutex
	random   *rand.Rand
	script   []string
	requests bucket
	tokens   bucket
	stats    Stats
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
	if cfg.RetryAfter == "" {
		cfg.RetryAfter = "seconds"
	}
	if cfg.MaxInputs == 0 {
		cfg.MaxInputs = 2048
	}
	if cfg.Slow == 0 {
		cfg.Slow = 10 * time.Second
	}
	for _, n := range []int64{int64(cfg.Latency), int64(cfg.PerToken), int64(cfg.Jitter), int64(cfg.RPM), int64(cfg.TPM), int64(cfg.Burst), int64(cfg.MaxInFlight), int64(cfg.MaxInputs), int64(cfg.MaxRequestTokens), int64(cfg.MaxInputTokens), int64(cfg.Slow)} {
		if n < 0 {
			return nil, errors.New("times and limits can't be negative")
		}
	}
	if cfg.Dim < 1 || cfg.Dim > 65536 || cfg.MaxDim > 65536 {
		return nil, errors.New("a dimension is from 1 to 65536")
	}
	if !slices.Contains(RetryHeaders(), cfg.RetryAfter) {
		return nil, fmt.Errorf("%q is no way to say when to come back; there are %s", cfg.RetryAfter, strings.Join(RetryHeaders(), ", "))
	}
	for _, f := range cfg.Faults {
		if err := checkKind(f.Kind); err != nil {
			return nil, err
		}
	}
	if err := checkShares(cfg.Faults); err != nil {
		return nil, err
	}
	p := &Provider{
		cfg: cfg, mux: http.NewServeMux(), random: rand.New(rand.NewPCG(cfg.Seed, 1)), script: cfg.Script,
		requests: newBucket(cfg.RPM, cfg.Burst, time.Now()), tokens: newBucket(cfg.TPM, cfg.Burst, time.Now()),
		stats: Stats{Faults: map[string]int64{}},
	}
	p.mux.HandleFunc("POST /v1/embeddings", p.embeddings)
	p.mux.HandleFunc("GET /v1/models", p.models)
	p.mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, p.Stats()) })
	p.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, problem{status: http.StatusNotFound, kind: "invalid_request_error", message: fmt.Sprintf("Unknown request URL: %s %s. The base URL ends in /v1.", r.Method, r.URL.Path)})
	})
	return p, nil
}

// ServeHTTP answers a request.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.mux.ServeHTTP(w, r) }

// Stats are the totals so far.
func (p *Provider) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Faults = map[string]int64{}
	for kind, n := range p.stats.Faults {
		s.Faults[kind] = n
	}
	return s
}

// problem is a refusal in OpenAI's shape.
type problem struct {
	status              int
	kind, code, message string
	param               string
}

func (p problem) Error() string { return p.message }

func refuse(w http.ResponseWriter, p problem) {
	null := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	writeJSON(w, p.status, map[string]any{"error": map[string]any{"message": p.message, "type": p.kind, "param": null(p.param), "code": null(p.code)}})
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

func (p *Provider) models(w http.ResponseWriter, _ *http.Request) {
	names := p.cfg.Models
	if len(names) == 0 {
		names = []string{"mock"}
	}
	list := []map[string]any{}
	for _, name := range names {
		model := map[string]any{"id": name, "object": "model", "created": 0, "owned_by": "mock-provider"}
		if p.cfg.MaxInputTokens > 0 {
			model["max_model_len"] = p.cfg.MaxInputTokens // as vLLM says it
		}
		list = append(list, model)
	}
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": list})
}

// maxBody is the longest request that is read.
const maxBody = 64 << 20

// request is what is asked.
type request struct {
	Model      string          `json:"model"`
	Input      json.RawMessage `json:"input"`
	Encoding   string          `json:"encoding_format"`
	Dimensions *int            `json:"dimensions"`

	inputs []string
	tokens int
	dim    int
}

// read reads and checks a request.
func (p *Provider) read(w http.ResponseWriter, r *http.Request) (*request, error) {
	bad := func(param, code, format string, args ...any) (*request, error) {
		return nil, problem{status: http.StatusBadRequest, kind: "invalid_request_error", param: param, code: code, message: fmt.Sprintf(format, args...)}
	}
	var asked request
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&asked); err != nil {
		return bad("", "", "We could not parse the JSON body of your request: %v", err)
	}
	if asked.Model == "" {
		return bad("model", "", "you must provide a model parameter")
	}
	if len(p.cfg.Models) > 0 && !slices.Contains(p.cfg.Models, asked.Model) {
		return nil, problem{status: http.StatusNotFound, kind: "invalid_request_error", code: "model_not_found",
			message: fmt.Sprintf("The model `%s` does not exist or you do not have access to it.", asked.Model)}
	}
	counts, err := asked.readInputs(p.cfg.Tokens)
	if err != nil {
		return bad("input", "", "%v", err)
	}
	if len(asked.inputs) == 0 || len(asked.inputs) > p.cfg.MaxInputs {
		return bad("input", "", "'$.input' is invalid: batch size %d, the maximum is %d inputs.", len(asked.inputs), p.cfg.MaxInputs)
	}
	for i, input := range asked.inputs {
		if input == "" {
			return bad("input", "", "'$.input' is invalid: input[%d] is an empty string.", i)
		}
		if p.cfg.MaxInputTokens > 0 && counts[i] > p.cfg.MaxInputTokens {
			return bad("input", "context_length_exceeded", "This model's maximum context length is %d tokens, however you requested %d tokens. Please reduce your prompt.", p.cfg.MaxInputTokens, counts[i])
		}
		if p.cfg.Poison != "" && strings.Contains(input, p.cfg.Poison) {
			return bad("input", "", "Invalid input: the content can't be embedded.")
		}
		asked.tokens += counts[i]
	}
	if most := p.cfg.MaxRequestTokens; most > 0 && asked.tokens > most {
		return bad("input", "max_tokens_per_request", "Invalid 'input': requested %d tokens, max %d tokens per request.", asked.tokens, most)
	}
	switch asked.Encoding {
	case "", "float":
	case "base64":
		if p.cfg.NoBase64 {
			return bad("encoding_format", "", "base64 encoding is not currently supported")
		}
	default:
		return bad("encoding_format", "", "Invalid value for 'encoding_format' = %s. Supported values: ['float', 'base64'].", asked.Encoding)
	}
	asked.dim = p.cfg.Dim
	if asked.Dimensions != nil {
		asked.dim = *asked.Dimensions
		switch {
		case p.cfg.MaxDim < 0:
			return bad("dimensions", "", "This model does not support specifying dimensions.")
		case asked.dim < 1 || asked.dim > p.cfg.MaxDim:
			return bad("dimensions", "", "Invalid value for 'dimensions' = %d. Must be from 1 to %d.", asked.dim, p.cfg.MaxDim)
		}
	}
	return &asked, nil
}

// readInputs reads the four shapes that inputs may have. Tokens are embedded by their numbers, for want of their texts.
func (r *request) readInputs(count func(string) int) (counts []int, err error) {
	var one string
	var texts []string
	var tokens []int
	var lists [][]int
	switch {
	case json.Unmarshal(r.Input, &one) == nil:
		r.inputs = []string{one}
	case json.Unmarshal(r.Input, &texts) == nil:
		r.inputs = texts
	case json.Unmarshal(r.Input, &tokens) == nil:
		lists = [][]int{tokens}
	case json.Unmarshal(r.Input, &lists) == nil:
	default:
		return nil, errors.New("'$.input' is invalid: it should be a string, or an array of strings or of tokens")
	}
	for _, list := range lists {
		r.inputs = append(r.inputs, strings.Trim(fmt.Sprint(list), "[]"))
		counts = append(counts, len(list))
	}
	if lists == nil {
		for _, input := range r.inputs {
			counts = append(counts, count(input))
		}
	}
	return counts, nil
}

func (p *Provider) embeddings(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.stats.Requests++
	p.stats.InFlight++
	p.stats.MostInFlight = max(p.stats.MostInFlight, p.stats.InFlight)
	crowded := p.cfg.MaxInFlight > 0 && p.stats.InFlight > p.cfg.MaxInFlight
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.stats.InFlight--
		p.mu.Unlock()
	}()
	if p.cfg.Key != "" && r.Header.Get("Authorization") != "Bearer "+p.cfg.Key {
		p.count(func(s *Stats) { s.Refused++ })
		refuse(w, problem{status: http.StatusUnauthorized, kind: "invalid_request_error", code: "invalid_api_key", message: "Incorrect API key provided."})
		return
	}
	asked, err := p.read(w, r)
	if err != nil {
		p.count(func(s *Stats) { s.Refused++ })
		var refused problem
		errors.As(err, &refused)
		refuse(w, refused)
		return
	}
	if crowded {
		p.count(func(s *Stats) { s.RateLimited++ })
		p.comeBack(w.Header(), time.Second)
		refuse(w, problem{status: http.StatusTooManyRequests, kind: "requests", code: "rate_limit_exceeded", message: fmt.Sprintf("Rate limit reached: %d requests are being worked on.", p.cfg.MaxInFlight)})
		return
	}
	if wait, what := p.charge(w.Header(), asked.tokens); wait > 0 {
		p.count(func(s *Stats) { s.RateLimited++ })
		p.comeBack(w.Header(), wait)
		limit := p.cfg.RPM
		if what == "tokens" {
			limit = p.cfg.TPM
		}
		refuse(w, problem{status: http.StatusTooManyRequests, kind: what, code: "rate_limit_exceeded",
			message: fmt.Sprintf("Rate limit reached for %s on %s per min: Limit %d, Requested %d.", asked.Model, what, limit, asked.tokens)})
		return
	}
	fault, latency, share := p.draw(asked.tokens)
	if fault != ok {
		p.count(func(s *Stats) { s.Faults[fault]++ })
	}
	if fault == "hang" {
		<-r.Context().Done()
		p.gone()
	}
	if !sleep(r.Context(), latency) {
		p.gone()
	}
	p.answer(w, r, asked, fault, share)
}

// gone ends a request that nobody waits for. If it is the server that stops, its caller sees a connection that ends, and no empty answer.
func (p *Provider) gone() {
	p.count(func(s *Stats) { s.Gone++ })
	panic(http.ErrAbortHandler)
}

func (p *Provider) count(add func(*Stats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add(&p.stats)
}

// draw decides what a request meets, how long it takes, and where in it the fault is (0 to 1).
func (p *Provider) draw(tokens int) (fault string, latency time.Duration, share float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	latency = p.cfg.Latency + time.Duration(tokens)*p.cfg.PerToken
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

// charge takes a request from the allowances and writes the headers that tell what is left. A wait above 0 means that it is refused, and not charged.
func (p *Provider) charge(h http.Header, tokens int) (wait time.Duration, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	wait = p.requests.wait(1, now)
	what = "requests"
	if t := p.tokens.wait(float64(tokens), now); t > wait {
		wait, what = t, "tokens"
	}
	if wait == 0 {
		p.requests.level--
		p.tokens.level -= float64(tokens)
	}
	tell := func(name string, limit int, b *bucket) {
		if limit == 0 {
			return
		}
		h.Set("X-Ratelimit-Limit-"+name, strconv.Itoa(limit))
		h.Set("X-Ratelimit-Remaining-"+name, strconv.Itoa(max(0, int(b.level))))
		h.Set("X-Ratelimit-Reset-"+name, time.Duration((b.size-b.level)/b.rate*float64(time.Second)).Round(time.Millisecond).String())
	}
	tell("Requests", p.cfg.RPM, &p.requests)
	tell("Tokens", p.cfg.TPM, &p.tokens)
	return wait, what
}

// comeBack says when to come back.
func (p *Provider) comeBack(h http.Header, wait time.Duration) {
	whole := int64(math.Ceil(wait.Seconds()))
	switch p.cfg.RetryAfter {
	case "seconds":
		h.Set("Retry-After", strconv.FormatInt(whole, 10))
	case "date":
		// A date has whole seconds, so one more keeps it from being too early.
		h.Set("Retry-After", time.Now().Add(time.Duration(whole+1)*time.Second).UTC().Format(http.TimeFormat))
		h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	case "ms":
		h.Set("Retry-After-Ms", strconv.FormatInt(int64(math.Ceil(float64(wait)/float64(time.Millisecond))), 10))
	case "reset":
		h.Set("X-Ratelimit-Remaining-Requests", "0")
		h.Set("X-Ratelimit-Reset-Requests", time.Duration(math.Ceil(float64(wait)/float64(time.Millisecond))*float64(time.Millisecond)).String())
	}
}

// bucket is an allowance. One with rate 0 has no limit.
type bucket struct {
	rate, size, level float64
	at                time.Time
}

func newBucket(perMinute int, burst time.Duration, now time.Time) bucket {
	rate := float64(perMinute) / 60
	size := max(1, rate*burst.Seconds())
	return bucket{rate: rate, size: size, level: size, at: now}
}

// wait is how long until n may be taken. More than fits into the bucket may be taken from a full one.
func (b *bucket) wait(n float64, now time.Time) time.Duration {
	if b.rate == 0 {
		return 0
	}
	b.level = min(b.size, b.level+now.Sub(b.at).Seconds()*b.rate)
	b.at = now
	lack := min(n, b.size) - b.level
	if lack <= 1e-6 {
		return 0
	}
	return time.Duration(math.Ceil(lack / b.rate * float64(time.Second)))
}

// answer sends vectors, or what the fault makes of them.
func (p *Provider) answer(w http.ResponseWriter, r *http.Request, asked *request, fault string, share float64) {
	switch fault {
	case "429":
		p.comeBack(w.Header(), time.Second)
		refuse(w, problem{status: http.StatusTooManyRequests, kind: "requests", code: "rate_limit_exceeded", message: "Rate limit reached."})
		return
	case "quota":
		refuse(w, problem{status: http.StatusTooManyRequests, kind: "insufficient_quota", code: "insufficient_quota", message: "You exceeded your current quota, please check your plan and billing details."})
		return
	case "500":
		refuse(w, problem{status: http.StatusInternalServerError, kind: "server_error", message: "The server had an error while processing your request."})
		return
	case "503":
		refuse(w, problem{status: http.StatusServiceUnavailable, kind: "server_error", message: "The engine is currently overloaded, please try again later."})
		return
	case "html":
		w.Header().Set("Content-Type", "text/html")
		w.Write([]byte("<!doctype html><title>Bad gateway</title>"))
		return
	case "cut":
		panic(http.ErrAbortHandler)
	}
	vectors, err := p.cfg.Vectors(r.Context(), asked.dim, asked.inputs)
	if err != nil {
		refuse(w, problem{status: http.StatusInternalServerError, kind: "server_error", message: err.Error()})
		return
	}
	order := make([]int, len(vectors))
	for i := range order {
		order[i] = i
	}
	at := min(int(share*float64(len(vectors))), len(vectors)-1)
	spoil := func(change func(v []float32) []float32) { vectors[at] = change(slices.Clone(vectors[at])) }
	model := asked.Model
	switch fault {
	case "length":
		for i := range vectors {
			vectors[i] = vectors[i][:len(vectors[i])-1]
		}
	case "nan":
		spoil(func(v []float32) []float32 { v[int(share*float64(len(v)))] = float32(math.NaN()); return v })
	case "zero":
		spoil(func(v []float32) []float32 { clear(v); return v })
	case "count":
		order = order[:len(order)-1]
	case "shuffle":
		p.mu.Lock()
		p.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		p.mu.Unlock()
	case "model":
		model = "another-" + model
	}
	body := spell(asked, model, vectors, order, fault != "noindex")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	switch fault {
	case "truncate":
		w.Write(body[:len(body)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "drip":
		if !drip(w, r, body, p.cfg.Slow) {
			p.gone()
		}
	default:
		w.Write(body)
	}
	p.count(func(s *Stats) {
		s.Answered++
		s.Inputs += int64(len(asked.inputs))
		s.Tokens += int64(asked.tokens)
	})
}

// drip sends a body in a hundred pieces.
func drip(w http.ResponseWriter, r *http.Request, body []byte, slow time.Duration) bool {
	const pieces = 100
	for piece := range slices.Chunk(body, max(1, (len(body)+pieces-1)/pieces)) {
		if !sleep(r.Context(), slow/pieces) {
			return false
		}
		if _, err := w.Write(piece); err != nil {
			return false
		}
		http.NewResponseController(w).Flush()
	}
	return true
}

// spell writes an answer, by hand: package json would be the slowest part of a mock that is to be faster than what it tests, and it has no NaN.
func spell(asked *request, model string, vectors [][]float32, order []int, indexes bool) []byte {
	var b bytes.Buffer
	number := 12
	if asked.Encoding == "base64" {
		number = 6
	}
	b.Grow(256 + len(vectors)*(64+number*asked.dim))
	b.WriteString(`{"object":"list","data":[`)
	var packed []byte
	for n, i := range order {
		if n > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`{"object":"embedding",`)
		if indexes {
			fmt.Fprintf(&b, `"index":%d,`, i)
		}
		b.WriteString(`"embedding":`)
		if asked.Encoding == "base64" {
			packed = packed[:0]
			for _, x := range vectors[i] {
				packed = binary.LittleEndian.AppendUint32(packed, math.Float32bits(x))
			}
			b.WriteByte('"')
			b.Write(base64.StdEncoding.AppendEncode(b.AvailableBuffer(), packed))
			b.WriteByte('"')
		} else {
			b.WriteByte('[')
			for d, x := range vectors[i] {
				if d > 0 {
					b.WriteByte(',')
				}
				if x != x {
					b.WriteString("NaN") // as Python writes it
					continue
				}
				b.Write(strconv.AppendFloat(b.AvailableBuffer(), float64(x), 'g', -1, 32))
			}
			b.WriteByte(']')
		}
		b.WriteByte('}')
	}
	name, _ := json.Marshal(model)
	fmt.Fprintf(&b, `],"model":%s,"usage":{"prompt_tokens":%d,"total_tokens":%d}}`, name, asked.tokens, asked.tokens)
	return b.Bytes()
}
