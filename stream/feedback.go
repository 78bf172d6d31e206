package stream

import (
	"context"
	"time"
)

// Feedback is what somebody has said of one hit of an answer.
type Feedback struct {
	// Sequence orders feedback by when it was written, from 1. FeedbackLog.Add sets it, and Time.
	Sequence int64
	Time     time.Time
	// Query is the question that was asked, Document the id of the document that was answered.
	Query    string
	Document string
	// Chunk is the id of the hit; empty: the whole document is meant.
	Chunk string
	// Useful tells whether it answers the question.
	Useful bool
	// Reason is for people; it may be empty.
	Reason string
}

// FeedbackLog keeps feedback beside the corpus' log, for as long as that.
type FeedbackLog interface {
	// Add blocks until the feedback is durable, and returns it with its sequence and time.
	// Errors: ErrLogFull, ErrDiskFull, ErrReadOnly, ErrUnavailable.
	Add(ctx context.Context, f Feedback) (Feedback, error)
	// List returns feedback with sequences below before (0: all there is), newest first, at most limit. What is not read yet is below next; 0: nothing
	// is. There may be fewer than limit, and more to come.
	List(ctx context.Context, before int64, limit int) (list []Feedback, next int64, err error)
}
