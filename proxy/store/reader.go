package store

import (
	"context"
	"io"
	"sync"
)

// source yields the bytes of a span, in order. It hands out the end of the span
// only when the whole content has been hashed to its digest by this process.
type source interface {
	// next blocks until there are bytes, at least one, the span's end (io.EOF),
	// or an error. The bytes are the source's; they stay as they are until the
	// next call of next or close.
	next(ctx context.Context) ([]byte, error)

	// close lets go of what the source holds. No next runs then.
	close()
}

// reader hands out what a source yields.
//
// Read and WriteTo belong to one goroutine; Close may be called from any and
// ends one that waits for content.
type reader struct {
	next   func() ([]byte, error) // src.next under the context of the call that opened the reader
	cancel context.CancelFunc
	over   func() error // why there is no use in reading on
	held   bool

	mu    sync.Mutex
	src   source // nil when nothing more is to be read
	piece []byte // yielded, and not handed out
	err   error  // what comes after the piece
}

// newReader takes ownership of src, which is read under ctx. cancel ends ctx.
// held says that the content was there before it was asked for.
func newReader(ctx context.Context, cancel context.CancelFunc, src source, held bool) *reader {
	return &reader{
		next:   func() ([]byte, error) { return src.next(ctx) },
		over:   func() error { return context.Cause(ctx) },
		cancel: cancel,
		src:    src,
		held:   held,
	}
}

// verifiedReader returns a reader of a span of data, which has hashed to its
// digest.
func verifiedReader(data []byte, part span) *reader {
	stop := part.stop(int64(len(data)))
	first := min(max(part.first, 0), stop)
	return &reader{
		piece: data[first:stop], err: io.EOF, held: true,
		over:   func() error { return nil },
		cancel: func() {},
	}
}

// Held reports whether the content was there before it was asked for.
func (r *reader) Held() bool { return r.held }

// Read implements io.Reader. After an error that is not io.EOF what has been
// handed out must be thrown away: the content is not what it was asked for.
func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.piece)
	r.piece = r.piece[n:]
	return n, nil
}

// WriteTo implements io.WriterTo, without another copy of the bytes.
func (r *reader) WriteTo(w io.Writer) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var written int64
	for {
		if err := r.fill(); err == io.EOF {
			return written, nil
		} else if err != nil {
			return written, err
		}
		n, err := w.Write(r.piece)
		written += int64(n)
		r.piece = r.piece[n:]
		if err != nil {
			return written, err
		}
	}
}

// fill makes sure that there is a piece, or returns why there is none.
func (r *reader) fill() error {
	if len(r.piece) > 0 {
		return nil
	}
	if r.err != nil {
		return r.err
	}
	if err := r.over(); err != nil {
		return r.end(err)
	}
	piece, err := r.next()
	if err != nil {
		return r.end(err)
	}
	r.piece = piece
	return nil
}

// end makes err all that is left to read.
func (r *reader) end(err error) error {
	r.piece, r.err = nil, err
	if r.src != nil {
		r.src.close()
		r.src = nil
	}
	return err
}

// Close implements io.Closer. It never fails and stops nobody else.
func (r *reader) Close() error {
	r.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(ErrClosed)
	return nil
}
