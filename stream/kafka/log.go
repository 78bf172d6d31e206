// Package kafka is the log on Kafka's protocol: on a cluster, or embedded in this process.
//
// [Open] opens one corpus' log. [OpenEmbedded] starts a single-node broker that keeps its records in a directory, for
// machines without a cluster; the code that talks to it is the same.
package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Log is one corpus' log. It implements stream.Log, stream.Groups, stream.DeadLetters and stream.Letters.
type Log struct {
	cfg      Config
	topic    string
	health   *health
	client   *kgo.Client
	topicID  [16]byte
	identity stream.Identity
	control  *register
	letters  letters
	// noFeedback is why there is no topic for feedback; nil: there is one.
	noFeedback error
	changed    atomic.Pointer[error] // set once it is known that the topic is not the one that was opened
}

var (
	_ stream.Log    = (*Log)(nil)
	_ stream.Groups = (*Log)(nil)
)

// Embedded implements stream.Compactor.
func (l *Log) Embedded() bool { return l.cfg.Embedded != nil }

// CompactNext implements stream.Compactor.
func (l *Log) CompactNext() error {
	if l.cfg.Embedded == nil {
		return errors.New("the cluster compacts by itself")
	}
	return l.cfg.Embedded.compactNext()
}

func itoa(n int32) string { return strconv.Itoa(int(n)) }

// Open connects to the brokers and creates what is missing of the corpus' topics. It fails with stream.ErrUnavailable if no
// broker answers within Config.Timeout.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, topic: cfg.Corpus, health: &health{logger: cfg.Logger, down: map[string]time.Time{}}, letters: letters{turn: make(chan struct{}, 1)}}
	l.control = newRegister(l)
	opts, err := cfg.options(l.health)
	if err != nil {
		return nil, err
	}
	if l.client, err = kgo.NewClient(append(opts,
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		// What waits for nothing arrives at once; batches form while the request before them is under way.
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(cfg.maxRecordBytes()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
	)...); err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	if err := l.prepare(ctx); err != nil {
		l.client.Close()
		return nil, err
	}
	return l, nil
}

// Close frees the connections. Sources must be closed first.
func (l *Log) Close() error {
	l.control.close()
	l.client.Close()
	return nil
}

// Status tells whether the brokers answer, and since when they don't.
func (l *Log) Status() Status { return l.health.status() }

// within bounds a call by the configured timeout.
func (l *Log) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.cfg.Timeout)
}

// unavailable turns what a client returns when brokers are away or refuse us into an error that says what to do.
func (l *Log) unavailable(what string, err error) error {
	brokers := strings.Join(l.cfg.Brokers, ", ")
	cause := err
	if last := l.health.lastError(); last != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		cause = last
	}
	var eof *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState),
		strings.Contains(cause.Error(), "SASL_"):
		return fmt.Errorf("%s: the broker at %s refuses us (%w): check kafka.sasl.mechanism, kafka.sasl.user and the password", what, brokers, cause)
	case l.cfg.SASL.Mechanism != "" && (errors.Is(cause, io.EOF) || errors.As(cause, &eof)):
		return fmt.Errorf("%s: the broker at %s hung up during authentication (%w): check kafka.sasl.mechanism, kafka.sasl.user and the password, and kafka.tls", what, brokers, cause)
	case errors.As(cause, &eof), isTLS(cause):
		return fmt.Errorf("%s: the broker at %s hung up (%w): check kafka.tls and kafka.sasl", what, brokers, cause)
	case isTransport(err), isTransport(cause):
		hint := ""
		if l.cfg.TLS.Enable {
			hint = " Does it speak TLS there, as kafka.tls says?"
		}
		return fmt.Errorf("%s: %w: no answer from %s (%w): is the broker running, and is kafka.brokers right?%s", what, stream.ErrUnavailable, brokers, cause, hint)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func isTLS(err error) bool {
	s := err.Error()
	return strings.Contains(s, "tls: ") || strings.Contains(s, "x509: ")
}

