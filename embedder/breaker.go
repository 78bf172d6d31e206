package embedder

import (
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// breakAfter failures in a row, and nothing but failures, an endpoint counts as down.
	breakAfter = 5
	// firstBreak is how long it is then left alone, about; it doubles with each try in vain, up to longestBreak.
	firstBreak, longestBreak = time.Second, time.Minute
	// firstRefused is the same for an endpoint that refuses us whatever we send: somebody has to do something first.
	firstRefused, longestRefused = 15 * time.Second, 5 * time.Minute
)

// breaker keeps requests from an endpoint that only fails. Closed, it lets all pass; open, none until the next try is due, which is one request.
type breaker struct {
	failures int // in a row
	state    State
	since    time.Time
	next     time.Time
	wait     time.Duration
	trying   bool
	err      error // why it is open
	// The input that the last failures were of, and nothing else: of so many of them. Empty: the last one was of several.
	alone string
	times int
	doubt bool // whether it is the endpoint that fails: it is told of as down, and all but that input is tried as before
}

// bad tells whether it only fails.
func (b *breaker) bad() bool { return b.state == Down || b.state == Refused }

func (b *breaker) open() bool { return b.bad() && !b.doubt }

// lets tells whether a request may go, and else when the next try is.
func (b *breaker) lets(now time.Time) (ok bool, next time.Time) {
	switch {
	case !b.open():
		return true, time.Time{}
	case b.trying:
		return false, now.Add(longestBreak) // its end comes first
	}
	return !now.Before(b.next), b.next
}

// succeed closes it.
func (b *breaker) succeed(now time.Time) {
	if b.bad() {
		b.state, b.since = Ready, now
	}
	b.failures, b.wait, b.err = 0, 0, nil
	b.alone, b.times, b.doubt = "", 0, false
}

// fail notes a failure that no input was blamed for, and opens the breaker if it is one too many. alone is the one input of the request, empty if there were several. last: no other endpoint is
// there to be asked; then one input that is all that was tried does not stop the others.
func (b *breaker) fail(err *Error, trial bool, alone string, last bool, now time.Time) {
	b.failures++
	if alone == "" || alone != b.alone {
		b.alone, b.times = alone, 0
	}
	if b.times++; alone != "" && b.times >= breakAfter && last && !err.Account {
		if b.state != Down {
			b.state, b.since = Down, now
		}
		b.err, b.doubt, b.next = fmt.Errorf("%w; it is one input that fails, and nothing else was tried since", err), true, now.Add(longestPause)
		return
	}
	b.doubt = false
	if b.open() && !trial || !b.open() && !err.Account && b.failures < breakAfter {
		return
	}
	state, first, longest := Down, firstBreak, longestBreak
	if err.Account {
		state, first, longest = Refused, firstRefused, longestRefused
	}
	if state != b.state {
		b.state, b.since, b.wait = state, now, 0
	}
	b.err = err
	b.wait = min(max(2*b.wait, first), longest)
	// Many processes have seen the same outage: they don't come back together.
	b.next = now.Add(max(min(err.RetryAfter, longestObeyed), b.wait*3/4+rand.N(b.wait/2)))
}
