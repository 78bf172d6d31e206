//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// ownMounts names the test that a process with mounts of its own was started for.
const ownMounts = "LIVERAG_TEST_OWN_MOUNTS"

// withOwnMounts runs the test once more in a process that may mount what it likes, since nobody else sees it, and tells whether this is that process.
// Where the machine allows no such process, the test is skipped.
func withOwnMounts(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownMounts) == t.Name() {
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatalf("keep mounts to ourselves: %v", err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var refused []error
	for _, flags := range []uintptr{syscall.CLONE_NEWNS, syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER} {
		attributes := &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
		if flags&syscall.CLONE_NEWUSER != 0 {
			attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		// A dry run first, so that a machine which forbids it is told from a test that fails.
		probe := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "none", t.TempDir())
		probe.SysProcAttr = attributes
		if said, err := probe.CombinedOutput(); err != nil {
			refused = append(refused, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(said))))
			continue
		}
		again := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=10m")
		again.Env = append(os.Environ(), ownMounts+"="+t.Name())
		again.SysProcAttr = attributes
		said, err := again.CombinedOutput()
		if err != nil {
			t.Errorf("in a process with mounts of its own: %v\n%s", err, said)
		} else {
			t.Logf("in a process with mounts of its own:\n%s", said)
		}
		return false
	}
	t.Skipf("this machine allows no process with mounts of its own: %v", errors.Join(refused...))
	return false
}

