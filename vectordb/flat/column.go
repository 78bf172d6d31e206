package flat

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
	"time"
	"unsafe"

	"github.com/liverag/liverag/vectordb"
)

// A segment's columns turn a filter into a set of rows without decoding a row. For each field and kind of value there are the distinct
// values in order and the rows that have each.
//
//	directory's length u32, then for each column: field, kind u8, values uvarint, place in the data uvarint
//	data, each array at a multiple of 8: the values (8 bytes each; for strings their ends as u32, then their bytes), where the rows of each value end as u32, the rows as u32

// Kinds of column.
const (
	columnString  = iota + 1 // a string
	columnElement            // a string in a list
	columnNumber
	columnBool
	columnTime
	columnEmpty // present, without a value: an empty list
)

// Fields that are not metadata. No metadata field can have these names, because of the zero byte.
const (
	tenantField = "\x00tenant"
	aclField    = "\x00acl"
)

type columnKey struct {
	field string
	kind  byte
}

type stringValue struct {
	value string
	row   uint32
}

type wordValue struct {
	value uint64
	row   uint32
}

// columnBuilder collects the values of a segment's rows.
type columnBuilder struct {
	strings map[columnKey][]stringValue
	words   map[columnKey][]wordValue
}

func newColumnBuilder() *columnBuilder {
	return &columnBuilder{strings: map[columnKey][]stringValue{}, words: map[columnKey][]wordValue{}}
}

func (b *columnBuilder) text(field string, kind byte, row uint32, value string) {
	k := columnKey{field, kind}
	b.strings[k] = append(b.strings[k], stringValue{value, row})
}

func (b *columnBuilder) word(field string, kind byte, row uint32, value uint64) {
	k := columnKey{field, kind}
	b.words[k] = append(b.words[k], wordValue{value, row})
}

// add takes the fields of a row. Rows ascend.
func (b *columnBuilder) add(row uint32, r *vectordb.Revision) {
	b.text(tenantField, columnString, row, r.Tenant)
	if readers := r.Readers(); readers != nil {
		b.word(aclField, columnEmpty, row, 0)
		for _, p := range readers {
			b.text(aclField, columnElement, row, p)
		}
	}
	b.text("@id", columnString, row, vectordb.DocumentID(r.Key))
	if r.URL != "" {
		b.text("@url", columnString, row, r.URL)
	}
	if r.ContentType != "" {
		b.text("@content_type", columnString, row, r.ContentType)
	}
	if !r.UpdatedAt.IsZero() {
		b.word("@updated_at", columnTime, row, sortableInt(r.UpdatedAt.UnixMicro()))
	}
	for name, v := range r.Metadata {
		switch name {
		case "@id", "@url", "@content_type", "@updated_at":
			continue // the document's own field is what a filter means
		}
		switch v := v.(type) {
		case string:
			b.text(name, columnString, row, v)
		case float64:
			b.word(name, columnNumber, row, sortableFloat(v))
		case bool:
			var n uint64
			if v {
				n = 1
			}
			b.word(name, columnBool, row, n)
		case []string:
			if len(v) == 0 {
				b.word(name, columnEmpty, row, 0)
			}
			for _, s := range v {
				b.text(name, columnElement, row, s)
			}
		}
	}
}

// sortableFloat maps numbers to integers of the same order; both zeros to one.
func sortableFloat(f float64) uint64 {
	if f == 0 {
		f = 0 // -0
	}
	n := *(*uint64)(unsafe.Pointer(&f))
	if n>>63 != 0 {
		return ^n
	}
	return n | 1<<63
}

func sortableInt(n int64) uint64     { return uint64(n) ^ 1<<63 }
func fromSortableInt(n uint64) int64 { return int64(n ^ 1<<63) }

