package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestARestartEmbedsNothingAndAnswersTheSame(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := startProgram(t, data)
	for i := range 40 {
		p.putAs(fmt.Sprintf("doc/%d", i), map[string]any{"text": prose(fmt.Sprintf("subject%d", i), 8), "content_type": "text/markdown", "title": fmt.Sprint("T", i), "metadata": map[string]any{"n": i}})
	}
	for i := range 10 {
		p.remove(fmt.Sprintf("doc/%d", 4*i))
	}
	p.put("doc/1", "The first one was rewritten.")
	p.replay("small", map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 30}})
	p.must(nil, "POST", "/generations/small/promote", nil)
	p.replay("other", map[string]any{"embedder": map[string]any{"model": "hash/64"}})
	p.must(nil, "POST", "/generations/other/pause", nil)

	questions := []string{"subject7", "rewritten", "Paragraph 3 speaks of subject21", "subject4 that was deleted", "worth cutting"}
	answers := func(p *program) (out [][]string) {
		for _, q := range questions {
			f := p.ask(q, map[string]any{"k": 20})
			hits := []string{f.Generation.Name}
			for _, h := range f.Hits {
				hits = append(hits, fmt.Sprintf("%s v%d %.6f %s %v", h.ID, h.Version, h.Score, h.Title, h.Metadata))
			}
			out = append(out, hits)
		}
		return out
	}
	type generationState struct{ alias, state, recipe string }
	states := func(p *program) map[string]generationState {
		out := map[string]generationState{}
		for _, g := range p.generations() {
			out[g.Name] = generationState{fmt.Sprint(g.Alias), g.State, fmt.Sprint(g.Recipe)}
		}
		return out
	}
	before, generations := answers(p), states(p)
	if took := p.stop(); took > 5*time.Second {
		t.Errorf("an idle program took %s to stop", took)
	}

	p = startProgram(t, data)
	t.Logf("the second start served after %s", p.readyAfter)
	if after := answers(p); !slices.EqualFunc(before, after, slices.Equal) {
		t.Errorf("the answers differ:\nbefore %v\nafter  %v", before, after)
	}
	until(t, "every generation as it was", func() bool { return maps.Equal(states(p), generations) })
	p.applied()
	if n := p.metric("liverag_chunks_embedded_total"); n != 0 {
		t.Errorf("the second start embedded %v chunks", n)
	}
	if f := p.ask("subject7", nil); f.Generation.Name != "small" || f.Generation.Alias != "live" {
		t.Errorf("live is %+v", f.Generation)
	}
	// The promote of before the restart can still be taken back, and what was paused goes on.
	p.must(nil, "POST", "/generations/other/resume", nil)
	p.put("doc/new", "Written after the restart.")
	var back generation
	p.must(&back, "POST", "/rollback", nil)
	if back.Name == "small" {
		t.Error("the rollback went nowhere")
	}
	if f := p.ask("written after the restart", map[string]any{"max_staleness": "0s"}); len(f.Hits) == 0 || f.Hits[0].Document != "doc/new" {
		t.Errorf("after the rollback: %q", f.documents())
	}
}

// notebook is what a client knows of its documents: the states acknowledged, in the order they were sent.
type notebook struct {
	mu sync.Mutex
	// sent and acknowledged are, for each document, the number of its last change that was sent, and that was acknowledged. Even numbers
	// are of deletions.
	sent, acknowledged map[string]int
}

// stateText is the nth text of a document. Those of "big/…" take long to be indexed, and fill segments.
func stateText(id string, n int) string {
	paragraphs := 1 + n%5
	if strings.HasPrefix(id, "big/") {
		paragraphs = 2500
	}
	return fmt.Sprintf("State %d of %s.\n\n%s", n, id, prose(fmt.Sprintf("word%d", n), paragraphs))
}

