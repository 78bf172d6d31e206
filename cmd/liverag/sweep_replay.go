package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/liverag/liverag/vectordb"
)

// replays makes generations of a running liverag for a sweep, and remembers which ones, over interruptions too.
type replays struct {
	*sweep
	frame    *evalFrame
	cl       *client
	progress *sweepProgress
	// notes is where a file stands for each generation that a sweep made on this server, and has not dropped.
	notes string
	there map[string]bool // the generations that were there before
}

func (s *sweep) openReplays(ctx context.Context, frame *evalFrame, cl *client, progress *sweepProgress) (*replays, error) {
	r := &replays{sweep: s, frame: frame, cl: cl, progress: progress, notes: filepath.Join(frame.call.Config.Data, "evals", "sweeps", url.PathEscape(cl.base)), there: map[string]bool{}}
	var all []generation
	if err := cl.do(ctx, "GET", "/generations", nil, &all, options{}); err != nil {
		return nil, err
	}
	for _, g := range all {
		r.there[g.Name] = true
	}
	return r, nil
}

// generationName is the recipe's, and tells a sample.
func (s *sweep) generationName(r *sweptRecipe) string {
	if s.sample < 1 {
		return r.name + "_sample" + strings.NewReplacer(".", "_", "-", "_").Replace(fmt.Sprintf("%g", s.sample))
	}
	return r.name
}

// sweptGeneration is one of GET /generations, with its sizes.
type sweptGeneration struct {
	generation
	Stats   *vectordb.Stats `json:"stats"`
	Created string          `json:"created_at"`
}

// build replays the log by a recipe, unless that was done, and waits until it has caught up.
func (x *replays) build(ctx context.Context, r *sweptRecipe) (*builtRecipe, error) {
	name := x.generationName(r)
	if !nameForm.MatchString(name) {
		return nil, fmt.Errorf("%q is no name of a generation: give the recipe a shorter name", name)
	}
	made := !x.there[name]
	if made {
		// Before it is made: what is made and not noted would stay for good.
		if err := x.note(name, ""); err != nil {
			return nil, err
		}
	}
	request := map[string]any{"name": name, "recipe": r.said, "sample": x.sample, "share": x.share}
	var raw json.RawMessage
	err := patiently(ctx, func() error { return x.cl.do(ctx, "POST", "/generations", request, &raw, options{}) })
	var p *apiError
	if errors.As(err, &p) {
		if made {
			err = errors.Join(err, x.forget(name))
		}
		if p.Code == "generation_exists" {
			err = fmt.Errorf("%w: drop it, or give the recipe another name", err)
		}
	}
	if err != nil {
		return nil, err
	}
	if made {
		var begun sweptGeneration
		if err := json.Unmarshal(raw, &begun); err != nil {
			return nil, fmt.Errorf("the server does not answer like liverag: %w", err)
		}
		if err := x.note(name, begun.Created); err != nil {
			return nil, err
		}
	}
	g, err := x.follow(ctx, r.name, raw)
	if err != nil {
		return nil, err
	}
	return &builtRecipe{
		generation: g.Name, recipe: g.Recipe, stats: g.Stats, embedded: g.Progress.TokensEmbedded, reused: g.Progress.TokensReused,
		ask: x.askServer(x.cl, g.Name), close: func() error { return nil },
	}, nil
}

// follow shows progress until a generation has caught up.
func (x *replays) follow(ctx context.Context, recipe string, raw json.RawMessage) (*sweptGeneration, error) {
	for {
		g := &sweptGeneration{}
		if err := json.Unmarshal(raw, g); err != nil {
			return nil, fmt.Errorf("the server does not answer like liverag: %w", err)
		}
		switch g.State {
		case "ready", "partial":
			return g, nil
		case "failed", "cancelled":
			detail := ""
			if g.Trouble != nil {
				detail = ": " + plain(g.Trouble.Detail)
			}
			return nil, fmt.Errorf("the replay into %s is %s%s", plain(g.Name), g.State, detail)
		}
		text := fmt.Sprintf("%.0f %%, %s", g.Progress.Percent, g.Progress.spent())
		if g.Progress.ETA != "" {
			text += ", " + g.Progress.ETA + " to go"
		}
		if g.State == "paused" {
			text += ", paused: `liverag generations` says more"
		}
		x.progress.status(recipe, text)
		if err := sleep(ctx, pollEvery); err != nil {
			return nil, err
		}
		if err := x.cl.do(ctx, "GET", generationPath(g.Name, ""), nil, &raw, options{}); err != nil {
			return nil, err
		}
	}
}

// note remembers that a sweep makes the generation, and when it was made, so that another one of its name is not taken for it.
func (x *replays) note(name, created string) error {
	if err := os.MkdirAll(x.notes, 0o755); err != nil {
		return fmt.Errorf("note the generation: %w", err)
	}
	if err := os.WriteFile(filepath.Join(x.notes, name), []byte(created), 0o644); err != nil {
		return fmt.Errorf("note the generation: %w", err)
	}
	return nil
}

func (x *replays) forget(name string) error {
	if err := os.Remove(filepath.Join(x.notes, name)); err != nil {
		return fmt.Errorf("forget the generation: %w", err)
	}
	return nil
}

// drop removes the generations of this sweep that a sweep made. One that answers now stays, and so do all with --keep: who keeps one, drops it.
func (x *replays) drop(ctx context.Context) error {
	var kept []string
	for _, r := range x.recipes {
		name := x.generationName(r)
		created, err := os.ReadFile(filepath.Join(x.notes, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("did the sweep make %s? %w", name, err)
		}
		stays := x.keep
		if !stays {
			if stays, err = x.dropOne(ctx, name, string(created)); err != nil {
				return fmt.Errorf("drop %s: %w", name, err)
			}
		}
		if stays {
			kept = append(kept, name)
		}
		if err := x.forget(name); err != nil {
			return err
		}
	}
	if c := x.frame.call; len(kept) > 0 && !c.JSON {
		c.Err.Printf("%s %s\n", c.Err.dim("kept:"), plain(strings.Join(kept, ", ")))
	}
	return nil
}

// dropOne drops a generation, unless it answers, or is another one than that which was made then; created is empty where that is not known.
func (x *replays) dropOne(ctx context.Context, name, created string) (stays bool, err error) {
	var g sweptGeneration
	if err = x.cl.do(ctx, "GET", generationPath(name, ""), nil, &g, options{}); err == nil {
		if created != "" && g.Created != created {
			return true, nil
		}
		err = x.cl.do(ctx, "DELETE", generationPath(name, ""), nil, nil, options{})
	}
	var p *apiError
	switch {
	case errors.As(err, &p) && p.Status == 409:
		return true, nil
	case errors.As(err, &p) && p.Status == 404:
		return false, nil
	}
	return false, err
}
