package main

import (
	"context"
	"flag"
	"time"

	"github.com/liverag/liverag/stream"
)

func rmVerb() verb {
	return verb{
		name: "rm", group: groupDocuments, args: "ID…",
		summary: "Delete documents",
		about: `Deletes each document ID and waits until no search returns it any more. Deleting what does not exist is not an error.

The deletions are durable before the answer comes: if the wait is over first, nothing is lost.`,
		examples: []example{
			{"delete one document", "liverag rm kb/refunds.md"},
			{"delete many, without waiting for the index", "liverag rm --wait 0 page/17 page/18 page/19"},
		},
		settings: clientSettings,
		setup: func(fs *flag.FlagSet) action {
			wait := fs.Duration("wait", 5*time.Second, "how long to wait for each until no answer holds it; 0 does not wait")
			return func(ctx context.Context, c *call) error { return runRm(ctx, c, *wait) }
		},
	}
}

func runRm(ctx context.Context, c *call, wait time.Duration) error {
	if len(c.Args) == 0 {
		return &usageError{detail: "rm needs the ID of a document"}
	}
	for _, id := range c.Args {
		if problem := stream.CheckID(id); problem != nil {
			return &usageError{detail: problem.Detail}
		}
	}
	cl := c.client(ctx)
	for _, id := range c.Args {
		if err := change(ctx, c, cl, "DELETE", id, nil, wait); err != nil {
			return err
		}
	}
	return nil
}
