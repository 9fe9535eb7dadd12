package proxy

import (
	"encoding/json"
	"math/big"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"vidimus/policy"
)

// render is the one spelling of a route.
func render(r route) string {
	switch r.endpoint {
	case endpointManifest:
		return "/v2/" + r.name + "/manifests/" + r.reference
	case endpointBlob:
		return "/v2/" + r.name + "/blobs/" + r.digest.String()
	case endpointTags:
		return "/v2/" + r.name + "/tags/list"
	case endpointReferrers:
		return "/v2/" + r.name + "/referrers/" + r.digest.String()
	}
	return ""
}

func FuzzParseRoute(f *testing.F) {
	hex := strings.Repeat("0f", 32)
	for _, seed := range []string{
		"/v2", "/v2/", "/v2/_catalog", "/v2/nginx/manifests/latest", "/v2/docker.io/nginx/manifests/latest", "/v2/index.docker.io/nginx/tags/list",
		"/v2/ghcr.io/a/b/blobs/sha256:" + hex, "/v2/ghcr.io/a/b/referrers/sha256:" + hex, "/v2/a/blobs/uploads/", "/v2/manifests/manifests/manifests",
		"/v2/a/../b/manifests/v1", "/v2/a%2fb/manifests/v1", "/v2//manifests/v1", "/v2/localhost:5000/a/manifests/v1", "/v2/local/a/manifests/v1",
		"/v2/blobs/uploads/manifests/v1", "/v2/a/tags/list/manifests/v1", "/v2/a/blobs/uploads/x/blobs/sha256:" + hex,
		"/v2/a/blobs/uploads/b/manifests/v1", "/v2/a/blobs/uploads/tags/list", "/v2/a/blobs/uploads/manifests/v1", "/v2/a/manifests/v1/blobs/uploads/x",
	} {
		f.Add(seed)
	}
	l := &live{Revision: &Revision{DefaultUpstream: "docker.io", Upstreams: map[string]Registered{"docker.io": {}, "ghcr.io": {}, "local": {}}}}
	f.Fuzz(func(t *testing.T, path string) {
		r, err := parseRoute(path)
		if err != nil {
			return
		}
		switch r.endpoint {
		case endpointUnknown:
			t.Fatalf("%q is accepted and nothing", path)
		case endpointBase, endpointCatalog:
			return
		case endpointUpload: // of the three spellings none is anything else's
			session, ok := strings.CutPrefix(path, "/v2/"+r.name+"/blobs/uploads")
			if !ok || strings.Contains(strings.TrimPrefix(session, "/"), "/") || session != "" && session[0] != '/' {
				t.Fatalf("%q is an upload to %q", path, r.name)
			}
			return
		}
		if got := render(r); got != path {
			t.Fatalf("%q is read as %q", path, got)
		}
		if strings.ContainsAny(path, "%\\ \x00") || strings.Contains(path, "//") || strings.Contains(path, "/../") || strings.Contains(path, "/./") {
			t.Fatalf("%q is accepted", path)
		}
		at, err := l.resolve(r.name, nil, "")
		if err != nil {
			return
		}
		name := at.canonical()
		again, err := l.resolve(name, nil, "")
		if err != nil || again != at {
			t.Fatalf("%q is %q, which is %q, %v", r.name, name, again.canonical(), err)
		}
		byNamespace, err := l.resolve(at.repository, url.Values{"ns": {at.upstream}}, "elsewhere")
		if err == nil && byNamespace != at {
			t.Fatalf("%q in the namespace is %q", name, byNamespace.canonical())
		}
		if canonical, ok := policy.Canonical(name); !ok || canonical != name {
			t.Fatalf("policy reads %q as %q, %v", name, canonical, ok)
		}
	})
}

var rangeForm = regexp.MustCompile(`^bytes=\s*([0-9]*)-([0-9]*)\s*$`)

func FuzzSpan(f *testing.F) {
	for _, seed := range []string{"bytes=0-0", "bytes=-1", "bytes=5-", "bytes=-0", "bytes=9-1", "bytes=99999999999999999999-", "bytes=0-99999999999999999999", "bytes=0-1,2-3", "items=0-1", ""} {
		f.Add(seed, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		q := &request{r: &http.Request{Header: http.Header{"Range": {header}}}}
		got, err := q.span(`"x"`, size)
		want, satisfiable := model(header, size)
		if (err == nil) != satisfiable {
			t.Fatalf("%q of %d: %+v, %v", header, size, got, err)
		}
		if err == nil && got != want {
			t.Fatalf("%q of %d: %+v, want %+v", header, size, got, want)
		}
	})
}

