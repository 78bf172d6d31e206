package milvus

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/liverag/liverag/vectordb"
)

func newGeneration(dim int, sparse bool) *generation {
	return &generation{about: vectordb.Generation{Name: "g", Dim: dim}, sparse: sparse}
}

// Whatever the text and the spans, the rows fit the server's fields and give the document back.
func TestRowsGiveTheDocumentBack(t *testing.T) {
	g := newGeneration(3, true)
	texts := map[string]string{
		"empty":       "",
		"short":       "one two three",
		"nul":         "a\x00b\ufeff😀",
		"no UTF-8":    "ab\xff\xfe" + strings.Repeat("\x80", 100_000) + "end",
		"many bytes":  strings.Repeat("日本語 ", 30_000),
		"megabytes":   strings.Repeat("abcdefghij", 800_000),
		"a long line": strings.Repeat("x", 2*maxPiece+1),
	}
	r := rand.New(rand.NewPCG(3, 4))
	for name, text := range texts {
		for _, entries := range []int{0, 1, 2, 7} {
			rev := vectordb.Revision{Key: "t\x1fkey", Version: 7, Text: text, Title: "T", Metadata: map[string]any{"n": 1.0, "l": []string{}}}
			for range entries {
				a, b := r.IntN(len(text)+1), r.IntN(len(text)+1)
				rev.Entries = append(rev.Entries, vectordb.Entry{Start: min(a, b), End: max(a, b), Tokens: r.IntN(100), Vector: []float32{float32(a), 1, 0}, Hash: vectordb.Hash{byte(r.IntN(2))}})
			}
			slices.SortFunc(rev.Entries, func(a, b vectordb.Entry) int {
				if a.Start != b.Start {
					return a.Start - b.Start
				}
				return a.End - b.End
			})
			rows, h, err := g.encode(&rev, 12, time.UnixMicro(13))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(rows) != h.Rows || rows[0].head == "" || rows[0].document != numberOf(document(rev.Key)) {
				t.Fatalf("%s: %d rows, the head says %d", name, len(rows), h.Rows)
			}
			stored := map[string]storedRow{}
			repeats := map[vectordb.Hash]int{}
			for i := range rows {
				x := &rows[i]
				if len(x.text) > maxVarchar || !utf8.ValidString(x.text) {
					t.Fatalf("%s: row %d has a text of %d bytes that the server would refuse", name, i, len(x.text))
				}
				if i > 0 && (x.document != 0 || x.keyHex != "" || x.head != "") {
					t.Fatalf("%s: row %d looks like a head", name, i)
				}
				c, err := decodeText(x.text)
				if err != nil {
					t.Fatal(err)
				}
				if c.entry != nil {
					if own, ok := c.own(); ok && own != text[c.entry.Start:c.entry.End] || !ok && c.entry.End-c.entry.Start < maxPiece-4 && i > 0 {
						t.Fatalf("%s: row %d: the chunk's own text is not in its row", name, i)
					}
					if c.repeat != repeats[c.entry.Hash] {
						t.Fatalf("%s: row %d is repeat %d, want %d", name, i, c.repeat, repeats[c.entry.Hash])
					}
					repeats[c.entry.Hash]++
				}
				stored[x.key] = storedRow{c, x.vector}
			}
			got := vectordb.Revision{Key: rev.Key}
			if !h.join(&got, stored) {
				t.Fatalf("%s: rows are missing", name)
			}
			if got.Text != text || !reflect.DeepEqual(got.Entries, rev.Entries) {
				t.Fatalf("%s, %d entries: the document came back changed", name, entries)
			}
			delete(stored, rows[len(rows)-1].key)
			if h.join(&vectordb.Revision{}, stored) {
				t.Fatalf("%s: a row is gone and nothing noticed", name)
			}
		}
	}
}

