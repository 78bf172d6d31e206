package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// Live is the alias that names the generation which answers.
const Live = "live"

// control is the value of the register: which generations there are, and which one is live. Every process on the same log follows it.
type control struct {
	Format int    `json:"format"`
	Live   string `json:"live"`
	// Previous was live before the last promote that was not taken back; Earlier before those before it, oldest first.
	Previous string   `json:"previous,omitempty"`
	Earlier  []string `json:"earlier,omitempty"`
	// Moves counts promotes and rollbacks.
	Moves       int64           `json:"moves,omitempty"`
	Generations map[string]Spec `json:"generations"`
}

// earlierKept is how many promotes can be taken back, beside the last one.
const earlierKept = 15

// promote makes a generation the live one.
func (c *control) promote(name string) {
	if c.Previous != "" {
		c.Earlier = append(c.Earlier, c.Previous)
		c.Earlier = c.Earlier[max(0, len(c.Earlier)-earlierKept):]
	}
	c.Previous, c.Live = c.Live, name
	c.Moves++
}

// rollBack takes the last promote back: what is taken back is forgotten, so that the next one goes further.
func (c *control) rollBack() {
	c.Live, c.Previous = c.Previous, ""
	if n := len(c.Earlier); n > 0 {
		c.Previous, c.Earlier = c.Earlier[n-1], c.Earlier[:n-1]
	}
	c.Moves++
}

// forget takes a generation out of what can be gone back to. A promote between the same generation before and after is none any more.
func (c *control) forget(name string) {
	var way []string
	for _, earlier := range append(slices.Clone(c.Earlier), c.Previous) {
		if earlier != "" && earlier != name && (len(way) == 0 || way[len(way)-1] != earlier) {
			way = append(way, earlier)
		}
	}
	if n := len(way); n > 0 && way[n-1] == c.Live {
		way = way[:n-1]
	}
	c.Earlier, c.Previous = nil, ""
	if n := len(way); n > 0 {
		c.Earlier, c.Previous = way[:n-1], way[n-1]
	}
}

const controlFormat = 1

// Spec is a generation as it was asked for.
type Spec struct {
	vectordb.Generation
	Recipe vectordb.Recipe `json:"recipe"`
	// Group ends in something unique, so that a generation dropped and made again inherits no offsets.
	Group   string    `json:"group"`
	Created time.Time `json:"created"`
	// Horizon is how far the log reached when the generation was made. What lies below is history: it does not count for freshness.
	Horizon map[int32]int64 `json:"horizon"`
	// AsOf is a moment up to which the generation was found to be right: everything that had entered the log is in it, deletes too. It is
	// kept where processes share the generation, and comes hours behind.
	AsOf time.Time `json:"as_of,omitzero"`
	// Doubted is when a process found that deletes were missed. What was found right before that says nothing any more.
	Doubted time.Time `json:"doubted,omitzero"`
	Extent
	// Share of the model's time that it may take while it is not live; 0: all.
	Share float64 `json:"share,omitempty"`
	// Spread tells that partitions were added to the topic before: see stream.From.
	Spread bool `json:"spread,omitempty"`
	// Desired is what its pipeline should do.
	Desired Desired `json:"desired"`
}

// Desired is what a caller wants of a generation.
type Desired string

const (
	Run    Desired = "run"
	Pause  Desired = "pause"
	Cancel Desired = "cancel"
	// drop is the first half of dropping: whoever sees it finishes the job, after a crash too.
	drop Desired = "drop"
)

var (
	// ErrNotFound: no generation or alias of that name.
	ErrNotFound = errors.New("no such generation")
	// ErrExists: the name is taken by another recipe.
	ErrExists = errors.New("generation exists")
	// ErrNotCaughtUp: a generation that has not folded the whole log can't answer for it.
	ErrNotCaughtUp = errors.New("generation has not caught up")
	// ErrInUse: an alias names the generation.
	ErrInUse = errors.New("generation is in use")
	// ErrNoPrevious: there was no promote to take back.
	ErrNoPrevious = errors.New("nothing to roll back to")
	// ErrRecipe: the recipe can't be built.
	ErrRecipe = errors.New("bad recipe")
	// ErrCondition: a condition of a promote that can't be read.
	ErrCondition = errors.New("bad condition")
	// ErrNoEvidence: there is nothing to measure a promote's conditions on.
	ErrNoEvidence = errors.New("conditions can't be measured")
	// ErrMoved: another generation became live while a promote's conditions were measured.
	ErrMoved = errors.New("live moved meanwhile")
	// ErrPartial: a generation of a part of the log can't answer for the corpus.
	ErrPartial = errors.New("generation is partial")
	// ErrExtent: a part of the log, or of the model's time, that can't be.
	ErrExtent = errors.New("bad replay")
	// ErrName: not [a-z][a-z0-9_]{0,62}, or reserved.
	ErrName = errors.New("bad generation name")
)

