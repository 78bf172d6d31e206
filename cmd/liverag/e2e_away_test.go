package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/liverag/liverag/stream/streamtest"
)

// TestNoGhostAfterALongAbsence deletes documents while nobody reads the log, and has a real cleaner remove the tombstones too. Nothing in the log says of these documents any more
// that they are gone; the program has to find out before it says that it is ready, or that an answer is as of any time.
func TestNoGhostAfterALongAbsence(t *testing.T) {
	brokers := streamtest.NeedBrokers(t)
	corpus := fmt.Sprintf("away_%d", time.Now().UnixNano())
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		deleteTopics(t, client, corpus, corpus+".dlq", corpus+".control", corpus+".feedback")
		client.Close()
	})
	const partitions = 2
	set := func(s string) *string { return &s }
	if _, err := kadm.NewClient(client).CreateTopic(deadline(t), partitions, 1, map[string]*string{
		"cleanup.policy": set("compact"), "delete.retention.ms": set("4000"), "segment.ms": set("100"),
		"min.cleanable.dirty.ratio": set("0"), "max.compaction.lag.ms": set("100"),
	}, corpus); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--kafka", strings.Join(brokers, ","), "--kafka.replication_factor", "1", "--corpus", corpus}, small...)
	p := startProgram(t, t.TempDir(), args...)
	var gone, kept []string
	for i := range 20 {
		id := fmt.Sprint("doc/", i)
		p.put(id, paragraphs("spectre", 2))
		if i%2 == 0 {
			gone = append(gone, id)
		} else {
			kept = append(kept, id)
		}
	}
	p.applied()
	time.Sleep(1500 * time.Millisecond) // until the moment is stored up to which everything is right: a second, when nothing else is
	p.stop()

	var tombstones []*kgo.Record
	for _, id := range gone {
		tombstones = append(tombstones, &kgo.Record{Topic: corpus, Key: []byte(id)})
	}
	if err := client.ProduceSync(deadline(t), tombstones...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	forget(t, brokers, corpus, partitions, gone)

	began := time.Now()
	p = launch(t, p.data, args...)
	until(t, "answering", func() bool {
		var said struct {
			URL string `json:"url"`
		}
		if json.Unmarshal([]byte(p.out.String()), &said) != nil {
			return false
		}
		p.base = said.URL
		return true
	})
	ghosts := 0
	until(t, "ready", func() bool {
		got, err := p.call("GET", "/retrieve?k=200&mode=lexical&q=spectre", nil)
		if err == nil && got.status == http.StatusOK {
			var f found
			if err := json.Unmarshal(got.body, &f); err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(f.documents(), func(id string) bool { return slices.Contains(gone, id) }) {
				ghosts++
				if strings.Contains(string(got.body), `"as_of":"`) {
					t.Fatalf("an answer with deleted documents is as of a time: %s", got.body)
				}
			}
		}
		ready, err := p.call("GET", "/readyz", nil)
		return err == nil && ready.status == http.StatusOK
	})
	took := time.Since(began)
	for _, mode := range []string{"lexical", "dense", "hybrid"} {
		f := p.ask("spectre", map[string]any{"k": 200, "mode": mode})
		for _, id := range f.documents() {
			if slices.Contains(gone, id) {
				t.Errorf("%s: %s was deleted, and is found", mode, id)
			}
		}
	}
	for _, id := range gone {
		if _, ok := p.get(id); ok {
			t.Errorf("%s was deleted, and is there", id)
		}
	}
	for _, id := range kept {
		if _, ok := p.get(id); !ok {
			t.Errorf("%s is missing", id)
		}
	}
	if n := p.metric("liverag_ghosts_removed_total"); n != float64(len(gone)) {
		t.Errorf("%v ghosts were removed, want %d", n, len(gone))
	}
	if n := p.metric("liverag_chunks_embedded_total"); n > partitions {
		t.Errorf("%v chunks were embedded", n)
	}
	p.applied()
	p.verb("", "verify")
	t.Logf("ready after %s; %d answers before that had deleted documents, each without a time", took, ghosts)
}

// forget has the cleaner remove everything of the keys, tombstones included. It cleans only what is not the newest segment, so there is always something new.
func forget(t *testing.T, brokers []string, topic string, partitions int32, keys []string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for end := time.Now().Add(3 * patience); ; time.Sleep(300 * time.Millisecond) {
		var filler []*kgo.Record
		for id := range partitions {
			filler = append(filler, &kgo.Record{Topic: topic, Partition: id, Key: fmt.Appendf(nil, "filler/%d", id), Value: []byte(`{"text":"keeps the cleaner busy"}`)})
		}
		if err := client.ProduceSync(deadline(t), filler...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		left := 0
		for _, r := range readTopic(t, brokers, topic, filler) {
			if slices.Contains(keys, string(r.Key)) {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d records of what was deleted are still there", left)
		}
	}
}

// readTopic reads a topic from its beginning up to the newest records of its partitions.
func readTopic(t *testing.T, brokers []string, topic string, newest []*kgo.Record) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx := deadline(t)
	var out []*kgo.Record
	for {
		behind := slices.ContainsFunc(newest, func(n *kgo.Record) bool {
			return !slices.ContainsFunc(out, func(r *kgo.Record) bool { return r.Partition == n.Partition && r.Offset >= n.Offset })
		})
		if !behind {
			return out
		}
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		out = append(out, fetches.Records()...)
	}
}
