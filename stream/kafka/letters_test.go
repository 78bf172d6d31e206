package kafka

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
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
	wide := letter(strings.Repeat("k", huge), 10) // whoever produces past us may use any key
	wide.Raw.Headers = []stream.Header{{Key: "liverag-made-up", Value: make([]byte, huge)}}
	if err := l.Send(ctx, letter("small", 10), letter("huge", huge), wide, letter("other", 20)); err != nil {
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
	if len(sizes) != 4 || sizes["small"] != 10 || sizes["huge"] != 0 || sizes[""] != 0 || sizes["other"] != 20 {
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

// TestALetterKeepsItsRecordsHeaders: whatever they are called. A letter that somebody produces to the corpus again has the names of ours.
func TestALetterKeepsItsRecordsHeaders(t *testing.T) {
	l := openLog(t, Config{Embedded: openEmbedded(t, EmbeddedConfig{Dir: t.TempDir()})})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var headers []stream.Header
	for _, name := range []string{
		"x", headerReason, headerDetail, headerTopic, headerPartition, headerOffset, headerAttempts, headerTime, headerLog, headerDocument, headerGeneration, headerSettled, headerOwn, "x",
	} {
		headers = append(headers, stream.Header{Key: name, Value: []byte("7")})
	}
	d := stream.DeadLetter{
		Raw:      &stream.Raw{Topic: l.topic, Key: []byte("k"), Value: []byte("{"), Headers: headers},
		Position: stream.Position{Partition: 1, Offset: 42}, Problem: stream.Problem{Code: stream.CodeNotADocument, Detail: "why"}, Attempts: 3, Time: time.Unix(9, 0).UTC(),
	}
	if err := l.Send(ctx, d); err != nil {
		t.Fatal(err)
	}
	letter, err := l.Letter(ctx, "1-42")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(letter.DeadLetter, d) {
		t.Errorf("%+v of %+v, want %+v of %+v", letter.DeadLetter, letter.Raw, d, d.Raw)
	}
	again := d
	again.Attempts = 1 // a crash had it delivered and rejected once more
	if err := l.Send(ctx, again); err != nil {
		t.Fatal(err)
	}
	if letter, err = l.Letter(ctx, "1-42"); err != nil || letter.Attempts != 3 {
		t.Errorf("delivered again: %d attempts, %v", letter.Attempts, err)
	}
}

// TestTheDeadLetterTopicIsNotOursAlone: others write to it, and make it again.
func TestTheDeadLetterTopicIsNotOursAlone(t *testing.T) {
	l := openLog(t, Config{Embedded: openEmbedded(t, EmbeddedConfig{Dir: t.TempDir()})})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	letter := func(offset int64) stream.DeadLetter {
		return stream.DeadLetter{Raw: &stream.Raw{Topic: l.topic, Value: []byte("{")}, Position: stream.Position{Offset: offset}, Problem: stream.Problem{Code: stream.CodeNotADocument}, Attempts: 1, Key: "doc"}
	}
	want := func(ids ...string) {
		t.Helper()
		list, err := l.List(ctx, stream.LetterQuery{})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range list {
			got = append(got, o.ID)
		}
		if !slices.Equal(got, ids) {
			t.Errorf("open: %v, want %v", got, ids)
		}
	}
	if err := l.Send(ctx, letter(0), letter(1)); err != nil {
		t.Fatal(err)
	}
	if err := l.client.ProduceSync(ctx, &kgo.Record{Topic: l.dlqTopic(), Value: []byte("of another program")},
		&kgo.Record{Topic: l.dlqTopic(), Headers: []kgo.RecordHeader{{Key: headerPartition, Value: []byte("0")}, {Key: headerOffset, Value: []byte("-1")}}}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	want("0-0", "0-1")
	if o, err := l.Letter(ctx, "0-0"); err != nil || o.Key != "doc" {
		t.Errorf("%+v, %v", o, err)
	}
	admin := kadm.NewClient(l.client)
	if _, err := admin.DeleteTopics(ctx, l.dlqTopic()); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopics(ctx, 1, 1, nil, l.dlqTopic()); err != nil {
		t.Fatal(err)
	}
	for ctx.Err() == nil && l.Send(ctx, letter(5)) != nil { // the client learns of it
	}
	want("0-5")
}

// TestWaitingForLettersEnds: who may wait for a quarter of a second only, as each GET of a document, must not stand in line behind a broker that is away.
func TestWaitingForLettersEnds(t *testing.T) {
	l := openLog(t, Config{Embedded: openEmbedded(t, EmbeddedConfig{Dir: t.TempDir()})})
	_, done, err := l.knowLetters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := l.List(ctx, stream.LetterQuery{}); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("a list in somebody else's turn: %v", err)
	}
	done()
	if _, err := l.List(t.Context(), stream.LetterQuery{}); err != nil {
		t.Errorf("a list afterwards: %v", err)
	}
}

// TestTheFirstLettersAreAskedForAtOnce: several who ask before anybody has read the topic; the race detector watches.
func TestTheFirstLettersAreAskedForAtOnce(t *testing.T) {
	l := openLog(t, Config{Embedded: openEmbedded(t, EmbeddedConfig{Dir: t.TempDir()})})
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			if _, err := l.List(t.Context(), stream.LetterQuery{}); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
}

// TestTheOldestLettersAreForgotten: those that are known are bounded, and forgetting costs no search.
func TestTheOldestLettersAreForgotten(t *testing.T) {
	l := &Log{letters: letters{open: map[string]*openLetter{}}}
	const more = 30_000
	for i := range maxOpenLetters + more {
		at := []byte(strconv.Itoa(i))
		l.learnLetter(&kgo.Record{Offset: int64(i), Headers: []kgo.RecordHeader{{Key: headerPartition, Value: []byte("0")}, {Key: headerOffset, Value: at}}})
	}
	k := &l.letters
	var left []string
	for _, o := range k.order {
		if !o.settled {
			left = append(left, o.ID)
		}
	}
	if len(k.open) != maxOpenLetters || len(left) != maxOpenLetters || left[0] != "0-"+strconv.Itoa(more) || k.first == 0 {
		t.Errorf("%d letters are known, %d in order, the first of them %s", len(k.open), len(left), left[0])
	}
}
