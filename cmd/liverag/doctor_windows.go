package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// lockedBy returns the process that holds the lock file of a data directory, "" if none does. The system does not tell which one it is.
func lockedBy(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if err != nil {
		return "unknown"
	}
	return "" // closing gives it back
}