// bytes returns the section.
func (b *columnBuilder) bytes() []byte {
	keys := make([]columnKey, 0, len(b.strings)+len(b.words))
	for k := range b.strings {
		keys = append(keys, k)
	}
	for k := range b.words {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b columnKey) int { return cmp.Or(cmp.Compare(a.field, b.field), cmp.Compare(a.kind, b.kind)) })
	var directory, data []byte
	for _, k := range keys {
		at := len(data)
		var n int
		var ends, rows []uint32
		if list, ok := b.strings[k]; ok {
			slices.SortStableFunc(list, func(a, b stringValue) int { return cmp.Compare(a.value, b.value) })
			var bytes []byte
			var stops []uint32
			for i, v := range list {
				if i == 0 || v.value != list[i-1].value {
					bytes = append(bytes, v.value...)
					stops = append(stops, uint32(len(bytes)))
					ends = append(ends, 0)
				}
				rows = append(rows, v.row)
				ends[len(ends)-1] = uint32(len(rows))
			}
			n = len(ends)
			data = pad8(append(data, raw(stops)...))
			data = pad8(append(data, bytes...))
		} else {
			list := b.words[k]
			slices.SortStableFunc(list, func(a, b wordValue) int { return cmp.Compare(a.value, b.value) })
			var values []uint64
			for i, v := range list {
				if i == 0 || v.value != list[i-1].value {
					values = append(values, v.value)
					ends = append(ends, 0)
				}
				rows = append(rows, v.row)
				ends[len(ends)-1] = uint32(len(rows))
			}
			n = len(ends)
			data = append(data, raw(values)...)
		}
		data = pad8(append(data, raw(ends)...))
		data = pad8(append(data, raw(rows)...))
		directory = append(appendString(directory, k.field), k.kind)
		directory = binary.AppendUvarint(directory, uint64(n))
		directory = binary.AppendUvarint(directory, uint64(at))
	}
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(directory)))
	out = pad8(append(out, directory...))
	return append(out, data...)
}

func pad8(b []byte) []byte {
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// column is one field's values of one kind.
type column struct {
	// Either stops and bytes, or words.
	stops []uint32
	bytes []byte
	words []uint64
	n     int
	ends  []uint32
	rows  []uint32
}

func (c *column) text(i int) string {
	var from uint32
	if i > 0 {
		from = c.stops[i-1]
	}
	b := c.bytes[from:c.stops[i]]
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// addTo adds the rows of the values [from, to).
func (c *column) addTo(set *bitset, from, to int) {
	if from >= to {
		return
	}
	var first uint32
	if from > 0 {
		first = c.ends[from-1]
	}
	for _, r := range c.rows[first:c.ends[to-1]] {
		set.add(r)
	}
}

type columns map[columnKey]*column

// openColumns reads the section of a segment of so many rows. It checks every number that it will follow.
func openColumns(b []byte, rows uint32) (columns, bool) {
	d := decoder{b: b}
	directory := decoder{b: d.bytes(int(d.uint32()))}
	if d.bad {
		return nil, false
	}
	start := (4 + len(directory.b) + 7) &^ 7
	if start > len(b) {
		return nil, false
	}
	data := b[start:]
	cs := columns{}
	for len(directory.b) > 0 {
		k := columnKey{field: directory.string(), kind: directory.byte()}
		n, at := directory.length1(len(data)), directory.uvarint()
		if directory.bad || at > uint64(len(data)) || at%8 != 0 {
			return nil, false
		}
		d := decoder{b: data[at:]}
		c := &column{n: n}
		if k.kind == columnString || k.kind == columnElement {
			c.stops = cast[uint32](d.padded(4 * n))
			if !ascending(c.stops) {
				return nil, false
			}
			c.bytes = d.padded(int(last(c.stops)))
		} else {
			c.words = cast[uint64](d.padded(8 * n))
		}
		c.ends = cast[uint32](d.padded(4 * n))
		if !ascending(c.ends) {
			return nil, false
		}
		c.rows = cast[uint32](d.padded(4 * int(last(c.ends))))
		if d.bad {
			return nil, false
		}
		for _, r := range c.rows {
			if r >= rows {
				return nil, false
			}
		}
		cs[k] = c
	}
	return cs, !directory.bad
}

// length1 reads a count that is at most limit.
func (d *decoder) length1(limit int) int {
	n := d.uvarint()
	if n > uint64(limit) {
		d.fail()
		return 0
	}
	return int(n)
}

// padded returns n bytes and skips to the next multiple of 8.
func (d *decoder) padded(n int) []byte {
	b := d.bytes(n)
	if len(d.b) > 0 {
		d.bytes((8 - n%8) % 8)
	}
	return b
}

func ascending(s []uint32) bool {
	for i := 1; i < len(s); i++ {
		if s[i] < s[i-1] {
			return false
		}
	}
	return true
}

func last(s []uint32) uint32 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1]
}

