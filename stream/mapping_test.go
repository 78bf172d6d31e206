package stream

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func mustMap(t *testing.T, source string) *Mapping {
	t.Helper()
	var m Mapping
	if err := yaml.Unmarshal([]byte(source), &m); err != nil {
		t.Fatal(err)
	}
	return &m
}

const contractMapping = `{id: $.pk, text: '$.title + "\n\n" + $.body', deleted: '$.op == "d"', updated_at: $.ts, metadata: {team: $.team, tags: $.tags}}`

func TestMapping(t *testing.T) {
	for _, tc := range []struct {
		name, mapping, key, value string
		want                      Change
		code                      string
	}{
		{name: "contract", mapping: contractMapping, value: `{"pk":9007199254740993,"title":"T","body":"B","op":"u","ts":1700000000123,"team":"x","tags":["a"],"other":{"deep":[null]}}`,
			want: Change{Kind: Upsert, ID: "9007199254740993", Document: &Document{Text: "T\n\nB", UpdatedAt: time.UnixMilli(1700000000123).UTC(),
				Metadata: map[string]any{"team": "x", "tags": []string{"a"}}}}},
		{name: "deleted", mapping: contractMapping, value: `{"pk":"a","op":"d"}`, want: Change{Kind: Delete, ID: "a"}},
		{name: "a connector's snapshot", mapping: `{id: $.pk, text: $.body, backfill: '$.op == "r"'}`, value: `{"pk":"a","body":"B","op":"r"}`, want: Change{Kind: Upsert, ID: "a", Backfill: true, Document: &Document{Text: "B"}}},
		{name: "what comes after a snapshot", mapping: `{id: $.pk, text: $.body, backfill: '$.op == "r"'}`, value: `{"pk":"a","body":"B","op":"u"}`, want: Change{Kind: Upsert, ID: "a", Document: &Document{Text: "B"}}},
		{name: "backfill of another type", mapping: `{id: $.pk, text: $.body, backfill: $.old}`, value: `{"pk":"a","body":"","old":1}`, code: CodeMappingFailed},
		{name: "no key needed", mapping: contractMapping, value: `{"pk":"a","body":"B"}`, want: Change{Kind: Upsert, ID: "a", Document: &Document{Text: "\n\nB"}}},
		{name: "tombstone by key", mapping: contractMapping, key: "a", value: "", want: Change{Kind: Delete, ID: "a"}},
		{name: "tombstone by JSON key", mapping: `{id: $key.id, text: $.t}`, key: `{"id":7}`, value: "", want: Change{Kind: Delete, ID: "7"}},
		{name: "key is the id", mapping: `{text: $.t}`, key: "t\x1fa", value: `{"t":"x"}`, want: Change{Kind: Upsert, Tenant: "t", ID: "a", Document: &Document{Text: "x", Tenant: "t"}}},
		{name: "everything", mapping: `{id: '$.a.b[1]["c d"]', text: $.x, title: $.y, url: '"https://e/" + $.a.b[0]', content_type: '"text/html"', tenant: $.z, acl: $.acl, updated_at: $.u}`,
			value: `{"a":{"b":[5,{"c d":"i"}]},"x":"X","y":"Y","z":"Z","acl":["p"],"u":"2026-01-02T03:04:05Z"}`,
			want: Change{Kind: Upsert, Tenant: "Z", ID: "i", Document: &Document{Text: "X", Title: "Y", URL: "https://e/5", ContentType: TextHTML, Tenant: "Z", ACL: []string{"p"},
				UpdatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}},
		{name: "no id", mapping: contractMapping, key: "k", value: `{"body":"B"}`, code: CodeMappingFailed},
		{name: "id of another type", mapping: contractMapping, value: `{"pk":[1],"body":"B"}`, code: CodeMappingFailed},
		{name: "no text", mapping: `{id: $.pk, text: $.body}`, value: `{"pk":"a"}`, code: CodeMappingFailed},
		{name: "text of another type", mapping: `{id: $.pk, text: $.body}`, value: `{"pk":"a","body":4}`, code: CodeMappingFailed},
		{name: "joined object", mapping: contractMapping, value: `{"pk":"a","body":{}}`, code: CodeMappingFailed},
		{name: "deleted of another type", mapping: `{id: $.pk, text: $.body, deleted: $.del}`, value: `{"pk":"a","body":"","del":"yes"}`, code: CodeMappingFailed},
		{name: "bad time", mapping: contractMapping, value: `{"pk":"a","ts":"noon"}`, code: CodeMappingFailed},
		{name: "bad metadata", mapping: contractMapping, value: `{"pk":"a","team":{}}`, code: CodeMappingFailed},
		{name: "bad id", mapping: contractMapping, value: `{"pk":"a\u0000"}`, code: CodeIDInvalid},
		{name: "not JSON", mapping: contractMapping, value: `{"pk":`, code: CodeNotADocument},
		{name: "not UTF-8", mapping: contractMapping, value: "{\"pk\":\"\xff\"}", code: CodeInvalidUTF8},
		{name: "too large", mapping: contractMapping, value: `{"pk":"a","body":"` + strings.Repeat("x", 99) + `"}`, code: CodeDocumentTooLarge},
		{name: "nothing at all", mapping: contractMapping, code: CodeKeyMissing},
		{name: "nested too deeply", mapping: contractMapping, value: strings.Repeat("[", 1000), code: CodeNotADocument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := &Raw{}
			if tc.key != "" {
				raw.Key = []byte(tc.key)
			}
			if tc.value != "" {
				raw.Value = []byte(tc.value)
			}
			got := DecodeRecord(raw, mustMap(t, tc.mapping), 100)
			if tc.code != "" {
				if got.Kind != Invalid || got.Problem.Code != tc.code {
					t.Fatalf("got %+v, want %s", got, tc.code)
				}
				return
			}
			want := tc.want
			want.Raw, want.Size = raw, got.Size
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v %+v (%v), want %+v %+v", got, got.Document, got.Problem, want, want.Document)
			}
		})
	}
}

