package embedder

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// RetryConfig bounds the patience of [Retry].
type RetryConfig struct {
	// Attempts is how many calls are made in all. Defaults to 6; negative means any number.
	Attempts int
	// Base is the longest wait after the first failure; it doubles with each further one. Defaults to 250 milliseconds.
	Base time.Duration
	// Max is the longest wait that we choose. Defaults to 30 seconds. A provider's RetryAfter may be longer.
	Max time.Duration
	// MaxElapsed is for how long attempts may begin after the first. Defaults to 2 minutes; negative means for ever.
	MaxElapsed time.Duration
}

// Retry repeats calls that failed temporarily: *Error with Temporary. Any other failure is returned at once.
//
// The wait is drawn evenly from zero to Base·2ⁿ (full jitter, after Brooker, "Exponential Backoff And Jitter", 2015), so that callers that failed together don't come back
// together. Where the provider says RetryAfter, that is the wait to the nanosecond: never earlier, and not later by guesswork of ours.
//
// When the next attempt would be one too many or too late, the last failure is returned at once, still an *Error with its RetryAfter. That is for callers who
// have somebody waiting, such as a question; an indexing pipeline, which must lose no change, calls again for as long as it takes.
func Retry(inner Embedder, cfg RetryConfig) *Retrier {
	if cfg.Attempts == 0 {
		cfg.Attempts = 6
	}
	if cfg.Base <= 0 {
		cfg.Base = 250 * time.Millisecond
	}
	if cfg.Max <= 0 {
		cfg.Max = 30 * time.Second
	}
	if cfg.MaxElapsed == 0 {
		cfg.MaxElapsed = 2 * time.Minute
	}
	return &Retrier{inner: inner, cfg: cfg}
}

// Retrier is what [Retry] returns.
type Retrier struct {
	inner   Embedder
	cfg     RetryConfig
	retries atomic.Int64
}

// Name is the model's.
func (r *Retrier) Name() string { return r.inner.Name() }

// Dim is the model's.
func (r *Retrier) Dim() int { return r.inner.Dim() }

// MaxInput is the model's.
func (r *Retrier) MaxInput() int { return r.inner.MaxInput() }

// Unwrap is the embedder below.
func (r *Retrier) Unwrap() Embedder { return r.inner }

// Retries is how many calls have been made again.
func (r *Retrier) Retries() int64 { return r.retries.Load() }

// Embed calls until it succeeds or patience ends.
func (r *Retrier) Embed(ctx context.Context, role Role, inputs []string) ([][]float32, error) {
	start := time.Now()
	longest := min(r.cfg.Base, r.cfg.Max)
	for attempt := 1; ; attempt++ {
		vectors, err := r.inner.Embed(ctx, role, inputs)
		if err == nil {
			return vectors, nil
		}
		var failed *Error
		if !errors.As(err, &failed) || !failed.Temporary || ctx.Err() != nil {
			return nil, err
		}
		wait := failed.RetryAfter
		if wait <= 0 {
			wait = rand.N(longest + 1)
			longest = min(2*longest, r.cfg.Max)
		}
		late := r.cfg.MaxElapsed > 0 && time.Since(start)+wait > r.cfg.MaxElapsed
		if late || r.cfg.Attempts > 0 && attempt >= r.cfg.Attempts {
			return nil, fmt.Errorf("after %d attempts in %v: %w", attempt, time.Since(start).Round(time.Millisecond), err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w while waiting to try again: %w", ctx.Err(), err)
		}
		r.retries.Add(1)
	}
}
