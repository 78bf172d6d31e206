package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/liverag/liverag/internal/githistory"
	"github.com/liverag/liverag/stream"
)

const (
	// followEvery is how often a followed repository is asked for its newest commit.
	followEvery = 200 * time.Millisecond
	// probes is how many of a repository's files are looked for in the index before its history is sent for the first time.
	probes = 8
)

// gitImport brings in the history of one repository.
//
// What makes it more than a loop over commits is that it may happen again. Sending the whole history once more would end in the right state, but on the way
// there every document would be what it was years ago, and be found so. So the import remembers at what commit the documents are, and goes on from
// there. It remembers that in the data directory, not in the repository, which is only read: together with the index of the default setup it
// goes when the directory goes, and it is not believed where the server has another log than the one that was written to.
// If nothing is remembered and the index holds some of the files all the same (a folder that was imported before), the present state is sent alone.
//
// An import that is broken off leaves the documents somewhere between two commits. If the repository's history is rewritten before it is taken up again,
// the commits in between are not on the way to the new end; so they are remembered before anything is sent, as doubts, and every file that any of them
// had is set right.
type gitImport struct {
	imp        *importer
	repository *githistory.Repository
	dir        string
	revision   string // what is imported and followed
	since      string // as it was asked for; only the first round has it
	chosen     selection
	file       string // where the place is kept; "" if it can't be
	place      place
	head       string // the commit that this round leads to
	current    bool   // there was nothing to do

	mu       sync.Mutex
	seed     maphash.Seed
	reported map[uint64]bool // paths that were counted as left out
}

// place is what is remembered of an import.
type place struct {
	// Commit is where the documents are; "" if the first import is not done with its first step.
	Commit string `json:"commit"`
	// Doubts are commits on the way to which documents may be, or have been.
	Doubts []string `json:"doubts,omitempty"`
	// Since is where the first import begins, until it has come there.
	Since string `json:"since,omitempty"`
	// Time is the last updated_at.
	Time time.Time `json:"time,omitzero"`
	// Token is of the last request, "" before the first.
	Token string `json:"token,omitempty"`
	// Selections are those by which documents were sent on the way to the commit and to the doubts.
	Selections []selection `json:"selections,omitempty"`
	// The repository, its folder and the prefix are for people who look into the file.
	Repository string `json:"repository"`
	Folder     string `json:"folder,omitempty"`
	Prefix     string `json:"prefix,omitempty"`
}

// selection is what decides which files are documents.
type selection struct {
	Include  []string `json:"include,omitempty"`
	Exclude  []string `json:"exclude,omitempty"`
	MaxBytes int64    `json:"max_bytes"`
}

func (s selection) equal(other selection) bool {
	return slices.Equal(s.Include, other.Include) && slices.Equal(s.Exclude, other.Exclude) && s.MaxBytes == other.MaxBytes
}

// selectedAs tells whether documents were ever sent by another selection than the present one.
func (p *place) selectedAs(s selection) bool {
	return !slices.ContainsFunc(p.Selections, func(other selection) bool { return !other.equal(s) })
}

// git imports the history of the repository that the only argument names, and follows it if that is asked for.
func (imp *importer) git(ctx context.Context, f importFlags) error {
	g, err := imp.openGit(ctx, f)
	if err != nil {
		return err
	}
	imp.history = g
	if f.watch {
		imp.reader.known = &knownFiles{stamps: map[string]stamp{}}
	}
	head, err := g.repository.Resolve(ctx, g.revision)
	switch {
	case err == nil:
		if err := g.bring(ctx, head); err != nil {
			return imp.interrupted(err)
		}
		if err := imp.summary(ctx); err != nil {
			return err
		}
	case !errors.Is(err, githistory.ErrNoCommit):
		return fmt.Errorf("can't import %s: %w", g.dir, err)
	case f.branch != "":
		return &usageError{fmt.Sprintf("can't import %s: there is no branch %s", g.dir, f.branch), "`git branch --all` lists the branches"}
	case !f.watch:
		return withHint(fmt.Errorf("there was nothing to import: %s has no commit yet", g.dir), "import the folder without --git, or wait for the first commit with --watch")
	}
	if !f.watch {
		return nil
	}
	return g.follow(ctx, head)
}

