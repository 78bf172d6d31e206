package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/docs"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/demo"
	"github.com/liverag/liverag/internal/githistory"
)

// guided starts a system as `up --demo` does in a new data directory, and a tour of it that does not wait between edits. The tour's corpus is
// the small documents among the standard library's, or our own documentation where there is no Go tree.
func guided(t *testing.T) (*tour, *bytes.Buffer) {
	t.Helper()
	cfg := defaultConfig()
	cfg.Data = t.TempDir()
	s, _ := startSystemWith(t, &cfg, duty{index: true, serve: true, quick: true})
	var out bytes.Buffer
	guide := &tour{system: s, config: &cfg, base: "http://127.0.0.1:1", out: newTerminal(&out, nil), quick: true, every: 10 * time.Millisecond, begun: time.Now(),
		embedding: 8000, // measured beside other tests of the same model it may be nearly nothing, and the tour another one
	}
	corpus := demo.Fallback(docs.Files)
	if root, err := demo.FindGOROOT(t.Context()); err == nil {
		corpus = demo.Standard(root)
	}
	for d, err := range corpus {
		if err != nil {
			t.Fatal(err)
		}
		if len(d.Text) < 2500 {
			guide.corpus = append(guide.corpus, d)
		}
	}
	guide.corpus = guide.corpus[:min(len(guide.corpus), 12)]
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return guide, &out
}

func (t *tour) holds(tb testing.TB) {
	tb.Helper()
	held, err := t.compare(tb.Context(), t.corpus)
	if err != nil || len(held.edited)+len(held.unknown) > 0 {
		tb.Errorf("afterwards %d documents are otherwise, and %d are not there; %v", len(held.edited), len(held.unknown), err)
	}
}

