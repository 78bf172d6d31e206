package main

import (
	"context"
	"sync"
	"testing"

	"github.com/liverag/liverag/embedder"
)

// stuck is a model whose requests for documents come back when they are let.
type stuck struct {
	*embedder.Hash
	begun chan struct{}
	let   chan struct{}
}

func (s *stuck) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	if role == embedder.Index {
		s.begun <- struct{}{}
		<-s.let
	}
	return s.Hash.Embed(ctx, role, inputs)
}

// TestAQuestionDoesNotWaitForRequestsOfDocuments asks while every request that may be under way is one of documents.
func TestAQuestionDoesNotWaitForRequestsOfDocuments(t *testing.T) {
	const requests = 2
	base := &stuck{Hash: embedder.NewHash(16), begun: make(chan struct{}), let: make(chan struct{})}
	var m model
	m.wrap(base, embedder.BatchConfig{Concurrency: requests, MaxInputs: 1, Reserve: -1}, nil)
	var wg sync.WaitGroup
	for range requests {
		wg.Go(func() {
			if _, err := m.index.Embed(t.Context(), embedder.Index, []string{"a document"}); err != nil {
				t.Error(err)
			}
		})
	}
	for range requests {
		<-base.begun
	}
	if _, err := m.query.Embed(t.Context(), embedder.Query, []string{"a question"}); err != nil {
		t.Error(err)
	}
	close(base.let)
	wg.Wait()
}
