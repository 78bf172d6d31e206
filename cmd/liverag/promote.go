package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"

	"github.com/liverag/liverag/indexer"
)

func promoteVerb() verb {
	return verb{
		name: "promote", group: groupGenerations, args: "NAME",
		summary: "Let another generation answer, in one step",
		about: `Moves the alias live to the generation NAME. It has to have caught up with the log. Every query sees the one or the other, never neither; ` + "`liverag rollback`" + ` moves it back.

With --gate it moves only if figures hold: both generations are asked questions whose right documents are known, and the metric's mean over them (ndcg@K, recall@K, p@K, mrr, map, success@K) may differ from the live generation's as the condition says. The questions are the server's own (its setting evals.questions) or, with --set, a file here.`,
		examples: []example{
			{"cut over to a replay that is ready", "liverag promote trial"},
			{"only if it ranks no worse, and finds almost as much", "liverag promote trial --gate 'ndcg@10>=0' --gate 'recall@10>=-0.01'"},
			{"on questions of your own, and only if it is good enough by itself", "liverag promote trial --set questions.jsonl --gate 'ndcg@10>=0.6 absolute'"},
			{"replay with another chunk size, then cut over", "liverag replay --tokens 120 --name trial --until-caught-up && liverag promote trial"},
		},
		settings: clientSettings,
		setup: func(fs *flag.FlagSet) action {
			var gates stringList
			fs.Var(&gates, "gate", "promote only if a metric differs so from the live generation's, as in `ndcg@10>=0`; with absolute after the number the metric itself counts; repeatable")
			set := fs.String("set", "", "`FILE` of questions to ask: a JSON object a line, {\"query\": …, \"documents\": [ids]} (default: the server's own)")
			return func(ctx context.Context, c *call) error { return runPromote(ctx, c, gates, *set) }
		},
	}
}

// gatedTimeout is how long a promote may take that has to measure first.
const gatedTimeout = 10 * time.Minute

func runPromote(ctx context.Context, c *call, gates []string, set string) error {
	name, err := oneName(c, "promote")
	if err != nil {
		return err
	}
	wanted := map[string]string{}
	for _, text := range gates {
		metric, condition, err := splitGate(text)
		if err == nil && wanted[metric] != "" {
			err = fmt.Errorf("there are two conditions on %s", metric)
		}
		if err != nil {
			return &usageError{detail: "--gate: " + err.Error()}
		}
		wanted[metric] = condition
	}
	conditions, err := parseConditions(wanted)
	switch {
	case err != nil:
		return &usageError{detail: "--gate: " + err.Error()}
	case set != "" && len(gates) == 0:
		return &usageError{detail: "--set goes with --gate, which says what has to hold on the questions"}
	case len(gates) == 0:
		return moveAlias(ctx, c, generationPath(name, "promote"), nil, callTimeout)
	case set == "":
		return moveAlias(ctx, c, generationPath(name, "promote"), map[string]any{"gate": wanted}, gatedTimeout)
	}
	questions, err := readQuestions(set)
	if err != nil {
		return fmt.Errorf("--set: %w", err)
	}
	cl := c.client(ctx)
	live, err := cl.liveName(ctx)
	if err != nil {
		return withGenerationHint(err)
	}
	if live != name {
		measured, err := measureGate(ctx, questions, conditions, cl.searcher, name, live)
		if err != nil {
			return withGenerationHint(err)
		}
		for _, m := range measured {
			if !m.Holds {
				return &indexer.GateError{Candidate: name, Live: live, Measured: measured}
			}
		}
		if now, err := cl.liveName(ctx); err != nil {
			return err
		} else if now != live {
			return fmt.Errorf("%s was measured against %s, and %s is live now; nothing was promoted: try again", name, live, now)
		}
		if !c.JSON {
			printMeasured(c.Out, measured)
		}
	}
	return moveAlias(ctx, c, generationPath(name, "promote"), nil, callTimeout)
}

// printMeasured shows what a gate measured.
func printMeasured(out *terminal, measured []indexer.Measured) {
	for _, m := range measured {
		out.Printf("%s %s\n", out.good("holds"), plain(m.String()))
	}
}

// withGenerationHint adds what to do next to what a server says of generations.
func withGenerationHint(err error) error {
	var p *apiError
	if !errors.As(err, &p) {
		return err
	}
	switch {
	case p.Code == "not_caught_up":
		return withHint(err, "`liverag generations` shows how far it is")
	case p.Code == "gate_unavailable":
		return withHint(err, "--set FILE measures on questions that you have here")
	case p.Code == "nothing_to_roll_back":
		return withHint(err, "`liverag generations` lists those that `liverag promote` can let answer")
	case p.Status == 404:
		return withHint(err, "`liverag generations` lists the names")
	}
	return err
}
