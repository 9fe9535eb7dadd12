package e2e_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"

	"vidimus/e2e/lying"
	"vidimus/e2e/real"
)

// recording is a registry that keeps the paths of what is read from it.
type recording struct {
	http.Handler
	mu   sync.Mutex
	read []string
}

func (r *recording) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method == http.MethodGet {
		r.mu.Lock()
		r.read = append(r.read, req.URL.Path)
		r.mu.Unlock()
	}
	r.Handler.ServeHTTP(w, req)
}

// reads returns what f reads of a repository, in the order of arrival, but for
// the signature tag of old: nobody waits for it.
func (r *recording) reads(repository string, f func()) (manifests, blobs []string) {
	r.mu.Lock()
	r.read = nil
	r.mu.Unlock()
	f()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, path := range r.read {
		if reference, ok := strings.CutPrefix(path, "/v2/"+repository+"/manifests/"); ok && !strings.HasSuffix(reference, ".cosign") {
			manifests = append(manifests, reference)
		}
		if digest, ok := strings.CutPrefix(path, "/v2/"+repository+"/blobs/"); ok {
			blobs = append(blobs, digest)
		}
	}
	return manifests, blobs
}

// What a signer writes who is told of no annotation is predicted to the byte, so
// that two lookups decide.
func TestAPlainSignatureIsCheckedWithoutFetchingItsPayload(t *testing.T) {
	t.Parallel()
	key := newKeyPair(t)
	for _, signer := range []struct {
		name string
		sign func(t *testing.T, image string, args ...string)
	}{
		{"cosign 2", func(t *testing.T, image string, args ...string) {
			must(t, real.NewCosign(t, 2).Sign(t, key.private, image, args...))
		}},
		{"cosign 3", func(t *testing.T, image string, args ...string) {
			must(t, real.NewCosign(t, 3).Sign(t, key.private, image, args...))
		}},
		{"vidimus", func(t *testing.T, image string, args ...string) {
			must(t, vidimus(t, "", password, append(append([]string{"sign", "--key", key.private}, args...), image)...))
		}},
	} {
		t.Run(signer.name, func(t *testing.T) {
			t.Parallel()
			upstream := &recording{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
			server := httptest.NewServer(upstream)
			t.Cleanup(server.Close)
			addr := server.Listener.Addr().String()
			proxy := proxyFor(t, addr, key.public)
			for _, tt := range []struct {
				tag      string
				args     []string
				payloads int // that are read
			}{
				{"plain", nil, 0},
				{"named", []string{"--sign-container-identity", "docker.io/acme/web:named"}, 0},
				{"annotated", []string{"-a", "env=prod"}, 1},
			} {
				content := lying.Image(t.Name() + tt.tag)
				real.Push(t, addr, "acme/web", content, tt.tag)
				signer.sign(t, addr+"/acme/web@"+content.Digest().String(), tt.args...)
				manifests, blobs := upstream.reads("acme/web", func() {
					if code, body := status(t, proxy, "acme/web", tt.tag); code != http.StatusOK {
						t.Errorf("%s: the proxy answers %d %s", tt.tag, code, body)
					}
				})
				// the image's own blobs are fetched ahead, and no part of the evidence
				blobs = slices.DeleteFunc(blobs, func(digest string) bool {
					return slices.ContainsFunc(content.Blobs, func(blob []byte) bool { return lying.Digest(blob).String() == digest })
				})
				if diff := cmp.Diff([]string{tt.tag, lying.SignatureTag(content.Digest())}, manifests); diff != "" || len(blobs) != tt.payloads {
					t.Errorf("%s: payloads %v, manifests (-want +got):\n%s", tt.tag, blobs, diff)
				}
			}
		})
	}
}
