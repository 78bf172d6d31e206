package external

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liverag/liverag/chunker"
)

// words counts what is between spaces.
type words struct{}

func (words) Count(text string) int { return len(strings.Fields(text)) }

func show(text string, chunks []chunker.Chunk) string {
	var b strings.Builder
	for _, c := range chunks {
		fmt.Fprintf(&b, "[%s|%s|%d]", c.Context, text[c.Start:c.End], c.Tokens)
	}
	return b.String()
}

func TestDecode(t *testing.T) {
	const text = "Grüße an alle.\n\nZweiter Satz. Zweiter Satz."
	for _, tt := range []struct{ name, answer, want, err string }{
		{"bytes", `{"chunks":[{"start":0,"end":16,"context":"A > B"},{"start":18,"end":31}]}`, "[A > B|Grüße an alle.|3][|Zweiter Satz.|2]", ""},
		{"characters", `{"unit":"characters","chunks":[{"start":0,"end":14},{"start":16,"end":29}]}`, "[|Grüße an alle.|3][|Zweiter Satz.|2]", ""},
		{"texts, the same one twice", `{"chunks":["Grüße an alle.","Zweiter Satz.","Zweiter Satz."]}`, "[|Grüße an alle.|3][|Zweiter Satz.|2][|Zweiter Satz.|2]", ""},
		{"texts that overlap", `{"chunks":["Grüße an","an alle."]}`, "[|Grüße an|2][|an alle.|2]", ""},
		{"out of order", `{"chunks":[{"start":18,"end":31},{"start":0,"end":16}]}`, "[|Grüße an alle.|3][|Zweiter Satz.|2]", ""},
		{"white space", `{"chunks":[{"start":16,"end":18}]}`, "", ""},
		{"none", `{"chunks":[]}`, "", ""},
		{"what is not known is ignored", `{"chunks":[{"start":0,"end":16,"score":1}],"more":true}`, "[|Grüße an alle.|3]", ""},

		{"no JSON", `chunks!`, "", "not the JSON"},
		{"no chunks", `{}`, "", `no "chunks"`},
		{"its own error", `{"error":"too long"}`, "", "it says: too long"},
		{"no end", `{"chunks":[{"start":0}]}`, "", `no "end"`},
		{"outside", `{"chunks":[{"start":0,"end":99}]}`, "", "outside the text"},
		{"before it", `{"chunks":[{"start":-1,"end":9}]}`, "", "outside the text"},
		{"outside in characters", `{"unit":"characters","chunks":[{"start":0,"end":44}]}`, "", "outside the text"},
		{"empty", `{"chunks":[{"start":3,"end":3}]}`, "", "is empty"},
		{"backwards", `{"chunks":[{"start":9,"end":3}]}`, "", "is empty"},
		{"an empty text", `{"chunks":[""]}`, "", "is empty"},
		{"through a character", `{"chunks":[{"start":0,"end":3}]}`, "", `"unit": "characters"`},
		{"begins in a character", `{"chunks":[{"start":3,"end":7}]}`, "", `"unit": "characters"`},
		{"not in the text", `{"chunks":["Gruesse"]}`, "", "not in the text"},
		{"a third time", `{"chunks":["Zweiter Satz.","Zweiter Satz.","Zweiter Satz."]}`, "", "not in the text"},
		{"twice the same span", `{"chunks":[{"start":0,"end":16},{"start":0,"end":16}]}`, "", "the same span"},
		{"unit", `{"unit":"words","chunks":[]}`, "", "neither"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			chunks, _, err := decode([]byte(tt.answer), text, words{})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v, want an error with %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := show(text, chunks); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

// FuzzDecode: whatever a program answers, what comes out are spans of the text, in order, at characters' borders.
func FuzzDecode(f *testing.F) {
	f.Add(`{"chunks":[{"start":0,"end":4}]}`, "abé😀x")
	f.Add(`{"chunks":["b","é"],"unit":"characters"}`, "abé\xffx")
	f.Fuzz(func(t *testing.T, answer, text string) {
		chunks, _, err := decode([]byte(answer), text, words{})
		if err != nil {
			return
		}
		last := chunker.Chunk{Start: -1}
		for _, c := range chunks {
			if c.Start < 0 || c.Start >= c.End || c.End > len(text) || c.Start < last.Start || c.Start == last.Start && c.End <= last.End {
				t.Fatalf("%+v after %+v in %d bytes", c, last, len(text))
			}
			last = c
		}
	})
}

func TestCharacters(t *testing.T) {
	text := strings.Repeat("aé😀\xff", 100)
	offset := characters(text)
	n := 0
	for at := range text {
		if got, ok := offset(n); !ok || got != at {
			t.Fatalf("character %d is at %d, want %d", n, got, at)
		}
		n++
	}
	if got, ok := offset(n); !ok || got != len(text) {
		t.Errorf("the end is at %d, want %d", got, len(text))
	}
	for _, outside := range []int{-1, n + 1} {
		if _, ok := offset(outside); ok {
			t.Errorf("%d is in the text", outside)
		}
	}
}

// The test binary is the program, too.
func TestMain(m *testing.M) {
	if os.Getenv("EXTERNAL_TEST_PROGRAM") != "" {
		program()
		return
	}
	os.Exit(m.Run())
}

// program is a chunker by lines, with what can go wrong on demand of the text.
func program() {
	in := json.NewDecoder(os.Stdin)
	for {
		var r request
		if err := in.Decode(&r); err != nil {
			return
		}
		switch {
		case strings.Contains(r.Text, "DIE"):
			fmt.Fprintln(os.Stderr, "Traceback:\nValueError: DIE")
			os.Exit(3)
		case strings.Contains(r.Text, "ONCE"):
			if _, err := os.Stat("died"); err != nil {
				os.WriteFile("died", nil, 0o600)
				os.Exit(3)
			}
		case strings.Contains(r.Text, "HANG"):
			select {}
		case strings.Contains(r.Text, "FLOOD"):
			for {
				fmt.Print(strings.Repeat("x", 1<<20))
			}
		case strings.Contains(r.Text, "REFUSE"):
			fmt.Println(`{"error":"not this one"}`)
			continue
		}
		lines := []string{}
		for line := range strings.Lines(r.Text) {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
		out, _ := json.Marshal(map[string]any{"chunks": lines})
		fmt.Println(string(out))
	}
}

// newExec makes a chunker that is a script which starts this test as the program.
func newExec(t *testing.T, change func(*ExecConfig)) *Exec {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the program here is a shell script")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script(t, dir, "cut", "EXTERNAL_TEST_PROGRAM=1 exec '"+self+"' \"$@\"")
	c := ExecConfig{Command: "./cut", Dir: dir, Counter: words{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if change != nil {
		change(&c)
	}
	e, err := OpenExec(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func script(t *testing.T, dir, name, body string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestExecCuts(t *testing.T) {
	e := newExec(t, nil)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			text := fmt.Sprintf("one %d\n\ntwo😀\n", i)
			chunks, err := e.Split(t.Context(), "text/plain", text)
			if got, want := show(text, chunks), fmt.Sprintf("[|one %d|2][|two😀|1]", i); err != nil || got != want {
				t.Errorf("%s, %v, want %s", got, err, want)
			}
		})
	}
	wg.Wait()
	if chunks, err := e.Split(t.Context(), "text/plain", " \n"); err != nil || len(chunks) != 0 {
		t.Errorf("white space: %v, %v", chunks, err)
	}
	large := strings.Repeat("some line of text\n", 100_000)
	if chunks, err := e.Split(t.Context(), "text/plain", large); err != nil || len(chunks) != 100_000 {
		t.Errorf("%d chunks, %v, want 100000", len(chunks), err)
	}
}

func TestExecFails(t *testing.T) {
	e := newExec(t, func(c *ExecConfig) { c.Deadline = 500 * time.Millisecond; c.Processes = 1 })
	for _, tt := range []struct{ text, want string }{
		{"DIE", "its last words: ValueError: DIE"},
		{"HANG", "no answer within 500ms"},
		{"FLOOD", "longer than any list of chunks"},
		{"REFUSE", "it says: not this one"},
	} {
		_, err := e.Split(t.Context(), "text/plain", tt.text)
		var failed *chunker.Error
		if !errors.As(err, &failed) || failed.Temporary || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a lasting error with %q", tt.text, err, tt.want)
		}
		if chunks, err := e.Split(t.Context(), "text/plain", "fine"); err != nil || len(chunks) != 1 {
			t.Fatalf("after %s: %v, %v", tt.text, chunks, err)
		}
	}
	if chunks, err := e.Split(t.Context(), "text/plain", "ONCE"); err != nil || len(chunks) != 1 {
		t.Errorf("a process that died once: %v, %v", chunks, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.Split(ctx, "text/plain", "HANG"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the context's end", err)
	}
	e.Close()
	var failed *chunker.Error
	if _, err := e.Split(t.Context(), "text/plain", "fine"); !errors.As(err, &failed) || !failed.Temporary {
		t.Errorf("after Close: %v", err)
	}
}

// TestExecProcessesThatDieTogether: they are killed while they wait for work, and no text is to blame.
func TestExecProcessesThatDieTogether(t *testing.T) {
	e := newExec(t, func(c *ExecConfig) { c.Processes = 3 })
	var running []*process
	for range 3 {
		p, err := e.start()
		if err != nil {
			t.Fatal(err)
		}
		running = append(running, p)
		<-e.slots
	}
	for _, p := range running {
		p.cancel()
		e.slots <- p
	}
	for range 3 {
		if chunks, err := e.Split(t.Context(), "text/plain", "fine"); err != nil || len(chunks) != 1 {
			t.Errorf("%v, %v", chunks, err)
		}
	}
}

func TestExecIsTheProgramItBeganWith(t *testing.T) {
	e := newExec(t, nil)
	path := e.path
	same, err := OpenExec(e.config)
	if err != nil || same.Name() != e.Name() {
		t.Fatalf("%v: %q, want %q", err, same.Name(), e.Name())
	}
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(body, "# changed\n"...), 0o755); err != nil {
		t.Fatal(err)
	}
	other, err := OpenExec(e.config)
	if err != nil || other.Name() == e.Name() {
		t.Errorf("%v: another program has the same name %q", err, e.Name())
	}
	_, err = e.Split(t.Context(), "text/plain", "text")
	var failed *chunker.Error
	if !errors.As(err, &failed) || !failed.Temporary || !strings.Contains(err.Error(), "not the program any more") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(path, body, 0o755); err != nil {
		t.Fatal(err)
	}
	if chunks, err := e.Split(t.Context(), "text/plain", "text"); err != nil || len(chunks) != 1 {
		t.Errorf("put back: %v, %v", chunks, err)
	}
}

func TestWhatMayBeRun(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("permissions are otherwise there")
	}
	dir, outside := t.TempDir(), t.TempDir()
	script(t, dir, "good", "cat")
	script(t, dir, "open", "cat")
	script(t, outside, "bad", "cat")
	if err := os.Mkdir(filepath.Join(dir, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	script(t, filepath.Join(dir, "below"), "good", "cat")
	for name, mode := range map[string]os.FileMode{"open": 0o777, "plain": 0o644} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(outside, "bad"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"good": "", "./good --size 3": "", filepath.Join(dir, "good"): "",
		"": "names no program", "absent": "no such file", "../" + filepath.Base(outside) + "/bad": "is not in", "link": "is not in",
		filepath.Join(outside, "bad"): "is not in", "/bin/sh -c x": "is not in", "open": "everybody", "plain": "chmod +x", ".": "is not in", "below/good": "is not in",
	} {
		_, err := OpenExec(ExecConfig{Command: command, Dir: dir})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", command, err, want)
		}
	}
	if _, err := OpenExec(ExecConfig{Command: "good"}); !errors.Is(err, ErrForbidden) {
		t.Errorf("without a directory: %v", err)
	}
}

func TestHTTP(t *testing.T) {
	var version atomic.Value
	version.Store("7")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in request
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("a bad request: %v, %s %v", err, r.Method, r.Header)
		}
		switch {
		case strings.Contains(in.Text, "BUSY"):
			http.Error(w, "later", http.StatusServiceUnavailable)
		case strings.Contains(in.Text, "REFUSE"):
			http.Error(w, "never", http.StatusUnprocessableEntity)
		case strings.Contains(in.Text, "HANG"):
			<-r.Context().Done()
		case strings.Contains(in.Text, "GONE"):
			http.NotFound(w, r)
		case strings.Contains(in.Text, "MOVED"):
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case strings.Contains(in.Text, "FLOOD"):
			w.Write(make([]byte, 4<<20))
		default:
			json.NewEncoder(w).Encode(map[string]any{"version": version.Load(), "chunks": strings.Fields(in.Text)})
		}
	}))
	defer server.Close()
	h, err := OpenHTTP(t.Context(), HTTPConfig{URL: server.URL + "/cut", Deadline: 300 * time.Millisecond, Counter: words{}})
	if err != nil {
		t.Fatal(err)
	}
	if want := "http/1 " + server.URL + "/cut version=7"; h.Name() != want {
		t.Errorf("it is called %q, want %q", h.Name(), want)
	}
	text := "one two"
	if chunks, err := h.Split(t.Context(), "text/plain", text); err != nil || show(text, chunks) != "[|one|1][|two|1]" {
		t.Errorf("%s, %v", show(text, chunks), err)
	}
	for _, tt := range []struct {
		text, want string
		temporary  bool
	}{
		{"BUSY", "503", true}, {"HANG", "no answer within 300ms", true}, {"GONE", "404", true}, {"MOVED", "302", true},
		{"REFUSE", "422", false}, {"FLOOD", "longer than", false},
	} {
		_, err := h.Split(t.Context(), "text/plain", tt.text)
		var failed *chunker.Error
		if !errors.As(err, &failed) || failed.Temporary != tt.temporary || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q, temporary %v", tt.text, err, tt.want, tt.temporary)
		}
	}
	version.Store("8")
	var failed *chunker.Error
	if _, err := h.Split(t.Context(), "text/plain", text); !errors.As(err, &failed) || !failed.Temporary || !strings.Contains(err.Error(), `now version "8"`) {
		t.Errorf("another version: %v", err)
	}
	server.Close()
	if _, err := OpenHTTP(t.Context(), HTTPConfig{URL: server.URL, Counter: words{}}); !errors.As(err, &failed) || !failed.Temporary {
		t.Errorf("a service that is down: %v", err)
	}
	for _, bad := range []string{"http://", "ftp//x", "http://user:secret@host/", "://"} {
		if _, err := OpenHTTP(t.Context(), HTTPConfig{URL: bad, Counter: words{}}); err == nil || errors.As(err, new(*chunker.Error)) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
