package main

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// chaosLength is how long faults happen: LIVERAG_CHAOS, a duration, or short enough for every run of the tests.
func chaosLength(t testing.TB) time.Duration {
	t.Helper()
	value := os.Getenv("LIVERAG_CHAOS")
	if value == "" {
		return 20 * time.Second
	}
	length, err := time.ParseDuration(value)
	if err != nil {
		t.Fatalf("LIVERAG_CHAOS: %v", err)
	}
	return length
}

// TestChaosKafka lets three processes index a real history from a Kafka of three nodes while processes and nodes are killed and stalled at random, and holds
// the index to the fold of the log. LIVERAG_CHAOS=5m makes it last, LIVERAG_CHAOS_SEED=N repeats its choices.
func TestChaosKafka(t *testing.T) {
	t.Parallel()
	h := needHistory(t)
	b := needNodes(t, 3)
	t.Run("flat", func(t *testing.T) {
		c := newChaos(t, b, h, seeded(t), "flat")
		c.copies(3)
		c.visible(c.probe("the start"), c.asked...)
		c.watch(60)
		c.rage(chaosLength(t))
		c.settle()
		c.compare()
	})
	t.Run("milvus", func(t *testing.T) {
		address := needMilvus(t)
		c := newChaos(t, b, h, seeded(t), "milvus")
		c.share(address, 3)
		c.visible(c.probe("the start"), c.asked...)
		c.watch(20) // what two cores can bring into this server beside everything else that runs
		c.rage(chaosLength(t))
		c.settle()
		c.compare()
	})
	for _, store := range []string{"flat", "milvus"} {
		t.Run("partitions added, "+store, func(t *testing.T) {
			c := newChaos(t, b, h, seeded(t), "grown")
			if store == "flat" {
				c.copies(1)
			} else {
				c.share(needMilvus(t), 2)
			}
			fold := c.grow(9)
			c.wayOut()
			for _, m := range c.asked {
				c.holds(m, fold)
			}
		})
	}
}

// needMilvus finds the full Milvus that MILVUS_FULL names.
func needMilvus(t *testing.T) string {
	t.Helper()
	address := os.Getenv("MILVUS_FULL")
	if address == "" {
		const how = "MILVUS_FULL is not set: export MILVUS_FULL=$(.ci/milvus start full /tmp/milvus-full)"
		if os.Getenv("CI") == "true" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	return address
}

// share starts one process that answers from a Milvus and so many that index into it.
func (c *chaos) share(address string, indexers int) {
	c.t.Helper()
	c.t.Cleanup((&cluster{c.t, c.brokers.addresses, address, c.corpus}).clean) // runs when every process is gone, for they are started after it
	c.grouped = true
	c.asked = []*member{{name: "serve", verb: "serve", data: c.t.TempDir(), args: []string{"--milvus", address}}}
	for i := range indexers {
		c.indexing = append(c.indexing, &member{name: fmt.Sprint("indexer ", i), verb: "index", data: c.t.TempDir(), args: []string{"--milvus", address}})
	}
	for _, m := range slices.Concat(c.asked, c.indexing) {
		c.start(m)
	}
}

// copies starts so many processes that each keep a full copy.
func (c *chaos) copies(n int) {
	c.t.Helper()
	for i := range n {
		c.indexing = append(c.indexing, &member{name: fmt.Sprint("copy ", i), verb: "up", data: c.t.TempDir()})
		c.start(c.indexing[i])
	}
	c.asked = c.indexing
}
