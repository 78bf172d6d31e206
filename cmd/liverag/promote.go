package main

import (
	"context"
	"errors"
	"flag"
)

func promoteVerb() verb {
	return verb{
		name: "promote", group: groupGenerations, args: "NAME",
		summary: "Let another generation answer, in one step",
		about:   "Moves the alias live to the generation NAME. It has to have caught up with the log. Every query sees the one or the other, never neither; `liverag rollback` moves it back.",
		examples: []example{
			{"cut over to a replay that is ready", "liverag promote trial"},
			{"replay with another chunk size, then cut over", "liverag replay --tokens 120 --name trial --until-caught-up && liverag promote trial"},
		},
		settings: clientSettings,
		setup: func(*flag.FlagSet) action {
			return func(ctx context.Context, c *call) error {
				name, err := oneName(c, "promote")
				if err != nil {
					return err
				}
				return moveAlias(ctx, c, generationPath(name, "promote"))
			}
		},
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
	case p.Status == 404:
		return withHint(err, "`liverag generations` lists the names")
	}
	return err
}
