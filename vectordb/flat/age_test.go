package flat

import (
	"testing"
	"time"

	"github.com/liverag/liverag/vectordb"
)

// TestTombstonesOnAClockThatJumps: whatever the wall clock does, a delete is remembered for as long as it has to be, and not for ever.
func TestTombstonesOnAClockThatJumps(t *testing.T) {
	const day = 24 * time.Hour
	wall := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	o := Options{NoSync: true, wall: func() time.Time { return wall }}
	s := open(t, dir, o)
	create(t, s)
	tidy := func() {
		t.Helper()
		g := s.generations["g"].g
		g.mu.Lock()
		var err error
		if len(g.active.rows) > 0 {
			err = g.rotate()
		}
		g.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		settle(t, g)
	}
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, o)
		tidy()
	}
	version := func(key string) int64 {
		t.Helper()
		got, err := s.Current(t.Context(), "g", []string{key})
		if err != nil {
			t.Fatal(err)
		}
		return got[0].Version
	}
	remembers := func(when string) {
		t.Helper()
		apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{revision("gone", 1, 1, dim)}})
		if got := version("gone"); got != 2 {
			t.Fatalf("%s, a late write of what was deleted is taken: version %d", when, got)
		}
	}
	remove := func(key string) {
		t.Helper()
		apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{{Key: key, Version: 2, Deleted: true}}})
		tidy()
	}
	apply(t, s, vectordb.Write{Revisions: []vectordb.Revision{revision("stays", 1, 1, dim), revision("gone", 1, 1, dim)}})
	remove("gone")
	remembers("at first")
	for _, jump := range []time.Duration{8 * day, -time.Hour, 300 * day, -400 * day, 100 * day} {
		wall = wall.Add(jump)
		tidy()
		remembers("after a jump of " + jump.String())
		reopen()
		remembers("opened after a jump of " + jump.String())
	}
	// With a clock that is right and deletes now and then it goes.
	for i := range 9 {
		wall = wall.Add(day)
		reopen()
		remove(string(rune('a' + i)))
	}
	reopen()
	if got := version("gone"); got != 0 {
		t.Errorf("a delete of nine days ago is still remembered: version %d", got)
	}
	if got := version("h"); got != 2 {
		t.Errorf("a delete of two days ago is not: version %d", got)
	}
	if got := version("stays"); got != 1 {
		t.Errorf("what was not deleted has version %d", got)
	}
}

func TestAge(t *testing.T) {
	wall := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name         string
		newest, want time.Duration // against the wall clock
	}{
		{"a moment ago", -time.Second, 0},
		{"half a day ago", -12 * time.Hour, 0},
		{"ten days ago, or the clock was set forward", -240 * time.Hour, -216 * time.Hour},
		{"later: the clock was set back", time.Hour, time.Hour},
	} {
		a := newAge(wall, wall.Add(test.newest).UnixMicro())
		if got := time.UnixMicro(a.micros).Sub(wall); got != test.want {
			t.Errorf("the newest tombstone is of %s: it begins %s from the clock, want %s", test.name, got, test.want)
		}
		if a.now() < a.micros {
			t.Errorf("it does not go on: %d after %d", a.now(), a.micros)
		}
	}
	if got := newAge(wall, 0).micros; got != wall.UnixMicro() {
		t.Errorf("without a tombstone it begins at %d, want %d", got, wall.UnixMicro())
	}
}
