package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// source is a reader that decodes.
type source struct {
	*reader
	spread, fresh bool // see stream.From
}

var _ stream.Source = (*source)(nil)

// Open opens a source. It fails with stream.ErrPositionUnknown if a position is beyond the log's end, and with stream.ErrLogChanged if the topic is not the
// one that this Log was opened on.
func (l *Log) Open(ctx context.Context, from stream.From) (stream.Source, error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	now, _, err := l.lookup(ctx, false)
	if err != nil {
		return nil, err
	}
	if now != l.identity {
		return nil, fmt.Errorf("open source: %w: topic %s was %s with %d partitions, and is %s with %d", stream.ErrLogChanged, l.topic, l.identity.ID, l.identity.Partitions, now.ID, now.Partitions)
	}
	if from.Group != "" {
		if len(from.Positions) > 0 {
			return nil, errors.New("open source: a group keeps its own positions")
		}
		r, err := l.newReader(l.topic, from.Group, from.Since)
		if err != nil {
			return nil, err
		}
		return &source{r, from.Spread, from.Fresh}, nil
	}
	start, err := l.start(ctx, l.topic, l.partitions(), from.Since)
	if err != nil {
		return nil, err
	}
	ends, err := l.listOffsets(ctx, l.topic, l.partitions(), latest)
	if err != nil {
		return nil, err
	}
	for p, offset := range from.Positions {
		switch {
		case p < 0 || p >= l.identity.Partitions:
			return nil, fmt.Errorf("open source: topic %s has no partition %d: %w", l.topic, p, stream.ErrLogChanged)
		case offset > ends[p]:
			return nil, fmt.Errorf("open source: partition %d of %s ends at %d, before %d: %w", p, l.topic, ends[p], offset, stream.ErrPositionUnknown)
		case !from.Since.IsZero():
			start[p] = max(start[p], offset)
		default:
			start[p] = offset
		}
	}
	r, err := l.readFrom(l.topic, start)
	if err != nil {
		return nil, err
	}
	return &source{r, from.Spread, from.Fresh}, nil
}

// readFrom reads partitions without a group.
func (l *Log) readFrom(topic string, start map[int32]int64) (*reader, error) {
	offsets := map[int32]kgo.Offset{}
	for p, o := range start {
		offsets[p] = kgo.NewOffset().At(o)
	}
	r, err := l.newReader(topic, "", time.Time{}, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))
	if err != nil {
		return nil, err
	}
	r.assign(start)
	return r, nil
}

// start is the first offset of partitions, or the first at or after a time.
func (l *Log) start(ctx context.Context, topic string, partitions []int32, since time.Time) (map[int32]int64, error) {
	if since.IsZero() {
		return l.listOffsets(ctx, topic, partitions, earliest)
	}
	start, err := l.listOffsets(ctx, topic, partitions, since.UnixMilli())
	if err != nil {
		return nil, err
	}
	ends, err := l.listOffsets(ctx, topic, partitions, latest)
	if err != nil {
		return nil, err
	}
	for p, o := range start {
		if o < 0 {
			start[p] = ends[p]
		}
	}
	return start, nil
}

// settle says where partitions that the group has just given us start, and makes them ours.
func (r *reader) settle(ctx context.Context, offsets map[int32]kgo.Offset) (map[int32]kgo.Offset, error) {
	start, err := r.resolve(ctx, offsets)
	if err != nil {
		return nil, err
	}
	settled := map[int32]kgo.Offset{}
	for p, o := range start {
		settled[p] = kgo.NewOffset().At(o)
	}
	r.assign(start)
	return settled, nil
}

// resolve finds the start of partitions whose offset says no more than that there is none.
func (r *reader) resolve(ctx context.Context, offsets map[int32]kgo.Offset) (map[int32]int64, error) {
	start := map[int32]int64{}
	var fresh []int32
	for p, o := range offsets {
		if at := o.EpochOffset().Offset; at >= 0 {
			start[p] = at
		} else {
			fresh = append(fresh, p)
		}
	}
	if len(fresh) == 0 {
		return start, nil
	}
	ctx, cancel := r.log.within(ctx)
	defer cancel()
	first, err := r.log.start(ctx, r.topic, fresh, r.since)
	if err != nil {
		return nil, err
	}
	maps.Copy(start, first)
	return start, nil
}

