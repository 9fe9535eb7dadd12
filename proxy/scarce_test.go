package proxy_test

import (
	"testing"
	"time"

	"vidimus/e2e/lying"
	"vidimus/proxy"
	"vidimus/verifier"
)

// What is known of an image is enough to allow it, and not to deny.
func TestAnUpstreamWhoseRateLimitIsAlmostUsedUp(t *testing.T) {
	image, two := lying.Image("web"), lying.Image("two")
	path := manifestPath(web, "v1")
	sig := tag(image.Digest())
	limited := func(remaining string) []lying.Fault {
		return []lying.Fault{lying.Header("RateLimit-Limit", "100;w=21600"), lying.Header("RateLimit-Remaining", remaining)}
	}
	begin := func(t *testing.T) (*world, *lying.Lie) {
		var scarce func() bool // of the first client: the program keeps it, too
		w := newWorld(t, func(_ *world, s *settings) {
			s.revision = func(r *proxy.Revision) {
				registered := r.Upstreams["ghcr.io"]
				if scarce == nil {
					scarce = registered.Scarce
				}
				registered.Scarce = scarce
				r.Upstreams["ghcr.io"] = registered
			}
		})
		lie := w.up.Lie(lying.Any(), limited("5;w=21600")...)
		w.up.PushSigned("acme/web", image, w.key, "v1")
		served(t, w.get(path), image)
		w.up.Forget()
		w.clock.pass(time.Minute)
		return w, lie
	}
	t.Run("is not asked about what is known", func(t *testing.T) {
		w, _ := begin(t)
		w.up.Push("acme/web", two, "v1")
		for range 3 {
			a := w.get(path)
			served(t, a, image)
			checkHeaders(t, a.header, map[string]string{"Age": "60", "Warning": `110 - "vidimus: the upstream cannot be asked; the tag was last confirmed 1m0s ago"`})
		}
		w.use("two", func(*settings) {}) // decided anew, by the signatures that are known
		served(t, w.get(path), image)
		asked(t, w.up)
		if got := w.metric("vidimus_upstream_ratelimit_remaining", "upstream", "ghcr.io"); got != 5 {
			t.Errorf("the metric says %v", got)
		}
	})
	t.Run("is asked about what is not known, or too old", func(t *testing.T) {
		w, _ := begin(t)
		w.up.PushSigned("acme/web", two, w.key, "v2")
		served(t, w.get(manifestPath(web, "v2")), two)
		refused(t, w.get(manifestPath(web, "v3")), 404, "MANIFEST_UNKNOWN", "")
		w.clock.pass(59 * time.Minute)
		served(t, w.get(path), image)
		revalidated(t, w.up, "v2  200", tag(two.Digest())+"  200", "v3  404", "v1 "+short(image)+" 304")
	})
	t.Run("is asked before a denial", func(t *testing.T) {
		w, _ := begin(t)
		w.use("two", func(s *settings) { s.authorities = []verifier.Authority{authority(t, "release", w.foreign)} })
		refused(t, w.get(path), 403, "DENIED", "untrusted")
		w.up.Sign("acme/web", image.Digest(), w.foreign)
		w.clock.pass(5 * time.Second)
		served(t, w.get(path), image)
		if got := w.up.Log(lying.Manifest("acme/web", "v1")); len(got) != 0 {
			t.Errorf("the tag itself was asked about: %v", got)
		}
		if got := w.up.Log(lying.Manifest("acme/web", sig)); len(got) != 2 {
			t.Errorf("signatures were asked for %d times", len(got))
		}
	})
	t.Run("and that cannot be asked before a denial denies nothing", func(t *testing.T) {
		w, _ := begin(t)
		w.up.Lie(lying.Manifest("acme/web", sig), lying.Status(429), lying.RetryAfter(90*time.Second))
		w.use("two", func(s *settings) { s.authorities = []verifier.Authority{authority(t, "release", w.foreign)} })
		refused(t, w.get(path), 503, "UNAVAILABLE", "inconclusive")
	})
	t.Run("is asked again when there is more", func(t *testing.T) {
		w, lie := begin(t)
		served(t, w.get(path), image)
		asked(t, w.up)
		lie.Stop()
		w.up.Lie(lying.Any(), limited("50;w=21600")...)
		refused(t, w.get(manifestPath(web, "v3")), 404, "MANIFEST_UNKNOWN", "")
		a := w.get(path)
		served(t, a, image)
		checkHeaders(t, a.header, map[string]string{"Age": "", "Warning": ""})
		revalidated(t, w.up, "v3  404", "v1 "+short(image)+" 304")
		if got := w.metric("vidimus_upstream_ratelimit_remaining", "upstream", "ghcr.io"); got != 50 {
			t.Errorf("the metric says %v", got)
		}
	})
	t.Run("does not keep others from being asked", func(t *testing.T) {
		w, _ := begin(t)
		w.hub.PushSigned("acme/web", image, w.key, "v1")
		hubPath := manifestPath("docker.io/acme/web", "v1")
		served(t, w.get(hubPath), image)
		w.clock.pass(time.Minute)
		w.hub.Forget()
		served(t, w.get(hubPath), image)
		revalidated(t, w.hub, "v1 "+short(image)+" 304")
	})
}
