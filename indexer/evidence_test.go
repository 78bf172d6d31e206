package indexer

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/vectordb"
)

// gateOf is a gate whose figures the test decides, and which may do something before it answers.
func gateOf(holds *bool, before func(candidate, live string)) Gate {
	return func(_ context.Context, candidate, live string, conditions map[string]string) ([]Measured, error) {
		before(candidate, live)
		var out []Measured
		for metric, condition := range conditions {
			out = append(out, Measured{Metric: metric, Condition: condition, Live: .5, Candidate: .4, Difference: -.1, Holds: *holds})
		}
		return out, nil
	}
}

func (b *bed) replayed(name string, tokens int) {
	b.t.Helper()
	if _, err := b.indexer.Create(b.ctx(), name, vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Recursive, Tokens: tokens}}); err != nil {
		b.t.Fatal(err)
	}
	b.eventually(name+" ready", func() bool { i, err := b.indexer.Info(name); return err == nil && i.State == StateReady })
}

func (b *bed) live() string {
	b.t.Helper()
	info, err := b.indexer.Info(Live)
	if err != nil {
		b.t.Fatal(err)
	}
	return info.Name
}

func TestAPromoteDependsOnWhatWasMeasured(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", sections(5)))
	b.stop()
	holds, meanwhile := false, func(string, string) {}
	b.start(Config{Gate: gateOf(&holds, func(candidate, live string) { meanwhile(candidate, live) })})
	first := b.live()
	b.replayed("second", 80)
	b.replayed("third", 60)
	asked := map[string]string{"ndcg@10": ">=0"}

	_, measured, err := b.indexer.PromoteIf(b.ctx(), "second", asked)
	var failed *GateError
	if !errors.As(err, &failed) || failed.Candidate != "second" || failed.Live != first || len(measured) != 1 {
		t.Fatalf("a condition that does not hold: %v, %v", measured, err)
	}
	if text := err.Error(); !strings.Contains(text, "ndcg@10 0.5000 → 0.4000 (-0.1000), which is not >=0") {
		t.Errorf("the figures are not in %q", text)
	}
	if b.live() != first {
		t.Fatalf("live is %s after a promote that failed", b.live())
	}

	holds = true
	meanwhile = func(string, string) {
		if _, err := b.indexer.Promote(b.ctx(), "third"); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := b.indexer.PromoteIf(b.ctx(), "second", asked); !errors.Is(err, ErrMoved) || b.live() != "third" {
		t.Fatalf("another one was promoted meanwhile: %v, live is %s", err, b.live())
	}
	meanwhile = func(candidate, _ string) {
		if err := b.indexer.Drop(b.ctx(), candidate); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := b.indexer.PromoteIf(b.ctx(), "second", asked); !errors.Is(err, ErrNotFound) {
		t.Fatalf("it was dropped meanwhile: %v", err)
	}
	meanwhile = func(candidate, live string) {
		if candidate != first || live != "third" {
			t.Errorf("%s was measured against %s", candidate, live)
		}
	}
	if info, measured, err := b.indexer.PromoteIf(b.ctx(), first, asked); err != nil || info.Name != first || len(measured) != 1 || b.live() != first {
		t.Fatalf("a condition that holds: %v, %v, %v", info.Name, measured, err)
	}
	meanwhile = func(string, string) { t.Error("the live one was measured against itself") }
	if _, _, err := b.indexer.PromoteIf(b.ctx(), first, asked); err != nil {
		t.Errorf("promoting the live one again: %v", err)
	}
	b.stop()
	b.start(Config{})
	if _, _, err := b.indexer.PromoteIf(b.ctx(), "third", asked); !errors.Is(err, ErrNoEvidence) {
		t.Errorf("without questions: %v", err)
	}
}

func TestEachRollbackTakesOnePromoteBack(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", sections(3)))
	first := b.live()
	if b.indexer.Moved() {
		t.Error("moved before anything was promoted")
	}
	for i, name := range []string{"second", "third", "fourth"} {
		b.replayed(name, 50+10*i)
	}
	promote := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if _, err := b.indexer.Promote(b.ctx(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	back := func(names ...string) {
		t.Helper()
		for _, name := range names {
			if info, err := b.indexer.Rollback(b.ctx()); err != nil || info.Name != name || b.live() != name {
				t.Fatalf("rolled back to %s, live is %s, want %s: %v", info.Name, b.live(), name, err)
			}
		}
		if _, err := b.indexer.Rollback(b.ctx()); !errors.Is(err, ErrNoPrevious) {
			t.Fatalf("there was one more to go back to, %s: %v", b.live(), err)
		}
	}
	promote("second", "second", "third")
	back("second", first)
	promote("second", first, "third")
	b.stop()
	b.start(Config{})
	back(first, "second", first)
	if !b.indexer.Moved() {
		t.Error("not moved after everything was taken back")
	}

	// What is dropped is no place to go back to.
	promote("second", "third", "second", "fourth")
	if err := b.indexer.Drop(b.ctx(), "third"); err != nil {
		t.Fatal(err)
	}
	back("second", first)
	promote("second", "fourth", "second")
	if err := b.indexer.Drop(b.ctx(), "fourth"); err != nil {
		t.Fatal(err)
	}
	back(first)
	for range earlierKept + 5 {
		promote("second", first)
	}
	var way []string
	for range (earlierKept + 1) / 2 {
		way = append(way, "second", first)
	}
	back(way...)
}
