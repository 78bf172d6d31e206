package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var _ stream.DeadLetters = (*Log)(nil)

// Headers that a dead letter has besides the record's own.
const (
	headerReason    = "liverag-reason"
	headerDetail    = "liverag-detail"
	headerTopic     = "liverag-topic"
	headerPartition = "liverag-partition"
	headerOffset    = "liverag-offset"
	headerAttempts  = "liverag-attempts"
	headerTime      = "liverag-time"
	// Headers since letters can be settled; what has none of them is read as before.
	headerLog        = "liverag-log" // identity of the log that the position is one of
	headerDocument   = "liverag-document"
	headerGeneration = "liverag-generation"
	headerVersion    = "liverag-version"
	// headerSettled marks a record that is no letter, but closes the one whose place its headers name.
	headerSettled = "liverag-settled"
	// headerOwn comes last, and holds how many of the headers before it are the record's own: those may have the names of ours, as those of a letter that
	// somebody has produced to the corpus again do.
	headerOwn = "liverag-own"
	// headerTruncated holds how many bytes the value had that did not fit.
	headerTruncated = "liverag-truncated"
)

// maxDetail bounds what a letter says in words.
const maxDetail = 4 << 10

// Send appends letters to <corpus>.dlq: key, value and headers as they were, and headers that say why and from where.
func (l *Log) Send(ctx context.Context, letters ...stream.DeadLetter) error {
	records := make([]*kgo.Record, len(letters))
	for i, d := range letters {
		r := &kgo.Record{Topic: l.dlqTopic()}
		topic := l.topic
		if d.Raw != nil {
			r.Key, r.Value = d.Raw.Key, d.Raw.Value
			for _, h := range d.Raw.Headers {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
			}
			if d.Raw.Topic != "" {
				topic = d.Raw.Topic
			}
		}
		add := func(key, value string) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
		}
		add(headerReason, d.Problem.Code)
		add(headerDetail, d.Problem.Detail[:min(len(d.Problem.Detail), maxDetail)])
		add(headerTopic, topic)
		add(headerPartition, itoa(d.Position.Partition))
		add(headerOffset, strconv.FormatInt(d.Position.Offset, 10))
		add(headerAttempts, strconv.Itoa(d.Attempts))
		add(headerTime, d.Time.UTC().Format(time.RFC3339Nano))
		add(headerLog, l.identity.ID)
		if d.Key != "" {
			add(headerDocument, d.Key)
		}
		if d.Generation != "" {
			add(headerGeneration, d.Generation)
		}
		if d.Version > 0 {
			add(headerVersion, strconv.FormatInt(d.Version, 10))
		}
		own := 0
		if d.Raw != nil {
			own = len(d.Raw.Headers)
		}
		add(headerOwn, strconv.Itoa(own))
		records[i] = r
	}
	err := l.produce(ctx, records)
	if errors.Is(err, kerr.MessageTooLarge) {
		err = l.sendApart(ctx, records)
	}
	if err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	return nil
}

