// Package stream is the log of document changes: what a change is, how it is read and how it is written.
//
// The log is the truth. Everything else liverag keeps (chunks, vectors, postings) is a view that can be
// folded from it again. A document's changes share one partition, so their offsets order them; offsets of
// different partitions are not comparable.
//
// [Log] opens a [Source] to read from and is a [Sink] to write to. Package stream/kafka implements all of it on
// Kafka's protocol, for a real cluster and for the log embedded in the process. Package stream/streamtest
// is the conformance suite.
package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Kind says what a change does to its document.
type Kind uint8

const (
	// Upsert replaces the whole document.
	Upsert Kind = iota + 1
	// Delete removes the document (a tombstone). Deleting what does not exist is a valid change.
	Delete
	// Access sets or clears who may read the document, whatever its content's version is.
	Access
	// Invalid is a log record that is no change; Change.Problem says why. It must be dead-lettered, then counted as done.
	Invalid
)

func (k Kind) String() string {
	switch k {
	case Upsert:
		return "upsert"
	case Delete:
		return "delete"
	case Access:
		return "access"
	case Invalid:
		return "invalid"
	}
	return "unknown"
}

// Content types a document may have. TextHTML is turned into Markdown by the reader of the log, once;
// the others are kept byte for byte.
const (
	TextPlain    = "text/plain"
	TextMarkdown = "text/markdown"
	TextHTML     = "text/html"
)

// Document is the full new content of a document, as callers send it and as the log's values hold it.
type Document struct {
	// Text is required but may be empty: an empty document is kept, has no chunks and is never a hit.
	Text string `json:"text"`
	// ContentType is one of TextPlain (the default), TextMarkdown, TextHTML.
	ContentType string `json:"content_type,omitempty"`
	Title       string `json:"title,omitempty"`
	URL         string `json:"url,omitempty"`
	// UpdatedAt is when the document changed at its origin. Zero: the change's own Time.
	UpdatedAt time.Time `json:"updated_at,omitzero"`
	// Metadata values are string, float64, bool or []string.
	Metadata map[string]any `json:"metadata,omitempty"`
	Tenant   string         `json:"tenant,omitempty"`
	// ACL lists the principals that may read the document. nil: every caller of the tenant; empty: nobody.
	ACL []string `json:"acl,omitzero"`
}

// Position is a place in the log.
type Position struct {
	Partition int32
	Offset    int64
}

// Change is one log record, decoded.
type Change struct {
	Kind Kind
	// Tenant and ID name the document. See Key.
	Tenant, ID string
	// Document is set for Upsert only.
	Document *Document
	// ACL is the new access list of an Access change. nil clears the override; empty means nobody.
	ACL []string
	// Backfill marks imported history: its freshness counts apart.
	Backfill bool

	// The fields below are set by a Source and ignored by a Sink.

	Position Position
	// Version orders the changes of one document. See the function Version.
	Version int64
	// Time is the record's timestamp: when the change entered the log.
	Time time.Time
	// Size is how many bytes the record's key, value and headers have.
	Size int
	// Problem is set for Invalid only.
	Problem *Problem
	// Raw is the record as read, for the dead-letter topic. Sources always set it.
	Raw *Raw
}

// Key is the document's key in its corpus: the id, or tenant + U+001F + id.
func (c *Change) Key() string { return Key(c.Tenant, c.ID) }

// Problem is why a record is no change or can't be indexed.
type Problem struct {
	// Code is a stable word, one of the Code constants.
	Code string
	// Detail is a sentence for a person.
	Detail string
}

func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// Stable codes of a Problem. They appear in dead letters and in HTTP errors.
const (
	CodeIDInvalid        = "id_invalid"         // empty, over 1024 bytes, not UTF-8, control characters
	CodeKeyMissing       = "key_missing"        // a record without a key
	CodeNotADocument     = "not_a_document"     // the value is no JSON object with a text
	CodeUnknownField     = "unknown_field"      // a field the contract does not have
	CodeWrongType        = "wrong_type"         // a field of another type than the contract's
	CodeInvalidUTF8      = "invalid_utf8"       // text that is not UTF-8
	CodeDocumentTooLarge = "document_too_large" // text over the limit
	CodeTenantMismatch   = "tenant_mismatch"    // key and document disagree
	CodeMappingFailed    = "mapping_failed"     // the configured mapping finds no id or no text
	CodeInputTooLong     = "input_too_long"     // an embedder input over its limit, under the policy "reject"
	CodeEmbedRejected    = "embed_rejected"     // the model refuses this very input
	CodeChunkerRejected  = "chunker_rejected"   // somebody else's chunker can't cut this very text
)

// Raw is a log record as it was read.
type Raw struct {
	Topic   string
	Key     []byte
	Value   []byte
	Headers []Header
}

// Backfill tells whether the record is marked as imported history.
func (r *Raw) Backfill() bool {
	return slices.ContainsFunc(r.Headers, func(h Header) bool { return h.Key == HeaderBackfill })
}

// Header is one record header.
type Header struct {
	Key   string
	Value []byte
}

