package embedder_test

import (
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
)

// counting is a model with a limit, which counts words.
type counting struct{ *embedder.Hash }

func (counting) MaxInput() int { return 4 }

func (counting) CountTokens(input string) int { return len(strings.Fields(input)) }

// TestUsageIsWhatTheModelWasSent holds what is noted, and what is foreseen, to what reaches the model, with a cache and long inputs in between.
func TestUsageIsWhatTheModelWasSent(t *testing.T) {
	for _, cached := range []bool{true, false} {
		model := counting{embedder.NewHash(16)}
		var chain embedder.Embedder = embedder.Batch(model, embedder.BatchConfig{})
		if cached {
			store, err := embedder.OpenCache(embedder.CacheConfig{Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { store.Close() })
			chain = embedder.Cache(chain, store)
		}
		long, err := embedder.Long(chain, embedder.LongSplit)
		if err != nil {
			t.Fatal(err)
		}
		if embedder.HasCache(long) != cached {
			t.Errorf("has a cache: %v", !cached)
		}
		embed := func(inputs ...string) *embedder.Usage {
			t.Helper()
			u := &embedder.Usage{CountTokens: true}
			foreseen, err := embedder.Foresee(t.Context(), long, embedder.Index, inputs)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := long.Embed(embedder.WithUsage(t.Context(), u), embedder.Index, inputs); err != nil {
				t.Fatal(err)
			}
			if !u.Traced() || foreseen.Tokens() != u.Tokens() || cached && foreseen.Inputs() != u.Inputs() {
				t.Errorf("cached %v: %d tokens of %d inputs were foreseen for %q, %d of %d were sent", cached, foreseen.Tokens(), foreseen.Inputs(), inputs, u.Tokens(), u.Inputs())
			}
			return u
		}
		if u := embed("one two", "a b c d e f"); u.Tokens() != 8 || !u.Sent("one two") || !u.Sent("a b c d e f") {
			t.Errorf("cached %v: at first %d tokens", cached, u.Tokens())
		}
		u := embed("one two", "three", "a b c d e f")
		if want := map[bool]int64{true: 1, false: 9}[cached]; u.Tokens() != want || u.Sent("one two") == cached || u.Sent("a b c d e f") == cached || !u.Sent("three") {
			t.Errorf("cached %v: then %d tokens, want %d", cached, u.Tokens(), want)
		}
		if u := embed("one two"); cached && (u.Tokens() != 0 || u.Sent("one two")) {
			t.Errorf("everything was there, and %d tokens were sent", u.Tokens())
		}
	}
}
