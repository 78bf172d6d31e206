package indexer

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/embedder"
	"github.com/liverag/liverag/internal/htmltext"
	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// Receipt says what there is of one document, everywhere.
type Receipt struct {
	ID     string    `json:"id"`
	Tenant string    `json:"tenant,omitempty"`
	At     time.Time `json:"at"`
	// Deleted: its newest change in the log is a delete, or the log knows nothing of it.
	Deleted bool `json:"deleted"`
	// Version is that of its newest change; 0: the log knows nothing of it.
	Version int64 `json:"version"`
	// OldRecords of it are still in the log, with content; compaction takes them.
	OldRecords int `json:"old_records"`
	// DeadLetters are the records in the dead-letter topic that hold original bytes of it, whether their letters are open or settled, until the topic's retention
	// takes them.
	DeadLetters int              `json:"dead_letters"`
	Generations []ReceiptOfIndex `json:"generations"`
	// Purged says what was removed beside; absent if that was not asked for.
	Purged *Purged `json:"purged,omitempty"`
	// Gone: it is deleted, and no generation has an entry of it.
	Gone bool `json:"gone"`
}

// ReceiptOfIndex is what one generation holds of the document.
type ReceiptOfIndex struct {
	Name string `json:"name"`
	// State is absent, deleted or present.
	State   string `json:"state"`
	Version int64  `json:"version"`
	Entries int    `json:"entries"`
}

// Purged is what a purge removed.
type Purged struct {
	// Vectors were in the caches of this process, and no other document uses them. They are found by the texts of old records: of what compaction took
	// from the log before, nothing is known.
	Vectors int `json:"vectors"`
	// Store tells what became of replaced and deleted content in the store's files.
	Store string `json:"store"`
	// Log tells what becomes of old records.
	Log string `json:"log"`
}

// ErrNotDeleted: a document that is there can't be purged.
var ErrNotDeleted = errors.New("the document is not deleted")

// maxPurged bounds how many inputs of a document are looked for in the caches.
const maxPurged = 100_000

// ofModel is what a document's old versions gave a model to embed.
type ofModel struct {
	model  embedder.Embedder
	inputs map[vectordb.Hash]string
}

