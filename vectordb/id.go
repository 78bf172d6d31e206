package vectordb

import (
	"encoding/hex"
	"strconv"
)

// EntryID names a chunk: the document's id, then its content. Identity is content, so an edit elsewhere in the document leaves it alone.
// repeat is how many earlier entries of the document have the same hash.
func EntryID(id string, h Hash, repeat int) string {
	s := id + "#" + hex.EncodeToString(h[:8])
	if repeat > 0 {
		s += "-" + strconv.Itoa(repeat+1)
	}
	return s
}
