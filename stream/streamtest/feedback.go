package streamtest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
)

// testFeedback follows feedback from two processes.
func testFeedback(t *testing.T, h Harness) {
	a, b := h.Connect(t), h.Connect(t)
	list := func(p Process, before int64, limit int) ([]stream.Feedback, int64) {
		t.Helper()
		got, next, err := p.Feedback.List(within(t), before, limit)
		if err != nil {
			t.Fatal(err)
		}
		return got, next
	}
	if got, next := list(a, 0, 10); len(got) != 0 || next != 0 {
		t.Errorf("before anything was said: %+v, %d", got, next)
	}
	begun := time.Now().Add(-time.Minute)
	want := stream.Feedback{Query: "wie lange? \u2014 \n\"x\"", Document: "kb/refunds.md", Chunk: "kb/refunds.md#1f", Useful: true, Reason: strings.Repeat("because ", 500)}
	first, err := a.Feedback.Add(within(t), want)
	if err != nil {
		t.Fatal(err)
	}
	if first.Sequence <= 0 || first.Time.Before(begun) {
		t.Errorf("added as %+v", first)
	}
	want.Sequence, want.Time = first.Sequence, first.Time
	got, next := list(b, 0, 10)
	if len(got) != 1 || next != 0 || !got[0].Time.Equal(want.Time) {
		t.Fatalf("read %+v, %d, want %+v", got, next, want)
	}
	if got[0].Time = want.Time; got[0] != want {
		t.Errorf("read %+v, want %+v", got[0], want)
	}

	// From both at once: all of it is there, in one order for everybody, and pages fit together.
	var adding sync.WaitGroup
	for i := range 12 {
		adding.Go(func() {
			p := []Process{a, b}[i%2]
			if _, err := p.Feedback.Add(within(t), stream.Feedback{Query: "q", Document: fmt.Sprint(i), Useful: i%3 == 0}); err != nil {
				t.Error(err)
			}
		})
	}
	adding.Wait()
	all, next := list(h.Connect(t), 0, 100)
	if len(all) != 13 || next != 0 || all[12].Document != want.Document {
		t.Fatalf("%d in all, next %d", len(all), next)
	}
	seen := map[string]bool{}
	for i, f := range all {
		if i > 0 && f.Sequence >= all[i-1].Sequence {
			t.Errorf("number %d has sequence %d after %d", i, f.Sequence, all[i-1].Sequence)
		}
		seen[f.Document] = true
	}
	if len(seen) != 13 {
		t.Errorf("documents %v", seen)
	}
	var paged []stream.Feedback
	for before := int64(0); ; before = next {
		var page []stream.Feedback
		if page, next = list(b, before, 5); len(page) > 5 {
			t.Errorf("a page of %d", len(page))
		}
		paged = append(paged, page...)
		if next == 0 {
			break
		}
	}
	if len(paged) != 13 {
		t.Fatalf("%d in pages", len(paged))
	}
	for i := range paged {
		if paged[i].Sequence != all[i].Sequence {
			t.Errorf("number %d of the pages has sequence %d, not %d", i, paged[i].Sequence, all[i].Sequence)
		}
	}
}
