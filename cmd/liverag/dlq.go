package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/liverag/liverag/internal/spell"
)

func dlqVerb() verb {
	return verb{
		name: "dlq", group: groupCare, args: "[list|show|redrive|discard] [ID…]",
		summary: "Changes that can't be indexed: look at them, try them again, or close them",
		about: `A change that no version of its document can be made of, or whose text the model refuses, is a dead letter: it is kept with its bytes, its place in the log and the reason, and the document's version before it goes on being served. Nothing waits for it.

list (the default) shows the open ones; show prints one whole. An ID is the place of the change in the log, partition and offset, like 3-1042.

redrive tries to index them again, for when the reason is gone: a model that works again, a higher limit, a mapping put right. A change is applied at its own version, so a newer version of its document is never overwritten: then the letter is superseded, and closed.

discard closes letters that don't matter. Name letters by ID, or choose them with --code and --document, or take --all.`,
		examples: []example{
			{"what can't be indexed, and why", "liverag dlq"},
			{"the original bytes of one", "liverag dlq show 3-1042"},
			{"the endpoint works again: try what it refused", "liverag dlq redrive --code embed_rejected"},
			{"close what is hopeless, by a script", "liverag dlq list --code not_a_document --json | jq -r '.letters[].id' | xargs liverag dlq discard"},
		},
		settings: clientSettings,
		setup: func(fs *flag.FlagSet) action {
			var d dlq
			fs.StringVar(&d.code, "code", "", "only those with the reason `CODE`")
			fs.StringVar(&d.document, "document", "", "only those of the document `ID`")
			fs.StringVar(&d.tenant, "tenant", "", "the document's `TENANT`")
			fs.BoolVar(&d.all, "all", false, "redrive, discard: every open one")
			fs.IntVar(&d.limit, "limit", 100, "list: at most so many; 0 for all")
			return d.run
		},
	}
}

type dlq struct {
	code, document, tenant string
	all                    bool
	limit                  int
}

// deadLetter is one of GET /dlq.
type deadLetter struct {
	ID          string    `json:"id"`
	Document    string    `json:"document"`
	Tenant      string    `json:"tenant"`
	Topic       string    `json:"topic"`
	RejectedAt  time.Time `json:"rejected_at"`
	Time        time.Time `json:"time"`
	Code        string    `json:"code"`
	Detail      string    `json:"detail"`
	Attempts    int       `json:"attempts"`
	Generations []string  `json:"generations"`
	Bytes       int64     `json:"bytes"`
	Key         *string   `json:"key"`
	KeyBase64   string    `json:"key_base64"`
	Value       *string   `json:"value"`
	ValueBase64 string    `json:"value_base64"`
	Headers     []struct {
		Key         string  `json:"key"`
		Value       *string `json:"value"`
		ValueBase64 string  `json:"value_base64"`
	} `json:"headers"`
}

func (d *dlq) run(ctx context.Context, c *call) error {
	do, ids := "list", c.Args
	if len(ids) > 0 {
		do, ids = ids[0], ids[1:]
	}
	switch do {
	case "list":
		if len(ids) > 0 || d.all {
			return &usageError{detail: "dlq list takes no IDs and no --all: `liverag dlq show ID` prints one letter"}
		}
		return d.list(ctx, c)
	case "show":
		if len(ids) != 1 {
			return &usageError{detail: "dlq show needs the ID of one letter", hint: "`liverag dlq list` lists them"}
		}
		return d.show(ctx, c, ids[0])
	case "redrive", "discard":
		return d.settle(ctx, c, do, ids)
	}
	return &usageError{detail: fmt.Sprintf("dlq can list, show, redrive and discard, not %q", do)}
}

func (d *dlq) list(ctx context.Context, c *call) error {
	if d.limit < 0 {
		return &usageError{detail: "--limit is not negative"}
	}
	cl := c.client(ctx)
	raws := []json.RawMessage{}
	after := ""
	for {
		page := 1000
		if d.limit > 0 {
			page = min(page, d.limit-len(raws))
		}
		var answer struct {
			Letters []json.RawMessage `json:"letters"`
			Next    string            `json:"next"`
		}
		if err := cl.do(ctx, "GET", d.page(page, after), nil, &answer, options{}); err != nil {
			return err
		}
		raws = append(raws, answer.Letters...)
		if after = answer.Next; after == "" || d.limit > 0 && len(raws) >= d.limit {
			break
		}
	}
	if c.JSON {
		out := map[string]any{"letters": raws}
		if after != "" {
			out["next"] = after
		}
		return c.Out.JSON(out)
	}
	if len(raws) == 0 {
		c.Out.Printf("no dead letters\n")
		return nil
	}
	var rows [][]string
	for _, raw := range raws {
		var l deadLetter
		if err := json.Unmarshal(raw, &l); err != nil {
			return fmt.Errorf("the server does not answer like liverag: %w", err)
		}
		rows = append(rows, []string{plain(l.ID), plain(cut(l.name(), 40)), plain(l.Code), l.RejectedAt.Local().Format(time.DateTime), strconv.Itoa(l.Attempts), plain(cut(l.Detail, 60))})
	}
	c.Out.table([]string{"ID", "DOCUMENT", "CODE", "REJECTED", "ATTEMPTS", "WHY"}, rows)
	if after != "" {
		c.Out.Printf("%s\n", c.Out.dim("there are more: --limit 0 lists all"))
	}
	return nil
}

// page is where a page of the chosen letters is.
func (d *dlq) page(limit int, after string) string {
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	for name, value := range map[string]string{"code": d.code, "document": d.document, "tenant": d.tenant, "after": after} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return "/dlq?" + q.Encode()
}