// sendApart appends letters one by one. One that the topic finds too large goes without its value, its own headers and a key that can't be a document's: the place in its headers still leads to the record, and a
// letter that can't be written would hold up its partition for ever.
func (l *Log) sendApart(ctx context.Context, records []*kgo.Record) error {
	for _, r := range records {
		again := &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
		err := l.produce(ctx, []*kgo.Record{again})
		if errors.Is(err, kerr.MessageTooLarge) {
			_, ours := splitHeaders(r)
			cut := &kgo.Record{Topic: r.Topic}
			if len(r.Key) <= maxDetail {
				cut.Key = r.Key
			}
			cut.Headers = append(slices.Clone(ours),
				kgo.RecordHeader{Key: headerTruncated, Value: []byte(strconv.Itoa(len(r.Value)))}, kgo.RecordHeader{Key: headerOwn, Value: []byte("0")})
			err = l.produce(ctx, []*kgo.Record{cut})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ReadDeadLetters lists the youngest letters, at most limit, oldest first, up to the dead-letter topic's present end.
func (l *Log) ReadDeadLetters(ctx context.Context, limit int) ([]stream.DeadLetter, error) {
	if limit <= 0 {
		return nil, nil
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 3*l.cfg.Timeout)
		defer cancel()
	}
	partitions, err := l.partitionsOf(ctx, l.dlqTopic())
	if err != nil {
		return nil, err
	}
	ends, err := l.listOffsets(ctx, l.dlqTopic(), partitions, latest)
	if err != nil {
		return nil, err
	}
	start, err := l.listOffsets(ctx, l.dlqTopic(), partitions, earliest)
	if err != nil {
		return nil, err
	}
	left := 0
	for p, end := range ends {
		if start[p] = max(start[p], end-int64(limit)); start[p] < end {
			left++
		}
	}
	if left == 0 {
		return nil, nil
	}
	r, err := l.readFrom(l.dlqTopic(), start)
	if err != nil {
		return nil, err
	}
	defer r.close()
	var letters []stream.DeadLetter
	for left > 0 {
		b, err := r.next(ctx)
		if err != nil {
			return nil, fmt.Errorf("dead letters: %w", err)
		}
		for _, record := range b.records {
			if record.Offset < ends[record.Partition] && header(record, headerSettled) == "" {
				letters = append(letters, deadLetter(record))
			}
		}
		for _, f := range b.fetched {
			if end := ends[f.Partition]; start[f.Partition] < end && f.Offset >= end {
				left--
			}
			start[f.Partition] = f.Offset
		}
	}
	slices.SortStableFunc(letters, func(a, b stream.DeadLetter) int { return a.Time.Compare(b.Time) })
	return letters[max(0, len(letters)-limit):], nil
}

// splitHeaders tells apart the headers that a rejected record had and those that the letter has besides.
func splitHeaders(r *kgo.Record) (own, ours []kgo.RecordHeader) {
	if last := len(r.Headers) - 1; last >= 0 && r.Headers[last].Key == headerOwn {
		if n, err := strconv.Atoi(string(r.Headers[last].Value)); err == nil && n >= 0 && n <= last {
			return r.Headers[:n], r.Headers[n:last]
		}
	}
	// One of a program that did not count them: the names are all there is.
	for _, h := range r.Headers {
		switch h.Key {
		case headerReason, headerDetail, headerTopic, headerPartition, headerOffset, headerAttempts, headerTime, headerLog, headerDocument, headerGeneration, headerSettled:
			ours = append(ours, h)
		default:
			own = append(own, h)
		}
	}
	return own, ours
}

// namesPlace tells whether a record of the dead-letter topic says which record it is about.
func namesPlace(r *kgo.Record) bool {
	partition, err := strconv.ParseInt(header(r, headerPartition), 10, 32)
	offset, err2 := strconv.ParseInt(header(r, headerOffset), 10, 64)
	return err == nil && err2 == nil && partition >= 0 && offset >= 0
}

// deadLetter is the inverse of what Send does.
func deadLetter(r *kgo.Record) stream.DeadLetter {
	raw := &stream.Raw{Topic: r.Topic, Key: r.Key, Value: r.Value}
	d := stream.DeadLetter{Raw: raw, Time: r.Timestamp.UTC()}
	own, ours := splitHeaders(r)
	for _, h := range own {
		raw.Headers = append(raw.Headers, stream.Header{Key: h.Key, Value: h.Value})
	}
	for _, h := range ours {
		value := string(h.Value)
		switch h.Key {
		case headerReason:
			d.Problem.Code = value
		case headerDetail:
			d.Problem.Detail = value
		case headerTopic:
			raw.Topic = value
		case headerPartition:
			n, _ := strconv.ParseInt(value, 10, 32)
			d.Position.Partition = int32(n)
		case headerOffset:
			d.Position.Offset, _ = strconv.ParseInt(value, 10, 64)
		case headerAttempts:
			d.Attempts, _ = strconv.Atoi(value)
		case headerDocument:
			d.Key = value
		case headerGeneration:
			d.Generation = value
		case headerVersion:
			d.Version, _ = strconv.ParseInt(value, 10, 64)
		case headerTruncated:
			raw.Headers = append(raw.Headers, stream.Header{Key: h.Key, Value: h.Value}) // or nobody would know that there was more
		case headerTime:
			if t, err := time.Parse(time.RFC3339Nano, value); err == nil {
				d.Time = t
			}
		}
	}
	return d
}
