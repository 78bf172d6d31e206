package indexer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mutant is a bug: in file, which is named from this directory, old becomes new.
type mutant struct {
	name, file, old, new string
}

// mutants are bugs that the simulation has to find. Each is about one promise; where the text that it changes is rewritten, the mutant has to be too.
var mutants = []mutant{
	{"commit before apply", "progress.go",
		"part.applied = part.open[0].offset",
		"part.applied = part.fetched"},
	{"lose the tail chunk", "pipeline.go",
		"chunks, err := p.parts.Chunker.Split(ctx, u.as, rev.Text)\n",
		"chunks, err := p.parts.Chunker.Split(ctx, u.as, rev.Text)\n\tif len(chunks) > 1 {\n\t\tchunks = chunks[:len(chunks)-1]\n\t}\n"},
	{"a checkpoint of what was read", "progress.go",
		"if d.state == waiting {",
		"if false {"},
	{"the store ignores versions", "../vectordb/memory.go",
		"content, access := r.Version > d.Version ||",
		"content, access := r.Version > 0 ||"},
	{"drop the tombstone", "pipeline.go",
		"rev.Deleted = true\n",
		"t.revision = nil\n"},
	{"forget the delete fence", "../vectordb/memory.go",
		"		case r.Deleted:\n",
		"		case r.Deleted:\n			delete(g.documents, r.Key)\n			return\n"},
	{"swap vectors", "pipeline.go",
		"t.revision.Entries[entry].Vector = vectors[i]",
		"t.revision.Entries[entry].Vector = vectors[len(vectors)-1-i]"},
	{"apply out of order: the older of two that wait wins", "pipeline.go",
		"	if content.Version < t.content.Version {\n",
		"	if content.Version > t.content.Version {\n"},
	{"keep the old tail", "pipeline.go",
		"	if len(missing) == 0 {\n\t\tp.countReused(t)\n\t}\n\treturn missing, nil\n",
		"	for i := len(rev.Entries); i < len(u.stored.Entries); i++ {\n\t\tif e := u.stored.Entries[i]; e.End <= len(rev.Text) {\n\t\t\trev.Entries = append(rev.Entries, e)\n\t\t}\n\t}\n\treturn missing, nil\n"},
	{"count a superseded change as applied", "pipeline.go",
		"	old.allow(other.access)\n",
		"	for _, c := range old.covers {\n\t\tp.progress.finish([]stream.Position{c.at}, nil)\n\t}\n\told.allow(other.access)\n"},
	{"rewind on revoke", "pipeline.go",
		"next = append(next, stream.Position{Partition: id, Offset: offset})",
		"next = append(next, stream.Position{Partition: id, Offset: max(0, offset-int64(len(partitions)))})"},
	{"a cache keyed without the model", "../embedder/cache.go",
		"b = append(append(b, name...), byte(role))",
		"b = append(b[:0], byte(role))"},
	{"delete before upsert", "pipeline.go",
		"err := p.persist(ctx, \"write to the store\", func() error { return p.store.Apply(ctx, p.generation, w) })",
		"for i := range w.Revisions {\n\t\t\tif r := w.Revisions[i]; r.Version > 1 {\n\t\t\t\t_ = p.store.Apply(ctx, p.generation, vectordb.Write{Revisions: []vectordb.Revision{{Key: r.Key, Version: r.Version - 1, Deleted: true}}})\n\t\t\t}\n\t\t}\n\t\terr := p.persist(ctx, \"write to the store\", func() error { return p.store.Apply(ctx, p.generation, w) })"},
	{"commit before visible", "pipeline.go",
		"	if p.delayed == nil {\n",
		"	if true {\n"},
	{"poison takes away what it superseded", "pipeline.go",
		"	t.remember(t.content)\n",
		""},
	{"no dead letter", "pipeline.go",
		"func() error { return p.letters.Send(ctx, t.letters...) }",
		"func() error { return nil }"},
	{"an access change is lost when its task is overtaken", "pipeline.go",
		"	newer.allow(t.access)\n",
		""},
	{"what was read on to counts as all that is before it", "ahead.go",
		"			if !p.progress.hasRead(change.Position) {\n",
		"			if p.progress.deliver(change.Position) {\n"},
	{"as of the newest end, reached or not", "progress.go",
		"if part.end.Offset <= part.applied && part.end.At.After(part.asOf) {",
		"if part.end.At.After(part.asOf) {"},
	{"as of the partitions that happen to be known", "progress.go",
		"	if len(p.partitions) < p.whole {\n",
		"	if false {\n"},
	{"gaps are not read", "progress.go",
		"part != nil && at.Offset > part.fetched {",
		"part != nil && at.Offset < 0 {"},
	{"promote before it has caught up", "generations.go",
		"	if err := x.WaitAsOf(wait, name, time.Now()); err != nil {\n",
		"	if err := x.WaitAsOf(wait, name, time.Time{}); err != nil {\n"},
	{"borrow vectors of another model", "generation.go",
		"other.opened && other.parts.Embedder.Name() == model",
		"other.opened && model != \"\""},
	{"borrow chunks of another chunker", "pipeline.go",
		"{other, otherChunker == p.parts.Chunker.Name()}",
		"{other, true}"},
	{"embed what is stored again", "pipeline.go",
		"			lent[entries[i].Hash] = entries[i].Vector\n",
		"			lent[entries[i].Hash] = nil\n"},
	{"an error counts as success the second time", "pipeline.go",
		"		case err == nil:\n\t\t\tif attempt > 1 {",
		"		case err == nil || attempt > 1:\n\t\t\tif attempt > 1 {"},
	{"commits overtake each other", "pipeline.go",
		"	if p.committing.take(ctx) != nil {\n\t\treturn false\n\t}\n\tdefer p.committing.give()\n",
		""},
	{"an absence goes unnoticed", "retention.go",
		"p.lapse > 0 && now.Sub(from.Round(0)).Abs() >= allowed {",
		"p.lapse < 0 && now.Sub(from.Round(0)).Abs() >= allowed {"},
	{"access that was taken back stays", "reconcile.go",
		"if f.access > 0 || rev.Access.Clear {",
		"if true {"},
	{"a refused commit counts", "pipeline.go",
		"(terms != savedTerms || !sameCheckpoint(saved, now))",
		"(terms == 0 || savedTerms > terms || !sameCheckpoint(saved, now))"},
	{"work of an earlier term finishes a later one's", "pipeline.go",
		"			if p.owned[c.at.Partition] == c.term {\n",
		"			if c.term > 0 {\n"},
}

