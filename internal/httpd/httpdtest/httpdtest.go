// Package httpdtest holds answers of the server to the API's description, GET /openapi.json.
package httpdtest

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// Spec is an API's description.
type Spec struct {
	root map[string]any

	mu sync.Mutex
	// answered holds "GET /path 200" of every answer that was checked.
	answered map[string]bool
}

// Load reads a description, httpd.OpenAPI().
func Load(t testing.TB, data []byte) *Spec {
	t.Helper()
	s := &Spec{answered: map[string]bool{}}
	if err := json.Unmarshal(data, &s.root); err != nil {
		t.Fatalf("openapi.json: %v", err)
	}
	return s
}

// Check fails the test unless the answer to method and path (as in the description: /documents/{id}) is one that is described.
func (s *Spec) Check(t testing.TB, method, path string, w *httptest.ResponseRecorder) {
	t.Helper()
	if err := s.check(method, path, w); err != nil {
		t.Errorf("%s %s answered %d: %v\n%s", method, path, w.Code, err, w.Body)
	}
}

// Answered tells whether Check has seen an answer to the operation with that status.
func (s *Spec) Answered(method, path string, status int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answered[key(method, path, status)]
}

func key(method, path string, status int) string {
	return method + " " + path + " " + strconv.Itoa(status)
}

