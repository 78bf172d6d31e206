package httpd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/liverag/liverag/internal/problem"
)

var quiet = slog.New(slog.DiscardHandler)

func loopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// ask sends a request as a client on this machine would.
func ask(s http.Handler, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "127.0.0.1:8080"
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func refused(t *testing.T, w *httptest.ResponseRecorder, status int, code string) {
	t.Helper()
	if w.Code != status || w.Header().Get("Content-Type") != problem.ContentType || !strings.Contains(w.Body.String(), `"code":"`+code+`"`) {
		t.Errorf("got %d %s %s, want %d %s", w.Code, w.Header().Get("Content-Type"), w.Body, status, code)
	}
}

func echoBody(e *echo.Echo) {
	read := func(c echo.Context) error {
		b, err := io.ReadAll(c.Request().Body)
		if err != nil {
			return err
		}
		return c.String(200, fmt.Sprint(len(b)))
	}
	e.POST("/retrieve", read)
	e.PUT("/documents/*", read)
	e.GET("/panic", func(echo.Context) error { panic("ouch, a secret") })
	e.GET("/broken", func(echo.Context) error { return errors.New("a secret") })
	e.GET("/teapot", func(echo.Context) error { return problem.New(418, "teapot", "short and stout") })
}

func TestEveryRequest(t *testing.T) {
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	reasons := []string{"no generation answers", "the log is away"}
	s := New(Config{
		Listener: loopback(t), Routes: []func(*echo.Echo){echoBody}, MaxBody: 1000, OwnLimits: []string{"PUT /documents/*"}, Hosts: []string{"rag.internal"},
		Ready: func() []string { return reasons }, Metrics: registry, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})

	refused(t, ask(s, "GET", "/nowhere", ""), 404, "not_found")
	refused(t, ask(s, "DELETE", "/retrieve", ""), 405, "method_not_allowed")
	refused(t, ask(s, "GET", "/teapot", ""), 418, "teapot")
	for _, path := range []string{"/panic", "/broken"} {
		log.Reset()
		w := ask(s, "GET", path, "", "X-Request-Id", "req-17")
		refused(t, w, 500, "internal")
		if strings.Contains(w.Body.String(), "secret") || !strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), "req-17") {
			t.Errorf("%s: answered %s, logged %s", path, w.Body, &log)
		}
	}

	log.Reset()
	refused(t, ask(s, "GET", "/readyz", ""), 503, "not_ready")
	if log.Len() > 0 {
		t.Errorf("asking whether it is ready warns: %s", &log)
	}
	if w := ask(s, "GET", "/readyz", ""); !strings.Contains(w.Body.String(), "no generation answers; the log is away") || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %s", w.Body)
	}
	reasons = nil
	for _, path := range []string{"/readyz", "/healthz", "/metrics", "/openapi.json"} {
		if w := ask(s, "GET", path, ""); w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("%s: got %d", path, w.Code)
		}
		if w := ask(s, "HEAD", path, ""); w.Code != 200 {
			t.Errorf("HEAD %s: got %d", path, w.Code)
		}
	}

	if w := ask(s, "POST", "/retrieve", strings.Repeat("a", 1000)); w.Code != 200 || w.Body.String() != "1000" {
		t.Errorf("a body at the limit: got %d %s", w.Code, w.Body)
	}
	refused(t, ask(s, "POST", "/retrieve", strings.Repeat("a", 1001)), 413, "body_too_large")
	r := httptest.NewRequest("POST", "/retrieve", io.MultiReader(strings.NewReader(strings.Repeat("a", 1001)))) // of unknown length
	r.Host = "localhost"
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	refused(t, w, 413, "body_too_large")
	if w := ask(s, "PUT", "/documents/a", strings.Repeat("a", 5000)); w.Code != 200 || w.Body.String() != "5000" {
		t.Errorf("a body of a route with its own limit: got %d %s", w.Code, w.Body)
	}

	metrics := ask(s, "GET", "/metrics", "").Body.String()
	for _, want := range []string{
		`liverag_http_requests_total{method="GET",route="/teapot",status="418"} 1`,
		`liverag_http_requests_total{method="GET",route="none",status="404"} 1`,
		`liverag_http_requests_total{method="PUT",route="/documents/*",status="200"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}
	if strings.Contains(metrics, "nowhere") {
		t.Error("a caller's path became a label")
	}
}

func TestHostsAndOrigins(t *testing.T) {
	s := New(Config{Listener: loopback(t), Routes: []func(*echo.Echo){echoBody}, Hosts: []string{"rag.internal"}, Logger: quiet})
	for host, allowed := range map[string]bool{
		"127.0.0.1:8080": true, "127.0.0.1": true, "localhost:8080": true, "LOCALHOST.": true, "[::1]:8080": true, "[::1]": true, "127.1.2.3": true, "app.localhost:80": true, "rag.internal:8080": true,
		"evil.example": false, "evil.example:8080": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false, "10.0.0.1:8080": false, "0.0.0.0:8080": false, "": false, "notlocalhost": false,
	} {
		w := ask(s, "GET", "/healthz", "", "Host", host)
		if (w.Code == 200) != allowed {
			t.Errorf("host %q: got %d", host, w.Code)
		}
		if !allowed {
			refused(t, w, 403, "host_not_allowed")
		}
	}
	for _, tt := range []struct {
		method, name, value string
		allowed             bool
	}{
		{"POST", "Origin", "http://127.0.0.1:8080", true},
		{"POST", "Origin", "http://evil.example", false},
		{"POST", "Origin", "null", false},
		{"POST", "Sec-Fetch-Site", "cross-site", false},
		{"POST", "Sec-Fetch-Site", "same-origin", true},
		{"POST", "User-Agent", "curl", true},
	} {
		w := ask(s, tt.method, "/retrieve", "x", tt.name, tt.value)
		if (w.Code == 200) != tt.allowed {
			t.Errorf("%s: %s: got %d %s", tt.name, tt.value, w.Code, w.Body)
		}
		if !tt.allowed {
			refused(t, w, 403, "cross_origin")
		}
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s was sent", name)
			}
		}
	}
	open := New(Config{Logger: quiet}) // not on the loopback interface: any name may be its own
	if w := ask(open, "GET", "/healthz", "", "Host", "rag.example"); w.Code != 200 {
		t.Errorf("got %d", w.Code)
	}
}

func TestRequestID(t *testing.T) {
	s := New(Config{Logger: quiet})
	for _, id := range []string{"a-1", strings.Repeat("x", 128)} {
		if got := ask(s, "GET", "/healthz", "", "X-Request-Id", id).Header().Get("X-Request-Id"); got != id {
			t.Errorf("got %q, want %q", got, id)
		}
	}
	seen := map[string]bool{}
	for _, id := range []string{"", "with space", "line\nend", strings.Repeat("x", 129), "ä"} {
		got := ask(s, "GET", "/healthz", "", "X-Request-Id", id).Header().Get("X-Request-Id")
		if len(got) != 16 || seen[got] {
			t.Errorf("%q: got %q", id, got)
		}
		seen[got] = true
	}
}

// Writes that fill their share leave queries, streams and probes alone.
func TestInFlight(t *testing.T) {
	entered, leave := make(chan string), make(chan struct{})
	block := func(c echo.Context) error {
		entered <- c.Path()
		<-leave
		return c.NoContent(200)
	}
	s := New(Config{MaxInFlight: 2, Logger: quiet, Routes: []func(*echo.Echo){func(e *echo.Echo) {
		e.PUT("/documents/*", block)
		e.POST("/retrieve", block)
		e.GET("/changes/stream", block)
	}}})
	var wg sync.WaitGroup
	start := func(method, path string) {
		wg.Go(func() {
			if w := ask(s, method, path, ""); w.Code != 200 {
				t.Errorf("%s: got %d %s", path, w.Code, w.Body)
			}
		})
		<-entered
	}
	for _, r := range [][2]string{{"PUT", "/documents/a"}, {"POST", "/retrieve"}, {"GET", "/changes/stream"}} {
		start(r[0], r[1])
		start(r[0], r[1])
		w := ask(s, r[0], r[1], "")
		refused(t, w, 503, "overloaded")
		if w.Header().Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if w := ask(s, "GET", "/healthz", ""); w.Code != 200 {
		t.Errorf("a probe was refused: %d", w.Code)
	}
	close(leave)
	wg.Wait()
	go func() { <-entered }()
	if w := ask(s, "PUT", "/documents/a", ""); w.Code != 200 {
		t.Errorf("places were not given back: %d", w.Code)
	}
}

func TestListen(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "nonsense:", "127.0.0.1:http", "127.0.0.1:99999", "127.0.0.1:-1"} {
		if l, err := Listen(addr, ListenOptions{}); err == nil {
			l.Close()
			t.Errorf("%s: no error", addr)
		} else if !strings.Contains(err.Error(), strings.Split(addr, ":")[0]) {
			t.Errorf("%s: the error does not name it: %v", addr, err)
		}
	}
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0"} {
		l, err := Listen(addr, ListenOptions{})
		if !errors.Is(err, ErrInsecure) {
			t.Errorf("%s: got %v", addr, err)
		}
		if err == nil {
			l.Close()
		}
	}
	l, err := Listen("0.0.0.0:0", ListenOptions{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()

	first, err := Listen("127.0.0.1:0", ListenOptions{Explicit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	addr := first.Addr().String()
	if _, err := Listen(addr, ListenOptions{Explicit: true}); err == nil || !strings.Contains(err.Error(), addr) || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("got %v", err)
	}
	if first.Addr().(*net.TCPAddr).Port == 65535 {
		t.Skip("there is no port after the last one")
	}
	second, err := Listen(addr, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if got, want := second.Addr().(*net.TCPAddr).Port, first.Addr().(*net.TCPAddr).Port; got <= want || got > want+nextPorts {
		t.Errorf("moved on from %d to %d", want, got)
	}
}

// run starts a server and returns its base URL and how to stop it.
func run(t *testing.T, routes func(*echo.Echo)) (base string, stop func() error) {
	t.Helper()
	l := loopback(t)
	s := New(Config{Listener: l, Routes: []func(*echo.Echo){routes}, Logger: quiet})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	var result error
	stop = func() error {
		once.Do(func() { cancel(); result = <-done })
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return "http://" + l.Addr().String(), stop
}

// A stop lets the request under way finish and ends the streams, which would go on for ever.
func TestRunStops(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	base, stop := run(t, func(e *echo.Echo) {
		e.GET("/slow", func(c echo.Context) error {
			entered <- struct{}{}
			<-leave
			return c.String(200, "finished")
		})
		e.GET("/changes/stream", func(c echo.Context) error {
			c.Response().WriteHeader(200)
			c.Response().Flush()
			entered <- struct{}{}
			<-c.Request().Context().Done()
			_, err := io.WriteString(c.Response(), "end")
			return err
		})
	})
	answers := make(chan string, 2)
	for _, path := range []string{"/slow", "/changes/stream"} {
		go func() {
			resp, err := http.Get(base + path)
			if err != nil {
				answers <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			answers <- fmt.Sprint(string(b), err)
		}()
		<-entered
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	if got := <-answers; got != "end<nil>" {
		t.Errorf("the stream said %q", got)
	}
	close(leave)
	if got := <-answers; got != "finished<nil>" {
		t.Errorf("the request under way was answered %q", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if _, err := http.Get(base + "/healthz"); err == nil {
		t.Error("it still answers")
	}
}

// A request that does not finish is cut off after the grace, and its context ends. The network and the clock are made up.
func TestRunCutsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		entered := make(chan struct{})
		s := New(Config{Listener: l, Logger: quiet, Routes: []func(*echo.Echo){func(e *echo.Echo) {
			e.GET("/stuck", func(c echo.Context) error {
				close(entered)
				<-c.Request().Context().Done()
				return c.Request().Context().Err()
			})
		}}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		client := l.dial()
		defer client.Close()
		if _, err := io.WriteString(client, "GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-entered
		began := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < grace || took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// A caller that sends nothing, or a header or a body without end, is let go; one that waits for its answer, or pauses in a stream, is not.
func TestSlowCallers(t *testing.T) {
	for _, tt := range []struct {
		name, send string
		drip       time.Duration // how often another byte comes
		min, max   time.Duration // when the connection ends
		want       string
	}{
		{"header", "GET /healthz HTTP/1.1\r\nX", time.Second, headerTimeout, headerTimeout + time.Second, ""},
		{"body", "POST /retrieve HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", time.Second, bodyTimeout, bodyTimeout + 2*time.Second, " 500 "},
		{"idle", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 0, idleTimeout, idleTimeout + time.Second, " 200 "},
		{"stream of documents", "POST /documents HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", 0, pauseTimeout, pauseTimeout + time.Second, " 500 "},
		{"long answer", "POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 0, 4*time.Minute + idleTimeout, 4*time.Minute + idleTimeout + time.Second, " 200 "},
		{"events", "GET /freshness/stream HTTP/1.1\r\nHost: x\r\n\r\n", 0, 3 * time.Hour, 4 * time.Hour, "event: last"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newPipes()
				read := func(c echo.Context) error {
					_, err := io.ReadAll(c.Request().Body)
					return err
				}
				s := New(Config{Listener: l, Logger: quiet, OwnLimits: []string{"POST /documents"}, Routes: []func(*echo.Echo){func(e *echo.Echo) {
					e.POST("/retrieve", read)
					e.POST("/documents", read)
					e.POST("/wait", func(c echo.Context) error {
						if err := read(c); err != nil {
							return err
						}
						select {
						case <-time.After(4 * time.Minute):
							return c.NoContent(200)
						case <-c.Request().Context().Done():
							return c.Request().Context().Err()
						}
					})
					e.GET("/freshness/stream", func(c echo.Context) error {
						for range 3 {
							select {
							case <-time.After(time.Hour):
							case <-c.Request().Context().Done():
								return nil
							}
							fmt.Fprint(c.Response(), "event: x\n\n")
							c.Response().Flush()
						}
						c.Response().Header().Set("Connection", "close")
						fmt.Fprint(c.Response(), "event: last\n\n")
						return http.ErrAbortHandler
					})
				}}})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- s.Run(ctx) }()
				client := l.dial()
				began := time.Now()
				var sender sync.WaitGroup
				defer sender.Wait()
				sender.Go(func() {
					if _, err := io.WriteString(client, tt.send); err != nil {
						return
					}
					for tt.drip > 0 && time.Since(began) < time.Hour {
						time.Sleep(tt.drip)
						if _, err := io.WriteString(client, "a"); err != nil {
							return
						}
					}
				})
				if tt.name == "events" {
					lastEvent(t, client, tt.want, began, tt.min, tt.max)
				} else {
					answer, _ := io.ReadAll(client)
					if took := time.Since(began); took < tt.min || took > tt.max || !strings.Contains(string(answer), tt.want) {
						t.Errorf("the connection ended after %s, want %s to %s; it said %q", took, tt.min, tt.max, answer)
					}
				}
				client.Close()
				cancel()
				<-done
			})
		})
	}
}

func lastEvent(t *testing.T, client net.Conn, want string, began time.Time, least, most time.Duration) {
	t.Helper()
	lines := bufio.NewScanner(client)
	for lines.Scan() {
		if lines.Text() == want {
			break
		}
	}
	if took := time.Since(began); took < least || took > most {
		t.Errorf("the last event came after %s", took)
	}
}

// pipes is a Listener of connections in memory, which a synctest bubble can wait for.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

func newPipes() *pipes { return &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.accepted <- server
	return client
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func TestRunFails(t *testing.T) {
	l := loopback(t)
	l.Close()
	if err := New(Config{Listener: l, Logger: quiet}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestConcurrent(t *testing.T) {
	s := New(Config{Listener: loopback(t), Routes: []func(*echo.Echo){echoBody}, Logger: quiet})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				if w := ask(s, "POST", "/retrieve", strings.Repeat("a", i)); w.Body.String() != fmt.Sprint(i) {
					t.Errorf("got %s", w.Body)
				}
				ask(s, "GET", "/nowhere", "")
			}
		})
	}
	wg.Wait()
}

func BenchmarkAround(b *testing.B) {
	s := New(Config{Logger: quiet, Routes: []func(*echo.Echo){func(e *echo.Echo) {
		e.POST("/retrieve", func(c echo.Context) error { return c.NoContent(200) })
	}}})
	r := httptest.NewRequest("POST", "/retrieve", strings.NewReader("{}"))
	b.ReportAllocs()
	for b.Loop() {
		s.ServeHTTP(httptest.NewRecorder(), r)
	}
}
