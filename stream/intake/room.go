package intake

import (
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/liverag/liverag/internal/problem"
)

// largeBody is from how many bytes a body, or a line of one, has to ask for room. Below it the number of requests in flight is bound enough.
const largeBody = maxPooled

// room bounds how many bytes of large documents are in memory on their way into the log, whoever sends them.
type room struct {
	bytes int64
	free  *semaphore.Weighted
	// patience is how long a request waits for room before it is told to come back.
	patience time.Duration
}

func newRoom(bytes int64, patience time.Duration) *room {
	return &room{bytes: bytes, free: semaphore.NewWeighted(bytes), patience: patience}
}

// share is what one request has of the room. Who asks for more must hold nothing that only it can give back, or two could wait for each other.
type share struct {
	room *room
	mu   sync.Mutex
	held int64
}

// take waits for n bytes, or for all there are. It returns how many they are.
func (s *share) take(ctx context.Context, n int64) (int64, error) {
	n = min(n, s.room.bytes)
	waiting, cancel := context.WithTimeout(ctx, s.room.patience)
	defer cancel()
	if err := s.room.free.Acquire(waiting, n); err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, &problem.Error{Status: http.StatusServiceUnavailable, Code: "overloaded", RetryAfter: 2 * time.Second, Err: err,
			Detail: "too many large documents are on their way into the log; try again"}
	}
	s.mu.Lock()
	s.held += n
	s.mu.Unlock()
	return n, nil
}

// give gives n bytes back.
func (s *share) give(n int64) {
	s.mu.Lock()
	s.held -= n
	s.mu.Unlock()
	s.room.free.Release(n)
}

// close gives back what is left.
func (s *share) close() {
	s.mu.Lock()
	n := s.held
	s.held = 0
	s.mu.Unlock()
	s.room.free.Release(n)
}
