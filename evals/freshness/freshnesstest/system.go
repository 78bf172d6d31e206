// Package freshnesstest has a small system in memory that takes documents and answers questions, rightly or with a fault of one's choice: what an eval of
// freshness must see, it has to be shown.
package freshnesstest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/liverag/liverag/evals/freshness"
	"github.com/liverag/liverag/stream"
)

// Fault is what a system does wrong.
type Fault string

// Faults. Which documents are concerned, Every says.
const (
	// Stale: a document that is replaced stays as it was, and the system calls itself up to date.
	Stale Fault = "stale"
	// Ghost: a deleted document stays, and the system calls itself up to date.
	Ghost Fault = "ghost"
	// Mixed: beside a document's chunks is one of the version before.
	Mixed Fault = "mixed"
	// Never: a change does not come into answers; the system says so.
	Never Fault = "never"
	// Lying: changes take long, and the system calls itself up to date.
	Lying Fault = "lying"
	// Busy: calls are refused, to be made again.
	Busy Fault = "busy"
	// Garbled: a chunk's text is not what stands at its place in the document.
	Garbled Fault = "garbled"
	// Unfiltered: answers hold documents that the filter excludes.
	Unfiltered Fault = "unfiltered"
	// Flapping: every other answer is the one of a moment ago, and says so.
	Flapping Fault = "flapping"
	// Broken: a question is answered with an error.
	Broken Fault = "broken"
	// Keeps: deletions are taken, and do nothing, ever; the system says so.
	Keeps Fault = "keeps"
)

// System is a freshness.Server.
type System struct {
	// Delay is how long a change takes until it is in answers.
	Delay time.Duration
	Fault Fault
	// Every says that each document, or call, of so many is concerned by the fault. 0: all.
	Every int
	// NoWords: the system has no search by words.
	NoWords bool

	mu    sync.Mutex
	docs  map[string][]change
	last  int64
	calls int
	// Questions are all that were asked, Writes all changes.
	questions []freshness.Question
	writes    []Write
}

// Write is a change that the system took.
type Write struct {
	ID       string
	Document *stream.Document // nil for a deletion
}

type change struct {
	version int64
	doc     *stream.Document
	at      time.Time // when it was written
	shown   time.Time // when it comes into answers; zero: never
}

var _ freshness.Server = (*System)(nil)

// Errors of a broken or a busy system.
var (
	ErrBroken = errors.New("broken")
	errBusy   = errors.New("too busy")
)

func (s *System) concerns(n int) bool { return s.Every <= 1 || n%s.Every == 0 }

// call counts a call, and refuses it if that is the fault.
func (s *System) call() error {
	s.calls++
	if s.Fault == Busy && s.concerns(s.calls) {
		return &freshness.Busy{After: 5 * time.Millisecond, Err: errBusy}
	}
	return nil
}

// Put takes a document.
func (s *System) Put(ctx context.Context, id string, doc *stream.Document) (string, error) {
	return s.write(id, doc)
}

// Delete takes a deletion.
func (s *System) Delete(ctx context.Context, id string) (string, error) { return s.write(id, nil) }

func (s *System) write(id string, doc *stream.Document) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.call(); err != nil {
		return "", err
	}
	if s.docs == nil {
		s.docs = map[string][]change{}
	}
	s.last++
	now := time.Now()
	c := change{version: s.last, doc: doc, at: now, shown: now.Add(s.Delay)}
	if s.Fault == Never && s.concerns(int(s.last)) || s.Fault == Keeps && doc == nil {
		c.shown = time.Time{}
	}
	s.docs[id] = append(s.docs[id], c)
	s.writes = append(s.writes, Write{id, doc})
	return strconv.FormatInt(c.version, 10), nil
}

// Writes are the changes that were taken so far, in order.
func (s *System) Writes() []Write {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

// Questions are those asked so far.
func (s *System) Questions() []freshness.Question {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.questions)
}

