package vectordbtest

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// at is a document of one chunk for each cosine to direction(0).
func at(key string, version int64, cosines ...float64) vectordb.Revision {
	var chunks []string
	for i := range cosines {
		chunks = append(chunks, fmt.Sprintf("%s chunk %d", key, i))
	}
	r := revision(key, version, chunks...)
	for i, c := range cosines {
		r.Entries[i].Vector = between(c)
	}
	return r
}

func testDenseOrder(s *suite) {
	if hits := s.search(vectordb.Query{Vector: direction(0)}); len(hits) != 0 {
		s.Errorf("an empty generation has %d hits", len(hits))
	}
	revisions := map[string]vectordb.Revision{}
	var all []vectordb.Revision
	for i := range 8 {
		r := at(fmt.Sprint("d", i), 1, 0.99-0.1*float64(i), -0.9+0.05*float64(i), 0.5-0.01*float64(i))
		revisions[r.Key] = r
		all = append(all, r)
	}
	s.apply(all...)
	zero := revision("zero", 1, "no content")
	zero.Entries[0].Vector = make([]float32, Dim)
	s.apply(zero)

	hits := s.search(vectordb.Query{Vector: direction(0), Depth: 100})
	if len(hits) != 24 {
		s.Fatalf("%d hits, want the 24 that have a direction", len(hits))
	}
	if err := checkOrder(hits); err != nil {
		s.Error(err)
	}
	for _, h := range hits {
		r := revisions[h.Key]
		if err := checkHit(h, r); err != nil {
			s.Error(err)
		}
		for _, e := range r.Entries {
			if e.Start == h.Entry.Start && math.Abs(h.Score-float64(e.Vector[0])) > 1e-6 {
				s.Errorf("%q: score %v, want the cosine %v", h.ID, h.Score, e.Vector[0])
			}
		}
	}
	for depth, want := range map[int]int{0: 10, 1: 1, 3: 3, 24: 24} {
		got := s.search(vectordb.Query{Vector: direction(0), Depth: depth})
		if len(got) != want {
			s.Errorf("depth %d: %d hits, want %d", depth, len(got), want)
			continue
		}
		for i := range got {
			if got[i].ID != hits[i].ID || got[i].Score != hits[i].Score {
				s.Errorf("depth %d: hit %d is %q (%v), want %q (%v)", depth, i, got[i].ID, got[i].Score, hits[i].ID, hits[i].Score)
			}
		}
	}
	if got := s.search(vectordb.Query{Vector: make([]float32, Dim)}); len(got) != 0 {
		s.Errorf("a query without a direction has %d hits", len(got))
	}
	if got := s.search(vectordb.Query{}); len(got) != 0 {
		s.Errorf("a query without a leg has %d hits", len(got))
	}
}

func testLexicalOrder(s *suite) {
	if !s.Lexical {
		_, err := s.store.Search(s.Context(), "g", vectordb.Query{Text: "anything"})
		s.wantError("a lexical query", err, vectordb.ErrUnsupported)
		return
	}
	if hits := s.search(vectordb.Query{Text: "anything"}); len(hits) != 0 {
		s.Errorf("an empty generation has %d hits", len(hits))
	}
	s.apply(
		revision("a", 1, "refund refund policy", "shipping takes three days"),
		revision("b", 1, "the refunds were late and the customer asked about a refund for the second time this year"),
		revision("c", 1, "call http.ListenAndServe in main", "nothing of interest"),
		revision("d", 1, "検索エンジンの設計"),
	)
	hits := s.search(vectordb.Query{Text: "Refund"})
	if len(hits) != 2 || hits[0].Key != "a" || hits[1].Key != "b" {
		s.Errorf("refund finds %q", keys(hits))
	}
	// By hand: six chunks, two of them with the term.
	chunks := []string{
		"refund refund policy", "shipping takes three days", "the refunds were late and the customer asked about a refund for the second time this year",
		"call http.ListenAndServe in main", "nothing of interest", "検索エンジンの設計",
	}
	total := 0
	for _, c := range chunks {
		total += len(vectordb.AppendTerms(nil, c))
	}
	average := float64(total) / 6
	want := vectordb.BM25(2, 3, average, 2, 6)
	if len(hits) > 0 && math.Abs(hits[0].Score-want) > 1e-6 {
		s.Errorf("the first has score %v, want %v", hits[0].Score, want)
	}
	twice := s.search(vectordb.Query{Text: "refund refunds"})
	if len(twice) != 2 || math.Abs(twice[0].Score-2*want) > 1e-6 {
		s.Errorf("a term that stands twice does not count twice: %v, want %v", twice, 2*want)
	}
	for text, want := range map[string][]string{
		"listen":              {"c"},
		"ListenAndServe":      {"c"},
		"http.ListenAndServe": {"c"},
		"エンジン":                {"d"},
		"refund main":         {"a", "b", "c"},
		"the of and":          {},
		"...":                 {},
		"unheardof":           {},
		"shipped day":         {"a"},
	} {
		s.wantKeys(s.search(vectordb.Query{Text: text}), want...)
	}
	if hits := s.search(vectordb.Query{Text: "refund", Depth: 1}); len(hits) != 1 || hits[0].Key != "a" {
		s.Errorf("depth 1 gives %d hits", len(hits))
	}
}

