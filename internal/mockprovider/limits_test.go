package mockprovider

import (
	"fmt"
	"math"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// body asks for inputs of so many tokens each.
func body(inputs, tokens int) string {
	one := fmt.Sprintf("%q", strings.Repeat("x", 4*tokens))
	return `{"model":"m","input":[` + strings.TrimSuffix(strings.Repeat(one+",", inputs), ",") + `]}`
}

// A window's allowance is there at once, and comes back at once at its end. It opens with the first request.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider(t, Config{RPM: 30, TPM: 600, Window: 10 * time.Second}) // 5 requests and 100 tokens in a window
		time.Sleep(7 * time.Second)
		for range 5 {
			if w := ask(p, body(1, 1)); w.Code != 200 {
				t.Fatalf("within the window: %d", w.Code)
			}
			time.Sleep(time.Second)
		}
		w := ask(p, body(1, 1))
		if h := w.Header(); w.Code != 429 || h.Get("Retry-After") != "5" || h.Get("X-Ratelimit-Remaining-Requests") != "0" || h.Get("X-Ratelimit-Reset-Requests") != "5s" || h.Get("X-Ratelimit-Reset-Tokens") != "5s" {
			t.Errorf("%d %v", w.Code, h)
		}
		time.Sleep(5*time.Second - time.Nanosecond)
		if w := ask(p, body(1, 1)); w.Code != 429 {
			t.Errorf("a moment too early: %d", w.Code)
		}
		time.Sleep(time.Nanosecond)
		w = ask(p, body(1, 99))
		if h := w.Header(); w.Code != 200 || h.Get("X-Ratelimit-Remaining-Requests") != "4" || h.Get("X-Ratelimit-Remaining-Tokens") != "1" || h.Get("X-Ratelimit-Reset-Requests") != "10s" {
			t.Errorf("%d %v", w.Code, h)
		}
		if w := ask(p, body(1, 2)); w.Code != 429 || !strings.Contains(w.Body.String(), "tokens per min (TPM): Limit 600, Used 99, Requested 2.") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		time.Sleep(10 * time.Second)
		if w := ask(p, body(1, 500)); w.Code != 200 {
			t.Errorf("more than a window has, of a whole one: %d", w.Code)
		}
		time.Sleep(10 * time.Second)
		if w := ask(p, body(1, 100)); w.Code != 200 {
			t.Errorf("a window owes nothing to the one before: %d", w.Code)
		}
	})
}

// Refused requests are charged where that is asked for, and still nobody is kept out for ever.
func TestChargeRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, charged := range []bool{false, true} {
			for _, window := range []time.Duration{0, time.Second} {
				p := provider(t, Config{RPM: 60, TPM: 6000, Burst: time.Second, Window: window, ChargeRefused: charged})
				ask(p, body(1, 1))
				answered := 0
				for range 40 { // four in a second
					time.Sleep(250 * time.Millisecond)
					if ask(p, body(1, 1)).Code == 200 {
						answered++
					}
				}
				want := 10
				if charged && window == 0 {
					want = 0 // a quarter of a request comes back between two that are refused
				}
				if answered != want {
					t.Errorf("charged %v, window %v: %d answered, want %d", charged, window, answered, want)
				}
				for range 4 { // it leaves no debt, wherever it stops
					time.Sleep(250 * time.Millisecond)
					ask(p, body(1, 1))
					time.Sleep(time.Second)
					if w := ask(p, body(1, 1)); w.Code != 200 {
						t.Errorf("charged %v, window %v: after a second's rest %d", charged, window, w.Code)
					}
				}
			}
		}
	})
}

func TestUsageFactor(t *testing.T) {
	p := provider(t, Config{TPM: 1000, UsageFactor: 1.3, MaxInputTokens: 11, MaxRequestTokens: 110})
	if a := read(t, ask(p, body(1, 10))); a.Usage.Prompt != 13 || a.Usage.Total != 13 {
		t.Errorf("usage %+v", a.Usage)
	}
	w := ask(p, body(10, 11)) // 110 are counted, which is allowed, and 143 charged
	if w.Code != 200 || w.Header().Get("X-Ratelimit-Remaining-Tokens") != fmt.Sprint(1000-13-143) {
		t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
	}
	if s := p.Stats(); s.Tokens != 13+143 {
		t.Errorf("%+v", s)
	}
	if a := read(t, ask(provider(t, Config{UsageFactor: 0.5}), body(1, 3))); a.Usage.Prompt != 2 {
		t.Errorf("a charge is rounded up: %+v", a.Usage)
	}
}

