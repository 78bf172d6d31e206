package kafka

import (
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestTimestampsOfOthers: a producer's timestamp is whatever it likes; a change's time can be told to anybody.
func TestTimestampsOfOthers(t *testing.T) {
	t.Parallel()
	e := openEmbedded(t, EmbeddedConfig{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	l := openLog(t, Config{Embedded: e, Partitions: 1})
	raw, err := kgo.NewClient(kgo.SeedBrokers(e.Brokers()...), kgo.DefaultProduceTopic("documents"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	hour := time.Now().Add(time.Hour).Truncate(time.Millisecond).UTC()
	last := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	tests := []struct{ set, want time.Time }{
		{hour, hour},
		{time.UnixMilli(0).UTC(), time.UnixMilli(0).UTC()},
		{time.UnixMilli(-1), time.UnixMilli(0).UTC()},
		{time.UnixMilli(1 << 42).UTC(), time.UnixMilli(1 << 42).UTC()}, // 2109
	}
	for _, beyond := range []time.Time{last, last.Add(time.Second), time.UnixMilli(1 << 60)} { // this client can't write these, others can
		if got := enteredAt(beyond); !got.Equal(last) {
			t.Errorf("a record of %v is a change of %v, want %v", beyond, got, last)
		}
	}
	for _, test := range tests {
		r := kgo.KeySliceRecord([]byte("a"), []byte(`{"text":"x"}`))
		r.Timestamp = test.set
		if err := raw.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	changes := readAll(t, l, stream.From{})
	if len(changes) != len(tests) {
		t.Fatalf("%d changes of %d", len(changes), len(tests))
	}
	for i, test := range tests {
		if !changes[i].Time.Equal(test.want) {
			t.Errorf("a record of %v is a change of %v, want %v", test.set, changes[i].Time, test.want)
		}
		if _, err := changes[i].Time.MarshalJSON(); err != nil {
			t.Errorf("a record of %v: %v", test.set, err)
		}
	}
}
