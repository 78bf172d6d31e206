package kafka

import (
	"context"
	"net"
	"sync"
)

// listener accepts connections from inside the process and, if it has an address, from TCP.
type listener struct {
	tcp       net.Listener // nil: in the process only
	conns     chan net.Conn
	closed    chan struct{}
	closeOnce sync.Once
}

func listen(address string) (*listener, error) {
	l := &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
	if address == "" {
		return l, nil
	}
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	l.tcp = tcp
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			if l.offer(context.Background(), conn) != nil {
				conn.Close()
			}
		}
	}()
	return l, nil
}

func (l *listener) offer(ctx context.Context, conn net.Conn) error {
	select {
	case l.conns <- conn:
		return nil
	case <-l.closed:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *listener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	if err := l.offer(ctx, server); err != nil {
		return nil, &net.OpError{Op: "dial", Net: "embedded", Addr: l.Addr(), Err: err}
	}
	return client, nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.closeOnce.Do(func() {
		close(l.closed)
		if l.tcp != nil {
			l.tcp.Close()
		}
	})
	return nil
}

// Addr is what the broker tells its clients to connect to.
func (l *listener) Addr() net.Addr {
	if l.tcp != nil {
		return l.tcp.Addr()
	}
	return inProcess{}
}

type inProcess struct{}

func (inProcess) Network() string { return "embedded" }
func (inProcess) String() string  { return "localhost:9092" }
