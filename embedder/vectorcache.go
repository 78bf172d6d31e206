package embedder

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// CacheConfig says where vectors are kept and how many.
type CacheConfig struct {
	// Dir is the directory, made if need be. It belongs to one process at a time; all models share it.
	Dir string
	// MaxBytes bounds the files. The vectors that were added first go first, an eighth of it at a time. Defaults to 512 MiB.
	MaxBytes int64
	// Warn is told why vectors are not kept for now: a full disk, say. Each outage is told once, however long it lasts. Defaults to slog.Warn.
	Warn func(error)
	// RetryAfter is how long nothing is kept after a write failed. Defaults to 5 s.
	RetryAfter time.Duration
}

// VectorCache keeps vectors in files by a hash of their model, role and text. See [Cache].
//
// Format: pairs of files, <sequence>.vectors and <sequence>.keys, only ever appended to. Both begin with "LRVC", the version and the kind, as uint32. A vector's record is its key
// (16 bytes), its dimension's float32 numbers and the CRC-32C of both; a key's record is the key, the vector record's offset and the dimension as uint32, and the
// CRC-32C of those; all little-endian. The key is written after the vector, so a crash leaves at worst vectors that nobody finds, or a key record cut short,
// which opening drops. Nothing is synced: a vector that a power failure tore fails its CRC when it is read, and is embedded again.
//
// The index holds 16 bytes a vector, by Go's map some 30 of RAM. Opening reads the keys alone.
type VectorCache struct {
	cfg CacheConfig

	mu       sync.RWMutex
	segments []*segment // oldest first; the last one is written
	pending  map[vectorKey][]float32
	queue    []pendingVector
	queued   int // bytes
	writing  bool
	idle     sync.Cond // on mu; told when writing ends
	resume   time.Time // a write failed: nothing is kept before
	told     bool      // the outage is known
	closed   bool

	buf []byte // of the writer
}

type pendingVector struct {
	key    vectorKey
	vector []float32
}

// segment is a pair of files.
type segment struct {
	sequence      int
	vectors, keys *os.File
	size          int64 // of vectors
	keySize       int64
	index         map[uint64]place
}

type place struct{ offset, dim uint32 }

const (
	cacheVersion  = 1
	cacheMagic    = "LRVC"
	cacheHeader   = 12
	keyRecord     = 16 + 4 + 4 + 4
	kindVectors   = 1
	kindKeys      = 2
	cacheSegments = 8
	// pendingBytes is how much may wait for the disk. What comes when it is full is not kept: a slow disk slows nobody.
	pendingBytes = 16 << 20
	// writeBytes is how much is written in one go.
	writeBytes = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// OpenCache opens the cache in a directory. Close it to write what is still in RAM.
func OpenCache(cfg CacheConfig) (*VectorCache, error) {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 512 << 20
	}
	if cfg.Warn == nil {
		cfg.Warn = func(err error) { slog.Warn("vectors are not cached for now", "error", err) }
	}
	if cfg.RetryAfter <= 0 {
		cfg.RetryAfter = 5 * time.Second
	}
	c := &VectorCache{cfg: cfg, pending: make(map[vectorKey][]float32)}
	c.idle.L = &c.mu
	if err := os.MkdirAll(cfg.Dir, 0o777); err != nil {
		return nil, fmt.Errorf("open vector cache: %w", err)
	}
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open vector cache: %w", err)
	}
	for _, e := range entries {
		var sequence int
		if _, err := fmt.Sscanf(e.Name(), "%08d.keys", &sequence); err != nil || e.Name() != segmentName(sequence, kindKeys) {
			if strings.HasSuffix(e.Name(), ".vectors") && !slices.ContainsFunc(entries, func(o os.DirEntry) bool {
				return o.Name() == strings.TrimSuffix(e.Name(), ".vectors")+".keys"
			}) {
				os.Remove(filepath.Join(cfg.Dir, e.Name())) // a crash fell between the two files
			}
			continue
		}
		s, err := openSegment(cfg.Dir, sequence)
		if err != nil {
			c.closeFiles()
			return nil, fmt.Errorf("open vector cache in %s: %w", cfg.Dir, err)
		}
		if s != nil {
			c.segments = append(c.segments, s)
		}
	}
	slices.SortFunc(c.segments, func(a, b *segment) int { return cmp.Compare(a.sequence, b.sequence) })
	c.shrink()
	return c, nil
}

func segmentName(sequence, kind int) string {
	if kind == kindKeys {
		return fmt.Sprintf("%08d.keys", sequence)
	}
	return fmt.Sprintf("%08d.vectors", sequence)
}

