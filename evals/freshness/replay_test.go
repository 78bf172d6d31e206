package freshness_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/evals/freshness"
	"github.com/liverag/liverag/evals/freshness/freshnesstest"
	"github.com/liverag/liverag/stream"
)

// history is a stream of changes to a few documents, with a probe for each version's own line: every document is written, replaced again and again, some are
// renamed, and some deleted.
func history(rounds int) ([]freshness.Change, []freshness.Probe) {
	var changes []freshness.Change
	var probes []freshness.Probe
	open := map[string]int{} // places in probes, by key
	step := func(key string, doc bool, old string) {
		seq := int64(len(changes))
		c := freshness.Change{Seq: seq, Time: time.Date(2026, 1, 1, 0, 0, len(changes), 0, time.UTC)}
		if old != "" {
			c.Ops = append(c.Ops, freshness.Op{Key: old})
			key, old = old+"-moved", key
		}
		if i, ok := open[key]; ok {
			probes[i].To = &seq
			delete(open, key)
		}
		if i, ok := open[strings.TrimSuffix(key, "-moved")]; ok && key != strings.TrimSuffix(key, "-moved") {
			probes[i].To = &seq
			delete(open, strings.TrimSuffix(key, "-moved"))
		}
		if doc {
			line := fmt.Sprintf("The number of this version is unique%dunique and belongs to nothing else.", seq)
			text := fmt.Sprintf("# Title of %s\n\nWhat never changes about the subject of this document.\n\n%s\n\nA last paragraph follows.", key, line)
			c.Ops = append(c.Ops, freshness.Op{Key: key, Document: &stream.Document{Text: text, ContentType: stream.TextMarkdown}})
			open[key] = len(probes)
			probes = append(probes, freshness.Probe{Text: line, Raw: line, From: seq})
		} else {
			c.Ops = append(c.Ops, freshness.Op{Key: key})
		}
		changes = append(changes, c)
	}
	keys := []string{"a.md", "bb.md", "ccc.md", "dddd.md", "eeeee.md"}
	for round := range rounds {
		for i, key := range keys {
			switch {
			case round%4 == 3 && i == 1:
				step(key, false, "")
			case round == 2 && i == 4:
				step("", true, key)
			default:
				step(key, true, "")
			}
		}
	}
	return changes, probes
}

func all(changes []freshness.Change) iter.Seq2[freshness.Change, error] {
	return func(yield func(freshness.Change, error) bool) {
		for _, c := range changes {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func replay(t *testing.T, s *freshnesstest.System, rounds int, change func(*freshness.ReplayConfig)) (*freshness.Figures, error) {
	t.Helper()
	changes, probes := history(rounds)
	cfg := freshness.ReplayConfig{Server: s, Run: "run1", Changes: all(changes), Total: len(changes), Probes: probes, Rate: 20, Questions: 40, Patience: 20 * time.Second}
	if change != nil {
		change(&cfg)
	}
	return freshness.Replay(t.Context(), cfg)
}

// TestFaults shows the eval a system with one fault after another: the figure that is about it has to rise, and no other one.
func TestFaults(t *testing.T) {
	type rises struct{ ghosts, stale, outdated, mixed, never, cameBack, foreign, refused, unsatisfied, slow bool }
	for _, tt := range []struct {
		name   string
		system *freshnesstest.System
		want   rises
	}{
		{"none", &freshnesstest.System{Delay: 40 * time.Millisecond}, rises{}},
		{"none, at once", &freshnesstest.System{}, rises{}},
		{"none, without search by words", &freshnesstest.System{Delay: 40 * time.Millisecond, NoWords: true}, rises{}},
		{"none, but slow", &freshnesstest.System{Delay: 3 * time.Second}, rises{slow: true}},
		{"stale", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Stale}, rises{stale: true, outdated: true, never: true}},
		{"ghosts", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Ghost}, rises{ghosts: true, stale: true, outdated: true, never: true}},
		{"mixed versions", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Mixed}, rises{mixed: true, outdated: true, cameBack: true, never: true}},
		{"never", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Never, Every: 81}, rises{never: true, unsatisfied: true}},
		{"lying", &freshnesstest.System{Delay: 3 * time.Second, Fault: freshnesstest.Lying}, rises{stale: true, outdated: true, ghosts: true, slow: true}},
		{"busy", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Busy, Every: 3}, rises{refused: true}},
		{"garbled", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Garbled}, rises{outdated: true, cameBack: true, never: true}},
		{"flapping", &freshnesstest.System{Delay: 40 * time.Millisecond, Fault: freshnesstest.Flapping}, rises{cameBack: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, err := replay(t, tt.system, 16, nil)
				if f == nil || err != nil && tt.system.Fault != freshnesstest.Ghost && tt.system.Fault != freshnesstest.Never {
					t.Fatalf("%+v: %v", f, err)
				}
				got := rises{
					f.Ghosts > 0, f.Stale > 0, f.Outdated > 0, f.Mixed > 0, f.Never > 0, f.CameBack > 0, f.Foreign > 0, f.Refused > 0, f.Unsatisfied > 0,
					f.Searchable.P99 > time.Second,
				}
				if tt.system.Fault == freshnesstest.Flapping {
					got.never = false // it may flap at the very end, too
				}
				if got != tt.want {
					t.Errorf("got  %+v\nwant %+v\n%+v", got, tt.want, summary(f))
				}
				if tt.system.Fault != "" {
					return
				}
				// A change is seen at most a sixth and a poll after it is there.
				low, high := tt.system.Delay, tt.system.Delay*7/6+5*time.Millisecond
				for _, s := range f.Samples {
					if s.Took < low && !s.Superseded || s.Took > high+time.Second {
						t.Errorf("a change took %s, it takes %s", s.Took, tt.system.Delay)
					}
				}
				if p := f.Searchable.P50; p < low || p > high+tt.system.Delay/5 {
					t.Errorf("p50 is %s, a change takes %s", p, tt.system.Delay)
				}
				if f.Deletes.Count == 0 || f.Searchable.Count < 60 || f.Live < 3 || f.Found != f.Live || f.FoundText != f.Live || f.Questions < 50 || f.Felt.Answers < 20 {
					t.Errorf("%+v", summary(f))
				}
				if left := tt.system.Documents(); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		})
	}
}

