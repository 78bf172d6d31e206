package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"
)

func replayVerb() verb {
	return verb{
		name: "replay", group: groupGenerations,
		summary: "Build another generation from the log, with another chunker or model",
		about: `Reads the log from its beginning into a new generation, while the live one goes on answering and live changes go first. What is not said of the recipe is as the server is set up; without any flag the same recipe is built anew, as a repair. When it has caught up it follows the log like the live one, and ` + "`liverag promote`" + ` lets it answer.

Progress is shown where somebody watches, or with --until-caught-up; Ctrl-C leaves the replay running on the server.`,
		examples: []example{
			{"smaller chunks, on trial", "liverag replay --tokens 120 --name trial"},
			{"cut differently, wait for it, ask both", "liverag replay --chunker recursive --overlap 20 --name cut --until-caught-up && liverag query refunds --generation cut"},
			{"a chunker of your own: a program in the server's directory, or a service", "liverag replay --chunker exec:./my_chunker.py --name mine"},
			{"on a tenth of the documents, and of the model's time no more than a third", "liverag replay --tokens 120 --sample 0.1 --share 0.3 --name trial"},
			{"another model", "liverag replay --embedder hash/384 --name words"},
		},
		settings: append([]string{"chunker", "tokens", "overlap", "tokenizer", "embedder", "long"}, clientSettings...),
		setup: func(fs *flag.FlagSet) action {
			name := fs.String("name", "", "`NAME` of the new generation: a small letter, then small letters, digits and _ (default: made from the recipe)")
			follow := fs.Bool("until-caught-up", false, "return only when it is ready, or fail")
			part := replayPart{}
			fs.Float64Var(&part.sample, "sample", 1, "the `SHARE` of the documents to replay, the same ones every time; below 1 the generation can be asked and compared, not promoted")
			fs.StringVar(&part.from, "from", "beginning", "the `TIME` (RFC 3339) from which on changes count; later than the beginning, the generation can't be promoted")
			fs.Float64Var(&part.share, "share", 1, "the `SHARE` of the model's time that the replay may take; live changes go first in any case")
			return func(ctx context.Context, c *call) error { return runReplay(ctx, c, *name, part, *follow) }
		},
	}
}

// pollEvery is how often progress is asked for.
const pollEvery = 500 * time.Millisecond

// replayPart is how much a replay reads and takes.
type replayPart struct {
	sample float64
	from   string
	share  float64
}

func (p replayPart) check() error {
	for name, share := range map[string]float64{"--sample": p.sample, "--share": p.share} {
		if !(share > 0 && share <= 1) {
			return &usageError{detail: fmt.Sprintf("%s is above 0 and at most 1, not %v", name, share)}
		}
	}
	if p.from == "beginning" {
		return nil
	}
	if _, err := time.Parse(time.RFC3339, p.from); err != nil {
		return &usageError{detail: fmt.Sprintf("--from is a time like 2026-11-21T10:00:00Z, or beginning, not %q", p.from)}
	}
	return nil
}

