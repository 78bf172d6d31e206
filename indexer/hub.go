package indexer

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/liverag/liverag/stream"
)

// Event says that a change is searchable in the live generation.
type Event struct {
	ID      string `json:"id"`
	Version int64  `json:"version"`
	// Kind is upsert or delete.
	Kind string    `json:"kind"`
	Time time.Time `json:"time"`
	// TimeToSearchable counts from the moment the change entered the log.
	TimeToSearchable string `json:"time_to_searchable"`
	Embedded         int    `json:"chunks_embedded"`
	Reused           int    `json:"chunks_reused"`
	Backfill         bool   `json:"backfill,omitempty"`
	// Missed counts events before this one that a slow reader did not get.
	Missed int64 `json:"missed,omitempty"`
}

// hub hands events to whoever listens. A listener that does not keep up loses events, and is told how many: indexing never waits for one.
type hub struct {
	mu        sync.Mutex
	listeners map[*listener]struct{}
	any       atomic.Bool
}

type listener struct {
	events chan Event
	missed int64
}

const eventBuffer = 1024

func newHub() *hub { return &hub{listeners: make(map[*listener]struct{})} }

func (h *hub) publish(now time.Time, t *task) {
	if !h.any.Load() || t.content == nil {
		return
	}
	if t.hidden { // who may know of it can't be told here, so nobody does
		return
	}
	event := Event{
		ID: t.content.ID, Version: t.content.Version, Kind: stream.Upsert.String(), Time: now.UTC(),
		TimeToSearchable: spell(Latency{Max: now.Sub(t.content.Time)}).Max,
		Embedded:         t.embedded, Reused: t.reused, Backfill: t.content.Backfill,
	}
	if t.revision.Deleted {
		event.Kind = stream.Delete.String()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.listeners {
		event.Missed = l.missed
		select {
		case l.events <- event:
			l.missed = 0
		default:
			l.missed++
		}
	}
}

// listen returns events from now on, until stop is called.
func (h *hub) listen() (events <-chan Event, stop func()) {
	l := &listener{events: make(chan Event, eventBuffer)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners[l] = struct{}{}
	h.any.Store(true)
	return l.events, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.listeners, l)
		h.any.Store(len(h.listeners) > 0)
	}
}

// Events returns changes as they become searchable in the live generation. stop must be called.
func (x *Indexer) Events() (events <-chan Event, stop func()) { return x.hub.listen() }
