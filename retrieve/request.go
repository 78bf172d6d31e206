package retrieve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/vectordb"
)

func bad(code, detail string, args ...any) error {
	return problem.New(http.StatusBadRequest, code, detail, args...)
}

// check tells whether a request is within bounds.
func (q *Request) check() error {
	switch {
	case !utf8.ValidString(q.Query):
		return bad("invalid_utf8", "query: it is not valid UTF-8")
	case strings.TrimSpace(q.Query) == "":
		return bad("query_empty", "query: it is missing or blank")
	case len(q.Query) > MaxQueryBytes:
		return bad("query_too_large", "query: it has %d bytes, the limit is %d", len(q.Query), MaxQueryBytes)
	case q.K < 1 || q.K > MaxK:
		return bad("k_out_of_range", "k: %d is not from 1 to %d", q.K, MaxK)
	case q.Mode != "" && q.Mode.check() != nil:
		return q.Mode.check()
	case q.Wait < 0 || q.Wait > MaxWait:
		return bad("wait_out_of_range", "wait: %s is not from 0s to %s", q.Wait, MaxWait)
	case len(q.After) > MaxTokens:
		return bad("after_too_large", "after: it has %d tokens, the limit is %d", len(q.After), MaxTokens)
	}
	return nil
}

// check tells whether a mode that is named is one.
func (m Mode) check() error {
	if m != Hybrid && m != Dense && m != Lexical {
		return bad("mode_unknown", "mode: %s is not hybrid, dense or lexical", quote(string(m)))
	}
	return nil
}

// ParseRequest reads the JSON of POST /retrieve. Fields that are absent or null have their defaults.
func ParseRequest(data []byte) (Request, error) {
	q := NewRequest("")
	if !utf8.Valid(data) {
		return q, bad("invalid_utf8", "the body is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return q, bad("invalid_json", "the body is not a JSON object")
	}
	var seen []string
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return q, malformed(d)
		}
		name, _ := t.(string)
		if slices.Contains(seen, name) {
			return q, bad("invalid_json", "%s: the field is there twice", field(name))
		}
		seen = append(seen, name)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return q, malformed(d)
		}
		if err := q.set(name, value); err != nil {
			return q, err
		}
	}
	if _, err := d.Token(); err != nil {
		return q, malformed(d)
	}
	if _, err := d.Token(); err != io.EOF { // not More, which takes a stray bracket for an end
		return q, bad("invalid_json", "something follows the JSON object at byte %d", d.InputOffset())
	}
	return q, q.check()
}

func malformed(d *json.Decoder) error {
	return bad("invalid_json", "the JSON is malformed or ends too early, near byte %d", d.InputOffset())
}

func (q *Request) set(name string, value json.RawMessage) error {
	null := string(value) == "null"
	switch name {
	case "query":
		return decode(name, "a string", value, &q.Query)
	case "k":
		if null {
			return nil
		}
		k, err := strconv.Atoi(string(value))
		if err != nil {
			if errors.Is(err, strconv.ErrRange) {
				return bad("k_out_of_range", "k: it is not from 1 to %d", MaxK)
			}
			return bad("wrong_type", "k: it must be a whole number")
		}
		q.K = k
		return nil
	case "mode":
		if err := decode(name, "a string", value, &q.Mode); err != nil || null {
			return err
		}
		return q.Mode.check()
	case "filter":
		if null {
			return nil
		}
		f, err := vectordb.ParseFilter(value)
		q.Filter = f
		return badFilter(err)
	case "generation":
		return decode(name, "a string", value, &q.Generation)
	case "after":
		if len(value) > 0 && value[0] == '[' {
			return decode(name, "a string or an array of strings", value, &q.After)
		}
		var token string
		if err := decode(name, "a string or an array of strings", value, &token); err != nil || null {
			return err
		}
		q.After = []string{token}
		return nil
	case "max_staleness":
		if null {
			return nil
		}
		return duration(name, value, &q.MaxStaleness)
	case "wait":
		if null {
			return nil
		}
		return duration(name, value, &q.Wait)
	case "strict":
		return decode(name, "true or false", value, &q.Strict)
	case "explain":
		return decode(name, "true or false", value, &q.Explain)
	}
	return unsupported(name)
}

func unsupported(name string) error {
	return bad("unsupported", "%s: the field is not supported; there are query, k, mode, filter, generation, after, max_staleness, wait, strict and explain", field(name))
}

func badFilter(err error) error {
	if err == nil {
		return nil
	}
	return bad("filter_invalid", "%s", err.Error())
}

func decode(name, want string, value json.RawMessage, into any) error {
	if err := json.Unmarshal(value, into); err != nil {
		return bad("wrong_type", "%s: it must be %s", name, want)
	}
	return nil
}

func duration(name string, value json.RawMessage, into *time.Duration) error {
	const want = `a duration such as "250ms" or "5s"`
	var s string
	if err := decode(name, want, value, &s); err != nil {
		return err
	}
	return parseDuration(name, s, into)
}

func parseDuration(name, s string, into *time.Duration) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return bad("duration_invalid", `%s: %s is not a duration such as "250ms" or "5s"`, name, quote(s))
	}
	*into = d
	return nil
}

// ParseQuery reads the parameters of GET /retrieve: those of POST /retrieve, with q for query. filter is JSON; after may be repeated.
func ParseQuery(values url.Values) (Request, error) {
	q := NewRequest("")
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names) // the same request gets the same error
	for _, name := range names {
		all := values[name]
		if len(all) > 1 && name != "after" {
			return q, bad("wrong_type", "%s: it is there twice", field(name))
		}
		value := all[0]
		if !utf8.ValidString(value) {
			return q, bad("invalid_utf8", "%s: it is not valid UTF-8", field(name))
		}
		var err error
		switch name {
		case "q":
			q.Query = value
		case "k":
			if q.K, err = strconv.Atoi(value); err != nil {
				if errors.Is(err, strconv.ErrRange) {
					return q, bad("k_out_of_range", "k: it is not from 1 to %d", MaxK)
				}
				return q, bad("wrong_type", "k: it must be a whole number")
			}
		case "mode":
			q.Mode = Mode(value)
			err = q.Mode.check()
		case "filter":
			q.Filter, err = vectordb.ParseFilter([]byte(value))
			err = badFilter(err)
		case "generation":
			q.Generation = value
		case "after":
			q.After = all
		case "max_staleness":
			err = parseDuration(name, value, &q.MaxStaleness)
		case "wait":
			err = parseDuration(name, value, &q.Wait)
		case "strict":
			err = parseBool(name, value, &q.Strict)
		case "explain":
			err = parseBool(name, value, &q.Explain)
		default:
			if name == "query" {
				err = bad("unsupported", "query: in a URL it is called q")
			} else {
				err = unsupported(name)
			}
		}
		if err != nil {
			return q, err
		}
	}
	return q, q.check()
}

func parseBool(name, s string, into *bool) error {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return bad("wrong_type", "%s: it must be true or false", name)
	}
	*into = b
	return nil
}

// field is a caller's name for a field, fit for a message.
func field(name string) string {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '"' || r == 0x7f }) || len(name) > 64 {
		return quote(name)
	}
	return name
}

func quote(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
