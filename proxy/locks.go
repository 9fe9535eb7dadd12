package proxy

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
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

// signings keeps apart what is signed in a repository until its tag is put, and what
// is deleted there: or a tag could be put for a signature that is gone. Those that sign
// do so side by side; who deletes is alone. The zero value is ready, and it is safe for
// concurrent use.
type signings struct {
	mu   sync.Mutex
	held map[string]*signing
}

// signing is how a repository is used, and by how many or waited for.
type signing struct {
	places *semaphore.Weighted // whose waiters take turns: nobody waits for ever
	users  int
}

// sign waits until nothing is deleted in a repository, or until ctx ends. leave is
// called once, when the tag is put.
func (s *signings) sign(ctx context.Context, repository string) (leave func(), err error) {
	return s.enter(ctx, repository, 1)
}

// remove waits until nobody signs in a repository nor deletes in it, or until ctx ends.
func (s *signings) remove(ctx context.Context, repository string) (leave func(), err error) {
	return s.enter(ctx, repository, maxPushing)
}

func (s *signings) enter(ctx context.Context, repository string, places int64) (leave func(), err error) {
	s.mu.Lock()
	used := s.held[repository]
	if used == nil {
		used = &signing{places: semaphore.NewWeighted(maxPushing)}
		if s.held == nil {
			s.held = make(map[string]*signing)
		}
		s.held[repository] = used
	}
	used.users++
	s.mu.Unlock()
	if err := used.places.Acquire(ctx, places); err != nil {
		s.left(repository, used)
		return nil, context.Cause(ctx)
	}
	return func() { used.places.Release(places); s.left(repository, used) }, nil
}

func (s *signings) left(repository string, used *signing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if used.users--; used.users == 0 {
		delete(s.held, repository)
	}
}
