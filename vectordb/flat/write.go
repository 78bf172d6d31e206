package flat

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/liverag/liverag/vectordb"
)

// change is what a write does to one document: the row that takes its place, and the row that goes.
type change struct {
	row row
	rev vectordb.Revision
	// entries and, for each, its vector and terms.
	entries []entryRecord
	vectors [][]float32
	terms   [][]string
	// reused holds, for each entry, 1 + the place of an equal vector among the old row's entries, or 0.
	reused []uint32
	// carried: the content is the old row's; only the access is new.
	carried bool
	old     located
}

// located is where a row is; part is nil if there is none.
type located struct {
	part part
	i    uint32
	row  row
}

// prepared is a revision with what can be made of it without looking at the store.
type prepared struct {
	rev        vectordb.Revision
	meta, text []byte
	terms      [][]string
}

// fold leaves one revision of each document: the newest content with the newest access.
func fold(revs []vectordb.Revision) []prepared {
	out := make([]prepared, 0, len(revs))
	places := make(map[string]int, len(revs))
	for i := range revs {
		r := &revs[i]
		at, ok := places[r.Key]
		if !ok {
			places[r.Key] = len(out)
			out = append(out, prepared{rev: *r})
			continue
		}
		if have := &out[at].rev; r.Version > have.Version {
			access := have.Access
			*have = *r
			if access.Version >= have.Access.Version {
				have.Access = access
			}
		} else if r.Access.Version > have.Access.Version {
			have.Access = r.Access
		}
	}
	return out
}

func (p *prepared) prepare() (err error) {
	r := &p.rev
	if r.Version == 0 || r.Deleted {
		return nil
	}
	if uint64(len(r.Text)) > math.MaxUint32 {
		return fmt.Errorf("%w: a text of %d bytes", vectordb.ErrInvalid, len(r.Text))
	}
	if p.meta, err = appendMeta(nil, r); err != nil {
		return err
	}
	p.text = packText(nil, r.Text)
	p.terms = make([][]string, len(r.Entries))
	var all []string
	for i := range r.Entries {
		e := &r.Entries[i]
		all = slices.Grow(all, (e.End-e.Start)/8)
		at := len(all)
		all = vectordb.AppendTerms(all, r.Text[e.Start:e.End])
		p.terms[i] = all[at:len(all):len(all)]
	}
	return nil
}

// Apply implements vectordb.Writer. The write is visible when it returns, and survives the end of the process; a loss of power may take the last
// Options.SyncEvery of writes, each with its checkpoint.
func (s *Store) Apply(ctx context.Context, name string, w vectordb.Write) error {
	g, err := s.generation(ctx, name)
	if err != nil {
		return err
	}
	for i := range w.Revisions {
		if err := w.Revisions[i].Check(g.about.Dim); err != nil {
			return err
		}
	}
	changes := fold(w.Revisions)
	v, err := g.pin()
	if err != nil {
		return err
	}
	err = prepareAll(v, changes)
	v.set.release()
	if err != nil {
		return err
	}
	return g.apply(ctx, changes, w.Checkpoint, w.Rewrite)
}

// prepareAll prepares what will probably be taken, on every processor: analysing and compressing texts is most of the work of a write.
func prepareAll(v *view, writes []prepared) error {
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for some := range slices.Chunk(writes, 8) {
		one := func() error {
			for i := range some {
				p := &some[i]
				if old := v.locate(p.rev.Key); old.part == nil || p.rev.Version > old.row.version {
					if err := p.prepare(); err != nil {
						return err
					}
				}
			}
			return nil
		}
		if len(some) == len(writes) {
			return one()
		}
		group.Go(one)
	}
	return group.Wait()
}

func (g *generation) apply(ctx context.Context, writes []prepared, check map[int32]int64, rewrite bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.waitForRoom(ctx); err != nil {
		return err
	}
	v := g.view.Load()
	now, aged := g.options.wall().UnixMicro(), g.age.now()
	changes := make([]change, 0, len(writes))
	for i := range writes {
		c, ok, err := resolve(v, &writes[i], now, aged, rewrite)
		if err != nil {
			return err
		}
		if ok {
			changes = append(changes, c)
		}
	}
	if len(changes) == 0 && !advances(g.checkpoint, check) {
		return nil
	}
	frame := appendWrite(beginFrame(g.frame), changes, check)
	g.frame = frame
	if cap(frame) > 4<<20 {
		g.frame = nil
	}
	if uint64(len(frame)) > math.MaxUint32 {
		return fmt.Errorf("%w: a write of %d bytes; write fewer documents at once", vectordb.ErrInvalid, len(frame))
	}
	g.active.log.finishFrame(frame, g.seq+1)
	if err := g.active.log.append(frame); err != nil {
		return fmt.Errorf("generation %s: %w", g.about.Name, err)
	}
	if err := g.take(changes, check); err != nil {
		return err
	}
	g.publish()
	g.wrote()
	return nil
}