func isTransport(err error) bool {
	var netErr net.Error
	var opErr *net.OpError
	var ke *kerr.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr), errors.As(err, &opErr), errors.Is(err, io.EOF),
		errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe), errors.Is(err, kgo.ErrRecordTimeout), errors.Is(err, kgo.ErrRecordRetries):
		return true
	case errors.As(err, &ke):
		return ke.Retriable
	}
	return strings.Contains(err.Error(), "unable to dial") || strings.Contains(err.Error(), "broker closed")
}

// undialled tells whether there was no connection at all.
func undialled(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (l *Log) dlqTopic() string     { return l.topic + ".dlq" }
func (l *Log) controlTopic() string { return l.topic + ".control" }

func (l *Log) feedbackTopic() string { return l.topic + ".feedback" }

// prepare creates what is missing, checks what is there, and learns the identity.
func (l *Log) prepare(ctx context.Context) error {
	admin := kadm.NewClient(l.client)
	topics, err := admin.ListTopics(ctx, l.topic, l.dlqTopic(), l.controlTopic(), l.feedbackTopic())
	for err != nil && undialled(err) { // the client gives up at once where nobody listens, as while a broker that was started with us comes up
		select {
		case <-time.After(100 * time.Millisecond):
			topics, err = admin.ListTopics(ctx, l.topic, l.dlqTopic(), l.controlTopic(), l.feedbackTopic())
		case <-ctx.Done():
			return l.unavailable("open log", err)
		}
	}
	if err != nil {
		return l.unavailable("open log", err)
	}
	forever := kadm.StringPtr("-1")
	letters := kadm.StringPtr(strconv.FormatInt((30 * 24 * time.Hour).Milliseconds(), 10))
	if l.cfg.Embedded != nil {
		// The embedded log is bounded by its size alone: nothing in it may vanish by age.
		letters = forever
	}
	size := kadm.StringPtr(itoa(l.cfg.maxRecordBytes()))
	create := func(topic string, partitions int32, config map[string]*string) error {
		if topics.Has(topic) {
			return nil
		}
		config["retention.bytes"] = forever
		config["max.message.bytes"] = size
		if _, err := admin.CreateTopic(ctx, partitions, l.cfg.ReplicationFactor, config, topic); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return l.unavailable(fmt.Sprintf("create topic %s", topic), err)
		}
		return nil
	}
	compact := func() map[string]*string {
		return map[string]*string{
			"cleanup.policy": kadm.StringPtr("compact"),
			// Explicit although Kafka ignores it for compacted topics: the embedded broker does not.
			"retention.ms":        forever,
			"delete.retention.ms": kadm.StringPtr(strconv.FormatInt((7 * 24 * time.Hour).Milliseconds(), 10)),
		}
	}
	if l.cfg.ReadOnly && !topics.Has(l.topic) {
		return fmt.Errorf("open log: topic %s does not exist at %s; a read-only topic is never created", l.topic, strings.Join(l.cfg.Brokers, ", "))
	}
	if l.cfg.Passive {
		l.identity, l.topicID, err = l.awaitTopic(ctx)
		return err
	}
	if err := create(l.topic, l.cfg.Partitions, compact()); err != nil {
		return err
	}
	// A dead letter on a cluster is there to be looked at and sent again, not to fill the disk: 30 days are enough for that.
	if err := create(l.dlqTopic(), 1, map[string]*string{"cleanup.policy": kadm.StringPtr("delete"), "retention.ms": letters}); err != nil {
		return err
	}
	if err := create(l.controlTopic(), 1, compact()); err != nil {
		return err
	}
	// Labels are as good in a year as today, so nothing of them vanishes by age.
	if err := create(l.feedbackTopic(), 1, map[string]*string{"cleanup.policy": kadm.StringPtr("delete"), "retention.ms": forever}); err != nil {
		if l.cfg.Embedded != nil || errors.Is(err, stream.ErrUnavailable) {
			return err
		}
		// A cluster may allow the other topics and not this one. That is no reason not to answer.
		l.noFeedback = err
		l.cfg.Logger.Warn("feedback can't be kept: create the topic, or allow it to be created", "topic", l.feedbackTopic(), "error", err)
	}
	if topics.Has(l.topic) {
		if err := l.checkTopic(ctx, admin); err != nil {
			return err
		}
	}
	if l.identity, l.topicID, err = l.awaitTopic(ctx); err != nil {
		return err
	}
	if l.cfg.Embedded != nil {
		if err := l.cfg.Embedded.settle(); err != nil {
			return fmt.Errorf("open log: %w", err)
		}
	}
	return nil
}

