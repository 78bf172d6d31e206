package httpdtest

import (
	"encoding/json"
	"net/http/httptest"
	"reflect"
	"testing"
)

const spec = `{"paths":{"/a/{id}":{"get":{"responses":{"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/A"}}}},"204":{},"default":{"$ref":"#/components/responses/P"}}}}},
"components":{"responses":{"P":{"content":{"application/problem+json":{"schema":{"type":"object"}}}}},"schemas":{"A":{"type":"object","properties":{
"s":{"type":"string","pattern":"^x","minLength":2},"e":{"type":"string","enum":["a","b"]},"t":{"type":"string","format":"date-time"},"i":{"type":"integer","minimum":1,"maximum":9},"n":{"type":["number","null"]},
"l":{"type":"array","items":{"type":"boolean"}},"o":{"oneOf":[{"type":"string"},{"type":"integer"},{"type":"number"}]},"c":{"const":true},"m":{"type":"object","additionalProperties":{"type":"string"}},"f":{"type":"object"},"u":{"oneOf":[{"type":"boolean"},{"type":"array","items":{"type":"string"}}]}},
"required":["s"],"additionalProperties":false},"Odd":{"type":"string","maxLength":3}}}}`

// A check that lets everything pass would hold nobody to anything.
func TestValidate(t *testing.T) {
	s := Load(t, []byte(spec))
	for value, fits := range map[string]bool{
		`{"s":"xy"}`: true,
		`{"s":"xy","e":"b","t":"2026-11-21T10:00:03.5Z","i":9,"n":null,"l":[true,false],"o":"x","c":true,"m":{"a":"b"},"f":{"any":1}}`: true,
		`{"s":"xy","u":["a"]}`: true, `{"s":"xy","u":[1]}`: false,
		`{"s":"xy","n":1.5}`: true, `{"s":"xy","o":1.5}`: true,
		`{}`: false, `[]`: false, `"xy"`: false, `null`: false,
		`{"s":"y"}`: false, `{"s":"x"}`: false, `{"s":1}`: false, `{"s":null}`: false,
		`{"s":"xy","e":"c"}`: false, `{"s":"xy","t":"today"}`: false, `{"s":"xy","t":"2026-11-21T10:00:03+01:00"}`: false,
		`{"s":"xy","i":0}`: false, `{"s":"xy","i":10}`: false, `{"s":"xy","i":1.5}`: false, `{"s":"xy","n":"1"}`: false,
		`{"s":"xy","l":[true,1]}`: false, `{"s":"xy","l":{}}`: false, `{"s":"xy","o":1}`: false, `{"s":"xy","o":true}`: false,
		`{"s":"xy","c":false}`: false, `{"s":"xy","m":{"a":1}}`: false, `{"s":"xy","extra":1}`: false,
	} {
		var v any
		if err := json.Unmarshal([]byte(value), &v); err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(s.Schema("A"), v); (err == nil) != fits {
			t.Errorf("%s: %v", value, err)
		}
	}
	if s.Validate(s.Schema("Odd"), "x") == nil || s.Validate(s.Schema("Missing"), "x") == nil {
		t.Error("a keyword or a schema that is not understood was let pass")
	}
}

func TestCheck(t *testing.T) {
	s := Load(t, []byte(spec))
	for _, tt := range []struct {
		method, path string
		status       int
		kind, body   string
		fits         bool
	}{
		{"GET", "/a/{id}", 200, "application/json; charset=utf-8", `{"s":"xy"}`, true},
		{"GET", "/a/{id}", 204, "", ``, true},
		{"GET", "/a/{id}", 404, "application/problem+json", `{}`, true},
		{"GET", "/a/{id}", 404, "application/problem+json", `[]`, false},
		{"GET", "/a/{id}", 404, "application/json", `{}`, false},
		{"GET", "/a/{id}", 200, "application/json", `{"s":"y"}`, false},
		{"GET", "/a/{id}", 200, "application/json", `{`, false},
		{"GET", "/a/{id}", 200, "text/plain", `{"s":"xy"}`, false},
		{"GET", "/a/{id}", 201, "application/json", `{"s":"xy"}`, false},
		{"GET", "/a/{id}", 204, "", `x`, false},
		{"PUT", "/a/{id}", 200, "application/json", `{"s":"xy"}`, false},
		{"GET", "/b", 200, "application/json", `{"s":"xy"}`, false},
	} {
		w := httptest.NewRecorder()
		w.Header().Set("Content-Type", tt.kind)
		w.WriteHeader(tt.status)
		w.Body.WriteString(tt.body)
		if err := s.check(tt.method, tt.path, w); (err == nil) != tt.fits {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	if !s.Answered("GET", "/a/{id}", 204) || s.Answered("GET", "/a/{id}", 201) {
		t.Error("answers were not remembered as they were")
	}
	undescribed, unserved := s.Differences([]string{"GET /b"})
	if !reflect.DeepEqual(undescribed, []string{"GET /b"}) || !reflect.DeepEqual(unserved, []string{"GET /a/{id}"}) {
		t.Errorf("got %v, %v", undescribed, unserved)
	}
}
