// Package openai embeds through any endpoint that speaks OpenAI's embeddings API: OpenAI itself, gateways, and servers such as vLLM, Ollama and
// text-embeddings-inference.
//
// Requests are built by go-openai. Answers are read here, because endpoints differ in more than go-openai forgives: base64 or arrays whatever was asked for,
// no index or another order, NaN, a web page instead of JSON. Nothing of an answer is believed before it has been checked.
package openai

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/sashabaranov/go-openai"

	"github.com/liverag/liverag/embedder"
)

// DefaultBaseURL is OpenAI's own.
const DefaultBaseURL = "https://api.openai.com/v1"

// Encodings of vectors in answers.
const (
	// Base64 asks for little-endian float32 in base64: a quarter of the bytes of an array, and read several times faster.
	Base64 = "base64"
	// Float leaves the choice out of the request, because arrays of numbers are every endpoint's default and some refuse the field.
	Float = "float"
)

// Config says which model to use and how. Only Model is required.
type Config struct {
	// Model is the name by which the endpoint knows it, such as text-embedding-3-small.
	Model string
	// BaseURL is what "/embeddings" is appended to. Defaults to DefaultBaseURL. A query in it goes into every request (Azure's ?api-version=…).
	BaseURL string
	// Key is sent as a bearer token. Empty: nothing is sent, as local servers like it.
	Key string
	// KeyName is how people set Key, for what they are told. Defaults to OPENAI_API_KEY.
	KeyName string
	// Organization is OpenAI's OpenAI-Organization header. Empty: not sent.
	Organization string
	// Headers go into every request, after ours (api-key for Azure). Their values are taken for secrets.
	Headers map[string]string

	// Dimensions is asked of the endpoint by the parameter of that name; models that can, shorten their vectors to it. 0: not sent.
	Dimensions int
	// Dim is the dimension that the endpoint must have, where it is known already, as for an index that exists. With it and MaxInput, or what Memory has of it (OpenAI's own
	// endpoint needs neither), Open succeeds although the endpoint is down for the moment. 0: Open finds it out.
	Dim int
	// Memory is a directory in which what endpoints say of their models is kept over restarts: how long an input may be, and the vectors by which a standby is compared. Several models,
	// and processes one after the other, may have the same. Empty: nothing is kept.
	Memory string
	// Encoding is Base64 or Float. Defaults to Base64, and to Float as soon as the endpoint turns out not to know it. Whichever is asked for, both are read.
	Encoding string

	// IndexPrefix and QueryPrefix are put before the inputs of their role, for models that were trained so ("search_query: ").
	IndexPrefix, QueryPrefix string
	// InputTypeIndex and InputTypeQuery are sent as the field InputTypeField, for endpoints that tell the roles apart themselves. Empty: not sent.
	InputTypeIndex, InputTypeQuery string
	// InputTypeField defaults to "input_type" (Voyage, Cohere); Jina calls it "task".
	InputTypeField string
	// Extra are further fields of each request, for what an endpoint has of its own, such as {"truncation": false}. They count as part of the model's name.
	Extra map[string]any

	// MaxInput is the longest input in tokens. 0: what the endpoint says (vLLM, text-embeddings-inference, Ollama, llama.cpp and LiteLLM are asked in their own ways), or else what is
	// known of the model, or else no limit. Negative: no limit; an endpoint that cuts off what is too long then does so unseen.
	MaxInput int
	// MaxBatch is the most inputs in a request. 0: what is known of the model, at most 128, or else 32, which is the least that
	// common servers take. An endpoint that takes fewer lowers it when it says so.
	MaxBatch int
	// MaxBatchTokens is the most tokens in a request, as CountTokens has them. 0: what is known of the model, or else no limit. Negative: no limit.
	MaxBatchTokens int
	// Timeout is how long a request may take until its answer is read. Defaults to 1 minute.
	Timeout time.Duration

	// Count counts tokens as the model does. Defaults to Estimate.
	Count func(string) int
	// OnUsage is called after each answer with the tokens that the endpoint says it charges for; ctx is the call's. It may be called concurrently. Defaults to nothing.
	OnUsage func(ctx context.Context, tokens int)
	// HTTPClient sends the requests. Its redirects are not followed. Defaults to one with a pool of connections of its own.
	HTTPClient *http.Client
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Model is an Embedder behind an endpoint.
type Model struct {
	cfg       Config
	name      string
	where     string // the base URL as it may be shown
	query     string // of the base URL
	base      *url.URL
	http      *http.Client
	client    client.ClientConfig
	secrets   []string
	dim       int
	maxInput  int
	framing   int // tokens of the longer prefix
	maxTokens int
	opened    embedder.Report

	mostBatch int64 // what maxBatch was before anything was refused
	maxBatch  atomic.Int64
	encoding  atomic.Int32

	litellm    atomic.Bool  // an answer came through LiteLLM's proxy
	answered   atomic.Int64 // when the last request was, in nanoseconds of Unix time
	otherModel sync.Once

	made atomic.Pointer[[len(specimenRoles)][][]float32] // what others are compared with
	owed atomic.Bool                                     // somebody wanted to compare, and we were away

	keeping sync.Mutex // held while what is kept is written

	requests, inputs, tokens atomic.Int64
}

// What is known of the encoding that the endpoint takes.
const (
	unproven int32 = iota // Base64 is asked for, and has not been answered yet
	proven
	plain // Float
)

// probe is the text of the first request.
const probe = "dimension"

// Open asks the endpoint to embed one word, to learn the model's dimension and the encoding that the endpoint takes.
//
// A failure is an *embedder.Error that says what to do next; Temporary means that the endpoint may be there later. Where Config.Dim, Config.MaxInput and Config.Memory
// leave nothing to be found out, a temporary failure is only logged.
func Open(ctx context.Context, cfg Config) (*Model, error) {
	m, err := configured(cfg)
	if err != nil {
		return nil, &embedder.Error{Op: "openai", Account: true, Input: -1, Err: err}
	}
	vectors, report, err := m.EmbedReported(ctx, embedder.Index, []string{probe})
	if err == nil {
		m.opened = report
		m.dim = cmp.Or(m.dim, len(vectors[0]))
	}
	if err == nil && cfg.MaxInput == 0 {
		m.maxInput, err = m.longest(ctx)
	}
	var failed *embedder.Error
	switch {
	case err == nil:
		m.keep()
		return m, nil
	case ctx.Err() != nil:
		return nil, err
	case !errors.As(err, &failed) || !failed.Temporary || cfg.Dim == 0:
		return nil, m.unopened(err)
	}
	before := m.recall()
	if before == nil && cfg.MaxInput == 0 && !m.keepsQuiet() {
		return nil, m.unopened(err)
	}
	if err := m.openedAway(ctx, before, err); err != nil {
		return nil, m.unopened(err)
	}
	return m, nil
}

// openedAway makes do with what the endpoint said before, if anything was kept, since it does not answer now. What is asked of it then is asked of its standby, or waits.
func (m *Model) openedAway(ctx context.Context, before *memory, away error) (err error) {
	m.cfg.Logger.Warn("the embedding endpoint does not answer yet", "endpoint", m.where, "model", m.cfg.Model, "known from before", before != nil, "error", away)
	if before != nil && len(before.Specimens) > 0 {
		m.made.Store((*[len(specimenRoles)][][]float32)(before.Specimens))
	}
	switch {
	case m.cfg.MaxInput != 0:
	case before != nil:
		m.maxInput = before.MaxInput
	default:
		m.maxInput, err = m.longest(ctx)
	}
	return err
}

// unopened is a failure of the first request, as it is about no input.
func (m *Model) unopened(err error) error {
	var failed *embedder.Error
	if !errors.As(err, &failed) {
		return err
	}
	first := *failed
	first.Op, first.Input = "openai: try "+m.cfg.Model+" at "+m.where, -1
	if errors.Is(err, errNoJSON) {
		// Of an endpoint that worked before, it is a proxy's page about an outage.
		first.Temporary = false
	}
	first.Account = !first.Temporary // it was our own word that was refused
	return &first
}

// configured checks a configuration and fills in what it leaves out, as far as that needs no endpoint.
func configured(cfg Config) (*Model, error) {
	if strings.TrimSpace(cfg.Model) == "" {
		return nil, errors.New("which model? Name it as openai/MODEL, such as openai/text-embedding-3-small")
	}
	cfg.BaseURL = cmp.Or(cfg.BaseURL, DefaultBaseURL)
	cfg.KeyName = cmp.Or(cfg.KeyName, "OPENAI_API_KEY")
	cfg.InputTypeField = cmp.Or(cfg.InputTypeField, "input_type")
	cfg.Timeout = cmp.Or(cfg.Timeout, time.Minute)
	cfg.Encoding = cmp.Or(cfg.Encoding, Base64)
	if cfg.Count == nil {
		cfg.Count = Estimate
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	base, err := url.Parse(cfg.BaseURL)
	switch {
	case err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https":
		return nil, errors.New("the base URL is none: it should be like " + DefaultBaseURL)
	case cfg.Encoding != Base64 && cfg.Encoding != Float:
		return nil, fmt.Errorf("the encoding %q is neither %s nor %s", cfg.Encoding, Base64, Float)
	case cfg.Dimensions < 0 || cfg.Dim < 0 || cfg.MaxBatch < 0 || cfg.Timeout < 0:
		return nil, errors.New("dimensions, inputs of a request and the timeout can't be negative")
	case cfg.Dim > 0 && cfg.Dimensions > 0 && cfg.Dim != cfg.Dimensions:
		return nil, fmt.Errorf("the index has %d dimensions, and %d are to be asked for", cfg.Dim, cfg.Dimensions)
	}
	for _, field := range []string{"input", "model", "encoding_format", "dimensions", cfg.InputTypeField} {
		if _, ok := cfg.Extra[field]; ok {
			return nil, fmt.Errorf("the extra field %q has a setting of its own", field)
		}
	}
	for name, value := range cfg.Headers {
		if strings.ContainsAny(name+value, "\r\n") || strings.TrimSpace(name) == "" {
			return nil, fmt.Errorf("the header %q can't be sent", name)
		}
	}
	if strings.ContainsAny(cfg.Key, "\r\n") {
		return nil, errors.New("the key has a line break in it; set " + cfg.KeyName + " again")
	}
	m := &Model{cfg: cfg, dim: cmp.Or(cfg.Dim, cfg.Dimensions), base: base, query: base.RawQuery}
	if m.name, err = cfg.name(); err != nil {
		return nil, err
	}
	shown := url.URL{Scheme: base.Scheme, Host: base.Host, Path: strings.TrimRight(base.Path, "/")}
	m.where = shown.String()
	for secret := range maps.Values(cfg.Headers) {
		m.secrets = append(m.secrets, secret)
	}
	password, _ := base.User.Password()
	m.secrets = append(m.secrets, cfg.Key, password)
	for value := range maps.Values(base.Query()) {
		m.secrets = append(m.secrets, value...)
	}
	// Shorter ones would blot out words, and protect nothing.
	m.secrets = slices.DeleteFunc(m.secrets, func(s string) bool { return len(s) < 8 })

	known := lookUp(cfg.Model)
	m.maxInput = max(cfg.MaxInput, 0)
	m.maxTokens = max(cmp.Or(cfg.MaxBatchTokens, known.batchTokens), 0)
	m.mostBatch = int64(cmp.Or(cfg.MaxBatch, min(known.batch, 128), 32))
	m.maxBatch.Store(m.mostBatch)
	for _, prefix := range []string{cfg.IndexPrefix, cfg.QueryPrefix} {
		if prefix != "" {
			m.framing = max(m.framing, cfg.Count(prefix))
		}
	}
	if cfg.Encoding == Float {
		m.encoding.Store(plain)
	}

	m.http = &http.Client{}
	if cfg.HTTPClient != nil {
		*m.http = *cfg.HTTPClient
	}
	if m.http.Transport == nil {
		m.http.Transport = &http.Transport{
			Proxy:       http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			// Every request in flight keeps its connection for the next one; the default would close all but two.
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     90 * time.Second,
			TLSHandshakeTimeout: 10 * time.Second,
			// Vectors hardly compress: it would cost both sides more time than it saves.
			DisableCompression: true,
			ForceAttemptHTTP2:  true,
			// A connection that went dead without a word would otherwise be given every request until the system notices, a quarter of an hour later.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
		}
	}
	// Elsewhere may be anybody: neither the key nor the texts go there.
	m.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

	m.client = client.DefaultConfig(cfg.Key)
	bare := *base
	bare.RawQuery, bare.Fragment = "", ""
	m.client.BaseURL, m.client.OrgID = bare.String(), cfg.Organization
	return m, nil
}

// name is openai/<model> with everything that decides a vector. What is long is hashed.
func (c *Config) name() (string, error) {
	name := "openai/" + c.Model
	if c.Dimensions > 0 {
		name += "+dim=" + strconv.Itoa(c.Dimensions)
	}
	if c.IndexPrefix == "" && c.QueryPrefix == "" && c.InputTypeIndex == "" && c.InputTypeQuery == "" && len(c.Extra) == 0 {
		return name, nil
	}
	field := c.InputTypeField
	if c.InputTypeIndex == "" && c.InputTypeQuery == "" {
		field = ""
	}
	// Maps are written in the order of their keys.
	spelled, err := json.Marshal([]any{c.IndexPrefix, c.QueryPrefix, field, c.InputTypeIndex, c.InputTypeQuery, c.Extra})
	if err != nil {
		return "", fmt.Errorf("the extra fields can't be sent: %w", err)
	}
	sum := sha256.Sum256(spelled)
	return fmt.Sprintf("%s+as=%x", name, sum[:4]), nil
}

// Name is openai/<model>, with +dim=<n> where a dimension is asked for, and +as=<hash> where there are prefixes, input types or extra fields.
// The endpoint is not part of it: the same model has the same vectors wherever it runs.
func (m *Model) Name() string { return m.name }

// Dim is the dimension that the endpoint answered with when it was first asked, or Config.Dim.
func (m *Model) Dim() int { return m.dim }

// MaxInput is the longest input in tokens, prefix included, or 0.
func (m *Model) MaxInput() int { return m.maxInput }

// MaxBatch is the most inputs in a request. It falls when the endpoint refuses a request for having more than it takes.
func (m *Model) MaxBatch() int { return int(m.maxBatch.Load()) }

// MaxBatchTokens is the most tokens in a request, or 0.
func (m *Model) MaxBatchTokens() int { return m.maxTokens }

// OpenedWith is what the endpoint said when the model was opened.
func (m *Model) OpenedWith() embedder.Report { return m.opened }

// Endpoint is the base URL, without what might be secret in it.
func (m *Model) Endpoint() string { return m.where }

// CountTokens counts by Config.Count, and adds the longer of the two prefixes.
func (m *Model) CountTokens(input string) int { return m.framing + m.cfg.Count(input) }

// Usage is what the endpoint was asked since the model was opened.
type Usage struct {
	// Requests are those that were answered with vectors, Inputs what was in them.
	Requests, Inputs int64
	// Tokens are those that the endpoint says it charges for; 0 if it never says.
	Tokens int64
}

// Usage are the totals so far.
func (m *Model) Usage() Usage {
	return Usage{Requests: m.requests.Load(), Inputs: m.inputs.Load(), Tokens: m.tokens.Load()}
}

// Close closes idle connections. The model remains usable.
func (m *Model) Close() error {
	m.http.CloseIdleConnections()
	return nil
}

// Embed is EmbedReported without the report.
func (m *Model) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	vectors, _, err := m.EmbedReported(ctx, role, inputs)
	return vectors, err
}

// EmbedReported sends the inputs that are not blank. More than MaxBatch or MaxBatchTokens take several requests, one after the other; behind an
// embedder.Batch with the same limits, a call is one request. An endpoint that turns out to take less, or not to know base64, and one whose refusal of a text is
// checked by another text, are asked again at once. The report has all of these; of the allowances, what was told last.
func (m *Model) EmbedReported(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, embedder.Report, error) {
	var report embedder.Report
	vectors, err := m.embed(ctx, role, inputs, &report)
	if err == nil && m.owed.CompareAndSwap(true, false) {
		_, _ = m.specimens(ctx, &report) // if that fails, they are owed again
	}
	return vectors, report, err
}

func (m *Model) embed(ctx context.Context, role embedder.Role, inputs []string, report *embedder.Report) ([][]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", m.name, err)
	}
	prefix := m.cfg.IndexPrefix
	if role == embedder.Query {
		prefix = m.cfg.QueryPrefix
	}
	out := make([][]float32, len(inputs))
	texts := make([]string, 0, len(inputs))
	places := make([]int, 0, len(inputs))
	for i, input := range inputs {
		if embedder.Blank(input) {
			out[i] = make([]float32, m.dim)
			continue
		}
		texts, places = append(texts, prefix+input), append(places, i)
	}
	for len(texts) > 0 {
		n := m.fitting(texts)
		vectors, err := m.ask(ctx, role, texts[:n], report)
		if err != nil {
			if m.lower(err, n) {
				continue
			}
			var failed *embedder.Error
			if errors.As(err, &failed) && failed.Input >= 0 {
				moved := *failed
				moved.Input = places[failed.Input]
				err = &moved
			}
			return nil, err
		}
		for i, vector := range vectors {
			out[places[i]] = vector
		}
		texts, places = texts[n:], places[n:]
	}
	return out, nil
}

