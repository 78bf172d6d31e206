package milvus

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// What filters ask for is stored as numbers and hexadecimal digits, never as the caller's own strings: so no server's idea of escaping, of types in JSON or of
// what is absent has a say. Equality and presence are hashes in an array, order is a string of digits in a JSON object. An expression lets everything
// through that the filter does, and hardly anything else: hits are held against the filter itself again.

// The kinds of tag.
const (
	tagExists    = 'e' // the document has the field
	tagEqual     = '=' // the field has the value, or holds it
	tagOrdered   = '<' // the field has a value of a type that has an order
	tagPrincipal = 'p' // who is on the access list
)

// digest is 63 bits of the parts' hash; none of them runs into the next.
func digest(kind byte, parts ...string) int64 {
	h := sha256.New()
	buf := []byte{kind}
	for _, p := range parts {
		buf = binary.AppendUvarint(buf, uint64(len(p)))
		buf = append(buf, p...)
	}
	_, _ = h.Write(buf)
	return int64(binary.BigEndian.Uint64(h.Sum(nil)) >> 1)
}

// orderedPrefix is how many bytes of a string are compared by the server.
const orderedPrefix = 32

// ordered writes a value so that strings compare as the values do, within one type. The first letter is the type's; rough tells that a string was
// cut, so that others may begin the same way. ok is false for a type without an order.
func ordered(v any) (s string, rough, ok bool) {
	switch v := v.(type) {
	case float64:
		bits := math.Float64bits(v + 0) // one zero, not two
		if bits>>63 != 0 {
			bits = ^bits
		} else {
			bits |= 1 << 63
		}
		return fmt.Sprintf("n%016x", bits), false, true
	case time.Time:
		return fmt.Sprintf("t%016x", uint64(v.UnixMicro())+1<<63), false, true
	case string:
		rough = len(v) >= orderedPrefix
		return "s" + hex.EncodeToString([]byte(v[:min(len(v), orderedPrefix)])), rough, true
	}
	return "", false, false
}

// equal is the tag of a field's value.
func equal(field string, v any) int64 {
	switch v := v.(type) {
	case string:
		return digest(tagEqual, field, "s", v)
	case bool:
		return digest(tagEqual, field, "b", strconv.FormatBool(v))
	}
	s, _, _ := ordered(v)
	return digest(tagEqual, field, s)
}

// orderName is a field's name in the object of ordered values.
func orderName(field string) string { return fmt.Sprintf("%016x", digest(tagOrdered, field)) }

// How a chunk can be found.
const (
	hidden      = iota // not at all: no chunk
	found              // by both legs
	lexicalOnly        // it has no direction
	modes
)

// scope is the number that rows have which the tenant's callers find: all of them, or only those on an access list.
func scope(tenant string, mode int, restricted bool) int64 {
	if mode == hidden {
		return 0
	}
	return digest('s', tenant, strconv.Itoa(mode), strconv.FormatBool(restricted))
}

// filterable is what a document's rows have for filters.
type filterable struct {
	scope [modes]int64
	tags  []int64
	order []byte
}

// describeDocument makes it.
func describeDocument(r *vectordb.Revision) (filterable, error) {
	var f filterable
	readers := r.Readers()
	for mode := range modes {
		f.scope[mode] = scope(r.Tenant, mode, readers != nil)
	}
	for _, p := range readers {
		f.tags = append(f.tags, digest(tagPrincipal, p))
	}
	order := map[string]string{}
	add := func(field string, v any) {
		f.tags = append(f.tags, digest(tagExists, field))
		if list, ok := v.([]string); ok {
			for _, s := range list {
				f.tags = append(f.tags, equal(field, s))
			}
			return
		}
		f.tags = append(f.tags, equal(field, v))
		if s, _, ok := ordered(v); ok {
			f.tags = append(f.tags, digest(tagOrdered, field, s[:1]))
			order[orderName(field)] = s
		}
	}
	for field, v := range r.Metadata {
		if !strings.HasPrefix(field, "@") && !strings.HasPrefix(field, "$") { // these can't be asked for
			add(field, v)
		}
	}
	add("@id", vectordb.DocumentID(r.Key))
	if r.URL != "" {
		add("@url", r.URL)
	}
	if r.ContentType != "" {
		add("@content_type", r.ContentType)
	}
	if !r.UpdatedAt.IsZero() {
		add("@updated_at", r.UpdatedAt.Truncate(time.Microsecond))
	}
	var err error
	if f.order, err = json.Marshal(order); err != nil {
		return f, err
	}
	switch {
	case len(f.tags) > maxTags:
		return f, invalidf("revision of %q: its metadata and access list make %d values to filter by, Milvus allows %d; use fewer", cut(r.Key), len(f.tags), maxTags)
	case len(f.order) > maxVarchar:
		return f, invalidf("revision of %q: its metadata has too many fields; Milvus allows %d bytes for what filters compare, they take %d", cut(r.Key), maxVarchar, len(f.order))
	}
	return f, nil
}