// advances tells whether a checkpoint says anything new.
func advances(have, check map[int32]int64) bool {
	for p, offset := range check {
		if old, ok := have[p]; !ok || old != offset {
			return true
		}
	}
	return false
}

// resolve decides what a revision changes. ok is false if that is nothing. What has no content is as of aged, the time by which it will be forgotten.
func resolve(v *view, p *prepared, now, aged int64, rewrite bool) (c change, ok bool, err error) {
	r := &p.rev
	c.old = v.locate(r.Key)
	old := &c.old.row
	newContent := r.Version > old.version || rewrite && r.Version > 0 && r.Version == old.version
	access := decodeAccess(old.access)
	newAccess := r.Access.Version > access.Version
	if !newContent && !newAccess {
		return c, false, nil
	}
	c.row.access = old.access
	if newAccess {
		access = r.Access
		c.row.access = appendAccess(nil, access)
	}
	c.row.key = r.Key
	c.row.searchable = aged
	if !newContent {
		c.row.version = old.version
		err := c.carry()
		return c, err == nil, err
	}
	c.row.version, c.row.deleted = r.Version, r.Deleted
	c.row.access = slices.Clone(c.row.access)
	if r.Deleted {
		c.rev = vectordb.Revision{Key: r.Key, Version: r.Version, Deleted: true, Access: access}
		return c, true, nil
	}
	c.row.searchable = now
	if p.meta == nil {
		if err := p.prepare(); err != nil {
			return c, false, err
		}
	}
	c.row.meta, c.row.text, c.row.size = p.meta, p.text, uint32(len(r.Text))
	c.terms = p.terms
	c.entries = make([]entryRecord, len(r.Entries))
	c.vectors = make([][]float32, len(r.Entries))
	c.reused = make([]uint32, len(r.Entries))
	var places map[vectordb.Hash]uint32
	if old.n > 0 {
		places = make(map[vectordb.Hash]uint32, old.n)
		for j := range old.n {
			places[c.old.part.entry(old.first+j).hash] = j
		}
	}
	for i := range r.Entries {
		e := &r.Entries[i]
		c.entries[i] = entryRecord{start: uint32(e.Start), end: uint32(e.End), tokens: uint32(e.Tokens), hash: e.Hash}
		c.vectors[i] = e.Vector
		// Equal hashes should mean equal vectors, but the log must give back what was written, bit for bit.
		if j, ok := places[e.Hash]; ok && slices.Equal(c.old.part.vector(old.first+j), e.Vector) {
			c.reused[i] = j + 1
		}
	}
	return c, true, c.decode()
}

// carry fills a change of access alone with the old row's content.
func (c *change) carry() error {
	old := &c.old.row
	c.carried = true
	c.row.deleted = old.deleted
	c.row.size = old.size
	c.row.meta, c.row.text = slices.Clone(old.meta), slices.Clone(old.text)
	if old.version > 0 && !old.deleted {
		c.row.searchable = old.searchable
	}
	for j := range old.n {
		c.entries = append(c.entries, c.old.part.entry(old.first+j))
		c.vectors = append(c.vectors, c.old.part.vector(old.first+j))
	}
	if c.old.part != nil {
		var err error
		if c.terms, err = rowTerms(c.old.part, old); err != nil {
			return err
		}
	}
	return c.decode()
}

// decode sets what filters look at. It is made from the bytes, so that it shares nothing with the caller's.
func (c *change) decode() (err error) {
	c.rev, err = c.row.revision()
	return err
}

// Kinds of change in a log.
const (
	logContent = iota + 1
	logTombstone
	logAccess
)

