package openai

import (
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
)

// headers are pairs of a name and a value.
func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

// fresh is an allowance with its state.
func fresh(limit float64, per time.Duration, left float64, reset time.Duration) embedder.Told {
	return embedder.Told{Limit: limit, Per: per, State: true, Left: left, Reset: reset}
}

func TestAllowances(t *testing.T) {
	const day = 24 * time.Hour
	none := embedder.Told{}
	now := time.Unix(1_700_000_000, 0)
	for _, tt := range []struct {
		name             string
		h                http.Header
		requests, tokens embedder.Told
	}{
		{"nothing", headers("Content-Type", "application/json"), none, none},
		{"OpenAI", headers("x-ratelimit-limit-requests", "5000", "x-ratelimit-remaining-requests", "4999", "x-ratelimit-reset-requests", "12ms",
			"x-ratelimit-limit-tokens", "160000", "x-ratelimit-remaining-tokens", "158866", "x-ratelimit-reset-tokens", "425ms",
			"x-ratelimit-limit-tokens_usage_based", "160000", "x-ratelimit-remaining-tokens_usage_based", "1", "x-ratelimit-reset-tokens_usage_based", "1m0s"),
			fresh(5000, 0, 4999, 12*time.Millisecond), fresh(160000, 0, 158866, 425*time.Millisecond)},
		{"OpenAI, full again", headers("x-ratelimit-limit-requests", "60", "x-ratelimit-remaining-requests", "59", "x-ratelimit-reset-requests", "1s", "x-ratelimit-remaining-tokens", "150000", "x-ratelimit-limit-tokens", "150000", "x-ratelimit-reset-tokens", "0s"),
			fresh(60, 0, 59, time.Second), fresh(150000, 0, 150000, 0)},
		{"OpenAI, minutes", headers("x-ratelimit-limit-tokens", "150000", "x-ratelimit-remaining-tokens", "149984", "x-ratelimit-reset-tokens", "6m0s"), none, fresh(150000, time.Hour, 149984, 6*time.Minute)},
		{"OpenAI, of a day", headers("x-ratelimit-limit-requests", "200", "x-ratelimit-remaining-requests", "199", "x-ratelimit-reset-requests", "7m12s"), fresh(200, day, 199, 432*time.Second), none},
		{"OpenAI, of a day, in part", headers("x-ratelimit-limit-requests", "200", "x-ratelimit-remaining-requests", "197", "x-ratelimit-reset-requests", "16m17.764s"), fresh(200, day, 197, 977764*time.Millisecond), none},
		{"Groq", headers("x-ratelimit-limit-requests", "14400", "x-ratelimit-remaining-requests", "14370", "x-ratelimit-reset-requests", "2m59.56s", "x-ratelimit-limit-tokens", "18000", "x-ratelimit-remaining-tokens", "17997", "x-ratelimit-reset-tokens", "7.66s"),
			fresh(14400, day, 14370, 179560*time.Millisecond), fresh(18000, 0, 17997, 7660*time.Millisecond)},
		{"Azure", headers("x-ratelimit-limit-requests", "600", "x-ratelimit-remaining-requests", "599", "x-ratelimit-reset-requests", "10", "x-ratelimit-limit-tokens", "-1", "x-ratelimit-remaining-tokens", "-1", "x-ratelimit-reset-tokens", "0"), fresh(600, 0, 599, 10*time.Second), none},
		{"Azure, what is left alone", headers("x-ratelimit-remaining-requests", "119", "x-ratelimit-remaining-tokens", "119984"), none, none},
		{"Mistral", headers("x-ratelimit-limit-tokens-minute", "5000000", "x-ratelimit-remaining-tokens-minute", "4500000", "x-ratelimit-tokens-query-cost", "52", "x-ratelimit-limit-req-minute", "720", "x-ratelimit-remaining-req-minute", "0"),
			fresh(720, time.Minute, 0, time.Minute), fresh(5_000_000, time.Minute, 4_500_000, 6*time.Second)},
		{"Mistral by size", headers("x-ratelimitbysize-limit-minute", "500000", "x-ratelimitbysize-remaining-minute", "499000", "x-ratelimitbysize-limit-month", "1000000000", "x-ratelimitbysize-remaining-month", "5",
			"ratelimitbysize-limit", "500000", "ratelimitbysize-remaining", "499000", "ratelimitbysize-reset", "41", "ratelimitbysize-query-cost", "1000"),
			none, fresh(500000, time.Minute, 499000, 41*time.Second)},
		{"Cerebras", headers("x-ratelimit-limit-requests-day", "14400", "x-ratelimit-remaining-requests-day", "14399", "x-ratelimit-reset-requests-day", "33011.38", "x-ratelimit-limit-tokens-minute", "60000", "x-ratelimit-remaining-tokens-minute", "59000", "x-ratelimit-reset-tokens-minute", "11.5"),
			fresh(14400, day, 14399, 33011380*time.Millisecond), fresh(60000, time.Minute, 59000, 11500*time.Millisecond)},
		{"LiteLLM", headers("x-ratelimit-api_key-limit-requests", "10", "x-ratelimit-api_key-remaining-requests", "7", "x-ratelimit-api_key-limit-tokens", "20000", "x-ratelimit-api_key-remaining-tokens", "19000",
			"x-ratelimit-team-limit-requests", "50", "x-ratelimit-team-remaining-requests", "2", "x-ratelimit-api_key-limit-max_parallel_requests", "3", "x-ratelimit-api_key-remaining-max_parallel_requests", "0",
			"llm_provider-x-ratelimit-limit-requests", "1", "llm_provider-x-ratelimit-remaining-requests", "0"),
			fresh(50, 0, 2, 57600*time.Millisecond), fresh(20000, 0, 19000, 3*time.Second)},
		{"no limit, as LiteLLM has it", headers("x-ratelimit-limit-requests", "9223372036854775807", "x-ratelimit-remaining-requests", "9223372036854775807"), none, none},
		{"Together", headers("x-ratelimit-limit", "10", "x-ratelimit-remaining", "9", "x-ratelimit-reset", "1", "x-tokenlimit-limit", "30000", "x-tokenlimit-remaining", "15000"), fresh(10, time.Second, 9, time.Second), fresh(30000, time.Second, 15000, time.Second/2)},
		{"Cohere", headers("x-trial-endpoint-call-limit", "20", "x-trial-endpoint-call-remaining", "5"), fresh(20, time.Minute, 5, 45*time.Second), none},
		{"gateway", headers("X-RateLimit-Limit", "100", "X-RateLimit-Remaining", "87", "X-RateLimit-Reset", "30"), fresh(100, 0, 87, 30*time.Second), none},
		{"gateway, Unix time", headers("X-RateLimit-Limit", "100", "X-RateLimit-Remaining", "87", "X-RateLimit-Reset", "1700000042"), fresh(100, 0, 87, 42*time.Second), none},
		{"gateway, by its clock", headers("X-RateLimit-Limit", "100", "X-RateLimit-Remaining", "87", "X-RateLimit-Reset", "1445412510", "Date", "Wed, 21 Oct 2015 07:28:00 GMT"), fresh(100, 0, 87, 30*time.Second), none},
		{"OpenRouter", headers("X-RateLimit-Limit", "20", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1700000030500"), fresh(20, 0, 0, 30500*time.Millisecond), none},
		{"a date", headers("X-RateLimit-Limit", "20", "X-RateLimit-Remaining", "3", "X-RateLimit-Reset", "2023-11-14T22:13:50Z"), fresh(20, 0, 3, 30*time.Second), none},
		{"just over", headers("X-RateLimit-Limit", "20", "X-RateLimit-Remaining", "3", "X-RateLimit-Reset", "1699999999"), fresh(20, 0, 3, 0), none},
		{"a window of an hour", headers("X-RateLimit-Limit", "1000", "X-RateLimit-Remaining", "400", "X-RateLimit-Reset", "1800"), fresh(1000, time.Hour, 400, 30*time.Minute), none},
		{"a window of a day", headers("X-RateLimit-Limit", "1000", "X-RateLimit-Remaining", "400", "X-RateLimit-Reset", "50000"), fresh(1000, day, 400, 50000*time.Second), none},
		{"Kong", headers("X-RateLimit-Limit-Minute", "60", "X-RateLimit-Remaining-Minute", "59", "X-RateLimit-Limit-Day", "10000", "X-RateLimit-Remaining-Day", "5000", "RateLimit-Limit", "60", "RateLimit-Remaining", "59", "RateLimit-Reset", "48"),
			fresh(60, time.Minute, 59, 48*time.Second), none},
		{"Kong, a day nearly over", headers("X-RateLimit-Limit-Minute", "60", "X-RateLimit-Remaining-Minute", "59", "X-RateLimit-Limit-Day", "10000", "X-RateLimit-Remaining-Day", "0"), fresh(10000, day, 0, day), none},
		{"limit alone", headers("X-RateLimit-Limit-Minute", "60", "X-RateLimit-Limit-Hour", "600"), embedder.Told{Limit: 60, Per: time.Minute}, none},
		{"draft 06", headers("RateLimit-Limit", "100, 100;w=60, 1000;w=3600", "RateLimit-Remaining", "50", "RateLimit-Reset", "30"), fresh(100, time.Minute, 50, 30*time.Second), none},
		{"draft 06, policy", headers("RateLimit-Limit", "100", "RateLimit-Remaining", "50", "RateLimit-Reset", "3", "RateLimit-Policy", "1000;w=3600, 100;w=10"), fresh(100, 10*time.Second, 50, 3*time.Second), none},
		{"draft 07", headers("RateLimit", "limit=100, remaining=50, reset=5", "RateLimit-Policy", "100;w=60"), fresh(100, time.Minute, 50, 5*time.Second), none},
		{"draft 08", headers("RateLimit", `"default";r=50;t=30`, "RateLimit-Policy", `"default";q=100;w=60`), fresh(100, time.Minute, 50, 30*time.Second), none},
		{"draft 08, several", headers("RateLimit", `"burst,all";r=9;t=1, "day,all";r=500;t=3000`, "RateLimit", `"tokens";r=40;t=10`, "RateLimit-Policy", `"burst,all";q=10;w=1;qu="requests", "day,all";q=1000;w=86400, "bytes";q=7;w=1;qu="content-bytes"`, "RateLimit-Policy", `"tokens";q=1000;w=60;qu="tokens"`),
			fresh(10, time.Second, 9, time.Second), fresh(1000, time.Minute, 40, 10*time.Second)},
		{"draft 08, tokens by their unit", headers("RateLimit", `"default";r=40;t=10`, "RateLimit-Policy", `"default";q=1000;w=60;qu="tokens"`), none, fresh(1000, time.Minute, 40, 10*time.Second)},
		{"two forms", headers("x-ratelimit-limit", "5", "x-ratelimit-limit-requests", "100", "x-ratelimit-remaining-requests", "99", "x-ratelimit-reset-requests", "1s"), fresh(100, 0, 99, time.Second), none},
		{"draft 08, other units", headers("RateLimit", `"b";r=0;t=30`, "RateLimit-Policy", `"b";q=100;w=60;qu="content-bytes"`), none, none},
		{"draft 08, no policy", headers("RateLimit", `"default";r=0;t=30`), embedder.Told{State: true, Reset: 30 * time.Second}, none},

		{"negative", headers("x-ratelimit-limit-requests", "-5", "x-ratelimit-remaining-requests", "1", "x-ratelimit-reset-requests", "1s"), none, none},
		{"negative rest", headers("x-ratelimit-limit-requests", "5", "x-ratelimit-remaining-requests", "-20", "x-ratelimit-reset-requests", "1s"), none, none},
		{"negative reset", headers("x-ratelimit-limit-requests", "5", "x-ratelimit-remaining-requests", "2", "x-ratelimit-reset-requests", "-1s"), none, none},
		{"NaN", headers("x-ratelimit-limit-requests", "NaN", "x-ratelimit-remaining-requests", "1", "x-ratelimit-reset-requests", "1s"), none, none},
		{"infinite", headers("x-ratelimit-limit-requests", "Inf"), none, none},
		{"no number", headers("x-ratelimit-limit-requests", "unlimited", "x-ratelimit-remaining-requests", "1", "x-ratelimit-reset-requests", "1s"), none, none},
		{"zero", headers("x-ratelimit-limit-requests", "0", "x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "0s"), none, none},
		{"more left than allowed", headers("x-ratelimit-limit-requests", "100", "x-ratelimit-remaining-requests", "101", "x-ratelimit-reset-requests", "1s"), none, none},
		{"a month", headers("x-ratelimit-limit-requests", "100", "x-ratelimit-remaining-requests", "50", "x-ratelimit-reset-requests", "2592000"), none, none},
		{"a month by date", headers("x-ratelimit-limit-requests", "100", "x-ratelimit-remaining-requests", "50", "x-ratelimit-reset-requests", "1702592000"), none, none},
		{"longer than its window", headers("x-ratelimit-limit-requests-minute", "100", "x-ratelimit-remaining-requests-minute", "50", "x-ratelimit-reset-requests-minute", "600"), none, none},
		{"long over", headers("x-ratelimit-limit", "100", "x-ratelimit-remaining", "50", "x-ratelimit-reset", "1600000000"), none, none},
		{"empty", headers("x-ratelimit-limit-requests", "", "x-ratelimit-remaining-requests", " "), none, none},
		{"other words", headers("x-ratelimit-limit-images", "5", "x-ratelimit-used", "7", "x-ratelimit-", "1", "x-ratelimit", "2", "x-ratelimit-limit-requests-fortnight", "5", "x-ratelimit-a-b-limit-requests", "5"), none, none},
		{"one good, one bad", headers("x-ratelimit-limit-requests", "oops", "x-ratelimit-limit-tokens", "1000"), none, embedder.Told{Limit: 1000}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			host := "api.example.com"
			if tt.name == "Together" {
				host = "api.together.xyz"
			}
			requests, tokens := allowances(tt.h, host, now)
			for range 20 { // headers have no order
				if again, tokensAgain := allowances(tt.h, host, now); again != requests || tokensAgain != tokens {
					t.Fatalf("%+v and %+v, then %+v and %+v", requests, tokens, again, tokensAgain)
				}
			}
			near := func(a, b embedder.Told) bool { // what is reckoned is rounded
				if d := a.Reset - b.Reset; d.Abs() < time.Millisecond {
					a.Reset = b.Reset
				}
				return a == b
			}
			if !near(requests, tt.requests) || !near(tokens, tt.tokens) {
				t.Errorf("requests %+v, want %+v\n  tokens %+v, want %+v", requests, tt.requests, tokens, tt.tokens)
			}
		})
	}
}

func TestToldInWords(t *testing.T) {
	const openAI = "Rate limit reached for text-embedding-3-small in organization org-x on "
	none := embedder.Told{}
	for message, want := range map[string][2]embedder.Told{
		openAI + "tokens per min (TPM): Limit 1000000, Used 950000, Requested 60000. Please try again in 600ms. Visit https://platform.openai.com/account/rate-limits to learn more.":                   {none, fresh(1e6, time.Minute, 50000, 57*time.Second)},
		openAI + "requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.":                                                                                                       {fresh(3, time.Minute, 0, time.Minute), none},
		openAI + "requests per day (RPD): Limit 200, Used 150, Requested 1. Please try again in 7m12s.":                                                                                                 {fresh(200, 24*time.Hour, 50, 18*time.Hour), none},
		"Rate limit reached for model `gemma2-9b-it` in organization `org_x` service tier `on_demand` on tokens per minute (TPM): Limit 15000, Used 11972, Requested 4351. Please try again in 5.289s.": {none, fresh(15000, time.Minute, 3028, 47888*time.Millisecond)},
		"Rate limit reached for model `m` in organization `o` on tokens per day (TPD): Limit 100000, Used 100210, Requested 300. Please try again in 7m4.7s.":                                           {none, fresh(100000, 24*time.Hour, 0, 24*time.Hour)},
		"Rate limit reached for default-text-embedding-ada-002 in organization org-x on requests per min. Limit: 3 / min. Please try again in 20s.":                                                     {{Limit: 3, Per: time.Minute}, none},
		"Rate limit reached for m in organization o on tokens per min. Limit: 150000 / min. Current: 75000 / min. Contact us.":                                                                          {none, fresh(150000, time.Minute, 75000, 30*time.Second)},
		"litellm.RateLimitError: RateLimitError: OpenAIException - " + openAI + "tokens per min (TPM): Limit 40,000, Used 39,000, Requested 2,000.":                                                     {none, fresh(40000, time.Minute, 1000, 58500*time.Millisecond)},
		"Request too large for m in organization o on tokens per min (TPM): Limit 10000, Requested 12000. The input or output tokens must be reduced in order to run successfully.":                     {none, {Limit: 10000, Per: time.Minute}},
		"You have not yet added your payment method in the billing page and will have reduced rate limits of 3 RPM and 10K TPM.  Please add your payment method.":                                       {{Limit: 3, Per: time.Minute}, {Limit: 10000, Per: time.Minute}},
		"You are using a Trial key, which is limited to 40 API calls / minute. You can continue to use the Trial key for free.":                                                                         {{Limit: 40, Per: time.Minute}, none},
		"You are using a Trial key, which is limited to 1000 API calls / month.":                                                                                                                        {},
		"slow down": {},
		"":          {},
		openAI + "requests per min (RPM): Limit 0, Used 3, Requested 1.":                {},
		openAI + "requests per min (RPM): Limit 99999999999999999999, Used 3.":          {},
		openAI + "requests per fortnight (RPF): Limit 5, Used 3.":                       {},
		openAI + "requests per min (RPM): Limit -3, Used 3.":                            {},
		"limits of 3 RPM and " + strings.Repeat("9", 400) + "M TPM, rate limits of 5.":  {},
		"rate limit of 7 RPM and " + strings.Repeat("9", 400) + "M TPM for the account": {{Limit: 7, Per: time.Minute}, none},
	} {
		requests, tokens := toldInWords(message)
		for i, got := range []embedder.Told{requests, tokens} {
			if d := got.Reset - want[i].Reset; d.Abs() < time.Millisecond {
				got.Reset = want[i].Reset
			}
			if got != want[i] {
				t.Errorf("%.120s: %d is %+v, want %+v", message, i, got, want[i])
			}
		}
	}
}

// The message of a refusal is about the limit that was met; headers may be about another one.
func TestMessageBeforeHeaders(t *testing.T) {
	minute := fresh(3000, time.Minute, 2999, time.Second)
	for _, tt := range []struct{ header, words, want embedder.Told }{
		{minute, embedder.Told{}, minute},
		{embedder.Told{}, minute, minute},
		{minute, embedder.Told{Limit: 200, Per: 24 * time.Hour}, embedder.Told{Limit: 200, Per: 24 * time.Hour}},
		{minute, fresh(3000, time.Minute, 0, time.Minute), fresh(3000, time.Minute, 0, time.Minute)},
		{fresh(3000, 0, 1, time.Second), embedder.Told{Limit: 3000, Per: time.Minute}, fresh(3000, time.Minute, 1, time.Second)},
	} {
		if got := refined(tt.header, tt.words); got != tt.want {
			t.Errorf("%+v and %+v give %+v, want %+v", tt.header, tt.words, got, tt.want)
		}
	}
}

// Of several answers, the last one's word counts, as far as it goes.
func TestHeard(t *testing.T) {
	for _, tt := range []struct{ before, later, want embedder.Told }{
		{embedder.Told{}, fresh(100, time.Minute, 7, time.Second), fresh(100, time.Minute, 7, time.Second)},
		{fresh(100, time.Minute, 7, time.Second), embedder.Told{}, fresh(100, time.Minute, 7, time.Second)},
		{fresh(100, time.Minute, 7, time.Second), fresh(100, 0, 6, 2*time.Second), fresh(100, 0, 6, 2*time.Second)},
		{fresh(100, time.Minute, 7, time.Second), embedder.Told{State: true, Left: 3, Reset: time.Minute}, fresh(100, time.Minute, 3, time.Minute)},
		{fresh(100, time.Minute, 70, time.Second), embedder.Told{Limit: 10, Per: time.Minute}, embedder.Told{Limit: 10, Per: time.Minute}},
	} {
		got := tt.before
		if heard(&got, tt.later); got != tt.want {
			t.Errorf("%+v, then %+v: %+v", tt.before, tt.later, got)
		}
	}
}

// sane holds what is told to what embedder.Told promises.
func sane(t *testing.T, what string, told embedder.Told) {
	t.Helper()
	finite := !math.IsNaN(told.Limit) && !math.IsInf(told.Limit, 0) && !math.IsNaN(told.Left) && !math.IsInf(told.Left, 0)
	if !finite || told.Limit < 0 || told.Limit > mostAllowed || told.Left < 0 || told.Left > mostAllowed || told.Limit > 0 && told.Left > told.Limit ||
		told.Per < 0 || told.Per > longestReset || told.Reset < 0 || told.Reset > longestReset || !told.State && (told.Left != 0 || told.Reset != 0) {
		t.Fatalf("%s: %+v", what, told)
	}
}

// FuzzAllowances: whatever headers say, what is believed of it is possible, and the same each time.
func FuzzAllowances(f *testing.F) {
	f.Add("5000", "4999", "12ms", `"default";r=50;t=30`, `"default";q=100;w=60`)
	f.Add("100, 100;w=60", "50", "1700000042", "limit=100, remaining=50, reset=5", "100;w=60")
	f.Add("-1", "NaN", "1e400", `"a;r=1;t=";;=,"`, `";q=;w=-1`)
	f.Add("1e12", "1e-300", "9223372036854775807", `"tokens";r=1e999;t=-5`, `"tokens";q=0x10;w=1e18`)
	f.Fuzz(func(t *testing.T, limit, left, reset, state, policy string) {
		now := time.Unix(1_700_000_000, 0)
		for _, form := range []string{"-requests", "-tokens", "", "-minute", "-req-day", "-tokens-hour"} {
			h := headers("x-ratelimit-limit"+form, limit, "x-ratelimit-remaining"+form, left, "x-ratelimit-reset"+form, reset, "ratelimit-limit", limit, "ratelimit-remaining", left,
				"ratelimit-reset", reset, "x-tokenlimit-limit", limit, "x-tokenlimit-remaining", left, "RateLimit", state, "RateLimit-Policy", policy, "Date", reset)
			requests, tokens := allowances(h, "api.together.ai", now)
			sane(t, "requests", requests)
			sane(t, "tokens", tokens)
			for range 3 {
				if r, n := allowances(h, "api.together.ai", now); r != requests || n != tokens {
					t.Fatalf("%+v and %+v, then %+v and %+v", requests, tokens, r, n)
				}
			}
			merged := requests
			heard(&merged, tokens)
			sane(t, "merged", merged)
		}
	})
}

// FuzzToldInWords: so with messages.
func FuzzToldInWords(f *testing.F) {
	f.Add("Rate limit reached for m on tokens per min (TPM): Limit 1000000, Used 950000, Requested 60000. Please try again in 600ms.")
	f.Add("on requests per min. Limit: 3 / min. Current: 4 / min. reduced rate limits of 3 RPM and 10K TPM. limited to 40 API calls / minute")
	f.Add("on tokens per day (TPD): Limit 1,000,000.5, Used 99999999999999999999, on tokens per second: limit 7")
	f.Fuzz(func(t *testing.T, message string) {
		requests, tokens := toldInWords(message)
		sane(t, "requests", requests)
		sane(t, "tokens", tokens)
		sane(t, "refined", refined(requests, tokens))
		if wait := retryAfter(http.Header{}, message, time.Unix(1e9, 0)); wait < 0 || wait > maxRetryAfter {
			t.Fatalf("wait %v", wait)
		}
	})
}
