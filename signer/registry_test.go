package signer

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const testRepository = "acme/web"

// testRegistry is go-containerregistry's registry, asked without a network, so
// that a test owns its time (testing/synctest).
type testRegistry struct {
	handler http.Handler
	lists   bool // referrers by itself, and says so
	keeps   bool // what it has: it deletes nothing

	// before and after, when set, run around every request; an error of before
	// is the answer, and the request does not happen, while one of after is
	// the answer to a request that did.
	before, after func(method, path string) error

	mu       sync.Mutex
	requests []string
}

func newTestRegistry() *testRegistry {
	return &testRegistry{handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(true))}
}

func (r *testRegistry) do(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, []byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	r.requests = append(r.requests, method+" "+path)
	r.mu.Unlock()
	if r.before != nil {
		if err := r.before(method, path); err != nil {
			return nil, nil, err
		}
	}
	req := httptest.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	rec := httptest.NewRecorder()
	r.handler.ServeHTTP(rec, req)
	if r.after != nil {
		if err := r.after(method, path); err != nil {
			return nil, nil, err
		}
	}
	return rec.Result(), rec.Body.Bytes(), nil
}

func (r *testRegistry) Manifest(ctx context.Context, repository, reference string) ([]byte, error) {
	resp, body, err := r.do(ctx, http.MethodGet, "/v2/"+repository+"/manifests/"+reference, "", nil)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		return nil, fs.ErrNotExist
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return body, nil
}

func (r *testRegistry) PutBlob(ctx context.Context, repository string, digest v1.Hash, data []byte) error {
	resp, body, err := r.do(ctx, http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+digest.String(), "application/octet-stream", data)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return err
}

func (r *testRegistry) PutManifest(ctx context.Context, repository, reference string, mediaType types.MediaType, data []byte) (bool, error) {
	resp, body, err := r.do(ctx, http.MethodPut, "/v2/"+repository+"/manifests/"+reference, string(mediaType), data)
	if err == nil && resp.StatusCode != http.StatusCreated {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return r.lists, err
}

func (r *testRegistry) DeleteManifest(ctx context.Context, repository string, digest v1.Hash) error {
	if r.keeps {
		return fmt.Errorf("%w: status 405", ErrNoDelete)
	}
	resp, body, err := r.do(ctx, http.MethodDelete, "/v2/"+repository+"/manifests/"+digest.String(), "", nil)
	if err == nil && resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNotFound {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	return err
}

func (r *testRegistry) Blob(ctx context.Context, repository string, digest v1.Hash, limit int64) ([]byte, error) {
	resp, body, err := r.do(ctx, http.MethodGet, "/v2/"+repository+"/blobs/"+digest.String(), "", nil)
	if err == nil && (resp.StatusCode != http.StatusOK || int64(len(body)) > limit) {
		err = fmt.Errorf("status %d, %d bytes", resp.StatusCode, len(body))
	}
	return body, err
}

// Referrers asks the registry where it lists referrers, and reads the fallback tag
// where it does not.
func (r *testRegistry) Referrers(ctx context.Context, repository string, digest v1.Hash) ([]v1.Descriptor, error) {
	path := "/v2/" + repository + "/manifests/" + FallbackTag(digest)
	if r.lists {
		path = "/v2/" + repository + "/referrers/" + digest.String()
	}
	resp, body, err := r.do(ctx, http.MethodGet, path, "", nil)
	if err != nil || resp.StatusCode == http.StatusNotFound {
		return nil, err
	}
	return ReferrersIndex(body), nil
}

// put stores a manifest past before and after, and returns its digest.
func (r *testRegistry) put(t *testing.T, reference string, mediaType types.MediaType, data []byte) v1.Hash {
	t.Helper()
	quiet := &testRegistry{handler: r.handler}
	if _, err := quiet.PutManifest(t.Context(), testRepository, reference, mediaType, data); err != nil {
		t.Fatal(err)
	}
	return digestOf(data)
}

// image stores an image manifest that differs for every name, and returns its
// digest.
func (r *testRegistry) image(t *testing.T, name string) v1.Hash {
	t.Helper()
	return r.put(t, name, types.OCIManifestSchema1, imageManifest(name))
}

func imageManifest(name string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"size":2,"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},"layers":[],"annotations":{"name":%q}}`,
		types.OCIManifestSchema1, types.OCIConfigJSON, name)
}

// index stores an index of the given manifests under tag, and returns its
// digest.
func (r *testRegistry) index(t *testing.T, tag string, mediaType types.MediaType, listed ...v1.Hash) v1.Hash {
	t.Helper()
	return r.put(t, tag, types.OCIImageIndex, indexManifest(t, mediaType, listed...))
}

func indexManifest(t *testing.T, mediaType types.MediaType, listed ...v1.Hash) []byte {
	t.Helper()
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, digest := range listed {
		index.Manifests = append(index.Manifests, v1.Descriptor{MediaType: mediaType, Digest: digest, Size: 1})
	}
	data, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// signatures returns the manifest under the .sig tag of subject, decoded by
// go-containerregistry, and its bytes.
func (r *testRegistry) signatures(t *testing.T, subject v1.Hash) (*v1.Manifest, []byte) {
	t.Helper()
	quiet := &testRegistry{handler: r.handler}
	data, err := quiet.Manifest(t.Context(), testRepository, Tag(subject))
	if err != nil {
		t.Fatal(err)
	}
	m, err := v1.ParseManifest(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return m, data
}

// blob returns a blob, which must have its digest.
func (r *testRegistry) blob(t *testing.T, digest v1.Hash) []byte {
	t.Helper()
	quiet := &testRegistry{handler: r.handler}
	resp, data, err := quiet.do(t.Context(), http.MethodGet, "/v2/"+testRepository+"/blobs/"+digest.String(), "", nil)
	if err != nil || resp.StatusCode != http.StatusOK || digestOf(data) != digest {
		t.Fatalf("blob %s: %v, %v", digest, resp, err)
	}
	return data
}

func (r *testRegistry) count(method, path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, request := range r.requests {
		if request == method+" "+path {
			n++
		}
	}
	return n
}

// checkConfig wants the config of a signature image to describe its layers.
func (r *testRegistry) checkConfig(t *testing.T, m *v1.Manifest) {
	t.Helper()
	data := r.blob(t, m.Config.Digest)
	if int64(len(data)) != m.Config.Size {
		t.Errorf("config is %d bytes, its descriptor says %d", len(data), m.Config.Size)
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if len(config.History) != len(m.Layers) || config.RootFS.Type != "layers" {
		t.Errorf("config has %d history entries and root fs type %q for %d layers", len(config.History), config.RootFS.Type, len(m.Layers))
	}
	for i, layer := range m.Layers {
		if i >= len(config.RootFS.DiffIDs) || config.RootFS.DiffIDs[i] != layer.Digest {
			t.Fatalf("diff IDs %v do not follow the layers", config.RootFS.DiffIDs)
		}
	}
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		t.Errorf("%d diff IDs for %d layers", len(config.RootFS.DiffIDs), len(m.Layers))
	}
}

func mustKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func mustSigner(t testing.TB, c Config) *Signer {
	t.Helper()
	if c.Key == nil {
		c.Key = mustKey(t)
	}
	if c.Formats == nil {
		c.Formats = []Format{FormatTag}
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
