package indexer

import (
	"fmt"
	"time"

	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// Replay asks for a generation.
type Replay struct {
	// Name of the generation; empty: made from the recipe.
	Name   string
	Recipe vectordb.Recipe
	Extent
	// Share is the part of what the model's provider allows, or of the model's time, that the replay may take, above 0 and up to 1; 0 is 1. Live changes go first in any case. Once the
	// generation is live it has no bound.
	Share float64
}

// Extent is which part of the log a generation is a view of. The zero value is all of it; a view of less can be queried and compared, but not answer for the corpus.
type Extent struct {
	// Sample is the share of the documents, chosen by a hash of their keys: the same ones every time, and those of a smaller sample are part of a larger one. 0 is 1.
	Sample float64 `json:"sample,omitempty"`
	// From is when the first change entered the log that counts; zero: from the beginning.
	From time.Time `json:"from,omitzero"`
}

// check refuses what can't be meant.
func (r *Replay) check(now time.Time) error {
	switch {
	case !(r.Sample >= 0 && r.Sample <= 1):
		return fmt.Errorf("%w: sample is a share of the documents, above 0 and up to 1, not %v", ErrExtent, r.Sample)
	case !(r.Share >= 0 && r.Share <= 1):
		return fmt.Errorf("%w: share is a part of the model's time, above 0 and up to 1, not %v", ErrExtent, r.Share)
	case r.From.After(now):
		return fmt.Errorf("%w: from is in the future", ErrExtent)
	}
	if r.Sample == 1 {
		r.Sample = 0
	}
	if r.Share == 1 {
		r.Share = 0
	}
	r.From = r.From.UTC()
	return nil
}

// Partial tells whether it is less than the whole log.
func (e Extent) Partial() bool { return e.Sample > 0 && e.Sample < 1 || !e.From.IsZero() }

func (e Extent) equal(o Extent) bool { return e.Sample == o.Sample && e.From.Equal(o.From) }

// describe is for people: 10 % of the documents, from 2026-11-20T00:00:00Z on.
func (e Extent) describe() string {
	text := "all documents"
	if e.Sample > 0 && e.Sample < 1 {
		text = fmt.Sprintf("%.3g %% of the documents", 100*e.Sample)
	}
	if !e.From.IsZero() {
		text += ", from " + e.From.Format(time.RFC3339) + " on"
	}
	return text
}

// holds tells whether a change counts. Who may read a document counts whenever it was said: a document must not be open because that was before the beginning.
func (e Extent) holds(c *stream.Change) bool {
	return e.samples(c.Key()) && (c.Kind == stream.Access || e.From.IsZero() || !c.Time.Before(e.From))
}

// samples tells whether a document is in the sample.
func (e Extent) samples(key string) bool { return inSample(hash(key), e.Sample) }

// Samples tells whether the document of that id, without a tenant, is in the sample: an eval asks only what a generation of that sample can answer.
func (e Extent) Samples(id string) bool { return e.samples(stream.Key("", id)) }

// inSample tells whether a hash is in a share of all; 0 and 1 are all.
func inSample(h uint64, share float64) bool {
	// From the other end of the hash than a verification's slices.
	return share == 0 || share == 1 || float64(h&(1<<52-1)) < share*(1<<52)
}
