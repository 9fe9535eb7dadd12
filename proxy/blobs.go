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

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
)

// serveBlob answers GET and HEAD for a blob that an allowed manifest of the
// repository references.
func (q *request) serveBlob(v *view) error {
	ctx := q.r.Context()
	e, err := q.reachBlob(ctx, v)
	if err != nil {
		return err
	}
	known := matches(q.r.Header["If-None-Match"], e.etagHeader[0])
	if known || q.r.Method == http.MethodHead {
		return q.headBlob(ctx, v, e, known)
	}
	part, err := q.span(e.etagHeader[0], e.desc.Size)
	if err != nil {
		return err
	}
	content, from, err := v.openBlob(ctx, e, part)
	if err != nil {
		return err
	}
	defer content.Close()
	return q.sendBlob(content, part, e, from)
}

// reachBlob returns how the blob is read that was asked for.
func (q *request) reachBlob(ctx context.Context, v *view) (*edge, error) {
	if !q.pulls {
		return q.unadmittedBlob(ctx, v, unreachableBlob())
	}
	e, d, err := v.admitBlob(ctx, q.route.digest, q.asker())
	if err != nil {
		return q.unadmittedBlob(ctx, v, err)
	}
	q.decided(d)
	return e, nil
}

// admitBlob returns how a served manifest of the repository reaches digest, and
// the decision about that manifest. Without one its error is what a client is
// told.
func (v *view) admitBlob(ctx context.Context, digest v1.Hash, a asker) (*edge, policy.Decision, error) {
	if e, ok := v.edge(digest); ok {
		return e, e.decision.decision, nil
	}
	if v.Gate.Revoked(digest) {
		d, err := v.decide(ctx, &manifest{digest: digest}, "", a)
		if err == nil {
			err = denied(d, a.image)
		}
		return nil, d, err
	}
	_, parents, err := v.proxy.index.Known(ctx, v.name, digest)
	if err != nil {
		return nil, policy.Decision{}, fmt.Errorf("read the index: %w", err)
	}
	var undecidedErr error
	var aside passing // evidence or another referrer that references it
	load := v.byDigest
	for _, parent := range parents {
		m, err := load(ctx, parent)
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
		if aside.served && desc.Size == aside.desc.Size {
			continue // which says the same of it
		}
		d, err := v.gate(ctx, m, "", a)
		switch {
		case d.Served() && d.About == "":
			return v.keepEdge(desc, d), d, nil
		case d.Served() && !aside.served:
			aside = passing{desc, d, true}
			load = v.held // the others are not worth a request
		case err != nil:
			undecidedErr = err
		}
	}
	if aside.served {
		return v.keepEdge(aside.desc, aside.decision), aside.decision, nil
	}
	if undecidedErr != nil {
		return nil, policy.Decision{}, undecidedErr
	}
	return nil, policy.Decision{}, unreachableBlob()
}

// passing is how a manifest reaches a blob that is served for its subject's sake, and
// that nobody may have signed. Where an image is allowed that says otherwise of the same
// blob, that counts.
type passing struct {
	desc     v1.Descriptor
	decision policy.Decision
	served   bool
}

// openBlob opens a part of a blob for this repository: from the store when this
// repository's upstream delivered it or confirms it now, else from that
// upstream, through the store.
func (v *view) openBlob(ctx context.Context, e *edge, part span) (io.ReadCloser, transferSource, error) {
	desc := e.desc
	content, _, err := v.proxy.store.Fetch(ctx, v.name, desc.Digest, desc.Size, part.first, part.end, v.origin(desc.Digest))
	if err != nil {
		return nil, "", err
	}
	from := fromUpstream
	if h, ok := content.(interface{ Held() bool }); ok && h.Held() {
		from = fromCache
	}
	// The store may hold what another repository delivered.
	if err := v.mayAnswer(ctx, e); err != nil {
		content.Close()
		return nil, "", err
	}
	return content, from, nil
}

// origin is where a transfer of a blob begins. That the upstream delivers it is
// noted as soon as it says so, like its answer to HEAD: the bytes are believed
// by their hash alone.
func (v *view) origin(digest v1.Hash) func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
	return func(ctx context.Context, offset int64) (io.ReadCloser, int64, error) {
		body, size, err := v.registered.Upstream.Blob(ctx, v.repository, digest, offset)
		if err == nil {
			v.delivered(ctx, digest)
		}
		return body, size, err
	}
}

