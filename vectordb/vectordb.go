// Package vectordb is where generations live: every chunk of every document with its vector, durable and searchable.
//
// A generation is a whole index of the corpus, made by one [Recipe]. There is one write verb, [Writer.Apply]: a [Revision] is all
// entries of one document at one version, and applying it replaces every older one; a delete is a flag in it; one that is older than what is
// stored does nothing, also after a delete. So upsert, shrink, delete, redelivery and a zombie's late write are one idempotent rule.
//
// [Memory] is the obvious model of it. vectordb/flat is the embedded store, vectordb/milvus the shared one.
// Package vectordb/vectordbtest is the conformance suite.
package vectordb

import (
	"context"
	"errors"
	"time"
)

// Hash identifies an embedder input (context and text of a chunk): the first 16 bytes of its SHA-256.
type Hash [16]byte

// Generation is one whole index.
type Generation struct {
	// Name is [a-z][a-z0-9_]{0,62}.
	Name string `json:"name"`
	// Fingerprint holds everything that decides an entry's text and vector. A store refuses to open a generation under another one.
	Fingerprint string `json:"fingerprint"`
	// Dim is the length of its vectors.
	Dim int `json:"dim"`
	// Origin is the identity of the log that it is a view of.
	Origin string `json:"origin"`
}

// Revision is one document at one version. Content and access are versioned apart, so either can be written without the other.
type Revision struct {
	// Key is the document's key in the corpus (tenant + U+001F + id, or the id).
	Key string
	// Version of the content; 0: this revision says nothing of the content, only of the access.
	Version int64
	// Deleted: the document is gone as of Version; the fields below it are empty.
	Deleted bool

	// Text is the document's text; every entry is a span of it.
	Text        string
	ContentType string
	Title, URL  string
	// UpdatedAt is the time of change at the origin, LoggedAt when the change entered the log. Stored to the microsecond.
	UpdatedAt, LoggedAt time.Time
	// SearchableAt is set by the store when it makes the revision visible. Apply ignores what is passed in.
	SearchableAt time.Time
	// Metadata values are string, float64, bool or []string.
	Metadata map[string]any
	Tenant   string
	// ACL is the document's own access list: nil is everybody of the tenant, empty is nobody.
	ACL []string

	// Access overrides ACL, whatever version of the content follows. Its Version 0: nothing said.
	Access Access

	// Entries are ordered by Start, then End.
	Entries []Entry
}

// Access is who may read a document, set apart from its content.
type Access struct {
	Version int64
	// Clear takes the override back; else ACL is the list, where nil and empty both are nobody.
	Clear bool
	ACL   []string
}

// Readers returns the access list in force: nil is everybody of the tenant.
func (r *Revision) Readers() []string {
	if r.Access.Version > 0 && !r.Access.Clear {
		if r.Access.ACL == nil {
			return []string{}
		}
		return r.Access.ACL
	}
	return r.ACL
}

// Entry is one chunk and its vector as stored.
type Entry struct {
	// Start and End are the span in the document's text, in bytes.
	Start, End int
	// Tokens is its length in the chunker's tokenizer.
	Tokens int
	// Hash identifies the embedder's input. Two entries of one generation with equal hashes have equal vectors.
	Hash Hash
	// Vector has the generation's dimension and unit length; all zeros for an input without any content, which dense search never finds.
	// Apply keeps no reference to it; what Current returns may be shared: don't write to it.
	Vector []float32
}

// Write is one durable step.
type Write struct {
	// Revisions may hold several of one document; the newest wins. One whose version is already stored changes nothing, not even SearchableAt.
	Revisions []Revision
	// Checkpoint is, for each partition it names, the next offset that the writer has to read: everything below is applied with this
	// write or was before. It is kept in the same durable step as Revisions and returned by Checkpoint. Stores that leave positions to consumer groups ignore it.
	// A key below 0 is no partition; AsOf is one. Stores keep it like any other.
	Checkpoint map[int32]int64
	// Rewrite writes contents of a version that is stored already anew, for repairs: what is stored of it goes, whatever it is. An older version still does nothing.
	Rewrite bool
}

// AsOf is the key of a checkpoint under which a writer keeps, in milliseconds since 1970, a moment before which everything that had entered the log was
// applied. 0: none is known.
const AsOf int32 = -1

// Writer is the write side. One process writes a generation of an embedded store; several may write one of a shared store.
type Writer interface {
	// Apply blocks until the write can be found by a Search (or, on a store that shows writes later, until it is acknowledged), for all
	// revisions at once: no reader ever sees half of one revision, or two versions of a document, or none in between.
	// After a crash a prefix of the writes is there, each whole; a write that was lost took its Checkpoint with it.
	// Errors: ErrNoGeneration; ErrInvalid for wrong dimensions, NaN or bad spans (nothing of the write was applied, trying again is useless); any other error may be tried again, and is harmless to.
	Apply(ctx context.Context, generation string, w Write) error
	// Sync blocks until everything applied so far survives a loss of power.
	Sync(ctx context.Context, generation string) error
}

