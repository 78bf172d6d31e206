package evals

import (
	"context"
	"slices"
	"strings"
	"testing"
)

func TestAskPassages(t *testing.T) {
	hits := []Ranked{
		{Document: "x", Text: "nothing of it"},
		{Document: "x", Text: "Refunds take\n ten   days. Terms apply."},
		{Document: "y", Text: "again: Refunds take ten days."},
		{Document: "z", Text: "Call us."},
	}
	qs := Questions{{ID: "1", Query: "q", Passages: []string{"take ten days", "Terms  apply.", "Call us", "never said"}}}
	answers, err := qs.Ask(t.Context(), func(context.Context, string, int) ([]Ranked, error) { return hits, nil }, AskOptions{Keep: 2, Metrics: []Metric{MRR(0), Recall(0), NDCG(10)}})
	if err != nil {
		t.Fatal(err)
	}
	a := answers.Answers[0]
	// The third hit has only what was found before: it takes no rank.
	if want := []string{"x #1", "passage 1", "passage 2", "passage 3"}; !slices.Equal(a.Documents, want) || a.Rank != 2 || len(a.Top) != 2 || a.Hits != 4 {
		t.Errorf("got %+v, want %v", a, want)
	}
	checkNear(t, "mrr", answers.Report.Mean["mrr"], .5)
	checkNear(t, "recall", answers.Report.Mean["recall"], .75)
}

func TestAskUnanswered(t *testing.T) {
	qs := Questions{{ID: "1", Query: "a", Documents: []string{"x"}}, {ID: "2", Query: "b", Documents: []string{"y"}}}
	answers, err := qs.Ask(t.Context(), func(_ context.Context, query string, _ int) ([]Ranked, error) {
		if query == "b" {
			return nil, nil
		}
		return []Ranked{{Document: "x"}}, nil
	}, AskOptions{Metrics: []Metric{MRR(0)}})
	if err != nil || answers.Report.Judged != 2 || answers.Report.Answered != 1 || answers.Report.Mean["mrr"] != .5 {
		t.Errorf("%+v, %v", answers.Report, err)
	}
}

func TestReadOtherQuestions(t *testing.T) {
	got, err := ReadQuestions(strings.NewReader(`{"query":"a","passages":["p"]}`+"\n"+`{"query":"b","grades":{"x":2,"y":1,"z":0}}`), "f")
	if err != nil || !slices.Equal(got[0].Passages, []string{"p"}) || !slices.Equal(got[1].Documents, []string{"x", "y"}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if qrels := got.Qrels(); qrels["1"]["passage 1"] != 1 || qrels["2"]["x"] != 2 || qrels["2"]["z"] != 0 {
		t.Errorf("qrels %v", qrels)
	}
	for line, want := range map[string]string{
		`{"query":"a","passages":["p"],"documents":["d"]}`: "not both",
		`{"query":"a","passages":[" \n"]}`:                 "an empty passage",
		`{"query":"a","grades":{"x":0}}`:                   "no grade above 0",
	} {
		if _, err := ReadQuestions(strings.NewReader(line), "f"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	other := Questions{got[1], got[0]}
	if other.Digest() != got.Digest() {
		t.Error("the order of the questions changes the digest")
	}
	other[0].Grades = map[string]int{"x": 1}
	if other.Digest() == got.Digest() {
		t.Error("another grade does not change the digest")
	}
}
