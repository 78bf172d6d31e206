package retrieve

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/vectordb"
)

// tiny is a store of a few documents with one chunk each, for the faults and the figures that a real store does not give.
type tiny struct {
	mu          sync.Mutex
	generations map[string][]vectordb.Revision
	noLexical   bool
	fail        func(generation string) error
}

func (s *tiny) Search(ctx context.Context, generation string, q vectordb.Query) ([]vectordb.Hit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(generation); err != nil {
			return nil, err
		}
	}
	revs, ok := s.generations[generation]
	if !ok {
		return nil, vectordb.ErrNoGeneration
	}
	if q.Text != "" && s.noLexical {
		return nil, vectordb.ErrUnsupported
	}
	var dense, lexical []vectordb.Candidate
	for i := range revs {
		r := &revs[i]
		if r.Deleted || r.Tenant != "" || r.Readers() != nil || !q.Filter.Match(r) || len(r.Entries) == 0 {
			continue
		}
		c := vectordb.Candidate{Entry: uint64(i), Key: r.Key}
		if q.Vector != nil {
			for j, x := range r.Entries[0].Vector {
				c.Score += float64(x * q.Vector[j])
			}
			dense = append(dense, c)
		}
		c.Score = 0
		for _, term := range strings.Fields(strings.ToLower(q.Text)) {
			c.Score += float64(strings.Count(strings.ToLower(r.Text), term))
		}
		if c.Score > 0 {
			lexical = append(lexical, c)
		}
	}
	best := func(leg []vectordb.Candidate) []vectordb.Candidate {
		slices.SortFunc(leg, func(a, b vectordb.Candidate) int {
			return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(a.Key, b.Key))
		})
		return leg[:min(len(leg), q.Depth)]
	}
	dense, lexical = best(dense), best(lexical)
	out := append(dense[:len(dense):len(dense)], lexical...)
	if q.Fuse != nil {
		out = q.Fuse(dense, lexical)
	}
	hits := make([]vectordb.Hit, len(out))
	for i, c := range out {
		r := revs[c.Entry]
		hits[i] = vectordb.Hit{Revision: r, ID: vectordb.EntryID(r.Key, r.Entries[0].Hash, 0), Entry: r.Entries[0], Text: r.Text, Score: c.Score}
		hits[i].Entries, hits[i].Revision.Text, hits[i].Entry.Vector = nil, "", nil
	}
	return hits, nil
}

func (s *tiny) Current(ctx context.Context, generation string, keys []string) ([]vectordb.Revision, error) {
	revs, ok := s.generations[generation]
	if !ok {
		return nil, vectordb.ErrNoGeneration
	}
	out := make([]vectordb.Revision, len(keys))
	for i, key := range keys {
		out[i].Key = key
		for _, r := range revs {
			if r.Key == key {
				out[i] = r
			}
		}
	}
	return out, nil
}

// words embeds a text by hashing its words.
type words struct{ err error }

func (words) Name() string  { return "words/16" }
func (words) Dim() int      { return 16 }
func (words) MaxInput() int { return 0 }
func (w words) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	if w.err != nil {
		return nil, w.err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out := make([][]float32, len(inputs))
	for i, input := range inputs {
		out[i] = vector(input)
	}
	return out, nil
}

func vector(text string) []float32 {
	v := make([]float32, 16)
	for _, word := range strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r < 'a' || r > 'z' }) {
		h := fnv.New32a()
		h.Write([]byte(word))
		v[h.Sum32()%16]++
	}
	var n float64
	for _, x := range v {
		n += float64(x * x)
	}
	for i := range v {
		if n > 0 {
			v[i] /= float32(math.Sqrt(n))
		}
	}
	return v
}

var (
	updated    = time.Date(2026, 11, 20, 9, 30, 0, 0, time.FixedZone("CET", 3600))
	searchable = time.Date(2026, 11, 21, 10, 0, 3, 5e8, time.UTC)
	recipe     = vectordb.Recipe{
		Chunker:  vectordb.ChunkerRecipe{Strategy: "markdown", Tokens: 200, Tokenizer: "cl100k_base"},
		Embedder: vectordb.EmbedderRecipe{Model: "local/static", Long: "split"},
	}
)

