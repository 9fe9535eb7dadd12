package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// maxLocation bounds the URL of an upload. distribution's hold a sealed state of
// some hundred bytes.
const maxLocation = 4 << 10

// StartUpload begins an upload and returns where it goes on: an opaque text for
// the other methods, a path and query of the upstream's own origin. With mount it
// asks for the blob of that digest to be taken over from the repository from
// first; then mounted may be true and location is empty.
//
// It is tried again after transient failures: an upload that nobody goes on with
// is the upstream's to clear away.
func (c *Client) StartUpload(ctx context.Context, repository string, mount v1.Hash, from string) (location string, mounted bool, err error) {
	if err := checkRepository(repository); err != nil {
		return "", false, err
	}
	q := call{
		method: http.MethodPost, repository: repository, path: "blobs/uploads/", rights: pushes,
		want: []int{http.StatusAccepted},
	}
	if mount != (v1.Hash{}) {
		if err := errors.Join(checkDigest(mount), checkRepository(from)); err != nil {
			return "", false, err
		}
		q.query = url.Values{"mount": {mount.String()}, "from": {from}}.Encode()
		q.from, q.want = from, []int{http.StatusAccepted, http.StatusCreated}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Whole)
	defer cancel()
	err = c.do(ctx, q, func(response *http.Response) error {
		defer discard(response)
		if mounted = response.StatusCode == http.StatusCreated; mounted {
			return nil
		}
		location, err = c.location(repository, q.url(c.own), response.Header)
		return err
	})
	return location, mounted, c.in(q.String(), err)
}

// AppendUpload sends one piece of a blob, once: what has begun to be read cannot
// be read again. offset is how much the upstream holds already, size that of the
// piece or -1; ranged, which needs a size, says Content-Range, so that an upstream
// that holds something else refuses it. It returns where the upload goes on, and how much the upstream
// says to hold, -1 when it does not say. Who asks must know that the upstream's
// challenge can be answered (UploadStatus, StartUpload), or the piece may be
// spent on a 401.
//
// The piece takes as long as it takes, but the upstream must take some of it
// within Timeouts.Idle, and answer within Timeouts.Commit once it has all of it.
// How long body makes wait is for the caller to bound. When the request is given up
// and body is an io.Closer it is closed, which must end a Read under way: the return
// waits for that.
func (c *Client) AppendUpload(ctx context.Context, repository, location string, offset, size int64, ranged bool, body io.Reader) (next string, held int64, err error) {
	q, err := c.uploadCall(http.MethodPatch, repository, location)
	if err != nil {
		return "", 0, err
	}
	used, err := c.auth.prepare(ctx, q.need(), false)
	if err != nil {
		return "", 0, c.in(q.String(), err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(context.Canceled)
	piece := newFeed(body, c.timeouts.Idle, cancel)
	piece.size = size
	defer piece.stop()
	if closer, ok := body.(io.Closer); ok {
		defer context.AfterFunc(ctx, func() { closer.Close() })()
	}
	if ranged && size > 0 {
		q.header = http.Header{"Content-Range": {fmt.Sprintf("%d-%d", offset, offset+size-1)}}
	}
	response, err := c.append(ctx, q, piece, size, used)
	if err != nil {
		return "", 0, c.in(q.String(), err)
	}
	// Of what comes after the header little is read, and it is not waited for long.
	defer time.AfterFunc(c.timeouts.Idle, func() { cancel(fault(KindUnavailable, "the answer to a piece has no end")) }).Stop()
	defer discard(response)
	switch {
	case response.StatusCode == http.StatusUnauthorized:
		_ = c.auth.rejected(q.need(), used, response.Header) // for the next one
		e := statusFault(response, c.limits.Error)
		return "", 0, c.in(q.String(), e)
	case response.StatusCode != http.StatusAccepted && response.StatusCode != http.StatusNoContent && response.StatusCode != http.StatusCreated:
		return "", 0, c.in(q.String(), statusFault(response, c.limits.Error))
	case !piece.spent():
		return "", 0, c.in(q.String(), fault(KindMismatch, "it answers %s before it has all of the piece", statusText(response.StatusCode)))
	}
	if next, err = c.location(repository, q.at, response.Header); err != nil {
		return "", 0, c.in(q.String(), err)
	}
	return next, heldOf(response.Header), nil
}

func (c *Client) append(ctx context.Context, q call, piece *feed, size int64, used authorization) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, q.method, q.at.String(), piece)
	if err != nil {
		return nil, fault(KindMismatch, "the upload is at what is not a URL")
	}
	maps.Copy(request.Header, q.header)
	request.Header.Set("Content-Type", "application/octet-stream")
	request.ContentLength = size
	if size == 0 {
		request.Body = http.NoBody
		piece.finish()
	}
	if used.header != "" {
		request.Header.Set("Authorization", used.header)
	}
	return c.send(c.pieces, request)
}

