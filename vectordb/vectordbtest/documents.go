package vectordbtest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// rich is a document with everything a document can have.
func rich() vectordb.Revision {
	r := revision("acme\x1fkb/refunds & more.md", 1<<40+7, "Grüße, 世界", "a second chunk", "третий")
	r.ContentType, r.Title, r.URL = "text/markdown", "Über \"Refunds\"", "https://example.com/a?b=c&d"
	r.UpdatedAt = time.Date(2026, 1, 2, 3, 4, 5, 123456789, time.FixedZone("", 3600))
	r.LoggedAt = time.Date(2026, 1, 2, 3, 4, 6, 999, time.UTC)
	r.Metadata = map[string]any{
		"team": "billing", "year": 2024.0, "ratio": -0.125, "huge": 1e300, "draft": false, "public": true, "lang": []string{"en", "de"}, "none": []string{},
		"": "empty name", "a.b": "dot", "$x": "dollar", "naïve": "日本", "quote\"": "\\ \n\x00",
	}
	r.ACL = []string{"group:a", "user:b"}
	r.Access = vectordb.Access{Version: 3, ACL: []string{"user:c"}}
	return r
}

func testRoundTrip(s *suite) {
	before := time.Now().Add(-time.Second)
	full := rich()
	full.SearchableAt = day // ignored
	nobody := revision("nobody", 2, "x")
	nobody.ACL = []string{}
	nobody.UpdatedAt, nobody.LoggedAt = time.Time{}, time.Time{}
	bare := vectordb.Revision{Key: "bare", Version: 3}
	s.apply(full, nobody, bare, deletion("gone", 4))
	for _, want := range []vectordb.Revision{full, nobody, bare, deletion("gone", 4), {Key: "never"}} {
		s.wantCurrent(want)
	}
	after := time.Now().Add(time.Minute)
	if at := s.current(full.Key).SearchableAt; at.Before(before) || at.After(after) {
		s.Errorf("SearchableAt is %v, want the time of the write", at)
	}

	asked := []string{"never", "bare", full.Key, "bare", "gone"}
	got, err := s.store.Current(s.Context(), "g", asked)
	if err != nil || len(got) != len(asked) {
		s.Fatalf("Current: %d revisions, %v", len(got), err)
	}
	for i, r := range got {
		if r.Key != asked[i] {
			s.Errorf("Current has %q at %d, want %q", r.Key, i, asked[i])
		}
	}
	if got, err := s.store.Current(s.Context(), "g", nil); err != nil || len(got) != 0 {
		s.Errorf("Current of nothing: %v, %v", got, err)
	}
	for _, h := range s.everything("acme", "user:c") {
		if err := checkHit(h, full); err != nil {
			s.Error(err)
		}
	}
}

func testCopies(s *suite) {
	in, want := rich(), rich()
	s.apply(in)
	in.Metadata["team"], in.ACL[0], in.Access.ACL[0] = "changed", "changed", "changed"
	in.Metadata["lang"].([]string)[0] = "changed"
	for i := range in.Entries {
		in.Entries[i].Vector[0] = 9
		in.Entries[i].Start, in.Entries[i].Hash = 0, vectordb.Hash{}
	}
	s.wantCurrent(want)
	for range 2 {
		hits := s.everything("acme", "user:c")
		if len(hits) != 3 {
			s.Fatalf("%d hits", len(hits))
		}
		for _, h := range hits {
			if err := checkHit(h, want); err != nil {
				s.Error(err)
			}
			h.Metadata["team"], h.ACL[0], h.Access.ACL[0] = "changed", "changed", "changed"
			h.Metadata["lang"].([]string)[0] = "changed"
		}
	}
	got := s.current(want.Key)
	got.Metadata["team"], got.ACL[0] = "changed", "changed"
	s.wantCurrent(want)
}

