package indexer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	runtimemetrics "runtime/metrics"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
)

// reel is a tape whose changes are made when they are read, as records are decoded, so that only who reads holds them.
type reel struct {
	*tape
	n, length int
	change    func(i int) stream.Change
}

func (r *reel) Open(context.Context, stream.From) (stream.Source, error) { return r, nil }

func (r *reel) Next(ctx context.Context) (stream.Batch, error) {
	r.mu.Lock()
	first := r.length > 0 && r.n < r.length
	r.mu.Unlock()
	if !first {
		return r.tape.Next(ctx)
	}
	var batch stream.Batch
	for range min(tapeReads, r.length-r.n) {
		c := r.change(r.n)
		c.Position.Offset = int64(1 + r.n)
		c.Version, c.Time = stream.Version(0, c.Position.Offset), time.Now()
		batch.Changes = append(batch.Changes, c)
		r.n++
	}
	return batch, nil
}

// wide is a model with vectors of many dimensions.
type wide struct{ *model }

func (wide) Dim() int { return 384 }

// held is what the program's heap and stacks hold.
func held() int64 {
	runtime.GC()
	runtime.GC()
	samples := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	runtimemetrics.Read(samples)
	return int64(samples[0].Value.Uint64() + samples[1].Value.Uint64())
}

// TestWhatIsInFlightIsChargedWhatItHolds compares the bytes in flight with those that the program holds for them: changes that wait, those that were superseded, and those that
// are cut and wait for the model.
func TestWhatIsInFlightIsChargedWhatItHolds(t *testing.T) {
	for _, test := range []struct {
		name           string
		changes, among int
		text           int
		strategy       string
		window         int
	}{
		{"short ones that wait", 20_000, 20_000, 100, chunker.Whole, 1},
		{"longer ones that wait", 4_000, 4_000, 4000, chunker.Whole, 1},
		{"superseded", 20_000, 100, 300, chunker.Whole, 1},
		{"short ones with the model", 5_000, 5_000, 100, chunker.Whole, 5_000},
		{"longer ones with the model", 1_000, 1_000, 8000, chunker.Token, 200_000},
	} {
		synctest.Test(t, func(t *testing.T) {
			x, run := newPress(t, embedder.BatchConfig{}, test.strategy)
			x.parts.Embedder = embedder.Batch(wide{x.model}, embedder.BatchConfig{Concurrency: 1, MaxInputs: max(1, test.window/2)})
			x.limit = 1 << 40
			rng := rand.New(rand.NewPCG(1, 1))
			log := &reel{tape: x.tape, change: func(i int) stream.Change {
				text := make([]byte, 0, test.text+8)
				for len(text) < test.text {
					text = fmt.Appendf(text, "%x ", rng.Uint32())
				}
				c := upsert(fmt.Sprint("document-", i%test.among), string(text))
				key, value, headers, problem := stream.EncodeRecord(&c)
				if problem != nil {
					t.Fatal(problem)
				}
				c = stream.DecodeRecord(&stream.Raw{Topic: "documents", Key: key, Value: value, Headers: headers}, nil, 1<<20)
				return c
			}}
			x.log = log
			x.takes(24 * time.Hour)
			x.tape.append(upsert("first", "the one that the model is busy with"))
			run()
			time.Sleep(time.Second)
			before := held()
			x.mu.Lock()
			free := x.inFlight
			x.mu.Unlock()
			x.tape.mu.Lock()
			log.length = test.changes
			x.tape.mu.Unlock()
			x.tape.wake()
			time.Sleep(10 * time.Minute)
			holds := held() - before
			x.mu.Lock()
			charged := x.inFlight - free
			x.mu.Unlock()
			x.mu.Lock()
			inputs := x.windows[fresh][needModel].inputs
			x.mu.Unlock()
			if want := min(test.window, test.changes); inputs < want {
				t.Fatalf("%s: %d inputs are with the model, want %d", test.name, inputs, want)
			}
			vectors := 4 * 384 * int64(inputs) // that are still to come
			n := int64(test.changes)
			t.Logf("%s: each change holds %d bytes, and is charged %d and %d for vectors", test.name, holds/n, (charged-vectors)/n, vectors/n)
			// Stacks are larger under the race detector.
			if charged-vectors < holds*6/10 || charged-vectors > holds*5/2 {
				t.Errorf("%s: %d changes hold %d bytes, and are charged %d beside their vectors", test.name, test.changes, holds, charged-vectors)
			}
		})
	}
}
