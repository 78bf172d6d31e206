package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/internal/bpe"
	"github.com/liverag/liverag/internal/demo"
	"github.com/liverag/liverag/stream"
)

// limitsRecipe is how a scenario's documents are cut.
type limitsRecipe struct {
	strategy string
	tokens   int
}

// limitsCorpus are documents, and what a provider is asked for them.
type limitsCorpus struct {
	recipe limitsRecipe
	texts  []string
	chunks [][]chunker.Chunk
	inputs [][]string // of each document's chunks
	needed int64      // tokens of each different input once
	total  int        // chunks

	chunker chunker.Chunker
}

func newLimitsCorpus(ctx context.Context, texts []string, recipe limitsRecipe) (*limitsCorpus, error) {
	encoding, err := bpe.Load(chunker.CL100K)
	if err != nil {
		return nil, err
	}
	c := &limitsCorpus{recipe: recipe, texts: texts, chunks: make([][]chunker.Chunk, len(texts)), inputs: make([][]string, len(texts))}
	if c.chunker, err = chunker.New(chunker.Options{Strategy: recipe.strategy, Tokens: recipe.tokens, Tokenizer: chunker.CL100K}); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for i := range texts {
		if err := c.cut(ctx, i); err != nil {
			return nil, err
		}
		for _, input := range c.inputs[i] {
			if !seen[input] {
				seen[input] = true
				c.needed += int64(encoding.Count(input))
			}
		}
		c.total += len(c.chunks[i])
	}
	return c, nil
}

// cut makes the chunks of a document.
func (c *limitsCorpus) cut(ctx context.Context, i int) (err error) {
	c.chunks[i], err = c.chunker.Split(ctx, stream.TextMarkdown, c.texts[i])
	c.inputs[i] = nil
	for _, chunk := range c.chunks[i] {
		c.inputs[i] = append(c.inputs[i], chunk.Input(c.texts[i]))
	}
	return err
}

// longTexts are n texts of about so many tokens each, of the sentences that `bench` has.
func longTexts(n, tokens int) ([]string, error) {
	encoding, err := bpe.Load(chunker.CL100K)
	if err != nil {
		return nil, err
	}
	texts := make([]string, n)
	for i := range texts {
		var b strings.Builder
		have := 0
		for more := i; have < tokens; more += n {
			for paragraph := range strings.SplitAfterSeq(demo.BenchDocument(1, more).Text, "\n\n") {
				size := encoding.Count(paragraph)
				if have+size/2 >= tokens && have > 0 {
					have = tokens
					break
				}
				b.WriteString(paragraph)
				have += size
			}
		}
		texts[i] = b.String()
	}
	return texts, nil
}

// exactText is a text of exactly so many tokens that no other i has.
func exactText(i, tokens int) (string, error) {
	encoding, err := bpe.Load(chunker.CL100K)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("Note %d", i)
	for encoding.Count(text) < tokens {
		text += " and"
	}
	if n := encoding.Count(text); n != tokens {
		return "", fmt.Errorf("text %d has %d tokens, not %d", i, n, tokens)
	}
	return text, nil
}

// sentences are n texts of one sentence.
func sentences(n int) []string {
	texts := make([]string, n)
	for i := range texts {
		question := demo.BenchQuery(1, i)
		texts[i] = fmt.Sprintf("Number %d asks %s.", i, question)
	}
	return texts
}

// send posts documents from..to as NDJSON and returns the token of their changes.
func (c *limitsCorpus) send(ctx context.Context, s *server, from, to int) (token string, err error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	for i := from; i < to; i++ {
		if err := enc.Encode(map[string]any{"id": benchID(i), "text": c.texts[i], "content_type": stream.TextMarkdown}); err != nil {
			return "", err
		}
	}
	var answer struct {
		Accepted int    `json:"accepted"`
		Token    string `json:"token"`
	}
	if err := s.client.do(ctx, "POST", "/documents", &body, &answer, options{contentType: "application/x-ndjson", timeout: 5 * time.Minute}); err != nil {
		return "", err
	}
	if answer.Accepted != to-from {
		return "", fmt.Errorf("%d of %d documents were accepted", answer.Accepted, to-from)
	}
	return answer.Token, nil
}

