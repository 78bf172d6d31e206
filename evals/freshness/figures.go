package freshness

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

// Latency is how long changes took until answers showed them.
type Latency struct {
	P50, P95, P99, Max time.Duration
	Count              int
}

func latency(all []time.Duration) Latency {
	slices.Sort(all)
	return Latency{P50: quantile(all, .5), P95: quantile(all, .95), P99: quantile(all, .99), Max: quantile(all, 1), Count: len(all)}
}

// quantile is the smallest of the sorted values that the share q of them does not exceed; 0 if there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// Moment is the index at one moment of the eval.
type Moment struct {
	At time.Duration
	// Fresh is the share of documents that were up to date, Age the mean age: for each document 0 if it was, else how long its earliest change that answers
	// did not show yet had waited, after Cho and Garcia-Molina (SIGMOD 2000).
	Fresh float64
	Age   time.Duration
	// Waiting is how many documents were not up to date.
	Waiting int
}

// Figures are what an eval measured.
type Figures struct {
	Took       time.Duration
	Generation string
	K          int

	Changes, Deletions int
	// Searchable is of documents written, Deletes of documents deleted, over the changes that were watched.
	Searchable, Deletes Latency
	// Write is how long the system took to take a change.
	Write Latency
	// Server is what the system says itself, over its own window.
	Server Measured
	// Never counts watched changes that no answer showed within the patience, and documents that were wrong at the end.
	Never, WrongAtEnd int
	Late              []string
	// Superseded changes counted when a later version was there. Unclear ones left no trace: what was never there can't be seen to go.
	Superseded, Unclear, Unwatched int

	// Fresh and Age are means over a grid of time, FreshAsked and AgeAsked over the questions.
	Fresh, FreshAsked float64
	Age, AgeAsked     time.Duration
	Moments           []Moment
	Samples           []Sample

	// Answers and Returned count all answers and their chunks, the watchers' too.
	Answers, Returned, Ghosts, Mixed, CameBack, Foreign int
	// Questions are the eval's own. Stale and Outdated count answers.
	Questions, Stale, Outdated, Unsatisfied int
	// Live are questions for a text that a document had, of which so many found its document, and so many the text itself.
	Live, Found, FoundText int
	// Felt are questions asked without any demand, against all that was in the log when they were asked.
	Felt struct {
		Answers, Stale, Outdated, Ghosts, Returned, Live, Found int
	}
	// Refused counts calls that the system was too busy for, and that were made again.
	Refused int64
	// Behind is how late the last change was sent, against the schedule.
	Behind time.Duration
	Faults []Fault
}

// Share is part of all, 0 if there is nothing.
func Share(part, all int) float64 {
	if all == 0 {
		return 0
	}
	return float64(part) / float64(all)
}

// figures sums up. until is the end of the grid: what was done after it, such as cleaning up, does not count.
func (e *eval) figures(until time.Time) *Figures {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := &e.tally
	f := &Figures{
		Took: until.Sub(e.begin), K: e.k, Never: e.never, Late: e.late, Unclear: e.unclear,
		Answers: t.answers, Returned: t.returned, Ghosts: t.ghosts, Mixed: t.mixed, CameBack: t.cameBack, Foreign: t.foreign,
		Questions: t.questions, Stale: t.stale, Outdated: t.outdated, Unsatisfied: t.unsatisfied,
		Live: t.live, Found: t.found, FoundText: t.foundText,
		Refused: e.refusals.Load(), Faults: t.wrong,
	}
	if name := e.name.Load(); name != nil {
		f.Generation = *name
	}
	f.Felt.Answers, f.Felt.Stale, f.Felt.Outdated, f.Felt.Ghosts, f.Felt.Returned = t.felt.answers, t.felt.stale, t.felt.outdated, t.felt.ghosts, t.felt.returned
	f.Felt.Live, f.Felt.Found = t.feltLive, t.feltFound
	f.Samples = slices.SortedFunc(slices.Values(e.samples), func(a, b Sample) int { return cmp.Compare(a.At, b.At) })
	var written, deleted []time.Duration
	for _, s := range f.Samples {
		if s.Superseded {
			f.Superseded++
		}
		if s.Deleted {
			deleted = append(deleted, s.Took)
		} else {
			written = append(written, s.Took)
		}
	}
	f.Searchable, f.Deletes = latency(written), latency(deleted)
	stretches := e.ledger.stretches()
	f.Moments, f.Fresh, f.Age = grid(stretches, e.begin, until)
	_, f.FreshAsked, f.AgeAsked = at(stretches, e.begin, t.asked)
	for _, d := range stretches {
		for _, v := range d.changes {
			f.Changes++
			if v.deleted {
				f.Deletions++
			}
		}
	}
	f.Unwatched = f.Changes - len(f.Samples) - f.Never - f.Unclear
	return f
}

