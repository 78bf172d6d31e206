package kafka

import (
	"strings"
	"testing"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestPassive: whoever only reads beside others creates and writes nothing.
func TestPassive(t *testing.T) {
	t.Parallel()
	e := openEmbedded(t, EmbeddedConfig{})
	if _, err := Open(t.Context(), Config{Embedded: e, Corpus: "articles", Passive: true}); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Fatalf("a topic that is absent: %v", err)
	}
	raw, err := kgo.NewClient(kgo.SeedBrokers(e.Brokers()...), kgo.Dialer(e.Dialer()), kgo.DefaultProduceTopic("articles"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	admin := kadm.NewClient(raw)
	if _, err := admin.CreateTopic(t.Context(), 3, 1, nil, "articles"); err != nil {
		t.Fatal(err)
	}
	if err := raw.ProduceSync(t.Context(), &kgo.Record{Key: []byte("a"), Value: []byte(`{"text":"A"}`)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	l := openLog(t, Config{Embedded: e, Corpus: "articles", Passive: true})
	if got := readAll(t, l, stream.From{}); len(got) != 1 || got[0].ID != "a" {
		t.Errorf("got %+v", got)
	}
	if _, err := l.Append(t.Context(), upsert("a", "x")); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("appending: %v", err)
	}
	topics, err := admin.ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if names := topics.Names(); len(names) != 1 {
		t.Errorf("there are topics %v; only articles was there", names)
	}
}
