package main

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/embedder"
)

// providers are how it stands with the endpoints of the models that are open, by model. Generations of one model share them.
func (m *models) providers() map[string][]embedder.Provider {
	asked := map[string]func() []embedder.Provider{}
	m.mu.Lock()
	for name, opened := range m.open {
		if opened.providers != nil {
			asked[name] = opened.providers
		}
	}
	m.mu.Unlock()
	out := make(map[string][]embedder.Provider, len(asked))
	for name, providers := range asked {
		out[name] = providers()
	}
	return out
}

// Metrics returns what /metrics shows of the models' providers, each endpoint of a model once, however many generations share it.
func (m *models) Metrics() prometheus.Collector { return providerMetrics{m} }

type providerMetrics struct{ models *models }

// providerStates are all that a provider may be in.
var providerStates = []embedder.State{embedder.Ready, embedder.Held, embedder.Paused, embedder.Down, embedder.Refused}

var providerState = prometheus.NewDesc("liverag_provider_state", "1 for the state that the endpoint of the model is in: ready, held, paused, down, refused.",
	[]string{"model", "endpoint", "state"}, nil)

// providerCounters are those of an endpoint. The 429s among its answers are liverag_provider_throttled_total, by generation.
var providerCounters = []struct {
	description *prometheus.Desc
	value       func(embedder.Provider) int64
}{
	{providerCounter("requests", "Requests that were sent to the endpoint."), func(p embedder.Provider) int64 { return p.Requests }},
	{providerCounter("failed", "Requests that ended without vectors, those refused because too much was asked (429) left out."), func(p embedder.Provider) int64 { return p.Failed }},
	{providerCounter("tokens", "Tokens that the provider charged for, by its own count where it tells."), func(p embedder.Provider) int64 { return p.Tokens }},
	{providerCounter("tokens_retried", "Tokens that were sent in vain, and again."), func(p embedder.Provider) int64 { return p.TokensRetried }},
}

func providerCounter(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("liverag_provider_"+name+"_total", help, []string{"model", "endpoint"}, nil)
}

func (c providerMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- providerState
	for _, one := range providerCounters {
		out <- one.description
	}
}

func (c providerMetrics) Collect(out chan<- prometheus.Metric) {
	for model, all := range c.models.providers() {
		told := map[string]bool{}
		for _, p := range all {
			if told[p.Name] {
				continue // a second account at the same address is no series of its own
			}
			told[p.Name] = true
			for _, state := range providerStates {
				is := 0.
				if p.State == state {
					is = 1
				}
				out <- prometheus.MustNewConstMetric(providerState, prometheus.GaugeValue, is, model, p.Name, string(state))
			}
			for _, one := range providerCounters {
				sum := int64(0)
				for _, same := range all {
					if same.Name == p.Name {
						sum += one.value(same)
					}
				}
				out <- prometheus.MustNewConstMetric(one.description, prometheus.CounterValue, float64(sum), model, p.Name)
			}
		}
	}
}

// providerWords say in short what the model's provider does to a replay.
var providerWords = map[embedder.State]string{
	embedder.Held: "at the provider's limit", embedder.Paused: "the day's cap is reached", embedder.Down: "the provider is down", embedder.Refused: "the provider refuses us",
}

// nextTry says what is going to happen, and when, by the server's word; empty where it said nothing, and for a cap, whose detail says when it ends.
func nextTry(state embedder.State, at, now time.Time) string {
	if at.IsZero() || state == embedder.Paused {
		return ""
	}
	what := "; next try "
	if state == embedder.Held {
		what = "; next request "
	}
	in := at.Sub(now)
	switch {
	case in < 500*time.Millisecond:
		return what + "now"
	case in < time.Hour:
		return what + "in " + in.Round(time.Second).String()
	}
	return what + "at " + at.UTC().Format(time.RFC3339)
}

// lasts says for how long, if that is worth saying; empty if not.
func lasts(since, now time.Time) string {
	if since.IsZero() || now.Sub(since) < time.Second {
		return ""
	}
	return "; for " + now.Sub(since).Round(time.Second).String()
}

// say is the trouble in one line for a person.
func (t *trouble) say(now time.Time) string {
	text := t.Detail
	if t.Provider != "" {
		text = strings.TrimSuffix(text, ".") + lasts(t.Since, now) + nextTry(t.Provider, t.NextTry, now)
	}
	return plain(text)
}
