// Package diskspace tells how much room a disk has left, and whether it can be written at all.
package diskspace

import "golang.org/x/sys/windows"

// Free is how many bytes this user may still write to the disk that holds dir.
func Free(dir string) (uint64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	err = windows.GetDiskFreeSpaceEx(name, &free, nil, nil)
	return free, err
}

// ReadOnly tells whether the disk that holds dir is mounted so that nothing can be written to it, as far as the system tells.
func ReadOnly(dir string) bool { return false }
