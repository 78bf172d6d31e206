package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"
)

func TestFrom(t *testing.T) {
	secret := errors.New("open /var/lib/secret: permission denied")
	for _, tt := range []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"its own", New(409, "token_unknown", "no %s", "such token"), 409, "token_unknown"},
		{"its own, wrapped", fmt.Errorf("handle: %w", New(400, "wrong_type", "k")), 400, "wrong_type"},
		{"unknown", secret, 500, "internal"},
		{"caller left", fmt.Errorf("search: %w", context.Canceled), 499, "canceled"},
		{"deadline", fmt.Errorf("embed: %w", context.DeadlineExceeded), 504, "timeout"},
		{"body", &http.MaxBytesError{Limit: 10}, 413, "body_too_large"},
		{"no route", echo.ErrNotFound, 404, "not_found"},
		{"no method", echo.ErrMethodNotAllowed, 405, "method_not_allowed"},
		{"echo's other", echo.ErrUnsupportedMediaType, 415, "unsupported_media_type"},
		{"echo's fault", echo.NewHTTPError(502, "secret"), 500, "internal"},
		{"echo's odd status", echo.NewHTTPError(799, "secret"), 500, "internal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := From(tt.err)
			if e.Status != tt.status || e.Code != tt.code {
				t.Errorf("got %d %s, want %d %s", e.Status, e.Code, tt.status, tt.code)
			}
			w := httptest.NewRecorder()
			if err := e.Write(w); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("the cause leaked: %s", w.Body)
			}
			if e.Detail == "" {
				t.Error("no detail")
			}
		})
	}
}

func TestHandler(t *testing.T) {
	var log strings.Builder
	e := echo.New()
	e.HTTPErrorHandler = Handler(slog.New(slog.NewTextHandler(&log, nil)))
	e.GET("/full", func(echo.Context) error {
		return &Error{Status: 507, Code: "log_full", Detail: "the log is \"full\"", RetryAfter: 1500 * time.Millisecond}
	})
	e.GET("/broken", func(echo.Context) error { return errors.New("disk on fire") })
	e.GET("/late", func(c echo.Context) error {
		if err := c.String(200, "begun"); err != nil {
			return err
		}
		return errors.New("too late")
	})

	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest("GET", "/full", nil))
	if w.Code != 507 || w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Retry-After") != "2" {
		t.Errorf("got %d %v", w.Code, w.Header())
	}
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"type": "urn:liverag:problem:log_full", "title": "log full", "status": 507.0, "detail": "the log is \"full\"", "code": "log_full"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}

	w = httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest("GET", "/broken", nil))
	if w.Code != 500 || strings.Contains(w.Body.String(), "on fire") || !strings.Contains(log.String(), "on fire") {
		t.Errorf("got %d %s, log %s", w.Code, w.Body, log.String())
	}

	w = httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest("GET", "/late", nil))
	if w.Code != 200 || w.Body.String() != "begun" {
		t.Errorf("a problem was written into an answer that had begun: %s", w.Body)
	}

	w = httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest("POST", "/full", nil))
	if w.Code != 405 || w.Header().Get("Allow") == "" || !strings.Contains(w.Body.String(), "method_not_allowed") {
		t.Errorf("got %d %v %s", w.Code, w.Header(), w.Body)
	}
}
