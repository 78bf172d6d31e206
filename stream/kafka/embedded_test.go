package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func upsert(id, text string) stream.Change {
	return stream.Change{Kind: stream.Upsert, ID: id, Document: &stream.Document{Text: text}}
}

// readAll reads everything that is in the log now.
func readAll(t testing.TB, l *Log, from stream.From) []stream.Change {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	src, err := l.Open(ctx, from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	return drain(t, l, src)
}

func drain(t testing.TB, l *Log, src stream.Source) (changes []stream.Change) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ends, err := l.Ends(ctx)
	if err != nil {
		t.Fatal(err)
	}
	left := map[int32]int64{}
	for _, e := range ends {
		left[e.Partition] = e.Offset
	}
	for len(left) > 0 {
		b, err := src.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, b.Changes...)
		for _, p := range append(b.Assigned, b.Fetched...) {
			if end, ok := left[p.Partition]; ok && p.Offset >= end {
				delete(left, p.Partition)
			}
		}
	}
	return changes
}

func incompressible(n int) string {
	b := make([]byte, n)
	seed := uint64(n)*0x9e3779b97f4a7c15 + uint64(time.Now().UnixNano())
	for i := range b {
		seed ^= seed << 13
		seed ^= seed >> 7
		seed ^= seed << 17
		b[i] = 'A' + byte(seed>>33%58)
	}
	return strings.ReplaceAll(string(b), `\`, "x")
}

func TestLockedDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openEmbedded(t, EmbeddedConfig{Dir: dir})
	_, err := OpenEmbedded(EmbeddedConfig{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--data") {
		t.Errorf("a second process gets %v", err)
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	marker := func(text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "format.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	headless := t.TempDir()
	if err := os.Mkdir(filepath.Join(headless, "log"), 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		marker(`{"format":"liverag embedded log","version":7}`): "format version 7, this program knows version 1",
		marker(`{"format":"something else","version":1}`):       "is not the marker of an embedded log",
		marker(`nonsense`): "is not the marker of an embedded log",
		headless:           "format.json is missing beside a log",
	} {
		if e, err := OpenEmbedded(EmbeddedConfig{Dir: dir}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, %v; want %s", e, err, want)
		}
	}
	if _, err := OpenEmbedded(EmbeddedConfig{Dir: t.TempDir(), Listen: "0.0.0.0:0"}); err == nil || !strings.Contains(err.Error(), "no loopback address") {
		t.Errorf("listening everywhere: %v", err)
	}
}

func TestLogFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := openEmbedded(t, EmbeddedConfig{Dir: dir, MaxBytes: 1 << 20, Listen: "127.0.0.1:0"})
	l := openLog(t, Config{Embedded: e})
	ctx := t.Context()
	acknowledged := 0
	var full error
	for full == nil {
		if acknowledged > 500 {
			t.Fatal("the log never gets full")
		}
		if _, full = l.Append(ctx, upsert(fmt.Sprint(acknowledged%3), incompressible(20<<10))); full == nil {
			acknowledged++
		}
	}
	if !errors.Is(full, stream.ErrLogFull) || !strings.Contains(full.Error(), "log.max_bytes") || !strings.Contains(full.Error(), dir) {
		t.Errorf("got %v", full)
	}
	size, limit := e.Size()
	if size > limit || size < limit/2 || acknowledged < 20 {
		t.Errorf("full at %d of %d bytes, after %d documents", size, limit, acknowledged)
	}
	raw, err := kgo.NewClient(kgo.SeedBrokers(e.Brokers()...), kgo.DefaultProduceTopic("documents"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.ProduceSync(ctx, kgo.KeySliceRecord([]byte("other"), []byte(`{"text":"`+incompressible(40<<10)+`"}`))).FirstErr(); !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("another program gets %v", err)
	}
	if err := raw.ProduceSync(ctx, kgo.KeySliceRecord([]byte("0"), nil)).FirstErr(); err != nil {
		t.Errorf("another program's tombstone: %v", err)
	}
	if _, err := l.Append(ctx, stream.Change{Kind: stream.Delete, ID: "1"}, stream.Change{Kind: stream.Access, ID: "2", ACL: []string{}}); err != nil {
		t.Errorf("a deletion in a full log: %v", err)
	}
	if err := l.Send(ctx, stream.DeadLetter{Raw: &stream.Raw{Key: []byte("k")}}); err != nil {
		t.Errorf("a dead letter in a full log: %v", err)
	}
	if err := l.Control().CompareAndSet(ctx, 0, []byte("x")); err != nil {
		t.Errorf("the register in a full log: %v", err)
	}
	if got := len(readAll(t, l, stream.From{})); got != acknowledged+3 {
		t.Errorf("%d changes, want %d: nothing may be dropped", got, acknowledged+3)
	}
	l.Close()
	e.Close()

	e = openEmbedded(t, EmbeddedConfig{Dir: dir, MaxBytes: 1 << 20})
	l = openLog(t, Config{Embedded: e})
	if after, _ := e.Size(); after > size/2 {
		t.Errorf("%d bytes after a restart, which compacts: %d before", after, size)
	}
	if _, err := l.Append(ctx, upsert("again", "x")); err != nil {
		t.Errorf("after deleting and restarting: %v", err)
	}
	last := map[string]stream.Change{}
	for _, c := range readAll(t, l, stream.From{}) {
		if c.Kind != stream.Access {
			last[c.ID] = c
		}
	}
	if last["0"].Kind != stream.Delete || last["1"].Kind != stream.Delete || last["2"].Kind != stream.Upsert || last["again"].Kind != stream.Upsert {
		t.Errorf("after a compaction: %v", last)
	}
}

func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir, ctx := t.TempDir(), t.Context()
	var left atomic.Uint64
	left.Store(1 << 30)
	free := func(string) (uint64, error) { return left.Load(), nil }
	e := openEmbedded(t, EmbeddedConfig{Dir: dir, Listen: "127.0.0.1:0", free: free})
	l := openLog(t, Config{Embedded: e})
	raw, err := kgo.NewClient(kgo.SeedBrokers(e.Brokers()...), kgo.DefaultProduceTopic("documents"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	kept := 0
	write := func(at uint64, change stream.Change, want error) {
		t.Helper()
		left.Store(at)
		_, err := l.Append(ctx, change)
		if !errors.Is(err, want) || want != nil && !strings.Contains(err.Error(), dir) {
			t.Errorf("with %d bytes left, %s of %s: %v", at, change.Kind, change.ID, err)
		}
		if err == nil {
			kept++
		}
	}
	gone := stream.Change{Kind: stream.Delete, ID: "a"}
	write(1<<30, upsert("a", incompressible(1<<20)), nil)
	write(17<<20, upsert("b", incompressible(2<<20)), stream.ErrDiskFull)
	write(17<<20, upsert("c", "small"), nil)
	write(15<<20, upsert("c", "small"), stream.ErrDiskFull)
	write(15<<20, gone, nil)
	write(3<<20, gone, stream.ErrDiskFull)
	if err := raw.ProduceSync(ctx, kgo.KeySliceRecord([]byte("other"), []byte(`{"text":"x"}`))).FirstErr(); !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("another program gets %v", err)
	}
	if err := e.refused(kerr.UnknownServerError, 10); !errors.Is(err, stream.ErrDiskFull) {
		t.Errorf("a write that failed on a full disk is %v", err)
	}
	left.Store(1 << 30)
	if err := e.refused(kerr.UnknownServerError, 10); !errors.Is(err, stream.ErrUnavailable) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a write that failed otherwise is %v", err)
	}
	write(1<<30, upsert("b", "there is room again"), nil)
	if got := len(readAll(t, l, stream.From{})); got != kept {
		t.Errorf("%d changes, want the %d that were acknowledged", got, kept)
	}
	if err := l.CompactNext(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	e.Close()

	// A compaction wants room for a copy. Without it, the log is opened as it is.
	left.Store(17 << 20)
	e = openEmbedded(t, EmbeddedConfig{Dir: dir, free: free})
	l = openLog(t, Config{Embedded: e})
	if got := len(readAll(t, l, stream.From{})); got != kept {
		t.Errorf("after a start without room to compact: %d changes, want %d", got, kept)
	}
	l.Close()
	e.Close()
	left.Store(1 << 30)
	e = openEmbedded(t, EmbeddedConfig{Dir: dir, free: free})
	l = openLog(t, Config{Embedded: e})
	if got := len(readAll(t, l, stream.From{})); got >= kept || e.format.CompactNext {
		t.Errorf("after a start with room to compact: %d changes of %d, compacting again: %v", got, kept, e.format.CompactNext)
	}
}

// TestFailedCompaction: the log stays as it was, and is opened.
func TestFailedCompaction(t *testing.T) {
	t.Parallel()
	dir, ctx := t.TempDir(), t.Context()
	e := openEmbedded(t, EmbeddedConfig{Dir: dir})
	l := openLog(t, Config{Embedded: e})
	for range 3 {
		if _, err := l.Append(ctx, upsert("a", "text")); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.CompactNext(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	e.Close()
	if err := os.Mkdir(filepath.Join(dir, "format.json.tmp"), 0o755); err != nil { // so that noting the new size fails
		t.Fatal(err)
	}
	e = openEmbedded(t, EmbeddedConfig{Dir: dir})
	l = openLog(t, Config{Embedded: e})
	if got := len(readAll(t, l, stream.From{})); got != 3 {
		t.Errorf("%d changes after a compaction that failed, want 3", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "log.compact")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its copy is still there: %v", err)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx := t.Context()
	var before stream.Identity
	var want []stream.Change
	var positions map[int32]int64
	for round := range 3 {
		e := openEmbedded(t, EmbeddedConfig{Dir: dir})
		l := openLog(t, Config{Embedded: e, SessionTimeout: time.Second})
		id, err := l.Identity(ctx)
		if err != nil || round > 0 && id != before {
			t.Fatalf("identity %v, %v; before the restart %v", id, err, before)
		}
		before = id
		if seq, value, err := l.Control().Load(ctx); err != nil || seq != int64(round) || round > 0 && string(value) != fmt.Sprint(round) {
			t.Errorf("round %d: register %d %q, %v", round, seq, value, err)
		}
		if err := l.Control().CompareAndSet(ctx, int64(round), fmt.Append(nil, round+1)); err != nil {
			t.Error(err)
		}
		if round > 0 {
			if got := readAll(t, l, stream.From{Positions: positions}); len(got) != 0 {
				t.Errorf("round %d: %d changes after what was applied", round, len(got))
			}
		}
		group, err := l.Open(ctx, stream.From{Group: "g"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(ctx, upsert("a", fmt.Sprint(round)), upsert("b", fmt.Sprint(round))); err != nil {
			t.Fatal(err)
		}
		got := drain(t, l, group)
		if len(got) != 2 {
			t.Errorf("round %d: the group gets %d changes, want 2", round, len(got))
		}
		for _, c := range got {
			if err := group.Commit(ctx, stream.Position{Partition: c.Position.Partition, Offset: c.Position.Offset + 1}); err != nil {
				t.Error(err)
			}
		}
		group.Close()
		all := readAll(t, l, stream.From{})
		if len(all) != len(want)+2 {
			t.Errorf("round %d: %d changes, want %d", round, len(all), len(want)+2)
		}
		want = all
		positions = map[int32]int64{}
		for _, c := range all {
			positions[c.Position.Partition] = max(positions[c.Position.Partition], c.Position.Offset+1)
		}
		l.Close()
		e.Close()
	}
}

// TestCrash opens what a process that was killed leaves behind: its files at that moment.
func TestCrash(t *testing.T) {
	t.Parallel()
	dir, ctx := t.TempDir(), t.Context()
	e := openEmbedded(t, EmbeddedConfig{Dir: dir})
	l := openLog(t, Config{Embedded: e})
	for i := range 50 {
		if _, err := l.Append(ctx, upsert(fmt.Sprint(i), "x"), upsert(fmt.Sprint("more-", i), "y")); err != nil {
			t.Fatal(err)
		}
		if i%10 != 0 {
			continue
		}
		left := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		// A record may be cut off in the middle.
		segments, _ := filepath.Glob(filepath.Join(left, "log", "partitions", "documents-*", "*.dat"))
		if len(segments) == 0 {
			t.Fatal("no segment")
		}
		f, err := os.OpenFile(segments[0], os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, "\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\xff\xff cut off")
		f.Close()
		e2 := openEmbedded(t, EmbeddedConfig{Dir: left})
		l2 := openLog(t, Config{Embedded: e2})
		if got := len(readAll(t, l2, stream.From{})); got != 2*(i+1) {
			t.Errorf("after %d appends: %d changes, want %d", i+1, got, 2*(i+1))
		}
		if id, err := l2.Identity(ctx); err != nil || id != l.identity {
			t.Errorf("identity %v, %v; want %v", id, err, l.identity)
		}
		if _, err := l2.Append(ctx, upsert("0", "after")); err != nil {
			t.Errorf("appending after a crash: %v", err)
		}
		l2.Close()
		e2.Close()
	}
}

// TestCrashInTransaction: a broker that is killed during a transaction aborts it without a marker, so that nothing at all
// is delivered between the last change and the end.
func TestCrashInTransaction(t *testing.T) {
	t.Parallel()
	dir, ctx := t.TempDir(), t.Context()
	e := openEmbedded(t, EmbeddedConfig{Dir: dir})
	l := openLog(t, Config{Embedded: e, Partitions: 1})
	if _, err := l.Append(ctx, upsert("a", "x")); err != nil {
		t.Fatal(err)
	}
	raw, err := kgo.NewClient(kgo.SeedBrokers(e.Brokers()...), kgo.Dialer(e.Dialer()), kgo.DefaultProduceTopic("documents"), kgo.TransactionalID("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if err := raw.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := raw.ProduceSync(ctx, kgo.KeySliceRecord([]byte("b"), []byte(`{"text":"y"}`))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, Config{Embedded: openEmbedded(t, EmbeddedConfig{Dir: left}), EndsEvery: 20 * time.Millisecond})
	if ends, err := l.Ends(ctx); err != nil || ends[0].Offset != 4 {
		t.Fatalf("ends %v, %v", ends, err)
	}
	if got := readAll(t, l, stream.From{}); len(got) != 1 || got[0].ID != "a" {
		t.Errorf("got %v", got)
	}
}

// TestInterruptedCompaction: a crash at any step of a compaction leaves the old log or the new one.
func TestInterruptedCompaction(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	origin := t.TempDir()
	e := openEmbedded(t, EmbeddedConfig{Dir: origin})
	l := openLog(t, Config{Embedded: e})
	for i := range 30 {
		if _, err := l.Append(ctx, upsert(fmt.Sprint(i%5), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	e.Close()
	move := func(from, to string) func(dir string) error {
		return func(dir string) error { return os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)) }
	}
	work := func(dir string) error {
		return os.CopyFS(filepath.Join(dir, "log.compact"), os.DirFS(filepath.Join(dir, "log")))
	}
	for name, steps := range map[string][]func(string) error{
		"copied":         {work},
		"old moved away": {work, move("log", "log.old")},
		"new in place":   {work, move("log", "log.old"), move("log.compact", "log")},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			if err := os.CopyFS(dir, os.DirFS(origin)); err != nil {
				t.Fatal(err)
			}
			for _, step := range steps {
				if err := step(dir); err != nil {
					t.Fatal(err)
				}
			}
			e := openEmbedded(t, EmbeddedConfig{Dir: dir})
			l := openLog(t, Config{Embedded: e})
			if got := len(readAll(t, l, stream.From{})); got != 30 {
				t.Errorf("%d changes, want 30", got)
			}
			for _, left := range []string{"log.old", "log.compact"} {
				if _, err := os.Stat(filepath.Join(dir, left)); err == nil {
					t.Errorf("%s is left behind", left)
				}
			}
		})
	}
}

func TestCompactAtStart(t *testing.T) {
	t.Parallel()
	dir, ctx := t.TempDir(), t.Context()
	e := openEmbedded(t, EmbeddedConfig{Dir: dir})
	l := openLog(t, Config{Embedded: e})
	for i := range 40 {
		if _, err := l.Append(ctx, upsert(fmt.Sprint(i%4), incompressible(10<<10))); err != nil {
			t.Fatal(err)
		}
	}
	before := readAll(t, l, stream.From{})
	l.Close()
	e.Close()
	size, err := sizeOf(e.logDir())
	if err != nil {
		t.Fatal(err)
	}
	e2 := &Embedded{cfg: e.cfg, format: e.format, size: size}
	if err := e2.compact(); err != nil {
		t.Fatal(err)
	}
	e = openEmbedded(t, EmbeddedConfig{Dir: dir})
	l = openLog(t, Config{Embedded: e})
	if e.format.Compacted == 0 || e.format.Compacted != e2.size || e.size > size/2 {
		t.Errorf("%d bytes after compacting %d, the marker says %d", e.size, size, e.format.Compacted)
	}
	last := map[string]string{}
	for _, c := range before {
		last[c.ID] = c.Document.Text
	}
	for _, c := range readAll(t, l, stream.From{}) {
		if c.Document.Text == last[c.ID] {
			delete(last, c.ID)
		}
	}
	if len(last) > 0 {
		t.Errorf("%d documents are gone", len(last))
	}
}

// TestCompactNext: what was deleted is off the disk after the start that was asked to compact, however small the log, and only that start compacts.
func TestCompactNext(t *testing.T) {
	t.Parallel()
	dir, ctx := t.TempDir(), t.Context()
	e := openEmbedded(t, EmbeddedConfig{Dir: dir})
	l := openLog(t, Config{Embedded: e})
	secret := incompressible(2 << 10)
	for _, c := range []stream.Change{upsert("secret", secret), upsert("kept", "kept"), {Kind: stream.Delete, ID: "secret"}} {
		if _, err := l.Append(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.CompactNext(); err != nil || !l.Embedded() {
		t.Fatal(err)
	}
	holds := func() (found bool) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			found = found || strings.Contains(string(content), secret[:64])
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if !holds() {
		t.Fatal("the text is not on the disk as it was written, so this test would see nothing")
	}
	l.Close()
	e.Close()
	e = openEmbedded(t, EmbeddedConfig{Dir: dir})
	l = openLog(t, Config{Embedded: e})
	if holds() {
		t.Error("the deleted text is still on the disk")
	}
	live := map[string]string{}
	for _, c := range readAll(t, l, stream.From{}) {
		if c.Kind == stream.Upsert {
			live[c.ID] = c.Document.Text
		}
	}
	if len(live) != 1 || live["kept"] != "kept" || e.format.CompactNext || e.worthCompacting() {
		t.Errorf("left %v, compacting again: %v", live, e.format.CompactNext)
	}
}

func TestDeletedPrefix(t *testing.T) {
	t.Parallel()
	e := openEmbedded(t, EmbeddedConfig{})
	l := openLog(t, Config{Embedded: e, Partitions: 1, SessionTimeout: time.Second, EndsEvery: 20 * time.Millisecond})
	ctx := t.Context()
	for i := range 20 {
		if _, err := l.Append(ctx, upsert(fmt.Sprint(i), "x")); err != nil {
			t.Fatal(err)
		}
	}
	group, err := l.Open(ctx, stream.From{Group: "g"})
	if err != nil {
		t.Fatal(err)
	}
	drain(t, l, group)
	if err := group.Commit(ctx, stream.Position{Partition: 0, Offset: 3}); err != nil {
		t.Fatal(err)
	}
	group.Close()
	upTo := kadm.Offsets{}
	upTo.Add(kadm.Offset{Topic: "documents", Partition: 0, At: 10})
	if _, err := kadm.NewClient(l.client).DeleteRecords(ctx, upTo); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]stream.From{
		"positions": {Positions: map[int32]int64{0: 3}}, "beginning": {}, "group": {Group: "g"}, "new group": {Group: "h"},
	} {
		if got := readAll(t, l, from); len(got) != 10 || got[0].Position.Offset != 10 {
			t.Errorf("%s: %d changes, want those from 10 to 19", name, len(got))
		}
	}
}

func TestRecreatedTopic(t *testing.T) {
	t.Parallel()
	e := openEmbedded(t, EmbeddedConfig{})
	l := openLog(t, Config{Embedded: e, EndsEvery: 20 * time.Millisecond})
	ctx := t.Context()
	if _, err := l.Append(ctx, upsert("a", "x")); err != nil {
		t.Fatal(err)
	}
	src, err := l.Open(ctx, stream.From{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	drain(t, l, src)
	admin := kadm.NewClient(l.client)
	if _, err := admin.DeleteTopics(ctx, "documents"); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopic(ctx, 4, 1, nil, "documents"); err != nil {
		t.Fatal(err)
	}
	if id, err := l.Identity(ctx); err != nil || id.ID == l.identity.ID {
		t.Errorf("identity %v, %v; it was %v", id, err, l.identity)
	}
	src.(*source).verify(ctx)
	for err == nil {
		_, err = src.Next(ctx)
	}
	if !errors.Is(err, stream.ErrLogChanged) {
		t.Errorf("got %v", err)
	}
}

func TestForeignTopic(t *testing.T) {
	t.Parallel()
	e := openEmbedded(t, EmbeddedConfig{})
	var out bytes.Buffer
	cfg := Config{Embedded: e, Corpus: "orders.v1", ReadOnly: true, Logger: slog.New(slog.NewTextHandler(&out, nil))}
	if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Fatalf("a read-only topic that is absent: %v", err)
	}
	raw, err := kgo.NewClient(kgo.SeedBrokers(e.Brokers()...), kgo.Dialer(e.Dialer()), kgo.DefaultProduceTopic("orders.v1"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	week := "604800000"
	if _, err := kadm.NewClient(raw).CreateTopic(t.Context(), 7, 1, map[string]*string{"cleanup.policy": kadm.StringPtr("delete"), "retention.ms": &week}, "orders.v1"); err != nil {
		t.Fatal(err)
	}
	if err := raw.ProduceSync(t.Context(), kgo.SliceRecord([]byte(`{"pk":17,"body":"B"}`)), kgo.SliceRecord([]byte(`{"pk":18,"body":"C","op":"r"}`))).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var m stream.Mapping
	if err := json.Unmarshal([]byte(`{"id":"$.pk","text":"$.body","backfill":"$.op == \"r\""}`), &m); err != nil {
		t.Fatal(err)
	}
	cfg.Mapping = &m
	l := openLog(t, cfg)
	if !strings.Contains(out.String(), "forgets documents") {
		t.Errorf("no warning about the retention: %s", &out)
	}
	if l.identity.Partitions != 7 {
		t.Errorf("%d partitions, the topic has 7", l.identity.Partitions)
	}
	if got := readAll(t, l, stream.From{}); len(got) != 2 {
		t.Errorf("got %+v", got)
	}
	if got := readAll(t, l, stream.From{Fresh: true}); len(got) != 1 || got[0].ID != "17" || got[0].Document == nil || got[0].Document.Text != "B" {
		t.Errorf("without what the mapping says is history got %+v", got)
	}
	if _, err := l.Append(t.Context(), upsert("a", "x")); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("appending to a read-only topic: %v", err)
	}
}

// TestCreatedTopics reads the settings back that keep documents from vanishing.
func TestCreatedTopics(t *testing.T) {
	t.Parallel()
	e := openEmbedded(t, EmbeddedConfig{})
	l := openLog(t, Config{Embedded: e})
	configs, err := kadm.NewClient(l.client).DescribeTopicConfigs(t.Context(), l.topic, l.dlqTopic(), l.controlTopic(), l.feedbackTopic())
	if err != nil {
		t.Fatal(err)
	}
	for _, rc := range configs {
		want := map[string]string{"cleanup.policy": "compact", "retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": itoa(l.cfg.maxRecordBytes())}
		if rc.Name == l.dlqTopic() || rc.Name == l.feedbackTopic() {
			want["cleanup.policy"] = "delete"
		} else {
			want["delete.retention.ms"] = "604800000"
		}
		for _, c := range rc.Configs {
			if w, ok := want[c.Key]; ok && c.MaybeValue() != w {
				t.Errorf("%s: %s is %q, want %q", rc.Name, c.Key, c.MaybeValue(), w)
			}
			delete(want, c.Key)
		}
		if len(want) > 0 {
			t.Errorf("%s: %v are not set", rc.Name, want)
		}
	}
}

// TestPartitionOf holds the hash to values of Kafka's own tests.
func TestPartitionOf(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
	if partitionOf([]byte("doc"), 12) != partitionOf([]byte("doc"+stream.AccessSuffix), 12) {
		t.Error("an access record is not beside its document")
	}
}

// lines passes on the messages that are logged.
type lines struct {
	slog.Handler
	counts chan string
}

func (l lines) Handle(_ context.Context, r slog.Record) error {
	l.counts <- r.Message
	return nil
}

func TestBrokerDownAtOpen(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for name, address := range map[string]string{"refused": gone.Addr().String(), "silent": silent.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			_, err := Open(t.Context(), Config{Brokers: []string{address}, Timeout: 700 * time.Millisecond, Logger: quiet})
			if !errors.Is(err, stream.ErrUnavailable) || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "kafka.brokers") {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestABrokerThatComesUpAfterUs(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	log := lines{slog.DiscardHandler, make(chan string, 100)}
	opened := make(chan error, 1)
	go func() {
		l, err := Open(t.Context(), Config{Brokers: []string{address}, ReplicationFactor: 1, Timeout: 20 * time.Second, Logger: slog.New(enabled{log})})
		if err == nil {
			l.Close()
		}
		opened <- err
	}()
	select {
	case <-log.counts: // it has found that nobody is there
	case err := <-opened:
		t.Fatalf("it gave up: %v", err)
	}
	openEmbedded(t, EmbeddedConfig{Dir: t.TempDir(), Listen: address})
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestBrokerGoneAndBack(t *testing.T) {
	t.Parallel()
	dir, ctx := t.TempDir(), t.Context()
	e := openEmbedded(t, EmbeddedConfig{Dir: dir, Listen: "127.0.0.1:0"})
	address := e.Brokers()[0]
	log := lines{slog.DiscardHandler, make(chan string, 100)}
	l := openLog(t, Config{Brokers: []string{address}, Timeout: time.Second, EndsEvery: 20 * time.Millisecond, Logger: slog.New(enabled{log})})
	if s := l.Status(); !s.Since.IsZero() {
		t.Errorf("status %+v", s)
	}
	src, err := l.Open(ctx, stream.From{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := l.Append(ctx, upsert("a", "x")); err != nil {
		t.Fatal(err)
	}
	if got := drain(t, l, src); len(got) != 1 {
		t.Fatalf("got %d changes", len(got))
	}
	e.Close()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := l.Append(short, upsert("b", "y")); !errors.Is(err, stream.ErrUnavailable) || !strings.Contains(err.Error(), address) {
		t.Errorf("appending to a broker that is gone: %v", err)
	}
	if _, err := l.Ends(ctx); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("its ends: %v", err)
	}
	if s := l.Status(); s.Since.IsZero() || len(s.Brokers) != 1 || s.Err == nil {
		t.Errorf("status %+v", s)
	}
	if _, err := src.Next(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a source of a broker that is gone: %v", err)
	}
	openEmbedded(t, EmbeddedConfig{Dir: dir, Listen: address})
	long, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := l.Append(long, upsert("c", "z")); err != nil {
		t.Fatal(err)
	}
	found := false
	for !found {
		b, err := src.Next(long)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range b.Changes {
			found = found || c.ID == "c"
		}
	}
	if s := l.Status(); !s.Since.IsZero() {
		t.Errorf("status %+v", s)
	}
	counts := map[string]int{}
	for len(log.counts) > 0 {
		counts[<-log.counts]++
	}
	if n := counts["kafka broker does not answer; trying again for ever"]; n < 1 || n > 3 {
		t.Errorf("%d lines about an absent broker: %v", n, counts)
	}
	if counts["kafka broker is back"] < 1 {
		t.Errorf("no line about its return: %v", counts)
	}
	// Whether the append that was cut off arrived is open.
	for _, c := range readAll(t, l, stream.From{}) {
		if c.ID != "b" {
			counts[c.ID]++
		}
	}
	if counts["a"] != 1 || counts["c"] != 1 {
		t.Errorf("each acknowledged document must be there once: %v", counts)
	}
}

// enabled lets every level through to its handler.
type enabled struct{ slog.Handler }

func (enabled) Enabled(context.Context, slog.Level) bool { return true }

// BenchmarkAppendToNext measures one synced append of 5 KB until Next delivers it.
func BenchmarkAppendToNext(b *testing.B) {
	e := openEmbedded(b, EmbeddedConfig{})
	l := openLog(b, Config{Embedded: e})
	src, err := l.Open(b.Context(), stream.From{})
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	arrived := make(chan struct{}, 1)
	go func() {
		for {
			batch, err := src.Next(context.Background())
			if err != nil {
				return
			}
			for range batch.Changes {
				arrived <- struct{}{}
			}
		}
	}()
	text := strings.Repeat("what changed is what must be found. ", 140)
	var appended, delivered []time.Duration
	for b.Loop() {
		began := time.Now()
		if _, err := l.Append(b.Context(), upsert(fmt.Sprint(len(appended)), text)); err != nil {
			b.Fatal(err)
		}
		appended = append(appended, time.Since(began))
		<-arrived
		delivered = append(delivered, time.Since(began))
	}
	for name, times := range map[string][]time.Duration{"append": appended, "delivered": delivered} {
		slices.Sort(times)
		b.ReportMetric(float64(times[len(times)/2].Microseconds()), name+"-p50-µs")
		b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), name+"-p99-µs")
	}
}

// BenchmarkAppendMany appends 2,000 documents of 5 KB in one call.
func BenchmarkAppendMany(b *testing.B) {
	e := openEmbedded(b, EmbeddedConfig{MaxBytes: 1 << 40})
	l := openLog(b, Config{Embedded: e})
	changes := make([]stream.Change, 2000)
	for i := range changes {
		changes[i] = upsert(fmt.Sprint(i), strings.Repeat(fmt.Sprintf("what changed is what must be found, %d. ", i), 125))
	}
	b.SetBytes(2000 * 5000)
	for b.Loop() {
		if _, err := l.Append(b.Context(), changes...); err != nil {
			b.Fatal(err)
		}
	}
}

// TestADiskThatIsReadOnly: writes are refused as long as it is.
func TestADiskThatIsReadOnly(t *testing.T) {
	t.Parallel()
	ctx, dir := t.Context(), t.TempDir()
	var readOnly atomic.Bool
	e := openEmbedded(t, EmbeddedConfig{Dir: dir, readOnly: func(string) bool { return readOnly.Load() }})
	l := openLog(t, Config{Embedded: e})
	for _, now := range []bool{false, true, false} {
		readOnly.Store(now)
		_, err := l.Append(ctx, upsert("a", "text"))
		if now != errors.Is(err, stream.ErrReadOnly) || now != (err != nil) || now && (!errors.Is(err, stream.ErrUnavailable) || !strings.Contains(err.Error(), dir)) {
			t.Errorf("read-only %v: %v", now, err)
		}
		if err := e.refused(kerr.UnknownServerError, 10); now != errors.Is(err, stream.ErrReadOnly) {
			t.Errorf("read-only %v: a write that failed is %v", now, err)
		}
	}
}

// unsafeFile is a file whose syncing fails when it is told to.
type unsafeFile struct {
	syncedFile
	fails *atomic.Bool
}

func (f unsafeFile) Sync() error {
	if f.fails.Load() {
		return syscall.EIO
	}
	return f.syncedFile.Sync()
}

// TestADiskThatFailsToSync: what is not safe is not acknowledged, although the broker says it is; nor is anything that comes after it, until a restart reads what there is.
func TestADiskThatFailsToSync(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	var fails atomic.Bool
	real := openRecords
	openRecords = func(path string) (syncedFile, error) {
		f, err := real(path)
		return unsafeFile{f, &fails}, err
	}
	t.Cleanup(func() { openRecords = real })
	e := openEmbedded(t, EmbeddedConfig{Dir: dir})
	l := openLog(t, Config{Embedded: e})
	if _, err := l.Append(ctx, upsert("a", "it is safe")); err != nil {
		t.Fatal(err)
	}
	fails.Store(true)
	if _, err := l.Append(ctx, upsert("b", "it is not")); !errors.Is(err, stream.ErrReadOnly) || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "restart") {
		t.Errorf("what could not be synced: %v", err)
	}
	fails.Store(false)
	if _, err := l.Append(ctx, upsert("c", "after it")); !errors.Is(err, stream.ErrReadOnly) {
		t.Errorf("what came after it: %v", err)
	}
	l.Close()
	e.Close()
	e = openEmbedded(t, EmbeddedConfig{Dir: dir})
	l = openLog(t, Config{Embedded: e})
	if _, err := l.Append(ctx, upsert("c", "after the restart")); err != nil {
		t.Error(err)
	}
}
