package embedder_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

// TestACallIsSentOrTakenBack: never both, at whatever moment somebody wants it back.
func TestACallIsSentOrTakenBack(t *testing.T) {
	p := embeddertest.NewProvider()
	p.Latency = 200 * time.Microsecond
	b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 2, MaxInputs: 8})
	var all sync.WaitGroup
	var mu sync.Mutex
	back := map[string]bool{}
	for g := range 16 {
		all.Go(func() {
			for i := range 100 {
				texts := []string{fmt.Sprint("a ", g, " ", i), fmt.Sprint("b ", g, " ", i)}
				usage := &embedder.Usage{}
				ended := make(chan error)
				go func() {
					_, err := b.Embed(embedder.WithUsage(context.Background(), usage), embedder.Index, texts)
					ended <- err
				}()
				for range rand.IntN(3000) {
					_ = fmt.Sprint(i) // for as long as it takes to get that far
				}
				taken := usage.TakeBack()
				err := <-ended
				if taken != errors.Is(err, embedder.ErrTakenBack) || !taken && err != nil {
					t.Errorf("taken back %v: %v", taken, err)
				}
				mu.Lock()
				back[texts[0]], back[texts[1]] = taken, taken
				mu.Unlock()
			}
		})
	}
	all.Wait()
	n := 0
	for _, c := range p.Calls() {
		for _, input := range c.Inputs {
			if n++; back[input] {
				t.Fatalf("%q was taken back, and sent", input)
			}
		}
	}
	if n == 0 || n == len(back) {
		t.Errorf("%d of %d inputs were sent: it was never in doubt", n, len(back))
	}
	if left := b.Leftovers(); left != "" {
		t.Error(left)
	}
}

// TestWhatFailedAndIsWantedBackIsNotSentAgain: a call that was under way when it was wanted back ends when that fails; one that was answered in part goes on.
func TestWhatFailedAndIsWantedBackIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(time.Second)
		b := embedder.Batch(p, embedder.BatchConfig{Concurrency: 1, MaxInputs: 2})
		start := func(texts ...string) (*embedder.Usage, chan error) {
			usage, ended := &embedder.Usage{}, make(chan error, 1)
			go func() {
				_, err := b.Embed(embedder.WithUsage(t.Context(), usage), embedder.Index, texts)
				ended <- err
			}()
			synctest.Wait()
			return usage, ended
		}
		p.fail(unavailable)
		usage, ended := start("fails")
		if usage.TakeBack() {
			t.Error("what is under way was taken back")
		}
		if err := <-ended; !errors.Is(err, embedder.ErrTakenBack) {
			t.Errorf("what failed: %v", err)
		}
		if n := len(p.since(time.Time{})); n != 1 {
			t.Errorf("it was sent %d times", n)
		}
		p.fail(nil)
		time.Sleep(time.Minute)
		usage, ended = start("first", "second", "third")
		time.Sleep(1500 * time.Millisecond) // two are answered, the third is under way
		p.fail(unavailable)
		if usage.TakeBack() {
			t.Error("what was answered in part was taken back")
		}
		time.Sleep(time.Second)
		p.fail(nil)
		if err := <-ended; err != nil {
			t.Errorf("what was answered in part: %v", err)
		}
		// Nor is one that comes when it was taken back already.
		usage = &embedder.Usage{}
		if !usage.TakeBack() {
			t.Error("what was never asked for can't be taken back")
		}
		before := len(p.since(time.Time{}))
		if _, err := b.Embed(embedder.WithUsage(t.Context(), usage), embedder.Index, []string{"late"}); !errors.Is(err, embedder.ErrTakenBack) {
			t.Errorf("a call that was taken back before it came: %v", err)
		}
		if n := len(p.since(time.Time{})); n != before {
			t.Error("a call that was taken back before it came was sent")
		}
		if left := b.Leftovers(); left != "" {
			t.Error(left)
		}
	})
}
