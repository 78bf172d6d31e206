package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/liverag/liverag/internal/spell"
)

func replayVerb() verb {
	return verb{
		name: "replay", group: groupGenerations,
		summary: "Build another generation from the log, with another chunker or model",
		about: `Reads the log from its beginning into a new generation, while the live one goes on answering and live changes go first. What is not said of the recipe is as the server is set up; without any flag the same recipe is built anew, as a repair. When it has caught up it follows the log like the live one, and ` + "`liverag promote`" + ` lets it answer.

A recipe may be a file, to be reviewed like code; flags beside it change single values. ` + "`liverag plan`" + ` says beforehand what a replay takes.

Progress is shown where somebody watches, or with --until-caught-up; Ctrl-C leaves the replay running on the server.`,
		examples: []example{
			{"smaller chunks, on trial", "liverag replay --tokens 120 --name trial"},
			{"a recipe that is kept in a repository", "liverag replay --recipe recipes/small-chunks.yaml"},
			{"cut differently, wait for it, ask both", "liverag replay --chunker recursive --overlap 20 --name cut --until-caught-up && liverag query refunds --generation cut"},
			{"a chunker of your own: a program in the server's directory, or a service", "liverag replay --chunker exec:./my_chunker.py --name mine"},
			{"on a tenth of the documents, and of the model's time no more than a third", "liverag replay --tokens 120 --sample 0.1 --share 0.3 --name trial"},
			{"another model", "liverag replay --embedder hash/384 --name words"},
		},
		settings: append([]string{"chunker", "tokens", "overlap", "tokenizer", "embedder", "long"}, clientSettings...),
		setup: func(fs *flag.FlagSet) action {
			ask := replayRequest{}
			ask.declare(fs)
			follow := fs.Bool("until-caught-up", false, "return only when it is ready, or fail")
			return func(ctx context.Context, c *call) error { return runReplay(ctx, c, ask, *follow) }
		},
	}
}

// pollEvery is how often progress is asked for.
const pollEvery = 500 * time.Millisecond

// replayRequest is what replay and plan are told.
type replayRequest struct {
	name, recipe string
	sample       float64
	from         string
	share        float64
}

func (r *replayRequest) declare(fs *flag.FlagSet) {
	fs.StringVar(&r.name, "name", "", "`NAME` of the new generation: a small letter, then small letters, digits and _ (default: the recipe file's, or else made from the recipe)")
	fs.StringVar(&r.recipe, "recipe", "", "`FILE` with the recipe: name, chunker (strategy, tokens, overlap, tokenizer) and embedder (model, long), each optional")
	fs.Float64Var(&r.sample, "sample", 1, "the `SHARE` of the documents to replay, the same ones every time; below 1 the generation can be asked and compared, not promoted")
	fs.StringVar(&r.from, "from", "beginning", "the `TIME` (RFC 3339) from which on changes count; later than the beginning, the generation can't be promoted")
	fs.Float64Var(&r.share, "share", 1, "the `SHARE` of the model's time that the replay may take; live changes go first in any case")
}

func (r *replayRequest) check() error {
	if r.name != "" && !nameForm.MatchString(r.name) {
		return &usageError{detail: fmt.Sprintf("--name %q is no name: a small letter, then small letters, digits and _, at most 63", r.name)}
	}
	for name, share := range map[string]float64{"--sample": r.sample, "--share": r.share} {
		if !(share > 0 && share <= 1) {
			return &usageError{detail: fmt.Sprintf("%s is above 0 and at most 1, not %v", name, share)}
		}
	}
	if r.from == "beginning" {
		return nil
	}
	if _, err := time.Parse(time.RFC3339, r.from); err != nil {
		return &usageError{detail: fmt.Sprintf("--from is a time like 2026-11-21T10:00:00Z, or beginning, not %q", r.from)}
	}
	return nil
}

// body is what POST /generations, and POST /generations/plan, take.
func (r *replayRequest) body(c *call) (map[string]any, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	recipe, name, err := askedRecipe(c, r.recipe)
	if err != nil {
		return nil, err
	}
	body := map[string]any{"recipe": recipe}
	if r.sample != 1 {
		body["sample"] = r.sample
	}
	if r.from != "beginning" {
		body["from"] = r.from
	}
	if r.share != 1 {
		body["share"] = r.share
	}
	if name = cmp.Or(r.name, name); name != "" {
		body["name"] = name
	}
	return body, nil
}

func runReplay(ctx context.Context, c *call, ask replayRequest, follow bool) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "replay takes no arguments; --name names the new generation"}
	}
	request, err := ask.body(c)
	if err != nil {
		return err
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
			c.Out.Printf("%s after %s: %s, %s, %s\n", c.Out.good("caught up"), short(time.Since(begin)),
				count(p.Documents, "document"), count(p.Chunks, "chunk"), p.spent())
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
		text := fmt.Sprintf("%3.0f %%  %s of %s, %s", p.Percent, spell.Thousands(p.Changes), count(p.Of, "change"), p.spent())
		if p.ETA != "" {
			text += ", " + p.ETA + " to go"
		}
		if g.State == "paused" {
			text += ", paused"
		} else if g.Trouble != nil && g.Trouble.Provider != "" {
			text += ", " + providerWords[g.Trouble.Provider]
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
