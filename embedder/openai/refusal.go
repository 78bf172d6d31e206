package openai

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/liverag/liverag/embedder"
)

// refusal is an answer that says no.
type refusal struct {
	status               int
	code, param, message string
	said                 string // as much of the message as it is judged by
	retryAfter           time.Duration
	// advice is what to do next.
	advice string

	temporary bool
	account   bool // we are refused, whatever we send
	doubtful  bool // either we are refused whatever we send, or a firewall on the way does not like one text
	tooLong   bool // one input is longer than the model reads
	tooMany   bool // the request has more in it than the endpoint takes
	limit     int  // of inputs in a request, if the refusal says so
	input     int  // the input that it names, or -1
}

func (r *refusal) Error() string {
	text := strconv.Itoa(r.status)
	if name := http.StatusText(r.status); name != "" {
		text += " " + name
	}
	if r.message != "" {
		text += ": " + r.message
	}
	if r.advice != "" {
		text += "; " + r.advice
	}
	return text
}

// Unwrap lets callers tell an input that is too long.
func (r *refusal) Unwrap() error {
	if r.tooLong {
		return embedder.ErrInputTooLong
	}
	return nil
}

// mayBeEncoding tells whether a request without an encoding may fare better: vLLM refused base64 with 400 once, strict servers answer 422, careless ones 500.
func (r *refusal) mayBeEncoding() bool {
	switch r.status {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity, http.StatusInternalServerError, http.StatusNotImplemented:
		return !r.tooLong && !r.tooMany
	}
	return false
}

// isEncoding tells whether it says that it is for the encoding.
func (r *refusal) isEncoding() bool {
	return r.mayBeEncoding() && (r.param == "encoding_format" || strings.Contains(r.said, "base64") || strings.Contains(r.said, "encoding_format"))
}

// aboutInputs tells whether the refusal of a request is for what is in its inputs, and not for a setting.
func (r *refusal) aboutInputs() bool {
	switch {
	case r.tooLong:
		return true
	case r.temporary || r.tooMany || r.account:
		return false
	}
	switch r.status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity, http.StatusInternalServerError:
		return true
	}
	return r.doubtful
}

