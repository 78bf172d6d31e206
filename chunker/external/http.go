package external

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/chunker"
)

// IsURL tells whether a strategy is a service's address.
func IsURL(strategy string) bool {
	return strings.HasPrefix(strategy, "http://") || strings.HasPrefix(strategy, "https://")
}

// HTTPConfig says which service cuts.
type HTTPConfig struct {
	// URL takes the requests. A version that the service states in its answers ("version") is part of the Name.
	URL string
	// Deadline is how long one text may take. Default 30 s.
	Deadline time.Duration
	// Counter counts the tokens of chunks. Required.
	Counter chunker.Counter
	// Client makes the requests. Default: one of its own that follows no redirects.
	Client *http.Client
}

// HTTP is a chunker that is a service.
type HTTP struct {
	config  HTTPConfig
	version string
	name    string
}

// OpenHTTP asks the service to cut a short text, to see that it is there and which version it is. An error that is a temporary *chunker.Error is worth another try.
func OpenHTTP(ctx context.Context, c HTTPConfig) (*HTTP, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%q is no address of a chunker, as http://host:port/path", c.URL)
	}
	if c.Deadline == 0 {
		c.Deadline = 30 * time.Second
	}
	if c.Client == nil {
		c.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	h := &HTTP{config: c, name: "http/1 " + c.URL}
	const probe = "A short text. It shows whether the chunker answers."
	_, a, err := h.ask(ctx, "text/plain", probe)
	if err != nil {
		return nil, err
	}
	if h.version = a.Version; h.version != "" {
		h.name += " version=" + h.version
	}
	return h, nil
}

// Name implements [chunker.Chunker].
func (h *HTTP) Name() string { return h.name }

// Split implements [chunker.Chunker]. A status of 400, 413, 415 or 422 is about the text; any other but 200, and no answer at all, may be better later: a service that was
// deployed wrongly must not send every document to the dead letters.
func (h *HTTP) Split(ctx context.Context, contentType, text string) ([]chunker.Chunk, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	chunks, a, err := h.ask(ctx, contentType, text)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err == nil && a.Version != h.version:
		return nil, unavailable(h.name, fmt.Errorf("it is now version %q, and this generation was begun with %q: put that back, or replay with the new one and promote that", a.Version, h.version))
	}
	return chunks, err
}

func (h *HTTP) ask(ctx context.Context, contentType, text string) ([]chunker.Chunk, *answer, error) {
	ctx, cancel := context.WithTimeout(ctx, h.config.Deadline)
	defer cancel()
	body, err := json.Marshal(request{contentType, text})
	if err != nil {
		return nil, nil, refused(h.name, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.config.URL, bytes.NewReader(body))
	if err != nil {
		return nil, nil, refused(h.name, err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	resp, err := h.config.Client.Do(r)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", h.config.Deadline)
		}
		return nil, nil, unavailable(h.name, err)
	}
	defer resp.Body.Close()
	most := longest(text)
	reply, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return nil, nil, unavailable(h.name, fmt.Errorf("read its answer: %w", err))
	case slices.Contains([]int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity}, resp.StatusCode):
		return nil, nil, refused(h.name, fmt.Errorf("it answers %s: %s", resp.Status, excerpt(reply)))
	case resp.StatusCode != http.StatusOK:
		return nil, nil, unavailable(h.name, fmt.Errorf("it answers %s: %s", resp.Status, excerpt(reply)))
	case int64(len(reply)) > most:
		return nil, nil, refused(h.name, errTooLong)
	}
	chunks, a, err := decode(reply, text, h.config.Counter)
	if err != nil {
		return nil, a, refused(h.name, err)
	}
	return chunks, a, nil
}
