// Package httpd puts the HTTP server together from the routes that packages offer, and adds what all of them need: bounds, deadlines,
// request ids, problems as answers, health, metrics and the API's description.
package httpd

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/liverag/liverag/internal/problem"
)

//go:embed openapi.json
var openAPI []byte

// OpenAPI is the description of the whole API, as GET /openapi.json serves it.
func OpenAPI() []byte { return slices.Clone(openAPI) }

const (
	// headerTimeout is how long the header of a request may take.
	headerTimeout = 5 * time.Second
	// idleTimeout is how long a connection without a request is kept.
	idleTimeout = 2 * time.Minute
	// maxHeader holds the longest query in a URL, percent-encoded.
	maxHeader = 256 << 10
	// bodyTimeout is how long a body may take; every bodyRate bytes that arrived give it a second more. A body without a limit of its length may instead pause for pauseTimeout.
	bodyTimeout  = 30 * time.Second
	bodyRate     = 16 << 10
	pauseTimeout = time.Minute
	// answerTimeout is how long an answer may take to be sent, once it is there.
	answerTimeout = time.Minute
	// grace is how long requests under way may take to finish when the server stops, and abandon how long those that did not may take to notice.
	grace   = 2500 * time.Millisecond
	abandon = 500 * time.Millisecond
)

// Config is what a Server works with. Fields without a default are required.
type Config struct {
	// Listener is closed by Run. Package function Listen makes one.
	Listener net.Listener
	// Routes add what is served. Handlers return errors; those that are no *problem.Error become 500 without a word of the cause.
	Routes []func(*echo.Echo)
	// OwnLimits are routes ("PUT /documents/*") that bound their bodies themselves. Defaults to none.
	OwnLimits []string
	// MaxBody is the largest body of the others, in bytes. Defaults to 64 MiB.
	MaxBody int64
	// MaxInFlight is how many requests are answered at the same time; more are told to come back (503 overloaded). Queries, writes and
	// streams of events are counted apart, so that none can starve the others. Defaults to 256.
	MaxInFlight int
	// Hosts are names that the Host header may have, besides loopback's, while the listener is loopback's. Defaults to none.
	Hosts []string
	// Ready returns why the server may not serve yet; nothing if it may. Defaults to always ready.
	Ready func() []string
	// Metrics is served at /metrics. Defaults to an empty registry.
	Metrics *prometheus.Registry
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

// Server serves the API.
type Server struct {
	config   Config
	echo     *echo.Echo
	origins  *http.CrossOriginProtection
	loopback bool
	// known holds the paths of the routes: for others, echo's path is the caller's, which must not become a label.
	known map[string]bool

	inFlight [classes]atomic.Int64
	requests *prometheus.CounterVec
	refused  *prometheus.CounterVec

	stopping context.Context // ends streams
	stop     context.CancelFunc
}

// class is what requests are counted apart by.
type class uint8

const (
	queries class = iota
	writes
	streams
	probes // never refused
	classes
)

func (c class) String() string { return [...]string{"query", "write", "stream", "probe"}[c] }

func classOf(method, path string) class {
	switch {
	case path == "/healthz" || path == "/readyz" || path == "/metrics":
		return probes
	case strings.HasSuffix(path, "/stream"):
		return streams
	case method == http.MethodGet || path == "/retrieve":
		return queries
	}
	return writes
}

// New returns a server that serves once Run is called.
func New(config Config) *Server {
	if config.MaxBody == 0 {
		config.MaxBody = 64 << 20
	}
	if config.MaxInFlight == 0 {
		config.MaxInFlight = 256
	}
	if config.Metrics == nil {
		config.Metrics = prometheus.NewRegistry()
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	s := &Server{
		config:  config,
		echo:    echo.New(),
		origins: http.NewCrossOriginProtection(),
		known:   map[string]bool{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "liverag_http_requests_total", Help: "Requests answered, by route and status.",
		}, []string{"method", "route", "status"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "liverag_http_overloaded_total", Help: "Requests refused because too many were in flight.",
		}, []string{"class"}),
	}
	if config.Listener != nil {
		if addr, ok := config.Listener.Addr().(*net.TCPAddr); ok {
			s.loopback = addr.IP.IsLoopback()
		}
	}
	config.Metrics.MustRegister(s.requests, s.refused)
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.echo.HideBanner, s.echo.HidePort = true, true
	s.echo.HTTPErrorHandler = problem.Handler(config.Logger)
	s.echo.Use(s.around)
	s.echo.GET("/healthz", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"status": "alive"}) })
	s.echo.GET("/readyz", s.ready)
	s.echo.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(config.Metrics, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(config.Logger.Handler(), slog.LevelWarn)})))
	s.echo.GET("/openapi.json", func(c echo.Context) error { return c.Blob(http.StatusOK, "application/json", openAPI) })
	for _, routes := range config.Routes {
		routes(s.echo)
	}
	for _, r := range s.echo.Routes() {
		s.known[r.Path] = true
	}
	return s
}

// Routes lists what is served as the description spells it, "GET /documents/{id}", sorted.
func (s *Server) Routes() []string {
	var out []string
	for _, r := range s.echo.Routes() {
		parts := strings.Split(r.Path, "/")
		for i, part := range parts {
			if name, ok := strings.CutPrefix(part, ":"); ok {
				parts[i] = "{" + name + "}"
			}
			if part == "*" {
				parts[i] = "{id}"
			}
		}
		out = append(out, r.Method+" "+strings.Join(parts, "/"))
	}
	slices.Sort(out)
	return out
}

