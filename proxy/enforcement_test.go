package proxy_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/verifier"
)

func TestEnforcement(t *testing.T) {
	unsigned := lying.Image("unsigned")
	layer := unsigned.Blobs[1]
	for _, test := range []struct {
		name string
		mode policy.Enforcement
		warn bool
	}{{"warn", policy.Warn, true}, {"observe", policy.Observe, false}} {
		begin := func(t *testing.T) *world {
			w := newWorld(t, enforcing(test.mode))
			w.up.Push("acme/web", unsigned, "v1")
			return w
		}
		t.Run(test.name+" serves what is unsigned, and records that", func(t *testing.T) {
			w := begin(t)
			a := w.get(manifestPath(web, "v1"))
			served(t, a, unsigned)
			if warning := a.header.Get("Warning"); test.warn != strings.HasPrefix(warning, `299 - "vidimus: `) {
				t.Errorf("Warning: %q", warning)
			}
			servedBlob(t, w.get(blobPath(web, lying.Digest(layer))), layer)
			w.proxy.Close()
			records := w.records.list()
			if len(records) == 0 || records[0].Decision != "denied" || records[0].Reason != "unsigned" || !records[0].Served || records[0].Enforcement != test.name {
				t.Errorf("records %+v", records)
			}
		})
		t.Run(test.name+" serves where nobody could tell", func(t *testing.T) {
			w := begin(t)
			w.up.Lie(lying.Manifest("acme/web", tag(unsigned.Digest())), lying.Status(500))
			served(t, w.get(manifestPath(web, "v1")), unsigned)
			w.proxy.Close()
			if records := w.records.list(); len(records) == 0 || records[0].Decision != "inconclusive" {
				t.Errorf("records %+v", records)
			}
		})
		t.Run(test.name+" serves where no policy fits", func(t *testing.T) {
			w := begin(t)
			w.up.Push("none/web", unsigned, "v1")
			served(t, w.get(manifestPath("ghcr.io/none/web", "v1")), unsigned)
		})
		t.Run(test.name+" serves no wrong bytes", func(t *testing.T) {
			w := begin(t)
			w.up.Lie(lying.Manifest("acme/web", unsigned.Digest().String()), lying.FlipByte(30))
			refused(t, w.get(byDigest(web, unsigned)), 502, "UNAVAILABLE", "upstream-mismatch")
			served(t, w.get(manifestPath(web, "v1")), unsigned)
			w.up.Lie(lying.Blob("acme/web", lying.Digest(layer)), lying.FlipByte(-1))
			refused(t, w.get(blobPath(web, lying.Digest(layer))), 502, "UNAVAILABLE", "upstream-mismatch")
		})
		t.Run(test.name+" serves nothing that is revoked", func(t *testing.T) {
			w := begin(t)
			index := lying.Index(unsigned)
			w.up.Push("acme/web", index, "index")
			served(t, w.get(manifestPath(web, "v1")), unsigned)
			servedBlob(t, w.get(blobPath(web, lying.Digest(layer))), layer)
			w.use("two", func(s *settings) { s.revoked = []v1.Hash{unsigned.Digest()} })
			for _, reference := range []string{"v1", unsigned.Digest().String()} {
				refused(t, w.get(manifestPath(web, reference)), 403, "DENIED", "revoked")
				refused(t, w.get(manifestPath(web, reference), "If-None-Match", "*"), 403, "DENIED", "revoked")
			}
			refused(t, w.get(blobPath(web, lying.Digest(layer))), 404, "BLOB_UNKNOWN", "")
			refused(t, w.get("/v2/"+web+"/referrers/"+unsigned.Digest().String()), 403, "DENIED", "revoked")
			served(t, w.get(manifestPath(web, "index")), index)
			refused(t, w.get(byDigest(web, unsigned)), 403, "DENIED", "revoked") // as a child, too
			w.use("three", func(s *settings) { s.revoked = []v1.Hash{lying.Digest(layer)} })
			refused(t, w.get(blobPath(web, lying.Digest(layer))), 403, "DENIED", "revoked")
			refused(t, w.get(blobPath(web, lying.Digest(layer)), "If-None-Match", "*"), 403, "DENIED", "revoked")
			if a := w.head(blobPath(web, lying.Digest(layer))); a.status != 403 {
				t.Errorf("HEAD: %d", a.status)
			}
		})
	}
}

