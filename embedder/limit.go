package embedder

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// LimitConfig says what a provider allows.
type LimitConfig struct {
	// Burst is how much of an unused allowance is kept: after a pause, that long a time's requests and tokens may go at once.
	// Defaults to 1 second. One request may always go.
	Burst time.Duration
	// Concurrency is how many calls may be in flight. Defaults to 0: no limit.
	Concurrency int
	// ReplayShare is the part of RPM and TPM that the Replay lane may take, above 0 and up to 1. Defaults to 1: whatever live calls leave.
	ReplayShare float64
	// RPM is how many requests a minute are allowed. Defaults to 0: no limit.
	RPM int
	// TPM is how many tokens a minute are allowed, counted by the model's tokenizer or else 4 bytes a token. Defaults to 0: no limit.
	TPM int
}

// Limit holds calls back until the provider allows them. Live calls go first, strictly; within a lane it is first come, first served.
//
// A call is charged before it is made, whether it then succeeds or not, as providers do. A call of more tokens than a burst goes when the allowance is full, and the debt is
// worked off before the next. When the provider answers with a RetryAfter, nothing is sent until then: other calls would meet the same refusal.
func Limit(inner Embedder, cfg LimitConfig) *Limiter {
	if cfg.Burst <= 0 {
		cfg.Burst = time.Second
	}
	if cfg.ReplayShare <= 0 || cfg.ReplayShare > 1 {
		cfg.ReplayShare = 1
	}
	l := &Limiter{inner: inner, cfg: cfg}
	if cfg.TPM > 0 {
		l.count = counterOf(inner)
	}
	now := time.Now()
	shares := [lanes]float64{Live: 1, Replay: cfg.ReplayShare, Backfill: 1}
	for lane, share := range shares {
		l.requests[lane] = newBucket(float64(cfg.RPM)*share, cfg.Burst, now)
		l.tokens[lane] = newBucket(float64(cfg.TPM)*share, cfg.Burst, now)
	}
	return l
}

// Limiter is what [Limit] returns. It takes a call's lane from its ctx (see [WithLane]).
type Limiter struct {
	inner Embedder
	cfg   LimitConfig
	count func(string) int // nil without TPM

	mu      sync.Mutex
	flying  int
	waiting [lanes][]*waiter
	// The buckets of Live hold the whole allowance, those of Replay its share; a replay's call is charged to both.
	requests, tokens [lanes]bucket
	notBefore        time.Time // the provider's own word
	timer            *time.Timer

	throttled int64
	heldSince time.Time // a call waits for the allowance since then; zero: none does
	held      time.Duration
}

// Allowance is what a provider allows, and how often that was in the way.
type Allowance struct {
	// RPM and TPM are requests and tokens a minute; 0: no limit is known.
	RPM, TPM int
	// Throttled counts answers that said too much was asked (429).
	Throttled int64
	// Held is for how long, in all, at least one call had to wait for the allowance.
	Held time.Duration
}

// Allowance tells what is allowed, and how often that was in the way.
func (l *Limiter) Allowance() Allowance {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := Allowance{RPM: l.cfg.RPM, TPM: l.cfg.TPM, Throttled: l.throttled, Held: l.held}
	if !l.heldSince.IsZero() {
		a.Held += time.Since(l.heldSince)
	}
	return a
}

type waiter struct {
	tokens   float64
	admitted chan struct{}
}

// Name is the model's.
func (l *Limiter) Name() string { return l.inner.Name() }

// Dim is the model's.
func (l *Limiter) Dim() int { return l.inner.Dim() }

// MaxInput is the model's.
func (l *Limiter) MaxInput() int { return l.inner.MaxInput() }

// Unwrap is the embedder below.
func (l *Limiter) Unwrap() Embedder { return l.inner }

