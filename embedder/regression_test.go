package embedder_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
)

// metered is a provider that keeps its allowance as such providers do: a bucket of a minute's requests and one of a minute's tokens, full at first. What does not fit is refused.
// A token is four bytes to it, as it is to whoever has no tokenizer of a model.
type metered struct {
	embedder.Embedder
	rpm, tpm float64

	mu               sync.Mutex
	requests, tokens float64 // used up
	at               time.Time
	calls, refused   int
}

func (m *metered) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	m.mu.Lock()
	passed := time.Since(m.at).Minutes()
	m.at = time.Now()
	m.requests, m.tokens = max(0, m.requests-passed*m.rpm), max(0, m.tokens-passed*m.tpm)
	n := 0.0
	for _, input := range inputs {
		n += float64(len(input)) / 4
	}
	m.calls++
	const rounding = 1e-6
	if m.requests+1 > m.rpm+rounding || m.tokens+n > m.tpm+rounding {
		m.refused++
		m.mu.Unlock()
		return nil, &embedder.Error{Op: "metered", Temporary: true, Throttled: true, Input: -1, Err: errors.New("429 too many requests")}
	}
	m.requests, m.tokens = m.requests+1, m.tokens+n
	m.mu.Unlock()
	return m.Embedder.Embed(ctx, role, inputs)
}

// TestRegressionThreeRequestsAMinute: 47 chunks of 400 tokens, at a provider that takes 3 requests and 10,000 tokens a minute, take about as long as 18,800 tokens must, without
// a storm of refusals; and a second provider does not wait for the first.
func TestRegressionThreeRequestsAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chain := func(m *metered, limits embedder.Limits) embedder.Embedder {
			return embedder.Batch(m, embedder.BatchConfig{MaxTokens: 8000, Limits: limits})
		}
		slow := &metered{Embedder: embedder.NewHash(64), rpm: 3, tpm: 10_000}
		free := &metered{Embedder: embedder.NewHash(32), rpm: 1e6, tpm: 1e9}
		first, second := chain(slow, embedder.Limits{RPM: 3, TPM: 10_000}), chain(free, embedder.Limits{RPM: 1e6, TPM: 1e9})
		chunks := make([]string, 47)
		for i := range chunks {
			chunks[i] = fmt.Sprintf("%03d ", i) + strings.Repeat("word", 399)
		}
		began := time.Now()
		done := make(chan error, 1)
		go func() {
			vectors, err := first.Embed(t.Context(), embedder.Index, chunks)
			if err == nil && len(vectors) != len(chunks) {
				err = fmt.Errorf("%d vectors", len(vectors))
			}
			done <- err
		}()
		synctest.Wait()
		if _, err := second.Embed(t.Context(), embedder.Index, chunks); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the second provider waited %s for the first", took)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		// 18,800 tokens at 10,000 a minute; what goes out last does not have to be earned any more.
		const floor = 113 * time.Second
		if took := time.Since(began); took > floor {
			t.Errorf("it took %s, and %s are enough", took, floor)
		}
		if slow.calls > 7 || slow.refused != 0 {
			t.Errorf("%d requests, %d of them refused; 6 are enough, and none has to be", slow.calls, slow.refused)
		}
	})
}
