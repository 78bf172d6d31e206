package main

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/bpe"
	"github.com/liverag/liverag/internal/mockprovider"
)

// TestRecipesOfTheRepository reads those that it ships, and holds mistakes to their lines.
func TestRecipesOfTheRepository(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "recipes", "*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("there are %q, %v", files, err)
	}
	for _, file := range files {
		r, _, err := readRecipe(file)
		if err != nil || r.Name == "" || r.Chunker.Strategy == "" || r.Embedder.Model == "" {
			t.Errorf("%s: %+v, %v", file, r, err)
		}
	}
	dir := t.TempDir()
	for content, want := range map[string]string{
		"chunker:\n  strategy: token\n  token: 3\n": "bad.yaml:3",
		"nam: x\n":                                "bad.yaml:1",
		"name: No\n":                              "bad.yaml:1",
		"chunker: {tokens: many}\n":               "bad.yaml:1",
		"chunker: {tokens: 3}\n":                  "bad.yaml:1",
		"embedder:\n  model: a/b\n  model: a/c\n": "bad.yaml:3",
		"- a\n": "mapping",
		"":      "empty",
	} {
		write(t, dir, "bad.yaml", []byte(content))
		if _, _, err := readRecipe(filepath.Join(dir, "bad.yaml")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want something about %s", content, err, want)
		}
	}
}

