package evals

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var birds = Questions{
	{ID: "1", Query: "swifts", Documents: []string{"a"}},
	{ID: "2", Query: "moles", Documents: []string{"b", "c"}},
	{ID: "3", Query: "owls", Documents: []string{"d"}},
}

// fixed answers from a table: documents by query, each a hit.
func fixed(answers map[string]string) Searcher {
	return func(_ context.Context, query string, k int) ([]Ranked, error) {
		var hits []Ranked
		for _, document := range strings.Fields(answers[query]) {
			hits = append(hits, Ranked{Document: document})
		}
		return hits[:min(k, len(hits))], nil
	}
}

func TestAsk(t *testing.T) {
	// Hits of the same document count once, in the order of the best: x a a b is x, a, b.
	answers, err := birds.Ask(t.Context(), fixed(map[string]string{"swifts": "x x a x b", "moles": "c b"}), AskOptions{Metrics: []Metric{MRR(0), Recall(2)}})
	if err != nil {
		t.Fatal(err)
	}
	var ranks []int
	for _, a := range answers.Answers {
		ranks = append(ranks, a.Rank)
	}
	if !slices.Equal(ranks, []int{2, 1, 0}) || !slices.Equal(answers.Answers[0].Documents, []string{"x", "a", "b"}) {
		t.Errorf("ranks %v, documents %v", ranks, answers.Answers[0].Documents)
	}
	checkNear(t, "mrr", answers.Report.Mean["mrr"], 0.5)
	checkNear(t, "recall@2", answers.Report.Mean["recall@2"], 2./3)
}

func TestAskBoundsConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var questions Questions
		for i := range 10 {
			questions = append(questions, Question{ID: string(rune('a' + i)), Query: "q", Documents: []string{"d"}})
		}
		var mu sync.Mutex
		running, most := 0, 0
		search := func(context.Context, string, int) ([]Ranked, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			running--
			mu.Unlock()
			return nil, nil
		}
		var steps []int
		start := time.Now()
		_, err := questions.Ask(t.Context(), search, AskOptions{Concurrency: 3, Progress: func(done, of int) { steps = append(steps, done*100+of) }})
		if err != nil {
			t.Fatal(err)
		}
		if most != 3 || time.Since(start) != 4*time.Second {
			t.Errorf("at most %d at once in %v, want 3 in 4s", most, time.Since(start))
		}
		if len(steps) != 10 || steps[0] != 110 || steps[9] != 1010 {
			t.Errorf("progress %v", steps)
		}
	})
}

func TestAskEnds(t *testing.T) {
	broken := errors.New("broken")
	var asked atomic.Int32
	_, err := birds.Ask(t.Context(), func(context.Context, string, int) ([]Ranked, error) {
		asked.Add(1)
		return nil, broken
	}, AskOptions{Concurrency: 1})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "question 1") || asked.Load() > 2 {
		t.Errorf("error %v after %d questions", err, asked.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := birds.Ask(ctx, fixed(nil), AskOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := append(birds[:2:2], birds[0]).Ask(t.Context(), fixed(nil), AskOptions{}); err == nil {
		t.Error("two questions of one id were accepted")
	}
}

func TestWriteRanks(t *testing.T) {
	metrics := []Metric{Recall(10), NDCG(10), MRR(0)}
	ask := func(answers map[string]string) Answers {
		a, err := birds.Ask(t.Context(), fixed(answers), AskOptions{Metrics: metrics})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	dense := ModeAnswers{"dense", ask(map[string]string{"swifts": "x a", "moles": "b c", "owls": "x y z"})}
	lexical := ModeAnswers{"lexical", ask(map[string]string{"swifts": "a", "moles": "x y z u v w s t r q c", "owls": "d"})}
	var got bytes.Buffer
	if err := WriteRanks(&got, dense, lexical); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/ranks.txt", got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/ranks.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got\n%s\nwant\n%s", got.Bytes(), want)
	}

	short := ModeAnswers{"short", Answers{Answers: dense.Answers.Answers[:1]}}
	if err := WriteRanks(&got, dense, short); err == nil {
		t.Error("modes with other questions were accepted")
	}
	if err := WriteRanks(&got); err == nil {
		t.Error("no modes were accepted")
	}
}
