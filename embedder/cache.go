package embedder

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"sync/atomic"
)

// Cache answers from a [VectorCache] what was embedded before, in this process or an earlier one, and adds what was not. It saves a replay with a known
// model all of its cost; for a model that costs next to nothing it is slower than the model. A text is found again by the model's name, its role and its bytes.
//
// The cache is never the reason for a failure: what can't be read is embedded again, what can't be written is not kept.
func Cache(inner Embedder, store *VectorCache) *Cached {
	return &Cached{inner: inner, store: store, traced: BatcherOf(inner) != nil}
}

// Cached is what [Cache] returns.
type Cached struct {
	inner        Embedder
	store        *VectorCache
	traced       bool // what is sent is noted below
	hits, misses atomic.Int64
}

// Name is the model's.
func (c *Cached) Name() string { return c.inner.Name() }

// Dim is the model's.
func (c *Cached) Dim() int { return c.inner.Dim() }

// MaxInput is the model's.
func (c *Cached) MaxInput() int { return c.inner.MaxInput() }

// Unwrap is the embedder below.
func (c *Cached) Unwrap() Embedder { return c.inner }

// Hits is how many inputs were found.
func (c *Cached) Hits() int64 { return c.hits.Load() }

// Misses is how many had to be embedded.
func (c *Cached) Misses() int64 { return c.misses.Load() }

// Embed calls inner once, with the inputs that are not found.
func (c *Cached) Embed(ctx context.Context, role Role, inputs []string) ([][]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embed with %s: %w", c.Name(), err)
	}
	if removed, ok := ctx.Value(purgeKey{}).(*atomic.Int64); ok {
		return c.purge(removed, role, inputs)
	}
	dim := c.Dim()
	vectors := make([][]float32, len(inputs))
	var missing []string
	var places []int
	var keys []vectorKey
	hasher := newTextHasher(c.Name(), role)
	hits := int64(0)
	for i, input := range inputs {
		if Blank(input) {
			vectors[i] = make([]float32, dim)
			continue
		}
		key := hasher.key(input)
		if v := c.store.get(key, dim); v != nil {
			vectors[i] = v
			hits++
			continue
		}
		missing, places, keys = append(missing, input), append(places, i), append(keys, key)
	}
	usage := usageOf(ctx)
	if foresees(ctx) {
		for _, i := range places {
			vectors[i] = make([]float32, dim)
			vectors[i][0] = 1 // nobody looks at it
		}
		usage.add(c.inner, missing)
		return vectors, nil
	}
	c.hits.Add(hits)
	if len(missing) == 0 {
		usage.add(c.inner, nil)
		return vectors, nil
	}
	c.misses.Add(int64(len(missing)))
	got, err := c.inner.Embed(ctx, role, missing)
	if err == nil {
		// What is kept for years is looked at first.
		err = Check(c.Name(), dim, len(missing), got)
	}
	if err != nil {
		return nil, movedBlame(err, c.Name(), places)
	}
	if !c.traced {
		usage.add(c.inner, missing)
	}
	for k, i := range places {
		vectors[i] = got[k]
		c.store.put(keys[k], got[k])
	}
	return vectors, nil
}

// vectorKey is the first half of a SHA-256: among 10⁹ texts two share one with a chance of 10⁻²¹.
type vectorKey [16]byte

// short is what the index in RAM is keyed by. The whole key stands beside the vector.
func (k vectorKey) short() uint64 { return binary.LittleEndian.Uint64(k[:]) }

// textHasher makes the keys of one model and role. It holds what comes before the text, and room for the text.
type textHasher struct {
	buf    []byte
	prefix int
}

func newTextHasher(name string, role Role) *textHasher {
	b := binary.AppendUvarint(make([]byte, 0, 2<<10), uint64(len(name)))
	b = append(append(b, name...), byte(role))
	return &textHasher{buf: b, prefix: len(b)}
}

func (h *textHasher) key(input string) vectorKey {
	h.buf = append(h.buf[:h.prefix], input...)
	sum := sha256.Sum256(h.buf)
	return vectorKey(sum[:])
}

func putFloats(b []byte, v []float32) {
	for i, x := range v {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(x))
	}
}

func getFloats(v []float32, b []byte) {
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
}
