package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/spell"
)

func planVerb() verb {
	return verb{
		name: "plan", group: groupGenerations,
		summary: "Say what a replay will take, before it starts",
		about: `Cuts a part of the live generation's documents by the recipe, looks up which vectors other generations of the model and the cache have already, and projects what is left onto all of them: chunks, tokens, requests, money (by the setting prices) and time (by the provider's limits, or by how fast a local model is at this moment). Where the settings spending.daily_usd or spending.daily_tokens cap what a day may cost, it says on which day the replay is done, and whether the cap or the provider's allowance decides that. Nothing is written, and nothing is sent to a model that costs something.

It looks at 500 documents, or a twentieth of them if that is more, and says how far off the totals may be.`,
		examples: []example{
			{"what would smaller chunks take?", "liverag plan --tokens 120"},
			{"what a recipe in a file takes, then do it", "liverag plan --recipe recipes/small-chunks.yaml && liverag replay --recipe recipes/small-chunks.yaml"},
			{"what would another model cost?", "liverag plan --embedder openai/text-embedding-3-small --json | jq .cost_usd"},
		},
		settings: append([]string{"chunker", "tokens", "overlap", "tokenizer", "embedder", "long"}, clientSettings...),
		setup: func(fs *flag.FlagSet) action {
			ask := replayRequest{}
			ask.declare(fs)
			return func(ctx context.Context, c *call) error { return runPlan(ctx, c, ask) }
		},
	}
}

// planDays says on how many days a replay embeds under the day's cap.
func planDays(c *indexer.PlanCap) string {
	days := "not done in a hundred years"
	switch {
	case c.Days == 1:
		days = "done today"
	case c.Days > 1:
		days = fmt.Sprintf("%s, until %s", count(c.Days, "day"), plain(c.Until))
	}
	return days + "; " + caps(&c.Daily) + " a day (UTC), " + caps(&c.Left) + " left today"
}

// planTimeout is how long a server may take to read and cut its documents.
const planTimeout = 2 * time.Minute

func runPlan(ctx context.Context, c *call, ask replayRequest) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "plan takes no arguments; --recipe names a file"}
	}
	request, err := ask.body(c)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := c.client(ctx).do(ctx, "POST", "/generations/plan", request, &raw, options{timeout: planTimeout}); err != nil {
		return withGenerationHint(err)
	}
	if c.JSON {
		c.Out.Printf("%s\n", strings.TrimSpace(string(raw)))
		return nil
	}
	var p indexer.Plan
	if err := json.Unmarshal(raw, &p); err != nil {
		return fmt.Errorf("the server does not answer like liverag: %w", err)
	}
	g := generation{Recipe: p.Recipe, Sample: p.Sample, From: p.From}
	title := g.recipe()
	if part := g.part(); part != "" {
		title += " (" + part + ")"
	}
	c.Out.Printf("%s\n", c.Out.bold(title))
	row := func(name, value string, margin float64) []string {
		if margin > 0 {
			value += fmt.Sprintf(" ± %.0f %%", 100*margin)
		}
		return []string{"  " + name, value}
	}
	rows := [][]string{
		row("documents", spell.Thousands(p.Documents), 0),
		row("chunks", spell.Thousands(p.Chunks)+fmt.Sprintf(", %s to embed", spell.Thousands(p.ChunksEmbedded)), p.Margin.Chunks),
		row("tokens to embed", fmt.Sprintf("%s (%s reused)", spell.Thousands(p.TokensEmbedded), spell.Thousands(p.TokensReused)), p.Margin.TokensEmbedded),
	}
	if p.Requests > 0 {
		rows = append(rows, row("requests", spell.Thousands(p.Requests)+" or more", 0))
	}
	rows = append(rows, row("cost", dollars(p.CostUSD), p.Margin.TokensBilled))
	takes := plain(p.Takes)
	if takes == "" {
		takes = "-"
	}
	rows = append(rows, row("time", fmt.Sprintf("%s (%s)", takes, plain(p.By)), 0))
	if p.Cap != nil {
		rows = append(rows, row("daily cap", planDays(p.Cap), 0))
	}
	for _, r := range rows {
		c.Out.Printf("%-18s %s\n", r[0], r[1])
	}
	seen := fmt.Sprintf("estimated from %s of %s in %s", spell.Thousands(p.Sampled.Documents), count(p.Sampled.Of, "document"), plain(p.Source))
	if p.Sampled.Documents == p.Sampled.Of {
		seen = fmt.Sprintf("counted on all %s in %s", count(p.Sampled.Of, "document"), plain(p.Source))
	}
	c.Out.Printf("%s\n", c.Out.dim(seen))
	for _, note := range p.Notes {
		c.Out.Printf("%s\n", c.Out.dim(plain(note)))
	}
	return nil
}
