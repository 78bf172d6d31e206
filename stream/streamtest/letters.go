package streamtest

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
)

// testLettersSettled follows letters from their first rejection until they are settled, from two processes.
func testLettersSettled(t *testing.T, h Harness) {
	a, b := h.Connect(t), h.Connect(t)
	at := func(offset int64, code, key, generation string) stream.DeadLetter {
		return stream.DeadLetter{
			Raw:      &stream.Raw{Topic: "documents", Key: []byte(key), Value: []byte("{" + code), Headers: []stream.Header{{Key: "x", Value: []byte("y")}}},
			Position: stream.Position{Partition: 1, Offset: offset}, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			Problem: stream.Problem{Code: code, Detail: "why"}, Attempts: 1, Key: key, Generation: generation, Version: 1<<40 + 7,
		}
	}
	ids := func(p Process, q stream.LetterQuery) []string {
		t.Helper()
		list, err := p.Open.List(within(t), q)
		if err != nil {
			t.Fatal(err)
		}
		out := []string{}
		for i, letter := range list {
			out = append(out, letter.ID)
			if letter.Raw != nil || i > 0 && letter.Sequence <= list[i-1].Sequence {
				t.Errorf("letter %+v", letter)
			}
		}
		return out
	}
	want := func(p Process, q stream.LetterQuery, want ...string) {
		t.Helper()
		if got := ids(p, q); !slices.Equal(got, want) {
			t.Errorf("open for %+v: %v, want %v", q, got, want)
		}
	}
	send := func(letters ...stream.DeadLetter) {
		t.Helper()
		if err := a.DeadLetters.Send(within(t), letters...); err != nil {
			t.Fatal(err)
		}
	}
	want(a, stream.LetterQuery{})
	again := at(7, stream.CodeInputTooLong, "doc", "second")
	again.Attempts = 3
	send(at(7, stream.CodeEmbedRejected, "doc", "first"), at(8, stream.CodeNotADocument, "other", "first"), again, at(9, stream.CodeNotADocument, "doc", "first"),
		at(7, stream.CodeInputTooLong, "doc", "second")) // delivered twice
	want(b, stream.LetterQuery{}, "1-7", "1-8", "1-9")
	want(a, stream.LetterQuery{Code: stream.CodeNotADocument}, "1-8", "1-9")
	want(b, stream.LetterQuery{Key: "doc"}, "1-7", "1-9")
	want(b, stream.LetterQuery{Key: "doc", Code: stream.CodeNotADocument}, "1-9")
	want(b, stream.LetterQuery{Limit: 2}, "1-7", "1-8")
	page, err := b.Open.List(within(t), stream.LetterQuery{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	want(b, stream.LetterQuery{After: page[1].Sequence}, "1-9")

	letter, err := b.Open.Letter(within(t), "1-7")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(letter.Generations, []string{"first", "second"}) || letter.Problem.Code != stream.CodeInputTooLong || letter.Key != "doc" || letter.Version != 1<<40+7 ||
		letter.Raw == nil || string(letter.Raw.Value) != "{"+stream.CodeInputTooLong || len(letter.Raw.Headers) != 1 || letter.RejectedAt.IsZero() ||
		letter.Size != len("doc")+1+len(stream.CodeInputTooLong)+2 || !letter.Time.Equal(again.Time) {
		t.Errorf("letter %+v of %+v", letter, letter.Raw)
	}

	// Settling one settles it for everybody, whole, and leaves the others.
	if err := a.Open.Settle(within(t), stream.Discarded, "1-8", "1-7"); err != nil {
		t.Fatal(err)
	}
	want(a, stream.LetterQuery{}, "1-9")
	want(b, stream.LetterQuery{}, "1-9")
	want(h.Connect(t), stream.LetterQuery{}, "1-9")
	want(b, stream.LetterQuery{Discarded: true}, "1-7", "1-8")
	want(h.Connect(t), stream.LetterQuery{Discarded: true, Key: "other"}, "1-8")
	for _, err := range []error{
		b.Open.Settle(within(t), stream.Redriven, "1-9", "1-8"),
		b.Open.Settle(within(t), stream.Redriven, "nonsense"),
		func() error { _, err := b.Open.Letter(within(t), "1-7"); return err }(),
	} {
		if !errors.Is(err, stream.ErrNoLetter) {
			t.Errorf("got %v, want ErrNoLetter", err)
		}
	}
	want(b, stream.LetterQuery{}, "1-9")
	if old, err := b.Letters(within(t), 10); err != nil || len(old) != 5 {
		t.Errorf("%d letters in all, %v", len(old), err)
	}

	for key, want := range map[string]int{"doc": 4, "other": 1, "none": 0} {
		if n, err := b.Open.Records(within(t), key); err != nil || n != want {
			t.Errorf("%d records of %s are stored, want %d, %v", n, key, want, err)
		}
	}

	// What is rejected again is open again, with nothing of the time before.
	send(at(8, stream.CodeNotADocument, "other", "third"))
	want(b, stream.LetterQuery{}, "1-9", "1-8")
	want(h.Connect(t), stream.LetterQuery{}, "1-9", "1-8")
	if letter, err := a.Open.Letter(within(t), "1-8"); err != nil || !reflect.DeepEqual(letter.Generations, []string{"third"}) {
		t.Errorf("%+v, %v", letter, err)
	}
}
