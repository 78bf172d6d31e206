package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/liverag/liverag/stream"
)

func putVerb() verb {
	return verb{
		name: "put", group: groupDocuments, args: "ID [FILE|-]",
		summary: "Add a document, or replace it as a whole",
		about: `Writes the document ID with the text of FILE, of standard input, or of --text, and waits until a search can return it. The change is durable before the answer comes: if the wait is over first, nothing is lost.

The content type follows from the file's ending (.md .markdown .html .htm .txt), unless --type says it. HTML is turned into Markdown as it is read.`,
		examples: []example{
			{"write a document and see how soon it can be found", `liverag put kb/refunds.md --text "Refunds take 5 days."`},
			{"from a file, with what a citation shows", `liverag put kb/refunds.md docs/refunds.md --title Refunds --url https://example.com/refunds`},
			{"from another program, with metadata to filter by", `fetch-page 17 | liverag put page/17 - --type text/html --metadata team=billing --metadata year=2026`},
		},
		settings: clientSettings,
		setup: func(fs *flag.FlagSet) action {
			var p putFlags
			fs.StringVar(&p.text, "text", "", "the document's `TEXT`")
			fs.StringVar(&p.title, "title", "", "`TITLE` shown with a hit")
			fs.StringVar(&p.url, "url", "", "`URL` shown with a hit")
			fs.StringVar(&p.contentType, "type", "", "content `TYPE`: text/plain, text/markdown or text/html")
			fs.Var(&p.metadata, "metadata", "`NAME=VALUE` that filters can ask for; repeatable. Numbers, true, false and JSON arrays of strings are taken as such")
			fs.DurationVar(&p.wait, "wait", 5*time.Second, "how long to wait until the change is searchable; 0 does not wait")
			return func(ctx context.Context, c *call) error {
				fs.Visit(func(f *flag.Flag) { p.hasText = p.hasText || f.Name == "text" })
				return runPut(ctx, c, p)
			}
		},
	}
}

type putFlags struct {
	text, title, url, contentType string
	hasText                       bool
	metadata                      stringList
	wait                          time.Duration
}

func runPut(ctx context.Context, c *call, p putFlags) error {
	if len(c.Args) == 0 || len(c.Args) > 2 {
		return &usageError{detail: "put needs the document's ID and at most one FILE"}
	}
	id := c.Args[0]
	if problem := stream.CheckID(id); problem != nil {
		return &usageError{detail: problem.Detail}
	}
	text, name, err := putText(c, p)
	if err != nil {
		return err
	}
	if !utf8.ValidString(text) {
		return &usageError{detail: "the text is not valid UTF-8", hint: "convert it first, for example with `iconv -f latin1 -t utf-8`"}
	}
	doc := stream.Document{Text: text, ContentType: p.contentType, Title: p.title, URL: p.url}
	if doc.ContentType == "" {
		doc.ContentType, _ = contentTypeOf(name)
	}
	switch doc.ContentType {
	case "", stream.TextPlain, stream.TextMarkdown, stream.TextHTML:
	default:
		return &usageError{detail: fmt.Sprintf("--type must be text/plain, text/markdown or text/html, not %q", doc.ContentType)}
	}
	if doc.Metadata, err = parseMetadata(p.metadata); err != nil {
		return err
	}
	return change(ctx, c, c.client(ctx), "PUT", id, &doc, p.wait)
}

// putText returns the text and the name of the file it is from.
func putText(c *call, p putFlags) (text, name string, err error) {
	file := ""
	if len(c.Args) == 2 {
		file = c.Args[1]
	}
	switch {
	case p.hasText && file != "":
		return "", "", &usageError{detail: "give the text as FILE or as --text, not both"}
	case p.hasText:
		return p.text, "", nil
	case file == "" || file == "-":
		if f, ok := c.In.(*os.File); ok && file == "" && term.IsTerminal(int(f.Fd())) {
			return "", "", &usageError{detail: "put needs the document's text: name a FILE, give --text, or - to type it here"}
		}
		all, err := io.ReadAll(c.In)
		if err != nil {
			return "", "", fmt.Errorf("read standard input: %w", err)
		}
		return string(all), "", nil
	}
	all, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", withHint(fmt.Errorf("read the text: %w", err), "the text itself goes behind --text, or into standard input with -")
	}
	if err != nil {
		return "", "", fmt.Errorf("read the text: %w", err)
	}
	return string(all), file, nil
}

// parseMetadata reads NAME=VALUE pairs. A value that is JSON for a number, a boolean, a string or an array of strings is that; anything else is a string as it stands.
func parseMetadata(pairs []string) (map[string]any, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	out := map[string]any{}
	for _, pair := range pairs {
		name, text, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, &usageError{detail: fmt.Sprintf("--metadata %q is no NAME=VALUE", pair)}
		}
		out[name] = text
		var value any
		if json.Unmarshal([]byte(text), &value) != nil {
			continue
		}
		switch v := value.(type) {
		case float64, bool, string:
			out[name] = v
		case []any:
			for _, element := range v {
				if _, ok := element.(string); !ok {
					return nil, &usageError{detail: fmt.Sprintf("--metadata %s must be an array of strings only", name)}
				}
			}
			out[name] = v
		}
	}
	return out, nil
}

// change writes or deletes one document and prints what became of it.
func change(ctx context.Context, c *call, cl *client, method, id string, doc *stream.Document, wait time.Duration) error {
	var body any
	if doc != nil {
		body = doc
	}
	begin := time.Now()
	var w written
	if err := cl.do(ctx, method, documentPath(id)+waitQuery(wait), body, &w, options{timeout: callTimeout + wait}); err != nil {
		return explainWrite(err)
	}
	took := time.Since(begin)
	if c.JSON {
		return c.Out.JSON(struct {
			written
			Took string `json:"took"`
		}{w, short(took)})
	}
	did, state := "written", "searchable"
	if method == "DELETE" {
		did, state = "deleted", "gone from answers"
	}
	switch {
	case w.Searchable == nil:
		c.Out.Printf("%s  %s, in the log after %s\n", plain(id), did, short(took))
	case *w.Searchable:
		c.Out.Printf("%s  %s, %s after %s\n", plain(id), did, c.Out.good(state), short(took))
	default:
		c.Out.Printf("%s  %s and kept in the log, but not %s within %s\n", plain(id), did, c.Out.warn(state), short(took))
	}
	c.Out.Printf("%s\n", c.Out.dim("token "+plain(w.Token)))
	return nil
}

// explainWrite adds what to do next to the refusals of a write.
func explainWrite(err error) error {
	var p *apiError
	if !errors.As(err, &p) {
		return err
	}
	switch p.Code {
	case "log_full":
		return withHint(err, "nothing was dropped: delete documents, or start liverag with a higher --log.max_bytes")
	case "disk_full":
		return withHint(err, "nothing was dropped: make room on the disk of liverag's data directory; it goes on by itself")
	case stream.CodeDocumentTooLarge:
		return withHint(err, "split the document, or start liverag with a higher --documents.max_bytes")
	}
	return err
}
