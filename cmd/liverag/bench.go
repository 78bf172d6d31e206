package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/demo"
	"github.com/liverag/liverag/stream"
)

func benchVerb() verb {
	return verb{
		name: "bench", group: groupCare,
		summary: "Measure this machine: indexing, edits, queries, restart, replay",
		about: `Starts this very program as a server of its own, on an empty temporary directory and a free port, and uses it over HTTP as a caller would: 2,000 generated Markdown documents of 3–6 KB are indexed, edited, imported again and queried, the server is restarted, and the log is replayed. Nothing that runs already is touched.

Each figure is the median of the runs. The documents and the queries are the same on every machine.`,
		examples: []example{
			{"the figures of docs/BENCHMARKS.md", "liverag bench --chunker recursive --tokens 400 --embedder hash/384"},
			{"with the model in the binary, which takes its time: fewer documents", "liverag bench --embedder local/minilm --documents 200 --runs 1"},
		},
		settings: []string{"chunker", "tokens", "overlap", "tokenizer", "embedder", "long", "openai.*"},
		subverbs: []verb{benchLimitsVerb()},
		setup: func(fs *flag.FlagSet) action {
			b := &bench{}
			fs.IntVar(&b.documents, "documents", 2000, "how many documents")
			fs.IntVar(&b.edits, "edits", 300, "how many single edits are timed")
			fs.IntVar(&b.runs, "runs", 3, "how many runs the medians are of")
			fs.DurationVar(&b.load, "load", 5*time.Second, "how long each load of queries lasts")
			fs.BoolVar(&b.keep, "keep", false, "keep the data directory and say where it is")
			return b.run
		},
	}
}

// bench is a benchmark of the whole program, from outside.
type bench struct {
	documents, edits, runs int
	load                   time.Duration
	keep                   bool

	call  *call
	dir   string
	texts []string
}

// figure is one line of the result. Figures of several runs are merged by their medians.
type figure struct {
	name, unit string
	values     []float64
}

// figures keep the order in which they were first measured.
type figures []*figure

func (f *figures) add(name, unit string, value float64) {
	for _, old := range *f {
		if old.name == name {
			old.values = append(old.values, value)
			return
		}
	}
	*f = append(*f, &figure{name, unit, []float64{value}})
}

func (f *figure) median() float64 {
	values := slices.Clone(f.values)
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

func (b *bench) run(ctx context.Context, c *call) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "bench takes no arguments"}
	}
	if b.documents < 1 || b.edits < 1 || b.runs < 1 || b.load <= 0 {
		return &usageError{detail: "--documents, --edits, --runs and --load must be above 0"}
	}
	b.call = c
	var all figures
	for run := range b.runs {
		c.Err.Status("run %d of %d", run+1, b.runs)
		if err := b.once(ctx, &all); err != nil {
			return err
		}
	}
	if c.JSON {
		out := map[string]any{"runs": b.runs, "documents": b.documents, "cores": runtime.GOMAXPROCS(0)}
		for _, f := range all {
			out[strings.ReplaceAll(f.name, " ", "_")] = f.median()
		}
		return c.Out.JSON(out)
	}
	cfg := c.Config
	c.Out.Printf("%s, %s %d/%d %s, %s; %s, median of %s\n\n", readBuild(), cfg.Chunker, cfg.Tokens, cfg.Overlap, cfg.Tokenizer, cfg.Embedder,
		count(b.documents, "document"), count(b.runs, "run"))
	rows := make([][]string, len(all))
	for i, f := range all {
		runs := make([]string, len(f.values))
		for j, v := range f.values {
			runs[j] = fmt.Sprintf("%.4g", v)
		}
		rows[i] = []string{f.name, fmt.Sprintf("%.4g", f.median()), f.unit, strings.Join(runs, " ")}
	}
	c.Out.table([]string{"figure", "median", "unit", "runs"}, rows)
	return nil
}

// server is the child process.
type server struct {
	cmd    *exec.Cmd
	client *client
	stderr *bytes.Buffer
	ready  time.Duration
	gone   chan struct{} // closed when it has exited, and all that it said is in stderr
}

func (b *bench) start(ctx context.Context) (*server, error) {
	cfg := b.call.Config
	return launchServer(ctx, b.dir, os.Environ(), "--log_level", "warn",
		"--chunker", cfg.Chunker, "--tokens", strconv.Itoa(cfg.Tokens), "--overlap", strconv.Itoa(cfg.Overlap),
		"--tokenizer", cfg.Tokenizer, "--embedder", cfg.Embedder, "--long", cfg.Long)
}

