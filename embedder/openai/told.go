package openai

import (
	"cmp"
	"maps"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/liverag/liverag/embedder"
)

// What a provider may tell is bounded: beyond it, it is taken for a slip, or for its way to write that there is no limit.
const (
	// mostAllowed is the largest limit. Gateways write the largest whole number where there is none.
	mostAllowed = 1e12
	// longestReset is how far off a reset may be. One that is further off is of a month's quota, by which nothing can be paced.
	longestReset = 25 * time.Hour
	// windowSlack is how much longer than its window a reset may be: clocks differ, and seconds are rounded up.
	windowSlack = 2 * time.Second
)

// allowances reads what the headers of an answer tell of the two allowances. Now is our clock, for resets that are points in time and answers without a Date.
//
// The forms, and whose they are:
//   - x-ratelimit-{limit,remaining,reset}-{requests,tokens}: OpenAI, with resets like 6m0s; Groq, where the requests are those of a day; Azure, with resets in seconds, and -1 for what it does not tell.
//   - the same with a window at the end, -minute or -day: Mistral (whose requests are called req, and which sends no reset), Cerebras.
//   - the same with whose limit it is in the middle, as in x-ratelimit-api_key-limit-requests: LiteLLM's proxy.
//   - x-ratelimitbysize-{limit,remaining}-minute: Mistral's tokens before that, as Kong names them.
//   - x-ratelimit-{limit,remaining,reset}, alone or with a window at the end: many gateways (Kong, APISIX, OpenRouter); requests, unless said otherwise.
//   - the same and x-tokenlimit-{limit,remaining}: Together, where both are for a second.
//   - x-trial-endpoint-call-{limit,remaining}: Cohere's trial keys, requests a minute.
//   - RateLimit-{Limit,Remaining,Reset} and RateLimit-Policy: draft-ietf-httpapi-ratelimit-headers up to 06; RateLimit: limit=…, remaining=…, reset=… in 07; RateLimit: "name";r=…;t=… and
//     RateLimit-Policy: "name";q=…;w=… since 08.
//
// What contradicts itself or is no number is ignored, with all that belongs to it.
func allowances(h http.Header, host string, now time.Time) (requests, tokens embedder.Told) {
	if sent, err := http.ParseTime(h.Get("Date")); err == nil {
		now = sent // their clock, which may differ from ours
	}
	found := map[windowKey]*window{}
	at := func(k windowKey) *window {
		if found[k] == nil {
			found[k] = &window{per: k.per}
		}
		return found[k]
	}
	for name, values := range h {
		if len(values) == 0 || strings.TrimSpace(values[0]) == "" {
			continue
		}
		if k, part, ok := windowOf(strings.ToLower(name)); ok {
			at(k).read(part, strings.TrimSpace(values[0]), now)
		}
	}
	if strings.HasSuffix(host, ".together.xyz") || strings.HasSuffix(host, ".together.ai") {
		for k, w := range found {
			if k.per == 0 {
				w.per = time.Second
			}
		}
	}
	policies := items(strings.Join(h.Values("RateLimit-Policy"), ","))
	if w := found[windowKey{family: "ratelimit"}]; w != nil {
		for _, p := range append(items(h.Get("RateLimit-Limit")), policies...) { // 100;w=60 belongs to the limit of 100
			if q, err := strconv.ParseFloat(p.value, 64); err == nil && q == w.limit {
				w.per = p.window()
			}
		}
	}
	for _, item := range items(strings.Join(h.Values("RateLimit"), ",")) {
		k := windowKey{family: "structured", scope: item.value, tokens: strings.Contains(strings.ToLower(item.value), "token")}
		if key, value, pair := strings.Cut(item.value, "="); pair && !item.quoted {
			k = windowKey{family: "dictionary"}
			at(k).read(key, value, now)
			for _, p := range policies {
				if q, err := strconv.ParseFloat(p.value, 64); err == nil && q == at(k).limit {
					at(k).per = p.window()
				}
			}
			continue
		}
		unit := "requests"
		w := &window{}
		for _, p := range policies {
			if p.value == item.value {
				unit = strings.Trim(p.params["qu"], `"`)
				w.read("limit", p.params["q"], now)
				w.per = p.window()
			}
		}
		if unit != "" && unit != "requests" && unit != "tokens" {
			continue // content-bytes, concurrent-requests
		}
		k.tokens = k.tokens || unit == "tokens"
		w.read("remaining", item.params["r"], now)
		w.read("reset", item.params["t"], now)
		found[k] = w
	}
	for _, k := range slices.SortedFunc(maps.Keys(found), windowKey.compare) {
		told, ok := found[k].told()
		switch {
		case !ok:
		case k.tokens:
			tokens = binding(tokens, told)
		default:
			requests = binding(requests, told)
		}
	}
	return requests, tokens
}

