package kafka

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// BenchmarkDurability measures what it costs that an append is on disk before it is acknowledged: the embedded log as it is, and without syncing. One writer waits for each append of 2 KB; 64 do so side by side.
func BenchmarkDurability(b *testing.B) {
	text := strings.Repeat("what changed is what must be found. ", 57)
	for _, writers := range []int{1, 64} {
		for _, kind := range []string{"synced", "unsynced"} {
			b.Run(fmt.Sprintf("%d writers/%s", writers, kind), func(b *testing.B) {
				e := openEmbedded(b, EmbeddedConfig{MaxBytes: 1 << 40})
				if kind == "unsynced" {
					e.cluster.Close()
					l, err := listen("")
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { l.Close() })
					e.listener = l
					if e.cluster, err = kfake.NewCluster(brokerOptions(e.logDir(), l, quiet)...); err != nil {
						b.Fatal(err)
					}
				}
				log := openLog(b, Config{Embedded: e})
				var n atomic.Int64
				b.SetParallelism(writers)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := log.Append(b.Context(), upsert(fmt.Sprint(n.Add(1)), text)); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			})
		}
	}
}

// BenchmarkAcknowledged measures the note that each append leaves before it is acknowledged.
func BenchmarkAcknowledged(b *testing.B) {
	e := openEmbedded(b, EmbeddedConfig{})
	records := make([]*kgo.Record, 1)
	for i := 0; b.Loop(); i++ {
		records[0] = &kgo.Record{Topic: "documents", Partition: int32(i % 4), Offset: int64(i)}
		e.witness.acknowledged(records)
	}
}
