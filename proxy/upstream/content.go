package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// manifestTypes is what every manifest is asked for with, so that whoever asks
// gets the same bytes: OCI's and docker's image manifests and indexes. Schema 1
// is not among them; it is not addressed by the bytes that are sent.
const manifestTypes = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"

// Manifest returns the bytes that reference, a tag or a digest, names, and the
// Content-Type that they came with. Neither has been checked; the bytes are at
// most Limits.Manifest.
//
// With held, the digest of a manifest that the caller has, it asks for others
// than that one: unchanged, without bytes, is the answer 304. An upstream that
// does not know conditions sends the bytes again. Without held unchanged is never
// returned. Ask so for a tag only: to a digest, distribution answers 304 without
// a look at what it has.
//
// registry.k8s.io, and whoever else spreads requests over copies, may answer a
// digest with fs.ErrNotExist right after it resolved the tag: the tag can then
// be asked for again and its bytes hashed.
func (c *Client) Manifest(ctx context.Context, repository, reference string, held v1.Hash) (body []byte, contentType string, unchanged bool, err error) {
	q, err := manifestCall(repository, reference)
	if err != nil {
		return nil, "", false, err
	}
	if held != (v1.Hash{}) {
		if err := checkDigest(held); err != nil {
			return nil, "", false, err
		}
		// One entity tag, quoted: distribution compares the field as a whole.
		q.header.Set("If-None-Match", `"`+held.String()+`"`)
	}
	body, header, _, err := c.whole(ctx, q, c.limits.Manifest, "the manifest")
	if err != nil {
		return nil, "", false, err
	}
	return body, header.Get("Content-Type"), body == nil, nil
}

func manifestCall(repository, reference string) (call, error) {
	q := call{method: http.MethodGet, repository: repository, path: "manifests/" + reference, header: http.Header{"Accept": {manifestTypes}}}
	return q, errors.Join(checkRepository(repository), checkReference(reference))
}

// whole returns an answer with status 200 that is held in memory, and what the one who
// gave it calls it; its body is nil only when q was conditional and the answer is 304.
func (c *Client) whole(ctx context.Context, q call, limit int64, what string) (body []byte, header http.Header, called validator, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Whole)
	defer cancel()
	err = c.do(ctx, q, func(response *http.Response) error {
		switch response.StatusCode {
		case http.StatusOK:
		case http.StatusNotModified:
			body, header = nil, response.Header
			return response.Body.Close()
		default:
			return fault(KindMismatch, "%s in answer to a request for the whole", statusText(response.StatusCode))
		}
		body, err = readAll(ctx, response, limit, what)
		if err != nil {
			return err
		}
		header, called = response.Header, validatorOf(response)
		return response.Body.Close()
	})
	if err != nil {
		return nil, nil, validator{}, c.in(q.String(), err)
	}
	return body, header, called, nil
}

// Exists returns no error when the upstream answers 200 to HEAD for the blob in this
// repository, after redirects. size is the blob's as far as that says, or -1.
func (c *Client) Exists(ctx context.Context, repository string, digest v1.Hash) (size int64, err error) {
	if err := checkRepository(repository); err != nil {
		return 0, err
	}
	if err := checkDigest(digest); err != nil {
		return 0, err
	}
	q := call{method: http.MethodHead, repository: repository, path: "blobs/" + digest.String()}
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Whole)
	defer cancel()
	err = c.do(ctx, q, func(response *http.Response) error {
		if response.StatusCode != http.StatusOK {
			return fault(KindMismatch, "%s in answer to HEAD", statusText(response.StatusCode))
		}
		size = response.ContentLength // -1 when it has none
		return response.Body.Close()
	})
	return size, c.in(q.String(), err)
}

func (c *Client) holds(ctx context.Context, repository string, digest v1.Hash) bool {
	_, err := c.Exists(ctx, repository, digest)
	return err == nil
}