// launchServer starts this very program as a server whose data is in dir, and waits until it is ready.
func launchServer(ctx context.Context, dir string, environ []string, flags ...string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	_ = os.Remove(filepath.Join(data, urlFile))
	cmd := exec.Command(self, append([]string{"up", "--data", data, "--listen", "127.0.0.1:0"}, flags...)...)
	s := &server{cmd: cmd, stderr: &bytes.Buffer{}, gone: make(chan struct{})}
	cmd.Stderr = s.stderr
	cmd.Env = environ
	cmd.Dir = dir // no configuration file of the caller's
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	exited := make(chan error, 1)
	go func() {
		exited <- cmd.Wait()
		close(s.gone)
	}()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	for {
		if base, err := os.ReadFile(filepath.Join(data, urlFile)); err == nil {
			s.client = &client{base: strings.TrimSpace(string(base)), http: &http.Client{Transport: transport}}
			if s.client.do(ctx, "GET", "/readyz", nil, nil, options{timeout: time.Second}) == nil {
				s.ready = time.Since(begin)
				return s, nil
			}
		}
		select {
		case err := <-exited:
			return nil, fmt.Errorf("the server stopped: %w\n%s", err, s.stderr)
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			return nil, ctx.Err()
		}
		if time.Since(begin) > time.Minute {
			_ = cmd.Process.Kill()
			return nil, fmt.Errorf("the server is not ready after a minute\n%s", s.stderr)
		}
	}
}

// stop asks the server to finish, and returns how long it took.
func (s *server) stop() (time.Duration, error) {
	begin := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	for time.Since(begin) < 30*time.Second {
		if s.cmd.Process.Signal(syscall.Signal(0)) != nil {
			return time.Since(begin), nil
		}
		time.Sleep(time.Millisecond)
	}
	_ = s.cmd.Process.Kill()
	return 0, errors.New("the server did not stop within 30 s")
}

// metric sums a Prometheus metric over its labels.
func (s *server) metric(ctx context.Context, name string) (float64, error) {
	var body json.RawMessage
	if err := s.client.do(ctx, "GET", "/metrics", nil, &body, options{}); err != nil {
		return 0, err
	}
	var sum float64
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || key != name && !strings.HasPrefix(key, name+"{") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum += v
	}
	return sum, lines.Err()
}

// resident is the server's memory in MB.
func (s *server) resident() (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("no VmRSS")
}

func (b *bench) once(ctx context.Context, all *figures) (err error) {
	if b.dir, err = os.MkdirTemp("", "liverag-bench-"); err != nil {
		return err
	}
	if b.keep {
		b.call.Err.Printf("data: %s\n", b.dir)
	} else {
		defer os.RemoveAll(b.dir)
	}
	s, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = s.cmd.Process.Kill() }()
	for _, step := range []struct {
		name string
		do   func(context.Context, *server, *figures) error
	}{
		{"indexing", b.index}, {"replaying", b.replay}, {"importing again", b.reimport}, {"edits", b.edit}, {"queries", b.query},
		{"queries under changes", b.queryUnderChanges},
	} {
		b.call.Err.Status("%s", step.name)
		if err := step.do(ctx, s, all); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	b.call.Err.Status("restart")
	return b.restart(ctx, s, all)
}

func benchID(i int) string { return fmt.Sprintf("bench/%05d", i) }

// post sends documents as NDJSON and waits until all of them are searchable.
func (b *bench) post(ctx context.Context, s *server, ids []int) error {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	for _, i := range ids {
		doc := map[string]any{"id": benchID(i), "text": b.texts[i], "content_type": "text/markdown", "metadata": map[string]any{"team": "team" + strconv.Itoa(i%10), "n": i}}
		if err := enc.Encode(doc); err != nil {
			return err
		}
	}
	var answer struct {
		Accepted int    `json:"accepted"`
		Token    string `json:"token"`
	}
	if err := s.client.do(ctx, "POST", "/documents", &body, &answer, options{contentType: "application/x-ndjson", timeout: 5 * time.Minute}); err != nil {
		return err
	}
	if answer.Accepted != len(ids) {
		return fmt.Errorf("%d of %d documents were accepted", answer.Accepted, len(ids))
	}
	return b.after(ctx, s, "live", answer.Token)
}

