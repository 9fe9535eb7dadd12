package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"runtime/debug"
	"sync"
	"time"
)

// phase is how far a transfer has come. It only grows.
type phase int

const (
	queued   phase = iota // waits for its turn
	opening               // asks the upstream
	arriving              // bytes come; readers may be there
	complete              // the digest held; being committed
	failed                // err says why
)

// transfer brings one content into the store, for all who want it, in a
// goroutine of its own. Bytes are published to readers as soon as they are
// written and before they are hashed: each reader hashes them itself.
//
// The store's mutex guards membership (who may still join), the transfer's own
// mutex all else; the store's is taken first.
type transfer struct {
	store *Store
	owner string
	key   key
	from  origin
	stop  context.CancelCauseFunc
	ready chan struct{} // closed when the phase has left opening

	mu      sync.Mutex
	phase   phase
	err     error
	draft   draft
	total   int64 // -1 as long as it is unknown
	written int64
	changed chan struct{} // nil unless somebody waits

	readers   int
	done      bool // the goroutine has ended
	abandoned time.Time
	mark      int64 // written when the last reader left
	timer     *time.Timer
}

// progress is one consistent view of a transfer.
type progress struct {
	phase   phase
	err     error
	total   int64
	written int64
}

func (t *transfer) flight() flight { return flight{t.owner, t.key} }

// watch returns the progress and a channel that is closed when there is more.
func (t *transfer) watch() (progress, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.progress(), t.changed
}

func (t *transfer) progress() progress {
	return progress{phase: t.phase, err: t.err, total: t.total, written: t.written}
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
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// run is the transfer's goroutine. A panic, which could only come from the
// origin, fails this transfer and not the process.
func (t *transfer) run(ctx context.Context) {
	defer t.store.running.Done()
	err := func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("store: transfer of %s: panic: %v", t.key, p)
				t.store.log.Error("transfer panicked", "digest", t.key.String(), "panic", p, "stack", string(debug.Stack()))
			}
		}()
		return t.carry(ctx)
	}()
	t.finish(err)
}

// carry does the work of run and returns nil when the content has arrived,
// whole and right. Whether it could be committed is no reader's concern.
func (t *transfer) carry(ctx context.Context) error {
	if err := t.store.acquire(ctx, t); err != nil {
		return err
	}
	defer t.store.releaseSlot()
	if t.store.holds(t.key) {
		return errHeld
	}
	d, err := t.store.shelf.draft(t.key, t.total)
	if err != nil {
		return t.divert(err)
	}
	t.update(func() { t.draft = d })
	up := newStream(t.key, t.from, t.total, 0)
	defer up.close()
	if err := up.open(ctx); err != nil {
		return err
	}
	if !t.store.shelf.takes(up.total) {
		return t.divert(errFull)
	}
	t.update(func() { t.phase, t.total = arriving, up.total })
	return t.copy(ctx, up)
}

// copy moves the content from the stream to the draft and commits it.
func (t *transfer) copy(ctx context.Context, up *stream) error {
	buf, free := t.store.buffer(up.total)
	defer free()
	h := sha256.New()
	for {
		n, err := up.read(ctx, buf)
		if n > 0 {
			if _, err := t.draft.Write(buf[:n]); err != nil {
				return t.divert(err)
			}
			t.publish(int64(n), up.total)
			h.Write(buf[:n])
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := t.check(h); err != nil {
		return err
	}
	t.update(func() { t.phase, t.total = complete, t.written })
	if err := t.draft.commit(); err != nil {
		t.store.log.Warn("content could not be kept", "digest", t.key.String(), "error", err)
	}
	return nil
}

// publish tells readers of n bytes more.
func (t *transfer) publish(n, total int64) {
	spent := false
	t.update(func() {
		t.written += n
		t.total = total
		spent = t.readers == 0 && t.written-t.mark > t.store.limits.abandonedBytes
	})
	if spent {
		t.store.expire(t)
	}
}

// check compares what was hashed with the digest.
func (t *transfer) check(h hash.Hash) error {
	var got key
	h.Sum(got[:0])
	if got != t.key {
		return &MismatchError{Digest: t.key.digest(), Got: got.digest(), Size: t.total, Length: t.written}
	}
	return nil
}

// divert is the error that makes each reader go on with a transfer of its own,
// because this one cannot be kept.
func (t *transfer) divert(why error) error {
	if why != errFull {
		t.store.log.Warn("content cannot be kept and is passed through", "digest", t.key.String(), "error", why)
	}
	return errDiverted
}

// finish settles the transfer: nobody joins it any more, and what did not
// arrive whole leaves nothing behind.
func (t *transfer) finish(err error) {
	t.store.retire(t)
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
}

// leave is called once by each reader that joined.
func (t *transfer) leave() {
	last := false
	t.mu.Lock()
	t.readers--
	if t.readers == 0 && !t.done && t.phase < complete {
		last = true
		t.mark = t.written
		t.abandoned = time.Now()
		t.timer = time.AfterFunc(t.store.limits.abandonedTime, func() { t.store.expire(t) })
	}
	t.closeUnused()
	t.mu.Unlock()
	if last {
		t.store.unwanted(t)
	}
}

// closeUnused closes the draft when neither the goroutine nor a reader needs
// it any more.
func (t *transfer) closeUnused() {
	if t.done && t.readers == 0 && t.draft != nil {
		t.draft.Close()
		t.draft = nil
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
