package proxy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"vidimus/e2e/lying"
	"vidimus/proxy"
	"vidimus/proxy/upstream"
	"vidimus/verifier"
)

const password = "correct-horse-battery-staple"

// withPassword gives the credentials of ghcr.io to its client.
func withPassword(_ *world, s *settings) {
	s.client = func(config *upstream.Config) {
		if config.Name == "ghcr.io" {
			config.Credentials = func(context.Context, string) (upstream.Credential, error) {
				return upstream.Credential{Username: "robot", Password: password}, nil
			}
		}
	}
}

// toldNothing wants that a host that is not the upstream saw no credentials.
func toldNothing(t *testing.T, elsewhere *lying.Registry) {
	t.Helper()
	for _, r := range elsewhere.Requests() {
		if r.Authorization() != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("%s carries %q", r, r.Authorization())
		}
	}
}

func TestC1C4CredentialsStayWithTheirUpstream(t *testing.T) {
	image := lying.Image("web")
	begin := func(t *testing.T) (w *world, elsewhere *lying.Registry) {
		w = newWorld(t, withPassword)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		return w, lying.StartAt(t, "127.0.0.2:0")
	}
	t.Run("C1 a realm on another host gets none", func(t *testing.T) {
		w, elsewhere := begin(t)
		w.up.Require(lying.Access{Username: "robot", Password: password, Bearer: true, Realm: elsewhere.URL + "/token"})
		if a := w.get(manifestPath(web, "v1")); a.status < 400 {
			t.Errorf("status %d", a.status)
		}
		asked(t, elsewhere)
	})
	t.Run("C2 a realm on link-local is not dialled", func(t *testing.T) {
		w, _ := begin(t)
		w.up.Require(lying.Access{Username: "robot", Password: password, Bearer: true, Realm: "http://169.254.169.254/token"})
		refused(t, w.get(manifestPath(web, "v1")), 503, "UNAVAILABLE", "")
	})
	for _, bearer := range []bool{true, false} {
		t.Run("C3 a redirect of a blob is followed without them", func(t *testing.T) {
			w, elsewhere := begin(t)
			w.up.Require(lying.Access{Username: "robot", Password: password, Bearer: bearer})
			served(t, w.get(manifestPath(web, "v1")), image)
			layer := lying.Digest(image.Blobs[1])
			elsewhere.PutBlob("cdn", layer.String(), image.Blobs[1])
			w.up.Lie(lying.Blob("acme/web", layer).GET(), lying.Redirect(307, elsewhere.URL+"/v2/cdn/blobs/"+layer.String()))
			servedBlob(t, w.get(blobPath(web, layer)), image.Blobs[1])
			if len(elsewhere.Log()) != 1 {
				t.Errorf("asked: %v", elsewhere.Log())
			}
			toldNothing(t, elsewhere)
		})
		t.Run("C4 a challenge after a redirect gets none", func(t *testing.T) {
			w, elsewhere := begin(t)
			w.up.Require(lying.Access{Username: "robot", Password: password, Bearer: bearer})
			served(t, w.get(manifestPath(web, "v1")), image)
			layer := lying.Digest(image.Blobs[1])
			elsewhere.Require(lying.Access{Username: "robot", Password: password, Bearer: bearer})
			w.up.Lie(lying.Blob("acme/web", layer).GET(), lying.Redirect(307, elsewhere.URL+"/v2/cdn/blobs/"+layer.String()))
			neverWhole(t, w.get(blobPath(web, layer)))
			toldNothing(t, elsewhere)
		})
	}
	t.Run("C3 redirects without end are ended", func(t *testing.T) {
		w, _ := begin(t)
		w.up.Lie(lying.Manifest("acme/web", "v1"), lying.Redirect(307, manifestPath("acme/web", "v1")))
		if a := w.get(manifestPath(web, "v1")); a.status < 500 {
			t.Errorf("status %d", a.status)
		}
		if n := len(w.up.Log()); n > 30 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("C5 the next page on another host is not read", func(t *testing.T) {
		w, elsewhere := begin(t)
		w.up.Lie(lying.Tags("acme/web"), lying.Header("Link", "<"+elsewhere.URL+`/v2/acme/web/tags/list?last=v1>; rel="next"`))
		w.up.Lie(lying.Referrers("acme/web", image.Digest()), lying.Header("Link", "<"+elsewhere.URL+`/v2/x/referrers/y>; rel="next"`))
		w.get("/v2/" + web + "/tags/list?n=5")
		w.get("/v2/" + web + "/referrers/" + image.Digest().String())
		asked(t, elsewhere)
	})
	t.Run("C5 pages without end are ended", func(t *testing.T) {
		w, _ := begin(t)
		path := "/v2/acme/web/referrers/" + image.Digest().String()
		w.up.Lie(lying.Referrers("acme/web", image.Digest()), lying.Header("Link", "<"+path+`?last=x>; rel="next"`))
		w.get("/v2/" + web + "/referrers/" + image.Digest().String())
		if n := len(w.up.Log()); n > 50 {
			t.Errorf("%d requests", n)
		}
	})
	t.Run("C13 each repository has a token of its own", func(t *testing.T) {
		w, _ := begin(t)
		w.up.PushSigned("acme/two", image, w.key, "v1")
		w.up.Require(lying.Access{Username: "robot", Password: password, Bearer: true})
		pull(t, w, web, "v1", image)
		pull(t, w, "ghcr.io/acme/two", "v1", image)
		tokens := map[string]string{}
		for _, r := range w.up.Requests() {
			token := strings.TrimPrefix(r.Authorization(), "Bearer ")
			if r.Repository == "" || token == r.Authorization() || r.Status != 200 {
				continue
			}
			if first, ok := tokens[token]; ok && first != r.Repository {
				t.Errorf("%s is used for %s and %s", token, first, r.Repository)
			}
			tokens[token] = r.Repository
		}
		if len(tokens) != 2 {
			t.Errorf("tokens %v", tokens)
		}
	})
	t.Run("C13 a client's credentials do not go upstream", func(t *testing.T) {
		w := newWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		served(t, w.get(manifestPath(web, "v1"), "Authorization", "Basic dXNlcjpjbGllbnRzZWNyZXQ=", "Cookie", "a=b", "X-Forwarded-For", "1.2.3.4"), image)
		toldNothing(t, w.up)
	})
}

func TestAnUpstreamThatRefusesOrFails(t *testing.T) {
	image := lying.Image("web")
	for _, test := range []struct {
		name   string
		faults []lying.Fault
		status int
		code   string
		stale  bool
	}{
		{"C8 429", []lying.Fault{lying.Status(429), lying.RetryAfter(120 * time.Second)}, 429, "TOOMANYREQUESTS", true},
		{"C8 500", []lying.Fault{lying.Status(500)}, 503, "UNAVAILABLE", true},
		{"C8 502", []lying.Fault{lying.Status(502)}, 503, "UNAVAILABLE", true},
		{"C8 503 with a time", []lying.Fault{lying.Status(503), lying.RetryAfter(120 * time.Second)}, 503, "UNAVAILABLE", true},
		{"C8 501", []lying.Fault{lying.Status(501)}, 503, "UNAVAILABLE", true},
		{"C8 504", []lying.Fault{lying.Status(504)}, 503, "UNAVAILABLE", true},
		{"C8 599", []lying.Fault{lying.Status(599)}, 503, "UNAVAILABLE", true},
		{"C8 a status that HTTP does not know", []lying.Fault{lying.Status(799)}, 503, "UNAVAILABLE", true},
		{"C8 408", []lying.Fault{lying.Status(408)}, 503, "UNAVAILABLE", true},
		{"C8 a reset", []lying.Fault{lying.Reset()}, 503, "UNAVAILABLE", true},
		{"C8 half an answer", []lying.Fault{lying.Unconditional(), lying.Break(20)}, 503, "UNAVAILABLE", true},
		{"C8 a redirect to where nobody listens", []lying.Fault{lying.Redirect(307, "http://127.0.0.1:1/")}, 503, "UNAVAILABLE", true},
		{"401", []lying.Fault{lying.Challenge(`Basic realm="x"`)}, 403, "DENIED", false},
		{"403", []lying.Fault{lying.Status(403)}, 403, "DENIED", false},
		{"451", []lying.Fault{lying.Status(451)}, 403, "DENIED", false},
		{"C9 404", []lying.Fault{lying.NotFound()}, 404, "MANIFEST_UNKNOWN", false},
		{"400", []lying.Fault{lying.Status(400)}, 502, "UNAVAILABLE", false},
		{"410", []lying.Fault{lying.Status(410)}, 502, "UNAVAILABLE", false},
		{"300", []lying.Fault{lying.Status(300)}, 502, "UNAVAILABLE", false},
		{"a redirect to nowhere", []lying.Fault{lying.Redirect(307, "")}, 502, "UNAVAILABLE", false},
		{"what is not HTTP", []lying.Fault{lying.Raw("SSH-2.0\r\n")}, 502, "UNAVAILABLE", false},
		{"gzip", []lying.Fault{lying.Gzip()}, 502, "UNAVAILABLE", false},
		{"wrong bytes", []lying.Fault{lying.FlipByte(9)}, 502, "UNAVAILABLE", false},
		{"a redirect to link-local", []lying.Fault{lying.Redirect(302, "http://169.254.169.254/")}, 503, "UNAVAILABLE", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			path := manifestPath(web, "v1")
			lie := w.up.Lie(lying.Manifest("acme/web", "v1"), test.faults...)
			check := func() {
				t.Helper()
				a := w.get(path)
				reason := map[int]string{502: "upstream-mismatch"}[test.status]
				refused(t, a, test.status, test.code, reason)
				if strings.Contains(test.name, "time") || test.status == 429 {
					checkHeaders(t, a.header, map[string]string{"Retry-After": "120"})
				}
				if got := w.head(path); got.status != test.status {
					t.Errorf("HEAD: %d", got.status)
				}
			}
			check()
			lie.Stop()
			served(t, w.get(path), image)
			w.up.Lie(lying.Manifest("acme/web", "v1"), test.faults...)
			served(t, w.get(path), image) // fresh
			w.clock.pass(10 * time.Minute)
			if !test.stale {
				check()
				served(t, w.get(byDigest(web, image)), image)
				return
			}
			a := w.get(path)
			served(t, a, image)
			stale := map[string]string{"Age": "600", "Warning": `110 - "vidimus: the upstream cannot be asked; the tag was last confirmed 10m0s ago"`}
			checkHeaders(t, a.header, stale)
			checkHeaders(t, w.head(path).header, stale)
			if a := w.get(path, "If-None-Match", "*"); a.status != 304 {
				t.Errorf("status %d", a.status)
			} else {
				checkHeaders(t, a.header, stale)
			}
			w.clock.pass(49*time.Minute + 59*time.Second)
			served(t, w.get(path), image)
			w.clock.pass(time.Second)
			check()
			served(t, w.get(byDigest(web, image)), image) // C10 by digest there is nothing to confirm
		})
	}
}

func TestC9ATagThatIsGoneStaysGone(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	served(t, w.get(manifestPath(web, "v1")), image)
	w.up.DeleteTag("acme/web", "v1")
	w.clock.pass(time.Minute)
	refused(t, w.get(manifestPath(web, "v1")), 404, "MANIFEST_UNKNOWN", "")
	w.up.Lie(lying.Any(), lying.Status(503))
	refused(t, w.get(manifestPath(web, "v1")), 503, "UNAVAILABLE", "")
}

// A stale tag is decided anew under the present policy.
func TestC10AStaleTagPassesTheGate(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	served(t, w.get(manifestPath(web, "v1")), image)
	w.clock.pass(time.Minute)
	w.up.Lie(lying.Any(), lying.Reset())
	served(t, w.get(manifestPath(web, "v1")), image)
	w.use("two", func(*settings) {})
	served(t, w.get(manifestPath(web, "v1")), image) // its signature is as stale as the tag
	w.use("three", func(s *settings) { s.authorities = []verifier.Authority{authority(t, "release", w.foreign)} })
	if a := w.get(manifestPath(web, "v1"), "If-None-Match", "*"); a.status < 400 {
		t.Errorf("status %d", a.status)
	}
}

func TestC12TLSFailuresAreNotStale(t *testing.T) {
	up := lying.StartTLS(t)
	ca := up.CA()
	w := newWorld(t, func(_ *world, s *settings) {
		s.hub = up
		s.client = func(config *upstream.Config) {
			if config.Name == "docker.io" {
				config.CA = ca
			}
		}
	})
	image := lying.Image("web")
	up.PushSigned("acme/web", image, w.key, "v1")
	path := manifestPath("docker.io/acme/web", "v1")
	served(t, w.get(path), image)
	ca = nil
	w.use("another CA", func(*settings) {})
	w.clock.pass(time.Minute)
	up.Forget()
	refused(t, w.get(path), 503, "UNAVAILABLE", "")
	refused(t, w.get(manifestPath("docker.io/acme/new", "v1")), 503, "UNAVAILABLE", "")
	asked(t, up) // not by plain HTTP either
	t.Run("a certificate for another name", func(t *testing.T) {
		ca = up.CA()
		w.use("another name", func(s *settings) {
			s.revision = func(r *proxy.Revision) {
				client, err := upstream.New(upstream.Config{Name: "docker.io", URL: strings.Replace(up.URL, "127.0.0.1", "localhost", 1), CA: ca})
				if err != nil {
					t.Fatal(err)
				}
				r.Upstreams["docker.io"] = proxy.Registered{Upstream: client}
			}
		})
		refused(t, w.get(path), 503, "UNAVAILABLE", "")
		asked(t, up)
	})
}

func TestQuirksOfRegistries(t *testing.T) {
	image := lying.Image("web")
	t.Run("404 by digest right after the tag, as registry.k8s.io", func(t *testing.T) {
		w := newWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		w.up.Lie(lying.ByDigest("acme/web"), lying.NotFound())
		if a := w.head(manifestPath(web, "v1")); a.status != 200 {
			t.Fatalf("HEAD: %d", a.status)
		}
		pull(t, w, web, image.Digest().String(), image)
	})
	for _, status := range []int{401, 403} {
		hidden := lying.Status(status)
		if status == 401 {
			hidden = lying.Challenge(`Basic realm="x"`)
		}
		t.Run("a refusal for a signature's tag that is not there, as Artifactory", func(t *testing.T) {
			w := newWorld(t)
			w.up.Push("acme/web", image, "v1")
			w.up.Lie(lying.ByTag("acme/web"), lying.When(404, hidden))
			refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
			w.up.Sign("acme/web", image.Digest(), w.key)
			w.clock.pass(time.Minute)
			served(t, w.get(manifestPath(web, "v1")), image)
		})
		t.Run("a refusal when the image is not readable either is no decision", func(t *testing.T) {
			w := newWorld(t)
			w.up.Push("acme/web", image, "v1")
			w.up.Lie(lying.ByTag("acme/web"), lying.When(404, hidden))
			w.up.Lie(lying.ByDigest("acme/web"), hidden)
			refused(t, w.get(manifestPath(web, "v1")), 503, "UNAVAILABLE", "inconclusive")
		})
	}
	t.Run("C14 cookies are not kept", func(t *testing.T) {
		w := newWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		w.up.Lie(lying.Any(), lying.Header("Set-Cookie", "session=1"))
		a := w.get(manifestPath(web, "v1"))
		served(t, a, image)
		if a.header.Get("Set-Cookie") != "" {
			t.Error("a cookie goes to the client")
		}
		toldNothing(t, w.up)
	})
}