// write changes a document for the nth time and notes what became of it.
func (l *notebook) write(p *program, id string, n int, wait bool) error {
	l.mu.Lock()
	l.sent[id] = n
	l.mu.Unlock()
	path := documentPath(id)
	if wait {
		path += "?wait=10s"
	}
	var got answered
	var err error
	if n%6 == 0 {
		got, err = p.call("DELETE", path, nil)
	} else {
		got, err = p.call("PUT", path, map[string]any{"text": stateText(id, n), "metadata": map[string]any{"n": n}})
	}
	switch {
	case err != nil:
		return err
	case got.status == http.StatusServiceUnavailable || got.status >= 500:
		return fmt.Errorf("%d %s", got.status, got.body)
	case got.status != http.StatusOK && got.status != http.StatusAccepted:
		return fmt.Errorf("%w: %d %s", errRefused, got.status, got.body)
	}
	l.mu.Lock()
	l.acknowledged[id] = n
	l.mu.Unlock()
	return nil
}

var errRefused = errors.New("refused")

// check holds the program to it: every document is in its latest acknowledged state, or in one that was sent after it.
func (l *notebook) check(t *testing.T, p *program) {
	t.Helper()
	p.applied()
	for id, last := range l.sent {
		acknowledged := l.acknowledged[id]
		doc, ok := p.get(id)
		var possible []string
		fits := false
		for n := acknowledged; n <= last; n++ {
			if n == 0 || n%6 == 0 {
				fits = fits || !ok
				possible = append(possible, "absent")
				continue
			}
			fits = fits || ok && doc.Text == stateText(id, n)
			possible = append(possible, fmt.Sprint("state ", n))
		}
		if !fits {
			t.Errorf("%s: acknowledged %d, sent %d: it is %v %.60q, may be %q", id, acknowledged, last, ok, doc.Text, possible)
		}
		f := p.ask("State of "+id, map[string]any{"k": 50, "filter": map[string]any{"@id": id}})
		if ok && len(f.Hits) == 0 || !ok && len(f.Hits) > 0 {
			t.Errorf("%s: it can be read: %v; it is found: %d hits", id, ok, len(f.Hits))
		}
		for _, h := range f.Hits {
			if h.Version != doc.Version || h.Text != doc.Text[h.Start:h.End] {
				t.Errorf("%s: a hit of version %d, where the document has %d: %q", id, h.Version, doc.Version, h.Text)
			}
		}
	}
}

// hammer writes with several clients until the program dies. What is sent again after an error is the same state or a newer one, as a
// client does that does not know.
func (l *notebook) hammer(p *program, clients, documents int, stop <-chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-p.exited:
					return
				default:
				}
				id := fmt.Sprintf("client %d/document %d", c, rand.IntN(documents))
				if err := l.write(p, id, l.last(id)+1, i%2 == 0); errors.Is(err, errRefused) {
					p.t.Errorf("%s: %v", id, err)
					return
				}
			}
		})
	}
	return &wg
}

func (l *notebook) last(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent[id]
}

func newNotebook() *notebook {
	return &notebook{sent: map[string]int{}, acknowledged: map[string]int{}}
}

// checkAnswers asks without a filter: whatever is found must be what its document is now.
func (l *notebook) checkAnswers(t *testing.T, p *program) {
	t.Helper()
	for _, question := range []string{"State of client", fmt.Sprintf("Paragraph 1 speaks of word%d", 1+rand.IntN(30)), "Paragraph 2 says nothing else of note"} {
		for _, mode := range []string{"hybrid", "dense", "lexical"} {
			f := p.ask(question, map[string]any{"k": 40, "mode": mode})
			for _, h := range f.Hits {
				doc, ok := p.get(h.Document)
				switch {
				case !ok:
					t.Errorf("%s: %q finds %s, which is deleted", mode, question, h.Document)
				case h.Version != doc.Version || h.Text != doc.Text[h.Start:h.End]:
					t.Errorf("%s: %q finds version %d of %s, which has %d: %q", mode, question, h.Version, h.Document, doc.Version, h.Text)
				}
			}
		}
	}
}

// checkOneLive: one generation is live, and it is the one that answers.
func checkOneLive(t *testing.T, p *program) {
	t.Helper()
	var live []string
	for _, g := range p.generations() {
		if slices.Contains(g.Alias, "live") {
			live = append(live, g.Name)
		}
	}
	if f := p.ask("anything", nil); len(live) != 1 || f.Generation.Name != live[0] || f.Generation.Alias != "live" {
		t.Errorf("live are %q; %+v answers", live, f.Generation)
	}
}

