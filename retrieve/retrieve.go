// Package retrieve answers questions from a generation. It is the only reader of the store.
//
// A [Retriever] embeds the query with the generation's own model, searches both legs in one immutable view, fuses them, and
// says how fresh the answer is. [Handlers] offers it over HTTP, together with GET /documents/{id}.
package retrieve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/vectordb"
)

// Live is the alias that answers unless another name is asked for.
const Live = "live"

// Store is the part of the vector store that answers come from.
type Store interface {
	vectordb.Searcher
	Current(ctx context.Context, generation string, keys []string) ([]vectordb.Revision, error)
}

// Resolver knows which generation a name means.
type Resolver interface {
	// Resolve takes the name of a generation or an alias. It is called for every query, so it must be quick.
	// The error is vectordb.ErrNoGeneration for a name that nothing has.
	Resolve(name string) (Target, error)
}

// Target is a generation as a query sees it.
type Target struct {
	// Name is the generation's own name.
	Name string
	// Alias is the alias that it was found by; empty if it was found by its own name.
	Alias string
	// Recipe is what made it.
	Recipe vectordb.Recipe
	// Embedder is its model, in the live lane. Only the Query role is asked for.
	Embedder embedder.Embedder
	// Fusion merges its legs in a hybrid query: how much the dense leg is worth depends on the model. Defaults to the Config's.
	Fusion Fusion
}

// Follower knows how far a generation has followed the log.
type Follower interface {
	// Status is called for every query, so it must be quick. An unknown generation has the zero Freshness.
	Status(generation string) Freshness
	// Wait blocks until the changes that the tokens name are searchable in the generation, and its AsOf is not before asOf (unless that is zero).
	// It looks before it waits, so a ctx that is done already only looks. It returns false with a nil error when ctx ended first.
	// Errors: ErrTokenUnknown, vectordb.ErrNoGeneration.
	Wait(ctx context.Context, generation string, tokens []string, asOf time.Time) (satisfied bool, err error)
}

// Freshness says how current a generation is.
type Freshness struct {
	// AsOf: every change that entered the log before this time can be found. Zero: not known yet, as while an index is built for the first time.
	AsOf time.Time
	// Lag is how long AsOf is behind, if that is known.
	Lag time.Duration
	// Pending counts the changes that were read and can't be found yet.
	Pending int
}

// Pending is a document's newest change, which can't be indexed: an older version is served on.
type Pending struct {
	Version int64
	// Code and Detail say why it can't.
	Code, Detail string
	// DeadLetter is the id of its dead letter.
	DeadLetter string
}

// ErrTokenUnknown: a token is of another log, or is none.
var ErrTokenUnknown = errors.New("token is of another log, or is none")

// Mode says which legs a query runs.
type Mode string

const (
	// Hybrid runs both legs and fuses them.
	Hybrid Mode = "hybrid"
	// Dense runs the search by vector only.
	Dense Mode = "dense"
	// Lexical runs BM25 only.
	Lexical Mode = "lexical"
)

// Bounds and defaults of a Request.
const (
	// MaxQueryBytes is the longest query.
	MaxQueryBytes = 32 << 10
	// MaxK is the most hits.
	MaxK = 200
	// DefaultK is how many hits there are if the caller does not say.
	DefaultK = 8
	// DefaultWait is how long a query waits for After and MaxStaleness if the caller does not say.
	DefaultWait = 2 * time.Second
	// MaxWait is the longest that a query may wait.
	MaxWait = 5 * time.Minute
	// MaxTokens is how many tokens After may name.
	MaxTokens = 1000
)

// Request is a question.
type Request struct {
	// Query is required, not blank, at most MaxQueryBytes of UTF-8.
	Query string
	// K is how many hits are wanted, 1 to MaxK. 0 means DefaultK.
	K int
	// Mode is kept to if it is named. Empty, the default, is Hybrid, or Lexical while the generation's model can't be had (see Answer.Degraded).
	Mode Mode
	// Filter restricts the documents; nil allows every one.
	Filter *vectordb.Filter
	// Generation is the name of a generation or an alias. Defaults to Live.
	Generation string
	// After are tokens of changes that the answer must reflect.
	After []string
	// MaxStaleness, unless negative, asks that the answer reflects everything in the log that is older. NoStaleness is no demand.
	MaxStaleness time.Duration
	// Wait is how long to wait for After and MaxStaleness. 0 only looks.
	Wait time.Duration
	// Strict fails when After or MaxStaleness can't be had in time, instead of answering with Satisfied false.
	Strict bool
	// Explain fills in Hit.Explain.
	Explain bool
}

// NoStaleness as MaxStaleness asks for nothing.
const NoStaleness time.Duration = -1

