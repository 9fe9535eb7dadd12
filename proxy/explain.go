package proxy

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/policy"
)

// Explanation is what a pull would have met.
type Explanation struct {
	Decision  policy.Decision
	Digest    v1.Hash // of the manifest
	MediaType string
	Index     bool // the manifest lists manifests
	Manifests []v1.Descriptor
}

// Explain decides about an image as a pull of it would be decided, and serves
// nothing. image is written as a client writes it behind the proxy's address:
// registry/repository:tag, or @digest; without both the tag is latest. Its
// errors are those of a pull: AsError tells what a client would be told. When
// no decision could be reached the Explanation holds what is known beside the
// error.
func (p *Proxy) Explain(ctx context.Context, image string) (Explanation, error) {
	l := p.current.Load()
	path, reference := splitImage(image)
	r, err := parseRoute("/v2/" + path + "/manifests/" + reference)
	if err != nil {
		return Explanation{}, err
	}
	a := asker{client: "explain", image: image, reference: r.reference}
	at, err := l.resolve(r.name, nil, "")
	if n, ok := errors.AsType[*nowhere](err); ok {
		return Explanation{}, l.refuse(ctx, n, r.digest, a)
	}
	if err != nil {
		return Explanation{}, err
	}
	v := l.view(at)
	q := &request{live: l, route: r, at: at}
	m, _, err := q.manifest(ctx, v)
	if errors.Is(err, fs.ErrNotExist) {
		return Explanation{}, notFound(q.wanted(), err)
	}
	if err != nil {
		return Explanation{}, err
	}
	d, err := v.admission(ctx, m, r.tag, a)
	return Explanation{Decision: d, Digest: m.digest, MediaType: string(m.mediaType), Index: m.index, Manifests: m.manifests}, err
}

// splitImage splits an image into its name and its reference. Of a tag and a
// digest together the digest counts, as for every client.
func splitImage(image string) (name, reference string) {
	name, digest, ok := strings.Cut(image, "@")
	slash := strings.LastIndexByte(name, '/')
	colon := strings.LastIndexByte(name, ':')
	tag := "latest"
	if colon > slash {
		name, tag = name[:colon], name[colon+1:]
	}
	if ok {
		return name, digest
	}
	return name, tag
}

// AsError returns what a client that asked for a manifest would be told of err.
func AsError(err error) *Error { return asError(err, wanted{endpoint: endpointManifest}) }

// Undecided reports whether a client would be told that no decision could be
// reached, rather than that there is no such thing or that it is refused.
func (e *Error) Undecided() bool { return e.Status >= http.StatusInternalServerError }
