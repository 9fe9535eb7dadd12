package proxy_test

import (
	"net/http"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/policy"
	"vidimus/proxy"
)

// TestANameBehindTheProxyIsOfOneRepository: a signature may name what it is of as it is
// pulled through here. What that name leads to here is one repository, although another
// one, of the upstream for names without a registry or of a Host, is written alike.
func TestANameBehindTheProxyIsOfOneRepository(t *testing.T) {
	image := lying.Image("web")
	for name, behind := range map[string]func(*proxy.Revision){
		"the default upstream": func(r *proxy.Revision) { r.DefaultUpstream = "docker.io"; r.ExternalHost = "vidimus.example" },
		"the upstream of a Host": func(r *proxy.Revision) {
			hub := r.Upstreams["docker.io"]
			hub.Hosts = []string{"vidimus.example"}
			r.Upstreams["docker.io"] = hub
			r.ExternalHost = "vidimus.example"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(_ *world, s *settings) { s.revision = behind })
			for _, at := range []struct {
				registry   *lying.Registry
				repository string
			}{{w.up, "acme/web"}, {w.hub, "ghcr.io/acme/web"}, {w.hub, "acme/web"}} {
				at.registry.Push(at.repository, image, "v1")
			}
			w.up.SignAs("acme/web", image.Digest(), "vidimus.example/ghcr.io/acme/web", nil, w.key)
			w.hub.SignAs("ghcr.io/acme/web", image.Digest(), "vidimus.example/ghcr.io/acme/web", nil, w.key)
			w.hub.SignAs("acme/web", image.Digest(), "vidimus.example/acme/web", nil, w.key)
			served(t, w.get(manifestPath("ghcr.io/acme/web", "v1")), image)
			served(t, w.get(manifestPath("docker.io/acme/web", "v1")), image)
			refused(t, w.get(manifestPath("docker.io/ghcr.io/acme/web", "v1")), http.StatusForbidden, "DENIED", policy.ReasonIdentityMismatch)
		})
	}
	t.Run("the default upstream, when the Host means another", func(t *testing.T) {
		w := newWorld(t, func(_ *world, s *settings) {
			s.revision = func(r *proxy.Revision) {
				up := r.Upstreams["ghcr.io"]
				up.Hosts = []string{"vidimus.example"}
				r.Upstreams["ghcr.io"] = up
				r.DefaultUpstream, r.ExternalHost = "docker.io", "vidimus.example"
			}
		})
		for _, registry := range []*lying.Registry{w.up, w.hub} {
			registry.Push("acme/web", image, "v1")
			registry.SignAs("acme/web", image.Digest(), "vidimus.example/acme/web", nil, w.key)
		}
		served(t, w.get(manifestPath("acme/web", "v1"), "Host", "vidimus.example"), image)
		served(t, w.get(manifestPath("ghcr.io/acme/web", "v1")), image)
		refused(t, w.get(manifestPath("docker.io/acme/web", "v1")), http.StatusForbidden, "DENIED", policy.ReasonIdentityMismatch)
	})
}
