package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/carrier"
	"vidimus/signer"
	"vidimus/verifier"
)

const (
	// maxListSize is how many bytes a page of tags or referrers may have.
	maxListSize = 8 << 20
	// maxPages is how many pages of such a list are read.
	maxPages = 1000
	// maxTags is how many tags of a repository are looked at.
	maxTags = 200_000
)

// repository is one repository of a registry that a person named, with the
// credentials of docker's credential store. It implements carrier.Target.
type repository struct {
	name.Repository
	client *http.Client
	flags  *registryFlags
}

// repository returns a client for repo that has the right to pull, and to push where
// it writes. From the repositories of the same registry that are given besides
// blobs can be taken over.
func (f *writerFlags) repository(ctx context.Context, repo name.Repository, writes bool, from ...name.Repository) (*repository, error) {
	registry, err := f.registry(repo)
	if err != nil {
		return nil, err
	}
	auth, err := f.credentials(ctx, repo)
	if err != nil {
		return nil, err
	}
	action := transport.PullScope
	if writes {
		action = transport.PushScope
	}
	scopes := []string{repo.Scope(action)}
	for _, other := range from {
		if other.RegistryStr() == repo.RegistryStr() && other.RepositoryStr() != repo.RepositoryStr() {
			scopes = append(scopes, other.Scope(transport.PullScope))
		}
	}
	t, err := transport.NewWithContext(ctx, repo.Registry, auth, registry.base, scopes)
	if err != nil {
		return nil, err
	}
	return &repository{repo, &http.Client{Transport: t}, &f.registryFlags}, nil
}

// Name implements carrier.Place.
func (r *repository) Name() string { return r.Repository.Name() }

func (r *repository) url(path string) *url.URL {
	return &url.URL{Scheme: r.Scheme(), Host: r.RegistryStr(), Path: "/v2/" + r.RepositoryStr() + "/" + path}
}

func (r *repository) do(ctx context.Context, method string, u *url.URL, header http.Header, body io.Reader, size int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, err
	}
	for key, values := range header {
		req.Header[key] = values
	}
	if body != nil {
		req.ContentLength = size
	}
	return r.client.Do(req)
}

// get sends GET and hands the answer to read, again after a passing failure.
func (r *repository) get(ctx context.Context, u *url.URL, header http.Header, read func(*http.Response) error) error {
	return retryPassing(ctx, func() error {
		resp, err := r.do(ctx, http.MethodGet, u, header, nil, 0)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := transport.CheckError(resp, http.StatusOK); err != nil {
			return told(err)
		}
		return read(resp)
	})
}

// told makes the error of an answer one that says what it means: that there is no
// such thing, or that the registry does not tell.
func told(err error) error {
	answer, ok := errors.AsType[*transport.Error](err)
	if ok && (answer.StatusCode == http.StatusForbidden || answer.StatusCode == http.StatusUnauthorized) {
		return forbiddenError{err}
	}
	return absent(err)
}

// forbiddenError says in its own words that the registry does not tell.
type forbiddenError struct{ error }

func (e forbiddenError) Unwrap() error { return e.error }

// Is makes it match fs.ErrPermission.
func (forbiddenError) Is(target error) bool { return target == fs.ErrPermission }

// Manifest implements carrier.Place.
func (r *repository) Manifest(ctx context.Context, reference string) (carrier.Manifest, error) {
	var m carrier.Manifest
	accept := append(manifestTypes(), "application/vnd.oci.artifact.manifest.v1+json")
	header := http.Header{"Accept": {strings.Join(accept, ", ")}}
	err := r.get(ctx, r.url("manifests/"+r.flags.tagged(reference)), header, func(resp *http.Response) (err error) {
		m.MediaType = types.MediaType(resp.Header.Get("Content-Type"))
		m.Data, err = io.ReadAll(io.LimitReader(resp.Body, carrier.MaxManifestSize+1))
		return err
	})
	return m, err
}