// stretch is a time in which a document was not up to date in answers.
type stretch struct {
	from, to time.Time // to is zero if it did not end
	earliest []edge    // the earliest change that is not reflected, as it moves on
}

type edge struct{ from, entered time.Time }

// life is one document's time.
type life struct {
	changes history
	behind  []stretch
}

// stretches says, for each document, when it was behind: from when a change entered until it or a later one was known to be in answers. Where a change was
// not watched, that is when an answer first said so, which is somewhat late.
func (l *ledger) stretches() []life {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []life
	for _, h := range l.docs {
		d := life{changes: h}
		seen := make([]time.Time, len(h))
		for i, v := range slices.Backward(h) {
			seen[i] = v.seen
			if !v.acked.IsZero() {
				n := sort.Search(len(l.claims), func(n int) bool { return l.claims[n].upTo.After(v.acked) })
				if n < len(l.claims) && (seen[i].IsZero() || l.claims[n].at.Before(seen[i])) {
					seen[i] = l.claims[n].at
				}
			}
			if i+1 < len(h) && !seen[i+1].IsZero() && (seen[i].IsZero() || seen[i+1].Before(seen[i])) {
				seen[i] = seen[i+1]
			}
		}
		for i, v := range h {
			last := len(d.behind) - 1
			if last >= 0 && (d.behind[last].to.IsZero() || d.behind[last].to.After(v.entered)) {
				// The one before it is not there yet: the earliest moves on when it is.
				s := &d.behind[last]
				if !s.to.IsZero() {
					s.earliest = append(s.earliest, edge{s.to, v.entered})
				}
				s.to = seen[i]
				continue
			}
			d.behind = append(d.behind, stretch{from: v.entered, to: seen[i], earliest: []edge{{v.entered, v.entered}}})
		}
		out = append(out, d)
	}
	return out
}

// grid looks at regular moments.
func grid(lives []life, begin, until time.Time) ([]Moment, float64, time.Duration) {
	step := max(until.Sub(begin)/400, 5*time.Millisecond)
	var when []time.Time
	// Somewhere within each step, for a regular look would fall in with the pace of the changes.
	random := rand.New(rand.NewPCG(uint64(len(lives)), 2))
	for t := begin; !t.Add(step).After(until); t = t.Add(step) {
		when = append(when, t.Add(time.Duration(random.Int64N(int64(step)))))
	}
	return at(lives, begin, when)
}

// at looks at given moments, and returns the means over those at which there was a document.
func at(lives []life, begin time.Time, when []time.Time) (moments []Moment, fresh float64, age time.Duration) {
	var sumFresh, sumAge float64
	n := 0
	for _, t := range when {
		m := Moment{At: t.Sub(begin)}
		documents, total := 0, 0.
		for i := range lives {
			d := &lives[i]
			c := sort.Search(len(d.changes), func(c int) bool { return d.changes[c].entered.After(t) })
			if c == 0 {
				continue
			}
			s := sort.Search(len(d.behind), func(s int) bool { return d.behind[s].from.After(t) }) - 1
			isBehind := s >= 0 && (d.behind[s].to.IsZero() || d.behind[s].to.After(t))
			if d.changes[c-1].deleted && !isBehind {
				continue // gone, as it should be: there is no document
			}
			documents++
			if isBehind {
				m.Waiting++
				edges := d.behind[s].earliest
				e := sort.Search(len(edges), func(e int) bool { return edges[e].from.After(t) }) - 1
				total += t.Sub(edges[max(e, 0)].entered).Seconds()
			}
		}
		if documents == 0 {
			continue
		}
		m.Fresh = 1 - float64(m.Waiting)/float64(documents)
		m.Age = time.Duration(total / float64(documents) * 1e9)
		moments = append(moments, m)
		sumFresh += m.Fresh
		sumAge += m.Age.Seconds()
		n++
	}
	if n > 0 {
		fresh, age = sumFresh/float64(n), time.Duration(sumAge/float64(n)*1e9)
	}
	return moments, fresh, age
}
