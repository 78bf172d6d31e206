package kafka

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
)

func openTest(t testing.TB, dir string) (*Embedded, *Log) {
	t.Helper()
	e, err := OpenEmbedded(EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(context.Background(), Config{Embedded: e})
	if err != nil {
		t.Fatal(err)
	}
	return e, l
}

func upsert(id, text string) stream.Change {
	return stream.Change{Kind: stream.Upsert, ID: id, Document: &stream.Document{Text: text}}
}

func TestLatency(t *testing.T) {
	if os.Getenv("LAT") == "" {
		t.Skip()
	}
	dir := t.TempDir()
	e, l := openTest(t, dir)
	ctx := context.Background()
	src, err := l.Open(ctx, stream.From{})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("hello world ", 5000/12)
	got := make(chan time.Time, 1)
	go func() {
		for {
			b, err := src.Next(ctx)
			if err != nil {
				return
			}
			if len(b.Changes) > 0 {
				got <- time.Now()
			}
		}
	}()
	var ap, total []time.Duration
	for i := range 500 {
		t0 := time.Now()
		if _, err := l.Append(ctx, upsert(fmt.Sprint("doc", i), text)); err != nil {
			t.Fatal(err)
		}
		ap = append(ap, time.Since(t0))
		total = append(total, (<-got).Sub(t0))
	}
	slices.Sort(ap)
	slices.Sort(total)
	t.Log("append p50", ap[250], "p99", ap[495], "delivered p50", total[250], "p99", total[495], total[499])
	var many []stream.Change
	for i := range 2000 {
		many = append(many, upsert(fmt.Sprint("doc", i), text))
	}
	t0 := time.Now()
	if _, err := l.Append(ctx, many...); err != nil {
		t.Fatal(err)
	}
	t.Log("2000 x 5KB", time.Since(t0))
	t0 = time.Now()
	src.Close()
	l.Close()
	e.Close()
	t.Log("close", time.Since(t0))
	t0 = time.Now()
	e, l = openTest(t, dir)
	t.Log("second start", time.Since(t0))
	n, _ := e.Size()
	t.Log("size", n)
	t0 = time.Now()
	src, err = l.Open(ctx, stream.From{})
	if err != nil {
		t.Fatal(err)
	}
	k := 0
	for k < 2500 {
		b, err := src.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		k += len(b.Changes)
	}
	t.Log("read 2500", time.Since(t0))
	src.Close()
	l.Close()
	e.Close()
}