// Referrers implements carrier.Place. What answers with anything else than an index
// has no such API.
func (r *repository) Referrers(ctx context.Context, digest v1.Hash) ([]v1.Descriptor, error) {
	var listed []v1.Descriptor
	err := r.pages(ctx, r.url("referrers/"+digest.String()), func(resp *http.Response, data []byte) error {
		mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
		if types.MediaType(strings.TrimSpace(mediaType)) != types.OCIImageIndex {
			return fs.ErrNotExist
		}
		var index v1.IndexManifest
		if err := json.Unmarshal(data, &index); err != nil {
			return fmt.Errorf("the list of referrers: %w", err)
		}
		if listed = append(listed, index.Manifests...); len(listed) > carrier.MaxManifests {
			return fmt.Errorf("more than %d referrers", carrier.MaxManifests)
		}
		return nil
	})
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		switch answer.StatusCode {
		case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
			return nil, fs.ErrNotExist
		}
	}
	return listed, err
}

// Tags lists the tags of the repository.
func (r *repository) Tags(ctx context.Context) ([]string, error) {
	u := r.url("tags/list")
	u.RawQuery = "n=1000"
	var tags []string
	err := r.pages(ctx, u, func(_ *http.Response, data []byte) error {
		var list struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(data, &list); err != nil {
			return fmt.Errorf("the list of tags: %w", err)
		}
		if tags = append(tags, list.Tags...); len(tags) > maxTags {
			return fmt.Errorf("more than %d tags", maxTags)
		}
		return nil
	})
	return tags, err
}

// pages reads a list page by page, from the registry itself: no page may be elsewhere.
func (r *repository) pages(ctx context.Context, u *url.URL, page func(*http.Response, []byte) error) error {
	for range maxPages {
		var next string
		err := r.get(ctx, u, nil, func(resp *http.Response) error {
			data, err := io.ReadAll(io.LimitReader(resp.Body, maxListSize+1))
			if err != nil {
				return err
			}
			if len(data) > maxListSize {
				return fmt.Errorf("a page of more than %d bytes", maxListSize)
			}
			next = nextPage(resp.Header)
			return page(resp, data)
		})
		if err != nil || next == "" {
			return err
		}
		if u, err = u.Parse(next); err != nil || u.Host != r.RegistryStr() || u.Scheme != r.Scheme() {
			return fmt.Errorf("the next page of a list is said to be at %q", next)
		}
	}
	return fmt.Errorf("a list of more than %d pages", maxPages)
}

// nextPage returns where the Link header says that the next page is; empty for none.
func nextPage(header http.Header) string {
	for _, link := range header.Values("Link") {
		target, parameters, ok := strings.Cut(link, ">")
		if ok && strings.Contains(strings.ReplaceAll(parameters, `"`, ""), "rel=next") {
			return strings.TrimPrefix(strings.TrimSpace(target), "<")
		}
	}
	return ""
}

// Blob implements carrier.Place.
func (r *repository) Blob(ctx context.Context, digest v1.Hash) (io.ReadCloser, error) {
	var body io.ReadCloser
	err := retryPassing(ctx, func() error {
		resp, err := r.do(ctx, http.MethodGet, r.url("blobs/"+digest.String()), nil, nil, 0)
		if err != nil {
			return err
		}
		if err := transport.CheckError(resp, http.StatusOK); err != nil {
			resp.Body.Close()
			return told(err)
		}
		body = resp.Body
		return nil
	})
	return body, err
}

// HasBlob implements carrier.Target.
func (r *repository) HasBlob(ctx context.Context, digest v1.Hash) (bool, error) {
	var has bool
	err := retryPassing(ctx, func() error {
		resp, err := r.do(ctx, http.MethodHead, r.url("blobs/"+digest.String()), nil, nil, 0)
		if err != nil {
			return err
		}
		resp.Body.Close()
		has = resp.StatusCode == http.StatusOK
		return transport.CheckError(resp, http.StatusOK, http.StatusNotFound)
	})
	return has, err
}

