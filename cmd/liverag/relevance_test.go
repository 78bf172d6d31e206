package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/demo"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/stream"
)

// TestRelevance asks the bundled questions of the demo's corpus through the whole system, in each mode, and compares where the right documents are
// with a golden file: a change of quality is reviewed as a diff. -update accepts it.
func TestRelevance(t *testing.T) {
	root, err := demo.FindGOROOT(t.Context())
	if err != nil {
		t.Skip("no Go source tree to index")
	}
	s, _ := startSystem(t, nil)
	ids := make(map[string]bool)
	var changes []stream.Change
	for d, err := range demo.Standard(root) {
		if err != nil {
			t.Fatal(err)
		}
		ids[d.ID] = true
		changes = append(changes, upsertOf(d))
	}
	receipt, err := s.log.Append(t.Context(), changes...)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.indexer.WaitApplied(t.Context(), indexer.Live, receipt.Positions); err != nil {
		t.Fatal(err)
	}
	questions := demo.Questions(func(id string) bool { return ids[id] })
	if len(questions) < 60 {
		t.Fatalf("only %d questions have answers in the corpus", len(questions))
	}
	var modes []evals.ModeAnswers
	for _, mode := range []retrieve.Mode{retrieve.Hybrid, retrieve.Dense, retrieve.Lexical} {
		answers, err := questions.Ask(t.Context(), s.searcher(indexer.Live, mode), evals.AskOptions{})
		if err != nil {
			t.Fatal(err)
		}
		modes = append(modes, evals.ModeAnswers{Mode: string(mode), Answers: answers})
	}
	// Whatever the Go version is: words alone and vectors alone are worse than both together, and the right document is mostly among the first ten.
	ndcg := func(i int) float64 { return modes[i].Answers.Report.Mean[evals.NDCG(10).String()] }
	if ndcg(0) < ndcg(1) || ndcg(0) < ndcg(2) || ndcg(0) < .55 {
		t.Errorf("nDCG@10 is %.3f hybrid, %.3f dense, %.3f lexical", ndcg(0), ndcg(1), ndcg(2))
	}
	var got bytes.Buffer
	fmt.Fprintf(&got, "# The demo's corpus of %s: %d documents, recipe markdown 200, local/static.\n", runtime.Version(), len(changes))
	if err := evals.WriteRanks(&got, modes...); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "relevance.txt")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	head := func(b []byte) string { return string(b[:bytes.IndexByte(b, '\n')]) }
	if head(want) != head(got.Bytes()) {
		t.Skipf("the golden file is of another corpus (%s); this one is %s", head(want), head(got.Bytes()))
	}
	if !bytes.Equal(want, got.Bytes()) {
		t.Errorf("ranks changed; `go test ./cmd/liverag -run Relevance -update` accepts them, and git shows the diff:\n%s", got.Bytes())
	}
}