// checkTopic looks at what a topic that we did not create would do to us.
func (l *Log) checkTopic(ctx context.Context, admin *kadm.Client) error {
	value, err := l.settings(ctx, admin)
	if err != nil || value == nil {
		return err
	}
	keeps := retentionOf(value)
	if !keeps.Documents {
		l.cfg.Logger.Warn("the topic forgets documents by age or size, and an index that is built anew will lack them; set cleanup.policy=compact, or retention.ms=-1 and retention.bytes=-1",
			"topic", l.topic, "cleanup.policy", value["cleanup.policy"], "retention.ms", value["retention.ms"], "retention.bytes", value["retention.bytes"])
	}
	if keeps.Deletes > 0 && keeps.Deletes < shortRetention {
		l.cfg.Logger.Warn("the topic forgets deletions soon, and an index that was not written for longer has to be compared with the whole log before it is ready; set delete.retention.ms to a week",
			"topic", l.topic, "delete.retention.ms", value["delete.retention.ms"])
	}
	if n, err := strconv.Atoi(value["max.message.bytes"]); err == nil && !l.cfg.ReadOnly && n < l.cfg.MaxDocumentBytes {
		l.cfg.Logger.Warn("the topic refuses documents that documents.max_bytes allows", "topic", l.topic, "max.message.bytes", n, "documents.max_bytes", l.cfg.MaxDocumentBytes)
	}
	return nil
}

