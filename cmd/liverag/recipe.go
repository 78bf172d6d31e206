package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/liverag/liverag/internal/config"
)

// recipeFile is a recipe as it is kept in a repository. What it leaves out is the server's to fill. Its keys are those of the API.
type recipeFile struct {
	Name    string `name:"name" doc:"Name of the generation."`
	Chunker struct {
		Strategy  string `name:"strategy" doc:"How documents are cut."`
		Tokens    int    `name:"tokens" min:"16" max:"8192" doc:"Token budget of a chunk."`
		Overlap   int    `name:"overlap" min:"0" max:"8191" doc:"Tokens that neighbouring chunks share."`
		Tokenizer string `name:"tokenizer" oneof:"cl100k_base o200k_base minilm" doc:"What tokens counts."`
	} `name:"chunker"`
	Embedder struct {
		Model string `name:"model" doc:"The model, as provider/name."`
		Long  string `name:"long" oneof:"split truncate reject" doc:"What happens to a chunk over the model's limit."`
	} `name:"embedder"`
}

// recipeKeys are the settings that say the same as a key of a recipe file.
var recipeKeys = map[string]string{
	"chunker.strategy": "chunker", "chunker.tokens": "tokens", "chunker.overlap": "overlap", "chunker.tokenizer": "tokenizer",
	"embedder.model": "embedder", "embedder.long": "long",
}

// readRecipe reads a recipe file. An error names the line.
func readRecipe(path string) (*recipeFile, *config.Settings, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("--recipe: %w", err)
	}
	if len(bytes.TrimSpace(content)) == 0 {
		return nil, nil, fmt.Errorf("--recipe: %s is empty", path)
	}
	r := &recipeFile{}
	settings, err := config.Load(r, config.Sources{File: path, Content: content})
	if err != nil {
		return nil, nil, &usageError{detail: err.Error(), hint: "a recipe file has the keys name, chunker (strategy, tokens, overlap, tokenizer) and embedder (model, long)"}
	}
	if r.Name != "" && !nameForm.MatchString(r.Name) {
		return nil, nil, &usageError{detail: settings.Errorf("name", "%q is no name: a small letter, then small letters, digits and _, at most 63", r.Name).Error()}
	}
	return r, settings, nil
}

// askedRecipe is what somebody said of the recipe, in flags, in the recipe file, and else in the settings; the rest is the server's to fill. name is the file's.
func askedRecipe(c *call, path string) (recipe map[string]any, name string, err error) {
	recipe = map[string]any{"chunker": map[string]any{}, "embedder": map[string]any{}}
	var file *recipeFile
	var said *config.Settings
	if path != "" {
		if file, said, err = readRecipe(path); err != nil {
			return nil, "", err
		}
		name = file.Name
	}
	for key, setting := range recipeKeys {
		origin := c.Settings.Origin(setting)
		var value any
		switch {
		case origin.Kind != "flag" && said != nil && !said.Origin(key).IsDefault():
			value = said.Value(key)
		case !origin.IsDefault() && (said == nil || origin.Kind == "flag"):
			value = c.Settings.Value(setting)
		default:
			continue
		}
		section, field, _ := strings.Cut(key, ".")
		recipe[section].(map[string]any)[field] = value
	}
	return recipe, name, nil
}
