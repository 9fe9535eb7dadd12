package proxy_test

import (
	"context"
	"io"
	"strings"
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

// What only observes names its answers by the decisions that follow them.
func TestObservedAnswersAreNamedByTheirRecords(t *testing.T) {
	image, unsigned := lying.Image("web"), lying.Image("unsigned")
	index := lying.Index(image)
	begin := func(t *testing.T) *world {
		w := newWorld(t, enforcing(policy.Observe))
		w.up.PushSigned("acme/web", index, w.key, "index")
		w.up.Push("acme/web", unsigned, "v1", "v2")
		return w
	}
	ask := func(t *testing.T, w *world, path string, about v1.Hash) string {
		t.Helper()
		a := w.get(path)
		if !a.whole() {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
		w.proxy.Close()
		id := a.header.Get("X-Request-Id")
		for _, r := range w.records.list() {
			if r.ID == id && r.Digest == about.String() {
				return id
			}
		}
		t.Fatalf("%s: no record %s about %s among %+v", path, id, about, w.records.list())
		return ""
	}
	t.Run("one after the other", func(t *testing.T) {
		w := begin(t)
		first := ask(t, w, manifestPath(web, "v1"), unsigned.Digest())
		for range 2 {
			for _, path := range []string{manifestPath(web, "v1"), byDigest(web, unsigned), manifestPath(web, "v2"), blobPath(web, lying.Digest(unsigned.Blobs[0]))} {
				if got := ask(t, w, path, unsigned.Digest()); got != first {
					t.Errorf("%s: %s, at first %s", path, got, first)
				}
			}
		}
		if got := w.references(first); strings.Join(got, " ") != "v1 v2" {
			t.Errorf("recorded for %v", got)
		}
		w.clock.pass(6 * time.Second)
		if got := ask(t, w, manifestPath(web, "v1"), unsigned.Digest()); got == first {
			t.Error("decided anew under the old name")
		}
	})
	t.Run("a child of an index", func(t *testing.T) {
		w := begin(t)
		parent := ask(t, w, manifestPath(web, "index"), index.Digest())
		child := ask(t, w, byDigest(web, image), image.Digest())
		if child == parent || ask(t, w, byDigest(web, image), image.Digest()) != child {
			t.Errorf("index %s, child %s", parent, child)
		}
	})
	t.Run("what nobody could tell", func(t *testing.T) {
		w := begin(t)
		w.up.Lie(lying.Manifest("acme/web", tag(unsigned.Digest())), lying.Status(500))
		first := ask(t, w, manifestPath(web, "v1"), unsigned.Digest())
		if ask(t, w, manifestPath(web, "v1"), unsigned.Digest()) == first {
			t.Error("two evaluations under one name")
		}
	})
	t.Run("many at once", func(t *testing.T) {
		w := begin(t)
		var wait sync.WaitGroup
		answers := make(chan answer, 40)
		for i := range 40 {
			path := manifestPath(web, "v1")
			if i%2 == 0 {
				path = byDigest(web, unsigned)
			}
			wait.Go(func() { answers <- w.get(path) })
		}
		wait.Wait()
		w.proxy.Close()
		for range 40 {
			if a := <-answers; len(w.references(a.header.Get("X-Request-Id"))) == 0 {
				t.Errorf("no record %s", a.header.Get("X-Request-Id"))
			}
		}
	})
}

// counting is a store that counts what is opened.
type counting struct {
	*store.Store
	mu     sync.Mutex
	opened map[v1.Hash]int
}

func (c *counting) Open(ctx context.Context, digest v1.Hash) (io.ReadCloser, int64, error) {
	c.mu.Lock()
	c.opened[digest]++
	c.mu.Unlock()
	return c.Store.Open(ctx, digest)
}

func (c *counting) times(digest v1.Hash) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened[digest]
}

// What a signature's bytes prove they prove for good; whether its subject is
// allowed is asked each time.
func TestEvidenceIsProvenOnce(t *testing.T) {
	held := &counting{opened: map[v1.Hash]int{}}
	w := newWorld(t, func(_ *world, s *settings) {
		s.store = func(inner *store.Store) proxy.Store { held.Store = inner; return held }
	})
	image := lying.Image("web")
	w.up.Push("acme/web", image, "v1")
	signature := w.up.Sign("acme/web", image.Digest(), w.key)
	payload := lying.Digest(signature.Blobs[1])
	for _, reference := range []string{tag(image.Digest()), signature.Digest().String()} {
		served(t, w.get(manifestPath(web, reference)), signature)
		before := held.times(payload)
		for range 5 {
			served(t, w.get(manifestPath(web, reference)), signature)
		}
		if got := held.times(payload); got != before {
			t.Errorf("%s: its payload was read %d times more", reference, got-before)
		}
	}
	w.use("revoked", func(s *settings) { s.revoked = []v1.Hash{image.Digest()} })
	if a := w.get(manifestPath(web, tag(image.Digest()))); a.status != 403 {
		t.Errorf("of a revoked subject: %d", a.status)
	}
	t.Run("not for another subject's tag", func(t *testing.T) {
		w.use("again", func(s *settings) { s.revoked = nil })
		served(t, w.get(byDigest(web, signature)), signature)
		other := lying.Image("other")
		w.up.PushSigned("acme/web", other, w.key)
		w.up.Push("acme/web", signature, tag(other.Digest()))
		w.clock.pass(time.Minute)
		refused(t, w.get(manifestPath(web, tag(other.Digest()))), 403, "DENIED", "unsigned")
	})
	t.Run("not for another repository that lacks the payload", func(t *testing.T) {
		w.up.PushSigned("acme/two", image, w.key, "v1")
		served(t, w.get(manifestPath("ghcr.io/acme/two", "v1")), image)
		w.up.Push("acme/three", image, "v1")
		w.up.Push("acme/three", signature, tag(image.Digest()))
		w.up.Delete("acme/three", payload)
		if a := w.get(manifestPath("ghcr.io/acme/three", tag(image.Digest()))); a.whole() {
			t.Error("served")
		}
	})
}

// A signature that was good does not become bad by age; that there is no other
// is not known while the upstream cannot be asked.
func TestSignaturesFromBefore(t *testing.T) {
	image := lying.Image("web")
	for name, faults := range map[string][]lying.Fault{
		"500": {lying.Status(500)}, "a reset": {lying.Reset()}, "429": {lying.Status(429), lying.RetryAfter(90 * time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			w.clock.pass(100 * time.Hour)
			lie := w.up.Lie(lying.Manifest("acme/web", tag(image.Digest())), faults...)
			w.use("two", func(*settings) {})
			served(t, w.get(byDigest(web, image)), image)

			w.use("three", func(s *settings) { s.authorities = []verifier.Authority{authority(t, "release", w.foreign)} })
			a := w.get(byDigest(web, image))
			refused(t, a, 503, "UNAVAILABLE", "inconclusive")
			if strings.Contains(name, "429") {
				checkHeaders(t, a.header, map[string]string{"Retry-After": "90"})
			}
			if r := w.records.list(); r[len(r)-1].Decision != "inconclusive" || r[len(r)-1].ID != a.header.Get("X-Request-Id") {
				t.Errorf("%+v", r[len(r)-1])
			}
			lie.Stop()
			refused(t, w.get(byDigest(web, image)), 403, "DENIED", "untrusted")

			w.up.Lie(lying.Manifest("acme/web", tag(image.Digest())), faults...)
			w.use("four", func(s *settings) { s.revoked = []v1.Hash{image.Digest()} })
			refused(t, w.get(byDigest(web, image)), 403, "DENIED", "revoked")
		})
	}
	for name, f := range map[string]lying.Fault{"403": lying.Status(403), "wrong bytes": lying.FlipByte(9)} {
		t.Run("not after "+name, func(t *testing.T) {
			w := newWorld(t)
			w.up.PushSigned("acme/web", image, w.key, "v1")
			served(t, w.get(manifestPath(web, "v1")), image)
			w.use("two", func(*settings) {})
			w.up.Lie(lying.Manifest("acme/web", tag(image.Digest())), f)
			if a := w.get(byDigest(web, image)); a.whole() {
				t.Error("served")
			}
		})
	}
}
