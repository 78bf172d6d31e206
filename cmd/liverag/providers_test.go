package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/httpd"
	"github.com/liverag/liverag/internal/httpd/httpdtest"
	"github.com/liverag/liverag/internal/mockprovider"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// gathered are the metrics whose names begin so, each as name{label values} value.
func gathered(t *testing.T, from prometheus.Gatherer, prefix string) []string {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range families {
		name, ok := strings.CutPrefix(f.GetName(), prefix)
		if !ok {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			out = append(out, fmt.Sprintf("%s{%s} %v", name, strings.Join(labels, ","), m.GetCounter().GetValue()+m.GetGauge().GetValue()))
		}
	}
	return out
}

// Every endpoint has its own series, at whatever model it is asked for; two accounts at one address have one.
func TestMetricsOfProviders(t *testing.T) {
	tell := func(all ...embedder.Provider) *model {
		return &model{providers: func() []embedder.Provider { return all }}
	}
	a := embedder.Provider{Name: "a", State: embedder.Down, Requests: 10, Failed: 3, Throttled: 2, Tokens: 500, TokensRetried: 60}
	b := embedder.Provider{Name: "b", State: embedder.Ready, Requests: 1, Tokens: 7}
	m := &models{open: map[string]*model{"local/static": {}, "openai/one": tell(a, b, b), "openai/two": tell(b)}}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m.Metrics())
	got := gathered(t, registry, "liverag_provider_")
	want := []string{
		"failed_total{endpoint=a,model=openai/one} 3", "failed_total{endpoint=b,model=openai/one} 0", "failed_total{endpoint=b,model=openai/two} 0",
		"requests_total{endpoint=a,model=openai/one} 10", "requests_total{endpoint=b,model=openai/one} 2", "requests_total{endpoint=b,model=openai/two} 1",
	}
	for _, at := range []string{"endpoint=a,model=openai/one", "endpoint=b,model=openai/one", "endpoint=b,model=openai/two"} {
		for _, state := range []string{"down", "held", "paused", "ready", "refused"} {
			is := state == "ready"
			if strings.Contains(at, "=a,") {
				is = state == "down"
			}
			want = append(want, fmt.Sprintf("state{%s,state=%s} %d", at, state, map[bool]int{true: 1}[is]))
		}
	}
	want = append(want,
		"tokens_retried_total{endpoint=a,model=openai/one} 60", "tokens_retried_total{endpoint=b,model=openai/one} 0", "tokens_retried_total{endpoint=b,model=openai/two} 0",
		"tokens_total{endpoint=a,model=openai/one} 500", "tokens_total{endpoint=b,model=openai/one} 14", "tokens_total{endpoint=b,model=openai/two} 7")
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A system tells of its provider once, however many generations of its model there are, and as it is described.
func TestTheProviderOfASystemIsToldOnce(t *testing.T) {
	address, _ := endpoint(t, "127.0.0.1:0", 32, func(cfg *mockprovider.Config) { cfg.Poison = "" })
	s, _ := startSystem(t, func(cfg *Config) {
		cfg.Embedder, cfg.OpenAI.BaseURL, cfg.OpenAI.APIKey = "openai/some-model", "http://"+address+"/v1", "sk-test"
	})
	receipt, err := s.log.Append(t.Context(), stream.Change{Kind: stream.Upsert, ID: "a", Document: &stream.Document{Text: "Refunds take three days."}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.indexer.WaitSearchable(t.Context(), receipt.Positions); err != nil {
		t.Fatal(err)
	}
	if _, err := s.indexer.Create(t.Context(), "other", vectordb.Recipe{Embedder: vectordb.EmbedderRecipe{Model: "openai/some-model"}}); err != nil {
		t.Fatal(err)
	}
	counted := map[string]int{}
	for _, line := range gathered(t, s.metrics, "liverag_provider_") {
		name, _, _ := strings.Cut(line, "{")
		counted[name]++
		if strings.HasPrefix(line, "requests_total{") && strings.HasSuffix(line, " 0") || strings.Contains(line, "state=ready") && !strings.HasSuffix(line, " 1") {
			t.Error(line)
		}
	}
	want := map[string]int{"requests_total": 1, "failed_total": 1, "tokens_total": 1, "tokens_retried_total": 1, "state": 5, "throttled_total": 2, "held_seconds_total": 2}
	if !maps.Equal(counted, want) {
		t.Errorf("%v, want %v", counted, want)
	}
	freshness, err := s.indexer.Freshness(t.Context())
	if err != nil || len(freshness.Embedding.Providers) != 1 || freshness.Embedding.Used == 0 {
		t.Fatalf("%+v, %v", freshness.Embedding, err)
	}
	spec := httpdtest.Load(t, httpd.OpenAPI())
	for schema, answer := range map[string]any{"Freshness": freshness, "Spending": s.ledger.Spending(1), "Generations": s.indexer.List()} {
		text, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Fatal(err)
		}
		if err := spec.Validate(spec.Schema(schema), value); err != nil {
			t.Errorf("%s: %v\n%s", schema, err, text)
		}
	}
}

// A person reads in one line what the provider does, for how long it has, and when it goes on.
func TestATroubleInOneLine(t *testing.T) {
	now := time.Now()
	held := embedder.Provider{Name: "http://p/v1", State: embedder.Held, Detail: "its limits are 3 RPM and 10,000 TPM, by its own word"}
	for _, c := range []struct {
		trouble
		want string
	}{
		{trouble{Detail: "disk full", Since: now.Add(-time.Hour)}, "disk full"},
		{trouble{now, held.Trouble(), held.State, now.Add(12 * time.Second)}, "the provider http://p/v1 holds us back: its limits are 3 RPM and 10,000 TPM, by its own word; next request in 12s"},
		{trouble{now.Add(-90 * time.Second), "the provider a is down: \x1b[31m503, try later.", embedder.Down, now.Add(-time.Second)}, "the provider a is down:  [31m503, try later; for 1m30s; next try now"},
		{trouble{now, "it is down", embedder.Down, time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}, "it is down; next try at 2100-01-01T00:00:00Z"},
		{trouble{now.Add(-time.Minute), "the cap is reached", embedder.Paused, now.Add(time.Minute)}, "the cap is reached; for 1m0s"},
		{trouble{Detail: "refused", Provider: embedder.Refused}, "refused"},
	} {
		if got := c.say(now); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestGenerationsTellOfTheProvider(t *testing.T) {
	with := func(state, next string) string {
		return `[` + strings.TrimSuffix(trial("building"), "}") + `,"trouble":{"since":"2026-11-21T10:00:00Z","detail":"the provider a does it","provider":"` + state + `","next_try":"` + next + `"}}]`
	}
	for state, want := range map[string]string{"held": "waiting trial: the provider a does it; for ", "paused": "waiting trial: ", "down": "trouble trial: ", "refused": "trouble trial: "} {
		s := newServer(t, always(200, with(state, time.Now().Add(30*time.Second).UTC().Format(time.RFC3339))))
		got := invoke(t, nil, "", "generations", "--server", s.URL)
		lines := strings.Split(strings.TrimSpace(got.out), "\n")
		if last := lines[len(lines)-1]; got.code != exitDone || len(lines) != 3 || !strings.HasPrefix(last, want) || strings.Contains(last, "; next ") == (state == "paused") {
			t.Errorf("%s: %+v", state, got)
		}
	}
}

func TestDoctorTellsOfTheProvider(t *testing.T) {
	now := time.Now()
	at := func(name string, state embedder.State) embedder.Provider {
		p := embedder.Provider{Name: name, State: state, Since: now.Add(-time.Minute), RPM: 3, TPM: 10_000, Source: "provider", Requests: 1234, Throttled: 5, Failed: 6}
		if state != embedder.Ready {
			p.Detail, p.NextTry = "because", now.Add(12*time.Second)
		}
		return p
	}
	for _, c := range []struct {
		all  []embedder.Provider
		want []check
	}{
		{nil, nil},
		{[]embedder.Provider{at("a", embedder.Ready)}, []check{{Name: "provider", State: stateOK,
			Detail: "a is ready; 3 RPM and 10,000 TPM, by its own word; 1,234 requests, 5 refused for too much (429), 6 failed"}}},
		{[]embedder.Provider{at("a", embedder.Held)}, []check{{"provider", stateWarn, "the provider a holds us back: because; for 1m0s; next request in 12s",
			"nothing is lost, and no more than it allows is sent: ask the provider for more"}}},
		{[]embedder.Provider{at("a", embedder.Paused)}, []check{{"provider", stateWarn, "because; for 1m0s", "`liverag spending` shows what was spent on what"}}},
		{[]embedder.Provider{at("a", embedder.Refused)}, []check{{"provider", stateFail, "the provider a refuses us: because; for 1m0s; next try in 12s",
			"nothing is lost: check openai.api_key (or OPENAI_API_KEY), the model's name, and the account with the provider"}}},
		{[]embedder.Provider{at("a", embedder.Down), at("b", embedder.Held)}, []check{
			{"provider", stateWarn, "the provider a is down: because; for 1m0s; next try in 12s", "nothing is lost, and it goes on by itself when the provider answers"},
			{"provider", stateWarn, "the provider b holds us back: because; for 1m0s; next request in 12s", "nothing is lost, and no more than it allows is sent: ask the provider for more"}}},
	} {
		if got := checkProviders(c.all, now); !slices.Equal(got, c.want) {
			t.Errorf("%+v\nwant %+v", got, c.want)
		}
	}
	if got := (embedder.Provider{State: embedder.Held, Source: "settings"}); !strings.Contains(checkProviders([]embedder.Provider{got}, now)[0].Do, "openai.rpm") {
		t.Error("who set the limit is not told where")
	}

	// What only time helps against is no failure, even of the generation that answers.
	answers := map[string]string{
		"/healthz": `{}`, "/readyz": `{}`,
		"/freshness":   `{"slo":{"target":"2s","percentile":0.99,"met":true},"time_to_searchable":{"p99":"38ms","count":12},"partitions":[{"partition":0,"lag":9}],"embedding":{"providers":[{"name":"a","state":"held","detail":"because"}]}}`,
		"/generations": `[` + strings.TrimSuffix(strings.Replace(trial("building"), `"alias":[]`, `"alias":["live"]`, 1), "}") + `,"trouble":{"detail":"because","provider":"held"}}]`,
	}
	t.Chdir(t.TempDir())
	s := newServer(t, func(r request) (int, string) { return 200, answers[r.path] })
	checks := examine(t, exitDone, nil, "--server", s.URL)
	expectCheck(t, checks["provider"], stateWarn, "the provider a holds us back: because")
	expectCheck(t, checks["index"], stateWarn, "trial is building")
	answers["/generations"] = strings.Replace(answers["/generations"], "held", "down", 1)
	expectCheck(t, examine(t, exitFailed, nil, "--server", s.URL)["index"], stateFail, "trial is building")
}
