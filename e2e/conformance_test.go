package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// requirement is a row of what the OCI distribution specification, version 1.1, asks
// of a registry.
type requirement struct {
	id    string // the specification's of the endpoint, and what is asked
	check func(*remote)
}

// requirements are all rows: pull, push, content discovery and content management.
var requirements = slices.Concat(pullRequirements, blobRequirements, manifestRequirements, discoveryRequirements, managementRequirements)

// Through the proxy no requirement of the specification fails that the upstream does
// not fail by itself, but for what is listed.
func TestTheProxyConformsToTheSpecification(t *testing.T) {
	t.Parallel()
	for _, c := range conformers {
		t.Run(c.name, func(t *testing.T) {
			addr := c.start(t)
			proxy := real.StartVidimus(t, built(t, racing), real.Dir(t), fmt.Sprintf(`
cache: {directory: cache}
upstreams: {local: {url: "http://%s"}}
policies:
  - {match: "local/**", allow: unverified, push: {unsigned: true, delete: true}}
`, addr))
			for id := range c.listed {
				if !slices.ContainsFunc(requirements, func(r requirement) bool { return r.id == id }) {
					t.Errorf("%q is listed, and is no requirement", id)
				}
			}
			for i, r := range requirements {
				t.Run(r.id, func(t *testing.T) {
					t.Parallel()
					own := newRemote(t, addr, fmt.Sprintf("direct/r%d", i))
					r.check(own)
					through := newRemote(t, proxy.Addr, fmt.Sprintf("local/through/r%d", i))
					r.check(through)
					e, listed := c.listed[r.id]
					switch {
					case through.err == nil && listed:
						t.Errorf("it holds through the proxy, but is listed: %s", e.why)
					case through.err == nil:
					case !listed:
						t.Errorf("through the proxy: %v\nat the upstream itself: %v", through.err, own.err)
					case e.forced != (own.err != nil):
						t.Errorf("it is listed as forced %t: %s\nbut at the upstream itself: %v\nthrough the proxy: %v", e.forced, e.why, own.err, through.err)
					}
				})
			}
		})
	}
}

// remote is a registry that is looked at, and a repository in it that nobody else
// uses. What goes wrong first is err; nothing is asked after that.
type remote struct {
	t          *testing.T
	base       string
	repository string
	err        error
}

func newRemote(t *testing.T, addr, repository string) *remote {
	return &remote{t: t, base: "http://" + addr, repository: repository}
}

