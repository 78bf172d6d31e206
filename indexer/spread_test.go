package indexer

import (
	"testing"

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
