package kafka

import (
	"errors"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kadm"
)

// TestPartitionsAdded: who reads and who writes stops as soon as it is known, and a log that is opened with that knowledge puts a document's changes of two
// partitions in the order in which they were written.
func TestPartitionsAdded(t *testing.T) {
	t.Parallel()
	e := openEmbedded(t, EmbeddedConfig{})
	l := openLog(t, Config{Embedded: e, EndsEvery: 20 * time.Millisecond})
	ctx := t.Context()
	moved, stays := "", ""
	for c := 'a'; moved == "" || stays == ""; c++ {
		if id := string(c); partitionOf([]byte(id), 4) == partitionOf([]byte(id), 9) {
			stays = id
		} else {
			moved = id
		}
	}
	if _, err := l.Append(ctx, upsert(moved, "1"), upsert(moved, "2"), upsert(moved, "3"), upsert(stays, "1")); err != nil {
		t.Fatal(err)
	}
	src, err := l.Open(ctx, stream.From{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	drain(t, l, src)
	if _, err := kadm.NewClient(l.client).UpdatePartitions(ctx, 9, "documents"); err != nil {
		t.Fatal(err)
	}
	src.(*source).verify(ctx)
	for err == nil {
		_, err = src.Next(ctx)
	}
	if !errors.Is(err, stream.ErrLogChanged) {
		t.Errorf("a source ends with %v", err)
	}
	if _, err := l.Append(ctx, upsert(moved, "to the old place")); !errors.Is(err, stream.ErrLogChanged) {
		t.Errorf("an append is answered with %v", err)
	}

	l = openLog(t, Config{Embedded: e, EndsEvery: 20 * time.Millisecond})
	if _, err := l.Append(ctx, stream.Change{Kind: stream.Delete, ID: moved}, upsert(stays, "2")); err != nil {
		t.Fatal(err)
	}
	if src, err = l.Open(ctx, stream.From{Spread: true}); err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	newest := map[string]stream.Change{}
	for _, c := range drain(t, l, src) {
		if c.Version > newest[c.ID].Version {
			newest[c.ID] = c
		}
	}
	if newest[moved].Kind != stream.Delete || newest[moved].Position.Offset != 0 {
		t.Errorf("the newest change of %s is %+v, want its deletion in the new partition", moved, newest[moved])
	}
	if c := newest[stays]; c.Document == nil || c.Document.Text != "2" {
		t.Errorf("the newest change of %s is %+v", stays, c)
	}
}
