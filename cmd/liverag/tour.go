package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/docs"
	"github.com/liverag/liverag/embedder/local"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/demo"
	"github.com/liverag/liverag/internal/simd"
	"github.com/liverag/liverag/internal/spell"
	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// tour shows a newcomer what happens to real documents: they are indexed by a model that is quick, and answer at once; edited while somebody
// watches; indexed once more by a model that is good, behind the first, which takes over if it is better.
type tour struct {
	system *system
	config *Config
	base   string
	out    *terminal
	short  bool          // only index
	quick  bool          // nobody chose a model
	every  time.Duration // from one edit to the next

	begun     time.Time
	corpus    []demo.Document
	documents []demo.Document // the part of the corpus that the tour is about
	about     string          // what the corpus is
	embedding float64         // what the good model embeds, in bytes of documents a second; 0: not measured yet
}

// What the tour takes its time for. All of it together takes about a minute.
const (
	tourEmbeds   = 36 * time.Second        // of the good model's time
	tourEdit     = 1600 * time.Millisecond // from one edit to the next
	tourBefore   = 3                       // edits until the replay begins
	tourAfter    = 4                       // edits when it has ended
	tourLeast    = 30                      // documents that are worth a comparison
	tourPatience = 5 * tourEmbeds / 2      // until a replay that is much slower than was expected is left to itself
	shortEmbeds  = 10 * time.Minute        // what is still built without a tour
)

func (t *tour) run(ctx context.Context) error {
	t.begun = time.Now()
	if err := t.system.ready(ctx); err != nil {
		return err
	}
	if err := t.catchUp(ctx); err != nil {
		return err
	}
	t.read(ctx)
	return t.present(ctx)
}

// present does what is to be done with the corpus.
func (t *tour) present(ctx context.Context) error {
	t.documents = t.corpus
	held, err := t.compare(ctx, t.corpus)
	if err != nil {
		return err
	}
	// Whoever has two generations has seen the tour, all of it unless the second one waits to be promoted.
	if all := t.system.indexer.List(); len(all) > 1 {
		return t.again(ctx, held, all)
	}
	if t.short {
		return t.index(ctx)
	}
	return t.show(ctx)
}