// summary is what a failed test prints.
func summary(f *freshness.Figures) string {
	g := *f
	g.Samples, g.Moments = nil, nil
	return fmt.Sprintf("%+v", g)
}

// TestFreshShare: with a change a second to one of five documents each, and a second until it is there, four of five documents are up to date on average,
// and the fifth's age is half a second on average.
func TestFreshShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &freshnesstest.System{Delay: time.Second}
		f, err := replay(t, s, 12, func(c *freshness.ReplayConfig) { c.Rate, c.Questions = 1, 5 })
		if err != nil {
			t.Fatal(err)
		}
		if f.Fresh < .72 || f.Fresh > .82 || f.Age < 80*time.Millisecond || f.Age > 160*time.Millisecond {
			t.Errorf("%.3f of the documents are up to date, their age is %s; it should be about 0.8, less the time between two looks, and 0.1 s", f.Fresh, f.Age)
		}
		if f.FreshAsked < .72 || f.FreshAsked > .82 {
			t.Errorf("when asked, %.3f are", f.FreshAsked)
		}
		if len(f.Moments) < 300 {
			t.Errorf("%d moments", len(f.Moments))
		}
	})
}

// TestSampling: not more changes are watched than were asked for, and those that are not watched still count as fresh in time.
func TestSampling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &freshnesstest.System{Delay: 100 * time.Millisecond}
		f, err := replay(t, s, 40, func(c *freshness.ReplayConfig) { c.Samples = 2 })
		if err != nil {
			t.Fatal(err)
		}
		if n := len(f.Samples); n < 15 || n > 30 || f.Unwatched != f.Changes-n-f.Unclear {
			t.Errorf("%d of %d changes were watched in %s, %d not", n, f.Changes, f.Took, f.Unwatched)
		}
		if f.Age > time.Second || f.Fresh < .3 || f.Never > 0 {
			t.Errorf("%s", summary(f))
		}
	})
}

// TestPace: changes are sent at their own times, compressed, or at a rate, and no longer than they may.
func TestPace(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*freshness.ReplayConfig)
		took   time.Duration
		sent   int
	}{
		{"a rate", func(c *freshness.ReplayConfig) { c.Rate = 5 }, 10 * time.Second, 51},
		{"their own times, ten times as quick", func(c *freshness.ReplayConfig) { c.Speed = 10 }, 5 * time.Second, 51},
		{"not longer than", func(c *freshness.ReplayConfig) { c.Rate, c.MaxDuration = 5, 2*time.Second }, 2 * time.Second, 11},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, err := replay(t, &freshnesstest.System{}, 10, tt.change)
				if err != nil {
					t.Fatal(err)
				}
				if f.Took < tt.took-500*time.Millisecond || f.Took > tt.took+time.Second || f.Changes != tt.sent {
					t.Errorf("%d changes took %s, not %d in %s", f.Changes, f.Took, tt.sent, tt.took)
				}
			})
		})
	}
}

