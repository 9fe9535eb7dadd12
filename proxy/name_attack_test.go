package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
)

func TestD1HostileNames(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	served(t, w.get(manifestPath(web, "v1")), image) // the tests below must not find it
	w.up.Forget()
	hex := strings.Repeat("ab", 32)
	const name, tagCode, digestCode = "NAME_INVALID", "TAG_INVALID", "DIGEST_INVALID"
	tests := []struct {
		path   string
		status int
		code   string
	}{
		{"/v2/a/../ghcr.io/acme/web/manifests/v1", 400, name},
		{"/v2/../v2/ghcr.io/acme/web/manifests/v1", 400, name},
		{"/v2/./ghcr.io/acme/web/manifests/v1", 400, name},
		{"/v2//ghcr.io/acme/web/manifests/v1", 400, name},
		{"/v2/ghcr.io//acme/web/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/web//manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/web/manifests//v1", 404, "UNSUPPORTED"},
		{"/v2/ghcr.io/acme/web/manifests/v1/", 404, "UNSUPPORTED"},
		{"/v2/ghcr.io/acme/web/manifests/", 400, tagCode},
		{"/v2/ghcr.io/acme/web/manifests", 404, "UNSUPPORTED"},
		{"/v2/ghcr.io/acme/web/", 404, "UNSUPPORTED"},
		{"/v2/ghcr.io/acme/web", 404, "UNSUPPORTED"},
		{"//v2/ghcr.io/acme/web/manifests/v1", 404, "UNSUPPORTED"},
		{"/v2/manifests/v1", 404, "UNSUPPORTED"},
		{"/v2/%67hcr.io/acme/web/manifests/v1", 400, name},
		{"/v2/ghcr.io%2facme/web/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme%2Fweb/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/%2e%2e/web/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/..%2fweb/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/web/manifests/v%31", 400, name},
		{"/v2/ghcr.io/acme/web/%6danifests/v1", 400, name},
		{"/v2/ghcr.io/acme/web%00/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/web%0d%0aX:y/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/w\xc3\xa9b/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/web\\x/manifests/v1", 400, name},
		{"/v2/ghcr.io/Acme/web/manifests/v1", 400, name},
		{"/v2/GHCR.IO/acme/web/manifests/v1", 400, name},
		{"/v2/ghcr.io./acme/web/manifests/v1", 400, name},
		{"/v2/ghcr.io:/acme/web/manifests/v1", 400, name},
		{"/v2/ghcr.io:port/acme/web/manifests/v1", 400, name},
		{"/v2/user@ghcr.io/acme/web/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/web;x/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/web@sha256:" + hex + "/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/web:v1/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/_web/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/web./manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/a..b/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/a___b/manifests/v1", 400, name},
		{"/v2/ghcr.io/acme/" + strings.Repeat("a", 300) + "/manifests/v1", 400, name},
		{"/v2/ghcr.io/" + strings.Repeat("a/", 200) + "b/manifests/v1", 400, name},
		{"/v2/ghcr.io/manifests/v1", 403, "DENIED"},
		{"/v2/ghcr.io/acme/web/manifests/.v1", 400, tagCode},
		{"/v2/ghcr.io/acme/web/manifests/-v1", 400, tagCode},
		{"/v2/ghcr.io/acme/web/manifests/..", 400, tagCode},
		{"/v2/ghcr.io/acme/web/manifests/v1@x", 400, tagCode},
		{"/v2/ghcr.io/acme/web/manifests/" + strings.Repeat("a", 129), 400, tagCode},
		{"/v2/ghcr.io/acme/web/manifests/sha256:" + hex[:63], 400, digestCode},
		{"/v2/ghcr.io/acme/web/manifests/sha256:" + hex + "ab", 400, digestCode},
		{"/v2/ghcr.io/acme/web/manifests/sha256:" + strings.ToUpper(hex), 400, digestCode},
		{"/v2/ghcr.io/acme/web/manifests/SHA256:" + hex, 400, digestCode},
		{"/v2/ghcr.io/acme/web/manifests/sha512:" + hex + hex, 400, digestCode},
		{"/v2/ghcr.io/acme/web/manifests/md5:" + hex[:32], 400, digestCode},
		{"/v2/ghcr.io/acme/web/manifests/sha256:", 400, digestCode},
		{"/v2/ghcr.io/acme/web/manifests/:" + hex, 400, digestCode},
		{"/v2/ghcr.io/acme/web/manifests/v1:latest", 400, digestCode},
		{"/v2/ghcr.io/acme/web/blobs/sha256:../../etc/passwd", 404, "UNSUPPORTED"},
		{"/v2/ghcr.io/acme/web/blobs/sha256:..%2f..%2fx", 400, name},
		{"/v2/ghcr.io/acme/web/blobs/sha1:" + hex[:40], 400, digestCode},
		{"/v2/ghcr.io/acme/web/blobs/" + hex, 400, digestCode},
		{"/v2/ghcr.io/acme/web/blobs/", 400, digestCode},
		{"/v2/ghcr.io/acme/web/referrers/v1", 400, digestCode},
		{"/v2/ghcr.io/acme/web/tags/list/", 404, "UNSUPPORTED"},
		{"/v2/ghcr.io/acme/web/tags/", 404, "UNSUPPORTED"},
		{"/v2x/", 404, "UNSUPPORTED"},
		{"/v1/_ping", 404, "UNSUPPORTED"},
		{"/", 404, "UNSUPPORTED"},
		{"/metrics", 404, "UNSUPPORTED"},
		{"/healthz", 404, "UNSUPPORTED"},
		{"/debug/pprof/", 404, "UNSUPPORTED"},
		{"/api/decisions", 404, "UNSUPPORTED"},
		{"/v2/_catalog/", 404, "UNSUPPORTED"},
		{"/v2/_catalog/x", 404, "UNSUPPORTED"},
		{"/v2/ghcr.io/acme/web/manifests/v1?ns=%zz", 400, name},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%.80q", test.path), func(t *testing.T) {
			a := w.rawPath(test.path)
			refused(t, a, test.status, test.code, map[string]string{"DENIED": "no-upstream"}[test.code])
			if got := a.header.Get("Content-Type"); got != "application/json; charset=utf-8" {
				t.Errorf("Content-Type %q", got)
			}
		})
	}
	asked(t, w.up)
	asked(t, w.hub)
}