func runReplay(ctx context.Context, c *call, name string, part replayPart, follow bool) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "replay takes no arguments; --name names the new generation"}
	}
	if name != "" && !nameForm.MatchString(name) {
		return &usageError{detail: fmt.Sprintf("--name %q is no name: a small letter, then small letters, digits and _, at most 63", name)}
	}
	if err := part.check(); err != nil {
		return err
	}
	request := map[string]any{"recipe": changedRecipe(c), "sample": part.sample, "from": part.from, "share": part.share}
	if name != "" {
		request["name"] = name
	}
	cl := c.client(ctx)
	var raw json.RawMessage
	if err := cl.do(ctx, "POST", "/generations", request, &raw, options{}); err != nil {
		return withGenerationHint(err)
	}
	g, err := readGeneration(raw)
	if err != nil {
		return err
	}
	if !c.JSON {
		c.Out.Printf("replaying the log into %s (%s)\n", c.Out.bold(plain(g.Name)), g.recipe())
	}
	if follow || c.Out.Watched && !c.JSON {
		begin := time.Now()
		if raw, err = followReplay(ctx, c, cl, raw); err != nil {
			return err
		}
		if g, err = readGeneration(raw); err != nil {
			return err
		}
		if !c.JSON {
			p := g.Progress
			c.Out.Printf("%s after %s: %s, %s, %s embedded, %s reused\n", c.Out.good("caught up"), short(time.Since(begin)),
				count(p.Documents, "document"), count(p.Chunks, "chunk"), count(p.TokensEmbedded, "token"), thousands(p.TokensReused))
		}
	}
	if c.JSON {
		c.Out.Printf("%s\n", strings.TrimSpace(string(raw)))
		return nil
	}
	c.Out.Printf("ask it with `liverag query TEXT --generation %s`", g.Name)
	if g.part() == "" {
		c.Out.Printf(", let it answer with `liverag promote %s`", g.Name)
	}
	c.Out.Printf("\n")
	return nil
}

// changedRecipe is what somebody said of the recipe; the rest is the server's to fill.
func changedRecipe(c *call) map[string]any {
	pick := func(names map[string]any, keys map[string]string) map[string]any {
		out := map[string]any{}
		for setting, value := range names {
			if !c.Settings.Origin(setting).IsDefault() {
				out[keys[setting]] = value
			}
		}
		return out
	}
	cfg := c.Config
	return map[string]any{
		"chunker": pick(map[string]any{"chunker": cfg.Chunker, "tokens": cfg.Tokens, "overlap": cfg.Overlap, "tokenizer": cfg.Tokenizer},
			map[string]string{"chunker": "strategy", "tokens": "tokens", "overlap": "overlap", "tokenizer": "tokenizer"}),
		"embedder": pick(map[string]any{"embedder": cfg.Embedder, "long": cfg.Long}, map[string]string{"embedder": "model", "long": "long"}),
	}
}

func readGeneration(raw json.RawMessage) (*generation, error) {
	g := &generation{}
	if err := json.Unmarshal(raw, g); err != nil {
		return nil, fmt.Errorf("the server does not answer like liverag: %w", err)
	}
	return g, nil
}

// followReplay shows progress until the generation is ready, and returns it. It is an error if it never will be.
func followReplay(ctx context.Context, c *call, cl *client, raw json.RawMessage) (json.RawMessage, error) {
	for {
		g, err := readGeneration(raw)
		if err != nil {
			return nil, err
		}
		switch g.State {
		case "ready", "partial":
			c.Err.clearStatus()
			return raw, nil
		case "failed", "cancelled":
			detail := ""
			if g.Trouble != nil {
				detail = ": " + plain(g.Trouble.Detail)
			}
			return nil, withHint(fmt.Errorf("the replay into %s is %s%s", plain(g.Name), g.State, detail), fmt.Sprintf("`liverag drop %s` clears it away", g.Name))
		}
		p := g.Progress
		text := fmt.Sprintf("%3.0f %%  %s of %s, %s embedded, %s reused", p.Percent, thousands(p.Changes), count(p.Of, "change"), count(p.TokensEmbedded, "token"), thousands(p.TokensReused))
		if p.ETA != "" {
			text += ", " + p.ETA + " to go"
		}
		if g.State == "paused" {
			text += ", paused"
		}
		c.Err.Status("%s", plain(text))
		err = sleep(ctx, pollEvery)
		if err == nil {
			err = cl.do(ctx, "GET", generationPath(g.Name, ""), nil, &raw, options{})
		}
		if errors.Is(err, context.Canceled) {
			c.Err.clearStatus()
			return nil, withHint(errors.New("stopped watching: the replay goes on"), "`liverag generations` shows how far it is")
		}
		if err != nil {
			return nil, err
		}
	}
}