// HeaderBackfill marks a record as imported history; its value is ignored.
const HeaderBackfill = "liverag-backfill"

// End says how far a partition reached at a moment: every change acknowledged before At has an offset below Offset.
type End struct {
	Partition int32
	Offset    int64
	At        time.Time
}

// Batch is what one call of Source.Next learned. Within a partition, Changes are in offset order.
type Batch struct {
	Changes []Change
	// Fetched is, for each partition that moved, the next offset to be read. It passes over gaps that hold no
	// change (compacted offsets, transaction markers, aborted transactions), so a partition read to its end has
	// Fetched.Offset equal to End.Offset.
	Fetched []Position
	// Assigned holds partitions now owned, each with the offset reading starts from. One that is also in Lost was lost first; one
	// in Revoked is never here.
	Assigned []Position
	// Revoked partitions are given away at the next call of Next: finish or abandon their work and commit before it.
	Revoked []int32
	// Lost partitions belong to somebody else already: abandon their work, commit nothing.
	Lost []int32
	// Ends are fresh observations, at least every 250 ms for each owned partition.
	Ends []End
	// Missed partitions went on from the log's first offset, because what came next was removed before it was read. What it said is not known.
	Missed []int32
}

// Source reads changes. It is used by one goroutine, except Pause, Resume and Commit, which are safe from any.
type Source interface {
	// Next blocks until something is known that was not before: changes, ownership, ends. A rebalance completes only
	// when Next is called again. A bounded source ends with io.EOF. Transient broker errors are retried inside, for
	// ever, with Status telling; an error means that this source is of no use any more.
	Next(ctx context.Context) (Batch, error)
	// Pause stops delivery of the partitions' changes from the next call of Next on; ends are still observed.
	Pause(partitions ...int32)
	// Resume undoes Pause.
	Resume(partitions ...int32)
	// Commit stores, for each partition, the next offset to read after a restart. A source that was opened with
	// From.Positions keeps none, and does nothing: its caller keeps them. Committing a partition that is not owned is
	// refused silently. It blocks until the broker acknowledged.
	Commit(ctx context.Context, next ...Position) error
	// Close frees what the source holds. Next returns an error afterwards.
	Close() error
}

// Sink appends changes to the log.
type Sink interface {
	// Append blocks until every change is durable in the log, and says where each is, in order. On an error some may have been
	// written; appending them again is harmless. Retries of transient errors happen inside, until ctx ends.
	// Errors: ErrLogFull, ErrDiskFull, ErrUnavailable and of these ErrReadOnly, *Problem for a change that can't be encoded.
	Append(ctx context.Context, changes ...Change) (Receipt, error)
}

// Receipt names where appended changes are. Its Token is what callers pass as `after`.
type Receipt struct {
	Identity  string
	Positions []Position
}

// DeadLetter is a record that can't be indexed, with the reason.
type DeadLetter struct {
	Raw      *Raw
	Position Position
	// Version is the change's. 0 in letters of programs that did not say.
	Version int64
	Time    time.Time
	Problem Problem
	// Attempts counts how often indexing it was tried.
	Attempts int
	// Key is the key of the document that it would have changed. Empty: the record names none.
	Key string
	// Generation is the one that can't index it: another recipe may be able to. Empty in letters of programs that did not say.
	Generation string
}

// DeadLetters is where poison goes so that it stops no partition.
type DeadLetters interface {
	// Send blocks until the letters are durable; it retries transient errors until ctx ends.
	Send(ctx context.Context, letters ...DeadLetter) error
}

// Letter is an open dead letter: what every generation that rejected one log record has said of it.
type Letter struct {
	// DeadLetter is the newest of them. Where Letters.List returns it, Raw is nil.
	DeadLetter
	// ID names the rejected record, like 3-1042: partition and offset. The letter of a log that was there before under the same name ends in @ and
	// something of that log's identity.
	ID string
	// Generations rejected it, in the order in which they did.
	Generations []string
	// RejectedAt is when the newest was written; Time is when the change entered the log.
	RejectedAt time.Time
	// Sequence orders letters by when each was first written.
	Sequence int64
	// Size is how many bytes the rejected record's key, value and headers have.
	Size int
}

// LetterQuery selects letters. Zero fields allow everything.
type LetterQuery struct {
	// After is the Sequence of the last letter that was seen.
	After int64
	// Limit is the most that are returned. 0: all.
	Limit int
	Code  string
	// Key is a document's.
	Key string
	// Discarded asks for letters that were discarded instead of open ones: those changes are not in the index, and that is meant.
	Discarded bool
}

// Outcome is how a letter was settled.
type Outcome string

const (
	// Redriven: indexing was tried again, and worked.
	Redriven Outcome = "redriven"
	// Superseded: its document has a newer change in the log, so the letter has nothing to say any more.
	Superseded Outcome = "superseded"
	// Discarded: somebody decided that it does not matter.
	Discarded Outcome = "discarded"
)

