// Package freshness measures, from outside, how soon a running system's answers follow its documents' changes, and whether any answer is of the past.
//
// [Replay] sends a stream of changes through the system's own interface and asks it questions meanwhile; [Observe] writes nothing, reads the changes that
// others make, and asks until the answers show them. Both keep a fold of what was sent and what the system said is searchable, and judge every returned
// chunk by it. [Figures] is what comes out.
//
// A version of a document is due in an answer when the system says so: the answer was asked for after a token of it and calls itself satisfied, or the
// version was acknowledged before the answer's as_of. An answer that holds an older one then is wrong; before that it is merely behind, which is counted
// apart, as the user feels it. as_of is compared by how far it lies behind the moment of the answer, so the clocks of the two machines need not agree.
package freshness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/liverag/liverag/stream"
)

// Names of the metadata fields by which a replay marks its documents. Its queries filter on the first.
const (
	FieldRun    = "liverag_eval_run"
	FieldNumber = "liverag_eval_number"
)

// Server is the running system. It is safe for concurrent use.
//
// Errors: *Busy for a call that may succeed later, ErrMode; any other ends the eval.
type Server interface {
	// Put writes a document and returns once the change is durable, without waiting until it is searchable.
	Put(ctx context.Context, id string, doc *stream.Document) (token string, err error)
	// Delete is Put's opposite. Deleting what does not exist is no error.
	Delete(ctx context.Context, id string) (token string, err error)
	Retrieve(ctx context.Context, q Question) (Answer, error)
	// Measured is what the system says of its own freshness.
	Measured(ctx context.Context) (Measured, error)
}

// Question is one query.
type Question struct {
	Query string
	K     int
	// Mode is hybrid, dense or lexical; "" is the system's default.
	Mode       string
	Generation string
	Filter     map[string]any
	// After are tokens of changes that the answer has to reflect; AllOlder asks for everything that is in the log already. It waits up to Wait for both.
	After    []string
	AllOlder bool
	Wait     time.Duration
}

// Answer is what came back.
type Answer struct {
	Hits []Hit
	// Lag is how long the answer's as_of lay behind the moment of answering. Negative: it does not say.
	Lag time.Duration
	// Satisfied tells whether the answer reflects what After and AllOlder asked for.
	Satisfied bool
	// Generation is the name of the one that answered.
	Generation string
}

// Hit is one returned chunk.
type Hit struct {
	ID, Document string
	Version      int64
	Text         string
	// Start and End are byte offsets into the document's text.
	Start, End int
	Metadata   map[string]any
}

// Measured is the system's own time to searchable.
type Measured struct {
	P50, P95, P99, Max time.Duration
	Count              int64
	// Window is how far back it reaches.
	Window time.Duration
}

// Busy is a call that may succeed later.
type Busy struct {
	// After is how long the system asked to stay away; 0 if it did not say.
	After time.Duration
	Err   error
}

func (b *Busy) Error() string { return b.Err.Error() }
func (b *Busy) Unwrap() error { return b.Err }

// ErrMode: the system has no such mode of search.
var ErrMode = errors.New("mode of search is not supported")

// patiently makes a call again while the system is busy, up to the given time, and counts how often it was refused.
func patiently(ctx context.Context, patience time.Duration, refused func(), do func() error) error {
	begin := time.Now()
	for try := 0; ; try++ {
		err := do()
		var busy *Busy
		if !errors.As(err, &busy) {
			return err
		}
		refused()
		pause := max(busy.After, min(20*time.Millisecond<<min(try, 6), time.Second))
		if time.Since(begin)+pause > patience {
			return fmt.Errorf("refused for %s: %w", time.Since(begin).Round(time.Second), busy.Err)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
