package local

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
)

// TestRelevance holds each model to the retrieval quality it is known for, by exact search over two public collections, or over a part of one where the model is slow.
func TestRelevance(t *testing.T) {
	shared := os.Getenv("LIVERAG_SHARED")
	if shared == "" {
		t.Skip("LIVERAG_SHARED names no directory with data/beir")
	}
	for _, c := range []struct {
		model      embedder.Embedder
		collection string
		nDCG       float64
		// share is one of how many questions are asked, of their documents and that share of the others.
		share int
	}{
		{newStatic(t), "cranfield", .256, 1},
		{newStatic(t), "scifact", .396, 1},
		{newMiniLM(t), "scifact", .885, 20},
		{newMiniLM(t), "scifact", .645, 1},
		{newMiniLM(t), "cranfield", .374, 1},
		// What hash/384 reached when it was written.
		{embedder.NewHash(384), "cranfield", .220, 1},
		{embedder.NewHash(384), "scifact", .383, 1},
	} {
		t.Run(fmt.Sprintf("%s %s one of %d", c.model.Name(), c.collection, c.share), func(t *testing.T) {
			if _, slow := c.model.(*MiniLM); slow && c.share == 1 && os.Getenv("LIVERAG_RELEVANCE") != "all" {
				t.Skip("LIVERAG_RELEVANCE is not all: this takes minutes")
			}
			got := meanNDCG(t, c.model, filepath.Join(shared, "data/beir", c.collection), c.share)
			t.Logf("nDCG@10 %.4f", got)
			if got < c.nDCG-.004 {
				t.Errorf("nDCG@10 is %.4f, known to be %.3f", got, c.nDCG)
			}
		})
	}
}

// meanNDCG is nDCG@10 with linear gains over the test queries; equal scores go by document id, descending.
func meanNDCG(t *testing.T, model embedder.Embedder, dir string, share int) float64 {
	docs, texts := readTexts(t, filepath.Join(dir, "corpus.jsonl"))
	queries, questions := readTexts(t, filepath.Join(dir, "queries.jsonl"))
	gains := make(map[string]map[string]float64)
	raw, err := os.ReadFile(filepath.Join(dir, "qrels/test.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		gain, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			continue // the heading
		}
		if gains[f[0]] == nil {
			gains[f[0]] = make(map[string]float64)
		}
		gains[f[0]][f[1]] = gain
	}
	if share > 1 {
		asked := make(map[string]map[string]float64)
		kept := make(map[string]bool)
		for i, id := range slices.Sorted(maps.Keys(gains)) {
			if i%share == 0 {
				asked[id] = gains[id]
				for doc := range gains[id] {
					kept[doc] = true
				}
			}
		}
		gains = asked
		n := 0
		for i := range docs {
			if i%share == 0 || kept[docs[i]] {
				docs[n], texts[n] = docs[i], texts[i]
				n++
			}
		}
		docs, texts = docs[:n], texts[:n]
		n = 0
		for i := range queries {
			if gains[queries[i]] != nil {
				queries[n], questions[n] = queries[i], questions[i]
				n++
			}
		}
		queries, questions = queries[:n], questions[:n]
	}
	vectors, asked := embed(t, model, texts...), embed(t, model, questions...)
	var sum float64
	order := make([]int, len(docs))
	scores := make([]float32, len(docs))
	for q, id := range queries {
		if gains[id] == nil {
			continue
		}
		for i := range docs {
			order[i], scores[i] = i, float32(cosine(vectors[i], asked[q]))
		}
		slices.SortFunc(order, func(a, b int) int {
			return cmp.Or(cmp.Compare(scores[b], scores[a]), strings.Compare(docs[b], docs[a]))
		})
		ideal := make([]float64, 0, len(gains[id]))
		for _, g := range gains[id] {
			ideal = append(ideal, g)
		}
		slices.SortFunc(ideal, func(a, b float64) int { return cmp.Compare(b, a) })
		var got, best float64
		for rank := range 10 {
			discount := math.Log2(float64(rank) + 2)
			got += gains[id][docs[order[rank]]] / discount
			if rank < len(ideal) {
				best += ideal[rank] / discount
			}
		}
		if best > 0 {
			sum += got / best
		}
	}
	return sum / float64(len(gains))
}

func readTexts(t testing.TB, path string) (ids, texts []string) {
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var d struct {
			ID    string `json:"_id"`
			Title string `json:"title"`
			Text  string `json:"text"`
		}
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		ids, texts = append(ids, d.ID), append(texts, strings.TrimSpace(d.Title+" "+d.Text))
	}
	return ids, texts
}
