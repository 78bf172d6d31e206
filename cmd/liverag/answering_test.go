package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/vectordb"
)

// troubled is a store whose searches and look-ups go as it is told.
type troubled struct {
	vectordb.Store
	err error // nil: it answers only when the caller gives up
}

func (s troubled) Search(ctx context.Context, _ string, _ vectordb.Query) ([]vectordb.Hit, error) {
	if s.err != nil {
		return nil, s.err
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (s troubled) Current(ctx context.Context, _ string, _ []string) ([]vectordb.Revision, error) {
	_, err := s.Search(ctx, "", vectordb.Query{})
	return nil, err
}

// TestAStoreThatDoesNotAnswer holds what callers are told to what they can do about it.
func TestAStoreThatDoesNotAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"refused":     {errors.New("search: connection refused"), http.StatusServiceUnavailable, "store_unavailable"},
		"silent":      {nil, http.StatusServiceUnavailable, "store_unavailable"},
		"not sparse":  {fmt.Errorf("search: %w", vectordb.ErrUnsupported), http.StatusInternalServerError, "internal"},
		"other model": {fmt.Errorf("search: %w", vectordb.ErrMismatch), http.StatusInternalServerError, "internal"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := answering{troubled{err: c.err}, slog.New(slog.DiscardHandler)}
				began := time.Now()
				_, searched := a.Search(t.Context(), "g", vectordb.Query{})
				_, looked := a.Current(t.Context(), "g", []string{"a"})
				for _, err := range []error{searched, looked} {
					p := problem.From(fmt.Errorf("search generation g: %w", err))
					if p.Status != c.status || p.Code != c.code || (p.Status == http.StatusServiceUnavailable) != (p.RetryAfter > 0) {
						t.Errorf("%v becomes %d %s, to be tried again after %s", err, p.Status, p.Code, p.RetryAfter)
					}
				}
				if took := time.Since(began); took > 2*answerTimeout {
					t.Errorf("that took %s", took)
				}
			})
		})
	}
	// Who went away is told nothing.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (answering{Store: troubled{}}).Search(gone, "g", vectordb.Query{}); !errors.Is(err, context.Canceled) || problem.From(err).Code != "canceled" {
		t.Errorf("a caller who went away gets %v", err)
	}
	if _, err := (answering{Store: troubled{err: vectordb.ErrNoGeneration}}).Search(t.Context(), "g", vectordb.Query{}); !errors.Is(err, vectordb.ErrNoGeneration) {
		t.Errorf("an error of the port became %v", err)
	}
}

// forgetful finds nothing until it was asked to show everything.
type forgetful struct {
	vectordb.Store
	shown bool
}

func (s *forgetful) Visible(context.Context, string) error {
	s.shown = true
	return nil
}

func (s *forgetful) Current(_ context.Context, _ string, keys []string) ([]vectordb.Revision, error) {
	list := make([]vectordb.Revision, len(keys))
	for i, key := range keys {
		list[i].Key = key
		if s.shown && key != "nowhere" {
			list[i].Version = 7
		}
	}
	return list, nil
}

// TestWhatIsNotThereIsLookedForAgain: a server that lets go of a collection finds nothing in it, and no document may seem to be gone for that.
func TestWhatIsNotThereIsLookedForAgain(t *testing.T) {
	for key, want := range map[string]int64{"a": 7, "nowhere": 0} {
		got, err := answering{Store: &forgetful{}}.Current(t.Context(), "g", []string{key})
		if err != nil || len(got) != 1 || got[0].Version != want {
			t.Errorf("%s: %+v, %v; want version %d", key, got, err, want)
		}
	}
}
