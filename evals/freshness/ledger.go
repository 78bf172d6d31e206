package freshness

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
)

// version is one change of one document.
type version struct {
	// number is by what hits name it; it grows with every change of the document.
	number  int64
	deleted bool
	// text is what was written. exact tells whether hits have to equal its bytes: not if it is HTML, or not known.
	text  string
	exact bool
	// unread tells that the text was not kept.
	unread bool
	// entered is when the change went on its way to the log, on our clock; acked, by when it was certainly in it: zero before that.
	entered, acked time.Time
	// seen is the earliest moment from which it is known to be in answers, itself or a later version; zero: not yet.
	seen time.Time
	// observed is the end of the first answer that showed it.
	observed time.Time
	token    string
	covered  bool // a satisfied answer was asked for after its token
}

// mayBeAbsent tells whether a search may well return nothing of the document at this version: it is deleted, or has no word to be found by.
func (v *version) mayBeAbsent() bool { return v.deleted || !v.unread && blank(v.text) }

func blank(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) })
}

// history is one document's versions, ascending.
type history []*version

func (h history) find(number int64) (int, bool) {
	return slices.BinarySearchFunc(h, number, func(v *version, n int64) int { return cmp.Compare(v.number, n) })
}

// claim is what an answer said of its freshness, on our clock: all that was in the log before upTo was in the answer, which came at at.
type claim struct{ upTo, at time.Time }

// ledger is the fold of all changes, and what is known of when each was in answers. Safe for concurrent use.
type ledger struct {
	// partial tells that there were changes before the first one entered, and are documents that none was entered of.
	partial bool

	mu   sync.Mutex
	docs map[string]history
	// earlier are documents of which an answer showed a version from before the first one entered.
	earlier map[string]bool
	// uncovered are acknowledged versions that no satisfied answer was asked for after, in the order of their acknowledgement.
	uncovered []pending
	// claims grow in both fields.
	claims []claim
}

type pending struct {
	id string
	v  *version
}

func newLedger() *ledger { return &ledger{docs: map[string]history{}, earlier: map[string]bool{}} }

// enter notes a change before it is sent, and returns it with the version before it, nil if there is none.
func (l *ledger) enter(id string, v *version) (before *version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.docs[id]
	if len(h) > 0 {
		before = h[len(h)-1]
	}
	l.docs[id] = append(h, v)
	return before
}

// again notes that the change is sent once more, because the try before was refused.
func (l *ledger) again(v *version, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v.entered = at
}

// ack notes that a change is in the log.
func (l *ledger) ack(id string, v *version, token string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v.acked, v.token = at, token
	if token != "" {
		l.uncovered = append(l.uncovered, pending{id, v})
	}
}

// reflect notes that an answer that ended at at showed the version with the number, or that none of the document is there any more, up to it.
func (l *ledger) reflect(id string, number int64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.docs[id]
	i, ok := h.find(number)
	if !ok {
		return
	}
	if v := h[i]; v.observed.IsZero() || at.Before(v.observed) {
		v.observed = at
	}
	l.known(h, i, at)
}

// known is for the versions up to h[i], under the lock.
func (l *ledger) known(h history, i int, at time.Time) {
	for ; i >= 0; i-- {
		if v := h[i]; v.seen.IsZero() || at.Before(v.seen) {
			v.seen = at
		} else {
			return // those before it are known since at least as long
		}
	}
}

// latest returns a document's newest version.
func (l *ledger) latest(id string) *version {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.docs[id]; len(h) > 0 {
		return h[len(h)-1]
	}
	return nil
}

// reading is what it says that an answer holds nothing of a document.
type reading int

const (
	// notYet: the change is still to come.
	notYet reading = iota
	// reached: the answer is at a version that has nothing to show, and that is the change or a later one.
	reached
	// undecidable: nothing was there before the change either, so there is nothing to see.
	undecidable
)

