package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/liverag/liverag/evals"
	"github.com/liverag/liverag/evals/chat"
	"github.com/liverag/liverag/retrieve/querylog"
)

const (
	// liveDrawn is how many of the questions that were asked are asked again, unless --limit says so.
	liveDrawn = 200
	// leastPassage is the shortest chunk that a question is written for, in bytes: a heading alone answers nothing.
	leastPassage = 200
)

// unlabelled are the questions without a set: what was asked of the live generation, and what a chat model has written. Either may be empty.
type unlabelled struct {
	live, generated evals.Questions
	filters         map[string]json.RawMessage // of live ones, by query
	skipped         int                        // passages that no question came of
}

func (e *evalCompare) unlabelled(ctx context.Context, frame *evalFrame, cl *client, a, b side) (u unlabelled, err error) {
	c := frame.call
	if u.live, u.filters, err = e.kept(c); err != nil {
		return u, err
	}
	model := c.Config.Evals.Chat.Model
	if model != "" && e.generate > 0 {
		if u.generated, u.skipped, err = e.generated(ctx, frame, cl, a, b); err != nil {
			return u, err
		}
	}
	if len(u.live)+len(u.generated) == 0 {
		return u, withHint(fmt.Errorf("there are no questions: no set is named, none that were asked are kept in %s, and no chat model writes any", e.queries(c)),
			"name some with --set or --feedback; `up --query_log` keeps what is asked from then on; evals.chat.model names a model that writes some")
	}
	return u, nil
}

// queries is the file of questions that were asked.
func (e *evalCompare) queries(c *call) string {
	if e.queryLog != "" {
		return e.queryLog
	}
	return c.Config.queryLogFile()
}

// kept are questions out of the query log, each once, with the filters that they were asked with.
func (e *evalCompare) kept(c *call) (evals.Questions, map[string]json.RawMessage, error) {
	entries, err := querylog.Read(e.queries(c))
	if errors.Is(err, fs.ErrNotExist) && e.queryLog == "" {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	filters := map[string]json.RawMessage{}
	var questions evals.Questions
	for _, entry := range entries {
		if _, ok := filters[entry.Query]; !ok {
			questions = append(questions, evals.Question{ID: fmt.Sprintf("asked-%d", len(questions)+1), Query: entry.Query})
		}
		filters[entry.Query] = entry.Filter // as it was asked last
	}
	limit := e.limit
	if limit == 0 {
		limit = liveDrawn
	}
	if len(questions) > limit {
		questions = drawn(questions, limit)
	}
	return questions, filters, nil
}

// generated has a chat model write questions for chunks that are drawn from both generations, half from each, so that neither way to cut has an advantage.
func (e *evalCompare) generated(ctx context.Context, frame *evalFrame, cl *client, a, b side) (evals.Questions, int, error) {
	openai := frame.call.Config.OpenAI
	w, err := chat.New(chat.Config{BaseURL: openai.BaseURL, Key: openai.APIKey, Model: frame.call.Config.Evals.Chat.Model, Headers: openai.Headers, Timeout: openai.Timeout})
	if err != nil {
		return nil, 0, err
	}
	var from []evals.GeneratedFrom
	for i, s := range []side{a, b} {
		some, err := chunksOf(ctx, cl, s, (e.generate+1-i)/2)
		if err != nil {
			return nil, 0, err
		}
		from = append(from, some...)
	}
	questions, skipped, err := evals.Generate(ctx, w, from, frame.progress("generated", "question").at)
	if err != nil || e.keepGenerated == "" {
		return questions, skipped, err
	}
	var lines bytes.Buffer
	for _, q := range questions {
		if err := json.NewEncoder(&lines).Encode(q); err != nil {
			return nil, 0, fmt.Errorf("write generated questions: %w", err)
		}
	}
	if err := os.WriteFile(e.keepGenerated, lines.Bytes(), 0o644); err != nil {
		return nil, 0, fmt.Errorf("write generated questions: %w", err)
	}
	return questions, skipped, nil
}

// chunksOf draws n of a generation's chunks, each as likely as any other, and the same ones as long as nothing changes.
func chunksOf(ctx context.Context, cl *client, s side, n int) ([]evals.GeneratedFrom, error) {
	if n == 0 {
		return nil, nil
	}
	body, err := cl.stream(ctx, generationPath(s.info.Name, "entries/stream"))
	if err != nil {
		return nil, err
	}
	defer body.Close()
	lines := json.NewDecoder(bufio.NewReaderSize(body, 1<<20))
	random := rand.New(rand.NewPCG(7, 8))
	var out []evals.GeneratedFrom
	for seen := 0; ; {
		var line exportLine
		if err := lines.Decode(&line); err != nil {
			return nil, fmt.Errorf("read the chunks of %s: %w", s.info.Name, err)
		}
		if line.End != nil {
			return out, nil
		}
		if line.Document == nil {
			continue
		}
		d := line.Document
		for _, entry := range d.Entries {
			if entry.Start < 0 || entry.End > len(d.Text) || entry.End-entry.Start < leastPassage {
				continue
			}
			at := random.IntN(seen + 1)
			if seen++; seen <= n {
				at = len(out)
				out = append(out, evals.GeneratedFrom{})
			}
			if at < n {
				out[at] = evals.GeneratedFrom{Document: d.ID, Passage: strings.TrimSpace(d.Title + "\n" + d.Text[entry.Start:entry.End])}
			}
		}
	}
}