// mountDisk mounts a disk of so many bytes on a directory.
func mountDisk(t *testing.T, dir string, size int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatalf("mount a disk: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// fill takes the room on the disk that holds dir, but for so many bytes, until empty is called.
func fill(t *testing.T, dir string, leave int64) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := int64(disk.Bavail)*disk.Bsize - leave; n > 0 {
		if err := syscall.Fallocate(int(f.Fd()), 0, 0, n); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if leave == 0 {
		for page := make([]byte, disk.Bsize); ; {
			if _, err := f.Write(page); err != nil {
				break
			}
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// promises is what a client was told: the text of every document whose write was acknowledged. What was sent and refused may be there or not.
type promises struct {
	acknowledged map[string]string
	sent         map[string][]string
}

func newPromises() *promises {
	return &promises{acknowledged: map[string]string{}, sent: map[string][]string{}}
}

func (p *promises) put(t *testing.T, on *program, id, text string) answered {
	t.Helper()
	got, err := on.call("PUT", documentPath(id), map[string]any{"text": text})
	if err != nil {
		t.Fatal(err)
	}
	if got.status == http.StatusAccepted {
		p.acknowledged[id] = text
		p.sent[id] = nil
	} else {
		p.sent[id] = append(p.sent[id], text)
	}
	return got
}

// check holds the program to them, once it has applied everything.
func (p *promises) check(t *testing.T, on *program) {
	t.Helper()
	on.applied()
	for _, id := range slices.Sorted(maps.Keys(p.acknowledged)) {
		if got, ok := on.get(id); !ok || got.Text != p.acknowledged[id] && !slices.Contains(p.sent[id], got.Text) {
			t.Errorf("%s was acknowledged and is lost: there=%v, %.80q", id, ok, got.Text)
		}
	}
}

// refusedForRoom holds an answer to what is promised of a full disk.
func refusedForRoom(t *testing.T, got answered) {
	t.Helper()
	if got.status != http.StatusInsufficientStorage || got.code() != "disk_full" || got.header.Get("Content-Type") != "application/problem+json" || got.header.Get("Retry-After") == "" {
		t.Errorf("a write on a full disk answers %d %v %s", got.status, got.header, got.body)
	}
}

// TestAFullDisk: writes are refused and say why, questions are answered, what was acknowledged is there, and when there is room again all goes on by itself.
func TestAFullDisk(t *testing.T) {
	t.Parallel()
	if !withOwnMounts(t) {
		return
	}
	data := filepath.Join(t.TempDir(), "data")
	mountDisk(t, data, 256<<20)
	p := startProgram(t, data)
	kept := newPromises()
	for i := range 40 {
		if got := kept.put(t, p, fmt.Sprintf("early/%d", i), prose(fmt.Sprintf("early%d", i), 8)); got.status != http.StatusAccepted {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	p.applied()

	answers := func(when string) {
		t.Helper()
		if f := p.ask("early7", map[string]any{"k": 3}); len(f.Hits) == 0 || f.Hits[0].Document != "early/7" {
			t.Errorf("%s, a question is answered with %q", when, f.documents())
		}
		if got, err := p.call("GET", "/readyz", nil); err != nil || got.status != http.StatusOK {
			t.Errorf("%s, /readyz answers %d %s %v", when, got.status, got.body, err)
		}
	}
	refuses := func(when string) {
		t.Helper()
		refusedForRoom(t, kept.put(t, p, "early/1", "Refused "+when))
		lines, err := p.call("POST", "/documents", "{\"id\":\"line\",\"text\":\"refused\"}\n")
		if err != nil {
			t.Fatal(err)
		}
		refusedForRoom(t, lines)
		gone, err := p.call("DELETE", documentPath("nothing"), nil)
		if err != nil {
			t.Fatal(err)
		}
		refusedForRoom(t, gone)
		replay, err := p.call("POST", "/generations", map[string]any{"name": "refused"})
		if err != nil {
			t.Fatal(err)
		}
		refusedForRoom(t, replay)
		answers(when)
	}

	// Somebody else takes all the room.
	empty := fill(t, data, 0)
	refuses("when the disk is full")
	empty()
	until(t, "taking writes again", func() bool {
		return kept.put(t, p, "between", "Written when there was room again.").status == http.StatusAccepted
	})
	kept.check(t, p)

	// The log fills the disk until it stops itself, and leaves room for what has to be indexed of it. Somebody else takes that, and a replay
	// finds none.
	empty = fill(t, data, 24<<20)
	refusals := 0
	for i := 0; refusals < 3; i++ {
		if got := kept.put(t, p, fmt.Sprintf("late/%d", i), prose(fmt.Sprintf("late%d", i), 4000)); got.status != http.StatusAccepted {
			refusedForRoom(t, got)
			refusals++
		}
		if i > 500 {
			t.Fatal("the disk does not get full")
		}
	}
	// Before the room is taken, for the store goes on writing what is in the log, and a new generation has to be noted there too.
	p.must(nil, "POST", "/generations", map[string]any{"name": "second", "recipe": map[string]any{"embedder": map[string]any{"model": "hash/1024"}}})
	half := fill(t, filepath.Join(data, "log"), 6<<20)
	until(t, "said by a generation", func() bool {
		return slices.ContainsFunc(p.generations(), func(g generation) bool {
			return g.Trouble != nil && strings.Contains(g.Trouble.Detail, "no space left")
		})
	})
	more := fill(t, filepath.Join(data, "store"), 0)
	answers("after the disk was filled")
	refuses("when not a byte is left")

	// Restarts of either kind, with not a byte left.
	p.kill()
	p = startProgram(t, data)
	answers("after a kill on a full disk")
	refuses("after a kill on a full disk")
	p.stop()
	p = startProgram(t, data)
	answers("after a restart on a full disk")
	refuses("after a restart on a full disk")

	more()
	half()
	empty()
	until(t, "taking writes again", func() bool {
		return kept.put(t, p, "after", "Written after the restarts.").status == http.StatusAccepted
	})
	kept.check(t, p)
	t.Logf("%d documents were acknowledged", len(kept.acknowledged))
	goesOn(t, "both generations ready", p.indexed, func() bool {
		return !slices.ContainsFunc(p.generations(), func(g generation) bool { return g.Trouble != nil || g.State != "ready" })
	})
	p.kill()
	p = startProgram(t, data)
	kept.check(t, p)
}

// mountExt4 mounts a disk that turns read-only when it has an error, and returns how to break it, and how to repair and mount it again.
func mountExt4(t *testing.T, dir string) (fail func() error, repair func()) {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk")
	run := func(name string, args ...string) error {
		if said, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, said)
		}
		return nil
	}
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(192<<20), f.Close(), os.MkdirAll(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	mount := func() error { return run("mount", "-o", "loop,errors=remount-ro", image, dir) }
	if err := run("mkfs.ext4", "-q", "-m", "0", image); err != nil {
		t.Skipf("this machine makes no disks: %v", err)
	}
	if err := mount(); err != nil {
		t.Skipf("this machine mounts no disks: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	fail = func() error {
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			return err
		}
		device := regexp.MustCompile(`(?m)^/dev/(\S+) ` + regexp.QuoteMeta(dir) + ` `).FindSubmatch(mounts)
		if device == nil {
			return fmt.Errorf("%s is not mounted:\n%s", dir, mounts)
		}
		return os.WriteFile("/sys/fs/ext4/"+string(device[1])+"/trigger_fs_error", []byte("1"), 0)
	}
	repair = func() {
		t.Helper()
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
		_ = run("e2fsck", "-fy", image) // it tells that it found something
		if err := mount(); err != nil {
			t.Fatal(err)
		}
	}
	return fail, repair
}

// lock takes the right to change anything below a directory from everybody, also through files that are open, or gives it back.
func lock(t *testing.T, dir string, locked bool) {
	t.Helper()
	const immutable = 0x10 // FS_IMMUTABLE_FL
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err != nil {
			return err
		}
		flags &^= immutable
		if locked {
			flags |= immutable
		}
		return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
	})
	if err != nil {
		t.Fatalf("lock %s: %v", dir, err)
	}
}

// TestADirectoryThatTurnsReadOnly: writes are refused and say why, questions are answered, and what was acknowledged is there: when the files may be written again, by
// itself; when the disk had an error, after it was repaired.
func TestADirectoryThatTurnsReadOnly(t *testing.T) {
	t.Parallel()
	if !withOwnMounts(t) {
		return
	}
	data := filepath.Join(t.TempDir(), "data")
	fail, repair := mountExt4(t, data)
	p := startProgram(t, data)
	kept := newPromises()
	accepts := func(id, text string) {
		t.Helper()
		if got := kept.put(t, p, id, text); got.status != http.StatusAccepted {
			t.Fatalf("%s is answered with %d %s", id, got.status, got.body)
		}
	}
	for i := range 40 {
		accepts(fmt.Sprintf("early/%d", i), prose(fmt.Sprintf("early%d", i), 8))
	}
	p.applied()
	refuses := func(when string) {
		t.Helper()
		refused := func(what string, got answered) {
			t.Helper()
			if got.status != http.StatusServiceUnavailable || got.code() != "log_unavailable" || !strings.Contains(string(got.body), "can't be written") || got.header.Get("Retry-After") == "" {
				t.Errorf("%s, %s is answered with %d %v %s", when, what, got.status, got.header, got.body)
			}
		}
		refused("a document", kept.put(t, p, "early/1", "Refused "+when))
		for what, request := range map[string][2]string{"an import": {"POST", "/documents"}, "a deletion": {"DELETE", documentPath("nothing")}} {
			got, err := p.call(request[0], request[1], "{\"id\":\"line\",\"text\":\"refused\"}\n")
			if err != nil {
				t.Fatal(err)
			}
			refused(what, got)
		}
		if got, err := p.call("POST", "/generations", map[string]any{"name": "refused"}); err != nil || got.status != http.StatusServiceUnavailable || got.code() != "log_unavailable" {
			t.Errorf("%s, a replay is answered with %d %s %v", when, got.status, got.body, err)
		}
		if f := p.ask("early7", map[string]any{"k": 3}); len(f.Hits) == 0 || f.Hits[0].Document != "early/7" {
			t.Errorf("%s, a question is answered with %q", when, f.documents())
		}
		if got, err := p.call("GET", "/readyz", nil); err != nil || got.status != http.StatusOK {
			t.Errorf("%s, /readyz answers %d %s %v", when, got.status, got.body, err)
		}
	}

	for round := range 2 {
		lock(t, data, true)
		refuses("while the files may not be written")
		lock(t, data, false)
		until(t, "taking writes again", func() bool {
			return kept.put(t, p, fmt.Sprintf("between/%d", round), "Written when it was possible again.").status == http.StatusAccepted
		})
		kept.check(t, p)
	}
	p.kill()
	p = startProgram(t, data)
	kept.check(t, p)

	// The disk breaks in the middle of writes.
	var g errgroup.Group
	var mu sync.Mutex
	var taken atomic.Int64
	broken := make(chan error, 1)
	for writer := range 8 {
		g.Go(func() error {
			for i := range 5000 {
				id, text := fmt.Sprintf("late/%d/%d", writer, i), prose("late", 8)
				got, err := p.call("PUT", documentPath(id), map[string]any{"text": text})
				switch {
				case err != nil:
					return err
				case got.status == http.StatusAccepted:
					mu.Lock()
					kept.acknowledged[id] = text
					mu.Unlock()
					if taken.Add(1) == 100 {
						go func() { broken <- fail() }()
					}
				case taken.Load() < 100 || got.code() != "log_unavailable":
					return fmt.Errorf("%s is answered with %d %s", id, got.status, got.body)
				default:
					return nil
				}
			}
			return errors.New("the disk is broken, and writes are taken")
		})
	}
	if err := errors.Join(g.Wait(), <-broken); err != nil {
		t.Fatal(err)
	}
	t.Logf("the disk broke after 100 writes, %d were acknowledged", taken.Load())
	refuses("when the disk is broken")
	p.kill()
	fails(t, exitFailed, []string{"read-only file system", "mount it writable"}, "up", "--data", data, "--listen", "127.0.0.1:0")
	repair()
	p = startProgram(t, data)
	accepts("after", "Written after the repair.")
	kept.check(t, p)
	t.Logf("%d documents were acknowledged", len(kept.acknowledged))
}

// keepOut makes a directory one that the command may not touch. Root may touch everything that belongs to a user of its own name space, so it gets one without the owner.
func keepOut(t *testing.T, dir string, cmd *exec.Cmd) {
	t.Helper()
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Skipf("root here owns nothing but its own files: %v", err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		}
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
}

// TestADataDirectoryThatCannotBeUsed: one error, which names the path and the cause, and says what to do.
func TestADataDirectoryThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	if !withOwnMounts(t) {
		return
	}
	mounted := func(used bool) func(t *testing.T, dir string, _ *exec.Cmd) string {
		return func(t *testing.T, dir string, _ *exec.Cmd) string {
			mountDisk(t, dir, 64<<20)
			if used {
				startProgram(t, dir).stop()
			}
			if err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(dir, "log")
		}
	}
	const away, writable, allowed = "move that file away, or choose another directory with --data", "mount it writable, or choose another directory with --data",
		`let the user who runs liverag \(user id \d+\) read and write `
	for _, test := range []struct {
		name        string
		make        func(t *testing.T, dir string, cmd *exec.Cmd) (path string)
		cause, hint string
	}{
		{"a file", func(t *testing.T, dir string, _ *exec.Cmd) string {
			write(t, filepath.Dir(dir), filepath.Base(dir), []byte("no directory"))
			return dir
		}, "not a directory", away},
		{"a file where the log belongs", func(t *testing.T, dir string, _ *exec.Cmd) string {
			write(t, dir, "log", []byte("no directory"))
			return filepath.Join(dir, "log")
		}, "not a directory", away},
		{"a file where the store belongs", func(t *testing.T, dir string, _ *exec.Cmd) string {
			write(t, dir, "store", []byte("no directory"))
			return filepath.Join(dir, "store")
		}, "not a directory", away},
		{"a read-only disk", mounted(false), "read-only file system", writable},
		{"a read-only disk that was used", mounted(true), "read-only file system", writable},
		{"somebody else's, empty", func(t *testing.T, dir string, cmd *exec.Cmd) string {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			keepOut(t, dir, cmd)
			return filepath.Join(dir, "log")
		}, "permission denied", allowed},
		{"somebody else's store", func(t *testing.T, dir string, cmd *exec.Cmd) string {
			startProgram(t, dir).stop()
			keepOut(t, filepath.Join(dir, "store", "documents"), cmd)
			return filepath.Join(dir, "store", "documents")
		}, "permission denied", allowed},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			var said strings.Builder
			cmd := liverag(t, "up", "--data", dir, "--listen", "127.0.0.1:0", "--embedder", "hash/384")
			cmd.Stderr = &said
			path := test.make(t, dir, cmd)
			began := time.Now()
			watchdog := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			err := cmd.Run()
			watchdog.Stop()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
				t.Errorf("it ends with %v after %s, not with exit code 1", err, time.Since(began))
			}
			lines := strings.Split(strings.TrimSpace(said.String()), "\n")
			if len(lines) != 2 || !strings.Contains(lines[0], path) || !strings.HasSuffix(lines[0], test.cause) || !regexp.MustCompile(test.hint).MatchString(lines[1]) {
				t.Errorf("it says %q; want one line with %s and %q, and one with %q", lines, path, test.cause, test.hint)
			}
		})
	}
}
