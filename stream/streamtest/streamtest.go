// Package streamtest holds implementations of the stream package to its contracts.
package streamtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
)

// Process is one process' view of a log.
type Process struct {
	Log         stream.Log
	Register    stream.Register
	Groups      stream.Groups
	DeadLetters stream.DeadLetters
	// Letters lists the youngest dead letters, oldest first.
	Letters func(ctx context.Context, limit int) ([]stream.DeadLetter, error)
	// Open reads and settles the open ones.
	Open stream.Letters
	// Feedback is what was said of answers.
	Feedback stream.FeedbackLog
}

// Record is a log record as any program may write it.
type Record struct {
	Key, Value []byte
	Headers    []stream.Header
	// Time is the record's timestamp. Zero: now.
	Time time.Time
}

// Harness is one fresh log, with at least two partitions, and what the suite has to do to it from outside. It is torn down by
// the test's cleanup.
type Harness struct {
	// Connect gives another process on the same log.
	Connect func(t *testing.T) Process
	// MaxDocumentBytes is the limit the processes are configured with, at most 1 MiB.
	MaxDocumentBytes int
	// Produce writes records into the corpus' topic past Append, partitioned by Kafka's default partitioner.
	Produce func(t *testing.T, records ...Record)
	// Transact writes records in one transaction and commits or aborts it.
	Transact func(t *testing.T, commit bool, records ...Record)
	// Compact makes the broker compact the corpus' and the control topic, or begin to. The suite calls it until it sees the effect.
	Compact func(t *testing.T)
}

// patience bounds a test's wait for what must happen.
const patience = 60 * time.Second

// Run runs the suite, each test on a log of its own.
func Run(t *testing.T, fresh func(t *testing.T) Harness) {
	for _, tc := range []struct {
		name string
		test func(t *testing.T, h Harness)
	}{
		{"Order", testOrder},
		{"Kinds", testKinds},
		{"Big", testBig},
		{"Poison", testPoison},
		{"PauseResume", testPauseResume},
		{"Positions", testPositions},
		{"Since", testSince},
		{"Ends", testEnds},
		{"Interrupted", testInterrupted},
		{"GroupRebalance", testGroupRebalance},
		{"GroupZombie", testGroupZombie},
		{"GroupZombieReturns", testGroupZombieReturns},
		{"Transactions", testTransactions},
		{"Compaction", testCompaction},
		{"DeadLetters", testDeadLetters},
		{"LettersSettled", testLettersSettled},
		{"Feedback", testFeedback},
		{"Register", testRegister},
		{"RegisterConcurrent", testRegisterConcurrent},
		{"RegisterCompacted", testRegisterCompacted},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, fresh(t)) })
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func upsert(id, text string) stream.Change {
	return stream.Change{Kind: stream.Upsert, ID: id, Document: &stream.Document{Text: text}}
}

