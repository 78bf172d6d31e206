package mockprovider

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What allowances are of, as refusals name it.
const (
	requestsOf = "requests"
	tokensOf   = "tokens"
)

// told is what headers tell of an allowance.
type told struct {
	limit int           // a minute; 0: nothing is told
	quota int           // in per, for dialects that name the time
	per   time.Duration // whole seconds
	left  int
	reset time.Duration // until nothing is used any more
}

// telling is what headers tell of a request.
type telling struct {
	requests, tokens, day told
	cost                  int // tokens of this request
	now                   time.Time
}

// dialects are the ways to tell limits in headers, each with whose it is for people. They are of what providers document or were seen to send.
var dialects = []struct {
	name, whose string
	write       func(h http.Header, t *telling)
}{
	{"openai", "OpenAI's: x-ratelimit-limit-requests, -remaining- and -reset-, the same of tokens, times like 1m30s", func(h http.Header, t *telling) {
		pair(h, "Requests", &t.requests, goTime)
		pair(h, "Tokens", &t.tokens, goTime)
	}},
	{"azure", "Azure's: x-ratelimit-remaining-requests and -tokens, but no limit", func(h http.Header, t *telling) {
		left := func(name string, of *told) {
			if of.limit > 0 {
				h.Set("X-Ratelimit-Remaining-"+name, strconv.Itoa(of.left))
			}
		}
		left("Requests", &t.requests)
		left("Tokens", &t.tokens)
	}},
	{"azure-renewal", "Azure's newer ones: limits with their x-ratelimit-renewalperiod, in seconds", func(h http.Header, t *telling) {
		renewed := func(name string, of *told) {
			if of.limit > 0 {
				in := *of
				in.limit = of.quota
				pair(h, name, &in, wholeSeconds)
				h.Set("X-Ratelimit-Renewalperiod-"+name, wholeSeconds(of.per))
			}
		}
		renewed("Requests", &t.requests)
		renewed("Tokens", &t.tokens)
	}},
	{"groq", "Groq's: OpenAI's names, where those of requests are for a day", func(h http.Header, t *telling) {
		pair(h, "Requests", &t.day, goTime)
		pair(h, "Tokens", &t.tokens, goTime)
	}},
	{"mistral", "Mistral's: x-ratelimit-limit-req-minute and -tokens-minute, without a reset", func(h http.Header, t *telling) {
		minute := func(name string, of *told) {
			if of.limit > 0 {
				h.Set("X-Ratelimit-Limit-"+name+"-Minute", strconv.Itoa(of.limit))
				h.Set("X-Ratelimit-Remaining-"+name+"-Minute", strconv.Itoa(of.left))
			}
		}
		minute("Req", &t.requests)
		minute("Tokens", &t.tokens)
		if t.tokens.limit > 0 {
			h.Set("X-Ratelimit-Tokens-Query-Cost", strconv.Itoa(t.cost))
		}
	}},
	{"mistral-bysize", "Mistral's older ones: ratelimitbysize-limit, of tokens only", func(h http.Header, t *telling) {
		if t.tokens.limit == 0 {
			return
		}
		limit, left := strconv.Itoa(t.tokens.limit), strconv.Itoa(t.tokens.left)
		h.Set("Ratelimitbysize-Limit", limit)
		h.Set("Ratelimitbysize-Remaining", left)
		h.Set("Ratelimitbysize-Reset", wholeSeconds(t.tokens.reset))
		h.Set("Ratelimitbysize-Query-Cost", strconv.Itoa(t.cost))
		h.Set("X-Ratelimitbysize-Limit-Minute", limit)
		h.Set("X-Ratelimitbysize-Remaining-Minute", left)
	}},
	{"together", "Together's: x-ratelimit-limit and x-tokenlimit-limit, by the second", func(h http.Header, t *telling) {
		second := func(name string, of *told) {
			if of.limit > 0 {
				limit := max(1, of.limit/60)
				h.Set(name+"-Limit", strconv.Itoa(limit))
				h.Set(name+"-Remaining", strconv.Itoa(min(limit, of.left)))
			}
		}
		second("X-Ratelimit", &t.requests)
		second("X-Tokenlimit", &t.tokens)
		if t.requests.limit > 0 || t.tokens.limit > 0 {
			h.Set("X-Ratelimit-Reset", wholeSeconds(max(t.requests.reset, t.tokens.reset)))
		}
	}},
	{"unix", "the older common ones: x-ratelimit-limit and -remaining of requests, -reset as Unix time", func(h http.Header, t *telling) {
		bare(h, "X-Ratelimit-", &t.requests, func(d time.Duration) string {
			return strconv.FormatInt(int64(math.Ceil(float64(t.now.Add(d).UnixMilli())/1000)), 10)
		})
	}},
	{"unix-ms", "OpenRouter's: the same in milliseconds", func(h http.Header, t *telling) {
		bare(h, "X-Ratelimit-", &t.requests, func(d time.Duration) string { return strconv.FormatInt(t.now.Add(d).UnixMilli(), 10) })
	}},
	{"ietf", "the IETF's draft: RateLimit-Policy and RateLimit", func(h http.Header, t *telling) {
		var policies, states []string
		item := func(name, unit string, of *told) {
			if of.limit > 0 {
				policies = append(policies, fmt.Sprintf("%q;q=%d;w=%d%s", name, of.quota, int(of.per.Seconds()), unit))
				states = append(states, fmt.Sprintf("%q;r=%d;t=%s", name, of.left, wholeSeconds(of.reset)))
			}
		}
		item(requestsOf, "", &t.requests)
		item(tokensOf, `;qu="tokens"`, &t.tokens)
		if len(policies) > 0 {
			h.Set("Ratelimit-Policy", strings.Join(policies, ", "))
			h.Set("Ratelimit", strings.Join(states, ", "))
		}
	}},
	{"ietf-07", "its seventh draft: RateLimit with limit, remaining and reset, of requests only", func(h http.Header, t *telling) {
		if t.requests.limit > 0 {
			h.Set("Ratelimit", fmt.Sprintf("limit=%d, remaining=%d, reset=%s", t.requests.quota, t.requests.left, wholeSeconds(t.requests.reset)))
			h.Set("Ratelimit-Policy", fmt.Sprintf("%d;w=%d", t.requests.quota, int(t.requests.per.Seconds())))
		}
	}},
	{"ietf-old", "its drafts up to the sixth: RateLimit-Limit, -Remaining and -Reset, of requests only", func(h http.Header, t *telling) {
		in := t.requests
		in.limit = min(in.limit, in.quota)
		bare(h, "Ratelimit-", &in, wholeSeconds)
		if in.limit > 0 {
			h.Set("Ratelimit-Policy", fmt.Sprintf("%d;w=%d", in.quota, int(in.per.Seconds())))
		}
	}},
	{"none", "nothing is told", func(http.Header, *telling) {}},
}

