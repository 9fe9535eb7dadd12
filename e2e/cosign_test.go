package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// keyPair is a key pair on disk.
type keyPair struct{ private, public string }

func keysIn(dir string) keyPair {
	return keyPair{filepath.Join(dir, "cosign.key"), filepath.Join(dir, "cosign.pub")}
}

var password = []string{"COSIGN_PASSWORD=" + real.Password}

// newKeyPair makes one with our command.
func newKeyPair(t *testing.T) keyPair {
	t.Helper()
	dir := t.TempDir()
	must(t, vidimus(t, dir, password, "generate-key-pair"))
	return keysIn(dir)
}

// proxyFor starts a proxy that asks for a signature by any of these keys on
// what registry, as docker.io, holds.
func proxyFor(t *testing.T, registry string, publicKeys ...string) *real.Vidimus {
	t.Helper()
	var quoted []string
	for _, key := range publicKeys {
		quoted = append(quoted, fmt.Sprintf("%q", key))
	}
	return real.StartVidimus(t, built(t, racing), real.Dir(t), fmt.Sprintf(`
upstreams: {docker.io: {url: "http://%s"}}
authorities: {release: {keys: [%s]}}
policies:
  - {match: "docker.io/**", require: release}
`, registry, strings.Join(quoted, ", ")))
}

// status asks the proxy for a manifest, as a client does.
func status(t *testing.T, v *real.Vidimus, repository, reference string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + v.Addr + "/v2/docker.io/" + repository + "/manifests/" + reference)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestE6CosignAndVidimusUnderstandEachOther(t *testing.T) {
	t.Parallel()
	for _, major := range []int{2, 3} {
		t.Run(fmt.Sprintf("cosign %d", major), func(t *testing.T) {
			t.Parallel()
			cosign := real.NewCosign(t, major)
			registry := real.StartDistribution(t)
			theirs := keysIn(t.TempDir())
			if r := cosign.Run(t, filepath.Dir(theirs.private), "generate-key-pair"); r.Code != 0 {
				t.Fatal(r.Output())
			}
			ours := newKeyPair(t)
			proxy := proxyFor(t, registry, theirs.public, ours.public)
			for _, pair := range []struct {
				name string
				keyPair
			}{{"its", theirs}, {"our", ours}} {
				x := exchange{cosign, registry, proxy, pair.keyPair}
				t.Run("what it signs with "+pair.name+" key is admitted", x.theySign)
				t.Run("what we sign with "+pair.name+" key it verifies", x.weSign)
				t.Run("both read the same public key from "+pair.name+" key", x.publicKey)
			}
			x := exchange{cosign, registry, proxy, ours}
			t.Run("signatures of both stay side by side", x.sideBySide)
			t.Run("an index signed with its children verifies", x.recursive)
			t.Run("both know the same place for signatures", x.triangulate)
		})
	}
}

// exchange is one cosign, one registry, and one key pair for both sides.
type exchange struct {
	cosign   *real.Cosign
	registry string
	proxy    *real.Vidimus
	keyPair
}

// push pushes an image of its own to a repository of its own.
func (x exchange) push(t *testing.T) (repository string, digest v1.Hash, image string) {
	t.Helper()
	content := lying.Image(t.Name())
	repository = "acme/" + lying.Digest([]byte(t.Name())).Hex[:12]
	real.Push(t, x.registry, repository, content, "v1")
	return repository, content.Digest(), x.registry + "/" + repository + "@" + content.Digest().String()
}

func (x exchange) theySign(t *testing.T) {
	repository, digest, image := x.push(t)
	must(t, x.cosign.Sign(t, x.private, image, "-a", "env=prod"))
	if code, body := status(t, x.proxy, repository, "v1"); code != http.StatusOK {
		t.Errorf("the proxy answers %d %s", code, body)
	}
	r := must(t, vidimus(t, "", nil, "verify", "--key", x.public, "-a", "env=prod", image))
	want := must(t, x.cosign.Verify(t, x.public, image, "-a", "env=prod"))
	if diff := cmp.Diff(payloads(t, want.Stdout), payloads(t, r.Stdout)); diff != "" {
		t.Errorf("vidimus verify prints other payloads than cosign verify:\n%s", diff)
	}
	stranger := newKeyPair(t)
	if r := vidimus(t, "", nil, "verify", "--key", stranger.public, image); r.Code != 1 {
		t.Errorf("verify by a stranger's key: exit code %d, want 1\n%s", r.Code, r.Output())
	}
	if r := vidimus(t, "", nil, "verify", "--key", x.public, "-a", "env=test", image); r.Code != 1 {
		t.Errorf("verify with another annotation: exit code %d, want 1\n%s", r.Code, r.Output())
	}
	through := x.proxy.Addr + "/docker.io/" + repository
	must(t, x.cosign.Verify(t, x.public, through+":v1"))
	must(t, x.cosign.Verify(t, x.public, through+"@"+digest.String()))
}