func appendTo(t *testing.T, l stream.Log, changes ...stream.Change) stream.Receipt {
	t.Helper()
	r, err := l.Append(within(t), changes...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// follower drives a source, checks what holds always, and keeps all it saw.
type follower struct {
	t       *testing.T
	src     stream.Source
	changes []stream.Change
	owned   map[int32]bool
	next    map[int32]int64 // next offset by Fetched or Assigned
	ends    map[int32]stream.End
}

func follow(t *testing.T, l stream.Log, from stream.From) *follower {
	t.Helper()
	src, err := l.Open(within(t), from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return &follower{t: t, src: src, owned: map[int32]bool{}, next: map[int32]int64{}, ends: map[int32]stream.End{}}
}

// step calls Next once.
func (f *follower) step(ctx context.Context) (stream.Batch, error) {
	b, err := f.src.Next(ctx)
	if err != nil {
		return b, err
	}
	for _, p := range slices.Concat(b.Revoked, b.Lost) {
		if !f.owned[p] {
			f.t.Errorf("partition %d was given away and never assigned", p)
		}
		delete(f.owned, p)
	}
	last := map[int32]int64{}
	for _, p := range b.Assigned {
		if f.owned[p.Partition] {
			f.t.Errorf("partition %d was assigned twice", p.Partition)
		}
		f.owned[p.Partition] = true
		f.next[p.Partition] = p.Offset
	}
	fetched := map[int32]int64{}
	for _, p := range b.Fetched {
		fetched[p.Partition] = p.Offset
		if p.Offset < f.next[p.Partition] {
			f.t.Errorf("partition %d was fetched up to %d after %d", p.Partition, p.Offset, f.next[p.Partition])
		}
	}
	for _, c := range b.Changes {
		p, o := c.Position.Partition, c.Position.Offset
		if !f.owned[p] {
			f.t.Errorf("change %d of partition %d, which is not owned", o, p)
		}
		if o < f.next[p] {
			f.t.Errorf("change %d of partition %d comes again: %d was next", o, p, f.next[p])
		}
		if prev, ok := last[p]; ok && o <= prev {
			f.t.Errorf("change %d of partition %d comes after %d", o, p, prev)
		}
		if o >= fetched[p] {
			f.t.Errorf("change %d of partition %d is not covered by Fetched %d", o, p, fetched[p])
		}
		last[p] = o
		if c.Raw == nil || c.Time.IsZero() || c.Size < len(c.Raw.Key)+len(c.Raw.Value) || c.Version != stream.Version(0, o) {
			f.t.Errorf("a field is not set: %+v", c)
		}
	}
	for p, o := range fetched {
		f.next[p] = o
	}
	for _, e := range b.Ends {
		if !f.owned[e.Partition] {
			f.t.Errorf("end of partition %d, which is not owned", e.Partition)
		}
		if e.At.IsZero() || e.At.After(time.Now()) || e.At.Before(f.ends[e.Partition].At) {
			f.t.Errorf("end of partition %d was observed at %v", e.Partition, e.At)
		}
		f.ends[e.Partition] = e
	}
	f.changes = append(f.changes, b.Changes...)
	return b, nil
}

// until calls Next until a condition holds.
func (f *follower) until(what string, done func() bool) {
	f.t.Helper()
	ctx := within(f.t)
	for !done() {
		if _, err := f.step(ctx); err != nil {
			f.t.Fatalf("waiting for %s: %v; %d changes, next %v, ends %v", what, err, len(f.changes), f.next, f.ends)
		}
	}
}

// caughtUp reads everything that is in the log now.
func (f *follower) caughtUp(l stream.Log) {
	f.t.Helper()
	ends, err := l.Ends(within(f.t))
	if err != nil {
		f.t.Fatal(err)
	}
	f.until("the end", func() bool {
		for _, e := range ends {
			if f.next[e.Partition] < e.Offset {
				return false
			}
		}
		return true
	})
}

// documents folds what was seen into the text of each live document.
func (f *follower) documents() map[string]string {
	docs := map[string]string{}
	for _, c := range f.changes {
		switch c.Kind {
		case stream.Upsert:
			docs[c.Key()] = c.Document.Text
		case stream.Delete:
			delete(docs, c.Key())
		}
	}
	return docs
}

func testOrder(t *testing.T, h Harness) {
	p := h.Connect(t)
	id, err := p.Log.Identity(within(t))
	if err != nil || id.ID == "" || id.Topic == "" || id.Partitions < 2 {
		t.Fatalf("identity %+v, %v; the suite needs two partitions or more", id, err)
	}
	f := follow(t, p.Log, stream.From{})
	b, err := f.step(within(t))
	if err != nil || len(b.Assigned) != int(id.Partitions) {
		t.Fatalf("the first batch assigns %v, %v; want all %d partitions", b.Assigned, err, id.Partitions)
	}
	const documents, versions = 40, 12
	at := map[stream.Position]string{}
	for v := range versions {
		var changes []stream.Change
		for d := range documents {
			c := upsert(fmt.Sprintf("doc-%d", d), strconv.Itoa(v))
			c.Backfill = v == 0
			changes = append(changes, c)
		}
		before := time.Now().Add(-time.Second)
		r := appendTo(t, p.Log, changes...)
		if r.Identity != id.ID || len(r.Positions) != len(changes) {
			t.Fatalf("receipt %+v", r)
		}
		for i, pos := range r.Positions {
			if at[pos] != "" {
				t.Errorf("position %v was given twice", pos)
			}
			at[pos] = changes[i].ID + "=" + changes[i].Document.Text
		}
		if _, single, err := stream.ParseToken(r.Token(), id.ID); err != nil || single {
			t.Errorf("token: %v, %v", single, err)
		}
		f.until("a round", func() bool { return len(f.changes) >= (v+1)*documents })
		if last := f.changes[len(f.changes)-1].Time; last.Before(before) || last.After(time.Now().Add(time.Second)) {
			t.Errorf("a change entered the log at %v", last)
		}
	}
	if len(f.changes) != documents*versions {
		t.Errorf("%d changes, want %d", len(f.changes), documents*versions)
	}
	partition, version, used := map[string]int32{}, map[string]int{}, map[int32]bool{}
	for _, c := range f.changes {
		if c.Kind != stream.Upsert || c.ID+"="+c.Document.Text != at[c.Position] {
			t.Fatalf("%v %s at %v, the receipt says %s", c.Kind, c.ID, c.Position, at[c.Position])
		}
		if before, ok := partition[c.ID]; ok && before != c.Position.Partition {
			t.Errorf("%s is in partitions %d and %d", c.ID, before, c.Position.Partition)
		}
		partition[c.ID], used[c.Position.Partition] = c.Position.Partition, true
		if strconv.Itoa(version[c.ID]) != c.Document.Text || c.Backfill != (version[c.ID] == 0) {
			t.Errorf("%s: got version %s, backfill %v; want version %d", c.ID, c.Document.Text, c.Backfill, version[c.ID])
		}
		version[c.ID]++
	}
	if len(used) != int(id.Partitions) {
		t.Errorf("only the partitions %v were used", used)
	}
	if r, err := p.Log.Append(within(t)); err != nil || len(r.Positions) != 0 {
		t.Errorf("appending nothing: %v, %v", r, err)
	}

	// Whoever wants no history comes just as far.
	fresh := follow(t, p.Log, stream.From{Fresh: true})
	fresh.until("what is no history", func() bool { return len(fresh.changes) >= documents*(versions-1) })
	if n := len(fresh.changes); n != documents*(versions-1) {
		t.Errorf("%d changes without history, want %d", n, documents*(versions-1))
	}
	if i := slices.IndexFunc(fresh.changes, func(c stream.Change) bool { return c.Backfill }); i >= 0 {
		t.Errorf("%v is history", fresh.changes[i].Position)
	}
	appendTo(t, p.Log, stream.Change{Kind: stream.Delete, ID: "doc-0", Backfill: true}, stream.Change{Kind: stream.Access, ID: "doc-1", ACL: []string{"a"}, Backfill: true})
	ends, err := p.Log.Ends(within(t))
	if err != nil {
		t.Fatal(err)
	}
	fresh.until("the end, behind history", func() bool {
		return !slices.ContainsFunc(ends, func(e stream.End) bool { return fresh.next[e.Partition] < e.Offset })
	})
	if more := fresh.changes[documents*(versions-1):]; len(more) != 1 || more[0].Kind != stream.Access || !more[0].Backfill {
		t.Errorf("of history %+v was read, want the change of access alone", more)
	}
}

func testKinds(t *testing.T, h Harness) {
	p := h.Connect(t)
	when := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	sent := []stream.Change{
		{Kind: stream.Upsert, ID: "full", Tenant: "t", Document: &stream.Document{Text: "é\x00\n\"", ContentType: stream.TextHTML, Title: "T", URL: "u",
			UpdatedAt: when, Metadata: map[string]any{"s": "x", "n": 1.5, "b": true, "l": []string{"a"}}, Tenant: "t", ACL: []string{"p"}}},
		upsert("empty", ""),
		{Kind: stream.Upsert, ID: "nobody", Document: &stream.Document{Text: "x", ACL: []string{}}},
		{Kind: stream.Delete, ID: "full", Tenant: "t"},
		{Kind: stream.Delete, ID: "never there"},
		{Kind: stream.Access, ID: "full", Tenant: "t", ACL: []string{"q", "r"}},
		{Kind: stream.Access, ID: "full", Tenant: "t", ACL: []string{}},
		{Kind: stream.Access, ID: "full", Tenant: "t"},
	}
	receipt := appendTo(t, p.Log, sent...)
	f := follow(t, p.Log, stream.From{})
	f.caughtUp(p.Log)
	got := map[stream.Position]stream.Change{}
	for _, c := range f.changes {
		got[c.Position] = c
	}
	for i, want := range sent {
		c := got[receipt.Positions[i]]
		if c.Kind != want.Kind || c.Tenant != want.Tenant || c.ID != want.ID || !reflect.DeepEqual(c.Document, want.Document) || !reflect.DeepEqual(c.ACL, want.ACL) || c.Problem != nil {
			t.Errorf("got %+v %+v, want %+v %+v", c, c.Document, want, want.Document)
		}
		if want.ID == "full" && c.Position.Partition != receipt.Positions[0].Partition {
			t.Errorf("%v is not in its document's partition", want.Kind)
		}
	}
	for _, c := range []stream.Change{
		{Kind: stream.Delete},
		{Kind: stream.Upsert, ID: "x"},
		{Kind: stream.Upsert, ID: "x", Document: &stream.Document{Text: "\xff"}},
		{Kind: stream.Upsert, ID: "x", Document: &stream.Document{Metadata: map[string]any{"k": 1}}},
		{Kind: stream.Invalid, ID: "x"},
	} {
		var problem *stream.Problem
		if _, err := p.Log.Append(within(t), c); !errors.As(err, &problem) {
			t.Errorf("appending %+v: %v, want a problem", c, err)
		}
		if _, err := p.Log.Append(within(t), upsert("good", ""), c); !errors.As(err, &problem) {
			t.Errorf("appending %+v after a good one: %v, want a problem", c, err)
		}
	}
}

func testBig(t *testing.T, h Harness) {
	p := h.Connect(t)
	n := h.MaxDocumentBytes
	noise := make([]byte, n)
	for i := range noise {
		noise[i] = byte('0' + rand.IntN(75))
	}
	want := map[string]string{
		"plain":   strings.Repeat("x", n),
		"escaped": strings.Repeat("\n", n),
		"noise":   string(noise),
	}
	for id, text := range want {
		appendTo(t, p.Log, upsert(id, text))
	}
	many := []stream.Change{}
	for i := range 12 {
		id := fmt.Sprint("many-", i)
		want[id] = string(noise[i:])
		many = append(many, upsert(id, want[id]))
	}
	appendTo(t, p.Log, many...)
	var problem *stream.Problem
	if _, err := p.Log.Append(within(t), upsert("over", strings.Repeat("x", n+1))); !errors.As(err, &problem) || problem.Code != stream.CodeDocumentTooLarge {
		t.Errorf("a text over the limit: %v", err)
	}
	h.Produce(t, Record{Key: []byte("over"), Value: []byte(`{"text":"` + strings.Repeat("x", n+1) + `"}`)})
	f := follow(t, p.Log, stream.From{})
	f.caughtUp(p.Log)
	invalid := 0
	for _, c := range f.changes {
		if c.Kind == stream.Invalid {
			if invalid++; c.Problem.Code != stream.CodeDocumentTooLarge || len(c.Raw.Value) < n {
				t.Errorf("the over-long record has problem %v and %d bytes", c.Problem, len(c.Raw.Value))
			}
		}
	}
	if got := f.documents(); invalid != 1 || !maps.Equal(got, want) {
		t.Errorf("%d invalid, %d documents; want 1 and %d equal ones", invalid, len(got), len(want))
	}
}

func testPoison(t *testing.T, h Harness) {
	p := h.Connect(t)
	// A record without a key is not among them: a compacted topic does not take it.
	poison := []struct {
		code       string
		key, value string
	}{
		{stream.CodeIDInvalid, "", `{"text":"x"}`},
		{stream.CodeIDInvalid, strings.Repeat("k", 1025), `{"text":"x"}`},
		{stream.CodeIDInvalid, "a\tb", `{"text":"x"}`},
		{stream.CodeIDInvalid, "\xff", `{"text":"x"}`},
		{stream.CodeIDInvalid, "\x1fid", `{"text":"x"}`},
		{stream.CodeNotADocument, "p1", ``},
		{stream.CodeNotADocument, "p2", `{"text":`},
		{stream.CodeNotADocument, "p3", `[1]`},
		{stream.CodeNotADocument, "p4", `{"title":"x"}`},
		{stream.CodeNotADocument, "p5", "\x00\x01\x02"},
		{stream.CodeUnknownField, "p6", `{"text":"x","colour":"red"}`},
		{stream.CodeWrongType, "p7", `{"text":1}`},
		{stream.CodeWrongType, "p8", `{"text":"x","metadata":{"k":{}}}`},
		{stream.CodeInvalidUTF8, "p9", "{\"text\":\"\xff\"}"},
		{stream.CodeInvalidUTF8, "p10", `{"text":"\ud800"}`},
		{stream.CodeTenantMismatch, "p11", `{"text":"x","tenant":"t"}`},
		{stream.CodeDocumentTooLarge, "p12", `{"text":"` + strings.Repeat("x", h.MaxDocumentBytes+1) + `"}`},
		{stream.CodeNotADocument, "p13\x1eacl", `{}`},
		{stream.CodeWrongType, "p14\x1eacl", `{"acl":"x"}`},
	}
	header := []stream.Header{{Key: "trace", Value: []byte("\x00\xff")}, {Key: "trace", Value: []byte("again")}}
	for i, r := range poison {
		h.Produce(t, Record{Key: []byte(r.key), Value: []byte(r.value), Headers: header}, Record{Key: fmt.Append(nil, "good-", i), Value: []byte(`{"text":"fine"}`)})
	}
	f := follow(t, p.Log, stream.From{})
	f.caughtUp(p.Log)
	if got := f.documents(); len(got) != len(poison) {
		t.Errorf("%d good documents came through, want %d", len(got), len(poison))
	}
	invalid := map[string]stream.Change{}
	for _, c := range f.changes {
		if c.Kind == stream.Invalid {
			invalid[string(c.Raw.Key)] = c
		}
	}
	for _, r := range poison {
		c, ok := invalid[r.key]
		if !ok {
			t.Errorf("%.20q was not reported", r.key)
			continue
		}
		if c.Problem.Code != r.code || c.Problem.Detail == "" {
			t.Errorf("%.20q %.40q: %v, want %s", r.key, r.value, c.Problem, r.code)
		}
		if string(c.Raw.Value) != r.value || !reflect.DeepEqual(c.Raw.Headers, header) || c.Raw.Topic == "" || c.Document != nil {
			t.Errorf("%.20q: the original is not kept: %+v", r.key, c.Raw)
		}
	}
	if len(invalid) != len(poison) {
		t.Errorf("%d are invalid, want %d", len(invalid), len(poison))
	}
}

func testPauseResume(t *testing.T, h Harness) {
	p := h.Connect(t)
	var changes []stream.Change
	for i := range 60 {
		changes = append(changes, upsert(fmt.Sprint(i), "first"))
	}
	appendTo(t, p.Log, changes...)
	f := follow(t, p.Log, stream.From{})
	f.caughtUp(p.Log)
	n := len(f.changes)
	const paused = int32(0)
	f.src.Pause(paused)
	receipt := appendTo(t, p.Log, changes...)
	want := 0
	var end int64
	for _, pos := range receipt.Positions {
		if pos.Partition == paused {
			end = max(end, pos.Offset+1)
		} else {
			want++
		}
	}
	if want == len(changes) {
		t.Fatal("no document is in the paused partition")
	}
	f.until("the other partitions and the end of the paused one", func() bool {
		return len(f.changes)-n >= want && f.ends[paused].Offset >= end
	})
	at := f.ends[paused].At
	f.until("a few more ends", func() bool { return f.ends[paused].At.Sub(at) > 700*time.Millisecond })
	for _, c := range f.changes[n:] {
		if c.Position.Partition == paused {
			t.Fatalf("change %v of a paused partition", c.Position)
		}
	}
	if f.next[paused] >= end {
		t.Error("a paused partition was reported as fetched")
	}
	f.src.Resume(paused)
	f.caughtUp(p.Log)
	if got := len(f.changes) - n; got != len(changes) {
		t.Errorf("%d changes after resuming, want %d", got, len(changes))
	}
}

func testPositions(t *testing.T, h Harness) {
	p := h.Connect(t)
	var changes []stream.Change
	for i := range 100 {
		changes = append(changes, upsert(fmt.Sprint(i), "x"))
	}
	appendTo(t, p.Log, changes...)
	f := follow(t, p.Log, stream.From{})
	f.caughtUp(p.Log)
	if err := f.src.Commit(within(t), stream.Position{Partition: 0, Offset: 1}); err != nil {
		t.Errorf("commit without a group: %v", err)
	}
	from := map[int32]int64{}
	want := 0
	for part, next := range f.next {
		if part > 0 {
			from[part] = next - 2
			want += 2
		} else {
			want += int(next)
		}
	}
	q := h.Connect(t)
	g := follow(t, q.Log, stream.From{Positions: from})
	g.caughtUp(q.Log)
	if len(g.changes) != want {
		t.Errorf("%d changes from %v, want %d", len(g.changes), from, want)
	}
	for _, c := range g.changes {
		if c.Position.Offset < from[c.Position.Partition] {
			t.Errorf("change %v is before %v", c.Position, from)
		}
	}
	// At the very end: nothing but what is new.
	last := follow(t, q.Log, stream.From{Positions: f.next})
	appendTo(t, p.Log, upsert("new", "y"))
	last.caughtUp(q.Log)
	if len(last.changes) != 1 || last.changes[0].ID != "new" {
		t.Errorf("from the end: %v", last.changes)
	}
	beyond := maps.Clone(f.next)
	beyond[1] += 1000
	if _, err := q.Log.Open(within(t), stream.From{Positions: beyond}); !errors.Is(err, stream.ErrPositionUnknown) {
		t.Errorf("a position beyond the end: %v", err)
	}
}

func testSince(t *testing.T, h Harness) {
	p := h.Connect(t)
	base := time.Now().Add(-10 * time.Hour).Truncate(time.Millisecond)
	for i := range 10 {
		var rs []Record
		for d := range 20 {
			rs = append(rs, Record{Key: fmt.Append(nil, d), Value: fmt.Appendf(nil, `{"text":"%d"}`, i), Time: base.Add(time.Duration(i) * time.Hour)})
		}
		h.Produce(t, rs...)
	}
	f := follow(t, p.Log, stream.From{Since: base.Add(6 * time.Hour)})
	f.caughtUp(p.Log)
	if len(f.changes) != 4*20 {
		t.Errorf("%d changes since the seventh hour, want %d", len(f.changes), 4*20)
	}
	for _, c := range f.changes {
		if c.Time.Before(base.Add(6 * time.Hour)) {
			t.Errorf("change %v entered at %v", c.Position, c.Time)
		}
	}
	future := follow(t, p.Log, stream.From{Since: time.Now().Add(time.Hour)})
	future.caughtUp(p.Log)
	if len(future.changes) != 0 {
		t.Errorf("%d changes from the future", len(future.changes))
	}
}

func testEnds(t *testing.T, h Harness) {
	p := h.Connect(t)
	f := follow(t, p.Log, stream.From{})
	for i := range 5 {
		receipt := appendTo(t, p.Log, upsert(fmt.Sprint(i), "x"))
		pos := receipt.Positions[0]
		ends, err := p.Log.Ends(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(ends, func(e stream.End) bool { return e.Partition == pos.Partition && e.Offset > pos.Offset }) {
			t.Errorf("ends %v do not cover %v, which was acknowledged before", ends, pos)
		}
		for part := range f.ends {
			delete(f.ends, part)
		}
		acknowledged := time.Now()
		f.until("an end observed later", func() bool { return f.ends[pos.Partition].At.After(acknowledged) })
		if f.ends[pos.Partition].Offset <= pos.Offset {
			t.Errorf("the end %+v does not cover %v, which was acknowledged before", f.ends[pos.Partition], pos)
		}
	}
	// An idle source goes on saying so.
	f.caughtUp(p.Log)
	began := time.Now()
	ticks := 0
	ctx := within(t)
	for time.Since(began) < 600*time.Millisecond {
		b, err := f.step(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Ends) > 0 {
			ticks++
		}
	}
	if ticks < 2 {
		t.Errorf("%d observations of the ends in 600 ms", ticks)
	}
}

func testInterrupted(t *testing.T, h Harness) {
	p := h.Connect(t)
	f := follow(t, p.Log, stream.From{})
	f.caughtUp(p.Log)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			if _, err := p.Log.Append(context.Background(), upsert(fmt.Sprint(i), "x")); err != nil {
				t.Error(err)
			}
		}
	}()
	for interrupted := 0; interrupted < 50; interrupted++ {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(3000))*time.Microsecond)
		if _, err := f.step(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
	}
	<-done
	f.caughtUp(p.Log)
	if len(f.changes) != 200 {
		t.Errorf("%d changes, want 200", len(f.changes))
	}
	closed := make(chan error, 1)
	go func() {
		for {
			if _, err := f.src.Next(context.Background()); err != nil {
				closed <- err
				return
			}
		}
	}()
	f.src.Close()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Error("Next goes on after Close")
	}
	if _, err := f.src.Next(context.Background()); err == nil {
		t.Error("Next works after Close")
	}
}

