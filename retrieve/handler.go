package retrieve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/vectordb"
)

// maxBody holds the longest query with every byte escaped, and a filter and tokens beside it.
const maxBody = 1 << 20

// HeaderUnlogged on a request keeps its question out of what [Config.Asked] is told, whatever its value.
const HeaderUnlogged = "Liverag-Unlogged"

// Routes adds GET and POST /retrieve, and GET /documents/{id}.
func (r *Retriever) Routes(e *echo.Echo) {
	e.POST("/retrieve", r.post)
	e.GET("/retrieve", r.get)
	e.GET("/documents/*", r.document)
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled bounds what a pooled buffer holds on to.
const maxPooled = 1 << 20

func send(c echo.Context, b *[]byte) error {
	w := c.Response()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(*b)))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(*b)
	release(b)
	return err
}

func release(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

func (r *Retriever) post(c echo.Context) error {
	b := buffers.Get().(*[]byte)
	var err error
	*b, err = readAll((*b)[:0], http.MaxBytesReader(c.Response(), c.Request().Body, maxBody))
	if err != nil {
		release(b)
		return unread(err)
	}
	q, err := ParseRequest(*b)
	release(b)
	if err != nil {
		return err
	}
	return r.reply(c, q)
}

func unread(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return fmt.Errorf("read request: %w", err)
	}
	return &problem.Error{Status: http.StatusBadRequest, Code: "body_incomplete", Detail: "the body ended before it was whole", Err: err}
}

// readAll is io.ReadAll into a buffer that is there already.
func readAll(b []byte, r io.Reader) ([]byte, error) {
	if cap(b) == 0 {
		b = make([]byte, 0, 4096)
	}
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

func (r *Retriever) get(c echo.Context) error {
	values, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return bad("invalid_url", "the query of the URL is not percent-encoded as it should be")
	}
	q, err := ParseQuery(values)
	if err != nil {
		return err
	}
	return r.reply(c, q)
}

func (r *Retriever) reply(c echo.Context, q Request) error {
	a, err := r.Retrieve(c.Request().Context(), q)
	if err != nil {
		return err
	}
	// A generation is asked by its own name to be looked at or measured: those questions are not what users ask.
	if r.config.Asked != nil && a.Target.Alias != "" && c.Request().Header.Get(HeaderUnlogged) == "" {
		r.config.Asked(q, a)
	}
	b := buffers.Get().(*[]byte)
	*b = append(a.AppendJSON((*b)[:0]), '\n')
	return send(c, b)
}

var errNotFound = problem.New(http.StatusNotFound, "not_found", "the live generation has no such document; it was deleted, never written, or is not searchable yet")

// Document returns a document as the live generation holds it, and that generation's name. Only what every caller may read is there:
// a document with a tenant or an access list is not. The error is a *problem.Error with status 404 if there is none.
func (r *Retriever) Document(ctx context.Context, id string) (rev *vectordb.Revision, generation string, err error) {
	if id == "" || !utf8.ValidString(id) || strings.ContainsFunc(id, func(c rune) bool { return c < 0x20 }) {
		return nil, "", errNotFound // and no key with a tenant in it
	}
	for attempt := 0; ; attempt++ {
		target, err := r.config.Resolver.Resolve(Live)
		if err != nil {
			return nil, "", unresolved(Live, err)
		}
		revs, err := r.config.Store.Current(ctx, target.Name, []string{id})
		if errors.Is(err, vectordb.ErrNoGeneration) {
			if attempt == 0 {
				continue
			}
			return nil, "", unresolved(Live, err)
		}
		if err != nil {
			return nil, "", fmt.Errorf("read document from generation %s: %w", target.Name, err)
		}
		if len(revs) != 1 {
			return nil, "", fmt.Errorf("read document from generation %s: got %d revisions for one key", target.Name, len(revs))
		}
		rev := &revs[0]
		if rev.Version == 0 || rev.Deleted || rev.Tenant != "" || rev.Readers() != nil {
			return nil, "", errNotFound
		}
		return rev, target.Name, nil
	}
}

func (r *Retriever) document(c echo.Context) error {
	// The id is taken from the path as it was sent, and decoded once: echo's own parameter is decoded or not, depending on the path.
	escaped := strings.TrimPrefix(c.Request().URL.EscapedPath(), "/documents/")
	id, err := url.PathUnescape(escaped)
	if err != nil {
		return bad("id_invalid", "the id in the path is not percent-encoded as it should be")
	}
	rev, generation, err := r.Document(c.Request().Context(), id)
	if err != nil {
		return err
	}
	var pending *Pending
	if r.config.Rejected != nil {
		pending = r.config.Rejected(c.Request().Context(), generation, rev.Key, rev.Version)
	}
	b := buffers.Get().(*[]byte)
	*b = append(appendDocument((*b)[:0], rev, generation, pending), '\n')
	return send(c, b)
}
