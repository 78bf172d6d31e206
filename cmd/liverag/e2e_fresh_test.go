package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
)

func TestReadYourOwnWrites(t *testing.T) {
	t.Parallel()
	p := startProgram(t, t.TempDir())
	// Each write is in the answer that asks for it by its token, although nobody waited for the write itself.
	var tokens []string
	for i := range 60 {
		id := fmt.Sprint("doc/", i%7)
		var w written
		p.must(&w, "PUT", documentPath(id), map[string]any{"text": fmt.Sprintf("The marker of this write is mark%d.", i)})
		if w.Searchable != nil {
			t.Fatalf("a write without wait says searchable: %+v", w)
		}
		tokens = append(tokens, w.Token)
		f := p.ask(fmt.Sprintf("mark%d", i), map[string]any{"after": w.Token, "wait": "20s", "strict": true, "mode": "lexical"})
		if !f.Freshness.Satisfied || len(f.Hits) != 1 || f.Hits[0].Document != id {
			t.Fatalf("write %d is not in the answer that asked for it: %+v", i, f)
		}
	}
	if f := p.ask("marker", map[string]any{"after": tokens, "wait": "20s", "strict": true}); !f.Freshness.Satisfied {
		t.Error("all tokens together are not satisfied")
	}
	// A deletion's token too.
	var w written
	p.must(&w, "DELETE", "/documents/doc/3", nil)
	if f := p.ask("mark59 marker", map[string]any{"after": w.Token, "wait": "20s", "strict": true, "filter": map[string]any{"@id": "doc/3"}}); len(f.Hits) != 0 {
		t.Errorf("after the deletion: %+v", f.Hits)
	}

	// A generation that does not follow can't satisfy.
	p.replay("still", map[string]any{"chunker": map[string]any{"tokens": 50}})
	p.must(nil, "POST", "/generations/still/pause", nil)
	token := p.put("doc/new", "Written after the pause.")
	f := p.ask("after the pause", map[string]any{"generation": "still", "after": token, "wait": "50ms"})
	if f.Freshness.Satisfied || f.Generation.Name != "still" {
		t.Errorf("a paused generation satisfies: %+v", f.Freshness)
	}
	for field, value := range map[string]any{"after": token, "max_staleness": "0s"} {
		got, err := p.call("POST", "/retrieve", map[string]any{"query": "pause", "generation": "still", field: value, "wait": "50ms", "strict": true})
		if err != nil || got.status != http.StatusServiceUnavailable || got.code() != "stale" {
			t.Errorf("strict with %s on a paused generation answers %d %s", field, got.status, got.body)
		}
	}
	// The live one does, and the paused one once it goes on.
	if f := p.ask("after the pause", map[string]any{"after": token, "strict": true}); len(f.Hits) == 0 || f.Hits[0].Document != "doc/new" {
		t.Errorf("live: %q", f.documents())
	}
	p.must(nil, "POST", "/generations/still/resume", nil)
	if f := p.ask("after the pause", map[string]any{"generation": "still", "after": token, "wait": "20s", "strict": true}); len(f.Hits) == 0 || f.Hits[0].Document != "doc/new" {
		t.Errorf("after going on: %q", f.documents())
	}
	// A token outlives a restart.
	p.stop()
	p = startProgram(t, p.data)
	if f := p.ask("marker", map[string]any{"after": append(tokens, token), "wait": "20s", "strict": true}); !f.Freshness.Satisfied {
		t.Error("the tokens of before the restart are not satisfied")
	}
}

// fresh is the answer of GET /freshness.
type fresh struct {
	Partitions []struct {
		Partition     int32 `json:"partition"`
		EndOffset     int64 `json:"end_offset"`
		AppliedOffset int64 `json:"applied_offset"`
		Lag           int64 `json:"lag"`
	} `json:"partitions"`
	Entered struct {
		Count int64 `json:"count"`
	} `json:"time_to_searchable"`
	Backfill struct {
		Count int64 `json:"count"`
	} `json:"backfill"`
}

func (f *fresh) sum() (end, applied, lag int64) {
	for _, p := range f.Partitions {
		end, applied, lag = end+p.EndOffset, applied+p.AppliedOffset, lag+p.Lag
	}
	return end, applied, lag
}

func TestFreshnessCoversWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	p := startProgram(t, t.TempDir())
	var f fresh
	p.must(&f, "GET", "/freshness", nil)
	if len(f.Partitions) != 4 {
		t.Fatalf("there are %d partitions as soon as it is ready, want 4", len(f.Partitions))
	}
	for i := range 100 {
		p.must(nil, "PUT", fmt.Sprintf("/documents/d%d", i%30), map[string]any{"text": fmt.Sprint("Text number ", i)})
		p.must(&f, "GET", "/freshness", nil)
		if end, _, _ := f.sum(); end != int64(i+1) {
			t.Fatalf("after %d acknowledged changes the ends add up to %d", i+1, end)
		}
	}
	answer := p.ask("text number", map[string]any{"max_staleness": "0s", "wait": "20s"})
	if !answer.Freshness.Satisfied {
		t.Errorf("max_staleness 0s: %+v", answer.Freshness)
	}
	p.must(&f, "GET", "/freshness", nil)
	if end, applied, lag := f.sum(); applied != 100 || end != 100 || lag != 0 {
		t.Errorf("after max_staleness 0s: %d of %d, lag %d", applied, end, lag)
	}
	if f.Entered.Count == 0 || f.Entered.Count > 100 || f.Backfill.Count != 0 {
		t.Errorf("%d changes were measured, %d as imported", f.Entered.Count, f.Backfill.Count)
	}
	live := f.Entered.Count
	p.verb(`{"id":"old","text":"Imported history."}`, "import", "-", "--wait", "20s")
	p.must(&f, "GET", "/freshness", nil)
	if f.Entered.Count != live || f.Backfill.Count != 1 {
		t.Errorf("after an import %d changes were measured (before: %d), %d as imported", f.Entered.Count, live, f.Backfill.Count)
	}
}

func TestAWriteThatWaitsInVainIsKept(t *testing.T) {
	t.Parallel()
	p := startProgram(t, t.TempDir())
	// No time to wait: it may be in time or not, but it says which, and nothing is lost.
	for i := range 20 {
		got, err := p.call("PUT", fmt.Sprintf("/documents/d%d?wait=0s", i), map[string]any{"text": fmt.Sprint("Text ", i)})
		var w written
		if err != nil || json.Unmarshal(got.body, &w) != nil || w.Searchable == nil || (got.status == http.StatusOK) != *w.Searchable || (got.status == http.StatusAccepted) == *w.Searchable {
			t.Fatalf("wait=0s answers %d %s, %v", got.status, got.body, err)
		}
	}
	p.applied()
	if g := p.live(); g.Progress.Documents != 20 {
		t.Errorf("there are %d documents", g.Progress.Documents)
	}
}
