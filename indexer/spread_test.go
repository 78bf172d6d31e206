package indexer

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// TestAGenerationKnowsThatPartitionsWereAdded: what was made from the same topic with another number of partitions tells, and whatever is made later remembers.
func TestAGenerationKnowsThatPartitionsWereAdded(t *testing.T) {
	made := func(id string, partitions int32, spread bool) Spec {
		return Spec{Generation: vectordb.Generation{Origin: origin(stream.Identity{Topic: "documents", ID: id, Partitions: partitions})}, Spread: spread}
	}
	now := stream.Identity{Topic: "documents", ID: "x", Partitions: 16}
	for _, test := range []struct {
		name  string
		specs map[string]Spec
		want  bool
	}{
		{"the first one", nil, false},
		{"the same log", map[string]Spec{"a": made("x", 16, false)}, false},
		{"fewer partitions before", map[string]Spec{"a": made("x", 6, false)}, true},
		{"an end that looks alike", map[string]Spec{"a": made("x", 1, false)}, true},
		{"known of before, and the one from then is dropped", map[string]Spec{"a": made("x", 16, true)}, true},
		{"another topic of that name", map[string]Spec{"a": made("y", 6, true)}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := (&control{Generations: test.specs}).spread(now); got != test.want {
				t.Errorf("spread is %v, want %v", got, test.want)
			}
		})
	}
}

// TestTheLaterOfTwoPartitionsWins: a document's changes of two partitions are read in any order, and wait in one line.
func TestTheLaterOfTwoPartitionsWins(t *testing.T) {
	change := func(partition int32, version int64, text string) *stream.Change {
		return &stream.Change{Kind: stream.Upsert, ID: "a", Version: version, Position: stream.Position{Partition: partition, Offset: version & (1<<40 - 1)}, Document: &stream.Document{Text: text}}
	}
	old, late := change(0, 900, "old"), change(7, stream.Version(1, 3), "late")
	for name, order := range map[string][]*stream.Change{"in order": {old, late}, "the other way round": {late, old}} {
		t.Run(name, func(t *testing.T) {
			p := &pipeline{}
			waiting := &task{content: order[0], covers: []cover{{at: order[0].Position}}}
			p.counts = &counts{}
			p.supersede(waiting, &task{content: order[1], covers: []cover{{at: order[1].Position}}})
			if waiting.content != late || len(waiting.earlier) != 1 || waiting.earlier[0] != old || len(waiting.covers) != 2 {
				t.Errorf("%q waits, after %d others, and covers %d changes", waiting.content.Document.Text, len(waiting.earlier), len(waiting.covers))
			}
		})
	}
}

