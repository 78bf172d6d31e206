package indexer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/stream"
)

// letterJSON is a dead letter as GET /dlq lists it.
type letterJSON struct {
	ID          string    `json:"id"`
	Document    string    `json:"document,omitempty"`
	Tenant      string    `json:"tenant,omitempty"`
	Topic       string    `json:"topic,omitempty"`
	Partition   int32     `json:"partition"`
	Offset      int64     `json:"offset"`
	Time        time.Time `json:"time"`
	RejectedAt  time.Time `json:"rejected_at"`
	Code        string    `json:"code"`
	Detail      string    `json:"detail"`
	Attempts    int       `json:"attempts"`
	Generations []string  `json:"generations"`
	Bytes       int       `json:"bytes"`
}

// wholeLetterJSON is one as GET /dlq/{id} shows it. What is no UTF-8 is there in base64 instead.
type wholeLetterJSON struct {
	letterJSON
	Key         *string      `json:"key,omitempty"`
	KeyBase64   string       `json:"key_base64,omitempty"`
	Value       *string      `json:"value,omitempty"`
	ValueBase64 string       `json:"value_base64,omitempty"`
	Headers     []headerJSON `json:"headers"`
}

type headerJSON struct {
	Key         string  `json:"key"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 string  `json:"value_base64,omitempty"`
}

func spellLetter(l *stream.Letter) letterJSON {
	tenant, id := stream.SplitKey(l.Key)
	out := letterJSON{
		ID: l.ID, Document: id, Tenant: tenant, Partition: l.Position.Partition, Offset: l.Position.Offset, Time: l.Time.UTC(), RejectedAt: l.RejectedAt.UTC(),
		Code: l.Problem.Code, Detail: l.Problem.Detail, Attempts: l.Attempts, Generations: l.Generations, Bytes: l.Size,
	}
	if out.Generations == nil {
		out.Generations = []string{}
	}
	if l.Raw != nil {
		out.Topic = l.Raw.Topic
	}
	return out
}

// spellBytes gives bytes as they are if they are text, else in base64.
func spellBytes(b []byte) (text *string, encoded string) {
	if b == nil {
		return nil, ""
	}
	if s := string(b); utf8.ValidString(s) {
		return &s, ""
	}
	return nil, base64.StdEncoding.EncodeToString(b)
}

// Bounds of GET /dlq.
const (
	lettersListed = 100
	lettersMost   = 1000
)

func (x *Indexer) listLetters(c echo.Context) error {
	q := stream.LetterQuery{Limit: lettersListed, Code: c.QueryParam("code")}
	for name := range c.QueryParams() {
		switch name {
		case "code", "document", "tenant", "limit", "after":
		default:
			return problem.New(http.StatusBadRequest, "unsupported", "%q: there is no such parameter here", name)
		}
	}
	if id := c.QueryParam("document"); id != "" {
		q.Key = stream.Key(c.QueryParam("tenant"), id)
	}
	var err error
	if text := c.QueryParam("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > lettersMost {
			return problem.New(http.StatusBadRequest, "invalid", "limit: it is a number from 1 to %d, not %q", lettersMost, text)
		}
	}
	if text := c.QueryParam("after"); text != "" {
		if q.After, err = strconv.ParseInt(text, 10, 64); err != nil {
			return problem.New(http.StatusBadRequest, "invalid", "after: it is what an earlier answer had as next, not %q", text)
		}
	}
	letters, err := x.config.Letters.List(c.Request().Context(), q)
	if err != nil {
		return asProblem(err)
	}
	out := struct {
		Letters []letterJSON `json:"letters"`
		Next    string       `json:"next,omitempty"`
	}{Letters: make([]letterJSON, 0, len(letters))}
	for i := range letters {
		out.Letters = append(out.Letters, spellLetter(&letters[i]))
	}
	if len(letters) == q.Limit {
		out.Next = strconv.FormatInt(letters[len(letters)-1].Sequence, 10)
	}
	return c.JSON(http.StatusOK, out)
}

func (x *Indexer) getLetter(c echo.Context) error {
	letter, err := x.config.Letters.Letter(c.Request().Context(), c.Param("id"))
	if err != nil {
		return asProblem(err)
	}
	out := wholeLetterJSON{letterJSON: spellLetter(&letter), Headers: []headerJSON{}}
	out.Key, out.KeyBase64 = spellBytes(letter.Raw.Key)
	out.Value, out.ValueBase64 = spellBytes(letter.Raw.Value)
	for _, h := range letter.Raw.Headers {
		header := headerJSON{Key: h.Key}
		header.Value, header.ValueBase64 = spellBytes(h.Value)
		out.Headers = append(out.Headers, header)
	}
	return c.JSON(http.StatusOK, out)
}

// chosen is the body of POST /dlq/redrive and /dlq/discard: letters by their ids, or all, or all of a code or a document.
type chosen struct {
	IDs      []string `json:"ids"`
	All      bool     `json:"all"`
	Code     string   `json:"code"`
	Document string   `json:"document"`
	Tenant   string   `json:"tenant"`
}

// choose reads which letters are meant, at most lettersMost of them.
func (x *Indexer) choose(c echo.Context) ([]string, error) {
	var want chosen
	if err := decode(c, &want, `{"ids":["0-17"]} or {"all":true,"code":"embed_rejected"}`); err != nil {
		return nil, err
	}
	switch {
	case len(want.IDs) > lettersMost:
		return nil, problem.New(http.StatusBadRequest, "invalid", "ids: at most %d at once", lettersMost)
	case len(want.IDs) > 0 && (want.All || want.Code != "" || want.Document != ""):
		return nil, problem.New(http.StatusBadRequest, "invalid", "name the letters by ids, or by all, code and document, not both")
	case len(want.IDs) > 0:
		return want.IDs, nil
	case !want.All && want.Code == "" && want.Document == "":
		return nil, problem.New(http.StatusBadRequest, "invalid", `which letters? {"ids":["0-17"]}, {"code":"embed_rejected"}, {"document":"kb/refunds.md"} or {"all":true}`)
	}
	q := stream.LetterQuery{Code: want.Code, Limit: lettersMost}
	if want.Document != "" {
		q.Key = stream.Key(want.Tenant, want.Document)
	}
	letters, err := x.config.Letters.List(c.Request().Context(), q)
	if err != nil {
		return nil, asProblem(err)
	}
	ids := make([]string, len(letters))
	for i := range letters {
		ids[i] = letters[i].ID
	}
	return ids, nil
}

// triedJSON is the answer of POST /dlq/redrive and /dlq/discard.
type triedJSON struct {
	Results []Tried `json:"results"`
}

func (x *Indexer) redriveLetters(c echo.Context) error {
	ids, err := x.choose(c)
	if err != nil {
		return err
	}
	if x.live.Load() == nil {
		return problem.New(http.StatusServiceUnavailable, "not_ready", "the indexer is starting; /readyz tells when it has")
	}
	tried, err := x.Redrive(c.Request().Context(), ids...)
	if err != nil {
		return asProblem(err)
	}
	return c.JSON(http.StatusOK, triedJSON{append([]Tried{}, tried...)})
}

func (x *Indexer) discardLetters(c echo.Context) error {
	ids, err := x.choose(c)
	if err != nil {
		return err
	}
	if err := x.config.Letters.Settle(c.Request().Context(), stream.Discarded, ids...); err != nil {
		return asProblem(err)
	}
	out := triedJSON{[]Tried{}}
	for _, id := range ids {
		out.Results = append(out.Results, Tried{ID: id, Outcome: string(stream.Discarded)})
	}
	return c.JSON(http.StatusOK, out)
}

// decode reads a JSON body strictly. like shows what it should look like.
func decode(c echo.Context, into any, like string) error {
	decoder := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, 1<<20))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	var wrongType *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrongType):
		return problem.New(http.StatusBadRequest, "wrong_type", "%s must be %s, not %s", wrongType.Field, wrongType.Type, wrongType.Value)
	case errors.Is(err, io.EOF):
		return problem.New(http.StatusBadRequest, "invalid", "the body is empty; it should be like %s", like)
	}
	return problem.New(http.StatusBadRequest, "unsupported", "the body is not like %s: %v", like, err)
}
