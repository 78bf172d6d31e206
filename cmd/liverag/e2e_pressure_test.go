package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// memory is what the program's process holds now and held at most, in bytes; zeros where the system does not tell.
func (p *program) memory() (now, most int64) {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0
	}
	read := func(name string) int64 {
		_, rest, _ := strings.Cut(string(status), name+":")
		number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, _ := strconv.ParseInt(number, 10, 64)
		return n << 10
	}
	return read("VmRSS"), read("VmHWM")
}

// limited is a program that is told to keep to so much memory. Tests that use it don't run beside others, so that they have the machine for themselves.
func limited(t *testing.T, mebibytes int, args ...string) *program {
	t.Helper()
	t.Setenv("GOMEMLIMIT", fmt.Sprintf("%dMiB", mebibytes))
	return startProgram(t, t.TempDir(), args...)
}

// holds compares the most memory that the program ever had with what it may have.
func (p *program) holds(t *testing.T, mebibytes int) {
	t.Helper()
	now, most := p.memory()
	if runtime.GOOS == "linux" && most == 0 {
		t.Fatal("the system does not tell how much memory the program has")
	}
	t.Logf("memory: %d MiB now, %d MiB at most", now>>20, most>>20)
	if most > int64(mebibytes)<<20 {
		t.Errorf("the program had %d MiB, and may have %d", most>>20, mebibytes)
	}
}

// large makes a text of about so many bytes of a kind.
func large(kind string, n, size int) string {
	var b strings.Builder
	b.Grow(size + 256)
	for i := 0; b.Len() < size; i++ {
		switch kind {
		case "text/html":
			fmt.Fprintf(&b, "<p>Paragraph %d of page <b>%d</b> speaks of word%d &amp; little else that is of note.</p>\n", i, n, (i*7+n)%5000)
		case "text/markdown":
			if i%20 == 0 {
				fmt.Fprintf(&b, "## Part %d of %d\n\n", i/20, n)
			}
			fmt.Fprintf(&b, "Paragraph %d of file %d speaks of word%d and little else that is of note.\n\n", i, n, (i*7+n)%5000)
		case "unicode":
			fmt.Fprintf(&b, "第%d段の%d番目の文書は言葉%dについて述べる。Ünïcödé ☃ %d.\n", i, n, (i*7+n)%5000, i)
		default:
			fmt.Fprintf(&b, "Line %d of file %d speaks of word%d and little else.\n", i, n, (i*7+n)%5000)
		}
	}
	return strings.ToValidUTF8(b.String()[:size], "")
}

// TestManyLargeDocumentsAtOnce: large documents of every kind, many at the same time. Some may be told to come back; all of them end up searchable, and memory stays
// bounded. At full size: LIVERAG_PRESSURE_WRITERS=32 LIVERAG_PRESSURE_BYTES=8000000.
func TestManyLargeDocumentsAtOnce(t *testing.T) {
	const limit = 300
	writers, size := scaled(t, "LIVERAG_PRESSURE_WRITERS", 8), scaled(t, "LIVERAG_PRESSURE_BYTES", 1<<20)
	p := limited(t, limit, "--embedder", "hash/384", "--log.max_bytes", "8GiB")
	p.http.Timeout = 10 * patience
	kinds := []string{"text/plain", "text/markdown", "text/html", "unicode"}
	began := time.Now()
	var g sync.WaitGroup
	for n := range writers {
		g.Go(func() {
			kind := kinds[n%len(kinds)]
			document := map[string]any{"text": large(kind, n, size), "content_type": strings.Replace(kind, "unicode", "text/plain", 1)}
			for end := time.Now().Add(10 * patience); ; time.Sleep(50 * time.Millisecond) {
				got, err := p.call("PUT", fmt.Sprintf("/documents/large/%d", n), document)
				if err == nil && got.status == http.StatusAccepted {
					return
				}
				if err != nil || got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || time.Now().After(end) {
					t.Errorf("document %d: %v, %d %s", n, err, got.status, got.body)
					return
				}
			}
		})
	}
	g.Wait()
	for end := time.Now().Add(20 * patience); int(p.live().Progress.Documents) != writers; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d documents are searchable", p.live().Progress.Documents, writers)
		}
	}
	t.Logf("%d documents of %d bytes are searchable after %s", writers, size, time.Since(began).Round(time.Millisecond))
	p.holds(t, 2*limit)
}

