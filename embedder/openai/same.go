package openai

import (
	"context"
	"errors"
	"fmt"

	"github.com/liverag/liverag/embedder"
)

// sameCosine is how alike two vectors of a text must be to be of the same model. Kernels and machines differ by less than 1e-3; other weights, another quantization by much more.
const sameCosine = 0.999

// sameTexts are what two endpoints are compared by: short and long, prose, code, numbers, other scripts, and capitals, because settings of a tokenizer show in some of them only. None is
// longer than the shortest model reads.
var sameTexts = []string{
	"refund",
	"How long does a refund take once the invoice number has been sent?",
	"HOW LONG DOES A REFUND TAKE?",
	"A refund is paid within five working days after the invoice number was received. Where a bank needs longer, the amount is shown as pending until then, and support can tell on which day it left " +
		"our account. Refunds of more than 5,000 euros are looked at by two people, which takes one day more.",
	"func add(a, b int) (sum int) { sum = a + b; return } // 0x1F != 31.5e-2",
	"Die Rückerstattung dauert fünf Werktage, sofern die Rechnungsnummer übermittelt wurde.",
	"返金には五営業日かかります。請求書番号をお知らせください。",
}

// Same tells whether another endpoint's vectors may stand in for this one's: nil if so. It embeds a few texts with both, as documents and as questions, and refuses where the dimensions
// differ, any two vectors are less alike than kernels and machines make them, or the other reads shorter inputs than this one is given. An endpoint that does not answer is that endpoint's *embedder.Error, with Temporary as it is;
// one that is another model is an *embedder.Error with Account, which says what to do. This one's vectors of these texts are kept, so that another endpoint can be compared while this one is away;
// if it is away the first time, they are made up for with the next call that it answers.
func (m *Model) Same(ctx context.Context, other *Model) error {
	op := "openai: compare " + other.where + " with " + m.where
	refuse := func(format string, args ...any) error {
		return &embedder.Error{Op: op, Account: true, Input: -1, Err: fmt.Errorf(format, args...)}
	}
	if m.dim != other.dim {
		return refuse("%s at %s has %d dimensions, and %s at %s has %d: vectors of the two can't be mixed; have it serve the same model, or leave it out", other.cfg.Model, other.where, other.dim, m.cfg.Model, m.where, m.dim)
	}
	if other.maxInput > 0 && (m.maxInput == 0 || other.maxInput < m.maxInput) {
		reads := fmt.Sprintf("%d", m.maxInput)
		if m.maxInput == 0 {
			reads = "any number"
		}
		return refuse("%s at %s reads %d tokens of an input, and %s at %s %s: give it as much context, or set openai.max_input to %[3]d for both", other.cfg.Model, other.where, other.maxInput, m.cfg.Model, m.where, reads)
	}
	own, err := m.specimens(ctx, nil)
	if err != nil {
		return failedAt(op, m.where, err)
	}
	for _, role := range specimenRoles {
		as := map[embedder.Role]string{embedder.Index: "documents", embedder.Query: "questions"}[role]
		others, err := other.Embed(ctx, role, sameTexts)
		if err != nil {
			return failedAt(op, other.where, err)
		}
		least, worst := 1.0, 0
		for i := range sameTexts {
			if cosine := inner(own[role][i], others[i]); cosine < least {
				least, worst = cosine, i
			}
		}
		if least < sameCosine {
			return refuse("%s at %s and %s at %s embed %s differently: a cosine of %.4f for %.40q, where the same model has %v at least; "+
				"have %[2]s serve the same weights, with the same quantization, prefixes and input types, or leave it out", other.cfg.Model, other.where, m.cfg.Model, m.where, as, least, sameTexts[worst], sameCosine)
		}
	}
	return nil
}

// specimenRoles are the roles that are compared.
var specimenRoles = [...]embedder.Role{embedder.Index, embedder.Query}

// specimens are the vectors of sameTexts by role, made once; if that fails, they are owed. The requests that they took are added to report, if there is one.
func (m *Model) specimens(ctx context.Context, report *embedder.Report) (*[len(specimenRoles)][][]float32, error) {
	if made := m.made.Load(); made != nil {
		return made, nil
	}
	var made [len(specimenRoles)][][]float32
	for _, role := range specimenRoles {
		var told embedder.Report
		vectors, err := m.embed(ctx, role, sameTexts, &told)
		if report != nil {
			report.Calls += max(told.Calls, 1)
		}
		if err != nil {
			m.owed.Store(true)
			return nil, err
		}
		made[role] = vectors
	}
	m.made.Store(&made)
	m.owed.Store(false)
	m.keep()
	return &made, nil
}

// failedAt is an endpoint's failure while something was done with it, with blame for none of the texts, which are ours.
func failedAt(op, where string, err error) error {
	var failed *embedder.Error
	if !errors.As(err, &failed) {
		return fmt.Errorf("%s: %s: %w", op, where, err)
	}
	told := *failed
	told.Op, told.Input, told.Err = op, -1, fmt.Errorf("%s: %w", where, err)
	told.Account = failed.Account || failed.Input >= 0
	return &told
}

// inner is the inner product of two vectors: of unit vectors, their cosine.
func inner(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}
