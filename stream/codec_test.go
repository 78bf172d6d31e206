package stream

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestDecodeDocument(t *testing.T) {
	at := time.Date(2026, 11, 21, 10, 0, 3, 5e6, time.UTC)
	for _, tc := range []struct {
		name, in string
		want     Document
	}{
		{"least", `{"text":""}`, Document{}},
		{"spaces", " {\n\t\"text\" : \"a\" , \"title\":\"b\"\r\n} ", Document{Text: "a", Title: "b"}},
		{"all", `{"text":"a","content_type":"text/html","title":"t","url":"u","updated_at":"2026-11-21T11:00:03.005+01:00","tenant":"x","acl":["p","q"],
			"metadata":{"s":"v","n":-1.5e3,"b":false,"l":["x"],"e":[]}}`,
			Document{Text: "a", ContentType: TextHTML, Title: "t", URL: "u", UpdatedAt: at, Tenant: "x", ACL: []string{"p", "q"},
				Metadata: map[string]any{"s": "v", "n": -1500.0, "b": false, "l": []string{"x"}, "e": []string{}}}},
		{"nobody", `{"text":"a","acl":[]}`, Document{Text: "a", ACL: []string{}}},
		{"escapes", `{"text":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00é😀"}`, Document{Text: "\"\\/\b\f\n\r\té😀é😀"}},
		{"escaped name", `{"te\u0078t":"a"}`, Document{Text: "a"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, p := DecodeDocument([]byte(tc.in), 100)
			if p != nil {
				t.Fatal(p)
			}
			if !reflect.DeepEqual(*got, tc.want) {
				t.Errorf("got %#v, want %#v", *got, tc.want)
			}
			b, p := EncodeDocument(got)
			if p != nil {
				t.Fatal(p)
			}
			again, p := DecodeDocument(b, 100)
			if p != nil || !reflect.DeepEqual(emptied(again), emptied(got)) {
				t.Errorf("encoded as %s, which is %#v, %v", b, again, p)
			}
		})
	}
}

// emptied makes an empty metadata object and an absent one equal.
func emptied(d *Document) Document {
	c := *d
	if len(c.Metadata) == 0 {
		c.Metadata = nil
	}
	return c
}

