package kafka

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestWhatIsTakenBeforeItWasToldWasNeverAssigned has a partition given and taken away between two calls of next. Told of both in one batch, the caller, which
// gives up before it takes over, would keep it for ever.
func TestWhatIsTakenBeforeItWasToldWasNeverAssigned(t *testing.T) {
	for name, lost := range map[string]bool{"revoked": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				r := &reader{
					log: &Log{cfg: Config{RebalanceTimeout: time.Minute}}, ctx: ctx, owned: map[int32]*partition{}, turn: make(chan struct{}), away: true,
				}
				r.assign(map[int32]int64{0: 5, 1: 7})
				given := make(chan struct{})
				go func() { r.giveUp([]int32{1}, lost); close(given) }()
				synctest.Wait()
				r.mu.Lock()
				b := r.collect(kgo.Fetches{})
				r.mu.Unlock()
				if len(b.assigned) != 1 || b.assigned[0].Partition != 0 {
					t.Errorf("assigned: %v", b.assigned)
				}
				if len(b.revoked)+len(b.lost) != 1 {
					t.Errorf("revoked %v, lost %v", b.revoked, b.lost)
				}
				r.mu.Lock()
				r.set(&r.away, false)
				r.mu.Unlock()
				<-given
			})
		})
	}
}
