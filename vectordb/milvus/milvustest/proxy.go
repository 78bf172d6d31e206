// Package milvustest lets the way to a Milvus server fail: a proxy on the loopback that can be cut, stalled, slowed down and reset, and that refuses, loses or
// holds back single calls. It knows nothing of what the calls mean beyond their names.
package milvustest

import (
	"context"
	"fmt"
	"net"
	"path"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Proxy forwards everything to a server, until it is told otherwise. All methods are safe for concurrent use.
type Proxy struct {
	listener net.Listener
	server   *grpc.Server
	upstream *grpc.ClientConn

	mu    sync.Mutex
	gate  chan struct{} // closed while bytes pass
	cut   bool
	delay time.Duration
	piece int
	lines map[*line]bool
	rule  func(method string) Verdict
}

// Verdict is what becomes of a call. The zero value lets it pass.
type Verdict struct {
	// Before, if set, is the answer; the server hears nothing of the call.
	Before error
	// After, if set, is the answer once the server has done what it was asked to.
	After error
	// Hold, if set, keeps the call from the server until it is closed. The server does it even if the client has given up meanwhile.
	Hold <-chan struct{}
}

// Lost is the answer of a connection that broke.
var Lost = status.Error(codes.Unavailable, "the connection broke")

// NewProxy listens in front of a server, HOST:PORT. It ends with the test.
func NewProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	raw := grpc.WithDefaultCallOptions(grpc.ForceCodec(frame{}), grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30))
	upstream, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()), raw)
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: l, upstream: upstream, gate: make(chan struct{}), lines: map[*line]bool{}}
	close(p.gate)
	p.server = grpc.NewServer(grpc.ForceServerCodec(frame{}), grpc.UnknownServiceHandler(p.forward), grpc.MaxRecvMsgSize(1<<30), grpc.MaxSendMsgSize(1<<30))
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = p.server.Serve(listener{l, p})
	}()
	t.Cleanup(func() {
		p.Reset()
		p.server.Stop()
		<-served
		_ = upstream.Close()
	})
	return p
}

// Address is where it listens, HOST:PORT.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Pass lets everything through again: what was stalled goes on.
func (p *Proxy) Pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.delay, p.piece, p.rule = false, 0, 0, nil
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

// Cut breaks all connections, and each new one at once.
func (p *Proxy) Cut() {
	p.mu.Lock()
	p.cut = true
	p.mu.Unlock()
	p.Reset()
}

// Stall takes connections and requests, and passes nothing on.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
		p.gate = make(chan struct{})
	default:
	}
}

// Slow passes each piece of at most so many bytes on after a delay.
func (p *Proxy) Slow(delay time.Duration, piece int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay, p.piece = delay, piece
}

// Reset breaks all connections that there are, in the middle of whatever they carry.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		l.reset()
	}
}

// Swallow makes the connections that there are carry nothing for ever, without closing them, as when a machine between has forgotten them. New ones work.
func (p *Proxy) Swallow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.lines {
		l.once.Do(func() { close(l.swallowed) })
	}
}

// Judge has each call judged by its name, like Upsert. The rule is called for one call after the other. nil lets all pass.
func (p *Proxy) Judge(rule func(method string) Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule = rule
}

// Connections counts those that are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// forward does one call. Milvus has none with streams.
func (p *Proxy) forward(_ any, in grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(in)
	var v Verdict
	p.mu.Lock()
	if p.rule != nil {
		v = p.rule(path.Base(method))
	}
	p.mu.Unlock()
	var request, answer []byte
	if err := in.RecvMsg(&request); err != nil {
		return err
	}
	if v.Before != nil {
		return v.Before
	}
	ctx := in.Context()
	if v.Hold != nil {
		<-v.Hold
		ctx = context.WithoutCancel(ctx)
	}
	if sent, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, sent)
	}
	if err := p.upstream.Invoke(ctx, method, &request, &answer); err != nil {
		return err
	}
	if v.After != nil {
		return v.After
	}
	return in.SendMsg(&answer)
}

// frame leaves messages as the bytes that they are.
type frame struct{}

// Name is no name: with one the content type would have it as a suffix, and a server that also speaks HTTP/1.1 on its port takes such a call for that.
func (frame) Name() string { return "" }

func (frame) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("can't send a %T", v)
	}
	return *b, nil
}

func (frame) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("can't receive a %T", v)
	}
	*b = append([]byte(nil), data...)
	return nil
}

// listener wraps what it accepts.
type listener struct {
	net.Listener
	p *Proxy
}

func (l listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		n := &line{Conn: c, p: l.p, closed: make(chan struct{}), swallowed: make(chan struct{})}
		l.p.mu.Lock()
		cut := l.p.cut
		if !cut {
			l.p.lines[n] = true
		}
		l.p.mu.Unlock()
		if !cut {
			return n, nil
		}
		n.reset()
	}
}

// line is a connection of a client.
type line struct {
	net.Conn
	p         *Proxy
	once      sync.Once
	swallowed chan struct{}
	end       sync.Once
	closed    chan struct{}
}

// wait blocks while nothing passes, and tells for how long the next piece is delayed and how large it may be.
func (l *line) wait() (delay time.Duration, piece int, err error) {
	select {
	case <-l.swallowed:
		<-l.closed
		return 0, 0, net.ErrClosed
	default:
	}
	l.p.mu.Lock()
	gate := l.p.gate
	delay, piece = l.p.delay, l.p.piece
	l.p.mu.Unlock()
	select {
	case <-gate:
		return delay, piece, nil
	case <-l.closed:
		return 0, 0, net.ErrClosed
	}
}

func (l *line) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if err != nil {
		return n, err
	}
	if _, _, err := l.wait(); err != nil { // what arrives while nothing passes is kept back
		return 0, err
	}
	return n, nil
}

func (l *line) Write(b []byte) (written int, err error) {
	for len(b) > 0 {
		delay, piece, err := l.wait()
		if err != nil {
			return written, err
		}
		if piece <= 0 || piece > len(b) {
			piece = len(b)
		}
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-l.closed:
				return written, net.ErrClosed
			}
		}
		n, err := l.Conn.Write(b[:piece])
		written += n
		if err != nil {
			return written, err
		}
		b = b[piece:]
	}
	return written, nil
}

func (l *line) Close() error {
	l.end.Do(func() { close(l.closed) })
	l.p.mu.Lock()
	delete(l.p.lines, l)
	l.p.mu.Unlock()
	return l.Conn.Close()
}

// reset closes the connection so that the other side sees it break. The gRPC server closes it after that.
func (l *line) reset() {
	if c, ok := l.Conn.(*net.TCPConn); ok {
		_ = c.SetLinger(0)
	}
	l.end.Do(func() { close(l.closed) })
	_ = l.Conn.Close()
}
