package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/liverag/liverag/chunker/external"
	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/indexer"
	"github.com/liverag/liverag/internal/spell"
	"github.com/liverag/liverag/vectordb"
)

func generationsVerb() verb {
	return verb{
		name: "generations", group: groupGenerations,
		summary: "List the indexes of the corpus, their recipes and how far each is",
		about:   "A generation is a whole index of the corpus, built from the log by one recipe: a chunker and a model. The alias live names the one that answers.",
		examples: []example{
			{"what there is, and which one answers", "liverag generations"},
			{"the name of the live one", "liverag generations --json | jq -r '.[] | select(.alias | index(\"live\")) | .name'"},
		},
		settings: clientSettings,
		setup:    func(*flag.FlagSet) action { return runGenerations },
	}
}

// generation is one of GET /generations.
type generation struct {
	Name     string          `json:"name"`
	Alias    []string        `json:"alias"`
	State    string          `json:"state"`
	Recipe   vectordb.Recipe `json:"recipe"`
	Sample   float64         `json:"sample"` // 0: all
	From     time.Time       `json:"from"`   // zero: from the beginning
	Progress replayProgress  `json:"progress"`
	Trouble  *trouble        `json:"trouble"`
}

// trouble is what keeps a generation from advancing.
type trouble struct {
	Since    time.Time      `json:"since"`
	Detail   string         `json:"detail"`
	Provider embedder.State `json:"provider"` // empty: it is not the model's provider
	NextTry  time.Time      `json:"next_try"`
}

// passing tells that nothing is wrong, and time alone will help.
func (t *trouble) passing() bool { return t.Provider == embedder.Held || t.Provider == embedder.Paused }

// replayProgress is how far a generation is, and what it took.
type replayProgress struct {
	Changes   int64   `json:"changes"`
	Of        int64   `json:"of"`
	Percent   float64 `json:"percent"`
	ETA       string  `json:"eta"`
	Documents int64   `json:"documents"`
	Chunks    int64   `json:"chunks"`
	// Nil where other processes index: the one that was asked does not know.
	TokensEmbedded *int64   `json:"tokens_embedded"`
	TokensReused   *int64   `json:"tokens_reused"`
	CostUSD        *float64 `json:"cost_usd"`
}

// spent says what was embedded, and what that cost.
func (p *replayProgress) spent() string {
	if p.TokensEmbedded == nil || p.TokensReused == nil {
		return "embedded elsewhere"
	}
	text := fmt.Sprintf("%s embedded, %s reused", count(*p.TokensEmbedded, "token"), spell.Thousands(*p.TokensReused))
	if p.CostUSD != nil && *p.CostUSD > 0 {
		text += ", " + dollars(*p.CostUSD)
	}
	return text
}

// dollars spells an amount with as many places as it needs.
func dollars(v float64) string {
	if v == 0 || v >= .01 {
		return fmt.Sprintf("$%.2f", v)
	}
	return fmt.Sprintf("$%.2g", v)
}

// embedded is the tokens that were, for a table.
func (p *replayProgress) embedded() string {
	if p.TokensEmbedded == nil {
		return "-"
	}
	return spell.Thousands(*p.TokensEmbedded)
}

// recipe spells a recipe in short: markdown 200, local/static.
func (g *generation) recipe() string {
	c, e := g.Recipe.Chunker, g.Recipe.Embedder
	text := c.Strategy
	if !external.Names(text) {
		text += fmt.Sprint(" ", c.Tokens)
	}
	if c.Overlap > 0 {
		text += fmt.Sprintf(" overlap %d", c.Overlap)
	}
	if c.Tokenizer != "" && c.Tokenizer != defaultConfig().Tokenizer {
		text += " of " + c.Tokenizer
	}
	text += ", " + e.Model
	if e.Long != "" && e.Long != defaultConfig().Long {
		text += " " + e.Long
	}
	return plain(text)
}