func (b *bench) after(ctx context.Context, s *server, generation, token string) error {
	var out struct {
		Freshness struct {
			Satisfied bool `json:"satisfied"`
		} `json:"freshness"`
	}
	err := s.client.do(ctx, "POST", "/retrieve", map[string]any{
		"query": "anything", "k": 1, "mode": "lexical", "generation": generation, "after": token, "wait": "5m", "strict": true,
	}, &out, options{timeout: 6 * time.Minute})
	if err == nil && !out.Freshness.Satisfied {
		err = errors.New("the changes are not searchable after five minutes; fewer --documents, or a quicker model")
	}
	return err
}

func (b *bench) index(ctx context.Context, s *server, all *figures) error {
	b.texts = b.texts[:0]
	for doc := range demo.BenchDocuments(b.documents, 1) {
		b.texts = append(b.texts, doc.Text)
	}
	var ids []int
	bytes := 0
	for i, text := range b.texts {
		ids = append(ids, i)
		bytes += len(text)
	}
	begin := time.Now()
	if err := b.post(ctx, s, ids); err != nil {
		return err
	}
	took := time.Since(begin).Seconds()
	all.add("indexing", "documents/s", float64(b.documents)/took)
	all.add("indexing text", "MB/s", float64(bytes)/1e6/took)
	chunks, err := s.metric(ctx, "liverag_chunks_embedded_total")
	all.add("chunks a document", "", chunks/float64(b.documents))
	if err != nil {
		return err
	}
	alone, err := b.alone(ctx)
	if err != nil {
		return err
	}
	all.add("the model alone", "chunks/s", alone)
	all.add("indexing against the model alone", "%", 100*chunks/took/alone)
	return nil
}

// alone is how many chunks a second the recipe's model embeds in a loop: the same chunks, cut beforehand, in large requests, with nothing else to do.
func (b *bench) alone(ctx context.Context) (chunksPerSecond float64, err error) {
	cfg := b.call.Config
	m := &models{defaults: cfg.recipe(), openai: cfg.OpenAI, logger: slog.New(slog.DiscardHandler), open: map[string]*model{}}
	defer func() { err = errors.Join(err, m.Close()) }()
	parts, err := m.build(ctx, cfg.recipe(), 0)
	if err != nil {
		return 0, err
	}
	const request = 64
	var requests [][]string
	var inputs []string
	for _, text := range b.texts {
		chunks, err := parts.Chunker.Split(ctx, stream.TextMarkdown, text)
		if err != nil {
			return 0, err
		}
		for _, chunk := range chunks {
			if inputs = append(inputs, chunk.Input(text)); len(inputs) == request {
				requests, inputs = append(requests, inputs), nil
			}
		}
	}
	if len(requests) == 0 {
		requests = append(requests, inputs)
	}
	const during = 5 * time.Second
	g, ctx := errgroup.WithContext(ctx)
	var next, done atomic.Int64
	begin := time.Now()
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			for time.Since(begin) < during {
				inputs := requests[int(next.Add(1)-1)%len(requests)]
				if _, err := parts.Embedder.Embed(ctx, embedder.Index, inputs); err != nil {
					return err
				}
				done.Add(int64(len(inputs)))
			}
			return nil
		})
	}
	err = g.Wait()
	return float64(done.Load()) / time.Since(begin).Seconds(), err
}

// edit changes one paragraph of one document at a time, and asks until the change is found.
func (b *bench) edit(ctx context.Context, s *server, all *figures) error {
	before, err := s.metric(ctx, "liverag_chunks_embedded_total")
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(7, uint64(b.documents)))
	var times []time.Duration
	for n := range b.edits {
		i := rng.IntN(b.documents)
		old := b.texts[i]
		b.texts[i] = demo.EditParagraph(old, n)
		said := difference(old, b.texts[i])
		begin := time.Now()
		var put struct {
			Searchable bool `json:"searchable"`
		}
		doc := map[string]any{"text": b.texts[i], "content_type": "text/markdown", "metadata": map[string]any{"team": "team" + strconv.Itoa(i%10), "n": i}}
		if err := s.client.do(ctx, "PUT", "/documents/"+benchID(i)+"?wait=10s", doc, &put, options{}); err != nil {
			return err
		}
		found, err := b.find(ctx, s, said, i)
		times = append(times, time.Since(begin))
		switch {
		case err != nil:
			return err
		case !put.Searchable:
			return fmt.Errorf("edit %d was not searchable within 10 s", n)
		case !found:
			return fmt.Errorf("edit %d was called searchable and was not found", n)
		}
	}
	after, err := s.metric(ctx, "liverag_chunks_embedded_total")
	if err != nil {
		return err
	}
	addQuantiles(all, "edit to retrievable", times)
	all.add("chunks embedded an edit", "", (after-before)/float64(b.edits))
	return nil
}

