package kafka

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kadm"
)

var _ stream.Forgetful = (*Log)(nil)

// unknownRetention is Kafka's own default for tombstones, for topics whose settings we may not read. Whether such a topic keeps its documents is not known either.
var unknownRetention = stream.Retention{Deletes: 24 * time.Hour}

// shortRetention of deletes is worth a warning.
const shortRetention = 12 * time.Hour

// Retention reads the settings of the corpus' topic.
func (l *Log) Retention(ctx context.Context) (stream.Retention, error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	settings, err := l.settings(ctx, kadm.NewClient(l.client))
	if err != nil {
		return stream.Retention{}, err
	}
	if settings == nil {
		return unknownRetention, nil
	}
	return retentionOf(settings), nil
}

// retentionOf says what a topic's settings mean for documents.
func retentionOf(settings map[string]string) stream.Retention {
	policy := settings["cleanup.policy"]
	drops := strings.Contains(policy, "delete") && (unlimited(settings["retention.ms"]) != nil || unlimited(settings["retention.bytes"]) != nil && settings["retention.bytes"] != "")
	out := stream.Retention{Documents: !drops}
	if !strings.Contains(policy, "compact") {
		return out // whole stretches go, and who comes too late for one is told so: see missing
	}
	ms := unlimited(settings["delete.retention.ms"])
	switch {
	case ms == nil:
	case *ms > int64(1<<63-1)/int64(time.Millisecond): // longer than a duration can be
	default:
		out.Deletes = max(time.Nanosecond, time.Duration(*ms)*time.Millisecond)
	}
	return out
}

// unlimited parses a setting of which -1 means that there is no limit, which is nil. What is no number limits to nothing at all.
func unlimited(value string) *int64 {
	n, err := strconv.ParseInt(value, 10, 64)
	if err == nil && n < 0 {
		return nil
	}
	return &n
}

// settings are those of the corpus' topic; nil if they can't be read.
func (l *Log) settings(ctx context.Context, admin *kadm.Client) (map[string]string, error) {
	configs, err := admin.DescribeTopicConfigs(ctx, l.topic)
	if err != nil {
		return nil, l.unavailable("describe topic "+l.topic, err)
	}
	value := map[string]string{}
	for _, rc := range configs {
		if rc.Err != nil {
			l.cfg.Logger.Warn("the topic's settings can't be read; it is taken to keep deletes for 24 h", "topic", l.topic, "error", rc.Err)
			return nil, nil
		}
		for _, c := range rc.Configs {
			value[c.Key] = c.MaybeValue()
		}
	}
	return value, nil
}
