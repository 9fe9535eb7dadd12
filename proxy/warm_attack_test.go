package proxy_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/store"
	"vidimus/verifier"
)

// warmUp makes the short path answer for an image by tag, by digest, by HEAD and
// with 304, and for its blobs.
func warmUp(t *testing.T, w *warmWorld, image lying.Content) {
	t.Helper()
	pull(t, w.world, web, "v1", image)
	served(t, w.get(byDigest(web, image)), image)
	for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image)} {
		served(t, w.short(path), image)
		if a := w.by(true, http.MethodHead, path); a.status != 200 {
			t.Fatalf("HEAD: %d", a.status)
		}
		if a := w.short(path, "If-None-Match", "*"); a.status != 304 {
			t.Fatalf("If-None-Match: %d", a.status)
		}
	}
	for _, blob := range image.Blobs {
		servedBlob(t, w.short(blobPath(web, lying.Digest(blob))), blob)
	}
}

// refusedNow wants that nothing of an image comes out any more.
func refusedNow(t *testing.T, w *warmWorld, image lying.Content, reason string) {
	t.Helper()
	for _, path := range []string{manifestPath(web, "v1"), byDigest(web, image)} {
		refused(t, w.get(path), 403, "DENIED", reason)
		refused(t, w.get(path, "If-None-Match", "*"), 403, "DENIED", reason)
		if a := w.head(path); a.status != 403 {
			t.Errorf("HEAD: %d", a.status)
		}
	}
	for _, blob := range image.Blobs {
		path := blobPath(web, lying.Digest(blob))
		refused(t, w.get(path), 404, "BLOB_UNKNOWN", "")
		refused(t, w.get(path, "If-None-Match", "*"), 404, "BLOB_UNKNOWN", "")
		refused(t, w.get(path, "Range", "bytes=0-0"), 404, "BLOB_UNKNOWN", "")
	}
}

func TestP6ARevisionEndsTheShortPath(t *testing.T) {
	image := lying.Image("web")
	for name, test := range map[string]struct {
		change func(t *testing.T, w *world, s *settings)
		reason string
	}{
		"a key is taken away": {func(t *testing.T, w *world, s *settings) { s.authorities[0] = authority(t, "release", w.foreign) }, "untrusted"},
		"a digest is revoked": {func(_ *testing.T, _ *world, s *settings) { s.revoked = []v1.Hash{image.Digest()} }, "revoked"},
		"its policy denies": {func(_ *testing.T, _ *world, s *settings) {
			s.policies[0].Require, s.policies[0].Deny = policy.Require{}, "moved"
		}, "policy-deny"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWarmWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			warmUp(t, w, image)
			w.use("two", func(s *settings) { test.change(t, w.world, s) })
			refusedNow(t, w, image, test.reason)
		})
	}
	t.Run("a key is suspended", func(t *testing.T) {
		w := newWarmWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		warmUp(t, w, image)
		w.use("two", func(s *settings) {
			s.authorities = []verifier.Authority{{Name: "release", Suspended: "its key file is gone"}}
		})
		refused(t, w.get(manifestPath(web, "v1")), 503, "UNAVAILABLE", "inconclusive")
		refused(t, w.get(blobPath(web, lying.Digest(image.Blobs[1]))), 503, "UNAVAILABLE", "inconclusive")
	})
	t.Run("a blob is revoked", func(t *testing.T) {
		w := newWarmWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		warmUp(t, w, image)
		w.use("two", func(s *settings) { s.revoked = []v1.Hash{lying.Digest(image.Blobs[1])} })
		refused(t, w.get(blobPath(web, lying.Digest(image.Blobs[1]))), 403, "DENIED", "revoked")
		servedBlob(t, w.get(blobPath(web, lying.Digest(image.Blobs[0]))), image.Blobs[0])
	})
}

// Whoever begins after a revision is in effect, or after a tag was seen to have
// moved, gets nothing from before, however many ask at the same time.
func TestNothingFromBeforeWhileManyAsk(t *testing.T) {
	image, next := lying.Image("web"), lying.Image("next")
	w := newWarmWorld(t)
	w.up.PushSigned("acme/web", image, w.key, "v1")
	w.up.PushSigned("acme/web", next, w.key, "other")
	warmUp(t, w, image)
	stop := make(chan struct{})
	var crowd sync.WaitGroup
	for i := range 4 {
		crowd.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					w.get([]string{manifestPath(web, "v1"), byDigest(web, image)}[i%2])
				}
			}
		})
	}
	for i := range 20 {
		w.use("revoking", func(s *settings) { s.revoked = []v1.Hash{image.Digest(), next.Digest()} })
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "revoked")
		w.use("allowing", func(s *settings) { s.revoked = nil })
		moved := []lying.Content{image, next}[i%2]
		w.up.Push("acme/web", moved, "v1")
		w.clock.pass(31 * time.Second)
		for range 5 {
			served(t, w.get(manifestPath(web, "v1")), moved)
		}
	}
	close(stop)
	crowd.Wait()
}

