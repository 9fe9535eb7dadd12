package proxy

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"vidimus/verifier"
)

// relay streams a piece of a blob to the upstream and hashes it on the way. size is
// what the client said, or -1.
func (q *request) relay(v *view, u session, body io.Reader, size int64, ranged bool) (session, error) {
	// one piece does not outlast the upload that it is of
	ctx, cancel := context.WithTimeout(q.r.Context(), uploadKept-q.begin.Sub(u.Begun))
	defer cancel()
	h, err := u.hash()
	if err != nil {
		return u, err
	}
	tooLarge := &Error{Status: http.StatusRequestEntityTooLarge, Code: codeSizeInvalid, Message: fmt.Sprintf("a blob may have at most %d bytes", int64(maxUploadSize))}
	if size > maxUploadSize-u.Offset {
		return u, errors.Join(tooLarge, v.cancel(ctx, u))
	}
	p := &piece{source: body, hash: h, most: maxUploadSize - u.Offset}
	if missing := u.Held - u.Offset; missing > 0 {
		stop := context.AfterFunc(ctx, func() { _ = p.Close() })
		n, err := io.CopyN(io.Discard, p, missing) // the upstream has it
		stop()
		if err != nil && err != io.EOF {
			return u, interrupted(err)
		}
		if size >= 0 {
			size -= n
		}
		if n < missing || size == 0 {
			u.Offset += p.count
			u.setHash(h)
			return u, nil
		}
	}
	next, held, err := v.registered.Push.AppendUpload(ctx, v.repository, u.Location, max(u.Held, u.Offset), size, ranged, p)
	switch {
	case err != nil && p.tooLong.Load():
		return u, errors.Join(tooLarge, v.cancel(ctx, u))
	case err != nil && (p.broken.Load() || ctx.Err() != nil):
		return u, interrupted(err)
	case err != nil:
		return u, relayError(err, q.wanted())
	}
	u.Location, u.Offset = next, u.Offset+p.count
	u.Held = u.Offset
	u.setHash(h)
	// One more than there is, is what some count.
	if held >= 0 && held != u.Offset && held != u.Offset+1 {
		err := fmt.Errorf("%w: it says that it holds %d bytes of an upload of %d", errMismatch, held, u.Offset)
		return u, errors.Join(err, v.cancel(ctx, u))
	}
	return u, nil
}

// relayError is pushError for a piece that is spent: where the upstream wants to
// know anew who asks, the client has to send it again.
func relayError(err error, at wanted) error {
	if r, ok := errors.AsType[Refusal](err); ok && r.Status() == http.StatusUnauthorized {
		return unavailable("upstream "+at.place.upstream+" asked for credentials in the middle of an upload; ask for its status, and go on", time.Second, err)
	}
	return pushError(err, at)
}

// interrupted is the answer to who left, if somebody should still read it.
func interrupted(err error) *Error {
	return &Error{Status: http.StatusBadRequest, Code: codeBlobUploadInvalid, Message: "the piece broke off; ask for the status of the upload, and go on", Err: err}
}

// errTooLong ends a piece that goes beyond what a blob may have.
var errTooLong = errors.New("the blob is too large")

// piece is what comes of a blob, hashed as it passes. It belongs to who reads it,
// but for why it ended, which others may ask.
type piece struct {
	source  io.Reader
	hash    hash.Hash
	most    int64
	count   int64
	tooLong atomic.Bool
	broken  atomic.Bool // by the client
}

// Read implements io.Reader.
func (p *piece) Read(b []byte) (int, error) {
	n, err := p.source.Read(b)
	p.hash.Write(b[:n])
	p.count += int64(n)
	if p.count > p.most {
		p.tooLong.Store(true)
		return 0, errTooLong
	}
	if err != nil && err != io.EOF {
		p.broken.Store(true)
	}
	return n, err
}

// Close ends a Read under way, when the source can.
func (p *piece) Close() error {
	if closer, ok := p.source.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// body is the body of the request. The client may take patience until something of it
// comes, and in all no longer beyond that than slowestPush allows for what came: who
// sends a byte now and then does not keep its place for ever. How long the upstream
// takes does not count.
func (q *request) body(patience time.Duration) *patient {
	return &patient{source: q.r.Body, control: http.NewResponseController(q.w), patience: patience}
}

type patient struct {
	source   io.Reader
	control  *http.ResponseController
	patience time.Duration
	came     int64
	waited   time.Duration // in all
	closed   atomic.Bool
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	began := time.Now()
	left := min(p.patience, p.patience+time.Duration(p.came/slowestPush)*time.Second-p.waited)
	if err := p.control.SetReadDeadline(began.Add(left)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	if p.closed.Load() { // after the deadline was set, which would outlast that of Close
		return 0, os.ErrDeadlineExceeded
	}
	n, err := p.source.Read(b)
	p.came += int64(n)
	p.waited += time.Since(began)
	if err == io.EOF {
		// the next request of the connection has its own
		if err := p.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return n, err
		}
	}
	return n, err
}

// Close ends a Read under way, and all that come after.
func (p *patient) Close() error {
	p.closed.Store(true)
	return p.control.SetReadDeadline(time.Unix(1, 0))
}

// Bounds of what is read of a body only to be thrown away.
const (
	mostHeard    = 4 * verifier.MaxManifestSize
	hearPatience = 5 * time.Second
)

// hearOut reads what is left of a body that is too large, within reason: a client that
// listens only once it has sent everything would find the connection broken, and no
// answer. Who asks before it sends (Expect) hears the answer without that.
func (q *request) hearOut() {
	if q.r.ContentLength > verifier.MaxManifestSize+mostHeard || q.r.Header.Get("Expect") != "" {
		return
	}
	if http.NewResponseController(q.w).SetReadDeadline(time.Now().Add(hearPatience)) == nil {
		io.CopyN(io.Discard, q.r.Body, mostHeard) // what fails here is told by what follows
	}
}
