package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// watching is an import --watch that runs, on a fake server.
type watching struct {
	*fakeServer
	root string
	out  *lockedBuffer
	stop func() int
}

// lockedBuffer is an output that may be read while it is written.
type lockedBuffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	written chan struct{}
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.written <- struct{}{}:
	default:
	}
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startWatching begins an import and returns when its first request has come.
func startWatching(t *testing.T, files map[string]string, answer func(request) (int, string), args ...string) *watching {
	t.Helper()
	w := &watching{root: tree(t, files), out: &lockedBuffer{written: make(chan struct{}, 1)}}
	w.fakeServer = newServer(t, answer)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, append([]string{"import", w.root, "--watch", "--server", w.URL}, args...), nil, strings.NewReader(""), w.out, w.out)
	}()
	w.stop = func() int {
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Log(w.out.String())
		}
	})
	if r := w.next(t); r.method != http.MethodPost {
		t.Fatalf("%+v", r)
	}
	return w
}

func searchable(r request) (int, string) {
	if r.method == http.MethodPost {
		return accepting(r)
	}
	return 200, `{"id":"x","token":"t","searchable":true}`
}

// expect wants a write of the file with that text, or its deletion if text is "-".
func (w *watching) expect(t *testing.T, id, text string) {
	t.Helper()
	method := "PUT"
	if text == "-" {
		method = "DELETE"
	}
	r := w.next(t)
	if r.method != method || r.path != documentPath(id) || r.query != "wait=30s" || r.backfill {
		t.Fatalf("got %s %s?%s (backfill %v), want %s %s", r.method, r.path, r.query, r.backfill, method, documentPath(id))
	}
	if method == "PUT" && !strings.Contains(r.body, `"text":"`+text+`"`) {
		t.Fatalf("%s was sent with %s, want %s", id, r.body, text)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	w := startWatching(t, map[string]string{"a.md": "one", "old/b.md": "two", "keep.md": "x"}, searchable, "--prefix", "kb/", "--exclude", "skip.md")
	at := func(name string) string { return filepath.Join(w.root, name) }

	put(t, at("a.md"), "edited")
	w.expect(t, "kb/a.md", "edited")

	put(t, at("new.txt"), "created")
	w.expect(t, "kb/new.txt", "created")

	// As editors save: into another file that takes the place of the first.
	put(t, at(".a.md.swp"), "an editor's")
	put(t, at("a.md.tmp"), "saved")
	put(t, at("skip.md"), "left out")
	put(t, at("image.png"), "left out")
	if err := os.Rename(at("a.md.tmp"), at("a.md")); err != nil {
		t.Fatal(err)
	}
	w.expect(t, "kb/a.md", "saved")

	if err := os.Remove(at("new.txt")); err != nil {
		t.Fatal(err)
	}
	w.expect(t, "kb/new.txt", "-")

	// A folder that comes with its files, one of them within another folder.
	fresh := tree(t, map[string]string{"in/c.md": "three", "d.md": "four"})
	if err := os.Rename(fresh, at("fresh")); err != nil {
		t.Fatal(err)
	}
	got := []string{w.next(t).path, w.next(t).path}
	slices.Sort(got)
	if want := []string{documentPath("kb/fresh/d.md"), documentPath("kb/fresh/in/c.md")}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	put(t, at("fresh/in/c.md"), "watched too")
	w.expect(t, "kb/fresh/in/c.md", "watched too")

	// A folder that goes takes its files with it; a renamed file is another document.
	if err := os.RemoveAll(at("old")); err != nil {
		t.Fatal(err)
	}
	w.expect(t, "kb/old/b.md", "-")
	if err := os.Rename(at("a.md"), at("z.md")); err != nil {
		t.Fatal(err)
	}
	renamed := map[string]string{}
	for range 2 {
		r := w.next(t)
		renamed[r.path] = r.method
	}
	if renamed[documentPath("kb/a.md")] != "DELETE" || renamed[documentPath("kb/z.md")] != "PUT" {
		t.Fatalf("%v", renamed)
	}

	if code := w.stop(); code != exitDone {
		t.Errorf("Ctrl-C ended it with %d", code)
	}
	out := w.out.String()
	for _, want := range []string{"imported 3 documents", "following ", "written   kb/a.md  searchable after ", "deleted   kb/new.txt  gone from answers after "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	select {
	case r := <-w.requests:
		t.Errorf("one request too many: %+v", r)
	default:
	}
}

// TestWatchKeepsTrying: an edit made while the server is away is not lost.
func TestWatchKeepsTrying(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	away := 1
	w := startWatching(t, map[string]string{"a.md": "one"}, func(r request) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		if r.method == http.MethodPut && away > 0 {
			away--
			return 503, `{"code":"unavailable","detail":"no log"}`
		}
		return searchable(r)
	})
	put(t, filepath.Join(w.root, "a.md"), "two")
	w.expect(t, "a.md", "two")
	w.expect(t, "a.md", "two")
	if code := w.stop(); code != exitDone || !strings.Contains(w.out.String(), "refused   a.md  unavailable: no log; trying again") {
		t.Errorf("%d\n%s", code, w.out)
	}
}

// TestWatchEditWhileSending: an edit that comes while the one before is on its way is sent after it, and the last word is the file's.
func TestWatchEditWhileSending(t *testing.T) {
	t.Parallel()
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	once := sync.Once{}
	w := startWatching(t, map[string]string{"a.md": "one"}, func(r request) (int, string) {
		if r.method == http.MethodPut {
			once.Do(func() {
				held <- struct{}{}
				<-hold
			})
		}
		return searchable(r)
	})
	put(t, filepath.Join(w.root, "a.md"), "second")
	w.expect(t, "a.md", "second")
	<-held
	if err := os.Remove(filepath.Join(w.root, "a.md")); err != nil {
		t.Fatal(err)
	}
	// A sign that the watcher has met the removal: a later change elsewhere has been sent.
	put(t, filepath.Join(w.root, "b.md"), "sign")
	w.expect(t, "b.md", "sign")
	close(hold)
	w.expect(t, "a.md", "-")
	w.stop()
}

func TestWatchReportsWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	w := startWatching(t, map[string]string{"a.md": "one"}, searchable, "--json")
	put(t, filepath.Join(w.root, "a.md"), "broken \xff")
	deadline := time.After(20 * time.Second)
	for !strings.Contains(w.out.String(), `"change":"left out","detail":"not valid UTF-8; the version before it stays"`) {
		select {
		case <-deadline:
			t.Fatal("nothing was said")
		case r := <-w.requests:
			t.Fatalf("%+v", r)
		case <-w.out.written:
		}
	}
	w.stop()
}
