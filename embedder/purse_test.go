package embedder_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

// money is a purse that holds so many tokens for documents, and as many as are wanted for questions.
type money struct {
	mu      sync.Mutex
	left    int64
	taken   int64 // and not settled
	charged [2]int64
	refused int
}

func (m *money) Take(role embedder.Role, tokens int64) (time.Time, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if role == embedder.Index {
		if tokens > m.left {
			m.refused++
			return time.Now().Add(time.Minute), "there is no more"
		}
		m.left -= tokens
	}
	m.taken += tokens
	return time.Time{}, ""
}

func (m *money) Settle(role embedder.Role, taken, charged int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken -= taken
	m.charged[role] += charged
	if role == embedder.Index {
		m.left += taken - charged
	}
}

// spent is what was charged and what is set apart.
func (m *money) spent() (documents, questions, taken int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.charged[embedder.Index], m.charged[embedder.Query], m.taken
}

func (m *money) earn(tokens int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left += tokens
}

// charging is a model whose provider tells what it charges: a token for each byte, also where it fails in the end.
type charging struct {
	*embeddertest.Provider
	mu   sync.Mutex
	fail error // for the next request
	paid int
}

func (c *charging) CountTokens(input string) int { return len(input) }

func (c *charging) EmbedReported(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, embedder.Report, error) {
	c.mu.Lock()
	fail := c.fail
	c.fail = nil
	bytes := 0
	for _, input := range inputs {
		bytes += len(input)
	}
	c.paid += bytes
	c.mu.Unlock()
	if fail != nil {
		return nil, embedder.Report{Charged: bytes}, fail
	}
	vectors, err := c.Provider.Embed(ctx, role, inputs)
	return vectors, embedder.Report{Charged: bytes}, err
}

func TestDocumentsWaitWhileNothingMayBeSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := &charging{Provider: embeddertest.NewProvider()}
		purse := &money{left: 35}
		b := embedder.Batch(model, embedder.BatchConfig{Concurrency: 2, MaxTokens: 10, Purse: purse})
		var outcomes []func() ([][]float32, error)
		document := func(i int) string { return fmt.Sprintf("document%02d", i) } // ten tokens
		for i := range 12 {
			ctx := t.Context()
			if i%2 == 1 {
				ctx = embedder.WithLane(ctx, embedder.Replay)
			}
			outcomes = append(outcomes, ask(ctx, b, embedder.Index, document(i)))
		}
		synctest.Wait()
		paused := time.Now()
		time.Sleep(10*time.Minute + time.Second)
		p := b.Providers()[0]
		if p.State != embedder.Paused || p.Since.Location() != time.UTC || p.NextTry.Location() != time.UTC || !p.Since.Equal(paused) || p.Detail != "there is no more" || !p.NextTry.After(time.Now()) || p.NextTry.After(time.Now().Add(time.Minute)) {
			t.Errorf("after 10 minutes: %+v; paused since %v", p, paused)
		}
		if documents, _, taken := purse.spent(); documents != 30 || taken != 0 {
			t.Errorf("%d were charged, %d are set apart", documents, taken)
		}
		purse.mu.Lock()
		if purse.refused != 11 { // it asks again when it was told to, and not before
			t.Errorf("refused %d times", purse.refused)
		}
		purse.mu.Unlock()
		asked := time.Now()
		// Questions don't wait.
		mustAnswer(t, "question", ask(t.Context(), b, embedder.Query, "who?"), "who?")
		if _, questions, _ := purse.spent(); time.Since(asked) != 0 || questions != 4 {
			t.Errorf("a question took %v and %d tokens", time.Since(asked), questions)
		}
		// Who gives up takes nothing with him.
		ctx, cancel := context.WithCancel(t.Context())
		gone := ask(ctx, b, embedder.Index, "given up")
		synctest.Wait()
		cancel()
		if _, err := gone(); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		purse.earn(85)
		for i, o := range outcomes {
			mustAnswer(t, "document", o, document(i))
		}
		if p := b.Providers()[0]; p.State != embedder.Ready {
			t.Errorf("%+v", p)
		}
		synctest.Wait()
		if documents, _, taken := purse.spent(); documents != 120 || taken != 0 || model.paid != 124 {
			t.Errorf("%d were charged, %d are set apart, the provider was paid %d", documents, taken, model.paid)
		}
		if left := b.Leftovers(); left != "" {
			t.Error(left)
		}
	})
}

// What a provider charges for a request that brings nothing is spent all the same.
func TestWhatIsChargedForNothingIsSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		model := &charging{Provider: embeddertest.NewProvider(), fail: &embedder.Error{Op: "test", Temporary: true, Input: -1, Err: errors.New("half an answer")}}
		purse := &money{left: 1000}
		b := embedder.Batch(model, embedder.BatchConfig{Purse: purse})
		mustAnswer(t, "document", ask(t.Context(), b, embedder.Index, "document"), "document")
		synctest.Wait()
		if documents, _, taken := purse.spent(); documents != 16 || taken != 0 || b.Providers()[0].Tokens != 16 {
			t.Errorf("%d were charged, %d are set apart: %+v", documents, taken, b.Providers())
		}
	})
}