// fitting is how many of the texts go into one request; at least one.
func (m *Model) fitting(texts []string) int {
	n := min(len(texts), m.MaxBatch())
	if m.maxTokens == 0 {
		return n
	}
	size := 0
	for _, text := range texts[:n] {
		size += len(text)
	}
	if size <= m.maxTokens {
		return n // no tokenizer makes more tokens than bytes
	}
	total := 0
	for i, text := range texts[:n] {
		if total += m.cfg.Count(text); total > m.maxTokens {
			return max(i, 1)
		}
	}
	return n
}

// lower learns from a refusal of a request that had too much in it, and tells whether a smaller one is worth sending.
func (m *Model) lower(err error, n int) bool {
	var r *refusal
	if !errors.As(err, &r) || !r.tooMany {
		return false
	}
	if n == 1 {
		if r.status == http.StatusBadRequest || r.status == http.StatusUnprocessableEntity {
			// So it was not the number of inputs, whatever the words were that made it look so.
			m.maxBatch.Store(m.mostBatch)
		}
		return false
	}
	limit := int64(n / 2)
	if r.limit > 0 && r.limit < n {
		limit = int64(r.limit)
	}
	for {
		old := m.maxBatch.Load()
		if old <= limit {
			return true
		}
		if m.maxBatch.CompareAndSwap(old, limit) {
			m.cfg.Logger.Warn("the embedding endpoint takes fewer inputs in a request than it was sent; fewer will be sent", "endpoint", m.where, "sent", n, "now", limit, "error", err)
			return true
		}
	}
}

