package proxy_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/verifier"
)

func TestA21ARevisionTakesEffectForWhatIsCached(t *testing.T) {
	image := lying.Image("web")
	etag := `"` + image.Digest().String() + `"`
	for name, test := range map[string]struct {
		change func(t *testing.T, w *world, s *settings)
		reason string
	}{
		"a key is taken away": {func(t *testing.T, w *world, s *settings) { s.authorities[0] = authority(t, "release", w.foreign) }, "untrusted"},
		"a digest is revoked": {func(_ *testing.T, _ *world, s *settings) { s.revoked = []v1.Hash{image.Digest()} }, "revoked"},
		"its policy goes":     {func(_ *testing.T, _ *world, s *settings) { s.policies = s.policies[1:] }, "no-policy"},
		"its policy denies": {func(_ *testing.T, _ *world, s *settings) {
			s.policies[0].Require = policy.Require{}
			s.policies[0].Deny = "moved"
		}, "policy-deny"},
		"its policy wants a name": {func(_ *testing.T, _ *world, s *settings) { s.policies[0].SignedAs = policy.Repository }, "identity-mismatch"},
		"its policy wants a label": {func(_ *testing.T, _ *world, s *settings) {
			s.policies[0].Annotations = map[string]string{"env": "prod"}
		}, "annotation-mismatch"},
		"its policy wants two keys": {func(t *testing.T, w *world, s *settings) {
			s.authorities = append(s.authorities, authority(t, "ci", w.foreign))
			s.policies[0].Require = policy.Require{AtLeast: 2, Of: []string{"release", "ci"}}
		}, "threshold"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			pull(t, w, web, "v1", image)
			for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image), blobPath(web, lying.Digest(image.Blobs[1]))} {
				for _, known := range []string{etag, "W/" + etag, `"x", ` + etag, "*", `"` + lying.Digest(image.Blobs[1]).String() + `"`} {
					if a := w.get(path, "If-None-Match", known); a.status != http.StatusNotModified && a.status != http.StatusOK || len(a.body) > 0 && a.status == 304 {
						t.Errorf("%s before: status %d", path, a.status)
					}
				}
			}
			w.use("two", func(s *settings) { test.change(t, w, s) })
			for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image)} {
				refused(t, w.get(path, "If-None-Match", etag), 403, "DENIED", test.reason)
				refused(t, w.get(path, "If-None-Match", "*"), 403, "DENIED", test.reason)
				if a := w.head(path, "If-None-Match", etag); a.status != 403 {
					t.Errorf("HEAD: %d", a.status)
				}
			}
			refused(t, w.get(blobPath(web, lying.Digest(image.Blobs[1])), "If-None-Match", "*"), 404, "BLOB_UNKNOWN", "")
			for _, r := range w.records.list() {
				if (r.Decision == "denied") != (r.Revision == "two") {
					t.Errorf("record %+v", r)
				}
			}
		})
	}
}

func TestNotModified(t *testing.T) {
	w := newWorld(t)
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	layer := lying.Digest(image.Blobs[1])
	pull(t, w, web, "v1", image)
	for path, digest := range map[string]v1.Hash{manifestPath(web, "v1"): image.Digest(), blobPath(web, layer): layer} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := w.do(method, path, "If-None-Match", `"`+digest.String()+`"`)
			if a.status != http.StatusNotModified || len(a.body) != 0 {
				t.Errorf("%s %s: status %d", method, path, a.status)
			}
			checkHeaders(t, a.header, map[string]string{
				"Etag": `"` + digest.String() + `"`, "Docker-Content-Digest": digest.String(), "Cache-Control": "private, no-cache", "Vary": "Accept, Authorization",
			})
			if a.header.Get("X-Request-Id") == "" {
				t.Error("no X-Request-Id")
			}
		}
		if a := w.get(path, "If-None-Match", `"sha256:other"`); a.status != http.StatusOK {
			t.Errorf("%s: status %d", path, a.status)
		}
	}
}

// waiting is a gate that decides when it is told to.
type waiting struct {
	proxy.Gate
	begun chan<- struct{}
	until <-chan struct{}
}

func (g waiting) Evaluate(ctx context.Context, r verifier.Registry, s policy.Subject) (policy.Decision, error) {
	close(g.begun)
	<-g.until
	return g.Gate.Evaluate(ctx, r, s)
}

