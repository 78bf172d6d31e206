package indexer

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// TestTheProvidersTroubleIsTheGenerations: a generation with work to do says which endpoint keeps it, since when, and when that is tried again. One that has nothing to do, or another
// endpoint to do it, has no trouble.
func TestTheProvidersTroubleIsTheGenerations(t *testing.T) {
	now := time.Now()
	at := func(name string, state embedder.State, next time.Duration) embedder.Provider {
		return embedder.Provider{Name: name, State: state, Since: now.Add(-time.Hour), NextTry: now.Add(next), Detail: "because of " + name}
	}
	for _, test := range []struct {
		name      string
		providers []embedder.Provider
		idle      bool
		want      string // in the detail; empty: no trouble
	}{
		{"in this process", nil, false, ""},
		{"ready", []embedder.Provider{at("a", embedder.Ready, 0)}, false, ""},
		{"held", []embedder.Provider{at("a", embedder.Held, time.Minute)}, false, "the provider a holds us back: because of a"},
		{"paused", []embedder.Provider{at("a", embedder.Paused, time.Hour)}, false, "because of a"},
		{"nothing to do", []embedder.Provider{at("a", embedder.Down, time.Minute)}, true, ""},
		{"another one does it", []embedder.Provider{at("a", embedder.Down, time.Minute), at("b", embedder.Ready, 0)}, false, ""},
		{"none does it", []embedder.Provider{at("a", embedder.Down, time.Hour), at("b", embedder.Held, time.Second)}, false, "b holds us back: because of b"},
	} {
		x := New(Config{Store: vectordb.NewMemory(), Logger: quietLogger()})
		g := newGeneration(x, Spec{Generation: vectordb.Generation{Name: "g"}, Desired: Run})
		g.parts = Parts{Embedder: embedder.NewHash(8), Providers: func() []embedder.Provider { return test.providers }}
		g.progress.assign(stream.Position{})
		end := stream.End{Offset: 5, At: now}
		if test.idle {
			end.Offset = 0
		}
		g.progress.observe(end)
		got := g.info().Trouble
		switch {
		case (got == nil) != (test.want == ""):
			t.Errorf("%s: the trouble is %+v, want %q", test.name, got, test.want)
		case got != nil && (!strings.Contains(got.Detail, test.want) || !got.Since.Equal(now.Add(-time.Hour)) || got.Provider == "" || !got.NextTry.After(now)):
			t.Errorf("%s: the trouble is %+v, want %q since an hour, its provider's state and the next try", test.name, got, test.want)
		}
	}
}

// The API's times are in UTC, wherever the machine is.
func TestATroubleIsToldInUTC(t *testing.T) {
	x := New(Config{Store: vectordb.NewMemory(), Logger: quietLogger()})
	g := newGeneration(x, Spec{Generation: vectordb.Generation{Name: "g"}, Desired: Run})
	g.started = time.Now()
	setTrouble(&g.trouble, quietLogger(), "g", "the disk is full")
	if got := g.info().Trouble; got == nil || got.Since.Location() != time.UTC {
		t.Errorf("held up: %+v", got)
	}
	g.failed = errors.New("it is damaged")
	if got := g.info().Trouble; got == nil || got.Since.Location() != time.UTC {
		t.Errorf("failed: %+v", got)
	}
}

// The load is held against the limit of the endpoint that it goes to, by that endpoint's count; a model in this process has none.
func TestTheLoadIsOfTheEndpointInUse(t *testing.T) {
	a := embedder.Provider{Name: "a", State: embedder.Down, TPM: 500, TokensLastMinute: 3, HeldFor: time.Second}
	b := embedder.Provider{Name: "b", State: embedder.Held, TPM: 100, TokensLastMinute: 42, HeldFor: time.Minute}
	for _, test := range []struct {
		providers     []embedder.Provider
		allowed, used int64
		throttled     string
	}{{nil, 0, 7, "0s"}, {[]embedder.Provider{b, a}, 100, 42, "1m1s"}, {[]embedder.Provider{a, b}, 100, 42, "1m1s"}, {[]embedder.Provider{a}, 500, 3, "1s"}} {
		x := New(Config{Store: vectordb.NewMemory(), Logger: quietLogger()})
		g := newGeneration(x, Spec{Generation: vectordb.Generation{Name: "g"}, Desired: Run})
		g.parts = Parts{Embedder: embedder.NewHash(8), Providers: func() []embedder.Provider { return test.providers }}
		g.counts.addTokens(time.Now(), 7)
		if got := x.measured(g).Embedding; got.Allowed != test.allowed || got.Used != test.used || got.Throttled != test.throttled || len(got.Providers) != len(test.providers) {
			t.Errorf("%+v: %+v", test, got)
		}
	}
}
