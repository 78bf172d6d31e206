package embedder

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
)

type purgeKey struct{}

// Purge takes the vectors of inputs out of the caches that e is wrapped in, in RAM and on disk, and returns how many there were. Inputs take the way that they take
// to be embedded, so that pieces of long ones are found; nothing is embedded. Without a cache it does nothing.
func Purge(ctx context.Context, e Embedder, role Role, inputs []string) (int, error) {
	if !HasCache(e) {
		return 0, nil
	}
	var removed atomic.Int64
	ctx = context.WithValue(ctx, purgeKey{}, &removed)
	for _, input := range inputs {
		if _, err := e.Embed(ctx, role, []string{input}); err != nil && !errors.Is(err, ErrInputTooLong) {
			return int(removed.Load()), fmt.Errorf("purge cached vectors of %s: %w", e.Name(), err)
		}
	}
	return int(removed.Load()), nil
}

// purge answers a call under [Purge]: with vectors of unit length, which nobody looks at.
func (c *Cached) purge(removed *atomic.Int64, role Role, inputs []string) ([][]float32, error) {
	hasher := newTextHasher(c.Name(), role)
	keys := make([]vectorKey, len(inputs))
	vectors := make([][]float32, len(inputs))
	for i, input := range inputs {
		keys[i] = hasher.key(input)
		vectors[i] = make([]float32, c.Dim())
		if !Blank(input) {
			vectors[i][0] = 1
		}
	}
	n, err := c.store.remove(keys)
	removed.Add(int64(n))
	return vectors, err
}

// remove overwrites vectors with zeros, and returns how many there were when the disk has them. The records of their keys stay: they lead to what is not found any
// more. They lead to all there is, too: two calls that miss a text at once add it twice, and the index knows the newer one alone.
func (c *VectorCache) remove(keys []vectorKey) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing { // what waits for the disk is on it then
		c.idle.Wait()
	}
	wanted := make(map[vectorKey]bool, len(keys))
	for _, key := range keys {
		wanted[key] = true
	}
	removed := make(map[vectorKey]bool)
	for _, s := range c.segments {
		if err := s.zero(wanted, removed); err != nil {
			return len(removed), fmt.Errorf("vector cache: %w", err)
		}
	}
	return len(removed), nil
}

// zero overwrites the segment's vectors of the wanted keys, and adds what it found to removed.
func (s *segment) zero(wanted, removed map[vectorKey]bool) error {
	records := make([]byte, s.keySize-cacheHeader)
	if _, err := s.keys.ReadAt(records, cacheHeader); err != nil {
		return err
	}
	changed := false
	for ; len(records) >= keyRecord; records = records[keyRecord:] {
		key := vectorKey(records[:16])
		if !wanted[key] {
			continue
		}
		at := place{offset: binary.LittleEndian.Uint32(records[16:]), dim: binary.LittleEndian.Uint32(records[20:])}
		var stored vectorKey
		if _, err := s.vectors.ReadAt(stored[:], int64(at.offset)); err != nil {
			return err
		}
		if stored != key {
			continue // it was removed before
		}
		if _, err := s.vectors.WriteAt(make([]byte, vectorRecord(int(at.dim))), int64(at.offset)); err != nil {
			return err
		}
		delete(s.index, key.short())
		removed[key] = true
		changed = true
	}
	if !changed {
		return nil
	}
	return s.vectors.Sync()
}
