package proxy

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"vidimus/policy"
	"vidimus/verifier"
)

// Header values that every answer shares.
var (
	apiVersionHeader   = []string{"registry/2.0"}
	noSniffHeader      = []string{"nosniff"}
	cacheControlHeader = []string{"private, no-cache"}
	varyHeader         = []string{"Accept, Authorization"}
)

// serveManifest answers GET and HEAD for a manifest by tag or digest: the
// bytes that the gate decided on, as the upstream made them, whatever types
// the client says it accepts. Converting them would break what was signed.
func (q *request) serveManifest(v *view) error {
	ctx, a := q.r.Context(), q.asker()
	m, stale, err := q.manifest(ctx, v)
	if err != nil {
		return err
	}
	a.names = true
	d, err := v.gate(ctx, m, q.route.tag, a)
	if !d.Served() {
		if err == nil {
			err = denied(d, a.image)
		}
		right, err := q.unadmitted(ctx, v, m, d, err, a)
		if err != nil {
			return err
		}
		q.noteEvidence(ctx, v, m)
		q.sendUnadmitted(d, m, right)
		return nil
	}
	q.decided(d)
	q.noteEvidence(ctx, v, m)
	if m.leads(d) {
		v.remember(ctx, m.digest, m.edges()...)
	}
	if stale > 0 {
		q.w.Header().Set("Age", strconv.Itoa(int(stale/time.Second)))
		q.warn("110", "the upstream cannot be asked; the tag was last confirmed "+stale.Round(time.Second).String()+" ago")
	} else {
		q.keepAnswer(ctx, v, m, d)
	}
	q.sendManifest(m)
	return nil
}

// sendManifest answers with a manifest that may be served: the one end of the
// short path and of the long.
func (q *request) sendManifest(m *manifest) {
	q.setID()
	h := q.w.Header()
	h["Docker-Content-Digest"] = m.digestHeader
	h["Etag"] = m.etagHeader
	h["Cache-Control"] = cacheControlHeader
	h["Vary"] = varyHeader
	if matches(q.r.Header["If-None-Match"], m.etagHeader[0]) {
		q.w.WriteHeader(http.StatusNotModified)
		return
	}
	h["Content-Type"] = m.typeHeader
	if len(m.bytes) > smallAnswer || q.r.Method != http.MethodGet {
		h["Content-Length"] = m.lengthHeader
	}
	q.w.WriteHeader(http.StatusOK)
	if q.r.Method == http.MethodGet {
		q.w.Write(m.bytes)
		q.proxy.metrics.transferred(fromCache, len(m.bytes))
	}
}

// smallAnswer is up to what size net/http tells an answer's length by itself, as
// http.ResponseWriter promises. A ninth header makes two larger maps of each
// answer's, which costs a tenth of it.
const smallAnswer = 2 << 10

// leads reports whether what the manifest references may be looked for through
// it, d being why it is served. An index that is served as a list of referrers
// makes nothing that it lists servable, and one that lists too much neither.
func (m *manifest) leads(d policy.Decision) bool {
	asListing := d.About != ""
	return !m.index || !asListing && len(m.manifests) <= verifier.MaxChildren
}

// manifest resolves what was asked for, once.
func (q *request) manifest(ctx context.Context, v *view) (*manifest, time.Duration, error) {
	if q.route.tag != "" {
		r, err := v.byTag(ctx, q.route.tag, v.TagTTL, v.MaxStale)
		return r.manifest, r.stale, err
	}
	m, err := v.byDigest(ctx, q.route.digest)
	return m, 0, err
}

// matches reports whether an If-None-Match header names etag (RFC 9110,
// section 13.1.2).
func matches(values []string, etag string) bool {
	for _, value := range values {
		for candidate := range strings.SplitSeq(value, ",") {
			candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
			if candidate == etag || candidate == "*" {
				return true
			}
		}
	}
	return false
}
