package indexer

import (
	"math"
	"math/bits"
	"sync"
	"time"
)

// Latency summarises a window of durations.
type Latency struct {
	P50    time.Duration
	P90    time.Duration
	P95    time.Duration
	P99    time.Duration
	Max    time.Duration
	Count  int64
	Window time.Duration
	// Met is the share of durations at or below the target asked for.
	Met float64
}

const (
	latencySlot  = 10 * time.Second
	latencySlots = 30 // five minutes
	latencySub   = 32 // buckets an octave: 3 % resolution
	latencyBins  = 40 * latencySub
	minutesKept  = 24 * 60
)

// histogram counts microseconds in buckets of equal relative width.
type histogram struct {
	bins  [latencyBins]uint32
	count int64
	max   time.Duration
}

func latencyBin(d time.Duration) int {
	us := uint64(max(0, d.Microseconds()))
	if us < latencySub {
		return int(us)
	}
	octave := bits.Len64(us) - 6 // latencySub = 2^5
	return min(latencyBins-1, (octave+1)*latencySub+int(us>>octave)-latencySub)
}

// latencyOf returns the upper edge of a bucket.
func latencyOf(bin int) time.Duration {
	if bin < latencySub {
		return time.Duration(bin) * time.Microsecond
	}
	octave := bin/latencySub - 1
	return time.Duration((latencySub+bin%latencySub+1)<<octave-1) * time.Microsecond
}

func (h *histogram) add(d time.Duration) {
	h.bins[latencyBin(d)]++
	h.count++
	h.max = max(h.max, d)
}

func (h *histogram) merge(other *histogram) {
	for i, n := range other.bins {
		h.bins[i] += n
	}
	h.count += other.count
	h.max = max(h.max, other.max)
}

func (h *histogram) summary(target, window time.Duration) Latency {
	out := Latency{Max: h.max, Count: h.count, Window: window, Met: 1}
	if h.count == 0 {
		return out
	}
	quantile := func(q float64) time.Duration {
		rank, seen := int64(math.Ceil(q*float64(h.count))), int64(0)
		for i, n := range h.bins {
			if seen += int64(n); seen >= rank {
				return min(latencyOf(i), h.max)
			}
		}
		return h.max
	}
	out.P50, out.P90, out.P95, out.P99 = quantile(.5), quantile(.9), quantile(.95), quantile(.99)
	met, last := int64(0), latencyBin(target)
	for i := 0; i <= last; i++ {
		met += int64(h.bins[i])
	}
	out.Met = float64(met) / float64(h.count)
	return out
}

// latencies keeps a sliding window in full, and a day of minutes in short.
type latencies struct {
	mu      sync.Mutex
	target  time.Duration
	slots   [latencySlots]histogram
	slotOf  [latencySlots]int64 // which slot of time each holds
	minute  histogram
	current int64 // minute since the epoch that minute holds
	past    map[int64]Latency
}

func newLatencies(target time.Duration) *latencies {
	return &latencies{target: target, past: make(map[int64]Latency)}
}

func (l *latencies) add(now time.Time, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slot := now.UnixNano() / int64(latencySlot)
	i := slot % latencySlots
	if l.slotOf[i] != slot {
		l.slotOf[i], l.slots[i] = slot, histogram{}
	}
	l.slots[i].add(d)
	l.turn(now)
	l.minute.add(d)
}

// turn closes the minute that is over.
func (l *latencies) turn(now time.Time) {
	minute := now.Unix() / 60
	if minute == l.current {
		return
	}
	if l.minute.count > 0 {
		l.past[l.current] = l.minute.summary(l.target, time.Minute)
		for at := range l.past {
			if at <= minute-minutesKept {
				delete(l.past, at)
			}
		}
	}
	l.current, l.minute = minute, histogram{}
}

// recent summarises the last five minutes.
func (l *latencies) recent(now time.Time) Latency {
	l.mu.Lock()
	defer l.mu.Unlock()
	slot := now.UnixNano() / int64(latencySlot)
	var all histogram
	for i := range l.slots {
		if l.slotOf[i] > slot-latencySlots && l.slotOf[i] <= slot {
			all.merge(&l.slots[i])
		}
	}
	return all.summary(l.target, latencySlots*latencySlot)
}

// MinuteLatency is one minute of the past.
type MinuteLatency struct {
	Start time.Time
	Latency
}

// between returns the minutes that had any change, in order of time.
func (l *latencies) between(now, from, to time.Time) []MinuteLatency {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn(now)
	var out []MinuteLatency
	for minute := max(from.Unix()/60, now.Unix()/60-minutesKept); minute <= min(to.Unix(), now.Unix())/60; minute++ {
		if past, ok := l.past[minute]; ok {
			out = append(out, MinuteLatency{time.Unix(minute*60, 0).UTC(), past})
		}
	}
	return out
}
