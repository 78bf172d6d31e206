package vectordb

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseFilterAndMatch(t *testing.T) {
	updated := time.Date(2026, 1, 31, 12, 0, 0, 123456000, time.UTC)
	full := Revision{
		Key: "acme\x1fkb/refunds.md", Version: 1, Tenant: "acme", URL: "https://example.com/r", ContentType: "text/markdown", UpdatedAt: updated,
		Metadata: map[string]any{"team": "billing", "year": 2024.0, "draft": false, "lang": []string{"en", "de"}, "none": []string{}, "": "empty", "a.b": "dotted"},
	}
	bare := Revision{Key: "bare", Version: 1}
	for _, c := range []struct {
		filter     string
		full, bare bool
	}{
		{`{}`, true, true},
		{`null`, true, true},
		{`{"team":"billing"}`, true, false},
		{`{"team":"Billing"}`, false, false},
		{`{"team":"billing","year":2024}`, true, false},
		{`{"team":"billing","year":2023}`, false, false},
		{`{"year":"2024"}`, false, false},
		{`{"draft":false}`, true, false},
		{`{"draft":{"$eq":true}}`, false, false},
		{`{"draft":0}`, false, false},
		{`{"":"empty"}`, true, false},
		{`{"a.b":"dotted"}`, true, false},
		{`{"lang":"de"}`, true, false},
		{`{"lang":"fr"}`, false, false},
		{`{"lang":{"$ne":"de"}}`, false, true},
		{`{"lang":{"$ne":"fr"}}`, true, true},
		{`{"lang":{"$in":["fr","de"]}}`, true, false},
		{`{"lang":{"$nin":["fr","de"]}}`, false, true},
		{`{"lang":{"$in":["a","b","c","d","e","f","g","de"]}}`, true, false},
		{`{"team":{"$in":["a","b","c","d","e","f","g","h",1,true]}}`, false, false},
		{`{"year":{"$in":["a","b","c","d","e","f","g","h",2024,true]}}`, true, false},
		{`{"lang":{"$gte":"a"}}`, false, false}, // an array is neither above nor below
		{`{"none":{"$exists":true}}`, true, false},
		{`{"none":"x"}`, false, false},
		{`{"team":{"$in":[]}}`, false, false},
		{`{"team":{"$nin":[]}}`, true, true},
		{`{"year":{"$gte":2024,"$lt":2025}}`, true, false},
		{`{"year":{"$gt":2024}}`, false, false},
		{`{"year":{"$lte":2024}}`, true, false},
		{`{"year":{"$lt":2024.5}}`, true, false},
		{`{"year":{"$gt":"2023"}}`, false, false},
		{`{"year":{"$ne":"2024"}}`, true, true},
		{`{"team":{"$gt":"bill"}}`, true, false},
		{`{"team":{"$lt":"billing"}}`, false, false},
		{`{"draft":{"$gt":-1}}`, false, false},
		{`{"team":{"$exists":true}}`, true, false},
		{`{"team":{"$exists":false}}`, false, true},
		{`{"$not":{"team":"billing"}}`, false, true},
		{`{"$not":{"team":"billing","year":2023}}`, true, true},
		{`{"year":{"$not":{"$gte":2024,"$lt":2025}}}`, false, true},
		{`{"$or":[{"team":"x"},{"year":2024}]}`, true, false},
		{`{"$or":[{"team":"x"},{"year":1}]}`, false, false},
		{`{"$and":[{"team":"billing"},{"$or":[{"year":1},{"lang":"en"}]}]}`, true, false},
		{`{"team":"billing","$or":[{"year":1}]}`, false, false},
		{`{"@id":"kb/refunds.md"}`, true, false},
		{`{"@id":{"$in":["bare","x"]}}`, false, true},
		{`{"@id":{"$exists":true}}`, true, true},
		{`{"@url":{"$exists":true}}`, true, false},
		{`{"@url":{"$ne":""}}`, true, true},
		{`{"@content_type":"text/markdown"}`, true, false},
		{`{"@updated_at":{"$gte":"2026-01-31T12:00:00Z"}}`, true, false},
		{`{"@updated_at":{"$gte":"2026-01-31T13:00:00+01:00","$lt":"2026-02-01T00:00:00Z"}}`, true, false},
		{`{"@updated_at":"2026-01-31T12:00:00.1234569Z"}`, true, false},
		{`{"@updated_at":{"$in":["2026-01-31T13:00:00.123456+01:00"]}}`, true, false},
		{`{"@updated_at":{"$lt":"2026-01-31T12:00:00Z"}}`, false, false},
		{`{"@updated_at":{"$exists":false}}`, false, true},
	} {
		f, err := ParseFilter([]byte(c.filter))
		if err != nil {
			t.Errorf("%s: %v", c.filter, err)
			continue
		}
		if got := f.Match(&full); got != c.full {
			t.Errorf("%s: Match of the full document is %v", c.filter, got)
		}
		if got := f.Match(&bare); got != c.bare {
			t.Errorf("%s: Match of the bare document is %v", c.filter, got)
		}
		again, err := ParseFilter([]byte(f.String()))
		if err != nil || !reflect.DeepEqual(f, again) {
			t.Errorf("%s: String gives %s, which is read as another tree (%v)", c.filter, f, err)
		}
	}
}

