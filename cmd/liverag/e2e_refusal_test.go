package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestBadInputIsRefusedByName(t *testing.T) {
	t.Parallel()
	p := startProgram(t, t.TempDir(), "--documents.max_bytes", "64KiB")
	p.put("good", "The good document stays what it is.")
	long := strings.Repeat("x", 64<<10)
	for _, test := range []struct {
		name, method, path, body string
		status                   int
		code, detail             string
	}{
		{"unknown field", "PUT", "/documents/a", `{"text":"x","colour":"red"}`, 400, "unknown_field", "colour"},
		{"wrong type", "PUT", "/documents/a", `{"text":17}`, 400, "wrong_type", "text"},
		{"metadata of a wrong type", "PUT", "/documents/a", `{"text":"x","metadata":{"a":{"b":1}}}`, 400, "wrong_type", "metadata"},
		{"no text", "PUT", "/documents/a", `{"title":"x"}`, 400, "not_a_document", "text"},
		{"no JSON", "PUT", "/documents/a", `hello`, 400, "not_a_document", ""},
		{"half a JSON", "PUT", "/documents/a", `{"text":"x"`, 400, "not_a_document", ""},
		{"an array", "PUT", "/documents/a", `[]`, 400, "not_a_document", ""},
		{"no body", "PUT", "/documents/a", ``, 400, "not_a_document", ""},
		{"unknown content type", "PUT", "/documents/a", `{"text":"x","content_type":"application/pdf"}`, 400, "wrong_type", "content_type"},
		{"updated_at is no time", "PUT", "/documents/a", `{"text":"x","updated_at":"yesterday"}`, 400, "wrong_type", "updated_at"},
		{"invalid UTF-8", "PUT", "/documents/a", "{\"text\":\"caf\xe9\"}", 400, "invalid_utf8", ""},
		{"text over the limit", "PUT", "/documents/a", `{"text":"` + long + `y"}`, 413, "document_too_large", "65536"},
		{"body over any limit", "PUT", "/documents/a", `{"text":"` + strings.Repeat(long, 30) + `"}`, 413, "document_too_large", "65536"},
		{"empty id", "PUT", "/documents/", `{"text":"x"}`, 400, "id_invalid", "empty"},
		{"id over the limit", "PUT", "/documents/" + strings.Repeat("a", 1025), `{"text":"x"}`, 400, "id_invalid", "1024"},
		{"control character in the id", "PUT", "/documents/a%0Ab", `{"text":"x"}`, 400, "id_invalid", "control"},
		{"a tenant by the back door", "PUT", "/documents/t%1Fa", `{"text":"x"}`, 400, "id_invalid", "control"},
		{"id that is not UTF-8", "PUT", "/documents/%ff", `{"text":"x"}`, 400, "id_invalid", "UTF-8"},
		{"wait is no duration", "PUT", "/documents/a?wait=5", `{"text":"x"}`, 400, "duration_invalid", "wait"},
		{"unknown parameter", "PUT", "/documents/a?wiat=5s", `{"text":"x"}`, 400, "unsupported", "wiat"},
		{"deleting a bad id", "DELETE", "/documents/a%00b", ``, 400, "id_invalid", "control"},
		{"no query", "POST", "/retrieve", `{}`, 400, "query_empty", "query"},
		{"blank query", "POST", "/retrieve", `{"query":" \n"}`, 400, "query_empty", "query"},
		{"unknown field of a query", "POST", "/retrieve", `{"query":"x","topk":3}`, 400, "unsupported", "topk"},
		{"a field that is not there yet", "POST", "/retrieve", `{"query":"x","diversity":0.5}`, 400, "unsupported", "diversity"},
		{"k of a wrong type", "POST", "/retrieve", `{"query":"x","k":"3"}`, 400, "wrong_type", "k"},
		{"k too small", "POST", "/retrieve", `{"query":"x","k":0}`, 400, "k_out_of_range", "200"},
		{"k too large", "POST", "/retrieve", `{"query":"x","k":201}`, 400, "k_out_of_range", "200"},
		{"unknown mode", "POST", "/retrieve", `{"query":"x","mode":"magic"}`, 400, "mode_unknown", "hybrid"},
		{"bad filter", "POST", "/retrieve", `{"query":"x","filter":{"a":{"$near":1}}}`, 400, "filter_invalid", `\$near`},
		{"filter of a wrong type", "POST", "/retrieve", `{"query":"x","filter":"a=b"}`, 400, "filter_invalid", ""},
		{"unknown generation", "POST", "/retrieve", `{"query":"x","generation":"nope"}`, 404, "generation_unknown", "nope"},
		{"query over the limit", "POST", "/retrieve", `{"query":"` + strings.Repeat("x ", 17<<10) + `"}`, 400, "query_too_large", "32768"},
		{"bad duration", "POST", "/retrieve", `{"query":"x","max_staleness":"soon"}`, 400, "duration_invalid", "max_staleness"},
		{"a query that is no JSON", "POST", "/retrieve", `query`, 400, "invalid_json", ""},
		{"unknown parameter of a query", "GET", "/retrieve?q=x&kk=2", ``, 400, "unsupported", "kk"},
		{"token that is none", "POST", "/retrieve", `{"query":"x","after":"rubbish"}`, 409, "token_unknown", "token"},
		{"bad recipe", "POST", "/generations", `{"recipe":{"chunker":{"strategy":"shredder"}}}`, 400, "recipe_invalid", "shredder"},
		{"unknown model", "POST", "/generations", `{"recipe":{"embedder":{"model":"local/nothing"}}}`, 400, "recipe_invalid", "local/nothing"},
		{"overlap over tokens", "POST", "/generations", `{"recipe":{"chunker":{"tokens":20,"overlap":20}}}`, 400, "recipe_invalid", "overlap"},
		{"bad name of a generation", "POST", "/generations", `{"name":"Big Name"}`, 400, "name_invalid", "Big Name"},
		{"reserved name of a generation", "POST", "/generations", `{"name":"live"}`, 400, "name_invalid", "live"},
		{"unknown field of a generation", "POST", "/generations", `{"recipe":{"chunkr":{}}}`, 400, "unsupported", "chunkr"},
		{"promote what is not there", "POST", "/generations/nope/promote", ``, 404, "generation_unknown", "nope"},
		{"drop what is not there", "DELETE", "/generations/nope", ``, 404, "generation_unknown", "nope"},
		{"roll back without a promote", "POST", "/rollback", ``, 409, "nothing_to_roll_back", ""},
		{"no such document", "GET", "/documents/nope", ``, 404, "not_found", ""},
		{"no such path", "GET", "/nope", ``, 404, "not_found", ""},
		{"no such method", "PATCH", "/documents/a", `{}`, 405, "method_not_allowed", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := p.call(test.method, test.path, test.body)
			if err != nil {
				t.Fatal(err)
			}
			var problem struct {
				Type, Title, Detail, Code string
				Status                    int
			}
			if err := json.Unmarshal(got.body, &problem); err != nil {
				t.Fatalf("%d %s", got.status, got.body)
			}
			if got.status != test.status || problem.Code != test.code || problem.Status != got.status || !strings.Contains(problem.Detail, strings.ReplaceAll(test.detail, `\`, "")) {
				t.Errorf("answers %d %s\nwant %d %s with %q", got.status, got.body, test.status, test.code, test.detail)
			}
			if kind := got.header.Get("Content-Type"); kind != "application/problem+json" || problem.Type == "" || problem.Title == "" {
				t.Errorf("%s %s is no whole problem", kind, got.body)
			}
		})
	}
	p.applied()
	if g := p.live(); g.Progress.Documents != 1 || len(p.generations()) != 1 {
		t.Errorf("after the refusals there are %+v", p.generations())
	}
	// Bad lines of an import are named, good ones kept.
	var answer batchAnswer
	p.must(&answer, "POST", "/documents", "{\"id\":\"l1\",\"text\":\"kept\"}\nrubbish\n\n{\"id\":\"a\\u0000b\",\"text\":\"x\"}\n{\"id\":\"l5\",\"text\":\"caf\xe9\"}\n"+
		`{"id":"l6","text":"`+long+`y"}`+"\n"+`{"id":"l7","deleted":true,"text":"x"}`+"\n"+`{"id":"good","deleted":true}`)
	var said []string
	for _, r := range answer.Rejected {
		said = append(said, fmt.Sprint(r.Line, " ", r.Code))
	}
	if got := strings.Join(said, ", "); answer.Accepted != 2 || got != "2 not_a_document, 4 id_invalid, 5 invalid_utf8, 6 document_too_large, 7 not_a_document" {
		t.Errorf("accepted %d, rejected %s", answer.Accepted, got)
	}
	if f := p.ask("kept good", map[string]any{"after": answer.Token, "wait": "20s", "strict": true}); len(f.Hits) != 1 || f.Hits[0].Document != "l1" {
		t.Errorf("after the import: %q", f.documents())
	}
}

func TestADirectoryInUse(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := startProgram(t, data)
	fails(t, 1, []string{fmt.Sprintf(`in use by process %d\b.*stop that process, or choose another directory with --data`, p.cmd.Process.Pid)},
		"up", "--data", data, "--listen", "127.0.0.1:0")
	p.put("a", "The first one goes on.")
	p.kill() // a lock that outlives its holder would keep everybody out
	p = startProgram(t, data)
	if _, ok := p.get("a"); !ok {
		t.Error("the document is gone")
	}
}

func TestADirectoryOfANewerFormat(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := startProgram(t, data)
	p.put("a", "Some text.")
	p.stop()
	path := filepath.Join(data, "log", "format.json")
	marker, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := regexp.MustCompile(`"version":\s*1\b`).ReplaceAll(marker, []byte(`"version":9`))
	if string(newer) == string(marker) {
		t.Fatalf("no version in %s", marker)
	}
	write(t, data, "log/format.json", newer)
	fails(t, 1, []string{"format version 9, this program knows version 1", "export|import"}, "up", "--data", data, "--listen", "127.0.0.1:0")
	write(t, data, "log/format.json", marker)
	if _, ok := startProgram(t, data).get("a"); !ok {
		t.Error("the refused start changed something: the document is gone")
	}
}

// TestAStoreOfANewerFormat: the store is a view, so the way out is to build it again.
func TestAStoreOfANewerFormat(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	p := startProgram(t, data)
	p.put("a", "Some text that is in the log whatever happens to the store.")
	p.stop()
	touched := 0
	err := filepath.WalkDir(filepath.Join(data, "store"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && len(b) >= 32 && (strings.HasPrefix(string(b), "LIVEWAL\x00") || strings.HasPrefix(string(b), "LIVESEG\x00")) {
			b[8] = 99 // the format version, little endian
			touched++
			err = os.WriteFile(path, b, 0o644)
		}
		return err
	})
	if err != nil || touched == 0 {
		t.Fatalf("changed %d files: %v", touched, err)
	}
	p = launch(t, data)
	until(t, "saying why", func() bool {
		return strings.Contains(p.err.String(), "format version 99") && json.Valid([]byte(p.out.String()))
	})
	var said struct{ URL string }
	if err := json.Unmarshal([]byte(p.out.String()), &said); err != nil {
		t.Fatal(err)
	}
	p.base = said.URL
	until(t, "said by /readyz", func() bool {
		got, err := p.call("GET", "/readyz", nil)
		return err == nil && got.status == http.StatusServiceUnavailable && strings.Contains(string(got.body), "format version 99")
	})
	if got, _ := p.call("POST", "/retrieve", `{"query":"text"}`); got.status != http.StatusServiceUnavailable && got.status != http.StatusInternalServerError {
		t.Errorf("a query answers %d %s", got.status, got.body)
	}
	// The way out: the same recipe once more, from the log.
	p.replay("again", map[string]any{})
	p.must(nil, "POST", "/generations/again/promote", nil)
	if f := p.ask("text in the log", nil); len(f.Hits) != 1 || f.Hits[0].Document != "a" {
		t.Errorf("after the replay: %q", f.documents())
	}
}

func TestAddressesThatAreTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := taken.Addr().String()
	data := t.TempDir()
	fails(t, 1, []string{regexp.QuoteMeta(address), "taken", "--listen"}, "up", "--data", data, "--listen", address)
	fails(t, 2, []string{"can be reached from other machines", "127.0.0.1"}, "up", "--data", data, "--listen", "0.0.0.0:0")
	fails(t, 2, []string{"host:port"}, "up", "--data", data, "--listen", "8080")

	// The default port only moves on. Something holds it, unless the machine's own liverag does.
	if l, err := net.Listen("tcp", defaultConfig().Listen); err == nil {
		defer l.Close()
	}
	cmd := liverag(t, "up", "--json", "--data", data)
	out := &lockedBuffer{}
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := waitServing(data); err != nil {
		t.Fatal(err)
	}
	var said struct{ URL string }
	if err := json.Unmarshal([]byte(out.String()), &said); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(said.URL, "http://127.0.0.1:80") || strings.HasSuffix(said.URL, ":8080") {
		t.Errorf("the default moved on to %s", said.URL)
	}
	// Verbs find it by the data directory, without being told the port.
	if r := runs(t, "", "put", "a", "--text", "found by the directory", "--data", data); r.code != 0 {
		t.Errorf("put: %d %s", r.code, r.err)
	}
}

// TestARecipeThatCantBe: it is told before anything is said to be running, and once.
func TestARecipeThatCantBe(t *testing.T) {
	t.Parallel()
	for _, test := range [][]string{
		{`embedder\.model: "foo/bar": unknown provider`, "--embedder", "foo/bar"},
		{`hash wants a dimension`, "--embedder", "hash/99999"},
	} {
		r := fails(t, 1, test[:1], append([]string{"up", "--data", t.TempDir(), "--listen", "127.0.0.1:0"}, test[1:]...)...)
		if r.out != "" || len(regexp.MustCompile(test[0]).FindAllString(r.err, -1)) != 1 {
			t.Errorf("up %q prints %q, and on standard error %q", test[1:], r.out, r.err)
		}
	}
}

func TestATextTakenForAFile(t *testing.T) {
	t.Parallel()
	fails(t, 1, []string{"no such file", "--text"}, "put", "notes/a", "what is this", "--data", t.TempDir())
}

func TestABrokerThatIsDown(t *testing.T) {
	t.Parallel()
	r := fails(t, 1, []string{`127\.0\.0\.1:1\b`, "--kafka|kafka.brokers"}, "up", "--kafka", "127.0.0.1:1", "--data", t.TempDir(), "--listen", "127.0.0.1:0")
	t.Logf("after %s: %s", r.took.Round(time.Millisecond), r.err)
}
