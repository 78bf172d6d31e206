package flat

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liverag/liverag/internal/lexical"
	"github.com/liverag/liverag/vectordb"
)

// generation is an open generation: a small log-structured merge tree. The active memtable takes the writes; full ones are frozen and written as
// segments in the background; segments are merged in the background. Readers pin a view and never wait.
type generation struct {
	about   vectordb.Generation
	dir     string
	fs      fileSystem
	options *Options
	// age is the time by which tombstones grow old.
	age age

	// view is what readers see; nil once the generation is closed or dropped.
	view atomic.Pointer[view]
	// failed holds the error that makes it unusable.
	failed atomic.Pointer[error]

	// mu is the writer's. What follows changes under it alone.
	mu         sync.Mutex
	ended      error // set when it is closed or dropped
	set        *partSet
	active     *memtable
	seq        uint64
	next       uint64 // a number above that of every file
	frame      []byte
	checkpoint map[int32]int64
	size
	newestGone int64 // the age's time of the newest tombstone; 0: there is none
	// durable is what the segments hold.
	durable  checkpoint
	sealing  error         // why the last attempt failed
	roomMade chan struct{} // closed and replaced when a frozen memtable was sealed
	// outdated is what the next manifest on disk makes superfluous.
	outdated outdated

	termCounts sync.Map // tenant to *lexical.Stats
	// counts is termCounts as of durable, for the file of number countsNumber; countsSaved is the file that the manifest on disk names.
	counts                    []byte
	countsNumber, countsSaved uint64

	// sealMu, mergeMu and manifestMu each let one goroutine seal, merge or write a manifest at a time. They are taken before mu.
	sealMu, mergeMu, manifestMu sync.Mutex

	stop        context.CancelFunc
	ctx         context.Context
	background  sync.WaitGroup
	syncWanted  chan struct{}
	syncNow     chan struct{}
	sealWanted  chan struct{}
	mergeWanted chan struct{}
}

// size counts what is live.
type size struct {
	documents, chunks int
	tokens            int64
	tombstones        int
}

// checkpoint is a state of the generation: what a frozen memtable leaves behind.
type checkpoint struct {
	seq     uint64
	offsets map[int32]int64
	size
}

// outdated are files that the manifest on disk may still name.
type outdated struct {
	logs     []*wal
	segments []*segment
}

// partSet is the parts of a generation between two changes of their list. It keeps the segments mapped while anybody pins it.
type partSet struct {
	refs     atomic.Int64
	segments []*segment
	frozen   []*memView
	// tables are the frozen views' memtables.
	tables []*memtable
}

func newPartSet(segments []*segment, frozen []*memView, tables []*memtable) *partSet {
	s := &partSet{segments: segments, frozen: frozen, tables: tables}
	s.refs.Store(1)
	for _, seg := range segments {
		seg.refs.Add(1)
	}
	return s
}

