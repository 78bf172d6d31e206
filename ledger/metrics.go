package ledger

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/embedder"
)

// Metrics returns what /metrics shows. Counters begin at 0 with the process, because one that lacks what a crash lost would look like one that began anew, and count everything twice.
func (l *Ledger) Metrics() prometheus.Collector { return metrics{l} }

type metrics struct{ ledger *Ledger }

// Questions is the generation in the label of what questions cost: no generation has such a name.
const Questions = "(questions)"

var (
	costMetric = prometheus.NewDesc("liverag_embedding_cost_usd_total",
		"US dollars that embedding has cost, at the prices of the setting prices. What is embedded for questions has the generation "+Questions+".", []string{"generation", "model"}, nil)
	supersededMetric = prometheus.NewDesc("liverag_tokens_superseded_total",
		"Tokens that were cut and not embedded, because a newer change of their document overtook them.", []string{"generation", "model"}, nil)
	retriedMetric = prometheus.NewDesc("liverag_tokens_retried_total",
		"Tokens that were sent to the model's provider in vain.", []string{"model"}, nil)
	billedMetric = prometheus.NewDesc("liverag_tokens_billed_total",
		"Tokens that the model's provider charged for, by its own count where it tells, of documents (index) and questions (query).", []string{"model", "role"}, nil)
	pausedMetric = prometheus.NewDesc("liverag_spending_paused", "1 while documents wait because the day's cap is reached.", nil, nil)
	leftMetric   = prometheus.NewDesc("liverag_spending_left", "What is left of the day's cap, by unit: usd, tokens. Absent where there is no cap.", []string{"unit"}, nil)
)

func (m metrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{costMetric, supersededMetric, retriedMetric, billedMetric, pausedMetric, leftMetric} {
		out <- d
	}
}

func (m metrics) Collect(out chan<- prometheus.Metric) {
	now := m.ledger.Spending(1)
	var s summed
	m.ledger.mu.Lock()
	for a, f := range m.ledger.since {
		s.add(a, f)
	}
	m.ledger.mu.Unlock()
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	retried := map[string]int64{}
	for _, a := range s.accounts {
		f := s.figures[a]
		if a.Generation != "" {
			counter(costMetric, f.Cost.Dollars(), a.Generation, a.Model)
			counter(supersededMetric, float64(f.TokensSuperseded), a.Generation, a.Model)
			continue
		}
		if a.Side == embedder.Query.String() {
			counter(costMetric, f.Cost.Dollars(), Questions, a.Model)
		}
		counter(billedMetric, float64(f.TokensBilled), a.Model, a.Side)
		retried[a.Model] += f.TokensRetried
	}
	for model, tokens := range retried {
		counter(retriedMetric, float64(tokens), model)
	}
	paused := 0.
	if now.State == embedder.Paused {
		paused = 1
	}
	gauge(pausedMetric, paused)
	if now.Left != nil && now.Left.USD != nil {
		gauge(leftMetric, now.Left.USD.Dollars(), "usd")
	}
	if now.Left != nil && now.Left.Tokens != nil {
		gauge(leftMetric, float64(*now.Left.Tokens), "tokens")
	}
}
