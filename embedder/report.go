package embedder

import (
	"context"
	"time"
)

// Reporter is a model whose provider tells, with its answers, what it allows and what it charges. [Batch] works to what it is told.
type Reporter interface {
	// EmbedReported is Embed, and what the provider said with the answer. The report counts also where there is an error.
	EmbedReported(ctx context.Context, role Role, inputs []string) ([][]float32, Report, error)
}

// Opened is a model whose provider was asked something when it was opened, and told its limits with the answer: so the first request of all is within them.
type Opened interface {
	// OpenedWith is what the provider said then; the zero value if it was not asked, or did not answer.
	OpenedWith() Report
}

// Report is what a provider said with an answer, whether that was good or bad.
type Report struct {
	// Calls is how many requests were made for it: one, but for those that had to be put otherwise. 0 is 1.
	Calls int
	// Charged is how many tokens the provider charges for all of them, by its own count; 0: it did not say.
	Charged int
	// Requests and Tokens are the allowances that it told of.
	Requests, Tokens Told
}

// Told is what a provider told of one allowance. The zero value: nothing.
type Told struct {
	// Limit is how much is allowed in Per; 0: not told.
	Limit float64
	// Per is the time that Limit is for; 0: not told, which usually means a minute.
	Per time.Duration
	// State tells that Left and Reset are known too.
	State bool
	// Left is how much of Limit was left when the answer was made, that request being counted.
	Left float64
	// Reset is how long from then until nothing of Limit is used any more.
	Reset time.Duration
}
