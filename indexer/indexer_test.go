package indexer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/stream/kafka"
	"github.com/liverag/liverag/vectordb"
)

// bed is an indexer on a real log and the model of a store.
type bed struct {
	t        *testing.T
	embedded *kafka.Embedded
	log      *kafka.Log
	store    *store
	model    *model
	indexer  *Indexer
	stop     func()

	appended int // changes, in all
}

// store is the model of a store, which can be told to fail.
type store struct {
	*vectordb.Memory
	mu     sync.Mutex
	fail   func(vectordb.Write) error
	create func() error
}

func (s *store) Create(ctx context.Context, g vectordb.Generation) error {
	s.mu.Lock()
	create := s.create
	s.mu.Unlock()
	if create != nil {
		if err := create(); err != nil {
			return err
		}
	}
	return s.Memory.Create(ctx, g)
}

func (s *store) failCreate(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.create = f
}

func (s *store) Apply(ctx context.Context, generation string, w vectordb.Write) error {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if err := fail(w); err != nil {
			return err
		}
	}
	return s.Memory.Apply(ctx, generation, w)
}

func (s *store) failWith(f func(vectordb.Write) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// model hashes words, counts what it is asked for, and does first what before says.
type model struct {
	*embedder.Hash
	mu     sync.Mutex
	inputs []string
	before func(ctx context.Context, inputs []string) error
}

func (m *model) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	m.mu.Lock()
	before := m.before
	m.mu.Unlock()
	if before != nil {
		if err := before(ctx, inputs); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	m.inputs = append(m.inputs, inputs...)
	m.mu.Unlock()
	return m.Hash.Embed(ctx, role, inputs)
}

func (m *model) do(before func(ctx context.Context, inputs []string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = before
}

// asked returns the inputs embedded since the last call.
func (m *model) asked() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.inputs
	m.inputs = nil
	return out
}

func newBed(t *testing.T) *bed {
	t.Helper()
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	embedded, err := kafka.OpenEmbedded(kafka.EmbeddedConfig{Dir: t.TempDir(), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { embedded.Close() })
	log, err := kafka.Open(t.Context(), kafka.Config{Embedded: embedded, Partitions: 3, ReplicationFactor: 1, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	b := &bed{t: t, embedded: embedded, log: log, store: &store{Memory: vectordb.NewMemory()}, model: &model{Hash: embedder.NewHash(32)}}
	b.start(Config{})
	return b
}

// start runs an indexer on the bed's log and store; fields of c that are set are kept.
func (b *bed) start(c Config) {
	b.t.Helper()
	b.indexer, b.stop = b.another(c)
}

// config fills in the bed's parts.
func (b *bed) config(c Config) Config {
	c.Log, c.DeadLetters, c.Letters, c.Register = b.log, b.log, b.log, b.log.Control()
	if c.Store == nil {
		c.Store = b.store
	}
	c.Recipe = vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Markdown, Tokens: 40}, Embedder: vectordb.EmbedderRecipe{Model: "hash/32"}}
	c.Groups, c.Logger = b.log, slog.New(slog.NewTextHandler(io.Discard, nil))
	if c.Build != nil {
		return c
	}
	c.Build = func(_ context.Context, r vectordb.Recipe, _ int) (Parts, error) {
		cut, err := chunker.New(chunker.Options{Strategy: r.Chunker.Strategy, Tokens: r.Chunker.Tokens})
		return Parts{Recipe: r, Chunker: cut, Embedder: b.model}, err
	}
	return c
}

// another runs one more indexer, as another process would.
func (b *bed) another(c Config) (*Indexer, func()) {
	b.t.Helper()
	c = b.config(c)
	x := New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("indexer: %v", err)
		}
	})
	b.t.Cleanup(stop)
	if !c.Shared {
		b.eventually("ready", func() bool { return x.Ready() == nil })
	}
	return x, stop
}

