package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"runtime/debug"
	"time"
)

// Bounds of what transfers hold in memory.
const (
	// keptChunks is how many chunks stay in the window after they were hashed:
	// for readers that are a little behind, and because the end that is held back
	// may begin in the last but one.
	keptChunks = 2
	// maxDeferred is how many hashed chunks of one transfer wait to be written,
	// so that the readers of what is not large have it before the medium has.
	maxDeferred = 8
	// maxDeferredTotal is how many of all transfers do.
	maxDeferredTotal = 64
	// yieldTime is how long what has arrived whole waits to be written while
	// others arrive.
	yieldTime = 20 * time.Millisecond
	// laggardPatience is how long what cannot be written to the medium waits for
	// a reader that does not come on, before that one is left behind.
	laggardPatience = 10 * time.Second
)

// chunk is one chunk of content in memory. Its length grows while it is filled,
// under the transfer's mutex; bytes below the length do not change.
type chunk struct {
	index int64
	data  []byte // with room for the whole chunk
	refs  int    // the window's, and of each reader that is handing it out
	free  func()
}

func (c *chunk) start() int64 { return c.index * chunkSize }

func (c *chunk) end() int64 { return c.start() + int64(len(c.data)) }

// feed is what a pass reads from.
type feed interface {
	// read returns at least one byte, or an error; io.EOF at the end of the
	// content.
	read(ctx context.Context, p []byte) (int, error)

	// size returns the content's size, -1 when it is not known yet.
	size() int64
}

// pass moves content from a feed to the readers and the medium. judge is told
// what all of it hashed to, before the last of it is written, and says whether
// that is right. Reading, hashing and writing are each one goroutine's.
func (t *transfer) pass(ctx context.Context, from feed, judge func(sum key) error) error {
	full, hashed := make(chan *chunk, 1), make(chan *chunk)
	var sum key
	var deferred []*chunk
	digesting := t.work(full, func() { sum, deferred = t.digest(full, hashed) })
	writing := t.work(hashed, func() {
		for c := range hashed {
			t.write(c)
			t.settle(ctx, c)
		}
	})
	err := t.guard(func() error { return t.fill(ctx, from, full) })
	close(full)
	err = cmp.Or(<-digesting, err)
	if err == nil {
		err = t.guard(func() error { return judge(sum) })
	}
	t.store.deferred.Add(-int64(len(deferred)))
	if err == nil {
		for _, c := range deferred {
			hashed <- c
		}
	}
	close(hashed)
	return cmp.Or(<-writing, err)
}

// work runs f, which takes chunks from its channel, in a goroutine, and yields
// its end. A panic, which there is no reason for, ends the transfer and keeps
// nobody waiting.
func (t *transfer) work(from <-chan *chunk, f func()) <-chan error {
	ended := make(chan error, 1)
	go func() {
		err := t.guard(func() error { f(); return nil })
		if err != nil {
			t.stop(err)
			for range from {
			}
		}
		ended <- err
	}()
	return ended
}

// guard makes a panic of f an error, to be told to those who read.
func (t *transfer) guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.store.log.Error("transfer panicked", "digest", t.key.String(), "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("store: transfer of %s: panic: %v", t.key, p)
		}
	}()
	return f()
}

