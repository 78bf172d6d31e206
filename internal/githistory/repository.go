// Package githistory reads a git repository as a stream of changes to its text files.
//
// It runs the git executable and reads the output of its plumbing (rev-list, diff-tree, ls-tree, cat-file), which is made for programs and follows
// no setting of the user. Everything is streamed: memory holds one file's content and, for [Repository.State], the paths of one tree, whatever the
// repository's size.
//
// History is first-parent history: a merge is one step, compared with the branch it was merged into. So the changes of all commits, one after the other,
// lead to exactly the files of the last commit.
package githistory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

var (
	// ErrNoGit: there is no git executable.
	ErrNoGit = errors.New("git is not installed, or not in PATH: install it with your system's packages")
	// ErrNotRepository: the directory is in no repository.
	ErrNotRepository = errors.New("not a git repository")
	// ErrNoCommit: what was named is no commit, or HEAD of a repository without any.
	ErrNoCommit = errors.New("no such commit")
)

// Repository is a git repository, or a folder of one. It holds nothing open, and is safe for concurrent use.
type Repository struct {
	program string
	gitDir  string // of this work tree: where its HEAD is
	common  string
	folder  string
}

// Open finds the repository that a directory is in: a work tree or a folder of one, a bare repository, a linked work tree.
// Errors: ErrNoGit, ErrNotRepository, what git says otherwise (such as that somebody else owns the repository).
func Open(ctx context.Context, dir string) (*Repository, error) {
	program, err := exec.LookPath("git")
	if err != nil {
		return nil, ErrNoGit
	}
	r := &Repository{program: program}
	// One question at a time, because a path may hold a line break.
	ask := func(question string) (string, error) {
		out, err := r.output(r.prepare(ctx, "-C", dir, "rev-parse", question))
		return strings.TrimSuffix(out, "\n"), err
	}
	if r.gitDir, err = ask("--absolute-git-dir"); err != nil {
		if strings.Contains(err.Error(), "not a git repository") {
			return nil, ErrNotRepository
		}
		return nil, err
	}
	if r.folder, err = ask("--show-prefix"); err != nil {
		return nil, err
	}
	if r.common, err = ask("--git-common-dir"); err != nil {
		return nil, err
	}
	if !filepath.IsAbs(r.common) {
		r.common = filepath.Join(dir, r.common)
	}
	if real, err := filepath.EvalSymlinks(r.common); err == nil {
		r.common = real
	}
	if r.common, err = filepath.Abs(r.common); err != nil {
		return nil, err
	}
	return r, nil
}

// Folder is the path of the opened directory below the top of the work tree, with a slash at its end; "" for the top, and for a bare repository.
// All paths are relative to it, and nothing outside of it is seen.
func (r *Repository) Folder() string { return r.folder }

// Identity tells the repository from others on this machine: the directory that all its work trees share.
func (r *Repository) Identity() string { return r.common }

// Commit is a step of the history.
type Commit struct {
	// Hash is the full hexadecimal hash.
	Hash string
	// Time is when it was committed (not authored), but never before that of a commit before it: clocks of committers differ.
	Time time.Time
}

// Resolve finds the commit that a revision means, in git's spelling (HEAD, v1.2, main~3, a hash). The error is ErrNoCommit if there is none.
func (r *Repository) Resolve(ctx context.Context, revision string) (string, error) {
	if strings.HasPrefix(revision, "-") { // git would take it for an option
		return "", ErrNoCommit
	}
	out, err := r.git(ctx, "rev-parse", "--verify", "--quiet", revision+"^{commit}")
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && ctx.Err() == nil {
			return "", ErrNoCommit
		}
		return "", err
	}
	return strings.TrimSpace(out), nil
}

// Count tells how many steps lead from a commit ("" is before the first) to another.
func (r *Repository) Count(ctx context.Context, from, to string) (int, error) {
	out, err := r.git(ctx, append([]string{"rev-list", "--count", "--first-parent"}, span(from, to)...)...)
	if err != nil {
		return 0, err
	}
	var n int
	if _, err := fmt.Sscan(out, &n); err != nil {
		return 0, fmt.Errorf("count commits: git answers %q", out)
	}
	return n, nil
}

