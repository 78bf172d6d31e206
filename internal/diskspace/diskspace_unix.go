//go:build unix

// Package diskspace tells how much room a disk has left, and whether it can be written at all.
package diskspace

import "golang.org/x/sys/unix"

// Free is how many bytes this user may still write to the disk that holds dir.
func Free(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return uint64(s.Bavail) * uint64(s.Bsize), nil
}

// ReadOnly tells whether the disk that holds dir is mounted so that nothing can be written to it, as far as the system tells.
func ReadOnly(dir string) bool {
	var s unix.Statfs_t
	const readOnly = 1 // ST_RDONLY, MNT_RDONLY
	return unix.Statfs(dir, &s) == nil && s.Flags&readOnly != 0
}
