package embedder

import (
	"slices"
	"testing"
)

// Two keys that agree in what the index holds are told apart by the record.
func TestVectorCacheTellsKeysApart(t *testing.T) {
	dir := t.TempDir()
	c, err := OpenCache(CacheConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	a, b := vectorKey{0: 1, 15: 1}, vectorKey{0: 1, 15: 2}
	c.put(a, []float32{1, 0})
	c.Close()
	if c, err = OpenCache(CacheConfig{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v := c.get(a, 2); !slices.Equal(v, []float32{1, 0}) {
		t.Errorf("got %v", v)
	}
	if v := c.get(b, 2); v != nil {
		t.Errorf("another text's vector: %v", v)
	}
	if v := c.get(a, 3); v != nil {
		t.Errorf("a vector of another dimension: %v", v)
	}
}

// What waits for the disk can be found, and belongs to nobody else; what is too much is not kept.
func TestVectorCachePending(t *testing.T) {
	c, err := OpenCache(CacheConfig{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c.writing = true // as if the disk were slow
	mine := []float32{1, 0}
	c.put(vectorKey{1}, mine)
	mine[0] = 9
	c.get(vectorKey{1}, 2)[1] = 9
	if v := c.get(vectorKey{1}, 2); !slices.Equal(v, []float32{1, 0}) {
		t.Errorf("got %v: a caller changed what is kept", v)
	}
	large := make([]float32, 1<<20)
	for i := range 10 {
		c.put(vectorKey{2, byte(i)}, large)
	}
	if c.queued > pendingBytes || c.Len() != 4 {
		t.Errorf("%d bytes and %d vectors wait for the disk, at most %d bytes may", c.queued, c.Len(), pendingBytes)
	}
	c.mu.Lock()
	go c.write()
	c.mu.Unlock()
	c.Close()
}
