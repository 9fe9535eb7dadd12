package proxy

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// maxLeft is how much of one kind goes on though nobody waits for it any more. Clients
// that leave tend to come back; but they may ask for anything, and an upstream that
// hangs would have all of it go on until its time is up.
const maxLeft = 128

// flights are what runs once for several callers. The zero value is ready.
type flights struct {
	mu    sync.Mutex
	under map[string]*flying
	left  int // of them, those that nobody waits for
}

type flying struct {
	done    chan struct{} // closed when value and err stand
	value   any
	err     error
	waiting int
	over    bool // it has ended, or was told to
	end     context.CancelFunc
}

// flight runs f once for all callers that come with the same key while it
// runs. f gets a context of its own, bounded by limit: a caller that leaves
// takes nothing from the others, and where the last one leaves f goes on within
// maxLeft. A panic in f is an error to all of them: what was being decided is not
// served, and the process lives.
func flight[T any](ctx context.Context, group *flights, key string, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	var zero T
	x := group.join(ctx, key, limit, func(ctx context.Context) (any, error) { return guarded(ctx, f) })
	select {
	case <-ctx.Done():
		group.leave(key, x)
		return zero, context.Cause(ctx)
	case <-x.done:
		if x.err != nil {
			return zero, x.err
		}
		return x.value.(T), nil
	}
}

// join returns what runs under key, and runs f when nothing does.
func (g *flights) join(ctx context.Context, key string, limit time.Duration, f func(context.Context) (any, error)) *flying {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x := g.under[key]; x != nil {
		if x.waiting == 0 {
			g.left--
		}
		x.waiting++
		return x
	}
	if g.under == nil {
		g.under = make(map[string]*flying)
	}
	ctx, end := context.WithTimeout(context.WithoutCancel(ctx), limit)
	x := &flying{done: make(chan struct{}), waiting: 1, end: end}
	g.under[key] = x
	go func() {
		defer end()
		x.value, x.err = f(ctx)
		g.land(key, x)
		close(x.done)
	}()
	return x
}

// land notes that x has ended.
func (g *flights) land(key string, x *flying) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x.over {
		return // and forgotten
	}
	x.over = true
	delete(g.under, key)
	if x.waiting == 0 {
		g.left--
	}
}

// leave is for a caller that does not wait any longer.
func (g *flights) leave(key string, x *flying) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x.waiting--
	switch {
	case x.waiting > 0 || x.over:
	case g.left < maxLeft:
		g.left++
	default:
		x.over = true
		delete(g.under, key)
		x.end()
	}
}

func guarded[T any](ctx context.Context, f func(context.Context) (T, error)) (result T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return f(ctx)
}