// Reader reads what is stored, for reuse, for display and for verification.
type Reader interface {
	// Current returns the stored revisions of the keys, in their order; what was never written has Version 0. A deleted one has Deleted set and its
	// version. Vectors are included. Text is included.
	Current(ctx context.Context, generation string, keys []string) ([]Revision, error)
	// Scan returns up to limit revisions with keys above after, in byte order of keys, deleted ones included: page on with the last key until none is returned.
	Scan(ctx context.Context, generation, after string, limit int) ([]Revision, error)
	// Checkpoint returns the last applied checkpoint, partition by partition.
	Checkpoint(ctx context.Context, generation string) (map[int32]int64, error)
	// Stats counts what is live.
	Stats(ctx context.Context, generation string) (Stats, error)
}

// Stats describes a generation's size.
type Stats struct {
	Documents int   `json:"documents"`
	Chunks    int   `json:"chunks"`
	Tokens    int64 `json:"tokens"`
	Bytes     int64 `json:"bytes"` // on disk
	// Reclaimable counts tombstones and replaced entries not yet reclaimed.
	Reclaimable int `json:"reclaimable"`
}

// Searcher is the read side of answers.
type Searcher interface {
	// Search answers from one immutable view of the generation: both legs, filters and the texts of the hits agree.
	// Errors: ErrNoGeneration, ErrInvalid (dimension, filter), ErrUnsupported (a leg that the store does not have).
	Search(ctx context.Context, generation string, q Query) ([]Hit, error)
}

// Query says what to search for. A leg runs if its field is set.
type Query struct {
	// Vector is the dense leg: nearest by cosine, of unit length. All zeros find nothing.
	Vector []float32
	// Text is the lexical leg: BM25 over Terms(Text).
	Text string
	// Depth is how many candidates each leg brings. Default 10.
	Depth int
	// Filter restricts both legs before ranking; nil allows everything.
	Filter *Filter
	// Tenant must equal the document's.
	Tenant string
	// Principals are the caller's; a document with an access list needs one of them.
	Principals []string
	// Fuse merges the legs into the order of the answer, and may cut it. It is called once, with candidates of the same view, best first.
	// nil: the only leg's own order. With both legs it is required.
	//
	// In each leg candidates of equal score stand in the order of Key, then of the chunk's Start and End. Where the depth cuts through candidates of equal score,
	// which of them are left out is the store's choice.
	Fuse func(dense, lexical []Candidate) []Candidate
}

// Candidate is a chunk found by a leg.
type Candidate struct {
	// Entry identifies the chunk within the view; it means nothing outside the call.
	Entry uint64
	// Key is the document's key.
	Key string
	// Score is cosine in the dense leg and BM25 in the lexical one; after Fuse, whatever Fuse sets.
	Score float64
}

// Hit is a chunk with what is needed to show it.
type Hit struct {
	Revision // without Text, Entries' vectors: Entries is nil
	// ID is the chunk's: EntryID of its document's id, input hash and repetition.
	ID string
	// Entry is the chunk; its Vector is nil.
	Entry Entry
	// Text is the chunk's own text: the document's bytes [Entry.Start:Entry.End).
	Text  string
	Score float64
}

// Catalog keeps the generations.
type Catalog interface {
	// Create makes an empty generation. It does nothing if one of that name exists with the same fields; ErrMismatch if with others.
	Create(ctx context.Context, g Generation) error
	// Drop removes a generation and frees its space. Readers in flight finish or get ErrNoGeneration. Dropping what is not there is no error.
	Drop(ctx context.Context, name string) error
	// List returns the generations by name.
	List(ctx context.Context) ([]Generation, error)
}

// Delayed is implemented by stores that acknowledge a write before a Search can find it.
type Delayed interface {
	// Visible blocks until a Search by any process finds everything that was acknowledged before the call. What has been written is durable
	// whether or not it returns; an error may be tried again.
	Visible(ctx context.Context, generation string) error
}

// Reclaimer is implemented by stores whose files keep what was replaced or deleted until they are written anew.
type Reclaimer interface {
	// Reclaim takes off the disk what the generation has replaced or deleted of the documents, and returns when it is gone. Readers in flight may hold it a little longer.
	Reclaim(ctx context.Context, generation string, keys ...string) error
}

// Aliased is implemented by stores in which the live generation has a second name, for whoever looks into the store by other means. liverag itself reads
// and writes by the generation's own name.
type Aliased interface {
	// Promote moves that name to a generation, in one step. ErrNoGeneration; any other error may be tried again.
	Promote(ctx context.Context, generation string) error
}

// Store is everything. All methods are safe for concurrent use.
type Store interface {
	Catalog
	Writer
	Reader
	Searcher
	// Close makes everything durable and frees what is held. Later calls fail with ErrClosed.
	Close() error
}

var (
	// ErrNoGeneration: there is no generation of that name.
	ErrNoGeneration = errors.New("no such generation")
	// ErrMismatch: the generation exists with another fingerprint, dimension or origin.
	ErrMismatch = errors.New("generation was made by another recipe or from another log")
	// ErrInvalid: the argument can't be stored or searched for, now or later.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported: this store can't do that.
	ErrUnsupported = errors.New("not supported by this store")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
	// ErrLocked: another process uses the data directory.
	ErrLocked = errors.New("data directory is in use")
	// ErrFormat: a file of a newer or unknown format; the message says how to rebuild it from the log.
	ErrFormat = errors.New("unknown format")
	// ErrCorrupt: a file that fails its checksum; the message says how to rebuild it from the log.
	ErrCorrupt = errors.New("corrupt")
)
