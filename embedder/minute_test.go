package embedder

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Minute
		check := func(when string, wantRequests, wantTokens int64) {
			t.Helper()
			if requests, tokens := m.Sum(time.Now()); requests != wantRequests || tokens != wantTokens {
				t.Errorf("%s: %d requests of %d tokens, want %d of %d", when, requests, tokens, wantRequests, wantTokens)
			}
		}
		check("at first", 0, 0)
		m.Add(1, 0, time.Now())
		time.Sleep(30 * time.Second)
		m.Add(1, 100, time.Now())
		m.Add(0, 7, time.Now().Add(-2*time.Second)) // somebody read the clock before somebody else
		check("after half a minute", 2, 107)
		time.Sleep(29 * time.Second)
		check("after nearly a minute", 2, 107)
		time.Sleep(time.Second)
		check("after a minute", 1, 107)
		time.Sleep(30 * time.Second)
		check("after a minute and a half", 0, 0)
		time.Sleep(10 * time.Hour)
		m.Add(3, 30, time.Now())
		check("after a long pause", 3, 30)
	})
}

// TestMinuteOnAClockThatJumps: on a clock that is no more than the wall's, which somebody puts right.
func TestMinuteOnAClockThatJumps(t *testing.T) {
	for _, long := range []time.Duration{time.Second, time.Minute, 2 * time.Minute, time.Hour, 10 * 365 * 24 * time.Hour} {
		var m Minute
		now := time.Unix(1_800_000_000, 0)
		m.Add(1, 100, now)
		for _, jump := range []time.Duration{-long, long} {
			now = now.Add(jump)
			if _, got := m.Sum(now); got != 0 && long > time.Minute {
				t.Errorf("after a jump of %s: %d tokens in the last minute, want none", jump, got)
			}
			for second := range 150 {
				m.Add(1, 1, now.Add(time.Duration(second)*time.Second))
			}
			now = now.Add(149 * time.Second)
			if requests, tokens := m.Sum(now); requests != 60 || tokens != 60 {
				t.Errorf("two minutes and a half after a jump of %s: %d requests of %d tokens in the last minute, want 60", jump, requests, tokens)
			}
		}
	}
}