// Blob opens a blob at offset; size is the whole blob's as far as the upstream
// told, or -1. The bytes have not been checked. The body reports an end that
// comes too early as an error that matches io.ErrUnexpectedEOF, and one that is
// too late as KindMismatch; when the size is not known, its length is for the
// caller to bound. The caller closes it, and ctx bounds it as a whole.
//
// An upstream that knows no ranges, or not this form of them (416), is read from
// the start, up to offset for nothing. So is one whose blob is another than the
// one that this client began to read: If-Range carries the strong entity tag of
// that answer back to the server that gave it. Only time is won by it, for the
// caller hashes what it gets.
func (c *Client) Blob(ctx context.Context, repository string, digest v1.Hash, offset int64) (body io.ReadCloser, size int64, err error) {
	if err := checkRepository(repository); err != nil {
		return nil, 0, err
	}
	if err := checkDigest(digest); err != nil {
		return nil, 0, err
	}
	name := blobName{repository, digest}
	q := call{method: http.MethodGet, repository: repository, path: "blobs/" + digest.String()}
	offset = max(offset, 0)
	if offset > 0 {
		q.header = http.Header{"Range": {"bytes=" + strconv.FormatInt(offset, 10) + "-"}}
		q.begun = c.begun.get(name)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	opening := time.AfterFunc(c.timeouts.Whole, func() {
		cancel(fault(KindUnavailable, "no answer within %s", c.timeouts.Whole))
	})
	defer opening.Stop()
	why := func(err error) error { return c.in(q.String(), transportFault(ctx, err)) }
	var t *transfer
	use := func(response *http.Response) error {
		t = newTransfer(cancel, response.Body, c.timeouts, c.limits, why)
		t.whole = func() { c.begun.set(name, validator{}) }
		if response.StatusCode == http.StatusOK {
			c.begun.set(name, validatorOf(response))
		}
		size, err = t.expect(response, offset)
		return err
	}
	err = c.do(ctx, q, use)
	if e, ok := errors.AsType[*Error](err); ok && e.status == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
		q.header, q.begun = nil, validator{}
		err = c.do(ctx, q, use)
	}
	if err != nil {
		err = c.in(q.String(), err)
		cancel(context.Canceled)
		return nil, 0, err
	}
	return t, size, nil
}

// expect takes from the header how much is to come, and returns the blob's size.
func (t *transfer) expect(response *http.Response, offset int64) (size int64, err error) {
	if response.StatusCode == http.StatusOK {
		size = response.ContentLength
		if size >= 0 && size < offset {
			return 0, fault(KindMismatch, "the blob has %d bytes, and %d had come already", size, offset)
		}
		t.skip, t.left = offset, -1
		if size >= 0 {
			t.left = size - offset
		}
		return size, nil
	}
	size, ok := parseContentRange(response.Header.Values("Content-Range"), offset, response.ContentLength)
	if offset == 0 || !ok {
		return 0, fault(KindMismatch, "206 with a Content-Range that does not begin at %d", offset)
	}
	t.left = -1
	if size >= 0 {
		t.left = size - offset
	}
	return size, nil
}

// parseContentRange reads "bytes first-last/size" of an answer that is length
// bytes long, -1 when it does not say, and begins at offset. size is -1 when it
// is "*". A range that stops before the end of the blob is accepted: it then
// ends too early.
func parseContentRange(values []string, offset, length int64) (size int64, ok bool) {
	if len(values) != 1 {
		return 0, false
	}
	span, total, ok := strings.Cut(strings.TrimPrefix(values[0], "bytes "), "/")
	first, last, found := strings.Cut(span, "-")
	from, errFrom := strconv.ParseUint(first, 10, 63)
	to, errTo := strconv.ParseUint(last, 10, 62)
	if !ok || !found || errFrom != nil || errTo != nil || int64(from) != offset || to < from {
		return 0, false
	}
	if length >= 0 && length != int64(to-from)+1 {
		return 0, false
	}
	if total == "*" {
		return -1, true
	}
	whole, err := strconv.ParseUint(total, 10, 63)
	if err != nil || whole <= to {
		return 0, false
	}
	return int64(whole), true
}
