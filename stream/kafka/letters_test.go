package kafka

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kadm"
)

// TestALetterThatDoesNotFitIsCut: poison that the dead-letter topic refuses for its size must not be tried for ever.
func TestALetterThatDoesNotFitIsCut(t *testing.T) {
	l := openLog(t, Config{Embedded: openEmbedded(t, EmbeddedConfig{Dir: t.TempDir()}), MaxDocumentBytes: 64 << 10})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	letter := func(id string, size int) stream.DeadLetter {
		return stream.DeadLetter{
			Raw:     &stream.Raw{Topic: l.topic, Key: []byte(id), Value: []byte(strings.Repeat("x", size))},
			Problem: stream.Problem{Code: stream.CodeNotADocument, Detail: strings.Repeat("long ", 5000)}, Attempts: 1,
		}
	}
	huge := 2 * int(l.cfg.maxRecordBytes())
	if err := l.Send(ctx, letter("small", 10), letter("huge", huge), letter("other", 20)); err != nil {
		t.Fatal(err)
	}
	letters, err := l.ReadDeadLetters(ctx, 10)
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int{}
	for _, d := range letters {
		sizes[string(d.Raw.Key)] = len(d.Raw.Value)
	}
	if len(sizes) != 3 || sizes["small"] != 10 || sizes["huge"] != 0 || sizes["other"] != 20 {
		t.Errorf("the letters' values have %v bytes", sizes)
	}
}

// TestOpenRefusesAnotherLog: the offsets of a topic that was made again have nothing to do with those of the one before.
func TestOpenRefusesAnotherLog(t *testing.T) {
	e := openEmbedded(t, EmbeddedConfig{Dir: t.TempDir()})
	l := openLog(t, Config{Embedded: e})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := l.Append(ctx, upsert("a", "text")); err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(l.client)
	if _, err := admin.DeleteTopics(ctx, l.topic); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopics(ctx, l.identity.Partitions, 1, nil, l.topic); err != nil {
		t.Fatal(err)
	}
	if src, err := l.Open(ctx, stream.From{}); !errors.Is(err, stream.ErrLogChanged) {
		if err == nil {
			src.Close()
		}
		t.Errorf("opening a log that was made again: %v", err)
	}
}