// NewRequest returns a request with every default set.
func NewRequest(query string) Request {
	return Request{Query: query, K: DefaultK, Generation: Live, MaxStaleness: NoStaleness, Wait: DefaultWait}
}

// Answer is what was found.
type Answer struct {
	// Hits are best first; ties are in the order of keys, then of places in the document.
	Hits []Hit
	// Mode is what ran. It is Dense where Hybrid was asked of a store without a lexical leg, and Lexical where Degraded is set.
	Mode Mode
	// Degraded is set if words alone answered because the question could not be embedded.
	Degraded *Degraded
	// Target is the generation that answered.
	Target Target
	// Freshness was taken before the search, so the hits are at least that fresh.
	Freshness Freshness
	// Satisfied is false if After or MaxStaleness was not reached in time.
	Satisfied bool
	// Took says where the time went.
	Took Took
	// fusion is set if hits were fused, for Explain.
	fusion string
}

// Degraded says why an answer is less than what would have been had on a better day.
type Degraded struct {
	// Code is that of the problem which a request that names its mode gets.
	Code string
	// Detail says it for people. The cause is not in it.
	Detail string
}

// Took says where the time of an answer went. Wait is the time spent waiting for freshness.
type Took struct {
	Total, Wait, Embed, Search time.Duration
}

// Hit is one chunk of an answer.
type Hit struct {
	vectordb.Hit
	// Explain is set if the request asked for it.
	Explain *Explain
}

// Explain says how a hit came to its place.
type Explain struct {
	// Dense and Lexical are nil for a leg that did not run or did not find it within its depth.
	Dense, Lexical *LegRank
}

// LegRank is a hit's place in one leg.
type LegRank struct {
	// Rank counts from 1.
	Rank int
	// Score is the cosine or the BM25 score.
	Score float64
}

// Config is what a Retriever works with. Fields without a default are required.
type Config struct {
	Store    Store
	Resolver Resolver
	Follower Follower
	// Fusion merges the legs of a hybrid query in generations that have none of their own. Defaults to DefaultFusion.
	Fusion Fusion
	// Patience is for how long a question that names no mode waits for its vector; then words alone answer. Defaults to 10 seconds, so that a standby endpoint, which is asked
	// after 5, has its turn.
	Patience time.Duration
	// Rejected tells of a change of the document above the version that the generation holds which it can't index; nil: there is none. Defaults to knowing of none.
	Rejected func(ctx context.Context, generation, key string, holds int64) *Pending
	// Asked, if set, is told of every question that a caller put over HTTP to an alias and that was answered, unless its header HeaderUnlogged says
	// otherwise. It must return at once, and keep nothing of the answer but ids. Defaults to none.
	Asked func(Request, *Answer)
	// Metrics, if set, gets the histogram liverag_retrieve_seconds and the counter liverag_retrieve_degraded_total. Defaults to none.
	Metrics prometheus.Registerer
}

// Retriever answers questions. It is safe for concurrent use.
type Retriever struct {
	config   Config
	seconds  *prometheus.HistogramVec
	degraded *prometheus.CounterVec
}

// New returns a Retriever.
func New(config Config) *Retriever {
	if config.Fusion == nil {
		config.Fusion = DefaultFusion
	}
	if config.Patience <= 0 {
		config.Patience = 10 * time.Second
	}
	r := &Retriever{config: config}
	if config.Metrics != nil {
		r.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "liverag_retrieve_seconds",
			Help:    "Time to answer a query, without what it waited for freshness.",
			Buckets: []float64{.00025, .0005, .001, .002, .003, .005, .0075, .01, .015, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"generation", "mode"})
		r.degraded = prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "liverag_retrieve_degraded_total",
			Help: "Questions that words alone answered because they could not be embedded, by why.",
		}, []string{"generation", "code"})
		config.Metrics.MustRegister(r.seconds, r.degraded)
	}
	return r
}

// Retrieve answers a request. Its errors are *problem.Error where the caller is to blame, or can try again.
func (r *Retriever) Retrieve(ctx context.Context, q Request) (*Answer, error) {
	start := time.Now()
	if q.K == 0 {
		q.K = DefaultK
	}
	if q.Generation == "" {
		q.Generation = Live
	}
	if err := q.check(); err != nil {
		return nil, err
	}
	// An alias may move, and what it named be dropped, while the query is under way: then it is resolved again, once.
	for attempt := 0; ; attempt++ {
		target, err := r.config.Resolver.Resolve(q.Generation)
		if err != nil {
			return nil, unresolved(q.Generation, err)
		}
		a, err := r.answer(ctx, q, target, start)
		if errors.Is(err, vectordb.ErrNoGeneration) {
			if attempt == 0 && target.Alias != "" {
				continue
			}
			return nil, unresolved(q.Generation, err)
		}
		if err != nil {
			return nil, err
		}
		a.Took.Total = time.Since(start)
		if r.seconds != nil {
			r.seconds.WithLabelValues(a.Target.Name, string(a.Mode)).Observe((a.Took.Total - a.Took.Wait).Seconds())
			if a.Degraded != nil {
				r.degraded.WithLabelValues(a.Target.Name, a.Degraded.Code).Inc()
			}
		}
		return a, nil
	}
}

