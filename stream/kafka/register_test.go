package kafka

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestRegisterFold makes random logs of attempts, by makers that see the log late and may die before they tidy up, compacts
// them at random, and holds every reader to the state of whoever read everything.
func TestRegisterFold(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var log []*kgo.Record
		add := func(key string, value []byte) {
			log = append(log, &kgo.Record{Topic: "c", Key: []byte(key), Value: value, Offset: int64(len(log))})
		}
		fold := func(records []*kgo.Record) *register {
			r := newRegister(&Log{cfg: Config{Logger: quiet}})
			for _, record := range records {
				if err := r.apply(record); err != nil {
					t.Fatal(err)
				}
			}
			return r
		}
		type attempt struct {
			key      string
			sequence int64
			at       int // offset
		}
		var open []attempt // made, and not tidied up after
		for step := range 5 + rng.IntN(40) {
			switch {
			case len(open) > 0 && rng.IntN(2) == 0:
				// A maker learns whether it won, and tidies up, or dies.
				i := rng.IntN(len(open))
				a := open[i]
				open = append(open[:i], open[i+1:]...)
				if rng.IntN(4) == 0 {
					continue
				}
				before, after := fold(log[:a.at]), fold(log[:a.at+1])
				if after.sequence == before.sequence {
					add(a.key, nil)
					continue
				}
				for key, s := range fold(log).stale {
					if s < a.sequence {
						add(key, nil)
					}
				}
			default:
				// A maker that has folded up to somewhere not far back tries for the next sequence.
				seen := fold(log[:len(log)-rng.IntN(min(len(log), 4)+1)])
				a := attempt{key: fmt.Sprintf("%020d/%d", seen.sequence+1, step), sequence: seen.sequence + 1, at: len(log)}
				body, err := json.Marshal(envelope{Format: envelopeFormat, Sequence: a.sequence, Attempt: fmt.Sprint(step), Value: []byte(a.key)})
				if err != nil {
					t.Fatal(err)
				}
				add(a.key, body)
				open = append(open, a)
			}
		}
		want := fold(log)
		// In the complete log nothing but the next sequence ever wins.
		for i, sequence := range sequences(t, log) {
			if i > 0 && sequence > 0 && fold(log[:i]).sequence+1 < sequence {
				t.Fatalf("seed %d: sequence %d at offset %d skips some", seed, sequence, i)
			}
		}
		for range 20 {
			// Compaction may remove a record that a later one with its key replaces, and a tombstone; never the last record.
			last := map[string]int{}
			for i, r := range log {
				last[string(r.Key)] = i
			}
			clean := rng.IntN(len(log) + 1)
			var compacted []*kgo.Record
			for i, r := range log {
				gone := i < clean && i != len(log)-1 && (last[string(r.Key)] > i && last[string(r.Key)] < clean || r.Value == nil)
				if !gone || rng.IntN(8) == 0 && r.Value != nil {
					compacted = append(compacted, r)
				}
			}
			if got := fold(compacted); got.sequence != want.sequence || string(got.value) != string(want.value) {
				var keys []string
				for _, r := range compacted {
					keys = append(keys, string(r.Key))
				}
				t.Fatalf("seed %d: after a compaction %d %q, want %d %q; left is\n%s", seed, got.sequence, got.value, want.sequence, want.value, strings.Join(keys, "\n"))
			}
		}
	}
}

func sequences(t *testing.T, log []*kgo.Record) []int64 {
	out := make([]int64, len(log))
	for i, r := range log {
		if r.Value == nil {
			continue
		}
		var e envelope
		if err := json.Unmarshal(r.Value, &e); err != nil {
			t.Fatal(err)
		}
		out[i] = e.Sequence
	}
	return out
}

func TestRegisterFormat(t *testing.T) {
	r := newRegister(&Log{cfg: Config{Logger: quiet}})
	if err := r.apply(&kgo.Record{Key: []byte("x"), Value: []byte("not ours")}); err != nil || r.sequence != 0 {
		t.Errorf("a stranger's record: %v", err)
	}
	if err := r.apply(&kgo.Record{Key: []byte("x"), Value: []byte(`{"format":2,"sequence":1}`)}); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("a later format: %v", err)
	}
}
