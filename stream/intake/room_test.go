package intake

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/internal/problem"
)

// TestRoom: what does not fit waits until something is given back, and is told to come back when that takes too long. One that is larger than the room gets all of it.
func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(100, 10*time.Second)
		first, second := &share{room: r}, &share{room: r}
		if n, err := first.take(t.Context(), 250); n != 100 || err != nil {
			t.Fatalf("a large one takes %d, %v", n, err)
		}
		began := time.Now()
		_, err := second.take(t.Context(), 1)
		var p *problem.Error
		if !errors.As(err, &p) || p.Code != "overloaded" || p.Status != 503 || p.RetryAfter == 0 || time.Since(began) != 10*time.Second {
			t.Errorf("without room: %v after %s", err, time.Since(began))
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := second.take(gone, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that is gone: %v", err)
		}
		got := make(chan error)
		go func() {
			_, err := second.take(t.Context(), 60)
			got <- err
		}()
		synctest.Wait()
		first.give(60)
		if err := <-got; err != nil {
			t.Errorf("after some was given back: %v", err)
		}
		first.close()
		first.close()
		second.close()
		if n, err := first.take(t.Context(), 100); n != 100 || err != nil {
			t.Errorf("after all was given back: %d, %v", n, err)
		}
		first.close()
	})
}
