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
	e, _, err := p.explain(ctx, image)
	return e, err
}

// ExplainThrough is Explain for an image that an index of its repository may list: a tag
// or a digest, which is decided about first, and whose manifests are known from then on
// when it is served, as if it had been pulled. The errors are also those about it.
func (p *Proxy) ExplainThrough(ctx context.Context, image, index string) (Explanation, error) {
	name, _ := splitImage(image)
	separator := ":"
	if strings.Contains(index, ":") {
		separator = "@"
	}
	through, pulled, err := p.explain(ctx, name+separator+index)
	if err != nil {
		return Explanation{}, err
	}
	if through.Decision.Served() && pulled.manifest.leads(through.Decision) {
		pulled.view.remember(ctx, pulled.manifest.digest, pulled.manifest.edges()...)
	}
	return p.Explain(ctx, image)
}

// explained is what was explained, for who goes on from there.
type explained struct {
	view     *view
	manifest *manifest
}

func (p *Proxy) explain(ctx context.Context, image string) (Explanation, explained, error) {
	l := p.current.Load()
	path, reference := splitImage(image)
	r, err := parseRoute("/v2/" + path + "/manifests/" + reference)
	if err != nil {
		return Explanation{}, explained{}, err
	}
	a := asker{client: "explain", image: image, reference: r.reference}
	at, err := l.resolve(r.name, nil, "")
	if n, ok := errors.AsType[*nowhere](err); ok {
		return Explanation{}, explained{}, l.refuse(ctx, n, r.digest, a)
	}
	if err != nil {
		return Explanation{}, explained{}, err
	}
	v := l.view(at)
	q := &request{live: l, route: r, at: at}
	m, _, err := q.manifest(ctx, v)
	if errors.Is(err, fs.ErrNotExist) {
		return Explanation{}, explained{}, notFound(q.wanted(), err)
	}
	if err != nil {
		return Explanation{}, explained{}, err
	}
	d, err := v.admission(ctx, m, r.tag, a)
	e := Explanation{Decision: d, Digest: m.digest, MediaType: string(m.mediaType), Index: m.index, Manifests: m.manifests}
	return e, explained{v, m}, err
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
