package indexer

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/vectordb"
)

// TestEditsGoBeforeBackfills: a backfill of the live generation takes the patient lane, so that the edit of somebody who waits does not queue behind it.
func TestEditsGoBeforeBackfills(t *testing.T) {
	b := newBed(t)
	var mu sync.Mutex
	lanes := map[string][]embedder.Lane{}
	hold := make(chan struct{})
	b.model.do(func(ctx context.Context, inputs []string) error {
		word, _, _ := strings.Cut(inputs[0], " ")
		mu.Lock()
		lanes[word] = append(lanes[word], embedder.LaneOf(ctx))
		mu.Unlock()
		if word == "held" {
			select {
			case <-hold:
			case <-ctx.Done():
			}
		}
		return nil
	})
	old := upsert("old", "history of long ago")
	old.Backfill = true
	b.settle(old, upsert("new", "edit of today"), upsert("long", sections(10)))

	// A document whose turn has not come is as urgent as the most urgent of its changes.
	first := upsert("both", "held until both others wait")
	first.Backfill = true
	second, third := upsert("both", "superseded before its turn"), upsert("both", "last of the three")
	third.Backfill = true
	info, err := b.indexer.Info(Live)
	if err != nil {
		t.Fatal(err)
	}
	changes := info.Progress.Superseded
	b.append(first)
	b.eventually("begun", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(lanes["held"]) > 0
	})
	b.append(second)
	positions := b.append(third)
	b.eventually("superseded", func() bool {
		info, err := b.indexer.Info(Live)
		return err == nil && info.Progress.Superseded > changes
	})
	close(hold)
	if err := b.indexer.WaitApplied(b.ctx(), Live, positions); err != nil {
		t.Fatal(err)
	}
	want := map[string]embedder.Lane{"history": embedder.Backfill, "edit": embedder.Live, "held": embedder.Backfill, "last": embedder.Live}
	for word, lane := range want {
		if got := lanes[word]; !slices.Equal(got, []embedder.Lane{lane}) {
			t.Errorf("%q was embedded on %v, want %v", word, got, lane)
		}
	}

	// And everything of a generation that does not answer is patient.
	mu.Lock()
	clear(lanes)
	mu.Unlock()
	if _, err := b.indexer.Create(b.ctx(), "behind", vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Token, Tokens: 16}}); err != nil {
		t.Fatal(err)
	}
	b.eventually("caught up", func() bool { i, err := b.indexer.Info("behind"); return err == nil && i.State == StateReady })
	mu.Lock()
	defer mu.Unlock()
	for word, got := range lanes {
		if slices.Contains(got, embedder.Live) {
			t.Errorf("the replay embedded %q on %v", word, got)
		}
	}
	if len(lanes) == 0 {
		t.Error("the replay embedded nothing")
	}
}
