package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/local"
	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/demo"
	"github.com/liverag/liverag/internal/simd"
	"github.com/liverag/liverag/internal/spell"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// second is the recipe of the second generation. behind tells that it is the one which would have been the first, if answers could wait for it.
func (t *tour) second(live vectordb.Recipe) (_ vectordb.Recipe, behind bool) {
	if wanted := t.config.recipe(); t.quick && live.Embedder.Model == local.StaticName && wanted.Embedder.Model != local.StaticName {
		return wanted, true
	}
	return alternative(live), false
}

// measure finds out how much of the corpus local/minilm embeds in a second here, if the recipe is one of that model and nobody has said it. It takes about 0.2 s.
func (t *tour) measure(ctx context.Context, r vectordb.Recipe, share float64) error {
	if r.Embedder.Model != local.MiniLMName || t.embedding > 0 {
		return nil
	}
	parts, err := t.system.models.build(ctx, r, 0)
	if err != nil {
		return err
	}
	// The model itself, because the cache of vectors would make it look quicker than it is.
	model, err := local.Open(r.Embedder.Model)
	if err != nil {
		return err
	}
	rate, err := speed(ctx, t.documents, parts.Chunker, model)
	t.embedding = rate * share
	return err
}

// takes is how long local/minilm will embed documents.
func (t *tour) takes(documents []demo.Document) time.Duration {
	return time.Duration(float64(textBytes(documents)) / t.embedding * float64(time.Second)).Round(time.Second)
}

func textBytes(documents []demo.Document) (n int) {
	for _, d := range documents {
		n += len(d.Text)
	}
	return n
}

// plan chooses the second recipe, and the part of the corpus that it can be built from in the time there is.
func (t *tour) plan(ctx context.Context) (rest []demo.Document, second vectordb.Recipe, err error) {
	live := t.live().Recipe
	second, behind := t.second(live)
	generations := 0 // that take time
	for _, r := range []vectordb.Recipe{live, second} {
		if r.Embedder.Model == local.MiniLMName {
			generations++
		}
	}
	if generations == 0 {
		return nil, second, nil
	}
	if err := t.measure(ctx, second, 1/float64(generations)); err != nil {
		return nil, second, err
	}
	first, rest := demo.Budget(t.corpus, int(t.embedding*tourEmbeds.Seconds()), func(d demo.Document) int { return len(d.Text) })
	switch {
	case len(rest) == 0:
	case len(first) >= tourLeast:
		t.documents = first
		t.out.Printf("  %s embeds %s kB a second here: the %d documents of %d that it does in %s are indexed first, the most used packages among them.\n",
			local.MiniLMName, spell.Thousands(int64(t.embedding/1000)), len(first), len(t.corpus), short(tourEmbeds))
	case behind:
		// Too slow to be shown. What can be shown is a comparison of ways to cut.
		t.out.Printf("  %s embeds %.1f kB a second here (kernel %s): %d documents of %d in %s, so it is left out of the tour. `liverag replay` builds it.\n",
			local.MiniLMName, t.embedding/1000, simd.Kernel(), len(first), len(t.corpus), short(tourEmbeds))
		rest, second = nil, alternative(live)
	default:
		t.out.Printf("  %s was chosen and is slow here (kernel %s): all of it takes about %s. local/static is quick.\n", local.MiniLMName, simd.Kernel(), short(t.takes(t.corpus)))
		rest = nil
	}
	return rest, second, nil
}

// speedLasts is about how long speed takes, unless two chunks take longer.
const speedLasts = 250 * time.Millisecond

// speed measures how many bytes of documents a second a model embeds, on chunks from all over the corpus.
func speed(ctx context.Context, documents []demo.Document, cut chunker.Chunker, model embedder.Embedder) (float64, error) {
	const (
		stride      = 61 // no divisor of the corpus' size: neighbours are alike
		perDocument = 4
		least, most = 2, 128 // chunks in a call
	)
	var inputs []string
	var sizes []int
	for i := 0; i < len(documents) && len(inputs) < least+most; i++ {
		d := documents[i*stride%len(documents)]
		chunks, err := cut.Split(ctx, stream.TextMarkdown, d.Text)
		if err != nil {
			return 0, err
		}
		for c := range slices.Chunk(chunks, max(1, len(chunks)/perDocument)) {
			inputs = append(inputs, c[0].Input(d.Text))
			sizes = append(sizes, c[0].End-c[0].Start)
		}
	}
	if len(inputs) == 0 {
		return 0, errors.New("there is nothing to measure the model's speed on")
	}
	// The first call has the weights read into memory, and tells how large the one that counts may be: it is a single one, so that all processors are busy to its end.
	var bytes int
	var took time.Duration
	for n := least; len(inputs) > 0 && took < speedLasts/2; n = int(float64(n) * float64(speedLasts) / float64(took+1)) {
		n = min(max(n, least), most, len(inputs))
		begun := time.Now()
		if _, err := model.Embed(ctx, embedder.Index, inputs[:n]); err != nil {
			return 0, err
		}
		bytes, took = 0, max(time.Since(begun), 1)
		for _, size := range sizes[:n] {
			bytes += size
		}
		inputs, sizes = inputs[n:], sizes[n:]
	}
	// What is beside it, such as edits and the store, takes a tenth.
	return .9 * float64(bytes) / took.Seconds(), nil
}