func (s *Spec) check(method, path string, w *httptest.ResponseRecorder) error {
	operation := get(s.root, "paths", path, strings.ToLower(method))
	if operation == nil {
		return fmt.Errorf("the operation is not described")
	}
	responses, _ := get(operation, "responses").(map[string]any)
	response, ok := responses[strconv.Itoa(w.Code)]
	if !ok {
		if w.Code < 400 {
			return fmt.Errorf("the status is not described")
		}
		response = responses["default"]
	}
	content, _ := get(s.resolve(response), "content").(map[string]any)
	kind, _, _ := strings.Cut(w.Header().Get("Content-Type"), ";")
	if content == nil {
		if w.Body.Len() > 0 {
			return fmt.Errorf("a body that is not described")
		}
	} else {
		media, ok := content[kind]
		if !ok {
			return fmt.Errorf("the content type %q is not described", kind)
		}
		var value any = w.Body.String()
		if strings.HasSuffix(kind, "json") {
			if err := json.Unmarshal(w.Body.Bytes(), &value); err != nil {
				return err
			}
		}
		if err := s.Validate(get(media, "schema"), value); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered[key(method, path, w.Code)] = true
	return nil
}

// Routes lists the operations of the description, as "GET /documents/{id}", sorted.
func (s *Spec) Routes() []string {
	var out []string
	paths, _ := s.root["paths"].(map[string]any)
	for path, item := range paths {
		for method := range item.(map[string]any) {
			out = append(out, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(out)
	return out
}

// Schema returns a schema of the components by name.
func (s *Spec) Schema(name string) any { return get(s.root, "components", "schemas", name) }

func get(v any, names ...string) any {
	for _, name := range names {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func (s *Spec) resolve(v any) any {
	if ref, ok := get(v, "$ref").(string); ok {
		return get(s.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
	return v
}

// keywords are those that Validate understands, and those that say nothing of a value. Another one would be a promise that nobody checks.
var keywords = []string{"$ref", "type", "const", "enum", "pattern", "format", "minLength", "minimum", "maximum", "items", "properties", "required", "additionalProperties", "oneOf", "description", "default"}

// Validate checks a decoded JSON value against a schema, in the subset of JSON Schema that the description uses.
func (s *Spec) Validate(schema, value any) error { return s.validate("", schema, value) }

func (s *Spec) validate(at string, schema, value any) error {
	m, ok := s.resolve(schema).(map[string]any)
	if !ok {
		return fmt.Errorf("%s: no schema: %v", at, schema)
	}
	for name := range m {
		if !slices.Contains(keywords, name) {
			return fmt.Errorf("%s: the schema's %s is not understood", at, name)
		}
	}
	if want, ok := m["type"]; ok && !hasType(want, value) {
		return fmt.Errorf("%s: %v is not of type %v", at, value, want)
	}
	if want, ok := m["const"]; ok && !reflect.DeepEqual(want, value) {
		return fmt.Errorf("%s: %v is not %v", at, value, want)
	}
	if all, ok := m["enum"].([]any); ok && !slices.Contains(all, value) {
		return fmt.Errorf("%s: %v is none of %v", at, value, all)
	}
	if all, ok := m["oneOf"].([]any); ok {
		fits := 0
		for _, one := range all {
			if s.validate(at, one, value) == nil {
				fits++
			}
		}
		if fits != 1 {
			return fmt.Errorf("%s: %v fits %d of oneOf", at, value, fits)
		}
	}
	switch value := value.(type) {
	case string:
		if pattern, ok := m["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(value) {
			return fmt.Errorf("%s: %q does not match %s", at, value, pattern)
		}
		if least, ok := m["minLength"].(float64); ok && utf8.RuneCountInString(value) < int(least) {
			return fmt.Errorf("%s: %q is too short", at, value)
		}
		if m["format"] == "date-time" {
			if t, err := time.Parse(time.RFC3339, value); err != nil || t.Location() != time.UTC {
				return fmt.Errorf("%s: %q is no RFC 3339 time in UTC", at, value)
			}
		}
	case float64:
		if least, ok := m["minimum"].(float64); ok && value < least {
			return fmt.Errorf("%s: %g is below %g", at, value, least)
		}
		if most, ok := m["maximum"].(float64); ok && value > most {
			return fmt.Errorf("%s: %g is above %g", at, value, most)
		}
	case []any:
		items, ok := m["items"]
		for i, v := range value {
			if !ok {
				break
			}
			if err := s.validate(fmt.Sprintf("%s[%d]", at, i), items, v); err != nil {
				return err
			}
		}
	case map[string]any:
		required, _ := m["required"].([]any)
		for _, name := range required {
			if _, ok := value[name.(string)]; !ok {
				return fmt.Errorf("%s: %v is missing", at, name)
			}
		}
		for name, v := range value {
			sub := get(m["properties"], name)
			if sub == nil {
				switch extra := m["additionalProperties"].(type) {
				case nil:
					continue
				case bool:
					if !extra {
						return fmt.Errorf("%s: %s is not described", at, name)
					}
					continue
				default:
					sub = extra
				}
			}
			if err := s.validate(at+"."+name, sub, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func hasType(want, value any) bool {
	if all, ok := want.([]any); ok {
		return slices.ContainsFunc(all, func(one any) bool { return hasType(one, value) })
	}
	switch value := value.(type) {
	case nil:
		return want == "null"
	case string:
		return want == "string"
	case bool:
		return want == "boolean"
	case float64:
		return want == "number" || want == "integer" && value == math.Trunc(value)
	case []any:
		return want == "array"
	}
	return want == "object"
}

// Differences compares the routes that a server has (httpd.Server.Routes) with the description: what is served and not described, and what is
// described and not served.
func (s *Spec) Differences(served []string) (undescribed, unserved []string) {
	described := s.Routes()
	for _, route := range served {
		if !slices.Contains(described, route) {
			undescribed = append(undescribed, route)
		}
	}
	for _, route := range described {
		if !slices.Contains(served, route) {
			unserved = append(unserved, route)
		}
	}
	return undescribed, unserved
}

// Members compares the members of the JSON that a Go type is written as with a schema of the components, all the way down: those that are not described, and those that
// are described and can't be there. A type that writes itself is taken for a plain value.
func (s *Spec) Members(schema string, of reflect.Type) (differences []string) {
	s.members(schema, s.Schema(schema), of, &differences)
	return differences
}

var marshaler = reflect.TypeFor[json.Marshaler]()

func (s *Spec) members(at string, schema any, of reflect.Type, differences *[]string) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		if of.Kind() == reflect.Slice {
			schema, at = get(s.resolve(schema), "items"), at+"[]"
		}
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of.Implements(marshaler) || reflect.PointerTo(of).Implements(marshaler) {
		return
	}
	described, _ := get(s.resolve(schema), "properties").(map[string]any)
	written := map[string]reflect.Type{}
	for _, field := range reflect.VisibleFields(of) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Anonymous && name == "" || !field.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = field.Name
		}
		written[name] = field.Type
	}
	for name, kind := range written {
		if described[name] == nil {
			*differences = append(*differences, fmt.Sprintf("%s.%s is not described", at, name))
			continue
		}
		s.members(at+"."+name, described[name], kind, differences)
	}
	for name := range described {
		if written[name] == nil {
			*differences = append(*differences, fmt.Sprintf("%s.%s is described, and is in no answer", at, name))
		}
	}
	slices.Sort(*differences)
}

// Ask sends a request to a handler and checks the answer.
func (s *Spec) Ask(t testing.TB, h http.Handler, r *http.Request, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	s.Check(t, r.Method, path, w)
	return w
}
