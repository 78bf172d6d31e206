package kafka

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/liverag/liverag/stream"
)

// durable makes sure that what the broker took is on the disk before it is acknowledged: the broker syncs its files, and does not look whether that worked. Where it did,
// there is nothing left to write, and this costs little. Where it did not, nothing is acknowledged any more until a restart, which reads what the disk really has: what
// came after the hole would be lost with it.
type durable struct {
	logDir string

	mu         sync.Mutex
	failed     error
	partitions map[string]*syncedPartition
}

// syncedPartition is the partition's newest file of records. It stays open, since a failure to write is told only to those who had the file open then.
type syncedPartition struct {
	mu   sync.Mutex
	base int64
	file syncedFile
}

// syncedFile is what of a file is used.
type syncedFile interface {
	Sync() error
	Stat() (fs.FileInfo, error)
	Close() error
}

// openRecords opens a file of records.
var openRecords = func(path string) (syncedFile, error) { return os.Open(path) }

// check returns why nothing may be acknowledged any more; nil: it may.
func (d *durable) check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// sync returns once records that the broker took are on the disk.
func (d *durable) sync(records []*kgo.Record) error {
	done := map[string]bool{}
	for _, r := range records {
		name := partitionDir(r.Topic, r.Partition)
		if done[name] {
			continue
		}
		done[name] = true
		d.mu.Lock()
		p := d.partitions[name]
		if p == nil {
			p = &syncedPartition{}
			d.partitions[name] = p
		}
		d.mu.Unlock()
		if err := p.sync(filepath.Join(d.logDir, "partitions", name)); err != nil {
			d.mu.Lock()
			if d.failed == nil {
				d.failed = fmt.Errorf("%w: the disk failed to keep what was written to %s (%w): look after the disk, then restart", stream.ErrReadOnly, d.logDir, err)
			}
			err = d.failed
			d.mu.Unlock()
			return err
		}
	}
	return d.check()
}

func (p *syncedPartition) sync(dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	bases, err := segments(dir)
	if err != nil {
		return err
	}
	if p.file != nil {
		if err := p.file.Sync(); err != nil {
			return err
		}
		if known, err := p.file.Stat(); err != nil {
			return err
		} else if now, err := os.Stat(filepath.Join(dir, segmentName(p.base))); err != nil || !os.SameFile(known, now) { // somebody made the topic again
			p.close()
		}
	}
	for _, base := range bases {
		if p.file != nil && base <= p.base {
			continue
		}
		f, err := openRecords(filepath.Join(dir, segmentName(base)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		p.close()
		p.base, p.file = base, f
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func (p *syncedPartition) close() {
	if p.file != nil {
		p.file.Close()
		p.file = nil
	}
}

// close gives the files back.
func (d *durable) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.partitions {
		p.mu.Lock()
		p.close()
		p.mu.Unlock()
	}
}

func segmentName(base int64) string { return strconv.FormatInt(base, 10) + ".dat" }