// fill reads chunk after chunk, publishes bytes as they come, and passes whole
// chunks on.
func (t *transfer) fill(ctx context.Context, from feed, full chan<- *chunk) error {
	var c *chunk
	for {
		if c == nil {
			c = t.grow(from.size())
		}
		n, err := from.read(ctx, c.data[len(c.data):cap(c.data)])
		if n > 0 {
			t.publish(c, n, from.size())
		}
		if len(c.data) == chunkSize || err == io.EOF && len(c.data) > 0 {
			select {
			case full <- c:
				c = nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// grow adds an empty chunk to the window.
func (t *transfer) grow(total int64) *chunk {
	room := int64(chunkSize)
	if total >= 0 {
		room = min(room-1, max(total-t.published, 0)) + 1 // too much must be seen, too
	}
	data, free := t.store.buffers.get(room)
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &chunk{index: t.published / chunkSize, data: data[:0], refs: 1, free: free}
	t.window = append(t.window, c)
	return c
}

// publish tells readers of n bytes more in c.
func (t *transfer) publish(c *chunk, n int, total int64) {
	t.mu.Lock()
	c.data = c.data[:len(c.data)+n]
	t.published += int64(n)
	t.total = total
	spent := t.readers == 0 && t.published-t.mark > t.store.limits.abandonedBytes
	t.wake()
	t.mu.Unlock()
	if spent {
		t.store.expire(t)
	}
}

// digest hashes and tags chunks in their order and hands them on to be written,
// late. It returns the digest of all, and what it has not handed on.
func (t *transfer) digest(full <-chan *chunk, hashed chan<- *chunk) (sum key, deferred []*chunk) {
	h := sha256.New()
	for c := range full {
		h.Write(c.data)
		t.know(c)
		deferred = append(deferred, c)
		for total := t.store.deferred.Add(1); len(deferred) > maxDeferred || len(deferred) > 0 && total > maxDeferredTotal; {
			hashed <- deferred[0]
			deferred = deferred[1:]
			total = t.store.deferred.Add(-1)
		}
	}
	h.Sum(sum[:0])
	return sum, deferred
}

// know tags a chunk, the one after those that are tagged.
func (t *transfer) know(c *chunk) {
	tags := appendTags(t.tags, t.key, c.data) // which only this goroutine changes
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tags = tags
}

// write writes a chunk to the draft.
func (t *transfer) write(c *chunk) {
	t.begin()
	d := t.draft // which only this goroutine and the end of the transfer change
	if d == nil {
		return
	}
	if _, err := d.Write(c.data); err != nil {
		t.lose(err)
		d.discard()
	}
}

// begin begins the draft, when there is something to write to it.
func (t *transfer) begin() {
	if t.held != nil || t.draft != nil || t.lost != nil {
		return
	}
	d, err := t.store.shelf.draft(t.key, t.announced)
	if err != nil {
		t.lose(err)
		return
	}
	t.update(func() { t.draft, t.medium = d, d })
}

// lose gives up on keeping what arrives: it passes through memory alone, and
// nobody joins any more, since the beginning will be gone.
func (t *transfer) lose(why error) {
	t.complain(why)
	t.store.retire(t)
	t.update(func() {
		t.draft, t.lost = nil, why
		t.heed()
	})
}

// kept reports whether the chunk in hand can be read back, now or later. The
// mutex is held.
func (t *transfer) kept() bool { return t.held != nil || t.lost == nil }

// settle lets go of chunks that readers can read back, up to c, which was
// written. While there is nowhere to read them back from, it waits for the
// readers, which slows the transfer down to their pace; when all has come there
// is nothing to slow down, and the window stays for as long as they read.
func (t *transfer) settle(ctx context.Context, c *chunk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.kept() {
		t.readable = c.end()
	}
	var patience <-chan time.Time
	for len(t.window) > 0 && t.window[0].index+keptChunks <= c.index {
		if t.kept() || !t.behind(t.window[0].end()) {
			t.shift()
			continue
		}
		if t.phase == complete {
			return
		}
		if patience == nil {
			timer := time.NewTimer(t.store.limits.patience)
			defer timer.Stop()
			patience = timer.C
		}
		changed := t.watch()
		t.mu.Unlock()
		late := false
		select {
		case <-changed:
		case <-patience:
			late = true
		case <-ctx.Done():
			late = true
		}
		t.mu.Lock()
		if late {
			t.leaveBehind(t.window[0].end())
			t.shift()
		}
	}
}

// behind reports whether a reader may have bytes before offset that it has not
// taken, or has joined and may be about to. Who waits for the digest to hold is not
// waited for. The mutex is held.
func (t *transfer) behind(offset int64) bool {
	if t.coming > 0 {
		return true
	}
	for f := range t.followers {
		if f.offset < offset && f.offset < f.part.free(t.published, f.total()) {
			return true
		}
	}
	return false
}

// leaveBehind gives up on the readers that want bytes before offset, and on those
// that have not come: they go on alone, and nobody waits for them again. The mutex
// is held.
func (t *transfer) leaveBehind(offset int64) {
	for f := range t.followers {
		if f.offset < offset {
			f.left = true
			delete(t.followers, f)
		}
	}
	t.coming = 0
	t.heed()
}

// shift takes the oldest chunk from the window. The mutex is held.
func (t *transfer) shift() {
	t.release(t.window[0])
	t.window[0] = nil
	t.window = t.window[1:]
}

// release undoes one reference to a chunk. The mutex is held.
func (t *transfer) release(c *chunk) {
	c.refs--
	if c.refs == 0 {
		c.free()
	}
}

// at returns the chunk in the window that holds the byte at offset, or nil.
func (t *transfer) at(offset int64) *chunk {
	for _, c := range t.window {
		if c.start() <= offset && offset < c.end() {
			return c
		}
	}
	return nil
}
