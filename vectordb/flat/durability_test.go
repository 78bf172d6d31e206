//go:build unix

package flat

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// BenchmarkDurability measures what syncing costs a write of one document of three chunks: never, as it is (behind the writes, a few times a second), and before each
// write returns.
func BenchmarkDurability(b *testing.B) {
	for _, c := range []struct {
		name    string
		options Options
		sync    bool
	}{
		{"unsynced", Options{NoSync: true}, false},
		{"synced behind", Options{}, false},
		{"synced each", Options{SyncEvery: time.Hour}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := open(b, b.TempDir(), c.options)
			g := about
			g.Dim = 384
			if err := s.Create(b.Context(), g); err != nil {
				b.Fatal(err)
			}
			vectors := newClusters(1, 10, 384)
			r := rand.New(rand.NewPCG(1, 2))
			revisions := make([]vectordb.Revision, 64)
			for i := range revisions {
				revisions[i] = revision("", 1, 3, 384)
				for j := range revisions[i].Entries {
					revisions[i].Entries[j].Vector = vectors.next()
				}
			}
			for i := 0; b.Loop(); i++ {
				rev := revisions[r.IntN(len(revisions))]
				rev.Key, rev.Version = fmt.Sprint("document ", i), int64(i+1)
				if err := s.Apply(b.Context(), g.Name, vectordb.Write{Revisions: []vectordb.Revision{rev}, Checkpoint: map[int32]int64{0: int64(i + 1)}}); err != nil {
					b.Fatal(err)
				}
				if c.sync {
					if err := s.Sync(b.Context(), g.Name); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
		})
	}
}
