package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// reader reads the records of one topic and knows how far it has come: gaps, control records and aborted transactions
// count as read. It is what a source and the register are made of.
type reader struct {
	log    *Log
	topic  string
	group  string
	since  time.Time // where partitions without a committed offset start; zero: at the beginning
	client *kgo.Client
	ready  chan struct{}   // closed when client is set, which its own callbacks may come before
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	done   sync.WaitGroup

	// commits is held for reading during a commit, and for writing when partitions stop being ours: so no commit of a
	// partition is under way once somebody else may own it.
	commits sync.RWMutex

	mu    sync.Mutex
	wake  context.CancelFunc // interrupts the poll that next waits in
	idle  bool               // next waits in a poll and has nothing to deliver
	owned map[int32]*partition
	news  news
	away  bool          // the caller works on a batch
	told  bool          // the caller was told of the partitions that are being given away
	turn  chan struct{} // closed and replaced when one of the two changes
	fatal error
}

// partition is one that the reader owns.
type partition struct {
	next     int64 // the next offset to be read
	reported int64 // what next was when the caller last heard of it
	paused   bool
	leaving  bool   // given away, and the caller may still commit it
	told     bool   // the caller knows that it is ours: what it commits before is from an earlier time
	member   string // who we were in the group when it became ours
	seen     int64  // what next was when the end was observed last
}

// news is what the caller of next has not been told.
type news struct {
	assigned      []stream.Position
	revoked, lost []int32
	ends          map[int32]stream.End
	missed        []int32
}

// batch is what next returns.
type batch struct {
	records       []*kgo.Record
	fetched       []stream.Position
	assigned      []stream.Position
	revoked, lost []int32
	ends          []stream.End
	missed        []int32
}

// pollRecords bounds how much the caller works on between two looks at what changed.
const pollRecords = 256

func (l *Log) newReader(topic, group string, since time.Time, opts ...kgo.Opt) (*reader, error) {
	r := &reader{log: l, topic: topic, group: group, since: since, owned: map[int32]*partition{}, turn: make(chan struct{}), ready: make(chan struct{}), news: news{ends: map[int32]stream.End{}}}
	base, err := l.cfg.options(l.health)
	if err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	record := l.cfg.maxRecordBytes()
	base = append(base,
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.FetchMinBytes(1),
		// The log is compressed: of short records a mebibyte is tens of them in memory, and they are there also while reading is paused.
		kgo.FetchMaxBytes(max(4<<20, record)),
		kgo.FetchMaxPartitionBytes(1<<20),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		// Where to go on from an offset that is not there is for us to say: see missing.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)
	if group != "" {
		base = append(base,
			kgo.ConsumerGroup(group),
			kgo.ConsumeTopics(topic),
			kgo.Balancers(kgo.CooperativeStickyBalancer()),
			kgo.DisableAutoCommit(),
			kgo.SessionTimeout(l.cfg.SessionTimeout),
			kgo.HeartbeatInterval(min(3*time.Second, l.cfg.SessionTimeout/10)),
			kgo.RebalanceTimeout(l.cfg.RebalanceTimeout),
			kgo.AdjustFetchOffsetsFn(func(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
				settled, err := r.settle(ctx, offsets[topic])
				return map[string]map[int32]kgo.Offset{topic: settled}, err
			}),
			kgo.OnPartitionsAssigned(func(ctx context.Context, _ *kgo.Client, _ map[string][]int32) { r.retained(ctx) }),
			kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, ps map[string][]int32) { r.giveUp(ps[topic], false) }),
			kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, ps map[string][]int32) { r.giveUp(ps[topic], true) }),
		)
	}
	if r.client, err = kgo.NewClient(append(base, opts...)...); err != nil {
		r.cancel()
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	close(r.ready)
	r.done.Go(r.observe)
	return r, nil
}

