package evals

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/local"
)

// paragraphs cuts at empty lines, and tells what came before as context.
type paragraphs struct{}

func (paragraphs) Name() string { return "paragraphs" }

func (paragraphs) Split(_ context.Context, _, text string) (out []chunker.Chunk, _ error) {
	start := 0
	for part := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n\n") {
		c := chunker.Chunk{Start: start, End: start + len(part), Tokens: len(strings.Fields(part))}
		if start > 0 {
			c.Context = "after"
		}
		out = append(out, c)
		start += len(part) + 2
	}
	return out, nil
}

// recorder embeds by hash and remembers what it read.
type recorder struct {
	*embedder.Hash
	inputs map[embedder.Role][]string
}

func (r *recorder) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	r.inputs[role] = append(r.inputs[role], inputs...)
	return r.Hash.Embed(ctx, role, inputs)
}

func TestChunkingSet(t *testing.T) {
	set, err := OpenChunkingSet("testdata/chunking")
	if err != nil {
		t.Fatal(err)
	}
	want := [][]Span{{{"birds", 0, 24}}, {{"birds", 54, 83}, {"birds", 43, 53}}, {{"owls", 41, 51}}}
	for i, q := range set.Questions {
		if !slices.Equal(q.Excerpts, want[i]) {
			t.Errorf("question %s: excerpts %v, want %v", q.ID, q.Excerpts, want[i])
		}
	}
	if ids := []string{set.Questions[0].ID, set.Questions[1].ID, set.Questions[2].ID}; !slices.Equal(ids, []string{"7", "2", "owl"}) {
		t.Errorf("ids %v", ids)
	}
	model := &recorder{embedder.NewHash(256), map[embedder.Role][]string{}}
	last := 0
	run, err := set.Run(t.Context(), paragraphs{}, model, ChunkingOptions{K: 1, Progress: func(done, of int) { last = 10*done + of }})
	if err != nil {
		t.Fatal(err)
	}
	if last != 77 {
		t.Errorf("progress ended at %d", last)
	}
	inputs := []string{"Swifts sleep in the air. Über den Wolken.", "after\nMoles dig. Moles sleep below the ground.", "Owls hunt at night.", "after\nOwls hunt at night, and by day."}
	if !slices.Equal(model.inputs[embedder.Index], inputs) || len(model.inputs[embedder.Query]) != 3 {
		t.Errorf("the model read %q", model.inputs)
	}
	// Chunks 0 to 3 are the paragraphs. Of the first, 41 characters, 40 count: the full stop at a chunk's end does not. The second is 40 long, 39 of which count; the
	// excerpts are 39 of it, and 38 of those count.
	var retrieved []int
	for _, a := range run.Answers {
		retrieved = append(retrieved, a.Retrieved...)
	}
	if !slices.Equal(retrieved, []int{0, 1, 3}) {
		t.Fatalf("retrieved %v", retrieved)
	}
	first, second := run.Answers[0], run.Answers[1]
	checkNear(t, "first recall", first.Score.Recall, 1)
	checkNear(t, "first precision", first.Score.Precision, 24./40)
	checkNear(t, "first exact precision", first.Exact.Precision, 24./41)
	checkNear(t, "second recall", second.Score.Recall, 38./39)
	checkNear(t, "second exact recall", second.Exact.Recall, 1)
	// The last paragraph is where it is; that its first words stand before it too does not matter, since all of it does not.
	checkNear(t, "third exact precision", run.Answers[2].Exact.Precision, 10./31)
	checkNear(t, "recall", run.Mean.Recall, (1+38./39+1)/3)
	checkNear(t, "deviation", run.Deviation.Recall, math.Sqrt(2)/3/39)
	checkNear(t, "mean tokens", run.MeanTokens(), (8+7+4+7)/4.)

	figures := map[string]float64{}
	for _, f := range run.Figures() {
		figures[f.Name] = f.Value
	}
	for _, name := range []string{"recall", "recall_std", "precision", "precision_std", "precision_omega", "precision_omega_std", "iou", "iou_std", "exact.recall", "chunks", "mean_tokens", "queries"} {
		if _, ok := figures[name]; !ok {
			t.Errorf("there is no figure %s in %v", name, figures)
		}
	}
	encoded, err := set.Detail(run)
	if err != nil {
		t.Fatal(err)
	}
	var detail ChunkingDetail
	if err := json.Unmarshal(encoded, &detail); err != nil || len(detail.Questions) != 3 {
		t.Fatalf("%s: %v", encoded, err)
	}
	if q := detail.Questions[2]; q.ID != "owl" || q.Source != "owls" || !reflect.DeepEqual(q.Retrieved, []ChunkPlace{{"owls", 21, 52}}) {
		t.Errorf("got %+v", q)
	}
}