// Next decodes what the reader reads.
func (s *source) Next(ctx context.Context) (stream.Batch, error) {
	b, err := s.next(ctx)
	if err != nil {
		return stream.Batch{}, err
	}
	out := stream.Batch{Fetched: b.fetched, Assigned: b.assigned, Revoked: b.revoked, Lost: b.lost, Ends: b.ends, Missed: b.missed}
	if len(b.records) > 0 && !s.fresh {
		out.Changes = make([]stream.Change, 0, len(b.records))
	}
	for _, r := range b.records {
		raw := &stream.Raw{Topic: r.Topic, Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			raw.Headers = append(raw.Headers, stream.Header{Key: h.Key, Value: h.Value})
		}
		if s.fresh && raw.Backfill() && !bytes.HasSuffix(raw.Key, []byte(stream.AccessSuffix)) {
			continue
		}
		c := stream.DecodeRecord(raw, s.log.cfg.Mapping, s.log.cfg.MaxDocumentBytes)
		if s.fresh && c.Backfill && c.Kind != stream.Access { // as its mapping says
			continue
		}
		c.Position = stream.Position{Partition: r.Partition, Offset: r.Offset}
		epoch := s.log.cfg.Epoch
		if s.spread && r.Partition == partitionOf(r.Key, s.log.identity.Partitions) {
			epoch++
		}
		c.Version = stream.Version(epoch, r.Offset)
		c.Time = enteredAt(r.Timestamp)
		out.Changes = append(out.Changes, c)
	}
	return out, nil
}

// Pause stops delivery of the partitions' changes from the next call of Next on.
func (s *source) Pause(partitions ...int32) { s.setPaused(partitions, true) }

// Resume undoes Pause. What was appended meanwhile may take as long as a fetch waits, 500 ms.
func (s *source) Resume(partitions ...int32) { s.setPaused(partitions, false) }

// Commit stores the next offsets of a group. It sends them as the member that each partition was given to, in the
// generation known now, so that the broker refuses them if somebody else may own a partition: the client's own commit would
// take the name under which it has joined again meanwhile.
func (s *source) Commit(ctx context.Context, next ...stream.Position) error {
	if s.group == "" || len(next) == 0 {
		return nil
	}
	ctx, cancel := s.log.within(ctx)
	defer cancel()
	s.commits.RLock()
	defer s.commits.RUnlock()
	// A partition that is lost and comes back while this goes on is another one: where it goes on from, the caller does not know yet.
	ours := map[int32]*partition{}
	s.mu.Lock()
	for _, p := range next {
		if part := s.owned[p.Partition]; part != nil && part.told {
			ours[p.Partition] = part
		}
	}
	s.mu.Unlock()
	for {
		member, generation := s.membership()
		topic := kmsg.NewOffsetCommitRequestTopic()
		topic.Topic, topic.TopicID = s.topic, s.log.topicID
		s.mu.Lock()
		for _, p := range next {
			if part := ours[p.Partition]; part != nil && part == s.owned[p.Partition] && part.member == member {
				rp := kmsg.NewOffsetCommitRequestTopicPartition()
				rp.Partition, rp.Offset = p.Partition, p.Offset
				topic.Partitions = append(topic.Partitions, rp)
			}
		}
		s.mu.Unlock()
		if len(topic.Partitions) == 0 {
			return nil
		}
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.MemberID, req.Generation = s.group, member, generation
		req.Topics = append(req.Topics, topic)
		err := s.commit(ctx, req)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.FencedInstanceID):
			// Who was thrown out of the group owns nothing.
			return nil
		case errors.Is(err, kerr.IllegalGeneration):
			if m, g := s.membership(); m == member && g == generation {
				return nil
			}
		case errors.Is(err, kerr.RebalanceInProgress):
		case ctx.Err() != nil, !kerr.IsRetriable(err) && !isTransport(err):
			return s.log.unavailable("commit", err)
		}
		select {
		case <-ctx.Done():
			return s.log.unavailable("commit", err)
		case <-s.ctx.Done():
			return errClosed
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (r *reader) commit(ctx context.Context, req *kmsg.OffsetCommitRequest) error {
	resp, err := req.RequestWith(ctx, r.client)
	if err != nil {
		return err
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close leaves the group and frees the connections.
func (s *source) Close() error {
	s.close()
	return nil
}

// enteredAt is a record's timestamp as far as it can be one: producers set what they like, and a time outside of RFC 3339's years can't be told to anybody.
func enteredAt(t time.Time) time.Time {
	switch t = t.UTC(); {
	case t.Year() < 1970:
		return time.Unix(0, 0).UTC()
	case t.Year() > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	return t
}