// reply is what came, with the body read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// failf notes the first thing that is wrong.
func (r *remote) failf(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// in is a path in the repository.
func (r *remote) in(path string) string { return "/v2/" + r.repository + "/" + path }

// sibling is the same registry with another repository.
func (r *remote) sibling(name string) *remote {
	return &remote{t: r.t, base: r.base, repository: r.repository + name}
}

// ask sends a request to a path, or a URL, and wants one of the statuses.
func (r *remote) ask(method, target string, header http.Header, body []byte, statuses ...int) reply {
	if r.err != nil {
		return reply{header: http.Header{}}
	}
	if strings.HasPrefix(target, "/") {
		target = r.base + target
	}
	request, err := http.NewRequestWithContext(r.t.Context(), method, target, bytes.NewReader(body))
	if err != nil {
		r.failf("%s %s: %w", method, target, err)
		return reply{header: http.Header{}}
	}
	for name, values := range header {
		request.Header[http.CanonicalHeaderKey(name)] = values
	}
	if request.Header.Get("Transfer-Encoding") == "chunked" {
		request.ContentLength = -1
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		r.failf("%w", err)
		return reply{header: http.Header{}}
	}
	defer response.Body.Close()
	a := reply{status: response.StatusCode, header: response.Header}
	if a.body, err = io.ReadAll(response.Body); err != nil {
		r.failf("%s %s: %w", method, target, err)
	}
	if !slices.Contains(statuses, a.status) {
		r.failf("%s %s: %d, want one of %v: %s", method, target, a.status, statuses, bytes.TrimSpace(a.body))
	}
	return a
}

func (r *remote) get(path string, statuses ...int) reply {
	return r.ask("GET", r.in(path), accepting, nil, statuses...)
}

func (r *remote) head(path string, statuses ...int) reply {
	a := r.ask("HEAD", r.in(path), accepting, nil, statuses...)
	if len(a.body) > 0 {
		r.failf("HEAD %s has a body", path)
	}
	return a
}

// accepting is what a client accepts that takes any manifest.
var accepting = http.Header{"Accept": {"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"}}

var errorCode = regexp.MustCompile(`^[A-Z_]+$`)

// says wants the body of an error as the specification has it, with one of the codes,
// or any.
func (r *remote) says(a reply, codes ...string) {
	var body struct {
		Errors []struct {
			Code    string
			Message string
			Detail  json.RawMessage
		}
	}
	if r.err != nil {
		return
	}
	if err := json.Unmarshal(a.body, &body); err != nil {
		r.failf("the error %d is %q: %w", a.status, a.body, err)
		return
	}
	if len(body.Errors) == 0 || !errorCode.MatchString(body.Errors[0].Code) {
		r.failf("the error %d is %s: no code", a.status, a.body)
		return
	}
	if len(codes) > 0 && !slices.Contains(codes, body.Errors[0].Code) {
		r.failf("the error %d is %s, want one of %v", a.status, a.body, codes)
	}
}

// is wants a header of an answer.
func (r *remote) is(a reply, name, want string) {
	if got := a.header.Get(name); got != want {
		r.failf("%s is %q, want %q", name, got, want)
	}
}

// located is the Location of an answer, with which a client goes on.
func (r *remote) located(a reply) string {
	if r.err != nil {
		return ""
	}
	base, err := url.Parse(r.base)
	if err != nil {
		r.failf("%w", err)
		return ""
	}
	next, err := base.Parse(a.header.Get("Location"))
	if err != nil || a.header.Get("Location") == "" {
		r.failf("Location is %q: %v", a.header.Get("Location"), err)
		return ""
	}
	return next.String()
}

// with adds a digest to the Location of an upload, which may have a query.
func with(location, digest string) string {
	separator := "?"
	if strings.Contains(location, "?") {
		separator = "&"
	}
	return location + separator + "digest=" + url.QueryEscape(digest)
}

// begin begins an upload.
func (r *remote) begin() string {
	return r.located(r.ask("POST", r.in("blobs/uploads/"), nil, nil, http.StatusAccepted))
}

// binary says that bytes come.
func binary(more ...string) http.Header {
	h := http.Header{"Content-Type": {"application/octet-stream"}}
	for i := 0; i+1 < len(more); i += 2 {
		h.Set(more[i], more[i+1])
	}
	return h
}

// blob pushes a blob, and returns its digest.
func (r *remote) blob(content []byte) string {
	digest := lying.Digest(content).String()
	r.ask("PUT", with(r.begin(), digest), binary(), content, http.StatusCreated)
	return digest
}

// put puts a manifest.
func (r *remote) put(reference string, content lying.Content, statuses ...int) reply {
	return r.ask("PUT", r.in("manifests/"+reference), http.Header{"Content-Type": {content.MediaType}}, content.Body, statuses...)
}

// image pushes an image or index with all that it has, by digest and under tags.
func (r *remote) image(content lying.Content, tags ...string) string {
	for _, child := range content.Children {
		r.image(child)
	}
	for _, blob := range content.Blobs {
		r.blob(blob)
	}
	for _, reference := range append([]string{content.Digest().String()}, tags...) {
		r.put(reference, content, http.StatusCreated)
	}
	return content.Digest().String()
}

// seeded is an image that only this repository has.
func (r *remote) seeded(name string) lying.Content { return lying.Image(r.repository + name) }

// bytesOf are n bytes that only this repository has.
func (r *remote) bytesOf(n int) []byte {
	return bytes.Repeat([]byte(r.repository+" "), n/len(r.repository)+1)[:n]
}
