package kafka

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kgo"
)

// register keeps a value in a compacted topic of one partition.
//
// Each record's value is the whole state; its key is the sequence and a name of the attempt, so that compaction removes
// an attempt only when it is told to. In offset order, the first record with a sequence above the current one wins and
// all others are void: an attempt is made at the sequence after the one its maker had folded, so in the complete log this
// is the first record with the next sequence. A reader of a compacted log may start with a void attempt whose winner is
// gone; the winner that follows it has a higher sequence, and the last winner is never removed, so every reader ends
// with it. Whoever wins removes the attempts below its own, whoever loses its own.
type register struct {
	log *Log

	start  sync.Once
	stop   context.CancelFunc
	done   chan struct{}
	failed error // why done is closed

	mu       sync.Mutex
	sequence int64
	value    []byte
	folded   int64                // the next offset to fold
	pending  map[string]chan bool // attempts of ours: did it win?
	stale    map[string]int64     // keys that are there and no longer of use, with their sequence
	key      string               // of the winner
	changed  chan struct{}        // closed and replaced when folded moves
}

// envelope is what a record holds.
type envelope struct {
	Format   int    `json:"format"`
	Sequence int64  `json:"sequence"`
	Attempt  string `json:"attempt"`
	Value    []byte `json:"value"`
}

const envelopeFormat = 1

// Control is the register in <corpus>.control.
func (l *Log) Control() stream.Register {
	return l.control
}

func newRegister(l *Log) *register {
	return &register{log: l, done: make(chan struct{}), pending: map[string]chan bool{}, stale: map[string]int64{}, changed: make(chan struct{})}
}

// follow begins to fold the topic at the register's first use.
func (r *register) follow() {
	r.start.Do(func() {
		ctx, stop := context.WithCancel(context.Background())
		r.stop = stop
		go func() {
			defer close(r.done)
			r.failed = r.run(ctx)
		}()
	})
}

func (r *register) close() {
	r.start.Do(func() { close(r.done) })
	if r.stop != nil {
		r.stop()
	}
	<-r.done
}

func (r *register) run(ctx context.Context) error {
	var reader *reader
	for reader == nil {
		bounded, cancel := r.log.within(ctx)
		start, err := r.log.listOffsets(bounded, r.log.controlTopic(), []int32{0}, earliest)
		cancel()
		if err == nil {
			reader, err = r.log.readFrom(r.log.controlTopic(), start)
		}
		switch {
		case ctx.Err() != nil:
			return errClosed
		case errors.Is(err, stream.ErrUnavailable):
			select {
			case <-ctx.Done():
			case <-time.After(250 * time.Millisecond):
			}
		case err != nil:
			return err
		}
	}
	defer reader.close()
	for {
		b, err := reader.next(ctx)
		if ctx.Err() != nil {
			return errClosed
		}
		if err != nil {
			return err
		}
		if err := r.fold(b); err != nil {
			return err
		}
	}
}

// fold applies records, and wakes whoever waits if the place moved.
func (r *register) fold(b batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, record := range b.records {
		if err := r.apply(record); err != nil {
			return err
		}
	}
	for _, p := range append(b.assigned, b.fetched...) {
		r.folded = max(r.folded, p.Offset)
	}
	if len(b.fetched)+len(b.assigned) > 0 {
		close(r.changed)
		r.changed = make(chan struct{})
	}
	return nil
}

func (r *register) apply(record *kgo.Record) error {
	key := string(record.Key)
	if record.Value == nil {
		delete(r.stale, key)
		return nil
	}
	var e envelope
	if err := json.Unmarshal(record.Value, &e); err != nil || e.Sequence <= 0 {
		r.log.cfg.Logger.Warn("a record of the control topic is none of ours; passing over it", "topic", record.Topic, "offset", record.Offset)
		return nil
	}
	if e.Format != envelopeFormat {
		return fmt.Errorf("control topic %s: offset %d has format %d, this program knows %d: all processes of a corpus must run versions that agree", record.Topic, record.Offset, e.Format, envelopeFormat)
	}
	won := e.Sequence > r.sequence
	if won {
		if r.key != "" {
			r.stale[r.key] = r.sequence
		}
		r.sequence, r.value, r.key = e.Sequence, e.Value, key
	} else if key != r.key {
		r.stale[key] = e.Sequence
	}
	if wait := r.pending[e.Attempt]; wait != nil {
		wait <- won
		delete(r.pending, e.Attempt)
	}
	return nil
}