// operate builds generations, promotes and rolls back, and drops what is not needed, one after the other, until the program dies. It returns how many
// requests for each of them were answered.
func operate(p *program, tokens func() int, stop <-chan struct{}) map[string]int {
	done := map[string]int{}
	request := func(verb, method, path string, body any) {
		got, err := p.call(method, path, body)
		switch {
		case err != nil:
		case got.status < 300:
			done[verb]++
		case got.status == http.StatusInternalServerError:
			p.t.Errorf("%s %s answers %d %s", method, path, got.status, got.body)
		}
	}
	for n := rand.IntN(1 << 30); ; n++ {
		select {
		case <-stop:
			return done
		case <-p.exited:
			return done
		default:
		}
		// What an earlier kill left half-way goes first, so that there are never many of them.
		var all []generation
		if got, err := p.call("GET", "/generations", nil); err == nil && json.Unmarshal(got.body, &all) == nil {
			for _, g := range all {
				if len(g.Alias) == 0 && (len(all) > 2 || n%2 == 0) {
					request("drop", "DELETE", "/generations/"+g.Name, nil)
				}
			}
		}
		name := fmt.Sprintf("g%d", n)
		request("build", "POST", "/generations", map[string]any{"name": name, "recipe": map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": tokens()}}})
		request("promote", "POST", "/generations/"+name+"/promote", nil)
		if n%3 == 0 {
			request("rollback", "POST", "/rollback", nil)
		}
	}
}

// TestKillsLoseNothingThatWasAcknowledged kills at random times since the start: also before it serves, while it reads its log, seals, merges, replays,
// promotes, rolls back and drops. LIVERAG_E2E_KILLS is how often; a tenth of it is with the default model.
func TestKillsLoseNothingThatWasAcknowledged(t *testing.T) {
	kills := scaled(t, "LIVERAG_E2E_KILLS", 6)
	for _, c := range []struct {
		model string
		kills int
		big   bool
	}{
		{"local/static", kills - max(1, kills/10), true},
		{"local/minilm", max(1, kills/10), false},
	} {
		t.Run(c.model, func(t *testing.T) {
			data := t.TempDir()
			l := newNotebook()
			var ready []time.Duration
			var starting, sealing int
			requests := map[string]int{}
			for kill := range c.kills {
				if kill%4 == 3 { // before it serves, or just then
					p := launch(t, data, "--embedder", c.model)
					usual := 300 * time.Millisecond
					if len(ready) > 0 {
						usual = ready[rand.IntN(len(ready))]
					}
					after(t, p, time.Duration(rand.Int64N(int64(usual+usual/10))))
					p.kill()
					starting++
					continue
				}
				p := startProgram(t, data, "--embedder", c.model)
				ready = append(ready, p.readyAfter)
				l.check(t, p)
				l.checkAnswers(t, p)
				checkOneLive(t, p)
				if t.Failed() {
					t.Fatalf("after kill %d", kill)
				}
				stop := make(chan struct{})
				wg := l.hammer(p, 4, 12, stop)
				if kill%2 == 0 {
					wg.Go(func() {
						for verb, n := range operate(p, func() int { return 30 + rand.IntN(120) }, stop) {
							requests[verb] += n
						}
					})
				}
				// A large document is still at work when the kill comes, while small ones behind it in the log are searchable already.
				if id := fmt.Sprintf("big/%d", kill%3); c.big && l.write(p, id, l.last(id)+1, false) != nil {
					t.Fatalf("%s can't be written", id)
				}
				after(t, p, time.Duration(rand.Int64N(int64(700*time.Millisecond))))
				p.kill()
				close(stop)
				wg.Wait()
				if unfinished, _ := filepath.Glob(filepath.Join(data, "store", "*", "*", "*.tmp")); len(unfinished) > 0 {
					sealing++
				}
			}
			p := startProgram(t, data, "--embedder", c.model)
			ready = append(ready, p.readyAfter)
			l.check(t, p)
			l.checkAnswers(t, p)
			checkOneLive(t, p)
			live := p.live()
			p.replay("again", map[string]any{"chunker": map[string]any{"strategy": "token", "tokens": 50}})
			for _, g := range p.generations() {
				p.ask("anything", map[string]any{"generation": g.Name, "max_staleness": "0s", "wait": "25s", "strict": true})
				p.must(&g, "GET", "/generations/"+g.Name, nil)
				if g.Progress.Documents != live.Progress.Documents {
					t.Errorf("generation %s has %d documents, live has %d", g.Name, g.Progress.Documents, live.Progress.Documents)
				}
			}
			acknowledged := 0
			for _, n := range l.acknowledged {
				acknowledged += n
			}
			t.Logf("%d kills, %d of them before it served, %d left an unfinished file of the store; %d changes acknowledged; answered: %v", c.kills, starting, sealing, acknowledged, requests)
			t.Logf("%d starts served after p50 %s, p99 %s, max %s", len(ready), quantile(ready, .5), quantile(ready, .99), quantile(ready, 1))
		})
	}
}

// after waits for a kill's random moment, unless the program ends before.
func after(t *testing.T, p *program, d time.Duration) {
	t.Helper()
	select {
	case <-p.exited:
		t.Fatalf("it ended by itself: %v\n%s", p.waited, p.err)
	case <-time.After(d):
	}
}

// TestKillsDuringPromotesLeaveOneLive kills at random moments while nothing but promotes, rollbacks and drops go on. LIVERAG_E2E_KILLS is how often.
func TestKillsDuringPromotesLeaveOneLive(t *testing.T) {
	t.Parallel()
	kills := scaled(t, "LIVERAG_E2E_KILLS", 4)
	data := t.TempDir()
	l := newNotebook()
	requests := map[string]int{}
	for range kills + 1 {
		p := startProgram(t, data)
		if len(l.sent) == 0 {
			for i := range 30 {
				if err := l.write(p, fmt.Sprintf("document %d", i), 1+i%7, true); err != nil {
					t.Fatal(err)
				}
			}
		}
		l.check(t, p)
		checkOneLive(t, p)
		// What was marked as dropped is gone, and its space free.
		known := map[string]bool{}
		for _, g := range p.generations() {
			known[g.Name] = true
		}
		until(t, "free of dropped generations", func() bool {
			dirs, err := os.ReadDir(filepath.Join(data, "store", "documents"))
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range dirs {
				if d.IsDir() && !known[d.Name()] {
					return false
				}
			}
			return true
		})
		if t.Failed() {
			break
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for verb, n := range operate(p, func() int { return 20 + rand.IntN(200) }, stop) {
				requests[verb] += n
			}
		})
		after(t, p, time.Duration(rand.Int64N(int64(500*time.Millisecond))))
		p.kill()
		close(stop)
		wg.Wait()
	}
	t.Logf("%d kills; answered: %v", kills, requests)
}

func TestStoppingUnderLoadLosesNothing(t *testing.T) {
	data := t.TempDir()
	l := newNotebook()
	p := startProgram(t, data)
	stop := make(chan struct{})
	wg := l.hammer(p, 8, 10, stop)
	var queries atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-p.exited:
					return
				default:
				}
				got, err := p.call("GET", "/retrieve?q=state+of+client", nil)
				if err == nil && got.status != http.StatusOK && got.status != http.StatusServiceUnavailable {
					t.Errorf("a query answers %d %s", got.status, got.body)
				}
				if err == nil && got.status == http.StatusOK {
					queries.Add(1)
				}
			}
		})
	}
	// Streams have no end of their own: they must not hold up the stop.
	for _, path := range []string{"/freshness/stream", "/changes/stream"} {
		resp, err := http.Get(p.base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	until(t, "under load", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.acknowledged) == 80 && queries.Load() > 100
	})
	if took := p.stop(); took > 5*time.Second {
		t.Errorf("it took %s to stop under load, want less than 5s", took)
	} else {
		t.Logf("stopped after %s", took)
	}
	close(stop)
	wg.Wait()
	l.check(t, startProgram(t, data))
}
