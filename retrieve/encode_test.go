package retrieve

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
)

func contextCanceled(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx, cancel
}

func FuzzString(f *testing.F) {
	for _, s := range []string{"", "plain", "a\"b\\c\n\r\t\x00\x1f\x7f", "<img onerror=x>&", "ä€😀\u2028\u2029", "\xff\xc3(\xe2\x82", strings.Repeat("x", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: %v: %s", s, err, b)
		}
		if want := strings.ToValidUTF8(s, "\ufffd"); strings.ReplaceAll(got, "\ufffd", "") != strings.ReplaceAll(want, "\ufffd", "") {
			t.Errorf("got %q, want %q", got, want)
		}
		if strings.ContainsAny(string(b), "<>&\u2028\u2029") {
			t.Errorf("%s can end a script", b)
		}
	})
}

func TestNumber(t *testing.T) {
	for f, want := range map[float64]string{0: "0", 0.031: "0.031", 2026: "2026", -1.5: "-1.5", 1e-9: "1e-09", 1e300: "1e+300", 1e20: "100000000000000000000", math.Inf(1): "null", math.NaN(): "null"} {
		if got := string(appendNumber(nil, f)); got != want || !json.Valid([]byte(got)) {
			t.Errorf("%g: got %s, want %s", f, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: `"0s"`, 870400 * time.Nanosecond: `"870µs"`, 4123456 * time.Nanosecond: `"4.1ms"`, 38400 * time.Microsecond: `"38ms"`,
		1234567 * time.Microsecond: `"1.23s"`, 2*time.Hour + 1234567: `"2h0m0s"`, -38400 * time.Microsecond: `"-38ms"`,
	} {
		got := string(appendDuration(nil, d))
		if got != want {
			t.Errorf("%d: got %s, want %s", d, got, want)
		}
		if _, err := time.ParseDuration(strings.Trim(got, `"`)); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{`{"query":"x"}`, `{"query":"x","k":3,"filter":{"a":{"$in":["b",1,true]}},"after":["t"],"wait":"1s","max_staleness":"1s","strict":true}`, `{"query"`, `[]`, `{"a":{"b":[1,{}]}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := ParseRequest(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Errorf("took what is not JSON: %q", data)
		}
		if err := q.check(); err != nil {
			t.Error(err)
		}
	})
}

// discard is a ResponseWriter that costs nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// canned answers every search at once with the same candidates and hits, so that what is measured is the handler.
type canned struct {
	dense, lexical []vectordb.Candidate
	hits           []vectordb.Hit
}

func (c *canned) Search(ctx context.Context, generation string, q vectordb.Query) ([]vectordb.Hit, error) {
	out := q.Fuse(c.dense, c.lexical)
	hits := make([]vectordb.Hit, len(out))
	for i := range hits {
		hits[i] = c.hits[i]
		hits[i].Score = out[i].Score
	}
	return hits, nil
}

func (c *canned) Current(context.Context, string, []string) ([]vectordb.Revision, error) {
	return nil, vectordb.ErrNoGeneration
}

func BenchmarkRetrieve(b *testing.B) {
	s := &canned{}
	text := strings.Repeat("Refunds are paid within \"five\" days of the return. ", 16)
	for i := range 50 {
		s.dense = append(s.dense, vectordb.Candidate{Entry: uint64(i), Key: fmt.Sprint("doc", i), Score: 1 - float64(i)/100})
		s.lexical = append(s.lexical, vectordb.Candidate{Entry: uint64(25 + i), Key: fmt.Sprint("doc", 25+i), Score: 30 - float64(i)/3})
		r := revision(fmt.Sprint("doc", i), text, int64(i))
		s.hits = append(s.hits, vectordb.Hit{Revision: r, ID: vectordb.EntryID(r.Key, r.Entries[0].Hash, 0), Entry: r.Entries[0], Text: text})
	}
	_, n := newTiny()
	e := serve(b, s, n)
	body := `{"query":"how are refunds paid?","k":8}`
	r := httptest.NewRequest("POST", "/retrieve", nil)
	reader := strings.NewReader(body)
	r.Body = io.NopCloser(reader)
	w := discard{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		e.ServeHTTP(w, r)
	}
}
