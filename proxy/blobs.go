package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
)

// copyBuffer is the size of the pieces in which a blob is sent; one is held
// back until the blob's digest held.
const copyBuffer = 128 << 10

// writePatience is how long a client may take for one piece.
const writePatience = 2 * time.Minute

var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// serveBlob answers GET and HEAD for a blob that an allowed manifest of the
// repository references.
func (q *request) serveBlob(v *view) error {
	ctx, a := q.r.Context(), q.asker()
	desc, d, err := v.admitBlob(ctx, q.route.digest, a)
	if err != nil {
		return err
	}
	q.decided(d)
	etag := `"` + desc.Digest.String() + `"`
	known := matches(q.r.Header.Values("If-None-Match"), etag)
	if known || q.r.Method == http.MethodHead {
		return q.headBlob(ctx, v, etag, desc, known)
	}
	span, err := q.span(etag, desc.Size)
	if err != nil {
		return err
	}
	content, from, err := v.openBlob(ctx, desc)
	if err != nil {
		return err
	}
	defer content.Close()
	return q.sendBlob(content, span, etag, desc, from)
}

// admitBlob returns the descriptor by which a served manifest of the
// repository reaches digest, and the decision about that manifest. Without one
// its error is what a client is told.
func (v *view) admitBlob(ctx context.Context, digest v1.Hash, a asker) (v1.Descriptor, policy.Decision, error) {
	if e, ok := v.edge(digest); ok {
		return e.desc, e.decision.decision, nil
	}
	if v.Gate.Revoked(digest) {
		d, err := v.decide(ctx, &manifest{digest: digest}, "", a)
		if err == nil {
			err = denied(d, a.image)
		}
		return v1.Descriptor{}, d, err
	}
	_, parents, err := v.proxy.index.Known(ctx, v.name, digest)
	if err != nil {
		return v1.Descriptor{}, policy.Decision{}, fmt.Errorf("read the index: %w", err)
	}
	var undecidedErr error
	for _, parent := range parents {
		m, err := v.byDigest(ctx, parent)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				undecidedErr = err
			}
			continue
		}
		desc, ok := m.reaches(digest)
		if !ok || m.index { // what an index lists are manifests
			continue
		}
		d, err := v.gate(ctx, m, "", a)
		if d.Served() {
			v.keepEdge(desc, d)
			return desc, d, nil
		}
		if err != nil {
			undecidedErr = err
		}
	}
	if undecidedErr != nil {
		return v1.Descriptor{}, policy.Decision{}, undecidedErr
	}
	return v1.Descriptor{}, policy.Decision{}, unreachableBlob()
}

// openBlob opens a blob for this repository: from the store when this
// repository's upstream delivered it or confirms it now, else from that
// upstream, through the store.
//
// Content of another size than the manifest says is read to its end, to tell
// content that rotted, which the store then removes, from a manifest that lies.
func (v *view) openBlob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, transferSource, error) {
	for range 2 {
		content, size, from, err := v.openContent(ctx, desc)
		if err != nil || size < 0 || size == desc.Size {
			return content, from, err
		}
		_, err = io.Copy(io.Discard, content)
		content.Close()
		if err == nil {
			return nil, "", fmt.Errorf("blob %s of %s: %w: the manifest says %d bytes, the content has %d", desc.Digest, v.name, errMismatch, desc.Size, size)
		}
		v.proxy.logger.Warn("held content is not what it was", "digest", desc.Digest.String(), "err", err)
	}
	return nil, "", fmt.Errorf("blob %s of %s: the store holds other content", desc.Digest, v.name)
}

// openContent is one attempt of openBlob.
func (v *view) openContent(ctx context.Context, desc v1.Descriptor) (content io.ReadCloser, size int64, from transferSource, err error) {
	from = fromCache
	content, size, err = v.proxy.store.Open(ctx, desc.Digest)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			v.proxy.logger.Warn("cannot read the store", "digest", desc.Digest.String(), "err", err)
		}
		from = fromUpstream
		content, size, err = v.fetchBlob(ctx, desc)
	}
	if err != nil {
		return nil, 0, "", err
	}
	// The store may have come to hold what another repository delivered.
	if err := v.mayAnswer(ctx, desc.Digest); err != nil {
		content.Close()
		return nil, 0, "", err
	}
	return content, size, from, nil
}

