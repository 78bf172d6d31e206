//go:build unix

package main

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// freeBytes is what this user may still write to the disk that holds dir.
func freeBytes(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return uint64(s.Bavail) * uint64(s.Bsize), nil
}

// lockedBy returns the process that holds the lock file of a data directory, "" if none does.
func lockedBy(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return "" // closing gives it back
	}
	owner, err := os.ReadFile(path)
	if pid := strings.TrimSpace(string(owner)); err == nil && pid != "" {
		return pid
	}
	return "unknown"
}
