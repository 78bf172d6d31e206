package vectordbtest

import "github.com/liverag/liverag/vectordb"

// A rewrite puts a document right whose stored version is the right one and whose content is not: as if it had been written so the first time.
func testRewrite(s *suite) {
	wrong := revision("doc", 10, "one", "two", "an old tail")
	wrong.Access = vectordb.Access{Version: 4, ACL: []string{}}
	other := revision("other", 7, "two", "three")
	s.apply(wrong, other, deletion("gone", 8), access("opened", 6))
	right := revision("doc", 10, "one", "four")
	right.Access = wrong.Access
	s.apply(revision("doc", 10, "one", "four")) // without being told so, the same version changes nothing
	s.wantCurrent(wrong)
	rewrite := func(revisions ...vectordb.Revision) {
		s.Helper()
		s.write(vectordb.Write{Revisions: revisions, Rewrite: true})
		s.settle()
	}
	rewrite(revision("doc", 9, "older"), revision("gone", 7, "older"))
	s.wantCurrent(wrong)
	s.wantCurrent(deletion("gone", 8))
	rewrite(revision("doc", 10, "one", "four"))
	s.wantCurrent(right)
	rewrite(revision("doc", 10, "one", "four", "five", "six"))
	longer := revision("doc", 10, "one", "four", "five", "six")
	longer.Access = wrong.Access
	s.wantCurrent(longer)
	s.wantCurrent(other)
	rewrite(vectordb.Revision{Key: "doc", Access: vectordb.Access{Version: 5, Clear: true}})
	longer.Access = vectordb.Access{Version: 5, Clear: true}
	s.wantCurrent(longer)
	if s.Lexical {
		if hits := s.search(vectordb.Query{Text: "tail"}); len(hits) > 0 {
			s.Errorf("what was rewritten is found: %v", hits)
		}
	}
	rewrite(deletion("other", 7))
	s.wantCurrent(deletion("other", 7))
	rewrite(revision("other", 7, "back"), revision("fresh", 1, "fresh"))
	s.wantCurrent(revision("other", 7, "back"))
	s.wantCurrent(revision("fresh", 1, "fresh"))
	s.reopen()
	s.wantCurrent(longer)
	s.wantCurrent(revision("other", 7, "back"))
	s.apply(revision("doc", 11, "newer"), deletion("other", 12))
	newer := revision("doc", 11, "newer")
	newer.Access = longer.Access
	s.wantCurrent(newer)
	s.wantCurrent(deletion("other", 12))
}
