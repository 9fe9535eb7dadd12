package store

import (
	"context"
	"io"
	"sync"
	"time"
)

// phase is how far a transfer has come. It only grows.
type phase int

const (
	queued   phase = iota // waits for its turn
	opening               // asks the upstream
	arriving              // bytes come; readers may be there
	complete              // the digest held
	failed                // err says why
)

// transfer is one pass over a content in which it is hashed, for all who read it
// meanwhile, in goroutines of its own: as it arrives from its origin, or, with
// held set, as it lies on the shelf and this process has not seen it yet.
//
// Bytes are published to readers as soon as they are there, before they are
// hashed. Readers near the front take them from memory, from the window of
// latest chunks; others read them back from the medium and compare the tags that
// were made of the very bytes that were hashed. The end is handed out when the
// digest holds, so nobody needs to hash again.
//
// The store's mutex guards membership (who may still join), the transfer's own
// mutex all else; the store's is taken first.
type transfer struct {
	store *Store
	owner string
	key   key
	from  origin  // nil with held
	held  content // nil with from
	stop  context.CancelCauseFunc
	ready chan struct{} // closed when the phase has left opening
	ended chan struct{} // closed when the goroutines have ended

	mu        sync.Mutex
	phase     phase
	err       error
	total     int64 // -1 as long as it is unknown
	announced int64 // total before anything came
	published int64
	window    []*chunk // the latest chunks, consecutive; the last may still grow
	tags      []tag    // of the blocks that are hashed
	readable  int64    // up to where they can be read back
	medium    medium   // where chunks can be read back; nil before there is one
	draft     draft    // medium, while what arrives is kept; nil before, and otherwise
	lost      error    // why it is not kept
	changed   chan struct{}

	followers map[*follower]struct{}
	readers   int
	coming    int  // of the readers, those that may still become followers
	ending    bool // it was told to end, since what comes is for nobody
	done      bool // the goroutines have ended
	abandoned time.Time
	mark      int64 // published when the last reader left
	timer     *time.Timer
}

// medium is where a transfer's chunks can be read back.
type medium interface {
	io.ReaderAt
	io.Closer
}

func newTransfer(s *Store, owner string, k key, total int64) (*transfer, context.Context) {
	// The transfer belongs to nobody's request, so it has no caller's context
	// above it.
	ctx, stop := context.WithCancelCause(context.Background())
	return &transfer{
		store: s, owner: owner, key: k, stop: stop, total: total,
		ready: make(chan struct{}), ended: make(chan struct{}),
		followers: make(map[*follower]struct{}),
	}, ctx
}

func (t *transfer) flight() flight { return flight{t.owner, t.key, t.held != nil} }

// watch returns a channel that is closed at the next change. The mutex is held.
func (t *transfer) watch() <-chan struct{} {
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.changed
}

// wake tells all who watch of a change. The mutex is held.
func (t *transfer) wake() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// update changes the transfer under its mutex and wakes all who watch.
func (t *transfer) update(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.phase
	change()
	if before <= opening && t.phase > opening {
		close(t.ready)
	}
	t.wake()
}

// run is the transfer's goroutine. A panic, which could only come from the
// origin, fails this transfer and not the process.
func (t *transfer) run(ctx context.Context) {
	defer t.store.running.Done()
	t.finish(t.guard(func() error {
		if t.held != nil {
			return t.look(ctx)
		}
		return t.fetch(ctx)
	}))
}

// fetch brings the content from its origin. It returns nil when that has
// arrived, whole and right; whether it could be kept is no reader's concern.
func (t *transfer) fetch(ctx context.Context) error {
	release, err := t.store.acquire(ctx, t)
	if err != nil {
		return err
	}
	defer release()
	if t.store.holds(t.key) {
		return errHeld
	}
	up := newStream(t.key, t.from, t.total, 0)
	defer up.close()
	if err := up.open(ctx); err != nil {
		return err
	}
	if !t.store.shelf.takes(up.total) {
		return errDiverted
	}
	t.update(func() { t.phase, t.total, t.announced = arriving, up.total, up.total })
	t.store.busy.Add(1)
	idle := sync.OnceFunc(func() { t.store.busy.Add(-1) })
	defer idle()
	err = t.pass(ctx, up, func(got key) error {
		if got != t.key {
			return &MismatchError{Digest: t.key.digest(), Got: got.digest(), Size: t.total, Length: t.published}
		}
		idle()
		t.update(func() { t.phase, t.total = complete, t.published })
		t.yield(ctx)
		return nil
	})
	if err != nil {
		return err
	}
	t.keep()
	return nil
}

