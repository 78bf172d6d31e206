package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// source is a reader that decodes.
type source struct {
	*reader
}

var _ stream.Source = (*source)(nil)

// Open opens a source. It fails with stream.ErrPositionUnknown if a position is beyond the log's end.
func (l *Log) Open(ctx context.Context, from stream.From) (stream.Source, error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	if from.Group != "" {
		if len(from.Positions) > 0 {
			return nil, errors.New("open source: a group keeps its own positions")
		}
		var r *reader
		ready := make(chan struct{})
		r, err := l.newReader(l.topic, from.Group, kgo.AdjustFetchOffsetsFn(func(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
			<-ready
			return offsets, r.settle(ctx, offsets[l.topic], from.Since)
		}))
		if err != nil {
			return nil, err
		}
		close(ready)
		return &source{r}, nil
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
	return &source{r}, nil
}

// readFrom reads partitions without a group.
func (l *Log) readFrom(topic string, start map[int32]int64) (*reader, error) {
	offsets := map[int32]kgo.Offset{}
	for p, o := range start {
		offsets[p] = kgo.NewOffset().At(o)
	}
	r, err := l.newReader(topic, "", kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))
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

// settle resolves where partitions that the group has just given us start, in place, and makes them ours.
func (r *reader) settle(ctx context.Context, offsets map[int32]kgo.Offset, since time.Time) error {
	start := map[int32]int64{}
	var fresh []int32
	for p, o := range offsets {
		if at := o.EpochOffset().Offset; at >= 0 {
			start[p] = at
		} else {
			fresh = append(fresh, p)
		}
	}
	if len(fresh) > 0 {
		ctx, cancel := r.log.within(ctx)
		defer cancel()
		first, err := r.log.start(ctx, r.topic, fresh, since)
		if err != nil {
			return err
		}
		for p, o := range first {
			start[p] = o
			offsets[p] = kgo.NewOffset().At(o)
		}
	}
	r.assign(start)
	return nil
}

// Next decodes what the reader reads.
func (s *source) Next(ctx context.Context) (stream.Batch, error) {
	b, err := s.next(ctx)
	if err != nil {
		return stream.Batch{}, err
	}
	out := stream.Batch{Fetched: b.fetched, Assigned: b.assigned, Revoked: b.revoked, Lost: b.lost, Ends: b.ends}
	if len(b.records) > 0 {
		out.Changes = make([]stream.Change, len(b.records))
	}
	for i, r := range b.records {
		raw := &stream.Raw{Topic: r.Topic, Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			raw.Headers = append(raw.Headers, stream.Header{Key: h.Key, Value: h.Value})
		}
		c := stream.DecodeRecord(raw, s.log.cfg.Mapping, s.log.cfg.MaxDocumentBytes)
		c.Position = stream.Position{Partition: r.Partition, Offset: r.Offset}
		c.Version = stream.Version(s.log.cfg.Epoch, r.Offset)
		c.Time = r.Timestamp.UTC()
		out.Changes[i] = c
	}
	return out, nil
}

// Pause stops delivery of the partitions' changes from the next call of Next on.
func (s *source) Pause(partitions ...int32) { s.setPaused(partitions, true) }

// Resume undoes Pause. What was appended meanwhile may take as long as a fetch waits, 500 ms.
func (s *source) Resume(partitions ...int32) { s.setPaused(partitions, false) }

// Commit stores the next offsets of a group.
func (s *source) Commit(ctx context.Context, next ...stream.Position) error {
	if s.group == "" || len(next) == 0 {
		return nil
	}
	ctx, cancel := s.log.within(ctx)
	defer cancel()
	s.commits.RLock()
	defer s.commits.RUnlock()
	for {
		offsets := map[int32]kgo.EpochOffset{}
		s.mu.Lock()
		for _, p := range next {
			if s.owned[p.Partition] != nil {
				offsets[p.Partition] = kgo.EpochOffset{Epoch: -1, Offset: p.Offset}
			}
		}
		s.mu.Unlock()
		if len(offsets) == 0 {
			return nil
		}
		err := s.commit(ctx, offsets)
		switch {
		case err == nil, errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.FencedInstanceID):
			// Who was thrown out of the group owns nothing.
			return nil
		case ctx.Err() != nil:
			return s.log.unavailable("commit", err)
		case !kerr.IsRetriable(err) && !errors.Is(err, kerr.RebalanceInProgress) && !isTransport(err):
			return s.log.unavailable("commit", err)
		}
		s.pause(50 * time.Millisecond)
	}
}

func (r *reader) commit(ctx context.Context, offsets map[int32]kgo.EpochOffset) error {
	var result error
	r.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{r.topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if result = err; err != nil {
				return
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
						result = err
					}
				}
			}
		})
	return result
}

// Close leaves the group and frees the connections.
func (s *source) Close() error {
	s.close()
	return nil
}