var seedsFailed = regexp.MustCompile(`(\d+) of (\d+) seeds failed`)

// TestMutants plants bugs, one at a time, and counts the seeds of the simulation that find each. The ordinary run looks whether all can still be planted, and tries two;
// LIVERAG_MUTANTS=1 tries all with 1,000 seeds, or with as many as MUTANT_SEEDS says, and prints the table.
func TestMutants(t *testing.T) {
	all := os.Getenv("LIVERAG_MUTANTS") != ""
	only := os.Getenv("LIVERAG_MUTANTS")
	var table strings.Builder
	for i, m := range mutants {
		source, err := os.ReadFile(m.file)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), m.old); n != 1 {
			t.Errorf("mutant %q: %s has %d places like this one, not 1; plant it anew:\n%s", m.name, m.file, n, m.old)
			continue
		}
		seeds := setting("MUTANT_SEEDS", 1000)
		switch {
		case all && only != "1" && !strings.Contains(m.name, only):
			continue
		case !all && (testing.Short() || defaultSeeds < 500 || i > 1):
			continue
		case !all:
			seeds = 40
		}
		caught, how := m.try(t, seeds, string(source))
		line := fmt.Sprintf("%-52s %4d of %d  %s", m.name, caught, seeds, how)
		t.Log(line)
		table.WriteString(line + "\n")
		if caught == 0 {
			t.Errorf("mutant %q is not found by %d seeds", m.name, seeds)
		}
	}
	t.Logf("found by seeds:\n%s", table.String())
}

// try runs the simulation with the mutant in place of its file.
func (m mutant) try(t *testing.T, seeds int, source string) (caught int, how string) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command to build mutants with")
	}
	dir := t.TempDir()
	original, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	changed, overlay := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{changed: []byte(strings.Replace(source, m.old, m.new, 1)), overlay: list} {
		if err := os.WriteFile(name, content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "go", "test", "-overlay", overlay, "-vet=off", "-count=1", "-timeout=19m", "-v", "-run=^TestSimulation$", ".")
	command.Env = append(os.Environ(), "SIM_SEED=1", "SIM_TRACE=4", fmt.Sprint("SIM_SEEDS=", seeds), "LIVERAG_MUTANTS=")
	out, err := command.CombinedOutput()
	found := seedsFailed.FindSubmatch(out)
	if found == nil {
		if strings.Contains(string(out), "[build failed]") || strings.Contains(string(out), "[setup failed]") {
			t.Errorf("mutant %q does not compile:\n%s", m.name, out)
			return 0, "it does not compile"
		}
		return 1, "it crashes: " + firstLine(out, "panic:")
	}
	if err == nil {
		return 0, ""
	}
	caught, _ = strconv.Atoi(string(found[1]))
	return caught, firstLine(out, "simulation_test.go:")
}

// firstLine returns the first line with a word in it, shortened.
func firstLine(out []byte, word string) string {
	for line := range strings.Lines(string(out)) {
		if _, text, ok := strings.Cut(line, word); ok {
			text = strings.TrimSpace(strings.TrimLeft(text, "0123456789: "))
			return text[:min(len(text), 110)]
		}
	}
	return ""
}