// ask makes a request. Before an input is blamed for a failure, so that its document is given up, the endpoint must have shown that it is well otherwise: one that refuses every text, or
// answers each with NaN, is to blame itself. So it is the other way round where a firewall may have refused one text for all of them.
func (m *Model) ask(ctx context.Context, role embedder.Role, texts []string, report *embedder.Report) ([][]float32, error) {
	began := time.Now()
	vectors, err := m.encoded(ctx, role, texts, report)
	var failed *embedder.Error
	var r *refusal
	if m.dim == 0 || !errors.As(err, &failed) || failed.Input < 0 && !(errors.As(err, &r) && r.doubtful) || errors.Is(err, embedder.ErrInputTooLong) || m.answered.Load() >= began.UnixNano() {
		return vectors, err
	}
	_, err = m.encoded(ctx, embedder.Index, []string{m.cfg.IndexPrefix + probe}, report)
	if err == nil {
		return nil, failed
	}
	if ctx.Err() != nil {
		return nil, err
	}
	excused := *failed
	excused.Input = -1
	excused.Err = fmt.Errorf("%w; other texts fare no better", failed.Err)
	var other *embedder.Error
	if errors.As(err, &other) && other.Temporary {
		excused.Temporary, excused.Throttled, excused.RetryAfter = true, other.Throttled, other.RetryAfter
	} else {
		excused.Account = true
	}
	return nil, &excused
}