// TestChunkMisplaced: a chunk whose text occurs before it is looked up there, as in the published code; exact figures know better.
func TestChunkMisplaced(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "corpora/a.md", "one two\n\nthree\n\none two\n")
	write(t, dir, "questions.jsonl", `{"corpus":"a","question":"one two","references":[{"text":"one two","start":16,"end":23}]}`)
	set, err := OpenChunkingSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := set.cut(t.Context(), paragraphs{})
	if err != nil {
		t.Fatal(err)
	}
	var a ChunkingAnswer
	a.Retrieved = []int{2}
	c.score(set.Questions[0].ExcerptQuestion, &a)
	if a.Score.Recall != 0 || a.Exact.Recall != 1 || c.found[2] != c.found[0] {
		t.Errorf("%+v, found %v", a, c.found)
	}
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestChunkingSetRefuses(t *testing.T) {
	const good = `{"corpus":"a","question":"q","references":[{"text":"äb"}]}`
	for _, c := range []struct{ questions, want string }{
		{"", "no questions"},
		{"x", "questions.jsonl:1"},
		{good + "\n" + `{"id":"1","corpus":"a","question":"q","references":[{"text":"äb"}]}`, "questions.jsonl:2: question 1 is there twice"},
		{`{"corpus":"b","question":"q","references":[{"text":"x"}]}`, "corpora/b.md"},
		{`{"corpus":"a","references":[{"text":"x"}]}`, `no "question"`},
		{`{"corpus":"a","question":"q"}`, `no "references"`},
		{`{"corpus":"a","question":"q","references":[{"start":0,"end":1}]}`, `no "text"`},
		{`{"corpus":"a","question":"q","references":[{"text":"zz"}]}`, `"zz" is not in corpora/a.md`},
		{`{"corpus":"a","question":"q","references":[{"text":"äb","start":1,"end":3}]}`, "another text"},
		{`{"corpus":"a","question":"q","references":[{"text":"äb","start":0,"end":30}]}`, "another text"},
		{`{"corpus":"a","question":"q","references":[{"text":"äb","start":-1,"end":2}]}`, "another text"},
		{`{"corpus":"a","question":"q","references":[{"text":"äb","start":2,"end":0}]}`, "another text"},
	} {
		dir := t.TempDir()
		write(t, dir, "corpora/a.md", "äbc")
		write(t, dir, "questions.jsonl", c.questions)
		if _, err := OpenChunkingSet(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.questions, err, c.want)
		}
	}
	dir := t.TempDir()
	if _, err := OpenChunkingSet(dir); err == nil || !strings.Contains(err.Error(), "corpora") {
		t.Errorf("without texts: %v", err)
	}
	write(t, dir, "corpora/a.md", "\xff")
	if _, err := OpenChunkingSet(dir); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("not UTF-8: %v", err)
	}
}

func TestNearest(t *testing.T) {
	vectors := [][]float32{{1, 0, 0, 0, 0}, {0, 0, 0, 0, 0}, {0, 1, 0, 0, 0}, {.6, 0, 0, 0, .8}, {1, 0, 0, 0, 0}}
	got, similarities := nearest([]float32{.6, 0, 0, 0, .8}, vectors, 3)
	if !slices.Equal(got, []int{3, 0, 4}) || len(similarities) != 3 || similarities[1] != .6 {
		t.Errorf("got %v, %v", got, similarities)
	}
	if got, _ := nearest([]float32{0, 1, 0, 0, 0}, vectors, 9); !slices.Equal(got, []int{2, 0, 3, 4}) {
		t.Errorf("all of them: %v", got)
	}
}

// wordPieces counts as the model reads.
type wordPieces struct{}

func (wordPieces) Count(text string) int { return local.CountWordPieces(text) }

