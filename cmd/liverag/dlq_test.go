package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDeadLettersOfARunningProgram: what one recipe can't index is a letter, its old version is served on and says so, and all of it survives a kill.
func TestDeadLettersOfARunningProgram(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	args := []string{"--chunker", "whole", "--long", "reject", "--embedder", "local/minilm"}
	p := startProgram(t, data, args...)
	p.put("kb/refunds.md", "Refunds take five days.")
	long := strings.Repeat("Refunds take a very long time. ", 200)
	p.must(nil, "PUT", "/documents/kb/refunds.md?wait=20s", map[string]any{"text": long})
	p.must(nil, "PUT", "/documents/new?wait=20s", map[string]any{"text": long})
	p.applied()
	p.kill()
	p = startProgram(t, data, args...)
	p.applied()

	var doc struct {
		Text    string
		Version int64
		Pending struct {
			Version    int64
			Code       string
			DeadLetter string `json:"dead_letter"`
		}
	}
	p.must(&doc, "GET", "/documents/kb/refunds.md", nil)
	if doc.Text != "Refunds take five days." || doc.Pending.Code != "input_too_long" || doc.Pending.Version <= doc.Version {
		t.Errorf("the document says %+v", doc)
	}
	list := p.verb("", "dlq")
	if strings.Count(list, "input_too_long") != 2 || !strings.Contains(list, doc.Pending.DeadLetter) {
		t.Errorf("dlq lists\n%s", list)
	}
	if shown := p.verb("", "dlq", "show", doc.Pending.DeadLetter); !strings.Contains(shown, "a very long time") {
		t.Errorf("dlq show prints\n%s", shown)
	}
	if verified := p.verb("", "verify", "--rate", "0"); !strings.Contains(verified, "missing 0, stale 0, orphaned 0, mixed 0, bad vectors 0") || !strings.Contains(verified, "2 documents are served at an older version") {
		t.Errorf("verify prints\n%s", verified)
	}
	// The document gets a version that can be indexed, so its letter has nothing to say any more.
	p.put("kb/refunds.md", "Refunds take four days.")
	if redriven := p.verb("", "dlq", "redrive", doc.Pending.DeadLetter); !strings.Contains(redriven, "superseded") {
		t.Errorf("dlq redrive prints\n%s", redriven)
	}
	if now, _ := p.get("kb/refunds.md"); now.Text != "Refunds take four days." {
		t.Errorf("after the redrive: %q", now.Text)
	}
	if discarded := p.verb("", "dlq", "discard", "--document", "new"); !strings.Contains(discarded, "discarded") {
		t.Errorf("dlq discard prints\n%s", discarded)
	}
	p.remove("kb/refunds.md")
	if gone := p.verb("", "verify", "--document", "kb/refunds.md", "--purge"); !strings.Contains(gone, "the log has deleted it") || !strings.Contains(gone, "purged: 2 cached vectors") || !strings.Contains(gone, "deleted, 0 entries") {
		t.Errorf("verify --document prints\n%s", gone)
	}
	p.put("there", "It is there.")
	fails(t, exitFailed, []string{"there is not gone"}, "verify", "--server", p.base, "--document", "there")
	fails(t, exitFailed, []string{"document_not_deleted"}, "verify", "--server", p.base, "--document", "there", "--purge")
	if list := p.verb("", "dlq"); list != "no dead letters\n" {
		t.Errorf("dlq lists\n%s", list)
	}
}

