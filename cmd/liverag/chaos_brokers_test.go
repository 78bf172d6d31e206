package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// brokers is a Kafka of several nodes that a test may kill.
type brokers struct {
	t         testing.TB
	dir       string
	nodes     int
	addresses string
}

// needNodes starts a Kafka of its own for the test: what others use must not be killed. In CI it has to start.
func needNodes(t testing.TB, nodes int) *brokers {
	t.Helper()
	how := ""
	if _, err := exec.LookPath("java"); err != nil {
		how = "there is no java to run a Kafka that may be killed"
	}
	if os.Getenv("KAFKA_JARS") == "" {
		how = "KAFKA_JARS is not set: it names the directory that .ci/kafka keeps Kafka's jars in, and fills if it is empty"
	}
	switch {
	case how != "" && os.Getenv("CI") == "true":
		t.Fatal(how)
	case how != "":
		t.Skip(how)
	}
	b := &brokers{t: t, dir: t.TempDir(), nodes: nodes}
	t.Cleanup(func() {
		if t.Failed() {
			for node := range nodes {
				log, _ := os.ReadFile(filepath.Join(b.dir, fmt.Sprintf("node-%d", node+1), "log"))
				t.Logf("the end of node %d's log:\n%s", node+1, tail(string(log), 1500))
			}
		}
		b.script("stop")
	})
	b.addresses = b.script("start", fmt.Sprint(nodes))
	return b
}

// script runs .ci/kafka on the nodes.
func (b *brokers) script(verb string, args ...string) string {
	b.t.Helper()
	script, err := filepath.Abs(filepath.Join("..", "..", ".ci", "kafka"))
	if err != nil {
		b.t.Fatal(err)
	}
	cmd := exec.Command(script, append([]string{verb, b.dir}, args...)...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		b.t.Errorf("kafka %s %q: %v\n%s", verb, args, err, said.String())
	}
	return strings.TrimSpace(string(out))
}

// client connects to the nodes. Writes wait for as long as the nodes need.
func (b *brokers) client(more ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(b.addresses, ",")...),
		kgo.MetadataMinAge(100 * time.Millisecond), kgo.MetadataMaxAge(time.Second),
		kgo.ProducerBatchMaxBytes(4 << 20), kgo.RetryTimeout(patience), kgo.UnknownTopicRetries(-1),
	}, more...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	return client
}

// topics creates a corpus' topics as liverag would, but for the number of partitions, and waits until every node knows them.
func (b *brokers) topics(corpus string, partitions int32) {
	b.t.Helper()
	client := b.client()
	defer client.Close()
	config := map[string]*string{}
	for key, value := range map[string]string{
		"cleanup.policy": "compact", "retention.ms": "-1", "retention.bytes": "-1", "delete.retention.ms": fmt.Sprint((7 * 24 * time.Hour).Milliseconds()),
		"max.message.bytes": fmt.Sprint(17 << 20),
	} {
		config[key] = kadm.StringPtr(value)
	}
	admin := kadm.NewClient(client)
	for topic, n := range map[string]int32{corpus: partitions, corpus + ".control": 1} {
		if _, err := admin.CreateTopic(deadline(b.t), n, -1, config, topic); err != nil {
			b.t.Fatal(err)
		}
	}
	config = map[string]*string{"cleanup.policy": kadm.StringPtr("delete"), "max.message.bytes": config["max.message.bytes"]}
	if _, err := admin.CreateTopic(deadline(b.t), 1, -1, config, corpus+".dlq"); err != nil {
		b.t.Fatal(err)
	}
	b.inSync(client)
}

// inSync waits until every replica has everything, so that the next node may die.
func (b *brokers) inSync(client *kgo.Client) {
	b.t.Helper()
	admin := kadm.NewClient(client)
	short := ""
	for end := time.Now().Add(2 * patience); ; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		topics, err := admin.ListTopicsWithInternal(ctx)
		cancel()
		short = ""
		for name, detail := range topics {
			for id, p := range detail.Partitions {
				if len(p.ISR) < b.nodes || p.Leader < 0 {
					short = fmt.Sprintf("partition %d of %s has the replicas %v in sync", id, name, p.ISR)
				}
			}
		}
		if err == nil && short == "" {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("the nodes are not in sync: %s %v", short, err)
		}
	}
}

// offsetsOf asks how far the consumer groups of a corpus are, by the group's name and the partition.
func (b *brokers) offsetsOf(ctx context.Context, client *kgo.Client, corpus string) (map[string]int64, error) {
	admin := kadm.NewClient(client)
	groups, err := admin.ListGroups(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for _, group := range groups.Groups() {
		if !strings.HasPrefix(group, "liverag."+corpus+".") {
			continue
		}
		offsets, err := admin.FetchOffsetsForTopics(ctx, group, corpus)
		if err == nil {
			err = offsets.Error()
		}
		if errors.Is(err, kerr.GroupIDNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for partition, at := range offsets[corpus] {
			if at.At >= 0 {
				out[fmt.Sprintf("%s/%d", group, partition)] = at.At
			}
		}
	}
	return out, nil
}

// logged is one record of the log, as a reader sees it who knows nothing of liverag.
type logged struct {
	partition int32
	offset    int64
	value     []byte // nil: deleted
}

// read reads a topic from its beginning to its present ends, in the order of each partition, by key.
func (b *brokers) read(topic string, isolation kgo.IsolationLevel) map[string][]logged {
	b.t.Helper()
	client := b.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords())
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		b.t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	out := map[string][]logged{}
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			b.t.Fatalf("read %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out[string(r.Key)] = append(out[string(r.Key)], logged{r.Partition, r.Offset, r.Value})
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return out
}

// keysOf finds a key for each partition, by Kafka's own hash.
func keysOf(prefix string, partitions int) []string {
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic("")
	keys := make([]string, partitions)
	for i, found := 0, 0; found < partitions; i++ {
		key := fmt.Sprint(prefix, i)
		if p := partitioner.Partition(&kgo.Record{Key: []byte(key)}, partitions); keys[p] == "" {
			keys[p] = key
			found++
		}
	}
	return keys
}

// quantiles describes durations.
func quantiles(all []time.Duration) string {
	if len(all) == 0 {
		return "none"
	}
	at := func(q float64) time.Duration { return quantile(all, q).Round(time.Millisecond) }
	return fmt.Sprintf("n=%d p50 %s p99 %s max %s", len(all), at(.5), at(.99), at(1))
}

// seeded makes the randomness of a test, which LIVERAG_CHAOS_SEED repeats.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(scaled(t, "LIVERAG_CHAOS_SEED", int(time.Now().UnixNano()%1e9)))
	t.Logf("LIVERAG_CHAOS_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 5))
}
