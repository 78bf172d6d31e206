package indexer

import "testing"

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
