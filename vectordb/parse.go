package vectordb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	// MaxFilterDepth bounds how deep a filter's tree may be.
	MaxFilterDepth = 16
	// MaxFilterValues bounds the operands and sub-filters of a filter, taken together.
	MaxFilterValues = 1000

	// maxFilterNesting bounds the parser's recursion. A tree of MaxFilterDepth never nests its JSON deeper than twice that.
	maxFilterNesting = 3 * MaxFilterDepth
)

// invalidError is an ErrInvalid whose message is a whole sentence.
type invalidError struct{ message string }

func (e *invalidError) Error() string { return e.message }
func (e *invalidError) Unwrap() error { return ErrInvalid }

func invalidf(format string, args ...any) error {
	return &invalidError{fmt.Sprintf(format, args...)}
}

var operatorNames = map[string]Op{
	"$eq": Eq, "$ne": Ne, "$gt": Gt, "$gte": Gte, "$lt": Lt, "$lte": Lte, "$in": In, "$nin": Nin, "$exists": Exists,
	"$and": And, "$or": Or, "$not": Not,
}

func (o Op) String() string {
	for name, op := range operatorNames {
		if op == o {
			return name
		}
	}
	return "op(" + strconv.Itoa(int(o)) + ")"
}

// ParseFilter reads the JSON form of a filter: an object whose names are fields or $and, $or, $not, all of which must hold.
// A field's value is what it must equal (string, number or bool) or an object of operators, all of which must hold:
// $eq $ne $gt $gte $lt $lte take one value, $in $nin an array of values, $exists true or false, $not an object of operators.
// $and and $or take a non-empty array of filters, $not takes a filter.
//
// A field is a name in the metadata, or @id, @url, @content_type (strings), @updated_at (a time in RFC 3339, cut to the microsecond
// as stored times are). A metadata name that begins with @ or $ can't be asked for.
//
// null is no filter (nil), {} one that everything passes. Errors wrap ErrInvalid and name the place:
// "filter: $or[1].year: $gte wants a number, string or time, got object".
func ParseFilter(data []byte) (*Filter, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	p := filterParser{decoder: d}
	v, err := p.value(0, false)
	if err == nil {
		if _, e := d.Token(); e != io.EOF {
			err = invalidf("filter: something follows the filter's object")
		}
	}
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, nil
	}
	f, err := p.filter("", v)
	if err != nil {
		return nil, err
	}
	if err := f.Check(); err != nil {
		return nil, err
	}
	f.index()
	return f, nil
}

type filterParser struct {
	decoder *json.Decoder
	values  int
}

// object keeps the order of its members, so that errors and String are deterministic.
type object []member

type member struct {
	name  string
	value any // object, []any, string, json.Number, bool or nil
}

// value reads one JSON value. It is the only thing that recurses on the input, hence the bounds here.
func (p *filterParser) value(depth int, inArray bool) (any, error) {
	if depth > maxFilterNesting {
		return nil, invalidf("filter: nested deeper than %d", MaxFilterDepth)
	}
	t, err := p.decoder.Token()
	if err != nil {
		return nil, notJSON(err)
	}
	delim, ok := t.(json.Delim)
	// Operands count, and so do the empty filters of an $and.
	if !ok || inArray {
		if p.values++; p.values > MaxFilterValues {
			return nil, invalidf("filter: more than %d values", MaxFilterValues)
		}
	}
	if !ok {
		return t, nil
	}
	if delim == '[' {
		list := []any{}
		for p.decoder.More() {
			v, err := p.value(depth+1, true)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		if _, err := p.decoder.Token(); err != nil {
			return nil, notJSON(err)
		}
		return list, nil
	}
	o := object{}
	seen := map[string]bool{}
	for p.decoder.More() {
		t, err := p.decoder.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		name, _ := t.(string)
		if seen[name] {
			return nil, invalidf("filter: %s stands twice in one object; put both conditions into one", pathName(name))
		}
		seen[name] = true
		v, err := p.value(depth+1, false)
		if err != nil {
			return nil, err
		}
		o = append(o, member{name, v})
	}
	if _, err := p.decoder.Token(); err != nil {
		return nil, notJSON(err)
	}
	return o, nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalidf("filter: the JSON ends too early")
	}
	return invalidf("filter: not JSON: %v", err)
}