// fetchBlob fetches a blob from this repository's upstream through the store.
// That the upstream delivers it is noted as soon as it says so, like its answer
// to HEAD: the bytes are believed by their hash alone.
func (v *view) fetchBlob(ctx context.Context, desc v1.Descriptor) (io.ReadCloser, int64, error) {
	return v.proxy.store.Fetch(ctx, v.name, desc.Digest, desc.Size, func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
		body, size, err := v.registered.Upstream.Blob(ctx, v.repository, desc.Digest, offset)
		if err == nil {
			v.delivered(ctx, desc.Digest)
		}
		return body, size, err
	})
}

// mayAnswer asks this repository's upstream whether it holds digest, unless it
// has delivered it.
func (v *view) mayAnswer(ctx context.Context, digest v1.Hash) error {
	e, fresh := v.edge(digest)
	if fresh && e.delivered.Load() {
		return nil
	}
	delivered, _, err := v.proxy.index.Known(ctx, v.name, digest)
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	if !delivered {
		err = v.confirm(ctx, digest)
	}
	if fresh && err == nil {
		e.delivered.Store(true)
	}
	return err
}

// confirm asks this repository's upstream whether it holds digest.
func (v *view) confirm(ctx context.Context, digest v1.Hash) error {
	if err := v.registered.Upstream.Exists(ctx, v.repository, digest); err != nil {
		return err
	}
	v.delivered(ctx, digest)
	return nil
}

func (v *view) delivered(ctx context.Context, digest v1.Hash) {
	if err := v.proxy.index.Delivered(context.WithoutCancel(ctx), v.name, digest); err != nil {
		v.proxy.logger.Warn("cannot index a blob", "repository", v.name, "digest", digest.String(), "err", err)
	}
}

// headBlob answers without content: HEAD as GET would begin, or with 304 when
// the client has the content.
func (q *request) headBlob(ctx context.Context, v *view, etag string, desc v1.Descriptor, known bool) error {
	if err := v.mayAnswer(ctx, desc.Digest); err != nil {
		return err
	}
	q.blobHeaders(etag, desc)
	q.setID()
	if known {
		q.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	q.w.Header().Set("Content-Length", strconv.FormatInt(desc.Size, 10))
	q.w.WriteHeader(http.StatusOK)
	return nil
}

func (q *request) blobHeaders(etag string, desc v1.Descriptor) {
	h := q.w.Header()
	h["Docker-Content-Digest"] = []string{desc.Digest.String()}
	h["Etag"] = []string{etag}
	h["Cache-Control"] = cacheControlHeader
	h["Vary"] = varyHeader
	h["Accept-Ranges"] = []string{"bytes"}
	h["Content-Type"] = []string{"application/octet-stream"}
}

// span is the part of a blob that is sent: from first up to, not including,
// end.
type span struct {
	first, end int64
	partial    bool
}

// span reads the Range header (RFC 9110, section 14.2). A range in another
// unit, malformed, of several parts, or on a condition that does not hold is
// not looked at, as the RFC allows: the whole blob is sent.
func (q *request) span(etag string, size int64) (span, error) {
	whole := span{end: size}
	if condition := q.r.Header.Get("If-Range"); condition != "" && condition != etag {
		return whole, nil
	}
	spec, ok := strings.CutPrefix(q.r.Header.Get("Range"), "bytes=")
	if !ok || len(q.r.Header.Values("Range")) > 1 || strings.Contains(spec, ",") {
		return whole, nil
	}
	firstText, lastText, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return whole, nil
	}
	first, firstOK := parseOffset(firstText)
	last, lastOK := parseOffset(lastText)
	unsatisfiable := &Error{Status: http.StatusRequestedRangeNotSatisfiable, Code: codeRangeInvalid, Size: size, Message: "the range lies outside the blob, which has " + strconv.FormatInt(size, 10) + " bytes"}
	switch {
	case firstText == "" && lastOK: // the last so many bytes
		if last == 0 || size == 0 {
			return span{}, unsatisfiable
		}
		return span{first: max(size-last, 0), end: size, partial: true}, nil
	case !firstOK || lastText != "" && (!lastOK || last < first):
		return whole, nil
	case first >= size:
		return span{}, unsatisfiable
	case lastText == "":
		return span{first: first, end: size, partial: true}, nil
	}
	return span{first: first, end: min(last, size-1) + 1, partial: true}, nil
}

