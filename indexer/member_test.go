package indexer

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/stream/kafka"
	"github.com/liverag/liverag/stream/streamtest"
	"github.com/liverag/liverag/vectordb"
)

// TestAMemberStaysOneWhileEverythingIsPaused holds the model for several times as long as a silent member of the group would keep its partitions: nothing is read, and the member stays
// one and keeps them. When another one joins, they share the partitions at once, though nothing moves.
func TestAMemberStaysOneWhileEverythingIsPaused(t *testing.T) {
	quiet := slog.New(slog.DiscardHandler)
	t.Run("embedded", func(t *testing.T) {
		embedded, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Dir: t.TempDir(), Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { embedded.Close() })
		staysAMember(t, kafka.Config{Embedded: embedded, SessionTimeout: time.Second, RebalanceTimeout: 2 * time.Second, Partitions: 3, ReplicationFactor: 1, Logger: quiet})
	})
	t.Run("cluster", func(t *testing.T) {
		brokers := streamtest.NeedBrokers(t)
		corpus := "t" + strings.ToLower(rand.Text())
		client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_, _ = kadm.NewClient(client).DeleteTopics(context.Background(), corpus, corpus+".dlq", corpus+".control", corpus+".feedback")
			client.Close()
		})
		// 6 s is the least that brokers allow.
		staysAMember(t, kafka.Config{Brokers: brokers, Corpus: corpus, SessionTimeout: 6 * time.Second, RebalanceTimeout: 3 * time.Second, Partitions: 3, ReplicationFactor: 1, Logger: quiet})
	})
}

func staysAMember(t *testing.T, config kafka.Config) {
	log, err := kafka.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	b := &bed{t: t, log: log, store: &store{Memory: vectordb.NewMemory()}, model: &model{Hash: embedder.NewHash(32)}}
	goOn := make(chan struct{})
	b.model.do(func(ctx context.Context, _ []string) error {
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	const changes, documents = 4000, 1500
	b.start(Config{Shared: true, MaxInFlightBytes: 1 << 20})
	b.eventually("ready", func() bool { return b.indexer.Ready() == nil })
	written := make([]stream.Change, changes)
	for n := range written {
		written[n] = upsert(fmt.Sprint("d", n%documents), fmt.Sprintf("version %d %s", n, strings.Repeat("and more ", 30)))
	}
	b.append(written...)
	p := b.indexer.live.Load().pipeline
	b.eventually("paused", p.full)
	owned := func(p *pipeline) (partitions int, terms uint64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.owned), p.terms
	}
	// What was fetched before the pause still comes.
	read, rest := int64(-1), time.Now()
	b.eventually("at rest", func() bool {
		if now := p.counts.changes.Load(); now != read {
			read, rest = now, time.Now()
		}
		return time.Since(rest) > config.SessionTimeout/2
	})
	partitions, terms := owned(p)
	if partitions != 3 {
		t.Fatalf("it has %d of 3 partitions", partitions)
	}
	// What is waited for is that nothing happens.
	time.Sleep(3 * config.SessionTimeout)
	if now, later := owned(p); now != partitions || later != terms {
		t.Errorf("while all was paused for %v its partitions were given out anew: it has %d", 3*config.SessionTimeout, now)
	}
	if now := p.counts.changes.Load(); now != read || !p.full() {
		t.Errorf("it went on reading: %d changes, and then %d", read, now)
	}
	if lag := b.indexer.Status(Live).Pending; lag != changes {
		t.Errorf("it knows of %d changes that are not searchable, of %d", lag, changes)
	}
	first, other := b.indexer, (*Indexer)(nil)
	other, _ = b.another(Config{Shared: true, MaxInFlightBytes: 1 << 20})
	b.eventually("shared", func() bool {
		g := other.live.Load()
		if g == nil {
			return false
		}
		g.mu.Lock()
		second := g.pipeline
		g.mu.Unlock()
		if second == nil {
			return false
		}
		mine, _ := owned(p)
		others, _ := owned(second)
		return mine > 0 && others > 0 && mine+others == 3
	})
	close(goOn)
	b.indexer = first
	b.eventually("searchable", func() bool { return first.Status(Live).Pending == 0 })
	stats, err := b.store.Stats(b.ctx(), first.live.Load().name)
	if err != nil || stats.Documents != documents {
		t.Errorf("%d documents are stored, want %d; %v", stats.Documents, documents, err)
	}
}
