package githistory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Kind says what happened to a file.
type Kind uint8

const (
	// Added: the file is new, or was no text before.
	Added Kind = iota + 1
	// Modified: the content is another. A change of the mode alone is none.
	Modified
	// Renamed: the file of Change.From is at Change.Path now, its content the same or similar (at least 50 %).
	Renamed
	// Removed: the file is gone, or is no text any more; then Change.Reason says why.
	Removed
	// LeftOut: a new content that is no text, at a path that held none before. Change.Reason says why.
	LeftOut
	// Complete: all changes up to this commit have been given. It comes once for each commit of a history, whether or not it changed anything,
	// and once at the end of a difference or a state.
	Complete
)

// Change is what one commit did to one file.
type Change struct {
	Kind   Kind
	Commit Commit
	// Path is below the repository's folder, with slashes, byte for byte as git has it. "" for Complete.
	Path string
	// From is the former path of a Renamed file.
	From string
	// Content is the whole new content of an Added, Modified or Renamed file, byte for byte as it is committed (no conversion of line ends).
	Content []byte
	// Reason is set for LeftOut, and for Removed where the file is still there but no text.
	Reason Reason
}

// Options say which files are looked at.
type Options struct {
	// Select decides by its path whether a file is one of those that matter; nil takes all. It is called before any content is read, for former
	// paths too, and must answer alike every time.
	Select func(path string) bool
	// MaxBytes is the largest text. 0: no limit.
	MaxBytes int64
	// After is a time that no commit's may be before: the last one of what was read earlier.
	After time.Time
}

// History gives the changes of every commit after `from` ("" is before the first) up to `to`, oldest first. `to` must continue `from`.
// A renamed file comes as one change; a merge as one step. After an error nothing more comes.
func (r *Repository) History(ctx context.Context, from, to string, opt Options) iter.Seq2[Change, error] {
	return r.changes(ctx, opt, func(ctx context.Context, emit func(item) error) error {
		clock := opt.After
		return r.walk(ctx, append([]string{"--reverse"}, span(from, to)...), renames, func(e entry) error {
			e.commit.Time = later(e.commit.Time, &clock)
			return emit(item{entry: e})
		})
	})
}

// Difference gives what has to change in the files of one commit so that they are those of another, related to it or not. All of it is said to
// be of the second commit.
func (r *Repository) Difference(ctx context.Context, from, to string, opt Options) iter.Seq2[Change, error] {
	return r.changes(ctx, opt, func(ctx context.Context, emit func(item) error) error {
		commit, err := r.commit(ctx, to)
		if err != nil {
			return err
		}
		clock := opt.After
		commit.Time = later(commit.Time, &clock)
		if err := r.compare(ctx, from, to, func(e entry) error {
			e.commit = commit
			return emit(item{entry: e})
		}); err != nil {
			return err
		}
		return emit(item{entry: entry{commit: commit}})
	})
}

// Span is a part of the history that some files may still be as in: everything between two commits, step by step if the second continues the first.
type Span struct{ From, To string }

// State gives the files of a commit as Added, each with the commit that changed it last. With spans it brings a copy of the files into line
// of which nobody knows at what commit it is: every file that some commit of the spans had, and that this commit does not have or has as no text, is given
// as Removed, and what the spans had is Modified. Which of the files that were there before mattered is decided by `doubt` (nil: Options.Select).
func (r *Repository) State(ctx context.Context, commit string, opt Options, doubt func(path string) bool, spans ...Span) iter.Seq2[Change, error] {
	return r.changes(ctx, opt, func(ctx context.Context, emit func(item) error) error {
		end, err := r.commit(ctx, commit)
		if err != nil {
			return err
		}
		clock := opt.After
		end.Time = later(end.Time, &clock)
		files, err := r.files(ctx, commit)
		if err != nil {
			return err
		}
		if doubt == nil {
			doubt = opt.selects
		}
		doubtful := map[string]bool{}
		for _, s := range spans {
			err := r.touched(ctx, s, func(path string) error {
				if doubtful[path] || !doubt(path) {
					return nil
				}
				doubtful[path] = true
				if _, there := files[path]; there {
					return nil
				}
				return emit(item{text: true, entry: entry{commit: end, old: side{path: path, mode: regular}}})
			})
			if err != nil {
				return err
			}
		}
		for path, s := range files {
			if s.mode == regular && !opt.selects(path) {
				delete(files, path)
			}
		}
		if err := r.lastChanges(ctx, commit, files, func(s side, c Commit) error {
			if !doubtful[s.path] {
				return emit(item{entry: entry{commit: c, new: s}})
			}
			// If it is no text now, it is removed, because it may have been some.
			return emit(item{text: true, entry: entry{commit: c, old: side{path: s.path, mode: regular}, new: s}})
		}); err != nil {
			return err
		}
		return emit(item{entry: entry{commit: end}})
	})
}

