package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// harm is a way to damage a file.
type harm struct {
	name string
	do   func(r *rand.Rand, path string, content []byte) error
}

var harms = []harm{
	{"cut", func(r *rand.Rand, path string, content []byte) error {
		return os.Truncate(path, int64(len(content)-1-r.IntN(min(len(content), 200))))
	}},
	{"flipped in its tail", func(r *rand.Rand, path string, content []byte) error {
		for range 1 + r.IntN(3) {
			content[len(content)-1-r.IntN(min(len(content), 60))] ^= 1 << r.IntN(8)
		}
		return os.WriteFile(path, content, 0o644)
	}},
	{"flipped anywhere", func(r *rand.Rand, path string, content []byte) error {
		content[r.IntN(len(content))] ^= 1 << r.IntN(8)
		return os.WriteFile(path, content, 0o644)
	}},
	{"zeroed in its tail", func(r *rand.Rand, path string, content []byte) error {
		clear(content[len(content)-1-r.IntN(min(len(content), 200)):])
		return os.WriteFile(path, content, 0o644)
	}},
	{"removed", func(_ *rand.Rand, path string, _ []byte) error { return os.Remove(path) }},
	{"emptied", func(_ *rand.Rand, path string, _ []byte) error { return os.Truncate(path, 0) }},
	{"garbage", func(r *rand.Rand, path string, content []byte) error {
		for i := range content {
			content[i] = byte(r.Uint32())
		}
		return os.WriteFile(path, content, 0o644)
	}},
}

// damaged is what a data directory held when it was whole.
type damaged struct {
	notebook *notebook
	answers  []string
}

// answersOf lists what a program finds, but for what a rebuilt index may have otherwise.
func answersOf(p *program) (out []string) {
	for _, q := range []string{"State of document 3", "Paragraph 1 speaks of word7", "Paragraph 2 speaks of word9", "State 2 of edited"} {
		for _, h := range p.ask(q, map[string]any{"k": 10}).Hits {
			out = append(out, fmt.Sprintf("%s: %s v%d %.5f %q", q, h.ID, h.Version, h.Score, h.Text))
		}
	}
	return out
}

// wholeData makes a data directory with every kind of file, which a stop, a start and a kill have left.
func wholeData(t *testing.T) (dir string, d damaged) {
	t.Helper()
	dir, d = t.TempDir(), damaged{notebook: newNotebook()}
	p := startProgram(t, dir)
	change := func(id string, n int) {
		t.Helper()
		if err := d.notebook.write(p, id, n, true); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 90 {
		change(fmt.Sprint("document ", i), 1+i%5)
	}
	for i := range 10 {
		change(fmt.Sprint("document ", 9*i), 6)
	}
	p.replay("small", map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 40}})
	p.must(nil, "POST", "/generations/small/promote", nil)
	p.replay("strict", map[string]any{"chunker": map[string]any{"strategy": "whole"}, "embedder": map[string]any{"model": "local/minilm", "long": "reject"}})
	p.must(nil, "PUT", "/documents/long", map[string]any{"text": "State 1 of long.\n\n" + prose("word1", 60)})
	until(t, "a dead letter", func() bool {
		got, err := p.call("GET", "/dlq", nil)
		return err == nil && strings.Contains(string(got.body), "input_too_long")
	})
	p.stop()
	p = startProgram(t, dir)
	for n := range 5 {
		for i := range 8 {
			change(fmt.Sprint("edited ", i), n+1)
		}
	}
	for i := range 3 {
		change(fmt.Sprint("edited ", i), 6)
	}
	p.must(nil, "POST", "/rollback", nil)
	p.must(nil, "POST", "/generations/small/promote", nil)
	p.applied()
	p.ask("anything", map[string]any{"generation": "strict", "max_staleness": "0s", "wait": "25s", "strict": true})
	d.answers = answersOf(p)
	d.notebook.check(t, p)
	p.kill()
	return dir, d
}

// kindOf is a file's name without what differs from one run to another.
func kindOf(name string) string {
	return regexp.MustCompile(`[0-9]+`).ReplaceAllString(strings.Replace(filepath.ToSlash(name), "markdown200_static_", "live_", 1), "N")
}

