package local

import (
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/embeddertest"
)

func TestModels(t *testing.T) {
	for _, name := range Models() {
		t.Run(name, func(t *testing.T) {
			embeddertest.Run(t, func() embedder.Embedder {
				e, err := Open(name)
				if err != nil {
					t.Fatal(err)
				}
				return e
			})
		})
	}
}
