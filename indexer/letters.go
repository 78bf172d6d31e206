package indexer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/liverag/liverag/stream"
)

// signed adds to each letter which generation wrote it.
type signed struct {
	stream.DeadLetters
	generation string
}

func (s signed) Send(ctx context.Context, letters ...stream.DeadLetter) error {
	letters = slices.Clone(letters)
	for i := range letters {
		letters[i].Generation = s.generation
	}
	return s.DeadLetters.Send(ctx, letters...)
}

// deadLetter is the letter of a change.
func deadLetter(c *stream.Change, problem stream.Problem, attempts int) stream.DeadLetter {
	letter := stream.DeadLetter{Raw: c.Raw, Position: c.Position, Version: c.Version, Time: c.Time, Problem: problem, Attempts: attempts}
	if c.ID != "" && stream.CheckID(c.ID) == nil && (c.Tenant == "" || stream.CheckID(c.Tenant) == nil) {
		letter.Key = c.Key()
	}
	return letter
}

// Tried is what became of an attempt to index a dead letter's change again.
type Tried struct {
	ID string `json:"id"`
	// Outcome is redriven, superseded, rejected (it can't be indexed now either; it stays) or failed (try it again; it stays).
	Outcome string `json:"outcome"`
	// Code and Detail say why it was rejected or failed.
	Code   string `json:"code,omitempty"`
	Detail string `json:"detail,omitempty"`
}

const (
	triedRejected = "rejected"
	triedFailed   = "failed"
)

// redriveAtOnce and redriveBytes bound how many letters are tried in one reading of the log: their changes are in memory together.
const (
	redriveAtOnce = 256
	redriveBytes  = 64 << 20
)

// Redrive tries to index dead letters again, each in the generations that rejected it.
//
// Nothing is appended to the log. A copy of an old change at the log's end would be its document's newest there, whatever the index makes of it: compaction
// would keep it and remove a newer one, and the next replay would resurrect what was replaced or deleted. No look beforehand helps, since a
// newer change may come between the look and the append. Instead the change is read at its own place and applied at its own version, where the store's rule
// settles every race: an older version than the stored one does nothing. What a replay makes of the log stays what it was.
//
// A letter whose document has a newer change behind it in the log is superseded, and so is one that the log does not hold any more, since compaction has
// removed it in favour of a newer one, or that only generations rejected which have been dropped. These are settled without being tried.
// ErrNoLetter: one of them is not open; then nothing was tried.
func (x *Indexer) Redrive(ctx context.Context, ids ...string) ([]Tried, error) {
	open, err := x.config.Letters.List(ctx, stream.LetterQuery{})
	if err != nil {
		return nil, err
	}
	byID := make(map[string]*stream.Letter, len(open))
	for i := range open {
		byID[open[i].ID] = &open[i]
	}
	for _, id := range ids {
		if byID[id] == nil {
			return nil, fmt.Errorf("%w: %s", stream.ErrNoLetter, id)
		}
	}
	var batch []*stream.Letter
	var out []Tried
	bytes := 0
	for i, id := range ids {
		letter := byID[id]
		if !slices.Contains(ids[:i], id) {
			batch = append(batch, letter)
			bytes += letter.Size
		}
		if len(batch) == redriveAtOnce || bytes > redriveBytes || i == len(ids)-1 {
			tried, err := x.redrive(ctx, batch)
			out = append(out, tried...)
			if err != nil {
				return out, err
			}
			batch, bytes = nil, 0
		}
	}
	return out, nil
}

func (x *Indexer) redrive(ctx context.Context, batch []*stream.Letter) ([]Tried, error) {
	changes, superseded, err := x.reread(ctx, batch)
	if err != nil {
		return nil, err
	}
	out := make([]Tried, 0, len(batch))
	for _, letter := range batch {
		tried := Tried{ID: letter.ID, Outcome: string(stream.Superseded)}
		c := changes[letter.Position]
		switch {
		case foreign(letter):
			tried.Detail = "it is of a log that was there before under the same name"
		case superseded[letter.Position]:
			tried.Detail = "its document has a newer change"
		case c == nil:
			tried.Detail = "the log does not hold its change any more"
		default:
			tried = x.try(ctx, letter, c)
		}
		switch tried.Outcome {
		case triedRejected, triedFailed:
		default:
			err := x.config.Letters.Settle(ctx, stream.Outcome(tried.Outcome), letter.ID)
			if err != nil && !errors.Is(err, stream.ErrNoLetter) { // somebody else settled it meanwhile
				return out, err
			}
		}
		out = append(out, tried)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
	}
	return out, nil
}

