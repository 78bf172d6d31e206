package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/liverag/liverag/vectordb"
)

func queryVerb() verb {
	return verb{
		name: "query", group: groupQuestions, args: "TEXT…",
		summary: "Ask a question and see the passages that answer it, and how fresh they are",
		about: `Searches for TEXT (several arguments are joined) and shows the best chunks with their documents, and the moment up to which every change is in the answer.

While the embedding model can't be reached words alone answer, and the last lines say so. A --mode that is named is kept to: hybrid and dense fail then.

--after takes the token of a change: the answer then reflects it, or says within --wait that it can't yet. --max-staleness asks the same for everything older than a duration.`,
		examples: []example{
			{"ask", `liverag query "how long do refunds take?"`},
			{"see your own change in the answer, whatever happens", `liverag query refunds --after "$(liverag put kb/refunds.md new.md --json | jq -r .token)" --strict`},
			{"only by meaning, only billing's documents since 2024", `liverag query "late payment" --mode dense --filter '{"team":"billing","year":{"$gte":2024}}'`},
			{"ask a generation that is not live yet", `liverag query "late payment" --generation trial --explain`},
		},
		settings: clientSettings,
		setup: func(fs *flag.FlagSet) action {
			var q queryFlags
			fs.IntVar(&q.k, "k", 5, "how many hits, 1 to 200")
			fs.StringVar(&q.mode, "mode", "", "`MODE` of search: hybrid, dense or lexical (default hybrid, or lexical while the model can't be reached)")
			fs.StringVar(&q.filter, "filter", "", "condition on the metadata, as `JSON`")
			fs.StringVar(&q.generation, "generation", "", "`NAME` of the generation or alias that answers (default live)")
			fs.Var(&q.after, "after", "`TOKEN` of a change that the answer has to reflect; repeatable")
			fs.DurationVar(&q.maxStaleness, "max-staleness", 0, "the answer has to reflect every change that is older")
			fs.DurationVar(&q.wait, "wait", 2*time.Second, "how long to wait for what --after and --max-staleness ask")
			fs.BoolVar(&q.strict, "strict", false, "fail, instead of answering, when they can't be satisfied in time")
			fs.BoolVar(&q.explain, "explain", false, "show ranks and scores by each leg, and times")
			return func(ctx context.Context, c *call) error { return runQuery(ctx, c, q) }
		},
	}
}

type queryFlags struct {
	k                  int
	mode, filter       string
	generation         string
	after              stringList
	maxStaleness, wait time.Duration
	strict, explain    bool
}

// queryRequest is the body of POST /retrieve.
type queryRequest struct {
	Query        string          `json:"query"`
	K            int             `json:"k"`
	Mode         string          `json:"mode,omitempty"`
	Filter       json.RawMessage `json:"filter,omitempty"`
	Generation   string          `json:"generation,omitempty"`
	After        []string        `json:"after,omitempty"`
	MaxStaleness string          `json:"max_staleness,omitempty"`
	Wait         string          `json:"wait,omitempty"`
	Strict       bool            `json:"strict,omitempty"`
	Explain      bool            `json:"explain,omitempty"`
}

// queryAnswer is the part of the answer that is shown to a person.
type queryAnswer struct {
	Hits []struct {
		ID        string          `json:"id"`
		Document  string          `json:"document"`
		Text      string          `json:"text"`
		Score     float64         `json:"score"`
		Title     string          `json:"title"`
		URL       string          `json:"url"`
		UpdatedAt time.Time       `json:"updated_at"`
		Explain   json.RawMessage `json:"explain"`
	} `json:"hits"`
	Mode     string `json:"mode"`
	Degraded *struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
	} `json:"degraded"`
	Evidence   string `json:"evidence"`
	Generation struct {
		Name   string          `json:"name"`
		Alias  string          `json:"alias"`
		Recipe vectordb.Recipe `json:"recipe"`
	} `json:"generation"`
	Freshness struct {
		AsOf      time.Time `json:"as_of"`
		Lag       string    `json:"lag"`
		Pending   int64     `json:"pending"`
		Satisfied bool      `json:"satisfied"`
	} `json:"freshness"`
	Took map[string]string `json:"took"`
}