// accountCodes are codes and types of errors that waiting does not mend. OpenAI sends the first with 429, and LiteLLM's proxy budget_exceeded with 400 or 429.
var accountCodes = []string{"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "account_deactivated", "access_terminated", "budget_exceeded"}

// modelCodes are those of a model that the endpoint does not have, or that does not embed; the latter two are Azure's.
var modelCodes = []string{"model_not_found", "DeploymentNotFound", "OperationNotSupported"}

// settings are the parameters of a request that are the same for all texts.
var settings = []string{"model", "dimensions", "encoding_format", "user"}

var (
	// What is spent and does not come back soon, where the code does not say it: LiteLLM's proxy of its own budgets, and Cohere of a trial key's month.
	spentWords = regexp.MustCompile(`(?i)budget has been exceeded|ExceededBudget|API calls ?/ ?month`)
	// OpenAI says so for an account without money, which gateways pass on without its code; Gemini says the same for a minute's limit, but with a time to try again.
	quotaWords = regexp.MustCompile(`(?i)exceeded your current quota`)
	// OpenAI says so, with 429, of a request with more tokens than are allowed in a minute.
	requestTooLarge = regexp.MustCompile(`(?i)^(.*: )?request too large`)
)

// The wordings below are those of the servers themselves: OpenAI ("This model's maximum context length is 8192 tokens"), vLLM (the same, and "the model's context length is only 512 tokens,
// resulting in a maximum input length of …"), Ollama ("the input length exceeds the context length"), text-embeddings-inference ("`inputs` must have less than 512 tokens", with 413),
// llama.cpp ("input (992 tokens) is too large to process. increase the physical batch size", with 500, "… is larger than the max context size (512 tokens)", "… exceeds the
// available context size"), Voyage ("… does not fit into the model's context window").
var tooLongWords = regexp.MustCompile(`(?i)maximum context length|exceeds? the (maximum |available )?context (length|size|window)|exceeds maximum context|context_length_exceeded|` +
	`must have less than \d+ tokens|input (\(\d+ tokens\) )?is too (large|long)|is larger than the max context size|too many tokens in (the )?input|input length \d+ exceeds|maximum input length|fit into the model's context window`)

// longestRead finds in such a refusal how many tokens the model reads.
var longestRead = regexp.MustCompile(`(?i)(?:context length is(?: only)?|must have less than|current batch size:|context size \(|context window of) ?(\d+)`)

// Of a request: OpenAI ("Too many inputs", "max 300000 tokens per request"), text-embeddings-inference ("batch size 64 > maximum allowed batch size 32"), Voyage ("max allowed tokens per
// submitted batch is 120000"), Mistral ("Too many tokens in batch. Max is 16384", "Too many tokens overall, split into more batches"), and others alike.
var tooManyWords = regexp.MustCompile(`(?i)batch[ _]size|too many inputs|(max(imum)?|at most|up to|limit)[^.]{0,40}\b(inputs|items|texts|documents|elements)\b|tokens per (request|submitted batch)|max_tokens_per_request|too many tokens in batch|split into more batches`)

// tooManyLimits find how many it would be.
var tooManyLimits = []*regexp.Regexp{
	regexp.MustCompile(`(?i)(?:maximum|max|at most|up to|limit|larger than|greater than|exceed)[a-z _]{0,40}(?: is| of|:|=)? ?(\d+)`),
	regexp.MustCompile(`(?i)(\d+) (?:inputs|items|texts|documents|elements)`),
}

// timeSpan is a number and its unit.
const timeSpan = `(\d+(?:\.\d+)?) ?(milliseconds?|minutes?|mins?|ms|m|seconds?|secs?|s|hours?|hrs?|h|days?|d)`

var (
	namedInput = regexp.MustCompile(`\binputs?\[(\d+)\]|\binput\.(\d+)\b`)
	// Go's, Python's and JavaScript's writers of JSON refuse NaN. So a server whose model made one of an input says, with 500.
	unwritable = regexp.MustCompile(`(?i)unsupported value: (NaN|[+-]?Inf)|out of range float values are not json compliant`)
	// Such as "Please try again in 1m20.5s" (OpenAI, Groq), "in 200ms", "Please retry after 2 seconds" (Azure), "Please retry in 34.07s" (Gemini).
	tryAgain = regexp.MustCompile(`(?i)(?:try again in|retry after|retry in|wait(?: for)?) ((?:` + timeSpan + `[ ,]*(?:and )?)+)(?:[^a-z]|$)`)
	spelled  = regexp.MustCompile(`(?i)` + timeSpan)
)

// refused reads an answer of status 400 or above.
func (m *Model) refused(res *http.Response, body []byte) *refusal {
	r := &refusal{status: res.StatusCode, input: -1}
	r.code, r.param, r.said = spoken(body)
	m.judge(r, res)
	return r
}

// refusedInside reads the error in an answer whose status claims a success, as some gateways do it.
func (m *Model) refusedInside(res *http.Response, failure []byte) *refusal {
	r := &refusal{status: http.StatusBadGateway, input: -1}
	r.code, r.param, r.said = spoken(append(append([]byte(`{"error":`), failure...), '}'))
	if n, err := strconv.Atoi(r.code); err == nil && n >= 400 && n < 600 {
		r.status = n
	}
	m.judge(r, res)
	return r
}

// judge fills in what follows from what was said.
func (m *Model) judge(r *refusal, res *http.Response) {
	r.said = m.cleaned(r.said)
	r.message = shortened(r.said, spokenRunes)
	said := r.code + " " + r.said
	now := time.Now()
	inRequest := r.status == http.StatusBadRequest || r.status == http.StatusRequestEntityTooLarge || r.status == http.StatusUnprocessableEntity
	r.tooLong = (inRequest || r.status == http.StatusInternalServerError) && tooLongWords.MatchString(said)
	tooMuch := r.status == http.StatusTooManyRequests && requestTooLarge.MatchString(r.said)
	if !r.tooLong && (r.status == http.StatusRequestEntityTooLarge || inRequest && tooManyWords.MatchString(said) || tooMuch) {
		r.tooMany = true
		for _, limit := range tooManyLimits {
			if found := limit.FindStringSubmatch(r.said); found != nil && !strings.Contains(said, "token") {
				r.limit, _ = strconv.Atoi(found[1])
				break
			}
		}
	}
	if found := namedInput.FindStringSubmatch(r.param + " " + r.said); found != nil {
		r.input, _ = strconv.Atoi(found[1] + found[2])
	}
	wait := retryAfter(res.Header, r.said, now)
	spent := slices.Contains(accountCodes, r.code) || (r.status == http.StatusBadRequest || r.status == http.StatusTooManyRequests) && spentWords.MatchString(r.said) || r.status == http.StatusTooManyRequests && wait == 0 && quotaWords.MatchString(r.said)
	switch r.status {
	case http.StatusTooManyRequests:
		r.temporary = !spent && !tooMuch
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, 499, 498: // 499: nginx lost its caller; 498: a full queue at some gateways
		r.temporary = true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		r.account = true
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusProxyAuthRequired, http.StatusGone:
		r.account = true
	case http.StatusForbidden:
		// APIs refuse a key in JSON. A web page may be from a firewall that takes a text for an attack.
		r.doubtful = r.said == webPage
		r.account = !r.doubtful
	default:
		r.temporary = r.status >= 500 && !r.tooLong && !unwritable.MatchString(r.said)
		_, extra := m.cfg.Extra[r.param]
		ofSetting := extra || slices.Contains(settings, r.param) || r.param != "" && r.param == m.cfg.InputTypeField
		r.account = !r.temporary && !r.tooLong && !r.tooMany && (ofSetting || slices.Contains(modelCodes, r.code))
	}
	if spent && !r.temporary {
		r.account, r.doubtful, r.tooMany = true, false, false
	}
	if r.temporary {
		r.retryAfter = wait
	}
	r.advice = m.advice(r, spent)
}

// advice is what to do about a refusal.
func (m *Model) advice(r *refusal, spent bool) string {
	switch {
	case r.status == http.StatusPaymentRequired || spent:
		return "the account's quota is used up or its billing is not in order: see the provider's settings"
	case r.tooLong:
		if found := longestRead.FindStringSubmatch(r.said); found != nil {
			return "set openai.max_input to " + found[1] + ", so that what is longer is split, or whatever the recipe says"
		}
	case r.doubtful:
		return "the key may not use " + m.cfg.Model + ", or a firewall before the endpoint takes the text for an attack: see what it logs"
	case r.status == http.StatusUnauthorized && m.cfg.Key == "":
		return "the endpoint wants a key: set " + m.cfg.KeyName
	case r.status == http.StatusUnauthorized:
		return "the endpoint refuses the key: set " + m.cfg.KeyName + " to one that is valid there"
	case r.status == http.StatusForbidden:
		return "the key may not use " + m.cfg.Model + ": allow it in the provider's settings, or take another key"
	case r.status == http.StatusNotFound && (slices.Contains(modelCodes, r.code) || strings.Contains(r.said, "model")):
		return "the endpoint does not have " + m.cfg.Model + ": see its list at " + m.where + "/models"
	case r.status == http.StatusNotFound || r.status == http.StatusMethodNotAllowed:
		return "nothing embeds at " + m.where + "/embeddings: the base URL usually ends in /v1"
	}
	return ""
}

// redirected is why a redirect is not followed.
func redirected(res *http.Response) *refusal {
	r := &refusal{status: res.StatusCode, input: -1, account: true, advice: "redirects are not followed, since they could take the key elsewhere: set the base URL to where the API is"}
	if to, err := res.Location(); err == nil {
		r.message = "to " + (&url.URL{Scheme: to.Scheme, Host: to.Host, Path: to.Path}).String()
	}
	return r
}

// classified is the failure of a request for a number of inputs, as callers understand it.
func (m *Model) classified(op string, err error, inputs int) error {
	failed := &embedder.Error{Op: op, Input: -1, Err: err}
	var r *refusal
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var authority x509.UnknownAuthorityError
	var alert *net.OpError
	switch {
	case errors.As(err, &r):
		// text-embeddings-inference answers 424 when a forward pass fails: perhaps for what is in the request, so a smaller one is tried before we wait.
		failed.Temporary = r.temporary || r.status == http.StatusFailedDependency && inputs <= 1
		failed.RetryAfter, failed.Account = r.retryAfter, r.account
		failed.Throttled = r.temporary && r.status == http.StatusTooManyRequests
		switch {
		case inputs == 1 && (r.aboutInputs() || r.tooMany):
			failed.Input = 0
		case !r.aboutInputs():
		case r.input < inputs && !r.tooLong:
			failed.Input = r.input
		}
	case errors.Is(err, errMalformed):
		// In a smaller request it may be right, as with servers that answer a list with one vector; alone, the input is not to blame.
		failed.Temporary = inputs == 1
	case errors.Is(err, errNoJSON):
		failed.Temporary = true
	case errors.As(err, &certificate), errors.As(err, &authority):
		failed.Account = true
		failed.Err = fmt.Errorf("%s can't be trusted: %w", m.where, err)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		failed.Account = true
		failed.Err = fmt.Errorf("%s does not speak TLS; should the base URL begin with http://?", m.where)
	case errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error") && !strings.Contains(alert.Error(), "internal error"):
		failed.Account = true
		failed.Err = fmt.Errorf("%s and we don't agree on how to speak TLS: %w; is a client certificate wanted, or is there a proxy between?", m.where, err)
	case errors.As(err, &dns):
		failed.Temporary = true
		failed.Err = fmt.Errorf("the host of %s can't be found: is the base URL right?", m.where)
	case errors.Is(err, syscall.ECONNREFUSED):
		failed.Temporary = true
		failed.Err = fmt.Errorf("nothing listens at %s: start the server, or set the base URL to where it is", m.where)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		failed.Temporary = true
		failed.Err = fmt.Errorf("%s broke the connection off: %w", m.where, err)
	default:
		failed.Temporary = true
		failed.Err = fmt.Errorf("%s: %s", m.where, m.scrub(err.Error()))
	}
	return failed
}

const (
	// spokenRunes is how much of what an endpoint says goes into a message.
	spokenRunes = 300
	// heardRunes is how much of it is judged by. What a server goes on about after that may be the text that it was sent.
	heardRunes = 1000
)

// scrub makes what an endpoint said fit for a message.
func (m *Model) scrub(text string) string { return shortened(m.cleaned(text), spokenRunes) }

// cleaned is what an endpoint said on one line, without our secrets.
func (m *Model) cleaned(text string) string {
	for _, secret := range m.secrets {
		text = strings.ReplaceAll(text, secret, "…")
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	return shortened(text, heardRunes)
}

// shortened is a text of at most so many characters.
func shortened(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return text
}

// webPage stands for a refusal in HTML.
const webPage = "(a web page)"

// spoken finds the code, the parameter and the message in the body of a refusal, in any of the shapes that servers use.
func spoken(body []byte) (code, param, message string) {
	var top map[string]json.RawMessage
	var list []map[string]json.RawMessage // Gemini has an array around it
	if json.Unmarshal(body, &list) == nil && len(list) == 1 {
		top = list[0]
	} else if json.Unmarshal(body, &top) != nil {
		text := strings.TrimSpace(string(body))
		if strings.HasPrefix(text, "<") {
			return "", "", webPage
		}
		return "", "", text
	}
	// OpenAI has an object under "error", others a string there, older vLLM everything at the top, FastAPI "detail".
	inner := top
	if json.Unmarshal(top["error"], &inner) != nil || inner == nil {
		inner = top
	}
	plain := func(name string) string {
		var value any
		if json.Unmarshal(inner[name], &value) != nil {
			return ""
		}
		switch v := value.(type) {
		case string:
			return v
		case float64:
			return strconv.FormatFloat(v, 'f', -1, 64)
		case []any, map[string]any:
			return string(inner[name])
		}
		return ""
	}
	code = plain("code")
	if kind := plain("type"); code == "" || slices.Contains(accountCodes, kind) {
		code = kind
	}
	return code, plain("param"), cmp.Or(plain("message"), plain("error"), plain("detail"))
}

// maxRetryAfter bounds what is believed: after that long we ask again, whatever the endpoint said.
const maxRetryAfter = time.Hour

// retryAfter is how long the endpoint asks to wait, 0 if it does not say. It says so by retry-after-ms (OpenAI, Azure; x-ms-retry-after-ms is an older one of Azure's), by Retry-After in seconds or
// as a date (RFC 9110, section 10.2.3), by llm_provider-retry-after (LiteLLM's proxy, of the provider behind it), by the reset of an allowance that is used up, or in the words of its
// message. A wait of nothing, or until a time that is over, says nothing: then the next of these is looked at.
func retryAfter(h http.Header, message string, now time.Time) time.Duration {
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent // their clock, which may differ from ours
	}
	for _, name := range []string{"Retry-After-Ms", "X-Ms-Retry-After-Ms"} {
		if ms, err := strconv.ParseFloat(h.Get(name), 64); err == nil && ms > 0 {
			return bounded(ms / 1000)
		}
	}
	for _, name := range []string{"Retry-After", "Llm_provider-Retry-After"} {
		if wait := waited(h.Get(name), now); wait > 0 {
			return wait
		}
	}
	wait := time.Duration(0)
	for _, family := range []string{"X-Ratelimit-", "Ratelimit-"} {
		for _, what := range []string{"-Requests", "-Tokens", ""} {
			if left, err := strconv.ParseFloat(h.Get(family+"Remaining"+what), 64); err == nil && left <= 0 {
				wait = max(wait, waited(h.Get(family+"Reset"+what), now))
			}
		}
	}
	if wait > 0 {
		return wait
	}
	for _, found := range tryAgain.FindAllStringSubmatch(message, -1) {
		s := 0.0
		for _, part := range spelled.FindAllStringSubmatch(found[1], -1) {
			n, _ := strconv.ParseFloat(part[1], 64)
			s += n * unitSeconds(strings.ToLower(part[2]))
		}
		if wait := bounded(s); wait > 0 {
			return wait
		}
	}
	return 0
}

// waited is how long a header's value says to wait, within bounds.
func waited(text string, now time.Time) time.Duration {
	if wait, ok := until(strings.TrimSpace(text), now); ok {
		return min(wait, maxRetryAfter)
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil {
		return bounded(s)
	}
	return 0
}

// unitSeconds is how many seconds a unit of time has, by its name in small letters.
func unitSeconds(unit string) float64 {
	switch {
	case strings.HasPrefix(unit, "ms"), strings.HasPrefix(unit, "mil"):
		return 1e-3
	case unit[0] == 'm':
		return 60
	case unit[0] == 'h':
		return 3600
	case unit[0] == 'd':
		return 86400
	}
	return 1
}

// bounded is so many seconds as a duration that is believed.
func bounded(s float64) time.Duration {
	if !(s > 0) {
		return 0
	}
	return time.Duration(math.Round(min(s, maxRetryAfter.Seconds()) * float64(time.Second)))
}