// retain fails if the set is not in use any more.
func (s *partSet) retain() bool {
	for {
		n := s.refs.Load()
		if n == 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *partSet) release() {
	if s.refs.Add(-1) == 0 {
		for _, seg := range s.segments {
			seg.release()
		}
	}
}

// view is the generation as of write seq. It never changes.
type view struct {
	set    *partSet
	seq    uint64
	active *memView
}

// parts returns all parts, from old to new.
func (v *view) parts() []part {
	list := make([]part, 0, len(v.set.segments)+len(v.set.frozen)+1)
	for _, s := range v.set.segments {
		list = append(list, s)
	}
	for _, m := range v.set.frozen {
		list = append(list, m)
	}
	return append(list, v.active)
}

// alive tells whether the view shows a row.
func (v *view) alive(p part, i uint32) bool {
	died := p.died(i).Load()
	return died == 0 || died > v.seq
}

// locate finds the document's row, live or a tombstone.
func (v *view) locate(key string) (found located) {
	hash := hashKey(key)
	look := func(p part) bool {
		p.find(key, hash, func(i uint32) {
			if found.part == nil && v.alive(p, i) {
				found = located{p, i, p.row(i)}
			}
		})
		return found.part != nil
	}
	if look(v.active) {
		return found
	}
	for _, m := range slices.Backward(v.set.frozen) {
		if look(m) {
			return found
		}
	}
	for _, s := range slices.Backward(v.set.segments) {
		if look(s) {
			return found
		}
	}
	return found
}

// pin returns the current view, whose parts stay until view.set.release.
func (g *generation) pin() (*view, error) {
	for {
		if err := g.failed.Load(); err != nil {
			return nil, *err
		}
		v := g.view.Load()
		if v == nil {
			g.mu.Lock()
			defer g.mu.Unlock()
			return nil, g.ended
		}
		if v.set.retain() {
			return v, nil
		}
	}
}

// look returns a view of what the writer has done so far.
func (g *generation) look() *view { return &view{set: g.set, seq: g.seq, active: g.active.view()} }

// publish shows readers what the writer has done so far.
func (g *generation) publish() { g.view.Store(g.look()) }

// replaceSet puts another list of parts in place and publishes it.
func (g *generation) replaceSet(s *partSet) {
	old := g.set
	g.set = s
	g.publish()
	old.release()
}

// fail makes the generation unusable: nothing is better than something wrong. It is unusable before anybody is told.
func (g *generation) fail(err error) {
	g.failed.Store(&err)
	g.options.Logger.Error("generation is damaged", "generation", g.about.Name, "error", err)
}

// createGeneration makes an empty generation in dir, which exists.
func createGeneration(fs fileSystem, dir string, about vectordb.Generation) error {
	w, err := createWAL(fs, dir, 1, about.Dim)
	if err != nil {
		return err
	}
	if err := w.close(); err != nil {
		return fmt.Errorf("create log: %w", err)
	}
	return writeManifest(fs, dir, &manifest{Generation: about, Log: 1, Next: 2})
}

// openGeneration reads what dir holds and starts the work in the background.
func openGeneration(fs fileSystem, dir string, options *Options) (_ *generation, err error) {
	m, err := readManifest(dir)
	if err != nil {
		return nil, err
	}
	g := &generation{
		about: m.Generation, dir: dir, fs: fs, options: options,
		seq: m.Sequence, next: m.Next, checkpoint: map[int32]int64{},
		size:     size{documents: m.Documents, chunks: m.Chunks, tokens: m.Tokens},
		roomMade: make(chan struct{}), countsNumber: m.Counts, countsSaved: m.Counts,
		syncWanted: make(chan struct{}, 1), syncNow: make(chan struct{}, 1), sealWanted: make(chan struct{}, 1), mergeWanted: make(chan struct{}, 1),
	}
	g.ctx, g.stop = context.WithCancel(context.Background())
	if m.Checkpoint != nil {
		g.checkpoint = m.Checkpoint
	}
	var segments []*segment
	var tables []*memtable
	defer func() {
		if err != nil {
			g.stop()
			g.background.Wait()
			for _, s := range segments {
				s.release()
			}
			for _, t := range tables {
				t.log.close()
			}
		}
	}()
	for _, ms := range m.Segments {
		s, err := openSegment(dir, ms.Number, g.about.Dim)
		if err != nil {
			return nil, err
		}
		segments = append(segments, s)
		for i := range s.rows {
			without := s.rows[i].flags&rowDeleted != 0 || s.rows[i].version == 0
			if without {
				g.newestGone = max(g.newestGone, s.rows[i].searchable)
			}
			if i/8 < len(ms.Dead) && ms.Dead[i/8]&(1<<(i%8)) != 0 {
				s.dead[i].Store(1)
			} else if without {
				g.tombstones++
			}
		}
	}
	logs, err := g.removeStrangers(m)
	if err != nil {
		return nil, err
	}
	g.set = newPartSet(segments, nil, nil)
	for _, s := range segments {
		s.release() // the set has it now
	}
	segments = nil
	defer func() {
		if err != nil {
			g.set.release()
		}
	}()
	g.durable = checkpoint{g.seq, maps.Clone(g.checkpoint), g.size}
	if err := g.loadCounts(m); err != nil {
		return nil, err
	}
	for i, number := range logs {
		if i > 0 {
			g.freeze()
		}
		// The log is opened by reading it, so the memtable gets it afterwards.
		table := newMemtable(nil, g.about.Dim)
		g.active = table
		w, err := openWAL(fs, dir, number, g.about.Dim, i == len(logs)-1, g.replay)
		if err != nil {
			return nil, err
		}
		table.log = w
		tables = append(tables, table)
	}
	if len(logs) == 0 {
		w, err := createWAL(fs, dir, g.next, g.about.Dim)
		if err != nil {
			return nil, err
		}
		g.next++
		g.active = newMemtable(w, g.about.Dim)
		tables = append(tables, g.active)
	}
	if err := g.verify(); err != nil {
		return nil, err
	}
	g.age = newAge(options.wall(), g.newestGone)
	g.publish()
	g.start()
	return g, nil
}

// removeStrangers removes files that the manifest does not name: what a crash left. It returns the numbers of the logs to replay.
func (g *generation) removeStrangers(m *manifest) (logs []uint64, err error) {
	files, err := os.ReadDir(g.dir)
	if err != nil {
		return nil, fmt.Errorf("open generation: %w", err)
	}
	for _, f := range files {
		name := f.Name()
		if strings.HasSuffix(name, ".tmp") {
			_ = g.fs.Remove(filepath.Join(g.dir, name))
			continue
		}
		stem, ext, _ := strings.Cut(name, ".")
		number, err := strconv.ParseUint(stem, 10, 64)
		if err != nil {
			continue // not ours
		}
		g.next = max(g.next, number+1)
		known := true
		switch ext {
		case "wal":
			if known = number >= m.Log; known {
				logs = append(logs, number)
			}
		case "seg":
			known = slices.ContainsFunc(m.Segments, func(s manifestSegment) bool { return s.Number == number })
		case "counts":
			known = number == m.Counts
		}
		if !known {
			_ = g.fs.Remove(filepath.Join(g.dir, name))
		}
	}
	slices.Sort(logs)
	return logs, nil
}

// verify checks the sections that opening a segment leaves out.
func (g *generation) verify() error {
	var bytes int64
	for _, s := range g.set.segments {
		bytes += s.bytes
	}
	if bytes <= g.options.verifyAtOnce {
		for _, s := range g.set.segments {
			if err := s.verify(); err != nil {
				return err
			}
		}
		return nil
	}
	set := g.set
	set.retain()
	g.background.Go(func() {
		defer set.release()
		for _, s := range set.segments {
			if g.ctx.Err() != nil {
				return
			}
			if err := s.verify(); err != nil {
				g.fail(err)
				return
			}
		}
	})
	return nil
}

// start begins the work in the background, which end ends.
func (g *generation) start() {
	g.background.Go(g.syncLoop)
	g.background.Go(g.sealLoop)
	g.background.Go(g.mergeLoop)
	if len(g.set.frozen) > 0 {
		wake(g.sealWanted)
	}
	wake(g.mergeWanted)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// maxFrozen is how many full memtables may wait to be written before writers wait too.
const maxFrozen = 3

// waitForRoom blocks a writer while too much waits to be sealed. It is called, and returns, with mu held.
func (g *generation) waitForRoom(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := g.failed.Load(); err != nil {
			return *err
		}
		if g.ended != nil {
			return g.ended
		}
		if len(g.set.frozen) < maxFrozen {
			return nil
		}
		if g.sealing != nil {
			return fmt.Errorf("generation %s: what was written before can't be sealed: %w", g.about.Name, g.sealing)
		}
		made := g.roomMade
		g.mu.Unlock()
		select {
		case <-made:
		case <-ctx.Done():
		case <-g.ctx.Done():
		}
		g.mu.Lock()
	}
}

// wrote sees to what follows a write: fsync before long, and a new memtable when this one is full.
func (g *generation) wrote() {
	if !g.options.NoSync {
		wake(g.syncWanted)
		if g.active.log.size-g.active.log.synced.Load() > maxUnsynced {
			wake(g.syncNow)
		}
	}
	// A log of checkpoints alone fills no memtable, and must end all the same.
	if max(len(g.active.entries), len(g.active.rows)) >= g.options.SegmentEntries || g.active.bytes >= g.options.SegmentBytes ||
		g.active.log.size >= 4*int64(g.options.SegmentBytes) {
		if err := g.rotate(); err != nil {
			// The log at hand goes on; the next write tries again.
			g.options.Logger.Warn("can't begin a new log", "generation", g.about.Name, "error", err)
		}
	}
}

// maxUnsynced is how many bytes of writes may wait for their fsync, so that none takes long.
const maxUnsynced = 4 << 20

// rotate freezes the active memtable and begins another.
func (g *generation) rotate() error {
	old := g.active
	if !g.options.NoSync {
		// A log is safe before the next one begins, so that only the last can lose its tail.
		if err := old.log.sync(); err != nil {
			return err
		}
	}
	w, err := createWAL(g.fs, g.dir, g.next, g.about.Dim)
	if err != nil {
		return err
	}
	g.next++
	g.freeze()
	g.active = newMemtable(w, g.about.Dim)
	g.publish()
	wake(g.sealWanted)
	return nil
}

// freeze moves the active memtable to those that wait to be sealed.
func (g *generation) freeze() {
	t := g.active
	t.end = checkpoint{g.seq, maps.Clone(g.checkpoint), g.size}
	t.counts = g.packCounts()
	s := newPartSet(g.set.segments, append(slices.Clone(g.set.frozen), t.view()), append(slices.Clone(g.set.tables), t))
	g.set.release()
	g.set = s
}

// syncLoop makes writes safe soon after they were made.
func (g *generation) syncLoop() {
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.syncWanted:
		}
		timer := time.NewTimer(g.options.SyncEvery)
		select {
		case <-g.ctx.Done():
			timer.Stop()
			return
		case <-g.syncNow:
			timer.Stop()
		case <-timer.C:
		}
		if err := g.syncLogs(); err != nil {
			g.options.Logger.Warn("can't sync", "generation", g.about.Name, "error", err)
			wake(g.syncWanted)
		}
	}
}

