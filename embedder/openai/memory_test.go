package openai_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/embedder/openai"
	"github.com/liverag/liverag/internal/mockprovider"
)

// TestAStartWhileTheEndpointIsAway: what an endpoint has said before opens its model while it does not answer, with the same name and the same longest input, and lets a standby be compared.
func TestAStartWhileTheEndpointIsAway(t *testing.T) {
	first, down := &switched{}, says(503, "")
	well := mock(t, mockprovider.Config{Server: "vllm", MaxInputTokens: 512})
	first.set(well)
	cfg := listening(t, first)
	cfg.Memory = filepath.Join(t.TempDir(), "not made yet")
	m := open(t, cfg)
	if m.MaxInput() != 512 {
		t.Fatalf("the server says that it reads %d tokens", m.MaxInput())
	}
	other := listening(t, mock(t, mockprovider.Config{Server: "vllm", MaxInputTokens: 512}))
	if err := standby(t, m, other).Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	open(t, cfg) // nobody compares this time, and what was compared by is kept

	first.set(down)
	cfg.Dim = 64
	again, err := openai.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if again.MaxInput() != 512 || again.Name() != m.Name() || again.Dim() != 64 {
		t.Errorf("%s of %d dimensions reads %d tokens", again.Name(), again.Dim(), again.MaxInput())
	}
	if err := standby(t, again, other).Check(t.Context()); err != nil {
		t.Errorf("the standby can't be compared while the first is away: %v", err)
	}
	if err := standby(t, again, listening(t, noisy(t, 64, 1))).Check(t.Context()); err == nil || kindOf(t, failure(t, err)) != account {
		t.Errorf("a standby with other vectors: %v", err)
	}
	first.set(well)
	if vectors, err := again.Embed(t.Context(), embedder.Index, []string{"refund"}); err != nil || len(vectors) != 1 {
		t.Errorf("once it is back: %v", err)
	}

	// What was said of one model says nothing of another, and what can't be read says nothing.
	first.set(down)
	for name, change := range map[string]func(*openai.Config){
		"another model":     func(c *openai.Config) { c.Model = "another" },
		"another prefix":    func(c *openai.Config) { c.QueryPrefix = "query: " },
		"another endpoint":  func(c *openai.Config) { c.BaseURL += "/proxy" },
		"another dimension": func(c *openai.Config) { c.Dim = 48 },
		"no index yet":      func(c *openai.Config) { c.Dim = 0 },
		"nothing is kept":   func(c *openai.Config) { c.Memory = "" },
	} {
		changed := cfg
		change(&changed)
		if _, err := openai.Open(t.Context(), changed); err == nil || kindOf(t, failure(t, err)) != waits {
			t.Errorf("%s: %v", name, err)
		}
	}
	files, err := filepath.Glob(filepath.Join(cfg.Memory, "*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, garbage := range []string{"", "{", `{"of":"x"}`, "[]"} {
		if err := os.WriteFile(files[0], []byte(garbage), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := openai.Open(t.Context(), cfg); err == nil || kindOf(t, failure(t, err)) != waits {
			t.Errorf("with %q kept: %v", garbage, err)
		}
	}
	first.set(well)
	open(t, cfg) // and it is put right
	first.set(down)
	if _, err := openai.Open(t.Context(), cfg); err != nil {
		t.Error(err)
	}
}

// TestNothingCanBeKept: a directory that can't be written costs a warning.
func TestNothingCanBeKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cfg := listening(t, mock(t, mockprovider.Config{}))
	cfg.Memory, cfg.Logger = file, slog.New(slog.NewTextHandler(&said, nil))
	if _, err := openai.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "can't be kept") {
		t.Errorf("it is not said: %s", &said)
	}
}

// TestARefusalAtTheStartIsNoOutage: what was said before does not hide that we are refused now.
func TestARefusalAtTheStartIsNoOutage(t *testing.T) {
	endpoint := &switched{}
	endpoint.set(mock(t, mockprovider.Config{}))
	cfg := listening(t, endpoint)
	cfg.Memory = t.TempDir()
	open(t, cfg)
	endpoint.set(mock(t, mockprovider.Config{Key: "sk-right"}))
	cfg.Dim = 64
	var failed *embedder.Error
	if _, err := openai.Open(t.Context(), cfg); !errors.As(err, &failed) || failed.Temporary || !failed.Account {
		t.Errorf("%v", err)
	}
}