// difference is what the new text says and the old one did not.
func difference(old, new string) string {
	start, end := 0, 0
	for start < min(len(old), len(new)) && old[start] == new[start] {
		start++
	}
	for end < min(len(old), len(new))-start && old[len(old)-1-end] == new[len(new)-1-end] {
		end++
	}
	return new[start : len(new)-end]
}

// find asks a document for words, and looks for a run of them in the hits.
func (b *bench) find(ctx context.Context, s *server, words string, i int) (bool, error) {
	var out struct {
		Hits []struct {
			Text string `json:"text"`
		} `json:"hits"`
	}
	err := s.client.do(ctx, "POST", "/retrieve", map[string]any{"query": words, "mode": "lexical", "filter": map[string]any{"n": i}}, &out, options{})
	run := words[:min(len(words), 30)]
	for _, hit := range out.Hits {
		if strings.Contains(hit.Text, run) {
			return true, err
		}
	}
	return false, err
}

func (b *bench) reimport(ctx context.Context, s *server, all *figures) error {
	before, err := s.metric(ctx, "liverag_chunks_embedded_total")
	if err != nil {
		return err
	}
	ids := make([]int, b.documents)
	for i := range ids {
		ids[i] = i
	}
	begin := time.Now()
	if err := b.post(ctx, s, ids); err != nil {
		return err
	}
	all.add("importing the same again", "s", time.Since(begin).Seconds())
	after, err := s.metric(ctx, "liverag_chunks_embedded_total")
	all.add("chunks embedded by it", "", after-before)
	return err
}

// queries are sentences from the documents, shortened to what somebody might ask. Those of another seed are others.
func (b *bench) queries(seed uint64, n int) []string {
	rng := rand.New(rand.NewPCG(11, seed))
	out := make([]string, n)
	for i := range out {
		words := strings.Fields(b.texts[rng.IntN(len(b.texts))])
		at := rng.IntN(max(1, len(words)-8))
		out[i] = strings.Join(words[at:min(len(words), at+3+rng.IntN(5))], " ")
	}
	return out
}

// ask sends one query as fast as a client can: the answer is read, and not decoded.
func (s *server) ask(ctx context.Context, query string) error {
	body, err := json.Marshal(map[string]any{"query": query, "mode": "hybrid"})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", s.client.base+"/retrieve", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("a query got %s", resp.Status)
	}
	return nil
}

// query asks questions that nobody has asked before, whose vectors are therefore computed, and then a few of them again and again.
func (b *bench) query(ctx context.Context, s *server, all *figures) error {
	fresh := b.queries(0, 2200)
	repeated := fresh[:200]
	one := func(name string, queries []string) error {
		var times []time.Duration
		for _, q := range queries {
			begin := time.Now()
			if err := s.ask(ctx, q); err != nil {
				return err
			}
			times = append(times, time.Since(begin))
		}
		if name != "" {
			addQuantiles(all, name, times)
		}
		return nil
	}
	if err := one("", repeated); err != nil { // warm up
		return err
	}
	if err := one("retrieve", fresh[200:]); err != nil {
		return err
	}
	if err := one("retrieve again", slices.Repeat(repeated, 10)); err != nil {
		return err
	}
	for _, load := range []struct {
		name    string
		queries []string
	}{{"retrieve, 16 clients", b.queries(1, 100_000)}, {"retrieve again, 16 clients", repeated}} {
		times, err := b.clients(ctx, s, load.queries, 16, 0, b.load)
		if err != nil {
			return err
		}
		all.add(load.name, "queries/s", float64(len(times))/b.load.Seconds())
	}
	return nil
}

// clients asks from n clients for a while: as fast as they can, or each with a pause between its queries.
func (b *bench) clients(ctx context.Context, s *server, queries []string, n int, pause, during time.Duration) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	end := time.Now().Add(during)
	for client := range n {
		wg.Go(func() {
			var times []time.Duration
			for i := client; time.Now().Before(end); i += n {
				begin := time.Now()
				if err := s.ask(ctx, queries[i%len(queries)]); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
					cancel()
					return
				}
				times = append(times, time.Since(begin))
				if pause > 0 {
					time.Sleep(pause)
				}
			}
			mu.Lock()
			all = append(all, times...)
			mu.Unlock()
		})
	}
	wg.Wait()
	return all, failed
}

