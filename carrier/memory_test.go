package carrier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// memory is a Place and a Target in memory. It notes what is written, in order.
type memory struct {
	name string
	api  bool // it has a referrers API, and lists in it what is written

	// fault, when set, is asked before every answer; what it returns is the answer's
	// error.
	fault func(what, reference string) error

	mu        sync.Mutex
	manifests map[string]Manifest // by tag and digest
	blobs     map[v1.Hash][]byte
	referrers map[v1.Hash][]v1.Descriptor
	written   []string
}

func newMemory(name string) *memory {
	return &memory{
		name: name, manifests: make(map[string]Manifest), blobs: make(map[v1.Hash][]byte), referrers: make(map[v1.Hash][]v1.Descriptor),
	}
}

func (m *memory) Name() string { return m.name }

func (m *memory) failing(what, reference string) error {
	if m.fault == nil {
		return nil
	}
	return m.fault(what, reference)
}

func (m *memory) Manifest(_ context.Context, reference string) (Manifest, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failing("manifest", reference); err != nil {
		return Manifest{}, err
	}
	found, ok := m.manifests[reference]
	if !ok {
		return Manifest{}, fs.ErrNotExist
	}
	return found, nil
}

func (m *memory) Referrers(_ context.Context, digest v1.Hash) ([]v1.Descriptor, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failing("referrers", digest.String()); err != nil {
		return nil, err
	}
	if !m.api {
		return nil, fs.ErrNotExist
	}
	return m.referrers[digest], nil
}

func (m *memory) Blob(_ context.Context, digest v1.Hash) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failing("blob", digest.String()); err != nil {
		return nil, err
	}
	data, ok := m.blobs[digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m *memory) HasBlob(_ context.Context, digest v1.Hash) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.blobs[digest]
	return ok, m.failing("has", digest.String())
}

func (m *memory) PutBlob(_ context.Context, desc v1.Descriptor, _ Place, open func() (io.ReadCloser, error)) (bool, error) {
	if err := m.failing("put blob", desc.Digest.String()); err != nil {
		return false, err
	}
	body, err := open()
	if err != nil {
		return false, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	m.mu.Lock()
	defer m.mu.Unlock()
	if digestOf(data) == desc.Digest { // whatever the reader says: it would be there
		m.blobs[desc.Digest] = data
		m.written = append(m.written, desc.Digest.String())
	}
	return false, err
}

func (m *memory) PutManifest(_ context.Context, reference string, put Manifest) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failing("put manifest", reference); err != nil {
		return false, err
	}
	n, err := parse(put, digestOf(put.Data), m)
	if err != nil {
		return false, err
	}
	for _, desc := range n.Blobs {
		if _, ok := m.blobs[desc.Digest]; !ok {
			return false, fmt.Errorf("blob %s of %s is missing", desc.Digest, reference)
		}
	}
	for _, desc := range n.Listed {
		if _, ok := m.manifests[desc.Digest.String()]; !ok {
			return false, fmt.Errorf("manifest %s of %s is missing", desc.Digest, reference)
		}
	}
	m.manifests[reference], m.manifests[n.Digest.String()] = put, put
	m.written = append(m.written, reference)
	if m.api && n.Subject != (v1.Hash{}) {
		m.referrers[n.Subject] = append(m.referrers[n.Subject], n.Descriptor())
	}
	return m.api && n.Subject != (v1.Hash{}), nil
}

// blob adds a blob.
func (m *memory) blob(mediaType types.MediaType, data string) v1.Descriptor {
	digest := digestOf([]byte(data))
	m.blobs[digest] = []byte(data)
	return v1.Descriptor{MediaType: mediaType, Size: int64(len(data)), Digest: digest}
}

// put adds a manifest under its digest, and tags, and returns its digest.
func (m *memory) put(t *testing.T, fields map[string]any, tags ...string) v1.Hash {
	t.Helper()
	data, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	digest := digestOf(data)
	for _, reference := range append(tags, digest.String()) {
		m.manifests[reference] = Manifest{Data: data}
	}
	return digest
}

func (m *memory) image(t *testing.T, seed string, tags ...string) v1.Hash {
	t.Helper()
	return m.put(t, imageFields(m, seed), tags...)
}

func imageFields(m *memory, seed string) map[string]any {
	return map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1,
		"config": m.blob(types.OCIConfigJSON, `{"seed":"`+seed+`"}`),
		"layers": []any{m.blob(types.OCILayer, "layer of "+seed)},
	}
}

func (m *memory) index(t *testing.T, children []v1.Hash, tags ...string) v1.Hash {
	t.Helper()
	return m.put(t, indexFields(children), tags...)
}

// listing adds a list of referrers, which have no platform, under a tag.
func (m *memory) listing(t *testing.T, referrers []v1.Hash, tag string) {
	t.Helper()
	fields := indexFields(referrers)
	for _, desc := range fields["manifests"].([]any) {
		delete(desc.(map[string]any), "platform")
	}
	m.put(t, fields, tag)
}

func indexFields(children []v1.Hash) map[string]any {
	listed := []any{}
	for i, child := range children {
		listed = append(listed, map[string]any{
			"mediaType": types.OCIManifestSchema1, "size": 1, "digest": child,
			"platform": map[string]string{"os": "linux", "architecture": fmt.Sprint("cpu", i)},
		})
	}
	return map[string]any{"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": listed}
}

// signatures adds an image of signatures about a subject under its tag.
func (m *memory) signatures(t *testing.T, subject v1.Hash, seeds ...string) v1.Hash {
	t.Helper()
	fields := imageFields(m, "signatures "+strings.Join(seeds, ","))
	var layers []any
	for _, seed := range seeds {
		layer := m.blob("application/vnd.dev.cosign.simplesigning.v1+json", "payload "+seed)
		layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": seed}
		layers = append(layers, layer)
	}
	fields["layers"] = layers
	return m.put(t, fields, Tag(subject, ".sig"))
}

// refer adds an artifact about a subject, and lists it under the fallback tag.
func (m *memory) refer(t *testing.T, subject v1.Hash, artifactType string) v1.Hash {
	t.Helper()
	fields := imageFields(m, "artifact "+artifactType)
	fields["artifactType"] = artifactType
	fields["subject"] = v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: 1, Digest: subject}
	digest := m.put(t, fields)
	m.list(t, subject, digest)
	return digest
}

func (m *memory) list(t *testing.T, subject v1.Hash, referrers ...v1.Hash) {
	t.Helper()
	tag := Tag(subject, "")
	if before, ok := m.manifests[tag]; ok {
		n, err := parse(before, digestOf(before.Data), m)
		if err != nil {
			t.Fatal(err)
		}
		for _, desc := range n.Listed {
			referrers = append(referrers, desc.Digest)
		}
	}
	m.listing(t, referrers, tag)
}

var errBroken = errors.New("broken")
