package freshness

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// Sample is one change whose way into the answers was watched.
type Sample struct {
	// At is when it entered the log, since the start of the eval.
	At time.Duration
	// Took is how long until an answer showed it, measured at the end of that answer.
	Took    time.Duration
	Deleted bool
	// Superseded: what the answer showed was a later version already.
	Superseded bool
}

// eval is what a replay and an observation have in common.
type eval struct {
	server     Server
	ledger     *ledger
	number     numbering
	filter     map[string]any // restricts every question to the eval's documents; nil: nothing does
	k          int
	mode       string
	generation string
	patience   time.Duration
	begin      time.Time
	calls      chan struct{} // bounds the watchers' queries in flight

	lexical  atomic.Bool // the system searches by words
	refusals atomic.Int64
	name     atomic.Pointer[string] // of the generation that answers

	mu      sync.Mutex
	samples []Sample
	late    []string // ids of changes that never came
	never   int
	unclear int // changes that left no trace to watch for
	tally   tally
}

// ask puts a question, patiently, and judges the answer.
func (e *eval) ask(ctx context.Context, q Question, after []pending) (*asked, error) {
	q.Generation = e.generation
	for _, p := range after {
		q.After = append(q.After, p.v.token)
	}
	a := &asked{after: after}
	err := patiently(ctx, e.patience, func() { e.refusals.Add(1) }, func() (err error) {
		a.began = time.Now()
		a.answer, err = e.server.Retrieve(ctx, q)
		a.ended = time.Now()
		return err
	})
	if err != nil {
		return nil, err
	}
	if a.answer.Generation != "" {
		e.name.Store(&a.answer.Generation)
	}
	if len(q.After) == 0 && !q.AllOlder {
		a.answer.Satisfied = false // nothing was asked for that could be
	}
	return a, nil
}

// within is the filter for one document.
func (e *eval) within(id string) map[string]any {
	f := map[string]any{"@id": id}
	for name, value := range e.filter {
		f[name] = value
	}
	return f
}

// pollHits is how many chunks of its document a watcher looks at: a few more than one, to catch those of two versions.
const pollHits = 10

// watch asks for one document until the answer shows the change, or a later one, and keeps how long that took.
func (e *eval) watch(ctx context.Context, id string, v *version, entered time.Time) error {
	for try := 0; ; try++ {
		done, err := e.look(ctx, id, v, entered, try)
		if done || err != nil {
			return err
		}
		age := time.Since(entered)
		if age > e.patience {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.never++
			e.late = append(e.late, id)
			return nil
		}
		// A figure is up to a sixth too large by this, and a long wait costs few questions.
		if err := sleep(ctx, min(max(age/6, 2*time.Millisecond), time.Second)); err != nil {
			return err
		}
	}
}

// look asks once.
func (e *eval) look(ctx context.Context, id string, v *version, entered time.Time, try int) (done bool, err error) {
	words := keywords(e.ledger.texts(id, 3))
	// Now and then by the system's own mode, in case that none of the words can be found by.
	byWords := words != "" && e.lexical.Load() && try%6 != 5
	a, err := e.poll(ctx, id, words, byWords)
	if err != nil {
		return false, err
	}
	if len(a.answer.Hits) == 0 && byWords && e.ledger.latest(id).mayBeAbsent() {
		// That none of the words is found does not yet say that nothing is there.
		if a, err = e.poll(ctx, id, words, false); err != nil {
			return false, err
		}
	}
	shown, any := int64(0), false
	for _, hit := range a.answer.Hits {
		if n, ok := e.number(hit); ok && hit.Document == id {
			shown, any = max(shown, n), true
		}
	}
	switch {
	case any && shown >= v.number && !(v.deleted && shown == v.number):
		e.ledger.reflect(id, shown, a.ended)
		e.keep(v, entered, a.ended, shown > v.number)
		return true, nil
	case any:
		return false, nil
	}
	switch at, reading := e.ledger.absence(id, v); reading {
	case reached:
		e.ledger.reflect(id, at.number, a.ended)
		e.keep(v, entered, a.ended, at != v)
		return true, nil
	case undecidable:
		e.mu.Lock()
		defer e.mu.Unlock()
		e.unclear++
		return true, nil
	}
	return false, nil
}

// poll is one question of a watcher.
func (e *eval) poll(ctx context.Context, id, words string, byWords bool) (*asked, error) {
	select {
	case e.calls <- struct{}{}:
		defer func() { <-e.calls }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	q := Question{Query: words, K: pollHits, Mode: e.mode, Filter: e.within(id)}
	if words == "" {
		q.Query = "document"
	}
	if byWords {
		q.Mode = "lexical"
	} else if q.Mode == "lexical" {
		q.Mode = "" // which finds what has none of the words
	}
	a, err := e.ask(ctx, q, nil)
	if byWords && errors.Is(err, ErrMode) {
		e.lexical.Store(false)
		q.Mode = e.mode
		a, err = e.ask(ctx, q, nil)
	}
	if err != nil {
		return nil, err
	}
	e.note(a, nil)
	return a, nil
}

// keep notes how long a change took.
func (e *eval) keep(v *version, entered, ended time.Time, superseded bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.samples = append(e.samples, Sample{At: max(0, entered.Sub(e.begin)), Took: max(0, ended.Sub(entered)), Deleted: v.deleted, Superseded: superseded})
}

// keywords picks words of texts that a search by words finds them by.
func keywords(texts []string) string {
	const most = 12
	var out []string
	for _, text := range texts {
		words := slices.DeleteFunc(strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) }), func(w string) bool {
			n := utf8.RuneCountInString(w)
			return n < 4 || n > 24
		})
		// From all over the text, so that words which say nothing are among others.
		for i := range min(most, len(words)) {
			if word := words[i*len(words)/min(most, len(words))]; !slices.Contains(out, word) {
				out = append(out, word)
			}
		}
	}
	return strings.Join(out, " ")
}

// sampler chooses changes to be watched: so many a second, and a second's worth at once.
type sampler struct {
	rate   float64
	budget float64
	last   time.Time
}

func (s *sampler) take(now time.Time) bool {
	if s.last.IsZero() {
		s.last, s.budget = now, max(s.rate, 1)
	}
	s.budget = min(s.budget+now.Sub(s.last).Seconds()*s.rate, max(s.rate, 1))
	s.last = now
	if s.budget < 1 {
		return false
	}
	s.budget--
	return true
}
