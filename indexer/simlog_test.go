package indexer_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/stream"
)

// Times of the simulated cluster. They are short, so that a stall past a session costs few ticks.
const (
	sessionTimeout   = 3 * time.Second
	rebalanceTimeout = 4 * time.Second
	endsEvery        = 250 * time.Millisecond
	verifyEvery      = 2 * time.Second // how often a source asks whether the topic is still the same
	keepsDeletes     = 90 * time.Second
)

var (
	errDead        = errors.New("the process was killed")
	errUnreachable = errors.New("simulated: connection refused")
	errTimeout     = errors.New("simulated: timed out")
	errClosed      = errors.New("source is closed")
)

// broker is a cluster with one corpus: its topic, consumer groups, dead letters and register. It does everything that package stream allows a log to
// do, in memory and on the bubble's clock.
type broker struct {
	w *world

	mu          sync.Mutex
	incarnation int
	partitions  []*topicPartition
	truth       *truth // of this incarnation
	groups      map[string]*group
	letters     map[string]int // by incarnation and position
	value       []byte
	sequence    int64
	changed     chan struct{} // closed and replaced whenever something happened that a source may wait for
}

// topicPartition is the records of one partition; the index is the offset.
type topicPartition struct{ records []logRecord }

type logRecord struct {
	event *event // nil: a control record
	open  *transaction
}

// transaction is a producer's. What it wrote is readable once it was committed, and what follows it is not before it ended.
type transaction struct {
	events []*event
	places []stream.Position
}

func newBroker(w *world, partitions int) *broker {
	b := &broker{w: w, groups: map[string]*group{}, letters: map[string]int{}, changed: make(chan struct{})}
	b.begin(partitions)
	return b
}

// begin makes the topic, again if there was one.
func (b *broker) begin(partitions int) {
	b.incarnation++
	b.partitions = nil
	for range partitions {
		b.partitions = append(b.partitions, &topicPartition{})
	}
	b.truth = newTruth()
	b.w.truths.Store(b.origin(), b.truth)
}

func (b *broker) id() string { return fmt.Sprint("topic", b.incarnation) }

// origin is what a generation of this log is marked with.
func (b *broker) origin() string {
	return fmt.Sprintf("documents/%s/%d", b.id(), len(b.partitions))
}

// wake lets whoever waits look again. b.mu is held.
func (b *broker) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// stable is the first offset that can't be read yet.
func (p *topicPartition) stable() int64 {
	for i := range p.records {
		if p.records[i].open != nil {
			return int64(i)
		}
	}
	return int64(len(p.records))
}

// append writes changes, as an acknowledged producer does. Within a transaction they count only when it is committed.
func (b *broker) append(t *transaction, events ...*event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range events {
		id := partitionOf(e.key, len(b.partitions))
		p := b.partitions[id]
		e.at = stream.Position{Partition: id, Offset: int64(len(p.records))}
		e.version = stream.Version(0, e.at.Offset)
		e.change.Position, e.change.Version, e.change.Time = e.at, e.version, time.Now()
		p.records = append(p.records, logRecord{event: e, open: t})
		if t != nil {
			t.events, t.places = append(t.events, e), append(t.places, e.at)
		} else {
			e.entered = time.Now()
		}
		b.truth.add(e)
	}
	b.wake()
}

// end commits or aborts a transaction. Either leaves a control record in each of its partitions.
func (b *broker) end(t *transaction, commit bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	marked := map[int32]bool{}
	for _, at := range t.places {
		if int(at.Partition) >= len(b.partitions) || at.Offset >= int64(len(b.partitions[at.Partition].records)) || b.partitions[at.Partition].records[at.Offset].open != t {
			continue // the topic was made again meanwhile
		}
		b.partitions[at.Partition].records[at.Offset].open = nil
		if !marked[at.Partition] {
			marked[at.Partition] = true
			b.partitions[at.Partition].records = append(b.partitions[at.Partition].records, logRecord{})
		}
	}
	b.truth.mu.Lock()
	for _, e := range t.events {
		if commit {
			e.entered = time.Now()
		} else {
			e.aborted = true
		}
	}
	b.truth.mu.Unlock()
	b.wake()
}