// N, df and average length count the chunks of the tenant's live documents and nothing else: no other tenant, nothing deleted or replaced, but
// documents that the caller may not read.
func testLexicalStatistics(s *suite) {
	if !s.Lexical {
		s.Skip("this store has no lexical leg")
	}
	scores := func(tenant string) []float64 {
		s.Helper()
		var list []float64
		for _, h := range s.search(vectordb.Query{Text: "apple pie", Tenant: tenant, Depth: 100}) {
			list = append(list, h.Score)
		}
		if len(list) == 0 {
			s.Fatal("nothing found")
		}
		return list
	}
	same := func(what string, got, want []float64) {
		s.Helper()
		if len(got) != len(want) {
			s.Errorf("%s: %d scores, want %d", what, len(got), len(want))
			return
		}
		for i := range got {
			if math.Abs(got[i]-want[i]) > 1e-9 {
				s.Errorf("%s: score %d is %v, want %v", what, i, got[i], want[i])
			}
		}
	}
	s.apply(revision("a", 1, "apple pie", "apple tart"), revision("b", 1, "banana bread with walnuts"), revision("t\x1fa", 1, "apple pie with cream", "pear"))
	none, tenant := scores(""), scores("t")

	s.apply(revision("t\x1fb", 1, "apple apple apple", "apple of a tenant", "pie"))
	same("another tenant's documents weigh in", scores(""), none)
	s.apply(deletion("t\x1fb", 2))
	same("a deleted document weighs in", scores("t"), tenant)
	for v := range int64(20) {
		s.apply(revision("b", 2+v, "apple pie apple pie", "apple"))
	}
	s.apply(revision("b", 30, "banana bread with walnuts"))
	same("replaced revisions weigh in", scores(""), none)
	s.apply(revision("late", 1), revision("late", 1, "apple pie"), access("late", 1, "nobody else"))
	same("an empty document or one without content weighs in", scores(""), none)

	hidden := revision("hidden", 1, "apple juice")
	hidden.ACL = []string{"alice"}
	s.apply(hidden)
	// By hand: 4 chunks of 2, 2, 3 and 2 terms; apple in 3 of them, pie in 1. Who reads does not change what a word weighs.
	length := len(vectordb.AppendTerms(nil, "apple pie apple tart banana bread with walnuts apple juice"))
	average := float64(length) / 4
	apple, pie := vectordb.BM25(1, 2, average, 3, 4), vectordb.BM25(1, 2, average, 1, 4)
	same("a document the caller may not read", scores(""), []float64{apple + pie, apple})
	if s.Reopen != nil {
		s.reopen()
		same("after a restart", scores(""), []float64{apple + pie, apple})
		same("of a tenant after a restart", scores("t"), tenant)
	}
}