// TestPlanAgreesWithTheReplay holds a plan to what the replay then takes, by a provider's model with a price: chunks, tokens, money and what is reused.
func TestPlanAgreesWithTheReplay(t *testing.T) {
	// What is paid is what the provider charges; it counts as the model's own tokenizer does.
	encoding, err := bpe.Load(chunker.CL100K)
	if err != nil {
		t.Fatal(err)
	}
	address, _ := endpoint(t, "127.0.0.1:0", 64, func(cfg *mockprovider.Config) { cfg.Key, cfg.Tokens = "", encoding.Count })
	dir := t.TempDir()
	p := startProgram(t, t.TempDir(), "--config", settingsFile(t, dir, "prices: {openai/text-embedding-3-small: 20000}\nopenai: {base_url: \"http://"+address+"/v1\", tpm: 600000, rpm: 3000}\n"), "--embedder", "hash/384")
	const documents = 60
	for i := range documents {
		p.put(fmt.Sprintf("d/%d", i), prose(fmt.Sprintf("topic%d", i), 3+i%5))
	}
	plan := func(args ...string) indexer.Plan {
		t.Helper()
		var out indexer.Plan
		if err := json.Unmarshal([]byte(p.verb("", append([]string{"plan", "--json"}, args...)...)), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	write(t, dir, "paid.yaml", []byte("name: paid\nchunker: {strategy: recursive, tokens: 60}\nembedder: {model: openai/text-embedding-3-small}\n"))
	recipe := filepath.Join(dir, "paid.yaml")
	got := plan("--recipe", recipe)
	if got.Documents != documents || got.Sampled != (indexer.PlanSample{Documents: documents, Of: documents, Share: 1}) || got.Margin != (indexer.PlanMargin{}) {
		t.Errorf("not all documents were looked at: %+v", got)
	}
	if got.TokensReused != 0 || got.Requests == 0 || got.Takes == "" || got.By != "the provider's limit" {
		t.Errorf("nothing is there to be reused: %+v", got)
	}
	p.verb("", "replay", "--recipe", recipe, "--until-caught-up")
	agree := func(name string, plan indexer.Plan) {
		t.Helper()
		var g generation
		p.must(&g, "GET", "/generations/"+name, nil)
		if g.Progress.Chunks != plan.Chunks || *g.Progress.TokensEmbedded != plan.TokensEmbedded || *g.Progress.TokensReused != plan.TokensReused {
			t.Errorf("%s took %+v, %s, the plan said %+v", name, g.Progress, g.Progress.spent(), plan)
		}
		if math.Abs(*g.Progress.CostUSD-plan.CostUSD) > 1e-9 {
			t.Errorf("%s cost %v, the plan said %v", name, *g.Progress.CostUSD, plan.CostUSD)
		}
	}
	agree("paid", got)
	if got.CostUSD <= 0 || math.Abs(got.CostUSD-float64(got.TokensBilled)*.02) > 1e-9 {
		t.Errorf("%d tokens cost %v", got.TokensBilled, got.CostUSD)
	}

	// Another generation of the model has everything; once it is dropped, the cache has.
	again := plan("--recipe", recipe, "--name", "again")
	if again.TokensEmbedded != 0 || again.CostUSD != 0 || again.TokensReused != got.TokensEmbedded || again.Chunks != got.Chunks {
		t.Errorf("with all vectors there: %+v", again)
	}
	p.must(nil, "DELETE", "/generations/paid", nil)
	again = plan("--recipe", recipe, "--name", "again")
	if again.TokensEmbedded != 0 || again.CostUSD != 0 {
		t.Errorf("with all vectors in the cache: %+v", again)
	}
	p.verb("", "replay", "--recipe", recipe, "--name", "again", "--until-caught-up")
	agree("again", again)

	// Flags go before the file; a sample is planned as such.
	half := plan("--recipe", recipe, "--overlap", "9", "--sample", "0.5")
	if half.Recipe.Chunker.Overlap != 9 || half.Recipe.Chunker.Strategy != "recursive" || half.Documents < documents/5 || half.Documents > documents*4/5 {
		t.Errorf("half of it: %+v", half)
	}
	p.verb("", "replay", "--recipe", recipe, "--overlap", "9", "--sample", "0.5", "--name", "half", "--until-caught-up")
	agree("half", half)
	if out := p.verb("", "plan", "--recipe", recipe, "--tokens", "35"); !strings.Contains(out, "counted on all 60 documents") || !strings.Contains(out, "$") {
		t.Errorf("it says %s", out)
	}
	local := plan("--embedder", "local/static", "--tokens", "50")
	if local.Takes == "" || local.CostUSD != 0 || !strings.HasPrefix(local.By, "the model's speed here") {
		t.Errorf("a local model: %+v", local)
	}
	fails(t, exitFailed, []string{"recipe_invalid"}, "plan", "--embedder", "local/none", "--server", p.base)
	fails(t, exitUsage, []string{`paid\.yaml:1`}, "replay", "--recipe", badRecipe(t, dir), "--server", p.base)
}

// TestPlanUnderACap: a plan says on how many days a replay is done under the day's cap, whatever is capped, and which of the limits decides that.
func TestPlanUnderACap(t *testing.T) {
	t.Parallel()
	address, _ := endpoint(t, "127.0.0.1:0", 64, func(cfg *mockprovider.Config) { cfg.Key = "" })
	dir, data := t.TempDir(), t.TempDir()
	begin := func(settings string) *program {
		t.Helper()
		file := settingsFile(t, dir, "openai: {base_url: \"http://"+address+"/v1\", tpm: 6000000, rpm: 3000}\nprices: {openai/paid: 20}\n"+settings)
		return startProgram(t, data, "--config", file, "--embedder", "hash/64")
	}
	p := begin("")
	for i := range 40 {
		p.put(fmt.Sprintf("d/%d", i), prose(fmt.Sprintf("topic%d", i), 5))
	}
	plan := func(args ...string) (out indexer.Plan) {
		t.Helper()
		if err := json.Unmarshal([]byte(p.verb("", append([]string{"plan", "--json"}, args...)...)), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	free := plan("--embedder", "openai/paid")
	if free.Cap != nil || free.Bound != indexer.BoundByAllowance || free.TokensBilled < 1000 || free.CostUSD == 0 {
		t.Fatalf("without a cap: %+v", free)
	}
	if local := plan("--tokens", "50"); local.Bound != indexer.BoundByModel {
		t.Errorf("by a model that runs here: %+v", local)
	}

	// A part of it fits into a day, by tokens, by money, or by both.
	tokens, dollars := func(days float64) int64 { return int64(float64(free.TokensBilled) / days) }, func(days float64) float64 { return free.CostUSD / days }
	for _, c := range []struct {
		settings string
		days     int64
		says     string
	}{
		{fmt.Sprintf("spending: {daily_tokens: %d}", tokens(2.5)), 3, fmt.Sprintf("the daily cap of %d tokens", tokens(2.5))},
		{fmt.Sprintf("spending: {daily_usd: %f}", dollars(3.5)), 4, "the daily cap of $"},
		{fmt.Sprintf("spending: {daily_tokens: %d, daily_usd: %f}", tokens(2.5), dollars(9.5)), 10, "the daily cap of $"},
		{fmt.Sprintf("spending: {daily_tokens: %d, daily_usd: %f}", tokens(.1), dollars(.1)), 1, "the provider's limit"},
	} {
		p.stop()
		p = begin(c.settings + "\n")
		before := time.Now().UTC()
		got := plan("--embedder", "openai/paid")
		if got.Cap == nil || !strings.HasPrefix(got.By, c.says) || (got.Bound == indexer.BoundByCap) != (c.days > 1) || got.Takes == "" || len(got.Notes) == 0 {
			t.Fatalf("%s: %+v", c.settings, got)
		}
		// Today, the replay is as quick as anything; a midnight may come between.
		from, to := before.AddDate(0, 0, int(c.days)-1).Format(time.DateOnly), time.Now().UTC().AddDate(0, 0, int(c.days)-1).Format(time.DateOnly)
		if got.Cap.Days != c.days || got.Cap.Until != from && got.Cap.Until != to {
			t.Errorf("%s: %+v, want %d days until %s", c.settings, got.Cap, c.days, to)
		}
		said := p.verb("", "plan", "--embedder", "openai/paid")
		want := fmt.Sprintf("%d days, until %s; ", c.days, got.Cap.Until)
		if c.days == 1 {
			want = "done today; "
		}
		if !strings.Contains(said, want) || !strings.Contains(said, " a day (UTC), ") || !strings.Contains(said, " left today\n") {
			t.Errorf("%s: it says %s", c.settings, said)
		}
	}

	p.stop()
	p = begin("spending: {daily_usd: 5}\n")
	if got := plan("--embedder", "openai/unpriced"); got.Takes != "" || got.Bound != indexer.BoundByCap || got.Cap == nil || got.Cap.Days != 0 || !strings.Contains(got.By, "nobody said what openai/unpriced costs") {
		t.Errorf("of a model without a price: %+v", got)
	}
	if got := plan("--tokens", "50"); got.Cap != nil {
		t.Errorf("what runs here costs nothing: %+v", got)
	}
}

func badRecipe(t *testing.T, dir string) string {
	t.Helper()
	write(t, dir, "bad/paid.yaml", []byte("chunks: {}\n"))
	return filepath.Join(dir, "bad", "paid.yaml")
}