// openSegment reads a segment's keys. A segment that was never begun properly is removed: nil.
func openSegment(dir string, sequence int) (*segment, error) {
	s := &segment{sequence: sequence}
	var err error
	if s.vectors, err = openPart(dir, sequence, kindVectors); err == nil {
		s.keys, err = openPart(dir, sequence, kindKeys)
	}
	if errors.Is(err, errNoHeader) || errors.Is(err, os.ErrNotExist) {
		s.remove(dir)
		return nil, nil
	}
	if err != nil {
		s.close()
		return nil, err
	}
	info, err := s.vectors.Stat()
	if err != nil {
		s.close()
		return nil, err
	}
	s.size = info.Size()
	raw, err := io.ReadAll(s.keys)
	if err != nil {
		s.close()
		return nil, err
	}
	s.index = make(map[uint64]place, len(raw)/keyRecord)
	s.keySize = cacheHeader
	for ; len(raw) >= keyRecord; raw = raw[keyRecord:] {
		r := raw[:keyRecord]
		if crc32.Checksum(r[:keyRecord-4], castagnoli) != binary.LittleEndian.Uint32(r[keyRecord-4:]) {
			break // torn: what follows was written later
		}
		p := place{offset: binary.LittleEndian.Uint32(r[16:]), dim: binary.LittleEndian.Uint32(r[20:])}
		if int64(p.offset)+vectorRecord(int(p.dim)) > s.size {
			break // its vector did not reach the disk
		}
		s.index[binary.LittleEndian.Uint64(r)] = p
		s.keySize += keyRecord
	}
	// Later keys are appended over whatever was cut off here.
	if err := s.keys.Truncate(s.keySize); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

var errNoHeader = errors.New("the file has no whole header")

// openPart opens one file and leaves it behind its header.
func openPart(dir string, sequence, kind int) (*os.File, error) {
	path := filepath.Join(dir, segmentName(sequence, kind))
	wayOut := fmt.Sprintf("it is a cache: delete %s to go on, and vectors are computed again as they are needed", dir)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	var header [cacheHeader]byte
	_, err = io.ReadFull(f, header[:])
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		err = errNoHeader
	case err == nil && string(header[:4]) != cacheMagic:
		err = fmt.Errorf("%s is no file of a vector cache, or damaged; %s", path, wayOut)
	case err == nil && binary.LittleEndian.Uint32(header[4:]) != cacheVersion:
		err = fmt.Errorf("%s has format %d, this program knows %d; %s", path, binary.LittleEndian.Uint32(header[4:]), cacheVersion, wayOut)
	case err == nil && binary.LittleEndian.Uint32(header[8:]) != uint32(kind):
		err = fmt.Errorf("%s has the content of another kind of file; %s", path, wayOut)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func vectorRecord(dim int) int64 { return 16 + 4*int64(dim) + 4 }

func newSegment(dir string, sequence int) (*segment, error) {
	s := &segment{sequence: sequence, index: make(map[uint64]place), size: cacheHeader, keySize: cacheHeader}
	for _, part := range []struct {
		kind int
		file **os.File
	}{{kindVectors, &s.vectors}, {kindKeys, &s.keys}} {
		f, err := os.OpenFile(filepath.Join(dir, segmentName(sequence, part.kind)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil {
			*part.file = f
			header := binary.LittleEndian.AppendUint32([]byte(cacheMagic), cacheVersion)
			_, err = f.Write(binary.LittleEndian.AppendUint32(header, uint32(part.kind)))
		}
		if err != nil {
			s.undo()
			return nil, err
		}
	}
	return s, nil
}

// undo takes back the files that were made for a segment, and no others: what else has their names is not the cache's.
func (s *segment) undo() {
	s.close()
	for _, f := range []*os.File{s.keys, s.vectors} {
		if f != nil {
			os.Remove(f.Name())
		}
	}
}

func (s *segment) close() {
	for _, f := range []*os.File{s.vectors, s.keys} {
		if f != nil {
			f.Close()
		}
	}
}

func (s *segment) remove(dir string) {
	s.close()
	os.Remove(filepath.Join(dir, segmentName(s.sequence, kindKeys))) // first: without keys the vectors are nothing
	os.Remove(filepath.Join(dir, segmentName(s.sequence, kindVectors)))
}

// Len is how many vectors can be found.
func (c *VectorCache) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := len(c.pending)
	for _, s := range c.segments {
		n += len(s.index)
	}
	return n
}

// Bytes is the size of the files.
func (c *VectorCache) Bytes() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.bytes()
}

func (c *VectorCache) bytes() int64 {
	var n int64
	for _, s := range c.segments {
		n += s.size + s.keySize
	}
	return n
}

// get is the vector of a key, for the caller to keep; nil if there is none.
func (c *VectorCache) get(key vectorKey, dim int) []float32 {
	c.mu.RLock()
	if v, ok := c.pending[key]; ok && len(v) == dim {
		c.mu.RUnlock()
		return slices.Clone(v)
	}
	var found *segment
	var at place
	for i := len(c.segments) - 1; i >= 0; i-- {
		if p, ok := c.segments[i].index[key.short()]; ok {
			found, at = c.segments[i], p
			break
		}
	}
	c.mu.RUnlock()
	if found == nil || int(at.dim) != dim {
		return nil
	}
	scratch := records.Get().(*[]byte)
	defer records.Put(scratch)
	size := int(vectorRecord(dim))
	*scratch = slices.Grow((*scratch)[:0], size)[:size]
	r := *scratch
	// The file may be closed meanwhile, when its segment goes: then the read fails, which is a miss like any other.
	if _, err := found.vectors.ReadAt(r, int64(at.offset)); err != nil || vectorKey(r[:16]) != key {
		return nil
	}
	if crc32.Checksum(r[:size-4], castagnoli) != binary.LittleEndian.Uint32(r[size-4:]) {
		return nil
	}
	v := make([]float32, dim)
	getFloats(v, r[16:])
	return v
}

var records = sync.Pool{New: func() any { return new([]byte) }}

// put keeps a vector, soon: a goroutine writes what has come together.
func (c *VectorCache) put(key vectorKey, vector []float32) {
	size := int(vectorRecord(len(vector)))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.queued+size > pendingBytes || time.Now().Before(c.resume) {
		return
	}
	if _, ok := c.pending[key]; ok {
		return
	}
	v := slices.Clone(vector) // the caller may change its own
	c.pending[key] = v
	c.queue = append(c.queue, pendingVector{key, v})
	c.queued += size
	if !c.writing {
		c.writing = true
		go c.write()
	}
}

// write empties the queue and ends.
func (c *VectorCache) write() {
	for {
		c.mu.Lock()
		batch := c.queue
		n, size := 0, 0
		for n < len(batch) && size < min(writeBytes, int(c.cfg.MaxBytes/cacheSegments)) {
			size += int(vectorRecord(len(batch[n].vector)))
			n++
		}
		batch = batch[:n]
		c.queue = c.queue[n:]
		if n == 0 {
			c.queue = nil
			c.writing = false
			c.idle.Broadcast()
			c.mu.Unlock()
			return
		}
		failing := time.Now().Before(c.resume)
		c.mu.Unlock()

		var places []place
		var s *segment
		var err error
		if !failing {
			s, places, err = c.append(batch)
		}

		c.mu.Lock()
		for i, p := range batch {
			delete(c.pending, p.key)
			if err == nil && !failing {
				s.index[p.key.short()] = places[i]
			}
		}
		c.queued -= size
		tell := false
		switch {
		case err != nil:
			tell, c.told = !c.told, true
			c.resume = time.Now().Add(c.cfg.RetryAfter)
		case !failing:
			c.told = false
			c.shrink()
		}
		c.mu.Unlock()
		if tell {
			c.cfg.Warn(fmt.Errorf("write to vector cache in %s: %w", c.cfg.Dir, err))
		}
	}
}

// append writes a batch to the last segment, or to a new one if that is full. Only the writer changes segments' files and the list's end.
func (c *VectorCache) append(batch []pendingVector) (*segment, []place, error) {
	limit := min(c.cfg.MaxBytes/cacheSegments, math.MaxUint32-2*writeBytes)
	c.mu.RLock()
	var s *segment
	sequence := 1
	if n := len(c.segments); n > 0 {
		s = c.segments[n-1]
		sequence = s.sequence + 1
	}
	c.mu.RUnlock()
	if s == nil || s.size+s.keySize >= limit {
		var err error
		if s, err = newSegment(c.cfg.Dir, sequence); err != nil {
			return nil, nil, err
		}
		c.mu.Lock()
		c.segments = append(c.segments, s)
		c.mu.Unlock()
	}
	places := make([]place, len(batch))
	b := c.buf[:0]
	for i, p := range batch {
		places[i] = place{offset: uint32(s.size + int64(len(b))), dim: uint32(len(p.vector))}
		start := len(b)
		b = append(b, p.key[:]...)
		b = slices.Grow(b, 4*len(p.vector)+4)[:len(b)+4*len(p.vector)]
		putFloats(b[start+16:], p.vector)
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
	}
	c.buf = b
	if _, err := s.vectors.WriteAt(b, s.size); err != nil {
		return nil, nil, err
	}
	keys := make([]byte, 0, len(batch)*keyRecord)
	for i, p := range batch {
		start := len(keys)
		keys = append(keys, p.key[:]...)
		keys = binary.LittleEndian.AppendUint32(keys, places[i].offset)
		keys = binary.LittleEndian.AppendUint32(keys, places[i].dim)
		keys = binary.LittleEndian.AppendUint32(keys, crc32.Checksum(keys[start:], castagnoli))
	}
	if _, err := s.keys.WriteAt(keys, s.keySize); err != nil {
		_ = s.keys.Truncate(s.keySize) // what is left of them would speak of vectors that others overwrite
		return nil, nil, err
	}
	c.mu.Lock()
	s.size += int64(len(b))
	s.keySize += int64(len(keys))
	c.mu.Unlock()
	return s, places, nil
}

// shrink removes the oldest segments while there is too much. It needs mu.
func (c *VectorCache) shrink() {
	for len(c.segments) > 1 && c.bytes() > c.cfg.MaxBytes {
		c.segments[0].remove(c.cfg.Dir)
		c.segments = slices.Delete(c.segments, 0, 1)
	}
}

// Close writes what is in RAM and closes the files. Embedders that use the cache go on without it.
func (c *VectorCache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.writing {
		c.idle.Wait()
	}
	c.closeFiles()
	return nil
}

func (c *VectorCache) closeFiles() {
	for _, s := range c.segments {
		s.close()
	}
	c.segments = nil
}