// eventually looks until something holds. What it waits for is other goroutines on a real clock, so it has to look.
func (b *bed) eventually(what string, holds func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(end) {
			b.t.Fatalf("not %s after 20 s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (b *bed) ctx() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	b.t.Cleanup(cancel)
	return ctx
}

func upsert(id, text string) stream.Change {
	return stream.Change{Kind: stream.Upsert, ID: id, Document: &stream.Document{Text: text, ContentType: stream.TextMarkdown}}
}

func remove(id string) stream.Change { return stream.Change{Kind: stream.Delete, ID: id} }

// append writes changes and returns where they are.
func (b *bed) append(changes ...stream.Change) []stream.Position {
	b.t.Helper()
	receipt, err := b.log.Append(b.ctx(), changes...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.appended += len(changes)
	return receipt.Positions
}

// settle writes changes and waits until the live generation shows them.
func (b *bed) settle(changes ...stream.Change) {
	b.t.Helper()
	if err := b.indexer.WaitApplied(b.ctx(), Live, b.append(changes...)); err != nil {
		b.t.Fatal(err)
	}
}

// current returns a document as the live generation, or the named one, holds it.
func (b *bed) current(id string, generation ...string) vectordb.Revision {
	b.t.Helper()
	name := Live
	if len(generation) > 0 {
		name = generation[0]
	}
	info, err := b.indexer.Info(name)
	if err != nil {
		b.t.Fatal(err)
	}
	revs, err := b.store.Current(b.ctx(), info.Name, []string{id})
	if err != nil {
		b.t.Fatal(err)
	}
	return revs[0]
}

// sections makes a document of n sections of a few chunks each, where those in changed say something else.
func sections(n int, changed ...int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "# Section %d\n\n", i)
		for p := range 2 {
			word := "plain"
			if slices.Contains(changed, i) && p == 1 {
				word = "changed"
			}
			fmt.Fprintf(&s, "%s paragraph %d of section %d %s\n\n", word, p, i, strings.Repeat("with words ", 12))
		}
	}
	return s.String()
}

func TestAnEditEmbedsOnlyWhatChangedAlsoAfterARestart(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", sections(10)))
	first := len(b.model.asked())
	if first < 10 {
		t.Fatalf("ten sections gave %d inputs", first)
	}
	b.settle(upsert("a", sections(10, 3)))
	if asked := b.model.asked(); len(asked) != 1 || !strings.Contains(asked[0], "changed") {
		t.Errorf("an edit of one paragraph embedded %d inputs: %q", len(asked), asked)
	}
	b.stop()
	b.start(Config{})
	b.settle(upsert("a", sections(10, 3, 7)))
	if asked := b.model.asked(); len(asked) != 1 {
		t.Errorf("after a restart an edit of one paragraph embedded %d inputs: %q", len(asked), asked)
	}
	same := upsert("a", sections(10, 3, 7))
	same.Document.Title, same.Document.Metadata = "Another title", map[string]any{"team": "b"}
	before := b.current("a").Version
	b.settle(same)
	if asked := b.model.asked(); len(asked) != 0 {
		t.Errorf("a change of metadata embedded %d inputs", len(asked))
	}
	if now := b.current("a"); now.Version <= before || now.Title != "Another title" || now.Metadata["team"] != "b" {
		t.Errorf("the metadata did not arrive: %+v", now)
	}
}

func TestTheNewestVersionTakesTheWaitingOnesPlace(t *testing.T) {
	b := newBed(t)
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	b.model.do(func(ctx context.Context, _ []string) error {
		begun <- struct{}{}
		select {
		case <-goOn:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	positions := b.append(upsert("a", "version 0"))
	<-begun
	for v := 1; v <= 5; v++ {
		positions = append(positions, b.append(upsert("a", fmt.Sprintf("version %d", v)))...)
	}
	g := b.indexer.live.Load()
	b.eventually("read", func() bool { return g.counts.changes.Load() == 6 })
	close(goOn)
	if err := b.indexer.WaitSearchable(b.ctx(), positions); err != nil {
		t.Fatalf("waiting for all six versions: %v", err)
	}
	if asked := b.model.asked(); !slices.Equal(asked, []string{"version 0", "version 5"}) {
		t.Errorf("embedded %q, want the one that had begun and the newest", asked)
	}
	if n := g.counts.superseded.Load(); n != 4 {
		t.Errorf("%d changes count as superseded, want 4", n)
	}
	if rev := b.current("a"); rev.Text != "version 5" {
		t.Errorf("the index holds %q", rev.Text)
	}
}

func TestASlowDocumentHoldsUpNobody(t *testing.T) {
	b := newBed(t)
	goOn := make(chan struct{})
	b.model.do(func(ctx context.Context, inputs []string) error {
		if strings.Contains(inputs[0], "slow") {
			select {
			case <-goOn:
			case <-ctx.Done():
			}
		}
		return nil
	})
	slow := b.append(upsert("a", "slow"))
	var others []stream.Position
	for i := range 50 {
		others = append(others, b.append(upsert(fmt.Sprint("other", i), "quick"))...)
	}
	if err := b.indexer.WaitSearchable(b.ctx(), others); err != nil {
		t.Fatal(err)
	}
	info, _ := b.indexer.Info(Live)
	checkpoint, err := b.store.Checkpoint(b.ctx(), info.Name)
	if err != nil {
		t.Fatal(err)
	}
	if at := slow[0]; checkpoint[at.Partition] > at.Offset {
		t.Errorf("checkpoint %d passed over offset %d, which is not done", checkpoint[at.Partition], at.Offset)
	}
	close(goOn)
	if err := b.indexer.WaitApplied(b.ctx(), Live, slices.Concat(slow, others)); err != nil {
		t.Fatal(err)
	}
}

func TestWhatFailsForATimeIsTriedAgainAndTheOldVersionServes(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", "old"))
	var failures int
	fail := make(chan bool, 1)
	fail <- true
	b.model.do(func(context.Context, []string) error {
		failing := <-fail
		fail <- failing
		if failing {
			failures++
			return &embedder.Error{Op: "test", Temporary: true, Input: -1, Err: errors.New("429")}
		}
		return nil
	})
	positions := b.append(upsert("a", "new"))
	b.eventually("in trouble", func() bool { i, _ := b.indexer.Info(Live); return i.Trouble != nil })
	if rev := b.current("a"); rev.Text != "old" {
		t.Errorf("while the model fails the index holds %q", rev.Text)
	}
	<-fail
	fail <- false
	if err := b.indexer.WaitSearchable(b.ctx(), positions); err != nil {
		t.Fatal(err)
	}
	if rev := b.current("a"); rev.Text != "new" {
		t.Errorf("the index holds %q", rev.Text)
	}
	if i, _ := b.indexer.Info(Live); i.Trouble != nil {
		t.Errorf("the trouble is over and still shown: %+v", i.Trouble)
	}

	var times int
	b.store.failWith(func(w vectordb.Write) error {
		if len(w.Revisions) > 0 && times < 3 {
			times++
			return errors.New("no space left on device")
		}
		return nil
	})
	b.settle(upsert("a", "newer"))
	if rev := b.current("a"); rev.Text != "newer" || times != 3 {
		t.Errorf("after %d failed writes the index holds %q", times, rev.Text)
	}
}

func TestPoisonGoesToTheDeadLettersAndStopsNothing(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("bad", "the old version"), upsert("good", "the old version"))
	b.model.do(func(_ context.Context, inputs []string) error {
		for i, input := range inputs {
			if strings.Contains(input, "poison") {
				return &embedder.Error{Op: "test", Input: i, Err: errors.New("refused")}
			}
		}
		return nil
	})
	b.settle(upsert("bad", "poison"), upsert("good", "the new version"))
	b.store.failWith(func(w vectordb.Write) error {
		for _, r := range w.Revisions {
			if strings.Contains(r.Text, "unstorable") {
				return fmt.Errorf("%w: bad spans", vectordb.ErrInvalid)
			}
		}
		return nil
	})
	b.settle(upsert("bad", "unstorable"), upsert("good", "the newest version"))
	if rev := b.current("bad"); rev.Text != "the old version" {
		t.Errorf("the poisoned document holds %q, want its old version", rev.Text)
	}
	if rev := b.current("good"); rev.Text != "the newest version" {
		t.Errorf("its neighbour holds %q", rev.Text)
	}
	letters, err := b.log.ReadDeadLetters(b.ctx(), 10)
	if err != nil {
		t.Fatal(err)
	}
	if len(letters) != 2 || letters[0].Problem.Code != stream.CodeEmbedRejected || !strings.Contains(string(letters[0].Raw.Value), "poison") {
		t.Errorf("dead letters: %+v", letters)
	}
}

// TestTheIndexIsTheFoldOfTheLog makes random changes with restarts in between, and compares with folding them by hand.
func TestTheIndexIsTheFoldOfTheLog(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			rng := rand.New(rand.NewPCG(seed, 1))
			want := map[string]string{}
			var positions []stream.Position
			for step := range 300 {
				id := fmt.Sprint("doc", rng.IntN(20))
				if rng.IntN(5) == 0 {
					delete(want, id)
					positions = append(positions, b.append(remove(id))...)
				} else {
					text := sections(1+rng.IntN(4), rng.IntN(5)) + fmt.Sprint("step ", step)
					if rng.IntN(10) == 0 {
						text = ""
					}
					want[id] = text
					positions = append(positions, b.append(upsert(id, text))...)
				}
				if step%100 == 99 {
					b.stop()
					b.start(Config{MaxInFlightBytes: 4 << 10})
				}
			}
			if err := b.indexer.WaitApplied(b.ctx(), Live, positions); err != nil {
				t.Fatal(err)
			}
			b.compare(want)
			// A replay with the same recipe gives the same index.
			info, err := b.indexer.Create(b.ctx(), "again", vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Markdown, Tokens: 40}})
			if err != nil {
				t.Fatal(err)
			}
			if err := b.indexer.WaitApplied(b.ctx(), info.Name, positions); err != nil {
				t.Fatal(err)
			}
			b.compare(want, info.Name)
		})
	}
}

