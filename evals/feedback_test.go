package evals

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/liverag/liverag/stream"
)

func TestFromFeedback(t *testing.T) {
	var n int64
	say := func(query, document string, useful bool) stream.Feedback {
		n++
		return stream.Feedback{Sequence: n, Query: query, Document: document, Useful: useful}
	}
	all := []stream.Feedback{
		say("how long?", "a", true), say("how long?", "b", false),
		say("who?", "a", true), say("who?", "a", false), // newest breaks the tie: not useful
		say("who?", "c", false), say("who?", "c", true), // and here: useful
		say(" how\nlong? ", "b", false), say("how long?", "b", true), // the majority: not useful
		say("where?", "d", false), // no answer is known
	}
	slices.Reverse(all) // as the server lists them
	got := FromFeedback(all)
	if got.Votes != 9 || got.Conflicts != 3 || got.Unanswered != 1 {
		t.Errorf("got %+v", got)
	}
	want := []struct {
		query  string
		grades map[string]int
	}{{"how long?", map[string]int{"a": 1, "b": 0}}, {"who?", map[string]int{"a": 0, "c": 1}}}
	if len(got.Questions) != len(want) {
		t.Fatalf("questions %+v", got.Questions)
	}
	var lines bytes.Buffer
	for i, q := range got.Questions {
		if q.Query != want[i].query || !maps.Equal(q.Grades, want[i].grades) {
			t.Errorf("question %d is %+v, want %+v", i, q, want[i])
		}
		q.Documents = nil
		if err := json.NewEncoder(&lines).Encode(q); err != nil {
			t.Fatal(err)
		}
	}
	// What is written is read as the same questions, under the same names.
	read, err := ReadQuestions(&lines, "q.jsonl")
	if err != nil || read.Digest() != got.Questions.Digest() {
		t.Errorf("read %+v, %v", read, err)
	}
	if again := FromFeedback(all[4:]); !strings.HasPrefix(again.Questions[0].ID, "f-") || again.Questions[0].ID != got.Questions[0].ID {
		t.Errorf("another name: %s, %s", again.Questions[0].ID, got.Questions[0].ID)
	}
	if none := FromFeedback(nil); len(none.Questions) != 0 {
		t.Errorf("from nothing: %+v", none)
	}
}
