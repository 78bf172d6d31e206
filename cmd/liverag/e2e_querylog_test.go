package main

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/liverag/liverag/retrieve/querylog"
)

func TestQueryLog(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	file := filepath.Join(data, "queries", "documents.ndjson")
	p := startProgram(t, data)
	p.put("kb/swifts.md", "# Swifts\n\nSwifts sleep in the air and never land on the ground.")
	p.ask("not kept", nil)
	p.stop()
	if _, err := querylog.Read(file); err == nil {
		t.Error("questions are kept although nobody asked for it")
	}

	p = startProgram(t, data, "--query_log=true")
	p.ask("where do swifts sleep", map[string]any{"k": 3, "filter": map[string]any{"@id": "kb/swifts.md"}})
	p.ask("of a generation by name", map[string]any{"generation": p.live().Name})
	private, err := http.NewRequest("GET", p.base+"/retrieve?q=private", nil)
	if err != nil {
		t.Fatal(err)
	}
	private.Header.Set("Liverag-Unlogged", "1")
	if resp, err := p.http.Do(private); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	until(t, "written", func() bool { return p.metric("liverag_query_log_written_total") == 1 })
	p.kill()
	p = startProgram(t, data, "--query_log=true")
	p.ask("who never lands", nil)
	p.replay("small", map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 16}})
	until(t, "written", func() bool { return p.metric("liverag_query_log_written_total") == 1 })
	out, err := p.answer("eval", "compare", "live", "small", "--json")
	var compared struct {
		Queries float64
		Overlap map[string]float64
		Set     struct{ Name string }
	}
	if err != nil || json.Unmarshal([]byte(out), &compared) != nil || compared.Queries != 2 || compared.Overlap["jaccard@10"] != 1 || !strings.Contains(compared.Set.Name, "asked of live") {
		t.Errorf("compared: %s, %v", out, err)
	}
	p.stop()
	got, err := querylog.Read(file)
	if err != nil || len(got) != 2 { // what compare asks is not what users ask
		t.Fatalf("%+v, %v", got, err)
	}
	if e := got[0]; e.Query != "where do swifts sleep" || e.K != 3 || len(e.Hits) != 1 || !strings.HasPrefix(e.Hits[0], "kb/swifts.md#") || !strings.Contains(string(e.Filter), "@id") || e.Generation == "" {
		t.Errorf("kept %+v", e)
	}
}