func TestParseFilterErrors(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"$not":`, n) + `{"a":1}` + strings.Repeat(`}`, n) }
	if _, err := ParseFilter([]byte(deep(MaxFilterDepth - 1))); err != nil {
		t.Errorf("depth %d: %v", MaxFilterDepth, err)
	}
	many := func(n int) string { return `{"a":{"$in":[1` + strings.Repeat(`,1`, n-1) + `]}}` }
	if _, err := ParseFilter([]byte(many(MaxFilterValues))); err != nil {
		t.Errorf("%d values: %v", MaxFilterValues, err)
	}
	for _, c := range []struct{ filter, want string }{
		{``, "filter: the JSON ends too early"},
		{`{"a":`, "filter: the JSON ends too early"},
		{`{"a":1`, "filter: the JSON ends too early"},
		{`{a:1}`, "filter: not JSON: "},
		{`{"a":1}{}`, "filter: something follows the filter's object"},
		{`{"a":1} x`, "filter: something follows the filter's object"},
		{`[1]`, "filter: wants an object, got array"},
		{`"a"`, "filter: wants an object, got string"},
		{`{"$or":[{"a":1},{"year":{"$gte":{"a":1}}}]}`, "filter: $or[1].year: $gte wants a number, string or time, got object"},
		{`{"year":{"$gte":true}}`, "filter: year: $gte wants a number, string or time, got bool"},
		{`{"year":{"$gte":null}}`, "filter: year: $gte wants a number, string or time, got null; ask for absence"},
		{`{"year":{"$lt":[1]}}`, "filter: year: $lt wants a number, string or time, got array"},
		{`{"year":1e999}`, "filter: year: equality wants a number that fits a float64, got 1e999"},
		{`{"year":[1,2]}`, "filter: year: wants a string, number or bool, got array; use $in for any of several"},
		{`{"year":null}`, "filter: year: equality wants a string, number or bool, got null; ask for absence with"},
		{`{"year":{}}`, "filter: year: wants a value or an operator, got an empty object"},
		{`{"year":{"$in":1}}`, "filter: year: $in wants an array, got number"},
		{`{"year":{"$in":[1,[2]]}}`, "filter: year: $in[1] wants a string, number or bool, got array"},
		{`{"year":{"$nin":[1,2,null]}}`, "filter: year: $nin[2] wants a string, number or bool, got null"},
		{`{"year":{"$exists":1}}`, "filter: year: $exists wants true or false, got number"},
		{`{"year":{"$regex":"x"}}`, "filter: year: $regex is no operator on a field; there are $eq"},
		{`{"year":{"max":3}}`, "filter: year: max is no operator on a field"},
		{`{"year":{"$not":3}}`, "filter: year: $not wants an object of operators, got number"},
		{`{"year":{"$not":{"$not":{"$gt":false}}}}`, "filter: year.$not.$not: $gt wants a number, string or time, got bool"},
		{`{"year":{"$and":[]}}`, "filter: year: $and is no operator on a field"},
		{`{"$eq":1}`, `filter: $eq stands where a field should; write {"field": {"$eq": …}}`},
		{`{"$nor":[]}`, "filter: $nor is no operator; there are $and, $or and $not here"},
		{`{"$not":{"$or":[{"$nor":[]}]}}`, "filter: $not.$or[0]: $nor is no operator"},
		{`{"$or":{}}`, "filter: $or wants an array of filters, got object"},
		{`{"$or":[]}`, "filter: $or wants at least one filter"},
		{`{"$and":[3]}`, "filter: $and[0]: wants an object, got number"},
		{`{"$not":[]}`, "filter: $not: wants an object, got array"},
		{`{"@title":"x"}`, "filter: @title is no field; with an @ there are @id, @url, @content_type and @updated_at"},
		{`{"@id":1}`, "filter: @id: equality wants a string, got number"},
		{`{"@updated_at":{"$gt":5}}`, `filter: @updated_at: $gt wants a time such as "2026-01-31T12:00:00Z", got number`},
		{`{"@updated_at":{"$gt":"yesterday"}}`, `filter: @updated_at: $gt wants a time such as "2026-01-31T12:00:00Z", got "yesterday"`},
		{`{"a":1,"a":2}`, "filter: a stands twice in one object"},
		{`{"a":{"$gt":1,"$gt":2}}`, "filter: $gt stands twice in one object"},
		{deep(MaxFilterDepth), "filter: nested deeper than 16"},
		{strings.Repeat(`[`, 10_000), "filter: nested deeper than 16"},
		{many(MaxFilterValues + 1), "filter: more than 1000 values"},
		{`{"$and":[{}` + strings.Repeat(`,{}`, MaxFilterValues) + `]}`, "filter: more than 1000 values"},
	} {
		f, err := ParseFilter([]byte(c.filter))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.80s:\n got %v, %v\nwant %s…", c.filter, f, err, c.want)
		} else if !errors.Is(err, ErrInvalid) {
			t.Errorf("%.80s: %v is not ErrInvalid", c.filter, err)
		}
	}
}

func TestFilterCheck(t *testing.T) {
	var none *Filter
	for _, f := range []*Filter{none, {Op: And}, {Op: Or}, {Op: Eq, Field: "a", Value: 1.0}, {Op: Gt, Field: "@updated_at", Value: time.Now()}, {Op: In, Field: "a"}} {
		if err := f.Check(); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	for _, f := range []*Filter{
		{}, {Op: 99, Field: "a"}, {Op: Eq, Field: "a", Value: 1}, {Op: Eq, Field: "a"}, {Op: Eq, Field: "@nope", Value: "x"}, {Op: Eq, Field: "$x", Value: "x"},
		{Op: Eq, Field: "@updated_at", Value: "2026"}, {Op: Eq, Field: "a", Value: time.Now()}, {Op: Gt, Field: "a", Value: true}, {Op: Exists, Field: "a"},
		{Op: In, Field: "a", Values: []any{nil}}, {Op: And, Sub: []*Filter{nil}}, {Op: Eq, Field: "a", Value: []string{"a"}},
	} {
		if err := f.Check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v passes Check: %v", f, err)
		}
	}
}

// Not of several is none of them.
func TestNotOfSeveral(t *testing.T) {
	f := &Filter{Op: Not, Sub: []*Filter{{Op: Eq, Field: "a", Value: 1.0}, {Op: Eq, Field: "b", Value: 1.0}}}
	g, err := ParseFilter([]byte(f.String()))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []map[string]any{{}, {"a": 1.0}, {"b": 1.0}, {"a": 1.0, "b": 1.0}} {
		r := &Revision{Metadata: m}
		if want := len(m) == 0; f.Match(r) != want || g.Match(r) != want {
			t.Errorf("%v: %v and, read back, %v; want %v", m, f.Match(r), g.Match(r), want)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		`{"team":"billing","year":{"$gte":2024},"lang":{"$in":["en","de"]},"$or":[{"a":1},{"b":true}],"$not":{"x":{"$exists":false}}}`,
		`{"@updated_at":{"$lt":"2026-01-31T12:00:00.5+01:00"},"@id":{"$nin":["a"]}}`, `{"a":{"$not":{"$ne":1}}}`, `{}`, `null`, `[[[[`,
	} {
		f.Add(s)
	}
	docs := []*Revision{{Key: "a"}, {Key: "t\x1fa", Metadata: map[string]any{"a": "b", "year": 2024.0, "lang": []string{"en"}, "x": true}, UpdatedAt: time.Unix(1e9, 0)}}
	f.Fuzz(func(t *testing.T, s string) {
		filter, err := ParseFilter([]byte(s))
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%q: %v is not ErrInvalid", s, err)
			}
			return
		}
		again, err := ParseFilter([]byte(filter.String()))
		if err != nil || !reflect.DeepEqual(filter, again) {
			t.Fatalf("%q becomes %s, which is read as %s (%v)", s, filter, again, err)
		}
		for _, d := range docs {
			not := &Filter{Op: Not, Sub: []*Filter{filter}}
			if filter != nil && filter.Match(d) == not.Match(d) {
				t.Fatalf("%s and its opposite agree", filter)
			}
		}
	})
}
