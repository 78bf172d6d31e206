package main

import (
	"io"
	"log/slog"
	"path/filepath"
)

// recipeSettings are those of a recipe and its model.
var recipeSettings = []string{"chunker", "tokens", "overlap", "tokenizer", "embedder", "long", "openai.*"}

// evalConfig is the configuration of what an eval runs inside the process: with less to say than a server has, and with the vectors that evals before
// it have cached, whatever uses the data directory itself.
func (c *call) evalConfig() *Config {
	cfg := *c.Config
	cfg.Data, cfg.Corpus = filepath.Join(c.Config.Data, "evals"), "vectors"
	cfg.Spending = SpendingConfig{} // who starts an eval waits for it
	if cfg.LogLevel == "info" {
		cfg.LogLevel = "warn"
	}
	return &cfg
}

// openModels opens the models of an eval without a log and a store, over a cache of vectors that evals share. Close the system in the end.
func openModels(cfg *Config, logger *slog.Logger) (*system, error) {
	s := &system{models: &models{defaults: cfg.recipe(), openai: cfg.OpenAI, logger: logger, open: map[string]*model{}}}
	s.closers = []io.Closer{s.models}
	if cfg.Cache.MaxBytes > 0 {
		if err := s.openCache(cfg, logger); err != nil {
			return nil, err
		}
	}
	return s, nil
}
