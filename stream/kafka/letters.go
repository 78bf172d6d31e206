package kafka

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kgo"
)

var _ stream.Letters = (*Log)(nil)

// A letter is settled by a record behind it in the dead-letter topic, which names its place and how it was settled. The alternatives don't do: deleting records
// cuts off the beginning of a partition and nothing else; and a compacted topic would need the place as the key, where letters have their document's, and
// would lose those of programs that know nothing of it. A marker is younger than its letter, so retention takes the letter first.

// maxOpenLetters bounds how many open letters are known; the oldest are forgotten beyond, though they stay in the topic.
const maxOpenLetters = 100_000

// letters is what a process knows of the dead-letter topic: a few hundred bytes for each open letter. It is brought up to date when somebody asks.
type letters struct {
	turn    chan struct{} // holds one while somebody is at the rest: who waits for it has a deadline, which a broker that is away must not pass on
	next    int64         // offset in the topic
	open    map[string]*openLetter
	order   []*openLetter // by Sequence; settled ones are still in it for a while
	first   int           // all of order before it are settled
	settled int           // how many of order
	// discarded is known of the last maxOpenLetters, oldest first. One that is rejected again is open, and here too.
	discarded []openLetter
}

// listedDetail bounds what a listed letter says in words; read alone it says all.
const listedDetail = 512

type openLetter struct {
	stream.Letter
	newest  int64 // offset of the newest record of it
	log     string
	settled bool
}

// letterPartition is the only one that letters are written to.
const letterPartition = 0

// letterID spells the place of a rejected record.
func (l *Log) letterID(at stream.Position, log string) string {
	id := fmt.Sprintf("%d-%d", at.Partition, at.Offset)
	if log != "" && log != l.identity.ID {
		id += "@" + log[:min(8, len(log))]
	}
	return id
}

// header is one of those that we gave a record of the dead-letter topic.
func header(r *kgo.Record, key string) string {
	_, ours := splitHeaders(r)
	for i := len(ours) - 1; i >= 0; i-- {
		if ours[i].Key == key {
			return string(ours[i].Value)
		}
	}
	return ""
}

// knowLetters brings what is known of the letters up to date. Until done is called, nobody else changes it.
func (l *Log) knowLetters(ctx context.Context) (known *letters, done func(), err error) {
	k := &l.letters
	select {
	case k.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("dead letters: %w", l.unavailable("read "+l.dlqTopic(), ctx.Err()))
	}
	if err := l.learnLetters(ctx); err != nil {
		<-k.turn
		return nil, nil, err
	}
	return k, func() { <-k.turn }, nil
}

// learnLetters reads what was written to the topic since the last time. It is the caller's turn.
func (l *Log) learnLetters(ctx context.Context) error {
	k := &l.letters
	first, err := l.listOffsets(ctx, l.dlqTopic(), []int32{letterPartition}, earliest)
	if err != nil {
		return err
	}
	last, err := l.listOffsets(ctx, l.dlqTopic(), []int32{letterPartition}, latest)
	if err != nil {
		return err
	}
	begin, end := first[letterPartition], last[letterPartition]
	if k.open == nil || end < k.next { // the topic was made again
		// All but turn, which others are waiting at.
		k.next, k.open, k.order, k.first, k.settled, k.discarded = 0, map[string]*openLetter{}, nil, 0, 0, nil
	}
	for id, o := range k.open {
		if o.newest < begin { // the topic's retention has taken it
			k.close(id)
		}
	}
	k.discarded = slices.DeleteFunc(k.discarded, func(o openLetter) bool { return o.newest < begin })
	if k.next = max(k.next, begin); k.next >= end {
		return nil
	}
	return l.readLetters(ctx, k.next, end, func(r *kgo.Record) bool {
		k.next = r.Offset + 1
		l.learnLetter(r)
		return true
	}, func(next int64) { k.next = max(k.next, next) })
}

// readLetters gives use the topic's records from an offset to another until it returns false. reached is told how far reading has come.
func (l *Log) readLetters(ctx context.Context, from, end int64, use func(*kgo.Record) bool, reached func(int64)) error {
	r, err := l.readFrom(l.dlqTopic(), map[int32]int64{letterPartition: from})
	if err != nil {
		return err
	}
	defer r.close()
	for {
		b, err := r.next(ctx)
		if err != nil {
			return fmt.Errorf("dead letters: %w", l.unavailable("read "+l.dlqTopic(), err))
		}
		for _, record := range b.records {
			if record.Offset >= end || !use(record) {
				return nil
			}
		}
		for _, f := range b.fetched {
			if reached(f.Offset); f.Offset >= end {
				return nil
			}
		}
	}
}