func TestDecodeDocumentRefuses(t *testing.T) {
	for _, tc := range []struct{ in, code, detail string }{
		{``, CodeNotADocument, "not a JSON object"},
		{`[]`, CodeNotADocument, "not a JSON object"},
		{`"x"`, CodeNotADocument, "not a JSON object"},
		{`{}`, CodeNotADocument, `"text" is missing`},
		{`{"text":"a"`, CodeNotADocument, "too early"},
		{`{"text":"a`, CodeNotADocument, "too early"},
		{`{"text":"a"}}`, CodeNotADocument, "follows"},
		{`{"text":"a"} {}`, CodeNotADocument, "follows"},
		{`{"text":"a",}`, CodeNotADocument, "malformed at byte 12"},
		{`{text:"a"}`, CodeNotADocument, "malformed at byte 1"},
		{`{"text" "a"}`, CodeNotADocument, "malformed"},
		{`{"text":"a" "b":1}`, CodeNotADocument, "malformed"},
		{`{"text":"a","text":"b"}`, CodeNotADocument, "twice"},
		{`{"text":"a","metadata":{"k":1,"k":2}}`, CodeNotADocument, `"metadata.k" is there twice`},
		{"{\"text\":\"a\nb\"}", CodeNotADocument, "malformed at byte 10"},
		{`{"text":"\x"}`, CodeNotADocument, "malformed"},
		{`{"text":"\u00g0"}`, CodeNotADocument, "malformed"},
		{`{"text":nul}`, CodeNotADocument, "malformed"},
		{`{"text":"a","metadata":{"k":01}}`, CodeNotADocument, "malformed"},
		{`{"text":"a","metadata":{"k":1.}}`, CodeNotADocument, "malformed"},
		{`{"text":"a","metadata":{"k":+1}}`, CodeNotADocument, "malformed"},
		{`{"text":"a","acl":["x"`, CodeNotADocument, "too early"},
		{`{"text":"a","acl":["x",]}`, CodeNotADocument, "malformed"},
		{`{"text":"a","extra":1}`, CodeUnknownField, `"extra"`},
		{`{"text":"a","Text":"b"}`, CodeUnknownField, `"Text"`},
		{`{"text":"a","id":"b"}`, CodeUnknownField, `"id"`},
		{`{"text":"a","deleted":true}`, CodeUnknownField, `"deleted"`},
		{`{"text":1}`, CodeWrongType, `"text"`},
		{`{"text":null}`, CodeWrongType, `"text"`},
		{`{"text":["a"]}`, CodeWrongType, `"text"`},
		{`{"text":"a","title":true}`, CodeWrongType, `"title"`},
		{`{"text":"a","url":{}}`, CodeWrongType, `"url"`},
		{`{"text":"a","content_type":"text/x"}`, CodeWrongType, `"content_type"`},
		{`{"text":"a","updated_at":"yesterday"}`, CodeWrongType, `"updated_at"`},
		{`{"text":"a","updated_at":12}`, CodeWrongType, `"updated_at"`},
		{`{"text":"a","tenant":12}`, CodeWrongType, `"tenant"`},
		{`{"text":"a","acl":null}`, CodeWrongType, `"acl"`},
		{`{"text":"a","acl":"x"}`, CodeWrongType, `"acl"`},
		{`{"text":"a","acl":[1]}`, CodeWrongType, `"acl"`},
		{`{"text":"a","metadata":[]}`, CodeWrongType, `"metadata"`},
		{`{"text":"a","metadata":{"k":null}}`, CodeWrongType, `"metadata.k"`},
		{`{"text":"a","metadata":{"k":{}}}`, CodeWrongType, `"metadata.k"`},
		{`{"text":"a","metadata":{"k":[1]}}`, CodeWrongType, `"metadata.k"`},
		{`{"text":"a","metadata":{"k":1e999}}`, CodeWrongType, `"metadata.k"`},
		{"{\"text\":\"a\xff\"}", CodeInvalidUTF8, `"text"`},
		{"{\"text\":\"a\",\"ti\xfftle\":\"\"}", CodeInvalidUTF8, "name of a field"},
		{"{\"text\":\"a\",\"title\":\"\xed\xa0\x80\"}", CodeInvalidUTF8, `"title"`},
		{"{\"text\":\"a\",\"metadata\":{\"k\":\"\xff\"}}", CodeInvalidUTF8, `"metadata.k"`},
		{"{\"text\":\"a\",\"acl\":[\"\xff\"]}", CodeInvalidUTF8, `"acl"`},
		{`{"text":"\ud800"}`, CodeInvalidUTF8, `"text"`},
		{`{"text":"\ud800x"}`, CodeInvalidUTF8, `"text"`},
		{`{"text":"\ud800\u0041"}`, CodeInvalidUTF8, `"text"`},
		{`{"text":"\udc00\ud800"}`, CodeInvalidUTF8, `"text"`},
		{`{"text":"123456"}`, CodeDocumentTooLarge, "6 bytes, the limit is 5"},
		{`{"text":"\u00e9\u00e9\u00e9"}`, CodeDocumentTooLarge, "6 bytes"},
	} {
		t.Run(tc.in, func(t *testing.T) {
			d, p := DecodeDocument([]byte(tc.in), 5)
			if p == nil {
				t.Fatalf("accepted as %#v", d)
			}
			if p.Code != tc.code || !strings.Contains(p.Detail, tc.detail) {
				t.Errorf("got %s, want %s: …%s…", p, tc.code, tc.detail)
			}
		})
	}
}

