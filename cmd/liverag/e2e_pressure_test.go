package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// holds compares the most memory that the program ever had with what it may have, unless the race detector is in it.
func (p *program) holds(t *testing.T, mebibytes int) {
	t.Helper()
	now, most := p.memory()
	if runtime.GOOS == "linux" && most == 0 {
		t.Fatal("the system does not tell how much memory the program has")
	}
	t.Logf("memory: %d MiB now, %d MiB at most", now>>20, most>>20)
	if most > int64(mebibytes)<<20 && !raceDetector {
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

// held is a body that keeps its last bytes back until it is told to go on.
type held struct {
	endless
	tail string
	full func()
	goOn <-chan struct{}
}

func (h *held) Read(b []byte) (int, error) {
	n, err := h.endless.Read(b)
	if err != io.EOF {
		return n, err
	}
	if h.full != nil {
		h.full()
		h.full = nil
		<-h.goOn
	}
	if h.tail == "" {
		return 0, io.EOF
	}
	n = copy(b, h.tail)
	h.tail = h.tail[n:]
	return n, nil
}

// TestManyLargeBodiesAtOnce: bodies that all want to be in memory at the same time wait for each other, instead of being there all at once. They are refused in the end, so
// that nothing else takes memory.
func TestManyLargeBodiesAtOnce(t *testing.T) {
	const limit, bodies = 150, 40
	p := limited(t, limit, "--embedder", "hash/384")
	goOn := make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	var sent atomic.Int64
	full := func() {
		if sent.Add(1) == bodies {
			release()
		}
	}
	// Those that have to wait are not read, so not all of them can be sent before some are let through.
	enough := time.AfterFunc(2*time.Second, release)
	defer enough.Stop()
	var g sync.WaitGroup
	var refused atomic.Int64
	for i := range bodies {
		g.Go(func() {
			body := &held{endless: endless{head: `{"text":"`, left: 8_000_000}, tail: `","unheard_of":1}`, full: full, goOn: goOn}
			got, err := p.send("PUT", fmt.Sprintf("/documents/large/%d", i), -1, body)
			switch {
			case err == nil && got.status == http.StatusBadRequest && strings.Contains(string(got.body), "unheard_of"):
				refused.Add(1)
			case err != nil || got.status != http.StatusServiceUnavailable || got.code() != "overloaded" || got.header.Get("Retry-After") == "":
				t.Errorf("body %d: %v, %d %s", i, err, got.status, got.body)
			}
		})
	}
	g.Wait()
	t.Logf("%d of %d bodies were read to their ends", refused.Load(), bodies)
	if refused.Load() == 0 {
		t.Error("nobody was let through")
	}
	p.holds(t, 2*limit)
}

// send makes a request with a body that is made while it is sent; a length of -1 is not told beforehand.
func (p *program) send(method, path string, length int64, body io.Reader) (answered, error) {
	req, err := http.NewRequest(method, p.base+path, body)
	if err != nil {
		return answered{}, err
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

// sendChunked sends a body without its length over a connection of its own, and reads the answer also when the server does not take all of the body: net/http's client
// would tell of the failed write only, as it happens.
func (p *program) sendChunked(path string, body io.Reader) (status int, code string, err error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.base, "http://"))
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, "", err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", path, strings.TrimPrefix(p.base, "http://"))
		chunks := httputil.NewChunkedWriter(conn)
		_, _ = io.CopyBuffer(struct{ io.Writer }{chunks}, struct{ io.Reader }{body}, make([]byte, 64<<10))
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	conn.Close()
	<-written
	return resp.StatusCode, answered{body: said}.code(), err
}

// TestBodiesFarAboveTheLimit: documents of 50 MB are refused by name however they come, and are never held in memory whole.
func TestBodiesFarAboveTheLimit(t *testing.T) {
	const limit = 300
	p := limited(t, limit, "--embedder", "hash/384")
	p.put("small", "It is here before and after.")
	send := func(method, path string, length int64, head string) (answered, error) {
		return p.send(method, path, length, &endless{head: head, left: 50_000_000})
	}
	var g sync.WaitGroup
	for i := range scaled(t, "LIVERAG_PRESSURE_HUGE", 4) {
		g.Go(func() {
			head := fmt.Sprintf(`{"id":"huge%d","text":"`, i)
			if got, err := send("PUT", "/documents/huge", 50_000_000+int64(len(`{"text":"`)), `{"text":"`); err != nil || got.status != http.StatusRequestEntityTooLarge || got.code() != "document_too_large" {
				t.Errorf("with its length: %v, %d %s", err, got.status, got.body)
			}
			chunked := &endless{head: `{"text":"`, left: 50_000_000}
			if status, code, err := p.sendChunked("/documents/huge", chunked); err != nil || status != http.StatusRequestEntityTooLarge || code != "document_too_large" {
				t.Errorf("chunked: %v, %d %s", err, status, code)
			}
			if chunked.left == 0 {
				t.Error("the server read all of a body that is far too large")
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

// searchableAfter edits small documents one after the other until it is told to end, and returns how long each took to be searchable.
func (p *program) searchableAfter(least int, end func() bool) (took []time.Duration) {
	p.t.Helper()
	for i := 0; i < least || !end(); i++ {
		began := time.Now()
		p.put(fmt.Sprintf("small/%d", i%7), fmt.Sprintf("Edit %d at %s, a small one.", i, began))
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took
}

// TestADocumentOfManyChunks: a document of very many chunks holds up nobody. At full size: LIVERAG_PRESSURE_CHUNKS=100000.
func TestADocumentOfManyChunks(t *testing.T) {
	chunks := scaled(t, "LIVERAG_PRESSURE_CHUNKS", 10_000)
	var b strings.Builder
	for i := range chunks {
		fmt.Fprintf(&b, "Line %d speaks of word%d, and of little else that is of note.\n\n", i, i*7%5000)
	}
	for _, model := range []string{"hash/384", "local/static"} {
		t.Run(model, func(t *testing.T) {
			p := limited(t, 600, "--embedder", model, "--chunker", "recursive", "--tokens", "24")
			p.http.Timeout = 10 * patience
			before := p.searchableAfter(50, func() bool { return true })
			began := time.Now()
			p.must(nil, "PUT", "/documents/huge", map[string]any{"text": b.String()})
			during := p.searchableAfter(1, func() bool {
				if time.Since(began) > 20*patience {
					t.Fatalf("%d chunks are searchable", p.live().Progress.Chunks)
				}
				return int(p.live().Progress.Chunks) >= chunks*9/10
			})
			took := time.Since(began)
			t.Logf("a document of %d bytes, %d chunks in all: searchable after %s", b.Len(), p.live().Progress.Chunks, took.Round(time.Millisecond))
			t.Logf("%d small edits before: p50 %s, p99 %s; %d during: p50 %s, p99 %s, at most %s", len(before), quantile(before, .5), quantile(before, .99),
				len(during), quantile(during, .5), quantile(during, .99), during[len(during)-1])
			// An edit that meets the one write of the large document waits for it. No other may.
			was, slow := quantile(before, .5), 0
			for _, d := range during {
				if d > 10*was+500*time.Millisecond {
					slow++
				}
			}
			if slow > 3+len(during)/20 {
				t.Errorf("%d of %d small edits took more than ten times as long as before", slow, len(during))
			}
			p.holds(t, 1200)
		})
	}
}

// TestTinyDocumentsAtSpeed: thousands of documents a second over several connections are all there in the end, and then all is as fast as before. At full size:
// LIVERAG_PRESSURE_SECONDS=20. The rate is LIVERAG_PRESSURE_RATE.
func TestTinyDocumentsAtSpeed(t *testing.T) {
	const limit, connections = 300, 4
	seconds, rate := scaled(t, "LIVERAG_PRESSURE_SECONDS", 2), scaled(t, "LIVERAG_PRESSURE_RATE", 10_000)
	p := limited(t, limit, "--embedder", "hash/384")
	before := p.searchableAfter(20, func() bool { return true })
	each := rate / connections / 10
	began := time.Now()
	var g sync.WaitGroup
	for c := range connections {
		g.Go(func() {
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			for step := range 10 * seconds {
				var lines strings.Builder
				for i := range each {
					fmt.Fprintf(&lines, "{\"id\":\"tiny/%d/%d/%d\",\"text\":\"Tiny %d of %d by %d.\"}\n", c, step, i, i, step, c)
				}
				var answer batchAnswer
				got, err := p.call("POST", "/documents", lines.String())
				if err != nil || got.status != http.StatusAccepted || json.Unmarshal(got.body, &answer) != nil || answer.Accepted != each {
					t.Errorf("%v, %d %s", err, got.status, got.body)
					return
				}
				<-tick.C
			}
		})
	}
	g.Wait()
	accepted, all := time.Since(began), each*connections*10*seconds
	until(t, "all searchable", func() bool { return int(p.live().Progress.Documents) == all+7 })
	indexed := time.Since(began)
	t.Logf("%d documents: accepted %.0f a second, indexed %.0f a second", all, float64(all)/accepted.Seconds(), float64(all)/indexed.Seconds())
	for c := range connections {
		if got, ok := p.get(fmt.Sprintf("tiny/%d/%d/%d", c, 10*seconds-1, each-1)); !ok || got.Text != fmt.Sprintf("Tiny %d of %d by %d.", each-1, 10*seconds-1, c) {
			t.Errorf("the last one of connection %d: %v %q", c, ok, got.Text)
		}
	}
	after := p.searchableAfter(20, func() bool { return true })
	t.Logf("small edits: p50 %s before, %s after", quantile(before, .5), quantile(after, .5))
	if quantile(after, .5) > 10*quantile(before, .5)+500*time.Millisecond {
		t.Error("it did not get fast again")
	}
	p.holds(t, 2*limit)
}

// TestAHotKeyAtAPace: a document that changes a thousand times a second, for a while. Every change is counted, and the last state stays. At full size:
// LIVERAG_PRESSURE_SECONDS=20.
func TestAHotKeyAtAPace(t *testing.T) {
	seconds := scaled(t, "LIVERAG_PRESSURE_SECONDS", 2)
	p := limited(t, 300, "--embedder", "hash/384")
	const each = 20
	began := time.Now()
	tick := time.NewTicker(each * time.Millisecond)
	defer tick.Stop()
	last, changes := "", 0
	for changes < 1000*seconds {
		var lines strings.Builder
		for range each {
			last = fmt.Sprintf("State %d of the hot one.", changes)
			changes++
			fmt.Fprintf(&lines, "{\"id\":\"hot\",\"text\":%q}\n", last)
		}
		p.must(nil, "POST", "/documents", lines.String())
		<-tick.C
	}
	took := time.Since(began)
	p.applied()
	if got, _ := p.get("hot"); got.Text != last {
		t.Errorf("the last state is %q, want %q", got.Text, last)
	}
	superseded, embedded := p.metric("liverag_changes_superseded_total"), p.metric("liverag_chunks_embedded_total")
	t.Logf("%d changes of one document at %.0f a second, applied %s after the last: %v superseded, %v chunks embedded", changes, float64(changes)/took.Seconds(),
		(time.Since(began) - took).Round(time.Millisecond), superseded, embedded)
	if superseded+embedded != float64(changes) || superseded == 0 {
		t.Errorf("of %d changes %v were superseded and %v embedded", changes, superseded, embedded)
	}
	p.holds(t, 600)
}

// eventCount is what a reader of GET /changes/stream learned.
type eventCount struct {
	events, missed int
	marked         bool // it read on to a marker
}

// read counts events until that of a marker, or until the connection ends.
func (e *eventCount) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var event struct {
			ID     string `json:"id"`
			Missed int    `json:"missed"`
		}
		if json.Unmarshal([]byte(text), &event) != nil {
			return
		}
		e.missed += event.Missed
		if event.ID == "marker" {
			e.marked = true
			return
		}
		e.events++
	}
}

// TestManySlowReadersOfChanges: readers that don't read hold up nobody and take bounded memory; they are told what they missed, or are cut off.
func TestManySlowReadersOfChanges(t *testing.T) {
	const limit, documents = 300, 10_000
	p := limited(t, limit, "--embedder", "hash/384")
	open := func() net.Conn {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /changes/stream HTTP/1.0\r\nHost: %s\r\n\r\n", strings.TrimPrefix(p.base, "http://"))
		first := make([]byte, 12)
		if _, err := io.ReadFull(conn, first); err != nil || !strings.HasSuffix(string(first), "200") {
			t.Fatalf("the stream answers %q, %v", first, err)
		}
		return conn
	}
	readers := make([]net.Conn, scaled(t, "LIVERAG_PRESSURE_READERS", 24))
	for i := range readers {
		readers[i] = open()
		_ = readers[i].(*net.TCPConn).SetReadBuffer(64 << 10)
	}
	var quick eventCount
	var reading sync.WaitGroup
	reader := open()
	reading.Go(func() { quick.read(reader) })

	name := strings.Repeat("a-long-name/", 80) // so that what is not read does not fit into the system's buffers
	began := time.Now()
	for i := 0; i < documents; i += 500 {
		var lines strings.Builder
		for j := range 500 {
			fmt.Fprintf(&lines, "{\"id\":\"%s%d\",\"text\":\"Number %d.\"}\n", name, i+j, i+j)
		}
		p.must(nil, "POST", "/documents", lines.String())
	}
	p.applied()
	t.Logf("%d documents beside %d slow readers in %s", documents, len(readers), time.Since(began).Round(time.Millisecond))
	counts := make([]eventCount, len(readers))
	for i := range readers {
		_ = readers[i].(*net.TCPConn).SetReadBuffer(4 << 20)
		reading.Go(func() { counts[i].read(readers[i]) })
	}
	done := make(chan struct{})
	go func() { reading.Wait(); close(done) }()
	markers := 0
	for ended := false; !ended; {
		p.put("marker", fmt.Sprintf("Marker %d.", markers))
		markers++
		select {
		case <-done:
			ended = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	if !quick.marked || quick.events+quick.missed < documents {
		t.Errorf("the quick reader got %+v of %d", quick, documents)
	}
	told, cut := 0, 0
	for i, c := range counts {
		switch {
		case !c.marked:
			cut++
		case c.events+c.missed < documents || c.events+c.missed > documents+markers:
			t.Errorf("slow reader %d got %+v of %d", i, c, documents)
		case c.missed > 0:
			told++
		}
	}
	t.Logf("the quick reader missed %d; of %d slow ones %d were told what they missed, and %d cut off", quick.missed, len(counts), told, cut)
	if told+cut == 0 {
		t.Error("nobody was slow, so nothing was tested")
	}
	p.holds(t, 2*limit)
}
