package upstream

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// breaker keeps who asks from waiting, one after the other, for a host that
// answers to no connection. A dial that ran into its timeout closes the host for
// closedFor; then one dial tries, and who comes meanwhile does not wait for it.
// It decides about new connections alone: what comes over those that stand is
// answered, and a host that another dial reached meanwhile is not closed. The
// zero value is ready.
type breaker struct {
	mu    sync.Mutex
	hosts map[string]reach // by host and port
}

// reach is what was seen of a host.
type reach struct {
	reached time.Time // when a dial came through
	until   time.Time // closed until then; zero: open
	trying  bool      // one dial is out, though closed
}

// closedFor is short, for it also keeps away who would be answered by now.
const closedFor = 2 * time.Second

// guard is dial behind the breaker.
func (b *breaker) guard(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		begun := time.Now()
		if !b.enter(address, begun) {
			return nil, fault(KindUnavailable, "not dialled: connections to %s timed out until just now", clip(address))
		}
		conn, err := dial(ctx, network, address)
		b.leave(ctx, address, begun, err)
		return conn, err
	}
}

func (b *breaker) enter(address string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	host := b.hosts[address]
	if host.until.IsZero() {
		return true
	}
	if host.trying || now.Before(host.until) {
		return false
	}
	host.trying = true
	b.hosts[address] = host
	return true
}

// leave takes note of a dial that began then and ended with err.
func (b *breaker) leave(ctx context.Context, address string, begun time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	host, now := b.hosts[address], time.Now()
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case err != nil && ctx.Err() != nil: // who dialled left: it says nothing about the host
		host.trying = false
	case ok && timeout.Timeout():
		if host.reached.Before(begun) {
			host = reach{reached: host.reached, until: now.Add(closedFor)}
		}
	case err == nil:
		host = reach{reached: now}
	default: // an answer too, and a quick one
		host = reach{reached: host.reached}
	}
	b.hosts = remember(b.hosts, address, host)
}
