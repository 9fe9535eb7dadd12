package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const indexType = "application/vnd.oci.image.index.v1+json"

// Referrers returns the descriptors that the referrers API lists for digest,
// filtered by artifactType when it is not empty, whether the upstream filters or
// not. It matches fs.ErrNotExist when the upstream has no such API, and only
// then: it answers 404, 400, 405 or 406 to the first page.
//
// A list beyond Limits.Referrers, Limits.Pages or, all together, Limits.Page is cut there, and returned
// together with a KindMismatch error; no page is read after more bytes than that.
// A descriptor whose digest is not one is left out.
func (c *Client) Referrers(ctx context.Context, repository string, digest v1.Hash, artifactType string) ([]v1.Descriptor, error) {
	if err := checkRepository(repository); err != nil {
		return nil, err
	}
	if err := checkDigest(digest); err != nil {
		return nil, err
	}
	q := call{method: http.MethodGet, repository: repository, path: "referrers/" + digest.String(), header: http.Header{"Accept": {indexType}}}
	if artifactType != "" {
		q.query = url.Values{"artifactType": {artifactType}}.Encode()
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeouts.Whole)
	defer cancel()
	list := referrers{artifactType: artifactType, limit: c.limits.Referrers, room: c.limits.Page}
	pages, read := 0, int64(0)
	err := c.pages(ctx, q, func(body []byte, header http.Header, next string) (bool, error) {
		pages++
		read += int64(len(body))
		if err := list.add(body, header); err != nil {
			return false, err
		}
		if next != "" && read > c.limits.Page {
			return false, beyond("the list of referrers has more than %d bytes", c.limits.Page)
		}
		return false, nil
	})
	if e, ok := errors.AsType[*Error](err); ok {
		switch {
		case e.beyond:
			return list.found, err
		case pages == 0 && slices.Contains([]int{http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable}, e.status):
			absent := *e
			absent.kind, absent.cause = "", fs.ErrNotExist
			return nil, &absent
		case pages > 0 && errors.Is(e, fs.ErrNotExist):
			torn := *e
			torn.kind, torn.cause = KindMismatch, nil
			return nil, &torn
		}
	}
	if err != nil {
		return nil, err
	}
	return list.found, nil
}

// referrers gathers the descriptors of several pages.
type referrers struct {
	artifactType string
	limit        int   // descriptors
	room         int64 // bytes that descriptors may still take
	looked       int   // descriptors seen so far, wanted or not
	found        []v1.Descriptor
}

// lookedPerFound is how many descriptors are looked at for each that may be
// returned: a filter costs the upstream nothing.
const lookedPerFound = 16

// add takes the descriptors of one page.
func (r *referrers) add(body []byte, header http.Header) error {
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil || mediaType != indexType && mediaType != "application/json" {
		return fault(KindMismatch, "the list of referrers has another Content-Type than an index")
	}
	malformed := fault(KindMismatch, "the list of referrers is not an index")
	decoder := json.NewDecoder(bytes.NewReader(body))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return malformed
	}
	filtered := strings.Contains(header.Get("OCI-Filters-Applied"), "artifactType")
	listed := false
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return malformed
		}
		if key != "manifests" {
			var skipped json.RawMessage
			if decoder.Decode(&skipped) != nil {
				return malformed
			}
			continue
		}
		listed = true
		if err := r.addAll(decoder, filtered); err != nil {
			return err
		}
	}
	if _, err := decoder.Token(); err != nil || !listed {
		return malformed
	}
	return nil
}

// addAll takes an array of descriptors one by one: decoded as a whole, four MiB
// of "{}," would take hundreds.
func (r *referrers) addAll(decoder *json.Decoder, filtered bool) error {
	malformed := fault(KindMismatch, "the list of referrers is not an index")
	open, err := decoder.Token()
	if err != nil || open != nil && open != json.Delim('[') {
		return malformed
	}
	if open == nil {
		return nil
	}
	for decoder.More() {
		if r.looked++; r.looked > lookedPerFound*r.limit {
			return beyond("the list of referrers is longer than is read (%d)", len(r.found))
		}
		var raw json.RawMessage
		if decoder.Decode(&raw) != nil {
			return malformed
		}
		var descriptor v1.Descriptor
		if json.Unmarshal(raw, &descriptor) != nil || checkDigest(descriptor.Digest) != nil || !r.wants(descriptor, filtered) {
			continue
		}
		if len(r.found) >= r.limit || int64(len(raw)) > r.room {
			return beyond("the list of referrers is longer than is read (%d)", len(r.found))
		}
		r.room -= int64(len(raw))
		r.found = append(r.found, descriptor)
	}
	if _, err := decoder.Token(); err != nil {
		return malformed
	}
	return nil
}

// wants applies the filter; a descriptor that does not tell its type passes when
// the upstream says that it has filtered.
func (r *referrers) wants(descriptor v1.Descriptor, filtered bool) bool {
	return r.artifactType == "" || descriptor.ArtifactType == r.artifactType || filtered && descriptor.ArtifactType == ""
}
