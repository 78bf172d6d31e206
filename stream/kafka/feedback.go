package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// feedback is the topic <corpus>.feedback. It has one partition, so that offsets are an order.
type feedback struct{ log *Log }

var _ stream.FeedbackLog = feedback{}

// Feedback is the log's feedback.
func (l *Log) Feedback() stream.FeedbackLog { return feedback{l} }

// feedbackPartition is the only one.
const feedbackPartition = 0

// feedbackValue is a record's value.
type feedbackValue struct {
	Query    string    `json:"query"`
	Document string    `json:"document"`
	Chunk    string    `json:"chunk,omitempty"`
	Useful   *bool     `json:"useful"`
	Reason   string    `json:"reason,omitempty"`
	Time     time.Time `json:"time"`
}

// Add implements stream.FeedbackLog.
func (b feedback) Add(ctx context.Context, f stream.Feedback) (stream.Feedback, error) {
	l := b.log
	if l.noFeedback != nil {
		return f, fmt.Errorf("feedback: %w: %w", stream.ErrUnavailable, l.noFeedback)
	}
	f.Time = time.Now().UTC()
	value, err := json.Marshal(feedbackValue{f.Query, f.Document, f.Chunk, &f.Useful, f.Reason, f.Time})
	if err != nil {
		return f, fmt.Errorf("feedback: %w", err)
	}
	r := &kgo.Record{Topic: l.feedbackTopic(), Partition: feedbackPartition, Key: []byte(f.Document), Value: value}
	if err := l.produce(ctx, []*kgo.Record{r}); err != nil {
		return f, fmt.Errorf("feedback: %w", err)
	}
	f.Sequence = r.Offset + 1
	return f, nil
}

// List implements stream.FeedbackLog. What is no feedback is passed over: somebody else wrote it.
func (b feedback) List(ctx context.Context, before int64, limit int) (list []stream.Feedback, next int64, err error) {
	l := b.log
	ctx, cancel := l.within(ctx)
	defer cancel()
	if l.noFeedback != nil || limit <= 0 {
		return nil, 0, nil
	}
	first, err := l.listOffsets(ctx, l.feedbackTopic(), []int32{feedbackPartition}, earliest)
	if errors.Is(err, kerr.UnknownTopicOrPartition) && l.cfg.Passive {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	last, err := l.listOffsets(ctx, l.feedbackTopic(), []int32{feedbackPartition}, latest)
	if err != nil {
		return nil, 0, err
	}
	begin, end := first[feedbackPartition], last[feedbackPartition]
	if before > 0 {
		end = min(end, before-1)
	}
	from := max(begin, end-int64(limit))
	if from >= end {
		return nil, 0, nil
	}
	r, err := l.readFrom(l.feedbackTopic(), map[int32]int64{feedbackPartition: from})
	if err != nil {
		return nil, 0, err
	}
	defer r.close()
	for at := from; at < end; {
		batch, err := r.next(ctx)
		if err != nil {
			return nil, 0, fmt.Errorf("feedback: %w", l.unavailable("read "+l.feedbackTopic(), err))
		}
		for _, record := range batch.records {
			if record.Offset >= end {
				break
			}
			if f, ok := readFeedback(record); ok {
				list = append(list, f)
			}
		}
		for _, fetched := range batch.fetched {
			at = max(at, fetched.Offset)
		}
	}
	slices.Reverse(list)
	if from > begin {
		next = from + 1
	}
	return list, next, nil
}

func readFeedback(r *kgo.Record) (stream.Feedback, bool) {
	var v feedbackValue
	if json.Unmarshal(r.Value, &v) != nil || strings.TrimSpace(v.Query) == "" || v.Document == "" || v.Useful == nil {
		return stream.Feedback{}, false
	}
	f := stream.Feedback{Sequence: r.Offset + 1, Time: v.Time.UTC(), Query: v.Query, Document: v.Document, Chunk: v.Chunk, Useful: *v.Useful, Reason: v.Reason}
	if v.Time.IsZero() {
		f.Time = r.Timestamp.UTC()
	}
	return f, true
}