// compare holds a generation to what it should be.
func (b *bed) compare(want map[string]string, generation ...string) {
	b.t.Helper()
	name := append(generation, Live)[0]
	info, err := b.indexer.Info(name)
	if err != nil {
		b.t.Fatal(err)
	}
	cut, _ := chunker.New(chunker.Options{Strategy: chunker.Markdown, Tokens: 40})
	got := map[string]string{}
	for after := ""; ; {
		page, err := b.store.Scan(b.ctx(), info.Name, after, 7)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, rev := range page {
			after = rev.Key
			if rev.Deleted || rev.Version == 0 {
				continue
			}
			got[rev.Key] = rev.Text
			chunks, err := cut.Split(b.ctx(), stream.TextMarkdown, rev.Text)
			if err != nil {
				b.t.Fatal(err)
			}
			if len(chunks) != len(rev.Entries) {
				b.t.Errorf("%s has %d entries, want %d", rev.Key, len(rev.Entries), len(chunks))
				continue
			}
			for i, c := range chunks {
				e := rev.Entries[i]
				vectors, _ := b.model.Hash.Embed(b.ctx(), embedder.Index, []string{c.Input(rev.Text)})
				if e.Start != c.Start || e.End != c.End || !slices.Equal(e.Vector, vectors[0]) {
					b.t.Errorf("%s: entry %d is %d–%d, want %d–%d with its own vector", rev.Key, i, e.Start, e.End, c.Start, c.End)
				}
			}
		}
	}
	if !maps.Equal(got, want) {
		b.t.Errorf("%s holds %d documents, want %d", info.Name, len(got), len(want))
		for id := range want {
			if got[id] != want[id] {
				b.t.Errorf("%s: %q, want %q", id, got[id], want[id])
			}
		}
	}
}

