package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/mockprovider"
)

// providers are the endpoints of the live generation's model, as GET /freshness tells.
func (p *program) providers() []embedder.Provider {
	p.t.Helper()
	var freshness struct {
		Embedding struct {
			Providers []embedder.Provider `json:"providers"`
		} `json:"embedding"`
	}
	p.must(&freshness, "GET", "/freshness", nil)
	return freshness.Embedding.Providers
}

// freePort is an address of this machine at which nobody listens.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// write stores n documents without waiting for them.
func (p *program) write(name string, n int) {
	p.t.Helper()
	var lines strings.Builder
	for i := range n {
		line, err := json.Marshal(map[string]string{"id": fmt.Sprint(name, i), "text": prose(fmt.Sprint(name, i), 12)})
		if err != nil {
			p.t.Fatal(err)
		}
		lines.Write(append(line, '\n'))
	}
	p.must(nil, "POST", "/documents", lines.String())
}

// TestFailover: the first of two endpoints, which allows little, dies; indexing and questions go on by the second, at that one's pace. When the first is back, all goes back to it. When both are dead,
// documents wait, who asks for meaning is told so at once, and who names no mode is answered by words; and in the end nothing is missing.
func TestFailover(t *testing.T) {
	t.Parallel()
	const rpm, tpm, many = 1000, 6000, 300
	open := func(cfg *mockprovider.Config) { cfg.Key = "" }
	limited := func(cfg *mockprovider.Config) { cfg.Key, cfg.RPM, cfg.TPM = "", rpm, tpm }
	first, stopFirst := endpoint(t, "127.0.0.1:0", 64, limited)
	second, stopSecond := endpoint(t, "127.0.0.1:0", 64, open)
	file := settingsFile(t, t.TempDir(), fmt.Sprintf("openai: {base_url: \"http://%s/v1\", rpm: %d, tpm: %d, failover: {base_url: \"http://%s/v1\", concurrency: 4}}\n", first, rpm, tpm, second))
	p := startProgram(t, t.TempDir(), "--config", file, "--embedder", "openai/some-model")
	asked := 0
	question := func() (answered, time.Duration) {
		t.Helper()
		asked++ // the same question again would not be embedded
		began := time.Now()
		got, err := p.call("POST", "/retrieve", map[string]any{"query": fmt.Sprint("what speaks of quince, ", asked, "?"), "mode": "dense", "k": 3})
		if err != nil {
			t.Fatal(err)
		}
		return got, time.Since(began)
	}
	mustFind := func(when string) time.Duration {
		t.Helper()
		got, took := question()
		if got.status != http.StatusOK || !strings.Contains(string(got.body), "quince") {
			t.Errorf("%s: %d %s", when, got.status, got.body)
		}
		return took
	}

	p.put("one", "The first one speaks of quince.")
	mustFind("both are well")
	at := p.providers()
	if len(at) != 2 || at[0].Name != "http://"+first+"/v1" || at[1].Name != "http://"+second+"/v1" {
		t.Fatalf("%+v", at)
	}
	if at[0].RPM != rpm || at[0].TPM != tpm || at[1].RPM != 0 || at[1].TPM != 0 || at[1].Concurrency != 4 || at[1].Requests != 0 || at[1].State != embedder.Ready {
		t.Errorf("%+v", at)
	}

	died := time.Now()
	stopFirst()
	p.put("two", "The second one speaks of quince.")
	t.Logf("a document was searchable %s after the first had died, a question answered %s after that", time.Since(died).Round(time.Millisecond), mustFind("the first is dead").Round(time.Millisecond))
	at = p.providers()
	if at[0].State != embedder.Down || at[0].Since.Before(died) || at[0].NextTry.Before(at[0].Since) || !strings.Contains(at[0].Detail, first) || at[1].State != embedder.Ready || at[1].Requests == 0 || !at[1].NextTry.IsZero() {
		t.Errorf("%+v", at)
	}
	if live := p.live(); live.Trouble != nil {
		t.Errorf("nothing is in the way, and it says %+v", live.Trouble)
	}
	// More than the first would let through in a quarter of an hour.
	began := time.Now()
	p.write("many", many)
	p.applied()
	at = p.providers()
	if at[1].Tokens < 5*tpm {
		t.Errorf("%d tokens show nothing", at[1].Tokens)
	}
	t.Logf("%d tokens went to the second within %s; the first allows %d a minute", at[1].Tokens, time.Since(began).Round(time.Millisecond), tpm)
	mustFind("after many")

	_, stopFirst = endpoint(t, first, 64, limited)
	until(t, "back at the first", func() bool { mustFind("the first comes back"); return p.providers()[0].State == embedder.Ready })
	before := p.providers()
	p.put("three", "The third one speaks of quince.")
	mustFind("both are well again")
	if after := p.providers(); after[0].Requests < before[0].Requests+2 || after[1].Requests != before[1].Requests || after[0].Since.Before(died) {
		t.Errorf("%+v, then %+v", before, after)
	}

	stopFirst()
	stopSecond()
	p.write("late", 30)
	until(t, "told that both are down", func() bool {
		got, _ := question()
		at = p.providers()
		return got.status == http.StatusServiceUnavailable && got.code() == "embedder_unavailable" && at[0].State == embedder.Down && at[1].State == embedder.Down
	})
	for i, address := range []string{first, second} {
		if at[i].NextTry.IsZero() || at[i].Since.Before(before[0].Since) || !strings.Contains(at[i].Detail, address) {
			t.Errorf("%+v", at[i])
		}
	}
	for range 5 {
		// A question may be the one that finds out whether somebody is back; none waits as long as for an endpoint that has just begun to fail.
		if got, took := question(); got.status != http.StatusServiceUnavailable || got.code() != "embedder_unavailable" || took > 5*time.Second {
			t.Errorf("after %v: %d %s", took, got.status, got.body)
		}
	}
	if f := p.ask("quince", map[string]any{"mode": "lexical"}); len(f.Hits) != 3 || f.Degraded.Code != "" {
		t.Errorf("by words: %+v", f)
	}
	if f := p.ask("what speaks of quince, and of nothing else?", nil); f.Mode != "lexical" || f.Degraded.Code != "embedder_unavailable" || len(f.Hits) < 3 || !strings.Contains(f.Hits[0].Text, "quince") {
		t.Errorf("by words, although nobody asked for that: %+v", f)
	}
	if said := p.verb("", "query", "which one speaks of quince?"); !strings.Contains(said, "can't be reached now; words alone answered") || !strings.Contains(said, "lexical search in") {
		t.Errorf("%s", said)
	}
	if counted := p.metric("liverag_retrieve_degraded_total"); counted != 2 {
		t.Errorf("%v degraded answers are counted", counted)
	}
	until(t, "in trouble", func() bool { live := p.live(); return live.Trouble != nil && live.Progress.Documents == many+3 })

	endpoint(t, second, 64, open)
	p.applied()
	for _, id := range []string{"one", "two", "three", "late0", "late29", "many0", fmt.Sprint("many", many-1)} {
		if _, ok := p.get(id); !ok {
			t.Errorf("%s is missing", id)
		}
	}
	if live := p.live(); live.Progress.Documents != many+33 || live.Trouble != nil {
		t.Errorf("%+v", live)
	}
	mustFind("by the second")
	if f := p.ask("what speaks of quince, and of nothing else?", nil); f.Mode != "hybrid" || f.Degraded.Code != "" {
		t.Errorf("the model is back: %+v", f)
	}
	if letters := strings.TrimSpace(p.verb("", "dlq", "--json")); strings.Contains(letters, "late") || strings.Contains(letters, "many") {
		t.Errorf("dead letters: %s", letters)
	}
}

