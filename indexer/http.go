package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/chunker"
	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/stream"
	"github.com/liverag/liverag/vectordb"
)

// Routes registers GET /freshness and its stream, GET /changes/stream, /generations, POST /rollback, /dlq and /verify.
func (x *Indexer) Routes(e *echo.Echo) {
	e.GET("/freshness", x.getFreshness)
	e.GET("/freshness/stream", x.streamFreshness)
	e.GET("/changes/stream", x.streamChanges)
	e.GET("/generations", x.listGenerations)
	e.POST("/generations", x.createGeneration)
	e.POST("/generations/plan", x.planGeneration)
	e.GET("/generations/:name", x.getGeneration)
	e.GET("/generations/:name/entries/stream", x.exportEntries)
	e.DELETE("/generations/:name", x.dropGeneration)
	e.POST("/generations/:name/pause", x.setGeneration(Pause))
	e.POST("/generations/:name/resume", x.setGeneration(Run))
	e.POST("/generations/:name/cancel", x.setGeneration(Cancel))
	e.POST("/generations/:name/promote", x.promoteGeneration)
	e.POST("/rollback", x.rollback)
	e.GET("/dlq", x.listLetters)
	e.GET("/dlq/:id", x.getLetter)
	e.POST("/dlq/redrive", x.redriveLetters)
	e.POST("/dlq/discard", x.discardLetters)
	e.POST("/verify", x.startVerify)
	e.GET("/verify", x.getVerify)
	e.DELETE("/verify", x.stopVerify)
	e.POST("/verify/document", x.verifyDocument)
}

func (x *Indexer) getFreshness(c echo.Context) error {
	from, err := timeParam(c, "from")
	if err != nil {
		return err
	}
	to, err := timeParam(c, "to")
	if err != nil {
		return err
	}
	out, err := x.Freshness(c.Request().Context())
	if err != nil {
		return asProblem(err)
	}
	if !from.IsZero() || !to.IsZero() {
		if to.IsZero() {
			to = time.Now()
		}
		if to.Before(from) {
			return problem.New(http.StatusBadRequest, "invalid", "to is before from")
		}
		out.Past = x.past(from, to)
	}
	return c.JSON(http.StatusOK, out)
}

func timeParam(c echo.Context, name string) (time.Time, error) {
	value := c.QueryParam(name)
	if value == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return t, problem.New(http.StatusBadRequest, "invalid", "%s is no RFC 3339 time like 2026-11-21T10:00:00Z: %q", name, value)
	}
	return t, nil
}

// streamFreshness sends what GET /freshness answers, every second, from what is known without asking the log.
func (x *Indexer) streamFreshness(c echo.Context) error {
	send := beginEvents(c)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if g := x.live.Load(); g != nil {
			if err := send("freshness", x.measured(g)); err != nil {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-c.Request().Context().Done():
			return nil
		case <-x.stopping():
			return nil
		}
	}
}

// streamChanges sends changes as they become searchable.
func (x *Indexer) streamChanges(c echo.Context) error {
	events, stop := x.Events()
	defer stop()
	send := beginEvents(c)
	// A comment every now and then keeps proxies from closing a quiet stream, and finds out that the reader is gone.
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	for {
		select {
		case event := <-events:
			if err := send("change", event); err != nil {
				return nil
			}
		case <-alive.C:
			if err := send("", nil); err != nil {
				return nil
			}
		case <-c.Request().Context().Done():
			return nil
		case <-x.stopping():
			return nil
		}
	}
}

// stopping is closed when Run ends, so that streams don't hold up a shutdown.
func (x *Indexer) stopping() <-chan struct{} {
	select {
	case <-x.running:
		return x.ctx.Done()
	default:
		return nil
	}
}

// beginEvents starts a stream of server-sent events and returns how to send one; a nil value is a comment.
func beginEvents(c echo.Context) func(name string, value any) error {
	w := c.Response()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	_ = control.Flush()
	return func(name string, value any) error {
		text := ": alive\n\n"
		if value != nil {
			b, err := json.Marshal(value)
			if err != nil {
				return err
			}
			text = fmt.Sprintf("event: %s\ndata: %s\n\n", name, b)
		}
		// Each event renews the deadline, so a reader that hangs is let go, and one that reads stays.
		_ = control.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
		return control.Flush()
	}
}

