package kafka

import (
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Status tells whether the brokers answer.
type Status struct {
	// Since is when the first of the brokers that don't answer now stopped answering; zero while all do.
	Since time.Time
	// Brokers are the addresses that don't answer.
	Brokers []string
	// Err is the last failure.
	Err error
}

// health follows the connections of all of a log's clients, and logs one line when a broker goes and one when it is back.
type health struct {
	logger *slog.Logger

	mu   sync.Mutex
	down map[string]time.Time
	last error
}

var _ kgo.HookBrokerConnect = (*health)(nil)

// OnBrokerConnect is called by the client.
func (h *health) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	address := net.JoinHostPort(meta.Host, itoa(meta.Port))
	h.mu.Lock()
	defer h.mu.Unlock()
	since, wasDown := h.down[address]
	switch {
	case err == nil && wasDown:
		delete(h.down, address)
		h.logger.Info("kafka broker is back", "broker", address, "away", time.Since(since).Round(time.Millisecond))
	case err != nil:
		h.last = err
		if !wasDown {
			h.down[address] = time.Now()
			h.logger.Warn("kafka broker does not answer; trying again for ever", "broker", address, "error", err)
		}
	}
}

func (h *health) status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	var s Status
	for address, since := range h.down {
		s.Brokers = append(s.Brokers, address)
		if s.Since.IsZero() || since.Before(s.Since) {
			s.Since = since
		}
		s.Err = h.last
	}
	return s
}

func (h *health) lastError() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}
