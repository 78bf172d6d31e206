//go:build unix

package main

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

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
