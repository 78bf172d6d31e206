package freshness

import "time"

// tally counts what was wrong with answers.
type tally struct {
	answers, mixed            int // of all
	returned, ghosts, foreign int
	cameBack                  int // answers that went back behind one before them
	// The questions, without what watchers ask.
	questions, unsatisfied int
	asked                  []time.Time
	stale, outdated        int
	felt                   struct{ stale, outdated, ghosts, returned, answers int }
	live, found, foundText int
	feltLive, feltFound    int
	// wrong names some documents that were wrong, with what.
	wrong []Fault
}

// Fault is one wrong answer.
type Fault struct {
	At    time.Duration
	What  string
	Query string
}

// maxFaults is how many of them are kept to be shown.
const maxFaults = 50

// question is one of the eval's own, with what is known of its probe.
type question struct {
	query string
	// closed are the texts that the stream has taken away by now; live is one that it has, "" if the question asks for none.
	closed []string
	live   string
	// owed tells that it carried tokens, so that what the answer holds is well defined.
	owed bool
}

// note judges an answer and counts. q is nil for a watcher's.
func (e *eval) note(a *asked, q *question) {
	var closed []string
	query := ""
	if q != nil {
		closed, query = q.closed, q.query
	}
	owes := e.ledger.judge(a, owed, e.number, closed)
	back := e.ledger.judge(a, shown, e.number, nil)
	var feels verdict
	var live, feltLive, inDocument, inText bool
	if q != nil {
		feels = e.ledger.judge(a, felt, e.number, closed)
		if q.live != "" && q.owed && a.answer.Satisfied {
			live, inDocument, inText = e.ledger.found(q.live, a, owed, e.number)
		} else if q.live != "" && !q.owed {
			feltLive, inDocument, _ = e.ledger.found(q.live, a, felt, e.number)
		}
	}
	e.ledger.settle(a, e.number)
	e.mu.Lock()
	defer e.mu.Unlock()
	t := &e.tally
	t.answers++
	t.returned += owes.returned
	t.ghosts += owes.ghosts
	t.foreign += owes.foreign
	for _, count := range []struct {
		is   bool
		n    *int
		what string
	}{
		{owes.mixed, &t.mixed, "chunks of two versions of one document"},
		{back.outdated > 0, &t.cameBack, "an older version came back after a newer one had been shown"},
		{owes.stale && q != nil, &t.stale, "a text that no live document has"},
		{owes.outdated > 0 && q != nil, &t.outdated, "a chunk of an older version than was due"},
		{owes.ghosts > 0, new(int), "a chunk of a deleted document"},
	} {
		if count.is {
			*count.n++
			if len(t.wrong) < maxFaults {
				t.wrong = append(t.wrong, Fault{At: a.ended.Sub(e.begin), What: count.what, Query: query})
			}
		}
	}
	if q == nil {
		return
	}
	t.questions++
	t.asked = append(t.asked, a.began)
	if q.owed {
		if !a.answer.Satisfied {
			t.unsatisfied++
		}
		if live {
			t.live++
			t.found += one(inDocument)
			t.foundText += one(inText)
		}
		return
	}
	t.felt.answers++
	t.felt.returned += feels.returned
	t.felt.ghosts += feels.ghosts
	t.felt.stale += one(feels.stale)
	t.felt.outdated += one(feels.outdated > 0)
	if feltLive {
		t.feltLive++
		t.feltFound += one(inDocument)
	}
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