// absence reads an answer that holds nothing of a document whose change v is awaited. at is set where it is reached.
func (l *ledger) absence(id string, v *version) (at *version, r reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.docs[id]
	i, _ := h.find(v.number)
	// What an answer has shown before the change. That the system says so is not enough: what it never showed can't be seen to go.
	u := i - 1
	for u >= 0 && h[u].observed.IsZero() {
		u--
	}
	if u >= 0 && !h[u].mayBeAbsent() || u < 0 && l.earlier[id] {
		first := u + 1 + slices.IndexFunc(h[u+1:], (*version).mayBeAbsent)
		switch {
		case first <= u:
			return nil, notYet
		case first >= i:
			return h[first], reached
		}
	}
	switch last := h[len(h)-1]; {
	case l.partial && i == 0 && v.deleted:
		return v, reached // whatever was there before
	case v.mayBeAbsent() && l.inAnswers(v), last.mayBeAbsent() && l.inAnswers(last):
		return nil, undecidable
	}
	return nil, notYet
}

// inAnswers tells whether the system says that a version is in answers, or never says anything of the kind, under the lock.
func (l *ledger) inAnswers(v *version) bool {
	return !v.seen.IsZero() || len(l.claims) == 0 || !v.acked.IsZero() && v.acked.Before(l.claims[len(l.claims)-1].upTo)
}

// left are the documents that may be there still.
func (l *ledger) left() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []string
	for id, h := range l.docs {
		if last := h[len(h)-1]; !last.deleted || last.acked.IsZero() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// texts are those that a search may still return of a document, newest first, at most n.
func (l *ledger) texts(id string, n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, v := range slices.Backward(l.docs[id]) {
		if len(out) == n {
			break
		}
		if !v.deleted && v.text != "" {
			out = append(out, v.text)
		}
	}
	return out
}

// maxTokens is how many tokens one question carries.
const maxTokens = 500

// tokens returns those of the newest changes that are not known to be in answers.
func (l *ledger) tokens() []pending {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.uncovered = slices.DeleteFunc(l.uncovered, func(p pending) bool { return p.v.covered })
	return slices.Clone(l.uncovered[max(0, len(l.uncovered)-maxTokens):])
}

// asked is a question under judgement.
type asked struct {
	began, ended time.Time
	answer       Answer
	// after are the changes whose tokens it carried.
	after []pending
}

// upTo is the time on our clock before which everything in the log is in the answer, as it says itself. lag is rounded to two or three digits.
func (a *asked) upTo() time.Time {
	if a.answer.Lag < 0 {
		return time.Time{}
	}
	return a.began.Add(-a.answer.Lag - a.answer.Lag/20 - time.Microsecond)
}

// settle takes from an answer what it shows, and what it says of its freshness. It has been judged.
func (l *ledger) settle(a *asked, number numbering) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, hit := range a.answer.Hits {
		n, ok := number(hit)
		h := l.docs[hit.Document]
		if i, found := h.find(n); ok && found {
			if v := h[i]; v.observed.IsZero() || a.ended.Before(v.observed) {
				v.observed = a.ended
			}
			l.known(h, i, a.ended)
		} else if ok && l.partial && len(h) > 0 && n < h[0].number {
			l.earlier[hit.Document] = true
		}
	}
	if upTo := a.upTo(); !upTo.IsZero() && (len(l.claims) == 0 || upTo.After(l.claims[len(l.claims)-1].upTo)) {
		// An answer that ended earlier than the one before it may be noted after it.
		at := a.ended
		if n := len(l.claims); n > 0 && at.Before(l.claims[n-1].at) {
			at = l.claims[n-1].at
		}
		l.claims = append(l.claims, claim{upTo, at})
	}
	if !a.answer.Satisfied {
		return
	}
	for _, p := range a.after {
		p.v.covered = true
		h := l.docs[p.id]
		if i, ok := h.find(p.v.number); ok {
			l.known(h, i, a.ended)
		}
	}
}

// measure says against what hits are judged.
type measure int

const (
	// owed: what the system itself says is in the answer has to be.
	owed measure = iota
	// felt: what was in the log when the question was asked should be.
	felt
	// shown: what an earlier answer has shown stays.
	shown
)

// due is the place in its history of the version that the answer has to reflect, -1 if there is none.
func (h history) due(a *asked, m measure, covered map[*version]bool) int {
	upTo := a.upTo()
	for i, v := range slices.Backward(h) {
		switch m {
		case owed:
			if !v.acked.IsZero() && !upTo.IsZero() && v.acked.Before(upTo) || covered[v] {
				return i
			}
		case felt:
			if !v.acked.IsZero() && v.acked.Before(a.began) {
				return i
			}
		case shown:
			if !v.observed.IsZero() && v.observed.Before(a.began) {
				return i
			}
		}
	}
	return -1
}

