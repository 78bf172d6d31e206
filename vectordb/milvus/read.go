package milvus

import (
	"container/heap"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"github.com/liverag/liverag/vectordb"
)

const (
	// bytesAtOnce bounds what one look-up of whole documents brings.
	bytesAtOnce = 16 << 20
	// pageRows is how many rows one page of an iteration has.
	pageRows = 8192
	// keysInWindow is how many keys Scan remembers at once.
	keysInWindow = 1 << 16
	// rounds is how often a read looks again when what it found was replaced meanwhile.
	rounds = 8
)

// query asks for rows.
func (s *Store) query(ctx context.Context, g *generation, level entity.ConsistencyLevel, expr string, fields ...string) (client.ResultSet, error) {
	return reading(ctx, s, g, "read", func(ctx context.Context) (client.ResultSet, error) {
		return s.client.Query(ctx, g.collection, nil, expr, fields, client.WithSearchQueryConsistencyLevel(g.level(level)))
	})
}

// heads looks documents up. Those without any head are not in the map. Where several requests are needed only the first waits for the level asked for: the
// collection's one reader does not go back.
func (s *Store) heads(ctx context.Context, g *generation, docs []string, level entity.ConsistencyLevel, withBody bool) (map[string]*state, error) {
	states := make(map[string]*state, len(docs))
	fields := []string{fieldRow, fieldKey, fieldHead}
	if withBody {
		fields = append(fields, fieldBody)
	}
	for part := range slices.Chunk(slices.Sorted(slices.Values(docs)), headsAtOnce) {
		columns, err := s.query(ctx, g, level, fieldDocument+" in "+numbers(numbersOf(part)), fields...)
		if err != nil {
			return nil, err
		}
		level = entity.ClBounded
		list, err := readHeads(columns)
		if err != nil {
			return nil, fmt.Errorf("read generation %s: %w", g.about.Name, err)
		}
		for _, h := range list {
			if _, asked := slices.BinarySearch(part, h.doc); asked { // and not another of the same number
				put(states, h)
			}
		}
	}
	return states, nil
}

// readRows brings rows by their keys, in any order.
func (s *Store) readRows(ctx context.Context, g *generation, level entity.ConsistencyLevel, keys []string, fields ...string) (map[string]storedRow, error) {
	rows := make(map[string]storedRow, len(keys))
	for part := range slices.Chunk(keys, rowsAtOnce) {
		columns, err := s.query(ctx, g, level, fieldRow+" in "+names(part), append([]string{fieldRow, fieldText}, fields...)...)
		if err != nil {
			return nil, err
		}
		found, texts, vectors := stringsOf(columns, fieldRow), stringsOf(columns, fieldText), vectorsOf(columns)
		for i, key := range found {
			c, err := decodeText(texts[i])
			if err != nil {
				return nil, fmt.Errorf("row %s: %w", key, err)
			}
			r := storedRow{chunk: c}
			if i < len(vectors) {
				r.vector = vectors[i]
			}
			rows[key] = r
		}
	}
	return rows, nil
}

// storedRow is a row as it was read.
type storedRow struct {
	chunk
	vector []float32
}

// assemble reads whole documents at their current revisions. Those of which a row is gone, because they were superseded meanwhile, are left out.
func (s *Store) assemble(ctx context.Context, g *generation, docs []string, states map[string]*state, level entity.ConsistencyLevel) (map[string]vectordb.Revision, error) {
	whole := make(map[string]vectordb.Revision, len(docs))
	for len(docs) > 0 {
		var keys []string
		bytes, n := 0, 0
		for n < len(docs) && (n == 0 || bytes < bytesAtOnce) {
			h := states[docs[n]].current()
			keys = append(keys, h.rows()...)
			bytes += h.Bytes + h.Rows*(4*g.about.Dim+200)
			n++
		}
		rows, err := s.readRows(ctx, g, level, keys, fieldVector)
		if err != nil {
			return nil, err
		}
		for _, doc := range docs[:n] {
			st := states[doc]
			r, err := st.revision()
			if err != nil {
				return nil, err
			}
			if st.current().join(&r, rows) {
				whole[doc] = r
			}
		}
		docs = docs[n:]
	}
	return whole, nil
}

// join puts a revision's rows together, and tells whether they were all there.
func (h *head) join(r *vectordb.Revision, rows map[string]storedRow) bool {
	text := make([]byte, h.Bytes)
	for i := range h.Rows {
		row, ok := rows[h.row(i)]
		if !ok || row.at > len(text) {
			return false
		}
		copy(text[row.at:], row.text)
		if row.entry != nil {
			e := *row.entry
			e.Vector = row.vector
			r.Entries = append(r.Entries, e)
		}
	}
	r.Text = string(text)
	return len(r.Entries) == h.Chunks
}