// compact removes what newer records of the same key replace. What a key's last good content is stays: an index that was built after it is gone could not
// have it, and poison that came later takes nothing away from the others.
func (b *broker) compact() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.truth.mu.Lock()
	defer b.truth.mu.Unlock()
	b.w.event("compaction")
	for _, p := range b.partitions {
		kept := map[string]bool{}
		for i := p.stable() - 1; i >= 0; i-- {
			r := &p.records[i]
			e := r.event
			if e == nil || e.aborted || e.removed.Load() {
				continue
			}
			key := e.key
			if e.change.Kind == stream.Invalid {
				e.removed.Store(kept[key])
				kept[key+"invalid"] = true
				continue
			}
			if e.change.Kind == stream.Access {
				key += stream.AccessSuffix
			}
			e.removed.Store(kept[key] || kept[key+"poison"] && e.poison)
			if !kept[key] && !kept[key+"poison"] && !kept[key+"invalid"] && e.clears() && time.Since(e.entered) > keepsDeletes {
				e.removed.Store(true)
				e.forgotten.Store(true)
				b.w.event("version %d of %s is forgotten", e.version, e.key)
			}
			if e.poison {
				key += "poison"
			}
			kept[key] = true
		}
	}
}

// expire forgets the offsets of groups that nobody is a member of.
func (b *broker) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, g := range b.groups {
		if len(g.members) == 0 {
			b.w.event("the offsets of %s are forgotten", name)
			clear(g.committed)
		}
	}
}

// recreate makes the topic anew.
func (b *broker) recreate() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begin(len(b.partitions))
	b.wake()
}

// grow adds a partition. What is there stays where it is, and new records of the same keys go elsewhere.
func (b *broker) grow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.partitions = append(b.partitions, &topicPartition{})
	b.truth = newTruth()
	b.w.truths.Store(b.origin(), b.truth)
	b.wake()
}

func partitionOf(key string, partitions int) int32 {
	return int32(hash64(key) % uint64(partitions))
}

// group is a consumer group.
type group struct {
	eager     bool // every rebalance takes every partition from everybody
	members   []*source
	owner     map[int32]*source // also while it is being given away
	committed map[int32]int64
}

func (b *broker) group(name string) *group {
	g := b.groups[name]
	if g == nil {
		g = &group{eager: b.w.eager, owner: map[int32]*source{}, committed: map[int32]int64{}}
		b.groups[name] = g
	}
	return g
}

// rebalance brings the owners closer to an even spread, as far as it can at this moment. b.mu is held.
func (b *broker) rebalance(g *group, fresh bool) {
	n := int32(len(b.partitions))
	want := map[int32]*source{}
	if len(g.members) > 0 {
		most := (int(n) + len(g.members) - 1) / len(g.members)
		held := map[*source]int{}
		for p := range n {
			if o := g.owner[p]; o != nil && slices.Contains(g.members, o) && held[o] < most {
				want[p], held[o] = o, held[o]+1
			}
		}
		for p := range n {
			if want[p] != nil {
				continue
			}
			least := slices.MinFunc(g.members, func(a, c *source) int { return held[a] - held[c] })
			want[p], held[least] = least, held[least]+1
		}
	}
	barrier := false
	for p := range n {
		o := g.owner[p]
		if o == nil {
			continue
		}
		part := o.owned[p]
		if !part.leaving && (want[p] != o || g.eager && fresh) {
			part.leaving = true
			o.withdraw(p)
			o.news.revoked = append(o.news.revoked, p)
			b.w.event("group: partition %d is taken from process %d", p, o.process.id)
			b.w.repeats.Add(1)
			b.w.go_(func() { b.overdue(g, o, p, part) })
		}
		barrier = barrier || part.leaving
	}
	if g.eager && barrier {
		b.wake()
		return // nobody gets anything before everybody has given up everything
	}
	for p := range n {
		if g.owner[p] == nil && want[p] != nil {
			want[p].own(p, g.committed[p])
			g.owner[p] = want[p]
		}
	}
	b.wake()
}

// overdue takes a partition from a member that does not come back to give it up.
func (b *broker) overdue(g *group, s *source, p int32, part *ownedPartition) {
	if sleepOr(b.w.ctx, rebalanceTimeout) != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if g.owner[p] != s || s.owned[p] != part {
		return
	}
	b.w.event("group: process %d did not give up partition %d in time", s.process.id, p)
	delete(s.owned, p)
	delete(g.owner, p)
	s.withdraw(p)
	if i := slices.Index(s.news.revoked, p); i >= 0 {
		s.news.revoked = slices.Delete(s.news.revoked, i, i+1)
		s.news.lost = append(s.news.lost, p)
	}
	b.rebalance(g, false)
}

