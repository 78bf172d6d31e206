package main

import (
	"context"
	"flag"
)

func dropVerb() verb {
	return verb{
		name: "drop", group: groupGenerations, args: "NAME",
		summary: "Remove a generation that does not answer any more",
		about:   "Removes the generation NAME and frees what it took. One that an alias names can't be dropped. The log keeps every document: a replay with the same recipe builds it again.",
		examples: []example{
			{"clear away a trial", "liverag drop trial"},
			{"clear away what was live before the last promote", "liverag generations && liverag drop markdown200_static"},
		},
		settings: clientSettings,
		setup: func(*flag.FlagSet) action {
			return func(ctx context.Context, c *call) error {
				name, err := oneName(c, "drop")
				if err != nil {
					return err
				}
				if err := c.client(ctx).do(ctx, "DELETE", generationPath(name, ""), nil, nil, options{}); err != nil {
					return withGenerationHint(err)
				}
				if c.JSON {
					return c.Out.JSON(map[string]any{"name": name, "dropped": true})
				}
				c.Out.Printf("%s is dropped\n", name)
				return nil
			}
		},
	}
}
