package milvus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"github.com/liverag/liverag/vectordb"
)

const (
	// headsAtOnce is how many documents one look-up of heads asks for.
	headsAtOnce = 1000
	// rowsAtOnce is how many rows one request names by their keys.
	rowsAtOnce = 4000
)

// change is what a write says of a document.
type change struct {
	key     string
	content *vectordb.Revision // nil: nothing
	access  vectordb.Access
	rewrite bool // write the content although this very version is there
}

// renews tells whether the change has content to be written over a version.
func (c *change) renews(version int64) bool {
	return c.content != nil && (c.content.Version > version || c.rewrite && c.content.Version == version)
}

// merge leaves the newest content and the newest access of each document, in the order in which the documents come first.
func merge(revisions []vectordb.Revision) []*change {
	var list []*change
	byKey := map[string]*change{}
	for i := range revisions {
		r := &revisions[i]
		if r.Version == 0 && r.Access.Version == 0 {
			continue
		}
		c := byKey[r.Key]
		if c == nil {
			c = &change{key: r.Key}
			byKey[r.Key] = c
			list = append(list, c)
		}
		if r.Version > 0 && (c.content == nil || r.Version > c.content.Version) {
			c.content = r
		}
		if r.Access.Version > c.access.Version {
			c.access = r.Access
		}
	}
	return list
}

// Apply implements vectordb.Writer. It returns when the server has acknowledged everything: the write survives then, and Visible tells when searches find it.
//
// Several processes may write one generation. Rows are never changed in place, so of writers that cross the newest version wins, whatever each of them had read;
// where content and access crossed, Visible puts them together.
func (s *Store) Apply(ctx context.Context, name string, w vectordb.Write) error {
	g, err := s.generation(ctx, name)
	if err != nil {
		return err
	}
	for i := range w.Revisions {
		if err := w.Revisions[i].Check(g.about.Dim); err != nil {
			return fmt.Errorf("apply to generation %s: %w", name, err)
		}
	}
	changes := merge(w.Revisions)
	if len(changes) == 0 {
		return nil
	}
	for _, c := range changes {
		c.rewrite = w.Rewrite
	}
	g.writing.Lock()
	defer g.writing.Unlock()
	docs := make([]string, len(changes))
	for i, c := range changes {
		docs[i] = document(c.key)
	}
	states := map[string]*state{}
	read, err := s.heads(ctx, g, g.take(docs, states), entity.ClBounded, true)
	if err != nil {
		return err
	}
	maps.Copy(states, read)
	g.recall(docs, states)
	return s.write(ctx, g, changes, docs, states)
}