// published are the rows of Chroma's report, whose P_omega depends on the chunker alone: mean and deviation in percent. The last ones are its rows for
// MiniLM, which were cut by word pieces.
var published = []struct {
	options          chunker.Options
	omega, deviation float64
	chunks           int // as counted with the published code; 0: not known
}{
	{chunker.Options{Strategy: chunker.Recursive, Tokens: 800, Overlap: 400}, 6.7, 5.2, 704},
	{chunker.Options{Strategy: chunker.Token, Tokens: 800, Overlap: 400}, 4.7, 3.1, 819},
	{chunker.Options{Strategy: chunker.Recursive, Tokens: 400, Overlap: 200}, 13.9, 10.4, 1412},
	{chunker.Options{Strategy: chunker.Token, Tokens: 400, Overlap: 200}, 8.4, 5.1, 1639},
	{chunker.Options{Strategy: chunker.Recursive, Tokens: 400}, 17.7, 14.0, 1187},
	{chunker.Options{Strategy: chunker.Token, Tokens: 400}, 12.5, 8.1, 824},
	{chunker.Options{Strategy: chunker.Recursive, Tokens: 200}, 29.9, 18.4, 2386},
	{chunker.Options{Strategy: chunker.Token, Tokens: 200}, 21.0, 11.9, 1644},
	{chunker.Options{Strategy: chunker.Recursive, Tokens: 250, Overlap: 125, Tokenizer: chunker.MiniLM, Counter: wordPieces{}}, 21.9, 14.9, 0},
	{chunker.Options{Strategy: chunker.Recursive, Tokens: 250, Tokenizer: chunker.MiniLM, Counter: wordPieces{}}, 26.7, 18.3, 1980},
	{chunker.Options{Strategy: chunker.Recursive, Tokens: 200, Tokenizer: chunker.MiniLM, Counter: wordPieces{}}, 31.2, 18.4, 2523},
}

// sharedCuts cuts the set once with each chunker, for all tests.
func sharedCuts(t *testing.T, set *ChunkingSet, with chunker.Chunker) cuts {
	t.Helper()
	once, _ := cutOnce.LoadOrStore(with.Name(), sync.OnceValues(func() (cuts, error) { return set.cut(context.Background(), with) }))
	cuts, err := once.(func() (cuts, error))()
	if err != nil {
		t.Fatal(err)
	}
	return cuts
}

var cutOnce sync.Map

// TestPublishedOmega reproduces the P_omega of every published row of the strategies that are here.
func TestPublishedOmega(t *testing.T) {
	set, err := OpenChunkingSet(shared(t, "chroma-chunking"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range published {
		cut, err := chunker.New(row.options)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(cut.Name(), func(t *testing.T) {
			t.Parallel()
			cuts := sharedCuts(t, set, cut)
			answers := make([]ChunkingAnswer, len(set.Questions))
			for i, q := range set.Questions {
				answers[i].Score = ScoreChunking(q.ExcerptQuestion, cuts.found, nil)
			}
			mean, deviation := summarise(answers, func(a *ChunkingAnswer) *ChunkingScore { return &a.Score })
			t.Logf("P_omega %.2f ± %.2f, %d chunks", 100*mean.PrecisionOmega, 100*deviation.PrecisionOmega, len(cuts.chunks))
			// The published figures have one decimal.
			const rounding = .05 + 1e-9
			if math.Abs(100*mean.PrecisionOmega-row.omega) > rounding || math.Abs(100*deviation.PrecisionOmega-row.deviation) > rounding {
				t.Errorf("P_omega %.3f ± %.3f, published %.1f ± %.1f", 100*mean.PrecisionOmega, 100*deviation.PrecisionOmega, row.omega, row.deviation)
			}
			if row.chunks != 0 && row.chunks != len(cuts.chunks) {
				t.Errorf("%d chunks, want %d", len(cuts.chunks), row.chunks)
			}
		})
	}
}

// chunkingReference is a file of the reference: what the published code computed with one chunker and model.
type chunkingReference struct {
	Chunker       string
	Size, Overlap int
	Model         string
	Chunks        [][]any // source, …
	Top5          [][]int
	Published     referenceScores `json:"scores_as_published_code"`
	Exact         referenceScores `json:"scores_true_offsets"`
}

type referenceScores map[string]struct{ Mean, Std float64 }

func (want referenceScores) check(t *testing.T, what string, mean, deviation ChunkingScore, recallWithin, restWithin float64) {
	t.Helper()
	for _, f := range []struct {
		name            string
		mean, deviation float64
		within          float64
	}{
		{"recall", mean.Recall, deviation.Recall, recallWithin}, {"precision", mean.Precision, deviation.Precision, restWithin},
		{"precision_omega", mean.PrecisionOmega, deviation.PrecisionOmega, restWithin}, {"iou", mean.IoU, deviation.IoU, restWithin},
	} {
		w, ok := want[f.name]
		if !ok {
			t.Fatalf("the reference has no %s", f.name)
		}
		if math.Abs(f.mean-w.Mean) > f.within || math.Abs(f.deviation-w.Std) > f.within {
			t.Errorf("%s, %s: %.5f ± %.5f, want %.5f ± %.5f", what, f.name, f.mean, f.deviation, w.Mean, w.Std)
		}
	}
}

// references calls do for every file of the reference.
func references(t *testing.T, do func(t *testing.T, set *ChunkingSet, cut chunker.Chunker, want *chunkingReference)) {
	set, err := OpenChunkingSet(shared(t, "chroma-chunking"))
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(shared(t, "chroma-chunking", "reference", "*", "*.json"))
	if len(files) < 5 {
		t.Fatalf("the reference has %d files", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file))+"/"+strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want chunkingReference
			if err := json.Unmarshal(content, &want); err != nil {
				t.Fatal(err)
			}
			options := chunker.Options{Strategy: chunker.Recursive, Tokens: want.Size, Overlap: want.Overlap}
			if strings.HasPrefix(want.Chunker, "Token") || strings.HasPrefix(want.Chunker, "FixedToken") {
				options.Strategy = chunker.Token
			}
			if strings.HasPrefix(filepath.Base(file), "Rwordpiece") {
				options.Tokenizer, options.Counter = chunker.MiniLM, wordPieces{}
			}
			cut, err := chunker.New(options)
			if err != nil {
				t.Fatal(err)
			}
			do(t, set, cut, &want)
		})
	}
}