// begun waits until a program serves, or has ended.
func begun(t *testing.T, p *program) (serves bool) {
	t.Helper()
	until(t, "serving or ended", func() bool {
		select {
		case <-p.exited:
			return true
		default:
		}
		var said struct {
			URL string `json:"url"`
		}
		if json.Unmarshal([]byte(p.out.String()), &said) != nil {
			return false
		}
		p.base = said.URL
		resp, err := p.http.Get(p.base + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			serves = true
			return true
		}
		// It is ready for nothing while its live generation is damaged.
		for _, g := range p.generations() {
			serves = serves || g.State == "failed"
		}
		return serves
	})
	return serves
}

// failedGenerations waits until every generation works or is refused, and returns those that are refused.
func failedGenerations(t *testing.T, p *program) (failed []generation) {
	t.Helper()
	until(t, "every generation working or refused", func() bool {
		failed = nil
		for _, g := range p.generations() {
			if g.State == "failed" {
				failed = append(failed, g)
			} else if g.State != "ready" {
				return false
			}
		}
		return true
	})
	return failed
}

// whole holds a program to what its directory held: nothing is lost, wrong or back.
func (d *damaged) whole(t *testing.T, p *program) {
	t.Helper()
	d.notebook.check(t, p)
	checkOneLive(t, p)
	if got := p.live(); got.Name == "small" {
		if answers := answersOf(p); !slices.Equal(answers, d.answers) {
			t.Errorf("the answers differ:\nbefore %q\nnow    %q", d.answers, answers)
		}
	}
	checkVerified(t, p)
}

// checkVerified: every generation is what the log says.
func checkVerified(t *testing.T, p *program) {
	t.Helper()
	for _, g := range p.generations() {
		if g.State != "ready" {
			continue
		}
		if said := p.verb("", "verify", "--rate", "0", "--generation", g.Name); !strings.Contains(said, "missing 0, stale 0, orphaned 0, mixed 0, bad vectors 0") {
			t.Errorf("verify of %s says\n%s", g.Name, said)
		}
	}
}

// suffer starts a program on a directory with a damaged file, and holds it to one of the outcomes that are right.
func (d *damaged) suffer(t *testing.T, dir, name string) (outcome string) {
	t.Helper()
	base := filepath.Base(name)
	p := launch(t, dir)
	if !begun(t, p) {
		// Refused: the message names the file and the way out, which is gone.
		said := p.err.String()
		if strings.Contains(said, "panic") || strings.Contains(said, "goroutine ") {
			t.Fatalf("it panics:\n%s", said)
		}
		way := regexp.MustCompile(`delete (\S+) to go on`).FindStringSubmatch(said)
		if way == nil || !strings.Contains(said, base) && !strings.Contains(said, filepath.Base(filepath.Dir(name))) {
			t.Fatalf("it refuses without the file's name and a way out:\n%s", said)
		}
		if again := launch(t, dir); begun(t, again) {
			t.Fatal("it refuses once, and goes on at the second start")
		}
		if err := os.RemoveAll(way[1]); err != nil {
			t.Fatal(err)
		}
		p = startProgram(t, dir)
		if !strings.Contains(way[1], string(filepath.Separator)+"store"+string(filepath.Separator)) { // it was of no consequence
			d.whole(t, p)
			return "refused"
		}
		p.applied()
		if !strings.Contains(p.err.String(), "lost") {
			t.Errorf("it goes on with a part of the log and says nothing of it:\n%s", p.err)
		}
		checkVerified(t, p)
		p.put("after", "State 1 of after.")
		if _, ok := p.get("after"); !ok {
			t.Error("what is written next is not there")
		}
		d.sound(t, p)
		return "refused"
	}
	if failed := failedGenerations(t, p); len(failed) > 0 {
		for _, g := range failed {
			if g.Trouble == nil || !strings.Contains(g.Trouble.Detail, base) || !strings.Contains(g.Trouble.Detail, "replay") {
				t.Fatalf("generation %s is refused without the file's name and a way out: %+v", g.Name, g.Trouble)
			}
		}
		if got, err := p.call("GET", "/retrieve?q=x", nil); err != nil || got.status == http.StatusOK && slices.ContainsFunc(failed, func(g generation) bool { return len(g.Alias) > 0 }) {
			t.Errorf("a damaged generation answers %d %v", got.status, err)
		}
		p.replay("anew", map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 40}})
		p.must(nil, "POST", "/generations/anew/promote", nil)
		for _, g := range failed {
			p.must(nil, "DELETE", "/generations/"+g.Name, nil)
		}
		d.whole(t, p)
		return "generation refused"
	}
	d.whole(t, p)
	p.kill()
	d.whole(t, startProgram(t, dir)) // nor does it come back later
	return "recovered"
}