// windowKey tells the windows of an answer apart.
type windowKey struct {
	family, scope string
	tokens        bool
	per           time.Duration
}

func (k windowKey) compare(other windowKey) int {
	tokens := func(k windowKey) int {
		if k.tokens {
			return 1
		}
		return 0
	}
	return cmp.Or(strings.Compare(k.family, other.family), strings.Compare(k.scope, other.scope), cmp.Compare(tokens(k), tokens(other)), cmp.Compare(k.per, other.per))
}

// periods are the windows that limits are for, as headers and messages name them. A month's is not among them: nothing can be paced by it.
var periods = map[string]time.Duration{
	"second": time.Second, "sec": time.Second, "minute": time.Minute, "min": time.Minute, "hour": time.Hour, "day": 24 * time.Hour,
}

// windowOf reads the name of a header, in small letters: which window it is about, and what of it it tells.
func windowOf(name string) (k windowKey, part string, ok bool) {
	if part, ok := strings.CutPrefix(name, "x-trial-endpoint-call-"); ok {
		return windowKey{family: "trial", per: time.Minute}, part, true
	}
	bare := strings.TrimPrefix(name, "x-")
	family, rest, _ := strings.Cut(bare, "-")
	switch family {
	case "ratelimit":
	case "ratelimitbysize", "tokenlimit":
		k.tokens = true
	default:
		return k, "", false
	}
	k.family = name[:len(name)-len(bare)] + family // with x- and without, they are another's
	words := strings.Split(rest, "-")
	isPart := func(s string) bool { return s == "limit" || s == "remaining" || s == "reset" }
	if len(words) > 1 && !isPart(words[0]) {
		k.scope, words = words[0], words[1:]
	}
	if part = words[0]; !isPart(part) {
		return k, "", false
	}
	for i, word := range words[1:] {
		per, isPeriod := periods[word]
		switch {
		case isPeriod:
			k.per = per
		case i > 0:
			return k, "", false
		case word == "requests" || word == "request" || word == "req":
		case word == "tokens" || word == "token":
			k.tokens = true
		default:
			return k, "", false
		}
	}
	if len(words) > 1 && periods[words[1]] == 0 {
		k.family += "-of" // x-ratelimit-limit beside x-ratelimit-limit-requests is another one
	}
	return k, part, true
}

// window is what is told of one limit.
type window struct {
	per                       time.Duration
	limit, left               float64
	reset                     time.Duration
	hasLimit, hasLeft, hasEnd bool
	wrong                     bool
}

// read takes in one value.
func (w *window) read(part, text string, now time.Time) {
	if text == "" {
		return
	}
	if part == "reset" {
		reset, ok := until(text, now)
		w.reset, w.hasEnd = reset, true
		w.wrong = w.wrong || !ok || reset > longestReset
		return
	}
	// Older drafts have the policies behind the limit: 100, 100;w=60.
	text, _, _ = strings.Cut(text, ",")
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || !(n >= 0 && n <= mostAllowed) {
		w.wrong = true
		return
	}
	switch part {
	case "limit":
		w.limit, w.hasLimit = n, true
	case "remaining":
		w.left, w.hasLeft = n, true
	}
}

// told is what may be believed of it.
func (w *window) told() (t embedder.Told, ok bool) {
	switch {
	case w.wrong, w.hasLimit && w.limit == 0, w.hasLimit && w.hasLeft && w.left > w.limit, w.per > 0 && w.reset > w.per+w.per/50+windowSlack:
		return t, false
	}
	t.Limit, t.Per, t.Left = w.limit, w.per, w.left
	if w.hasLeft && w.hasEnd {
		t.State, t.Reset = true, w.reset
		if t.Per == 0 && t.Limit > 0 {
			t.Per = windowFor(t)
		}
	} else if w.hasLeft && w.hasLimit {
		t.State, t.Reset = true, refill(t)
	}
	if !t.State {
		t.Left = 0
	}
	return t, t.Limit > 0 || t.State
}