// model reads a Range header after RFC 9110, in numbers without end.
func model(header string, size int64) (s span, satisfiable bool) {
	whole := span{end: size}
	m := rangeForm.FindStringSubmatch(header)
	if m == nil || m[1] == "" && m[2] == "" {
		return whole, true
	}
	number := func(text string) *big.Int {
		n, _ := new(big.Int).SetString(text, 10)
		return n
	}
	all := big.NewInt(size)
	if m[1] == "" {
		last := number(m[2])
		if last.Sign() == 0 || size == 0 {
			return span{}, false
		}
		if last.Cmp(all) > 0 {
			last = all
		}
		return span{first: size - last.Int64(), end: size, partial: true}, true
	}
	first := number(m[1])
	if m[2] != "" && number(m[2]).Cmp(first) < 0 {
		return whole, true
	}
	if first.Cmp(all) >= 0 {
		return span{}, false
	}
	if m[2] == "" || number(m[2]).Cmp(all) >= 0 {
		return span{first: first.Int64(), end: size, partial: true}, true
	}
	return span{first: first.Int64(), end: number(m[2]).Int64() + 1, partial: true}, true
}

func FuzzParseManifest(f *testing.F) {
	const desc = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f","size":2}`
	for _, seed := range []string{
		`{"schemaVersion":2,"config":` + desc + `,"layers":[` + desc + `]}`,
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` + desc + `]}`,
		`{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":` + desc + `,"layers":null}`,
		`{"schemaVersion":2,"manifests":[` + desc + `],"layers":[]}`, `{"schemaVersion":2,"Manifests":[]}`, `{"schemaVersion":1,"fsLayers":[]}`,
		`{"schemaVersion":2,"config":` + desc + `,"subject":` + desc + `}`, `{"schemaVersion":2,"manifests":null}`, `[]`, `{}`, ``,
	} {
		f.Add([]byte(seed), "")
		f.Add([]byte(seed), "application/vnd.oci.image.manifest.v1+json")
	}
	f.Fuzz(func(t *testing.T, content []byte, contentType string) {
		m, err := parseManifest(content, contentType)
		if err != nil {
			return
		}
		if m.digest != digestOf(content) || string(m.bytes) != string(content) {
			t.Fatal("another digest or other bytes")
		}
		if _, err := parseManifest(content, string(m.mediaType)); err != nil {
			t.Fatalf("not accepted under its own media type: %v", err)
		}
		// A reader that knows exact names alone sees the same document.
		var exact map[string]any
		if err := json.Unmarshal(content, &exact); err != nil {
			t.Fatal(err)
		}
		_, lists := exact["manifests"]
		_, layers := exact["layers"]
		_, config := exact["config"]
		if lists != m.index || m.index == (layers || config) || m.index == (m.mediaType == types.OCIManifestSchema1 || m.mediaType == types.DockerManifestSchema2) {
			t.Fatalf("index %v, but manifests %v, layers %v, config %v, %s", m.index, lists, layers, config, m.mediaType)
		}
		if named, ok := exact["mediaType"].(string); ok && named != string(m.mediaType) {
			t.Fatalf("media type %q is %q to others", m.mediaType, named)
		}
		var seen []any
		if m.index {
			seen, _ = exact["manifests"].([]any)
		} else {
			rest, _ := exact["layers"].([]any)
			seen = append([]any{exact["config"]}, rest...)
		}
		i := 0
		for d := range m.descriptors {
			other, _ := seen[i].(map[string]any)
			mediaType, _ := other["mediaType"].(string)
			if other["digest"] != d.Digest.String() || mediaType != string(d.MediaType) || other["size"] == nil && d.Size != 0 {
				t.Fatalf("descriptor %d is %+v to others %+v", i, d, other)
			}
			i++
		}
		if i != len(seen) {
			t.Fatalf("%d descriptors, %d to others", i, len(seen))
		}
	})
}