// catchUp waits for what an earlier run left in the log: it is on its way, and need not be brought again.
func (t *tour) catchUp(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tell := time.AfterFunc(time.Second, func() {
		t.out.Printf("  Going on where the last run stopped: %s on the way.\n", count(t.live().Lag, "change"))
		for pause(ctx, 200*time.Millisecond) == nil {
			t.out.Status("  %s on the way", count(t.live().Lag, "change"))
		}
	})
	defer tell.Stop()
	return t.system.indexer.WaitAsOf(ctx, indexer.Live, time.Now())
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

// read reads the corpus: the standard library's documentation, or our own where there is none.
func (t *tour) read(ctx context.Context) {
	corpus := demo.Fallback(docs.Files)
	t.about = "liverag's own documentation (there is no Go source tree here)"
	if root, err := demo.FindGOROOT(ctx); err == nil {
		corpus = demo.Standard(root)
		t.about = "the documentation of Go's standard library, from " + root
	}
	t.step(1, "Indexing "+t.about)
	for d, err := range corpus {
		if err != nil {
			t.out.Printf("  left out: %v\n", err)
			continue
		}
		t.corpus = append(t.corpus, d)
	}
}

// holding is how documents and the live generation differ.
type holding struct {
	edited  []demo.Document // those that it has otherwise, or that were deleted
	unknown []demo.Document // those that it never had
}

func (t *tour) compare(ctx context.Context, documents []demo.Document) (h holding, err error) {
	keys := make([]string, len(documents))
	for i, d := range documents {
		keys[i] = d.ID
	}
	target, err := t.system.Resolve(indexer.Live)
	if err != nil {
		return h, err
	}
	stored, err := t.system.store.Current(ctx, target.Name, keys)
	if err != nil {
		return h, err
	}
	for i, d := range documents {
		switch s := &stored[i]; {
		case s.Version == 0:
			h.unknown = append(h.unknown, d)
		case s.Deleted || s.Text != d.Text || s.Title != d.Title || s.URL != d.URL:
			h.edited = append(h.edited, d)
		}
	}
	return h, nil
}

// bring has documents indexed, and shows how it goes on until all of them are searchable. It is a backfill: whoever edits or asks meanwhile goes first.
func (t *tour) bring(ctx context.Context, documents []demo.Document) error {
	if len(documents) == 0 {
		return nil
	}
	before, begun := t.live(), time.Now()
	about := int64(0) // chunks, if something is known of them
	if held := textBytes(t.documents); held > 0 {
		about = before.Progress.Chunks * int64(textBytes(documents)) / int64(held)
	}
	report := t.report(ctx, before, len(documents), about)
	defer report.stop()
	// A model takes what is there by turns, so that nothing is complete until nearly all is. With a little at a time it is document after document.
	var receipts []stream.Receipt
	wait := func(left int) error {
		for ; len(receipts) > left; receipts = receipts[1:] {
			if err := t.system.indexer.WaitApplied(ctx, indexer.Live, receipts[0].Positions); err != nil {
				return err
			}
		}
		return nil
	}
	together := 16
	if before.Recipe.Embedder.Model == local.MiniLMName {
		together = 4
	}
	for batch := range slices.Chunk(documents, together) {
		changes := make([]stream.Change, len(batch))
		for i, d := range batch {
			changes[i] = upsertOf(d)
			changes[i].Backfill = true
		}
		receipt, err := t.system.log.Append(ctx, changes...)
		if err != nil {
			return err
		}
		receipts = append(receipts, receipt)
		if err := wait(2); err != nil {
			return err
		}
	}
	if err := wait(0); err != nil {
		return err
	}
	report.stop()
	done := t.live().Progress
	t.out.Printf("  %s, %s, %s tokens embedded by %s in %s. Questions were answered all the while.\n", count(len(documents), "document"),
		count(done.ChunksEmbedded-before.Progress.ChunksEmbedded, "chunk"), spell.Thousands(done.TokensEmbedded-before.Progress.TokensEmbedded), before.Recipe.Embedder.Model, short(time.Since(begun)))
	return nil
}

// again is for a data directory that has had the tour: what is missing is brought, and a comparison that was interrupted is made.
func (t *tour) again(ctx context.Context, held holding, all []indexer.Info) error {
	if err := t.bring(ctx, held.edited); err != nil {
		return err
	}
	t.documents = slices.DeleteFunc(slices.Clone(t.corpus), func(d demo.Document) bool {
		return slices.ContainsFunc(held.unknown, func(u demo.Document) bool { return u.ID == d.ID })
	})
	if len(held.edited) == 0 && len(held.unknown) == 0 {
		t.out.Printf("  Every document is as it was: nothing was embedded. (The tour is for new ones: remove %s to see it again.)\n", t.config.Data)
	}
	wanted, behind := t.second(all[0].Recipe)
	waiting := slices.IndexFunc(all, func(info indexer.Info) bool { return behind && len(info.Alias) == 0 && info.Recipe == wanted })
	if waiting >= 0 && !t.system.indexer.Moved() { // nobody has promoted, nor taken back, anything
		t.step(3, "Replay: the second index of the last run, by "+wanted.Embedder.Model)
		if err := t.decide(ctx, t.replay(ctx, all[waiting])); err != nil {
			return err
		}
	}
	return t.finish(ctx, held.unknown)
}

// finish says what to do next, and brings the rest of the corpus meanwhile.
func (t *tour) finish(ctx context.Context, rest []demo.Document) error {
	if len(rest) == 0 {
		printNext(t.out, t.base, t.question())
		return nil
	}
	about := ""
	if t.embedding > 0 && t.live().Recipe.Embedder.Model == local.MiniLMName {
		about = fmt.Sprintf(", in about %s", short(t.takes(rest)))
	}
	t.out.Printf("\nThe rest of the corpus follows: %s%s. What you change or ask goes first.\n", count(len(rest), "document"), about)
	printNext(t.out, t.base, t.question())
	return t.bring(ctx, rest)
}

// index is the demo without the tour.
func (t *tour) index(ctx context.Context) error {
	second, behind := t.second(t.live().Recipe)
	if err := t.bring(ctx, t.documents); err != nil {
		return err
	}
	printNext(t.out, t.base, t.question())
	if !behind {
		return nil
	}
	if err := t.measure(ctx, second, 1); err != nil {
		return err
	}
	if takes := t.takes(t.documents); takes > shortEmbeds {
		t.out.Printf("\n%s would take about %s for this on %s. `liverag replay --embedder %s` builds it behind the live index.\n", second.Embedder.Model, short(takes), simd.Kernel(), second.Embedder.Model)
		return nil
	}
	t.out.Printf("\nBehind it the index by %s is built, and takes over if it is better: in about %s.\n", second.Embedder.Model, short(t.takes(t.documents)))
	other, err := t.system.indexer.Create(ctx, "", second)
	if err != nil {
		return err
	}
	return t.decide(ctx, t.replay(ctx, other))
}

func upsertOf(d demo.Document) stream.Change {
	return stream.Change{Kind: stream.Upsert, ID: d.ID, Document: &stream.Document{
		Text: d.Text, ContentType: stream.TextMarkdown, Title: d.Title, URL: d.URL, Metadata: d.Metadata,
	}}
}

func (t *tour) live() indexer.Info {
	info, _ := t.system.indexer.Info(indexer.Live)
	return info
}

// show is the tour proper.
func (t *tour) show(ctx context.Context) error {
	rest, second, err := t.plan(ctx)
	if err != nil {
		return err
	}
	held, err := t.compare(ctx, t.documents)
	if err != nil {
		return err
	}
	if err := t.bring(ctx, slices.Concat(held.edited, held.unknown)); err != nil {
		return err
	}
	if err := t.ask(ctx, t.question(), fmt.Sprintf("%s after the start, ", short(time.Since(t.begun)))); err != nil {
		return err
	}
	if err := t.edits(ctx, second); err != nil {
		return err
	}
	if err := t.history(ctx); err != nil {
		return err
	}
	if held, err = t.compare(ctx, rest); err != nil {
		return err
	}
	return t.finish(ctx, slices.Concat(held.edited, held.unknown))
}

// edits shows edits while a second generation is built, and puts everything back.
func (t *tour) edits(ctx context.Context, second vectordb.Recipe) error {
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
	ctx, cancel := context.WithCancel(ctx)
	replay := make(chan replayed, 1)
	var replaying sync.WaitGroup
	defer replaying.Wait()
	defer cancel()
	var meanwhile []time.Duration // how long the edits took that were made beside the replay
	after := 0
	for at, n := time.Now(), 1; after < tourAfter; at, n = at.Add(t.every), n+1 {
		if err := pause(ctx, time.Until(at)); err != nil {
			return err
		}
		edit, ok := next()
		if !ok {
			break
		}
		took, err := t.edit(ctx, edit)
		if err != nil {
			return err
		}
		edits = append(edits, edit)
		if n == tourBefore {
			t.step(3, fmt.Sprintf("Replay: a second index from the same log, by %s, while the edits go on", describeRecipe(second)))
			other, err := t.system.indexer.Create(ctx, "", second)
			if err != nil {
				return err
			}
			replaying.Go(func() { replay <- t.replay(ctx, other) })
			continue
		}
		if after > 0 {
			after++
			continue
		}
		select {
		case r := <-replay:
			if len(meanwhile) > 0 {
				slices.Sort(meanwhile)
				t.out.Printf("  The edits meanwhile: %s, searchable after %s in the median and %s at most.\n",
					count(len(meanwhile), "edit"), short(meanwhile[len(meanwhile)/2]), short(meanwhile[len(meanwhile)-1]))
			}
			if err := t.decide(ctx, r); err != nil {
				return err
			}
			if err := t.ask(ctx, t.question(), ""); err != nil {
				return err
			}
			after = 1
		default:
			if n > tourBefore {
				meanwhile = append(meanwhile, took)
			}
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

// ask asks, and says when.
func (t *tour) ask(ctx context.Context, question, when string) error {
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
	t.out.Printf("    %s\n", t.out.dim(fmt.Sprintf("%sin %s, from everything that entered the log until %s ago", when, short(answer.Took.Total), short(answer.Freshness.Lag))))
	return nil
}

// edit makes one change as a caller would, waits until it is searchable, and searches for it. took is the time from its entry into the log until then.
func (t *tour) edit(ctx context.Context, e demo.Edit) (took time.Duration, err error) {
	events, stop := t.system.indexer.Events()
	defer stop()
	c := upsertOf(e.Document)
	if e.Deleted {
		c = stream.Change{Kind: stream.Delete, ID: e.Document.ID}
	}
	receipt, err := t.system.log.Append(ctx, c)
	if err != nil {
		return 0, err
	}
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := t.system.indexer.WaitSearchable(wait, receipt.Positions); err != nil {
		return 0, fmt.Errorf("edit of %s: %w", e.Document.ID, err)
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
			took, err = time.ParseDuration(event.TimeToSearchable)
			return took, err
		case <-wait.Done():
			return 0, wait.Err()
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

// report shows how the indexing of so many documents, of about so many chunks (0: nobody knows), goes on until it is stopped.
func (t *tour) report(ctx context.Context, live indexer.Info, documents int, about int64) *progressReport {
	before, begun := live.Progress, time.Now()
	ctx, cancel := context.WithCancel(ctx)
	r := &progressReport{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			p := t.live().Progress
			done := p.ChunksEmbedded + p.ChunksReused - before.ChunksEmbedded - before.ChunksReused
			complete := max(0, p.Documents-before.Documents) // those that were there are not counted
			eta := ""
			if elapsed := time.Since(begun); elapsed > time.Second && done > about/20 && done < about { // the first ones say little
				eta = " · ETA " + short((elapsed * time.Duration(about-done) / time.Duration(done)).Round(time.Second))
			}
			line := fmt.Sprintf("  %d of %s · %s · %s tokens%s", complete, count(documents, "document"), count(done, "chunk"),
				spell.Thousands(p.TokensEmbedded-before.TokensEmbedded), eta)
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
	cancel context.CancelFunc
	ended  chan struct{}
}

func (r *progressReport) stop() {
	r.cancel()
	<-r.ended
}