func (imp *importer) openGit(ctx context.Context, f importFlags) (*gitImport, error) {
	if len(imp.c.Args) != 1 {
		return nil, &usageError{detail: "--git imports one repository: name its directory, or a folder of it"}
	}
	dir := imp.c.Args[0]
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New("it is no directory")
	}
	if err != nil {
		return nil, &usageError{detail: fmt.Sprintf("can't import %s: %v", dir, unwrapPath(err))}
	}
	repository, err := githistory.Open(ctx, dir)
	switch {
	case errors.Is(err, githistory.ErrNotRepository):
		return nil, &usageError{fmt.Sprintf("can't import %s: %v", dir, err), "without --git, the files are imported as they are; `git init` makes a repository of a folder"}
	case errors.Is(err, githistory.ErrNoGit):
		return nil, withHint(fmt.Errorf("can't import the history of %s: %w", dir, err), "without --git, the files are imported as they are")
	case err != nil:
		return nil, fmt.Errorf("can't import %s: %w", dir, err)
	}
	g := &gitImport{
		imp: imp, repository: repository, dir: dir, revision: "HEAD", since: f.since,
		chosen: selection{f.include, f.exclude, imp.reader.maxText},
		seed:   maphash.MakeSeed(), reported: map[uint64]bool{},
	}
	if f.branch != "" {
		// A tag of the same name must not be taken for it.
		g.revision = "refs/heads/" + f.branch
		if _, err := repository.Resolve(ctx, g.revision); errors.Is(err, githistory.ErrNoCommit) {
			g.revision = f.branch
		}
	}
	if f.since != "" {
		if _, err := repository.Resolve(ctx, f.since); err != nil {
			return nil, &usageError{fmt.Sprintf("can't import %s since %s: %v", dir, f.since, err), "--since takes a commit, a tag or a branch; HEAD imports what is committed now, and nothing of before"}
		}
	}
	if err := g.load(ctx); err != nil {
		return nil, err
	}
	return g, nil
}

// load reads what is remembered, and forgets it if the server's log is another one.
func (g *gitImport) load(ctx context.Context) error {
	// Branch and selection are not part of the name: whatever they are, they lead to the same documents.
	name := sha256.Sum256([]byte(g.repository.Identity() + "\x00" + g.repository.Folder() + "\x00" + g.imp.reader.prefix + "\x00" + g.imp.c.Config.Server))
	g.file = filepath.Join(g.imp.c.Config.Data, "imports", "git-"+hex.EncodeToString(name[:8])+".json")
	about := place{Repository: g.repository.Identity(), Folder: g.repository.Folder(), Prefix: g.imp.reader.prefix}
	g.place = about
	content, err := os.ReadFile(g.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(content, &g.place)
	}
	if err != nil {
		g.warn("can't read %s (%v): importing as if for the first time", g.file, unwrapPath(err))
		g.place = about
		return nil
	}
	if g.place.Token == "" {
		return nil
	}
	switch _, err := g.await(ctx, g.place.Token, time.Millisecond); {
	case isCode(err, "token_unknown"):
		g.place = about
	case errors.As(err, new(*apiError)): // it can't answer now, and says nothing against it
	case err != nil:
		return err
	}
	return nil
}

func isCode(err error, code string) bool {
	var p *apiError
	return errors.As(err, &p) && p.Code == code
}