// weSign signs under a tag: of annotations in a bundle, cosign 2 takes no notice.
func (x exchange) weSign(t *testing.T) {
	repository, _, image := x.push(t)
	must(t, vidimus(t, "", password, "sign", "--format", "tag", "--key", x.private, "-a", "env=prod", image))
	must(t, x.cosign.Verify(t, x.public, image, "-a", "env=prod"))
	if r := x.cosign.Verify(t, x.public, image, "-a", "env=test"); r.Code == 0 {
		t.Errorf("cosign verifies an annotation that is not there:\n%s", r.Output())
	}
	must(t, x.cosign.Verify(t, x.public, x.proxy.Addr+"/docker.io/"+repository+":v1"))
	must(t, vidimus(t, "", nil, "verify", "--key", x.public, image))
}

func (x exchange) publicKey(t *testing.T) {
	theirs := must(t, x.cosign.Run(t, "", "public-key", "--key", x.private)).Stdout
	ours := must(t, vidimus(t, "", password, "public-key", "--key", x.private)).Stdout
	file, err := os.ReadFile(x.public)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimSpace(string(file))
	if strings.TrimSpace(theirs) != want || strings.TrimSpace(ours) != want {
		t.Errorf("cosign reads %s\nwe read %s\nthe file has %s", theirs, ours, want)
	}
}

// sideBySide keeps to tags: where there is a bundle, cosign looks at bundles alone.
func (x exchange) sideBySide(t *testing.T) {
	_, _, image := x.push(t)
	must(t, x.cosign.Sign(t, x.private, image, "-a", "by=cosign"))
	must(t, vidimus(t, "", password, "sign", "--format", "tag", "--key", x.private, "-a", "by=vidimus", image))
	must(t, x.cosign.Sign(t, x.private, image, "-a", "by=cosign again"))
	for _, by := range []string{"cosign", "vidimus", "cosign again"} {
		must(t, vidimus(t, "", nil, "verify", "--key", x.public, "-a", "by="+by, image))
		must(t, x.cosign.Verify(t, x.public, image, "-a", "by="+by))
	}
}

func (x exchange) recursive(t *testing.T) {
	index := lying.Index(lying.ImageFor(t.Name(), "amd64"), lying.ImageFor(t.Name(), "arm64"))
	real.Push(t, x.registry, "acme/recursive", index, "v1")
	image := x.registry + "/acme/recursive@"
	must(t, vidimus(t, "", password, "sign", "--recursive", "--key", x.private, image+index.Digest().String()))
	for _, content := range append(index.Children, index) {
		must(t, x.cosign.Verify(t, x.public, image+content.Digest().String()))
	}
}

func (x exchange) triangulate(t *testing.T) {
	_, _, image := x.push(t)
	theirs := must(t, x.cosign.Run(t, "", "triangulate", image)).Stdout
	ours := must(t, vidimus(t, "", nil, "triangulate", image)).Stdout
	if diff := cmp.Diff(theirs, ours); diff != "" {
		t.Error(diff)
	}
}

// payloads reads what verify prints.
func payloads(t *testing.T, stdout string) []any {
	t.Helper()
	var all []any
	if err := json.Unmarshal([]byte(stdout), &all); err != nil {
		t.Fatalf("%v in %q", err, stdout)
	}
	return all
}

// Six processes sign one image at the same moment: nobody's signature is lost.
func TestConcurrentSignersLoseNothing(t *testing.T) {
	t.Parallel()
	for _, registry := range []struct {
		name  string
		start func(testing.TB) string
	}{
		{"distribution", real.StartDistribution},
		{"go-containerregistry", real.StartGGCR},
	} {
		t.Run(registry.name, func(t *testing.T) {
			addr := registry.start(t)
			content := lying.Image("contended")
			image := addr + "/acme/contended@" + real.Push(t, addr, "acme/contended", content)
			key := newKeyPair(t)
			const signers = 6
			results := make([]real.Result, signers)
			var all sync.WaitGroup
			for i := range signers {
				all.Go(func() {
					results[i] = vidimus(t, "", password, "sign", "--key", key.private, "-a", fmt.Sprintf("signer=%d", i), image)
				})
			}
			all.Wait()
			for i, r := range results {
				if r.Code != 0 {
					t.Errorf("signer %d: exit code %d\n%s", i, r.Code, r.Output())
					continue
				}
				must(t, vidimus(t, "", nil, "verify", "--key", key.public, "-a", fmt.Sprintf("signer=%d", i), image))
			}
		})
	}
}