// parseOffset parses digits alone; what overflows is the largest number.
func parseOffset(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		n = 1<<63 - 1
	}
	return n, true
}

// sendBlob sends a span of a blob. The content's reader hashes it all and
// yields its end only when the digest held; the last piece of the answer is
// held back until then, so that no answer ends before.
func (q *request) sendBlob(content io.Reader, part span, etag string, desc v1.Descriptor, from transferSource) error {
	bufs := [2]*[copyBuffer]byte{buffers.Get().(*[copyBuffer]byte), buffers.Get().(*[copyBuffer]byte)}
	defer func() { buffers.Put(bufs[0]); buffers.Put(bufs[1]) }()
	var pending []byte // what the answer is owed, not yet sent
	offset, turn := int64(0), 0
	control := http.NewResponseController(q.w)
	for {
		n, err := readPiece(content, bufs[turn][:])
		piece := clip(bufs[turn][:n], offset, part)
		offset += int64(n)
		if err != nil && err != io.EOF {
			return q.abandon(err)
		}
		if len(piece) > 0 {
			if err := q.sendPiece(control, pending, part, etag, desc); err != nil {
				return q.abandon(err)
			}
			pending, turn = piece, 1-turn
		}
		if err == io.EOF {
			break
		}
	}
	if offset != desc.Size {
		return q.abandon(fmt.Errorf("blob %s: %w: %d bytes instead of %d", desc.Digest, errMismatch, offset, desc.Size))
	}
	if pending == nil {
		pending = []byte{}
	}
	if err := q.sendPiece(control, pending, part, etag, desc); err != nil {
		return q.abandon(err)
	}
	q.proxy.metrics.transferred(from, int(part.end-part.first))
	return nil
}

// readPiece fills p as far as the content allows without waiting for more than
// one read: a blob that is still arriving is passed on as it comes.
func readPiece(content io.Reader, p []byte) (int, error) {
	for {
		n, err := content.Read(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// clip returns the part of piece, which begins at offset, that lies in s.
func clip(piece []byte, offset int64, s span) []byte {
	first := min(max(s.first-offset, 0), int64(len(piece)))
	end := min(max(s.end-offset, first), int64(len(piece)))
	return piece[first:end]
}

// sendPiece writes a piece, with the headers before the first. A nil piece is
// nothing to send yet.
func (q *request) sendPiece(control *http.ResponseController, piece []byte, part span, etag string, desc v1.Descriptor) error {
	if piece == nil {
		return nil
	}
	if q.w.status == 0 {
		q.blobHeaders(etag, desc)
		h := q.w.Header()
		h.Set("Content-Length", strconv.FormatInt(part.end-part.first, 10))
		status := http.StatusOK
		if part.partial {
			status = http.StatusPartialContent
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", part.first, part.end-1, desc.Size))
		}
		q.setID()
		q.w.WriteHeader(status)
	}
	if err := control.SetWriteDeadline(time.Now().Add(writePatience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	_, err := q.w.Write(piece)
	return err
}

// abandon ends a transfer that failed: with an error while nothing is sent, by
// breaking the connection afterwards.
func (q *request) abandon(err error) error {
	if errors.Is(err, fs.ErrNotExist) && q.w.status == 0 {
		return err
	}
	return fmt.Errorf("send blob: %w", err)
}
