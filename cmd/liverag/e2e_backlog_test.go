package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/mockprovider"
)

// choke is a provider of which next to nothing comes, until it is opened.
type choke struct {
	open        atomic.Bool
	wide, tight http.Handler
	inputs      atomic.Int64 // that were embedded
}

func (c *choke) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c.open.Load() {
		c.wide.ServeHTTP(w, r)
		return
	}
	c.tight.ServeHTTP(w, r)
}

// newChoke serves a provider that is open at first. Closed it allows so many requests a minute, or answers 503 if that is none.
func newChoke(t *testing.T, rpm int) (c *choke, address string) {
	t.Helper()
	c = &choke{}
	c.open.Store(true)
	provider := func(rpm int) http.Handler {
		p, err := mockprovider.New(mockprovider.Config{Dim: 64, RPM: rpm, Burst: time.Minute / time.Duration(rpm), RetryAfter: "ms", Vectors: func(ctx context.Context, dim int, inputs []string) ([][]float32, error) {
			c.inputs.Add(int64(len(inputs)))
			return embedder.NewHash(dim).Embed(ctx, embedder.Index, inputs)
		}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	c.wide = provider(600_000)
	if rpm > 0 {
		c.tight = provider(rpm)
	} else {
		c.tight = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":{"message":"the server is overloaded"}}`, http.StatusServiceUnavailable)
		})
	}
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	return c, strings.TrimPrefix(server.URL, "http://")
}

// backlogged writes so many changes of a few thousand documents as an import does, from the n-th on.
func (p *program) backlogged(n, changes, documents int) {
	p.t.Helper()
	const most = 5000
	for end := n + changes; n < end; {
		var lines strings.Builder
		for range min(most, end-n) {
			fmt.Fprintf(&lines, `{"id":"d/%d","text":"Version %d of a document says what the version before did not, about word%d and word%d."}`+"\n", n%documents, n, n%977, n%7919)
			n++
		}
		got, err := p.send("POST", "/documents?backfill=true", -1, strings.NewReader(lines.String()))
		if err != nil || got.status >= 300 {
			p.t.Fatalf("an import of %d changes: %v, %d %.300s", most, err, got.status, got.body)
		}
	}
}

// backlog is what the live generation says of its place in the log.
func (p *program) backlog() (g struct {
	Lag      int64
	Progress struct{ Of, Documents, Superseded int64 }
}) {
	p.t.Helper()
	p.must(&g, "GET", "/generations/live", nil)
	return g
}

// standsStill tells whether no change was read for half a second.
func (p *program) standsStill() bool {
	p.t.Helper()
	before := p.metric("liverag_changes_total")
	time.Sleep(500 * time.Millisecond)
	return p.metric("liverag_changes_total") == before
}

// TestABacklogBeforeAProviderThatBarelyMoves: however many changes wait for a provider that takes next to nothing, memory is what it is for a few of them; the log is polled, an edit goes before
// what it can go before, and when the provider is itself again everything is embedded, only in its newest version where that was known. At full size: LIVERAG_BACKLOG=1000000, for
// which there should be 3 GiB of disk; it takes the log that KAFKA_BROKERS names if that is set, else the embedded one.
func TestABacklogBeforeAProviderThatBarelyMoves(t *testing.T) {
	const documents = 5000
	changes := scaled(t, "LIVERAG_BACKLOG", 15_000)
	room := int64(64) // MiB for what was read
	if changes < 100_000 {
		room = 8
	}
	for name, rpm := range map[string]int{"a few requests a minute": 60, "503": 0} {
		t.Run(name, func(t *testing.T) {
			choke, address := newChoke(t, rpm)
			settings := settingsFile(t, t.TempDir(), fmt.Sprintf("openai: {base_url: \"http://%s/v1\", concurrency: 2, max_batch: 32}\ncache: {max_bytes: 0}\nlog: {max_bytes: 16GiB}\nindexer: {max_in_flight_bytes: %dMiB}\n", address, room))
			p := startProgram(t, t.TempDir(), "--config", settings, "--embedder", "openai/some-model")
			p.http.Timeout = 10 * patience
			p.put("warm", "the first document")
			choke.open.Store(false)
			idle, _ := p.memory()
			sent := 0
			for _, part := range []int{changes / 10, changes / 2, changes} {
				p.backlogged(sent, part-sent, documents)
				sent = part
				// That the end of the log is known means that the log is polled.
				until(t, "polled to the end", func() bool { return p.backlog().Progress.Of > int64(sent) })
				until(t, "read as far as it goes", p.standsStill)
				now, most := p.memory()
				t.Logf("%d changes: %d MiB now, %d MiB at most, %d when it was idle; %d inputs were embedded", sent, now>>20, most>>20, idle>>20, choke.inputs.Load())
				// What may be in flight, and as much again until it is collected, and what of a fetch is waiting to be read.
				if limit := idle + 2*room<<20 + 128<<20; most > limit && !raceDetector {
					t.Errorf("with %d changes the program had %d MiB, and may have %d", sent, most>>20, limit>>20)
				}
			}
			if moved := choke.inputs.Load(); moved > int64(changes/10) {
				t.Fatalf("the provider has embedded %d inputs: it was to hold the log up", moved)
			}

			var w written
			p.must(&w, "PUT", documentPath("edited"), map[string]any{"text": "somebody has just said this"})
			began := time.Now()
			if rpm > 0 { // a request or two later it is searchable, while all else waits: it is read behind what there is no room for
				if g := p.backlog(); g.Lag < int64(changes/4) {
					t.Errorf("there is room for all but %d of %d changes", g.Lag, changes)
				}
				until(t, "the edit searchable", func() bool { _, ok := p.get("edited"); return ok })
				t.Logf("an edit was searchable after %s at %d requests a minute", time.Since(began).Round(time.Millisecond), rpm)
			}
			choke.open.Store(true)
			began = time.Now()
			for end := began.Add(20 * patience); ; time.Sleep(5 * time.Millisecond) {
				if _, ok := p.get("edited"); ok {
					break
				}
				if time.Now().After(end) {
					t.Fatal("the edit is not searchable")
				}
			}
			t.Logf("an edit was searchable %s after the provider was itself again", time.Since(began).Round(time.Millisecond))
			for end := began.Add(40 * patience); p.backlog().Lag > 0; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%d changes are not searchable", p.backlog().Lag)
				}
			}
			g := p.backlog()
			_, most := p.memory()
			t.Logf("all searchable %s after that; %d of %d changes superseded, %d inputs embedded; %d MiB at most", time.Since(began).Round(time.Millisecond), g.Progress.Superseded, changes, choke.inputs.Load(), most>>20)
			if g.Progress.Documents != documents+2 {
				t.Errorf("%d documents are searchable, want %d", g.Progress.Documents, documents+2)
			}
			last := changes - 1
			if s, ok := p.get(fmt.Sprintf("d/%d", last%documents)); !ok || !strings.HasPrefix(s.Text, fmt.Sprintf("Version %d of", last)) {
				t.Errorf("of the document that was changed last there is %.60q", s.Text)
			}
			if least := int64(changes / 3); g.Progress.Superseded < least {
				t.Errorf("%d of %d changes were superseded, want at least %d", g.Progress.Superseded, changes, least)
			}
		})
	}
}
