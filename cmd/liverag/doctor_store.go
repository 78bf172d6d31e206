package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/vectordb/milvus"
)

// milvusTimeout bounds the look at the shared store.
const milvusTimeout = 10 * time.Second

// checkMilvus connects to the shared store as `liverag serve` would, and writes nothing.
func checkMilvus(ctx context.Context, cfg *Config) []check {
	ctx, cancel := context.WithTimeout(ctx, milvusTimeout)
	defer cancel()
	begin := time.Now()
	store, err := milvus.Open(ctx, cfg.Milvus.milvus(cfg.Corpus, slog.New(slog.DiscardHandler)))
	if err != nil {
		return []check{{"milvus", stateFail, err.Error(), mendMilvus(ctx, err)}}
	}
	defer store.Close()
	opened := time.Since(begin)
	begin = time.Now()
	generations, err := store.List(ctx)
	if err != nil {
		return []check{{"milvus", stateFail, fmt.Sprintf("Milvus %s at %s: %v", store.Server().Version, cfg.Milvus.Address, err), mendMilvus(ctx, err)}}
	}
	held := "no collection of corpus " + cfg.Corpus + " yet: the first `liverag index` or `liverag serve` makes one"
	if len(generations) > 0 {
		var names []string
		for _, g := range generations {
			names = append(names, "liverag_"+cfg.Corpus+"_"+g.Name)
		}
		slices.Sort(names)
		held = strings.Join(names, ", ")
	}
	checks := []check{ok("milvus", "%s answers within %s, connecting took %s; Milvus %s; %s", cfg.Milvus.Address, short(time.Since(begin)), short(opened), store.Server().Version, held)}
	if missing := store.Server().Missing(); len(missing) > 0 {
		limits := ok("limits", "Milvus %s has %s", store.Server().Version, strings.Join(missing, "; "))
		if !store.Server().Sparse {
			limits.State, limits.Do = stateWarn, "questions are answered in mode dense; take a server of version 2.4 or later for hybrid and lexical ones"
		}
		checks = append(checks, limits)
	}
	return checks
}

// mendMilvus says what to do about a server that does not do what is asked, beyond what the error says.
func mendMilvus(ctx context.Context, err error) string {
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return "something is there and does not answer: a server that is starting needs up to two minutes; else check that milvus.address is the gRPC port (19530), and the server's own log"
	}
	return "check that the port is open from here; `liverag config milvus` shows where address, TLS and login came from; the server's own log may say more"
}