// awaitTopic asks for the identity until every topic has a leader everywhere, which takes a moment after creation.
func (l *Log) awaitTopic(ctx context.Context) (stream.Identity, [16]byte, error) {
	for {
		id, raw, err := l.lookup(ctx, !l.cfg.Passive)
		if err == nil || ctx.Err() != nil || !isTransport(err) {
			return id, raw, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *Log) lookup(ctx context.Context, all bool) (stream.Identity, [16]byte, error) {
	names := []string{l.topic}
	if all {
		names = append(names, l.dlqTopic(), l.controlTopic())
		if l.noFeedback == nil {
			names = append(names, l.feedbackTopic())
		}
	}
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, l.client)
	if err != nil {
		return stream.Identity{}, [16]byte{}, l.unavailable("look up topic "+l.topic, err)
	}
	var id stream.Identity
	var raw [16]byte
	for _, t := range resp.Topics {
		name := ""
		if t.Topic != nil {
			name = *t.Topic
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return id, raw, fmt.Errorf("look up topic %s: %w", name, err)
		}
		for _, p := range t.Partitions {
			if p.Leader < 0 {
				return id, raw, fmt.Errorf("look up topic %s: partition %d: %w", name, p.Partition, kerr.LeaderNotAvailable)
			}
		}
		if name == l.topic {
			raw = t.TopicID
			id = stream.Identity{Topic: name, ID: base64.RawURLEncoding.EncodeToString(raw[:]), Partitions: int32(len(t.Partitions))}
		}
	}
	if id.Topic == "" {
		return id, raw, fmt.Errorf("look up topic %s: %w", l.topic, kerr.UnknownTopicOrPartition)
	}
	return id, raw, nil
}

// Identity asks the broker for the log's identity, so that a re-created topic is noticed.
func (l *Log) Identity(ctx context.Context) (stream.Identity, error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	id, _, err := l.lookup(ctx, false)
	return id, err
}

// Ends asks the broker how far each partition reaches now, covering everything acknowledged before the call. It counts
// records of transactions that are still open: what follows them was acknowledged and can't be read yet.
func (l *Log) Ends(ctx context.Context) ([]stream.End, error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	at := time.Now()
	offsets, err := l.listOffsets(ctx, l.topic, l.partitions(), latest)
	if err != nil {
		return nil, err
	}
	ends := make([]stream.End, 0, len(offsets))
	for p := range l.identity.Partitions {
		ends = append(ends, stream.End{Partition: p, Offset: offsets[p], At: at})
	}
	return ends, nil
}

// Committed returns the offsets that a consumer group has committed.
func (l *Log) Committed(ctx context.Context, group string) (map[int32]int64, error) {
	ctx, cancel := l.within(ctx)
	defer cancel()
	offsets, err := kadm.NewClient(l.client).FetchOffsetsForTopics(ctx, group, l.topic)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err == nil {
		err = offsets.Error()
	}
	if err != nil {
		return nil, l.unavailable("ask for the offsets of group "+group, err)
	}
	committed := make(map[int32]int64, len(offsets[l.topic]))
	for partition, offset := range offsets[l.topic] {
		if offset.At >= 0 {
			committed[partition] = offset.At
		}
	}
	return committed, nil
}

func (l *Log) partitions() []int32 {
	ps := make([]int32, l.identity.Partitions)
	for i := range ps {
		ps[i] = int32(i)
	}
	return ps
}

// Special timestamps of a ListOffsets request.
const (
	latest   = -1
	earliest = -2
)

// listOffsets asks for the offset of each partition at a timestamp in milliseconds, or at latest or earliest. An offset of
// -1 means that no record is that young.
func (l *Log) listOffsets(ctx context.Context, topic string, partitions []int32, timestamp int64) (map[int32]int64, error) {
	for {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		for _, p := range partitions {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition = p
			rp.Timestamp = timestamp
			t.Partitions = append(t.Partitions, rp)
		}
		req.Topics = append(req.Topics, t)
		resp, err := req.RequestWith(ctx, l.client)
		if err != nil {
			return nil, l.unavailable("list offsets of "+topic, err)
		}
		offsets := make(map[int32]int64, len(partitions))
		for _, rt := range resp.Topics {
			for _, rp := range rt.Partitions {
				if e := kerr.ErrorForCode(rp.ErrorCode); e != nil {
					err = e
					continue
				}
				offsets[rp.Partition] = rp.Offset
			}
		}
		if err == nil && len(offsets) == len(partitions) {
			return offsets, nil
		}
		if err == nil {
			err = kerr.UnknownTopicOrPartition
		}
		if !kerr.IsRetriable(err) {
			return nil, fmt.Errorf("list offsets of %s: %w", topic, err)
		}
		select {
		case <-ctx.Done():
			return nil, l.unavailable("list offsets of "+topic, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Append blocks until every change is durable in the log.
func (l *Log) Append(ctx context.Context, changes ...stream.Change) (stream.Receipt, error) {
	if l.cfg.ReadOnly {
		return stream.Receipt{}, fmt.Errorf("append: topic %s is read-only here; whoever owns it writes to it", l.topic)
	}
	if changed := l.changed.Load(); changed != nil { // where its document's next changes go to, we don't know
		return stream.Receipt{}, fmt.Errorf("append: %w", *changed)
	}
	records := make([]*kgo.Record, len(changes))
	for i := range changes {
		c := &changes[i]
		if c.Document != nil && len(c.Document.Text) > l.cfg.MaxDocumentBytes {
			return stream.Receipt{}, problem(i, len(changes), c, &stream.Problem{Code: stream.CodeDocumentTooLarge,
				Detail: fmt.Sprintf("the text has %d bytes, the limit is %d", len(c.Document.Text), l.cfg.MaxDocumentBytes)})
		}
		key, value, headers, p := stream.EncodeRecord(c)
		if p != nil {
			return stream.Receipt{}, problem(i, len(changes), c, p)
		}
		r := &kgo.Record{Topic: l.topic, Key: key, Value: value, Partition: partitionOf(key, l.identity.Partitions)}
		for _, h := range headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		records[i] = r
	}
	receipt := stream.Receipt{Identity: l.identity.ID, Positions: make([]stream.Position, len(changes))}
	if err := l.produce(ctx, records); err != nil {
		if errors.Is(err, kerr.MessageTooLarge) {
			err = &stream.Problem{Code: stream.CodeDocumentTooLarge, Detail: fmt.Sprintf("a record is over the %d bytes that topic %s takes", l.cfg.maxRecordBytes(), l.topic)}
		}
		return stream.Receipt{}, err
	}
	for i, r := range records {
		receipt.Positions[i] = stream.Position{Partition: r.Partition, Offset: r.Offset}
	}
	return receipt, nil
}

func problem(i, n int, c *stream.Change, p *stream.Problem) error {
	if n == 1 {
		return p
	}
	return fmt.Errorf("change %d, document %q: %w", i, c.ID, p)
}

// produce blocks until every record is durable, or the first error.
func (l *Log) produce(ctx context.Context, records []*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	if l.cfg.Embedded != nil {
		if err := l.cfg.Embedded.admit(records); err != nil {
			return err
		}
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 3*l.cfg.Timeout)
		defer cancel()
	}
	done := make(chan error, 1)
	var mu sync.Mutex
	left, first := len(records), error(nil)
	finish := func(_ *kgo.Record, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil && first == nil {
			first = err
		}
		if left--; left == 0 {
			done <- first
		}
	}
	for _, r := range records {
		l.client.Produce(ctx, r, finish)
	}
	select {
	case err := <-done:
		if err == nil && l.cfg.Embedded != nil {
			if err := l.cfg.Embedded.durable.sync(records); err != nil {
				return err
			}
			l.cfg.Embedded.witness.acknowledged(records)
		}
		if err == nil || errors.Is(err, kerr.MessageTooLarge) {
			return err
		}
		if l.cfg.Embedded != nil {
			if refused := l.cfg.Embedded.refused(err, bytesOf(records)); refused != nil {
				return refused
			}
		}
		if topic := records[0].Topic; errors.Is(err, kerr.UnknownTopicID) && (topic == l.dlqTopic() || topic == l.feedbackTopic()) {
			// Somebody made the topic again, to be rid of what was in it. The client would not learn of it; what is poison would hold up its partition until a restart.
			l.client.PurgeTopicsFromProducing(topic)
		}
		if ctx.Err() != nil {
			return l.overdue(ctx)
		}
		return l.unavailable("append to "+records[0].Topic, err)
	case <-ctx.Done():
		return l.overdue(ctx)
	}
}

// overdue is the error of an append that the caller's context cut off.
func (l *Log) overdue(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return l.unavailable("append to "+l.topic, ctx.Err())
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.Default()
	}
	return l
}

// describe asks for one topic's id, zero where the broker has none, and its partitions.
func (l *Log) describe(ctx context.Context, topic string) (kmsg.MetadataResponseTopic, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, l.client)
	if err != nil {
		return kmsg.MetadataResponseTopic{}, l.unavailable("look up topic "+topic, err)
	}
	if len(resp.Topics) != 1 {
		return kmsg.MetadataResponseTopic{}, fmt.Errorf("look up topic %s: %w", topic, kerr.UnknownTopicOrPartition)
	}
	if err := kerr.ErrorForCode(resp.Topics[0].ErrorCode); err != nil {
		return kmsg.MetadataResponseTopic{}, fmt.Errorf("look up topic %s: %w", topic, err)
	}
	return resp.Topics[0], nil
}

func (l *Log) partitionsOf(ctx context.Context, topic string) ([]int32, error) {
	t, err := l.describe(ctx, topic)
	if err != nil {
		return nil, err
	}
	ps := make([]int32, len(t.Partitions))
	for i := range ps {
		ps[i] = t.Partitions[i].Partition
	}
	return ps, nil
}