// What net/http itself refuses is never served, in whatever form.
func TestD6MalformedRequests(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	path := manifestPath(web, "v1")
	for name, request := range map[string]string{
		"a NUL in the path":    "GET /v2/ghcr.io/acme/web\x00/manifests/v1 HTTP/1.1\r\nHost: v\r\n\r\n",
		"a space in the path":  "GET /v2/ghcr.io/acme/web x/manifests/v1 HTTP/1.1\r\nHost: v\r\n\r\n",
		"a bad escape":         "GET /v2/ghcr.io/acme/%zz/manifests/v1 HTTP/1.1\r\nHost: v\r\n\r\n",
		"two Host headers":     "GET " + path + " HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"no Host header":       "GET " + path + " HTTP/1.1\r\n\r\n",
		"two lengths":          "GET " + path + " HTTP/1.1\r\nHost: v\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"a length and a chunk": "GET " + path + " HTTP/1.1\r\nHost: v\r\nTransfer-Encoding: x\r\nContent-Length: 1\r\n\r\nx",
		"CONNECT":              "CONNECT ghcr.io:443 HTTP/1.1\r\nHost: ghcr.io\r\n\r\n",
		"OPTIONS *":            "OPTIONS * HTTP/1.1\r\nHost: v\r\n\r\n",
		"another method":       "PROPFIND " + path + " HTTP/1.1\r\nHost: v\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			a := w.raw(http.MethodGet, request)
			if a.status >= 200 && a.status < 400 && name != "OPTIONS *" || a.header.Get("Docker-Content-Digest") != "" {
				t.Errorf("status %d %v\n%s", a.status, a.header, a.body)
			}
		})
	}
	t.Run("an absolute target goes to the path that it names", func(t *testing.T) {
		a := w.raw(http.MethodGet, "GET http://evil.example"+path+" HTTP/1.1\r\nHost: v\r\nConnection: close\r\n\r\n")
		served(t, a, image)
	})
}

// withHosts lists names for the upstreams, and an upstream without a dot.
func withHosts(w *world, s *settings) {
	s.policies = []policy.Policy{{Name: "all", Match: match(w.t, "**"), AllowUnverified: true}}
	s.revision = func(r *proxy.Revision) {
		ghcr, hub := r.Upstreams["ghcr.io"], r.Upstreams["docker.io"]
		ghcr.Hosts = []string{"mirror.example", "port.example:8443"}
		r.Upstreams["ghcr.io"] = ghcr
		r.Upstreams["local"] = proxy.Registered{Upstream: hub.Upstream}
		r.DefaultUpstream = "docker.io"
	}
}