// The two expressions that need no server.
const (
	always = "always"
	never  = "never"
)

// reach is the expression of the rows that a caller may find: one leg's, or all chunks' with both modes.
func reach(tenant string, principals []string, modes ...int) string {
	open, restricted := make([]int64, len(modes)), make([]int64, len(modes))
	for i, mode := range modes {
		open[i], restricted[i] = scope(tenant, mode, false), scope(tenant, mode, true)
	}
	expr := fieldScope + " in " + numbers(open)
	if len(principals) == 0 {
		return expr
	}
	tags := make([]int64, len(principals))
	for i, p := range principals {
		tags[i] = digest(tagPrincipal, p)
	}
	return either(expr, both(fieldScope+" in "+numbers(restricted), holds(tags...)))
}

// expression is a filter for the server, or the opposite of one. It lets through at least what it should.
func expression(f *vectordb.Filter, opposite bool) string {
	if f == nil {
		if opposite {
			return never
		}
		return always
	}
	switch f.Op {
	case vectordb.And, vectordb.Or, vectordb.Not:
		// Not is none of them: the opposite of any.
		opposite := opposite != (f.Op == vectordb.Not)
		join, expr := both, always
		if (f.Op == vectordb.And) == opposite {
			join, expr = either, never
		}
		for _, sub := range f.Sub {
			expr = join(expr, expression(sub, opposite))
		}
		return expr
	case vectordb.Eq, vectordb.Ne:
		return unless(opposite != (f.Op == vectordb.Ne), holds(equal(f.Field, f.Value)))
	case vectordb.In, vectordb.Nin:
		tags := make([]int64, len(f.Values))
		for i, v := range f.Values {
			tags[i] = equal(f.Field, v)
		}
		return unless(opposite != (f.Op == vectordb.Nin), holds(tags...))
	case vectordb.Exists:
		return unless(opposite != (f.Value == false), holds(digest(tagExists, f.Field)))
	}
	return compare(f, opposite)
}

// compare is the expression of an order. Values of another type are neither above nor below.
func compare(f *vectordb.Filter, opposite bool) string {
	s, rough, ok := ordered(f.Value)
	if !ok {
		return unless(opposite, never)
	}
	op := f.Op
	if opposite {
		op = map[vectordb.Op]vectordb.Op{vectordb.Gt: vectordb.Lte, vectordb.Gte: vectordb.Lt, vectordb.Lt: vectordb.Gte, vectordb.Lte: vectordb.Gt}[op]
	}
	if t, isTime := f.Value.(time.Time); isTime && !t.Equal(t.Truncate(time.Microsecond)) {
		rough = true
	}
	field := fieldOrder + `["` + orderName(f.Field) + `"]`
	var expr string
	switch strict := (op == vectordb.Gt || op == vectordb.Lt) && !rough; {
	case op == vectordb.Gt && strict:
		expr = field + ` > "` + s + `"`
	case op == vectordb.Gt || op == vectordb.Gte:
		expr = field + ` >= "` + s + `"`
	case strict:
		expr = field + ` < "` + s + `"`
	default:
		expr = field + ` <= "` + s + `"`
	}
	sameType := holds(digest(tagOrdered, f.Field, s[:1]))
	if opposite {
		return either("not "+sameType, expr)
	}
	return both(sameType, expr)
}

// holds is the expression of rows that have any of the tags.
func holds(tags ...int64) string {
	switch len(tags) {
	case 0:
		return never
	case 1:
		return "array_contains(" + fieldTags + ", " + strconv.FormatInt(tags[0], 10) + ")"
	}
	return "array_contains_any(" + fieldTags + ", " + numbers(tags) + ")"
}

func unless(opposite bool, expr string) string {
	switch {
	case !opposite:
		return expr
	case expr == always:
		return never
	case expr == never:
		return always
	}
	return "not " + expr
}

// both is the conjunction.
func both(a, b string) string {
	switch {
	case a == never || b == never:
		return never
	case a == always:
		return b
	case b == always:
		return a
	}
	return "(" + a + " and " + b + ")"
}

// either is the disjunction.
func either(a, b string) string {
	switch {
	case a == always || b == always:
		return always
	case a == never:
		return b
	case b == never:
		return a
	}
	return "(" + a + " or " + b + ")"
}

func numbers(list []int64) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, n := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(n, 10))
	}
	b.WriteByte(']')
	return b.String()
}

// names is a list of strings that need no escaping: hashes and keys of rows.
func names(list []string) string { return `["` + strings.Join(list, `","`) + `"]` }