func (s *Server) ready(c echo.Context) error {
	if s.stopping.Err() != nil {
		return &problem.Error{Status: http.StatusServiceUnavailable, Code: "not_ready", Detail: "the server is stopping", RetryAfter: time.Second}
	}
	if s.config.Ready != nil {
		if reasons := s.config.Ready(); len(reasons) > 0 {
			return &problem.Error{Status: http.StatusServiceUnavailable, Code: "not_ready", Detail: strings.Join(reasons, "; "), RetryAfter: time.Second}
		}
	}
	return c.JSON(http.StatusOK, map[string]string{"status": "ready"})
}

// ServeHTTP makes a Server an http.Handler, for tests and for other listeners. HEAD is answered like GET: net/http leaves the body out.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodHead {
		get := *r
		get.Method = http.MethodGet
		r = &get
	}
	s.echo.ServeHTTP(w, r)
}

// around is what happens to every request.
func (s *Server) around(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		began := time.Now()
		r, w := c.Request(), c.Response()
		id := requestID(r)
		w.Header().Set(echo.HeaderXRequestID, id)
		w.Header().Set("X-Content-Type-Options", "nosniff")

		if err := s.guarded(c, next); err != nil {
			c.Error(err)
		}

		level := slog.LevelDebug
		if w.Status >= 500 && classOf(r.Method, c.Path()) != probes { // a probe that says no is an answer like any other
			level = slog.LevelWarn
		}
		if log := s.config.Logger; log.Enabled(r.Context(), level) {
			log.LogAttrs(r.Context(), level, "request", slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", w.Status),
				slog.Duration("took", time.Since(began)), slog.Int64("bytes", w.Size), slog.String("request_id", id))
		}
		route := c.Path()
		if !s.known[route] {
			route = "none"
		}
		s.requests.WithLabelValues(method(r.Method), route, strconv.Itoa(w.Status)).Inc()
		return nil
	}
}

// method bounds the values of a label.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete:
		return m
	}
	return "other"
}

// guarded calls the handler within its bounds. A panic becomes an error.
func (s *Server) guarded(c echo.Context, next echo.HandlerFunc) (err error) {
	r := c.Request()
	if err := s.checkHost(r); err != nil {
		return err
	}
	if err := s.origins.Check(r); err != nil {
		return &problem.Error{Status: http.StatusForbidden, Code: "cross_origin", Err: err, Detail: "a page of another origin may not change anything here"}
	}
	kind := classOf(r.Method, c.Path())
	if kind != probes {
		defer s.inFlight[kind].Add(-1)
		if s.inFlight[kind].Add(1) > int64(s.config.MaxInFlight) {
			s.refused.WithLabelValues(kind.String()).Inc()
			return &problem.Error{Status: http.StatusServiceUnavailable, Code: "overloaded", RetryAfter: time.Second,
				Detail: fmt.Sprintf("%d requests of this kind are being answered; try again", s.config.MaxInFlight)}
		}
	}
	control := http.NewResponseController(c.Response().Writer)
	if kind == streams {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.stopping, cancel)()
		c.SetRequest(r.WithContext(ctx))
		_ = control.SetWriteDeadline(time.Time{}) // streams renew theirs with each event
	} else {
		c.Response().Before(func() { _ = control.SetWriteDeadline(time.Now().Add(answerTimeout)) })
	}
	if r.ContentLength != 0 {
		own := slices.Contains(s.config.OwnLimits, r.Method+" "+c.Path())
		if !own {
			if r.ContentLength > s.config.MaxBody {
				return &http.MaxBytesError{Limit: s.config.MaxBody}
			}
			r.Body = http.MaxBytesReader(c.Response().Writer, r.Body, s.config.MaxBody)
		}
		until := time.Now().Add(bodyTimeout)
		_ = control.SetReadDeadline(until) // also for what net/http reads of a body that the handler left
		r.Body = &pacedBody{ReadCloser: r.Body, control: control, until: until, mayPause: own && r.ContentLength < 0}
	}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler {
				panic(p)
			}
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return next(c)
}

// checkHost keeps a web page from reaching a loopback server by a name of its own that resolves to 127.0.0.1 (DNS rebinding).
func (s *Server) checkHost(r *http.Request) error {
	if !s.loopback {
		return nil
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return nil
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.Contains(s.config.Hosts, host) {
		return nil
	}
	return problem.New(http.StatusForbidden, "host_not_allowed", "the host %q is not this server's; use 127.0.0.1 or localhost", r.Host)
}

// pacedBody closes the connection of a caller whose body comes too slowly.
type pacedBody struct {
	io.ReadCloser
	control  *http.ResponseController
	until    time.Time
	read     int64
	mayPause bool
}

func (b *pacedBody) Read(p []byte) (int, error) {
	until := b.until.Add(time.Duration(b.read/bodyRate) * time.Second)
	if b.mayPause {
		until = time.Now().Add(pauseTimeout)
	}
	_ = b.control.SetReadDeadline(until)
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if err == io.EOF { // without this, the deadline would end the request while its handler works
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// Run serves until ctx ends, then lets requests under way finish for up to three seconds. It returns nil unless the listener fails.
func (s *Server) Run(ctx context.Context) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(s.config.Listener) }()
	select {
	case err := <-failed:
		s.stop()
		return fmt.Errorf("serve %s: %w", s.config.Listener.Addr(), err)
	case <-ctx.Done():
	}
	s.stop()
	finishing, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := server.Shutdown(finishing); err != nil {
		s.config.Logger.Warn("requests under way were cut off", "error", err)
		_ = server.Close() // ends their contexts
		for waited := time.Duration(0); waited < abandon && s.busy(); waited += abandon / 100 {
			time.Sleep(abandon / 100)
		}
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.config.Listener.Addr(), err)
	}
	return nil
}

// busy tells whether a handler is at work.
func (s *Server) busy() bool {
	for i := range s.inFlight {
		if s.inFlight[i].Load() > 0 {
			return true
		}
	}
	return false
}