// assign makes partitions ours from the given offsets on.
func (r *reader) assign(from map[int32]int64) {
	member, _ := r.membership()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(from)) {
		if _, ok := r.owned[p]; ok {
			continue
		}
		r.owned[p] = &partition{next: from[p], reported: from[p], seen: -1, member: member}
		r.news.assigned = append(r.news.assigned, stream.Position{Partition: p, Offset: from[p]})
	}
	r.interrupt()
}

// membership is who we are in the group now, and in which generation of it.
func (r *reader) membership() (member string, generation int32) {
	if r.group == "" {
		return "", 0
	}
	<-r.ready
	return r.client.GroupMetadata()
}

// giveUp is called when a rebalance is to begin, with no partitions, and when one takes partitions away. It returns, and so
// lets the rebalance go on, only when the caller of next does not work on a batch and has been told and has come back: it
// finishes and commits in between. The client's own means to this end, BlockRebalanceOnPoll, would make a poll wait for
// this function, and so keep the caller from being told.
//
// A caller that stays away longer than a rebalance may take loses partitions. Where the broker waits for this member, it
// throws it out; where it does not, because only some partitions are to move, they are given up here.
func (r *reader) giveUp(partitions []int32, lost bool) {
	member, _ := r.membership()
	r.mu.Lock()
	var ours []int32
	for _, p := range partitions {
		if part := r.owned[p]; part != nil && !part.leaving {
			// A client that finds itself thrown out when it joins again says nothing, and later calls revoked what it had lost.
			lost = lost || part.member != member
			ours = append(ours, p)
			part.leaving = true
		}
		delete(r.news.ends, p)
	}
	// What the caller was not told of it never had: told of both at once, it would not know which came last.
	r.news.assigned = slices.DeleteFunc(r.news.assigned, func(at stream.Position) bool { return slices.Contains(ours, at.Partition) })
	if lost {
		for _, p := range ours {
			delete(r.owned, p)
		}
	}
	slices.Sort(ours)
	r.told = len(ours) == 0
	if lost {
		r.news.lost = append(r.news.lost, ours...)
	} else {
		r.news.revoked = append(r.news.revoked, ours...)
	}
	r.interrupt()
	var over <-chan time.Time
	if len(ours) > 0 && !lost {
		timer := time.NewTimer(r.log.cfg.RebalanceTimeout)
		defer timer.Stop()
		over = timer.C
	}
	for waiting := true; waiting && (r.away || !r.told); {
		turn := r.turn
		r.mu.Unlock()
		select {
		case <-turn:
		case <-over:
			waiting = false
		case <-r.ctx.Done():
			waiting = false
		}
		r.mu.Lock()
	}
	r.mu.Unlock()

	r.commits.Lock()
	defer r.commits.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range ours {
		delete(r.owned, p)
	}
	if !r.told && !lost {
		r.news.revoked, r.news.lost = nil, append(r.news.lost, ours...)
	}
}

// retained is called after each rebalance, and looks for partitions that the client believes to have kept while it was
// thrown out and joined again. Somebody else may have gone on with them, so they start anew from where the group is.
func (r *reader) retained(ctx context.Context) {
	member, _ := r.membership()
	r.mu.Lock()
	var stale []int32
	for p, part := range r.owned {
		if part.member != member && !part.leaving {
			stale = append(stale, p)
			delete(r.owned, p)
			delete(r.news.ends, p)
		}
	}
	slices.Sort(stale)
	r.news.lost = append(r.news.lost, stale...)
	r.interrupt()
	r.mu.Unlock()
	for len(stale) > 0 && ctx.Err() == nil {
		bounded, cancel := r.log.within(ctx)
		start, err := r.committed(bounded, stale)
		cancel()
		if err == nil {
			offsets := map[int32]kgo.EpochOffset{}
			for p, o := range start {
				offsets[p] = kgo.EpochOffset{Epoch: -1, Offset: o}
			}
			r.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{r.topic: offsets})
			r.assign(start)
			return
		}
		r.log.cfg.Logger.Warn("the group's offsets can't be read; trying again", "group", r.group, "error", err)
		r.pause(time.Second)
	}
}