// syncLogs makes everything written so far survive a loss of power.
func (g *generation) syncLogs() error {
	g.mu.Lock()
	if g.ended != nil {
		g.mu.Unlock()
		return g.ended
	}
	logs := []*wal{}
	for _, t := range g.set.tables {
		logs = append(logs, t.log)
	}
	logs = append(logs, g.active.log)
	g.mu.Unlock()
	for _, w := range logs {
		if err := w.sync(); err != nil {
			return err
		}
	}
	return nil
}

// stats returns the counts of a tenant's terms; made if need be.
func (g *generation) stats(tenant string) *lexical.Stats {
	if s, ok := g.termCounts.Load(tenant); ok {
		return s.(*lexical.Stats)
	}
	s, _ := g.termCounts.LoadOrStore(tenant, lexical.NewStats())
	return s.(*lexical.Stats)
}

// end stops the background, and lets readers and writers go with err.
func (g *generation) end(err error) {
	g.mu.Lock()
	if g.ended == nil {
		g.ended = err
	}
	g.mu.Unlock()
	g.stop()
	g.background.Wait()
}

// close makes everything durable.
func (g *generation) close() error {
	g.end(vectordb.ErrClosed)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.active.rows) >= smallMemtable {
		if err := g.rotate(); err != nil {
			g.options.Logger.Warn("can't seal at closing", "generation", g.about.Name, "error", err)
		}
	}
	g.mu.Unlock()
	for len(g.set.tables) > 0 {
		if err := g.seal(context.Background()); err != nil {
			g.options.Logger.Warn("can't seal at closing", "generation", g.about.Name, "error", err)
			break
		}
	}
	g.mu.Lock()
	var err error
	for _, t := range append(slices.Clone(g.set.tables), g.active) {
		if !g.options.NoSync {
			if e := t.log.sync(); e != nil && err == nil {
				err = e
			}
		}
		if e := t.log.close(); e != nil && err == nil {
			err = e
		}
	}
	g.leave()
	return err
}