// Letters reads and settles dead letters. A letter is open from its first rejection until it is settled; a rejection after that opens it anew. Safe for concurrent use.
type Letters interface {
	// List returns open letters, or discarded ones, those first written first, as of everything acknowledged before the call.
	List(ctx context.Context, q LetterQuery) ([]Letter, error)
	// Letter returns one open letter with its record. ErrNoLetter: none of that id is open.
	Letter(ctx context.Context, id string) (Letter, error)
	// Records counts what of a document's rejected records is still stored, whether or not its letters are open: the original bytes are in all of them.
	Records(ctx context.Context, key string) (int, error)
	// Settle closes letters durably. ErrNoLetter, and nothing is settled: one of them is not open.
	Settle(ctx context.Context, outcome Outcome, ids ...string) error
}

// Identity says which log this is. Offsets of logs with different IDs have nothing to do with each other.
type Identity struct {
	// Topic is its name, ID the broker's unique id of this incarnation of it.
	Topic string
	ID    string
	// Partitions is how many it has. Document ids are spread by it, so it must not change under an index.
	Partitions int32
}

// From says where a source starts and who keeps its place.
type From struct {
	// Group is the consumer group that shares the partitions and keeps the place. Empty: the source owns every partition, and starts from Positions.
	Group string
	// Positions is the next offset to read for each partition; what is absent starts at the beginning.
	Positions map[int32]int64
	// Since, if not zero, starts at the first change at or after that time instead of the beginning.
	Since time.Time
	// Spread tells that partitions were added to the topic while it held documents, so that a document may have changes in two of them. Those in the partition
	// that its key has now are the later ones: their versions are of the next epoch.
	Spread bool
	// Fresh leaves imported history out: changes with Backfill are passed over like a gap, unread. Changes of access are not: what comes after them must not be shown to
	// those whom they keep out.
	Fresh bool
}

// Log is one corpus' log. All methods are safe for concurrent use.
type Log interface {
	Sink
	// Identity asks the broker for the log's identity, so that a re-created topic is noticed.
	Identity(ctx context.Context) (Identity, error)
	// Ends asks the broker how far each partition reaches now, covering everything acknowledged before the call.
	Ends(ctx context.Context) ([]End, error)
	// Open opens a source. Each generation has its own.
	Open(ctx context.Context, from From) (Source, error)
}

// Retention says how long a log keeps what it was told.
type Retention struct {
	// Deletes is for how long, at the least, a tombstone can be read after it was written. 0 or less: for ever.
	Deletes time.Duration
	// Documents: the newest change of a document stays until the next one of it. So a document that the log does not hold was deleted.
	Documents bool
}

// Forgetful is implemented by logs that forget. A log that does not implement it keeps everything.
type Forgetful interface {
	// Retention asks the broker. Where it does not say, the answer promises as little as may be true.
	Retention(ctx context.Context) (Retention, error)
}

// Groups tells how far the members of a consumer group have come, to whoever is not one of them.
type Groups interface {
	// Committed returns, for each partition that the group has committed, the next offset that it would read after a restart. A group that
	// nobody ever joined has committed nothing.
	Committed(ctx context.Context, group string) (map[int32]int64, error)
}

// Compactor is implemented by logs whose compaction is ours to ask for.
type Compactor interface {
	// Embedded tells whether it is: a cluster compacts by itself.
	Embedded() bool
	// CompactNext makes the next start remove what newer records replaced, however little that is.
	CompactNext() error
}

// Register is one small durable value with compare-and-set, shared by every process on the same log. It holds the
// generations and the alias. Safe for concurrent use.
type Register interface {
	// Load returns the value (nil at first) and its sequence (0 at first) as of everything acknowledged before the call.
	Load(ctx context.Context) (sequence int64, value []byte, err error)
	// CompareAndSet replaces the value if its sequence still is the given one, else returns ErrConflict.
	// The new sequence is one more. It blocks until the new value is durable and is what Load returns.
	CompareAndSet(ctx context.Context, sequence int64, value []byte) error
	// Wait blocks until the sequence is above the given one.
	Wait(ctx context.Context, above int64) (sequence int64, value []byte, err error)
}

var (
	// ErrLogFull: the embedded log reached its size limit. Nothing was dropped; deletes and compaction, or a higher limit, help.
	ErrLogFull = errors.New("log is full")
	// ErrDiskFull: the disk that holds the embedded log has no room. Nothing was dropped; as soon as there is room again, writes go on.
	ErrDiskFull = errors.New("disk is full")
	// ErrUnavailable: the broker can't be reached within the time given.
	ErrUnavailable = errors.New("log is unavailable")
	// ErrReadOnly: the embedded log can't be written where it is. It is an ErrUnavailable, and says what to do.
	ErrReadOnly = fmt.Errorf("%w: it can't be written", ErrUnavailable)
	// ErrForgotten: the log dropped changes before they were read, and nothing that is left tells what they said.
	ErrForgotten = errors.New("the log has dropped changes that were not read")
	// ErrNoLetter: no open dead letter has that id.
	ErrNoLetter = errors.New("no such dead letter")
	// ErrConflict: somebody else changed the register first.
	ErrConflict = errors.New("changed by somebody else")
	// ErrTokenUnknown: a token of another log, or of none.
	ErrTokenUnknown = errors.New("token is of another log")
)
