package indexer

import (
	"github.com/liverag/liverag/embedder"
)

// window bounds what of a queue is under way: cut, with the model, or on its way to the dead letters. What has no place in it waits uncut, where a newer change of its
// document supersedes it and where it costs little more than its record. Its fields are guarded by the pipeline's lock.
//
// A model takes turns between documents, so it bounds too how many advance together: until the first of them is done a crash costs all of it.
type window struct {
	bound  func() (inputs int, tokens int64) // how much may be under way; 0: no bound
	inputs int
	tokens int64
}

const (
	// windowAlone is the inputs in the window of a model that sends no requests: it works while it is asked, so what is more than this keeps no more processors busy.
	windowAlone = 256
	// windowLetters is how many tasks send dead letters at once.
	windowLetters = 256
	// windowParts is how many documents have a place however large they are: one of 100,000 chunks leaves room for others.
	windowParts = 8
)

// newWindow makes one for the inputs of a model.
func newWindow(e embedder.Embedder) *window {
	b := embedder.BatcherOf(e)
	if b == nil {
		return &window{bound: func() (int, int64) { return windowAlone, 0 }}
	}
	return &window{bound: b.Ahead}
}

// open tells whether one more task may begin. One always may: a bound must not be able to stop everything.
func (w *window) open() bool {
	if w == nil || w.inputs == 0 {
		return true
	}
	inputs, tokens := w.bound()
	return (inputs <= 0 || w.inputs < inputs) && (tokens <= 0 || w.tokens < tokens)
}

// seat is a task's place in a window. nil is the seat of what needs none.
type seat struct {
	window *window
	inputs int
	tokens int64
}

// enter takes a place for a task of about so many inputs and tokens.
func (w *window) enter(inputs int, tokens int64) *seat {
	if w == nil {
		return nil
	}
	s := &seat{window: w}
	s.resize(inputs, tokens)
	return s
}

// resize makes the place as large as the task was found to be: at least one input, and at the most a part of the window.
func (s *seat) resize(inputs int, tokens int64) {
	if s == nil || s.window == nil {
		return
	}
	mostInputs, mostTokens := s.window.bound()
	inputs = max(1, inputs)
	if mostInputs > 0 {
		inputs = min(inputs, max(1, mostInputs/windowParts))
	}
	if mostTokens > 0 {
		tokens = min(tokens, max(1, mostTokens/windowParts))
	}
	s.window.inputs += inputs - s.inputs
	s.window.tokens += tokens - s.tokens
	s.inputs, s.tokens = inputs, tokens
}

// leave gives the place back. It may be called twice.
func (s *seat) leave() {
	if s == nil || s.window == nil {
		return
	}
	s.window.inputs -= s.inputs
	s.window.tokens -= s.tokens
	s.window = nil
}
