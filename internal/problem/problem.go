// Package problem is how a request fails: an error with an HTTP status and a stable code, and its rendering as
// application/problem+json (RFC 9457).
package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

// ContentType is the media type of a problem.
const ContentType = "application/problem+json"

// TypePrefix and the code make a problem's type, a URI that identifies the kind of problem and is not meant to be opened.
const TypePrefix = "urn:liverag:problem:"

// StatusClientClosed is the status of a request whose caller went away before it was answered. Nobody reads it but the log.
const StatusClientClosed = 499

// Error is a failed request. Handlers return it as their error.
type Error struct {
	// Status is the HTTP status.
	Status int
	// Code is a stable word that a program can branch on.
	Code string
	// Title says what kind of problem it is, the same for every problem of the code. Default: the words of Code.
	Title string
	// Detail says what was wrong this time and what to do next. It goes to the caller.
	Detail string
	// More are members of the body beside those that every problem has, as RFC 9457 allows: figures, say, that a program wants. A name of the others' is without effect. Default: none.
	More map[string]any
	// RetryAfter is sent as the header of that name, rounded up to seconds. Default: the header is not sent.
	RetryAfter time.Duration
	// Err is the cause. It goes to the log, never to the caller.
	Err error
}

// New returns an Error. The detail is formatted as by fmt.Sprintf if there are args.
func New(status int, code, detail string, args ...any) *Error {
	if len(args) > 0 {
		detail = fmt.Sprintf(detail, args...)
	}
	return &Error{Status: status, Code: code, Detail: detail}
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Detail, e.Err)
	}
	return e.Code + ": " + e.Detail
}

func (e *Error) Unwrap() error { return e.Err }

// From makes an Error of any error. An *Error anywhere in the chain is returned as it is. What only this process understands becomes
// 500 internal, with the cause in Err and none of it in Detail.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var tooLarge *http.MaxBytesError
	var he *echo.HTTPError
	switch {
	case errors.As(err, &tooLarge):
		return &Error{Status: http.StatusRequestEntityTooLarge, Code: "body_too_large", Err: err,
			Detail: fmt.Sprintf("the body is larger than %d bytes", tooLarge.Limit)}
	case errors.As(err, &he):
		return fromEcho(he)
	case errors.Is(err, context.Canceled):
		return &Error{Status: StatusClientClosed, Code: "canceled", Detail: "the request was given up before it was answered", Err: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Status: http.StatusGatewayTimeout, Code: "timeout", Detail: "the answer took too long; try again", Err: err}
	}
	return &Error{Status: http.StatusInternalServerError, Code: "internal", Err: err,
		Detail: "something went wrong in the server; its log has the cause under this request's X-Request-Id"}
}

func fromEcho(he *echo.HTTPError) *Error {
	e := &Error{Status: he.Code, Err: he.Internal}
	switch he.Code {
	case http.StatusNotFound:
		e.Code, e.Detail = "not_found", "there is nothing at this path; GET /openapi.json lists what there is"
	case http.StatusMethodNotAllowed:
		e.Code, e.Detail = "method_not_allowed", "this path does not take that method; the header Allow lists those it takes"
	case http.StatusRequestEntityTooLarge:
		e.Code, e.Detail = "body_too_large", "the body is too large"
	default:
		e.Code = strings.ReplaceAll(strings.ToLower(http.StatusText(he.Code)), " ", "_")
		if e.Code == "" || he.Code >= 500 {
			e.Status, e.Code = http.StatusInternalServerError, "internal"
		}
		e.Detail = http.StatusText(e.Status)
	}
	return e
}

// Write renders the problem.
func (e *Error) Write(w http.ResponseWriter) error {
	title := e.Title
	if title == "" {
		title = strings.ReplaceAll(e.Code, "_", " ")
	}
	body := map[string]any{}
	maps.Copy(body, e.More)
	maps.Copy(body, map[string]any{"type": TypePrefix + e.Code, "title": title, "status": e.Status, "detail": e.Detail, "code": e.Code})
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("Cache-Control", "no-store")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	w.WriteHeader(e.Status)
	_, err = w.Write(append(b, '\n'))
	return err
}

// Handler renders the errors of echo's handlers as problems, and logs those that are the server's own fault.
func Handler(log *slog.Logger) echo.HTTPErrorHandler {
	return func(err error, c echo.Context) {
		e := From(err)
		if e.Status >= http.StatusInternalServerError && e.Code == "internal" {
			log.ErrorContext(c.Request().Context(), "request failed", "method", c.Request().Method, "path", c.Request().URL.Path,
				"request_id", c.Response().Header().Get(echo.HeaderXRequestID), "error", err)
		}
		if c.Response().Committed {
			return
		}
		if c.Request().Method == http.MethodHead {
			c.Response().WriteHeader(e.Status)
			return
		}
		if err := e.Write(c.Response()); err != nil {
			log.Debug("problem not sent", "error", err)
		}
	}
}