// member runs a member of a group that handles each change at once and commits it.
type member struct {
	name string
	f    *follower
	stop context.CancelFunc
	done chan struct{}
}

// ledger is what all members did, in order.
type ledger struct {
	mu     sync.Mutex
	owner  map[int32]string
	seen   map[string]int
	wrong  []string
	news   chan struct{}
	counts map[string]int // partitions by member
}

func (l *ledger) record(name string, b stream.Batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range slices.Concat(b.Revoked, b.Lost) {
		if l.owner[p] == name {
			delete(l.owner, p)
		}
	}
	for _, p := range b.Assigned {
		if other := l.owner[p.Partition]; other != "" {
			l.wrong = append(l.wrong, fmt.Sprintf("partition %d was assigned to %s before %s gave it away", p.Partition, name, other))
		}
		l.owner[p.Partition] = name
	}
	for _, c := range b.Changes {
		if l.owner[c.Position.Partition] != name {
			l.wrong = append(l.wrong, fmt.Sprintf("%s got %v, which it does not own", name, c.Position))
		}
		l.seen[c.ID]++
	}
	l.counts = map[string]int{}
	for _, o := range l.owner {
		l.counts[o]++
	}
	select {
	case l.news <- struct{}{}:
	default:
	}
}

func (l *ledger) until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		ok := done()
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-l.news:
		case <-deadline:
			t.Fatalf("no %s; partitions %v, %d documents seen", what, l.counts, len(l.seen))
		}
	}
}

