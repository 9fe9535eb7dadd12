package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// pushWorld is a proxy before distribution's registry that signs what is pushed.
type pushWorld struct {
	*testing.T
	registry string
	proxy    *real.Vidimus
	keys     keyPair
}

func newPushWorld(t *testing.T) *pushWorld {
	t.Helper()
	return newPushWorldBefore(t, real.StartDistribution(t), "")
}

// newPushWorldBefore has more lines for the proxy's configuration.
func newPushWorldBefore(t *testing.T, registry, more string) *pushWorld {
	t.Helper()
	w := &pushWorld{T: t, registry: registry, keys: newKeyPair(t)}
	w.proxy = real.StartVidimus(t, built(t, racing), real.Dir(t), fmt.Sprintf(`
upstreams: {local: {url: "http://%s"}}
authorities: {release: {keys: [%q], signer: {key: %q, passwordEnv: COSIGN_PASSWORD}}}
policies:
  - {match: "local/acme/**", require: release, push: {sign: release, delete: true}}
  - {match: "local/open/**", allow: unverified, push: unsigned}
%s`, w.registry, w.keys.public, w.keys.private, more), password...)
	return w
}

// name is an image as clients name it through the proxy.
func (w *pushWorld) name(repository string) string { return w.proxy.Addr + "/local/" + repository }

// manifest returns a manifest of the registry itself.
func (w *pushWorld) manifest(t *testing.T, repository, reference string) (body []byte, ok bool) {
	t.Helper()
	request, err := http.NewRequest("GET", "http://"+w.registry+"/v2/"+repository+"/manifests/"+reference, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, accepted := range []string{"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"} {
		request.Header.Add("Accept", accepted)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body, response.StatusCode == http.StatusOK
}

// isSigned fails the test unless the registry shows the tag with the signature, which
// cosign verifies, and the proxy serves it.
func (w *pushWorld) isSigned(t *testing.T, repository, tag string) {
	t.Helper()
	body, ok := w.manifest(t, repository, tag)
	if !ok {
		t.Fatalf("the registry shows no %s:%s", repository, tag)
	}
	digest := lying.Digest(body)
	for _, major := range []int{2, 3} {
		r := real.NewCosign(t, major).Verify(t, w.keys.public, w.registry+"/"+repository+"@"+digest.String())
		if r.Code != 0 {
			t.Errorf("cosign %d does not verify it: %s", major, r.Output())
		}
	}
	response, err := http.Get("http://" + w.proxy.Addr + "/v2/local/" + repository + "/manifests/" + tag)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the proxy answers %d", response.StatusCode)
	}
}

// A24 with real clients: cosign 2 reads, adds and writes, many at once.
func TestManyCosignsSignThroughTheProxyAtOnce(t *testing.T) {
	t.Parallel()
	w := newPushWorld(t)
	image := lying.Image("signed by many")
	digest := lying.Digest(image.Body)
	real.Push(t, w.registry, "open/web", image, "v1")
	cosign := real.NewCosign(t, 2)
	const signers = 8
	var group sync.WaitGroup
	for i := range signers {
		dir := t.TempDir()
		must(t, cosign.Run(t, dir, "generate-key-pair"))
		group.Go(func() {
			r := cosign.Sign(t, filepath.Join(dir, "cosign.key"), w.name("open/web")+"@"+digest.String(), "--allow-http-registry")
			if r.Code != 0 {
				t.Errorf("signer %d: %s", i, r.Output())
			}
		})
	}
	group.Wait()
	body, _ := w.manifest(t, "open/web", lying.SignatureTag(digest))
	var m v1.Manifest
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Layers) != signers {
		t.Errorf("%d signatures, want %d", len(m.Layers), signers)
	}
}

// distribution has no referrers API: cosign 3 finds its bundle all the same, through
// the proxy and beside it.
func TestCosignSignsABundleThroughTheProxy(t *testing.T) {
	t.Parallel()
	w := newPushWorld(t)
	image := lying.Image("bundle")
	digest := lying.Digest(image.Body)
	real.Push(t, w.registry, "open/web", image, "v1")
	cosign := real.NewCosign(t, 3)
	dir := t.TempDir()
	must(t, cosign.Run(t, dir, "generate-key-pair"))
	must(t, cosign.SignBundle(t, filepath.Join(dir, "cosign.key"), w.name("open/web")+"@"+digest.String(), "--allow-http-registry"))
	for _, at := range []string{w.name("open/web"), w.registry + "/open/web"} {
		must(t, cosign.Verify(t, filepath.Join(dir, "cosign.pub"), at+"@"+digest.String(), "--allow-http-registry"))
	}
}
