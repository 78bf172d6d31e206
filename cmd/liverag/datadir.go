package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// unusable adds to an error of the data directory's files what to do about it. Other errors stay as they are.
func unusable(err error, dir string) error {
	var at *fs.PathError
	var known *hinted
	if err == nil || errors.As(err, &known) || !errors.As(err, &at) {
		return err
	}
	if full, absErr := filepath.Abs(dir); absErr == nil {
		dir = full
	}
	const another = "or choose another directory with --data"
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return withHint(err, fmt.Sprintf("the data directory is %s, and a file is where a directory has to be: move that file away, %s", dir, another))
	case errors.Is(err, syscall.EROFS):
		return withHint(err, fmt.Sprintf("%s is on a disk that is mounted read-only, as a disk is after errors too: see what the system says of it and mount it writable, %s", dir, another))
	case errors.Is(err, fs.ErrPermission):
		return withHint(err, fmt.Sprintf("let the user who runs liverag (%s) read and write %s and everything in it, %s", user(), dir, another))
	case errors.Is(err, syscall.ENOSPC):
		return withHint(err, fmt.Sprintf("make room on the disk that holds %s, %s", dir, another))
	}
	return err
}

// user is who runs this process, for people.
func user() string {
	if id := os.Getuid(); id >= 0 {
		return fmt.Sprintf("user id %d", id)
	}
	return "this account"
}
