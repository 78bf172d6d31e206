package stream

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// DecodeDocument reads a document from JSON, strictly: an unknown, repeated or null field, a value of another type, bytes
// or surrogate escapes that are not Unicode, and a text of more than maxBytes bytes are refused with the Code constant that
// fits and a detail that names the field. The result shares no memory with data. maxBytes of 0 or less sets no limit.
func DecodeDocument(data []byte, maxBytes int) (*Document, *Problem) {
	d := decoder{data: data, maxBytes: maxBytes}
	if p := d.document(); p != nil {
		return nil, p
	}
	doc := d.doc // a pointer into d would keep data as long as the document
	return &doc, nil
}

// DecodeLine reads one line of an import: a document with its "id", or {"id":…,"deleted":true} with nothing else but a
// "tenant". It is as strict as DecodeDocument.
func DecodeLine(data []byte, maxBytes int) (Change, *Problem) {
	d := decoder{data: data, maxBytes: maxBytes, line: true}
	if p := d.document(); p != nil {
		return Change{}, p
	}
	if d.seen&fieldID == 0 {
		return Change{}, &Problem{CodeIDInvalid, `the field "id" is missing`}
	}
	doc := d.doc
	c := Change{Kind: Upsert, Tenant: doc.Tenant, ID: d.id, Document: &doc}
	if d.deleted {
		c.Kind, c.Document = Delete, nil
	}
	return c, checkNames(c.Tenant, c.ID)
}

// EncodeDocument writes a document as DecodeDocument reads it: compact, metadata keys in order, so that equal documents have
// equal bytes. It refuses what DecodeDocument would refuse, except a text that is too long.
func EncodeDocument(d *Document) ([]byte, *Problem) { return appendDocument(nil, d) }

func checkNames(tenant, id string) *Problem {
	if p := CheckID(id); p != nil {
		return p
	}
	if tenant == "" {
		return nil
	}
	if p := CheckID(tenant); p != nil {
		return &Problem{CodeIDInvalid, "the tenant" + p.Detail[len("the id"):]}
	}
	return nil
}

const (
	fieldText = 1 << iota
	fieldContentType
	fieldTitle
	fieldURL
	fieldUpdatedAt
	fieldMetadata
	fieldTenant
	fieldACL
	fieldID
	fieldDeleted
)

// decoder reads one JSON object in a single pass. encoding/json would replace invalid UTF-8 silently and takes two passes over each value.
type decoder struct {
	data     []byte
	pos      int
	maxBytes int
	line     bool

	seen    int
	doc     Document
	id      string
	deleted bool
}

func notJSON(detail string) *Problem { return &Problem{CodeNotADocument, detail} }

func wrongType(field, want string) *Problem {
	return &Problem{CodeWrongType, "the field " + strconv.Quote(field) + " must be " + want}
}

