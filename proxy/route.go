package proxy

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// endpoint is one kind of resource of the registry API.
type endpoint int

const (
	endpointUnknown endpoint = iota
	endpointBase
	endpointCatalog
	endpointManifest
	endpointBlob
	endpointUpload
	endpointTags
	endpointReferrers
	endpointHook
)

// endpointNames are the values of the metric label "route".
var endpointNames = [...]string{"other", "base", "catalog", "manifest", "blob", "upload", "tags", "referrers", "hook"}

func (e endpoint) String() string { return endpointNames[e] }

// route is a parsed path. Nothing in it has been decoded or cleaned: what was
// parsed is what was sent, and one spelling is accepted for each resource.
type route struct {
	endpoint endpoint
	// name is the path between /v2/ and the endpoint, registry included.
	name string
	// tag is set for a manifest by tag; digest for everything by digest.
	tag    string
	digest v1.Hash
	// reference is what stood in the path, the tag or the digest.
	reference string
	// session is set for an upload that is gone on with.
	session string
}

// parseRoute parses an escaped path. The name is checked for its characters
// here and for its grammar in resolve, once it is known where its registry
// ends. An error is a *Error; the route's endpoint is set even then, as far as
// it is known, so that metrics and methods can be told.
func parseRoute(path string) (route, error) {
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case !ok || rest != "" && rest[0] != '/':
		return route{}, &Error{Status: http.StatusNotFound, Code: codeUnsupported, Message: "no such resource: the registry API is under /v2/"}
	case rest == "" || rest == "/":
		return route{endpoint: endpointBase}, nil
	case rest == "/_catalog":
		return route{endpoint: endpointCatalog}, nil
	}
	r, reference := splitRoute(rest[1:])
	if strings.IndexByte(path, '%') >= 0 {
		return route{endpoint: r.endpoint}, &Error{Status: http.StatusBadRequest, Code: codeNameInvalid, Message: "the path holds a percent-encoded character, which no name, tag or digest needs"}
	}
	if r.endpoint == endpointUnknown {
		return r, &Error{Status: http.StatusNotFound, Code: codeUnsupported, Message: "no such resource in the registry API"}
	}
	if !plausibleName(r.name) {
		return r, invalidName(r.name)
	}
	var err error
	switch r.endpoint {
	case endpointManifest:
		if strings.IndexByte(reference, ':') >= 0 {
			r.digest, err = parseDigest(reference)
		} else if r.tag = reference; !validTag(reference) {
			err = &Error{Status: http.StatusBadRequest, Code: codeTagInvalid, Message: "invalid tag " + quote(reference) + ": want up to 128 letters, digits, '.', '_' or '-'"}
		}
	case endpointBlob, endpointReferrers:
		r.digest, err = parseDigest(reference)
	case endpointUpload:
		r.session, reference = reference, "" // which stands in no log
	}
	if r.tag != "" || err == nil {
		r.reference = reference
	}
	return r, err
}

// uploadsPath stands before what goes on with an upload.
const uploadsPath = "/blobs/uploads/"

// splitRoute finds the endpoint from the path's end, by its last components
// alone: a reference or upload session holds no slash, so whatever stands before
// the last keyword is the name, though it may hold keywords itself. A path that
// goes on after /blobs/uploads/ with more than a session is no upload.
func splitRoute(path string) (route, string) {
	if name, ok := strings.CutSuffix(path, "/tags/list"); ok {
		return route{endpoint: endpointTags, name: name}, ""
	}
	if name, session, ok := cutLast(path, uploadsPath); ok && !strings.Contains(session, "/") {
		return route{endpoint: endpointUpload, name: name}, session
	}
	if name, ok := strings.CutSuffix(path, "/blobs/uploads"); ok {
		return route{endpoint: endpointUpload, name: name}, ""
	}
	head, reference, ok := cutLast(path, "/")
	if !ok {
		return route{}, ""
	}
	name, keyword, ok := cutLast(head, "/")
	if !ok {
		return route{}, ""
	}
	switch keyword {
	case "manifests":
		return route{endpoint: endpointManifest, name: name}, reference
	case "blobs":
		return route{endpoint: endpointBlob, name: name}, reference
	case "referrers":
		return route{endpoint: endpointReferrers, name: name}, reference
	}
	return route{}, ""
}

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