func (x *Indexer) listGenerations(c echo.Context) error {
	return c.JSON(http.StatusOK, x.List())
}

func (x *Indexer) getGeneration(c echo.Context) error {
	return answer(c, http.StatusOK)(x.Info(c.Param("name")))
}

// createRequest is the body of POST /generations.
type createRequest struct {
	Name   string          `json:"name"`
	Recipe vectordb.Recipe `json:"recipe"`
	Sample *float64        `json:"sample"`
	From   string          `json:"from"`
	Share  *float64        `json:"share"`
}

// replay checks what has a default that JSON's zero is not.
func (r *createRequest) replay() (Replay, error) {
	out := Replay{Name: r.Name, Recipe: r.Recipe, Extent: Extent{Sample: 1}, Share: 1}
	for _, part := range []struct {
		name string
		from *float64
		to   *float64
	}{{"sample", r.Sample, &out.Sample}, {"share", r.Share, &out.Share}} {
		if part.from == nil {
			continue
		}
		if *part.to = *part.from; !(*part.to > 0 && *part.to <= 1) {
			return out, problem.New(http.StatusBadRequest, "invalid", "%s is above 0 and at most 1, not %v", part.name, *part.to)
		}
	}
	if r.From != "" && r.From != "beginning" {
		at, err := time.Parse(time.RFC3339, r.From)
		if err != nil {
			return out, problem.New(http.StatusBadRequest, "invalid", `from is "beginning" or an RFC 3339 time like 2026-11-21T10:00:00Z, not %q`, r.From)
		}
		out.From = at
	}
	return out, nil
}

// readCreate reads the body of POST /generations and of POST /generations/plan.
func readCreate(c echo.Context) (Replay, error) {
	var request createRequest
	decoder := json.NewDecoder(http.MaxBytesReader(c.Response(), c.Request().Body, 1<<20))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		var wrongType *json.UnmarshalTypeError
		switch {
		case errors.As(err, &wrongType):
			return Replay{}, problem.New(http.StatusBadRequest, "wrong_type", "%s must be %s, not %s", wrongType.Field, wrongType.Type, wrongType.Value)
		case errors.Is(err, io.EOF):
			return Replay{}, problem.New(http.StatusBadRequest, "invalid", `the body is empty; it should be like {"recipe":{"chunker":{"strategy":"recursive","tokens":256}}}`)
		}
		return Replay{}, problem.New(http.StatusBadRequest, "unsupported", "the body is no generation request: %v", err)
	}
	return request.replay()
}

func (x *Indexer) createGeneration(c echo.Context) error {
	replay, err := readCreate(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), 30*time.Second)
	defer cancel()
	return answer(c, http.StatusAccepted)(x.Replay(ctx, replay))
}

func (x *Indexer) setGeneration(desired Desired) echo.HandlerFunc {
	return func(c echo.Context) error {
		return answer(c, http.StatusOK)(x.Set(c.Request().Context(), c.Param("name"), desired))
	}
}

func (x *Indexer) promoteGeneration(c echo.Context) error {
	conditions, err := readGate(http.MaxBytesReader(c.Response(), c.Request().Body, 1<<20))
	if err != nil {
		return err
	}
	info, measured, err := x.PromoteIf(c.Request().Context(), c.Param("name"), conditions)
	if err != nil {
		return asProblem(err)
	}
	return c.JSON(http.StatusOK, promoted{info, measured})
}

// promoted is the answer to a promote.
type promoted struct {
	Info
	Gate []Measured `json:"gate,omitempty"`
}

// readGate reads the body of a promote: nothing, or {"gate":{"ndcg@10":">=0"}}. A condition that is not understood must not be taken for one that holds.
func readGate(body io.Reader) (map[string]string, error) {
	var members map[string]json.RawMessage
	switch err := json.NewDecoder(body).Decode(&members); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, problem.New(http.StatusBadRequest, "invalid", "the body is not a JSON object: %v", err)
	}
	var conditions map[string]string
	for name, value := range members {
		if name != "gate" {
			return nil, problem.New(http.StatusBadRequest, "unsupported", "a promote takes the member gate, and not %s; nothing was promoted", name)
		}
		if err := json.Unmarshal(value, &conditions); err != nil || len(conditions) == 0 {
			return nil, problem.New(http.StatusBadRequest, "invalid", `gate holds a condition for each metric, like {"ndcg@10":">=0","recall@10":">=-0.01"}; nothing was promoted`)
		}
	}
	return conditions, nil
}

