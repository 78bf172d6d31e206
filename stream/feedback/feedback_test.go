package feedback

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/liverag/liverag/internal/problem"
	"github.com/liverag/liverag/stream"
)

// kept is feedback in memory.
type kept struct {
	all []stream.Feedback
	err error
}

func (k *kept) Add(_ context.Context, f stream.Feedback) (stream.Feedback, error) {
	f.Sequence, f.Time = int64(len(k.all)+1), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if k.err == nil {
		k.all = append(k.all, f)
	}
	return f, k.err
}

func (k *kept) List(_ context.Context, before int64, limit int) (list []stream.Feedback, next int64, err error) {
	for i := len(k.all) - 1; i >= 0; i-- {
		if before > 0 && k.all[i].Sequence >= before {
			continue
		}
		if len(list) == limit {
			return list, k.all[i+1].Sequence, k.err
		}
		list = append(list, k.all[i])
	}
	return list, 0, k.err
}

func server(k *kept) *echo.Echo {
	e := echo.New()
	e.HTTPErrorHandler = problem.Handler(slog.New(slog.DiscardHandler))
	New(Config{Log: k}).Routes(e)
	return e
}

func ask(e *echo.Echo, method, target, body string) (int, map[string]any) {
	w := httptest.NewRecorder()
	e.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		out = map[string]any{"body": w.Body.String()}
	}
	return w.Code, out
}

func TestAddAndList(t *testing.T) {
	k := &kept{}
	e := server(k)
	status, got := ask(e, "POST", "/feedback", `{"query":"how long?","document":"kb/refunds.md","chunk":"kb/refunds.md#1","useful":true,"reason":"it says so"}`)
	if status != http.StatusAccepted || got["id"] != "1" || got["time"] != "2026-01-02T03:04:05Z" || got["useful"] != true || got["reason"] != "it says so" || got["document"] != "kb/refunds.md" {
		t.Errorf("%d %v", status, got)
	}
	for i := range 4 {
		if status, got := ask(e, "POST", "/feedback", fmt.Sprintf(`{"useful":false,"document":"d%d","query":"q","chunk":null}`, i)); status != http.StatusAccepted {
			t.Errorf("%d %v", status, got)
		}
	}
	status, got = ask(e, "GET", "/feedback?limit=2", "")
	list := got["feedback"].([]any)
	if status != http.StatusOK || len(list) != 2 || list[0].(map[string]any)["document"] != "d3" || got["next"] != "4" {
		t.Errorf("%d %v", status, got)
	}
	if status, got = ask(e, "GET", "/feedback?before=2", ""); status != http.StatusOK || len(got["feedback"].([]any)) != 1 || got["next"] != nil {
		t.Errorf("%d %v", status, got)
	}
}

func TestRefused(t *testing.T) {
	k := &kept{}
	e := server(k)
	long := strings.Repeat("x", MaxQueryBytes+1)
	for _, c := range []struct {
		method, target, body string
		status               int
		code                 string
	}{
		{"POST", "/feedback", ``, 400, "invalid_json"},
		{"POST", "/feedback", `[]`, 400, "invalid_json"},
		{"POST", "/feedback", `{"query":"q"`, 400, "invalid_json"},
		{"POST", "/feedback", `{"query":"q","query":"r","document":"d","useful":true}`, 400, "invalid_json"},
		{"POST", "/feedback", `{"query":"q","document":"d","useful":true} x`, 400, "invalid_json"},
		{"POST", "/feedback", "{\"query\":\"\xff\"}", 400, "invalid_utf8"},
		{"POST", "/feedback", `{"query":"q","document":"d","useful":true,"stars":5}`, 400, "unsupported"},
		{"POST", "/feedback", `{"Query":"q","document":"d","useful":true}`, 400, "unsupported"},
		{"POST", "/feedback", `{"query":"q","document":"d","useful":"yes"}`, 400, "wrong_type"},
		{"POST", "/feedback", `{"query":7,"document":"d","useful":true}`, 400, "wrong_type"},
		{"POST", "/feedback", `{"query":" ","document":"d","useful":true}`, 400, "query_empty"},
		{"POST", "/feedback", `{"query":"` + long + `","document":"d","useful":true}`, 400, "query_too_large"},
		{"POST", "/feedback", `{"query":"q","useful":true}`, 400, "id_invalid"},
		{"POST", "/feedback", `{"query":"q","document":"a\u0001","useful":true}`, 400, "id_invalid"},
		{"POST", "/feedback", `{"query":"q","document":"d"}`, 400, "useful_missing"},
		{"POST", "/feedback", `{"query":"q","document":"d","useful":null}`, 400, "useful_missing"},
		{"POST", "/feedback", `{"query":"q","document":"d","useful":true,"chunk":"` + long[:MaxChunkBytes+1] + `"}`, 400, "chunk_too_large"},
		{"POST", "/feedback", `{"query":"q","document":"d","useful":true,"reason":"` + long[:MaxReasonBytes+1] + `"}`, 400, "reason_too_large"},
		{"POST", "/feedback", strings.Repeat(" ", maxBody+1), 413, "body_too_large"},
		{"GET", "/feedback?limit=0", "", 400, "invalid"},
		{"GET", "/feedback?limit=1001", "", 400, "invalid"},
		{"GET", "/feedback?before=x", "", 400, "invalid"},
		{"GET", "/feedback?after=1", "", 400, "unsupported"},
	} {
		status, got := ask(e, c.method, c.target, c.body)
		if status != c.status || got["code"] != c.code {
			t.Errorf("%s %s %.90s: %d %v, want %d %s", c.method, c.target, c.body, status, got, c.status, c.code)
		}
	}
	if len(k.all) > 0 {
		t.Errorf("kept %+v", k.all)
	}
}

func TestUnkept(t *testing.T) {
	const good = `{"query":"q","document":"d","useful":true}`
	for err, want := range map[error]string{
		stream.ErrLogFull: "507 log_full", stream.ErrDiskFull: "507 disk_full", stream.ErrUnavailable: "503 log_unavailable", stream.ErrReadOnly: "503 log_unavailable",
		context.DeadlineExceeded: "503 log_unavailable", fmt.Errorf("odd"): "500 internal",
	} {
		e := server(&kept{err: err})
		status, got := ask(e, "POST", "/feedback", good)
		if text := fmt.Sprintf("%d %v", status, got["code"]); text != want {
			t.Errorf("%v: %s, want %s", err, text, want)
		}
	}
	if status, _ := ask(server(&kept{err: stream.ErrUnavailable}), "GET", "/feedback", ""); status != 503 {
		t.Errorf("reading from a log that is away: %d", status)
	}
}