// save remembers the place. An import goes on without: then the next one sends the present state.
func (g *gitImport) save() {
	if g.file == "" {
		return
	}
	content, err := json.MarshalIndent(g.place, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(g.file), 0o755)
	}
	if err == nil {
		err = replaceFile(g.file, append(content, '\n'))
	}
	if err != nil {
		g.warn("can't remember how far the import is (%v): the next one will send the present state, and no history", err)
		g.file = ""
	}
}

// replaceFile writes a file whole or not at all.
func replaceFile(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		os.Remove(f.Name())
		return err
	}
	return nil
}

func (g *gitImport) warn(format string, args ...any) {
	g.imp.c.Err.Printf("%s %s\n", g.imp.c.Err.warn("note:"), plain(fmt.Sprintf(format, args...)))
}

// await waits until what a token is about is searchable, and tells whether it came to that in time.
func (g *gitImport) await(ctx context.Context, token string, wait time.Duration) (bool, error) {
	var answer struct {
		Freshness struct {
			Satisfied bool `json:"satisfied"`
		} `json:"freshness"`
	}
	body := map[string]any{"query": "history", "k": 1, "after": token, "wait": wait.String()}
	err := g.imp.client.do(ctx, "POST", "/retrieve", body, &answer, options{timeout: callTimeout + wait})
	return answer.Freshness.Satisfied, err
}