// Embed waits for its turn, then calls the model.
func (l *Limiter) Embed(ctx context.Context, role Role, inputs []string) ([][]float32, error) {
	if len(inputs) == 0 {
		return [][]float32{}, nil
	}
	if err := l.wait(ctx, inputs); err != nil {
		return nil, fmt.Errorf("wait for %s: %w", l.Name(), err)
	}
	vectors, err := l.inner.Embed(ctx, role, inputs)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.flying--
	var failed *Error
	if errors.As(err, &failed) && failed.Throttled {
		l.throttled++
	}
	if errors.As(err, &failed) && failed.RetryAfter > 0 {
		if until := time.Now().Add(failed.RetryAfter); until.After(l.notBefore) {
			l.notBefore = until
		}
	}
	l.admit()
	return vectors, err
}

func (l *Limiter) wait(ctx context.Context, inputs []string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &waiter{admitted: make(chan struct{})}
	if l.count != nil {
		for _, input := range inputs {
			w.tokens += float64(l.count(input))
		}
	}
	lane := min(LaneOf(ctx), lanes-1)
	l.mu.Lock()
	l.waiting[lane] = append(l.waiting[lane], w)
	l.admit()
	l.mu.Unlock()
	select {
	case <-w.admitted:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.admitted:
		// Both at once: the call will not be made, so the slot goes back. The charge stays; it is the cautious side.
		l.flying--
	default:
		l.waiting[lane] = slices.DeleteFunc(l.waiting[lane], func(other *waiter) bool { return other == w })
	}
	l.admit()
	return ctx.Err()
}

// admit lets every call go that may, and sets the timer for the next one. It needs mu.
func (l *Limiter) admit() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	for lane := Live; lane < lanes; {
		if len(l.waiting[lane]) == 0 {
			lane++
			continue
		}
		if l.cfg.Concurrency > 0 && l.flying >= l.cfg.Concurrency {
			return // a call that comes back admits the next
		}
		now := time.Now()
		w := l.waiting[lane][0]
		wait := l.notBefore.Sub(now)
		for charged := Live; charged <= lane; charged++ {
			wait = max(wait, l.requests[charged].wait(1, now), l.tokens[charged].wait(w.tokens, now))
		}
		if wait > 0 {
			if l.heldSince.IsZero() {
				l.heldSince = now
			}
			// Nothing overtakes: what a later lane took now, this one would lack.
			l.timer = time.AfterFunc(wait, func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.admit()
			})
			return
		}
		for charged := Live; charged <= lane; charged++ {
			l.requests[charged].take(1)
			l.tokens[charged].take(w.tokens)
		}
		l.waiting[lane] = slices.Delete(l.waiting[lane], 0, 1)
		l.flying++
		close(w.admitted)
	}
	if !l.heldSince.IsZero() { // nobody waits any more
		l.held, l.heldSince = l.held+time.Since(l.heldSince), time.Time{}
	}
}

// bucket is a token bucket that may go into debt. One with rate 0 never holds anything back.
type bucket struct {
	rate  float64 // a second
	size  float64
	level float64
	at    time.Time
}

func newBucket(perMinute float64, burst time.Duration, now time.Time) bucket {
	rate := perMinute / 60
	size := max(1, rate*burst.Seconds())
	return bucket{rate: rate, size: size, level: size, at: now}
}

// wait is how long until n may be taken; the level is brought up to now.
func (b *bucket) wait(n float64, now time.Time) time.Duration {
	if b.rate == 0 {
		return 0
	}
	b.level = min(b.size, b.level+now.Sub(b.at).Seconds()*b.rate)
	b.at = now
	// The allowance fills in floating point: a billionth of a token is not worth another timer.
	lack := min(n, b.size) - b.level
	if lack <= 1e-9*b.size {
		return 0
	}
	return time.Duration(math.Ceil(lack / b.rate * float64(time.Second)))
}

func (b *bucket) take(n float64) {
	if b.rate > 0 {
		b.level -= n
	}
}
