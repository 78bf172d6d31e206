package main

import (
	"context"
	"flag"
)

func rollbackVerb() verb {
	return verb{
		name: "rollback", group: groupGenerations,
		summary: "Let the generation before the last promote answer again",
		about:   "Moves the alias live back to where it was before the last promote. That generation followed the log all the time, so its answers are fresh. Called again it takes back the promote before that one, and fails when none is left; what was taken back answers again with `liverag promote`.",
		examples: []example{
			{"take the last promote back", "liverag rollback"},
			{"which one answers afterwards?", "liverag rollback --json | jq -r .name"},
		},
		settings: clientSettings,
		setup: func(*flag.FlagSet) action {
			return func(ctx context.Context, c *call) error {
				if len(c.Args) > 0 {
					return &usageError{detail: "rollback takes no arguments: it goes back to the generation before", hint: "`liverag promote NAME` lets any generation answer"}
				}
				return moveAlias(ctx, c, "/rollback", nil, callTimeout)
			}
		},
	}
}