// TestAPurgedDocumentIsOffTheDisk: what a document said is in no file after it was deleted and purged, and the log was compacted by the next start.
func TestAPurgedDocumentIsOffTheDisk(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := startProgram(t, data, "--embedder", "hash/64")
	p.must(nil, "PUT", "/documents/leaver?wait=20s", map[string]any{"text": "zqxfirst words of the leaver", "title": "zqxfirst"})
	p.must(nil, "PUT", "/documents/leaver?wait=20s", map[string]any{"text": "zqxsecond words of the leaver", "title": "zqxsecond"})
	p.put("other", "zqxother stays where it is.")
	files := func(mark string) (holding []string) {
		t.Helper()
		err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			if bytes.Contains(content, []byte(mark)) {
				holding = append(holding, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return holding
	}
	for _, mark := range []string{"zqxfirst", "zqxsecond", "zqxother"} {
		if n := len(files(mark)); n < 2 {
			t.Fatalf("%s is in %d files; the log and the store should hold it as it was written, or this test sees nothing", mark, n)
		}
	}
	p.remove("leaver")
	if receipt := p.verb("", "verify", "--document", "leaver", "--purge"); !strings.Contains(receipt, "is left in the store's files") || !strings.Contains(receipt, "compacted at the next start") {
		t.Errorf("verify --document prints\n%s", receipt)
	}
	p.kill()
	p = startProgram(t, data, "--embedder", "hash/64")
	p.applied()
	for _, mark := range []string{"zqxfirst", "zqxsecond"} {
		if left := files(mark); len(left) > 0 {
			t.Errorf("%s is still in %v", mark, left)
		}
	}
	if doc, _ := p.get("other"); doc.Text != "zqxother stays where it is." {
		t.Errorf("the other document: %q", doc.Text)
	}
	if receipt := p.verb("", "verify", "--document", "leaver"); !strings.Contains(receipt, "0 old records") {
		t.Errorf("verify --document prints\n%s", receipt)
	}
}

func TestDLQ(t *testing.T) {
	page := func(r request) (int, string) {
		switch {
		case r.method == "GET" && strings.Contains(r.query, "after=2"):
			return 200, `{"letters":[{"id":"0-3"}]}`
		case r.method == "GET" && !strings.Contains(r.query, "raced"):
			return 200, `{"letters":[{"id":"0-1","document":"a","code":"c\u001b"},{"id":"0-2"}],"next":"2"}`
		case r.method == "GET" && strings.Contains(r.query, "code=raced"):
			return 200, `{"letters":[{"id":"0-1"},{"id":"0-9"}]}`
		case strings.Contains(r.body, "0-9"):
			return 404, `{"code":"dead_letter_unknown","detail":"no such dead letter: 0-9"}`
		case r.path == "/dlq/redrive":
			return 200, `{"results":[{"id":"0-1","outcome":"redriven"},{"id":"0-2","outcome":"rejected","code":"c","detail":"d"}]}`
		}
		return 200, `{"results":[{"id":"0-1","outcome":"discarded"}]}`
	}
	for _, tt := range []struct {
		name     string
		args     []string
		code     int
		out, err string
		requests []string
	}{
		{"list", []string{"--limit", "0"}, exitDone, "0-3", "", []string{"/dlq limit=1000 ", "/dlq after=2&limit=1000 "}},
		{"a few", []string{"list", "--limit", "2", "--code", "c"}, exitDone, "there are more", "", []string{"/dlq code=c&limit=2 "}},
		{"no control characters", []string{"--limit", "2"}, exitDone, "c  ", "", nil},
		{"as JSON", []string{"list", "--limit", "0", "--json"}, exitDone, `{"letters":[{"id":"0-1","document":"a","code":"c\u001b"},{"id":"0-2"},{"id":"0-3"}]}`, "", nil},
		{"redrive some", []string{"redrive", "0-1", "0-2"}, exitFailed, "0-2  rejected  c  d", "1 letter of 2 can't be indexed now either", []string{`/dlq/redrive  {"ids":["0-1","0-2"]}`}},
		{"discard all", []string{"discard", "--all"}, exitDone, "0-1  discarded", "", []string{"/dlq limit=1000 ", "/dlq after=2&limit=1000 ", `/dlq/discard  {"ids":["0-1","0-2","0-3"]}`}},
		{"unknown", []string{"discard", "0-9"}, exitFailed, "", "`liverag dlq list` lists the open ones", nil},
		{"one was closed meanwhile", []string{"discard", "--code", "raced"}, exitDone, "0-1  discarded", "", []string{"/dlq code=raced&limit=1000 ", `/dlq/discard  {"ids":["0-1","0-9"]}`, `/dlq/discard  {"ids":["0-1"]}`, `/dlq/discard  {"ids":["0-9"]}`}},
		{"the rest is unknown", append(append([]string{"discard"}, slices.Repeat([]string{"0-1"}, settleAtOnce)...), "0-9"), exitFailed, "0-1  discarded", "no such dead letter", nil},
		{"nothing chosen", []string{"redrive"}, exitUsage, "", "needs the IDs", nil},
		{"chosen twice", []string{"redrive", "0-1", "--all"}, exitUsage, "", "needs the IDs", nil},
		{"show two", []string{"show", "0-1", "0-2"}, exitUsage, "", "needs the ID of one", nil},
		{"other word", []string{"purge"}, exitUsage, "", "not \"purge\"", nil},
		{"negative", []string{"--limit", "-1"}, exitUsage, "", "--limit", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, page)
			got := invoke(t, nil, "", append([]string{"dlq", "--server", s.URL}, tt.args...)...)
			if got.code != tt.code || !strings.Contains(got.out, tt.out) || !strings.Contains(got.err, tt.err) || strings.Contains(got.out, "\x1b") {
				t.Errorf("%+v", got)
			}
			for _, want := range tt.requests {
				if r := s.next(t); r.path+" "+r.query+" "+r.body != want {
					t.Errorf("asked %s %s %s, want %s", r.path, r.query, r.body, want)
				}
			}
		})
	}
}

