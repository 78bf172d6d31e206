// Package local has the models that are carried in the binary: no server, no download, no key.
package local

import (
	"fmt"
	"strings"

	"github.com/liverag/liverag/embedder"
)

// Names of the models.
const (
	MiniLMName = "local/minilm"
	StaticName = "local/static"
)

// Models are the names that Open takes, the best first.
func Models() []string { return []string{MiniLMName, StaticName} }

// Open finds a model by its name in a recipe ("local/minilm") or by the full one that Name gives ("local/minilm@e12cb29f"). A full name
// with another hash is refused: vectors of other weights can't be compared.
func Open(name string) (embedder.Embedder, error) {
	short, _, exact := strings.Cut(name, "@")
	var model embedder.Embedder
	var err error
	switch short {
	case MiniLMName:
		model, err = NewMiniLM()
	case StaticName:
		model, err = NewStatic()
	default:
		return nil, fmt.Errorf("local: model %q is not in this binary; it has %s", name, strings.Join(Models(), ", "))
	}
	if err != nil {
		return nil, err
	}
	if exact && name != model.Name() {
		return nil, fmt.Errorf("local: this binary has %s, not %s; replay the log into a generation of the new model", model.Name(), name)
	}
	return model, nil
}
