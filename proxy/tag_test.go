package proxy_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
	"vidimus/proxy/store"
)

// revalidated wants these answers to requests for manifests by tag since the last
// Forget, each as the tag, the digest that was held in short form, and the status.
func revalidated(t *testing.T, up *lying.Registry, want ...string) {
	t.Helper()
	got := []string{}
	for _, q := range up.Requests(lying.ByTag("")) {
		if strings.HasSuffix(q.Reference, ".cosign") {
			continue // nobody waits for it: see asked
		}
		held := strings.Trim(strings.Join(q.Header.Values("If-None-Match"), "|"), `"`)
		got = append(got, fmt.Sprintf("%s %.12s %d", q.Reference, held, q.Status))
	}
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		t.Errorf("asked by tag (-want +got):\n%s", diff)
	}
	up.Forget()
}

// short is a digest as revalidated has it.
func short(content lying.Content) string { return content.Digest().String()[:12] }

const openWeb = "ghcr.io/open/web"

func TestATagIsRevalidated(t *testing.T) {
	one, two := lying.Image("one"), lying.Image("two")
	path := manifestPath(openWeb, "v1")
	begin := func(t *testing.T, change ...func(*world, *settings)) *world {
		w := newWorld(t, change...)
		w.up.Push("open/web", one, "v1")
		served(t, w.get(path), one)
		revalidated(t, w.up, "v1  200")
		w.clock.pass(time.Minute)
		return w
	}
	v1As := func(held lying.Content, status int) string { return fmt.Sprintf("v1 %s %d", short(held), status) }

	t.Run("304 confirms it for as long as an answer does", func(t *testing.T) {
		w := begin(t)
		for range 3 {
			if a := w.head(path); a.status != 200 {
				t.Errorf("HEAD: %d", a.status)
			}
			w.clock.pass(29 * time.Second)
			a := w.get(path)
			served(t, a, one)
			checkHeaders(t, a.header, map[string]string{"Age": "", "Warning": ""})
			revalidated(t, w.up, v1As(one, 304))
			w.clock.pass(2 * time.Second)
		}
		w.up.Lie(lying.Any(), lying.Status(503)) // confirmed 31 seconds ago
		checkHeaders(t, w.get(path).header, map[string]string{"Age": "31"})
	})
	t.Run("200 is its new state, there and back", func(t *testing.T) {
		w := begin(t)
		w.up.Push("open/web", two, "v1")
		served(t, w.get(path), two)
		w.clock.pass(time.Minute)
		served(t, w.get(path), two)
		w.clock.pass(time.Minute)
		w.up.Tag("open/web", "v1", one.Digest())
		served(t, w.get(path), one)
		revalidated(t, w.up, v1As(one, 200), v1As(two, 304), v1As(two, 200))
	})
	t.Run("404 forgets it, and what it was is no condition any more", func(t *testing.T) {
		w := begin(t)
		w.up.DeleteTag("open/web", "v1")
		refused(t, w.get(path), 404, "MANIFEST_UNKNOWN", "")
		w.up.Tag("open/web", "v1", one.Digest())
		served(t, w.get(path), one)
		revalidated(t, w.up, v1As(one, 404), "v1  200")
	})
	t.Run("by an upstream that knows no conditions", func(t *testing.T) {
		w := begin(t)
		w.up.Lie(lying.Any(), lying.Unconditional())
		served(t, w.get(path), one)
		served(t, w.get(path), one)
		revalidated(t, w.up, v1As(one, 200))
	})
	t.Run("once for many clients", func(t *testing.T) {
		w := begin(t)
		held := make(chan struct{})
		w.up.Lie(lying.Any(), lying.Hang(held))
		together(t, 30, func() { served(t, w.get(path), one) }, func() {
			if _, err := w.up.Await(t.Context(), lying.Any(), 1); err != nil {
				t.Error(err)
			}
			close(held)
		})
		revalidated(t, w.up, v1As(one, 304))
	})
	t.Run("after a restart, by what the disk holds", func(t *testing.T) {
		w := begin(t, onDisk)
		w.restart()
		served(t, w.get(path), one)
		revalidated(t, w.up, v1As(one, 304))
	})
	t.Run("what it names by digest is asked for without a condition", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("open/web", one, "v1")
		served(t, w.get(byDigest(openWeb, one)), one)
		if got := w.up.Requests(lying.Any())[0].Header.Values("If-None-Match"); got != nil {
			t.Errorf("%q", got)
		}
	})
	t.Run("a tag that moves while it is asked about counts from when it was asked", func(t *testing.T) {
		w := begin(t)
		lie := w.up.Lie(lying.Any(), lying.Before(func(context.Context) {
			w.clock.pass(20 * time.Second) // the answer is made up, and on its way
			w.up.Push("open/web", two, "v1")
		}))
		served(t, w.get(path), one)
		lie.Stop()
		w.clock.pass(9 * time.Second)
		served(t, w.get(path), one)
		w.clock.pass(time.Second)
		served(t, w.get(path), two)
		revalidated(t, w.up, v1As(one, 304), v1As(one, 200))
	})
}