// Dialects lists the ways to tell limits in headers, each with whose it is.
func Dialects() (names, whose []string) {
	for _, d := range dialects {
		names, whose = append(names, d.name), append(whose, d.whose)
	}
	return names, whose
}

func pair(h http.Header, name string, of *told, reset func(time.Duration) string) {
	if of.limit > 0 {
		h.Set("X-Ratelimit-Limit-"+name, strconv.Itoa(of.limit))
		h.Set("X-Ratelimit-Remaining-"+name, strconv.Itoa(of.left))
		h.Set("X-Ratelimit-Reset-"+name, reset(of.reset))
	}
}

func bare(h http.Header, prefix string, of *told, reset func(time.Duration) string) {
	if of.limit > 0 {
		h.Set(prefix+"Limit", strconv.Itoa(of.limit))
		h.Set(prefix+"Remaining", strconv.Itoa(of.left))
		h.Set(prefix+"Reset", reset(of.reset))
	}
}

// goTime writes a time as OpenAI does, in no finer steps than milliseconds, and never less than it is.
func goTime(d time.Duration) string {
	return time.Duration(math.Ceil(float64(d)/float64(time.Millisecond)) * float64(time.Millisecond)).String()
}

// wholeSeconds writes a time in seconds, never less than it is.
func wholeSeconds(d time.Duration) string { return strconv.Itoa(int(math.Ceil(d.Seconds()))) }

// tell writes what is left into headers.
func (p *Provider) tell(h http.Header, cost int, now time.Time) {
	t := telling{cost: cost, now: now}
	t.requests, t.tokens = p.told(&p.requests, now), p.told(&p.tokens, now)
	t.day = p.told(&p.day, now)
	t.day.limit = t.day.quota
	p.dialect(h, &t)
}

func (p *Provider) told(a *allowance, now time.Time) told {
	t := told{limit: a.perMinute, quota: a.perMinute, per: time.Minute, left: max(0, int(a.level+1e-6)), reset: a.full(now)}
	if a.perMinute > 0 && a.span >= time.Second && a.span%time.Second == 0 {
		t.quota, t.per = int(a.size), a.span
	}
	return t
}

// Ways to say when to come back.
const (
	inSeconds = "seconds"
	asDate    = "date"
	inMillis  = "ms"
	byReset   = "reset"
	inMessage = "message"
	unsaid    = "none"
)

// RetryHeaders are the ways in which a 429 can say when to come back: Retry-After in seconds or as a date, retry-after-ms, what the headers of the limits tell of a reset
// alone, or the message.
func RetryHeaders() []string { return []string{inSeconds, asDate, inMillis, byReset, inMessage} }

// checkRetry reads ways that are joined by commas.
func checkRetry(text string) ([]string, error) {
	ways := strings.Split(text, ",")
	for _, way := range ways {
		if way != unsaid && !slices.Contains(RetryHeaders(), way) {
			return nil, fmt.Errorf("%q is no way to say when to come back; there are %s, %s", way, strings.Join(RetryHeaders(), ", "), unsaid)
		}
	}
	return ways, nil
}

// comeBack says when to come back, in headers and in what it returns for the message. What is that of which there is not enough.
func (p *Provider) comeBack(h http.Header, what string, wait time.Duration) (message string) {
	if p.cfg.Quiet {
		return ""
	}
	now := time.Now()
	whole := int64(math.Ceil(wait.Seconds()))
	millis := time.Duration(math.Ceil(float64(wait)/float64(time.Millisecond))) * time.Millisecond
	for _, way := range p.retry {
		switch way {
		case inSeconds:
			h.Set("Retry-After", strconv.FormatInt(whole, 10))
		case asDate:
			// A date has whole seconds, so one more keeps it from being too early.
			h.Set("Retry-After", now.Add(time.Duration(whole+1)*time.Second).UTC().Format(http.TimeFormat))
			h.Set("Date", now.UTC().Format(http.TimeFormat))
		case inMillis:
			h.Set("Retry-After-Ms", strconv.FormatInt(millis.Milliseconds(), 10))
		case byReset:
			p.mu.Lock()
			t := telling{now: now, requests: p.told(&p.requests, now), tokens: p.told(&p.tokens, now)}
			short := &t.requests
			if what == tokensOf {
				short = &t.tokens
			}
			short.left, short.reset, short.limit = 0, millis, max(1, short.limit) // a crowd needs no limit of requests
			t.day = t.requests
			p.dialect(h, &t)
			p.mu.Unlock()
		case inMessage:
			message = fmt.Sprintf(" Please try again in %s.", millis)
		}
	}
	return message
}
