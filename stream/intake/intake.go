// Package intake takes changes over HTTP and appends them to the log: PUT and DELETE /documents/{id}, POST /documents (NDJSON),
// PUT and DELETE /acl/{id}. A change is answered once it is durable.
package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/stream"
)

// HeaderBackfill on a request marks its changes as imported history; ?backfill=1 does the same.
const HeaderBackfill = "Liverag-Backfill"

// OwnLimits are the routes whose bodies this package bounds itself, so that no other limit gets in the way: one of them is a stream of
// any length, and a document that is too large has a code of its own.
var OwnLimits = []string{"POST /documents", "PUT /documents/*"}

// MaxWait is the longest that a request may wait for its change to be searchable.
const MaxWait = 5 * time.Minute

// maxAccess bounds the body of PUT /acl/{id}.
const maxAccess = 1 << 20

// Waiter knows when a change can be found.
type Waiter interface {
	// WaitSearchable blocks until the changes at the positions can be found in the live generation, whatever else waits.
	// It looks before it waits, so a ctx that is done already only looks. When ctx ends first it returns ctx's error.
	WaitSearchable(ctx context.Context, positions []stream.Position) error
}

// Config is what an Intake works with. Fields without a default are required.
type Config struct {
	Sink   stream.Sink
	Waiter Waiter
	// MaxBytes is the longest text of a document. Defaults to 8 MiB.
	MaxBytes int
	// LargeBytes bounds how many bytes of documents above 1 MiB are on their way into the log at once; what comes above it waits, and is told to come back
	// (503 overloaded) after Timeout. A document takes several times its size while it is decoded, encoded and written. Defaults to 96 MiB.
	LargeBytes int64
	// Timeout is how long an append may take before the log counts as unavailable. Defaults to 10 s.
	Timeout time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Intake is the HTTP side of a log. It is safe for concurrent use.
type Intake struct {
	config Config
	// maxBody bounds a document's JSON: a text of MaxBytes in which every character is escaped as some encoders do (\u00e4 for two bytes,
	// a surrogate pair for four), and the other fields.
	maxBody int64
	room    *room
}

// New returns an Intake.
func New(config Config) *Intake {
	if config.MaxBytes == 0 {
		config.MaxBytes = 8 << 20
	}
	if config.Timeout == 0 {
		config.Timeout = 10 * time.Second
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.LargeBytes == 0 {
		config.LargeBytes = 96 << 20
	}
	return &Intake{config: config, maxBody: 3*int64(config.MaxBytes) + 1<<20, room: newRoom(config.LargeBytes, config.Timeout)}
}

// Routes adds the routes. The bodies that PUT and POST read are bounded here: POST /documents reads its body as a stream, of any length.
func (i *Intake) Routes(e *echo.Echo) {
	e.POST("/documents", i.importLines)
	e.PUT("/documents/*", i.putDocument)
	e.DELETE("/documents/*", i.deleteDocument)
	e.PUT("/acl/*", i.putAccess)
	e.DELETE("/acl/*", i.deleteAccess)
}

func bad(code, detail string, args ...any) error {
	return problem.New(http.StatusBadRequest, code, detail, args...)
}

// refused makes an answer of a Problem.
func refused(p *stream.Problem) error {
	status := http.StatusBadRequest
	if p.Code == stream.CodeDocumentTooLarge {
		status = http.StatusRequestEntityTooLarge
	}
	return problem.New(status, p.Code, "%s", p.Detail)
}

// id takes the document's id from the path as it was sent, decoded once: echo's own parameter is decoded or not, depending on the path.
func id(c echo.Context, prefix string) (string, error) {
	id, err := url.PathUnescape(strings.TrimPrefix(c.Request().URL.EscapedPath(), prefix))
	if err != nil {
		return "", bad(stream.CodeIDInvalid, "the id in the path is not percent-encoded as it should be")
	}
	if p := stream.CheckID(id); p != nil {
		return "", refused(p)
	}
	return id, nil
}

// options are what a request says beside its body.
type options struct {
	backfill bool
	wait     time.Duration
	waits    bool
}

func parseOptions(r *http.Request, mayWait bool) (o options, err error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return o, bad("invalid_url", "the query of the URL is not percent-encoded as it should be")
	}
	if v := r.Header.Get(HeaderBackfill); v != "" {
		if o.backfill, err = strconv.ParseBool(v); err != nil {
			return o, bad("wrong_type", "the header %s must be true or false", HeaderBackfill)
		}
	}
	for name, all := range values {
		switch {
		case name == "backfill":
			b, err := strconv.ParseBool(all[0])
			if err != nil {
				return o, bad("wrong_type", "backfill: it must be true or false")
			}
			o.backfill = o.backfill || b
		case name == "wait" && mayWait:
			o.waits = true
			if o.wait, err = time.ParseDuration(all[0]); err != nil || o.wait < 0 {
				return o, bad("duration_invalid", `wait: %q is not a duration such as "250ms" or "5s"`, all[0])
			}
			if o.wait > MaxWait {
				return o, bad("wait_out_of_range", "wait: %s is not from 0s to %s", o.wait, MaxWait)
			}
		case name == "wait":
			return o, bad("unsupported", "wait: an import does not wait; pass its token as after to /retrieve")
		default:
			return o, bad("unsupported", "%q: there is no such parameter here", name)
		}
	}
	return o, nil
}

// checkType refuses bodies that can't be JSON. It is lenient, since curl calls anything a form.
func checkType(r *http.Request) error {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return problem.New(http.StatusUnsupportedMediaType, "unsupported_media_type", "the body must not be compressed (Content-Encoding: %s)", e)
	}
	kind, _, _ := strings.Cut(strings.ToLower(r.Header.Get("Content-Type")), ";")
	switch kind = strings.TrimSpace(kind); {
	case kind == "", kind == "application/octet-stream", kind == "application/x-www-form-urlencoded", strings.Contains(kind, "json"), strings.HasPrefix(kind, "text/"):
		return nil
	}
	return problem.New(http.StatusUnsupportedMediaType, "unsupported_media_type", "the body must be JSON, not %s", kind)
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled bounds what a pooled buffer holds on to.
const maxPooled = 1 << 20

// read calls use with the body, which is not to be kept. Of a large one, the room it takes is held by the share.
func read(r *http.Request, limit int64, tooLarge error, s *share, use func([]byte) error) error {
	if err := checkType(r); err != nil {
		return err
	}
	if r.ContentLength > limit {
		return tooLarge
	}
	b := buffers.Get().(*[]byte)
	defer func() {
		if cap(*b) <= maxPooled {
			buffers.Put(b)
		}
	}()
	*b = (*b)[:0]
	if r.ContentLength > 0 && r.ContentLength < maxPooled { // a longer one has to show its bytes before memory is spent on it
		*b = slices.Grow(*b, int(r.ContentLength)+1)
	}
	for admitted := false; ; {
		if len(*b) >= largeBody && !admitted {
			size := limit
			if r.ContentLength > 0 {
				size = r.ContentLength
			}
			if _, err := s.take(r.Context(), size); err != nil {
				return err
			}
			admitted = true
		}
		if len(*b) == cap(*b) {
			*b = slices.Grow(*b, max(4096, len(*b)))
		}
		n, err := r.Body.Read((*b)[len(*b):cap(*b)])
		*b = (*b)[:len(*b)+n]
		if int64(len(*b)) > limit {
			return tooLarge
		}
		if err == io.EOF {
			return use(*b)
		}
		if err != nil {
			return incomplete(err)
		}
	}
}

func incomplete(err error) error {
	var tooLarge *http.MaxBytesError
	var known *problem.Error
	if errors.As(err, &known) { // there was no room for it
		return known
	}
	if errors.As(err, &tooLarge) {
		return fmt.Errorf("read request: %w", err)
	}
	return &problem.Error{Status: http.StatusBadRequest, Code: "body_incomplete", Detail: "the body ended before it was whole", Err: err}
}

func (i *Intake) putDocument(c echo.Context) error {
	id, err := id(c, "/documents/")
	if err != nil {
		return err
	}
	change := stream.Change{Kind: stream.Upsert, ID: id}
	tooLarge := problem.New(http.StatusRequestEntityTooLarge, stream.CodeDocumentTooLarge, "the text has more than %d bytes, the limit", i.config.MaxBytes)
	s := &share{room: i.room}
	defer s.close()
	err = read(c.Request(), i.maxBody, tooLarge, s, func(body []byte) error {
		d, p := stream.DecodeDocument(body, i.config.MaxBytes)
		if p != nil {
			return refused(p)
		}
		if d.Tenant != "" {
			if p := stream.CheckID(d.Tenant); p != nil {
				return bad(p.Code, "the field \"tenant\": %s", strings.Replace(p.Detail, "the id", "it", 1))
			}
		}
		change.Tenant, change.Document = d.Tenant, d
		return nil
	})
	if err != nil {
		return err
	}
	return i.write(c, change, s)
}

func (i *Intake) deleteDocument(c echo.Context) error {
	id, err := id(c, "/documents/")
	if err != nil {
		return err
	}
	return i.write(c, stream.Change{Kind: stream.Delete, ID: id}, nil)
}

func (i *Intake) putAccess(c echo.Context) error {
	id, err := id(c, "/acl/")
	if err != nil {
		return err
	}
	change := stream.Change{Kind: stream.Access, ID: id}
	tooLarge := problem.New(http.StatusRequestEntityTooLarge, "body_too_large", "the body is larger than %d bytes", maxAccess)
	s := &share{room: i.room}
	defer s.close()
	err = read(c.Request(), maxAccess, tooLarge, s, func(body []byte) error {
		var p *stream.Problem
		if change.ACL, p = stream.DecodeAccess(body); p != nil {
			return refused(p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return i.write(c, change, nil)
}

func (i *Intake) deleteAccess(c echo.Context) error {
	id, err := id(c, "/acl/")
	if err != nil {
		return err
	}
	return i.write(c, stream.Change{Kind: stream.Access, ID: id}, nil)
}

// written is the answer to one change.
type written struct {
	ID    string `json:"id"`
	Token string `json:"token"`
	// Searchable is there if the caller waited.
	Searchable *bool `json:"searchable,omitempty"`
}

// write appends a change and answers. The room that it took, if any, is given back as soon as it is in the log.
func (i *Intake) write(c echo.Context, change stream.Change, s *share) error {
	o, err := parseOptions(c.Request(), true)
	if err != nil {
		return err
	}
	change.Backfill = o.backfill
	ctx := c.Request().Context()
	receipt, err := i.append(ctx, change)
	change.Document = nil
	if s != nil {
		s.close()
	}
	if err != nil {
		return unwritten(ctx, err)
	}
	answer, status := written{ID: change.ID, Token: receipt.Token()}, http.StatusAccepted
	if o.waits {
		waiting, cancel := context.WithTimeout(ctx, o.wait)
		err := i.config.Waiter.WaitSearchable(waiting, receipt.Positions)
		cancel()
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("wait until searchable: %w", ctx.Err())
		case err != nil && !errors.Is(err, context.DeadlineExceeded): // the change is safe whatever became of the waiting
			i.config.Logger.WarnContext(ctx, "waiting until a change is searchable failed", "error", err)
		}
		searchable := err == nil
		answer.Searchable = &searchable
		if searchable {
			status = http.StatusOK
		}
	}
	return c.JSON(status, answer)
}

func (i *Intake) append(ctx context.Context, changes ...stream.Change) (stream.Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, i.config.Timeout)
	defer cancel()
	return i.config.Sink.Append(ctx, changes...)
}

// unwritten makes an answer of an append's error.
func unwritten(ctx context.Context, err error) error {
	var p *stream.Problem
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("append to the log: %w", ctx.Err())
	case errors.As(err, &p):
		return refused(p)
	case errors.Is(err, stream.ErrLogFull):
		return &problem.Error{Status: http.StatusInsufficientStorage, Code: "log_full", Err: err,
			Detail: "the log is full; nothing was dropped. Delete documents and let it compact, or raise log.max_bytes"}
	case errors.Is(err, stream.ErrDiskFull):
		return &problem.Error{Status: http.StatusInsufficientStorage, Code: "disk_full", RetryAfter: 5 * time.Second, Err: err,
			Detail: "the disk that holds the log has no room; nothing was dropped. Writes go on as soon as there is room again"}
	case errors.Is(err, stream.ErrReadOnly):
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: "log_unavailable", RetryAfter: 5 * time.Second, Err: err,
			Detail: "the log can't be written where it is: the disk is read-only or fails, or the files are somebody else's. What was acknowledged is there; this server's own log says what to do"}
	case errors.Is(err, stream.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: "log_unavailable", RetryAfter: 2 * time.Second, Err: err,
			Detail: "the log can't be reached now; send the change again, which does no harm if it was written"}
	case errors.Is(err, stream.ErrLogChanged):
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: "log_changed", RetryAfter: time.Minute, Err: err,
			Detail: "the log's topic was re-created or repartitioned under this server; it has to be restarted"}
	}
	return fmt.Errorf("append to the log: %w", err)
}