// await blocks until everything below the offset is folded.
func (r *register) await(ctx context.Context, offset int64) error {
	for {
		r.mu.Lock()
		folded, changed := r.folded, r.changed
		r.mu.Unlock()
		if folded >= offset {
			return nil
		}
		select {
		case <-changed:
		case <-r.done:
			return fmt.Errorf("control topic: %w", r.failed)
		case <-ctx.Done():
			return r.late(ctx)
		}
	}
}

func (r *register) late(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return r.log.unavailable("control topic", ctx.Err())
}

// Load returns the value as of everything acknowledged before the call.
func (r *register) Load(ctx context.Context) (int64, []byte, error) {
	ctx, cancel := r.log.within(ctx)
	defer cancel()
	r.follow()
	ends, err := r.log.listOffsets(ctx, r.log.controlTopic(), []int32{0}, latest)
	if err != nil {
		return 0, nil, err
	}
	if err := r.await(ctx, ends[0]); err != nil {
		return 0, nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sequence, slices.Clone(r.value), nil
}

// CompareAndSet replaces the value if its sequence still is the given one. After an error other than stream.ErrConflict
// the value may be replaced nevertheless; Load tells.
func (r *register) CompareAndSet(ctx context.Context, sequence int64, value []byte) error {
	ctx, cancel := r.log.within(ctx)
	defer cancel()
	// Only who has folded a sequence may try for the next one: the fold's rule rests on it.
	current, _, err := r.Load(ctx)
	if err != nil {
		return err
	}
	if current != sequence {
		return fmt.Errorf("sequence is %d, not %d: %w", current, sequence, stream.ErrConflict)
	}
	attempt := rand.Text()
	key := fmt.Sprintf("%020d/%s", sequence+1, attempt)
	body, err := json.Marshal(envelope{Format: envelopeFormat, Sequence: sequence + 1, Attempt: attempt, Value: value})
	if err != nil {
		return fmt.Errorf("control topic: %w", err)
	}
	result := make(chan bool, 1)
	r.mu.Lock()
	r.pending[attempt] = result
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.pending, attempt)
	}()
	if err := r.log.produce(ctx, []*kgo.Record{{Topic: r.log.controlTopic(), Key: []byte(key), Value: body}}); err != nil {
		return err
	}
	var won bool
	select {
	case won = <-result:
	case <-r.done:
		return fmt.Errorf("control topic: %w", r.failed)
	case <-ctx.Done():
		return r.late(ctx)
	}
	r.sweep(ctx, sequence, key, won)
	if !won {
		return fmt.Errorf("sequence %d: %w", sequence+1, stream.ErrConflict)
	}
	return nil
}

// sweep removes attempts that are of no use any more. What it fails to remove, a later winner removes.
func (r *register) sweep(ctx context.Context, sequence int64, own string, won bool) {
	var records []*kgo.Record
	remove := func(key string) {
		records = append(records, &kgo.Record{Topic: r.log.controlTopic(), Key: []byte(key)})
	}
	if won {
		r.mu.Lock()
		for key, s := range r.stale {
			if s <= sequence {
				remove(key)
			}
		}
		r.mu.Unlock()
	} else {
		remove(own)
	}
	if err := r.log.produce(ctx, records); err != nil {
		r.log.cfg.Logger.Debug("stale records of the control topic stay for now", "error", err)
	}
}

// Wait blocks until the sequence is above the given one.
func (r *register) Wait(ctx context.Context, above int64) (int64, []byte, error) {
	r.follow()
	for {
		r.mu.Lock()
		sequence, changed := r.sequence, r.changed
		r.mu.Unlock()
		if sequence > above {
			// What was folded may be void if more has been appended and compacted since.
			sequence, value, err := r.Load(ctx)
			switch {
			case err == nil && sequence > above:
				return sequence, value, nil
			case ctx.Err() != nil:
				return 0, nil, ctx.Err()
			case err != nil && !errors.Is(err, stream.ErrUnavailable):
				return 0, nil, err
			}
		}
		select {
		case <-changed:
		case <-r.done:
			return 0, nil, fmt.Errorf("control topic: %w", r.failed)
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}