// patience is how long a replay may take that is waited for.
func (t *tour) patience() time.Duration {
	if t.short {
		return 2 * shortEmbeds
	}
	return tourPatience
}

// replayed is a second generation beside the live one.
type replayed struct {
	live, other indexer.Info
	asked       int  // documents that both hold
	late        bool // it takes much longer than was expected, and goes on by itself
	scores      [2]evals.Report
	built       time.Duration
	err         error
}

// alternative is the recipe that the tour compares with.
func alternative(live vectordb.Recipe) vectordb.Recipe {
	other := live
	other.Chunker = vectordb.ChunkerRecipe{Strategy: chunker.Recursive, Tokens: 128, Tokenizer: live.Chunker.Tokenizer}
	return other
}

// replay waits until a second generation is built, and asks both the bundled questions. It may run beside edits.
func (t *tour) replay(ctx context.Context, other indexer.Info) (r replayed) {
	r.other, r.live = other, t.live()
	begun := time.Now()
	before := r.other.Progress.Chunks
	shown := 0 // quarters
	for r.other.State != indexer.StateReady {
		if r.err = pause(ctx, 20*time.Millisecond); r.err != nil {
			return r
		}
		if r.other, r.err = t.system.indexer.Info(r.other.Name); r.err != nil {
			return r
		}
		switch elapsed := time.Since(begun); {
		case r.other.State == indexer.StateFailed:
			r.err = fmt.Errorf("the replay failed: %s", r.other.Trouble.Detail)
			return r
		case r.other.State == indexer.StateReady:
		case elapsed > t.patience():
			r.late = true
			return r
		default:
			share, toGo := t.advance(r.other, before, elapsed)
			p := r.other.Progress
			line := fmt.Sprintf("  %s is %.0f %% built: %s, %s tokens embedded%s", r.other.Name, 100*share, count(p.Documents, "document"), spell.Thousands(p.TokensEmbedded), toGo)
			if quarter := int(4 * share); quarter > shown && quarter < 4 {
				shown = quarter
				t.out.Printf("%s\n", t.out.dim(line))
			}
			t.out.Status("%s", line)
		}
	}
	r.built = time.Since(begun)
	r.live = t.live()
	r.err = t.score(ctx, &r)
	return r
}

// advance tells how much of a generation is built, and how long the rest takes: what was measured says that while it can, for documents are complete late, many of them
// together. Where both cut alike, the live one's chunks are the measure: documents differ much in length.
func (t *tour) advance(other indexer.Info, before int64, elapsed time.Duration) (share float64, toGo string) {
	p := other.Progress
	share = p.Percent / 100
	if live := t.live(); live.Recipe.Chunker == other.Recipe.Chunker && live.Progress.Chunks > before {
		share = min(1, float64(p.Chunks-before)/float64(live.Progress.Chunks-before))
	}
	if t.embedding > 0 && other.Recipe.Embedder.Model == local.MiniLMName {
		if left := t.takes(t.documents) - elapsed; left > time.Second {
			return share, fmt.Sprintf(", about %s to go", short(left.Round(time.Second)))
		}
	}
	if share < .02 || elapsed < time.Second {
		return share, ""
	}
	return share, fmt.Sprintf(", %s to go", short(time.Duration(float64(elapsed)*(1-share)/share).Round(time.Second)))
}

