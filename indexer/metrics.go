package indexer

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/embedder"
)

// Metrics returns what /metrics shows of the write path. It reads the counters when it is scraped, so it costs nothing in between.
func (x *Indexer) Metrics() prometheus.Collector {
	m := &metrics{
		indexer: x,
		searchable: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "liverag_time_to_searchable_seconds",
			Help:    "From a change's entry into the log until a search of the live generation can return it; imports apart.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 300},
		}),
	}
	x.freshness.observe = m.searchable.Observe
	for _, family := range families {
		m.descriptions = append(m.descriptions, prometheus.NewDesc(family.name, family.help, []string{"generation"}, nil))
	}
	return m
}

type metrics struct {
	indexer      *Indexer
	searchable   prometheus.Histogram
	descriptions []*prometheus.Desc
}

var families = []struct {
	name, help string
	kind       prometheus.ValueType
	value      func(g *generation) float64
}{
	{"liverag_changes_total", "Changes delivered by the log.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.changes.Load()) }},
	{"liverag_documents_indexed_total", "Document revisions made searchable.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.documents.Load()) }},
	{"liverag_documents_deleted_total", "Deletions made effective.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.deletes.Load()) }},
	{"liverag_chunks_embedded_total", "Chunks that were embedded because their text was new.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.chunksEmbedded.Load()) }},
	{"liverag_chunks_reused_total", "Chunks whose stored vector was kept.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.chunksReused.Load()) }},
	{"liverag_tokens_embedded_total", "Tokens of the embedded chunks, in the chunker's tokenizer.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.tokensEmbedded.Load()) }},
	{"liverag_tokens_reused_total", "Tokens of the reused chunks.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.tokensReused.Load()) }},
	{"liverag_changes_superseded_total", "Changes that a newer one overtook before they were embedded.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.superseded.Load()) }},
	{"liverag_dead_letters_total", "Changes that can't be indexed and went to the dead-letter topic.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.deadLetters.Load()) }},
	{"liverag_changes_stale_total", "Changes delivered again that the store had already.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.stale.Load()) }},
	{"liverag_provider_throttled_total", "Answers of the model's provider that said too much was asked (429). Generations of one model share them.", prometheus.CounterValue, func(g *generation) float64 {
		return g.ofProviders(func(p embedder.Provider) float64 { return float64(p.Throttled) })
	}},
	{"liverag_provider_held_seconds_total", "Seconds in which calls had to wait for the provider's allowance. Generations of one model share them.", prometheus.CounterValue, func(g *generation) float64 {
		return g.ofProviders(func(p embedder.Provider) float64 { return p.HeldFor.Seconds() })
	}},
	{"liverag_lag_changes", "Changes in the log that are not searchable yet.", prometheus.GaugeValue, func(g *generation) float64 {
		_, pending := g.progress.lag()
		return float64(pending)
	}},
	{"liverag_in_flight_bytes", "Bytes read from the log and not applied yet.", prometheus.GaugeValue, func(g *generation) float64 { return float64(g.inFlight()) }},
	{"liverag_live", "1 for the generation that answers.", prometheus.GaugeValue, func(g *generation) float64 {
		if g.indexer.live.Load() == g {
			return 1
		}
		return 0
	}},
	{"liverag_reconciling", "1 while deletes may have been missed, and the generation is not ready before it was compared with the log.", prometheus.GaugeValue, func(g *generation) float64 {
		if g.progress.doubtful() {
			return 1
		}
		return 0
	}},
	{"liverag_reconciliations_total", "Comparisons with the log that were made because deletes may have been missed.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.reconciled.Load()) }},
	{"liverag_ghosts_removed_total", "Documents and access lists that the log no longer held, and a comparison removed.", prometheus.CounterValue, func(g *generation) float64 { return float64(g.counts.ghosts.Load()) }},
	{"liverag_held_up", "1 while an error keeps the generation from advancing.", prometheus.GaugeValue, func(g *generation) float64 {
		if g.heldUp() {
			return 1
		}
		return 0
	}},
}

// verifiedFamilies are what the last verification of a generation found; they are absent while there was none.
var verifiedFamilies = []struct {
	description *prometheus.Desc
	value       func(v *Verified) float64
}{
	{verifiedDesc("missing", "Documents of the log that the generation lacked when it was last verified, repaired ones included."), func(v *Verified) float64 { return float64(v.Missing) }},
	{verifiedDesc("stale", "Documents that it held at another version than the log's newest."), func(v *Verified) float64 { return float64(v.Stale) }},
	{verifiedDesc("orphaned", "Documents that it held and the log does not."), func(v *Verified) float64 { return float64(v.Orphaned) }},
	{verifiedDesc("mixed", "Documents whose text or chunks were not those of their version."), func(v *Verified) float64 { return float64(v.Mixed) }},
	{verifiedDesc("bad_vector", "Documents with a vector that the model can't have made."), func(v *Verified) float64 { return float64(v.BadVector) }},
	{verifiedDesc("dead_lettered", "Documents served at an older version because their newest change is a dead letter."), func(v *Verified) float64 { return float64(v.DeadLettered) }},
	{verifiedDesc("repaired", "Of the documents found wrong, those that were repaired."), func(v *Verified) float64 { return float64(v.Repaired) }},
	{verifiedDesc("documents", "Documents that were compared."), func(v *Verified) float64 { return float64(v.Documents) }},
	{verifiedDesc("began_timestamp_seconds", "When the last verification began."), func(v *Verified) float64 { return float64(v.Began.UnixMilli()) / 1e3 }},
}

func verifiedDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("liverag_verify_"+name, help, []string{"generation"}, nil)
}

func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	m.searchable.Describe(out)
	for _, d := range m.descriptions {
		out <- d
	}
	for i := range verifiedFamilies {
		out <- verifiedFamilies[i].description
	}
}

func (m *metrics) Collect(out chan<- prometheus.Metric) {
	m.searchable.Collect(out)
	m.indexer.mu.Lock()
	defer m.indexer.mu.Unlock()
	for name, g := range m.indexer.generations {
		for i, family := range families {
			out <- prometheus.MustNewConstMetric(m.descriptions[i], family.kind, family.value(g), name)
		}
		if v := g.verified.Load(); v != nil {
			for i := range verifiedFamilies {
				out <- prometheus.MustNewConstMetric(verifiedFamilies[i].description, prometheus.GaugeValue, verifiedFamilies[i].value(v), name)
			}
		}
	}
}

func (g *generation) inFlight() int64 {
	g.mu.Lock()
	p := g.pipeline
	g.mu.Unlock()
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inFlight
}

func (g *generation) heldUp() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed != nil || g.trouble.Load() != nil
}
