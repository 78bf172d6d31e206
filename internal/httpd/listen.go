package httpd

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
)

// ErrInsecure: the address can be reached from other machines, and there is no authentication.
var ErrInsecure = errors.New("refused to listen without authentication")

// nextPorts is how many ports a default address moves on, at most.
const nextPorts = 100

// ListenOptions say what Listen may do.
type ListenOptions struct {
	// Explicit: the address was asked for, so that a port which is taken is an error. A default one moves on to the next free port.
	Explicit bool
	// Insecure allows an address that other machines can reach.
	Insecure bool
}

// Listen opens a TCP address, host:port. Unless Insecure is set, it must be of the loopback interface; the error wraps ErrInsecure.
func Listen(addr string, o ListenOptions) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: it should be like 127.0.0.1:8080: %w", addr, err)
	}
	first, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %q is no port number", addr, port)
	}
	if !o.Insecure && !onlyLoopback(host) {
		return nil, fmt.Errorf("%w: %s can be reached from other machines, by anybody; listen on 127.0.0.1:%s, or allow it with --insecure_listen", ErrInsecure, addr, port)
	}
	for n := first; ; n++ {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.FormatUint(n, 10)))
		switch {
		case err == nil:
			return l, nil
		case !taken(err):
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		case o.Explicit || n == first+nextPorts || n == 65535:
			return nil, fmt.Errorf("listen on %s: the port is taken; stop what uses it, or choose another with --listen: %w", addr, err)
		}
	}
}

// taken tells whether a port is in use. Windows has a number of its own for it (WSAEADDRINUSE).
func taken(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.Errno(10048))
}

func onlyLoopback(host string) bool {
	if host == "" {
		return false
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	ips, err := net.LookupIP(host)
	if err != nil || len(ips) == 0 {
		return false
	}
	for _, ip := range ips {
		if !ip.IsLoopback() {
			return false
		}
	}
	return true
}