func join(t *testing.T, name string, p Process, group string, l *ledger) *member {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	m := &member{name: name, f: follow(t, p.Log, stream.From{Group: group}), stop: stop, done: make(chan struct{})}
	t.Cleanup(func() { stop(); <-m.done })
	go func() {
		defer close(m.done)
		for {
			b, err := m.f.step(ctx)
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("%s: %v", name, err)
				}
				return
			}
			l.record(name, b)
			if err := m.f.src.Commit(context.Background(), b.Fetched...); err != nil {
				t.Errorf("%s: commit: %v", name, err)
			}
		}
	}()
	return m
}

func testGroupRebalance(t *testing.T, h Harness) {
	a, b := h.Connect(t), h.Connect(t)
	id, err := a.Log.Identity(within(t))
	if err != nil {
		t.Fatal(err)
	}
	group := "liverag.test-" + id.ID
	l := &ledger{owner: map[int32]string{}, seen: map[string]int{}, news: make(chan struct{}, 1)}
	total := 0
	produce := func() {
		var changes []stream.Change
		for range 40 {
			changes = append(changes, upsert(fmt.Sprint("doc-", total), "x"))
			total++
		}
		appendTo(t, a.Log, changes...)
	}
	produce()
	ma := join(t, "a", a, group, l)
	l.until(t, "assignment", func() bool { return l.counts["a"] == int(id.Partitions) && len(l.seen) == total })
	mb := join(t, "b", b, group, l)
	produce()
	l.until(t, "rebalance", func() bool {
		return l.counts["a"] > 0 && l.counts["b"] > 0 && l.counts["a"]+l.counts["b"] == int(id.Partitions)
	})
	produce()
	l.until(t, "delivery to both", func() bool { return len(l.seen) == total })
	ma.stop()
	<-ma.done
	l.mu.Lock()
	for p, o := range l.owner {
		if o == "a" {
			delete(l.owner, p)
		}
	}
	l.mu.Unlock()
	ma.f.src.Close()
	l.until(t, "takeover", func() bool { return l.counts["b"] == int(id.Partitions) })
	produce()
	l.until(t, "delivery to the one that is left", func() bool { return len(l.seen) == total })
	mb.stop()
	<-mb.done
	mb.f.src.Close()
	for doc, n := range l.seen {
		if n != 1 {
			t.Errorf("%s was handled %d times", doc, n)
		}
	}
	for _, w := range l.wrong {
		t.Error(w)
	}
	// The place is kept: a third member begins where the others ended.
	c := h.Connect(t)
	third := follow(t, c.Log, stream.From{Group: group})
	third.caughtUp(c.Log)
	if len(third.changes) != 0 {
		t.Errorf("%d changes came again", len(third.changes))
	}
	if err := third.src.Commit(within(t), stream.Position{Partition: 99, Offset: 1}); err != nil {
		t.Errorf("committing what is not owned: %v", err)
	}
	// Whoever is not a member can tell how far the group has come.
	ends, err := a.Log.Ends(within(t))
	if err != nil {
		t.Fatal(err)
	}
	committed, err := a.Groups.Committed(within(t), group)
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range ends {
		if committed[end.Partition] != end.Offset {
			t.Errorf("the group has committed %v, the ends are %v", committed, ends)
			break
		}
	}
	if committed, err := a.Groups.Committed(within(t), group+"-nobody"); err != nil || len(committed) > 0 {
		t.Errorf("a group that nobody joined has committed %v, %v", committed, err)
	}
}

