// Package feedback takes over HTTP what people say of answers: POST /feedback, and GET /feedback to read it again. What is accepted is durable.
package feedback

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/stream"
)

// Bounds of what is said, in bytes. A query is as long as POST /retrieve takes it.
const (
	MaxQueryBytes  = 32 << 10
	MaxChunkBytes  = 2 << 10
	MaxReasonBytes = 8 << 10
	// maxBody holds all of them with every byte escaped.
	maxBody = 512 << 10
)

// Bounds of GET /feedback.
const (
	listed = 100
	most   = 1000
)

// Config is what feedback is kept in. Fields without a default are required.
type Config struct {
	Log stream.FeedbackLog
	// Timeout is how long writing may take before the log counts as unavailable. Defaults to 10 s.
	Timeout time.Duration
}

// Feedback is the HTTP side of a log's feedback. It is safe for concurrent use.
type Feedback struct{ config Config }

// New returns a Feedback.
func New(config Config) *Feedback {
	if config.Timeout == 0 {
		config.Timeout = 10 * time.Second
	}
	return &Feedback{config}
}

// Routes adds POST and GET /feedback.
func (f *Feedback) Routes(e *echo.Echo) {
	e.POST("/feedback", f.add)
	e.GET("/feedback", f.list)
}

// said is one piece of feedback as it is answered.
type said struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Query    string    `json:"query"`
	Document string    `json:"document"`
	Chunk    string    `json:"chunk,omitempty"`
	Useful   bool      `json:"useful"`
	Reason   string    `json:"reason,omitempty"`
}

func spell(f stream.Feedback) said {
	return said{strconv.FormatInt(f.Sequence, 10), f.Time.UTC(), f.Query, f.Document, f.Chunk, f.Useful, f.Reason}
}

func (f *Feedback) add(c echo.Context) error {
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return fmt.Errorf("read request: %w", err)
		}
		return &problem.Error{Status: http.StatusBadRequest, Code: "body_incomplete", Detail: "the body ended before it was whole", Err: err}
	}
	one, err := parse(body)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	writing, cancel := context.WithTimeout(ctx, f.config.Timeout)
	defer cancel()
	one, err = f.config.Log.Add(writing, one)
	if err != nil {
		return unkept(ctx, err)
	}
	return c.JSON(http.StatusAccepted, spell(one))
}

// unkept makes an answer of a log's error.
func unkept(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("keep feedback: %w", ctx.Err())
	case errors.Is(err, stream.ErrLogFull):
		return &problem.Error{Status: http.StatusInsufficientStorage, Code: "log_full", Err: err,
			Detail: "the log is full; nothing was dropped. Delete documents and let it compact, or raise log.max_bytes"}
	case errors.Is(err, stream.ErrDiskFull):
		return &problem.Error{Status: http.StatusInsufficientStorage, Code: "disk_full", RetryAfter: 5 * time.Second, Err: err,
			Detail: "the disk that holds the log has no room; nothing was dropped. Writes go on as soon as there is room again"}
	case errors.Is(err, stream.ErrReadOnly):
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: "log_unavailable", RetryAfter: 5 * time.Second, Err: err,
			Detail: "the log can't be written where it is, because the disk is read-only or the files are somebody else's; send it again once it can"}
	case errors.Is(err, stream.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: "log_unavailable", RetryAfter: 2 * time.Second, Err: err,
			Detail: "the topic of feedback can't be reached now, or does not exist; the server's log says which. Send it again later"}
	}
	return fmt.Errorf("keep feedback: %w", err)
}

func (f *Feedback) list(c echo.Context) error {
	limit, before := listed, int64(0)
	for name, all := range c.QueryParams() {
		var err error
		switch name {
		case "limit":
			if limit, err = strconv.Atoi(all[0]); err != nil || limit < 1 || limit > most {
				return bad("invalid", "limit: it is a number from 1 to %d, not %q", most, all[0])
			}
		case "before":
			if before, err = strconv.ParseInt(all[0], 10, 64); err != nil || before < 1 {
				return bad("invalid", "before: it is what an earlier answer had as next, not %q", all[0])
			}
		default:
			return bad("unsupported", "%q: there is no such parameter here; there are limit and before", name)
		}
	}
	got, next, err := f.config.Log.List(c.Request().Context(), before, limit)
	if err != nil {
		return unkept(c.Request().Context(), err)
	}
	out := struct {
		Feedback []said `json:"feedback"`
		Next     string `json:"next,omitempty"`
	}{Feedback: make([]said, 0, len(got))}
	for _, one := range got {
		out.Feedback = append(out.Feedback, spell(one))
	}
	if next > 0 {
		out.Next = strconv.FormatInt(next, 10)
	}
	return c.JSON(http.StatusOK, out)
}

func bad(code, detail string, args ...any) error {
	return problem.New(http.StatusBadRequest, code, detail, args...)
}

// parse reads the JSON of POST /feedback. Every field is checked, and one that there is not is refused: a label that is silently wrong is worse than none.
func parse(body []byte) (stream.Feedback, error) {
	var f stream.Feedback
	if !utf8.Valid(body) {
		return f, bad("invalid_utf8", "the body is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return f, bad("invalid_json", "the body is not a JSON object")
	}
	var useful *bool
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, _ := t.(string)
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			return f, bad("invalid_json", "the JSON is malformed or ends too early, near byte %d", d.InputOffset())
		}
		if seen[name] {
			return f, bad("invalid_json", "%.80q: the field is there twice", name)
		}
		seen[name] = true
		into, want := any(nil), "a string"
		switch name {
		case "query":
			into = &f.Query
		case "document":
			into = &f.Document
		case "chunk":
			into = &f.Chunk
		case "reason":
			into = &f.Reason
		case "useful":
			into, want = &useful, "true or false"
		default:
			return f, bad("unsupported", "%.80q: the field is not supported; there are query, document, chunk, useful and reason", name)
		}
		if err := json.Unmarshal(value, into); err != nil {
			return f, bad("wrong_type", "%s: it must be %s", name, want)
		}
	}
	if _, err := d.Token(); err != nil {
		return f, bad("invalid_json", "the JSON is malformed or ends too early, near byte %d", d.InputOffset())
	}
	if _, err := d.Token(); err != io.EOF {
		return f, bad("invalid_json", "something follows the JSON object at byte %d", d.InputOffset())
	}
	switch {
	case strings.TrimSpace(f.Query) == "":
		return f, bad("query_empty", "query: it is missing or blank; it is the question that was asked")
	case len(f.Query) > MaxQueryBytes:
		return f, bad("query_too_large", "query: it has %d bytes, the limit is %d", len(f.Query), MaxQueryBytes)
	case useful == nil:
		return f, bad("useful_missing", "useful: it is missing; true or false is what feedback is about")
	case len(f.Chunk) > MaxChunkBytes:
		return f, bad("chunk_too_large", "chunk: it has %d bytes, the limit is %d; it is the id of a hit", len(f.Chunk), MaxChunkBytes)
	case len(f.Reason) > MaxReasonBytes:
		return f, bad("reason_too_large", "reason: it has %d bytes, the limit is %d", len(f.Reason), MaxReasonBytes)
	}
	if p := stream.CheckID(f.Document); p != nil {
		return f, bad(p.Code, "document: %s", p.Detail)
	}
	f.Useful = *useful
	return f, nil
}
