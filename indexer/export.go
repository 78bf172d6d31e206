package indexer

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// exported is a line of GET /generations/{name}/entries/stream: the first one tells of the generation, the last one that it was the last, and those between are documents.
type exported struct {
	Generation *exportedGeneration `json:"generation,omitempty"`
	Document   *exportedDocument   `json:"document,omitempty"`
	End        *exportedEnd        `json:"end,omitempty"`
}

type exportedGeneration struct {
	Name    string          `json:"name"`
	Recipe  vectordb.Recipe `json:"recipe"`
	Dim     int             `json:"dim"`
	Origin  string          `json:"origin"` // the log: topic, its identity, its partitions
	AsOf    time.Time       `json:"as_of"`
	Created time.Time       `json:"created"`
	// Documents is about how many lines follow.
	Documents int64 `json:"documents"`
}

type exportedDocument struct {
	ID           string          `json:"id"`
	Version      int64           `json:"version"`
	Offset       int64           `json:"offset"`
	Title        string          `json:"title,omitempty"`
	URL          string          `json:"url,omitempty"`
	ContentType  string          `json:"content_type"`
	UpdatedAt    time.Time       `json:"updated_at"`
	LoggedAt     time.Time       `json:"logged_at"`
	SearchableAt time.Time       `json:"searchable_at"`
	Metadata     map[string]any  `json:"metadata,omitempty"`
	Text         string          `json:"text"`
	Entries      []exportedEntry `json:"entries"`
}

type exportedEntry struct {
	ID     string `json:"id"`
	Start  int    `json:"start"`
	End    int    `json:"end"`
	Tokens int    `json:"tokens"`
	// Vector is little-endian float32 in base64.
	Vector string `json:"vector"`
}

type exportedEnd struct {
	Documents int64 `json:"documents"`
	Entries   int64 `json:"entries"`
}

// exportPage is how many documents are read at a time.
const exportPage = 64

// exportEntries sends everything that callers may see of a generation, as NDJSON, in the order of the documents' keys. Each document is whole, at one version; documents that
// change meanwhile are at the one version or the other.
func (x *Indexer) exportEntries(c echo.Context) error {
	ctx := c.Request().Context()
	g := x.lookup(c.Param("name"))
	if g == nil {
		return asProblem(fmt.Errorf("%w: %s", ErrNotFound, c.Param("name")))
	}
	if _, err := g.usable(); err != nil {
		return asProblem(err)
	}
	info := g.info()
	w := c.Response()
	control := http.NewResponseController(w)
	w.Header().Set(echo.HeaderContentType, "application/x-ndjson")
	w.Header().Set(echo.HeaderCacheControl, "no-store")
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	send := func(line exported) error {
		_ = control.SetWriteDeadline(time.Now().Add(30 * time.Second)) // one that reads may take its time, one that hangs is let go
		return encoder.Encode(line)
	}
	head := exportedGeneration{Name: info.Name, Recipe: info.Recipe, Dim: g.made.Dim, Origin: g.made.Origin, AsOf: info.AsOf, Created: info.Created, Documents: info.Progress.Documents}
	if err := send(exported{Generation: &head}); err != nil {
		return nil // nobody reads any more
	}
	var end exportedEnd
	for after := ""; ; {
		page, err := x.config.Store.Scan(ctx, g.name, after, exportPage)
		if err != nil {
			// The status is gone: that the last line is missing tells the reader.
			x.config.Logger.Warn("an export ends before its end", "generation", g.name, "error", err)
			return nil
		}
		if len(page) == 0 {
			break
		}
		for i := range page {
			rev := &page[i]
			after = rev.Key
			if rev.Version == 0 || rev.Deleted || rev.Tenant != "" || rev.Readers() != nil {
				continue
			}
			end.Documents++
			end.Entries += int64(len(rev.Entries))
			if err := send(exported{Document: exportDocument(rev)}); err != nil {
				return nil
			}
		}
		if x.ended(ctx) {
			return nil
		}
	}
	_ = send(exported{End: &end})
	return nil
}

// ended tells whether the caller or the program has gone.
func (x *Indexer) ended(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return true
	case <-x.stopping():
		return true
	default:
		return false
	}
}

func exportDocument(rev *vectordb.Revision) *exportedDocument {
	id := vectordb.DocumentID(rev.Key)
	d := &exportedDocument{
		ID: id, Version: rev.Version, Offset: stream.OffsetOf(rev.Version), Title: rev.Title, URL: rev.URL, ContentType: rev.ContentType,
		UpdatedAt: rev.UpdatedAt.UTC(), LoggedAt: rev.LoggedAt.UTC(), SearchableAt: rev.SearchableAt.UTC(), Metadata: rev.Metadata, Text: rev.Text,
		Entries: make([]exportedEntry, len(rev.Entries)),
	}
	seen := map[vectordb.Hash]int{}
	for i := range rev.Entries {
		e := &rev.Entries[i]
		d.Entries[i] = exportedEntry{ID: vectordb.EntryID(id, e.Hash, seen[e.Hash]), Start: e.Start, End: e.End, Tokens: e.Tokens, Vector: encodeVector(e.Vector)}
		seen[e.Hash]++
	}
	return d
}

func encodeVector(v []float32) string {
	b := make([]byte, 0, 4*len(v))
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return base64.StdEncoding.EncodeToString(b)
}
