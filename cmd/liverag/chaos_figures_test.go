package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestKafkaFigures measures what docs/RELIABILITY.md reports: how fast one, two and three processes index from six partitions, and how long a change takes to be
// searchable while the partitions change hands. LIVERAG_FIGURES says how many documents are indexed; each phase of the freshness takes twenty seconds.
func TestKafkaFigures(t *testing.T) {
	if os.Getenv("LIVERAG_FIGURES") == "" {
		t.Skip("LIVERAG_FIGURES is not set: it says how many documents are measured with, like 1000")
	}
	documents := scaled(t, "LIVERAG_FIGURES", 1000)
	h := needHistory(t)
	b := needNodes(t, 3)
	for _, store := range []string{"flat", "milvus"} {
		for n := 1; n <= 3; n++ {
			t.Run(fmt.Sprintf("throughput, %s, %d", store, n), func(t *testing.T) {
				c := newChaos(t, b, h, seeded(t), "figures")
				if store == "flat" {
					c.copies(n)
				} else {
					c.share(needMilvus(t), n)
				}
				c.visible(c.probe("the start"), c.asked...)
				c.measureThroughput(documents)
			})
		}
	}
	t.Run("freshness", func(t *testing.T) {
		c := newChaos(t, b, h, seeded(t), "figures")
		c.share(needMilvus(t), 3)
		c.visible(c.probe("the start"), c.asked...)
		c.measureFreshness("quiet", func(until time.Time) { time.Sleep(time.Until(until)) })
		c.measureFreshness("an indexer comes and goes", func(until time.Time) {
			more := &member{name: "one more", verb: "index", data: t.TempDir(), args: c.indexing[0].args}
			for time.Now().Before(until) {
				c.start(more)
				time.Sleep(time.Second)
				more.running().stop()
				time.Sleep(time.Second)
			}
		})
		c.measureFreshness("an indexer is killed", func(until time.Time) {
			c.indexing[2].running().kill()
			time.Sleep(time.Until(until))
		})
	})
}

// measureThroughput writes documents of their own at full speed and waits until all are searchable at everybody.
func (c *chaos) measureThroughput(documents int) {
	c.t.Helper()
	began, written, bytes := time.Now(), 0, 0
	for i := 0; written < documents; i++ {
		h := c.history.records[i%len(c.history.records)]
		if h.value == nil {
			continue
		}
		c.send(historical{fmt.Sprint(i, "/", h.key), h.value}.record(c.corpus))
		written++
		bytes += len(h.value)
	}
	if err := c.client.Flush(deadline(c.t)); err != nil {
		c.t.Fatal(err)
	}
	logged := time.Since(began)
	for _, m := range c.asked {
		for end := time.Now().Add(10 * patience); ; {
			f, ok := c.retrieve(m, map[string]any{"query": "anything", "k": 1, "max_staleness": "0s", "wait": "5s"})
			if ok && f.Freshness.Satisfied {
				break
			}
			if time.Now().After(end) {
				c.t.Fatalf("not indexed after %s\n%s", 10*patience, c.state())
			}
		}
	}
	took := time.Since(began)
	c.t.Logf("%d documents, %.1f MB: written in %s, searchable after %s: %.0f documents/s, %.2f MB/s", written, float64(bytes)/1e6,
		logged.Round(time.Millisecond), took.Round(time.Millisecond), float64(written)/took.Seconds(), float64(bytes)/1e6/took.Seconds())
}

// measureFreshness writes a document every 50 ms, for twenty seconds, and takes down how long each takes to be searchable while something happens.
func (c *chaos) measureFreshness(what string, meanwhile func(until time.Time)) {
	c.t.Helper()
	until := time.Now().Add(20 * time.Second)
	var writes sync.WaitGroup
	var mu sync.Mutex
	var took []time.Duration
	lost := 0
	p := c.asked[0].running()
	ctx, cancel := context.WithDeadline(context.Background(), until)
	defer cancel()
	writes.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			writes.Go(func() {
				began := time.Now()
				got, err := p.call("PUT", documentPath(fmt.Sprint("fresh/", i%97))+"?wait=25s", map[string]any{"text": fmt.Sprintf("Write %d while %s.", i, what)})
				var w written
				mu.Lock()
				defer mu.Unlock()
				if err == nil && got.status == http.StatusOK && json.Unmarshal(got.body, &w) == nil && w.Searchable != nil && *w.Searchable {
					took = append(took, time.Since(began))
				} else {
					lost++
				}
			})
			_ = sleep(ctx, 50*time.Millisecond)
		}
	})
	meanwhile(until)
	writes.Wait()
	if lost > 0 {
		c.t.Errorf("%s: %d writes were not searchable in time", what, lost)
	}
	slices.Sort(took)
	c.t.Logf("%-28s %s", what, quantiles(took))
}
