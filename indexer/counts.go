package indexer

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/liverag/liverag/embedder"
)

// counts is what a generation's pipelines have done since this process started. Everything is read while it runs.
type counts struct {
	changes        atomic.Int64 // delivered by the log
	documents      atomic.Int64 // revisions with content applied
	deletes        atomic.Int64
	chunksEmbedded atomic.Int64
	chunksReused   atomic.Int64
	tokensEmbedded atomic.Int64
	tokensReused   atomic.Int64
	tokensBilled   atomic.Int64 // by the model's own tokenizer, context and prefixes included; counted where the model has a price
	superseded     atomic.Int64 // changes that a newer one overtook before they were embedded
	// tokensSuperseded are those of them that were cut already, and had to be embedded.
	tokensSuperseded atomic.Int64
	deadLetters      atomic.Int64
	stale            atomic.Int64 // changes that the store had already
	reconciled       atomic.Int64 // comparisons with the log because deletes may have been missed
	ghosts           atomic.Int64 // what they removed

	mu     sync.Mutex
	minute embedder.Minute // tokens only
}

// bill counts what a call's embedding is charged: as its usage says, or where nothing on the way knows what it sends, so many tokens of the chunker's.
func (c *counts) bill(usage *embedder.Usage, tokens int) {
	if usage.Traced() {
		c.tokensBilled.Add(usage.Tokens())
		return
	}
	c.tokensBilled.Add(int64(tokens))
}

func (c *counts) addTokens(now time.Time, n int) {
	c.tokensEmbedded.Add(int64(n))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.minute.Add(0, int64(n), now)
}

func (c *counts) tokensLastMinute(now time.Time) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, tokens := c.minute.Sum(now)
	return tokens
}