// plausibleName reports whether name is either a repository, or a registry and
// a repository.
func plausibleName(name string) bool {
	if len(name) > maxNameLength {
		return false
	}
	if validRepository(name) {
		return true
	}
	first, rest, ok := strings.Cut(name, "/")
	return ok && validRegistry(first) && validRepository(rest)
}

// place is where a request is directed: an upstream and a repository there.
type place struct {
	upstream   string // its configured name
	repository string // the upstream's own name for it
}

// canonical returns the name that policies, logs and metrics use.
func (p place) canonical() string { return p.upstream + "/" + p.repository }

// placeOf is the place of a canonical name.
func placeOf(canonical string) place {
	upstream, repository, _ := strings.Cut(canonical, "/")
	return place{upstream: upstream, repository: repository}
}

// resolve finds the upstream and repository of a request, in the order that
// the documentation gives: ns, the path's first component, the Host header,
// the default. It dials nothing. Errors are *Error, or *nowhere when there is
// no upstream for it.
func (l *live) resolve(name string, query url.Values, host string) (place, error) {
	first, rest, _ := strings.Cut(name, "/")
	if namespaces, ok := query["ns"]; ok {
		return l.resolveNamespace(name, namespaces)
	}
	if upstream := canonicalRegistry(first); rest != "" {
		if _, ok := l.Upstreams[upstream]; ok {
			return l.at(upstream, rest)
		}
	}
	if upstream, ok := l.upstreamOfHost(host); ok {
		return l.at(upstream, name)
	}
	if looksLikeRegistry(first) {
		return place{}, notConfigured(first, name)
	}
	if l.DefaultUpstream != "" {
		return l.at(l.DefaultUpstream, name)
	}
	return place{}, undirected(name)
}

func (l *live) resolveNamespace(name string, namespaces []string) (place, error) {
	if len(namespaces) != 1 {
		return place{}, &Error{Status: http.StatusBadRequest, Code: codeNameInvalid, Message: "ns is given more than once"}
	}
	ns := namespaces[0]
	if !validRegistry(ns) {
		return place{}, &Error{Status: http.StatusBadRequest, Code: codeNameInvalid, Message: "invalid ns " + quote(ns) + ": want a registry's host, with a port if it has one"}
	}
	upstream := canonicalRegistry(ns)
	if first, rest, _ := strings.Cut(name, "/"); rest != "" && l.isRegistry(first) {
		if canonicalRegistry(first) != upstream {
			return place{}, &Error{Status: http.StatusBadRequest, Code: codeNameInvalid, Message: "ns is " + quote(ns) + " but the path names the registry " + quote(first)}
		}
		name = rest
	}
	if _, ok := l.Upstreams[upstream]; !ok {
		return place{}, notConfigured(ns, ns+"/"+name)
	}
	return l.at(upstream, name)
}

// isRegistry reports whether the first component of a path means a registry: by its
// looks, or for it is an upstream's name.
func (l *live) isRegistry(first string) bool {
	_, ok := l.Upstreams[canonicalRegistry(first)]
	return ok || looksLikeRegistry(first)
}

func (l *live) at(upstream, repository string) (place, error) {
	if !validRepository(repository) {
		return place{}, invalidName(repository)
	}
	p := place{upstream: upstream, repository: canonicalRepository(upstream, repository)}
	if len(p.upstream)+len("/")+len(p.repository) > maxNameLength {
		return place{}, invalidName(p.canonical())
	}
	return p, nil
}

func normalHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

// hostIndex maps each listed value of the Host header to its upstream.
func hostIndex(upstreams map[string]Registered) map[string]string {
	index := make(map[string]string)
	for name, registered := range upstreams {
		for _, host := range registered.Hosts {
			index[normalHost(host)] = name
		}
	}
	return index
}

// upstreamOfHost looks a Host header up, with its port first: an entry without
// a port answers for every port.
func (l *live) upstreamOfHost(host string) (string, bool) {
	host = normalHost(host)
	if upstream, ok := l.byHost[host]; ok {
		return upstream, true
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		return "", false
	}
	upstream, ok := l.byHost[normalHost(name)]
	return upstream, ok
}
