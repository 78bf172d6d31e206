package kafka

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// guard holds other programs, which write past Log.Append, to the log's limit too: they get POLICY_VIOLATION.
func (e *Embedded) guard() {
	e.cluster.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		req := kreq.(*kmsg.ProduceRequest)
		var n int64
		frees := true
		for _, t := range req.Topics {
			for _, p := range t.Partitions {
				n += int64(len(p.Records))
			}
		}
		refused := e.room(n, false)
		if refused == nil {
			return nil, nil, false
		}
		for _, t := range req.Topics {
			for _, p := range t.Partitions {
				frees = frees && onlyTombstones(p.Records)
			}
		}
		if frees && e.room(n, true) == nil {
			return nil, nil, false
		}
		e.cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, t := range req.Topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			for _, p := range t.Partitions {
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition = p.Partition
				rp.ErrorCode = kerr.PolicyViolation.Code
				rp.ErrorMessage = kmsg.StringPtr(refused.Error())
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
}

func onlyTombstones(records []byte) bool {
	var b kmsg.RecordBatch
	if err := b.ReadFrom(records); err != nil {
		return false
	}
	rs, err := kfake.BatchRecords(b)
	if err != nil {
		return false
	}
	for _, r := range rs {
		if r.Value != nil {
			return false
		}
	}
	return true
}
