package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/embedder"
)

const (
	// answerOverhead is how long an answer may be beside its vectors.
	answerOverhead = 1 << 20
	// numberBytes is how long a number of a vector may be on the wire, with an indented line to itself.
	numberBytes = 48
	// unknownDim stands for the dimension while it is unknown.
	unknownDim = 1 << 16
	// refusalBytes is how much of a refusal is read.
	refusalBytes = 64 << 10
)

// errNoJSON: there is an answer, but it is a web page or the like.
var errNoJSON = errors.New("the answer is no JSON")

// exchange is one request and its answer. It stands where go-openai expects an HTTP client, and reads the answer itself.
type exchange struct {
	model  *Model
	inputs int
	answer answer
	report *embedder.Report // what the provider says with it is added here
}

// bodies keeps the memory of answers.
var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// Do sends the request and reads its answer, of which go-openai gets to see the good news only.
func (x *exchange) Do(req *http.Request) (*http.Response, error) {
	m := x.model
	req.URL.RawQuery = m.query
	req.Header.Set("User-Agent", "liverag")
	for name, value := range m.cfg.Headers {
		req.Header.Set(name, value)
	}
	// Not sent; it tells net/http that a request which met a connection closed for idleness may be sent again.
	req.Header["Idempotency-Key"] = []string{}

	x.report.Calls++
	res, err := m.http.Do(req)
	if err != nil {
		var inURL *url.Error
		if errors.As(err, &inURL) { // it has the whole URL in its text
			err = inURL.Err
		}
		return nil, err
	}
	defer res.Body.Close()
	if res.Header.Get("X-Litellm-Version") != "" || res.Header.Get("X-Litellm-Model-Id") != "" {
		m.litellm.Store(true)
	}
	requests, tokens := allowances(res.Header, m.base.Hostname(), time.Now())
	defer func() {
		heard(&x.report.Requests, requests)
		heard(&x.report.Tokens, tokens)
	}()
	limit := answerOverhead + int64(x.inputs)*numberBytes*int64(max(m.dim, 1))
	if m.dim == 0 {
		limit = answerOverhead + numberBytes*unknownDim
	}
	if res.StatusCode >= 300 {
		limit = refusalBytes
	}
	buffer := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(buffer)
	buffer.Reset()
	if n := res.ContentLength; n > 0 && n <= limit {
		buffer.Grow(int(n) + bytes.MinRead)
	}
	_, err = buffer.ReadFrom(io.LimitReader(res.Body, limit+1))
	body := buffer.Bytes()
	switch {
	case res.StatusCode >= 400:
		r := m.refused(res, body[:min(int64(len(body)), limit)])
		if r.status == http.StatusTooManyRequests {
			ofRequests, ofTokens := toldInWords(r.said)
			requests, tokens = refined(requests, ofRequests), refined(tokens, ofTokens)
		}
		return nil, r
	case res.StatusCode >= 300:
		return nil, redirected(res)
	case err != nil:
		return nil, fmt.Errorf("the answer broke off after %d bytes: %w", len(body), err)
	case int64(len(body)) > limit:
		return nil, fmt.Errorf("%w: it is longer than %d bytes", errMalformed, limit)
	}
	if x.answer, err = decode(body, x.inputs, m.dim); err != nil {
		kind := res.Header.Get("Content-Type")
		if strings.HasPrefix(kind, "text/html") || bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n\ufeff"), []byte("<")) {
			return nil, fmt.Errorf("%w but a web page; the base URL of an API usually ends in /v1", errNoJSON)
		}
		return nil, err
	}
	if failure := x.answer.failure; failure != nil {
		return nil, m.refusedInside(res, failure)
	}
	x.report.Charged += x.answer.tokens
	return &http.Response{StatusCode: res.StatusCode, Header: res.Header, Body: io.NopCloser(strings.NewReader("{}"))}, nil
}

// checked puts the vectors of an answer in the order of the inputs, scales them to unit length and holds them to the contract.
func (m *Model) checked(op string, a answer, inputs int) ([][]float32, error) {
	malformed := func(format string, args ...any) error {
		return m.classified(op, fmt.Errorf("%w: "+format, append([]any{errMalformed}, args...)...), inputs)
	}
	if len(a.vectors) != inputs {
		return nil, malformed("%d vectors for %d inputs", len(a.vectors), inputs)
	}
	vectors, err := a.ordered()
	if err != nil {
		return nil, malformed("%v", err)
	}
	dim := m.dim
	if dim == 0 {
		dim = len(vectors[0])
	}
	for i, v := range vectors {
		if len(v) != len(vectors[0]) {
			return nil, malformed("vectors of %d and of %d dimensions", len(vectors[0]), len(v))
		}
		if len(v) == 0 {
			return nil, malformed("an empty vector")
		}
		if len(v) != dim {
			return nil, &embedder.Error{Op: op, Account: true, Input: -1, Err: m.otherDim(len(v))}
		}
		if err := scale(v); err != nil {
			return nil, &embedder.Error{Op: op, Input: i, Err: fmt.Errorf("%s answers with %w", m.cfg.Model, err)}
		}
	}
	if err := embedder.Check(op, dim, inputs, vectors); err != nil {
		return nil, err
	}
	return vectors, nil
}

// otherDim is why vectors of another dimension are refused.
func (m *Model) otherDim(dim int) error {
	switch {
	case m.cfg.Dimensions > 0 && m.cfg.Dimensions == m.dim:
		return fmt.Errorf("%s answers with %d dimensions where %d were asked for: the model can't shorten its vectors, or the endpoint does not pass `dimensions` on; leave the setting out", m.cfg.Model, dim, m.dim)
	case m.cfg.Dim > 0:
		return fmt.Errorf("%s answers with %d dimensions, and the index has %d: it is another model than the index was built with; configure that one, or replay into a new generation", m.cfg.Model, dim, m.dim)
	}
	return fmt.Errorf("%s answers with %d dimensions, and answered with %d before: the endpoint runs another model under the same name; restore it, or replay into a new generation", m.cfg.Model, dim, m.dim)
}

// scale brings a vector to unit length.
func scale(v []float32) error {
	var square float64
	for _, x := range v {
		square += float64(x) * float64(x)
	}
	length := math.Sqrt(square)
	switch {
	case math.IsNaN(length) || math.IsInf(length, 0):
		return errors.New("a vector that holds NaN or infinity")
	case length == 0:
		return errors.New("a zero vector")
	}
	by := 1 / length
	for i, x := range v {
		v[i] = float32(float64(x) * by)
	}
	return nil
}