func (p *filterParser) filter(path string, v any) (*Filter, error) {
	o, ok := v.(object)
	if !ok {
		return nil, invalidf("filter: %swants an object, got %s", at(path), kindOf(v))
	}
	var all []*Filter
	for _, m := range o {
		f, err := p.condition(path, m)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return both(all), nil
}

// both is the conjunction, without a node of its own where there is just one.
func both(all []*Filter) *Filter {
	if len(all) == 1 {
		return all[0]
	}
	return &Filter{Op: And, Sub: all}
}

func (p *filterParser) condition(path string, m member) (*Filter, error) {
	switch op := operatorNames[m.name]; {
	case op == Not:
		f, err := p.filter(join(path, m.name), m.value)
		if err != nil {
			return nil, err
		}
		return &Filter{Op: Not, Sub: []*Filter{f}}, nil
	case op == And || op == Or:
		list, ok := m.value.([]any)
		if !ok {
			return nil, invalidf("filter: %s%s wants an array of filters, got %s", at(path), m.name, kindOf(m.value))
		}
		if len(list) == 0 {
			return nil, invalidf("filter: %s%s wants at least one filter", at(path), m.name)
		}
		f := &Filter{Op: op}
		for i, v := range list {
			sub, err := p.filter(join(path, m.name+"["+strconv.Itoa(i)+"]"), v)
			if err != nil {
				return nil, err
			}
			f.Sub = append(f.Sub, sub)
		}
		return f, nil
	case op != 0:
		return nil, invalidf("filter: %s%s stands where a field should; write {\"field\": {\"%s\": …}}", at(path), m.name, m.name)
	case strings.HasPrefix(m.name, "$"):
		return nil, invalidf("filter: %s%s is no operator; there are $and, $or and $not here", at(path), pathName(m.name))
	case strings.HasPrefix(m.name, "@") && !known(m.name):
		return nil, invalidf("filter: %s%s is no field; with an @ there are @id, @url, @content_type and @updated_at", at(path), pathName(m.name))
	}
	path = join(path, pathName(m.name))
	if ops, ok := m.value.(object); ok {
		return p.operators(path, m.name, ops)
	}
	if _, ok := m.value.([]any); ok {
		return nil, invalidf("filter: %swants a string, number or bool, got array; use $in for any of several", at(path))
	}
	v, err := operand(path, "equality", m.name, m.value)
	if err != nil {
		return nil, err
	}
	return &Filter{Op: Eq, Field: m.name, Value: v}, nil
}

func (p *filterParser) operators(path, field string, ops object) (*Filter, error) {
	if len(ops) == 0 {
		return nil, invalidf("filter: %swants a value or an operator, got an empty object", at(path))
	}
	var all []*Filter
	for _, m := range ops {
		f := &Filter{Op: operatorNames[m.name], Field: field}
		var err error
		switch f.Op {
		case Eq, Ne:
			f.Value, err = operand(path, m.name, field, m.value)
		case Gt, Gte, Lt, Lte:
			if _, isBool := m.value.(bool); isBool {
				return nil, invalidf("filter: %s%s wants a number, string or time, got bool", at(path), m.name)
			}
			f.Value, err = operand(path, m.name, field, m.value)
		case In, Nin:
			list, ok := m.value.([]any)
			if !ok {
				return nil, invalidf("filter: %s%s wants an array, got %s", at(path), m.name, kindOf(m.value))
			}
			f.Values = make([]any, len(list))
			for i, v := range list {
				if f.Values[i], err = operand(path, m.name+"["+strconv.Itoa(i)+"]", field, v); err != nil {
					break
				}
			}
		case Exists:
			b, ok := m.value.(bool)
			if !ok {
				return nil, invalidf("filter: %s$exists wants true or false, got %s", at(path), kindOf(m.value))
			}
			f.Value = b
		case Not:
			sub, ok := m.value.(object)
			if !ok {
				return nil, invalidf("filter: %s$not wants an object of operators, got %s", at(path), kindOf(m.value))
			}
			inner, err := p.operators(join(path, "$not"), field, sub)
			if err != nil {
				return nil, err
			}
			f = &Filter{Op: Not, Sub: []*Filter{inner}}
		default:
			return nil, invalidf("filter: %s%s is no operator on a field; there are $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists and $not", at(path), pathName(m.name))
		}
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return both(all), nil
}

// operand turns a JSON value into what Filter.Value holds for the field.
func operand(path, op, field string, v any) (any, error) {
	if strings.HasPrefix(field, "@") {
		s, ok := v.(string)
		switch {
		case field != "@updated_at" && !ok:
			return nil, invalidf("filter: %s%s wants a string, got %s", at(path), op, kindOf(v))
		case field != "@updated_at":
			return s, nil
		case !ok:
			return nil, invalidf("filter: %s%s wants a time such as \"2026-01-31T12:00:00Z\", got %s", at(path), op, kindOf(v))
		}
		t, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			return nil, invalidf("filter: %s%s wants a time such as \"2026-01-31T12:00:00Z\", got %s", at(path), op, strconv.Quote(cut(s)))
		}
		return t.UTC().Truncate(time.Microsecond), nil
	}
	switch v := v.(type) {
	case string, bool:
		return v, nil
	case json.Number:
		n, err := v.Float64()
		if err != nil {
			return nil, invalidf("filter: %s%s wants a number that fits a float64, got %s", at(path), op, cut(v.String()))
		}
		return n, nil
	}
	wants := "a string, number or bool"
	if strings.HasPrefix(op, "$gt") || strings.HasPrefix(op, "$lt") {
		wants = "a number, string or time"
	}
	if v == nil {
		return nil, invalidf("filter: %s%s wants %s, got null; ask for absence with {\"$exists\": false}", at(path), op, wants)
	}
	return nil, invalidf("filter: %s%s wants %s, got %s", at(path), op, wants, kindOf(v))
}

func known(field string) bool {
	return field == "@id" || field == "@url" || field == "@content_type" || field == "@updated_at"
}

func at(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// pathName quotes a name where it would make the message hard to read.
func pathName(name string) string {
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '"' || r == ':' || r == 0x7f }) {
		return strconv.Quote(cut(name))
	}
	return name
}

