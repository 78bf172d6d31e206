package freshness

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func spell(c Change) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d", c.Seq)
	if !c.Time.IsZero() {
		b.WriteString(" " + c.Time.Format(time.DateOnly))
	}
	for _, op := range c.Ops {
		if op.Document == nil {
			fmt.Fprintf(&b, " -%s", op.Key)
		} else {
			fmt.Fprintf(&b, " +%s(%s %s)", op.Key, op.Document.Text, op.Document.ContentType)
		}
	}
	return b.String()
}

func TestReadChanges(t *testing.T) {
	for _, tt := range []struct{ name, in, want, err string }{
		{"a history", `{"seq":3,"ts":"2014-12-19T15:09:50Z","commit":"4","op":"add","key":"a.md","content":"A"}
{"seq":4,"ts":"2014-12-20T00:00:00Z","op":"modify","key":"a.md","content":""}

{"seq":9,"op":"rename","old_key":"a.md","key":"b.html","content":"B"}
{"seq":10,"op":"delete","key":"b.html"}`, "3 2014-12-19 +a.md(A text/markdown); 4 2014-12-20 +a.md( text/markdown); 9 -a.md +b.html(B text/html); 10 -b.html", ""},
		{"documents", `{"id":"a","text":"A","updated_at":"2026-01-02T00:00:00Z"}
{"id":"a","deleted":true}`, "0 2026-01-02 +a(A ); 1 -a", ""},
		{"backwards", `{"seq":3,"op":"delete","key":"a"}` + "\n" + `{"seq":3,"op":"delete","key":"a"}`, "3 -a", "x, line 2: seq 3 does not follow 3"},
		{"no seq", `{"op":"delete","key":"a"}`, "", `x, line 1: no "seq"`},
		{"no key", `{"seq":1,"op":"delete"}`, "", `x, line 1: no "key"`},
		{"no content", `{"seq":1,"op":"add","key":"a"}`, "", `x, line 1: add without "content"`},
		{"no old key", `{"seq":1,"op":"rename","key":"a","content":""}`, "", `x, line 1: rename without "old_key"`},
		{"another op", `{"seq":1,"op":"touch","key":"a","content":""}`, "", `x, line 1: op "touch"`},
		{"no document", `{"id":"a"}`, "", `x, line 1: not_a_document`},
		{"of a tenant", `{"id":"a","text":"x","tenant":"t"}`, "", `x, line 1: a document with a tenant`},
		{"no JSON", `x`, "", `x, line 1: `},
		{"too large", `{"id":"a","text":"0123456789a"}`, "", `x, line 1: document_too_large`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			failed := ""
			for c, err := range ReadChanges(strings.NewReader(tt.in), "x", 10) {
				if err != nil {
					failed = err.Error()
					continue
				}
				got = append(got, spell(c))
			}
			if strings.Join(got, "; ") != tt.want || !strings.HasPrefix(failed, tt.err) || (failed == "") != (tt.err == "") {
				t.Errorf("got %q, %q", strings.Join(got, "; "), failed)
			}
		})
	}
}

func TestReadProbes(t *testing.T) {
	got, err := ReadProbes(strings.NewReader(`{"text":"a","raw":"*a*","from_seq":0,"to_seq":3,"key":"k"}
{"text":"b","from_seq":2,"to_seq":null}`), "x")
	if err != nil || len(got) != 2 || got[0].Raw != "*a*" || *got[0].To != 3 || got[0].From != 0 || got[1].Raw != "b" || got[1].To != nil || got[1].From != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	for in, want := range map[string]string{`{"text":"a"}`: `x, line 1: no "from_seq"`, `{"from_seq":1}`: `x, line 1: no "text"`, `[]`: "x, line 1: "} {
		if _, err := ReadProbes(strings.NewReader(in), "x"); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestPicker(t *testing.T) {
	seq := func(n int64) *int64 { return &n }
	probes := []Probe{{Text: "a", Raw: "A", From: 0, To: seq(5)}, {Text: "b", Raw: "B", From: 2}, {Text: "c", Raw: "C", From: 7, To: seq(9)}}
	p := newPicker(probes, 1)
	if _, ok := p.pick(-1, -1); ok {
		t.Error("a question before anything was there")
	}
	seen := map[string]bool{}
	for range 50 {
		q, ok := p.pick(3, 6)
		seen[q.query] = true
		// The change that takes a away is on its way: a is neither live nor gone.
		if !ok || len(q.closed) > 0 || q.query == "a" && q.live != "" || q.query == "b" && q.live != "B" {
			t.Fatalf("%+v", q)
		}
	}
	if !seen["b"] {
		t.Errorf("asked %v", seen)
	}
	for range 50 {
		q, ok := p.pick(9, 9)
		seen[q.query] = true
		if !ok || fmt.Sprint(q.closed) != "[A C]" || (q.live == "B") != (q.query == "b") {
			t.Fatalf("%+v", q)
		}
	}
	if len(seen) != 3 {
		t.Errorf("asked %v", seen)
	}
}

// TestUpTo: an answer's as_of is as far before the answer as it says, and the question came before that; what is said with two digits may be less by a little.
func TestUpTo(t *testing.T) {
	began := time.Now()
	for lag, want := range map[time.Duration]time.Duration{0: 0, 38 * time.Millisecond: 38 * time.Millisecond, 90 * time.Second: 90 * time.Second} {
		a := asked{began: began, ended: began.Add(time.Hour), answer: Answer{Lag: lag}}
		if d := began.Sub(a.upTo()); d < want || d > want+want/10+time.Millisecond {
			t.Errorf("lag %s: %s before the question", lag, d)
		}
	}
	if a := (asked{began: began, answer: Answer{Lag: -1}}); !a.upTo().IsZero() {
		t.Error("an answer that says nothing of its freshness")
	}
}

func TestQuantiles(t *testing.T) {
	var all []time.Duration
	for i := range 200 {
		all = append(all, time.Duration(200-i))
	}
	if l := latency(all); l != (Latency{P50: 100, P95: 190, P99: 198, Max: 200, Count: 200}) {
		t.Errorf("%+v", l)
	}
	if l := latency(nil); l != (Latency{}) {
		t.Errorf("%+v", l)
	}
}