func TestARequestEndsUnderItsRevision(t *testing.T) {
	begun, until := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(_ *world, s *settings) {
		s.gate = func(g proxy.Gate) proxy.Gate { return waiting{g, begun, until} }
	})
	image := lying.Image("web")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	first := make(chan answer)
	go func() { first <- w.get(manifestPath(web, "v1")) }()
	<-begun
	w.use("two", func(s *settings) { s.gate, s.revoked = nil, []v1.Hash{image.Digest()} })
	refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "revoked")
	close(until)
	served(t, <-first, image)
	refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "revoked")
	for _, r := range w.records.list() {
		if (r.Decision == "allowed") != (r.Revision == "one") {
			t.Errorf("record %+v", r)
		}
	}
}

func TestHowLongADecisionStands(t *testing.T) {
	image := lying.Image("web")
	signature := lying.Manifest("acme/web", tag(image.Digest()))
	t.Run("a positive one for 24 hours", func(t *testing.T) {
		w := newWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		served(t, w.get(byDigest(web, image)), image)
		w.up.DeleteTag("acme/web", tag(image.Digest()))
		w.up.Forget()
		w.clock.pass(24*time.Hour - time.Second)
		served(t, w.get(byDigest(web, image)), image)
		asked(t, w.up)
		w.clock.pass(time.Second)
		refused(t, w.get(byDigest(web, image)), 403, "DENIED", "unsigned")
	})
	t.Run("a negative one for 5 seconds", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("acme/web", image, "v1")
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
		w.up.Sign("acme/web", image.Digest(), w.key)
		w.clock.pass(4900 * time.Millisecond)
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
		if got := w.up.Log(signature); len(got) != 1 {
			t.Errorf("asked for the signature %d times", len(got))
		}
		w.clock.pass(100 * time.Millisecond)
		served(t, w.get(manifestPath(web, "v1")), image)
	})
	t.Run("an exception's until its end", func(t *testing.T) {
		w := newWorld(t, func(w *world, s *settings) {
			s.exceptions = []policy.Exception{{Match: match(t, web), Digests: []v1.Hash{image.Digest()}, Until: w.clock.now().Add(time.Hour), Reason: "INC-1"}}
		})
		w.up.Push("acme/web", image, "v1")
		pull(t, w, web, "v1", image)
		if r := w.records.list()[0]; r.Exception != "INC-1" || r.Decision != "allowed" {
			t.Errorf("record %+v", r)
		}
		w.clock.pass(time.Hour - time.Second)
		served(t, w.get(byDigest(web, image)), image)
		w.clock.pass(time.Second)
		refused(t, w.get(byDigest(web, image), "If-None-Match", "*"), 403, "DENIED", "unsigned")
		refused(t, w.get(blobPath(web, lying.Digest(image.Blobs[1]))), 404, "BLOB_UNKNOWN", "")
	})
	t.Run("an exception's for a denied repository, and for an index's children", func(t *testing.T) {
		index := lying.Index(image)
		w := newWorld(t, func(w *world, s *settings) {
			s.exceptions = []policy.Exception{{Match: match(t, "ghcr.io/old/*"), Digests: []v1.Hash{index.Digest()}, Until: w.clock.now().Add(time.Hour), Reason: "INC-1"}}
		})
		const old = "ghcr.io/old/web"
		w.up.Push("old/web", index, "v1")
		served(t, w.get(manifestPath(old, "v1")), index)
		pull(t, w, old, image.Digest().String(), image)
		w.clock.pass(time.Hour)
		refused(t, w.get(byDigest(old, image)), 403, "DENIED", "policy-deny")
	})
}

// A decision about a tag is not one about another, where the policy reads it.
func TestADecisionIsBoundToTheTagThatItReads(t *testing.T) {
	w := newWorld(t, func(_ *world, s *settings) { s.policies[0].SignedAs = policy.Exact })
	image := lying.Image("web")
	w.up.Push("acme/web", image, "v1", "v2")
	w.up.SignAs("acme/web", image.Digest(), web+":v1", nil, w.key)
	served(t, w.get(manifestPath(web, "v1")), image)
	refused(t, w.get(manifestPath(web, "v2")), 403, "DENIED", "identity-mismatch")
	served(t, w.get(manifestPath(web, "v1")), image)
	servedBlob(t, w.get(blobPath(web, lying.Digest(image.Blobs[1]))), image.Blobs[1])
}

// A cache that knows a signed tag does not serve what it is moved to
// (CVE-2026-122321 elsewhere).
func TestADecisionIsBoundToTheDigestNotTheTag(t *testing.T) {
	w := newWorld(t)
	image, evil := lying.Image("web"), lying.Image("evil")
	w.up.PushSigned("acme/web", image, w.key, "v1")
	pull(t, w, web, "v1", image)
	w.up.Push("acme/web", evil, "v1")
	w.clock.pass(time.Minute)
	refusedEverywhere(t, w, web, "v1", evil, "unsigned")
	served(t, w.get(byDigest(web, image)), image)
}
