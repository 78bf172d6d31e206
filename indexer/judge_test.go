package indexer

import (
	"testing"

	"github.com/liverag/liverag/vectordb"
)

// A document that comes back while it is compared is no ghost, also if its access list is one: only that goes. The simulation found it, with seed 259.
func TestADocumentThatComesBackMeanwhileIsNoGhost(t *testing.T) {
	r := &verification{Verification: Verification{ghosts: true}}
	stored := &vectordb.Revision{Key: "doc", Version: 28, Text: "new", Access: vectordb.Access{Version: 11, ACL: []string{"ann"}}}
	for _, tt := range []struct {
		name   string
		states []folded
		kind   string
		access int64
	}{
		{"the log holds nothing", []folded{{}}, Orphaned, 11},
		{"it came back", []folded{{}, {version: 28}}, Stale, 11},
		{"it came back, and was deleted again", []folded{{}, {version: 28}, {version: 30, deleted: true}}, Stale, 11},
		{"it came back with its access", []folded{{}, {version: 28, access: 29}}, "", 0},
		{"it was deleted", []folded{{version: 28}, {version: 30, deleted: true}}, Stale, 11},
	} {
		finding, _, err := r.judge(t.Context(), stored, tt.states)
		switch {
		case err != nil:
			t.Fatal(err)
		case finding == nil && tt.kind != "" || finding != nil && (finding.Kind != tt.kind || finding.access != tt.access):
			t.Errorf("%s: %+v, want %s, access %d", tt.name, finding, tt.kind, tt.access)
		}
	}
}
