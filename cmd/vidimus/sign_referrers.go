package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"vidimus/signer"
	"vidimus/verifier"
)

// maxReferrerPages bounds how much of a list of referrers is read to find what we
// signed already.
const maxReferrerPages = 8

// Blob implements signer.Registry.
func (r *remoteRegistry) Blob(ctx context.Context, repository string, digest v1.Hash, limit int64) ([]byte, error) {
	var data []byte
	err := retryPassing(ctx, func() error {
		resp, err := r.do(ctx, repository, http.MethodGet, "blobs/"+digest.String(), nil, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := transport.CheckError(resp, http.StatusOK); err != nil {
			return absent(err)
		}
		data, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
		return err
	})
	if err == nil && int64(len(data)) > limit {
		return nil, fmt.Errorf("blob %s: %w: more than %d bytes", digest, signer.ErrTooLarge, limit)
	}
	return data, err
}

// DeleteManifest implements signer.Deleter.
func (r *remoteRegistry) DeleteManifest(ctx context.Context, repository string, digest v1.Hash) error {
	resp, err := r.do(ctx, repository, http.MethodDelete, "manifests/"+digest.String(), nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNotFound:
		return nil
	case http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusBadRequest:
		return fmt.Errorf("%w: %w", signer.ErrNoDelete, transport.CheckError(resp, http.StatusAccepted))
	}
	return transport.CheckError(resp, http.StatusOK, http.StatusAccepted, http.StatusNoContent)
}

// Referrers implements signer.Registry. Which answers say that a registry has no list
// is as in go-containerregistry: 400, 404 and 406, and 405 and 501 besides.
func (r *remoteRegistry) Referrers(ctx context.Context, repository string, digest v1.Hash) ([]v1.Descriptor, error) {
	var all []v1.Descriptor
	path := "referrers/" + digest.String()
	for range maxReferrerPages {
		page, next, err := r.referrersPage(ctx, repository, path)
		if errors.Is(err, fs.ErrNotExist) && all == nil {
			return r.fallbackReferrers(ctx, repository, digest)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == "" {
			break
		}
		path = "referrers/" + digest.String() + "?" + next
	}
	return all, nil
}

// fallbackReferrers reads the index under the fallback tag. What is no index lists
// nothing.
func (r *remoteRegistry) fallbackReferrers(ctx context.Context, repository string, digest v1.Hash) ([]v1.Descriptor, error) {
	data, err := r.Manifest(ctx, repository, signer.FallbackTag(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return signer.ReferrersIndex(data), nil
}

// referrersPage returns one page of a list, and the query of the next one. An error
// that matches fs.ErrNotExist says that the registry keeps no lists.
func (r *remoteRegistry) referrersPage(ctx context.Context, repository, path string) (page []v1.Descriptor, next string, err error) {
	err = retryPassing(ctx, func() error {
		resp, err := r.do(ctx, repository, http.MethodGet, path, nil, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented:
			return absentError{transport.CheckError(resp, http.StatusOK)}
		}
		if err := transport.CheckError(resp, http.StatusOK); err != nil {
			return err
		}
		data, err := io.ReadAll(io.LimitReader(resp.Body, verifier.MaxManifestSize+1))
		if err != nil {
			return err
		}
		if len(data) > verifier.MaxManifestSize {
			return fmt.Errorf("the list of referrers is larger than %d bytes", verifier.MaxManifestSize)
		}
		page, next = signer.ReferrersIndex(data), nextQuery(resp.Header.Get("Link"))
		return nil
	})
	return page, next, err
}

// nextQuery returns the query of the next page that a Link header names, which is of
// the same list: nothing else of the link is followed.
func nextQuery(link string) string {
	target, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
	if !ok || !strings.Contains(rest, "next") {
		return ""
	}
	parsed, err := url.Parse(target)
	if err != nil {
		return ""
	}
	return parsed.RawQuery
}

// entityTags remembers what the registry called the manifests that tags named when
// they were last read. A write asks for the tag to be still the same: a registry that
// understands this (RFC 9110, 13.1) refuses to overwrite what was written meanwhile,
// and others overlook it.
type entityTags struct {
	mu   sync.Mutex
	tags map[string]string // by repository and tag; empty: there was none
	off  map[string]bool   // those that a registry refused once
}

func (e *entityTags) note(repository, reference string, resp *http.Response) {
	if strings.Contains(reference, ":") {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	name, tag := repository+":"+reference, resp.Header.Get("ETag")
	switch {
	case resp.StatusCode == http.StatusNotFound:
		tag = ""
	case resp.StatusCode != http.StatusOK || !strings.HasPrefix(tag, `"`):
		delete(e.tags, name)
		return
	}
	if e.tags == nil {
		e.tags = make(map[string]string)
	}
	e.tags[name] = tag
}

// require adds to the header of a write what is to hold for it.
func (e *entityTags) require(repository, reference string, header http.Header) {
	e.mu.Lock()
	defer e.mu.Unlock()
	name := repository + ":" + reference
	tag, known := e.tags[name]
	switch {
	case !known || e.off[name]:
	case tag == "":
		header.Set("If-None-Match", "*")
	default:
		header.Set("If-Match", tag)
	}
}

// refuse notes that a write was refused, and reports whether it had asked for
// anything. Nothing is asked for the next time: a registry that means something else
// by its entity tags would refuse for ever.
func (e *entityTags) refuse(repository, reference string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	name := repository + ":" + reference
	_, known := e.tags[name]
	if !known || e.off[name] {
		return false
	}
	if e.off == nil {
		e.off = make(map[string]bool)
	}
	e.off[name] = true
	return true
}