// PutBlob implements carrier.Target. All of it is tried again after a passing
// failure: a blob is what its digest says, however often it arrives.
func (r *repository) PutBlob(ctx context.Context, desc v1.Descriptor, from carrier.Place, open func() (io.ReadCloser, error)) (bool, error) {
	mounted := false
	err := retryPassing(ctx, func() error {
		location, err := r.beginUpload(ctx, desc.Digest, from)
		if err != nil || location == nil {
			mounted = err == nil
			return err
		}
		body, err := open()
		if err != nil {
			return err
		}
		defer body.Close()
		query := location.Query()
		query.Set("digest", desc.Digest.String())
		location.RawQuery = query.Encode()
		header := http.Header{"Content-Type": {"application/octet-stream"}}
		// A nil body would be sent for an empty one whose length is not known.
		var content io.Reader = body
		if desc.Size == 0 {
			content = http.NoBody
		}
		resp, err := r.do(ctx, http.MethodPut, location, header, content, desc.Size)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return transport.CheckError(resp, http.StatusCreated)
	})
	return mounted, err
}

// beginUpload returns where to upload a blob; nil when the registry took it over from
// a repository of its own.
func (r *repository) beginUpload(ctx context.Context, digest v1.Hash, from carrier.Place) (*url.URL, error) {
	u := r.url("blobs/uploads/")
	if other, ok := from.(*repository); ok && other.RegistryStr() == r.RegistryStr() && other.Name() != r.Name() {
		u.RawQuery = url.Values{"mount": {digest.String()}, "from": {other.RepositoryStr()}}.Encode()
	}
	resp, err := r.do(ctx, http.MethodPost, u, nil, http.NoBody, 0)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusCreated, http.StatusAccepted); err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusCreated {
		return nil, nil
	}
	location, err := resp.Location()
	if err != nil {
		return nil, fmt.Errorf("begin an upload to %s: %w", r.Name(), err)
	}
	return location, nil
}

// PutManifest implements carrier.Target. It is tried once under a tag, which others
// may write to, and again under a digest.
func (r *repository) PutManifest(ctx context.Context, reference string, m carrier.Manifest) (took bool, err error) {
	put := func() error {
		header := http.Header{"Content-Type": {string(m.MediaType)}}
		resp, err := r.do(ctx, http.MethodPut, r.url("manifests/"+r.flags.tagged(reference)), header, bytes.NewReader(m.Data), int64(len(m.Data)))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		took = resp.Header.Get("OCI-Subject") != ""
		return transport.CheckError(resp, http.StatusOK, http.StatusCreated, http.StatusAccepted)
	}
	if strings.Contains(reference, ":") {
		return took, retryPassing(ctx, put)
	}
	err = put()
	return took, err
}

// Delete deletes what reference, a tag or a digest, names. The error matches
// fs.ErrNotExist when there is no such thing, and signer.ErrNoDelete when the registry
// deletes nothing.
func (r *repository) Delete(ctx context.Context, reference string) error {
	resp, err := r.do(ctx, http.MethodDelete, r.url("manifests/"+r.flags.tagged(reference)), nil, nil, 0)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = transport.CheckError(resp, http.StatusOK, http.StatusAccepted, http.StatusNoContent)
	if err == nil {
		return nil
	}
	refusals := []int{http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusBadRequest}
	if slices.Contains(refusals, resp.StatusCode) {
		return fmt.Errorf("%w: %w", signer.ErrNoDelete, err)
	}
	return told(err)
}

// verifierRegistry makes a repository one that the verifier reads, whatever name it
// has for it.
type verifierRegistry struct{ *repository }

// Manifest implements verifier.Registry.
func (v verifierRegistry) Manifest(ctx context.Context, _, reference string) ([]byte, error) {
	m, err := v.repository.Manifest(ctx, reference)
	if err == nil && len(m.Data) > verifier.MaxManifestSize {
		err = fmt.Errorf("manifest %s: larger than %d bytes", reference, verifier.MaxManifestSize)
	}
	if got := sha256Of(m.Data); err == nil && strings.Contains(reference, ":") && got.String() != reference {
		err = fmt.Errorf("manifest %s: the registry sent bytes that hash to %s", reference, got)
	}
	return m.Data, err
}

// Referrers implements verifier.Registry.
func (v verifierRegistry) Referrers(ctx context.Context, _ string, digest v1.Hash) ([]v1.Descriptor, error) {
	return v.repository.Referrers(ctx, digest)
}

// Blob implements verifier.Registry.
func (v verifierRegistry) Blob(ctx context.Context, _ string, desc v1.Descriptor) ([]byte, error) {
	return carrier.ReadBlob(ctx, v.repository, desc, verifier.MaxPayloadSize)
}