// Current implements vectordb.Reader.
func (s *Store) Current(ctx context.Context, name string, keys []string) ([]vectordb.Revision, error) {
	g, err := s.generation(ctx, name)
	if err != nil {
		return nil, err
	}
	byDoc := make(map[string]vectordb.Revision, len(keys))
	for _, key := range keys {
		byDoc[document(key)] = vectordb.Revision{Key: key}
	}
	open := make([]string, 0, len(byDoc))
	for doc := range byDoc {
		open = append(open, doc)
	}
	slices.Sort(open)
	for round := 0; len(open) > 0; round++ {
		level := entity.ClBounded
		if round > rounds/2 {
			level = entity.ClStrong
		}
		states, err := s.heads(ctx, g, open, level, true)
		if err != nil {
			return nil, err
		}
		g.learn(open, states)
		var live []string
		for _, doc := range open {
			switch h := states[doc].current(); {
			case h == nil:
			case h.live():
				live = append(live, doc)
			default:
				if byDoc[doc], err = states[doc].revision(); err != nil {
					return nil, err
				}
			}
		}
		whole, err := s.assemble(ctx, g, live, states, level)
		if err != nil {
			return nil, err
		}
		open = live[:0]
		for _, doc := range live {
			if r, ok := whole[doc]; ok {
				byDoc[doc] = r
			} else {
				open = append(open, doc)
			}
		}
		if round > rounds && len(open) > 0 {
			return nil, fmt.Errorf("read generation %s: document %q changes faster than it can be read; try again", name, cut(byDoc[open[0]].Key))
		}
	}
	list := make([]vectordb.Revision, len(keys))
	for i, key := range keys {
		list[i] = byDoc[document(key)]
	}
	return list, nil
}

// iterate calls page with all rows that an expression selects, some thousand at a time, in the order of their keys.
func (s *Store) iterate(ctx context.Context, g *generation, expr string, fields []string, page func(client.ResultSet) error) error {
	it, err := reading(ctx, s, g, "read", func(ctx context.Context) (*client.QueryIterator, error) {
		return s.client.QueryIterator(ctx, client.NewQueryIteratorOption(g.collection).WithExpr(expr).WithOutputFields(fields...).WithBatchSize(pageRows))
	})
	if err != nil {
		return err
	}
	for {
		columns, err := call(ctx, s, g, "read", s.config.Timeouts.Read, func(ctx context.Context) (client.ResultSet, error) {
			columns, err := it.Next(ctx)
			if errors.Is(err, io.EOF) {
				return nil, nil
			}
			return columns, err
		})
		if err != nil {
			return err
		}
		// It can't be asked for the same page again, and that it has no more may be as wrong as what it has.
		if g.unsettled(s.config.Timeouts.Settle) > 0 {
			return fmt.Errorf("read generation %s: the server has just loaded the collection, and may not have shown all of it; try again", g.about.Name)
		}
		if columns == nil {
			return nil
		}
		if err := page(columns); err != nil {
			return err
		}
	}
}

// keyWindow is the smallest keys above some key, in order: Milvus can't sort, so all keys above are read to find them.
type keyWindow struct {
	keys []string
	next string // what a scan that goes on says it has read up to
	at   time.Time
	more bool // there are keys beyond the window
}

// windowFor is how long a scan may pause between two pages before the keys are read again.
const windowFor = time.Minute

// Scan implements vectordb.Reader. The server can't order by anything, so the first page reads all keys above after and keeps the smallest 65,536; the following
// pages are served from those. A scan of n documents so reads n²/131,072 keys beside the documents, some 0.1 s for 20,000.
func (s *Store) Scan(ctx context.Context, name, after string, limit int) ([]vectordb.Revision, error) {
	g, err := s.generation(ctx, name)
	if err != nil {
		return nil, err
	}
	if limit < 1 {
		return nil, invalidf("scan of generation %s: limit %d", name, limit)
	}
	g.mu.Lock()
	w := g.window
	g.window = keyWindow{}
	g.mu.Unlock()
	if after == "" || w.next != after || time.Since(w.at) > windowFor || len(w.keys) == 0 && w.more {
		if w, err = s.keysAfter(ctx, g, after); err != nil {
			return nil, err
		}
	}
	page := w.keys[:min(limit, len(w.keys))]
	w.keys = w.keys[len(page):]
	if len(page) == 0 {
		return nil, nil
	}
	w.next = page[len(page)-1]
	list, err := s.Current(ctx, name, page)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	g.window = w
	g.mu.Unlock()
	return list, nil
}