func TestD2D3Routing(t *testing.T) {
	const nobody = ""
	tests := []struct {
		name       string
		path, host string
		canonical  string // what the upstream is asked for: registry and repository
		status     int    // when it is nobody
		code       string
	}{
		{"the path's first component", "/v2/ghcr.io/a/b/manifests/v1", "v", "ghcr.io/a/b", 0, ""},
		{"ns", "/v2/a/b/manifests/v1?ns=ghcr.io", "v", "ghcr.io/a/b", 0, ""},
		{"ns and the same registry in the path", "/v2/ghcr.io/a/b/manifests/v1?ns=ghcr.io", "v", "ghcr.io/a/b", 0, ""},
		{"ns and the same registry without a dot in the path", "/v2/local/a/manifests/v1?ns=local", "v", "local/a", 0, ""},
		{"ns beats the Host header", "/v2/a/b/manifests/v1?ns=docker.io", "mirror.example", "docker.io/a/b", 0, ""},
		{"the path beats the Host header", "/v2/docker.io/a/b/manifests/v1", "mirror.example", "docker.io/a/b", 0, ""},
		{"the Host header", "/v2/a/b/manifests/v1", "mirror.example", "ghcr.io/a/b", 0, ""},
		{"the Host header with a port", "/v2/a/b/manifests/v1", "mirror.example:5080", "ghcr.io/a/b", 0, ""},
		{"the Host header in another case", "/v2/a/b/manifests/v1", "Mirror.Example.", "ghcr.io/a/b", 0, ""},
		{"a Host entry with its port", "/v2/a/b/manifests/v1", "port.example:8443", "ghcr.io/a/b", 0, ""},
		{"a Host entry with another port is the default", "/v2/a/b/manifests/v1", "port.example:1", "docker.io/a/b", 0, ""},
		{"the default", "/v2/a/b/manifests/v1", "v", "docker.io/a/b", 0, ""},
		{"Docker Hub's official images", "/v2/nginx/manifests/v1", "v", "docker.io/library/nginx", 0, ""},
		{"D3 library in full", "/v2/docker.io/library/nginx/manifests/v1", "v", "docker.io/library/nginx", 0, ""},
		{"D3 index.docker.io", "/v2/index.docker.io/nginx/manifests/v1", "v", "docker.io/library/nginx", 0, ""},
		{"D3 registry-1.docker.io", "/v2/registry-1.docker.io/nginx/manifests/v1", "v", "docker.io/library/nginx", 0, ""},
		{"D3 ns=index.docker.io", "/v2/nginx/manifests/v1?ns=index.docker.io", "v", "docker.io/library/nginx", 0, ""},
		{"an upstream without a dot", "/v2/local/a/manifests/v1", "v", "local/a", 0, ""},
		{"another upstream has no library", "/v2/ghcr.io/nginx/manifests/v1", "v", "ghcr.io/nginx", 0, ""},
		{"D2 ns twice", "/v2/a/b/manifests/v1?ns=ghcr.io&ns=ghcr.io", "v", nobody, 400, "NAME_INVALID"},
		{"D2 ns at odds with the path", "/v2/ghcr.io/a/b/manifests/v1?ns=docker.io", "v", nobody, 400, "NAME_INVALID"},
		{"D2 ns at odds with a registry without a dot", "/v2/local/a/manifests/v1?ns=docker.io", "v", nobody, 400, "NAME_INVALID"},
		{"D2 ns at odds with a registry that is not configured", "/v2/quay.io/a/b/manifests/v1?ns=docker.io", "v", nobody, 400, "NAME_INVALID"},
		{"D2 an empty ns", "/v2/a/b/manifests/v1?ns=", "v", nobody, 400, "NAME_INVALID"},
		{"D2 an ns that is a URL", "/v2/a/b/manifests/v1?ns=https://ghcr.io", "v", nobody, 400, "NAME_INVALID"},
		{"D2 an ns with a user", "/v2/a/b/manifests/v1?ns=x@ghcr.io", "v", nobody, 400, "NAME_INVALID"},
		{"D2 an ns with a path", "/v2/a/b/manifests/v1?ns=ghcr.io/a", "v", nobody, 400, "NAME_INVALID"},
		{"D2 an ns in capitals", "/v2/a/b/manifests/v1?ns=GHCR.IO", "v", nobody, 400, "NAME_INVALID"},
		{"D2 an ns with a trailing dot", "/v2/a/b/manifests/v1?ns=ghcr.io.", "v", nobody, 400, "NAME_INVALID"},
		{"D2 an ns with a line break", "/v2/a/b/manifests/v1?ns=ghcr.io%0d%0aX:%20y", "v", nobody, 400, "NAME_INVALID"},
		{"D2 an ns that is not configured", "/v2/a/b/manifests/v1?ns=evil.example", "v", nobody, 403, "DENIED"},
		{"D2 an ns with a port", "/v2/a/b/manifests/v1?ns=ghcr.io:443", "v", nobody, 403, "DENIED"},
		{"D2 an ns on loopback", "/v2/a/b/manifests/v1?ns=127.0.0.1:5000", "v", nobody, 403, "DENIED"},
		{"D3 a registry with a port", "/v2/docker.io:443/nginx/manifests/v1", "v", nobody, 403, "DENIED"},
		{"D3 a registry that is not configured", "/v2/quay.io/a/manifests/v1", "v", nobody, 403, "DENIED"},
		{"D3 a registry below a configured one", "/v2/evil.ghcr.io/a/manifests/v1", "v", nobody, 403, "DENIED"},
		{"D3 a registry above a configured one", "/v2/ghcr.io.evil/a/manifests/v1", "v", nobody, 403, "DENIED"},
		{"D3 punycode", "/v2/xn--ghcr-abc.io/a/manifests/v1", "v", nobody, 403, "DENIED"},
		{"D3 localhost", "/v2/localhost/a/manifests/v1", "v", nobody, 403, "DENIED"},
		{"D3 an address", "/v2/127.0.0.1:5000/a/manifests/v1", "v", nobody, 403, "DENIED"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, withHosts)
			image := lying.Image("web")
			for _, repository := range []string{"a/b", "a", "nginx", "library/nginx"} {
				w.up.Push(repository, image, "v1")
				w.hub.Push(repository, image, "v1")
			}
			a := w.get(test.path, "Host", test.host)
			if test.canonical == nobody {
				refused(t, a, test.status, test.code, map[int]string{403: "no-upstream"}[test.status])
				asked(t, w.up)
				asked(t, w.hub)
				return
			}
			served(t, a, image)
			registry, repository, _ := strings.Cut(test.canonical, "/")
			upstream, other := w.hub, w.up
			if registry == "ghcr.io" {
				upstream, other = other, upstream
			}
			asked(t, upstream, "GET /v2/"+repository+"/manifests/v1")
			asked(t, other)
			if got := w.records.list(); len(got) != 1 || got[0].Repository != test.canonical {
				t.Errorf("records %v, want one about %s", got, test.canonical)
			}
			namespace := ""
			if _, ns, ok := strings.Cut(test.path, "ns="); ok {
				namespace = ns
			}
			checkHeaders(t, a.header, map[string]string{"Oci-Namespace": namespace})
		})
	}
}

func TestWithoutADefaultUpstream(t *testing.T) {
	w := newWorld(t)
	refused(t, w.get("/v2/acme/web/manifests/v1"), 403, "DENIED", "no-upstream")
	refused(t, w.get("/v2/nginx/tags/list"), 403, "DENIED", "no-upstream")
}

// D4: who asks makes no difference, nor does what is said to be forwarded.
func TestD4NoHeaderOpensAnything(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.Push("acme/web", image, "v1")
	for _, header := range [][]string{
		{"User-Agent", "cosign/v2.6.5"}, {"User-Agent", "scanner-trivy"}, {"X-Forwarded-For", "127.0.0.1"}, {"X-Forwarded-Host", "ghcr.io"},
		{"X-Original-Url", "/v2/"}, {"X-Http-Method-Override", "HEAD"}, {"Authorization", "Basic YWRtaW46YWRtaW4="}, {"Accept", "application/vnd.dev.cosign.simplesigning.v1+json"},
	} {
		t.Run(header[0]+" "+header[1], func(t *testing.T) {
			refused(t, w.get(manifestPath(web, "v1"), header...), 403, "DENIED", "unsigned")
		})
	}
}