// spread makes the live generation one that knows that partitions were added, and returns how to write where a document was before.
func (b *bed) spread() (before func(id, value string) stream.Position) {
	b.t.Helper()
	err := b.indexer.change(b.ctx(), func(c *control) error {
		spec := c.Generations[c.Live]
		spec.Spread = true
		c.Generations[c.Live] = spec
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.stop()
	b.start(Config{})
	client, err := kgo.NewClient(kgo.SeedBrokers(b.embedded.Brokers()...), kgo.Dialer(b.embedded.Dialer()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(client.Close)
	now := map[string]int32{}
	return func(id, value string) stream.Position {
		b.t.Helper()
		if _, ok := now[id]; !ok {
			now[id] = b.append(stream.Change{Kind: stream.Access, ID: id})[0].Partition
		}
		r := &kgo.Record{Topic: "documents", Partition: (now[id] + 1) % 3, Key: []byte(id), Value: []byte(value)}
		if err := client.ProduceSync(b.ctx(), r).FirstErr(); err != nil {
			b.t.Fatal(err)
		}
		return stream.Position{Partition: r.Partition, Offset: r.Offset}
	}
}

// TestLettersOfTwoPartitions: which of a document's changes is newer is said by their versions, not by their offsets, nor by the order of reading.
func TestLettersOfTwoPartitions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	before := b.spread()
	b.poison("poison")
	g := b.indexer.live.Load().name

	// Two that are in the first partition now, and were in the second.
	var names []string
	for i := 0; len(names) < 2; i++ {
		if id := fmt.Sprint("doc", i); b.append(stream.Change{Kind: stream.Access, ID: id})[0].Partition == 0 {
			names = append(names, id)
		}
	}
	late, early := names[0], names[1]

	// The newest change is poison, and an older one behind much else serves.
	var last []stream.Position
	last = append(last, b.append(upsert(late, "poison that heals"))...)
	first := before(late, `{"text":"poison too"}`)
	b.reach(append(last, first)) // else what comes behind it takes its place, and it is no letter
	for i := range 60 {
		last = append(last, before(late, fmt.Sprintf(`{"text":"old %d"}`, i)))
	}
	// An older change is poison, at a higher offset than the one that serves.
	last = append(last, before(early, `{"text":"poison of before"}`))
	b.reach(last)
	b.reach(b.append(upsert(early, "it is fine")))
	if held := b.current(late); held.Text != "old 59" {
		t.Fatalf("%q is served", held.Text)
	}
	letter := fmt.Sprintf("%d-%d", last[0].Partition, last[0].Offset)
	if r := b.indexer.Rejected(b.ctx(), g, late, b.current(late).Version); r == nil || r.Letter != letter {
		t.Errorf("the newest change is %s, and %+v is said to be rejected", letter, r)
	}
	if r := b.indexer.Rejected(b.ctx(), g, early, b.current(early).Version); r != nil {
		t.Errorf("the newest change is served, and %+v is said to be rejected", r)
	}
	b.poison("")
	tried, err := b.indexer.Redrive(b.ctx(), letter, fmt.Sprintf("%d-%d", first.Partition, first.Offset))
	if err != nil || len(tried) != 2 || tried[0].Outcome != string(stream.Redriven) || tried[1].Outcome != string(stream.Superseded) {
		t.Errorf("%+v, %v", tried, err)
	}
	if held := b.current(late); held.Text != "poison that heals" {
		t.Errorf("%q is served", held.Text)
	}
}

// TestARepairOfAnAccessInAnotherPartition: who may read a document was said last in another partition than its text.
func TestARepairOfAnAccessInAnotherPartition(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	before := b.spread()
	at := []stream.Position{before("doc", `{"text":"a text"}`)}
	at = append(at, b.append(stream.Change{Kind: stream.Access, ID: "doc", ACL: []string{"ann"}})...)
	b.reach(at)
	held := b.current("doc")
	if held.Access.Version != stream.Version(1, at[1].Offset) || held.Version != stream.Version(0, at[0].Offset) {
		t.Fatalf("it holds %d, access %+v", held.Version, held.Access)
	}
	// The store forgets the access.
	b.damage(func(revs map[string]*vectordb.Revision) { revs["doc"].Access = vectordb.Access{} })
	if r := b.verify(Verification{}); r.Stale != 1 {
		t.Fatalf("%+v", r)
	}
	if r := b.verify(Verification{Repair: true}); r.Stale != 1 || r.Repaired != 1 {
		t.Errorf("%+v", r)
	}
	if now := b.current("doc"); now.Access.Version != held.Access.Version {
		t.Errorf("its access is %+v, and was %+v", now.Access, held.Access)
	}
}

// TestAReceiptOfTwoPartitions: what was said last is what counts, whichever partition is read last.
func TestAReceiptOfTwoPartitions(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	before := b.spread()
	for i := range 8 { // in all partitions
		id := fmt.Sprint("doc", i)
		b.reach([]stream.Position{before(id, `{"text":"a text"}`)})
		b.settle(remove(id))
		r, err := b.indexer.Receipt(b.ctx(), "", id, true)
		if err != nil || !r.Deleted || !r.Gone || r.OldRecords != 1 {
			t.Errorf("%s: %+v, %v", id, r, err)
		}
	}
}

// TestAnotherLogsPartitionsDoNotCount: partitions were added to a topic that was here before, whose generations nobody has dropped yet. Versions that come of them would be
// above those that the pipeline gives from then on.
func TestAnotherLogsPartitionsDoNotCount(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.settle(upsert("doc", "a text"))
	err := b.indexer.change(b.ctx(), func(c *control) error {
		spec := c.Generations[c.Live]
		spec.Name, spec.Group, spec.Origin, spec.Spread = "before", "before", "documents/before/3", true
		c.Generations["before"] = spec
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if r := b.verify(Verification{Repair: true}); r.wrong() != 0 {
		t.Errorf("a sound index: %+v", r)
	}
	b.settle(upsert("doc", "another text"))
	if held := b.current("doc"); held.Text != "another text" {
		t.Errorf("%q at version %d is served", held.Text, held.Version)
	}
}