func TestRevokedWhateverVouches(t *testing.T) {
	image := lying.Image("web")
	layer := lying.Digest(image.Blobs[1])
	for name, digest := range map[string]v1.Hash{"the manifest": image.Digest(), "a layer": layer} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			w.up.Push("open/web", image, "v1")
			for _, repository := range []string{web, "ghcr.io/open/web"} {
				pull(t, w, repository, "v1", image)
			}
			w.use("two", func(s *settings) {
				s.revoked = []v1.Hash{digest}
				s.exceptions = []policy.Exception{{Match: match(t, "ghcr.io/**"), Digests: []v1.Hash{digest}, Until: w.clock.now().Add(time.Hour), Reason: "INC-1"}}
			})
			for _, repository := range []string{web, "ghcr.io/open/web"} {
				if name == "the manifest" {
					refused(t, w.get(manifestPath(repository, "v1")), 403, "DENIED", "revoked")
					refused(t, w.get(byDigest(repository, image), "If-None-Match", `"`+digest.String()+`"`), 403, "DENIED", "revoked")
					refused(t, w.get(blobPath(repository, layer)), 404, "BLOB_UNKNOWN", "")
					continue
				}
				served(t, w.get(manifestPath(repository, "v1")), image)
				refused(t, w.get(blobPath(repository, layer)), 403, "DENIED", "revoked")
				refused(t, w.get(blobPath(repository, layer), "Range", "bytes=0-0"), 403, "DENIED", "revoked")
			}
		})
	}
}

func TestInconclusiveIsNotDenied(t *testing.T) {
	image := lying.Image("web")
	for name, faults := range map[string][]lying.Fault{
		"500": {lying.Status(500)}, "503": {lying.Status(503)}, "401": {lying.Challenge(`Basic realm="x"`)},
		"a reset": {lying.Reset()}, "a redirect into the void": {lying.Redirect(303, "http://127.0.0.1:1/")},
		"a redirect to link-local": {lying.Redirect(303, "http://169.254.169.254/latest/")},
	} {
		t.Run("the signature's tag answers "+name, func(t *testing.T) {
			w := newWorld(t)
			w.up.Push("acme/web", image, "v1")
			w.up.Lie(lying.Manifest("acme/web", tag(image.Digest())), faults...)
			if name == "401" { // the image itself is not readable now, or it would mean absent
				w.up.Lie(lying.Manifest("acme/web", image.Digest().String()), faults...)
			}
			a := w.get(manifestPath(web, "v1"))
			refused(t, a, 503, "UNAVAILABLE", "inconclusive")
			detail := fault(t, a).Errors[0].Detail
			if records := w.records.list(); len(records) != 1 || records[0].ID != detail.ID || records[0].Decision != "inconclusive" || records[0].Served {
				t.Errorf("records %+v, answered id %s", records, detail.ID)
			}
			w.up.BeHonest() // it is not remembered
			refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
		})
	}
	t.Run("429 is told with the time to wait", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("acme/web", image, "v1")
		w.up.Lie(lying.Manifest("acme/web", tag(image.Digest())), lying.Status(429), lying.RetryAfter(90*time.Second))
		a := w.get(manifestPath(web, "v1"))
		refused(t, a, 503, "UNAVAILABLE", "inconclusive")
		checkHeaders(t, a.header, map[string]string{"Retry-After": "90"})
	})
	t.Run("a suspended authority", func(t *testing.T) {
		w := newWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		served(t, w.get(manifestPath(web, "v1")), image)
		w.use("two", func(s *settings) {
			s.authorities = []verifier.Authority{{Name: "release", Keys: s.authorities[0].Keys, Suspended: "release.pub is gone"}}
		})
		refused(t, w.get(byDigest(web, image), "If-None-Match", "*"), 503, "UNAVAILABLE", "inconclusive")
	})
}

// panicking is a gate that panics at one of its methods.
type panicking struct {
	proxy.Gate
	at string
}

func (g panicking) Evaluate(ctx context.Context, r verifier.Registry, s policy.Subject) (policy.Decision, error) {
	if g.at == "Evaluate" {
		panic("boom")
	}
	return g.Gate.Evaluate(ctx, r, s)
}

func (g panicking) Scope(repository string) policy.Scope {
	if g.at == "Scope" {
		panic("boom")
	}
	return g.Gate.Scope(repository)
}

func (g panicking) Revoked(digest v1.Hash) bool {
	if g.at == "Revoked" {
		panic("boom")
	}
	return g.Gate.Revoked(digest)
}

func TestF12APanicIsNeverAPass(t *testing.T) {
	image := lying.Image("web")
	for _, at := range []string{"Evaluate", "Scope", "Revoked"} {
		for _, mode := range []policy.Enforcement{policy.Enforce, policy.Observe} {
			t.Run(at+" under "+mode.String(), func(t *testing.T) {
				w := newWorld(t, enforcing(mode), func(_ *world, s *settings) {
					s.gate = func(g proxy.Gate) proxy.Gate { return panicking{g, at} }
				})
				w.up.PushSigned("acme/web", image, w.key, "v1")
				for range 2 {
					a := w.get(manifestPath(web, "v1"))
					w.proxy.Close()
					if mode == policy.Observe && at == "Evaluate" {
						served(t, a, image) // it goes out before anybody decides
						continue
					}
					if a.status != 503 || fault(t, a).Errors[0].Code != "UNAVAILABLE" || strings.Contains(string(a.body), "boom") {
						t.Errorf("status %d %v\n%s", a.status, a.broken, a.body)
					}
				}
				if !strings.Contains(w.log.String(), "boom") {
					t.Error("the log says nothing of it")
				}
				w.use("sound", func(s *settings) { s.gate = nil })
				served(t, w.get(manifestPath(web, "v1")), image)
			})
		}
	}
}

