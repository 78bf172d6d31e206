package indexer

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/vectordb"
)

// job is the verification that was asked for last over HTTP. It goes on when who asked has gone away.
type job struct {
	mu     sync.Mutex
	state  string // empty: there was none
	detail string
	report Verified
	cancel context.CancelFunc
}

// States of a job.
const (
	jobRunning = "running"
	jobDone    = "done"
	jobFailed  = "failed"
	jobStopped = "stopped"
)

// jobJSON is the answer of GET /verify.
type jobJSON struct {
	State string `json:"state"`
	// Detail says why it failed.
	Detail string `json:"detail,omitempty"`
	Verified
}

func (j *job) spell() jobJSON {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := jobJSON{j.state, j.detail, j.report}
	if out.Findings == nil {
		out.Findings = []Finding{}
	}
	return out
}

// verifyRequest is the body of POST /verify.
type verifyRequest struct {
	Generation string  `json:"generation"`
	Rate       *int    `json:"rate"`
	Sample     float64 `json:"sample"`
	Repair     bool    `json:"repair"`
}

// DefaultVerifyRate is how many documents and changes a second are read if a request does not say.
const DefaultVerifyRate = 2000

func (x *Indexer) startVerify(c echo.Context) error {
	var request verifyRequest
	if c.Request().ContentLength != 0 {
		if err := decode(c, &request, `{"generation":"live","rate":2000,"repair":false}`); err != nil {
			return err
		}
	}
	v := Verification{Generation: request.Generation, Rate: DefaultVerifyRate, Sample: request.Sample, Repair: request.Repair}
	if request.Rate != nil {
		v.Rate = *request.Rate
	}
	if x.live.Load() == nil {
		return problem.New(http.StatusServiceUnavailable, "not_ready", "the indexer is starting; /readyz tells when it has")
	}
	// What can be told at once is told at once.
	if err := x.verifiable(v); err != nil {
		return asProblem(err)
	}
	j := &x.job
	j.mu.Lock()
	if j.state == jobRunning {
		j.mu.Unlock()
		return asProblem(ErrVerifying)
	}
	ctx, cancel := context.WithCancel(x.ctx)
	j.state, j.detail, j.report, j.cancel = jobRunning, "", Verified{Generation: v.Generation}, cancel
	j.mu.Unlock()
	x.wg.Go(func() {
		defer cancel()
		report, err := x.Verify(ctx, v, func(so Verified) {
			j.mu.Lock()
			defer j.mu.Unlock()
			j.report = so
		})
		j.mu.Lock()
		defer j.mu.Unlock()
		j.report = report
		switch {
		case err == nil:
			j.state = jobDone
		case ctx.Err() != nil:
			j.state = jobStopped
		case errors.Is(err, vectordb.ErrNoGeneration):
			j.state, j.detail = jobFailed, "the generation was dropped meanwhile"
		default:
			j.state, j.detail = jobFailed, problem.From(asProblem(err)).Detail
			x.config.Logger.Warn("a verification failed", "generation", report.Generation, "error", err)
		}
	})
	return c.JSON(http.StatusAccepted, j.spell())
}

func (x *Indexer) getVerify(c echo.Context) error {
	out := x.job.spell()
	if out.State == "" {
		return problem.New(http.StatusNotFound, "not_found", "nothing was verified since this process started; POST /verify begins")
	}
	return c.JSON(http.StatusOK, out)
}

func (x *Indexer) stopVerify(c echo.Context) error {
	x.job.mu.Lock()
	if x.job.cancel != nil {
		x.job.cancel()
	}
	x.job.mu.Unlock()
	return c.NoContent(http.StatusNoContent)
}