// bring brings the documents to a commit.
func (g *gitImport) bring(ctx context.Context, head string) error {
	g.head = head
	g.imp.reader.read.Store(0)
	changes, err := g.plan(ctx)
	if err != nil {
		return fmt.Errorf("read the history of %s: %w", g.dir, err)
	}
	g.since = ""
	if g.current = changes == nil; g.current {
		return nil
	}
	if !slices.ContainsFunc(g.place.Selections, g.chosen.equal) {
		g.place.Selections = append(g.place.Selections, g.chosen)
	}
	g.save() // the doubts, before there is reason to have them
	return g.imp.run(ctx, true, func(ctx context.Context, to *filler) error {
		flushed := time.Now()
		for c, err := range changes {
			if err == nil {
				err = g.line(ctx, c, to)
			}
			// Commits that change nothing of what is imported fill no batch, and are progress all the same.
			if err == nil && c.Kind == githistory.Complete && time.Since(flushed) > time.Second {
				flushed, err = time.Now(), to.flush(ctx)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// plan decides what leads from the place to the head, and notes the doubts that it brings. nil: they are one.
func (g *gitImport) plan(ctx context.Context) (iter.Seq2[githistory.Change, error], error) {
	at, head, r := &g.place, g.head, g.repository
	opt := githistory.Options{Select: g.selects, MaxBytes: g.chosen.MaxBytes, After: at.Time}
	known := true
	if at.Commit != "" {
		var err error
		if known, err = g.exists(ctx, at.Commit); err != nil {
			return nil, err
		}
		if !known {
			g.warn("commit %.12s, which was imported last, is gone from the repository: all that is committed now is sent; a file that only lost commits had may stay (rm deletes it)", at.Commit)
		}
	}
	doubts, onTheWay, err := g.doubts(ctx, known)
	if err != nil {
		return nil, err
	}
	switch {
	case g.since != "":
		return g.from(ctx, g.since, opt, known, doubts)
	case at.Commit == "" && at.Since != "":
		return g.from(ctx, at.Since, opt, known, doubts)
	case at.Commit == "" && len(at.Doubts) == 0:
		held, err := g.held(ctx, opt)
		if err != nil {
			return nil, err
		}
		if held {
			g.warn("the index holds files of this repository already: what is committed now is sent, and no history (--since sends it, and older texts are found meanwhile)")
			return g.from(ctx, head, opt, known, doubts)
		}
	case !known || !at.selectedAs(g.chosen):
		return g.state(ctx, head, opt, doubts)
	case at.Commit == head && len(at.Doubts) == 0:
		return nil, nil
	}
	continues, err := r.Continues(ctx, at.Commit, head)
	switch {
	case err != nil:
		return nil, err
	case continues && onTheWay:
		at.Doubts = []string{head}
		return r.History(ctx, at.Commit, head, opt), g.measure(ctx, at.Commit, 0)
	case len(at.Doubts) == 0:
		at.Doubts = []string{head}
		return r.Difference(ctx, at.Commit, head, opt), nil
	}
	return g.state(ctx, head, opt, doubts)
}

func (g *gitImport) exists(ctx context.Context, commit string) (bool, error) {
	_, err := g.repository.Resolve(ctx, commit)
	if errors.Is(err, githistory.ErrNoCommit) {
		return false, nil
	}
	return err == nil, err
}

// doubts gives the spans in which documents may be. onTheWay tells that the doubtful commits are steps from the place to the head, so that what leads
// through them sets everything right.
func (g *gitImport) doubts(ctx context.Context, known bool) (spans []githistory.Span, onTheWay bool, err error) {
	from := g.place.Commit
	if !known {
		from = "" // any commit that the repository still has may have left a file
	}
	onTheWay = known
	for _, doubt := range g.place.Doubts {
		there, err := g.exists(ctx, doubt)
		if err != nil {
			return nil, false, err
		}
		if !there {
			onTheWay = false
			g.warn("an import that was broken off was on its way to commit %.12s, which is gone from the repository: a file that only lost commits had may stay (rm deletes it)", doubt)
			continue
		}
		step, err := g.repository.Continues(ctx, doubt, g.head)
		if err == nil && step {
			step, err = g.repository.Continues(ctx, from, doubt)
		}
		if err != nil {
			return nil, false, err
		}
		onTheWay = onTheWay && step
		if step && g.place.Commit == "" && g.place.selectedAs(g.chosen) {
			continue // a first import goes through it once more
		}
		spans = append(spans, githistory.Span{From: from, To: doubt})
	}
	if g.place.Commit != "" {
		spans = append(spans, githistory.Span{From: from, To: g.head})
	}
	return spans, onTheWay, nil
}

// from begins with the state at a revision, and goes on with each commit after it.
func (g *gitImport) from(ctx context.Context, revision string, opt githistory.Options, known bool, doubts []githistory.Span) (iter.Seq2[githistory.Change, error], error) {
	base, err := g.repository.Contained(ctx, revision, g.head)
	if err != nil {
		return nil, err
	}
	if g.place.Commit == "" {
		g.place.Since = revision
	}
	if base == "" { // the revision has nothing in common with the head
		base = g.head
	}
	if g.place.Commit != "" && known {
		doubts = append(doubts, githistory.Span{From: g.place.Commit, To: base})
	}
	state, err := g.state(ctx, base, opt, doubts)
	if err != nil || base == g.head {
		return state, err
	}
	return func(yield func(githistory.Change, error) bool) {
		for c, err := range state {
			if !yield(c, err) || err != nil {
				return
			}
			opt.After = c.Commit.Time // in the end that of the base
		}
		g.repository.History(ctx, base, g.head, opt)(yield)
	}, g.measure(ctx, base, 1)
}

// state is that of a commit, with everything set right that documents may be instead. Files that are not selected any more stay as they
// are, as in a folder.
func (g *gitImport) state(ctx context.Context, commit string, opt githistory.Options, doubts []githistory.Span) (iter.Seq2[githistory.Change, error], error) {
	for _, to := range []string{commit, g.head} {
		if !slices.Contains(g.place.Doubts, to) {
			g.place.Doubts = append(g.place.Doubts, to)
		}
	}
	filters := []*fileFilter{g.imp.reader.filter}
	for _, s := range g.place.Selections {
		f, err := newFileFilter(s.Include, s.Exclude)
		if err != nil {
			return nil, err
		}
		filters = append(filters, f)
	}
	sent := func(path string) bool {
		return slices.ContainsFunc(filters, func(f *fileFilter) bool { _, reason := f.leaveOutBelow(path); return reason == "" })
	}
	return g.repository.State(ctx, commit, opt, sent, doubts...), nil
}

// held tells whether the index holds any of the newest files, though no import of them is remembered. What is in the log and not indexed yet is
// not seen: this guards against old texts, not against two imports at a time.
func (g *gitImport) held(ctx context.Context, opt githistory.Options) (bool, error) {
	n := 0
	for c, err := range g.repository.State(ctx, g.head, opt, nil) {
		if err != nil {
			return false, err
		}
		id := g.imp.reader.prefix + c.Path
		if c.Kind != githistory.Added || stream.CheckID(id) != nil {
			continue
		}
		err := g.imp.client.do(ctx, "GET", documentPath(id), nil, nil, options{})
		if err == nil {
			return true, nil
		}
		if !errors.As(err, new(*apiError)) {
			return false, err
		}
		if n++; n == probes {
			break
		}
	}
	return false, nil
}

// measure counts the steps for the progress: those from a commit to the head, and some more.
func (g *gitImport) measure(ctx context.Context, from string, more int64) error {
	if !g.imp.c.Err.Watched {
		return nil
	}
	n, err := g.repository.Count(ctx, from, g.head)
	g.imp.total = int64(n) + more
	return err
}

// selects decides whether a file is imported, and counts it if not.
func (g *gitImport) selects(path string) bool {
	where, reason := g.imp.reader.filter.leaveOutBelow(path)
	if reason != "" {
		g.leftOut(reason, where)
	}
	return reason == ""
}

// leftOut counts each file once, however many commits touch it.
func (g *gitImport) leftOut(reason, where string) {
	key := maphash.String(g.seed, reason+"\x00"+where)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.reported[key] {
		g.reported[key] = true
		g.imp.reader.skips.add(reason, where)
	}
}

// leftOutReasons are githistory's reasons in the words of every import.
var leftOutReasons = map[githistory.Reason]string{
	githistory.TooLarge: skipTooLarge, githistory.Binary: skipBinary, githistory.NotUTF8: skipUTF8, githistory.Link: skipSymlink, githistory.Submodule: skipSubmodule,
}

// line puts one change into the batch.
func (g *gitImport) line(ctx context.Context, c githistory.Change, to *filler) error {
	if reason, ok := leftOutReasons[c.Reason]; ok {
		g.leftOut(reason, c.Path)
	}
	switch c.Kind {
	case githistory.Complete:
		g.imp.reader.read.Add(1)
		to.b.at = c.Commit
		return nil
	case githistory.LeftOut:
		g.tell(to, watched{ID: g.imp.reader.prefix + c.Path, Change: "left out", Detail: leftOutReasons[c.Reason], Commit: c.Commit.Hash})
		return nil
	case githistory.Removed:
		return g.remove(ctx, c.Path, c, to)
	}
	id := g.imp.reader.prefix + c.Path
	if stream.CheckID(id) != nil {
		g.leftOut(skipID, c.Path)
	} else {
		contentType, _ := contentTypeOf(c.Path)
		doc := &stream.Document{Text: string(c.Content), ContentType: contentType, UpdatedAt: c.Commit.Time,
			Metadata: map[string]any{"commit": c.Commit.Hash, "path": g.repository.Folder() + c.Path}}
		doc.Title = titleOf(contentType, doc.Text)
		line, err := encodeLine(id, doc)
		if err != nil {
			return fmt.Errorf("encode %s of commit %.12s: %w", c.Path, c.Commit.Hash, err)
		}
		if err := g.add(ctx, line, watched{ID: id, Change: "written"}, c, to); err != nil {
			return err
		}
	}
	if c.Kind == githistory.Renamed { // after its new place is known, so that the text is always somewhere
		return g.remove(ctx, c.From, c, to)
	}
	return nil
}

func (g *gitImport) remove(ctx context.Context, path string, c githistory.Change, to *filler) error {
	id := g.imp.reader.prefix + path
	if stream.CheckID(id) != nil {
		return nil // it never was a document
	}
	line, err := json.Marshal(struct {
		ID      string `json:"id"`
		Deleted bool   `json:"deleted"`
	}{id, true})
	if err != nil {
		return fmt.Errorf("encode the deletion of %s: %w", path, err)
	}
	return g.add(ctx, line, watched{ID: id, Change: "deleted", Detail: leftOutReasons[c.Reason]}, c, to)
}

func (g *gitImport) add(ctx context.Context, line []byte, change watched, c githistory.Change, to *filler) error {
	if err := to.add(ctx, line, fmt.Sprintf("%.12s:%s", c.Commit.Hash, change.ID)); err != nil {
		return err
	}
	change.Commit, change.line = c.Commit.Hash, len(to.b.where)
	g.tell(to, change)
	return nil
}

// tell keeps what is to be shown of a batch of news.
func (g *gitImport) tell(to *filler, change watched) {
	if g.imp.live {
		to.b.changes = append(to.b.changes, change)
	}
}

// sent notes that the server has a batch.
func (g *gitImport) sent(ctx context.Context, b *batch, answer *batchAnswer, took time.Duration) error {
	at := &g.place
	if answer.Token != "" {
		at.Token = answer.Token
	}
	if b.at.Hash != "" {
		at.Commit, at.Time, at.Since = b.at.Hash, b.at.Time, ""
		if at.Doubts = []string{g.head}; at.Commit == g.head {
			at.Doubts, at.Selections = nil, []selection{g.chosen}
		}
	}
	g.save()
	if !g.imp.live {
		return nil
	}
	return g.show(ctx, b, answer, took)
}

// show waits until a batch of news is searchable, and prints what it was.
func (g *gitImport) show(ctx context.Context, b *batch, answer *batchAnswer, took time.Duration) error {
	begin, searchable := time.Now(), false
	if answer.Token != "" {
		var err error
		if searchable, err = g.await(ctx, answer.Token, watchWait); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil && !errors.As(err, new(*apiError)) {
			g.warn("the changes are in the log; whether they are searchable is not known: %v", err)
		}
	}
	took += time.Since(begin)
	refused := map[int]string{}
	for _, r := range answer.Rejected {
		refused[r.Line] = r.Code + ": " + r.Detail
	}
	for _, c := range b.changes {
		if detail, ok := refused[c.line]; ok && c.line > 0 {
			c.Change, c.Detail = "refused", detail
		} else if c.line > 0 {
			c.Searchable, c.Took = searchable, short(took)
		}
		g.imp.printWatched(c)
	}
	return nil
}

// follow brings each new commit in, as news, until ctx ends.
func (g *gitImport) follow(ctx context.Context, from string) error {
	g.imp.live = true
	if !g.imp.c.JSON {
		g.imp.c.Out.Printf("following %s of %s: Ctrl-C ends it\n", plain(g.revision), plain(g.dir))
	}
	for head, err := range g.repository.Follow(ctx, g.revision, from, followEvery) {
		if err != nil {
			return fmt.Errorf("follow %s: %w", g.dir, err)
		}
		for {
			err := g.bring(ctx, head)
			if ctx.Err() != nil {
				return nil
			}
			if err == nil {
				break
			}
			if _, again := busy(err); !again && !errors.As(err, new(*unreachableError)) {
				return err
			}
			g.warn("commit %.12s is not sent: %v; trying again", head, err)
			if sleep(ctx, watchRetry) != nil {
				return nil
			}
		}
	}
	return nil
}

// extent tells how much of a history was imported; nothing of anything else.
func (g *gitImport) extent() string {
	if g == nil {
		return ""
	}
	return " of " + count(g.imp.reader.read.Load(), "commit")
}

// upToDate tells that there was nothing new.
func (g *gitImport) upToDate() bool { return g != nil && g.current }