// name is the document's, with its tenant if it has one.
func (l *deadLetter) name() string {
	switch {
	case l.Document == "":
		return "-"
	case l.Tenant != "":
		return l.Document + " of " + l.Tenant
	}
	return l.Document
}

func (d *dlq) show(ctx context.Context, c *call, id string) error {
	var raw json.RawMessage
	if err := c.client(ctx).do(ctx, "GET", "/dlq/"+url.PathEscape(id), nil, &raw, options{}); err != nil {
		return withLetterHint(err)
	}
	if c.JSON {
		c.Out.Printf("%s\n", strings.TrimSpace(string(raw)))
		return nil
	}
	var l deadLetter
	if err := json.Unmarshal(raw, &l); err != nil {
		return fmt.Errorf("the server does not answer like liverag: %w", err)
	}
	c.Out.Printf("%s  %s\n", c.Out.bold(plain(l.ID)), plain(l.name()))
	c.Out.Printf("  %s: %s\n", c.Out.bad(plain(l.Code)), plain(l.Detail))
	c.Out.Printf("  topic %s, entered the log %s, rejected %s after %s", plain(l.Topic), l.Time.Local().Format(time.DateTime), l.RejectedAt.Local().Format(time.DateTime), count(l.Attempts, "attempt"))
	if len(l.Generations) > 0 {
		c.Out.Printf(" by %s", plain(strings.Join(l.Generations, ", ")))
	}
	c.Out.Printf("\n")
	for _, h := range l.Headers {
		c.Out.Printf("  header %s: %s\n", plain(h.Key), plain(bytesOf(h.Value, h.ValueBase64)))
	}
	c.Out.Printf("  key: %s\n", plain(bytesOf(l.Key, l.KeyBase64)))
	c.Out.Printf("\n%s\n", multiline(bytesOf(l.Value, l.ValueBase64)))
	return nil
}

// multiline is plain, line by line.
func multiline(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = plain(lines[i])
	}
	return strings.Join(lines, "\n")
}

// bytesOf spells what may be no text.
func bytesOf(text *string, encoded string) string {
	switch {
	case text != nil:
		return *text
	case encoded != "":
		return "base64 " + encoded
	}
	return "none"
}

// tried is one of the answer to POST /dlq/redrive and /dlq/discard.
type tried struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
	Code    string `json:"code,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// settleAtOnce is how many letters one call redrives or discards, so that progress shows.
const settleAtOnce = 50

// redriveTimeout is for the embedding of settleAtOnce documents.
const redriveTimeout = 10 * time.Minute

func (d *dlq) settle(ctx context.Context, c *call, do string, ids []string) error {
	chosen := d.all || d.code != "" || d.document != ""
	if (len(ids) > 0) == chosen {
		return &usageError{detail: "dlq " + do + " needs the IDs of letters, or --code, --document or --all", hint: "`liverag dlq list` lists them"}
	}
	cl := c.client(ctx)
	if chosen {
		var err error
		if ids, err = d.ids(ctx, cl); err != nil {
			return err
		}
	}
	results := []tried{}
	var failed error
	for parts := slices.Collect(slices.Chunk(ids, settleAtOnce)); len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		c.Err.Status("%s of %s", spell.Thousands(len(results)), count(len(ids), "letter"))
		var answer struct {
			Results []tried `json:"results"`
		}
		err := cl.do(ctx, "POST", "/dlq/"+do, map[string]any{"ids": part}, &answer, options{timeout: redriveTimeout})
		if chosen && isLetterUnknown(err) {
			// Somebody closed one since they were listed. Nothing was done for its part, so that goes one by one.
			if len(part) > 1 {
				parts = append(slices.Collect(slices.Chunk(part, 1)), parts...)
			}
			continue
		}
		if err != nil {
			failed = err
			break
		}
		results = append(results, answer.Results...)
	}
	c.Err.clearStatus()
	left := 0
	for _, r := range results {
		if r.Outcome == "rejected" || r.Outcome == "failed" {
			left++
		}
	}
	if c.JSON {
		if err := c.Out.JSON(map[string]any{"results": results}); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			outcome := c.Out.good(plain(r.Outcome))
			if r.Outcome == "rejected" || r.Outcome == "failed" {
				outcome = c.Out.bad(plain(r.Outcome))
			}
			line := plain(r.ID) + "  " + outcome
			if r.Code != "" {
				line += "  " + plain(r.Code)
			}
			if r.Detail != "" {
				line += "  " + plain(r.Detail)
			}
			c.Out.Printf("%s\n", line)
		}
		if len(results) == 0 && failed == nil {
			c.Out.Printf("no dead letters\n")
		}
	}
	if failed != nil { // what was done before is told
		return withLetterHint(failed)
	}
	if left > 0 {
		return withHint(fmt.Errorf("%s of %d can't be indexed now either, and stay", count(left, "letter"), len(results)), "`liverag dlq show ID` says why; `liverag dlq discard ID` closes one")
	}
	return nil
}

// ids lists the letters that the flags choose.
func (d *dlq) ids(ctx context.Context, cl *client) ([]string, error) {
	var ids []string
	for after := ""; ; {
		var answer struct {
			Letters []deadLetter `json:"letters"`
			Next    string       `json:"next"`
		}
		if err := cl.do(ctx, "GET", d.page(1000, after), nil, &answer, options{}); err != nil {
			return nil, err
		}
		for _, l := range answer.Letters {
			ids = append(ids, l.ID)
		}
		if after = answer.Next; after == "" {
			return ids, nil
		}
	}
}

func isLetterUnknown(err error) bool {
	var p *apiError
	return errors.As(err, &p) && p.Code == "dead_letter_unknown"
}

func withLetterHint(err error) error {
	if isLetterUnknown(err) {
		return withHint(err, "`liverag dlq list` lists the open ones")
	}
	return err
}
