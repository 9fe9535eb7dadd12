package upstream

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

// PutManifest stores content, whose type is mediaType, under reference, a tag or its
// digest. subject tells that the upstream keeps the list of referrers by itself: it
// answered with OCI-Subject.
//
// By digest it is tried again after transient failures, for that changes nothing
// about what the digest means. By tag it is tried once: a write that is repeated
// late overwrites what was written in between. A write that failed may have
// happened.
func (c *Client) PutManifest(ctx context.Context, repository, reference, mediaType string, content []byte) (subject bool, err error) {
	if err := errors.Join(checkRepository(repository), checkReference(reference)); err != nil {
		return false, err
	}
	q := call{
		method: http.MethodPut, repository: repository, path: "manifests/" + reference, rights: pushes,
		header: http.Header{"Content-Type": {mediaType}}, body: content,
		want: []int{http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent},
	}
	use := func(response *http.Response) error {
		subject = response.Header.Get("Oci-Subject") != ""
		discard(response)
		return nil
	}
	if !isDigest(reference) {
		return subject, c.once(ctx, q, c.timeouts.Commit, use)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Commit)
	defer cancel()
	err = c.do(ctx, q, use)
	return subject, c.in(q.String(), err)
}

// DeleteManifest removes a tag, or a manifest with all tags that name it. It matches
// fs.ErrNotExist when there is no such thing.
func (c *Client) DeleteManifest(ctx context.Context, repository, reference string) error {
	if err := errors.Join(checkRepository(repository), checkReference(reference)); err != nil {
		return err
	}
	q := call{
		method: http.MethodDelete, repository: repository, path: "manifests/" + reference, rights: deletes,
		want: []int{http.StatusAccepted, http.StatusOK, http.StatusNoContent},
	}
	return c.once(ctx, q, c.timeouts.Whole, func(response *http.Response) error {
		discard(response)
		return nil
	})
}

// once is do for what is not sent again, but for the sake of authentication.
func (c *Client) once(ctx context.Context, q call, limit time.Duration, use func(*http.Response) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	response, err := c.authenticated(ctx, q)
	if err != nil {
		return c.in(q.String(), err)
	}
	if !q.accepts(response.StatusCode) {
		defer discard(response)
		return c.in(q.String(), statusFault(response, c.limits.Error))
	}
	return c.in(q.String(), use(response))
}

func isDigest(reference string) bool { return strings.Contains(reference, ":") }