// expel ends a member's session. It learns of that when it is back.
func (b *broker) expel(s *source) {
	g := s.group
	i := slices.Index(g.members, s)
	if i < 0 {
		return
	}
	b.w.event("group: the session of process %d ended", s.process.id)
	b.w.repeats.Add(1)
	g.members = slices.Delete(g.members, i, i+1)
	for p, o := range g.owner {
		if o == s {
			delete(g.owner, p)
		}
	}
	s.expelled = true
	b.rebalance(g, true)
}

// source is one reader of the topic.
type source struct {
	b           *broker
	process     *process
	incarnation string
	group       *group // nil: every partition is its own, and its caller keeps the place
	groupName   string

	// All below is under b.mu.
	owned    map[int32]*ownedPartition
	news     struct{ assigned, revoked, lost, tell []int32 }
	from     map[int32]int64 // where news.assigned start
	told     []int32         // revoked, and given up when Next is called again
	fresh    bool            // see stream.From
	observed time.Time
	verified time.Time
	expelled bool
	closed   bool
}

type ownedPartition struct {
	next, reported  int64
	paused, leaving bool
	begun           bool // it is being delivered
	told            bool // the caller knows that it is its own
}

// own makes a partition the source's. b.mu is held.
func (s *source) own(p int32, at int64) {
	s.owned[p] = &ownedPartition{next: at, reported: at}
	s.news.assigned = append(s.news.assigned, p)
	s.from[p] = at
	s.b.w.event("group: partition %d goes to process %d from %d", p, s.process.id, at)
}

// withdraw keeps a partition that the caller has not been told of from being told. b.mu is held.
func (s *source) withdraw(p int32) {
	s.news.assigned = slices.DeleteFunc(s.news.assigned, func(id int32) bool { return id == p })
}

func (p *port) Open(ctx context.Context, from stream.From) (stream.Source, error) {
	if err := p.call(ctx, "open", nil); err != nil {
		return nil, err
	}
	b := p.w.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.origin() != p.origin {
		return nil, fmt.Errorf("open source: %w: the topic was %s and is %s", stream.ErrLogChanged, p.origin, b.origin())
	}
	if from.Fresh {
		b.w.event("process %d reads on from %v", p.process.id, from.Positions)
		readsOn.Add(1)
	}
	s := &source{b: b, process: p.process, incarnation: p.origin, owned: map[int32]*ownedPartition{}, from: map[int32]int64{}, verified: time.Now(), fresh: from.Fresh}
	if from.Group == "" {
		for id := range b.partitions {
			at := from.Positions[int32(id)]
			if at > int64(len(b.partitions[id].records)) {
				return nil, fmt.Errorf("open source: partition %d: %w", id, stream.ErrPositionUnknown)
			}
			s.own(int32(id), at)
		}
	} else {
		s.group, s.groupName = b.group(from.Group), from.Group
		s.group.members = append(s.group.members, s)
		b.rebalance(s.group, true)
	}
	p.process.opened(s)
	return s, nil
}

// Next implements stream.Source.
func (s *source) Next(ctx context.Context) (stream.Batch, error) {
	if err := s.process.pass(ctx); err != nil {
		return stream.Batch{}, err
	}
	b := s.b
	for first := true; ; first = false {
		b.mu.Lock()
		if first {
			s.back()
		}
		s.rejoin()
		batch, err := s.collect()
		changed := b.changed
		b.mu.Unlock()
		if err != nil {
			return stream.Batch{}, err
		}
		if !batch.empty() {
			// What was taken from the client is delivered, late or not, unless there is nobody any more.
			if err := s.process.pause(ctx, "next"); errors.Is(err, errDead) {
				return stream.Batch{}, err
			}
			s.tell(batch.Assigned)
			return batch.Batch, nil
		}
		timer := time.NewTimer(max(time.Millisecond, endsEvery-time.Since(s.observed)))
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return stream.Batch{}, ctx.Err()
		}
		timer.Stop()
		if err := s.process.pass(ctx); err != nil {
			return stream.Batch{}, err
		}
	}
}

// tell notes that the caller is about to know of partitions.
func (s *source) tell(assigned []stream.Position) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	for _, at := range assigned {
		if part := s.owned[at.Partition]; part != nil {
			part.told = true
		}
	}
}

// back notes that the caller has come back: what it was told to give up it has given up. b.mu is held.
func (s *source) back() {
	if len(s.told) > 0 && !s.expelled {
		for _, p := range s.told {
			if part := s.owned[p]; part != nil && part.leaving {
				delete(s.owned, p)
				delete(s.group.owner, p)
			}
		}
		s.told = nil
		s.b.rebalance(s.group, false)
	}
	s.told = nil
}

