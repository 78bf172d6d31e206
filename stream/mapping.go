package stream

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Mapping reads log records of another shape as documents: for topics that somebody else fills. Each field is an
// expression over the record; see [ParseExpr]. What is left out is absent, except the id, which is the record's key then.
//
// A record whose value is null is a deletion, as everywhere. If the id comes out of the value, such a record's key must
// be the id, or the mapping must read it with $key.
type Mapping struct {
	// ID is a string or a number.
	ID Expr `json:"id,omitzero" yaml:"id,omitempty"`
	// Text is a string. Required.
	Text Expr `json:"text,omitzero" yaml:"text,omitempty"`
	// Deleted is true or false; absent or null is false.
	Deleted Expr `json:"deleted,omitzero" yaml:"deleted,omitempty"`
	// Backfill is true for imported history, as of a connector's first snapshot; absent or null is false. See Change.Backfill.
	Backfill Expr `json:"backfill,omitzero" yaml:"backfill,omitempty"`
	// UpdatedAt is a time as in RFC 3339, or a number: Unix time in seconds, milli-, micro- or nanoseconds, told apart by its size.
	UpdatedAt   Expr `json:"updated_at,omitzero" yaml:"updated_at,omitempty"`
	Title       Expr `json:"title,omitzero" yaml:"title,omitempty"`
	URL         Expr `json:"url,omitzero" yaml:"url,omitempty"`
	ContentType Expr `json:"content_type,omitzero" yaml:"content_type,omitempty"`
	Tenant      Expr `json:"tenant,omitzero" yaml:"tenant,omitempty"`
	// ACL is an array of strings; absent or null is none.
	ACL Expr `json:"acl,omitzero" yaml:"acl,omitempty"`
	// Metadata values are strings, numbers, true, false or arrays of strings; absent and null ones are left out.
	Metadata map[string]Expr `json:"metadata,omitempty" yaml:"metadata,omitempty"`
}

// Check tells whether the mapping can produce a document.
func (m *Mapping) Check() error {
	if m.Text.IsZero() {
		return errors.New("mapping.text is missing: say where a document's text is, as in text: $.body")
	}
	return nil
}

// Expr is a parsed expression. The zero value is an absent one.
type Expr struct {
	source string
	root   node
}

// ParseExpr parses an expression:
//
//	$.title              a field of the record's value; absent fields and null are both absent
//	$.tags[0]  $["a b"]  an element of an array, a field with any name
//	$key  $key.id        the record's key: as JSON if it is an object or array, else as a string
//	"text"  'text'       a string, with the escapes of JSON
//	a + b                strings, numbers, true and false joined as text; absent ones are left out
//	a == b  a != b       true or false; null, true, false and numbers may be compared with too
//	(a)
//
// An error names the column where the expression stops making sense, counted from 1.
func ParseExpr(source string) (Expr, error) {
	p := exprParser{source: source}
	root, err := p.comparison(0)
	if err == nil {
		if p.space(); p.pos != len(source) {
			err = p.errorf("expected the end, +, == or !=")
		}
	}
	if err != nil {
		return Expr{}, err
	}
	return Expr{source: source, root: root}, nil
}

// IsZero tells whether the expression is absent.
func (e Expr) IsZero() bool { return e.root == nil }

func (e Expr) String() string { return e.source }

// MarshalText gives the expression as it was written.
func (e Expr) MarshalText() ([]byte, error) { return []byte(e.source), nil }

// UnmarshalText parses the expression.
func (e *Expr) UnmarshalText(text []byte) (err error) {
	*e, err = ParseExpr(string(text))
	return err
}

func (e Expr) eval(r *mapped) any {
	if e.root == nil {
		return nil
	}
	return e.root(r)
}

// node evaluates to nil (absent), string, number, bool, []any or map[string]any.
type node func(*mapped) any

// number keeps the digits as written, so that large ids stay exact.
type number string

// mapped is what expressions see of a record.
type mapped struct {
	value any
	raw   *Raw
	key   any
	keyOK bool
}

// recordKey parses the key when it is asked for.
func (r *mapped) recordKey() any {
	if r.keyOK {
		return r.key
	}
	r.keyOK = true
	d := decoder{data: r.raw.Key}
	if c := d.next(); c == '{' || c == '[' {
		if v, p := d.whole(); p == nil {
			r.key = v
			return v
		}
	}
	if r.raw.Key != nil {
		r.key = string(r.raw.Key)
	}
	return r.key
}

type exprParser struct {
	source string
	pos    int
}