// Equal scores stand in the order of key, start, end.
func testTies(s *suite) {
	var revisions []vectordb.Revision
	for _, key := range []string{"m", "b", "z", "a", "k\x1f", "ä"} {
		r := revision(key, 1, "equal words", "equal words", "equal words")
		r.Tenant = ""
		r.Entries[2].Start = r.Entries[1].Start
		for i := range r.Entries {
			r.Entries[i].Vector = direction(2)
		}
		revisions = append(revisions, r)
	}
	s.apply(revisions[3:]...)
	s.apply(revisions[:3]...)
	legs := map[string]vectordb.Query{"dense": {Vector: direction(2)}}
	if s.Lexical {
		// Of one length, but for the span that holds two of them.
		legs["lexical"] = vectordb.Query{Text: "words"}
	}
	for name, q := range legs {
		for _, depth := range []int{18, 7, 1, 100} {
			q.Depth = depth
			hits := s.search(q)
			if len(hits) != min(depth, 18) {
				s.Errorf("%s, depth %d: %d hits", name, depth, len(hits))
			}
			if err := checkOrder(hits); err != nil {
				s.Errorf("%s, depth %d: %v", name, depth, err)
			}
		}
	}
}

func testFuse(s *suite) {
	s.apply(
		at("a", 1, 0.9, 0.1), at("b", 1, 0.8), at("c", 1, 0.7),
		revision("words", 1, "lexical only words here"),
	)
	calls := 0
	q := vectordb.Query{Vector: direction(0), Depth: 3}
	q.Fuse = func(dense, lexical []vectordb.Candidate) []vectordb.Candidate {
		calls++
		if len(dense) != 3 || len(lexical) != 0 {
			s.Errorf("Fuse got %d and %d candidates, want 3 and 0", len(dense), len(lexical))
		}
		for i, want := range []string{"a", "b", "c"} {
			if i < len(dense) && dense[i].Key != want {
				s.Errorf("candidate %d is of %q, want %q", i, dense[i].Key, want)
			}
		}
		slices.Reverse(dense)
		for i := range dense {
			dense[i].Score = 100 - float64(i)
		}
		return dense[:2]
	}
	hits := s.search(q)
	if calls != 1 {
		s.Errorf("Fuse was called %d times", calls)
	}
	if len(hits) != 2 || hits[0].Key != "c" || hits[0].Score != 100 || hits[1].Key != "b" || hits[1].Score != 99 {
		s.Errorf("the answer is not Fuse's: %v", hits)
	}
	q.Fuse = func(dense, lexical []vectordb.Candidate) []vectordb.Candidate { return nil }
	if hits := s.search(q); len(hits) != 0 {
		s.Errorf("%d hits though Fuse returned none", len(hits))
	}
	if !s.Lexical {
		return
	}
	calls = 0
	q.Text = "chunk words"
	q.Depth = 10
	q.Fuse = func(dense, lexical []vectordb.Candidate) []vectordb.Candidate {
		calls++
		if len(dense) != 5 || len(lexical) != 5 {
			s.Errorf("Fuse got %d and %d candidates, want 5 and 5", len(dense), len(lexical))
		}
		// The legs name the same chunks.
		byEntry := map[uint64]string{}
		for _, c := range dense {
			byEntry[c.Entry] = c.Key
		}
		if len(byEntry) != len(dense) {
			s.Errorf("%d names for %d chunks", len(byEntry), len(dense))
		}
		for _, c := range lexical {
			if byEntry[c.Entry] != c.Key {
				s.Errorf("entry %d is of %q in one leg and of %q in the other", c.Entry, byEntry[c.Entry], c.Key)
			}
			if c.Score <= 0 {
				s.Errorf("BM25 of %q is %v", c.Key, c.Score)
			}
		}
		return lexical
	}
	s.wantKeys(s.search(q), "a", "b", "c", "words")
	if calls != 1 {
		s.Errorf("Fuse was called %d times", calls)
	}
	q.Vector = nil
	q.Fuse = func(dense, lexical []vectordb.Candidate) []vectordb.Candidate {
		if len(dense) != 0 || len(lexical) != 5 {
			s.Errorf("Fuse got %d and %d candidates, want 0 and 5", len(dense), len(lexical))
		}
		return lexical[:1]
	}
	if hits := s.search(q); len(hits) != 1 {
		s.Errorf("%d hits, want the one that Fuse returned", len(hits))
	}
}