// rejoin has a member whose session ended lose everything and join again as somebody new. b.mu is held.
func (s *source) rejoin() {
	if s.expelled && !s.closed {
		s.news.lost = append(s.news.lost, slices.Sorted(maps.Keys(s.owned))...)
		s.news.assigned, s.news.revoked = nil, nil
		clear(s.owned)
		s.expelled = false
		s.group.members = append(s.group.members, s)
		s.b.rebalance(s.group, true)
	}
}

type sourceBatch struct{ stream.Batch }

func (b *sourceBatch) empty() bool {
	return len(b.Changes)+len(b.Fetched)+len(b.Assigned)+len(b.Revoked)+len(b.Lost)+len(b.Ends) == 0
}

// collect takes what there is to tell. b.mu is held.
func (s *source) collect() (sourceBatch, error) {
	b := s.b
	var out sourceBatch
	if s.closed {
		return out, errClosed
	}
	now := time.Now()
	if b.origin() != s.incarnation {
		if now.Sub(s.verified) >= verifyEvery {
			return out, fmt.Errorf("the topic was %s and is %s: %w", s.incarnation, b.origin(), stream.ErrLogChanged)
		}
		return out, nil // the client is told that the topic is unknown, and asks again
	}
	s.verified = now
	for _, p := range s.news.assigned {
		if part := s.owned[p]; part != nil {
			part.begun = true
			out.Assigned = append(out.Assigned, stream.Position{Partition: p, Offset: s.from[p]})
		}
	}
	out.Revoked, out.Lost = s.news.revoked, s.news.lost
	s.told = append(s.told, s.news.revoked...)
	s.news.assigned, s.news.revoked, s.news.lost = nil, nil, nil
	left := 1 + s.process.roll("poll", 40)
	for _, id := range slices.Sorted(maps.Keys(s.owned)) {
		part, p := s.owned[id], b.partitions[id]
		if part.leaving || !part.begun {
			continue
		}
		for stable := p.stable(); !part.paused && part.next < stable && left > 0; part.next++ {
			r := &p.records[part.next]
			if r.event == nil || r.event.removed.Load() || r.event.aborted || s.fresh && r.event.change.Backfill && r.event.change.Kind != stream.Access {
				continue
			}
			left--
			out.Changes = append(out.Changes, *r.event.change)
		}
		if part.next != part.reported {
			part.reported = part.next
			out.Fetched = append(out.Fetched, stream.Position{Partition: id, Offset: part.next})
		}
	}
	if now.Sub(s.observed) >= endsEvery {
		s.observed = now
		for id, part := range s.owned {
			if !part.leaving && part.begun {
				out.Ends = append(out.Ends, stream.End{Partition: id, Offset: int64(len(b.partitions[id].records)), At: now})
			}
		}
	}
	return out, nil
}

func (s *source) Pause(partitions ...int32)  { s.pause(true, partitions) }
func (s *source) Resume(partitions ...int32) { s.pause(false, partitions) }

func (s *source) pause(paused bool, partitions []int32) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	for _, p := range partitions {
		if part := s.owned[p]; part != nil {
			part.paused = paused
		}
	}
	s.b.wake()
}

// Commit implements stream.Source. The broker takes it from a partition's owner only.
func (s *source) Commit(ctx context.Context, next ...stream.Position) error {
	if s.group == nil {
		return nil
	}
	s.b.mu.Lock()
	asked := map[int32]*ownedPartition{} // a partition that is lost and comes back meanwhile is another one
	for id, part := range s.owned {
		if part.told {
			asked[id] = part
		}
	}
	s.b.mu.Unlock()
	return s.process.call(ctx, "commit", func() error {
		s.b.mu.Lock()
		var taken []stream.Position
		for _, at := range next {
			part := s.owned[at.Partition]
			if s.expelled || s.closed || s.b.origin() != s.incarnation || s.group.owner[at.Partition] != s || part == nil || part != asked[at.Partition] {
				continue
			}
			if old := s.group.committed[at.Partition]; at.Offset < old {
				s.b.w.failf("process %d rewound %s in partition %d from %d to %d", s.process.id, s.groupName, at.Partition, old, at.Offset)
			}
			s.group.committed[at.Partition] = at.Offset
			taken = append(taken, at)
		}
		s.b.mu.Unlock()
		for _, at := range taken {
			s.b.w.event("process %d commits %d/%d of %s", s.process.id, at.Partition, at.Offset, generationOf(s.groupName))
			s.process.server.prefix(generationOf(s.groupName), s.incarnation, at.Partition, at.Offset, "committed")
		}
		return nil
	})
}