func (x *Indexer) rollback(c echo.Context) error {
	return answer(c, http.StatusOK)(x.Rollback(c.Request().Context()))
}

func (x *Indexer) dropGeneration(c echo.Context) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), 30*time.Second)
	defer cancel()
	if err := x.Drop(ctx, c.Param("name")); err != nil {
		return asProblem(err)
	}
	return c.NoContent(http.StatusNoContent)
}

func answer(c echo.Context, status int) func(Info, error) error {
	return func(info Info, err error) error {
		if err != nil {
			return asProblem(err)
		}
		return c.JSON(status, info)
	}
}

// asProblem gives the package's errors their status and code.
func asProblem(err error) error {
	for _, known := range []struct {
		err    error
		status int
		code   string
	}{
		{ErrNotFound, http.StatusNotFound, "generation_unknown"},
		{ErrExists, http.StatusConflict, "generation_exists"},
		{ErrPartial, http.StatusConflict, "partial"},
		{ErrExtent, http.StatusBadRequest, "invalid"},
		{ErrNothingLive, http.StatusServiceUnavailable, "not_ready"},
		{ErrCondition, http.StatusBadRequest, "invalid"},
		{ErrNoEvidence, http.StatusConflict, "gate_unavailable"},
		{ErrMoved, http.StatusConflict, "live_changed"},
		{ErrNotCaughtUp, http.StatusConflict, "not_caught_up"},
		{ErrInUse, http.StatusConflict, "generation_in_use"},
		{ErrUnusable, http.StatusConflict, "generation_failed"},
		{ErrNoPrevious, http.StatusConflict, "nothing_to_roll_back"},
		{ErrRecipe, http.StatusBadRequest, "recipe_invalid"},
		{ErrName, http.StatusBadRequest, "name_invalid"},
		{ErrVerification, http.StatusBadRequest, "invalid"},
		{ErrNotDeleted, http.StatusConflict, "document_not_deleted"},
		{ErrVerifying, http.StatusConflict, "verify_running"},
		{stream.ErrNoLetter, http.StatusNotFound, "dead_letter_unknown"},
	} {
		if errors.Is(err, known.err) {
			return problem.New(known.status, known.code, "%v", err)
		}
	}
	if failed := (*GateError)(nil); errors.As(err, &failed) {
		return &problem.Error{Status: http.StatusConflict, Code: "gate_failed", Detail: failed.Error(), Err: err,
			More: map[string]any{"candidate": failed.Candidate, "live": failed.Live, "gate": failed.Measured}}
	}
	if away, retryAfter := temporary(err); away {
		code, what := "model_unavailable", "model"
		if errors.As(err, new(*chunker.Error)) {
			code, what = "chunker_unavailable", "chunker"
		}
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: code, RetryAfter: max(2*time.Second, retryAfter), Err: err,
			Detail: fmt.Sprintf("the %s does not answer now, try this again: %v", what, err)}
	}
	switch {
	case errors.Is(err, stream.ErrDiskFull):
		return &problem.Error{Status: http.StatusInsufficientStorage, Code: "disk_full", RetryAfter: 5 * time.Second, Err: err,
			Detail: "the disk that holds the log has no room; nothing was changed. Make room there and try this again"}
	case errors.Is(err, stream.ErrLogFull):
		return &problem.Error{Status: http.StatusInsufficientStorage, Code: "log_full", Err: err,
			Detail: "the log is full; nothing was changed. Delete documents and restart, which compacts it, or raise log.max_bytes"}
	case errors.Is(err, stream.ErrUnavailable):
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: "log_unavailable", RetryAfter: 2 * time.Second, Err: err,
			Detail: "the log can't be reached now; answers go on from what is indexed, try this again"}
	}
	return err
}
