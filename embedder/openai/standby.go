package openai

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/liverag/liverag/embedder"
)

// Standby is another endpoint of a model, to stand in for the first while that is away. It passes for the first, by name, dimension and tokens, and gives no vector before
// Same has said that its vectors may be mixed with the first's.
type Standby struct {
	first *Model
	cfg   Config
	where string
	turn  chan struct{} // holds one while somebody looks at the endpoint
	model atomic.Pointer[Model]
}

// NewStandby describes the endpoint, without asking it for anything: see Check. cfg.Dim is not used. An error is about the configuration.
func NewStandby(first *Model, cfg Config) (*Standby, error) {
	cfg.Dim = 0 // what it answers is compared
	m, err := configured(cfg)
	if err != nil {
		return nil, &embedder.Error{Op: "openai", Account: true, Input: -1, Err: err}
	}
	return &Standby{first: first, cfg: cfg, where: m.where, turn: make(chan struct{}, 1)}, nil
}

// Check opens the endpoint and compares it with the first one, unless that has succeeded before. The error is that of Open or Same: an *embedder.Error with Temporary
// if it may be otherwise later, with Account if it has to be put right. Until it has succeeded, every Embed tries it again, and fails as it does.
func (s *Standby) Check(ctx context.Context) error {
	_, err := s.check(ctx)
	return err
}

// check also tells how many requests the endpoint was sent for it, at least.
func (s *Standby) check(ctx context.Context) (calls int, err error) {
	if s.model.Load() != nil {
		return 0, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return 0, fmt.Errorf("openai: look at %s: %w", s.where, context.Cause(ctx))
	}
	if s.model.Load() != nil {
		return 0, nil
	}
	// While the first answers: it may not when the other one does.
	if _, err := s.first.specimens(ctx, nil); err != nil {
		return 0, failedAt("openai: compare "+s.where+" with "+s.first.where, s.first.where, err)
	}
	m, err := Open(ctx, s.cfg)
	if err != nil {
		return 1, err
	}
	err = s.first.Same(ctx, m)
	calls = int(m.Usage().Requests)
	if err != nil {
		m.http.CloseIdleConnections()
		return calls, err
	}
	s.model.Store(m)
	m.cfg.Logger.Info("a standby endpoint has the same vectors, and may stand in", "endpoint", m.where, "for", s.first.where, "model", s.cfg.Model)
	return calls, nil
}

// Name is the first one's: equal vectors have equal names.
func (s *Standby) Name() string { return s.first.Name() }

// Dim is the first one's.
func (s *Standby) Dim() int { return s.first.Dim() }

// MaxInput is the first one's. An endpoint that reads less fails the Check.
func (s *Standby) MaxInput() int { return s.first.MaxInput() }

// CountTokens counts as the first one does.
func (s *Standby) CountTokens(input string) int { return s.first.CountTokens(input) }

// Endpoint is the base URL, without what might be secret in it.
func (s *Standby) Endpoint() string { return s.where }

// OpenedWith is what the endpoint said when Check opened it; the zero value before that has succeeded.
func (s *Standby) OpenedWith() embedder.Report {
	if m := s.model.Load(); m != nil {
		return m.OpenedWith()
	}
	return embedder.Report{}
}

// Embed is EmbedReported without the report.
func (s *Standby) Embed(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, error) {
	vectors, _, err := s.EmbedReported(ctx, role, inputs)
	return vectors, err
}

// EmbedReported embeds with the endpoint, once Check has succeeded. The report counts the requests of a Check, but not its tokens: they are none of the inputs'.
func (s *Standby) EmbedReported(ctx context.Context, role embedder.Role, inputs []string) ([][]float32, embedder.Report, error) {
	calls, err := s.check(ctx)
	if err != nil {
		return nil, embedder.Report{Calls: calls}, err
	}
	vectors, report, err := s.model.Load().EmbedReported(ctx, role, inputs)
	if calls > 0 {
		report.Calls = max(report.Calls, 1) + calls
	}
	return vectors, report, err
}

// Close closes idle connections. The standby remains usable.
func (s *Standby) Close() error {
	if m := s.model.Load(); m != nil {
		return m.Close()
	}
	return nil
}
