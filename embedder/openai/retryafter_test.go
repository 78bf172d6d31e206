package openai

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2015, 10, 21, 7, 28, 0, 0, time.UTC)
	inAMinute := now.Add(time.Minute)
	for _, tt := range []struct {
		name    string
		h       http.Header
		message string
		want    time.Duration
	}{
		{"nothing", headers(), "", 0},
		// RFC 9110, section 10.2.3: seconds, or a date in any of the three forms of section 5.6.7.
		{"seconds", headers("Retry-After", "120"), "", 2 * time.Minute},
		{"date", headers("Retry-After", "Wed, 21 Oct 2015 07:29:00 GMT"), "", time.Minute},
		{"date of RFC 850", headers("Retry-After", "Wednesday, 21-Oct-15 07:29:00 GMT"), "", time.Minute},
		{"date of C", headers("Retry-After", "Wed Oct 21 07:29:00 2015"), "", time.Minute},
		{"date by their clock", headers("Retry-After", "Wed, 21 Oct 2015 09:29:00 GMT", "Date", "Wed, 21 Oct 2015 09:28:30 GMT"), "", 30 * time.Second},
		{"seconds whatever their clock", headers("Retry-After", "7", "Date", "Wed, 21 Oct 2015 09:28:30 GMT"), "", 7 * time.Second},
		// What others make of it.
		{"fraction", headers("Retry-After", "0.25"), "", 250 * time.Millisecond},
		{"duration", headers("Retry-After", "1m20.5s"), "", 80500 * time.Millisecond},
		{"Unix time", headers("Retry-After", "1445412540"), "", time.Minute},
		{"blanks", headers("Retry-After", " 3 "), "", 3 * time.Second},
		{"milliseconds", headers("retry-after-ms", "1500", "Retry-After", "2"), "", 1500 * time.Millisecond},
		{"Azure's older", headers("x-ms-retry-after-ms", "700"), "", 700 * time.Millisecond},
		{"LiteLLM", headers("llm_provider-retry-after", "9"), "", 9 * time.Second},
		{"LiteLLM's own first", headers("llm_provider-retry-after", "9", "retry-after", "4"), "", 4 * time.Second},
		{"requests used up", headers("x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "8.64s", "x-ratelimit-remaining-tokens", "5", "x-ratelimit-reset-tokens", "50s"), "", 8640 * time.Millisecond},
		{"both used up", headers("x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "8.64s", "x-ratelimit-remaining-tokens", "0", "x-ratelimit-reset-tokens", "50s"), "", 50 * time.Second},
		{"Azure used up", headers("x-ratelimit-remaining-tokens", "0", "x-ratelimit-reset-tokens", "12"), "", 12 * time.Second},
		{"gateway used up", headers("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1445412540"), "", time.Minute},
		{"OpenRouter used up", headers("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "1445412540500"), "", time.Minute + 500*time.Millisecond},
		{"draft used up", headers("RateLimit-Remaining", "0", "RateLimit-Reset", "30"), "", 30 * time.Second},
		{"not used up", headers("X-RateLimit-Remaining", "1", "X-RateLimit-Reset", "30"), "", 0},
		// In words.
		{"OpenAI, milliseconds", headers(), "Requested 60000. Please try again in 200ms. Visit", 200 * time.Millisecond},
		{"OpenAI, few milliseconds", headers(), "Please try again in 6ms.", 6 * time.Millisecond},
		{"OpenAI, seconds", headers(), "Please try again in 20s. Contact us", 20 * time.Second},
		{"OpenAI, minutes", headers(), "Please try again in 7m12s.", 432 * time.Second},
		{"OpenAI, minutes alone", headers(), "Please try again in 6m.", 6 * time.Minute},
		{"Groq, hours", headers(), "Please try again in 1h2m3s.", maxRetryAfter},
		{"Groq, half an hour", headers(), "Please try again in 29m44.5s. Need more tokens?", 29*time.Minute + 44500*time.Millisecond},
		{"Azure", headers(), "have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after 2 seconds. Please go here", 2 * time.Second},
		{"Azure, a day", headers(), "Please retry after 86400 seconds.", maxRetryAfter},
		{"Gemini", headers(), "Please retry in 34.074824224s.", 34074824224 * time.Nanosecond},
		{"in full", headers(), "Try again in 1 minute and 30 seconds.", 90 * time.Second},
		{"wait", headers(), "You must wait for 5 seconds before the next", 5 * time.Second},
		{"not now", headers(), "Please try again in 1 month.", 0},
		{"no unit", headers(), "Please retry after 30.", 0},
		{"the second says it", headers(), "try again in 0s, or try again in 4s", 4 * time.Second},
		// What says nothing: the next is looked at.
		{"zero", headers("Retry-After", "0"), "", 0},
		{"zero, and more", headers("Retry-After", "0", "retry-after-ms", "0", "x-ratelimit-remaining-tokens", "0", "x-ratelimit-reset-tokens", "6s"), "", 6 * time.Second},
		{"zero, and words", headers("Retry-After", "0"), "Please try again in 3s.", 3 * time.Second},
		{"over", headers("Retry-After", "Wed, 21 Oct 2015 07:27:00 GMT"), "", 0},
		{"over, and words", headers("Retry-After", "Wed, 21 Oct 2015 07:00:00 GMT"), "Please try again in 3s.", 3 * time.Second},
		{"negative", headers("Retry-After", "-1", "retry-after-ms", "-1000"), "", 0},
		{"NaN", headers("Retry-After", "NaN", "retry-after-ms", "NaN"), "", 0},
		{"no number", headers("Retry-After", "soon", "retry-after-ms", "soon"), "Please try again in 3s.", 3 * time.Second},
		// What can't be meant is bounded.
		{"a year", headers("Retry-After", "31536000"), "", maxRetryAfter},
		{"ten years", headers("Retry-After", "315360000"), "", maxRetryAfter},
		{"for ever", headers("Retry-After", "1e99"), "", maxRetryAfter},
		{"infinity", headers("Retry-After", "Inf"), "", maxRetryAfter},
		{"milliseconds for ever", headers("retry-after-ms", "1e300"), "", maxRetryAfter},
		{"a date far off", headers("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"), "", maxRetryAfter},
		{"a reset far off", headers("X-RateLimit-Remaining", "0", "X-RateLimit-Reset", "99999999999"), "", maxRetryAfter},
		{"words far off", headers(), "try again in 99999999999999999999999999999999 days", maxRetryAfter},
	} {
		if got := retryAfter(tt.h, tt.message, now); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := retryAfter(headers("Retry-After", inAMinute.Format(http.TimeFormat)), "", inAMinute.Add(time.Hour)); got != 0 {
		t.Errorf("over by our clock: %v", got)
	}
}