// TestTour: the first answer comes from local/static, then the index by the configured model is built behind it and compared; everything is as it was in the end.
func TestTour(t *testing.T) {
	t.Parallel()
	guide, out := guided(t)
	if model := guide.live().Recipe.Embedder.Model; model != "local/static" {
		t.Fatalf("the first generation is by %s", model)
	}
	if err := guide.present(t.Context()); err != nil {
		t.Fatal(err)
	}
	guide.holds(t)
	all := guide.system.indexer.List()
	if len(all) != 2 || !slices.ContainsFunc(all, func(g indexer.Info) bool { return g.Recipe == guide.config.recipe() && g.State == indexer.StateReady }) {
		t.Errorf("the generations are %+v", all)
	}
	for _, want := range []string{"tokens embedded by local/static in", "after the start, in", "by markdown 200, local/minilm, while the edits go on", "nDCG@10", "bundled questions about these", "The edits are taken back", "4  A project's history", "Your turn"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	for _, bad := range []string{"STALE", "not in the first", "%!"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("it says %q", bad)
		}
	}

	// The second time nothing is left to do, but to compare again if the first index stayed.
	before := embeddedBy(t, guide)
	out.Reset()
	if err := guide.present(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := embeddedBy(t, guide); !strings.Contains(out.String(), "nothing was embedded") || !maps.Equal(before, after) {
		t.Errorf("the second time %v chunks are embedded, before %v", after, before)
	}
}

// embeddedBy is how many chunks each generation has had embedded, once all have come to the log's end: the one that does not answer may be behind.
func embeddedBy(t *testing.T, guide *tour) map[string]int64 {
	t.Helper()
	chunks := make(map[string]int64)
	for _, g := range guide.system.indexer.List() {
		if err := guide.system.indexer.WaitAsOf(t.Context(), g.Name, time.Now()); err != nil {
			t.Fatal(err)
		}
		info, err := guide.system.indexer.Info(g.Name)
		if err != nil {
			t.Fatal(err)
		}
		chunks[g.Name] = info.Progress.ChunksEmbedded
	}
	return chunks
}

// TestTourGoesOn: what an interruption left is put right by the next start, and the index that was being built is compared then.
func TestTourGoesOn(t *testing.T) {
	t.Parallel()
	guide, out := guided(t)
	whole := guide.corpus
	guide.corpus = whole[:len(whole)-2]
	ctx, cancel := context.WithCancel(t.Context())
	stop := context.AfterFunc(t.Context(), cancel)
	defer stop()
	defer cancel()
	guide.out = newTerminal(writerFunc(func(p []byte) (int, error) {
		if strings.Contains(string(p), "3  Replay") {
			cancel() // Ctrl-C at this moment
		}
		return out.Write(p)
	}), nil)
	if err := guide.present(ctx); err == nil {
		t.Fatal("the tour came to its end although it was interrupted")
	}
	if err := guide.system.indexer.WaitAsOf(t.Context(), indexer.Live, time.Now()); err != nil {
		t.Fatal(err)
	}
	guide.holds(t) // the edits were taken back
	second, _ := guide.second(guide.live().Recipe)
	if len(guide.system.indexer.List()) == 1 {
		if _, err := guide.system.indexer.Create(t.Context(), "", second); err != nil {
			t.Fatal(err)
		}
	}
	// And as after a kill: an edit that nobody took back.
	broken := whole[0]
	broken.Text = "broken"
	if err := guide.bring(t.Context(), []demo.Document{broken}); err != nil {
		t.Fatal(err)
	}
	guide.corpus = whole
	out.Reset()
	if err := guide.present(t.Context()); err != nil {
		t.Fatal(err)
	}
	guide.holds(t)
	for _, want := range []string{"Replay: the second index of the last run", "nDCG@10", "The rest of the corpus follows: 2 documents", "2 documents, "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if n := len(guide.system.indexer.List()); n != 2 {
		t.Errorf("there are %d generations", n)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestTourOnly indexes, without edits.
func TestTourOnly(t *testing.T) {
	t.Parallel()
	guide, out := guided(t)
	guide.short = true
	if err := guide.present(t.Context()); err != nil {
		t.Fatal(err)
	}
	guide.holds(t)
	if !strings.Contains(out.String(), "Behind it the index by local/minilm is built") || !strings.Contains(out.String(), "nDCG@10") || strings.Contains(out.String(), "2  Live") {
		t.Error(out)
	}
}

// TestEditsAreFound: each edit of the tour is what its query finds, whatever part of the corpus fits the time.
func TestEditsAreFound(t *testing.T) {
	root, err := demo.FindGOROOT(t.Context())
	if err != nil {
		t.Skip(err)
	}
	var corpus []demo.Document
	for d, err := range demo.Standard(root) {
		if err != nil {
			t.Fatal(err)
		}
		corpus = append(corpus, d)
	}
	for _, part := range []int{30, 100} {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			guide, out := guided(t)
			guide.documents, _ = demo.Budget(corpus, textBytes(corpus)*part/100, func(d demo.Document) int { return len(d.Text) })
			if err := guide.bring(t.Context(), guide.documents); err != nil {
				t.Fatal(err)
			}
			n := 0
			for e := range demo.Edits(guide.documents, 1) {
				if _, err := guide.edit(t.Context(), e); err != nil {
					t.Fatal(err)
				}
				if n++; n == 40 {
					break
				}
			}
			if strings.Contains(out.String(), "not in the first") || strings.Contains(out.String(), "STALE") || strings.Count(out.String(), "\n") < 40 {
				t.Error("an edit was not found")
			}
		})
	}
}

// slow is a model that takes its time, by the byte.
type slow struct {
	*embedder.Hash
	perByte time.Duration
	bytes   int
}

func (s *slow) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	n := 0
	for _, input := range inputs {
		n += len(input)
	}
	s.bytes += n
	if err := pause(ctx, time.Duration(n)*s.perByte); err != nil {
		return nil, err
	}
	return s.Hash.Embed(ctx, role, inputs)
}

func TestSpeed(t *testing.T) {
	cut, err := chunker.New(chunker.Options{Strategy: chunker.Recursive, Tokens: 64, Tokenizer: chunker.CL100K})
	if err != nil {
		t.Fatal(err)
	}
	var documents []demo.Document
	for d := range demo.BenchDocuments(200, 1) {
		documents = append(documents, d)
	}
	// A model of 100 kB a second at most: pauses are never shorter than asked for.
	model := &slow{Hash: embedder.NewHash(8), perByte: 10 * time.Microsecond}
	rate, err := speed(t.Context(), documents, cut, model)
	if err != nil || rate > 100e3 || rate < 100 {
		t.Errorf("%v bytes a second, %v", rate, err)
	}
	if model.bytes > 130*600 {
		t.Errorf("%d bytes were embedded", model.bytes)
	}
	// One that takes longer for two chunks than there is time is asked for no more.
	slower := &slow{Hash: embedder.NewHash(8), perByte: time.Millisecond}
	if rate, err := speed(t.Context(), documents, cut, slower); err != nil || rate > 1000 || slower.bytes > 2000 {
		t.Errorf("%v bytes a second after %d bytes, %v", rate, slower.bytes, err)
	}
	if _, err := speed(t.Context(), nil, cut, model); err == nil {
		t.Error("a speed was measured on nothing")
	}
}

func TestHistoryOfAProject(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	commit := func(files ...string) {
		t.Helper()
		for i := 0; i < len(files); i += 2 {
			if files[i+1] == "" {
				git("rm", "-q", files[i])
				continue
			}
			write(t, dir, files[i], []byte(files[i+1]))
		}
		git("add", "-A")
		git("commit", "-q", "-m", "x")
	}
	git("init", "-q")
	commit("go.mod", ownModule+"\n\ngo 1.26\n", "main.go", "package main")
	commit("README.md", "# One", "docs/gone.md", "gone later")
	commit("main.go", "package main // changed")
	commit("docs/gone.md", "", "docs/a.md", "# A\n\nfirst", "docs/adr/1.md", "no guide")
	commit("README.md", "# Two")
	commit("docs/a.md", "# A\n\nsecond")
	git("mv", "docs/a.md", "docs/b.md")
	git("commit", "-q", "-m", "x")

	t.Chdir(dir + "/docs")
	r, err := project(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	said := func(commits [][]githistory.Change) string {
		var b strings.Builder
		for _, commit := range commits {
			for _, c := range changesOf(commit) {
				if fmt.Fprintf(&b, "%v %s", c.Kind, c.ID); c.Document != nil {
					fmt.Fprintf(&b, " %q", c.Document.Text)
					if c.Document.UpdatedAt.IsZero() || !c.Backfill {
						t.Errorf("%s is of %v, backfill %v", c.ID, c.Document.UpdatedAt, c.Backfill)
					}
				}
				b.WriteString("\n")
			}
			b.WriteString(".\n")
		}
		return b.String()
	}
	for _, tt := range []struct {
		most int
		want string
	}{
		{100, `upsert liverag/README.md "# One"
upsert liverag/docs/gone.md "gone later"
.
upsert liverag/docs/a.md "# A\n\nfirst"
delete liverag/docs/gone.md
.
upsert liverag/README.md "# Two"
.
upsert liverag/docs/a.md "# A\n\nsecond"
.
delete liverag/docs/a.md
upsert liverag/docs/b.md "# A\n\nsecond"
.
`},
		{2, `upsert liverag/README.md "# Two"
upsert liverag/docs/a.md "# A\n\nfirst"
.
upsert liverag/docs/a.md "# A\n\nsecond"
.
delete liverag/docs/a.md
upsert liverag/docs/b.md "# A\n\nsecond"
.
`},
	} {
		commits, err := recent(t.Context(), r, tt.most)
		if err != nil {
			t.Fatal(err)
		}
		if got := said(commits); got != tt.want {
			t.Errorf("the last %d:\n%s", tt.most, got)
		}
	}
	commits, err := recent(t.Context(), r, 100)
	if err != nil {
		t.Fatal(err)
	}
	if got := said(affordable(commits, 15)); got != "upsert liverag/README.md \"# One\"\nupsert liverag/docs/gone.md \"gone later\"\n.\ndelete liverag/docs/gone.md\n.\nupsert liverag/README.md \"# Two\"\n.\n" {
		t.Errorf("of 15 bytes:\n%s", got)
	}

	write(t, dir, "go.mod", []byte("module example.com/other\n"))
	if _, err := project(t.Context()); err == nil {
		t.Error("another project's history was taken for ours")
	}
}
