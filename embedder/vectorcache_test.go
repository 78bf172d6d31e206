package embedder

import (
	"bytes"
	"os"
	"path/filepath"
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

// TestRemoveFindsEveryCopy: two calls that miss a text at once both add its vector, and neither copy may stay on the disk.
func TestRemoveFindsEveryCopy(t *testing.T) {
	dir := t.TempDir()
	c, err := OpenCache(CacheConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key := newTextHasher("m", Index).key("secret")
	for range 2 {
		c.put(key, []float32{.5, .25, .125})
		c.mu.Lock()
		for c.writing {
			c.idle.Wait()
		}
		c.mu.Unlock()
	}
	copies := func() int {
		raw, err := os.ReadFile(filepath.Join(dir, segmentName(1, kindVectors)))
		if err != nil {
			t.Fatal(err)
		}
		var vector [12]byte
		putFloats(vector[:], []float32{.5, .25, .125})
		return bytes.Count(raw, vector[:])
	}
	if n := copies(); n != 2 {
		t.Fatalf("%d copies, so this test shows nothing", n)
	}
	if n, err := c.remove([]vectorKey{key}); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if n := copies(); n != 0 {
		t.Errorf("%d copies are left", n)
	}
	if c.get(key, 3) != nil || c.Len() != 0 {
		t.Error("it is still found")
	}
}
