// Package flat is the embedded store: generations as files in a directory, searched exactly, without any server or cgo.
//
// A generation is a small log-structured merge tree. A write goes into the log of the active memtable, in one frame with its checkpoint, and is visible at
// once; a full memtable becomes an immutable, memory-mapped segment in the background; segments with too much dead in them, and too many of one size,
// are merged in the background. Nothing is ever rewritten whole for a save. Readers pin an immutable view, so that both legs, filters and texts agree,
// and neither wait for writers nor hold them up.
//
// Dense search scans int8 codes and ranks the best again by the float32 vectors; scores are exact. The lexical leg is internal/lexical.
//
// One process uses a directory at a time.
package flat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// Options are the store's settings. The zero value is right for production.
type Options struct {
	// Logger hears of trouble in the background. Default: none.
	Logger *slog.Logger
	// SyncEvery is how long a write may wait for its fsync: what a loss of power (not the end of the process) may take. Default 100ms.
	SyncEvery time.Duration
	// SegmentEntries is at how many entries a memtable becomes a segment. Default 4096.
	SegmentEntries int
	// SegmentBytes is at how much memory it does. Default 24 MiB.
	SegmentBytes int
	// SealIdle is how long a memtable that is an eighth full may go without a write until it becomes a segment. Default 3s.
	SealIdle time.Duration
	// TombstoneRetention is how long a delete is remembered at least, so that an older version that arrives late stays away. Of the time for which the store is closed
	// a day counts at most, so that a clock that was set forward takes nothing away. Default 7 days.
	TombstoneRetention time.Duration
	// NoSync leaves fsync of the log out, for tests. Default false.
	NoSync bool

	// fs is the disk. Default: the real one.
	fs fileSystem
	// wall is the clock on the wall. Default: time.Now.
	wall func() time.Time
	// retryAfter is how long the background waits after a failure. Default 1s.
	retryAfter time.Duration
	// verifyAtOnce is how many bytes of segments are checked before a generation opens; more are checked afterwards. Default 256 MiB.
	verifyAtOnce int64
}

func (o Options) withDefaults() *Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.SyncEvery <= 0 {
		o.SyncEvery = 100 * time.Millisecond
	}
	if o.SegmentEntries <= 0 {
		o.SegmentEntries = 4096
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 24 << 20
	}
	if o.SealIdle <= 0 {
		o.SealIdle = 3 * time.Second
	}
	if o.TombstoneRetention <= 0 {
		o.TombstoneRetention = 7 * 24 * time.Hour
	}
	if o.retryAfter <= 0 {
		o.retryAfter = time.Second
	}
	if o.verifyAtOnce <= 0 {
		o.verifyAtOnce = 256 << 20
	}
	if o.fs == nil {
		o.fs = disk{}
	}
	if o.wall == nil {
		o.wall = time.Now
	}
	return &o
}

// Store is a directory of generations. It implements vectordb.Store; all methods are safe for concurrent use.
//
// A generation whose files are damaged, or of a newer format, does not keep the others from opening: List shows it, Drop removes it, and
// everything else says what is wrong with it (ErrCorrupt, ErrFormat) and that it can be built again from the log.
type Store struct {
	dir     string
	options *Options
	unlock  func()

	mu          sync.RWMutex
	closed      bool
	generations map[string]*opened

	// catalog serialises Create and Drop.
	catalog sync.Mutex
}

// opened is a generation, or why it could not be opened.
type opened struct {
	about vectordb.Generation
	g     *generation
	err   error
}

var _ vectordb.Store = (*Store)(nil)

// lockName is the file that tells other processes to stay away.
const lockName = "LOCK"

