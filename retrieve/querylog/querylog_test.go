package querylog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/retrieve"
	"github.com/liverag/liverag/vectordb"
)

func open(t *testing.T, c Config) *Log {
	t.Helper()
	c.Logger = slog.New(slog.DiscardHandler)
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// drain writes what waits, and ends.
func drain(t *testing.T, l *Log) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func question(query string) (retrieve.Request, *retrieve.Answer) {
	q := retrieve.NewRequest(query)
	a := &retrieve.Answer{Mode: retrieve.Dense, Target: retrieve.Target{Name: "one", Alias: "live"}}
	a.Hits = []retrieve.Hit{{Hit: vectordb.Hit{ID: "d#1", Text: "the text of a document"}}}
	return q, a
}

func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queries", "documents.ndjson")
	l := open(t, Config{Path: path})
	q, a := question("who asks\n\"what\"?")
	var err error
	if q.Filter, err = vectordb.ParseFilter([]byte(`{"team":"billing"}`)); err != nil {
		t.Fatal(err)
	}
	l.Note(q, a)
	l.Note(question("again"))
	drain(t, l)
	got, err := Read(path)
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	e := got[0]
	if e.Query != q.Query || e.Mode != retrieve.Dense || e.K != retrieve.DefaultK || e.Generation != "one" || len(e.Hits) != 1 || e.Hits[0] != "d#1" || e.Time.IsZero() || !strings.Contains(string(e.Filter), "billing") {
		t.Errorf("kept %+v", e)
	}
	content, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(content), "the text of a document") {
		t.Errorf("texts are kept: %s, %v", content, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	// A crash tears the last line. What comes after it is whole.
	if err := os.WriteFile(path, content[:len(content)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, Config{Path: path})
	l.Note(question("after the crash"))
	drain(t, l)
	if got, err = Read(path); err != nil || len(got) != 2 || got[1].Query != "after the crash" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Read(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a file that is not there: %v", err)
	}
}

func TestBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "q.ndjson")
	const most = 8 << 10
	for round := range 10 {
		l := open(t, Config{Path: path, MaxBytes: most, Queue: 16})
		for i := range 16 {
			l.Note(question(fmt.Sprint("question ", round, " ", i)))
		}
		drain(t, l)
	}
	var size int64
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	got, err := Read(path)
	if err != nil || size > most || len(got) < 16 || got[len(got)-1].Query != "question 9 15" || got[0].Query == "question 0 0" {
		t.Errorf("%d bytes, %d questions, %v", size, len(got), err)
	}
	for i := 1; i < len(got); i++ {
		if got[i].Time.Before(got[i-1].Time) {
			t.Errorf("number %d is before the one before it", i)
		}
	}
}

// counted is a metric's value.
func counted(t *testing.T, metrics *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

func TestDropped(t *testing.T) {
	dir := t.TempDir()
	metrics := prometheus.NewRegistry()
	l := open(t, Config{Path: filepath.Join(dir, "q", "q.ndjson"), Queue: 4, Metrics: metrics})
	for i := range 10 { // nobody writes, and nobody waits
		l.Note(question(fmt.Sprint(i)))
	}
	if n := counted(t, metrics, "liverag_query_log_dropped_total"); n != 6 {
		t.Errorf("%v dropped, want 6", n)
	}
	drain(t, l)
	if n := counted(t, metrics, "liverag_query_log_written_total"); n != 4 {
		t.Errorf("%v written, want 4", n)
	}
	// A file that can't be written loses questions, and nothing else.
	metrics = prometheus.NewRegistry()
	l = open(t, Config{Path: filepath.Join(dir, "q", "q.ndjson"), Metrics: metrics})
	l.file.Close()
	l.Note(question("lost"))
	drain(t, l)
	if n := counted(t, metrics, "liverag_query_log_dropped_total"); n != 1 {
		t.Errorf("%v dropped, want 1", n)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Path: filepath.Join(dir, "file", "q.ndjson")}); err == nil {
		t.Error("a directory that can't be is opened")
	}
}
