package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// BenchmarkPut measures what an acknowledged PUT costs: on the disk of the temporary directory, which syncs, and, where there is one, on a file system in memory, where a sync costs nothing.
// All else is the same, so the difference is the price of durability. One client waits for each answer; 32 do so side by side.
func BenchmarkPut(b *testing.B) {
	for _, clients := range []int{1, 32} {
		for _, where := range []string{"disk", "memory"} {
			b.Run(fmt.Sprintf("%d clients/%s", clients, where), func(b *testing.B) {
				data := b.TempDir()
				if where == "memory" {
					var err error
					if data, err = os.MkdirTemp("/dev/shm", "liverag"); err != nil {
						b.Skip("no file system in memory:", err)
					}
					b.Cleanup(func() { os.RemoveAll(data) })
				}
				p := startProgram(b, data, "--embedder", "hash/64")
				var mu sync.Mutex
				var took []time.Duration
				n := 0
				b.ResetTimer()
				var wg sync.WaitGroup
				for range clients {
					wg.Go(func() {
						for {
							mu.Lock()
							n++
							i := n
							mu.Unlock()
							if i > b.N {
								return
							}
							began := time.Now()
							got, err := p.call("PUT", documentPath(fmt.Sprint("document ", rand.IntN(1000))), map[string]any{"text": prose(fmt.Sprint("word", i), 12)})
							if err != nil || got.status != http.StatusAccepted {
								b.Errorf("%d %s %v", got.status, got.body, err)
								return
							}
							mu.Lock()
							took = append(took, time.Since(began))
							mu.Unlock()
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "puts/s")
				for _, share := range []float64{.5, .99} {
					b.ReportMetric(float64(quantile(took, share).Microseconds()), fmt.Sprintf("p%g-µs", 100*share))
				}
			})
		}
	}
}
