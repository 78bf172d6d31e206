package flat

import (
	"io"
	"os"
)

// fileSystem is what the store asks of a disk, so that tests can make one that is full or broken.
type fileSystem interface {
	// Open opens for reading and writing, as os.OpenFile does with flag.
	Open(name string, flag int) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes the names in a directory survive a loss of power.
	SyncDir(dir string) error
}

type file interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	io.Closer
}

// disk is the real fileSystem.
type disk struct{}

func (disk) Open(name string, flag int) (file, error) {
	f, err := os.OpenFile(name, flag, 0o644)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (disk) Rename(from, to string) error { return os.Rename(from, to) }
func (disk) Remove(name string) error     { return os.Remove(name) }
func (disk) SyncDir(dir string) error     { return syncDir(dir) }