// The floor in the cases that its comment has formulas for.
func TestFloor(t *testing.T) {
	day := 24 * time.Hour
	for name, tt := range map[string]struct {
		cfg              Config
		largest          int
		requests, tokens int64
		want             time.Duration
	}{
		"no limits":                    {Config{}, 0, 1e6, 1e9, 0},
		"within the burst":             {Config{RPM: 60, TPM: 6000}, 100, 60, 6000, 0},
		"requests":                     {Config{RPM: 60, TPM: 6000}, 1, 90, 90, 30 * time.Second},
		"tokens":                       {Config{RPM: 60, TPM: 6000}, 100, 90, 9000, 30 * time.Second},
		"burst":                        {Config{RPM: 60, TPM: 6000, Burst: time.Second}, 100, 61, 6000, time.Minute},
		"the last may go into debt":    {Config{TPM: 6000, Burst: time.Second}, 400, 2, 800, 4 * time.Second},
		"47 chunks of 400":             {Config{RPM: 3, TPM: 10_000}, 400, 47, 18_800, 44 * 20 * time.Second},
		"47 chunks of 400, in batches": {Config{RPM: 3, TPM: 10_000}, 8000, 3, 18_800, 52800 * time.Millisecond},
		"windows":                      {Config{RPM: 60, TPM: 6000, Window: time.Minute}, 100, 120, 12_000, time.Minute},
		"windows, one more":            {Config{RPM: 60, TPM: 6000, Window: time.Minute}, 100, 121, 12_000, 2 * time.Minute},
		"windows of 10s":               {Config{RPM: 60, Window: 10 * time.Second}, 1, 101, 0, 100 * time.Second},
		"larger than a window":         {Config{TPM: 60, Window: time.Minute}, 100, 3, 300, 2 * time.Minute},
		"many windows":                 {Config{RPM: 1, Window: time.Minute}, 1, 1441, 0, day},
		"cut and restored": {Config{RPM: 60, Burst: time.Second, Schedule: []Event{{At: 10 * time.Second, RPM: new(6)}, {At: 70 * time.Second, RPM: new(60)}}}, 1, 1 + 10 + 6 + 5, 0,
			75 * time.Second},
		"the window that is open keeps what is used": {Config{RPM: 60, Window: time.Minute, Schedule: []Event{{At: 30 * time.Second, RPM: new(90)}}}, 1, 90 + 90 + 1, 0, 2 * time.Minute},
		"an outage fills the bucket":                 {Config{RPM: 60, Burst: 5 * time.Second, Schedule: []Event{{At: 10 * time.Second, Outage: Down}, {At: 60 * time.Second, Outage: Up}}}, 1, 4 + 10 + 5 + 8, 0, 68 * time.Second},
		"down for good":                              {Config{RPM: 60, Schedule: []Event{{At: time.Second, Outage: "cut"}}}, 1, 100, 0, Never},
		"without limits from some time on":           {Config{RPM: 60, Schedule: []Event{{At: 5 * time.Second, RPM: new(0)}}}, 1, 1000, 0, 5 * time.Second},
		"limits from some time on":                   {Config{Schedule: []Event{{At: 0, RPM: new(60)}}}, 1, 61, 0, time.Second},
	} {
		p := provider(t, tt.cfg)
		p.largest = tt.largest
		if got := p.Floor(tt.requests, tt.tokens); (got - tt.want).Abs() > time.Microsecond {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// Nobody is let in earlier than the floor says, and one who asks all the time is let in right then.
func TestFloorIsReached(t *testing.T) {
	schedules := map[string]string{
		"none": "", "cut": "20s:rpm=30,tpm=300;60s:rpm=120,tpm=1200", "raised": "10s:rpm=600,tpm=6000", "outage": "5s:down;25s:up;40s:hang;50s:up",
		"between": "7s:tpm=0;9s:down;12s:up,rpm=0,tpm=600", "cut in an outage": "5s:503;10s:rpm=12;15s:up;30s:rpm=240",
	}
	for name, schedule := range schedules {
		for _, kind := range []Config{{}, {Burst: time.Second}, {Burst: 10 * time.Second}, {Window: time.Minute}, {Window: 7 * time.Second}} {
			for _, tokens := range []int{1, 10, 35} {
				t.Run(fmt.Sprintf("%s, burst %v, window %v, %d tokens", name, kind.Burst, kind.Window, tokens), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						events, err := ParseSchedule(schedule)
						if err != nil {
							t.Fatal(err)
						}
						cfg := kind
						cfg.RPM, cfg.TPM, cfg.Schedule = 120, 1200, events
						for i := range events { // what hangs does not come back
							if events[i].Outage == "hang" {
								events[i].Outage = "500"
							}
						}
						p := provider(t, cfg)
						time.Sleep(3 * time.Second) // the first request is some time after the start
						const step = 100 * time.Millisecond
						began := time.Now()
						asked := body(1, tokens)
						for n := int64(1); n <= 150 && time.Since(began) < 75*time.Second; n++ {
							for ask(p, asked).Code != 200 {
								time.Sleep(step)
							}
							took, floor := time.Since(began), p.Floor(n, n*int64(tokens))
							late := step
							switch {
							case tokens > 1 && (kind.Window > 0 || schedule != ""), name == "between": // what packing costs, and that each limit is seen for itself
								late = time.Hour
							case kind.Burst == time.Second: // a bucket that one request needs whole loses what comes back before it is asked again
								late *= time.Duration(n)
							}
							if took < floor-time.Microsecond || took > floor+late {
								t.Fatalf("request %d was let in after %v, and the floor is %v", n, took, floor)
							}
						}
						if s := p.Stats(); math.Abs(s.Floor-p.Floor(s.Answered, s.Tokens).Seconds()) > 1e-9 || s.FirstRequest != 3 {
							t.Errorf("%+v", s)
						}
					})
				})
			}
		}
	}
}