// encoded makes a request in the encoding that the endpoint takes.
func (m *Model) encoded(ctx context.Context, role embedder.Role, texts []string, report *embedder.Report) ([][]float32, error) {
	known := m.encoding.Load()
	vectors, err := m.send(ctx, role, texts, known != plain, report)
	if err == nil {
		m.encoding.CompareAndSwap(unproven, proven)
		return vectors, nil
	}
	var r *refusal
	if known == plain || !errors.As(err, &r) || !r.isEncoding() && (known == proven || !r.mayBeEncoding()) {
		return nil, err
	}
	if vectors, err = m.send(ctx, role, texts, false, report); err == nil && m.encoding.Swap(plain) != plain {
		m.cfg.Logger.Info("the embedding endpoint does not know base64; arrays are read instead", "endpoint", m.where)
	}
	return vectors, err
}

// send makes one request.
func (m *Model) send(ctx context.Context, role embedder.Role, texts []string, base64 bool, report *embedder.Report) ([][]float32, error) {
	op := "openai: embed " + strconv.Itoa(len(texts)) + " inputs"
	if len(texts) == 1 {
		op = "openai: embed 1 input"
	}
	timed, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()

	request := client.EmbeddingRequest{Model: client.EmbeddingModel(m.cfg.Model), Dimensions: m.cfg.Dimensions}
	if base64 {
		request.EncodingFormat = client.EmbeddingEncodingFormatBase64
	}
	// Input goes here because go-openai writes and reads its own fields once more before it sends them.
	request.ExtraBody = map[string]any{"input": texts}
	if m.base.Hostname() == "api.voyageai.com" {
		request.ExtraBody["truncation"] = false // it would cut long inputs off without a word
	}
	maps.Copy(request.ExtraBody, m.cfg.Extra)
	if kind := m.inputType(role); kind != "" {
		request.ExtraBody[m.cfg.InputTypeField] = kind
	}
	x := &exchange{model: m, inputs: len(texts), report: report}
	through := m.client
	through.HTTPClient = x
	_, err := client.NewClientWithConfig(through).CreateEmbeddings(timed, request)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: %w", op, ctx.Err())
	case timed.Err() != nil:
		return nil, &embedder.Error{Op: op, Temporary: true, Input: -1, Err: fmt.Errorf("%s has not answered within %v", m.where, m.cfg.Timeout)}
	default:
		return nil, m.classified(op, err, len(texts))
	}
	if tokens := x.answer.tokens; tokens > 0 {
		m.tokens.Add(int64(tokens))
		if m.cfg.OnUsage != nil {
			m.cfg.OnUsage(ctx, tokens)
		}
	}
	vectors, err := m.checked(op, x.answer, len(texts))
	if err != nil {
		return nil, err
	}
	m.answered.Store(time.Now().UnixNano())
	m.requests.Add(1)
	m.inputs.Add(int64(len(texts)))
	if other := x.answer.model; other != "" && other != m.cfg.Model {
		m.otherModel.Do(func() {
			m.cfg.Logger.Info("the embedding endpoint calls its model otherwise", "endpoint", m.where, "asked", m.cfg.Model, "answered", m.scrub(other))
		})
	}
	return vectors, nil
}

func (m *Model) inputType(role embedder.Role) string {
	if role == embedder.Query {
		return m.cfg.InputTypeQuery
	}
	return m.cfg.InputTypeIndex
}