// Receipt looks for a document in the log and, once they have caught up with that, in every generation. purge removes what is left beside of one that is deleted: cached vectors
// that nothing else uses, what the embedded store's files still hold of it, and its old records from an embedded log.
func (x *Indexer) Receipt(ctx context.Context, tenant, id string, purge bool) (Receipt, error) {
	key := stream.Key(tenant, id)
	receipt := Receipt{ID: id, Tenant: tenant, At: time.Now().UTC(), Deleted: true, Generations: []ReceiptOfIndex{}}
	var all []*generation
	x.mu.Lock()
	for _, g := range x.generations {
		if g.desired() != drop {
			all = append(all, g)
		}
	}
	x.mu.Unlock()
	slices.SortFunc(all, func(a, b *generation) int { return cmp.Compare(a.name, b.name) })

	ends, err := x.config.Log.Ends(ctx)
	if err != nil {
		return receipt, err
	}
	log, err := x.readLog(ctx, map[int32]int64{})
	if err != nil {
		return receipt, err
	}
	defer log.close()
	models := map[string]*ofModel{}
	err = log.until(ctx, ends, func(c *stream.Change) error {
		if c.ID == "" || c.Key() != key || c.Kind == stream.Access {
			return nil
		}
		if c.Kind != stream.Delete {
			receipt.OldRecords++
		}
		if c.Kind != stream.Invalid && c.Version > receipt.Version { // what is older may be read later, in another partition
			receipt.Version, receipt.Deleted = c.Version, c.Kind == stream.Delete
		}
		if purge && c.Kind == stream.Upsert {
			for _, g := range all {
				if err := g.remember(ctx, models, c.Document); err != nil {
					return fmt.Errorf("generation %s: which vectors were the document's: %w", g.name, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return receipt, err
	}
	if purge && !receipt.Deleted {
		return receipt, ErrNotDeleted
	}
	receipt.Gone = receipt.Deleted
	for _, g := range all {
		if g.desired() == Run && !g.isFailed() {
			if err := (&verification{x: x, g: g}).await(ctx, ends); err != nil {
				return receipt, fmt.Errorf("generation %s: %w", g.name, err)
			}
		}
		revs, err := x.config.Store.Current(ctx, g.name, []string{key})
		if errors.Is(err, vectordb.ErrNoGeneration) {
			continue
		}
		if err != nil {
			return receipt, fmt.Errorf("read generation %s: %w", g.name, err)
		}
		of := ReceiptOfIndex{Name: g.name, State: "absent", Version: revs[0].Version, Entries: len(revs[0].Entries)}
		switch {
		case revs[0].Deleted:
			of.State = "deleted"
		case revs[0].Version > 0:
			of.State, receipt.Gone = "present", false
		}
		receipt.Generations = append(receipt.Generations, of)
	}
	if receipt.DeadLetters, err = x.config.Letters.Records(ctx, key); err != nil {
		return receipt, err
	}
	if !purge {
		return receipt, nil
	}
	receipt.Purged = &Purged{}
	if receipt.Purged.Vectors, err = x.purgeVectors(ctx, all, models); err != nil {
		return receipt, err
	}
	receipt.Purged.Store = "the store's own compaction removes what was deleted"
	if reclaimer, ok := x.config.Store.(vectordb.Reclaimer); ok {
		for _, g := range all {
			if err := reclaimer.Reclaim(ctx, g.name, key); err != nil && !errors.Is(err, vectordb.ErrNoGeneration) {
				return receipt, err
			}
		}
		receipt.Purged.Store = "nothing deleted or replaced of it is left in the store's files"
	}
	receipt.Purged.Log = "the cluster's compaction removes old records, as the topic is configured"
	switch compactor, ok := x.config.Log.(stream.Compactor); {
	case receipt.OldRecords == 0:
		receipt.Purged.Log = "no old records"
	case ok && compactor.Embedded():
		if err := compactor.CompactNext(); err != nil {
			return receipt, err
		}
		receipt.Purged.Log = "the embedded log is compacted at the next start, and old records are gone then"
	}
	return receipt, nil
}

// remember adds what the generation has embedded of a document.
func (g *generation) remember(ctx context.Context, models map[string]*ofModel, d *stream.Document) error {
	parts, err := g.usable()
	if err != nil {
		return nil
	}
	m := models[parts.Embedder.Name()]
	if m == nil {
		m = &ofModel{parts.Embedder, map[vectordb.Hash]string{}}
		models[parts.Embedder.Name()] = m
	}
	text, splitAs := d.Text, cmp.Or(d.ContentType, stream.TextPlain)
	if splitAs == stream.TextHTML {
		page, err := htmltext.Convert(text)
		if err != nil {
			return nil
		}
		text, splitAs = page.Markdown, stream.TextMarkdown
	}
	chunks, err := parts.Chunker.Split(ctx, splitAs, text)
	if err != nil && chunkerProblem(err) == nil { // what it can't cut was never embedded
		return err
	}
	for _, chunk := range chunks {
		in := chunk.Input(text)
		sum := sha256.Sum256([]byte(in))
		if len(m.inputs) < maxPurged {
			m.inputs[vectordb.Hash(sum[:16])] = strings.Clone(in)
		}
	}
	return nil
}

// purgeVectors takes from the caches what no document uses any more.
func (x *Indexer) purgeVectors(ctx context.Context, all []*generation, models map[string]*ofModel) (removed int, err error) {
	for _, g := range all {
		parts, err := g.usable()
		if err != nil {
			continue
		}
		m := models[parts.Embedder.Name()]
		if m == nil || len(m.inputs) == 0 {
			continue
		}
		for after := ""; ; {
			page, err := x.config.Store.Scan(ctx, g.name, after, verifyPage)
			if err != nil {
				return 0, fmt.Errorf("scan generation %s: %w", g.name, err)
			}
			if len(page) == 0 {
				break
			}
			after = page[len(page)-1].Key
			for i := range page {
				for _, e := range page[i].Entries {
					delete(m.inputs, e.Hash)
				}
			}
		}
	}
	for _, m := range models {
		inputs := make([]string, 0, len(m.inputs))
		for _, in := range m.inputs {
			inputs = append(inputs, in)
		}
		n, err := embedder.Purge(ctx, m.model, embedder.Index, inputs)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// verifyDocument answers POST /verify/document.
func (x *Indexer) verifyDocument(c echo.Context) error {
	var request struct {
		ID     string `json:"id"`
		Tenant string `json:"tenant"`
		Purge  bool   `json:"purge"`
	}
	if err := decode(c, &request, `{"id":"kb/refunds.md","purge":false}`); err != nil {
		return err
	}
	for _, name := range []string{request.ID, cmp.Or(request.Tenant, "none")} {
		if p := stream.CheckID(name); p != nil {
			return problem.New(http.StatusBadRequest, p.Code, "%s", p.Detail)
		}
	}
	if x.live.Load() == nil {
		return problem.New(http.StatusServiceUnavailable, "not_ready", "the indexer is starting; /readyz tells when it has")
	}
	receipt, err := x.Receipt(c.Request().Context(), request.Tenant, request.ID, request.Purge)
	if err != nil {
		return asProblem(err)
	}
	return c.JSON(http.StatusOK, receipt)
}
