package lying

import (
	"context"
	"net/http"
	"net/url"
	"strings"
)

// Kind says what a request asks for.
type Kind string

// Kinds of requests.
const (
	KindPing      Kind = "ping" // /v2/
	KindManifest  Kind = "manifest"
	KindBlob      Kind = "blob"
	KindTags      Kind = "tags"
	KindReferrers Kind = "referrers"
	KindCatalog   Kind = "catalog"
	KindUpload    Kind = "upload"
	KindToken     Kind = "token" // /token
	KindOther     Kind = "other"
)

// Request is one request as it came.
type Request struct {
	Method string
	Path   string // as it was sent, escaped
	Query  url.Values
	Header http.Header
	Host   string

	Kind       Kind
	Repository string
	Reference  string // tag or digest
	Status     int    // what was answered; 0 when nothing was yet
}

// String returns method, path and query, as "GET /v2/acme/web/manifests/v1".
func (q Request) String() string {
	if len(q.Query) > 0 {
		return q.Method + " " + q.Path + "?" + q.Query.Encode()
	}
	return q.Method + " " + q.Path
}

// Authorization returns the Authorization header.
func (q Request) Authorization() string { return q.Header.Get("Authorization") }

// parse sorts a request by its path.
func parse(req *http.Request) *Request {
	q := &Request{
		Method: req.Method,
		Path:   req.URL.EscapedPath(),
		Query:  req.URL.Query(),
		Header: req.Header.Clone(),
		Host:   req.Host,
		Kind:   KindOther,
	}
	path, isV2 := strings.CutPrefix(req.URL.Path, "/v2/")
	switch {
	case req.URL.Path == "/token":
		q.Kind = KindToken
	case !isV2 && req.URL.Path != "/v2":
	case path == "" || req.URL.Path == "/v2":
		q.Kind = KindPing
	case path == "_catalog":
		q.Kind = KindCatalog
	default:
		q.parseRepository(path)
	}
	return q
}

func (q *Request) parseRepository(path string) {
	for _, route := range []struct {
		infix string
		kind  Kind
	}{
		{"/blobs/uploads/", KindUpload},
		{"/blobs/", KindBlob},
		{"/manifests/", KindManifest},
		{"/referrers/", KindReferrers},
		{"/tags/", KindTags},
	} {
		if i := strings.LastIndex(path, route.infix); i > 0 {
			q.Kind, q.Repository, q.Reference = route.kind, path[:i], path[i+len(route.infix):]
			return
		}
	}
}

// record keeps a request and wakes whoever awaits it.
func (r *Registry) record(req *http.Request) *Request {
	q := parse(req)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, q)
	close(r.changed)
	r.changed = make(chan struct{})
	return q
}

// Requests returns the requests so far, in order of arrival; with matches,
// those that any of them fits (Nth and its like do not count here).
func (r *Registry) Requests(matches ...Match) []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.matching(matches)
}

func (r *Registry) matching(matches []Match) []Request {
	var found []Request
	for _, q := range r.requests {
		fits := len(matches) == 0
		for _, m := range matches {
			fits = fits || m.fits(*q)
		}
		if fits {
			found = append(found, *q)
		}
	}
	return found
}

// Log returns the requests so far as lines, for exact-request tests.
func (r *Registry) Log(matches ...Match) []string {
	lines := []string{}
	for _, q := range r.Requests(matches...) {
		lines = append(lines, q.String())
	}
	return lines
}

// Forget drops the requests so far, for the next step of a test.
func (r *Registry) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}

// Await returns when at least n requests that match have arrived, answered or
// not, with those requests; or ctx's error.
func (r *Registry) Await(ctx context.Context, match Match, n int) ([]Request, error) {
	for {
		r.mu.Lock()
		found, changed := r.matching([]Match{match}), r.changed
		r.mu.Unlock()
		if len(found) >= n {
			return found, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return found, ctx.Err()
		}
	}
}