// stall makes a member that has read everything stop calling Next until another one, the heir, has got its partitions
// and has read and committed one document more. It returns what a zombie would commit: what it had read, less one.
func stall(t *testing.T, h Harness) (group string, zombie *follower, stale []stream.Position, heir *member) {
	a, b := h.Connect(t), h.Connect(t)
	id, err := a.Log.Identity(within(t))
	if err != nil {
		t.Fatal(err)
	}
	group = "liverag.test-" + id.ID
	var changes []stream.Change
	for i := range 40 {
		changes = append(changes, upsert(fmt.Sprint(i), "x"))
	}
	appendTo(t, a.Log, changes...)
	zombie = follow(t, a.Log, stream.From{Group: group})
	zombie.until("all changes", func() bool { return len(zombie.changes) == len(changes) })
	for p, next := range zombie.next {
		stale = append(stale, stream.Position{Partition: p, Offset: next - 1})
	}
	l := &ledger{owner: map[int32]string{}, seen: map[string]int{}, news: make(chan struct{}, 1)}
	heir = join(t, "b", b, group, l)
	appendTo(t, b.Log, upsert("later", "x"))
	l.until(t, "takeover from the zombie", func() bool {
		return l.counts["b"] == int(id.Partitions) && len(l.seen) == len(changes)+1
	})
	return group, zombie, stale, heir
}

