package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/liverag/liverag/vectordb"
)

// sweptRecipe is one recipe of a sweep.
type sweptRecipe struct {
	// name is the file's own, or made of the file's name.
	name string
	// said is what the file and the flags say, as the API wants it; the rest is the server's to fill.
	said map[string]any
	// full is said over the settings, for an index in this process.
	full vectordb.Recipe
}

var notInName = regexp.MustCompile(`[^a-z0-9_]+`)

// openSweptRecipe reads a recipe file as replay does.
func openSweptRecipe(c *call, path string) (*sweptRecipe, error) {
	r := &sweptRecipe{full: c.Config.recipe()}
	var err error
	if r.said, r.name, err = askedRecipe(c, path); err != nil {
		return nil, err
	}
	if r.name == "" {
		base := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		r.name = strings.Trim(notInName.ReplaceAllString(strings.ToLower(base), "_"), "_")
		if !nameForm.MatchString(r.name) {
			return nil, &usageError{detail: fmt.Sprintf("%s: %q can't name a generation: a small letter, then small letters, digits and _, at most 63", path, r.name), hint: "give the recipe one with the key name"}
		}
	}
	said, err := json.Marshal(r.said)
	if err == nil {
		err = json.Unmarshal(said, &r.full)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}
