package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

const spendingJSON = `{"state":"paused","since":"2026-11-21T09:00:00Z","detail":"the daily cap of $5.00 is reached","kept":false,"not_kept":"the disk is full",
 "today":{"requests":7,"tokens_billed":1234,"tokens_retried":50,"cost_usd":4.99},"day":"2026-11-21","ends_at":"2026-11-22T00:00:00Z","cap":{"usd":5,"tokens":9000},"left":{"usd":0.01,"tokens":7766},
 "days":[{"day":"2026-11-21","requests":7,"tokens_billed":1234,"tokens_retried":50,"cost_usd":4.99,
  "generations":[{"generation":"one","model":"openai/m","tokens_embedded":1000,"tokens_reused":20000,"superseded":3,"cost_usd":4.5,"saved_usd":80}],
  "models":[{"model":"openai/m","requests":7,"tokens_billed":1234,"tokens_retried":50,"cost_usd":4.99,"documents":{"requests":5,"tokens_billed":1200,"tokens_retried":48,"cost_usd":4.5},
   "questions":{"requests":2,"tokens_billed":34,"tokens_retried":2,"cost_usd":0.49}}]}],
 "generations":[],"models":[]}`

func TestSpending(t *testing.T) {
	t.Parallel()
	answer := spendingJSON
	s := newServer(t, func(request) (int, string) { return 200, answer })
	got := invoke(t, nil, "", "spending", "--server", s.URL, "--days", "3")
	if r := s.next(t); r.method != "GET" || r.path != "/spending" || r.query != "days=3" {
		t.Errorf("%+v", r)
	}
	const want = `today, 2026-11-21 (UTC): 1,234 tokens billed, $4.99; the cap is $5.00 and 9,000 tokens, $0.01 and 7,766 tokens left until 2026-11-22T00:00:00Z
paused since 2026-11-21T09:00:00Z: the daily cap of $5.00 is reached
not kept over a restart: the disk is full
DAY         GENERATION   MODEL     EMBEDDED  REUSED  SUPERSEDED  RETRIED  COST   SAVED
2026-11-21  all                    1,034     20,000  3           50       $4.99  $80.00
            one          openai/m  1,000     20,000  3                    $4.50  $80.00
            (questions)  openai/m  34                            2        $0.49
EMBEDDED and REUSED are tokens, SUPERSEDED changes; what was sent in vain, under RETRIED, is known of a model, not of a generation
`
	if got.code != exitDone || got.out != want {
		t.Errorf("%d %s\n%s", got.code, got.err, got.out)
	}
	got = invoke(t, nil, "", "spending", "--server", s.URL, "--json")
	if r := s.next(t); r.path != "/spending" || r.query != "days=7" {
		t.Errorf("%+v", r)
	}
	equalJSON(t, got.out, spendingJSON)

	answer = `{"state":"ready","kept":true,"today":{},"day":"2026-11-21","ends_at":"2026-11-22T00:00:00Z","days":[],"generations":[],"models":[]}`
	got = invoke(t, nil, "", "spending", "--server", s.URL)
	s.next(t)
	if want := "today, 2026-11-21 (UTC): 0 tokens billed, $0.00\nnothing was embedded in these days\n"; got.out != want {
		t.Errorf("%s", got.out)
	}
	for _, args := range [][]string{{"today"}, {"--days", "0"}, {"--days", "401"}, {"--days", "x"}} {
		if got := invoke(t, nil, "", append([]string{"spending", "--server", s.URL}, args...)...); got.code != exitUsage {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

// What a program embedded is told after a restart of it too, by GET /spending, GET /generations and the verb.
func TestSpendingOfAProgram(t *testing.T) {
	dir := t.TempDir()
	settings := settingsFile(t, t.TempDir(), "prices: {hash/64: 20000}\n")
	p := startProgram(t, dir, "--config", settings, "--embedder", "hash/64")
	p.put("a", prose("refunds", 5))
	embedded := p.generations()[0].Progress
	if embedded.TokensEmbedded == nil || *embedded.TokensEmbedded == 0 || *embedded.CostUSD == 0 {
		t.Fatalf("%+v", embedded)
	}
	p.stop()
	p = startProgram(t, dir, "--config", settings, "--embedder", "hash/64")
	after := p.generations()[0].Progress
	if *after.TokensEmbedded != *embedded.TokensEmbedded || *after.CostUSD != *embedded.CostUSD {
		t.Errorf("after a restart %d tokens, $%v; before it %d, $%v", *after.TokensEmbedded, *after.CostUSD, *embedded.TokensEmbedded, *embedded.CostUSD)
	}
	var s struct {
		State string `json:"state"`
		Kept  bool   `json:"kept"`
		Today struct {
			Cost float64 `json:"cost_usd"`
		} `json:"today"`
		Generations []struct {
			Tokens int64 `json:"tokens_embedded"`
		} `json:"generations"`
	}
	if err := json.Unmarshal([]byte(p.verb("", "spending", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	if s.State != "ready" || !s.Kept || len(s.Generations) != 1 || s.Generations[0].Tokens != *embedded.TokensEmbedded || s.Today.Cost != *embedded.CostUSD {
		t.Errorf("%+v", s)
	}
	if out := p.verb("", "spending"); !strings.Contains(out, p.generations()[0].Name) || !strings.Contains(out, "hash/64") {
		t.Errorf("%s", out)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "spending", "documents", "*.ndjson")); err != nil || len(files) != 1 {
		t.Errorf("%q, %v", files, err)
	}
}