func (l *Log) learnLetter(r *kgo.Record) {
	k := &l.letters
	if !namesPlace(r) {
		return // somebody else wrote it: with the place 0-0 it would hide a letter of ours
	}
	d := deadLetter(r)
	log := header(r, headerLog)
	id := l.letterID(d.Position, log)
	if outcome := header(r, headerSettled); outcome != "" {
		if o := k.open[id]; o != nil && outcome == string(stream.Discarded) {
			k.discarded = append(k.discarded[max(0, len(k.discarded)+1-maxOpenLetters):], *o)
		}
		k.close(id)
		return
	}
	o := k.open[id]
	if o == nil {
		o = &openLetter{Letter: stream.Letter{ID: id, Sequence: r.Offset + 1}, log: log}
		k.open[id] = o
		k.order = append(k.order, o)
	}
	o.newest = r.Offset
	d.Attempts = max(d.Attempts, o.Attempts) // one that is delivered again was tried more often, not less
	size := len(d.Raw.Key) + len(d.Raw.Value)
	for _, h := range d.Raw.Headers {
		size += len(h.Key) + len(h.Value)
	}
	d.Raw, d.Problem.Detail = nil, strings.ToValidUTF8(d.Problem.Detail[:min(len(d.Problem.Detail), listedDetail)], "")
	o.DeadLetter, o.Size, o.RejectedAt = d, size, r.Timestamp.UTC()
	if d.Generation != "" && !slices.Contains(o.Generations, d.Generation) {
		o.Generations = append(slices.Clone(o.Generations), d.Generation) // a List may have returned the old one
	}
	for len(k.open) > maxOpenLetters {
		for k.order[k.first].settled {
			k.first++
		}
		k.close(k.order[k.first].ID)
	}
}

// close forgets an open letter.
func (k *letters) close(id string) {
	o := k.open[id]
	if o == nil {
		return
	}
	delete(k.open, id)
	o.settled = true
	if k.settled++; k.settled > 64 && k.settled > len(k.order)/2 {
		k.order = slices.DeleteFunc(k.order, func(o *openLetter) bool { return o.settled })
		k.first, k.settled = 0, 0
	}
}

// List implements stream.Letters.
func (l *Log) List(ctx context.Context, q stream.LetterQuery) ([]stream.Letter, error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	k, done, err := l.knowLetters(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var out []stream.Letter
	add := func(o *stream.Letter) {
		if o.Sequence > q.After && (q.Code == "" || o.Problem.Code == q.Code) && (q.Key == "" || o.Key == q.Key) && (q.Limit == 0 || q.Discarded || len(out) < q.Limit) {
			out = append(out, *o)
		}
	}
	if !q.Discarded {
		for _, o := range k.order {
			if !o.settled {
				add(&o.Letter)
			}
		}
		return out, nil
	}
	for i := range k.discarded {
		add(&k.discarded[i].Letter)
	}
	slices.SortFunc(out, func(a, b stream.Letter) int { return cmp.Compare(a.Sequence, b.Sequence) })
	if q.Limit > 0 {
		out = out[:min(len(out), q.Limit)]
	}
	return out, nil
}

// Letter implements stream.Letters.
func (l *Log) Letter(ctx context.Context, id string) (stream.Letter, error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	k, done, err := l.knowLetters(ctx)
	if err != nil {
		return stream.Letter{}, err
	}
	defer done()
	o := k.open[id]
	if o == nil {
		return stream.Letter{}, fmt.Errorf("%w: %s", stream.ErrNoLetter, id)
	}
	letter := o.Letter
	err = l.readLetters(ctx, o.newest, o.newest+1, func(r *kgo.Record) bool {
		d := deadLetter(r)
		letter.Raw, letter.Problem = d.Raw, d.Problem
		return false
	}, func(int64) {})
	if err == nil && letter.Raw == nil {
		err = fmt.Errorf("%w: %s: the topic's retention has just taken it", stream.ErrNoLetter, id)
	}
	return letter, err
}

// Records implements stream.Letters. It reads the whole topic.
func (l *Log) Records(ctx context.Context, key string) (n int, err error) {
	first, err := l.listOffsets(ctx, l.dlqTopic(), []int32{letterPartition}, earliest)
	if err != nil {
		return 0, err
	}
	last, err := l.listOffsets(ctx, l.dlqTopic(), []int32{letterPartition}, latest)
	if err != nil || first[letterPartition] >= last[letterPartition] {
		return 0, err
	}
	err = l.readLetters(ctx, first[letterPartition], last[letterPartition], func(r *kgo.Record) bool {
		if header(r, headerSettled) == "" && (header(r, headerDocument) == key || string(r.Key) == key) {
			n++
		}
		return true
	}, func(int64) {})
	return n, err
}

// Settle implements stream.Letters.
func (l *Log) Settle(ctx context.Context, outcome stream.Outcome, ids ...string) error {
	ctx, cancel := l.within(ctx)
	defer cancel()
	k, done, err := l.knowLetters(ctx)
	if err != nil {
		return err
	}
	defer done()
	records := make([]*kgo.Record, len(ids))
	for i, id := range ids {
		o := k.open[id]
		if o == nil {
			return fmt.Errorf("%w: %s", stream.ErrNoLetter, id)
		}
		r := &kgo.Record{Topic: l.dlqTopic(), Partition: letterPartition}
		for _, h := range [][2]string{
			{headerSettled, string(outcome)}, {headerTopic, l.topic}, {headerLog, o.log},
			{headerPartition, itoa(o.Position.Partition)}, {headerOffset, strconv.FormatInt(o.Position.Offset, 10)}, {headerOwn, "0"},
		} {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
		}
		records[i] = r
	}
	if err := l.produce(ctx, records); err != nil {
		return fmt.Errorf("settle dead letters: %w", err)
	}
	return l.learnLetters(ctx)
}