// Recent gives the files as they were n steps before a commit, and then those steps: a short history that leads to the same end as the whole.
func (r *Repository) Recent(ctx context.Context, commit string, n int, opt Options) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		base, err := r.Back(ctx, commit, n)
		if err != nil {
			yield(Change{}, err)
			return
		}
		if base != "" {
			for c, err := range r.State(ctx, base, opt, nil) {
				if !yield(c, err) || err != nil {
					return
				}
				opt.After = c.Commit.Time // of Complete in the end, which is the latest
			}
		}
		r.History(ctx, base, commit, opt)(yield)
	}
}

func (o *Options) selects(path string) bool { return o.Select == nil || o.Select(path) }

func later(t time.Time, clock *time.Time) time.Time {
	if t.Before(*clock) {
		return *clock
	}
	*clock = t
	return t
}

// mode is what a tree's entry is.
type mode uint8

const (
	absent mode = iota
	regular
	link
	submodule
)

// side is a file before or after a change.
type side struct {
	path   string
	mode   mode
	object string
}

// entry is one line of a comparison of trees. One without sides ends its commit.
type entry struct {
	commit   Commit
	old, new side
}

// modeAlone tells a file whose content is as it was.
func (e *entry) modeAlone() bool {
	return e.old.mode == regular && e.new.mode == regular && e.old.path == e.new.path && e.old.object == e.new.object
}

// item is an entry on its way to the reader of contents.
type item struct {
	entry
	// asked: the new content has been asked for.
	asked bool
	// text: what was at the path is taken for text, without a look at it.
	text bool
}

// changes turns entries into changes. `feed` finds them, and runs ahead of what reads their contents by a bounded number.
func (r *Repository) changes(ctx context.Context, opt Options, feed func(ctx context.Context, emit func(item) error) error) iter.Seq2[Change, error] {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = math.MaxInt64 - 1
	}
	return func(yield func(Change, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		contents, err := r.openBlobs(ctx)
		if err != nil {
			cancel()
			yield(Change{}, err)
			return
		}
		reader := &reader{repository: r, opt: opt, contents: contents}
		queue, fed := make(chan item, 256), make(chan error, 1)
		go func() {
			err := feed(ctx, func(it item) error {
				it.asked = it.new.mode == regular && opt.selects(it.new.path) && !it.modeAlone()
				select {
				case queue <- it:
				case <-ctx.Done():
					return ctx.Err()
				}
				if it.asked { // after it is in the queue, so that there is somebody to read the answer
					return contents.request(it.new.object)
				}
				return nil
			})
			close(queue)
			fed <- err
		}()
		stopped := false
		for it := range queue {
			if err = reader.read(ctx, it, func(c Change) bool {
				stopped = !yield(c, nil)
				return !stopped
			}); err != nil || stopped {
				break
			}
		}
		if err == nil && !stopped {
			err = <-fed
			fed <- nil
		}
		if ctx.Err() != nil { // what git says when it is killed is of no use
			err = ctx.Err()
		}
		cancel()
		<-fed
		_ = contents.wait()
		if said := contents.complaint(); errors.Is(err, errEnded) && said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		reader.close()
		if err != nil && !stopped {
			yield(Change{}, err)
		}
	}
}

// reader turns items into changes.
type reader struct {
	repository *Repository
	opt        Options
	contents   blobs
	// former reads contents before a change, where those matter; started when the first does.
	former *blobs
}

func (d *reader) close() {
	if d.former != nil {
		_ = d.former.wait()
	}
}

// read gives the changes of one item.
func (d *reader) read(ctx context.Context, it item, give func(Change) bool) error {
	before, after := it.old, it.new
	c := Change{Commit: it.commit, Path: after.path}
	if before.mode == absent && after.mode == absent {
		c.Kind = Complete
		give(c)
		return nil
	}
	switch after.mode {
	case link:
		c.Reason = Link
	case submodule:
		c.Reason = Submodule
	case regular:
		if it.asked {
			var err error
			if c.Content, c.Reason, err = d.contents.next(d.opt.MaxBytes); err != nil {
				return fmt.Errorf("read %q of commit %s: %w", after.path, it.commit.Hash, err)
			}
		} else if it.modeAlone() {
			return nil
		}
	}
	moved := after.mode != absent && before.mode != absent && before.path != after.path
	isText := it.asked && c.Reason == 0
	wasText := false
	if isText && !moved {
		// What was at this path is replaced, text or not.
		wasText = before.mode == regular
	} else {
		var err error
		if wasText, err = d.wasText(ctx, it); err != nil {
			return err
		}
	}
	switch {
	case isText && moved && wasText:
		c.Kind, c.From = Renamed, before.path
	case isText && wasText:
		c.Kind = Modified
	case isText:
		c.Kind = Added
	case wasText && !moved:
		c.Kind, c.Path = Removed, before.path
	default:
		if wasText && !give(Change{Kind: Removed, Commit: it.commit, Path: before.path}) {
			return nil
		}
		if c.Reason == 0 {
			return nil
		}
		c.Kind = LeftOut
	}
	give(c)
	return nil
}

