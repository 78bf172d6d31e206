package flat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// sealLoop writes frozen memtables as segments, and freezes one that nobody has written to for a while: in a segment it takes no memory of its own,
// and is quick to open again.
func (g *generation) sealLoop() {
	idle := time.NewTicker(g.options.SealIdle)
	defer idle.Stop()
	var last uint64
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.sealWanted:
		case <-idle.C:
			last = g.freezeIdle(last)
		}
		for g.ctx.Err() == nil && g.frozen() > 0 {
			if err := g.seal(g.ctx); err != nil && g.ctx.Err() == nil {
				g.options.Logger.Warn("can't seal", "generation", g.about.Name, "error", err)
				g.pause()
			}
		}
		wake(g.mergeWanted)
	}
}

// freezeIdle begins another memtable if nothing was written since write last and there is enough for a segment to be worth it. It returns the last write.
func (g *generation) freezeIdle(last uint64) uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seq == last && g.ended == nil && g.failed.Load() == nil && len(g.active.entries) >= g.options.SegmentEntries/8 {
		g.frame = nil
		if err := g.rotate(); err != nil {
			g.options.Logger.Warn("can't begin a new log", "generation", g.about.Name, "error", err)
		}
	}
	return g.seq
}

// pause waits after a failure, of a full disk for instance.
func (g *generation) pause() {
	timer := time.NewTimer(g.options.retryAfter)
	defer timer.Stop()
	select {
	case <-g.ctx.Done():
	case <-timer.C:
	}
}

func (g *generation) frozen() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.set.tables)
}

// seal writes the oldest frozen memtable, if there is one, as a segment.
func (g *generation) seal(ctx context.Context) error {
	g.sealMu.Lock()
	defer g.sealMu.Unlock()
	g.mu.Lock()
	if len(g.set.tables) == 0 {
		g.mu.Unlock()
		return nil
	}
	table, view := g.set.tables[0], g.set.frozen[0]
	number := g.next
	g.next += 2
	g.mu.Unlock()

	// Rows that died in this memtable are not needed again. Those that a later write replaced are: its log may refer to them.
	keep := func(p part, i uint32, r *row) bool {
		died := p.died(i).Load()
		return died == 0 || died > table.end.seq
	}
	s, moved, err := g.write(ctx, number, []part{view}, keep)
	g.mu.Lock()
	if g.sealing = err; err != nil {
		// Writers that wait for room must hear of it.
		close(g.roomMade)
		g.roomMade = make(chan struct{})
		g.mu.Unlock()
		return err
	}
	segments := g.set.segments
	if s != nil {
		transferDeaths(s, []part{view}, moved)
		segments = append(slices.Clone(segments), s)
	}
	g.durable = table.end
	g.counts, g.countsNumber = table.counts, number+1
	g.replaceSet(newPartSet(segments, slices.Clone(g.set.frozen[1:]), slices.Clone(g.set.tables[1:]))) // copies, or the array would keep the memtable
	if s != nil {
		s.release() // the set has it now
	}
	g.outdated.logs = append(g.outdated.logs, table.log)
	close(g.roomMade)
	g.roomMade = make(chan struct{})
	g.mu.Unlock()
	return g.saveManifest()
}

// write makes a segment of the rows that keep wants; nil if there are none.
func (g *generation) write(ctx context.Context, number uint64, parts []part, keep func(p part, i uint32, r *row) bool) (*segment, []renumbering, error) {
	moved, err := writeSegment(untilDone{g.fs, ctx}, g.dir, number, g.about.Dim, parts, keep)
	if err != nil {
		return nil, nil, err
	}
	if !slices.ContainsFunc(moved, func(m renumbering) bool {
		return slices.ContainsFunc(m.rows, func(to uint32) bool { return to != gone })
	}) {
		_ = g.fs.Remove(filepath.Join(g.dir, segmentName(number)))
		return nil, moved, nil
	}
	s, err := openSegment(g.dir, number, g.about.Dim)
	if err != nil {
		_ = g.fs.Remove(filepath.Join(g.dir, segmentName(number)))
		return nil, nil, err
	}
	return s, moved, nil
}

// untilDone is a fileSystem whose files can't be written once ctx has ended.
type untilDone struct {
	fileSystem
	ctx context.Context
}

func (u untilDone) Open(name string, flag int) (file, error) {
	f, err := u.fileSystem.Open(name, flag)
	if err != nil {
		return nil, err
	}
	return untilDoneFile{f, u.ctx}, nil
}

type untilDoneFile struct {
	file
	ctx context.Context
}

func (f untilDoneFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	return f.file.WriteAt(b, at)
}

