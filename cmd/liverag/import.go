package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/liverag/liverag/internal/githistory"
	"github.com/liverag/liverag/internal/spell"
	"github.com/liverag/liverag/stream"
)

func importVerb() verb {
	return verb{
		name: "import", group: groupDocuments, args: "PATH…",
		summary: "Bring in folders, git histories or NDJSON files, and follow them",
		about: `A PATH is a folder, a file of text, Markdown or HTML, or NDJSON (.ndjson, .jsonl, or - for standard input): one document a line, like {"id":"a","text":"…"}, or {"id":"a","deleted":true}. The corpus.jsonl of a BEIR benchmark, with "_id" in place of "id", is read too: title, space, text become the text, as benchmarks search it.

In a folder, a file's id is its path below the folder with slashes, its title the first heading or the HTML title, its updated_at the time of its last change. Hidden files, links to folders, and what holds no text are left out and counted. Importing again costs nothing for what has not changed: nothing is embedded twice.

What is imported counts as history: live changes go first, and freshness is measured without it. With --watch the folders are followed from then on until Ctrl-C: each file that is saved, renamed or deleted is changed in the index too. A file that is deleted while nobody watches stays in the index: rm deletes it.

With --git, PATH is a git repository or a folder of one, and its history is the stream of changes: each commit's edits, renames and deletions in order, with the commit's time as updated_at and its hash in the metadata. Ids are the same as those of the folder. A merge is one step. The end is exactly what is committed; what is not committed is not seen. Importing again goes on after the commit that was imported last (the data directory remembers it); where the history was rewritten, only the difference is sent. With --watch, every new commit is sent as it is made.`,
		examples: []example{
			{"bring in a folder and follow every edit", "liverag import docs --watch"},
			{"a dump, until all of it can be found", "liverag import dump.ndjson --wait 10m"},
			{"two folders side by side, without drafts", "liverag import handbook --prefix handbook/ --exclude 'drafts/**'"},
			{"source code too, as plain text", "liverag import . --include '*.md' --include '*.go'"},
			{"the history of a repository, and each new commit", "liverag import --git ../handbook --watch"},
			{"what is committed now, without the history before it", "liverag import --git ../handbook --since HEAD"},
		},
		settings: append([]string{"documents.max_bytes"}, clientSettings...),
		setup: func(fs *flag.FlagSet) action {
			var f importFlags
			fs.BoolVar(&f.watch, "watch", false, "follow the folders until Ctrl-C")
			fs.StringVar(&f.prefix, "prefix", "", "`TEXT` put before every id")
			fs.Var(&f.include, "include", "only files that match the `GLOB`, of whatever ending; repeatable. ** crosses folders; without a slash it is for the name alone")
			fs.Var(&f.exclude, "exclude", "leave out files and folders that match the `GLOB`; repeatable")
			fs.BoolVar(&f.git, "git", false, "PATH is a git repository, or a folder of one: import its history")
			fs.StringVar(&f.branch, "branch", "", "with --git: the `BRANCH` to import and follow, instead of what is checked out")
			fs.StringVar(&f.since, "since", "", "with --git: the `REVISION` that the history begins with; all that it contains is one step")
			fs.DurationVar(&f.wait, "wait", 0, "how long to wait until everything is searchable; 0 does not wait")
			return func(ctx context.Context, c *call) error { return runImport(ctx, c, f) }
		},
	}
}

type importFlags struct {
	watch            bool
	prefix           string
	include, exclude stringList
	wait             time.Duration
	git              bool
	branch, since    string
}

// Limits of one request of an import.
const (
	batchLines = 500
	batchBytes = 4 << 20
	// importTimeout bounds one request. The server only has to write it to its log.
	importTimeout = 2 * time.Minute
	// busyFor is how long a request that the server is too busy for is sent again.
	busyFor = 2 * time.Minute
)

// headerBackfill marks a request's documents as imported history.
const headerBackfill = stream.HeaderBackfill

