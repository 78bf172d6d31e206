package indexer

import "context"

// baton is a lock that is held while others are asked over a network, so that whoever waits for it may give up.
type baton chan struct{}

func newBaton() baton { return make(baton, 1) }

// take blocks until nobody else has it, or ctx ends. give must follow a nil error.
func (b baton) take(ctx context.Context) error {
	select {
	case b <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b baton) give() { <-b }
