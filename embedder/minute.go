package embedder

import "time"

// minute is what was sent, and what was charged for it, in the last minute.
type minute struct {
	began   time.Time
	seconds [60]struct{ requests, tokens int64 }
	second  int64 // since it began, of the newest figures
}

func (m *minute) add(requests, tokens int64, now time.Time) {
	m.turn(now)
	s := &m.seconds[m.second%60]
	s.requests += requests
	s.tokens += tokens
}

func (m *minute) sum(now time.Time) (requests, tokens int64) {
	m.turn(now)
	for _, s := range m.seconds {
		requests += s.requests
		tokens += s.tokens
	}
	return requests, tokens
}

// turn forgets what is older. The difference of two times is the monotonic clock's, which never jumps.
func (m *minute) turn(now time.Time) {
	second := int64(now.Sub(m.began) / time.Second)
	for at := max(m.second+1, second-59); at <= second; at++ {
		m.seconds[at%60] = struct{ requests, tokens int64 }{}
	}
	m.second = max(m.second, second)
}