func (m *member) leave() {
	m.stop()
	<-m.done
	m.f.src.Close()
}

// testGroupZombie: a member stalls while it works on a batch, loses its partitions, wakes up and commits.
func testGroupZombie(t *testing.T, h Harness) {
	group, zombie, stale, heir := stall(t, h)
	if err := zombie.src.Commit(within(t), stale...); err != nil {
		t.Errorf("a zombie's commit must be refused silently: %v", err)
	}
	gave := map[int32]bool{}
	ctx := within(t)
	for len(gave) < len(stale) {
		batch, err := zombie.step(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(batch.Revoked) > 0 {
			t.Errorf("the zombie is asked to finish %v, which belong to somebody else already", batch.Revoked)
		}
		for _, p := range slices.Concat(batch.Revoked, batch.Lost) {
			gave[p] = true
		}
		if err := zombie.src.Commit(within(t), stale...); err != nil {
			t.Errorf("a zombie's further commit: %v", err)
		}
	}
	zombie.src.Close()
	heir.leave()
	p := h.Connect(t)
	third := follow(t, p.Log, stream.From{Group: group})
	third.caughtUp(p.Log)
	for _, c := range third.changes {
		t.Errorf("change %v came again: the zombie rewound the group", c.Position)
	}
}

// testGroupZombieReturns: while a member stalls another one takes over, goes on and leaves. The first must go on from there.
func testGroupZombieReturns(t *testing.T, h Harness) {
	group, zombie, _, heir := stall(t, h)
	heir.leave()
	p := h.Connect(t)
	receipt := appendTo(t, p.Log, upsert("last", "x"))
	last := receipt.Positions[0]
	ctx := within(t)
	n := len(zombie.changes)
	lost := map[int32]bool{}
	for back := false; !back; {
		batch, err := zombie.step(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range batch.Lost {
			lost[p] = true
		}
		for _, c := range batch.Changes {
			back = back || c.Position == last && lost[last.Partition]
		}
		if len(lost) > 0 {
			if err := zombie.src.Commit(ctx, batch.Fetched...); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range zombie.changes[n:] {
		if c.ID != "later" && c.ID != "last" {
			t.Errorf("change %v came again", c.Position)
		}
	}
	zombie.src.Close()
	third := follow(t, p.Log, stream.From{Group: group})
	third.caughtUp(p.Log)
	for _, c := range third.changes {
		t.Errorf("change %v came again: the commit of the one that came back was refused", c.Position)
	}
}

func testTransactions(t *testing.T, h Harness) {
	p := h.Connect(t)
	record := func(kind string, i int) Record {
		return Record{Key: fmt.Appendf(nil, "%s-%d", kind, i), Value: []byte(`{"text":"x"}`)}
	}
	batch := func(kind string) (rs []Record) {
		for i := range 20 {
			rs = append(rs, record(kind, i))
		}
		return rs
	}
	f := follow(t, p.Log, stream.From{})
	h.Transact(t, false, batch("aborted")...)
	f.caughtUp(p.Log)
	h.Transact(t, true, batch("committed")...)
	h.Produce(t, batch("plain")...)
	h.Transact(t, false, batch("aborted-again")...)
	f.caughtUp(p.Log)
	check := func(f *follower) {
		t.Helper()
		n := 0
		for _, c := range f.changes {
			if strings.HasPrefix(c.ID, "aborted") {
				t.Errorf("%s was delivered", c.ID)
			}
			n++
		}
		if n != 40 {
			t.Errorf("%d changes, want 40", n)
		}
	}
	check(f)
	again := follow(t, p.Log, stream.From{})
	again.caughtUp(p.Log)
	check(again)
	tail := follow(t, p.Log, stream.From{Positions: f.next})
	tail.caughtUp(p.Log)
	if len(tail.changes) != 0 {
		t.Errorf("%d changes after the end", len(tail.changes))
	}
}

func testCompaction(t *testing.T, h Harness) {
	p := h.Connect(t)
	old := time.Now().Add(-30 * 24 * time.Hour)
	want := map[string]string{}
	const documents = 60
	for v := range 4 {
		for d := range documents {
			id := fmt.Sprintf("doc-%d", d)
			want[id] = strconv.Itoa(v)
			h.Produce(t, Record{Key: []byte(id), Value: fmt.Appendf(nil, `{"text":"%d"}`, v), Time: old.Add(time.Duration(v) * time.Minute)})
		}
	}
	positions := map[int32]int64{}
	f := follow(t, p.Log, stream.From{})
	f.caughtUp(p.Log)
	for part := range f.next {
		positions[part] = 1 // a place that compaction removes
	}
	deadline := time.Now().Add(patience)
	for round := 0; ; round++ {
		h.Compact(t)
		g := follow(t, p.Log, stream.From{})
		g.caughtUp(p.Log)
		got := g.documents()
		for id, text := range want {
			if got[id] != text {
				t.Fatalf("document %s is %q after a compaction, want %q: a live document that is 30 days old is gone", id, got[id], text)
			}
		}
		g.src.Close()
		superseded := 0
		for _, c := range g.changes {
			if want[c.ID] != "" && c.Document.Text != want[c.ID] {
				superseded++
			}
		}
		// The last batch of a partition is kept as it is.
		if superseded <= documents {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d superseded changes are still there", superseded)
		}
	}
	g := follow(t, p.Log, stream.From{Positions: positions})
	g.caughtUp(p.Log)
	if got := g.documents(); len(got) < documents {
		t.Errorf("from a place that is gone: %d documents, want %d", len(got), documents)
	}
	f.caughtUp(p.Log)
}

func testDeadLetters(t *testing.T, h Harness) {
	p := h.Connect(t)
	got, err := p.Letters(within(t), 10)
	if err != nil || len(got) != 0 {
		t.Fatalf("letters at first: %v, %v", got, err)
	}
	var sent []stream.DeadLetter
	for i := range 20 {
		sent = append(sent, stream.DeadLetter{
			Raw: &stream.Raw{Topic: "documents", Key: fmt.Append(nil, "key-", i), Value: []byte("\x00{broken"),
				Headers: []stream.Header{{Key: "a", Value: []byte{0xff}}, {Key: "a", Value: []byte("b")}}},
			Position: stream.Position{Partition: 3, Offset: int64(1000 + i)},
			Time:     time.Date(2026, 1, 2, 3, 4, 5, i, time.UTC),
			Problem:  stream.Problem{Code: stream.CodeNotADocument, Detail: "é: it is no document"},
			Attempts: i,
		})
	}
	sent[3].Raw.Value, sent[4].Raw.Key, sent[5].Raw.Headers = nil, nil, nil
	if err := p.DeadLetters.Send(within(t), sent[:15]...); err != nil {
		t.Fatal(err)
	}
	if err := p.DeadLetters.Send(within(t), sent[15:]...); err != nil {
		t.Fatal(err)
	}
	if err := p.DeadLetters.Send(within(t)); err != nil {
		t.Fatal(err)
	}
	other := h.Connect(t)
	if got, err = other.Letters(within(t), 100); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, sent) {
		t.Errorf("got %+v, want %+v", got, sent)
	}
	if got, err = other.Letters(within(t), 4); err != nil || !reflect.DeepEqual(got, sent[16:]) {
		t.Errorf("the youngest four: %+v, %v", got, err)
	}
}

func testRegister(t *testing.T, h Harness) {
	a, b := h.Connect(t).Register, h.Connect(t).Register
	ctx := within(t)
	if seq, value, err := a.Load(ctx); err != nil || seq != 0 || value != nil {
		t.Fatalf("at first: %d, %q, %v", seq, value, err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	if _, _, err := a.Wait(short, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for nothing: %v", err)
	}
	cancel()
	if err := a.CompareAndSet(ctx, 3, []byte("x")); !errors.Is(err, stream.ErrConflict) {
		t.Errorf("a sequence that is not there: %v", err)
	}
	for i := range int64(10) {
		value := fmt.Append(nil, "value ", i, " \x00\xff")
		waited := make(chan error, 1)
		go func() {
			seq, got, err := b.Wait(ctx, i)
			if err == nil && (seq != i+1 || !bytes.Equal(got, value)) {
				err = fmt.Errorf("waited for %d and got %d, %q", i+1, seq, got)
			}
			waited <- err
		}()
		set, other := a, b
		if i%2 == 1 {
			set, other = b, a
		}
		if err := set.CompareAndSet(ctx, i, value); err != nil {
			t.Fatal(err)
		}
		for _, r := range []stream.Register{set, other} {
			if seq, got, err := r.Load(ctx); err != nil || seq != i+1 || !bytes.Equal(got, value) {
				t.Fatalf("after setting %d: %d, %q, %v", i+1, seq, got, err)
			}
		}
		if err := <-waited; err != nil {
			t.Fatal(err)
		}
		if err := other.CompareAndSet(ctx, i, value); !errors.Is(err, stream.ErrConflict) {
			t.Errorf("an old sequence: %v", err)
		}
	}
	if seq, got, err := h.Connect(t).Register.Load(ctx); err != nil || seq != 10 || !bytes.HasPrefix(got, []byte("value 9")) {
		t.Errorf("a new process: %d, %q, %v", seq, got, err)
	}
	if seq, _, err := a.Wait(ctx, 4); err != nil || seq != 10 {
		t.Errorf("waiting for what is there: %d, %v", seq, err)
	}
}

// contend lets several processes add to a counter in the register, and checks that no addition is lost.
func contend(t *testing.T, h Harness, begin, setters, each int) int {
	ctx := within(t)
	var all sync.WaitGroup
	for s := range setters {
		r := h.Connect(t).Register
		all.Go(func() {
			for done := 0; done < each; {
				seq, value, err := r.Load(ctx)
				if err != nil {
					t.Errorf("setter %d: %v", s, err)
					return
				}
				n, _ := strconv.Atoi(string(value))
				if int64(n) != seq {
					t.Errorf("setter %d: the value %d does not belong to sequence %d", s, n, seq)
				}
				switch err := r.CompareAndSet(ctx, seq, []byte(strconv.Itoa(n+1))); {
				case err == nil:
					done++
				case !errors.Is(err, stream.ErrConflict):
					t.Errorf("setter %d: %v", s, err)
					return
				}
			}
		})
	}
	all.Wait()
	want := begin + setters*each
	if seq, value, err := h.Connect(t).Register.Load(ctx); err != nil || seq != int64(want) || string(value) != strconv.Itoa(want) {
		t.Errorf("in the end: %d, %q, %v; want %d", seq, value, err, want)
	}
	return want
}

func testRegisterConcurrent(t *testing.T, h Harness) { contend(t, h, 0, 4, 12) }

func testRegisterCompacted(t *testing.T, h Harness) {
	total := 0
	for range 3 {
		total = contend(t, h, total, 3, 4)
		h.Compact(t)
		ctx := within(t)
		r := h.Connect(t).Register
		if seq, value, err := r.Load(ctx); err != nil || seq != int64(total) || string(value) != strconv.Itoa(total) {
			t.Fatalf("after a compaction: %d, %q, %v; want %d", seq, value, err, total)
		}
	}
}

// NeedBrokers gives the addresses in KAFKA_BROKERS, or skips the test and says how not to. Where CI is true, it fails instead.
func NeedBrokers(t *testing.T) []string {
	t.Helper()
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		return strings.Split(brokers, ",")
	}
	const how = "KAFKA_BROKERS is not set: run `export KAFKA_BROKERS=$(.ci/kafka start /tmp/kafka)` first, and `.ci/kafka stop /tmp/kafka` afterwards"
	if os.Getenv("CI") == "true" {
		t.Fatal(how)
	}
	t.Skip(how)
	return nil
}
