package milvus

import (
	"context"
	"fmt"
	"time"

	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"
)

// Sweep removes what a crash left between a write and the removal of what it replaced, what late writers added that lost, and deletes older than
// Config.TombstoneRetention. It tells how many rows it removed. Nothing of that is ever shown, so how often it runs only matters for space: once after
// opening, and every hour by whoever indexes. It reads the keys of all rows, a second for some 100,000, and may run while others write.
func (s *Store) Sweep(ctx context.Context, name string) (removed int, err error) {
	g, err := s.generation(ctx, name)
	if err != nil {
		return 0, err
	}
	// From here on reads see at least what is acknowledged by now.
	if _, err := s.query(ctx, g, entity.ClStrong, fieldRow+` == ""`, fieldRow); err != nil {
		return 0, err
	}
	oldest := time.Now().Add(-s.config.TombstoneRetention).UnixMicro()
	var expired []string
	err = s.iterate(ctx, g, fieldDocument+" > 0", []string{fieldRow, fieldKey, fieldHead}, func(columns client.ResultSet) error {
		heads, err := readHeads(columns)
		for i := range heads {
			h := &heads[i]
			// An override outlives the content that it was set for.
			if h.Deleted && h.Written < oldest && (h.stamp.access == 0 || h.Clear) {
				expired = append(expired, h.row(0))
			}
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}

	// Rows come in the order of their keys, so those of a document stand together.
	var doc string
	var rows []string
	var stamps []stamp
	var newest stamp
	var committed bool
	finish := func() {
		for i, at := range stamps {
			// Rows above the newest head are of a write under way, or of one that its writer will repeat.
			if committed && at.less(newest) {
				expired = append(expired, rows[i])
			}
		}
		rows, stamps, newest, committed = nil, nil, stamp{}, false
	}
	remove := func() error {
		if err := s.remove(ctx, g, expired); err != nil {
			return err
		}
		removed += len(expired)
		expired = expired[:0]
		return nil
	}
	err = s.iterate(ctx, g, fieldRow+` > ""`, []string{fieldRow}, func(columns client.ResultSet) error {
		for _, key := range stringsOf(columns, fieldRow) {
			of, at, ordinal, err := parseRowKey(key)
			if err != nil {
				return err
			}
			if of != doc {
				finish()
				doc = of
			}
			rows, stamps = append(rows, key), append(stamps, at)
			if ordinal == 0 && (!committed || newest.less(at)) {
				newest, committed = at, true
			}
		}
		return nil
	})
	if err != nil {
		return removed, fmt.Errorf("sweep: %w", err)
	}
	finish()
	return removed, remove()
}