// allowed returns the rows of n that the query's caller may see and that pass its filter; nil if all do.
func (cs columns) allowed(q *vectordb.Query, n uint32) *bitset {
	var set *bitset
	restrict := func(s *bitset) {
		if set == nil {
			set = s
		} else {
			set.and(s)
		}
	}
	tenants := cs[columnKey{tenantField, columnString}]
	if tenants == nil {
		return nil // no row has content
	}
	if i, found := tenants.findText(q.Tenant); !found {
		return newBitset(n)
	} else if tenants.n > 1 {
		s := newBitset(n)
		tenants.addTo(s, i, i+1)
		restrict(s)
	}
	if closed := cs[columnKey{aclField, columnEmpty}]; closed != nil {
		s := newBitset(n)
		closed.addTo(s, 0, closed.n)
		s.invert()
		if readers := cs[columnKey{aclField, columnElement}]; readers != nil {
			for _, p := range q.Principals {
				if i, found := readers.findText(p); found {
					readers.addTo(s, i, i+1)
				}
			}
		}
		restrict(s)
	}
	if q.Filter != nil {
		restrict(cs.match(q.Filter, n))
	}
	return set
}

func (c *column) findText(s string) (int, bool) {
	return sort.Find(c.n, func(i int) int { return cmp.Compare(s, c.text(i)) })
}

// match is Filter.Match for all rows at once. Rows without content may come out either way: they have no entries.
func (cs columns) match(f *vectordb.Filter, n uint32) *bitset {
	set := newBitset(n)
	switch f.Op {
	case vectordb.And:
		set.all()
		for _, sub := range f.Sub {
			set.and(cs.match(sub, n))
		}
	case vectordb.Or, vectordb.Not:
		for _, sub := range f.Sub {
			set.or(cs.match(sub, n))
		}
		if f.Op == vectordb.Not {
			set.invert()
		}
	case vectordb.Eq, vectordb.Ne:
		cs.equal(set, f.Field, f.Value)
		if f.Op == vectordb.Ne {
			set.invert()
		}
	case vectordb.In, vectordb.Nin:
		for _, v := range f.Values {
			cs.equal(set, f.Field, v)
		}
		if f.Op == vectordb.Nin {
			set.invert()
		}
	case vectordb.Exists:
		for kind := byte(columnString); kind <= columnEmpty; kind++ {
			if c := cs[columnKey{f.Field, kind}]; c != nil {
				c.addTo(set, 0, c.n)
			}
		}
		switch f.Value {
		case true:
		case false:
			set.invert()
		default:
			clear(set.words)
		}
	case vectordb.Gt, vectordb.Gte, vectordb.Lt, vectordb.Lte:
		if _, ok := f.Value.(bool); ok {
			return set
		}
		if c, low, high := cs.bounds(f.Field, f.Value, columnString); c != nil {
			switch f.Op {
			case vectordb.Gt:
				c.addTo(set, high, c.n)
			case vectordb.Gte:
				c.addTo(set, low, c.n)
			case vectordb.Lt:
				c.addTo(set, 0, low)
			case vectordb.Lte:
				c.addTo(set, 0, high)
			}
		}
	}
	return set
}

// equal adds the rows whose field is the value or a list that holds it.
func (cs columns) equal(set *bitset, field string, value any) {
	if c, low, high := cs.bounds(field, value, columnString); c != nil {
		c.addTo(set, low, high)
	}
	if _, ok := value.(string); ok {
		if c, low, high := cs.bounds(field, value, columnElement); c != nil {
			c.addTo(set, low, high)
		}
	}
}

// bounds returns the column that holds values of value's type, the place of the first that is not smaller, and that of the first that is greater.
// Strings are looked for in the column of kind.
func (cs columns) bounds(field string, value any, kind byte) (c *column, low, high int) {
	var order func(i int) int // of the column's value and value
	switch v := value.(type) {
	case string:
		c = cs[columnKey{field, kind}]
		order = func(i int) int { return cmp.Compare(c.text(i), v) }
	case float64:
		if v != v {
			return nil, 0, 0
		}
		c = cs[columnKey{field, columnNumber}]
		n := sortableFloat(v)
		order = func(i int) int { return cmp.Compare(c.words[i], n) }
	case bool:
		c = cs[columnKey{field, columnBool}]
		var n uint64
		if v {
			n = 1
		}
		order = func(i int) int { return cmp.Compare(c.words[i], n) }
	case time.Time:
		c = cs[columnKey{field, columnTime}]
		order = func(i int) int { return time.UnixMicro(fromSortableInt(c.words[i])).Compare(v) }
	}
	if c == nil {
		return nil, 0, 0
	}
	low = sort.Search(c.n, func(i int) bool { return order(i) >= 0 })
	high = sort.Search(c.n, func(i int) bool { return order(i) > 0 })
	return c, low, high
}