// Continues tells whether `to` follows from `from` step by step, so that the history between them leads from the files of the one to those of the
// other. It does not after a rebase or a reset; nor where `from` was merged into another branch, because the steps of that branch begin elsewhere.
// "" is before every first commit, and continued by all.
func (r *Repository) Continues(ctx context.Context, from, to string) (bool, error) {
	if from == "" || from == to {
		return true, nil
	}
	last, err := r.lastContained(ctx, from, to)
	return last == from, err
}

// Contained finds the last step on the way to a commit that a revision contains already, "" if there is none: where a history that begins with that
// revision begins. A tag on a release branch is so brought back to where the branch left the main line.
func (r *Repository) Contained(ctx context.Context, revision, to string) (string, error) {
	from, err := r.Resolve(ctx, revision)
	if err != nil || from == to {
		return from, err
	}
	return r.lastContained(ctx, from, to)
}

// lastContained walks back from `to` to the first commit that `from` reaches.
func (r *Repository) lastContained(ctx context.Context, from, to string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list, err := r.start(ctx, append([]string{"rev-list", "--first-parent", "--parents", "--reverse"}, span(from, to)...)...)
	if err != nil {
		return "", err
	}
	line, _ := list.out.ReadString('\n')
	if line == "" { // none: it reaches all of them
		return to, list.wait()
	}
	cancel()
	_ = list.wait()
	if fields := strings.Fields(line); len(fields) > 1 {
		return fields[1], nil
	}
	return "", nil
}

// Back finds the commit n steps before another; "" if there are not that many.
func (r *Repository) Back(ctx context.Context, commit string, n int) (string, error) {
	out, err := r.git(ctx, "rev-list", "--first-parent", "--max-count=1", fmt.Sprintf("--skip=%d", n), commit)
	return strings.TrimSpace(out), err
}

// span spells the commits after one, up to another, for rev-list.
func span(from, to string) []string {
	if from == "" {
		return []string{to}
	}
	return []string{to, "^" + from}
}

// prepare makes a command that no variable or setting of the caller's environment leads to another repository or to other output.
func (r *Repository) prepare(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.program, args...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(foreign, strings.ToUpper(name))
	})
	// Errors are told apart by their English text. A folder's name is no pattern. Nothing is asked on a terminal, and no lock is taken.
	cmd.Env = append(cmd.Env, "LC_ALL=C", "GIT_LITERAL_PATHSPECS=1", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0")
	return cmd
}

// foreign are the variables that would name another repository than the directory does, as they do within a hook.
var foreign = []string{
	"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE",
	"GIT_IMPLICIT_WORK_TREE", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_TRACE", "GIT_TRACE_SETUP", "GIT_DIFF_OPTS", "LANGUAGE",
}

// inside prepares a command of this repository.
func (r *Repository) inside(ctx context.Context, args ...string) *exec.Cmd {
	cmd := r.prepare(ctx, append([]string{"--git-dir=" + r.gitDir}, args...)...)
	cmd.Dir = r.gitDir
	return cmd
}

// git runs a command of this repository and returns what it prints.
func (r *Repository) git(ctx context.Context, args ...string) (string, error) {
	return r.output(r.inside(ctx, args...))
}

func (r *Repository) output(cmd *exec.Cmd) (string, error) {
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return "", explain(cmd, err, said.String())
	}
	return out.String(), nil
}

// explain is an error in git's words, on one line.
func explain(cmd *exec.Cmd, err error, said string) error {
	name := ""
	for _, arg := range cmd.Args[1:] {
		if !strings.HasPrefix(arg, "-") && arg != cmd.Dir {
			name = " " + arg
			break
		}
	}
	if said = strings.Join(strings.Fields(said), " "); said == "" {
		return fmt.Errorf("git%s: %w", name, err)
	}
	return &gitError{strings.TrimPrefix(said, "fatal: "), err}
}

// gitError is a failure that git explained itself.
type gitError struct {
	said string
	err  error
}

func (e *gitError) Error() string { return "git: " + e.said }
func (e *gitError) Unwrap() error { return e.err }
