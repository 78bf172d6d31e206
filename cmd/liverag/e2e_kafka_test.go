package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/liverag/liverag/stream/kafka"
	"github.com/liverag/liverag/stream/streamtest"
)

// broker is a broker in the test's own process, on a real port, so that the program reaches it as it reaches any Kafka, and the test can
// write to its topics what no client of ours would write.
type broker struct {
	t        *testing.T
	dir      string
	address  string
	embedded *kafka.Embedded
}

func startBroker(t *testing.T) *broker {
	t.Helper()
	b := &broker{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start() {
	b.t.Helper()
	var err error
	until(b.t, "listening", func() bool { // the port of a broker before it may still be closing
		b.embedded, err = kafka.OpenEmbedded(kafka.EmbeddedConfig{Dir: b.dir, Listen: b.address, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		return err == nil || !strings.Contains(err.Error(), "address already in use")
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.address = b.embedded.Brokers()[0]
}

func (b *broker) stop() {
	if b.embedded != nil {
		b.embedded.Close()
		b.embedded = nil
	}
}

// args are what makes the program use the broker.
func (b *broker) args(more ...string) []string {
	return append([]string{"--kafka", b.address, "--kafka.replication_factor", "1"}, more...)
}

// produce writes records as they are, each to the partition it names.
func (b *broker) produce(records ...*kgo.Record) {
	b.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.address), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		b.t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(deadline(b.t), records...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// letters reads n dead letters.
func (b *broker) letters(topic string, n int) []*kgo.Record {
	b.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.address), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		b.t.Fatal(err)
	}
	defer client.Close()
	ctx := deadline(b.t)
	var out []*kgo.Record
	for len(out) < n {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			b.t.Fatalf("%d of %d dead letters: %v", len(out), n, err)
		}
		out = append(out, fetches.Records()...)
	}
	return out
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func TestPoisonOnTheTopicGoesToTheDeadLetters(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	p := startProgram(t, t.TempDir(), b.args()...)
	p.put("before", "Written before the poison.")
	var records []*kgo.Record
	poison := map[string]*kgo.Record{}
	for partition := range int32(4) {
		for _, bad := range []struct {
			reason     string
			key, value []byte
		}{
			{"not_a_document", []byte("poison-1"), []byte("no JSON at all")},
			{"not_a_document", []byte("poison-2"), []byte(`{"title":"no text"}`)},
			{"unknown_field", []byte("poison-3"), []byte(`{"text":"x","colour":"red"}`)},
			{"wrong_type", []byte("poison-4"), []byte(`{"text":["x"]}`)},
			{"key_missing", nil, []byte(`{"text":"nobody's"}`)},
			{"key_missing", nil, nil},
			{"id_invalid", []byte{}, []byte(`{"text":"x"}`)},
			{"id_invalid", []byte("a\x00b"), []byte(`{"text":"x"}`)},
			{"id_invalid", []byte("\xff\xfe"), []byte(`{"text":"x"}`)},
			{"invalid_utf8", []byte("poison-5"), []byte("{\"text\":\"caf\xe9\"}")},
			{"tenant_mismatch", []byte("poison-6"), []byte(`{"text":"x","tenant":"t"}`)},
		} {
			r := &kgo.Record{Topic: "documents", Partition: partition, Key: bad.key, Value: bad.value, Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte(bad.reason)}}}
			records = append(records, r)
		}
		// A good one at the end of each partition shows that the partition goes on.
		records = append(records, &kgo.Record{Topic: "documents", Partition: partition, Key: fmt.Appendf(nil, "after/%d", partition), Value: []byte(`{"text":"Written after the poison."}`)})
	}
	b.produce(records...)
	p.applied()
	if f := p.ask("written after the poison", map[string]any{"k": 20}); len(unique(f.documents())) != 5 {
		t.Errorf("found %q, want before and the four that came after the poison", f.documents())
	}
	want := 4 * 11
	if n := p.metric("liverag_dead_letters_total"); n != float64(want) {
		t.Errorf("%v dead letters are counted, want %d", n, want)
	}
	for _, r := range records {
		if header(r, "trace") != "" {
			poison[fmt.Sprintf("%d/%d", r.Partition, r.Offset)] = r
		}
	}
	for _, letter := range b.letters("documents.dlq", want) {
		at := header(letter, "liverag-partition") + "/" + header(letter, "liverag-offset")
		r := poison[at]
		if r == nil {
			t.Errorf("a letter of %s, which was good or is there twice", at)
			continue
		}
		delete(poison, at)
		if string(letter.Key) != string(r.Key) || string(letter.Value) != string(r.Value) || (letter.Key == nil) != (r.Key == nil) || (letter.Value == nil) != (r.Value == nil) {
			t.Errorf("%s: the letter holds %q %q, the record %q %q", at, letter.Key, letter.Value, r.Key, r.Value)
		}
		if reason := header(letter, "liverag-reason"); reason != header(r, "trace") || header(letter, "liverag-detail") == "" {
			t.Errorf("%s: %q %q, want %s", at, reason, header(letter, "liverag-detail"), header(r, "trace"))
		}
	}
	if len(poison) > 0 {
		t.Errorf("%d poisonous records have no letter", len(poison))
	}
	// A restart reads no poison again.
	p.stop()
	p = startProgram(t, p.data, b.args()...)
	p.applied()
	if n := p.metric("liverag_dead_letters_total"); n != 0 {
		t.Errorf("after a restart %v letters were sent again", n)
	}
}

// TestTheBatchesOfAForeignProducer: whatever comes in one batch, the last word on a key holds.
func TestTheBatchesOfAForeignProducer(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	p := startProgram(t, t.TempDir(), b.args()...)
	record := func(key, text string) *kgo.Record {
		r := &kgo.Record{Topic: "documents", Partition: 2, Key: []byte(key)}
		if text != "" {
			r.Value = fmt.Appendf(nil, `{"text":%q}`, text)
		}
		return r
	}
	b.produce(
		record("twice", "the first version of twice"), record("twice", "the second version of twice"),
		record("unknown", ""),
		record("reborn", "the old life of reborn"), record("reborn", ""), record("reborn", "the new life of reborn"),
		record("gone", "a short life of gone"), record("gone", ""),
	)
	p.applied()
	for id, want := range map[string]string{"twice": "the second version of twice", "reborn": "the new life of reborn", "unknown": "", "gone": ""} {
		doc, ok := p.get(id)
		if doc.Text != want || ok != (want != "") {
			t.Errorf("%s holds %q (%v), want %q", id, doc.Text, ok, want)
		}
	}
	var texts []string
	for _, h := range p.ask("version life of twice reborn gone unknown", map[string]any{"k": 50}).Hits {
		texts = append(texts, h.Text)
	}
	slices.Sort(texts)
	if !slices.Equal(texts, []string{"the new life of reborn", "the second version of twice"}) {
		t.Errorf("found %q", texts)
	}
}

// TestABrokerThatGoesAndComesBack: the program goes on answering, tells, keeps writes waiting, and recovers by itself.
func TestABrokerThatGoesAndComesBack(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	p := startProgram(t, t.TempDir(), b.args()...)
	p.put("a", "Known before the broker went.")
	b.stop()
	if f := p.ask("known before", nil); len(f.Hits) != 1 {
		t.Errorf("without the broker: %q", f.documents())
	}
	waiting := make(chan answered, 1)
	go func() {
		got, err := p.call("PUT", "/documents/b?wait=20s", `{"text":"Sent while the broker was away."}`)
		if err != nil {
			t.Error(err)
		}
		waiting <- got
	}()
	until(t, "told of", func() bool {
		return strings.Contains(p.err.String(), "does not answer") && strings.Contains(p.err.String(), b.address)
	})
	if got, err := p.call("GET", "/healthz", nil); err != nil || got.status != http.StatusOK {
		t.Errorf("/healthz without the broker: %d, %v", got.status, err)
	}
	for method, path := range map[string]string{"GET": "/freshness", "POST": "/generations"} {
		if got, err := p.call(method, path, `{}`); err != nil || got.status != http.StatusServiceUnavailable || got.code() != "log_unavailable" || got.header.Get("Retry-After") == "" {
			t.Errorf("%s %s without the broker answers %d %s %v", method, path, got.status, got.body, err)
		}
	}
	b.start()
	if got := <-waiting; got.status != http.StatusOK {
		t.Errorf("the write that waited for the broker answers %d %s", got.status, got.body)
	}
	p.put("c", "Written after the broker came back.")
	p.applied()
	if f := p.ask("after the broker came back", nil); !slices.Equal(slices.Sorted(slices.Values(f.documents())), []string{"a", "b", "c"}) {
		t.Errorf("after the broker came back: %q", f.documents())
	}
	until(t, "told that it is back", func() bool { return strings.Contains(p.err.String(), "kafka broker is back") })
}

// TestTokensOfAnotherLog: a token means nothing to a log that did not make it.
func TestTokensOfAnotherLog(t *testing.T) {
	t.Parallel()
	b := startBroker(t)
	p := startProgram(t, t.TempDir(), b.args("--corpus", "one")...)
	other := startProgram(t, t.TempDir(), b.args("--corpus", "two")...)
	token := p.put("a", "Some text.")
	got, err := other.call("POST", "/retrieve", map[string]any{"query": "text", "after": token})
	if err != nil || got.status != http.StatusConflict || got.code() != "token_unknown" {
		t.Errorf("the token of another corpus: %d %s %v", got.status, got.body, err)
	}
	embedded := startProgram(t, t.TempDir())
	if got, err := embedded.call("POST", "/retrieve", map[string]any{"query": "text", "after": []string{embedded.put("x", "y"), token}}); err != nil || got.status != http.StatusConflict || got.code() != "token_unknown" {
		t.Errorf("the token of another log beside a good one: %d %s %v", got.status, got.body, err)
	}
	if f := p.ask("text", map[string]any{"after": token, "strict": true}); !f.Freshness.Satisfied {
		t.Error("its own log does not know it")
	}
}

// TestRealKafka runs the main job on the cluster that KAFKA_BROKERS names.
func TestRealKafka(t *testing.T) {
	t.Parallel()
	brokers := strings.Join(streamtest.NeedBrokers(t), ",")
	corpus := fmt.Sprintf("e2e_%d", time.Now().UnixNano())
	data := t.TempDir()
	args := []string{"--kafka", brokers, "--corpus", corpus}
	t.Cleanup(func() {
		client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...))
		if err != nil {
			t.Error(err)
			return
		}
		defer client.Close()
		deleteTopics(t, client, corpus, corpus+".dlq", corpus+".control", corpus+".feedback")
	})
	p := startProgram(t, data, args...)
	for i := range 50 {
		p.put(fmt.Sprint("d/", i), prose(fmt.Sprint("subject", i), 4))
	}
	p.remove("d/7")
	p.replay("small", map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 40}})
	p.must(nil, "POST", "/generations/small/promote", nil)
	p.put("d/8", "Rewritten.")
	p.kill()
	p = startProgram(t, data, args...)
	p.applied()
	if _, ok := p.get("d/7"); ok {
		t.Error("the deleted document is back")
	}
	if doc, _ := p.get("d/8"); doc.Text != "Rewritten." || doc.Generation != "small" {
		t.Errorf("d/8 holds %q in %s", doc.Text, doc.Generation)
	}
	if n := p.metric("liverag_chunks_embedded_total"); n > 2 { // what was not checkpointed is looked at again
		t.Errorf("the second start embedded %v chunks", n)
	}
	if took := p.stop(); took > 5*time.Second {
		t.Errorf("it took %s to stop", took)
	}
	// On an empty directory everything comes from the log again.
	p = startProgram(t, t.TempDir(), args...)
	p.applied()
	if g := p.live(); g.Name != "small" || g.Progress.Documents != 49 {
		t.Errorf("rebuilt from the log: %s with %d documents", g.Name, g.Progress.Documents)
	}
}

func deleteTopics(t *testing.T, client *kgo.Client, topics ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := kadm.NewClient(client).DeleteTopics(ctx, topics...); err != nil {
		t.Error(err)
	}
}