func (s *Store) keysAfter(ctx context.Context, g *generation, after string) (keyWindow, error) {
	w := keyWindow{at: time.Now()}
	var largest keyHeap
	have := map[string]bool{}
	err := s.iterate(ctx, g, fieldKey+` > "`+hex.EncodeToString([]byte(after))+`"`, []string{fieldRow, fieldKey}, func(columns client.ResultSet) error {
		for _, key := range stringsOf(columns, fieldKey) {
			if have[key] || w.more && key > largest[0] {
				continue
			}
			have[key] = true
			heap.Push(&largest, key)
			if len(largest) > keysInWindow {
				delete(have, heap.Pop(&largest).(string))
				w.more = true
			}
		}
		return nil
	})
	if err != nil {
		return w, err
	}
	slices.Sort(largest)
	for _, digits := range largest {
		key, err := hex.DecodeString(digits)
		if err != nil {
			return w, fmt.Errorf("scan of generation %s: the key %q of a row: %w", g.about.Name, cut(digits), vectordb.ErrCorrupt)
		}
		w.keys = append(w.keys, string(key))
	}
	return w, nil
}

// keyHeap has the largest on top.
type keyHeap []string

func (h keyHeap) Len() int           { return len(h) }
func (h keyHeap) Less(i, j int) bool { return h[i] > h[j] }
func (h keyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *keyHeap) Push(x any)        { *h = append(*h, x.(string)) }
func (h *keyHeap) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

// cachedStats is what Stats found last.
type cachedStats struct {
	vectordb.Stats
	until time.Time
}

// Stats implements vectordb.Reader. It reads the heads of all documents, 0.2 s for 20,000, so an answer is kept for a while: see
// Config.StatsFor. Bytes is an estimate of what the rows take before the server compresses them.
func (s *Store) Stats(ctx context.Context, name string) (vectordb.Stats, error) {
	g, err := s.generation(ctx, name)
	if err != nil {
		return vectordb.Stats{}, err
	}
	g.mu.Lock()
	c := g.stats
	g.mu.Unlock()
	if time.Now().Before(c.until) {
		return c.Stats, nil
	}
	started := time.Now()
	var sum vectordb.Stats
	var last *state
	count := func() {
		if last == nil {
			return
		}
		h := last.current()
		sum.Reclaimable += len(last.superseded())
		sum.Bytes += int64(h.Bytes) + int64(h.Rows)*int64(4*g.about.Dim+400)
		if h.live() {
			sum.Documents++
			sum.Chunks += h.Chunks
			sum.Tokens += h.Tokens
		} else {
			sum.Reclaimable += h.Rows
		}
	}
	// Rows come in the order of their keys, so a document's heads stand together.
	err = s.iterate(ctx, g, fieldDocument+" > 0", []string{fieldRow, fieldKey, fieldHead}, func(columns client.ResultSet) error {
		heads, err := readHeads(columns)
		if err != nil {
			return fmt.Errorf("count generation %s: %w", name, err)
		}
		for _, h := range heads {
			if last == nil || last.heads[0].doc != h.doc {
				count()
				last = &state{}
			}
			last.heads = append(last.heads, h)
		}
		return nil
	})
	if err != nil {
		return vectordb.Stats{}, err
	}
	count()
	g.mu.Lock()
	g.stats = cachedStats{sum, s.until(started)}
	g.mu.Unlock()
	return sum, nil
}

// until tells how long something that took since then to count is good for.
func (s *Store) until(started time.Time) time.Time {
	keep := s.config.StatsFor
	if keep <= 0 {
		keep = min(max(20*time.Since(started), time.Second), time.Minute)
	}
	return time.Now().Add(keep)
}

// countRows counts what an expression selects.
func (s *Store) countRows(ctx context.Context, g *generation, expr string) (int, error) {
	columns, err := s.query(ctx, g, entity.ClBounded, expr, "count(*)")
	if err != nil {
		return 0, err
	}
	c, ok := columns.GetColumn("count(*)").(*entity.ColumnInt64)
	if !ok || c.Len() != 1 {
		return 0, fmt.Errorf("count rows of generation %s: the server answered %s columns", g.about.Name, strconv.Itoa(len(columns)))
	}
	return int(c.Data()[0]), nil
}