func (d *decoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// next skips white space and says which byte follows, 0 at the end.
func (d *decoder) next() byte {
	d.space()
	if d.pos == len(d.data) {
		return 0
	}
	return d.data[d.pos]
}

func (d *decoder) syntax() *Problem {
	if d.pos >= len(d.data) {
		return notJSON("the JSON ends too early")
	}
	return notJSON("the JSON is malformed at byte " + strconv.Itoa(d.pos))
}

// object calls member with each key, the value being next.
func (d *decoder) object(field string, member func(key string) *Problem) *Problem {
	d.pos++
	if d.next() == '}' {
		d.pos++
		return nil
	}
	for {
		if d.next() != '"' {
			return d.syntax()
		}
		key, p := d.string(field)
		if p != nil {
			return p
		}
		if d.next() != ':' {
			return d.syntax()
		}
		d.pos++
		d.space()
		if p := member(key); p != nil {
			return p
		}
		switch d.next() {
		case ',':
			d.pos++
		case '}':
			d.pos++
			return nil
		default:
			return d.syntax()
		}
	}
}

func (d *decoder) document() *Problem {
	if d.next() != '{' {
		return notJSON("the value is not a JSON object")
	}
	if p := d.object("", d.member); p != nil {
		return p
	}
	if d.next(); d.pos != len(d.data) {
		return notJSON("something follows the JSON object at byte " + strconv.Itoa(d.pos))
	}
	if d.deleted {
		if d.seen&^(fieldID|fieldDeleted|fieldTenant) != 0 {
			return notJSON(`a line with "deleted": true may have "id" and "tenant" only`)
		}
		return nil
	}
	if d.seen&fieldText == 0 {
		return notJSON(`the field "text" is missing`)
	}
	return nil
}

func (d *decoder) member(key string) *Problem {
	field := 0
	switch key {
	case "text":
		field = fieldText
	case "content_type":
		field = fieldContentType
	case "title":
		field = fieldTitle
	case "url":
		field = fieldURL
	case "updated_at":
		field = fieldUpdatedAt
	case "metadata":
		field = fieldMetadata
	case "tenant":
		field = fieldTenant
	case "acl":
		field = fieldACL
	case "id":
		if d.line {
			field = fieldID
		}
	case "deleted":
		if d.line {
			field = fieldDeleted
		}
	}
	if field == 0 {
		return &Problem{CodeUnknownField, "the field " + strconv.Quote(key) + " is unknown"}
	}
	if d.seen&field != 0 {
		return notJSON("the field " + strconv.Quote(key) + " is there twice")
	}
	d.seen |= field
	switch field {
	case fieldMetadata:
		return d.metadata()
	case fieldACL:
		var p *Problem
		d.doc.ACL, p = d.strings("acl")
		return p
	case fieldDeleted:
		v, ok := d.bool()
		if !ok {
			return wrongType(key, "true or false")
		}
		d.deleted = v
		return nil
	}
	if d.next() != '"' {
		return d.mistyped(key, "a string")
	}
	s, p := d.string(key)
	if p != nil {
		return p
	}
	switch field {
	case fieldText:
		if d.maxBytes > 0 && len(s) > d.maxBytes {
			return tooLarge(len(s), d.maxBytes)
		}
		d.doc.Text = s
	case fieldContentType:
		if !knownContentType(s) {
			return wrongType(key, "text/plain, text/markdown or text/html")
		}
		d.doc.ContentType = s
	case fieldTitle:
		d.doc.Title = s
	case fieldURL:
		d.doc.URL = s
	case fieldUpdatedAt:
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return wrongType(key, "a time as in RFC 3339")
		}
		d.doc.UpdatedAt = t.UTC()
	case fieldTenant:
		d.doc.Tenant = s
	case fieldID:
		d.id = s
	}
	return nil
}

func tooLarge(n, limit int) *Problem {
	return &Problem{CodeDocumentTooLarge, "the text has " + strconv.Itoa(n) + " bytes, the limit is " + strconv.Itoa(limit)}
}

func knownContentType(s string) bool {
	return s == TextPlain || s == TextMarkdown || s == TextHTML
}

// mistyped tells a value of another type from broken JSON.
func (d *decoder) mistyped(field, want string) *Problem {
	switch c := d.next(); {
	case c == '{', c == '[', c == '"', c == '-', c >= '0' && c <= '9':
		return wrongType(field, want)
	case d.literal("null"), d.literal("true"), d.literal("false"):
		return wrongType(field, want)
	}
	return d.syntax()
}

func (d *decoder) literal(word string) bool {
	if bytes.HasPrefix(d.data[d.pos:], []byte(word)) {
		d.pos += len(word)
		return true
	}
	return false
}

func (d *decoder) bool() (value, ok bool) {
	switch {
	case d.literal("true"):
		return true, true
	case d.literal("false"):
		return false, true
	}
	return false, false
}