func TestALyingConfirmation(t *testing.T) {
	one, two := lying.Image("one"), lying.Image("two")
	path := manifestPath(openWeb, "v1")
	notModified := lying.NotModified()

	t.Run("304 to what was not asked is wrong", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("open/web", one, "v1")
		lie := w.up.Lie(lying.Any(), notModified)
		refused(t, w.get(path), 502, "UNAVAILABLE", "upstream-mismatch")
		refused(t, w.get(byDigest(openWeb, one)), 502, "UNAVAILABLE", "upstream-mismatch")
		lie.Stop()
		served(t, w.get(path), one)
	})
	t.Run("an upstream that calls unchanged what is not held is wrong", func(t *testing.T) {
		w := newWorld(t, func(_ *world, s *settings) {
			s.origin = func(_ string, u proxy.Upstream) proxy.Upstream { return unchanging{u} }
		})
		w.up.Push("open/web", one, "v1")
		refused(t, w.get(path), 502, "UNAVAILABLE", "upstream-mismatch")
		refused(t, w.get(byDigest(openWeb, one)), 502, "UNAVAILABLE", "upstream-mismatch")
	})
	t.Run("304 for something else leaves what is held, and no more", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("open/web", one, "v1")
		served(t, w.get(path), one)
		w.clock.pass(time.Minute)
		w.up.Push("open/web", two, "v1")
		w.up.Lie(lying.Any(), notModified, lying.DigestHeader(two.Digest().String()), lying.Header("Etag", `"`+two.Digest().String()+`"`))
		served(t, w.get(path), one)
	})
	t.Run("304 with a body is 304", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("open/web", one, "v1")
		served(t, w.get(path), one)
		w.clock.pass(time.Minute)
		w.up.Lie(lying.Any(), lying.Raw(fmt.Sprintf("HTTP/1.1 304 Not Modified\r\nContent-Length: %d\r\nContent-Type: %s\r\n\r\n%s", len(two.Body), two.MediaType, two.Body)))
		served(t, w.get(path), one)
	})
	t.Run("200 with other bytes under the same entity tag is 200", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("open/web", one, "v1")
		served(t, w.get(path), one)
		w.clock.pass(time.Minute)
		w.up.Lie(lying.Any(), lying.Body(two.Body))
		served(t, w.get(path), two)
	})
	t.Run("304 allows nothing that the policy does not", func(t *testing.T) {
		w := newWorld(t)
		w.up.PushSigned("acme/web", one, w.key, "v1")
		served(t, w.get(manifestPath(web, "v1")), one)
		w.use("two", func(s *settings) { s.revoked = []v1.Hash{one.Digest()} })
		w.clock.pass(time.Minute)
		refused(t, w.get(manifestPath(web, "v1")), 403, "DENIED", "revoked")
	})
	t.Run("an index that says of a tag what its upstream never delivered is no condition", func(t *testing.T) {
		w := newWorld(t)
		w.up.Push("open/web", one, "v1")
		w.up.Push("open/other", two, "v1")
		served(t, w.get(manifestPath("ghcr.io/open/other", "v1")), two)
		if err := w.store.SetTag(t.Context(), openWeb, "v1", two.Digest(), w.clock.now().Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
		w.up.Forget()
		lie := w.up.Lie(lying.Any(), notModified)
		refused(t, w.get(path), 502, "UNAVAILABLE", "upstream-mismatch")
		lie.Stop()
		served(t, w.get(path), one)
		revalidated(t, w.up, "v1  304", "v1  200")
	})
}

