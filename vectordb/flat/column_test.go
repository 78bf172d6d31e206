package flat

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// randomValue is a value that a filter or a document may have; few of them, so that they meet.
func randomValue(r *rand.Rand) any {
	switch r.IntN(4) {
	case 0:
		return []string{"", "a", "ab", "b", "ü"}[r.IntN(5)]
	case 1:
		return []float64{0, math.Copysign(0, -1), -1, 1.5, 2000, -1e300, 5e-324}[r.IntN(7)]
	case 2:
		return r.IntN(2) == 0
	}
	return []string{"c", "d"}[r.IntN(2)]
}

var filterFields = []string{"x", "y", "@id", "@url", "@content_type", "@updated_at"}

func randomFilter(r *rand.Rand, depth int) *vectordb.Filter {
	f := &vectordb.Filter{Op: vectordb.Op(r.IntN(12) + 1), Field: filterFields[r.IntN(len(filterFields))], Value: randomValue(r)}
	switch f.Op {
	case vectordb.And, vectordb.Or, vectordb.Not:
		if depth == 0 {
			f.Op = vectordb.Eq
			break
		}
		for range r.IntN(4) {
			f.Sub = append(f.Sub, randomFilter(r, depth-1))
		}
	case vectordb.In, vectordb.Nin:
		for range r.IntN(4) {
			f.Values = append(f.Values, randomValue(r))
		}
	case vectordb.Exists:
		f.Value = r.IntN(2) == 0
	}
	if f.Field == "@updated_at" && r.IntN(4) > 0 {
		f.Value = time.Unix(int64(r.IntN(5))-2, int64(r.IntN(2))*500) // between microseconds too
	}
	return f
}

// Columns are the fast way to do what Filter.Match and ReadableBy say.
func TestColumnsAgreeWithMatch(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for round := range 40 {
		rows := make([]vectordb.Revision, 1+r.IntN(150))
		b := newColumnBuilder()
		for i := range rows {
			rev := vectordb.Revision{Key: []string{"a", "b", "t\x1fa"}[r.IntN(3)], Version: 1, Metadata: map[string]any{}}
			if r.IntN(2) == 0 {
				rev.URL, rev.ContentType = []string{"a", "c"}[r.IntN(2)], "b"
			}
			if r.IntN(3) > 0 {
				rev.UpdatedAt = time.Unix(int64(r.IntN(5))-2, 0).UTC()
			}
			for _, name := range []string{"x", "y", "@id"} {
				switch r.IntN(5) {
				case 0:
				case 1:
					list := []string{}
					for range r.IntN(3) {
						list = append(list, []string{"a", "c", "d"}[r.IntN(3)])
					}
					rev.Metadata[name] = list
				default:
					rev.Metadata[name] = randomValue(r)
				}
			}
			if round%2 == 0 {
				rev.Tenant = []string{"", "t"}[r.IntN(2)]
				rev.ACL = [][]string{nil, {}, {"p"}, {"p", "q"}}[r.IntN(4)]
				if r.IntN(4) == 0 {
					rev.Access = vectordb.Access{Version: 1, Clear: r.IntN(2) == 0, ACL: []string{"q"}}
				}
			}
			rows[i] = rev
			b.add(uint32(i), &rev)
		}
		cs, ok := openColumns(b.bytes(), uint32(len(rows)))
		if !ok {
			t.Fatal("what was written can't be read")
		}
		for range 200 {
			q := vectordb.Query{Tenant: []string{"", "t", "u"}[r.IntN(3)], Principals: [][]string{nil, {"p"}, {"q", "z"}}[r.IntN(3)]}
			if r.IntN(8) > 0 {
				q.Filter = randomFilter(r, 2)
			}
			set := cs.allowed(&q, uint32(len(rows)))
			for i := range rows {
				want := rows[i].ReadableBy(q.Tenant, q.Principals) && q.Filter.Match(&rows[i])
				if got := set == nil || set.has(uint32(i)); got != want {
					t.Fatalf("tenant %q, principals %q, filter %v: row %+v is %v, want %v", q.Tenant, q.Principals, q.Filter, rows[i], got, want)
				}
			}
			if set != nil && len(rows)%64 != 0 && set.words[len(set.words)-1]>>(len(rows)%64) != 0 {
				t.Fatal("rows that do not exist are allowed")
			}
		}
	}
}

func FuzzColumns(f *testing.F) {
	b := newColumnBuilder()
	for i := range 5 {
		rev := revision(fmt.Sprint(i), int64(i+1), 0, dim)
		b.add(uint32(i), &rev)
	}
	f.Add(b.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		cs, ok := openColumns(bytes.Clone(b), 5)
		if !ok {
			return
		}
		r := rand.New(rand.NewPCG(1, 1))
		for range 20 {
			cs.allowed(&vectordb.Query{Principals: []string{"p"}, Filter: randomFilter(r, 2)}, 5)
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add(packText(nil, "some text, some text"), 20, 3, 9)
	f.Add(packText(nil, string(bytes.Repeat([]byte("0123456789abcdef"), 5000))), 80000, 30000, 70000)
	f.Fuzz(func(t *testing.T, packed []byte, size, from, to int) {
		if size < 0 || size > 1<<20 {
			t.Skip()
		}
		if s, err := unpackText(packed, size, from, to); err == nil && len(s) != to-from {
			t.Errorf("[%d:%d) gave %d bytes", from, to, len(s))
		}
	})
}

func TestText(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, size := range []int{0, 1, textBlock - 1, textBlock, textBlock + 1, 3*textBlock + 7} {
		b := make([]byte, size)
		for i := range b {
			b[i] = "abcdefgh \x00\xff"[r.IntN(11)]
		}
		packed := packText([]byte("before"), string(b))[len("before"):]
		for range 50 {
			from := r.IntN(size + 1)
			to := from + r.IntN(size-from+1)
			if got, err := unpackText(packed, size, from, to); err != nil || got != string(b[from:to]) {
				t.Fatalf("size %d, [%d:%d): %d bytes, %v", size, from, to, len(got), err)
			}
		}
	}
}

// Whatever a frame with a right checksum holds, replaying it must not panic.
func FuzzReplay(f *testing.F) {
	s, err := Open(f.TempDir(), Options{NoSync: true, fs: unsynced{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	if err := s.Create(f.Context(), about); err != nil {
		f.Fatal(err)
	}
	g := s.generations["g"].g
	for _, rev := range []vectordb.Revision{revision("a", 1, 2, dim), {Key: "a", Version: 3, Deleted: true}, {Key: "a", Access: vectordb.Access{Version: 1}}} {
		p := prepared{rev: rev}
		if err := p.prepare(); err != nil {
			f.Fatal(err)
		}
		c, _, err := resolve(g.view.Load(), &p, 1, 1, false)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(appendWrite(nil, []change{c}, map[int32]int64{1: 2}))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		g.mu.Lock()
		defer g.mu.Unlock()
		table := g.active
		g.active = newMemtable(table.log, dim)
		g.active.log.size = table.log.size
		_ = g.replay(g.seq+1, payload)
		g.active = table
	})
}
