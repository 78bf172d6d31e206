package indexer

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Gate measures a generation against the live one on questions whose right answers are known, and holds the figures to conditions: metric → condition, such as
// "ndcg@10" → ">=0". It returns a Measured for each condition, in the order of the metrics' names.
// Errors: ErrCondition for a condition that can't be read, ErrNoEvidence where there are no questions; any other means that a question was not answered.
type Gate func(ctx context.Context, candidate, live string, conditions map[string]string) ([]Measured, error)

// Measured is a condition of a promote, and what was measured.
type Measured struct {
	Metric string `json:"metric"`
	// Condition as it was asked for.
	Condition string `json:"condition"`
	// Candidate and Live are the means over all questions, Difference is Candidate − Live.
	Candidate  float64 `json:"candidate"`
	Live       float64 `json:"live"`
	Difference float64 `json:"difference"`
	Holds      bool    `json:"holds"`
}

// String is for people: ndcg@10 0.6123 → 0.6412 (+0.0289), which is not >=0.05.
func (m Measured) String() string {
	verdict := "which is"
	if !m.Holds {
		verdict = "which is not"
	}
	return fmt.Sprintf("%s %.4f → %.4f (%+.4f), %s %s", m.Metric, m.Live, m.Candidate, m.Difference, verdict, m.Condition)
}

// GateError is a promote whose conditions do not hold. Nothing was promoted.
type GateError struct {
	Candidate, Live string
	Measured        []Measured
}

func (e *GateError) Error() string {
	var failed []string
	for _, m := range e.Measured {
		if !m.Holds {
			failed = append(failed, m.String())
		}
	}
	return fmt.Sprintf("%s does not pass against %s, which stays live: %s", e.Candidate, e.Live, strings.Join(failed, "; "))
}

// gateTimeout is how long measuring may take.
const gateTimeout = 10 * time.Minute

// PromoteIf is Promote if conditions hold, which compare the generation with the live one. What was measured is returned with the error too.
// Errors beside Promote's: *GateError, ErrCondition, ErrNoEvidence, and ErrMoved if another generation became live while this one was measured.
func (x *Indexer) PromoteIf(ctx context.Context, name string, conditions map[string]string) (Info, []Measured, error) {
	live := x.live.Load()
	if len(conditions) == 0 || live == nil || live.name == name {
		info, err := x.Promote(ctx, name)
		return info, nil, err
	}
	if x.config.Gate == nil {
		return Info{}, nil, fmt.Errorf("%w: this process has no questions", ErrNoEvidence)
	}
	if err := x.promotable(ctx, name); err != nil {
		return Info{}, nil, err
	}
	measuring, cancel := context.WithTimeout(ctx, gateTimeout)
	defer cancel()
	measured, err := x.config.Gate(measuring, name, live.name, conditions)
	switch {
	case err != nil && x.lookup(name) == nil:
		return Info{}, nil, fmt.Errorf("%w: %s was dropped while it was measured", ErrNotFound, name)
	case err != nil && x.live.Load() != live:
		return Info{}, nil, fmt.Errorf("%w: %s was to be measured against %s, which is not live any more; nothing was promoted: ask again", ErrMoved, name, live.name)
	case err != nil:
		return Info{}, nil, fmt.Errorf("measure %s against %s: %w", name, live.name, err)
	}
	for _, m := range measured {
		if !m.Holds {
			return Info{}, measured, &GateError{Candidate: name, Live: live.name, Measured: measured}
		}
	}
	info, err := x.promote(ctx, name, live)
	return info, measured, err
}
