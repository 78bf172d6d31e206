package embedder

import "time"

// Minute is what was sent, and what was charged for it, in the last minute, by whole seconds. The zero value has counted nothing. It is not safe for concurrent use.
//
// Its clock is the monotonic one where times come from time.Now, so a wall clock that is put right changes nothing. Times without it may jump: what was counted before a jump is forgotten, and
// counting goes on.
type Minute struct {
	began   time.Time
	seconds [60]struct{ requests, tokens int64 }
	second  int64 // since it began, of the newest figures
}

// Add counts requests and tokens.
func (m *Minute) Add(requests, tokens int64, now time.Time) {
	m.turn(now)
	s := &m.seconds[m.second%60]
	s.requests += requests
	s.tokens += tokens
}

// Sum is what was counted in the last minute.
func (m *Minute) Sum(now time.Time) (requests, tokens int64) {
	m.turn(now)
	for _, s := range m.seconds {
		requests += s.requests
		tokens += s.tokens
	}
	return requests, tokens
}

// turn forgets what is older.
func (m *Minute) turn(now time.Time) {
	second := int64(now.Sub(m.began) / time.Second)
	if m.began.IsZero() || second < m.second-60 { // after a jump back what is known of the time after it would never be over
		*m = Minute{began: now}
		return
	}
	for at := max(m.second+1, second-59); at <= second; at++ {
		m.seconds[at%60] = struct{ requests, tokens int64 }{}
	}
	m.second = max(m.second, second)
}