// TestReferenceScores scores what the reference retrieved, and gets what the published code got.
func TestReferenceScores(t *testing.T) {
	references(t, func(t *testing.T, set *ChunkingSet, cut chunker.Chunker, want *chunkingReference) {
		cuts := sharedCuts(t, set, cut)
		if len(cuts.chunks) != len(want.Chunks) {
			t.Fatalf("%d chunks, want %d", len(cuts.chunks), len(want.Chunks))
		}
		// The reference has the sources in another order, and each one's chunks in the same.
		first, seen := map[string]int{}, map[string]int{}
		for i := len(cuts.chunks) - 1; i >= 0; i-- {
			first[set.Sources[cuts.chunks[i].Source].Name] = i
		}
		ours := make([]int, len(want.Chunks))
		for i, c := range want.Chunks {
			name := c[0].(string)
			ours[i] = first[name] + seen[name]
			seen[name]++
		}
		answers := make([]ChunkingAnswer, len(set.Questions))
		for i, q := range set.Questions {
			for _, chunk := range want.Top5[i] {
				answers[i].Retrieved = append(answers[i].Retrieved, ours[chunk])
			}
			cuts.score(q.ExcerptQuestion, &answers[i])
		}
		run := &ChunkingRun{Answers: answers}
		run.Summarise()
		want.Published.check(t, "as published", run.Mean, run.Deviation, near, near)
		// The reference looked its true places up, and of a text that overlaps itself it took the earlier one.
		const misplaced = 5e-6
		want.Exact.check(t, "exact", run.Exact, run.ExactDeviation, misplaced, misplaced)
	})
}

// TestReferenceRetrieval retrieves with the model in the binary, and stays as near to the reference as int8 weights may be. It embeds a million tokens.
func TestReferenceRetrieval(t *testing.T) {
	if os.Getenv("LIVERAG_RELEVANCE") != "all" {
		t.Skip("LIVERAG_RELEVANCE is not all: nothing is embedded, which takes minutes")
	}
	model, err := local.Open(local.MiniLMName)
	if err != nil {
		t.Fatal(err)
	}
	truncating, err := embedder.Long(embedder.Batch(model, embedder.BatchConfig{}), embedder.LongTruncate)
	if err != nil {
		t.Fatal(err)
	}
	references(t, func(t *testing.T, set *ChunkingSet, cut chunker.Chunker, want *chunkingReference) {
		run, err := set.Run(t.Context(), cut, truncating, ChunkingOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("recall %.1f ± %.1f, precision %.1f ± %.1f, P_omega %.1f ± %.1f, IoU %.1f ± %.1f", 100*run.Mean.Recall, 100*run.Deviation.Recall, 100*run.Mean.Precision,
			100*run.Deviation.Precision, 100*run.Mean.PrecisionOmega, 100*run.Deviation.PrecisionOmega, 100*run.Mean.IoU, 100*run.Deviation.IoU)
		want.Published.check(t, "int8", run.Mean, run.Deviation, .010, .001)
	})
}