// wasText tells whether the file before the change was one of those that matter.
func (d *reader) wasText(ctx context.Context, it item) (bool, error) {
	if it.text {
		return true, nil
	}
	if it.old.mode != regular || !d.opt.selects(it.old.path) {
		return false, nil
	}
	if d.former == nil {
		b, err := d.repository.openBlobs(ctx)
		if err != nil {
			return false, err
		}
		d.former = &b
	}
	err := d.former.request(it.old.object)
	var reason Reason
	if err == nil {
		_, reason, err = d.former.next(d.opt.MaxBytes)
	}
	if err != nil {
		return false, fmt.Errorf("read %q before commit %s: %w", it.old.path, it.commit.Hash, err)
	}
	return reason == 0, nil
}

// renames are diff-tree's options for finding renames as git does by default, whatever is configured. Beyond the limit only those
// with the very same content are found: the comparison of all with all is quadratic.
var renames = []string{"-M50%", "-l1000"}

// walk compares every commit that rev-list lists with its first parent.
func (r *Repository) walk(ctx context.Context, list, options []string, each func(entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	commits, err := r.start(ctx, append([]string{"rev-list", "--first-parent", "--parents", "--timestamp"}, list...)...)
	if err != nil {
		return err
	}
	args := append([]string{"diff-tree", "--stdin", "--always", "--root", "-r", "-z", "--no-abbrev"}, options...)
	trees, err := r.start(ctx, append(append(args, "--"), r.pathspec()...)...)
	if err != nil {
		cancel()
		_ = commits.wait()
		return err
	}
	// The comparison is told each commit's first parent, and no other. What it has been told and not answered yet is as much as fits into its pipes.
	var mu sync.Mutex
	var told []Commit
	listed := make(chan error, 1)
	go func() {
		listed <- func() error {
			defer trees.in.Close()
			for {
				line, err := commits.out.ReadString('\n')
				if errors.Is(err, io.EOF) && line == "" {
					return nil
				}
				if err != nil {
					return err
				}
				fields := strings.Fields(line)
				if len(fields) < 2 {
					return fmt.Errorf("git rev-list answers %q", line)
				}
				seconds, err := strconv.ParseInt(fields[0], 10, 64)
				if err != nil {
					return fmt.Errorf("git rev-list answers %q", line)
				}
				mu.Lock()
				told = append(told, Commit{Hash: fields[1], Time: time.Unix(seconds, 0).UTC()})
				mu.Unlock()
				if _, err := io.WriteString(trees.in, strings.Join(fields[1:min(len(fields), 3)], " ")+"\n"); err != nil {
					return err
				}
			}
		}()
	}()
	var commit Commit
	err = r.parse(trees, func(e entry) error {
		e.commit = commit
		return each(e)
	}, func(hash string) error {
		if commit.Hash != "" {
			if err := each(entry{commit: commit}); err != nil {
				return err
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if len(told) == 0 || told[0].Hash != hash {
			return fmt.Errorf("git diff-tree answers for commit %q out of order", hash)
		}
		commit, told = told[0], told[1:]
		return nil
	})
	if err != nil {
		cancel()
		_, _, _ = <-listed, commits.wait(), trees.wait()
		return err
	}
	if err := errors.Join(<-listed, commits.wait(), trees.wait()); err != nil {
		return err
	}
	if commit.Hash == "" {
		return nil
	}
	return each(entry{commit: commit})
}

// compare compares two trees.
func (r *Repository) compare(ctx context.Context, from, to string, each func(entry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	args := append([]string{"diff-tree", "-r", "-z", "--no-abbrev"}, renames...)
	trees, err := r.start(ctx, append(append(args, from, to, "--"), r.pathspec()...)...)
	if err != nil {
		return err
	}
	if err := r.parse(trees, each, func(hash string) error { return fmt.Errorf("git diff-tree answers %q", hash) }); err != nil {
		cancel()
		_ = trees.wait()
		return err
	}
	return trees.wait()
}

func (r *Repository) pathspec() []string {
	if r.folder == "" {
		return nil
	}
	return []string{strings.TrimSuffix(r.folder, "/")}
}

// parse reads the raw output of diff-tree -z: for each file ":mode mode object object status", the path, and for a rename a second path,
// each ended by NUL. A field without a colon at the beginning is the commit that what follows is of.
// Format: git's documentation, "Raw output format" of diff-tree.
func (r *Repository) parse(trees *process, each func(entry) error, commit func(hash string) error) error {
	next := func() (string, error) {
		field, err := trees.out.ReadString(0)
		if err != nil {
			if errors.Is(err, io.EOF) && field != "" {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		return field[:len(field)-1], nil
	}
	for {
		head, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && !strings.HasPrefix(head, ":") {
			if err = commit(head); err != nil {
				return err
			}
			continue
		}
		fields := strings.Fields(head)
		if err == nil && len(fields) != 5 {
			err = fmt.Errorf("git diff-tree answers %q", head)
		}
		var path string
		if err == nil {
			path, err = next()
		}
		if err != nil {
			return fmt.Errorf("git diff-tree: %w", err)
		}
		former := path
		if fields[4][0] == 'R' {
			if path, err = next(); err != nil {
				return fmt.Errorf("git diff-tree: %w", err)
			}
		}
		e := entry{
			old: side{strings.TrimPrefix(former, r.folder), modeOf(fields[0][1:]), fields[2]},
			new: side{strings.TrimPrefix(path, r.folder), modeOf(fields[1]), fields[3]},
		}
		if err := each(e); err != nil {
			return err
		}
	}
}

func modeOf(octal string) mode {
	switch {
	case strings.HasPrefix(octal, "10"):
		return regular
	case octal == "120000":
		return link
	case octal == "160000":
		return submodule
	}
	return absent
}

// files lists the files of a commit.
func (r *Repository) files(ctx context.Context, commit string) (map[string]side, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list, err := r.start(ctx, append([]string{"ls-tree", "-r", "-z", "--full-tree", commit, "--"}, r.pathspec()...)...)
	if err != nil {
		return nil, err
	}
	files := map[string]side{}
	for {
		line, err := list.out.ReadString(0) // mode SP kind SP object TAB path NUL
		if errors.Is(err, io.EOF) && line == "" {
			return files, list.wait()
		}
		about, path, ok := strings.Cut(strings.TrimSuffix(line, "\x00"), "\t")
		fields := strings.Fields(about)
		if err == nil && (!ok || len(fields) != 3) {
			err = fmt.Errorf("git ls-tree answers %q", line)
		}
		if err != nil {
			cancel()
			_ = list.wait()
			return nil, err
		}
		path = strings.TrimPrefix(path, r.folder)
		files[path] = side{path, modeOf(fields[0]), fields[2]}
	}
}

// touched names the files that a span's commits have or had.
func (r *Repository) touched(ctx context.Context, s Span, each func(path string) error) error {
	both := func(e entry) error {
		for _, s := range []side{e.old, e.new} {
			if s.mode == regular {
				if err := each(s.path); err != nil {
					return err
				}
			}
		}
		return nil
	}
	steps, err := r.Continues(ctx, s.From, s.To)
	if err != nil {
		return err
	}
	if !steps {
		return r.compare(ctx, s.From, s.To, both)
	}
	return r.walk(ctx, span(s.From, s.To), []string{"--no-renames"}, both)
}

// errFound ends a walk that has found everything.
var errFound = errors.New("found")

// lastChanges names for each of a commit's files the last commit that changed it, newest first, and empties the map.
func (r *Repository) lastChanges(ctx context.Context, commit string, files map[string]side, each func(side, Commit) error) error {
	if len(files) == 0 {
		return nil
	}
	var clock time.Time
	err := r.walk(ctx, []string{commit}, []string{"--no-renames"}, func(e entry) error {
		s, ok := files[e.new.path]
		if !ok || e.new.mode == absent {
			return nil
		}
		// No time is after that of a newer commit.
		if clock.IsZero() || e.commit.Time.Before(clock) {
			clock = e.commit.Time
		}
		e.commit.Time = clock
		delete(files, e.new.path)
		if err := each(s, e.commit); err != nil {
			return err
		}
		if len(files) == 0 {
			return errFound
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return err
	}
	if len(files) > 0 {
		return fmt.Errorf("the history of commit %s does not tell where %d of its files come from", commit, len(files))
	}
	return nil
}

// commit looks one commit up.
func (r *Repository) commit(ctx context.Context, hash string) (Commit, error) {
	out, err := r.git(ctx, "rev-list", "--max-count=1", "--timestamp", hash)
	if err != nil {
		return Commit{}, err
	}
	fields := strings.Fields(out)
	if len(fields) != 2 {
		return Commit{}, fmt.Errorf("git rev-list answers %q", out)
	}
	seconds, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return Commit{}, fmt.Errorf("git rev-list answers %q", out)
	}
	return Commit{Hash: fields[1], Time: time.Unix(seconds, 0).UTC()}, nil
}