// write writes what the changes add to the states, and takes away what is superseded by it. The caller holds g.writing.
func (s *Store) write(ctx context.Context, g *generation, changes []*change, docs []string, states map[string]*state) error {
	var targets []stamp
	var accesses []vectordb.Access
	var whole map[string]vectordb.Revision
	level := entity.ClBounded
	for round := 0; ; round++ {
		// What each document is to become; where only the access is new, its content is read to be written again under it.
		var again []string
		targets, accesses, again = aim(changes, docs, states)
		var err error
		if whole, err = s.assemble(ctx, g, again, states, level); err != nil {
			return err
		}
		again = slices.DeleteFunc(again, func(doc string) bool { _, ok := whole[doc]; return ok })
		if len(again) == 0 {
			break
		}
		if round == rounds {
			return fmt.Errorf("apply to generation %s: the access of %q can't be set while others replace it; try again", g.about.Name, cut(states[again[0]].current().key))
		}
		// Written too short a while ago to be seen, or superseded by another writer.
		level = entity.ClStrong
		newest, err := s.heads(ctx, g, again, level, true)
		if err != nil {
			return err
		}
		for _, doc := range again {
			states[doc] = newest[doc]
		}
		g.recall(again, states)
	}

	now := time.Now()
	var batch request
	var heads []head
	var old []string
	flush := func() error {
		for _, rows := range batch.cut(s.config.RequestBytes) {
			if err := s.upsert(ctx, g, rows); err != nil {
				return err
			}
		}
		g.remember(heads, now)
		batch, heads = request{}, nil
		return nil
	}
	for i, c := range changes {
		st := states[docs[i]]
		current := st.current()
		if targets[i] == (stamp{}) || current != nil && current.stamp == targets[i] && !c.renews(current.stamp.content) {
			continue
		}
		r, searchable := vectordb.Revision{Key: c.key}, now.UnixMicro()
		switch {
		case c.renews(st.version()):
			if r = *c.content; r.Deleted {
				r = vectordb.Revision{Key: r.Key, Version: r.Version, Deleted: true}
			}
		case current != nil && current.live():
			r, searchable = whole[docs[i]], current.Searchable
		case current != nil:
			r.Version, r.Deleted = current.stamp.content, current.Deleted
		}
		r.Access = accesses[i]
		rows, h, err := g.encode(&r, searchable, now)
		if err != nil {
			return fmt.Errorf("apply to generation %s: %w", g.about.Name, err)
		}
		batch.add(rows)
		heads = append(heads, h)
		if current != nil {
			old = append(old, st.superseded()...)
			gone := current.rows()
			if current.stamp == h.stamp { // its rows have been written over, as far as there are new ones
				gone = gone[:max(0, current.Rows-h.Rows)]
			}
			old = append(old, gone...)
		}
		if batch.bytes >= s.config.RequestBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	g.expire(now)
	if err := s.remove(ctx, g, old); err != nil {
		if errors.Is(err, vectordb.ErrNoGeneration) || ctx.Err() != nil {
			return err
		}
		// They are not shown, and Sweep removes them.
		s.config.Logger.Warn("replaced rows are left behind for now", "generation", g.about.Name, "rows", len(old), "error", err)
	}
	return nil
}

// aim tells which revision each document is to become, with which access, and which documents' contents have to be written again for that.
func aim(changes []*change, docs []string, states map[string]*state) (targets []stamp, accesses []vectordb.Access, again []string) {
	targets, accesses = make([]stamp, len(changes)), make([]vectordb.Access, len(changes))
	for i, c := range changes {
		st := states[docs[i]]
		accesses[i] = st.access()
		if c.access.Version > accesses[i].Version {
			accesses[i] = c.access
		}
		targets[i] = stamp{st.version(), accesses[i].Version}
		if c.renews(targets[i].content) {
			targets[i].content = c.content.Version
		} else if h := st.current(); h != nil && h.live() && h.stamp != targets[i] {
			again = append(again, docs[i])
		}
	}
	return targets, accesses, again
}

// request collects the rows of documents.
type request struct {
	documents [][]row
	bytes     int
}

func (q *request) add(rows []row) {
	q.documents = append(q.documents, rows)
	for i := range rows {
		q.bytes += rows[i].size()
	}
}

// cut makes requests of at most so many bytes. A document that fits one request is never divided, so its rows appear all at once; of one that does
// not the head comes last, in the last of them. In every request heads come after their rows, so that it may be halved.
func (q *request) cut(limit int) [][]row {
	var requests [][]row
	var rows []row
	bytes := 0
	next := func() {
		if len(rows) > 0 {
			requests = append(requests, rows)
		}
		rows, bytes = nil, 0
	}
	for _, d := range q.documents {
		size := 0
		for i := range d {
			size += d[i].size()
		}
		if bytes+size > limit {
			next()
		}
		for _, r := range slices.Backward(d) {
			if bytes+r.size() > limit {
				next()
			}
			rows = append(rows, r)
			bytes += r.size()
		}
	}
	next()
	return requests
}

// upsert sends rows. What the server finds too large is halved, first half first.
func (s *Store) upsert(ctx context.Context, g *generation, rows []row) error {
	_, err := call(ctx, s, g, "apply to", s.config.Timeouts.Write, func(ctx context.Context) (entity.Column, error) {
		return s.client.Upsert(ctx, g.collection, "", g.columns(rows)...)
	})
	if errors.Is(err, errTooLarge) && len(rows) > 1 {
		half := len(rows) / 2
		if err := s.upsert(ctx, g, rows[:half]); err != nil {
			return err
		}
		return s.upsert(ctx, g, rows[half:])
	}
	return err
}

// remove deletes rows by their keys, which costs the server a hundredth of what an expression does.
func (s *Store) remove(ctx context.Context, g *generation, rows []string) error {
	for part := range slices.Chunk(rows, rowsAtOnce) {
		_, err := call(ctx, s, g, "remove replaced rows of", s.config.Timeouts.Write, func(ctx context.Context) (bool, error) {
			return true, s.client.Delete(ctx, g.collection, "", fieldRow+" in "+names(part))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Visible implements vectordb.Delayed: it asks for the newest state there is, which the server answers when it has read its log up to now, and looks at the
// documents that this process has written: what other writers have left superseded is removed, and where another's content and our access crossed, or the
// other way round, they are put together.
//
// A later search of any process finds everything then, since a collection has one shard and is loaded once: its one reader never goes back in time. With several
// replicas a search may meet one that lags by up to the server's graceful time, 5 s by default.
func (s *Store) Visible(ctx context.Context, name string) error {
	g, err := s.generation(ctx, name)
	if err != nil {
		return err
	}
	for range 5 {
		docs, upTo := g.unseen()
		if len(docs) == 0 {
			_, err := s.query(ctx, g, entity.ClStrong, fieldRow+` == ""`, fieldRow)
			return err
		}
		states, err := s.heads(ctx, g, docs, entity.ClStrong, false)
		if err != nil {
			return err
		}
		var changes []*change
		var crossed, old []string
		for _, doc := range docs {
			st := states[doc]
			current := st.current()
			if current == nil {
				continue
			}
			if current.stamp.access < st.access().Version {
				crossed = append(crossed, doc)
				changes = append(changes, &change{key: current.key})
			} else {
				old = append(old, st.superseded()...)
			}
		}
		if err := s.remove(ctx, g, old); err != nil {
			return err
		}
		g.seen(docs, upTo)
		if len(crossed) == 0 {
			return nil
		}
		if err := s.uncross(ctx, g, changes, crossed); err != nil {
			return err
		}
	}
	return fmt.Errorf("wait for what was applied to generation %s: other writers change the same documents again and again; try again", name)
}

// uncross writes contents again whose access is another by now.
func (s *Store) uncross(ctx context.Context, g *generation, changes []*change, docs []string) error {
	g.writing.Lock()
	defer g.writing.Unlock()
	states, err := s.heads(ctx, g, docs, entity.ClBounded, true)
	if err != nil {
		return err
	}
	g.recall(docs, states)
	return s.write(ctx, g, changes, docs, states)
}
