package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// chunkSet names the chunks of one version of a text under one recipe, as "start-end".
type chunkSet map[string]bool

// TestPromotesUnderLoad moves the alias to and fro between two generations while clients ask through it and writes go on. Every answer has to be from
// one generation, and of one version of each document.
func TestPromotesUnderLoad(t *testing.T) {
	for _, pair := range []struct {
		name          string
		first, second map[string]any
	}{
		{"chunkers", map[string]any{"chunker": map[string]any{"strategy": "markdown", "tokens": 120}, "embedder": map[string]any{"model": "local/static"}},
			map[string]any{"chunker": map[string]any{"strategy": "token", "tokens": 25, "overlap": 5}, "embedder": map[string]any{"model": "local/static"}}},
		{"models", map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 60}, "embedder": map[string]any{"model": "hash/384"}},
			map[string]any{"chunker": map[string]any{"strategy": "recursive", "tokens": 30}, "embedder": map[string]any{"model": "local/static"}}},
	} {
		t.Run(pair.name, func(t *testing.T) { promoteUnderLoad(t, pair.first, pair.second) })
	}
}

func promoteUnderLoad(t *testing.T, first, second map[string]any) {
	const documents, clients = 24, 8
	moves, answersEach := scaled(t, "LIVERAG_PROMOTES", 30), int64(scaled(t, "LIVERAG_PROMOTE_ANSWERS", 2*clients))
	p := startProgram(t, t.TempDir())
	initial := p.live().Name
	text := func(doc, version int) string {
		return fmt.Sprintf("# Document %d\n\nThis is version %d of it.\n\n%s", doc, version, prose(fmt.Sprintf("topic%d", doc), 4+(doc+version)%5))
	}
	for d := range documents {
		p.put(fmt.Sprintf("d/%d", d), text(d, 0))
	}
	p.replay("one", first)
	p.replay("two", second)
	p.must(nil, "POST", "/generations/one/promote", nil)
	p.must(nil, "DELETE", "/generations/"+initial, nil)

	// Where each recipe cuts each text, which a hit's span must agree with, is learned from a generation of that recipe alone, on documents
	// that nobody changes: chunks depend on text and recipe only.
	var known sync.Map // generation + text → chunkSet
	learn := func(generation, id string) (chunkSet, bool) {
		f := p.ask("version paragraph topic note", map[string]any{"generation": generation, "k": 200, "filter": map[string]any{"@id": id}})
		set := chunkSet{}
		for _, h := range f.Hits {
			set[fmt.Sprintf("%d-%d", h.Start, h.End)] = true
		}
		return set, len(set) > 0
	}
	const versions = 12
	for d := range documents {
		for v := range versions {
			id := fmt.Sprintf("model/%d/%d", d, v)
			var w written
			p.must(&w, "PUT", documentPath(id), map[string]any{"text": text(d, v), "metadata": map[string]any{"model": true}})
		}
	}
	for _, name := range []string{"one", "two"} {
		p.ask("x", map[string]any{"generation": name, "max_staleness": "0s", "wait": "25s", "strict": true})
		for d := range documents {
			for v := range versions {
				set, ok := learn(name, fmt.Sprintf("model/%d/%d", d, v))
				if !ok {
					t.Fatalf("%s: no chunks of document %d, version %d", name, d, v)
				}
				known.Store(name+text(d, v), set)
			}
		}
	}

	var (
		wg       sync.WaitGroup
		stop     = make(chan struct{})
		answers  atomic.Int64
		byName   [2]atomic.Int64
		problems = make(chan string, 100)
	)
	wrong := func(format string, args ...any) {
		select {
		case problems <- fmt.Sprintf(format, args...):
		default:
		}
	}
	running := func() bool {
		select {
		case <-stop:
			return false
		default:
			return true
		}
	}
	// The writers: every document goes through its versions, again and again.
	var current [documents]atomic.Int64
	for c := range 2 {
		wg.Go(func() {
			for n := 0; running(); n++ {
				d := (n*2 + c) % documents
				v := int(current[d].Load()+1) % versions
				got, err := p.call("PUT", documentPath(fmt.Sprintf("d/%d", d))+"?wait=10s", map[string]any{"text": text(d, v)})
				if err != nil || got.status != http.StatusOK {
					wrong("a write answers %d %s %v", got.status, got.body, err)
				}
				current[d].Store(int64(v))
			}
		})
	}
	check := func(f *found) {
		answers.Add(1)
		byName[strings.Index("one two", f.Generation.Name)/4].Add(1)
		if f.Generation.Alias != "live" || f.Mode != "hybrid" {
			wrong("asked live for hybrid and got %+v, %s", f.Generation, f.Mode)
		}
		recipe := first
		if f.Generation.Name == "two" {
			recipe = second
		}
		if got := f.Generation.Recipe; got.Chunker.Strategy != recipe["chunker"].(map[string]any)["strategy"] || got.Embedder.Model != recipe["embedder"].(map[string]any)["model"] {
			wrong("%s answers with the recipe %+v", f.Generation.Name, got)
		}
		if len(f.Hits) == 0 {
			wrong("an answer of %s without hits", f.Generation.Name)
		}
		versionOf := map[string]int64{}
		spans := map[string][]string{}
		for _, h := range f.Hits {
			if v, ok := versionOf[h.Document]; ok && v != h.Version {
				wrong("%s: versions %d and %d in one answer", h.Document, v, h.Version)
			}
			versionOf[h.Document] = h.Version
			spans[h.Document] = append(spans[h.Document], fmt.Sprintf("%d-%d", h.Start, h.End))
			if h.End-h.Start != len(h.Text) {
				wrong("%s: a span of %d bytes and a text of %d", h.ID, h.End-h.Start, len(h.Text))
			}
		}
		// All hits of a document belong to one of its versions as this generation's recipe cuts it, and their texts are that version's.
		for id, cuts := range spans {
			var d int
			if _, err := fmt.Sscanf(id, "d/%d", &d); err != nil {
				wrong("an unexpected document %q", id)
				continue
			}
			fits := false
			for v := range versions {
				body := text(d, v)
				set, _ := known.Load(f.Generation.Name + body)
				if slices.ContainsFunc(cuts, func(cut string) bool { return !set.(chunkSet)[cut] }) {
					continue
				}
				same := true
				for _, h := range f.Hits {
					same = same && (h.Document != id || body[h.Start:h.End] == h.Text)
				}
				fits = fits || same
			}
			if !fits {
				wrong("%s: the hits of %s in %v are no version's as that recipe cuts it", f.Generation.Name, id, cuts)
			}
		}
	}
	for range clients {
		wg.Go(func() {
			for running() {
				body := fmt.Sprintf(`{"query":"what is said of topic%d in paragraph %d","k":12,"filter":{"model":{"$exists":false}}}`, rand.IntN(documents), rand.IntN(8))
				got, err := p.call("POST", "/retrieve", body)
				var f found
				switch {
				case err != nil:
					wrong("a query fails: %v", err)
				case got.status != http.StatusOK:
					wrong("a query answers %d %s", got.status, got.body)
				case json.Unmarshal(got.body, &f) != nil || f.Generation.Name != "one" && f.Generation.Name != "two":
					wrong("a query answers %s", got.body)
				default:
					check(&f)
				}
			}
		})
	}
	// The alias moves once some answers came since the last time.
	for move := range moves {
		goal := answers.Load() + answersEach
		until(t, "answered", func() bool { return answers.Load() >= goal || len(problems) > 0 })
		path := []string{"/generations/two/promote", "/rollback", "/generations/two/promote", "/generations/one/promote"}[move%4]
		p.must(nil, "POST", path, nil)
	}
	close(stop)
	wg.Wait()
	close(problems)
	for problem := range problems {
		t.Error(problem)
	}
	if byName[0].Load() == 0 || byName[1].Load() == 0 {
		t.Errorf("answers by generation: %d and %d", byName[0].Load(), byName[1].Load())
	}
	t.Logf("%d answers, %d of one and %d of two, over %d moves", answers.Load(), byName[0].Load(), byName[1].Load(), moves)
}
