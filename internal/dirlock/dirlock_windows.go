// Package dirlock keeps two processes from using one directory.
package dirlock

import (
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// Take locks a file, made if need be, for this process alone. Closing it gives the lock back, and so does the kernel when the process ends, however it ends.
func Take(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("is in use by another process (%w): stop that process, or choose another directory with --data", err)
	}
	return f, nil
}