// Documents are those that an answer may hold now, by id.
func (s *System) Documents() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for id := range s.docs {
		if v, _ := s.shows(id, time.Now()); v.doc != nil {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// shows is the version that answers show of a document, and the one before it, under the lock.
func (s *System) shows(id string, now time.Time) (v, before change) {
	for _, c := range s.docs[id] {
		shown := !c.shown.IsZero() && !c.shown.After(now)
		if shown && s.concerns(len(id)) && v.doc != nil && (s.Fault == Stale && c.doc != nil || s.Fault == Ghost && c.doc == nil) {
			continue
		}
		if shown {
			before, v = v, c
		}
	}
	return v, before
}

// asOf is the time before which every change is in answers.
func (s *System) asOf(now time.Time) time.Time {
	asOf := now
	if s.Fault == Lying {
		return now
	}
	for _, all := range s.docs {
		for i, c := range all {
			superseded := slices.ContainsFunc(all[i+1:], func(d change) bool { return !d.shown.IsZero() && !d.shown.After(now) })
			if !superseded && (c.shown.IsZero() || c.shown.After(now)) && c.at.Before(asOf) {
				asOf = c.at
			}
		}
	}
	return asOf
}

// Retrieve answers: each paragraph is a chunk, those with the most words of the query come first.
func (s *System) Retrieve(ctx context.Context, q freshness.Question) (freshness.Answer, error) {
	s.mu.Lock()
	s.questions = append(s.questions, q)
	err := s.call()
	n := s.calls
	s.mu.Unlock()
	switch {
	case err != nil:
		return freshness.Answer{}, err
	case s.Fault == Broken && s.concerns(n):
		return freshness.Answer{}, ErrBroken
	case q.Mode == "lexical" && s.NoWords:
		return freshness.Answer{}, freshness.ErrMode
	}
	satisfied := true
	if q.AllOlder || len(q.After) > 0 {
		if satisfied, err = s.await(ctx, q); err != nil {
			return freshness.Answer{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	view := now
	if s.Fault == Flapping && n%2 == 0 && len(q.After) == 0 && !q.AllOlder {
		view = now.Add(-200 * time.Millisecond)
	}
	a := freshness.Answer{Satisfied: satisfied, Lag: max(0, now.Sub(s.asOf(view))), Generation: "g1"}
	words := strings.Fields(strings.ToLower(q.Query))
	type ranked struct {
		freshness.Hit
		score int
	}
	var all []ranked
	for _, id := range slices.Sorted(maps.Keys(s.docs)) {
		v, before := s.shows(id, view)
		versions := []change{v}
		if s.Fault == Mixed && s.concerns(len(id)) && before.doc != nil && v.doc != nil {
			versions = append(versions, before)
		}
		for i, c := range versions {
			if c.doc == nil || !s.passes(q.Filter, id, c.doc) {
				continue
			}
			for n, hit := range chunks(id, c) {
				score := 0
				for _, w := range words {
					score += strings.Count(strings.ToLower(hit.Text), w)
				}
				if q.Mode == "lexical" && score == 0 || i > 0 && n > 0 {
					continue
				}
				if s.Fault == Garbled && s.concerns(len(id)) {
					hit.Text = strings.ToUpper(hit.Text)
				}
				all = append(all, ranked{hit, score})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int { return cmp.Compare(b.score, a.score) })
	for _, r := range all[:min(len(all), q.K)] {
		a.Hits = append(a.Hits, r.Hit)
	}
	return a, nil
}

// await waits until what the question asks for is in answers.
func (s *System) await(ctx context.Context, q freshness.Question) (bool, error) {
	begin := time.Now()
	for {
		s.mu.Lock()
		now := time.Now()
		missing := false
		for _, all := range s.docs {
			for i, c := range all {
				wanted := q.AllOlder && !c.at.After(begin) || slices.Contains(q.After, strconv.FormatInt(c.version, 10))
				superseded := slices.ContainsFunc(all[i+1:], func(d change) bool { return !d.shown.IsZero() && !d.shown.After(now) })
				missing = missing || wanted && !superseded && (c.shown.IsZero() || c.shown.After(now))
			}
		}
		s.mu.Unlock()
		if !missing || s.Fault == Lying {
			return true, nil
		}
		if now.Sub(begin) >= q.Wait {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (s *System) passes(filter map[string]any, id string, doc *stream.Document) bool {
	if s.Fault == Unfiltered {
		return true
	}
	for name, want := range filter {
		if name == "@id" && want != id || name != "@id" && doc.Metadata[name] != want {
			return false
		}
	}
	return true
}

// chunks cuts a document into paragraphs.
func chunks(id string, c change) []freshness.Hit {
	var out []freshness.Hit
	at := 0
	for part := range strings.SplitSeq(c.doc.Text, "\n\n") {
		if strings.TrimSpace(part) != "" {
			out = append(out, freshness.Hit{
				ID: fmt.Sprintf("%s#%d", id, at), Document: id, Version: c.version, Text: part, Start: at, End: at + len(part), Metadata: c.doc.Metadata,
			})
		}
		at += len(part) + 2
	}
	return out
}

// Measured is what the system says of itself: the truth, if it does not lie.
func (s *System) Measured(context.Context) (freshness.Measured, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := freshness.Measured{P50: s.Delay, P95: s.Delay, P99: s.Delay, Max: s.Delay, Count: int64(len(s.writes)), Window: 5 * time.Minute}
	if s.Fault == Lying {
		m.P50, m.P95, m.P99, m.Max = time.Millisecond, time.Millisecond, time.Millisecond, time.Millisecond
	}
	return m, nil
}