// part says which part of the log the generation is a view of; empty: all of it.
func (g *generation) part() string {
	var parts []string
	if g.Sample > 0 && g.Sample < 1 {
		parts = append(parts, fmt.Sprintf("%.3g %% of the documents", 100*g.Sample))
	}
	if !g.From.IsZero() {
		parts = append(parts, "from "+g.From.Format(time.RFC3339))
	}
	return strings.Join(parts, ", ")
}

// reuse is the share of the tokens that were not embedded again.
func (g *generation) reuse() string {
	p := g.Progress
	if p.TokensEmbedded == nil || p.TokensReused == nil || *p.TokensEmbedded+*p.TokensReused == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f %%", 100*float64(*p.TokensReused)/float64(*p.TokensEmbedded+*p.TokensReused))
}

func runGenerations(ctx context.Context, c *call) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "generations takes no arguments"}
	}
	var raw json.RawMessage
	if err := c.client(ctx).do(ctx, "GET", "/generations", nil, &raw, options{}); err != nil {
		return err
	}
	if c.JSON {
		c.Out.Printf("%s\n", strings.TrimSpace(string(raw)))
		return nil
	}
	var all []generation
	if err := json.Unmarshal(raw, &all); err != nil {
		return fmt.Errorf("the server does not answer like liverag: %w", err)
	}
	rows := [][]string{}
	for _, g := range all {
		state := plain(g.State)
		if g.State == "building" {
			state = fmt.Sprintf("building %.0f %%", g.Progress.Percent)
			if g.Progress.ETA != "" {
				state += ", " + plain(g.Progress.ETA) + " to go"
			}
		}
		if part := g.part(); part != "" {
			state += " (" + part + ")"
		}
		rows = append(rows, []string{
			plain(g.Name), plain(strings.Join(g.Alias, ",")), state, g.recipe(),
			spell.Thousands(g.Progress.Documents), spell.Thousands(g.Progress.Chunks), g.Progress.embedded(), g.reuse(),
		})
	}
	c.Out.table([]string{"NAME", "ALIAS", "STATE", "RECIPE", "DOCUMENTS", "CHUNKS", "TOKENS EMBEDDED", "REUSED"}, rows)
	for _, g := range all {
		if g.Trouble != nil && g.Trouble.Detail != "" {
			what := c.Out.bad("trouble")
			if g.Trouble.passing() {
				what = c.Out.warn("waiting")
			}
			c.Out.Printf("%s %s: %s\n", what, plain(g.Name), g.Trouble.say(time.Now()))
		}
	}
	return nil
}

// generationPath is where a generation lives.
func generationPath(name, action string) string {
	path := "/generations/" + url.PathEscape(name)
	if action != "" {
		path += "/" + action
	}
	return path
}

// oneName wants exactly one argument, a generation's name.
func oneName(c *call, verb string) (string, error) {
	if len(c.Args) != 1 {
		return "", &usageError{detail: verb + " needs the NAME of one generation", hint: "`liverag generations` lists them"}
	}
	if !nameForm.MatchString(c.Args[0]) {
		return "", &usageError{detail: fmt.Sprintf("%q can't be the name of a generation", c.Args[0]), hint: "`liverag generations` lists them"}
	}
	return c.Args[0], nil
}

// moveAlias makes a call that moves live, and says to where.
func moveAlias(ctx context.Context, c *call, path string, body any, timeout time.Duration) error {
	begin := time.Now()
	var raw json.RawMessage
	if err := c.client(ctx).do(ctx, "POST", path, body, &raw, options{timeout: timeout}); err != nil {
		return withGenerationHint(err)
	}
	if c.JSON {
		c.Out.Printf("%s\n", strings.TrimSpace(string(raw)))
		return nil
	}
	var g struct {
		generation
		Gate []indexer.Measured `json:"gate"`
	}
	if err := json.Unmarshal(raw, &g); err != nil {
		return fmt.Errorf("the server does not answer like liverag: %w", err)
	}
	printMeasured(c.Out, g.Gate)
	c.Out.Printf("%s answers now (%s), after %s\n", c.Out.good(plain(g.Name)), g.recipe(), short(time.Since(begin)))
	return nil
}
