package indexer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
	"github.com/twmb/franz-go/pkg/kgo"
)

// verify compares the live generation and fails the test on an error.
func (b *bed) verify(v Verification) Verified {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	report, err := b.indexer.Verify(ctx, v, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return report
}

// damage makes the store hold what edit makes of its revisions, in the live generation: behind everybody's back.
func (b *bed) damage(edit func(revs map[string]*vectordb.Revision)) {
	b.t.Helper()
	g := b.indexer.live.Load()
	revs := map[string]*vectordb.Revision{}
	all, err := b.store.Scan(b.ctx(), g.name, "", 1<<20)
	if err != nil {
		b.t.Fatal(err)
	}
	for i := range all {
		revs[all[i].Key] = &all[i]
	}
	check, err := b.store.Checkpoint(b.ctx(), g.name)
	if err != nil {
		b.t.Fatal(err)
	}
	edit(revs)
	w := vectordb.Write{Checkpoint: check}
	for _, r := range revs {
		w.Revisions = append(w.Revisions, *r)
	}
	if err := errors.Join(b.store.Memory.Drop(b.ctx(), g.name), b.store.Memory.Create(b.ctx(), g.made), b.store.Memory.Apply(b.ctx(), g.name, w)); err != nil {
		b.t.Fatal(err)
	}
}

func TestVerifyFindsAndRepairsEveryDamage(t *testing.T) {
	wrongs := []struct {
		name, kind string
		damage     func(doc *vectordb.Revision, revs map[string]*vectordb.Revision)
	}{
		{"lost", Missing, func(_ *vectordb.Revision, revs map[string]*vectordb.Revision) { delete(revs, "doc") }},
		{"deleted", Missing, func(doc *vectordb.Revision, revs map[string]*vectordb.Revision) {
			revs["doc"] = &vectordb.Revision{Key: "doc", Version: doc.Version, Deleted: true}
		}},
		{"old version", Stale, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) { doc.Version-- }},
		{"old access", Stale, func(_ *vectordb.Revision, revs map[string]*vectordb.Revision) {
			revs["hidden"].Access = vectordb.Access{}
		}},
		{"a ghost's access", Stale, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) {
			doc.Access = vectordb.Access{Version: 1, ACL: []string{"ann"}}
		}},
		{"ghost", Orphaned, func(doc *vectordb.Revision, revs map[string]*vectordb.Revision) {
			ghost := *doc
			ghost.Key, ghost.Version = "gone", revs["gone"].Version-1
			revs["gone"] = &ghost
		}},
		{"never written", Orphaned, func(doc *vectordb.Revision, revs map[string]*vectordb.Revision) {
			ghost := *doc
			ghost.Key = "never"
			revs["never"] = &ghost
		}},
		{"lost tail", Mixed, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) {
			doc.Entries = doc.Entries[:len(doc.Entries)-1]
		}},
		{"kept tail", Mixed, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) {
			doc.Entries = append(doc.Entries, doc.Entries[len(doc.Entries)-1])
		}},
		{"other's text", Mixed, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) {
			doc.Text = strings.Replace(doc.Text, "plain", "plane", 1)
		}},
		{"other's title", Mixed, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) { doc.Title = "of another version" }},
		{"other's metadata", Mixed, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) {
			doc.Metadata = map[string]any{"team": "of another version"}
		}},
		{"other's readers", Mixed, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) { doc.ACL = []string{} }},
		{"swapped hashes", Mixed, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) {
			doc.Entries[0].Hash, doc.Entries[1].Hash = doc.Entries[1].Hash, doc.Entries[0].Hash
		}},
		{"long vector", BadVector, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) {
			v := slices.Clone(doc.Entries[1].Vector)
			for i := range v {
				v[i] *= 1.01
			}
			doc.Entries[1].Vector = v
		}},
		{"no vector", BadVector, func(doc *vectordb.Revision, _ map[string]*vectordb.Revision) {
			doc.Entries[1].Vector = make([]float32, len(doc.Entries[1].Vector))
		}},
	}
	b := newBed(t)
	var all []stream.Change
	for i := range 40 {
		all = append(all, upsert(fmt.Sprint("other", i), sections(2)))
	}
	b.settle(append(all, upsert("doc", "the first"), upsert("gone", "soon gone"), upsert("hidden", "secret"), upsert("empty", ""),
		stream.Change{Kind: stream.Upsert, ID: "page", Document: &stream.Document{Text: "<h1>A</h1><p>page</p>", ContentType: stream.TextHTML}})...)
	b.settle(upsert("doc", sections(3)), remove("gone"), stream.Change{Kind: stream.Access, ID: "hidden", ACL: []string{"ann"}})
	whole := b.fold()
	if r := b.verify(Verification{}); r.wrong() != 0 || !r.Right || r.Documents != 44 || r.Changes != 48 {
		t.Fatalf("a sound index: %+v", r)
	}
	for _, tc := range wrongs {
		t.Run(tc.name, func(t *testing.T) {
			b.damage(func(revs map[string]*vectordb.Revision) { tc.damage(revs["doc"], revs) })
			r := b.verify(Verification{})
			if r.wrong() != 1 || len(r.Findings) != 1 || r.Findings[0].Kind != tc.kind || r.Right || r.Findings[0].Repaired != nil {
				t.Fatalf("found %+v, want one %s", r, tc.kind)
			}
			if small := b.verify(Verification{memory: 8 * foldedOverhead}); small.wrong() != 1 || small.Changes <= r.Changes || small.Documents != r.Documents {
				t.Errorf("in slices: %+v, at once: %+v", small, r)
			}
			if r := b.verify(Verification{Repair: true}); r.wrong() != 1 || r.Repaired != 1 || !r.Right || !*r.Findings[0].Repaired {
				t.Fatalf("repair: %+v", r)
			}
			if r := b.verify(Verification{}); r.wrong() != 0 {
				t.Errorf("after the repair: %+v", r)
			}
			if got := b.fold(); got != whole {
				t.Errorf("after the repair the index holds\n%s\nwant\n%s", got, whole)
			}
		})
	}
	if _, err := b.indexer.Verify(b.ctx(), Verification{Sample: 2}, nil); !errors.Is(err, ErrVerification) {
		t.Errorf("a sample of 2: %v", err)
	}
	if _, err := b.indexer.Verify(b.ctx(), Verification{Generation: "none"}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("no generation: %v", err)
	}
	half := b.verify(Verification{Sample: .5})
	if half.Documents < 5 || half.Documents > 39 {
		t.Errorf("half of 44 documents: %d", half.Documents)
	}
}