func unresolved(name string, err error) error {
	if !errors.Is(err, vectordb.ErrNoGeneration) {
		return fmt.Errorf("resolve generation %s: %w", name, err)
	}
	if name == Live {
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: "not_ready", RetryAfter: time.Second, Err: err,
			Detail: "no generation answers yet; GET /readyz says when one does"}
	}
	return &problem.Error{Status: http.StatusNotFound, Code: "generation_unknown", Err: err,
		Detail: fmt.Sprintf("generation: there is no generation or alias %q; GET /generations lists them", name)}
}

func (r *Retriever) answer(ctx context.Context, q Request, target Target, start time.Time) (*Answer, error) {
	a := &Answer{Mode: cmp.Or(q.Mode, Hybrid), Target: target, Satisfied: true}
	if len(q.After) > 0 || q.MaxStaleness >= 0 {
		began := time.Now()
		if err := r.wait(ctx, q, a, start); err != nil {
			return nil, err
		}
		a.Took.Wait = time.Since(began)
	}
	a.Freshness = r.config.Follower.Status(target.Name)

	query := vectordb.Query{Filter: q.Filter, Depth: q.K}
	var away *problem.Error
	if a.Mode != Lexical {
		began := time.Now()
		vector, err := r.embed(ctx, q, target.Embedder)
		a.Took.Embed = time.Since(began)
		switch {
		case err == nil:
			query.Vector = vector
		case q.Mode == "" && errors.As(err, &away) && absence(err) != "":
			a.Mode, a.Degraded = Lexical, &Degraded{Code: away.Code, Detail: absence(err) + "; words alone answered"}
		default:
			return nil, err
		}
	}
	if a.Mode != Dense {
		query.Text = q.Query
	}

	began := time.Now()
	hits, legs, err := r.search(ctx, q, &query, a)
	if away != nil && errors.Is(err, vectordb.ErrUnsupported) {
		away.Detail = absence(away) + ", and this store can't search by words; try again"
		return nil, away
	}
	if err != nil {
		return nil, err
	}
	a.Took.Search = time.Since(began)

	a.Hits = make([]Hit, len(hits))
	for i := range hits {
		a.Hits[i].Hit = hits[i]
	}
	if q.Explain {
		legs.explain(a.Hits)
	}
	slices.SortStableFunc(a.Hits, func(x, y Hit) int {
		return cmp.Or(cmp.Compare(y.Score, x.Score), strings.Compare(x.Key, y.Key), cmp.Compare(x.Entry.Start, y.Entry.Start), cmp.Compare(x.Entry.End, y.Entry.End))
	})
	if len(a.Hits) > q.K {
		a.Hits = a.Hits[:q.K]
	}
	return a, nil
}

// embed returns the question's vector; nil if it is near nothing, as that of words which the model does not know. A question that names no mode is given up after a while, as one
// whose model does not answer.
func (r *Retriever) embed(ctx context.Context, q Request, model embedder.Embedder) ([]float32, error) {
	within := ctx
	if q.Mode == "" {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, r.config.Patience)
		defer cancel()
	}
	vectors, err := model.Embed(within, embedder.Query, []string{q.Query})
	switch {
	case err != nil && within.Err() != nil && ctx.Err() == nil:
		return nil, embedFailed(ctx, &embedder.Error{Op: model.Name(), Temporary: true, Input: -1, Err: fmt.Errorf("no vector within %s: %w", r.config.Patience, err)})
	case err != nil:
		return nil, embedFailed(ctx, err)
	case blank(vectors[0]):
		return nil, nil
	}
	return vectors[0], nil
}

func blank(vector []float32) bool {
	for _, x := range vector {
		if x != 0 {
			return false
		}
	}
	return true
}