// Whatever order a document's revisions come in, alone or together, the newest content and the newest access are what is there.
func testVersions(s *suite) {
	events := []func(key string) vectordb.Revision{
		func(key string) vectordb.Revision { return revision(key, 10, key+" old") },
		func(key string) vectordb.Revision { return deletion(key, 20) },
		func(key string) vectordb.Revision { return revision(key, 30, key+" new", key+" more") },
		func(key string) vectordb.Revision { return access(key, 15, "alice") },
		func(key string) vectordb.Revision { return accessCleared(key, 25) },
	}
	both := revision("", 40, "both at once")
	both.Access = vectordb.Access{Version: 35, ACL: []string{"bob"}}
	events = append(events, func(key string) vectordb.Revision {
		r := both
		r.Key = key
		return r
	})
	for name, chosen := range map[string][]int{
		"created last":      {0, 1, 2, 3, 4},
		"deleted last":      {0, 1, 3, 4},
		"access never back": {0, 1, 2, 3},
		"both in one":       {0, 1, 5, 3},
		"access only":       {3, 4},
	} {
		s.Run(name, func(t *testing.T) {
			sub := &suite{T: t, Config: s.Config, store: s.store, generation: s.generation}
			// Each order has a document of its own; all are written, one write after the other without waiting to see it, before the first is looked at.
			var all []vectordb.Revision
			n := 0
			for order := range permutations(len(chosen)) {
				if n++; s.Slow && n%(3*len(chosen)) != 1 {
					continue // a few of them, spread
				}
				for _, together := range []bool{false, true} {
					key := fmt.Sprintf("%s %v %v", name, order, together)
					want := vectordb.Revision{Key: key}
					var revisions []vectordb.Revision
					for _, i := range order {
						r := events[chosen[i]](key)
						revisions = append(revisions, r)
						if r.Version > want.Version {
							kept := want.Access
							want = r
							want.Access = kept
						}
						if r.Access.Version > want.Access.Version {
							want.Access = r.Access
						}
					}
					if together {
						sub.applyOnly(revisions...)
					} else {
						for _, r := range revisions {
							sub.applyOnly(r)
						}
					}
					all = append(all, want)
				}
			}
			if n < 2 {
				t.Fatalf("%d orders", n)
			}
			sub.settle()
			for _, want := range all {
				key := want.Key
				sub.wantCurrent(want)
				want.Tenant = "" // of all of them
				wanted := 0
				if want.Version > 0 && !want.Deleted && want.ReadableBy("", []string{"alice"}) {
					wanted = len(want.Entries)
				}
				f := &vectordb.Filter{Op: vectordb.Eq, Field: "@id", Value: key}
				if hits := sub.search(vectordb.Query{Vector: direction(0), Depth: 100, Filter: f, Principals: []string{"alice"}}); len(hits) != wanted {
					t.Errorf("%s: %d hits, want %d", key, len(hits), wanted)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// permutations yields every order of 0..n-1.
func permutations(n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		var rest func(k int) bool
		rest = func(k int) bool {
			if k == n {
				return yield(order)
			}
			for i := k; i < n; i++ {
				order[k], order[i] = order[i], order[k]
				if !rest(k + 1) {
					return false
				}
				order[k], order[i] = order[i], order[k]
			}
			return true
		}
		rest(0)
	}
}

// A version that is there already changes nothing: at-least-once delivery brings everything twice.
func testRedelivery(s *suite) {
	r := revision("a", 5, "one", "two")
	r.Access = vectordb.Access{Version: 4, ACL: []string{"alice"}}
	s.apply(r)
	first := s.current("a")
	for range 3 {
		s.apply(r)
	}
	s.wantCurrent(r)
	if again := s.current("a"); !again.SearchableAt.Equal(first.SearchableAt) {
		s.Errorf("a redelivery moved SearchableAt from %v to %v", first.SearchableAt, again.SearchableAt)
	}
	if hits := s.everything("", "alice"); len(hits) != 2 {
		s.Errorf("%d hits after redeliveries, want 2", len(hits))
	}
	s.apply(access("a", 6, "bob"))
	if again := s.current("a"); !again.SearchableAt.Equal(first.SearchableAt) {
		s.Errorf("a change of access moved the content's SearchableAt from %v to %v", first.SearchableAt, again.SearchableAt)
	}
}

func testDelete(s *suite) {
	s.apply(revision("a", 1, "first"), revision("b", 1, "other"))
	s.apply(deletion("a", 3), deletion("never", 9))
	s.wantCurrent(deletion("a", 3))
	s.wantCurrent(deletion("never", 9))
	s.wantKeys(s.everything(""), "b")
	s.apply(revision("a", 2, "a zombie's late write"), revision("a", 3, "of the same version"), revision("never", 8, "late"))
	s.wantCurrent(deletion("a", 3))
	s.wantKeys(s.everything(""), "b")
	again := revision("a", 4, "created again", "longer")
	s.apply(again)
	s.wantCurrent(again)
	s.wantKeys(s.everything(""), "a", "b")
	s.apply(deletion("a", 3))
	s.wantCurrent(again)
	s.apply(deletion("a", 5), deletion("b", 5))
	s.wantKeys(s.everything(""))

	// What stands beside a delete is not kept.
	odd := revision("b", 6, "text of a deleted document")
	odd.Deleted = true
	s.apply(odd)
	s.wantCurrent(deletion("b", 6))
}

func testAccessOnly(s *suite) {
	s.apply(access("a", 7, "alice"))
	want := access("a", 7, "alice")
	s.wantCurrent(want)
	s.wantKeys(s.everything("", "alice"))

	r := revision("a", 3, "text") // content and access are versioned apart
	s.apply(r)
	want = r
	want.Access = vectordb.Access{Version: 7, ACL: []string{"alice"}}
	s.wantCurrent(want)
	s.wantKeys(s.everything("", "alice"), "a")
	s.wantKeys(s.everything("", "bob"))
	s.wantKeys(s.everything(""))

	s.apply(access("a", 6, "bob"), access("a", 7, "bob")) // older, and there already
	s.wantKeys(s.everything("", "bob"))
	s.apply(access("a", 8)) // nobody
	s.wantKeys(s.everything("", "alice", "bob"))
	s.apply(access("a", 9, "bob", "carol"))
	s.wantKeys(s.everything("", "carol"), "a")
	s.apply(deletion("a", 10))
	gone := deletion("a", 10)
	gone.Access = vectordb.Access{Version: 9, ACL: []string{"bob", "carol"}}
	s.wantCurrent(gone)
	s.apply(access("a", 11, "dave")) // of a deleted document
	gone.Access = vectordb.Access{Version: 11, ACL: []string{"dave"}}
	s.wantCurrent(gone)
	s.wantKeys(s.everything("", "dave"))
	s.apply(revision("a", 12, "again"))
	s.wantKeys(s.everything("", "dave"), "a")
	s.wantKeys(s.everything("", "bob"))
	s.apply(accessCleared("a", 13))
	s.wantKeys(s.everything(""), "a")

	s.apply(vectordb.Revision{Key: "says nothing"})
	s.wantCurrent(vectordb.Revision{Key: "says nothing"})
}

func testSeveral(s *suite) {
	s.apply(revision("a", 2, "two"), access("a", 9, "x"), revision("a", 5, "five", "more"), revision("b", 1, "b"), revision("a", 3, "three"), deletion("b", 2), accessCleared("a", 10))
	want := revision("a", 5, "five", "more")
	want.Access = vectordb.Access{Version: 10, Clear: true}
	s.wantCurrent(want)
	s.wantCurrent(deletion("b", 2))
	if hits := s.everything(""); len(hits) != 2 {
		s.Errorf("%d hits, want 2", len(hits))
	}
	s.apply(deletion("a", 6), revision("a", 7, "after its delete"))
	want = revision("a", 7, "after its delete")
	want.Access = vectordb.Access{Version: 10, Clear: true}
	s.wantCurrent(want)
}

func testInvalid(s *suite) {
	kept := revision("kept", 1, "kept text")
	s.write(vectordb.Write{Revisions: []vectordb.Revision{kept}, Checkpoint: map[int32]int64{0: 10}})
	bad := func(change func(r *vectordb.Revision)) vectordb.Revision {
		r := revision("bad", 1, "first", "second")
		change(&r)
		return r
	}
	for name, r := range map[string]vectordb.Revision{
		"no key":              bad(func(r *vectordb.Revision) { r.Key = "" }),
		"negative version":    bad(func(r *vectordb.Revision) { r.Version = -1 }),
		"negative access":     bad(func(r *vectordb.Revision) { r.Access.Version = -1 }),
		"short vector":        bad(func(r *vectordb.Revision) { r.Entries[1].Vector = make([]float32, Dim-1) }),
		"long vector":         bad(func(r *vectordb.Revision) { r.Entries[1].Vector = make([]float32, Dim+1) }),
		"no vector":           bad(func(r *vectordb.Revision) { r.Entries[1].Vector = nil }),
		"NaN":                 bad(func(r *vectordb.Revision) { r.Entries[1].Vector[3] = float32(math.NaN()) }),
		"infinity":            bad(func(r *vectordb.Revision) { r.Entries[1].Vector[3] = float32(math.Inf(-1)) }),
		"span before text":    bad(func(r *vectordb.Revision) { r.Entries[0].Start = -1 }),
		"span beyond text":    bad(func(r *vectordb.Revision) { r.Entries[1].End++ }),
		"span backwards":      bad(func(r *vectordb.Revision) { r.Entries[1].End = r.Entries[1].Start - 1 }),
		"spans out of order":  bad(func(r *vectordb.Revision) { slices.Reverse(r.Entries) }),
		"metadata of a kind":  bad(func(r *vectordb.Revision) { r.Metadata = map[string]any{"n": 1} }),
		"metadata not finite": bad(func(r *vectordb.Revision) { r.Metadata = map[string]any{"n": math.NaN()} }),
	} {
		w := vectordb.Write{Revisions: []vectordb.Revision{revision("kept", 2, "newer"), r, revision("fresh", 1, "x")}, Checkpoint: map[int32]int64{0: 20, 1: 5}}
		s.wantError(name, s.store.Apply(s.Context(), "g", w), vectordb.ErrInvalid)
	}
	s.settle()
	s.wantCurrent(kept)
	s.wantCurrent(vectordb.Revision{Key: "fresh"})
	s.wantKeys(s.everything(""), "kept")
	s.wantCheckpoint(map[int32]int64{0: 10})
	s.wantError("Apply to no generation", s.store.Apply(s.Context(), "nowhere", vectordb.Write{}), vectordb.ErrNoGeneration)

	half := &vectordb.Filter{Op: vectordb.Eq, Field: "a"} // without a value
	for name, q := range map[string]vectordb.Query{
		"short vector":     {Vector: make([]float32, Dim-1)},
		"empty vector":     {Vector: []float32{}},
		"NaN":              {Vector: append(make([]float32, Dim-1), float32(math.NaN()))},
		"filter":           {Vector: direction(0), Filter: half},
		"unknown field":    {Vector: direction(0), Filter: &vectordb.Filter{Op: vectordb.Eq, Field: "@nope", Value: "x"}},
		"unknown operator": {Vector: direction(0), Filter: &vectordb.Filter{Op: 77, Field: "a", Value: "x"}},
	} {
		_, err := s.store.Search(s.Context(), "g", q)
		s.wantError("Search: "+name, err, vectordb.ErrInvalid)
	}
	if s.Lexical {
		_, err := s.store.Search(s.Context(), "g", vectordb.Query{Vector: direction(0), Text: "kept"})
		s.wantError("Search: two legs without Fuse", err, vectordb.ErrInvalid)
	}
}

func (s *suite) wantCheckpoint(want map[int32]int64) {
	s.Helper()
	if s.NoCheckpoint {
		return
	}
	got, err := s.store.Checkpoint(s.Context(), s.generation)
	if err != nil {
		s.Fatalf("Checkpoint: %v", err)
	}
	if len(got) != len(want) {
		s.Errorf("checkpoint %v, want %v", got, want)
	}
	for p, o := range want {
		if at, ok := got[p]; !ok || at != o {
			s.Errorf("checkpoint of partition %d is %d (%v), want %d", p, at, ok, o)
		}
	}
}

func testCheckpoint(s *suite) {
	if s.NoCheckpoint {
		s.Skip("this store leaves positions to consumer groups")
	}
	s.wantCheckpoint(map[int32]int64{})
	s.write(vectordb.Write{Revisions: []vectordb.Revision{revision("a", 1, "x")}, Checkpoint: map[int32]int64{0: 1, 7: 1 << 40, vectordb.AsOf: 1 << 41}})
	s.wantCheckpoint(map[int32]int64{0: 1, 7: 1 << 40, vectordb.AsOf: 1 << 41})
	s.write(vectordb.Write{Checkpoint: map[int32]int64{1: 5}}) // without a revision: offsets without a change
	s.wantCheckpoint(map[int32]int64{0: 1, 1: 5, 7: 1 << 40, vectordb.AsOf: 1 << 41})
	s.write(vectordb.Write{Revisions: []vectordb.Revision{revision("a", 1, "old news")}, Checkpoint: map[int32]int64{0: 2}}) // with a superseded one
	s.apply(revision("b", 1, "y"))                                                                                           // names no partition
	want := map[int32]int64{0: 2, 1: 5, 7: 1 << 40, vectordb.AsOf: 1 << 41}
	s.wantCheckpoint(want)
	got, err := s.store.Checkpoint(s.Context(), "g")
	if err != nil {
		s.Fatal(err)
	}
	got[0] = 99
	s.wantCheckpoint(want)
	if err := s.store.Sync(s.Context(), "g"); err != nil {
		s.Errorf("Sync: %v", err)
	}
	s.create("h")
	s.generation = "h"
	s.wantCheckpoint(map[int32]int64{})
}

func testScan(s *suite) {
	all := []vectordb.Revision{
		revision("a", 1, "x"), revision("a b", 2, "x", "y"), revision("Z", 3, "x"), deletion("b", 4), access("c", 5, "p"), revision("a\x1fb", 6, "x"),
		revision("é", 7, "x"), revision("日本", 8), revision("a/b#c%20d", 9, "x"), revision("ab", 10, "x"), revision(strings.Repeat("k", 2048), 11, "x"),
	}
	s.apply(all...)
	slices.SortFunc(all, func(a, b vectordb.Revision) int { return strings.Compare(a.Key, b.Key) })
	for _, limit := range []int{1, 2, 3, len(all), 100} {
		var got []vectordb.Revision
		for after := ""; ; {
			page, err := s.store.Scan(s.Context(), "g", after, limit)
			if err != nil {
				s.Fatalf("Scan: %v", err)
			}
			if len(page) > limit {
				s.Fatalf("Scan gave %d of at most %d", len(page), limit)
			}
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			if last := page[len(page)-1].Key; last > after {
				after = last
			} else {
				s.Fatalf("Scan after %q gave %q", after, last)
			}
		}
		if len(got) != len(all) {
			s.Fatalf("limit %d: %d revisions, want %d", limit, len(got), len(all))
		}
		for i := range got {
			if d := difference(got[i], all[i]); d != "" {
				s.Errorf("limit %d: %q: %s", limit, all[i].Key, d)
			}
		}
	}
	page, err := s.store.Scan(s.Context(), "g", "a0", 1) // a key that is not there
	if err != nil || len(page) != 1 || page[0].Key != "ab" {
		s.Errorf("Scan after a0: %v, %v", page, err)
	}
}

func testStats(s *suite) {
	check := func(documents, chunks int, tokens int64) {
		s.Helper()
		got, err := s.store.Stats(s.Context(), "g")
		if err != nil {
			s.Fatalf("Stats: %v", err)
		}
		if got.Documents != documents || got.Chunks != chunks || got.Tokens != tokens || got.Bytes < 0 || got.Reclaimable < 0 {
			s.Errorf("stats %+v, want %d documents, %d chunks, %d tokens", got, documents, chunks, tokens)
		}
	}
	check(0, 0, 0)
	s.apply(revision("a", 1, "one two", "three"), revision("t\x1fb", 1, "four five six"), revision("empty", 1), access("c", 1, "x"), deletion("d", 1))
	check(3, 3, 6)
	s.apply(access("a", 1)) // readable by nobody is still live
	check(3, 3, 6)
	s.apply(revision("a", 2, "one"))
	check(3, 2, 4)
	s.apply(revision("a", 1, "old"), revision("a", 2, "one"))
	check(3, 2, 4)
	s.apply(deletion("t\x1fb", 2), deletion("empty", 2))
	check(1, 1, 1)
	s.apply(revision("t\x1fb", 3, "back again"))
	check(2, 2, 3)
}

func testEntryIDs(s *suite) {
	r := revision("t\x1fdoc", 1, "same", "other", "same", "same")
	s.apply(r)
	ids := map[int]string{}
	for _, h := range s.everything("t") {
		if err := checkHit(h, r); err != nil {
			s.Error(err)
		}
		ids[h.Entry.Start] = h.ID
	}
	want := []string{
		vectordb.EntryID("doc", hash("same"), 0), vectordb.EntryID("doc", hash("other"), 0),
		vectordb.EntryID("doc", hash("same"), 1), vectordb.EntryID("doc", hash("same"), 2),
	}
	for i, e := range r.Entries {
		if ids[e.Start] != want[i] {
			s.Errorf("chunk %d has the id %q, want %q", i, ids[e.Start], want[i])
		}
	}
	// An edit elsewhere leaves a chunk's id alone, though its place is another.
	edited := revision("t\x1fdoc", 2, "new beginning", "other", "same")
	s.apply(edited)
	for _, h := range s.everything("t") {
		if err := checkHit(h, edited); err != nil {
			s.Error(err)
		}
		if h.Text == "other" && h.ID != want[1] {
			s.Errorf("the id of what was not edited became %q, was %q", h.ID, want[1])
		}
	}
}

// A hit's text is the document's bytes, whatever the spans: overlapping, touching, leaving something out, of many bytes a character.
func testTexts(s *suite) {
	r := vectordb.Revision{Key: "a", Version: 1, Text: "\ufeffÄpfel — und 梨\r\n\t😀 left out; end\n\x00"}
	for i, span := range [][2]int{{0, 3}, {0, 10}, {3, 3}, {3, 9}, {9, len(r.Text)}, {len(r.Text), len(r.Text)}} {
		r.Entries = append(r.Entries, vectordb.Entry{
			Start: span[0], End: span[1], Tokens: i, Hash: hash(fmt.Sprint(i)), Vector: vectorOf(fmt.Sprint(i)),
		})
	}
	big := revision("big", 1, strings.Repeat("abcdefghij", 100_000), "small")
	s.apply(r, big)
	s.wantCurrent(r)
	s.wantCurrent(big)
	hits := s.everything("")
	if len(hits) != len(r.Entries)+2 {
		s.Errorf("%d hits, want %d", len(hits), len(r.Entries)+2)
	}
	for _, h := range hits {
		of := r
		if h.Key == "big" {
			of = big
		}
		if err := checkHit(h, of); err != nil {
			s.Error(err)
		}
	}
}

// A document with an empty text is kept, with no chunks, and never a hit.
func testEmpty(s *suite) {
	empty := revision("a", 2)
	empty.Metadata = map[string]any{"kept": "yes"}
	s.apply(revision("a", 1, "something"), revision("b", 1, "b"))
	s.apply(empty)
	s.wantCurrent(empty)
	s.wantKeys(s.everything(""), "b")
	full := revision("a", 3, "again")
	s.apply(full)
	s.wantCurrent(full)
	s.wantKeys(s.everything(""), "a", "b")

	// Text without chunks is as good.
	s.apply(vectordb.Revision{Key: "a", Version: 4, Text: " \n"})
	s.wantCurrent(vectordb.Revision{Key: "a", Version: 4, Text: " \n"})
	s.wantKeys(s.everything(""), "b")
}

func testMetadataOnly(s *suite) {
	r := revision("a", 1, "one", "two")
	r.Metadata = map[string]any{"team": "x"}
	s.apply(r)
	r.Version, r.Title, r.URL, r.Metadata = 2, "New title", "https://example.com/new", map[string]any{"team": "y", "more": true}
	r.UpdatedAt = r.UpdatedAt.Add(time.Hour)
	s.apply(r)
	s.wantCurrent(r)
	hits := s.everything("")
	if len(hits) != 2 {
		s.Errorf("%d hits, want 2", len(hits))
	}
	for _, h := range hits {
		if err := checkHit(h, r); err != nil {
			s.Error(err)
		}
	}
	for team, want := range map[string]int{"x": 0, "y": 2} {
		f := &vectordb.Filter{Op: vectordb.Eq, Field: "team", Value: team}
		if hits := s.search(vectordb.Query{Vector: direction(0), Filter: f}); len(hits) != want {
			s.Errorf("team %s: %d hits, want %d", team, len(hits), want)
		}
	}
}

// A document of 10,000 chunks is replaced, shrunk and deleted like any other.
func testBigDocument(s *suite) {
	n := 10_000
	if testing.Short() || s.Slow {
		n = 2000
	}
	chunks := make([]string, n)
	for i := range chunks {
		chunks[i] = fmt.Sprintf("chunk %d of many", i)
	}
	small := revision("small", 1, "one")
	check := func(want vectordb.Revision) {
		s.Helper()
		s.wantCurrent(want)
		s.wantCurrent(small)
		hits := s.everything("")
		if len(hits) != len(want.Entries)+1 {
			s.Errorf("version %d: %d hits, want %d", want.Version, len(hits), len(want.Entries)+1)
		}
		seen := map[int]bool{}
		for _, h := range hits {
			if h.Key == "small" {
				continue
			}
			if h.Version != want.Version || h.Text != want.Text[h.Entry.Start:h.Entry.End] || seen[h.Entry.Start] {
				s.Fatalf("version %d: hit %q of version %d, %q", want.Version, h.ID, h.Version, h.Text)
			}
			seen[h.Entry.Start] = true
		}
	}
	s.apply(small, revision("big", 1, chunks...))
	check(revision("big", 1, chunks...))
	for i := range chunks {
		chunks[i] += " replaced"
	}
	s.apply(revision("big", 2, chunks...))
	check(revision("big", 2, chunks...))
	s.apply(revision("big", 3, chunks[n-3:]...))
	check(revision("big", 3, chunks[n-3:]...))
	s.apply(revision("big", 4, chunks[:n/2]...))
	check(revision("big", 4, chunks[:n/2]...))
	s.apply(deletion("big", 5))
	check(deletion("big", 5))
}

// A restart keeps everything.
func testRestart(s *suite) {
	if s.Reopen == nil {
		s.Skip("this store does not outlive its process")
	}
	want := map[string]vectordb.Revision{}
	put := func(rs ...vectordb.Revision) {
		s.apply(rs...)
		for _, r := range rs {
			want[r.Key] = r
		}
	}
	full := rich()
	put(full, revision("replaced", 1, "old one"), revision("gone", 1, "x"), revision("empty", 1), access("access only", 5, "alice"))
	put(revision("replaced", 2, "new one", "with more"), deletion("gone", 2), deletion("never", 7))
	other := vectordb.Generation{Name: "other", Fingerprint: "f", Dim: 3, Origin: "o"}
	if err := s.store.Create(s.Context(), other); err != nil {
		s.Fatal(err)
	}
	s.create("dropped")
	s.write(vectordb.Write{Checkpoint: map[int32]int64{0: 5, 3: 1 << 41}})
	if err := s.store.Drop(s.Context(), "dropped"); err != nil {
		s.Fatal(err)
	}
	searchable := s.current(full.Key).SearchableAt

	for restart := range 3 {
		s.reopen()
		for _, r := range want {
			s.wantCurrent(r)
		}
		if at := s.current(full.Key).SearchableAt; !at.Equal(searchable) {
			s.Errorf("restart %d moved SearchableAt from %v to %v", restart, searchable, at)
		}
		s.wantCheckpoint(map[int32]int64{0: 5, 3: 1 << 41})
		got, err := s.store.List(s.Context())
		if err != nil || !slices.Equal(got, []vectordb.Generation{describe("g"), other}) {
			s.Errorf("restart %d: List %v, %v", restart, got, err)
		}
		changed := describe("g")
		changed.Fingerprint = "another"
		s.wantError("Create with another fingerprint after a restart", s.store.Create(s.Context(), changed), vectordb.ErrMismatch)
		// Versions hold: an old write does nothing.
		s.apply(revision("replaced", 1, "old one"), revision("gone", 1, "x"), revision("never", 6, "x"), access("access only", 4, "bob"), revision(full.Key, 5, "old"))
		for _, r := range want {
			s.wantCurrent(r)
		}
		hits := s.everything("acme", "user:c")
		if len(hits) != len(full.Entries) {
			s.Errorf("restart %d: %d hits, want %d", restart, len(hits), len(full.Entries))
		}
		for _, h := range hits {
			if err := checkHit(h, full); err != nil {
				s.Error(err)
			}
		}
		// And it goes on.
		put(revision(fmt.Sprint("after restart ", restart), 1, fmt.Sprint("written after restart ", restart)))
		live := []string{"replaced"}
		for i := range restart + 1 {
			live = append(live, fmt.Sprint("after restart ", i))
		}
		s.wantKeys(s.everything(""), live...)
		if s.Lexical {
			s.wantKeys(s.search(vectordb.Query{Text: "written restarts"}), live[1:]...)
		}
	}
}
