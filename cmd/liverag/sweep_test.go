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

	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/indexer"
)

// sweptRows are the rows that a sweep printed, by name, and their order.
func sweptRows(t *testing.T, o outcome) (map[string]map[string]any, []string) {
	t.Helper()
	rows, order := map[string]map[string]any{}, []string{}
	for _, row := range decoded(t, o)["rows"].([]any) {
		name := row.(map[string]any)["name"].(string)
		rows[name], order = row.(map[string]any), append(order, name)
	}
	return rows, order
}

func sweptFigure(row map[string]any, name string) float64 {
	return row["figures"].(map[string]any)[name].(float64)
}

// recipeFiles writes recipes with the hashing model and returns the arguments that name them.
func recipeFiles(t *testing.T, recipes map[string]string) []string {
	t.Helper()
	dir := t.TempDir()
	writeAll(t, dir, recipes)
	var out []string
	for name := range recipes {
		out = append(out, filepath.Join(dir, name))
	}
	slices.Sort(out)
	return out
}

func TestSweepChunking(t *testing.T) {
	dir, page, data := t.TempDir(), filepath.Join(t.TempDir(), "s.html"), t.TempDir()
	facts := []string{"Swifts sleep in the air.", "Moles dig tunnels below the ground.", "Owls hunt mice at night.", "Herons stand still in shallow water."}
	filler := strings.Repeat("Nothing of note was written about it in that year. ", 8)
	var text, questions strings.Builder
	for i, fact := range facts {
		fmt.Fprintf(&text, "%s\n\n%s\n\n", fact, filler)
		line, _ := json.Marshal(map[string]any{"id": i, "corpus": "birds", "question": fact, "references": []map[string]any{{"text": fact}}})
		fmt.Fprintf(&questions, "%s\n", line)
	}
	writeAll(t, dir, map[string]string{"corpora/birds.md": text.String(), "questions.jsonl": questions.String()})
	recipes := recipeFiles(t, map[string]string{
		"large.yaml": "chunker: {strategy: token, tokens: 256}\nembedder: {model: hash/384}\n",
		"small.yaml": "name: little\nchunker: {strategy: recursive, tokens: 16}\nembedder: {model: hash/384}\n",
	})
	got := invoke(t, nil, "", append([]string{"sweep", "--set", dir, "--in-process", "--data", data, "--k", "1,2", "--json", "--report", page}, recipes...)...)
	if got.code != exitDone {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	rows, order := sweptRows(t, got)
	if len(rows) != 4 || order[0] != "little k=1" {
		t.Fatalf("rows %v", order)
	}
	best := rows["little k=1"]
	if best["p"].(float64) != 1 || best["difference"].(float64) != 0 {
		t.Errorf("the best differs from itself: %v", best)
	}
	// Each question asks for its own excerpt word for word, so the small chunk that is the excerpt is found. Its full stop is cut off, as in the published evaluation.
	if r := sweptFigure(best, "recall"); r < .95 {
		t.Errorf("recall %v", r)
	}
	// The same figures as the eval by itself.
	alone := decoded(t, invoke(t, nil, "", "eval", "chunking", "--set", dir, "--data", data, "--chunker", "token", "--tokens", "256", "--embedder", "hash/384", "--k", "2", "--json"))
	large := rows["large k=2"]
	for _, name := range chunkingMetrics {
		if v := sweptFigure(large, name); math.Abs(v-alone[name].(float64)) > 1e-12 {
			t.Errorf("%s is %v, by eval chunking %v", name, v, alone[name])
		}
	}
	if large["chunks"] != alone["chunks"] || large["difference"].(float64) >= 0 || math.Abs(large["difference"].(float64)-(sweptFigure(large, "iou")-sweptFigure(best, "iou"))) > 1e-12 {
		t.Errorf("large: %v", large)
	}
	if one, two := rows["large k=1"]["answer_tokens"].(float64), large["answer_tokens"].(float64); !(one > 100 && two > one) {
		t.Errorf("an answer has %v tokens, with two chunks %v", one, two)
	}
	html, err := os.ReadFile(page)
	if err != nil || strings.Count(string(html), "<svg") < 4 || strings.Contains(string(html), "<script") || !strings.Contains(string(html), "little k=1 is the best by iou") {
		t.Errorf("the report: %v, %d plots", err, strings.Count(string(html), "<svg"))
	}
	if list := invoke(t, nil, "", "eval", "list", "--data", data, "--kind", "sweep"); !strings.Contains(list.out, "sweep-") || !strings.Contains(list.out, "iou") {
		t.Errorf("not kept: %s%s", list.out, list.err)
	}
}

func TestSweepInProcess(t *testing.T) {
	set, data := birdSet(t), t.TempDir()
	recipes := recipeFiles(t, map[string]string{
		"a.yaml": "name: whole_hash\nchunker: {strategy: whole}\nembedder: {model: hash/384}\n",
		"b.yaml": "name: broken\nembedder: {model: nobody/nothing}\n",
	})
	got := invoke(t, nil, "", append([]string{"sweep", "--set", set, "--in-process", "--data", data, "--modes", "dense,hybrid", "--weights", "0.15", "--k", "50", "--metric", "ndcg@10", "--json"}, recipes...)...)
	// A recipe that can't be built fails the sweep, and is no reason to lose the others.
	if got.code != exitFailed || !strings.Contains(got.err, "broken") || !strings.Contains(got.err, "nobody") {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	rows, _ := sweptRows(t, got)
	if len(rows) != 3 || rows["whole_hash dense"] == nil || rows["whole_hash hybrid"] == nil || rows["whole_hash hybrid 0.15"] == nil {
		t.Fatalf("rows %v", rows)
	}
	for name, row := range rows {
		if row["chunks"].(float64) != 5 || row["bytes"].(float64) <= 0 || row["tokens"].(float64) <= 0 || sweptFigure(row, "mrr") < .99 {
			t.Errorf("%s: %v", name, row)
		}
	}
	if failed := decoded(t, got)["failed"].([]any); len(failed) != 1 || failed[0].(map[string]any)["recipe"] != "broken" {
		t.Errorf("failed: %v", failed)
	}
}

func TestSweepRefuses(t *testing.T) {
	set, chunking := birdSet(t), t.TempDir()
	writeAll(t, chunking, map[string]string{"corpora/a.md": "text", "questions.jsonl": `{"corpus":"a","question":"q","references":[{"text":"text"}]}` + "\n"})
	recipes := recipeFiles(t, map[string]string{"1.yaml": "tokens: 3\n", "2.yaml": "chunker: {tokens: 100}\n", "a.yaml": "name: one\n", "b.yaml": "name: one\n"})
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--set", set}, "sweep needs recipes"},
		{[]string{recipes[2]}, "sweep needs questions"},
		{[]string{recipes[2], "--set", chunking}, "--in-process"},
		{[]string{recipes[2], "--set", chunking, "--in-process", "--modes", "dense"}, "not of a set for chunking"},
		{[]string{recipes[2], "--set", chunking, "--in-process", "--metric", "ndcg@10"}, "a set for chunking has recall"},
		{[]string{recipes[2], "--set", set, "--in-process", "--sample", "0.1"}, "--sample is of a running liverag"},
		{[]string{recipes[2], "--set", set, "--sample", "0"}, "--sample is above 0"},
		{[]string{recipes[2], "--set", set, "--k", "10,1000"}, "1000"},
		{[]string{recipes[2], "--set", set, "--modes", "fast"}, "is no mode"},
		{[]string{recipes[2], "--set", set, "--weights", "2"}, "is not a weight"},
		{[]string{recipes[2], "--set", set, "--metric", "beauty"}, "beauty"},
		{[]string{recipes[2], recipes[3], "--set", set}, "the same name"},
		{[]string{recipes[1], "--set", set}, "can't name a generation"},
		{[]string{recipes[0], "--set", set}, "tokens"},
	} {
		if got := invoke(t, nil, "", append([]string{"sweep", "--data", t.TempDir()}, c.args...)...); got.code != exitUsage || !strings.Contains(got.err, c.want) {
			t.Errorf("%q: exit %d, %q", c.args, got.code, got.err)
		}
	}
}

func TestSweepRestricted(t *testing.T) {
	var questions evals.Questions
	for i := range 200 {
		id := fmt.Sprint("d", i)
		questions = append(questions, evals.Question{ID: id, Query: id, Documents: []string{id, id + "x"}, Grades: map[string]int{id: 2, id + "x": 1, id + "y": 0}})
	}
	questions = append(questions, evals.Question{ID: "p", Query: "p", Passages: []string{"text"}})
	half := restricted(questions, .5)
	documents := 0
	for _, q := range half {
		documents += len(q.Documents)
		for _, id := range q.Documents {
			if !(indexer.Extent{Sample: .5}).Samples(id) || q.Grades[id] == 0 {
				t.Errorf("%s of %+v", id, q)
			}
		}
		for id := range q.Grades {
			if !(indexer.Extent{Sample: .5}).Samples(id) {
				t.Errorf("%s is judged in %+v", id, q)
			}
		}
	}
	if documents < 150 || documents > 250 || len(half) >= len(questions) || half[len(half)-1].ID != "p" || len(questions[0].Grades) != 3 {
		t.Errorf("%d documents in %d questions", documents, len(half))
	}
	if all := restricted(questions, 1); len(all) != len(questions) {
		t.Errorf("%d questions of all", len(all))
	}
}