func (d *decoder) metadata() *Problem {
	if d.next() != '{' {
		return d.mistyped("metadata", "an object")
	}
	d.doc.Metadata = map[string]any{}
	return d.object("metadata", func(key string) *Problem {
		field := "metadata." + key
		if _, ok := d.doc.Metadata[key]; ok {
			return notJSON("the field " + strconv.Quote(field) + " is there twice")
		}
		const want = "a string, a number, true, false or an array of strings"
		var v any
		var p *Problem
		switch c := d.next(); {
		case c == '"':
			v, p = d.string(field)
		case c == '[':
			v, p = d.strings(field)
		case c == '-' || c >= '0' && c <= '9':
			var n number
			if n, p = d.number(); p == nil {
				f, err := strconv.ParseFloat(string(n), 64)
				if err != nil {
					return wrongType(field, "a number that fits 64 bits of floating point")
				}
				v = f
			}
		default:
			b, ok := d.bool()
			if !ok {
				return d.mistyped(field, want)
			}
			v = b
		}
		if p != nil {
			return p
		}
		d.doc.Metadata[key] = v
		return nil
	})
}

// strings reads an array of strings; it is never nil.
func (d *decoder) strings(field string) ([]string, *Problem) {
	if d.next() != '[' {
		return nil, d.mistyped(field, "an array of strings")
	}
	d.pos++
	list := []string{}
	if d.next() == ']' {
		d.pos++
		return list, nil
	}
	for {
		if d.next() != '"' {
			return nil, d.mistyped(field, "an array of strings")
		}
		s, p := d.string(field)
		if p != nil {
			return nil, p
		}
		list = append(list, s)
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
}

// number reads a number by JSON's grammar, which is narrower than strconv's.
func (d *decoder) number() (number, *Problem) {
	start := d.pos
	digits := func() bool {
		from := d.pos
		for d.pos < len(d.data) && d.data[d.pos] >= '0' && d.data[d.pos] <= '9' {
			d.pos++
		}
		return d.pos > from
	}
	at := func(c byte) bool {
		if d.pos < len(d.data) && d.data[d.pos] == c {
			d.pos++
			return true
		}
		return false
	}
	at('-')
	if !at('0') && !digits() {
		return "", d.syntax()
	}
	if at('.') && !digits() {
		return "", d.syntax()
	}
	if at('e') || at('E') {
		if !at('+') {
			at('-')
		}
		if !digits() {
			return "", d.syntax()
		}
	}
	return number(d.data[start:d.pos]), nil
}

// string reads a string, d.pos being at its quote.
func (d *decoder) string(field string) (string, *Problem) {
	start := d.pos + 1
	end, plain := scanString(d.data, start)
	if end < 0 {
		d.pos = len(d.data)
		return "", d.syntax()
	}
	raw := d.data[start:end]
	d.pos = end + 1
	if !utf8.Valid(raw) {
		return "", &Problem{CodeInvalidUTF8, in(field) + "is not valid UTF-8"}
	}
	if plain {
		return string(raw), nil
	}
	return d.unescape(field, raw, start)
}

func in(field string) string {
	if field == "" {
		return "the name of a field "
	}
	return "the field " + strconv.Quote(field) + " "
}

// scanString finds the closing quote of a string that starts at pos, and whether there is neither an escape nor a control
// character in it. It is negative if there is no closing quote.
func scanString(data []byte, pos int) (end int, plain bool) {
	plain = true
	for i := pos; i < len(data); i++ {
		switch c := data[i]; {
		case c == '"':
			return i, plain
		case c == '\\':
			plain = false
			i++
		case c < 0x20:
			plain = false
		}
	}
	return -1, false
}

// unescape resolves the escapes of raw, which starts at byte offset of the data.
func (d *decoder) unescape(field string, raw []byte, offset int) (string, *Problem) {
	var out strings.Builder
	out.Grow(len(raw))
	for i := 0; i < len(raw); {
		n := bytes.IndexByte(raw[i:], '\\')
		if n < 0 {
			n = len(raw) - i
		}
		for j, c := range raw[i : i+n] {
			if c < 0x20 {
				d.pos = offset + i + j
				return "", d.syntax()
			}
		}
		out.Write(raw[i : i+n])
		if i += n; i == len(raw) {
			break
		}
		// A string never ends with a single backslash: scanString skips the byte after it.
		switch c := raw[i+1]; c {
		case '"', '\\', '/':
			out.WriteByte(c)
			i += 2
		case 'b', 'f', 'n', 'r', 't':
			out.WriteByte("\b\f\n\r\t"[strings.IndexByte("bfnrt", c)])
			i += 2
		case 'u':
			r, ok := hex4(raw[i:])
			if !ok {
				d.pos = offset + i
				return "", d.syntax()
			}
			i += 6
			if utf16.IsSurrogate(r) {
				low, _ := hex4(raw[i:])
				if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
					return "", &Problem{CodeInvalidUTF8, in(field) + "has half of a surrogate pair"}
				}
				i += 6
			}
			out.WriteRune(r)
		default:
			d.pos = offset + i
			return "", d.syntax()
		}
	}
	return out.String(), nil
}