// queryUnderChanges asks about 200 queries a second while 500 documents a second are edited.
func (b *bench) queryUnderChanges(ctx context.Context, s *server, all *figures) error {
	const each, batch = 20 * time.Millisecond, 10
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queries := b.queries(2, 5000) // before the texts are edited
	var failed error
	sent := 0
	done := make(chan struct{})
	begin := time.Now()
	stop := begin.Add(b.load)
	go func() {
		defer close(done)
		rng := rand.New(rand.NewPCG(13, 0))
		for n := 0; time.Now().Before(stop); n++ {
			var body bytes.Buffer
			enc := json.NewEncoder(&body)
			for j := range batch {
				i := rng.IntN(b.documents)
				b.texts[i] = demo.EditParagraph(b.texts[i], n*batch+j)
				_ = enc.Encode(map[string]any{"id": benchID(i), "text": b.texts[i], "content_type": "text/markdown"})
			}
			if err := s.client.do(ctx, "POST", "/documents", &body, nil, options{contentType: "application/x-ndjson"}); err != nil {
				failed = err
				return
			}
			sent += batch
			time.Sleep(time.Until(begin.Add(time.Duration(n+1) * each)))
		}
	}()
	times, err := b.clients(ctx, s, queries, 4, 20*time.Millisecond, b.load)
	<-done
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	all.add("changes meanwhile", "documents/s", float64(sent)/time.Since(begin).Seconds())
	addQuantiles(all, "retrieve under changes", times)
	return nil
}

// replay builds the same index again from the log, and compares with what indexing took.
func (b *bench) replay(ctx context.Context, s *server, all *figures) error {
	cfg := b.call.Config
	recipe := map[string]any{
		"chunker":  map[string]any{"strategy": cfg.Chunker, "tokens": cfg.Tokens, "overlap": cfg.Overlap, "tokenizer": cfg.Tokenizer},
		"embedder": map[string]any{"model": cfg.Embedder, "long": cfg.Long},
	}
	begin := time.Now()
	if err := s.client.do(ctx, "POST", "/generations", map[string]any{"name": "again", "recipe": recipe}, nil, options{}); err != nil {
		return err
	}
	var info struct {
		State string `json:"state"`
		Stats struct {
			Documents int `json:"documents"`
		} `json:"stats"`
	}
	for info.State != "ready" {
		if time.Since(begin) > 10*time.Minute {
			return fmt.Errorf("the replay is %s after ten minutes", info.State)
		}
		if err := s.client.do(ctx, "GET", "/generations/again", nil, &info, options{}); err != nil {
			return err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	took := time.Since(begin)
	if info.Stats.Documents != b.documents {
		return fmt.Errorf("the replay has %d documents, not %d", info.Stats.Documents, b.documents)
	}
	rate := float64(b.documents) / took.Seconds()
	all.add("replaying", "documents/s", rate)
	for _, f := range *all {
		if f.name == "indexing" {
			all.add("replaying against indexing", "×", rate/f.values[len(f.values)-1])
		}
	}
	return s.client.do(ctx, "DELETE", "/generations/again", nil, nil, options{})
}

func (b *bench) restart(ctx context.Context, s *server, all *figures) error {
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	if runtime.GOOS == "linux" {
		mb, err := s.resident()
		if err != nil {
			return err
		}
		all.add("memory at rest", "MB", mb)
	}
	took, err := s.stop()
	if err != nil {
		return err
	}
	all.add("stop", "s", took.Seconds())
	again, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = again.cmd.Process.Kill() }()
	all.add("start to ready", "s", again.ready.Seconds())
	if err := pause(ctx, 10*time.Second); err != nil {
		return err
	}
	if runtime.GOOS == "linux" {
		mb, err := again.resident()
		if err != nil {
			return err
		}
		all.add("memory at rest after a restart", "MB", mb)
	}
	embedded, err := again.metric(ctx, "liverag_chunks_embedded_total")
	if err != nil {
		return err
	}
	all.add("chunks embedded by the restart", "", embedded)
	_, err = again.stop()
	return err
}

func addQuantiles(all *figures, name string, times []time.Duration) {
	if len(times) == 0 {
		return
	}
	slices.Sort(times)
	at := func(q float64) float64 {
		return float64(times[min(len(times)-1, int(q*float64(len(times))))].Microseconds()) / 1000
	}
	all.add(name+" p50", "ms", at(.5))
	all.add(name+" p99", "ms", at(.99))
}

// pause waits, or returns early with the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