// score asks both generations the questions that the documents answer.
func (t *tour) score(ctx context.Context, r *replayed) error {
	ids := make(map[string]bool, len(t.documents))
	for _, d := range t.documents {
		ids[d.ID] = true
	}
	r.asked = len(ids)
	questions := demo.Questions(func(id string) bool { return ids[id] })
	if len(questions) == 0 {
		return nil
	}
	for i, name := range []string{r.live.Name, r.other.Name} {
		answers, err := questions.Ask(ctx, t.system.searcher(name, retrieve.Hybrid), evals.AskOptions{Concurrency: 2})
		if err != nil {
			return err
		}
		r.scores[i] = answers.Report
	}
	return nil
}

// searcher asks one generation, for evaluation.
func (s *system) searcher(generation string, mode retrieve.Mode) evals.Searcher {
	return func(ctx context.Context, query string, k int) ([]evals.Ranked, error) {
		request := retrieve.NewRequest(query)
		request.K, request.Generation, request.Mode = k, generation, mode
		answer, err := s.retriever.Retrieve(ctx, request)
		if err != nil {
			return nil, err
		}
		out := make([]evals.Ranked, len(answer.Hits))
		for i, hit := range answer.Hits {
			out[i] = evals.Ranked{Document: hit.Key, Score: hit.Score, Text: hit.Text}
		}
		return out, nil
	}
}

// tourPromote is how long a promote is tried again while the generation is behind the edits.
const tourPromote = 30 * time.Second

// decide shows the comparison and promotes the better one.
func (t *tour) decide(ctx context.Context, r replayed) error {
	if r.err != nil {
		return r.err
	}
	if r.late {
		t.out.Printf("  This takes longer than expected. %s goes on behind %s; `liverag generations` tells how far it is, and `liverag promote %s` switches.\n", r.other.Name, r.live.Name, r.other.Name)
		return nil
	}
	row := func(info indexer.Info, report evals.Report, built string) []string {
		p := info.Progress
		return []string{"  " + info.Name, describeRecipe(info.Recipe), score(report, evals.NDCG(10)), score(report, evals.Recall(10)),
			spell.Thousands(p.Chunks), spell.Thousands(p.TokensEmbedded), built}
	}
	t.out.table([]string{"  generation", "recipe", "nDCG@10", "recall@10", "chunks", "tokens embedded", "built in"},
		[][]string{row(r.live, r.scores[0], "(live)"), row(r.other, r.scores[1], short(r.built))})
	if len(r.scores[0].Queries) == 0 {
		t.out.Printf("  There are no bundled questions about this corpus, so %s stays live. `liverag promote %s` would switch.\n", r.live.Name, r.other.Name)
		return nil
	}
	compared, err := evals.Compare(r.scores[0], r.scores[1])
	if err != nil {
		return err
	}
	ndcg := compared[slices.IndexFunc(compared, func(c evals.Comparison) bool { return c.Metric == evals.NDCG(10).String() })]
	evidence := fmt.Sprintf("nDCG@10 %+.3f on %d bundled questions about these %d documents: %d better, %d worse, the rest equal; p = %.2g",
		ndcg.Difference, len(r.scores[0].Queries), r.asked, ndcg.Wins, ndcg.Losses, ndcg.P)
	if ndcg.Difference <= 0 {
		t.out.Printf("  %s stays live (%s). Both follow the log; `liverag promote %s` would switch.\n", r.live.Name, evidence, r.other.Name)
		return nil
	}
	begun := time.Now()
	_, err = t.system.indexer.Promote(ctx, r.other.Name)
	for until := begun.Add(tourPromote); errors.Is(err, indexer.ErrNotCaughtUp) && time.Now().Before(until); {
		// Edits go on, and a slow machine may be behind them for a moment.
		_, err = t.system.indexer.Promote(ctx, r.other.Name)
	}
	if err != nil {
		return err
	}
	t.out.Printf("  %s is better and was %s in %s (%s).\n  Both follow the log; `liverag rollback` takes it back.\n",
		r.other.Name, t.out.good("promoted"), short(time.Since(begun)), evidence)
	return nil
}

// describeRecipe is a recipe in a few words.
func describeRecipe(r vectordb.Recipe) string {
	text := fmt.Sprintf("%s %d", r.Chunker.Strategy, r.Chunker.Tokens)
	if r.Chunker.Overlap > 0 {
		text += fmt.Sprintf("/%d", r.Chunker.Overlap)
	}
	return text + ", " + r.Embedder.Model
}

func value(r evals.Report, m evals.Metric) float64 { return r.Mean[m.String()] }

func score(r evals.Report, m evals.Metric) string {
	if len(r.Queries) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", value(r, m))
}