// refill is how long it takes until nothing of a limit is used any more, if it comes back evenly.
func refill(t embedder.Told) time.Duration {
	per := t.Per
	if per == 0 {
		per = time.Minute
	}
	return time.Duration((1 - t.Left/t.Limit) * float64(per))
}

// windowFor finds what a limit is for by when it is whole again, where nobody says it. It is a minute, which is 0 here, unless the reset is further off: OpenAI and Groq
// tell of a day's requests in headers that are called like those of a minute's. Where a limit comes back evenly, the reset is to the window as what is used is to the limit.
func windowFor(t embedder.Told) time.Duration {
	if t.Reset <= time.Minute+windowSlack/2 {
		return 0
	}
	used := t.Limit - t.Left
	for _, per := range []time.Duration{time.Hour, 24 * time.Hour} {
		part := t.Reset.Seconds() / per.Seconds()
		// What is left is told in whole numbers, so one less may be used.
		if (used-1)/t.Limit*.99 <= part && part <= used/t.Limit*1.01 {
			return per
		}
	}
	if t.Reset <= time.Hour+windowSlack {
		return time.Hour
	}
	return 24 * time.Hour
}

// binding is which of two limits on the same thing is the nearer one: of which less is left, or else the one for the shorter time. Two that agree complete each other.
func binding(a, b embedder.Told) embedder.Told {
	minutes := func(t embedder.Told) time.Duration {
		if t.Per == 0 {
			return time.Minute
		}
		return t.Per
	}
	switch {
	case a == (embedder.Told{}):
		return b
	case b == (embedder.Told{}):
		return a
	case a.State != b.State:
		if a.State {
			return a
		}
		return b
	case a.State && a.Left != b.Left:
		if a.Left < b.Left {
			return a
		}
		return b
	case a.Limit == b.Limit && (a.Per == 0) != (b.Per == 0):
		// Of the one that does not say what it is for, the reset was told; of the other it may be reckoned.
		if a.Per != 0 {
			a, b = b, a
		}
		if a.Reset <= b.Per {
			a.Per = b.Per
		}
		return a
	case minutes(a) != minutes(b):
		if minutes(a) < minutes(b) {
			return a
		}
		return b
	case a.Limit != b.Limit:
		if a.Limit < b.Limit {
			return a
		}
		return b
	case a.Reset > b.Reset:
		return a
	}
	return b
}

// item is one of a structured field's list (RFC 9651, section 3.1), as far as these headers need it.
type item struct {
	value  string
	quoted bool
	params map[string]string
}

// window is the parameter w, in seconds; 0 if there is none, or none that makes sense.
func (i item) window() time.Duration {
	w, err := strconv.ParseFloat(i.params["w"], 64)
	if err != nil || !(w > 0) || w > longestReset.Seconds() {
		return 0
	}
	return time.Duration(w * float64(time.Second))
}

// items reads a list. What is no list gives items that nothing matches.
func items(text string) []item {
	var out []item
	for _, part := range cut(text, ',') {
		fields := cut(part, ';')
		value := strings.TrimSpace(fields[0])
		if value == "" {
			continue
		}
		one := item{value: strings.Trim(value, `"`), quoted: strings.HasPrefix(value, `"`), params: map[string]string{}}
		for _, field := range fields[1:] {
			key, value, _ := strings.Cut(strings.TrimSpace(field), "=")
			one.params[key] = value
		}
		out = append(out, one)
	}
	return out
}

// cut cuts at a character, but not within quotes.
func cut(text string, at byte) []string {
	var out []string
	start, quoted := 0, false
	for i := range len(text) {
		switch {
		case text[i] == '"':
			quoted = !quoted
		case text[i] == at && !quoted:
			out, start = append(out, text[start:i]), i+1
		}
	}
	return append(out, text[start:])
}

const (
	amount = `(\d+(?:,\d{3})*(?:\.\d+)?)`
	period = `(second|sec|minute|min|hour|day)`
)

