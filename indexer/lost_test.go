package indexer

import (
	"fmt"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
)

// TestAGenerationThatTheSharedStoreLostIsBuiltAgain: somebody drops it behind everybody's back, while its processes run and write, while they run and have nothing to do,
// and while none runs. Made anew and empty it would look complete: its group has read everything.
func TestAGenerationThatTheSharedStoreLostIsBuiltAgain(t *testing.T) {
	for _, when := range []string{"busy", "idle", "stopped"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.stop()
			first, stopFirst := b.another(Config{Shared: true})
			second, stopSecond := b.another(Config{Shared: true})
			observer, stopObserver := b.another(Config{Shared: true, Observe: true})
			b.indexer = first
			for _, x := range []*Indexer{first, second, observer} {
				b.eventually("ready", func() bool { return x.Ready() == nil })
			}
			b.settle(upsert("a", "one"), upsert("b", "two"), upsert("c", "three"), remove("c"))
			want := map[string]string{"a": "one", "b": "two"}
			if err := second.WaitApplied(b.ctx(), Live, b.append(upsert("d", "four"))); err != nil {
				t.Fatal(err)
			}
			want["d"] = "four"
			info, err := first.Info(Live)
			if err != nil {
				t.Fatal(err)
			}
			if when == "stopped" {
				stopFirst()
				stopSecond()
				stopObserver()
			}
			if err := b.store.Drop(b.ctx(), info.Name); err != nil {
				t.Fatal(err)
			}
			switch when {
			case "busy":
				b.append(upsert("e", "five"))
				want["e"] = "five"
			case "stopped":
				// One that only answers must not make it anew either.
				observer, _ = b.another(Config{Shared: true, Observe: true})
				first, _ = b.another(Config{Shared: true})
				b.indexer = first
				for _, x := range []*Indexer{first, observer} {
					b.eventually("ready", func() bool { return x.Ready() == nil })
				}
			}
			b.eventually("built again", func() bool {
				stats, err := b.store.Stats(b.ctx(), info.Name)
				return err == nil && stats.Documents == len(want)
			})
			after := b.append(upsert("f", "six"))
			want["f"] = "six"
			for _, x := range []*Indexer{first, observer} {
				if err := x.WaitApplied(b.ctx(), Live, after); err != nil {
					t.Fatal(err)
				}
			}
			b.compare(want)
		})
	}
}

// TestAPartialGenerationThatWasLostIsTheSamePartAgain: it is built again as it was asked for, not as a view of the whole log at the full price.
func TestAPartialGenerationThatWasLostIsTheSamePartAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.stop()
	b.start(Config{Shared: true})
	b.eventually("ready", func() bool { return b.indexer.Ready() == nil })
	var changes []stream.Change
	for i := range 40 {
		changes = append(changes, upsert(fmt.Sprint("doc", i), "some text"))
	}
	b.settle(changes...)
	extent := Extent{Sample: .25, From: time.Now().Add(-time.Hour).UTC()}
	if _, err := b.indexer.Replay(b.ctx(), Replay{Name: "part", Recipe: b.indexer.live.Load().recipe, Extent: extent, Share: .5}); err != nil {
		t.Fatal(err)
	}
	// What a process knows of a topic whose partitions were added to, which this log can't be.
	err := b.indexer.change(b.ctx(), func(c *control) error {
		spec := c.Generations["part"]
		spec.Spread = true
		c.Generations["part"] = spec
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	spec := func() Spec {
		b.indexer.mu.Lock()
		defer b.indexer.mu.Unlock()
		return b.indexer.control.Generations["part"]
	}
	built := func() bool {
		info, err := b.indexer.Info("part")
		return err == nil && info.State == StatePartial && info.Progress.Documents > 0
	}
	b.eventually("built", built)
	before := spec()
	if err := b.store.Drop(b.ctx(), "part"); err != nil {
		t.Fatal(err)
	}
	b.eventually("begun again", func() bool { return spec().Group != before.Group })
	b.eventually("built again", built)
	after := spec()
	if !after.Extent.equal(extent) || after.Share != .5 || !after.Spread || after.Fingerprint != before.Fingerprint || after.Origin != before.Origin {
		t.Errorf("it was %+v, and is %+v", before, after)
	}
	info, err := b.indexer.Info("part")
	if err != nil || info.Progress.Documents >= 40 {
		t.Errorf("%d documents, %v", info.Progress.Documents, err)
	}
}
