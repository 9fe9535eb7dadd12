package upstream

import (
	"context"
	"errors"
	"io/fs"
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
	return c.PutManifestOver(ctx, repository, reference, mediaType, content, "")
}

// absentVersion is the version of a tag that is not there.
const absentVersion = "*"

// ReadTag is Manifest for a tag that is to be replaced. version is for PutManifestOver;
// it is told along with an error that matches fs.ErrNotExist, too. It is empty when the
// upstream does not say what it calls what it answers.
func (c *Client) ReadTag(ctx context.Context, repository, tag string) (body []byte, contentType, version string, err error) {
	q, err := manifestCall(repository, tag)
	if err != nil {
		return nil, "", "", err
	}
	body, header, called, err := c.whole(ctx, q, c.limits.Manifest, "the manifest")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", absentVersion, err
	case err != nil:
		return nil, "", "", err
	case called.from == c.own: // whoever else was redirected to calls it by names of its own
		version = called.etag
	}
	return body, header.Get("Content-Type"), version, nil
}

// PutManifestOver is PutManifest for a tag that must still be what ReadTag found there.
// An upstream that understands this (RFC 9110, 13.1) answers 412, and stores nothing,
// when the tag was written meanwhile; others overlook it. An empty version asks for
// nothing.
func (c *Client) PutManifestOver(ctx context.Context, repository, reference, mediaType string, content []byte, version string) (subject bool, err error) {
	if err := errors.Join(checkRepository(repository), checkReference(reference)); err != nil {
		return false, err
	}
	q := call{
		method: http.MethodPut, repository: repository, path: "manifests/" + reference, rights: pushes,
		header: http.Header{"Content-Type": {mediaType}}, body: content,
		want: []int{http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent},
	}
	switch version {
	case "":
	case absentVersion:
		q.header.Set("If-None-Match", "*")
	default:
		q.header.Set("If-Match", version)
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
