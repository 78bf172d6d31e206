package milvus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/liverag/liverag/vectordb"
)

// trouble is what an error of the server means for what to do next.
type trouble int

const (
	fatal     trouble = iota // trying the same again at once is useless
	missing                  // there is no such collection
	notLoaded                // the collection is not in the server's memory, or not yet all of it
	tooLarge                 // the request must be cut
	busy                     // the server asks for a pause
)

var phrases = []struct {
	text string
	is   trouble
}{
	// Order matters: a server that lost a collection while it searched says both that it is not found and that shards failed.
	{"collection not found", missing},
	{"can't find collection", missing},
	{"cannot find collection", missing},
	{"collection not loaded", notLoaded},
	{"not fully loaded", notLoaded},
	{"in state 'released'", notLoaded},
	{"not been loaded", notLoaded},
	{"partition not loaded", notLoaded},
	{"channel not available", notLoaded},
	{"channel not found", notLoaded},
	{"channel lack", notLoaded},
	{"segment lack", notLoaded},
	{"shard leader", notLoaded},
	{"no available shard", notLoaded},
	{"replica not available", notLoaded},
	{"node not match", notLoaded},
	{"node not found", notLoaded},
	{"service not ready", notLoaded},
	{"is not ready", notLoaded},
	{"larger than max", tooLarge},
	// Less would not help, and asking again at once makes it worse: whoever writes waits longer and longer.
	{"quota exceeded", fatal},
	{"quota has been exhausted", fatal},
	{"memory limit exceeded", fatal},
	{"force deny", fatal},
	{"rate limit", busy},
	{"request limit exceeded", busy},
}

// classify tells what an error means. Servers of different ages and languages say it in words, not in codes.
func classify(err error) trouble {
	if errors.Is(err, errNoCollection) {
		return missing
	}
	text := err.Error()
	for _, p := range phrases {
		if strings.Contains(text, p.text) {
			return p.is
		}
	}
	if strings.Contains(text, "collection ") && strings.Contains(text, "does not exist") {
		return missing
	}
	if status.Code(err) == codes.ResourceExhausted {
		return tooLarge
	}
	return fatal
}

// explain puts what went wrong with a connection in words that say what to do.
func explain(err error) error {
	reason := err
	if s, ok := status.FromError(err); ok {
		reason = errors.New(s.Message())
		switch s.Code() {
		case codes.Unavailable:
			return &serverError{"the server is not reachable; check milvus.address and milvus.tls, or try again when it is up", err}
		case codes.DeadlineExceeded:
			return &serverError{"the server did not answer in time; try again", err}
		case codes.Unauthenticated, codes.PermissionDenied:
			return &serverError{"the server refuses the login; check milvus.user and milvus.password, or milvus.token", err}
		}
	}
	text := reason.Error()
	if strings.Contains(text, "auth check failure") || strings.Contains(text, "unauthenticated") {
		return &serverError{"the server refuses the login; check milvus.user and milvus.password, or milvus.token", err}
	}
	return err
}

// serverError is an error with what to do about it.
type serverError struct {
	advice string
	cause  error
}

func (e *serverError) Error() string {
	cause := e.cause.Error()
	if s, ok := status.FromError(e.cause); ok {
		cause = s.Message()
	}
	return e.advice + ": " + cause
}

func (e *serverError) Unwrap() error { return e.cause }

// errTooLarge: the request has to be cut.
var errTooLarge = errors.New("the server refuses a request of this size")

// call makes one call of the server for a generation, with a deadline. While the collection is not in the server's memory it has it loaded and tries again, for
// as long as Timeouts.Load and the context allow.
func call[T any](ctx context.Context, s *Store, g *generation, what string, timeout time.Duration, do func(context.Context) (T, error)) (T, error) {
	var none T
	started := time.Now()
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		callers, ok := ctx.Deadline()
		shorter := ok && time.Until(callers) < timeout
		result, err := once(ctx, timeout, do)
		if err == nil {
			return result, nil
		}
		wrap := func(err error) error { return fmt.Errorf("%s generation %s: %w", what, g.about.Name, err) }
		switch {
		case s.isClosed():
			return none, vectordb.ErrClosed
		case ctx.Err() != nil:
			return none, ctx.Err()
		case shorter && status.Code(err) == codes.DeadlineExceeded:
			return none, context.DeadlineExceeded // told by the connection a moment before the context tells it
		}
		kind := classify(err)
		if kind == notLoaded || status.Code(err) == codes.Unavailable {
			g.shake()
		}
		if kind == notLoaded {
			g.unload()
		}
		switch kind {
		case missing:
			s.forget(g)
			return none, wrap(vectordb.ErrNoGeneration)
		case tooLarge:
			return none, wrap(fmt.Errorf("%w: %w", errTooLarge, err))
		case fatal:
			return none, wrap(explain(err))
		}
		if time.Since(started) > s.config.Timeouts.Load {
			return none, wrap(fmt.Errorf("still not ready after %s; try again, or look at the server's log: %w", s.config.Timeouts.Load, err))
		}
		if kind == notLoaded {
			s.config.Logger.Debug("waiting for a collection to be loaded", "collection", g.collection, "error", err)
			if err := s.load(ctx, g.collection); err != nil && classify(err) == missing {
				s.forget(g)
				return none, wrap(vectordb.ErrNoGeneration)
			}
		}
		select {
		case <-ctx.Done():
			return none, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// reading is call for what reads: an answer that can't be believed yet is waited for.
func reading[T any](ctx context.Context, s *Store, g *generation, what string, do func(context.Context) (T, error)) (T, error) {
	for {
		result, err := call(ctx, s, g, what, s.config.Timeouts.Read, do)
		wait := g.unsettled(s.config.Timeouts.Settle)
		if err != nil || wait <= 0 {
			return result, err
		}
		select {
		case <-ctx.Done():
			return result, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// once gives a call its deadline.
func once[T any](ctx context.Context, timeout time.Duration, do func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return do(ctx)
}

// loading is a collection that is being loaded.
type loading struct {
	done chan struct{}
	err  error
}

// load asks the server to bring a collection into its memory and waits for it. Calls for one collection share the asking.
func (s *Store) load(ctx context.Context, collection string) error {
	s.mu.Lock()
	l := s.loading[collection]
	if l == nil {
		l = &loading{done: make(chan struct{})}
		s.loading[collection] = l
		// It goes on when the first who asked has gone: others wait for it.
		background, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.config.Timeouts.Load)
		go func() {
			defer cancel()
			l.err = s.client.LoadCollection(background, collection, false)
			s.mu.Lock()
			delete(s.loading, collection)
			s.mu.Unlock()
			close(l.done)
		}()
	}
	s.mu.Unlock()
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
