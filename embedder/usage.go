package embedder

import (
	"context"
	"errors"
	"math"
	"sync"
)

// Usage is what calls made under [WithUsage] sent to the model, as far as it answered. What a cache had costs nothing. Safe for concurrent use.
type Usage struct {
	// CountTokens asks for Tokens also where nobody counts them otherwise, which takes the tokenizer's time once more.
	CountTokens bool

	mu     sync.Mutex
	begun  bool // an input is being sent, or has been answered
	back   bool // the call was taken back
	unsent bool // it is to be, once begun is false
	traced bool // by a cache or a batch: inputs that are not in went were not sent
	went   map[string]bool
	inputs int64
	tokens float64
}

type usageKey struct{}

// WithUsage has calls under the returned context add to u what they send to the model.
func WithUsage(ctx context.Context, u *Usage) context.Context {
	return context.WithValue(ctx, usageKey{}, u)
}

func usageOf(ctx context.Context) *Usage {
	u, _ := ctx.Value(usageKey{}).(*Usage)
	return u
}

// Sent tells whether the input, or a piece of it, went to the model. Where nothing stands between caller and model, every input did.
func (u *Usage) Sent(input string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.traced || u.went[input]
}

// Inputs is how many inputs were sent, pieces of long ones counted apart.
func (u *Usage) Inputs() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.inputs
}

// Tokens is how many tokens were sent: as the provider charges for them, where it tells, or else by the model's own tokenizer or 4 bytes each; 0 where nobody counts.
func (u *Usage) Tokens() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return int64(math.Round(u.tokens))
}

// ErrTakenBack is how a call ends that was taken back before any of it was sent.
var ErrTakenBack = errors.New("the call was taken back")

// TakeBack has the call fail with [ErrTakenBack] where it would be sent, or sent again, for the first time with nothing of it answered. It tells whether that is so already: then nothing
// of it is sent any more, and whoever waits for it need not. Otherwise some of it is being sent or has been answered, and the call goes on unless what is being sent fails; so it
// costs nothing twice.
func (u *Usage) TakeBack() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unsent, u.back = true, u.back || !u.begun
	return u.back
}

// takenBack tells whether it was.
func (u *Usage) takenBack() bool {
	if u == nil {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.back
}

// hold keeps the call from being taken back until release, unless it was.
func (u *Usage) hold() bool {
	if u == nil {
		return true
	}
	u.mu.Lock()
	if u.back {
		u.mu.Unlock()
		return false
	}
	return true
}

// release ends hold. sends: some of the call is being sent from now on.
func (u *Usage) release(sends bool) {
	if u != nil {
		u.begun = u.begun || sends
		u.mu.Unlock()
	}
}

// undo notes that nothing was answered, and nothing is being sent.
func (u *Usage) undo() {
	if u != nil {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.begun, u.back = false, u.unsent
	}
}

// Traced tells whether the calls went through a wrapper that knows what it sends. If they did not, Inputs and Tokens are 0.
func (u *Usage) Traced() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.traced
}

// add notes inputs that e was sent.
func (u *Usage) add(e Embedder, inputs []string) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.traced = true
	for _, input := range inputs {
		u.note(e, input, 0)
	}
}

// sent notes an input that e was sent, which is charged so many tokens; 0: nobody counted.
func (u *Usage) sent(e Embedder, input string, tokens float64) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.traced = true
	u.note(e, input, tokens)
}

// note needs mu.
func (u *Usage) note(e Embedder, input string, tokens float64) {
	if u.went == nil {
		u.went = make(map[string]bool)
	}
	u.went[input] = true
	u.inputs++
	if tokens == 0 && u.CountTokens {
		tokens = float64(counterOf(e)(input))
	}
	u.tokens += tokens
}

// pieces notes that an input was sent if one of its pieces was.
func (u *Usage) pieces(input string, pieces []string) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, piece := range pieces {
		if u.went[piece] {
			u.went[input] = true
		}
	}
}

type foreseeKey struct{}

// Foresee tells what embedding inputs would send to the model, and sends nothing. Inputs that the policy for long ones rejects are left out.
func Foresee(ctx context.Context, e Embedder, role Role, inputs []string) (*Usage, error) {
	u := &Usage{CountTokens: true}
	if !HasCache(e) {
		// Long inputs are as many tokens whole as in pieces, about.
		u.add(e, inputs)
		return u, nil
	}
	ctx = context.WithValue(WithUsage(ctx, u), foreseeKey{}, true)
	for len(inputs) > 0 {
		_, err := e.Embed(ctx, role, inputs)
		if err == nil {
			return u, nil
		}
		var failed *Error
		if !errors.As(err, &failed) || failed.Input < 0 || failed.Input >= len(inputs) {
			return nil, err
		}
		rejected := failed.Input
		inputs = append(append([]string{}, inputs[:rejected]...), inputs[rejected+1:]...)
	}
	return u, nil
}

// foresees tells whether a call is one of Foresee, which must not reach the model.
func foresees(ctx context.Context) bool {
	yes, _ := ctx.Value(foreseeKey{}).(bool)
	return yes
}
