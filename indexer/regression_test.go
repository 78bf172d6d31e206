package indexer

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// The tests of this file are of mistakes that pipelines of this kind are known to make.

// TestRegressionOneTooLongChunkTakesNothingElseAlong has documents share requests with one that has a chunk which is too long for the model.
func TestRegressionOneTooLongChunkTakesNothingElseAlong(t *testing.T) {
	b := newBed(t)
	b.stop()
	build := b.config(Config{}).Build
	b.start(Config{Build: func(ctx context.Context, r vectordb.Recipe, dim int) (Parts, error) {
		parts, err := build(ctx, r, dim)
		parts.Embedder = embedder.Batch(b.model, embedder.BatchConfig{Concurrency: 1})
		return parts, err
	}})
	b.model.do(func(_ context.Context, inputs []string) error {
		for i, input := range inputs {
			if strings.Contains(input, "endless") {
				return &embedder.Error{Op: "test", Input: i, Err: embedder.ErrInputTooLong}
			}
		}
		return nil
	})
	changes, want := []stream.Change{upsert("long", sections(4)+"\n\n# Last\n\nendless")}, map[string]string{}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		changes, want[id] = append(changes, upsert(id, sections(3)+id)), sections(3)+id
	}
	b.settle(changes...)
	b.compare(want)
	letters, err := b.log.ReadDeadLetters(b.ctx(), 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(letters) != 1 || letters[0].Problem.Code != stream.CodeInputTooLong || letters[0].Key != "long" {
		t.Errorf("dead letters: %+v", letters)
	}
}

// TestRegressionAFailedProbeDropsNothing restarts with a model that refuses for good, and then with the one that made the index.
func TestRegressionAFailedProbeDropsNothing(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", "text"), upsert("b", sections(5)))
	b.stop()
	b.model.asked()
	x := New(b.config(Config{Build: func(context.Context, vectordb.Recipe, int) (Parts, error) {
		return Parts{}, &embedder.Error{Op: "openai: probe", Input: -1, Err: errors.New("401 wrong key")}
	}}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	b.eventually("refused", func() bool {
		info, err := x.Info(Live)
		return err == nil && info.State == StateFailed && strings.Contains(info.Trouble.Detail, "401 wrong key")
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	b.start(Config{})
	b.compare(map[string]string{"a": "text", "b": sections(5)})
	if asked := b.model.asked(); len(asked) > 0 {
		t.Errorf("the index was paid for again: %q", asked)
	}
}