// committed is where the group is, or where it starts.
func (r *reader) committed(ctx context.Context, partitions []int32) (map[int32]int64, error) {
	offsets, err := kadm.NewClient(r.log.client).FetchOffsetsForTopics(ctx, r.group, r.topic)
	if err != nil {
		return nil, r.log.unavailable("fetch offsets of "+r.group, err)
	}
	at := map[int32]kgo.Offset{}
	for _, p := range partitions {
		at[p] = kgo.NewOffset()
		if o, ok := offsets.Lookup(r.topic, p); ok && o.Err == nil && o.At >= 0 {
			at[p] = kgo.NewOffset().At(o.At)
		}
	}
	return r.resolve(ctx, at)
}

// set changes one of the flags that giveUp waits for. r.mu is held.
func (r *reader) set(flag *bool, to bool) {
	if *flag != to {
		*flag = to
		close(r.turn)
		r.turn = make(chan struct{})
	}
}

// interrupt makes next look at the news. r.mu is held.
func (r *reader) interrupt() {
	if r.wake != nil {
		r.wake()
	}
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fatal == nil {
		r.fatal = err
	}
	r.interrupt()
}

var errClosed = errors.New("source is closed")

// next blocks until there is something to tell.
func (r *reader) next(ctx context.Context) (batch, error) {
	r.mu.Lock()
	r.set(&r.away, false)
	r.mu.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return batch{}, err
		}
		if r.ctx.Err() != nil {
			return batch{}, errClosed
		}
		poll, cancel := context.WithCancel(ctx)
		r.mu.Lock()
		if r.fatal != nil {
			r.mu.Unlock()
			cancel()
			return batch{}, r.fatal
		}
		var wait context.Context // nil: take what is there
		if !r.news.any() {
			wait, r.wake, r.idle = poll, cancel, true
		}
		r.mu.Unlock()
		fetches := r.client.PollRecords(wait, pollRecords)
		cancel()
		r.mu.Lock()
		r.wake, r.idle = nil, false
		b := r.collect(fetches)
		r.set(&r.away, !b.empty())
		r.mu.Unlock()
		r.examine(ctx, fetches)
		if !b.empty() {
			return b, nil
		}
	}
}

func (n *news) any() bool {
	return len(n.assigned)+len(n.revoked)+len(n.lost)+len(n.ends)+len(n.missed) > 0
}

func (b *batch) empty() bool {
	return len(b.records)+len(b.fetched)+len(b.assigned)+len(b.revoked)+len(b.lost)+len(b.ends)+len(b.missed) == 0
}

// collect turns what was polled and what happened meanwhile into a batch. r.mu is held.
func (r *reader) collect(fetches kgo.Fetches) batch {
	var b batch
	fetches.EachPartition(func(ft kgo.FetchTopicPartition) {
		part := r.owned[ft.Partition]
		if ft.Topic != r.topic || part == nil || part.leaving {
			return
		}
		for _, record := range ft.Records {
			if record.Offset < part.next {
				continue
			}
			part.next = record.Offset + 1
			if !record.Attrs.IsControl() {
				b.records = append(b.records, record)
			}
		}
	})
	for _, p := range slices.Sorted(maps.Keys(r.owned)) {
		if part := r.owned[p]; part.next != part.reported && !part.leaving {
			part.reported = part.next
			b.fetched = append(b.fetched, stream.Position{Partition: p, Offset: part.next})
		}
	}
	b.assigned, b.revoked, b.lost, b.missed = r.news.assigned, r.news.revoked, r.news.lost, r.news.missed
	for _, p := range slices.Sorted(maps.Keys(r.news.ends)) {
		b.ends = append(b.ends, r.news.ends[p])
	}
	r.news = news{ends: map[int32]stream.End{}}
	for _, p := range b.assigned {
		if part := r.owned[p.Partition]; part != nil {
			part.told = true
		}
	}
	if len(b.revoked)+len(b.lost) > 0 {
		r.set(&r.told, true)
	}
	return b
}