// verdict is what is wrong with an answer, by one measure.
type verdict struct {
	returned int
	// ghosts are chunks of documents that are deleted, outdated those of an older version than is due, or whose text is not the version's.
	ghosts, outdated int
	// stale: one of the chunks holds the text of a closed probe that no live document has.
	stale bool
	// mixed: two chunks are of two versions of one document.
	mixed bool
	// foreign are chunks of documents that are not the eval's.
	foreign int
}

// numbering says which version a hit is of.
type numbering func(Hit) (int64, bool)

// judge compares an answer with the fold. closed are the texts of probes that the stream has taken away.
func (l *ledger) judge(a *asked, m measure, number numbering, closed []string) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	covered := map[*version]bool{}
	if m == owed && a.answer.Satisfied {
		for _, p := range a.after {
			covered[p.v] = true
		}
	}
	v := verdict{returned: len(a.answer.Hits)}
	versions := map[string][2]int64{}
	for _, hit := range a.answer.Hits {
		n, ok := number(hit)
		both := [2]int64{n, hit.Version}
		if first, twice := versions[hit.Document]; twice && first != both {
			v.mixed = true
		}
		versions[hit.Document] = both
		h, known := l.docs[hit.Document]
		if !known || !ok {
			if !l.partial {
				v.foreign++
			}
			continue
		}
		due := h.due(a, m, covered)
		i, found := h.find(n)
		if !found && l.partial && (due < 0 || n > h[due].number) {
			continue // from before the first one entered, or one that is not entered yet
		}
		switch {
		case due >= 0 && h[due].deleted && (!found || i <= due):
			v.ghosts++
			fallthrough
		case !found || i < due || h[i].deleted || h[i].exact && !h[i].holds(hit):
			v.outdated++
			v.stale = v.stale || l.holdsClosed(hit.Text, closed, a, m, covered)
		}
	}
	return v
}

// holds tells whether a hit's text is the version's at its place.
func (v *version) holds(hit Hit) bool {
	return hit.Start >= 0 && hit.Start <= hit.End && hit.End <= len(v.text) && v.text[hit.Start:hit.End] == hit.Text
}

// holdsClosed tells whether a chunk holds the text of a closed probe that no document has that may be in the answer, under the lock.
func (l *ledger) holdsClosed(chunk string, closed []string, a *asked, m measure, covered map[*version]bool) bool {
	for _, raw := range closed {
		if strings.Contains(chunk, raw) && len(l.holders(raw, a, m, covered)) == 0 {
			return true
		}
	}
	return false
}

// holders are the documents of which a version that may be in the answer holds the text: the one that is due, and those that follow it, under the lock.
func (l *ledger) holders(raw string, a *asked, m measure, covered map[*version]bool) map[string]bool {
	out := map[string]bool{}
	for id, h := range l.docs {
		for _, v := range h[max(0, h.due(a, m, covered)):] {
			if !v.deleted && strings.Contains(v.text, raw) {
				out[id] = true
				break
			}
		}
	}
	return out
}

// found tells whether a text that is live is in the answer: in a chunk's own text, or at least in a chunk's document, for the chunker may cut the text in two.
// live is false if no document has it.
func (l *ledger) found(raw string, a *asked, m measure, number numbering) (live, inDocument, inText bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	covered := map[*version]bool{}
	if m == owed && a.answer.Satisfied {
		for _, p := range a.after {
			covered[p.v] = true
		}
	}
	// Live is what has it at the version that is due, and at all that follow: the others are on their way out.
	live = false
	holders := map[string]bool{}
	for id, h := range l.docs {
		due := h.due(a, m, covered)
		if due < 0 {
			continue
		}
		all := !slices.ContainsFunc(h[due:], func(v *version) bool { return v.deleted || !strings.Contains(v.text, raw) })
		if all {
			live, holders[id] = true, true
		}
	}
	for _, hit := range a.answer.Hits {
		n, ok := number(hit)
		h := l.docs[hit.Document]
		i, known := h.find(n)
		if !ok || !known || h[i].deleted || !strings.Contains(h[i].text, raw) {
			continue
		}
		inDocument = inDocument || holders[hit.Document]
		inText = inText || strings.Contains(hit.Text, raw)
	}
	return live, inDocument, inText
}