func revision(key, text string, version int64) vectordb.Revision {
	return vectordb.Revision{
		Key: key, Version: version, Text: text, ContentType: "text/plain", Title: "About " + key, URL: "https://example.org/" + key,
		UpdatedAt: updated, LoggedAt: updated, SearchableAt: searchable, Metadata: map[string]any{"team": "billing", "year": 2026.0, "tags": []string{"a", "b"}},
		Entries: []vectordb.Entry{{Start: 0, End: len(text), Tokens: len(strings.Fields(text)), Hash: vectordb.Hash{1, 2, 3}, Vector: vector(text)}},
	}
}

// names is a Resolver and a Follower.
type names struct {
	mu       sync.Mutex
	live     string
	embedder embedder.Embedder
	store    *tiny
	resolved func()
	fusion   Fusion

	freshness Freshness
	// searchable tells which tokens are; another one is unknown unless it begins with "later".
	searchable []string
}

func (n *names) Resolve(name string) (Target, error) {
	n.mu.Lock()
	t := Target{Name: name, Recipe: recipe, Embedder: n.embedder, Fusion: n.fusion}
	if name == Live {
		t.Name, t.Alias = n.live, Live
	}
	_, ok := n.store.generations[t.Name]
	n.mu.Unlock()
	if !ok && t.Alias == "" || t.Name == "" {
		return Target{}, vectordb.ErrNoGeneration
	}
	if n.resolved != nil {
		n.resolved()
	}
	return t, nil
}

func (n *names) Status(string) Freshness { return n.freshness }

func (n *names) Wait(ctx context.Context, generation string, tokens []string, asOf time.Time) (bool, error) {
	for _, token := range tokens {
		if slices.Contains(n.searchable, token) {
			continue
		}
		if !strings.HasPrefix(token, "later") {
			return false, ErrTokenUnknown
		}
		<-ctx.Done()
		return false, nil
	}
	if asOf.After(n.freshness.AsOf) {
		<-ctx.Done()
		return false, ctx.Err() // both ways of saying it are allowed
	}
	return true, nil
}

func newTiny() (*tiny, *names) {
	s := &tiny{generations: map[string][]vectordb.Revision{
		"one": {
			revision("kb/refunds.md", "Refunds are paid within five days.", 4182),
			revision("kb/returns.md", "Returns need a label.", 7),
			revision("odd id/ä%2F", "An odd id.", 9),
			{Key: "kb/gone.md", Version: 5, Deleted: true},
		},
		"two": {revision("kb/refunds.md", "Refunds take a week.", 4182)},
	}}
	private := revision("kb/private.md", "Refunds of the board.", 8)
	private.ACL = []string{"board"}
	closed := revision("kb/closed.md", "Refunds once.", 8)
	closed.Access = vectordb.Access{Version: 10}
	tenant := revision("acme\x1fkb/refunds.md", "Refunds at Acme.", 8)
	tenant.Tenant = "acme"
	s.generations["one"] = append(s.generations["one"], private, closed, tenant)
	n := &names{live: "one", store: s, embedder: words{}, searchable: []string{"now", "then"},
		freshness: Freshness{AsOf: searchable, Lag: 38 * time.Millisecond, Pending: 2}}
	return s, n
}

// serve returns a server of the retriever's routes.
func serve(t testing.TB, s Store, n *names) *echo.Echo {
	t.Helper()
	e := echo.New()
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		p := problem.From(err)
		if p.Code == "internal" && !errors.Is(err, errPlanted) {
			t.Errorf("internal error: %v", err)
		}
		if err := p.Write(c.Response()); err != nil {
			t.Error(err)
		}
	}
	New(Config{Store: s, Resolver: n, Follower: n}).Routes(e)
	return e
}

var errPlanted = errors.New("planted")