// CommitUpload makes a blob of an upload, all of whose bytes were sent. It is not
// tried again. When it fails and the upstream turns out to hold the blob, it has
// happened all the same.
func (c *Client) CommitUpload(ctx context.Context, repository, location string, digest v1.Hash) error {
	q, err := c.uploadCall(http.MethodPut, repository, location)
	if err != nil {
		return err
	}
	if err := checkDigest(digest); err != nil {
		return err
	}
	at := *q.at
	at.RawQuery = withParameter(at.RawQuery, "digest", digest.String())
	q.at = &at
	q.want = []int{http.StatusCreated, http.StatusNoContent, http.StatusOK, http.StatusAccepted}
	q.header = http.Header{"Content-Type": {"application/octet-stream"}}
	err = c.once(ctx, q, c.timeouts.Commit, func(response *http.Response) error {
		discard(response)
		return nil
	})
	e, ok := errors.AsType[*Error](err)
	if ok && (e.kind == KindUnavailable || e.status == http.StatusNotFound) && ctx.Err() == nil && c.holds(ctx, repository, digest) {
		return nil
	}
	return err
}

// UploadStatus asks how much of an upload the upstream holds, and where it goes
// on. It matches fs.ErrNotExist when there is no such upload any more.
func (c *Client) UploadStatus(ctx context.Context, repository, location string) (next string, held int64, err error) {
	q, err := c.uploadCall(http.MethodGet, repository, location)
	if err != nil {
		return "", 0, err
	}
	q.want = []int{http.StatusNoContent, http.StatusAccepted, http.StatusOK}
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Whole)
	defer cancel()
	err = c.do(ctx, q, func(response *http.Response) error {
		defer discard(response)
		held = heldOf(response.Header)
		next, err = c.location(repository, q.at, response.Header)
		return err
	})
	return next, held, c.in(q.String(), err)
}

