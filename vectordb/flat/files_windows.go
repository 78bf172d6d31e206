package flat

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"

	"github.com/liverag/liverag/vectordb"
)

// syncDir does nothing: Windows has no such thing, NTFS logs its names itself.
func syncDir(string) error { return nil }

// lockFile takes a lock that ends with the process.
func lockFile(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if err != nil {
		f.Close()
		if !errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		return nil, fmt.Errorf("%w: another process holds %s; stop it or choose another directory", vectordb.ErrLocked, name)
	}
	return func() { f.Close() }, nil
}

// mapFile reads a file whole: an open mapping would keep Windows from removing the file. The allocation is aligned for float32.
func mapFile(name string) (b []byte, unmap func(), err error) {
	b, err = os.ReadFile(name)
	return b, func() {}, err
}