// doubted tells whether deletes were missed since it was found to be right.
func (s Spec) doubted() bool { return !s.Doubted.IsZero() }

func checkName(name string) error {
	if vectordb.CheckName(name) != nil || name == Live {
		return fmt.Errorf("%w %q: it is [a-z][a-z0-9_]{0,62}, and not %q", ErrName, name, Live)
	}
	return nil
}

func decodeControl(value []byte) (control, error) {
	c := control{Format: controlFormat, Generations: map[string]Spec{}}
	if value == nil {
		return c, nil
	}
	if err := json.Unmarshal(value, &c); err != nil {
		return c, fmt.Errorf("read control topic: %w", err)
	}
	if c.Format != controlFormat {
		return c, fmt.Errorf("read control topic: it has format %d, this program knows %d: update liverag", c.Format, controlFormat)
	}
	return c, nil
}

// load reads the control value as of everything acknowledged before the call.
func (x *Indexer) load(ctx context.Context) (sequence int64, c control, err error) {
	sequence, value, err := x.config.Register.Load(ctx)
	if err != nil {
		return 0, control{}, fmt.Errorf("read control topic: %w", err)
	}
	c, err = decodeControl(value)
	return sequence, c, err
}

// change edits the control value until nobody came in between. edit may return an error to give up, and errUnchanged to leave all as it is.
func (x *Indexer) change(ctx context.Context, edit func(*control) error) error {
	for {
		sequence, c, err := x.load(ctx)
		if err != nil {
			return err
		}
		if err := edit(&c); err != nil {
			if errors.Is(err, errUnchanged) {
				return x.follow(ctx, sequence, c)
			}
			return err
		}
		value, err := json.Marshal(c)
		if err != nil {
			return err
		}
		switch err := x.config.Register.CompareAndSet(ctx, sequence, value); {
		case errors.Is(err, stream.ErrConflict):
			continue
		case err != nil:
			return fmt.Errorf("write control topic: %w", err)
		}
		return x.follow(ctx, sequence+1, c)
	}
}

var (
	errUnchanged = errors.New("unchanged")
	errGone      = errors.New("gone")
)

// Create starts a replay of the whole log into a new generation: [Indexer.Replay] with a name and a recipe.
func (x *Indexer) Create(ctx context.Context, name string, recipe vectordb.Recipe) (Info, error) {
	return x.Replay(ctx, Replay{Name: name, Recipe: recipe})
}

// Replay starts a replay of the log into a new generation. Asking again for the same name, recipe and extent returns what is there.
func (x *Indexer) Replay(ctx context.Context, r Replay) (Info, error) {
	if err := r.check(time.Now()); err != nil {
		return Info{}, err
	}
	return x.create(ctx, r, false)
}

// create is Create; first asks for a generation only if there is no live one.
func (x *Indexer) create(ctx context.Context, r Replay, first bool) (Info, error) {
	name := r.Name
	parts, err := x.build(ctx, r.Recipe, 0)
	if err != nil {
		return Info{}, err
	}
	identity, err := x.config.Log.Identity(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("ask the log who it is: %w", err)
	}
	ends, err := x.config.Log.Ends(ctx)
	if err != nil {
		return Info{}, fmt.Errorf("ask the log for its ends: %w", err)
	}
	if name != "" {
		if err := checkName(name); err != nil {
			return Info{}, err
		}
	}
	wanted := name
	err = x.change(ctx, func(c *control) error {
		if first && c.Live != "" { // another process was quicker
			name = c.Live
			return errUnchanged
		}
		name = wanted
		spec := newSpec(parts, identity, ends, time.Now())
		spec.Extent, spec.Share = r.Extent, r.Share
		if name == "" {
			name = freeName(parts, spec.Fingerprint, c.Generations)
		} else if old, ok := c.Generations[name]; ok {
			if old.Fingerprint == spec.Fingerprint && old.Origin == spec.Origin && old.Extent.equal(spec.Extent) && old.Desired != drop && old.Desired != Cancel {
				return errUnchanged
			}
			return fmt.Errorf("%w: %s (%s)", ErrExists, name, describe(old.Recipe))
		}
		spec.Name = name
		spec.Spread = c.spread(identity)
		spec.Group = newGroup(identity.Topic, name)
		c.Generations[name] = spec
		if c.Live == "" {
			c.Live = name
		}
		return nil
	})
	if err != nil {
		return Info{}, err
	}
	return x.Info(name)
}