// search runs the legs that query has. A store that lacks the lexical leg answers a hybrid query by the dense one.
func (r *Retriever) search(ctx context.Context, q Request, query *vectordb.Query, a *Answer) ([]vectordb.Hit, *legs, error) {
	for {
		if query.Vector == nil && query.Text == "" {
			return nil, nil, nil
		}
		var l *legs
		if q.Explain {
			l = &legs{}
		}
		fused := query.Vector != nil && query.Text != ""
		fusion := a.Target.Fusion
		if fusion == nil {
			fusion = r.config.Fusion
		}
		query.Fuse, query.Depth, a.fusion = nil, q.K, ""
		if fused {
			query.Depth = max(MinDepth, DepthPerHit*q.K)
			a.fusion = fusion.Name()
		}
		if fused || q.Explain {
			query.Fuse = func(dense, lexical []vectordb.Candidate) []vectordb.Candidate {
				out := dense
				switch {
				case fused:
					out = fusion.Fuse(dense, lexical, q.K)
				case query.Vector == nil:
					out = lexical
				}
				if l != nil {
					l.note(dense, lexical, out)
				}
				return out
			}
		}
		hits, err := r.config.Store.Search(ctx, a.Target.Name, *query)
		switch {
		case err == nil:
			return hits, l, nil
		case errors.Is(err, vectordb.ErrUnsupported) && a.Mode == Hybrid && query.Text != "":
			query.Text, a.Mode = "", Dense
			continue
		case errors.Is(err, vectordb.ErrUnsupported) && a.Mode == Lexical:
			return nil, nil, &problem.Error{Status: http.StatusBadRequest, Code: "mode_unsupported", Err: err,
				Detail: `mode: this store has no lexical search; use "dense"`}
		case errors.Is(err, vectordb.ErrUnsupported):
			return nil, nil, &problem.Error{Status: http.StatusBadRequest, Code: "unsupported", Err: err,
				Detail: "filter: this store can't do that: " + err.Error()}
		case errors.Is(err, vectordb.ErrClosed):
			return nil, nil, &problem.Error{Status: http.StatusServiceUnavailable, Code: "not_ready", RetryAfter: time.Second, Err: err,
				Detail: "the server is stopping; try again"}
		}
		return nil, nil, fmt.Errorf("search generation %s: %w", a.Target.Name, err)
	}
}

func (r *Retriever) wait(ctx context.Context, q Request, a *Answer, start time.Time) error {
	var asOf time.Time
	if q.MaxStaleness >= 0 {
		asOf = start.Add(-q.MaxStaleness)
	}
	waiting, cancel := context.WithDeadline(ctx, start.Add(q.Wait))
	defer cancel()
	satisfied, err := r.config.Follower.Wait(waiting, a.Target.Name, q.After, asOf)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("wait for freshness: %w", ctx.Err())
	case errors.Is(err, ErrTokenUnknown):
		return &problem.Error{Status: http.StatusConflict, Code: "token_unknown", Err: err,
			Detail: "after: a token is of another log, or is none; write the document again for a new one"}
	case errors.Is(err, context.DeadlineExceeded):
		satisfied = false
	case err != nil:
		return fmt.Errorf("wait for freshness: %w", err)
	}
	a.Satisfied = satisfied
	if !satisfied && q.Strict {
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: "stale", RetryAfter: time.Second,
			Detail: fmt.Sprintf("the changes asked for were not searchable within %s; wait longer, or ask without strict", q.Wait)}
	}
	return nil
}

// absence says for people why the model can't be had for any question; empty: that is not what failed.
func absence(err error) string {
	var e *embedder.Error
	switch {
	case !errors.As(err, &e):
		return ""
	case e.Temporary:
		return "the embedding model can't be reached now"
	case e.Account && e.Input < 0:
		return "the embedding model's endpoint refuses this server, and GET /freshness says why"
	}
	return ""
}

func embedFailed(ctx context.Context, err error) error {
	const instead = "; try again, or ask without a mode or in mode lexical, which words alone answer where the store can search by them"
	var e *embedder.Error
	switch why := absence(err); {
	case ctx.Err() != nil:
		return fmt.Errorf("embed query: %w", ctx.Err())
	case errors.As(err, &e) && e.Temporary:
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: "embedder_unavailable", RetryAfter: max(e.RetryAfter, time.Second), Err: err, Detail: why + instead}
	case errors.As(err, &e) && e.Input >= 0:
		return &problem.Error{Status: http.StatusBadRequest, Code: "query_rejected", Err: err,
			Detail: "query: the embedding model refuses this text"}
	case why != "":
		return &problem.Error{Status: http.StatusBadGateway, Code: "embedder_failed", Err: err, Detail: why + instead}
	case errors.As(err, &e):
		return &problem.Error{Status: http.StatusBadGateway, Code: "embedder_failed", Err: err,
			Detail: "the embedding model failed; the server's log has the cause"}
	}
	return fmt.Errorf("embed query: %w", err)
}