// Close implements stream.Source. A process that was killed does not get to say good-bye.
func (s *source) Close() error {
	if s.process.pass(context.Background()) != nil {
		return errDead
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.closed {
		return nil
	}
	if s.group != nil {
		s.b.expel(s)
	}
	s.closed = true
	s.process.shut(s)
	s.b.wake()
	return nil
}

// port is a process' connection to the cluster.
type port struct {
	*process
	origin string // of the log that it was opened on
}

var (
	_ stream.Log         = (*port)(nil)
	_ stream.Forgetful   = (*port)(nil)
	_ stream.Groups      = (*port)(nil)
	_ stream.DeadLetters = (*port)(nil)
	_ stream.Register    = (*port)(nil)
)

func (p *port) Append(ctx context.Context, changes ...stream.Change) (stream.Receipt, error) {
	return stream.Receipt{}, errors.New("simulated: an indexer writes no changes")
}

func (p *port) Identity(ctx context.Context) (id stream.Identity, err error) {
	err = p.call(ctx, "identity", func() error {
		b := p.w.broker
		b.mu.Lock()
		defer b.mu.Unlock()
		id = stream.Identity{Topic: "documents", ID: b.id(), Partitions: int32(len(b.partitions))}
		return nil
	})
	return id, err
}

func (p *port) Retention(ctx context.Context) (stream.Retention, error) {
	return stream.Retention{Deletes: keepsDeletes, Documents: true}, p.call(ctx, "retention", nil)
}

func (p *port) Ends(ctx context.Context) (ends []stream.End, err error) {
	at := time.Now()
	err = p.call(ctx, "ends", func() error {
		b := p.w.broker
		b.mu.Lock()
		defer b.mu.Unlock()
		for id, part := range b.partitions {
			ends = append(ends, stream.End{Partition: int32(id), Offset: int64(len(part.records)), At: at})
		}
		return nil
	})
	return ends, err
}

func (p *port) Committed(ctx context.Context, name string) (committed map[int32]int64, err error) {
	err = p.call(ctx, "committed", func() error {
		b := p.w.broker
		b.mu.Lock()
		defer b.mu.Unlock()
		if g := b.groups[name]; g != nil {
			committed = maps.Clone(g.committed)
		}
		return nil
	})
	return committed, err
}

func (p *port) Send(ctx context.Context, letters ...stream.DeadLetter) error {
	return p.call(ctx, "letters", func() error {
		b := p.w.broker
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, l := range letters {
			b.letters[letterName(p.origin, l.Position)]++
		}
		return nil
	})
}

func letterName(origin string, at stream.Position) string {
	return fmt.Sprintf("%s %d/%d", origin, at.Partition, at.Offset)
}

func (p *port) Load(ctx context.Context) (sequence int64, value []byte, err error) {
	err = p.call(ctx, "load", func() error {
		b := p.w.broker
		b.mu.Lock()
		defer b.mu.Unlock()
		sequence, value = b.sequence, b.value
		return nil
	})
	return sequence, value, err
}

func (p *port) CompareAndSet(ctx context.Context, sequence int64, value []byte) error {
	return p.call(ctx, "set", func() error {
		b := p.w.broker
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.sequence != sequence {
			return stream.ErrConflict
		}
		b.sequence++
		b.value = slices.Clone(value)
		b.w.learn(b.sequence, value)
		b.wake()
		return nil
	})
}

func (p *port) Wait(ctx context.Context, above int64) (int64, []byte, error) {
	b := p.w.broker
	for {
		if err := p.pass(ctx); err != nil {
			return 0, nil, err
		}
		b.mu.Lock()
		sequence, value, changed := b.sequence, b.value, b.changed
		b.mu.Unlock()
		if sequence > above {
			return sequence, value, p.pause(ctx, "wait")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

// describe says who owns what in each group.
func (b *broker) describe() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s strings.Builder
	for _, name := range slices.Sorted(maps.Keys(b.groups)) {
		g := b.groups[name]
		fmt.Fprintf(&s, "group %s committed %v:", generationOf(name), g.committed)
		for _, m := range g.members {
			fmt.Fprintf(&s, " member of process %d (told to give up %v)", m.process.id, m.told)
		}
		for id := range b.partitions {
			if o := g.owner[int32(id)]; o != nil {
				fmt.Fprintf(&s, "; %d belongs to process %d: %+v", id, o.process.id, *o.owned[int32(id)])
			}
		}
		s.WriteByte('\n')
	}
	return s.String()
}
