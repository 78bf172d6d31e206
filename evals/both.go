package evals

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Both is what two systems answered to the same questions.
type Both struct {
	A, B Answers
	// AFirst tells, question by question, whether A was asked first. What is asked second may find something warm that the first one
	// had to make, such as a question's vector: only first ones should be compared in time.
	AFirst []bool
}

// AskBoth asks two systems every question, one right after the other and each of them first in turn, so that whatever else goes on at the time
// is no advantage for either. Answers are evaluated as [Questions.Ask] does; Progress counts questions.
func (qs Questions) AskBoth(ctx context.Context, a, b Searcher, options AskOptions) (Both, error) {
	if options.K <= 0 {
		options.K = 50
	}
	if options.Concurrency <= 0 {
		options.Concurrency = 4
	}
	type answered struct {
		hits []Ranked
		took time.Duration
	}
	both := Both{AFirst: make([]bool, len(qs))}
	got := [2][]answered{make([]answered, len(qs)), make([]answered, len(qs))}
	progress := make(chan struct{}, 1)
	done := 0
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(options.Concurrency)
	for i, q := range qs {
		if groupCtx.Err() != nil {
			break
		}
		both.AFirst[i] = i%2 == 0
		group.Go(func() error {
			for turn := range 2 {
				side, search := 0, a
				if (turn == 0) != both.AFirst[i] {
					side, search = 1, b
				}
				begun := time.Now()
				hits, err := search(groupCtx, q.Query, options.K)
				if err != nil {
					return fmt.Errorf("ask question %s: %w", q.ID, err)
				}
				got[side][i] = answered{hits, time.Since(begun)}
			}
			progress <- struct{}{}
			done++
			if options.Progress != nil {
				options.Progress(done, len(qs))
			}
			<-progress
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Both{}, err
	}
	if err := ctx.Err(); err != nil {
		return Both{}, err
	}
	at := make(map[string]int, len(qs))
	for i, q := range qs {
		at[q.Query] = i // of the same question twice either answer will do
	}
	options.Progress = nil
	for side, into := range []*Answers{&both.A, &both.B} {
		var err error
		*into, err = qs.Ask(ctx, func(_ context.Context, query string, _ int) ([]Ranked, error) { return got[side][at[query]].hits, nil }, options)
		if err != nil {
			return Both{}, err
		}
		for i := range into.Answers {
			into.Answers[i].Took = got[side][i].took
		}
	}
	return both, nil
}