func (p *exprParser) errorf(format string, args ...any) error {
	return fmt.Errorf("expression %q, column %d: %s", p.source, utf8.RuneCountInString(p.source[:p.pos])+1, fmt.Sprintf(format, args...))
}

func (p *exprParser) space() {
	for p.pos < len(p.source) && strings.IndexByte(" \t\r\n", p.source[p.pos]) >= 0 {
		p.pos++
	}
}

func (p *exprParser) take(token string) bool {
	p.space()
	if strings.HasPrefix(p.source[p.pos:], token) {
		p.pos += len(token)
		return true
	}
	return false
}

// comparison parses a sum, or two with == or != between them.
func (p *exprParser) comparison(depth int) (node, error) {
	if depth > 100 {
		return nil, p.errorf("too many parentheses")
	}
	left, err := p.sum(depth)
	if err != nil {
		return nil, err
	}
	var equal bool
	switch {
	case p.take("=="):
		equal = true
	case p.take("!="):
	default:
		return left, nil
	}
	right, err := p.sum(depth)
	if err != nil {
		return nil, err
	}
	return func(r *mapped) any { return same(left(r), right(r)) == equal }, nil
}

func same(a, b any) bool {
	switch a := a.(type) {
	case number:
		b, ok := b.(number)
		if !ok {
			return false
		}
		x, _ := strconv.ParseFloat(string(a), 64)
		y, _ := strconv.ParseFloat(string(b), 64)
		return a == b || x == y
	case []any, map[string]any:
		return false
	default:
		switch b.(type) {
		case []any, map[string]any:
			return false
		}
		return a == b
	}
}

func (p *exprParser) sum(depth int) (node, error) {
	first, err := p.term(depth)
	if err != nil {
		return nil, err
	}
	terms := []node{first}
	for p.take("+") {
		t, err := p.term(depth)
		if err != nil {
			return nil, err
		}
		terms = append(terms, t)
	}
	if len(terms) == 1 {
		return first, nil
	}
	return func(r *mapped) any {
		var s strings.Builder
		for _, t := range terms {
			switch v := t(r).(type) {
			case nil:
			case string:
				s.WriteString(v)
			case number:
				s.WriteString(string(v))
			case bool:
				s.WriteString(strconv.FormatBool(v))
			default:
				// Arrays and objects have no text.
				return v
			}
		}
		return s.String()
	}, nil
}

func (p *exprParser) term(depth int) (node, error) {
	p.space()
	rest := p.source[p.pos:]
	switch {
	case rest == "":
		return nil, p.errorf("expected $, a string or (")
	case rest[0] == '(':
		p.pos++
		n, err := p.comparison(depth + 1)
		if err == nil && !p.take(")") {
			err = p.errorf("expected )")
		}
		return n, err
	case rest[0] == '"', rest[0] == '\'':
		s, err := p.quoted()
		return func(*mapped) any { return s }, err
	case rest[0] == '$':
		return p.path()
	case rest[0] == '-' || rest[0] >= '0' && rest[0] <= '9':
		d := decoder{data: []byte(rest)}
		v, problem := d.number()
		if problem != nil {
			return nil, p.errorf("not a number")
		}
		p.pos += d.pos
		return func(*mapped) any { return v }, nil
	}
	word := p.word()
	switch word {
	case "true", "false":
		return func(*mapped) any { return word == "true" }, nil
	case "null":
		return func(*mapped) any { return nil }, nil
	}
	p.pos -= len(word)
	return nil, p.errorf("expected $, a string or (")
}

func (p *exprParser) word() string {
	start := p.pos
	for p.pos < len(p.source) {
		c := p.source[p.pos]
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c < utf8.RuneSelf {
			break
		}
		p.pos++
	}
	return p.source[start:p.pos]
}

// quoted parses a string in quotes of either kind.
func (p *exprParser) quoted() (string, error) {
	quote := p.source[p.pos]
	start := p.pos
	for p.pos++; p.pos < len(p.source); p.pos++ {
		switch p.source[p.pos] {
		case '\\':
			p.pos++
		case quote:
			body := p.source[start+1 : p.pos]
			if quote == '\'' {
				body = strings.ReplaceAll(strings.ReplaceAll(body, `\'`, `'`), `"`, `\"`)
			}
			d := decoder{data: []byte(`"` + body + `"`)}
			s, problem := d.string("")
			if problem != nil || d.pos != len(d.data) {
				p.pos = start
				return "", p.errorf("not a string as in JSON")
			}
			p.pos++
			return s, nil
		}
	}
	p.pos = start
	return "", p.errorf("the string has no end")
}