// examine deals with the errors among what was polled. The client retries by itself whatever may pass.
func (r *reader) examine(ctx context.Context, fetches kgo.Fetches) {
	fetches.EachError(func(topic string, p int32, err error) {
		var loss *kgo.ErrDataLoss
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		case errors.Is(err, kgo.ErrClientClosed):
			r.fail(errClosed)
		case errors.Is(err, kerr.OffsetOutOfRange):
			r.missing(ctx, p)
		case errors.As(err, &loss):
			r.fail(fmt.Errorf("partition %d of %s: %w: %w", p, r.topic, stream.ErrPositionUnknown, err))
		case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.SaslAuthenticationFailed):
			r.fail(r.log.unavailable("read "+r.topic, err))
		case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID), errors.Is(err, kerr.UnknownTopicOrPartition):
			// observe finds out whether the topic is another one now.
		default:
			r.log.cfg.Logger.Debug("kafka client reports", "topic", topic, "partition", p, "error", err)
		}
	})
}

// missing goes on from the log's first offset if the next one was deleted, and tells of it, and gives up if the log does not reach the next one, or if what is
// gone can't be found out in any other way.
func (r *reader) missing(ctx context.Context, p int32) {
	for r.ctx.Err() == nil && ctx.Err() == nil {
		ctx, cancel := r.log.within(ctx)
		first, err := r.log.listOffsets(ctx, r.topic, []int32{p}, earliest)
		var last map[int32]int64
		if err == nil {
			last, err = r.log.listOffsets(ctx, r.topic, []int32{p}, latest)
		}
		var keeps stream.Retention
		if err == nil {
			keeps, err = r.log.Retention(ctx)
		}
		cancel()
		if err != nil {
			r.pause(time.Second)
			continue
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		part := r.owned[p]
		if part == nil || part.leaving {
			return
		}
		if part.next > last[p] {
			r.fatal = fmt.Errorf("partition %d of %s: offset %d of %d: %w", p, r.topic, part.next, last[p], stream.ErrPositionUnknown)
			r.interrupt()
			return
		}
		if part.next < first[p] && r.topic == r.log.topic && !keeps.Documents {
			r.fatal = fmt.Errorf("partition %d of %s, offsets %d to %d: %w: it drops documents by age or size, so what they said can't be found out",
				p, r.topic, part.next, first[p], stream.ErrForgotten)
			r.interrupt()
			return
		}
		if part.next < first[p] {
			r.news.missed = append(r.news.missed, p)
			r.log.cfg.Logger.Warn("the log no longer has what comes next; going on from its first offset", "topic", r.topic, "partition", p, "next", part.next, "first", first[p])
			part.next = first[p]
		}
		r.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{r.topic: {p: {Epoch: -1, Offset: part.next}}})
		r.interrupt()
		return
	}
}

func (r *reader) pause(d time.Duration) {
	select {
	case <-r.ctx.Done():
	case <-time.After(d):
	}
}

// observe looks at the partitions' ends until the reader is closed.
func (r *reader) observe() {
	checked := time.Now()
	for r.ctx.Err() == nil {
		r.mu.Lock()
		partitions := make([]int32, 0, len(r.owned))
		for p, part := range r.owned {
			if !part.leaving {
				partitions = append(partitions, p)
			}
		}
		r.mu.Unlock()
		if len(partitions) > 0 {
			slices.Sort(partitions)
			ctx, cancel := r.log.within(r.ctx)
			at := time.Now()
			if ends, err := r.log.listOffsets(ctx, r.topic, partitions, latest); err == nil {
				r.learn(ctx, ends, at)
			}
			if r.topic == r.log.topic && time.Since(checked) > 5*time.Second {
				r.verify(ctx)
				checked = time.Now()
			}
			cancel()
		}
		r.pause(r.log.cfg.EndsEvery)
	}
}