// sound: each document that is there has a text that it once had, whole.
func (d *damaged) sound(t *testing.T, p *program) {
	t.Helper()
	lost := 0
	for id, last := range d.notebook.sent {
		doc, ok := p.get(id)
		if n := stateOf(id, doc.Text, last); ok && n == 0 {
			t.Errorf("%s has a text that it never had: %.80q", id, doc.Text)
		} else if ok != (last%6 != 0) || ok && n != last {
			lost++
		}
	}
	t.Logf("%d of %d documents have lost changes", lost, len(d.notebook.sent))
}

// stateOf finds which of a document's states a text is; 0: none.
func stateOf(id, text string, last int) int {
	for n := 1; n <= last; n++ {
		if text == stateText(id, n) {
			return n
		}
	}
	return 0
}

// TestDamageIsNeverBelieved damages each file of a data directory in turn, whichever there are, and starts. What was acknowledged is all there and answers are as before; or the
// program, or the damaged generation, refuses with the file's name and a way out that works. LIVERAG_E2E_DAMAGE is how often every file is damaged in every way; by default a few
// kinds of files are, in one way each.
func TestDamageIsNeverBelieved(t *testing.T) {
	t.Parallel()
	rounds := scaled(t, "LIVERAG_E2E_DAMAGE", 0)
	whole, d := wholeData(t)
	var files []string
	if err := filepath.WalkDir(whole, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			name, _ := filepath.Rel(whole, path)
			files = append(files, name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	type trial struct {
		file string
		harm harm
	}
	var trials []trial
	kinds := map[string]bool{}
	for _, file := range files {
		for _, h := range harms {
			for range rounds {
				trials = append(trials, trial{file, h})
			}
		}
		if kinds[kindOf(file)] = true; rounds == 0 {
			trials = append(trials, trial{file, harms[rand.IntN(len(harms))]})
		}
	}
	rand.Shuffle(len(trials), func(i, j int) { trials[i], trials[j] = trials[j], trials[i] })
	if rounds == 0 {
		trials = trials[:10]
	}
	for _, want := range []string{"log/log/partitions/documents-N/N.dat", "log/log/topics.json", "store/documents/small/MANIFEST", "store/documents/small/N.seg", "store/documents/small/N.wal", "cache/documents/N.vectors"} {
		if !kinds[want] {
			t.Errorf("there is no %s among %v", want, slices.Sorted(maps.Keys(kinds)))
		}
	}
	var mu sync.Mutex
	outcomes := map[string]map[string]int{}
	t.Run("file", func(t *testing.T) {
		for i, c := range trials {
			t.Run(fmt.Sprintf("%s %s", c.file, c.harm.name), func(t *testing.T) {
				t.Parallel()
				seed := uint64(time.Now().UnixNano()) + uint64(i)
				t.Logf("seed %d", seed)
				dir := filepath.Join(t.TempDir(), "data")
				if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, c.file)
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if len(content) == 0 {
					content = []byte("x") // an empty file can be removed, or hold garbage
				}
				if err := c.harm.do(rand.New(rand.NewPCG(seed, 1)), path, content); err != nil {
					t.Fatal(err)
				}
				outcome := d.suffer(t, dir, c.file)
				mu.Lock()
				defer mu.Unlock()
				if outcomes[kindOf(c.file)] == nil {
					outcomes[kindOf(c.file)] = map[string]int{}
				}
				outcomes[kindOf(c.file)][outcome]++
			})
		}
	})
	for _, kind := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%-55s %v", kind, outcomes[kind])
	}
}