func TestDecodeLine(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want Change
		code string
	}{
		{in: `{"id":"a","text":"x"}`, want: Change{Kind: Upsert, ID: "a", Document: &Document{Text: "x"}}},
		{in: `{"id":"a","text":"x","deleted":false,"tenant":"t"}`, want: Change{Kind: Upsert, Tenant: "t", ID: "a", Document: &Document{Text: "x", Tenant: "t"}}},
		{in: `{"id":"a","deleted":true}`, want: Change{Kind: Delete, ID: "a"}},
		{in: `{"id":"a","deleted":true,"tenant":"t"}`, want: Change{Kind: Delete, Tenant: "t", ID: "a"}},
		{in: `{"id":"a","deleted":true,"text":"x"}`, code: CodeNotADocument},
		{in: `{"id":"a","deleted":1}`, code: CodeWrongType},
		{in: `{"id":"a"}`, code: CodeNotADocument},
		{in: `{"text":"x"}`, code: CodeIDInvalid},
		{in: `{"id":"","text":"x"}`, code: CodeIDInvalid},
		{in: `{"id":"a\u001fb","text":"x"}`, code: CodeIDInvalid},
		{in: `{"id":"a","text":"x","tenant":"\u0001"}`, code: CodeIDInvalid},
		{in: `{"id":3,"text":"x"}`, code: CodeWrongType},
	} {
		t.Run(tc.in, func(t *testing.T) {
			got, p := DecodeLine([]byte(tc.in), 0)
			if tc.code != "" {
				if p == nil || p.Code != tc.code {
					t.Fatalf("got %v, want %s", p, tc.code)
				}
				return
			}
			if p != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %#v, %v, want %#v", got, p, tc.want)
			}
		})
	}
}

func TestDecodeRecord(t *testing.T) {
	doc := []byte(`{"text":"x"}`)
	for _, tc := range []struct {
		name       string
		key, value []byte
		want       Change
		code       string
	}{
		{name: "upsert", key: []byte("a"), value: doc, want: Change{Kind: Upsert, ID: "a", Document: &Document{Text: "x"}}},
		{name: "tenant of the key", key: []byte("t\x1fa"), value: doc, want: Change{Kind: Upsert, Tenant: "t", ID: "a", Document: &Document{Text: "x", Tenant: "t"}}},
		{name: "tenants agree", key: []byte("t\x1fa"), value: []byte(`{"text":"x","tenant":"t"}`), want: Change{Kind: Upsert, Tenant: "t", ID: "a", Document: &Document{Text: "x", Tenant: "t"}}},
		{name: "tombstone", key: []byte("a"), want: Change{Kind: Delete, ID: "a"}},
		{name: "access", key: []byte("t\x1fa\x1eacl"), value: []byte(`{"acl":["p"]}`), want: Change{Kind: Access, Tenant: "t", ID: "a", ACL: []string{"p"}}},
		{name: "access for nobody", key: []byte("a\x1eacl"), value: []byte(` {"acl": [] } `), want: Change{Kind: Access, ID: "a", ACL: []string{}}},
		{name: "access cleared", key: []byte("a\x1eacl"), want: Change{Kind: Access, ID: "a"}},
		{name: "no key", value: doc, code: CodeKeyMissing},
		{name: "empty key", key: []byte{}, value: doc, code: CodeIDInvalid},
		{name: "long key", key: bytes.Repeat([]byte("a"), MaxIDBytes+1), value: doc, code: CodeIDInvalid},
		{name: "control character", key: []byte("a\nb"), value: doc, code: CodeIDInvalid},
		{name: "other suffix", key: []byte("a\x1exyz"), value: doc, code: CodeIDInvalid},
		{name: "key not UTF-8", key: []byte("\xff"), value: doc, code: CodeIDInvalid},
		{name: "empty tenant", key: []byte("\x1fa"), value: doc, code: CodeIDInvalid},
		{name: "bad tenant", key: []byte("\x01\x1fa"), value: doc, code: CodeIDInvalid},
		{name: "tombstone of a bad key", key: []byte("\x01"), code: CodeIDInvalid},
		{name: "tenants differ", key: []byte("t\x1fa"), value: []byte(`{"text":"x","tenant":"u"}`), code: CodeTenantMismatch},
		{name: "tenant in the value alone", key: []byte("a"), value: []byte(`{"text":"x","tenant":"u"}`), code: CodeTenantMismatch},
		{name: "empty value", key: []byte("a"), value: []byte{}, code: CodeNotADocument},
		{name: "access unknown field", key: []byte("a\x1eacl"), value: []byte(`{"acl":[],"text":""}`), code: CodeUnknownField},
		{name: "access without list", key: []byte("a\x1eacl"), value: []byte(`{}`), code: CodeNotADocument},
		{name: "access null", key: []byte("a\x1eacl"), value: []byte(`{"acl":null}`), code: CodeWrongType},
		{name: "access rest", key: []byte("a\x1eacl"), value: []byte(`{"acl":[]}x`), code: CodeNotADocument},
		{name: "access empty value", key: []byte("a\x1eacl"), value: []byte{}, code: CodeNotADocument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			raw := &Raw{Key: tc.key, Value: tc.value, Headers: []Header{{HeaderBackfill, nil}, {"x", []byte("yz")}}}
			got := DecodeRecord(raw, nil, 100)
			if got.Raw != raw || !got.Backfill || got.Size != len(tc.key)+len(tc.value)+len(HeaderBackfill)+3 {
				t.Errorf("raw, backfill or size is wrong: %+v", got)
			}
			if tc.code != "" {
				if got.Kind != Invalid || got.Problem == nil || got.Problem.Code != tc.code || got.Document != nil {
					t.Fatalf("got %v, %v, want %s", got.Kind, got.Problem, tc.code)
				}
				return
			}
			want := tc.want
			want.Raw, want.Backfill, want.Size = got.Raw, true, got.Size
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("got %+v, want %+v", got, want)
			}
			key, value, headers, p := EncodeRecord(&got)
			if p != nil {
				t.Fatal(p)
			}
			again := DecodeRecord(&Raw{Key: key, Value: value, Headers: headers}, nil, 100)
			again.Raw, again.Size = got.Raw, got.Size
			if !reflect.DeepEqual(again, got) || !bytes.Equal(key, tc.key) {
				t.Errorf("encoded and decoded again: %+v, want %+v", again, got)
			}
		})
	}
}

