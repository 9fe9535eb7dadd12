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
	w := &pushWorld{T: t, registry: real.StartDistribution(t), keys: newKeyPair(t)}
	w.proxy = real.StartVidimus(t, built(t, racing), real.Dir(t), fmt.Sprintf(`
upstreams: {local: {url: "http://%s"}}
authorities: {release: {keys: [%q], signer: {key: %q, passwordEnv: COSIGN_PASSWORD}}}
policies:
  - {match: "local/acme/**", require: release, push: {sign: release, delete: true}}
  - {match: "local/open/**", allow: unverified, push: unsigned}
`, w.registry, w.keys.public, w.keys.private), password...)
	return w
}

// name is an image as clients name it through the proxy.
func (w *pushWorld) name(repository string) string { return w.proxy.Addr + "/local/" + repository }

// manifest returns a manifest of the registry itself.
func (w *pushWorld) manifest(repository, reference string) (body []byte, ok bool) {
	w.Helper()
	request, err := http.NewRequest("GET", "http://"+w.registry+"/v2/"+repository+"/manifests/"+reference, nil)
	if err != nil {
		w.Fatal(err)
	}
	for _, accepted := range []string{"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"} {
		request.Header.Add("Accept", accepted)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.Fatal(err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		w.Fatal(err)
	}
	return body, response.StatusCode == http.StatusOK
}

// isSigned fails the test unless the registry shows the tag with the signature, which
// cosign verifies, and the proxy serves it.
func (w *pushWorld) isSigned(t *testing.T, repository, tag string) {
	t.Helper()
	body, ok := w.manifest(repository, tag)
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

func TestRealClientsPush(t *testing.T) {
	w := newPushWorld(t)
	source := real.StartDistribution(t)
	image := real.Busybox(t, real.OCI, "pushed")
	real.Push(t, source, "from/one", image, "v1")
	real.Push(t, source, "from/many", real.BusyboxIndex(t, real.OCI, "pushed"), "v1")
	for _, client := range []struct {
		name string
		push func(t *testing.T, from, to string) real.Result
		all  bool // copies an index with all that it lists
	}{
		{"crane", func(t *testing.T, from, to string) real.Result {
			return real.Run(t, real.Command{Path: real.Program(t, "crane"), Args: []string{"copy", "--insecure", from, to}})
		}, true},
		{"skopeo", func(t *testing.T, from, to string) real.Result {
			return real.NewSkopeo(t, w.proxy.Addr).Command(t, "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+from, "docker://"+to)
		}, true},
		{"podman", func(t *testing.T, from, to string) real.Result {
			podman := real.NewPodman(t, w.proxy.Addr)
			must(t, podman.PullWith(t, from, "--tls-verify=false"))
			must(t, podman.Command(t, "tag", from, to))
			return podman.Command(t, "push", "--tls-verify=false", to)
		}, false},
		{"containerd", func(t *testing.T, from, to string) real.Result {
			containerd := real.StartContainerd(t, w.proxy.Addr)
			must(t, containerd.Command(t, "images", "pull", "--plain-http", "--all-platforms", from))
			must(t, containerd.Command(t, "images", "tag", from, to))
			return containerd.Command(t, "images", "push", "--plain-http", to)
		}, true},
		{"docker", func(t *testing.T, from, to string) real.Result {
			docker := real.StartDocker(t, w.proxy.Addr)
			must(t, docker.Command(t, nil, "pull", from))
			must(t, docker.Command(t, nil, "tag", from, to))
			return docker.Command(t, nil, "push", to)
		}, false},
	} {
		t.Run(client.name, func(t *testing.T) {
			for _, kind := range []string{"one", "many"} {
				if kind == "many" && !client.all {
					continue
				}
				repository := "acme/" + client.name + "/" + kind
				for range 2 { // the second time most of it is there
					must(t, client.push(t, source+"/from/"+kind+":v1", w.name(repository)+":v1"))
				}
				w.isSigned(t, repository, "v1")
			}
		})
	}
}

// A24 with real clients: cosign 2 reads, adds and writes, many at once.
func TestManyCosignsSignThroughTheProxyAtOnce(t *testing.T) {
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
	body, _ := w.manifest("open/web", lying.SignatureTag(digest))
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