// verify fails the reader, and appends from now on, if the topic is not the one it was.
func (r *reader) verify(ctx context.Context) {
	id, _, err := r.log.lookup(ctx, false)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		err = fmt.Errorf("topic %s is gone: %w", r.log.topic, stream.ErrLogChanged)
	case err == nil && id.ID != r.log.identity.ID:
		err = fmt.Errorf("topic %s was re-created: %w: build the index anew", r.log.topic, stream.ErrLogChanged)
	case err == nil && id.Partitions != r.log.identity.Partitions:
		err = fmt.Errorf("topic %s has %d partitions instead of %d: %w: documents are spread anew, so build the index anew",
			r.log.topic, id.Partitions, r.log.identity.Partitions, stream.ErrLogChanged)
	default:
		return
	}
	r.log.changed.Store(&err)
	r.fail(err)
}

// learn takes note of observed ends, and looks into partitions that stay short of them although nothing comes.
func (r *reader) learn(ctx context.Context, ends map[int32]int64, at time.Time) {
	stuck := map[int32]int64{}
	r.mu.Lock()
	for p, end := range ends {
		part := r.owned[p]
		if part == nil || part.leaving {
			continue
		}
		r.news.ends[p] = stream.End{Partition: p, Offset: end, At: at}
		if r.idle && !part.paused && part.next < end && part.next == part.seen {
			stuck[p] = part.next
		}
		part.seen = part.next
	}
	r.interrupt()
	r.mu.Unlock()
	for p, from := range stuck {
		to, err := r.probe(ctx, p, from, ends[p])
		if err != nil || to <= from {
			continue
		}
		r.mu.Lock()
		if part := r.owned[p]; part != nil && !part.leaving && part.next == from {
			part.next = to
			r.interrupt()
		}
		r.mu.Unlock()
	}
}

// probe asks the partition's leader for what lies between an offset and the partition's end, and says up to where
// there is nothing to deliver: the client passes over such stretches without a word.
func (r *reader) probe(ctx context.Context, p int32, from, end int64) (int64, error) {
	leader, epoch, err := r.client.PartitionLeader(r.topic, p)
	if err != nil || leader < 0 {
		return from, err
	}
	meta, err := r.log.describe(ctx, r.topic)
	if err != nil {
		return from, err
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel = 0, 0, 1<<20, 1
	req.SessionEpoch = -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = r.topic, meta.TopicID
	fp := kmsg.NewFetchRequestTopicPartition()
	fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes, fp.CurrentLeaderEpoch = p, from, 1<<20, epoch
	t.Partitions = append(t.Partitions, fp)
	req.Topics = append(req.Topics, t)
	kresp, err := r.client.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return from, err
	}
	for _, rt := range kresp.(*kmsg.FetchResponse).Topics {
		for i := range rt.Partitions {
			rp := &rt.Partitions[i]
			if rp.Partition != p {
				continue
			}
			if err := kerr.ErrorForCode(rp.ErrorCode); err != nil {
				return from, err
			}
			if len(rp.RecordBatches) == 0 {
				if rp.LastStableOffset >= end {
					return end, nil
				}
				return from, nil
			}
			fetched, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
				Offset: from, IsolationLevel: kgo.ReadCommitted(), Topic: r.topic, Partition: p,
			}, rp, kgo.DefaultDecompressor(), nil)
			if fetched.Err != nil || len(fetched.Records) > 0 {
				return from, fetched.Err
			}
			return next, nil
		}
	}
	return from, nil
}

// setPaused pauses or resumes the delivery of partitions.
func (r *reader) setPaused(partitions []int32, paused bool) {
	if len(partitions) == 0 {
		return
	}
	r.mu.Lock()
	for _, p := range partitions {
		if part := r.owned[p]; part != nil {
			part.paused = paused
			part.seen = -1
		}
	}
	r.mu.Unlock()
	set := map[string][]int32{r.topic: partitions}
	if paused {
		r.client.PauseFetchPartitions(set)
	} else {
		r.client.ResumeFetchPartitions(set)
	}
}

func (r *reader) close() {
	r.cancel()
	r.mu.Lock()
	r.interrupt()
	r.mu.Unlock()
	r.client.CloseAllowingRebalance()
	r.done.Wait()
}
