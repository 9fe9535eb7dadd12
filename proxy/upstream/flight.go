package upstream

import (
	"context"
	"sync"
	"time"
)

// flights runs one piece of work for each key, however many ask at the same
// time. Who asks may leave when its own context ends; the work is stopped when
// nobody is left. The zero value is ready.
type flights[K comparable, V any] struct {
	mu    sync.Mutex
	under map[K]*flight[V]
}

type flight[V any] struct {
	done    chan struct{} // closed when value and err stand
	value   V
	err     error
	waiting int // guarded by flights.mu
	stop    context.CancelFunc
}

// do returns what work returned, for this caller or for one before it. work has
// at most timeout, and outlives the caller that began it.
func (g *flights[K, V]) do(ctx context.Context, key K, timeout time.Duration, work func(context.Context) (V, error)) (V, error) {
	f := g.join(ctx, key, timeout, work)
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		g.leave(key, f)
		var none V
		return none, transportFault(ctx, ctx.Err())
	}
}

func (g *flights[K, V]) join(ctx context.Context, key K, timeout time.Duration, work func(context.Context) (V, error)) *flight[V] {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f := g.under[key]; f != nil {
		f.waiting++
		return f
	}
	if g.under == nil {
		g.under = map[K]*flight[V]{}
	}
	detached, stop := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	f := &flight[V]{done: make(chan struct{}), waiting: 1, stop: stop}
	g.under[key] = f
	go func() {
		defer stop()
		f.value, f.err = guarded(func() (V, error) { return work(detached) })
		g.mu.Lock()
		if g.under[key] == f {
			delete(g.under, key)
		}
		g.mu.Unlock()
		close(f.done)
	}()
	return f
}

// guarded makes a panic of work an error: it runs where no request of anybody's would
// take it, and ends the process.
func guarded[V any](work func() (V, error)) (value V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault(KindUnavailable, "asking panicked")
		}
	}()
	return work()
}

// leave ends a flight that nobody waits for, so that who asks next begins anew.
func (g *flights[K, V]) leave(key K, f *flight[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f.waiting--; f.waiting > 0 {
		return
	}
	f.stop()
	if g.under[key] == f {
		delete(g.under, key)
	}
}
