package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/spell"
	"github.com/liverag/liverag/ledger"
)

func spendingVerb() verb {
	return verb{
		name: "spending", group: groupCare,
		summary: "What embedding took and cost, by day and generation, and what is left of the day's cap",
		about: `Prints what was embedded for each generation on each day (UTC), what was reused instead and would have cost the money under SAVED, how many changes were superseded before they were embedded, how many tokens were sent in vain, and what all of it cost by the setting prices. What questions took is told for each model.

The account is kept in the data directory, over restarts. It tells what ` + "`liverag up`" + `, index and serve spent; evals and benchmarks that index by themselves are not in it.

With the settings spending.daily_usd and spending.daily_tokens embedding of documents pauses when a day's cap is reached, and goes on by itself at midnight (UTC). Questions are answered all the time.`,
		examples: []example{
			{"the last week", "liverag spending"},
			{"what reuse has saved in a month", "liverag spending --days 30 --json | jq '[.generations[].saved_usd] | add'"},
			{"is the day's cap reached?", "liverag spending --json | jq -r .state"},
		},
		settings: clientSettings,
		setup: func(fs *flag.FlagSet) action {
			days := fs.Int("days", 7, "tell of the last `N` days, today included")
			return func(ctx context.Context, c *call) error { return runSpending(ctx, c, *days) }
		},
	}
}

func runSpending(ctx context.Context, c *call, days int) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "spending takes no arguments"}
	}
	if days < 1 || days > ledger.DaysKept {
		return &usageError{detail: fmt.Sprintf("--days is from 1 to %d", ledger.DaysKept)}
	}
	var raw json.RawMessage
	if err := c.client(ctx).do(ctx, "GET", "/spending?days="+strconv.Itoa(days), nil, &raw, options{}); err != nil {
		return err
	}
	if c.JSON {
		c.Out.Printf("%s\n", strings.TrimSpace(string(raw)))
		return nil
	}
	var s ledger.Spending
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("the server does not answer like liverag: %w", err)
	}
	printSpending(c.Out, &s)
	return nil
}

func printSpending(out *terminal, s *ledger.Spending) {
	today := fmt.Sprintf("%s billed, %v", count(s.Today.TokensBilled, "token"), s.Today.Cost)
	if s.Cap != nil {
		left := ""
		if s.Left != nil {
			left = caps(s.Left) + " left "
		}
		today += fmt.Sprintf("; the cap is %s, %suntil %s", caps(s.Cap), left, s.EndsAt.UTC().Format(time.RFC3339))
	}
	out.Printf("%s %s\n", out.bold("today, "+plain(s.Day)+" (UTC):"), today)
	if s.State == embedder.Paused {
		out.Printf("%s since %s: %s\n", out.bad("paused"), s.Since.UTC().Format(time.RFC3339), plain(s.Detail))
	}
	if !s.Kept {
		out.Printf("%s\n", out.warn("not kept over a restart: "+plain(s.NotKept)))
	}
	if len(s.Days) == 0 {
		out.Printf("nothing was embedded in these days\n")
		return
	}
	var rows [][]string
	for _, d := range s.Days {
		var embedded, reused, superseded int64
		var saved ledger.USD
		var parts [][]string
		for _, g := range d.Generations {
			parts = append(parts, []string{"", plain(g.Generation), plain(g.Model), spell.Thousands(g.TokensEmbedded), spell.Thousands(g.TokensReused), spell.Thousands(g.Superseded), "", g.Cost.String(), g.Saved.String()})
			embedded, reused, superseded, saved = embedded+g.TokensEmbedded, reused+g.TokensReused, superseded+g.Superseded, saved+g.Saved
		}
		for _, m := range d.Models {
			if m.Questions != (ledger.Charges{}) {
				parts = append(parts, []string{"", ledger.Questions, plain(m.Model), spell.Thousands(m.Questions.TokensBilled), "", "", spell.Thousands(m.Questions.TokensRetried), m.Questions.Cost.String(), ""})
				embedded += m.Questions.TokensBilled
			}
		}
		rows = append(rows, []string{plain(d.Day), "all", "", spell.Thousands(embedded), spell.Thousands(reused), spell.Thousands(superseded), spell.Thousands(d.TokensRetried), d.Cost.String(), saved.String()})
		rows = append(rows, parts...)
	}
	out.table([]string{"DAY", "GENERATION", "MODEL", "EMBEDDED", "REUSED", "SUPERSEDED", "RETRIED", "COST", "SAVED"}, rows)
	out.Printf("%s\n", out.dim("EMBEDDED and REUSED are tokens, SUPERSEDED changes; what was sent in vain, under RETRIED, is known of a model, not of a generation"))
}

// caps spells money, tokens, or both.
func caps(l *ledger.Limit) string {
	var parts []string
	if l.USD != nil {
		parts = append(parts, l.USD.String())
	}
	if l.Tokens != nil {
		parts = append(parts, count(*l.Tokens, "token"))
	}
	return strings.Join(parts, " and ")
}

// spendingDir is where the account of spending is.
func (c *Config) spendingDir() string { return filepath.Join(c.Data, "spending", c.Corpus) }

// prices are US dollars a million tokens, by model.
func (c *Config) prices() map[string]float64 {
	out := map[string]float64{}
	for model, text := range c.Prices {
		out[model], _ = strconv.ParseFloat(text, 64) // validated
	}
	return out
}

// daily is what may be spent in a day.
func (s *SpendingConfig) daily() ledger.Amount {
	return ledger.Amount{Tokens: int64(s.DailyTokens), Cost: ledger.Dollars(s.DailyUSD)}
}

// validate checks that the caps can be kept.
func (s *SpendingConfig) validate(model string, prices map[string]string, fail func(name, detail string, args ...any)) {
	if _, priced := prices[model]; s.DailyUSD > 0 && !priced && strings.HasPrefix(model, openaiPrefix) {
		fail("spending.daily_usd", "can't be kept without the price of %s: add it to prices, in US dollars a million tokens, 0 if it costs nothing", model)
	}
}

// openaiPrefix begins the names of the models whose provider may charge for them.
const openaiPrefix = "openai/"

// price is what a million of a model's tokens costs, in US dollars; 0: nothing, or not known.
func (m *models) price(model string) float64 {
	if m.ledger == nil {
		return 0
	}
	return m.ledger.Price(model)
}