// behind is a gate that panics when it is asked about a repository again, which
// observe does after the answer.
type behind struct {
	proxy.Gate
	asked *atomic.Int32
}

func (g behind) Scope(repository string) policy.Scope {
	if g.asked.Add(1) > 1 {
		panic("boom")
	}
	return g.Gate.Scope(repository)
}

func TestF12APanicBehindAnAnswerEndsNothing(t *testing.T) {
	w := newWorld(t, enforcing(policy.Observe), func(_ *world, s *settings) {
		s.gate = func(g proxy.Gate) proxy.Gate { return behind{g, new(atomic.Int32)} }
	})
	image := lying.Image("web")
	w.up.Push("acme/web", image, "v1")
	served(t, w.get(manifestPath(web, "v1")), image)
	w.proxy.Close()
	if !strings.Contains(w.log.String(), "boom") {
		t.Error("the log says nothing of it")
	}
}

func TestRecords(t *testing.T) {
	image := lying.Image("web")
	t.Run("one that is required and fails serves nothing", func(t *testing.T) {
		for _, mode := range []policy.Enforcement{policy.Enforce, policy.Warn, policy.Observe} {
			w := newWorld(t, enforcing(mode), func(_ *world, s *settings) { s.requireRecord = true })
			w.up.PushSigned("acme/web", image, w.key, "v1")
			w.up.Push("acme/two", image, "v1")
			w.records.breakWith(errors.New("disk full"))
			for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image), manifestPath("ghcr.io/acme/two", "v1"), manifestPath(web, tag(image.Digest()))} {
				a := w.get(path)
				refused(t, a, 503, "UNAVAILABLE", "inconclusive")
				if strings.Contains(string(a.body), "disk full") {
					t.Errorf("%s", a.body)
				}
			}
			refused(t, w.get(blobPath(web, lying.Digest(image.Blobs[1]))), 404, "BLOB_UNKNOWN", "")
			w.records.breakWith(nil)
			served(t, w.get(manifestPath(web, "v1")), image)
		}
	})
	t.Run("one that is not required and fails is a line in the log", func(t *testing.T) {
		w := newWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		w.records.breakWith(errors.New("disk full"))
		served(t, w.get(manifestPath(web, "v1")), image)
		if !strings.Contains(w.log.String(), "disk full") {
			t.Error("the log says nothing of it")
		}
	})
	t.Run("one has all fields", func(t *testing.T) {
		w := newWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		a := w.get(manifestPath(web, "v1"), "User-Agent", "containerd/2.3")
		r := w.records.list()[0]
		if r.ID == "" || r.ID != a.header.Get("X-Request-Id") || !r.Time.Equal(w.clock.now()) || r.Decision != "allowed" || r.Reason != "" ||
			r.Repository != web || r.Reference != "v1" || r.Digest != image.Digest().String() || r.Policy != "acme" ||
			r.Enforcement != "enforce" || !r.Served || len(r.Authorities) != 1 || r.Authorities[0] != "release" ||
			!strings.Contains(string(r.Evidence), w.key.ID()) || r.Client != "127.0.0.1" || r.UserAgent != "containerd/2.3" || r.Revision != "one" || r.Explained == "" {
			t.Errorf("%+v\n%s", r, r.Evidence)
		}
	})
	t.Run("a denial's id is in the answer's header, message, detail and record", func(t *testing.T) {
		w := newWorld(t, func(_ *world, s *settings) { s.policies[0].Message = "Release with make release" })
		w.up.Push("acme/web", image, "v1")
		a := w.get(manifestPath(web, "v1"))
		refused(t, a, 403, "DENIED", "unsigned")
		e := fault(t, a).Errors[0]
		id := w.records.list()[0].ID
		if a.header.Get("X-Request-Id") != id || e.Detail.ID != id || !strings.Contains(e.Message, "[id "+id+"]") || !strings.Contains(e.Message, "Release with make release") {
			t.Errorf("record %s, header %s, %+v", id, a.header.Get("X-Request-Id"), e)
		}
		if e.Detail.Repository != web || e.Detail.Reference != "v1" || e.Detail.Digest != image.Digest().String() || e.Detail.Policy != "acme" || e.Detail.Hint == "" {
			t.Errorf("detail %+v", e.Detail)
		}
		if !strings.HasPrefix(e.Message, "Vidimus refused "+web+":v1 (policy acme): ") || strings.Contains(e.Message, "\n") {
			t.Errorf("message %q", e.Message)
		}
		b := w.get(byDigest(web, image)) // the same decision, told in the words of this request
		if d := fault(t, b).Errors[0].Detail; d.ID != id || d.Reference != image.Digest().String() {
			t.Errorf("detail %+v", d)
		}
	})
}