func TestExpr(t *testing.T) {
	for _, tc := range []struct {
		expr string
		want any
	}{
		{`$.s`, "str"}, {`$.none`, nil}, {`$.none.deeper[3]`, nil}, {`$.l[9]`, nil}, {`$.l[0]`, number("1")},
		{`$["s"]`, "str"}, {`$['s']`, "str"}, {`"a\u0041\n"`, "aA\n"}, {`'it\'s "x"'`, `it's "x"`},
		{`$.s + 1 + true + $.none + '!'`, "str1true!"}, {`($.n == 1) + ""`, "true"},
		{`$.n == 1.0`, true}, {`$.n != 1`, false}, {`$.none == null`, true}, {`$.s != null`, true}, {`$.s == 1`, false},
		{`$.b == true`, true}, {`$.s + "x" == "strx"`, true}, {`$.l == $.l`, false}, {`-2`, number("-2")}, {`$key`, "k"},
	} {
		e, err := ParseExpr(tc.expr)
		if err != nil {
			t.Errorf("%s: %v", tc.expr, err)
			continue
		}
		d := decoder{data: []byte(`{"s":"str","n":1,"b":true,"l":[1]}`)}
		v, _ := d.whole()
		if got := e.eval(&mapped{value: v, raw: &Raw{Key: []byte("k")}}); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s is %#v, want %#v", tc.expr, got, tc.want)
		}
	}
	for _, tc := range []struct{ expr, want string }{
		{``, "column 1: "}, {`$.`, "column 3: "}, {`$.a +`, "column 6: "}, {`$.a = 1`, "column 5: "}, {`$a`, "column 2: "},
		{`"abc`, "column 1: the string has no end"}, {`"\x"`, "column 1: "}, {`$.a[x]`, "column 5: "}, {`$.a[1`, "column 6: "},
		{`(1`, "column 3: expected )"}, {`é`, "column 1: "}, {`$.é $.b`, "column 5: "}, {`1 == 2 == 3`, "column 8: "}, {`title`, "column 1: "},
		{strings.Repeat("(", 500), "too many"},
	} {
		if _, err := ParseExpr(tc.expr); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", tc.expr, err, tc.want)
		}
	}
}

func TestUnixTimes(t *testing.T) {
	want := time.Date(2023, 11, 14, 22, 13, 20, 0, time.UTC)
	for _, n := range []string{"1700000000", "1700000000000", "1700000000000000", "1700000000000000000", "1.7e9", "1700000000.0"} {
		if got, ok := timeOf(number(n)); !ok || !got.Equal(want) {
			t.Errorf("%s is %v, %v", n, got, ok)
		}
	}
	if got, ok := timeOf(number("1700000000.25")); !ok || got.Sub(want) != 250*time.Millisecond {
		t.Errorf("a fraction of a second: %v", got)
	}
	if _, ok := timeOf(number("1e300")); ok {
		t.Error("1e300 is no time")
	}
}

func TestMappingText(t *testing.T) {
	m := mustMap(t, contractMapping)
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":"$.pk","text":"$.title + \"\\n\\n\" + $.body","deleted":"$.op == \"d\"","updated_at":"$.ts","metadata":{"tags":"$.tags","team":"$.team"}}`; string(b) != want {
		t.Errorf("got %s", b)
	}
	var again Mapping
	if err := json.Unmarshal(b, &again); err != nil || again.Text.String() != m.Text.String() {
		t.Errorf("%v, %v", again, err)
	}
	y, err := yaml.Marshal(m)
	if err != nil || strings.Contains(string(y), "title:") || !strings.Contains(string(y), "id: $.pk") {
		t.Errorf("%s, %v", y, err)
	}
	var bad Mapping
	if err := yaml.Unmarshal([]byte(`{text: '$.a + '}`), &bad); err == nil || !strings.Contains(err.Error(), "column 7") {
		t.Errorf("got %v", err)
	}
	if err := (&Mapping{ID: m.ID}).Check(); err == nil {
		t.Error("a mapping without text passed")
	}
}

func FuzzParseExpr(f *testing.F) {
	for _, s := range []string{`$.a["b"][0] + "x" == 'y'`, `($key.id != null)`, `-1.5e3`, `"\ud800"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseExpr(s)
		if err == nil {
			e.eval(&mapped{value: map[string]any{"a": []any{"x"}}, raw: &Raw{}})
		}
	})
}