// others makes vectors that are no other model's.
func others(ctx context.Context, dim int, inputs []string) ([][]float32, error) {
	turned := make([]string, len(inputs))
	for i, input := range inputs {
		turned[i] = strings.ToUpper(input) + " of another model"
	}
	return embedder.NewHash(dim).Embed(ctx, embedder.Index, turned)
}

// TestFailoverToAnotherModelIsRefused: whoever starts is told that the vectors differ, and how; of none of them anything is used.
func TestFailoverToAnotherModelIsRefused(t *testing.T) {
	t.Parallel()
	first, _ := endpoint(t, "127.0.0.1:0", 64, nil)
	for _, c := range []struct {
		name   string
		dim    int
		change func(*mockprovider.Config)
		key    string
		says   []string
	}{
		{"another dimension", 48, nil, "sk-test", []string{"48 dimensions", "and some-model at http://" + first + "/v1 has 64", "can't be mixed"}},
		{"other values", 64, func(cfg *mockprovider.Config) { cfg.Vectors = others }, "sk-test", []string{"embed documents differently", "a cosine of", "have http://"}},
		{"a wrong key", 64, nil, "sk-wrong", []string{"401", "set LIVERAG_OPENAI_FAILOVER_API_KEY"}},
	} {
		second, _ := endpoint(t, "127.0.0.1:0", c.dim, c.change)
		cfg := defaultConfig()
		cfg.Data, cfg.Embedder = t.TempDir(), "openai/some-model"
		cfg.OpenAI.BaseURL, cfg.OpenAI.APIKey = "http://"+first+"/v1", "sk-test"
		cfg.OpenAI.Failover.BaseURL, cfg.OpenAI.Failover.APIKey = "http://"+second+"/v1", c.key
		s, err := open(t.Context(), &cfg, duty{index: true, serve: true}, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("%s: %v", c.name, s.Close())
			continue
		}
		for _, says := range append(c.says, "openai.failover", second) {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v does not say %q", c.name, err, says)
			}
		}
		if strings.Contains(err.Error(), "sk-") {
			t.Errorf("%s: %v tells a key", c.name, err)
		}
	}
}

