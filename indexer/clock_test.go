package indexer

import (
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
)

// TestAClockThatJumps: times to searchable are neither negative nor absurd when the wall clock jumps between a record and its indexing, or a producer's timestamp is
// nonsense. The wall clock's jump is a record's timestamp that is off against a clock which runs on.
func TestAClockThatJumps(t *testing.T) {
	const took = 300 * time.Millisecond
	for _, test := range []struct {
		name   string
		logged func(now time.Time) time.Time
		after  time.Duration // since the log was seen to end before it; 0: never
		want   time.Duration
	}{
		{"steady", func(now time.Time) time.Time { return now.Add(-took) }, 400 * time.Millisecond, took},
		{"never seen to end", func(now time.Time) time.Time { return now.Add(-time.Hour) }, 0, time.Hour},
		{"forward", func(now time.Time) time.Time { return now.Add(-took - time.Hour) }, 400 * time.Millisecond, 400 * time.Millisecond},
		{"back", func(now time.Time) time.Time { return now.Add(-took + time.Hour) }, 400 * time.Millisecond, 0},
		{"1970", func(time.Time) time.Time { return time.Unix(0, 0) }, 400 * time.Millisecond, 400 * time.Millisecond},
		{"9999", func(time.Time) time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }, 400 * time.Millisecond, 0},
		{"before the epoch", func(time.Time) time.Time { return time.UnixMilli(-1) }, 400 * time.Millisecond, 400 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFreshness(SLO{Target: time.Second, Percentile: .99})
			observed := time.Duration(-1)
			f.observe = func(seconds float64) { observed = time.Duration(seconds * float64(time.Second)) }
			now := time.Now()
			c := cover{logged: test.logged(now)}
			c.updated = c.logged
			if test.after > 0 {
				c.after = now.Add(-test.after)
			}
			f.record(now, c)
			got := f.entered.recent(now)
			if got.Count != 1 || got.Max != test.want || (observed-test.want).Abs() > time.Microsecond {
				t.Errorf("time to searchable %s of %d changes, observed %s; want %s", got.Max, got.Count, observed, test.want)
			}
			if events := f.happened.recent(now); events.Max < 0 || events.P99 < 0 {
				t.Errorf("event to searchable %+v", events)
			}
		})
	}
}

func TestEndedBefore(t *testing.T) {
	p := newProgress()
	at := func(offset int64) stream.Position { return stream.Position{Offset: offset} }
	if got := p.endedBefore(at(0)); !got.IsZero() {
		t.Errorf("of an unknown partition: %v", got)
	}
	p.assign(at(0))
	first := time.Now()
	for i, end := range []int64{10, 20, 30} {
		p.observe(stream.End{Offset: end, At: first.Add(time.Duration(i) * time.Second)})
	}
	for _, test := range []struct {
		offset int64
		want   time.Time
	}{{5, time.Time{}}, {10, first}, {19, first}, {20, first.Add(time.Second)}, {30, first.Add(2 * time.Second)}, {99, first.Add(2 * time.Second)}} {
		if got := p.endedBefore(at(test.offset)); !got.Equal(test.want) {
			t.Errorf("the log was last seen to end before %d at %v, want %v", test.offset, got, test.want)
		}
	}
}

func TestTokensAMinuteOnAClockThatJumps(t *testing.T) {
	var c counts
	now := time.Unix(1_800_000_000, 0)
	c.addTokens(now, 100)
	for _, jump := range []time.Duration{-time.Hour, time.Hour} {
		now = now.Add(jump)
		if got := c.tokensLastMinute(now); got != 0 {
			t.Errorf("after a jump of %s: %d tokens in the last minute, want none", jump, got)
		}
		for second := range 90 {
			c.addTokens(now.Add(time.Duration(second)*time.Second), 1)
		}
		now = now.Add(89 * time.Second)
		if got := c.tokensLastMinute(now); got != 60 {
			t.Errorf("a minute and a half after a jump of %s: %d tokens in the last minute, want 60", jump, got)
		}
	}
}
