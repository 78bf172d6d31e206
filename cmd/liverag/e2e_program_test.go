package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests in e2e_*_test.go run the program itself as a process of its own, and talk to it over HTTP or with its own verbs. They wait for
// what the program says (readiness, ?wait=, tokens), each with this deadline.
const patience = 30 * time.Second

// scaled returns n, or what the environment variable says: the heavy tests take a few seconds by default, and as long as somebody wants.
func scaled(t *testing.T, variable string, n int) int {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		return n
	}
	v, err := strconv.Atoi(value)
	if err != nil {
		t.Fatalf("%s=%q is no number", variable, value)
	}
	return v
}

// program is a running `liverag up`, or one of its halves.
type program struct {
	t    testing.TB
	cmd  *exec.Cmd
	base string
	data string
	// readyAfter is how long it took from its start until it served.
	readyAfter time.Duration
	out        *lockedBuffer
	err        *lockedBuffer
	exited     chan struct{} // closed when it has exited; then waited is what Wait returned
	waited     error
	http       *http.Client
}

// cleanEnviron is the environment without our variables, so that the machine's own settings change no test.
func cleanEnviron() []string {
	var out []string
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, envPrefix) {
			out = append(out, pair)
		}
	}
	return out
}

// liverag prepares a command line of the program, in an empty working directory.
func liverag(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("liverag", args...)
	cmd.Dir = t.TempDir()
	cmd.Env = cleanEnviron()
	return cmd
}

// launch starts `liverag up` on a data directory and does not wait.
func launch(t testing.TB, data string, args ...string) *program {
	t.Helper()
	return launchVerb(t, "up", data, args...)
}

