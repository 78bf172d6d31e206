package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// quiet is how long a file must be left alone before it is read: editors write one file in several steps.
	quiet = 100 * time.Millisecond
	// watchWait is how long a change is waited for until it is searchable.
	watchWait = 30 * time.Second
	// watchAtOnce is how many changes are on their way at the same time.
	watchAtOnce = 8
	// watchRetry is how long a change that no server took waits before it is sent again.
	watchRetry = 2 * time.Second
)

// knownFiles are the files that are documents of the index, as they were when they were last sent.
type knownFiles struct {
	mu     sync.Mutex
	stamps map[string]stamp
}

func (k *knownFiles) set(full string, s stamp) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stamps[full] = s
}

func (k *knownFiles) get(full string) (stamp, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.stamps[full]
	return s, ok
}

func (k *knownFiles) remove(full string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.stamps, full)
}

// below lists the files of a folder, or the file itself.
func (k *knownFiles) below(full string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []string
	for name := range k.stamps {
		if isBelow(name, full) {
			out = append(out, name)
		}
	}
	return out
}

// isBelow tells whether a path is the folder, or in it.
func isBelow(full, folder string) bool {
	return full == folder || strings.HasPrefix(full, strings.TrimSuffix(folder, string(filepath.Separator))+string(filepath.Separator))
}

// watcher follows folders. Only the goroutine of run touches due and busy.
type watcher struct {
	imp   *importer
	roots []string
	fs    *fsnotify.Watcher

	due  map[string]time.Time // when each changed file may be read
	busy map[string]bool      // files on their way
	done chan sent            // from the senders
}

// sent is what became of one change.
type sent struct {
	full  string
	again bool // it did not get through
}

func newWatcher(imp *importer, roots []string) (*watcher, error) {
	inner, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch: %w", watchHint(err))
	}
	imp.reader.known = &knownFiles{stamps: map[string]stamp{}}
	w := &watcher{imp: imp, fs: inner, due: map[string]time.Time{}, busy: map[string]bool{}, done: make(chan sent)}
	for _, root := range roots {
		real, err := filepath.EvalSymlinks(root)
		if err == nil {
			real, err = filepath.Abs(real)
		}
		if err == nil {
			err = w.watchFolders(real)
		}
		if err != nil {
			inner.Close()
			return nil, fmt.Errorf("watch %s: %w", root, watchHint(err))
		}
		w.roots = append(w.roots, real)
	}
	return w, nil
}

func (w *watcher) close() { w.fs.Close() }

func watchHint(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EMFILE) {
		return withHint(err, "the system's limit of watched folders is reached: raise fs.inotify.max_user_watches and max_user_instances, or --exclude folders")
	}
	return err
}

// watchFolders watches a folder and every folder below it that the filter lets through.
func (w *watcher) watchFolders(full string) error {
	var failed error
	silent := &reader{filter: w.imp.reader.filter, skips: newSkips()}
	err := silent.walkBelow(context.Background(), w.rootOf(full), full, func(string, string) error { return nil }, func(folder string) {
		if err := w.fs.Add(folder); err != nil && failed == nil && !errors.Is(err, fs.ErrNotExist) {
			failed = err
		}
	})
	return errors.Join(failed, err)
}

// rootOf returns the watched folder that a path is in; the path itself if there is none.
func (w *watcher) rootOf(full string) string {
	best := ""
	for _, root := range w.roots {
		if isBelow(full, root) && len(root) > len(best) {
			best = root
		}
	}
	if best == "" {
		return full
	}
	return best
}

// run follows the folders until ctx ends.
func (w *watcher) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var senders sync.WaitGroup
	defer senders.Wait()
	defer cancel()
	if !w.imp.c.JSON {
		w.imp.c.Out.Printf("following %s: Ctrl-C ends it\n", plain(strings.Join(w.roots, ", ")))
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.dispatch(ctx, &senders)
		if next, ok := w.next(); ok {
			timer.Reset(time.Until(next))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-w.fs.Events:
			if !ok {
				return errors.New("watch: the system stopped telling of changes: start again")
			}
			w.note(event)
		case err := <-w.fs.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				w.imp.c.Err.Printf("watch: %v\n", err)
			}
			w.rescan() // some events may have been lost
		case s := <-w.done:
			delete(w.busy, s.full)
			if s.again {
				w.schedule(s.full, watchRetry)
			}
		case <-timer.C:
		}
	}
}