func TestTheShortPathEndsWithTheTag(t *testing.T) {
	image, evil := lying.Image("web"), lying.Image("evil")
	begin := func(t *testing.T) *warmWorld {
		w := newWarmWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		warmUp(t, w, image)
		w.clock.pass(28 * time.Second)
		served(t, w.long(manifestPath(web, "v1")), image)
		w.up.Forget()
		w.clock.pass(2*time.Second - 1)
		served(t, w.short(manifestPath(web, "v1")), image)
		asked(t, w.up)
		w.clock.pass(1)
		return w
	}
	t.Run("that moves", func(t *testing.T) {
		w := begin(t)
		w.up.Push("acme/web", evil, "v1")
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
		refused(t, w.get(manifestPath(web, "v1"), "If-None-Match", "*"), 403, "DENIED", "unsigned")
		served(t, w.get(byDigest(web, image)), image)
	})
	t.Run("that moves to another that is allowed", func(t *testing.T) {
		w := begin(t)
		next := lying.Image("next")
		w.up.PushSigned("acme/web", next, w.key, "v1")
		served(t, w.long(manifestPath(web, "v1")), next)
		served(t, w.short(manifestPath(web, "v1")), next)
	})
	t.Run("that is gone", func(t *testing.T) {
		w := begin(t)
		w.up.DeleteTag("acme/web", "v1")
		refused(t, w.get(manifestPath(web, "v1")), 404, "MANIFEST_UNKNOWN", "")
		refused(t, w.get(manifestPath(web, "v1")), 404, "MANIFEST_UNKNOWN", "")
	})
	t.Run("that stays", func(t *testing.T) {
		w := begin(t)
		served(t, w.long(manifestPath(web, "v1")), image)
		served(t, w.short(manifestPath(web, "v1")), image)
		asked(t, w.up, "GET /v2/acme/web/manifests/v1")
	})
	t.Run("of another repository", func(t *testing.T) {
		w := newWarmWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		warmUp(t, w, image)
		for _, repository := range []string{"acme/two", "acme/web/v1", "acme"} {
			refused(t, w.get(manifestPath("ghcr.io/"+repository, "v1")), 404, "MANIFEST_UNKNOWN", "")
		}
		w.hub.Push("acme/web", evil, "v1")
		refused(t, w.get(manifestPath("docker.io/acme/web", "v1")), 403, "DENIED", "unsigned")
	})
}