// What headers tell of a limit, in each dialect, after one request of 50 tokens at 120 and 6000 a minute.
func TestDialects(t *testing.T) {
	for name, want := range map[string][]string{
		"openai": {"X-Ratelimit-Limit-Requests: 120", "X-Ratelimit-Remaining-Requests: 119", "X-Ratelimit-Reset-Requests: 500ms", "X-Ratelimit-Limit-Tokens: 6000",
			"X-Ratelimit-Remaining-Tokens: 5950", "X-Ratelimit-Reset-Tokens: 500ms"},
		"azure": {"X-Ratelimit-Remaining-Requests: 119", "X-Ratelimit-Remaining-Tokens: 5950"},
		"azure-renewal": {"X-Ratelimit-Limit-Requests: 120", "X-Ratelimit-Remaining-Requests: 119", "X-Ratelimit-Reset-Requests: 1", "X-Ratelimit-Renewalperiod-Requests: 60",
			"X-Ratelimit-Limit-Tokens: 6000", "X-Ratelimit-Remaining-Tokens: 5950", "X-Ratelimit-Reset-Tokens: 1", "X-Ratelimit-Renewalperiod-Tokens: 60"},
		"groq": {"X-Ratelimit-Limit-Requests: 172800", "X-Ratelimit-Remaining-Requests: 172799", "X-Ratelimit-Reset-Requests: 500ms", "X-Ratelimit-Limit-Tokens: 6000",
			"X-Ratelimit-Remaining-Tokens: 5950", "X-Ratelimit-Reset-Tokens: 500ms"},
		"mistral": {"X-Ratelimit-Limit-Req-Minute: 120", "X-Ratelimit-Remaining-Req-Minute: 119", "X-Ratelimit-Limit-Tokens-Minute: 6000",
			"X-Ratelimit-Remaining-Tokens-Minute: 5950", "X-Ratelimit-Tokens-Query-Cost: 50"},
		"mistral-bysize": {"Ratelimitbysize-Limit: 6000", "Ratelimitbysize-Remaining: 5950", "Ratelimitbysize-Reset: 1", "Ratelimitbysize-Query-Cost: 50",
			"X-Ratelimitbysize-Limit-Minute: 6000", "X-Ratelimitbysize-Remaining-Minute: 5950"},
		"together": {"X-Ratelimit-Limit: 2", "X-Ratelimit-Remaining: 2", "X-Ratelimit-Reset: 1", "X-Tokenlimit-Limit: 100", "X-Tokenlimit-Remaining: 100"},
		"unix":     {"X-Ratelimit-Limit: 120", "X-Ratelimit-Remaining: 119", "X-Ratelimit-Reset: 946684801"},
		"unix-ms":  {"X-Ratelimit-Limit: 120", "X-Ratelimit-Remaining: 119", "X-Ratelimit-Reset: 946684800500"},
		"ietf":     {`Ratelimit-Policy: "requests";q=120;w=60, "tokens";q=6000;w=60;qu="tokens"`, `Ratelimit: "requests";r=119;t=1, "tokens";r=5950;t=1`},
		"ietf-old": {"Ratelimit-Limit: 120", "Ratelimit-Remaining: 119", "Ratelimit-Reset: 1", "Ratelimit-Policy: 120;w=60"},
		"ietf-07":  {"Ratelimit: limit=120, remaining=119, reset=1", "Ratelimit-Policy: 120;w=60"},
		"none":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				expect := func(w *httptest.ResponseRecorder, want []string) {
					t.Helper()
					h := w.Header().Clone()
					h.Del("Content-Type")
					h.Del("Content-Length")
					for _, line := range want {
						field, value, _ := strings.Cut(line, ": ")
						if got := h.Get(field); got != value {
							t.Errorf("%s: %q, want %q", field, got, value)
						}
						h.Del(field)
					}
					if len(h) > 0 {
						t.Errorf("it tells %v too", h)
					}
				}
				expect(ask(provider(t, Config{RPM: 120, TPM: 6000, Headers: name}), body(1, 50)), want)
				expect(ask(provider(t, Config{Headers: name}), body(1, 50)), nil)
				for field := range ask(provider(t, Config{TPM: 6000, Headers: name}), body(1, 50)).Header() {
					if strings.Contains(field, "Req") {
						t.Errorf("without a limit of requests it tells %s", field)
					}
				}
			})
		})
	}
	if names, _ := Dialects(); len(names) != 13 {
		t.Errorf("%d dialects", len(names))
	}
}

