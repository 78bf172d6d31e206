package githistory

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Follow gives the commit that a revision means, each time that it means another one than before (at first: than `from`), until ctx ends. While the
// revision means nothing (a branch was deleted, a repository has no commit yet) it waits. While a rebase or a bisection moves HEAD about, HEAD is
// not looked at: those are steps of somebody's work, and no versions.
//
// Git is asked every so often, through one process that answers in microseconds. Git itself knows where its references are (loose, packed, in
// tables, in another work tree); watching files would have to learn all of that.
func (r *Repository) Follow(ctx context.Context, revision, from string, every time.Duration) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		asked, err := r.start(ctx, "cat-file", "--batch-check")
		if err != nil {
			yield("", err)
			return
		}
		failed := error(nil)
		defer func() {
			cancel()
			_ = asked.wait()
			if failed == nil {
				return
			}
			if said := asked.complaint(); said != "" {
				failed = fmt.Errorf("%w: %s", failed, said)
			}
			yield("", failed)
		}()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			commit := from
			if revision != "HEAD" || !r.underWay() {
				if commit, err = askCommit(asked, revision); err != nil {
					if ctx.Err() == nil {
						failed = err
					}
					return
				}
			}
			if commit != "" && commit != from {
				from = commit
				if !yield(commit, nil) {
					return
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// askCommit returns "" if the revision means no commit.
func askCommit(asked *process, revision string) (string, error) {
	_, err := io.WriteString(asked.in, revision+"^{commit}\n")
	var line string
	if err == nil {
		line, err = asked.out.ReadString('\n')
	}
	if err != nil {
		return "", errEnded
	}
	if fields := strings.Fields(line); len(fields) == 3 && fields[1] == "commit" {
		return fields[0], nil
	}
	return "", nil
}

// underWay tells that HEAD is moved about by a rebase or a bisection.
func (r *Repository) underWay() bool {
	for _, name := range []string{"rebase-merge", "rebase-apply", "BISECT_LOG"} {
		if _, err := os.Stat(filepath.Join(r.gitDir, name)); err == nil {
			return true
		}
	}
	return false
}