// next tells when the next file may be read that is not on its way.
func (w *watcher) next() (time.Time, bool) {
	var first time.Time
	if len(w.busy) >= watchAtOnce {
		return first, false
	}
	for full, at := range w.due {
		if !w.busy[full] && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first, !first.IsZero()
}

// note takes an event of the file system in.
func (w *watcher) note(event fsnotify.Event) {
	if event.Op == fsnotify.Chmod {
		return
	}
	full := event.Name
	info, err := os.Lstat(full)
	switch {
	case err != nil: // removed or renamed away: a file, or a folder with all it held
		for _, gone := range w.imp.reader.known.below(full) {
			w.schedule(gone, quiet)
		}
		for sending := range w.busy { // sent for the first time, so not known yet
			if isBelow(sending, full) {
				w.schedule(sending, quiet)
			}
		}
	case w.leftOut(full, info.IsDir()):
	case info.IsDir():
		if event.Has(fsnotify.Create) {
			if err := w.watchFolders(full); err != nil {
				w.imp.c.Err.Printf("watch %s: %v\n", plain(full), watchHint(err))
			}
			w.scan(full)
		}
	default:
		w.schedule(full, quiet)
	}
}

// leftOut tells whether the filter leaves out the path or any folder above it.
func (w *watcher) leftOut(full string, folder bool) bool {
	rel := relative(w.rootOf(full), full)
	if w.imp.reader.filter.leaveOut(rel, folder) != "" {
		return true
	}
	for i := range rel {
		if rel[i] == '/' && w.imp.reader.filter.leaveOut(rel[:i], true) != "" {
			return true
		}
	}
	return false
}

// scan schedules every file of a folder: those that were written before it was watched made no event.
func (w *watcher) scan(folder string) {
	silent := &reader{filter: w.imp.reader.filter, skips: newSkips()}
	_ = silent.walkBelow(context.Background(), w.rootOf(folder), folder, func(full, _ string) error {
		w.schedule(full, quiet)
		return nil
	}, nil)
}

// rescan looks at everything, after events were lost.
func (w *watcher) rescan() {
	for _, root := range w.roots {
		if err := w.watchFolders(root); err != nil {
			w.imp.c.Err.Printf("watch %s: %v\n", plain(root), watchHint(err))
		}
		w.scan(root)
		for _, full := range w.imp.reader.known.below(root) {
			w.schedule(full, quiet)
		}
	}
}

func (w *watcher) schedule(full string, after time.Duration) { w.due[full] = time.Now().Add(after) }

// dispatch starts a sender for each file whose time has come.
func (w *watcher) dispatch(ctx context.Context, senders *sync.WaitGroup) {
	now := time.Now()
	for _, full := range slices.Sorted(maps.Keys(w.due)) {
		if len(w.busy) >= watchAtOnce {
			return
		}
		if w.busy[full] || w.due[full].After(now) {
			continue
		}
		delete(w.due, full)
		w.busy[full] = true
		senders.Go(func() {
			again := w.send(ctx, full)
			select {
			case w.done <- sent{full, again}:
			case <-ctx.Done():
			}
		})
	}
}

// watched is one change of a file, for a program.
type watched struct {
	Time       time.Time `json:"time"`
	ID         string    `json:"id"`
	Change     string    `json:"change"` // written, deleted, left out or refused
	Detail     string    `json:"detail,omitempty"`
	Searchable bool      `json:"searchable"`
	Took       string    `json:"took,omitempty"`
	// Commit is where a change comes from that a followed repository tells of.
	Commit string `json:"commit,omitempty"`

	line int // of its batch, from 1
}

// send brings the index in line with one file as it is now, and tells whether that has to be tried again.
func (w *watcher) send(ctx context.Context, full string) (again bool) {
	reader := w.imp.reader
	rel := relative(w.rootOf(full), full)
	before, known := reader.known.get(full)
	line := watched{ID: reader.prefix + rel, Change: "written"}
	method, body := "PUT", any(nil)
	_, doc, now, err := reader.document(full, rel)
	var left *errSkip
	switch _, statErr := os.Lstat(full); {
	case errors.Is(statErr, fs.ErrNotExist):
		if !known {
			return false
		}
		method, line.Change = "DELETE", "deleted"
	case errors.As(err, &left):
		line.Change, line.Detail = "left out", left.reason
		if known {
			line.Detail += "; the version before it stays"
		}
		w.print(line)
		return false
	case known && now.size == before.size && now.modified.Equal(before.modified):
		return false // several events of one save
	default:
		body = doc
	}
	begin := time.Now()
	var answer written
	err = w.imp.client.do(ctx, method, documentPath(line.ID)+waitQuery(watchWait), body, &answer, options{timeout: callTimeout + watchWait})
	line.Took = short(time.Since(begin))
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		_, again = busy(err)
		again = again || errors.As(err, new(*unreachableError))
		line.Change, line.Detail = "refused", err.Error()
		if again {
			line.Detail += "; trying again"
		}
		w.print(line)
		return again
	}
	if method == "DELETE" {
		reader.known.remove(full)
	} else {
		reader.known.set(full, now)
	}
	line.Searchable = answer.Searchable != nil && *answer.Searchable
	w.print(line)
	return false
}

func (w *watcher) print(line watched) { w.imp.printWatched(line) }

func (imp *importer) printWatched(line watched) {
	line.Time = time.Now().UTC()
	out := imp.c.Out
	imp.printing.Lock()
	defer imp.printing.Unlock()
	if imp.c.JSON {
		_ = out.JSON(line) // a reader that went away ends the program by SIGPIPE
		return
	}
	text := line.Detail
	switch {
	case line.Change == "deleted" && line.Searchable:
		text = "gone from answers after " + line.Took
	case line.Searchable:
		text = "searchable after " + line.Took
	case text == "":
		text = "in the log, not searchable within " + line.Took
	}
	out.Printf("%s  %-8s  %s  %s\n", out.dim(line.Time.Local().Format(time.TimeOnly)), line.Change, plain(line.ID), plain(text))
}