// smallMemtable is below how many rows closing leaves a memtable in its log, which is read again quickly.
const smallMemtable = 64

// leave unmaps everything that no reader uses.
func (g *generation) leave() {
	g.view.Store(nil)
	g.set.release()
	for _, w := range g.outdated.logs {
		w.close()
	}
	for _, s := range g.outdated.segments {
		s.release()
	}
	g.outdated = outdated{}
}

// drop removes the generation's files. What readers have mapped is freed when the last of them is done.
func (g *generation) drop() error {
	g.end(fmt.Errorf("generation %s: %w", g.about.Name, vectordb.ErrNoGeneration))
	g.mu.Lock()
	for _, t := range append(slices.Clone(g.set.tables), g.active) {
		t.log.close()
	}
	g.leave()
	g.mu.Unlock()
	return removeGeneration(g.dir)
}

// removeGeneration removes a generation's directory. It is renamed first, so that a crash in between leaves no half of it under its name.
func removeGeneration(dir string) error {
	away := filepath.Join(filepath.Dir(dir), droppedPrefix+filepath.Base(dir))
	for n := 0; ; n++ {
		name := away + "." + strconv.Itoa(n)
		if _, err := os.Lstat(name); os.IsNotExist(err) {
			away = name
			break
		}
		if n == math.MaxInt16 {
			return fmt.Errorf("drop %s: its remains can't be moved away", dir)
		}
	}
	if err := os.Rename(dir, away); err != nil {
		return fmt.Errorf("drop generation: %w", err)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("drop generation: %w", err)
	}
	if err := os.RemoveAll(away); err != nil {
		return fmt.Errorf("drop generation: %w", err)
	}
	return nil
}

const droppedPrefix = ".dropped-"
