package githistory_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

// TestFollow: each new version once, through all that a repository goes through.
func TestFollow(t *testing.T) {
	w := newWork(t)
	r := w.open()
	ctx, cancel := context.WithCancel(t.Context())
	seen, ended := make(chan string), make(chan error, 1)
	go func() {
		defer close(seen)
		for commit, err := range r.Follow(ctx, "HEAD", "", 2*time.Millisecond) {
			if err != nil {
				ended <- err
				return
			}
			seen <- commit
		}
		ended <- nil
	}()
	expect := func(what, want string) {
		t.Helper()
		select {
		case got := <-seen:
			if got != want {
				t.Fatalf("%s: %s, want %s", what, got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: nothing came", what)
		}
	}
	w.write("a.md", "1")
	first := w.commit()
	expect("first commit", first)
	w.write("a.md", "2")
	second := w.commit()
	expect("commit", second)
	w.git("pack-refs", "--all")
	w.git("gc", "-q", "--prune=now")
	w.write("a.md", "3")
	third := w.commit()
	expect("after gc", third)
	w.git("repack", "-adq")
	w.git("reset", "-q", "--hard", first)
	expect("reset", first)
	w.git("checkout", "-q", "-b", "feature/x", third)
	expect("another branch", third)
	w.git("checkout", "-q", "--detach", second)
	expect("no branch", second)

	// A rebase that stops half-way shows nothing of what it does until it is over.
	w.git("checkout", "-q", "-b", "topic", first)
	expect("topic", first)
	w.write("b.md", "b")
	topic := w.commit()
	expect("topic", topic)
	w.write(filepath.Join(".git", "rebase-merge", "x"), "")
	w.git("reset", "-q", "--hard", third)
	w.git("reset", "-q", "--hard", second)
	w.remove(filepath.Join(".git", "rebase-merge"))
	expect("after the rebase", second)

	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFollowEnds(t *testing.T) {
	w := newWork(t)
	w.commit()
	r := w.open()
	w.remove(".git")
	var failed error
	for _, err := range r.Follow(t.Context(), "HEAD", "", time.Millisecond) {
		failed = err
	}
	if failed == nil {
		t.Error("a repository that is gone is followed for ever")
	}
}
