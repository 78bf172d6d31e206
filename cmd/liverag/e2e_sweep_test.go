package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// manyBirds writes a set in BEIR's layout with so many documents that a sample has a part of them.
func manyBirds(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var corpus, queries, qrels strings.Builder
	qrels.WriteString("query-id\tcorpus-id\tscore\n")
	names := strings.Fields("swift mole owl heron stork crane wren robin rook raven tern gull eider teal coot rail quail lark pipit finch")
	places := strings.Fields("valley harbour orchard quarry meadow")
	for i := range 100 {
		name, place := names[i%len(names)], places[i/len(names)]
		fmt.Fprintf(&corpus, `{"_id":"doc %d","title":"Of the %s","text":"The %s of the %s sleeps there. Number %d was counted twice in the %s, and rings were lost."}`+"\n", i, name, name, place, i, place)
		if i%3 == 0 {
			fmt.Fprintf(&queries, `{"_id":"q%d","text":"where does the %s of the %s sleep"}`+"\n", i, name, place)
			fmt.Fprintf(&qrels, "q%d\tdoc %d\t1\n", i, i)
		}
	}
	writeAll(t, dir, map[string]string{"corpus.jsonl": corpus.String(), "queries.jsonl": queries.String(), "qrels/test.tsv": qrels.String()})
	return dir
}

// printed runs a verb of the program against a server and decodes what it printed.
func printed(t *testing.T, p *program, out any, args ...string) string {
	t.Helper()
	cmd := liverag(t, append(args, "--server", p.base, "--json")...)
	var said strings.Builder
	cmd.Stderr = &said
	got, err := cmd.Output()
	if err != nil {
		t.Fatalf("liverag %q: %v\n%s", args, err, said.String())
	}
	if out != nil {
		if err := json.Unmarshal(got, out); err != nil {
			t.Fatalf("liverag %q: %v in %q", args, err, got)
		}
	}
	return string(got)
}

// TestEvalRetrievalOfAProgram imports a small set into a running program and evaluates it over HTTP: the figures are those computed by hand.
func TestEvalRetrievalOfAProgram(t *testing.T) {
	set := birdSet(t)
	p := startProgram(t, t.TempDir(), "--embedder", "hash/384", "--chunker", "whole")
	args := []string{"eval", "retrieval", "--set", set, "--data", p.data, "--mode", "lexical", "--metric", "ndcg@3"}

	cmd := liverag(t, append(args, "--server", p.base)...)
	said, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(said), "has none of the documents that answer the questions") || !strings.Contains(string(said), "liverag import "+filepath.Join(set, "corpus.jsonl")) {
		t.Errorf("a set that is not indexed: %v, %s", err, said)
	}

	printed(t, p, nil, "import", filepath.Join(set, "corpus.jsonl"), "--wait", "30s")
	var out map[string]any
	printed(t, p, &out, args...)
	// By words alone: a finds 1 and b finds 2 first. c finds 3 first, and never 4, which has none of its words: so recall and MAP of c are a half,
	// and its nDCG is 1 / (1 + 1/log2(3)).
	half := 1 / (1 + 1/math.Log2(3))
	for name, want := range map[string]float64{
		"mrr": 1, "recall@10": (1 + 1 + .5) / 3, "recall@100": (1 + 1 + .5) / 3, "map": (1 + 1 + .5) / 3, "p@1": 1, "p@5": .2, "p@10": .1,
		"ndcg@10": (2 + half) / 3, "ndcg@3": (2 + half) / 3, "queries": 3, "answered": 3,
	} {
		if v, ok := out[name].(float64); !ok || math.Abs(v-want) > 1e-9 {
			t.Errorf("%s is %v, want %v", name, out[name], want)
		}
	}
	target := out["target"].(map[string]any)
	live := target["generation"].(string)
	if !strings.HasPrefix(live, "whole") || target["server"] != p.base {
		t.Errorf("target %v", target)
	}

	// Another generation, by its name.
	printed(t, p, nil, "replay", "--name", "words", "--chunker", "token", "--tokens", "16", "--until-caught-up")
	printed(t, p, &out, append(slices.Clone(args), "--generation", "words")...)
	if target := out["target"].(map[string]any); target["generation"] != "words" || target["recipe"] != "token 16, hash/384" {
		t.Errorf("target %v", target)
	}
	if v := out["ndcg@10"].(float64); math.Abs(v-(2+half)/3) > 1e-9 {
		t.Errorf("ndcg@10 of the other generation is %v", v)
	}
	if said, err := liverag(t, append(slices.Clone(args), "--server", p.base, "--generation", "nobody")...).CombinedOutput(); err == nil || !strings.Contains(string(said), "nobody") {
		t.Errorf("a generation that is not there: %v, %s", err, said)
	}
}

