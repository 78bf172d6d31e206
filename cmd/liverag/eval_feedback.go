package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/stream"
)

func evalFeedbackVerb() verb {
	return verb{
		name: "eval feedback", group: groupQuestions,
		summary: "Make a labelled set of what people said of answers (POST /feedback)",
		about: `Reads the feedback that a running liverag has kept and writes questions with graded documents, a JSON object a line, as eval retrieval and eval compare read them: useful is grade 1, not useful is grade 0, which is judged and not relevant. Where opinions differ most of them count, and of as many on either side the newest. A question with no useful document is left out: there is no right answer to look for.

An application sends feedback with POST /feedback {"query","document","chunk"?,"useful":true,"reason"?}. It is kept in the topic CORPUS.feedback, beside the log.`,
		examples: []example{
			{"what people found useful, as questions", "liverag eval feedback --out feedback.jsonl && liverag eval retrieval --set feedback.jsonl"},
			{"is the trial better for them?", "liverag eval feedback --out feedback.jsonl && liverag eval compare live trial --set feedback.jsonl"},
			{"what they said this month, counted", "liverag eval feedback --since 720h --out month.jsonl --json"},
		},
		settings: clientSettings,
		setup: func(fs *flag.FlagSet) action {
			out := fs.String("out", "", "the `FILE` to write (default: standard output)")
			since := fs.Duration("since", 0, "only what was said within this `TIME`, such as 720h (default: all of it)")
			return func(ctx context.Context, c *call) error { return runEvalFeedback(ctx, c, *out, *since) }
		},
	}
}

func runEvalFeedback(ctx context.Context, c *call, out string, since time.Duration) error {
	if len(c.Args) > 0 {
		return &usageError{detail: "eval feedback takes no arguments: --out names the file"}
	}
	if since < 0 {
		return &usageError{detail: "--since is not negative"}
	}
	labelled, err := labelledSet(ctx, c.client(ctx), since)
	if err != nil {
		return err
	}
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	encoder.SetEscapeHTML(false)
	for _, q := range labelled.Questions {
		q.Documents = nil // the grades say it
		if err := encoder.Encode(q); err != nil {
			return fmt.Errorf("write questions: %w", err)
		}
	}
	if out == "" {
		c.Out.Printf("%s", lines.String())
	} else if err := os.WriteFile(out, lines.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write questions: %w", err)
	}
	to := c.Err
	switch {
	case out != "" && c.JSON:
		return c.Out.JSON(map[string]any{"file": out, "questions": len(labelled.Questions), "votes": labelled.Votes, "conflicts": labelled.Conflicts, "unanswered": labelled.Unanswered})
	case out != "":
		to = c.Out
	}
	to.Printf("%s out of %s; opinions differed %s, and %s with nothing useful left out\n",
		count(len(labelled.Questions), "question"), count(labelled.Votes, "opinion"), count(labelled.Conflicts, "time"), count(labelled.Unanswered, "question"))
	return nil
}

// feedbackPage is how much feedback is read at a time.
const feedbackPage = 1000

// labelledSet reads the server's feedback, newest first, and makes questions of it. since 0: all of it.
func labelledSet(ctx context.Context, cl *client, since time.Duration) (evals.Labelled, error) {
	var all []stream.Feedback
	for before := ""; ; {
		var page struct {
			Feedback []struct {
				ID       string    `json:"id"`
				Time     time.Time `json:"time"`
				Query    string    `json:"query"`
				Document string    `json:"document"`
				Chunk    string    `json:"chunk"`
				Useful   bool      `json:"useful"`
				Reason   string    `json:"reason"`
			} `json:"feedback"`
			Next string `json:"next"`
		}
		path := "/feedback?limit=" + strconv.Itoa(feedbackPage)
		if before != "" {
			path += "&before=" + url.QueryEscape(before)
		}
		if err := patiently(ctx, func() error { return cl.do(ctx, "GET", path, nil, &page, options{}) }); err != nil {
			return evals.Labelled{}, err
		}
		old := false
		for _, f := range page.Feedback {
			sequence, err := strconv.ParseInt(f.ID, 10, 64)
			if err != nil {
				return evals.Labelled{}, fmt.Errorf("%s does not answer like liverag: feedback with the id %q", cl.base, f.ID)
			}
			if old = since > 0 && time.Since(f.Time) > since; old {
				break
			}
			all = append(all, stream.Feedback{Sequence: sequence, Time: f.Time, Query: f.Query, Document: f.Document, Chunk: f.Chunk, Useful: f.Useful, Reason: f.Reason})
		}
		if before = page.Next; before == "" || old {
			return evals.FromFeedback(all), nil
		}
	}
}
