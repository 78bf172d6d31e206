package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// urlFile is written into the data directory by a running liverag: its base URL, for the case that the default port was taken.
const urlFile = "liverag.url"

// callTimeout is how long a call may take that is not told to wait for something.
const callTimeout = 30 * time.Second

// client talks to a running liverag.
type client struct {
	base string
	http *http.Client
}

// apiError is a problem that the server answered with (RFC 9457).
type apiError struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	// RetryAfter is how long the server asked to stay away; 0 if it did not say.
	RetryAfter time.Duration `json:"-"`
}

func (e *apiError) Error() string { return plain(e.Code + ": " + e.Detail) }

// client finds the server that the settings mean.
func (c *call) client(ctx context.Context) *client {
	return &client{base: findServer(ctx, c), http: &http.Client{Transport: http.DefaultTransport}}
}

// findServer returns the base URL: --server, else what runs on the data directory, else the listen address.
func findServer(ctx context.Context, c *call) string {
	if c.Config.Server != "" {
		return strings.TrimRight(c.Config.Server, "/")
	}
	if c.Settings.Origin("listen").Kind != "flag" {
		if base, err := os.ReadFile(filepath.Join(c.Config.Data, urlFile)); err == nil {
			cl := &client{base: strings.TrimRight(strings.TrimSpace(string(base)), "/"), http: http.DefaultClient}
			if cl.do(ctx, "GET", "/healthz", nil, nil, options{timeout: time.Second}) == nil {
				return cl.base
			}
		}
	}
	host, port, _ := net.SplitHostPort(c.Config.Listen)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// options of a call.
type options struct {
	contentType string
	header      map[string]string
	// timeout bounds the whole call. Default callTimeout.
	timeout time.Duration
}

// do makes one call and decodes the answer's JSON into out, unless that is nil. A *json.RawMessage gets the body as it is. A body that is no io.Reader is sent as JSON.
// Errors: *apiError for what the server refused; else a sentence that says how to reach a server.
func (cl *client) do(ctx context.Context, method, path string, body, out any, opt options) error {
	if opt.timeout == 0 {
		opt.timeout = callTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, opt.timeout)
	defer cancel()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		reader = b
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		reader, opt.contentType = bytes.NewReader(encoded), "application/json"
	}
	req, err := http.NewRequestWithContext(ctx, method, cl.base+path, reader)
	if err != nil {
		return &usageError{fmt.Sprintf("%q is no base URL of a server", cl.base), "write it like http://127.0.0.1:8080"}
	}
	if opt.contentType != "" {
		req.Header.Set("Content-Type", opt.contentType)
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	for name, value := range opt.header {
		req.Header.Set(name, value)
	}
	resp, err := cl.http.Do(req)
	if err != nil {
		return cl.unreachable(ctx, opt.timeout, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return cl.unreachable(ctx, opt.timeout, err)
	}
	if resp.StatusCode >= 300 {
		return cl.problem(resp, answer)
	}
	switch o := out.(type) {
	case nil:
		return nil
	case *json.RawMessage:
		*o = answer
		return nil
	}
	if len(answer) == 0 {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s does not answer like liverag: %w", cl.base, err)
	}
	return nil
}

// unreachable says why there was no answer, and what helps.
func (cl *client) unreachable(ctx context.Context, timeout time.Duration, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Canceled
	case errors.Is(err, syscall.ECONNREFUSED):
		return &unreachableError{fmt.Sprintf("no liverag answers at %s: start one with `liverag up`, or name it with --server", cl.base)}
	case errors.Is(err, context.DeadlineExceeded):
		return &unreachableError{fmt.Sprintf("%s did not answer within %s: `liverag doctor` looks at what may be wrong", cl.base, short(timeout))}
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	return &unreachableError{fmt.Sprintf("can't reach %s: %v: name another server with --server", cl.base, err)}
}

// unreachableError is a call without an answer: the server may have acted on it or not.
type unreachableError struct{ detail string }

func (e *unreachableError) Error() string { return e.detail }

func (cl *client) problem(resp *http.Response, body []byte) error {
	p := &apiError{}
	if json.Unmarshal(body, p) != nil || p.Code == "" {
		p = &apiError{Code: "http_" + strconv.Itoa(resp.StatusCode), Detail: fmt.Sprintf("%s answers %s, and not like liverag: is that the right --server?", cl.base, resp.Status)}
	}
	if p.Detail == "" {
		p.Detail = p.Title
	}
	p.Status = resp.StatusCode
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds >= 0 {
		p.RetryAfter = time.Duration(seconds) * time.Second
	}
	return p
}

// busy tells whether the same call may succeed later.
func busy(err error) (*apiError, bool) {
	var p *apiError
	ok := errors.As(err, &p) && (p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable)
	return p, ok
}

// documentPath is where a document lives. Dots are encoded where the whole id is dots, since a path cleaner would drop them.
func documentPath(id string) string {
	escaped := url.PathEscape(id)
	if id == "." || id == ".." {
		escaped = strings.ReplaceAll(id, ".", "%2E")
	}
	return "/documents/" + escaped
}

// waitQuery is the part of a URL that asks to wait until the change is searchable.
func waitQuery(wait time.Duration) string {
	if wait <= 0 {
		return ""
	}
	return "?wait=" + wait.String()
}

// written is the answer to a change of one document.
type written struct {
	ID         string `json:"id"`
	Token      string `json:"token"`
	Searchable *bool  `json:"searchable,omitempty"`
}

// stringList is a flag that may be given several times.
type stringList []string

func (l *stringList) String() string { return strings.Join(*l, ",") }

func (l *stringList) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// sleep waits, unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