// A bucket of 10 seconds, and a window of 10 seconds, are told as what they are where there are words for it.
func TestDialectsTellTheSpan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, cfg := range []Config{{Burst: 10 * time.Second}, {Window: 10 * time.Second}} {
			cfg.RPM, cfg.Headers = 120, "ietf"
			w := ask(provider(t, cfg), one)
			reset := map[bool]string{true: "10", false: "1"}[cfg.Window > 0]
			if h := w.Header(); h.Get("Ratelimit-Policy") != `"requests";q=20;w=10` || h.Get("Ratelimit") != `"requests";r=19;t=`+reset {
				t.Errorf("%+v: %v", cfg, h)
			}
		}
		p := provider(t, Config{RPM: 120, Headers: "groq"})
		for range 3 {
			ask(p, one)
			time.Sleep(time.Second)
		}
		// All of them but the last came back in between.
		if h := ask(p, one).Header(); h.Get("X-Ratelimit-Remaining-Requests") != "172799" {
			t.Errorf("%v", h)
		}
	})
}

// How much a 429 says.
func TestWhatIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusal := func(cfg Config) *httptest.ResponseRecorder {
			cfg.RPM, cfg.Burst = 40, time.Millisecond
			p := provider(t, cfg)
			ask(p, one)
			return ask(p, one)
		}
		w := refusal(Config{RetryAfter: "message,seconds,ms"})
		if h := w.Header(); !strings.Contains(w.Body.String(), "on requests per min (RPM): Limit 40, Used 1, Requested 1. Please try again in 1.5s.") || h.Get("Retry-After") != "2" || h.Get("Retry-After-Ms") != "1500" {
			t.Errorf("%v %s", h, w.Body)
		}
		w = refusal(Config{RetryAfter: "none", Headers: "none"})
		if h := w.Header(); w.Code != 429 || len(h) != 2 || !strings.Contains(w.Body.String(), "Limit 40") {
			t.Errorf("%v %s", h, w.Body)
		}
		w = refusal(Config{Quiet: true, Headers: "none"})
		if h := w.Header(); w.Code != 429 || h.Get("Retry-After") != "" || w.Body.String() != "Too Many Requests\n" {
			t.Errorf("%v %s", h, w.Body)
		}
		w = refusal(Config{RetryAfter: "reset", Headers: "groq"})
		if h := w.Header(); h.Get("X-Ratelimit-Remaining-Requests") != "0" || h.Get("X-Ratelimit-Reset-Requests") != "1.5s" {
			t.Errorf("%v %s", h, w.Body)
		}
		w = refusal(Config{RetryAfter: "reset", Headers: "ietf"})
		if h := w.Header(); h.Get("Retry-After") != "" || h.Get("Ratelimit") != `"requests";r=0;t=2` {
			t.Errorf("%v %s", h, w.Body)
		}
	})
}