func newSpec(parts Parts, identity stream.Identity, ends []stream.End, now time.Time) Spec {
	spec := Spec{Recipe: parts.Recipe, Created: now.UTC().Truncate(time.Millisecond), Horizon: map[int32]int64{}, Desired: Run}
	spec.Fingerprint = parts.fingerprint()
	spec.Dim = parts.Embedder.Dim()
	spec.Origin = origin(identity)
	for _, end := range ends {
		spec.Horizon[end.Partition] = end.Offset
	}
	return spec
}

// newGroup names a consumer group that nobody has had.
func newGroup(topic, generation string) string {
	return fmt.Sprintf("liverag.%s.%s-%s", topic, generation, newID())
}

// origin names a log together with its partition count: ids are spread by it, so under another count the order of a document's changes is lost.
func origin(identity stream.Identity) string {
	return fmt.Sprintf("%s/%s/%d", identity.Topic, identity.ID, identity.Partitions)
}

// spread tells whether the log had another number of partitions when one of the generations was made.
func (c *control) spread(identity stream.Identity) bool {
	log := strings.TrimSuffix(origin(identity), strconv.Itoa(int(identity.Partitions)))
	for _, spec := range c.Generations {
		if strings.HasPrefix(spec.Origin, log) && (spec.Spread || spec.Origin != origin(identity)) {
			return true
		}
	}
	return false
}

// freeName is like markdown200_static_5d1c.
func freeName(parts Parts, fingerprint string, taken map[string]Spec) string {
	model := parts.Recipe.Embedder.Model
	if i := strings.LastIndexByte(model, '/'); i >= 0 {
		model = model[i+1:]
	}
	cut := fmt.Sprintf("%s%d", parts.Recipe.Chunker.Strategy, parts.Recipe.Chunker.Tokens)
	if parts.Outside {
		cut = outsideName(parts.Recipe.Chunker.Strategy)
	}
	base := fmt.Sprintf("%s_%s_%s", cut, model, fingerprint[:4])
	base = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToLower(base))
	base = base[:min(len(base), 58)]
	name := base
	for i := 2; ; i++ {
		if _, ok := taken[name]; !ok {
			return name
		}
		name = fmt.Sprintf("%s_%d", base, i)
	}
}

// outsideName is what somebody else's chunker is called in a generation's name: of exec:./my_chunker.py --size 3 my_chunker, of http://host:80/cut host.
func outsideName(strategy string) string {
	scheme, rest, _ := strings.Cut(strategy, ":")
	name := ""
	if scheme == "exec" {
		name, _, _ = strings.Cut(strings.TrimSpace(rest), " ")
		name = name[strings.LastIndexByte(name, '/')+1:]
		name, _, _ = strings.Cut(name, ".")
	} else {
		name, _, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		name, _, _ = strings.Cut(name, ":")
	}
	if name == "" || !('a' <= name[0]|0x20 && name[0]|0x20 <= 'z') {
		name = "chunker_" + name
	}
	return name
}

func describe(r vectordb.Recipe) string {
	if strings.Contains(r.Chunker.Strategy, ":") { // somebody else's, which has a budget of its own
		return r.Chunker.Strategy + ", " + r.Embedder.Model
	}
	return fmt.Sprintf("%s %d/%d %s, %s", r.Chunker.Strategy, r.Chunker.Tokens, r.Chunker.Overlap, r.Chunker.Tokenizer, r.Embedder.Model)
}

// Promote moves the alias live to a generation that has caught up, in one step.
func (x *Indexer) Promote(ctx context.Context, name string) (Info, error) {
	return x.promote(ctx, name, nil)
}

// promote is Promote; against, if not nil, is the generation that has to be live still.
func (x *Indexer) promote(ctx context.Context, name string, against *generation) (Info, error) {
	if err := x.promotable(ctx, name); err != nil {
		return Info{}, err
	}
	err := x.change(ctx, func(c *control) error {
		spec, ok := c.Generations[name]
		switch {
		case !ok || spec.Desired == drop:
			return fmt.Errorf("%w: %s", ErrNotFound, name)
		case against != nil && (c.Live != against.name || c.Generations[c.Live].Group != against.group):
			return fmt.Errorf("%w: %s was measured against %s, and %s is live now; nothing was promoted: ask again", ErrMoved, name, against.name, c.Live)
		case c.Live == name:
			return errUnchanged
		case spec.Partial():
			return fmt.Errorf("%w: %s", ErrPartial, name)
		case spec.Desired != Run:
			return fmt.Errorf("%w: %s was stopped", ErrNotCaughtUp, name)
		}
		c.promote(name)
		return nil
	})
	if err != nil {
		return Info{}, err
	}
	return x.Info(name)
}