func runImport(ctx context.Context, c *call, f importFlags) error {
	if len(c.Args) == 0 {
		return &usageError{detail: "import needs a PATH: a folder, a file, or - for NDJSON on standard input"}
	}
	filter, err := newFileFilter(f.include, f.exclude)
	if err != nil {
		return err
	}
	imp := &importer{
		c: c, client: c.client(ctx), wait: f.wait,
		reader: &reader{
			prefix: f.prefix, filter: filter, in: c.In,
			maxText: int64(c.Config.Documents.MaxBytes), maxLine: 3*int(c.Config.Documents.MaxBytes) + 1<<20,
			skips: newSkips(), many: len(c.Args) > 1, ids: map[string]string{},
		},
		begin: time.Now(),
	}
	if f.git {
		return imp.git(ctx, f)
	}
	if f.branch != "" || f.since != "" {
		return &usageError{detail: "--branch and --since are for the history of a repository: add --git"}
	}
	for _, path := range c.Args {
		info, err := os.Stat(path)
		switch {
		case path == "-" && !f.watch:
			continue
		case path == "-":
			return &usageError{detail: "--watch follows folders, not standard input"}
		case err != nil:
			return &usageError{detail: fmt.Sprintf("can't import %s: %v", path, unwrapPath(err))}
		case f.watch && !info.IsDir():
			return &usageError{detail: fmt.Sprintf("--watch follows folders, and %s is none", path)}
		}
	}
	var w *watcher
	if f.watch {
		// The folders are watched before they are read, so that no edit falls in between.
		if w, err = newWatcher(imp, c.Args); err != nil {
			return err
		}
		defer w.close()
	}
	if c.Err.Watched {
		imp.total = imp.reader.measure(c.Args)
	}
	err = imp.run(ctx, !slices.Contains(c.Args, "-"), func(ctx context.Context, to *filler) error {
		return imp.reader.each(ctx, c.Args, func(line []byte, where string) error { return to.add(ctx, line, where) })
	})
	if err != nil {
		return imp.interrupted(err)
	}
	if err := imp.summary(ctx); err != nil || w == nil {
		return err
	}
	return w.run(ctx)
}

// importer sends what a reader finds to the server, a batch at a time, and keeps the tally.
type importer struct {
	c      *call
	client *client
	reader *reader
	wait   time.Duration

	begin    time.Time
	total    int64 // what reader.read goes up to, 0 if not known
	live     bool  // what is sent is news, no history
	accepted int
	bytes    int64
	rejected []rejection
	refused  int // counts all of them; rejected holds the first ones
	requests int
	token    string     // covers the whole import only if it was one request
	printing sync.Mutex // of a watcher's lines
	// history is what is imported, if it is one.
	history *gitImport
}