// transferDeaths gives the rows of a new segment the deaths that happened while it was written. mu is held, so none happens now.
func transferDeaths(s *segment, from []part, moved []renumbering) {
	for p, part := range from {
		for i, to := range moved[p].rows {
			if to != gone {
				s.dead[to].Store(part.died(uint32(i)).Load())
			}
		}
	}
}

// saveManifest makes the present list of segments the one that the next opening finds, and then removes what it replaces.
func (g *generation) saveManifest() error {
	g.manifestMu.Lock()
	defer g.manifestMu.Unlock()

	g.mu.Lock()
	v := g.look()
	v.set.retain()
	m := &manifest{
		Generation: g.about, Sequence: g.durable.seq, Checkpoint: g.durable.offsets, Next: g.next,
		Documents: g.durable.documents, Chunks: g.durable.chunks, Tokens: g.durable.tokens,
		Log: g.active.log.number, Counts: g.countsNumber,
	}
	if len(g.set.tables) > 0 {
		m.Log = g.set.tables[0].log.number
	}
	counts := g.counts
	done := g.outdated
	g.outdated = outdated{}
	g.mu.Unlock()
	defer v.set.release()

	again := func(err error) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.outdated.logs = append(done.logs, g.outdated.logs...)
		g.outdated.segments = append(done.segments, g.outdated.segments...)
		return err
	}
	if g.countsSaved != m.Counts {
		if err := writeFile(g.fs, g.dir, countsName(m.Counts), countsFile(counts)); err != nil {
			return again(fmt.Errorf("write counts: %w", err))
		}
	}
	for _, s := range v.set.segments {
		m.Segments = append(m.Segments, manifestSegment{s.number, deadRows(s, m.Sequence)})
	}
	if err := writeManifest(g.fs, g.dir, m); err != nil {
		return again(err)
	}
	if g.countsSaved != m.Counts {
		if g.countsSaved != 0 {
			_ = g.fs.Remove(filepath.Join(g.dir, countsName(g.countsSaved)))
		}
		g.countsSaved = m.Counts
	}
	var err error
	for _, w := range done.logs {
		err = errors.Join(err, w.close(), g.fs.Remove(w.path))
	}
	for _, s := range done.segments {
		s.obsolete.Store(true)
		s.release()
	}
	if err != nil {
		g.options.Logger.Warn("can't remove old logs", "generation", g.about.Name, "error", err)
	}
	return nil
}

// deadRows is a bitmap of the rows that a write up to seq replaced; nil if there are none. Those are known for good.
func deadRows(s *segment, seq uint64) []byte {
	var dead []byte
	for i := range s.dead {
		if died := s.dead[i].Load(); died != 0 && died <= seq {
			if dead == nil {
				dead = make([]byte, (len(s.dead)+7)/8)
			}
			dead[i/8] |= 1 << (i % 8)
		}
	}
	return dead
}

// mergeLoop reclaims and merges segments.
func (g *generation) mergeLoop() {
	timer := time.NewTicker(reclaimEvery)
	defer timer.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.mergeWanted:
		case <-timer.C:
		}
		for g.ctx.Err() == nil && g.failed.Load() == nil {
			did, err := g.merge(g.ctx, g.pick)
			if err != nil && g.ctx.Err() == nil {
				g.options.Logger.Warn("can't merge", "generation", g.about.Name, "error", err)
				g.pause()
			}
			if !did && err == nil {
				break
			}
		}
	}
}

// reclaimEvery is how often a generation that nobody writes to looks for tombstones that are old enough to go.
const reclaimEvery = 10 * time.Minute

const (
	// mergeWidth is how many segments of about one size are merged.
	mergeWidth = 4
	// maxDeadShare is how much of a segment may be dead before it is written anew.
	maxDeadShare = 0.3
	// maxMergedEntries bounds one merge's work and a segment's size.
	maxMergedEntries = 1 << 20
)

// candidate is a segment with what a merge would leave of it.
type candidate struct {
	s             *segment
	live, dropped int // entries
	rows, gone    int
}

// weigh counts what a merge of the segment would drop now.
func (g *generation) weigh(s *segment, durable uint64, before int64) candidate {
	c := candidate{s: s, rows: len(s.rows)}
	for i := range s.rows {
		if g.superfluous(s, uint32(i), durable, before) {
			c.gone++
			c.dropped += int(s.rows[i].n)
		} else {
			c.live += int(s.rows[i].n)
		}
	}
	return c
}

// superfluous tells whether nobody will need a row again: a write that is in a segment replaced it (a log may refer to rows that its own writes replaced),
// or it is a tombstone older than before. A tombstone that says who may read the document stays: the document may come back.
func (g *generation) superfluous(s *segment, i uint32, durable uint64, before int64) bool {
	if died := s.dead[i].Load(); died != 0 {
		return died <= durable
	}
	r := &s.rows[i]
	if r.version > 0 && r.flags&rowDeleted == 0 || r.searchable >= before {
		return false
	}
	if r.accessLen == 0 {
		return true
	}
	row := s.row(i)
	return decodeAccess(row.access).Clear
}

