package evals

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestAskBoth(t *testing.T) {
	var qs Questions
	for i := range 6 {
		qs = append(qs, Question{ID: fmt.Sprint(i), Query: fmt.Sprintf("question %d", i), Documents: []string{"right"}})
	}
	synctest.Test(t, func(t *testing.T) {
		var order []string
		search := func(name string, takes time.Duration, documents ...string) Searcher {
			return func(_ context.Context, query string, k int) ([]Ranked, error) {
				if k != 7 {
					t.Errorf("asked for %d hits", k)
				}
				order = append(order, name+query[len(query)-1:])
				time.Sleep(takes)
				var hits []Ranked
				for _, d := range documents {
					hits = append(hits, Ranked{Document: d})
				}
				return hits, nil
			}
		}
		last := 0
		both, err := qs.AskBoth(t.Context(), search("a", time.Second, "wrong", "right"), search("b", 2*time.Second, "right"), AskOptions{
			K: 7, Concurrency: 1, Keep: 1, Progress: func(done, of int) { last = done*10 + of },
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(order, " "); got != "a0 b0 b1 a1 a2 b2 b3 a3 a4 b4 b5 a5" {
			t.Errorf("asked in the order %s", got)
		}
		if last != 66 {
			t.Errorf("the last progress was %d", last)
		}
		for i := range qs {
			a, b := both.A.Answers[i], both.B.Answers[i]
			if a.Rank != 2 || b.Rank != 1 || a.Took != time.Second || b.Took != 2*time.Second || len(a.Top) != 1 || both.AFirst[i] != (i%2 == 0) {
				t.Errorf("question %d: %+v, %+v, first %v", i, a, b, both.AFirst[i])
			}
		}
		checkNear(t, "mrr of a", both.A.Report.Mean["mrr"], .5)
		checkNear(t, "mrr of b", both.B.Report.Mean["mrr"], 1)
	})
	failed := errors.New("gone")
	_, err := qs.AskBoth(t.Context(), func(context.Context, string, int) ([]Ranked, error) { return nil, nil }, func(context.Context, string, int) ([]Ranked, error) { return nil, failed }, AskOptions{})
	if !errors.Is(err, failed) || !strings.Contains(err.Error(), "ask question") {
		t.Errorf("got %v", err)
	}
}