// mayAnswer asks this repository's upstream whether it holds a blob, unless it
// has delivered it.
func (v *view) mayAnswer(ctx context.Context, e *edge) error {
	if e.delivered.Load() {
		return nil
	}
	if err := v.ensureDelivered(ctx, e.desc.Digest); err != nil {
		return err
	}
	e.delivered.Store(true)
	return nil
}

// ensureDelivered is mayAnswer for a digest.
func (v *view) ensureDelivered(ctx context.Context, digest v1.Hash) error {
	delivered, _, err := v.proxy.index.Known(ctx, v.name, digest)
	if err != nil {
		return fmt.Errorf("read the index: %w", err)
	}
	if delivered {
		return nil
	}
	return v.confirm(ctx, digest)
}

// confirm asks this repository's upstream whether it holds digest.
func (v *view) confirm(ctx context.Context, digest v1.Hash) error {
	_, err := v.registered.Upstream.Exists(ctx, v.repository, digest)
	if err == nil {
		v.delivered(ctx, digest)
	}
	return err
}

func (v *view) delivered(ctx context.Context, digest v1.Hash) {
	if err := v.proxy.index.Delivered(context.WithoutCancel(ctx), v.name, digest); err != nil {
		v.proxy.logger.Warn("cannot index a blob", "repository", v.name, "digest", digest.String(), "err", err)
	}
}

// headBlob answers without content: HEAD as GET would begin, or with 304 when
// the client has the content.
func (q *request) headBlob(ctx context.Context, v *view, e *edge, known bool) error {
	if err := v.mayAnswer(ctx, e); err != nil {
		return err
	}
	h := q.blobHeaders(e)
	if known {
		q.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h["Content-Length"] = []string{strconv.FormatInt(e.desc.Size, 10)}
	q.w.WriteHeader(http.StatusOK)
	return nil
}

// Header values of every blob. A blob's type is its manifest's to tell.
var (
	acceptRangesHeader = []string{"bytes"}
	blobTypeHeader     = []string{"application/octet-stream"}
)

// blobHeaders sets what all answers about a blob have, and returns the headers.
// The API's version, which clients look for at /v2/ alone, gives way to what is
// worth more: see smallAnswer.
func (q *request) blobHeaders(e *edge) http.Header {
	q.setID()
	h := q.w.Header()
	delete(h, "Docker-Distribution-Api-Version")
	h["Docker-Content-Digest"] = e.digestHeader
	h["Etag"] = e.etagHeader
	h["Cache-Control"] = cacheControlHeader
	h["Vary"] = varyHeader
	h["Accept-Ranges"] = acceptRangesHeader
	h["Content-Type"] = blobTypeHeader
	return h
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
	if q.r.Header["Range"] == nil {
		return whole, nil
	}
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

// sendBlob sends a part of a blob. The store yields its end only when the digest
// of the whole held, so that no answer ends before.
func (q *request) sendBlob(content io.Reader, part span, e *edge, from transferSource) error {
	q.blob = blobWriter{request: q, part: part, edge: e}
	n, err := io.Copy(&q.blob, content)
	if err != nil {
		return q.abandon(err)
	}
	if n != part.end-part.first {
		return q.abandon(fmt.Errorf("blob %s: %w: %d bytes instead of %d", e.desc.Digest, errMismatch, n, part.end-part.first))
	}
	if n == 0 {
		q.blob.begin()
	}
	q.proxy.metrics.transferred(from, int(n))
	return nil
}

// blobWriter writes a part of a blob to the client, with the headers before the
// first piece: until then an error can still be told.
type blobWriter struct {
	request *request
	part    span
	edge    *edge
	begun   bool
}

// Write implements io.Writer.
func (b *blobWriter) Write(piece []byte) (int, error) {
	if !b.begun {
		b.begin()
	}
	return b.request.w.Write(piece)
}

// begin writes the headers.
func (b *blobWriter) begin() {
	b.begun = true
	q := b.request
	h := q.blobHeaders(b.edge)
	length, status := b.part.end-b.part.first, http.StatusOK
	if b.part.partial {
		status = http.StatusPartialContent
		h["Content-Range"] = []string{fmt.Sprintf("bytes %d-%d/%d", b.part.first, b.part.end-1, b.edge.desc.Size)}
	}
	if length > smallAnswer {
		h["Content-Length"] = []string{strconv.FormatInt(length, 10)}
	}
	q.w.WriteHeader(status)
}

// abandon ends a transfer that failed: with an error while nothing is sent, by
// breaking the connection afterwards.
func (q *request) abandon(err error) error {
	if errors.Is(err, fs.ErrNotExist) && q.w.status == 0 {
		return err
	}
	return fmt.Errorf("send blob: %w", err)
}
