package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	goopenai "github.com/sashabaranov/go-openai"
)

// plainClient embeds as pipelines usually do it, to compare with: see the help of `bench limits`.
type plainClient struct {
	base string
	// workers are how many documents are worked on at once, attempts how often a request is made before its document is given up.
	workers, attempts int
	// first is the longest wait after the first failure; it doubles with each further one.
	first time.Duration
}

func newPlainClient(base string) *plainClient {
	return &plainClient{base: base, workers: 8, attempts: 6, first: time.Second}
}

// run embeds the inputs of each document, a document a request, until all are done or given up, or ctx ends.
func (p *plainClient) run(ctx context.Context, documents [][]string) (done, lost int) {
	cfg := goopenai.DefaultConfig("mock")
	cfg.BaseURL = p.base
	cfg.HTTPClient = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: p.workers}}
	client := goopenai.NewClientWithConfig(cfg)
	queue := make(chan []string)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range p.workers {
		wg.Go(func() {
			for inputs := range queue {
				err := p.embed(ctx, client, inputs)
				mu.Lock()
				switch {
				case err == nil:
					done++
				case ctx.Err() == nil:
					lost++
				}
				mu.Unlock()
			}
		})
	}
	for _, inputs := range documents {
		select {
		case queue <- inputs:
		case <-ctx.Done():
		}
	}
	close(queue)
	wg.Wait()
	return done, lost
}

// embed makes one request, and makes it again.
func (p *plainClient) embed(ctx context.Context, client *goopenai.Client, inputs []string) (err error) {
	longest := p.first
	for attempt := 1; ; attempt++ {
		if _, err = client.CreateEmbeddings(ctx, goopenai.EmbeddingRequestStrings{Input: inputs, Model: limitsModel}); err == nil {
			return nil
		}
		var refused *goopenai.APIError
		final := errors.As(err, &refused) && refused.HTTPStatusCode != http.StatusTooManyRequests && refused.HTTPStatusCode < 500
		if final || attempt == p.attempts || ctx.Err() != nil {
			return err
		}
		if pause(ctx, rand.N(longest)) != nil {
			return err
		}
		longest *= 2
	}
}