// yield leaves the processor for a moment to what others wait for: what this one
// has left to do, nobody does.
func (t *transfer) yield(ctx context.Context) {
	if t.store.busy.Load() == 0 {
		return
	}
	timer := time.NewTimer(yieldTime)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// keep makes what has arrived visible, unless it could not be written.
func (t *transfer) keep() {
	t.begin() // what is empty has no chunk
	d := t.draft
	if d == nil {
		return
	}
	id, err := d.commit()
	if err != nil {
		t.store.log.Warn("content could not be kept", "digest", t.key.String(), "error", err)
		t.update(func() { t.lost = err })
		return
	}
	t.seal(id)
}

// seal lets what has been hashed be known again.
func (t *transfer) seal(id identity) {
	if t.total > holdBack {
		t.store.seals.set(t.key, id, t.total, t.tags)
	}
}

func (t *transfer) complain(why error) {
	if why != errFull {
		t.store.log.Warn("content cannot be kept and is passed through", "digest", t.key.String(), "error", why)
	}
}

// finish settles the transfer: nobody joins it any more, and what did not
// arrive whole leaves nothing behind.
func (t *transfer) finish(err error) {
	t.store.retire(t)
	t.store.forget(t)
	t.update(func() {
		if err != nil {
			t.phase, t.err = failed, err
			if t.draft != nil {
				t.draft.discard()
			}
		}
		t.done = true
		if t.timer != nil {
			t.timer.Stop()
		}
		t.closeUnused()
	})
	t.stop(nil)
	close(t.ended)
}

// leave is called once by each reader that joined.
func (t *transfer) leave() {
	last, useless := false, false
	t.mu.Lock()
	t.readers--
	if t.readers == 0 && !t.done && t.phase < complete {
		last = true
		t.mark = t.published
		t.abandoned = time.Now()
		t.timer = time.AfterFunc(t.store.limits.abandonedTime, func() { t.store.expire(t) })
		// What is not kept is of use to nobody, and a look that has not begun costs
		// nothing to begin again.
		useless = t.lost != nil || t.held != nil && t.phase < arriving
	}
	t.closeUnused()
	t.mu.Unlock()
	switch {
	case last && useless:
		t.store.expire(t)
	case last:
		t.store.unwanted(t)
	}
}

// turnBack is leave for who has joined and does not follow.
func (t *transfer) turnBack() {
	t.mu.Lock()
	t.came()
	t.mu.Unlock()
	t.leave()
}

// came hears that a reader that joined follows now, or never will. The mutex is
// held.
func (t *transfer) came() {
	t.coming = max(t.coming-1, 0)
	t.heed()
}

// heed is told that fewer want what comes. When it is not kept, somebody may wait
// for that; and when nobody wants it, there is no use in going on. The mutex is
// held.
func (t *transfer) heed() {
	if t.kept() {
		return
	}
	t.wake()
	if t.phase < complete && len(t.followers) == 0 && t.coming == 0 {
		t.ending = true
		t.stop(errDiverted)
	}
}

// closeUnused lets go of what neither the goroutines nor a reader need any more.
func (t *transfer) closeUnused() {
	if !t.done || t.readers > 0 {
		return
	}
	for len(t.window) > 0 {
		t.shift()
	}
	if t.medium != nil {
		t.medium.Close()
		t.medium, t.draft = nil, nil
	}
}

// opened waits until bytes may be read, and returns why not otherwise.
func (t *transfer) opened(ctx context.Context) error {
	select {
	case <-t.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.phase == failed {
		return t.err
	}
	return nil
}