func TestVerify(t *testing.T) {
	report := func(state string, missing, repaired int) string {
		return fmt.Sprintf(`{"state":%q,"generation":"g","share":0.5,"documents":7,"missing":%d,"repaired":%d,"right":%v,"took":"1s","detail":"why","findings":[{"id":"a\u001b","kind":"missing","detail":"d","repaired":%v}]}`,
			state, missing, repaired, missing == repaired, repaired > 0)
	}
	for _, tt := range []struct {
		name     string
		args     []string
		answers  []string
		code     int
		out, err string
		body     string
	}{
		{"right", nil, []string{report("running", 0, 0), report("done", 0, 0)}, exitDone, "g: 7 documents compared", "", `{"generation":"live","rate":2000,"sample":1,"repair":false}`},
		{"wrong", []string{"--sample", "0.1", "--rate", "0"}, []string{report("done", 1, 0)}, exitFailed, "missing  a   d", "1 document is in g not as the log says", `{"generation":"live","rate":0,"sample":0.1,"repair":false}`},
		{"wrong, as JSON", []string{"--json"}, []string{report("done", 2, 0)}, exitFailed, `"missing":2`, "2 documents", ""},
		{"repaired", []string{"--repair", "--generation", "g"}, []string{report("done", 2, 2)}, exitDone, "repaired 2", "", `{"generation":"g","rate":2000,"sample":1,"repair":true}`},
		{"half repaired", []string{"--repair"}, []string{report("done", 2, 1)}, exitFailed, "", "1 document could not be repaired", ""},
		{"failed", nil, []string{report("failed", 0, 0)}, exitFailed, "", "failed: why", ""},
		{"stopped", nil, []string{report("stopped", 0, 0)}, exitFailed, "", "somebody stopped", ""},
		{"a bad sample", []string{"--sample", "2"}, nil, exitUsage, "", "--sample", ""},
		{"purge of nothing", []string{"--purge"}, nil, exitUsage, "", "go with --document", ""},
		{"two questions", []string{"--document", "a", "--repair"}, nil, exitUsage, "", "--repair does not go with --document", ""},
		{"an argument", []string{"g"}, nil, exitUsage, "", "no arguments", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answers := tt.answers
			s := newServer(t, func(r request) (int, string) {
				text := answers[0]
				answers = answers[1:]
				if r.method == "POST" {
					return http.StatusAccepted, text
				}
				return http.StatusOK, text
			})
			got := invoke(t, nil, "", append([]string{"verify", "--server", s.URL}, tt.args...)...)
			if got.code != tt.code || !strings.Contains(got.out, tt.out) || !strings.Contains(got.err, tt.err) || strings.Contains(got.out, "\x1b") {
				t.Errorf("%+v", got)
			}
			if tt.body != "" {
				equalJSON(t, s.next(t).body, tt.body)
			}
		})
	}
	s := newServer(t, always(409, `{"code":"verify_running","detail":"a verification is running"}`))
	if got := invoke(t, nil, "", "verify", "--server", s.URL); got.code != exitFailed || !strings.Contains(got.err, "one runs at a time") {
		t.Errorf("%+v", got)
	}
}
