package vectordb

import (
	"bytes"
	"cmp"
	"encoding/json"
	"strings"
	"time"
)

// indexed is from how many values on a set is faster than comparing with each.
const indexed = 8

// index prepares $in and $nin with many values. Only before the filter is shared: Match reads what it makes without a lock.
func (f *Filter) index() {
	if len(f.Values) >= indexed && f.Field != "@updated_at" {
		f.set = make(map[any]struct{}, len(f.Values))
		for _, v := range f.Values {
			f.set[v] = struct{}{}
		}
	}
	for _, sub := range f.Sub {
		sub.index()
	}
}

// Match tells whether the document passes. nil passes everything. It looks at the content's fields only: access and deletion are the store's to check.
func (f *Filter) Match(r *Revision) bool {
	if f == nil {
		return true
	}
	switch f.Op {
	case And:
		for _, sub := range f.Sub {
			if !sub.Match(r) {
				return false
			}
		}
		return true
	case Or:
		for _, sub := range f.Sub {
			if sub.Match(r) {
				return true
			}
		}
		return false
	case Not:
		for _, sub := range f.Sub {
			if sub.Match(r) {
				return false
			}
		}
		return true
	}
	got, present := r.field(f.Field)
	switch f.Op {
	case Eq:
		return present && equals(got, f.Value)
	case Ne:
		return !present || !equals(got, f.Value)
	case In:
		return present && f.holds(got)
	case Nin:
		return !present || !f.holds(got)
	case Exists:
		return f.Value == present
	}
	if !present {
		return false
	}
	c, comparable := order(got, f.Value)
	if !comparable {
		return false
	}
	switch f.Op {
	case Gt:
		return c > 0
	case Gte:
		return c >= 0
	case Lt:
		return c < 0
	case Lte:
		return c <= 0
	}
	return false
}

// field returns a field's value and whether the document has it. Of the fields with an @, an empty string and the zero time are absent.
func (r *Revision) field(name string) (any, bool) {
	switch name {
	case "@id":
		return DocumentID(r.Key), true
	case "@url":
		return r.URL, r.URL != ""
	case "@content_type":
		return r.ContentType, r.ContentType != ""
	case "@updated_at":
		return r.UpdatedAt, !r.UpdatedAt.IsZero()
	}
	v, ok := r.Metadata[name]
	return v, ok
}

func (f *Filter) holds(got any) bool {
	if list, ok := got.([]string); ok {
		for _, s := range list {
			if f.holds(s) {
				return true
			}
		}
		return false
	}
	switch got.(type) {
	case string, float64, bool:
		if f.set != nil {
			_, ok := f.set[got]
			return ok
		}
	}
	for _, v := range f.Values {
		if equals(got, v) {
			return true
		}
	}
	return false
}

func equals(got, want any) bool {
	switch got := got.(type) {
	case []string:
		s, ok := want.(string)
		if !ok {
			return false
		}
		for _, g := range got {
			if g == s {
				return true
			}
		}
		return false
	case time.Time:
		t, ok := want.(time.Time)
		return ok && got.Equal(t)
	case string, float64, bool:
		return got == want
	}
	return false
}

// order compares two values of one type. Strings are ordered by bytes, as everywhere in the store.
func order(got, want any) (c int, comparable bool) {
	switch got := got.(type) {
	case float64:
		w, ok := want.(float64)
		return cmp.Compare(got, w), ok
	case string:
		w, ok := want.(string)
		return cmp.Compare(got, w), ok
	case time.Time:
		w, ok := want.(time.Time)
		return got.Compare(w), ok
	}
	return 0, false
}

// String returns the filter as JSON that ParseFilter reads back into the same tree; "null" for nil.
func (f *Filter) String() string {
	var b strings.Builder
	f.append(&b)
	return b.String()
}

func (f *Filter) append(b *strings.Builder) {
	switch {
	case f == nil:
		b.WriteString("null")
		return
	case f.Op == And && len(f.Sub) == 0:
		b.WriteString("{}")
		return
	case f.Op == Not && len(f.Sub) == 1:
		b.WriteString(`{"$not":`)
		f.Sub[0].append(b)
		b.WriteByte('}')
		return
	case f.Op == Not:
		b.WriteString(`{"$not":`)
		(&Filter{Op: Or, Sub: f.Sub}).append(b)
		b.WriteByte('}')
		return
	case f.Op == And || f.Op == Or:
		b.WriteString(`{"` + f.Op.String() + `":[`)
		for i, sub := range f.Sub {
			if i > 0 {
				b.WriteByte(',')
			}
			sub.append(b)
		}
		b.WriteString("]}")
		return
	}
	b.WriteByte('{')
	b.WriteString(asJSON(f.Field))
	b.WriteString(`:{"` + f.Op.String() + `":`)
	if f.Op == In || f.Op == Nin {
		b.WriteByte('[')
		for i, v := range f.Values {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(asJSON(v))
		}
		b.WriteByte(']')
	} else {
		b.WriteString(asJSON(f.Value))
	}
	b.WriteString("}}")
}

func asJSON(v any) string {
	if t, ok := v.(time.Time); ok {
		v = t.UTC().Format(time.RFC3339Nano)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "null"
	}
	return strings.TrimSuffix(b.String(), "\n")
}
