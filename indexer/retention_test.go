package indexer

import (
	"testing"
	"time"

	"github.com/liverag/liverag/stream"
)

// TestDeletesThatAreMissedDuringAComparison: it ends the doubt that it was made for, and not one that came up while it ran.
func TestDeletesThatAreMissedDuringAComparison(t *testing.T) {
	p := newProgress()
	p.whole = 1
	p.assign(stream.Position{})
	now := time.Now()
	p.allow(7*24*time.Hour, now.Add(-time.Hour), false)
	p.observe(stream.End{At: now})
	p.suspect()
	before := p.suspected()
	p.suspect()
	p.trust(time.Now(), before)
	if !p.overdue() || p.caughtUp() {
		t.Error("what was missed during the comparison is forgotten")
	}
	p.trust(time.Now(), p.suspected())
	if p.overdue() || !p.caughtUp() {
		t.Error("a comparison ends no doubt")
	}
}

// TestAnotherChangeOfTheControlValueIsNoNewDoubt: while a comparison runs for longer than the log keeps deletes, somebody promotes another generation.
func TestAnotherChangeOfTheControlValueIsNoNewDoubt(t *testing.T) {
	begun := time.Now()
	spec := Spec{Doubted: begun, Horizon: map[int32]int64{0: 0}}
	g := newGeneration(New(Config{}), spec)
	g.progress.assign(stream.Position{})
	g.progress.allow(time.Millisecond, begun, false)
	g.progress.observe(stream.End{At: begun})
	missed := g.progress.suspected()
	g.date(spec)
	if g.progress.suspected() != missed || !g.progress.overdue() {
		t.Error("the same doubt counts twice, or is gone")
	}
	spec.Doubted = begun.Add(time.Second)
	g.date(spec)
	if g.progress.suspected() == missed {
		t.Error("another doubt does not count")
	}
	spec.Doubted, spec.AsOf = time.Time{}, time.Now()
	g.date(spec)
	if g.progress.overdue() {
		t.Error("the doubt does not end")
	}
}