// sendAll posts all documents, a thousand in a request.
func (c *limitsCorpus) sendAll(ctx context.Context, s *server) (tokens []string, err error) {
	const each = 1000
	for from := 0; from < len(c.texts); from += each {
		token, err := c.send(ctx, s, from, min(from+each, len(c.texts)))
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, token)
	}
	return tokens, nil
}

// waitSearchable waits until the changes of tokens are, in a generation.
func waitSearchable(ctx context.Context, s *server, generation string, within time.Duration, tokens ...string) error {
	deadline := time.Now().Add(within)
	for {
		var out struct {
			Freshness struct {
				Satisfied bool `json:"satisfied"`
			} `json:"freshness"`
		}
		wait := min(time.Until(deadline), time.Minute)
		if wait <= 0 {
			return fmt.Errorf("the changes are not searchable within %s", short(within))
		}
		err := s.client.do(ctx, "POST", "/retrieve", map[string]any{"query": "anything", "k": 1, "mode": "lexical", "generation": generation, "after": tokens, "wait": wait.String()}, &out, options{timeout: wait + callTimeout})
		if err != nil || out.Freshness.Satisfied {
			return err
		}
	}
}

// readBack is how many documents are read one by one; liverag verify looks at all of them.
const readBack = 2000

// lost counts the documents that the server does not have as they were sent, chunk for chunk.
func (c *limitsCorpus) lost(ctx context.Context, s *server) (lost int, err error) {
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(8)
	var mu sync.Mutex
	step := max(1, len(c.texts)/readBack)
	for i := 0; i < len(c.texts); i += step {
		g.Go(func() error {
			same, err := c.same(each, s, i)
			if err == nil && !same {
				mu.Lock()
				lost++
				mu.Unlock()
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return lost, fmt.Errorf("read back: %w", err)
	}
	r, err := verifyAll(ctx, s)
	if err != nil {
		return lost, err
	}
	if int(r.Documents) != len(c.texts) {
		return lost, fmt.Errorf("verify saw %d documents, not %d", r.Documents, len(c.texts))
	}
	return max(lost, int(r.wrong()+r.DeadLettered)), nil
}

// same tells whether a document is stored as it was sent.
func (c *limitsCorpus) same(ctx context.Context, s *server, i int) (bool, error) {
	var stored struct {
		Chunks []struct {
			Start int    `json:"start"`
			End   int    `json:"end"`
			Text  string `json:"text"`
		} `json:"chunks"`
	}
	err := s.client.do(ctx, "GET", documentPath(benchID(i)), nil, &stored, options{})
	var p *apiError
	if errors.As(err, &p) && p.Status == 404 {
		return false, nil
	}
	if err != nil || len(stored.Chunks) != len(c.chunks[i]) {
		return false, err
	}
	for n, chunk := range c.chunks[i] {
		if got := stored.Chunks[n]; got.Start != chunk.Start || got.End != chunk.End || got.Text != c.texts[i][chunk.Start:chunk.End] {
			return false, nil
		}
	}
	return true, nil
}

// verifyAll has the server compare its index with the log.
func verifyAll(ctx context.Context, s *server) (*verified, error) {
	path, method := "/verify", "POST"
	body := any(verification{Generation: "live", Sample: 1})
	for {
		r := &verified{}
		if err := s.client.do(ctx, method, path, body, r, options{}); err != nil {
			return nil, fmt.Errorf("verify: %w", err)
		}
		switch r.State {
		case "running":
		case "done":
			return r, nil
		default:
			return nil, fmt.Errorf("verify: %s: %s", r.State, r.Detail)
		}
		method, body = "GET", nil
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