// library is a corpus with all kinds of fields, and filters that ask for them.
func library() []vectordb.Revision {
	var all []vectordb.Revision
	for i := range 60 {
		r := revision(fmt.Sprintf("kb/doc-%02d", i), 1, fmt.Sprintf("common words of document %d", i), "common second chunk")
		r.UpdatedAt = day.Add(time.Duration(i)*time.Hour + 123*time.Microsecond)
		r.Metadata = map[string]any{"year": float64(2000 + i%20), "team": []string{"billing", "search", "infra"}[i%3], "draft": i%2 == 0, "n": float64(i)}
		if i%4 == 0 {
			r.URL = fmt.Sprintf("https://example.com/%d", i)
		}
		if i%5 == 0 {
			r.ContentType = "text/markdown"
		}
		if i%3 != 0 {
			r.Metadata["lang"] = []string{"en", []string{"de", "fr", "日本"}[i%3]}
		}
		if i%7 == 0 {
			r.Metadata["mixed"] = float64(i)
		} else if i%7 == 1 {
			r.Metadata["mixed"] = fmt.Sprint(i)
		} else if i%7 == 2 {
			r.Metadata["mixed"] = true
		}
		if i%9 == 0 {
			r.Metadata = nil
		}
		all = append(all, r)
	}
	return all
}

var filters = []string{
	`{}`,
	`{"team":"billing"}`, `{"team":"nobody"}`, `{"team":{"$ne":"billing"}}`, `{"year":2003}`, `{"year":"2003"}`, `{"year":{"$gt":2010}}`, `{"year":{"$gte":2010}}`,
	`{"year":{"$lt":2010}}`, `{"year":{"$lte":2010}}`, `{"year":{"$gte":2005,"$lt":2007}}`, `{"team":{"$gt":"billing"}}`, `{"team":{"$lte":"infra"}}`, `{"team":{"$gt":5}}`,
	`{"draft":true}`, `{"draft":false}`, `{"draft":{"$ne":true}}`, `{"draft":"true"}`, `{"draft":1}`,
	`{"lang":"de"}`, `{"lang":"日本"}`, `{"lang":{"$ne":"en"}}`, `{"lang":{"$in":["fr","de"]}}`, `{"lang":{"$nin":["fr","de"]}}`, `{"lang":{"$gt":"a"}}`, `{"lang":{"$exists":false}}`, `{"lang":{"$exists":true}}`,
	`{"year":{"$in":[2001,2002,"2003"]}}`, `{"year":{"$nin":[2001,2002]}}`, `{"year":{"$in":[]}}`, `{"year":{"$nin":[]}}`, `{"n":{"$in":[1,2,3,4,5,6,7,8,9,10,11,12,"x",true]}}`,
	`{"mixed":{"$exists":true}}`, `{"mixed":{"$gte":0}}`, `{"mixed":{"$gte":"0"}}`, `{"mixed":true}`, `{"mixed":{"$ne":true}}`, `{"mixed":{"$in":[true,7,"8"]}}`,
	`{"@id":"kb/doc-07"}`, `{"@id":{"$gte":"kb/doc-50"}}`, `{"@id":{"$in":["kb/doc-01","kb/doc-02","x"]}}`, `{"@id":{"$ne":"kb/doc-07"}}`,
	`{"@url":{"$exists":true}}`, `{"@url":{"$exists":false}}`, `{"@url":"https://example.com/8"}`, `{"@url":{"$lt":"https://example.com/2"}}`,
	`{"@content_type":"text/markdown"}`, `{"@content_type":{"$in":["text/markdown","text/html"]}}`,
	`{"@updated_at":{"$gt":"2026-03-02T00:00:00Z"}}`, `{"@updated_at":{"$lte":"2026-03-02T13:00:00.000123+01:00"}}`, `{"@updated_at":"2026-03-01T12:00:00.000123Z"}`, `{"@updated_at":{"$ne":"2026-03-01T12:00:00.000123Z"}}`,
	`{"team":"billing","draft":true,"year":{"$gt":2005}}`, `{"$or":[{"team":"billing"},{"year":2004}]}`, `{"$and":[{"team":"billing"},{"$or":[{"draft":true},{"lang":"de"}]}]}`,
	`{"$not":{"team":"billing"}}`, `{"$not":{"team":"billing","draft":true}}`, `{"$not":{"$or":[{"team":"billing"},{"year":{"$lt":2010}}]}}`, `{"year":{"$not":{"$gt":2010}}}`, `{"$not":{}}`, `{"nothing":{"$exists":false}}`,
}

