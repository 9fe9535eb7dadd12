package proxy

import (
	"context"
	"sync"
)

// Locks lets those take turns who write the same tag of the same repository, which
// spares them collisions. The zero value is ready, and it is safe for concurrent
// use. It implements signer.Locker.
type Locks struct {
	mu   sync.Mutex
	held map[string]*turn
}

// turn is a lock, and how many hold it or wait for it.
type turn struct {
	free    chan struct{} // holds one value while nobody holds the lock
	waiting int
}

// Lock waits until nobody else holds the lock called name, or until ctx ends. The
// function that it returns gives the lock back, and is called once.
func (l *Locks) Lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	t := l.held[name]
	if t == nil {
		t = &turn{free: make(chan struct{}, 1)}
		t.free <- struct{}{}
		if l.held == nil {
			l.held = make(map[string]*turn)
		}
		l.held[name] = t
	}
	t.waiting++
	l.mu.Unlock()
	select {
	case <-t.free:
		return func() { t.free <- struct{}{}; l.leave(name, t) }, nil
	case <-ctx.Done():
		l.leave(name, t)
		return nil, context.Cause(ctx)
	}
}

func (l *Locks) leave(name string, t *turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.waiting--; t.waiting == 0 {
		delete(l.held, name)
	}
}

// tagLock is the name of the lock for a tag of a canonical repository: what
// signer.Signer calls it, too.
func tagLock(repository, tag string) string { return repository + "/" + tag }
