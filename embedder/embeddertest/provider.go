package embeddertest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/embedder"
)

// Provider is an embedder that fails as told, for the tests of whatever stands before a model. Its vectors are those of [embedder.Hash].
//
// Each call takes the next answer of the script; when that has run out, calls succeed. The zero Provider is not usable: see [NewProvider].
type Provider struct {
	model *embedder.Hash

	// Latency is how long each call takes, by the clock of the test's bubble.
	Latency time.Duration
	// Poison are texts that no request gets through with: it fails permanently.
	Poison []string
	// NamesPoison makes such a failure say which input it was, by *Error.Input.
	NamesPoison bool

	mu     sync.Mutex
	script []Answer
	calls  []Call
	flying int
	most   int
}

// Call is what a provider was asked.
type Call struct {
	At     time.Time
	Role   embedder.Role
	Lane   embedder.Lane
	Inputs []string
}

// Answer decides a call.
type Answer func(ctx context.Context, model embedder.Embedder, call Call) ([][]float32, error)

// NewProvider makes a provider of 64 dimensions that gives the answers in turn.
func NewProvider(script ...Answer) *Provider {
	return &Provider{model: embedder.NewHash(64), script: script}
}

// OK answers as it should.
func OK() Answer {
	return func(ctx context.Context, model embedder.Embedder, call Call) ([][]float32, error) {
		return model.Embed(ctx, call.Role, call.Inputs)
	}
}

// RateLimited is a 429; after is its Retry-After, 0 for none.
func RateLimited(after time.Duration) Answer {
	return fails(&embedder.Error{Temporary: true, Throttled: true, RetryAfter: after, Input: -1, Err: errors.New("429 too many requests")})
}

// Unavailable is a 503.
func Unavailable() Answer {
	return fails(&embedder.Error{Temporary: true, Input: -1, Err: errors.New("503 unavailable")})
}

// Refused is a failure for good that names no input, such as a wrong key.
func Refused() Answer {
	return fails(&embedder.Error{Input: -1, Err: errors.New("401 unauthorized")})
}

// Hangs answers never: it waits for ctx.
func Hangs() Answer {
	return func(ctx context.Context, _ embedder.Embedder, _ Call) ([][]float32, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

// TooFew leaves the last vector out.
func TooFew() Answer {
	return func(ctx context.Context, model embedder.Embedder, call Call) ([][]float32, error) {
		vectors, err := model.Embed(ctx, call.Role, call.Inputs)
		return vectors[:len(vectors)-1], err
	}
}

// NaN spoils the vector of the i-th input.
func NaN(i int) Answer {
	return func(ctx context.Context, model embedder.Embedder, call Call) ([][]float32, error) {
		vectors, err := model.Embed(ctx, call.Role, call.Inputs)
		vectors[i][0] = float32(math.NaN())
		return vectors, err
	}
}

// Long makes the vector of the i-th input twice as long as it may be.
func Long(i int) Answer {
	return func(ctx context.Context, model embedder.Embedder, call Call) ([][]float32, error) {
		vectors, err := model.Embed(ctx, call.Role, call.Inputs)
		for d := range vectors[i] {
			vectors[i][d] *= 2
		}
		return vectors, err
	}
}

func fails(err *embedder.Error) Answer {
	return func(_ context.Context, _ embedder.Embedder, call Call) ([][]float32, error) {
		failed := *err
		failed.Op = fmt.Sprintf("provider: embed %d inputs", len(call.Inputs))
		return nil, &failed
	}
}

// Name is provider/64.
func (p *Provider) Name() string { return fmt.Sprintf("provider/%d", p.model.Dim()) }

// Dim is 64.
func (p *Provider) Dim() int { return p.model.Dim() }

// MaxInput is 0.
func (p *Provider) MaxInput() int { return 0 }

// Embed gives the script's next answer.
func (p *Provider) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	call := Call{At: time.Now(), Role: role, Lane: embedder.LaneOf(ctx), Inputs: slices.Clone(inputs)}
	p.mu.Lock()
	p.calls = append(p.calls, call)
	answer := OK()
	if len(p.script) > 0 {
		answer, p.script = p.script[0], p.script[1:]
	}
	p.flying++
	p.most = max(p.most, p.flying)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.flying--
		p.mu.Unlock()
	}()
	if p.Latency > 0 {
		select {
		case <-time.After(p.Latency):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for i, input := range inputs {
		if slices.ContainsFunc(p.Poison, func(poison string) bool { return strings.Contains(input, poison) }) {
			failed := &embedder.Error{Op: fmt.Sprintf("provider: embed %d inputs", len(inputs)), Input: -1, Err: errors.New("400 invalid input")}
			if p.NamesPoison {
				failed.Input = i
			}
			return nil, failed
		}
	}
	return answer(ctx, p.model, call)
}

// Calls are the calls so far, in the order they came.
func (p *Provider) Calls() []Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// MostAtOnce is the largest number of calls that were in flight together.
func (p *Provider) MostAtOnce() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}
