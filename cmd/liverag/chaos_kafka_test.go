package main

import (
	"fmt"
	"os"
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
	h := needHistory(t)
	b := needNodes(t, 3)
	t.Run("flat", func(t *testing.T) {
		c := newChaos(t, b, h, seeded(t), "flat")
		for i := range 3 {
			c.indexing = append(c.indexing, &member{name: fmt.Sprint("copy ", i), verb: "up", data: t.TempDir()})
		}
		c.asked = c.indexing
		for _, m := range c.indexing {
			c.start(m)
		}
		c.visible(c.probe("the start"), c.asked...)
		c.watch(60)
		c.rage(chaosLength(t))
		c.settle()
		c.compare()
	})
}
