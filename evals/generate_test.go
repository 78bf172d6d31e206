package evals

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

type writer func(passage string) (string, error)

func (w writer) Question(_ context.Context, passage string) (string, error) { return w(passage) }

func TestGenerate(t *testing.T) {
	from := []GeneratedFrom{{"a", "one"}, {"b", "two"}, {"c", "essay"}, {"d", "nothing"}, {"e", "one"}}
	last := 0
	got, skipped, err := Generate(t.Context(), writer(func(passage string) (string, error) {
		switch passage {
		case "essay":
			return strings.Repeat("because ", 200), nil
		case "nothing":
			return " \n", nil
		}
		return "Question: \"What is\n" + passage + "?\"", nil
	}), from, func(done, _ int) { last = done })
	if err != nil || skipped != 3 || last != 5 || len(got) != 2 {
		t.Fatalf("%+v, %d skipped, %d done, %v", got, skipped, last, err)
	}
	for i, want := range []Question{{ID: "generated-1", Query: "What is one?", Documents: []string{"a"}}, {ID: "generated-2", Query: "What is two?", Documents: []string{"b"}}} {
		if q := got[i]; q.ID != want.ID || q.Query != want.Query || !slices.Equal(q.Documents, want.Documents) {
			t.Errorf("got %+v, want %+v", q, want)
		}
	}
	away := errors.New("away")
	if _, _, err := Generate(t.Context(), writer(func(string) (string, error) { return "", away }), from, nil); !errors.Is(err, away) {
		t.Errorf("got %v", err)
	}
}
