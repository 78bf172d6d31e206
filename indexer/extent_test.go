package indexer

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
)

// shown are the ids of the documents that a generation holds.
func (b *bed) shown(generation string) (ids []string) {
	b.t.Helper()
	all, err := b.store.Scan(b.ctx(), generation, "", 1<<20)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := range all {
		if all[i].Version > 0 && !all[i].Deleted {
			ids = append(ids, all[i].Key)
		}
	}
	return ids
}

func (b *bed) partial(r Replay) []string {
	b.t.Helper()
	if _, err := b.indexer.Replay(b.ctx(), r); err != nil {
		b.t.Fatal(err)
	}
	b.eventually("caught up", func() bool {
		i, err := b.indexer.Info(r.Name)
		return err == nil && i.State == StatePartial && i.Lag == 0
	})
	if report := b.verify(Verification{Generation: r.Name}); !report.Right {
		b.t.Errorf("%s is not what it should be: %+v", r.Name, report)
	}
	if _, err := b.indexer.Promote(b.ctx(), r.Name); !errors.Is(err, ErrPartial) {
		b.t.Errorf("a promote of %s: %v", r.Name, err)
	}
	return b.shown(r.Name)
}

func TestASampleIsTheSameDocumentsEveryTime(t *testing.T) {
	b := newBed(t)
	var changes []stream.Change
	for i := range 400 {
		changes = append(changes, upsert(fmt.Sprint("d", i), fmt.Sprint("text ", i)))
	}
	b.settle(changes...)
	small := b.partial(Replay{Name: "small", Extent: Extent{Sample: .1}})
	large := b.partial(Replay{Name: "large", Extent: Extent{Sample: .5}})
	if len(small) < 15 || len(small) > 80 || len(large) < 150 || len(large) > 250 {
		t.Errorf("of 400 documents a tenth is %d, a half %d", len(small), len(large))
	}
	for _, id := range small {
		if !slices.Contains(large, id) {
			t.Errorf("%s is in a tenth and not in a half", id)
		}
	}
	// It follows the log like any other, and is what it was after a restart.
	b.stop()
	b.start(Config{})
	b.settle(upsert(small[0], "changed"), remove(small[1]), upsert("d0", "changed"))
	b.eventually("followed", func() bool {
		return b.current(small[0], "small").Text == "changed" && b.current(small[1], "small").Deleted
	})
	if info, _ := b.indexer.Info("small"); info.State != StatePartial && info.State != StateBuilding || info.Sample != .1 {
		t.Errorf("after a restart it is %+v", info)
	}
	if _, err := b.indexer.Replay(b.ctx(), Replay{Name: "small", Extent: Extent{Sample: .2}}); !errors.Is(err, ErrExists) {
		t.Errorf("another sample under the same name: %v", err)
	}
	if _, err := b.indexer.Replay(b.ctx(), Replay{Name: "small", Extent: Extent{Sample: .1}}); err != nil {
		t.Errorf("the same one again: %v", err)
	}
	for _, bad := range []Replay{{Extent: Extent{Sample: 1.1}}, {Extent: Extent{Sample: -1}}, {Share: 2}, {Extent: Extent{From: time.Now().Add(time.Hour)}}} {
		if _, err := b.indexer.Replay(b.ctx(), bad); !errors.Is(err, ErrExtent) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestAReplayFromATime(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("old", "from before"), upsert("both", "from before"), upsert("closed", "from before"), stream.Change{Kind: stream.Access, ID: "closed", ACL: []string{"ann"}})
	at := time.Now().Truncate(time.Millisecond).Add(time.Millisecond) // the log's times are milliseconds
	b.eventually("the next millisecond", func() bool { return !time.Now().Before(at) })
	b.settle(upsert("both", "from after"), upsert("closed", "from after"), upsert("new", "from after"))
	got := b.partial(Replay{Name: "late", Extent: Extent{From: at}})
	if want := []string{"both", "closed", "new"}; !slices.Equal(got, want) {
		t.Errorf("it holds %q, want %q", got, want)
	}
	closed := b.current("closed", "late")
	if !slices.Equal(closed.Readers(), []string{"ann"}) {
		t.Errorf("a document that was closed before is open to %v", closed.Readers())
	}
}
