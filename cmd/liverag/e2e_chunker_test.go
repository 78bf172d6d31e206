package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// cutter is a chunker of somebody's own, as a program: a chunk a line. It dies of one word.
func cutter() {
	in := json.NewDecoder(os.Stdin)
	for {
		var r struct{ Text string }
		if in.Decode(&r) != nil {
			return
		}
		if strings.Contains(r.Text, "unspeakable") {
			fmt.Fprintln(os.Stderr, "ValueError: no words for this")
			os.Exit(1)
		}
		out, _ := json.Marshal(map[string]any{"chunks": cutLines(r.Text)})
		fmt.Println(string(out))
	}
}

func cutLines(text string) []string {
	lines := []string{}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestAChunkerOfTheirOwn(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the program here is a shell script")
	}
	data, programs := t.TempDir(), t.TempDir()
	write(t, programs, "lines.sh", []byte("#!/bin/sh\nexec cutter\n"))
	if err := os.Chmod(filepath.Join(programs, "lines.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := startProgram(t, data, "--programs", programs, "--embedder", "hash/384")
	p.put("poem", "roses are red\nviolets are blue\n")
	p.verb("", "replay", "--chunker", "exec:./lines.sh --quick", "--until-caught-up")
	var name string
	for _, g := range p.generations() {
		if g.State != "ready" {
			t.Errorf("%s is %s", g.Name, g.State)
		}
		if g.Recipe.Chunker.Strategy == "exec:./lines.sh --quick" {
			name = g.Name
		}
	}
	if !strings.HasPrefix(name, "lines_384_") {
		t.Fatalf("the generation is called %q", name)
	}
	p.verb("", "promote", name)
	p.put("more", "sugar is sweet\nand so are you")
	for question, want := range map[string]string{"violets": "violets are blue", "sugar": "sugar is sweet"} {
		if f := p.ask(question, map[string]any{"k": 1}); len(f.Hits) != 1 || f.Hits[0].Text != want {
			t.Errorf("%s finds %+v, want %q", question, f.Hits, want)
		}
	}

	// What it can't cut becomes a dead letter, and the old version serves.
	var w written
	p.must(&w, "PUT", "/documents/more?wait=10s", `{"text":"an unspeakable thing"}`)
	var letters struct {
		Letters []struct{ Key, Code, Detail string } `json:"letters"`
	}
	until(t, "the dead letter", func() bool {
		p.must(&letters, "GET", "/dlq", nil)
		return len(letters.Letters) > 0
	})
	if l := letters.Letters[0]; l.Code != "chunker_rejected" || !strings.Contains(l.Detail, "no words for this") {
		t.Errorf("the dead letter is %+v", l)
	}
	if doc, ok := p.get("more"); !ok || doc.Text != "sugar is sweet\nand so are you" {
		t.Errorf("the old version is %v, %q", ok, doc.Text)
	}
	p.put("after", "honey is golden")
	if f := p.ask("honey", map[string]any{"k": 1}); len(f.Hits) != 1 || f.Hits[0].Text != "honey is golden" {
		t.Errorf("after it: %+v", f.Hits)
	}
	p.verb("", "verify")

	// Nobody runs anything but what is in that directory.
	for _, strategy := range []string{"exec:/bin/sh", "exec:../x", "exec:", "exec:absent.py"} {
		got, err := p.call("POST", "/generations", map[string]any{"recipe": map[string]any{"chunker": map[string]any{"strategy": strategy}}})
		if err != nil || got.status != http.StatusBadRequest || got.code() != "recipe_invalid" {
			t.Errorf("%s: %d %s, %v", strategy, got.status, got.body, err)
		}
	}
	p.stop()
	p = startProgram(t, data, "--programs", programs, "--embedder", "hash/384")
	if live := p.live(); live.Name != name {
		t.Errorf("after a restart %s is live, want %s", live.Name, name)
	}
	p.put("poem", "roses are black\nviolets are blue\n")
	if f := p.ask("black roses", map[string]any{"k": 1}); len(f.Hits) != 1 || f.Hits[0].Text != "roses are black" {
		t.Errorf("after a restart: %+v", f.Hits)
	}
}

func TestAChunkingServiceOfTheirOwn(t *testing.T) {
	var away, asked atomic.Bool
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Text string }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || away.Load() {
			asked.Store(true)
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"chunks": cutLines(in.Text)})
	}))
	defer service.Close()
	p := startProgram(t, t.TempDir(), "--chunker", service.URL+"/cut", "--embedder", "hash/384")
	p.put("poem", "roses are red\nviolets are blue\n")
	if f := p.ask("violets", map[string]any{"k": 1}); len(f.Hits) != 1 || f.Hits[0].Text != "violets are blue" {
		t.Errorf("%+v", f.Hits)
	}
	// While it is away the old version serves, and the change is not lost.
	away.Store(true)
	var w written
	p.must(&w, "PUT", "/documents/poem?wait=1ms", `{"text":"grass is green\nthe sky is blue"}`)
	until(t, "the service was asked", asked.Load)
	until(t, "the trouble is told", func() bool { g := p.live(); return g.Trouble != nil })
	if g := p.live(); !strings.Contains(g.Trouble.Detail, "503") {
		t.Errorf("the trouble is %q", g.Trouble.Detail)
	}
	if f := p.ask("violets", map[string]any{"k": 1}); len(f.Hits) != 1 || f.Hits[0].Text != "violets are blue" {
		t.Errorf("while it is away: %+v", f.Hits)
	}
	away.Store(false)
	if f := p.ask("grass", map[string]any{"k": 1, "after": w.Token, "wait": "20s", "strict": true}); len(f.Hits) != 1 || f.Hits[0].Text != "grass is green" {
		t.Errorf("when it is back: %+v", f.Hits)
	}
}
