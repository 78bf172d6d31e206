package indexer

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/ledger"
	"github.com/liverag/liverag/vectordb"
)

// accountBed is a bed whose model costs a dollar a million tokens, with an account that outlives the indexer.
type accountBed struct {
	*bed
	dir    string
	ledger *ledger.Ledger
}

func newAccountBed(t *testing.T) *accountBed {
	b := &accountBed{bed: newBed(t), dir: filepath.Join(t.TempDir(), "spending")}
	b.stop()
	b.open()
	t.Cleanup(func() { b.stop(); b.ledger.Close() })
	return b
}

func (b *accountBed) open() {
	b.t.Helper()
	b.ledger = ledger.Open(ledger.Config{Dir: b.dir, Logger: slog.New(slog.DiscardHandler)})
	b.start(Config{Account: b.ledger, Build: func(_ context.Context, r vectordb.Recipe, _ int) (Parts, error) {
		cut, err := chunker.New(chunker.Options{Strategy: r.Chunker.Strategy, Tokens: r.Chunker.Tokens})
		return Parts{Recipe: r, Chunker: cut, Embedder: embedder.Batch(b.model, embedder.BatchConfig{}), Price: 1}, err
	}})
}

// restart is another process on the same directory.
func (b *accountBed) restart() {
	b.t.Helper()
	b.stop()
	if err := b.ledger.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

func (b *accountBed) work() Work {
	b.t.Helper()
	info, err := b.indexer.Info(Live)
	if err != nil {
		b.t.Fatal(err)
	}
	return *info.Progress.Work
}

func TestWhatAGenerationTookIsCountedOverRestarts(t *testing.T) {
	b := newAccountBed(t)
	b.settle(upsert("a", sections(10)))
	first := b.work()
	if first.TokensEmbedded == 0 || first.CostUSD == 0 || first.ChunksEmbedded == 0 {
		t.Fatalf("%+v", first)
	}
	b.restart()
	if got := b.work(); got != first {
		t.Errorf("after a restart %+v, before it %+v", got, first)
	}
	b.settle(upsert("a", sections(10, 3)))
	second := b.work()
	if second.ChunksEmbedded != first.ChunksEmbedded+1 || second.TokensReused <= first.TokensReused || second.CostUSD <= first.CostUSD {
		t.Errorf("after an edit %+v, before it %+v", second, first)
	}
	// What is told while it runs is what is told at its end: nothing is added twice.
	b.eventually("told", func() bool {
		g := b.indexer.live.Load()
		return b.ledger.Of(g.name, g.group).TokensEmbedded == second.TokensEmbedded
	})
	b.restart()
	b.restart()
	if got := b.work(); got != second {
		t.Errorf("after more restarts %+v, before them %+v", got, second)
	}
	day := b.ledger.Spending(1)
	if len(day.Generations) != 1 || day.Generations[0].Model != "hash/32" || day.Generations[0].TokensEmbedded != second.TokensEmbedded || day.Today.Cost.Dollars() != second.CostUSD {
		t.Errorf("%+v, %+v", day, second)
	}

	// One that is made anew under the name begins anew.
	g := b.indexer.live.Load()
	if got := b.ledger.Of(g.name, "another"); got != (ledger.Figures{}) {
		t.Errorf("%+v", got)
	}
}

// A redrive embeds too, and that costs as much.
func TestARedriveIsPaidFor(t *testing.T) {
	b := newAccountBed(t)
	b.poison("poison")
	b.reach(b.append(upsert("doc", "poison that heals")))
	if got := b.work(); got.CostUSD != 0 || got.DeadLetters != 1 {
		t.Fatalf("%+v", got)
	}
	b.poison("")
	b.redrive(b.bed.open(), "redriven")
	if got := b.work(); got.TokensEmbedded == 0 || got.CostUSD == 0 {
		t.Errorf("%+v", got)
	}
}

// What was cut and never embedded, because a newer version came, is counted.
func TestWhatIsOvertakenIsCounted(t *testing.T) {
	b := newAccountBed(t)
	tried := make(chan struct{}, 100)
	b.model.do(func(context.Context, []string) error {
		tried <- struct{}{}
		return &embedder.Error{Op: "test", Temporary: true, Input: -1, Err: errors.New("away")}
	})
	b.append(upsert("doc", "the first version"))
	<-tried
	positions := b.append(upsert("doc", "the second version"))
	g := b.indexer.live.Load()
	b.eventually("overtaken", func() bool { return g.counts.superseded.Load() == 1 })
	b.model.do(nil)
	b.reach(positions)
	b.stop()
	if got := b.ledger.Of(g.name, g.group); got.Superseded != 1 || got.TokensSuperseded == 0 || got.TokensSuperseded != got.TokensEmbedded {
		t.Errorf("%+v", got)
	}
}
