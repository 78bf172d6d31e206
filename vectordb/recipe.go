package vectordb

// Recipe is what a caller chooses: how text becomes entries. It is the JSON of the API and of recipe files.
// A Generation's Fingerprint is made from what the recipe resolves to.
type Recipe struct {
	Chunker  ChunkerRecipe  `json:"chunker" yaml:"chunker"`
	Embedder EmbedderRecipe `json:"embedder" yaml:"embedder"`
}

// ChunkerRecipe chooses a chunker.
type ChunkerRecipe struct {
	// Strategy is markdown, recursive, token or whole. Default markdown.
	Strategy string `json:"strategy" yaml:"strategy"`
	// Tokens is the budget of a chunk. Default 200.
	Tokens int `json:"tokens" yaml:"tokens"`
	// Overlap is how many tokens neighbours share. Default 0.
	Overlap int `json:"overlap" yaml:"overlap"`
	// Tokenizer is what Tokens counts: cl100k_base, o200k_base or minilm. Default cl100k_base.
	Tokenizer string `json:"tokenizer" yaml:"tokenizer"`
}

// EmbedderRecipe chooses a model.
type EmbedderRecipe struct {
	// Model is provider/name. Default: the best local model in the binary.
	Model string `json:"model" yaml:"model"`
	// Long says what happens to an input over the model's limit: split (embedded in pieces, their mean kept), truncate or
	// reject (to the dead letters). Default split.
	Long string `json:"long" yaml:"long"`
}