// TestFailoverThatWasAwayAtTheStart: the program runs without it. What comes up there later stands in if it is the same model, although the first is dead when they are compared; with other vectors it
// is refused, the status says so, and documents wait for the first.
func TestFailoverThatWasAwayAtTheStart(t *testing.T) {
	t.Parallel()
	open := func(cfg *mockprovider.Config) { cfg.Key = "" }
	start := func(t *testing.T) (p *program, first, second string, stopFirst func()) {
		t.Parallel()
		first, stopFirst = endpoint(t, "127.0.0.1:0", 64, open)
		second = freePort(t)
		file := settingsFile(t, t.TempDir(), fmt.Sprintf("openai: {base_url: \"http://%s/v1\", failover: {base_url: \"http://%s/v1\"}}\n", first, second))
		p = startProgram(t, t.TempDir(), "--config", file, "--embedder", "openai/some-model")
		if said := p.err.String(); !strings.Contains(said, "the standby endpoint can't be compared with the first yet") || !strings.Contains(said, second) {
			t.Errorf("%s", said)
		}
		p.put("one", "The first one speaks of quince.")
		return p, first, second, stopFirst
	}
	t.Run("the same model", func(t *testing.T) {
		p, _, second, stopFirst := start(t)
		endpoint(t, second, 64, open)
		stopFirst()
		p.put("two", "The second one speaks of medlar.")
		if at := p.providers(); at[0].State != embedder.Down || at[1].State != embedder.Ready {
			t.Errorf("%+v", at)
		}
		if f := p.ask("medlar", map[string]any{"mode": "dense", "k": 1}); len(f.Hits) != 1 || f.Hits[0].Document != "two" {
			t.Errorf("%+v", f)
		}
	})
	t.Run("another model", func(t *testing.T) {
		p, first, second, stopFirst := start(t)
		endpoint(t, second, 64, func(cfg *mockprovider.Config) { cfg.Key, cfg.Vectors = "", others })
		stopFirst()
		p.must(nil, "PUT", documentPath("two"), map[string]any{"text": "The second one speaks of medlar."})
		var at []embedder.Provider
		until(t, "refused", func() bool { at = p.providers(); return at[1].State == embedder.Refused })
		if at[0].State != embedder.Down || at[1].NextTry.IsZero() || !strings.Contains(at[1].Detail, "embed documents differently") || !strings.Contains(at[1].Detail, second) {
			t.Errorf("%+v", at)
		}
		until(t, "told so", func() bool {
			got, err := p.call("POST", "/retrieve", map[string]any{"query": "medlar", "mode": "dense"})
			return err == nil && got.status == http.StatusServiceUnavailable && got.code() == "embedder_unavailable"
		})
		if f := p.ask("quince", map[string]any{"mode": "lexical"}); len(f.Hits) != 1 {
			t.Errorf("%+v", f)
		}
		endpoint(t, first, 64, open)
		p.applied()
		if f := p.ask("medlar", map[string]any{"mode": "dense", "k": 1}); len(f.Hits) != 1 || f.Hits[0].Document != "two" {
			t.Errorf("%+v", f)
		}
		if at = p.providers(); at[0].State != embedder.Ready || at[1].State != embedder.Refused {
			t.Errorf("%+v", at)
		}
	})
}

// TestARestartWhileTheProviderIsAway: a server that is started while its model's endpoint is down answers by words at once, also where only the endpoint knew how much its model reads; with a
// standby it goes on as if nothing was. What is written meanwhile is searchable once somebody is back.
func TestARestartWhileTheProviderIsAway(t *testing.T) {
	t.Parallel()
	vllm := func(cfg *mockprovider.Config) { cfg.Key, cfg.Server, cfg.MaxInputTokens = "", "vllm", 512 }
	first, stopFirst := endpoint(t, "127.0.0.1:0", 64, vllm)
	second, stopSecond := endpoint(t, "127.0.0.1:0", 64, vllm)
	file := settingsFile(t, t.TempDir(), fmt.Sprintf("openai: {base_url: \"http://%s/v1\", failover: {base_url: \"http://%s/v1\"}}\n", first, second))
	data := t.TempDir()
	p := startProgram(t, data, "--config", file, "--embedder", "openai/some-model")
	p.put("one", "The first one speaks of quince.")
	name := p.live().Name
	p.stop()

	stopFirst()
	p = startProgram(t, data, "--config", file, "--embedder", "openai/some-model")
	p.put("two", "The second one speaks of quince.")
	if f := p.ask("what speaks of quince?", map[string]any{"mode": "dense"}); len(f.Hits) != 2 || p.live().Name != name {
		t.Errorf("by the standby: %+v of %s, which was %s", f, p.live().Name, name)
	}
	p.stop()

	stopSecond()
	p = startProgram(t, data, "--config", file, "--embedder", "openai/some-model")
	if f := p.ask("what speaks of quince?", nil); f.Mode != "lexical" || f.Degraded.Code != "embedder_unavailable" || len(f.Hits) != 2 {
		t.Errorf("with nobody there: %+v", f)
	}
	p.write("late", 3)
	endpoint(t, first, 64, vllm)
	p.applied()
	if f := p.ask("what speaks of quince now?", nil); f.Mode != "hybrid" || len(f.Hits) < 2 {
		t.Errorf("with the first one back: %+v", f)
	}
	if g := p.live(); g.Name != name || g.Progress.Documents != 5 {
		t.Errorf("%+v; it was %s", g, name)
	}
}