// launchVerb is launch for up, serve or index.
func launchVerb(t testing.TB, verb, data string, args ...string) *program {
	t.Helper()
	p := &program{t: t, data: data, out: &lockedBuffer{}, err: &lockedBuffer{}, exited: make(chan struct{})}
	p.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: patience}
	all := []string{verb, "--json", "--data", data, "--listen", "127.0.0.1:0"}
	if !slices.Contains(args, "--embedder") {
		all = append(all, "--embedder", "local/static") // most tests are not about the model, so they take the one that costs no time
	}
	p.cmd = liverag(t, append(all, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.waited = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.kill()
		p.http.CloseIdleConnections()
		if strings.Contains(p.err.String(), "DATA RACE") || strings.Contains(p.err.String(), "panic:") {
			t.Errorf("pid %d: %s", p.cmd.Process.Pid, p.err)
		}
		if t.Failed() && p.err.String() != "" {
			t.Logf("what pid %d said:\n%s", p.cmd.Process.Pid, tail(p.err.String(), 4000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// startProgram starts the program and waits until it serves.
func startProgram(t testing.TB, data string, args ...string) *program {
	t.Helper()
	return startVerb(t, "up", data, args...)
}

// startVerb is startProgram for up, serve or index.
func startVerb(t testing.TB, verb, data string, args ...string) *program {
	t.Helper()
	began := time.Now()
	p := launchVerb(t, verb, data, args...)
	until(t, "serving", func() bool {
		select {
		case <-p.exited:
			t.Fatalf("liverag %s: %v\n%s", verb, p.waited, p.err)
		default:
		}
		if p.base == "" {
			var said struct {
				URL string `json:"url"`
			}
			if json.Unmarshal([]byte(p.out.String()), &said) != nil {
				return false
			}
			p.base = said.URL
		}
		resp, err := p.http.Get(p.base + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	p.readyAfter = time.Since(began)
	return p
}

// until looks until something holds: what is waited for is another process.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("not %s after %s", what, patience)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// goesOn is until for much work, which a busy machine may take long for: it gives up when nothing has moved for patience.
func goesOn(t testing.TB, what string, moved func() int64, holds func() bool) {
	t.Helper()
	last, end := moved(), time.Now().Add(patience)
	for !holds() {
		if now := moved(); now != last {
			last, end = now, time.Now().Add(patience)
		}
		if time.Now().After(end) {
			t.Fatalf("not %s, and nothing has moved for %s", what, patience)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// waitServing waits until the liverag that runs on a data directory serves.
func waitServing(data string) error {
	client := &http.Client{Timeout: time.Second}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		base, err := os.ReadFile(filepath.Join(data, urlFile))
		if err != nil {
			continue
		}
		resp, err := client.Get(strings.TrimSpace(string(base)) + "/readyz")
		if err != nil {
			continue
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("nothing serves on %s after %s", data, patience)
}

// kill is kill -9.
func (p *program) kill() {
	select {
	case <-p.exited:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.exited
}

// stop asks the program to stop, and holds it to its time.
func (p *program) stop() time.Duration {
	p.t.Helper()
	began := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("still running %s after SIGTERM", patience)
	}
	if p.waited != nil {
		p.t.Errorf("after SIGTERM: %v\n%s", p.waited, p.err)
	}
	return time.Since(began)
}

// answered is an answer of the API.
type answered struct {
	status int
	header http.Header
	body   []byte
}

func (a answered) code() string {
	var p struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(a.body, &p)
	return p.Code
}

// call makes a request. An error is one of the connection, not of the API.
func (p *program) call(method, path string, body any) (answered, error) {
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	case []byte:
		reader = bytes.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return answered{}, err
		}
		reader = bytes.NewReader(encoded)
	}
	req, err := http.NewRequest(method, p.base+path, reader)
	if err != nil {
		return answered{}, err
	}
	if method == "POST" && strings.HasPrefix(path, "/documents") {
		req.Header.Set("Content-Type", "application/x-ndjson")
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return answered{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return answered{resp.StatusCode, resp.Header, got}, err
}

// must makes a request that has to succeed, and decodes the answer into out, unless that is nil.
func (p *program) must(out any, method, path string, body any) {
	p.t.Helper()
	got, err := p.call(method, path, body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	if got.status >= 300 {
		p.t.Fatalf("%s %s answers %d %s", method, path, got.status, got.body)
	}
	if out != nil {
		if err := json.Unmarshal(got.body, out); err != nil {
			p.t.Fatalf("%s %s: %v in %s", method, path, err, got.body)
		}
	}
}

// put writes a document, waits until it is searchable, and returns its token.
func (p *program) put(id, text string) string {
	p.t.Helper()
	return p.putAs(id, map[string]any{"text": text})
}

func (p *program) putAs(id string, document map[string]any) string {
	p.t.Helper()
	var w written
	p.must(&w, "PUT", documentPath(id)+"?wait=20s", document)
	if w.Searchable == nil || !*w.Searchable || w.Token == "" {
		p.t.Fatalf("PUT %q is not searchable: %+v", id, w)
	}
	return w.Token
}

func (p *program) remove(id string) string {
	p.t.Helper()
	var w written
	p.must(&w, "DELETE", documentPath(id)+"?wait=20s", nil)
	if w.Searchable == nil || !*w.Searchable {
		p.t.Fatalf("DELETE %q is not effective: %+v", id, w)
	}
	return w.Token
}

// found is the answer of POST /retrieve.
type found struct {
	Hits []struct {
		ID        string         `json:"id"`
		Document  string         `json:"document"`
		Version   int64          `json:"version"`
		Text      string         `json:"text"`
		Start     int            `json:"start"`
		End       int            `json:"end"`
		Score     float64        `json:"score"`
		Title     string         `json:"title"`
		URL       string         `json:"url"`
		Metadata  map[string]any `json:"metadata"`
		UpdatedAt time.Time      `json:"updated_at"`
	} `json:"hits"`
	Mode     string `json:"mode"`
	Degraded struct {
		Code string `json:"code"`
	} `json:"degraded"`
	Generation struct {
		Name   string `json:"name"`
		Alias  string `json:"alias"`
		Recipe struct {
			Chunker struct {
				Strategy string `json:"strategy"`
				Tokens   int    `json:"tokens"`
			} `json:"chunker"`
			Embedder struct {
				Model string `json:"model"`
			} `json:"embedder"`
		} `json:"recipe"`
	} `json:"generation"`
	Freshness struct {
		AsOf      time.Time `json:"as_of"`
		Pending   int64     `json:"pending"`
		Satisfied bool      `json:"satisfied"`
	} `json:"freshness"`
}

func (f *found) documents() []string {
	var out []string
	for _, h := range f.Hits {
		out = append(out, h.Document)
	}
	return out
}

// ask queries; more are further fields of the request.
func (p *program) ask(query string, more map[string]any) found {
	p.t.Helper()
	request := map[string]any{"query": query}
	for name, value := range more {
		request[name] = value
	}
	var f found
	p.must(&f, "POST", "/retrieve", request)
	return f
}

// stored is the answer of GET /documents/{id}.
type stored struct {
	ID         string `json:"id"`
	Version    int64  `json:"version"`
	Text       string `json:"text"`
	Title      string `json:"title"`
	Generation string `json:"generation"`
	Chunks     []struct {
		ID     string `json:"id"`
		Start  int    `json:"start"`
		End    int    `json:"end"`
		Tokens int    `json:"tokens"`
		Text   string `json:"text"`
	} `json:"chunks"`
}

// get reads a document back; ok is false if there is none.
func (p *program) get(id string) (s stored, ok bool) {
	p.t.Helper()
	got, err := p.call("GET", documentPath(id), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	switch got.status {
	case http.StatusOK:
		if err := json.Unmarshal(got.body, &s); err != nil {
			p.t.Fatalf("GET %q: %v in %s", id, err, got.body)
		}
		return s, true
	case http.StatusNotFound:
		return s, false
	}
	p.t.Fatalf("GET %q answers %d %s", id, got.status, got.body)
	return s, false
}

// generations lists them, the live one first.
func (p *program) generations() []generation {
	p.t.Helper()
	var all []generation
	p.must(&all, "GET", "/generations", nil)
	return all
}

func (p *program) live() generation {
	p.t.Helper()
	all := p.generations()
	if len(all) == 0 || len(all[0].Alias) != 1 || all[0].Alias[0] != "live" {
		p.t.Fatalf("the first generation is not live: %+v", all)
	}
	return all[0]
}

// replay builds another generation and waits until it has caught up.
func (p *program) replay(name string, recipe map[string]any) generation {
	p.t.Helper()
	p.must(nil, "POST", "/generations", map[string]any{"name": name, "recipe": recipe})
	var g generation
	goesOn(p.t, name+" ready", p.indexed, func() bool {
		p.must(&g, "GET", "/generations/"+name, nil)
		if g.State == "failed" {
			p.t.Fatalf("%s failed: %+v", name, g.Trouble)
		}
		return g.State == "ready"
	})
	return g
}

// applied waits until everything that is acknowledged now is searchable in the live generation.
func (p *program) applied() {
	p.t.Helper()
	goesOn(p.t, "searchable", p.indexed, func() bool {
		got, err := p.call("POST", "/retrieve", map[string]any{"query": "anything", "max_staleness": "0s", "wait": "10s", "strict": true, "k": 1})
		if err != nil {
			p.t.Fatal(err)
		}
		var f found
		if got.status != http.StatusOK && got.code() != "stale" {
			p.t.Fatalf("POST /retrieve answers %d %s", got.status, got.body)
		} else if err := json.Unmarshal(got.body, &f); err != nil || got.status == http.StatusOK && !f.Freshness.Satisfied {
			p.t.Fatalf("not satisfied: %s, %v", got.body, err)
		}
		return got.status == http.StatusOK
	})
}

// indexed is how many changes the generations have, all together.
func (p *program) indexed() (sum int64) {
	p.t.Helper()
	for _, g := range p.generations() {
		sum += g.Progress.Changes
	}
	return sum
}

// metric adds up the samples of a family, over its labels.
func (p *program) metric(family string) float64 {
	p.t.Helper()
	got, err := p.call("GET", "/metrics", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	samples := regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(family)+`(?:\{[^}]*\})? (\S+)$`).FindAllSubmatch(got.body, -1)
	if len(samples) == 0 {
		p.t.Fatalf("no metric %s", family)
	}
	sum := 0.0
	for _, s := range samples {
		v, err := strconv.ParseFloat(string(s[1]), 64)
		if err != nil {
			p.t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// ran is a command line that came to its end.
type ran struct {
	code     int
	out, err string
	took     time.Duration
}

// runs runs a command line of the program to its end.
func runs(t testing.TB, stdin string, args ...string) ran {
	t.Helper()
	cmd := liverag(t, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(2*patience, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	err := cmd.Wait()
	r := ran{out: out.String(), err: errOut.String(), took: time.Since(began)}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return r
}

// verb runs a verb against the program; it has to succeed, and its standard output is returned.
func (p *program) verb(stdin string, args ...string) string {
	p.t.Helper()
	r := runs(p.t, stdin, append([]string{args[0], "--server", p.base}, args[1:]...)...)
	if r.code != 0 {
		p.t.Fatalf("liverag %s exits with %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// fails runs a command line that has to exit with the code and say something on standard error for each pattern.
func fails(t testing.TB, code int, patterns []string, args ...string) ran {
	t.Helper()
	r := runs(t, "", args...)
	if r.code != code {
		t.Errorf("liverag %s exits with %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	for _, pattern := range patterns {
		if !regexp.MustCompile(pattern).MatchString(r.err) {
			t.Errorf("liverag %s does not say %q:\n%s", strings.Join(args, " "), pattern, r.err)
		}
	}
	return r
}

// write makes a file below a directory.
func write(t testing.TB, dir, name string, content []byte) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// deadline bounds a test's own calls.
func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// prose makes a text of n paragraphs, each of which names the word and its own number, so that a passage tells where it is from.
func prose(word string, n int) string {
	var b strings.Builder
	for i := range n {
		if i%4 == 0 {
			fmt.Fprintf(&b, "## Part %d of %s\n\n", i/4, word)
		}
		fmt.Fprintf(&b, "Paragraph %d speaks of %s. It is long enough to be worth cutting, and says nothing else of note; the %dth of its kind.\n\n", i, word, i)
	}
	return b.String()
}

// quantile is the value that the share q of the durations, of which there are some, is not above.
func quantile(durations []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(durations))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