// unchanging is an upstream that calls everything unchanged, asked or not.
type unchanging struct{ proxy.Upstream }

func (unchanging) Manifest(context.Context, string, string, v1.Hash) ([]byte, string, bool, error) {
	return nil, "", true, nil
}

// emptied is a store that loses everything on command.
type emptied struct {
	*store.Store
	mu   sync.Mutex
	lost bool
}

func (e *emptied) lose(lost bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost = lost
}

func (e *emptied) Open(ctx context.Context, digest v1.Hash) (io.ReadCloser, int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lost {
		return nil, 0, fmt.Errorf("%s: %w", digest, fs.ErrNotExist)
	}
	return e.Store.Open(ctx, digest)
}

func TestATagWhoseManifestWasEvicted(t *testing.T) {
	image := lying.Image("one")
	path := manifestPath(openWeb, "v1")
	// begin returns a proxy that knows the tag and has nothing in memory.
	begin := func(t *testing.T) (*world, *emptied) {
		var held *emptied
		w := newWorld(t, onDisk, func(_ *world, s *settings) {
			s.store = func(s *store.Store) proxy.Store {
				held = &emptied{Store: s}
				return held
			}
		})
		w.up.Push("open/web", image, "v1")
		served(t, w.get(path), image)
		w.clock.pass(time.Minute)
		w.restart()
		w.up.Forget()
		return w, held
	}
	t.Run("before it is asked about is asked for without a condition", func(t *testing.T) {
		w, held := begin(t)
		held.lose(true)
		served(t, w.get(path), image)
		revalidated(t, w.up, "v1  200")
	})
	t.Run("before, at an upstream that says 304 all the same, is not served", func(t *testing.T) {
		w, held := begin(t)
		held.lose(true)
		w.up.Lie(lying.Any(), lying.NotModified())
		refused(t, w.get(path), 502, "UNAVAILABLE", "upstream-mismatch")
	})
	t.Run("while it is asked about is served all the same", func(t *testing.T) {
		w, held := begin(t)
		w.up.Lie(lying.Any(), lying.Before(func(context.Context) { held.lose(true) }))
		served(t, w.get(path), image)
		revalidated(t, w.up, "v1 "+short(image)+" 304")
	})
}

func TestSignaturesAreRevalidated(t *testing.T) {
	image := lying.Image("web")
	w := newWorld(t)
	w.up.Push("acme/web", image, "v1")
	signature := w.up.Sign("acme/web", image.Digest(), w.key)
	served(t, w.get(byDigest(web, image)), image)
	sig := tag(image.Digest())
	revalidated(t, w.up, sig+"  200")
	w.use("two", func(*settings) {})
	served(t, w.get(byDigest(web, image)), image)
	revalidated(t, w.up, sig+" "+short(signature)+" 304")

	// one that is added is found, however short the time
	w.use("three", func(s *settings) {
		s.authorities = append(s.authorities, authority(t, "second", w.foreign))
		s.policies[0].Require = policy.Require{AtLeast: 2, Of: []string{"release", "second"}}
	})
	refused(t, w.get(byDigest(web, image)), 403, "DENIED", "threshold")
	w.up.Forget()
	both := lying.Signatures(lying.Signature(w.key, lying.Payload("", image.Digest(), nil)), lying.Signature(w.foreign, lying.Payload("", image.Digest(), nil)))
	w.up.Push("acme/web", both, sig)
	w.clock.pass(5 * time.Second) // a denial is kept so long
	served(t, w.get(byDigest(web, image)), image)
	revalidated(t, w.up, sig+" "+short(signature)+" 200")
	w.use("four", func(*settings) {})
	served(t, w.get(byDigest(web, image)), image)
	revalidated(t, w.up, sig+" "+short(both)+" 304")
}