func TestEncodeRecordRefuses(t *testing.T) {
	doc := func(d Document) *Document { return &d }
	for _, tc := range []struct {
		name string
		c    Change
		code string
	}{
		{"no id", Change{Kind: Delete}, CodeIDInvalid},
		{"bad tenant", Change{Kind: Delete, ID: "a", Tenant: "\x01"}, CodeIDInvalid},
		{"no document", Change{Kind: Upsert, ID: "a"}, CodeNotADocument},
		{"no kind", Change{ID: "a"}, CodeNotADocument},
		{"text not UTF-8", Change{Kind: Upsert, ID: "a", Document: doc(Document{Text: "\xff"})}, CodeInvalidUTF8},
		{"metadata key not UTF-8", Change{Kind: Upsert, ID: "a", Document: doc(Document{Metadata: map[string]any{"\xff": "x"}})}, CodeInvalidUTF8},
		{"acl not UTF-8", Change{Kind: Access, ID: "a", ACL: []string{"\xff"}}, CodeInvalidUTF8},
		{"metadata type", Change{Kind: Upsert, ID: "a", Document: doc(Document{Metadata: map[string]any{"k": 1}})}, CodeWrongType},
		{"metadata NaN", Change{Kind: Upsert, ID: "a", Document: doc(Document{Metadata: map[string]any{"k": math.NaN()}})}, CodeWrongType},
		{"content type", Change{Kind: Upsert, ID: "a", Document: doc(Document{ContentType: "x"})}, CodeWrongType},
		{"year", Change{Kind: Upsert, ID: "a", Document: doc(Document{UpdatedAt: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)})}, CodeWrongType},
		{"tenants differ", Change{Kind: Upsert, ID: "a", Tenant: "t", Document: doc(Document{Tenant: "u"})}, CodeTenantMismatch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, _, _, p := EncodeRecord(&tc.c); p == nil || p.Code != tc.code {
				t.Errorf("got %v, want %s", p, tc.code)
			}
		})
	}
}

