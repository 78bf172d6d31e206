package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/docs"
	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/demo"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// tour shows a newcomer what happens to real documents: they are indexed while questions are answered, edited while somebody
// watches, and indexed once more by another recipe that takes over if it is better.
type tour struct {
	system *system
	config *Config
	base   string
	out    *terminal
	short  bool // only index

	begun     time.Time
	documents []demo.Document
	about     string // what the corpus is
}

// What the tour takes its time for. All of it together ends within a minute.
const (
	tourLasts  = 50 * time.Second
	tourEdit   = 1600 * time.Millisecond // from one edit to the next
	tourReplay = 12 * time.Second        // into the edits, the replay begins
)

func (t *tour) run(ctx context.Context) error {
	t.begun = time.Now()
	if err := t.system.ready(ctx); err != nil {
		return err
	}
	changed, err := t.index(ctx)
	if err != nil {
		return err
	}
	switch {
	case t.short:
	case changed == 0:
		t.out.Printf("\nEvery document is as it was: nothing was embedded. (The tour is for new ones: remove %s to see it again.)\n", t.config.Data)
	default:
		if err := t.show(ctx); err != nil {
			return err
		}
	}
	printNext(t.out, t.base, t.question())
	return nil
}

// ready waits until queries and writes are served.
func (s *system) ready(ctx context.Context) error {
	for s.indexer.Ready() != nil {
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (t *tour) step(n int, title string) {
	t.out.Printf("\n%s\n", t.out.bold(fmt.Sprintf("%d  %s", n, title)))
}

// corpus is the standard library's documentation, or our own where there is none.
func (t *tour) corpus(ctx context.Context) iter.Seq2[demo.Document, error] {
	root, err := demo.FindGOROOT(ctx)
	if err != nil {
		t.about = "liverag's own documentation (there is no Go source tree here)"
		return demo.Fallback(docs.Files)
	}
	t.about = "the documentation of Go's standard library, from " + root
	return demo.Standard(root)
}

// index brings the corpus into the log and waits until all of it is searchable. Documents that are as they were are left alone.
func (t *tour) index(ctx context.Context) (changed int, err error) {
	corpus := t.corpus(ctx)
	t.step(1, "Indexing "+t.about)
	before := t.live()
	report := t.report(ctx, before)
	defer report.stop()

	var receipts []stream.Receipt
	var batch []demo.Document
	flush := func() error {
		fresh, err := t.changed(ctx, batch)
		if err != nil || len(fresh) == 0 {
			batch = batch[:0]
			return err
		}
		changes := make([]stream.Change, len(fresh))
		for i, d := range fresh {
			changes[i] = upsertOf(d)
			changes[i].Backfill = true
		}
		receipt, err := t.system.log.Append(ctx, changes...)
		if err != nil {
			return err
		}
		receipts = append(receipts, receipt)
		changed += len(fresh)
		report.sent.Store(int64(changed))
		batch = batch[:0]
		return nil
	}
	for d, err := range corpus {
		if err != nil {
			t.out.Printf("  left out: %v\n", err)
			continue
		}
		t.documents = append(t.documents, d)
		if batch = append(batch, d); len(batch) == 16 {
			if err := flush(); err != nil {
				return changed, err
			}
		}
	}
	if err := flush(); err != nil {
		return changed, err
	}
	report.complete.Store(true)
	for _, r := range receipts {
		if err := t.system.indexer.WaitApplied(ctx, indexer.Live, r.Positions); err != nil {
			return changed, err
		}
	}
	report.stop()
	if changed > 0 {
		done := t.live().Progress
		took := time.Since(t.begun)
		t.out.Printf("  %s, %s, %s tokens embedded in %s. Questions were answered all the while.\n", count(changed, "document"),
			count(done.ChunksEmbedded-before.Progress.ChunksEmbedded, "chunk"), thousands(done.TokensEmbedded-before.Progress.TokensEmbedded), short(took))
	}
	return changed, nil
}

func upsertOf(d demo.Document) stream.Change {
	return stream.Change{Kind: stream.Upsert, ID: d.ID, Document: &stream.Document{
		Text: d.Text, ContentType: stream.TextMarkdown, Title: d.Title, URL: d.URL, Metadata: d.Metadata,
	}}
}

// changed returns the documents that the index does not hold as they are.
func (t *tour) changed(ctx context.Context, batch []demo.Document) ([]demo.Document, error) {
	keys := make([]string, len(batch))
	for i, d := range batch {
		keys[i] = d.ID
	}
	target, err := t.system.Resolve(indexer.Live)
	if err != nil {
		return nil, err
	}
	stored, err := t.system.store.Current(ctx, target.Name, keys)
	if err != nil {
		return nil, err
	}
	var out []demo.Document
	for i, d := range batch {
		if s := &stored[i]; s.Version == 0 || s.Deleted || s.Text != d.Text || s.Title != d.Title || s.URL != d.URL {
			out = append(out, d)
		}
	}
	return out, nil
}

func (t *tour) live() indexer.Info {
	info, _ := t.system.indexer.Info(indexer.Live)
	return info
}

// show is the tour proper.
func (t *tour) show(ctx context.Context) error {
	if err := t.ask(ctx, t.question()); err != nil {
		return err
	}
	t.step(2, "Live: somebody edits documents")
	t.out.Printf("  Each line is one edit, from its entry into the log until a search returned it.\n")
	next, stop := iter.Pull(demo.Edits(t.documents, 1))
	defer stop()
	var edits []demo.Edit
	restored := false
	defer func() {
		if !restored && len(edits) > 0 { // interrupted: the corpus is put back all the same, and indexed by whoever starts next
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_, _ = t.putBack(ctx, edits)
		}
	}()
	replay := make(chan replayed, 1)
	began := time.Now()
	replaying := false
	for at := time.Now(); time.Since(t.begun) < tourLasts || replaying; at = at.Add(tourEdit) {
		if err := pause(ctx, time.Until(at)); err != nil {
			return err
		}
		edit, ok := next()
		if !ok {
			break
		}
		if err := t.edit(ctx, edit); err != nil {
			return err
		}
		edits = append(edits, edit)
		if time.Since(began) > tourReplay && !replaying && replay != nil {
			replaying = true
			t.step(3, "Replay: a second index from the same log, by another recipe, while the edits go on")
			go func() { replay <- t.replay(ctx) }()
		}
		select {
		case r := <-replay:
			replaying, replay = false, nil
			if r.err != nil {
				return r.err
			}
			if err := t.decide(ctx, r); err != nil {
				return err
			}
		default:
		}
	}
	restored = true
	return t.restore(ctx, edits)
}

func (t *tour) question() string {
	if slices.ContainsFunc(t.documents, func(d demo.Document) bool { return d.ID == "context" }) {
		return "how do I stop a goroutine after a timeout"
	}
	return "what happens to a change when the process crashes"
}

func (t *tour) ask(ctx context.Context, question string) error {
	request := retrieve.NewRequest(question)
	request.K = 3
	answer, err := t.system.retriever.Retrieve(ctx, request)
	if err != nil {
		return err
	}
	t.out.Printf("  %s %s\n", t.out.bold("?"), question)
	for i, hit := range answer.Hits {
		t.out.Printf("    %d. %-24s %s\n", i+1, cut(plain(hit.Title), 24), t.out.dim(cut(plain(strings.Join(strings.Fields(hit.Text), " ")), t.out.Width-34)))
	}
	t.out.Printf("    %s\n", t.out.dim(fmt.Sprintf("in %s, from everything that entered the log until %s ago", short(answer.Took.Total), short(answer.Freshness.Lag))))
	return nil
}

// edit makes one change as a caller would, waits until it is searchable, and searches for it.
func (t *tour) edit(ctx context.Context, e demo.Edit) error {
	events, stop := t.system.indexer.Events()
	defer stop()
	c := upsertOf(e.Document)
	if e.Deleted {
		c = stream.Change{Kind: stream.Delete, ID: e.Document.ID}
	}
	receipt, err := t.system.log.Append(ctx, c)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := t.system.indexer.WaitSearchable(wait, receipt.Positions); err != nil {
		return fmt.Errorf("edit of %s: %w", e.Document.ID, err)
	}
	found := "found"
	if e.Deleted {
		found = "not found"
	}
	if err := t.check(ctx, e); err != nil {
		found = err.Error()
	}
	for {
		select {
		case event := <-events:
			if event.ID != e.Document.ID || event.Version != stream.Version(0, receipt.Positions[0].Offset) {
				continue
			}
			what := fmt.Sprintf("embedded %d of %s", event.Embedded, count(event.Embedded+event.Reused, "chunk"))
			if e.Deleted {
				what = "deleted"
			}
			t.out.Printf("  %s  searchable in %-7s %-26s %-10s %s\n", event.Time.Local().Format("15:04:05"), event.TimeToSearchable, what, found, t.out.dim(cut(plain(e.Summary), t.out.Width-66)))
			return nil
		case <-wait.Done():
			return wait.Err()
		}
	}
}

// check asks for the edit: what is new must be found, what is gone must not.
func (t *tour) check(ctx context.Context, e demo.Edit) error {
	// By words, because the question is whether the change is there, not how well the model understands it.
	request := retrieve.NewRequest(e.Query)
	request.K, request.Mode = 20, retrieve.Lexical
	answer, err := t.system.retriever.Retrieve(ctx, request)
	if err != nil {
		return err
	}
	found := e.Want == ""
	for _, hit := range answer.Hits {
		found = found || hit.Key == e.Document.ID && strings.Contains(squeeze(hit.Text), firstWords(e.Want))
		if e.Deleted && hit.Key == e.Document.ID || e.Gone != "" && strings.Contains(hit.Text, e.Gone) {
			return errors.New("STALE")
		}
	}
	if !found {
		return errors.New("not in the first 20")
	}
	return nil
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// firstWords is enough of a text to know it by; a chunk may end within it.
func firstWords(s string) string {
	words := strings.Fields(s)
	return strings.Join(words[:min(len(words), 6)], " ")
}

// replayed is a second generation beside the live one.
type replayed struct {
	live, other indexer.Info
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

// replay builds the second generation and asks both the bundled questions. It runs beside the edits.
func (t *tour) replay(ctx context.Context) (r replayed) {
	r.live = t.live()
	begun := time.Now()
	if r.other, r.err = t.system.indexer.Create(ctx, "", alternative(r.live.Recipe)); r.err != nil {
		return r
	}
	for r.other.State != indexer.StateReady {
		if r.err = pause(ctx, 20*time.Millisecond); r.err != nil {
			return r
		}
		if r.other, r.err = t.system.indexer.Info(r.other.Name); r.err != nil {
			return r
		}
		if r.other.State == indexer.StateFailed {
			r.err = fmt.Errorf("the replay failed: %s", r.other.Trouble.Detail)
			return r
		}
		p := r.other.Progress
		t.out.Status("  replaying: %.0f %%, %s, %s tokens embedded, %s to go", p.Percent, count(p.Documents, "document"), thousands(p.TokensEmbedded), cmp.Or(p.ETA, "little"))
	}
	r.built = time.Since(begun)
	r.live = t.live()
	ids := make(map[string]bool, len(t.documents))
	for _, d := range t.documents {
		ids[d.ID] = true
	}
	questions := demo.Questions(func(id string) bool { return ids[id] })
	if len(questions) == 0 {
		return r
	}
	for i, name := range []string{r.live.Name, r.other.Name} {
		answers, err := questions.Ask(ctx, t.system.searcher(name, retrieve.Hybrid), evals.AskOptions{Concurrency: 2})
		if err != nil {
			r.err = err
			return r
		}
		r.scores[i] = answers.Report
	}
	return r
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
			out[i] = evals.Ranked{Document: hit.Key, Score: hit.Score}
		}
		return out, nil
	}
}

// decide shows the comparison and promotes the better one.
func (t *tour) decide(ctx context.Context, r replayed) error {
	row := func(info indexer.Info, report evals.Report, built string) []string {
		p := info.Progress
		return []string{"  " + info.Name, describeChunker(info.Recipe), score(report, evals.NDCG(10)), score(report, evals.Recall(10)),
			thousands(p.Chunks), thousands(p.TokensEmbedded), built}
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
	evidence := fmt.Sprintf("nDCG@10 %+.3f on %d bundled questions: %d better, %d worse, the rest equal; p = %.2f", ndcg.Difference, len(r.scores[0].Queries), ndcg.Wins, ndcg.Losses, ndcg.P)
	if ndcg.Difference <= 0 {
		t.out.Printf("  %s stays live (%s). Both follow the log; `liverag promote %s` would switch.\n", r.live.Name, evidence, r.other.Name)
		return nil
	}
	begun := time.Now()
	if _, err := t.system.indexer.Promote(ctx, r.other.Name); err != nil {
		return err
	}
	t.out.Printf("  %s is better and was %s in %s (%s).\n  Both follow the log; `liverag rollback` takes it back.\n",
		r.other.Name, t.out.good("promoted"), short(time.Since(begun)), evidence)
	return nil
}

func describeChunker(r vectordb.Recipe) string {
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

// restore puts the edited documents back, so that what is left is what the corpus says.
func (t *tour) restore(ctx context.Context, edits []demo.Edit) error {
	receipt, err := t.putBack(ctx, edits)
	if err != nil {
		return err
	}
	if err := t.system.indexer.WaitApplied(ctx, indexer.Live, receipt.Positions); err != nil {
		return err
	}
	t.out.Printf("  The edits are taken back: %s as they were.\n", count(len(receipt.Positions), "document"))
	return nil
}

// putBack writes the originals of edited documents.
func (t *tour) putBack(ctx context.Context, edits []demo.Edit) (stream.Receipt, error) {
	var changes []stream.Change
	for _, d := range demo.Restore(t.documents, edits) {
		changes = append(changes, upsertOf(d))
	}
	return t.system.log.Append(ctx, changes...)
}

// report shows how indexing goes on, until it is stopped.
func (t *tour) report(ctx context.Context, before indexer.Info) *progressReport {
	ctx, cancel := context.WithCancel(ctx)
	r := &progressReport{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		begun := time.Now()
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			p := t.live().Progress
			done := p.Documents - before.Progress.Documents
			rate := float64(done) / time.Since(begun).Seconds()
			eta := "reading"
			if sent := r.sent.Load(); r.complete.Load() && rate > 0 {
				eta = "ETA " + short(time.Duration(float64(sent-done)/rate*float64(time.Second)))
			}
			line := fmt.Sprintf("  %s · %s · %s tokens · %.0f documents/s · %s", count(done, "document"), count(p.ChunksEmbedded-before.Progress.ChunksEmbedded, "chunk"),
				thousands(p.TokensEmbedded-before.Progress.TokensEmbedded), rate, eta)
			switch {
			case t.out.Watched:
				t.out.Status("%s", line)
			case n%20 == 0:
				t.out.Printf("%s\n", line)
			}
		}
	}()
	return r
}

type progressReport struct {
	sent     atomic.Int64
	complete atomic.Bool
	cancel   context.CancelFunc
	ended    chan struct{}
}

func (r *progressReport) stop() {
	r.cancel()
	<-r.ended
}
