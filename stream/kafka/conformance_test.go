package kafka

import (
	"context"
	"crypto/rand"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/stream/streamtest"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// testDocumentBytes is above what a client and a topic take by default.
const testDocumentBytes = 1 << 20

var quiet = slog.New(slog.DiscardHandler)

func openLog(t testing.TB, cfg Config) *Log {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	l, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func openEmbedded(t testing.TB, cfg EmbeddedConfig) *Embedded {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	e, err := OpenEmbedded(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// harness works on any broker; compact is what differs.
func harness(t *testing.T, cfg Config, compact func(t *testing.T, raw *kgo.Client)) streamtest.Harness {
	cfg.MaxDocumentBytes = testDocumentBytes
	cfg.Logger = quiet
	l := openLog(t, cfg)
	newRaw := func(opts ...kgo.Opt) *kgo.Client {
		base, err := l.cfg.options()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := kgo.NewClient(append(append(base, kgo.DefaultProduceTopic(cfg.Corpus), kgo.ProducerBatchMaxBytes(l.cfg.maxRecordBytes()), kgo.ProducerLinger(0),
			// The client's own partitioner, which is Kafka's default, checks ours.
			kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil))), opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(raw.Close)
		return raw
	}
	raw := newRaw()
	convert := func(records []streamtest.Record) []*kgo.Record {
		out := make([]*kgo.Record, len(records))
		for i, r := range records {
			out[i] = &kgo.Record{Key: r.Key, Value: r.Value, Timestamp: r.Time}
			for _, h := range r.Headers {
				out[i].Headers = append(out[i].Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
		}
		return out
	}
	return streamtest.Harness{
		MaxDocumentBytes: testDocumentBytes,
		Connect: func(t *testing.T) streamtest.Process {
			l := openLog(t, cfg)
			return streamtest.Process{Log: l, Groups: l, Register: l.Control(), DeadLetters: l, Letters: l.ReadDeadLetters, Open: l, Feedback: l.Feedback()}
		},
		Produce: func(t *testing.T, records ...streamtest.Record) {
			t.Helper()
			if err := raw.ProduceSync(t.Context(), convert(records)...).FirstErr(); err != nil {
				t.Fatal(err)
			}
		},
		Transact: func(t *testing.T, commit bool, records ...streamtest.Record) {
			t.Helper()
			client := newRaw(kgo.TransactionalID(rand.Text()))
			if err := client.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := client.ProduceSync(t.Context(), convert(records)...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := client.EndTransaction(t.Context(), kgo.TransactionEndTry(commit)); err != nil {
				t.Fatal(err)
			}
		},
		Compact: func(t *testing.T) { compact(t, raw) },
	}
}

func TestEmbedded(t *testing.T) {
	streamtest.Run(t, func(t *testing.T) streamtest.Harness {
		t.Parallel()
		e := openEmbedded(t, EmbeddedConfig{})
		return harness(t, Config{
			Embedded: e, Corpus: "documents", SessionTimeout: 2 * time.Second, RebalanceTimeout: time.Second, EndsEvery: 100 * time.Millisecond,
		}, func(*testing.T, *kgo.Client) { e.cluster.Compact() })
	})
}

func TestKafka(t *testing.T) {
	brokers := streamtest.NeedBrokers(t)
	streamtest.Run(t, func(t *testing.T) streamtest.Harness {
		t.Parallel()
		corpus := "t" + strings.ToLower(rand.Text())
		cfg := Config{Brokers: brokers, Corpus: corpus, SessionTimeout: 6 * time.Second, RebalanceTimeout: 2 * time.Second}
		h := harness(t, cfg, func(t *testing.T, raw *kgo.Client) { compactKafka(t, raw, corpus) })
		t.Cleanup(func() { dropTopics(brokers, corpus) })
		return h
	})
}

// compactKafka lets segments be closed at once and cleaned soon. Only an append closes a segment, so every partition gets one.
func compactKafka(t *testing.T, raw *kgo.Client, corpus string) {
	admin := kadm.NewClient(raw)
	set := func(name, value string) kadm.AlterConfig { return kadm.AlterConfig{Name: name, Value: &value} }
	if _, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{
		set("segment.ms", "100"), set("min.cleanable.dirty.ratio", "0.01"), set("max.compaction.lag.ms", "100"),
	}, corpus, corpus+".control"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // segments have to grow old by the broker's clock
	for i := range 32 {
		r := &kgo.Record{Topic: corpus, Key: []byte{'z', byte('a' + i)}, Value: []byte(`{"text":""}`)}
		if err := raw.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func dropTopics(brokers []string, corpus string) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, _ = kadm.NewClient(client).DeleteTopics(ctx, corpus, corpus+".dlq", corpus+".control", corpus+".feedback")
}
