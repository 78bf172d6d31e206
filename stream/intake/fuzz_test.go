package intake

import (
	"bufio"
	"io"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/liverag/liverag/stream"
)

// Every id that may name a document arrives as it is, percent-encoded whole, or all but its slashes.
func FuzzID(f *testing.F) {
	for _, id := range []string{"a", ".", "..", "a/../b", "//", "%", "%2F", "a?b#c", "+ &", "ä€😀", `\`, ";=", strings.Repeat("/", 1024)} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		if stream.CheckID(id) != nil {
			return
		}
		whole := url.PathEscape(id)
		for _, escaped := range []string{whole, strings.ReplaceAll(whole, "%2F", "/")} {
			l := &log{}
			w := httptest.NewRecorder()
			serve(t, l).ServeHTTP(w, httptest.NewRequest("PUT", "/documents/"+escaped, strings.NewReader(`{"text":"x"}`)))
			if w.Code != 202 || len(l.changes) != 1 || l.changes[0].ID != id {
				t.Fatalf("%q as %s: got %d %s, %+v", id, escaped, w.Code, w.Body, l.changes)
			}
		}
	})
}

// Lines are those of the body, except that one over the limit is only said to be.
func FuzzLines(f *testing.F) {
	f.Add("a\nbb\n\nccc", 2)
	f.Add(strings.Repeat("x", 100)+"\n"+strings.Repeat("y", 17), 20)
	f.Add("\n", 0)
	f.Fuzz(func(t *testing.T, body string, limit int) {
		limit = max(0, limit%200)
		var got []string
		lines := lineReader{r: bufio.NewReaderSize(strings.NewReader(body), 16), limit: limit}
		for {
			line, tooLong, err := lines.next()
			if tooLong {
				got = append(got, "too long")
			} else {
				got = append(got, string(line))
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		want := strings.SplitAfter(body, "\n")
		for i, line := range want {
			if len(line) > limit {
				want[i] = "too long"
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
