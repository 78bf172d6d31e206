package vectordb

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// DocumentID returns the id in a document's key: what follows the tenant and U+001F, or the whole key if it has no tenant.
func DocumentID(key string) string {
	if _, id, ok := strings.Cut(key, "\x1f"); ok {
		return id
	}
	return key
}

// EntryID names a chunk: the document's id, then its content. Identity is content, so an edit elsewhere in the document leaves it alone.
// repeat is how many earlier entries of the document have the same hash.
func EntryID(id string, h Hash, repeat int) string {
	s := id + "#" + hex.EncodeToString(h[:8])
	if repeat > 0 {
		s += "-" + strconv.Itoa(repeat+1)
	}
	return s
}