// hex4 reads the code unit of an escape \uXXXX that b starts with.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func appendDocument(b []byte, d *Document) ([]byte, *Problem) {
	b = slices.Grow(b, len(d.Text)+len(d.Text)/16+256)
	if d.ContentType != "" && !knownContentType(d.ContentType) {
		return nil, wrongType("content_type", "text/plain, text/markdown or text/html")
	}
	b = append(b, '{')
	var p *Problem
	for _, f := range [...]struct{ name, value string }{
		{"text", d.Text}, {"content_type", d.ContentType}, {"title", d.Title}, {"url", d.URL}, {"tenant", d.Tenant},
	} {
		if f.value == "" && f.name != "text" {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, f.name...)
		b = append(b, `":`...)
		if b, p = appendString(b, f.name, f.value); p != nil {
			return nil, p
		}
	}
	if !d.UpdatedAt.IsZero() {
		if y := d.UpdatedAt.UTC().Year(); y < 0 || y > 9999 {
			return nil, wrongType("updated_at", "a time as in RFC 3339")
		}
		b = append(b, `,"updated_at":"`...)
		b = d.UpdatedAt.UTC().AppendFormat(b, time.RFC3339Nano)
		b = append(b, '"')
	}
	if len(d.Metadata) > 0 {
		b = append(b, `,"metadata":{`...)
		keys := make([]string, 0, len(d.Metadata))
		for k := range d.Metadata {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			field := "metadata." + k
			if b, p = appendString(b, field, k); p != nil {
				return nil, p
			}
			b = append(b, ':')
			switch v := d.Metadata[k].(type) {
			case string:
				b, p = appendString(b, field, v)
			case bool:
				b = strconv.AppendBool(b, v)
			case float64:
				if math.IsNaN(v) || math.IsInf(v, 0) {
					return nil, wrongType(field, "a finite number")
				}
				b = strconv.AppendFloat(b, v, 'g', -1, 64)
			case []string:
				b, p = appendStrings(b, field, v)
			default:
				return nil, wrongType(field, "a string, a number, true, false or an array of strings")
			}
			if p != nil {
				return nil, p
			}
		}
		b = append(b, '}')
	}
	if d.ACL != nil {
		b = append(b, `,"acl":`...)
		if b, p = appendStrings(b, "acl", d.ACL); p != nil {
			return nil, p
		}
	}
	return append(b, '}'), nil
}

func appendStrings(b []byte, field string, list []string) ([]byte, *Problem) {
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		var p *Problem
		if b, p = appendString(b, field, s); p != nil {
			return nil, p
		}
	}
	return append(b, ']'), nil
}

func appendString(b []byte, field, s string) ([]byte, *Problem) {
	if !utf8.ValidString(s) {
		return nil, &Problem{CodeInvalidUTF8, in(field) + "is not valid UTF-8"}
	}
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	b = append(b, s[start:]...)
	return append(b, '"'), nil
}