// appendWrite writes a frame's payload: the number of changes, the changes, the number of partitions, and each with its offset.
//
//	change   kind u8, key, searchable varint, access blob, and
//	content  version varint, fields blob, text's length uvarint, packed text blob, number of entries, for each: start, length, tokens uvarint, hash [16],
//	         1 + the place of an equal vector in the row before, or 0 and the vector float32[dimension]
//	deletion version varint
//	access   nothing
func appendWrite(b []byte, changes []change, check map[int32]int64) []byte {
	b = slices.Grow(b, writeSize(changes)) // to let a large document's bytes move once, since other writes wait for this one
	b = binary.AppendUvarint(b, uint64(len(changes)))
	for i := range changes {
		c := &changes[i]
		kind := byte(logContent)
		switch {
		case c.carried:
			kind = logAccess
		case c.row.deleted:
			kind = logTombstone
		}
		b = appendString(append(b, kind), c.row.key)
		b = binary.AppendVarint(b, c.row.searchable)
		b = append(binary.AppendUvarint(b, uint64(len(c.row.access))), c.row.access...)
		if kind == logAccess {
			continue
		}
		b = binary.AppendVarint(b, c.row.version)
		if kind == logTombstone {
			continue
		}
		b = append(binary.AppendUvarint(b, uint64(len(c.row.meta))), c.row.meta...)
		b = binary.AppendUvarint(b, uint64(c.row.size))
		b = append(binary.AppendUvarint(b, uint64(len(c.row.text))), c.row.text...)
		b = binary.AppendUvarint(b, uint64(len(c.entries)))
		for j := range c.entries {
			e := &c.entries[j]
			b = binary.AppendUvarint(b, uint64(e.start))
			b = binary.AppendUvarint(b, uint64(e.end-e.start))
			b = binary.AppendUvarint(b, uint64(e.tokens))
			b = append(b, e.hash[:]...)
			b = binary.AppendUvarint(b, uint64(c.reused[j]))
			if c.reused[j] == 0 {
				b = append(b, raw(c.vectors[j])...)
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(check)))
	for _, p := range slices.Sorted(maps.Keys(check)) {
		b = binary.AppendVarint(b, int64(p))
		b = binary.AppendVarint(b, check[p])
	}
	return b
}

// writeSize is about how many bytes appendWrite appends.
func writeSize(changes []change) (n int) {
	const numbers = 64 // of a change, or of an entry
	for i := range changes {
		c := &changes[i]
		n += numbers + len(c.row.key) + len(c.row.access)
		if c.carried || c.row.deleted {
			continue
		}
		n += len(c.row.meta) + len(c.row.text) + numbers*len(c.entries)
		for j := range c.entries {
			if c.reused[j] == 0 {
				n += 4 * len(c.vectors[j])
			}
		}
	}
	return n
}

// replay applies a frame of the log to the generation that is being opened.
func (g *generation) replay(seq uint64, payload []byte) error {
	if seq != g.seq+1 {
		return fmt.Errorf("%w: write %d follows write %d; drop this generation and replay the log into a new one", vectordb.ErrCorrupt, seq, g.seq)
	}
	v := g.look()
	d := decoder{b: payload}
	changes := make([]change, d.length(3))
	for i := range changes {
		if err := g.decodeChange(&d, v, &changes[i]); err != nil {
			return err
		}
	}
	check := map[int32]int64{}
	for range d.length(2) {
		p := int32(d.varint())
		check[p] = d.varint()
	}
	if d.bad || len(d.b) > 0 {
		return fmt.Errorf("%w: write %d makes no sense; drop this generation and replay the log into a new one", vectordb.ErrCorrupt, seq)
	}
	return g.take(changes, check)
}

func (g *generation) decodeChange(d *decoder, v *view, c *change) error {
	kind := d.byte()
	c.row.key = d.string()
	c.row.searchable = d.varint()
	c.row.access = slices.Clone(d.blob())
	c.old = v.locate(c.row.key)
	old := &c.old.row
	switch kind {
	case logAccess:
		c.row.version = old.version
		return c.carry()
	case logTombstone:
		c.row.version, c.row.deleted = d.varint(), true
		return c.decode()
	case logContent:
	default:
		d.fail()
		return nil
	}
	c.row.version = d.varint()
	c.row.meta = slices.Clone(d.blob())
	c.row.size = uint32(d.length1(math.MaxUint32))
	c.row.text = slices.Clone(d.blob())
	n := d.length(20)
	if d.bad {
		return nil
	}
	text, err := unpackText(c.row.text, int(c.row.size), 0, int(c.row.size))
	if err != nil {
		return err
	}
	for range n {
		e := entryRecord{start: uint32(d.uvarint())}
		e.end = e.start + uint32(d.uvarint())
		e.tokens = uint32(d.uvarint())
		copy(e.hash[:], d.bytes(len(e.hash)))
		from := d.uvarint()
		var vector []float32
		switch {
		case from == 0:
			vector = make([]float32, g.about.Dim)
			copy(raw(vector), d.bytes(4*g.about.Dim))
		case from <= uint64(old.n):
			vector = c.old.part.vector(old.first + uint32(from) - 1)
		default:
			return fmt.Errorf("%w: the vectors of an earlier version of %q are gone; drop this generation and replay the log into a new one", vectordb.ErrCorrupt, c.row.key)
		}
		if d.bad || e.start > e.end || e.end > c.row.size {
			d.fail()
			return nil
		}
		c.entries = append(c.entries, e)
		c.vectors = append(c.vectors, vector)
		c.terms = append(c.terms, vectordb.AppendTerms(nil, text[e.start:e.end]))
	}
	return c.decode()
}

// take makes changes that are in the log part of the generation, as write g.seq+1. No reader sees them before publish.
func (g *generation) take(changes []change, check map[int32]int64) error {
	g.seq++
	for i := range changes {
		c := &changes[i]
		c.row.seq = g.seq
		if !c.carried {
			g.recount(c)
		}
		g.active.add(c.row, c.rev, c.entries, func(j int) []float32 { return c.vectors[j] }, c.terms)
		if c.old.part != nil {
			g.uncount(&c.old)
			c.old.part.died(c.old.i).Store(g.seq)
		}
		g.count(c)
	}
	for p, offset := range check {
		g.checkpoint[p] = offset
	}
	return nil
}

// recount takes the terms of a change's entries into the counts and those of the replaced row's out. Chunks that stayed as they were cancel out, and are
// not analysed again.
func (g *generation) recount(c *change) {
	var removed [][]string
	tenant := c.rev.Tenant
	stayed := make([]bool, len(c.entries))
	if old := &c.old.row; old.n > 0 {
		rev, err := old.revision()
		var was, is string
		if err == nil {
			was, err = unpackText(old.text, int(old.size), 0, int(old.size))
		}
		if err == nil {
			is, err = unpackText(c.row.text, int(c.row.size), 0, int(c.row.size))
		}
		if err != nil {
			// What can't be read can't be taken back from the counts. They are a little off until they are made anew.
			g.options.Logger.Warn("text of a replaced revision is damaged", "generation", g.about.Name, "key", c.row.key, "error", err)
		}
		places := make(map[vectordb.Hash][]int, len(c.entries))
		if err == nil && rev.Tenant == tenant {
			for i := range c.entries {
				places[c.entries[i].hash] = append(places[c.entries[i].hash], i)
			}
		}
		for j := range old.n {
			if err != nil {
				break
			}
			e := c.old.part.entry(old.first + j)
			if list := places[e.hash]; len(list) > 0 {
				if n := c.entries[list[0]]; was[e.start:e.end] == is[n.start:n.end] {
					stayed[list[0]] = true
					places[e.hash] = list[1:]
					continue
				}
			}
			removed = append(removed, vectordb.AppendTerms(nil, was[e.start:e.end]))
		}
		if len(removed) > 0 {
			s := g.stats(rev.Tenant)
			for _, t := range removed {
				s.Remove(t)
			}
		}
	}
	if len(c.entries) > 0 {
		s := g.stats(tenant)
		for i, t := range c.terms {
			if !stayed[i] {
				s.Add(t)
			}
		}
	}
}

// count adds a row that lives from now on to the generation's size.
func (g *generation) count(c *change) {
	if c.row.version == 0 || c.row.deleted {
		g.newestGone = max(g.newestGone, c.row.searchable)
		g.tombstones++
		return
	}
	g.documents++
	g.chunks += len(c.entries)
	for i := range c.entries {
		g.tokens += int64(c.entries[i].tokens)
	}
}

// uncount takes a row off that dies.
func (g *generation) uncount(l *located) {
	if l.row.version == 0 || l.row.deleted {
		g.tombstones--
		return
	}
	g.documents--
	g.chunks -= int(l.row.n)
	for j := range l.row.n {
		g.tokens -= int64(l.part.entry(l.row.first + j).tokens)
	}
}