// Open opens the store in dir and makes the directory if there is none. Errors: ErrLocked if another process uses it.
func Open(dir string, options Options) (*Store, error) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, errors.New("open store: its files are little-endian and read in place; this machine is big-endian")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	unlock, err := lockFile(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{dir: dir, options: options.withDefaults(), unlock: unlock, generations: map[string]*opened{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		unlock()
		return nil, fmt.Errorf("open store: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, name)
		switch {
		case !e.IsDir():
		case strings.HasPrefix(name, droppedPrefix) || strings.HasPrefix(name, creatingPrefix):
			_ = os.RemoveAll(path)
		case vectordb.CheckName(name) == nil:
			g, err := openGeneration(s.options.fs, path, s.options)
			if err == nil && g.about.Name != name {
				g.close()
				g, err = nil, corruptf(filepath.Join(path, manifestName), "it is of generation %q", g.about.Name)
			}
			if err != nil {
				err = fmt.Errorf("generation %s: %w", name, err)
				s.options.Logger.Error("can't open generation", "generation", name, "error", err)
				o := &opened{about: vectordb.Generation{Name: name}, err: err}
				if m, e := readManifest(path); e == nil {
					o.about = m.Generation
				}
				s.generations[name] = o
				continue
			}
			s.generations[name] = &opened{about: g.about, g: g}
		}
	}
	return s, nil
}

// generation finds an open one.
func (s *Store) generation(ctx context.Context, name string) (*generation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, vectordb.ErrClosed
	}
	o := s.generations[name]
	switch {
	case o == nil:
		return nil, fmt.Errorf("generation %s: %w", name, vectordb.ErrNoGeneration)
	case o.err != nil:
		return nil, o.err
	}
	return o.g, nil
}

const creatingPrefix = ".creating-"

// Create implements vectordb.Catalog.
func (s *Store) Create(ctx context.Context, about vectordb.Generation) error {
	if err := about.Check(); err != nil {
		return err
	}
	s.catalog.Lock()
	defer s.catalog.Unlock()
	switch g, err := s.generation(ctx, about.Name); {
	case err == nil && g.about == about:
		return nil
	case err == nil:
		return fmt.Errorf("generation %s: %w", about.Name, vectordb.ErrMismatch)
	case !errors.Is(err, vectordb.ErrNoGeneration):
		return err
	}
	// It gets its name when it is whole.
	creating, path := filepath.Join(s.dir, creatingPrefix+about.Name), filepath.Join(s.dir, about.Name)
	err := os.RemoveAll(creating)
	if err == nil {
		err = os.Mkdir(creating, 0o755)
	}
	if err == nil {
		err = createGeneration(s.options.fs, creating, about)
	}
	if err == nil {
		err = s.options.fs.Rename(creating, path)
	}
	if err == nil {
		err = s.options.fs.SyncDir(s.dir)
	}
	if err != nil {
		_ = os.RemoveAll(creating)
		return fmt.Errorf("create generation %s: %w", about.Name, err)
	}
	g, err := openGeneration(s.options.fs, path, s.options)
	if err != nil {
		_ = removeGeneration(path)
		return fmt.Errorf("create generation %s: %w", about.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generations[about.Name] = &opened{about: about, g: g}
	return nil
}

// Drop implements vectordb.Catalog. The space is free when it returns, but for what readers in flight still use.
func (s *Store) Drop(ctx context.Context, name string) error {
	s.catalog.Lock()
	defer s.catalog.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return vectordb.ErrClosed
	}
	o := s.generations[name]
	delete(s.generations, name)
	s.mu.Unlock()
	if o == nil {
		return nil
	}
	if o.g == nil {
		return removeGeneration(filepath.Join(s.dir, name))
	}
	return o.g.drop()
}

// List implements vectordb.Catalog.
func (s *Store) List(ctx context.Context) ([]vectordb.Generation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, vectordb.ErrClosed
	}
	var list []vectordb.Generation
	for _, name := range slices.Sorted(maps.Keys(s.generations)) {
		list = append(list, s.generations[name].about)
	}
	return list, nil
}

// Sync implements vectordb.Writer.
func (s *Store) Sync(ctx context.Context, name string) error {
	g, err := s.generation(ctx, name)
	if err != nil {
		return err
	}
	return g.syncLogs()
}

// Close implements vectordb.Store.
func (s *Store) Close() error {
	s.catalog.Lock()
	defer s.catalog.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return vectordb.ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	defer s.unlock()
	var err error
	for _, name := range slices.Sorted(maps.Keys(s.generations)) {
		if o := s.generations[name]; o.g != nil {
			err = errors.Join(err, o.g.close())
		}
	}
	return err
}