func (p *exprParser) path() (node, error) {
	p.pos++
	key := strings.HasPrefix(p.source[p.pos:], "key")
	if key {
		p.pos += len("key")
	}
	var steps []any // string: a field; int: an element
	for p.pos < len(p.source) {
		switch p.source[p.pos] {
		case '.':
			p.pos++
			name := p.word()
			if name == "" {
				return nil, p.errorf(`expected the name of a field; names with other characters are written as in $["a-b"]`)
			}
			steps = append(steps, name)
			continue
		case '[':
			p.pos++
			if p.pos < len(p.source) && (p.source[p.pos] == '"' || p.source[p.pos] == '\'') {
				name, err := p.quoted()
				if err != nil {
					return nil, err
				}
				steps = append(steps, name)
			} else {
				digits := p.word()
				i, err := strconv.ParseUint(digits, 10, 31)
				if err != nil {
					p.pos -= len(digits)
					return nil, p.errorf("expected a number or a quoted name")
				}
				steps = append(steps, int(i))
			}
			if p.pos == len(p.source) || p.source[p.pos] != ']' {
				return nil, p.errorf("expected ]")
			}
			p.pos++
			continue
		case ' ', '\t', '\r', '\n', '+', '=', '!', ')':
		default:
			return nil, p.errorf("expected . or [ or an operator")
		}
		break
	}
	return func(r *mapped) any {
		v := r.value
		if key {
			v = r.recordKey()
		}
		for _, s := range steps {
			switch s := s.(type) {
			case string:
				m, _ := v.(map[string]any)
				v = m[s]
			case int:
				a, _ := v.([]any)
				if s >= len(a) {
					return nil
				}
				v = a[s]
			}
		}
		return v
	}, nil
}

func mappingFailed(field, detail string) *Problem {
	return &Problem{CodeMappingFailed, "mapping." + field + " " + detail}
}

// decodeMapped reads c.Raw through a mapping.
func (c *Change) decodeMapped(m *Mapping, maxBytes int) *Problem {
	r := mapped{raw: c.Raw}
	if c.Raw.Value != nil {
		d := decoder{data: c.Raw.Value}
		var p *Problem
		if r.value, p = d.whole(); p != nil {
			return p
		}
	}
	if p := c.mappedNames(m, &r); p != nil {
		return p
	}
	if p := checkNames(c.Tenant, c.ID); p != nil {
		return p
	}
	if c.Raw.Value == nil {
		c.Kind = Delete
		return nil
	}
	backfill, p := r.holds("backfill", m.Backfill, "r")
	if p != nil {
		return p
	}
	c.Backfill = c.Backfill || backfill
	switch deleted, p := r.holds("deleted", m.Deleted, "d"); {
	case p != nil:
		return p
	case deleted:
		c.Kind = Delete
		return nil
	}
	c.Kind = Upsert
	c.Document = &Document{Tenant: c.Tenant}
	return c.Document.fromMapping(m, &r, maxBytes)
}

// holds tells whether a field's expression is true of the record.
func (r *mapped) holds(field string, e Expr, example string) (bool, *Problem) {
	switch v := e.eval(r).(type) {
	case nil:
		return false, nil
	case bool:
		return v, nil
	}
	return false, mappingFailed(field, fmt.Sprintf("is neither true nor false; compare it, as in $.op == %q", example))
}

func (c *Change) mappedNames(m *Mapping, r *mapped) *Problem {
	switch v := m.ID.eval(r).(type) {
	case string:
		c.ID = v
	case number:
		c.ID = string(v)
	case nil:
		if !m.ID.IsZero() && c.Raw.Value != nil {
			return mappingFailed("id", "finds nothing in the record")
		}
		if c.Raw.Key == nil {
			return &Problem{CodeKeyMissing, "the record has no key, and the mapping finds no id in it"}
		}
		c.Tenant, c.ID = SplitKey(string(c.Raw.Key))
	default:
		return mappingFailed("id", "is neither a string nor a number")
	}
	switch v := m.Tenant.eval(r).(type) {
	case nil:
	case string:
		if c.Tenant != "" && c.Tenant != v {
			return &Problem{CodeTenantMismatch, "mapping.tenant and the record's key name different tenants"}
		}
		c.Tenant = v
	default:
		return mappingFailed("tenant", "is not a string")
	}
	return nil
}

