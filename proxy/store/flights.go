package store

import (
	"context"
	"strings"
	"time"
)

// flight names a transfer: what is transferred, for whom. Transfers are not
// shared between owners, so that one owner's upstream, which may stall or lie,
// holds up nobody else.
type flight struct {
	owner string
	key   key
	look  bool // at what is held, which has no owner
}

// join returns the transfer of k for owner that is under way, if any, with the
// caller counted as one of its readers: it must call leave.
func (s *Store) join(owner string, k key) (*transfer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	t := s.flights[flight{owner: owner, key: k}]
	if t != nil {
		t.enter()
	}
	return t, nil
}

// start is join, and begins a transfer when there is none.
func (s *Store) start(owner string, k key, size int64, from origin) (*transfer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	t := s.flights[flight{owner: owner, key: k}]
	if t == nil {
		var ctx context.Context
		t, ctx = newTransfer(s, owner, k, size)
		t.from = from
		s.launch(ctx, t)
	}
	t.enter()
	return t, nil
}

// startLook is start for content that is held, of which it takes ownership: a
// transfer for everybody, since it asks nobody.
func (s *Store) startLook(k key, c content) (*transfer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		c.Close()
		return nil, ErrClosed
	}
	t := s.flights[flight{key: k, look: true}]
	if t != nil && t.held.found() == c.found() {
		c.Close()
	} else {
		var ctx context.Context
		t, ctx = newTransfer(s, "", k, c.size())
		t.held, t.medium = c, c
		s.launch(ctx, t)
	}
	t.enter()
	return t, nil
}

// launch makes t the one to join, and runs it. The mutex is held.
func (s *Store) launch(ctx context.Context, t *transfer) {
	s.flights[t.flight()] = t
	s.alive[t] = struct{}{}
	s.running.Add(1)
	go t.run(ctx)
}

// enter counts a reader, which is about to follow. The store's mutex is held, so that a transfer is
// never joined and given up at once.
func (t *transfer) enter() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.readers++
	t.coming++
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// retire makes sure that nobody joins t any more.
func (s *Store) retire(t *transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flights[t.flight()] == t {
		delete(s.flights, t.flight())
	}
}

// forget is called when t has ended.
func (s *Store) forget(t *transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.alive, t)
}

// told reports whether size is what t was told, as far as either is known: who
// was told otherwise is not made to share its fate.
func (t *transfer) told(size int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return size < 0 || t.total < 0 || t.total == size
}

// expire ends t when nobody reads it.
func (s *Store) expire(t *transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expireLocked(t)
}

func (s *Store) expireLocked(t *transfer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.readers > 0 || t.done || t.phase >= complete {
		return
	}
	if s.flights[t.flight()] == t {
		delete(s.flights, t.flight())
	}
	t.ending = true
	t.stop(errAbandoned)
}

// unwanted is called when the last reader of t left. While somebody waits for a slot
// that it may have, or holds, it ends at once; t may be that itself.
func (s *Store) unwanted(t *transfer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if share := s.shares[t.host()]; s.waiting > 0 || share != nil && share.waiting > 0 {
		s.expireLocked(t)
	}
}

// acquire waits until t may run, and returns what is called when it has: for a slot,
// of which those from one host have most at most. It displaces a transfer that nobody
// reads, and that has not been displaced already.
func (s *Store) acquire(ctx context.Context, t *transfer) (release func(), err error) {
	share := s.share(t.host())
	if err := s.take(ctx, share.places, &share.waiting, func(other *transfer) bool { return other.host() == t.host() }); err != nil {
		return nil, err
	}
	if err := s.take(ctx, s.slots, &s.waiting, func(*transfer) bool { return true }); err != nil {
		<-share.places
		return nil, err
	}
	t.update(func() { t.phase = opening })
	return func() { <-s.slots; <-share.places }, nil
}

// host is what the owner's name begins with, up to a slash.
func (t *transfer) host() string {
	host, _, _ := strings.Cut(t.owner, "/")
	return host
}

// share is how many slots transfers from one host may take.
type share struct {
	places  chan struct{}
	waiting int // for one of them; the store's mutex is held
}

func (s *Store) share(host string) *share {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := s.shares[host]
	if of == nil {
		of = &share{places: make(chan struct{}, s.limits.transfers-s.limits.transfers/4)}
		s.shares[host] = of
	}
	return of
}

// take waits for a place, which those could give back that help, and counts itself among
// those that wait.
func (s *Store) take(ctx context.Context, places chan struct{}, waiting *int, helps func(*transfer) bool) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	s.await(waiting, 1, helps)
	defer s.await(waiting, -1, helps)
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await counts who waits for a slot, and makes room for the newcomer.
func (s *Store) await(waiting *int, n int, helps func(*transfer) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*waiting += n
	if n < 0 {
		return
	}
	var longest *transfer
	var since time.Time
	for t := range s.alive {
		t.mu.Lock()
		if t.held == nil && helps(t) && t.readers == 0 && !t.ending && t.phase > queued && t.phase < complete &&
			(longest == nil || t.abandoned.Before(since)) {
			longest, since = t, t.abandoned
		}
		t.mu.Unlock()
	}
	if longest != nil {
		s.expireLocked(longest)
	}
}
