package store

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"sync"
)

// source yields content in order, unverified.
type source interface {
	// read blocks until there is at least one byte, the content's end
	// (io.EOF), or an error.
	read(ctx context.Context, p []byte) (int, error)

	// size returns the content's size, -1 when it is not known yet.
	size() int64

	// mismatch is told what the content hashed to and returns the error for
	// it. got is meaningless when length exceeds the size.
	mismatch(got key, length int64) error

	// close lets go of what the source holds. No read runs then.
	close()
}

// reader hashes every byte that it hands out, and hands out the last of them
// only when the whole content has hashed to its digest.
//
// Read belongs to one goroutine; Close may be called from any and ends a Read
// that waits.
type reader struct {
	key    key
	next   func(p []byte) (int, error) // src.read under the context of the call that opened the reader
	cancel context.CancelFunc
	over   func() error // why there is no use in reading on

	mu       sync.Mutex
	src      source // nil when nothing more is to be read
	hash     hash.Hash
	received int64
	window   []byte // received, and not handed out
	room     []byte // what window is a part of
	verified bool
	err      error // what comes after the window
}

// newReader takes ownership of src, which is read under ctx. cancel ends ctx.
func newReader(ctx context.Context, cancel context.CancelFunc, k key, src source) *reader {
	return &reader{
		key:    k,
		next:   func(p []byte) (int, error) { return src.read(ctx, p) },
		over:   func() error { return context.Cause(ctx) },
		cancel: cancel,
		src:    src,
		hash:   sha256.New(),
	}
}

// verifiedReader returns a reader of data, which has hashed to its digest.
func verifiedReader(data []byte) *reader {
	return &reader{
		window: data, verified: true, err: io.EOF,
		over:   func() error { return nil },
		cancel: func() {},
	}
}

// Read implements io.Reader. After an error that is not io.EOF what has been
// handed out must be thrown away: the content is not what it was asked for.
func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if n := r.handOut(p); n > 0 {
			return n, nil
		}
		if r.err != nil {
			return 0, r.err
		}
		if err := r.over(); err != nil {
			return 0, r.end(err)
		}
		if n := r.pass(p); n > 0 {
			return n, nil
		}
	}
}

// handOut copies what may be seen from the window.
func (r *reader) handOut(p []byte) int {
	free := len(r.window)
	if !r.verified {
		free -= holdBack
	}
	if free <= 0 {
		return 0
	}
	n := copy(p, r.window[:free])
	r.window = r.window[n:]
	return n
}

// pass receives more: straight into p as long as the end is known to be far,
// and into the window otherwise.
func (r *reader) pass(p []byte) int {
	total := r.src.size()
	if far := total - holdBack - r.received; total >= 0 && far > 0 && len(r.window) == 0 {
		return r.receive(p[:min(int64(len(p)), far)])
	}
	r.makeRoom(total)
	used := len(r.window)
	if used == len(r.room) {
		r.end(r.src.mismatch(r.sum(), r.received)) // there is more than the size
		return 0
	}
	n := r.receive(r.room[used:])
	if r.err == nil || r.verified {
		r.window = r.room[:used+n]
	}
	return 0
}

// makeRoom gets the window a place to grow: of the end's size and one byte,
// so that too much is noticed, or a sliding one when the size is not known.
func (r *reader) makeRoom(total int64) {
	if r.room == nil {
		size := int64(2 * holdBack)
		if total >= 0 {
			size = max(total-r.received, 0) + 1
		}
		r.room = make([]byte, size)
	}
	copy(r.room, r.window)
	r.window = r.room[:len(r.window)]
}

// receive reads and hashes. It settles the reader when the content ends.
func (r *reader) receive(p []byte) int {
	n, err := r.next(p)
	r.hash.Write(p[:n])
	r.received += int64(n)
	switch {
	case err == nil:
	case err == io.EOF:
		if got := r.sum(); got != r.key {
			r.end(r.src.mismatch(got, r.received))
			return 0
		}
		r.verified = true
		r.finish(io.EOF)
	default:
		r.end(err)
		return 0
	}
	return n
}

func (r *reader) sum() (got key) {
	r.hash.Sum(got[:0])
	return got
}

// end makes err all that is left to read.
func (r *reader) end(err error) error {
	r.window, r.room, r.verified = nil, nil, false
	r.finish(err)
	return err
}

func (r *reader) finish(err error) {
	r.err = err
	if r.src != nil {
		r.src.close()
		r.src = nil
	}
}

// Close implements io.Closer. It never fails and stops nobody else.
func (r *reader) Close() error {
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(ErrClosed)
	return nil
}