func TestRowKeys(t *testing.T) {
	doc := document("any key\x1f\"'%")
	for _, at := range []stamp{{0, 5}, {1, 0}, {1<<40 + 7, 3}} {
		key := rowKey(doc, at, 12)
		gotDoc, got, ordinal, err := parseRowKey(key)
		if err != nil || gotDoc != doc || got != at || ordinal != 12 {
			t.Errorf("%s: %v %v %v %v", key, gotDoc, got, ordinal, err)
		}
	}
	for _, bad := range []string{"", "a/b", doc + "/1/2/x", doc + "/1/2/3/4"} {
		if _, _, _, err := parseRowKey(bad); !errors.Is(err, vectordb.ErrCorrupt) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzDecodeText(f *testing.F) {
	f.Add("t 0\nabc")
	f.Add("b 3 1 2 3 00112233445566778899aabbccddeeff 4\nYQ==")
	f.Add("t 1 9 2 3 00112233445566778899aabbccddeeff 4\n")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := decodeText(s)
		if err != nil {
			if !errors.Is(err, vectordb.ErrCorrupt) {
				t.Errorf("%v", err)
			}
			return
		}
		if c.entry != nil {
			c.own()
		}
		again, err := decodeText(encodeText(c.entry, c.repeat, c.at, c.text))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%q became %+v, then %+v, %v", s, c, again, err)
		}
	})
}

