package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/bpe"
	"github.com/liverag/liverag/internal/mockprovider"
	"github.com/liverag/liverag/ledger"
)

// TestTheDailyCapPausesDocumentsOnly writes more than a day's cap buys: the rest waits, and everything says so; questions are answered, also from what was there before; a kill -9
// and a restart give no more; and with a higher cap the rest becomes searchable. What the provider was paid is what the account says.
func TestTheDailyCapPausesDocumentsOnly(t *testing.T) {
	if now := time.Now().UTC(); now.Add(3*patience).Day() != now.Day() {
		t.Skip("a new day begins, which gives new money: run it again after midnight, UTC")
	}
	encoding, err := bpe.Load(chunker.CL100K)
	if err != nil {
		t.Fatal(err)
	}
	const cap = 3000
	for _, c := range []struct{ name, capped, raised, says string }{
		{"tokens", fmt.Sprintf("daily_tokens: %d", cap), "daily_tokens: 1000000", "the daily cap of 3000 tokens is reached"},
		{"money", fmt.Sprintf("daily_usd: %v", cap*2e-6), "daily_usd: 100", "the daily cap of $0.006 is reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			address, _ := endpoint(t, "127.0.0.1:0", 64, func(cfg *mockprovider.Config) { cfg.Key, cfg.Tokens = "", encoding.Count })
			data, settings := t.TempDir(), t.TempDir()
			start := func(spending string) *program {
				file := settingsFile(t, settings, "prices: {openai/text-embedding-3-small: 2}\nspending: {"+spending+"}\nopenai: {base_url: \"http://"+address+"/v1\"}\n")
				return startProgram(t, data, "--config", file, "--embedder", "openai/text-embedding-3-small")
			}
			paid := func() (tokens int64) {
				t.Helper()
				resp, err := http.Get("http://" + address + "/stats")
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				var stats mockprovider.Stats
				if err := json.NewDecoder(resp.Body).Decode(&stats); err != nil {
					t.Fatal(err)
				}
				return stats.Tokens
			}
			spent := func(p *program) (s ledger.Spending) {
				t.Helper()
				p.must(&s, "GET", "/spending", nil)
				return s
			}
			paused := func(p *program) ledger.Spending {
				t.Helper()
				var s ledger.Spending
				until(t, "paused", func() bool { s = spent(p); return s.State == embedder.Paused })
				return s
			}

			p := start(c.capped)
			probes := paid()
			const documents = 40
			var lines strings.Builder
			for i := range documents {
				line, err := json.Marshal(map[string]string{"id": fmt.Sprint("d", i), "text": prose(fmt.Sprint("topic", i), 5)})
				if err != nil {
					t.Fatal(err)
				}
				lines.Write(append(line, '\n'))
			}
			p.must(nil, "POST", "/documents", lines.String())
			s := paused(p)
			if !strings.Contains(s.Detail, c.says) || !strings.Contains(s.Detail, "restart with a higher spending.") || !s.Kept {
				t.Errorf("%+v", s)
			}
			until(t, "told of what the provider was paid", func() bool { s = spent(p); return s.Today.TokensBilled == paid() })
			if bought := s.Today.TokensBilled; bought > cap || bought < cap*9/10 {
				t.Errorf("%d tokens were billed of %d", bought, cap)
			}
			var live generation
			until(t, "told by its generation", func() bool { live = p.live(); return live.Trouble != nil })
			if !strings.Contains(live.Trouble.Detail, c.says) || live.Progress.Documents == 0 || live.Progress.Documents >= documents {
				t.Errorf("%+v", live)
			}
			var freshness struct {
				Embedding struct {
					Providers []embedder.Provider `json:"providers"`
				} `json:"embedding"`
			}
			p.must(&freshness, "GET", "/freshness", nil)
			if at := freshness.Embedding.Providers; len(at) != 1 || at[0].State != embedder.Paused || !strings.Contains(at[0].Detail, c.says) {
				t.Errorf("%+v", at)
			}
			if out := p.verb("", "spending"); !strings.Contains(out, c.says) {
				t.Errorf("%s", out)
			}

			// What was there answers, by vectors too; and what is written is kept.
			p.must(nil, "GET", "/readyz", nil)
			if got := p.ask("what speaks of topic0?", map[string]any{"mode": "dense"}); len(got.Hits) == 0 || got.Mode != "dense" {
				t.Errorf("%+v", got)
			}
			var w written
			p.must(&w, "PUT", documentPath("late"), map[string]any{"text": "The late one speaks of quince."})
			if m := spent(p).Models; len(m) != 1 || m[0].Questions.TokensBilled == 0 || m[0].Questions.Cost == 0 {
				t.Errorf("%+v", m)
			}

			// The cap is the day's, not the process's.
			before := spent(p)
			until(t, "written down", func() bool {
				reader := ledger.Open(ledger.Config{Dir: filepath.Join(data, "spending", "documents"), Logger: slog.New(slog.DiscardHandler)})
				defer reader.Close()
				return reader.Spending(1).Today == before.Today
			})
			p.kill()
			p = start(c.capped)
			after := paused(p)
			if bought := after.Models[0].Documents.TokensBilled; bought > cap || bought < before.Models[0].Documents.TokensBilled {
				t.Errorf("%d tokens were billed before a kill, %d after it", before.Models[0].Documents.TokensBilled, bought)
			}
			if got := p.ask("what speaks of topic0?", map[string]any{"mode": "dense"}); len(got.Hits) == 0 {
				t.Errorf("%+v", got)
			}
			p.stop()

			p = start(c.raised)
			p.applied()
			for i := range documents {
				if d, ok := p.get(fmt.Sprint("d", i)); !ok || len(d.Chunks) == 0 {
					t.Errorf("d%d: %+v", i, d)
				}
			}
			if got := p.ask("quince", map[string]any{"k": 1}); len(got.Hits) != 1 || got.Hits[0].Document != "late" {
				t.Errorf("%+v", got)
			}
			s = spent(p)
			if total := s.Today.TokensBilled; s.State != embedder.Ready || total < 3*cap/2 || paid() != total || s.Today.TokensRetried != 0 {
				t.Errorf("%d tokens were billed, %d were sent in vain, the provider was paid %d", total, s.Today.TokensRetried, paid())
			}
			asked := ledger.Cost(3*probes, 2) // at each start, to find out what it is
			if live := p.live(); live.Trouble != nil || *live.Progress.TokensEmbedded == 0 || *live.Progress.CostUSD != (s.Models[0].Documents.Cost-asked).Dollars() {
				t.Errorf("%+v costs %v, its model's documents cost %v", live, *live.Progress.CostUSD, s.Models[0].Documents.Cost)
			}
		})
	}
}
