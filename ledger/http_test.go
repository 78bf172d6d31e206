package ledger

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/httpd"
	"github.com/liverag/liverag/internal/httpd/httpdtest"
	"github.com/liverag/liverag/internal/problem"
)

func serving(l *Ledger) *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = problem.Handler(l.config.Logger)
	l.Routes(e)
	return e
}

func TestSpendingByDayGenerationAndModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := httpdtest.Load(t, httpd.OpenAPI())
		l := open(t, "", Amount{Tokens: 1000, Cost: Dollars(1)})
		e := serving(l)
		ask := func(target string) (s Spending) {
			t.Helper()
			w := spec.Ask(t, e, httptest.NewRequest("GET", target, nil), "/spending")
			if w.Code != http.StatusOK {
				t.Fatalf("%s: %d %s", target, w.Code, w.Body)
			}
			if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
				t.Fatal(err)
			}
			return s
		}
		if got := ask("/spending"); len(got.Days) != 0 || got.Kept || *got.Left.Tokens != 1000 || *got.Left.USD != Dollars(1) {
			t.Errorf("at first: %+v", got)
		}
		p, local := l.Purse(model), "local/minilm"
		for day := range int64(3) {
			spend(t, p, embedder.Index, 100+day)
			spend(t, p, embedder.Query, 10)
			l.Add("one", "id1", model, Figures{TokensEmbedded: 90, TokensReused: 200, TokensBilled: 100 + day, Cost: Cost(100+day, 1)})
			l.Add("one", "id2", model, Figures{TokensReused: 1})
			l.Add("two", "id", local, Figures{TokensEmbedded: 70, TokensBilled: 80})
			if day < 2 {
				time.Sleep(24 * time.Hour)
			}
		}
		got := ask("/spending?days=2")
		if len(got.Days) != 2 || got.Days[0].Day != "2000-01-03" || got.Days[1].Day != "2000-01-02" || got.Day != "2000-01-03" || !got.EndsAt.Equal(time.Date(2000, 1, 4, 0, 0, 0, 0, time.UTC)) {
			t.Fatalf("%+v", got)
		}
		// A model that nobody charges for has what its generations took.
		want := Charges{Requests: 2, TokensBilled: 102 + 10 + 80, Cost: Cost(112, 1)}
		if got.Today != want || got.Days[0].Charges != want || *got.Left.Tokens != 1000-112 || *got.Left.USD != Dollars(1)-Cost(112, 1) {
			t.Errorf("%+v", got)
		}
		if g := got.Generations; len(g) != 2 || g[0].Generation != "one" || g[0].TokensReused != 402 || g[0].TokensBilled != 203 || g[0].Cost != Cost(203, 1) || g[0].Saved != Cost(402, 1) || g[1].Model != local {
			t.Errorf("%+v", g)
		}
		if m := got.Models; len(m) != 2 || m[0].Model != model && m[1].Model != model {
			t.Errorf("%+v", m)
		}
		for _, m := range got.Models {
			switch {
			case m.Model == model && (m.Documents.TokensBilled != 203 || m.Questions.TokensBilled != 20 || m.Requests != 4 || m.Cost != Cost(223, 1)),
				m.Model == local && (m.Documents.TokensBilled != 160 || m.Cost != 0 || m.Questions != Charges{}):
				t.Errorf("%+v", m)
			}
		}
		if all := ask("/spending"); len(all.Days) != 3 || all.Generations[0].TokensBilled != 303 {
			t.Errorf("%+v", all)
		}

		if _, why := p.Take(embedder.Index, 5000); why == "" {
			t.Fatal("the cap does not hold")
		}
		if got := ask("/spending?days=1"); got.State != embedder.Paused || got.Detail == "" || got.Since.IsZero() {
			t.Errorf("%+v", got)
		}
		for _, days := range []string{"0", "-1", "401", "x", "1.5"} {
			if w := spec.Ask(t, e, httptest.NewRequest("GET", "/spending?days="+days, nil), "/spending"); w.Code != http.StatusBadRequest {
				t.Errorf("days=%s: %d %s", days, w.Code, w.Body)
			}
		}
	})
}

func TestMetrics(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Amount{Tokens: 1000})
	spend(t, l.Purse(model), embedder.Index, 500)
	shut(t, l)
	l = open(t, dir, Amount{Tokens: 1000})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(l.Metrics())
	p := l.Purse(model)
	spend(t, p, embedder.Index, 100)
	spend(t, p, embedder.Query, 3)
	if _, why := p.Take(embedder.Index, 50); why != "" {
		t.Fatal(why)
	}
	p.Settle(embedder.Index, 50, 0)
	l.Add("one", "id1", model, Figures{TokensBilled: 100, Cost: Cost(100, 1), TokensSuperseded: 9})
	l.Add("one", "id2", model, Figures{TokensBilled: 1, Cost: Cost(1, 1)})
	if _, why := p.Take(embedder.Index, 500); why == "" {
		t.Fatal("the cap does not hold")
	}
	// What was before the start counts for the cap, and not for the counters.
	const want = `
# HELP liverag_embedding_cost_usd_total US dollars that embedding has cost, at the prices of the setting prices. What is embedded for questions has the generation (questions).
# TYPE liverag_embedding_cost_usd_total counter
liverag_embedding_cost_usd_total{generation="(questions)",model="openai/m"} 3e-06
liverag_embedding_cost_usd_total{generation="one",model="openai/m"} 0.000101
# HELP liverag_spending_left What is left of the day's cap, by unit: usd, tokens. Absent where there is no cap.
# TYPE liverag_spending_left gauge
liverag_spending_left{unit="tokens"} 397
# HELP liverag_spending_paused 1 while documents wait because the day's cap is reached.
# TYPE liverag_spending_paused gauge
liverag_spending_paused 1
# HELP liverag_tokens_billed_total Tokens that the model's provider charged for, by its own count where it tells, of documents (index) and questions (query).
# TYPE liverag_tokens_billed_total counter
liverag_tokens_billed_total{model="openai/m",role="index"} 100
liverag_tokens_billed_total{model="openai/m",role="query"} 3
# HELP liverag_tokens_retried_total Tokens that were sent to the model's provider in vain.
# TYPE liverag_tokens_retried_total counter
liverag_tokens_retried_total{model="openai/m"} 50
# HELP liverag_tokens_superseded_total Tokens that were cut and not embedded, because a newer change of their document overtook them.
# TYPE liverag_tokens_superseded_total counter
liverag_tokens_superseded_total{generation="one",model="openai/m"} 9
`
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if got := w.Body.String(); got != strings.TrimPrefix(want, "\n") {
		t.Errorf("%s", got)
	}
}