// endless is a body that is made while it is read, and knows how much of it was.
type endless struct {
	head string
	left int
	read int
}

func (e *endless) Read(b []byte) (int, error) {
	if e.head != "" {
		n := copy(b, e.head)
		e.head = e.head[n:]
		return n, nil
	}
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(len(b), e.left)
	for i := range b[:n] {
		b[i] = 'x'
	}
	e.left -= n
	e.read += n
	return n, nil
}

// TestBodiesFarAboveTheLimit: documents of 50 MB are refused by name however they come, and are never held in memory whole.
func TestBodiesFarAboveTheLimit(t *testing.T) {
	const limit = 300
	p := limited(t, limit, "--embedder", "hash/384")
	p.put("small", "It is here before and after.")
	send := func(method, path string, length int64, head string) (answered, error) {
		body := &endless{head: head, left: 50_000_000}
		req, err := http.NewRequest(method, p.base+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		req.Header.Set("Content-Type", "application/x-ndjson")
		if length > 0 {
			req.Header.Set("Expect", "100-continue")
		}
		resp, err := p.http.Do(req)
		if err != nil {
			return answered{}, err
		}
		defer resp.Body.Close()
		said, err := io.ReadAll(resp.Body)
		return answered{resp.StatusCode, resp.Header, said}, err
	}
	var g sync.WaitGroup
	for i := range scaled(t, "LIVERAG_PRESSURE_HUGE", 4) {
		g.Go(func() {
			head := fmt.Sprintf(`{"id":"huge%d","text":"`, i)
			if got, err := send("PUT", "/documents/huge", 50_000_000+int64(len(`{"text":"`)), `{"text":"`); err != nil || got.status != http.StatusRequestEntityTooLarge || got.code() != "document_too_large" {
				t.Errorf("with its length: %v, %d %s", err, got.status, got.body)
			}
			// The server may close the connection under the rest of a body without a length.
			if got, err := send("PUT", "/documents/huge", -1, `{"text":"`); err == nil && (got.status != http.StatusRequestEntityTooLarge || got.code() != "document_too_large") {
				t.Errorf("chunked: %d %s", got.status, got.body)
			}
			got, err := send("POST", "/documents", -1, "{\"id\":\"small\",\"text\":\"It is here before and after.\"}\n"+head)
			if err != nil || got.status != http.StatusAccepted || !strings.Contains(string(got.body), `"accepted":1,"rejected":[{"line":2,"code":"document_too_large"`) {
				t.Errorf("as a line: %v, %d %s", err, got.status, got.body)
			}
		})
	}
	g.Wait()
	if _, ok := p.get("small"); !ok {
		t.Error("the document beside them is gone")
	}
	p.holds(t, limit)
}

// TestAHotKey: a document that changes faster than it can be indexed ends in its last state, and what nobody could have seen is not embedded.
func TestAHotKey(t *testing.T) {
	t.Parallel()
	changes := scaled(t, "LIVERAG_PRESSURE_CHANGES", 3000)
	p := startProgram(t, t.TempDir())
	var lines strings.Builder
	for i := range changes {
		fmt.Fprintf(&lines, "{\"id\":\"hot\",\"text\":\"State %d of the hot one.\"}\n", i)
	}
	began := time.Now()
	var answer batchAnswer
	p.must(&answer, "POST", "/documents", lines.String())
	if answer.Accepted != changes {
		t.Fatalf("accepted %d of %d", answer.Accepted, changes)
	}
	p.put("other", "It is not held up.")
	p.applied()
	took := time.Since(began)
	if got, _ := p.get("hot"); got.Text != fmt.Sprintf("State %d of the hot one.", changes-1) {
		t.Errorf("the last state is %q", got.Text)
	}
	superseded, embedded := p.metric("liverag_changes_superseded_total"), p.metric("liverag_chunks_embedded_total")
	t.Logf("%d changes of one document in %s: %v superseded, %v chunks embedded", changes, took.Round(time.Millisecond), superseded, embedded)
	if superseded+embedded < float64(changes) || superseded < float64(changes)/2 {
		t.Errorf("%v of %d changes were superseded and %v chunks embedded", superseded, changes, embedded)
	}
}