// rejection is a document that the server did not take.
type rejection struct {
	// Where is the file, with the line for NDJSON.
	Where  string `json:"where"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// maxRejections is how many rejections are kept to be shown.
const maxRejections = 100

// batch is the body of one request.
type batch struct {
	body  bytes.Buffer
	where []string // of each line
	read  int64    // reader.read by the end of the batch
	// The rest is of a history.
	changes []watched         // of each line
	at      githistory.Commit // the last one that is complete with this batch; zero if there is none
}

// run sends what a source puts into the filler. A source that can't be broken off (a read from a terminal or a pipe) is not waited for at the end.
func (imp *importer) run(ctx context.Context, breaksOff bool, source func(context.Context, *filler) error) error {
	ctx, cancel := context.WithCancel(ctx)
	// One batch is filled while another is on its way. Sending stays in order, because a later line may change an earlier one's document.
	batches, filled := make(chan *batch), make(chan error, 1)
	to := &filler{batches: batches, b: &batch{}, read: &imp.reader.read}
	go func() {
		err := source(ctx, to)
		if err == nil {
			err = to.flush(ctx)
		}
		filled <- err
	}()
	defer func() {
		cancel()
		if breaksOff {
			<-filled
		}
	}()
	for {
		select {
		case b := <-batches:
			if err := imp.send(ctx, b); err != nil {
				return err
			}
			imp.progress(b.read)
		case err := <-filled:
			filled <- err
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// filler collects lines into batches.
type filler struct {
	batches chan<- *batch
	b       *batch
	read    *atomic.Int64
}

// add takes one line.
func (f *filler) add(ctx context.Context, line []byte, where string) error {
	if f.b.body.Len()+len(line) > batchBytes || len(f.b.where) == batchLines {
		if err := f.flush(ctx); err != nil {
			return err
		}
	}
	f.b.body.Write(line)
	f.b.body.WriteByte('\n')
	f.b.where = append(f.b.where, where)
	return nil
}

// flush hands the batch over, if there is something in it.
func (f *filler) flush(ctx context.Context) error {
	if len(f.b.where) == 0 && f.b.at.Hash == "" {
		return nil
	}
	f.b.read = f.read.Load()
	select {
	case f.batches <- f.b:
		f.b = &batch{}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// batchAnswer is the answer to POST /documents.
type batchAnswer struct {
	Accepted int `json:"accepted"`
	Rejected []struct {
		Line   int    `json:"line"`
		Code   string `json:"code"`
		Detail string `json:"detail"`
	} `json:"rejected"`
	Unnamed int    `json:"unnamed"`
	Token   string `json:"token"`
}

// send delivers one batch, and comes back while the server is too busy for it. Sending a batch twice is harmless.
func (imp *importer) send(ctx context.Context, b *batch) error {
	if len(b.where) == 0 {
		return imp.history.sent(ctx, b, &batchAnswer{}, 0)
	}
	var answer batchAnswer
	opt := options{contentType: "application/x-ndjson", timeout: importTimeout}
	if !imp.live {
		opt.header = map[string]string{headerBackfill: "1"}
	}
	begin := time.Now()
	for try := 1; ; try++ {
		err := imp.client.do(ctx, "POST", "/documents", bytes.NewReader(b.body.Bytes()), &answer, opt)
		if err == nil {
			break
		}
		p, again := busy(err)
		if !again {
			return explainWrite(err)
		}
		pause := max(p.RetryAfter, min(50*time.Millisecond<<min(try, 6), 2*time.Second))
		if time.Since(begin)+pause > busyFor {
			return err
		}
		imp.c.Err.Status("waiting after %s: %s", count(imp.accepted, imp.noun()), err)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
	imp.accepted += answer.Accepted
	imp.bytes += int64(b.body.Len())
	imp.refused += len(answer.Rejected)
	for _, r := range answer.Rejected {
		where := fmt.Sprintf("line %d of a request", r.Line)
		if r.Line >= 1 && r.Line <= len(b.where) {
			where = b.where[r.Line-1]
		}
		if len(imp.rejected) < maxRejections {
			imp.rejected = append(imp.rejected, rejection{where, r.Code, r.Detail})
		}
	}
	imp.refused += answer.Unnamed
	imp.requests++
	if imp.token = answer.Token; imp.requests > 1 {
		imp.token = ""
	}
	if imp.history != nil {
		return imp.history.sent(ctx, b, &answer, time.Since(begin))
	}
	return nil
}

// noun is what the import counts.
func (imp *importer) noun() string {
	if imp.history != nil {
		return "change"
	}
	return "document"
}

// progress redraws the status line.
func (imp *importer) progress(read int64) {
	elapsed := time.Since(imp.begin)
	text := fmt.Sprintf("%s, %s/s", count(imp.accepted, imp.noun()), spell.Thousands(int64(float64(imp.accepted)/elapsed.Seconds())))
	if imp.total > 0 && read > 0 {
		share := min(float64(read)/float64(imp.total), 1)
		text = fmt.Sprintf("%3.0f %%  %s, %s to go", 100*share, text, short(time.Duration(float64(elapsed)*(1-share)/share).Round(time.Second)))
	}
	imp.c.Err.Status("%s", text)
}

func (imp *importer) interrupted(err error) error {
	imp.c.Err.clearStatus()
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	return withHint(fmt.Errorf("%w (after %s)", err, count(imp.accepted, imp.noun())), imp.again())
}

// again is what an interrupted import can be told.
func (imp *importer) again() string {
	if imp.history != nil {
		return "importing again goes on where this one ended"
	}
	return "importing again from the start is harmless, and what has not changed costs nothing"
}

// importResult is the import for a program.
type importResult struct {
	Accepted      int         `json:"accepted"`
	RejectedCount int         `json:"rejected_count"`
	Rejected      []rejection `json:"rejected"`
	Skipped       []skip      `json:"skipped"`
	Took          string      `json:"took"`
	Token         string      `json:"token,omitempty"`
	Searchable    *bool       `json:"searchable,omitempty"`
	// The rest is of a history: how many commits were gone through, and the last of them.
	Commits int64  `json:"commits,omitempty"`
	Commit  string `json:"commit,omitempty"`
}

// summary prints what became of everything, and waits for it if asked to.
func (imp *importer) summary(ctx context.Context) error {
	took := time.Since(imp.begin)
	out := imp.c.Out
	imp.c.Err.clearStatus()
	if imp.history.upToDate() && !imp.c.JSON {
		out.Printf("nothing new: everything up to commit %.12s has been imported\n", imp.history.head)
	} else if !imp.c.JSON {
		out.Printf("imported %s%s in %s (%s/s)\n", count(imp.accepted, imp.noun()), imp.history.extent(), short(took), spell.Thousands(int64(float64(imp.accepted)/took.Seconds())))
		for _, s := range imp.reader.skips.list() {
			out.Printf("%s %s\n", out.warn("left out"), plain(s.String()))
		}
		for _, r := range imp.rejected {
			out.Printf("%s %s  %s: %s\n", out.bad("refused"), plain(r.Where), r.Code, plain(r.Detail))
		}
		if more := imp.refused - len(imp.rejected); more > 0 {
			out.Printf("%s %s more\n", out.bad("refused"), spell.Thousands(more))
		}
	}
	var searchable *bool
	if imp.wait > 0 && imp.accepted > 0 {
		done, err := imp.awaitSearchable(ctx)
		if err != nil {
			return err
		}
		searchable = &done
	}
	if imp.c.JSON {
		if imp.rejected == nil {
			imp.rejected = []rejection{}
		}
		result := importResult{
			Accepted: imp.accepted, RejectedCount: imp.refused, Rejected: imp.rejected, Skipped: imp.reader.skips.list(), Took: short(took), Token: imp.token, Searchable: searchable,
		}
		if imp.history != nil {
			result.Commits, result.Commit = imp.reader.read.Load(), imp.history.head
		}
		if err := out.JSON(result); err != nil {
			return err
		}
	}
	switch {
	case imp.refused > 0:
		return fmt.Errorf("%s refused by the server", count(imp.refused, "document"))
	case imp.accepted == 0 && !imp.watching() && !imp.history.upToDate():
		return withHint(errors.New("there was nothing to import"), "folders are searched for .md .markdown .html .htm .txt .text; --include 'GLOB' takes others")
	}
	return nil
}

func (imp *importer) watching() bool { return imp.reader.known != nil }

// freshness is the part of GET /freshness that says how far the live generation is.
type freshness struct {
	Partitions []struct {
		Partition     int32 `json:"partition"`
		EndOffset     int64 `json:"end_offset"`
		AppliedOffset int64 `json:"applied_offset"`
		Lag           int64 `json:"lag"`
	} `json:"partitions"`
}

// awaitSearchable polls until everything that is in the log now is searchable, and tells whether it came to that in time.
func (imp *importer) awaitSearchable(ctx context.Context) (bool, error) {
	begin := time.Now()
	var first freshness
	if err := imp.client.do(ctx, "GET", "/freshness", nil, &first, options{}); err != nil {
		return false, err
	}
	ends, missing := map[int32]int64{}, int64(0)
	for _, p := range first.Partitions {
		ends[p.Partition] = p.EndOffset
		missing += max(p.EndOffset-p.AppliedOffset, 0)
	}
	now := first
	for {
		left := int64(0)
		for _, p := range now.Partitions {
			left += max(ends[p.Partition]-p.AppliedOffset, 0)
		}
		took := time.Since(begin)
		if left == 0 {
			if !imp.c.JSON {
				imp.c.Out.Printf("all of it is %s, %s after the first of it was sent\n", imp.c.Out.good("searchable"), short(time.Since(imp.begin)))
			}
			return true, nil
		}
		if took >= imp.wait {
			imp.c.Err.Printf("%s still to be indexed after %s: indexing goes on\n", count(left, "change"), short(took))
			return false, nil
		}
		eta := ""
		if done := missing - left; done > 0 {
			eta = fmt.Sprintf(", %s to go", short(time.Duration(float64(took)*float64(left)/float64(done)).Round(time.Second)))
		}
		imp.c.Err.Status("indexing: %s left%s", count(left, "change"), eta)
		if err := sleep(ctx, min(200*time.Millisecond, imp.wait-took)); err != nil {
			return false, err
		}
		var next freshness
		var answer *apiError
		switch err := imp.client.do(ctx, "GET", "/freshness", nil, &next, options{}); {
		case err == nil:
			now = next
		case !errors.As(err, &answer) || answer.Status != http.StatusServiceUnavailable:
			return false, err
		} // whatever can't be reached for the moment may be back in time
	}
}

// encodeLine spells a document as a line of POST /documents.
func encodeLine(id string, doc *stream.Document) ([]byte, error) {
	return json.Marshal(struct {
		ID string `json:"id"`
		*stream.Document
	}{id, doc})
}

// unwrapPath takes the operation and the path off an error of the file system, which the caller has named already.
func unwrapPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return errors.New(strings.TrimSpace(err.Error()))
}