func testFilters(s *suite) {
	all := library()
	s.apply(all...)
	for _, text := range filters {
		f, err := vectordb.ParseFilter([]byte(text))
		if err != nil {
			s.Fatalf("%s: %v", text, err)
		}
		var want []string
		for i := range all {
			if f.Match(&all[i]) {
				want = append(want, all[i].Key)
			}
		}
		legs := map[string]vectordb.Query{"dense": {Vector: direction(1)}}
		if s.Lexical {
			legs["lexical"] = vectordb.Query{Text: "common"}
		}
		for name, q := range legs {
			q.Filter, q.Depth = f, 1000
			hits := s.search(q)
			if got := keys(hits); !slices.Equal(got, want) || len(hits) != 2*len(want) {
				s.Errorf("%s, %s: %d hits in %q\nwant both chunks of %q", text, name, len(hits), got, want)
			}
			// The filter comes before the ranking: a shallow search is as full as it can be.
			q.Depth = 3
			if hits := s.search(q); len(hits) != min(3, 2*len(want)) {
				s.Errorf("%s, %s: %d hits at depth 3, where %d chunks pass", text, name, len(hits), 2*len(want))
			}
		}
	}
}

func testReaders(s *suite) {
	with := func(key string, acl ...string) vectordb.Revision {
		r := revision(key, 1, "shared words of "+key)
		r.ACL = acl
		return r
	}
	s.apply(
		with("open"), with("alice", "alice"), with("both", "alice", "bob"), with("group", "group:x"), with("nobody", []string{}...),
		with("t\x1fopen"), with("t\x1falice", "alice"), with("u\x1fopen"),
	)
	nobody := revision("nobody", 2, "shared words")
	nobody.ACL = []string{}
	s.apply(nobody)
	check := func(tenant string, principals []string, want ...string) {
		s.Helper()
		s.wantKeys(s.everything(tenant, principals...), want...)
		if s.Lexical {
			s.wantKeys(s.search(vectordb.Query{Text: "shared", Depth: 100, Tenant: tenant, Principals: principals}), want...)
		}
		// A caller's reach comes before the ranking, as a filter does.
		if hits := s.search(vectordb.Query{Vector: direction(0), Depth: 1, Tenant: tenant, Principals: principals}); len(hits) != min(1, len(want)) {
			s.Errorf("tenant %q, %q: %d hits at depth 1", tenant, principals, len(hits))
		}
	}
	check("", nil, "open")
	check("", []string{"alice"}, "open", "alice", "both")
	check("", []string{"bob", "group:x"}, "open", "both", "group")
	check("", []string{"Alice", ""}, "open")
	check("t", nil, "t\x1fopen")
	check("t", []string{"alice"}, "t\x1fopen", "t\x1falice")
	check("u", []string{"alice"}, "u\x1fopen")
	check("v", []string{"alice"})
	s.apply(access("open", 1, "bob"), access("alice", 1), access("nobody", 1, "carol"), access("t\x1falice", 1, "bob"))
	check("", nil)
	check("", []string{"alice"}, "both")
	check("", []string{"bob"}, "open", "both")
	check("", []string{"carol"}, "nobody")
	check("t", []string{"alice"}, "t\x1fopen")
	check("t", []string{"bob"}, "t\x1fopen", "t\x1falice")
	s.apply(accessCleared("open", 2), accessCleared("alice", 2), accessCleared("nobody", 2))
	check("", nil, "open")
	check("", []string{"alice", "carol"}, "open", "alice", "both")

	// A new version may move to another tenant; the old one's callers lose it.
	moved := revision("open", 2, "shared words moved")
	moved.Tenant = "t"
	s.apply(moved)
	check("", nil)
	check("t", nil, "open", "t\x1fopen")
}
