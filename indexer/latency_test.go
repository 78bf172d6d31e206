package indexer

import (
	"testing"
	"time"
)

func TestLatencyBinsAreCloseAndOrdered(t *testing.T) {
	last := -1
	for us := int64(0); us < 1<<36; us += 1 + us/7 {
		d := time.Duration(us) * time.Microsecond
		bin := latencyBin(d)
		if bin < last {
			t.Fatalf("bin of %v is %d, below %d of a shorter one", d, bin, last)
		}
		last = bin
		edge := latencyOf(bin)
		if edge < d || float64(edge) > float64(d)*1.04+1000 {
			t.Fatalf("%v falls into a bucket that ends at %v", d, edge)
		}
	}
}

func TestLatencyWindow(t *testing.T) {
	l := newLatencies(20 * time.Millisecond)
	now := time.Unix(1_800_000_000, 0)
	for i := range 100 {
		l.add(now.Add(time.Duration(i)*time.Second), time.Duration(i+1)*time.Millisecond)
	}
	at := now.Add(100 * time.Second)
	got := l.recent(at)
	if got.Count != 100 || got.Max != 100*time.Millisecond || got.P50 < 50*time.Millisecond || got.P50 > 52*time.Millisecond {
		t.Errorf("recent = %+v", got)
	}
	if got.Met < .19 || got.Met > .22 {
		t.Errorf("share within 20 ms = %v, want about .2", got.Met)
	}
	if got := l.recent(at.Add(time.Hour)); got.Count != 0 || got.Met != 1 {
		t.Errorf("an hour later: %+v, want nothing", got)
	}
	minutes := l.between(at.Add(time.Hour), now.Add(-time.Hour), at.Add(time.Hour))
	var n int64
	for _, m := range minutes {
		n += m.Count
	}
	if n != 100 {
		t.Errorf("minutes hold %d changes, want 100: %+v", n, minutes)
	}
	if got := l.between(at.Add(25*time.Hour), now.Add(-time.Hour), at.Add(25*time.Hour)); len(got) != 0 {
		t.Errorf("a day later: %+v, want nothing", got)
	}
}