// pick chooses what to merge: a segment with too much dead in it, or several of about one size.
func (g *generation) pick(list []candidate) []*segment {
	for _, c := range list {
		if c.gone > 0 && (c.live == 0 || float64(c.dropped) > maxDeadShare*float64(c.live+c.dropped) || float64(c.gone) > maxDeadShare*float64(c.rows)) {
			return []*segment{c.s}
		}
		if c.s.stale {
			return []*segment{c.s}
		}
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Compare(a.live, b.live) })
	for from := 0; from+mergeWidth <= len(list); from++ {
		run := list[from : from+mergeWidth]
		total := 0
		for _, c := range run {
			total += c.live
		}
		// Anything up to a memtable's size counts as one size.
		least := max(run[0].live, g.options.SegmentEntries)
		if run[mergeWidth-1].live <= 3*least && total <= maxMergedEntries {
			var segments []*segment
			for _, c := range run {
				segments = append(segments, c.s)
			}
			return segments
		}
	}
	return nil
}

// Reclaim implements vectordb.Reclaimer: what is still in a log goes into a segment without what has died, and each segment that has something dead of the
// documents is written anew.
func (s *Store) Reclaim(ctx context.Context, name string, keys ...string) error {
	g, err := s.generation(ctx, name)
	if err != nil {
		return err
	}
	if err := g.reclaim(ctx, keys); err != nil {
		return fmt.Errorf("generation %s: reclaim: %w", name, err)
	}
	return nil
}

func (g *generation) reclaim(ctx context.Context, keys []string) error {
	g.mu.Lock()
	err := g.ended
	if failed := g.failed.Load(); err == nil && failed != nil {
		err = *failed
	}
	written := g.seq
	if err == nil && len(g.active.rows) > 0 {
		g.frame = nil
		err = g.rotate()
	}
	g.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		g.mu.Lock()
		sealed := g.durable.seq >= written || len(g.set.tables) == 0
		g.mu.Unlock()
		if sealed {
			break
		}
		if err := g.seal(ctx); err != nil {
			return err
		}
	}
	for did := true; did; {
		did, err = g.merge(ctx, func(list []candidate) []*segment {
			for _, c := range list {
				if c.gone > 0 && c.holds(keys) {
					return []*segment{c.s}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return g.saveManifest()
}

// holds tells whether the segment has something of one of the documents that a later write replaced.
func (c *candidate) holds(keys []string) (found bool) {
	for _, key := range keys {
		c.s.find(key, hashKey(key), func(i uint32) { found = found || c.s.dead[i].Load() != 0 })
	}
	return found
}

// merge does one piece of work, if pick finds any.
func (g *generation) merge(ctx context.Context, pick func([]candidate) []*segment) (did bool, err error) {
	g.mergeMu.Lock()
	defer g.mergeMu.Unlock()
	before := g.age.now() - g.options.TombstoneRetention.Microseconds()
	g.mu.Lock()
	set, durable := g.set, g.durable.seq
	set.retain()
	g.mu.Unlock()
	defer set.release()

	list := make([]candidate, len(set.segments))
	for i, s := range set.segments {
		list[i] = g.weigh(s, durable, before)
	}
	chosen := pick(list)
	if chosen == nil {
		return false, nil
	}
	// Damage must not get a new checksum by being copied.
	for _, s := range chosen {
		if err := s.verify(); err != nil {
			g.fail(err)
			return false, err
		}
	}
	g.mu.Lock()
	number := g.next
	g.next++
	g.mu.Unlock()
	parts := make([]part, len(chosen))
	for i, s := range chosen {
		parts[i] = s
	}
	merged, moved, err := g.write(ctx, number, parts, func(p part, i uint32, r *row) bool {
		return !g.superfluous(p.(*segment), i, durable, before)
	})
	if err != nil {
		return false, err
	}

	g.mu.Lock()
	var segments []*segment
	placed := merged == nil
	for _, s := range g.set.segments {
		if !slices.Contains(chosen, s) {
			segments = append(segments, s)
			continue
		}
		if !placed {
			placed = true
			transferDeaths(merged, parts, moved)
			segments = append(segments, merged)
		}
		s.refs.Add(1) // until the manifest does not name it any more
		g.outdated.segments = append(g.outdated.segments, s)
	}
	for p := range parts {
		for i, to := range moved[p].rows {
			if to == gone && chosen[p].dead[i].Load() == 0 {
				g.tombstones--
			}
		}
	}
	g.replaceSet(newPartSet(segments, g.set.frozen, g.set.tables))
	if merged != nil {
		merged.release() // the set has it now
	}
	g.mu.Unlock()
	return true, g.saveManifest()
}
