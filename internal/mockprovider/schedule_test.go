package mockprovider

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events, err := ParseSchedule("20s:down; 30s:up ;40s:429,rpm=60;50s:up")
		if err != nil {
			t.Fatal(err)
		}
		p := provider(t, Config{RPM: 120, Key: "k", Schedule: events})
		at := func(second int) (embeddings, models int) {
			time.Sleep(time.Duration(second)*time.Second - time.Since(p.start))
			w := httptest.NewRecorder()
			p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/models", nil))
			return ask(p, one, "Authorization", "Bearer k").Code, w.Code
		}
		for _, tt := range []struct{ second, embeddings, models int }{{0, 200, 200}, {19, 200, 200}, {20, 503, 503}, {29, 503, 503}, {30, 200, 200}, {40, 429, 429}, {50, 200, 200}, {51, 200, 200}} {
			if embeddings, models := at(tt.second); embeddings != tt.embeddings || models != tt.models {
				t.Errorf("after %d s: %d and %d, want %d and %d", tt.second, embeddings, models, tt.embeddings, tt.models)
			}
		}
		// Nothing of an outage is charged, nor is it a limit.
		if s := p.Stats(); s.Faults["503"] != 2 || s.Faults["429"] != 1 || s.RateLimited != 0 || s.Answered != 5 || p.requests.level != 59 {
			t.Errorf("%+v, level %v", s, p.requests.level)
		}
	})
}

// Hung requests hang on when the others are answered again, and end with their callers.
func TestHangingOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider(t, Config{Schedule: []Event{{Outage: "hang"}, {At: time.Second, Outage: Up}}})
		ended := make(chan any, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			defer func() { ended <- recover() }()
			p.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/embeddings", strings.NewReader(one)))
		}()
		time.Sleep(2 * time.Second)
		if w := ask(p, one); w.Code != 200 || p.Stats().InFlight != 1 {
			t.Errorf("%d, %+v", w.Code, p.Stats())
		}
		if got := <-ended; got != http.ErrAbortHandler || time.Since(p.start) != time.Minute {
			t.Errorf("it ended with %v after %v", got, time.Since(p.start))
		}
		if s := p.Stats(); s.Gone != 1 || s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Limits that are cut and restored, and a provider that becomes slow.
func TestLimitsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider(t, Config{RPM: 600, Burst: time.Second, Latency: time.Millisecond, Schedule: []Event{
			{At: 20 * time.Second, RPM: new(60)}, {At: 10 * time.Second, Latency: new(2 * time.Second)}, {At: 40 * time.Second, RPM: new(600), MaxInFlight: new(1), Latency: new(time.Duration(0))},
		}})
		took := func() time.Duration {
			start := time.Now()
			if w := ask(p, one); w.Code != 200 {
				t.Errorf("%d", w.Code)
			}
			return time.Since(start)
		}
		if d := took(); d != time.Millisecond {
			t.Errorf("at first: %v", d)
		}
		time.Sleep(10 * time.Second)
		if d := took(); d != 2*time.Second {
			t.Errorf("slow: %v", d)
		}
		time.Sleep(10 * time.Second)
		took()
		if w := ask(p, one); w.Code != 200 { // the bucket of one was refilled by then
			t.Errorf("%d", w.Code)
		}
		time.Sleep(40*time.Second - time.Since(p.start) - time.Millisecond)
		if w := ask(p, one); w.Code != 200 || w.Header().Get("X-Ratelimit-Limit-Requests") != "60" {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		time.Sleep(5 * time.Second)
		for i := range 11 {
			if w := ask(p, one); (w.Code == 200) != (i < 10) {
				t.Errorf("restored, request %d: %d", i, w.Code)
			}
		}
		if p.maxInFlight != 1 {
			t.Errorf("%d at once", p.maxInFlight)
		}
	})
}

func TestParseSchedule(t *testing.T) {
	got, err := ParseSchedule("30s:down; 10m30s:up;; 20s : rpm=300, tpm=100000,max-in-flight=3,latency=2s,hang")
	want := []Event{{At: 30 * time.Second, Outage: Down}, {At: 630 * time.Second, Outage: Up},
		{At: 20 * time.Second, RPM: new(300), TPM: new(100000), MaxInFlight: new(3), Latency: new(2 * time.Second), Outage: "hang"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"down", "30:down", "30s", "30s:", "30s:rpm", "30s:rpm=", "30s:rpm=x", "30s:rpm=-1", "-1s:down", "30s:nan", "30s:sideways=1", "30s:up,down", "30s:latency=3", "30s:latency=-3s"} {
		if got, err := ParseSchedule(bad); err == nil {
			t.Errorf("%q was taken: %+v", bad, got)
		}
	}
	if _, err := New(Config{Schedule: []Event{{Outage: "drip"}}}); err == nil {
		t.Error("an outage that is none was taken")
	}
}

// What a judge of a client reads.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := provider(t, Config{RPM: 10, TPM: 100, MaxInFlight: 1, Latency: time.Second, Poison: "bad", UsageFactor: 2, Script: []string{"ok", "500"}})
		time.Sleep(1500 * time.Millisecond)
		first := make(chan int, 1)
		go func() { first <- ask(p, body(4, 1)).Code }() // 8 tokens
		synctest.Wait()
		ask(p, body(3, 1)) // a crowd: 6
		<-first
		ask(p, body(1, 5))  // 500: 10
		ask(p, body(1, 45)) // too many tokens: 90
		ask(p, `{"model":"m","input":"bad"}`)
		ask(p, `{`)
		ask(p, body(2, 1)) // 4
		time.Sleep(time.Second)
		s := p.Stats()
		s.Faults, s.MostInFlight = nil, 0
		want := Stats{Requests: 7, Answered: 2, Inputs: 6, Tokens: 12, RateLimited: 2, LimitedBy: Limited{Tokens: 1, Crowd: 1}, Refused: 2, TokensRefused: 6 + 90 + 2, TokensFailed: 10,
			FirstRequest: 1.5, LastRequest: 3.5, LastAnswer: 4.5, BusiestSecond: 4, BusiestAt: 3, BusySeconds: 3, InputsPerRequest: 3}
		if !reflect.DeepEqual(s, want) {
			t.Errorf("got  %+v\nwant %+v", s, want)
		}
		if got := p.BySecond(); !reflect.DeepEqual(got, []int32{0, 2, 1, 4}) {
			t.Errorf("by second: %v", got)
		}
	})
}