func TestToken(t *testing.T) {
	one := Receipt{Identity: "log", Positions: []Position{{3, 1 << 40}}}
	if got, single, err := ParseToken(one.Token(), "log"); err != nil || !single || !reflect.DeepEqual(got, one.Positions) {
		t.Errorf("got %v, %v, %v", got, single, err)
	}
	many := Receipt{Identity: "log", Positions: []Position{{2, 5}, {0, 7}, {2, 9}, {2, 6}}}
	if got, single, err := ParseToken(many.Token(), "log"); err != nil || single || !reflect.DeepEqual(got, []Position{{0, 7}, {2, 9}}) {
		t.Errorf("got %v, %v, %v", got, single, err)
	}
	if tok := many.Token(); strings.Trim(tok, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		t.Errorf("token %q is not safe in a URL", tok)
	}
	for _, bad := range []string{"", "x", "!!", one.Token()[:8], one.Token() + "A", "AA" + one.Token(), one.Token() + one.Token()} {
		if _, _, err := ParseToken(bad, "log"); err != ErrTokenUnknown {
			t.Errorf("ParseToken(%q): %v", bad, err)
		}
	}
	if _, _, err := ParseToken(one.Token(), "another"); err != ErrTokenUnknown {
		t.Errorf("token of another log: %v", err)
	}
}

// FuzzDecodeDocument holds the decoder to encoding/json: what it accepts means the same there, and it refuses whatever is
// no JSON or no UTF-8.
func FuzzDecodeDocument(f *testing.F) {
	for _, s := range []string{
		`{"text":"a"}`, `{"text":"\ud83d\ude00\n","metadata":{"k":[ "x" ],"n":-0.5e-3}}`, `{"text":"a","acl":[]}`, `{"text":"\\","title":"\""}`,
		`{"text":"a","updated_at":"2026-01-02T03:04:05Z"}`, "{\"text\":\"\xff\"}", `{"text":"\ud800"}`, `{"text":"a"}x`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, p := DecodeDocument(data, 0)
		if p != nil {
			return
		}
		if !utf8.Valid(data) {
			t.Fatalf("accepted invalid UTF-8: %q", data)
		}
		var want Document
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&want); err != nil {
			t.Fatalf("accepted %q, which encoding/json refuses: %v", data, err)
		}
		for k, v := range want.Metadata {
			if list, ok := v.([]any); ok {
				want.Metadata[k], _ = stringsOf(list)
			}
		}
		want.UpdatedAt = want.UpdatedAt.UTC()
		if !reflect.DeepEqual(*got, want) {
			t.Fatalf("%q: got %#v, want %#v", data, *got, want)
		}
		b, p := EncodeDocument(got)
		if p != nil {
			t.Fatal(p)
		}
		again, p := DecodeDocument(b, 0)
		if p != nil || !reflect.DeepEqual(emptied(again), emptied(got)) {
			t.Fatalf("%q: encoded as %q: %v", data, b, p)
		}
	})
}

func benchDocument() *Document {
	line := "The café's \"daily\" special changes, and so does what we answer about it; see section 4.2.\n"
	return &Document{Text: strings.Repeat(line, 5000/len(line)), Title: "Specials", URL: "https://example.com/specials",
		UpdatedAt: time.Unix(1_700_000_000, 0), Metadata: map[string]any{"team": "kitchen", "year": 2026.0, "tags": []string{"a", "b"}}}
}

func BenchmarkDecodeDocument(b *testing.B) {
	data, _ := EncodeDocument(benchDocument())
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, p := DecodeDocument(data, 8<<20); p != nil {
			b.Fatal(p)
		}
	}
}

func BenchmarkEncodeDocument(b *testing.B) {
	d := benchDocument()
	data, _ := EncodeDocument(d)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, p := EncodeDocument(d); p != nil {
			b.Fatal(p)
		}
	}
}

func BenchmarkEncodingJSON(b *testing.B) {
	data, _ := EncodeDocument(benchDocument())
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		var d Document
		if err := json.Unmarshal(data, &d); err != nil {
			b.Fatal(err)
		}
	}
}
