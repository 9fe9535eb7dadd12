package e2e_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// What an upstream lies about never reaches an engine as an image. The attacks
// themselves are tried on the handler, with many more lies; here it is seen
// that real clients take the proxy's way of failing for a failure.
func TestClientsTakeNoLie(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	key := lying.P256()
	dir := real.Dir(t)
	key.WritePublic(t, dir, "release.pub")
	v := real.StartVidimus(t, built(t, racing), dir, fmt.Sprintf(`
cache: {tagTTL: 1ms}
upstreams: {docker.io: {url: %q}}
authorities: {release: {keys: [release.pub]}}
policies:
  - {match: "docker.io/**", require: release}
`, up.URL))
	for _, client := range []struct {
		name  string
		start func(*testing.T) real.Client
	}{
		{"docker", func(t *testing.T) real.Client { return real.StartDocker(t, v.Addr) }},
		{"containerd", func(t *testing.T) real.Client { return real.StartContainerd(t, v.Addr, "docker.io") }},
		{"podman", func(t *testing.T) real.Client { return real.NewPodman(t, v.Addr, "docker.io") }},
		{"skopeo", func(t *testing.T) real.Client { return real.NewSkopeo(t, v.Addr, "docker.io") }},
	} {
		t.Run(client.name, func(t *testing.T) {
			c := client.start(t)
			for i, lie := range []struct {
				title string
				tell  func(repository string, image, other lying.Content)
			}{
				{"other bytes in a layer", func(repository string, image, _ lying.Content) {
					up.Lie(lying.Blob(repository, lying.Digest(image.Blobs[1])).GET(), lying.FlipByte(-1))
				}},
				{"a layer that ends early", func(repository string, image, _ lying.Content) {
					up.Lie(lying.Blob(repository, lying.Digest(image.Blobs[1])).GET(), lying.Truncate(1000))
				}},
				{"another manifest for the tag, with the digest header of the signed one", func(repository string, _, other lying.Content) {
					up.Lie(lying.Manifest(repository, "v1").GET(), lying.Body(other.Body))
				}},
				{"another manifest under the signed digest", func(repository string, image, other lying.Content) {
					up.PutManifest(repository, image.Digest().String(), image.MediaType, other.Body)
				}},
			} {
				t.Run(lie.title, func(t *testing.T) {
					repository := fmt.Sprintf("acme/%s%d", c.Name(), i)
					image, other := real.Busybox(t, real.OCI, repository), real.Busybox(t, real.OCI, "evil")
					up.PushSigned(repository, image, key, "v1")
					up.Push(repository, other)
					lie.tell(repository, image, other)
					defer up.BeHonest()
					if r := c.Pull(t, "docker.io", repository, "v1"); r.Code == 0 {
						t.Fatalf("pulled: %s", r.Output())
					}
					runner, runs := c.(real.Runner)
					if !runs {
						return
					}
					if r := runner.Exec(t, "docker.io", repository, "v1", "/bin/echo", "it runs"); strings.Contains(r.Stdout, "it runs") {
						t.Error("what was refused runs")
					}
				})
			}
		})
	}
}

// The catch-all of containerd's configuration leaves no registry out.
func TestContainerdsDefaultHostsFileEnforces(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	key := lying.P256()
	dir := real.Dir(t)
	key.WritePublic(t, dir, "release.pub")
	up.PushSigned("acme/web", real.Busybox(t, real.OCI, "default"), key, "v1")
	v := real.StartVidimus(t, built(t, racing), dir, fmt.Sprintf(`
upstreams: {docker.io: {url: %q}}
authorities: {release: {keys: [release.pub]}}
policies:
  - {match: "docker.io/**", require: release}
`, up.URL))
	c := real.StartContainerd(t, v.Addr, "_default")
	if r := c.Pull(t, "docker.io", "acme/web", "v1"); r.Code != 0 {
		t.Errorf("pull of a signed image: %s", r.Output())
	}
	if r := c.Pull(t, "quay.io", "acme/web", "v1"); r.Code == 0 || !strings.Contains(r.Output(), http.StatusText(http.StatusForbidden)) {
		t.Errorf("pull from a registry that is not configured: exit code %d\n%s", r.Code, r.Output())
	}
}

// skopeo reads an image and its configuration through the proxy as
// docs/clients.md says.
func TestSkopeoInspectsThroughTheProxy(t *testing.T) {
	t.Parallel()
	up := lying.Start(t)
	key := lying.P256()
	dir := real.Dir(t)
	key.WritePublic(t, dir, "release.pub")
	image := real.Busybox(t, real.DockerSchema2, "inspected")
	up.PushSigned("acme/web", image, key, "v1")
	v := real.StartVidimus(t, built(t, racing), dir, fmt.Sprintf(`
upstreams: {docker.io: {url: %q}}
authorities: {release: {keys: [release.pub]}}
policies:
  - {match: "docker.io/**", require: release}
`, up.URL))
	r := must(t, real.NewSkopeo(t, v.Addr, "docker.io").Command(t, "inspect", "--no-tags", "docker://docker.io/acme/web:v1"))
	if !strings.Contains(r.Stdout, image.Digest().String()) || !strings.Contains(r.Stdout, "inspected") {
		t.Errorf("it prints %s", r.Output())
	}
}