// fold spells what the live generation holds.
func (b *bed) fold() string {
	b.t.Helper()
	revs, err := b.store.Scan(b.ctx(), b.indexer.live.Load().name, "", 1<<20)
	if err != nil {
		b.t.Fatal(err)
	}
	var out strings.Builder
	for _, r := range revs {
		if r.Deleted {
			continue // a repair may leave a tombstone where there never was a document
		}
		fmt.Fprintf(&out, "%s %d %q %v", r.Key, r.Version, r.Text, r.Readers())
		for _, e := range r.Entries {
			fmt.Fprintf(&out, " %d-%d %x %.3f", e.Start, e.End, e.Hash, e.Vector)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// TestVerifyRaisesNoAlarmWhileEverythingChanges, and sees the one document that is wrong all the same.
func TestVerifyRaisesNoAlarmWhileEverythingChanges(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("doc", sections(3)), upsert("hot", "0"))
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 2 {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprint("doc", rng.IntN(60))
				c := upsert(id, fmt.Sprint(w, n, " ", sections(1)))
				switch rng.IntN(6) {
				case 0:
					c = remove(id)
				case 1:
					c = stream.Change{Kind: stream.Access, ID: id, ACL: []string{"ann"}}
				}
				if _, err := b.log.Append(b.t.Context(), c, upsert("hot", fmt.Sprint(w, n))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	b.eventually("busy", func() bool { return b.indexer.live.Load().counts.changes.Load() > 300 })
	for range 4 {
		if r := b.verify(Verification{memory: 30 * foldedOverhead}); r.wrong() != 0 {
			t.Errorf("false alarms: %+v", r)
		}
	}
	// The store may not be swapped under the pipeline's feet, so the damage is one that a write does.
	bad := b.current("doc")
	bad.Entries = bad.Entries[:1]
	if err := b.store.Memory.Apply(b.ctx(), b.indexer.live.Load().name, vectordb.Write{Revisions: []vectordb.Revision{bad}, Rewrite: true}); err != nil {
		t.Fatal(err)
	}
	if r := b.verify(Verification{Repair: true}); r.Mixed != 1 || r.wrong() != 1 || !r.Right {
		t.Errorf("damage under writing: %+v", r)
	}
	close(stop)
	writers.Wait()
	if r := b.verify(Verification{}); r.wrong() != 0 {
		t.Errorf("at the end: %+v", r)
	}
}

func TestVerifyKnowsDeadLetters(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("doc", "good"))
	b.poison("poison")
	b.reach(b.append(upsert("doc", "poison one"), upsert("new", "poison two")))
	if r := b.verify(Verification{}); r.wrong() != 0 || r.DeadLettered != 2 {
		t.Errorf("documents whose newest change is a dead letter: %+v", r)
	}
	for _, l := range b.open() {
		if err := b.log.Settle(b.ctx(), stream.Discarded, l.ID); err != nil {
			t.Fatal(err)
		}
	}
	if r := b.verify(Verification{}); r.wrong() != 0 || r.DeadLettered != 2 {
		t.Errorf("discarded letters: %+v", r)
	}
}

// TestVerifySeesWhoMayReadARejectedDocument: the version before the rejected one is served, but to whom the log says now.
func TestVerifySeesWhoMayReadARejectedDocument(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("doc", "good"))
	b.poison("poison")
	b.reach(b.append(upsert("doc", "poison")))
	b.settle(stream.Change{Kind: stream.Access, ID: "doc", ACL: []string{"ann"}})
	b.damage(func(revs map[string]*vectordb.Revision) { revs["doc"].Access = vectordb.Access{} })
	if r := b.verify(Verification{}); r.Stale != 1 || r.wrong() != 1 || r.DeadLettered != 1 {
		t.Errorf("everybody may read what the log says only ann may: %+v", r)
	}
	if r := b.verify(Verification{Repair: true}); r.Repaired != 1 || !r.Right {
		t.Errorf("repaired: %+v", r)
	}
	held := b.current("doc")
	if r := b.verify(Verification{}); r.wrong() != 0 || held.Text != "good" || !slices.Equal(held.Readers(), []string{"ann"}) {
		t.Errorf("afterwards: %+v, %q for %v", r, held.Text, held.Readers())
	}
}

// TestVerifyCountsRecordsThatAreNoChange among the documents whose newest change can't be indexed.
func TestVerifyCountsRecordsThatAreNoChange(t *testing.T) {
	b := newBed(t)
	at := b.append(upsert("doc", "good"))
	client, err := kgo.NewClient(kgo.SeedBrokers(b.embedded.Brokers()...), kgo.Dialer(b.embedded.Dialer()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, key := range []string{"doc", "new", "doc" + stream.AccessSuffix, "no id\xff"} {
		r := &kgo.Record{Topic: "documents", Partition: at[0].Partition, Key: []byte(key), Value: []byte("{")}
		if err := client.ProduceSync(b.ctx(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		b.reach([]stream.Position{{Partition: r.Partition, Offset: r.Offset}})
	}
	if r := b.verify(Verification{}); r.wrong() != 0 || r.DeadLettered != 2 || r.Documents != 1 {
		t.Errorf("%+v", r)
	}
}

// TestVerifyDoesNotCatchUpOnItsRate: what it had to wait is not made up for with a burst.
func TestVerifyDoesNotCatchUpOnItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &verification{Verification: Verification{Rate: 100}, begun: time.Now(), told: time.Now().Add(time.Hour)}
		read := func(n int) time.Duration {
			began := time.Now()
			for range n {
				if err := r.pace(t.Context(), 1); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(began)
		}
		if took := read(200); took < 1900*time.Millisecond {
			t.Errorf("200 at 100 a second took %s", took)
		}
		time.Sleep(time.Minute)
		if took := read(200); took < 1800*time.Millisecond {
			t.Errorf("after a wait, 200 at 100 a second took %s", took)
		}
	})
}

func TestVerifyHoldsItsRate(t *testing.T) {
	b := newBed(t)
	var all []stream.Change
	for i := range 100 {
		all = append(all, upsert(fmt.Sprint("doc", i), "text"))
	}
	b.settle(all...)
	began, told := time.Now(), 0
	if _, err := b.indexer.Verify(b.ctx(), Verification{Rate: 400}, func(Verified) { told++ }); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < 450*time.Millisecond { // 200 of them
		t.Errorf("200 reads at 400 a second took %s", took)
	}
	if told == 0 {
		t.Error("no progress was told")
	}
}