// What Milvus can't hold is refused before anything is written, with words that say which part of the document it is.
func TestRefusedDocuments(t *testing.T) {
	many := make([]string, maxTags+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for want, r := range map[string]vectordb.Revision{
		"key":             {Key: strings.Repeat("k", 40_000), Version: 1},
		"is not UTF-8":    {Key: "a\xff", Version: 1},
		"title":           {Key: "a", Version: 1, Title: "\xff"},
		"title, URL":      {Key: "a", Version: 1, Title: strings.Repeat("t", 70_000)},
		"metadata is not": {Key: "a", Version: 1, Metadata: map[string]any{"x": []string{"\xff"}}},
		"filter by":       {Key: "a", Version: 1, Metadata: map[string]any{"x": many}},
		"access list":     {Key: "a", Access: vectordb.Access{Version: 1, ACL: []string{strings.Repeat("p", 70_000)}}},
	} {
		_, _, err := newGeneration(3, false).encode(&r, 0, time.Now())
		if !errors.Is(err, vectordb.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want ErrInvalid with %q", err, want)
		}
	}
}

// A document that fits a request is never divided; where one has to be, its head comes last, and so it does in every half of a request.
func TestRequests(t *testing.T) {
	g := newGeneration(4, false)
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var q request
		want := map[string]bool{}
		const limit = 20_000
		for d := range 1 + r.IntN(20) {
			rev := vectordb.Revision{Key: fmt.Sprint(d), Version: 1}
			for i := range r.IntN(30) {
				rev.Text += strings.Repeat("w", r.IntN(3000))
				rev.Entries = append(rev.Entries, vectordb.Entry{Start: len(rev.Text), End: len(rev.Text), Vector: []float32{1, 0, 0, float32(i)}})
			}
			rows, _, err := g.encode(&rev, 0, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for i := range rows {
				want[rows[i].key] = true
			}
			q.add(rows)
		}
		seen := map[string]int{} // how many rows of a document
		requestsOf := map[string]map[int]bool{}
		sizeOf := map[string]int{}
		for n, rows := range q.cut(limit) {
			size := 0
			for i := range rows {
				doc, _, ordinal, err := parseRowKey(rows[i].key)
				if err != nil {
					t.Fatal(err)
				}
				if !want[rows[i].key] {
					t.Fatalf("row %s is there twice", rows[i].key)
				}
				delete(want, rows[i].key)
				if requestsOf[doc] == nil {
					requestsOf[doc] = map[int]bool{}
				}
				requestsOf[doc][n] = true
				seen[doc]++
				size += rows[i].size()
				sizeOf[doc] += rows[i].size()
				if ordinal == 0 {
					seen[doc] = -1 << 30 // anything after it would show
				} else if seen[doc] < 0 {
					t.Fatalf("row %s comes after its head", rows[i].key)
				}
			}
			if size > limit && len(rows) > 1 {
				t.Fatalf("a request of %d bytes", size)
			}
		}
		if len(want) > 0 {
			t.Fatalf("%d rows are in no request", len(want))
		}
		for doc, in := range requestsOf {
			if len(in) > 1 && sizeOf[doc] <= limit {
				t.Fatalf("a document of %d bytes is in %d requests", sizeOf[doc], len(in))
			}
		}
	}
}

// The newest content and the newest access of a document are what heads tell, in whatever order they were written and read.
func TestStateOfCrossedWriters(t *testing.T) {
	heads := []head{
		{doc: "d", stamp: stamp{1, 0}, headJSON: headJSON{Rows: 2}},
		{doc: "d", stamp: stamp{1, 4}, headJSON: headJSON{Rows: 2, Access: []string{"alice"}}},
		{doc: "d", stamp: stamp{2, 3}, headJSON: headJSON{Rows: 3, Clear: true}},
	}
	for range 20 {
		rand.Shuffle(len(heads), func(i, j int) { heads[i], heads[j] = heads[j], heads[i] })
		states := map[string]*state{}
		for _, h := range append(slices.Clone(heads), heads[0]) {
			put(states, h)
		}
		st := states["d"]
		if got := st.current().stamp; got != (stamp{2, 3}) {
			t.Fatalf("current is %v", got)
		}
		if a := st.access(); a.Version != 4 || a.Clear || !slices.Equal(a.ACL, []string{"alice"}) {
			t.Fatalf("access is %+v", a)
		}
		if n := len(st.superseded()); n != 4 {
			t.Fatalf("%d rows superseded, want 4", n)
		}
	}
	var none *state
	if none.current() != nil || none.version() != 0 || none.access().Version != 0 {
		t.Error("a document that is not there has a state")
	}
}

func TestMergeOfAWrite(t *testing.T) {
	got := merge([]vectordb.Revision{
		{Key: "a", Version: 2}, {Key: "b", Access: vectordb.Access{Version: 1}}, {Key: "a", Version: 5}, {Key: "a", Version: 3, Access: vectordb.Access{Version: 9}}, {Key: "c"},
		{Key: "a", Version: 5, Text: "of the same version, and later"},
	})
	if len(got) != 2 || got[0].key != "a" || got[0].content.Version != 5 || got[0].content.Text != "" || got[0].access.Version != 9 || got[1].content != nil {
		t.Errorf("%+v", got)
	}
}

// The inner product of what is stored and what is asked is BM25, for chunks among chunks of the assumed length.
func TestTermsMultiplyToBM25(t *testing.T) {
	text := "refund policy: refunds are paid within three days of the refund request"
	positions, weights := termWeights(text)
	if !slices.IsSorted(positions) || len(slices.Compact(slices.Clone(positions))) != len(positions) || len(weights) != len(positions) {
		t.Fatalf("positions %v", positions)
	}
	l := &lexicalStats{chunks: 50, sampled: 50, average: assumedLength, df: map[string]int{"refund": 4, "polici": 9}}
	query := vectordb.AppendTerms(nil, "refund policy unheard")
	e, err := l.queryWeights(query)
	if err != nil {
		t.Fatal(err)
	}
	product := 0.0
	for i := range e.Len() {
		p, w, _ := e.Get(i)
		if at, ok := slices.BinarySearch(positions, p); ok {
			product += float64(w) * float64(weights[at])
		}
	}
	want, found := l.score(query, text)
	if !found || want == 0 {
		t.Fatal("nothing found")
	}
	// One occurrence in a chunk without a length weighs 1/(1+K1(1-B)).
	if got := product * (1 + vectordb.K1*(1-vectordb.B)); got/want > 1.001 || got/want < 0.999 {
		t.Errorf("inner product %v, BM25 %v", got, want)
	}
	if _, found := l.score(query, "nothing of it"); found {
		t.Error("a text without a term of the query is found")
	}
	// Beyond the sample: rarer than what it has once.
	l.chunks = 5000
	if f := l.frequency("refund"); f != 400 {
		t.Errorf("a term in 4 of 50 is thought to be in %d of 5000", f)
	}
	if f := l.frequency("unheard"); f != 50 {
		t.Errorf("a term in none of 50 is thought to be in %d of 5000", f)
	}
}