// foreign tells whether a letter is of another log than today's.
func foreign(l *stream.Letter) bool { return strings.Contains(l.ID, "@") }

// reread reads the letters' changes from the log, as its settings are now, and tells which of them have a newer one of the same kind behind them.
func (x *Indexer) reread(ctx context.Context, batch []*stream.Letter) (changes map[stream.Position]*stream.Change, superseded map[stream.Position]bool, err error) {
	ends, err := x.config.Log.Ends(ctx)
	if err != nil {
		return nil, nil, err
	}
	from := make(map[int32]int64, len(ends))
	end := make(map[int32]int64, len(ends))
	for _, e := range ends {
		from[e.Partition], end[e.Partition] = e.Offset, e.Offset
	}
	wanted := make(map[stream.Position]bool, len(batch))
	for _, letter := range batch {
		if at := letter.Position; at.Offset < end[at.Partition] {
			wanted[at] = true
			from[at.Partition] = min(from[at.Partition], at.Offset)
		}
	}
	changes, superseded = make(map[stream.Position]*stream.Change), make(map[stream.Position]bool)
	if len(wanted) == 0 {
		return changes, superseded, nil
	}
	r, err := x.readLog(ctx, from)
	if err != nil {
		return nil, nil, err
	}
	defer r.close()
	type subject struct {
		key    string
		access bool
	}
	newest := make(map[subject][]*stream.Change) // of what is wanted
	err = r.until(ctx, ends, func(c *stream.Change) error {
		about := subject{c.Key(), c.Kind == stream.Access || c.Kind == stream.Invalid && strings.HasSuffix(string(c.Raw.Key), stream.AccessSuffix)}
		if c.Kind != stream.Invalid {
			newest[about] = slices.DeleteFunc(newest[about], func(old *stream.Change) bool {
				if c.Version < old.Version { // of another partition, read later
					return false
				}
				superseded[old.Position] = true
				return true
			})
		}
		if wanted[c.Position] {
			kept := *c
			changes[c.Position] = &kept
			newest[about] = append(newest[about], &kept) // poison counts as what its key says: content, or access
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for at := range superseded {
		delete(changes, at)
	}
	return changes, superseded, nil
}

// try applies a letter's change in every generation that rejected it.
func (x *Indexer) try(ctx context.Context, letter *stream.Letter, c *stream.Change) Tried {
	names := letter.Generations
	if len(names) == 0 {
		names = []string{Live}
	}
	tried := Tried{letter.ID, string(stream.Superseded), "", "the generations that rejected it were dropped"}
	for _, name := range names {
		g := x.lookup(name)
		if g == nil {
			continue
		}
		problem, err := g.redo(ctx, c, false)
		if err != nil {
			return Tried{letter.ID, triedFailed, "", fmt.Sprintf("generation %s: %v", name, err)}
		}
		if problem != nil {
			again := deadLetter(c, *problem, letter.Attempts+1)
			if err := (signed{x.config.DeadLetters, g.name}).Send(ctx, again); err != nil {
				return Tried{letter.ID, triedFailed, problem.Code, err.Error()}
			}
			tried = Tried{letter.ID, triedRejected, problem.Code, fmt.Sprintf("generation %s: %s", name, problem.Detail)}
		} else if tried.Outcome != triedRejected { // the others may take it all the same
			tried = Tried{ID: letter.ID, Outcome: string(stream.Redriven)}
		}
	}
	return tried
}

// Rejected is a change that a generation can't index; the document's version before it goes on being served.
type Rejected struct {
	Version int64
	Problem stream.Problem
	// Letter is the id of its dead letter.
	Letter string
}

// rejectedWait bounds how long an answer waits to learn of dead letters.
const rejectedWait = 250 * time.Millisecond

// Rejected tells whether the newest change of a document is an open dead letter of the generation: one above the version that it holds. It asks the dead letters
// themselves, so it is as true after a restart; nil if there is none, or if they can't be read now.
func (x *Indexer) Rejected(ctx context.Context, generation, key string, holds int64) *Rejected {
	if x.config.Letters == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, rejectedWait)
	defer cancel()
	letters, err := x.config.Letters.List(ctx, stream.LetterQuery{Key: key})
	if err != nil {
		return nil
	}
	var found *Rejected
	for i := range letters {
		l := &letters[i]
		version := l.Version
		if version == 0 {
			version = stream.Version(int32(holds>>40), l.Position.Offset) // likely: few documents have changes of two epochs
		}
		if !foreign(l) && version > holds && slices.Contains(l.Generations, generation) && (found == nil || version > found.Version) {
			found = &Rejected{Version: version, Problem: l.Problem, Letter: l.ID}
		}
	}
	return found
}