func (d *Document) fromMapping(m *Mapping, r *mapped, maxBytes int) *Problem {
	text, ok := m.Text.eval(r).(string)
	if !ok {
		return mappingFailed("text", "finds no string in the record")
	}
	if maxBytes > 0 && len(text) > maxBytes {
		return tooLarge(len(text), maxBytes)
	}
	d.Text = text
	for _, f := range [...]struct {
		name string
		expr Expr
		to   *string
	}{{"title", m.Title, &d.Title}, {"url", m.URL, &d.URL}, {"content_type", m.ContentType, &d.ContentType}} {
		switch v := f.expr.eval(r).(type) {
		case nil:
		case string:
			*f.to = v
		default:
			return mappingFailed(f.name, "is not a string")
		}
	}
	if d.ContentType != "" && !knownContentType(d.ContentType) {
		return mappingFailed("content_type", "must be text/plain, text/markdown or text/html")
	}
	if v := m.UpdatedAt.eval(r); v != nil {
		t, ok := timeOf(v)
		if !ok {
			return mappingFailed("updated_at", "is neither a time as in RFC 3339 nor a Unix time")
		}
		d.UpdatedAt = t
	}
	if v := m.ACL.eval(r); v != nil {
		if d.ACL, ok = stringsOf(v); !ok {
			return mappingFailed("acl", "is not an array of strings")
		}
	}
	for name, e := range m.Metadata {
		var value any
		switch v := e.eval(r).(type) {
		case nil:
			continue
		case string, bool:
			value = v
		case number:
			f, err := strconv.ParseFloat(string(v), 64)
			if err != nil {
				return mappingFailed("metadata."+name, "is a number that does not fit 64 bits of floating point")
			}
			value = f
		default:
			list, ok := stringsOf(v)
			if !ok {
				return mappingFailed("metadata."+name, "is neither a string, a number, true, false nor an array of strings")
			}
			value = list
		}
		if d.Metadata == nil {
			d.Metadata = map[string]any{}
		}
		d.Metadata[name] = value
	}
	return nil
}

func stringsOf(v any) ([]string, bool) {
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	out := make([]string, len(list))
	for i, e := range list {
		if out[i], ok = e.(string); !ok {
			return nil, false
		}
	}
	return out, true
}

// timeOf reads a time. A number below 1e11 counts seconds (until the year 5138), and each further factor of a thousand
// the next smaller unit (from 1973 on).
func timeOf(v any) (time.Time, bool) {
	switch v := v.(type) {
	case string:
		t, err := time.Parse(time.RFC3339, v)
		return t.UTC(), err == nil
	case number:
		scale := func(abs float64) int64 {
			switch {
			case abs < 1e11:
				return 1e9
			case abs < 1e14:
				return 1e6
			case abs < 1e17:
				return 1e3
			}
			return 1
		}
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			unit := scale(math.Abs(float64(n)))
			per := int64(1e9) / unit
			return time.Unix(n/per, n%per*unit).UTC(), true
		}
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil || math.Abs(f) > 1e19 {
			return time.Time{}, false
		}
		// A float64 of this size is exact to less than a microsecond.
		return time.UnixMicro(int64(math.Round(f * float64(scale(math.Abs(f))) / 1e3))).UTC(), true
	}
	return time.Time{}, false
}

// whole reads any JSON value, and nothing after it.
func (d *decoder) whole() (any, *Problem) {
	v, p := d.value(0)
	if p == nil {
		if d.space(); d.pos != len(d.data) {
			p = d.syntax()
		}
	}
	return v, p
}

// value reads any JSON value: nil, string, number, bool, []any or map[string]any. Of a field that is there twice the last counts.
func (d *decoder) value(depth int) (any, *Problem) {
	if depth > 100 {
		return nil, notJSON("the JSON is nested too deeply")
	}
	switch c := d.next(); {
	case c == '"':
		return d.string("")
	case c == '{':
		m := map[string]any{}
		p := d.object("", func(key string) (p *Problem) {
			m[key], p = d.value(depth + 1)
			return p
		})
		return m, p
	case c == '[':
		d.pos++
		list := []any{}
		if d.next() == ']' {
			d.pos++
			return list, nil
		}
		for {
			v, p := d.value(depth + 1)
			if p != nil {
				return nil, p
			}
			list = append(list, v)
			switch d.next() {
			case ',':
				d.pos++
			case ']':
				d.pos++
				return list, nil
			default:
				return nil, d.syntax()
			}
		}
	case c == '-' || c >= '0' && c <= '9':
		return d.number()
	case d.literal("null"):
		return nil, nil
	case d.literal("true"):
		return true, nil
	case d.literal("false"):
		return false, nil
	}
	return nil, d.syntax()
}
