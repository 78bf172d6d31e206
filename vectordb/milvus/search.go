package milvus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"github.com/liverag/liverag/vectordb"
)

const (
	// maxDepth is how many rows a search of the server may return.
	maxDepth = 16384
	// inlineDepth is up to which limit a search brings texts along; beyond it they are fetched for the hits alone.
	inlineDepth = 512
	// targetsAtOnce is how many documents are looked for again by name; when there are more the whole leg is searched again.
	targetsAtOnce = 64
)

// errMoved: what was found is gone before it was read.
var errMoved = errors.New("documents change faster than they can be read; try again")

// Search implements vectordb.Searcher.
//
// A search finds rows of any revision; the heads of their documents, looked up after it, tell which one is in force. Where rows of another were found, the leg is
// searched again for those documents, until heads and rows agree. So an answer shows one version of a document, the same in both legs, and none only if there is
// none. The server's fusion is not used: Query.Fuse is.
func (s *Store) Search(ctx context.Context, name string, q vectordb.Query) ([]vectordb.Hit, error) {
	g, err := s.generation(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := q.Check(g.about.Dim); err != nil {
		return nil, fmt.Errorf("search generation %s: %w", name, err)
	}
	if q.Text != "" && !g.sparse {
		return nil, fmt.Errorf("search generation %s for words: %w: Milvus %s has no sparse vectors, or had none when the generation was made",
			name, vectordb.ErrUnsupported, s.server.Version)
	}
	if q.Depth == 0 {
		q.Depth = 10
	}
	x := &search{s: s, g: g, q: &q}
	for attempt := 0; ; attempt++ {
		hits, err := x.run(ctx)
		if !errors.Is(err, errMoved) || attempt == 3 {
			if errors.Is(err, errMoved) {
				err = fmt.Errorf("search generation %s: %w", name, err)
			}
			return hits, err
		}
		x = &search{s: s, g: g, q: &q}
	}
}

// search is one search under way.
type search struct {
	s *Store
	g *generation
	q *vectordb.Query

	legs   []*leg
	states map[string]*state
	shown  map[string]*vectordb.Revision // by document: what the caller may see, nil for what not
}

// leg is one way of finding chunks.
type leg struct {
	field   string
	vector  entity.Vector
	expr    string // of the rows that it may find
	terms   []string
	stats   *lexicalStats
	dropped bool // the server has nothing to look for

	rows map[string]*foundRow
	full bool // the server may have more
}

// foundRow is a row that a leg found.
type foundRow struct {
	key     string
	doc     string
	stamp   stamp
	ordinal int
	score   float64
	chunk   *chunk // nil: not fetched yet
	text    string // the chunk's own, when the hits are filled
}

func (x *search) run(ctx context.Context) ([]vectordb.Hit, error) {
	if err := x.prepare(ctx); err != nil {
		return nil, err
	}
	x.states, x.shown = map[string]*state{}, map[string]*vectordb.Revision{}
	var candidates [2][]*foundRow
	for limit := min(x.q.Depth+max(16, x.q.Depth/4), maxDepth); ; limit = min(4*limit, maxDepth) {
		if err := x.each(func(l *leg) error { return x.look(ctx, l, limit, "") }); err != nil {
			return nil, err
		}
		if err := x.settle(ctx, limit); err != nil {
			return nil, err
		}
		short := false
		for i, l := range x.legs {
			candidates[i] = x.rank(l)
			short = short || len(candidates[i]) < x.q.Depth && l.full && limit < maxDepth
		}
		if !short {
			break
		}
	}
	return x.answer(ctx, candidates)
}

// prepare makes the legs that the query asks for. The lexical one is last.
func (x *search) prepare(ctx context.Context) error {
	filter := expression(x.q.Filter, false)
	if x.q.Vector != nil {
		l := &leg{field: fieldVector, vector: entity.FloatVector(x.q.Vector), expr: both(reach(x.q.Tenant, x.q.Principals, found), filter)}
		l.dropped = isZero(x.q.Vector)
		x.legs = append(x.legs, l)
	}
	if x.q.Text != "" {
		l := &leg{field: fieldTerms, terms: vectordb.AppendTerms(nil, x.q.Text), expr: both(reach(x.q.Tenant, x.q.Principals, found, lexicalOnly), filter)}
		x.legs = append(x.legs, l)
		if l.dropped = len(l.terms) == 0; !l.dropped {
			var err error
			if l.stats, err = x.s.lexicalStatsOf(ctx, x.g, x.q.Tenant); err != nil {
				return err
			}
			if l.vector, err = l.stats.queryWeights(l.terms); err != nil {
				return err
			}
		}
	}
	for _, l := range x.legs {
		l.dropped = l.dropped || l.expr == never || x.q.Depth == 0
		l.rows = map[string]*foundRow{}
	}
	return nil
}

// each calls do for the legs, side by side.
func (x *search) each(do func(*leg) error) error {
	if len(x.legs) == 1 {
		return do(x.legs[0])
	}
	errs := make([]error, len(x.legs))
	var wg sync.WaitGroup
	for i, l := range x.legs {
		wg.Go(func() { errs[i] = do(l) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// look searches a leg and keeps what it finds. target restricts it to some rows.
func (x *search) look(ctx context.Context, l *leg, limit int, target string) error {
	if l.dropped {
		return nil
	}
	expr := l.expr
	if target != "" {
		expr = both(expr, target)
	}
	var fields []string
	if limit <= inlineDepth || l.stats != nil {
		fields = []string{fieldText}
	}
	var params entity.SearchParam
	var err error
	if l.field == fieldVector {
		params, err = entity.NewIndexHNSWSearchParam(max(64, limit))
	} else {
		params, err = entity.NewIndexSparseInvertedSearchParam(0)
	}
	if err != nil {
		return err
	}
	results, err := reading(ctx, x.s, x.g, "search", func(ctx context.Context) ([]client.SearchResult, error) {
		return x.s.client.Search(ctx, x.g.collection, nil, expr, fields, []entity.Vector{l.vector}, l.field, entity.IP, limit, params,
			client.WithSearchQueryConsistencyLevel(x.g.level(entity.ClBounded)))
	})
	if err != nil {
		return err
	}
	// Without any hit an older server leaves out the fields, and the SDK takes that for an error.
	if len(results) == 0 || results[0].ResultCount == 0 {
		if target == "" {
			l.full = false
		}
		return nil
	}
	r := results[0]
	keys, ok := r.IDs.(*entity.ColumnVarChar)
	if r.Err != nil || !ok {
		return fmt.Errorf("search generation %s: the server's answer: %w", x.g.about.Name, cmp.Or(r.Err, vectordb.ErrCorrupt))
	}
	if target == "" {
		l.full = r.ResultCount >= limit
	}
	texts := stringsOf(r.Fields, fieldText)
	for i, key := range keys.Data() {
		f := &foundRow{key: key, score: float64(r.Scores[i])}
		if f.doc, f.stamp, f.ordinal, err = parseRowKey(key); err != nil {
			return err
		}
		if i < len(texts) {
			c, err := decodeText(texts[i])
			if err != nil {
				return fmt.Errorf("row %s: %w", key, err)
			}
			f.chunk = &c
		}
		l.rows[key] = f
	}
	return nil
}

// settle looks the heads of what was found up, and searches again for documents whose revision in force the legs have not seen.
func (x *search) settle(ctx context.Context, limit int) error {
	fresh := map[string]bool{}
	for _, l := range x.legs {
		for _, f := range l.rows {
			fresh[f.doc] = true
		}
	}
	level := entity.ClBounded
	doubted := false
	for round := 0; len(fresh) > 0; round++ {
		if round > rounds/2 {
			level = entity.ClStrong
		}
		docs := slices.Sorted(maps.Keys(fresh))
		states, err := x.s.heads(ctx, x.g, docs, level, true)
		if err != nil {
			return err
		}
		if ahead := x.ahead(states, docs); len(ahead) > 0 && !doubted {
			// A replica that lags answered, or a large document is being written. The newest state tells; it takes a third of a second, so it is
			// asked for once, and not again for the same rows.
			doubted = true
			again := make([]string, 0, len(ahead))
			for doc := range ahead {
				again = append(again, doc)
			}
			newest, err := x.s.heads(ctx, x.g, again, entity.ClStrong, true)
			if err != nil {
				return err
			}
			for _, doc := range again {
				states[doc] = newest[doc]
			}
			x.g.doubt(x.ahead(states, again))
		}
		var changed []string
		for _, doc := range docs {
			before, now := x.states[doc].current(), states[doc].current()
			same := before != nil && now != nil && before.stamp == now.stamp && x.states[doc].access().Version == states[doc].access().Version
			if same {
				continue // the rows that were looked for after that are all there are
			}
			x.states[doc] = states[doc]
			if x.shown[doc], err = x.see(states[doc]); err != nil {
				return err
			}
			if x.unseen(doc) {
				changed = append(changed, doc)
			}
		}
		if len(changed) == 0 {
			return nil
		}
		if round == rounds {
			return errMoved
		}
		clear(fresh)
		for _, doc := range changed {
			fresh[doc] = true
		}
		target := ""
		if len(changed) <= targetsAtOnce {
			parts := make([]string, len(changed))
			for i, doc := range changed {
				parts[i] = fieldRow + ` like "` + strings.TrimSuffix(rowKey(doc, x.states[doc].current().stamp, 0), "0") + `%"`
			}
			target = "(" + strings.Join(parts, " or ") + ")"
		}
		before := map[string]bool{}
		if target == "" {
			for doc := range x.states {
				before[doc] = true
			}
		}
		if err := x.each(func(l *leg) error { return x.look(ctx, l, limit, target) }); err != nil {
			return err
		}
		if target == "" { // which may have brought others
			for _, l := range x.legs {
				for _, f := range l.rows {
					if !before[f.doc] {
						fresh[f.doc] = true
					}
				}
			}
		}
	}
	return nil
}

// ahead are the documents, and the revisions, of which rows were found that are newer than the newest head, as far as that is not known already.
func (x *search) ahead(states map[string]*state, docs []string) map[string]map[stamp]bool {
	asked := make(map[string]bool, len(docs))
	for _, doc := range docs {
		asked[doc] = true
	}
	var list map[string]map[stamp]bool
	for _, l := range x.legs {
		for _, f := range l.rows {
			if h := states[f.doc].current(); !asked[f.doc] || h != nil && !h.stamp.less(f.stamp) || x.g.doubted(f.doc, f.stamp) {
				continue
			}
			if list == nil {
				list = map[string]map[stamp]bool{}
			}
			if list[f.doc] == nil {
				list[f.doc] = map[stamp]bool{}
			}
			list[f.doc][f.stamp] = true
		}
	}
	return list
}

// see makes of a document's heads what the caller sees of it, nil if nothing.
func (x *search) see(st *state) (*vectordb.Revision, error) {
	h := st.current()
	if h == nil || !h.live() {
		return nil, nil
	}
	r, err := st.revision()
	if err != nil {
		return nil, err
	}
	if !r.ReadableBy(x.q.Tenant, x.q.Principals) || !x.q.Filter.Match(&r) {
		return nil, nil
	}
	return &r, nil
}

// unseen tells whether a leg found rows of a document, but none of the revision in force, which the caller may see; or, where no head was found though rows
// were, whether there is one to look for again.
func (x *search) unseen(doc string) bool {
	if x.shown[doc] == nil {
		return false
	}
	want := x.states[doc].current().stamp
	for _, l := range x.legs {
		has, other := false, false
		for _, f := range l.rows {
			if f.doc == doc {
				has, other = has || f.stamp == want, other || f.stamp != want
			}
		}
		if other && !has {
			return true
		}
	}
	return false
}

// rank gives a leg's rows that are shown, best first.
func (x *search) rank(l *leg) []*foundRow {
	var list []*foundRow
	for _, f := range l.rows {
		if x.shown[f.doc] == nil || x.states[f.doc].current().stamp != f.stamp {
			continue
		}
		if l.stats != nil {
			text, ok := f.chunk.own()
			if !ok {
				text = f.chunk.text // of a chunk longer than a row: its beginning
			}
			var hit bool
			if f.score, hit = l.stats.score(l.terms, text); !hit {
				continue
			}
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b *foundRow) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(x.shown[a.doc].Key, x.shown[b.doc].Key), cmp.Compare(a.ordinal, b.ordinal))
	})
	return list[:min(len(list), x.q.Depth)]
}

// answer fuses the legs and fills the hits.
func (x *search) answer(ctx context.Context, found [2][]*foundRow) ([]vectordb.Hit, error) {
	var rows []*foundRow
	entries := map[string]uint64{}
	var legs [2][]vectordb.Candidate
	for i, l := range x.legs {
		at := i
		if l.field == fieldTerms {
			at = 1
		}
		for _, f := range found[i] {
			entry, ok := entries[f.key]
			if !ok {
				entry = uint64(len(rows))
				entries[f.key] = entry
				rows = append(rows, f)
			} else if rows[entry].chunk == nil {
				rows[entry].chunk = f.chunk
			}
			legs[at] = append(legs[at], vectordb.Candidate{Entry: entry, Key: x.shown[f.doc].Key, Score: f.score})
		}
	}
	// Before the fusion, which is called once: of what can't be read any more the search is done again.
	if err := x.fetch(ctx, rows); err != nil {
		return nil, err
	}
	answer := legs[0]
	switch {
	case x.q.Fuse != nil:
		answer = x.q.Fuse(legs[0], legs[1])
	case x.q.Text != "":
		answer = legs[1]
	}
	for _, c := range answer {
		if c.Entry >= uint64(len(rows)) {
			return nil, invalidf("search: Fuse returned entry %d, which it was not given", c.Entry)
		}
	}
	hits := make([]vectordb.Hit, 0, len(answer))
	for _, c := range answer {
		f := rows[c.Entry]
		r, err := x.states[f.doc].revision() // each hit has its own: callers may write to it
		if err != nil {
			return nil, err
		}
		hits = append(hits, vectordb.Hit{
			Revision: r, ID: vectordb.EntryID(vectordb.DocumentID(r.Key), f.chunk.entry.Hash, f.chunk.repeat), Entry: *f.chunk.entry, Text: f.text, Score: c.Score,
		})
	}
	return hits, nil
}

// fetch brings the texts that the legs did not bring along.
func (x *search) fetch(ctx context.Context, rows []*foundRow) error {
	var missing []string
	for _, f := range rows {
		if f.chunk == nil {
			missing = append(missing, f.key)
		}
	}
	stored := map[string]storedRow{}
	if len(missing) > 0 {
		var err error
		if stored, err = x.s.readRows(ctx, x.g, entity.ClBounded, missing); err != nil {
			return err
		}
	}
	for _, f := range rows {
		if f.chunk == nil {
			r, ok := stored[f.key]
			if !ok {
				return errMoved
			}
			f.chunk = &r.chunk
		}
		if f.chunk.entry == nil {
			return fmt.Errorf("row %s was found and has no chunk: %w", f.key, vectordb.ErrCorrupt)
		}
		var whole bool
		if f.text, whole = f.chunk.own(); !whole {
			var err error
			if f.text, err = x.longText(ctx, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// longText is the text of a chunk that is longer than a row.
func (x *search) longText(ctx context.Context, f *foundRow) (string, error) {
	whole, err := x.s.assemble(ctx, x.g, []string{f.doc}, x.states, entity.ClBounded)
	if err != nil {
		return "", err
	}
	r, ok := whole[f.doc]
	if !ok || f.chunk.entry.End > len(r.Text) {
		return "", errMoved
	}
	return r.Text[f.chunk.entry.Start:f.chunk.entry.End], nil
}