// promoteWait is how long a promote waits for the generation to reach what is in the log now.
const promoteWait = 2 * time.Second

// promotable tells whether a generation may answer: it works, and holds everything that is in the log now.
func (x *Indexer) promotable(ctx context.Context, name string) error {
	g := x.lookup(name)
	if g == nil {
		return fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if _, err := g.usable(); err != nil {
		return err
	}
	if g.extent.Partial() {
		return fmt.Errorf("%w: %s holds %s, and can be asked and compared, but not promoted; replay the whole log with its recipe", ErrPartial, name, g.extent.describe())
	}
	if d := g.desired(); d != Run {
		return fmt.Errorf("%w: %s was stopped (%s)", ErrNotCaughtUp, name, d)
	}
	wait, cancel := context.WithTimeout(ctx, promoteWait)
	defer cancel()
	if err := x.WaitAsOf(wait, name, time.Now()); err != nil {
		info := g.info()
		return fmt.Errorf("%w: %s is %s, %s", ErrNotCaughtUp, name, info.State, info.Progress)
	}
	return nil
}

// Moved tells whether the alias was ever moved, by a promote or a rollback.
func (x *Indexer) Moved() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.control.Moves > 0 || x.control.Previous != "" // which those that count no moves have written
}

// Rollback takes the last promote back: the alias moves to where it was before. Another one takes back the promote before that, and so on, until there is none.
func (x *Indexer) Rollback(ctx context.Context) (Info, error) {
	x.mu.Lock()
	name := x.control.Previous
	x.mu.Unlock()
	if name == "" || x.lookup(name) == nil {
		return Info{}, fmt.Errorf("%w: no promote is left to be taken back; promote lets any generation answer", ErrNoPrevious)
	}
	if err := x.promotable(ctx, name); err != nil {
		return Info{}, err
	}
	err := x.change(ctx, func(c *control) error {
		if spec, ok := c.Generations[name]; !ok || spec.Desired != Run || c.Previous != name {
			return fmt.Errorf("%w: somebody else changed the generations; look again", ErrNoPrevious)
		}
		c.rollBack()
		return nil
	})
	if err != nil {
		return Info{}, err
	}
	return x.Info(name)
}

// Drop removes a generation that no alias names, and frees its space.
func (x *Indexer) Drop(ctx context.Context, name string) error {
	err := x.change(ctx, func(c *control) error {
		spec, ok := c.Generations[name]
		if !ok && name != Live {
			return fmt.Errorf("%w: %s", ErrNotFound, name)
		}
		if name == Live || c.Live == name {
			return fmt.Errorf("%w: %s is live; promote another one first", ErrInUse, name)
		}
		spec.Desired = drop
		c.Generations[name] = spec
		c.forget(name)
		return nil
	})
	if err != nil {
		return err
	}
	return x.awaitDropped(ctx, name)
}

// Set pauses, resumes or cancels a generation's pipeline. A cancelled one can only be dropped.
func (x *Indexer) Set(ctx context.Context, name string, desired Desired) (Info, error) {
	err := x.change(ctx, func(c *control) error {
		spec, ok := c.Generations[name]
		switch {
		case !ok || spec.Desired == drop:
			return fmt.Errorf("%w: %s", ErrNotFound, name)
		case spec.Desired == desired:
			return errUnchanged
		case c.Live == name && desired != Run:
			return fmt.Errorf("%w: %s is live", ErrInUse, name)
		case spec.Desired == Cancel:
			return fmt.Errorf("%w: %s was cancelled; drop it and replay anew", ErrInUse, name)
		}
		spec.Desired = desired
		c.Generations[name] = spec
		return nil
	})
	if err != nil {
		return Info{}, err
	}
	return x.Info(name)
}

// List returns every generation, the live one first, then by name.
func (x *Indexer) List() []Info {
	x.mu.Lock()
	all := slices.Collect(maps.Values(x.generations))
	x.mu.Unlock()
	out := []Info{}
	for _, g := range all {
		if g.desired() != drop {
			out = append(out, g.info())
		}
	}
	slices.SortFunc(out, func(a, b Info) int {
		if (len(a.Alias) > 0) != (len(b.Alias) > 0) {
			return len(b.Alias) - len(a.Alias)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// Info describes the generation or alias of that name.
func (x *Indexer) Info(name string) (Info, error) {
	g := x.lookup(name)
	if g == nil {
		return Info{}, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	return g.info(), nil
}
