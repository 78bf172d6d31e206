package indexer

import "github.com/liverag/liverag/ledger"

// Account keeps what generations took for longer than a process lives. [ledger.Ledger] is one.
type Account interface {
	// Add tells what was done for a generation since it was told last. id tells it from others that had its name.
	Add(generation, id, model string, f ledger.Figures)
	// Of is all that was told of it, by processes before this one too.
	Of(generation, id string) ledger.Figures
	// Cap is what may be spent on documents in a day by a model that is charged for; the zero Cap: there is none.
	Cap(model string) ledger.Cap
}

// figures is what was counted, at a price in US dollars a million tokens.
func (c *counts) figures(price float64) ledger.Figures {
	billed := c.tokensBilled.Load()
	return ledger.Figures{
		ChunksEmbedded: c.chunksEmbedded.Load(), ChunksReused: c.chunksReused.Load(),
		TokensEmbedded: c.tokensEmbedded.Load(), TokensReused: c.tokensReused.Load(),
		Superseded: c.superseded.Load(), TokensSuperseded: c.tokensSuperseded.Load(), DeadLetters: c.deadLetters.Load(),
		TokensBilled: billed, Cost: ledger.Cost(billed, price),
	}
}

// account tells the account what was done since it was told last. Counting itself must not wait for it, so it is told by and by.
func (g *generation) account() {
	to := g.indexer.config.Account
	if to == nil || g.indexer.config.Observe {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.opened {
		return
	}
	now := g.counts.figures(g.parts.Price)
	to.Add(g.name, g.group, g.parts.Recipe.Embedder.Model, now.Minus(g.told))
	g.told = now
}

// work is what was done for the generation since it was made, as far as that is known. It needs mu.
func (g *generation) work() *Work {
	f := g.before.Plus(g.counts.figures(g.parts.Price))
	return &Work{
		ChunksEmbedded: f.ChunksEmbedded, ChunksReused: f.ChunksReused, TokensEmbedded: f.TokensEmbedded, TokensReused: f.TokensReused,
		Superseded: f.Superseded, DeadLetters: f.DeadLetters, CostUSD: f.Cost.Dollars(),
	}
}
