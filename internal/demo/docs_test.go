package demo

import (
	"testing"

	"github.com/liverag/liverag/docs"
)

func TestFallbackToOwnDocumentation(t *testing.T) {
	documents, err := collect(Fallback(docs.Files))
	if err != nil {
		t.Fatal(err)
	}
	titles := make(map[string]string)
	for _, d := range documents {
		titles[d.ID] = d.Title
	}
	if titles["adr/0001-record-decisions.md"] != "1. Decisions are recorded" {
		t.Errorf("titles %v", titles)
	}
}