func TestGenerations(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", sections(5)), upsert("b", sections(3)))
	first, _ := b.indexer.Info(Live)
	recipe := vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Recursive, Tokens: 80}}

	if _, err := b.indexer.Create(b.ctx(), "Upper", recipe); !errors.Is(err, ErrName) {
		t.Errorf("a bad name: %v", err)
	}
	if _, err := b.indexer.Create(b.ctx(), "bad", vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: "none"}}); !errors.Is(err, ErrRecipe) {
		t.Errorf("a bad recipe: %v", err)
	}
	if _, err := b.indexer.Promote(b.ctx(), "second"); !errors.Is(err, ErrNotFound) {
		t.Errorf("promoting what is not there: %v", err)
	}
	if _, err := b.indexer.Rollback(b.ctx()); !errors.Is(err, ErrNoPrevious) {
		t.Errorf("rolling back nothing: %v", err)
	}
	for _, name := range []string{first.Name, Live} {
		if err := b.indexer.Drop(b.ctx(), name); !errors.Is(err, ErrInUse) {
			t.Errorf("dropping the live one as %s: %v", name, err)
		}
	}

	hold := make(chan struct{})
	b.model.do(func(ctx context.Context, _ []string) error {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	if _, err := b.indexer.Create(b.ctx(), "second", recipe); err != nil {
		t.Fatal(err)
	}
	if _, err := b.indexer.Create(b.ctx(), "second", vectordb.Recipe{Chunker: vectordb.ChunkerRecipe{Strategy: chunker.Token, Tokens: 99}}); !errors.Is(err, ErrExists) {
		t.Errorf("another recipe under the same name: %v", err)
	}
	if _, err := b.indexer.Promote(b.ctx(), "second"); !errors.Is(err, ErrNotCaughtUp) {
		t.Errorf("promoting one that builds: %v", err)
	}
	if info, err := b.indexer.Set(b.ctx(), "second", Pause); err != nil || info.State != StatePaused {
		t.Errorf("pausing: %v, %v", info.State, err)
	}
	b.model.do(nil)
	close(hold)
	if info, err := b.indexer.Set(b.ctx(), "second", Run); err != nil || info.State == StatePaused {
		t.Errorf("resuming: %v, %v", info.State, err)
	}
	b.eventually("caught up", func() bool { i, err := b.indexer.Info("second"); return err == nil && i.State == StateReady })

	if _, err := b.indexer.Promote(b.ctx(), "second"); err != nil {
		t.Fatal(err)
	}
	if info, _ := b.indexer.Info(Live); info.Name != "second" {
		t.Errorf("live is %s after the promote", info.Name)
	}
	b.settle(upsert("a", sections(5, 2)))
	if rev := b.current("a", first.Name); !strings.Contains(rev.Text, "changed") {
		b.eventually("followed", func() bool { return strings.Contains(b.current("a", first.Name).Text, "changed") })
	}
	b.stop()
	b.start(Config{})
	if info, _ := b.indexer.Info(Live); info.Name != "second" {
		t.Errorf("live is %s after a restart", info.Name)
	}
	if _, err := b.indexer.Rollback(b.ctx()); err != nil {
		t.Fatal(err)
	}
	if info, _ := b.indexer.Info(Live); info.Name != first.Name {
		t.Errorf("live is %s after rolling back", info.Name)
	}
	if err := b.indexer.Drop(b.ctx(), "second"); err != nil {
		t.Fatal(err)
	}
	if list := b.indexer.List(); len(list) != 1 || list[0].Name != first.Name {
		t.Errorf("after the drop there are %+v", list)
	}
	stored, err := b.store.List(b.ctx())
	if err != nil || len(stored) != 1 {
		t.Errorf("after the drop the store holds %+v, %v", stored, err)
	}
	if _, err := b.indexer.Create(b.ctx(), "second", recipe); err != nil {
		t.Errorf("making it again: %v", err)
	}
	b.eventually("caught up again", func() bool { i, err := b.indexer.Info("second"); return err == nil && i.State == StateReady })
	if rev := b.current("a", "second"); !strings.Contains(rev.Text, "changed") {
		t.Errorf("made again, it holds %q", rev.Text)
	}
	if info, err := b.indexer.Set(b.ctx(), "second", Cancel); err != nil || info.State != StateCancelled {
		t.Errorf("cancelling: %v, %v", info.State, err)
	}
}

func TestAccessChangesEmbedNothing(t *testing.T) {
	b := newBed(t)
	b.settle(upsert("a", "text"))
	b.model.asked()
	b.settle(stream.Change{Kind: stream.Access, ID: "a", ACL: []string{"ann"}})
	if rev := b.current("a"); !slices.Equal(rev.Readers(), []string{"ann"}) || rev.Text != "text" {
		t.Errorf("after the change of access: readers %v, text %q", rev.Readers(), rev.Text)
	}
	b.settle(upsert("a", "text"))
	if rev := b.current("a"); !slices.Equal(rev.Readers(), []string{"ann"}) {
		t.Errorf("a new version lost the override: %v", rev.Readers())
	}
	b.settle(stream.Change{Kind: stream.Access, ID: "a"})
	if rev := b.current("a"); rev.Readers() != nil {
		t.Errorf("the override was cleared, and readers are %v", rev.Readers())
	}
	if asked := b.model.asked(); len(asked) != 0 {
		t.Errorf("changes of access embedded %q", asked)
	}
}

func TestHTMLIsReadAsMarkdownOnce(t *testing.T) {
	b := newBed(t)
	page := stream.Change{Kind: stream.Upsert, ID: "page", Document: &stream.Document{
		ContentType: stream.TextHTML,
		Text:        "<html><head><title>Refunds</title></head><body><h1>Refunds</h1><p>They take <b>three</b> days.</p></body></html>",
	}}
	b.settle(page)
	rev := b.current("page")
	if !strings.Contains(rev.Text, "# Refunds") || strings.Contains(rev.Text, "<p>") || rev.Title != "Refunds" || len(rev.Entries) != 1 {
		t.Errorf("the page became %+v", rev)
	}
	b.model.asked()
	b.settle(page)
	if asked := b.model.asked(); len(asked) != 0 {
		t.Errorf("the same page again embedded %q", asked)
	}
}

func TestEventsAndFreshness(t *testing.T) {
	b := newBed(t)
	events, stop := b.indexer.Events()
	defer stop()
	b.settle(upsert("a", sections(3)))
	secret := upsert("secret", "text")
	secret.Document.ACL = []string{"ann"}
	b.settle(secret)
	imported := upsert("old", "text")
	imported.Backfill = true
	b.settle(imported)
	b.settle(remove("a"))
	var seen []string
	for range 3 {
		select {
		case e := <-events:
			seen = append(seen, e.Kind+" "+e.ID)
		case <-b.ctx().Done():
			t.Fatalf("only %q was told", seen)
		}
	}
	if !slices.Equal(seen, []string{"upsert a", "upsert old", "delete a"}) {
		t.Errorf("events are %q: a restricted document must not be among them", seen)
	}
	f, err := b.indexer.Freshness(b.ctx())
	if err != nil {
		t.Fatal(err)
	}
	var lag int64
	for _, p := range f.Partitions {
		lag += p.Lag
	}
	if f.Entered.Count != 3 || f.Backfill.Count != 1 || len(f.Partitions) != 3 || lag != 0 || !f.SLO.Met {
		t.Errorf("freshness: %+v", f)
	}
	before := time.Now()
	if err := b.indexer.WaitAsOf(b.ctx(), Live, before); err != nil {
		t.Errorf("waiting for now: %v", err)
	}
	if status := b.indexer.Status(Live); status.AsOf.Before(before) {
		t.Errorf("as of %v, want at least %v", status.AsOf, before)
	}
}

func TestAReplayBorrowsWhatAnotherGenerationHas(t *testing.T) {
	b := newBed(t)
	short := "# A\n\none short section\n\n# B\n\nanother short section\n"
	positions := b.append(upsert("a", sections(10)), upsert("b", short))
	if err := b.indexer.WaitApplied(b.ctx(), Live, positions); err != nil {
		t.Fatal(err)
	}
	b.model.asked()
	replay := func(name string, recipe vectordb.ChunkerRecipe) Info {
		t.Helper()
		if _, err := b.indexer.Create(b.ctx(), name, vectordb.Recipe{Chunker: recipe}); err != nil {
			t.Fatal(err)
		}
		if err := b.indexer.WaitApplied(b.ctx(), name, positions); err != nil {
			t.Fatal(err)
		}
		info, err := b.indexer.Info(name)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	same := replay("same", vectordb.ChunkerRecipe{Strategy: chunker.Markdown, Tokens: 40})
	if asked := b.model.asked(); len(asked) != 0 || same.Progress.TokensEmbedded != 0 || same.Progress.TokensReused == 0 {
		t.Errorf("the same recipe embedded %d inputs; progress %+v", len(asked), same.Progress)
	}
	// Under a larger budget the long document is cut elsewhere; the sections of the short one are the same chunks.
	replay("larger", vectordb.ChunkerRecipe{Strategy: chunker.Markdown, Tokens: 200})
	asked := b.model.asked()
	if len(asked) == 0 || slices.ContainsFunc(asked, func(s string) bool { return strings.Contains(s, "short") }) {
		t.Errorf("another budget embedded %q", asked)
	}
	b.compare(map[string]string{"a": sections(10), "b": short}, "same")
}

// TestProcessesShareAStore has two indexers of one consumer group write one store, and one of them replaced in the middle.
func TestProcessesShareAStore(t *testing.T) {
	b := newBed(t)
	b.stop()
	first, stopFirst := b.another(Config{Shared: true})
	b.eventually("alone", func() bool { return first.Ready() == nil })
	_, stopSecond := b.another(Config{Shared: true})
	want := map[string]string{}
	rng := rand.New(rand.NewPCG(3, 3))
	write := func() {
		for range 60 {
			id := fmt.Sprint("doc", rng.IntN(15))
			if rng.IntN(5) == 0 {
				delete(want, id)
				b.append(remove(id))
				continue
			}
			want[id] = sections(1+rng.IntN(3)) + fmt.Sprint(rng.Int())
			b.append(upsert(id, want[id]))
		}
	}
	write()
	stopFirst()
	write()
	third, _ := b.another(Config{Shared: true})
	write()
	stopSecond()
	b.eventually("alone again", func() bool { return third.Ready() == nil && len(third.live.Load().progress.snapshot()) == 3 })
	b.indexer = third
	ends, err := b.log.Ends(b.ctx())
	if err != nil {
		t.Fatal(err)
	}
	var last []stream.Position
	for _, end := range ends {
		if end.Offset > 0 {
			last = append(last, stream.Position{Partition: end.Partition, Offset: end.Offset - 1})
		}
	}
	if err := third.WaitApplied(b.ctx(), Live, last); err != nil {
		t.Fatal(err)
	}
	b.compare(want)
}

// TestWaitingBeginsBeforeThereIsAnIndex writes while the indexer has not begun: the log takes writes from its first moment on.
func TestWaitingBeginsBeforeThereIsAnIndex(t *testing.T) {
	b := newBed(t)
	b.stop()
	positions := b.append(upsert("a", "text"))
	x := New(b.config(Config{}))
	waited := make(chan error, 1)
	go func() { waited <- x.WaitSearchable(b.ctx(), positions) }()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	if err := <-waited; err != nil {
		t.Errorf("waiting since before the start: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestGenerationsChangeWhileOthersAreWritten is for the race detector.
func TestGenerationsChangeWhileOthersAreWritten(t *testing.T) {
	b := newBed(t)
	if _, err := b.indexer.Create(b.ctx(), "other", vectordb.Recipe{}); err != nil {
		t.Fatal(err)
	}
	ctx, done := b.ctx(), make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			for _, desired := range []Desired{Pause, Run} {
				if _, err := b.indexer.Set(ctx, "other", desired); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for i := 0; ; i++ {
		b.settle(upsert("a", fmt.Sprint("version ", i)))
		if _, err := b.indexer.Freshness(b.ctx()); err != nil {
			t.Error(err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
