package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/policy"
	"vidimus/proxy/access"
	"vidimus/verifier"
)

// Page sizes of lists.
const (
	defaultPage = 100
	maxPage     = 1000
)

// serveBase answers what clients ask first, to learn whether to log in. Who is let
// in unknown is told that credentials may help elsewhere (RFC 9110, section 11.6.1):
// podman and its kin send none anywhere unless they were asked for some here.
func (q *request) serveBase() error {
	if q.Access != nil && q.caller.Kind == access.Anonymous {
		q.w.Header().Set("Www-Authenticate", challenge)
	}
	return q.sendJSON("application/json", []byte("{}"))
}

func (q *request) sendJSON(mediaType string, body []byte) error {
	h := q.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h["Cache-Control"] = cacheControlHeader
	h["Vary"] = varyHeader
	q.setID()
	q.w.WriteHeader(http.StatusOK)
	if q.r.Method == http.MethodGet {
		q.w.Write(body)
	}
	return nil
}

// page reads n and last. A page that is too large is cut, one that is no
// number is refused.
func (q *request) page() (n int, last string, err error) {
	n = defaultPage
	if text := q.query.Get("n"); text != "" {
		wanted, ok := parseOffset(text)
		if !ok {
			return 0, "", &Error{Status: http.StatusBadRequest, Code: codePaginationNumber, Message: "invalid n " + quote(text) + ": want a number"}
		}
		n = int(min(wanted, maxPage))
	}
	return n, q.query.Get("last"), nil
}

// link tells where the next page is, in terms of this request.
func (q *request) link(n int, last string) {
	next := url.Values{"n": {strconv.Itoa(n)}, "last": {last}}
	if q.query.Has("ns") {
		next.Set("ns", q.query.Get("ns"))
	}
	q.w.Header().Set("Link", "<"+q.path+"?"+next.Encode()+`>; rel="next"`)
}

// serveCatalog lists the repositories from which a manifest was served whose
// content could be looked for through it, as far as the present policy serves
// anything from them. It decides about no image: what was served there may be
// denied by now, and where nothing enforces it may have been denied then.
func (q *request) serveCatalog() error {
	n, last, err := q.page()
	if err != nil {
		return err
	}
	repositories := make([]string, 0, n)
	from, some := last, max(n+1, defaultPage) // a caller may pull from few of many
	for n > 0 && len(repositories) <= n {
		known, err := q.proxy.index.Repositories(q.r.Context(), some, from)
		if err != nil {
			return fmt.Errorf("read the index: %w", err)
		}
		for _, name := range known {
			if q.covers(name) && q.may(name, access.Pull) {
				repositories = append(repositories, name)
			}
			from = name
		}
		if len(known) < some {
			break
		}
	}
	if len(repositories) > n {
		repositories = repositories[:n]
		q.link(n, repositories[n-1])
	}
	body, err := json.Marshal(map[string][]string{"repositories": repositories})
	if err != nil {
		return err
	}
	return q.sendJSON("application/json", body)
}

// covers reports whether something of a repository could be served.
func (l *live) covers(repository string) bool {
	scope := l.Gate.Scope(repository)
	return !scope.Denied || scope.Enforcement != policy.Enforce
}

// refuseUncovered answers for a repository from which the policy serves
// nothing, before its upstream is asked for anything.
func (q *request) refuseUncovered(v *view, a asker) error {
	if q.covers(v.name) || q.Access != nil && q.may(v.name, access.Inspect) {
		return nil
	}
	d, err := v.decide(q.r.Context(), &manifest{digest: q.route.digest}, q.route.tag, a)
	if err != nil {
		return err
	}
	if d.Served() {
		return nil
	}
	return denied(d, a.image)
}

// serveTags answers with the upstream's list of tags.
func (q *request) serveTags(v *view) error {
	if err := q.refuseUncovered(v, q.asker()); err != nil {
		return err
	}
	n, last, none := 0, q.query.Get("last"), false
	if q.query.Get("n") != "" {
		var err error
		if n, last, err = q.page(); err != nil {
			return err
		}
		// a page of nothing is asked for to see whether there is a repository
		none = n == 0
		n = max(n, 1)
	}
	if last != "" && !validTag(last) {
		return &Error{Status: http.StatusBadRequest, Code: codeTagInvalid, Message: "invalid last " + quote(last) + ": want a tag"}
	}
	tags, more, err := v.registered.Upstream.Tags(q.r.Context(), v.repository, n, last)
	if err != nil {
		return err
	}
	valid := make([]string, 0, len(tags))
	for _, tag := range tags {
		if validTag(tag) && !none {
			valid = append(valid, tag)
		}
	}
	if more && len(valid) > 0 {
		q.link(max(n, len(valid)), valid[len(valid)-1])
	}
	body, err := json.Marshal(struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{q.route.name, valid})
	if err != nil {
		return err
	}
	return q.sendJSON("application/json", body)
}

// serveReferrers lists the referrers of an allowed manifest: the upstream's
// list, or that of the fallback tag. The list is a list; each referrer that it
// names passes the gate by itself when it is asked for.
func (q *request) serveReferrers(v *view) error {
	ctx, a := q.r.Context(), q.asker()
	artifactType := q.query.Get("artifactType")
	subject, err := v.byDigest(ctx, q.route.digest)
	var referrers []v1.Descriptor
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// the specification wants an empty list for a subject that is not there
	case err != nil:
		return err
	default:
		d, err := v.gate(ctx, subject, "", a)
		if !d.Served() {
			if err == nil {
				err = denied(d, a.image)
			}
			if _, err = q.unadmitted(ctx, v, subject, d, err, a); err != nil {
				return err
			}
		}
		q.decided(d)
		if referrers, err = v.referrers(ctx, subject.digest, artifactType); err != nil {
			return err
		}
	}
	body, err := q.referrersIndex(referrers, artifactType)
	if err != nil {
		return err
	}
	if artifactType != "" {
		q.w.Header().Set("Oci-Filters-Applied", "artifactType")
	}
	return q.sendJSON(string(types.OCIImageIndex), body)
}

// referrers asks the upstream's referrers API, and where there is none reads
// the fallback tag.
func (v *view) referrers(ctx context.Context, subject v1.Hash, artifactType string) ([]v1.Descriptor, error) {
	listed, err := v.registered.Upstream.Referrers(ctx, v.repository, subject, artifactType)
	if !errors.Is(err, fs.ErrNotExist) {
		return listed, err
	}
	listing, err := v.byTag(ctx, fallbackTag(subject), v.TagTTL, v.MaxStale)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !listing.index || listing.digest == subject {
		return nil, nil // the tag holds an image, as a copy by digest leaves one
	}
	return listing.manifests, nil
}

func (q *request) referrersIndex(referrers []v1.Descriptor, artifactType string) ([]byte, error) {
	index := struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     types.MediaType `json:"mediaType"`
		Manifests     []v1.Descriptor `json:"manifests"`
	}{2, types.OCIImageIndex, make([]v1.Descriptor, 0, len(referrers))}
	for _, desc := range referrers {
		if isZero(desc.Digest) || q.Gate.Revoked(desc.Digest) {
			continue
		}
		// content that comes along in a descriptor would pass no gate
		desc.Data, desc.URLs = nil, nil
		if artifactType == "" || desc.ArtifactType == artifactType {
			index.Manifests = append(index.Manifests, desc)
		}
	}
	body, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	if len(body) > verifier.MaxManifestSize {
		return nil, fmt.Errorf("%w: the list of referrers is larger than %d bytes", errMismatch, verifier.MaxManifestSize)
	}
	return body, nil
}