func cut(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case json.Number:
		return "number"
	case bool:
		return "bool"
	case []any:
		return "array"
	}
	return "object"
}

// Check tells whether a filter that was built by hand is one that Match understands. nil is. Errors wrap ErrInvalid.
func (f *Filter) Check() error {
	if f == nil {
		return nil
	}
	values := 0
	return f.check(1, &values)
}

func (f *Filter) check(depth int, values *int) error {
	if f == nil {
		return invalidf("filter: a sub-filter is nil")
	}
	if depth > MaxFilterDepth {
		return invalidf("filter: nested deeper than %d", MaxFilterDepth)
	}
	if *values += 1 + len(f.Values); *values > 2*MaxFilterValues {
		return invalidf("filter: more than %d values", MaxFilterValues)
	}
	switch f.Op {
	case And, Or, Not:
		for _, sub := range f.Sub {
			if err := sub.check(depth+1, values); err != nil {
				return err
			}
		}
		return nil
	}
	if strings.HasPrefix(f.Field, "$") || strings.HasPrefix(f.Field, "@") && !known(f.Field) {
		return invalidf("filter: %s is no field that can be asked for", pathName(f.Field))
	}
	switch f.Op {
	case Eq, Ne:
		return f.checkValue(f.Value)
	case Gt, Gte, Lt, Lte:
		if _, isBool := f.Value.(bool); isBool {
			return invalidf("filter: %s: %s wants a number, string or time, got bool", pathName(f.Field), f.Op)
		}
		return f.checkValue(f.Value)
	case In, Nin:
		for _, v := range f.Values {
			if err := f.checkValue(v); err != nil {
				return err
			}
		}
		return nil
	case Exists:
		if _, ok := f.Value.(bool); !ok {
			return invalidf("filter: %s: $exists wants true or false", pathName(f.Field))
		}
		return nil
	}
	return invalidf("filter: %s: operator %d is unknown", pathName(f.Field), f.Op)
}

func (f *Filter) checkValue(v any) error {
	ok := false
	switch v := v.(type) {
	case string:
		ok = f.Field != "@updated_at"
	case float64:
		ok = !strings.HasPrefix(f.Field, "@") && !math.IsNaN(v) && !math.IsInf(v, 0)
	case bool:
		ok = !strings.HasPrefix(f.Field, "@")
	case time.Time:
		ok = f.Field == "@updated_at"
	}
	if !ok {
		return invalidf("filter: %s: %s can't be asked for %T", pathName(f.Field), f.Op, v)
	}
	return nil
}