// TestSweepOfAProgram sweeps recipes over a running program: generations are made, ranked, used again and dropped.
func TestSweepOfAProgram(t *testing.T) {
	set := manyBirds(t)
	p := startProgram(t, t.TempDir(), "--embedder", "hash/384")
	printed(t, p, nil, "import", filepath.Join(set, "corpus.jsonl"), "--wait", "30s")
	recipes := recipeFiles(t, map[string]string{
		"fine.yaml":  "chunker: {strategy: token, tokens: 16}\n",
		"whole.yaml": "name: in_one\nchunker: {strategy: whole}\nembedder: {model: hash/64}\n",
	})
	args := append([]string{"sweep", "--set", set, "--data", p.data, "--concurrency", "4", "--k", "50"}, recipes...)
	generations := func() []string {
		var all []generation
		printed(t, p, &all, "generations")
		var out []string
		for _, g := range all {
			out = append(out, g.Name)
		}
		return out
	}
	before := generations()

	rows := func(more ...string) map[string]map[string]any {
		rows, _ := sweptRows(t, outcome{out: printed(t, p, nil, append(slices.Clone(args), more...)...)})
		return rows
	}
	got := rows("--keep", "--modes", "hybrid,dense,lexical", "--weights", "0,0.15,1")
	if len(got) != 12 {
		t.Fatalf("rows: %v", got)
	}
	if now := generations(); !slices.Contains(now, "fine") || !slices.Contains(now, "in_one") {
		t.Errorf("with --keep there are %v", now)
	}
	// What is fused here is what the server fuses: its weight for this model is .15, and 50 hits are of legs 200 deep.
	for _, recipe := range []string{"fine", "in_one"} {
		for name, like := range map[string]string{"hybrid 0.15": "hybrid"} {
			a, b := got[recipe+" "+name], got[recipe+" "+like]
			for _, metric := range []string{"ndcg@10", "mrr", "map"} {
				if x, y := sweptFigure(a, metric), sweptFigure(b, metric); math.Abs(x-y) > 1e-12 {
					t.Errorf("%s %s: %s %v, of %s %v", recipe, name, metric, x, like, y)
				}
			}
		}
	}
	if r := got["in_one hybrid"]; r["chunks"].(float64) != 100 || r["generation"] != "in_one" || r["latency_p50"].(float64) <= 0 || r["bytes"].(float64) <= 0 {
		t.Errorf("in_one: %v", r)
	}

	// Those that are there are used as they are, and not dropped: an earlier sweep was told to keep them.
	again := rows()
	if x, y := sweptFigure(again["fine"], "ndcg@10"), sweptFigure(got["fine hybrid"], "ndcg@10"); x != y {
		t.Errorf("again: ndcg@10 %v, before %v", x, y)
	}
	if now := generations(); !slices.Contains(now, "fine") {
		t.Errorf("dropped what was there before: %v", now)
	}
	for _, name := range []string{"fine", "in_one"} {
		printed(t, p, nil, "drop", name)
	}

	// Interrupted after its replay, as its note says: the next run takes over what it made, and drops it.
	printed(t, p, nil, "replay", "--name", "fine", "--chunker", "token", "--tokens", "16", "--until-caught-up")
	notes, err := filepath.Glob(filepath.Join(p.data, "evals", "sweeps", "*"))
	if err != nil || len(notes) != 1 {
		t.Fatalf("notes %v, %v", notes, err)
	}
	if err := os.WriteFile(filepath.Join(notes[0], "fine"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	rows()
	if now := generations(); !slices.Equal(now, before) {
		t.Errorf("left behind: %v, there were %v", now, before)
	}
	if left, _ := os.ReadDir(notes[0]); len(left) > 0 {
		t.Errorf("notes left behind: %v", left)
	}

	// A note of a generation that was dropped since, and made anew by somebody: that one stays.
	printed(t, p, nil, "replay", "--name", "fine", "--chunker", "token", "--tokens", "16", "--until-caught-up")
	if err := os.WriteFile(filepath.Join(notes[0], "fine"), []byte("2020-01-01T00:00:00Z"), 0o644); err != nil {
		t.Fatal(err)
	}
	rows()
	if now := generations(); !slices.Contains(now, "fine") || slices.Contains(now, "in_one") {
		t.Errorf("with a note of another one there are %v", now)
	}
	printed(t, p, nil, "drop", "fine")

	// A sample has a part of the documents, and is asked what they can answer.
	part := decoded(t, outcome{out: printed(t, p, nil, append(slices.Clone(args), "--sample", "0.5")...)})
	if n := part["queries"].(float64); n < 5 || n > 30 {
		t.Errorf("asked %v questions of half of the documents, of 34", n)
	}
	for _, row := range part["rows"].([]any) {
		r := row.(map[string]any)
		if sweptFigure(r, "recall@100") < .99 || !strings.HasSuffix(r["generation"].(string), "_sample0_5") {
			t.Errorf("of the sample: %v", r)
		}
	}
	if now := generations(); !slices.Equal(now, before) {
		t.Errorf("left behind: %v, there were %v", now, before)
	}

	// A name that another recipe has is refused, and that generation stays.
	printed(t, p, nil, "replay", "--name", "fine", "--chunker", "token", "--tokens", "32", "--until-caught-up")
	said, err := liverag(t, append(slices.Clone(args), "--server", p.base)...).CombinedOutput()
	if err == nil || !strings.Contains(string(said), "generation_exists") || !strings.Contains(string(said), "in_one") {
		t.Errorf("a taken name: %v, %s", err, said)
	}
	if now := generations(); !slices.Contains(now, "fine") {
		t.Errorf("dropped a generation of somebody else: %v", now)
	}
}
