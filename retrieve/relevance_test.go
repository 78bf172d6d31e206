package retrieve

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/local"
	"github.com/liverag/liverag/vectordb"
	"github.com/liverag/liverag/vectordb/flat"
)

// TestRelevance is the measurement that DefaultFusion was chosen by: nDCG@10 of whole documents under local/static and BM25, over two public collections. It
// holds the default to what it reached, and to being no worse than either leg or than reciprocal rank fusion.
func TestRelevance(t *testing.T) {
	shared := os.Getenv("LIVERAG_SHARED")
	if shared == "" {
		t.Skip("LIVERAG_SHARED names no directory with data/beir")
	}
	for collection, known := range map[string]float64{"cranfield": .365, "scifact": .692} {
		t.Run(collection, func(t *testing.T) {
			judged := search(t, filepath.Join(shared, "data/beir", collection))
			got := judged.meanNDCG(DefaultFusion)
			t.Logf("%-16s nDCG@10 %.4f, the default", DefaultFusion.Name(), got)
			if got < known-.004 {
				t.Errorf("nDCG@10 is %.4f, known to be %.3f", got, known)
			}
			others := []Fusion{RRF{RRFConstant, 1, 0}, RRF{RRFConstant, 0, 1}, RRF{RRFConstant, .25, 1}, RRF{RRFConstant, 1, 1}, Convex{.05}, Convex{.1}, Convex{.2}, Convex{.3}, Convex{.5}}
			for _, f := range others {
				other := judged.meanNDCG(f)
				t.Logf("%-16s nDCG@10 %.4f", f.Name(), other)
				if other > got+.004 {
					t.Errorf("%s is better: %.4f against %.4f", f.Name(), other, got)
				}
			}
		})
	}
}

// judgedQuery is what both legs brought for a query, and which documents answer it.
type judgedQuery struct {
	dense, lexical []vectordb.Candidate
	gains          map[string]float64
}

type judgedQueries []judgedQuery

// search indexes a collection and runs both legs of its test queries.
func search(t *testing.T, dir string) (out judgedQueries) {
	t.Helper()
	model, err := local.NewStatic()
	if err != nil {
		t.Fatal(err)
	}
	store, err := flat.Open(t.TempDir(), flat.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	const generation = "relevance"
	if err := store.Create(t.Context(), vectordb.Generation{Name: generation, Fingerprint: "f", Dim: model.Dim()}); err != nil {
		t.Fatal(err)
	}
	ids, texts := readTexts(t, filepath.Join(dir, "corpus.jsonl"))
	var w vectordb.Write
	for i, id := range ids {
		vectors, err := model.Embed(t.Context(), embedder.Index, texts[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		r := vectordb.Revision{Key: id, Version: 1, Text: texts[i]}
		if strings.TrimSpace(texts[i]) != "" {
			r.Entries = []vectordb.Entry{{End: len(texts[i]), Tokens: 1, Hash: vectordb.Hash{byte(i), byte(i >> 8)}, Vector: vectors[0]}}
		}
		w.Revisions = append(w.Revisions, r)
	}
	if err := store.Apply(t.Context(), generation, w); err != nil {
		t.Fatal(err)
	}

	judgements := map[string]map[string]float64{}
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
		if judgements[f[0]] == nil {
			judgements[f[0]] = map[string]float64{}
		}
		judgements[f[0]][f[1]] = gain
	}
	queries, questions := readTexts(t, filepath.Join(dir, "queries.jsonl"))
	for i, id := range queries {
		if judgements[id] == nil {
			continue
		}
		q := judgedQuery{gains: judgements[id]}
		vectors, err := model.Embed(t.Context(), embedder.Query, questions[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Search(t.Context(), generation, vectordb.Query{Vector: vectors[0], Text: questions[i], Depth: MinDepth,
			Fuse: func(dense, lexical []vectordb.Candidate) []vectordb.Candidate {
				q.dense, q.lexical = slices.Clone(dense), slices.Clone(lexical)
				return nil
			}})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, q)
	}
	return out
}

// meanNDCG is nDCG@10 with linear gains; equal scores go by document id, descending.
func (all judgedQueries) meanNDCG(f Fusion) float64 {
	var sum float64
	for _, q := range all {
		ranked := f.Fuse(q.dense, q.lexical, 2*MinDepth)
		slices.SortFunc(ranked, func(a, b vectordb.Candidate) int {
			return cmp.Or(cmp.Compare(float32(b.Score), float32(a.Score)), strings.Compare(b.Key, a.Key))
		})
		var ideal []float64
		for _, gain := range q.gains {
			ideal = append(ideal, gain)
		}
		slices.SortFunc(ideal, func(a, b float64) int { return cmp.Compare(b, a) })
		var got, best float64
		for i := range 10 {
			if i < len(ranked) {
				got += q.gains[ranked[i].Key] / math.Log2(float64(i+2))
			}
			if i < len(ideal) {
				best += ideal[i] / math.Log2(float64(i+2))
			}
		}
		if best > 0 {
			sum += got / best
		}
	}
	return sum / float64(len(all))
}

// readTexts reads JSON lines of _id, title and text.
func readTexts(t *testing.T, path string) (ids, texts []string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var d struct {
			ID          string `json:"_id"`
			Title, Text string
		}
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			t.Fatal(fmt.Errorf("%s: %w", path, err))
		}
		ids, texts = append(ids, d.ID), append(texts, strings.TrimSpace(d.Title+" "+d.Text))
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return ids, texts
}
