package milvus

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// evaluate is what a server makes of an expression: just as much of its language as expressions here have.
type evaluate struct {
	scope int64
	tags  []int64
	order map[string]string
	rest  string
}

func (e *evaluate) eat(token string) bool {
	e.rest = strings.TrimLeft(e.rest, " ")
	if strings.HasPrefix(e.rest, token) {
		e.rest = e.rest[len(token):]
		return true
	}
	return false
}

var numberList = regexp.MustCompile(`^\s*\[?(\d+(,\d+)*)\]?`)

func (e *evaluate) numbers() (list []int64) {
	m := numberList.FindStringSubmatch(e.rest)
	e.rest = e.rest[len(m[0]):]
	for s := range strings.SplitSeq(m[1], ",") {
		n, _ := strconv.ParseInt(s, 10, 64)
		list = append(list, n)
	}
	return list
}

func (e *evaluate) term() bool {
	switch {
	case e.eat("("):
		result := e.term()
		for {
			switch {
			case e.eat("and "):
				right := e.term()
				result = result && right
			case e.eat("or "):
				right := e.term()
				result = result || right
			case e.eat(")"):
				return result
			default:
				panic("in brackets: " + e.rest)
			}
		}
	case e.eat("not "):
		return !e.term()
	case e.eat("scope in "):
		return slices.Contains(e.numbers(), e.scope)
	case e.eat("array_contains_any(tags, "), e.eat("array_contains(tags, "):
		found := false
		for _, n := range e.numbers() {
			found = found || slices.Contains(e.tags, n)
		}
		if !e.eat(")") {
			panic("after a list: " + e.rest)
		}
		return found
	case e.eat(`ord["`):
		name, rest, _ := strings.Cut(e.rest, `"] `)
		op, rest, _ := strings.Cut(rest, ` "`)
		value, rest, _ := strings.Cut(rest, `"`)
		e.rest = rest
		got, ok := e.order[name]
		c := strings.Compare(got, value)
		return ok && map[string]bool{"<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0}[op]
	}
	panic("no term: " + e.rest)
}

func passes(t *testing.T, expr string, r *vectordb.Revision) bool {
	t.Helper()
	if expr == always || expr == never {
		return expr == always
	}
	about, err := describeDocument(r)
	if err != nil {
		t.Fatal(err)
	}
	e := &evaluate{scope: about.scope[found], tags: about.tags, rest: expr}
	if err := json.Unmarshal(about.order, &e.order); err != nil {
		t.Fatal(err)
	}
	result := e.term()
	if strings.TrimSpace(e.rest) != "" {
		t.Fatalf("%s: %q is left over", expr, e.rest)
	}
	return result
}

var hostile = []string{
	"", "a", "b", "billing", `"`, `\`, `\"`, `'`, `%`, `_`, `a%b`, "日本", "é", "\x00", "\n", `") or true or ("`, `"]`, "a.b", "a/b~c", "@id", "$x", "🙂", strings.Repeat("long ", 20),
	strings.Repeat("long ", 20) + "er", strings.Repeat("x", 31), strings.Repeat("x", 32), strings.Repeat("x", 33), "true", "1", "NaN",
}

var odd = []float64{0, math.Copysign(0, -1), 1, -1, 0.1, 1e300, -1e300, math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53, 1<<53 + 2, 9007199254740993, 2024, -2024.5}

func value(r *rand.Rand) any {
	switch r.IntN(4) {
	case 0:
		return odd[r.IntN(len(odd))]
	case 1:
		return r.IntN(2) == 0
	default:
		return hostile[r.IntN(len(hostile))]
	}
}

var instants = []time.Time{time.UnixMicro(0).UTC(), time.UnixMicro(-5).UTC(), time.UnixMicro(1700000000000001).UTC(), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC)}

func randomFilter(r *rand.Rand, depth int) *vectordb.Filter {
	if depth > 0 && r.IntN(3) == 0 {
		f := &vectordb.Filter{Op: []vectordb.Op{vectordb.And, vectordb.Or, vectordb.Not}[r.IntN(3)]}
		for range r.IntN(4) {
			f.Sub = append(f.Sub, randomFilter(r, depth-1))
		}
		return f
	}
	f := &vectordb.Filter{Op: []vectordb.Op{vectordb.Eq, vectordb.Ne, vectordb.Gt, vectordb.Gte, vectordb.Lt, vectordb.Lte, vectordb.In, vectordb.Nin, vectordb.Exists}[r.IntN(9)]}
	var operand func() any
	switch r.IntN(6) {
	case 0:
		f.Field, operand = "@updated_at", func() any { return instants[r.IntN(len(instants))] }
	case 1:
		f.Field, operand = []string{"@id", "@url", "@content_type"}[r.IntN(3)], func() any { return hostile[r.IntN(len(hostile))] }
	default:
		for f.Field = "@"; strings.HasPrefix(f.Field, "@") || strings.HasPrefix(f.Field, "$"); {
			f.Field = hostile[r.IntN(len(hostile))]
		}
		operand = func() any { return value(r) }
	}
	switch f.Op {
	case vectordb.In, vectordb.Nin:
		for range r.IntN(5) {
			f.Values = append(f.Values, operand())
		}
	case vectordb.Exists:
		f.Value = r.IntN(2) == 0
	default:
		f.Value = operand()
		for _, isBool := f.Value.(bool); isBool && f.Op != vectordb.Eq && f.Op != vectordb.Ne; _, isBool = f.Value.(bool) {
			f.Value = operand()
		}
	}
	return f
}

var harmless = regexp.MustCompile(`^[a-z0-9_ ()\[\]",<>=]*$`)

// An expression lets through what its filter does, for every kind of value, and holds nothing of the caller's that could mean something to the server.
func TestExpressionsLetThroughWhatFiltersDo(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	all, exact := 0, 0
	for range 20_000 {
		doc := vectordb.Revision{Key: "k" + hostile[r.IntN(len(hostile))], Version: 1, Metadata: map[string]any{}}
		for range r.IntN(6) {
			v := value(r)
			if r.IntN(4) == 0 {
				v = []string{hostile[r.IntN(len(hostile))], hostile[r.IntN(len(hostile))]}[:r.IntN(3)]
			}
			doc.Metadata[hostile[r.IntN(len(hostile))]] = v
		}
		if r.IntN(2) == 0 {
			doc.URL, doc.ContentType = hostile[r.IntN(len(hostile))], hostile[r.IntN(len(hostile))]
			doc.UpdatedAt = instants[r.IntN(len(instants))]
		}
		f := randomFilter(r, 3)
		if err := f.Check(); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		for _, opposite := range []bool{false, true} {
			expr := expression(f, opposite)
			if !harmless.MatchString(expr) {
				t.Fatalf("%s became %s", f, expr)
			}
			match, pass := f.Match(&doc) != opposite, passes(t, expr, &doc)
			if match && !pass {
				t.Fatalf("%s (opposite: %v) keeps out %+v:\n%s", f, opposite, doc, expr)
			}
			all++
			if match == pass {
				exact++
			}
		}
	}
	// Only strings of 32 bytes and more are let through for their first 32.
	if share := float64(exact) / float64(all); share < 0.99 {
		t.Errorf("%.4f of expressions are exact", share)
	}
}

func TestExpressionsAsWritten(t *testing.T) {
	tag := func(n int64) string { return strconv.FormatInt(n, 10) }
	for text, want := range map[string]string{
		`{}`:                       always,
		`{"$not":{}}`:              never,
		`{"a":{"$in":[]}}`:         never,
		`{"a":{"$nin":[]}}`:        always,
		`{"a":"x"}`:                "array_contains(tags, " + tag(equal("a", "x")) + ")",
		`{"a":{"$ne":"x"}}`:        "not array_contains(tags, " + tag(equal("a", "x")) + ")",
		`{"a":{"$exists":false}}`:  "not array_contains(tags, " + tag(digest(tagExists, "a")) + ")",
		`{"a":{"$in":[1,true]}}`:   "array_contains_any(tags, [" + tag(equal("a", 1.0)) + "," + tag(equal("a", true)) + "])",
		`{"a":{"$gt":1}}`:          "(array_contains(tags, " + tag(digest(tagOrdered, "a", "n")) + `) and ord["` + orderName("a") + `"] > "nbff0000000000000")`,
		`{"$not":{"a":{"$gt":1}}}`: "(not array_contains(tags, " + tag(digest(tagOrdered, "a", "n")) + `) or ord["` + orderName("a") + `"] <= "nbff0000000000000")`,
	} {
		f, err := vectordb.ParseFilter([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := expression(f, false); got != want {
			t.Errorf("%s: %s\nwant %s", text, got, want)
		}
	}
	if got := expression(nil, false); got != always {
		t.Errorf("no filter: %s", got)
	}
}

// Who may read a document is let through, nobody else is.
func TestReach(t *testing.T) {
	docs := map[string]vectordb.Revision{
		"open":    {Key: "a", Version: 1},
		"listed":  {Key: "a", Version: 1, ACL: []string{"alice", `b"ob`}},
		"nobody":  {Key: "a", Version: 1, ACL: []string{}},
		"tenant":  {Key: "a", Version: 1, Tenant: `"t`},
		"set":     {Key: "a", Version: 1, Access: vectordb.Access{Version: 1, ACL: []string{"carol"}}},
		"cleared": {Key: "a", Version: 1, ACL: []string{"alice"}, Access: vectordb.Access{Version: 1, Clear: true}},
	}
	for _, tenant := range []string{"", `"t`, "t"} {
		for _, principals := range [][]string{nil, {"alice"}, {`b"ob`, "x"}, {"carol", "alice"}, {""}} {
			expr := reach(tenant, principals, found)
			if !harmless.MatchString(expr) {
				t.Fatalf("%s", expr)
			}
			for name, r := range docs {
				if got, want := passes(t, expr, &r), r.ReadableBy(tenant, principals); got != want {
					t.Errorf("%s for %q of tenant %q: %v, want %v: %s", name, principals, tenant, got, want, expr)
				}
			}
		}
	}
}

func TestOrderedValues(t *testing.T) {
	for _, a := range odd {
		for _, b := range odd {
			x, _, _ := ordered(a)
			y, _, _ := ordered(b)
			if (a < b) != (x < y) || (a == b) != (x == y) {
				t.Errorf("%v and %v are %s and %s", a, b, x, y)
			}
		}
	}
	for _, a := range instants {
		for _, b := range instants {
			x, _, _ := ordered(a)
			y, _, _ := ordered(b)
			if a.Compare(b) != strings.Compare(x, y) {
				t.Errorf("%v and %v are %s and %s", a, b, x, y)
			}
		}
	}
}
