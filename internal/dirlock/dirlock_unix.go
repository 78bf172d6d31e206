//go:build unix

// Package dirlock keeps two processes from using one directory.
package dirlock

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// Take locks a file, made if need be, for this process alone. Closing it gives the lock back, and so does the kernel when the process ends, however it ends.
func Take(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner, _ := os.ReadFile(path)
		f.Close()
		return nil, fmt.Errorf("is in use by process %s (%w): stop that process, or choose another directory with --data", strings.TrimSpace(string(owner)), err)
	}
	// Whose lock it is only helps whoever finds it taken: a disk without a byte left is no reason not to have it.
	if f.Truncate(0) == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}