// CancelUpload gives an upload up. One that is gone already is no error.
func (c *Client) CancelUpload(ctx context.Context, repository, location string) error {
	q, err := c.uploadCall(http.MethodDelete, repository, location)
	if err != nil {
		return err
	}
	q.want = []int{http.StatusNoContent, http.StatusAccepted, http.StatusOK}
	err = c.once(ctx, q, c.timeouts.Whole, func(response *http.Response) error {
		discard(response)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// uploadCall is a request about the upload at location, which one of the other
// methods returned.
func (c *Client) uploadCall(method, repository, location string) (call, error) {
	if err := checkRepository(repository); err != nil {
		return call{}, err
	}
	at, err := url.Parse(location)
	if err != nil || len(location) > maxLocation || at.Scheme != "" || at.Host != "" || !strings.HasPrefix(at.Path, "/") {
		return call{}, fmt.Errorf("the place of an upload is not one: %w", fs.ErrInvalid)
	}
	at.Scheme, at.Host = c.own.scheme, c.own.authority()
	return call{method: method, repository: repository, at: at, rights: pushes}, nil
}

// location returns where an upload goes on: the Location of an answer to a request
// for u, without its origin, which must be the upstream's own. An answer without
// one leaves it where it was.
func (c *Client) location(repository string, u *url.URL, header http.Header) (string, error) {
	value := header.Get("Location")
	if value == "" && strings.HasSuffix(u.Path, "/blobs/uploads/") {
		return "", fault(KindMismatch, "it begins an upload and does not say where")
	}
	next, err := u.Parse(value)
	if err != nil || len(value) > maxLocation {
		return "", fault(KindMismatch, "the Location of an upload is not a URL")
	}
	at, err := originOf(next)
	if err != nil {
		return "", fault(KindRefused, "the Location of an upload is not followed: %v", err)
	}
	if at != c.own && !c.own.sameBehindTLS(at) {
		return "", fault(KindRefused, "the Location of an upload to %s is on %s, which is not the registry itself, and gets neither content nor credentials", repository, clip(at.String())).
			advise("it wants uploads to be sent to another host, which is not done")
	}
	next.Scheme, next.Host, next.Fragment, next.RawFragment = "", "", "", ""
	return next.String(), nil
}

// sameBehindTLS reports whether other is o as a registry names itself that does not
// know that TLS ends before it. What goes there goes to o.
func (o origin) sameBehindTLS(other origin) bool {
	return o.scheme == "https" && other.scheme == "http" && o.host == other.host &&
		(o.port == other.port || o.port == "443" && other.port == "80")
}

// withParameter adds a parameter to a query and leaves the rest as it is: it may be
// signed.
func withParameter(query, name, value string) string {
	if query != "" {
		query += "&"
	}
	return query + name + "=" + url.QueryEscape(value)
}

// heldOf reads the Range of an answer about an upload: "0-1023" for 1024 bytes.
// "0-0" is both one byte and none, as is no Range at all, and tells nothing.
func heldOf(header http.Header) int64 {
	_, last, ok := strings.Cut(strings.TrimPrefix(header.Get("Range"), "bytes="), "-")
	n, err := strconv.ParseUint(last, 10, 62)
	if !ok || err != nil || n == 0 {
		return -1
	}
	return int64(n) + 1
}

// feed is the body of a request that may take as long as its source makes it wait,
// but not as long as the upstream does.
type feed struct {
	idle   time.Duration
	cancel context.CancelCauseFunc
	timer  *time.Timer
	size   int64 // of the source; -1: not known
	came   atomic.Int64

	mu      sync.Mutex
	source  io.Reader
	done    bool // all was read
	stopped bool
}

func newFeed(source io.Reader, idle time.Duration, cancel context.CancelCauseFunc) *feed {
	f := &feed{source: source, idle: idle, cancel: cancel, size: -1}
	f.timer = time.AfterFunc(idle, func() {
		cancel(fault(KindUnavailable, "the upload stalled: nothing was taken for %s", idle))
	})
	return f
}

// Read implements io.Reader.
func (f *feed) Read(p []byte) (int, error) {
	f.timer.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return 0, io.ErrClosedPipe
	}
	if f.done { // net/http asks once more, when the answer may have been returned
		return 0, io.EOF
	}
	n, err := f.source.Read(p)
	f.came.Add(int64(n))
	switch {
	case err == io.EOF:
		f.done = true // what the upstream still takes is bounded by its answer
	case err == nil:
		f.timer.Reset(f.idle)
	}
	return n, err
}

// finish says that there is nothing to be read.
func (f *feed) finish() {
	f.timer.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = true
}

// spent reports whether all was read. What the source has written elsewhere is then
// seen by the caller.
func (f *feed) spent() bool {
	if f.came.Load() == f.size {
		// Who has all of it may answer before net/http has asked for its end.
		_, _ = f.Read(make([]byte, 1))
	}
	if !f.mu.TryLock() {
		return false // somebody still reads
	}
	defer f.mu.Unlock()
	return f.done
}

// stop makes the next Read fail.
func (f *feed) stop() {
	f.timer.Stop()
	if f.mu.TryLock() { // else a Read is under way, and the request's end ends it
		f.stopped = true
		f.mu.Unlock()
	}
}