var (
	// OpenAI: "Rate limit reached for M in organization O on tokens per min (TPM): Limit 1000000, Used 950000, Requested 60000. …", the same of Groq, and OpenAI's before
	// that: "… on requests per min. Limit: 3 / min. Current: 4 / min. …".
	limitReached = regexp.MustCompile(`(?i)\bon (requests|tokens) per ` + period + `s?\b[^:.]{0,20}[:.] ?limit:? ?` + amount + `(?: ?/ ?[a-z]+)?[.,]?(?: (?:used|current):? ?` + amount + `)?`)
	// Voyage, of accounts without a means of payment: "… will have reduced rate limits of 3 RPM and 10K TPM."
	reducedLimits = regexp.MustCompile(`(?i)rate limits? of ` + amount + `([km]?) RPM and ` + amount + `([km]?) TPM`)
	// Cohere: "You are using a Trial key, which is limited to 40 API calls / minute." (Those of a month are no rate, but an account's quota.)
	trialLimit = regexp.MustCompile(`(?i)limited to ` + amount + ` API calls ?/ ?` + period + `\b`)
)

// toldInWords reads the limits that a refusal for too much (429) tells in its message.
func toldInWords(message string) (requests, tokens embedder.Told) {
	for _, found := range limitReached.FindAllStringSubmatch(message, -1) {
		t := embedder.Told{Limit: number(found[3], ""), Per: periods[strings.ToLower(found[2])]}
		if found[4] != "" && t.Limit > 0 {
			t.State, t.Left = true, max(0, t.Limit-number(found[4], ""))
			t.Reset = refill(t)
		}
		if t.Limit == 0 {
			continue
		}
		if strings.EqualFold(found[1], "tokens") {
			tokens = binding(tokens, t)
		} else {
			requests = binding(requests, t)
		}
	}
	if found := reducedLimits.FindStringSubmatch(message); found != nil {
		if n := number(found[1], found[2]); n > 0 {
			requests = embedder.Told{Limit: n, Per: time.Minute}
		}
		if n := number(found[3], found[4]); n > 0 {
			tokens = embedder.Told{Limit: n, Per: time.Minute}
		}
	}
	if found := trialLimit.FindStringSubmatch(message); found != nil {
		if n := number(found[1], ""); n > 0 {
			requests = embedder.Told{Limit: n, Per: periods[strings.ToLower(found[2])]}
		}
	}
	return requests, tokens
}

// number reads an amount with its unit; 0 for what can't be meant.
func number(text, unit string) float64 {
	n, err := strconv.ParseFloat(strings.ReplaceAll(text, ",", ""), 64)
	switch strings.ToLower(unit) {
	case "k":
		n *= 1e3
	case "m":
		n *= 1e6
	}
	if err != nil || !(n >= 0 && n <= mostAllowed) {
		return 0
	}
	return n
}

// refined is what headers told, and the message of the same answer, which is about the limit that was met.
func refined(header, words embedder.Told) embedder.Told {
	switch {
	case words.Limit == 0:
		return header
	case words.State || words.Limit != header.Limit || header.Per != 0 && header.Per != words.Per:
		return words
	}
	header.Per = words.Per
	return header
}

// heard brings a later answer's word into what was told before: it counts, as far as it goes.
func heard(t *embedder.Told, later embedder.Told) {
	if later.Limit > 0 {
		t.Limit, t.Per = later.Limit, later.Per
	}
	if later.State {
		t.State, t.Left, t.Reset = true, later.Left, later.Reset
	}
	if t.Limit > 0 && t.Left > t.Limit {
		t.State, t.Left, t.Reset = false, 0, 0
	}
}

// until reads when something is over: a duration as Go writes it (OpenAI, Groq), seconds (Azure, the drafts, most gateways), Unix time in seconds or milliseconds (OpenRouter), or a
// date. What is just over is 0.
func until(text string, now time.Time) (time.Duration, bool) {
	var at time.Time
	s, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil:
		if d, err := time.ParseDuration(text); err == nil {
			return max(d, 0), d >= 0
		}
		if at, err = time.Parse(time.RFC3339, text); err != nil {
			if at, err = http.ParseTime(text); err != nil {
				return 0, false
			}
		}
	case math.IsNaN(s) || s < 0 || s > 1e13:
		return 0, false
	case s > 1e11:
		at = time.UnixMilli(int64(s))
	case s > 1e9:
		at = time.UnixMilli(int64(s * 1000))
	default:
		return time.Duration(math.Round(s * float64(time.Second))), true
	}
	left := at.Sub(now)
	return max(left, 0), left > -windowSlack-time.Second
}