// TestOrder: the changes of a document are written in order, whatever is under way beside them.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &freshnesstest.System{Fault: freshnesstest.Busy, Every: 3}
		changes, _ := history(30)
		if _, err := replay(t, s, 30, func(c *freshness.ReplayConfig) { c.Rate = 1e6 }); err != nil {
			t.Fatal(err)
		}
		want, got := map[string][]string{}, map[string][]string{}
		n := 0
		for _, c := range changes {
			for _, op := range c.Ops {
				n++
				text := ""
				if op.Document != nil {
					text = op.Document.Text
				}
				want["run1/"+op.Key] = append(want["run1/"+op.Key], text)
			}
		}
		for _, w := range s.Writes()[:n] {
			text := ""
			if w.Document != nil {
				text = w.Document.Text
				if w.Document.Metadata[freshness.FieldRun] != "run1" {
					t.Errorf("%s is not marked: %v", w.ID, w.Document.Metadata)
				}
			}
			got[w.ID] = append(got[w.ID], text)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Error("the order of a document's changes is not the stream's")
		}
		for _, q := range s.Questions() {
			if q.Filter[freshness.FieldRun] != "run1" {
				t.Fatalf("a question without the run's filter: %+v", q)
			}
		}
	})
}

// TestRemoves: however a replay ends, nothing of it stays.
func TestRemoves(t *testing.T) {
	t.Run("interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &freshnesstest.System{Delay: 300 * time.Millisecond}
			changes, _ := history(30)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			f, err := freshness.Replay(ctx, freshness.ReplayConfig{Server: s, Run: "run1", Changes: all(changes)})
			if f != nil || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%+v, %v", f, err)
			}
			if left := s.Documents(); len(s.Writes()) < 20 || len(left) > 0 {
				t.Errorf("%d writes, left: %v", len(s.Writes()), left)
			}
		})
	})
	t.Run("the stream breaks off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &freshnesstest.System{}
			changes, _ := history(5)
			broken := errors.New("no more")
			_, err := freshness.Replay(t.Context(), freshness.ReplayConfig{Server: s, Run: "run1", Changes: func(yield func(freshness.Change, error) bool) {
				for _, c := range changes {
					if !yield(c, nil) {
						return
					}
				}
				yield(freshness.Change{}, broken)
			}})
			if !errors.Is(err, broken) || len(s.Writes()) < len(changes) || len(s.Documents()) > 0 {
				t.Errorf("%v; left %v", err, s.Documents())
			}
		})
	})
	t.Run("a question fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &freshnesstest.System{Fault: freshnesstest.Broken, Every: 97}
			f, err := replay(t, s, 30, nil)
			if f != nil || !errors.Is(err, freshnesstest.ErrBroken) || len(s.Documents()) > 0 {
				t.Errorf("%v; left %v", err, s.Documents())
			}
		})
	})
	t.Run("it can't", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &freshnesstest.System{Fault: freshnesstest.Keeps}
			f, err := replay(t, s, 4, nil)
			if f == nil || !errors.Is(err, freshness.ErrLeft) || f.Never == 0 {
				t.Errorf("%+v, %v", f, err)
			}
		})
	})
	t.Run("a deletion that never came", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			changes, _ := history(4)
			n := 0
			for _, c := range changes {
				if n += len(c.Ops); c.Seq == 16 && c.Ops[0].Document != nil {
					t.Fatal("change 16 is no deletion")
				} else if c.Seq == 16 {
					break
				}
			}
			s := &freshnesstest.System{Fault: freshnesstest.Never, Every: n}
			f, err := replay(t, s, 4, func(c *freshness.ReplayConfig) { c.Lanes = 1 })
			if err != nil || f.Never == 0 || len(s.Documents()) > 0 {
				t.Errorf("%v, left: %v", err, s.Documents())
			}
		})
	})
	t.Run("of a run that was killed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := &freshnesstest.System{Delay: 100 * time.Millisecond}
			mark := map[string]any{freshness.FieldRun: "run1"}
			for i := range 300 {
				_, _ = s.Put(t.Context(), fmt.Sprintf("run1/%d", i), &stream.Document{Text: "words", Metadata: mark})
			}
			_, _ = s.Put(t.Context(), "run1/empty", &stream.Document{Metadata: mark})
			_, _ = s.Put(t.Context(), "other", &stream.Document{Text: "words"})
			if err := freshness.Remove(t.Context(), s, "run1", []string{"empty"}, nil); err != nil {
				t.Fatal(err)
			}
			if left := s.Documents(); len(left) != 1 || left[0] != "other" {
				t.Errorf("left: %v", left)
			}
		})
	})
}

// TestOwnWords: without probes, what is live is asked in the documents' own words.
func TestOwnWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := replay(t, &freshnesstest.System{}, 30, func(c *freshness.ReplayConfig) { c.Probes = nil })
		if err != nil || f.Questions < 100 || f.Live < 20 || f.Found == 0 || f.Stale > 0 {
			t.Errorf("%v %s", err, summary(f))
		}
	})
}

func TestUnfiltered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &freshnesstest.System{Fault: freshnesstest.Unfiltered}
		_, _ = s.Put(t.Context(), "other", &stream.Document{Text: "The number of something else."})
		f, err := replay(t, s, 5, nil)
		if err != nil || f.Foreign == 0 {
			t.Errorf("%v %s", err, summary(f))
		}
	})
}