func runQuery(ctx context.Context, c *call, q queryFlags) error {
	req := queryRequest{
		Query: strings.Join(c.Args, " "), K: q.k, Mode: q.mode, Generation: q.generation, After: q.after,
		Strict: q.strict, Explain: q.explain,
	}
	switch {
	case strings.TrimSpace(req.Query) == "":
		return &usageError{detail: "query needs a TEXT to search for"}
	case q.k < 1 || q.k > 200:
		return &usageError{detail: fmt.Sprintf("-k must be from 1 to 200, not %d", q.k)}
	case q.filter != "" && !json.Valid([]byte(q.filter)):
		return &usageError{detail: "--filter is no JSON", hint: `write it like --filter '{"team":"billing"}'`}
	case q.filter != "":
		req.Filter = json.RawMessage(q.filter)
	}
	asked := len(q.after) > 0 || q.maxStaleness > 0
	if q.maxStaleness > 0 {
		req.MaxStaleness = q.maxStaleness.String()
	}
	if asked {
		req.Wait = q.wait.String()
	}
	var raw json.RawMessage
	err := c.client(ctx).do(ctx, "POST", "/retrieve", req, &raw, options{timeout: callTimeout + q.wait})
	if p := (*apiError)(nil); errors.As(err, &p) && p.Code == "stale" {
		return withHint(err, "the changes are in the log and on their way: give it more time with --wait, or leave out --strict")
	}
	if err != nil {
		return err
	}
	if c.JSON {
		c.Out.Printf("%s\n", strings.TrimSpace(string(raw)))
		return nil
	}
	var answer queryAnswer
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("the server does not answer like liverag: %w", err)
	}
	showAnswer(c.Out, &answer, asked)
	return nil
}

func showAnswer(out *terminal, a *queryAnswer, asked bool) {
	if len(a.Hits) == 0 {
		out.Printf("nothing found\n\n")
	}
	for i, hit := range a.Hits {
		title := plain(hit.Title)
		if title == "" {
			title = plain(hit.Document)
		}
		out.Printf("%2d  %s  %s\n", i+1, out.bold(title), out.dim(fmt.Sprintf("%.4g", hit.Score)))
		for _, line := range snippet(hit.Text, out.Width-4, 3) {
			out.Printf("    %s\n", line)
		}
		place := plain(hit.ID)
		if hit.URL != "" {
			place = plain(hit.URL) + "  " + place
		}
		out.Printf("    %s\n", out.dim(place))
		if len(hit.Explain) > 0 {
			out.Printf("    %s\n", out.dim(plain(string(hit.Explain))))
		}
		out.Printf("\n")
	}
	if a.Degraded != nil {
		out.Printf("%s\n", out.warn(plain(a.Degraded.Detail)))
	}
	f := a.Freshness
	parts := []string{}
	switch {
	case asked && f.Satisfied:
		parts = append(parts, out.good("as fresh as asked"))
	case asked:
		parts = append(parts, out.warn("not as fresh as asked yet"))
	}
	if !f.AsOf.IsZero() {
		parts = append(parts, "holds every change until "+f.AsOf.Local().Format("15:04:05.000")+" ("+plain(f.Lag)+" ago)")
	}
	if f.Pending > 0 {
		parts = append(parts, count(f.Pending, "change")+" on the way")
	}
	from := plain(a.Generation.Name)
	if a.Generation.Alias != "" {
		from += " (" + plain(a.Generation.Alias) + ")"
	}
	parts = append(parts, plain(a.Mode)+" search in "+from)
	if total := a.Took["total"]; total != "" {
		parts = append(parts, "took "+plain(total))
	}
	if a.Evidence != "" {
		parts = append(parts, "evidence "+plain(a.Evidence))
	}
	out.Printf("%s\n", strings.Join(parts, " · "))
}

// snippet is the beginning of a text in whole words, at most so many lines; an ellipsis stands for the rest.
func snippet(text string, width, lines int) []string {
	// No more is read than the lines can hold, however long the chunk is.
	if limit := 4 * width * (lines + 1); len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "")
	}
	all := wrap(plain(text), width-2)
	if len(all) <= lines {
		return all
	}
	all = all[:lines]
	all[lines-1] += " …"
	return all
}