// A decision ends to the second, on the short path too: its own end, and that of
// the decision it was derived from.
func TestTheShortPathEndsWithTheDecision(t *testing.T) {
	image := lying.Image("web")
	index := lying.Index(image)
	excepting := func(digest v1.Hash, d time.Duration) func(w *world, s *settings) {
		return func(w *world, s *settings) {
			s.exceptions = []policy.Exception{{Match: match(w.t, web), Digests: []v1.Hash{digest}, Until: w.clock.now().Add(d), Reason: "INC-1"}}
		}
	}
	t.Run("by an exception", func(t *testing.T) {
		w := newWarmWorld(t, excepting(image.Digest(), 4*time.Second))
		w.up.Push("acme/web", image, "v1")
		warmUp(t, w, image)
		w.clock.pass(4*time.Second - 1)
		served(t, w.short(manifestPath(web, "v1")), image)
		servedBlob(t, w.short(blobPath(web, lying.Digest(image.Blobs[1]))), image.Blobs[1])
		w.clock.pass(1)
		refusedNow(t, w, image, "unsigned")
	})
	t.Run("by an exception for its index", func(t *testing.T) {
		w := newWarmWorld(t, excepting(index.Digest(), 4*time.Second))
		w.up.Push("acme/web", index, "v1")
		served(t, w.get(manifestPath(web, "v1")), index)
		served(t, w.long(byDigest(web, image)), image)
		layer := blobPath(web, lying.Digest(image.Blobs[1]))
		servedBlob(t, w.long(layer), image.Blobs[1])
		w.clock.pass(4*time.Second - 1)
		served(t, w.short(byDigest(web, image)), image)
		servedBlob(t, w.short(layer), image.Blobs[1])
		w.clock.pass(1)
		refused(t, w.get(byDigest(web, image)), 403, "DENIED", "unsigned")
		refused(t, w.get(layer), 404, "BLOB_UNKNOWN", "")
	})
	t.Run("after 24 hours", func(t *testing.T) {
		w := newWarmWorld(t)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		pull(t, w.world, web, "v1", image)
		w.clock.pass(24*time.Hour - 3*time.Second)
		warmUp(t, w, image)
		w.up.DeleteTag("acme/web", tag(image.Digest()))
		w.clock.pass(3*time.Second - 1)
		served(t, w.short(manifestPath(web, "v1")), image)
		servedBlob(t, w.short(blobPath(web, lying.Digest(image.Blobs[1]))), image.Blobs[1])
		w.clock.pass(1)
		refusedNow(t, w, image, "unsigned")
	})
	t.Run("after its index's 24 hours", func(t *testing.T) {
		w := newWarmWorld(t)
		w.up.PushSigned("acme/web", index, w.key, "v1")
		served(t, w.get(manifestPath(web, "v1")), index)
		w.clock.pass(24*time.Hour - 3*time.Second)
		served(t, w.long(byDigest(web, image)), image) // decided now, through an index that was decided then
		w.up.DeleteTag("acme/web", tag(index.Digest()))
		w.clock.pass(3*time.Second - 1)
		served(t, w.short(byDigest(web, image)), image)
		w.clock.pass(1)
		refused(t, w.get(byDigest(web, image)), 403, "DENIED", "unsigned")
	})
	t.Run("a denial that a signature turns", func(t *testing.T) {
		w := newWarmWorld(t)
		w.up.Push("acme/web", image, "v1")
		refused(t, w.long(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
		w.up.Sign("acme/web", image.Digest(), w.key)
		w.clock.pass(5*time.Second - 1)
		refused(t, w.long(manifestPath(web, "v1")), 403, "DENIED", "unsigned")
		w.clock.pass(1)
		served(t, w.long(manifestPath(web, "v1")), image)
		served(t, w.short(manifestPath(web, "v1")), image)
	})
	t.Run("for the tag that it was read for", func(t *testing.T) {
		w := newWarmWorld(t, func(_ *world, s *settings) { s.policies[0].SignedAs = policy.Exact })
		w.up.Push("acme/web", image, "v1", "v2")
		w.up.SignAs("acme/web", image.Digest(), web+":v1", nil, w.key)
		for range 2 {
			served(t, w.get(manifestPath(web, "v1")), image)
			refused(t, w.long(manifestPath(web, "v2")), 403, "DENIED", "identity-mismatch")
		}
		served(t, w.short(manifestPath(web, "v1")), image)
	})
}

// P2: what one repository is answered with opens nothing in another.
func TestP2TheShortPathIsOneRepositorys(t *testing.T) {
	image := lying.Image("web")
	layer := lying.Digest(image.Blobs[1])
	w := newWarmWorld(t)
	w.up.PushSigned("acme/web", image, w.key, "v1")
	warmUp(t, w, image)
	const two = "ghcr.io/acme/two"
	refused(t, w.get(byDigest(two, image)), 404, "MANIFEST_UNKNOWN", "")
	refused(t, w.get(blobPath(two, layer)), 404, "BLOB_UNKNOWN", "")
	refused(t, w.get(byDigest("docker.io/acme/web", image)), 404, "MANIFEST_UNKNOWN", "")
	refused(t, w.get("/v2/acme/web/manifests/"+image.Digest().String()+"?ns=docker.io"), 404, "MANIFEST_UNKNOWN", "")

	w.up.Push("acme/two", image, "v1") // without a signature there
	refused(t, w.get(byDigest(two, image)), 403, "DENIED", "unsigned")
	w.up.Sign("acme/two", image.Digest(), w.key)
	w.up.Delete("acme/two", layer)
	w.clock.pass(5 * time.Second)
	served(t, w.get(byDigest(two, image)), image)
	for range 2 { // its manifest is allowed, but its upstream does not have the blob
		refused(t, w.get(blobPath(two, layer)), 404, "BLOB_UNKNOWN", "")
		refused(t, w.get(blobPath(two, layer), "If-None-Match", "*"), 404, "BLOB_UNKNOWN", "")
		if a := w.head(blobPath(two, layer)); a.status != 404 {
			t.Errorf("HEAD: %d", a.status)
		}
	}
}

// losing is an index that loses what it knows on command.
type losing struct {
	proxy.Index
}

func (x *losing) lose(t *testing.T) {
	t.Helper()
	empty, err := store.Open(store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { empty.Close() })
	x.Index = empty
}

// What a manifest references is learned again though the short path answers for
// it, when the index has lost it.
func TestTheShortPathLetsTheIndexLearnAgain(t *testing.T) {
	image := lying.Image("web")
	layer := blobPath(web, lying.Digest(image.Blobs[1]))
	var x *losing
	w := newWarmWorld(t, func(_ *world, s *settings) {
		s.index = func(of *store.Store) proxy.Index {
			x = &losing{of}
			return x
		}
	})
	w.up.PushSigned("acme/web", image, w.key, "v1")
	pull(t, w.world, web, "v1", image)
	x.lose(t)
	servedBlob(t, w.short(layer), image.Blobs[1])
	served(t, w.short(manifestPath(web, "v1")), image)
	w.clock.pass(5 * time.Second)
	refused(t, w.get(layer), 404, "BLOB_UNKNOWN", "")
	served(t, w.long(manifestPath(web, "v1")), image)
	servedBlob(t, w.get(layer), image.Blobs[1])
}
